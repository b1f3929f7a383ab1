//! The file that a container runtime keeps of wrapped lines, as a collector of a
//! node reads it: conmon's, in the format of the CRI.

use std::fs;

use serde_json::Value;

use crate::podman::{Container, Image, shared_directory};

const LINES: usize = 2000;

/// Around what conmon reads at a time (8 KiB), below the longest line of
/// castoff's, and beyond it. The letters are castoff's own to escape.
const SCRIPT: &str = r#"
    write() {
        awk 'BEGIN {
            x = "\"\\y"; while (length(x) < 60000) x = x x
            for (i = 0; i < 2000; i++) {
                n = i % 200 == 0 ? 50000 : i % 20 == 0 ? 12000 : i % 7 == 0 ? 4060 + i % 64 : i % 300
                print i " " substr(x, 1, n)
            }
            print "all"
        }'
    }
    write & write >&2; wait; exec sleep 600"#;

fn expected() -> Vec<String> {
    let letters = "\"\\y".repeat(20_000);
    let length = |i: usize| match i {
        i if i % 200 == 0 => 50_000,
        i if i % 20 == 0 => 12_000,
        i if i % 7 == 0 => 4060 + i % 64,
        i => i % 300,
    };
    let text = |i| letters.get(..length(i)).unwrap_or_default();
    let lines = (0..LINES).map(|i| format!("{i} {}", text(i)));
    lines.chain(["all".to_owned()]).collect()
}

/// What the child has said, from the wrapped lines of one stream.
#[track_caller]
fn said(lines: &[String]) -> Vec<String> {
    let (mut said, mut begun) = (Vec::new(), String::new());
    for line in lines {
        assert!(line.len() < 16 * 1024, "{} bytes", line.len());
        let line: Value = serde_json::from_str(line).expect("an object");
        if line.get("stream").is_none() {
            continue; // castoff's own
        }
        begun += line.get("msg").and_then(Value::as_str).expect("a message");
        if line.get("partial_last").is_none_or(|last| last == "true") {
            said.push(std::mem::take(&mut begun));
        }
    }
    assert_eq!(begun, "");
    said
}

#[test]
fn the_runtimes_file_has_whole_lines_once_its_own_parts_are_joined() {
    let path = shared_directory().join("log");
    let container = Container::of(Image::Busybox)
        .option("--log-driver=k8s-file")
        .option(format!("--log-opt=path={}", path.display()))
        .env("CASTOFF_CHILD_LOGS", "json")
        .child(["/bin/sh", "-c", SCRIPT])
        .start();
    for lines in [&container.stdout, &container.log] {
        lines.wait_for("the last line", |line| line.contains(r#""msg":"all""#).then_some(()));
    }

    // TIME STREAM P|F TEXT: F ends a line, whatever number of P there was.
    let file = fs::read_to_string(&path).expect("conmon's file");
    let (mut parts, mut lines) = (0, [Vec::new(), Vec::new()]);
    let mut begun = [String::new(), String::new()];
    for line in file.lines() {
        let mut words = line.splitn(4, ' ').skip(1);
        let stream = usize::from(words.next().expect("a stream") == "stderr");
        let is_part = words.next().expect("a tag") == "P";
        begun[stream] += words.next().expect("text");
        if is_part {
            parts += 1;
        } else {
            lines[stream].push(std::mem::take(&mut begun[stream]));
        }
    }
    assert_eq!(begun, ["", ""]);
    assert!(parts > 100, "nothing was torn that could be joined: {parts}");
    assert!(said(&lines[0]) == expected());
    assert!(said(&lines[1]) == expected());

    // podman joins them as well.
    let logs: Vec<_> = container.podman("logs", []).lines().map(str::to_owned).collect();
    assert!(logs == lines[0], "{} lines, {} in the file", logs.len(), lines[0].len());
}

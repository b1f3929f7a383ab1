//! castoff's own lines in each format: every line of a life can be read by who
//! reads that format, has what is common to all, and cannot play tricks on a
//! terminal.

use std::fs::File;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{
    Castoff, Ended, Place, Running, Scratch, Terminal, example, in_both_places, wait_until,
};

const FORMATS: [&str; 5] = ["json", "text", "gcp", "ecs", "otel"];

/// What every line has, by the names of the format.
struct Names {
    leading: &'static [&'static str],
    /// Behind the four leading ones and those of the event.
    common: &'static [(&'static str, &'static str)],
}

fn names(format: &str) -> Names {
    match format {
        "json" => Names { leading: &["time", "level", "msg", "event"], common: &OWN },
        "gcp" => Names { leading: &["time", "severity", "message", "event"], common: &OWN },
        "ecs" => Names {
            leading: &["@timestamp", "log.level", "message", "ecs.version", "event.action"],
            common: &[
                ("kubernetes.pod.name", "web-0"),
                ("kubernetes.namespace", "shop"),
                ("kubernetes.node.name", "n1"),
                ("team", "a \"b\""),
                ("zone", "eu/1"),
            ],
        },
        "otel" => Names {
            leading: &["Timestamp", "SeverityText", "SeverityNumber", "Body", "EventName"],
            common: &[
                ("k8s.pod.name", "web-0"),
                ("k8s.namespace.name", "shop"),
                ("k8s.node.name", "n1"),
                ("team", "a \"b\""),
                ("zone", "eu/1"),
            ],
        },
        other => panic!("{other}"),
    }
}

const OWN: [(&str, &str); 5] = [
    ("pod", "web-0"),
    ("namespace", "shop"),
    ("node", "n1"),
    ("team", "a \"b\""),
    ("zone", "eu/1"),
];

/// castoff in that format, with all that may be common to its lines.
fn castoff(place: Place, format: &str) -> Castoff {
    Castoff::new(place)
        .env("CASTOFF_LOG_FORMAT", format)
        .env("CASTOFF_LOG_FIELDS", "team=a \"b\", zone=eu/1")
        .env("POD_NAME", "web-0")
        .env("POD_NAMESPACE", "shop")
        .env("NODE_NAME", "n1")
}

/// The name of the event in a line with everything that a line must have.
#[track_caller]
fn event_of(format: &str, line: &str) -> String {
    // With its newline, which `Lines` has taken off.
    assert!(line.len() + 1 < 4096, "{} bytes", line.len());
    if format == "text" {
        return event_of_text(line);
    }
    let object: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    let Names { leading, common } = names(format);
    let mut from = 0;
    for name in leading {
        let part = format!("{}\"{name}\":{}", if from == 0 { "{" } else { "," }, object[name]);
        assert_eq!(line.get(from..from + part.len()), Some(&*part), "{line}");
        from += part.len();
    }
    let place = if format == "otel" { &object["Resource"] } else { &object };
    for (name, value) in common {
        assert_eq!(place[name], *value, "{line}");
    }
    let time = object[leading[0]].as_str().expect("text");
    match format {
        "otel" => assert!(time.len() == 19 && time.parse::<u64>().is_ok(), "{line}"),
        _ => drop(humantime::parse_rfc3339(time).expect(time)),
    }
    object[leading[leading.len() - 1]].as_str().expect("text").to_owned()
}

#[track_caller]
fn event_of_text(line: &str) -> String {
    assert!(!line.chars().any(char::is_control), "{line:?}");
    let (time, rest) = line.split_once(' ').expect(line);
    humantime::parse_rfc3339(time).expect(time);
    assert!(["DEBUG ", "INFO  ", "WARN  ", "ERROR "].iter().any(|l| rest.starts_with(l)), "{line}");
    let common = r#" pod=web-0 namespace=shop node=n1 team="a \"b\"" zone=eu/1"#;
    assert!(line.ends_with(common), "{line}");
    let (_, event) = line.split_once(" event=").expect(line);
    event.split(' ').next().expect("a word").to_owned()
}

/// The events of its log, once it has ended.
#[track_caller]
fn events(castoff: &Running, format: &str) -> Vec<String> {
    castoff.log().all().iter().map(|line| event_of(format, line)).collect()
}

in_both_places! {
    fn every_line_of_a_life_has_the_form_of_its_format(place) {
        let scratch = Scratch::new();
        for format in FORMATS {
            // A fault, debug lines, a list of survivors, and the end by SIGKILL.
            let mut castoff = castoff(place, format)
                .env("CASTOFF_GRACE_PERIOD", "10m")
                .env("CASTOFF_KILL_RESERVE", "599700ms")
                .env("CASTOFF_TERMINATION_LOG", scratch.path("no/such/directory"))
                .args(["-v"])
                .script("trap '' TERM; (sleep 0 &); echo ready; while :; do sleep 0.01; done")
                .start();
            castoff.stdout().wait_for_line("ready");
            castoff.log().wait_for("orphan_reaped", |line| line.contains("orphan_reaped").then_some(()));
            castoff.signal(libc::SIGURG);
            castoff.log().wait_for("signal_forwarded", |line| {
                line.contains("signal_forwarded").then_some(())
            });
            castoff.signal(libc::SIGTERM);
            assert_eq!(castoff.wait(), Ended::Code(137), "{format}");
            let events = events(&castoff, format);
            for event in [
                "castoff_started",
                "child_started",
                "phase_changed",
                "signal_received",
                "orphan_reaped",
                "survivors",
                "child_exited",
                "exiting",
            ] {
                assert!(events.iter().any(|found| found == event), "{format}: no {event}");
            }
        }
    }
}

#[test]
fn a_list_is_json_in_each_format() {
    for format in FORMATS {
        let mut castoff = castoff(Place::Subreaper, format)
            .env("CASTOFF_GRACE_PERIOD", "10m")
            .env("CASTOFF_KILL_RESERVE", "599700ms")
            .child(&example("stubborn"), [""; 0])
            .start();
        castoff.stdout().wait_for_line("stubborn");
        let pid = castoff.child();
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(137), "{format}");
        let told = castoff
            .log()
            .wait_for("survivors", |line| line.contains("survivors").then(|| line.to_owned()));
        if format == "text" {
            let entry =
                format!(r#" count=1 list="[{{\"pid\":{pid},\"command\":\"stubborn\",\"state\":"#);
            assert!(told.contains(&entry), "{told}");
            continue;
        }
        let line: Value = serde_json::from_str(&told).expect("JSON");
        let list = match format {
            "ecs" => &line["castoff.list"],
            "otel" => &line["Attributes"]["list"],
            _ => &line["list"],
        };
        assert_eq!(
            (&list[0]["pid"], &list[0]["command"]),
            (&pid.into(), &"stubborn".into()),
            "{told}"
        );
    }
}

#[test]
fn a_field_that_an_event_has_as_well_is_the_events_there() {
    let mut castoff = Castoff::new(Place::Subreaper)
        .env("CASTOFF_LOG_FIELDS", "version=mine,exit_code=mine,team=a")
        .script("exit 3")
        .run();
    assert_eq!(castoff.wait(), Ended::Code(3));
    let lines = castoff.log().all();
    for line in &lines {
        assert_eq!(line.matches("\"version\":").count(), 1, "{line}");
        assert_eq!(line.matches("\"exit_code\":").count(), 1, "{line}");
    }
    let started = castoff.log().wait_for_event("castoff_started");
    let (version, code) = (&started["version"], &started["exit_code"]);
    assert_eq!((version, code), (&env!("CARGO_PKG_VERSION").into(), &"mine".into()));
    let exiting = castoff.log().wait_for_event("exiting");
    assert_eq!((&exiting["version"], &exiting["exit_code"]), (&"mine".into(), &3.into()));
}

#[test]
fn a_name_cannot_play_tricks_on_a_terminal() {
    let scratch = Scratch::new();
    // Sets the title, clears the screen (CSI as one character), turns the text
    // around, and begins a line of its own.
    let program = scratch.path("a\u{1b}]0;x\u{7}\u{9b}2J\u{202e}\n2026-11-20T10:00:00Z INFO  b=c");
    // No copy: one that a test is writing cannot be executed (ETXTBSY).
    std::os::unix::fs::symlink("/bin/true", &program).expect("a program");
    let mut castoff = castoff(Place::Subreaper, "text").child::<&str>(&program, []).run();
    assert_eq!(castoff.wait(), Ended::Code(0));
    events(&castoff, "text");
    let told = castoff
        .log()
        .wait_for("child_started", |line| line.contains("child_started").then(|| line.to_owned()));
    let shown = r#"/a\u001b]0;x\u0007\u009b2J\u202e\n2026-11-20T10:00:00Z INFO  b=c" pod=web-0"#;
    assert!(told.contains(shown), "{told}");
}

#[test]
fn common_values_that_are_too_long_are_cut_and_told() {
    // Each of these characters is six bytes in JSON.
    let long = format!("short=s,long={}", "\u{1}".repeat(1000));
    let mut castoff =
        Castoff::new(Place::Subreaper).env("CASTOFF_LOG_FIELDS", long).script("exit 0").run();
    assert_eq!(castoff.wait(), Ended::Code(0));
    let told = castoff.log().wait_for_event("log_fields_cut");
    assert_eq!((&told["level"], &told["max_bytes"]), (&"WARN".into(), &2048.into()));
    for line in castoff.log().events() {
        let long = line["long"].as_str().expect("text");
        assert!(long.ends_with('…') && long.starts_with('\u{1}') && line["short"] == "s", "{line}");
    }
}

/// What castoff writes to a terminal with this environment, up to its end.
#[track_caller]
fn screen(variables: &[(&str, &str)]) -> String {
    let terminal = Terminal::new();
    let other_end = terminal.other_end();
    let castoff = Castoff::new(Place::Subreaper).with(|command| {
        command.envs(variables.iter().copied()).stderr(other_end);
    });
    let mut castoff = castoff.on(&terminal).script("exit 0").start();
    assert_eq!(castoff.wait(), Ended::Code(0));
    terminal.wait_for("event=exiting")
}

#[test]
fn text_on_a_terminal_has_colours_unless_they_are_not_wanted() {
    let level_and_message = "\u{1b}[32mINFO\u{1b}[0m  \u{1b}[1mchild exited\u{1b}[0m event=";
    const TEXT: (&str, &str) = ("CASTOFF_LOG_FORMAT", "text");
    const TERM: (&str, &str) = ("TERM", "xterm");
    for variables in [&[TEXT, TERM][..], &[TEXT, TERM, ("NO_COLOR", "")]] {
        let shown = screen(variables);
        assert!(shown.contains(level_and_message), "{shown:?}");
    }
    for variables in [&[TEXT][..], &[TEXT, ("TERM", "dumb")], &[TEXT, TERM, ("NO_COLOR", "1")]] {
        let shown = screen(variables);
        assert!(shown.contains(" INFO  child exited event=child_exited "), "{shown:?}");
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    }
}

#[test]
fn what_is_no_terminal_gets_no_colours() {
    let scratch = Scratch::new();
    let path = scratch.file("log", "");
    let file = File::options().append(true).open(&path).expect("a file");
    let mut castoff = castoff(Place::Subreaper, "text")
        .env("TERM", "xterm")
        .with(|command| {
            command.stderr(Stdio::from(file));
        })
        .child(&example("graceful"), [""; 0])
        .start();
    wait_until("castoff serves", || scratch.read("log").contains("to=serving").then_some(()));
    castoff.signal(libc::SIGTERM);
    castoff.wait();
    let text = std::fs::read_to_string(path).expect("text");
    assert!(text.lines().count() > 3);
    text.lines().for_each(|line| drop(event_of("text", line)));
}

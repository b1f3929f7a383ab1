//! The child's output as lines of the log: whatever is written, whoever writes
//! it, and whether or not somebody reads it.

use std::fs::{self, File};
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use crate::support::lines::Lines;
use crate::support::{
    Castoff, Ended, Place, Running, Scratch, Terminal, in_both_places, process, wait_until,
};

/// castoff that wraps the child's lines.
fn wrapping(place: Place) -> Castoff {
    Castoff::new(place).env("CASTOFF_CHILD_LOGS", "json")
}

/// A line that must be an object.
#[track_caller]
fn object(line: &str) -> Value {
    assert!(line.len() < 16 * 1024, "{} bytes", line.len());
    let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert!(value.is_object(), "{line}");
    value
}

/// What the child has said there, once castoff has ended: every line is one of
/// castoff's, or wrapped.
#[track_caller]
fn said(lines: &[String]) -> Vec<Value> {
    let objects = lines.iter().map(|line| object(line));
    objects.filter(|line| line.get("stream").is_some()).collect()
}

#[track_caller]
fn messages(lines: &[String]) -> Vec<String> {
    let text = |line: Value| line["msg"].as_str().expect("a message").to_owned();
    said(lines).into_iter().map(text).collect()
}

/// Bytes of memory of castoff's own.
fn resident(castoff: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", castoff.pid)).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a figure");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

/// A pipe, and its other end to start castoff with.
fn unread() -> (PipeReader, Stdio) {
    let (reader, writer) = io::pipe().expect("a pipe");
    (reader, writer.into())
}

fn is_nonblocking(fd: impl AsFd) -> bool {
    let flags = fcntl(fd, FcntlArg::F_GETFL).expect("it is open");
    OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK)
}

/// Waits until the child stands in a write.
#[track_caller]
fn until_blocked(castoff: &Running) {
    let child = castoff.child();
    wait_until("the child waits for a reader", || {
        let wchan = fs::read_to_string(format!("/proc/{child}/wchan")).ok()?;
        wchan.contains("pipe_write").then_some(())
    });
}

in_both_places! {
    fn by_default_the_childs_descriptors_are_castoffs_own(place) {
        let mut castoff = Castoff::new(place)
            .script("readlink /proc/self/fd/1 /proc/self/fd/2 /proc/$PPID/fd/1 /proc/$PPID/fd/2")
            .run();
        assert_eq!(castoff.code(), 0);
        let lines = castoff.stdout().all();
        assert_eq!(lines[..2], lines[2..4]);
    }

    fn each_line_of_both_streams_is_one_of_the_log(place) {
        let script = r#"printf 'a "quoted" line\r\n\n\033[31mred\033[0m\0\377\n'
            echo '{"level":"warn","msg":"own","n":1}'; printf 'no end'; echo trouble >&2"#;
        let mut castoff = wrapping(place).script(script).run();
        assert_eq!(castoff.code(), 0);
        let out = said(&castoff.stdout().all());
        let texts: Vec<_> = out.iter().map(|line| line["msg"].as_str().expect("text")).collect();
        let red = "\u{1b}[31mred\u{1b}[0m\0\u{fffd}";
        assert_eq!(texts, ["a \"quoted\" line", "", red, "own", "no end"]);
        assert!(out.iter().all(|line| line["stream"] == "stdout" && line["time"].is_string()));
        assert_eq!((&out[0]["level"], &out[3]["level"], &out[3]["n"]), (&json!("INFO"), &json!("warn"), &json!(1)));
        let err = said(&castoff.log().all());
        assert_eq!(err.len(), 1);
        assert_eq!((&err[0]["msg"], &err[0]["level"], &err[0]["stream"]), (&json!("trouble"), &json!("ERROR"), &json!("stderr")));
    }

    fn nothing_is_lost_and_the_order_is_kept(place) {
        let script = "seq 1 150000 & seq 1 150000 >&2; wait";
        let mut castoff = wrapping(place).script(script).run();
        assert_eq!(castoff.code(), 0);
        let expected = || (1..=150_000).map(|number: u32| number.to_string());
        assert!(messages(&castoff.stdout().all()).into_iter().eq(expected()));
        assert!(messages(&castoff.log().all()).into_iter().eq(expected()));
        assert_eq!(castoff.log().wait_for_event("exiting")["exit_code"], 0);
    }

    fn a_line_of_megabytes_comes_in_pieces_that_make_it_again(place) {
        let script = "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo after";
        let mut castoff = wrapping(place).script(script).run();
        assert_eq!(castoff.code(), 0);
        let mut lines = said(&castoff.stdout().all());
        let after = lines.pop().expect("a line");
        assert_eq!(after["msg"], "after");
        assert!(after.get("partial_id").is_none());
        assert!(lines.len() > 180, "{}", lines.len());
        let text: String = lines.iter().map(|line| line["msg"].as_str().expect("text")).collect();
        assert_eq!(text, "x".repeat(3_000_000));
        assert!(lines.iter().all(|line| line["partial_id"] == lines[0]["partial_id"]));
    }

    fn heirs_that_outlive_the_child_are_heard(place) {
        let script = "(trap 'echo told; exit' TERM; echo begun >&2; while :; do sleep 0.01; done) & \
                      until [ -e $READY ]; do sleep 0.01; done; echo child";
        let scratch = Scratch::new();
        let castoff = wrapping(place).env("READY", scratch.path("ready")).script(script);
        let mut castoff = castoff.start();
        castoff.log().wait_for("its heir", |line| line.contains("begun").then_some(()));
        scratch.file("ready", "");
        assert_eq!(castoff.code(), 0);
        assert_eq!(messages(&castoff.stdout().all()), ["child", "told"]);
    }

    fn a_crowd_that_writes_at_once_is_heard_whole(place) {
        let script = "i=0; while [ $i -lt 1000 ]; do (echo $i; echo $i >&2) & i=$((i+1)); done; wait";
        let mut castoff = wrapping(place).script(script).run();
        assert_eq!(castoff.code(), 0);
        for lines in [castoff.stdout().all(), castoff.log().all()] {
            let mut numbers: Vec<u32> =
                messages(&lines).iter().map(|text| text.parse().expect(text)).collect();
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(0..1000));
        }
    }

    fn a_reader_that_has_stopped_makes_the_child_wait_and_nobody_else(place) {
        let (mut reader, writer) = unread();
        let kept = reader.try_clone().expect("a descriptor");
        let mut castoff = wrapping(place)
            .env("CASTOFF_GRACE_PERIOD", "3s")
            .env("CASTOFF_KILL_RESERVE", "1s")
            .script("trap '' USR1; exec head -c 10G /dev/zero")
            .with(|command| {
                command.stdout(writer);
            });
        castoff = castoff.env("CASTOFF_LOG_LEVEL", "info");
        let mut castoff = castoff.start();
        castoff.until_serving();
        let mut some = vec![0; 1 << 20];
        reader.read_exact(&mut some).expect("there is much");
        until_blocked(&castoff);
        let before = resident(&castoff);
        // What the child waits for, castoff does not.
        castoff.signal(libc::SIGUSR1);
        castoff.log().wait_for_event("signal_forwarded");
        assert_eq!(castoff.get("/readyz").status, 200);
        reader.read_exact(&mut some).expect("there is much");
        until_blocked(&castoff);
        assert!(resident(&castoff) < before + (1 << 20), "{before}");
        assert!(!is_nonblocking(&kept));
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 143);
        let lost = castoff.log().wait_for_event("child_output_lost");
        assert_eq!(lost["stream"], "stdout");
        assert_eq!(castoff.log().wait_for_event("child_exited")["reason"], "stopped");
    }

    fn what_was_written_before_the_end_is_written_out_to_a_slow_reader(place) {
        let (mut reader, writer) = unread();
        let mut castoff = wrapping(place)
            .script("seq 1 40000")
            .with(|command| {
                command.stdout(writer);
            })
            .start();
        castoff.log().wait_for_event("child_started");
        let mut text = Vec::new();
        let mut some = vec![0; 8 * 1024];
        loop {
            match reader.read(&mut some).expect("a pipe") {
                0 => break,
                count => text.extend_from_slice(&some[..count]),
            }
        }
        assert_eq!(castoff.code(), 0);
        let lines: Vec<_> = String::from_utf8(text).expect("text").lines().map(str::to_owned).collect();
        let expected = (1..=40_000).map(|number: u32| number.to_string());
        assert!(messages(&lines).into_iter().eq(expected));
    }

    fn a_stop_signal_ends_the_wait_for_a_reader_of_either_stream(place) {
        for stream in [1, 2] {
            let (mut reader, writer) = unread();
            let (stdout, stderr) =
                if stream == 1 { (writer, Stdio::null()) } else { (Stdio::null(), writer) };
            let mut castoff = wrapping(place)
                .env("CASTOFF_GRACE_PERIOD", "600s")
                .env("CASTOFF_KILL_RESERVE", "300s")
                .script(&format!("trap '' TERM; yes | head -c 60000 >&{stream}"))
                .with(|command| {
                    command.stdout(stdout).stderr(stderr);
                })
                .start();
            // More than castoff's own lines: the child has set its trap.
            reader.read_exact(&mut [0; 8192]).expect("there is much");
            let ended = wait_until("it has been asked often enough", || {
                process::try_signal(castoff.pid, libc::SIGTERM);
                castoff.ended_within(Duration::from_millis(100))
            });
            assert_eq!(ended, Ended::Code(0));
        }
    }

    fn a_reader_that_has_gone_ends_the_child_as_without_castoff(place) {
        let (reader, writer) = unread();
        let mut castoff = wrapping(place).script("exec yes").with(|command| {
            command.stdout(writer);
        }).start();
        castoff.until_serving();
        drop(reader);
        assert_eq!(castoff.code(), 128 + libc::SIGPIPE);
        assert_eq!(castoff.log().wait_for_event("child_exited")["signal"], "SIGPIPE");
    }

    fn a_reader_of_a_fifo_that_is_back_is_written_to_by_the_next_child(place) {
        let scratch = Scratch::new();
        let path = scratch.path("fifo");
        mkfifo(path.as_str(), Mode::from_bits_truncate(0o600)).expect("a FIFO");
        // Without a reader it would wait for one, and with both ends it is none.
        let both = File::options().read(true).write(true).open(&path).expect("both ends");
        let writer = File::options().write(true).open(&path).expect("its writer");
        let mut castoff = wrapping(place)
            .env("CASTOFF_RESTART", "always")
            .env("CASTOFF_RESTART_MIN", "10ms")
            .env("CASTOFF_RESTART_MAX", "10ms")
            .env("AGAIN", scratch.path("again"))
            .script("while :; do echo here $(ls $AGAIN) || exit; sleep 0.01; done")
            .with(|command| {
                command.stdout(writer);
            })
            .start();
        castoff.until_serving();
        drop(both);
        castoff.log().wait_for_event("restart_scheduled");
        // What was written before is in it still.
        scratch.file("again", "");
        let reader = Lines::of("the FIFO", File::open(&path).expect("its reader"));
        reader.wait_for("a line", |line| line.contains("again").then_some(()));
        castoff.signal(libc::SIGTERM);
        castoff.wait();
    }

    fn messages_that_nobody_takes_are_lost_and_the_child_goes_on(place) {
        let (receiver, sender) = UnixDatagram::pair().expect("sockets");
        drop(receiver);
        let script = "for n in 1 2 3 4 5; do echo $n; sleep 0.05; done; echo done >&2";
        let mut castoff = wrapping(place)
            .script(script)
            .with(|command| {
                command.stdout(OwnedFd::from(sender));
            })
            .run();
        assert_eq!(castoff.code(), 0);
        assert_eq!(messages(&castoff.log().all()), ["done"]);
    }

    fn what_a_child_has_left_unread_comes_before_the_next_ones_lines(place) {
        let scratch = Scratch::new();
        let (mut reader, writer) = unread();
        let mut castoff = wrapping(place)
            .env("CASTOFF_GRACE_PERIOD", "600s")
            .env("CASTOFF_KILL_RESERVE", "300s")
            .env("CASTOFF_RESTART", "on-failure")
            .env("CASTOFF_RESTART_MIN", "1ms")
            .env("CASTOFF_RESTART_MAX", "1ms")
            .env("MARK", scratch.path("mark"))
            .script("[ -e $MARK ] || { touch $MARK; yes first | head -n 8000; exit 1; }; yes second | head -n 8000")
            .with(|command| {
                command.stdout(writer);
            })
            .start();
        castoff.log().wait_for("both ends", |line| {
            (line.contains("\"child_exited\"") && line.contains("\"exit_code\":0")).then_some(())
        });
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        assert_eq!(castoff.code(), 0);
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let words = messages(&lines);
        assert_eq!(words.len(), 16_000);
        assert!(words.is_sorted());
    }

    fn what_is_in_a_pipe_that_has_to_go_is_told_of(place) {
        let (_unread, writer) = unread();
        let mut castoff = wrapping(place)
            .env("CASTOFF_RESTART", "always")
            .env("CASTOFF_RESTART_MIN", "1ms")
            .env("CASTOFF_RESTART_MAX", "1ms")
            .script("yes | head -c 60000")
            .with(|command| {
                command.stdout(writer);
            })
            .start();
        let lost = castoff.log().wait_for_event("child_output_lost");
        assert_eq!(lost["stream"], "stdout");
        // Of the first child's some was written.
        assert!((1..=60_000).contains(&lost["bytes"].as_u64().expect("a number")));
        castoff.signal(libc::SIGTERM);
        castoff.wait();
    }

    fn a_device_without_room_loses_lines_and_the_child_goes_on(place) {
        let full = File::options().write(true).open("/dev/full").expect("a device");
        let mut castoff = wrapping(place)
            .script("seq 1 1000; echo done >&2; exec sleep 600")
            .with(|command| {
                command.stdout(full);
            })
            .start();
        castoff.log().wait_for("the word", |line| line.contains("\"done\"").then_some(()));
        wait_until("they are counted", || {
            let page = castoff.get("/metrics").body;
            page.contains("castoff_child_log_lines_total{stream=\"stdout\"} 1000\n")
                .then(|| page.contains("castoff_log_dropped_total 1000\n"))?
                .then_some(())
        });
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 143);
    }

    fn one_file_for_both_streams_has_whole_lines_only(place) {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let other = writer.try_clone().expect("a descriptor");
        let castoff = wrapping(place).args(["-v"]).script("seq 1 50000 & seq 1 50000 >&2; wait");
        let mut castoff = castoff.with(|command| {
            command.stdout(writer).stderr(other);
        }).start();
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        assert_eq!(castoff.code(), 0);
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let of = |stream: &str| {
            let lines = said(&lines).into_iter().filter(|line| line["stream"] == stream);
            lines.map(|line| line["msg"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
        };
        let expected = || (1..=50_000).map(|number: u32| number.to_string());
        assert!(of("stdout").into_iter().eq(expected()));
        assert!(of("stderr").into_iter().eq(expected()));
        assert!(lines.iter().any(|line| object(line)["event"] == "exiting"));
    }

    fn castoffs_own_lines_are_never_inside_of_the_childs(place) {
        let script = "y=$(head -c 9000 /dev/zero | tr '\\0' y); while :; do echo $y >&2; done";
        let mut castoff = wrapping(place).args(["-v"]).script(script).start();
        castoff.until_serving();
        for _ in 0..50 {
            castoff.signal(libc::SIGURG);
        }
        castoff.log().wait_for_event("signal_received");
        wait_until("the child has said much", || (castoff.log().so_far().len() > 300).then_some(()));
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 143);
        let lines = castoff.log().all();
        // The last may be cut short: the signal ends the write.
        let whole = said(&lines).into_iter().rev().skip(1).all(|line| line["msg"] == "y".repeat(9000));
        assert!(whole);
        let last = object(lines.last().expect("a line"));
        assert_eq!(last["event"], "exiting");
    }

    fn each_child_has_its_own_last_line(place) {
        let scratch = Scratch::new();
        let mut castoff = wrapping(place)
            .env("CASTOFF_RESTART", "on-failure")
            .env("CASTOFF_RESTART_MIN", "1ms")
            .env("CASTOFF_RESTART_MAX", "1ms")
            .env("MARK", scratch.path("mark"))
            .script("printf begun; [ -e $MARK ] && exit; touch $MARK; exit 1")
            .run();
        assert_eq!(castoff.code(), 0);
        assert_eq!(messages(&castoff.stdout().all()), ["begun", "begun"]);
    }

    fn a_stream_that_castoff_was_started_without_is_none_of_the_childs(place) {
        let script = "[ -e /proc/self/fd/1 ] && echo open >&2 || echo closed >&2";
        let castoff = wrapping(place).script(script).last(|| {
            Ok(nix::unistd::close(1)?)
        });
        let mut castoff = castoff.run();
        assert_eq!(castoff.code(), 0);
        assert_eq!(messages(&castoff.log().all()), ["closed"]);
    }

    fn the_streams_can_be_opened_again_by_name(place) {
        let mut castoff = wrapping(place);
        if nix::unistd::getuid().is_root() {
            castoff = castoff.env("CASTOFF_USER", "65534:65534");
        }
        let mut castoff = castoff
            .script("echo out > /dev/stdout; echo err > /proc/self/fd/2").run();
        assert_eq!(castoff.code(), 0, "{:?}", castoff.log().all());
        assert_eq!(messages(&castoff.stdout().all()), ["out"]);
        assert_eq!(messages(&castoff.log().all()), ["err"]);
    }

    fn a_stop_amid_a_line_leaves_it_whole(place) {
        let script = "trap 'echo \" the end\"; exit 0' TERM; printf begin; echo ready >&2; \
                      while :; do sleep 0.01; done";
        let mut castoff = wrapping(place).script(script).start();
        castoff.log().wait_for("its word", |line| line.contains("\"ready\"").then_some(()));
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 0);
        assert_eq!(messages(&castoff.stdout().all()), ["begin the end"]);
    }

    fn a_terminal_gets_lines_too(place) {
        let terminal = Terminal::new();
        let mut castoff = wrapping(place).script("echo seen; [ -t 1 ] || echo no terminal").on(&terminal).start();
        terminal.wait_for("seen");
        terminal.wait_for("no terminal");
        assert_eq!(castoff.code(), 0);
    }
}

/// The child is as slow as its reader, and castoff's memory does not grow.
#[test]
fn a_reader_that_crawls_gets_everything_in_the_end() {
    let (mut reader, writer) = unread();
    let mut castoff = wrapping(Place::Subreaper)
        .script("seq 1 20000")
        .with(|command| {
            command.stdout(writer);
        })
        .start();
    let (mut text, mut some) = (Vec::new(), [0; 997]);
    loop {
        match reader.read(&mut some).expect("a pipe") {
            0 => break,
            count => text.extend_from_slice(&some[..count]),
        }
        std::thread::yield_now();
    }
    assert_eq!(castoff.ended_within(Duration::from_secs(30)), Some(Ended::Code(0)));
    let lines: Vec<_> = String::from_utf8(text).expect("text").lines().map(str::to_owned).collect();
    assert!(messages(&lines).into_iter().eq((1..=20_000).map(|number: u32| number.to_string())));
}

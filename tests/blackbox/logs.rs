//! The log as its readers rely on it: every event with its fields and their
//! types; and that nobody who reads it badly, or not at all, holds castoff up.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, PipeReader, Write};
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::support::probe;
use crate::support::wait_until;
use crate::support::{Castoff, Ended, Place, Running, Scratch, example, in_both_places, process};

/// A log line with its fields in the order in which they were written.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl Fields {
    #[track_caller]
    fn of(line: &str) -> Self {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    #[track_caller]
    fn text(&self, name: &str) -> &str {
        let field = self.0.iter().find(|(found, _)| found == name);
        field.and_then(|(_, value)| value.as_str()).unwrap_or_else(|| panic!("no {name}"))
    }

    /// `child_pid:number command:string`, after the four that all lines have.
    fn shape(&self) -> String {
        let kind = |value: &Value| match value {
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Bool(_) => "bool",
            _ => "other",
        };
        let rest = self.0.iter().skip(4);
        rest.map(|(name, value)| format!("{name}:{}", kind(value))).collect::<Vec<_>>().join(" ")
    }
}

/// What every line of castoff's must be.
#[track_caller]
fn assert_form(line: &str) -> Fields {
    // With its newline, which `Lines` has taken off.
    assert!(line.len() + 1 < 4096, "{} bytes", line.len());
    let fields = Fields::of(line);
    let names: Vec<_> = fields.0.iter().take(4).map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["time", "level", "msg", "event"], "{line}");
    let time = fields.text("time");
    assert_eq!(time.len(), "2026-11-20T10:00:00.123456Z".len(), "{line}");
    humantime::parse_rfc3339(time).expect(time);
    assert!(["DEBUG", "INFO", "WARN", "ERROR"].contains(&fields.text("level")), "{line}");
    fields
}

/// The shapes of every event in the log, once castoff has ended.
#[track_caller]
fn shapes(castoff: &Running) -> BTreeMap<String, Vec<String>> {
    let mut shapes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in castoff.log().all() {
        let fields = assert_form(&line);
        let shape = format!("{} {}", fields.text("level"), fields.shape());
        let known = shapes.entry(fields.text("event").to_owned()).or_default();
        if !known.contains(&shape) {
            known.push(shape);
        }
    }
    shapes
}

in_both_places! {
    fn every_event_has_its_fields_in_their_types(place) {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/cgroup/v2_half_cpu");
        let scratch = Scratch::new();
        let mut castoff = Castoff::new(place)
            .env("CASTOFF_CGROUP_ROOT", format!("{fixture}/sys"))
            .env("CASTOFF_PROC_ROOT", format!("{fixture}/proc"))
            .env("CASTOFF_DRAIN_DELAY", "50ms")
            .args(["-v"])
            .child(&example("forker"), ["daemon", &scratch.path("daemon")])
            .start();
        castoff.stdout().wait_for_line("ready");
        castoff.until_serving().signal(libc::SIGURG);
        castoff.log().wait_for_event("signal_forwarded");
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
        let shapes = shapes(&castoff);
        let sender = match place {
            // The test is in another namespace: there is no pid to tell.
            Place::Pid1 => "INFO signal:string sender:string sender_uid:number",
            Place::Subreaper => "INFO signal:string sender:string sender_pid:number \
                                 sender_uid:number sender_command:string",
        };
        let expected = [
            ("castoff_started", "INFO version:string pid:number pid1:bool subreaper:bool \
              grace_ms:number drain_ms:number listen:string"),
            ("limits_detected", "INFO cgroup:string cpus:number memory_bytes:number pids:number \
              cpu_source:string memory_source:string pids_source:string \
              cpu_level:number memory_level:number pids_level:number"),
            ("env_exported", "INFO name:string value:string why:string"),
            ("child_started", "INFO child_pid:number command:string"),
            ("phase_changed", "INFO from:string to:string cause:string elapsed_ms:number"),
            ("signal_received", sender),
            ("signal_forwarded", "INFO signal:string target_pid:number"),
            ("orphan_reaped", "DEBUG pid:number exit_code:number"),
            ("drain_finished", "INFO waited_ms:number reason:string connections:number"),
            ("child_exited", "INFO child_pid:number exit_code:number uptime_ms:number \
              reason:string"),
            ("exiting", "INFO exit_code:number stop_ms:number"),
        ];
        let expected = expected.map(|(event, shape)| (event.to_owned(), vec![shape.to_owned()]));
        assert_eq!(shapes, BTreeMap::from(expected));
        let started = castoff.log().wait_for_event("castoff_started");
        assert_eq!(started["pid1"], place == Place::Pid1);
        assert_eq!(started["subreaper"], place == Place::Subreaper);
    }

    fn the_sender_of_a_signal_is_named(place) {
        let mut castoff = Castoff::new(place)
            .script("trap 'exit 0' USR1; kill -USR1 $PPID; while :; do sleep 0.01; done")
            .start();
        castoff.until_serving();
        assert_eq!(castoff.wait(), Ended::Code(0));
        let received = castoff.log().wait_for_event("signal_received");
        assert_eq!(received["signal"], "SIGUSR1");
        assert_eq!(received["sender"], "process");
        assert_eq!(received["sender_command"], "sh");
        let started = castoff.log().wait_for_event("child_started");
        assert_eq!(received["sender_pid"], started["child_pid"]);
    }

    fn a_log_that_nobody_reads_holds_nothing_up(place) {
        let (reader, stderr) = full_pipe();
        let mut castoff = Castoff::new(place)
            .env("CASTOFF_GRACE_PERIOD", "10m")
            .env("CASTOFF_KILL_RESERVE", "599500ms")
            .args(["-w"])
            .with(|command| {
                command.stderr(stderr);
            })
            .child(&example("print_signals"), ["--only-print"])
            .start();
        castoff.stdout().wait_for_line("ready");
        let address = wait_until("castoff listens", || {
            let port = *process::listening_ports(castoff.pid).first()?;
            Some((std::net::Ipv4Addr::LOCALHOST, port).into())
        });
        for nth in 1..=3 {
            castoff.signal(libc::SIGUSR1);
            wait_until("the signal is forwarded", || {
                let printed = castoff.stdout().so_far();
                (printed.iter().filter(|line| line.starts_with("10 ")).count() == nth).then_some(())
            });
        }
        assert_eq!(probe::get(address, "/readyz").body, "ok");
        let dropped = wait_until("lines are counted as dropped", || {
            let page = probe::get(address, "/metrics").body;
            let count = page.lines().find_map(|l| l.strip_prefix("castoff_log_dropped_total "))?;
            count.parse::<u64>().ok().filter(|count| *count > 0)
        });
        // castoff_started, limits_detected, child_started, one phase, and two
        // lines for each signal but the last, of which one may be under way.
        assert!(dropped >= 8, "{dropped}");

        // The reader comes back: the next line follows the report.
        let log = crate::support::lines::Lines::of("stderr", reader);
        wait_until("the pipe has room again", || {
            castoff.signal(libc::SIGUSR2);
            let lines = log.so_far();
            lines.iter().any(|line| line.contains("\"log_dropped\"")).then_some(())
        });
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(137));
        let events = log.events();
        let report = events.iter().find(|event| event["event"] == "log_dropped").expect("a report");
        assert_eq!((report["level"].as_str(), report["msg"].as_str()), (Some("WARN"), Some("log lines dropped")));
        assert!(report["count"].as_u64() >= Some(dropped), "{report}");
        let exiting = events.last().expect("the log goes on");
        assert_eq!(exiting["event"], "exiting");
        assert!(exiting["stop_ms"].as_u64() >= Some(500), "{exiting}");
    }

    fn orphans_are_reaped_and_the_deadline_is_kept_without_a_reader(place) {
        let (_reader, stderr) = full_pipe();
        let mut castoff = Castoff::new(place)
            .env("CASTOFF_GRACE_PERIOD", "10m")
            .env("CASTOFF_KILL_RESERVE", "599700ms")
            .args(["-w"])
            .with(|command| {
                command.stderr(stderr);
            })
            // Each of the orphans is worth a line, for which there is no room.
            .script("trap '' TERM; i=0; while [ $i -lt 50 ]; do (sleep 0 &); i=$((i+1)); done; \
                     echo ready; while :; do sleep 0.01; done")
            .start();
        castoff.stdout().wait_for_line("ready");
        wait_until("no zombie is left", || {
            let children = process::children(castoff.pid);
            (children.len() == 1).then_some(())
        });
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(137));
    }

    fn a_standard_error_that_takes_nothing_is_no_reason_to_end(place) {
        let scratch = Scratch::new();
        for (name, stderr) in [
            ("/dev/full", Stdio::from(File::options().write(true).open("/dev/full").expect("it"))),
            ("a pipe whose reader has gone", pipe_without_reader()),
            ("read only", Stdio::from(File::open(scratch.file("x", "")).expect("a file"))),
        ] {
            // The child tells that it was asked; a SIGPIPE of castoff's own
            // would end it, or be forwarded.
            let mut castoff = Castoff::new(place)
                .with(|command| {
                    command.stderr(stderr);
                })
                .child::<&str>(&example("print_signals"), [])
                .start();
            castoff.stdout().wait_for_line("ready");
            castoff.signal(libc::SIGUSR1);
            castoff.stdout().wait_for_line("10 ");
            castoff.signal(libc::SIGTERM);
            assert_eq!(castoff.wait(), Ended::Code(0), "{name}");
            let told = castoff.stdout().all().iter().filter(|line| line.starts_with("13 ")).count();
            assert_eq!(told, 0, "{name}: the child got castoff's SIGPIPE");
        }
    }

    fn a_closed_standard_error_stays_closed(place) {
        let mut castoff = Castoff::new(place)
            .env("CASTOFF_LOG_LEVEL", "trace")
            .with(close_stderr)
            .script("[ -e /proc/self/fd/2 ] && exit 5; echo told >&2 || exit 6")
            .run();
        assert_eq!(castoff.wait(), Ended::Code(6));
    }
}

/// Descriptor 2 is closed when castoff is executed.
#[expect(unsafe_code, reason = "a descriptor by its number")]
fn close_stderr(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec there is one thread; the flag makes the
    // exec close it, so that std may still use it until then.
    unsafe {
        command.pre_exec(|| match libc::fcntl(2, libc::F_SETFD, libc::FD_CLOEXEC) {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
}

fn pipe_without_reader() -> Stdio {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

/// A pipe without room, and the end that is to be castoff's stderr.
fn full_pipe() -> (PipeReader, Stdio) {
    let (reader, mut writer) = io::pipe().expect("a pipe");
    let set = |flags| fcntl(writer.as_fd(), FcntlArg::F_SETFL(flags)).expect("flags");
    set(OFlag::O_NONBLOCK);
    let mut writer_now = &writer;
    while writer_now.write(b"filled by the test\n").is_ok() {}
    // What is left of a page would take a short line.
    while writer_now.write(b"\n").is_ok() {}
    set(OFlag::empty());
    writer.flush().expect("nothing is buffered");
    (reader, writer.into())
}

#[test]
fn a_line_is_short_however_long_its_values_are() {
    let scratch = Scratch::new();
    // Each of its bytes is six in JSON.
    let odd = "\u{1}".repeat(200);
    let mut directory = scratch.path(&odd);
    while directory.len() + odd.len() < 3000 {
        directory = format!("{directory}/{odd}");
    }
    fs::create_dir_all(&directory).expect("a directory");
    let program = format!("{directory}/{}", "\u{2}".repeat(200));
    // No copy: one that a test is writing cannot be executed (ETXTBSY).
    std::os::unix::fs::symlink("/bin/true", &program).expect("a program");
    let mut castoff = Castoff::new(Place::Subreaper).child::<&str>(&program, []).run();
    assert_eq!(castoff.wait(), Ended::Code(0));
    for line in castoff.log().all() {
        assert_form(&line);
    }
    let started = castoff.log().wait_for_event("child_started");
    assert!(started["child_pid"].is_number(), "{started}");
    let command = started["command"].as_str().expect("text");
    assert!(command.ends_with('…') && program.starts_with(command.trim_end_matches('…')));
}

#[test]
fn arguments_are_not_logged() {
    let mut castoff =
        Castoff::new(Place::Subreaper).args(["-vvv"]).script("exit 0 # --password=hunter2").run();
    assert_eq!(castoff.wait(), Ended::Code(0));
    let log = castoff.log().all().join("\n");
    assert!(log.contains("\"command\":\"/bin/sh\"") && !log.contains("hunter2"), "{log}");
}

#[test]
fn the_level_decides_what_is_written() {
    // Three, and their own children as far as they were told to end too late.
    let events = |level: &str, flags: &[&str]| {
        let mut castoff = Castoff::new(Place::Subreaper)
            .env("CASTOFF_LOG_LEVEL", level)
            .args(flags)
            .child(&example("forker"), ["orphans", "3"])
            .run();
        assert_eq!(castoff.wait(), Ended::Code(0));
        let lines = castoff.log().all();
        lines.iter().map(|line| assert_form(line).text("event").to_owned()).collect::<Vec<_>>()
    };
    for level in ["off", "error", "warn"] {
        assert_eq!(events(level, &[]), [""; 0], "{level}");
    }
    assert!(events("warn", &["-w"]).iter().all(|event| event == "orphan_reaped"));
    assert!(events("warn", &["-w"]).len() >= 3);
    assert_eq!(events("off", &["-w"]), [""; 0]);
    let info = events("info", &[]);
    assert!(info.contains(&"exiting".to_owned()) && !info.contains(&"orphan_reaped".to_owned()));
    for louder in [events("debug", &[]), events("info", &["-v"]), events("trace", &[])] {
        assert!(louder.iter().filter(|event| *event == "orphan_reaped").count() >= 3);
    }
}

#[test]
fn the_childs_own_lines_stay_whole_between_castoffs() {
    let mut castoff = Castoff::new(Place::Subreaper)
        .script("i=0; while [ $i -lt 300 ]; do echo 'a line of the child' >&2; i=$((i+1)); done")
        .start();
    // Each of them has castoff write two lines meanwhile.
    while castoff.ended_within(Duration::from_millis(1)).is_none() {
        process::try_signal(castoff.pid, libc::SIGURG);
    }
    let (child, own): (Vec<_>, Vec<_>) =
        castoff.log().all().into_iter().partition(|line| !line.starts_with('{'));
    assert!(child.len() == 300 && child.iter().all(|line| line == "a line of the child"));
    own.iter().for_each(|line| drop(assert_form(line)));
}

#[test]
fn a_command_that_cannot_be_run_is_told_in_one_line() {
    let scratch = Scratch::new();
    let file = scratch.file("no-program", "x");
    for (command, code, cause) in
        [("no-such-program", 127, "No such file or directory"), (&*file, 126, "Permission denied")]
    {
        let mut castoff = Castoff::new(Place::Subreaper).child::<&str>(command, []).run();
        assert_eq!(castoff.wait(), Ended::Code(code));
        let told = castoff.log().wait_for_line("castoff: ");
        assert!(told.starts_with(&format!("castoff: cannot run {command:?}: {cause}")), "{told}");
    }
}

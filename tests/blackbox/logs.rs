//! The log as its readers rely on it: every event with its fields and their
//! types, one short line each. Readers that do not read have a file of their own.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

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

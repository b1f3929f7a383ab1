//! Limits that somebody changes while the child runs: they are told, shown and
//! answered as CASTOFF_RESIZE_ACTION says; and what a scrape tells of usage and
//! processes. The files are those of a fixture, or of real groups.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{
    Castoff, Ended, Group, Place, Running, Scratch, example, in_both_places, wait_until,
};

/// A copy of a fixture, to write to.
struct Machine {
    scratch: Scratch,
}

impl Machine {
    fn new(fixture: &str) -> Self {
        let scratch = Scratch::new();
        let from =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cgroup").join(fixture);
        for half in ["sys", "proc"] {
            copy(&from.join(half), Path::new(&scratch.path(half)));
        }
        Self { scratch }
    }

    fn castoff(&self, place: Place) -> Castoff {
        Castoff::new(place)
            .env("CASTOFF_CGROUP_ROOT", self.scratch.path("sys"))
            .env("CASTOFF_PROC_ROOT", self.scratch.path("proc"))
            .env("CASTOFF_DRAIN_DELAY", "0")
    }

    #[track_caller]
    fn set(&self, file: &str, text: &str) {
        self.scratch.file(&format!("sys/{file}"), text);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a fixture").flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a file").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file");
        }
    }
}

fn sample(castoff: &Running, name: &str) -> Option<f64> {
    let metrics = castoff.get("/metrics").body;
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map(|value| value.parse().expect("a number"))
}

/// `/statusz` for programs.
/// The names of these events, in the order in which they came.
fn story_of_limits(castoff: &Running) -> Vec<String> {
    let names = ["limits_changed", "phase_changed", "signal_forwarded"];
    let name = |event: &Value| event["event"].as_str().expect("a name").to_owned();
    let all = castoff.log().events();
    all.iter().map(name).filter(|name| names.contains(&name.as_str())).collect()
}

fn status(castoff: &Running) -> Value {
    let request = "GET /statusz HTTP/1.1\r\nHost: castoff\r\nAccept: application/json\r\n\
                   Connection: close\r\n\r\n";
    let answer = crate::support::probe::ask(castoff.address(), request);
    serde_json::from_str(&answer.body).expect("JSON")
}

in_both_places! {
    fn changed_limits_are_told_and_shown(place) {
        let machine = Machine::new("v2_half_cpu");
        let mut castoff =
            machine.castoff(place).child::<&str>(&example("print_signals"), []).start();
        castoff.until_serving();
        assert_eq!(sample(&castoff, "castoff_cpu_limit_cores"), Some(0.5));
        // As a runtime does: all at once.
        machine.set("cpu.max", "150000 100000\n");
        machine.set("memory.max", "134217728\n");
        let changed = castoff.log().wait_for_event("limits_changed");
        for (field, value) in [
            ("cpus_from", json!(0.5)),
            ("cpus_to", json!(1.5)),
            ("memory_bytes_from", json!(64 << 20)),
            ("memory_bytes_to", json!(128 << 20)),
            ("cpu_source", json!("/sys/fs/cgroup/cpu.max")),
            ("pids_from", Value::Null),
            ("pids_to", Value::Null),
        ] {
            assert_eq!(changed[field], value, "{field} of {changed}");
        }
        assert_eq!(sample(&castoff, "castoff_cpu_limit_cores"), Some(1.5));
        assert_eq!(sample(&castoff, "castoff_memory_limit_bytes"), Some(134_217_728.0));
        let limits = &status(&castoff)["limits"];
        assert_eq!((&limits["cpus"], &limits["pids"]), (&json!(1.5), &json!(50)));
        // One that goes, and one that comes back.
        machine.set("pids.max", "max\n");
        let gone = castoff.next_event("limits_changed", 1);
        assert_eq!((&gone["pids_from"], &gone["pids_to"]), (&json!(50), &Value::Null));
        assert_eq!(sample(&castoff, "castoff_pids_limit"), None);
        machine.set("pids.max", "70\n");
        let back = castoff.next_event("limits_changed", 2);
        assert_eq!((&back["pids_from"], &back["pids_to"]), (&Value::Null, &json!(70)));
        assert_eq!(sample(&castoff, "castoff_pids_limit"), Some(70.0));
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
        assert_eq!(castoff.events_so_far("limits_changed").len(), 3, "a burst is one change");
    }

    fn a_signal_tells_the_child_and_is_not_rewritten(place) {
        let machine = Machine::new("v2_half_cpu");
        let mut castoff = machine
            .castoff(place)
            .env("CASTOFF_RESIZE_ACTION", "signal:SIGUSR1")
            .env("CASTOFF_REWRITE", "USR1:USR2")
            .child::<&str>(&example("print_signals"), [])
            .start();
        castoff.until_serving();
        castoff.stdout().wait_for_line("ready ");
        machine.set("memory.max", "33554432\n");
        castoff.stdout().wait_for_line("10 ");
        let forwarded = castoff.log().wait_for_event("signal_forwarded");
        assert_eq!(forwarded["signal"], "SIGUSR1");
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
        let lines = castoff.stdout().all();
        assert!(!lines.iter().any(|line| line.starts_with("12 ")), "{lines:?}");
    }

    fn a_child_that_does_not_serve_yet_is_told_later(place) {
        let machine = Machine::new("v2_half_cpu");
        let scratch = Scratch::new();
        let mut castoff = machine
            .castoff(place)
            .env("CASTOFF_RESIZE_ACTION", "signal:SIGUSR1")
            .env("CASTOFF_STARTUP_CHECK", format!("file://{}", scratch.path("started")))
            .child::<&str>(&example("print_signals"), [])
            .start();
        castoff.stdout().wait_for_line("ready ");
        machine.set("memory.max", "33554432\n");
        castoff.log().wait_for_event("limits_changed");
        scratch.file("started", "");
        castoff.stdout().wait_for_line("10 ");
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
        let story = ["limits_changed", "phase_changed", "signal_forwarded"];
        assert_eq!(story_of_limits(&castoff)[..3], story);
    }

    fn a_command_runs_with_the_new_limits_and_once_more_for_a_change_meanwhile(place) {
        let machine = Machine::new("v2_half_cpu");
        let (told, gate) = (machine.scratch.path("told"), machine.scratch.path("gate"));
        // It holds the gate open until the test has changed the limit twice.
        let command = format!(
            "/bin/sh -c 'echo $CASTOFF_MEMORY_BYTES $CASTOFF_CPUS >> {told}; echo output; \
             while [ ! -e {gate} ]; do sleep 0.01; done'"
        );
        let mut castoff = machine
            .castoff(place)
            .env("CASTOFF_RESIZE_ACTION", format!("exec:{command}"))
            .child::<&str>(&example("print_signals"), [])
            .start();
        castoff.until_serving();
        castoff.stdout().wait_for_line("ready ");
        machine.set("memory.max", "33554432\n");
        machine.scratch.wait_for_line("told", "33554432 0.5");
        for (nth, memory) in ["16777216\n", "8388608\n"].into_iter().enumerate() {
            machine.set("memory.max", memory);
            castoff.next_event("limits_changed", nth + 1);
        }
        assert_eq!(castoff.events_so_far("hook_started").len(), 1, "one at a time");
        machine.scratch.file("gate", "");
        machine.scratch.wait_for_line("told", "8388608 0.5");
        let finished = castoff.next_event("hook_finished", 1);
        assert_eq!((&finished["hook"], &finished["exit_code"]), (&json!("resize_action"), &json!(0)));
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
        assert_eq!(machine.scratch.read("told"), "33554432 0.5\n8388608 0.5\n");
        let output = castoff.events_so_far("hook_output");
        assert!(output.iter().all(|line| line["line"] == "output"), "{output:?}");
        assert_eq!(output.len(), 2);
    }

    fn a_command_that_takes_too_long_is_killed_and_the_child_runs_on(place) {
        let machine = Machine::new("v2_half_cpu");
        let mut castoff = machine
            .castoff(place)
            .env("CASTOFF_RESIZE_ACTION", "exec:sleep 600")
            .env("CASTOFF_HOOK_TIMEOUT", "100ms")
            .child::<&str>(&example("print_signals"), [])
            .start();
        castoff.until_serving();
        castoff.stdout().wait_for_line("ready ");
        machine.set("memory.max", "33554432\n");
        let finished = castoff.log().wait_for_event("hook_finished");
        assert_eq!((&finished["timed_out"], &finished["signal"]), (&json!(true), &json!("SIGKILL")));
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
    }

    fn a_restart_gives_the_child_the_new_limits(place) {
        let machine = Machine::new("v2_half_cpu");
        let mut castoff = machine
            .castoff(place)
            .env("CASTOFF_RESIZE_ACTION", "restart")
            .script("trap 'exit 0' TERM; echo $CASTOFF_MEMORY_BYTES,$GOMEMLIMIT,$CASTOFF_PIDS; \
                     while :; do sleep 0.01; done")
            .start();
        castoff.until_serving();
        castoff.stdout().wait_for_line("67108864,60397977,50");
        machine.set("pids.max", "max\n");
        machine.set("memory.max", "33554432\n");
        castoff.stdout().wait_for_line("33554432,30198988,");
        // The log comes by another pipe, and what was exported before this.
        castoff.next_event("child_started", 1);
        let exported = castoff.events_so_far("env_exported");
        let again = exported.iter().filter(|event| event["name"] == "CASTOFF_MEMORY_BYTES");
        let again: Vec<_> = again.map(|event| event["value"].as_str()).collect();
        assert_eq!(again, [Some("67108864"), Some("33554432")]);
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
        let lines = castoff.stdout().all();
        assert_eq!(lines, ["67108864,60397977,50", "33554432,30198988,"]);
        assert_eq!(castoff.events_so_far("child_started").len(), 2);
    }

    fn a_child_that_was_told_to_stop_is_not_told_of_limits(place) {
        let machine = Machine::new("v2_half_cpu");
        let gate = machine.scratch.path("gate");
        let mut castoff = machine
            .castoff(place)
            .env("CASTOFF_RESIZE_ACTION", "signal:SIGUSR1")
            .env("CASTOFF_GRACE_PERIOD", "20m")
            .script(&format!(
                "trap 'echo told; while [ ! -e {gate} ]; do sleep 0.01; done; exit 0' TERM; \
                 trap 'echo usr1' USR1; echo ready; while :; do sleep 0.01; done"
            ))
            .start();
        castoff.until_serving();
        castoff.stdout().wait_for_line("ready");
        castoff.signal(libc::SIGTERM);
        castoff.stdout().wait_for_line("told");
        machine.set("memory.max", "33554432\n");
        // It is known all the same.
        castoff.log().wait_for_event("limits_changed");
        machine.scratch.file("gate", "");
        assert_eq!(castoff.wait(), Ended::Code(0));
        assert_eq!(castoff.stdout().all(), ["ready", "told"]);
    }

    fn what_is_being_written_or_replaced_is_no_limit_that_went(place) {
        let machine = Machine::new("v2_half_cpu");
        let castoff = machine.castoff(place).child::<&str>(&example("print_signals"), []).start();
        castoff.until_serving();
        machine.set("memory.max", "");
        machine.set("cpu.max", "no number\n");
        machine.set("pids.max", "60\n");
        let changed = castoff.log().wait_for_event("limits_changed");
        assert_eq!(changed["pids_to"], 60);
        assert_eq!((&changed["memory_bytes_from"], &changed["cpus_from"]), (&Value::Null, &Value::Null));
        assert_eq!(sample(&castoff, "castoff_memory_limit_bytes"), Some(67_108_864.0));
        // Another file takes the name, and is watched from then on.
        for (nth, pids) in ["61\n", "62\n", "63\n"].into_iter().enumerate() {
            let new = machine.scratch.file("new", pids);
            fs::rename(new, machine.scratch.path("sys/pids.max")).expect("a file");
            let changed = castoff.next_event("limits_changed", nth + 1);
            assert_eq!(changed["pids_to"], 61 + nth);
        }
        machine.set("memory.max", "max\n");
        let gone = castoff.next_event("limits_changed", 4);
        assert_eq!(gone["memory_bytes_from"], 67_108_864);
        assert_eq!(sample(&castoff, "castoff_memory_limit_bytes"), None);
    }

    fn processes_are_counted_and_a_zombie_of_a_living_parent_is_named(place) {
        // The shell becomes a program that knows nothing of the child it inherits.
        let castoff = Castoff::new(place).script("sleep 0 & exec sleep 987654321").start();
        castoff.until_serving();
        let found = wait_until("the zombie is named", || {
            let processes = status(&castoff)["processes"].clone();
            (processes["unreaped"][0]["parent_command"] == "sleep").then_some(processes)
        });
        let zombie = &found["unreaped"][0];
        assert_eq!(zombie["command"], "sleep");
        assert!(zombie["pid"].is_u64() && zombie["parent_pid"].is_u64(), "{zombie}");
        assert_eq!((&found["processes"], &found["zombies"]), (&json!(1), &json!(1)));
        assert!(found["open_fds"].as_u64().is_some_and(|count| count >= 3), "{found}");
        let text = castoff.get("/statusz").body;
        assert!(text.contains("(sleep) waits for its parent "), "{text}");
        assert!(!text.contains("987654321"), "no argument is told: {text}");
        let figure = |name: &str| wait_until(name, || sample(&castoff, name));
        for name in ["castoff_processes", "castoff_zombies", "castoff_child_threads"] {
            assert_eq!(figure(name), 1.0, "{name}");
        }
        for name in ["resident_memory_bytes", "virtual_memory_bytes"] {
            assert!(figure(&format!("castoff_child_{name}")) > 4096.0, "{name}");
        }
    }

    fn the_cpu_time_of_the_tree_never_counts_down(place) {
        // Each child of the shell takes its time with it when it ends.
        let burn = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done";
        let castoff = Castoff::new(place).script(&format!("while :; do ({burn}); done")).start();
        castoff.until_serving();
        let (mut last, mut rises) = (0.0, 0);
        wait_until("it has risen three times", || {
            // Without one when this machine is too busy for the look.
            let now = sample(&castoff, "castoff_child_cpu_seconds_total")?;
            assert!(now >= last, "{now} after {last}");
            rises += u32::from(now > last);
            last = now;
            (rises >= 3).then_some(())
        });
    }

    fn a_real_group_is_watched(place) {
        let Some(group) = Group::of_memory("268435456") else { return };
        let castoff = group.enter(Castoff::new(place)).script("exec sleep 600").start();
        castoff.until_serving();
        group.set("memory.limit_in_bytes", "134217728");
        let changed = castoff.log().wait_for_event("limits_changed");
        assert_eq!(changed["memory_bytes_from"], 268_435_456);
        assert_eq!(changed["memory_bytes_to"], 134_217_728);
        assert_eq!(sample(&castoff, "castoff_memory_limit_bytes"), Some(134_217_728.0));
        let set = sample(&castoff, "castoff_memory_working_set_bytes").expect("a figure");
        let used = sample(&castoff, "castoff_memory_usage_bytes").expect("a figure");
        assert!(set > 0.0 && set <= used, "{set} of {used}");
        drop(castoff);
        drop(group);
    }
}

/// Without inotify nothing tells castoff; whoever asks gets what is true.
#[test]
fn where_nothing_can_be_watched_a_scrape_finds_the_change() {
    let machine = Machine::new("v2_half_cpu");
    let castoff = Castoff::instead(Place::Subreaper, "unshare")
        .env("CASTOFF_CGROUP_ROOT", machine.scratch.path("sys"))
        .env("CASTOFF_PROC_ROOT", machine.scratch.path("proc"))
        .env("CASTOFF_RESIZE_ACTION", "signal:SIGUSR1")
        .args(["--user", "--map-root-user", "/bin/sh", "-c"])
        .args(["echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"", "sh"])
        .args([PathBuf::from(env!("CARGO_BIN_EXE_castoff"))])
        .child::<&str>(&example("print_signals"), [])
        .start();
    castoff.until_serving();
    castoff.stdout().wait_for_line("ready ");
    machine.set("memory.max", "33554432\n");
    assert_eq!(sample(&castoff, "castoff_memory_limit_bytes"), Some(33_554_432.0));
    castoff.stdout().wait_for_line("10 ");
    assert_eq!(castoff.log().wait_for_event("limits_changed")["memory_bytes_to"], 33_554_432);
}

/// However many ask, the files are read once a second.
#[test]
fn scrapes_at_the_same_time_share_their_figures() {
    let castoff = Castoff::new(Place::Pid1).script("while :; do :; done").start();
    castoff.until_serving();
    let begun = Instant::now();
    let figure = || sample(&castoff, "castoff_child_cpu_seconds_total");
    let mut figures: Vec<_> = (0..100).filter_map(|_| figure()).collect();
    let seconds = begun.elapsed().as_secs();
    figures.dedup();
    assert!(!figures.is_empty() && figures.len() as u64 <= seconds + 2, "{seconds} s: {figures:?}");
}

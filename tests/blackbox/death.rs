//! Why the child ended: in the log, in the metrics, in the termination message,
//! with the counters of fixtures and with an OOM killer that is real.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::Mode;
use serde_json::{Value, json};

use crate::support::wait_until::PATIENCE;
use crate::support::{
    Castoff, Ended, Group, Place, Running, Scratch, example, in_both_places, wait_until,
};

/// castoff with a file for its message, and no deadline that a test would reach.
fn castoff(place: Place, scratch: &Scratch) -> Castoff {
    Castoff::new(place)
        .env("CASTOFF_GRACE_PERIOD", "20m")
        .env("CASTOFF_KILL_RESERVE", "5m")
        .env("CASTOFF_DRAIN_DELAY", "0")
        .env("CASTOFF_TERMINATION_LOG", scratch.path("message"))
}

/// The same with a deadline that comes soon; the platform's is far off.
fn short(place: Place, scratch: &Scratch) -> Castoff {
    castoff(place, scratch)
        .env("CASTOFF_GRACE_PERIOD", "10m")
        .env("CASTOFF_KILL_RESERVE", "599800ms")
}

/// On a cgroup of the fixtures whose counter is a file of the test's.
fn on_counter(place: Place, scratch: &Scratch, version: &str) -> Castoff {
    let (cgroup, mountinfo, file, limit) = match version {
        "v1" => (
            "4:memory:/\n",
            "30 20 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
            "memory/memory.oom_control",
            "memory/memory.limit_in_bytes",
        ),
        _ => (
            "0::/\n",
            "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            "memory.events",
            "memory.max",
        ),
    };
    for directory in ["proc/self", "sys/memory"] {
        fs::create_dir_all(scratch.path(directory)).expect("a directory");
    }
    scratch.file("proc/self/cgroup", cgroup);
    scratch.file("proc/self/mountinfo", mountinfo);
    scratch.file(&format!("sys/{limit}"), "67108864\n");
    let counter = scratch.file(&format!("sys/{file}"), "oom_kill 2\n");
    castoff(place, scratch)
        .env("CASTOFF_CGROUP_ROOT", scratch.path("sys"))
        .env("CASTOFF_PROC_ROOT", scratch.path("proc"))
        .env("COUNTER", counter)
}

/// A shell whose last command the OOM killer has taken.
#[track_caller]
fn assert_exited_by_itself(castoff: &Running, scratch: &Scratch, limit_mib: u32) {
    assert_eq!(how(castoff), json!({"exit_code": 137, "reason": "exited"}));
    assert_eq!(oom_kills(castoff), [killed(1, "descendant")]);
    assert_eq!(
        first_line(scratch),
        format!(
            "child exited by itself, just after the OOM killer had killed a descendant \
             at {limit_mib} MiB: exit code 137"
        )
    );
}

/// The first line of the message.
fn first_line(scratch: &Scratch) -> String {
    scratch.read("message").lines().next().unwrap_or_default().to_owned()
}

/// Those fields of the event that are there.
fn fields(event: &Value, names: &[&str]) -> Value {
    let named = names.iter().filter(|name| !event[**name].is_null());
    named.map(|name| ((*name).to_owned(), event[*name].clone())).collect()
}

const HOW: [&str; 6] = ["exit_code", "signal", "reason", "origin", "sender", "sender_command"];

/// How the child ended, as the log has it, once castoff has ended.
#[track_caller]
fn how(castoff: &Running) -> Value {
    fields(&castoff.log().wait_for_event("child_exited"), &HOW)
}

/// The kills that were told, in their order.
#[track_caller]
fn oom_kills(castoff: &Running) -> Vec<(u64, String)> {
    let events = castoff.log().events();
    let kills = events.iter().filter(|event| event["event"] == "oom_kill");
    let told = kills.map(|event| {
        assert_eq!(event["level"], "WARN");
        let victim = event["victim"].as_str().expect("a victim").to_owned();
        (event["count"].as_u64().expect("a count"), victim)
    });
    told.collect()
}

fn killed(count: u64, victim: &str) -> (u64, String) {
    (count, victim.to_owned())
}

in_both_places! {
    fn an_end_by_itself_is_told_with_its_code(place) {
        let scratch = Scratch::new();
        let mut castoff = castoff(place, &scratch).script("exit 3").run();
        assert_eq!(castoff.code(), 3);
        assert_eq!(how(&castoff), json!({"exit_code": 3, "reason": "exited"}));
        assert_eq!(first_line(&scratch), "child exited by itself: exit code 3");
        let message = scratch.read("message");
        let of_child = message.lines().nth(1).expect("a second line");
        assert!(of_child.starts_with("child: /bin/sh, ran for "), "{message}");
        // The last change is the one that the message is written in.
        assert!(message.contains(" -> exited (child_exited)\n"), "{message}");
        assert!(message.ends_with("(castoff 0.1.0)\n") && message.len() < 4096, "{message}");
        assert!(!message.contains("exit 3\""), "no arguments: {message}");
    }

    fn a_good_end_writes_nothing(place) {
        for (ending, flags) in [("exit 0", vec![]), ("exit 3", vec!["-e", "3"])] {
            let scratch = Scratch::new();
            let mut castoff = castoff(place, &scratch).args(flags).script(ending).run();
            assert_eq!(castoff.code(), 0);
            assert!(!fs::exists(scratch.path("message")).expect("a place"), "{ending}");
        }
    }

    fn an_end_that_was_asked_for_writes_nothing(place) {
        let scratch = Scratch::new();
        let castoff = castoff(place, &scratch).child(&example("graceful"), ["0"]);
        let mut castoff = castoff.start();
        castoff.stdout().wait_for_line("graceful: working");
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 0);
        assert_eq!(how(&castoff), json!({"exit_code": 0, "reason": "stopped"}));
        let scratch = Scratch::new();
        let mut castoff = self::castoff(place, &scratch).child("sleep", ["600"]).start();
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 143);
        let by_castoff = json!({"signal": "SIGTERM", "reason": "stopped", "origin": "castoff"});
        assert_eq!(how(&castoff), by_castoff);
        assert!(!fs::exists(scratch.path("message")).expect("a place"));
    }

    fn a_kill_at_the_deadline_is_told_with_what_was_asked(place) {
        let scratch = Scratch::new();
        let mut castoff = short(place, &scratch).child(&example("stubborn"), [""; 0]).start();
        castoff.stdout().wait_for_line("stubborn: ");
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 137);
        assert_eq!(how(&castoff), json!({"signal": "SIGKILL", "reason": "killed_at_deadline"}));
        assert_eq!(
            first_line(&scratch),
            "child killed by castoff at the deadline, 0.200 s after SIGTERM: exit code 137"
        );
        let message = scratch.read("message");
        let sender = match place {
            Place::Pid1 => "stop: SIGTERM from outside the container (uid ",
            // A thread of this very process.
            Place::Subreaper => "stop: SIGTERM from ",
        };
        assert!(message.contains(sender), "{message}");
        // Among all processes of a busy machine it may not be found in time.
        let is_listed = message.contains("left to be killed: 1 (stubborn)\n");
        assert!(is_listed || place == Place::Subreaper, "{message}");
        assert!(message.contains(": stopping -> killing (deadline)\n"), "{message}");
    }

    fn a_third_stop_signal_is_no_deadline(place) {
        let scratch = Scratch::new();
        let mut castoff = castoff(place, &scratch).child(&example("stubborn"), [""; 0]).start();
        castoff.stdout().wait_for_line("stubborn: ");
        castoff.until_serving();
        for nth in 1..=3 {
            castoff.signal(libc::SIGINT);
            // One that is pending is not sent twice.
            wait_until("it has come", || {
                let received = |line: &&String| line.contains("\"signal_received\"");
                (castoff.log().so_far().iter().filter(received).count() == nth).then_some(())
            });
        }
        assert_eq!(castoff.code(), 137);
        let line = first_line(&scratch);
        assert_eq!(line, "child killed by castoff at a third stop signal: exit code 137");
    }

    fn a_signal_that_nobody_knows_of_is_somebodys(place) {
        for (name, number) in [("KILL", 9), ("USR1", 10), ("TERM", 15), ("RTMIN", 34)] {
            let scratch = Scratch::new();
            let script = format!("kill -{number} $$");
            let mut castoff = castoff(place, &scratch).script(&script).run();
            assert_eq!(castoff.code(), 128 + number);
            let signal = format!("SIG{name}");
            assert_eq!(how(&castoff), json!({"signal": signal, "reason": "signalled"}));
            let code = 128 + number;
            let line = format!("child ended by {signal}, not sent by castoff: exit code {code}");
            assert_eq!(first_line(&scratch), line);
        }
    }

    fn a_signal_that_castoff_has_passed_on_is_its_senders(place) {
        let scratch = Scratch::new();
        let mut castoff = castoff(place, &scratch).child("sleep", ["600"]).start();
        castoff.until_serving().signal(libc::SIGUSR1);
        assert_eq!(castoff.code(), 138);
        let death = castoff.log().wait_for_event("child_exited");
        let received = castoff.log().wait_for_event("signal_received");
        assert_eq!(death["reason"], "signalled");
        assert_eq!(death["origin"], "forwarded");
        for field in ["sender", "sender_pid", "sender_uid", "sender_command"] {
            assert_eq!(death[field], received[field], "{field}");
        }
        let line = first_line(&scratch);
        let begin = "child ended by SIGUSR1, forwarded from ";
        assert!(line.starts_with(begin) && line.ends_with(": exit code 138"), "{line}");
    }

    fn a_fault_is_the_childs_own(place) {
        let scratch = Scratch::new();
        let mut castoff = castoff(place, &scratch).script("ulimit -c 0; kill -SEGV $$").run();
        assert_eq!(castoff.code(), 139);
        let death = json!({"signal": "SIGSEGV", "reason": "signalled", "origin": "fault"});
        assert_eq!(how(&castoff), death);
        assert_eq!(castoff.log().wait_for_event("child_exited")["core_dumped"], Value::Null);
        assert_eq!(
            first_line(&scratch),
            "child ended by SIGSEGV, a fault of its own: exit code 139"
        );
    }

    fn a_core_that_was_dumped_is_told(place) {
        let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("a pattern");
        if pattern.contains(['|', '/', '@']) {
            println!("skipped: cores go to {pattern}");
            return;
        }
        let scratch = Scratch::new();
        let script = format!("cd {} && ulimit -c 100000 && kill -ABRT $$", scratch.path("."));
        let mut castoff = castoff(place, &scratch).script(&script).run();
        assert_eq!(castoff.code(), 134);
        assert_eq!(castoff.log().wait_for_event("child_exited")["core_dumped"], true);
        assert_eq!(
            first_line(&scratch),
            "child ended by SIGABRT, a fault of its own, core dumped: exit code 134"
        );
    }

    fn a_crash_while_it_stops_is_told(place) {
        let scratch = Scratch::new();
        let script = "trap 'kill -SEGV $$' TERM; ulimit -c 0; echo ready; while :; do sleep 0.01; done";
        let mut castoff = castoff(place, &scratch).script(script).start();
        castoff.stdout().wait_for_line("ready");
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 139);
        assert_eq!(how(&castoff)["reason"], "stopped");
        assert_eq!(
            first_line(&scratch),
            "child ended by SIGSEGV, a fault of its own, while it was stopping: exit code 139"
        );
    }

    fn an_oom_kill_of_the_child_is_told_apart_from_another_sigkill(place) {
        for version in ["v1", "v2"] {
            let scratch = Scratch::new();
            let script = "echo oom_kill 3 > $COUNTER; kill -9 $$";
            let mut castoff = on_counter(place, &scratch, version).script(script).run();
            assert_eq!(castoff.code(), 137);
            assert_eq!(how(&castoff), json!({"signal": "SIGKILL", "reason": "oom_killed"}));
            assert_eq!(oom_kills(&castoff), [killed(1, "child")], "{version}");
            let line = "child killed by the OOM killer at 64 MiB: exit code 137";
            assert_eq!(first_line(&scratch), line);
            // The counter as it was before the child is nobody's.
            let scratch = Scratch::new();
            let castoff = on_counter(place, &scratch, version).script("kill -9 $$").run();
            assert_eq!(how(&castoff)["reason"], "signalled", "{version}");
            assert_eq!(oom_kills(&castoff), [], "{version}");
        }
    }

    fn several_victims_are_told_apart(place) {
        let scratch = Scratch::new();
        let script = "echo oom_kill 5 > $COUNTER; kill -9 $$";
        let castoff = on_counter(place, &scratch, "v2").script(script).run();
        assert_eq!(oom_kills(&castoff), [killed(1, "child"), killed(2, "descendant")]);
        let message = scratch.read("message");
        let line = "killed by the OOM killer: the child 1, descendants 2, with the group 0\n";
        assert!(message.contains(line), "{message}");
    }

    fn a_group_that_is_killed_whole_is_one_victim(place) {
        for (name, text, counter) in
            [("sys/memory.oom.group", "1\n", "oom_kill 4"), ("other", "", "oom_kill 4\noom_group_kill 1")]
        {
            let scratch = Scratch::new();
            let castoff = on_counter(place, &scratch, "v2").env("TEXT", counter);
            scratch.file(name, text);
            let castoff = castoff.script("echo \"$TEXT\" > $COUNTER; kill -9 $$").run();
            assert_eq!(how(&castoff)["reason"], "oom_killed", "{name}");
            assert_eq!(oom_kills(&castoff), [killed(2, "group")], "{name}");
            let line = "child killed with its whole group by the OOM killer at 64 MiB: exit code 137";
            assert_eq!(first_line(&scratch), line);
        }
    }

    fn a_shell_whose_last_command_was_the_victim_has_exited(place) {
        let scratch = Scratch::new();
        let script = "echo oom_kill 3 > $COUNTER; sh -c 'kill -9 $$'; exit $?";
        let mut castoff = on_counter(place, &scratch, "v2").script(script).run();
        assert_eq!(castoff.code(), 137);
        assert_exited_by_itself(&castoff, &scratch, 64);
    }

    fn an_orphan_that_was_killed_is_told_while_the_child_runs(place) {
        let scratch = Scratch::new();
        let script = "(sh -c 'echo oom_kill 3 > $COUNTER; kill -9 $$' &); exec sleep 600";
        let castoff = on_counter(place, &scratch, "v2").script(script);
        let mut castoff = castoff.start();
        let kill = castoff.log().wait_for_event("oom_kill");
        assert_eq!(fields(&kill, &["count", "victim"]), json!({"count": 1, "victim": "descendant"}));
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 143);
        assert_eq!(oom_kills(&castoff).len(), 1, "once");
    }

    fn a_kill_that_castoff_does_not_reap_is_told_on_a_scrape(place) {
        let scratch = Scratch::new();
        let script = "echo oom_kill 4 > $COUNTER; exec sleep 600";
        let castoff = on_counter(place, &scratch, "v2").script(script).start();
        castoff.until_serving();
        let kill = wait_until("a kill is told", || {
            let _ = castoff.get("/metrics");
            let told = castoff.log().so_far();
            told.into_iter().find(|line| line.contains("\"oom_kill\""))
        });
        assert!(kill.contains("\"count\":2,\"victim\":\"descendant\""), "{kill}");
    }

    fn a_counter_that_is_none_explains_nothing(place) {
        let scratch = Scratch::new();
        let script = "echo nonsense > $COUNTER; kill -9 $$";
        let castoff = on_counter(place, &scratch, "v2").script(script).run();
        assert_eq!(how(&castoff)["reason"], "signalled");
        assert_eq!(oom_kills(&castoff), []);
    }

    fn the_metrics_count_ends_and_kills(place) {
        let scratch = Scratch::new();
        let script = "echo oom_kill 9 > $COUNTER; exec sleep 600";
        let castoff = on_counter(place, &scratch, "v2").script(script).start();
        castoff.until_serving();
        let has = |line: &str| {
            let metrics = castoff.get("/metrics").body;
            metrics.lines().any(|told| told == line).then_some(())
        };
        wait_until("the counter is told", || has("castoff_oom_kills_total 9"));
        wait_until("no child has ended", || has("castoff_child_exits_total{reason=\"exited\"} 0"));
        let scratch = Scratch::new();
        let restarted = self::castoff(place, &scratch)
            .env("CASTOFF_RESTART", "on-failure")
            .env("CASTOFF_RESTART_MIN", "1ms")
            .env("FLAG", scratch.path("flag"))
            .script("[ -e $FLAG ] && exec sleep 600; echo > $FLAG; exit 5")
            .start();
        wait_until("an end is told", || {
            let metrics = restarted.get("/metrics").body;
            metrics.contains("castoff_child_exits_total{reason=\"exited\"} 1\n").then_some(())
        });
    }

    fn a_start_that_fails_is_told(place) {
        for (program, code, cause) in [
            ("/nonexistent", 127, "cannot run \"/nonexistent\": No such file or directory"),
            ("/etc/passwd", 126, "cannot run \"/etc/passwd\": Permission denied"),
        ] {
            let scratch = Scratch::new();
            let mut castoff = castoff(place, &scratch).child(program, ["secret"]).run();
            assert_eq!(castoff.code(), code);
            let line = first_line(&scratch);
            assert!(line.starts_with(&format!("child not started, {cause}")), "{line}");
            assert!(line.ends_with(&format!(": exit code {code}")), "{line}");
            assert!(!scratch.read("message").contains("secret"));
        }
        let scratch = Scratch::new();
        let castoff = castoff(place, &scratch).env("CASTOFF_PRE_START", "sh -c 'exit 4'");
        let mut castoff = castoff.script("exit 0").run();
        assert_eq!(castoff.code(), 4);
        let line = "child not started, the pre-start hook has failed: exit code 4";
        assert_eq!(first_line(&scratch), line);
    }

    fn a_wait_in_vain_is_told_by_the_names_of_checks(place) {
        let scratch = Scratch::new();
        let file = scratch.path("secret");
        let castoff = castoff(place, &scratch)
            .env("CASTOFF_WAIT_FOR", format!("file://{file}"))
            .env("CASTOFF_WAIT_TIMEOUT", "100ms");
        let mut castoff = castoff.script("exit 0").run();
        assert_eq!(castoff.code(), 125);
        let message = scratch.read("message");
        let line = "child not started, what CASTOFF_WAIT_FOR names has not passed in time: exit code 125";
        assert_eq!(message.lines().next(), Some(line));
        assert!(message.contains("checks that did not pass: wait-for-1\n"), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }

    fn settings_that_cannot_be_used_are_told_without_their_values(place) {
        let scratch = Scratch::new();
        let mut castoff = castoff(place, &scratch)
            .env("CASTOFF_DRAIN_DELAY", "hunter2")
            .env("CASTOFF_NONSENSE", "hunter2")
            .script("exit 0")
            .run();
        assert_eq!(castoff.code(), 125);
        let message = scratch.read("message");
        let line = "child not started, its settings cannot be used: ";
        assert!(message.starts_with(line), "{message}");
        assert!(message.contains("CASTOFF_DRAIN_DELAY") && message.contains("CASTOFF_NONSENSE"));
        assert!(!message.contains("hunter2"), "{message}");
        // Nobody was to be supervised.
        let scratch = Scratch::new();
        let print = self::castoff(place, &scratch).env("CASTOFF_DRAIN_DELAY", "x").args(["--print-config"]);
        assert_eq!(print.run().code(), 125);
        assert!(!fs::exists(scratch.path("message")).expect("a place"));
    }

    fn an_address_that_is_taken_is_told(place) {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("an address");
        let address = taken.local_addr().expect("an address").to_string();
        let scratch = Scratch::new();
        let castoff = castoff(place, &scratch).env("CASTOFF_HEALTH_LISTEN", &address);
        assert_eq!(castoff.script("exit 0").run().code(), 125);
        let line = first_line(&scratch);
        assert!(line.starts_with("child not started, cannot listen on "), "{line}");
    }

    fn what_was_written_of_a_child_before_is_taken_back(place) {
        let scratch = Scratch::new();
        let castoff = castoff(place, &scratch)
            .env("CASTOFF_RESTART", "on-failure")
            .env("CASTOFF_RESTART_MIN", "300ms")
            .env("FLAG", scratch.path("flag"))
            .script("[ -e $FLAG ] && exec sleep 600; echo > $FLAG; exit 5");
        let mut castoff = castoff.start();
        wait_until("the first end is written", || {
            (first_line(&scratch) == "child exited by itself: exit code 5").then_some(())
        });
        wait_until("the next child is written of", || {
            let started = |line: &&String| line.contains("\"event\":\"child_started\"");
            (castoff.log().so_far().iter().filter(started).count() == 2).then_some(())
        });
        wait_until("the first end is taken back", || {
            scratch.read("message").is_empty().then_some(())
        });
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 143);
        assert_eq!(scratch.read("message"), "");
    }

    fn giving_up_is_told(place) {
        let scratch = Scratch::new();
        let castoff = castoff(place, &scratch)
            .env("CASTOFF_RESTART", "on-failure")
            .env("CASTOFF_RESTART_MIN", "1ms")
            .env("CASTOFF_RESTART_LIMIT", "2")
            .script("exit 5");
        assert_eq!(castoff.run().code(), 5);
        let message = scratch.read("message");
        let line = "restarts: 2; 2 in a row is the limit, castoff has given up\n";
        assert!(message.contains(line), "{message}");
    }

    fn the_message_is_there_before_castoff_is_killed(place) {
        let scratch = Scratch::new();
        // Somebody is left whom the sweep waits for; the directory goes with the test.
        let script = "(trap '' TERM; echo > $FLAG; while [ -e $FLAG ]; do sleep 0.01; done) &
            while ! [ -e $FLAG ]; do sleep 0.01; done; exit 7";
        let castoff = castoff(place, &scratch).env("FLAG", scratch.path("flag"));
        let mut castoff = castoff.script(script).start();
        castoff.until_phase("sweeping");
        wait_until("the message is there", || {
            (first_line(&scratch) == "child exited by itself: exit code 7").then_some(())
        });
        castoff.signal(libc::SIGKILL);
        castoff.wait();
        assert_eq!(first_line(&scratch), "child exited by itself: exit code 7");
    }

    fn what_the_program_has_written_stays(place) {
        let scratch = Scratch::new();
        let script = "echo 'no such table' > $CASTOFF_TERMINATION_LOG; exit 3";
        let mut castoff = castoff(place, &scratch).script(script).run();
        assert_eq!(castoff.code(), 3);
        assert_eq!(scratch.read("message"), "no such table\n");
    }

    fn a_castoff_before_it_is_followed_in_place(place) {
        let scratch = Scratch::new();
        for code in [3, 4] {
            let castoff = castoff(place, &scratch).script(&format!("exit {code}"));
            assert_eq!(castoff.run().code(), code);
            assert_eq!(first_line(&scratch), format!("child exited by itself: exit code {code}"));
        }
        assert_eq!(castoff(place, &scratch).script("exit 0").run().code(), 0);
        assert_eq!(scratch.read("message"), "");
    }

    fn a_file_that_cannot_be_written_is_a_warning_and_no_more(place) {
        let scratch = Scratch::new();
        nix::unistd::mkfifo(scratch.path("fifo").as_str(), Mode::S_IRWXU).expect("a FIFO");
        for (path, cause) in [
            (scratch.path("fifo"), "not a regular file"),
            ("/dev/full".to_owned(), "not a regular file"),
            (scratch.path("no/such/place"), "No such file or directory (os error 2)"),
            ("/proc/self/message".to_owned(), "No such file or directory (os error 2)"),
        ] {
            let castoff = castoff(place, &scratch).env("CASTOFF_TERMINATION_LOG", &path);
            let mut castoff = castoff.script("exit 3").run();
            assert_eq!(castoff.code(), 3, "{path}");
            let warning = castoff.log().wait_for_event("termination_log_failed");
            let told = fields(&warning, &["level", "path", "cause"]);
            assert_eq!(told, json!({"level": "WARN", "path": path, "cause": cause}));
            let last = castoff.log().events();
            let last = last.last().expect("the last event");
            assert_eq!(last["event"], "exiting", "{path}");
        }
    }

    fn a_file_that_has_no_room_is_left_empty(place) {
        let scratch = Scratch::new();
        scratch.file("message", "");
        let no_room = || -> io::Result<()> { Ok(setrlimit(Resource::RLIMIT_FSIZE, 100, 100)?) };
        let castoff = castoff(place, &scratch).last(no_room);
        let mut castoff = castoff.script("exit 3").run();
        assert_eq!(castoff.code(), 3);
        castoff.log().wait_for_event("termination_log_failed");
        assert_eq!(scratch.read("message"), "");
    }

    fn it_can_be_turned_off_and_is_off_without_a_file(place) {
        let scratch = Scratch::new();
        let castoff = castoff(place, &scratch).env("CASTOFF_TERMINATION_LOG", "off");
        assert_eq!(castoff.script("exit 3").run().code(), 3);
        assert!(!fs::exists(scratch.path("message")).expect("a place"));
        if fs::exists("/dev/termination-log").expect("/dev") {
            println!("skipped: this machine has a /dev/termination-log");
            return;
        }
        let mut castoff = Castoff::new(place).script("exit 3").run();
        assert_eq!(castoff.code(), 3);
        let events = castoff.log().events();
        assert!(events.iter().all(|event| event["level"] == "INFO"), "{events:?}");
        assert!(!fs::exists("/dev/termination-log").expect("/dev"));
    }

    fn the_real_oom_killer_takes_the_child(place) {
        let Some(group) = Group::of_memory("32M") else { return };
        let scratch = Scratch::new();
        let mut castoff = group.enter(castoff(place, &scratch)).child("tail", ["/dev/zero"]).run();
        assert_eq!(castoff.code(), 137, "{:?}", castoff.log().all());
        assert_eq!(how(&castoff), json!({"signal": "SIGKILL", "reason": "oom_killed"}));
        assert_eq!(oom_kills(&castoff), [killed(1, "child")]);
        let line = "child killed by the OOM killer at 32 MiB: exit code 137";
        assert_eq!(first_line(&scratch), line);
    }

    fn a_look_between_the_kill_and_the_end_blames_nobody_else(place) {
        let Some(group) = Group::of_memory("32M") else { return };
        let scratch = Scratch::new();
        // castoff is not in the group itself: it takes memory for each answer, and
        // while the victim's is not free yet the kernel would take another victim.
        let castoff = on_counter(place, &scratch, "v1").env("GROUP", &group.dir);
        fs::remove_file(scratch.path("sys/memory/memory.oom_control")).expect("it is there");
        symlink(group.dir.join("memory.oom_control"), scratch.path("sys/memory/memory.oom_control"))
            .expect("a link");
        let (reader, mut go) = io::pipe().expect("a pipe");
        let script = "echo $$ > $GROUP/cgroup.procs; read go; exec tail /dev/zero";
        let castoff = castoff.script(script).with(|command| {
            command.stdin(reader);
        });
        let mut castoff = castoff.start();
        castoff.until_serving();
        let address = castoff.address();
        // Each scrape is a look, and there is no moment without one.
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    if let Ok(mut stream) = TcpStream::connect(address) {
                        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
                        let _ = stream.read_to_end(&mut Vec::new());
                    }
                }
            });
            writeln!(go).expect("it listens");
            let ended = castoff.ended_within(PATIENCE);
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(ended, Some(Ended::Code(137)), "{:?}", castoff.log().so_far());
        });
        assert_eq!(how(&castoff), json!({"signal": "SIGKILL", "reason": "oom_killed"}));
        assert_eq!(oom_kills(&castoff), [killed(1, "child")]);
    }

    fn the_real_oom_killer_takes_a_descendant(place) {
        let Some(group) = Group::of_memory("32M") else { return };
        let scratch = Scratch::new();
        let castoff = group.enter(castoff(place, &scratch));
        let mut castoff = castoff.script("tail /dev/zero; exit $?").run();
        assert_eq!(castoff.code(), 137, "{:?}", castoff.log().all());
        assert_exited_by_itself(&castoff, &scratch, 32);
    }

    fn the_real_oom_killer_takes_an_orphan(place) {
        let Some(group) = Group::of_memory("32M") else { return };
        let scratch = Scratch::new();
        let castoff = group.enter(castoff(place, &scratch));
        let mut castoff = castoff.script("(tail /dev/zero &); exec sleep 600").start();
        let kill = castoff.log().wait_for_event("oom_kill");
        assert_eq!(fields(&kill, &["count", "victim"]), json!({"count": 1, "victim": "descendant"}));
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 143);
        assert_eq!(oom_kills(&castoff).len(), 1);
    }
}

#[test]
fn a_file_that_may_not_be_written_is_a_warning_for_who_is_not_root() {
    let scratch = Scratch::new();
    let message = scratch.file("message", "");
    fs::set_permissions(&message, fs::Permissions::from_mode(0o444)).expect("it is ours");
    let castoff = castoff(Place::Subreaper, &scratch).last(|| {
        // Root may write to anything.
        Ok(nix::unistd::setuid(nix::unistd::Uid::from_raw(65534))?)
    });
    if !nix::unistd::getuid().is_root() {
        println!("skipped: only root can become somebody else");
        return;
    }
    let mut castoff = castoff.script("exit 3").run();
    assert_eq!(castoff.code(), 3);
    let warning = castoff.log().wait_for_event("termination_log_failed");
    assert_eq!(warning["cause"], "Permission denied (os error 13)");
    assert_eq!(scratch.read("message"), "");
}

//! The stop, from the request to castoff's end, in all its branches.
//!
//! What happened is proven three times: by the log, compared whole as a story,
//! by the child's own record, and by the endpoints while it happens.
#![expect(unsafe_code, reason = "what happens between fork and exec")]

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::support::{
    Castoff, Ended, Place, Running, Scratch, example, in_both_places, process, story, wait_until,
};

const KILLED: i32 = 128 + libc::SIGKILL;

/// So far away that a test which reached it would have lost all patience.
const NEVER: &str = "10m";

/// castoff with a grace period that never ends. The reserve leaves `budget` of
/// it for the stop, so that the deadline is near and the platform's SIGKILL,
/// before which castoff must have ended, is far.
fn castoff(place: Place, budget: &str, drain_delay: &str) -> Castoff {
    let budget = humantime::parse_duration(budget).expect("a duration");
    let reserve = Duration::from_secs(600) - budget;
    Castoff::new(place)
        .env("CASTOFF_GRACE_PERIOD", NEVER)
        .env("CASTOFF_KILL_RESERVE", format!("{}ms", reserve.as_millis()))
        .env("CASTOFF_DRAIN_DELAY", drain_delay)
}

impl Castoff {
    /// A child that prints every signal, and ends at SIGTERM.
    fn printing(self) -> Self {
        self.child::<&str>(&example("print_signals"), [])
    }

    /// A child that prints every signal and ends at none.
    fn only_printing(self) -> Self {
        self.child(&example("print_signals"), ["--only-print"])
    }
}

impl Running {
    /// Waits until the child handles signals and castoff serves.
    #[track_caller]
    fn until_ready(&self) -> &Self {
        self.stdout().wait_for_line("ready");
        self.until_serving()
    }

    /// Waits until the child has printed that signal for the `nth` time.
    #[track_caller]
    fn child_has(&self, signal: i32, nth: usize) {
        wait_until(&format!("the child has signal {signal} {nth} times"), || {
            (self.record(signal) >= nth).then_some(())
        });
    }

    /// How often the child has printed the signal so far.
    fn record(&self, signal: i32) -> usize {
        let start = format!("{signal} ");
        self.stdout().so_far().iter().filter(|line| line.starts_with(&start)).count()
    }

    #[track_caller]
    fn status_of(&self, path: &str) -> u16 {
        self.get(path).status
    }

    /// The number of milliseconds that an event of the finished life tells.
    #[track_caller]
    fn told_ms(&self, event: &str, field: &str) -> u64 {
        let events = self.log().events();
        let event = events.iter().find(|line| line["event"] == event).expect(event);
        event[field].as_u64().expect(field)
    }
}

in_both_places! {
    fn readiness_is_off_and_the_child_serves_on_before_it_is_told(place) {
        let mut castoff = castoff(place, "9m", "300ms").printing().start();
        castoff.until_ready();
        assert_eq!(castoff.status_of("/readyz"), 200);
        let asked_at = Instant::now();
        castoff.signal(libc::SIGTERM);
        wait_until("readiness is off", || (castoff.status_of("/readyz") == 503).then_some(()));
        assert_eq!(castoff.status_of("/livez"), 200);
        // The child works as before, whatever else it is sent.
        castoff.signal(libc::SIGUSR1);
        castoff.child_has(libc::SIGUSR1, 1);
        castoff.child_has(libc::SIGTERM, 1);
        assert!(asked_at.elapsed() >= Duration::from_millis(300), "{:?}", asked_at.elapsed());
        assert_eq!(castoff.wait(), Ended::Code(0));
        assert_eq!(castoff.stdout().all()[1..].iter().map(|line| line.split(' ').next()).collect::<Vec<_>>(), [Some("10"), Some("15")]);
        assert_eq!(story(&castoff), [
            "starting -> serving: child_ready",
            "received SIGTERM",
            "serving -> draining: stop_requested",
            "received SIGUSR1",
            "told the child SIGUSR1",
            "drained: delay",
            "draining -> stopping: drain_delay",
            "told the child SIGTERM",
            "child stopped: 0",
            "stopping -> exited: child_exited",
            "exiting 0",
        ]);
        assert!(castoff.told_ms("drain_finished", "waited_ms") >= 300);
        assert!(castoff.told_ms("exiting", "stop_ms") >= 300);
    }

    fn without_a_drain_the_child_is_told_at_once(place) {
        for (number, name, code) in [(libc::SIGTERM, "SIGTERM", 143), (libc::SIGINT, "SIGINT", 130)] {
            let mut castoff = castoff(place, "9m", "0").child("sleep", ["600"]).start();
            castoff.until_serving().signal(number);
            assert_eq!(castoff.wait(), Ended::Code(code));
            assert_eq!(story(&castoff), [
                "starting -> serving: child_ready".to_owned(),
                format!("received {name}"),
                "serving -> stopping: stop_requested".to_owned(),
                format!("told the child {name}"),
                format!("child stopped: {name}"),
                "stopping -> exited: child_exited".to_owned(),
                format!("exiting {code}"),
            ]);
        }
    }

    fn a_child_that_finishes_its_work_keeps_its_own_code(place) {
        let script = "trap 'echo told; exec sh -c \"exit 3\"' TERM; echo ready; while :; do sleep 0.01; done";
        let mut castoff = castoff(place, "9m", "0").script(script).start();
        castoff.until_ready().signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(3));
        castoff.stdout().wait_for_line("told");
    }

    fn the_deadline_kills_the_stubborn_child_and_its_tree(place) {
        let mut castoff = castoff(place, "400ms", "100ms").child(&example("stubborn"), ["2"]).start();
        castoff.until_serving();
        let tree = wait_until("the whole tree runs", || {
            let lines = castoff.stdout().so_far();
            let started = lines.iter().filter(|line| line.starts_with("stubborn")).count();
            (started == 3).then(|| with_descendants(castoff.pid))
        });
        assert_eq!(tree.len(), 3, "{tree:?}");
        let asked_at = Instant::now();
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(KILLED));
        // From the request, not from the end of the drain; and before the grace
        // period is over, for `wait` has less patience than that.
        assert!(asked_at.elapsed() >= Duration::from_millis(400), "{:?}", asked_at.elapsed());
        assert!(castoff.told_ms("exiting", "stop_ms") >= 400);
        assert_eq!(tree.iter().filter(|pid| process::is_running(**pid)).count(), 0);
        let story = story(&castoff);
        assert_eq!(story[..8], [
            "starting -> serving: child_ready",
            "received SIGTERM",
            "serving -> draining: stop_requested",
            "drained: delay",
            "draining -> stopping: drain_delay",
            "told the child SIGTERM",
            "left: stubborn stubborn stubborn",
            "stopping -> killing: deadline",
        ]);
        assert_eq!(story[8], "child killed_at_deadline: SIGKILL");
        // Whether the companions were reaped with the child or after it is chance.
        assert!(matches!(&*story[9], "killing -> exited: child_exited" | "killing -> exited: tree_gone"), "{story:?}");
        assert_eq!(story[10..], ["exiting 137"]);
    }

    fn a_second_stop_signal_skips_the_drain_and_a_third_kills(place) {
        let mut castoff = castoff(place, "9m", "8m").only_printing().start();
        castoff.until_ready().signal(libc::SIGTERM);
        castoff.until_phase("draining");
        assert_eq!(castoff.record(libc::SIGTERM), 0);
        castoff.signal(libc::SIGINT);
        castoff.child_has(libc::SIGINT, 1);
        assert_eq!(castoff.record(libc::SIGTERM), 0);
        castoff.until_phase("stopping");
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(KILLED));
        assert_eq!(story(&castoff), [
            "starting -> serving: child_ready",
            "received SIGTERM",
            "serving -> draining: stop_requested",
            "received SIGINT",
            "drained: second_signal",
            "draining -> stopping: second_signal",
            "told the child SIGINT",
            "received SIGTERM",
            "stopping -> killing: third_signal",
            "left: print_signals",
            "child killed_at_deadline: SIGKILL",
            "killing -> exited: child_exited",
            "exiting 137",
        ]);
    }

    fn without_a_drain_the_second_signal_is_the_programs_to_understand(place) {
        let mut castoff = castoff(place, "9m", "0").only_printing().start();
        castoff.until_ready().signal(libc::SIGTERM);
        castoff.child_has(libc::SIGTERM, 1);
        castoff.signal(libc::SIGTERM);
        castoff.child_has(libc::SIGTERM, 2);
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(KILLED));
        assert_eq!(castoff.record(libc::SIGTERM), 2);
    }

    fn a_stop_before_the_child_was_ready_skips_the_drain(place) {
        let mut castoff = stopped_before_the_start(castoff(place, "9m", "8m").only_printing());
        castoff.child_has(libc::SIGTERM, 1);
        let ready = castoff.get("/readyz");
        assert_eq!((ready.status, &*ready.body), (503, "[+]child ok\n[-]started failed: reason withheld\n\
             [-]stop failed: reason withheld\nreadyz check failed\n"));
        assert_eq!(castoff.status_of("/startupz"), 503);
        assert_eq!(castoff.status_of("/livez"), 200);
        castoff.signal(libc::SIGTERM);
        castoff.signal(libc::SIGINT);
        assert_eq!(castoff.wait(), Ended::Code(KILLED));
        assert_eq!(story(&castoff)[..3], [
            "received SIGTERM",
            "starting -> stopping: stop_requested",
            "told the child SIGTERM",
        ]);
    }

    fn readiness_can_stay_until_the_drain_is_over(place) {
        let mut castoff = castoff(place, "9m", "8m")
            .env("CASTOFF_READINESS_ON_STOP", "after-drain")
            .only_printing()
            .start();
        castoff.until_ready().signal(libc::SIGTERM);
        castoff.until_phase("draining");
        assert_eq!(castoff.status_of("/readyz"), 200);
        castoff.signal(libc::SIGTERM);
        castoff.child_has(libc::SIGTERM, 1);
        assert_eq!(castoff.status_of("/readyz"), 503);
        castoff.end();
    }

    fn readiness_can_stay_until_the_child_has_gone(place) {
        let mut castoff = castoff(place, "9m", "50ms")
            .env("CASTOFF_READINESS_ON_STOP", "never")
            .only_printing()
            .start();
        castoff.until_ready().signal(libc::SIGTERM);
        castoff.until_phase("draining");
        assert_eq!(castoff.status_of("/readyz"), 200);
        castoff.child_has(libc::SIGTERM, 1);
        assert_eq!(castoff.status_of("/readyz"), 200);
        castoff.end();
    }

    fn the_stop_signal_can_be_a_fixed_one(place) {
        for (word, number) in [("QUIT", libc::SIGQUIT), ("SIGRTMIN+3", 37), ("10", libc::SIGUSR1)] {
            let mut castoff = castoff(place, "9m", "0")
                .env("CASTOFF_STOP_SIGNAL", word)
                .child("sleep", ["600"])
                .start();
            castoff.until_serving().signal(libc::SIGTERM);
            assert_eq!(castoff.wait(), Ended::Code(128 + number), "{word}");
        }
    }

    fn a_stop_signal_of_kill_is_named_as_what_it_is(place) {
        let mut castoff = castoff(place, "9m", "0")
            .env("CASTOFF_STOP_SIGNAL", "KILL")
            .child("sleep", ["600"])
            .start();
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(KILLED));
        assert_eq!(story(&castoff)[4], "child stopped: SIGKILL");
    }

    fn the_stop_signal_goes_to_the_childs_group_if_asked_for(place) {
        for scope in ["group", "child"] {
            // In the child's group is one that prints, outside is another.
            let prints = example("print_signals");
            let script = format!(
                "setsid {prints} --only-print > $OTHER & {prints} --only-print & p=$!; \
                 trap 'kill -USR2 $p' TERM; echo armed; while :; do sleep 0.01; done"
            );
            let scratch = Scratch::new();
            let mut castoff = castoff(place, "9m", "0")
                .env("OTHER", scratch.path("other"))
                .env("CASTOFF_STOP_SCOPE", scope)
                .script(&script)
                .start();
            castoff.until_ready();
            castoff.stdout().wait_for_line("armed");
            scratch.wait_for_line("other", "ready");
            castoff.signal(libc::SIGTERM);
            // The child has it in either case.
            castoff.child_has(libc::SIGUSR2, 1);
            assert_eq!(castoff.record(libc::SIGTERM), usize::from(scope == "group"));
            assert_eq!(scratch.read("other").lines().count(), 1, "{}", scratch.read("other"));
            let forwarded = castoff.log().wait_for_event("signal_forwarded");
            assert_eq!(forwarded["target_pid"].as_i64() < Some(0), scope == "group", "{forwarded}");
            castoff.end();
        }
    }

    fn other_signals_do_not_go_to_the_group_with_the_stop_signal(place) {
        let script = format!("trap '' USR1; {} & wait $!", example("print_signals"));
        let mut castoff = castoff(place, "9m", "0").env("CASTOFF_STOP_SCOPE", "group").script(&script).start();
        castoff.until_ready().signal(libc::SIGUSR1);
        castoff.log().wait_for_event("signal_forwarded");
        castoff.signal(libc::SIGTERM);
        castoff.child_has(libc::SIGTERM, 1);
        castoff.wait();
        assert_eq!(castoff.record(libc::SIGUSR1), 0);
    }

    fn the_hang_signal_comes_before_the_kill_to_everything_that_is_left(place) {
        let scratch = Scratch::new();
        let prints = example("print_signals");
        let script = format!("setsid {prints} --only-print > $OTHER & exec {prints} --only-print");
        let mut castoff = castoff(place, "2s", "0")
            .env("OTHER", scratch.path("other"))
            .env("CASTOFF_HANG_SIGNAL", "QUIT")
            .script(&script)
            .start();
        castoff.until_ready();
        scratch.wait_for_line("other", "ready");
        let asked_at = Instant::now();
        castoff.signal(libc::SIGTERM);
        castoff.child_has(libc::SIGQUIT, 1);
        assert!(asked_at.elapsed() >= Duration::from_millis(1000), "{:?}", asked_at.elapsed());
        assert_eq!(castoff.wait(), Ended::Code(KILLED));
        assert!(asked_at.elapsed() >= Duration::from_millis(2000), "{:?}", asked_at.elapsed());
        assert_eq!([castoff.record(libc::SIGTERM), castoff.record(libc::SIGQUIT)], [1, 1]);
        // The other one was not told before the kill, but was asked for its dump.
        let other = scratch.read("other");
        assert_eq!(other.lines().count(), 2, "{other}");
        assert!(other.lines().last().expect("a line").starts_with("3 "), "{other}");
    }

    fn a_child_that_obeys_gets_no_hang_signal(place) {
        let mut castoff = castoff(place, "2s", "0").env("CASTOFF_HANG_SIGNAL", "QUIT").printing().start();
        castoff.until_ready().signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
        assert_eq!(castoff.record(libc::SIGQUIT), 0);
    }

    fn a_child_that_ends_by_the_hang_signal_was_stopped_in_time(place) {
        let mut castoff = castoff(place, "600ms", "0")
            .env("CASTOFF_HANG_SIGNAL", "QUIT")
            .env("CASTOFF_STOPPED_EXIT_CODE", "77")
            .script("trap '' TERM; echo ready; exec sleep 600")
            .start();
        castoff.until_ready();
        wait_until("it ignores the stop", || {
            let ignored = process::status(castoff.child(), "SigIgn")?;
            (u64::from_str_radix(&ignored, 16).ok()? & 1 << 14 != 0).then_some(())
        });
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(77));
        assert!(story(&castoff).contains(&"child stopped: SIGQUIT".to_owned()), "{:?}", story(&castoff));
    }

    fn a_daemon_that_is_swept_gets_the_hang_signal_too(place) {
        let scratch = Scratch::new();
        let prints = example("print_signals");
        let script = format!("setsid {prints} --only-print > $OTHER & until [ -s $OTHER ]; do sleep 0.01; done; exit 6");
        let mut castoff = castoff(place, "2s", "0")
            .env("OTHER", scratch.path("other"))
            .env("CASTOFF_HANG_SIGNAL", "USR2")
            .script(&script)
            .run();
        assert_eq!(castoff.code(), 6);
        let other = scratch.read("other");
        let got: Vec<_> = other.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
        // SIGTERM is followed by SIGCONT, for whoever stands still.
        assert_eq!(got.last(), Some(&"12"), "{other}");
        assert!(got.contains(&"15"), "{other}");
    }

    fn the_signals_that_begin_a_stop_can_be_chosen(place) {
        let mut castoff = castoff(place, "9m", "100ms")
            .env("CASTOFF_STOP_ON", "QUIT")
            .only_printing()
            .start();
        castoff.until_ready().signal(libc::SIGTERM);
        castoff.child_has(libc::SIGTERM, 1);
        castoff.signal(libc::SIGINT);
        castoff.child_has(libc::SIGINT, 1);
        assert_eq!(castoff.status_of("/readyz"), 200);
        castoff.signal(libc::SIGQUIT);
        castoff.child_has(libc::SIGQUIT, 1);
        assert_eq!(castoff.status_of("/readyz"), 503);
        castoff.signal(libc::SIGQUIT);
        castoff.signal(libc::SIGQUIT);
        // Signals that wait together are one: then a last one is the third.
        castoff.end_with(libc::SIGQUIT);
    }

    fn a_daemon_that_is_left_behind_is_told_to_end(place) {
        let scratch = Scratch::new();
        let mut castoff = castoff(place, "9m", "8m")
            .child(&example("forker"), ["leave", &scratch.path("daemon")])
            .start();
        assert_eq!(castoff.wait(), Ended::Code(7));
        let record = scratch.read("daemon");
        assert!(record.starts_with("daemon ") && record.ends_with("\nSIGTERM\n"), "{record}");
        assert_eq!(ending(&castoff, 4), [
            "child exited: 7",
            "sweeping: child_exited",
            "sweeping -> exited: tree_gone",
            "exiting 7",
        ]);
    }

    fn a_daemon_that_will_not_end_is_killed_at_the_deadline(place) {
        let scratch = Scratch::new();
        let mut castoff = castoff(place, "300ms", "0")
            .child(&example("forker"), ["leave", &scratch.path("daemon"), "ignore"])
            .start();
        let (begun, daemon) = (Instant::now(), descendant_left(&castoff, &scratch));
        assert_eq!(castoff.wait(), Ended::Code(7));
        assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
        assert!(!process::is_running(daemon));
        assert_eq!(scratch.read("daemon").matches("SIGTERM").count(), 1);
        assert_eq!(ending(&castoff, 6), [
            "child exited: 7",
            "sweeping: child_exited",
            "left: forker",
            "sweeping -> killing: deadline",
            "killing -> exited: tree_gone",
            "exiting 7",
        ]);
        let swept = castoff.log().events().into_iter().find(|event| event["to"] == "killing");
        assert!(swept.expect("it was killed")["elapsed_ms"].as_u64() >= Some(300));
    }

    fn the_daemon_of_a_child_that_was_stopped_is_told_after_it(place) {
        let scratch = Scratch::new();
        let mut castoff = castoff(place, "9m", "0")
            .child(&example("forker"), ["daemon", &scratch.path("daemon")])
            .start();
        castoff.until_ready();
        assert_eq!(scratch.read("daemon").lines().count(), 1);
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
        assert!(scratch.read("daemon").ends_with("\nSIGTERM\n"));
        assert_eq!(story(&castoff)[2..], [
            "serving -> stopping: stop_requested",
            "told the child SIGTERM",
            "child stopped: 0",
            "stopping -> sweeping: child_exited",
            "sweeping -> exited: tree_gone",
            "exiting 0",
        ]);
    }

    fn a_daemon_that_stands_still_is_continued_so_that_it_can_obey(place) {
        let scratch = Scratch::new();
        let mut castoff = castoff(place, "9m", "0")
            .child(&example("forker"), ["daemon", &scratch.path("daemon")])
            .start();
        castoff.until_ready();
        let daemon = wait_until("the daemon is an orphan", || {
            process::children(castoff.pid).get(1).copied()
        });
        process::signal(daemon, libc::SIGSTOP);
        wait_until("the daemon stands still", || {
            (process::state(daemon) == Some('T')).then_some(())
        });
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
        assert!(scratch.read("daemon").ends_with("\nSIGTERM\n"));
    }

    fn sweeping_does_not_begin_the_grace_period_anew(place) {
        let scratch = Scratch::new();
        let mut castoff = castoff(place, "1500ms", "700ms")
            .child(&example("forker"), ["daemon", &scratch.path("daemon"), "ignore"])
            .start();
        castoff.until_ready().signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
        assert!(castoff.told_ms("exiting", "stop_ms") >= 1500);
        let events = castoff.log().events();
        let swept = events.iter().find(|event| event["from"] == "sweeping").expect("it swept");
        // The drain had half of the budget. A sweep with one of its own
        // would last as long again.
        assert!(swept["elapsed_ms"].as_u64() < Some(1500), "{swept}");
    }

    fn a_stop_request_during_the_sweep_is_heard_but_changes_nothing_until_the_third(place) {
        let scratch = Scratch::new();
        let mut castoff = castoff(place, "9m", "8m")
            .child(&example("forker"), ["leave", &scratch.path("daemon"), "ignore"])
            .start();
        castoff.until_phase("sweeping");
        let daemon = descendant_left(&castoff, &scratch);
        scratch.wait_for_line("daemon", "SIGTERM");
        for nth in 1..=2 {
            castoff.signal(libc::SIGTERM);
            wait_until("the request is on record", || {
                let received = castoff.log().so_far();
                (received.iter().filter(|line| line.contains("\"signal_received\"")).count() == nth).then_some(())
            });
            assert!(process::is_running(daemon));
            assert_eq!(castoff.status_of("/livez"), 200);
        }
        castoff.signal(libc::SIGINT);
        assert_eq!(castoff.wait(), Ended::Code(7));
        assert!(!process::is_running(daemon));
        assert_eq!(ending(&castoff, 8), [
            "sweeping: child_exited",
            "received SIGTERM",
            "received SIGTERM",
            "received SIGINT",
            "sweeping -> killing: third_signal",
            "left: forker",
            "killing -> exited: tree_gone",
            "exiting 7",
        ]);
        assert_eq!(scratch.read("daemon").matches("SIGTERM").count(), 1);
    }

    fn nobody_but_the_childs_tree_is_ever_signalled(place) {
        let scratch = Scratch::new();
        // In castoff's own session and process group, and its sibling.
        let mut bystander = Bystander::new();
        let mut castoff = castoff(place, "200ms", "0")
            .child(&example("forker"), ["leave", &scratch.path("daemon"), "ignore"])
            .start();
        assert_eq!(castoff.wait(), Ended::Code(7));
        assert!(castoff.log().all().iter().any(|line| line.contains("\"killing\"")));
        assert!(bystander.is_untouched());
    }

    fn a_stopped_child_is_continued_so_that_it_can_obey(place) {
        let mut castoff = castoff(place, "9m", "100ms").printing().start();
        castoff.until_ready();
        let child = castoff_child(&castoff);
        process::signal(child, libc::SIGSTOP);
        wait_until("the child stands still", || {
            (process::state(child) == Some('T')).then_some(())
        });
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
        assert_eq!(story(&castoff)[3..], [
            "drained: delay",
            "draining -> stopping: drain_delay",
            "told the child SIGTERM",
            "told the child SIGCONT",
            "child stopped: 0",
            "stopping -> exited: child_exited",
            "exiting 0",
        ]);
    }

    fn a_child_that_was_stopped_just_before_the_request_is_continued_too(place) {
        let mut castoff = castoff(place, "9m", "0").printing().start();
        castoff.until_ready();
        let child = castoff_child(&castoff);
        // Frozen, castoff finds the news of the child and the request together.
        process::signal(castoff.pid, libc::SIGSTOP);
        wait_until("castoff stands still", || {
            (process::state(castoff.pid) == Some('T')).then_some(())
        });
        process::signal(child, libc::SIGSTOP);
        wait_until("the child stands still", || {
            (process::state(child) == Some('T')).then_some(())
        });
        castoff.signal(libc::SIGTERM);
        process::signal(castoff.pid, libc::SIGCONT);
        assert_eq!(castoff.wait(), Ended::Code(0));
        // The news first: what thaws castoff is forwarded too, but later.
        let continued = story(&castoff).iter().position(|told| told == "told the child SIGCONT");
        let thawed = story(&castoff).iter().position(|told| told == "received SIGCONT");
        assert!(continued.expect("continued") < thawed.expect("thawed"), "{:?}", story(&castoff));
    }

    fn a_child_that_ended_just_before_the_request_was_not_stopped_by_it(place) {
        let mut castoff = castoff(place, "9m", "0").child("sleep", ["600"]).start();
        castoff.until_serving();
        let child = castoff_child(&castoff);
        process::signal(castoff.pid, libc::SIGSTOP);
        wait_until("castoff stands still", || {
            (process::state(castoff.pid) == Some('T')).then_some(())
        });
        process::signal(child, libc::SIGUSR1);
        wait_until("the child is a zombie", || {
            (process::state(child) == Some('Z')).then_some(())
        });
        castoff.signal(libc::SIGTERM);
        process::signal(castoff.pid, libc::SIGCONT);
        assert_eq!(castoff.wait(), Ended::Code(128 + libc::SIGUSR1));
        assert!(story(&castoff).contains(&"child signalled: SIGUSR1".to_owned()), "{:?}", story(&castoff));
    }

    fn the_exit_map_counts_after_a_kill_as_well(place) {
        let mut castoff = castoff(place, "100ms", "0")
            .env("CASTOFF_EXIT_MAP", "137:0,143:0")
            .only_printing()
            .start();
        castoff.until_ready().signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
    }
}

impl Running {
    /// Ends a child that obeys nothing, by as many requests as it takes.
    #[track_caller]
    fn end(&mut self) {
        self.end_with(libc::SIGTERM);
    }

    #[track_caller]
    fn end_with(&mut self, signal: i32) {
        wait_until("the third request kills", || {
            if !process::is_running(self.pid) {
                return Some(());
            }
            process::try_signal(self.pid, signal);
            None
        });
        assert_eq!(self.wait(), Ended::Code(KILLED));
    }
}

/// Starts castoff and sends it SIGTERM before it has read its configuration:
/// that comes from a pipe whose other end is held until the signal is sent.
/// The child inherits SIGTERM blocked, so that it waits until the child reads it.
fn stopped_before_the_start(castoff: Castoff) -> Running {
    let block = || Ok(SigSet::from(Signal::SIGTERM).thread_block()?);
    // SAFETY: between fork and exec, one system call.
    let castoff = castoff.with(|command| unsafe {
        command.pre_exec(block);
    });
    let scratch = Scratch::new();
    let path = scratch.path("config.toml");
    mkfifo(&*path, Mode::S_IRWXU).expect("a named pipe");
    let castoff = castoff.env("CASTOFF_CONFIG", &path).start();
    let mut config = fs::OpenOptions::new().write(true).open(&path).expect("castoff reads it");
    castoff.signal(libc::SIGTERM);
    config.write_all(b"log_level = 'info'\n").expect("castoff reads it");
    drop(config);
    castoff.until_phase("stopping");
    castoff
}

/// The child as this machine numbers it. It is older than any orphan.
#[track_caller]
fn castoff_child(castoff: &Running) -> i32 {
    *process::children(castoff.pid).first().expect("the child runs")
}

/// The last lines of the story. A child that ends at once may do so before
/// castoff calls it ready: where the sweep began from is left out.
#[track_caller]
fn ending(castoff: &Running, count: usize) -> Vec<String> {
    let story = story(castoff);
    let short = |line: &String| match line.split_once(" -> sweeping: ") {
        Some(("starting" | "serving", cause)) => format!("sweeping: {cause}"),
        _ => line.clone(),
    };
    story[story.len() - count..].iter().map(short).collect()
}

/// Every process below, not the one itself.
fn with_descendants(pid: i32) -> Vec<i32> {
    let born = process::children(pid);
    let below: Vec<_> = born.iter().flat_map(|child| with_descendants(*child)).collect();
    [born, below].concat()
}

/// The daemon that the child has left to castoff, as this machine numbers it.
#[track_caller]
fn descendant_left(castoff: &Running, scratch: &Scratch) -> i32 {
    scratch.wait_for_line("daemon", "daemon ");
    wait_until("only the daemon is left", || match process::children(castoff.pid)[..] {
        [one] if process::state(one) == Some('S') => {
            let command = fs::read_to_string(format!("/proc/{one}/stat")).ok()?;
            // Its own session is what tells it from the child.
            let session = command.rsplit_once(") ")?.1.split(' ').nth(3)?.to_owned();
            let group = command.rsplit_once(") ")?.1.split(' ').nth(2)?.to_owned();
            (session == group).then_some(one)
        }
        _ => None,
    })
}

/// A process that has nothing to do with castoff but stands beside it.
struct Bystander(Child);

impl Bystander {
    fn new() -> Self {
        let mut sleep = Command::new("sleep");
        Self(sleep.arg("600").stdin(Stdio::null()).spawn().expect("sleep starts"))
    }

    fn is_untouched(&mut self) -> bool {
        self.0.try_wait().expect("it is our child").is_none()
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

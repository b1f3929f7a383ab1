//! Restarts: when a child that has ended is started again, how long that takes,
//! and that nothing of the old one is left beside the new one.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{
    Castoff, Ended, Place, Running, Scratch, Terminal, example, in_both_places, process, story,
    wait_until, whole_story,
};

/// castoff that restarts at once, and has no deadline that a test would reach.
/// The longest delay is what makes no child seem to have recovered.
fn castoff(place: Place, restart: &str) -> Castoff {
    Castoff::new(place)
        .env("CASTOFF_GRACE_PERIOD", "20m")
        .env("CASTOFF_KILL_RESERVE", "5m")
        .env("CASTOFF_DRAIN_DELAY", "0")
        .env("CASTOFF_RESTART", restart)
        .env("CASTOFF_RESTART_MIN", "1ms")
        .env("CASTOFF_RESTART_MAX", "10m")
}

/// The same, but a child that has ended is waited for until the test ends.
fn patient(place: Place, restart: &str) -> Castoff {
    castoff(place, restart).env("CASTOFF_RESTART_MIN", "10m").env("CASTOFF_RESTART_MAX", "10m")
}

/// A script that counts its runs in a file, as the variable `n`.
fn counting(path: &str) -> String {
    format!("n=$(cat {path} 2>/dev/null); n=$((n+1)); echo $n > {path}")
}

impl Running {
    #[track_caller]
    fn statuses(&self) -> [u16; 3] {
        ["/livez", "/readyz", "/startupz"].map(|path| self.get(path).status)
    }

    #[track_caller]
    fn sample(&self, name: &str) -> String {
        let metrics = self.get("/metrics").body;
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map(str::to_owned).unwrap_or_else(|| panic!("no {name} in\n{metrics}"))
    }

    /// How often an event is in the log so far.
    fn count_so_far(&self, event: &str) -> usize {
        let event = format!("\"event\":\"{event}\"");
        self.log().so_far().iter().filter(|line| line.contains(&event)).count()
    }

    #[track_caller]
    fn until_count(&self, event: &str, count: usize) {
        wait_until(&format!("{event} {count} times"), || {
            (self.count_so_far(event) >= count).then_some(())
        });
    }

    #[track_caller]
    fn delays_ms(&self) -> Vec<u64> {
        let events = self.log().events();
        let scheduled = events.iter().filter(|event| event["event"] == "restart_scheduled");
        scheduled.map(|event| event["delay_ms"].as_u64().expect("a delay")).collect()
    }

    #[track_caller]
    fn children_started(&self) -> usize {
        self.log().events().iter().filter(|event| event["event"] == "child_started").count()
    }
}

in_both_places! {
    fn whether_it_is_started_again_depends_on_how_it_ended(place) {
        for (restart, ending, flags, starts, code) in [
            ("never", "exit 3", vec![], 1, 3),
            ("never", "exit 0", vec![], 1, 0),
            ("on-failure", "exit 0", vec![], 1, 0),
            ("on-failure", "exit 3", vec![], 4, 3),
            ("on-failure", "kill -TERM $$", vec![], 4, 143),
            ("on-failure", "kill -TERM $$", vec!["-e", "143"], 1, 0),
            ("on-failure", "exit 5", vec!["-e", "143"], 4, 5),
            ("always", "exit 0", vec![], 4, 0),
            ("always", "exit 3", vec![], 4, 3),
            ("always", "exit 3", vec!["-e", "3"], 4, 0),
        ] {
            let castoff = castoff(place, restart).env("CASTOFF_RESTART_LIMIT", "3").args(&flags);
            let mut castoff = castoff.script(ending).run();
            assert_eq!(castoff.code(), code, "{restart} {ending} {flags:?}");
            assert_eq!(castoff.children_started(), starts, "{restart} {ending} {flags:?}");
        }
    }

    fn a_success_that_is_mapped_to_a_failure_is_one(place) {
        let castoff = castoff(place, "on-failure").env("CASTOFF_RESTART_LIMIT", "1");
        let mut castoff = castoff.env("CASTOFF_EXIT_MAP", "0:9").script("exit 0").run();
        assert_eq!(castoff.code(), 9);
        assert_eq!(castoff.children_started(), 2);
    }

    fn it_ends_when_the_child_has_succeeded_at_last(place) {
        let scratch = Scratch::new();
        let script = format!("{}; [ $n = 3 ]", counting(&scratch.path("runs")));
        let castoff = castoff(place, "on-failure").env("CASTOFF_POST_STOP", "echo post");
        let castoff = castoff.env("CASTOFF_PRE_START", "echo pre");
        let mut castoff = castoff.script(&script).run();
        assert_eq!(castoff.code(), 0);
        let mut story = whole_story(&castoff);
        // A child that ends so soon may do so before it counts as ready.
        story.retain(|told| !told.contains("->"));
        assert_eq!(story, [
            "pre_start started",
            "pre_start says pre",
            "pre_start finished: 0",
            "child started",
            "child exited: 1",
            "restart 1 to come",
            "child started",
            "child exited: 1",
            "restart 2 to come",
            "child started",
            "child exited: 0",
            "post_stop started",
            "post_stop says post",
            "post_stop finished: 0",
            "exiting 0",
        ]);
    }

    fn delays_grow_and_stay_between_min_and_max(place) {
        let castoff = castoff(place, "always")
            .env("CASTOFF_RESTART_MIN", "20ms")
            .env("CASTOFF_RESTART_MAX", "200ms")
            .env("CASTOFF_RESTART_LIMIT", "7");
        let begun = Instant::now();
        let mut castoff = castoff.script("exit 3").run();
        assert_eq!(castoff.code(), 3);
        let delays = castoff.delays_ms();
        // A child whose start took as long as the maximum has recovered.
        let events = castoff.log().events();
        let exits = events.iter().filter(|event| event["event"] == "child_exited");
        let has_recovered = exits.map(|exit| exit["uptime_ms"].as_u64()).any(|up| up >= Some(200));
        assert!(begun.elapsed() >= Duration::from_millis(delays.iter().sum()));
        assert!(delays.iter().all(|delay| (20..=200).contains(delay)), "{delays:?}");
        if !has_recovered {
            assert_eq!(delays.len(), 7);
            for (nth, delay) in delays.iter().enumerate() {
                let base = (20 << nth).min(200);
                assert!((base * 3 / 4..=base * 5 / 4).contains(delay), "{delays:?}");
            }
            let scheduled = events.iter().filter(|event| event["event"] == "restart_scheduled");
            for (nth, event) in scheduled.enumerate() {
                assert_eq!((&event["restarts"], &event["limit"]), (&(nth + 1).into(), &7.into()));
            }
        }
    }

    fn the_phases_and_the_endpoints_follow_the_child(place) {
        let castoff = castoff(place, "always")
            .env("CASTOFF_RESTART_MIN", "1500ms")
            .env("CASTOFF_RESTART_MAX", "10m");
        let mut castoff = castoff.child("sleep", ["600"]).start();
        castoff.until_serving();
        assert_eq!(castoff.sample("castoff_child_restarts_total"), "0");
        assert_eq!(castoff.statuses(), [200, 200, 200]);
        let old = castoff.child();
        process::signal(old, libc::SIGUSR1);
        castoff.log().wait_for_event("restart_scheduled");
        assert_eq!(castoff.statuses(), [200, 503, 200]);
        assert_eq!(castoff.sample("castoff_child_up"), "0");
        assert_eq!(castoff.sample("castoff_phase{phase=\"starting\"}"), "1");
        assert_eq!(castoff.sample("castoff_ready"), "0");
        castoff.until_count("child_started", 2);
        wait_until("it is ready again", || (castoff.statuses() == [200, 200, 200]).then_some(()));
        assert_eq!(castoff.sample("castoff_child_up"), "1");
        assert_eq!(castoff.sample("castoff_child_restarts_total"), "1");
        let children = process::children(castoff.pid);
        assert_eq!(children.len(), 1, "a zombie among {children:?}");
        assert_ne!(children[0], old);
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(143));
        assert_eq!(story(&castoff), [
            "starting -> serving: child_ready",
            "child signalled: SIGUSR1",
            "serving -> starting: child_exited",
            "restart 1 to come",
            "child started",
            "starting -> serving: child_ready",
            "received SIGTERM",
            "serving -> stopping: stop_requested",
            "told the child SIGTERM",
            "child stopped: SIGTERM",
            "stopping -> exited: child_exited",
            "exiting 143",
        ]);
    }

    fn a_stop_ends_the_wait_for_a_restart_at_once(place) {
        for (name, value, code) in [
            ("X", "", 3),
            ("CASTOFF_EXIT_MAP", "3:9", 9),
            ("CASTOFF_STOPPED_EXIT_CODE", "8", 8),
        ] {
            let castoff = patient(place, "always").env(name, value).env("CASTOFF_POST_STOP", "echo post");
            let castoff = castoff.env("CASTOFF_PRE_STOP", "echo pre").env("CASTOFF_DRAIN_DELAY", "9m");
            let mut castoff = castoff.script("exit 3").start();
            castoff.log().wait_for_event("restart_scheduled");
            castoff.signal(libc::SIGTERM);
            assert_eq!(castoff.wait(), Ended::Code(code), "{name}={value}");
            let story = story(&castoff);
            let end = story.iter().position(|told| told == "received SIGTERM").unwrap();
            assert_eq!(story[end + 1..], [
                "starting -> sweeping: stop_requested".to_owned(),
                "post_stop started".to_owned(),
                "post_stop says post".to_owned(),
                "post_stop finished: 0".to_owned(),
                "sweeping -> exited: post_stop_finished".to_owned(),
                format!("exiting {code}"),
            ]);
        }
    }

    fn a_child_that_is_asked_to_stop_is_not_started_again(place) {
        let mut castoff = castoff(place, "always").script("trap 'exit 4' TERM; echo ready; while :; do sleep 0.01; done").start();
        castoff.stdout().wait_for_line("ready");
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(4));
        assert_eq!(castoff.children_started(), 1);
    }

    fn a_stop_that_comes_with_the_childs_end_is_not_lost(place) {
        let mut castoff = patient(place, "always").child("sleep", ["600"]).start();
        castoff.until_serving();
        let child = castoff.child();
        process::signal(castoff.pid, libc::SIGSTOP);
        wait_until("castoff stands still", || (process::state(castoff.pid)? == 'T').then_some(()));
        process::signal(child, libc::SIGUSR1);
        wait_until("the child is a zombie", || (process::state(child)? == 'Z').then_some(()));
        castoff.signal(libc::SIGTERM);
        process::signal(castoff.pid, libc::SIGCONT);
        assert_eq!(castoff.wait(), Ended::Code(128 + libc::SIGUSR1));
        assert_eq!(castoff.children_started(), 1);
    }

    fn nothing_of_the_old_child_is_left_beside_the_new_one(place) {
        let scratch = Scratch::new();
        let (runs, lock) = (scratch.path("runs"), scratch.path("lock"));
        // A daemon holds a lock; it takes its time to end, and a new child
        // that does not get the lock at once says so.
        let daemon = scratch.program("daemon", "755", &format!(
            "#!/bin/sh\nexec 9>{lock}\nflock -n 9 || exit 1\ntrap 'sleep 0.3; exit' TERM\necho held > {lock}.held\nwhile :; do sleep 0.01; done\n"));
        let script = format!(
            "flock -n {lock} true || {{ echo locked; exit 9; }}; {}; [ $n -lt 3 ] || exit 0; \
             rm -f {lock}.held; (setsid {daemon} &); until [ -e {lock}.held ]; do sleep 0.01; done; exit 1",
            counting(&runs));
        let mut castoff = castoff(place, "on-failure").script(&script).run();
        assert_eq!(castoff.code(), 0, "{:?}", castoff.log().all());
        assert_eq!(castoff.stdout().all(), [""; 0]);
        assert_eq!(scratch.read("runs"), "3\n");
        let story = story(&castoff);
        assert_eq!(story.iter().filter(|told| *told == "sweeping -> starting: tree_gone").count(), 2, "{story:?}");
        assert!(!story.iter().any(|told| told.contains("draining")));
    }

    fn what_will_not_end_before_a_restart_is_killed(place) {
        let scratch = Scratch::new();
        let castoff = castoff(place, "always")
            .env("CASTOFF_GRACE_PERIOD", "10m")
            .env("CASTOFF_KILL_RESERVE", "599700ms")
            .env("CASTOFF_RESTART_LIMIT", "1");
        let mut castoff = castoff.child(&example("forker"), ["leave", &scratch.path("daemon"), "ignore"]).run();
        assert_eq!(castoff.code(), 7);
        let record = scratch.read("daemon");
        let pids = record.lines().filter(|line| line.starts_with("daemon ")).count();
        assert_eq!(pids, 2, "{record}");
        let story = story(&castoff);
        for told in ["sweeping -> killing: deadline", "killing -> starting: tree_gone", "killing -> exited: tree_gone"] {
            assert!(story.contains(&told.to_owned()), "{told}: {story:?}");
        }
    }

    fn a_stop_while_leftovers_are_swept_does_not_restart(place) {
        let scratch = Scratch::new();
        let mut castoff = castoff(place, "always")
            .child(&example("forker"), ["leave", &scratch.path("daemon"), "ignore"])
            .start();
        castoff.until_phase("sweeping");
        scratch.wait_for_line("daemon", "SIGTERM");
        castoff.signal(libc::SIGTERM);
        castoff.log().wait_for_event("signal_received");
        // The daemon ends after all.
        for daemon in process::children(castoff.pid) {
            process::signal(daemon, libc::SIGKILL);
        }
        assert_eq!(castoff.wait(), Ended::Code(7));
        assert_eq!(castoff.children_started(), 1);
        let story = story(&castoff);
        assert_eq!(story[story.len() - 2..], ["sweeping -> exited: tree_gone", "exiting 7"]);
    }

    fn a_program_that_cannot_be_started_any_more_is_tried_again_up_to_the_limit(place) {
        for (change, code) in [("rm -f", 127), ("chmod 644", 126)] {
            let scratch = Scratch::new();
            let path = scratch.path("serve");
            let serve = scratch.program("serve", "755", &format!("#!/bin/sh\n{change} {path}\nexit 3\n"));
            let castoff = castoff(place, "on-failure").args(["-w"]).env("CASTOFF_RESTART_LIMIT", "3");
            let mut castoff = castoff.env("CASTOFF_POST_STOP", "echo post").child(&serve, [""; 0]).run();
            assert_eq!(castoff.code(), code);
            let mut story = story(&castoff);
            story.retain(|told| !told.contains("->"));
            assert_eq!(story, [
                "child exited: 3".to_owned(),
                "restart 1 to come".to_owned(),
                "child not started".to_owned(),
                "restart 2 to come".to_owned(),
                "child not started".to_owned(),
                "restart 3 to come".to_owned(),
                "child not started".to_owned(),
                "post_stop started".to_owned(),
                "post_stop says post".to_owned(),
                "post_stop finished: 0".to_owned(),
                format!("exiting {code}"),
            ]);
            let failed = castoff.log().wait_for_event("start_failed");
            assert_eq!(failed["command"], serve.as_str());
        }
    }

    fn a_program_that_comes_back_is_started(place) {
        let scratch = Scratch::new();
        let path = scratch.path("serve");
        let serve = scratch.program("serve", "755", &format!("#!/bin/sh\nrm {path}\nexit 3\n"));
        let mut castoff = castoff(place, "on-failure").child(&serve, [""; 0]).start();
        castoff.until_count("start_failed", 2);
        assert_eq!(castoff.statuses()[..2], [200, 503]);
        scratch.program("new", "755", "#!/bin/sh\nexec sleep 600\n");
        fs::rename(scratch.path("new"), &path).unwrap();
        wait_until("it is ready", || (castoff.get("/readyz").status == 200).then_some(()));
        wait_until("no zombie is left", || (process::children(castoff.pid).len() == 1).then_some(()));
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(143));
    }

    fn a_program_that_was_never_started_is_not_tried_again(place) {
        let mut castoff = castoff(place, "always").child("/no/such/program", [""; 0]).run();
        assert_eq!(castoff.code(), 127);
        assert!(castoff.delays_ms().is_empty());
        castoff.log().wait_for_line("castoff: cannot run ");
    }

    fn a_restarted_child_has_the_foreground_again(place) {
        let terminal = Terminal::new();
        let castoff = castoff(place, "always").child(&example("print_signals"), [""; 0]);
        let mut castoff = castoff.on(&terminal).start();
        for nth in 1..=3 {
            castoff.until_count("child_started", nth);
            terminal.wait_for("ready ");
            assert_eq!(terminal.foreground(), castoff.child());
            terminal.types("\x03").wait_for("2 value=");
            let old = castoff.child();
            process::signal(old, libc::SIGKILL);
            wait_until("it has gone", || process::state(old).is_none().then_some(()));
        }
        castoff.until_count("child_started", 4);
        castoff.signal(libc::SIGTERM);
        castoff.wait();
    }

    fn a_key_reaches_castoff_while_it_waits_for_a_restart(place) {
        let terminal = Terminal::new();
        let mut castoff = patient(place, "always").script("echo begun; exit 3").on(&terminal).start();
        castoff.log().wait_for_event("restart_scheduled");
        terminal.types("\x03");
        assert_eq!(castoff.wait(), Ended::Code(3));
    }

    fn many_restarts_leave_no_descriptor_and_no_zombie(place) {
        let castoff = castoff(place, "always").env("CASTOFF_RESTART_MAX", "2ms");
        let mut castoff = castoff.script("(sleep 0 &); exit 1").start();
        castoff.until_count("child_started", 5);
        let before = process::descriptors(castoff.pid);
        castoff.until_count("child_started", 45);
        // It opens some for an instant.
        wait_until("there are no more descriptors than before", || {
            (process::descriptors(castoff.pid) <= before).then_some(())
        });
        assert!(process::children(castoff.pid).len() < 10);
        castoff.signal(libc::SIGTERM);
        castoff.wait();
    }

    fn every_child_finds_what_the_first_one_found(place) {
        let show = "grep -E '^(Sig(Blk|Ign|Cgt)|Umask):' /proc/self/status; ls /proc/self/fd | tr '\\n' ' '; pwd; cat /proc/self/environ | tr '\\0' '\\n' | sort; exit 1";
        let castoff = castoff(place, "always").env("CASTOFF_RESTART_LIMIT", "1");
        let mut castoff = castoff.script(show).run();
        assert_eq!(castoff.code(), 1);
        let lines = castoff.stdout().all();
        let (first, second) = lines.split_at(lines.len() / 2);
        assert_eq!(first, second);
    }
}

/// Who came into the container by another door, as `docker exec` does, looks
/// for what is wrong: a restart must spare it, a stop need not.
#[test]
fn who_came_by_another_door_outlives_a_restart() {
    let castoff = castoff(Place::Pid1, "always");
    let scratch = Scratch::new();
    let script =
        format!("({} leave {} &); exec sleep 600", example("forker"), scratch.path("daemon"));
    let mut castoff = castoff.script(&script).start();
    castoff.until_serving();
    scratch.wait_for_line("daemon", "daemon ");
    let mut visitor = visit(&castoff);
    let child = castoff.child();
    process::signal(child, libc::SIGKILL);
    castoff.until_count("child_started", 2);
    assert!(visitor.try_wait().expect("it is our child").is_none(), "the visitor was ended");
    castoff.signal(libc::SIGTERM);
    castoff.wait();
    let _ = visitor.wait();
}

/// A process in the namespace that does not descend from castoff.
#[track_caller]
fn visit(castoff: &Running) -> Child {
    let target = castoff.pid.to_string();
    let mut nsenter = Command::new("nsenter");
    nsenter.args(["--target", &target, "--pid", "--mount"]);
    if !nix::unistd::getuid().is_root() {
        nsenter.args(["--user", "--preserve-credentials"]);
    }
    let mut visitor = nsenter
        .args(["sh", "-c", "echo here; exec sleep 600"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("nsenter");
    let mut word = [0; 5];
    let mut stdout = visitor.stdout.take().expect("a pipe");
    std::io::Read::read_exact(&mut stdout, &mut word).expect("it is in");
    visitor
}

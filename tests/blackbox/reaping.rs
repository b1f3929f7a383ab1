//! Reaping: every orphan, however many end at once, and never the child's end
//! by mistake.

use std::io::{self, Write};

use crate::support::{
    Castoff, Ended, Running, Scratch, example, in_both_places, process, wait_until,
};

#[track_caller]
fn reaped(castoff: &Running) -> u64 {
    let metrics = castoff.get("/metrics").body;
    let value = metrics.lines().find_map(|line| line.strip_prefix("castoff_orphans_reaped_total "));
    value.expect("the metric").parse().expect("a number")
}

/// Until that many are reaped, and castoff has no child but its own: no zombie.
#[track_caller]
fn until_reaped(castoff: &Running, count: u64) {
    wait_until("all orphans are reaped", || (reaped(castoff) == count).then_some(()));
    assert_eq!(process::children(castoff.pid).len(), 1);
    assert_eq!(reaped(castoff), count);
}

#[track_caller]
fn until_stopped(pid: i32) {
    wait_until("it is stopped", || (process::state(pid)? == 'T').then_some(()));
}

in_both_places! {
    fn twenty_thousand_orphans_are_reaped(place) {
        // In parts: a machine has 32,768 pids, and more than one test.
        let script = format!(
            "for i in $(seq 20); do {} orphans 500; done; exec {}",
            example("forker"), example("print_signals"),
        );
        let mut castoff = Castoff::new(place).script(&script).start();
        castoff.stdout().wait_for_line("ready");
        until_reaped(&castoff, 20_000);
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
    }

    fn one_sigchld_for_thousands_of_orphans_reaps_them_all(place) {
        let (stdin, mut go) = io::pipe().unwrap();
        let script = format!(
            "read go; {} orphans 2500; exec {}", example("forker"), example("print_signals"),
        );
        let castoff = Castoff::new(place).with(|command| { command.stdin(stdin); });
        let mut castoff = castoff.script(&script).start();
        castoff.until_serving();
        castoff.signal(libc::SIGSTOP);
        until_stopped(castoff.pid);
        go.write_all(b"go\n").unwrap();
        castoff.stdout().wait_for_line("ready");
        wait_until("the orphans have ended", || {
            let children = process::children(castoff.pid);
            (children.len() == 5001).then_some(())
        });
        castoff.signal(libc::SIGCONT);
        until_reaped(&castoff, 5000);
        castoff.stdout().wait_for_line("18 ");
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
    }

    fn the_childs_end_is_found_among_those_of_orphans(place) {
        let script = format!("{} orphans 1000; exit 9", example("forker"));
        assert_eq!(Castoff::new(place).script(&script).run().code(), 9);
    }

    fn an_ignored_or_blocked_sigchld_changes_nothing(place) {
        let script = format!("{} orphans 10; exec {}", example("forker"), example("print_signals"));
        let ignored = Castoff::new(place).last(|| {
            #[expect(unsafe_code, reason = "a disposition")]
            // SAFETY: SIG_IGN is no handler that could run.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
            Ok(())
        });
        let blocked = Castoff::new(place).last(|| {
            use nix::sys::signal::{SigSet, Signal};
            Ok(SigSet::from(Signal::SIGCHLD).thread_block()?)
        });
        for castoff in [ignored, blocked] {
            let mut castoff = castoff.script(&script).start();
            castoff.stdout().wait_for_line("ready");
            wait_until("the orphans are reaped", || (reaped(&castoff) >= 10).then_some(()));
            castoff.signal(libc::SIGTERM);
            assert_eq!(castoff.wait(), Ended::Code(0));
        }
    }

    fn an_orphan_becomes_castoffs_child(place) {
        let scratch = Scratch::new();
        let arguments = ["daemon", &scratch.path("record")];
        let mut castoff = Castoff::new(place).child(&example("forker"), arguments).start();
        castoff.stdout().wait_for_line("ready");
        let adopted = || (process::children(castoff.pid).len() == 2).then_some(());
        wait_until("the daemon is castoff's", adopted);
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
    }

    fn each_orphan_is_logged_when_asked_for(place) {
        let script = "(sh -c 'exit 3' &); (sh -c 'kill -KILL $$' &); exec sleep 1000";
        for (flags, level, log_level) in [("-w", "WARN", "info"), ("-s", "DEBUG", "debug")] {
            let castoff = Castoff::new(place).env("CASTOFF_LOG_LEVEL", log_level).args([flags]);
            let mut castoff = castoff.script(script).start();
            let reaped = |field: &str, value: &str| {
                castoff.log().wait_for("an orphan", |line| {
                    let is_it = line.contains("\"orphan_reaped\"")
                        && line.contains(&format!("\"level\":\"{level}\""))
                        && line.contains(&format!("\"{field}\":{value}"));
                    is_it.then_some(())
                });
            };
            reaped("exit_code", "3");
            reaped("signal", "\"SIGKILL\"");
            castoff.signal(libc::SIGTERM);
            assert_eq!(castoff.code(), 143);
        }
    }

    fn no_orphan_is_logged_unless_asked_for(place) {
        let mut castoff = Castoff::new(place).script("(sh -c 'exit 3' &); sleep 0.05").run();
        assert_eq!(castoff.code(), 0);
        assert!(castoff.log().events().iter().all(|line| line["event"] != "orphan_reaped"));
    }

    fn an_orphan_that_is_stopped_is_no_dead_one(place) {
        let script = format!("(sleep 1000 & echo orphan); exec {}", example("print_signals"));
        let mut castoff = Castoff::new(place).script(&script).start();
        castoff.stdout().wait_for_line("ready");
        let is_sleep = |pid: &i32| process::status(*pid, "Name").as_deref() == Some("sleep");
        let orphan = wait_until("the orphan is castoff's", || {
            process::children(castoff.pid).into_iter().find(is_sleep)
        });
        for signal in [libc::SIGSTOP, libc::SIGCONT, libc::SIGSTOP] {
            process::signal(orphan, signal);
        }
        until_stopped(orphan);
        assert_eq!(reaped(&castoff), 0);
        process::signal(orphan, libc::SIGKILL);
        until_reaped(&castoff, 1);
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
    }

    fn a_child_that_is_killed_while_it_is_stopped_has_ended(place) {
        let mut castoff = Castoff::new(place).child("sleep", ["1000"]).start();
        let child = castoff.until_serving().child();
        process::signal(child, libc::SIGSTOP);
        until_stopped(child);
        process::signal(child, libc::SIGKILL);
        assert_eq!(castoff.code(), 137);
    }

    fn a_stopped_child_can_be_asked_to_end(place) {
        let mut castoff = Castoff::new(place).child(&example("print_signals"), [""; 0]).start();
        castoff.stdout().wait_for_line("ready");
        process::signal(castoff.child(), libc::SIGSTOP);
        until_stopped(castoff.child());
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 0);
    }

    fn children_from_before_castoff_are_reaped_and_ended(place) {
        let castoff = env!("CARGO_BIN_EXE_castoff");
        for (before, code) in [("true &", 3), ("sleep 1000 &", 3), ("false & sleep 0.05;", 3)] {
            let script = format!("{before} exec {castoff} -- sh -c 'sleep 0.05; exit 3'");
            let mut shell = Castoff::instead(place, "/bin/sh").args(["-c", &script]).run();
            assert_eq!(shell.code(), code, "{before}");
        }
    }
}

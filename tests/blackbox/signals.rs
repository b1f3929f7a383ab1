//! Signals: every one that castoff gets reaches the child exactly once, from
//! castoff's first instruction to the child's end, and the log says where it
//! came from.
#![expect(unsafe_code, reason = "nix has no real-time signals, and no values for them")]

use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{
    Castoff, Ended, Place, Running, example, in_both_places, process, wait_until,
};

const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// A castoff whose child prints what it gets, and ends with 0 at SIGTERM.
#[track_caller]
fn printing(castoff: Castoff) -> Running {
    let castoff = castoff.child(&example("print_signals"), [""; 0]).start();
    castoff.until_serving().stdout().wait_for_line("ready");
    castoff
}

/// What the child has printed in all: pairs of a signal and its value.
#[track_caller]
fn printed(castoff: &Running) -> Vec<(i32, i32)> {
    let parse = |line: &String| {
        let (signal, rest) = line.split_once(" value=")?;
        Some((signal.parse().ok()?, rest.split_once(' ')?.0.parse().ok()?))
    };
    castoff.stdout().all().iter().filter_map(parse).collect()
}

#[track_caller]
fn printed_numbers(castoff: &Running) -> Vec<i32> {
    printed(castoff).into_iter().map(|(signal, _)| signal).collect()
}

#[track_caller]
fn until_printed(castoff: &Running, signal: i32) {
    castoff.stdout().wait_for_line(&format!("{signal} "));
}

/// `sigqueue`
#[track_caller]
fn queue(castoff: &Running, signal: i32, value: usize) {
    let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(value) };
    // SAFETY: the value is a number; castoff has not been reaped.
    Errno::result(unsafe { libc::sigqueue(castoff.pid, signal, value) }).expect("a queued signal");
}

/// Ends the child and castoff by SIGTERM, which is the last that it prints.
#[track_caller]
fn finish(castoff: &mut Running) {
    castoff.signal(libc::SIGTERM);
    assert_eq!(castoff.wait(), Ended::Code(0));
}

fn events_of(castoff: &Running, event: &str, signal: &str) -> usize {
    let events = castoff.log().events();
    events.iter().filter(|line| line["event"] == event && line["signal"] == signal).count()
}

in_both_places! {
    fn every_signal_that_can_be_caught_reaches_the_child_once(place) {
        let mut castoff = printing(Castoff::new(place).env("CASTOFF_STOP_ON", "SIGRTMAX"));
        let others = |signal: &i32| ![libc::SIGKILL, libc::SIGSTOP, libc::SIGTERM].contains(signal);
        // SIGRTMAX begins the stop, and SIGTERM ends this child.
        let signals: Vec<i32> = (1..=RTMAX).filter(others).chain([libc::SIGTERM]).collect();
        for signal in &signals {
            castoff.signal(*signal);
            // One at a time: SIGCONT would take a pending SIGTSTP away.
            until_printed(&castoff, *signal);
        }
        assert_eq!(castoff.code(), 0);
        assert_eq!(printed_numbers(&castoff), signals);
        let received = castoff.log().events();
        let received = received.iter().filter(|line| line["event"] == "signal_received").count();
        assert_eq!(received, signals.len());
    }

    fn the_default_stop_signals_reach_the_child_once(place) {
        for signal in [libc::SIGTERM, libc::SIGINT] {
            let castoff = Castoff::new(place).child(&example("print_signals"), [""; 0]);
            let mut castoff = castoff.start();
            castoff.stdout().wait_for_line("ready");
            castoff.signal(signal);
            until_printed(&castoff, signal);
            if signal != libc::SIGTERM {
                castoff.signal(libc::SIGTERM);
            }
            assert_eq!(castoff.code(), 0);
            let printed = printed_numbers(&castoff);
            assert_eq!(printed.iter().filter(|number| **number == signal).count(), 1);
        }
    }

    fn a_queued_value_reaches_the_child(place) {
        let mut castoff = printing(Castoff::new(place));
        let sent = [(libc::SIGUSR1, 7), (RTMIN, 1), (RTMIN, 2), (RTMIN + 3, -5), (RTMAX, i32::MAX)];
        for (signal, value) in sent {
            queue(&castoff, signal, value as usize);
            let line = format!("{signal} value={value} ");
            castoff.stdout().wait_for_line(&line);
        }
        finish(&mut castoff);
        assert_eq!(printed(&castoff), [&sent[..], &[(libc::SIGTERM, 0)]].concat());
    }

    fn a_burst_of_queued_signals_arrives_whole_and_in_order(place) {
        let mut castoff = printing(Castoff::new(place));
        // While castoff stands still, so that all of them wait at once.
        castoff.signal(libc::SIGSTOP);
        wait_until("castoff is stopped", || (process::state(castoff.pid)? == 'T').then_some(()));
        for value in 0..750 {
            queue(&castoff, RTMIN + 1, value);
        }
        castoff.signal(libc::SIGCONT);
        castoff.stdout().wait_for_line(&format!("{} value=749 ", RTMIN + 1));
        until_printed(&castoff, libc::SIGCONT);
        finish(&mut castoff);
        let mut printed = printed(&castoff);
        printed.retain(|(signal, _)| *signal == RTMIN + 1);
        assert_eq!(printed, (0..750).map(|value| (RTMIN + 1, value)).collect::<Vec<_>>());
    }

    fn a_signal_goes_to_the_child_alone(place) {
        let mut castoff = group_of_two(Castoff::new(place));
        castoff.signal(libc::SIGUSR1);
        castoff.log().wait_for_event("signal_forwarded");
        // Straight to the grandchild: whatever castoff had sent came before.
        process::signal(process::children(castoff.child())[0], libc::SIGTERM);
        assert_eq!(castoff.code(), 0);
        assert_eq!(printed_numbers(&castoff), [libc::SIGTERM]);
    }

    fn with_g_a_signal_goes_to_the_childs_group(place) {
        let mut castoff = group_of_two(Castoff::new(place).args(["-g"]));
        castoff.signal(libc::SIGUSR1);
        until_printed(&castoff, libc::SIGUSR1);
        let forwarded = castoff.log().wait_for_event("signal_forwarded");
        let group = castoff.log().wait_for_event("child_started")["child_pid"].as_i64().unwrap();
        assert_eq!(forwarded["target_pid"], -group);
        castoff.signal(libc::SIGTERM);
        castoff.wait();
        assert_eq!(printed_numbers(&castoff), [libc::SIGUSR1, libc::SIGTERM]);
    }

    fn a_signal_becomes_another_or_none_on_its_way(place) {
        // The second pair does not see what the first one makes; one that is
        // dropped is not lost in the log.
        let castoff = Castoff::new(place).env("CASTOFF_REWRITE", "HUP:USR1,USR1:USR2,WINCH:0,2:RTMIN+1");
        let mut castoff = printing(castoff.env("CASTOFF_STOP_ON", "TERM"));
        for (nth, signal) in [1, 10, 12, 2].into_iter().enumerate() {
            castoff.signal(libc::SIGWINCH);
            castoff.signal(signal);
            wait_until("it has come", || {
                (castoff.stdout().so_far().len() == nth + 2).then_some(())
            });
        }
        wait_until("all of them are in the log", || {
            let log = castoff.log().so_far();
            let count = log.iter().filter(|line| line.contains("\"signal_received\"")).count();
            (count >= 8).then_some(())
        });
        finish(&mut castoff);
        assert_eq!(printed_numbers(&castoff), [10, 12, 12, RTMIN + 1, 15]);
        assert_eq!(events_of(&castoff, "signal_received", "SIGWINCH"), 4);
        assert_eq!(events_of(&castoff, "signal_forwarded", "SIGWINCH"), 0);
        assert_eq!(events_of(&castoff, "signal_received", "SIGHUP"), 1);
        assert_eq!(events_of(&castoff, "signal_forwarded", "SIGUSR1"), 1);
    }

    fn a_queued_value_survives_the_rewriting(place) {
        let castoff = Castoff::new(place).env("CASTOFF_REWRITE", "RTMIN+1:RTMAX,RTMIN+2:0,USR1:RTMIN");
        let mut castoff = printing(castoff);
        queue(&castoff, RTMIN + 1, 41);
        castoff.stdout().wait_for_line("64 value=41 ");
        queue(&castoff, RTMIN + 2, 42);
        queue(&castoff, libc::SIGUSR1, 43);
        castoff.stdout().wait_for_line("34 value=43 ");
        finish(&mut castoff);
        assert_eq!(printed(&castoff), [(64, 41), (34, 43), (15, 0)]);
    }

    fn a_signal_that_becomes_a_stop_signal_begins_no_stop(place) {
        let mut castoff = printing(Castoff::new(place).env("CASTOFF_REWRITE", "HUP:INT,QUIT:TERM"));
        castoff.signal(libc::SIGHUP);
        until_printed(&castoff, libc::SIGINT);
        assert_eq!(castoff.get("/readyz").status, 200);
        // The child ends by it, of its own accord as far as castoff knows.
        castoff.signal(libc::SIGQUIT);
        assert_eq!(castoff.wait(), Ended::Code(0));
        let exited = castoff.log().wait_for_event("child_exited");
        assert_eq!(exited["reason"], "exited");
    }

    fn a_stop_signal_that_is_passed_on_as_received_is_rewritten_too(place) {
        for (rewrite, fixed, becomes) in [
            ("15:3", None, libc::SIGQUIT),
            ("15:3", Some("TERM"), libc::SIGTERM),
            ("15:3", Some("USR1"), libc::SIGUSR1),
            ("15:RTMIN+3", None, RTMIN + 3),
            ("10:3", Some("USR1"), libc::SIGUSR1),
        ] {
            let mut castoff = Castoff::new(place).env("CASTOFF_REWRITE", rewrite);
            if let Some(fixed) = fixed {
                castoff = castoff.env("CASTOFF_STOP_SIGNAL", fixed);
            }
            let mut castoff = castoff.child("sleep", ["600"]).start();
            castoff.until_serving().signal(libc::SIGTERM);
            assert_eq!(castoff.wait(), Ended::Code(128 + becomes), "{rewrite} {fixed:?}");
        }
    }

    fn a_stop_signal_that_is_dropped_leaves_the_child_in_peace_until_the_deadline(place) {
        let castoff = Castoff::new(place)
            .env("CASTOFF_REWRITE", "TERM:0")
            .env("CASTOFF_GRACE_PERIOD", "10m")
            .env("CASTOFF_KILL_RESERVE", "599700ms");
        let mut castoff = printing(castoff);
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(137));
        assert_eq!(printed_numbers(&castoff), [0; 0]);
        let stop_ms = castoff.log().wait_for_event("exiting")["stop_ms"].as_u64();
        assert!(stop_ms >= Some(300), "{stop_ms:?}");
    }

    fn the_log_says_who_sent_a_signal(place) {
        let mut castoff = printing(Castoff::new(place));
        castoff.signal(libc::SIGHUP);
        until_printed(&castoff, libc::SIGHUP);
        let received = castoff.log().wait_for_event("signal_received");
        assert_eq!(received["signal"], "SIGHUP");
        let sender_uid = &received["sender_uid"];
        match place {
            // castoff cannot see this process.
            Place::Pid1 => {
                // Who makes the namespace is root in it.
                assert_eq!(*sender_uid, 0);
                assert_eq!(received["sender"], "outside");
                assert!(received["sender_pid"].is_null());
            }
            Place::Subreaper => {
                assert_eq!(*sender_uid, nix::unistd::getuid().as_raw());
                assert_eq!(received["sender"], "process");
                assert_eq!(received["sender_pid"], std::process::id());
                let name = std::fs::read_to_string("/proc/self/comm").unwrap();
                assert_eq!(received["sender_command"], name.trim_end());
            }
        }
        let forwarded = castoff.log().wait_for_event("signal_forwarded");
        let child = castoff.log().wait_for_event("child_started")["child_pid"].clone();
        assert_eq!((&forwarded["signal"], &forwarded["target_pid"]), (&"SIGHUP".into(), &child));
        finish(&mut castoff);
        assert_eq!(events_of(&castoff, "signal_received", "SIGHUP"), 1);
        assert_eq!(events_of(&castoff, "signal_forwarded", "SIGHUP"), 1);
    }

    fn the_log_names_a_sender_within_the_container(place) {
        let script = "trap 'exit 5' USR2; kill -USR2 $PPID; while :; do sleep 0.01; done";
        let mut castoff = Castoff::new(place).script(script).run();
        assert_eq!(castoff.code(), 5);
        let received = castoff.log().wait_for_event("signal_received");
        let child = castoff.log().wait_for_event("child_started")["child_pid"].clone();
        assert_eq!(received["sender"], "process");
        assert_eq!((&received["sender_pid"], &received["sender_command"]), (&child, &"sh".into()));
    }

    fn the_log_knows_the_kernel_as_a_sender(place) {
        let mut castoff = printing(Castoff::new(place));
        let (reader, mut writer) = io::pipe().unwrap();
        // SAFETY: numbers only: castoff gets SIGIO when there is something to read.
        unsafe {
            Errno::result(libc::fcntl(reader.as_raw_fd(), libc::F_SETOWN, castoff.pid)).unwrap();
            Errno::result(libc::fcntl(reader.as_raw_fd(), libc::F_SETFL, libc::O_ASYNC)).unwrap();
        }
        writer.write_all(b"x").unwrap();
        until_printed(&castoff, libc::SIGIO);
        let received = castoff.log().wait_for_event("signal_received");
        assert_eq!((&received["signal"], &received["sender"]), (&"SIGIO".into(), &"kernel".into()));
        assert!(received["sender_pid"].is_null() && received["sender_uid"].is_null());
        finish(&mut castoff);
    }

    fn castoffs_own_broken_pipes_are_not_the_childs(place) {
        let (reader, writer) = io::pipe().unwrap();
        let castoff = Castoff::new(place).with(|command| { command.stderr(writer); });
        let mut castoff = castoff.child(&example("print_signals"), [""; 0]).start();
        castoff.stdout().wait_for_line("ready");
        drop(reader);
        // A line of castoff's log for each, and nobody to read it.
        for signal in [libc::SIGUSR1, libc::SIGUSR2, libc::SIGHUP] {
            castoff.signal(signal);
            until_printed(&castoff, signal);
        }
        castoff.signal(libc::SIGPIPE);
        until_printed(&castoff, libc::SIGPIPE);
        finish(&mut castoff);
        assert_eq!(printed_numbers(&castoff), [10, 12, 1, 13, 15]);
    }

    fn a_client_that_goes_amid_its_answers_is_no_signal(place) {
        let mut castoff = printing(Castoff::new(place));
        for _ in 0..20 {
            let client = TcpStream::connect(castoff.address()).unwrap();
            let requests = "GET /metrics HTTP/1.1\r\nHost: castoff\r\n\r\n".repeat(200);
            let _ = (&client).write_all(requests.as_bytes());
            // Closed by a reset, with answers still to come.
            let reset = libc::linger { l_onoff: 1, l_linger: 0 };
            let size = size_of_val(&reset) as libc::socklen_t;
            // SAFETY: the structure lives across the call and has that size.
            let done = unsafe {
                let value = (&raw const reset).cast();
                libc::setsockopt(client.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, value, size)
            };
            Errno::result(done).unwrap();
        }
        assert_eq!(castoff.get("/livez").status, 200);
        castoff.signal(libc::SIGPIPE);
        until_printed(&castoff, libc::SIGPIPE);
        finish(&mut castoff);
        assert_eq!(printed_numbers(&castoff), [libc::SIGPIPE, libc::SIGTERM]);
        assert_eq!(events_of(&castoff, "signal_received", "SIGPIPE"), 1);
    }

    // A process-directed SIGCHLD and the kernel's own are one pending signal,
    // and the first to come is the one that is read.
    fn a_sent_sigchld_does_not_hide_the_childs_end(place) {
        let mut castoff = printing(Castoff::new(place));
        castoff.signal(libc::SIGSTOP);
        wait_until("castoff is stopped", || (process::state(castoff.pid)? == 'T').then_some(()));
        castoff.signal(libc::SIGCHLD);
        process::signal(castoff.child(), libc::SIGKILL);
        castoff.signal(libc::SIGCONT);
        assert_eq!(castoff.wait(), Ended::Code(128 + libc::SIGKILL));
    }

    fn a_stop_request_that_comes_with_the_child_is_not_lost(place) {
        for _ in 0..ROUNDS {
            let mut castoff = Castoff::new(place).child(&example("print_signals"), [""; 0]).start();
            while process::children(castoff.pid).is_empty() {
                std::hint::spin_loop();
            }
            castoff.signal(libc::SIGTERM);
            // 143: the child had not come so far as to expect it.
            let code = castoff.code();
            assert!(code == 0 || code == 143, "{code}");
            assert_eq!(events_of(&castoff, "signal_forwarded", "SIGTERM"), 1);
        }
    }

    fn a_stop_request_that_comes_before_the_child_is_not_lost(place) {
        for _ in 0..ROUNDS {
            let mut castoff = Castoff::new(place).child(&example("print_signals"), [""; 0]).start();
            // Castoff's first instructions have blocked all signals.
            let is_blocked = |mask: String| mask.starts_with("ffff");
            while !process::status(castoff.pid, "SigBlk").is_some_and(is_blocked) {
                std::hint::spin_loop();
            }
            castoff.signal(libc::SIGTERM);
            let code = castoff.code();
            assert!(code == 0 || code == 143, "{code}");
            assert_eq!(events_of(&castoff, "signal_received", "SIGTERM"), 1);
        }
    }
}

/// How often a race is run.
const ROUNDS: usize = 150;

/// A process 1 without a handler loses what comes before it has blocked it:
/// between the kernel's exec and the first instruction nobody can help that.
/// It must be no more than lost, and so the next one has to be heard.
#[test]
fn a_stop_request_before_the_first_instruction_of_pid_1_does_no_harm() {
    let mut lost = 0;
    for _ in 0..ROUNDS {
        let castoff = Castoff::new(Place::Pid1).signal_at_exec(libc::SIGTERM);
        let mut castoff = castoff.child(&example("print_signals"), [""; 0]).start();
        // It never serves with a stop request pending.
        let decision = ["\"to\":\"serving\"", "\"signal_received\""];
        let decided = |line: &str| decision.iter().position(|word| line.contains(word));
        let was_told = castoff.log().wait_for("a decision", decided) == 1;
        if !was_told {
            // Unless it was late, and castoff is about to end.
            let _ = kill(Pid::from_raw(castoff.pid), Signal::SIGTERM);
            lost += 1;
        }
        assert!([0, 143].contains(&castoff.code()));
    }
    println!("{lost} of {ROUNDS} lost");
}

#[test]
fn a_stop_request_at_the_first_moment_of_a_subreaper_ends_it() {
    for _ in 0..ROUNDS {
        let castoff = Castoff::new(Place::Subreaper).signal_at_exec(libc::SIGTERM);
        let mut castoff = castoff.child(&example("print_signals"), [""; 0]).start();
        let end = castoff.wait();
        let by_default = Ended::Signal(libc::SIGTERM);
        assert!([by_default, Ended::Code(0), Ended::Code(143)].contains(&end), "{end:?}");
    }
}

/// `-p`: the one who made the namespace goes, and castoff is told.
#[test]
fn the_end_of_castoffs_parent_is_a_signal_if_asked_for() {
    let castoff = printing(Castoff::new(Place::Pid1).args(["-p", "SIGUSR1"]));
    let parent = process::status(castoff.pid, "PPid").unwrap().parse().unwrap();
    process::signal(parent, libc::SIGKILL);
    until_printed(&castoff, libc::SIGUSR1);
    castoff.signal(libc::SIGTERM);
    // Nobody here is told of its end.
    castoff.stdout().all();
}

/// The child is a shell that ignores SIGUSR1, and in its group is a process that
/// prints what it gets.
#[track_caller]
fn group_of_two(castoff: Castoff) -> Running {
    let script = format!("trap '' USR1; {} & wait $!", example("print_signals"));
    let castoff = castoff.script(&script).start();
    castoff.until_serving().stdout().wait_for_line("ready");
    castoff
}

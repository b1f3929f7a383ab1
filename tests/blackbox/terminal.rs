//! On a terminal: the child has the foreground and gets the keys, once; a shell
//! with job control stops and continues castoff like any other job.

use std::process::Stdio;

use crate::support::terminal::{INTERRUPT, QUIT, SUSPEND};
use crate::support::{
    Castoff, Ended, Place, Running, Terminal, example, in_both_places, process, wait_until,
};

/// bash as somebody uses it, with `$C` for castoff.
fn interactive(castoff: Castoff) -> Castoff {
    castoff
        .env("PS1", "ready> ")
        .env("TERM", "dumb")
        .env("HOME", "/")
        .env("CASTOFF_LOG_LEVEL", "off")
        .env("C", env!("CARGO_BIN_EXE_castoff"))
}

const BASH: [&str; 4] = ["/bin/bash", "--norc", "--noprofile", "-i"];
/// Prints `begun`, then what is typed.
const CAT: &str = "sh -c 'echo begun; exec cat'\n";

/// An interactive bash on a terminal of its own.
#[track_caller]
fn bash(terminal: &Terminal) -> Running {
    let castoff = Castoff::instead(Place::Subreaper, BASH[0]).args(&BASH[1..]);
    let other_end = terminal.other_end();
    let castoff = castoff.with(|command| {
        command.stderr(other_end);
    });
    let bash = interactive(castoff).on(terminal).start();
    terminal.wait_for("ready> ");
    bash
}

/// What is typed comes twice: as the terminal's echo and from the program.
#[track_caller]
fn assert_reads(terminal: &Terminal, word: &str) {
    terminal.types(&format!("{word}\n")).wait_for(word);
    terminal.wait_for(word);
}

#[track_caller]
fn only_child(pid: i32) -> i32 {
    wait_until("there is a child", || process::children(pid).first().copied())
}

/// Until the program is in front and reads: bash changes the terminal's modes
/// before, and a key that comes in between may be lost.
#[track_caller]
fn until_reading(terminal: &Terminal, pid: i32) {
    let is_in_front = || terminal.foreground() == pid && process::state(pid) == Some('S');
    wait_until("it has the foreground", || is_in_front().then_some(()));
}

in_both_places! {
    fn keys_reach_the_child_once_and_castoff_not_at_all(place) {
        let terminal = Terminal::new();
        let castoff = Castoff::new(place).child(&example("print_signals"), [""; 0]);
        let mut castoff = castoff.on(&terminal).start();
        terminal.wait_for("ready");
        assert_eq!(terminal.foreground(), castoff.child());
        let mut seen = String::new();
        for (key, signal) in [(INTERRUPT, 2), (QUIT, 3), (SUSPEND, 20), (INTERRUPT, 2)] {
            seen += &terminal.types(key).wait_for(&format!("{signal} value="));
        }
        for rows in [30, 40] {
            terminal.resize(rows, 100);
            seen += &terminal.wait_for("28 value=");
        }
        castoff.signal(libc::SIGTERM);
        seen += &terminal.wait_for("15 value=");
        assert_eq!(castoff.wait(), Ended::Code(0));
        assert!(!seen.contains("value="), "more than was sent: {seen}");
        let events = castoff.log().events();
        let received = events.iter().filter(|line| line["event"] == "signal_received");
        assert_eq!(received.map(|line| &line["signal"]).collect::<Vec<_>>(), ["SIGTERM"]);
    }

    fn a_shell_as_the_child_has_its_job_control(place) {
        let terminal = Terminal::new();
        let other_end = terminal.other_end();
        let castoff = Castoff::new(place).with(|command| { command.stderr(other_end); });
        let mut castoff =
            interactive(castoff).child(BASH[0], &BASH[1..]).on(&terminal).start();
        terminal.wait_for("ready> ");
        terminal.types(CAT).wait_for("begun\r\n");
        assert_reads(&terminal, "one");
        terminal.types(SUSPEND).wait_for("Stopped");
        terminal.wait_for("ready> ");
        terminal.types("fg\n").wait_for("exec cat");
        until_reading(&terminal, only_child(castoff.child()));
        assert_reads(&terminal, "two");
        terminal.types(INTERRUPT).wait_for("ready> ");
        terminal.types("exit 6\n");
        assert_eq!(castoff.code(), 6);
    }

    fn a_hang_up_is_passed_on(place) {
        let terminal = Terminal::new();
        let castoff = Castoff::new(place).child(&example("print_signals"), [""; 0]).on(&terminal);
        let castoff = castoff.with(|command| { command.stdout(Stdio::piped()); });
        let mut castoff = castoff.start();
        castoff.until_serving().stdout().wait_for_line("ready");
        terminal.hang_up();
        castoff.stdout().wait_for_line("1 value=");
        castoff.log().wait_for("SIGHUP", |line| {
            line.contains("\"signal\":\"SIGHUP\",\"sender\":\"kernel\"").then_some(())
        });
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
        let lines = castoff.stdout().all();
        assert_eq!(lines.iter().filter(|line| line.starts_with("1 ")).count(), 1);
    }

    fn castoff_writes_to_a_terminal_that_stops_background_writers(place) {
        let terminal = Terminal::new();
        terminal.stop_background_writers();
        let other_end = terminal.other_end();
        let castoff = Castoff::new(place).with(|command| { command.stderr(other_end); });
        let castoff = castoff.child(&example("print_signals"), [""; 0]);
        let mut castoff = castoff.on(&terminal).start();
        terminal.wait_for("ready ");
        assert_eq!(terminal.foreground(), castoff.child());
        castoff.signal(libc::SIGUSR1);
        terminal.wait_for("\"event\":\"signal_forwarded\"");
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
    }

    fn where_nobody_could_continue_the_child_a_key_does_not_stop_it(place) {
        let terminal = Terminal::new();
        let castoff = Castoff::new(place).script("echo begun; exec cat").on(&terminal);
        let mut castoff = castoff.start();
        castoff.until_serving();
        terminal.wait_for("begun");
        terminal.types(SUSPEND);
        castoff.log().wait_for("the signal that undoes it", |line| {
            let is_it = line.contains("signal_forwarded") && line.contains("SIGCONT");
            is_it.then_some(())
        });
        assert_reads(&terminal, "one");
        assert_eq!(castoff.get("/livez").status, 200);
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 143);
    }

    fn who_runs_after_castoff_has_the_terminal_again(place) {
        let terminal = Terminal::new();
        // The shell is in castoff's own group, as a script is.
        let script = "\"$0\" -- true; \"$0\" -- /no/such/program; read line; echo \"has $line\"";
        let castoff = Castoff::instead(place, "/bin/sh");
        let castoff = castoff.args(["-c", script, env!("CARGO_BIN_EXE_castoff")]);
        let mut shell = castoff.on(&terminal).start();
        shell.log().wait_for_line("castoff: cannot run");
        terminal.types("three\n").wait_for("has three");
        assert_eq!(shell.code(), 0);
    }
}

#[test]
fn a_shell_stops_and_continues_castoff_as_a_job() {
    let terminal = Terminal::new();
    let mut bash = bash(&terminal);
    terminal.types(&format!("$C -- {CAT}")).wait_for("begun\r\n");
    let castoff = only_child(bash.pid);
    let child = only_child(castoff);
    assert_eq!(terminal.foreground(), child);
    assert_reads(&terminal, "one");
    for word in ["two", "three"] {
        terminal.types(SUSPEND).wait_for("Stopped");
        terminal.wait_for("ready> ");
        assert_eq!(terminal.foreground(), bash.pid);
        assert_eq!((process::state(castoff), process::state(child)), (Some('T'), Some('T')));
        terminal.types("fg\n").wait_for("exec cat");
        until_reading(&terminal, child);
        assert_reads(&terminal, word);
    }
    terminal.types(INTERRUPT).wait_for("ready> ");
    // 128 + SIGINT: the key reached the child.
    terminal.types("echo code $?\n").wait_for("code 130");
    terminal.types("exit 6\n");
    assert_eq!(bash.code(), 6);
}

#[test]
fn a_job_that_is_continued_in_the_background_stops_when_it_reads() {
    let terminal = Terminal::new();
    let mut bash = bash(&terminal);
    terminal.types("set -b\n").wait_for("ready> ");
    terminal.types(&format!("$C -- {CAT}")).wait_for("begun\r\n");
    let child = only_child(only_child(bash.pid));
    terminal.types(SUSPEND).wait_for("Stopped");
    terminal.wait_for("ready> ");
    terminal.types("bg\n").wait_for("Stopped");
    assert_eq!(terminal.foreground(), bash.pid);
    terminal.types("fg\n").wait_for("exec cat");
    until_reading(&terminal, child);
    assert_reads(&terminal, "two");
    terminal.types(INTERRUPT).wait_for("ready> ");
    terminal.types("exit 6\n");
    assert_eq!(bash.code(), 6);
}

#[test]
fn a_job_in_the_background_leaves_the_terminal_to_others() {
    let terminal = Terminal::new();
    let mut bash = bash(&terminal);
    terminal.types("$C -- sh -c 'echo begun; exec sleep 1000' &\n").wait_for("begun\r\n");
    let child = only_child(only_child(bash.pid));
    assert_eq!(terminal.foreground(), bash.pid);
    terminal.types("echo still-$((40 + 2))\n").wait_for("still-42");
    wait_until("the child sleeps", || (process::state(child)? == 'S').then_some(()));
    terminal.types("kill %1; wait; exit 6\n");
    assert_eq!(bash.code(), 6);
}

#[test]
fn a_job_from_the_background_can_be_brought_to_the_front() {
    let terminal = Terminal::new();
    let mut bash = bash(&terminal);
    terminal.types("set -b\n").wait_for("ready> ");
    terminal.types("$C -- sh -c 'echo begun; exec cat' &\n").wait_for("begun\r\n");
    // It reads, which the terminal answers with SIGTTIN.
    terminal.wait_for("Stopped");
    let child = only_child(only_child(bash.pid));
    terminal.types("fg\n").wait_for("exec cat");
    until_reading(&terminal, child);
    assert_reads(&terminal, "one");
    terminal.types(SUSPEND).wait_for("Stopped");
    terminal.wait_for("ready> ");
    terminal.types("fg\n").wait_for("exec cat");
    until_reading(&terminal, child);
    assert_reads(&terminal, "two");
    terminal.types(INTERRUPT).wait_for("ready> ");
    terminal.types("exit 6\n");
    assert_eq!(bash.code(), 6);
}

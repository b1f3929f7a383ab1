//! A child that leaves processes behind:
//!
//! - `forker orphans N`: N of them, which end at once; then it ends itself.
//! - `forker daemon RECORD [ignore]`: one in a session of its own, twice forked
//!   as daemons are. It appends to RECORD `daemon PID`, then `SIGTERM` when
//!   it is told, and ends; with `ignore` it goes on. The child prints `ready`
//!   and ends with code 0 at SIGTERM.
//! - `forker leave RECORD [ignore]`: the same, but the child ends at once with 7.
//! - `forker comets N`: N of them, each of which lives for a moment and leaves
//!   another in its place, under a pid of its own; they ignore SIGTERM and go on
//!   for a minute. The child ends at once with 7.
//! - `forker headless`: one whose first thread has ended while another runs on;
//!   it prints `ready` and ends with code 3 at SIGTERM.
#![expect(unsafe_code, reason = "a child that plays with processes and signals")]

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{ForkResult, fork, setsid};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["orphans", count] => orphans(count.parse()?)?,
        ["daemon", record, rest @ ..] => {
            daemon(record, rest.contains(&"ignore"))?;
            wait_for_term("ready")?;
        }
        ["leave", record, rest @ ..] => {
            daemon(record, rest.contains(&"ignore"))?;
            return Ok(ExitCode::from(7));
        }
        ["comets", count] => {
            comets(count.parse()?)?;
            return Ok(ExitCode::from(7));
        }
        ["headless"] => headless()?,
        _ => {
            return Err("usage: forker orphans N | daemon RECORD [ignore] | \
                leave RECORD [ignore] | comets N | headless"
                .into());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Each is forked by a process that ends before it: the orphan of a parent
/// that was never waited for is the case that an init exists for.
fn orphans(count: u32) -> nix::Result<()> {
    for _ in 0..count {
        // SAFETY: this program has one thread; the new process only forks and ends.
        if let ForkResult::Child = unsafe { fork() }? {
            // SAFETY: as above.
            let _ = unsafe { fork() };
            // SAFETY: ends the process without the parent's exit handlers.
            unsafe { libc::_exit(0) };
        }
    }
    Ok(())
}

/// A minute is the most that a test which failed to catch them has to wait for
/// its machine; a millisecond a life keeps their zombies few.
fn comets(count: u32) -> Result<(), Box<dyn std::error::Error>> {
    // SAFETY: SIG_IGN is no handler that could run.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
    let until = Instant::now() + Duration::from_secs(60);
    for _ in 0..count {
        // SAFETY: this program has one thread.
        if let ForkResult::Child = unsafe { fork() }? {
            while Instant::now() < until {
                std::thread::park_timeout(Duration::from_millis(1));
                // SAFETY: as above.
                if let Ok(ForkResult::Parent { .. }) = unsafe { fork() } {
                    break;
                }
            }
            // SAFETY: ends the process without the parent's exit handlers.
            unsafe { libc::_exit(0) };
        }
    }
    Ok(())
}

fn headless() -> Result<(), Box<dyn std::error::Error>> {
    SigSet::from(Signal::SIGTERM).thread_block()?;
    std::thread::spawn(|| {
        println!("ready");
        let _ = SigSet::from(Signal::SIGTERM).wait();
        // SAFETY: ends the process; the line is written.
        unsafe { libc::_exit(3) };
    });
    // SAFETY: ends this thread only; the other one borrows nothing of it.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    Ok(())
}

/// Returns once the daemon is on record.
fn daemon(record: &str, ignores: bool) -> Result<(), Box<dyn std::error::Error>> {
    let (started, tell) = io::pipe()?;
    // SAFETY: this program has one thread.
    if let ForkResult::Child = unsafe { fork() }? {
        setsid()?;
        // SAFETY: as above.
        if let ForkResult::Child = unsafe { fork() }? {
            run_daemon(record, ignores, tell)?;
        }
        // SAFETY: ends the process without the parent's exit handlers.
        unsafe { libc::_exit(0) };
    }
    drop(tell);
    io::read_to_string(started)?;
    Ok(())
}

fn run_daemon(
    record: &str,
    ignores: bool,
    tell: io::PipeWriter,
) -> Result<(), Box<dyn std::error::Error>> {
    SigSet::from(Signal::SIGTERM).thread_block()?;
    let mut record = OpenOptions::new().append(true).create(true).open(record)?;
    writeln!(record, "daemon {}", std::process::id())?;
    drop(tell);
    loop {
        SigSet::from(Signal::SIGTERM).wait()?;
        writeln!(record, "SIGTERM")?;
        if !ignores {
            return Ok(());
        }
    }
}

fn wait_for_term(word: &str) -> Result<(), Box<dyn std::error::Error>> {
    SigSet::from(Signal::SIGTERM).thread_block()?;
    println!("{word}");
    SigSet::from(Signal::SIGTERM).wait()?;
    Ok(())
}

//! From `kill` of the init to its child having the signal, all on one CPU: on
//! two, the waking of a sleeping CPU would be most of it. Then a burst of
//! real-time signals, none of which may be lost.
//!
//! On one CPU nobody runs before the init sleeps again, so what castoff does
//! after it has forwarded, its log lines, counts as latency too.

use std::error::Error;
use std::io;

use nix::sys::signal::Signal;

use crate::cpu;
use crate::process::{Running, nanos, now};
use crate::programs::{Programs, REAL_TIME};
use crate::statistics::{Series, quantile, ratio, series, shuffled};
use crate::subject::{self, Subject};
use crate::table::Table;
use crate::targets::Targets;

/// Fresh processes this often, for where a process lies in memory matters.
const SITTINGS: usize = 5;
/// Signals in a burst.
const BURST: usize = 750;

pub(crate) fn run(
    rounds: usize,
    programs: &Programs,
    targets: &mut Targets,
) -> Result<(), Box<dyn Error>> {
    let subjects =
        subject::with_peers([subject::direct(), subject::castoff_warn(), subject::castoff()]);
    let mut latencies = series(subjects.iter().map(|subject| subject.name));
    cpu::on_one_cpu(|| {
        (0..SITTINGS).try_for_each(|_| sit(rounds, &subjects, programs, &mut latencies))
    })?;

    println!("\n## signal: kill(init, SIGUSR1) to the child having it, all on one CPU (µs)\n");
    println!("{SITTINGS} sittings of {rounds} rounds. castoff logs two lines a signal into a pipe");
    println!(
        "that is read, castoff-warn none. Burst: {BURST} queued real-time signals a sitting.\n"
    );
    let mut table = Table::new(&["subject", "min", "p50", "p99", "x tini", "burst arrived"]);
    for one in &latencies {
        let at = |share| format!("{:.1}", quantile(&one.values, share));
        let arrived = format!("{0}/{0}", SITTINGS * BURST);
        let ratio = ratio(one, &latencies).to_string();
        table.row([one.name.to_owned(), at(0.0), at(0.5), at(0.99), ratio, arrived]);
    }
    println!("{table}");
    let ours = [("castoff-warn", "signal, log at warn"), ("castoff", "signal, log at info")];
    for (name, what) in ours {
        for series in latencies.iter().filter(|series| series.name == name) {
            targets.add(what, ratio(series, &latencies).median, 1.2, "x tini");
        }
    }
    Ok(())
}

/// Starts all subjects and signals them in turn, then as fast as possible.
fn sit(
    rounds: usize,
    subjects: &[Subject],
    programs: &Programs,
    latencies: &mut [Series],
) -> Result<(), Box<dyn Error>> {
    let mut all = subjects
        .iter()
        .map(|subject| listening(subject, programs))
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    for _ in 0..rounds {
        for index in shuffled(subjects.len()) {
            let (Some(one), Some(latency)) = (all.get_mut(index), latencies.get_mut(index)) else {
                continue;
            };
            let sent = now();
            one.send(Signal::SIGUSR1)?;
            let [seconds, nanoseconds, number] = one.read_words()?;
            if number != Signal::SIGUSR1 as u64 {
                return Err(format!("{}: signal {number} instead of SIGUSR1", one.name).into());
            }
            latency.values.push((nanos(seconds, nanoseconds) - sent) as f64 / 1000.0);
            one.drain();
        }
    }
    for one in &mut all {
        burst(one)?;
    }
    for one in all {
        if one.name == "castoff" {
            check_log(&one, rounds + BURST)?;
        }
        one.stop()?;
    }
    Ok(())
}

/// Expects both lines for each signal: without them it would be too fast.
fn check_log(one: &Running, signals: usize) -> Result<(), Box<dyn Error>> {
    let log = String::from_utf8_lossy(&one.log);
    for event in ["signal_received", "signal_forwarded"] {
        let lines = log.matches(&format!(r#""event":"{event}""#)).count();
        if lines != signals {
            return Err(format!("castoff: {lines} lines {event} for {signals} signals").into());
        }
    }
    Ok(())
}

/// The subject, once its child waits for signals.
fn listening(subject: &Subject, programs: &Programs) -> Result<Running, Box<dyn Error>> {
    let mut running = Running::start(subject, &programs.listener)?;
    let [_, _, ready] = running.read_words()?;
    if ready != 0 {
        return Err(format!("{}: signal {ready} before any was sent", subject.name).into());
    }
    Ok(running)
}

/// Queues real-time signals faster than anyone takes them, and expects each of
/// them to arrive, as often as it was sent.
fn burst(one: &mut Running) -> Result<(), Box<dyn Error>> {
    let (lowest, highest) = REAL_TIME;
    let mut missing = Vec::new();
    for number in (lowest..=highest).cycle().take(BURST) {
        let value = libc::sigval { sival_ptr: std::ptr::null_mut() };
        // SAFETY: takes numbers and a value that nobody dereferences.
        if unsafe { libc::sigqueue(one.pid.as_raw(), number, value) } != 0 {
            return Err(
                format!("cannot queue signal {number}: {}", io::Error::last_os_error()).into()
            );
        }
        missing.push(number as u64);
    }
    for _ in 0..BURST {
        let [_, _, number] = one
            .read_words()
            .map_err(|error| format!("{} of {BURST} signals lost: {error}", missing.len()))?;
        let Some(index) = missing.iter().position(|sent| *sent == number) else {
            return Err(format!("{}: signal {number} was not sent", one.name).into());
        };
        missing.swap_remove(index);
        one.drain();
    }
    Ok(())
}

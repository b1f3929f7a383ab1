//! The init's CPU time for 20,000 orphans, one after the other.

use std::error::Error;
use std::io::Write;

use nix::poll::{PollTimeout, poll};

use crate::cpu;
use crate::process::Running;
use crate::programs::{ORPHANS, Programs};
use crate::statistics::{Series, quantile, ratio, series, shuffled};
use crate::subject::{self, Subject};
use crate::table::Table;
use crate::targets::Targets;

/// How often to look whether all zombies have gone, and how many times.
const LOOK_EVERY_MS: u8 = 5;
const LOOKS: usize = 1000;
/// On one CPU a round takes a quarter of the time.
const PINNED_ROUNDS: usize = 3;

pub(crate) fn run(
    rounds: usize,
    programs: &Programs,
    targets: &mut Targets,
) -> Result<(), Box<dyn Error>> {
    let subjects = subject::with_peers([subject::castoff()]);
    let free = cpu_times(rounds, &subjects, programs)?;
    let pinned = cpu::on_one_cpu(|| cpu_times(rounds * PINNED_ROUNDS, &subjects, programs))?;

    println!("\n## reap: CPU time of the init for {ORPHANS} orphans (ms)\n");
    println!(
        "castoff with its default log, stderr a pipe. {} rounds with all on one",
        rounds * PINNED_ROUNDS
    );
    println!("CPU; {rounds} on all CPUs, where it is the waking of a CPU that costs and varies.\n");
    let mut table =
        Table::new(&["subject", "one CPU min", "p50", "x tini", "all CPUs min", "p50", "x tini"]);
    for (one, all) in pinned.iter().zip(&free) {
        let at = |series: &Series, share| format!("{:.0}", quantile(&series.values, share));
        table.row([
            one.name.to_owned(),
            at(one, 0.0),
            at(one, 0.5),
            ratio(one, &pinned).to_string(),
            at(all, 0.0),
            at(all, 0.5),
            ratio(all, &free).to_string(),
        ]);
    }
    println!("{table}");
    for (what, times) in [("reap, CPU time on one CPU", &pinned), ("reap, on all CPUs", &free)] {
        for series in times.iter().filter(|series| series.name == "castoff") {
            targets.add(what, ratio(series, times).median, 1.15, "x tini");
        }
    }
    Ok(())
}

fn cpu_times(
    rounds: usize,
    subjects: &[Subject],
    programs: &Programs,
) -> Result<Vec<Series>, Box<dyn Error>> {
    let mut times = series(subjects.iter().map(|subject| subject.name));
    for _ in 0..rounds {
        for index in shuffled(subjects.len()) {
            let (Some(subject), Some(time)) = (subjects.get(index), times.get_mut(index)) else {
                continue;
            };
            let mut running = Running::start(subject, &programs.orphans)?;
            running.read(&mut [0])?;
            let before = running.cpu_time()?;
            running.stdin.write_all(&[0])?;
            running.read(&mut [0])?;
            wait_until_only_the_child_is_left(&running)?;
            time.values.push((running.cpu_time()? - before) as f64 / 1e6);
            running.stop()?;
        }
    }
    Ok(times)
}

fn wait_until_only_the_child_is_left(running: &Running) -> Result<(), Box<dyn Error>> {
    let children = format!("task/{}/children", running.pid);
    for _ in 0..LOOKS {
        if running.proc(&children)?.split_whitespace().count() <= 1 {
            return Ok(());
        }
        poll(&mut [], PollTimeout::from(LOOK_EVERY_MS))?;
    }
    Err(format!("{}: it leaves zombies", running.name).into())
}

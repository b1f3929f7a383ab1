//! castoff against the small inits, from outside: `cargo bench --bench peers
//! [-- [--rounds N] FILTER...]`, as root, in about two minutes. FILTER is the
//! beginning of start, signal, reap, idle or size.
//!
//! Every subject is process 1 of a pid namespace of its own; all are measured in
//! the same run, in an order that is shuffled each round, under SCHED_FIFO where
//! that is permitted, so that neighbours do not come between. "x tini" is the
//! median of the ratios within a round with its 95 % interval; `tini-again` is
//! tini once more: a difference not larger than between these two is none.
//!
//! It must never fail because of a speed, and always when a subject misbehaves:
//! a wrong exit status, a lost signal, a zombie left.
#![expect(
    unsafe_code,
    reason = "namespaces, clocks of other processes and code without a C library"
)]

mod cpu;
mod idle;
mod process;
mod programs;
mod reap;
mod signal;
mod size;
mod start;
mod statistics;
mod subject;
mod table;
mod targets;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use programs::Programs;
use targets::Targets;

/// Starts of every subject; signals are quicker and reaping takes longer.
const ROUNDS: usize = 300;
const SIGNAL_ROUNDS_PER_ROUND: usize = 2;
const ROUNDS_PER_REAP: usize = 75;

/// What the command line asks for.
struct Wish {
    filters: Vec<String>,
    rounds: usize,
}

fn main() -> ExitCode {
    // Also built, and run without this word, by `cargo test --all-targets`.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("peers: run by `cargo bench --bench peers`");
        return ExitCode::SUCCESS;
    }
    match wish().and_then(|wish| measure(&wish)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn wish() -> Result<Wish, Box<dyn Error>> {
    let mut wish = Wish { filters: Vec::new(), rounds: ROUNDS };
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        if word == "--rounds" {
            let number = words.next().and_then(|number| number.parse().ok());
            wish.rounds = number.filter(|rounds| *rounds > 0).ok_or("--rounds takes a number")?;
        } else {
            wish.filters.push(word);
        }
    }
    Ok(wish)
}

fn measure(wish: &Wish) -> Result<(), Box<dyn Error>> {
    subject::check_installed()?;
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers");
    fs::create_dir_all(&directory)?;
    let programs = Programs::write(&directory)?;
    let is_real_time = cpu::become_real_time();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cpus = std::thread::available_parallelism()?;
    let policy =
        if is_real_time { "SCHED_FIFO" } else { "the ordinary scheduler, so mind the noise" };
    println!("# castoff and its peers: Linux {}, {cpus} CPUs, {policy}", kernel.trim());

    let wants = |name: &str| {
        wish.filters.is_empty() || wish.filters.iter().any(|filter| name.starts_with(filter))
    };
    let mut targets = Targets::default();
    if wants("start") {
        start::run(wish.rounds, &programs, &mut targets)?;
    }
    if wants("signal") {
        signal::run(wish.rounds * SIGNAL_ROUNDS_PER_ROUND, &programs, &mut targets)?;
    }
    if wants("reap") {
        reap::run(wish.rounds.div_ceil(ROUNDS_PER_REAP), &programs, &mut targets)?;
    }
    if wants("idle") {
        idle::run(&programs, &mut targets)?;
    }
    if wants("size") {
        size::run(&mut targets)?;
    }
    println!("\n## targets\n\n{targets}");
    Ok(())
}

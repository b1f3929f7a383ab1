//! From the exec of the init to the first instruction of its child, and from
//! there to the init's own exit: the child ends at once.

use std::error::Error;

use crate::process::{Running, nanos};
use crate::programs::Programs;
use crate::statistics::{Series, quantile, ratio, series, shuffled};
use crate::subject;
use crate::table::Table;
use crate::targets::Targets;

pub(crate) fn run(
    rounds: usize,
    programs: &Programs,
    targets: &mut Targets,
) -> Result<(), Box<dyn Error>> {
    let subjects =
        subject::with_peers([subject::direct(), subject::castoff(), subject::castoff_warn()]);
    let mut first = series(subjects.iter().map(|subject| subject.name));
    let mut whole = series(subjects.iter().map(|subject| subject.name));
    for _ in 0..rounds {
        for index in shuffled(subjects.len()) {
            let Some(subject) = subjects.get(index) else { continue };
            let mut running = Running::start(subject, &programs.stamp)?;
            running.expect_exit(0)?;
            let end = crate::process::now();
            let begin = running.exec_time()?;
            let [seconds, nanoseconds] = running.read_words()?;
            push(&mut first, index, nanos(seconds, nanoseconds) - begin);
            push(&mut whole, index, end - begin);
        }
    }

    println!(
        "\n## start: exec of the init to its child's first instruction, and to its own exit (µs)\n"
    );
    println!("{rounds} rounds. stderr is a pipe; castoff logs at info, castoff-warn at warn.\n");
    let mut table = Table::new(&[
        "subject",
        "first instr. min",
        "p50",
        "p99",
        "x tini",
        "status back p50",
        "x tini",
    ]);
    for (one, back) in first.iter().zip(&whole) {
        let at = |series: &Series, share| format!("{:.0}", quantile(&series.values, share));
        table.row([
            one.name.to_owned(),
            at(one, 0.0),
            at(one, 0.5),
            at(one, 0.99),
            ratio(one, &first).to_string(),
            at(back, 0.5),
            ratio(back, &whole).to_string(),
        ]);
    }
    println!("{table}");
    for series in first.iter().filter(|series| series.name == "castoff") {
        targets.add("start, first instruction", ratio(series, &first).median, 0.95, "x tini");
    }
    Ok(())
}

fn push(all: &mut [Series], index: usize, nanos: u64) {
    if let Some(series) = all.get_mut(index) {
        series.values.push(nanos as f64 / 1000.0);
    }
}

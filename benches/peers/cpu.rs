//! Where and before whom the harness and all that it starts run.

use std::error::Error;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Comes before everything that is not real-time; returns whether it may.
pub(crate) fn become_real_time() -> bool {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameter lives across the call.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) == 0 }
}

/// Keeps the harness, and what it starts meanwhile, on the first of its CPUs.
pub(crate) fn on_one_cpu<T>(
    measure: impl FnOnce() -> Result<T, Box<dyn Error>>,
) -> Result<T, Box<dyn Error>> {
    let own = Pid::from_raw(0);
    let everywhere = sched_getaffinity(own)?;
    let mut one = CpuSet::new();
    let first = (0..CpuSet::count()).find(|cpu| everywhere.is_set(*cpu).unwrap_or(false));
    one.set(first.unwrap_or_default())?;
    sched_setaffinity(own, &one)?;
    let result = measure();
    sched_setaffinity(own, &everywhere)?;
    result
}

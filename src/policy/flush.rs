//! How long castoff's end waits for a reader of the child's last lines.
//!
//! Owns the arithmetic; the time comes in. Whoever reads slowly gets the rest of
//! the grace period, whoever has stopped reading does not hold it up.

use std::time::{Duration, Instant};

use super::stop_plan::StopPlan;

/// The wait for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flush {
    /// The platform's own SIGKILL is near.
    until: Instant,
    /// A reader that takes nothing for so long has stopped.
    patience: Duration,
    taken_at: Instant,
}

impl Flush {
    /// From now on, everybody having ended. Of an end that nobody has asked for
    /// the platform does not set a limit: it gets what a stop would have had.
    pub(crate) fn new(plan: &StopPlan, stop_requested_at: Option<Instant>, now: Instant) -> Self {
        let until = plan.last_moment(stop_requested_at.unwrap_or(now));
        Self { until, patience: plan.reserve, taken_at: now }
    }

    /// The reader has taken something.
    pub(crate) fn progressed(&mut self, now: Instant) {
        self.taken_at = now;
    }

    /// Nobody wants to wait any longer.
    pub(crate) fn end(&mut self, now: Instant) {
        self.until = self.until.min(now);
    }

    /// When to give up, unless something is taken before.
    pub(crate) fn due_at(&self) -> Instant {
        self.until.min(self.taken_at + self.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::super::stop_plan::DrainPlan;
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_reader_that_has_stopped_is_not_waited_for_and_a_slow_one_is_to_the_last_moment() {
        let plan = StopPlan::new(s(32), DrainPlan::fixed(s(5)), s(2)).expect("it fits");
        let asked_at = Instant::now();
        let now = asked_at + s(20);
        let mut flush = Flush::new(&plan, Some(asked_at), now);
        assert_eq!(flush.due_at(), now + s(2));
        flush.progressed(now + s(1));
        assert_eq!(flush.due_at(), now + s(3));
        flush.progressed(now + s(11));
        assert_eq!(flush.due_at(), asked_at + s(32) - Duration::from_millis(250));
        flush.end(now + s(11));
        flush.progressed(now + s(12));
        assert_eq!(flush.due_at(), now + s(11));
        let unasked = Flush::new(&plan, None, now);
        assert_eq!(unasked.due_at(), now + s(2));
    }
}

//! The arithmetic of a stop: how the grace period is divided.
//!
//! Owns the durations and what follows from them. It never reads a clock: the
//! moment of the stop request comes in, instants go out.

use std::time::{Duration, Instant};

use super::signal::{Rewrite, Signal};

/// CASTOFF_HANG_SIGNAL comes this long before the kill.
pub(crate) const HANG_LEAD: Duration = Duration::from_secs(1);

/// Who is left is listed this long before the kill, which must not wait for it:
/// to look at thousands of processes takes some time. It never takes more.
pub(crate) const LIST_LEAD: Duration = Duration::from_millis(100);

/// How long after a SIGKILL what has escaped it, by being forked at that
/// moment, gets another.
pub(crate) const STRIKE_INTERVAL: Duration = Duration::from_millis(50);

/// How long before a kill the hang signal comes, `left` being the time from the
/// child's stop signal to that kill: what is shorter than the lead is divided.
pub(crate) fn hang_lead(left: Duration) -> Duration {
    HANG_LEAD.min(left / 2)
}

/// The same of the list of survivors.
pub(crate) fn list_lead(left: Duration) -> Duration {
    LIST_LEAD.min(left / 4)
}

/// How long each part of a stop may take. `drain.max + reserve < grace`, so
/// that the child always has some time between its stop signal and SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StopPlan {
    /// From the platform's stop signal to its SIGKILL.
    pub(crate) grace: Duration,
    /// From "not ready" to the child's stop signal.
    pub(crate) drain: DrainPlan,
    /// castoff's own SIGKILL comes this long before the end of `grace`.
    pub(crate) reserve: Duration,
}

/// How long a drain lasts: from `delay` to `max`, and within these until the
/// traffic has been quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DrainPlan {
    /// Never shorter than this.
    pub(crate) delay: Duration,
    /// Never longer than this; not below `delay`. The same: a fixed drain.
    pub(crate) max: Duration,
    /// Traffic counts as over after this long without activity.
    pub(crate) quiet: Duration,
}

/// Why a plan is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadPlan {
    /// The drain and the reserve together use up the grace period.
    DoesNotFit,
    /// The drain's `max` is below its `delay`.
    MaxBelowDelay,
}

impl StopPlan {
    /// The plan, unless it would leave the child no time at all.
    pub(crate) fn new(
        grace: Duration,
        drain: DrainPlan,
        reserve: Duration,
    ) -> Result<Self, BadPlan> {
        if drain.max < drain.delay {
            return Err(BadPlan::MaxBelowDelay);
        }
        if drain.max.saturating_add(reserve) >= grace {
            return Err(BadPlan::DoesNotFit);
        }
        Ok(Self { grace, drain, reserve })
    }

    /// The reserve for a grace period when none is set: a tenth of it, at most
    /// 2 s, in whole microseconds because nothing finer can be configured.
    pub(crate) fn default_reserve(grace: Duration) -> Duration {
        let tenth = grace / 10;
        let tenth =
            tenth.saturating_sub(Duration::from_nanos(u64::from(tenth.subsec_nanos() % 1000)));
        tenth.min(Duration::from_secs(2))
    }

    /// What castoff allows itself for the whole stop before it kills.
    pub(crate) fn budget(&self) -> Duration {
        self.grace.saturating_sub(self.reserve)
    }

    /// When castoff kills what is left, for a stop requested at that time.
    pub(crate) fn deadline(&self, stop_requested_at: Instant) -> Instant {
        stop_requested_at + self.budget()
    }

    /// How long a pre-stop hook may take. The child keeps as much time as the
    /// reserve has, but at least a tenth and at most half of it all.
    pub(crate) fn pre_stop_time(&self, hook_timeout: Duration) -> Duration {
        let budget = self.budget();
        let longest = budget - self.reserve.clamp(budget / 10, budget / 2);
        longest.min(hook_timeout)
    }

    /// When castoff gives up what a kill at `killed_at` has not ended. Three
    /// quarters of the reserve are for the killed to vanish, the rest is for
    /// castoff to end before the platform's own SIGKILL.
    pub(crate) fn give_up_at(
        &self,
        killed_at: Instant,
        stop_requested_at: Option<Instant>,
    ) -> Instant {
        let vanished_at = killed_at + self.reserve * 3 / 4;
        let latest = stop_requested_at.map(|at| self.last_moment(at));
        let give_up_at = latest.map_or(vanished_at, |latest| latest.min(vanished_at));
        give_up_at.max(killed_at + STRIKE_INTERVAL)
    }

    /// When the killed have had their time to vanish, and what runs after them
    /// must be over.
    pub(crate) fn last_call(&self, stop_requested_at: Instant) -> Instant {
        stop_requested_at + self.grace.saturating_sub(self.reserve / 4)
    }

    /// When castoff must end, for the platform's own SIGKILL is near.
    pub(crate) fn last_moment(&self, stop_requested_at: Instant) -> Instant {
        stop_requested_at + self.grace.saturating_sub(self.reserve / 8)
    }
}

impl DrainPlan {
    /// A drain that always lasts this long.
    pub(crate) fn fixed(delay: Duration) -> Self {
        Self { delay, max: delay, quiet: Duration::from_secs(1) }
    }

    /// Whether the traffic may end it.
    pub(crate) fn is_adaptive(&self) -> bool {
        self.max > self.delay
    }
}

/// When readiness turns off once a stop was requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadinessOnStop {
    /// At the stop request.
    Immediate,
    /// When the child gets its stop signal.
    AfterDrain,
    /// Only when the child has gone.
    Never,
}

/// Who gets the child's stop signal first (CASTOFF_STOP_SCOPE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopScope {
    /// The child alone.
    Child,
    /// Its process group.
    Group,
}

/// What the child gets when castoff was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopSignal {
    /// The signal that castoff received.
    Received,
    /// Always this one.
    Fixed(Signal),
}

impl StopSignal {
    /// The child's stop signal when castoff received that one; `None`: it was
    /// dropped.
    pub(crate) fn for_child(self, received: Signal, rewrite: &Rewrite) -> Option<Signal> {
        match self {
            Self::Received => rewrite.apply(received),
            Self::Fixed(signal) => Some(signal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_child_always_has_some_time() {
        let plan = |grace, drain, reserve| StopPlan::new(grace, DrainPlan::fixed(drain), reserve);
        assert!(plan(s(10), s(7), s(2)).is_ok());
        assert_eq!(plan(s(10), s(8), s(2)), Err(BadPlan::DoesNotFit));
        assert_eq!(plan(s(10), s(0), s(11)), Err(BadPlan::DoesNotFit));
        assert_eq!(plan(s(0), s(0), s(0)), Err(BadPlan::DoesNotFit));
        assert_eq!(plan(s(10), Duration::MAX, Duration::MAX), Err(BadPlan::DoesNotFit));
    }

    #[test]
    fn the_longest_drain_counts_not_the_shortest() {
        let drain = DrainPlan { delay: s(2), max: s(8), quiet: s(1) };
        assert!(drain.is_adaptive());
        assert!(StopPlan::new(s(11), drain, s(2)).is_ok());
        assert_eq!(StopPlan::new(s(10), drain, s(2)), Err(BadPlan::DoesNotFit));
        let upside_down = DrainPlan { delay: s(3), max: s(2), quiet: s(1) };
        assert_eq!(StopPlan::new(s(30), upside_down, s(2)), Err(BadPlan::MaxBelowDelay));
    }

    #[test]
    fn the_instants_follow_from_the_stop_request() {
        let plan = StopPlan::new(s(30), DrainPlan::fixed(s(5)), s(2)).unwrap();
        let now = Instant::now();
        assert_eq!(plan.budget(), s(28));
        assert_eq!(plan.deadline(now), now + s(28));
    }

    #[test]
    fn the_default_reserve_is_a_tenth_and_at_most_two_seconds() {
        for (grace, reserve) in [
            (s(30), s(2)),
            (s(20), s(2)),
            (s(10), s(1)),
            (Duration::from_millis(500), Duration::from_millis(50)),
            (Duration::from_micros(15), Duration::from_micros(1)),
            (s(0), s(0)),
        ] {
            assert_eq!(StopPlan::default_reserve(grace), reserve, "{grace:?}");
        }
    }
}

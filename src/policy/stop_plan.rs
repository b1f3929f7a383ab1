//! placeholder until the configuration branch is merged
use super::signal::Signal;
use std::time::{Duration, Instant};
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StopPlan {
    pub(crate) grace: Duration,
    pub(crate) drain_delay: Duration,
    pub(crate) reserve: Duration,
}
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DoesNotFit;
impl StopPlan {
    pub(crate) fn new(
        grace: Duration,
        drain_delay: Duration,
        reserve: Duration,
    ) -> Result<Self, DoesNotFit> {
        Ok(Self { grace, drain_delay, reserve })
    }
    pub(crate) fn deadline(&self, at: Instant) -> Instant {
        at + self.budget()
    }
    pub(crate) fn drain_until(&self, at: Instant) -> Instant {
        at + self.drain_delay
    }
    pub(crate) fn grace_end(&self, at: Instant) -> Instant {
        at + self.grace
    }
    pub(crate) fn budget(&self) -> Duration {
        self.grace.saturating_sub(self.reserve)
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadinessOnStop {
    Immediate,
    AfterDrain,
    Never,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopSignal {
    Received,
    Fixed(Signal),
}

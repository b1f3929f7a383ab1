//! The checks: what each one asks, when it is due, and what its results mean.
//!
//! It runs none and reads no clock: `supervisor` performs what is due and tells
//! how it ended. Thresholds, periods and what readiness is made of are decided
//! here.

mod report;
mod schedule;
mod target;

use std::time::Duration;

pub(crate) use report::{BOUNDS, CheckReport, Durations};
pub(crate) use schedule::{Change, Checks};
pub(crate) use target::{Host, HttpTarget, Place, Target};

/// What a check decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Liveness: it passes until it has failed often enough.
    Live,
    /// Readiness of the child: it fails until it has passed often enough.
    Ready,
    /// Checks of the levels above do not begin before it has passed.
    Startup,
    /// Readiness, but not whether the child has started: it is about others.
    Dependency,
    /// The child is not started before it has passed.
    Wait,
}

impl Level {
    /// The contract's name: a dependency gates readiness.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Ready | Self::Dependency => "ready",
            Self::Startup => "startup",
            Self::Wait => "wait",
        }
    }
}

/// One check as it was configured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CheckRules {
    /// `[a-z0-9-]+`, once among all checks.
    pub(crate) name: String,
    pub(crate) level: Level,
    pub(crate) target: Target,
    /// From the start of one run to the start of the next; above 0.
    pub(crate) period: Duration,
    /// How long one run may take; above 0.
    pub(crate) timeout: Duration,
    /// Failures in a row that turn it off; at least 1.
    pub(crate) failures: u32,
    /// Successes in a row that turn it on; at least 1.
    pub(crate) successes: u32,
}

//! Whether a child that has ended is started again, and when.
//!
//! Owns the back-off. It never reads a clock and rolls no dice: run times and
//! a seed come in.

use std::time::Duration;

/// After which end of the child it is started again (CASTOFF_RESTART).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restart {
    Never,
    /// When its exit code, after CASTOFF_EXIT_MAP, is not 0.
    OnFailure,
    Always,
}

/// The settings of the back-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RestartRules {
    pub(crate) restart: Restart,
    /// The first delay; each one in a row doubles it. Not above `max`.
    pub(crate) min: Duration,
    /// No delay is longer.
    pub(crate) max: Duration,
    /// Restarts in a row after which castoff gives up; 0: never.
    pub(crate) limit: u32,
}

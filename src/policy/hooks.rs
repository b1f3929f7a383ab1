//! The commands that run around the child: which there are, and how they end.
//!
//! Owns the words only; when each runs and what follows from its end is
//! decided in `lifecycle`.

use std::time::{Duration, Instant};

use super::exit::{CASTOFF_FAILED, ExitReason};

/// A command of the user's, by the moment at which it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Once, before the child is started for the first time.
    PreStart,
    /// At the stop request, while the drain lasts; the child is not told before
    /// it has ended.
    PreStop,
    /// Once, when the child and its descendants have gone.
    PostStop,
}

impl Hook {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::PreStart => "pre_start",
            Self::PreStop => "pre_stop",
            Self::PostStop => "post_stop",
        }
    }
}

/// Which hooks there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HookRules {
    pub(crate) has_pre_start: bool,
    pub(crate) has_pre_stop: bool,
    pub(crate) has_post_stop: bool,
    /// How long each may take; a stop may leave it less.
    pub(crate) timeout: Duration,
}

/// How a hook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookEnd {
    Exited(ExitReason),
    /// It could not be started; the code is what a shell would give.
    NotStarted(u8),
}

/// A hook under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunningHook {
    pub(super) until: Instant,
    /// It was sent SIGKILL because its time was up.
    pub(super) has_timed_out: bool,
}

impl RunningHook {
    pub(super) fn new(until: Instant) -> Self {
        Self { until, has_timed_out: false }
    }

    /// The same, with no more time than to that moment.
    pub(super) fn until_at_most(self, latest: Instant) -> Self {
        Self { until: self.until.min(latest), ..self }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        !self.has_timed_out && now >= self.until
    }

    /// What castoff exits with because of it; `None`: it has succeeded.
    pub(super) fn failure(self, end: HookEnd) -> Option<u8> {
        match end {
            // Its own code would only say by which signal castoff ended it.
            _ if self.has_timed_out => Some(CASTOFF_FAILED),
            HookEnd::Exited(ExitReason::Code(0)) => None,
            HookEnd::Exited(reason) => Some(reason.code()),
            HookEnd::NotStarted(code) => Some(code),
        }
    }
}

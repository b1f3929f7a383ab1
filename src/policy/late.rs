//! Connections that arrive although the child was told to stop.
//!
//! Owns their count and when to look for them. A platform that still sends
//! them has not noticed in time: the drain was too short.

use std::time::{Duration, Instant};

use super::traffic::Look;

/// The shortest pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// A look takes at most this share of the time: one to so many.
const SHARE: u32 = 4;

/// The count since the child was told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Late {
    told_at: Instant,
    look_due_at: Instant,
    /// What had come before the child was told has been seen.
    has_begun: bool,
    arrivals: Arrivals,
}

/// What has come too late, for the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrivals {
    pub(crate) count: u64,
    /// How long after the child was told the last one was seen.
    pub(crate) last_after: Duration,
}

impl Late {
    pub(super) fn new(told_at: Instant) -> Self {
        Self { told_at, look_due_at: told_at, has_begun: false, arrivals: Arrivals::default() }
    }

    pub(super) fn due_at(&self) -> Instant {
        self.look_due_at
    }

    /// Takes what a look has shown that was begun at `begun_at`.
    pub(super) fn saw(&mut self, look: Option<Look>, begun_at: Instant, now: Instant) {
        let cost = now.saturating_duration_since(begun_at);
        let since_told = now.saturating_duration_since(self.told_at);
        // Who takes an hour to stop is not looked at ten times a second.
        self.look_due_at = now + PAUSE.max(cost * SHARE).max(since_told / 10);
        let arrived = look.map_or(0, |look| look.arrived);
        if std::mem::replace(&mut self.has_begun, true) && arrived > 0 {
            self.arrivals.count += arrived;
            self.arrivals.last_after = since_told;
        }
    }

    pub(super) fn arrivals(&self) -> Arrivals {
        self.arrivals
    }
}

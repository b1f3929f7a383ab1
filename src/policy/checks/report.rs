//! A check as the endpoints show it: its name, its verdict, how long its runs
//! take. The reason of a failure is not among it; that goes to the log only.

use std::time::{Duration, Instant};

use super::Level;

/// What is told of one check.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CheckReport {
    pub(crate) name: String,
    pub(crate) level: Level,
    pub(crate) is_up: bool,
    /// When the verdict changed last; `None`: not since castoff was started.
    pub(crate) changed_at: Option<Instant>,
    /// `None` for what is not run: what the child tells by itself.
    pub(crate) durations: Option<Durations>,
}

/// The upper bounds of the histogram, in seconds: from a loopback's answer to
/// five times the usual timeout.
pub(crate) const BOUNDS: [f64; 8] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// How long the runs of a check took, whatever their result.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Durations {
    /// Runs within each bound and above the one before; the last have no bound.
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl Durations {
    pub(crate) fn add(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let nth = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        if let Some(count) = self.counts.get_mut(nth) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(duration);
    }

    /// Runs within each bound, those within smaller ones included; the last is
    /// all of them.
    pub(crate) fn cumulative(&self) -> [u64; BOUNDS.len() + 1] {
        let mut sum = 0;
        self.counts.map(|count| {
            sum += count;
            sum
        })
    }

    pub(crate) fn sum(&self) -> Duration {
        self.sum
    }
}

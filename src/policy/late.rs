//! Connections that arrive although the child was told to stop.
//!
//! Owns their count and when to look for them. A platform that still sends
//! them has not noticed in time: the drain was too short.

use std::time::{Duration, Instant};

use super::traffic::{Look, REST};

/// The shortest pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// The count since the child was told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Late {
    told_at: Instant,
    until: Instant,
    /// `None`: the kill is too near, and must not wait for a look.
    look_due_at: Option<Instant>,
    /// Whoever had come before the child was told has been seen.
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
    /// `until` is when the child is killed; `has_looked`: right before it is told.
    pub(super) fn new(told_at: Instant, until: Instant, has_looked: bool) -> Self {
        let arrivals = Arrivals::default();
        Self { told_at, until, look_due_at: Some(told_at), has_begun: has_looked, arrivals }
    }

    pub(super) fn due_at(&self) -> Option<Instant> {
        self.look_due_at
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.look_due_at.is_some_and(|at| now >= at)
    }

    /// Takes what a look has shown that was begun at `begun_at`.
    pub(super) fn saw(&mut self, look: Option<Look>, begun_at: Instant, now: Instant) {
        let cost = now.saturating_duration_since(begun_at);
        let since_told = now.saturating_duration_since(self.told_at);
        // Who takes an hour to stop is not looked at ten times a second.
        let due_at = now + PAUSE.max(cost * REST).max(since_told / 10);
        self.look_due_at = Some(due_at).filter(|at| *at + cost * REST < self.until);
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

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// What is counted when each look, 100 ms after the one before, shows that
    /// many.
    fn counted(has_looked: bool, looks: &[Option<u64>]) -> Arrivals {
        let told_at = Instant::now();
        let mut late = Late::new(told_at, told_at + ms(60_000), has_looked);
        let mut now = told_at;
        for arrived in looks {
            let look = arrived.map(|arrived| Look {
                connections: 0,
                is_busy: false,
                last_activity: None,
                arrived,
            });
            late.saw(look, now, now);
            now += ms(100);
        }
        late.arrivals()
    }

    #[test]
    fn whoever_came_after_the_child_was_told_is_counted_once() {
        let last_after = ms(300);
        let looks = [Some(1), Some(0), Some(2), Some(4), Some(0)];
        assert_eq!(counted(true, &looks), Arrivals { count: 7, last_after });
        // Without a look right before it the first one shows who came in time.
        assert_eq!(counted(false, &looks), Arrivals { count: 6, last_after });
        assert_eq!(counted(true, &[None, Some(0), None]), Arrivals::default());
    }

    #[test]
    fn looks_grow_rare_and_end_before_the_kill() {
        let told_at = Instant::now();
        let until = told_at + ms(3_600_000);
        let mut late = Late::new(told_at, until, true);
        let (mut looks, mut last_at) = (0, told_at);
        while let Some(at) = late.due_at() {
            // Each takes 20 ms.
            late.saw(None, at, at + ms(20));
            (looks, last_at) = (looks + 1, at);
        }
        assert!((50..200).contains(&looks), "{looks}");
        assert!(last_at + ms(80) < until);
    }
}

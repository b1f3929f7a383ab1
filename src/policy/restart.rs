//! Whether a child that has ended is started again, and when.
//!
//! Owns the back-off. It never reads a clock and rolls no dice: run times and
//! a seed come in.

use std::time::Duration;

use super::dice::Dice;

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
    /// No delay is longer. A child that has run for this long has recovered:
    /// the row begins anew.
    pub(crate) max: Duration,
    /// Restarts in a row after which castoff gives up; 0: never.
    pub(crate) limit: u32,
}

/// One restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// How long to wait before it.
    pub(crate) delay: Duration,
    /// Which one of the row it is, from 1.
    pub(crate) in_a_row: u32,
    /// The last one of a row, if there is a limit.
    pub(crate) limit: Option<u32>,
}

/// The state of the back-off.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    rules: RestartRules,
    in_a_row: u32,
    dice: Dice,
}

impl Backoff {
    /// `seed` should differ between the replicas of one program, so that those
    /// that failed together do not come back together.
    pub(crate) fn new(rules: RestartRules, seed: u64) -> Self {
        Self { rules, in_a_row: 0, dice: Dice::new(seed) }
    }

    /// What follows from the end of a child that exited with `code` after
    /// `uptime`; `None`: it is not started again.
    pub(crate) fn after(&mut self, code: u8, uptime: Duration) -> Option<Attempt> {
        let RestartRules { restart, min, max, limit } = self.rules;
        let is_wanted = match restart {
            Restart::Never => false,
            Restart::OnFailure => code != 0,
            Restart::Always => true,
        };
        if uptime >= max {
            self.in_a_row = 0;
        }
        if !is_wanted || (limit > 0 && self.in_a_row >= limit) {
            return None;
        }
        let base = min.saturating_mul(2_u32.saturating_pow(self.in_a_row)).min(max);
        self.in_a_row = self.in_a_row.saturating_add(1);
        // A quarter more or less, but never outside of what was asked for.
        let (shortest, longest) = ((base * 3 / 4).max(min), (base * 5 / 4).min(max));
        let delay = shortest + longest.saturating_sub(shortest).mul_f64(self.dice.roll());
        let limit = Some(limit).filter(|limit| *limit > 0);
        Some(Attempt { delay, in_a_row: self.in_a_row, limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(500);
    const MAX: Duration = Duration::from_secs(30);

    fn backoff(restart: Restart, limit: u32, seed: u64) -> Backoff {
        Backoff::new(RestartRules { restart, min: MIN, max: MAX, limit }, seed)
    }

    #[test]
    fn the_restart_depends_on_how_the_child_ended() {
        for (restart, after_success, after_failure) in [
            (Restart::Never, false, false),
            (Restart::OnFailure, false, true),
            (Restart::Always, true, true),
        ] {
            let mut backoff = backoff(restart, 0, 1);
            assert_eq!(backoff.after(0, MIN).is_some(), after_success, "{restart:?}");
            assert_eq!(backoff.after(1, MIN).is_some(), after_failure, "{restart:?}");
        }
    }

    #[test]
    fn delays_double_from_min_to_max_and_stay_between_them() {
        for seed in 0..1000 {
            let mut backoff = backoff(Restart::Always, 0, seed);
            let mut base = MIN;
            for nth in 1..=40 {
                let attempt = backoff.after(1, Duration::ZERO).expect("no limit");
                assert_eq!(attempt.in_a_row, nth);
                assert!((MIN..=MAX).contains(&attempt.delay), "{attempt:?}");
                assert!(attempt.delay >= base * 3 / 4 && attempt.delay <= base * 5 / 4);
                base = (base * 2).min(MAX);
            }
        }
    }

    #[test]
    fn replicas_do_not_come_back_together() {
        let first_delay = |seed| backoff(Restart::Always, 0, seed).after(1, MIN).map(|a| a.delay);
        let delays: std::collections::HashSet<_> = (0..100).map(first_delay).collect();
        assert!(delays.len() > 90, "{}", delays.len());
    }

    #[test]
    fn a_child_that_has_run_for_long_begins_a_new_row() {
        let mut backoff = backoff(Restart::Always, 0, 7);
        for _ in 0..10 {
            let _ = backoff.after(1, Duration::ZERO);
        }
        assert_eq!(backoff.after(1, MAX).map(|attempt| attempt.in_a_row), Some(1));
    }

    #[test]
    fn the_limit_counts_restarts_in_a_row() {
        let mut backoff = backoff(Restart::OnFailure, 2, 7);
        assert!(backoff.after(1, MIN).is_some());
        assert!(backoff.after(1, MIN).is_some());
        assert_eq!(backoff.after(1, MIN), None);
        assert!(backoff.after(1, MAX).is_some(), "it had recovered");
    }
}

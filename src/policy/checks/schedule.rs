//! When each check runs, and what its results make of it.
//!
//! Owns the order of the levels, the thresholds and the jitter. It runs nothing:
//! `due` says what is to be run, `finished` is told how that went, and `told`
//! takes what the child says by itself.

use std::time::{Duration, Instant};

use super::{CheckReport, CheckRules, Durations, Level, Target};
use crate::policy::dice::Dice;

/// A check that has never passed is repeated after this, then twice as long,
/// up to its period: a program that is ready should not wait to be noticed.
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// While nothing else happens, what the start waits for is asked this often.
const WAIT_RETRY: Duration = Duration::from_secs(1);

/// Between the end of a run and the next one, whatever the period: a check that
/// follows itself at once would leave the loop no rest.
const PAUSE: Duration = Duration::from_millis(10);

/// How much a period varies in either direction, so that checks which began
/// together do not stay together.
const JITTER: f64 = 0.1;

/// How many different reasons are told of a check that stays bad: whoever reads
/// the log wants to know that it is another one now, but not each that has a
/// number in it.
const REASONS_MAX: u32 = 8;

/// Which levels run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// None: there is no child, or it is to stop. The verdicts stay.
    Resting,
    /// What the start waits for.
    Waiting,
    /// The child runs, and start-up has not passed.
    Starting,
    /// Everything that is about a child that has started.
    Running,
}

/// All checks, over castoff's life.
#[derive(Debug)]
pub(crate) struct Checks {
    checks: Vec<Check>,
    stage: Stage,
    dice: Dice,
}

#[derive(Debug)]
struct Check {
    rules: CheckRules,
    is_up: bool,
    changed_at: Option<Instant>,
    /// Results in a row that are unlike the verdict.
    contrary: u32,
    /// It has passed since the stage began.
    has_passed: bool,
    /// Runs since the stage began, none of which has passed.
    retries: u32,
    next_at: Option<Instant>,
    begun_at: Option<Instant>,
    durations: Durations,
    /// Of the last run that failed, while it is not up.
    reason: Option<String>,
    /// How often that was told since the verdict.
    reasons: u32,
}

/// A verdict that has become another, or another reason of one that is not good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) check: String,
    pub(crate) level: Level,
    /// See `Target::label`.
    pub(crate) target: String,
    pub(crate) is_up: bool,
    /// The verdict was another one before.
    pub(crate) is_new: bool,
    /// Why; it may be known of a good verdict too.
    pub(crate) reason: Option<String>,
}

impl Checks {
    /// `seed` should differ between replicas, which share what they check.
    pub(crate) fn new(rules: Vec<CheckRules>, seed: u64) -> Self {
        let checks = rules.into_iter().map(Check::new).collect();
        Self { checks, stage: Stage::Resting, dice: Dice::new(seed) }
    }

    /// Begins with what the start waits for.
    pub(crate) fn wait(&mut self, now: Instant) {
        self.enter(Stage::Waiting, now);
    }

    /// A new child runs: what was known of another one is forgotten.
    pub(crate) fn child_started(&mut self, now: Instant) {
        for check in self.checks.iter_mut().filter(|check| check.rules.level != Level::Wait) {
            check.reset(now);
        }
        self.enter(Stage::Starting, now);
        self.settle(now);
    }

    /// No more runs; those under way do not count. The verdicts stay.
    pub(crate) fn rest(&mut self) {
        self.stage = Stage::Resting;
        for check in &mut self.checks {
            check.next_at = None;
            check.begun_at = None;
        }
    }

    /// The child has ended, and may be started again: what was known of it is no
    /// reason to take castoff for dead meanwhile.
    pub(crate) fn child_ended(&mut self, now: Instant) {
        self.rest();
        for check in self.checks.iter_mut().filter(|check| check.rules.level == Level::Live) {
            check.reset(now);
        }
    }

    /// When `due` will have something; `None`: when something has finished.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.checks.iter().filter_map(|check| check.next_at).min()
    }

    /// The checks to be run now, each by its number, at most so many, first those
    /// that have been due for longest; they count as under way.
    pub(crate) fn due(&mut self, now: Instant, most: usize) -> Vec<usize> {
        let at = |(nth, check): (usize, &Check)| Some((check.next_at?, nth));
        let mut due: Vec<_> = self.checks.iter().enumerate().filter_map(at).collect();
        due.retain(|(at, _)| now >= *at);
        due.sort_unstable();
        due.truncate(most);
        let due: Vec<_> = due.into_iter().map(|(_, nth)| nth).collect();
        for nth in &due {
            if let Some(check) = self.checks.get_mut(*nth) {
                check.next_at = None;
                check.begun_at = Some(now);
            }
        }
        due
    }

    pub(crate) fn rules(&self, nth: usize) -> Option<&CheckRules> {
        self.checks.get(nth).map(|check| &check.rules)
    }

    /// Every check as it was configured, by its number.
    pub(crate) fn all(&self) -> impl Iterator<Item = (usize, &CheckRules)> {
        self.checks.iter().map(|check| &check.rules).enumerate()
    }

    /// A run has ended, with its reason when it has failed. One that nobody
    /// waits for any more changes nothing.
    pub(crate) fn finished(
        &mut self,
        nth: usize,
        result: Result<(), String>,
        now: Instant,
    ) -> Option<Change> {
        let roll = self.dice.roll();
        let check = self.checks.get_mut(nth)?;
        let begun_at = check.begun_at.take()?;
        check.durations.add(now.saturating_duration_since(begun_at));
        let change = check.count(result, now);
        check.next_at = Some(check.again_at(begun_at, now, roll));
        self.settle(now);
        change
    }

    /// What the child, or its silence, says of one of its checks; thresholds are
    /// for what is asked.
    pub(crate) fn told(
        &mut self,
        nth: usize,
        is_up: bool,
        reason: Option<String>,
        now: Instant,
    ) -> Option<Change> {
        if self.stage == Stage::Resting {
            return None;
        }
        let check = self.checks.get_mut(nth)?;
        check.has_passed |= is_up;
        let change = if check.is_up == is_up {
            check.confirm(reason)
        } else {
            Some(check.judge(is_up, reason, now))
        };
        self.settle(now);
        change
    }

    /// Everything that the start waits for has passed.
    pub(crate) fn may_start(&self) -> bool {
        self.at(&[Level::Wait]).all(|check| check.is_up)
    }

    /// The child has started and its own checks pass; its dependencies may not.
    pub(crate) fn is_child_ready(&self) -> bool {
        self.stage == Stage::Running && self.at(&[Level::Ready]).all(|check| check.is_up)
    }

    /// Whether the child has passed what must come before its other checks.
    pub(crate) fn has_started(&self) -> bool {
        self.stage == Stage::Running
    }

    /// What the start still waits for, with the last reason of each.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (&CheckRules, Option<&str>)> {
        let pending = self.at(&[Level::Wait]).filter(|check| !check.is_up);
        pending.map(|check| (&check.rules, check.reason.as_deref()))
    }

    pub(crate) fn reports(&self) -> Vec<CheckReport> {
        let report = |check: &Check| CheckReport {
            name: check.rules.name.clone(),
            level: check.rules.level,
            is_up: check.is_up,
            changed_at: check.changed_at,
            durations: is_asked(&check.rules.target).then_some(check.durations),
        };
        self.checks.iter().map(report).collect()
    }

    fn at(&self, levels: &'static [Level]) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| levels.contains(&check.rules.level))
    }

    fn enter(&mut self, stage: Stage, now: Instant) {
        self.stage = stage;
        for check in &mut self.checks {
            check.begun_at = None;
            check.has_passed = false;
            check.retries = 0;
            check.next_at = check.runs_in(stage).then_some(now);
        }
    }

    /// What has passed once and for all is not asked again, and lets others begin.
    fn settle(&mut self, now: Instant) {
        for check in &mut self.checks {
            check.next_at = check.next_at.filter(|_| check.runs_in(self.stage));
        }
        let is_first = |check: &&Check| {
            check.rules.level == Level::Startup
                || (check.rules.level == Level::Ready && is_announced(&check.rules.target))
        };
        if self.stage == Stage::Starting && self.checks.iter().filter(is_first).all(|c| c.is_up) {
            self.enter(Stage::Running, now);
        }
    }
}

impl Check {
    fn new(rules: CheckRules) -> Self {
        Self {
            is_up: is_good_at_first(rules.level),
            changed_at: None,
            contrary: 0,
            has_passed: false,
            retries: 0,
            next_at: None,
            begun_at: None,
            durations: Durations::default(),
            reason: None,
            reasons: 0,
            rules,
        }
    }

    fn reset(&mut self, now: Instant) {
        self.reason = None;
        self.reasons = 0;
        self.contrary = 0;
        let is_up = is_good_at_first(self.rules.level);
        if self.is_up != is_up {
            self.is_up = is_up;
            self.changed_at = Some(now);
        }
    }

    fn runs_in(&self, stage: Stage) -> bool {
        let is_its_turn = match self.rules.level {
            Level::Wait => stage == Stage::Waiting && !self.is_up,
            Level::Startup => stage == Stage::Starting && !self.is_up,
            Level::Live | Level::Ready | Level::Dependency => stage == Stage::Running,
        };
        is_its_turn && is_asked(&self.rules.target)
    }

    fn count(&mut self, result: Result<(), String>, now: Instant) -> Option<Change> {
        let (is_good, reason) = (result.is_ok(), result.err());
        if is_good {
            self.has_passed = true;
        } else if !self.has_passed {
            self.retries = self.retries.saturating_add(1);
        }
        if is_good == self.is_up {
            return self.confirm(reason);
        }
        self.contrary += 1;
        let threshold = if is_good { self.rules.successes } else { self.rules.failures };
        if self.contrary < threshold {
            return None;
        }
        Some(self.judge(is_good, reason, now))
    }

    /// The verdict stays, perhaps for another reason.
    fn confirm(&mut self, reason: Option<String>) -> Option<Change> {
        self.contrary = 0;
        if self.is_up || reason == self.reason {
            return None;
        }
        self.reason = reason;
        self.reasons = self.reasons.saturating_add(1);
        (self.reasons <= REASONS_MAX).then(|| self.change(false))
    }

    fn judge(&mut self, is_up: bool, reason: Option<String>, now: Instant) -> Change {
        self.contrary = 0;
        self.reasons = 1;
        self.reason = reason;
        self.is_up = is_up;
        self.changed_at = Some(now);
        self.change(true)
    }

    fn change(&self, is_new: bool) -> Change {
        Change {
            check: self.rules.name.clone(),
            level: self.rules.level,
            target: self.rules.target.label(),
            is_up: self.is_up,
            is_new,
            reason: self.reason.clone(),
        }
    }

    /// From start to start, but never while a run is under way, nor right after it.
    fn again_at(&self, begun_at: Instant, now: Instant, roll: f64) -> Instant {
        let period = self.rules.period;
        let varied = |time: Duration| time.mul_f64(1.0 - JITTER + 2.0 * JITTER * roll);
        if self.has_passed || self.rules.level == Level::Live {
            return (begun_at + varied(period)).max(now + PAUSE);
        }
        let doubled = 2_u32.saturating_pow(self.retries.saturating_sub(1));
        let longest = if self.rules.level == Level::Wait { period.min(WAIT_RETRY) } else { period };
        now + varied(FIRST_RETRY.saturating_mul(doubled).min(longest)).max(PAUSE)
    }
}

/// A child is taken for alive, and not for ready, until a check says otherwise.
fn is_good_at_first(level: Level) -> bool {
    level == Level::Live
}

/// Whether the child tells it by itself.
fn is_announced(target: &Target) -> bool {
    matches!(target, Target::Notify | Target::Descriptor(_))
}

/// Whether it is castoff that asks.
fn is_asked(target: &Target) -> bool {
    !is_announced(target) && !matches!(target, Target::Watchdog(_))
}

#[cfg(test)]
mod tests;

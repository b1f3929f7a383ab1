//! The watchdog: when the child's next ping is due, and whether it was missed.
//!
//! Owns the deadline and the words about a miss. It never kills: a missed ping
//! fails liveness, and a later one repairs it. Times come in.

use std::fmt;
use std::time::{Duration, Instant};

/// No message may ask for less: each ping would be a miss and a recovery, and
/// two lines of the log.
const SHORTEST: Duration = Duration::from_millis(100);

/// The pings of one child after the other.
#[derive(Clone, Debug)]
pub(crate) struct Watchdog {
    /// As it was set up.
    configured: Duration,
    /// As the child wants it; zero: never.
    interval: Duration,
    pinged_at: Option<Instant>,
    /// `None`: nothing is due.
    deadline: Option<Instant>,
    /// What was missed, until the next ping.
    missed: Option<MissedAt>,
    has_stopped: bool,
}

#[derive(Clone, Copy, Debug)]
struct MissedAt {
    at: Instant,
    was_triggered: bool,
}

/// Why liveness has failed; `Display` is the reason for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// `silence` since the last ping, or the beginning.
    Silent { silence: Duration, interval: Duration },
    /// The child has said so itself.
    Triggered,
}

/// Why it passes again; `Display` is the reason for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recovered {
    /// After the deadline by so much.
    Late(Duration),
    /// After it had said itself that it failed.
    AfterTrigger(Duration),
}

impl Watchdog {
    /// Nothing is due before `begin`. `interval` must be above 0.
    pub(crate) fn new(interval: Duration) -> Self {
        Self {
            configured: interval,
            interval,
            pinged_at: None,
            deadline: None,
            missed: None,
            has_stopped: false,
        }
    }

    /// There is a new child, which has to ping from `now` on; what the one before
    /// has done or asked for is forgotten.
    pub(crate) fn begin(&mut self, now: Instant) {
        *self = Self { pinged_at: Some(now), ..Self::new(self.configured) };
        self.deadline = self.after(now);
    }

    /// WATCHDOG=1. A ping that was sent in time is never late, however long the
    /// loop took to read it: no miss was noticed before.
    pub(crate) fn ping(&mut self, now: Instant) -> Option<Recovered> {
        if !self.is_on() {
            return None;
        }
        self.pinged_at = Some(now);
        self.deadline = self.after(now);
        self.missed.take().map(|missed| {
            let late = now.saturating_duration_since(missed.at);
            if missed.was_triggered { Recovered::AfterTrigger(late) } else { Recovered::Late(late) }
        })
    }

    /// WATCHDOG=trigger; `None`: it counts as failed already.
    pub(crate) fn trigger(&mut self, now: Instant) -> Option<Missed> {
        if !self.is_on() || self.missed.is_some() {
            return None;
        }
        self.deadline = None;
        self.missed = Some(MissedAt { at: now, was_triggered: true });
        Some(Missed::Triggered)
    }

    /// WATCHDOG_USEC: the child wants another interval from the last ping on;
    /// zero turns the watchdog off. A miss stays one until the next ping.
    pub(crate) fn set_interval(&mut self, interval: Duration) {
        if !self.is_on() {
            return;
        }
        self.interval = if interval.is_zero() { interval } else { interval.max(SHORTEST) };
        if self.missed.is_none() {
            self.deadline = self.pinged_at.and_then(|at| self.after(at));
        }
    }

    /// EXTEND_TIMEOUT_USEC: the ping that is due now may come as late as that,
    /// but need not come earlier than before. The next interval is as usual.
    pub(crate) fn extend(&mut self, time: Duration, now: Instant) {
        if self.is_on() {
            // What no clock can show is never due.
            self.deadline = self.deadline.and_then(|due| Some(due.max(now.checked_add(time)?)));
        }
    }

    /// When `due` is to be asked; `None`: there is nothing to wait for.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether the deadline has passed; each miss is told once.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Missed> {
        let deadline = self.deadline.take_if(|deadline| now >= *deadline)?;
        self.missed = Some(MissedAt { at: deadline, was_triggered: false });
        let silence = now.saturating_duration_since(self.pinged_at.unwrap_or(deadline));
        Some(Missed::Silent { silence, interval: self.interval })
    }

    /// Whether no ping is missing.
    #[cfg(test)]
    pub(crate) fn is_up(&self) -> bool {
        self.missed.is_none()
    }

    /// Nothing is due any more, and the verdict stays as it is until `begin`.
    pub(crate) fn stop(&mut self) {
        self.has_stopped = true;
        self.deadline = None;
    }

    /// Whether there is a child that has to ping.
    fn is_on(&self) -> bool {
        self.pinged_at.is_some() && !self.has_stopped
    }

    fn after(&self, at: Instant) -> Option<Instant> {
        at.checked_add(self.interval).filter(|_| !self.interval.is_zero())
    }
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent { silence, interval } => {
                write!(f, "no ping for {}, expected every {}", Secs(*silence), Secs(*interval))
            }
            Self::Triggered => f.write_str("the child has said WATCHDOG=trigger"),
        }
    }
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(late) => write!(f, "the ping came {} late", Secs(*late)),
            Self::AfterTrigger(late) => {
                write!(f, "a ping came {} after WATCHDOG=trigger", Secs(*late))
            }
        }
    }
}

/// Seconds: to the tenth from one second on, else to the millisecond.
struct Secs(Duration);

impl fmt::Display for Secs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let shown = if millis < 1000 { millis } else { millis / 100 * 100 };
        write!(f, "{}s", shown as f64 / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn secs(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// One that has begun, and when.
    fn begun() -> (Watchdog, Instant) {
        let (mut watchdog, start) = (Watchdog::new(INTERVAL), Instant::now());
        watchdog.begin(start);
        (watchdog, start)
    }

    #[test]
    fn nothing_is_due_before_it_begins() {
        let (mut watchdog, now) = (Watchdog::new(INTERVAL), Instant::now());
        assert_eq!(watchdog.ping(now), None);
        assert_eq!(watchdog.trigger(now), None);
        watchdog.set_interval(secs(1.0));
        watchdog.extend(secs(1.0), now);
        assert_eq!((watchdog.next_deadline(), watchdog.is_up()), (None, true));
        watchdog.begin(now);
        assert_eq!(watchdog.next_deadline(), Some(now + INTERVAL), "as configured");
    }

    #[test]
    fn a_missed_ping_is_told_once_and_a_late_one_repairs_it() {
        let (mut watchdog, start) = begun();
        assert_eq!(watchdog.ping(start + secs(5.0)), None);
        assert_eq!(watchdog.due(start + secs(14.999)), None);
        let missed = watchdog.due(start + secs(17.35)).unwrap();
        assert_eq!(missed.to_string(), "no ping for 12.3s, expected every 10s");
        assert_eq!((watchdog.is_up(), watchdog.next_deadline()), (false, None));
        assert_eq!(watchdog.due(start + secs(60.0)), None);
        let recovered = watchdog.ping(start + secs(17.35)).unwrap();
        assert_eq!(recovered.to_string(), "the ping came 2.3s late");
        assert!(watchdog.is_up());
        assert_eq!(watchdog.next_deadline(), Some(start + secs(27.35)));
    }

    #[test]
    fn a_ping_that_the_loop_reads_late_is_no_miss() {
        let (mut watchdog, start) = begun();
        assert_eq!(watchdog.ping(start + secs(11.0)), None);
        assert_eq!(watchdog.due(start + secs(11.0)), None);
        assert!(watchdog.is_up());
    }

    #[test]
    fn a_trigger_fails_at_once_and_a_ping_takes_it_back() {
        let (mut watchdog, start) = begun();
        let missed = watchdog.trigger(start + secs(1.0)).unwrap();
        assert_eq!(missed.to_string(), "the child has said WATCHDOG=trigger");
        assert_eq!(watchdog.trigger(start + secs(2.0)), None);
        assert_eq!((watchdog.is_up(), watchdog.due(start + secs(60.0))), (false, None));
        let recovered = watchdog.ping(start + secs(1.25)).unwrap();
        assert_eq!(recovered.to_string(), "a ping came 0.25s after WATCHDOG=trigger");
        assert!(watchdog.is_up());
    }

    #[test]
    fn the_child_may_change_the_interval_and_turn_it_off() {
        let (mut watchdog, start) = begun();
        watchdog.ping(start + secs(1.0));
        watchdog.set_interval(secs(3.0));
        assert_eq!(watchdog.next_deadline(), Some(start + secs(4.0)));
        watchdog.set_interval(Duration::from_micros(1));
        assert_eq!(watchdog.next_deadline(), Some(start + secs(1.0) + SHORTEST));
        watchdog.set_interval(Duration::ZERO);
        assert_eq!(watchdog.next_deadline(), None);
        watchdog.ping(start + secs(2.0));
        assert_eq!(watchdog.next_deadline(), None);
        watchdog.set_interval(Duration::MAX);
        assert_eq!((watchdog.next_deadline(), watchdog.is_up()), (None, true));
        watchdog.begin(start + secs(3.0));
        assert_eq!(watchdog.next_deadline(), Some(start + secs(13.0)), "for the next child");
    }

    #[test]
    fn an_extension_is_for_the_present_deadline_and_never_shortens_it() {
        let (mut watchdog, start) = begun();
        watchdog.extend(secs(1.0), start);
        assert_eq!(watchdog.next_deadline(), Some(start + INTERVAL));
        watchdog.extend(secs(30.0), start + secs(5.0));
        assert_eq!(watchdog.next_deadline(), Some(start + secs(35.0)));
        watchdog.ping(start + secs(6.0));
        assert_eq!(watchdog.next_deadline(), Some(start + secs(16.0)));
        watchdog.extend(Duration::MAX, start + secs(7.0));
        assert_eq!((watchdog.next_deadline(), watchdog.is_up()), (None, true));
    }

    #[test]
    fn a_stop_freezes_the_verdict() {
        for is_up in [true, false] {
            let (mut watchdog, start) = begun();
            if !is_up {
                watchdog.due(start + INTERVAL);
            }
            watchdog.stop();
            watchdog.ping(start + secs(11.0));
            watchdog.trigger(start + secs(12.0));
            watchdog.set_interval(secs(1.0));
            watchdog.extend(secs(1.0), start);
            assert_eq!(watchdog.due(start + secs(60.0)), None);
            assert_eq!((watchdog.next_deadline(), watchdog.is_up()), (None, is_up));
            watchdog.begin(start + secs(70.0));
            assert!(watchdog.is_up());
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Ping,
        Trigger,
        SetInterval(u64),
        Extend(u64),
        Due,
        Stop,
        Begin,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => Just(Step::Ping),
            6 => Just(Step::Due),
            2 => Just(Step::Trigger),
            2 => prop_oneof![0..30_000_000_u64, any::<u64>()].prop_map(Step::SetInterval),
            2 => prop_oneof![0..30_000_000_u64, any::<u64>()].prop_map(Step::Extend),
            1 => Just(Step::Stop),
            1 => Just(Step::Begin),
        ]
    }

    proptest! {
        #[test]
        fn a_miss_and_a_recovery_alternate_and_every_deadline_is_in_time(
            steps in prop::collection::vec((step(), 0..20_000_u64), 0..60),
        ) {
            let start = Instant::now();
            let (mut watchdog, mut now) = (Watchdog::new(INTERVAL), start);
            let mut is_frozen = true;
            for (step, pause) in steps {
                now += Duration::from_millis(pause);
                let (was_up, deadline) = (watchdog.is_up(), watchdog.next_deadline());
                let mut is_failure = false;
                let mut is_recovery = false;
                match step {
                    Step::Ping => is_recovery = watchdog.ping(now).is_some(),
                    Step::Trigger => is_failure = watchdog.trigger(now).is_some(),
                    Step::SetInterval(usec) => watchdog.set_interval(Duration::from_micros(usec)),
                    Step::Extend(usec) => {
                        watchdog.extend(Duration::from_micros(usec), now);
                        let is_later = match (deadline, watchdog.next_deadline()) {
                            (Some(before), Some(after)) => after >= before,
                            (None, Some(_)) => false,
                            (_, None) => true,
                        };
                        prop_assert!(is_later);
                    }
                    Step::Due => {
                        is_failure = watchdog.due(now).is_some();
                        prop_assert_eq!(is_failure, deadline.is_some_and(|at| now >= at));
                        prop_assert!(watchdog.next_deadline().is_none_or(|at| at > now));
                    }
                    Step::Stop => {
                        watchdog.stop();
                        is_frozen = true;
                    }
                    Step::Begin => {
                        watchdog.begin(now);
                        is_frozen = false;
                        prop_assert!(watchdog.is_up());
                        continue;
                    }
                }
                prop_assert_eq!(was_up && !watchdog.is_up(), is_failure);
                prop_assert_eq!(!was_up && watchdog.is_up(), is_recovery);
                prop_assert!(!is_frozen || watchdog.next_deadline().is_none());
                prop_assert!(watchdog.is_up() || watchdog.next_deadline().is_none());
            }
        }
    }
}

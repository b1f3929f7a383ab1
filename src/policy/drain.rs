//! The end of a drain: at least the minimum, then until the traffic has been
//! quiet for long enough, at most the maximum.
//!
//! Owns when to look at the traffic and what follows from what was seen. It
//! never looks itself: `Look`s come in with their time.

use std::time::{Duration, Instant};

use super::stop_plan::DrainPlan;
use super::traffic::{Look, REST};

/// The pause between two looks that are only there for the metrics.
const LEISURELY: Duration = Duration::from_secs(1);
/// No pause is shorter, however short the quiet time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// Why a drain was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DrainEnd {
    /// It was a fixed one.
    Delay,
    /// The traffic had been quiet for long enough.
    Quiet,
    /// The traffic had not, or could not be seen.
    Max,
    /// A second stop request.
    SecondSignal,
}

impl DrainEnd {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Delay => "delay",
            Self::Quiet => "quiet",
            Self::Max => "max",
            Self::SecondSignal => "second_signal",
        }
    }
}

/// A drain under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drain {
    plan: DrainPlan,
    begun_at: Instant,
    /// No activity is known from after this time.
    active_at: Instant,
    look_due_at: Option<Instant>,
    last_look_at: Option<Instant>,
    connections: Option<u64>,
}

impl Drain {
    pub(crate) fn new(plan: DrainPlan, now: Instant) -> Self {
        // A fixed drain wants to know only what it ends with.
        let first_look_at = if plan.is_adaptive() { now } else { now + plan.delay };
        Self {
            plan,
            begun_at: now,
            // Quiet from before the stop request does not count: the traffic has
            // not been told yet to go elsewhere.
            active_at: now,
            look_due_at: Some(first_look_at),
            last_look_at: None,
            connections: None,
        }
    }

    pub(crate) fn plan(&self) -> DrainPlan {
        self.plan
    }

    /// When something is to be done: a look, or the end.
    pub(crate) fn due_at(&self) -> Instant {
        self.look_due_at.map_or_else(|| self.max_until(), |at| at.min(self.max_until()))
    }

    /// Whether a look is due that could still matter.
    pub(crate) fn wants_look(&self, now: Instant) -> bool {
        let is_due = self.look_due_at.is_some_and(|at| now >= at);
        is_due && self.end(now) != Some(DrainEnd::Max)
    }

    /// Takes what a look has shown that was begun at `begun_at`; `None`: the
    /// traffic cannot be seen.
    pub(crate) fn saw(&mut self, look: Option<Look>, begun_at: Instant, now: Instant) {
        self.connections = look.map(|look| look.connections);
        match look {
            None | Some(Look { is_busy: true, .. }) => self.active_at = now,
            Some(Look { last_activity: Some(ago), .. }) => {
                let at = now.checked_sub(ago).unwrap_or(self.active_at);
                self.active_at = self.active_at.max(at);
            }
            Some(_) => {}
        }
        // Who came while it was taken may have been overlooked.
        self.last_look_at = Some(begun_at);
        self.look_due_at = self.plan.is_adaptive().then(|| {
            let cost = now.saturating_duration_since(begun_at);
            now + self.pause(now).max(cost * REST)
        });
    }

    /// Until the next look: short while the end may be near, so that
    /// connections which come and go in between are not missed; and never beyond
    /// the moment at which the drain could end.
    fn pause(&self, now: Instant) -> Duration {
        let pause = (self.plan.quiet / 10).clamp(SHORTEST_PAUSE, LEISURELY);
        let matters_from = self.min_until().checked_sub(self.plan.quiet).unwrap_or(now);
        let to_end = self.min_until().max(self.active_at + self.plan.quiet);
        let to_end = to_end.saturating_duration_since(now);
        if to_end.is_zero() {
            return pause;
        }
        let until_it_matters = matters_from.saturating_duration_since(now).min(LEISURELY);
        pause.max(until_it_matters).min(to_end).max(SHORTEST_PAUSE)
    }

    /// Whether it is over, and why.
    pub(crate) fn end(&self, now: Instant) -> Option<DrainEnd> {
        if !self.plan.is_adaptive() {
            return (now >= self.min_until()).then_some(DrainEnd::Delay);
        }
        if now >= self.max_until() {
            return Some(DrainEnd::Max);
        }
        let seen_at = self.last_look_at?;
        let is_quiet = seen_at >= self.active_at + self.plan.quiet;
        (seen_at >= self.min_until() && is_quiet).then_some(DrainEnd::Quiet)
    }

    /// There is none: the child is told at once, or when the hook is over.
    pub(crate) fn is_none(&self) -> bool {
        self.plan.max.is_zero()
    }

    /// Connections that were open at the last look, if they could be seen.
    pub(crate) fn connections(&self) -> Option<u64> {
        self.connections
    }

    fn min_until(&self) -> Instant {
        self.begun_at + self.plan.delay
    }

    fn max_until(&self) -> Instant {
        self.begun_at + self.plan.max
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Traffic by virtual time: at each millisecond a byte moves, or a request
    /// is under way, or nothing.
    struct World {
        drain: Drain,
        start: Instant,
        looks: Vec<Duration>,
    }

    impl World {
        fn new(delay: u64, max: u64, quiet: u64) -> Self {
            let start = Instant::now() + Duration::from_secs(3600);
            let plan = DrainPlan { delay: ms(delay), max: ms(max), quiet: ms(quiet) };
            Self { drain: Drain::new(plan, start), start, looks: vec![] }
        }

        /// Runs to the end; `see` is what a look shows at that time.
        fn run(&mut self, see: impl Fn(Duration) -> Option<Look>) -> (Duration, DrainEnd) {
            let mut now = self.start;
            for _ in 0..100_000 {
                if self.drain.wants_look(now) {
                    self.looks.push(now - self.start);
                    self.drain.saw(see(now - self.start), now, now);
                }
                if let Some(end) = self.drain.end(now) {
                    return (now - self.start, end);
                }
                assert!(self.drain.due_at() > now, "it would spin");
                now = self.drain.due_at();
            }
            panic!("it never ends");
        }
    }

    fn look(is_busy: bool, last_activity: Option<Duration>) -> Option<Look> {
        Some(Look { connections: 3, is_busy, last_activity, arrived: 0 })
    }

    /// Bytes move until that time.
    fn active_until(end: Duration) -> impl Fn(Duration) -> Option<Look> {
        move |at| look(false, Some(at.saturating_sub(end)))
    }

    #[test]
    fn a_fixed_drain_lasts_its_delay_whatever_the_traffic_does() {
        for busy in [false, true] {
            let mut world = World::new(3000, 3000, 1000);
            assert_eq!(world.run(|_| look(busy, None)), (ms(3000), DrainEnd::Delay));
            assert_eq!(world.looks, [ms(3000)], "one look, to know what it ended with");
            assert_eq!(world.drain.connections(), Some(3));
        }
        let mut none = World::new(0, 0, 1000);
        assert_eq!(none.run(|_| None), (ms(0), DrainEnd::Delay));
    }

    #[test]
    fn it_never_ends_before_the_minimum() {
        let mut world = World::new(3000, 9000, 1000);
        assert_eq!(world.run(|_| look(false, None)), (ms(3000), DrainEnd::Quiet));
    }

    #[test]
    fn quiet_before_the_stop_request_does_not_count() {
        let mut world = World::new(0, 9000, 1000);
        let idle_for_an_hour = |_| look(false, Some(Duration::from_secs(3600)));
        assert_eq!(world.run(idle_for_an_hour), (ms(1000), DrainEnd::Quiet));
    }

    #[test]
    fn it_ends_as_soon_as_the_traffic_has_been_quiet() {
        let mut world = World::new(1000, 60_000, 1000);
        assert_eq!(world.run(active_until(ms(4321))), (ms(5321), DrainEnd::Quiet));
    }

    #[test]
    fn a_request_under_way_holds_it_and_so_does_traffic_up_to_the_maximum() {
        let mut world = World::new(1000, 30_000, 1000);
        let (waited, end) = world.run(|at| look(at < ms(20_000), None));
        assert_eq!(end, DrainEnd::Quiet);
        assert!(waited >= ms(20_900) && waited <= ms(21_200), "{waited:?}");
        let mut world = World::new(1000, 8000, 1000);
        assert_eq!(world.run(|_| look(false, Some(ms(5)))), (ms(8000), DrainEnd::Max));
    }

    #[test]
    fn what_cannot_be_seen_is_waited_for() {
        let mut world = World::new(1000, 8000, 1000);
        assert_eq!(world.run(|_| None), (ms(8000), DrainEnd::Max));
        assert_eq!(world.drain.connections(), None);
    }

    #[test]
    fn a_dear_look_is_taken_rarely() {
        let start = Instant::now();
        let plan = DrainPlan { delay: ms(0), max: ms(60_000), quiet: ms(1000) };
        let mut drain = Drain::new(plan, start);
        drain.saw(look(true, None), start, start + ms(200));
        assert!(drain.due_at() >= start + ms(200) + ms(800));
    }

    #[test]
    fn what_happened_during_a_look_is_left_to_the_next() {
        let start = Instant::now();
        let plan = DrainPlan { delay: ms(0), max: ms(60_000), quiet: ms(1000) };
        let mut drain = Drain::new(plan, start);
        drain.saw(look(false, None), start + ms(990), start + ms(1010));
        assert_eq!(drain.end(start + ms(1010)), None);
        let next = drain.due_at();
        assert!(next > start + ms(1010));
        drain.saw(look(false, None), next, next + ms(20));
        assert_eq!(drain.end(next + ms(20)), Some(DrainEnd::Quiet));
    }

    proptest! {
        #[test]
        fn the_end_is_between_minimum_and_maximum_and_soon_after_quiet(
            delay in 0_u64..5000,
            more in 0_u64..20_000,
            quiet in 1_u64..3000,
            busy_until in 0_u64..30_000,
            active_for in 0_u64..5000,
        ) {
            let mut world = World::new(delay, delay + more, quiet);
            let (busy_until, silent_from) = (ms(busy_until), ms(busy_until + active_for));
            let (waited, end) = world.run(|at| {
                look(at < busy_until, Some(at.saturating_sub(silent_from)))
            });
            prop_assert!(waited >= ms(delay) && waited <= ms(delay + more));
            if end == DrainEnd::Quiet {
                prop_assert!(waited >= silent_from + ms(quiet));
            }
            let soon = ms(delay).max(silent_from + ms(quiet)) + ms(quiet / 5 + 20);
            prop_assert!(waited <= soon || end != DrainEnd::Quiet, "{:?} > {:?}", waited, soon);
            prop_assert!(waited >= soon.min(ms(delay + more)) || end == DrainEnd::Quiet || more == 0);
        }
    }
}

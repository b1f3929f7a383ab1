//! The machine under a virtual clock: its picture, its branches one by one, and
//! what must hold for every sequence of events.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::policy::stop_plan::DrainPlan;

const GRACE: Duration = Duration::from_secs(10);
const RESERVE: Duration = Duration::from_secs(1);
const DRAIN: Duration = Duration::from_secs(3);
const HUP: i32 = 1;

/// A machine, its clock, and all that it has said.
struct World {
    machine: Lifecycle,
    start: Instant,
    now: Instant,
    said: Vec<(Duration, Action)>,
    phases: Vec<(PhaseName, Cause, PhaseName)>,
}

impl World {
    fn new(drain_delay: Duration) -> Self {
        Self::with(drain_delay, |_| {})
    }

    fn with(drain_delay: Duration, change: impl FnOnce(&mut Rules)) -> Self {
        let start = Instant::now();
        let mut rules = Rules {
            stop_plan: StopPlan::new(GRACE, DrainPlan::fixed(drain_delay), RESERVE)
                .expect("it fits"),
            readiness_on_stop: ReadinessOnStop::Immediate,
            stop_signal: StopSignal::Received,
            exit_map: ExitMap::default(),
        };
        change(&mut rules);
        let machine = Lifecycle::new(rules, start);
        Self { machine, start, now: start, said: vec![], phases: vec![] }
    }

    fn serving(drain_delay: Duration) -> Self {
        let mut world = Self::new(drain_delay);
        world.on(Event::ChildReady);
        world
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        let outcome = self.machine.on(event, self.now);
        let at = self.now - self.start;
        self.said.extend(outcome.actions.iter().map(|action| (at, *action)));
        self.phases.extend(outcome.change.map(|change| (change.from, change.cause, change.to)));
        outcome.actions
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    /// Jumps to the next deadline, if there is one, and reports it.
    fn step(&mut self) -> Option<Vec<Action>> {
        let until = self.machine.next_deadline()?;
        self.now = self.now.max(until);
        Some(self.on(Event::DeadlineReached))
    }

    fn run_out(&mut self) -> u32 {
        let mut steps = 0;
        while self.step().is_some() {
            steps += 1;
            assert!(steps < 1000, "never ends in {:?}", self.machine.phase());
        }
        steps
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    fn said_after(&self, action: Action) -> Option<Duration> {
        self.said.iter().find(|(_, said)| *said == action).map(|(at, _)| *at)
    }

    fn exit_code(&self) -> Option<u8> {
        self.said.iter().find_map(|(_, said)| match said {
            Action::Exit(code) => Some(*code),
            _ => None,
        })
    }
}

fn stop() -> Event {
    Event::StopRequested(Signal::TERM)
}

fn exited(code: u8, is_last: bool) -> Event {
    Event::ChildExited { reason: ExitReason::Code(code), is_last }
}

fn tell(signal: Signal) -> Vec<Action> {
    vec![Action::SignalChild(signal)]
}

#[test]
fn a_child_that_ends_alone_ends_castoff_with_its_code() {
    let mut world = World::serving(DRAIN);
    assert_eq!(world.on(exited(42, true)), [Action::Exit(42)]);
    assert_eq!(world.machine.child_end(), Some(ChildEnd::Exited));
    assert_eq!(world.machine.next_deadline(), None);
}

#[test]
fn the_stop_sequence_drains_then_tells_the_child_then_kills() {
    let mut world = World::serving(DRAIN);
    assert!(world.machine.is_ready());
    assert_eq!(world.on(stop()), []);
    assert!(!world.machine.is_ready());
    assert_eq!(world.step(), Some(tell(Signal::TERM)));
    assert_eq!(world.elapsed(), DRAIN);
    assert_eq!(world.step(), Some(vec![Action::SignalTree(Signal::KILL)]));
    assert_eq!(world.elapsed(), GRACE - RESERVE);
    let killed = Event::ChildExited { reason: ExitReason::Signal(Signal::KILL), is_last: true };
    assert_eq!(world.on(killed), [Action::Exit(137)]);
    assert_eq!(world.machine.child_end(), Some(ChildEnd::KilledAtDeadline));
}

#[test]
fn the_deadline_counts_from_the_first_request_whatever_comes_between() {
    let mut world = World::serving(DRAIN);
    let _ = world.on(stop());
    let _ = world.after(Duration::from_secs(1)).on(stop());
    world.step();
    assert_eq!(world.said_after(Action::SignalTree(Signal::KILL)), Some(GRACE - RESERVE));
}

#[test]
fn a_second_request_skips_the_rest_of_the_drain() {
    let mut world = World::serving(DRAIN);
    let _ = world.on(stop());
    assert_eq!(world.after(Duration::from_millis(10)).on(stop()), tell(Signal::TERM));
    assert_eq!(world.phases.last().map(|(_, cause, _)| *cause), Some(Cause::SecondSignal));
}

#[test]
fn a_second_request_without_a_drain_reaches_the_child_and_a_third_kills() {
    let mut world = World::serving(Duration::ZERO);
    assert_eq!(world.on(stop()), tell(Signal::TERM));
    assert_eq!(world.on(Event::StopRequested(Signal::INT)), tell(Signal::INT));
    assert_eq!(world.on(stop()), [Action::SignalTree(Signal::KILL)]);
    assert_eq!(world.elapsed(), Duration::ZERO);
}

#[test]
fn a_stop_before_the_child_was_ready_skips_the_drain() {
    let mut world = World::new(DRAIN);
    assert_eq!(world.on(stop()), tell(Signal::TERM));
    assert_eq!(world.on(Event::ChildReady), []);
    assert!(!world.machine.is_ready());
}

#[test]
fn a_fixed_stop_signal_replaces_the_received_one() {
    let hup = Signal::new(HUP).expect("SIGHUP");
    let mut world = World::with(Duration::ZERO, |rules| rules.stop_signal = StopSignal::Fixed(hup));
    assert_eq!(world.on(stop()), tell(hup));
}

#[test]
fn the_drained_child_gets_the_signal_that_began_the_drain() {
    let mut world = World::serving(DRAIN);
    let _ = world.on(Event::StopRequested(Signal::INT));
    assert_eq!(world.step(), Some(tell(Signal::INT)));
}

#[test]
fn what_the_child_leaves_behind_is_told_and_then_killed() {
    let mut world = World::serving(DRAIN);
    world.after(Duration::from_secs(100));
    let told = world.on(exited(3, false));
    assert_eq!(told.first(), Some(&Action::SignalTree(Signal::TERM)));
    let left_at = world.elapsed();
    assert_eq!(world.step(), Some(vec![Action::SignalTree(Signal::KILL)]));
    assert_eq!(world.elapsed() - left_at, GRACE - RESERVE);
    assert_eq!(world.on(Event::TreeGone), [Action::Exit(3)]);
}

#[test]
fn a_sweep_after_a_stop_has_only_what_is_left_of_the_budget() {
    let mut world = World::serving(DRAIN);
    let _ = world.on(stop());
    world.step();
    let _ = world.after(Duration::from_secs(2)).on(exited(0, false));
    world.step();
    assert_eq!(world.elapsed(), GRACE - RESERVE);
}

#[test]
fn a_stop_during_a_sweep_never_lengthens_it() {
    let mut world = World::serving(DRAIN);
    let _ = world.on(exited(0, false));
    let before = world.machine.next_deadline();
    let _ = world.after(Duration::from_secs(5)).on(stop());
    assert_eq!(world.machine.next_deadline(), before);
    let _ = world.on(stop());
    assert_eq!(world.on(stop()), [Action::SignalTree(Signal::KILL)]);
}

#[test]
fn what_cannot_be_killed_does_not_keep_castoff_beyond_the_grace() {
    let mut world = World::serving(DRAIN);
    let _ = world.on(stop());
    world.run_out();
    assert_eq!(world.exit_code(), Some(137));
    assert!(world.elapsed() < GRACE, "{:?}", world.elapsed());
}

#[test]
fn readiness_on_stop_says_when_readiness_turns_off() {
    for (mode, in_drain, when_told) in [
        (ReadinessOnStop::Immediate, false, false),
        (ReadinessOnStop::AfterDrain, true, false),
        (ReadinessOnStop::Never, true, true),
    ] {
        let mut world = World::with(DRAIN, |rules| rules.readiness_on_stop = mode);
        let _ = world.on(Event::ChildReady);
        let _ = world.on(stop());
        assert_eq!(world.machine.is_ready(), in_drain, "{mode:?}");
        world.step();
        assert_eq!(world.machine.is_ready(), when_told, "{mode:?}");
        let _ = world.on(exited(0, false));
        assert!(!world.machine.is_ready(), "{mode:?}");
    }
}

fn stopped(by: Signal, has_job_control: bool) -> Event {
    Event::ChildStopped { by, has_job_control }
}

#[test]
fn a_stopped_child_is_continued_so_that_it_can_obey() {
    let mut world = World::serving(Duration::ZERO);
    assert_eq!(world.on(stopped(Signal::STOP, false)), []);
    assert_eq!(world.on(stop()), [Action::SignalChild(Signal::TERM), Action::ContinueChild]);
}

#[test]
fn a_child_that_stops_while_it_is_told_to_end_is_continued() {
    let mut world = World::serving(Duration::ZERO);
    assert_eq!(world.on(stop()), [Action::SignalChild(Signal::TERM)]);
    assert_eq!(world.on(stopped(Signal::STOP, false)), [Action::ContinueChild]);
}

#[test]
fn castoff_suspends_itself_only_where_a_shell_will_continue_it() {
    let mut world = World::serving(DRAIN);
    assert_eq!(world.on(stopped(Signal::TSTP, true)), [Action::Suspend]);
    let _ = world.on(Event::ChildContinued);
    assert_eq!(world.on(stopped(Signal::STOP, true)), [Action::Suspend]);
    let _ = world.on(Event::ChildContinued);
    let _ = world.on(stop());
    assert_eq!(world.on(stopped(Signal::TSTP, true)), []);
}

#[test]
fn where_nobody_would_continue_the_child_a_key_cannot_stop_it() {
    let mut world = World::serving(DRAIN);
    assert_eq!(world.on(stopped(Signal::TSTP, false)), [Action::ContinueChild]);
    assert_eq!(world.on(stopped(Signal::STOP, false)), [], "somebody meant that");
}

#[test]
fn the_end_of_the_child_is_named_by_who_wanted_it() {
    let by_signal =
        |signal| Event::ChildExited { reason: ExitReason::Signal(signal), is_last: true };
    let mut own = World::serving(DRAIN);
    let _ = own.on(by_signal(Signal::KILL));
    assert_eq!(own.machine.child_end(), Some(ChildEnd::Signalled));

    let mut draining = World::serving(DRAIN);
    let _ = draining.on(stop());
    let _ = draining.on(exited(0, true));
    assert_eq!(draining.machine.child_end(), Some(ChildEnd::Exited), "it had not been told");

    let mut told = World::serving(Duration::ZERO);
    let _ = told.on(stop());
    let _ = told.on(by_signal(Signal::TERM));
    assert_eq!(told.machine.child_end(), Some(ChildEnd::Stopped));
    assert_eq!(told.exit_code(), Some(143));
}

#[test]
fn mapped_exit_codes_are_replaced() {
    let mut world = World::with(DRAIN, |rules| rules.exit_map.insert(143, 0));
    let end = Event::ChildExited { reason: ExitReason::Signal(Signal::TERM), is_last: true };
    assert_eq!(world.on(end), [Action::Exit(0)]);
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => Just(Event::ChildReady),
        4 => prop_oneof![Just(Signal::TERM), Just(Signal::INT)].prop_map(Event::StopRequested),
        6 => Just(Event::DeadlineReached),
        1 => any::<bool>().prop_map(|has_job_control| stopped(Signal::TSTP, has_job_control)),
        1 => Just(Event::ChildContinued),
        1 => (0u8.., any::<bool>()).prop_map(|(code, is_last)| exited(code, is_last)),
        1 => Just(Event::TreeGone),
    ]
}

/// Only what can happen: the child exits once, and is the last or not; the
/// tree goes only after the child.
fn possible(events: Vec<(Duration, Event)>) -> Vec<(Duration, Event)> {
    let (mut child_is_up, mut tree_is_up) = (true, true);
    let happens = |(_, event): &(Duration, Event)| match event {
        Event::ChildExited { is_last, .. } => {
            let happens = child_is_up;
            child_is_up = false;
            tree_is_up &= !(happens && *is_last);
            happens
        }
        Event::TreeGone => {
            let happens = !child_is_up && tree_is_up;
            tree_is_up &= !happens;
            happens
        }
        Event::ChildReady | Event::ChildStopped { .. } | Event::ChildContinued => child_is_up,
        Event::StopRequested(_) | Event::DeadlineReached => true,
    };
    events.into_iter().filter(happens).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_the_promises(
        drain_ms in 0u64..8000,
        events in prop::collection::vec((0u64..4000, any_event()), 0..40),
    ) {
        let mut world = World::new(Duration::from_millis(drain_ms));
        let events = events.into_iter().map(|(ms, event)| (Duration::from_millis(ms), event));
        let (mut stopped_at, mut begun_at) = (None, None);
        let mut stops = 0;
        for (pause, event) in possible(events.collect()) {
            // The shell sleeps no longer than to the next deadline.
            let wakes = world.machine.next_deadline().map_or(world.now + pause, |until| {
                until.min(world.now + pause).max(world.now)
            });
            world.now = wakes;
            if let Event::StopRequested(_) = event {
                stops += 1;
                stopped_at.get_or_insert(world.now);
            }
            if let Event::StopRequested(_) | Event::ChildExited { .. } = event {
                begun_at.get_or_insert(world.now);
            }
            let before = world.machine.phase();
            let actions = world.on(event);
            if stopped_at.is_some() {
                prop_assert!(!world.machine.is_ready(), "ready after a stop request");
            }
            if actions.contains(&Action::SignalTree(Signal::KILL)) && before != PhaseName::Killing {
                let due = begun_at.is_some_and(|at| world.now >= at + GRACE - RESERVE);
                prop_assert!(due || stops >= 3, "killed before the deadline");
            }
        }
        let has_begun_to_end = !matches!(world.machine.phase(), PhaseName::Starting | PhaseName::Serving);
        world.run_out();
        if has_begun_to_end {
            prop_assert_eq!(world.machine.phase(), PhaseName::Exited, "it must end by itself");
            let ended = world.said.last().map(|(at, _)| world.start + *at);
            if let (Some(stopped_at), Some(ended)) = (stopped_at, ended) {
                prop_assert!(ended < stopped_at + GRACE, "the platform had to kill it");
            }
        }
        let exits = world.said.iter().filter(|(_, said)| matches!(said, Action::Exit(_))).count();
        prop_assert!(exits <= 1, "it ended {} times", exits);
        prop_assert_eq!(exits == 1, world.machine.phase() == PhaseName::Exited);
        if let Some((_, last)) = world.said.last() {
            prop_assert!(exits == 0 || matches!(last, Action::Exit(_)), "said something after its end");
        }
    }
}

/// The lines `from -> to : cause | cause` of the module's own picture.
fn picture() -> BTreeSet<(String, String, String)> {
    let source = include_str!("lifecycle.rs");
    let rows = source.lines().filter_map(|line| line.strip_prefix("//! ")).filter_map(|line| {
        let (from, rest) = line.split_once("->")?;
        let (to, causes) = rest.split_once(':')?;
        let causes = causes.split("   ").next()?.to_owned();
        Some((from.trim().to_owned(), to.trim().to_owned(), causes))
    });
    rows.flat_map(|(from, to, causes)| {
        let row = move |cause: &str| (from.clone(), to.clone(), cause.trim().to_owned());
        causes.split('|').map(row).collect::<Vec<_>>()
    })
    .collect()
}

/// Every transition that a walk of five possible events can make.
fn walked() -> BTreeSet<(String, String, String)> {
    let events = [
        Event::ChildReady,
        stop(),
        Event::DeadlineReached,
        exited(0, false),
        exited(0, true),
        Event::TreeGone,
    ];
    let mut seen = BTreeSet::new();
    for drain in [DRAIN, Duration::ZERO] {
        for code in 0..events.len().pow(5) {
            let mut world = World::new(drain);
            let walk = (0..5).map(|step| events[code / events.len().pow(step) % events.len()]);
            for (_, event) in possible(walk.map(|event| (Duration::ZERO, event)).collect()) {
                world.now = world.machine.next_deadline().unwrap_or(world.now);
                if event == Event::DeadlineReached && world.machine.phase() == PhaseName::Killing {
                    world.run_out();
                }
                let _ = world.on(event);
            }
            seen.extend(world.phases.iter().map(|(from, cause, to)| {
                (from.as_str().to_owned(), to.as_str().to_owned(), cause.as_str().to_owned())
            }));
        }
    }
    seen
}

#[test]
fn the_picture_shows_every_transition_and_no_other() {
    assert_eq!(picture(), walked());
}

//! What must hold for every history, and the picture of all transitions.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// What else may happen, whatever the machine is doing.
#[derive(Clone, Copy, Debug)]
enum Chance {
    Event(Event),
    /// Time passes, and the deadlines that fall into it are kept.
    Pause(Duration),
    /// From now on this is what a look shows.
    Traffic(Option<Look>),
}

fn any_chance() -> impl Strategy<Value = Chance> {
    let look = (0_u64..3, any::<bool>(), prop::option::of(0_u64..2000), 0_u64..3).prop_map(
        |(connections, is_busy, ago, arrived)| {
            let last_activity = ago.map(Duration::from_millis);
            Look { connections, is_busy, last_activity, arrived }
        },
    );
    let code = prop_oneof![Just(0_u8), Just(1), any::<u8>()];
    let event = prop_oneof![
        3 => Just(Event::ChildReady),
        3 => Just(Event::WaitPassed),
        3 => prop_oneof![Just(Signal::TERM), Just(Signal::INT)].prop_map(Event::StopRequested),
        3 => Just(Event::RestartRequested(Signal::TERM)),
        1 => Just(Event::DeadlineReached),
        1 => any::<bool>().prop_map(|has_job_control| stopped(Signal::TSTP, has_job_control)),
        1 => Just(Event::ChildContinued),
        3 => (code.clone(), any::<bool>()).prop_map(|(code, is_last)| exited(code, is_last)),
        3 => (code, any::<bool>()).prop_map(|(code, is_last)| hook_exited(code, is_last)),
        3 => Just(Event::TreeGone),
    ];
    prop_oneof![
        8 => event.prop_map(Chance::Event),
        4 => (0_u64..5000).prop_map(|ms| Chance::Pause(Duration::from_millis(ms))),
        1 => prop::option::of(look).prop_map(Chance::Traffic),
    ]
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let time = || prop_oneof![1 => Just(0_u64), 3 => 0_u64..4000];
    let drain = (time(), time(), 1_u64..3000);
    let restart = prop_oneof![
        2 => Just(Restart::Never),
        1 => Just(Restart::OnFailure),
        1 => Just(Restart::Always),
    ];
    let wait = prop::option::of((1_u64..5000, any::<bool>()));
    (drain, any::<[bool; 4]>(), restart, 0_u32..3, any::<u64>(), wait).prop_map(
        |(
            (delay, more, quiet),
            [pre_start, pre_stop, post_stop, has_hang],
            restart,
            limit,
            seed,
            wait,
        )| {
            let ms = Duration::from_millis;
            let drain = DrainPlan { delay: ms(delay), max: ms(delay + more), quiet: ms(quiet) };
            let mut rules = rules(drain);
            rules.wait = wait
                .map(|(timeout, runs_commands)| WaitRules { timeout: ms(timeout), runs_commands });
            rules.hooks.has_pre_start = pre_start;
            rules.hooks.has_pre_stop = pre_stop;
            rules.hooks.has_post_stop = post_stop;
            rules.hang_signal = has_hang.then_some(Signal::INT);
            rules.restart = RestartRules { restart, limit, ..rules.restart };
            rules.seed = seed;
            rules
        },
    )
}

/// A world with processes in it, in which only what is possible happens: who
/// was started ends once, and the tree is gone only when everybody is.
struct Populated {
    world: World,
    seen: usize,
    has_child: bool,
    has_hook: bool,
    has_others: bool,
    stops: u32,
    stopped_at: Option<Instant>,
    begun_at: Option<Instant>,
}

impl Populated {
    fn new(rules: Rules, start_failures: Vec<u8>) -> Self {
        let has_others = rules.wait.is_some_and(|wait| wait.runs_commands);
        let world = World::of(rules, start_failures);
        let mut populated = Self {
            world,
            seen: 0,
            has_child: false,
            has_hook: false,
            has_others,
            stops: 0,
            stopped_at: None,
            begun_at: None,
        };
        populated.watch();
        populated
    }

    /// Follows what the machine has done, and holds it to its promises.
    fn watch(&mut self) {
        for at in self.seen..self.world.said.len() {
            match self.world.said[at].1 {
                Action::StartChild => {
                    assert!(!self.has_child, "two children at a time");
                    assert!(self.stops == 0, "started although a stop was asked for");
                    self.has_child = self.world.machine.child.is_up;
                    self.begun_at = None;
                }
                Action::StartHook(_) => {
                    assert!(!self.has_hook, "two hooks at a time");
                    self.has_hook = true;
                }
                Action::SignalTree(Signal::KILL, _) if self.has_child => {
                    let due =
                        self.begun_at.is_some_and(|at| self.world.now >= at + GRACE - RESERVE);
                    assert!(due || self.stops >= 3, "killed before the deadline");
                }
                Action::SignalTree(_, Scope::Descendants)
                | Action::SendHangSignal(_, Scope::Descendants) => {
                    assert!(self.stops == 0, "spared although a stop was asked for");
                }
                Action::Exit(_) => assert_eq!(at + 1, self.world.said.len(), "not the last word"),
                _ => {}
            }
        }
        self.seen = self.world.said.len();
        let is_to_stop = self.stops > 0 || self.world.machine.is_renewing();
        assert!(!(is_to_stop && self.world.machine.is_ready()), "ready after a stop request");
    }

    /// The event, if it can happen, with what it says about the others made true.
    fn possible(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::ChildExited { reason, is_last } if self.has_child => {
                self.has_child = false;
                self.has_others |= !is_last;
                Some(Event::ChildExited { reason, is_last: self.is_empty() })
            }
            Event::HookFinished { end, is_last } if self.has_hook => {
                self.has_hook = false;
                self.has_others |= !is_last;
                Some(Event::HookFinished { end, is_last: self.is_empty() })
            }
            Event::TreeGone if self.has_others && !self.has_child && !self.has_hook => {
                self.has_others = false;
                Some(event)
            }
            Event::ChildReady | Event::ChildStopped { .. } | Event::ChildContinued => {
                self.has_child.then_some(event)
            }
            Event::RestartRequested(_)
            | Event::StopRequested(_)
            | Event::DeadlineReached
            | Event::WaitPassed => Some(event),
            _ => None,
        }
    }

    fn is_empty(&self) -> bool {
        !(self.has_child || self.has_hook || self.has_others)
    }

    fn on(&mut self, event: Event) {
        let Some(event) = self.possible(event) else { return };
        if let Event::StopRequested(_) = event {
            self.stops += 1;
            self.stopped_at.get_or_insert(self.world.now);
        }
        let begins = match event {
            Event::StopRequested(_) | Event::ChildExited { .. } => true,
            Event::RestartRequested(_) => self.has_child,
            _ => false,
        };
        if begins {
            self.begun_at.get_or_insert(self.world.now);
        }
        self.world.on(event);
        self.watch();
        if self.is_empty() {
            // The shell says so after whatever else has ended.
            self.world.on(Event::TreeGone);
            self.watch();
        }
    }

    fn take(&mut self, chance: Chance) {
        match chance {
            Chance::Event(event) => self.on(event),
            Chance::Traffic(look) => self.world.traffic = look,
            Chance::Pause(pause) => {
                let end = self.world.now + pause;
                self.keep_deadlines(Some(end));
                self.world.now = end;
            }
        }
    }

    /// Keeps the deadlines up to that time, or for ever.
    fn keep_deadlines(&mut self, end: Option<Instant>) {
        let (mut at_once, mut all) = (0, 0);
        while let Some(until) = self.world.machine.next_deadline() {
            if end.is_some_and(|end| until > end) {
                break;
            }
            at_once = if until <= self.world.now { at_once + 1 } else { 0 };
            all += 1;
            assert!(at_once < 10 && all < 10_000, "it spins in {:?}", self.world.machine.phase());
            self.world.now = self.world.now.max(until);
            self.on(Event::DeadlineReached);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_the_promises(
        rules in any_rules(),
        start_failures in prop::collection::vec(126_u8..128, 0..2),
        chances in prop::collection::vec(any_chance(), 0..60),
        is_told_in_the_end in any::<bool>(),
    ) {
        let mut populated = Populated::new(rules, start_failures);
        for chance in chances {
            populated.take(chance);
        }
        if is_told_in_the_end {
            populated.on(stop());
        }
        if let Some(stopped_at) = populated.stopped_at {
            // From here on nobody obeys, and nothing that was killed vanishes.
            populated.keep_deadlines(None);
            let world = &populated.world;
            prop_assert_eq!(world.machine.phase(), PhaseName::Exited, "it must end by itself");
            let ended = world.said.last().map(|(at, _)| world.start + *at);
            prop_assert!(ended.is_some_and(|at| at < stopped_at + GRACE), "the platform killed it");
        }
        let world = &populated.world;
        let exits = world.said.iter().filter(|(_, said)| matches!(said, Action::Exit(_))).count();
        prop_assert_eq!(exits, usize::from(world.machine.phase() == PhaseName::Exited));
    }
}

/// The lines `from -> to : cause | cause` of the module's own picture.
fn picture() -> BTreeSet<(String, String, String)> {
    let source = include_str!("../../lifecycle.rs");
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

/// Every transition that very many random walks have made; always the same
/// walks.
fn walked() -> BTreeSet<(String, String, String)> {
    let ms = Duration::from_millis;
    let busy = Look { is_busy: true, ..QUIET };
    let events = [
        Event::WaitPassed,
        Event::ChildReady,
        stop(),
        Event::RestartRequested(Signal::TERM),
        exited(0, false),
        exited(1, true),
        hook_exited(0, false),
        hook_exited(0, true),
        hook_exited(3, true),
        Event::TreeGone,
    ];
    let mut chances = events.map(Chance::Event).to_vec();
    chances.extend([100, 3000, 9000].map(|pause| Chance::Pause(ms(pause))));
    chances.extend([Some(QUIET), Some(busy), None].map(Chance::Traffic));
    let drains = [(0, 0), (1000, 1000), (1000, 3000)].map(|(delay, max)| DrainPlan {
        delay: ms(delay),
        max: ms(max),
        quiet: ms(500),
    });

    let mut dice = Dice(7);
    let mut seen = BTreeSet::new();
    for _ in 0..60_000 {
        let mut rules = rules(drains[dice.below(drains.len())]);
        let timeout = ms(5000);
        rules.wait = [None, None, Some(true), Some(false)][dice.below(4)]
            .map(|runs_commands| WaitRules { timeout, runs_commands });
        rules.hooks.has_pre_start = dice.below(2) == 0;
        rules.hooks.has_pre_stop = dice.below(2) == 0;
        rules.hooks.has_post_stop = dice.below(2) == 0;
        rules.restart.restart = [Restart::Never, Restart::Always][dice.below(2)];
        let start_failures = vec![127; dice.below(8) / 7];
        let mut populated = Populated::new(rules, start_failures);
        for _ in 0..dice.below(16) {
            populated.take(chances[dice.below(chances.len())]);
        }
        if populated.stopped_at.is_some() {
            populated.keep_deadlines(None);
        }
        seen.extend(
            populated
                .world
                .phases
                .iter()
                .map(|(from, cause, to)| (from.as_str(), to.as_str(), cause.as_str())),
        );
    }
    seen.into_iter().map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())).collect()
}

/// Numbers that look like chance and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.0 >> 33) as usize) % end
    }
}

#[test]
fn the_picture_shows_every_transition_and_no_other() {
    let (drawn, walked) = (picture(), walked());
    let missing: Vec<_> = walked.difference(&drawn).collect();
    let invented: Vec<_> = drawn.difference(&walked).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "not drawn: {missing:?}; not walked: {invented:?}"
    );
}

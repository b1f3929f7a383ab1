//! The machine under a virtual clock, its branches one by one.

mod histories;
mod renewal;
mod timeline;

use std::time::Duration;

use super::stop::HOOK_FAREWELL;
use super::*;
use crate::policy::exit::{CASTOFF_FAILED, ExitMap};
use crate::policy::hooks::{HookEnd, HookRules};
use crate::policy::restart::{Restart, RestartRules};
use crate::policy::signal::Rewrite;
use crate::policy::stop_plan::{DrainPlan, HANG_LEAD, LIST_LEAD, StopPlan, StopSignal};

const GRACE: Duration = Duration::from_secs(10);
const RESERVE: Duration = Duration::from_secs(1);
const DRAIN: Duration = Duration::from_secs(3);
const HOOK_TIMEOUT: Duration = Duration::from_secs(4);
const HUP: i32 = 1;

/// A machine, its clock, and all that it has said. It answers at once what the
/// shell would answer at once.
struct World {
    machine: Lifecycle,
    start: Instant,
    now: Instant,
    said: Vec<(Duration, Action)>,
    phases: Vec<(PhaseName, Cause, PhaseName)>,
    /// What the next starts of the child come to; then all succeed.
    start_failures: Vec<u8>,
    /// What every look shows.
    traffic: Option<Look>,
}

const QUIET: Look = Look { connections: 0, is_busy: false, last_activity: None, arrived: 0 };

fn rules(drain: DrainPlan) -> Rules {
    let second = Duration::from_secs(1);
    Rules {
        stop_plan: StopPlan::new(GRACE, drain, RESERVE).expect("it fits"),
        readiness_on_stop: ReadinessOnStop::Immediate,
        stop_signal: StopSignal::Received,
        rewrite: Rewrite::default(),
        hang_signal: None,
        exit_map: ExitMap::default(),
        stopped_exit_code: None,
        wait: None,
        hooks: HookRules {
            has_pre_start: false,
            has_pre_stop: false,
            has_post_stop: false,
            timeout: HOOK_TIMEOUT,
        },
        restart: RestartRules { restart: Restart::Never, min: second, max: 8 * second, limit: 0 },
        seed: 1,
    }
}

impl World {
    /// A machine whose child was started, unless a hook comes first.
    fn new(drain_delay: Duration) -> Self {
        Self::with(drain_delay, |_| {})
    }

    fn with(drain_delay: Duration, change: impl FnOnce(&mut Rules)) -> Self {
        let mut rules = rules(DrainPlan::fixed(drain_delay));
        change(&mut rules);
        Self::of(rules, vec![])
    }

    fn of(rules: Rules, start_failures: Vec<u8>) -> Self {
        let start = Instant::now() + Duration::from_secs(3600);
        let machine = Lifecycle::new(rules, start);
        let (said, phases, traffic) = (vec![], vec![], Some(QUIET));
        let mut world = Self { machine, start, now: start, said, phases, start_failures, traffic };
        let outcome = world.machine.begin(start);
        world.take(outcome);
        world
    }

    fn serving(drain_delay: Duration) -> Self {
        Self::serving_with(drain_delay, |_| {})
    }

    fn serving_with(drain_delay: Duration, change: impl FnOnce(&mut Rules)) -> Self {
        let mut world = Self::with(drain_delay, change);
        world.on(Event::ChildReady);
        world
    }

    /// The actions that the event leads to, without those that the world has
    /// answered and the look at what is there already.
    fn on(&mut self, event: Event) -> Vec<Action> {
        let first = self.said.len();
        let outcome = self.machine.on(event, self.now);
        self.take(outcome);
        let said = self.said[first..].iter().map(|(_, action)| *action);
        said.filter(|action| !is_observation(*action)).collect()
    }

    fn take(&mut self, outcome: Outcome) {
        let at = self.now - self.start;
        self.phases.extend(outcome.change.map(|change| (change.from, change.cause, change.to)));
        for action in outcome.actions {
            self.said.push((at, action));
            let answer = match action {
                Action::StartChild if self.start_failures.is_empty() => Event::ChildStarted,
                Action::StartChild => Event::StartFailed(self.start_failures.remove(0)),
                Action::Look => Event::TrafficSeen(self.traffic),
                _ => continue,
            };
            let outcome = self.machine.on(answer, self.now);
            self.take(outcome);
        }
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    /// Jumps to the next deadline at which something other than a look is due,
    /// if there is one, and reports it.
    fn step(&mut self) -> Option<Vec<Action>> {
        for _ in 0..1000 {
            let until = self.machine.next_deadline()?;
            self.now = self.now.max(until);
            let (phase, begun) = (self.machine.phase(), self.said.len());
            let actions = self.on(Event::DeadlineReached);
            let has_looked = self.said[begun..].iter().any(|(_, said)| is_observation(*said));
            if !(has_looked && actions.is_empty() && phase == self.machine.phase()) {
                return Some(actions);
            }
        }
        panic!("nothing but looks in {:?}", self.machine.phase());
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

    fn last_cause(&self) -> Option<Cause> {
        self.phases.last().map(|(_, cause, _)| *cause)
    }
}

/// What changes nothing for the tree.
fn is_observation(action: Action) -> bool {
    matches!(
        action,
        Action::Look | Action::TellLate | Action::LearnPorts(_) | Action::ListSurvivors(..)
    )
}

fn kill() -> Vec<Action> {
    vec![Action::SignalTree(Signal::KILL, Scope::Everything)]
}

fn hook_exited(code: u8, is_last: bool) -> Event {
    Event::HookFinished { end: HookEnd::Exited(ExitReason::Code(code)), is_last }
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
    assert_eq!(world.step(), Some(kill()));
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
    assert_eq!(
        world.said_after(Action::SignalTree(Signal::KILL, Scope::Everything)),
        Some(GRACE - RESERVE)
    );
}

#[test]
fn a_second_request_skips_the_rest_of_the_drain() {
    let mut world = World::serving(DRAIN);
    let _ = world.on(stop());
    assert_eq!(world.after(Duration::from_millis(10)).on(stop()), tell(Signal::TERM));
    assert_eq!(world.last_cause(), Some(Cause::Drained(DrainEnd::SecondSignal)));
}

#[test]
fn what_came_too_late_is_still_known_when_the_child_was_killed() {
    let mut world = World::serving(Duration::ZERO);
    world.on(stop());
    world.traffic = Some(Look { arrived: 1, ..QUIET });
    assert_eq!(world.step(), Some(kill()));
    let late = world.machine.late_arrivals().expect("it was being stopped");
    assert!(late.count > 0);
    world.on(Event::TrafficSeen(world.traffic));
    assert_eq!(world.machine.late_arrivals(), Some(late));
}

#[test]
fn a_second_request_without_a_drain_reaches_the_child_and_a_third_kills() {
    let mut world = World::serving(Duration::ZERO);
    assert_eq!(world.on(stop()), tell(Signal::TERM));
    assert_eq!(world.on(Event::StopRequested(Signal::INT)), tell(Signal::INT));
    assert_eq!(world.on(stop()), kill());
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
    let mut world = World::serving_with(Duration::ZERO, |rules| {
        rules.stop_signal = StopSignal::Fixed(hup);
    });
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
    assert_eq!(told.first(), Some(&Action::SignalTree(Signal::TERM, Scope::Everything)));
    let left_at = world.elapsed();
    assert_eq!(world.step(), Some(kill()));
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
    assert_eq!(world.on(stop()), kill());
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

fn list_after(world: &World) -> Option<Duration> {
    let is_list = |(_, said): &&(Duration, Action)| matches!(said, Action::ListSurvivors(..));
    world.said.iter().find(is_list).map(|(at, _)| *at)
}

#[test]
fn survivors_are_listed_before_the_kill_and_once() {
    let mut world = World::serving(Duration::ZERO);
    let _ = world.on(stop());
    world.run_out();
    assert_eq!(list_after(&world), Some(GRACE - RESERVE - LIST_LEAD));
    let lists = world.said.iter().filter(|(_, said)| matches!(said, Action::ListSurvivors(..)));
    assert_eq!(lists.count(), 1);

    let mut impatient = World::serving(Duration::ZERO);
    for _ in 0..3 {
        let _ = impatient.on(stop());
    }
    assert_eq!(list_after(&impatient), Some(Duration::ZERO));
}

#[test]
fn the_hang_signal_comes_a_second_before_the_kill_to_whoever_is_left() {
    let with_hang_signal = |rules: &mut Rules| rules.hang_signal = Some(Signal::INT);
    let hang = Action::SendHangSignal(Signal::INT, Scope::Everything);
    let mut stopping = World::serving_with(Duration::ZERO, with_hang_signal);
    let _ = stopping.on(stop());
    assert_eq!(stopping.step(), Some(vec![hang]));
    assert_eq!(stopping.elapsed(), GRACE - RESERVE - HANG_LEAD);
    assert_eq!(stopping.step(), Some(kill()));

    let mut sweeping = World::serving_with(Duration::ZERO, with_hang_signal);
    let _ = sweeping.on(exited(0, false));
    assert_eq!(sweeping.step(), Some(vec![hang]));
    assert_eq!(sweeping.step(), Some(kill()));
}

#[test]
fn a_rewritten_stop_signal_reaches_the_child_as_the_other_one() {
    let rewrite = |from, to| {
        move |rules: &mut Rules| {
            rules.rewrite.insert(from, to);
        }
    };
    let mut other = World::serving_with(Duration::ZERO, rewrite(Signal::TERM, Some(Signal::INT)));
    assert_eq!(other.on(stop()), tell(Signal::INT));
    let mut dropped = World::serving_with(Duration::ZERO, rewrite(Signal::TERM, None));
    assert_eq!(dropped.on(stop()), []);
    assert_eq!(dropped.machine.phase(), PhaseName::Stopping);
    let mut fixed = World::serving_with(Duration::ZERO, |rules| {
        rewrite(Signal::TERM, None)(rules);
        rules.stop_signal = StopSignal::Fixed(Signal::TERM);
    });
    assert_eq!(fixed.on(stop()), tell(Signal::TERM));
}

#[test]
fn the_stopped_exit_code_is_for_children_that_obeyed_in_time() {
    let stopped_as_9 = |rules: &mut Rules| rules.stopped_exit_code = Some(9);
    let mut obedient = World::serving_with(Duration::ZERO, stopped_as_9);
    let _ = obedient.on(stop());
    assert_eq!(obedient.on(exited(3, true)), [Action::Exit(9)]);
    let mut alone = World::serving_with(Duration::ZERO, stopped_as_9);
    assert_eq!(alone.on(exited(3, true)), [Action::Exit(3)]);
    let mut before = World::serving_with(Duration::ZERO, stopped_as_9);
    let _ = before.on(exited(3, false));
    let _ = before.on(stop());
    assert_eq!(before.on(Event::TreeGone), [Action::Exit(3)], "castoff was ending by itself");
    let mut waiting = World::serving_with(Duration::ZERO, |rules| {
        stopped_as_9(rules);
        rules.restart.restart = Restart::Always;
    });
    let _ = waiting.on(exited(3, true));
    assert_eq!(waiting.on(stop()), [Action::Exit(9)], "castoff would have gone on");
    let mut killed = World::serving_with(Duration::ZERO, stopped_as_9);
    let _ = killed.on(stop());
    killed.step();
    let end = Event::ChildExited { reason: ExitReason::Signal(Signal::KILL), is_last: true };
    assert_eq!(killed.on(end), [Action::Exit(137)]);
}

#[test]
fn the_child_is_told_when_both_the_drain_and_the_hook_are_over() {
    let with_hook = |rules: &mut Rules| rules.hooks.has_pre_stop = true;
    let mut hook_first = World::serving_with(DRAIN, with_hook);
    assert_eq!(hook_first.on(stop()), [Action::StartHook(Hook::PreStop)]);
    assert_eq!(hook_first.on(hook_exited(0, false)), []);
    assert_eq!(hook_first.step(), Some(tell(Signal::TERM)));
    assert_eq!(hook_first.elapsed(), DRAIN);

    let mut drain_first = World::serving_with(DRAIN, with_hook);
    let _ = drain_first.on(stop());
    assert_eq!(drain_first.after(DRAIN).on(Event::DeadlineReached), []);
    assert_eq!(drain_first.on(hook_exited(1, false)), tell(Signal::TERM), "its code is no matter");
    assert_eq!(drain_first.last_cause(), Some(Cause::PreStopFinished));

    let mut hanging = World::serving_with(DRAIN, with_hook);
    let _ = hanging.on(stop());
    let told = [Action::KillHook, Action::SignalChild(Signal::TERM)];
    assert_eq!(hanging.step().as_deref(), Some(told.as_slice()));
    assert_eq!(hanging.elapsed(), HOOK_TIMEOUT);
}

#[test]
fn a_failed_pre_start_hook_ends_castoff_with_its_code() {
    let with_hook = |rules: &mut Rules| rules.hooks.has_pre_start = true;
    let mut failed = World::with(DRAIN, with_hook);
    assert_eq!(failed.on(hook_exited(7, true)), [Action::Exit(7)]);
    let mut slow = World::with(DRAIN, with_hook);
    let actions = slow.step().expect("its time is up");
    assert_eq!(actions.first(), Some(&Action::KillHook));
    assert_eq!(slow.on(Event::TreeGone), [Action::Exit(CASTOFF_FAILED)]);
    let mut fine = World::with(DRAIN, with_hook);
    assert_eq!(fine.on(hook_exited(0, true)), [Action::StartChild]);
}

#[test]
fn a_stop_during_the_pre_start_hook_is_soon_over() {
    let mut world = World::with(DRAIN, |rules| rules.hooks.has_pre_start = true);
    assert!(world.on(stop()).contains(&Action::SignalTree(Signal::TERM, Scope::Everything)));
    world.step();
    assert_eq!(world.elapsed(), HOOK_FAREWELL);
    assert_eq!(world.on(hook_exited(1, true)), []);
    assert_eq!(world.on(Event::TreeGone), [Action::Exit(143)]);
}

#[test]
fn the_post_stop_hook_runs_once_when_everybody_has_gone() {
    let mut world = World::serving_with(Duration::ZERO, |rules| rules.hooks.has_post_stop = true);
    let _ = world.on(stop());
    let _ = world.on(exited(0, false));
    assert_eq!(world.on(Event::TreeGone), [Action::StartHook(Hook::PostStop)]);
    assert_eq!(world.on(hook_exited(1, false)), kill(), "it has left somebody behind");
    assert_eq!(world.on(Event::TreeGone), [Action::Exit(0)]);
}

#[test]
fn a_child_that_fails_is_started_again_after_its_leftovers_have_gone() {
    let mut world = World::serving_with(DRAIN, |rules| {
        rules.restart.restart = Restart::OnFailure;
    });
    let told = world.on(exited(1, false));
    assert_eq!(told.first(), Some(&Action::SignalTree(Signal::TERM, Scope::Descendants)));
    assert!(matches!(world.on(Event::TreeGone)[..], [Action::AnnounceRestart(_)]));
    assert_eq!(world.machine.phase(), PhaseName::Starting);
    assert_eq!(world.step(), Some(vec![Action::StartChild]));
    let _ = world.on(Event::ChildReady);
    assert!(world.machine.is_ready());
    assert_eq!(world.on(exited(0, true)), [Action::Exit(0)]);
}

#[test]
fn a_stop_while_the_restart_is_due_ends_at_once() {
    let always = |rules: &mut Rules| rules.restart.restart = Restart::Always;
    let mut waiting = World::serving_with(DRAIN, always);
    let _ = waiting.on(exited(1, true));
    assert_eq!(waiting.on(stop()), [Action::Exit(1)]);
    let mut sweeping = World::serving_with(DRAIN, always);
    let _ = sweeping.on(exited(1, false));
    assert_eq!(sweeping.on(stop()), []);
    assert_eq!(sweeping.on(Event::TreeGone), [Action::Exit(1)]);
}

#[test]
fn a_program_that_cannot_be_started_ends_castoff_the_first_time_only() {
    let mut rules = rules(DrainPlan::fixed(DRAIN));
    rules.restart = RestartRules { restart: Restart::Always, limit: 2, ..rules.restart };
    assert_eq!(World::of(rules.clone(), vec![127]).exit_code(), Some(127));
    let mut world = World::of(rules, vec![]);
    world.start_failures = vec![126, 126];
    let _ = world.on(exited(0, true));
    world.run_out();
    assert_eq!(world.exit_code(), Some(126));
}

#[test]
fn connections_that_come_after_the_child_was_told_are_late() {
    let mut world = World::serving(Duration::ZERO);
    let _ = world.on(stop());
    assert_eq!(world.machine.late_arrivals().map(|late| late.count), Some(0));
    world.traffic = Some(Look { arrived: 2, ..QUIET });
    let _ = world.after(Duration::from_millis(300)).on(Event::DeadlineReached);
    let two = Arrivals { count: 2, last_after: Duration::from_millis(300) };
    assert_eq!(world.machine.late_arrivals(), Some(two));
    world.traffic = Some(QUIET);
    world.run_out();
    assert_eq!(world.machine.late_arrivals(), Some(two), "also when the child was killed");
}

#[test]
fn mapped_exit_codes_are_replaced() {
    let mut world = World::with(DRAIN, |rules| rules.exit_map.insert(143, 0));
    let end = Event::ChildExited { reason: ExitReason::Signal(Signal::TERM), is_last: true };
    assert_eq!(world.on(end), [Action::Exit(0)]);
}

fn waiting(runs_commands: bool) -> World {
    World::with(DRAIN, |rules| {
        rules.wait = Some(WaitRules { timeout: HOOK_TIMEOUT, runs_commands });
        rules.hooks.has_pre_start = true;
    })
}

#[test]
fn the_start_waits_for_others_and_then_for_its_hook() {
    let mut world = waiting(false);
    assert_eq!((world.said.len(), world.machine.checked()), (0, Checked::Start));
    assert_eq!(world.on(Event::WaitPassed), [Action::StartHook(Hook::PreStart)]);
    assert_eq!(world.machine.checked(), Checked::Nothing);
    assert_eq!(world.on(hook_exited(0, true)), [Action::StartChild]);
    assert_eq!(world.machine.checked(), Checked::Child);
    // That was that.
    assert_eq!(world.on(Event::WaitPassed), []);
    world.on(Event::ChildReady);
    assert_eq!(world.machine.checked(), Checked::Child);
    world.on(stop());
    assert_eq!(world.machine.checked(), Checked::Nothing);
}

#[test]
fn a_wait_that_takes_too_long_ends_castoff() {
    let mut world = waiting(false);
    assert_eq!(world.step(), Some(vec![Action::Exit(CASTOFF_FAILED)]));
    assert_eq!(world.now - world.start, HOOK_TIMEOUT);
    let mut world = waiting(true);
    let told = [Signal::TERM, Signal::CONT].map(|s| Action::SignalTree(s, Scope::Everything));
    assert_eq!(world.step(), Some(told.to_vec()));
    assert_eq!(world.on(Event::TreeGone), [Action::Exit(CASTOFF_FAILED)]);
}

#[test]
fn a_stop_ends_the_wait_at_once() {
    assert_eq!(waiting(false).on(stop()), [Action::Exit(128 + 15)]);
    let mut world = waiting(true);
    assert_eq!(world.on(stop()).len(), 2);
    assert_eq!(world.on(Event::TreeGone), [Action::Exit(128 + 15)]);
}

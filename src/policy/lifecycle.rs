//! The life of a container as one state machine: what has happened comes in
//! with its time, what to do about it goes out.
//!
//! It never does anything itself: `supervisor` turns signals, exits and elapsed
//! time into `Event`s, performs the `Action`s and logs the `PhaseChange`.
//!
//! ```text
//! starting -> serving   : child_ready
//! starting -> draining  : stop_requested           never ready, but a pre-stop hook is to run
//! starting -> stopping  : stop_requested           never ready: nothing to drain
//! starting -> sweeping  : child_exited | start_failed | pre_start_failed
//! starting -> sweeping  : stop_requested           no child yet, or no longer
//! starting -> exited    : child_exited | start_failed | pre_start_failed
//! starting -> exited    : stop_requested           nobody is left
//! serving  -> draining  : stop_requested
//! serving  -> stopping  : stop_requested           no drain is configured
//! serving  -> sweeping  : child_exited
//! serving  -> starting  : child_exited             it is to be restarted
//! serving  -> exited    : child_exited
//! draining -> stopping  : drain_delay | drain_quiet | drain_max | pre_stop_finished | second_signal
//! draining -> sweeping  : child_exited
//! draining -> exited    : child_exited
//! stopping -> killing   : deadline | third_signal
//! stopping -> sweeping  : child_exited
//! stopping -> exited    : child_exited
//! sweeping -> killing   : deadline | third_signal
//! sweeping -> killing   : post_stop_finished       the hook has left somebody behind
//! sweeping -> starting  : tree_gone                the child is to be restarted
//! sweeping -> exited    : tree_gone | post_stop_finished
//! killing  -> starting  : tree_gone
//! killing  -> sweeping  : child_exited | tree_gone    the post-stop hook runs
//! killing  -> exited    : child_exited | tree_gone | gave_up
//! ```

mod words;

use std::time::{Duration, Instant};

pub(crate) use words::{
    Action, Cause, ChildEnd, Drained, Event, Outcome, PhaseChange, Rules, Scope,
};

use super::drain::{Drain, DrainEnd};
use super::exit::{CASTOFF_FAILED, ExitReason};
use super::hooks::{Hook, HookEnd, RunningHook};
use super::late::{Arrivals, Late};
use super::restart::{Attempt, Backoff};
use super::signal::Signal;
use super::status::PhaseName;
use super::stop_plan::{DrainPlan, ReadinessOnStop, StopSignal};
use super::traffic::Look;

/// How long after a SIGKILL what has escaped it, by being forked at that
/// moment, gets another.
const STRIKE_INTERVAL: Duration = Duration::from_millis(50);

/// What a pre-start hook gets between SIGTERM and SIGKILL when a stop is asked
/// for: nothing serves yet, and nobody waits.
const HOOK_FAREWELL: Duration = Duration::from_millis(500);

/// CASTOFF_HANG_SIGNAL comes this long before the kill.
const HANG_LEAD: Duration = Duration::from_secs(1);

/// A waiting phase says until when; `DeadlineReached` is a no-op before.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The pre-start hook runs.
    Preparing,
    /// The child is being started, or has been and was not ready yet.
    Starting,
    /// The child has ended and will be started again.
    BackingOff {
        until: Instant,
    },
    Serving,
    /// `over`: the drain has ended, and the pre-stop hook has not.
    Draining {
        drain: Drain,
        signal: Signal,
        over: Option<DrainEnd>,
    },
    Stopping {
        until: Instant,
        late: Late,
    },
    Sweeping {
        until: Instant,
    },
    /// Everything has gone; the post-stop hook runs.
    Concluding,
    Killing {
        until: Instant,
        give_up_at: Instant,
    },
    Exited,
}

/// A stop that was asked for: when first, and how often by now.
#[derive(Clone, Copy, Debug)]
struct StopRequest {
    at: Instant,
    count: u32,
}

/// What is known of the child that runs, or ran last.
#[derive(Clone, Copy, Debug, Default)]
struct Child {
    /// When its program was started; `None`: never.
    started_at: Option<Instant>,
    is_up: bool,
    /// It stands still, as after ^Z.
    is_stopped: bool,
    was_told: bool,
    was_killed: bool,
    exit: Option<ExitReason>,
}

/// The machine. See the picture above for its transitions.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    rules: Rules,
    phase: Phase,
    entered_at: Instant,
    stop: Option<StopRequest>,
    was_ready: bool,
    child: Child,
    hook: Option<RunningHook>,
    look_begun_at: Instant,
    /// What had come too late when the child was killed.
    late: Option<Arrivals>,
    was_hang_sent: bool,
    was_concluded: bool,
    backoff: Backoff,
    /// What happens once nobody is left, unless a stop is asked for.
    restart: Option<Attempt>,
    /// What castoff exits with, other than because of the child's end.
    failure: Option<u8>,
}

impl Lifecycle {
    pub(crate) fn new(rules: Rules, now: Instant) -> Self {
        Self {
            backoff: Backoff::new(rules.restart, rules.seed),
            rules,
            phase: Phase::Preparing,
            entered_at: now,
            stop: None,
            was_ready: false,
            child: Child::default(),
            hook: None,
            look_begun_at: now,
            late: None,
            was_hang_sent: false,
            was_concluded: false,
            restart: None,
            failure: None,
        }
    }

    /// The first actions; to be called once, before any event.
    pub(crate) fn begin(&mut self, now: Instant) -> Outcome {
        if !self.rules.hooks.has_pre_start {
            return self.start_child();
        }
        self.start_hook(Hook::PreStart, now + self.rules.hooks.timeout)
    }

    /// Takes one event. `now` must not run backwards between calls.
    pub(crate) fn on(&mut self, event: Event, now: Instant) -> Outcome {
        if let Phase::Exited = self.phase {
            return Outcome::default();
        }
        match event {
            Event::ChildStarted => {
                self.child = Child { started_at: Some(now), is_up: true, ..Child::default() };
                self.failure = None;
                self.was_hang_sent = false;
                Outcome::default()
            }
            Event::StartFailed(code) => self.start_failed(code, now),
            Event::ChildReady => self.child_ready(now),
            Event::StopRequested(signal) => self.stop_requested(signal, now),
            Event::DeadlineReached => self.deadline_reached(now),
            Event::ChildStopped { by, has_job_control } => {
                self.child.is_stopped = true;
                self.child_stopped(by, has_job_control)
            }
            Event::ChildContinued => {
                self.child.is_stopped = false;
                Outcome::default()
            }
            Event::ChildExited { reason, is_last } => self.child_exited(reason, is_last, now),
            Event::HookFinished { end, is_last } => self.hook_finished(end, is_last, now),
            Event::TrafficSeen(look) => self.traffic_seen(look, now),
            Event::TreeGone => match self.phase {
                Phase::Sweeping { .. } | Phase::Killing { .. } => {
                    self.nobody_left(Cause::TreeGone, now)
                }
                _ => Outcome::default(),
            },
        }
    }

    /// When the shell must send `DeadlineReached`; `None`: nothing is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let of_phase = match self.phase {
            Phase::Draining { drain, over: None, .. } => Some(drain.due_at()),
            // Only the hook holds it up.
            Phase::Draining { over: Some(_), .. } => None,
            Phase::Stopping { until, late } => Some(self.or_hang_at(until).min(late.due_at())),
            Phase::Sweeping { until } => Some(self.or_hang_at(until)),
            Phase::BackingOff { until } | Phase::Killing { until, .. } => Some(until),
            Phase::Exited => return None,
            Phase::Preparing | Phase::Starting | Phase::Serving | Phase::Concluding => None,
        };
        let of_hook = self.hook.filter(|hook| !hook.has_timed_out).map(|hook| hook.until);
        [of_phase, of_hook].into_iter().flatten().min()
    }

    pub(crate) fn phase(&self) -> PhaseName {
        self.phase.name()
    }

    /// Whether traffic may be sent to the child.
    pub(crate) fn is_ready(&self) -> bool {
        match (self.phase, self.rules.readiness_on_stop) {
            (Phase::Serving, _) => true,
            (Phase::Draining { .. }, ReadinessOnStop::Immediate) => false,
            (Phase::Draining { .. }, ReadinessOnStop::AfterDrain) => self.was_ready,
            (Phase::Draining { .. } | Phase::Stopping { .. }, ReadinessOnStop::Never) => {
                self.was_ready
            }
            _ => false,
        }
    }

    /// Whether the child has been ready once.
    pub(crate) fn was_ready(&self) -> bool {
        self.was_ready
    }

    /// How the child ended that ran last, once it has.
    pub(crate) fn child_exit(&self) -> Option<ExitReason> {
        self.child.exit
    }

    /// The name of that end.
    pub(crate) fn child_end(&self) -> Option<ChildEnd> {
        self.child.exit.map(|reason| match reason {
            ExitReason::Signal(Signal::KILL) if self.child.was_killed => ChildEnd::KilledAtDeadline,
            _ if self.child.was_told => ChildEnd::Stopped,
            ExitReason::Code(_) => ChildEnd::Exited,
            ExitReason::Signal(_) => ChildEnd::Signalled,
        })
    }

    /// When a stop was first asked for.
    pub(crate) fn stop_requested_at(&self) -> Option<Instant> {
        self.stop.map(|stop| stop.at)
    }

    /// Whether the hook that runs has been sent SIGKILL for its time.
    pub(crate) fn has_hook_timed_out(&self) -> bool {
        self.hook.is_some_and(|hook| hook.has_timed_out)
    }

    /// What has come since the child was told; `None`: it is not being stopped.
    pub(crate) fn late_arrivals(&self) -> Option<Arrivals> {
        match self.phase {
            Phase::Stopping { late, .. } => Some(late.arrivals()),
            Phase::Killing { .. } => self.late,
            _ => None,
        }
    }

    fn child_ready(&mut self, now: Instant) -> Outcome {
        match self.phase {
            Phase::Starting if self.child.is_up => {
                self.was_ready = true;
                self.go(Phase::Serving, Cause::ChildReady, now, vec![])
            }
            _ => Outcome::default(),
        }
    }

    fn stop_requested(&mut self, signal: Signal, now: Instant) -> Outcome {
        let stop = self.stop.get_or_insert(StopRequest { at: now, count: 0 });
        stop.count += 1;
        let (count, asked_at) = (stop.count, stop.at);
        self.restart = None;
        match self.phase {
            Phase::Starting | Phase::Serving if self.child.is_up => self.begin_stop(signal, now),
            Phase::Preparing | Phase::Starting | Phase::Serving => {
                // What an unprepared program would have ended with.
                let code = ExitReason::Signal(signal).code();
                self.failure = Some(self.rules.exit_map.apply(code));
                let until = self.rules.stop_plan.deadline(asked_at).min(now + HOOK_FAREWELL);
                self.sweep(until, Scope::Everything, Cause::StopRequested, now)
            }
            Phase::BackingOff { .. } => self.nobody_left(Cause::StopRequested, now),
            Phase::Draining { .. } => {
                self.tell_child(signal, Cause::Drained(DrainEnd::SecondSignal), now)
            }
            Phase::Stopping { .. } | Phase::Sweeping { .. } | Phase::Concluding if count >= 3 => {
                self.kill(Cause::ThirdSignal, now)
            }
            Phase::Stopping { .. } => {
                // The drain is over: the program may know what a second one means.
                let passed_on = self.stop_signal(signal).map(Action::SignalChild);
                Outcome::act(passed_on.into_iter().collect())
            }
            Phase::Concluding => {
                let latest = self.rules.stop_plan.last_call(asked_at);
                self.hook = self.hook.map(|hook| hook.until_at_most(latest));
                Outcome::default()
            }
            Phase::Sweeping { .. } | Phase::Killing { .. } | Phase::Exited => Outcome::default(),
        }
    }

    /// The first stop request to a child that runs.
    fn begin_stop(&mut self, signal: Signal, now: Instant) -> Outcome {
        // A child that never served has no traffic to lose.
        let plan = match self.phase {
            Phase::Serving => self.rules.stop_plan.drain,
            _ => DrainPlan::fixed(Duration::ZERO),
        };
        if plan.max.is_zero() && !self.rules.hooks.has_pre_stop {
            return self.tell_child(signal, Cause::StopRequested, now);
        }
        let mut actions = vec![Action::LearnPorts];
        if self.rules.hooks.has_pre_stop {
            // The child keeps at least as much time as the reserve has.
            let reserve = self.rules.stop_plan.reserve;
            let latest = self.rules.stop_plan.deadline(now).checked_sub(reserve).unwrap_or(now);
            let until = latest.max(now).min(now + self.rules.hooks.timeout);
            self.hook = Some(RunningHook::new(until));
            actions.push(Action::StartHook(Hook::PreStop));
        }
        let drain = Drain::new(plan, now);
        let draining = Phase::Draining { drain, signal, over: None };
        self.go(draining, Cause::StopRequested, now, actions)
    }

    fn deadline_reached(&mut self, now: Instant) -> Outcome {
        if let Some(hook) = self.hook.as_mut().filter(|hook| hook.is_due(now)) {
            hook.has_timed_out = true;
            let mut outcome = self.hook_timed_out(now);
            outcome.actions.insert(0, Action::KillHook);
            return outcome;
        }
        match self.phase {
            Phase::Draining { drain, over: None, .. } if drain.wants_look(now) => self.look(now),
            Phase::Draining { .. } => self.settle_drain(None, now),
            Phase::Stopping { until, .. } | Phase::Sweeping { until } if now >= until => {
                self.kill(Cause::Deadline, now)
            }
            Phase::Stopping { until, .. } | Phase::Sweeping { until }
                if now >= self.or_hang_at(until) =>
            {
                self.was_hang_sent = true;
                let scope = self.scope();
                let signal = self.rules.hang_signal;
                let action = signal.map(|signal| Action::SignalTree(signal, scope));
                Outcome::act(action.into_iter().collect())
            }
            Phase::Stopping { late, .. } if now >= late.due_at() => self.look(now),
            Phase::BackingOff { until } if now >= until => self.start_child(),
            Phase::Killing { until, give_up_at } if now >= until => {
                if now >= give_up_at {
                    return self.exit(Cause::GaveUp, now);
                }
                let until = give_up_at.min(now + STRIKE_INTERVAL);
                self.phase = Phase::Killing { until, give_up_at };
                Outcome::act(vec![Action::SignalTree(Signal::KILL, self.scope())])
            }
            Phase::Preparing
            | Phase::Starting
            | Phase::BackingOff { .. }
            | Phase::Serving
            | Phase::Stopping { .. }
            | Phase::Sweeping { .. }
            | Phase::Concluding
            | Phase::Killing { .. }
            | Phase::Exited => Outcome::default(),
        }
    }

    fn child_stopped(&self, by: Signal, has_job_control: bool) -> Outcome {
        let action = match self.phase {
            Phase::Starting | Phase::Serving if has_job_control => Action::Suspend,
            // Nobody could ever continue it. Without castoff in between the kernel
            // would have dropped the ^Z (`man 2 setpgid`, orphaned groups).
            _ if by == Signal::TSTP && !has_job_control => Action::ContinueChild,
            // It stood still, or was about to, when it was told.
            Phase::Stopping { .. } => Action::ContinueChild,
            _ => return Outcome::default(),
        };
        Outcome::act(vec![action])
    }

    fn child_exited(&mut self, reason: ExitReason, is_last: bool, now: Instant) -> Outcome {
        self.child.is_up = false;
        self.child.exit = Some(reason);
        if self.stop.is_none() && matches!(self.phase, Phase::Starting | Phase::Serving) {
            let code = self.rules.exit_map.apply(reason.code());
            self.restart = self.backoff.after(code, self.uptime(now));
        }
        match self.phase {
            _ if is_last => self.nobody_left(Cause::ChildExited, now),
            // It is struck until nobody is left.
            Phase::Killing { .. } => Outcome::default(),
            _ => {
                let begun_at = self.stop.map_or(now, |stop| stop.at);
                let until = self.rules.stop_plan.deadline(begun_at);
                self.sweep(until, self.scope(), Cause::ChildExited, now)
            }
        }
    }

    fn start_failed(&mut self, code: u8, now: Instant) -> Outcome {
        self.failure = Some(code);
        if self.child.started_at.is_some() {
            // It has run before: the image is being replaced, or a limit is met.
            self.restart = self.backoff.after(code, Duration::ZERO);
            return self.nobody_left(Cause::StartFailed, now);
        }
        self.leave(Cause::StartFailed, now)
    }

    fn hook_finished(&mut self, end: HookEnd, is_last: bool, now: Instant) -> Outcome {
        let Some(hook) = self.hook.take() else { return Outcome::default() };
        match self.phase {
            Phase::Preparing => match hook.failure(end) {
                None => self.start_child(),
                Some(code) => {
                    self.failure = Some(code);
                    if is_last {
                        return self.exit(Cause::PreStartFailed, now);
                    }
                    self.leave(Cause::PreStartFailed, now)
                }
            },
            Phase::Draining { .. } => self.settle_drain(Some(Cause::PreStopFinished), now),
            Phase::Concluding if is_last => self.exit(Cause::PostStopFinished, now),
            Phase::Concluding => self.kill(Cause::PostStopFinished, now),
            _ => Outcome::default(),
        }
    }

    /// It gets SIGKILL, and is not waited for: not even that ends every process.
    fn hook_timed_out(&mut self, now: Instant) -> Outcome {
        match self.phase {
            Phase::Preparing => {
                self.failure = Some(CASTOFF_FAILED);
                self.leave(Cause::PreStartFailed, now)
            }
            Phase::Draining { .. } => self.settle_drain(Some(Cause::PreStopFinished), now),
            Phase::Concluding => self.kill(Cause::Deadline, now),
            _ => Outcome::default(),
        }
    }

    fn traffic_seen(&mut self, look: Option<Look>, now: Instant) -> Outcome {
        let begun_at = self.look_begun_at;
        match &mut self.phase {
            Phase::Draining { drain, .. } => {
                drain.saw(look, begun_at, now);
                self.settle_drain(None, now)
            }
            Phase::Stopping { late, .. } => {
                late.saw(look, begun_at, now);
                Outcome::default()
            }
            _ => Outcome::default(),
        }
    }

    /// Tells the child when both the drain and the pre-stop hook are over; with
    /// `cause` when it was the hook that came last.
    fn settle_drain(&mut self, cause: Option<Cause>, now: Instant) -> Outcome {
        let Phase::Draining { drain, signal, over } = &mut self.phase else {
            return Outcome::default();
        };
        let was_over = over.is_some();
        *over = over.or_else(|| drain.end(now));
        match *over {
            Some(end) if self.hook.is_none_or(|hook| hook.has_timed_out) => {
                let signal = *signal;
                let of_drain = Cause::Drained(end);
                let cause = cause.filter(|_| was_over).unwrap_or(of_drain);
                self.tell_child(signal, cause, now)
            }
            _ => Outcome::default(),
        }
    }

    fn look(&mut self, now: Instant) -> Outcome {
        self.look_begun_at = now;
        Outcome::act(vec![Action::Look])
    }

    /// Nobody is left, or nobody who counts: what comes next.
    fn nobody_left(&mut self, cause: Cause, now: Instant) -> Outcome {
        if let Some(attempt) = self.restart.take() {
            let until = now + attempt.delay;
            let actions = vec![Action::AnnounceRestart(attempt)];
            return self.go(Phase::BackingOff { until }, cause, now, actions);
        }
        let until = self.stop.map_or(now + self.rules.hooks.timeout, |stop| {
            self.rules.stop_plan.last_call(stop.at).min(now + self.rules.hooks.timeout)
        });
        let has_run = self.child.started_at.is_some();
        let is_wanted = self.rules.hooks.has_post_stop && has_run && !self.was_concluded;
        if !(is_wanted && until > now) {
            return self.exit(cause, now);
        }
        self.was_concluded = true;
        let actions = self.start_hook(Hook::PostStop, until).actions;
        self.go(Phase::Concluding, cause, now, actions)
    }

    /// Ends before the child was ever started; its hook may have left somebody.
    fn leave(&mut self, cause: Cause, now: Instant) -> Outcome {
        if !self.rules.hooks.has_pre_start {
            return self.exit(cause, now);
        }
        let until = self.rules.stop_plan.deadline(self.stop.map_or(now, |stop| stop.at));
        self.sweep(until, Scope::Everything, cause, now)
    }

    fn start_child(&mut self) -> Outcome {
        self.phase = Phase::Starting;
        Outcome::act(vec![Action::StartChild])
    }

    fn start_hook(&mut self, hook: Hook, until: Instant) -> Outcome {
        self.hook = Some(RunningHook::new(until));
        Outcome::act(vec![Action::StartHook(hook)])
    }

    fn stop_signal(&self, received: Signal) -> Option<Signal> {
        match self.rules.stop_signal {
            StopSignal::Received => self.rules.rewrite.apply(received),
            StopSignal::Fixed(signal) => Some(signal),
        }
    }

    fn tell_child(&mut self, received: Signal, cause: Cause, now: Instant) -> Outcome {
        let mut actions = Vec::new();
        if cause == Cause::StopRequested {
            actions.push(Action::LearnPorts);
        }
        if self.hook.is_some_and(|hook| !hook.has_timed_out) {
            actions.push(Action::KillHook);
        }
        actions.extend(self.stop_signal(received).map(Action::SignalChild));
        if self.child.is_stopped {
            // A stopped process takes no signal but SIGKILL before SIGCONT.
            actions.push(Action::ContinueChild);
        }
        self.child.was_told = true;
        let asked_at = self.stop.map_or(now, |stop| stop.at);
        let until = self.rules.stop_plan.deadline(asked_at);
        // Both ends of a drain come of a look, and without one `LearnPorts` takes it.
        let has_looked = matches!(
            cause,
            Cause::StopRequested | Cause::Drained(DrainEnd::Delay | DrainEnd::Quiet)
        );
        let late = Late::new(now, has_looked);
        self.go(Phase::Stopping { until, late }, cause, now, actions)
    }

    fn sweep(&mut self, until: Instant, scope: Scope, cause: Cause, now: Instant) -> Outcome {
        let actions = [Signal::TERM, Signal::CONT].map(|signal| Action::SignalTree(signal, scope));
        self.go(Phase::Sweeping { until }, cause, now, actions.to_vec())
    }

    /// Three quarters of the reserve are for the killed to vanish, the rest is
    /// for castoff to end before the platform's own SIGKILL.
    fn kill(&mut self, cause: Cause, now: Instant) -> Outcome {
        self.late = self.late_arrivals();
        self.child.was_killed |= self.child.is_up;
        let reserve = self.rules.stop_plan.reserve;
        let mut give_up_at = now + reserve * 3 / 4;
        if let Some(stop) = self.stop {
            give_up_at = give_up_at.min(self.rules.stop_plan.last_moment(stop.at));
        }
        let give_up_at = give_up_at.max(now + STRIKE_INTERVAL);
        let until = now + STRIKE_INTERVAL;
        let kill = Action::SignalTree(Signal::KILL, self.scope());
        let actions = vec![Action::ListSurvivors, kill];
        self.go(Phase::Killing { until, give_up_at }, cause, now, actions)
    }

    fn exit(&mut self, cause: Cause, now: Instant) -> Outcome {
        let child_code = || {
            let reason = self.child.exit.unwrap_or(ExitReason::Signal(Signal::KILL));
            self.rules.exit_map.apply(reason.code())
        };
        let has_obeyed = self.stop.is_some() && !self.child.is_up && !self.child.was_killed;
        let stopped_code = self.rules.stopped_exit_code.filter(|_| has_obeyed);
        let code = stopped_code.or(self.failure).unwrap_or_else(child_code);
        self.go(Phase::Exited, cause, now, vec![Action::Exit(code)])
    }

    /// Who is meant by the tree: a restart must spare whoever is in the
    /// container to find out why.
    fn scope(&self) -> Scope {
        if self.restart.is_some() { Scope::Descendants } else { Scope::Everything }
    }

    fn uptime(&self, now: Instant) -> Duration {
        self.child.started_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }

    /// `until`, or the time of CASTOFF_HANG_SIGNAL before it. A budget that is
    /// shorter than its lead is halved.
    fn or_hang_at(&self, until: Instant) -> Instant {
        if self.rules.hang_signal.is_none() || self.was_hang_sent {
            return until;
        }
        let left = until.saturating_duration_since(self.entered_at);
        until.checked_sub(HANG_LEAD.min(left / 2)).unwrap_or(until)
    }

    fn go(&mut self, to: Phase, cause: Cause, now: Instant, actions: Vec<Action>) -> Outcome {
        let drained = match (self.phase, cause) {
            (Phase::Draining { drain, .. }, Cause::Drained(end)) => {
                Some(Drained { end, connections: drain.connections() })
            }
            (Phase::Draining { drain, over: Some(end), .. }, Cause::PreStopFinished) => {
                Some(Drained { end, connections: drain.connections() })
            }
            _ => None,
        };
        let change = PhaseChange {
            from: self.phase.name(),
            to: to.name(),
            cause,
            elapsed: now.saturating_duration_since(self.entered_at),
            drained,
        };
        self.phase = to;
        if change.from == change.to {
            return Outcome::act(actions);
        }
        self.entered_at = now;
        Outcome { change: Some(change), actions }
    }
}

impl Phase {
    fn name(self) -> PhaseName {
        match self {
            Self::Preparing | Self::Starting | Self::BackingOff { .. } => PhaseName::Starting,
            Self::Serving => PhaseName::Serving,
            Self::Draining { .. } => PhaseName::Draining,
            Self::Stopping { .. } => PhaseName::Stopping,
            Self::Sweeping { .. } | Self::Concluding => PhaseName::Sweeping,
            Self::Killing { .. } => PhaseName::Killing,
            Self::Exited => PhaseName::Exited,
        }
    }
}

#[cfg(test)]
mod tests;

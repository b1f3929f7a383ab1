//! The life of a container as one state machine: what has happened comes in
//! with its time, what to do about it goes out.
//!
//! It never does anything itself: `supervisor` turns signals, exits and elapsed
//! time into `Event`s, performs the `Action`s and logs the `PhaseChange`.
//!
//! ```text
//! starting -> serving   : child_ready
//! starting -> draining  : stop_requested | restart_requested    never ready, but a pre-stop hook is to run
//! starting -> stopping  : stop_requested | restart_requested    never ready: nothing to drain
//! starting -> sweeping  : child_exited | start_failed | pre_start_failed | wait_timed_out
//! starting -> sweeping  : stop_requested           no child yet, or no longer
//! starting -> exited    : child_exited | start_failed | pre_start_failed | wait_timed_out
//! starting -> exited    : stop_requested           nobody is left
//! serving  -> draining  : stop_requested | restart_requested
//! serving  -> stopping  : stop_requested | restart_requested    no drain is configured
//! serving  -> sweeping  : child_exited
//! serving  -> starting  : child_exited             it is to be restarted
//! serving  -> exited    : child_exited
//! draining -> stopping  : drain_delay | drain_quiet | drain_max | pre_stop_finished | second_signal
//! draining -> sweeping  : child_exited
//! draining -> starting  : child_exited             a restart was asked for
//! draining -> exited    : child_exited
//! stopping -> killing   : deadline | third_signal
//! stopping -> sweeping  : child_exited
//! stopping -> starting  : child_exited             a restart was asked for
//! stopping -> exited    : child_exited
//! sweeping -> killing   : deadline | third_signal
//! sweeping -> killing   : post_stop_finished       the hook has left somebody behind
//! sweeping -> starting  : tree_gone                the child is to be restarted
//! sweeping -> exited    : tree_gone | post_stop_finished
//! killing  -> starting  : child_exited | tree_gone | gave_up
//! killing  -> sweeping  : child_exited | tree_gone    the post-stop hook runs
//! killing  -> exited    : child_exited | tree_gone | gave_up
//! ```

mod end;
mod stop;
mod words;

use std::time::Instant;

pub(crate) use words::{
    Action, Cause, Checked, Drained, Event, Outcome, PhaseChange, Rules, Scope, WaitRules,
};

use super::drain::{Drain, DrainEnd};
use super::exit::{CASTOFF_FAILED, ChildEnd, ExitReason};
use super::flush::Flush;
use super::hooks::{Hook, RunningHook};
use super::late::{Arrivals, Late};
use super::restart::{Attempt, Backoff};
use super::signal::Signal;
use super::status::PhaseName;
use super::stop_plan::{ReadinessOnStop, STRIKE_INTERVAL};
use super::traffic::Look;

/// A waiting phase says until when; `DeadlineReached` is a no-op before.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// What CASTOFF_WAIT_FOR names has not passed.
    Waiting {
        until: Instant,
    },
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
        over: Option<(DrainEnd, Instant)>,
    },
    Stopping {
        until: Instant,
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
    /// When it is killed, once it was told: a stop that takes the place of a
    /// restart gives it no more time.
    until: Option<Instant>,
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
    /// The child is stopped to be started again: since when.
    renewal: Option<Instant>,
    was_ready: bool,
    child: Child,
    hook: Option<RunningHook>,
    look_begun_at: Instant,
    /// Since the child was told.
    late: Option<Late>,
    /// castoff ends because of a stop request, and did not have to kill the child.
    has_obeyed: bool,
    was_hang_sent: bool,
    were_survivors_listed: bool,
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
            renewal: None,
            was_ready: false,
            child: Child::default(),
            hook: None,
            look_begun_at: now,
            late: None,
            has_obeyed: false,
            was_hang_sent: false,
            were_survivors_listed: false,
            was_concluded: false,
            restart: None,
            failure: None,
        }
    }

    /// The first actions; to be called once, before any event.
    pub(crate) fn begin(&mut self, now: Instant) -> Outcome {
        match self.rules.wait {
            Some(wait) => {
                self.phase = Phase::Waiting { until: now + wait.timeout };
                Outcome::default()
            }
            None => self.prepare(now),
        }
    }

    /// Takes one event. `now` must not run backwards between calls.
    pub(crate) fn on(&mut self, event: Event, now: Instant) -> Outcome {
        if let Phase::Exited = self.phase
            && !matches!(event, Event::TrafficSeen(_))
        {
            return Outcome::default();
        }
        match event {
            Event::WaitPassed => match self.phase {
                Phase::Waiting { .. } => self.prepare(now),
                _ => Outcome::default(),
            },
            Event::ChildStarted => {
                self.child = Child { started_at: Some(now), is_up: true, ..Child::default() };
                self.failure = None;
                self.was_hang_sent = false;
                self.were_survivors_listed = false;
                self.late = None;
                Outcome::default()
            }
            Event::StartFailed(code) => self.start_failed(code, now),
            Event::ChildReady => self.child_ready(now),
            Event::StopRequested(signal) => self.stop_requested(signal, now),
            Event::RestartRequested(signal) => self.restart_requested(signal, now),
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
            Phase::Stopping { until } => {
                let look_at = self.late.and_then(|late| late.due_at());
                [Some(self.warn_at(until)), look_at].into_iter().flatten().min()
            }
            Phase::Sweeping { until } => Some(self.warn_at(until)),
            Phase::Waiting { until }
            | Phase::BackingOff { until }
            | Phase::Killing { until, .. } => Some(until),
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

    /// Whose checks are to run. After a stop request none: what they would ask
    /// is about to go, and their connections would be traffic.
    pub(crate) fn checked(&self) -> Checked {
        match self.phase {
            Phase::Waiting { .. } => Checked::Start,
            Phase::Starting | Phase::Serving if self.child.is_up => Checked::Child,
            _ => Checked::Nothing,
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

    /// Whether the child is being stopped only to be started again.
    pub(crate) fn is_renewing(&self) -> bool {
        self.renewal.is_some()
    }

    /// When whoever is left by then is killed, once the child is to stop.
    pub(crate) fn kill_at(&self) -> Option<Instant> {
        let asked_at = self.asked_at()?;
        Some(self.child.until.unwrap_or_else(|| self.rules.stop_plan.deadline(asked_at)))
    }

    /// How long castoff's end may wait for a reader of the child's lines.
    pub(crate) fn flush(&self, now: Instant) -> Flush {
        Flush::new(&self.rules.stop_plan, self.stop.map(|stop| stop.at), now)
    }

    /// Since when the child is to stop, for good or to be started again.
    fn asked_at(&self) -> Option<Instant> {
        self.stop.map(|stop| stop.at).or(self.renewal)
    }

    /// Whether the hook that runs has been sent SIGKILL for its time.
    pub(crate) fn has_hook_timed_out(&self) -> bool {
        self.hook.is_some_and(|hook| hook.has_timed_out)
    }

    /// What has come since the child was told; `None`: it never was.
    pub(crate) fn late_arrivals(&self) -> Option<Arrivals> {
        self.late.map(|late| late.arrivals())
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
            Phase::Stopping { until } | Phase::Sweeping { until }
                if until > self.warn_at(until) && now >= self.warn_at(until) =>
            {
                self.warn(until, now)
            }
            Phase::Stopping { until } | Phase::Sweeping { until } if now >= until => {
                self.kill(Cause::Deadline, now)
            }
            Phase::Stopping { .. } if self.late.is_some_and(|late| late.is_due(now)) => {
                self.look(now)
            }
            Phase::BackingOff { until } if now >= until => self.start_child(),
            Phase::Waiting { until } if now >= until => {
                self.failure = Some(CASTOFF_FAILED);
                self.leave(Cause::WaitTimedOut, now)
            }
            Phase::Killing { until, give_up_at } if now >= until => {
                if now >= give_up_at {
                    return self.give_up(now);
                }
                let until = give_up_at.min(now + STRIKE_INTERVAL);
                self.phase = Phase::Killing { until, give_up_at };
                Outcome::act(vec![Action::SignalTree(Signal::KILL, self.scope())])
            }
            Phase::Waiting { .. }
            | Phase::Preparing
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

    fn traffic_seen(&mut self, look: Option<Look>, now: Instant) -> Outcome {
        let begun_at = self.look_begun_at;
        if let Phase::Draining { drain, .. } = &mut self.phase {
            drain.saw(look, begun_at, now);
            return self.settle_drain(None, now);
        }
        // Whoever comes after a kill was told of before it.
        if let Some(late) =
            self.late.as_mut().filter(|_| !matches!(self.phase, Phase::Killing { .. }))
        {
            late.saw(look, begun_at, now);
        }
        Outcome::default()
    }

    fn look(&mut self, now: Instant) -> Outcome {
        self.look_begun_at = now;
        Outcome::act(vec![Action::Look])
    }

    /// What comes before the child.
    fn prepare(&mut self, now: Instant) -> Outcome {
        if !self.rules.hooks.has_pre_start {
            return self.start_child();
        }
        self.phase = Phase::Preparing;
        self.start_hook(Hook::PreStart, now + self.rules.hooks.timeout)
    }

    fn start_child(&mut self) -> Outcome {
        self.phase = Phase::Starting;
        Outcome::act(vec![Action::StartChild])
    }

    fn start_hook(&mut self, hook: Hook, until: Instant) -> Outcome {
        self.hook = Some(RunningHook::new(until));
        Outcome::act(vec![Action::StartHook(hook)])
    }

    fn go(&mut self, to: Phase, cause: Cause, now: Instant, actions: Vec<Action>) -> Outcome {
        let drained = match (self.phase, cause) {
            (Phase::Draining { drain, over, .. }, Cause::Drained(_) | Cause::PreStopFinished)
                if !drain.is_none() =>
            {
                let (end, at) = over.unwrap_or((DrainEnd::SecondSignal, now));
                let waited = at.saturating_duration_since(self.entered_at);
                Some(Drained { end, waited, connections: drain.connections() })
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
            Self::Waiting { .. } | Self::Preparing | Self::Starting | Self::BackingOff { .. } => {
                PhaseName::Starting
            }
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

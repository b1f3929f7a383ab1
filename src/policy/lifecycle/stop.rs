//! The stop: from the request over the drain and the child's signal to the
//! kill.

use std::time::{Duration, Instant};

use super::{Action, Cause, Lifecycle, Outcome, Phase, Scope, StopRequest};
use crate::policy::drain::{Drain, DrainEnd};
use crate::policy::exit::ExitReason;
use crate::policy::hooks::{Hook, RunningHook};
use crate::policy::late::Late;
use crate::policy::signal::Signal;
use crate::policy::stop_plan::{DrainPlan, LIST_LEAD, STRIKE_INTERVAL, hang_lead, list_lead};

/// What a pre-start hook gets between SIGTERM and SIGKILL when a stop is asked
/// for: nothing serves yet, and nobody waits.
pub(super) const HOOK_FAREWELL: Duration = Duration::from_millis(500);

/// How long a drain may be held up by learning the ports: a tree of thousands.
const LEARN_TIME: Duration = Duration::from_millis(500);

/// How long the child's stop signal may be, only to count late connections. A
/// usual tree takes a millisecond.
const LEARN_TIME_AT_ONCE: Duration = Duration::from_millis(100);

impl Lifecycle {
    pub(super) fn stop_requested(&mut self, signal: Signal, now: Instant) -> Outcome {
        let stop = self.stop.get_or_insert(StopRequest { at: now, count: 0 });
        stop.count += 1;
        let (count, asked_at) = (stop.count, stop.at);
        // Without the request castoff would go on, whatever became of the child.
        let is_waiting = matches!(self.phase, Phase::BackingOff { .. });
        self.has_obeyed |= self.restart.take().is_some() || is_waiting;
        if self.renewal.take().is_some() {
            return self.stop_instead_of_renewal(signal, now);
        }
        match self.phase {
            Phase::Starting | Phase::Serving if self.child.is_up => {
                self.begin_stop(signal, Cause::StopRequested, now)
            }
            Phase::Waiting { .. } | Phase::Preparing | Phase::Starting | Phase::Serving => {
                // What an unprepared program would have ended with.
                let code = ExitReason::Signal(signal).code();
                self.failure = Some(self.rules.exit_map.apply(code));
                self.has_obeyed = true;
                if !self.may_have_left_somebody() {
                    return self.exit(Cause::StopRequested, now);
                }
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

    /// The child is on its way to an end that was not to be the last one.
    fn stop_instead_of_renewal(&mut self, received: Signal, now: Instant) -> Outcome {
        match &mut self.phase {
            // Whoever sends the traffic begins to look elsewhere only now.
            Phase::Draining { drain, signal, over } => {
                *drain = Drain::new(drain.plan(), now);
                *signal = received;
                *over = None;
                self.settle_drain(None, now)
            }
            // It has been told, and told when it will be killed.
            _ => {
                self.has_obeyed |= !self.child.is_up && !self.child.was_killed;
                Outcome::default()
            }
        }
    }

    pub(super) fn restart_requested(&mut self, signal: Signal, now: Instant) -> Outcome {
        match self.phase {
            Phase::Starting | Phase::Serving if self.child.is_up => {
                self.renewal = Some(now);
                self.begin_stop(signal, Cause::RestartRequested, now)
            }
            // What will be started, will be started with what is true by then.
            _ => Outcome::default(),
        }
    }

    /// The first request to a child that runs.
    fn begin_stop(&mut self, signal: Signal, cause: Cause, now: Instant) -> Outcome {
        // A child that never served has no traffic to lose.
        let plan = match self.phase {
            Phase::Serving => self.rules.stop_plan.drain,
            _ => DrainPlan::fixed(Duration::ZERO),
        };
        // One that outlived its own SIGKILL, at the last restart, is still there.
        let has_pre_stop = self.rules.hooks.has_pre_stop && self.hook.is_none();
        if plan.max.is_zero() && !has_pre_stop {
            return self.tell_child(signal, cause, now);
        }
        let mut actions = vec![Action::LearnPorts(LEARN_TIME)];
        if has_pre_stop {
            let until = now + self.rules.stop_plan.pre_stop_time(self.rules.hooks.timeout);
            self.hook = Some(RunningHook::new(until));
            actions.push(Action::StartHook(Hook::PreStop));
        }
        let drain = Drain::new(plan, now);
        let draining = Phase::Draining { drain, signal, over: None };
        self.go(draining, cause, now, actions)
    }

    /// Tells the child when both the drain and the pre-stop hook are over; with
    /// `cause` when it was the hook that came last.
    pub(super) fn settle_drain(&mut self, cause: Option<Cause>, now: Instant) -> Outcome {
        let Phase::Draining { drain, signal, over } = &mut self.phase else {
            return Outcome::default();
        };
        let was_over = over.is_some();
        *over = over.or_else(|| drain.end(now).map(|end| (end, now)));
        match *over {
            Some((end, _)) if self.hook.is_none_or(|hook| hook.has_timed_out) => {
                let signal = *signal;
                let cause = cause.filter(|_| was_over).unwrap_or(Cause::Drained(end));
                self.tell_child(signal, cause, now)
            }
            _ => Outcome::default(),
        }
    }

    fn tell_child(&mut self, received: Signal, cause: Cause, now: Instant) -> Outcome {
        let mut actions = Vec::new();
        let is_at_once = matches!(cause, Cause::StopRequested | Cause::RestartRequested);
        if is_at_once {
            actions.push(Action::LearnPorts(LEARN_TIME_AT_ONCE));
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
        let asked_at = self.asked_at().unwrap_or(now);
        let until = self.rules.stop_plan.deadline(asked_at);
        self.child.until = Some(until);
        // The end of a drain comes of a look; without a drain `LearnPorts` takes it.
        let has_looked =
            is_at_once || matches!(cause, Cause::Drained(DrainEnd::Delay | DrainEnd::Quiet));
        self.late = Some(Late::new(now, until, has_looked));
        self.go(Phase::Stopping { until }, cause, now, actions)
    }

    fn stop_signal(&self, received: Signal) -> Option<Signal> {
        self.rules.stop_signal.for_child(received, &self.rules.rewrite)
    }

    /// What comes before a kill at `until`: the hang signal, then the list of
    /// the survivors; `until` itself when both have been.
    pub(super) fn warn_at(&self, until: Instant) -> Instant {
        let left = until.saturating_duration_since(self.entered_at);
        let lead = if self.rules.hang_signal.is_some() && !self.was_hang_sent {
            hang_lead(left)
        } else if !self.were_survivors_listed {
            list_lead(left)
        } else {
            Duration::ZERO
        };
        until.checked_sub(lead).unwrap_or(until)
    }

    pub(super) fn warn(&mut self, until: Instant, now: Instant) -> Outcome {
        let mut actions = Vec::new();
        if let Some(signal) = self.rules.hang_signal.filter(|_| !self.was_hang_sent) {
            self.was_hang_sent = true;
            actions.push(Action::SendHangSignal(signal, self.scope()));
        }
        if now >= self.warn_at(until) && !self.were_survivors_listed {
            self.were_survivors_listed = true;
            actions.push(Action::ListSurvivors(self.scope(), LIST_LEAD));
        }
        Outcome::act(actions)
    }

    pub(super) fn kill(&mut self, cause: Cause, now: Instant) -> Outcome {
        self.child.was_killed |= self.child.is_up;
        let give_up_at = self.rules.stop_plan.give_up_at(now, self.asked_at());
        let until = now + STRIKE_INTERVAL;
        let mut actions = Vec::new();
        if let Phase::Stopping { .. } = self.phase {
            actions.push(Action::TellLate);
        }
        if !std::mem::replace(&mut self.were_survivors_listed, true) {
            actions.push(Action::ListSurvivors(self.scope(), LIST_LEAD));
        }
        actions.push(Action::SignalTree(Signal::KILL, self.scope()));
        self.go(Phase::Killing { until, give_up_at }, cause, now, actions)
    }
}

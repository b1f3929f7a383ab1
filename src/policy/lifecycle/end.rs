//! What follows when a process has ended, or was never started: the sweep, the
//! next start, castoff's own end.

use std::time::{Duration, Instant};

use super::{Action, Cause, Lifecycle, Outcome, Phase, Scope};
use crate::policy::exit::{CASTOFF_FAILED, ExitReason};
use crate::policy::hooks::{Hook, HookEnd};
use crate::policy::signal::Signal;

impl Lifecycle {
    pub(super) fn child_exited(
        &mut self,
        reason: ExitReason,
        is_last: bool,
        now: Instant,
    ) -> Outcome {
        self.child.is_up = false;
        self.child.exit = Some(reason);
        self.has_obeyed = self.stop.is_some() && !self.child.was_killed;
        if self.stop.is_none() && matches!(self.phase, Phase::Starting | Phase::Serving) {
            let code = self.rules.exit_map.apply(reason.code());
            self.restart = self.backoff.after(code, self.uptime(now));
        }
        let was_stopping = matches!(self.phase, Phase::Stopping { .. });
        let mut outcome = self.after_child(is_last, now);
        if was_stopping {
            // What has come since the last look has come in vain.
            self.look_begun_at = now;
            outcome.actions.splice(..0, [Action::Look, Action::TellLate]);
        }
        outcome
    }

    fn after_child(&mut self, is_last: bool, now: Instant) -> Outcome {
        match self.phase {
            _ if is_last => self.nobody_left(Cause::ChildExited, now),
            // It is struck until nobody is left.
            Phase::Killing { .. } => Outcome::default(),
            _ => {
                let begun_at = self.asked_at().unwrap_or(now);
                let until = self.rules.stop_plan.deadline(begun_at);
                self.sweep(until, self.scope(), Cause::ChildExited, now)
            }
        }
    }

    pub(super) fn start_failed(&mut self, code: u8, now: Instant) -> Outcome {
        self.failure = Some(code);
        if self.child.started_at.is_some() {
            // It has run before: the image is being replaced, or a limit is met.
            self.restart = self.backoff.after(code, Duration::ZERO);
            return self.nobody_left(Cause::StartFailed, now);
        }
        self.leave(Cause::StartFailed, now)
    }

    pub(super) fn hook_finished(&mut self, end: HookEnd, is_last: bool, now: Instant) -> Outcome {
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
    pub(super) fn hook_timed_out(&mut self, now: Instant) -> Outcome {
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

    /// Nobody is left, or nobody who counts: what comes next.
    pub(super) fn nobody_left(&mut self, cause: Cause, now: Instant) -> Outcome {
        if let Some(attempt) = self.restart.take() {
            let until = now + attempt.delay;
            let actions = vec![Action::AnnounceRestart(attempt)];
            return self.go(Phase::BackingOff { until }, cause, now, actions);
        }
        if self.renewal.take().is_some() {
            return self.go(Phase::Starting, cause, now, vec![Action::StartChild]);
        }
        let until = self.stop.map_or(now + self.rules.hooks.timeout, |stop| {
            self.rules.stop_plan.last_call(stop.at).min(now + self.rules.hooks.timeout)
        });
        let has_run = self.child.started_at.is_some();
        let has_room = !self.was_concluded && self.hook.is_none();
        let is_wanted = self.rules.hooks.has_post_stop && has_run && has_room;
        if !(is_wanted && until > now) {
            return self.exit(cause, now);
        }
        self.was_concluded = true;
        let actions = self.start_hook(Hook::PostStop, until).actions;
        self.go(Phase::Concluding, cause, now, actions)
    }

    /// What was struck again and again is still there: a process that waits for
    /// a device, or another user's. A restart goes on beside it, unless it is
    /// the child itself.
    pub(super) fn give_up(&mut self, now: Instant) -> Outcome {
        if self.is_to_start_again() && !self.child.is_up {
            return self.nobody_left(Cause::GaveUp, now);
        }
        self.exit(Cause::GaveUp, now)
    }

    /// Before the child was ever started only commands can have been.
    pub(super) fn may_have_left_somebody(&self) -> bool {
        let has_hook_run =
            self.rules.hooks.has_pre_start && !matches!(self.phase, Phase::Waiting { .. });
        has_hook_run || self.rules.wait.is_some_and(|wait| wait.runs_commands)
    }

    /// Ends before the child was ever started.
    pub(super) fn leave(&mut self, cause: Cause, now: Instant) -> Outcome {
        if !self.may_have_left_somebody() {
            return self.exit(cause, now);
        }
        let until = self.rules.stop_plan.deadline(self.stop.map_or(now, |stop| stop.at));
        self.sweep(until, Scope::Everything, cause, now)
    }

    pub(super) fn sweep(
        &mut self,
        until: Instant,
        scope: Scope,
        cause: Cause,
        now: Instant,
    ) -> Outcome {
        let actions = [Signal::TERM, Signal::CONT].map(|signal| Action::SignalTree(signal, scope));
        self.go(Phase::Sweeping { until }, cause, now, actions.to_vec())
    }

    pub(super) fn exit(&mut self, cause: Cause, now: Instant) -> Outcome {
        let child_code = || {
            let reason = self.child.exit.unwrap_or(ExitReason::Signal(Signal::KILL));
            self.rules.exit_map.apply(reason.code())
        };
        let stopped_code = self.rules.stopped_exit_code.filter(|_| self.has_obeyed);
        let code = stopped_code.or(self.failure).unwrap_or_else(child_code);
        self.go(Phase::Exited, cause, now, vec![Action::Exit(code)])
    }

    /// Who is meant by the tree: a restart must spare whoever is in the
    /// container to find out why.
    pub(super) fn scope(&self) -> Scope {
        if self.is_to_start_again() { Scope::Descendants } else { Scope::Everything }
    }

    fn is_to_start_again(&self) -> bool {
        self.restart.is_some() || self.renewal.is_some()
    }

    fn uptime(&self, now: Instant) -> Duration {
        self.child.started_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }
}

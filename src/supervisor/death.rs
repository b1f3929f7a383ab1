//! Why the child ended, and who is told: the log, the metrics, the platform.
//!
//! Owns what castoff has seen of a life that may explain its end. What follows
//! from it is decided in `policy::death`, `policy::oom` and `policy::termination`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Supervisor;
use super::lookout::{Lookout, Scraped};
use crate::log::events;
use crate::policy::death::{Death, Reason, Sender, SentSignals};
use crate::policy::exit::{ExitMap, ExitReason};
use crate::policy::last_words::LastWords;
use crate::policy::lifecycle::{Cause, Event, PhaseChange};
use crate::policy::oom::{ChildAtLook, OomWatch, Victim};
use crate::policy::restart::Attempt;
use crate::policy::signal::Signal;
use crate::policy::status::PhaseName;
use crate::policy::termination::{
    End, Left, NAMES_TOLD, NotStarted, OomTally, PASSAGES_TOLD, Passage, StopStory, Story, compose,
};
use crate::system::Pid;
use crate::system::cgroup::Groups;
use crate::system::termination_log::TerminationLog;
use crate::system::tree::{self, Survivors};

/// For how long castoff's end waits for the file of the termination message, at
/// most: a write takes a fraction of a millisecond, but a container that is held
/// back by its quota of CPU may wait for some periods of 100 ms.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// The same before a restart, when the endpoints wait as well.
const WRITE_BEFORE_START: Duration = Duration::from_millis(100);

/// How long after an OOM kill of another process the child's own end may be a
/// consequence.
const AFTER_OOM: Duration = Duration::from_secs(10);

/// What may explain an end.
pub(crate) struct Witness {
    groups: Groups,
    exit_map: ExitMap,
    termination_log: Option<TerminationLog>,
    begun_at: Instant,
    pub(super) lookout: Lookout,
    /// The end of the stderr of the child that runs, where it goes through castoff.
    pub(super) last_words: LastWords,
    oom: OomWatch,
    oom_tally: OomTally,
    /// The last kill of another than the child.
    other_killed_at: Option<Instant>,
    /// What the child that runs was sent.
    sent: SentSignals,
    /// castoff has sent it SIGKILL.
    was_struck: bool,
    /// The first request.
    stop: Option<(Signal, Sender)>,
    passages: VecDeque<Passage>,
    left: Left,
    attempt: Option<Attempt>,
    /// What castoff would have to end of now.
    end: Option<End>,
    /// Of the child that `end` is about.
    uptime: Option<Duration>,
    /// Checks that did not pass then.
    failing: Vec<String>,
    /// What it had said last then: others may go on writing where it has.
    last_lines: Vec<String>,
    has_written: bool,
}

impl Witness {
    /// Whatever the OOM killer has done before is nobody's of this life.
    pub(crate) fn new(
        groups: Groups,
        exit_map: ExitMap,
        termination_log: Option<TerminationLog>,
        begun_at: Instant,
        scraped: Scraped,
    ) -> Self {
        Self {
            oom: OomWatch::new(groups.oom_counts()),
            groups,
            exit_map,
            termination_log,
            begun_at,
            lookout: Lookout::new(scraped),
            last_words: LastWords::default(),
            oom_tally: OomTally::default(),
            other_killed_at: None,
            sent: SentSignals::default(),
            was_struck: false,
            stop: None,
            passages: VecDeque::new(),
            left: Left::default(),
            attempt: None,
            end: None,
            uptime: None,
            failing: Vec::new(),
            last_lines: Vec::new(),
            has_written: false,
        }
    }

    /// To be called when a child was started.
    pub(super) fn prepare_to_look_out(&mut self) {
        self.lookout.prepare(&self.groups);
    }

    /// Finds out from now on when the counters are worth a look.
    pub(super) fn look_out(&mut self) {
        self.lookout.begin(&self.groups);
    }

    /// The child was sent a signal, passed on from `sender` or castoff's own.
    pub(super) fn has_sent(&mut self, signal: Signal, sender: Option<Sender>) {
        self.sent.add(signal, sender, Instant::now());
    }

    pub(super) fn stop_requested(&mut self, signal: Signal, sender: Sender) {
        self.stop.get_or_insert((signal, sender));
    }

    pub(super) fn restart_announced(&mut self, attempt: Attempt) {
        self.attempt = Some(attempt);
    }

    pub(super) fn survivors_listed(&mut self, survivors: &Survivors) {
        let names = survivors.listed.iter().take(NAMES_TOLD).map(|left| left.command.clone());
        self.left = Left { names: names.collect(), total: survivors.total };
    }

    /// Whether an end of now with that code is one that nobody wanted.
    fn is_abnormal(&self, code: u8) -> bool {
        self.end.as_ref().is_some_and(|end| match end {
            End::Child(death) => death.is_abnormal(code),
            End::NotStarted(_) => code != 0,
        })
    }

    /// The child's program cannot be run.
    pub(super) fn start_failed(&mut self, cause: String) {
        self.end = Some(End::NotStarted(NotStarted::Program(cause)));
    }

    fn passed(&mut self, change: &PhaseChange, now: Instant) {
        let at = now.saturating_duration_since(self.begun_at);
        self.passages.push_back(Passage { at, change: *change });
        if self.passages.len() > PASSAGES_TOLD {
            self.passages.pop_front();
        }
        match (change.from, change.cause) {
            (_, Cause::PreStartFailed) => self.end = Some(End::NotStarted(NotStarted::PreStart)),
            (_, Cause::WaitTimedOut) => self.end = Some(End::NotStarted(NotStarted::Wait)),
            // Whatever has been before, castoff would have gone on.
            (PhaseName::Starting, Cause::StopRequested) => self.end = None,
            _ => {}
        }
    }
}

impl Supervisor {
    /// Tells of each kill by the OOM killer since the last look, once. May be
    /// called at any time and as often as anybody likes: it reads two files.
    pub(crate) fn look_at_oom(&mut self) {
        let child = self.child.filter(|_| self.child_is_up);
        let (proc_root, was_struck) = (self.setting.proc_root.clone(), self.witness.was_struck);
        self.look_at_oom_with(|| match child {
            Some(_) if was_struck => ChildAtLook::Struck,
            Some(child) if tree::is_ending(&proc_root, child) => ChildAtLook::Ending,
            _ => ChildAtLook::Unharmed,
        });
    }

    /// The child has been reaped: tells why, then does what follows.
    pub(super) fn child_exited(&mut self, reason: ExitReason, is_core_dumped: bool, is_last: bool) {
        self.relay.hear_last_words(&mut self.witness.last_words);
        let outcome = self.lifecycle.on(Event::ChildExited { reason, is_last }, Instant::now());
        self.child_died(reason, is_core_dumped);
        self.take(outcome);
        self.leave_first_word();
    }

    /// To be called once the lifecycle knows.
    fn child_died(&mut self, exit: ExitReason, is_core_dumped: bool) {
        let by_castoff = self.witness.was_struck;
        let is_oom = self.look_at_oom_with(|| match exit {
            ExitReason::Signal(Signal::KILL) => ChildAtLook::Killed { by_castoff },
            _ => ChildAtLook::Unharmed,
        });
        let reason = self.lifecycle.child_end().map_or(Reason::Exited, |end| {
            Reason::new(end, is_oom) // of a child that has ended there is one
        });
        let origin = match exit {
            ExitReason::Signal(signal) if !is_oom => {
                self.witness.sent.origin(signal, Instant::now())
            }
            _ => None,
        };
        let death = Death { exit, reason, origin, is_core_dumped };
        let uptime = self.child_started_at.elapsed();
        let code = self.witness.exit_map.apply(exit.code());
        self.witness.last_lines = self.witness.last_words.lines();
        let told = if death.is_abnormal(code) { &*self.witness.last_lines } else { &[] };
        events::child_exited(self.child.map_or(0, Pid::as_raw), &death, uptime, told);
        self.status.send_modify(|status| status.child_exits.add(reason));
        self.witness.failing = self.failing_checks();
        self.witness.uptime = Some(uptime);
        self.witness.end = Some(End::Child(death));
    }

    /// The next child was sent nothing, and what was written of the last one must
    /// not be taken for its end.
    pub(super) fn forget_the_last_child(&mut self) {
        self.witness.sent.clear();
        self.witness.was_struck = false;
        self.witness.left = Left::default();
        self.witness.last_words.clear();
        self.witness.last_lines.clear();
        self.witness.end = None;
        if std::mem::take(&mut self.witness.has_written)
            && let Some(log) = &self.witness.termination_log
        {
            log.write("");
            // Before the child can write there itself.
            log.finish(WRITE_BEFORE_START);
        }
    }

    pub(super) fn note_change(&mut self, change: &PhaseChange) {
        self.witness.passed(change, Instant::now());
        if change.cause == Cause::WaitTimedOut {
            self.witness.failing = self.checks.pending_names();
        }
    }

    /// castoff is about to kill: afterwards nobody can tell who it was.
    pub(super) fn note_strike(&mut self) {
        self.look_at_oom();
        self.witness.was_struck |= self.child_is_up;
    }

    /// Writes the termination message as soon as there is a cause: the platform's
    /// SIGKILL may come before castoff's own end.
    pub(super) fn leave_first_word(&mut self) {
        if self.exit_code.is_some() {
            return;
        }
        let exit = ExitReason::Signal(Signal::KILL);
        let killed = || Death {
            exit,
            reason: Reason::KilledAtDeadline,
            origin: None,
            is_core_dumped: false,
        };
        if self.child_is_up {
            self.witness.failing = self.failing_checks();
            self.witness.uptime = Some(self.child_started_at.elapsed());
            self.witness.last_lines = self.witness.last_words.lines();
            self.witness.end = Some(End::Child(killed()));
        }
        let own = match &self.witness.end {
            Some(End::Child(death)) => death.exit.code(),
            Some(End::NotStarted(_)) | None => return,
        };
        let code = self.witness.exit_map.apply(own);
        // Of a good end there is nothing to write, and to take back only castoff's.
        if self.witness.is_abnormal(code) || self.witness.has_written {
            self.write_message(code);
        }
    }

    /// The termination message, now that the code is known; to be called last.
    pub(crate) fn leave_last_word(&mut self, code: u8) {
        self.write_message(code);
        if let Some(log) = &self.witness.termination_log {
            log.finish(LAST_WRITE);
            tell_failure(log);
        }
    }

    fn look_at_oom_with(&mut self, child: impl FnOnce() -> ChildAtLook) -> bool {
        let now = Instant::now();
        let witness = &mut self.witness;
        let seen = witness.oom.look(witness.groups.oom_counts(), child, now);
        for kill in &seen.kills {
            events::oom_kill(kill.count, kill.victim.as_str());
            witness.oom_tally.add(kill.count, kill.victim);
            if kill.victim != Victim::Child {
                witness.other_killed_at = Some(now);
            }
        }
        seen.is_childs_end
    }

    fn failing_checks(&self) -> Vec<String> {
        let status = self.status.borrow();
        let failing = status.checks.iter().filter(|check| !check.is_up);
        failing.map(|check| check.name.clone()).collect()
    }

    fn write_message(&mut self, code: u8) {
        let Some(log) = &self.witness.termination_log else { return };
        tell_failure(log);
        let is_abnormal = self.witness.is_abnormal(code);
        // Of the good end of a castoff after another one the word of that one goes.
        let text = if is_abnormal { self.message(code) } else { String::new() };
        log.write(&text);
        self.witness.has_written = is_abnormal;
    }

    fn message(&self, exit_code: u8) -> String {
        let Some(end) = &self.witness.end else { return String::new() };
        let witness = &self.witness;
        let status = self.status.borrow();
        let stop = self.lifecycle.stop_requested_at().zip(self.lifecycle.kill_at());
        let stop = stop.zip(witness.stop.clone()).map(|((at, kill_at), (signal, sender))| {
            let (elapsed, killed_after) = (at.elapsed(), kill_at.saturating_duration_since(at));
            StopStory { signal, sender, elapsed, killed_after }
        });
        let gave_up_after = witness
            .attempt
            .filter(|attempt| attempt.limit == Some(attempt.in_a_row) && stop.is_none())
            .map(|attempt| attempt.in_a_row);
        let failing: Vec<_> = witness.failing.iter().map(String::as_str).collect();
        let passages: Vec<_> = witness.passages.iter().copied().collect();
        compose(&Story {
            end,
            exit_code,
            command: &self.launcher.name().to_string_lossy(),
            uptime: witness.uptime,
            restarts: status.restarts,
            gave_up_after,
            is_after_oom: witness.other_killed_at.is_some_and(|at| at.elapsed() < AFTER_OOM),
            oom: witness.oom_tally,
            limits: &status.limits,
            stop: stop.as_ref(),
            passages: &passages,
            left: &witness.left,
            has_child_outlived: self.child_is_up && self.exit_code.is_some(),
            failing: &failing,
            last_words: &witness.last_lines,
        })
    }
}

fn tell_failure(log: &TerminationLog) {
    if let Some(error) = log.failure() {
        events::termination_log_failed(log.path(), error);
    }
}

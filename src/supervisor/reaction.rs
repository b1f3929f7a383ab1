//! What castoff does about a change around the child, of its limits or of watched
//! files: a signal, a command or a restart.
//!
//! It waits until the child serves and does nothing once a stop was asked for. A
//! command runs once at a time, and once more for a change meanwhile. What is a
//! change, and how it is told, is not decided here.

use std::ffi::CString;
use std::time::{Duration, Instant};

use super::Supervisor;
use super::launcher::{CommandError, Launcher};
use super::runner::Runner;
use crate::policy::exit::ExitReason;
use crate::policy::lifecycle::{Checked, Event};
use crate::policy::reaction::Reaction;
use crate::policy::signal::Signal;
use crate::policy::status::PhaseName;
use crate::system::Pid;

/// A reaction that was chosen, for `run` to build.
pub(crate) struct ReactionSetting {
    pub(crate) reaction: Reaction,
    /// That of the reaction, if it is one.
    pub(crate) command: Vec<CString>,
    /// How long the command may take.
    pub(crate) timeout: Duration,
}

/// What is reacted to.
#[derive(Clone, Copy, Debug)]
enum Subject {
    Limits,
    Files,
}

/// A reaction, and how far it is.
pub(super) struct Reactor {
    /// What the log calls the command.
    name: &'static str,
    setting: ReactionSetting,
    runner: Runner,
    kill_at: Option<Instant>,
    was_killed: bool,
    /// Something changed, and the child has not been told.
    must_react: bool,
    /// Something changed while the command ran.
    must_run_again: bool,
}

impl Reactor {
    pub(super) fn new(name: &'static str, setting: ReactionSetting) -> Self {
        Self {
            name,
            setting,
            runner: Runner::default(),
            kill_at: None,
            was_killed: false,
            must_react: false,
            must_run_again: false,
        }
    }

    pub(super) fn reaction(&self) -> &Reaction {
        &self.setting.reaction
    }

    /// A child has been started: it was given what holds now.
    pub(super) fn child_started(&mut self) {
        self.must_react = false;
    }

    /// Whether castoff started that process for it.
    pub(super) fn is(&self, pid: Pid) -> bool {
        self.runner.pid() == Some(pid)
    }

    /// The command that runs.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.runner.pid()
    }

    /// Waits for what the command writes and logs it. Never ready while nothing
    /// can come.
    pub(super) async fn log_output(&mut self) {
        self.runner.log_output().await;
    }

    pub(super) async fn hear_last_words(&mut self) {
        self.runner.hear_last_words().await;
    }

    /// When `kill_if_due` has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.kill_at
    }

    /// Kills the command if it has taken too long.
    pub(super) fn kill_if_due(&mut self, now: Instant) {
        if self.kill_at.is_some_and(|kill_at| now >= kill_at) {
            self.kill_at = None;
            self.was_killed = true;
            self.runner.kill();
        }
    }

    fn run(&mut self, launcher: &Launcher) -> Result<(), CommandError> {
        self.must_run_again = self.runner.pid().is_some();
        if self.must_run_again {
            return Ok(());
        }
        self.was_killed = false;
        self.runner.start(self.name, &self.setting.command, launcher)?;
        self.kill_at = Some(Instant::now() + self.setting.timeout);
        Ok(())
    }

    /// The command has been reaped. Returns whether it is to run once more.
    fn end(&mut self, reason: ExitReason) -> bool {
        self.kill_at = None;
        self.runner.end(reason, self.was_killed);
        std::mem::take(&mut self.must_run_again)
    }
}

impl Supervisor {
    /// Reacts to changed limits as soon as may be. A child that has been told to
    /// stop needs no other word.
    pub(super) fn react_to_limits(&mut self) {
        self.react_to(Subject::Limits);
    }

    /// The same for changed files.
    pub(super) fn react_to_files(&mut self) {
        self.react_to(Subject::Files);
    }

    fn react_to(&mut self, subject: Subject) {
        if self.lifecycle.checked() == Checked::Child {
            self.reactor(subject).must_react = true;
            self.react_if_serving();
        }
    }

    /// One that does not serve yet may not have its handlers: the signal that it is
    /// to be told by would end it.
    pub(super) fn react_if_serving(&mut self) {
        for subject in [Subject::Limits, Subject::Files] {
            // The first reaction may have been a restart.
            let is_serving = self.lifecycle.phase() == PhaseName::Serving;
            if is_serving && std::mem::take(&mut self.reactor(subject).must_react) {
                self.react(subject);
            }
        }
    }

    fn react(&mut self, subject: Subject) {
        match self.reactor(subject).setting.reaction {
            Reaction::Log => {}
            // Not rewritten: it is the user's own choice, and nobody sent it.
            Reaction::Signal(signal) => self.signal_child(signal, self.setting.to_group),
            Reaction::Exec(_) => self.run_reaction(subject),
            Reaction::Restart => self.restart_child(),
        }
    }

    /// The child is to be started again, in order.
    fn restart_child(&mut self) {
        let signal = self.setting.stop_on.first().copied().unwrap_or(Signal::TERM);
        self.on(Event::RestartRequested(signal));
    }

    fn run_reaction(&mut self, subject: Subject) {
        let reactor = match subject {
            Subject::Limits => &mut self.limits.reactor,
            Subject::Files => &mut self.files.reactor,
        };
        if let Err(error) = reactor.run(&self.launcher) {
            // It is logged, and its process, if there was one, nobody's orphan.
            self.refused.extend(error.pid());
        }
    }

    fn reactor(&mut self, subject: Subject) -> &mut Reactor {
        match subject {
            Subject::Limits => &mut self.limits.reactor,
            Subject::Files => &mut self.files.reactor,
        }
    }

    /// The commands that run.
    pub(super) fn reaction_pids(&self) -> impl Iterator<Item = Pid> {
        self.limits.reactor.pid().into_iter().chain(self.files.reactor.pid())
    }

    /// Whether castoff started that process for a change.
    pub(super) fn is_reaction(&self, pid: Pid) -> bool {
        self.limits.reactor.is(pid) || self.files.reactor.is(pid)
    }

    /// That command has been reaped.
    pub(super) fn reaction_ended(&mut self, pid: Pid, reason: ExitReason) {
        let subject = if self.limits.reactor.is(pid) { Subject::Limits } else { Subject::Files };
        let must_run_again = self.reactor(subject).end(reason);
        if must_run_again && self.lifecycle.checked() == Checked::Child {
            self.run_reaction(subject);
        }
    }
}

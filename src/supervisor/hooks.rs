//! The hooks: which commands they are, and the one that runs.
//!
//! When one runs, and what follows from its end, is decided in
//! `policy::lifecycle`; who ended is told by the supervisor.

use std::ffi::CString;

use super::launcher::{CommandError, Launcher};
use super::runner::Runner;
use crate::policy::exit::ExitReason;
use crate::policy::hooks::Hook;
use crate::system::Pid;

/// The commands; one that is empty is none.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    pub(crate) pre_start: Vec<CString>,
    pub(crate) pre_stop: Vec<CString>,
    pub(crate) post_stop: Vec<CString>,
}

impl Commands {
    fn of(&self, hook: Hook) -> &[CString] {
        match hook {
            Hook::PreStart => &self.pre_start,
            Hook::PreStop => &self.pre_stop,
            Hook::PostStop => &self.post_stop,
        }
    }
}

/// All hooks, of which one runs at a time.
pub(super) struct Hooks {
    commands: Commands,
    runner: Runner,
}

impl Hooks {
    pub(super) fn new(commands: Commands) -> Self {
        Self { commands, runner: Runner::default() }
    }

    /// Starts the hook. One that still runs, although it was killed, is left to
    /// the reaper.
    pub(super) fn start(&mut self, hook: Hook, launcher: &Launcher) -> Result<(), CommandError> {
        self.runner.start(hook.as_str(), self.commands.of(hook), launcher)
    }

    pub(super) fn is(&self, pid: Pid) -> bool {
        self.runner.pid() == Some(pid)
    }

    /// The one that runs.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.runner.pid()
    }

    pub(super) fn kill(&self) {
        self.runner.kill();
    }

    /// Waits for output and logs it. Never ready while nothing can come.
    pub(super) async fn log_output(&mut self) {
        self.runner.log_output().await;
    }

    /// The hook that runs has been reaped: logs the rest of what it wrote, and
    /// how it ended.
    pub(super) fn end(&mut self, reason: ExitReason, has_timed_out: bool) {
        self.runner.end(reason, has_timed_out);
    }

    /// Logs what the daemons of hooks have written to their end.
    pub(super) async fn hear_last_words(&mut self) {
        self.runner.hear_last_words().await;
    }
}

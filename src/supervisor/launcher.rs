//! Starting the child, the hooks, and the commands of checks and of a changed
//! limit: what they have in common.
//!
//! Owns what castoff was given and passes on. It waits for nobody and decides
//! nothing.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use super::environment::Environment;
use crate::log::events;
use crate::policy::exit::{CASTOFF_FAILED, NOT_EXECUTABLE, NOT_FOUND};
use crate::policy::limits::Limits;
use crate::policy::signal::Signal;
use crate::policy::user::Credentials;
use crate::system::Pid;
use crate::system::child::{self, Launch, SpawnError, Stdio};
use crate::system::oom_score::OomScore;
use crate::system::output::{self, Output};
use crate::system::terminal::Terminal;

/// What every process that castoff starts gets.
pub(crate) struct Launcher {
    pub(crate) command: Vec<CString>,
    pub(crate) environment: Environment,
    /// Whom the child runs as; `None`: as castoff, like everybody else.
    pub(crate) user: Option<Credentials>,
    /// Where everybody starts; `None`: where castoff was started.
    pub(crate) directory: Option<CString>,
    pub(crate) oom_score: Option<OomScore>,
    /// The signal mask that castoff was started with.
    pub(crate) mask: u64,
    /// Signals whose disposition castoff has changed, and whether each had been
    /// ignored before.
    pub(crate) dispositions: Vec<(Signal, bool)>,
    pub(crate) terminal: Option<Terminal>,
}

impl Launcher {
    /// The child's name, without arguments, which may hold secrets.
    pub(crate) fn name(&self) -> &OsStr {
        name(&self.command)
    }

    /// Reads anew what may have changed since the last start of the child. What
    /// cannot be read stays as it was: by now castoff goes on.
    pub(super) fn refresh(&mut self, limits: &Limits) {
        if let Err(error) = self.environment.read_files() {
            events::env_dir_failed(error);
        }
        self.environment.export(limits);
        self.environment.tell_exports();
    }

    /// Starts the child with those descriptors; `before` is the one that had the
    /// terminal, if any.
    pub(super) fn start_child(
        &self,
        before: Option<Pid>,
        stdio: Stdio<'_>,
        descriptors: &[(BorrowedFd<'_>, RawFd)],
    ) -> Result<Pid, SpawnError> {
        self.release_terminal(before);
        let foreground = self.terminal.as_ref().filter(|terminal| terminal.has_foreground());
        let environment = self.environment.of_child();
        let started = child::spawn(&Launch {
            stdio,
            descriptors,
            user: self.user.as_ref(),
            terminal: foreground,
            ..self.launch(&self.command, &environment)
        });
        if started.is_err() {
            // The child's half may have taken it before it failed.
            foreground.inspect(|terminal| terminal.restore());
        }
        started
    }

    /// Starts a hook, or another command of the user's, and gives what it writes.
    pub(super) fn start_command(&self, command: &[CString]) -> Result<(Pid, Output), CommandError> {
        let input = output::no_input().map_err(CommandError::Pipe)?;
        let (output, write_end) = output::pipe().map_err(CommandError::Pipe)?;
        let stdio = Stdio::apart(input.as_fd(), write_end.as_fd());
        let environment = self.environment.of_commands();
        let hook = child::spawn(&Launch { stdio, ..self.launch(command, &environment) });
        hook.map(|hook| (hook, output)).map_err(CommandError::Spawn)
    }

    /// Gives the terminal back to castoff's own group, for whoever comes next.
    pub(super) fn release_terminal(&self, from: Option<Pid>) {
        if let (Some(terminal), Some(group)) = (&self.terminal, from) {
            terminal.take_back(group);
        }
    }

    fn launch<'a>(&'a self, command: &'a [CString], environment: &'a [CString]) -> Launch<'a> {
        Launch {
            command,
            environment,
            mask: self.mask,
            dispositions: &self.dispositions,
            terminal: None,
            stdio: Stdio::default(),
            descriptors: &[],
            user: None,
            directory: self.directory.as_deref(),
            oom_score: self.oom_score.as_ref(),
        }
    }
}

/// Why a command does not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error("cannot make a pipe: {0}")]
    Pipe(std::io::Error),
    #[error(transparent)]
    Spawn(SpawnError),
}

impl CommandError {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Pipe(_) => CASTOFF_FAILED,
            Self::Spawn(error) => code(error),
        }
    }

    pub(super) fn pid(&self) -> Option<Pid> {
        match self {
            Self::Pipe(_) => None,
            Self::Spawn(error) => error.pid(),
        }
    }
}

/// What a shell would exit with.
pub(super) fn code(error: &SpawnError) -> u8 {
    match error {
        SpawnError::NotFound(_) => NOT_FOUND,
        SpawnError::NotExecutable(_) => NOT_EXECUTABLE,
        SpawnError::Clone(_) | SpawnError::NotPrepared { .. } => CASTOFF_FAILED,
    }
}

/// A command without its arguments.
pub(super) fn name(command: &[CString]) -> &OsStr {
    OsStr::from_bytes(command.first().map(|word| word.to_bytes()).unwrap_or_default())
}

//! The hooks: which commands they are, the one that runs, and what it writes.
//!
//! Owns their part of the log. When one runs, and what follows from its end, is
//! decided in `policy::lifecycle`; who ended is told by the supervisor.

use std::ffi::CString;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::launcher::{self, CommandError, Launcher};
use crate::log::events;
use crate::policy::exit::ExitReason;
use crate::policy::hooks::Hook;
use crate::system::output::Output;
use crate::system::{Pid, kill};

/// How long castoff's end waits for what the daemons of hooks have written. All
/// writers have gone by then, so nothing but reading is left.
const LAST_WORDS: Duration = Duration::from_millis(50);

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
    running: Option<Running>,
    /// One for each hook that has ended and whose output was still open.
    listeners: Vec<JoinHandle<()>>,
}

struct Running {
    hook: Hook,
    pid: Pid,
    started_at: Instant,
    /// `None`: whatever had it open has closed it.
    output: Option<Output>,
}

impl Hooks {
    pub(super) fn new(commands: Commands) -> Self {
        Self { commands, running: None, listeners: Vec::new() }
    }

    /// Starts the hook. One that still runs, although it was killed, is left to
    /// the reaper.
    pub(super) fn start(&mut self, hook: Hook, launcher: &Launcher) -> Result<(), CommandError> {
        let command = self.commands.of(hook);
        let name = launcher::name(command);
        match launcher.start_command(command) {
            Ok((pid, output)) => {
                events::hook_started(hook.as_str(), pid.as_raw(), name);
                let (started_at, output) = (Instant::now(), Some(output));
                self.running = Some(Running { hook, pid, started_at, output });
                Ok(())
            }
            Err(error) => {
                events::hook_failed(hook.as_str(), name, super::one_line(&error));
                Err(error)
            }
        }
    }

    pub(super) fn is(&self, pid: Pid) -> bool {
        self.running.as_ref().is_some_and(|running| running.pid == pid)
    }

    /// The one that runs.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.running.as_ref().map(|running| running.pid)
    }

    pub(super) fn kill(&self) {
        if let Some(running) = &self.running {
            kill::kill_with_group(running.pid);
        }
    }

    /// Waits for output and logs it. Never ready while nothing can come.
    pub(super) async fn log_output(&mut self) {
        let mut lines = Vec::new();
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let Some(output) = &mut running.output else { return std::future::pending().await };
        let has_more = output.next(&mut lines).await;
        log(running.hook, &lines);
        if !has_more {
            running.output = None;
        }
    }

    /// The hook that runs has been reaped: logs the rest of what it wrote, and
    /// how it ended.
    pub(super) fn end(&mut self, reason: ExitReason, has_timed_out: bool) {
        let Some(Running { hook, pid, started_at, output }) = self.running.take() else { return };
        let elapsed = started_at.elapsed();
        let mut lines = Vec::new();
        let output = output.map(|mut output| {
            output.rest(&mut lines);
            output
        });
        log(hook, &lines);
        events::hook_finished(hook.as_str(), pid.as_raw(), reason, elapsed, has_timed_out);
        if let Some(output) = output {
            self.listeners.push(tokio::task::spawn_local(listen_on(hook, output)));
        }
    }

    /// Logs what the daemons of hooks have written to their end.
    pub(super) async fn hear_last_words(&mut self) {
        let heard = async {
            for listener in self.listeners.drain(..) {
                let _ = listener.await;
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, heard).await;
    }
}

/// A daemon that the hook has started may write on, and must not get SIGPIPE.
async fn listen_on(hook: Hook, mut output: Output) {
    let mut has_more = true;
    while has_more {
        let mut lines = Vec::new();
        has_more = output.next(&mut lines).await;
        log(hook, &lines);
    }
}

fn log(hook: Hook, lines: &[String]) {
    for line in lines {
        events::hook_output(hook.as_str(), line);
    }
}

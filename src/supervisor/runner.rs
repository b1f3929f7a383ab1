//! A command of the user's that castoff runs, one at a time: a hook, or what a
//! changed limit is answered with.
//!
//! Owns its part of the log and its output, to the last word of a daemon that it
//! leaves behind. When it runs and for how long is decided elsewhere.

use std::ffi::CString;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::launcher::{self, CommandError, Launcher};
use crate::log::events;
use crate::policy::exit::ExitReason;
use crate::system::output::Output;
use crate::system::{Pid, kill};

/// How long castoff's end waits for what the daemons of commands have written.
/// All writers have gone by then, so nothing but reading is left.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// The one that runs, if any.
#[derive(Default)]
pub(super) struct Runner {
    running: Option<Running>,
    /// One for each command that has ended and whose output was still open.
    listeners: Vec<JoinHandle<()>>,
}

struct Running {
    /// What it is to the log.
    name: &'static str,
    pid: Pid,
    started_at: Instant,
    /// `None`: whatever had it open has closed it.
    output: Option<Output>,
}

impl Runner {
    /// Starts the command, which the log calls `name`. One that still runs is
    /// left to the reaper.
    pub(super) fn start(
        &mut self,
        name: &'static str,
        command: &[CString],
        launcher: &Launcher,
    ) -> Result<(), CommandError> {
        let program = launcher::name(command);
        match launcher.start_command(command) {
            Ok((pid, output)) => {
                events::hook_started(name, pid.as_raw(), program);
                let (started_at, output) = (Instant::now(), Some(output));
                self.running = Some(Running { name, pid, started_at, output });
                Ok(())
            }
            Err(error) => {
                events::hook_failed(name, program, super::one_line(&error));
                Err(error)
            }
        }
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
        log(running.name, &lines);
        if !has_more {
            running.output = None;
        }
    }

    /// The one that runs has been reaped: logs the rest of what it wrote, and how
    /// it ended.
    pub(super) fn end(&mut self, reason: ExitReason, has_timed_out: bool) {
        let Some(Running { name, pid, started_at, output }) = self.running.take() else { return };
        let elapsed = started_at.elapsed();
        let mut lines = Vec::new();
        let output = output.map(|mut output| {
            output.rest(&mut lines);
            output
        });
        log(name, &lines);
        events::hook_finished(name, pid.as_raw(), reason, elapsed, has_timed_out);
        self.listeners.retain(|listener| !listener.is_finished());
        if let Some(output) = output {
            self.listeners.push(tokio::task::spawn_local(listen_on(name, output)));
        }
    }

    /// Logs what the daemons of commands have written to their end.
    pub(super) async fn hear_last_words(&mut self) {
        let heard = async {
            for listener in self.listeners.drain(..) {
                let _ = listener.await;
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, heard).await;
    }
}

/// A daemon that the command has started may write on, and must not get SIGPIPE.
async fn listen_on(name: &'static str, mut output: Output) {
    let mut has_more = true;
    while has_more {
        let mut lines = Vec::new();
        has_more = output.next(&mut lines).await;
        log(name, &lines);
    }
}

fn log(name: &'static str, lines: &[String]) {
    for line in lines {
        events::hook_output(name, line);
    }
}

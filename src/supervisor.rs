//! The loop: every source becomes an `Event`, `Lifecycle` decides, the actions
//! are performed and the status is published.
//!
//! It decides nothing itself and never ends on an error: what fails after the
//! child was started is logged and the loop goes on. Only `run` calls it.

use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use tokio::sync::watch;

use crate::log::events;
use crate::policy::exit::ExitReason;
use crate::policy::lifecycle::{Action, Cause, Event, Lifecycle, PhaseChange};
use crate::policy::signal::Signal;
use crate::policy::status::{PhaseName, Status};
use crate::system::reaper::{self, Change, Left};
use crate::system::signals::{Received, Sender, Signals};
use crate::system::terminal::{self, Terminal};
use crate::system::tree::{self, Scope};
use crate::system::{Errno, Pid, kill};

/// How many turns of reaping the child's end is worth: some 16,000 zombies, or
/// 30 ms.
const LAST_TURNS: usize = 64;

/// What the loop has to know from the settings and the start.
pub(crate) struct Setting {
    pub(crate) stop_on: Vec<Signal>,
    /// Signals go to the child's process group.
    pub(crate) to_group: bool,
    pub(crate) warn_on_orphans: bool,
    pub(crate) proc_root: PathBuf,
    pub(crate) terminal: Option<Terminal>,
}

/// Everything that lives as long as the child's tree.
pub(crate) struct Supervisor {
    setting: Setting,
    lifecycle: Lifecycle,
    signals: Signals,
    batch: Vec<Received>,
    child: Pid,
    child_started_at: Instant,
    child_is_up: bool,
    /// The child was announced as ready, or will never be.
    is_announced: bool,
    /// There may be zombies of which no SIGCHLD will tell.
    must_reap: bool,
    is_suspended: bool,
    status: watch::Sender<Status>,
    exit_code: Option<u8>,
}

/// What woke the loop.
enum Wake {
    Signals,
    Deadline,
    Turn,
}

impl Supervisor {
    pub(crate) fn new(
        setting: Setting,
        lifecycle: Lifecycle,
        signals: Signals,
        child: Pid,
        status: watch::Sender<Status>,
    ) -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        status.send_modify(|status| {
            status.child_is_up = true;
            status.child_started_at = since_epoch.ok().map(|time| time.as_secs_f64());
        });
        Self {
            setting,
            lifecycle,
            signals,
            batch: Vec::new(),
            child,
            child_started_at: Instant::now(),
            child_is_up: true,
            is_announced: false,
            must_reap: false,
            is_suspended: false,
            status,
            exit_code: None,
        }
    }

    /// Runs until nothing is left of the child's tree, or until what is left
    /// cannot be killed; returns what castoff has to exit with. May be called
    /// again after a panic: it goes on where it was.
    pub(crate) async fn supervise(&mut self) -> u8 {
        // Whatever changed before castoff listened, or while it panicked.
        self.must_reap = true;
        loop {
            if let Some(code) = self.exit_code {
                return code;
            }
            match self.wake().await {
                Wake::Signals => self.take_batch(),
                Wake::Deadline => {}
                Wake::Turn => {
                    self.reap();
                    // After the signals that were waiting: a stop request from
                    // before the first answer of the endpoints needs no drain.
                    if !std::mem::replace(&mut self.is_announced, true) {
                        self.on(Event::ChildReady);
                    }
                }
            }
            // Asked in every turn: neither a flood of signals nor the timer, which
            // may be late when its task's turn is up, holds back a deadline.
            if self.is_due() {
                // A fact outranks the clock: the child may have just ended.
                self.reap();
                self.on(Event::DeadlineReached);
                // A large tree takes long to walk; the endpoints are due too.
                tokio::task::yield_now().await;
            }
        }
    }

    fn is_due(&self) -> bool {
        self.lifecycle.next_deadline().is_some_and(|until| Instant::now() >= until)
    }

    async fn wake(&mut self) -> Wake {
        let deadline = self.lifecycle.next_deadline();
        let has_work = self.must_reap || !self.is_announced;
        let elapsed = async {
            match deadline {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.signals.next(&mut self.batch) => Wake::Signals,
            () = tokio::task::yield_now(), if has_work => Wake::Turn,
            () = elapsed => Wake::Deadline,
        }
    }

    fn take_batch(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        // Facts outrank requests, whatever the order in which the kernel tells
        // them: a stop request must not meet a child that is taken for running
        // although it stands still, or has ended by itself.
        if batch.iter().any(|received| received.signal == Signal::CHLD) {
            self.reap();
        }
        for received in batch.drain(..) {
            if !received.is_about_a_child() {
                self.on_signal(&received);
            }
        }
        self.batch = batch;
    }

    fn on_signal(&mut self, received: &Received) {
        let signal = received.signal;
        if self.setting.stop_on.contains(&signal) {
            self.status.send_modify(|status| status.signals_received.add(signal));
            self.log_received(received);
            self.on(Event::StopRequested(signal));
            return;
        }
        // The signal first, then the word about it.
        let forwarded = self.child_is_up.then(|| {
            if signal == Signal::CONT && self.was_resumed() {
                // ^Z has stopped the child's whole group.
                kill::signal_child(self.child, true, Signal::CONT)
            } else {
                kill::forward(self.child, self.setting.to_group, received)
            }
        });
        self.status.send_modify(|status| status.signals_received.add(signal));
        self.log_received(received);
        if let Some(result) = forwarded {
            self.note_forwarded(signal, result);
        }
    }

    /// A shell's `fg`, also of a castoff that was started in the background,
    /// or `bg`; says whether castoff had suspended itself.
    fn was_resumed(&mut self) -> bool {
        if let Some(terminal) = &self.setting.terminal {
            terminal.hand_over(self.child);
        }
        std::mem::take(&mut self.is_suspended)
    }

    fn note_forwarded(&self, signal: Signal, result: Result<i32, Errno>) {
        match result {
            Ok(target) => {
                self.status.send_modify(|status| status.signals_forwarded.add(signal));
                events::signal_forwarded(signal, target);
            }
            Err(error) => events::signal_forward_failed(signal, self.child.as_raw(), error.desc()),
        }
    }

    fn log_received(&self, received: &Received) {
        // Looking the sender up takes five system calls.
        if !events::has_signal_received() {
            return;
        }
        let command;
        let sender = match received.sender {
            Sender::Outside { uid } => events::Sender::Outside { uid: Some(uid) },
            Sender::Kernel => events::Sender::Kernel,
            Sender::Process { pid, uid } => {
                command = tree::command(&self.setting.proc_root, pid);
                events::Sender::Process { pid, uid, command: command.as_deref() }
            }
        };
        events::signal_received(received.signal, sender);
    }

    fn reap(&mut self) {
        let mut orphans = 0;
        let mut own = Vec::new();
        let mut left = Left::More;
        for _ in 0..LAST_TURNS {
            left = reaper::reap(|pid, change| match change {
                _ if pid == self.child => own.push(change),
                Change::Ended(reason) => {
                    orphans += 1;
                    events::orphan_reaped(pid.as_raw(), reason, self.setting.warn_on_orphans);
                }
                Change::Stopped(_) | Change::Continued => {}
            });
            // Whoever the child has left behind will be told to end: its zombies
            // are not among them.
            if left != Left::More || own.is_empty() {
                break;
            }
        }
        self.must_reap = left == Left::More;
        if orphans > 0 {
            self.status.send_modify(|status| status.orphans_reaped += orphans);
        }
        for change in own {
            match change {
                Change::Stopped(by) => {
                    // Without a terminal no shell waits, whatever the groups look like.
                    let has_job_control = self.setting.terminal.is_some()
                        && terminal::has_job_control(&self.setting.proc_root);
                    self.on(Event::ChildStopped { by, has_job_control });
                }
                Change::Continued => self.on(Event::ChildContinued),
                Change::Ended(reason) => {
                    self.child_is_up = false;
                    self.on(Event::ChildExited { reason, is_last: left == Left::Nobody });
                }
            }
        }
        if left == Left::Nobody {
            self.on(Event::TreeGone);
        }
    }

    fn on(&mut self, event: Event) {
        let outcome = self.lifecycle.on(event, Instant::now());
        self.publish();
        if let Event::ChildExited { reason, .. } = event {
            self.log_child_exited(reason);
        }
        if let Some(change) = outcome.change {
            log_change(&change);
        }
        for action in outcome.actions {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::SignalChild(signal) if self.child_is_up => {
                let result = kill::signal_child(self.child, self.setting.to_group, signal);
                self.note_forwarded(signal, result);
            }
            Action::ContinueChild if self.child_is_up => {
                let result = kill::signal_child(self.child, true, Signal::CONT);
                self.note_forwarded(Signal::CONT, result);
            }
            Action::SignalChild(_) | Action::ContinueChild => {}
            Action::SignalTree(signal) => {
                let child = self.child_is_up.then_some(self.child);
                tree::signal(&self.setting.proc_root, child, signal, Scope::Everything);
            }
            Action::Suspend => {
                self.is_suspended = true;
                terminal::suspend();
            }
            Action::Exit(code) => self.exit_code = Some(code),
        }
    }

    fn publish(&self) {
        let lifecycle = &self.lifecycle;
        self.status.send_modify(|status| {
            status.phase = lifecycle.phase();
            status.is_ready = lifecycle.is_ready();
            status.was_ready = lifecycle.was_ready();
            status.child_is_up = self.child_is_up;
            status.child_exit = lifecycle.child_exit();
        });
    }

    fn log_child_exited(&self, reason: ExitReason) {
        let uptime = self.child_started_at.elapsed();
        let end = self.lifecycle.child_end().map_or("exited", |end| end.as_str());
        events::child_exited(self.child.as_raw(), reason, uptime, end);
    }

    /// Gives the terminal back to castoff's own group, for whoever comes next.
    pub(crate) fn release_terminal(&self) {
        if let Some(terminal) = &self.setting.terminal {
            terminal.take_back(self.child);
        }
    }

    /// When a stop was first asked for.
    pub(crate) fn stop_requested_at(&self) -> Option<Instant> {
        self.lifecycle.stop_requested_at()
    }
}

fn log_change(change: &PhaseChange) {
    if change.from == PhaseName::Draining {
        let reason = match change.cause {
            Cause::DrainDelay => Some("delay"),
            Cause::SecondSignal => Some("second_signal"),
            _ => None,
        };
        if let Some(reason) = reason {
            events::drain_finished(change.elapsed, reason, None);
        }
    }
    events::phase_changed(change.from, change.to, change.cause.as_str(), change.elapsed);
}

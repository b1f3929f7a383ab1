//! The loop: every source becomes an `Event`, `Lifecycle` decides, the actions
//! are performed and the status is published.
//!
//! It decides nothing itself and never ends on an error: what fails after the
//! child was started is logged and the loop goes on. Only `run` calls it.

mod hooks;
mod launcher;
mod traffic;

use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use tokio::sync::watch;

pub(crate) use hooks::Commands;
use hooks::Hooks;
pub(crate) use launcher::Launcher;
pub(crate) use traffic::Accepted;
use traffic::Traffic;

use crate::log::events;
use crate::policy::exit::ExitReason;
use crate::policy::hooks::{Hook, HookEnd};
use crate::policy::lifecycle::{Action, Event, Lifecycle, Outcome, PhaseChange};
use crate::policy::restart::Attempt;
use crate::policy::signal::{Rewrite, Signal};
use crate::policy::status::Status;
use crate::policy::traffic::Ports;
use crate::system::child::SpawnError;
use crate::system::reaper::{self, Change, Left};
use crate::system::signals::{Received, Sender, Signals};
use crate::system::{Errno, Pid, kill, terminal, tree};

/// How many turns of reaping the child's end is worth: some 16,000 zombies, or
/// 30 ms.
const LAST_TURNS: usize = 64;

/// How many signals are kept for a child that was not started yet. Standard
/// signals are kept once each, as the kernel would.
const EARLY_MAX: usize = 256;

/// What the loop has to know from the settings and the start.
pub(crate) struct Setting {
    pub(crate) stop_on: Vec<Signal>,
    /// Signals go to the child's process group.
    pub(crate) to_group: bool,
    /// The stop signal does.
    pub(crate) stop_to_group: bool,
    pub(crate) rewrite: Rewrite,
    pub(crate) warn_on_orphans: bool,
    pub(crate) proc_root: PathBuf,
    pub(crate) restart_limit: Option<u32>,
    pub(crate) drain_ports: Ports,
    /// The port of castoff's own endpoints.
    pub(crate) own_port: Option<u16>,
}

/// Everything that lives as long as castoff.
pub(crate) struct Supervisor {
    setting: Setting,
    lifecycle: Lifecycle,
    launcher: Launcher,
    hooks: Hooks,
    traffic: Traffic,
    signals: Signals,
    batch: Vec<Received>,
    /// Signals that came before the child was there.
    early: Vec<Received>,
    /// The child that runs, or ran last.
    child: Option<Pid>,
    child_started_at: Instant,
    child_is_up: bool,
    /// Processes that ended before they became a program: nobody's orphans.
    refused: Vec<Pid>,
    /// Why the child could not be started, the last time.
    start_error: Option<SpawnError>,
    /// The child is to be announced as ready.
    must_announce: bool,
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
    Output,
    Turn,
}

impl Supervisor {
    pub(crate) fn new(
        setting: Setting,
        lifecycle: Lifecycle,
        launcher: Launcher,
        commands: Commands,
        signals: Signals,
        accepted: Accepted,
        status: watch::Sender<Status>,
    ) -> Self {
        let (ports, proc_root) = (setting.drain_ports.clone(), setting.proc_root.clone());
        Self {
            traffic: Traffic::new(ports, setting.own_port, accepted, proc_root),
            setting,
            lifecycle,
            launcher,
            hooks: Hooks::new(commands),
            signals,
            batch: Vec::new(),
            early: Vec::new(),
            child: None,
            child_started_at: Instant::now(),
            child_is_up: false,
            refused: Vec::new(),
            start_error: None,
            must_announce: false,
            must_reap: false,
            is_suspended: false,
            status,
            exit_code: None,
        }
    }

    /// Starts the child, or the hook that comes before it.
    pub(crate) fn begin(&mut self) {
        let outcome = self.lifecycle.begin(Instant::now());
        self.take(outcome);
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
                Wake::Deadline | Wake::Output => {}
                Wake::Turn => {
                    self.reap();
                    // After the signals that were waiting: a stop request from
                    // before the first answer of the endpoints needs no drain.
                    if std::mem::take(&mut self.must_announce) {
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
        let has_work = self.must_reap || self.must_announce;
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
            () = self.hooks.log_output() => Wake::Output,
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
        let forwarded = self.forward(received);
        self.status.send_modify(|status| status.signals_received.add(signal));
        self.log_received(received);
        if let Some((signal, result)) = forwarded {
            self.note_forwarded(signal, result);
        }
    }

    /// Passes a signal on, as what CASTOFF_REWRITE makes of it.
    fn forward(&mut self, received: &Received) -> Option<(Signal, Result<i32, Errno>)> {
        let signal = self.setting.rewrite.apply(received.signal)?;
        let Some(child) = self.child.filter(|_| self.child_is_up) else {
            self.keep(received);
            return None;
        };
        let result = if received.signal == Signal::CONT && self.was_resumed(child) {
            // ^Z has stopped the child's whole group.
            kill::signal_child(child, true, signal)
        } else {
            kill::forward(child, self.setting.to_group, &Received { signal, ..*received })
        };
        Some((signal, result))
    }

    /// For a child that is still to come; a later one was not meant.
    fn keep(&mut self, received: &Received) {
        let is_pending = |early: &Received| early.signal == received.signal;
        let is_merged = !received.signal.is_real_time() && self.early.iter().any(is_pending);
        if self.child.is_none() && !is_merged && self.early.len() < EARLY_MAX {
            self.early.push(*received);
        }
    }

    /// A shell's `fg`, also of a castoff that was started in the background,
    /// or `bg`; says whether castoff had suspended itself.
    fn was_resumed(&mut self, child: Pid) -> bool {
        if let Some(terminal) = &self.launcher.terminal {
            terminal.hand_over(child);
        }
        std::mem::take(&mut self.is_suspended)
    }

    fn note_forwarded(&self, signal: Signal, result: Result<i32, Errno>) {
        match result {
            Ok(target) => {
                self.status.send_modify(|status| status.signals_forwarded.add(signal));
                events::signal_forwarded(signal, target);
            }
            Err(error) => {
                let child = self.child.map_or(0, Pid::as_raw);
                events::signal_forward_failed(signal, child, error.desc());
            }
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
                _ if self.child == Some(pid) || self.hooks.is(pid) => own.push((pid, change)),
                Change::Ended(_) if self.refused.contains(&pid) => {
                    self.refused.retain(|refused| *refused != pid);
                }
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
        let is_last = left == Left::Nobody;
        for (nth, (pid, change)) in own.iter().enumerate() {
            // Of two that have ended only the second can be the last.
            let is_last = is_last && nth + 1 == own.len();
            match *change {
                Change::Ended(reason) if self.hooks.is(*pid) => {
                    self.hooks.end(reason, self.lifecycle.has_hook_timed_out());
                    self.on(Event::HookFinished { end: HookEnd::Exited(reason), is_last });
                }
                _ if self.child != Some(*pid) => {}
                Change::Stopped(by) => {
                    // Without a terminal no shell waits, whatever the groups look like.
                    let has_job_control = self.launcher.terminal.is_some()
                        && terminal::has_job_control(&self.setting.proc_root);
                    self.on(Event::ChildStopped { by, has_job_control });
                }
                Change::Continued => self.on(Event::ChildContinued),
                Change::Ended(reason) => {
                    self.note_late_arrivals();
                    self.child_is_up = false;
                    self.on(Event::ChildExited { reason, is_last });
                }
            }
        }
        if is_last {
            self.on(Event::TreeGone);
        }
    }

    /// The child that was being stopped has ended: what came in vain?
    fn note_late_arrivals(&mut self) {
        if self.lifecycle.late_arrivals().is_some() {
            self.look();
        }
        if let Some(late) = self.lifecycle.late_arrivals().filter(|late| late.count > 0) {
            events::late_connections(late.count, late.last_after);
        }
    }

    fn on(&mut self, event: Event) {
        let outcome = self.lifecycle.on(event, Instant::now());
        if let Event::ChildExited { reason, .. } = event {
            self.log_child_exited(reason);
        }
        self.take(outcome);
    }

    fn take(&mut self, outcome: Outcome) {
        self.publish();
        if let Some(change) = outcome.change {
            log_change(&change);
        }
        for action in outcome.actions {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::StartChild => self.start_child(),
            Action::StartHook(hook) => self.start_hook(hook),
            Action::KillHook => self.hooks.kill(),
            Action::LearnPorts => self.traffic.learn_ports(),
            Action::Look => self.look(),
            Action::SignalChild(signal) => {
                self.signal_child(signal, self.setting.to_group || self.setting.stop_to_group);
            }
            Action::ContinueChild => self.signal_child(Signal::CONT, true),
            Action::SignalTree(signal, scope) => {
                let child = self.child.filter(|_| self.child_is_up);
                tree::signal(&self.setting.proc_root, child, signal);
            }
            Action::ListSurvivors => {}
            Action::AnnounceRestart(attempt) => self.announce_restart(attempt),
            Action::Suspend => {
                self.is_suspended = true;
                terminal::suspend();
            }
            Action::Exit(code) => self.exit_code = Some(code),
        }
    }

    fn look(&mut self) {
        // Late connections are only counted.
        let is_drain = self.lifecycle.late_arrivals().is_none();
        let look = self.traffic.look(is_drain);
        self.on(Event::TrafficSeen(look));
        let late = self.lifecycle.late_arrivals();
        self.status.send_modify(|status| {
            status.drain_connections = look.map(|look| look.connections);
            status.late_connections = late.map_or(status.late_connections, |late| late.count);
        });
    }

    fn start_child(&mut self) {
        let name = self.launcher.name();
        match self.launcher.start_child(self.child) {
            Ok(child) => {
                events::child_started(child.as_raw(), name);
                self.child_has_started(child);
            }
            Err(error) => {
                let code = launcher::code(&error);
                if self.child.is_some() {
                    events::start_failed(name, &error);
                }
                self.refused.extend(error.pid());
                self.start_error = Some(error);
                self.on(Event::StartFailed(code));
            }
        }
    }

    fn child_has_started(&mut self, child: Pid) {
        self.child = Some(child);
        self.child_started_at = Instant::now();
        self.child_is_up = true;
        self.must_announce = true;
        self.start_error = None;
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        self.status.send_modify(|status| {
            status.child_started_at = since_epoch.ok().map(|time| time.as_secs_f64());
        });
        self.on(Event::ChildStarted);
        for received in std::mem::take(&mut self.early) {
            if let Some((signal, result)) = self.forward(&received) {
                self.note_forwarded(signal, result);
            }
        }
    }

    fn start_hook(&mut self, hook: Hook) {
        if let Err(error) = self.hooks.start(hook, &self.launcher) {
            self.refused.extend(error.pid());
            // A hook runs alone, or beside a child that is up.
            let end = HookEnd::NotStarted(error.code());
            self.on(Event::HookFinished { end, is_last: true });
        }
    }

    fn announce_restart(&mut self, attempt: Attempt) {
        events::restart_scheduled(attempt.delay, attempt.in_a_row, self.setting.restart_limit);
        self.status.send_modify(|status| status.restarts += 1);
    }

    fn signal_child(&self, signal: Signal, to_group: bool) {
        if let Some(child) = self.child.filter(|_| self.child_is_up) {
            self.note_forwarded(signal, kill::signal_child(child, to_group, signal));
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
            status.is_stop_requested = lifecycle.stop_requested_at().is_some();
        });
    }

    fn log_child_exited(&self, reason: ExitReason) {
        let uptime = self.child_started_at.elapsed();
        let end = self.lifecycle.child_end().map_or("exited", |end| end.as_str());
        events::child_exited(self.child.map_or(0, Pid::as_raw), reason, uptime, end);
    }

    /// Gives the terminal back to castoff's own group, for whoever comes next.
    pub(crate) fn release_terminal(&self) {
        self.launcher.release_terminal(self.child);
    }

    /// Why the child could not be started, if it never was.
    pub(crate) fn start_error(&self) -> Option<&SpawnError> {
        self.start_error.as_ref().filter(|_| self.child.is_none())
    }

    /// When a stop was first asked for.
    pub(crate) fn stop_requested_at(&self) -> Option<Instant> {
        self.lifecycle.stop_requested_at()
    }
}

fn log_change(change: &PhaseChange) {
    if let Some(drained) = change.drained {
        events::drain_finished(change.elapsed, drained.end.as_str(), drained.connections);
    }
    events::phase_changed(change.from, change.to, change.cause.as_str(), change.elapsed);
}

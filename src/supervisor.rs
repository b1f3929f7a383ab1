//! The loop: every source becomes an `Event`, `Lifecycle` decides, the actions
//! are performed and the status is published.
//!
//! It decides nothing itself and never ends on an error: what fails after the
//! child was started is logged and the loop goes on. Only `run` calls it.

mod checks;
mod death;
mod environment;
mod hooks;
mod launcher;
mod limits;
mod lookout;
mod main_process;
mod notify;
mod reaction;
mod reaping;
mod relay;
mod reload;
mod runner;
mod signals;
mod traffic;

use std::collections::VecDeque;
use std::fmt::Display;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio::time::{Sleep, sleep_until};

pub(crate) use checks::Checks;
use checks::Heard;
pub(crate) use death::Witness;
pub(crate) use environment::{Environment, ExportRule, Switch};
pub(crate) use hooks::Commands;
use hooks::Hooks;
use launcher::CommandError;
pub(crate) use launcher::Launcher;
use limits::CurrentLimits;
pub(crate) use limits::LimitSetting;
pub(crate) use lookout::Scraped;
use main_process::MainProcess;
pub(crate) use notify::Notify;
use notify::{ChildsEnd, Said};
pub(crate) use reaction::ReactionSetting;
pub(crate) use relay::{LineCounts, Relay};
pub(crate) use reload::WatchSetting;
use reload::WatchedFiles;
pub(crate) use traffic::{Accepted, Traffic};

use crate::log::{self, events};
use crate::policy::flush::Flush;
use crate::policy::hooks::{Hook, HookEnd};
use crate::policy::lifecycle::{Action, Cause, Event, Lifecycle, Outcome, PhaseChange, Scope};
use crate::policy::log_style::Stream;
use crate::policy::signal::{Rewrite, Signal};
use crate::policy::status::{PhaseName, Status};
use crate::system::signals::{Received, Signals};
use crate::system::{Pid, kill, terminal, tree};

/// How many survivors a log line has room for, whatever their names.
const SURVIVORS_LISTED: usize = 32;

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
}

/// What the loop is made of, and `run` has built.
pub(crate) struct Parts {
    pub(crate) lifecycle: Lifecycle,
    pub(crate) launcher: Launcher,
    /// Those of the hooks.
    pub(crate) commands: Commands,
    pub(crate) signals: Signals,
    pub(crate) traffic: Traffic,
    pub(crate) checks: Checks,
    pub(crate) notify: Notify,
    pub(crate) limits: LimitSetting,
    pub(crate) relay: Relay,
    pub(crate) resize_action: ReactionSetting,
    pub(crate) watch: WatchSetting,
    pub(crate) watch_action: ReactionSetting,
    pub(crate) witness: Witness,
    pub(crate) status: watch::Sender<Status>,
}

/// Everything that lives as long as castoff.
pub(crate) struct Supervisor {
    setting: Setting,
    lifecycle: Lifecycle,
    launcher: Launcher,
    hooks: Hooks,
    checks: Checks,
    notify: Notify,
    limits: CurrentLimits,
    relay: Relay,
    files: WatchedFiles,
    witness: Witness,
    traffic: Traffic,
    signals: Signals,
    batch: Vec<Received>,
    /// Signals that came before the child was there.
    early: Vec<Received>,
    /// The child that runs, or ran last.
    child: Option<Pid>,
    child_started_at: Instant,
    child_is_up: bool,
    /// Another process speaks for the child.
    main: Option<MainProcess>,
    /// The child is one that castoff did not launch itself.
    has_handed_over: bool,
    /// Processes that ended before they became a program: nobody's orphans.
    refused: Vec<Pid>,
    /// Why castoff ends without having started the child.
    failure: Option<String>,
    /// The child is to be announced as ready.
    must_announce: bool,
    /// There may be zombies of which no SIGCHLD will tell.
    must_reap: bool,
    is_suspended: bool,
    status: watch::Sender<Status>,
    /// What is still to be done: it outlives a panic in what was done first.
    actions: VecDeque<Action>,
    has_begun: bool,
    /// Goes off at the next deadline.
    alarm: Option<Pin<Box<Sleep>>>,
    exit_code: Option<u8>,
    /// How long its end waits for whoever reads the child's lines, once it does.
    flush: Option<Flush>,
}

/// What woke the loop.
enum Wake {
    Signals,
    Deadline,
    Output,
    Check(Heard),
    Said(Said),
    Limits(limits::Heard),
    Relay(Stream),
    Files(reload::Heard),
    Memory,
    /// The log may have room for what it still has to tell.
    Room,
    Turn,
}

impl Supervisor {
    pub(crate) fn new(setting: Setting, parts: Parts) -> Self {
        let Parts {
            lifecycle,
            launcher,
            commands,
            signals,
            traffic,
            checks,
            notify,
            limits,
            relay,
            resize_action,
            watch,
            watch_action,
            witness,
            status,
        } = parts;
        let files = WatchedFiles::new(watch, watch_action);
        status.send_modify(|status| status.config_changes = files.first_count());
        Self {
            setting,
            lifecycle,
            launcher,
            traffic,
            checks,
            notify,
            limits: CurrentLimits::new(limits, resize_action),
            relay,
            files,
            witness,
            hooks: Hooks::new(commands),
            signals,
            batch: Vec::new(),
            early: Vec::new(),
            child: None,
            child_started_at: Instant::now(),
            child_is_up: false,
            main: None,
            has_handed_over: false,
            refused: Vec::new(),
            failure: None,
            must_announce: false,
            must_reap: false,
            is_suspended: false,
            status,
            actions: VecDeque::new(),
            has_begun: false,
            alarm: None,
            exit_code: None,
            flush: None,
        }
    }

    /// Runs until nothing is left of the child's tree, or until what is left
    /// cannot be killed; returns what castoff has to exit with. May be called
    /// again after a panic: it goes on where it was.
    pub(crate) async fn supervise(&mut self) -> u8 {
        if !self.has_begun {
            self.files.look_first().await;
            self.has_begun = true;
            let outcome = self.lifecycle.begin(Instant::now());
            self.take(outcome);
        }
        // Whatever changed before castoff listened, or was left when it panicked.
        self.must_reap = true;
        self.perform_all();
        loop {
            if let Some(code) = self.exit_code {
                self.hooks.hear_last_words().await;
                self.limits.reactor.hear_last_words().await;
                self.files.reactor.hear_last_words().await;
                self.finish_output().await;
                return code;
            }
            match self.wake().await {
                Wake::Signals => self.take_batch(),
                Wake::Deadline => {}
                Wake::Output
                | Wake::Check(Heard::Output)
                | Wake::Limits(limits::Heard::Output)
                | Wake::Files(reload::Heard::Output) => {
                    // A command that writes without a pause comes before the child's
                    // output, which gets its turn here, and the endpoints theirs.
                    for stream in [Stream::Stdout, Stream::Stderr] {
                        self.relay.work(stream, &mut self.witness.last_words);
                    }
                    tokio::task::yield_now().await;
                }
                Wake::Limits(limits::Heard::Change) => self.limits.have_changed(),
                Wake::Files(reload::Heard::Told(told)) => self.take_told(told),
                Wake::Said(said) => self.take_said(said),
                Wake::Memory => self.look_at_oom(),
                Wake::Relay(stream) => {
                    // Output without a pause must not keep the others waiting.
                    if self.relay.work(stream, &mut self.witness.last_words) {
                        tokio::task::yield_now().await;
                    }
                }
                Wake::Room => drop(log::catch_up()),
                Wake::Check(Heard::Answer(nth, result)) => self.check_ended(nth, result),
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
            if self.checks.next_deadline().is_some_and(|at| Instant::now() >= at) {
                self.run_checks();
                // More may be due, and at short periods always are.
                tokio::task::yield_now().await;
            }
            if self.notify.next_deadline().is_some_and(|at| Instant::now() >= at) {
                self.look_at_watchdog();
            }
            if self.limits.next_deadline(self.child_is_up).is_some_and(|at| Instant::now() >= at) {
                self.look_at_limits();
            }
            let files_at = self.files.next_deadline(self.wants_files());
            if files_at.is_some_and(|at| Instant::now() >= at) {
                self.look_at_files();
            }
            if self.witness.lookout.is_due(Instant::now()) {
                self.look_at_oom();
            }
            self.relay.rest_if_due(Instant::now());
        }
    }

    fn is_due(&self) -> bool {
        self.lifecycle.next_deadline().is_some_and(|until| Instant::now() >= until)
    }

    async fn wake(&mut self) -> Wake {
        let wants_files = self.wants_files();
        let deadlines = [
            self.lifecycle.next_deadline(),
            self.checks.next_deadline(),
            self.notify.next_deadline(),
            self.limits.next_deadline(self.child_is_up),
            self.files.next_deadline(wants_files),
            self.witness.lookout.next_deadline(self.child_is_up),
            self.relay.next_deadline(),
        ];
        let deadline = deadlines.into_iter().flatten().min();
        let has_work = self.must_reap || self.must_announce;
        let elapsed = alarm(&mut self.alarm, deadline);
        tokio::select! {
            biased;
            () = self.signals.next(&mut self.batch) => Wake::Signals,
            () = tokio::task::yield_now(), if has_work => Wake::Turn,
            () = self.hooks.log_output() => Wake::Output,
            // Before what the checks write: both let others have a turn between.
            said = self.notify.hear() => Wake::Said(said),
            heard = self.checks.hear() => Wake::Check(heard),
            heard = self.limits.hear(self.child_is_up) => Wake::Limits(heard),
            heard = self.files.hear(wants_files) => Wake::Files(heard),
            () = elapsed => Wake::Deadline,
            () = self.witness.lookout.hear(self.child_is_up) => Wake::Memory,
            () = log::backlog() => Wake::Room,
            stream = self.relay.ready() => Wake::Relay(stream),
        }
    }

    fn on(&mut self, event: Event) {
        let outcome = self.lifecycle.on(event, Instant::now());
        self.take(outcome);
    }

    fn take(&mut self, outcome: Outcome) {
        self.publish();
        if let Some(change) = outcome.change {
            log_change(&change);
            self.note_change(&change);
            if change.cause == Cause::WaitTimedOut {
                self.failure = Some(self.checks.wait_failure());
            }
            // Nobody may be left whose end would wake the reaper.
            self.must_reap |= change.to == PhaseName::Sweeping;
        }
        self.follow_checks();
        self.actions.extend(outcome.actions);
        self.perform_all();
        match outcome.change.map(|change| change.to) {
            Some(PhaseName::Killing) => self.leave_first_word(),
            Some(PhaseName::Serving) => self.react_if_serving(),
            _ => {}
        }
    }

    fn perform_all(&mut self) {
        while let Some(action) = self.actions.pop_front() {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::StartChild => {
                self.forget_the_last_child();
                self.start_child();
            }
            Action::StartHook(hook) => self.start_hook(hook),
            Action::KillHook => self.hooks.kill(),
            Action::LearnPorts(time) => self.traffic.learn_ports(Instant::now() + time),
            Action::Look => self.look(),
            Action::TellLate => self.tell_late(),
            Action::SignalChild(signal) => {
                self.signal_child(signal, self.setting.to_group || self.setting.stop_to_group);
            }
            Action::ContinueChild => {
                self.signal_child(Signal::CONT, true);
            }
            Action::SignalTree(signal, scope) => self.signal_tree(signal, scope),
            Action::SendHangSignal(signal, scope) => {
                events::hang_signal_sent(signal);
                self.signal_tree(signal, scope);
            }
            Action::ListSurvivors(scope, time) => self.list_survivors(scope, time),
            Action::AnnounceRestart(attempt) => {
                events::restart_scheduled(attempt.delay, attempt.in_a_row, attempt.limit);
                self.witness.restart_announced(attempt);
            }
            Action::Suspend => {
                self.is_suspended = true;
                terminal::suspend();
            }
            Action::Exit(code) => self.exit_code = Some(code),
        }
    }

    fn look(&mut self) {
        let is_drain = self.lifecycle.late_arrivals().is_none();
        let look = self.traffic.look(is_drain);
        self.on(Event::TrafficSeen(look));
        let late = self.lifecycle.late_arrivals();
        self.status.send_modify(|status| {
            status.drain_connections = look.map(|look| look.connections);
            status.late_connections = late.map_or(status.late_connections, |late| late.count);
        });
    }

    fn tell_late(&self) {
        if let Some(late) = self.lifecycle.late_arrivals().filter(|late| late.count > 0) {
            events::late_connections(late.count, late.last_after);
        }
    }

    fn start_child(&mut self) {
        self.renew_exports();
        let childs_end = self.notify.prepare().unwrap_or_else(|error| {
            // It will never be ready, which its check says.
            events::notify_failed(error);
            None
        });
        let descriptors: Vec<_> = childs_end.iter().map(ChildsEnd::as_descriptor).collect();
        let started = self.start_with(&descriptors);
        let name = self.launcher.name();
        match started {
            Ok(child) => {
                events::child_started(child.as_raw(), name);
                self.child_has_started(child);
            }
            Err(error) => {
                let code = error.code();
                if self.child.is_some() {
                    events::start_failed(name, one_line(&error));
                } else {
                    self.failure = Some(format!("cannot run {name:?}: {error}"));
                }
                self.witness.start_failed(format!("cannot run {name:?}: {}", one_line(&error)));
                self.refused.extend(error.pid());
                self.on(Event::StartFailed(code));
            }
        }
    }

    fn start_with(&mut self, descriptors: &[(BorrowedFd<'_>, RawFd)]) -> Result<Pid, CommandError> {
        let owner = self.launcher.user.as_ref().map(|user| (user.uid, user.gid));
        let ends = self.relay.open(owner).map_err(CommandError::Pipe)?;
        let started = self.launcher.start_child(self.child, ends.stdio(), descriptors);
        started.map_err(CommandError::Spawn)
    }

    fn child_has_started(&mut self, child: Pid) {
        if self.launcher.user.is_some()
            && let Err(error) = kill::may_signal(child)
        {
            events::child_out_of_reach(child.as_raw(), error.desc());
        }
        let is_restart = self.child.replace(child).is_some();
        self.main = None;
        self.has_handed_over = false;
        self.child_started_at = Instant::now();
        self.child_is_up = true;
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        self.status.send_modify(|status| {
            status.child_began_at = Some(self.child_started_at);
            status.child_started_at = since_epoch.ok().map(|time| time.as_secs_f64());
            status.restarts += u64::from(is_restart);
            status.notify_status = None;
        });
        self.on(Event::ChildStarted);
        for received in std::mem::take(&mut self.early) {
            if let Some((signal, result)) = self.forward(&received) {
                let sender = self.sender_of(&received, true);
                self.note_forwarded(signal, Some(sender), result);
            }
        }
        self.limits.begin();
        self.files.begin();
        self.witness.prepare_to_look_out();
    }

    fn start_hook(&mut self, hook: Hook) {
        if let Err(error) = self.hooks.start(hook, &self.launcher) {
            self.refused.extend(error.pid());
            if hook == Hook::PreStart {
                self.failure = Some(format!("cannot run the pre-start hook: {error}"));
            }
            // What castoff was born with may be there before the child, but not
            // after everybody has gone.
            let (end, is_last) = (HookEnd::NotStarted(error.code()), hook == Hook::PostStop);
            self.must_reap = true;
            self.on(Event::HookFinished { end, is_last });
        }
    }

    fn signal_tree(&mut self, signal: Signal, scope: Scope) {
        if signal == Signal::KILL {
            self.note_strike();
        } else if self.child_is_up {
            self.witness.has_sent(signal, None);
        }
        let child = self.child.filter(|_| self.child_is_up);
        let others =
            self.hooks.pid().into_iter().chain(self.reaction_pids()).chain(self.checks.pids());
        let started: Vec<_> = child.into_iter().chain(others).collect();
        tree::signal(&self.setting.proc_root, &started, signal, scope);
    }

    fn list_survivors(&mut self, scope: Scope, time: Duration) {
        let until = Instant::now() + time;
        let left = tree::survivors(&self.setting.proc_root, SURVIVORS_LISTED, scope, until);
        let Some(left) = left else { return };
        let listed: Vec<_> = left
            .listed
            .iter()
            .map(|left| events::Survivor {
                pid: left.pid,
                command: &left.command,
                state: left.state,
            })
            .collect();
        if left.total > 0 {
            events::survivors(left.total, &listed);
            self.witness.survivors_listed(&left);
        }
    }

    fn publish(&mut self) {
        let lifecycle = &self.lifecycle;
        self.status.send_modify(|status| {
            status.phase = lifecycle.phase();
            status.takes_traffic = lifecycle.is_ready();
            status.was_ready = lifecycle.was_ready();
            status.child_is_up = self.child_is_up;
            status.child_exit = lifecycle.child_exit();
            status.child_pid = self.child.filter(|_| self.child_is_up).map(Pid::as_raw);
            status.stop_requested_at = lifecycle.stop_requested_at();
        });
        self.tell_outer();
    }

    /// Gives the terminal back to castoff's own group, for whoever comes next.
    pub(crate) fn release_terminal(&self) {
        self.launcher.release_terminal(self.child);
    }

    /// Why the child was never started, for the user.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref().filter(|_| self.child.is_none())
    }

    /// When a stop was first asked for.
    pub(crate) fn stop_requested_at(&self) -> Option<Instant> {
        self.lifecycle.stop_requested_at()
    }
}

/// A field of the log holds no second line, such as a hint.
fn one_line(error: &dyn Display) -> String {
    error.to_string().replace('\n', "; ")
}

/// Waits until the deadline. The same timer serves turn after turn: a new one wakes
/// the runtime, which is two system calls.
async fn alarm(timer: &mut Option<Pin<Box<Sleep>>>, deadline: Option<Instant>) {
    let Some(until) = deadline.map(tokio::time::Instant::from) else {
        // It would go off for nothing.
        *timer = None;
        return std::future::pending().await;
    };
    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
    if timer.deadline() != until {
        timer.as_mut().reset(until);
    }
    timer.await;
}

fn log_change(change: &PhaseChange) {
    if let Some(drained) = change.drained {
        events::drain_finished(drained.waited, drained.end.as_str(), drained.connections);
    }
    events::phase_changed(change.from, change.to, change.cause.as_str(), change.elapsed);
}

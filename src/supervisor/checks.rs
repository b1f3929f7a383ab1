//! The checks under way: who is asked, which commands run, what they answered.
//!
//! Starts what `policy::checks` says is due and tells it how that ended. Nothing
//! here waits: a client is a task, a command is reaped by the one reaper.

use std::collections::HashMap;
use std::ffi::CString;
use std::path::PathBuf;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::task::{Id, JoinSet};
use tokio::time::timeout;

use super::{Supervisor, launcher::Launcher};
use crate::checks::{Clients, Stage};
use crate::log::events;
use crate::policy::checks::{self, Change, CheckReport, CheckRules, Target};
use crate::policy::exit::ExitReason;
use crate::policy::lifecycle::{Checked, Event};
use crate::policy::status::PhaseName;
use crate::system::output::Output;
use crate::system::sockets::Listening;
use crate::system::{Pid, child, kill, tree};

/// How often the log says what the start waits for.
const WAIT_WORD_INTERVAL: Duration = Duration::from_secs(5);

/// How long a look for a listener may hold the loop: a tree of some thousands.
const LOOK_TIME: Duration = Duration::from_millis(50);

/// How long the end of a killed command is awaited, so that it is counted once
/// and the next run finds it gone. One in an uninterruptible sleep may never go.
const KILLED_WAIT: Duration = Duration::from_secs(1);

/// How many checks are started in one turn of the loop: each may hold it for as
/// long as a look takes, or the kernel to start a program.
const TURN: usize = 4;

/// Characters of a command's last line in a reason.
const LAST_LINE_MAX: usize = 160;

/// All checks, and what runs of them.
pub(crate) struct Checks {
    rules: checks::Checks,
    /// Whose checks run.
    checked: Checked,
    proc_root: PathBuf,
    clients: Rc<Clients>,
    /// One task for each check that is being asked.
    asked: JoinSet<Result<(), String>>,
    numbers: HashMap<Id, usize>,
    commands: Vec<Command>,
    /// Output was read in this turn: whoever writes without a pause must not keep
    /// others waiting.
    has_read: bool,
    listening: HashMap<usize, Listening>,
    wait_timeout: Duration,
    waiting_since: Instant,
    next_word_at: Option<Instant>,
}

/// A check's command.
struct Command {
    check: usize,
    pid: Pid,
    /// `None`: everybody has closed it.
    output: Option<Output>,
    last_line: Option<String>,
    /// When it is killed, and then when nobody awaits its end any more; `None`:
    /// its result does not count, or has been counted.
    until: Option<Instant>,
    was_killed: bool,
}

/// What the loop hears of them.
pub(super) enum Heard {
    /// A check has been answered.
    Answer(usize, Result<(), String>),
    /// A command has written something.
    Output,
}

impl Checks {
    /// `seed` as in `policy::checks::Checks::new`.
    pub(crate) fn new(
        rules: Vec<CheckRules>,
        wait_timeout: Duration,
        seed: u64,
        proc_root: PathBuf,
    ) -> Self {
        Self {
            rules: checks::Checks::new(rules, seed),
            checked: Checked::Nothing,
            proc_root,
            clients: Rc::default(),
            asked: JoinSet::new(),
            numbers: HashMap::new(),
            commands: Vec::new(),
            has_read: false,
            listening: HashMap::new(),
            wait_timeout,
            waiting_since: Instant::now(),
            next_word_at: None,
        }
    }

    pub(crate) fn reports(&self) -> Vec<CheckReport> {
        self.rules.reports()
    }

    /// Whether castoff started that process for a check.
    pub(super) fn is(&self, pid: Pid) -> bool {
        self.commands.iter().any(|command| command.pid == pid)
    }

    /// The processes that run for checks.
    pub(super) fn pids(&self) -> impl Iterator<Item = Pid> {
        self.commands.iter().map(|command| command.pid)
    }

    /// When `Supervisor::run_checks` has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let commands = self.commands.iter().filter_map(|command| command.until);
        commands.chain(self.rules.next_deadline()).chain(self.next_word_at).min()
    }

    /// Waits for an answer or output. Never ready while nothing is under way.
    pub(super) async fn hear(&mut self) -> Heard {
        std::future::poll_fn(|context| self.poll_hear(context)).await
    }

    fn poll_hear(&mut self, context: &mut Context<'_>) -> Poll<Heard> {
        if let Poll::Ready(Some(ended)) = self.asked.poll_join_next_with_id(context) {
            let (id, result) = match ended {
                Ok(answer) => answer,
                // Its panic is in the log.
                Err(error) => (error.id(), Err("internal error".to_owned())),
            };
            return match self.numbers.remove(&id) {
                Some(nth) => Poll::Ready(Heard::Answer(nth, result)),
                None => Poll::Ready(Heard::Output),
            };
        }
        if std::mem::take(&mut self.has_read) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        for nth in 0..self.commands.len() {
            let Some(command) = self.commands.get_mut(nth) else { continue };
            let Some(output) = &mut command.output else { continue };
            let mut lines = Vec::new();
            if let Poll::Ready(has_more) = output.poll_next(context, &mut lines) {
                command.note(lines);
                if !has_more {
                    command.output = None;
                }
                self.has_read = true;
                // The others come first in the next turn.
                self.commands.rotate_left(nth + 1);
                return Poll::Ready(Heard::Output);
            }
        }
        Poll::Pending
    }

    /// Ends whatever runs; no result counts any more.
    fn rest(&mut self) {
        self.rules.rest();
        self.asked = JoinSet::new();
        self.numbers.clear();
        for command in &mut self.commands {
            command.until = None;
            kill::kill_with_group(command.pid);
        }
        self.next_word_at = None;
    }

    /// Starts a check; gives its result when that is known at once.
    fn start(&mut self, nth: usize, launcher: &Launcher) -> Option<Result<(), String>> {
        let rules = self.rules.rules(nth)?;
        match &rules.target {
            Target::Exec(words) => {
                if self.commands.iter().any(|command| command.check == nth) {
                    // It was killed and has not gone, or nobody has waited for it.
                    return Some(Err("the last run has not ended".to_owned()));
                }
                let words: Vec<CString> = words.iter().map(|word| child::c_string(word)).collect();
                let until = Some(Instant::now() + rules.timeout);
                match launcher.start_command(&words) {
                    Ok((pid, output)) => {
                        let output = Some(output);
                        let command = Command {
                            check: nth,
                            pid,
                            output,
                            last_line: None,
                            until,
                            was_killed: false,
                        };
                        self.commands.push(command);
                        None
                    }
                    Err(error) => {
                        let reason = format!("cannot be run: {}", super::one_line(&error));
                        // Its process, if there was one, must not count as an orphan.
                        let process = error.pid().map(|pid| Command {
                            check: nth,
                            pid,
                            output: None,
                            last_line: None,
                            until: None,
                            was_killed: false,
                        });
                        self.commands.extend(process);
                        Some(Err(reason))
                    }
                }
            }
            Target::Listen(port) => {
                let until = Instant::now() + LOOK_TIME;
                let listening = self.listening.entry(nth).or_insert_with(|| Listening::new(*port));
                let root = tree::own_proc(&self.proc_root);
                let root = root.as_ref().unwrap_or(&self.proc_root);
                let found = listening.look(root, || tree::pids(root, until), until);
                Some(found.map_err(|error| error.to_string()))
            }
            target => {
                let (clients, target) = (Rc::clone(&self.clients), target.clone());
                let limit = rules.timeout;
                let task =
                    self.asked.spawn_local(async move { ask(&clients, &target, limit).await });
                self.numbers.insert(task.id(), nth);
                None
            }
        }
    }

    /// Kills the commands whose time is up, and tells which do not end even so.
    fn late_commands(&mut self, now: Instant) -> Vec<(usize, String)> {
        let mut late = Vec::new();
        for command in self.commands.iter_mut().filter(|c| c.until.is_some_and(|at| now >= at)) {
            if command.was_killed {
                command.until = None;
                late.push(command.check);
            } else {
                command.was_killed = true;
                command.until = Some(now + KILLED_WAIT);
                kill::kill_with_group(command.pid);
            }
        }
        late.into_iter().map(|nth| (nth, self.lateness(nth))).collect()
    }

    fn lateness(&self, nth: usize) -> String {
        let limit = self.rules.rules(nth).map_or(Duration::ZERO, |rules| rules.timeout);
        format!("has not ended within {}", text_of(limit))
    }

    /// The command was reaped; gives its result, if that counts.
    fn ended(&mut self, pid: Pid, reason: ExitReason) -> Option<(usize, Result<(), String>)> {
        let at = self.commands.iter().position(|command| command.pid == pid)?;
        let mut command = self.commands.swap_remove(at);
        command.until?;
        if command.was_killed {
            return Some((command.check, Err(self.lateness(command.check))));
        }
        if let Some(mut output) = command.output.take() {
            let mut lines = Vec::new();
            output.rest(&mut lines);
            command.note(lines);
        }
        let text = match reason {
            ExitReason::Code(0) => return Some((command.check, Ok(()))),
            ExitReason::Code(code) => format!("exited with {code}"),
            ExitReason::Signal(signal) => format!("ended by {signal}"),
        };
        let line = command.last_line.map(|line| format!(": {line}"));
        Some((command.check, Err(text + &line.unwrap_or_default())))
    }

    /// Why the start was given up.
    pub(super) fn wait_failure(&self) -> String {
        let pending = self.rules.pending().map(|(rules, reason)| {
            format!("{} ({})", rules.target.label(), reason.unwrap_or("no answer yet"))
        });
        let limit = text_of(self.wait_timeout);
        let pending = pending.collect::<Vec<_>>().join(", ");
        format!("cannot start: CASTOFF_WAIT_FOR has not passed within {limit}: {pending}")
    }

    /// What the start still waits for.
    pub(super) fn pending_names(&self) -> Vec<String> {
        self.rules.pending().map(|(rules, _)| rules.name.clone()).collect()
    }

    fn log_waiting(&mut self, now: Instant) {
        if self.next_word_at.is_some_and(|at| now >= at) {
            self.next_word_at = Some(now + WAIT_WORD_INTERVAL);
            let waited = now.saturating_duration_since(self.waiting_since);
            let pending = self.rules.pending().map(|(rules, reason)| events::Pending {
                check: &rules.name,
                target: rules.target.label(),
                reason,
            });
            let pending: Vec<_> = pending.collect();
            events::waiting_for(&pending, waited, self.wait_timeout);
        }
    }
}

impl Command {
    fn note(&mut self, lines: Vec<String>) {
        let is_empty = |line: &String| line.trim().is_empty();
        if let Some(line) = lines.into_iter().rfind(|line| !is_empty(line)) {
            self.last_line = Some(line.trim().chars().take(LAST_LINE_MAX).collect());
        }
    }
}

impl Supervisor {
    /// Lets those checks run that belong to where the lifecycle stands.
    pub(super) fn follow_checks(&mut self) {
        let wanted = self.lifecycle.checked();
        if std::mem::replace(&mut self.checks.checked, wanted) == wanted {
            return;
        }
        let now = Instant::now();
        self.checks.rest();
        match wanted {
            Checked::Nothing if self.lifecycle.stop_requested_at().is_none() => {
                self.checks.rules.child_ended(now);
            }
            Checked::Nothing => {}
            Checked::Start => {
                self.checks.waiting_since = now;
                self.checks.next_word_at = Some(now + WAIT_WORD_INTERVAL);
                self.checks.rules.wait(now);
            }
            Checked::Child => self.checks.rules.child_started(now),
        }
        self.publish_checks();
        if wanted == Checked::Child {
            // A program that never says anything is to be found out by its log.
            let silence = |what: &str| Some(format!("{what} has not come yet"));
            self.check_told(|target| *target == Target::Notify, false, silence("READY=1"));
            self.check_told(
                |target| matches!(target, Target::Descriptor(_)),
                false,
                silence("a line feed"),
            );
        }
    }

    /// Starts what is due, and ends what takes too long.
    pub(super) fn run_checks(&mut self) {
        let now = Instant::now();
        self.checks.log_waiting(now);
        for (nth, reason) in self.checks.late_commands(now) {
            self.check_ended(nth, Err(reason));
        }
        for nth in self.checks.rules.due(now, TURN) {
            if let Some(result) = self.checks.start(nth, &self.launcher) {
                self.check_ended(nth, result);
            }
        }
    }

    pub(super) fn check_ended(&mut self, nth: usize, result: Result<(), String>) {
        let change = self.checks.rules.finished(nth, result, Instant::now());
        self.check_noted(change);
    }

    /// The child, or its silence, has told something about one of its checks.
    pub(super) fn check_told(
        &mut self,
        is_it: impl Fn(&Target) -> bool,
        is_up: bool,
        reason: Option<String>,
    ) {
        let rules = self.checks.rules.all();
        let told = rules.filter(|(_, rules)| is_it(&rules.target)).map(|(nth, _)| nth);
        let told: Vec<usize> = told.collect();
        for nth in told {
            let change = self.checks.rules.told(nth, is_up, reason.clone(), Instant::now());
            self.check_noted(change);
        }
    }

    /// A command of a check was reaped.
    pub(super) fn check_command_ended(&mut self, pid: Pid, reason: ExitReason) {
        if let Some((nth, result)) = self.checks.ended(pid, reason) {
            self.check_ended(nth, result);
        }
    }

    fn check_noted(&mut self, change: Option<Change>) {
        if let Some(Change { check, level, target, is_up, is_new, reason }) = change {
            let verdict = match (is_up, is_new) {
                (true, _) => events::Verdict::Passes,
                (false, true) => events::Verdict::Fails,
                (false, false) => events::Verdict::HasNotPassed,
            };
            events::check_changed(&check, level.as_str(), &target, verdict, reason.as_deref());
        }
        self.publish_checks();
        if self.checks.checked == Checked::Start && self.checks.rules.may_start() {
            events::wait_finished(self.checks.waiting_since.elapsed());
            self.on(Event::WaitPassed);
        }
    }

    fn publish_checks(&mut self) {
        let is_ready = self.checks.rules.is_child_ready();
        // Not kept: what one child has passed says nothing of the next one.
        self.must_announce = is_ready && self.lifecycle.phase() == PhaseName::Starting;
        self.status.send_modify(|status| status.checks = self.checks.reports());
        let is_checked = self.checks.checked == Checked::Child;
        self.follow_watchdog(self.checks.rules.has_started(), is_checked);
        self.tell_outer();
    }
}

/// Asks whoever has to be asked, for no longer than that.
async fn ask(clients: &Clients, target: &Target, limit: Duration) -> Result<(), String> {
    let stage = Stage::default();
    let asked = async {
        match target {
            Target::Tcp(place) => clients.tcp(place, &stage).await,
            Target::Http(target) => clients.http(target, &stage).await,
            Target::Unix(path) => clients.unix(path, &stage).await,
            Target::File { path, max_age } => clients.file(path, *max_age, &stage).await,
            Target::Grpc { place, service } => clients.grpc(place, service, &stage).await,
            Target::Exec(_)
            | Target::Listen(_)
            | Target::Notify
            | Target::Descriptor(_)
            | Target::Watchdog(_) => Err("nobody can be asked".to_owned()),
        }
    };
    let late = |_| Err(format!("timed out after {} {}", text_of(limit), stage.as_str()));
    timeout(limit, asked).await.unwrap_or_else(late)
}

/// For a reason: `1.5s`, `300ms`.
fn text_of(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        return format!("{}ms", time.as_millis());
    }
    format!("{}s", (time.as_secs_f64() * 10.0).round() / 10.0)
}

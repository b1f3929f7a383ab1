//! The limits while the child runs: notices that somebody has changed them, and
//! does what CASTOFF_RESIZE_ACTION says.
//!
//! What counts as a change is told by `policy::resize`. A change is waited for
//! without waking up; only where the kernel cannot tell of one castoff looks
//! every three minutes. Nobody is told twice of the same change.

use std::ffi::CString;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify as Nudge;

use super::Supervisor;
use super::lookout::POLL_INTERVAL;
use super::runner::Runner;
use crate::log::events;
use crate::policy::exit::ExitReason;
use crate::policy::lifecycle::{Checked, Event};
use crate::policy::limits::Limits;
use crate::policy::reaction::Reaction;
use crate::policy::resize;
use crate::policy::signal::Signal;
use crate::policy::status::PhaseName;
use crate::system::Pid;
use crate::system::cgroup::LimitFiles;
use crate::system::watch::Watch;

/// A runtime writes several files for one change: what they say is read when so
/// much time has passed since the first.
const SETTLE_TIME: Duration = Duration::from_millis(200);

/// Limits that are older are read again before a child is started with them.
const STALE_AGE: Duration = Duration::from_secs(1);

/// What the log calls the command of CASTOFF_RESIZE_ACTION.
const COMMAND: &str = "resize_action";

/// What there is to know of limits, for `run` to build.
pub(crate) struct LimitSetting {
    pub(crate) limits: Limits,
    pub(crate) files: Rc<LimitFiles>,
    /// Somebody else has read other limits than before.
    pub(crate) nudge: Rc<Nudge>,
    pub(crate) reaction: Reaction,
    /// That of the reaction, if it is one.
    pub(crate) command: Vec<CString>,
    /// How long the command may take.
    pub(crate) timeout: Duration,
}

/// The limits as the child and the log know them.
pub(super) struct CurrentLimits {
    setting: LimitSetting,
    read_at: Instant,
    watch: Option<Watch>,
    /// Somebody has written, and may go on until then.
    settle_at: Option<Instant>,
    /// When to look where nothing can be watched.
    poll_at: Option<Instant>,
    runner: Runner,
    kill_at: Option<Instant>,
    was_killed: bool,
    /// A limit changed before the child served.
    must_react: bool,
    /// A limit changed while the command ran.
    must_run_again: bool,
}

/// What the loop hears of limits.
pub(super) enum Heard {
    Change,
    Output,
}

impl CurrentLimits {
    pub(super) fn new(setting: LimitSetting) -> Self {
        Self {
            setting,
            read_at: Instant::now(),
            watch: None,
            settle_at: None,
            poll_at: None,
            runner: Runner::default(),
            kill_at: None,
            was_killed: false,
            must_react: false,
            must_run_again: false,
        }
    }

    /// Waits for a change, while the child `is_up`, and for what the command
    /// writes. Never ready while neither can come.
    pub(super) async fn hear(&mut self, is_up: bool) -> Heard {
        // What is written until they are read is read with it.
        let is_listening = is_up && self.settle_at.is_none();
        let watch = self.watch.as_mut().filter(|_| is_listening);
        let changed = async {
            match watch {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed => Heard::Change,
            () = self.setting.nudge.notified(), if is_listening => Heard::Change,
            () = self.runner.log_output() => Heard::Output,
        }
    }

    /// When `Supervisor::look_at_limits` has something to do.
    pub(super) fn next_deadline(&self, is_up: bool) -> Option<Instant> {
        let looks = [self.settle_at, self.poll_at].into_iter().flatten().filter(|_| is_up);
        looks.chain(self.kill_at).min()
    }

    /// A child has been started: files are watched a little later. To close what
    /// watches them takes the kernel up to some ms, which a program that ends at
    /// once need not wait for.
    pub(super) fn begin(&mut self) {
        // What watches takes its descriptor while there are some.
        self.watch = self.watch.take().or_else(|| Watch::new().ok());
        self.have_changed();
        // This one was given what holds now.
        self.must_react = false;
    }

    /// Somebody has written to a file, or may have: they are read soon.
    pub(super) fn have_changed(&mut self) {
        self.settle_at = Some(Instant::now() + SETTLE_TIME);
    }

    /// Whether castoff started that process for a changed limit.
    pub(super) fn is(&self, pid: Pid) -> bool {
        self.runner.pid() == Some(pid)
    }

    /// The command that runs.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.runner.pid()
    }

    pub(super) async fn hear_last_words(&mut self) {
        self.runner.hear_last_words().await;
    }

    /// Watches the files, also those that are new; where they cannot be watched,
    /// the next look is in three minutes.
    fn follow(&mut self) {
        let paths = self.setting.files.paths();
        let is_watched = self.watch.as_mut().is_some_and(|watch| watch.add(&paths).is_ok());
        self.settle_at = None;
        self.poll_at = (!is_watched).then(|| {
            self.watch = None;
            Instant::now() + POLL_INTERVAL
        });
    }
}

impl Supervisor {
    /// Reads the limits, and waits for changes from now on.
    fn follow_limits(&mut self) {
        self.limits.follow();
        // Whatever was written before the files were watched.
        self.read_limits();
        self.witness.look_out();
    }

    /// Does what is due by now.
    pub(super) fn look_at_limits(&mut self) {
        let now = Instant::now();
        let looks = [self.limits.settle_at, self.limits.poll_at];
        if self.child_is_up && looks.into_iter().flatten().any(|at| now >= at) {
            self.follow_limits();
        }
        if self.limits.kill_at.is_some_and(|kill_at| now >= kill_at) {
            self.limits.kill_at = None;
            self.limits.was_killed = true;
            self.limits.runner.kill();
        }
    }

    /// Reads what a child is given that is started now, unless that was just done
    /// for castoff's own start.
    pub(super) fn renew_exports(&mut self) {
        let is_stale = self.limits.read_at.elapsed() >= STALE_AGE;
        if is_stale {
            self.read_limits();
        }
        if is_stale || self.child.is_some() {
            self.launcher.refresh(&self.limits.setting.limits);
            let exports = self.launcher.environment.exported();
            self.status.send_modify(|status| status.exports = exports);
        }
    }

    fn read_limits(&mut self) {
        let limits = &mut self.limits;
        let new = limits.setting.files.read_again(&limits.setting.limits);
        limits.read_at = Instant::now();
        self.status.send_if_modified(|status| {
            let is_other = status.limits != new;
            if is_other {
                status.limits.clone_from(&new);
            }
            is_other
        });
        let change = resize::change(&limits.setting.limits, &new);
        limits.setting.limits = new;
        let Some(change) = change else { return };
        events::limits_changed(&change, &limits.setting.limits);
        self.launcher.environment.export(&limits.setting.limits);
        // A child that has been told to stop needs no other word.
        if self.lifecycle.checked() == Checked::Child {
            self.limits.must_react = true;
            self.react_if_serving();
        }
    }

    /// One that does not serve yet may not have its handlers: the signal that it is
    /// to be told by would end it.
    pub(super) fn react_if_serving(&mut self) {
        let is_serving = self.lifecycle.phase() == PhaseName::Serving;
        if is_serving && std::mem::take(&mut self.limits.must_react) {
            self.react();
        }
    }

    fn react(&mut self) {
        match self.limits.setting.reaction {
            Reaction::Log => {}
            // Not rewritten: it is the user's own choice, and nobody sent it.
            Reaction::Signal(signal) => self.signal_child(signal, self.setting.to_group),
            Reaction::Exec(_) => self.run_resize_command(),
            Reaction::Restart => self.restart_child(),
        }
    }

    /// The child is to be started again, in order.
    fn restart_child(&mut self) {
        let signal = self.setting.stop_on.first().copied().unwrap_or(Signal::TERM);
        self.on(Event::RestartRequested(signal));
    }

    fn run_resize_command(&mut self) {
        let limits = &mut self.limits;
        if limits.runner.pid().is_some() {
            limits.must_run_again = true;
            return;
        }
        limits.must_run_again = false;
        limits.was_killed = false;
        match limits.runner.start(COMMAND, &limits.setting.command, &self.launcher) {
            Ok(()) => limits.kill_at = Some(Instant::now() + limits.setting.timeout),
            // It is logged, and its process, if there was one, nobody's orphan.
            Err(error) => self.refused.extend(error.pid()),
        }
    }

    /// The command has been reaped.
    pub(super) fn resize_command_ended(&mut self, reason: ExitReason) {
        let limits = &mut self.limits;
        limits.kill_at = None;
        limits.runner.end(reason, limits.was_killed);
        if limits.must_run_again && self.lifecycle.checked() == Checked::Child {
            self.run_resize_command();
        }
    }
}

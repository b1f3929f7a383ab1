//! The limits while the child runs: notices that somebody has changed them, and
//! does what CASTOFF_RESIZE_ACTION says.
//!
//! What counts as a change is told by `policy::resize`. A change is waited for
//! without waking up; only where the kernel cannot tell of one castoff looks
//! every three minutes. Nobody is told twice of the same change.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify as Nudge;

use super::Supervisor;
use super::lookout::POLL_INTERVAL;
use super::reaction::{ReactionSetting, Reactor};
use crate::log::events;
use crate::policy::limits::Limits;
use crate::policy::resize;
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
    pub(super) reactor: Reactor,
}

/// What the loop hears of limits.
pub(super) enum Heard {
    Change,
    Output,
}

impl CurrentLimits {
    pub(super) fn new(setting: LimitSetting, reaction: ReactionSetting) -> Self {
        Self {
            setting,
            read_at: Instant::now(),
            watch: None,
            settle_at: None,
            poll_at: None,
            reactor: Reactor::new(COMMAND, reaction),
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
            () = self.reactor.log_output() => Heard::Output,
        }
    }

    /// When `Supervisor::look_at_limits` has something to do.
    pub(super) fn next_deadline(&self, is_up: bool) -> Option<Instant> {
        let looks = [self.settle_at, self.poll_at].into_iter().flatten().filter(|_| is_up);
        looks.chain(self.reactor.next_deadline()).min()
    }

    /// A child has been started: files are watched a little later. To close what
    /// watches them takes the kernel up to some ms, which a program that ends at
    /// once need not wait for.
    pub(super) fn begin(&mut self) {
        // What watches takes its descriptor while there are some.
        self.watch = self.watch.take().or_else(|| Watch::new().ok());
        self.have_changed();
        self.reactor.child_started();
    }

    /// Somebody has written to a file, or may have: they are read soon.
    pub(super) fn have_changed(&mut self) {
        self.settle_at = Some(Instant::now() + SETTLE_TIME);
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
        self.limits.reactor.kill_if_due(now);
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
        self.react_to_limits();
    }
}

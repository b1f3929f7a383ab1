//! When the counters of the OOM killer are worth a look.
//!
//! A scrape asks for them. On cgroup v2 the kernel says that they may have risen,
//! on v1 it says nothing, and castoff looks every three minutes while the child runs.
//! What is seen is told by `death`.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::system::cgroup::Groups;
use crate::system::watch::Watch;

/// A group at its limit is told of again and again, also when nobody is killed.
const REST: Duration = Duration::from_millis(500);

/// How often castoff looks where the kernel tells of nothing. A timer of tokio's
/// wakes up three times until then: at most once a minute.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(180);

/// Given when somebody reads the counters' metric.
pub(crate) type Scraped = Rc<Notify>;

/// Waits for a reason to look.
pub(super) struct Lookout {
    scraped: Scraped,
    /// From the first child's start on; its file comes with `begin`.
    watch: Option<Watch>,
    has_begun: bool,
    /// The kernel has told of something, and is listened to again from then on.
    rest_until: Option<Instant>,
    poll_at: Option<Instant>,
}

impl Lookout {
    pub(super) fn new(scraped: Scraped) -> Self {
        Self { scraped, watch: None, has_begun: false, rest_until: None, poll_at: None }
    }

    /// Takes a descriptor while there are some; for groups of v2.
    pub(super) fn prepare(&mut self, groups: &Groups) {
        if !self.has_begun && groups.oom_event_file().is_some() {
            self.watch = Watch::new().ok();
        }
    }

    /// Begins, or goes on: a child runs.
    pub(super) fn begin(&mut self, groups: &Groups) {
        if self.has_begun {
            return;
        }
        self.has_begun = true;
        let file = groups.oom_event_file();
        let watched = file.zip(self.watch.as_mut()).map(|(file, watch)| watch.add(&[file]));
        if !matches!(watched, Some(Ok(()))) {
            self.watch = None;
            self.poll_at = groups.oom_counts().map(|_| later(POLL_INTERVAL));
        }
    }

    /// Waits until a look is worth it, but for what is due by time. Of the kernel's
    /// news none is lost.
    pub(super) async fn hear(&mut self, is_up: bool) {
        let is_listening = is_up && self.rest_until.is_none();
        let watch = self.watch.as_mut().filter(|_| is_listening);
        let counted = async {
            match watch {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.scraped.notified() => {}
            () = counted => self.rest_until = Some(later(REST)),
        }
    }

    /// When `is_due` may be true.
    pub(super) fn next_deadline(&self, is_up: bool) -> Option<Instant> {
        [self.rest_until, self.poll_at].into_iter().flatten().filter(|_| is_up).min()
    }

    /// Whether a look is due by time. Says so once.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        if self.rest_until.is_some_and(|until| now >= until) {
            self.rest_until = None;
        }
        let is_due = self.poll_at.is_some_and(|at| now >= at);
        if is_due {
            self.poll_at = Some(now + POLL_INTERVAL);
        }
        is_due
    }
}

fn later(time: Duration) -> Instant {
    Instant::now() + time
}

//! Watched files while castoff runs: notices that somebody has changed them, and
//! does what CASTOFF_WATCH_ACTION says.
//!
//! When to look, and what counts as a change, is told by `policy::reload`; the look
//! is made aside. What the files said when castoff started is what they are compared
//! with at first. Nothing is looked at once a stop was asked for.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Supervisor;
use super::reaction::{ReactionSetting, Reactor};
use crate::log::events;
use crate::policy::reload::{Burst, Memory, POLL_INTERVAL};
use crate::system::watch::survey::{Limitation, Survey, Surveyor, Told};

/// So long after the kernel has told of something it is not listened to: a
/// directory in which others write all the time costs some wake-ups a second.
const REST: Duration = Duration::from_millis(50);

/// For how long the child's start waits for the first look, at most: it takes a
/// fraction of a millisecond, but a container that is held back by its quota of CPU
/// may wait for some periods of 100 ms.
const FIRST_LOOK: Duration = Duration::from_millis(500);

/// How many limitations are remembered so as to be told once.
const TOLD_MAX: usize = 256;

/// What the log calls the command of CASTOFF_WATCH_ACTION.
const COMMAND: &str = "watch_action";

/// What there is to know of watched files, for `run` to build.
pub(crate) struct WatchSetting {
    /// None: nothing is watched.
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) proc_root: PathBuf,
}

/// The files as castoff saw them last.
pub(super) struct WatchedFiles {
    /// `None`: there is nothing to watch.
    surveyor: Option<Surveyor>,
    memory: Memory,
    burst: Burst,
    is_watching: bool,
    rest_until: Option<Instant>,
    poll_at: Option<Instant>,
    told: Vec<(PathBuf, Limitation)>,
    pub(super) reactor: Reactor,
}

/// What the loop hears of files.
pub(super) enum Heard {
    Told(Told),
    Output,
}

impl WatchedFiles {
    pub(super) fn new(setting: WatchSetting, reaction: ReactionSetting) -> Self {
        let WatchSetting { paths, proc_root } = setting;
        let surveyor = (!paths.is_empty()).then(|| Surveyor::new(&paths, proc_root));
        Self {
            surveyor,
            memory: Memory::new(paths),
            burst: Burst::default(),
            is_watching: false,
            rest_until: None,
            poll_at: None,
            told: Vec::new(),
            reactor: Reactor::new(COMMAND, reaction),
        }
    }

    /// How many changes there were; `None`: nothing is watched.
    pub(super) fn first_count(&self) -> Option<u64> {
        self.surveyor.as_ref().map(|_| 0)
    }

    /// Waits for news, while they are `wanted`, and for what the command writes.
    /// Never ready while neither can come.
    pub(super) async fn hear(&mut self, is_wanted: bool) -> Heard {
        let is_listening = is_wanted && self.rest_until.is_none();
        let told = async {
            match self.surveyor.as_mut().filter(|_| is_wanted) {
                Some(surveyor) => surveyor.hear(is_listening).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            told = told => Heard::Told(told),
            () = self.reactor.log_output() => Heard::Output,
        }
    }

    /// When `Supervisor::look_at_files` has something to do.
    pub(super) fn next_deadline(&self, is_wanted: bool) -> Option<Instant> {
        let look_at = self.look_at().filter(|_| is_wanted);
        let rest_until = self.rest_until.filter(|_| is_wanted);
        [look_at, rest_until, self.reactor.next_deadline()].into_iter().flatten().min()
    }

    /// When to look, if nobody does now.
    fn look_at(&self) -> Option<Instant> {
        let is_free = self.surveyor.as_ref().is_some_and(|surveyor| !surveyor.is_looking());
        let due = [self.burst.due_at(), self.poll_at].into_iter().flatten();
        due.min().filter(|_| is_free && self.is_watching)
    }

    /// Finds out what the files say before the child does, if that is possible.
    pub(super) async fn look_first(&mut self) {
        let Some(surveyor) = &mut self.surveyor else { return };
        // Without a thread the look at the first child's start is the first.
        if surveyor.look().is_ok()
            && let Ok(Told::Survey(Some(survey))) =
                tokio::time::timeout(FIRST_LOOK, surveyor.hear(false)).await
        {
            self.memory.compare(survey.sights);
        }
    }

    /// A child has been started. With the first one files are watched, a little
    /// later: what changes until then is found by the look that begins it.
    pub(super) fn begin(&mut self) {
        self.reactor.child_started();
        if let Some(surveyor) = self.surveyor.as_mut().filter(|_| !self.is_watching) {
            // What watches takes its descriptor while there are some.
            surveyor.watch();
            self.is_watching = true;
            self.burst.heard(Instant::now());
        }
    }

    fn look(&mut self) {
        let Some(surveyor) = &mut self.surveyor else { return };
        self.burst.end();
        self.poll_at = None;
        if let Err(error) = surveyor.look() {
            events::watch_failed(error);
            self.poll_at = Some(Instant::now() + POLL_INTERVAL);
        }
    }

    fn tell_limitations(&mut self, limitations: Vec<(PathBuf, Limitation)>) {
        for limited in limitations {
            if self.told.len() < TOLD_MAX && !self.told.contains(&limited) {
                let (path, limitation) = &limited;
                events::watch_limited(path, limitation);
                self.told.push(limited);
            }
        }
    }
}

impl Supervisor {
    /// Whether it matters what files say: to this child, or to the next one.
    pub(super) fn wants_files(&self) -> bool {
        self.lifecycle.stop_requested_at().is_none()
    }

    /// Does what is due by now.
    pub(super) fn look_at_files(&mut self) {
        let now = Instant::now();
        if self.files.rest_until.is_some_and(|until| now >= until) {
            self.files.rest_until = None;
        }
        if self.wants_files() && self.files.look_at().is_some_and(|at| now >= at) {
            self.files.look();
        }
        self.files.reactor.kill_if_due(now);
    }

    pub(super) fn take_told(&mut self, told: Told) {
        match told {
            Told::News => {
                let now = Instant::now();
                self.files.burst.heard(now);
                self.files.rest_until = Some(now + REST);
            }
            Told::Noise => self.files.rest_until = Some(Instant::now() + REST),
            Told::Survey(Some(survey)) => self.take_survey(survey),
            Told::Survey(None) => self.files.poll_at = Some(Instant::now() + POLL_INTERVAL),
        }
    }

    fn take_survey(&mut self, survey: Survey) {
        let files = &mut self.files;
        let now = Instant::now();
        if files.is_watching {
            files.poll_at = survey.must_poll.then(|| now + POLL_INTERVAL);
            files.tell_limitations(survey.limitations);
        }
        let news = files.memory.compare(survey.sights);
        if news.must_look_again {
            files.burst.heard(now);
        }
        for path in &news.lost {
            events::watch_lost(path);
        }
        if news.changed.is_empty() {
            return;
        }
        events::config_changed(&news.changed, files.reactor.reaction());
        self.status.send_modify(|status| {
            status.config_changes = status.config_changes.map(|count| count + 1);
        });
        self.react_to_files();
    }
}

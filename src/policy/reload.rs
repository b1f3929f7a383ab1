//! When watched files are looked at again, and what of that is a change: news,
//! fingerprints and times in, paths that changed out.
//!
//! Whoever writes files writes several, and several times: they are looked at once
//! it is quiet. What counts is what they say. A file that is touched, written with
//! the same bytes or replaced by its equal has not changed, and one that has gone
//! for a moment is not gone.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// So long nobody has written anything before it counts as written.
pub(crate) const QUIET_TIME: Duration = Duration::from_millis(500);

/// Whoever writes on and on does not hold up a look for longer than that.
pub(crate) const BURST_MAX: Duration = Duration::from_secs(5);

/// How often castoff looks where the kernel tells of nothing.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// News of which nobody has seen yet what they are about: the first and the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Burst(Option<(Instant, Instant)>);

impl Burst {
    pub(crate) fn heard(&mut self, now: Instant) {
        let first = self.0.map_or(now, |(first, _)| first);
        self.0 = Some((first, now));
    }

    /// When to look; `None`: there is no news.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        self.0.map(|(first, last)| (last + QUIET_TIME).min(first + BURST_MAX))
    }

    /// Somebody looks now: what comes from here on is another burst.
    pub(crate) fn end(&mut self) {
        self.0 = None;
    }
}

/// What a file says, or what it is where that cannot be read: equal only as long
/// as nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(pub(crate) u64);

/// What was found where a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    Absent,
    /// It cannot be told for now.
    Unclear,
    File(Fingerprint),
    /// What is in it, by rising name.
    Directory(Vec<(OsString, Fingerprint)>),
}

/// What follows from a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Files that say something else than before, of directories those in them that
    /// do, have come or have gone. By name, each once.
    pub(crate) changed: Vec<PathBuf>,
    /// Paths that lead nowhere now, each told once until it leads somewhere.
    pub(crate) lost: Vec<PathBuf>,
    /// Something has gone that may be back when it is quiet.
    pub(crate) must_look_again: bool,
}

/// What was found last, of each path.
#[derive(Clone, Debug)]
pub(crate) struct Memory(Vec<Known>);

#[derive(Clone, Debug)]
struct Known {
    path: PathBuf,
    /// Never `Unclear`; `None`: it was never clear. A path that leads nowhere any
    /// more keeps what was there.
    sight: Option<Sight>,
    /// Something of it was gone at the last look.
    is_in_doubt: bool,
    is_lost: bool,
}

impl Memory {
    /// Of nothing: whatever is found first is no change.
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        let known = |path| Known { path, sight: None, is_in_doubt: false, is_lost: false };
        Self(paths.into_iter().map(known).collect())
    }

    /// Compares with the last look; `sights` are in the order of the paths.
    pub(crate) fn compare(&mut self, sights: Vec<Sight>) -> News {
        let mut news = News::default();
        for (known, sight) in self.0.iter_mut().zip(sights) {
            known.take(sight, &mut news);
        }
        // One that is named twice, or is in a directory that is named too.
        news.changed.sort_unstable();
        news.changed.dedup();
        news
    }
}

impl Known {
    fn take(&mut self, sight: Sight, news: &mut News) {
        if sight == Sight::Unclear {
            return;
        }
        let Some(before) = self.sight.take() else {
            self.sight = Some(sight);
            return;
        };
        let has_gone = has_gone(&before, &sight);
        if has_gone && !self.is_lost && !std::mem::replace(&mut self.is_in_doubt, true) {
            news.must_look_again = true;
            self.sight = Some(before);
            return;
        }
        self.is_in_doubt = false;
        if sight == Sight::Absent {
            if before != Sight::Absent && !std::mem::replace(&mut self.is_lost, true) {
                news.lost.push(self.path.clone());
            }
            self.sight = Some(before);
            return;
        }
        self.is_lost = false;
        match (&before, &sight) {
            (Sight::Directory(before), Sight::Directory(now)) => {
                let come = now.iter().filter(|(name, print)| of(before, name) != Some(*print));
                let gone = before.iter().filter(|(name, _)| of(now, name).is_none());
                let paths = come.chain(gone).map(|(name, _)| self.path.join(name));
                news.changed.extend(paths);
            }
            _ if before == sight => {}
            _ => news.changed.push(self.path.clone()),
        }
        self.sight = Some(sight);
    }
}

/// Whether something was there before and is not now.
fn has_gone(before: &Sight, now: &Sight) -> bool {
    match (before, now) {
        (Sight::Absent, _) => false,
        (_, Sight::Absent) => true,
        (Sight::Directory(before), Sight::Directory(now)) => {
            before.iter().any(|(name, _)| of(now, name).is_none())
        }
        _ => false,
    }
}

/// What the file of that name says, if it is there.
fn of(entries: &[(OsString, Fingerprint)], name: &OsStr) -> Option<Fingerprint> {
    let place = entries.binary_search_by(|(known, _)| known.as_os_str().cmp(name)).ok()?;
    entries.get(place).map(|(_, print)| *print)
}

#[cfg(test)]
mod tests;

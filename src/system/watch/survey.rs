//! Looks at what is watched: where each path leads to, what is there now, and
//! what the kernel is to tell of from then on.
//!
//! A look is made by a thread of its own, one at a time, for any of the files may
//! be on a server that does not answer. It reads bounded amounts of regular files
//! and opens nothing else. What counts as a change is decided in `policy::reload`.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::inotify::Inotify;
use nix::sys::{stat, statfs};
use tokio::sync::oneshot;

use super::Watch;
use super::mounts::{Mounted, Mounts};
use super::trail::{Goal, Tracker, Unwatched, Watched};
use crate::policy::reload::{Fingerprint, Sight};
use crate::system::aside;

/// Of a file up to this size, in bytes, it counts what it says; a ConfigMap is no
/// larger. Of a larger one, its size and when it was modified.
const CONTENT_MAX: u64 = 1 << 20;

/// How much one look reads at most, in bytes, of all files together.
const READ_MAX: u64 = 64 << 20;

/// How many files of a directory are looked at: the first by name.
const FILES_MAX: usize = 4096;

/// How many limitations one look tells at most.
const LIMITATIONS_MAX: usize = 64;

/// Why changes at a path may be heard of late or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Limitation {
    #[error("mounted by subPath, which Kubernetes never updates")]
    SubPath,
    #[error("mounted as a single file, of which only what is written in place is seen")]
    SingleFile,
    #[error("does not exist yet")]
    Absent,
    #[error("more than {FILES_MAX} files, of which only the first by name are looked at")]
    TooManyFiles,
    #[error("too much to watch, looked at every 10s")]
    TooManyWatches,
    #[error("fs.inotify.max_user_watches is reached, looked at every 10s")]
    MaxUserWatches,
    #[error(
        "fs.inotify.max_user_instances or the limit of descriptors is reached, \
         looked at every 10s"
    )]
    MaxUserInstances,
    #[error("its file system tells of no change by another machine, looked at every 10s")]
    Remote,
    #[error("cannot be watched, looked at every 10s: {}", .0.desc())]
    Refused(Errno),
    #[error("cannot be looked at: {}", .0.desc())]
    Unclear(Errno),
}

impl Limitation {
    /// Whether only another look can tell what happens.
    fn is_blind(self) -> bool {
        !matches!(self, Self::SubPath | Self::SingleFile | Self::Absent | Self::TooManyFiles)
    }
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Survey {
    /// In the order of the paths.
    pub(crate) sights: Vec<Sight>,
    pub(crate) limitations: Vec<(PathBuf, Limitation)>,
    /// The kernel does not tell of everything.
    pub(crate) must_poll: bool,
    watched: Watched,
}

/// What the surveyor has to say.
#[derive(Debug)]
pub(crate) enum Told {
    /// Something may have changed.
    News,
    /// Something else has.
    Noise,
    /// The look is over; `None`: it came to nothing.
    Survey(Option<Survey>),
}

/// Paths, looked at and, from when it is told to, watched.
pub(crate) struct Surveyor {
    order: Order,
    /// Why nothing is watched.
    unwatched: Option<Errno>,
    watch: Option<Watch>,
    watched: Arc<Watched>,
    under_way: Option<oneshot::Receiver<Survey>>,
    /// What does not change has not been told.
    is_first: bool,
}

/// What is the same in every look.
#[derive(Clone)]
struct Order {
    /// As they were written, and absolute.
    paths: Arc<Vec<(PathBuf, PathBuf)>>,
    proc_root: PathBuf,
    hasher: RandomState,
    /// Device and inode of what castoff writes to, as the child may.
    own: [Option<(u64, u64)>; 2],
}

impl Surveyor {
    pub(crate) fn new(paths: &[PathBuf], proc_root: PathBuf) -> Self {
        let absolute = |path: &PathBuf| {
            (path.clone(), std::path::absolute(path).unwrap_or_else(|_| path.clone()))
        };
        let paths = Arc::new(paths.iter().map(absolute).collect());
        Self {
            order: Order { paths, proc_root, hasher: RandomState::new(), own: own_files() },
            unwatched: None,
            watch: None,
            watched: Arc::default(),
            under_way: None,
            is_first: true,
        }
    }

    /// From the next look on the kernel tells of changes, as far as it can. Needs
    /// the context of a runtime.
    pub(crate) fn watch(&mut self) {
        self.is_first = true;
        match Watch::new() {
            Ok(watch) => (self.watch, self.unwatched) = (Some(watch), None),
            Err(error) => {
                let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
                self.unwatched = Some(errno);
            }
        }
    }

    /// Whether a look has begun and not come back.
    pub(crate) fn is_looking(&self) -> bool {
        self.under_way.is_some()
    }

    /// Begins a look.
    ///
    /// # Errors
    /// No thread can be made.
    pub(crate) fn look(&mut self) -> io::Result<()> {
        let (tell, told) = oneshot::channel();
        let order = self.order.clone();
        let inotify = self.watch.as_ref().map(Watch::inotify);
        let (before, unwatched) = (Arc::clone(&self.watched), self.unwatched);
        let is_first = std::mem::replace(&mut self.is_first, false);
        aside::start(move || {
            let survey = survey(&order, inotify.as_deref(), unwatched, is_first);
            if let Some(inotify) = inotify {
                survey.watched.release_others(&inotify, &before);
            }
            // There is nobody to tell any more when castoff ends.
            let _ = tell.send(survey);
        })?;
        self.under_way = Some(told);
        Ok(())
    }

    /// Waits for news, if it `is_listening`, and for the end of a look. Nothing is
    /// lost when this is dropped before it is ready.
    pub(crate) async fn hear(&mut self, is_listening: bool) -> Told {
        let Self { watch, watched, under_way, .. } = self;
        let survey = async {
            match under_way {
                Some(told) => told.await.ok(),
                None => std::future::pending().await,
            }
        };
        let heard = async {
            match watch.as_mut().filter(|_| is_listening) {
                Some(watch) => watch.heard(|event| watched.is_news(event)).await,
                None => std::future::pending().await,
            }
        };
        let survey = tokio::select! {
            biased;
            survey = survey => survey,
            is_news = heard => return if is_news { Told::News } else { Told::Noise },
        };
        self.under_way = None;
        Told::Survey(survey.map(|mut survey| {
            self.watched = Arc::new(std::mem::take(&mut survey.watched));
            survey
        }))
    }
}

fn survey(
    order: &Order,
    inotify: Option<&Inotify>,
    unwatched: Option<Errno>,
    is_first: bool,
) -> Survey {
    let mut eye = Eye {
        tracker: Tracker::new(inotify),
        is_first,
        // A mount stays what it was.
        mounts: is_first.then(|| Mounts::read(&order.proc_root).ok()).flatten(),
        hasher: &order.hasher,
        own: &order.own,
        left: READ_MAX,
        limitations: Vec::new(),
        must_poll: false,
        content: Vec::new(),
    };
    let mut sights = Vec::new();
    for (path, absolute) in order.paths.iter() {
        sights.push(eye.look_at(path, absolute));
        let gap = match unwatched {
            Some(errno) => Some(Limitation::from_start(errno)),
            None => eye.tracker.take_gap().map(Limitation::from),
        };
        if let Some(gap) = gap {
            eye.limit(path, gap);
        }
    }
    Survey {
        sights,
        limitations: eye.limitations,
        must_poll: eye.must_poll,
        watched: eye.tracker.into_watched(),
    }
}

impl Limitation {
    fn from_start(errno: Errno) -> Self {
        match errno {
            Errno::EMFILE => Self::MaxUserInstances,
            errno => Self::Refused(errno),
        }
    }
}

impl From<Unwatched> for Limitation {
    fn from(unwatched: Unwatched) -> Self {
        match unwatched {
            Unwatched::TooMany => Self::TooManyWatches,
            Unwatched::Refused(Errno::ENOSPC) => Self::MaxUserWatches,
            Unwatched::Refused(errno) => Self::Refused(errno),
        }
    }
}

/// One look.
struct Eye<'a> {
    tracker: Tracker<'a>,
    is_first: bool,
    mounts: Option<Mounts>,
    hasher: &'a RandomState,
    own: &'a [Option<(u64, u64)>],
    /// How much it may still read.
    left: u64,
    limitations: Vec<(PathBuf, Limitation)>,
    must_poll: bool,
    content: Vec<u8>,
}

/// What one file is.
enum One {
    Print(Fingerprint),
    Gone,
    Unclear(Errno),
}

impl Eye<'_> {
    fn limit(&mut self, path: &Path, limitation: Limitation) {
        self.must_poll |= limitation.is_blind();
        if self.limitations.len() < LIMITATIONS_MAX {
            self.limitations.push((path.to_owned(), limitation));
        }
    }

    fn unclear(&mut self, path: &Path, errno: Errno) -> Sight {
        self.limit(path, Limitation::Unclear(errno));
        Sight::Unclear
    }

    /// `path` is what it is called, `absolute` where it is.
    fn look_at(&mut self, path: &Path, absolute: &Path) -> Sight {
        let (at, metadata) = match self.tracker.follow(absolute) {
            Goal::At(at, metadata) => (at, metadata),
            Goal::Nowhere => {
                if self.is_first {
                    self.limit(path, Limitation::Absent);
                }
                return Sight::Absent;
            }
            Goal::Unclear(error) => return self.unclear(path, errno_of(&error)),
        };
        if is_remote(&at) {
            self.limit(path, Limitation::Remote);
        }
        self.tell_mount(path, &at);
        if metadata.is_dir() {
            return self.look_into(path, &at);
        }
        match self.look_at_one(&at, &metadata) {
            One::Print(print) => Sight::File(print),
            One::Gone => Sight::Absent,
            One::Unclear(errno) => self.unclear(path, errno),
        }
    }

    fn look_into(&mut self, path: &Path, directory: &Path) -> Sight {
        self.tracker.watch_all(directory);
        let names = match names_in(directory) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Sight::Absent,
            Err(error) => return self.unclear(path, errno_of(&error)),
        };
        let mut found = Vec::new();
        if names.len() > FILES_MAX {
            self.limit(path, Limitation::TooManyFiles);
        }
        for name in names.into_iter().take(FILES_MAX) {
            let (called, entry) = (path.join(&name), directory.join(&name));
            let (at, metadata) = match self.tracker.follow(&entry) {
                Goal::At(at, metadata) => (at, metadata),
                Goal::Nowhere => continue,
                Goal::Unclear(error) => return self.unclear(&called, errno_of(&error)),
            };
            if !metadata.is_dir() {
                self.tell_mount(&called, &at);
            }
            match self.look_at_one(&at, &metadata) {
                One::Print(print) => found.push((name, print)),
                One::Gone => continue,
                One::Unclear(errno) => return self.unclear(&called, errno),
            };
        }
        Sight::Directory(found)
    }

    /// `at` is no link.
    fn look_at_one(&mut self, at: &Path, metadata: &Metadata) -> One {
        if !metadata.is_file() {
            // What is in a directory below is nobody's business here.
            return One::Print(self.print(|hasher| (0, metadata.is_dir()).hash(hasher)));
        }
        // Every change would be told there, and so be the next.
        if self.own.contains(&Some((metadata.dev(), metadata.ino()))) {
            return One::Print(self.print(|hasher| 3.hash(hasher)));
        }
        self.tracker.watch_file(at);
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
            .open(at)
            .and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = match file {
            Ok(opened) => opened,
            Err(error) => {
                return match errno_of(&error) {
                    // It is known from outside at least.
                    Errno::EACCES | Errno::EPERM => One::Print(self.outer_print(metadata)),
                    // A link has taken its place: that is heard of.
                    Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP => One::Gone,
                    errno => One::Unclear(errno),
                };
            }
        };
        if !metadata.is_file() || metadata.len() > CONTENT_MAX.min(self.left) {
            return One::Print(self.outer_print(&metadata));
        }
        self.content.clear();
        let read = file.take(CONTENT_MAX + 1).read_to_end(&mut self.content);
        self.left = self.left.saturating_sub(self.content.len() as u64);
        match read {
            Ok(bytes) if bytes as u64 <= CONTENT_MAX => {
                One::Print(self.print(|hasher| (1, &self.content).hash(hasher)))
            }
            Ok(_) => One::Print(self.outer_print(&metadata)),
            Err(error) => One::Unclear(errno_of(&error)),
        }
    }

    /// What a file is, whatever it says.
    fn outer_print(&self, metadata: &Metadata) -> Fingerprint {
        let (device, inode) = (metadata.dev(), metadata.ino());
        let modified_at = (metadata.mtime(), metadata.mtime_nsec());
        self.print(|hasher| (2, device, inode, metadata.len(), modified_at).hash(hasher))
    }

    fn print(&self, write: impl FnOnce(&mut <RandomState as BuildHasher>::Hasher)) -> Fingerprint {
        let mut hasher = self.hasher.build_hasher();
        write(&mut hasher);
        Fingerprint(hasher.finish())
    }

    fn tell_mount(&mut self, path: &Path, at: &Path) {
        let mounted = self.mounts.as_ref().and_then(|mounts| mounts.mounted(at));
        match mounted {
            Some(Mounted::BySubPath) => self.limit(path, Limitation::SubPath),
            Some(Mounted::Alone) => self.limit(path, Limitation::SingleFile),
            None => {}
        }
    }
}

/// The names in a directory that count, in their order, up to one more than are
/// looked at. Hidden files, those of a volume among them, and the copies that
/// editors leave behind are none.
fn names_in(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut names: Vec<OsString> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if is_hidden(&name) {
            continue;
        }
        let place = names.binary_search(&name).unwrap_or_else(|place| place);
        names.insert(place, name);
        names.truncate(FILES_MAX + 1);
    }
    Ok(names)
}

/// Standard output and error.
fn own_files() -> [Option<(u64, u64)>; 2] {
    let identity = |stat: stat::FileStat| (stat.st_dev, stat.st_ino);
    [stat::fstat(io::stdout()), stat::fstat(io::stderr())].map(|stat| stat.ok().map(identity))
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".") || name.as_bytes().ends_with(b"~")
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Whether another machine, or the host of a virtual one, may change what is there
/// without a word from this kernel (`man 7 inotify`).
fn is_remote(path: &Path) -> bool {
    // NFS, SMB, CIFS, SMB2, FUSE with virtiofs, 9P, Ceph, AFS (`man 2 statfs`).
    const MAGICS: [u32; 8] = [
        0x6969,
        0x517B,
        0xFF53_4D42,
        0xFE53_4D42,
        0x6573_5546,
        0x0102_1997,
        0x00C3_6400,
        0x5346_414F,
    ];
    // The width of the number is the architecture's; that of the magics is not.
    statfs::statfs(path).is_ok_and(|found| MAGICS.contains(&(found.filesystem_type().0 as u32)))
}

#[cfg(test)]
mod tests;

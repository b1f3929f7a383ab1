//! The trail of a path: where it leads to by way of directories and links, and
//! what must be watched to hear that it leads elsewhere.
//!
//! A ConfigMap's file is a link to `..data/file`, and `..data` one to a directory
//! that a rename exchanges; an editor puts another file in its place; a directory
//! is replaced with all that is in it. Each of these is news of a name in a
//! directory of the trail, so all of them are watched, for these names. Each is
//! watched before it is looked at: what changes later is heard of. It runs aside,
//! for any of these files may be on a server that does not answer.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, Inotify, InotifyEvent, WatchDescriptor};

/// As many as the kernel follows (`man 7 path_resolution`).
const LINKS_MAX: usize = 40;

/// How many directories and files are watched at most.
const WATCHES_MAX: usize = 4096;

/// What is told of a directory: names, not contents.
fn of_names() -> AddWatchFlags {
    AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR
}

/// What is told of a file, also when it is written by another name or through
/// another mount.
fn of_contents() -> AddWatchFlags {
    AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_DONT_FOLLOW
}

/// What is watched, and of what is told about it, what matters.
#[derive(Debug, Default)]
pub(super) struct Watched(Vec<(WatchDescriptor, Heed)>);

#[derive(Debug)]
enum Heed {
    All,
    /// What is told about these names, in their order, and the thing itself.
    Names(Vec<OsString>),
}

impl Heed {
    fn add(&mut self, name: &OsStr) {
        if let Self::Names(names) = self
            && let Err(place) = names.binary_search_by(|known| known.as_os_str().cmp(name))
        {
            names.insert(place, name.to_owned());
        }
    }

    fn has(&self, event: &InotifyEvent) -> bool {
        match (self, &event.name) {
            (Self::Names(names), Some(name)) => names.binary_search(name).is_ok(),
            (Self::All, _) | (_, None) => true,
        }
    }
}

impl Watched {
    pub(super) fn is_news(&self, event: &InotifyEvent) -> bool {
        // Nothing happened but that something is watched no longer.
        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
            return false;
        }
        let of_it = self.0.iter().filter(|(descriptor, _)| *descriptor == event.wd);
        let mut heeds = of_it.map(|(_, heed)| heed).peekable();
        // One that is not known is being added, or the queue has run over.
        heeds.peek().is_none() || heeds.any(|heed| heed.has(event))
    }

    /// Lets go of what is among `before` and not here.
    pub(super) fn release_others(&self, inotify: &Inotify, before: &Self) {
        for (old, _) in &before.0 {
            if !self.0.iter().any(|(descriptor, _)| descriptor == old) {
                // What does not exist any more the kernel has let go of by itself.
                let _ = inotify.rm_watch(*old);
            }
        }
    }
}

/// Why something is not watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unwatched {
    /// There are more than `WATCHES_MAX`.
    TooMany,
    /// The kernel says so.
    Refused(Errno),
}

/// Where a path leads to.
pub(super) enum Goal {
    /// This is no link, and none leads there.
    At(PathBuf, Metadata),
    Nowhere,
    /// It cannot be told.
    Unclear(io::Error),
}

/// Follows paths, and watches what it comes by.
pub(super) struct Tracker<'a> {
    /// `None`: nothing can be watched.
    inotify: Option<&'a Inotify>,
    directories: Vec<Directory>,
    files: Vec<WatchDescriptor>,
    /// Why not all is watched; of several reasons the last.
    gap: Option<Unwatched>,
}

/// One of a trail.
struct Directory {
    path: PathBuf,
    /// `None`: it is not watched.
    descriptor: Option<WatchDescriptor>,
    heed: Heed,
}

impl<'a> Tracker<'a> {
    pub(super) fn new(inotify: Option<&'a Inotify>) -> Self {
        Self { inotify, directories: Vec::new(), files: Vec::new(), gap: None }
    }

    /// What is watched by now.
    pub(super) fn into_watched(self) -> Watched {
        let directories = self.directories.into_iter();
        let directories =
            directories.filter_map(|directory| Some((directory.descriptor?, directory.heed)));
        Watched(directories.chain(self.files.into_iter().map(|file| (file, Heed::All))).collect())
    }

    /// Whether something was not watched since this was asked last, and why.
    pub(super) fn take_gap(&mut self) -> Option<Unwatched> {
        self.gap.take()
    }

    /// Where that absolute path leads to.
    pub(super) fn follow(&mut self, path: &Path) -> Goal {
        let mut at = PathBuf::from("/");
        let mut rest: VecDeque<OsString> = names_of(path).collect();
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            self.watch_directory(&at, |heed| heed.add(&name));
            let next = at.join(&name);
            let metadata = match fs::symlink_metadata(&next) {
                Ok(metadata) => metadata,
                Err(error) => return without(error),
            };
            if !metadata.is_symlink() {
                at = next;
                if rest.is_empty() {
                    return Goal::At(at, metadata);
                }
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Goal::Unclear(Errno::ELOOP.into());
            }
            let target = match fs::read_link(&next) {
                Ok(target) => target,
                Err(error) => return without(error),
            };
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            let names: Vec<_> = names_of(&target).collect();
            for name in names.into_iter().rev() {
                rest.push_front(name);
            }
        }
        match fs::symlink_metadata(&at) {
            Ok(metadata) => Goal::At(at, metadata),
            Err(error) => without(error),
        }
    }

    /// Heeds every name of a directory, which is no link.
    pub(super) fn watch_all(&mut self, directory: &Path) {
        self.watch_directory(directory, |heed| *heed = Heed::All);
    }

    /// Heeds what is written to a file, which is no link.
    pub(super) fn watch_file(&mut self, path: &Path) {
        let descriptor = self.watch(path, of_contents());
        self.files.extend(descriptor);
    }

    fn watch_directory(&mut self, path: &Path, heed: impl FnOnce(&mut Heed)) {
        if let Some(known) = self.directories.iter_mut().find(|known| known.path == path) {
            return heed(&mut known.heed);
        }
        let descriptor = self.watch(path, of_names());
        let mut new =
            Directory { path: path.to_owned(), descriptor, heed: Heed::Names(Vec::new()) };
        heed(&mut new.heed);
        self.directories.push(new);
    }

    fn watch(&mut self, path: &Path, mask: AddWatchFlags) -> Option<WatchDescriptor> {
        let inotify = self.inotify?;
        if self.directories.len() + self.files.len() >= WATCHES_MAX {
            self.gap = Some(Unwatched::TooMany);
            return None;
        }
        match inotify.add_watch(path, mask) {
            Ok(descriptor) => Some(descriptor),
            // It went, or became something else: whoever did that is heard.
            Err(Errno::ENOENT | Errno::ENOTDIR) => None,
            Err(errno) => {
                self.gap = Some(Unwatched::Refused(errno));
                None
            }
        }
    }
}

fn without(error: io::Error) -> Goal {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Goal::Nowhere,
        _ => Goal::Unclear(error),
    }
}

/// The names of a path in their order, `..` among them.
fn names_of(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

//! Files that somebody else may change: says that one of them has changed, and
//! not how.
//!
//! Costs nothing while nothing happens. It works on the files of cgroups too:
//! the kernel tells of a write by whomever, also through another mount or from
//! outside of the container, and of events that a group counts, such as those of
//! `memory.events` (kernel document `cgroup-v2`). It never reads the files. Where
//! paths lead to, and what is found there, is looked at by `survey`, aside.
#![expect(unsafe_code, reason = "tokio wants to be told that a descriptor stays what it is")]

mod mounts;
pub(crate) mod survey;
mod trail;

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How many reads of events one turn takes: each holds some 150 of them.
const TURN: usize = 4;

/// Files, watched.
pub(crate) struct Watch {
    events: AsyncFd<Events>,
}

struct Events(Arc<Inotify>);

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watch {
    /// Ready to watch, and with its descriptor, but without files.
    ///
    /// # Errors
    /// The kernel has no inotify, or no room for another one (`man 7 inotify`,
    /// `/proc/sys/fs/inotify`).
    ///
    /// # Panics
    /// Outside of the context of a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let events = Events(Arc::new(inotify));
        // SAFETY: inotify owns its descriptor and gives out no other.
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) }?;
        Ok(Self { events })
    }

    /// Watches these files too, and those that have replaced one. A file that does
    /// not exist, or that castoff may not read, is passed over. What is watched
    /// stays so without a gap.
    ///
    /// # Errors
    /// The kernel has no room for another one.
    pub(crate) fn add(&mut self, paths: &[PathBuf]) -> io::Result<()> {
        add(&self.events.get_ref().0, paths)
    }

    /// For who adds to what is watched, aside.
    fn inotify(&self) -> Arc<Inotify> {
        Arc::clone(&self.events.get_ref().0)
    }

    /// Waits until a file has changed; of several changes it may tell once.
    /// Nothing is lost when this is dropped before it is ready.
    pub(crate) async fn changed(&mut self) {
        self.heard(|_| true).await;
    }

    /// Waits until the kernel tells of anything; returns whether some of that
    /// `is_news`. Nothing is lost when this is dropped before it is ready.
    async fn heard(&mut self, is_news: impl Fn(&InotifyEvent) -> bool) -> bool {
        loop {
            let Ok(mut ready) = self.events.readable().await else {
                return std::future::pending().await;
            };
            let (mut has_heard, mut has_news) = (false, false);
            for _ in 0..TURN {
                match ready.get_inner().0.read_events() {
                    Ok(events) => {
                        has_heard = true;
                        has_news |= events.iter().any(&is_news);
                    }
                    // There are no more.
                    Err(_) => {
                        ready.clear_ready();
                        break;
                    }
                }
            }
            if has_heard {
                return has_news;
            }
        }
    }
}

/// The kernel takes a second word about a file for the first.
fn add(inotify: &Inotify, paths: &[PathBuf]) -> io::Result<()> {
    // One that is replaced by a rename loses a link before it goes.
    let changes = AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_DELETE_SELF;
    for path in paths {
        if let Err(error @ (Errno::ENOSPC | Errno::ENOMEM | Errno::ENOSYS)) =
            inotify.add_watch(path, changes)
        {
            return Err(error.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A directory of this test, and files in it.
    fn files<const N: usize>(name: &str, files: [&str; N]) -> (PathBuf, [PathBuf; N]) {
        let dir = std::env::temp_dir().join(format!("castoff-watch-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let paths = files.map(|file| dir.join(file));
        for path in &paths {
            fs::write(path, "1").expect("a file");
        }
        (dir, paths)
    }

    fn watching(paths: &[PathBuf]) -> Watch {
        let mut watch = Watch::new().expect("inotify");
        watch.add(paths).expect("inotify");
        watch
    }

    async fn is_quiet(watch: &mut Watch) -> bool {
        timeout(Duration::from_millis(50), watch.changed()).await.is_err()
    }

    #[tokio::test]
    async fn a_write_is_told_and_a_read_is_not() {
        let (dir, paths) = files("write", ["a", "b"]);
        let mut watch = watching(&paths);
        for path in &paths {
            fs::read(path).expect("a file");
            assert!(is_quiet(&mut watch).await);
            fs::write(path, "2").expect("a file");
            timeout(PATIENCE, watch.changed()).await.expect("it is told");
        }
        fs::remove_dir_all(dir).expect("it is there");
    }

    #[tokio::test]
    async fn a_burst_is_told_to_its_end() {
        let (dir, paths) = files("burst", ["a", "b"]);
        let mut watch = watching(&paths);
        for nth in 0..2000 {
            for path in &paths {
                fs::write(path, nth.to_string()).expect("a file");
            }
        }
        while !is_quiet(&mut watch).await {}
        fs::write(&paths[0], "last").expect("a file");
        timeout(PATIENCE, watch.changed()).await.expect("it is told");
        fs::remove_dir_all(dir).expect("it is there");
    }

    #[tokio::test]
    async fn a_file_that_goes_or_is_replaced_is_told_and_can_be_watched_anew() {
        let (dir, [gone, replaced, new]) = files("lost", ["gone", "replaced", "new"]);
        let watched = [gone.clone(), replaced.clone()];
        let mut watch = watching(&watched);
        for act in [&(|| fs::remove_file(&gone)) as &dyn Fn() -> io::Result<()>, &|| {
            fs::rename(&new, &replaced)
        }] {
            act().expect("a file");
            timeout(PATIENCE, watch.changed()).await.expect("it is told");
            while !is_quiet(&mut watch).await {}
        }
        fs::write(&gone, "2").expect("a file");
        fs::write(&replaced, "2").expect("a file");
        assert!(is_quiet(&mut watch).await);
        watch.add(&watched).expect("inotify");
        for path in &watched {
            fs::write(path, "3").expect("a file");
            timeout(PATIENCE, watch.changed()).await.expect("it is told");
        }
        fs::remove_dir_all(dir).expect("it is there");
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_is_passed_over() {
        let (dir, [there]) = files("absent", ["there"]);
        let absent = [PathBuf::from("/nonexistent/a"), PathBuf::from("x".repeat(5000))];
        let mut watch = watching(&[&absent[..], std::slice::from_ref(&there)].concat());
        assert!(is_quiet(&mut watch).await);
        fs::write(&there, "2").expect("a file");
        timeout(PATIENCE, watch.changed()).await.expect("it is told");
        fs::remove_dir_all(dir).expect("it is there");
    }
}

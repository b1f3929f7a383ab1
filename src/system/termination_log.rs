//! The file of the termination message, written in place: it is a mount of its
//! own, which a rename would leave.
//!
//! It is the program's first: what castoff has not written itself stays. Nobody
//! waits for it but castoff's own end, and that not for long: the file may be on
//! a server that does not answer.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::aside;
use crate::policy::termination::{LONGEST, is_castoffs};

/// The file that a kubelet mounts, unless a Pod names another.
const USUAL: &str = "/dev/termination-log";

/// The file, and what castoff wants to be in it.
pub(crate) struct TerminationLog(Arc<Shared>);

struct Shared {
    path: PathBuf,
    /// It is made where there is none.
    must_exist: bool,
    state: Mutex<State>,
    is_done: Condvar,
}

#[derive(Default)]
struct State {
    /// What is to be written next; only the last word counts.
    wanted: Option<Vec<u8>>,
    /// What castoff has written last; empty when it has taken that back.
    written: Option<Vec<u8>>,
    /// Somebody writes.
    is_busy: bool,
    failure: Option<io::Error>,
}

impl TerminationLog {
    /// The file that somebody has named: it is made when it is to be written.
    pub(crate) fn named(path: PathBuf) -> Self {
        Self::new(path, false)
    }

    /// The usual one, if there is one.
    pub(crate) fn usual() -> Option<Self> {
        let path = Path::new(USUAL);
        path.symlink_metadata().is_ok().then(|| Self::new(path.to_owned(), true))
    }

    fn new(path: PathBuf, must_exist: bool) -> Self {
        let (state, is_done) = (Mutex::default(), Condvar::new());
        Self(Arc::new(Shared { path, must_exist, state, is_done }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    /// Has this text written in place of what castoff has written before. An empty
    /// one takes that back. Returns at once.
    pub(crate) fn write(&self, text: &str) {
        let mut state = self.0.state();
        state.wanted = Some(text.as_bytes().to_vec());
        if std::mem::replace(&mut state.is_busy, true) {
            return;
        }
        drop(state);
        let shared = Arc::clone(&self.0);
        if aside::start(move || shared.write_all_wanted()).is_err() {
            // No thread is to be had: the limit of processes may be what it ends of.
            self.0.write_all_wanted();
        }
    }

    /// Why the last write has failed, once.
    pub(crate) fn failure(&self) -> Option<io::Error> {
        self.0.state().failure.take()
    }

    /// Waits until all is written, but no longer than that; `failure` tells more.
    pub(crate) fn finish(&self, patience: Duration) {
        let waited = self.0.is_done.wait_timeout_while(self.0.state(), patience, |s| s.is_busy);
        if let Ok((mut state, waited)) = waited
            && waited.timed_out()
        {
            state.failure = Some(ErrorKind::TimedOut.into());
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all_wanted(&self) {
        let mut state = self.state();
        while let Some(text) = state.wanted.take() {
            let before = state.written.clone();
            drop(state);
            let written = self.write_one(&text, before.as_deref());
            state = self.state();
            match written {
                Ok(true) => state.written = Some(text),
                Ok(false) => {}
                Err(error) => state.failure = Some(error),
            }
        }
        state.is_busy = false;
        self.is_done.notify_all();
    }

    /// `before` is what castoff has written last; says whether it has written.
    fn write_one(&self, text: &[u8], before: Option<&[u8]>) -> io::Result<bool> {
        let file = match self.open(text.is_empty()) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return if self.must_exist || text.is_empty() { Ok(false) } else { Err(error) };
            }
            opened => opened?,
        };
        // Longer is not castoff's.
        let mut there = Vec::with_capacity(LONGEST + 1);
        (&file).take(LONGEST as u64 + 1).read_to_end(&mut there)?;
        let is_free =
            there.is_empty() || before.map_or_else(|| is_castoffs(&there), |b| b == there);
        if !is_free {
            return Ok(false);
        }
        // First the text, then the length: whoever looks between finds the cause.
        let written = file.write_all_at(text, 0);
        let length = if written.is_ok() { text.len() } else { 0 };
        file.set_len(length as u64)?;
        written.map(|()| true)
    }

    /// Nothing that could block, or be somebody else's: no device, no FIFO, and no
    /// symbolic link, which the child may have left where castoff is root.
    fn open(&self, is_taken_back: bool) -> io::Result<File> {
        let is_there = match fs::symlink_metadata(&self.path) {
            Ok(found) if !found.is_file() => return Err(not_a_file()),
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(!is_there && !self.must_exist && !is_taken_back)
            .mode(0o644)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW)
            .open(&self.path)?;
        // It may have been replaced meanwhile.
        if file.metadata()?.is_file() { Ok(file) } else { Err(not_a_file()) }
    }
}

fn not_a_file() -> io::Error {
    io::Error::other("not a regular file")
}

#[cfg(test)]
mod tests;

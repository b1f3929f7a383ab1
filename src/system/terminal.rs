//! The controlling terminal: who is its foreground, and castoff's own place
//! under a shell with job control.
//!
//! castoff never reads from it. SIGTTOU is blocked, so that castoff may write
//! and change the foreground from the background (`man 3 tcsetpgrp`).

use std::fs::File;
use std::io::{stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::sys::signal;
use nix::unistd::{Pid, getpgid, getpgrp, getppid, getsid, tcgetpgrp, tcsetpgrp};

/// How many scripts may stand between a shell and castoff.
const GENERATIONS: usize = 16;

/// castoff's controlling terminal.
#[derive(Debug)]
pub(crate) struct Terminal(OwnedFd);

impl Terminal {
    /// The controlling terminal, if there is one and castoff may open it.
    pub(crate) fn controlling() -> Option<Self> {
        // Of another terminal the kernel does not tell the foreground.
        let is_ours = |fd: &BorrowedFd<'_>| tcgetpgrp(fd).is_ok();
        let (stdin, stdout, stderr) = (stdin(), stdout(), stderr());
        let standard = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        if let Some(fd) = standard.into_iter().find(is_ours) {
            return fd.try_clone_to_owned().ok().map(Self);
        }
        let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
        let file = File::options().read(true).custom_flags(flags).open("/dev/tty").ok()?;
        Some(Self(file.into()))
    }

    /// Whether castoff's group is in front: started in the background, it must
    /// not take the terminal away from whoever has it.
    pub(crate) fn has_foreground(&self) -> bool {
        tcgetpgrp(&self.0).is_ok_and(|front| front == getpgrp())
    }

    /// Takes the foreground back from the child's group, for whoever runs after
    /// castoff in castoff's own.
    pub(crate) fn take_back(&self, group: Pid) {
        if tcgetpgrp(&self.0).is_ok_and(|front| front == group) {
            self.restore();
        }
    }

    /// The same when the child's group has come to nothing.
    pub(crate) fn restore(&self) {
        // The terminal may have gone meanwhile: then there is no foreground.
        let _ = tcsetpgrp(&self.0, getpgrp());
    }

    /// Gives the foreground to the child's group after `fg`; after `bg` castoff
    /// does not have it and nothing happens.
    pub(crate) fn hand_over(&self, group: Pid) {
        if self.has_foreground() {
            // The terminal may have gone meanwhile: then there is no foreground.
            let _ = tcsetpgrp(&self.0, group);
        }
    }
}

/// Whether, given a controlling terminal, a shell with job control will notice
/// when castoff's group is stopped, and continue it: somebody who started one of the group is in the same
/// session, but in another group. Otherwise the group is orphaned and its stop
/// would be for good (POSIX, "orphaned process group").
pub(crate) fn has_job_control(proc_root: &Path) -> bool {
    let (group, session) = (getpgrp(), getsid(None).ok());
    let mut pid = getppid();
    // A script between the shell and castoff is in castoff's own group.
    for _ in 0..GENERATIONS {
        if pid.as_raw() <= 0 || getsid(Some(pid)).ok() != session {
            return false;
        }
        if getpgid(Some(pid)).is_ok_and(|theirs| theirs != group) {
            return true;
        }
        let Some(parent) = super::tree::parent_of(proc_root, pid) else { return false };
        pid = parent;
    }
    false
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Stops castoff's own process group, as the terminal's ^Z would have; returns
/// when the shell continues it.
pub(crate) fn suspend() {
    // Cannot fail: the group exists, castoff is in it.
    let _ = signal::killpg(getpgrp(), signal::Signal::SIGSTOP);
}

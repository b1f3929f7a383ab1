//! The controlling terminal: who is its foreground, and castoff's own place
//! under a shell with job control.
//!
//! castoff never reads from it. SIGTTOU is blocked, so that castoff may write
//! and change the foreground from the background (`man 3 tcsetpgrp`).

use std::fs::File;
use std::io::{stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::signal;
use nix::unistd::{Pid, getpgrp, getpid, getsid, tcgetpgrp, tcsetpgrp};

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

    /// A shell with job control started castoff: it will notice when castoff
    /// is stopped, and continue it. The leader of a session has no such shell.
    pub(crate) fn has_job_control(&self) -> bool {
        getsid(None).is_ok_and(|session| session != getpid())
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

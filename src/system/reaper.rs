//! The only `waitpid`: nobody else may wait for a process, or a status is lost.
//!
//! It never blocks and never takes more than a turn's worth of zombies at a
//! time, so that a flood of them cannot hold up a deadline.

use nix::errno::Errno;
use nix::sys::wait::WaitPidFlag;
use nix::unistd::Pid;

use crate::policy::exit::ExitReason;
use crate::policy::signal::Signal;

/// How many changes one call reports at the most: about a millisecond's worth.
const TURN: usize = 256;

/// What became of a child or an orphan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It has ended and is no zombie any more.
    Ended { reason: ExitReason, is_core_dumped: bool },
    /// This signal stopped it.
    Stopped(Signal),
    /// SIGCONT set it going again.
    Continued,
}

/// What is left when a call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// No child at all.
    Nobody,
    /// Children that have nothing to report; SIGCHLD will tell.
    Somebody,
    /// The turn was up: call again, there may be no further SIGCHLD.
    More,
}

/// Hands every child that has changed to `tell`, each once.
///
/// One SIGCHLD may stand for any number of changes (`man 7 signal`: standard
/// signals do not queue), so this asks until the kernel has nothing to say.
pub(crate) fn reap(mut tell: impl FnMut(Pid, Change)) -> Left {
    for _ in 0..TURN {
        match wait_for_any() {
            Ok(Some((pid, Some(change)))) => tell(pid, change),
            Ok(Some((_, None))) | Err(Errno::EINTR) => {}
            Ok(None) => return Left::Somebody,
            Err(_) => return Left::Nobody,
        }
    }
    Left::More
}

/// `waitpid` without nix's own `WaitStatus`, which has no real-time signals.
#[expect(unsafe_code, reason = "nix cannot say that signal 34 ended a process")]
fn wait_for_any() -> Result<Option<(Pid, Option<Change>)>, Errno> {
    let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED | WaitPidFlag::WCONTINUED;
    let mut status = 0;
    // SAFETY: `status` lives across the call; -1 means any child.
    let pid = Errno::result(unsafe { libc::waitpid(-1, &raw mut status, flags.bits()) })?;
    Ok((pid != 0).then(|| (Pid::from_raw(pid), change(status))))
}

fn change(status: i32) -> Option<Change> {
    if libc::WIFEXITED(status) {
        let reason = ExitReason::Code(libc::WEXITSTATUS(status) as u8);
        Some(Change::Ended { reason, is_core_dumped: false })
    } else if libc::WIFSIGNALED(status) {
        let is_core_dumped = libc::WCOREDUMP(status);
        let reason = Signal::new(libc::WTERMSIG(status)).map(ExitReason::Signal);
        reason.map(|reason| Change::Ended { reason, is_core_dumped })
    } else if libc::WIFSTOPPED(status) {
        Signal::new(libc::WSTOPSIG(status)).map(Change::Stopped)
    } else {
        libc::WIFCONTINUED(status).then_some(Change::Continued)
    }
}

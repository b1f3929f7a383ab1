//! A process of the child's tree that speaks for it by MAINPID: signals go to
//! it, and when the process that castoff launched ends first, it is the child.
//!
//! Its pid alone is never believed: while it is another's child it may end, and
//! the number be somebody else's, at any time.

use super::Supervisor;
use crate::log::events;
use crate::policy::signal::Signal;
use crate::system::kill::Handle;
use crate::system::{Errno, Pid, tree};

pub(super) struct MainProcess {
    pid: i32,
    /// `None` where the kernel has no handles: there nothing can be sent to it
    /// before it is castoff's own child.
    handle: Option<Handle>,
}

impl MainProcess {
    pub(super) fn open(pid: i32) -> Self {
        Self { pid, handle: Handle::open(pid).ok() }
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it is the process that has that pid now.
    pub(super) fn is(&self, pid: i32) -> bool {
        self.pid == pid && !self.was_reaped()
    }

    fn was_reaped(&self) -> bool {
        self.handle.as_ref().is_some_and(Handle::was_reaped)
    }
}

impl Supervisor {
    /// Sends a signal to the main process; `None`: there is none but the child.
    pub(super) fn signal_main(&mut self, signal: Signal) -> Option<Result<i32, Errno>> {
        let main = self.main.as_ref()?;
        let handle = main.handle.as_ref()?;
        // Its parent may never reap it.
        let sent = if handle.has_ended() { Err(Errno::ESRCH) } else { handle.send(signal) };
        let result = sent.map(|()| main.pid);
        if result == Err(Errno::ESRCH) {
            self.main = None;
            return None;
        }
        Some(result)
    }

    /// The child has ended and was reaped: the main process takes its place, if
    /// it lives on. By now castoff is its parent, so that its pid is its own.
    pub(super) fn hand_over(&mut self) -> bool {
        let Some(main) = self.main.take() else { return false };
        let pid = Pid::from_raw(main.pid);
        let is_ours = tree::parent_of(&self.setting.proc_root, pid) == Some(Pid::this())
            && !main.was_reaped();
        if is_ours {
            events::child_handed_over(self.child.map_or(0, Pid::as_raw), main.pid);
            self.child = Some(pid);
            self.has_handed_over = true;
            self.publish();
        }
        is_ours
    }
}

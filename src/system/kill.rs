//! Signals out: to the child, to its group, and on with the value that came.
//!
//! A pid given here must not have been reaped: only until then is it that of
//! the process that was meant. nix has no real-time signals.
#![expect(unsafe_code, reason = "kill and rt_sigqueueinfo with numbers that nix cannot name")]

use std::ffi::c_int;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::signals::{Received, Sender};
use crate::policy::signal::Signal;

/// Sends the child a signal, or its process group when `to_group`; returns the
/// target as `man 2 kill` has it: a group is negative.
///
/// # Errors
/// It has gone, or has changed its user and castoff may not signal it.
pub(crate) fn signal_child(child: Pid, to_group: bool, signal: Signal) -> Result<i32, Errno> {
    let (child, group) = (child.as_raw(), -child.as_raw());
    if to_group && send(group, signal).is_ok() {
        return Ok(group);
    }
    // Also when the child has left the group that it was given.
    send(child, signal).map(|()| child)
}

/// # Errors
/// castoff may not signal the child (`man 2 kill`: it has changed its user, and
/// castoff has no CAP_KILL).
pub(crate) fn may_signal(child: Pid) -> Result<(), Errno> {
    // SAFETY: takes two numbers; 0 is no signal, and asks only.
    Errno::result(unsafe { libc::kill(child.as_raw(), 0) }).map(drop)
}

/// Kills a process, which must not have been reaped, and the group that it was
/// given and may have left.
pub(crate) fn kill_with_group(leader: Pid) {
    let _ = send(-leader.as_raw(), Signal::KILL);
    let _ = send(leader.as_raw(), Signal::KILL);
}

/// Forwards a signal with the value that came with it.
///
/// # Errors
/// As `signal_child`.
pub(crate) fn forward(child: Pid, to_group: bool, received: &Received) -> Result<i32, Errno> {
    match (received.value, received.sender) {
        (Some(value), Sender::Process { pid, uid }) if !to_group => {
            queue(child, received.signal, value, pid, uid)
        }
        // To the child too its sender is outside, as pid 0 says.
        (Some(value), Sender::Outside { uid }) if !to_group => {
            queue(child, received.signal, value, 0, uid)
        }
        _ => signal_child(child, to_group, received.signal),
    }
}

pub(super) fn send(target: i32, signal: Signal) -> Result<(), Errno> {
    // SAFETY: takes two numbers.
    Errno::result(unsafe { libc::kill(target, signal.number()) }).map(drop)
}

/// A process by more than its pid: once it has gone, nobody else takes its place
/// (`man 2 pidfd_open`).
pub(crate) struct Handle(OwnedFd);

impl Handle {
    /// # Errors
    /// ESRCH when there is no such process; others where the kernel has no
    /// handles, or castoff no descriptor left.
    pub(crate) fn open(pid: i32) -> Result<Self, Errno> {
        // SAFETY: takes two numbers.
        let handle = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        // SAFETY: a new descriptor, which nobody else owns; it is close-on-exec.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(handle as RawFd) }))
    }

    /// # Errors
    /// It has gone, or castoff may not signal it.
    pub(crate) fn send(&self, signal: Signal) -> Result<(), Errno> {
        let (handle, number) = (self.0.as_raw_fd(), signal.number());
        let info: *const libc::siginfo_t = ptr::null();
        // SAFETY: without a siginfo it takes numbers only.
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, handle, number, info, 0) };
        Errno::result(sent).map(drop)
    }

    /// Whether it has ended; a zombie takes signals and does nothing with them.
    pub(crate) fn has_ended(&self) -> bool {
        let mut polled = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure, which lives across the call; it does not wait.
        unsafe { libc::poll(&raw mut polled, 1, 0) > 0 }
    }

    /// Whether its pid is nobody's by now, or another's: no zombie has it either.
    pub(crate) fn was_reaped(&self) -> bool {
        let (handle, info) = (self.0.as_raw_fd(), ptr::null::<libc::siginfo_t>());
        // SAFETY: as in `send`; 0 is no signal, and asks only.
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, handle, 0, info, 0) };
        Errno::result(sent) == Err(Errno::ESRCH)
    }
}

/// `rt_sigqueueinfo`: the kernel lets a process pass on what was queued by
/// another (`man 2 rt_sigqueueinfo`, negative codes).
fn queue(child: Pid, signal: Signal, value: u64, pid: i32, uid: u32) -> Result<i32, Errno> {
    /// The beginning of the kernel's `siginfo_t` for a queued signal.
    #[repr(C)]
    struct Queued {
        signo: c_int,
        errno: c_int,
        code: c_int,
        #[cfg(target_pointer_width = "64")]
        padding: c_int,
        pid: i32,
        uid: u32,
        value: usize,
        rest: [u8; 128],
    }
    let info = Queued {
        signo: signal.number(),
        errno: 0,
        code: libc::SI_QUEUE,
        #[cfg(target_pointer_width = "64")]
        padding: 0,
        pid,
        uid,
        value: value as usize,
        rest: [0; 128],
    };
    // SAFETY: the kernel reads 128 bytes, which the structure has.
    let sent = unsafe {
        libc::syscall(libc::SYS_rt_sigqueueinfo, child.as_raw(), signal.number(), &raw const info)
    };
    Errno::result(sent).map(|_| child.as_raw())
}

//! Makes orphans of the child's tree castoff's own: as PID 1 they are anyway.

use std::io;

/// Whether castoff's effective user is root, of its user namespace at least.
pub(crate) fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// castoff's effective user.
pub(crate) fn own_user() -> u32 {
    nix::unistd::Uid::effective().as_raw()
}

/// Whether castoff is process 1 of its pid namespace, to which the kernel gives
/// every orphan and whose end ends the namespace.
pub(crate) fn is_pid_1() -> bool {
    std::process::id() == 1
}

/// Makes castoff the parent of its descendants' orphans
/// (`man 2 PR_SET_CHILD_SUBREAPER`).
///
/// # Errors
/// The kernel does not know subreapers (gVisor).
pub(crate) fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Has the kernel send castoff `signal` when its own parent ends
/// (`man 2 PR_SET_PDEATHSIG`). The child does not inherit it.
///
/// # Errors
/// None that the man page knows for a valid signal.
#[expect(unsafe_code, reason = "nix has no real-time signals")]
pub(crate) fn set_parent_death_signal(signal: crate::policy::signal::Signal) -> io::Result<()> {
    let number = signal.number() as libc::c_ulong;
    // SAFETY: PR_SET_PDEATHSIG takes a number and no pointer.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, number) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

//! A network of a test's own, in which nobody else listens or connects.
#![expect(unsafe_code, reason = "a flag of an interface")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::Uid;

/// For `Castoff::last`: leaves the machine's network for a new one that has
/// only loopback.
pub(crate) fn own_network() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    // SAFETY: takes numbers, and gives a descriptor or -1.
    let socket = Errno::result(unsafe {
        libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)
    })?;
    // SAFETY: it is open, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: all zeroes is a request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request lives across the call and holds a name that ends.
    Errno::result(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    })?;
    Ok(())
}

/// Whether a test may make one, and enter it.
pub(crate) fn can_have_one() -> bool {
    if !Uid::current().is_root() {
        eprintln!("SKIPPED: only root can have a network of its own and look into it");
        return false;
    }
    true
}

/// The network of a process, also once that has ended.
pub(crate) struct Network(File);

impl Network {
    #[track_caller]
    pub(crate) fn of(pid: i32) -> Self {
        Self(File::open(format!("/proc/{pid}/ns/net")).expect("it runs"))
    }

    /// Does something there. What is opened there stays there, whoever uses
    /// it later; so do processes.
    pub(crate) fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("its network");
                act()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// Does something in the network of that process.
#[track_caller]
pub(crate) fn within<T: Send>(pid: i32, act: impl FnOnce() -> T + Send) -> T {
    Network::of(pid).within(act)
}

//! The descriptors 0, 1 and 2 when castoff was started without them.
//!
//! Owns the place holders for closed ones. It never touches an open one.

use std::os::fd::{AsRawFd, IntoRawFd};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// Takes the numbers 0 to 2 as far as they are free. Call it before anything
/// else is opened: castoff's own socket as number 2 would get the log lines.
///
/// What takes them can be neither read nor written (EBADF, `O_PATH` in `man 2
/// open`) and is closed at exec: for castoff and for the child they stay closed.
pub(crate) fn occupy_standard_descriptors() {
    // The kernel gives the lowest free number. When it has no descriptor to
    // give, castoff will fail at the next thing it opens, and say so.
    while let Ok(fd) = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
        if fd.as_raw_fd() > 2 {
            return;
        }
        let _ = fd.into_raw_fd(); // open until castoff ends
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    use super::*;

    /// Whether the descriptor is what a closed one is to be replaced with.
    fn is_occupied(fd: i32) -> bool {
        #[expect(unsafe_code, reason = "a descriptor by its number")]
        // SAFETY: nothing is written; the flags are numbers.
        unsafe {
            libc::write(fd, [0u8].as_ptr().cast(), 1) == -1
                && *libc::__errno_location() == libc::EBADF
                && libc::fcntl(fd, libc::F_GETFD) == libc::FD_CLOEXEC
        }
    }

    #[test]
    fn closed_ones_are_occupied_and_open_ones_left_alone() {
        #[expect(unsafe_code, reason = "descriptors are closed in a process of their own")]
        // SAFETY: the child makes system calls only and does not return.
        match unsafe { fork() }.unwrap() {
            // SAFETY: nobody uses the descriptors of this process by their owners.
            ForkResult::Child => unsafe {
                libc::close(0);
                libc::close(2);
                let one = libc::fcntl(1, libc::F_GETFD);
                occupy_standard_descriptors();
                let is_right =
                    is_occupied(0) && is_occupied(2) && libc::fcntl(1, libc::F_GETFD) == one;
                libc::_exit(if is_right { 0 } else { 1 });
            },
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
            }
        }
    }
}

//! The way to the supervisor above castoff: its NOTIFY_SOCKET.
//!
//! Nothing waits for it: what it does not take at once is lost.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, sendto, socket};

/// A socket to send from, and where to.
#[derive(Debug)]
pub(crate) struct Forwarder {
    socket: OwnedFd,
    address: UnixAddr,
}

/// Why there is no way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreachable {
    #[error("its form is not supported: expected an absolute path or an abstract name with @")]
    Unsupported,
    #[error("{}", .0.desc())]
    Failed(Errno),
}

impl Forwarder {
    /// Takes the value of the NOTIFY_SOCKET that castoff was given. Nobody need
    /// be there yet.
    ///
    /// # Errors
    /// It is neither a path nor an abstract name, such as `vsock:2:1234`; it is
    /// too long, or no descriptors are left.
    pub(crate) fn open(value: &OsStr) -> Result<Self, Unreachable> {
        let address = match value.as_bytes() {
            [b'/', ..] => UnixAddr::new(value),
            [b'@', name @ ..] if !name.is_empty() => UnixAddr::new_abstract(name),
            _ => return Err(Unreachable::Unsupported),
        };
        let address = address.map_err(Unreachable::Failed)?;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
        Ok(Self { socket: socket.map_err(Unreachable::Failed)?, address })
    }

    /// Sends one datagram without waiting. The kernel adds who castoff is.
    ///
    /// # Errors
    /// Nobody is there, or does not read.
    pub(crate) fn send(&self, text: &str) -> Result<(), Errno> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        sendto(self.socket.as_raw_fd(), text.as_bytes(), &self.address, flags).map(drop)
    }
}

//! The socket of sd_notify: where it is, what comes in and from whom, and the
//! way to the supervisor above castoff.
//!
//! It tells the sender by the kernel's word and believes nobody: that is for
//! `policy::notify`. No descriptor that anybody sends ever becomes castoff's,
//! and a flood is taken in turns.
#![expect(unsafe_code, reason = "nix gives no credentials once a descriptor was dropped")]

mod forwarder;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::socket::sockopt::PassCred;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, setsockopt, socket};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{Uid, UnlinkatFlags, fchownat, unlinkat};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

pub(crate) use forwarder::Forwarder;

use crate::policy::notify::DATAGRAM_MAX;

/// Where a private directory is tried, in this order. The last is writable on
/// many a read-only root.
pub(crate) const CANDIDATES: [&str; 3] = ["/run", "/tmp", "/dev/shm"];

/// How many datagrams are worth one turn: about a millisecond, if every sender
/// has to be looked up.
pub(crate) const TURN: usize = 32;

/// The socket's name in its directory.
const NAME: &str = "notify";

/// Who may send to a socket that has a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Processes of castoff's own user, and root.
    OwnUser,
    /// Processes of this user, which the child becomes, and root.
    User(u32),
    /// Everybody who knows the path: for a child that changes its user. Only
    /// descendants are believed either way.
    Everybody,
}

/// One datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// One byte more than `DATAGRAM_MAX` stands for a longer one.
    pub(crate) bytes: Vec<u8>,
    /// Who sent it, in castoff's pid namespace; 0 for one that is not in it. It
    /// may have ended.
    pub(crate) pid: i32,
    pub(crate) uid: u32,
    /// Descriptors came with it. They are closed already.
    pub(crate) had_descriptors: bool,
}

/// castoff's own socket.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    socket: UnixDatagram,
    address: String,
    /// Goes with the socket.
    _home: Option<Home>,
    is_private: bool,
}

impl NotifySocket {
    /// Opens a socket in a fresh directory below the first of `candidates` where
    /// that is possible, else an abstract one, which needs no file system.
    ///
    /// # Errors
    /// No descriptors are left, or there are no Unix sockets at all.
    ///
    /// # Panics
    /// Outside of the context of a runtime.
    pub(crate) fn open(candidates: &[&Path], access: Access) -> io::Result<Self> {
        for candidate in candidates {
            let socket = unbound()?;
            let Ok(home) = Home::make(candidate) else { continue };
            // It removes what it has made when it is dropped.
            let Ok(address) = home.bind(&socket, access) else { continue };
            let is_private = is_on_root(candidate);
            let socket = UnixDatagram::from_std(socket.into())?;
            return Ok(Self { socket, address, _home: Some(home), is_private });
        }
        let socket = unbound()?;
        // Random so that it is free; secret it is not (/proc/net/unix).
        let seed = RandomState::new();
        let name = format!("castoff-notify-{:016x}{:016x}", seed.hash_one(0), seed.hash_one(1));
        bind(socket.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
        let socket = UnixDatagram::from_std(socket.into())?;
        Ok(Self { socket, address: format!("@{name}"), _home: None, is_private: false })
    }

    /// The value of NOTIFY_SOCKET for the child.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Whether no process of another container can reach it. An abstract name is
    /// known to the whole network namespace, which a Pod's containers share, and
    /// a volume or /dev/shm may be another's as well: the directory must be on
    /// the same file system as `/`.
    pub(crate) fn is_private(&self) -> bool {
        self.is_private
    }

    /// Waits until there is something to `receive`, and lets others have a turn
    /// before that. Nothing is lost when this is dropped before it is ready.
    pub(crate) async fn readable(&self) {
        if self.socket.readable().await.is_err() {
            // The runtime ends.
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
    }

    /// The next datagram, if there is one; ask up to `TURN` times in a row. Each
    /// must have been dealt with before the next is asked for: descriptors are
    /// closed by the receipt, and the end of a BARRIER's says that everything
    /// before it has been seen to.
    pub(crate) fn receive(&self) -> Option<Received> {
        // Not by `try_io`: tokio knows of a datagram only after a turn, and its
        // sender may have to be looked up before it is reaped.
        let received = loop {
            match receive(self.socket.as_raw_fd()) {
                Err(Errno::EINTR) => {}
                received => break received.ok(),
            }
        };
        if received.is_none() {
            // There is nothing, or no memory for it: not to be asked for again
            // before another one comes.
            let wait = || Err(io::ErrorKind::WouldBlock.into());
            let _: io::Result<()> = self.socket.try_io(Interest::READABLE, wait);
        }
        received
    }
}

/// A socket that tells senders from its first datagram on. How much may wait in
/// it is the kernel's to say: a few datagrams (net.unix.max_dgram_qlen), each
/// paid for by its sender's own buffer; SO_RCVBUF counts for nothing here.
fn unbound() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    setsockopt(&socket, PassCred, &true)?;
    Ok(socket)
}

/// Room for the sender and for nothing more: the kernel closes descriptors for
/// which there is none (`man 7 unix`), so that they cost castoff nothing and a
/// lack of its own loses no message. It writes the sender first.
const CONTROL_BYTES: usize = {
    // SAFETY: arithmetic only.
    unsafe { libc::CMSG_SPACE(size_of::<libc::ucred>() as u32) as usize }
};

/// Memory for control messages, aligned as they must be.
#[repr(C)]
union Control {
    bytes: [u8; CONTROL_BYTES],
    _align: libc::cmsghdr,
}

/// One `recvmsg`.
fn receive(fd: RawFd) -> Result<Received, Errno> {
    let mut bytes = [0_u8; DATAGRAM_MAX + 1];
    let mut control = Control { bytes: [0; CONTROL_BYTES] };
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zeroes is a valid value of this plain structure.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = CONTROL_BYTES as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header points to buffers that live, of the sizes that it gives.
    let length = Errno::result(unsafe { libc::recvmsg(fd, &raw mut header, flags) })?;
    let sender = credentials(&header);
    let length = usize::try_from(length).unwrap_or_default();
    Ok(Received {
        bytes: bytes.get(..length).unwrap_or_default().to_vec(),
        pid: sender.map_or(0, |sender| sender.pid),
        uid: sender.map_or(u32::MAX, |sender| sender.uid),
        had_descriptors: header.msg_flags & libc::MSG_CTRUNC != 0,
    })
}

fn credentials(header: &libc::msghdr) -> Option<libc::ucred> {
    // SAFETY: `recvmsg` has filled the header: it is null or points to a whole
    // control message, which is checked to be as long as what is read of it.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        let is_sender = !message.is_null()
            && (*message).cmsg_level == libc::SOL_SOCKET
            && (*message).cmsg_type == libc::SCM_CREDENTIALS
            && (*message).cmsg_len as usize
                >= libc::CMSG_LEN(size_of::<libc::ucred>() as u32) as usize;
        is_sender.then(|| ptr::read_unaligned(libc::CMSG_DATA(message).cast()))
    }
}

/// Whether that directory belongs to the file system of `/`.
fn is_on_root(directory: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev());
    device(directory).is_ok_and(|own| device(Path::new("/")).is_ok_and(|root| own == root))
}

/// The directory of the socket, and nobody else's.
#[derive(Debug)]
struct Home {
    path: PathBuf,
    /// Device and inode: what is removed must be what was made. Where there is no
    /// sticky bit, whoever may write may also put a link there.
    identity: (u64, u64),
    /// A copy of this process, made by a fork, must leave it alone.
    maker: u32,
}

impl Home {
    fn make(parent: &Path) -> io::Result<Self> {
        // Fresh: neither a link nor a directory of somebody else's is taken.
        let path = parent.join(format!("castoff-{:016x}", RandomState::new().hash_one(0)));
        DirBuilder::new().mode(0o700).create(&path)?;
        let identity = open(&path).and_then(|directory| identity(&directory));
        let identity = identity.inspect_err(|_| drop(fs::remove_dir(&path)))?;
        Ok(Self { path, identity, maker: std::process::id() })
    }

    /// The directory itself, whatever its path leads to by now.
    fn directory(&self) -> io::Result<File> {
        let directory = open(&self.path)?;
        let is_same = identity(&directory)? == self.identity;
        is_same.then_some(directory).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Gives the socket its path. The modes are set after that: a umask may take
    /// too much, and is not to be changed, since the child inherits it.
    fn bind(&self, socket: &OwnedFd, access: Access) -> io::Result<String> {
        let path = self.path.join(NAME);
        let text = path.to_str().filter(|text| text.starts_with('/'));
        let address = text.ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        // Not by their paths: nobody else can put a link into the directory, but
        // perhaps one in its place.
        let directory = self.directory()?;
        bind(socket.as_raw_fd(), &UnixAddr::new(&path)?)?;
        let change = |mode| fchmodat(&directory, NAME, mode, FchmodatFlags::FollowSymlink);
        let give = |uid: u32| {
            let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
            fchownat(&directory, NAME, Some(Uid::from_raw(uid)), None, flags)
        };
        let for_owner = Mode::from_bits_truncate(0o600);
        // Passed through, not listed.
        let for_directory = if access == Access::OwnUser { 0o700 } else { 0o711 };
        change(for_owner)?;
        let is_open = match access {
            Access::OwnUser => false,
            // A castoff without CAP_CHOWN cannot give it away.
            Access::User(uid) => give(uid).is_err(),
            Access::Everybody => true,
        };
        if is_open {
            change(Mode::from_bits_truncate(0o666))?;
        }
        directory.set_permissions(Permissions::from_mode(for_directory))?;
        Ok(address)
    }
}

fn open(directory: &Path) -> io::Result<File> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    OpenOptions::new().read(true).custom_flags(flags).open(directory)
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.maker != std::process::id() {
            return;
        }
        if let Ok(directory) = self.directory() {
            let _ = unlinkat(&directory, NAME, UnlinkatFlags::NoRemoveDir);
            // Neither a link nor a directory that is not empty is removed.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

#[cfg(test)]
mod tests;

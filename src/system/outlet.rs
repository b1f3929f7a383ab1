//! Writing to standard output and error without ever waiting for whoever reads.
//!
//! Owns the choice of the system call. The descriptor is shared with the child
//! and often with other containers' processes, so `O_NONBLOCK` is never set on
//! it: the flag belongs to the open file description that all of them use
//! (`man 2 fcntl`). What to do about a line without room is the caller's.
//!
//! A write to a pipe that nobody reads leaves SIGPIPE pending for the thread
//! that wrote. castoff has it blocked; its signal loop must not take one from
//! castoff's own pid for a signal to forward. A terminal with `tostop` would
//! stop a background writer, but not one that blocks SIGTTOU, as castoff does.
#![expect(
    unsafe_code,
    reason = "pwritev2, send and poll with flags that std does not offer, and AsyncFd"
)]

use std::future::pending;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::write;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep_until;

/// How much a terminal takes for certain when `poll` calls it writable: a
/// pseudo-terminal gives out its room in pieces of 256 bytes
/// (drivers/tty/tty_buffer.c), a serial line has more.
const TERMINAL_CHUNK: usize = 256;

/// How often a busy terminal is asked: for the time of a write of the child's,
/// some 10 microseconds.
const CONTENDED_TRIES: usize = 32;

/// When the kernel cannot tell of room, it is tried again after this long; and
/// where it only fails, after as long as it has failed already, up to a minute.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The same when the kernel has told of room that was not enough or is gone,
/// lest castoff spin: some call a pipe writable that has room for one byte.
const PAUSE_AFTER_FALSE_ALARM: Duration = Duration::from_millis(10);

/// A descriptor to which lines are written whole.
pub(crate) struct Outlet<F> {
    fd: F,
    way: Way,
    /// The end of a line whose beginning was written.
    rest: Vec<u8>,
    /// The last write failed.
    stall: Option<Stall>,
    /// The kernel has told of room since the last write.
    was_told: Arc<AtomicBool>,
}

/// How to write without waiting.
#[derive(Debug)]
enum Way {
    /// A pipe from Linux 6.4 on: the flag is on the call.
    NoWait,
    /// A socket: likewise. Without a stream each line is a message.
    Send { is_stream: bool },
    /// Terminals and older pipes: an open file description of our own.
    Reopened(OwnedFd),
    /// The same where it cannot be reopened, say because it is another user's:
    /// ask first, then write what has room for certain. Someone else who writes
    /// in between can make this call wait; there is no better one.
    Polled { is_pipe: bool },
    /// A file: nobody reads it, so nobody can hold it up.
    Plain,
    /// There is none; every line is lost.
    Closed,
}

/// Whether castoff was started with it.
pub(crate) fn is_open(fd: impl AsFd) -> bool {
    !matches!(Outlet::new(fd).way, Way::Closed)
}

/// Whether it is an error of a pipe or a connection that nobody reads any more, for
/// which a program gets SIGPIPE. For messages that nobody takes it does not.
pub(crate) fn is_reader_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Writes that have failed in a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stall {
    begun_at: Instant,
    last_at: Instant,
    /// There was no room; otherwise it is broken in some way.
    is_full: bool,
    /// The kernel had told of room before one of them.
    is_false_alarm: bool,
}

impl<F: AsFd> Outlet<F> {
    /// Finds out once what kind of file this is.
    pub(crate) fn new(fd: F) -> Self {
        let kind = fstat(&fd).map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
        let way = match kind {
            Ok(SFlag::S_IFIFO) => Way::NoWait,
            Ok(SFlag::S_IFSOCK) => {
                let kind = getsockopt(&fd, sockopt::SockType);
                Way::Send { is_stream: kind.is_ok_and(|kind| kind == SockType::Stream) }
            }
            Ok(SFlag::S_IFREG) => Way::Plain,
            // What `occupy_standard_descriptors` puts in the place of a closed one.
            Ok(SFlag::S_IFDIR) | Err(_) => Way::Closed,
            Ok(_) => reopened_or_polled(fd.as_fd(), false),
        };
        Self { fd, way, rest: Vec::new(), stall: None, was_told: Arc::default() }
    }

    /// Writes the line, or fails at once and has written nothing of it.
    ///
    /// The part of a line for which there was no room counts as written: it
    /// is kept and goes out before the next line, which fails until then.
    /// `WouldBlock` means that there is no room; other errors are the
    /// kernel's (`man 2 write`).
    pub(crate) fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let taken = self.write_lines(line)?;
        self.rest.extend_from_slice(line.get(taken..).unwrap_or_default());
        Ok(())
    }

    /// Writes whole lines as far as there is room, and returns how many bytes
    /// are taken care of, which always ends at a line: the end of a line that
    /// was begun is kept and goes out before anything else.
    ///
    /// # Errors
    /// Nothing was written: `WouldBlock` without room; others are the kernel's.
    pub(crate) fn write_lines(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.finish_line()?;
        let mut written = 0;
        while let Some(left) = lines.get(written..).filter(|left| !left.is_empty()) {
            match self.write_some(left) {
                Ok(more) => written += more,
                Err(error) if written == 0 => return Err(error),
                Err(_) => break,
            }
        }
        let Some((done, left)) = lines.split_at_checked(written) else { return Ok(written) };
        if !done.is_empty() && !done.ends_with(b"\n") {
            let end = left.iter().position(|byte| *byte == b'\n').map_or(left.len(), |at| at + 1);
            self.rest.extend(left.iter().take(end));
            written += end;
        }
        Ok(written)
    }

    /// Writes what is left of a line that was begun. Ok: nothing is left.
    ///
    /// # Errors
    /// As of `write_lines`; something is left, unless its reader has gone.
    pub(crate) fn finish_line(&mut self) -> io::Result<()> {
        while !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            let written = self.write_some(&rest);
            // Whoever reads from a FIFO next would get the end without its line.
            if !written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
                self.rest = rest;
            }
            self.rest.drain(..written?);
        }
        Ok(())
    }

    /// Whether the end of a line is still to be written.
    pub(crate) fn has_begun_line(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Whether that descriptor is one of the same file, pipe, socket or terminal.
    pub(crate) fn is_same_file(&self, fd: impl AsFd) -> bool {
        let identity = |stat: FileStat| (stat.st_dev, stat.st_ino);
        let other = fstat(fd).map(identity);
        other.is_ok() && other == fstat(&self.fd).map(identity)
    }

    /// Waits until there may be room: at once unless the last write failed, and
    /// for ever for a closed descriptor. A file, which cannot be waited for, and
    /// whatever only fails are tried again after a second or more. Cancel safe.
    pub(crate) async fn room(&self) {
        self.opening().wait().await;
    }

    /// The same for somebody who cannot hold on to this one meanwhile.
    pub(crate) fn opening(&self) -> Opening {
        let Some(stall) = self.stall else { return Opening::IsThere };
        let fd = match &self.way {
            Way::Closed => return Opening::Never,
            Way::Plain => None,
            _ if !stall.is_full => None,
            Way::Reopened(own) => own.try_clone().ok(),
            Way::NoWait | Way::Send { .. } | Way::Polled { .. } => {
                self.fd.as_fd().try_clone_to_owned().ok()
            }
        };
        Opening::After(stall, fd, Arc::clone(&self.was_told))
    }

    /// Writes at least one byte or fails.
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.write_once(bytes);
        let was_told = self.was_told.swap(false, Ordering::Relaxed);
        self.stall = written.as_ref().err().map(|error| {
            let last_at = Instant::now();
            let begun_at = self.stall.map_or(last_at, |stall| stall.begun_at);
            let is_full = error.kind() == io::ErrorKind::WouldBlock;
            let is_false_alarm = was_told || self.stall.is_some_and(|stall| stall.is_false_alarm);
            Stall { begun_at, last_at, is_full, is_false_alarm }
        });
        written
    }

    fn write_once(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let fd = self.fd.as_fd();
            let written = match &self.way {
                Way::NoWait => write_no_wait(fd, bytes),
                Way::Send { is_stream: true } => send(fd, bytes),
                Way::Send { is_stream: false } => send(fd, first_line(bytes)),
                Way::Reopened(own) => {
                    // Who has no room for long is not asked for long.
                    let tries = if self.stall.is_some() { 1 } else { CONTENDED_TRIES };
                    write_reopened(own.as_fd(), bytes, tries)
                }
                Way::Polled { is_pipe: true } => write_polled(fd, pipe_chunk(bytes)),
                Way::Polled { is_pipe: false } => write_polled(fd, terminal_chunk(bytes)),
                Way::Plain => write(fd, bytes),
                Way::Closed => Err(Errno::EBADF),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WouldBlock.into()),
                Ok(written) => return Ok(written),
                Err(Errno::EINTR) => {}
                // Unknown to the kernel, to gVisor, or refused by a seccomp filter.
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL | Errno::EPERM)
                    if matches!(self.way, Way::NoWait) =>
                {
                    self.way = reopened_or_polled(fd, true);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// When an outlet may have room again.
#[derive(Debug)]
pub(crate) enum Opening {
    IsThere,
    Never,
    /// This descriptor is a copy, so that several may wait for the same one:
    /// epoll takes each only once.
    After(Stall, Option<OwnedFd>, Arc<AtomicBool>),
}

impl Opening {
    /// Waits for it. Cancel safe: what has been waited for counts.
    pub(crate) async fn wait(self) {
        let (stall, fd, was_told) = match self {
            Self::IsThere => return,
            Self::Never => return pending().await,
            Self::After(stall, fd, was_told) => (stall, fd, was_told),
        };
        if let Some(fd) = fd {
            if stall.is_false_alarm {
                sleep_until((stall.last_at + PAUSE_AFTER_FALSE_ALARM).into()).await;
            }
            // Each is new to epoll, which looks first whether there is room: no
            // edge from before is needed.
            // SAFETY: an OwnedFd owns its descriptor and gives out no other.
            let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::WRITABLE) };
            if let Ok(fd) = fd
                && fd.writable().await.is_ok()
            {
                was_told.store(true, Ordering::Relaxed);
                return;
            }
        }
        let failing = stall.last_at.saturating_duration_since(stall.begun_at);
        let pause = failing.clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        sleep_until((stall.last_at + pause).into()).await;
    }
}

/// An open file description of our own for the same file, or else `Polled`.
fn reopened_or_polled(fd: BorrowedFd<'_>, is_pipe: bool) -> Way {
    // O_NOCTTY: to open a terminal gives it to a session leader that has none.
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    open(path.as_str(), flags, Mode::empty()).map_or(Way::Polled { is_pipe }, Way::Reopened)
}

/// `write` that fails with EAGAIN where it would wait (`man 2 pwritev2`).
fn write_no_wait(fd: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<usize> {
    let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: one iovec, whose bytes live across the call and are only read.
    let written =
        unsafe { libc::pwritev2(fd.as_raw_fd(), &raw const part, 1, -1, libc::RWF_NOWAIT) };
    Errno::result(written).map(isize::cast_unsigned)
}

/// `write` to a socket that fails with EAGAIN where it would wait, and without
/// SIGPIPE (`man 2 send`).
fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the bytes live across the call, have that length and are only read.
    let sent = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    Errno::result(sent).map(isize::cast_unsigned)
}

/// A message of its own for each.
fn first_line(bytes: &[u8]) -> &[u8] {
    bytes.split_inclusive(|byte| *byte == b'\n').next().unwrap_or(bytes)
}

/// A pipe that `poll` calls writable has a free page, and this fits into it.
fn pipe_chunk(bytes: &[u8]) -> &[u8] {
    bytes.get(..libc::PIPE_BUF).unwrap_or(bytes)
}

/// Either up to a line feed or the line feed alone: it is translated and goes
/// to the driver by itself, which may have given its last room to the text.
fn terminal_chunk(bytes: &[u8]) -> &[u8] {
    let text = bytes.iter().take(TERMINAL_CHUNK).position(|byte| *byte == b'\n');
    bytes.get(..text.unwrap_or(TERMINAL_CHUNK).max(1)).unwrap_or(bytes)
}

/// `write` that fails with EAGAIN where there is no room. A terminal says so,
/// and `poll` agrees, also while somebody else writes to it (`tty_write_lock`
/// in drivers/tty/tty_io.c): that is over soon, hence the further tries.
fn write_reopened(fd: BorrowedFd<'_>, bytes: &[u8], tries: usize) -> nix::Result<usize> {
    for _ in 1..tries {
        match write(fd, bytes) {
            Err(Errno::EAGAIN) => std::thread::yield_now(),
            done => return done,
        }
    }
    write(fd, bytes)
}

/// `write` of so few bytes that they have room if any have, else EAGAIN.
fn write_polled(fd: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<usize> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one pollfd, which lives across the call.
    Errno::result(unsafe { libc::poll(&raw mut poll, 1, 0) })?;
    // A pipe without readers is POLLOUT | POLLERR: the write will say EPIPE.
    if poll.revents & libc::POLLOUT == 0 {
        return Err(Errno::EAGAIN);
    }
    write(fd, bytes)
}

#[cfg(test)]
pub(crate) mod tests;

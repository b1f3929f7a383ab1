//! Writing to standard error without ever waiting for whoever reads it.
//!
//! Owns the choice of the system call. The descriptor is shared with the child
//! and often with other containers' processes, so `O_NONBLOCK` is never set on
//! it: the flag belongs to the open file description that all of them use
//! (`man 2 fcntl`). What to do about a line without room is decided in `log`.
//!
//! A write to a pipe that nobody reads leaves SIGPIPE pending for the thread
//! that wrote. castoff has it blocked; its signal loop must not take one from
//! castoff's own pid for a signal to forward. A terminal with `tostop` would
//! stop a background writer, but not one that blocks SIGTTOU, as castoff does.
#![expect(unsafe_code, reason = "pwritev2, send and poll with flags that std does not offer")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::write;

/// How much a terminal takes for certain when `poll` calls it writable: a
/// pseudo-terminal gives out its room in pieces of 256 bytes
/// (drivers/tty/tty_buffer.c), a serial line has more.
const TERMINAL_CHUNK: usize = 256;

/// A descriptor to which lines are written whole or not at all.
pub(crate) struct Output<F> {
    fd: F,
    way: Way,
    /// The end of a line whose beginning was written.
    rest: Vec<u8>,
}

/// How to write without waiting.
#[derive(Debug)]
enum Way {
    /// A pipe from Linux 6.4 on: the flag is on the call.
    NoWait,
    /// A socket: likewise.
    Send,
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

impl<F: AsFd> Output<F> {
    /// Finds out once what kind of file this is.
    pub(crate) fn new(fd: F) -> Self {
        let kind = fstat(&fd).map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
        let way = match kind {
            Ok(SFlag::S_IFIFO) => Way::NoWait,
            Ok(SFlag::S_IFSOCK) => Way::Send,
            Ok(SFlag::S_IFREG) => Way::Plain,
            // What `occupy_standard_descriptors` puts in the place of a closed one.
            Ok(SFlag::S_IFDIR) | Err(_) => Way::Closed,
            Ok(_) => reopened_or_polled(fd.as_fd(), false),
        };
        Self { fd, way, rest: Vec::new() }
    }

    /// Writes the line, or fails at once and has written nothing of it.
    ///
    /// The part of a line for which there was no room counts as written: it
    /// is kept and goes out before the next line, which fails until then.
    /// `WouldBlock` means that there is no room; other errors are the
    /// kernel's (`man 2 write`).
    pub(crate) fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        while !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            let written = self.write_some(&rest);
            self.rest = rest;
            self.rest.drain(..written?);
        }
        let mut written = self.write_some(line)?;
        while let Some(rest) = line.get(written..).filter(|rest| !rest.is_empty()) {
            match self.write_some(rest) {
                Ok(more) => written += more,
                Err(_) => {
                    self.rest.extend_from_slice(rest);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Writes at least one byte or fails.
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let fd = self.fd.as_fd();
            let written = match &self.way {
                Way::NoWait => write_no_wait(fd, bytes),
                Way::Send => send(fd, bytes),
                Way::Reopened(own) => write(own, bytes),
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
pub(crate) mod tests {
    use std::fs::File;
    use std::io::{Read, pipe};
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::thread;
    use std::time::Duration;

    use nix::fcntl::{FcntlArg, fcntl};
    use nix::pty::{OpenptyResult, openpty};

    use super::*;

    /// Runs what must not wait for a reader that never comes.
    pub(crate) fn in_time(act: impl FnOnce() + Send + 'static) {
        let (done, is_done) = channel();
        let thread = thread::spawn(move || {
            act();
            let _ = done.send(());
        });
        match is_done.recv_timeout(Duration::from_secs(10)) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => thread.join().unwrap(),
            Err(RecvTimeoutError::Timeout) => panic!("a write waits for its reader"),
        }
    }

    /// Everything that can be read from it now.
    pub(crate) fn drain(reader: &mut (impl Read + AsFd)) -> Vec<u8> {
        let flags = OFlag::from_bits_retain(fcntl(&reader, FcntlArg::F_GETFL).unwrap());
        fcntl(&reader, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
        let mut bytes = Vec::new();
        let end = reader.read_to_end(&mut bytes);
        assert!(end.is_err_and(|err| err.kind() == io::ErrorKind::WouldBlock));
        fcntl(&reader, FcntlArg::F_SETFL(flags)).unwrap();
        bytes
    }

    /// Lines of rising number and changing length, so that a torn or a doubled
    /// one is seen.
    fn line(number: usize) -> Vec<u8> {
        format!("{number:06} {}\n", "x".repeat(number * 37 % 900)).into_bytes()
    }

    /// Writes until there is no room, reads everything, and once more: each
    /// line that was taken arrives, whole and in order, and no other does.
    fn fills_up_and_recovers<F: AsFd>(output: &mut Output<F>, reader: &mut (impl Read + AsFd)) {
        let mut taken = Vec::new();
        let mut arrived = Vec::new();
        let mut number = 0;
        for _ in 0..3 {
            // A short line may fit where a long one did not: go on a little.
            let mut refused = 0;
            while refused < 20 {
                number += 1;
                match output.write_line(&line(number)) {
                    Ok(()) => taken.extend(line(number)),
                    Err(err) => {
                        assert_eq!(err.kind(), io::ErrorKind::WouldBlock);
                        refused += 1;
                    }
                }
            }
            arrived.extend(drain(reader));
        }
        number += 1;
        output.write_line(&line(number)).unwrap();
        taken.extend(line(number));
        arrived.extend(drain(reader));
        arrived.retain(|byte| *byte != b'\r'); // a terminal adds them
        assert!(arrived == taken, "{} bytes of {}", arrived.len(), taken.len());
    }

    fn terminal() -> (File, OwnedFd) {
        let OpenptyResult { master, slave } = openpty(None, None).unwrap();
        (master.into(), slave)
    }

    fn is_nonblocking(fd: impl AsFd) -> bool {
        let flags = fcntl(fd, FcntlArg::F_GETFL).unwrap();
        OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK)
    }

    #[test]
    fn a_full_pipe_delays_nothing() {
        in_time(|| {
            let (mut reader, writer) = pipe().unwrap();
            let mut output = Output::new(&writer);
            assert!(matches!(output.way, Way::NoWait));
            fills_up_and_recovers(&mut output, &mut reader);
            assert!(!is_nonblocking(&writer));
        });
    }

    #[test]
    fn a_full_pipe_of_an_older_kernel_delays_nothing() {
        in_time(|| {
            let (mut reader, writer) = pipe().unwrap();
            let mut output = Output::new(&writer);
            output.way = reopened_or_polled(writer.as_fd(), true);
            assert!(matches!(output.way, Way::Reopened(_)));
            fills_up_and_recovers(&mut output, &mut reader);
            assert!(!is_nonblocking(&writer));
        });
    }

    #[test]
    fn a_full_pipe_of_another_user_delays_nothing() {
        in_time(|| {
            let (mut reader, writer) = pipe().unwrap();
            let mut output = Output::new(&writer);
            output.way = Way::Polled { is_pipe: true };
            fills_up_and_recovers(&mut output, &mut reader);
        });
    }

    #[test]
    fn a_full_socket_delays_nothing() {
        in_time(|| {
            let (mut reader, writer) = UnixStream::pair().unwrap();
            let mut output = Output::new(&writer);
            assert!(matches!(output.way, Way::Send));
            fills_up_and_recovers(&mut output, &mut reader);
            assert!(!is_nonblocking(&writer));
        });
    }

    #[test]
    fn a_terminal_that_nobody_reads_delays_nothing() {
        in_time(|| {
            let (mut reader, slave) = terminal();
            let mut output = Output::new(&slave);
            assert!(matches!(output.way, Way::Reopened(_)));
            fills_up_and_recovers(&mut output, &mut reader);
            assert!(!is_nonblocking(&slave));
        });
    }

    #[test]
    fn a_terminal_of_another_user_delays_nothing() {
        in_time(|| {
            let (mut reader, slave) = terminal();
            let mut output = Output::new(&slave);
            output.way = Way::Polled { is_pipe: false };
            fills_up_and_recovers(&mut output, &mut reader);
        });
    }

    #[test]
    fn a_way_that_the_kernel_refuses_is_replaced() {
        // Files of /proc know no RWF_NOWAIT, as pipes did not before Linux 6.4.
        let file = File::options().write(true).open("/proc/thread-self/comm").unwrap();
        let mut output = Output::new(file);
        output.way = Way::NoWait;
        output.write_line(b"castoff-log\n").unwrap();
        assert!(matches!(output.way, Way::Reopened(_)));
    }

    #[test]
    fn lines_are_appended_to_a_file() {
        let path = std::env::temp_dir().join(format!("castoff-stderr-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        let mut output = Output::new(&file);
        output.write_line(b"one\n").unwrap();
        io::Write::write_all(&mut &file, b"the child's\n").unwrap();
        output.write_line(b"two\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one\nthe child's\ntwo\n");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_reader_that_has_gone_is_an_error_and_no_more() {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        for way in [Way::NoWait, Way::Polled { is_pipe: true }] {
            let mut output = Output::new(&writer);
            output.way = way;
            let lost = output.write_line(b"lost\n");
            assert_eq!(lost.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        }
    }

    #[test]
    fn a_closed_descriptor_takes_nothing() {
        let place_holder = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        let lost = Output::new(place_holder).write_line(b"lost\n");
        assert_eq!(lost.unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}

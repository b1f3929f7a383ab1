//! What the child writes to: a pipe in the place of its standard output or error.
//!
//! Owns castoff's end of it. To the child it is an ordinary pipe, which makes it
//! wait while nobody reads; castoff never waits for it but where it says so. What
//! becomes of the bytes is decided in `supervisor::relay`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, fchown, read};
use tokio::net::unix::pipe::Receiver;

/// How much a pipe holds unless somebody changes it (`man 7 pipe`).
pub(crate) const CAPACITY: usize = 64 * 1024;

/// castoff's end. When it is dropped, whoever still writes gets SIGPIPE.
#[derive(Debug)]
pub(crate) struct Inlet {
    pipe: Receiver,
}

/// A pipe: castoff's end, and the one to start a process with, which castoff must
/// close after that to see the end. Neither outlives an exec by itself. The
/// pipe belongs to `owner`, who may then open it again as `/dev/stdout`.
///
/// # Errors
/// No descriptors are left, or no memory for pipes (`pipe-user-pages-hard`).
///
/// # Panics
/// Outside of the context of a runtime.
pub(crate) fn pipe(owner: Option<(u32, u32)>) -> io::Result<(Inlet, OwnedFd)> {
    let (read_end, write_end) = io::pipe()?;
    if let Some((uid, gid)) = owner {
        // Without the right to, there is no such user either.
        let _ = fchown(&write_end, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    }
    let pipe = Receiver::from_owned_fd(read_end.into())?;
    Ok((Inlet { pipe }, write_end.into()))
}

impl AsFd for Inlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl Inlet {
    /// Whether there may be something to read, or the end. Otherwise the task is
    /// woken when there is.
    pub(crate) fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        // An error of the loop's is met again by the read.
        self.pipe.poll_read_ready(context).map(|_| ())
    }

    /// Reads as much as has room in the buffer without growing it; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock`: there is nothing now.
    pub(crate) fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        self.pipe.try_read_buf(buffer)
    }

    /// Reads what is there at this moment, at most a pipe full; for when a process
    /// has ended, and the loop has not been told yet of its last output.
    pub(crate) fn read_now(&self, buffer: &mut Vec<u8>) {
        let mut left = CAPACITY;
        let mut chunk = [0; 4096];
        while left > 0 {
            match read(self.pipe.as_fd(), &mut chunk) {
                Err(Errno::EINTR) => {}
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
                    left = left.saturating_sub(count);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn ends() -> (Inlet, io::PipeWriter) {
        let (inlet, end) = pipe(None).expect("a pipe");
        (inlet, end.into())
    }

    #[tokio::test]
    async fn what_was_written_is_read_to_its_end() {
        let (inlet, mut end) = ends();
        let mut buffer = Vec::with_capacity(4);
        let error = inlet.read(&mut buffer).expect_err("there is nothing");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        end.write_all(b"abcdef").expect("a reader");
        std::future::poll_fn(|context| inlet.poll_ready(context)).await;
        assert_eq!(inlet.read(&mut buffer).expect("it is there"), 4);
        inlet.read_now(&mut buffer);
        assert_eq!(buffer, b"abcdef");
        drop(end);
        std::future::poll_fn(|context| inlet.poll_ready(context)).await;
        assert_eq!(inlet.read(&mut Vec::with_capacity(4)).expect("the end"), 0);
    }

    #[tokio::test]
    async fn a_full_pipe_makes_its_writer_wait_and_no_more_is_taken() {
        let (inlet, mut end) = ends();
        let writer = std::thread::spawn(move || end.write_all(&[b'x'; 3 * CAPACITY]));
        let mut buffer = Vec::new();
        while buffer.len() < CAPACITY {
            std::future::poll_fn(|context| inlet.poll_ready(context)).await;
            inlet.read_now(&mut buffer);
        }
        assert!(buffer.len() < 2 * CAPACITY);
        drop(inlet);
        let end = writer.join().expect("no panic").expect_err("its reader has gone");
        assert_eq!(end.kind(), io::ErrorKind::BrokenPipe);
    }
}

//! s6's notification-fd: the pipe on which a child says that it is ready, by a
//! line feed and nothing else (skarnet's notifywhenup).
//!
//! It takes a page a turn and keeps nothing of what is written.

use std::io;
use std::os::fd::OwnedFd;

use tokio::net::unix::pipe::Receiver;

/// How much one turn takes.
const CHUNK: usize = 4096;

/// How much is thrown away after the line feed, in bytes: a pipe full. s6 closes
/// its end at once, so what is written for it writes no more; whoever does gets
/// the SIGPIPE later here, and a child that merely ends its line twice none.
const AFTERWORDS: usize = 64 * 1024;

/// What became of the pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The child is ready. Go on with `next`, or it may get SIGPIPE.
    Ready,
    /// Nobody will say anything any more: drop this end.
    Closed { was_ready: bool },
}

/// A pipe: the end that castoff reads, and the one that becomes the child's
/// descriptor, which castoff must close after the start to see the end. To the
/// child it is an ordinary one.
///
/// # Errors
/// No descriptors are left.
///
/// # Panics
/// Outside of the context of a runtime.
pub(crate) fn pipe() -> io::Result<(Notification, OwnedFd)> {
    let (read_end, write_end) = io::pipe()?;
    let pipe = Receiver::from_owned_fd(read_end.into())?;
    Ok((Notification { pipe, left: None }, write_end.into()))
}

/// The end that castoff reads. Drop it when its child has been reaped: whoever
/// the child has left behind may hold the other one open for ever.
#[derive(Debug)]
pub(crate) struct Notification {
    pipe: Receiver,
    /// How many more bytes are thrown away; `None`: no line feed has come yet.
    left: Option<usize>,
}

impl Notification {
    /// Waits for the line feed, then for the end. Do not call it again after
    /// `Closed`. Nothing is lost when this is dropped before it is ready.
    pub(crate) async fn next(&mut self) -> Told {
        loop {
            let is_readable = self.pipe.readable().await;
            // A child that writes without a pause must not keep others waiting.
            tokio::task::yield_now().await;
            let mut chunk = [0; CHUNK];
            match is_readable.and_then(|()| self.pipe.try_read(&mut chunk)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return Told::Closed { was_ready: self.left.is_some() },
                Ok(count) => {
                    let chunk = chunk.get(..count).unwrap_or_default();
                    match &mut self.left {
                        None if chunk.contains(&b'\n') => {
                            self.left = Some(AFTERWORDS);
                            return Told::Ready;
                        }
                        None => {}
                        Some(left) if *left < count => return Told::Closed { was_ready: true },
                        Some(left) => *left -= count,
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

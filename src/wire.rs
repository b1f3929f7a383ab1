//! A TCP connection as hyper reads and writes it, for the endpoints and the checks
//! alike: one type, so that the code of both protocols is in the binary once.
//!
//! Owns which protocol a client speaks, and how much of what the other side sends
//! is read in one turn of the loop. It never waits for more bytes than tell the
//! protocol, and never writes several buffers at once.

use hyper::rt::{Read, ReadBufCursor, Write};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How HTTP/2 begins (RFC 9113, section 3.4). No method of HTTP/1 is called
/// PRI, so these four bytes are enough.
const PREFACE: &[u8; 4] = b"PRI ";

/// What is read of a connection in one turn of the loop. A request, and most
/// answers, have some hundred bytes; but whoever sends without end would be read
/// from without end, and HTTP/2 packs fifty requests into a kilobyte.
const TURN_BYTES_MAX: usize = 1024;

/// `writev` cannot be told not to raise SIGPIPE, `send` is (std, mio). A
/// SIGPIPE of our own would be forwarded to the child. So this offers only
/// what ends as `send`: `is_write_vectored` is left at no.
pub(crate) struct Wire {
    /// What was read to find out the protocol, and nobody else has read yet.
    seen: Vec<u8>,
    /// Something was read in this turn, and the rest waits for the next.
    has_read: bool,
    stream: TcpStream,
}

impl Wire {
    /// A connection of our own, whose protocol is ours to choose.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { seen: Vec::new(), has_read: false, stream }
    }

    /// Waits for the first bytes and tells whether they are those of HTTP/2.
    /// Whoever ends early, or begins with anything else, is left to HTTP/1.
    pub(crate) async fn accepted(stream: TcpStream) -> io::Result<(Self, bool)> {
        let mut bytes = [0; PREFACE.len()];
        let mut length = 0;
        loop {
            stream.readable().await?;
            let count = match stream.try_read(bytes.get_mut(length..).unwrap_or_default()) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            length += count;
            let seen = bytes.get(..length).unwrap_or_default();
            if count == 0 || seen == PREFACE || !PREFACE.starts_with(seen) {
                let is_http2 = seen == PREFACE;
                return Ok((Self { seen: seen.to_vec(), ..Self::new(stream) }, is_http2));
            }
        }
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.has_read) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut bytes = [0; TURN_BYTES_MAX];
        let length = buffer.remaining().min(bytes.len());
        let mut read = ReadBuf::new(bytes.get_mut(..length).unwrap_or_default());
        if self.seen.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
        } else {
            let count = self.seen.len().min(read.remaining());
            read.put_slice(self.seen.drain(..count).as_slice());
        }
        self.has_read = true;
        buffer.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

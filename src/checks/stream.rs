//! A TCP connection as hyper wants it, on which nothing raises SIGPIPE, and the
//! one place in which a connection and a request on it are moved on together.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// `writev` cannot be told not to raise SIGPIPE, `send` is (std, mio). HTTP/2
/// takes `writev` wherever a stream offers it, so this one does not.
pub(super) struct Stream(TokioIo<TcpStream>);

impl Stream {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(TokioIo::new(stream))
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A hyper connection that is moved on only while something is wanted of it,
/// and closed when it is dropped: it is no task of its own.
pub(super) struct Driven<C> {
    connection: Pin<Box<C>>,
    has_ended: bool,
}

impl<C: Future> Driven<C> {
    pub(super) fn new(connection: C) -> Self {
        Self { connection: Box::pin(connection), has_ended: false }
    }

    /// Waits for what is wanted. How the connection ends is told by that too.
    pub(super) async fn until<T>(&mut self, wanted: impl Future<Output = T>) -> T {
        let mut wanted = std::pin::pin!(wanted);
        poll_fn(|cx| {
            if !self.has_ended {
                self.has_ended = self.connection.as_mut().poll(cx).is_ready();
            }
            let result = ready!(wanted.as_mut().poll(cx));
            Poll::Ready(result)
        })
        .await
    }
}

//! The one place in which a connection and a request on it are moved on together.
//! Nothing is read or written but what hyper does meanwhile.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Poll, ready};

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

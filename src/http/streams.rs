//! The streams of one HTTP/2 connection: how many are open, and how long the
//! connection may last with them.
//!
//! Owns the counts and the rules for the connection's end; nothing here reads
//! or writes.

use super::{HEADER_TIMEOUT, LIFETIME};
use std::cell::Cell;
use std::rc::Rc;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// One for each service, though a client usually watches one.
const WATCHES_MAX: usize = 4;

/// Shared by a connection and its streams.
#[derive(Default)]
pub(super) struct Streams {
    open: Cell<usize>,
    watches: Cell<usize>,
    changed: Notify,
}

impl Streams {
    /// Counts a stream for as long as what is returned is kept.
    pub(super) fn open(self: &Rc<Self>) -> Open {
        self.open.set(self.open.get() + 1);
        self.changed.notify_one();
        Open(Rc::clone(self))
    }

    /// Waits until the connection is to be closed: when no stream has been
    /// open for `HEADER_TIMEOUT`, or when it is `LIFETIME` old and nothing is
    /// being watched.
    pub(super) async fn outlived(&self) {
        let lifetime = Instant::now() + LIFETIME;
        loop {
            let until = match (self.open.get(), self.watches.get()) {
                (0, _) => Some(lifetime.min(Instant::now() + HEADER_TIMEOUT)),
                (_, 0) => Some(lifetime),
                _ => None,
            };
            let changed = self.changed.notified();
            let Some(until) = until else {
                changed.await;
                continue;
            };
            if timeout_at(until, changed).await.is_err() {
                return;
            }
        }
    }
}

/// A stream that is open until this is dropped.
pub(super) struct Open(Rc<Streams>);

impl Open {
    /// Counts the stream as one with a Watch for as long as what is returned is
    /// kept. `None` when the connection has enough of them.
    pub(super) fn watch(&self) -> Option<Watching> {
        let watches = self.0.watches.get();
        if watches >= WATCHES_MAX {
            return None;
        }
        self.0.watches.set(watches + 1);
        self.0.changed.notify_one();
        Some(Watching(Rc::clone(&self.0)))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
        self.0.changed.notify_one();
    }
}

/// A Watch that is open until this is dropped.
pub(super) struct Watching(Rc<Streams>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.watches.set(self.0.watches.get().saturating_sub(1));
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    const HOURS: Duration = Duration::from_secs(36_000);

    /// Runs `story` with a clock that jumps to the next timeout.
    fn impatient(story: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(story);
    }

    #[test]
    fn without_a_stream_the_connection_is_not_kept() {
        impatient(async {
            let (streams, begun) = (Rc::new(Streams::default()), Instant::now());
            streams.outlived().await;
            assert_eq!(begun.elapsed(), HEADER_TIMEOUT);
        });
    }

    #[test]
    fn every_stream_begins_the_wait_for_the_next_anew_until_the_lifetime_is_over() {
        impatient(async {
            let (streams, begun) = (Rc::new(Streams::default()), Instant::now());
            let ask = async {
                loop {
                    tokio::time::sleep(HEADER_TIMEOUT / 2).await;
                    drop(streams.open());
                }
            };
            tokio::select! { () = streams.outlived() => {} () = ask => {} }
            assert_eq!(begun.elapsed(), LIFETIME);
        });
    }

    #[test]
    fn a_stream_that_is_never_answered_keeps_it_for_its_lifetime() {
        impatient(async {
            let (streams, begun) = (Rc::new(Streams::default()), Instant::now());
            let _open = streams.open();
            streams.outlived().await;
            assert_eq!(begun.elapsed(), LIFETIME);
        });
    }

    #[test]
    fn a_watch_keeps_it_for_as_long_as_it_lasts() {
        impatient(async {
            let streams = Rc::new(Streams::default());
            let open = streams.open();
            let watching = open.watch();
            let mut outlived = std::pin::pin!(streams.outlived());
            assert!(timeout(HOURS, outlived.as_mut()).await.is_err());
            drop(watching);
            drop(open);
            let ended = Instant::now();
            outlived.await;
            assert_eq!(ended.elapsed(), Duration::ZERO);
        });
    }

    #[test]
    fn a_connection_has_so_many_watches_and_no_more() {
        let streams = Rc::new(Streams::default());
        let open = streams.open();
        let mut watches: Vec<_> = (0..WATCHES_MAX).map(|_| open.watch().expect("room")).collect();
        assert!(open.watch().is_none());
        watches.pop();
        assert!(open.watch().is_some());
    }
}

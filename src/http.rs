//! The endpoints: accepts connections, bounds what each may cost, and answers
//! with what `policy::health`, `policy::metrics` and `policy::statusz` decide.
//!
//! It runs on the supervisor's own thread, so that an answer proves that the
//! loop turns. Nothing here may block, hold a lock across an await, or let a
//! client decide how much memory or time it gets. `run` starts it.

mod grpc;
mod listen;
mod route;
mod statusz;
mod streams;

pub(crate) use listen::{bind, bind_any};

use crate::policy::status::Status;
use crate::policy::statusz::About;
use crate::policy::usage::Usage;
use crate::wire::Wire;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use route::Endpoints;
use std::cell::Cell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use streams::Streams;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, spawn_local, yield_now};
use tokio::time::{sleep, timeout};

/// More than all probes of a kubelet, a mesh and some scrapers have open at
/// once; few enough for the memory they can take: 20 KiB each over HTTP/1, 40
/// KiB over HTTP/2 or, when a client asks for all scrapes it may and reads none,
/// 100 KiB; and 100 KiB in the kernel when a client sends but does not read.
const CONNECTIONS_MAX: usize = 64;

/// What castoff itself has open (12), and needs to walk /proc at the deadline,
/// with some room: no client may take these.
const DESCRIPTORS_KEPT: u64 = 24;

/// A probe's request has 200 bytes, a browser's with cookies some thousand.
/// hyper allows no smaller buffer.
const HEADER_BYTES_MAX: usize = 8192;

/// From the accept to the first bytes, from there or the end of the last answer
/// to the end of the next header, and for the message of a call. The longest
/// that a platform lets a probe wait is usually 1 s.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that has served for this long is closed after its current
/// answer, so that none is held for ever by a client that reads a byte an hour.
const LIFETIME: Duration = Duration::from_secs(30);

/// Streams of a connection that may be open at once. A client that asks for
/// every service, and watches as many, has as many.
const STREAMS_MAX: u32 = 8;

/// What a client may send on a stream before somebody has read it, and what
/// waits on the way out: a message has some dozen bytes. HTTP/2 cannot say less
/// for a whole connection than 64 KiB less one byte.
const STREAM_BYTES_MAX: u32 = 4096;

/// How many streams a client may have reset before anybody looked at them: it
/// is sent away for more (CVE-2023-44487).
const RESETS_MAX: usize = 16;

/// A client with a Watch may have nothing to say for days. One that has gone
/// without a word is found out by a ping.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What is left to a connection for that answer.
const FAREWELL_DELAY: Duration = Duration::from_secs(1);

/// How long to wait when `accept` fails and no connection can be closed for
/// it: at once it would only fail again.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// How many connections may be open under this limit of descriptors
/// (RLIMIT_NOFILE): never none, so that a probe is always answered.
pub(crate) fn connections_max(descriptor_limit: u64) -> usize {
    let left = descriptor_limit.saturating_sub(DESCRIPTORS_KEPT);
    usize::try_from(left).unwrap_or(CONNECTIONS_MAX).clamp(1, CONNECTIONS_MAX)
}

/// Answers on `listener`, which must not block, until the task is dropped.
/// `usage` is called for each scrape and must bound what it costs itself;
/// `accepted` counts every connection, so that none is taken for the child's.
///
/// Needs a `LocalRuntime`, or a `LocalSet`, with I/O and time. While no connection is
/// open it sets no timer. Fails only at once, when the runtime cannot watch
/// the listener.
pub(crate) async fn serve(
    listener: std::net::TcpListener,
    connections_max: usize,
    status: watch::Receiver<Status>,
    about: About,
    usage: impl Fn() -> Usage + 'static,
    accepted: Rc<Cell<u64>>,
) -> io::Result<Infallible> {
    let listener = TcpListener::from_std(listener)?;
    let endpoints = Rc::new(Endpoints::new(status, about, usage));
    let mut connections = Connections { open: VecDeque::new(), max: connections_max };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                accepted.set(accepted.get() + 1);
                connections.admit(converse(stream, Rc::clone(&endpoints)));
            }
            // The client has gone before it was accepted: `man 2 accept`.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // Most likely there is no descriptor left, and the oldest
            // connection has one.
            Err(_) if connections.drop_oldest() => {}
            Err(_) => sleep(ACCEPT_RETRY_DELAY).await,
        }
        // One connection per turn: a flood must not keep the supervisor, or
        // the connections that are to be closed, from theirs.
        yield_now().await;
    }
}

/// The open connections, oldest first.
struct Connections {
    open: VecDeque<AbortHandle>,
    max: usize,
}

impl Connections {
    /// Starts a connection. When there are too many the oldest makes room: a
    /// probe is answered within milliseconds, so the oldest is the one that
    /// is slow on purpose, and to refuse the newest would refuse the kubelet.
    fn admit(&mut self, connection: impl Future<Output = ()> + 'static) {
        self.open.retain(|open| !open.is_finished());
        if self.open.len() >= self.max {
            self.drop_oldest();
        }
        self.open.push_back(spawn_local(connection).abort_handle());
    }

    /// Closes the oldest connection, at its next turn. False when none is open.
    fn drop_oldest(&mut self) -> bool {
        self.open.retain(|open| !open.is_finished());
        match self.open.pop_front() {
            Some(oldest) => {
                oldest.abort();
                true
            }
            None => false,
        }
    }
}

/// Answers one client. How it ends is the client's affair and nobody else's.
async fn converse<F: Fn() -> Usage + 'static>(stream: TcpStream, endpoints: Rc<Endpoints<F>>) {
    match timeout(HEADER_TIMEOUT, Wire::accepted(stream)).await {
        Ok(Ok((wire, true))) => converse_http2(wire, endpoints).await,
        Ok(Ok((wire, false))) => converse_http1(wire, endpoints).await,
        // It has gone, or says nothing.
        Ok(Err(_)) | Err(_) => {}
    }
}

async fn converse_http1<F: Fn() -> Usage + 'static>(wire: Wire, endpoints: Rc<Endpoints<F>>) {
    let service = service_fn(move |request| {
        let endpoints = Rc::clone(&endpoints);
        async move {
            // One answer per turn, however many requests came in one packet.
            yield_now().await;
            Ok::<_, Infallible>(endpoints.answer(&request))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_header_size(HEADER_BYTES_MAX)
        // Also what hyper buffers of answers that the client does not read:
        // with so much waiting it takes neither a body nor the next request.
        .max_buf_size(HEADER_BYTES_MAX)
        // A client that shuts its sending side down after the request, as
        // `nc -N` does, still wants the answer.
        .half_close(true)
        // Even where it could: see `Wire`.
        .writev(false)
        .serve_connection(wire, service);
    let mut connection = pin!(connection);
    if timeout(LIFETIME, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _: Result<_, _> = timeout(FAREWELL_DELAY, connection).await;
    }
}

async fn converse_http2<F: Fn() -> Usage + 'static>(wire: Wire, endpoints: Rc<Endpoints<F>>) {
    let streams = Rc::new(Streams::default());
    let service = {
        let streams = Rc::clone(&streams);
        service_fn(move |request| {
            let (endpoints, open) = (Rc::clone(&endpoints), streams.open());
            async move { Ok::<_, Infallible>(endpoints.answer_http2(request, open).await) }
        })
    };
    let connection = http2::Builder::new(OnThisThread)
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES_MAX as u32)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_BYTES_MAX)
        .initial_connection_window_size(STREAM_BYTES_MAX * STREAMS_MAX)
        .max_send_buf_size(STREAM_BYTES_MAX as usize)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(wire, service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = streams.outlived() => connection.as_mut().graceful_shutdown(),
    }
    let _: Result<_, _> = timeout(FAREWELL_DELAY, connection).await;
}

/// Gives each stream a task of its own, so that one answer is one turn. The
/// task ends with its connection, for hyper tells it so.
#[derive(Clone)]
struct OnThisThread;

impl<F: Future + 'static> Executor<F> for OnThisThread {
    fn execute(&self, stream: F) {
        spawn_local(async {
            stream.await;
        });
    }
}

#[cfg(test)]
mod tests;

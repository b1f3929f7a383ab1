//! The active checks: they connect, ask and look, and say whether it was right.
//!
//! Each is one future on the supervisor's own thread. It ends when it is
//! dropped, which is how its timeout is enforced, and leaves no task, socket or
//! memory behind. Nothing here blocks, reads without a bound or believes what
//! it is told. When a check is due and what its result means is decided
//! elsewhere; what castoff knows by itself (`listen:`, `notify`) or must start
//! (`exec:`) is not among them.

mod connect;
mod driven;
mod file;
mod grpc;
mod http;
mod names;

use std::cell::Cell;
use std::error::Error;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;

use crate::policy::checks::{HttpTarget, Place};
use file::Looks;
use names::Resolver;
#[cfg(fuzzing)]
pub(crate) use names::fuzzing;

/// What the checks have in common. Needs a `LocalRuntime`, or a `LocalSet`,
/// with I/O and time.
///
/// The error of each is a short reason for the log: one line of at most 200
/// characters, a fragment in lower case such as `connection refused`. A timeout
/// is the caller's; what was being done by then is told by the `Stage`.
#[derive(Default)]
pub(crate) struct Clients {
    resolver: Resolver,
    looks: Looks,
}

/// The longest reason, in characters.
const REASON_MAX: usize = 200;

/// Who asks: of HTTP and gRPC servers alike.
const USER_AGENT: &str = concat!("castoff/", env!("CARGO_PKG_VERSION"));

/// How much of an answer is read, in bytes. The kubelet reads as much.
const BODY_BYTES_MAX: usize = 10 * 1024;

impl Clients {
    /// A connection is accepted; it is closed at once. Every address of a name
    /// is tried.
    pub(crate) async fn tcp(&self, place: &Place, stage: &Stage) -> Result<(), String> {
        connect::connect(&self.resolver, place, stage).await.map(drop)
    }

    /// A GET is answered with 200 to 399, redirects to the same host followed.
    pub(crate) async fn http(&self, target: &HttpTarget, stage: &Stage) -> Result<(), String> {
        http::check(&self.resolver, target, stage).await
    }

    /// A stream socket accepts a connection; it is closed at once.
    pub(crate) async fn unix(&self, path: &Path, stage: &Stage) -> Result<(), String> {
        stage.enter("while connecting");
        match UnixStream::connect(path).await {
            Ok(_) => Ok(()),
            // What other sockets tell by not answering (`man 2 connect`).
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err("its queue of connections is full".to_owned())
            }
            Err(error) => Err(io_reason(&error)),
        }
    }

    /// The file exists, whatever it is; with an age, it was modified no longer
    /// ago than that. A time in the future is no time ago.
    pub(crate) async fn file(
        &self,
        path: &Path,
        max_age: Option<Duration>,
        stage: &Stage,
    ) -> Result<(), String> {
        stage.enter("while looking at the file");
        self.looks.check(path, max_age).await
    }

    /// grpc.health.v1 says SERVING of that service; empty: of the server.
    pub(crate) async fn grpc(
        &self,
        place: &Place,
        service: &str,
        stage: &Stage,
    ) -> Result<(), String> {
        grpc::check(&self.resolver, place, service, stage).await
    }
}

/// What a check is doing: the second half of `timed out after 1s while connecting`.
#[derive(Debug, Default)]
pub(crate) struct Stage(Cell<&'static str>);

impl Stage {
    fn enter(&self, what: &'static str) {
        self.0.set(what);
    }

    /// Empty before the check has begun.
    pub(crate) fn as_str(&self) -> &'static str {
        self.0.get()
    }
}

/// What the kernel says, without its number: `connection refused`.
fn io_reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_ascii_lowercase());
    one_line(&first.into_iter().chain(characters).collect::<String>())
}

/// Why a server's answer was none: what the kernel says of the connection, or
/// else what hyper says of the bytes.
fn hyper_reason(error: &hyper::Error, what: &str) -> String {
    let mut source: &dyn Error = error;
    loop {
        if let Some(error) = source.downcast_ref::<io::Error>()
            && error.raw_os_error().is_some()
        {
            return io_reason(error);
        }
        match source.source() {
            Some(deeper) => source = deeper,
            None => break,
        }
    }
    if error.is_parse_too_large() {
        "the head of its answer is too long".to_owned()
    } else if error.is_parse() {
        one_line(&format!("answered what is not {what}: {source}"))
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        "closed the connection without an answer".to_owned()
    } else {
        one_line(&format!("no answer by {what}: {source}"))
    }
}

/// Text that others have a hand in, made fit for a line of the log.
fn one_line(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_ascii_graphic() { c } else { ' ' });
    printable.take(REASON_MAX).collect()
}

#[cfg(test)]
mod tests;

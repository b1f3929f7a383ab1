//! The way of the child's output to castoff's own, line by line.
//!
//! Owns the pipes and what is under way between them, which is bounded. It never
//! waits for a reader: while there is no room nothing is read either, and the
//! child waits as it would without castoff. What a line becomes is decided in
//! `log::wrap`, how long castoff's end may take in `policy::flush`.

mod channel;
mod conduit;

use std::cell::Cell;
use std::future::pending;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Supervisor;
use crate::log::{self, events};
use crate::policy::last_words::LastWords;
use crate::policy::log_style::{LogStyle, Stream};
use crate::system::child::Stdio;
use crate::system::memory;
use crate::system::outlet::{self, Outlet};
use conduit::{BYTES_A_TURN, Conduit, Way};

/// More bytes of lines than this leave buffers behind that are worth giving back.
const LARGE: usize = 8 * 1024;

/// So long after the last of them they are: whoever writes much writes on.
const REST: Duration = Duration::from_secs(1);

/// Lines of the child so far, by stream.
#[derive(Debug, Default)]
pub(crate) struct LineCounts {
    pub(crate) stdout: Cell<u64>,
    pub(crate) stderr: Cell<u64>,
}

/// Both streams, as far as they are relayed: one that castoff was started without
/// is none of the child's either.
pub(crate) struct Relay {
    stdout: Option<Conduit>,
    stderr: Option<Conduit>,
    counts: Rc<LineCounts>,
    /// Bytes of lines since the others had a turn.
    turn: usize,
    /// When the buffers are given back, if they have become large.
    rest_at: Option<Instant>,
}

/// What the child is started with, in place of castoff's own.
#[derive(Debug, Default)]
pub(super) struct ChildsEnds {
    output: Option<OwnedFd>,
    error: Option<OwnedFd>,
}

impl ChildsEnds {
    pub(super) fn stdio(&self) -> Stdio<'_> {
        Stdio {
            input: None,
            output: self.output.as_ref().map(AsFd::as_fd),
            error: self.error.as_ref().map(AsFd::as_fd),
        }
    }
}

impl Relay {
    /// Nothing is relayed: the child has castoff's own descriptors.
    pub(crate) fn none() -> Self {
        Self { stdout: None, stderr: None, counts: Rc::default(), turn: 0, rest_at: None }
    }

    /// Relays to castoff's standard output and error.
    pub(crate) fn new(style: &LogStyle, counts: Rc<LineCounts>) -> Self {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        // What both of them write to must have one writer.
        let is_one = log::leads_to(&stdout);
        let conduit = |stream, way| Conduit::new(style.clone(), stream, way);
        let relay = Self {
            stderr: outlet::is_open(&stderr).then(|| conduit(Stream::Stderr, Way::Log)),
            stdout: outlet::is_open(&stdout).then(|| {
                let way = if is_one { Way::Log } else { Way::Own(Outlet::new(stdout)) };
                conduit(Stream::Stdout, way)
            }),
            counts,
            turn: 0,
            rest_at: None,
        };
        log::keep_lines(relay.stderr.is_some());
        relay
    }

    /// New pipes, for a new child of that user and group.
    ///
    /// # Errors
    /// No descriptors are left.
    ///
    /// # Panics
    /// Outside of the context of a runtime.
    pub(super) fn open(&mut self, owner: Option<(u32, u32)>) -> io::Result<ChildsEnds> {
        let open = |conduit: &mut Option<Conduit>| match conduit {
            Some(conduit) => conduit.open(owner).map(Some),
            None => Ok(None),
        };
        Ok(ChildsEnds { output: open(&mut self.stdout)?, error: open(&mut self.stderr)? })
    }

    /// Waits until something can be done for a stream. Nothing is lost when this is
    /// dropped before it is ready.
    pub(super) async fn ready(&mut self) -> Stream {
        // Whoever is polled first is not favoured.
        tokio::select! {
            () = ready(&mut self.stdout) => Stream::Stdout,
            () = ready(&mut self.stderr) => Stream::Stderr,
        }
    }

    /// Does it, at most a batch. Returns whether it is somebody else's turn.
    pub(super) fn work(&mut self, stream: Stream, last_words: &mut LastWords) -> bool {
        let (conduit, count, heard) = match stream {
            Stream::Stdout => (&mut self.stdout, &self.counts.stdout, None),
            Stream::Stderr => (&mut self.stderr, &self.counts.stderr, Some(last_words)),
        };
        let Some(conduit) = conduit else { return false };
        let bytes = conduit.work(count, heard);
        if bytes > LARGE {
            self.rest_at = Some(Instant::now() + REST);
        }
        self.turn += bytes;
        let is_over = self.turn >= BYTES_A_TURN;
        if is_over {
            self.turn = 0;
        }
        is_over
    }

    /// When `rest_if_due` has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.rest_at
    }

    /// Gives back the buffers of streams that have become quiet.
    pub(super) fn rest_if_due(&mut self, now: Instant) {
        if self.rest_at.is_some_and(|at| now >= at) {
            self.rest_at = None;
            self.conduits().for_each(Conduit::rest);
            memory::give_back();
        }
    }

    /// Takes from the child's standard error what is there at this moment: it has
    /// ended, and is to be told of.
    pub(super) fn hear_last_words(&mut self, last_words: &mut LastWords) {
        if let Some(conduit) = &mut self.stderr {
            conduit.hear(last_words);
        }
    }

    /// Everybody has ended: whatever is in the pipes now is all.
    fn finish(&mut self) {
        self.conduits().for_each(Conduit::finish);
    }

    /// Bytes that were written so far.
    fn written(&mut self) -> u64 {
        self.conduits().map(|conduit| conduit.written()).sum()
    }

    fn is_done(&mut self) -> bool {
        self.conduits().all(|conduit| conduit.is_done())
    }

    fn conduits(&mut self) -> impl Iterator<Item = &mut Conduit> {
        self.stdout.iter_mut().chain(&mut self.stderr)
    }
}

async fn ready(conduit: &mut Option<Conduit>) {
    match conduit {
        Some(conduit) => conduit.ready().await,
        None => pending().await,
    }
}

impl Supervisor {
    /// Writes what the child's tree has left in the pipes, as long as somebody
    /// reads it and there is time; another stop signal ends the wait.
    pub(super) async fn finish_output(&mut self) {
        self.relay.finish();
        let mut written = self.relay.written();
        while !self.relay.is_done() {
            let flush = *self.flush.get_or_insert_with(|| self.lifecycle.flush(Instant::now()));
            // Asked first: a stranger who writes on into a pipe, or a panic that comes
            // again, leaves no turn to the timer.
            if Instant::now() >= flush.due_at() {
                break;
            }
            tokio::select! {
                biased;
                () = self.signals.next(&mut self.batch) => self.end_flush_if_asked(),
                stream = self.relay.ready() => {
                    self.relay.work(stream, &mut self.witness.last_words);
                }
                () = tokio::time::sleep_until(flush.due_at().into()) => {}
            }
            if self.relay.written() != written {
                written = self.relay.written();
                self.progressed();
            }
            tokio::task::yield_now().await;
        }
        for conduit in self.relay.conduits().filter(|conduit| !conduit.is_done()) {
            events::child_output_lost(conduit.stream(), conduit.unwritten());
        }
    }

    /// Writes what the log still has to tell; to be called last. It waits for a
    /// reader as the child's output does, and without such output for nobody.
    pub(crate) async fn finish_log(&mut self) {
        while log::catch_up().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            let is_on = self.relay.conduits().next().is_some();
            let flush = self.flush.or_else(|| is_on.then(|| self.lifecycle.flush(Instant::now())));
            self.flush = flush;
            let Some(flush) = flush.filter(|flush| Instant::now() < flush.due_at()) else { return };
            tokio::select! {
                biased;
                () = self.signals.next(&mut self.batch) => self.end_flush_if_asked(),
                () = log::room() => self.progressed(),
                () = tokio::time::sleep_until(flush.due_at().into()) => {}
            }
        }
    }

    /// Another stop signal has come: whoever asked has no more time for readers.
    fn end_flush_if_asked(&mut self) {
        if self.is_asked_again()
            && let Some(flush) = &mut self.flush
        {
            flush.end(Instant::now());
        }
    }

    /// Whether one of the signals that have come is a stop signal.
    fn is_asked_again(&mut self) -> bool {
        let mut signals = self.batch.drain(..).map(|received| received.signal);
        signals.any(|signal| self.setting.stop_on.contains(&signal))
    }

    fn progressed(&mut self) {
        if let Some(flush) = &mut self.flush {
            flush.progressed(Instant::now());
        }
    }
}

//! The way of the child's output to castoff's own, line by line.
//!
//! Owns the pipes and what is under way between them, which is bounded. It never
//! waits for a reader: while there is no room nothing is read either, and the
//! child waits as it would without castoff. What a line becomes is decided in
//! `log::wrap`, how long castoff's end may take in `policy::flush`.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use super::Supervisor;
use crate::log::wrap::Wrapper;
use crate::log::{self, events};
use crate::policy::last_words::LastWords;
use crate::policy::log_style::{LogStyle, Stream};
use crate::system::child::Stdio;
use crate::system::inlet::{self, CAPACITY, Inlet};
use crate::system::memory;
use crate::system::outlet::{self, Outlet};

/// How much is written at a time, at the least: so much is worth a system call.
/// With the line that may go beyond it, it has room in an empty pipe.
const BATCH: usize = CAPACITY - 16 * 1024;

/// How much is written before the rest of the loop has its turn, at the least. A
/// turn takes four system calls, which is more than a line of its own needs.
const BYTES_A_TURN: usize = 64 * 1024;

/// More bytes of lines than this leave buffers behind that are worth giving back.
const LARGE: usize = 8 * 1024;

/// So long after the last of them they are: whoever writes much writes on.
const REST: Duration = Duration::from_secs(1);

/// How many pipes of a stream may be open: that of the child, and those of
/// children before it that somebody else still holds. Of more the oldest goes.
const CHANNELS_MAX: usize = 8;

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
        for channel in self.stderr.iter_mut().flat_map(|conduit| &mut conduit.channels) {
            channel.hear(last_words);
        }
    }

    /// Everybody has ended: whatever is in the pipes now is all.
    fn finish(&mut self) {
        for conduit in self.conduits() {
            conduit.is_finishing = true;
        }
    }

    /// Bytes that were written so far.
    fn written(&mut self) -> u64 {
        self.conduits().map(|conduit| conduit.total).sum()
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

/// Where a stream's lines go.
enum Way {
    /// Beside castoff's own lines.
    Log,
    Own(Outlet<io::Stdout>),
}

impl Way {
    fn write_lines(&mut self, lines: &[u8]) -> io::Result<usize> {
        match self {
            Self::Log => log::write_lines(lines),
            Self::Own(outlet) => outlet.write_lines(lines),
        }
    }

    fn finish_line(&mut self) -> io::Result<()> {
        match self {
            Self::Log => log::catch_up(),
            Self::Own(outlet) => outlet.finish_line(),
        }
    }

    async fn room(&mut self) {
        match self {
            Self::Log => log::room().await,
            Self::Own(outlet) => outlet.room().await,
        }
    }
}

/// One stream, from the pipes that the child and its heirs write to.
struct Conduit {
    style: LogStyle,
    stream: Stream,
    way: Way,
    /// The oldest first.
    channels: VecDeque<Channel>,
    /// Whose turn it is.
    turn: usize,
    /// Whole lines under way; those before `written` have gone out.
    out: Vec<u8>,
    written: usize,
    /// The last write found no room.
    is_full: bool,
    is_finishing: bool,
    total: u64,
}

impl Conduit {
    fn new(style: LogStyle, stream: Stream, way: Way) -> Self {
        Self {
            style,
            stream,
            way,
            channels: VecDeque::new(),
            turn: 0,
            out: Vec::new(),
            written: 0,
            is_full: false,
            is_finishing: false,
            total: 0,
        }
    }

    fn open(&mut self, owner: Option<(u32, u32)>) -> io::Result<OwnedFd> {
        let (inlet, end) = inlet::pipe(owner)?;
        for channel in &mut self.channels {
            channel.is_the_childs = false;
            // What comes before the new child's first line is written before it.
            channel.fetch();
        }
        if self.channels.len() >= CHANNELS_MAX
            && let Some(oldest) = self.channels.pop_front()
        {
            let lost = oldest.unwritten();
            if lost > 0 {
                events::child_output_lost(self.stream, lost);
            }
        }
        self.channels.push_back(Channel {
            inlet,
            is_the_childs: true,
            input: Vec::new(),
            taken: 0,
            wrapper: Wrapper::new(&self.style, self.stream),
            has_ended: false,
        });
        Ok(end)
    }

    async fn ready(&mut self) {
        if self.is_full {
            return self.way.room().await;
        }
        let channels = &self.channels;
        if channels.iter().any(Channel::has_input) || (self.is_finishing && !channels.is_empty()) {
            return;
        }
        poll_fn(|context| {
            let is_ready = |channel: &Channel| channel.inlet.poll_ready(context).is_ready();
            if channels.iter().any(is_ready) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Returns how many bytes of lines there were; one that has no room and could
    /// be asked again at once has had its turn.
    fn work(&mut self, count: &Cell<u64>, mut last_words: Option<&mut LastWords>) -> usize {
        if !self.flush() {
            return BYTES_A_TURN;
        }
        // What was read is older than what was not; of that each pipe has its turn.
        let pipes = self.channels.len();
        let first = self.channels.iter().position(Channel::has_input).unwrap_or(self.turn);
        for at in (0..pipes).map(|nth| (first + nth) % pipes) {
            let Some(channel) = self.channels.get_mut(at) else { break };
            let before = channel.wrapper.lines();
            let has_given = channel.give(&mut self.out, self.is_finishing, &mut last_words);
            count.set(count.get() + channel.wrapper.lines().saturating_sub(before));
            if has_given {
                self.turn = at + 1;
                break;
            }
        }
        self.channels.retain(|channel| !channel.is_over());
        let bytes = self.out.len();
        self.flush();
        bytes
    }

    /// Writes what is under way; whether nothing is left of it.
    fn flush(&mut self) -> bool {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.way.write_lines(rest) {
                Ok(written) => {
                    self.written += written;
                    self.total += written as u64;
                    if written < rest.len() {
                        self.is_full = true;
                        return false;
                    }
                }
                Err(error) => return self.has_failed(&error),
            }
        }
        self.out.clear();
        self.written = 0;
        if let Err(error) = self.way.finish_line() {
            return self.has_failed(&error);
        }
        self.is_full = false;
        true
    }

    fn has_failed(&mut self, error: &io::Error) -> bool {
        if error.kind() == io::ErrorKind::WouldBlock {
            self.is_full = true;
            return false;
        }
        // A full disk or a terminal that is gone: the program would be told, and
        // by a pipe it cannot be. These lines are lost; it goes on.
        let lost = self.out.get(self.written..).unwrap_or_default();
        log::child_lines_lost(lost.iter().filter(|byte| **byte == b'\n').count() as u64);
        self.out.clear();
        self.written = 0;
        self.is_full = false;
        if outlet::is_reader_gone(error) {
            // The child's next write tells it so. Another child may have more luck: a
            // FIFO's reader can come back.
            self.channels.clear();
        }
        true
    }

    /// Frees what holds nothing.
    fn rest(&mut self) {
        self.out.shrink_to_fit();
        for channel in self.channels.iter_mut().filter(|channel| !channel.has_input()) {
            channel.input = Vec::new();
            channel.taken = 0;
        }
    }

    fn is_done(&self) -> bool {
        self.channels.is_empty() && self.out.is_empty() && !self.is_full
    }

    /// Bytes of the child's that castoff has taken and not written.
    fn unwritten(&self) -> usize {
        self.channels.iter().map(Channel::unwritten).sum::<usize>()
            + self.out.len().saturating_sub(self.written)
    }
}

/// A pipe, and what was read from it and not wrapped yet.
struct Channel {
    inlet: Inlet,
    /// It was made for the child that runs, or ran last: its words count.
    is_the_childs: bool,
    input: Vec<u8>,
    taken: usize,
    wrapper: Wrapper,
    has_ended: bool,
}

impl Channel {
    /// Adds a batch of lines; false when there is nothing now. To `is_last` an
    /// empty pipe is an ended one.
    fn give(
        &mut self,
        out: &mut Vec<u8>,
        is_last: bool,
        last_words: &mut Option<&mut LastWords>,
    ) -> bool {
        if !self.has_input() && !self.read(is_last, last_words) {
            return false;
        }
        let now = SystemTime::now();
        if let Some(rest) = self.input.get(self.taken..) {
            self.taken += self.wrapper.wrap(rest, now, out, BATCH);
        }
        if self.is_over() {
            self.wrapper.finish(now, out);
        }
        true
    }

    /// Whether there was something, be it the end.
    fn read(&mut self, is_last: bool, last_words: &mut Option<&mut LastWords>) -> bool {
        self.input.clear();
        self.taken = 0;
        if is_last {
            self.inlet.read_now(&mut self.input);
            self.has_ended = self.input.is_empty();
        } else {
            self.input.reserve(CAPACITY);
            match self.inlet.read(&mut self.input) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Ok(0) | Err(_) => self.has_ended = true,
                Ok(_) => {}
            }
        }
        if let Some(last_words) = last_words.as_mut().filter(|_| self.is_the_childs) {
            last_words.saw(&self.input);
        }
        true
    }

    /// Reads what is there now and takes note of it, if it is the child's.
    fn hear(&mut self, last_words: &mut LastWords) {
        if self.is_the_childs {
            last_words.saw(self.fetch());
        }
    }

    /// Reads what is there now, whether there is room for it or not: a pipe full
    /// on top of what was read before. Returns that.
    fn fetch(&mut self) -> &[u8] {
        self.input.drain(..self.taken);
        self.taken = 0;
        let known = self.input.len();
        if known <= CAPACITY {
            self.inlet.read_now(&mut self.input);
        }
        self.input.get(known..).unwrap_or_default()
    }

    /// Bytes that were read and not wrapped.
    fn unwritten(&self) -> usize {
        self.input.len().saturating_sub(self.taken)
    }

    fn has_input(&self) -> bool {
        self.taken < self.input.len()
    }

    fn is_over(&self) -> bool {
        self.has_ended && !self.has_input()
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
            events::child_output_lost(conduit.stream, conduit.unwritten());
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

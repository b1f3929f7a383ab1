//! One stream, from the pipes that the child and its heirs write to, to castoff's
//! own output.
//!
//! Owns the order of the pipes and the lines under way. It writes what has room
//! and never waits for more but in `ready`.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::task::Poll;

use super::channel::Channel;
use crate::log::wrap::Wrapper;
use crate::log::{self, events};
use crate::policy::last_words::LastWords;
use crate::policy::log_style::{LogStyle, Stream};
use crate::system::inlet;
use crate::system::outlet::{self, Outlet};

/// How much is written before the rest of the loop has its turn, at the least. A
/// turn takes four system calls, which is more than a line of its own needs.
pub(super) const BYTES_A_TURN: usize = 64 * 1024;

/// How many pipes of a stream may be open: that of the child, and those of
/// children before it that somebody else still holds. Of more the oldest goes.
const CHANNELS_MAX: usize = 8;

/// Where a stream's lines go.
pub(super) enum Way {
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
pub(super) struct Conduit {
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
    /// Everybody has ended.
    is_finishing: bool,
    /// Bytes that were written so far.
    total: u64,
}

impl Conduit {
    pub(super) fn new(style: LogStyle, stream: Stream, way: Way) -> Self {
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

    /// A new pipe, for a new child of that user and group.
    ///
    /// # Errors
    /// No descriptors are left.
    ///
    /// # Panics
    /// Outside of the context of a runtime.
    pub(super) fn open(&mut self, owner: Option<(u32, u32)>) -> io::Result<OwnedFd> {
        let (inlet, end) = inlet::pipe(owner)?;
        self.channels.iter_mut().for_each(Channel::supersede);
        if self.channels.len() >= CHANNELS_MAX
            && let Some(oldest) = self.channels.pop_front()
        {
            let lost = oldest.unwritten();
            if lost > 0 {
                events::child_output_lost(self.stream, lost);
            }
        }
        self.channels.push_back(Channel::new(inlet, Wrapper::new(&self.style, self.stream)));
        Ok(end)
    }

    /// Waits until `work` can do something. Cancel safe.
    pub(super) async fn ready(&mut self) {
        if self.is_full {
            return self.way.room().await;
        }
        let channels = &self.channels;
        if channels.iter().any(Channel::has_input) || (self.is_finishing && !channels.is_empty()) {
            return;
        }
        poll_fn(|context| {
            let is_ready = |channel: &Channel| channel.poll_ready(context).is_ready();
            if channels.iter().any(is_ready) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Returns how many bytes of lines there were; one that has no room and could
    /// be asked again at once has had its turn.
    pub(super) fn work(
        &mut self,
        count: &Cell<u64>,
        mut last_words: Option<&mut LastWords>,
    ) -> usize {
        if !self.flush() {
            return BYTES_A_TURN;
        }
        // What was read is older than what was not; of that each pipe has its turn.
        let pipes = self.channels.len();
        let first = self.channels.iter().position(Channel::has_input).unwrap_or(self.turn);
        for at in (0..pipes).map(|nth| (first + nth) % pipes) {
            let Some(channel) = self.channels.get_mut(at) else { break };
            let before = channel.lines();
            let has_given = channel.give(&mut self.out, self.is_finishing, &mut last_words);
            count.set(count.get() + channel.lines().saturating_sub(before));
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

    /// Takes note of what the child has written until now.
    pub(super) fn hear(&mut self, last_words: &mut LastWords) {
        self.channels.iter_mut().for_each(|channel| channel.hear(last_words));
    }

    /// Everybody has ended: whatever is in the pipes now is all.
    pub(super) fn finish(&mut self) {
        self.is_finishing = true;
    }

    /// Frees what holds nothing.
    pub(super) fn rest(&mut self) {
        self.out.shrink_to_fit();
        self.channels.iter_mut().for_each(Channel::rest);
    }

    pub(super) fn stream(&self) -> Stream {
        self.stream
    }

    /// Bytes that were written so far.
    pub(super) fn written(&self) -> u64 {
        self.total
    }

    /// Whether nothing is under way, and nothing can come.
    pub(super) fn is_done(&self) -> bool {
        self.channels.is_empty() && self.out.is_empty() && !self.is_full
    }

    /// Bytes of the child's that castoff has taken and not written.
    pub(super) fn unwritten(&self) -> usize {
        self.channels.iter().map(Channel::unwritten).sum::<usize>()
            + self.out.len().saturating_sub(self.written)
    }
}

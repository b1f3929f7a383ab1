//! One pipe, and what was read from it and not wrapped yet.
//!
//! Owns the bound of that. It never waits for its writers.

use std::io;
use std::task::{Context, Poll};
use std::time::SystemTime;

use crate::log::wrap::Wrapper;
use crate::policy::last_words::LastWords;
use crate::system::inlet::{CAPACITY, Inlet};

/// How much is written at a time, at the least: so much is worth a system call.
/// With the line that may go beyond it, it has room in an empty pipe.
const BATCH: usize = CAPACITY - 16 * 1024;

pub(super) struct Channel {
    inlet: Inlet,
    /// It was made for the child that runs, or ran last: its words count.
    is_the_childs: bool,
    /// What was read; before `taken` it is wrapped.
    input: Vec<u8>,
    taken: usize,
    wrapper: Wrapper,
    has_ended: bool,
}

impl Channel {
    /// A new one, for a new child.
    pub(super) fn new(inlet: Inlet, wrapper: Wrapper) -> Self {
        let (input, taken) = (Vec::new(), 0);
        Self { inlet, is_the_childs: true, input, taken, wrapper, has_ended: false }
    }

    /// The next child has a pipe of its own. What comes before that one's first
    /// line is written before it.
    pub(super) fn supersede(&mut self) {
        self.is_the_childs = false;
        self.fetch();
    }

    /// Whether there may be something to read, or the end.
    pub(super) fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        self.inlet.poll_ready(context)
    }

    /// Lines so far.
    pub(super) fn lines(&self) -> u64 {
        self.wrapper.lines()
    }

    /// Adds a batch of lines; false when there is nothing now. To `is_last` an
    /// empty pipe is an ended one.
    pub(super) fn give(
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
    pub(super) fn hear(&mut self, last_words: &mut LastWords) {
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

    /// Frees the buffer, if it holds nothing.
    pub(super) fn rest(&mut self) {
        if !self.has_input() {
            self.input = Vec::new();
            self.taken = 0;
        }
    }

    /// Bytes that were read and not wrapped.
    pub(super) fn unwritten(&self) -> usize {
        self.input.len().saturating_sub(self.taken)
    }

    pub(super) fn has_input(&self) -> bool {
        self.taken < self.input.len()
    }

    pub(super) fn is_over(&self) -> bool {
        self.has_ended && !self.has_input()
    }
}

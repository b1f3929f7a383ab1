//! What a hook writes, as lines: the pipe from it, and its cutting into lines.
//!
//! Owns the bounds: a turn takes a few pages and then lets others run, and a
//! line has an end whatever is written. It waits for nothing but output, never
//! for the end of the stream, which a descendant may hold open for ever.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::str;
use std::task::{Context, Poll, ready};

use super::inlet::{self, Inlet};

/// How much one turn takes: the shortest lines that fit are logged in some ten
/// milliseconds.
const CHUNK: usize = 4096;

/// A line is split where it would get heavier than this: bytes, of which some
/// weigh double. In JSON they are at most three times as many, which leaves a
/// log line room for everything else that stands in it.
const LINE_WEIGHT: usize = 1024;

/// A pipe: the end that castoff reads, and the one to start a process with,
/// which castoff must close after that to see the end. Neither outlives an exec
/// by itself, and to the process the pipe is an ordinary one that may block it.
///
/// # Errors
/// No descriptors are left.
///
/// # Panics
/// Outside of the context of a runtime.
pub(crate) fn pipe() -> io::Result<(Output, OwnedFd)> {
    let (pipe, write_end) = inlet::pipe(None)?;
    Ok((Output { pipe, lines: Lines::default() }, write_end))
}

/// An input that has ended already. Not `/dev/null`: an image may have no /dev.
///
/// # Errors
/// No descriptors are left.
pub(crate) fn no_input() -> io::Result<OwnedFd> {
    io::pipe().map(|(read_end, _)| read_end.into())
}

/// The end of the pipe that castoff reads. When it is dropped, whoever still
/// writes gets SIGPIPE.
#[derive(Debug)]
pub(crate) struct Output {
    pipe: Inlet,
    lines: Lines,
}

impl Output {
    /// Waits for output and adds the lines that it has completed, perhaps none.
    /// False at the end of the stream, with an unfinished last line: do not
    /// call it again. Nothing is lost when this is dropped before it is ready.
    pub(crate) async fn next(&mut self, lines: &mut Vec<String>) -> bool {
        loop {
            poll_fn(|context| self.pipe.poll_ready(context)).await;
            // Before the read, when nothing can be lost: output without a pause
            // must not keep the endpoints waiting.
            tokio::task::yield_now().await;
            if let Some(has_more) = self.read(lines) {
                return has_more;
            }
        }
    }

    /// As `next`, for whoever waits for several at a time.
    pub(crate) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        lines: &mut Vec<String>,
    ) -> Poll<bool> {
        loop {
            ready!(self.pipe.poll_ready(context));
            if let Some(has_more) = self.read(lines) {
                return Poll::Ready(has_more);
            }
        }
    }

    /// `None`: there was nothing after all.
    fn read(&mut self, lines: &mut Vec<String>) -> Option<bool> {
        let mut chunk = Vec::with_capacity(CHUNK);
        match self.pipe.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Ok(0) | Err(_) => {
                self.lines.finish(lines);
                Some(false)
            }
            Ok(_) => {
                self.lines.take(&chunk, lines);
                Some(true)
            }
        }
    }

    /// Adds what is there now, at most a pipe full, and an unfinished last line,
    /// without waiting: for when the process has been reaped. Whoever still
    /// writes to the pipe can be listened to further by `next`.
    pub(crate) fn rest(&mut self, lines: &mut Vec<String>) {
        let mut rest = Vec::new();
        self.pipe.read_now(&mut rest);
        self.lines.take(&rest, lines);
        self.lines.finish(lines);
    }
}

/// Cuts bytes, however they come in, into lines of text.
#[derive(Debug, Default)]
struct Lines {
    /// The line so far, without what was split off.
    line: Vec<u8>,
    weight: usize,
    /// Something was split off the line.
    is_split: bool,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], lines: &mut Vec<String>) {
        for &byte in bytes {
            if byte == b'\n' {
                let is_empty_rest = self.is_split && matches!(self.line.as_slice(), [] | b"\r");
                self.end(!is_empty_rest, lines);
                continue;
            }
            if self.weight + weight(byte) > LINE_WEIGHT {
                self.split(lines);
            }
            self.line.push(byte);
            self.weight += weight(byte);
        }
    }

    /// Adds the line as far as it goes, but not half a character.
    fn split(&mut self, lines: &mut Vec<String>) {
        let whole = self.line.len() - unfinished(&self.line);
        let rest = self.line.split_off(whole);
        lines.push(String::from_utf8_lossy(&self.line).into_owned());
        self.weight = rest.len();
        self.line = rest;
        self.is_split = true;
    }

    /// Adds a last line without a line feed.
    fn finish(&mut self, lines: &mut Vec<String>) {
        self.end(!matches!(self.line.as_slice(), [] | b"\r"), lines);
    }

    fn end(&mut self, is_line: bool, lines: &mut Vec<String>) {
        if is_line {
            let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
            lines.push(String::from_utf8_lossy(line).into_owned());
        }
        self.line.clear();
        self.weight = 0;
        self.is_split = false;
    }
}

/// In JSON a control character is `\u0000`, twice as long as anything else that
/// comes of one byte, such as U+FFFD.
fn weight(byte: u8) -> usize {
    match byte {
        b'\t' | b'\r' | b' '.. => 1,
        _ => 2,
    }
}

/// How many bytes at the end are the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    let is_beginning = |count: &usize| {
        let last = bytes.len().checked_sub(*count).and_then(|from| bytes.get(from..));
        let error = last.and_then(|last| str::from_utf8(last).err());
        error.is_some_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    (1..=3).find(is_beginning).unwrap_or(0)
}

#[cfg(test)]
mod tests;

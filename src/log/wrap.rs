//! The child's lines in the form of castoff's.
//!
//! Owns what becomes of each line of one stream: wrapped, merged or split. It
//! reads no clock, no descriptor and no setting but the style, and its output
//! depends on the bytes alone, not on how they were cut into reads. A line of
//! output is never longer than `LINE_MAX`, nor is what it holds back of a line
//! that is not finished.
//!
//! - A line is what ends with LF, and whatever is left at the end of the stream.
//!   A CR before the LF is part of the end. An empty line is a line.
//! - **Text** becomes the message, with a time, a level (stdout: INFO, stderr:
//!   ERROR), the stream and the common fields. Control characters, colours among
//!   them, are escaped; each maximal part that is no UTF-8 becomes one U+FFFD.
//! - **A JSON object** alone on its line, white space around it allowed, keeps its
//!   members byte for byte and in order; castoff's come before them. *Where both
//!   have a name, the program's stays and castoff's is left out.* Names count at
//!   the top level only, and as they read, not as they are spelt.
//!   - The time is left out when the program has one under any usual name; in the
//!     format `ecs` only when it has an `@timestamp`, which is asked for there.
//!   - The level is added under the format's name unless the program has that very
//!     name. It is the program's when it has one under another usual name whose
//!     value is understood: a word such as `warning`, `CRIT` or `panic` in any
//!     case, or a number of Bunyan's and pino's. The first of several counts.
//!     Otherwise it is that of the stream.
//!   - The message is copied under the format's name, unless the program has that
//!     name, from the first of `msg`, `message`, `Message`, `Body`, `@m`, `text`
//!     and `event` that is a string. Otherwise there is none.
//!   - The format `otel` puts the program's members into `Attributes`, its time
//!     among them, unless the object has a `Body` or a `SeverityText` and so is
//!     such a record itself.
//!   - What readers of JSON may refuse is text: halves of surrogate pairs, numbers
//!     of 200 bytes or with an exponent of three digits, more than 126 levels. So is an object that would be too long
//!     for a line, and every object in the format `text`.
//! - **A long line** is split, never within a character or an escape: each piece is
//!   a line of its own, marked by `partial_message` (always "true"), `partial_id`
//!   (the same for all pieces of a line, 32 hexadecimal digits), `partial_ordinal`
//!   (from "1") and `partial_last` ("true" or "false"), all of them strings, as
//!   Docker's driver for Fluentd marks them and as Fluent Bit's multiline filter
//!   and Fluentd's concat filter want them. The messages in order are the line. In
//!   the format `text` a piece that is continued has `partial=1`.
//! - **The format `text`** is for people: what is no control character stays as it
//!   is, and so do tabs. Fields follow the text.

mod escape;
mod fields;
mod merge;
mod object;
mod words;

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_micros;
use memchr::memchr;

use self::escape::Escape;
use self::fields::{Fields, quoted};
use self::merge::Merge;
use super::value::Value;
use crate::policy::log_style::{LogFormat, LogStyle, Stream};

/// The longest line of output, its newline included: one below the 16 KiB at
/// which container runtimes tear (containerd's `max_container_log_line_size`,
/// moby's copier).
const LINE_MAX: usize = 16 * 1024 - 1;

/// A line of the program that is longer cannot be one line of output.
const INPUT_MAX: usize = LINE_MAX;

/// The carry is never fuller: there is always room to see that a line is longer
/// than `INPUT_MAX` and that its last byte is no CR before an LF.
const CARRY_MAX: usize = INPUT_MAX + 2;

/// Bytes of the common fields, so that a piece has some of the line on it. One
/// that finds no room is left out.
const COMMON_MAX: usize = 8 * 1024;

/// The longest rendered time: nanoseconds since the epoch are up to 20 digits,
/// RFC 3339 with microseconds has 27.
const TIME_MAX: usize = 27;

/// Bytes beyond a full piece that prove that it is not the last: the unfinished
/// sequence or CR at their end may be three, and one more is needed.
const BEYOND: usize = 4;

/// What is left of the calendar of RFC 3339: the last second of the year 9999.
const LAST_SECOND: Duration = Duration::from_secs(253_402_300_799);

/// Wraps the lines of one stream.
pub(crate) struct Wrapper {
    format: LogFormat,
    stream: Stream,
    escape: Escape,
    merge: Merge,
    /// A line is `opening`, time, `head`, text, `tail`, marks of a piece, `end`.
    opening: String,
    head: String,
    tail: String,
    end: String,
    /// Bytes of escaped text that a whole line and a piece have room for.
    room: usize,
    piece_room: usize,
    /// The time of which these are: `opening`, time and `head`; the member of an
    /// object.
    now: Option<SystemTime>,
    start: String,
    time: String,
    /// Of a line whose end is not known: what was not put out yet.
    carry: Vec<u8>,
    /// Of a line of which a piece was put out.
    split: Option<Split>,
    splits: u64,
    lines: u64,
}

/// The marks of the next piece.
struct Split {
    id: String,
    ordinal: u64,
}

/// What follows the bytes at hand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// More of the same line, or its end.
    Unknown,
    LineFeed,
    EndOfStream,
}

impl Wrapper {
    pub(crate) fn new(style: &LogStyle, stream: Stream) -> Self {
        let format = style.format;
        let mut left = COMMON_MAX;
        let common = style.common().filter(|(name, value)| {
            // With colon and comma, or space and equals sign.
            let bytes = quoted(name).len() + quoted(value).len().max(bare(value).len()) + 2;
            let has_room = bytes <= left;
            left -= if has_room { bytes } else { 0 };
            has_room
        });
        let common: Vec<_> = common.collect();
        let mut fields = Fields::default();
        for (name, value) in &common {
            fields.add_text(name, value);
        }
        let common_json = fields.joined();
        let level = format.level(stream.severity());
        let (level_key, message_key) = (format.level_key(), format.message_key());
        let stream_member = format!("\"{}\":\"{}\"", format.stream_key(), stream.as_str());
        let opening = match format {
            LogFormat::Text => String::new(),
            _ => format!("{{\"{}\":\"", format.time_key()),
        };
        let head = match format {
            LogFormat::Text => format!(" {level:<5} "),
            LogFormat::Otel => format!(
                "\",\"{level_key}\":\"{level}\",\"SeverityNumber\":{},\"{message_key}\":\"",
                stream.severity().number()
            ),
            _ => format!("\",\"{level_key}\":\"{level}\",\"{message_key}\":\""),
        };
        let tail = match format {
            LogFormat::Text => format!(" stream={}", stream.as_str()),
            LogFormat::Otel => format!("\",\"Attributes\":{{{stream_member}"),
            LogFormat::Ecs => {
                format!("\",\"ecs.version\":\"{}\",{stream_member}", LogFormat::ECS_VERSION)
            }
            LogFormat::Json | LogFormat::Gcp => format!("\",{stream_member}"),
        };
        let end = match format {
            LogFormat::Text => {
                let field = |(name, value): &(&str, &str)| format!(" {name}={}", bare(value));
                common.iter().map(field).chain(["\n".to_owned()]).collect()
            }
            LogFormat::Otel if common.is_empty() => "}}\n".to_owned(),
            LogFormat::Otel => format!("}},\"Resource\":{{{common_json}}}}}\n"),
            _ if common.is_empty() => "}\n".to_owned(),
            _ => format!(",{common_json}}}\n"),
        };
        let constant = opening.len() + TIME_MAX + head.len() + tail.len() + end.len();
        let longest = Split { id: id(stream, u64::MAX, SystemTime::UNIX_EPOCH), ordinal: u64::MAX };
        let marks = longest.marks(format, false).len();
        Self {
            format,
            stream,
            escape: if format == LogFormat::Text { Escape::TEXT } else { Escape::JSON },
            merge: Merge::new(style, stream, fields),
            opening,
            head,
            tail,
            end,
            room: LINE_MAX.saturating_sub(constant),
            piece_room: LINE_MAX.saturating_sub(constant + marks),
            now: None,
            start: String::new(),
            time: String::new(),
            carry: Vec::new(),
            split: None,
            splits: 0,
            lines: 0,
        }
    }

    /// Takes what was read, in order, and appends whole lines to `out` until that
    /// has `out_max` bytes or more, by one line at most, or all is taken. Returns
    /// how many bytes it took; the rest is to be offered again. It may be 0 though
    /// a line was appended, and is never 0 when none was, unless `out` was full.
    pub(crate) fn wrap(
        &mut self,
        input: &[u8],
        now: SystemTime,
        out: &mut Vec<u8>,
        out_max: usize,
    ) -> usize {
        self.set_time(now);
        let mut taken = 0;
        while out.len() < out_max {
            let rest = input.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            taken += if self.carry.is_empty() {
                self.take(rest, out, out_max)
            } else {
                self.take_to_carry(rest, out, out_max)
            };
        }
        taken
    }

    /// The stream has ended: an unfinished last line, if there is one. What comes
    /// after is a stream of its own.
    pub(crate) fn finish(&mut self, now: SystemTime, out: &mut Vec<u8>) {
        self.set_time(now);
        let line = std::mem::take(&mut self.carry);
        if !line.is_empty() {
            self.put(&line, Next::EndOfStream, out, usize::MAX);
        }
    }

    /// Lines of the program so far; the pieces of one count once, with the last.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// From the input alone, without a copy. Returns how many bytes it took.
    fn take(&mut self, input: &[u8], out: &mut Vec<u8>, out_max: usize) -> usize {
        if let Some(end) = memchr(b'\n', input) {
            let line = input.get(..end).unwrap_or_default();
            let used = self.put(line, Next::LineFeed, out, out_max);
            return used.unwrap_or_else(|| end + 1);
        }
        let used = self.put(input, Next::Unknown, out, out_max).unwrap_or(input.len());
        let rest = input.get(used..).unwrap_or_default();
        if rest.len() > CARRY_MAX {
            return used; // `out` is full
        }
        self.carry.extend_from_slice(rest);
        input.len()
    }

    /// From the carry and as much of the input as has room there. A newline is
    /// taken when its line is out, and not before.
    fn take_to_carry(&mut self, input: &[u8], out: &mut Vec<u8>, out_max: usize) -> usize {
        let room = CARRY_MAX.saturating_sub(self.carry.len());
        let input = input.get(..room.max(1)).unwrap_or(input);
        let end = memchr(b'\n', input);
        let added = input.get(..end.unwrap_or(input.len())).unwrap_or_default();
        let next = if end.is_some() { Next::LineFeed } else { Next::Unknown };
        let mut line = std::mem::take(&mut self.carry);
        line.extend_from_slice(added);
        let used = self.put(&line, next, out, out_max);
        match used {
            Some(used) => drop(line.drain(..used)),
            None => line.clear(),
        }
        self.carry = line; // with its room
        added.len() + usize::from(used.is_none())
    }

    /// Appends what can be known of the line at hand, while `out` has room, and
    /// returns how many of its bytes that is: less than all, or none for the line
    /// as a whole.
    fn put(
        &mut self,
        bytes: &[u8],
        next: Next,
        out: &mut Vec<u8>,
        out_max: usize,
    ) -> Option<usize> {
        let without_cr = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let line = if next == Next::LineFeed { without_cr } else { bytes };
        if self.split.is_none() {
            // Until a line is too long or at its end it might be an object.
            if next == Next::Unknown && without_cr.len() <= INPUT_MAX {
                return Some(0);
            }
            if line.len() <= INPUT_MAX && self.put_whole(line, out) {
                self.lines += 1;
                return None;
            }
            self.splits += 1;
            let now = self.now.unwrap_or(SystemTime::UNIX_EPOCH);
            self.split = Some(Split { id: id(self.stream, self.splits, now), ordinal: 1 });
        }
        let mut used = 0;
        while out.len() < out_max {
            let rest = line.get(used..).unwrap_or_default();
            if next == Next::Unknown && rest.len() <= self.piece_room + BEYOND {
                break;
            }
            let (taken, is_last) = self.put_piece(rest, next, out);
            used += taken;
            if is_last {
                self.split = None;
                self.lines += 1;
                return None;
            }
        }
        Some(used)
    }

    /// Appends the line as one, when there is room for it.
    fn put_whole(&mut self, line: &[u8], out: &mut Vec<u8>) -> bool {
        let from = out.len();
        if self.format != LogFormat::Text && is_like_object(line) {
            let is_object = self.merge.push(line, self.time.as_bytes(), out);
            if is_object && out.len() - from <= LINE_MAX {
                return true;
            }
            out.truncate(from);
        }
        if line.len() > self.room {
            return false;
        }
        out.extend_from_slice(self.start.as_bytes());
        if self.escape.push(line, self.room, true, out) < line.len() {
            out.truncate(from);
            return false;
        }
        out.extend_from_slice(self.tail.as_bytes());
        out.extend_from_slice(self.end.as_bytes());
        true
    }

    /// Appends the next piece. Returns how many bytes are on it, and whether it
    /// is the last.
    fn put_piece(&mut self, rest: &[u8], next: Next, out: &mut Vec<u8>) -> (usize, bool) {
        out.extend_from_slice(self.start.as_bytes());
        // No byte gets shorter on its way, so that more than this has no room.
        let most = rest.get(..self.piece_room + BEYOND).unwrap_or(rest);
        let is_all = most.len() == rest.len() && next != Next::Unknown;
        let taken = self.escape.push(most, self.piece_room, is_all, out);
        let is_last = is_all && taken == rest.len();
        out.extend_from_slice(self.tail.as_bytes());
        if let Some(split) = &mut self.split {
            out.extend_from_slice(split.marks(self.format, is_last).as_bytes());
            split.ordinal += 1;
        }
        out.extend_from_slice(self.end.as_bytes());
        (taken, is_last)
    }

    fn set_time(&mut self, now: SystemTime) {
        if self.now == Some(now) {
            return;
        }
        self.now = Some(now);
        self.start.clear();
        self.start.push_str(&self.opening);
        // Writing to a String cannot fail, and humantime cannot on its calendar.
        let _ = if self.format == LogFormat::Otel {
            write!(self.start, "{}", nanoseconds(now))
        } else {
            let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let time = SystemTime::UNIX_EPOCH + since.min(LAST_SECOND);
            write!(self.start, "{}", format_rfc3339_micros(time))
        };
        self.time.clear();
        if let Some(member) = self.start.strip_prefix('{') {
            self.time.push_str(member);
            self.time.push_str("\",");
        }
        self.start.push_str(&self.head);
    }
}

impl Split {
    fn marks(&self, format: LogFormat, is_last: bool) -> String {
        let Self { id, ordinal } = self;
        match format {
            LogFormat::Text if is_last => String::new(),
            LogFormat::Text => " partial=1".to_owned(),
            _ => format!(
                ",\"partial_message\":\"true\",\"partial_id\":\"{id}\",\
                 \"partial_ordinal\":\"{ordinal}\",\"partial_last\":\"{is_last}\""
            ),
        }
    }
}

/// The id of a line that is split: the time of its first piece, its stream, and
/// how many there were. None is the beginning of another, which is how Fluent
/// Bit compares them.
fn id(stream: Stream, count: u64, now: SystemTime) -> String {
    let stream = match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    format!("{:016x}{stream:x}{:015x}", nanoseconds(now), count & (u64::MAX >> 4))
}

/// Since the epoch; they last until the year 2554.
fn nanoseconds(now: SystemTime) -> u64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether the line begins and ends like a JSON object.
fn is_like_object(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    line.first() == Some(&b'{') && line.last() == Some(&b'}')
}

/// The value of a field on a line for people, as castoff's own lines have it.
fn bare(value: &str) -> String {
    Value { value: &value, limit: usize::MAX }.to_string()
}

#[cfg(test)]
mod tests;

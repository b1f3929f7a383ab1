//! One log line: an object of JSON, or words for people, in a buffer of its final
//! size.
//!
//! Owns the form that readers of the log rely on: time, level, message and event
//! first, then the event's fields, then the common ones; and the length. A line is
//! shorter than `PIPE_BUF` whatever the values are, so that the kernel never mixes
//! it with what the child writes to the same pipe (`man 7 pipe`), and the common
//! fields always have their room. It allocates nothing and never writes to a
//! descriptor.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::time::SystemTime;

use humantime::format_rfc3339_micros;
use serde::Serialize;
use tracing::Level;

use super::style::{self, FIELDS_MAX, Style, severity};
use super::value::{Escaped, Value};
use crate::policy::log_style::LogFormat;

/// The longest line in bytes, its newline included: one below `PIPE_BUF`.
pub(super) const MAX_LEN: usize = 4095;

/// Text is cut to no less than this many bytes; a field that does not fit even
/// then is left out. With texts of this length what leads always fits.
const SHORTEST_TEXT: usize = 16;

/// The same for a message and the name of an event: fixed phrases, which are
/// shorter.
const SHORTEST_PHRASE: usize = 128;

pub(super) struct Line {
    style: &'static Style,
    bytes: [u8; MAX_LEN],
    len: usize,
    /// What comes later has its room behind this one.
    end: usize,
    /// The most bytes of escaped text that a value gets.
    text_limit: usize,
    /// Every field had room so far.
    is_complete: bool,
    /// The fields of the event have begun.
    is_open: bool,
    /// Common fields, by their place, whose name the event has as well. The
    /// event's stands, for its names are the log's contract.
    hidden: [bool; FIELDS_MAX],
    has_hidden: bool,
}

impl Line {
    /// A line of castoff's at this moment. `fill` adds its message, its event and
    /// its fields, in this order.
    pub(super) fn now(level: Level, fill: &dyn Fn(&mut Self)) -> Self {
        Self::new(style::current(), SystemTime::now(), level, fill)
    }

    /// The same in any style and at any time.
    ///
    /// When what `fill` adds has no room, it is called again with half as much
    /// text for each value, so that long values pay for it and short ones stay
    /// whole.
    pub(super) fn new(
        style: &'static Style,
        now: SystemTime,
        level: Level,
        fill: &dyn Fn(&mut Self),
    ) -> Self {
        let mut line = Self {
            style,
            bytes: [0; MAX_LEN],
            len: 0,
            end: 0,
            text_limit: MAX_LEN,
            is_complete: true,
            is_open: false,
            hidden: [false; FIELDS_MAX],
            has_hidden: false,
        };
        loop {
            line.begin(now, level);
            fill(&mut line);
            if line.is_complete || line.text_limit / 2 < SHORTEST_TEXT {
                line.finish();
                return line;
            }
            line.text_limit /= 2;
        }
    }

    /// The line with its newline.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Adds the fixed phrase.
    pub(super) fn message(&mut self, phrase: impl Display) {
        let format = self.style.format;
        if format == LogFormat::Text {
            let [bold, plain] = self.style.emphasis();
            let limit = self.text_limit.max(SHORTEST_PHRASE);
            let phrase = Escaped { value: &phrase, limit };
            self.part(&mut |line| write!(line, " {bold}{phrase}{plain}"));
            return;
        }
        self.leading(format.message_key(), &phrase);
        if format == LogFormat::Ecs {
            self.leading("ecs.version", &LogFormat::ECS_VERSION);
        }
    }

    /// Adds the name of the event.
    pub(super) fn event(&mut self, name: impl Display) {
        self.leading(self.style.format.event_key(), &name);
    }

    /// Adds a value that is text, as it prints itself.
    pub(super) fn text(&mut self, key: &str, value: impl Display) {
        let limit = self.text_limit;
        self.field(key, &mut |line| line.put_text(&value, limit));
    }

    /// Adds a number or a boolean.
    pub(super) fn value(&mut self, key: &str, value: impl Serialize) {
        self.field(key, &mut |line| Ok(serde_json::to_writer(line, &value)?));
    }

    /// Adds a value that is JSON already. Unlike a text it is never shortened, but
    /// in `Text`, where it is one.
    pub(super) fn json(&mut self, key: &str, value: &[u8]) {
        if self.style.format == LogFormat::Text {
            self.text(key, String::from_utf8_lossy(value));
        } else {
            self.field(key, &mut |line| line.write_all(value));
        }
    }
}

/// How a line is built.
impl Line {
    /// From the start, with what has to have room whatever follows.
    fn begin(&mut self, now: SystemTime, level: Level) {
        let Style { format, common, .. } = self.style;
        self.len = 0;
        self.end = MAX_LEN
            .saturating_sub(self.style.opening().len() + common.len() + self.style.closing().len());
        self.is_complete = true;
        self.is_open = false;
        self.hidden.fill(false);
        self.has_hidden = false;

        // humantime panics on times before the epoch.
        let now = now.max(SystemTime::UNIX_EPOCH);
        let time = format_rfc3339_micros(now);
        let word = format.level(severity(level));
        match format {
            LogFormat::Text => {
                let [colour, plain] = self.style.colour(level);
                let time = Escaped { value: &time, limit: MAX_LEN };
                let rest = 5_usize.saturating_sub(word.len());
                self.part(&mut |line| write!(line, "{time} {colour}{word}{plain}{:rest$}", ""));
                return;
            }
            LogFormat::Otel => {
                let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
                self.leading(format.time_key(), &nanos);
            }
            LogFormat::Json | LogFormat::Gcp | LogFormat::Ecs => {
                self.leading(format.time_key(), &time);
            }
        }
        self.leading(format.level_key(), &word);
        if *format == LogFormat::Otel {
            let number = severity(level).number();
            self.part(&mut |line| write!(line, ",\"SeverityNumber\":{number}"));
        }
    }

    /// One of the keys that all lines have.
    fn leading(&mut self, key: &str, value: &dyn Display) {
        let limit = self.text_limit.max(SHORTEST_PHRASE);
        self.part(&mut |line| {
            line.put_key("", key)?;
            line.put_text(value, limit)
        });
    }

    /// A field of the event.
    fn field(&mut self, key: &str, put: &mut dyn FnMut(&mut Self) -> io::Result<()>) {
        self.open();
        let prefix = self.style.prefix();
        let is_there = self.part(&mut |line| {
            line.put_key(prefix, key)?;
            put(line)
        });
        if is_there {
            let is_this = |name: &str| name.strip_prefix(prefix) == Some(key);
            let at = self.style.fields.iter().position(|(name, _)| is_this(name));
            if let Some(hidden) = at.and_then(|at| self.hidden.get_mut(at)) {
                *hidden = true;
                self.has_hidden = true;
            }
        }
    }

    /// Ends what leads, once.
    fn open(&mut self) {
        if !self.is_open {
            self.is_open = true;
            let opening = self.style.opening();
            self.end += opening.len();
            self.part(&mut |line| line.write_all(opening));
        }
    }

    /// The common fields and the end, into the room that was kept for them.
    fn finish(&mut self) {
        self.open();
        self.end = MAX_LEN;
        let Style { common, fields, .. } = self.style;
        if self.has_hidden {
            let mut from = 0;
            for (at, (_, to)) in fields.iter().enumerate() {
                if self.hidden.get(at) != Some(&true) {
                    let field = common.get(from..*to).unwrap_or_default();
                    self.part(&mut |line| line.write_all(field));
                }
                from = *to;
            }
        } else {
            self.part(&mut |line| line.write_all(common));
        }
        let closing = self.style.closing();
        self.part(&mut |line| line.write_all(closing));
    }

    /// All of it, or nothing: whether it had room.
    fn part(&mut self, put: &mut dyn FnMut(&mut Self) -> io::Result<()>) -> bool {
        let before = self.len;
        let is_there = put(self).is_ok();
        if !is_there {
            self.len = before;
            self.is_complete = false;
        }
        is_there
    }

    /// Keys are words of castoff's own: nothing in them needs an escape.
    fn put_key(&mut self, prefix: &str, key: &str) -> io::Result<()> {
        if self.style.format == LogFormat::Text {
            return write!(self, " {prefix}{key}=");
        }
        self.write_all(match self.as_bytes().last() {
            None => b"{\"",
            Some(b'{') => b"\"",
            Some(_) => b",\"",
        })?;
        self.write_all(prefix.as_bytes())?;
        self.write_all(key.as_bytes())?;
        self.write_all(b"\":")
    }

    fn put_text(&mut self, value: &dyn Display, limit: usize) -> io::Result<()> {
        let value = Value { value, limit };
        if self.style.format == LogFormat::Text {
            write!(self, "{value}")
        } else {
            Ok(serde_json::to_writer(self, &value)?)
        }
    }
}

/// All or nothing, and never into the room of what comes later.
impl io::Write for Line {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        let end = self.len + part.len();
        match self.bytes.get_mut(self.len..end) {
            Some(room) if end <= self.end => room.copy_from_slice(part),
            _ => return Err(io::ErrorKind::WriteZero.into()),
        }
        self.len = end;
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;

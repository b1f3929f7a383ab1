//! The form of every line: its format, whether it has colours, and what stands on
//! each, as the bytes that are copied there.
//!
//! Owns the bound of what is common to all lines and the style that castoff's own
//! have. Everything here is made once; a line only reads it.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing::Level;

use super::value::Value;
use crate::policy::log_style::{LogFormat, LogStyle, Severity};

/// Bytes that the common fields may take of a line.
pub(super) const COMMON_MAX: usize = 2048;

/// So many common fields there can be: none is shorter than ` a=""`.
pub(super) const FIELDS_MAX: usize = COMMON_MAX / 5;

/// Common values are cut to no less than this many bytes; a field that does not
/// fit even then is left out.
const SHORTEST_VALUE: usize = 16;

/// A list in a line gets this many bytes when nothing is common to all lines, so
/// that everything else has room.
const LIST_MAX: usize = 3072;

/// That of castoff's own lines, from `establish` on.
static CURRENT: OnceLock<Style> = OnceLock::new();

static PLAIN: Style = Style {
    format: LogFormat::Json,
    is_coloured: false,
    common: Vec::new(),
    fields: Vec::new(),
    is_cut: false,
};

#[derive(Debug)]
pub(super) struct Style {
    pub(super) format: LogFormat,
    pub(super) is_coloured: bool,
    /// What follows the fields of an event, but for `closing`.
    pub(super) common: Vec<u8>,
    /// Which names are in it, and where each of their fields ends. None in `Otel`:
    /// there they are in an object of their own.
    pub(super) fields: Vec<(String, usize)>,
    /// Something was too long for `COMMON_MAX`.
    pub(super) is_cut: bool,
}

/// That of castoff's own lines; JSON with nothing in common before `establish`.
pub(super) fn current() -> &'static Style {
    CURRENT.get().unwrap_or(&PLAIN)
}

/// Sets it, once.
pub(super) fn establish(style: Style) -> &'static Style {
    CURRENT.get_or_init(|| style)
}

/// Whether lines on standard error are for the eyes: a terminal that knows
/// colours, of somebody who wants them (no-color.org).
pub(super) fn has_colours() -> bool {
    let is_set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let knows_them = |term: OsString| term != "dumb";
    io::stderr().is_terminal()
        && is_set("NO_COLOR").is_none()
        && is_set("TERM").is_some_and(knows_them)
}

impl Style {
    /// Colours are for `Text` only.
    pub(super) fn new(style: &LogStyle, has_colours: bool) -> Self {
        let mut limit = COMMON_MAX;
        let mut made = Self {
            format: style.format,
            is_coloured: has_colours && style.format == LogFormat::Text,
            common: Vec::new(),
            fields: Vec::new(),
            is_cut: false,
        };
        // Half as much for each value until all of them have room, so that long
        // ones pay for it and short ones stay whole.
        while !made.take_in(style, limit) && limit / 2 >= SHORTEST_VALUE {
            limit /= 2;
        }
        made
    }

    /// Whether all common fields had room, with values of `limit` bytes.
    fn take_in(&mut self, style: &LogStyle, limit: usize) -> bool {
        self.common.clear();
        self.fields.clear();
        let mut is_whole = true;
        for (name, value) in style.common() {
            let value = Value { value: &value, limit };
            let field = match self.format {
                LogFormat::Text => Some(format!(" {name}={value}")),
                _ => serde_json::to_string(&value).ok().map(|value| {
                    let is_first = self.format == LogFormat::Otel && self.common.is_empty();
                    let before = if is_first { "},\"Resource\":{" } else { "," };
                    format!("{before}\"{name}\":{value}")
                }),
            };
            match field {
                Some(field) if self.common.len() + field.len() < COMMON_MAX => {
                    self.common.extend_from_slice(field.as_bytes());
                    if self.format != LogFormat::Otel {
                        self.fields.push((name.to_owned(), self.common.len()));
                    }
                }
                _ => {
                    self.is_cut = true;
                    is_whole = false;
                }
            }
        }
        if self.format == LogFormat::Otel {
            self.common.push(b'}');
        }
        is_whole
    }

    /// What stands between the four leading keys and the fields of an event.
    pub(super) fn opening(&self) -> &'static [u8] {
        match self.format {
            LogFormat::Otel => br#","Attributes":{"#,
            LogFormat::Json | LogFormat::Text | LogFormat::Gcp | LogFormat::Ecs => b"",
        }
    }

    /// The end of every line.
    pub(super) fn closing(&self) -> &'static [u8] {
        match self.format {
            LogFormat::Text => b"\n",
            LogFormat::Json | LogFormat::Gcp | LogFormat::Ecs | LogFormat::Otel => b"}\n",
        }
    }

    /// What the names of an event's fields begin with. The schema of `Ecs` has
    /// names for so much that castoff's own get a room to themselves.
    pub(super) fn prefix(&self) -> &'static str {
        match self.format {
            LogFormat::Ecs => "castoff.",
            LogFormat::Json | LogFormat::Text | LogFormat::Gcp | LogFormat::Otel => "",
        }
    }

    /// Bytes of JSON that a list in a line may have. In `Text` its quotes are
    /// escaped.
    pub(super) fn list_max(&self) -> usize {
        let max = LIST_MAX.saturating_sub(self.common.len());
        if self.format == LogFormat::Text { max / 2 } else { max }
    }

    /// What stands before and behind the word for a level.
    pub(super) fn colour(&self, level: Level) -> [&'static str; 2] {
        self.around(match severity(level) {
            Severity::Trace => "\x1b[35m",
            Severity::Debug => "\x1b[34m",
            Severity::Info => "\x1b[32m",
            Severity::Warn => "\x1b[33m",
            Severity::Error | Severity::Fatal => "\x1b[31m",
        })
    }

    /// What stands before and behind a message.
    pub(super) fn emphasis(&self) -> [&'static str; 2] {
        self.around("\x1b[1m")
    }

    fn around(&self, start: &'static str) -> [&'static str; 2] {
        if self.is_coloured { [start, "\x1b[0m"] } else { [""; 2] }
    }
}

/// What a level of tracing is called here.
pub(super) fn severity(level: Level) -> Severity {
    match level {
        Level::ERROR => Severity::Error,
        Level::WARN => Severity::Warn,
        Level::INFO => Severity::Info,
        Level::DEBUG => Severity::Debug,
        Level::TRACE => Severity::Trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::reading::FORMATS;
    use crate::policy::log_style::Identity;

    fn style(format: LogFormat, fields: Vec<(String, String)>, name: &str) -> Style {
        let name = || Some(name.to_owned());
        let identity = Identity { pod: name(), namespace: name(), node: name() };
        Style::new(&LogStyle { format, fields, identity }, false)
    }

    fn text_of(style: &Style) -> &str {
        assert!(style.common.len() <= COMMON_MAX, "{} bytes", style.common.len());
        std::str::from_utf8(&style.common).unwrap()
    }

    #[test]
    fn long_common_values_pay_for_the_room_and_short_ones_stay_whole() {
        let fields =
            || vec![("long".into(), "\u{1}".repeat(1000)), ("short".into(), "s".repeat(20))];
        for format in FORMATS {
            let style = style(format, fields(), &"\u{10ffff}".repeat(253));
            let text = text_of(&style);
            assert!(
                style.is_cut && text.contains(&"s".repeat(20)) && text.matches('…').count() == 4,
                "{text}"
            );
        }
    }

    #[test]
    fn common_fields_without_room_are_left_out_last_first() {
        let fields = || (0..2000).map(|at| (format!("{at:x}"), String::new())).collect();
        for format in FORMATS {
            let style = style(format, fields(), "web-0");
            let text = text_of(&style);
            assert!(style.is_cut && text.matches("web-0").count() == 3, "{text}");
            let first = if format == LogFormat::Text { " 1f=" } else { ",\"1f\":" };
            assert!(text.contains(first), "{text}");
            assert!(style.fields.len() <= FIELDS_MAX);
        }
    }

    #[test]
    fn what_the_settings_allow_is_whole_in_plain_words() {
        for format in FORMATS {
            let fields = (0..9).map(|at| (format!("name_{at}"), "v".repeat(107))).collect();
            let style = style(format, fields, &"n".repeat(253));
            assert!(!style.is_cut && !text_of(&style).contains('…'), "{format:?}");
        }
    }
}

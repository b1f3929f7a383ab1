//! One log line: a flat JSON object in a buffer of its final size.
//!
//! Owns the form that readers of the log rely on: `time` and `level` first, the
//! escaping (serde_json's) and the length. A line is valid JSON and shorter than
//! `PIPE_BUF` whatever the values are, so that the kernel never mixes it with
//! what the child writes to the same pipe (`man 7 pipe`). It allocates nothing
//! and never writes to a descriptor.

use std::fmt::{self, Write as _};
use std::io;
use std::time::SystemTime;

use humantime::format_rfc3339_micros;
use serde::{Serialize, Serializer};
use tracing::Level;

/// The longest line in bytes, its newline included: one below `PIPE_BUF`.
pub(super) const MAX_LEN: usize = 4095;

const END: &[u8] = b"}\n";

/// Stands where text was cut off.
const CUT: &str = "…";

/// Text is cut to no less than this many bytes; a field that does not fit even
/// then is left out. With texts of this length the four leading keys always fit.
const SHORTEST_TEXT: usize = 16;

pub(super) struct Line {
    bytes: [u8; MAX_LEN],
    len: usize,
    /// The most bytes of escaped text that a value gets.
    text_limit: usize,
    /// Every field had room so far.
    is_complete: bool,
}

impl Line {
    /// A line of this level at this time, with the fields that `fill` adds.
    ///
    /// When they have no room, `fill` is called again with half as much text
    /// for each value, so that long values pay for it and short ones stay whole.
    pub(super) fn new(now: SystemTime, level: Level, fill: impl Fn(&mut Self)) -> Self {
        // humantime panics on times before the epoch.
        let time = format_rfc3339_micros(now.max(SystemTime::UNIX_EPOCH));
        let mut line = Self { bytes: [0; MAX_LEN], len: 0, text_limit: MAX_LEN, is_complete: true };
        loop {
            line.value("time", Text { value: format_args!("{time}"), limit: MAX_LEN });
            line.value("level", level.as_str());
            fill(&mut line);
            if line.is_complete || line.text_limit / 2 < SHORTEST_TEXT {
                let end = line.len;
                line.len += END.len();
                if let Some(room) = line.bytes.get_mut(end..line.len) {
                    room.copy_from_slice(END);
                }
                return line;
            }
            line.len = 0;
            line.is_complete = true;
            line.text_limit /= 2;
        }
    }

    /// The line with its newline.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Adds a value that is text, as it prints itself.
    pub(super) fn text(&mut self, key: &str, value: impl fmt::Display) {
        self.value(key, Text { value, limit: self.text_limit });
    }

    /// Adds a number or a boolean.
    pub(super) fn value(&mut self, key: &str, value: impl Serialize) {
        self.field(key, |line| Ok(serde_json::to_writer(line, &value)?));
    }

    /// Adds a value that is JSON already. Unlike a text it is never shortened.
    pub(super) fn json(&mut self, key: &str, value: &[u8]) {
        self.field(key, |line| io::Write::write_all(line, value));
    }

    fn field(&mut self, key: &str, write: impl FnOnce(&mut Self) -> io::Result<()>) {
        let before = self.len;
        if self.key(key).and_then(|()| write(self)).is_err() {
            self.len = before;
            self.is_complete = false;
        }
    }

    fn key(&mut self, key: &str) -> io::Result<()> {
        io::Write::write_all(self, if self.len == 0 { b"{" } else { b"," })?;
        serde_json::to_writer(&mut *self, key)?;
        io::Write::write_all(self, b":")
    }
}

/// All or nothing, and never into the room of `END`.
impl io::Write for Line {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        let end = self.len + part.len();
        match self.bytes.get_mut(self.len..end) {
            Some(room) if end <= MAX_LEN - END.len() => room.copy_from_slice(part),
            _ => return Err(io::ErrorKind::WriteZero.into()),
        }
        self.len = end;
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A value as a JSON string of at most `limit` bytes between the quotes, plus
/// the mark of the cut.
struct Text<T> {
    value: T,
    limit: usize,
}

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<T: fmt::Display> fmt::Display for Text<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cutter = Cutter { out, left: self.limit, state: Ok(true) };
        // A value that fails to print itself has printed what it could. Only
        // the writer's error may go up: serde_json panics on any other.
        let _ = write!(cutter, "{}", self.value);
        cutter.state.map(|_| ())
    }
}

struct Cutter<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    /// Bytes of escaped text that may still pass.
    left: usize,
    /// Whether text still passes, or the error that the writer gave.
    state: Result<bool, fmt::Error>,
}

impl fmt::Write for Cutter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !self.state? {
            return Ok(());
        }
        let mut fits = text.len();
        for (at, char) in text.char_indices() {
            match self.left.checked_sub(escaped_len(char)) {
                Some(left) => self.left = left,
                None => {
                    fits = at;
                    break;
                }
            }
        }
        let (kept, rest) = text.split_at_checked(fits).unwrap_or((text, ""));
        let written = self
            .out
            .write_str(kept)
            .and_then(|()| if rest.is_empty() { Ok(()) } else { self.out.write_str(CUT) });
        self.state = written.map(|()| rest.is_empty());
        written
    }
}

/// Bytes that serde_json needs for a character (RFC 8259, section 7).
fn escaped_len(char: char) -> usize {
    match char {
        '"' | '\\' | '\n' | '\r' | '\t' | '\x08' | '\x0c' => 2,
        '\0'..='\x1f' => 6,
        _ => char.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn line(fields: &[(String, String)]) -> Line {
        Line::new(UNIX_EPOCH + Duration::from_micros(1), Level::WARN, |line| {
            line.text("msg", "a phrase");
            line.text("event", "tested");
            for (key, value) in fields {
                line.text(key, value);
            }
            line.value("last", u64::MAX);
        })
    }

    /// The object in the line; its keys are checked as bytes, for serde_json's
    /// map does not keep their order.
    fn parse(line: &Line) -> Value {
        let text = std::str::from_utf8(line.as_bytes()).unwrap();
        assert!(text.len() <= MAX_LEN, "{} bytes", text.len());
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(text.ends_with("}\n"), "{text}");
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_line_has_the_form_of_the_contract() {
        let line = line(&[("why".into(), "said \"no\"\n\u{1}é".into())]);
        assert_eq!(
            std::str::from_utf8(line.as_bytes()).unwrap(),
            concat!(
                r#"{"time":"1970-01-01T00:00:00.000001Z","level":"WARN","msg":"a phrase","#,
                r#""event":"tested","why":"said \"no\"\n\u0001é","last":18446744073709551615}"#,
                "\n"
            )
        );
    }

    #[test]
    fn only_the_long_value_is_cut() {
        let short = "s".repeat(200);
        let line = line(&[("a".into(), short.clone()), ("b".into(), "é".repeat(9000))]);
        let fields = parse(&line);
        assert_eq!(fields["a"], short);
        assert_eq!(fields["b"], format!("{}…", "é".repeat(2047 / 2)));
        assert_eq!(fields["last"], u64::MAX);
    }

    #[test]
    fn json_is_taken_as_it_is_or_not_at_all() {
        let list = |count| format!("[{}0]", "0,".repeat(count)).into_bytes();
        let line = |count| {
            Line::new(UNIX_EPOCH, Level::WARN, |line| {
                line.text("long", "x".repeat(MAX_LEN));
                line.json("list", &list(count));
            })
        };
        let fields = parse(&line(1000));
        assert_eq!(fields["list"].as_array().unwrap().len(), 1001);
        assert_eq!(fields["long"], format!("{}…", "x".repeat(1023)));
        assert_eq!(parse(&line(3000)).get("list"), None);
    }

    #[test]
    fn a_clock_outside_of_the_calendar_does_not_panic() {
        for now in [UNIX_EPOCH - Duration::from_secs(1), UNIX_EPOCH + Duration::from_secs(1 << 40)]
        {
            parse(&Line::new(now, Level::INFO, |line| line.text("msg", "x")));
        }
    }

    #[test]
    fn a_value_that_cannot_print_itself_is_no_error() {
        struct Broken;
        impl fmt::Display for Broken {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("half")?;
                Err(fmt::Error)
            }
        }
        let line = Line::new(UNIX_EPOCH, Level::INFO, |line| line.text("v", Broken));
        assert_eq!(parse(&line)["v"], "half");
    }

    /// Short and long, with what JSON must escape and what is several bytes.
    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            // Escaped, it grows to six times this or stays; cut, it may end anywhere.
            (0..1400usize, any::<String>(), prop_oneof![Just('\u{1}'), Just('"'), any::<char>()])
                .prop_map(|(count, head, char)| {
                    head.chars().chain(std::iter::repeat_n(char, count)).collect()
                }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn any_values_give_one_short_line_of_json(
            msg in any_text(),
            event in any_text(),
            fields in proptest::collection::vec(("[a-z_]{1,20}", any_text()), 0..100),
        ) {
            let line = Line::new(UNIX_EPOCH, Level::ERROR, |line| {
                line.text("msg", &msg);
                line.text("event", &event);
                for (index, (key, value)) in fields.iter().enumerate() {
                    line.text(&format!("{key}{index}"), value);
                }
            });
            let object = parse(&line);
            let mut from = 0;
            let text = std::str::from_utf8(line.as_bytes()).unwrap();
            for key in ["time", "level", "msg", "event"] {
                let start = if key == "time" { '{' } else { ',' };
                let part = format!("{start}\"{key}\":{}", object[key]);
                prop_assert_eq!(text.get(from..from + part.len()), Some(part.as_str()));
                from += part.len();
            }
            for (index, (key, value)) in fields.iter().enumerate() {
                if let Some(kept) = object.get(format!("{key}{index}")) {
                    let kept = kept.as_str().unwrap();
                    let whole = kept == value;
                    let cut = kept.strip_suffix(CUT).is_some_and(|head| value.starts_with(head));
                    prop_assert!(whole || cut, "{:?} from {:?}", kept, value);
                }
            }
        }
    }
}

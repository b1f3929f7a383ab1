//! One value in a line: escaped as its format has it, and cut to its room.
//!
//! Owns the two escapings: JSON's, which is serde_json's, and that of `text`,
//! after which nothing is left that a terminal obeys. Nothing here allocates or
//! knows what else is on the line.

use std::fmt::{self, Display, Write as _};

use serde::{Serialize, Serializer};

/// Stands where text was cut off.
pub(super) const CUT: &str = "…";

/// How many bytes a character needs.
#[derive(Clone, Copy)]
enum Escaping {
    Json,
    Logfmt,
}

impl Escaping {
    fn len(self, char: char) -> usize {
        match (self, char) {
            (_, '"' | '\\' | '\n' | '\r' | '\t') | (Self::Json, '\x08' | '\x0c') => 2,
            // RFC 8259, section 7.
            (Self::Json, '\0'..='\x1f') => 6,
            (Self::Logfmt, char) if is_obeyed(char) => 6,
            _ => char.len_utf8(),
        }
    }
}

/// A terminal does something else with it than show it: C0, DEL and C1, the ends
/// of lines, and what turns the direction of the text around it.
fn is_obeyed(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A value of at most `limit` bytes between its quotes, plus the mark of the cut.
/// As JSON it is a string; it prints itself for `text`.
pub(super) struct Value<'a> {
    pub(super) value: &'a dyn Display,
    pub(super) limit: usize,
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Short { value: self.value, limit: self.limit })
    }
}

/// As in logfmt: quoted and escaped when it could not be told from what is around
/// it, else bare.
impl Display for Value<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut look = Look { is_empty: true, is_bare: true };
        let _ = write!(look, "{}", self.value);
        let quote = if look.is_empty || !look.is_bare { "\"" } else { "" };
        out.write_str(quote)?;
        Escaped { value: self.value, limit: self.limit }.fmt(out)?;
        out.write_str(quote)
    }
}

/// The same without quotes.
pub(super) struct Escaped<'a> {
    pub(super) value: &'a dyn Display,
    pub(super) limit: usize,
}

impl Display for Escaped<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        cut(self.value, self.limit, Escaping::Logfmt, &mut Escaper { out })
    }
}

/// What is cut to its room in JSON and escaped by somebody else.
struct Short<'a> {
    value: &'a dyn Display,
    limit: usize,
}

impl Display for Short<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        cut(self.value, self.limit, Escaping::Json, out)
    }
}

fn cut(
    value: &dyn Display,
    limit: usize,
    escaping: Escaping,
    out: &mut dyn fmt::Write,
) -> fmt::Result {
    let mut cutter = Cutter { out, left: limit, escaping, state: Ok(true) };
    // A value that fails to print itself has printed what it could. Only the
    // writer's error may go up: serde_json and std panic on any other.
    let _ = write!(cutter, "{value}");
    cutter.state.map(|_| ())
}

struct Cutter<'a> {
    out: &'a mut dyn fmt::Write,
    /// Bytes of escaped text that may still pass.
    left: usize,
    escaping: Escaping,
    /// Whether text still passes, or the error that the writer gave.
    state: Result<bool, fmt::Error>,
}

impl fmt::Write for Cutter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !self.state? {
            return Ok(());
        }
        let mut fits = text.len();
        for (at, char) in text.char_indices() {
            match self.left.checked_sub(self.escaping.len(char)) {
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

/// Escapes for `text`, with the escapes of JSON, which readers of logfmt know.
struct Escaper<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
}

impl fmt::Write for Escaper<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, char)) = rest.char_indices().find(|(_, char)| is_escaped(*char)) {
            let (plain, from) = rest.split_at_checked(at).unwrap_or((rest, ""));
            self.out.write_str(plain)?;
            match char {
                '"' => self.out.write_str("\\\"")?,
                '\\' => self.out.write_str("\\\\")?,
                '\n' => self.out.write_str("\\n")?,
                '\r' => self.out.write_str("\\r")?,
                '\t' => self.out.write_str("\\t")?,
                _ => write!(self.out, "\\u{:04x}", u32::from(char))?,
            }
            rest = from.get(char.len_utf8()..).unwrap_or_default();
        }
        self.out.write_str(rest)
    }
}

fn is_escaped(char: char) -> bool {
    matches!(char, '"' | '\\') || is_obeyed(char)
}

/// Looks through a value whether it needs quotes.
struct Look {
    is_empty: bool,
    is_bare: bool,
}

impl fmt::Write for Look {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.is_empty &= text.is_empty();
        self.is_bare &=
            !text.chars().any(|char| char == '=' || char.is_whitespace() || is_escaped(char));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_text_has_quotes_where_it_needs_them() {
        for (value, shown) in [
            ("web-0", "web-0"),
            ("é/…", "é/…"),
            ("", r#""""#),
            ("a b", r#""a b""#),
            ("a=b", r#""a=b""#),
            ("a\"b", r#""a\"b""#),
            ("a\\b", r#""a\\b""#),
            ("a\u{a0}b", "\"a\u{a0}b\""),
            ("a\r\n\tb", r#""a\r\n\tb""#),
            ("\u{1b}[2J\u{7}", r#""\u001b[2J\u0007""#),
            ("\u{7f}\u{9b}31m", r#""\u007f\u009b31m""#),
            ("\u{202e}txt.exe\u{2028}", r#""\u202etxt.exe\u2028""#),
        ] {
            assert_eq!(Value { value: &value, limit: 100 }.to_string(), shown);
        }
    }

    #[test]
    fn what_an_escape_needs_is_counted_and_no_escape_is_cut() {
        for (value, limit, shown) in [
            ("a\u{1b}b", 8, r#""a\u001bb""#),
            ("a\u{1b}b", 7, r#""a\u001b…""#),
            ("a\u{1b}b", 6, r#""a…""#),
            ("é", 1, "…"),
        ] {
            assert_eq!(Value { value: &value, limit }.to_string(), shown);
        }
        let json =
            |value: &str, limit| serde_json::to_string(&Value { value: &value, limit }).unwrap();
        assert_eq!(json("a\u{1b}b", 7), r#""a\u001b…""#);
        assert_eq!(json("a\u{1b}b", 6), r#""a…""#);
    }
}

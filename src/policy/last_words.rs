//! What the child has said last: the end of its stderr, as lines for people.
//!
//! Owns how much of it is kept, and what is left of it when everything that is no
//! text has gone: escape sequences of terminals, overwritten progress, control
//! characters. It sees each byte that the child writes, so `saw` only copies, and
//! no more than what is kept.

/// How many of the last bytes are looked at.
const KEPT: usize = 2048;

/// So many lines are told, the last ones.
const LINES: usize = 10;

/// Bytes of all of them together.
const TOLD: usize = 1024;

/// Stands in front of a line whose beginning is not told.
const CUT: &str = "…";

/// Tabs indent the frames of a stack trace.
const TAB: &str = "    ";

/// The end of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastWords {
    /// The last bytes, at most `2 * (KEPT + 1)`: small writes are appended, and
    /// the rest is moved once in a while only. One byte more than `KEPT` tells
    /// whether what is kept begins with a line.
    bytes: Vec<u8>,
}

impl LastWords {
    /// The stream went on with these.
    pub(crate) fn saw(&mut self, bytes: &[u8]) {
        let end = bytes.get(bytes.len().saturating_sub(KEPT + 1)..).unwrap_or_default();
        if end.len() > KEPT {
            self.bytes.clear();
        } else if self.bytes.len() + end.len() > 2 * (KEPT + 1) {
            self.bytes.drain(..self.bytes.len() - (KEPT + 1));
        }
        self.bytes.extend_from_slice(end);
    }

    /// Another child has not said anything yet.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// The last lines, oldest first: at most ten, together at most 1 KiB. None is
    /// empty at either end; `…` stands before a first one that was longer.
    pub(crate) fn lines(&self) -> Vec<String> {
        let begin = self.bytes.len().saturating_sub(KEPT);
        let (before, kept) = self.bytes.split_at_checked(begin).unwrap_or_default();
        let is_cut = before.last().is_some_and(|byte| *byte != b'\n');
        let mut whole: Vec<_> = kept.split(|byte| *byte == b'\n').map(readable).collect();
        if is_cut && let Some(first) = whole.first_mut() {
            // Half of a character is none.
            let rest = first.trim_start_matches(char::REPLACEMENT_CHARACTER);
            *first = if rest.is_empty() { String::new() } else { format!("{CUT}{rest}") };
        }
        let mut told = Vec::new();
        let mut room = TOLD;
        for line in whole.into_iter().rev().skip_while(String::is_empty).take(LINES) {
            let length = line.len();
            if length > room {
                told.extend(end_of(&line, room));
                break;
            }
            room -= length;
            told.push(line);
        }
        while told.last().is_some_and(String::is_empty) {
            told.pop();
        }
        told.reverse();
        told
    }
}

/// The end of a line in so many bytes, if that is anything.
fn end_of(line: &str, bytes: usize) -> Option<String> {
    let room = bytes.checked_sub(CUT.len())?;
    let end = line.get(line.ceil_char_boundary(line.len() - room)..)?;
    (!end.is_empty()).then(|| format!("{CUT}{end}"))
}

/// What a person would see of a line without its newline.
fn readable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let plain = without_escapes(&text);
    // What a carriage return has begun anew was overwritten.
    let last = plain.trim_end().rsplit('\r').next().unwrap_or_default();
    let mut readable = String::with_capacity(last.len());
    for c in last.chars() {
        match c {
            '\t' => readable.push_str(TAB),
            c if c.is_control() => readable.push('?'),
            c => readable.push(c),
        }
    }
    readable
}

/// The line without what is meant for a terminal (ECMA-48, sections 5.3 to 5.6):
/// colours and movements, titles and links. A sequence ends with its line at the
/// latest, so that nobody's words are lost to one that does not end.
fn without_escapes(line: &str) -> String {
    const ESCAPE: char = '\u{1b}';
    const BELL: char = '\u{7}';
    let mut plain = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c != ESCAPE {
            plain.push(c);
            continue;
        }
        match rest.next() {
            // A control sequence goes on to its final character.
            Some('[') => while rest.next().is_some_and(|c| matches!(c, ' '..='?')) {},
            // A control string goes on to `ESC \`, or a bell.
            Some(']' | 'P' | 'X' | '^' | '_') => {
                while let Some(c) = rest.next() {
                    if c == BELL || (c == ESCAPE && rest.next().is_none_or(|c| c == '\\')) {
                        break;
                    }
                }
            }
            // Others may have characters between, such as the `(` of a character set.
            Some(' '..='/') => while rest.next().is_some_and(|c| matches!(c, ' '..='/')) {},
            Some(_) | None => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests;

//! Text of the child inside a line of ours: valid UTF-8, one line, and nothing
//! lost that was valid.
//!
//! Owns the copying and the escapes, which are those of serde_json (RFC 8259,
//! section 7, the short form where there is one). Most text needs none, so that
//! eight bytes are looked at in one step. It knows nothing of lines.

/// What stands for one or more bytes that are no UTF-8.
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// The first byte of U+0080 to U+00BF. The first half of them is C1.
const C1_LEAD: u8 = 0xc2;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// What does not stand for itself: a byte that is less than `limit` once the
/// bits of `flip` are turned, and `other`. Each stands in every byte of its word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Escape {
    flip: u64,
    limit: u64,
    other: u64,
}

impl Escape {
    /// Inside of a JSON string: control characters, and the quote by the same
    /// test, for 0x22 is 0x20 without the bit 2; and the backslash.
    pub(super) const JSON: Self =
        Self { flip: ONES * 2, limit: ONES * 0x21, other: ONES * b'\\' as u64 };

    /// On a line for people: control characters, of which a tab is none, and what
    /// begins those of C1, which terminals obey. DEL they pass over.
    pub(super) const TEXT: Self =
        Self { flip: 0, limit: ONES * 0x20, other: ONES * C1_LEAD as u64 };

    /// Appends what has room in `room` bytes and returns how many bytes of the
    /// input that is; a character and its escape are never cut. Each maximal part
    /// that is no UTF-8 becomes one U+FFFD, as by `String::from_utf8_lossy`. An
    /// unfinished sequence at the end is such a part when the input `is_all`
    /// there will be, and otherwise is left.
    pub(super) fn push(self, bytes: &[u8], room: usize, is_all: bool, out: &mut Vec<u8>) -> usize {
        let end = out.len().saturating_add(room);
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            let (valid, invalid) = match std::str::from_utf8(rest) {
                Ok(_) => (rest.len(), 0),
                Err(error) => {
                    let unfinished = if is_all { rest.len() - error.valid_up_to() } else { 0 };
                    (error.valid_up_to(), error.error_len().unwrap_or(unfinished))
                }
            };
            let copied = self.push_valid(rest.get(..valid).unwrap_or_default(), end, out);
            taken += copied;
            if copied < valid || invalid == 0 || out.len() + REPLACEMENT.len() > end {
                return taken;
            }
            out.extend_from_slice(REPLACEMENT);
            taken += invalid;
        }
    }

    /// The same for valid UTF-8, until `out` is `end` bytes long.
    fn push_valid(self, text: &[u8], end: usize, out: &mut Vec<u8>) -> usize {
        let mut rest = text;
        loop {
            let clean = self.clean_len(rest);
            let mut fits = clean.min(end - out.len());
            if fits < clean {
                while rest.get(fits).is_some_and(|byte| byte & 0xc0 == 0x80) {
                    fits -= 1;
                }
            }
            let (head, tail) = rest.split_at_checked(fits).unwrap_or((rest, b""));
            out.extend_from_slice(head);
            rest = tail;
            let Some((byte, tail)) = rest.split_first().filter(|_| fits == clean) else { break };
            let (code, tail) = match tail.split_first() {
                Some((code, tail)) if *byte == C1_LEAD => (*code, tail),
                _ => (*byte, tail),
            };
            let (escape, len) = self.escape(code);
            let escape = escape.get(..len).unwrap_or_default();
            if out.len() + len > end {
                break;
            }
            out.extend_from_slice(escape);
            rest = tail;
        }
        text.len() - rest.len()
    }

    /// Bytes from the start that stand for themselves. Those above ASCII do.
    pub(super) fn clean_len(self, text: &[u8]) -> usize {
        let (words, _) = text.as_chunks::<8>();
        let mut at = 0;
        for word in words {
            let marks = self.marks(*word);
            if marks != 0 {
                return at + (marks.trailing_zeros() / 8) as usize;
            }
            at += word.len();
        }
        let rest = text.get(at..).unwrap_or_default();
        let is_special =
            |byte: &u8| self.marks([*byte, b'x', b'x', b'x', b'x', b'x', b'x', b'x']) != 0;
        at + rest.iter().position(is_special).unwrap_or(rest.len())
    }

    /// The high bit of each byte that does not stand for itself. A borrow may set
    /// one too many, but only above one that is right, so that the lowest is.
    #[inline(always)] // half of the time is spent here, and a call costs twice that
    fn marks(self, word: [u8; 8]) -> u64 {
        let word = u64::from_le_bytes(word);
        let flipped = word ^ self.flip;
        let other = word ^ self.other;
        let less = flipped.wrapping_sub(self.limit) & !flipped;
        let equal = other.wrapping_sub(ONES) & !other;
        (less | equal) & HIGH_BITS
    }

    /// The escape of a character below U+00C0 that may need one, and its length.
    fn escape(self, byte: u8) -> ([u8; 6], usize) {
        let short = |letter| ([b'\\', letter, 0, 0, 0, 0], 2);
        match byte {
            b'"' | b'\\' => short(byte),
            b'\t' if self == Self::TEXT => ([byte; 6], 1),
            b'\t' => short(b't'),
            b'\n' => short(b'n'),
            b'\r' => short(b'r'),
            0x08 => short(b'b'),
            0x0c => short(b'f'),
            0xa0.. => ([C1_LEAD, byte, 0, 0, 0, 0], 2), // behind those of C1
            _ => {
                let digit =
                    |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble };
                ([b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 0xf)], 6)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(escape: Escape, bytes: &[u8]) -> String {
        let mut out = Vec::new();
        assert_eq!(escape.push(bytes, usize::MAX, true, &mut out), bytes.len());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn people_get_tabs_quotes_and_backslashes_as_they_are() {
        let text = "a\tb \"c\" d\\e \u{a0}\u{bf}é \x1b[1mf\x1b[0m\0\r\x7f \u{80}\u{9b}2J\u{9f}";
        let expected = "a\tb \"c\" d\\e \u{a0}\u{bf}é \\u001b[1mf\\u001b[0m\\u0000\\r\x7f \
                        \\u0080\\u009b2J\\u009f";
        assert_eq!(whole(Escape::TEXT, text.as_bytes()), expected);
    }

    #[test]
    fn every_byte_is_found_at_every_place() {
        for byte in 0..=255 {
            for len in 1..70 {
                for at in 0..len {
                    let mut text = vec![b'x'; len];
                    text[at] = byte;
                    let is_special = byte < 0x20 || byte == b'"' || byte == b'\\';
                    let expected = if is_special { at } else { len };
                    assert_eq!(Escape::JSON.clean_len(&text), expected, "{byte} at {at}");
                }
            }
        }
    }

    /// Bytes that are text, nearly text, or anything.
    pub(super) fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            any::<String>().prop_map(String::into_bytes),
            "[ -~]{0,40}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..8),
            Just(b"\xe2\x82".to_vec()),
            Just(b"\xf0\x9f\x92".to_vec()),
        ];
        proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_what_serde_json_makes_of_the_lossy_text(bytes in any_bytes()) {
            let text = String::from_utf8_lossy(&bytes);
            let expected = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(format!("\"{}\"", whole(Escape::JSON, &bytes)), expected);
        }

        #[test]
        fn parts_that_have_room_give_the_whole(bytes in any_bytes(), room in 6usize..50) {
            let mut parts = Vec::new();
            let mut taken = 0;
            while taken < bytes.len() {
                let from = parts.len();
                let more = Escape::JSON.push(&bytes[taken..], room, true, &mut parts);
                prop_assert!(more > 0 && parts.len() - from <= room);
                prop_assert!(std::str::from_utf8(&parts[from..]).is_ok());
                taken += more;
            }
            prop_assert_eq!(String::from_utf8(parts).unwrap(), whole(Escape::JSON, &bytes));
        }

        #[test]
        fn nothing_that_a_terminal_obeys_gets_to_people(bytes in any_bytes(), room in 6usize..50) {
            let mut shown = Vec::new();
            let mut taken = 0;
            while taken < bytes.len() {
                taken += Escape::TEXT.push(&bytes[taken..], room, true, &mut shown);
            }
            let shown = String::from_utf8(shown).unwrap();
            prop_assert!(shown.chars().all(|char| "\t\x7f".contains(char) || !char.is_control()), "{shown:?}");
            let expected: String = String::from_utf8_lossy(&bytes)
                .chars()
                .map(|char| match char {
                    '\t' => "\t".to_owned(),
                    '\n' => "\\n".to_owned(),
                    '\r' => "\\r".to_owned(),
                    '\u{8}' => "\\b".to_owned(),
                    '\u{c}' => "\\f".to_owned(),
                    char if char.is_control() && char != '\x7f' => format!("\\u{:04x}", u32::from(char)),
                    char => char.to_string(),
                })
                .collect();
            prop_assert_eq!(shown, expected);
        }

        #[test]
        fn an_unfinished_sequence_waits_for_its_end(bytes in any_bytes(), cut in 0usize..200) {
            let cut = cut.min(bytes.len());
            let mut out = Vec::new();
            let taken = Escape::JSON.push(&bytes[..cut], usize::MAX, false, &mut out);
            prop_assert!(cut - taken <= 3);
            Escape::JSON.push(&bytes[taken..], usize::MAX, true, &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), whole(Escape::JSON, &bytes));
        }
    }
}

//! Whether a line is one JSON object, and its members.
//!
//! Owns the grammar (RFC 8259) and nothing else: what the members mean is the
//! caller's. It is stricter than the grammar where common readers are: strings
//! must be text, numbers must have a value, and nesting has a bound. One pass,
//! no recursion, no allocation.

use super::escape::Escape;

/// Open brackets at one time. serde_json reads one more, which the attributes
/// of a record of OpenTelemetry need.
pub(super) const DEPTH_MAX: u32 = 126;

/// Bytes of a number, and digits of its exponent, that are below 1e308 for sure.
const NUMBER_MAX: usize = 200;
const EXPONENT_MAX: usize = 2;

/// A name as it is spelt, between its quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key<'a> {
    pub(super) raw: &'a [u8],
    pub(super) has_escapes: bool,
}

impl Key<'_> {
    /// The name as it reads. The spelling was found right.
    pub(super) fn name(self) -> Vec<u8> {
        let mut name = Vec::new();
        let mut scan = Scan { bytes: self.raw, at: 0 };
        while let Some(byte) = scan.peek() {
            scan.at += 1;
            if byte != b'\\' {
                name.push(byte);
                continue;
            }
            let escape = scan.peek().unwrap_or_default();
            scan.at += 1;
            match escape {
                b'u' => {
                    let mut code = scan.hex().unwrap_or_default();
                    if let 0xd800..0xdc00 = code {
                        scan.at += 2;
                        let low = scan.hex().unwrap_or_default();
                        code = 0x10000 + ((code & 0x3ff) << 10 | low & 0x3ff);
                    }
                    let char = char::from_u32(code).unwrap_or_default();
                    name.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                }
                b'b' => name.push(0x08),
                b'f' => name.push(0x0c),
                b'n' => name.push(b'\n'),
                b'r' => name.push(b'\r'),
                b't' => name.push(b'\t'),
                itself => name.push(itself),
            }
        }
        name
    }
}

/// What stands between the brackets of the line's object, when the line is one;
/// white space around it is allowed. Every member is told, in order, before it
/// is known whether the rest is right: with its value, white space trimmed.
pub(super) fn members<'a>(
    line: &'a [u8],
    mut member: impl FnMut(Key<'a>, &'a [u8]),
) -> Option<&'a [u8]> {
    let mut scan = Scan { bytes: line, at: 0 };
    if scan.next()? != b'{' {
        return None;
    }
    let first = scan.at;
    if !scan.skip(b'}') {
        loop {
            let key = scan.key()?;
            scan.space();
            let start = scan.at;
            scan.value()?;
            member(key, scan.bytes.get(start..scan.at)?);
            match scan.next()? {
                b',' => {}
                b'}' => break,
                _ => return None,
            }
        }
    }
    let inside = scan.bytes.get(first..scan.at - 1)?;
    scan.space();
    let is_all = scan.at == line.len();
    // Bytes above ASCII can be in strings only, where they are let pass.
    (is_all && std::str::from_utf8(inside).is_ok()).then_some(inside)
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
    }

    /// The next byte that is no white space.
    fn next(&mut self) -> Option<u8> {
        self.space();
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// Passes over this byte when it is next.
    fn skip(&mut self, byte: u8) -> bool {
        self.space();
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// A name and its colon.
    fn key(&mut self) -> Option<Key<'a>> {
        if self.next()? != b'"' {
            return None;
        }
        let start = self.at;
        let has_escapes = self.string()?;
        let raw = self.bytes.get(start..self.at - 1)?;
        (self.next()? == b':').then_some(Key { raw, has_escapes })
    }

    /// A value of any kind, with all that is in it.
    fn value(&mut self) -> Option<()> {
        // A bit for each open bracket, the innermost the lowest: 1 for an object.
        let mut open: u128 = 0;
        let mut depth = 1; // the line's own object
        loop {
            match self.next()? {
                b'"' => {
                    self.string()?;
                }
                bracket @ (b'{' | b'[') => {
                    let is_object = bracket == b'{';
                    if depth == DEPTH_MAX {
                        return None;
                    }
                    depth += 1;
                    open = open << 1 | u128::from(is_object);
                    if !self.skip(bracket + 2) {
                        if is_object {
                            self.key()?;
                        }
                        continue;
                    }
                    depth -= 1;
                    open >>= 1;
                }
                b't' => self.word(b"rue")?,
                b'f' => self.word(b"alse")?,
                b'n' => self.word(b"ull")?,
                byte => self.number(byte)?,
            }
            // What may follow a value: more brackets that close, or the next one.
            loop {
                if depth == 1 {
                    return Some(());
                }
                let is_object = open & 1 == 1;
                match self.next()? {
                    b',' if is_object => {
                        self.key()?;
                        break;
                    }
                    b',' => break,
                    b'}' if is_object => {}
                    b']' if !is_object => {}
                    _ => return None,
                }
                depth -= 1;
                open >>= 1;
            }
        }
    }

    fn word(&mut self, rest: &[u8]) -> Option<()> {
        let is_right = self.rest().starts_with(rest);
        self.at += rest.len();
        is_right.then_some(())
    }

    /// The rest of a string, its closing quote included; whether it has escapes.
    fn string(&mut self) -> Option<bool> {
        let mut has_escapes = false;
        loop {
            self.at += Escape::JSON.clean_len(self.rest());
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(has_escapes),
                b'\\' => self.escape()?,
                _ => return None,
            }
            has_escapes = true;
        }
    }

    fn escape(&mut self) -> Option<()> {
        let byte = self.peek()?;
        self.at += 1;
        match byte {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            // A half of a pair is no character.
            b'u' => match self.hex()? {
                0xd800..0xdc00 => {
                    let is_escape = self.rest().starts_with(b"\\u");
                    self.at += 2;
                    (is_escape && (0xdc00..0xe000).contains(&self.hex()?)).then_some(())
                }
                0xdc00..0xe000 => None,
                _ => Some(()),
            },
            _ => None,
        }
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.rest().first_chunk::<4>()?;
        self.at += digits.len();
        digits
            .iter()
            .try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
    }

    fn number(&mut self, first: u8) -> Option<()> {
        let start = self.at - 1;
        let first = if first == b'-' {
            self.at += 1;
            *self.bytes.get(self.at - 1)?
        } else {
            first
        };
        match first {
            b'0' => {}
            b'1'..=b'9' => _ = self.digits(),
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            (self.digits() > 0).then_some(())?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            (1..=EXPONENT_MAX).contains(&self.digits()).then_some(())?;
        }
        (self.at - start < NUMBER_MAX).then_some(())
    }

    /// How many digits follow.
    fn digits(&mut self) -> usize {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        self.at - start
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn is_object(line: &[u8]) -> bool {
        members(line, |_, _| {}).is_some()
    }

    fn is_object_for_serde(line: &[u8]) -> bool {
        serde_json::from_slice(line).is_ok_and(|value: Value| value.is_object())
    }

    #[test]
    fn members_are_told_as_they_are_spelt() {
        let line = br#" { "a" : 1 ,"b\u0063":[{"x":"}"} ] , "":null}	"#;
        let mut told = Vec::new();
        let inside = members(line, |key, value| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            told.push((text(key.raw), key.has_escapes, text(value)));
        });
        assert_eq!(inside, line.get(2..line.len() - 2));
        let expected =
            [("a", false, "1"), (r"b\u0063", true, r#"[{"x":"}"} ]"#), ("", false, "null")];
        assert_eq!(told, expected.map(|(key, is, value)| (key.to_owned(), is, value.to_owned())));
    }

    #[test]
    fn what_readers_may_refuse_is_no_object() {
        let strange: [&[u8]; 22] = [
            br#"{"a":"\ud800"}"#,
            br#"{"a":"\ud800x"}"#,
            br#"{"a":"\ud800\u0041"}"#,
            br#"{"a":"\udc00"}"#,
            br#"{"a":1e309}"#,
            br#"{"a":-1e400}"#,
            b"{\"a\":\"\xff\"}",
            b"{\"a\":\"\x01\"}",
            br#"{"a":01}"#,
            br#"{"a":1.}"#,
            br#"{"a":.5}"#,
            br#"{"a":+1}"#,
            br#"{"a":1e}"#,
            br#"{"a":-}"#,
            br#"{"a":tru}"#,
            br#"{"a":1,}"#,
            br#"{"a":[1,]}"#,
            br#"{"a":[}]}"#,
            br#"{"a"}"#,
            br#"{'a':1}"#,
            br#"{"a":1}{"b":2}"#,
            br#"{"a":NaN}"#,
        ];
        for line in strange {
            assert!(!is_object(line), "{}", String::from_utf8_lossy(line));
            assert!(!is_object_for_serde(line), "{}", String::from_utf8_lossy(line));
        }
        let digits = format!(r#"{{"a":{}}}"#, "9".repeat(400));
        assert!(!is_object(digits.as_bytes()) && !is_object_for_serde(digits.as_bytes()));
        assert!(is_object(br#"{"a":"\ud83d\ude00","b":1e-99,"c":-0.0E+1}"#));
    }

    #[test]
    fn nesting_has_a_bound() {
        let nested = |depth: u32| {
            let (open, close) = ("[".repeat(depth as usize), "]".repeat(depth as usize));
            format!(r#"{{"a":{open}{close}}}"#)
        };
        assert!(is_object(nested(DEPTH_MAX - 1).as_bytes()));
        assert!(!is_object(nested(DEPTH_MAX).as_bytes()));
        assert!(is_object_for_serde(nested(DEPTH_MAX).as_bytes()));
        assert!(!is_object(nested(1_000_000).as_bytes()));
    }

    fn any_json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            "[ -~é€]{0,20}".prop_map(|text| serde_json::to_string(&text).unwrap()),
            any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
            any::<f64>()
                .prop_filter("few digits", |number| number.abs() < 1e90 && number.abs() > 1e-90)
                .prop_map(|number| number.to_string()),
            any::<f32>().prop_map(|number| format!("{number:e}")),
            any::<i64>().prop_map(|number| number.to_string()),
            prop_oneof![Just("true"), Just("false"), Just("null"), Just("{}"), Just("[ ]")]
                .prop_map(str::to_owned),
            prop_oneof![Just(r#""\u00e9\/\b""#), Just(r#""\uD83D\udE00""#)].prop_map(str::to_owned),
        ];
        let space = || prop_oneof![4 => Just(""), 1 => Just(" "), 1 => Just("\t\r ")];
        leaf.prop_recursive(4, 24, 6, move |inner| {
            let pair = (any::<String>(), inner.clone(), space()).prop_map(|(key, value, space)| {
                format!("{}{space}:{space}{value}", serde_json::to_string(&key).unwrap())
            });
            prop_oneof![
                (proptest::collection::vec(inner, 0..6), space())
                    .prop_map(|(list, space)| format!("[{space}{}{space}]", list.join(","))),
                (proptest::collection::vec(pair, 0..6), space())
                    .prop_map(|(list, space)| format!("{{{space}{}{space}}}", list.join(","))),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn names_read_as_serde_json_reads_them(text in any::<String>(), ascii in any::<bool>()) {
            let mut spelt = serde_json::to_string(&text).unwrap();
            if ascii {
                let escape = |unit: u16| format!("\\u{unit:04X}");
                spelt = format!("\"{}\"", text.encode_utf16().map(escape).collect::<String>());
            }
            let line = format!("{{{spelt}:1}}");
            let mut names = Vec::new();
            prop_assert!(members(line.as_bytes(), |key, _| names.push(key.name())).is_some());
            prop_assert_eq!(names, [text.into_bytes()]);
        }

        #[test]
        fn it_is_an_object_when_serde_json_says_so(json in any_json()) {
            prop_assume!(!json.contains("inf") && !json.contains("NaN"));
            let json = format!(r#"{{"a":{json}}}"#);
            prop_assert!(is_object_for_serde(json.as_bytes()), "{}", json);
            prop_assert!(is_object(json.as_bytes()), "{}", json);
        }

        #[test]
        fn nearly_an_object_is_none_for_both(
            json in any_json(),
            at in any::<proptest::sample::Index>(),
            what in prop_oneof![any::<u8>(), proptest::sample::select(br#"{}[]",:\u0eE+-. 19tfn"#.to_vec())],
            how in 0..3,
        ) {
            let mut bytes = format!(r#"{{"a":{json}}}"#).into_bytes();
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = what,
                1 => bytes.insert(at, what),
                _ => { bytes.remove(at); }
            }
            // A number may have become one on which they differ.
            let is_large = bytes.iter().filter(|byte| byte.is_ascii_digit()).count() > 150
                || bytes.iter().any(|byte| *byte == b'e' || *byte == b'E');
            if is_large {
                prop_assert!(!is_object(&bytes) || is_object_for_serde(&bytes));
            } else {
                prop_assert_eq!(is_object(&bytes), is_object_for_serde(&bytes));
            }
        }

        #[test]
        fn any_bytes_are_judged_alike(
            bytes in proptest::collection::vec(
                proptest::sample::select(br#"{}[]":,\u0019dD8cC -+.Eetrufalsn"#.to_vec()), 0..40)
        ) {
            let line = [&b"{\"a\":"[..], &bytes, b"}"].concat();
            prop_assert!(!is_object(&line) || is_object_for_serde(&line));
        }
    }
}

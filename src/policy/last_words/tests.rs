//! What is told of an end of a stream, whatever it holds and however it came.

use super::*;
use proptest::prelude::*;

fn lines_of(bytes: &[u8]) -> Vec<String> {
    let mut words = LastWords::default();
    words.saw(bytes);
    words.lines()
}

#[test]
fn the_last_lines_are_told_oldest_first() {
    let text: String = (0..300).map(|n| format!("line {n}\n")).collect();
    let expected: Vec<_> = (290..300).map(|n| format!("line {n}")).collect();
    assert_eq!(lines_of(text.as_bytes()), expected);
    assert_eq!(lines_of(b"one\ntwo"), ["one", "two"], "without a newline at the end");
    assert_eq!(lines_of(b""), [""; 0]);
}

#[test]
fn empty_lines_stand_between_others_only() {
    assert_eq!(lines_of(b"\n\r\none\n\n two\n \n\x1b[0m\n\n"), ["one", "", " two"]);
    assert_eq!(lines_of(b"\n\n"), [""; 0]);
    let mut text = "first\n".to_owned();
    text.push_str(&"\n".repeat(9));
    text.push_str("last\n");
    assert_eq!(lines_of(text.as_bytes()), ["last"]);
}

#[test]
fn a_line_whose_beginning_is_gone_is_marked() {
    let long = "x".repeat(KEPT) + "the end\n";
    let told = lines_of(long.as_bytes());
    assert_eq!(told, [format!("…{}the end", "x".repeat(TOLD - "…the end".len()))]);
    // Nothing is seen of what fills the bytes that are kept, but for the first 7.
    let filler = format!("{}\n", "\u{1b}[1m".repeat((KEPT - 8) / 4));
    let told = |text: &str| lines_of(format!("{text}{filler}").as_bytes());
    assert_eq!(told("abcdef\n"), ["abcdef"]);
    assert_eq!(told("x\nabcdef\n"), ["abcdef"]);
    assert_eq!(told("xabcdef\n"), ["…abcdef"]);
    // Half of a character, and nothing but halves.
    assert_eq!(told("éabcde\n"), ["…abcde"]);
    assert_eq!(told("x\u{10ffff}\nabc"), ["abc"]);
}

#[test]
fn a_line_that_does_not_fit_is_told_by_its_end() {
    let text = format!("{}end of the first\n{}\n", "a".repeat(600), "b".repeat(1000));
    let told = lines_of(text.as_bytes());
    assert_eq!(told.len(), 2);
    assert_eq!(told[0], "…aaaaaend of the first");
    assert_eq!(told.iter().map(String::len).sum::<usize>(), TOLD);
    // Where not a single character would fit there is no mark either.
    let text = format!("first\n{}\n", "b".repeat(TOLD - 3));
    assert_eq!(lines_of(text.as_bytes()), ["b".repeat(TOLD - 3)]);
}

#[test]
fn what_is_meant_for_a_terminal_is_left_out() {
    for (text, plain) in [
        ("\u{1b}[1;31merror\u{1b}[0m: no", "error: no"),
        ("\u{1b}[38:2::255:0:0mred\u{1b}[?25l\u{1b}[2 q", "red"),
        ("\u{1b}]0;a title\u{7}x\u{1b}]8;;http://a/\u{1b}\\link\u{1b}]8;;\u{1b}\\", "xlink"),
        ("\u{1b}Pq#0\u{1b}\\a\u{1b}(Bb\u{1b}=c\u{1b}7d", "abcd"),
        // None ends after its line.
        ("\u{1b}]0;open\nkept", "kept"),
        ("\u{1b}[3\nkept\u{1b}", "kept"),
        ("a\u{1b}[\nkept", "a|kept"),
        ("a\tb\u{8}\u{0}\u{9b}c", "a    b???c"),
    ] {
        assert_eq!(lines_of(text.as_bytes()).join("|"), plain, "{text:?}");
    }
}

#[test]
fn what_a_carriage_return_has_overwritten_is_left_out() {
    assert_eq!(lines_of(b" 10%\r 50%\r100%\ndone\r\n"), ["100%", "done"]);
    assert_eq!(lines_of(b"10%\r50%\r\r\n"), ["50%"]);
    assert_eq!(lines_of(b"10%\r\x1b[K50%\r\x1b[0m"), ["50%"]);
}

#[test]
fn what_is_no_utf_8_is_replaced() {
    assert_eq!(lines_of(b"caf\xe9 \xff!\n\xc3\xa9"), ["caf\u{fffd} \u{fffd}!", "é"]);
    // Cut within a character.
    let text = "é".repeat(KEPT) + "x";
    let told = lines_of(text.as_bytes());
    assert!(told[0].starts_with("…é") && told[0].ends_with("éx"), "{told:?}");
}

#[test]
fn another_child_has_said_nothing() {
    let mut words = LastWords::default();
    words.saw(&[b'x'; 5000]);
    words.clear();
    assert_eq!(words.lines(), [""; 0]);
    words.saw(b"new\n");
    assert_eq!(words.lines(), ["new"]);
}

/// Text, noise, and what is awkward in either.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        "[ -~\\n]{0,60}".prop_map(String::into_bytes),
        any::<String>().prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..50),
        Just(b"\x1b[31m".to_vec()),
        Just(b"\x1b]0;t".to_vec()),
        Just(b"\r\n\n".to_vec()),
        Just("é\t".repeat(900).into_bytes()),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_does_not_matter_how_the_bytes_came(bytes in any_bytes(), sizes in prop::collection::vec(1..3000_usize, 1..50)) {
        let mut words = LastWords::default();
        let mut sizes = sizes.into_iter().cycle();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(sizes.next().unwrap().min(rest.len()));
            words.saw(chunk);
            rest = after;
            prop_assert!(words.bytes.len() <= 2 * (KEPT + 1));
        }
        prop_assert_eq!(words.lines(), lines_of(&bytes));
    }

    #[test]
    fn whatever_was_said_it_is_a_few_short_lines(bytes in any_bytes()) {
        let lines = lines_of(&bytes);
        prop_assert!(lines.len() <= LINES);
        prop_assert!(lines.iter().map(String::len).sum::<usize>() <= TOLD);
        prop_assert!(!lines.iter().any(|line| line.chars().any(char::is_control)));
        for end in [lines.first(), lines.last()].into_iter().flatten() {
            prop_assert!(!end.is_empty());
        }
    }

    #[test]
    fn plain_lines_are_told_as_they_are(lines in prop::collection::vec("[!-~]{1,80}", 1..40)) {
        let told = lines_of((lines.join("\n") + "\n").as_bytes());
        let (first, rest) = told.split_first().unwrap();
        prop_assert!(lines.ends_with(rest));
        let own = &lines[lines.len() - told.len()];
        prop_assert!(first == own || first.strip_prefix(CUT).is_some_and(|end| own.ends_with(end)));
        // As many as fit.
        let sum: usize = told.iter().map(String::len).sum();
        prop_assert!(told.len() == LINES.min(lines.len()) || sum > TOLD - CUT.len() - 80);
    }
}

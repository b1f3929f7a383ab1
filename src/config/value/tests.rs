//! Every form of every kind of value, and what comes back when it is printed.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use proptest::prelude::*;

use super::*;
use crate::policy::reaction::Reaction;
use crate::policy::signal::{Rewrite, Signal};
use crate::policy::stop_plan::StopSignal;

fn parse<T: Value>(text: &str) -> Option<T> {
    T::parse(OsStr::new(text))
}

#[test]
fn durations_are_read() {
    for (text, micros) in [
        ("500ms", 500_000),
        ("5s", 5_000_000),
        ("1m30s", 90_000_000),
        ("1.5s", 1_500_000),
        ("0", 0),
        ("0s", 0),
        ("5", 5_000_000),
        ("007", 7_000_000),
        ("250us", 250),
        ("2h", 7_200_000_000),
        ("720h", 2_592_000_000_000),
        ("2592000", 2_592_000_000_000),
    ] {
        assert_eq!(duration(text), Some(Duration::from_micros(micros)), "{text}");
    }
}

#[test]
fn what_is_no_clear_duration_is_refused() {
    for text in [
        "",
        " ",
        "5x",
        "s",
        "1M",
        "1MS",
        "5S",
        "1d",
        "1w",
        "1month",
        "1y",
        "5sec",
        "1min",
        "5 s",
        " 5s",
        "5s ",
        "1m 30s",
        "-5s",
        "+5",
        "1.5",
        "1.s",
        ".5s",
        "1..5s",
        "5ns",
        "0.5us",
        "721h",
        "2592001",
        "1e3s",
        "5s5",
        "µs",
        "5µs",
        "99999999999999999999",
        // humantime 2.4 panics on this one.
        "18446744073709551615s1000ms",
        "999999999999h999999999999h",
    ] {
        assert_eq!(duration(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn durations_are_read_back_as_printed(micros in 0..=LONGEST.as_micros() as u64) {
        let value = Duration::from_micros(micros);
        prop_assert_eq!(duration(&duration_text(value)), Some(value));
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in ".*", like in "[0-9a-z.,:+\\[\\]-]{0,24}") {
        for text in [text, like] {
            parse::<Duration>(&text);
            parse::<StopOn>(&text);
            parse::<StopSignal>(&text);
            parse::<ExitMap>(&text);
            parse::<Listen>(&text);
            parse::<Profiles>(&text);
            parse::<Ratio>(&text);
            parse::<Positive>(&text);
            parse::<HangSignal>(&text);
            parse::<Rewrite>(&text);
            parse::<Ports>(&text);
            parse::<Code>(&text);
            parse::<Count>(&text);
            parse::<Command>(&text);
        }
    }

    #[test]
    fn no_number_makes_durations_panic(text in "([0-9]{1,20}(\\.[0-9]{1,20})?(us|ms|s|m|h)){1,4}") {
        prop_assert!(duration(&text).is_none_or(|parsed| parsed <= LONGEST));
    }

    #[test]
    fn strings_are_read_back_by_toml(text in any::<String>()) {
        let document = format!("k = {}", toml_string(&text));
        let table = toml::de::DeTable::parse(&document).unwrap();
        let value = table.get_ref().get("k").unwrap().get_ref().as_str();
        prop_assert_eq!(value, Some(text.as_str()));
    }

    #[test]
    fn ratios_are_read_back_as_printed(ratio in f64::MIN_POSITIVE..=1.0) {
        prop_assert_eq!(parse(&Ratio(ratio).to_toml()), Some(Ratio(ratio)));
    }
}

#[test]
fn signals_that_begin_the_stop_can_be_handled() {
    let signals = |text| parse::<StopOn>(text).map(|list| list.to_toml());
    assert_eq!(signals("SIGTERM,int").as_deref(), Some(r#"["SIGTERM", "SIGINT"]"#));
    assert_eq!(signals("15, SIGTERM").as_deref(), Some(r#"["SIGTERM"]"#));
    assert_eq!(signals("SIGRTMIN+3").as_deref(), Some(r#"["SIGRTMIN+3"]"#));
    for text in ["KILL", "STOP", "CHLD", "ILL", "BUS", "FPE", "SEGV", "32", "33", "TERM,", "x", ","]
    {
        assert_eq!(signals(text), None, "{text}");
    }
}

#[test]
fn the_stop_signal_is_the_received_one_or_fixed() {
    assert_eq!(parse("received"), Some(StopSignal::Received));
    assert_eq!(parse("kill"), Some(StopSignal::Fixed(Signal::KILL)));
    assert_eq!(parse("15"), Some(StopSignal::Fixed(Signal::TERM)));
    assert_eq!(parse::<StopSignal>("SIGSTOP"), None);
    assert_eq!(parse::<StopSignal>("TERM,INT"), None);
}

#[test]
fn a_hang_signal_is_one_that_a_program_can_catch() {
    for text in ["SIGQUIT", "quit", "3"] {
        assert_eq!(parse(text), Some(HangSignal(Signal::new(3))), "{text}");
    }
    for text in ["KILL", "STOP", "0", "received", "QUIT,TERM"] {
        assert_eq!(parse::<HangSignal>(text), None, "{text}");
    }
    assert_eq!(HangSignal(None).to_toml(), "\"\"");
}

#[test]
fn signals_are_rewritten_in_dumb_inits_syntax() {
    let print = |text| parse::<Rewrite>(text).map(|rewrite| rewrite.to_toml());
    assert_eq!(print("15:3").as_deref(), Some(r#"["SIGTERM:SIGQUIT"]"#));
    assert_eq!(
        print("SIGTERM:SIGQUIT, usr1:0,TSTP:STOP").as_deref(),
        Some(r#"["SIGTERM:SIGQUIT", "SIGUSR1:0", "SIGTSTP:SIGSTOP"]"#)
    );
    assert_eq!(print("15:3,TERM:KILL").as_deref(), Some(r#"["SIGTERM:SIGKILL"]"#));
    for text in
        ["15", "0:15", "15:", ":3", "KILL:15", "STOP:15", "15:3:2", "15:65", "15:00", "15:3,"]
    {
        assert_eq!(print(text), None, "{text}");
    }
}

#[test]
fn ports_are_auto_or_numbers() {
    let print = |text| parse::<Ports>(text).map(|ports| ports.to_toml());
    assert_eq!(print("AUTO").as_deref(), Some("\"auto\""));
    assert_eq!(print("8443, 80,8443,65535").as_deref(), Some("[80, 8443, 65535]"));
    for text in ["0", "65536", "-1", "+80", "http", "80,", "80,auto", "80-90", ":80"] {
        assert_eq!(print(text), None, "{text}");
    }
}

#[test]
fn codes_and_counts_are_digits() {
    assert_eq!(parse("0"), Some(Code(Some(0))));
    assert_eq!(Code(Some(255)).to_toml(), "255");
    assert_eq!(Code(None).to_toml(), "\"\"");
    assert_eq!(parse("4294967295"), Some(Count(u32::MAX)));
    for text in ["256", "4294967296", "-1", "+1", "1.0", "0x1", "one"] {
        assert_eq!(parse::<Code>(text), None, "{text}");
        if text != "256" {
            assert_eq!(parse::<Count>(text), None, "{text}");
        }
    }
}

#[test]
fn a_positive_duration_is_any_but_none() {
    assert_eq!(parse("1us"), Some(Positive(Duration::from_micros(1))));
    for text in ["0", "0s", "0us", "-1s"] {
        assert_eq!(parse::<Positive>(text), None, "{text}");
    }
}

#[test]
fn commands_are_split_by_the_rules_of_a_shell_and_run_by_none() {
    for (text, words) in [
        ("serve", &["serve"][..]),
        (" /bin/a\t-b \n c ", &["/bin/a", "-b", "c"]),
        ("a 'b  c' \"d 'e' \\\" $F\" g\\ h", &["a", "b  c", "d 'e' \" $F", "g h"]),
        ("a '' \"\" x''y", &["a", "", "", "xy"]),
        ("a $B `c` d* ~ && e; | > f", &["a", "$B", "`c`", "d*", "~", "&&", "e;", "|", ">", "f"]),
        ("a b#c '#d' # e", &["a", "b#c", "#d"]),
        // A line that is continued, a backslash before nothing, a space beyond ASCII.
        ("a \\\n  b\\\nc", &["a", "bc"]),
        ("a b\\", &["a", "b\\"]),
        ("a \u{a0}b \u{3000}", &["a", "\u{a0}b", "\u{3000}"]),
    ] {
        let expected = Command(Some(words.iter().map(OsString::from).collect()));
        assert_eq!(parse::<Command>(text), Some(expected), "{text}");
    }
    for text in ["", " ", "# a", "''", "'' a", "a 'b", "a \"b", "a \"b\\", "a\0b"] {
        assert_eq!(parse::<Command>(text), None, "{text}");
    }
    let odd = OsStr::from_bytes(b"/bin/\xff '\xfe \xfd'");
    let words = [&b"/bin/\xff"[..], b"\xfe \xfd"].map(|word| OsStr::from_bytes(word).to_owned());
    assert_eq!(Command::parse(odd), Some(Command(Some(words.to_vec()))));
}

#[test]
fn commands_are_printed_as_arrays() {
    let print = |text| parse::<Command>(text).map(|command| command.to_toml());
    assert_eq!(print("a 'b \"c' \\\\").as_deref(), Some(r#"["a", "b \"c", "\\"]"#));
    assert_eq!(Command(None).to_toml(), "[]");
}

#[test]
fn exit_maps_are_pairs_of_codes() {
    let map: ExitMap = parse("143:0, 130:7").unwrap();
    assert_eq!(map.pairs(), [(143, 0), (130, 7)]);
    assert_eq!(map.to_toml(), r#"["143:0", "130:7"]"#);
    for text in ["143", "143:", ":0", "256:0", "143:0:0", "+1:0", "a:b", "143:0,"] {
        assert_eq!(parse::<ExitMap>(text), None, "{text}");
    }
}

#[test]
fn listeners_are_addresses_without_names() {
    for (text, printed) in [
        ("[::]:9911", "[::]:9911"),
        ("0.0.0.0:9911", "0.0.0.0:9911"),
        ("127.0.0.1:80", "127.0.0.1:80"),
        (":9911", ":9911"),
        (":0", ":0"),
        ("[::1]:0", "[::1]:0"),
        ("OFF", "off"),
    ] {
        let listen: Listen = parse(text).unwrap();
        assert_eq!(listen.to_toml(), format!("{printed:?}"), "{text}");
        assert_ne!(listen, Listen::Default);
    }
    for text in ["localhost:80", "9911", ":", ":+80", ":65536", "::", "127.0.0.1", "[::]", "*:80"] {
        assert_eq!(parse::<Listen>(text), None, "{text}");
    }
}

#[test]
fn sizing_is_a_word_or_a_list() {
    let print = |text| parse::<Profiles>(text).map(|profiles| profiles.to_toml());
    assert_eq!(print("default").as_deref(), Some(r#""default""#));
    assert_eq!(print("off").as_deref(), Some(r#""off""#));
    assert_eq!(print("python, Go,go").as_deref(), Some(r#"["python", "go"]"#));
    assert_eq!(print("java, default").as_deref(), Some(r#"["java", "go", "openmp", "python"]"#));
    assert_eq!(print("default,go").as_deref(), Some(r#""default""#));
    for text in ["perl", "go,off", "go,", "off,default"] {
        assert_eq!(print(text), None, "{text}");
    }
}

#[test]
fn ratios_are_above_nothing_and_up_to_all() {
    assert_eq!(parse("1"), Some(Ratio(1.0)));
    assert_eq!(Ratio(1.0).to_toml(), "1.0");
    for text in ["0", "-0.1", "1.01", "nan", "inf", "90%", "", "0,9"] {
        assert_eq!(parse::<Ratio>(text), None, "{text}");
    }
}

#[test]
fn words_are_read_in_any_case_and_back_as_printed() {
    fn all<T: Words + std::fmt::Debug>() {
        for (word, value) in T::WORDS {
            assert_eq!(parse(word), Some(*value));
            assert_eq!(parse(&word.to_uppercase()), Some(*value));
            assert_eq!(value.to_toml(), format!("{word:?}"));
        }
        assert_eq!(parse::<T>("nonsense"), None);
    }
    all::<LogLevel>();
    all::<ReadinessOnStop>();
    all::<StopScope>();
    all::<Restart>();
    all::<Rounding>();
}

#[test]
fn each_v_is_one_level_more() {
    assert_eq!(LogLevel::Info.raised(0), LogLevel::Info);
    assert_eq!(LogLevel::Info.raised(1), LogLevel::Debug);
    assert_eq!(LogLevel::Off.raised(2), LogLevel::Warn);
    assert_eq!(LogLevel::Info.raised(9), LogLevel::Trace);
    assert_eq!(LogLevel::Trace.raised(1), LogLevel::Trace);
}

#[test]
fn a_reaction_is_a_word_a_signal_or_a_command() {
    let print = |text| parse::<Reaction>(text).map(|reaction| reaction.to_toml());
    for (text, expected) in [
        ("LOG", "\"log\""),
        ("restart", "\"restart\""),
        ("signal:hup", "\"signal:SIGHUP\""),
        ("exec:/bin/a 'b c'", "\"exec:/bin/a 'b c'\""),
    ] {
        assert_eq!(print(text).as_deref(), Some(expected), "{text}");
    }
    for text in ["", "signal:", "signal:none", "signal: HUP", "exec:", "exec:'a", "reload", "exec"]
    {
        assert_eq!(print(text), None, "{text}");
    }
}

#[test]
fn a_user_is_a_name_or_a_number_and_so_is_a_group() {
    let print = |text| parse::<User>(text).map(|user| user.to_toml());
    for text in ["0", "1000:1000", "app", "app:0", "65532:app", "www-data", "4294967294"] {
        assert_eq!(print(text), Some(format!("\"{text}\"")), "{text}");
    }
    for text in ["", ":", "app:", ":app", "a:b:c", "4294967295", "99999999999", "a b", "a/b", "a,b"]
    {
        assert_eq!(print(text), None, "{text}");
    }
}

#[test]
fn fields_of_the_log_are_pairs() {
    let pairs = |text: &str| parse::<Fields>(text).map(|fields| fields.0);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(pairs("a=b"), Some(vec![pair("a", "b")]));
    assert_eq!(pairs(" a.b = c=d , e= "), Some(vec![pair("a.b", "c=d"), pair("e", "")]));
    for wrong in
        ["a", "=b", "a b=c", "a=1,a=2", "level=x", "pod=x", "a=1,", "é=1", "a\"=1", "partial_id=x"]
    {
        assert_eq!(pairs(wrong), None, "{wrong}");
    }
    assert!(pairs(&format!("a={}", "x".repeat(1023))).is_some());
    assert!(pairs(&format!("a={}", "x".repeat(1024))).is_none());
}

//! Lines of every format, with whatever values.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::log::reading::{FORMATS, Read};
use crate::log::value::CUT;
use crate::policy::log_style::{Identity, LogStyle, Severity};

fn leaked(style: &LogStyle, has_colours: bool) -> &'static Style {
    Box::leak(Box::new(Style::new(style, has_colours)))
}

/// With these common fields, and the name of a Pod.
fn style(format: LogFormat, fields: &[(&str, &str)]) -> LogStyle {
    let fields = fields.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    LogStyle {
        format,
        fields: fields.collect(),
        identity: Identity { pod: Some("web-0".into()), ..Identity::default() },
    }
}

fn line(style: &'static Style, fill: &dyn Fn(&mut Line)) -> String {
    let time = UNIX_EPOCH + Duration::from_micros(1_795_168_800_123_456);
    let line = Line::new(style, time, Level::WARN, &|line| {
        line.message("a phrase");
        line.event("tested");
        fill(line);
    });
    String::from_utf8(line.as_bytes().to_vec()).unwrap()
}

/// A line of JSON with nothing common.
fn plain(fill: &dyn Fn(&mut Line)) -> Read {
    Read::of(LogFormat::Json, &line(style::current(), fill))
}

#[test]
fn a_line_has_the_form_of_the_contract() {
    let line = line(style::current(), &|line| {
        line.text("why", "said \"no\"\n\u{1}é");
        line.value("last", u64::MAX);
    });
    assert_eq!(
        line,
        concat!(
            r#"{"time":"2026-11-20T10:00:00.123456Z","level":"WARN","msg":"a phrase","#,
            r#""event":"tested","why":"said \"no\"\n\u0001é","last":18446744073709551615}"#,
            "\n"
        )
    );
}

#[test]
fn each_format_has_a_form_of_its_own() {
    let lines = FORMATS.map(|format| {
        line(leaked(&style(format, &[("team", "a b")]), false), &|line| {
            line.text("why", "said \"no\"\u{1b}");
            line.value("pid", 7);
            line.json("list", br#"[{"a":1}]"#);
        })
    });
    let expected = [
        concat!(
            r#"{"time":"2026-11-20T10:00:00.123456Z","level":"WARN","msg":"a phrase","#,
            r#""event":"tested","why":"said \"no\"\u001b","pid":7,"list":[{"a":1}],"#,
            r#""pod":"web-0","team":"a b"}"#,
            "\n"
        ),
        concat!(
            r#"2026-11-20T10:00:00.123456Z WARN  a phrase event=tested "#,
            r#"why="said \"no\"\u001b" pid=7 list="[{\"a\":1}]" pod=web-0 team="a b""#,
            "\n"
        ),
        concat!(
            r#"{"time":"2026-11-20T10:00:00.123456Z","severity":"WARNING","message":"a phrase","#,
            r#""event":"tested","why":"said \"no\"\u001b","pid":7,"list":[{"a":1}],"#,
            r#""pod":"web-0","team":"a b"}"#,
            "\n"
        ),
        concat!(
            r#"{"@timestamp":"2026-11-20T10:00:00.123456Z","log.level":"WARN","#,
            r#""message":"a phrase","ecs.version":"8.11.0","event.action":"tested","#,
            r#""castoff.why":"said \"no\"\u001b","castoff.pid":7,"castoff.list":[{"a":1}],"#,
            r#""kubernetes.pod.name":"web-0","team":"a b"}"#,
            "\n"
        ),
        concat!(
            r#"{"Timestamp":"1795168800123456000","SeverityText":"WARN","SeverityNumber":13,"#,
            r#""Body":"a phrase","EventName":"tested","Attributes":{"#,
            r#""why":"said \"no\"\u001b","pid":7,"list":[{"a":1}]},"#,
            r#""Resource":{"k8s.pod.name":"web-0","team":"a b"}}"#,
            "\n"
        ),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_line_without_fields_is_one_too() {
    for format in FORMATS {
        let style = leaked(&LogStyle { format, ..LogStyle::default() }, false);
        let read = Read::of(format, &line(style, &|_| ()));
        assert_eq!((read.message.as_str(), read.event.as_str()), ("a phrase", "tested"));
        assert!(read.fields.is_empty());
    }
}

#[test]
fn colours_are_on_the_level_and_the_message_of_text_only() {
    let fields = |line: &mut Line| line.text("why", "\u{1b}[0m");
    assert_eq!(
        line(leaked(&style(LogFormat::Text, &[]), true), &fields),
        concat!(
            "2026-11-20T10:00:00.123456Z \u{1b}[33mWARN\u{1b}[0m  \u{1b}[1ma phrase\u{1b}[0m ",
            "event=tested why=\"\\u001b[0m\" pod=web-0\n"
        )
    );
    for format in [LogFormat::Json, LogFormat::Gcp, LogFormat::Ecs, LogFormat::Otel] {
        assert!(!line(leaked(&style(format, &[]), true), &fields).contains('\u{1b}'));
    }
}

#[test]
fn a_name_that_the_event_has_as_well_is_the_events() {
    for format in FORMATS {
        let common = [("version", "mine"), ("castoff.pid", "mine"), ("pid", "mine"), ("z", "mine")];
        let line = line(leaked(&style(format, &common), false), &|line| {
            line.text("version", "0.1.0");
            line.value("pid", 7);
        });
        // Without the check for names that are there twice, which `Read` makes of
        // the names without their prefix.
        let count = |name: &str| line.matches(name).count();
        let [version, pid, own_pid] = match format {
            LogFormat::Json | LogFormat::Gcp => [r#""version":"#, r#""pid":7"#, r#""pid":"#],
            LogFormat::Text => [" version=", " pid=7", " pid="],
            // Names of the event are castoff's own there, and here attributes.
            LogFormat::Ecs => [r#""castoff.version":"#, r#""castoff.pid":7"#, r#""castoff.pid":"#],
            LogFormat::Otel => [r#""version":"0.1.0""#, r#"{"version":"0.1.0","pid":7}"#, "{}"],
        };
        let own = if format == LogFormat::Otel { 0 } else { 1 };
        assert_eq!([count(version), count(pid), count(own_pid)], [1, 1, own], "{line}");
        let mine = match format {
            LogFormat::Json | LogFormat::Gcp | LogFormat::Text => 2,
            LogFormat::Ecs => 3,
            LogFormat::Otel => 4,
        };
        assert_eq!(count("mine"), mine, "{line}");
    }
}

#[test]
fn a_field_that_has_no_room_hides_no_common_one() {
    let style = leaked(&style(LogFormat::Json, &[("list", "mine")]), false);
    let line = line(style, &|line| line.json("list", &[b'1'; MAX_LEN]));
    assert_eq!(Read::of(LogFormat::Json, &line).own("list"), Some(&"mine".into()));
}

#[test]
fn only_the_long_value_is_cut() {
    let short = "s".repeat(200);
    let read = plain(&|line| {
        line.text("a", &short);
        line.text("b", "é".repeat(9000));
        line.value("last", u64::MAX);
    });
    assert_eq!(read.own("a"), Some(&short.as_str().into()));
    assert_eq!(read.own("b"), Some(&format!("{}…", "é".repeat(2047 / 2)).into()));
    assert_eq!(read.own("last"), Some(&u64::MAX.into()));
}

#[test]
fn json_is_taken_as_it_is_or_not_at_all() {
    let list = |count| format!("[{}0]", "0,".repeat(count)).into_bytes();
    let read = |count| {
        plain(&|line| {
            line.text("long", "x".repeat(MAX_LEN));
            line.json("list", &list(count));
        })
    };
    let fields = read(1000);
    assert_eq!(fields.own("list").unwrap().as_array().unwrap().len(), 1001);
    assert_eq!(fields.own("long"), Some(&format!("{}…", "x".repeat(1023)).into()));
    assert_eq!(read(3000).own("list"), None);
}

#[test]
fn a_list_of_its_full_length_has_room_beside_the_common_fields() {
    let value = "x".repeat(1018);
    let names = || Some("n".repeat(253));
    for format in FORMATS {
        let identity = Identity { pod: names(), namespace: names(), node: names() };
        let style = leaked(&LogStyle { identity, ..style(format, &[("team", &value)]) }, false);
        assert!(!style.is_cut);
        // Of nothing but quotes, each of which text escapes.
        let list = format!("[{}1]", "\"\",".repeat((style.list_max() - 3) / 3));
        let line = line(style, &|line| {
            line.value("count", u64::MAX);
            line.text("directory", "d".repeat(MAX_LEN));
            line.json("list", list.as_bytes());
        });
        let read = Read::of(format, &line);
        let found = match read.own("list") {
            Some(serde_json::Value::String(text)) => text.clone(),
            found => found.map(ToString::to_string).unwrap_or_default(),
        };
        // There a list pays for a longer text.
        let is_whole = format != LogFormat::Text;
        assert!(if is_whole { found == list } else { found.len() > 200 }, "{format:?}: {found}");
        assert_eq!(read.common("team"), Some(&value.as_str().into()));
    }
}

#[test]
fn a_clock_outside_of_the_calendar_does_not_panic() {
    for now in [UNIX_EPOCH - Duration::from_secs(1), UNIX_EPOCH + Duration::from_secs(1 << 40)] {
        for format in FORMATS {
            let line = Line::new(leaked(&style(format, &[]), false), now, Level::INFO, &|line| {
                line.message("x");
                line.event("tested");
            });
            Read::of(format, std::str::from_utf8(line.as_bytes()).unwrap());
        }
    }
}

#[test]
fn a_value_that_cannot_print_itself_is_no_error() {
    struct Broken;
    impl Display for Broken {
        fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("half")?;
            Err(fmt::Error)
        }
    }
    for format in FORMATS {
        let line = line(leaked(&style(format, &[]), false), &|line| line.text("v", Broken));
        assert_eq!(Read::of(format, &line).own("v"), Some(&"half".into()));
    }
}

/// Short and long, with what is escaped and what is several bytes.
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

/// What the settings accept, and more of it. Names are those that events have.
fn any_style() -> impl Strategy<Value = LogStyle> {
    let name = || proptest::option::of(any_text());
    let fields = proptest::collection::btree_map("[a-z][a-z._/-]{0,3}", any_text(), 0..40);
    (proptest::sample::select(&FORMATS), fields, name(), name(), name()).prop_map(
        |(format, fields, pod, namespace, node)| LogStyle {
            format,
            fields: fields.into_iter().filter(|(name, _)| name != "pod").collect(),
            identity: Identity { pod, namespace, node },
        },
    )
}

/// Whole or cut.
fn is_kept(kept: &serde_json::Value, value: &str) -> bool {
    let Some(kept) = kept.as_str() else { return false };
    kept == value || kept.strip_suffix(CUT).is_some_and(|head| value.starts_with(head))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_values_give_one_short_line_of_any_format(
        style in any_style(),
        message in any_text(),
        event in "[a-z_]{1,40}",
        fields in proptest::collection::btree_map("[a-z]{1,2}", any_text(), 0..100),
        is_listed in any::<bool>(),
    ) {
        let made = leaked(&style, false);
        let line = Line::new(made, UNIX_EPOCH, Level::ERROR, &|line| {
            line.message(&message);
            line.event(&event);
            for (name, value) in &fields {
                line.text(name, value);
            }
            if is_listed {
                line.json("zzz", br#"["",{"a":null}]"#);
            }
        });
        let read = Read::of(style.format, std::str::from_utf8(line.as_bytes()).unwrap());
        prop_assert_eq!((read.level, &read.event), (Severity::Error, &event));
        let kept_message = read.message.clone().into();
        prop_assert!(style.format == LogFormat::Text || is_kept(&kept_message, &message));
        let common = |name: &str| style.common().find(|(known, _)| *known == name);
        let mut kept_count = 0;
        for (name, value) in &fields {
            if let Some(kept) = read.own(name) {
                // Where it has no room, the common one of that name stands.
                let is_common = common(name).is_some_and(|(_, value)| is_kept(kept, value));
                prop_assert!(is_kept(kept, value) || is_common, "{}: {}", kept, value);
                kept_count += 1;
            }
        }
        prop_assert!(fields.is_empty() || kept_count > 0);
        for (name, value) in style.common() {
            match read.common(name) {
                Some(kept) => prop_assert!(is_kept(kept, value) || fields.contains_key(name)),
                None => prop_assert!(made.is_cut, "{} is missing", name),
            }
        }
    }
}

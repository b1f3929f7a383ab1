//! The rules of the wrapper one by one, and all at once against a slow model.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::policy::log_style::{Identity, Severity};

const FORMATS: [LogFormat; 5] =
    [LogFormat::Json, LogFormat::Text, LogFormat::Gcp, LogFormat::Ecs, LogFormat::Otel];

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_795_168_800, 123_456_789)
}

fn style(format: LogFormat) -> LogStyle {
    LogStyle {
        format,
        fields: vec![("team".into(), "a \"b\"".into())],
        identity: Identity { pod: Some("web-0".into()), ..Identity::default() },
    }
}

/// All of it in one call.
fn wrapped(style: &LogStyle, stream: Stream, input: &[u8]) -> Vec<String> {
    let mut wrapper = Wrapper::new(style, stream);
    let mut out = Vec::new();
    assert_eq!(wrapper.wrap(input, now(), &mut out, usize::MAX), input.len());
    wrapper.finish(now(), &mut out);
    let lines = lines_of(out);
    assert_eq!(wrapper.lines(), split(input).len() as u64);
    lines
}

fn lines_of(out: Vec<u8>) -> Vec<String> {
    let out = String::from_utf8(out).unwrap();
    assert!(out.is_empty() || out.ends_with('\n'));
    let lines = out.split_inclusive('\n').map(|line| {
        assert!(line.len() <= LINE_MAX, "{} bytes", line.len());
        line.trim_end_matches('\n').to_owned()
    });
    lines.collect()
}

fn one(format: LogFormat, input: &str) -> String {
    let [line] = wrapped(&style(format), Stream::Stdout, input.as_bytes()).try_into().unwrap();
    line
}

/// The line without what every line of the tests has.
fn merged(format: LogFormat, input: &str) -> String {
    let line = one(format, input);
    let (common, time) = match format {
        LogFormat::Ecs => (
            r#""ecs.version":"8.11.0","log.iostream":"stdout","kubernetes.pod.name":"web-0","team":"a \"b\"","#,
            r#""@timestamp":"2026-11-20T10:00:00.123456Z","#,
        ),
        LogFormat::Otel => (
            r#","Resource":{"k8s.pod.name":"web-0","team":"a \"b\""}"#,
            r#""Timestamp":"1795168800123456789","#,
        ),
        _ => (
            r#""stream":"stdout","pod":"web-0","team":"a \"b\"","#,
            r#""time":"2026-11-20T10:00:00.123456Z","#,
        ),
    };
    assert!(line.contains(common), "{line}");
    line.replace(common, "").replace(time, "TIME ")
}

#[test]
fn a_plain_line_has_the_form_of_the_format() {
    let input = "said \"no\"\x1b[0m\t\u{20ac}\r\n";
    let expected = [
        r#"{"time":"2026-11-20T10:00:00.123456Z","level":"INFO","msg":"said \"no\"\u001b[0m\t€","stream":"stdout","pod":"web-0","team":"a \"b\""}"#,
        "2026-11-20T10:00:00.123456Z INFO  said \"no\"\\u001b[0m\t€ stream=stdout pod=web-0 team=\"a \\\"b\\\"\"",
        r#"{"time":"2026-11-20T10:00:00.123456Z","severity":"INFO","message":"said \"no\"\u001b[0m\t€","stream":"stdout","pod":"web-0","team":"a \"b\""}"#,
        r#"{"@timestamp":"2026-11-20T10:00:00.123456Z","log.level":"INFO","message":"said \"no\"\u001b[0m\t€","ecs.version":"8.11.0","log.iostream":"stdout","kubernetes.pod.name":"web-0","team":"a \"b\""}"#,
        r#"{"Timestamp":"1795168800123456789","SeverityText":"INFO","SeverityNumber":9,"Body":"said \"no\"\u001b[0m\t€","Attributes":{"log.iostream":"stdout"},"Resource":{"k8s.pod.name":"web-0","team":"a \"b\""}}"#,
    ];
    for (format, expected) in FORMATS.into_iter().zip(expected) {
        assert_eq!(one(format, input), expected);
    }
}

#[test]
fn a_line_without_common_fields_ends_with_the_stream() {
    let bare = |format| LogStyle { format, ..LogStyle::default() };
    let line = |format, input| wrapped(&bare(format), Stream::Stderr, input).concat();
    assert_eq!(
        line(LogFormat::Json, b"x\n"),
        r#"{"time":"2026-11-20T10:00:00.123456Z","level":"ERROR","msg":"x","stream":"stderr"}"#
    );
    assert_eq!(line(LogFormat::Text, b"\n"), "2026-11-20T10:00:00.123456Z ERROR  stream=stderr");
    assert_eq!(
        line(LogFormat::Otel, b"{}\n"),
        r#"{"Timestamp":"1795168800123456789","SeverityText":"ERROR","SeverityNumber":17,"Attributes":{"log.iostream":"stderr"}}"#
    );
    assert_eq!(
        line(LogFormat::Gcp, b"{ }\n"),
        r#"{"time":"2026-11-20T10:00:00.123456Z","severity":"ERROR","stream":"stderr" }"#
    );
}

#[test]
fn lines_end_with_lf_or_crlf_or_the_stream() {
    let messages = |input: &[u8]| -> Vec<String> {
        let lines = wrapped(&style(LogFormat::Json), Stream::Stdout, input);
        lines.iter().map(|line| message(&parse(line))).collect()
    };
    assert_eq!(messages(b"\n\r\na\rb\r\r\nlast"), ["", "", "a\rb\r", "last"]);
    assert_eq!(messages(b"last\r"), ["last\r"]);
    assert_eq!(messages(b""), [""; 0]);
    assert_eq!(messages(b"nul\0 \xff\xfe \xe2\x82\n"), ["nul\0 \u{fffd}\u{fffd} \u{fffd}"]);
}

#[test]
fn the_members_of_an_object_stay_as_they_are_and_win() {
    let cases = [
        (r#"{"a":1}"#, r#"{TIME "level":"INFO","a":1}"#),
        (r#"  {"a" : 1 } "#, r#"{TIME "level":"INFO","a" : 1 }"#),
        (r#"{}"#, r#"{TIME "level":"INFO",}"#),
        (r#"{"ts":1,"msg":"m","level":"warn"}"#, r#"{"ts":1,"msg":"m","level":"warn"}"#),
        (
            r#"{"severity":"Warning","message":"m"}"#,
            r#"{TIME "level":"WARN","msg":"m","severity":"Warning","message":"m"}"#,
        ),
        (
            r#"{"event":"\u00e9v","text":7,"lvl":"?","log.level":"crit"}"#,
            r#"{TIME "level":"FATAL","msg":"\u00e9v","event":"\u00e9v","text":7,"lvl":"?","log.level":"crit"}"#,
        ),
        (
            r#"{"event":"e","text":"t","message":"m"}"#,
            r#"{TIME "level":"INFO","msg":"m","event":"e","text":"t","message":"m"}"#,
        ),
        (
            r#"{"\u006cevel":30,"m\u0073g":{},"t\u0069me":null}"#,
            r#"{"\u006cevel":30,"m\u0073g":{},"t\u0069me":null}"#,
        ),
        (r#"{"a":{"level":"x","time":1}}"#, r#"{TIME "level":"INFO","a":{"level":"x","time":1}}"#),
    ];
    for (input, expected) in cases {
        let expected = expected.replace(",}", "}");
        // The common fields stand between, with a comma of their own.
        let line = if input == "{}" {
            one(LogFormat::Json, input)
                .replace(r#","stream":"stdout","pod":"web-0","team":"a \"b\"""#, "")
                .replace(r#""time":"2026-11-20T10:00:00.123456Z","#, "TIME ")
        } else {
            merged(LogFormat::Json, input)
        };
        assert_eq!(line, expected);
    }
}

#[test]
fn a_common_field_is_left_out_where_the_program_has_its_name() {
    let line = one(LogFormat::Json, r#"{"time":1,"level":2,"pod":null,"str\u0065am":"mine"}"#);
    assert_eq!(line, r#"{"team":"a \"b\"","time":1,"level":2,"pod":null,"str\u0065am":"mine"}"#);
    // And is there again on the next.
    let lines = wrapped(&style(LogFormat::Json), Stream::Stdout, b"{\"pod\":1}\n{\"x\":1}\n");
    assert_eq!(parse(&lines[0])["pod"], 1);
    assert_eq!(parse(&lines[1])["pod"], "web-0");
    let line = one(LogFormat::Ecs, r#"{"ecs.version":"1","kubernetes.pod.name":"x"}"#);
    assert_eq!(line.matches("ecs.version").count(), 1, "{line}");
    assert_eq!(line.matches("kubernetes.pod.name").count(), 1, "{line}");
}

#[test]
fn in_ecs_a_time_of_another_name_is_not_the_one_that_is_asked_for() {
    let cases = [
        (r#"{"time":1,"log.level":"x"}"#, r#"{TIME "time":1,"log.level":"x"}"#),
        (r#"{"@timestamp":1,"log.level":"x"}"#, r#"{"@timestamp":1,"log.level":"x"}"#),
    ];
    for (input, expected) in cases {
        assert_eq!(merged(LogFormat::Ecs, input), expected);
    }
}

#[test]
fn levels_of_other_formats_become_the_words_of_this() {
    let cases = [
        (LogFormat::Gcp, r#"{"level":50}"#, r#"{TIME "severity":"ERROR","level":50}"#),
        (LogFormat::Gcp, r#"{"level":"trace"}"#, r#"{TIME "severity":"DEBUG","level":"trace"}"#),
        (LogFormat::Gcp, r#"{"severity":"NOTICE"}"#, r#"{TIME "severity":"NOTICE"}"#),
        (
            LogFormat::Ecs,
            r#"{"levelname":"WARNING","message":"m"}"#,
            r#"{TIME "log.level":"WARN","levelname":"WARNING","message":"m"}"#,
        ),
        (
            LogFormat::Gcp,
            r#"{"SeverityNumber":13}"#,
            r#"{TIME "severity":"WARNING","SeverityNumber":13}"#,
        ),
    ];
    for (format, input, expected) in cases {
        assert_eq!(merged(format, input), expected);
    }
}

#[test]
fn in_otel_members_are_attributes_unless_it_is_a_record() {
    let cases = [
        (
            r#"{"level":"warn","msg":"m","n":1}"#,
            r#"{TIME "SeverityText":"WARN","SeverityNumber":13,"Body":"m","Attributes":{"log.iostream":"stdout","level":"warn","msg":"m","n":1}}"#,
        ),
        (
            r#"{"log.iostream":"x","ts":1}"#,
            r#"{TIME "SeverityText":"INFO","SeverityNumber":9,"Attributes":{"log.iostream":"x","ts":1}}"#,
        ),
        (
            r#"{}"#,
            r#"{TIME "SeverityText":"INFO","SeverityNumber":9,"Attributes":{"log.iostream":"stdout"}}"#,
        ),
    ];
    for (input, expected) in cases {
        assert_eq!(merged(LogFormat::Otel, input), expected);
    }
    let resource = r#""Resource":{"k8s.pod.name":"web-0","team":"a \"b\""}"#;
    let records = [
        (
            r#"{"Timestamp":"1","Body":{"k":1},"SeverityNumber":17}"#,
            format!(
                r#"{{"Attributes":{{"log.iostream":"stdout"}},{resource},"Timestamp":"1","Body":{{"k":1}},"SeverityNumber":17}}"#
            ),
        ),
        (
            r#"{"time":"1","SeverityText":"WARN","Attributes":{},"Resource":{}}"#,
            r#"{"time":"1","SeverityText":"WARN","Attributes":{},"Resource":{}}"#.to_owned(),
        ),
        (
            r#"{"Body":"b","lvl":"e","Attributes":{},"ts":0}"#,
            format!(
                r#"{{"SeverityText":"ERROR","SeverityNumber":17,{resource},"Body":"b","lvl":"e","Attributes":{{}},"ts":0}}"#
            ),
        ),
    ];
    for (input, expected) in records {
        assert_eq!(one(LogFormat::Otel, input), expected);
    }
}

#[test]
fn an_object_that_is_none_or_has_no_room_is_text() {
    for input in ["{a}", "[1]", "{\"a\":1}x", "{\"a\":1},", "{\"a\":\"\\ud800\"}", "\x0c{}"] {
        assert_eq!(message(&parse(&one(LogFormat::Json, input))), input);
    }
    for len in LINE_MAX - 200..LINE_MAX + 10 {
        let input = format!(r#"{{"a":"{}"}}"#, "x".repeat(len - 8));
        let lines = wrapped(&style(LogFormat::Json), Stream::Stdout, input.as_bytes());
        if lines.len() == 1 {
            assert_eq!(parse(&lines[0])["a"].as_str().unwrap().len(), len - 8);
        } else {
            let text: String = lines.iter().map(|line| message(&parse(line))).collect();
            assert_eq!(text, input);
        }
    }
    assert_eq!(
        one(LogFormat::Text, r#"{"level":"warn"}"#),
        "2026-11-20T10:00:00.123456Z INFO  {\"level\":\"warn\"} stream=stdout pod=web-0 team=\"a \\\"b\\\"\""
    );
}

#[test]
fn a_long_line_is_split_into_marked_pieces() {
    let input = [b"short\n", "é".repeat(20_000).as_bytes(), b"\r\nshort\n"].concat();
    let lines = wrapped(&style(LogFormat::Json), Stream::Stderr, &input);
    assert_eq!(lines.len(), 5);
    let id = "18e9b88333390d152000000000000001";
    for (ordinal, line) in lines[1..4].iter().enumerate() {
        let line = parse(line);
        assert_eq!(line["level"], "ERROR");
        assert_eq!(line["pod"], "web-0");
        assert_eq!(line["partial_message"], "true");
        assert_eq!(line["partial_id"], id);
        assert_eq!(line["partial_ordinal"], (ordinal + 1).to_string());
        assert_eq!(line["partial_last"], (ordinal == 2).to_string());
    }
    assert_eq!(parse(&lines[4]).get("partial_id"), None);
    let line = one(LogFormat::Otel, &"x".repeat(16_000));
    assert_eq!(parse(&line)["Attributes"], json!({"log.iostream": "stdout"}));
    let lines = wrapped(&style(LogFormat::Otel), Stream::Stdout, &[b'x'; 17_000]);
    let attributes = &parse(&lines[1])["Attributes"];
    assert_eq!(attributes["partial_last"], "true");
    assert_eq!(attributes["log.iostream"], "stdout");
    let lines = wrapped(&style(LogFormat::Text), Stream::Stdout, &[b'x'; 17_000]);
    let marked: Vec<_> =
        lines.iter().map(|line| line.contains("x stream=stdout partial=1 ")).collect();
    assert_eq!(marked, [true, false]);
}

#[test]
fn the_last_piece_waits_for_the_end_of_the_line() {
    let mut wrapper = Wrapper::new(&style(LogFormat::Json), Stream::Stdout);
    let mut out = Vec::new();
    let input = vec![b'x'; 3 * wrapper.piece_room];
    assert_eq!(wrapper.wrap(&input, now(), &mut out, usize::MAX), input.len());
    assert_eq!(lines_of(out.clone()).len(), 2);
    assert_eq!(wrapper.lines(), 0);
    wrapper.wrap(b"\r", now(), &mut out, usize::MAX);
    assert_eq!(lines_of(out.clone()).len(), 2);
    wrapper.wrap(b"\n", now(), &mut out, usize::MAX);
    let lines = lines_of(out);
    assert_eq!(lines.len(), 3);
    assert_eq!(parse(&lines[2])["partial_last"], "true");
    assert_eq!(wrapper.lines(), 1);
}

#[test]
fn output_has_its_bound_and_what_is_not_taken_is_offered_again() {
    let mut wrapper = Wrapper::new(&style(LogFormat::Json), Stream::Stdout);
    let input = [vec![1; 64 * 1024], b"\nnext\n".to_vec()].concat();
    let mut rest = &input[..];
    let mut all = Vec::new();
    while !rest.is_empty() {
        let mut out = Vec::new();
        let taken = wrapper.wrap(rest, now(), &mut out, 1000);
        assert!(taken > 0 || !out.is_empty());
        assert!(out.len() < 1000 + LINE_MAX);
        rest = &rest[taken..];
        all.extend(out);
    }
    let mut full = vec![0; 1000];
    assert_eq!(wrapper.wrap(b"x\n", now(), &mut full, 1000), 0);
    assert_eq!(lines_of(all), wrapped(&style(LogFormat::Json), Stream::Stdout, &input));
}

#[test]
fn common_fields_leave_room_for_the_line() {
    let mut style = style(LogFormat::Json);
    style.fields.insert(0, ("huge".into(), "\u{1}".repeat(COMMON_MAX / 5)));
    style.fields.push(("long".into(), "x".repeat(COMMON_MAX / 2)));
    for format in FORMATS {
        style.format = format;
        let lines = wrapped(&style, Stream::Stdout, &[b'x'; 20_000]);
        assert!(lines.len() == 2 && lines.iter().all(|line| line.contains("long")), "{format:?}");
        assert!(lines.iter().all(|line| line.contains("team") && !line.contains("huge")));
    }
}

#[test]
fn a_clock_outside_of_the_calendar_is_no_panic() {
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
    let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    for format in FORMATS {
        for (now, otel, rfc) in [
            (far, "18446744073709551615", "9999-12-31T23:59:59.000000Z"),
            (before, "0", "1970-01-01T00:00:00.000000Z"),
        ] {
            let mut out = Vec::new();
            Wrapper::new(&style(format), Stream::Stdout).wrap(b"x\n", now, &mut out, 1);
            let line = &lines_of(out)[0];
            let time = if format == LogFormat::Otel { otel } else { rfc };
            assert!(line.contains(time), "{line}");
        }
    }
}

#[test]
fn the_time_is_that_of_the_call() {
    let mut wrapper = Wrapper::new(&style(LogFormat::Json), Stream::Stdout);
    let mut out = Vec::new();
    for seconds in 0..2 {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        wrapper.wrap(b"x\n{}\n", now, &mut out, usize::MAX);
    }
    let times: Vec<_> = lines_of(out).iter().map(|line| parse(line)["time"].clone()).collect();
    let [first, second] = ["1970-01-01T00:00:00.000000Z", "1970-01-01T00:00:01.000000Z"];
    assert_eq!(times, [first, first, second, second]);
}

// From here on: a slow model that is right at sight.

fn split(input: &[u8]) -> Vec<&[u8]> {
    let lines = input.split_inclusive(|byte| *byte == b'\n');
    let ended = lines.map(|line| match line.strip_suffix(b"\n") {
        Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
        None => line,
    });
    ended.collect()
}

fn parse(line: &str) -> Map<String, Value> {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

fn message(line: &Map<String, Value>) -> String {
    ["msg", "message", "Body"]
        .iter()
        .find_map(|name| line.get(*name))
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("{line:?}"))
        .to_owned()
}

fn common(format: LogFormat, stream: Stream) -> Map<String, Value> {
    let style = style(format);
    let mut common: Map<String, Value> =
        style.common().map(|(name, value)| (name.to_owned(), value.into())).collect();
    if format != LogFormat::Otel {
        common.insert(format.stream_key().to_owned(), stream.as_str().into());
    }
    if format == LogFormat::Ecs {
        common.insert("ecs.version".to_owned(), LogFormat::ECS_VERSION.into());
    }
    common
}

/// The line of a program without a time, a level or a message: fields are added.
fn check_object(
    format: LogFormat,
    stream: Stream,
    own: &Map<String, Value>,
    line: &str,
    raw: &str,
) {
    let inside = raw.trim_matches([' ', '\t', '\r', '\n']);
    let inside = &inside[1..inside.len() - 1];
    let line_map = parse(line);
    if format == LogFormat::Otel {
        let common = common(format, stream);
        let mut attributes = own.clone();
        attributes.entry("log.iostream").or_insert_with(|| stream.as_str().into());
        assert_eq!(line_map["Attributes"], Value::Object(attributes));
        assert_eq!(line_map["Resource"], Value::Object(common));
        assert!(line.contains(&format!("{inside}}},\"Resource\"")), "{line}");
    } else {
        let mut expected = common(format, stream);
        expected.extend(own.clone());
        for (name, value) in &expected {
            assert_eq!(&line_map[name], value, "{name} in {line}");
        }
        assert!(line.ends_with(&format!("{inside}}}")), "{line}");
    }
    let severity = match own.get("severity").and_then(Value::as_str) {
        Some("warn") => Severity::Warn,
        _ => stream.severity(),
    };
    let word = own.get(format.level_key()).cloned();
    assert_eq!(line_map[format.level_key()], word.unwrap_or_else(|| format.level(severity).into()));
}

/// What the lines of output must be for these bytes.
fn check(format: LogFormat, stream: Stream, input: &[u8], out: &[String]) {
    let mut out = out.iter();
    let mut splits = 0;
    for raw in split(input) {
        let text = String::from_utf8_lossy(raw);
        let line = out.next().unwrap();
        let object: Option<Map<String, Value>> = serde_json::from_slice(raw).ok();
        let map = parse(line);
        let marks = if format == LogFormat::Otel {
            map.get("Attributes").and_then(Value::as_object).unwrap_or(&map)
        } else {
            &map
        };
        if let Some(own) = object
            && !marks.contains_key("partial_id")
        {
            check_object(format, stream, &own, line, &text);
            continue;
        }
        let mut expected = common(format, stream);
        if format == LogFormat::Otel {
            let resource = std::mem::take(&mut expected);
            expected.insert("Resource".into(), resource.into());
            expected.insert("SeverityNumber".into(), stream.severity().number().into());
            expected.insert("Timestamp".into(), "1795168800123456789".into());
        } else {
            let time = "2026-11-20T10:00:00.123456Z";
            expected.insert(format.time_key().into(), time.into());
        }
        expected.insert(format.level_key().into(), format.level(stream.severity()).into());
        let expect = |message: &str, marks: Map<String, Value>, line: &Map<String, Value>| {
            let mut expected = expected.clone();
            expected.insert(format.message_key().into(), message.into());
            if format == LogFormat::Otel {
                let mut attributes = marks;
                attributes.insert("log.iostream".into(), stream.as_str().into());
                expected.insert("Attributes".into(), attributes.into());
            } else {
                expected.extend(marks);
            }
            assert_eq!(line, &expected);
        };
        if !marks.contains_key("partial_id") {
            expect(&text, Map::new(), &map);
            continue;
        }
        splits += 1;
        let id = format!(
            "18e9b88333390d15{}{splits:015x}",
            if stream == Stream::Stdout { 1 } else { 2 }
        );
        let mut joined = String::new();
        let mut line = line;
        for ordinal in 1.. {
            let map = parse(line);
            let piece = message(&map);
            joined += &piece;
            let is_last = joined.len() == text.len();
            let marks = json!({
                "partial_message": "true",
                "partial_id": id,
                "partial_ordinal": ordinal.to_string(),
                "partial_last": is_last.to_string(),
            });
            expect(&piece, marks.as_object().unwrap().clone(), &map);
            assert!(!piece.is_empty());
            if is_last {
                break;
            }
            assert!(line.len() > LINE_MAX - 40, "{} bytes", line.len());
            line = out.next().unwrap();
        }
        assert_eq!(joined, text);
    }
    assert_eq!(out.next(), None);
}

fn any_line() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "[ -~]{0,60}".prop_map(String::into_bytes),
        2 => any::<String>().prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ];
    let unit = proptest::sample::select(vec![
        b"x".to_vec(),
        b"\"".to_vec(),
        b"\x01".to_vec(),
        "é".into(),
        "€".into(),
        "\u{1f600}".into(),
        b"\xff".to_vec(),
        b"\xe2\x82".to_vec(),
        b"\xf0\x9f\x98".to_vec(),
        b"\r".to_vec(),
        b"a\xc3".to_vec(),
    ]);
    let long = (piece.clone(), unit, 15_000usize..17_500, 1usize..4)
        .prop_map(|(head, unit, bytes, by)| [head, unit.repeat(bytes / by / unit.len())].concat());
    let value = prop_oneof![
        Just("1".to_owned()),
        Just("null".to_owned()),
        Just(r#"{"a":[1,"}"]}"#.to_owned()),
        Just(r#""warn""#.to_owned()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        (15_000..17_000usize).prop_map(|len| format!("\"{}\"", "y".repeat(len))),
    ];
    let name = prop_oneof![
        "[a-z]{1,8}"
            .prop_filter("a name of ours", |name| words::Part::of(name.as_bytes()).is_none()),
        proptest::sample::select(vec!["severity", "pod", "stream", "team", "log.iostream", "é\n"])
            .prop_map(str::to_owned),
    ];
    let object = proptest::collection::vec((name, value), 0..6).prop_map(|members| {
        // Of several levels the first counts, and to serde_json the last.
        let mut has_level = false;
        let members = members
            .iter()
            .filter(|(name, _)| name != "severity" || !std::mem::replace(&mut has_level, true))
            .map(|(name, value)| format!("{} : {value}", serde_json::to_string(name).unwrap()));
        format!(" {{{}}}\t", members.collect::<Vec<_>>().join(",")).into_bytes()
    });
    prop_oneof![4 => piece, 1 => long, 4 => object]
}

fn any_input() -> impl Strategy<Value = Vec<u8>> {
    let end = prop_oneof![4 => Just(&b"\n"[..]), 1 => Just(&b"\r\n"[..]), 1 => Just(&b""[..])];
    proptest::collection::vec((any_line(), end), 0..8).prop_map(|lines| {
        lines.into_iter().flat_map(|(line, end)| [line, end.to_vec()].concat()).collect()
    })
}

fn any_format() -> impl Strategy<Value = LogFormat> {
    proptest::sample::select(FORMATS.to_vec())
}

fn any_stream() -> impl Strategy<Value = Stream> {
    prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr)]
}

#[test]
fn values_that_need_long_escapes_leave_room_for_the_line() {
    let pod = Some("\u{200e}\u{7f}".repeat(2000));
    for format in FORMATS {
        let identity = Identity { pod: pod.clone(), ..Identity::default() };
        let style = LogStyle { format, fields: Vec::new(), identity };
        let lines = wrapped(&style, Stream::Stdout, b"seen\n");
        assert!(lines.len() == 1 && lines[0].contains("seen"), "{format:?}");
        assert!(!lines[0].contains("\u{7f}") || format != LogFormat::Text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_give_what_the_slow_model_gives(
        input in any_input(), format in any_format(), stream in any_stream(),
    ) {
        prop_assume!(format != LogFormat::Text);
        check(format, stream, &input, &wrapped(&style(format), stream, &input));
    }

    #[test]
    fn in_the_text_format_joined_pieces_are_the_escaped_line(
        input in any_input(), stream in any_stream(),
    ) {
        let lines = wrapped(&style(LogFormat::Text), stream, &input);
        let mut lines = lines.iter();
        let start = format!("2026-11-20T10:00:00.123456Z {:<5} ", LogFormat::Text.level(stream.severity()));
        let end = " pod=web-0 team=\"a \\\"b\\\"\"";
        for raw in split(&input) {
            let mut joined = String::new();
            loop {
                let line = lines.next().unwrap().strip_prefix(&start).unwrap();
                let line = line.strip_suffix(end).unwrap();
                let continued = line.strip_suffix(" partial=1");
                let text = continued.unwrap_or(line);
                joined += text.strip_suffix(&format!(" stream={}", stream.as_str())).unwrap();
                if continued.is_none() {
                    break;
                }
            }
            let escape = |char: char| match char {
                '\t' => "\t".to_owned(),
                '\u{80}'..='\u{9f}' => format!("\\u{:04x}", u32::from(char)),
                '\0'..' ' => serde_json::to_string(&char).unwrap().trim_matches('"').to_owned(),
                char => char.to_string(),
            };
            let expected: String = String::from_utf8_lossy(raw).chars().map(escape).collect();
            prop_assert_eq!(joined, expected);
        }
        prop_assert_eq!(lines.next(), None);
    }

    #[test]
    fn the_cuts_of_reads_and_the_room_of_output_change_nothing(
        input in any_input(),
        format in any_format(),
        cuts in proptest::collection::vec(
            (prop_oneof![1usize..4, 1usize..300, 1usize..70_000, 16_000usize..16_500], 1usize..70_000),
            1..20,
        ),
    ) {
        let style = style(format);
        let mut wrapper = Wrapper::new(&style, Stream::Stdout);
        let mut all = Vec::new();
        let mut rest = &input[..];
        for (read, room) in cuts.iter().cycle() {
            let read = &rest[..rest.len().min(*read)];
            let mut out = Vec::new();
            let taken = wrapper.wrap(read, now(), &mut out, *room);
            prop_assert!(out.len() < room + LINE_MAX);
            prop_assert!(wrapper.carry.len() <= CARRY_MAX + 1);
            prop_assert!(taken > 0 || !out.is_empty() || read.is_empty());
            prop_assert!(taken == read.len() || out.len() >= *room);
            all.extend(out);
            rest = &rest[taken..];
            if rest.is_empty() {
                break;
            }
        }
        wrapper.finish(now(), &mut all);
        prop_assert_eq!(wrapper.lines(), split(&input).len() as u64);
        prop_assert_eq!(lines_of(all), wrapped(&style, Stream::Stdout, &input));
    }
}

//! Reads a line of any format back, for the tests: what its readers rely on is
//! asserted on the way. Nothing of it is in castoff.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::line::MAX_LEN;
use crate::policy::log_style::{LogFormat, Severity};

pub(super) const FORMATS: [LogFormat; 5] =
    [LogFormat::Json, LogFormat::Text, LogFormat::Gcp, LogFormat::Ecs, LogFormat::Otel];

/// What a line says, whatever its format is.
pub(super) struct Read {
    pub(super) format: LogFormat,
    pub(super) time: String,
    pub(super) level: Severity,
    pub(super) message: String,
    pub(super) event: String,
    /// The fields of the event, and those behind them, as they are named.
    pub(super) fields: Vec<(String, Value)>,
    /// The common ones, where they are in an object of their own.
    resource: Vec<(String, Value)>,
}

/// An object with its fields in the order in which they were written; none is
/// there twice.
struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Object;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields: Vec<(String, Value)> = Vec::new();
                while let Some((name, value)) = map.next_entry()? {
                    assert!(fields.iter().all(|(known, _)| *known != name), "{name} twice");
                    fields.push((name, value));
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl Read {
    #[track_caller]
    pub(super) fn of(format: LogFormat, line: &str) -> Self {
        assert!(line.len() <= MAX_LEN, "{} bytes", line.len());
        let text = line.strip_suffix('\n').unwrap_or_else(|| panic!("no end: {line}"));
        assert!(!text.contains('\n'), "{line}");
        if format == LogFormat::Text { Self::of_words(text) } else { Self::of_json(format, text) }
    }

    fn of_json(format: LogFormat, text: &str) -> Self {
        let Object(mut all) =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let keys = match format {
            LogFormat::Json | LogFormat::Text => vec!["time", "level", "msg", "event"],
            LogFormat::Gcp => vec!["time", "severity", "message", "event"],
            LogFormat::Ecs => {
                vec!["@timestamp", "log.level", "message", "ecs.version", "event.action"]
            }
            LogFormat::Otel => vec![
                "Timestamp",
                "SeverityText",
                "SeverityNumber",
                "Body",
                "EventName",
                "Attributes",
            ],
        };
        let mut fields = all.split_off(keys.len());
        let mut resource = Vec::new();
        assert!(all.iter().map(|(name, _)| name).eq(&keys), "{text}");
        let leading = |key: &str| {
            let (_, value) = all.iter().find(|(name, _)| name == key).unwrap();
            value.as_str().unwrap_or_else(|| panic!("{key}: {text}")).to_owned()
        };
        let word = leading(format.level_key());
        let of_word = |severity: &Severity| format.level(*severity) == word;
        let level = Severity::ALL.into_iter().rev().find(of_word).expect(&word);
        match format {
            LogFormat::Ecs => assert_eq!(leading("ecs.version"), LogFormat::ECS_VERSION),
            LogFormat::Otel => {
                let [.., (_, number), _, _, (_, attributes)] = &all[..] else { panic!("{text}") };
                assert_eq!(number, level.number());
                let object = |value: &Value| {
                    let fields = value.as_object().unwrap().iter();
                    fields.map(|(name, value)| (name.clone(), value.clone())).collect()
                };
                if let Some((name, value)) = fields.first() {
                    assert_eq!((name.as_str(), fields.len()), ("Resource", 1));
                    resource = object(value);
                }
                fields = object(attributes);
            }
            LogFormat::Json | LogFormat::Text | LogFormat::Gcp => {}
        }
        Self {
            format,
            time: leading(format.time_key()),
            level,
            message: leading(format.message_key()),
            event: leading(format.event_key()),
            fields,
            resource,
        }
    }

    /// `TIME LEVEL message event=... name=value ...`, each value a string.
    fn of_words(text: &str) -> Self {
        assert!(!text.chars().any(char::is_control), "{text:?}");
        let (time, rest) = text.split_once(' ').unwrap();
        let (word, rest) = rest.split_at(5);
        let of_word = |severity: &Severity| LogFormat::Text.level(*severity) == word.trim_end();
        let level = Severity::ALL.into_iter().find(of_word).expect(word);
        let (message, rest) = rest.split_at(rest.find(" event=").expect(text));
        let mut fields: Vec<(String, Value)> = Vec::new();
        let mut rest = rest;
        while let Some(field) = rest.strip_prefix(' ') {
            let (name, value) = field.split_once('=').expect(text);
            assert!(fields.iter().all(|(known, _)| *known != name), "{name} twice: {text}");
            let len = value_len(value);
            let (value, after) = value.split_at(len);
            let value = match value.strip_prefix('"') {
                // The escapes are those of JSON.
                Some(_) => serde_json::from_str(value).expect(text),
                None => value.into(),
            };
            fields.push((name.to_owned(), value));
            rest = after;
        }
        assert_eq!(rest, "", "{text}");
        let (_, event) = fields.remove(0);
        Self {
            format: LogFormat::Text,
            time: time.to_owned(),
            level,
            message: message.strip_prefix(' ').unwrap().to_owned(),
            event: event.as_str().unwrap().to_owned(),
            fields,
            resource: Vec::new(),
        }
    }

    /// A field of the event.
    pub(super) fn own(&self, name: &str) -> Option<&Value> {
        let prefix = if self.format == LogFormat::Ecs { "castoff." } else { "" };
        value_of(&self.fields, &format!("{prefix}{name}"))
    }

    /// A common one.
    pub(super) fn common(&self, name: &str) -> Option<&Value> {
        let is_apart = self.format == LogFormat::Otel;
        value_of(if is_apart { &self.resource } else { &self.fields }, name)
    }

    /// The line is of the same event as one of castoff's own format, at whatever
    /// time; `text` has texts only.
    #[track_caller]
    pub(super) fn assert_says(&self, json: &Self) {
        let head = |read: &Self| (read.level, read.message.clone(), read.event.clone());
        assert_eq!(head(self), head(json));
        let len = if self.format == LogFormat::Otel { 19 } else { 27 };
        assert_eq!(self.time.len(), len, "{}", self.time);
        assert_eq!(self.fields.len(), json.fields.len());
        for (name, expected) in &json.fields {
            let found = self.own(name).unwrap_or_else(|| panic!("no {name}"));
            match found.as_str() {
                Some(text) if self.format == LogFormat::Text && !expected.is_string() => {
                    assert_eq!(&serde_json::from_str::<Value>(text).expect(text), expected);
                }
                _ => assert_eq!(found, expected, "{name}"),
            }
        }
    }
}

fn value_of<'a>(fields: &'a [(String, Value)], name: &str) -> Option<&'a Value> {
    fields.iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

/// Up to the closing quote, or to the next space.
fn value_len(value: &str) -> usize {
    if !value.starts_with('"') {
        assert!(!value.is_empty());
        return value.find(' ').unwrap_or(value.len());
    }
    let mut is_escaped = false;
    let end = value.char_indices().skip(1).find(|(_, char)| {
        let is_end = *char == '"' && !is_escaped;
        is_escaped = *char == '\\' && !is_escaped;
        is_end
    });
    end.expect(value).0 + 1
}

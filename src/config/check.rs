//! The `[[check]]` tables of the configuration file.
//!
//! Owns their keys and what each may hold. What a key leaves out is taken from
//! the settings of the short form, which are not known here.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::file::as_variable;
use super::options::{Form, nearest};
use super::target::{TARGET, is_announcement, target};
use super::value::{CHECK_COUNT, CHECK_TIME, CheckCount, Positive, Value as _};
use crate::policy::checks::{HttpTarget, Level, Target};

/// The word before the tables: the only key of a file that is no setting.
pub(super) const WORD: &str = "check";

const KEYS: [&str; 8] =
    ["name", "level", "target", "period", "timeout", "failures", "successes", "headers"];

const NAME: &str = "a name of a to z, 0 to 9 and -, at most 63 long";
const LEVEL: &str = "live, ready or startup";
const CHILD_LEVEL: &str = "ready or startup for notify and fd:";
const HEADERS: &str = "a table of headers for an http:// target, such as { Host = \"app\" }";

/// One table. `None`: the key was left out.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CheckTable {
    pub(super) name: String,
    pub(super) level: Level,
    pub(super) target: Target,
    pub(super) period: Option<Duration>,
    pub(super) timeout: Option<Duration>,
    pub(super) failures: Option<u32>,
    pub(super) successes: Option<u32>,
    /// The file and its line, for errors and comments.
    pub(super) place: String,
}

/// Where the file's text is, for errors.
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    /// `/etc/castoff.toml:12`, for an offset.
    pub(super) place: &'a dyn Fn(usize) -> String,
}

/// Reads all tables of the key `check`.
pub(super) fn read(
    value: &Spanned<DeValue<'_>>,
    source: &Source<'_>,
    errors: &mut Vec<ConfigError>,
) -> Vec<CheckTable> {
    let place = (source.place)(value.span().start);
    let DeValue::Array(tables) = value.get_ref() else {
        errors.push(ConfigError::Value {
            given: format!("{WORD} ({place})"),
            expected: "tables that begin with [[check]]",
        });
        return Vec::new();
    };
    let mut found: Vec<CheckTable> = Vec::new();
    for table in tables {
        let place = (source.place)(table.span().start);
        let Some(fields) = table.get_ref().as_table() else {
            let given = format!("{WORD} ({place})");
            errors.push(ConfigError::Value { given, expected: "a table" });
            continue;
        };
        found.extend(Table { fields, place, source }.read(errors));
    }
    found
}

/// One table, being read.
struct Table<'a> {
    fields: &'a DeTable<'a>,
    place: String,
    source: &'a Source<'a>,
}

impl Table<'_> {
    fn read(&self, errors: &mut Vec<ConfigError>) -> Option<CheckTable> {
        let before = errors.len();
        for (key, _) in self.fields.iter().filter(|(key, _)| !KEYS.contains(&&**key.get_ref())) {
            let word = key.get_ref();
            errors.push(ConfigError::Unknown {
                name: format!("{word} in [[check]] ({})", (self.source.place)(key.span().start)),
                what: "key",
                nearest: nearest(word, KEYS.into_iter()).map(str::to_owned),
            });
        }
        let name = self.required("name", Form::Text, NAME, check_name, errors);
        let level = self.required("level", Form::Text, LEVEL, level, errors);
        let target = self.required("target", Form::Text, TARGET, target, errors);
        let target = self.with_headers(target, errors);
        if target.as_ref().is_some_and(is_announcement) && level == Some(Level::Live) {
            errors.push(self.refused("level", CHILD_LEVEL));
        }
        let time = |text: &OsStr| Positive::parse(text).map(|positive| positive.0);
        let count = |text: &OsStr| CheckCount::parse(text).map(|count| count.0);
        let table = CheckTable {
            period: self.value("period", Form::Number, CHECK_TIME, time, errors),
            timeout: self.value("timeout", Form::Number, CHECK_TIME, time, errors),
            failures: self.value("failures", Form::Number, CHECK_COUNT, count, errors),
            successes: self.value("successes", Form::Number, CHECK_COUNT, count, errors),
            name: name?,
            level: level?,
            target: target?,
            place: self.place.clone(),
        };
        (errors.len() == before).then_some(table)
    }

    fn get(&self, key: &str) -> Option<&Spanned<DeValue<'_>>> {
        self.fields.iter().find(|(found, _)| found.get_ref() == key).map(|(_, value)| value)
    }

    fn required<T>(
        &self,
        key: &'static str,
        form: Form,
        expected: &'static str,
        parse: impl Fn(&OsStr) -> Option<T>,
        errors: &mut Vec<ConfigError>,
    ) -> Option<T> {
        if self.get(key).is_none() {
            let table = format!("[[check]] ({})", self.place);
            errors.push(ConfigError::MissingKey { table, key, expected });
        }
        self.value(key, form, expected, parse, errors)
    }

    fn value<T>(
        &self,
        key: &'static str,
        form: Form,
        expected: &'static str,
        parse: impl Fn(&OsStr) -> Option<T>,
        errors: &mut Vec<ConfigError>,
    ) -> Option<T> {
        let text: Option<Cow<'_, OsStr>> = as_variable(form, self.get(key)?.get_ref());
        let value = text.as_deref().and_then(parse);
        if value.is_none() {
            errors.push(self.refused(key, expected));
        }
        value
    }

    fn refused(&self, key: &str, expected: &'static str) -> ConfigError {
        let span = self.get(key).map_or(0..0, |value| value.span());
        let place = (self.source.place)(span.start);
        let value = super::settings::shortened(self.source.text.get(span).unwrap_or_default());
        ConfigError::Value { given: format!("{key} = {value} ({place})"), expected }
    }

    fn with_headers(
        &self,
        target: Option<Target>,
        errors: &mut Vec<ConfigError>,
    ) -> Option<Target> {
        let Some(value) = self.get("headers") else { return target };
        let headers = value.get_ref().as_table().and_then(|table| {
            let header = |(name, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
                let (name, value) = (name.get_ref(), value.get_ref().as_str()?);
                is_header(name, value).then(|| (name.to_string(), value.to_owned()))
            };
            table.iter().map(header).collect::<Option<Vec<_>>>()
        });
        match (target, headers) {
            (Some(Target::Http(http)), Some(headers)) => {
                Some(Target::Http(HttpTarget { headers, ..http }))
            }
            (None, Some(_)) => None,
            (target, _) => {
                // Not as it was typed: one of them may be a password.
                let span = self.get("headers").map_or(0..0, |value| value.span());
                let given = format!("headers ({})", (self.source.place)(span.start));
                errors.push(ConfigError::Value { given, expected: HEADERS });
                target
            }
        }
    }
}

/// A field of HTTP (RFC 9110, 5.1 and 5.5).
fn is_header(name: &str, value: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_text = |byte: u8| byte == b'\t' || byte == b' ' || byte.is_ascii_graphic();
    !name.is_empty() && name.bytes().all(is_token) && value.bytes().all(is_text)
}

fn check_name(text: &OsStr) -> Option<String> {
    let name = text.to_str()?;
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_name = (1..=63).contains(&name.len()) && name.bytes().all(is_letter);
    is_name.then(|| name.to_owned())
}

fn level(text: &OsStr) -> Option<Level> {
    [Level::Live, Level::Ready, Level::Startup].into_iter().find(|level| text == level.as_str())
}

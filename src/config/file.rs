//! The configuration file: TOML with the words of the table as keys.
//!
//! Owns the way from TOML types to the syntax of variables, which is the one
//! that values are parsed from. It knows no setting by name.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::{self, CheckTable};
use super::environment::read_at_most;
use super::error::ConfigError;
use super::options::{Form, Key, SETTINGS, Setting, nearest};
use super::settings::{Given, Origin};

/// Bytes that a configuration file may have.
const LONGEST_FILE: u64 = 1024 * 1024;

/// The text of the file. `named` is the setting that names it, with its value.
pub(super) fn read(path: &Path, named: String, errors: &mut Vec<ConfigError>) -> Option<String> {
    let text = read_at_most(path, LONGEST_FILE).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|_| std::io::Error::other("the file is not UTF-8"))
    });
    text.map_err(|cause| errors.push(ConfigError::Read { given: named, cause })).ok()
}

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Contents<'a> {
    /// By rising line.
    pub(super) given: Vec<Given<'a>>,
    pub(super) checks: Vec<CheckTable>,
}

/// What the text gives. Nothing when it is no TOML at all.
pub(super) fn parse<'a>(path: &Path, text: &'a str, errors: &mut Vec<ConfigError>) -> Contents<'a> {
    let line = |at: usize| text.bytes().take(at).filter(|b| *b == b'\n').count() + 1;
    let place = |at: usize| format!("{}:{}", path.display(), line(at));
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            let line = line(error.span().map_or(0, |span| span.start));
            let place = format!("{}:{line}", path.display());
            let cause = error.message().replace('\n', "; ");
            errors.push(ConfigError::Syntax { place, cause });
            return Contents::default();
        }
    };
    let mut entries: Vec<_> = table.into_iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let mut contents = Contents::default();
    for (key, value) in entries {
        let line = line(key.span().start);
        let word = key.get_ref();
        if word == check::WORD {
            contents.checks = check::read(&value, &check::Source { text, place: &place }, errors);
            continue;
        }
        let Some(setting) = Setting::by_key(word) else {
            errors.push(ConfigError::Unknown {
                name: format!("{word} ({}:{line})", path.display()),
                what: "key",
                nearest: nearest(word, known()).map(str::to_owned),
            });
            continue;
        };
        contents.given.push(Given {
            setting,
            text: as_variable(setting.form, value.get_ref()),
            origin: Origin::File(path.to_owned(), line),
            source: text.get(value.span()),
        });
    }
    contents
}

/// The words that a file may use.
fn known() -> impl Iterator<Item = &'static str> {
    let settings = SETTINGS.iter().filter(|setting| setting.key != Key::Config);
    settings.map(|setting| setting.word).chain([check::WORD])
}

/// The value in the syntax of variables; `None` for a type that the setting
/// does not take.
pub(super) fn as_variable<'a>(form: Form, value: &DeValue<'a>) -> Option<Cow<'a, OsStr>> {
    let text = match (form, value) {
        (_, DeValue::String(Cow::Borrowed(text))) => return Some(Cow::Borrowed(OsStr::new(*text))),
        (_, DeValue::String(text)) => text.to_string(),
        (Form::Number, value) => number(value)?,
        (Form::Switch, DeValue::Boolean(value)) => value.to_string(),
        (Form::List, DeValue::Array(elements)) => {
            let element = |element: &Spanned<DeValue<'_>>| match element.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                value @ DeValue::Integer(_) => number(value),
                _ => None,
            };
            elements.iter().map(element).collect::<Option<Vec<_>>>()?.join(",")
        }
        (Form::Command, DeValue::Array(words)) => {
            let words = words.iter().map(|word| word.get_ref().as_str());
            shell_words::join(words.collect::<Option<Vec<_>>>()?)
        }
        _ => return None,
    };
    Some(Cow::Owned(text.into()))
}

/// An integer in decimal, whatever its radix in the file, or a float.
fn number(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Integer(integer) => {
            let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok()?;
            Some(number.to_string())
        }
        DeValue::Float(float) => Some(float.as_str().to_owned()),
        _ => None,
    }
}

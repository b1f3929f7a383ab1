//! Values about the log.

use std::ffi::OsStr;

use super::{Value, Words, elements, toml_array};
use crate::policy::log_style::{ChildLogs, LogFormat, RESERVED};

/// Bytes of all names and values together: every line has them, and has to stay
/// below 4096 bytes with something else on it.
const FIELDS_MAX: usize = 1024;

/// The pairs of `log_fields`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::config) struct Fields(pub(in crate::config) Vec<(String, String)>);

impl Value for Fields {
    fn parse(text: &OsStr) -> Option<Self> {
        let mut fields: Vec<(String, String)> = Vec::new();
        for element in elements(text)? {
            let (name, value) = element.split_once('=')?;
            let (name, value) = (name.trim_end(), value.trim_start());
            let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-/".contains(&byte);
            let is_known =
                fields.iter().any(|(known, _)| known == name) || RESERVED.contains(&name);
            if name.is_empty() || is_known || !name.bytes().all(is_word) {
                return None;
            }
            fields.push((name.to_owned(), value.to_owned()));
        }
        let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        (bytes <= FIELDS_MAX).then_some(Self(fields))
    }

    fn to_toml(&self) -> String {
        toml_array(self.0.iter().map(|(name, value)| format!("{name}={value}")))
    }
}

impl Words for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("json", Self::Json),
        ("text", Self::Text),
        ("gcp", Self::Gcp),
        ("ecs", Self::Ecs),
        ("otel", Self::Otel),
    ];
}

impl Words for ChildLogs {
    const WORDS: &'static [(&'static str, Self)] =
        &[("inherit", Self::Inherit), ("json", Self::Json)];
}

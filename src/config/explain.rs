//! `castoff explain`: the settings as whoever asks may paste them somewhere.
//!
//! Owns what is shown of a value that may hold a secret: of a command its program,
//! of a check's target neither query nor headers. `--print-config` shows them all,
//! for it is read back as a file.

use std::ffi::OsString;

use super::Config;
use super::value::toml_string;
use crate::policy::checks::Target;

/// What would be done, and why.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Explanation {
    /// The command may be empty: then the rest is told.
    pub(crate) config: Config,
    pub(crate) is_json: bool,
    /// Every one, in the order of `--help`.
    pub(crate) settings: Vec<Shown>,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Its TOML key.
    pub(crate) word: &'static str,
    /// A string, a number, or an array of these: TOML and JSON alike.
    pub(crate) value: String,
    /// `default`, a variable, a flag, or a file with its line.
    pub(crate) origin: String,
    pub(crate) is_default: bool,
}

/// A command without its arguments.
pub(super) fn command_shown(words: &[OsString]) -> String {
    let program = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    let rest = if words.len() > 1 { " ..." } else { "" };
    format!("{program}{rest}")
}

/// A target as the log has it.
pub(super) fn target_shown(target: &Target) -> String {
    toml_string(&target.label())
}

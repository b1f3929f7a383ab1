//! `castoff explain`: the settings as whoever asks may paste them somewhere.
//!
//! What is shown of a value that may hold a secret is with the kinds of values
//! (`Value::shown`); `--print-config` shows all, for it is read back as a file.

use super::Config;

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

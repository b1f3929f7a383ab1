//! Values about what castoff starts: commands, users, directories, and what
//! follows a change.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use super::{Value, toml_array, toml_string};
use crate::policy::reaction::Reaction;
use crate::policy::user::UserSpec;

/// The program of a hook and its arguments, if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Command(pub(in crate::config) Option<Vec<OsString>>);

/// The user of `user`, if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct User(pub(in crate::config) Option<UserSpec>);

/// A path that need not be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct OptionalPath(pub(in crate::config) Option<PathBuf>);

/// The directories of `env_dir`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Paths(pub(in crate::config) Vec<PathBuf>);

impl Value for Command {
    /// Quotes, backslashes and comments mean what they mean to a shell, and
    /// nothing else means anything.
    fn parse(text: &OsStr) -> Option<Self> {
        // No program can be given a NUL.
        if text.as_bytes().contains(&0) {
            return None;
        }
        // A char for each byte, for what is no UTF-8; all that counts is ASCII.
        let chars: String = text.as_bytes().iter().copied().map(char::from).collect();
        let words = shell_words::split(&chars).ok()?;
        let has_program = words.first().is_some_and(|program| !program.is_empty());
        let bytes = |word: &String| word.chars().filter_map(|c| u8::try_from(c).ok()).collect();
        let words = words.iter().map(|word| OsString::from_vec(bytes(word))).collect();
        has_program.then_some(Self(Some(words)))
    }

    fn to_toml(&self) -> String {
        let words = self.0.iter().flatten();
        toml_array(words.map(|word| word.to_string_lossy().into_owned()))
    }

    fn shown(&self) -> Option<String> {
        Some(toml_string(&command_shown(self.0.as_deref().unwrap_or_default())))
    }
}

impl Value for User {
    fn parse(text: &OsStr) -> Option<Self> {
        UserSpec::parse(text.to_str()?).map(|user| Self(Some(user)))
    }

    fn to_toml(&self) -> String {
        // Empty means unset.
        toml_string(&self.0.as_ref().map_or_else(String::new, UserSpec::to_string))
    }
}

impl Value for OptionalPath {
    fn parse(text: &OsStr) -> Option<Self> {
        PathBuf::parse(text).map(|path| Self(Some(path)))
    }

    fn to_toml(&self) -> String {
        self.0.clone().unwrap_or_default().to_toml()
    }
}

impl Value for Paths {
    fn parse(text: &OsStr) -> Option<Self> {
        let paths = text.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let path = |path: &[u8]| (!path.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(path)));
        paths.map(path).collect::<Option<_>>().map(Self)
    }

    fn to_toml(&self) -> String {
        toml_array(self.0.iter().map(|path| path.to_string_lossy().into_owned()))
    }
}

impl Value for Reaction {
    fn parse(text: &OsStr) -> Option<Self> {
        let after = |start: &str| text.as_bytes().strip_prefix(start.as_bytes());
        if text.eq_ignore_ascii_case("log") {
            return Some(Self::Log);
        }
        if text.eq_ignore_ascii_case("restart") {
            return Some(Self::Restart);
        }
        if let Some(signal) = after("signal:") {
            let signal = std::str::from_utf8(signal).ok()?.parse().ok()?;
            return Some(Self::Signal(signal));
        }
        let Command(command) = Command::parse(OsStr::from_bytes(after("exec:")?))?;
        command.map(Self::Exec)
    }

    fn to_toml(&self) -> String {
        match self {
            Self::Log => toml_string("log"),
            Self::Restart => toml_string("restart"),
            Self::Signal(signal) => toml_string(&format!("signal:{signal}")),
            Self::Exec(command) => {
                let words = command.iter().map(|word| word.to_string_lossy());
                toml_string(&format!("exec:{}", shell_words::join(words)))
            }
        }
    }

    fn shown(&self) -> Option<String> {
        let Self::Exec(command) = self else { return None };
        Some(toml_string(&format!("exec:{}", command_shown(command))))
    }
}

/// A command without its arguments.
fn command_shown(words: &[OsString]) -> String {
    let program = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    let rest = if words.len() > 1 { " ..." } else { "" };
    format!("{program}{rest}")
}

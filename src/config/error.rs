//! What can be wrong with a configuration, and how it is told.
//!
//! Every error names the setting as the user wrote it. They are collected and
//! printed together; nothing is started while there is one.

use std::fmt;
use std::io;

use super::value::TerminationLog;

/// Everything that is wrong, in the order in which it was found: the command
/// line, the variables, the file, then what the values mean together.
#[derive(Debug)]
pub(crate) struct ConfigErrors {
    pub(super) errors: Vec<ConfigError>,
    /// What was said of the termination message. castoff was not to supervise:
    /// nothing.
    pub(super) termination_log: TerminationLog,
}

impl ConfigErrors {
    pub(crate) fn termination_log(&self) -> &TerminationLog {
        &self.termination_log
    }

    /// What is wrong in a few words, without any value: more people may read a
    /// Pod's status than its settings.
    pub(crate) fn in_short(&self) -> String {
        let names: Vec<_> = self.errors.iter().map(ConfigError::subject).collect();
        format!("its settings cannot be used: {}", names.join(", "))
    }
}

impl fmt::Display for ConfigErrors {
    /// Lines for stderr, with a newline between them and none at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, error) in self.errors.iter().enumerate() {
            let newline = if nth == 0 { "" } else { "\n" };
            write!(f, "{newline}castoff: {error}")?;
            if let Some(hint) = error.hint() {
                write!(f, "\nhint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// One thing that is wrong. `given` is a name with its value, as written.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigError {
    #[error("cannot use {given}: expected {expected}")]
    Value { given: String, expected: &'static str },
    /// Without the value: a name that castoff does not know may hold a secret.
    #[error("cannot use {}: no such {what}, {}", name.escape_debug(), or_help(nearest))]
    Unknown { name: String, what: &'static str, nearest: Option<String> },
    #[error("cannot use {0} and {0}_FILE: only one of them may be set")]
    Both(String),
    #[error("cannot read {given}: {cause}")]
    Read { given: String, cause: io::Error },
    #[error("cannot read {place}: {cause}")]
    Syntax { place: String, cause: String },
    #[error("cannot use {flag}: a value is missing, expected {expected}")]
    MissingValue { flag: String, expected: &'static str },
    #[error("cannot use {table}: {key} is missing, expected {expected}")]
    MissingKey { table: String, key: &'static str, expected: &'static str },
    #[error("cannot use {given}: {other} has that name")]
    SameName { given: String, other: &'static str },
    #[error("cannot use {target} for the check {check}: {first} has a descriptor already")]
    SecondDescriptor { target: String, check: String, first: String },
    #[error("cannot use {flag}={value:?}: {flag} takes no value")]
    UnexpectedValue { flag: String, value: std::ffi::OsString },
    #[error("cannot run the sub-command {name}: castoff {} has none", env!("CARGO_PKG_VERSION"))]
    SubCommand { name: String },
    #[error("cannot start: COMMAND is missing")]
    NoCommand,
    #[error(
        "cannot fit the stop into {grace}: {drain} + {reserve} = {sum} leave the child no time"
    )]
    DoesNotFit { grace: String, drain: String, reserve: String, sum: String, shorten: &'static str },
    #[error("cannot use {max} with {min}: expected a maximum of {least} or more")]
    MaxBelowMin { max: String, min: String, least: String },
}

impl ConfigError {
    /// What it is about, as the user named it, without a value.
    fn subject(&self) -> &str {
        let given = match self {
            Self::Value { given, .. } | Self::Read { given, .. } | Self::SameName { given, .. } => {
                given
            }
            Self::Unknown { name, .. } | Self::SubCommand { name } => name,
            Self::Both(name) => name,
            Self::Syntax { place, .. } => place,
            Self::MissingValue { flag, .. } | Self::UnexpectedValue { flag, .. } => flag,
            Self::MissingKey { table, .. } => table,
            Self::SecondDescriptor { check, .. } => check,
            Self::NoCommand => "COMMAND",
            Self::DoesNotFit { grace, .. } => grace,
            Self::MaxBelowMin { max, .. } => max,
        };
        given.split(['=', ' ']).next().unwrap_or_default()
    }

    /// What cures it, where one act does.
    fn hint(&self) -> Option<String> {
        match self {
            Self::SubCommand { name } => {
                Some(format!("castoff -- {name} runs a program of that name"))
            }
            Self::NoCommand => Some("castoff [OPTIONS] [--] COMMAND [ARG...]".to_owned()),
            Self::DoesNotFit { shorten, .. } => {
                Some(format!("give more grace, on the platform too, or make the {shorten} shorter"))
            }
            _ => None,
        }
    }
}

fn or_help(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(
        || "see castoff --help".to_owned(),
        |nearest| format!("the nearest is {nearest}"),
    )
}

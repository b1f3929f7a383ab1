//! The values of settings: how each kind is read and printed.
//!
//! What is printed is read back as the same value. Nothing here knows which
//! setting a text belongs to or where it came from.

mod child;
mod log;
mod signals;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

pub(super) use child::{Command, OptionalPath, Paths, User};
pub(super) use log::Fields;
pub(super) use signals::{HangSignal, StopOn};

use crate::policy::exit::ExitMap;
use crate::policy::restart::Restart;
use crate::policy::runtime_env::{Profile, Rounding};
use crate::policy::stop_plan::{ReadinessOnStop, StopScope};
use crate::policy::traffic::Ports;

/// The longest duration that is accepted: 30 days. Operators of databases do
/// give a week of grace; beyond a month a number is in the wrong unit.
const LONGEST: Duration = Duration::from_secs(720 * 3600);

/// What errors say would have been accepted.
pub(super) const POSITIVE: &str = "a duration above 0 such as 5s, 500ms or 1m30s, at most 720h";
pub(super) const CHECK_TIME: &str = POSITIVE;
pub(super) const CHECK_COUNT: &str = "a number from 1 to 1000";
pub(super) const SWITCH: &str = "on or off";
pub(super) const REACTION: &str =
    "log, restart, a signal such as signal:SIGHUP, or a command such as exec:/bin/notify --all";
pub(super) const WATCHDOG: &str = "off or a duration above 0 such as 30s or 1m30s, at most 720h";

/// A kind of value. The caller knows what to expect and says so when `None`
/// comes back.
pub(super) trait Value: Sized {
    fn parse(text: &OsStr) -> Option<Self>;

    /// The part of a refused list that is to blame, where that is known.
    fn culprit(_text: &OsStr) -> Option<String> {
        None
    }

    /// As a TOML value.
    fn to_toml(&self) -> String;

    /// The same without what may be secret, where something may.
    fn shown(&self) -> Option<String> {
        None
    }
}

/// Where the endpoints are when nothing was set.
pub(crate) const DEFAULT_PORT: u16 = 9911;

/// Where the health endpoints listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// Nothing was set: port 9911 of every address.
    Default,
    /// This port of every address; castoff fails when it cannot be bound.
    Port(u16),
    /// This address; castoff fails when it cannot be bound.
    Address(SocketAddr),
    /// Nowhere.
    Off,
}

/// The least important line that is still written; the order is by volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// As many levels more as `-v` was given, up to `Trace`.
    pub(super) fn raised(self, levels: usize) -> Self {
        let louder = Self::WORDS.iter().map(|(_, level)| *level).filter(|level| *level > self);
        louder.take(levels).last().unwrap_or(self)
    }
}

/// The exit code of `stopped_exit_code`, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(pub(super) Option<u8>);

/// A duration that is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Positive(pub(super) Duration);

/// A number of results in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CheckCount(pub(super) u32);

/// On or off, in any of the usual words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Switch(pub(super) bool);

/// The interval of `watchdog`, if it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watchdog(pub(super) Option<Duration>);

/// Where the reason of a bad end is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TerminationLog {
    /// Nothing was set: Kubernetes' own file, where it exists.
    Default,
    /// This file.
    Path(PathBuf),
    /// Nowhere.
    Off,
}

/// The number of `restart_limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count(pub(super) u32);

/// The profiles of `sizing`; none means off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Profiles(pub(super) Vec<Profile>);

/// The share of `memory_ratio`: above 0, up to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ratio(pub(super) f64);

/// Values that are one word out of few, in any case.
trait Words: Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

impl Words for LogLevel {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("off", Self::Off),
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

impl Words for ReadinessOnStop {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("immediate", Self::Immediate),
        ("after-drain", Self::AfterDrain),
        ("never", Self::Never),
    ];
}

impl Words for StopScope {
    const WORDS: &'static [(&'static str, Self)] =
        &[("child", Self::Child), ("group", Self::Group)];
}

impl Words for Restart {
    const WORDS: &'static [(&'static str, Self)] =
        &[("never", Self::Never), ("on-failure", Self::OnFailure), ("always", Self::Always)];
}

impl Words for Rounding {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("floor", Self::Floor), ("ceil", Self::Ceil)];
}

impl<T: Words> Value for T {
    fn parse(text: &OsStr) -> Option<Self> {
        let word = Self::WORDS.iter().find(|(word, _)| text.eq_ignore_ascii_case(word));
        word.map(|(_, value)| *value)
    }

    fn to_toml(&self) -> String {
        let word = Self::WORDS.iter().find(|(_, value)| value == self);
        toml_string(word.map_or("", |(word, _)| word))
    }
}

impl Value for Duration {
    fn parse(text: &OsStr) -> Option<Self> {
        duration(text.to_str()?)
    }

    fn to_toml(&self) -> String {
        toml_string(&duration_text(*self))
    }
}

impl Value for Positive {
    fn parse(text: &OsStr) -> Option<Self> {
        Duration::parse(text).filter(|duration| !duration.is_zero()).map(Self)
    }

    fn to_toml(&self) -> String {
        self.0.to_toml()
    }
}

impl Value for PathBuf {
    fn parse(text: &OsStr) -> Option<Self> {
        Some(Self::from(text))
    }

    fn to_toml(&self) -> String {
        toml_string(&self.to_string_lossy())
    }
}

impl Value for TerminationLog {
    fn parse(text: &OsStr) -> Option<Self> {
        let is_off = text.eq_ignore_ascii_case("off");
        Some(if is_off { Self::Off } else { Self::Path(text.into()) })
    }

    fn to_toml(&self) -> String {
        match self {
            Self::Default => toml_string("/dev/termination-log"),
            Self::Path(path) => path.to_toml(),
            Self::Off => toml_string("off"),
        }
    }
}

impl Value for Ports {
    fn parse(text: &OsStr) -> Option<Self> {
        if text.eq_ignore_ascii_case("auto") {
            return Some(Self::Auto);
        }
        let mut ports = Vec::new();
        for element in elements(text)? {
            let port: u16 = number(element)?;
            if port == 0 {
                return None;
            }
            ports.push(port);
        }
        ports.sort_unstable();
        ports.dedup();
        Some(Self::Named(ports))
    }

    fn to_toml(&self) -> String {
        match self {
            Self::Auto => toml_string("auto"),
            Self::Named(ports) => {
                let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
                format!("[{}]", ports.join(", "))
            }
        }
    }
}

impl Value for Code {
    fn parse(text: &OsStr) -> Option<Self> {
        exit_code(text.to_str()?).map(|code| Self(Some(code)))
    }

    fn to_toml(&self) -> String {
        // Empty means unset.
        self.0.map_or_else(|| toml_string(""), |code| code.to_string())
    }
}

impl Value for Count {
    fn parse(text: &OsStr) -> Option<Self> {
        number(text.to_str()?).map(Self)
    }

    fn to_toml(&self) -> String {
        self.0.to_string()
    }
}

impl Value for CheckCount {
    fn parse(text: &OsStr) -> Option<Self> {
        number(text.to_str()?).filter(|count| (1..=1000).contains(count)).map(Self)
    }

    fn to_toml(&self) -> String {
        self.0.to_string()
    }
}

impl Value for Switch {
    fn parse(text: &OsStr) -> Option<Self> {
        let is = |words: [&str; 4]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
        match () {
            () if is(["1", "true", "yes", "on"]) => Some(Self(true)),
            () if is(["0", "false", "no", "off"]) => Some(Self(false)),
            () => None,
        }
    }

    fn to_toml(&self) -> String {
        toml_string(if self.0 { "on" } else { "off" })
    }
}

impl Value for Watchdog {
    fn parse(text: &OsStr) -> Option<Self> {
        if text.eq_ignore_ascii_case("off") {
            return Some(Self(None));
        }
        Positive::parse(text).map(|interval| Self(Some(interval.0)))
    }

    fn to_toml(&self) -> String {
        toml_string(&self.0.map_or_else(|| "off".to_owned(), duration_text))
    }
}

impl Value for ExitMap {
    fn parse(text: &OsStr) -> Option<Self> {
        let mut map = Self::default();
        for element in elements(text)? {
            let (from, to) = element.split_once(':')?;
            map.insert(exit_code(from)?, exit_code(to)?);
        }
        Some(map)
    }

    fn to_toml(&self) -> String {
        toml_array(self.pairs().iter().map(|(from, to)| format!("{from}:{to}")))
    }
}

impl Value for Listen {
    fn parse(text: &OsStr) -> Option<Self> {
        let text = text.to_str()?;
        if text.eq_ignore_ascii_case("off") {
            return Some(Self::Off);
        }
        if let Some(port) = text.strip_prefix(':') {
            return number(port).map(Self::Port);
        }
        text.parse().ok().map(Self::Address)
    }

    fn to_toml(&self) -> String {
        match self {
            Self::Default => toml_string(&format!(":{DEFAULT_PORT}")),
            Self::Port(port) => toml_string(&format!(":{port}")),
            Self::Address(address) => toml_string(&address.to_string()),
            Self::Off => toml_string("off"),
        }
    }
}

impl Value for Profiles {
    fn parse(text: &OsStr) -> Option<Self> {
        if text.eq_ignore_ascii_case("default") {
            return Some(Self(Profile::DEFAULT.to_vec()));
        }
        if text.eq_ignore_ascii_case("off") {
            return Some(Self(Vec::new()));
        }
        let mut profiles = Vec::new();
        for element in elements(text)? {
            let is_named = |profile: &Profile| element.eq_ignore_ascii_case(profile.as_str());
            let named = if element.eq_ignore_ascii_case("default") {
                Profile::DEFAULT.to_vec()
            } else {
                vec![Profile::ALL.into_iter().find(is_named)?]
            };
            for profile in named {
                if !profiles.contains(&profile) {
                    profiles.push(profile);
                }
            }
        }
        Some(Self(profiles))
    }

    fn to_toml(&self) -> String {
        match self.0.as_slice() {
            [] => toml_string("off"),
            all if *all == Profile::DEFAULT => toml_string("default"),
            some => toml_array(some.iter().map(|profile| profile.as_str().to_owned())),
        }
    }
}

impl Value for Ratio {
    fn parse(text: &OsStr) -> Option<Self> {
        let ratio: f64 = text.to_str()?.parse().ok()?;
        (ratio > 0.0 && ratio <= 1.0).then_some(Self(ratio))
    }

    fn to_toml(&self) -> String {
        // Debug, not Display: TOML wants `1.0`, not `1`.
        format!("{:?}", self.0)
    }
}

/// `500ms`, `5s`, `1m30s`; a bare integer is seconds.
fn duration(text: &str) -> Option<Duration> {
    let parsed = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        Duration::from_secs(text.parse().ok()?)
    } else {
        // humantime also takes days to years, spelt-out units and spaces, where
        // `1M` is a month; and it panics when the seconds overflow while it
        // carries nanoseconds. So it sees only what is short and in our units.
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
            let unit = digits.trim_start_matches(|c: char| c.is_ascii_alphabetic());
            let is_unit = ["us", "ms", "s", "m", "h"]
                .iter()
                .any(|known| digits.strip_suffix(unit) == Some(*known));
            if !is_unit || rest.len() - digits.len() > 12 {
                return None;
            }
            rest = unit;
        }
        humantime::parse_duration(text).ok()?
    };
    // Nothing finer than a microsecond can be printed back.
    (parsed <= LONGEST && parsed.subsec_nanos() % 1000 == 0).then_some(parsed)
}

/// `1m30s`; `0s` for nothing.
pub(crate) fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (u64::from(duration.subsec_millis()), "ms"),
        (u64::from(duration.subsec_micros() % 1000), "us"),
    ];
    let mut text = String::new();
    for (number, unit) in parts.into_iter().filter(|(number, _)| *number > 0) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{number}{unit}");
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// An exit code, 0 to 255, in digits only.
pub(super) fn exit_code(text: &str) -> Option<u8> {
    number(text)
}

/// A number in digits only: Rust itself would take `+1`.
pub(super) fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

/// The elements of a comma-separated list, without the spaces around them.
fn elements(text: &OsStr) -> Option<impl Iterator<Item = &str>> {
    Some(text.to_str()?.split(',').map(str::trim))
}

/// A TOML array of strings.
pub(super) fn toml_array(elements: impl Iterator<Item = String>) -> String {
    let elements: Vec<_> = elements.map(|element| toml_string(&element)).collect();
    format!("[{}]", elements.join(", "))
}

/// A TOML basic string.
pub(super) fn toml_string(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests;

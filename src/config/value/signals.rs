//! Values that are signals, each with those that it cannot be.

use std::ffi::OsStr;

use super::{Value, elements, toml_array, toml_string};
use crate::policy::signal::{Rewrite, Signal};
use crate::policy::stop_plan::StopSignal;

/// The signals of `stop_on`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct StopOn(pub(in crate::config) Vec<Signal>);

/// The signal of `hang_signal`, if any: one that a program can catch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct HangSignal(pub(in crate::config) Option<Signal>);

impl Value for StopOn {
    fn parse(text: &OsStr) -> Option<Self> {
        let mut signals = Vec::new();
        for element in elements(text)? {
            let signal: Signal = element.parse().ok()?;
            // 32 and 33 are the C library's: it lets nobody handle them.
            let is_reserved = matches!(signal.number(), 32 | 33);
            if signal.is_uncatchable() || signal.is_fault() || is_reserved || signal == Signal::CHLD
            {
                return None;
            }
            if !signals.contains(&signal) {
                signals.push(signal);
            }
        }
        Some(Self(signals))
    }

    fn to_toml(&self) -> String {
        toml_array(self.0.iter().map(Signal::to_string))
    }
}

impl Value for StopSignal {
    fn parse(text: &OsStr) -> Option<Self> {
        if text.eq_ignore_ascii_case("received") {
            return Some(Self::Received);
        }
        let signal: Signal = text.to_str()?.parse().ok()?;
        (signal != Signal::STOP).then_some(Self::Fixed(signal))
    }

    fn to_toml(&self) -> String {
        match self {
            Self::Received => toml_string("received"),
            Self::Fixed(signal) => toml_string(&signal.to_string()),
        }
    }
}

impl Value for HangSignal {
    fn parse(text: &OsStr) -> Option<Self> {
        let signal: Signal = text.to_str()?.parse().ok()?;
        // Neither could make a program tell anything.
        (!signal.is_uncatchable()).then_some(Self(Some(signal)))
    }

    fn to_toml(&self) -> String {
        // Empty means unset.
        toml_string(&self.0.map_or_else(String::new, |signal| signal.to_string()))
    }
}

impl Value for Rewrite {
    fn parse(text: &OsStr) -> Option<Self> {
        let mut rewrite = Self::default();
        for element in elements(text)? {
            let (from, to) = element.split_once(':')?;
            let from: Signal = from.parse().ok()?;
            // castoff never receives these two.
            if from.is_uncatchable() {
                return None;
            }
            rewrite.insert(from, if to == "0" { None } else { Some(to.parse().ok()?) });
        }
        Some(rewrite)
    }

    fn to_toml(&self) -> String {
        toml_array(self.pairs().iter().map(|(from, to)| match to {
            Some(to) => format!("{from}:{to}"),
            None => format!("{from}:0"),
        }))
    }
}

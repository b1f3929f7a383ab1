//! Signal numbers and their names, as `man 7 signal` has them for Linux.
//!
//! Owns parsing and printing. It never sends or receives a signal.

use std::fmt;
use std::str::FromStr;

/// A signal's number, 1 to 64. All of them, with 32 and 33, which the C
/// library keeps for itself and its own types therefore cannot express.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Signal(u8);

/// The names of the standard signals by number, from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Other names for the same numbers.
const ALIASES: [(&str, u8); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];

/// The first real-time signal that programs see; the kernel's own is 32.
const RTMIN: u8 = 34;

impl Signal {
    pub(crate) const MAX: usize = 64;
    pub(crate) const HUP: Self = Self(1);
    pub(crate) const INT: Self = Self(2);
    pub(crate) const KILL: Self = Self(9);
    pub(crate) const TERM: Self = Self(15);
    pub(crate) const CHLD: Self = Self(17);
    pub(crate) const CONT: Self = Self(18);
    pub(crate) const STOP: Self = Self(19);
    pub(crate) const TSTP: Self = Self(20);

    /// The signal of that number, if there is one.
    pub(crate) fn new(number: i32) -> Option<Self> {
        u8::try_from(number).ok().filter(|n| (1..=Self::MAX as u8).contains(n)).map(Self)
    }

    pub(crate) fn number(self) -> i32 {
        i32::from(self.0)
    }

    /// Every signal, by rising number.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (1..=Self::MAX as u8).map(Self)
    }

    /// SIGKILL and SIGSTOP, which no process can catch.
    pub(crate) fn is_uncatchable(self) -> bool {
        matches!(self, Self::KILL | Self::STOP)
    }

    /// What stops and continues, as a shell's keys do.
    pub(crate) fn is_job_control(self) -> bool {
        matches!(self.0, 18..=22)
    }

    /// Of these the kernel keeps every one that is pending, of the others one.
    pub(crate) fn is_real_time(self) -> bool {
        self.0 > 31
    }

    /// Signals by which the kernel reports a fault of the receiving thread
    /// itself. A handler for them cannot return.
    pub(crate) fn is_fault(self) -> bool {
        matches!(self.0, 4 | 7 | 8 | 11)
    }
}

/// Signals that become others on their way to the child (CASTOFF_REWRITE).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rewrite(Vec<(Signal, Option<Signal>)>);

impl Rewrite {
    /// From now on `from` becomes `to`, or is dropped; the last word on a
    /// signal counts.
    pub(crate) fn insert(&mut self, from: Signal, to: Option<Signal>) {
        self.0.retain(|(known, _)| *known != from);
        self.0.push((from, to));
    }

    /// What the child gets in place of `signal`, if anything.
    pub(crate) fn apply(&self, signal: Signal) -> Option<Signal> {
        self.0.iter().find(|(from, _)| *from == signal).map_or(Some(signal), |(_, to)| *to)
    }

    /// The pairs, in the order in which they were given.
    pub(crate) fn pairs(&self) -> &[(Signal, Option<Signal>)] {
        &self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (NAMES.get(usize::from(self.0) - 1), self.0) {
            (Some(name), _) => write!(f, "SIG{name}"),
            (None, RTMIN) => f.write_str("SIGRTMIN"),
            (None, 64) => f.write_str("SIGRTMAX"),
            (None, n) if n > RTMIN => write!(f, "SIGRTMIN+{}", n - RTMIN),
            (None, n) => write!(f, "SIG{n}"),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no signal; the caller says which setting it came from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotASignal;

impl FromStr for Signal {
    type Err = NotASignal;

    /// `SIGTERM`, `TERM`, `term`, `15`, `SIGRTMIN+3`, `RTMAX-1`.
    fn from_str(text: &str) -> Result<Self, NotASignal> {
        if let Ok(number) = text.parse::<i32>() {
            return Self::new(number).ok_or(NotASignal);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(at) = NAMES.iter().position(|known| *known == name) {
            return Self::new(at as i32 + 1).ok_or(NotASignal);
        }
        if let Some((_, number)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
            return Ok(Self(*number));
        }
        let offset = |rest: &str, sign: char| match rest.strip_prefix(sign) {
            Some(digits) => digits.parse::<u8>().map_err(|_| NotASignal),
            None if rest.is_empty() => Ok(0),
            None => Err(NotASignal),
        };
        let number = if let Some(rest) = name.strip_prefix("RTMIN") {
            RTMIN.checked_add(offset(rest, '+')?)
        } else if let Some(rest) = name.strip_prefix("RTMAX") {
            (Self::MAX as u8).checked_sub(offset(rest, '-')?)
        } else {
            // "SIG32", as printed for the two that have no name.
            name.parse::<u8>().ok().filter(|_| upper.starts_with("SIG"))
        };
        number
            .filter(|n| *n >= RTMIN || name.starts_with("3"))
            .and_then(|n| Self::new(i32::from(n)))
            .ok_or(NotASignal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_is_read_back_from_its_name() {
        for signal in Signal::all() {
            assert_eq!(signal.to_string().parse(), Ok(signal), "{signal}");
            assert_eq!(signal.number().to_string().parse(), Ok(signal), "{signal}");
        }
    }

    #[test]
    fn the_forms_of_the_field_are_understood() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("TERM", 15),
            ("term", 15),
            ("sigquit", 3),
            ("3", 3),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("RTMAX", 64),
            ("POLL", 29),
        ] {
            assert_eq!(text.parse(), Ok(Signal(number)), "{text}");
        }
    }

    #[test]
    fn a_signal_is_rewritten_once_and_the_last_word_counts() {
        let mut rewrite = Rewrite::default();
        assert_eq!(rewrite.apply(Signal::TERM), Some(Signal::TERM));
        rewrite.insert(Signal::TERM, Some(Signal::INT));
        rewrite.insert(Signal::INT, None);
        assert_eq!(rewrite.apply(Signal::TERM), Some(Signal::INT));
        assert_eq!(rewrite.apply(Signal::INT), None);
        rewrite.insert(Signal::INT, Some(Signal::KILL));
        assert_eq!(rewrite.apply(Signal::INT), Some(Signal::KILL));
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in [
            "", "0", "65", "-1", "SIG", "SIGFOO", "RTMIN+31", "RTMAX-31", "RTMIN-1", "15 ", "SIG15",
        ] {
            assert_eq!(text.parse::<Signal>(), Err(NotASignal), "{text}");
        }
    }
}

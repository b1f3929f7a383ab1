//! How a process ended, and the number that castoff itself ends with.
//!
//! Owns the exit codes of the contract. It never waits for a process.

use super::signal::Signal;

/// castoff's own failure: usage, configuration, an address that cannot be bound.
pub(crate) const CASTOFF_FAILED: u8 = 125;
/// The command was found but cannot be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
pub(crate) const NOT_FOUND: u8 = 127;

/// What `waitpid` says of a process that has ended (`man 2 waitpid`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitReason {
    /// It called `exit` with this code.
    Code(u8),
    /// This signal ended it.
    Signal(Signal),
}

impl ExitReason {
    /// The shell's number for it: the code itself, or 128 + n.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal.number() as u8,
        }
    }
}

/// How the child's end looks to castoff, which knows what it has done itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildEnd {
    /// It called `exit` on its own.
    Exited,
    /// A signal that castoff did not ask for ended it.
    Signalled,
    /// It ended after castoff had told it to stop, before the deadline.
    Stopped,
    /// It ended by the SIGKILL of the deadline, or of a third stop signal.
    KilledAtDeadline,
}

/// Exit codes that castoff replaces (CASTOFF_EXIT_MAP and `-e`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExitMap(Vec<(u8, u8)>);

impl ExitMap {
    /// From now on `from` becomes `to`; the last word on a code counts.
    pub(crate) fn insert(&mut self, from: u8, to: u8) {
        self.0.retain(|(known, _)| *known != from);
        self.0.push((from, to));
    }

    /// What castoff exits with when the child's own code is `code`.
    pub(crate) fn apply(&self, code: u8) -> u8 {
        self.0.iter().find(|(from, _)| *from == code).map_or(code, |(_, to)| *to)
    }

    /// The pairs, in the order in which they were given.
    pub(crate) fn pairs(&self) -> &[(u8, u8)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_counts_from_128() {
        assert_eq!(ExitReason::Code(42).code(), 42);
        assert_eq!(ExitReason::Signal(Signal::KILL).code(), 137);
        assert_eq!(Signal::new(64).map(|rtmax| ExitReason::Signal(rtmax).code()), Some(192));
    }

    #[test]
    fn only_mapped_codes_change_and_only_once() {
        let mut map = ExitMap::default();
        map.insert(143, 0);
        map.insert(0, 7);
        map.insert(130, 1);
        map.insert(130, 2);
        assert_eq!([143, 0, 130, 1].map(|code| map.apply(code)), [0, 7, 2, 1]);
    }
}

//! Why the child ended: what the kernel says of its end, against what castoff
//! has done and the OOM killer has counted.
//!
//! Owns the names of the contract. It never guesses: where nothing is known of
//! a signal's sender, nothing is said.

use std::fmt;
use std::time::{Duration, Instant};

use super::exit::{ChildEnd, ExitReason};
use super::signal::Signal;

/// For how long a signal that castoff has passed on explains the child's end by
/// that very signal: a handler may have something to do before it lets go.
const FORWARDED_TIME: Duration = Duration::from_secs(10);

/// By these a program is ended for what it did itself: ILL, TRAP, ABRT, BUS, FPE,
/// SEGV, SYS (`man 7 signal`).
const FAULTS: [i32; 7] = [4, 5, 6, 7, 8, 11, 31];

/// How the child's end is named in `child_exited` and in the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It called `exit` on its own.
    Exited,
    /// A signal ended it that is neither castoff's nor the OOM killer's.
    Signalled,
    /// It ended after castoff had told it to stop, before the deadline.
    Stopped,
    /// It ended by the SIGKILL of the deadline, or of a third stop signal.
    KilledAtDeadline,
    /// The kernel's OOM killer ended it.
    OomKilled,
}

impl Reason {
    pub(crate) const ALL: [Self; 5] =
        [Self::Exited, Self::Signalled, Self::Stopped, Self::KilledAtDeadline, Self::OomKilled];

    /// The OOM killer outranks a stop that was under way, and castoff's own kill
    /// as well when it came first.
    pub(crate) fn new(end: ChildEnd, is_oom: bool) -> Self {
        match end {
            _ if is_oom => Self::OomKilled,
            ChildEnd::Exited => Self::Exited,
            ChildEnd::Signalled => Self::Signalled,
            ChildEnd::Stopped => Self::Stopped,
            ChildEnd::KilledAtDeadline => Self::KilledAtDeadline,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Signalled => "signalled",
            Self::Stopped => "stopped",
            Self::KilledAtDeadline => "killed_at_deadline",
            Self::OomKilled => "oom_killed",
        }
    }
}

/// How often children have ended for each reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExitCounts([u64; Reason::ALL.len()]);

impl ExitCounts {
    pub(crate) fn add(&mut self, reason: Reason) {
        if let Some(count) = self.0.get_mut(reason as usize) {
            *count += 1;
        }
    }

    /// Every reason, also those that never were.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.into_iter().zip(self.0)
    }
}

/// Who sent a signal to castoff (`man 2 sigaction`, si_code and si_pid).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// A process outside of this pid namespace: the container's runtime.
    Outside { uid: u32 },
    /// The kernel, for instance because of a key pressed at the terminal.
    Kernel,
    /// A process of this namespace; `command` is its name, when it still ran and
    /// somebody looked.
    Process { pid: i32, uid: u32, command: Option<String> },
}

impl Sender {
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Outside { .. } => "outside",
            Self::Kernel => "kernel",
            Self::Process { .. } => "process",
        }
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        match self {
            Self::Process { pid, .. } => Some(*pid),
            Self::Outside { .. } | Self::Kernel => None,
        }
    }

    pub(crate) fn uid(&self) -> Option<u32> {
        match self {
            Self::Outside { uid } | Self::Process { uid, .. } => Some(*uid),
            Self::Kernel => None,
        }
    }

    pub(crate) fn command(&self) -> Option<&str> {
        match self {
            Self::Process { command, .. } => command.as_deref(),
            Self::Outside { .. } | Self::Kernel => None,
        }
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { uid } => write!(f, "outside the container (uid {uid})"),
            Self::Kernel => f.write_str("the kernel"),
            Self::Process { pid, uid, command: Some(command) } => {
                write!(f, "{command} (pid {pid}, uid {uid})")
            }
            Self::Process { pid, uid, command: None } => write!(f, "pid {pid} (uid {uid})"),
        }
    }
}

/// What is known of a signal that ended the child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// castoff had just passed it on from there.
    Forwarded(Sender),
    /// castoff has sent it to stop the child.
    Castoff,
    /// A fault of its own, as far as castoff can see.
    Fault,
}

impl Origin {
    /// As in `child_exited`.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Forwarded(_) => "forwarded",
            Self::Castoff => "castoff",
            Self::Fault => "fault",
        }
    }
}

/// The signals that the child was sent by castoff, the last of each.
#[derive(Clone, Debug, Default)]
pub(crate) struct SentSignals(Vec<Sent>);

#[derive(Clone, Debug)]
struct Sent {
    signal: Signal,
    /// `None`: castoff itself.
    sender: Option<Sender>,
    at: Instant,
}

impl SentSignals {
    /// `sender` is whose signal was passed on; `None`: it is castoff's own.
    pub(crate) fn add(&mut self, signal: Signal, sender: Option<Sender>, now: Instant) {
        self.0.retain(|sent| sent.signal != signal);
        self.0.push(Sent { signal, sender, at: now });
    }

    /// Another child was sent none of them.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Where the signal came from that has ended the child.
    pub(crate) fn origin(&self, signal: Signal, now: Instant) -> Option<Origin> {
        let sent = self.0.iter().find(|sent| sent.signal == signal);
        match sent {
            // A stop may take as long as its grace period.
            Some(Sent { sender: None, .. }) => Some(Origin::Castoff),
            Some(Sent { sender: Some(sender), at, .. })
                if now.saturating_duration_since(*at) < FORWARDED_TIME =>
            {
                Some(Origin::Forwarded(sender.clone()))
            }
            _ => FAULTS.contains(&signal.number()).then_some(Origin::Fault),
        }
    }
}

/// The end of one child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Death {
    pub(crate) exit: ExitReason,
    pub(crate) reason: Reason,
    /// Of the signal, where it is known.
    pub(crate) origin: Option<Origin>,
    pub(crate) is_core_dumped: bool,
}

impl Death {
    /// Whether it is one that nobody wanted: an exit without being asked, a signal
    /// that castoff has not sent, the deadline, the OOM killer. `code` is what
    /// castoff makes of it: what CASTOFF_EXIT_MAP calls a success is one.
    pub(crate) fn is_abnormal(&self, code: u8) -> bool {
        let is_crash = matches!(self.exit, ExitReason::Signal(_)) && !self.is_sent_by_castoff();
        match self.reason {
            _ if code == 0 => false,
            Reason::Stopped => is_crash,
            Reason::Exited | Reason::Signalled | Reason::KilledAtDeadline | Reason::OomKilled => {
                true
            }
        }
    }

    fn is_sent_by_castoff(&self) -> bool {
        matches!(self.origin, Some(Origin::Castoff | Origin::Forwarded(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(number: i32) -> Signal {
        Signal::new(number).expect("a signal")
    }

    fn death(exit: ExitReason, reason: Reason, origin: Option<Origin>) -> Death {
        Death { exit, reason, origin, is_core_dumped: false }
    }

    #[test]
    fn the_oom_killer_outranks_whatever_castoff_was_about_to_do() {
        for (end, reason) in [
            (ChildEnd::Exited, Reason::Exited),
            (ChildEnd::Signalled, Reason::Signalled),
            (ChildEnd::Stopped, Reason::Stopped),
            (ChildEnd::KilledAtDeadline, Reason::KilledAtDeadline),
        ] {
            assert_eq!(Reason::new(end, false), reason);
            assert_eq!(Reason::new(end, true), Reason::OomKilled);
        }
    }

    #[test]
    fn each_reason_is_counted_by_its_name() {
        let mut counts = ExitCounts::default();
        counts.add(Reason::OomKilled);
        counts.add(Reason::Exited);
        counts.add(Reason::Exited);
        let told: Vec<_> = counts.all().map(|(reason, count)| (reason.as_str(), count)).collect();
        let names = ["exited", "signalled", "stopped", "killed_at_deadline", "oom_killed"];
        let expected: Vec<_> = names.into_iter().zip([2, 0, 0, 0, 1]).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn a_signal_is_explained_by_what_castoff_has_just_passed_on() {
        let now = Instant::now();
        let kill = Sender::Process { pid: 7, uid: 0, command: Some("kill".to_owned()) };
        let mut sent = SentSignals::default();
        sent.add(signal(10), Some(Sender::Kernel), now);
        sent.add(signal(10), Some(kill.clone()), now);
        sent.add(signal(15), None, now);
        assert_eq!(sent.origin(signal(10), now), Some(Origin::Forwarded(kill)));
        // Another signal, and one that was long ago.
        assert_eq!(sent.origin(signal(12), now), None);
        assert_eq!(sent.origin(signal(10), now + FORWARDED_TIME), None);
        assert_eq!(sent.origin(signal(15), now + FORWARDED_TIME), Some(Origin::Castoff));
        sent.clear();
        assert_eq!(sent.origin(signal(10), now), None);
    }

    #[test]
    fn a_fault_is_its_own_unless_castoff_has_passed_it_on() {
        let (now, mut sent) = (Instant::now(), SentSignals::default());
        let faults = Signal::all().filter(|signal| sent.origin(*signal, now).is_some());
        let faults: Vec<_> = faults.map(|signal| signal.to_string()).collect();
        let expected = ["SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGSEGV", "SIGSYS"];
        assert_eq!(faults, expected);
        sent.add(signal(11), Some(Sender::Outside { uid: 0 }), now);
        let from = Origin::Forwarded(Sender::Outside { uid: 0 });
        assert_eq!(sent.origin(signal(11), now), Some(from));
    }

    #[test]
    fn what_was_asked_for_or_is_called_a_success_is_not_abnormal() {
        let (term, kill) = (ExitReason::Signal(Signal::TERM), ExitReason::Signal(Signal::KILL));
        let stopped = death(term, Reason::Stopped, Some(Origin::Castoff));
        assert!(!stopped.is_abnormal(143));
        assert!(!death(ExitReason::Code(3), Reason::Stopped, None).is_abnormal(3));
        assert!(!death(ExitReason::Code(0), Reason::Exited, None).is_abnormal(0));
        assert!(death(ExitReason::Code(3), Reason::Exited, None).is_abnormal(3));
        assert!(death(ExitReason::Code(0), Reason::Exited, None).is_abnormal(3), "mapped");
        for reason in [Reason::KilledAtDeadline, Reason::OomKilled, Reason::Signalled] {
            assert!(death(kill, reason, None).is_abnormal(137), "{reason:?}");
            assert!(!death(kill, reason, None).is_abnormal(0), "{reason:?}");
        }
        // It was stopping, and crashed.
        let crash = death(ExitReason::Signal(signal(11)), Reason::Stopped, Some(Origin::Fault));
        assert!(crash.is_abnormal(139));
        assert!(death(kill, Reason::Stopped, None).is_abnormal(137), "somebody else's");
    }

    #[test]
    fn a_sender_is_told_in_words() {
        let process = |command: Option<&str>| {
            let command = command.map(str::to_owned);
            Sender::Process { pid: 7, uid: 1000, command }.to_string()
        };
        assert_eq!(process(Some("sh")), "sh (pid 7, uid 1000)");
        assert_eq!(process(None), "pid 7 (uid 1000)");
        assert_eq!(Sender::Kernel.to_string(), "the kernel");
        assert_eq!(Sender::Outside { uid: 0 }.to_string(), "outside the container (uid 0)");
    }
}

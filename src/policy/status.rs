//! What castoff knows of itself at one moment, as the endpoints show it.
//!
//! The supervisor publishes a `Status` after every event; `health`, `metrics`
//! and `statusz` turn it into answers. It holds facts and what follows from them
//! at once, no text.

use std::time::Instant;

use super::checks::{CheckReport, Level};
use super::death::ExitCounts;
use super::exit::ExitReason;
use super::limits::Limits;
use super::signal::Signal;

/// Where castoff stands between its start and its end. The names are the
/// contract's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PhaseName {
    /// The child has not been ready yet.
    Starting,
    /// The child runs and nobody has asked for a stop.
    Serving,
    /// A stop was requested; the child has not been told yet.
    Draining,
    /// The child has its stop signal.
    Stopping,
    /// The deadline has passed: everything has been sent SIGKILL.
    Killing,
    /// The child has gone; its descendants were told to end.
    Sweeping,
    /// Nothing is left.
    Exited,
}

impl PhaseName {
    /// Every phase, in the order of a life.
    pub(crate) const ALL: [Self; 7] = [
        Self::Starting,
        Self::Serving,
        Self::Draining,
        Self::Stopping,
        Self::Killing,
        Self::Sweeping,
        Self::Exited,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Killing => "killing",
            Self::Sweeping => "sweeping",
            Self::Exited => "exited",
        }
    }
}

/// How often each signal was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignalCounts([u64; Signal::MAX]);

impl Default for SignalCounts {
    fn default() -> Self {
        Self([0; Signal::MAX])
    }
}

impl SignalCounts {
    pub(crate) fn add(&mut self, signal: Signal) {
        if let Some(count) = self.0.get_mut(signal.number() as usize - 1) {
            *count += 1;
        }
    }

    /// The signals seen at least once, by rising number.
    pub(crate) fn seen(&self) -> impl Iterator<Item = (Signal, u64)> + '_ {
        Signal::all().zip(self.0).filter(|(_, count)| *count > 0)
    }
}

/// One moment's facts.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) phase: PhaseName,
    /// The life is where the child may be sent traffic, whatever the checks say.
    pub(crate) takes_traffic: bool,
    /// The child has been ready once.
    pub(crate) was_ready: bool,
    pub(crate) child_is_up: bool,
    /// The child that runs.
    pub(crate) child_pid: Option<i32>,
    /// When a stop was first asked for.
    pub(crate) stop_requested_at: Option<Instant>,
    /// When the child was started that runs, or ran last.
    pub(crate) child_began_at: Option<Instant>,
    /// The same in seconds since the epoch (wall clock).
    pub(crate) child_started_at: Option<f64>,
    pub(crate) child_exit: Option<ExitReason>,
    /// How every child so far has ended.
    pub(crate) child_exits: ExitCounts,
    pub(crate) signals_received: SignalCounts,
    pub(crate) signals_forwarded: SignalCounts,
    pub(crate) orphans_reaped: u64,
    /// How often the child was started again.
    pub(crate) restarts: u64,
    /// Connections that were open at the last look during the stop; `None` when
    /// nobody has looked, or they cannot be seen.
    pub(crate) drain_connections: Option<u64>,
    /// Connections that came although the child had been told to stop.
    pub(crate) late_connections: u64,
    /// Every check, in the order in which they are listed.
    pub(crate) checks: Vec<CheckReport>,
    /// What the child says of itself (STATUS= of sd_notify): one line.
    pub(crate) notify_status: Option<String>,
    pub(crate) limits: Limits,
    /// How often watched files have changed; `None`: none are watched.
    pub(crate) config_changes: Option<u64>,
    /// Names of the variables that the child gets from castoff.
    pub(crate) exports: Vec<&'static str>,
}

impl Status {
    /// Before the child is started.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            phase: PhaseName::Starting,
            takes_traffic: false,
            was_ready: false,
            child_is_up: false,
            child_pid: None,
            stop_requested_at: None,
            child_began_at: None,
            child_started_at: None,
            child_exit: None,
            child_exits: ExitCounts::default(),
            signals_received: SignalCounts::default(),
            signals_forwarded: SignalCounts::default(),
            orphans_reaped: 0,
            restarts: 0,
            drain_connections: None,
            late_connections: 0,
            checks: Vec::new(),
            notify_status: None,
            limits,
            config_changes: None,
            exports: Vec::new(),
        }
    }

    /// Whether the child can serve, and nothing says that it should not be sent
    /// traffic.
    pub(crate) fn is_ready(&self) -> bool {
        let counts = |check: &&CheckReport| matches!(check.level, Level::Ready | Level::Dependency);
        self.takes_traffic && self.checks.iter().filter(counts).all(|check| check.is_up)
    }

    /// Whether no live check has failed; a watchdog is one of them.
    pub(crate) fn is_live(&self) -> bool {
        self.checks.iter().filter(|check| check.level == Level::Live).all(|check| check.is_up)
    }
}

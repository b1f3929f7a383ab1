//! The life of a container as one state machine: what has happened comes in
//! with its time, what to do about it goes out.
//!
//! It never does anything itself: `supervisor` turns signals, exits and elapsed
//! time into `Event`s, performs the `Action`s and logs the `PhaseChange`.
//!
//! ```text
//! starting -> serving   : child_ready
//! starting -> stopping  : stop_requested           never ready: nothing to drain
//! starting -> sweeping  : child_exited
//! starting -> exited    : child_exited             nobody is left
//! serving  -> draining  : stop_requested
//! serving  -> stopping  : stop_requested           no drain is configured
//! serving  -> sweeping  : child_exited
//! serving  -> exited    : child_exited
//! draining -> stopping  : drain_delay | second_signal
//! draining -> sweeping  : child_exited
//! draining -> exited    : child_exited
//! stopping -> killing   : deadline | third_signal
//! stopping -> sweeping  : child_exited
//! stopping -> exited    : child_exited
//! sweeping -> killing   : deadline | third_signal
//! sweeping -> exited    : tree_gone
//! killing  -> exited    : child_exited | tree_gone | gave_up
//! ```

use std::time::{Duration, Instant};

use super::exit::{ExitMap, ExitReason};
use super::signal::Signal;
use super::status::PhaseName;
use super::stop_plan::{ReadinessOnStop, StopPlan, StopSignal};

/// How long after a SIGKILL what has escaped it, by being forked at that
/// moment, gets another.
const STRIKE_INTERVAL: Duration = Duration::from_millis(50);

/// A waiting phase says until when; `DeadlineReached` is a no-op before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Serving,
    Draining { until: Instant, signal: Signal },
    Stopping { until: Instant },
    Sweeping { until: Instant },
    Killing { until: Instant, give_up_at: Instant },
    Exited,
}

/// What the shell tells the machine. A deadline that comes early, late or
/// twice, and any event after the end, changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The child can serve.
    ChildReady,
    /// A signal of CASTOFF_STOP_ON arrived.
    StopRequested(Signal),
    /// The time that `next_deadline` gave has come.
    DeadlineReached,
    /// The child was stopped by a signal, as by ^Z.
    ChildStopped {
        by: Signal,
        /// A shell with job control waits for castoff and will continue it.
        has_job_control: bool,
    },
    /// The child runs on after it was stopped.
    ChildContinued,
    /// The child has been reaped.
    ChildExited {
        reason: ExitReason,
        /// castoff has no other children: nobody is left behind.
        is_last: bool,
    },
    /// The last of castoff's children has been reaped.
    TreeGone,
}

/// What the machine tells the shell to do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// To the child, or to its process group where that was asked for.
    SignalChild(Signal),
    /// SIGCONT to the child's process group: ^Z stopped all of it.
    ContinueChild,
    /// To every process that castoff answers for, the child included.
    SignalTree(Signal),
    /// Stop castoff itself, as the shell that started it expects after ^Z.
    Suspend,
    /// End with this code. Always the last action, and given once.
    Exit(u8),
}

/// Why a phase ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    ChildReady,
    StopRequested,
    DrainDelay,
    SecondSignal,
    ThirdSignal,
    Deadline,
    ChildExited,
    TreeGone,
    GaveUp,
}

impl Cause {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ChildReady => "child_ready",
            Self::StopRequested => "stop_requested",
            Self::DrainDelay => "drain_delay",
            Self::SecondSignal => "second_signal",
            Self::ThirdSignal => "third_signal",
            Self::Deadline => "deadline",
            Self::ChildExited => "child_exited",
            Self::TreeGone => "tree_gone",
            Self::GaveUp => "gave_up",
        }
    }
}

/// One transition, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PhaseChange {
    pub(crate) from: PhaseName,
    pub(crate) to: PhaseName,
    pub(crate) cause: Cause,
    /// How long `from` lasted.
    pub(crate) elapsed: Duration,
}

/// What follows from one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub(crate) struct Outcome {
    pub(crate) change: Option<PhaseChange>,
    pub(crate) actions: Vec<Action>,
}

/// How the child's end is named in `child_exited`.
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

impl ChildEnd {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Signalled => "signalled",
            Self::Stopped => "stopped",
            Self::KilledAtDeadline => "killed_at_deadline",
        }
    }
}

/// What the machine has to know from the settings.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) stop_plan: StopPlan,
    pub(crate) readiness_on_stop: ReadinessOnStop,
    pub(crate) stop_signal: StopSignal,
    pub(crate) exit_map: ExitMap,
}

/// A stop that was asked for: when first, and how often by now.
#[derive(Clone, Copy, Debug)]
struct StopRequest {
    at: Instant,
    count: u32,
}

/// The machine. See the picture above for its transitions.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    rules: Rules,
    phase: Phase,
    entered_at: Instant,
    stop: Option<StopRequest>,
    was_ready: bool,
    child_is_stopped: bool,
    child_was_told: bool,
    child_was_killed: bool,
    child_exit: Option<ExitReason>,
}

impl Lifecycle {
    pub(crate) fn new(rules: Rules, now: Instant) -> Self {
        Self {
            rules,
            phase: Phase::Starting,
            entered_at: now,
            stop: None,
            was_ready: false,
            child_is_stopped: false,
            child_was_told: false,
            child_was_killed: false,
            child_exit: None,
        }
    }

    /// Takes one event. `now` must not run backwards between calls.
    pub(crate) fn on(&mut self, event: Event, now: Instant) -> Outcome {
        if self.phase == Phase::Exited {
            return Outcome::default();
        }
        self.note(event, now);
        match (self.phase, event) {
            (Phase::Starting, Event::ChildReady) => {
                self.was_ready = true;
                self.go(Phase::Serving, Cause::ChildReady, now, vec![])
            }
            (Phase::Starting, Event::StopRequested(signal)) => {
                self.tell_child(signal, Cause::StopRequested, now)
            }
            (Phase::Serving, Event::StopRequested(signal)) => {
                if self.rules.stop_plan.drain.delay.is_zero() {
                    self.tell_child(signal, Cause::StopRequested, now)
                } else {
                    let until = now + self.rules.stop_plan.drain.delay;
                    self.go(Phase::Draining { until, signal }, Cause::StopRequested, now, vec![])
                }
            }
            (Phase::Draining { .. }, Event::StopRequested(signal)) => {
                self.tell_child(signal, Cause::SecondSignal, now)
            }
            (Phase::Draining { until, signal }, Event::DeadlineReached) if now >= until => {
                self.tell_child(signal, Cause::DrainDelay, now)
            }
            (Phase::Stopping { .. } | Phase::Sweeping { .. }, Event::StopRequested(_))
                if self.stop_count() >= 3 =>
            {
                self.kill(Cause::ThirdSignal, now)
            }
            (Phase::Stopping { .. }, Event::StopRequested(signal)) => {
                // The drain is over: the program may know what a second one means.
                Outcome::act(vec![Action::SignalChild(self.stop_signal(signal))])
            }
            (Phase::Stopping { until } | Phase::Sweeping { until }, Event::DeadlineReached)
                if now >= until =>
            {
                self.kill(Cause::Deadline, now)
            }
            (Phase::Killing { until, give_up_at }, Event::DeadlineReached) if now >= until => {
                if now >= give_up_at {
                    return self.exit(Cause::GaveUp, now);
                }
                let until = give_up_at.min(now + STRIKE_INTERVAL);
                self.phase = Phase::Killing { until, give_up_at };
                Outcome::act(vec![Action::SignalTree(Signal::KILL)])
            }
            (_, Event::ChildExited { is_last: true, .. }) => self.exit(Cause::ChildExited, now),
            (Phase::Killing { .. }, Event::ChildExited { .. }) => Outcome::default(),
            (_, Event::ChildExited { .. }) => self.sweep(now),
            (Phase::Sweeping { .. } | Phase::Killing { .. }, Event::TreeGone) => {
                self.exit(Cause::TreeGone, now)
            }
            (
                Phase::Starting | Phase::Serving,
                Event::ChildStopped { has_job_control: true, .. },
            ) => Outcome::act(vec![Action::Suspend]),
            // Nobody could ever continue it. Without castoff in between the kernel
            // would have dropped the ^Z (`man 2 setpgid`, orphaned groups).
            (_, Event::ChildStopped { by: Signal::TSTP, has_job_control: false }) => {
                Outcome::act(vec![Action::ContinueChild])
            }
            (Phase::Stopping { .. }, Event::ChildStopped { .. }) => {
                // It stood still, or was about to, when it was told.
                Outcome::act(vec![Action::ContinueChild])
            }
            (
                _,
                Event::ChildReady
                | Event::StopRequested(_)
                | Event::DeadlineReached
                | Event::ChildStopped { .. }
                | Event::ChildContinued
                | Event::TreeGone,
            ) => Outcome::default(),
        }
    }

    /// When the shell must send `DeadlineReached`; `None`: nothing is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Draining { until, .. }
            | Phase::Stopping { until }
            | Phase::Sweeping { until }
            | Phase::Killing { until, .. } => Some(until),
            Phase::Starting | Phase::Serving | Phase::Exited => None,
        }
    }

    pub(crate) fn phase(&self) -> PhaseName {
        self.phase.name()
    }

    /// Whether traffic may be sent to the child.
    pub(crate) fn is_ready(&self) -> bool {
        match (self.phase, self.rules.readiness_on_stop) {
            (Phase::Serving, _) => true,
            (Phase::Draining { .. }, ReadinessOnStop::Immediate) => false,
            (Phase::Draining { .. }, ReadinessOnStop::AfterDrain | ReadinessOnStop::Never) => true,
            (Phase::Stopping { .. }, ReadinessOnStop::Never) => self.was_ready,
            _ => false,
        }
    }

    /// Whether the child has been ready once.
    pub(crate) fn was_ready(&self) -> bool {
        self.was_ready
    }

    /// How the child ended, once it has.
    pub(crate) fn child_exit(&self) -> Option<ExitReason> {
        self.child_exit
    }

    /// The name of that end.
    pub(crate) fn child_end(&self) -> Option<ChildEnd> {
        self.child_exit.map(|reason| match reason {
            ExitReason::Signal(Signal::KILL) if self.child_was_killed => ChildEnd::KilledAtDeadline,
            _ if self.child_was_told => ChildEnd::Stopped,
            ExitReason::Code(_) => ChildEnd::Exited,
            ExitReason::Signal(_) => ChildEnd::Signalled,
        })
    }

    /// When a stop was first asked for.
    pub(crate) fn stop_requested_at(&self) -> Option<Instant> {
        self.stop.map(|stop| stop.at)
    }

    /// Facts are kept whatever the phase does with the event.
    fn note(&mut self, event: Event, now: Instant) {
        match event {
            Event::StopRequested(_) => {
                self.stop.get_or_insert(StopRequest { at: now, count: 0 }).count += 1;
            }
            Event::ChildStopped { .. } => self.child_is_stopped = true,
            Event::ChildContinued => self.child_is_stopped = false,
            Event::ChildExited { reason, .. } => self.child_exit = Some(reason),
            Event::ChildReady | Event::DeadlineReached | Event::TreeGone => {}
        }
    }

    fn stop_count(&self) -> u32 {
        self.stop.map_or(0, |stop| stop.count)
    }

    fn stop_signal(&self, received: Signal) -> Signal {
        match self.rules.stop_signal {
            StopSignal::Received => received,
            StopSignal::Fixed(signal) => signal,
        }
    }

    fn tell_child(&mut self, received: Signal, cause: Cause, now: Instant) -> Outcome {
        let mut actions = vec![Action::SignalChild(self.stop_signal(received))];
        if self.child_is_stopped {
            // A stopped process takes no signal but SIGKILL before SIGCONT.
            actions.push(Action::ContinueChild);
        }
        self.child_was_told = true;
        let asked_at = self.stop.map_or(now, |stop| stop.at);
        let until = self.rules.stop_plan.deadline(asked_at);
        self.go(Phase::Stopping { until }, cause, now, actions)
    }

    fn sweep(&mut self, now: Instant) -> Outcome {
        let begun_at = self.stop.map_or(now, |stop| stop.at);
        let until = self.rules.stop_plan.deadline(begun_at);
        let actions = vec![Action::SignalTree(Signal::TERM), Action::SignalTree(Signal::CONT)];
        self.go(Phase::Sweeping { until }, Cause::ChildExited, now, actions)
    }

    /// Three quarters of the reserve are for the killed to vanish, the last one
    /// is for castoff to end before the platform's own SIGKILL.
    fn kill(&mut self, cause: Cause, now: Instant) -> Outcome {
        self.child_was_killed = self.child_exit.is_none();
        let give_up_at = now + (self.rules.stop_plan.reserve * 3 / 4).max(STRIKE_INTERVAL);
        let until = now + STRIKE_INTERVAL;
        let actions = vec![Action::SignalTree(Signal::KILL)];
        self.go(Phase::Killing { until, give_up_at }, cause, now, actions)
    }

    fn exit(&mut self, cause: Cause, now: Instant) -> Outcome {
        let reason = self.child_exit.unwrap_or(ExitReason::Signal(Signal::KILL));
        let code = self.rules.exit_map.apply(reason.code());
        self.go(Phase::Exited, cause, now, vec![Action::Exit(code)])
    }

    fn go(&mut self, to: Phase, cause: Cause, now: Instant, actions: Vec<Action>) -> Outcome {
        let change = PhaseChange {
            from: self.phase.name(),
            to: to.name(),
            cause,
            elapsed: now.saturating_duration_since(self.entered_at),
        };
        self.phase = to;
        self.entered_at = now;
        Outcome { change: Some(change), actions }
    }
}

impl Phase {
    fn name(self) -> PhaseName {
        match self {
            Self::Starting => PhaseName::Starting,
            Self::Serving => PhaseName::Serving,
            Self::Draining { .. } => PhaseName::Draining,
            Self::Stopping { .. } => PhaseName::Stopping,
            Self::Sweeping { .. } => PhaseName::Sweeping,
            Self::Killing { .. } => PhaseName::Killing,
            Self::Exited => PhaseName::Exited,
        }
    }
}

impl Outcome {
    fn act(actions: Vec<Action>) -> Self {
        Self { change: None, actions }
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;

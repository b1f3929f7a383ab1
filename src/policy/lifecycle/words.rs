//! The words between the machine and its shell: what happens, what is to be
//! done, and why.
//!
//! Nothing here decides; what a word leads to is in `lifecycle`.

use std::time::Duration;

use crate::policy::drain::DrainEnd;
use crate::policy::exit::{ExitMap, ExitReason};
use crate::policy::hooks::{Hook, HookEnd, HookRules};
use crate::policy::restart::{Attempt, RestartRules};
use crate::policy::signal::{Rewrite, Signal};
use crate::policy::status::PhaseName;
use crate::policy::stop_plan::{ReadinessOnStop, StopPlan, StopSignal};
use crate::policy::traffic::Look;

/// What the shell tells the machine. A deadline that comes early, late or
/// twice, and any event after the end, changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Everything that the start waits for has passed.
    WaitPassed,
    /// The child's program runs.
    ChildStarted,
    /// It could not be run, and this is the code that says why.
    StartFailed(u8),
    /// The child can serve.
    ChildReady,
    /// A signal of CASTOFF_STOP_ON arrived.
    StopRequested(Signal),
    /// The child is to be stopped in order, with this signal unless another one
    /// is configured, and started again.
    RestartRequested(Signal),
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
    /// The hook has been reaped, or was never started.
    HookFinished { end: HookEnd, is_last: bool },
    /// What the look has shown that was asked for; `None`: it cannot be seen.
    TrafficSeen(Option<Look>),
    /// The last of castoff's children has been reaped.
    TreeGone,
}

/// Whom a signal for the tree is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Every process that castoff answers for: as PID 1 the whole namespace.
    Everything,
    /// What descends from castoff: not who came into the container by another
    /// door, such as `docker exec`.
    Descendants,
}

/// Whose checks are to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    Nothing,
    /// What the start waits for.
    Start,
    /// The child, and what it depends on.
    Child,
}

/// What the machine tells the shell to do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// `ChildStarted` or `StartFailed` is the answer, at once.
    StartChild,
    /// `HookFinished` is the answer, some time.
    StartHook(Hook),
    /// SIGKILL to the process group of the hook that runs.
    KillHook,
    /// Find out which ports the child's traffic comes to, in no more than that
    /// time.
    LearnPorts(Duration),
    /// `TrafficSeen` is the answer, at once.
    Look,
    /// Log what has come since the child was told, if anything has.
    TellLate,
    /// To the child, or to its process group where that was asked for.
    SignalChild(Signal),
    /// SIGCONT to the child's process group: ^Z stopped all of it.
    ContinueChild,
    /// To the child, if it is there, and to all the others.
    SignalTree(Signal, Scope),
    /// CASTOFF_HANG_SIGNAL, to the same.
    SendHangSignal(Signal, Scope),
    /// Log who of them is still there, as far as that can be found out in that
    /// time: the kill comes next.
    ListSurvivors(Scope, Duration),
    /// The child will be started again.
    AnnounceRestart(Attempt),
    /// Stop castoff itself, as the shell that started it expects after ^Z.
    Suspend,
    /// End with this code. Always the last action, and given once.
    Exit(u8),
}

/// Why a phase ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    ChildReady,
    WaitTimedOut,
    PreStartFailed,
    StartFailed,
    StopRequested,
    RestartRequested,
    Drained(DrainEnd),
    PreStopFinished,
    ThirdSignal,
    Deadline,
    ChildExited,
    TreeGone,
    PostStopFinished,
    GaveUp,
}

impl Cause {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ChildReady => "child_ready",
            Self::WaitTimedOut => "wait_timed_out",
            Self::PreStartFailed => "pre_start_failed",
            Self::StartFailed => "start_failed",
            Self::StopRequested => "stop_requested",
            Self::RestartRequested => "restart_requested",
            Self::Drained(DrainEnd::Delay) => "drain_delay",
            Self::Drained(DrainEnd::Quiet) => "drain_quiet",
            Self::Drained(DrainEnd::Max) => "drain_max",
            Self::Drained(DrainEnd::SecondSignal) => "second_signal",
            Self::PreStopFinished => "pre_stop_finished",
            Self::ThirdSignal => "third_signal",
            Self::Deadline => "deadline",
            Self::ChildExited => "child_exited",
            Self::TreeGone => "tree_gone",
            Self::PostStopFinished => "post_stop_finished",
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
    /// How the drain ended, if `from` was one and the child was told after it.
    pub(crate) drained: Option<Drained>,
}

/// A drain that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drained {
    pub(crate) end: DrainEnd,
    /// How long it lasted; a pre-stop hook may have lasted longer.
    pub(crate) waited: Duration,
    /// Open at the last look, if that could be seen.
    pub(crate) connections: Option<u64>,
}

/// What follows from one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub(crate) struct Outcome {
    pub(crate) change: Option<PhaseChange>,
    pub(crate) actions: Vec<Action>,
}

/// How the start waits for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitRules {
    /// How long at most; not 0.
    pub(crate) timeout: Duration,
    /// Some of its checks are commands, which may leave processes behind.
    pub(crate) runs_commands: bool,
}

/// What the machine has to know from the settings.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) stop_plan: StopPlan,
    pub(crate) readiness_on_stop: ReadinessOnStop,
    pub(crate) stop_signal: StopSignal,
    pub(crate) rewrite: Rewrite,
    pub(crate) hang_signal: Option<Signal>,
    pub(crate) exit_map: ExitMap,
    pub(crate) stopped_exit_code: Option<u8>,
    /// `None`: the start waits for nothing.
    pub(crate) wait: Option<WaitRules>,
    pub(crate) hooks: HookRules,
    pub(crate) restart: RestartRules,
    /// For the jitter of restarts; see `Backoff::new`.
    pub(crate) seed: u64,
}

impl Outcome {
    pub(super) fn act(actions: Vec<Action>) -> Self {
        Self { change: None, actions }
    }
}

//! The timeline of a stop: what would happen, and when, if a stop were asked
//! for now and nobody obeyed.
//!
//! Owns the words only: the moments come from `stop_plan`, where the lifecycle
//! has them from as well. It never reads a clock: moments count from the request.

use std::time::{Duration, Instant};

use super::lifecycle::Rules;
use super::signal::Signal;
use super::status::PhaseName;
use super::stop_plan::{DrainPlan, ReadinessOnStop, hang_lead, list_lead};

/// One thing that happens. What an obedient child makes come earlier has its
/// latest moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Since the stop request.
    pub(crate) at: Duration,
    /// The phase that castoff is in from then on.
    pub(crate) phase: PhaseName,
    /// A few words, with nothing in them that was given but names of signals.
    pub(crate) what: String,
}

/// What the rules of the lifecycle do not hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// The signal that asks for the stop.
    pub(crate) signal: Signal,
    /// The child's stop signal goes to its process group.
    pub(crate) to_group: bool,
    /// The child has been ready: one that has not has no traffic to lose.
    pub(crate) is_serving: bool,
}

/// The steps by rising time, up to the platform's own SIGKILL. `now` is any
/// moment, for the arithmetic's sake.
pub(crate) fn timeline(rules: &Rules, request: Request, now: Instant) -> Vec<Step> {
    let plan = &rules.stop_plan;
    let since = |at: Instant| at.saturating_duration_since(now);
    let drain = if request.is_serving { plan.drain } else { DrainPlan::fixed(Duration::ZERO) };
    let hook_time = rules.hooks.has_pre_stop.then(|| plan.pre_stop_time(rules.hooks.timeout));
    let told_at = drain.max.max(hook_time.unwrap_or_default());
    let killed_at = plan.deadline(now);
    let left = since(killed_at).saturating_sub(told_at);

    let mut steps = Vec::new();
    let mut step = |at: Duration, phase: PhaseName, what: &[&str]| {
        let said: Vec<_> = what.iter().copied().filter(|what| !what.is_empty()).collect();
        steps.push(Step { at, phase, what: said.join(", ") });
    };
    let off_at = |when: ReadinessOnStop| {
        let is_then = request.is_serving && rules.readiness_on_stop == when;
        if is_then { "readiness off" } else { "" }
    };
    let has_drain = !drain.max.is_zero() || hook_time.is_some();
    if has_drain {
        let hook = if hook_time.is_some() { "the pre-stop hook starts" } else { "" };
        let off = off_at(ReadinessOnStop::Immediate);
        let begins = if off.is_empty() && hook.is_empty() { "the drain begins" } else { "" };
        step(Duration::ZERO, PhaseName::Draining, &[off, hook, begins]);
    }
    if let Some(time) = hook_time {
        step(time, PhaseName::Draining, &["SIGKILL to the pre-stop hook if it still runs"]);
    }
    let off = match off_at(ReadinessOnStop::Immediate) {
        at_once if !has_drain && !at_once.is_empty() => at_once,
        _ => off_at(ReadinessOnStop::AfterDrain),
    };
    let told = told(rules, request);
    step(told_at, PhaseName::Stopping, &[off, &told, &sooner(&drain, hook_time)]);
    if let Some(signal) = rules.hang_signal {
        let hang = format!("{signal} to whoever is left");
        step(since(killed_at) - hang_lead(left), PhaseName::Stopping, &[&hang]);
    }
    let listed_at = since(killed_at) - list_lead(left);
    step(listed_at, PhaseName::Stopping, &["whoever is left is listed in the log"]);
    let off = off_at(ReadinessOnStop::Never);
    step(since(killed_at), PhaseName::Killing, &[off, "SIGKILL to whoever is left"]);
    let mut gone_at = plan.give_up_at(killed_at, Some(now));
    if rules.hooks.has_post_stop {
        let last_call = plan.last_call(now);
        let what = "SIGKILL to the post-stop hook if it still runs";
        step(since(last_call), PhaseName::Sweeping, &[what]);
        gone_at = gone_at.max(plan.give_up_at(last_call, Some(now)));
    }
    step(since(gone_at), PhaseName::Exited, &["castoff exits, whoever is left"]);
    step(plan.grace, PhaseName::Exited, &["the platform's SIGKILL"]);
    // Of a grace period of milliseconds nothing is left for the last ones.
    steps.sort_by_key(|step| step.at);
    steps
}

/// What the child is told.
fn told(rules: &Rules, request: Request) -> String {
    let whom = if request.to_group { "the child's process group" } else { "the child" };
    match rules.stop_signal.for_child(request.signal, &rules.rewrite) {
        Some(signal) => format!("{signal} to {whom}"),
        None => format!("nothing to {whom}: {} is dropped", request.signal),
    }
}

/// How the child may be told before the latest moment, if it may.
fn sooner(drain: &DrainPlan, hook_time: Option<Duration>) -> String {
    let is_hook = hook_time.is_some_and(|time| time > drain.delay);
    let what = match (drain.is_adaptive(), is_hook) {
        (false, false) => return String::new(),
        (true, false) => "its traffic is over",
        (false, true) => "the hook is over",
        (true, true) => "its traffic and the hook are over",
    };
    format!("from {} ms on once {what}", drain.delay.as_millis())
}

//! Every event that castoff logs, a function for each.
//!
//! Owns the names and the fields, which users rely on, and the levels: info is
//! a fact of this life, warn means that castoff coped, error that it ends or
//! has a bug. Messages are fixed phrases; what varies is a field, and a fact
//! that is not known is a field that is not there. Nothing here decides.

mod sizing;
mod watching;

use std::ffi::OsStr;
use std::fmt::Display;
use std::panic::PanicHookInfo;
use std::path::Path;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Level, enabled, info, warn};

pub(crate) use sizing::{
    env_dir_failed, env_dir_read, env_dir_skipped, env_exported, env_withheld, limits_changed,
    limits_detected, limits_warning, oom_score_adjusted, otel_not_completed, program_recognised,
};

pub(crate) use watching::{config_changed, watch_failed, watch_limited, watch_lost};

use super::line::Line;
use super::style;
use crate::policy::death::{Death, Origin, Sender};
use crate::policy::exit::ExitReason;
use crate::policy::log_style::Stream;
use crate::policy::signal::Signal;
use crate::policy::status::PhaseName;

/// What castoff is and how it was told to work.
pub(crate) struct Start<'a> {
    pub(crate) pid: i32,
    /// It is process 1 of its namespace.
    pub(crate) is_pid1: bool,
    /// It is not, and has made itself a subreaper.
    pub(crate) is_subreaper: bool,
    pub(crate) grace: Duration,
    pub(crate) drain: Duration,
    /// The same as `drain` unless the drain goes by traffic.
    pub(crate) drain_max: Duration,
    /// The address of the endpoints, or `off`.
    pub(crate) listen: &'a dyn Display,
}

pub(crate) fn castoff_started(start: &Start<'_>) {
    info!(
        event = "castoff_started",
        version = env!("CARGO_PKG_VERSION"),
        pid = start.pid,
        pid1 = start.is_pid1,
        subreaper = start.is_subreaper,
        grace_ms = millis(start.grace),
        drain_ms = millis(start.drain),
        drain_max_ms = (start.drain_max != start.drain).then(|| millis(start.drain_max)),
        listen = %start.listen,
        "castoff started"
    );
}

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passes,
    /// It has passed before.
    Fails,
    /// Not yet: nothing to warn of while the child starts.
    HasNotPassed,
}

/// The verdict of a check changed, or is known for the first time. `level_of` is
/// its level, for `level` is that of the line; `target` holds neither a query nor
/// arguments; `reason` is the true one. No endpoint tells these two.
pub(crate) fn check_changed(
    check: &str,
    level_of: &'static str,
    target: &str,
    verdict: Verdict,
    reason: Option<&str>,
) {
    const EVENT: &str = "check_changed";
    let target = &*shortened(target);
    match verdict {
        Verdict::Passes => {
            info!(event = EVENT, check, level_of, target, ok = true, reason, "check passes");
        }
        Verdict::Fails => {
            warn!(event = EVENT, check, level_of, target, ok = false, reason, "check fails");
        }
        Verdict::HasNotPassed => {
            info!(
                event = EVENT,
                check,
                level_of,
                target,
                ok = false,
                reason,
                "check does not pass yet"
            );
        }
    }
}

/// A check that the start of the child waits for.
#[derive(Clone, Debug)]
pub(crate) struct Pending<'a> {
    pub(crate) check: &'a str,
    /// As in `check_changed`.
    pub(crate) target: String,
    /// Why it failed last; `None`: it has not been run to its end.
    pub(crate) reason: Option<&'a str>,
}

/// The child is not started before all of `pending` pass, of which those are
/// told that fit into a line; after `timeout` castoff gives up.
pub(crate) fn waiting_for(pending: &[Pending<'_>], elapsed: Duration, timeout: Duration) {
    let entry = |Pending { check, target, reason }: &Pending<'_>| {
        let (check, target) = (quoted(check), quoted(&shortened(target)));
        let reason = reason.map_or_else(|| "null".to_owned(), |reason| quoted(&shortened(reason)));
        format!(r#"{{"check":{check},"target":{target},"reason":{reason}}}"#)
    };
    let list = list_of(pending.iter().map(entry));
    info!(
        event = "waiting_for",
        count = pending.len(),
        list = list.as_bytes(),
        elapsed_ms = millis(elapsed),
        timeout_ms = millis(timeout),
        "start waits for checks"
    );
}

/// All that the start of the child waited for passes.
pub(crate) fn wait_finished(elapsed: Duration) {
    info!(event = "wait_finished", elapsed_ms = millis(elapsed), "start waits no longer");
}

/// The child has said on its NOTIFY_SOCKET where it stands: `ready`, `reloading`,
/// `reloaded` or `stopping`. `pid` is the sender's, `status` its free text.
pub(crate) fn notified(state: &'static str, pid: i32, status: Option<&str>) {
    info!(event = "notified", state, pid, status, "the child has told its state");
}

/// A message to the NOTIFY_SOCKET that was not believed; told once.
pub(crate) fn notify_refused(pid: i32, uid: u32, cause: impl Display) {
    warn!(event = "notify_refused", pid, uid, %cause, "notification not believed");
}

/// A message could not be passed on, or not be waited for.
pub(crate) fn notify_failed(cause: impl Display) {
    warn!(event = "notify_failed", %cause, "notifications not passed on");
}

/// The child asks for more time while it stops; the platform gives none.
pub(crate) fn extension_capped(asked: Duration, left: Option<Duration>) {
    info!(
        event = "extension_capped",
        asked_ms = millis(asked),
        left_ms = left.map(millis),
        "more time was asked for than there may be"
    );
}

/// Signals go to another process of the tree, which the child has named.
pub(crate) fn main_pid_changed(child_pid: Option<i32>, main_pid: i32) {
    info!(event = "main_pid_changed", child_pid, main_pid, "another process is the main one");
}

/// The child has ended, and the process that it had named takes its place.
pub(crate) fn child_handed_over(child_pid: i32, main_pid: i32) {
    info!(event = "child_handed_over", child_pid, main_pid, "the main process is the child now");
}

/// So that one long reason leaves the others room.
fn shortened(reason: &str) -> String {
    const LONGEST: usize = 200;
    reason.chars().take(LONGEST).collect()
}

/// The endpoints have no address, and castoff goes on without them.
pub(crate) fn listen_failed(address: impl Display, cause: impl Display) {
    warn!(event = "listen_failed", %address, %cause, "endpoints not available");
}

pub(crate) fn subreaper_failed(cause: impl Display) {
    warn!(event = "subreaper_failed", %cause, "cannot adopt the orphans of descendants");
}

/// castoff finds descendants there, and the ports of the child's traffic.
/// Without it a subreaper reaches no daemon of the child's, and a restart as PID
/// 1 spares nobody.
pub(crate) fn proc_unusable(path: impl Display) {
    warn!(event = "proc_unusable", %path, "processes cannot be seen");
}

pub(crate) fn parent_death_signal_failed(signal: Signal, cause: impl Display) {
    warn!(event = "parent_death_signal_failed", %signal, %cause, "cannot ask for a signal");
}

/// `command` is argv[0] only: arguments may hold secrets.
pub(crate) fn child_started(child_pid: i32, command: &OsStr) {
    info!(event = "child_started", child_pid, command = %command.display(), "child started");
}

/// castoff may not signal the child, and so cannot stop it: it is another user, and
/// castoff has no CAP_KILL.
pub(crate) fn child_out_of_reach(child_pid: i32, cause: impl Display) {
    warn!(event = "child_out_of_reach", child_pid, %cause, "child cannot be signalled");
}

/// A restart could not start the program.
pub(crate) fn start_failed(command: &OsStr, cause: impl Display) {
    warn!(event = "start_failed", command = %command.display(), %cause, "child not started");
}

/// `restarts` in a row, this one included, of at most `limit`.
pub(crate) fn restart_scheduled(delay: Duration, restarts: u32, limit: Option<u32>) {
    info!(
        event = "restart_scheduled",
        delay_ms = millis(delay),
        restarts,
        limit,
        "child will be restarted"
    );
}

/// `hook` is `pre_start`, `pre_stop`, `post_stop` or, for the commands of
/// CASTOFF_RESIZE_ACTION and CASTOFF_WATCH_ACTION, `resize_action` and
/// `watch_action`, here and below; `command` is argv[0] only.
pub(crate) fn hook_started(hook: &'static str, hook_pid: i32, command: &OsStr) {
    info!(event = "hook_started", hook, hook_pid, command = %command.display(), "hook started");
}

pub(crate) fn hook_failed(hook: &'static str, command: &OsStr, cause: impl Display) {
    warn!(event = "hook_failed", hook, command = %command.display(), %cause, "hook not started");
}

/// `line` must leave the log line room, as those of `system::output` do.
pub(crate) fn hook_output(hook: &'static str, line: &str) {
    info!(event = "hook_output", hook, line, "hook output");
}

/// A fault unless it has succeeded, and in time.
pub(crate) fn hook_finished(
    hook: &'static str,
    hook_pid: i32,
    exit: ExitReason,
    elapsed: Duration,
    is_timed_out: bool,
) {
    const EVENT: &str = "hook_finished";
    const MESSAGE: &str = "hook finished";
    let (exit_code, signal) = code_or_signal(exit);
    let signal = signal.as_ref().map(tracing::field::display);
    let elapsed_ms = millis(elapsed);
    let timed_out = is_timed_out.then_some(true);
    if exit_code == Some(0) && !is_timed_out {
        info!(event = EVENT, hook, hook_pid, exit_code, elapsed_ms, "{MESSAGE}");
    } else {
        warn!(event = EVENT, hook, hook_pid, exit_code, signal, elapsed_ms, timed_out, "{MESSAGE}");
    }
}

/// `elapsed` is the time spent in `from`.
pub(crate) fn phase_changed(
    from: PhaseName,
    to: PhaseName,
    cause: impl Display,
    elapsed: Duration,
) {
    info!(
        event = "phase_changed",
        from = from.as_str(),
        to = to.as_str(),
        %cause,
        elapsed_ms = millis(elapsed),
        "phase changed"
    );
}

/// Whether `signal_received` writes a line.
pub(crate) fn has_signal_received() -> bool {
    enabled!(Level::INFO)
}

pub(crate) fn signal_received(signal: Signal, sender: &Sender) {
    info!(
        event = "signal_received",
        %signal,
        sender = sender.as_str(),
        sender_pid = sender.pid(),
        sender_uid = sender.uid(),
        sender_command = sender.command(),
        "signal received"
    );
}

/// `target_pid` is negative for a process group (`man 2 kill`).
pub(crate) fn signal_forwarded(signal: Signal, target_pid: i32) {
    info!(event = "signal_forwarded", %signal, target_pid, "signal forwarded");
}

pub(crate) fn signal_forward_failed(signal: Signal, target_pid: i32, cause: impl Display) {
    warn!(event = "signal_forward_failed", %signal, target_pid, %cause, "signal not forwarded");
}

/// With `is_warning` (`-w`) a fault, else a detail.
pub(crate) fn orphan_reaped(pid: i32, exit: ExitReason, is_warning: bool) {
    let level = if is_warning { Level::WARN } else { Level::DEBUG };
    if level <= LevelFilter::current() {
        super::write(&reaped(level, pid, exit));
    }
}

/// A line rather than an event of tracing, which has none below info in a
/// release (Cargo.toml).
fn reaped(level: Level, pid: i32, exit: ExitReason) -> Line {
    let (exit_code, signal) = code_or_signal(exit);
    Line::now(level, &|line| {
        line.message("orphan reaped");
        line.event("orphan_reaped");
        line.value("pid", pid);
        if let Some(exit_code) = exit_code {
            line.value("exit_code", exit_code);
        }
        if let Some(signal) = signal {
            line.text("signal", signal);
        }
    })
}

/// `reason` is `delay`, `quiet`, `max` or `second_signal`; `connections` are
/// those still open.
pub(crate) fn drain_finished(waited: Duration, reason: &'static str, connections: Option<u64>) {
    info!(
        event = "drain_finished",
        waited_ms = millis(waited),
        reason,
        connections,
        "drain finished"
    );
}

/// castoff ends without having written these: nobody reads them.
pub(crate) fn child_output_lost(stream: Stream, bytes: usize) {
    let stream = stream.as_str();
    warn!(event = "child_output_lost", stream, bytes, "output of the child is lost");
}

/// The drain by traffic lasts as long as it may.
pub(crate) fn traffic_unknown(cause: impl Display) {
    warn!(event = "traffic_unknown", %cause, "traffic cannot be seen");
}

/// The last of them came `last_after` the stop signal.
pub(crate) fn late_connections(count: u64, last_after: Duration) {
    warn!(
        event = "late_connections",
        count,
        last_after_ms = millis(last_after),
        "connections arrived after the stop signal"
    );
}

/// A process that is about to be killed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Survivor<'a> {
    pub(crate) pid: i32,
    /// Its name, without arguments.
    pub(crate) command: &'a str,
    /// As in `/proc/PID/stat`.
    pub(crate) state: char,
}

/// A thread dump is asked for; the kill comes soon.
pub(crate) fn hang_signal_sent(signal: Signal) {
    warn!(event = "hang_signal_sent", %signal, "hang signal sent");
}

/// `total` processes outlived their time; `listed` are the first of them, of
/// which those are told that fit into a line.
pub(crate) fn survivors(total: usize, listed: &[Survivor<'_>]) {
    let entry = |Survivor { pid, command, state }: &Survivor<'_>| {
        let (command, state) = (quoted(command), quoted(state.encode_utf8(&mut [0; 4])));
        format!(r#"{{"pid":{pid},"command":{command},"state":{state}}}"#)
    };
    let list = list_of(listed.iter().map(entry));
    warn!(
        event = "survivors",
        count = total,
        list = list.as_bytes(),
        "processes are left to be killed"
    );
}

/// As a JSON string.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// As a JSON array, as many of these values as fit.
fn list_of(entries: impl Iterator<Item = String>) -> String {
    let mut list = String::from("[");
    let max = style::current().list_max();
    for entry in entries {
        let comma = if list.len() > 1 { "," } else { "" };
        if list.len() + comma.len() + entry.len() >= max {
            break;
        }
        list.push_str(comma);
        list.push_str(&entry);
    }
    list.push(']');
    list
}

/// Processes of the group that the kernel has killed for want of memory; `victim`
/// is `child`, `descendant` or `group`.
pub(crate) fn oom_kill(count: u64, victim: &'static str) {
    warn!(event = "oom_kill", count, victim, "OOM killer has killed");
}

/// `reason` is `exited`, `signalled`, `stopped`, `killed_at_deadline` or
/// `oom_killed`. Of a signal that is known: `origin` is `forwarded`, and whose it
/// was, `castoff` or `fault`. `last_words` are what the child has said last, where
/// that may explain its end: the lines of `policy::last_words`, which always fit.
pub(crate) fn child_exited(child_pid: i32, death: &Death, uptime: Duration, last_words: &[String]) {
    let (exit_code, signal) = code_or_signal(death.exit);
    let sender = match &death.origin {
        Some(Origin::Forwarded(sender)) => Some(sender),
        Some(Origin::Castoff | Origin::Fault) | None => None,
    };
    let words = list_of(last_words.iter().map(|line| quoted(line)));
    info!(
        event = "child_exited",
        child_pid,
        exit_code,
        signal = signal.as_ref().map(tracing::field::display),
        uptime_ms = millis(uptime),
        reason = death.reason.as_str(),
        origin = death.origin.as_ref().map(Origin::as_str),
        sender = sender.map(Sender::as_str),
        sender_pid = sender.and_then(Sender::pid),
        sender_uid = sender.and_then(Sender::uid),
        sender_command = sender.and_then(Sender::command),
        core_dumped = death.is_core_dumped.then_some(true),
        last_words = (!last_words.is_empty()).then_some(words.as_bytes()),
        "child exited"
    );
}

/// The platform will not read there why castoff has ended.
pub(crate) fn termination_log_failed(path: &Path, cause: impl Display) {
    warn!(
        event = "termination_log_failed",
        path = %path.display(),
        %cause,
        "termination message not written"
    );
}

/// `stop` is the time since the stop request, if there was one.
pub(crate) fn exiting(exit_code: u8, stop: Option<Duration>) {
    info!(event = "exiting", exit_code, stop_ms = stop.map(millis), "castoff exits");
}

/// The same for a panic. A line rather than an event of tracing: see `init`.
pub(super) fn panicked(info: &PanicHookInfo<'_>) -> Line {
    Line::now(Level::ERROR, &|line| {
        line.message("internal error");
        line.event("internal_error");
        line.text("cause", info.payload_as_str().unwrap_or("panic without a text"));
        if let Some(location) = info.location() {
            line.text("location", location);
        }
    })
}

/// `count` lines found no room since the last report. A line rather than an
/// event of tracing, for it is made while another one is written.
pub(super) fn log_dropped(count: u64) -> Line {
    Line::now(Level::WARN, &|line| {
        line.message("log lines dropped");
        line.event("log_dropped");
        line.value("count", count);
    })
}

/// The common fields are longer than `max_bytes`: their values are cut, or some of
/// them are on no line.
pub(super) fn log_fields_cut() {
    warn!(event = "log_fields_cut", max_bytes = style::COMMON_MAX, "common fields are cut");
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The two fields of which one is there.
fn code_or_signal(exit: ExitReason) -> (Option<u8>, Option<Signal>) {
    match exit {
        ExitReason::Code(code) => (Some(code), None),
        ExitReason::Signal(signal) => (None, Some(signal)),
    }
}

#[cfg(test)]
mod tests;

//! Limits, the variables that follow from them, from files and from the Pod, and
//! what castoff does lest it is killed for limits.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::Path;

use tracing::level_filters::LevelFilter;
use tracing::{Level, info, warn};

use super::{list_of, quoted, shortened};
use crate::log::line::Line;
use crate::policy::env_dir::Refusal;
use crate::policy::limits::{Limit, Limits};
use crate::policy::program::Program;
use crate::policy::resize::Change;

pub(crate) fn limits_detected(limits: &Limits) {
    let Limits { cgroup, cpus, memory_bytes, pids, levels, .. } = limits;
    let has_any = cpus.is_some() || memory_bytes.is_some() || pids.is_some();
    info!(
        event = "limits_detected",
        cgroup = cgroup.as_str(),
        cpus = value(cpus),
        memory_bytes = value(memory_bytes),
        pids = value(pids),
        cpu_source = source(cpus),
        memory_source = source(memory_bytes),
        pids_source = source(pids),
        cpu_level = levels.cpus,
        memory_level = levels.memory_bytes,
        pids_level = levels.pids,
        "{}",
        if has_any { "limits detected" } else { "no limits detected, nothing to export" }
    );
}

/// Limits that somebody has changed while the child ran. Of one that stayed
/// there is no field; one that has only `_to` is new, one that has only `_from`
/// is gone. `limits` are the new ones.
pub(crate) fn limits_changed(change: &Change, limits: &Limits) {
    let Change { cpus, memory_bytes, pids } = change;
    info!(
        event = "limits_changed",
        cpus_from = cpus.and_then(|step| step.from),
        cpus_to = cpus.and_then(|step| step.to),
        memory_bytes_from = memory_bytes.and_then(|step| step.from),
        memory_bytes_to = memory_bytes.and_then(|step| step.to),
        pids_from = pids.and_then(|step| step.from),
        pids_to = pids.and_then(|step| step.to),
        cpu_source = source(&limits.cpus).filter(|_| cpus.is_some()),
        memory_source = source(&limits.memory_bytes).filter(|_| memory_bytes.is_some()),
        pids_source = source(&limits.pids).filter(|_| pids.is_some()),
        "limits changed"
    );
}

/// A limit that could not be found out, and is taken for none.
pub(crate) fn limits_warning(cause: impl Display) {
    warn!(event = "limits_warning", %cause, "limit not detected");
}

/// A variable that the child gets from castoff, and the limit or setting it
/// comes from.
pub(crate) fn env_exported(name: &str, value: impl Display, why: impl Display) {
    info!(event = "env_exported", name, %value, %why, "variable exported");
}

/// A directory whose files are variables of the child: how many there are. No
/// value is told, here or anywhere.
pub(crate) fn env_dir_read(directory: &Path, count: usize) {
    info!(event = "env_dir_read", directory = %directory.display(), count, "variables read");
}

/// Files of such a directory that become no variable, of which those are told that
/// fit into a line.
pub(crate) fn env_dir_skipped(directory: &Path, refused: &[(OsString, Refusal)]) {
    let entry = |(name, cause): &(OsString, Refusal)| {
        let file = quoted(&shortened(&name.to_string_lossy()));
        format!(r#"{{"file":{file},"cause":"{cause}"}}"#)
    };
    let list = list_of(refused.iter().map(entry));
    warn!(
        event = "env_dir_skipped",
        directory = %directory.display(),
        count = refused.len(),
        list = list.as_bytes(),
        "files are no variables"
    );
}

/// Before a start of the child; it gets what was read before.
pub(crate) fn env_dir_failed(cause: impl Display) {
    warn!(event = "env_dir_failed", %cause, "variables not read anew");
}

/// What castoff has done lest the OOM killer takes it before the child: its own
/// `oom_score_adj`, and that of everything it starts. A line rather than an event
/// of tracing, which has none below info in a release.
pub(crate) fn oom_score_adjusted(own: i32, started: i32) {
    if Level::DEBUG <= LevelFilter::current() {
        crate::log::write(&Line::now(Level::DEBUG, &|line| {
            line.message("oom_score_adj changed");
            line.event("oom_score_adjusted");
            line.value("own", own);
            line.value("started", started);
        }));
    }
}

/// OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME were to be completed.
pub(crate) fn otel_not_completed(cause: &str) {
    warn!(event = "otel_not_completed", cause, "OTEL_* variables not completed");
}

/// A variable that castoff would have exported, and why it has not.
pub(crate) fn env_withheld(name: &str, why: impl Display) {
    info!(event = "env_withheld", name, %why, "variable not exported");
}

/// What the child runs, where something depends on it: the language and its
/// version, and the file by which it was told. Silent about what is not known.
pub(crate) fn program_recognised(program: &Program) {
    if let Some(text) = program.kind.text() {
        let file = String::from_utf8_lossy(&program.file);
        info!(event = "program_recognised", program = text, %file, "program recognised");
    }
}

fn value<T: Copy>(limit: &Option<Limit<T>>) -> Option<T> {
    limit.as_ref().map(|limit| limit.value)
}

fn source<T>(limit: &Option<Limit<T>>) -> Option<&str> {
    limit.as_ref().map(|limit| limit.source.as_str())
}

//! Go's variables: what its runtime does by itself, and what it must be told.
//!
//! Go 1.25 and newer reads the CPU limit of its own group and follows it while
//! the program runs; `GOMAXPROCS` would end both (<https://go.dev/doc/go1.25>).
//! The memory limit is read by no Go.

use std::os::unix::ffi::OsStrExt;

use super::{Answer, Rounding, Sizing, rounded};
use crate::policy::limits::{Limit, Limits};
use crate::policy::program::{BuildInfo, Kind, Program};

pub(super) const THREADS: &str = "GOMAXPROCS";

/// The first release that reads the limit.
const READS_LIMIT: (u32, u32) = (1, 25);
/// The first in which that works on v1 in a container that sees the groups of its
/// host: 1.25 does not find a group when the mount begins below the root
/// (golang/go#76390).
const READS_V1: (u32, u32) = (1, 26);

pub(super) fn add(answer: &mut Answer<'_>, limits: &Limits, sizing: &Sizing) {
    if let Some(cpus) = &limits.cpus {
        let (threads, mut rule) = gomaxprocs(cpus, limits.affinity, sizing.rounding);
        let godebug = answer.value_of("GODEBUG").unwrap_or_default().as_bytes();
        match own_reader(answer.program, godebug, cpus, limits.cpus_are_inherited) {
            Some(Reader { is_right: true, what }) if answer.value_of(THREADS).is_none() => {
                answer.withhold(THREADS, what);
            }
            reader => {
                if let Some(Reader { is_right: false, what }) = reader {
                    rule = format!("{rule}; {what}");
                }
                answer.add(THREADS, threads.to_string(), rule);
            }
        }
    }
    if let Some(memory) = &limits.memory_bytes {
        // With its own variable set, the automemlimit library in the child
        // derives the limit, and leaves one alone that is set.
        if answer.value_of("AUTOMEMLIMIT").is_some() {
            answer.withhold("GOMEMLIMIT", "AUTOMEMLIMIT is set".to_owned());
        } else {
            let (bytes, rule) = gomemlimit(memory, sizing.memory_ratio);
            answer.add("GOMEMLIMIT", bytes.to_string(), rule);
        }
    }
}

/// The part of a Go program's runtime that reads the CPU limit.
struct Reader {
    /// It comes to what castoff found, and follows it.
    is_right: bool,
    what: String,
}

/// What reads the limit in the program. Where Go would see less than holds, it is
/// told: a number that is right at the start is better than one that never is.
/// With `updatemaxprocs=0` Go reads the limit once, and what it reads is right.
fn own_reader(
    program: &Program,
    godebug: &[u8],
    cpus: &Limit<f64>,
    is_inherited: bool,
) -> Option<Reader> {
    let Kind::Go(info) = &program.kind else { return None };
    // A build that does not say is of a developer, before 1.17.
    let release = info.release().filter(|release| *release >= READS_LIMIT)?;
    let version = info.version.trim_start_matches("go");
    let wrong = |what| Some(Reader { is_right: false, what });
    if !is_on(info, godebug) {
        return wrong("containermaxprocs=0".to_owned());
    }
    if is_inherited {
        return wrong(format!("Go {version} reads its own group only"));
    }
    if release < READS_V1 && cpus.source.ends_with("/cpu.cfs_quota_us") {
        return wrong(format!("Go {version} may not find v1 groups"));
    }
    Some(Reader { is_right: true, what: format!("Go {version} reads the limit itself") })
}

/// Whether the reader is on: by the program's own default, which is off when its
/// go.mod names an older Go, and by GODEBUG, whose last word holds.
fn is_on(info: &BuildInfo, godebug: &[u8]) -> bool {
    let settings = [info.default_godebug.as_slice(), godebug];
    let fields = settings.into_iter().flat_map(|setting| setting.split(|byte| *byte == b','));
    let last = fields
        .filter_map(|field| std::str::from_utf8(field.strip_prefix(b"containermaxprocs=")?).ok())
        // Go takes no other number and no sign but a minus.
        .filter_map(|number| number.parse::<i32>().ok().filter(|_| !number.starts_with('+')))
        .next_back();
    last != Some(0)
}

/// Go's own rule since 1.25: at least 2, so that its garbage collector has a
/// CPU to run on beside the program, but never more than it may run on.
fn gomaxprocs(cpus: &Limit<f64>, affinity: Option<u32>, rounding: Rounding) -> (u64, String) {
    if rounding != Rounding::Auto {
        return rounded(cpus, rounding.is_up(true));
    }
    let threads = (cpus.value.ceil() as u64).max(2);
    let limit = format!("{} CPUs from {}", cpus.value, cpus.source);
    match affinity.map(u64::from) {
        Some(affinity) if affinity < threads => {
            (affinity.max(1), format!("all of its affinity; {limit}"))
        }
        _ => (threads, format!("ceil, at least 2; {limit}")),
    }
}

/// Go reads a signed number and takes 0 for a limit of nothing.
pub(super) fn gomemlimit(memory: &Limit<u64>, ratio: f64) -> (u64, String) {
    let share = (memory.value as f64 * ratio) as u64;
    let rule = format!("{ratio} of {} bytes from {}", memory.value, memory.source);
    (share.clamp(1, i64::MAX as u64), rule)
}

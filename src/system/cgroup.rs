//! Reads the files that limits and usage come from, below roots that tests and
//! odd mounts can move.
//!
//! What they mean is decided in `policy::limits`. Limits are read here because
//! castoff starts with them: cgroups-rs opens 25 files where 10 will do, and it
//! cannot tell "unlimited" from "missing". Usage, read on a scrape, is its.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use cgroups_rs::fs::cpu::CpuController;

use crate::policy::limits::{self, Found, Group, Limit, Limits, Text, USUAL_MOUNT, Version};
use crate::policy::status::Usage;

const ONLINE: &str = "/sys/devices/system/cpu/online";

/// Where the kernel's files are.
#[derive(Clone, Debug)]
pub(crate) struct Roots {
    /// Stands in for `/sys/fs/cgroup` (`CASTOFF_CGROUP_ROOT`).
    pub(crate) cgroup: PathBuf,
    /// Stands in for `/proc` (`CASTOFF_PROC_ROOT`).
    pub(crate) proc: PathBuf,
}

/// What was found at the start.
#[derive(Debug)]
pub(crate) struct Detected {
    pub(crate) limits: Limits,
    pub(crate) groups: Groups,
    /// What could not be used, one line each. None of it stops the start.
    pub(crate) warnings: Vec<String>,
}

/// Finds the limits of this process.
pub(crate) fn detect(roots: &Roots) -> Detected {
    detected(roots, find(roots))
}

/// What `detect` makes its answer of, for whoever wants to know why.
pub(crate) fn find(roots: &Roots) -> Found {
    let online = read(Path::new(ONLINE)).ok().flatten();
    find_on(roots, online.and_then(|text| limits::cpu_count(&text)))
}

/// As `find`, on a machine with that many CPUs in use.
fn find_on(roots: &Roots, online: Option<u32>) -> Found {
    limits::find(online, |path| read(&roots.real(path)))
}

/// See `limits::memory_high`.
pub(crate) fn memory_high(roots: &Roots, found: &Found) -> Option<Limit<u64>> {
    limits::memory_high(&found.layout, |path| read(&roots.real(path)))
}

fn detected(roots: &Roots, found: Found) -> Detected {
    let real = |group: Option<Group>| {
        group.map(|group| Group {
            levels: group.levels.iter().map(|dir| roots.real(dir)).collect(),
            ..group
        })
    };
    let groups = Groups { cpu: real(found.layout.cpu), memory: real(found.layout.memory) };
    Detected { limits: found.limits, groups, warnings: found.warnings }
}

impl Roots {
    /// Where the file is that the user finds under `path`.
    fn real(&self, path: &Path) -> PathBuf {
        if let Ok(rest) = path.strip_prefix(USUAL_MOUNT) {
            self.cgroup.join(rest)
        } else if let Ok(rest) = path.strip_prefix("/proc") {
            self.proc.join(rest)
        } else {
            path.to_owned()
        }
    }
}

fn read(path: &Path) -> Text {
    let is_absent = |kind| {
        // A path that is too long belongs to a group that cannot exist.
        matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename)
    };
    let mut bytes = Vec::with_capacity(8192);
    // `fs::read` asks for the size first, which these files do not have, and
    // then starts with 32 bytes.
    match File::open(path)
        .and_then(|file| file.take(limits::LONGEST as u64).read_to_end(&mut bytes))
    {
        Ok(_) => {
            // Most hold one number; the room serves the next file.
            bytes.shrink_to_fit();
            Ok(Some(bytes))
        }
        Err(error) if is_absent(error.kind()) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// The directories that usage is read from, own group first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups {
    cpu: Option<Group>,
    memory: Option<Group>,
}

impl Groups {
    /// What the group of the process has used so far. For a controller that is
    /// not turned on for the group itself, its nearest ancestor with one.
    /// `log_lines_dropped` is not known here.
    pub(crate) fn usage(&self) -> Usage {
        let (throttled_periods, throttled_seconds) = self.throttling();
        Usage {
            memory_bytes: self.memory_bytes(),
            throttled_periods,
            throttled_seconds,
            ..Usage::default()
        }
    }

    fn memory_bytes(&self) -> Option<u64> {
        let group = self.memory.as_ref()?;
        let file = match group.version {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        };
        // Not by cgroups-rs, which opens eleven files for this one, gives 0 for a
        // missing one and panics on an empty `memory.numa_stat`.
        let text = group.levels.iter().find_map(|dir| read(&dir.join(file)).ok().flatten())?;
        std::str::from_utf8(&text).ok()?.trim().parse().ok()
    }

    fn throttling(&self) -> (Option<u64>, Option<f64>) {
        let Some(group) = self.cpu.as_ref() else { return (None, None) };
        let of = |dir: &PathBuf| {
            let controller =
                CpuController::new(dir.clone(), PathBuf::new(), group.version == Version::V2);
            let throttling = limits::throttling(&controller.cpu().stat);
            throttling.0.is_some().then_some(throttling)
        };
        group.levels.iter().find_map(of).unwrap_or_default()
    }
}

#[cfg(test)]
mod fixtures;

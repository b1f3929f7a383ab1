//! Reads the files that limits come from, below roots that tests and odd mounts
//! can move; `usage` reads what is used of them.
//!
//! What they mean is decided in `policy::limits`. Limits are read here because
//! castoff starts with them: cgroups-rs opens 25 files where 10 will do, and it
//! cannot tell "unlimited" from "missing".

mod usage;

mod oom;

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::policy::limits::{self, Found, Layout, Limit, Limits, Text, USUAL_MOUNT, Unclear};
use crate::policy::resize;
pub(crate) use usage::Groups;

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
    pub(crate) files: LimitFiles,
    /// What could not be used, one line each. None of it stops the start.
    pub(crate) warnings: Vec<String>,
}

/// Where the limits were found, to look again.
#[derive(Clone, Debug)]
pub(crate) struct LimitFiles {
    roots: Roots,
    layout: Layout,
    /// How many files were unclear at the start.
    unclear: Unclear,
}

impl LimitFiles {
    /// The limits as they are now, after they were `old`. It opens a file for
    /// each level and kind, which takes some 100 µs.
    pub(crate) fn read_again(&self, old: &Limits) -> Limits {
        let (new, unclear) =
            limits::find_again(&self.layout, online(), |path| read(&self.roots.real(path)));
        resize::believed(old, new, self.unclear, unclear)
    }

    /// The files that are written when a limit is changed. Some may not exist.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let paths = limits::files_of_change(&self.layout);
        paths.iter().map(|path| self.roots.real(path)).collect()
    }
}

/// Finds the limits of this process.
pub(crate) fn detect(roots: &Roots) -> Detected {
    detected(roots, find(roots))
}

/// What `detect` makes its answer of, for whoever wants to know why.
pub(crate) fn find(roots: &Roots) -> Found {
    find_on(roots, online())
}

fn online() -> Option<u32> {
    let online = read(Path::new(ONLINE)).ok().flatten();
    online.and_then(|text| limits::cpu_count(&text))
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
    let groups = Groups::new(&found.layout, roots);
    let files = LimitFiles { roots: roots.clone(), layout: found.layout, unclear: found.unclear };
    Detected { limits: found.limits, groups, files, warnings: found.warnings }
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
    // Where a child has mounted something else there may be a FIFO.
    match OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
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

#[cfg(test)]
mod fixtures;

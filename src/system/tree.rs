//! Every process that castoff answers for: as PID 1 the whole namespace, else
//! its descendants and nothing else.
//!
//! A descendant cannot hide: whatever is orphaned becomes a child of castoff,
//! so the chain of parents always leads here.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use super::child::send;
use super::subreaper::is_pid_1;
use crate::policy::signal::Signal;

/// How often the walk is repeated for processes that were forked during it.
const WALKS: usize = 8;

/// Sends `signal` to all of them. Those that are gone meanwhile, or that belong
/// to a user castoff may not signal, are passed over. Without a /proc to walk
/// it is the group of `child`, as long as that has not been reaped.
pub(crate) fn signal(proc_root: &Path, child: Option<Pid>, signal: Signal) {
    if is_pid_1() {
        // The kernel does it under one lock: nobody can fork out of it.
        let _ = send(-1, signal);
        return;
    }
    let Some(proc) = own_proc(proc_root) else {
        if let Some(child) = child {
            let _ = super::child::signal(child, true, signal);
        }
        return;
    };
    let mut told = HashSet::new();
    for _ in 0..WALKS {
        let new: Vec<i32> =
            descendants(&proc).into_iter().filter(|pid| told.insert(*pid)).collect();
        if new.is_empty() {
            return;
        }
        for pid in new {
            let _ = send(pid, signal);
        }
    }
}

/// The proc file system that shows castoff's own pid namespace: pids of another
/// one must not be believed.
fn own_proc(proc_root: &Path) -> Option<PathBuf> {
    let own = std::process::id().to_string();
    [proc_root, Path::new("/proc")]
        .into_iter()
        .find(|root| fs::read_link(root.join("self")).is_ok_and(|name| name == Path::new(&own)))
        .map(Path::to_path_buf)
}

/// The name of a process as the kernel keeps it, at most 15 bytes and without
/// arguments, which may hold secrets; `None` when it has gone.
pub(crate) fn command(proc_root: &Path, pid: i32) -> Option<String> {
    let name = fs::read(own_proc(proc_root)?.join(format!("{pid}/comm"))).ok()?;
    Some(String::from_utf8_lossy(name.trim_ascii_end()).into_owned())
}

fn descendants(proc: &Path) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        let stat = fs::read(proc.join(format!("{pid}/stat"))).unwrap_or_default();
        if let Some(parent) = parent(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut queue = vec![std::process::id() as i32];
    while let Some(parent) = queue.pop() {
        let born = children.remove(&parent).unwrap_or_default();
        queue.extend(&born);
        found.extend(born);
    }
    found
}

/// The fourth field of `/proc/PID/stat`; the second, the name, may hold spaces
/// and parentheses itself (`man 5 proc_pid_stat`).
fn parent(stat: &[u8]) -> Option<i32> {
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let rest = std::str::from_utf8(stat.get(after_name..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent(b"12 (sh) S 7 12 12 0"), Some(7));
        assert_eq!(parent(b"12 (a) b (c) S) S 7 12"), Some(7));
        assert_eq!(parent(b"12 (\xff\xfe) R 1 0"), Some(1));
        assert_eq!(parent(b""), None);
        assert_eq!(parent(b"12 (sh)"), None);
    }
}

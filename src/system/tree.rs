//! Every process that castoff answers for: as PID 1 the whole namespace, else
//! its descendants and nothing else.
//!
//! A descendant cannot hide: whatever is orphaned becomes a child of castoff,
//! so the chain of parents always leads here.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use super::kill::send;
use super::subreaper::is_pid_1;
use crate::policy::signal::Signal;

/// How often the walk is repeated for processes that were forked during it.
const WALKS: usize = 16;

/// Sends `signal` to all of them, the child first: it needs no walk. Those that
/// are gone meanwhile, or that belong to a user castoff may not signal, are
/// passed over. `child` is `None` once it has been reaped.
pub(crate) fn signal(proc_root: &Path, child: Option<Pid>, signal: Signal) {
    if is_pid_1() {
        // The kernel does it under one lock: nobody can fork out of it.
        let _ = send(-1, signal);
        return;
    }
    // What stands still cannot replace itself by a fork faster than it is found.
    let first = if signal == Signal::KILL { Signal::STOP } else { signal };
    let mut told = HashSet::new();
    let mut tell = |pid: i32| told.insert(pid) && send(pid, first).is_ok();
    if let Some(child) = child {
        tell(child.as_raw());
    }
    for _ in 0..WALKS {
        let Some(found) = own_proc(proc_root).and_then(|proc| descendants(&proc)) else {
            // Nothing to walk: what is left is the group that castoff made.
            let _ = child.map(|child| send(-child.as_raw(), signal));
            break;
        };
        if found.into_iter().filter(|pid| tell(*pid)).count() == 0 {
            break;
        }
    }
    if first != signal {
        for pid in told {
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

/// castoff's descendants, zombies left out; `None` without a usable /proc.
pub(crate) fn pids(proc_root: &Path) -> Option<Vec<i32>> {
    own_proc(proc_root).and_then(|proc| descendants(&proc))
}

/// Whether there is a proc file system by which descendants can be found.
pub(crate) fn can_be_walked(proc_root: &Path) -> bool {
    own_proc(proc_root).is_some()
}

/// The name of a process as the kernel keeps it, at most 15 bytes and without
/// arguments, which may hold secrets; `None` when it has gone.
pub(crate) fn command(proc_root: &Path, pid: i32) -> Option<String> {
    let name = fs::read(own_proc(proc_root)?.join(format!("{pid}/comm"))).ok()?;
    Some(String::from_utf8_lossy(name.trim_ascii_end()).into_owned())
}

/// The parent of a process; `None` when it has gone.
pub(crate) fn parent_of(proc_root: &Path, pid: Pid) -> Option<Pid> {
    let stat = fs::read(own_proc(proc_root)?.join(format!("{pid}/stat"))).ok()?;
    state_and_parent(&stat).map(|(_, parent)| Pid::from_raw(parent))
}

/// `None` when the directory cannot be read.
fn descendants(proc: &Path) -> Option<Vec<i32>> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    let entries = fs::read_dir(proc).ok()?.flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        let stat = fs::read(proc.join(format!("{pid}/stat"))).unwrap_or_default();
        // A zombie has no children and takes no signal.
        if let Some((state, parent)) = state_and_parent(&stat)
            && state != "Z"
        {
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
    Some(found)
}

/// The third and fourth field of `/proc/PID/stat`: the state and the parent. The
/// second, the name, may hold spaces and parentheses itself (`man 5
/// proc_pid_stat`).
fn state_and_parent(stat: &[u8]) -> Option<(&str, i32)> {
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let rest = std::str::from_utf8(stat.get(after_name..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    Some((fields.next()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_and_parent_are_found_behind_any_name() {
        assert_eq!(state_and_parent(b"12 (sh) S 7 12 12 0"), Some(("S", 7)));
        assert_eq!(state_and_parent(b"12 (a) b (c) S) Z 7 12"), Some(("Z", 7)));
        assert_eq!(state_and_parent(b"12 (\xff\xfe) R 1 0"), Some(("R", 1)));
        assert_eq!(state_and_parent(b""), None);
        assert_eq!(state_and_parent(b"12 (sh)"), None);
    }
}

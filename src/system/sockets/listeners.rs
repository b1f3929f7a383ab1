//! Which listeners are open in the child's tree.
//!
//! Owns the walk over the descriptors of processes. It opens none of them and
//! stops when its time is up.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Instant;

use super::Listener;
use crate::system::eyes::Eyes;

pub(super) struct Found {
    pub(super) listeners: Vec<Listener>,
    /// Every process and descriptor could be read, or has gone.
    pub(super) is_complete: bool,
}

/// Those of the `listeners` that a process of the tree has open.
pub(super) fn of_tree(
    proc_root: &Path,
    tree: &[i32],
    listeners: &[Listener],
    until: Instant,
) -> Found {
    let mut walk = Walk {
        wanted: listeners.iter().map(|listener| (listener.inode, *listener)).collect(),
        until,
        is_late: false,
        found: Found { listeners: Vec::new(), is_complete: true },
    };
    if walk.wanted.is_empty() {
        return walk.found;
    }
    let mut was_read = tree.is_empty();
    for pid in tree {
        match walk.process(&proc_root.join(pid.to_string())) {
            Ok(()) => was_read = true,
            Err(error) => walk.note(&error),
        }
        if walk.is_over() {
            break;
        }
    }
    // All of them gone is more likely a proc file system that hides them.
    walk.found.is_complete &= was_read;
    walk.found
}

struct Walk {
    wanted: HashMap<u64, Listener>,
    until: Instant,
    is_late: bool,
    found: Found,
}

impl Walk {
    fn process(&mut self, process: &Path) -> io::Result<()> {
        self.step();
        let _eyes = Eyes::of(process);
        for entry in process.join("fd").read_dir()? {
            if self.is_over() {
                break;
            }
            self.step();
            match entry?.path().read_link() {
                Ok(target) => {
                    let inode = target.to_str().and_then(inode_of);
                    self.found.listeners.extend(inode.and_then(|inode| self.wanted.remove(&inode)));
                }
                Err(error) => self.note(&error),
            }
        }
        Ok(())
    }

    /// What has gone meanwhile listens no more.
    fn note(&mut self, error: &io::Error) {
        let is_gone =
            error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH);
        self.found.is_complete &= is_gone;
    }

    fn step(&mut self) {
        self.is_late |= Instant::now() >= self.until;
        self.found.is_complete &= !self.is_late;
    }

    fn is_over(&self) -> bool {
        self.is_late || self.wanted.is_empty()
    }
}

/// `socket:[4026]` (`man 5 proc_pid_fd`).
fn inode_of(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

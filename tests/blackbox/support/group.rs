//! Groups of this machine's own v1 hierarchies, for tests that need the kernel
//! itself to hold a limit.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process, thread};

use super::{Castoff, wait_until};

/// A group below the one that this process is in. It goes with the value.
pub(crate) struct Group {
    pub(crate) dir: PathBuf,
    parent: PathBuf,
}

impl Group {
    /// `None`, with a word about it, where there is no v1 hierarchy of the
    /// controller or nobody may make groups.
    pub(crate) fn new(controller: &str) -> Option<Self> {
        match Self::made(controller) {
            Ok(group) => Some(group),
            Err(why) => {
                println!("SKIPPED: no group of {controller}: {why}");
                None
            }
        }
    }

    /// One of memory with that limit. In CI there must be one.
    pub(crate) fn of_memory(limit: &str) -> Option<Self> {
        let group = Self::new("memory");
        assert!(group.is_some() || env::var_os("CI").is_none(), "in CI there must be a group");
        group.inspect(|group| group.set("memory.limit_in_bytes", limit))
    }

    fn made(controller: &str) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let groups = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let own = groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|name| name == controller).then_some(path)
        });
        let own = own.ok_or("there is no such v1 hierarchy")?.trim_start_matches('/');
        let parent = PathBuf::from("/sys/fs/cgroup").join(controller).join(own);
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("castoff-test-{}-{nth}", process::id()));
        fs::create_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Self { dir, parent })
    }

    #[track_caller]
    pub(crate) fn set(&self, file: &str, value: &str) {
        fs::write(self.dir.join(file), value).expect(file);
    }

    #[track_caller]
    pub(crate) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.dir.join(file)).expect(file)
    }

    /// Has castoff enter the group before it is castoff.
    pub(crate) fn enter(&self, castoff: Castoff) -> Castoff {
        let processes = self.dir.join("cgroup.procs");
        // 0 is whoever writes.
        castoff.last(move || fs::write(&processes, "0"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A group that still has processes cannot be removed: they go first.
        let remove = || {
            for process in fs::read_to_string(self.dir.join("cgroup.procs")).ok()?.lines() {
                let _ = fs::write(self.parent.join("cgroup.procs"), process);
            }
            fs::remove_dir(&self.dir).ok()
        };
        if thread::panicking() {
            let _ = remove();
        } else {
            wait_until("the group is empty", remove);
        }
    }
}

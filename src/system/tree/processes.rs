//! What `/proc` says of processes: who there is, whose child each one is, and
//! since when.
//!
//! It only looks and never signals. What it says was true when it was read: who
//! acts on it looks again. It needs one descriptor at a time.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A process at the moment of the look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) parent: i32,
    /// The letter of `man 5 proc_pid_stat`.
    pub(super) state: char,
    /// In clock ticks since the machine's start: with the pid it tells a process
    /// from one that was given its number later.
    pub(super) started: u64,
    threads: u64,
}

impl Process {
    /// Whether it can be signalled and may have children. One whose first thread
    /// has ended looks like a zombie while the others run on.
    pub(super) fn is_alive(&self) -> bool {
        match self.state {
            'Z' => self.threads > 1,
            state => !matches!(state, 'X' | 'x'),
        }
    }

    /// The text of `/proc/PID/stat`. Its second field, the name, may hold spaces
    /// and parentheses itself.
    fn parse(pid: i32, stat: &[u8]) -> Option<Self> {
        let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
        let rest = std::str::from_utf8(stat.get(after_name..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        Some(Self {
            pid,
            state: fields.next()?.chars().next()?,
            parent: fields.next()?.parse().ok()?,
            // The 20th and the 22nd field, counted from 1.
            threads: fields.nth(15).and_then(|field| field.parse().ok()).unwrap_or(1),
            started: fields.nth(1).and_then(|field| field.parse().ok()).unwrap_or(0),
        })
    }
}

/// The same of the text of `/proc/PID/stat`. A process that is killed has SIGKILL
/// pending in each of its threads, and PF_EXITING among its flags from then on.
fn is_ending(stat: &[u8]) -> Option<bool> {
    const PF_EXITING: u64 = 0x4;
    const SIGKILL: u64 = 1 << 8;
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let rest = std::str::from_utf8(stat.get(after_name..)?).ok()?;
    // The 9th and the 31st field, counted from 1; the third is the first of these.
    let mut fields = rest.split_ascii_whitespace().skip(6);
    let flags: u64 = fields.next()?.parse().ok()?;
    let pending: u64 = fields.nth(21)?.parse().ok()?;
    Some(flags & PF_EXITING != 0 || pending & SIGKILL != 0)
}

/// A proc file system that shows castoff's own pid namespace: pids of another
/// one must not be believed.
pub(super) struct Proc {
    root: PathBuf,
    /// When looks are broken off.
    until: Option<Instant>,
}

impl Proc {
    /// The one below `proc_root`, else the usual one.
    pub(super) fn own(proc_root: &Path) -> Option<Self> {
        let own = std::process::id().to_string();
        [proc_root, Path::new("/proc")]
            .into_iter()
            .find(|root| fs::read_link(root.join("self")).is_ok_and(|name| name == Path::new(&own)))
            .map(|root| Self { root: root.to_path_buf(), until: None })
    }

    pub(super) fn into_path(self) -> PathBuf {
        self.root
    }

    /// The same, but no look at all processes lasts beyond that moment.
    pub(super) fn within(self, until: Instant) -> Self {
        Self { until: Some(until), ..self }
    }

    pub(super) fn file(&self, pid: i32, name: &str) -> PathBuf {
        self.root.join(format!("{pid}/{name}"))
    }

    /// Its name as the kernel keeps it; `None` when it has gone.
    pub(super) fn command(&self, pid: i32) -> Option<String> {
        let name = fs::read(self.file(pid, "comm")).ok()?;
        Some(String::from_utf8_lossy(name.trim_ascii_end()).into_owned())
    }

    /// Its effective user; `None` when it has gone.
    pub(super) fn user(&self, pid: i32) -> Option<u32> {
        let status = fs::read(self.file(pid, "status")).ok()?;
        // No name looks like it: the kernel writes a line feed in one as `\n`.
        let mut lines = status.split(|byte| *byte == b'\n');
        let users = lines.find_map(|line| line.strip_prefix(b"Uid:"))?;
        std::str::from_utf8(users).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
    }

    /// One process.
    ///
    /// # Errors
    /// It has gone, or castoff has no descriptor left.
    pub(super) fn process(&self, pid: i32) -> io::Result<Process> {
        self.stat(pid, Process::parse)
    }

    /// What `parse` makes of its `stat`.
    ///
    /// # Errors
    /// As `process`.
    pub(super) fn stat<T>(
        &self,
        pid: i32,
        parse: impl FnOnce(i32, &[u8]) -> Option<T>,
    ) -> io::Result<T> {
        // The kernel gives all of it to the first read; `fs::read` would ask thrice.
        let mut stat = [0; 1024];
        let length = File::open(self.file(pid, "stat"))?.read(&mut stat)?;
        let stat = stat.get(..length).unwrap_or_default();
        parse(pid, stat).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The pids that there are, in the order of the directory.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn pids(&self) -> io::Result<impl Iterator<Item = i32> + use<>> {
        let entries = fs::read_dir(&self.root)?.flatten();
        Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
    }

    /// Whether it has a SIGKILL to take, or ends already.
    pub(super) fn is_ending(&self, pid: i32) -> bool {
        let stat = fs::read(self.file(pid, "stat")).unwrap_or_default();
        is_ending(&stat).unwrap_or(false)
    }

    /// Brings `living` up to date, by pid. Who is in there is not read again, but
    /// for the ancestors of those who are new: they decide whose the new ones are.
    ///
    /// # Errors
    /// The directory cannot be read, castoff has no descriptor left, or its time
    /// is up.
    pub(super) fn look(&self, living: &mut HashMap<i32, Process>) -> io::Result<()> {
        // First the directory, then the files: there may be one descriptor left.
        let pids: HashSet<i32> = self.pids()?.collect();
        living.retain(|pid, _| pids.contains(pid));
        let mut due: Vec<i32> = pids.into_iter().filter(|pid| !living.contains_key(pid)).collect();
        let mut read = HashSet::with_capacity(due.len());
        while let Some(pid) = due.pop() {
            if !read.insert(pid) {
                continue;
            }
            if self.until.is_some_and(|until| Instant::now() >= until) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match self.process(pid) {
                Ok(process) if process.is_alive() => {
                    living.insert(pid, process);
                    if living.contains_key(&process.parent) {
                        due.push(process.parent);
                    }
                }
                Err(error) if has_no_descriptor(&error) => return Err(error),
                Ok(_) | Err(_) => drop(living.remove(&pid)),
            }
        }
        Ok(())
    }

    /// As `look`; then all that live below castoff, each behind its parent.
    ///
    /// # Errors
    /// As `look`.
    pub(super) fn descendants(
        &self,
        living: &mut HashMap<i32, Process>,
    ) -> io::Result<Vec<Process>> {
        self.look(living)?;
        Ok(self.below(living))
    }

    /// Those in `living` that are below castoff, each behind its parent.
    pub(super) fn below(&self, living: &mut HashMap<i32, Process>) -> Vec<Process> {
        // Whose parent has ended during the look has another one by now.
        let is_lost = |process: &&Process| !living.contains_key(&process.parent);
        let lost: Vec<i32> = living.values().filter(is_lost).map(|lost| lost.pid).collect();
        for pid in lost {
            if let Ok(process) = self.process(pid) {
                living.insert(pid, process);
            }
        }
        let own = std::process::id() as i32;
        let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
        for process in living.values().filter(|process| process.pid != own) {
            children.entry(process.parent).or_default().push(*process);
        }
        let mut found = children.remove(&own).unwrap_or_default();
        let mut seen = 0;
        while let Some(parent) = found.get(seen) {
            found.extend(children.remove(&parent.pid).unwrap_or_default());
            seen += 1;
        }
        found
    }
}

/// Whether it is castoff that is out of descriptors, or the machine.
pub(super) fn has_no_descriptor(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(stat: &[u8]) -> Option<(char, i32)> {
        Process::parse(12, stat).map(|process| (process.state, process.parent))
    }

    #[test]
    fn the_fields_are_found_behind_any_name() {
        assert_eq!(parsed(b"12 (sh) S 7 12 12 0"), Some(('S', 7)));
        assert_eq!(parsed(b"12 (a) b (c) S) Z 7 12"), Some(('Z', 7)));
        assert_eq!(parsed(b"12 (\xff\xfe) R 1 0"), Some(('R', 1)));
        assert_eq!(parsed(b""), None);
        assert_eq!(parsed(b"12 (sh)"), None);
    }

    #[test]
    fn a_zombie_with_threads_is_none() {
        let stat = |state: char, threads: u64| {
            let text =
                format!("9 (x) {state} 1 9 9 0 -1 64 0 0 0 0 0 0 0 0 20 0 {threads} 0 777 0");
            Process::parse(9, text.as_bytes()).expect("it is well formed")
        };
        assert_eq!(stat('S', 1).started, 777);
        assert!(stat('S', 1).is_alive() && stat('Z', 2).is_alive());
        assert!(!stat('Z', 1).is_alive() && !stat('X', 0).is_alive());
    }

    #[test]
    fn whoever_has_a_sigkill_to_take_is_ending() {
        let stat = |flags: u64, pending: u64| {
            let text = format!(
                "9 (a) b) R 1 9 9 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0 0 0 0 0 0 0 {pending} 0"
            );
            is_ending(text.as_bytes())
        };
        assert_eq!(stat(0x40_0040, 0), Some(false));
        assert_eq!(stat(0x40_0044, 0), Some(true), "PF_EXITING");
        assert_eq!(stat(0x40_0040, 1 << 8), Some(true), "SIGKILL");
        assert_eq!(stat(0x40_0040, 1 << 14), Some(false), "SIGTERM");
        assert_eq!(is_ending(b"9 (x) R 1 9"), None);
        let proc = Proc::own(Path::new("/proc")).expect("/proc");
        assert!(!proc.is_ending(std::process::id() as i32));
    }

    #[test]
    fn this_process_is_found_with_its_own_parent() {
        let proc = Proc::own(Path::new("/proc")).expect("/proc");
        let own = std::process::id() as i32;
        let process = proc.process(own).expect("it runs");
        assert_eq!(process.parent, std::os::unix::process::parent_id() as i32);
        assert!(process.started > 0 && process.is_alive());
        assert_eq!(proc.user(own), Some(nix::unistd::Uid::effective().as_raw()));
        assert_eq!(proc.user(0), None);
        let mut living = HashMap::new();
        proc.look(&mut living).expect("/proc");
        assert_eq!(living.get(&own).map(|process| process.parent), Some(process.parent));
    }

    #[test]
    fn a_pid_that_has_become_another_processes_makes_nobody_a_descendant() {
        let proc = Proc::own(Path::new("/proc")).expect("/proc");
        let (own, mut living) = (std::process::id() as i32, HashMap::new());
        proc.look(&mut living).expect("/proc");
        // As if this process' parent had the pid of one that was below it.
        let parent = living.get(&own).expect("it runs").parent;
        living.get_mut(&parent).expect("it runs").parent = own;
        living.remove(&own);
        let found = proc.descendants(&mut living).expect("/proc");
        assert!(found.iter().all(|process| process.pid != parent));
    }
}

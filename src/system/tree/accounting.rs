//! The tree in figures: how many processes there are, what they use, and which
//! zombies wait for a parent that is not castoff.
//!
//! A look at all of them, which has a bound in time and number: with more there
//! are no figures, for part of a sum is none. It signals nobody.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

use super::is_pid_1;
use super::processes::{Proc, has_no_descriptor};
use crate::policy::usage::{Tree, Unreaped};

/// Beyond it nobody is counted.
const PROCESSES_MAX: usize = 4096;

/// How many zombies are named.
const NAMED_MAX: usize = 16;

/// How much longer than its CPU time a look may take where others have the CPUs.
const PATIENCE: u32 = 4;

/// After how many entries of a directory of descriptors the clock is looked at.
const CHUNK: usize = 256;

/// One process, with what it has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    parent: i32,
    /// It has ended and all of its threads have.
    is_zombie: bool,
    threads: u64,
    /// Of its own and of the children that it has reaped.
    ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Entry {
    /// The text of `/proc/PID/stat`; see `man 5 proc_pid_stat` for the order.
    fn parse(stat: &[u8]) -> Option<Self> {
        let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
        let rest = std::str::from_utf8(stat.get(after_name..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Counted from 1 in the manual, where the third is the first of these.
        let field = |nth: usize| fields.get(nth - 3).copied();
        // A signed number in the kernel's format, and 0 for what has gone.
        let number = |nth| match field(nth)? {
            negative if negative.starts_with('-') => Some(0),
            field => field.parse::<u64>().ok(),
        };
        let threads = number(20)?;
        let is_zombie = match field(3)? {
            "Z" => threads <= 1,
            "X" | "x" => true,
            _ => false,
        };
        let ticks = [14, 15, 16, 17].map(number).into_iter().sum::<Option<u64>>()?;
        let (virtual_bytes, resident_pages) = (number(23)?, number(24)?);
        let parent = field(4)?.parse().ok()?;
        Some(Self { parent, is_zombie, threads, ticks, virtual_bytes, resident_pages })
    }
}

/// What a look may cost.
struct Budget {
    /// By the clock of this thread's CPU time.
    cpu_until: Option<Duration>,
    until: Instant,
}

impl Budget {
    fn new(cpu_time: Duration) -> Self {
        Self {
            cpu_until: used_cpu_time().map(|used| used + cpu_time),
            until: Instant::now() + cpu_time * PATIENCE,
        }
    }

    fn is_spent(&self) -> bool {
        let is_used_up = match (self.cpu_until, used_cpu_time()) {
            (Some(until), Some(used)) => used >= until,
            // The other clock counts it too.
            _ => false,
        };
        is_used_up || Instant::now() >= self.until
    }
}

fn used_cpu_time() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok().map(Duration::from)
}

/// The tree as it is now; `None` where there is nothing to walk, or more of it
/// than can be walked in that much CPU time.
///
/// The CPU time is that of the descendants that live, of those that castoff has
/// reaped and of those that these had reaped. It is lost to the sum when a
/// parent has its children reaped by the kernel (SIGCHLD ignored).
pub(crate) fn account(proc_root: &Path, cpu_time: Duration) -> Option<Tree> {
    let budget = Budget::new(cpu_time);
    let proc = Proc::own(proc_root)?;
    let own = std::process::id() as i32;
    let pids: Vec<i32> = proc.pids().ok()?.take(PROCESSES_MAX + 1).collect();
    if pids.len() > PROCESSES_MAX {
        return None;
    }
    let mut entries = HashMap::with_capacity(pids.len());
    // Before the others: who is reaped meanwhile is missed, not counted twice.
    let reaped = reaped_seconds()?;
    for pid in pids.into_iter().filter(|pid| *pid != own) {
        if budget.is_spent() {
            return None;
        }
        match proc.stat(pid, |_, stat| Entry::parse(stat)) {
            Ok(entry) => drop(entries.insert(pid, entry)),
            Err(error) if has_no_descriptor(&error) => return None,
            // It has gone.
            Err(_) => {}
        }
    }
    let descendants = below(own, &entries);
    let answered_for: Vec<i32> =
        if is_pid_1() { entries.keys().copied().collect() } else { descendants.clone() };
    let mut tree = Tree { open_fds: Some(0), ..Tree::default() };
    let mut waiting = Vec::new();
    for pid in answered_for {
        let Some(entry) = entries.get(&pid) else { continue };
        if entry.is_zombie {
            tree.zombies += 1;
            let parent_lives = entries.get(&entry.parent).is_some_and(|parent| !parent.is_zombie);
            if entry.parent != own && parent_lives {
                waiting.push((pid, entry.parent));
            }
        } else {
            tree.processes += 1;
        }
    }
    let (mut ticks, mut pages) = (0_u64, 0_u64);
    for pid in descendants {
        let Some(entry) = entries.get(&pid) else { continue };
        ticks = ticks.saturating_add(entry.ticks);
        pages = pages.saturating_add(entry.resident_pages);
        tree.virtual_bytes = tree.virtual_bytes.saturating_add(entry.virtual_bytes);
        if !entry.is_zombie {
            tree.threads = tree.threads.saturating_add(entry.threads);
            let open_fds = open_fds(&proc, pid, &budget);
            tree.open_fds = tree.open_fds.zip(open_fds).map(|(sum, fds)| sum + fds);
        }
    }
    tree.cpu_seconds = reaped + ticks as f64 / positive(SysconfVar::CLK_TCK)? as f64;
    tree.resident_bytes = pages.saturating_mul(positive(SysconfVar::PAGE_SIZE)?);
    waiting.sort_unstable();
    let name = |&(pid, parent_pid): &(i32, i32)| {
        let (command, parent_command) = (proc.command(pid)?, proc.command(parent_pid)?);
        Some(Unreaped { pid, command, parent_pid, parent_command })
    };
    tree.unreaped = waiting.iter().take(NAMED_MAX).filter_map(name).collect();
    Some(tree)
}

/// All below `own`, zombies included.
fn below(own: i32, entries: &HashMap<i32, Entry>) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for (pid, entry) in entries {
        children.entry(entry.parent).or_default().push(*pid);
    }
    let mut found = children.remove(&own).unwrap_or_default();
    let mut seen = 0;
    while let Some(parent) = found.get(seen) {
        found.extend(children.remove(parent).unwrap_or_default());
        seen += 1;
    }
    found
}

/// How many descriptors a process has open; `None`: castoff may not look, or
/// not in time.
fn open_fds(proc: &Proc, pid: i32, budget: &Budget) -> Option<u64> {
    let directory = proc.file(pid, "fd");
    // Since Linux 6.2 the size is the number (kernel document `filesystems/proc`).
    let size = match fs::metadata(&directory) {
        Ok(directory) => directory.size(),
        Err(_) => return is_gone(proc, pid).then_some(0),
    };
    if size > 0 {
        return Some(size);
    }
    let Ok(entries) = fs::read_dir(&directory) else {
        return is_gone(proc, pid).then_some(0);
    };
    let mut count = 0;
    for (nth, _) in entries.enumerate() {
        if nth % CHUNK == 0 && budget.is_spent() {
            return None;
        }
        count += 1;
    }
    Some(count)
}

/// Whether the process has ended since it was looked at.
fn is_gone(proc: &Proc, pid: i32) -> bool {
    proc.process(pid).map_or(true, |process| !process.is_alive())
}

/// The CPU time of all that castoff has reaped, and they before.
fn reaped_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).ok()?;
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Some(seconds(usage.user_time()) + seconds(usage.system_time()))
}

fn positive(variable: SysconfVar) -> Option<u64> {
    let value = sysconf(variable).ok().flatten()?;
    u64::try_from(value).ok().filter(|value| *value > 0)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    const PLENTY: Duration = Duration::from_secs(600);

    fn sleep() -> Child {
        Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("it starts")
    }

    const STAT: &str = "9 (a) b) S 7 9 9 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 3 0 777 8192 5 \
                        18446744073709551615 1";

    #[test]
    fn the_fields_are_those_of_the_manual() {
        let entry = Entry::parse(STAT.as_bytes()).expect("well formed");
        let expected = Entry {
            parent: 7,
            is_zombie: false,
            threads: 3,
            ticks: 100,
            virtual_bytes: 8192,
            resident_pages: 5,
        };
        assert_eq!(entry, expected);
        // The kernel prints some of them signed.
        let negative = STAT.replace("8192 5", "8192 -5").replace("30 40", "-1 40");
        let entry = Entry::parse(negative.as_bytes()).expect("well formed");
        assert_eq!((entry.resident_pages, entry.ticks), (0, 70));
        // Its first thread has ended, the others have not.
        let zombie = STAT.replace(") S ", ") Z ");
        assert!(!Entry::parse(zombie.as_bytes()).expect("well formed").is_zombie);
        let zombie = zombie.replace(" 20 0 3 ", " 20 0 1 ");
        assert!(Entry::parse(zombie.as_bytes()).expect("well formed").is_zombie);
        assert_eq!(Entry::parse(b"9 (sh) S 7"), None);
        assert_eq!(Entry::parse(b""), None);
    }

    #[test]
    fn who_is_below_is_found_through_zombies_and_rings() {
        let entry = |parent| Entry { parent, ..Entry::parse(STAT.as_bytes()).expect("parses") };
        let entries: HashMap<i32, Entry> =
            [(2, 1), (3, 2), (4, 9), (5, 6), (6, 5)].map(|(pid, on)| (pid, entry(on))).into();
        assert_eq!(below(1, &entries), [2, 3]);
    }

    #[test]
    fn a_process_more_is_counted_with_what_it_has() {
        let root = Path::new("/proc");
        let mut child = sleep();
        // Until it has called exec, and has a memory of its own.
        let pid = child.id() as i32;
        while super::super::command(root, pid).as_deref() != Some("sleep") {
            std::thread::yield_now();
        }
        let tree = account(root, PLENTY).expect("/proc");
        assert!(tree.processes >= 1 && tree.threads >= 1, "{tree:?}");
        assert!(tree.resident_bytes > 0 && tree.virtual_bytes >= tree.resident_bytes, "{tree:?}");
        // The three that it has got.
        assert!(tree.open_fds.is_some_and(|count| count >= 3), "{tree:?}");
        assert!(tree.cpu_seconds.is_finite() && tree.cpu_seconds >= 0.0);
        let counted = open_fds(&Proc::own(root).expect("/proc"), pid, &Budget::new(PLENTY));
        assert_eq!(
            counted,
            Some(fs::read_dir(format!("/proc/{pid}/fd")).expect("ours").count() as u64)
        );
        child.kill().expect("our child");
        child.wait().expect("our child");
    }

    #[test]
    fn without_time_there_are_no_figures_rather_than_some() {
        assert_eq!(account(Path::new("/proc"), Duration::ZERO), None);
    }

    #[test]
    fn a_zombie_is_named_with_the_parent_that_does_not_reap_it() {
        let root = Path::new("/proc");
        // The shell becomes a program that knows nothing of the child it inherits.
        let mut parent = Command::new("/bin/sh")
            .args(["-c", "sleep 0 & exec sleep 600"])
            .stdin(Stdio::null())
            .spawn()
            .expect("it starts");
        let parent_pid = parent.id() as i32;
        let named = loop {
            let tree = account(root, PLENTY).expect("/proc");
            let is_its = |zombie: &&Unreaped| zombie.parent_pid == parent_pid;
            if let Some(zombie) = tree.unreaped.iter().find(is_its)
                && zombie.parent_command == "sleep"
            {
                assert!(tree.zombies >= 1);
                break zombie.clone();
            }
            std::thread::yield_now();
        };
        assert_eq!(named.command, "sleep");
        parent.kill().expect("our child");
        parent.wait().expect("our child");
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(bytes in any::<Vec<u8>>(), text in "9 \\(x\\) [SZX] ([-0-9]{1,20} ){0,24}") {
            let _ = Entry::parse(&bytes);
            let _ = Entry::parse(text.as_bytes());
        }
    }
}

//! Every process that castoff answers for: as PID 1 the whole namespace, else
//! its descendants and nothing else.
//!
//! A descendant cannot hide: whatever is orphaned becomes a child of castoff,
//! so the chain of parents always leads here. What `processes` has seen is
//! looked at again before it is signalled: a pid may be another's by then.

mod accounting;
mod processes;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::kill::{Handle, send};
use super::subreaper::is_pid_1;
use crate::policy::lifecycle::Scope;
use crate::policy::notify::Kinship;
use crate::policy::signal::Signal;
pub(crate) use accounting::account;
use processes::{Proc, Process, has_no_descriptor};

/// How often the walk is repeated for processes that were forked during it.
const WALKS: usize = 16;

/// How many generations below castoff a process is found: each costs the loop
/// some microseconds, and whoever is down there may ask for it again and again.
const GENERATIONS: usize = 64;

/// How often a climb is begun anew for ancestors that ended during it.
const CLIMBS: usize = 4;

/// Sends `signal` to all of them, to those first that castoff has `started`
/// itself and not reaped: they need no walk. Those that are gone meanwhile, or
/// that belong to a user castoff may not signal, are passed over.
pub(crate) fn signal(proc_root: &Path, started: &[Pid], signal: Signal, scope: Scope) {
    let proc = match scope {
        Scope::Everything if is_pid_1() => None,
        _ => Proc::own(proc_root),
    };
    let Some(proc) = proc else {
        if is_pid_1() {
            // The kernel does it under one lock: nobody can fork out of it. Where
            // descendants cannot be found, nobody else can be spared either.
            let _ = send(-1, signal);
        } else {
            signal_groups(started, signal);
        }
        return;
    };
    // What stands still cannot replace itself by a fork faster than it is found.
    let first = if signal == Signal::KILL { Signal::STOP } else { signal };
    for pid in started {
        let _ = send(pid.as_raw(), first);
        if first != signal {
            // Its group under one lock: there nobody can fork out of it either.
            let _ = send(-pid.as_raw(), first);
        }
    }
    let is_told = |pid: i32| started.contains(&Pid::from_raw(pid));
    let mut told: HashMap<i32, Process> = HashMap::new();
    let mut living = HashMap::new();
    for _ in 0..WALKS {
        let Ok(found) = proc.descendants(&mut living) else {
            signal_groups(started, signal);
            break;
        };
        let family: HashSet<i32> = found.iter().map(|process| process.pid).collect();
        let mut is_over = true;
        for process in found {
            if told.get(&process.pid).is_none_or(|known| known.started != process.started)
                && (is_told(process.pid) || tell(&proc, &process, &family, first))
            {
                told.insert(process.pid, process);
                is_over = false;
            }
        }
        if is_over {
            break;
        }
    }
    if first != signal {
        let family: HashSet<i32> = told.keys().copied().collect();
        for process in told.values() {
            tell(&proc, process, &family, signal);
        }
    }
}

/// Signals a process that was found, if it is still that one and still below
/// castoff; returns whether.
fn tell(proc: &Proc, process: &Process, family: &HashSet<i32>, signal: Signal) -> bool {
    let own = std::process::id() as i32;
    if process.parent == own {
        // Castoff has not reaped it meanwhile, and nobody else can.
        return send(process.pid, signal).is_ok();
    }
    // First the handle, then the look: what is seen now is true of what the
    // handle stands for, or that has gone and takes no signal.
    let mut handle = Handle::open(process.pid);
    if handle.as_ref().err() == Some(&Errno::ESRCH) {
        return false;
    }
    let mut now = proc.process(process.pid);
    if now.as_ref().is_err_and(has_no_descriptor) {
        // The last one is needed for the look.
        handle = Err(Errno::EMFILE);
        now = proc.process(process.pid);
    }
    let is_same = now.is_ok_and(|now| {
        now.started == process.started && (now.parent == own || family.contains(&now.parent))
    });
    is_same
        && match handle.and_then(|handle| handle.send(signal)) {
            Ok(()) => true,
            Err(Errno::ESRCH) => false,
            // Old kernels and gVisor have no handles.
            Err(_) => send(process.pid, signal).is_ok(),
        }
}

/// Where there is nothing to walk, what is left are the groups that castoff made.
fn signal_groups(started: &[Pid], signal: Signal) {
    for pid in started {
        let _ = send(-pid.as_raw(), signal);
    }
}

/// The proc file system that shows castoff's own pid namespace: the one below
/// `proc_root`, else the usual one.
pub(crate) fn own_proc(proc_root: &Path) -> Option<PathBuf> {
    Proc::own(proc_root).map(Proc::into_path)
}

/// Whether there is a proc file system by which descendants can be found.
pub(crate) fn can_be_walked(proc_root: &Path) -> bool {
    Proc::own(proc_root).is_some()
}

/// The name of a process as the kernel keeps it, at most 15 bytes and without
/// arguments, which may hold secrets; `None` when it has gone.
pub(crate) fn command(proc_root: &Path, pid: i32) -> Option<String> {
    Proc::own(proc_root)?.command(pid)
}

/// Whether a process has been killed, or ends by itself, and is still there.
pub(crate) fn is_ending(proc_root: &Path, pid: Pid) -> bool {
    Proc::own(proc_root).is_some_and(|proc| proc.is_ending(pid.as_raw()))
}

/// The effective user of a process; `None` when it has gone.
pub(crate) fn user_of(proc_root: &Path, pid: Pid) -> Option<u32> {
    Proc::own(proc_root)?.user(pid.as_raw())
}

/// The parent of a process; `None` when it has gone.
pub(crate) fn parent_of(proc_root: &Path, pid: Pid) -> Option<Pid> {
    let process = Proc::own(proc_root)?.process(pid.as_raw()).ok()?;
    Some(Pid::from_raw(process.parent))
}

/// What a process is to castoff. One whose pid castoff holds, as the child's that
/// it has not reaped, needs no look. A zombie still has its parents.
pub(crate) fn kinship(proc_root: &Path, pid: i32) -> Kinship {
    let Some(proc) = Proc::own(proc_root) else { return Kinship::Gone };
    let kinship = climb(|pid| proc.process(pid).ok().map(|process| process.parent), pid);
    kinship.unwrap_or(Kinship::Gone)
}

/// Whether a process may stand in for the child: it is below castoff and alive.
/// Only while castoff can see it: nothing keeps a grandchild from ending later.
pub(crate) fn is_living_descendant(proc_root: &Path, pid: i32) -> bool {
    let Some(proc) = Proc::own(proc_root) else { return false };
    kinship(proc_root, pid) == Kinship::Descendant
        && proc.process(pid).is_ok_and(|process| process.is_alive())
}

/// From parent to parent, up to castoff. `None`: it has gone itself, its
/// ancestors go faster than they can be climbed, or there are too many.
fn climb(parent_of: impl Fn(i32) -> Option<i32>, pid: i32) -> Option<Kinship> {
    let own = std::process::id() as i32;
    if pid == own {
        return Some(Kinship::Stranger);
    }
    for _ in 0..CLIMBS {
        let mut next = parent_of(pid)?;
        let mut is_lost = false;
        for _ in 0..GENERATIONS {
            // Its parent is in another pid namespace, or there is none.
            if next <= 0 {
                return Some(Kinship::Stranger);
            }
            if next == own {
                return Some(Kinship::Descendant);
            }
            match parent_of(next) {
                Some(parent) => next = parent,
                None => {
                    // Whoever was below it has another parent by now.
                    is_lost = true;
                    break;
                }
            }
        }
        if !is_lost {
            break;
        }
    }
    None
}

/// The pids of castoff's descendants, as PID 1 too without those who came in
/// from outside; `None` where there is nothing to walk, or not enough time.
pub(crate) fn pids(proc_root: &Path, until: Instant) -> Option<Vec<i32>> {
    let proc = Proc::own(proc_root)?.within(until);
    let found = proc.descendants(&mut HashMap::new()).ok()?;
    Some(found.into_iter().map(|process| process.pid).collect())
}

/// Who would be hit by a kill of everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Survivors {
    /// How many there are, listed or not.
    pub(crate) total: usize,
    /// Some of them, by pid.
    pub(crate) listed: Vec<Survivor>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Survivor {
    pub(crate) pid: i32,
    /// See `command`.
    pub(crate) command: String,
    /// The letter of `man 5 proc_pid_stat`.
    pub(crate) state: char,
}

/// Everybody of that scope who still lives, the child included: at most
/// `limit` of them are listed, and only those that were seen in time. `None`
/// where there is nothing to walk.
pub(crate) fn survivors(
    proc_root: &Path,
    limit: usize,
    scope: Scope,
    until: Instant,
) -> Option<Survivors> {
    let proc = Proc::own(proc_root)?.within(until);
    let mut living = HashMap::new();
    match proc.look(&mut living) {
        // Some are better than none.
        Err(error) if error.kind() != io::ErrorKind::TimedOut => return None,
        _ => {}
    }
    let mut found: Vec<Process> = if scope == Scope::Everything && is_pid_1() {
        living.remove(&(std::process::id() as i32));
        living.into_values().collect()
    } else {
        proc.below(&mut living)
    };
    found.sort_unstable_by_key(|process| process.pid);
    let name = |process: &Process| {
        let command = proc.command(process.pid)?;
        Some(Survivor { pid: process.pid, command, state: process.state })
    };
    let listed = found.iter().take(limit).filter_map(name).collect();
    Some(Survivors { total: found.len(), listed })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use super::*;

    fn own() -> Proc {
        Proc::own(Path::new("/proc")).expect("/proc")
    }

    fn sleep() -> Child {
        Command::new("sleep").arg("600").spawn().expect("it starts")
    }

    /// Time enough.
    fn later() -> Instant {
        Instant::now() + Duration::from_secs(600)
    }

    #[test]
    fn a_pid_that_is_another_processes_by_now_is_not_signalled() {
        let (proc, mut child, nobody) = (own(), sleep(), HashSet::new());
        let mut found = proc.process(child.id() as i32).expect("it runs");
        // As if it had been below somebody else when it was found.
        found.parent = 1;
        let mut earlier = found;
        earlier.started -= 1;
        assert!(!tell(&proc, &earlier, &nobody, Signal::KILL));
        assert!(tell(&proc, &found, &nobody, Signal::TERM));
        assert_eq!(child.wait().expect("our child").signal(), Some(Signal::TERM.number()));
    }

    #[test]
    fn a_process_below_a_stranger_is_not_signalled() {
        let (proc, mut shell) = (own(), Command::new("/bin/sh"));
        shell.args(["-c", "sleep 600 & echo $!; wait"]).stdout(Stdio::piped());
        let mut shell = shell.spawn().expect("it starts");
        let mut line = String::new();
        let stdout = shell.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a pid");
        let found = proc.process(line.trim().parse().expect("a pid")).expect("it runs");
        assert!(!tell(&proc, &found, &HashSet::from([1]), Signal::KILL));
        assert!(tell(&proc, &found, &HashSet::from([shell.id() as i32]), Signal::TERM));
        // Its wait is over.
        assert!(shell.wait().expect("our child").success());
    }

    #[test]
    fn descendants_strangers_and_the_dead_are_told_apart() {
        let root = Path::new("/proc");
        let own = std::process::id() as i32;
        let parent = std::os::unix::process::parent_id() as i32;
        for stranger in [own, parent, 1] {
            assert_eq!(kinship(root, stranger), Kinship::Stranger, "{stranger}");
            assert!(!is_living_descendant(root, stranger));
        }
        let (mut child, mut shell) = (sleep(), Command::new("/bin/sh"));
        shell.args(["-c", "sleep 600 & echo $!; wait"]).stdout(Stdio::piped());
        let mut shell = shell.spawn().expect("it starts");
        let mut line = String::new();
        let stdout = shell.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a pid");
        let grandchild = line.trim().parse().expect("a pid");
        for descendant in [child.id() as i32, shell.id() as i32, grandchild] {
            assert_eq!(kinship(root, descendant), Kinship::Descendant);
            assert!(is_living_descendant(root, descendant));
        }
        let pid = child.id() as i32;
        child.kill().expect("our child");
        // Until it is a zombie.
        while is_living_descendant(root, pid) {
            std::thread::yield_now();
        }
        assert_eq!(kinship(root, pid), Kinship::Descendant);
        child.wait().expect("our child");
        assert_eq!(kinship(root, pid), Kinship::Gone);
        send(grandchild, Signal::KILL).expect("it runs");
        shell.wait().expect("our child");
        assert_eq!(kinship(root, 0), Kinship::Gone);
    }

    #[test]
    fn a_climb_begins_anew_when_an_ancestor_ends_and_has_an_end_itself() {
        use std::cell::Cell;
        let own = std::process::id() as i32;
        // The parent ends after it was read; then castoff is the parent.
        let looks = Cell::new(0);
        let reparented = |pid: i32| {
            looks.set(looks.get() + 1);
            (pid == -7).then(|| if looks.get() == 1 { 5 } else { own })
        };
        assert_eq!(climb(reparented, -7), Some(Kinship::Descendant));
        let in_a_ring = |pid: i32| Some(if pid == 5 { 6 } else { 5 });
        assert_eq!(climb(in_a_ring, -7), None);
        let always_lost = |pid: i32| (pid == -7).then_some(5);
        assert_eq!(climb(always_lost, -7), None);
        assert_eq!(climb(|_| Some(0), -7), Some(Kinship::Stranger));
    }

    #[test]
    fn who_is_there_is_told_by_name_and_counted_beyond_the_list() {
        let root = Path::new("/proc");
        let mut children = [sleep(), sleep()];
        let pids: Vec<_> = children.iter().map(|child| child.id() as i32).collect();
        let is_asleep = |survivor: &&Survivor| {
            pids.contains(&survivor.pid) && survivor.command == "sleep" && survivor.state == 'S'
        };
        // Until both have called exec.
        let found = loop {
            let found = survivors(root, usize::MAX, Scope::Everything, later()).expect("/proc");
            if found.listed.iter().filter(is_asleep).count() == 2 {
                break found;
            }
            std::thread::yield_now();
        };
        assert!(found.listed.is_sorted_by_key(|survivor| survivor.pid));
        assert!(found.total >= 2);
        let own = std::process::id() as i32;
        assert!(found.listed.iter().all(|survivor| survivor.pid != own));
        let short = survivors(root, 1, Scope::Everything, later()).expect("/proc");
        assert!(short.listed.len() <= 1 && short.total >= 2);
        assert!(
            pids.iter().all(|pid| { super::pids(root, later()).expect("/proc").contains(pid) })
        );
        for child in &mut children {
            child.kill().expect("our child");
            child.wait().expect("our child");
        }
        assert!(
            !pids.iter().any(|pid| { super::pids(root, later()).expect("/proc").contains(pid) })
        );
    }
}

//! The tree below the child: however it was made, all of it is told, nothing of
//! it outlives castoff, and nobody else is ever signalled.
//!
//! Who is left is found from outside, by a mark in the environment that nobody
//! in the tree can lose by forking.
#![expect(unsafe_code, reason = "what happens between fork and exec, and limits of castoff's")]

use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, getuid};

use crate::support::{
    Castoff, Ended, Place, Running, Scratch, example, in_both_places, process, wait_until,
};

/// Nobody waits so long: for stops that must end by themselves.
const NEVER: &str = "9m";

/// castoff with a mark for all that it starts, and a deadline that is so far
/// away; behind it the kill has all the time that it needs.
fn castoff(place: Place, deadline: &str) -> (Castoff, Mark) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let nth = NEXT.fetch_add(1, Ordering::Relaxed);
    let mark = Mark(format!("TREE_MARK={}-{nth}", std::process::id()));
    let deadline = humantime::parse_duration(deadline).expect("a duration");
    let reserve = Duration::from_secs(600) - deadline;
    let (name, value) = mark.0.split_once('=').expect("a variable");
    let castoff = Castoff::new(place)
        .env(name, value)
        .env("CASTOFF_GRACE_PERIOD", "10m")
        .env("CASTOFF_KILL_RESERVE", format!("{}ms", reserve.as_millis()))
        .env("CASTOFF_DRAIN_DELAY", "0");
    (castoff, mark)
}

/// A variable that only one tree has.
struct Mark(String);

impl Mark {
    /// All that have it and live, castoff included, by this machine's pids.
    fn living(&self) -> Vec<i32> {
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| self.is_on(*pid) && process::is_running(*pid)).collect()
    }

    fn is_on(&self, pid: i32) -> bool {
        let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        variables.split(|byte| *byte == 0).any(|variable| variable == self.0.as_bytes())
    }

    /// Until castoff's tree has that many.
    #[track_caller]
    fn until(&self, castoff: &Running, count: usize) {
        wait_until("the tree is there", || {
            let living = self.living();
            let tree = living.iter().filter(|pid| **pid != castoff.pid);
            (tree.count() == count).then_some(())
        });
    }

    /// Nothing of the tree has outlived castoff.
    #[track_caller]
    fn is_gone(&self) {
        let left = self.living();
        assert!(left.is_empty(), "{left:?} live on");
    }
}

/// How the stop ended.
#[track_caller]
fn last_cause(castoff: &Running) -> String {
    let events = castoff.log().events();
    let last = events.iter().rfind(|event| event["to"] == "exited").expect("the end");
    last["cause"].as_str().expect("a cause").to_owned()
}

/// Processes beside castoff, in its session, that look like those of its tree.
struct Bystanders(Vec<Child>);

impl Bystanders {
    fn new(command: &[&str]) -> Self {
        let start = |_| {
            let mut program = Command::new(command[0]);
            program.args(&command[1..]).stdin(Stdio::null()).spawn().expect("it starts")
        };
        Self((0..3).map(start).collect())
    }

    /// Each still runs, and nobody has stopped it.
    #[track_caller]
    fn are_untouched(&mut self) {
        for child in &mut self.0 {
            assert!(child.try_wait().expect("it is our child").is_none());
            assert_eq!(process::state(child.id() as i32), Some('S'));
        }
    }
}

impl Drop for Bystanders {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

in_both_places! {
    fn whatever_way_it_was_made_nothing_of_the_tree_is_left(place) {
        let mut bystanders = Bystanders::new(&["sleep", "600"]);
        let (castoff, mark) = castoff(place, "300ms");
        // Each in another place of the tree, of the sessions and of the groups.
        let script = r#"
            setsid sleep 600 &
            (setsid sh -c 'sleep 600 & exec sleep 600' &)
            sh -c 'trap "" TERM INT HUP; sleep 600; sleep 600' &
            setsid sh -c 'trap "" TERM; kill -STOP $$; sleep 600' &
            trap "" TERM
            while :; do wait; sleep 600; done
        "#;
        let mut castoff = castoff.script(script).start();
        mark.until(&castoff, 7);
        wait_until("one of them stands still", || {
            mark.living().iter().any(|pid| process::state(*pid) == Some('T')).then_some(())
        });
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(137));
        mark.is_gone();
        bystanders.are_untouched();
    }

    fn one_that_forks_another_whenever_it_is_told_to_end_is_killed(place) {
        let (castoff, mark) = castoff(place, "300ms");
        let script = "again() { trap 'again &' TERM; echo up; while :; do sleep 0.01; done; }
            again & again & read line; exit 7";
        let (stdin, go) = io::pipe().expect("a pipe");
        let castoff = castoff.with(|command| { command.stdin(stdin); });
        let mut castoff = castoff.script(script).start();
        wait_until("both are up", || (castoff.stdout().so_far().len() >= 2).then_some(()));
        drop(go);
        castoff.until_phase("sweeping");
        assert_eq!(castoff.wait(), Ended::Code(7));
        mark.is_gone();
        assert_ne!(last_cause(&castoff), "gave_up");
    }

    fn comets_cannot_escape(place) {
        let mut bystanders = Bystanders::new(&["sleep", "600"]);
        let (castoff, mark) = castoff(place, "200ms");
        let mut castoff = castoff.child(&example("forker"), ["comets", "4"]).start();
        assert_eq!(castoff.wait(), Ended::Code(7));
        mark.is_gone();
        assert_ne!(last_cause(&castoff), "gave_up");
        bystanders.are_untouched();
    }

    fn a_daemon_that_is_left_behind_during_the_stop_does_not_outlive_it(place) {
        let (castoff, mark) = castoff(place, "400ms");
        let script = r#"
            trap '(trap "" TERM; setsid sleep 600 &); exit 3' TERM
            echo ready; while :; do sleep 0.01; done
        "#;
        let mut castoff = castoff.script(script).start();
        castoff.stdout().wait_for_line("ready");
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(3));
        mark.is_gone();
        assert_eq!(last_cause(&castoff), "tree_gone");
    }

    fn zombies_whose_parents_live_do_not_hold_the_stop_up(place) {
        let (castoff, mark) = castoff(place, NEVER);
        // sleep waits for nobody. One of them is below the child, one is left.
        let script = "(sh -c 'true & exec sleep 600' &); true & exec sleep 600";
        let mut castoff = castoff.script(script).start();
        wait_until("each has a zombie", || {
            let is_zombie = |pid: &i32| process::state(*pid) == Some('Z');
            let has_zombie = |pid: &&i32| {
                **pid != castoff.pid && process::children(**pid).iter().any(is_zombie)
            };
            (mark.living().iter().filter(has_zombie).count() == 2).then_some(())
        });
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(143));
        mark.is_gone();
        assert!(castoff.log().events().iter().all(|event| event["to"] != "killing"));
    }

    fn one_whose_first_thread_has_ended_is_told_like_any_other(place) {
        let (castoff, mark) = castoff(place, NEVER);
        // It looks like a zombie, and nobody can reap it.
        let script = format!("{} headless & read line; exit 7", example("forker"));
        let (stdin, go) = io::pipe().expect("a pipe");
        let castoff = castoff.with(|command| { command.stdin(stdin); });
        let mut castoff = castoff.script(&script).start();
        castoff.stdout().wait_for_line("ready");
        let headless = process::children(castoff.child());
        wait_until("its first thread has ended", || {
            (process::state(headless[0]) == Some('Z')).then_some(())
        });
        drop(go);
        assert_eq!(castoff.wait(), Ended::Code(7));
        mark.is_gone();
        assert_eq!(last_cause(&castoff), "tree_gone");
    }

    fn with_one_descriptor_left_the_tree_is_still_found(place) {
        let (castoff, mark) = castoff(place, "300ms");
        // One of them is beyond the group of the child.
        let script = "trap '' TERM; setsid sleep 600 & sleep 600; sleep 600";
        let mut castoff = castoff.script(script).start();
        mark.until(&castoff, 3);
        // The log and the loop have what they need.
        castoff.until_serving();
        limit_descriptors_of(castoff.pid, 1);
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(137));
        mark.is_gone();
        assert_ne!(last_cause(&castoff), "gave_up");
    }
}

/// Leaves castoff only so many descriptors that it may still open.
#[track_caller]
fn limit_descriptors_of(pid: i32, left: u64) {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
    let open: Vec<u64> =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let free = (0..).filter(|number| !open.contains(number)).nth(left as usize).expect("a number");
    let limit = libc::rlimit { rlim_cur: free, rlim_max: free };
    // SAFETY: the limit lives across the call; nothing is written.
    let set = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &limit, std::ptr::null_mut()) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}

/// Nothing is mounted over: `/proc` is as empty as in an image.
fn hide_proc() -> io::Result<()> {
    let (uid, gid) = (getuid(), getgid());
    if uid.is_root() {
        unshare(CloneFlags::CLONE_NEWNS)?;
    } else {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUSER)?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    }
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    mount(Some("tmpfs"), "/proc", Some("tmpfs"), MsFlags::empty(), nothing)?;
    Ok(())
}

/// As PID 1: under its own `/proc` is that of the machine.
fn show_the_machines_proc() -> io::Result<()> {
    Ok(umount2("/proc", MntFlags::MNT_DETACH)?)
}

#[test]
fn pid_1_needs_no_proc_to_end_everything() {
    for hide in [hide_proc, show_the_machines_proc] {
        let mut bystanders = Bystanders::new(&["sleep", "600"]);
        let (castoff, mark) = castoff(Place::Pid1, "300ms");
        let script = "trap '' TERM; setsid sh -c 'sleep 600; sleep 600' & sleep 600; sleep 600";
        let mut castoff = castoff.last(hide).script(script).start();
        mark.until(&castoff, 4);
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(137));
        mark.is_gone();
        bystanders.are_untouched();
    }
}

#[test]
fn without_a_proc_a_subreaper_ends_the_group_of_the_child_and_says_so() {
    let mut bystanders = Bystanders::new(&["sleep", "600"]);
    let (castoff, mark) = castoff(Place::Subreaper, "300ms");
    let script = "trap '' TERM; (sleep 600; sleep 600) & sleep 600; sleep 600";
    let mut castoff = castoff.last(hide_proc).script(script).start();
    mark.until(&castoff, 4);
    castoff.until_serving().signal(libc::SIGTERM);
    assert_eq!(castoff.wait(), Ended::Code(137));
    mark.is_gone();
    bystanders.are_untouched();
    assert!(castoff.log().events().iter().any(|event| event["event"] == "proc_unusable"));
}

#[test]
fn without_a_proc_pid_1_ends_what_a_child_leaves_behind_before_it_is_restarted() {
    for hide in [hide_proc, show_the_machines_proc] {
        let (castoff, mark) = castoff(Place::Pid1, "5m");
        let castoff =
            castoff.env("CASTOFF_RESTART", "on-failure").env("CASTOFF_RESTART_MIN", "1ms");
        let script = "setsid sleep 600 & echo up; read line; exit 1";
        let (stdin, go) = io::pipe().expect("a pipe");
        let castoff = castoff.with(|command| {
            command.stdin(stdin);
        });
        let mut castoff = castoff.last(hide).script(script).start();
        castoff.stdout().wait_for_line("up");
        drop(go);
        castoff.log().wait_for_event("restart_scheduled");
        wait_until("it was started again", || {
            let lines = castoff.log().so_far();
            let starts = lines.iter().filter(|line| line.contains("\"child_started\"")).count();
            (starts >= 2).then_some(())
        });
        castoff.signal(libc::SIGTERM);
        castoff.wait();
        mark.is_gone();
    }
}

#[test]
fn without_a_proc_a_stop_ends_the_hook_that_runs() {
    let (castoff, mark) = castoff(Place::Subreaper, "5m");
    let castoff = castoff.env("CASTOFF_PRE_START", "sh -c 'trap \"\" TERM; echo here; sleep 600'");
    let mut castoff = castoff.last(hide_proc).child("true", [""; 0]).start();
    castoff.log().wait_for_event("hook_output");
    castoff.signal(libc::SIGTERM);
    assert_eq!(castoff.wait(), Ended::Code(143));
    mark.is_gone();
}

/// The pids of another namespace name other processes: castoff must not take
/// them for its own.
#[test]
fn a_subreaper_does_not_believe_the_proc_of_another_namespace() {
    let mut bystanders = Bystanders::new(&["sleep", "600"]);
    let scratch = Scratch::new();
    let log = scratch.path("log");
    // A shell is PID 1; castoff, beside another process, is not.
    let script = format!(
        "sleep 600 & other=$!; trap '' TERM
         {castoff} -- sh -c 'trap \"\" TERM; (sleep 600; sleep 600) & echo up; sleep 600; sleep 600' 2> {log} &
         echo castoff; wait $!; echo code $?; kill -0 $other && echo untouched",
        castoff = env!("CARGO_BIN_EXE_castoff"),
    );
    let shell = Castoff::instead(Place::Pid1, "/bin/sh")
        .env("CASTOFF_GRACE_PERIOD", "10m")
        .env("CASTOFF_KILL_RESERVE", "599700ms")
        .env("CASTOFF_DRAIN_DELAY", "0")
        .last(show_the_machines_proc)
        .args(["-c", &script])
        .start();
    shell.stdout().wait_for_line("up");
    let is_castoff = |pid: &i32| process::status(*pid, "Name").as_deref() == Some("castoff");
    let castoff =
        wait_until("castoff runs", || process::children(shell.pid).into_iter().find(is_castoff));
    scratch.wait_for_line("log", "{");
    wait_until("castoff serves", || {
        scratch.read("log").contains("\"to\":\"serving\"").then_some(())
    });
    process::signal(castoff, libc::SIGTERM);
    shell.stdout().wait_for_line("code 137");
    shell.stdout().wait_for_line("untouched");
    assert!(scratch.read("log").contains("\"proc_unusable\""));
    bystanders.are_untouched();
}

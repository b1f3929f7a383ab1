//! Somebody else is PID 1: a pod that shares its processes, and the machine's
//! own. castoff is a subreaper and answers for its own descendants only.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::podman::{Container, Image, podman, podman_ok};
use crate::wait_until::wait_until;

/// A pod whose containers see each other's processes. Dropping it removes it.
struct Pod(String);

impl Pod {
    #[track_caller]
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("castoff-pod-{}-{number}", std::process::id());
        podman_ok(["pod", "create", "--share=pid", "--name", &name]);
        Self(name)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = podman().args(["pod", "rm", "--force", "--time=0", &self.0]).output();
    }
}

#[test]
fn in_a_shared_pid_namespace_the_stop_reaches_its_descendants_and_no_one_else() {
    let pod = Pod::new();
    let in_pod = || Container::of(Image::Scratch).option(format!("--pod={}", pod.0));
    let mut bystander = in_pod().option("--entrypoint=/print_signals").start();
    bystander.stdout.wait_for_line("ready ");
    let mut neighbour = in_pod().env("CASTOFF_HEALTH_LISTEN", "off").child(["/graceful"]).start();
    neighbour.until_serving();

    let records = crate::podman::shared_directory();
    let mut container = in_pod()
        .option(format!("--volume={}:/records", records.display()))
        .child(["/forker", "daemon", "/records/daemon"])
        .start();
    container.stdout.wait_for_line("ready");
    container.until_serving().stop(10);
    assert_eq!(container.code(), 0);
    let started = container.log.wait_for_event("castoff_started");
    assert_eq!((&started["pid1"], &started["subreaper"]), (&false.into(), &true.into()));
    let record = fs::read_to_string(records.join("daemon")).expect("a record");
    assert!(record.ends_with("SIGTERM\n"), "{record}");

    neighbour.stop(10);
    assert_eq!(neighbour.code(), 0);
    bystander.stop(10);
    assert_eq!(bystander.code(), 0);
    let signals = bystander.stdout.all();
    assert_eq!(signals.len(), 2, "one signal, its own stop: {signals:?}");
}

#[test]
fn in_a_shared_pid_namespace_the_kill_reaches_its_descendants_and_no_one_else() {
    let pod = Pod::new();
    let in_pod = || Container::of(Image::Scratch).option(format!("--pod={}", pod.0));
    // The same program with the same arguments, beside castoff and not below it.
    let twin = in_pod().option("--entrypoint=/stubborn").child(["2"]).start();
    let mut container = in_pod()
        .env("CASTOFF_HEALTH_LISTEN", "off")
        .env("CASTOFF_GRACE_PERIOD", "3s")
        .env("CASTOFF_KILL_RESERVE", "2s")
        .child(["/stubborn", "2"])
        .start();
    for lines in [&twin.stdout, &container.stdout] {
        let all = || (lines.so_far().len() == 3).then_some(());
        wait_until("the child and its companions run", all);
    }
    let stubborn_ones = || {
        let list = podman_ok(["top", &twin.name, "comm,state"]);
        list.lines().filter(|line| line.starts_with("stubborn")).map(str::to_owned).collect()
    };
    let before: Vec<String> = stubborn_ones();
    assert_eq!(before.len(), 6, "all of the pod are seen: {before:?}");
    container.until_serving().stop(10);
    assert_eq!(container.code(), 137);
    assert_eq!(container.log.wait_for_event("castoff_started")["pid1"], false);
    let phases = container.phases();
    assert!(phases.contains(&"killing".to_owned()), "{phases:?}");
    let after: Vec<String> = stubborn_ones();
    assert_eq!(after.len(), 3, "the twin and its companions: {after:?}");
    assert!(after.iter().all(|line| line.ends_with('S')), "{after:?}");
}

#[test]
fn among_the_processes_of_the_machine_it_is_a_subreaper() {
    let records = crate::podman::shared_directory();
    let mut container = Container::of(Image::Scratch)
        .option("--pid=host")
        .option(format!("--volume={}:/records", records.display()))
        .child(["/forker", "leave", "/records/daemon"])
        .start();
    // The child ends at once; the daemon that it leaves is castoff's to end.
    assert_eq!(container.code(), 7);
    assert_eq!(container.log.wait_for_event("castoff_started")["subreaper"], true);
    let record = wait_until("a record", || fs::read_to_string(records.join("daemon")).ok());
    assert!(record.ends_with("SIGTERM\n"), "{record}");
}

//! Why a container ended, as podman's user finds it in the mounted file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::podman::{Container, Image, shared_directory};

/// An empty file of anybody's, as a kubelet makes it.
fn message_file() -> PathBuf {
    let file = shared_directory().join("message");
    fs::write(&file, "").expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("its owner may");
    file
}

fn mounted(container: Container, file: &std::path::Path) -> Container {
    container.option(format!("--volume={}:/dev/termination-log", file.display()))
}

#[track_caller]
fn first_line(file: &std::path::Path) -> String {
    let text = fs::read_to_string(file).expect("a file");
    text.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn the_oom_killers_victim_is_named_in_the_termination_message() {
    for namespace in ["--cgroupns=host", "--cgroupns=private"] {
        let file = message_file();
        let container = Container::of(Image::Busybox).option("--memory=32m").option(namespace);
        let mut container = mounted(container, &file).child(["tail", "/dev/zero"]).start();
        assert_eq!(container.code(), 137, "{:?}", container.log.all());
        assert_eq!(container.log.wait_for_event("child_exited")["reason"], "oom_killed");
        let kill = container.log.wait_for_event("oom_kill");
        assert_eq!((&kill["count"], &kill["victim"]), (&1.into(), &"child".into()));
        let line = "child killed by the OOM killer at 32 MiB: exit code 137";
        assert_eq!(first_line(&file), line, "{namespace}");
    }
}

#[test]
fn a_descendant_that_was_the_victim_is_told_apart() {
    let file = message_file();
    let container = Container::of(Image::Busybox).option("--memory=32m");
    let script = ["sh", "-c", "tail /dev/zero; exit $?"];
    let mut container = mounted(container, &file).child(script).start();
    assert_eq!(container.code(), 137, "{:?}", container.log.all());
    assert_eq!(container.log.wait_for_event("child_exited")["reason"], "exited");
    assert_eq!(container.log.wait_for_event("oom_kill")["victim"], "descendant");
    let line = first_line(&file);
    let begin = "child exited by itself, just after the OOM killer had killed a descendant";
    assert!(line.starts_with(begin), "{line}");
}

#[test]
fn the_message_is_written_by_nobody_in_particular_on_a_read_only_root() {
    let file = message_file();
    let container = Container::of(Image::Busybox)
        .option("--read-only")
        .option("--user=65532")
        .option("--cap-drop=ALL");
    let mut container = mounted(container, &file).child(["sh", "-c", "exit 3"]).start();
    assert_eq!(container.code(), 3);
    assert_eq!(first_line(&file), "child exited by itself: exit code 3");
}

#[test]
fn a_mistake_in_the_settings_is_told_too() {
    let file = message_file();
    let container = Container::of(Image::Busybox).env("CASTOFF_DRAIN_DELAY", "hunter2");
    let mut container = mounted(container, &file).child(["true"]).start();
    assert_eq!(container.code(), 125);
    let line = "child not started, its settings cannot be used: CASTOFF_DRAIN_DELAY: exit code 125";
    assert_eq!(first_line(&file), line);
}

#[test]
fn a_good_end_and_the_programs_own_message_leave_no_trace_of_castoff() {
    let (good, own) = (message_file(), message_file());
    let container = mounted(Container::of(Image::Busybox), &good).child(["true"]);
    assert_eq!(container.start().code(), 0);
    assert_eq!(fs::read_to_string(&good).expect("a file"), "");
    let script = ["sh", "-c", "echo no such table > /dev/termination-log; exit 3"];
    assert_eq!(mounted(Container::of(Image::Busybox), &own).child(script).start().code(), 3);
    assert_eq!(fs::read_to_string(&own).expect("a file"), "no such table\n");
}

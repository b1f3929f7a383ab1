//! `podman stop`: a signal, a time, and podman's SIGKILL at its end.

use crate::podman::{Container, Image};

#[test]
fn a_graceful_child_is_told_once_and_its_code_is_castoffs() {
    let mut container = Container::of(Image::Scratch).child(["/graceful", "200"]).start();
    container.stdout.wait_for_line("graceful: working");
    container.until_serving().stop(10);
    assert_eq!(container.code(), 0);
    assert_eq!(container.phases(), ["starting", "serving", "stopping", "exited"]);
    let said = container.stdout.all();
    assert_eq!(said, ["graceful: working", "graceful: signal 15: finishing", "graceful: done"]);
    let received = container.log.wait_for_event("signal_received");
    assert_eq!(received["signal"], "SIGTERM");
    assert_eq!(received["sender"], "outside");
    let exited = container.log.wait_for_event("child_exited");
    assert_eq!(exited["reason"], "stopped");
    assert_eq!(exited["exit_code"], 0);
    assert_eq!(container.log.wait_for_event("exiting")["exit_code"], 0);
}

#[test]
fn castoffs_kill_comes_before_podmans_and_leaves_its_record() {
    let mut container = Container::of(Image::Scratch)
        .env("CASTOFF_GRACE_PERIOD", "8s")
        // All the rest of the grace period is what a loaded machine may take.
        .env("CASTOFF_KILL_RESERVE", "7s")
        .child(["/stubborn", "2"])
        .start();
    container.stdout.wait_for_line("stubborn: ");
    container.until_serving().stop(8);
    assert_eq!(container.code(), 137);
    let phases = container.phases();
    assert_eq!(phases.join(" "), "starting serving stopping killing exited");
    assert_eq!(container.log.wait_for_event("child_exited")["reason"], "killed_at_deadline");
    let exiting = container.log.wait_for_event("exiting");
    assert_eq!(exiting["exit_code"], 137);
    assert!(exiting["stop_ms"].as_u64().expect("milliseconds") >= 1000, "{exiting}");
}

#[test]
fn readiness_is_off_and_liveness_on_while_it_drains() {
    let mut container = Container::of(Image::Scratch)
        .published()
        .env("CASTOFF_GRACE_PERIOD", "30s")
        .env("CASTOFF_DRAIN_DELAY", "15s")
        .start();
    container.until_serving();
    assert_eq!(container.get("/readyz").status, 200);
    container.podman("kill", ["--signal", "TERM"]);
    container
        .log
        .wait_for("phase draining", |line| line.contains("\"to\":\"draining\"").then_some(()));
    assert_eq!(container.get("/readyz").status, 503);
    assert_eq!(container.get("/livez").status, 200);
    // A second one ends the wait: nobody has to wait for all of the delay.
    container.stop(10);
    assert_eq!(container.code(), 0);
    assert_eq!(container.phases(), ["starting", "serving", "draining", "stopping", "exited"]);
}

#[test]
fn the_stop_signal_of_the_image_is_passed_on_when_it_is_named() {
    let mut container = Container::of(Image::Scratch)
        .option("--stop-signal=SIGQUIT")
        .env("CASTOFF_STOP_ON", "SIGQUIT")
        .env("CASTOFF_STOP_SIGNAL", "SIGTERM")
        .child(["/print_signals"])
        .start();
    container.stdout.wait_for_line("ready ");
    container.until_serving().stop(10);
    assert_eq!(container.code(), 0);
    let said = container.stdout.all();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[1].starts_with("15 "), "{said:?}");
}

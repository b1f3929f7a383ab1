//! castoff as the ENTRYPOINT of an image: it starts, it is PID 1, codes pass.

use crate::podman::{Container, Image, castoff};

#[test]
fn the_image_of_dockerfile_example_serves_and_stops() {
    let mut container = Container::of(Image::Example).published().start();
    container.until_serving();
    assert_eq!(container.get("/readyz").status, 200);
    container.stop(10);
    assert_eq!(container.code(), 0);
    assert!(container.stdout.all().iter().any(|line| line == "graceful: done"));
}

#[test]
fn it_is_pid_1_in_an_image_from_scratch_and_the_child_is_not() {
    let mut container = Container::of(Image::Scratch).child(["/print_signals"]).start();
    let ready = container.stdout.wait_for_line("ready ");
    assert_ne!(ready, "ready 1");
    container.stop(10);
    assert_eq!(container.code(), 0);
    let started = container.log.wait_for_event("castoff_started");
    assert_eq!(started["pid1"], true);
    assert_eq!(started["pid"], 1);
}

#[test]
fn every_line_of_its_log_is_json_of_the_documented_shape() {
    let mut container = Container::of(Image::Scratch).child(["/graceful", "0"]).start();
    container.until_serving().stop(10);
    assert_eq!(container.code(), 0);
    let lines = container.log.all();
    for line in &lines {
        assert!(line.starts_with("{\"time\":\"") && line.len() < 4096, "{line}");
        let event: serde_json::Value = serde_json::from_str(line).expect(line);
        for field in ["time", "level", "msg", "event"] {
            assert!(event[field].is_string(), "{field} of {line}");
        }
    }
    let last: serde_json::Value = serde_json::from_str(&lines[lines.len() - 1]).expect("json");
    assert_eq!(last["event"], "exiting");
    assert_eq!(last["exit_code"], 0);
}

#[test]
fn the_exit_code_of_the_child_is_that_of_the_container() {
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -USR1 $$", 138)] {
        let mut container = Container::of(Image::Busybox).child(["sh", "-c", script]).start();
        assert_eq!(container.code(), code, "{script}");
    }
}

#[test]
fn a_command_that_is_not_there_or_no_program_ends_with_the_code_of_a_shell() {
    for (command, code) in [("/no/such/program", 127), ("no-such-program", 127), ("/etc", 126)] {
        let mut container = Container::of(Image::Busybox).child([command]).start();
        assert_eq!(container.code(), code, "{command}");
        container.log.wait_for(command, |line| line.contains(command).then_some(()));
    }
}

#[test]
fn a_misspelt_variable_ends_it_before_the_child_is_started() {
    let mut container = Container::of(Image::Scratch)
        .env("CASTOFF_GRACE_PERIODE", "5s")
        .child(["/print_env"])
        .start();
    assert_eq!(container.code(), 125);
    container.log.wait_for("the right name", |line| {
        (line.contains("CASTOFF_GRACE_PERIODE") && line.contains("CASTOFF_GRACE_PERIOD"))
            .then_some(())
    });
    assert!(container.stdout.all().is_empty());
}

#[test]
fn signals_of_podman_kill_reach_the_child_once() {
    let mut container = Container::of(Image::Scratch).child(["/print_signals"]).start();
    container.stdout.wait_for_line("ready ");
    // CONT does not wait for a stop here, it is a signal like any other.
    for (name, number) in [("HUP", 1), ("USR1", 10), ("WINCH", 28), ("CONT", 18), ("37", 37)] {
        container.podman("kill", ["--signal", name]);
        container.stdout.wait_for_line(&format!("{number} value="));
    }
    container.stop(10);
    assert_eq!(container.code(), 0);
    let numbers: Vec<_> = container.stdout.all();
    let numbers: Vec<_> = numbers.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(numbers, ["ready", "1", "10", "28", "18", "37", "15"]);
}

#[test]
fn it_stands_in_for_the_init_that_podman_brings() {
    let mut container = Container::of(Image::Scratch)
        .option("--init")
        .option(format!("--init-path={}", castoff().display()))
        .option("--entrypoint=/print_signals")
        .start();
    let ready = container.stdout.wait_for_line("ready ");
    assert_ne!(ready, "ready 1");
    container.until_serving().stop(10);
    assert_eq!(container.code(), 0);
    assert_eq!(container.log.wait_for_event("castoff_started")["pid1"], true);
}

//! castoff where nothing is allowed: another user, no capability, no path that
//! can be written, no new privileges.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::podman::{Container, Image};

const LOCKED: [&str; 6] = [
    "--read-only",
    "--read-only-tmpfs=false",
    "--user=65532",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--pids-limit=16",
];

#[test]
fn it_serves_answers_and_stops() {
    for image in [Image::Scratch, Image::Busybox] {
        let container = Container::of(image).published().child(["/graceful", "100"]);
        let mut container = LOCKED.into_iter().fold(container, Container::option).start();
        container.until_serving();
        for (path, word) in [
            ("/readyz", "ok"),
            ("/livez", "ok"),
            ("/startupz", "ok"),
            ("/metrics", "castoff_ready 1"),
        ] {
            let answer = container.get(path);
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            assert!(answer.body.contains(word), "{path}: {answer:?}");
        }
        container.stop(10);
        assert_eq!(container.code(), 0);
        assert_eq!(container.phases(), ["starting", "serving", "stopping", "exited"]);
    }
}

/// A client outside of the container, a child whose descriptors nobody with
/// another user could read, and no capability to look at its sockets.
#[test]
fn the_drain_sees_the_traffic() {
    let container = Container::of(Image::Scratch).published().option("--publish=127.0.0.1::8080");
    let container = LOCKED.into_iter().fold(container, Container::option);
    let container = container
        .env("CASTOFF_GRACE_PERIOD", "60s")
        .env("CASTOFF_DRAIN_MAX", "50s")
        .env("CASTOFF_DRAIN_QUIET", "500ms");
    let mut container = container.child(["/server", "0.0.0.0:8080"]).start();
    container.until_serving();
    container.stdout.wait_for_line("port 8080");
    let mut client = TcpStream::connect(container.address_of("8080")).expect("the server answers");
    let request = "GET /stream?4000&100 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    client.write_all(request.as_bytes()).expect("the request is taken");
    client.read_exact(&mut [0; 16]).expect("the stream has begun");
    container.podman("kill", ["--signal=TERM"]);
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("the answer ends");
    assert!(answer.ends_with("0\r\n\r\n"), "the stream was cut: {answer}");
    assert_eq!(container.code(), 143);
    let drained = container.log.wait_for_event("drain_finished");
    assert_eq!(drained["reason"], "quiet", "{drained}");
    assert!(drained["waited_ms"].as_u64() >= Some(500), "{drained}");
}

/// From scratch: names without the C library's modules, a socket without a
/// directory, and a probe without a shell.
#[test]
fn it_is_checked_notified_and_probed() {
    let container = Container::of(Image::Scratch)
        .published()
        .option("--add-host=neighbour:127.0.0.1")
        .env("CASTOFF_NOTIFY", "on")
        .env("CASTOFF_CHECK_PERIOD", "100ms")
        .env("CASTOFF_DEPENDS_ON", "http://neighbour:9911/livez,grpc://neighbour:9911/live")
        .env("CASTOFF_LIVE_CHECK", "exec:/castoff probe live");
    let container = LOCKED.into_iter().fold(container, Container::option);
    let container = container.child(["/notifier", "wait:300", "READY=1", "STATUS=at work"]);
    let mut container = container.start();
    container.until_serving();
    container.stdout.wait_for_line("STATUS=at work");
    container.podman_until("exec", ["/castoff", "probe"]);
    let page = container.get("/statusz").body;
    assert!(page.contains("at work") && page.contains("depends-on-2"), "{page}");
    assert_eq!(container.get("/livez/live-check").status, 200);
    container.stop(10);
    assert_eq!(container.code(), 0);
}

#[test]
fn nothing_that_the_child_inherits_is_changed() {
    let container = Container::of(Image::Scratch).child(["/print_env"]);
    let container = LOCKED.into_iter().fold(container, Container::option);
    let mut with = container.option("--pids-limit=-1").start();
    let container = Container::of(Image::Scratch).option("--entrypoint=/print_env");
    let container = LOCKED.into_iter().fold(container, Container::option);
    let mut without = container.option("--pids-limit=-1").start();
    assert_eq!((with.code(), without.code()), (0, 0));
    let facts = |lines: Vec<String>| -> Vec<String> {
        // The host name, which is random; the numbers of pipes; and what differs
        // on purpose: castoff's child leads a group of its own.
        let differ = ["env\tHOSTNAME=", "descriptor\t", "leads_its_group\t"];
        let same = |line: &String| !differ.iter().any(|word| line.starts_with(word));
        let mut facts: Vec<_> = lines.into_iter().filter(same).collect();
        facts.sort(); // podman gives its variables in a random order
        facts
    };
    assert_eq!(facts(with.stdout.all()), facts(without.stdout.all()));
}

#[test]
fn the_published_port_answers_what_is_there_and_nothing_else() {
    let mut container = Container::of(Image::Scratch).published().start();
    container.until_serving();
    assert_eq!(container.get("/healthz").status, 200);
    assert_eq!(container.get("/").status, 404);
    container.stop(10);
    assert_eq!(container.code(), 0);
}

#[test]
fn a_port_that_is_taken_is_an_error_only_when_it_was_asked_for() {
    // The child of the first castoff is a second one, in the same container.
    let container = Container::of(Image::Scratch).child(["/castoff", "--", "/print_env"]);
    let mut container = container.start();
    assert_eq!(container.code(), 0);

    let container = Container::of(Image::Scratch).env("CASTOFF_HEALTH_LISTEN", "127.0.0.1:9911");
    let mut container = container.child(["/castoff", "--", "/print_env"]).start();
    assert_eq!(container.code(), 125);
    container.log.wait_for("a reason", |line| {
        line.contains("CASTOFF_HEALTH_LISTEN=\"127.0.0.1:9911\"").then_some(())
    });
}

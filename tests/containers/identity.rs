//! CASTOFF_USER in images with and without users, and where a runtime does not
//! let castoff become one.

use crate::podman::{Container, Image};

#[track_caller]
fn printed(container: Container) -> Vec<String> {
    let mut container = container.start();
    assert_eq!(container.code(), 0, "{:?}", container.log.all());
    container.stdout.all()
}

#[test]
fn the_users_of_the_image_are_known() {
    for (user, ids, home) in [
        ("app", "uid=1500(app) gid=1501(app) groups=1501(app),1502(extra)", "/home/app"),
        ("1500", "uid=1500(app) gid=1501(app) groups=1501(app),1502(extra)", "/home/app"),
        ("app:extra", "uid=1500(app) gid=1502(extra) groups=1502(extra)", "/home/app"),
        ("4321", "uid=4321 gid=0(root) groups=0(root)", "/"),
    ] {
        let container = Container::of(Image::Busybox).env("CASTOFF_USER", user);
        let script = "id; echo $HOME; echo heard > /dev/stderr; echo told > /dev/stdout";
        let mut container = container.child(["sh", "-c", script]).start();
        assert_eq!(container.code(), 0, "{user}: {:?}", container.log.all());
        assert_eq!(container.stdout.all(), [ids, home, "told"], "{user}");
        container.log.wait_for_line("heard");
    }
}

/// As an image's own USER would have it, seen by the same child.
#[test]
fn it_is_what_the_runtime_itself_does() {
    let show = "grep -E '^(Uid|Gid|Groups|Cap(Prm|Eff|Amb))' /proc/self/status; echo $HOME";
    for user in ["app", "1500:1502", "4321"] {
        let by_castoff = Container::of(Image::Busybox).env("CASTOFF_USER", user);
        let by_podman = Container::of(Image::Busybox).option(format!("--user={user}"));
        let by_castoff = printed(by_castoff.child(["sh", "-c", show]));
        assert_eq!(by_castoff, printed(by_podman.child(["sh", "-c", show])), "{user}");
    }
}

#[test]
fn an_image_without_users_takes_numbers() {
    let container = Container::of(Image::Scratch).env("CASTOFF_USER", "1234:5678");
    let facts = printed(container.option("--read-only").child(["/print_env"]));
    for fact in ["Uid\t1234\t1234\t1234\t1234", "Groups\t5678", "CapEff\t0000000000000000"] {
        assert!(facts.iter().any(|line| line == fact), "no {fact:?} in {facts:#?}");
    }
    let home = facts.iter().find(|line| line.starts_with("env\tHOME="));
    assert_eq!(home.map(String::as_str), Some("env\tHOME=/"));

    let container = Container::of(Image::Scratch).env("CASTOFF_USER", "app");
    let mut container = container.child(["/print_env"]).start();
    assert_eq!(container.code(), 125);
    container.log.wait_for("the name", |line| {
        line.contains("CASTOFF_USER=\"app\": no user app in /etc/passwd").then_some(())
    });
    assert_eq!(container.stdout.all(), [""; 0]);
}

#[test]
fn it_serves_and_stops_on_a_read_only_root() {
    let container = Container::of(Image::Scratch)
        .option("--read-only")
        .option("--read-only-tmpfs=false")
        .option("--security-opt=no-new-privileges")
        .env("CASTOFF_USER", "1234:5678")
        .env("CASTOFF_WORKDIR", "/dev")
        .env("CASTOFF_NOTIFY", "on");
    let container = container.child(["/notifier", "READY=1", "STATUS=at work"]).start();
    container.until_serving();
    container.stop(10);
    assert_eq!(container.log.wait_for_event("child_exited")["reason"], "stopped");
}

#[test]
fn without_the_capability_nothing_is_started() {
    let container =
        Container::of(Image::Scratch).env("CASTOFF_USER", "1234").option("--cap-drop=ALL");
    let mut container = container.child(["/print_env"]).start();
    assert_eq!(container.code(), 125);
    container.log.wait_for("the cause", |line| {
        let cause =
            "cannot become user 1234:0 of CASTOFF_USER (setgroups): Operation not permitted";
        line.contains(cause).then_some(())
    });
    container.log.wait_for_line("hint: castoff needs CAP_SETGID and CAP_SETUID");
    assert_eq!(container.stdout.all(), [""; 0]);
    // Who is that user already needs none.
    let container =
        Container::of(Image::Scratch).env("CASTOFF_USER", "1234").option("--cap-drop=ALL");
    let facts = printed(container.option("--user=1234:7").child(["/print_env"]));
    assert!(facts.contains(&"Gid\t7\t7\t7\t7".to_owned()), "{facts:?}");
}

#[test]
fn a_castoff_that_cannot_signal_the_child_says_so_at_once() {
    let container = Container::of(Image::Scratch)
        .env("CASTOFF_USER", "1234")
        .env("CASTOFF_GRACE_PERIOD", "3s")
        .option("--cap-drop=ALL")
        .option("--cap-add=SETUID,SETGID");
    let mut container = container.child(["/graceful", "0"]).start();
    container.until_serving();
    container.log.wait_for_event("child_out_of_reach");
    container.stop(10);
    container.code();
    assert_eq!(container.log.wait_for_event("signal_forward_failed")["signal"], "SIGTERM");
}

//! Checks: what each kind asks, what follows from the answers for readiness,
//! liveness and the start, and that neither one that hangs nor one that floods
//! keeps castoff from its duties.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{
    Castoff, Ended, Place, Running, Scratch, example, in_both_places, process, wait_until,
};

/// castoff without any deadline that a test would live to see, and checks that
/// follow each other quickly.
fn castoff(place: Place) -> Castoff {
    Castoff::new(place)
        .env("CASTOFF_GRACE_PERIOD", "20m")
        .env("CASTOFF_CHECK_PERIOD", "20ms")
        .env("CASTOFF_CHECK_TIMEOUT", "10s")
}

const FOREVER: &str = "exec sleep 600";

impl Running {
    #[track_caller]
    fn until_status(&self, path: &str, status: u16) -> String {
        wait_until(&format!("{path} answers {status}"), || {
            let answer = self.get(path);
            (answer.status == status).then_some(answer.body)
        })
    }

    /// The verdicts on a check so far, each with its reason.
    fn verdicts(&self, check: &str) -> Vec<(bool, String)> {
        let lines = self.log().so_far();
        let events = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events
            .filter(|line| line["event"] == "check_changed" && line["check"] == check)
            .map(|line| {
                let reason = line["reason"].as_str().unwrap_or_default().to_owned();
                (line["ok"].as_bool().expect("a verdict"), reason)
            })
            .collect()
    }

    /// Waits until the log has a verdict with such a reason.
    #[track_caller]
    fn until_verdict(&self, check: &str, ok: bool, reason: &str) {
        wait_until(&format!("{check} is {ok}: {reason}"), || {
            let verdicts = self.verdicts(check);
            let is_it = |(is_ok, why): &(bool, String)| *is_ok == ok && why.contains(reason);
            verdicts.iter().any(is_it).then_some(())
        });
    }
}

/// A check whose command succeeds while the file exists.
fn exists(path: &str) -> String {
    format!("exec:test -e {path}")
}

#[track_caller]
fn give(path: &str) {
    fs::write(path, "").expect("a writable directory");
}

#[track_caller]
fn take(path: &str) {
    fs::remove_file(path).expect("it is there");
}

/// A port on which nobody listens, for now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// Answers every request with that head, in a thread of its own.
fn server(head: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("a client");
            let mut request = [0; 1024];
            let _ = client.read(&mut request);
            let _ = client.write_all(head.as_bytes());
        }
    });
    address
}

in_both_places! {
    fn readiness_follows_its_check_and_liveness_does_not(place) {
        let scratch = Scratch::new();
        let file = scratch.path("ready");
        let mut castoff = castoff(place)
            .env("CASTOFF_READY_CHECK", exists(&file))
            .script(FOREVER)
            .start();
        castoff.until_verdict("ready-check", false, "exited with 1");
        let body = castoff.until_status("/readyz", 503);
        assert!(body.contains("[-]ready-check failed: reason withheld\n"), "{body}");
        assert_eq!(castoff.get("/startupz").status, 503);
        assert_eq!(castoff.get("/livez").status, 200);
        give(&file);
        let body = castoff.until_status("/readyz?verbose", 200);
        assert!(body.contains("[+]ready-check ok\n"), "{body}");
        assert_eq!(castoff.get("/startupz").status, 200);
        castoff.until_serving();
        take(&file);
        castoff.until_status("/readyz", 503);
        assert_eq!(castoff.get("/readyz/ready-check").status, 503);
        // It has been ready once.
        assert_eq!(castoff.get("/startupz").status, 200);
        assert_eq!(castoff.get("/livez").status, 200);
        give(&file);
        castoff.until_status("/readyz", 200);
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 128 + libc::SIGTERM);
        let ok: Vec<_> = castoff.verdicts("ready-check").iter().map(|(ok, _)| *ok).collect();
        assert_eq!(ok, [false, true, false, true]);
    }

    fn a_failed_live_check_ends_nobody(place) {
        let scratch = Scratch::new();
        let file = scratch.path("alive");
        let castoff = castoff(place)
            .env("CASTOFF_LIVE_CHECK", exists(&file))
            .script(FOREVER)
            .start();
        let child = castoff.child();
        castoff.until_serving();
        let body = castoff.until_status("/livez", 503);
        assert_eq!(body, "[+]ping ok\n[-]live-check failed: reason withheld\nlivez check failed\n");
        assert_eq!(castoff.get("/healthz").status, 503);
        assert_eq!(castoff.get("/readyz").status, 200);
        give(&file);
        castoff.until_status("/livez", 200);
        assert!(process::is_running(child));
        assert_eq!(castoff.verdicts("live-check").len(), 2);
    }

    fn nothing_else_begins_before_start_up_has_passed(place) {
        let scratch = Scratch::new();
        let (file, record) = (scratch.path("up"), scratch.path("record"));
        let castoff = castoff(place)
            .env("CASTOFF_STARTUP_CHECK", exists(&file))
            .env("CASTOFF_READY_CHECK", format!("exec:sh -c 'test -e {file} && echo ready >> {record}'"))
            .env("CASTOFF_LIVE_CHECK", format!("exec:sh -c 'test -e {file} || echo early >> {record}'"))
            .script(FOREVER)
            .start();
        castoff.until_verdict("startup-check", false, "exited with 1");
        let body = castoff.until_status("/startupz", 503);
        assert!(body.contains("[-]startup-check failed: reason withheld\n"), "{body}");
        assert_eq!(castoff.get("/livez").status, 200);
        assert_eq!(castoff.verdicts("ready-check"), []);
        give(&file);
        castoff.until_status("/readyz", 200);
        assert!(!scratch.read("record").contains("early"), "the live check came first");
        // Start-up passes once and for all.
        take(&file);
        castoff.until_status("/readyz", 503);
        assert_eq!(castoff.get("/startupz").status, 200);
    }

    fn a_dependency_gates_readiness_and_nothing_else(place) {
        let port = free_port();
        let mut castoff = castoff(place)
            .env("CASTOFF_DEPENDS_ON", format!("tcp://127.0.0.1:{port},unix:///nowhere/at/all"))
            .script(FOREVER)
            .start();
        castoff.until_verdict("depends-on-1", false, "refused");
        castoff.until_verdict("depends-on-2", false, "");
        castoff.until_serving();
        assert_eq!(castoff.get("/startupz").status, 200);
        assert_eq!(castoff.get("/livez").status, 200);
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("still free");
        castoff.until_verdict("depends-on-1", true, "");
        let body = castoff.until_status("/readyz", 503);
        assert!(body.contains("[+]depends-on-1 ok\n[-]depends-on-2 failed"), "{body}");
        drop(listener);
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 128 + libc::SIGTERM);
    }

    fn a_port_is_seen_without_a_connection_when_the_tree_listens(place) {
        let stranger = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = stranger.local_addr().expect("its address").port();
        stranger.set_nonblocking(true).expect("an option");
        let script = format!(
            "read line; {} 127.0.0.1:{port} & wait",
            example("server")
        );
        let castoff = castoff(place)
            .env("CASTOFF_READY_CHECK", format!("listen:{port}"))
            .with(|command| { command.stdin(std::process::Stdio::piped()); })
            .script(&script);
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let castoff = castoff.with(|command| { command.stdin(reader); }).start();
        castoff.until_verdict("ready-check", false, "no descendant");
        assert!(stranger.accept().is_err(), "somebody has connected");
        drop(stranger);
        writer.write_all(b"go\n").expect("it reads");
        castoff.until_status("/readyz", 200);
    }

    fn a_heartbeat_must_be_recent(place) {
        let scratch = Scratch::new();
        let file = scratch.file("beat", "");
        let old = std::time::SystemTime::now() - Duration::from_secs(3600);
        let open = || fs::File::options().write(true).open(&file).expect("it is there");
        open().set_modified(old).expect("our own file");
        let castoff = castoff(place)
            .env("CASTOFF_LIVE_CHECK", format!("file://{file}?max_age=10m"))
            .env("CASTOFF_READY_CHECK", format!("file://{file}"))
            .script(FOREVER)
            .start();
        castoff.until_status("/readyz", 200);
        castoff.until_status("/livez", 503);
        castoff.until_verdict("live-check", false, "more than 10m");
        open().set_modified(std::time::SystemTime::now()).expect("our own file");
        castoff.until_status("/livez", 200);
        take(&file);
        castoff.until_status("/livez", 503);
        castoff.until_status("/readyz", 503);
    }

    fn a_check_of_http_goes_by_the_status(place) {
        for (head, reason) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", None),
            ("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", None),
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Some("404")),
            ("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", Some("503")),
            ("hello\r\n\r\n", Some("")),
        ] {
            let castoff = castoff(place)
                .env("CASTOFF_READY_CHECK", format!("http://{}/health?full", server(head)))
                .script(FOREVER)
                .start();
            castoff.until_verdict("ready-check", reason.is_none(), reason.unwrap_or_default());
            castoff.until_status("/readyz", if reason.is_none() { 200 } else { 503 });
        }
    }

    fn checks_come_from_tables_under_their_own_names(place) {
        let scratch = Scratch::new();
        let socket = scratch.path("socket");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let config = scratch.file("castoff.toml", format!(
            "[[check]]\nname = \"app\"\nlevel = \"ready\"\ntarget = \"unix://{socket}\"\n\
             period = \"10ms\"\nfailures = 1\n\
             [[check]]\nname = \"disk\"\nlevel = \"live\"\ntarget = \"file://{socket}\"\n"
        ));
        let castoff = castoff(place).env("CASTOFF_CONFIG", &config).script(FOREVER).start();
        castoff.until_status("/readyz/app", 200);
        assert_eq!(castoff.get("/livez/disk").status, 200);
        assert_eq!(castoff.get("/readyz/disk").status, 404);
        let page = castoff.get("/metrics").body;
        assert!(page.contains("castoff_check_up{check=\"app\",level=\"ready\"} 1\n"), "{page}");
        assert!(page.contains("castoff_check_duration_seconds_count{check=\"app\",level=\"ready\"}"), "{page}");
        drop(listener);
        castoff.until_status("/readyz/app", 503);
        castoff.until_status("/readyz?exclude=app", 200);
    }

    fn a_command_that_hangs_is_killed_with_its_group_and_never_piles_up(place) {
        let scratch = Scratch::new();
        let record = scratch.path("record");
        let script = format!("echo run >> {record}; sleep 600 & echo $! >> {record}; wait");
        let castoff = castoff(place)
            .env("CASTOFF_READY_CHECK", format!("exec:sh -c '{script}'"))
            .env("CASTOFF_CHECK_TIMEOUT", "200ms")
            .script(FOREVER)
            .start();
        castoff.until_verdict("ready-check", false, "200ms");
        wait_until("there were some runs", || {
            (scratch.read("record").matches("run").count() > 3).then_some(())
        });
        let children = process::children(castoff.pid);
        assert!(children.len() <= 4, "{children:?}");
        assert_eq!(castoff.get("/livez").status, 200);
    }

    fn a_command_that_hangs_for_longer_than_the_period_fails_once_a_run(place) {
        let scratch = Scratch::new();
        let (file, record) = (scratch.file("ok", ""), scratch.path("record"));
        let script = format!("test -e {file} || {{ echo hangs >> {record}; exec sleep 600; }}");
        let castoff = castoff(place)
            .env("CASTOFF_READY_CHECK", format!("exec:sh -c '{script}'"))
            .env("CASTOFF_CHECK_TIMEOUT", "200ms")
            .env("CASTOFF_CHECK_FAILURES", "3")
            .script(FOREVER)
            .start();
        castoff.until_status("/readyz", 200);
        take(&file);
        castoff.until_status("/readyz", 503);
        let runs = scratch.read("record").matches("hangs").count();
        assert!(runs >= 3, "{runs}");
        castoff.until_verdict("ready-check", false, "has not ended within 200ms");
    }

    fn a_command_that_floods_tells_its_last_line(place) {
        let flood = "exec:sh -c 'yes | head -c 1000000; echo the disk is full >&2; exit 7'";
        let castoff = castoff(place)
            .env("CASTOFF_READY_CHECK", flood)
            .script(FOREVER)
            .start();
        castoff.until_verdict("ready-check", false, "exited with 7: the disk is full");
    }

    fn commands_that_flood_do_not_keep_the_child_from_being_heard(place) {
        let scratch = Scratch::new();
        let flood = |name: &str| {
            let target = "target = \"exec:yes\"\ntimeout = \"10m\"";
            format!("[[check]]\nname = \"{name}\"\nlevel = \"startup\"\n{target}\n")
        };
        let floods: String = ["a", "b", "c", "d"].map(flood).concat();
        let config = scratch.file("castoff.toml", floods);
        let mut castoff = castoff(place)
            .env("CASTOFF_CONFIG", &config)
            .env("CASTOFF_READY_CHECK", "fd:3")
            .script("sleep 1; for n in 1 2 3; do echo >&3 && exec 3>&-; done; exec sleep 600")
            .start();
        castoff.until_verdict("ready-check", true, "");
        castoff.signal(libc::SIGTERM);
        castoff.wait();
    }

    fn more_checks_than_there_is_time_for_hold_up_neither_probes_nor_a_stop(place) {
        let scratch = Scratch::new();
        // Somebody else's, so that each look walks the tree.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let check = |nth: usize| {
            let target = format!("target = \"listen:{port}\"\nperiod = \"1ms\"\n");
            format!("[[check]]\nname = \"c{nth}\"\nlevel = \"live\"\n{target}")
        };
        let config = scratch.file("castoff.toml", (0..1000).map(check).collect::<String>());
        let mut castoff =
            castoff(place).env("CASTOFF_CONFIG", &config).script(FOREVER).start();
        // Where they come first each of these takes minutes.
        for _ in 0..4 {
            assert_eq!(castoff.get("/startupz").status, 200);
        }
        castoff.signal(libc::SIGTERM);
        castoff.wait();
    }

    fn at_a_stop_the_verdicts_stay_and_nobody_is_asked(place) {
        let scratch = Scratch::new();
        let file = scratch.file("ok", "");
        let record = scratch.path("record");
        let mut castoff = castoff(place)
            .env("CASTOFF_DRAIN_DELAY", "1s")
            .env("CASTOFF_LIVE_CHECK", exists(&file))
            .env("CASTOFF_READY_CHECK", format!("exec:sh -c 'echo asked >> {record}'"))
            .script("trap 'exit 0' TERM; while :; do sleep 0.02; done")
            .start();
        castoff.until_status("/readyz", 200);
        castoff.signal(libc::SIGTERM);
        castoff.until_phase("draining");
        take(&file);
        let asked = scratch.read("record").len();
        assert_eq!(castoff.get("/livez").status, 200);
        assert_eq!(castoff.code(), 0);
        // One may have been under way.
        assert!(scratch.read("record").len() <= asked + "asked\n".len());
        assert!(castoff.verdicts("live-check").iter().all(|(ok, _)| *ok));
    }

    fn the_start_waits_for_others(place) {
        let scratch = Scratch::new();
        let (file, record) = (scratch.path("there"), scratch.path("record"));
        let mut castoff = castoff(place)
            .env("CASTOFF_WAIT_FOR", exists(&file))
            .env("CASTOFF_PRE_START", format!("/bin/sh -c 'echo hook >> {record}'"))
            .script(&format!("echo child >> {record}"))
            .start();
        castoff.until_verdict("wait-for-1", false, "exited with 1");
        assert_eq!(castoff.get("/livez").status, 200);
        assert_eq!(castoff.get("/readyz").status, 503);
        assert_eq!(scratch.read("record"), "");
        give(&file);
        assert_eq!(castoff.code(), 0);
        assert_eq!(scratch.read("record"), "hook\nchild\n");
        castoff.log().wait_for_event("wait_finished");
    }

    fn a_wait_that_takes_too_long_says_for_what(place) {
        let port = free_port();
        let castoff = castoff(place)
            .env("CASTOFF_WAIT_FOR", format!("tcp://127.0.0.1:{port}"))
            .env("CASTOFF_WAIT_TIMEOUT", "300ms")
            .script("echo never");
        let mut castoff = castoff.run();
        assert_eq!(castoff.code(), 125);
        assert_eq!(castoff.stdout().all(), [""; 0]);
        let all = castoff.log().all();
        let said = format!("castoff: cannot start: CASTOFF_WAIT_FOR has not passed within 300ms: tcp://127.0.0.1:{port} (");
        assert!(all.iter().any(|line| line.starts_with(&said)), "{all:?}");
    }

    fn a_stop_ends_the_wait_at_once(place) {
        let mut castoff = castoff(place)
            .env("CASTOFF_WAIT_FOR", "exec:sleep 600,tcp://127.0.0.1:1")
            .env("CASTOFF_WAIT_TIMEOUT", "20m")
            .script("echo never")
            .start();
        castoff.until_verdict("wait-for-2", false, "");
        let begun = Instant::now();
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(128 + libc::SIGTERM));
        assert!(begun.elapsed() < Duration::from_secs(600));
    }

    fn a_restarted_child_has_to_become_ready_again(place) {
        let scratch = Scratch::new();
        let (file, go) = (scratch.file("ready", ""), scratch.path("go"));
        let castoff = castoff(place)
            .env("CASTOFF_RESTART", "always")
            .env("CASTOFF_RESTART_MIN", "1ms")
            .env("CASTOFF_READY_CHECK", exists(&file))
            .script(&format!("while ! [ -e {go} ]; do sleep 0.01; done; rm {go} {file}"))
            .start();
        castoff.until_status("/readyz", 200);
        give(&go);
        castoff.until_status("/readyz", 503);
        wait_until("it was started again", || {
            castoff.get("/metrics").body.contains("castoff_child_restarts_total 1\n").then_some(())
        });
        assert_eq!(castoff.get("/readyz").status, 503);
        give(&file);
        castoff.until_status("/readyz", 200);
    }

    fn between_two_children_castoff_is_live(place) {
        let scratch = Scratch::new();
        let (alive, go) = (scratch.path("alive"), scratch.path("go"));
        let castoff = castoff(place)
            .env("CASTOFF_RESTART", "always")
            .env("CASTOFF_RESTART_MIN", "10m")
            .env("CASTOFF_RESTART_MAX", "20m")
            .env("CASTOFF_LIVE_CHECK", exists(&alive))
            .script(&format!("until [ -e {go} ]; do sleep 0.01; done"))
            .start();
        castoff.until_status("/livez", 503);
        give(&go);
        castoff.log().wait_for_event("restart_scheduled");
        castoff.until_status("/livez", 200);
        assert_eq!(castoff.get("/readyz").status, 503);
    }

    fn servers_that_never_answer_hold_up_neither_signals_nor_the_deadline(place) {
        let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = silent.local_addr().expect("its address").port();
        let targets: Vec<_> = (0..20).map(|_| format!("http://127.0.0.1:{port}/")).collect();
        let mut castoff = Castoff::new(place)
            .env("CASTOFF_GRACE_PERIOD", "2s")
            .env("CASTOFF_KILL_RESERVE", "1s")
            .env("CASTOFF_CHECK_TIMEOUT", "10m")
            .env("CASTOFF_DEPENDS_ON", targets.join(","))
            .env("CASTOFF_LIVE_CHECK", "exec:sleep 600")
            .child(&example("stubborn"), [""; 0])
            .start();
        castoff.until_serving();
        castoff.stdout().wait_for_line("stubborn");
        wait_until("all are being asked", || {
            (process::descriptors(castoff.pid) > 20).then_some(())
        });
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(128 + libc::SIGKILL));
    }
}

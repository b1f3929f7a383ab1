//! What the child says of itself, by sd_notify and s6's notification-fd: what
//! follows from it, that only the child's own tree is believed, and that no
//! sender keeps castoff from its duties. The other way too: what castoff tells
//! the supervisor above it.
#![expect(unsafe_code, reason = "descriptors between fork and exec")]

use std::fs;
use std::io::{PipeWriter, Write};
use std::os::fd::IntoRawFd;
use std::os::linux::fs::MetadataExt;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::Value;

use crate::support::wait_until::PATIENCE;
use crate::support::{
    Castoff, Ended, Place, Running, Scratch, example, in_both_places, probe, process, wait_until,
};

/// castoff without any deadline that a test would live to see.
fn castoff(place: Place) -> Castoff {
    Castoff::new(place).env("CASTOFF_GRACE_PERIOD", "20m").env("CASTOFF_DRAIN_DELAY", "0")
}

/// castoff that listens to its child.
fn listening(place: Place) -> Castoff {
    castoff(place).env("CASTOFF_NOTIFY", "on")
}

/// castoff, and a child that does what the test tells it.
struct Dialogue {
    castoff: Running,
    /// `None`: the child has been told everything.
    steps: Option<PipeWriter>,
    taken: usize,
}

impl Castoff {
    /// With a child that takes its steps from the test.
    #[track_caller]
    fn converse(self) -> Dialogue {
        self.converse_as(|castoff| castoff.child(&example("notifier"), ["stdin"]))
    }

    /// The same with a child of one's own, which passes its input to a notifier.
    #[track_caller]
    fn converse_as(self, child: impl FnOnce(Self) -> Self) -> Dialogue {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let castoff = child(self).with(|command| {
            command.stdin(reader);
        });
        Dialogue { castoff: castoff.start(), steps: Some(writer), taken: 0 }
    }

    /// With nothing writable where castoff would put its socket.
    fn without_writable(self, paths: &'static [&'static str]) -> Self {
        self.last(own_mounts).last(|| paths.iter().try_for_each(|path| make_read_only(path)))
    }
}

impl Dialogue {
    /// Has the child take a step, and waits until it has.
    #[track_caller]
    fn takes(&mut self, step: &str) -> &mut Self {
        self.begins(step);
        let done = wait_until(&format!("the child has done {step:?}"), || {
            self.castoff.stdout().so_far().get(self.taken).cloned()
        });
        assert_eq!(done, step, "the child could not");
        self.taken += 1;
        self
    }

    /// Tells the child, and does not wait for it.
    #[track_caller]
    fn begins(&mut self, step: &str) {
        let steps = self.steps.as_mut().expect("the child listens");
        writeln!(steps, "{step}").expect("the child listens");
    }

    /// The same, and waits until castoff has seen to it.
    #[track_caller]
    fn says(&mut self, message: &str) -> &mut Self {
        self.takes(message).takes("barrier")
    }

    /// Lets the child end at its stop signal.
    fn lets_go(&mut self) {
        self.steps = None;
    }

    #[track_caller]
    fn status_of(&self, path: &str) -> u16 {
        self.castoff.get(path).status
    }

    #[track_caller]
    fn until(&self, path: &str, status: u16) {
        until(&self.castoff, path, status);
    }

    /// The value of NOTIFY_SOCKET.
    #[track_caller]
    fn address(&self) -> String {
        address(&self.castoff)
    }

    /// Stops castoff itself while `act` is under way, so that it learns of
    /// everything at once.
    #[track_caller]
    fn frozen(&mut self, act: impl FnOnce(&mut Self)) {
        let pid = self.castoff.pid;
        process::signal(pid, libc::SIGSTOP);
        wait_until("castoff stands still", || (process::state(pid)? == 'T').then_some(()));
        act(self);
        process::signal(pid, libc::SIGCONT);
    }

    #[track_caller]
    fn stops(mut self) -> Running {
        self.castoff.signal(libc::SIGTERM);
        self.lets_go();
        assert_eq!(self.castoff.code(), 0);
        self.castoff
    }
}

#[track_caller]
fn until(castoff: &Running, path: &str, status: u16) {
    wait_until(&format!("{path} answers {status}"), || {
        (castoff.get(path).status == status).then_some(())
    });
}

/// Waits until the child has its own environment, and gives the socket in it.
#[track_caller]
fn address(castoff: &Running) -> String {
    let child = castoff.child();
    wait_until("the child has a NOTIFY_SOCKET", || {
        let environment = fs::read(format!("/proc/{child}/environ")).ok()?;
        let entries = environment.split(|byte| *byte == 0);
        let value = entries.filter_map(|entry| entry.strip_prefix(b"NOTIFY_SOCKET=")).next()?;
        String::from_utf8(value.to_vec()).ok()
    })
}

/// castoff's events of that name so far.
fn events(castoff: &Running, name: &str) -> Vec<Value> {
    let lines = castoff.log().so_far();
    let events = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["event"] == name).collect()
}

/// The verdicts on a check so far, each with its reason.
fn verdicts(castoff: &Running, check: &str) -> Vec<(bool, String)> {
    let events = events(castoff, "check_changed").into_iter();
    let about = events.filter(|event| event["check"] == check);
    about
        .map(|event| {
            let reason = event["reason"].as_str().unwrap_or_default().to_owned();
            (event["ok"].as_bool().expect("a verdict"), reason)
        })
        .collect()
}

/// What is said of a notification-fd from the beginning.
fn no_line_yet() -> (bool, String) {
    (false, "a line feed has not come yet".to_owned())
}

#[track_caller]
fn until_verdicts(castoff: &Running, check: &str, count: usize) -> Vec<(bool, String)> {
    wait_until(&format!("{check} has had {count} verdicts"), || {
        Some(verdicts(castoff, check)).filter(|verdicts| verdicts.len() >= count)
    })
}

#[track_caller]
fn json(castoff: &Running) -> Value {
    let request = "GET /statusz HTTP/1.1\r\nHost: castoff\r\nAccept: application/json\r\n\
        Connection: close\r\n\r\n";
    let answer = probe::ask(castoff.address(), request);
    serde_json::from_str(&answer.body).expect("JSON")
}

/// Sends as this test: a stranger to every castoff.
#[track_caller]
fn send_as_stranger(address: &str, message: &str) {
    let address = match address.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(address),
    };
    let socket = UnixDatagram::unbound().expect("a socket");
    let sent = socket.send_to_addr(message.as_bytes(), &address.expect("an address"));
    assert_eq!(sent.expect("it is taken"), message.len());
}

/// Whether castoff can take it that nobody outside of the container reaches this.
fn is_private(address: &str) -> bool {
    let device = |path: &Path| fs::metadata(path).expect("it is there").st_dev();
    let home = Path::new(address).ancestors().nth(2);
    home.is_some_and(|home| home.is_absolute() && device(home) == device(Path::new("/")))
}

/// A view of the file systems in which others do not see what is changed.
fn own_mounts() -> std::io::Result<()> {
    let (uid, gid) = (Uid::current(), nix::unistd::getgid());
    if uid.is_root() {
        unshare(CloneFlags::CLONE_NEWNS)?;
    } else {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUSER)?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    Ok(())
}

fn make_read_only(path: &str) -> std::io::Result<()> {
    let nothing: Option<&str> = None;
    if path != "/" {
        // Whole, for a user namespace must not look under what is mounted there.
        mount(Some(path), path, nothing, MsFlags::MS_BIND | MsFlags::MS_REC, nothing)?;
    }
    // A user namespace must keep what restricts the mount already.
    let kept = nix::sys::statvfs::statvfs(path)?.flags().bits() & 0b1110;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(nothing, path, nothing, flags | MsFlags::from_bits_truncate(kept), nothing)?;
    Ok(())
}

/// Where castoff would put its socket's directory.
const EVERYWHERE: &[&str] = &["/", "/run", "/tmp", "/dev/shm"];

in_both_places! {
    fn readiness_waits_for_the_word_and_ends_with_it(place) {
        let mut child = listening(place).converse();
        child.takes("STATUS=warming up").takes("WATCHDOG=1").says("X_PRIVATE=READY=1");
        assert_eq!((child.status_of("/readyz"), child.status_of("/startupz")), (503, 503));
        let body = child.castoff.get("/readyz").body;
        assert!(body.contains("[-]notify failed: reason withheld\n"), "{body}");
        child.says("READY=1");
        child.until("/readyz", 200);
        child.until("/startupz", 200);
        child.castoff.until_serving();
        for message in ["READY=1", "READY=1\\nSTATUS=again", "READY=0", "RELOADING=1", "RELOADING=1"] {
            child.says(message);
            assert_eq!(child.status_of("/readyz"), 200, "{message}");
        }
        child.says("READY=1").says("STOPPING=1\\nSTATUS=bye");
        assert_eq!(child.status_of("/readyz"), 503);
        for message in ["READY=1", "RELOADING=1", "STOPPING=1", "READY=1"] {
            child.says(message);
            assert_eq!(child.status_of("/readyz"), 503, "{message}");
        }
        assert_eq!((child.status_of("/startupz"), child.status_of("/livez")), (200, 200));
        let told: Vec<_> = events(&child.castoff, "notified")
            .iter().map(|event| event["state"].as_str().unwrap_or_default().to_owned()).collect();
        assert_eq!(told, ["ready", "reloading", "reloaded", "stopping"]);
        let because = "the child has said STOPPING=1".to_owned();
        let not_yet = (false, "READY=1 has not come yet".to_owned());
        let expected = [not_yet, (true, String::new()), (false, because)];
        assert_eq!(verdicts(&child.castoff, "notify"), expected);
        child.stops();
    }

    fn what_the_child_says_of_itself_is_on_its_page_and_nowhere_else(place) {
        let mut child = listening(place).converse();
        child.says("STATUS=loading \u{1b}[31m\"42\"\u{202e} of 100\\nREADY=1");
        child.until("/readyz", 200);
        let shown = "loading  [31m\"42\"  of 100";
        let page = child.castoff.get("/statusz").body;
        assert!(page.contains(&format!("{:<14}{shown}\n", "status")), "{page}");
        let page = json(&child.castoff);
        assert_eq!(page["child"]["status"], shown, "{page}");
        for path in ["/readyz?verbose", "/livez?verbose", "/startupz?verbose", "/metrics"] {
            assert!(!child.castoff.get(path).body.contains("loading"), "{path}");
        }
        child.says(&format!("STATUS={}", "ä".repeat(1000)));
        assert_eq!(json(&child.castoff)["child"]["status"], "ä".repeat(256));
        child.says("STATUS=");
        assert!(json(&child.castoff)["child"]["status"].is_null());
        child.stops();
    }

    fn a_helper_speaks_for_the_child(place) {
        for step in ["other:READY=1", "daemon:READY=1"] {
            let mut child = listening(place).converse();
            child.takes("barrier");
            assert_eq!(child.status_of("/readyz"), 503);
            child.takes(step);
            child.until("/readyz", 200);
            assert_eq!(events(&child.castoff, "notify_refused"), [Value::Null; 0]);
            child.castoff.signal(libc::SIGTERM);
            child.lets_go();
            assert_eq!(child.castoff.code(), 0, "{step}");
        }
    }

    // As PID 1 castoff gives no neighbour a pid; otherwise it goes by the place.
    fn a_helper_that_has_gone_is_believed_where_no_neighbour_can_be(place) {
        for read_only in [&[][..], EVERYWHERE] {
            let mut child = listening(place).without_writable(read_only).converse();
            child.takes("barrier");
            let is_private = place == Place::Pid1 || is_private(&child.address());
            child.frozen(|child| _ = child.takes("other:READY=1"));
            child.takes("barrier");
            if is_private {
                child.until("/readyz", 200);
            } else {
                child.castoff.log().wait_for_event("notify_refused");
                assert_eq!(child.status_of("/readyz"), 503);
            }
            child.castoff.signal(libc::SIGTERM);
            child.lets_go();
            assert_eq!(child.castoff.code(), 0);
        }
    }

    // Whoever may signal the child needs no message to harm it.
    fn another_user_who_has_gone_is_no_helper(place) {
        if !Uid::current().is_root() {
            eprintln!("SKIPPED: only root can be another user");
            return;
        }
        let mut child = listening(place).converse();
        child.takes("barrier");
        let address = child.address();
        child.frozen(|_| {
            let mut stranger = std::process::Command::new("/nowhere/at/all");
            stranger.uid(65534).gid(65534);
            // SAFETY: between fork and exec only a socket is used.
            unsafe {
                stranger.pre_exec(move || {
                    UnixDatagram::unbound()?.send_to(b"READY=1", &address).map(drop)
                });
            }
            // It was sent, and there was nothing to go on as.
            let error = stranger.spawn().expect_err("no such program");
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        });
        child.castoff.log().wait_for_event("notify_refused");
        child.takes("barrier");
        assert_eq!(child.status_of("/readyz"), 503);
        child.stops();
    }

    fn descriptors_that_are_sent_stay_with_nobody(place) {
        let mut child = listening(place).converse();
        child.says("READY=1");
        // Nobody has connected so far.
        let pid = child.castoff.pid;
        let open = process::descriptors(pid);
        for step in ["fds:3", "fds:253", "fds:253", "fds:1", "barrier"] {
            child.takes(step).takes("barrier");
            assert_eq!(process::descriptors(pid), open, "{step}");
        }
        assert_eq!(child.status_of("/readyz"), 200);
        child.stops();
    }

    fn garbage_changes_nothing_and_is_told_once(place) {
        let mut child = listening(place).converse();
        let too_long = "41".repeat(5000);
        // READY=1, NUL, line feed; the same with a NUL in front.
        for garbage in [
            "hex:", "hex:00", "hex:0a0a0a", "hex:3d", "hex:ff", "hex:5245414459", "READY=", "READY=10", "ready=1",
            "=READY=1", "READY=1 ", "MAINPID=", "MAINPID=-1", "MAINPID=99999999999999999999", "MAINPID=0",
            "WATCHDOG_USEC=x", "hex:52454144593d31000a53544154553d61", "hex:0052454144593d310a",
            &format!("hex:52454144593d310a{too_long}"), &format!("hex:{too_long}"),
        ] {
            child.takes(garbage);
        }
        child.takes("barrier");
        assert_eq!(child.status_of("/readyz"), 503);
        assert_eq!(events(&child.castoff, "notify_refused").len(), 1);
        assert_eq!(events(&child.castoff, "notified").len(), 0);
        assert_eq!(events(&child.castoff, "main_pid_changed").len(), 0);
        // Some count the NUL at the end of their string.
        child.takes("hex:52454144593d3100");
        child.until("/readyz", 200);
        child.stops();
    }

    fn a_flood_holds_up_neither_the_endpoints_nor_the_deadline(place) {
        let flood = |message: &str| {
            let rest = "STATUS=0123456789\\nWATCHDOG=1\\nEXTEND_TIMEOUT_USEC=99000000\\nX=1";
            format!("{} '{rest}' 'flood:{message}\\n{rest}'", example("notifier"))
        };
        // None of them hears SIGTERM, and one is castoff's own child. READY and
        // RELOADING in turns are news each time.
        let script = format!(
            "trap '' TERM; {} & {} & ({} &); exec {}",
            flood("READY=1"), flood("RELOADING=1"), flood("WATCHDOG=trigger"), flood("READY=1"),
        );
        let mut castoff = Castoff::new(place)
            .env("CASTOFF_NOTIFY", "on")
            .env("CASTOFF_WATCHDOG", "1h")
            .env("CASTOFF_GRACE_PERIOD", "2s")
            .env("CASTOFF_KILL_RESERVE", "1s")
            .env("CASTOFF_DRAIN_DELAY", "0")
            .script(&script)
            .start();
        until(&castoff, "/readyz", 200);
        // A stranger as well, until there is nobody any more.
        let address = address(&castoff);
        let stranger = std::thread::spawn(move || {
            let socket = UnixDatagram::unbound().expect("a socket");
            while socket.send_to(b"STOPPING=1", &address).is_ok() {}
        });
        castoff.log().wait_for_event("notify_refused");
        let before = process::resident_kib(castoff.pid);
        for _ in 0..200 {
            assert_eq!(castoff.get("/readyz").status, 200);
        }
        let grown = process::resident_kib(castoff.pid).saturating_sub(before);
        assert!(grown < 2048, "{grown} KiB more than {before}");
        let begun = Instant::now();
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(128 + libc::SIGKILL));
        assert!(begun.elapsed() >= Duration::from_secs(1));
        stranger.join().expect("it has ended");
    }

    fn whatever_bytes_come_castoff_lives_and_answers(place) {
        let mut child = listening(place).env("CASTOFF_WATCHDOG", "1h").converse();
        child.says("READY=1");
        child.until("/readyz", 200);
        let own = process::children(child.castoff.pid);
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let mut runner = proptest::test_runner::TestRunner::new_with_rng(ProptestConfig::default(), rng);
        let datagram = datagram();
        for nth in 0..3000 {
            let bytes = datagram.new_tree(&mut runner).expect("one").current();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            child.begins(&format!("hex:{hex}"));
            if nth % 500 == 0 {
                assert_eq!(child.status_of("/livez?exclude=watchdog"), 200);
            }
        }
        wait_until("all have been sent", || {
            let so_far = child.castoff.stdout().so_far();
            (so_far.len() >= child.taken + 3000).then(|| child.taken = so_far.len())
        });
        child.takes("barrier");
        assert_eq!(process::children(child.castoff.pid), own);
        assert!(child.castoff.get("/statusz").body.contains("[child]"));
        assert_eq!(child.status_of("/startupz"), 200);
        for line in child.castoff.log().so_far() {
            serde_json::from_str::<Value>(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(!line.contains("panic"), "{line}");
        }
        child.stops();
    }

    fn a_stranger_who_knows_the_path_is_not_believed(place) {
        let mut child = listening(place).converse();
        child.takes("barrier");
        for message in ["READY=1", "STATUS=mine", "STOPPING=1", "WATCHDOG=trigger"] {
            send_as_stranger(&child.address(), message);
        }
        let refused = child.castoff.log().wait_for_event("notify_refused");
        let own = if place == Place::Pid1 { 0 } else { std::process::id() };
        assert_eq!((&refused["pid"], &refused["cause"]), (&own.into(), &"the sender is no descendant".into()));
        child.takes("barrier");
        assert_eq!(child.status_of("/readyz"), 503);
        assert!(json(&child.castoff)["child"]["status"].is_null());
        // The child is heard as before.
        child.says("READY=1");
        child.until("/readyz", 200);
        assert_eq!(events(&child.castoff, "notify_refused").len(), 1);
        child.stops();
    }

    // The containers of a Pod share its network, and with it abstract names.
    fn a_neighbours_descendant_cannot_make_us_ready(place) {
        let mut child = listening(place).without_writable(EVERYWHERE).converse();
        child.takes("barrier");
        let address = child.address();
        assert!(address.starts_with('@'), "{address}");
        // Another container: its PID 1 has a child, which says it itself, by one
        // that has gone, and as a daemon.
        let said = ["READY=1", "other:READY=1", "daemon:READY=1", "STATUS=mine", "exit:0"];
        let neighbour = || {
            let mut neighbour = castoff(Place::Pid1)
                .env("NOTIFY_SOCKET", &address)
                .child(&example("notifier"), said)
                .run();
            assert_eq!(neighbour.code(), 0);
            assert_eq!(neighbour.stdout().all(), said[..4]);
        };
        neighbour();
        // In the very same pid namespace as a subreaper, and gone when it is heard.
        let stranger = example("notifier");
        child.frozen(|_| {
            let mut stranger = std::process::Command::new(stranger);
            stranger.env("NOTIFY_SOCKET", &address).args(["READY=1", "exit:0"]);
            stranger.stdout(std::process::Stdio::null());
            assert!(stranger.status().expect("it starts").success());
        });
        send_as_stranger(&address, "READY=1");
        child.castoff.log().wait_for_event("notify_refused");
        child.takes("barrier");
        assert_eq!(child.status_of("/readyz"), 503);
        assert!(json(&child.castoff)["child"]["status"].is_null());
        child.says("READY=1");
        child.until("/readyz", 200);
        child.stops();
    }

    fn nothing_is_left_of_the_socket(place) {
        for (steps, is_told) in [(&["exit:0"][..], false), (&["READY=1"], true), (&["exit:7"], false)] {
            let mut castoff = listening(place)
                .child(&example("notifier"), [&["wait:200"], steps].concat())
                .start();
            let address = address(&castoff);
            let home = Path::new(&address).parent().expect("a directory").to_owned();
            if is_told {
                castoff.until_serving();
                assert!(home.exists());
                castoff.signal(libc::SIGTERM);
            }
            castoff.wait();
            assert!(!home.exists(), "{}", home.display());
        }
        let missing = listening(place).child("/nowhere/at/all", [""; 0]).run().code();
        assert_eq!(missing, 127);
    }

    fn nothing_writable_is_needed(place) {
        for (read_only, form) in [(EVERYWHERE, "@castoff-notify-"), (&["/", "/run", "/tmp"], "/dev/shm/castoff-")] {
            let mut child = listening(place).without_writable(read_only).converse();
            let address = child.address();
            assert!(address.starts_with(form), "{address}");
            child.says("STATUS=here").says("daemon:READY=1");
            child.until("/readyz", 200);
            child.castoff.signal(libc::SIGTERM);
            child.lets_go();
            assert_eq!(child.castoff.code(), 0);
            if let Some(home) = Path::new(&address).parent().filter(|home| home.is_absolute()) {
                assert!(!home.exists());
            }
        }
    }

    fn the_childs_variables_are_castoffs_own_only_when_it_listens(place) {
        let environment = |settings: &[(&str, &str)]| -> Vec<String> {
            let given = [("NOTIFY_SOCKET", "@outer-that-nobody-has"), ("WATCHDOG_USEC", "5000000"), ("WATCHDOG_PID", "42")];
            let all = given.iter().chain(settings);
            let mut castoff = all
                .fold(castoff(place), |castoff, (name, value)| castoff.env(name, value))
                .child(&example("print_env"), [""; 0])
                .run();
            assert_eq!(castoff.code(), 0);
            let lines = castoff.stdout().all().into_iter();
            let mut about: Vec<_> = lines
                .filter_map(|line| Some(line.strip_prefix("env\t")?.to_owned()))
                .filter(|line| line.starts_with("NOTIFY_SOCKET") || line.starts_with("WATCHDOG_"))
                .collect();
            about.sort();
            about
        };
        let given = ["NOTIFY_SOCKET=@outer-that-nobody-has", "WATCHDOG_PID=42", "WATCHDOG_USEC=5000000"];
        assert_eq!(environment(&[]), given);
        assert_eq!(environment(&[("CASTOFF_READY_CHECK", "fd:3")]), given);
        // The watchdog of another pid was never castoff's.
        let own = environment(&[("CASTOFF_NOTIFY", "on")]);
        assert!(own.len() == 1 && own[0].starts_with("NOTIFY_SOCKET=/"), "{own:?}");
        for settings in [&[("CASTOFF_WATCHDOG", "1h")][..], &[("CASTOFF_WATCHDOG", "1h"), ("CASTOFF_NOTIFY", "on")]] {
            let own = environment(settings);
            assert!(own[0].starts_with("NOTIFY_SOCKET=/"), "{own:?}");
            assert_eq!(own[1..], ["WATCHDOG_USEC=3600000000"]);
        }
    }

    fn a_missed_ping_fails_liveness_and_a_later_one_repairs_it(place) {
        let mut child = castoff(place).env("CASTOFF_WATCHDOG", "400ms").converse();
        let pid = child.castoff.child();
        child.castoff.until_serving();
        let verdicts = until_verdicts(&child.castoff, "watchdog", 1);
        let silence = verdicts[0].1.strip_prefix("no ping for ").expect("a silence");
        let (silence, rest) = silence.split_once("s, ").expect("seconds");
        assert!(silence.parse::<f64>().expect("a number") >= 0.4, "{verdicts:?}");
        assert_eq!(rest, "expected every 0.4s");
        child.until("/livez", 503);
        let body = child.castoff.get("/livez").body;
        assert!(body.contains("[-]watchdog failed: reason withheld\n"), "{body}");
        assert_eq!((child.status_of("/readyz"), child.status_of("/startupz")), (200, 200));
        // It lasts; one more miss is no news.
        child.says("WATCHDOG_USEC=3600000000\\nSTATUS=x");
        assert_eq!(child.status_of("/livez"), 503);
        child.says("WATCHDOG=1");
        let verdicts = until_verdicts(&child.castoff, "watchdog", 2);
        assert!(verdicts[1].0 && verdicts[1].1.starts_with("the ping came "), "{verdicts:?}");
        assert!(verdicts[1].1.ends_with("s late"), "{verdicts:?}");
        assert_eq!(child.status_of("/livez"), 200);
        assert!(process::is_running(pid));
        child.says("WATCHDOG=trigger").says("WATCHDOG=trigger");
        assert_eq!(child.status_of("/livez"), 503);
        child.says("WATCHDOG=1");
        assert_eq!(child.status_of("/livez"), 200);
        let verdicts = until_verdicts(&child.castoff, "watchdog", 4);
        assert_eq!(verdicts[2], (false, "the child has said WATCHDOG=trigger".to_owned()));
        assert!(verdicts[3].0 && verdicts[3].1.ends_with("after WATCHDOG=trigger"), "{verdicts:?}");
        // A shorter interval counts from the last ping on.
        child.says("WATCHDOG_USEC=1000");
        let verdicts = until_verdicts(&child.castoff, "watchdog", 5);
        assert!(verdicts[4].1.ends_with("expected every 0.1s"), "{verdicts:?}");
        child.says("WATCHDOG_USEC=0\\nWATCHDOG=1");
        assert_eq!(child.status_of("/livez"), 200);
        assert!(process::is_running(pid));
        child.stops();
    }

    fn a_ping_in_time_is_no_miss_however_late_it_is_read(place) {
        let mut child = castoff(place).env("CASTOFF_WATCHDOG", "3s").converse();
        child.says("WATCHDOG=1");
        child.frozen(|child| {
            child.takes("WATCHDOG=1");
            let begun = Instant::now();
            wait_until("the interval is over", || (begun.elapsed() > Duration::from_secs(4)).then_some(()));
        });
        child.says("WATCHDOG=1");
        assert_eq!(verdicts(&child.castoff, "watchdog"), []);
        child.stops();
    }

    fn nobody_waits_for_pings_before_the_start_or_after_a_stop(place) {
        let scratch = Scratch::new();
        let up = scratch.path("up");
        let mut child = castoff(place)
            .env("CASTOFF_WATCHDOG", "100ms")
            .env("CASTOFF_STARTUP_CHECK", format!("exec:test -e {up}"))
            .env("CASTOFF_CHECK_PERIOD", "20ms")
            .converse();
        child.takes("wait:300").says("WATCHDOG=trigger");
        assert_eq!(child.status_of("/livez"), 200);
        assert_eq!(verdicts(&child.castoff, "watchdog"), []);
        fs::write(&up, "").expect("a writable directory");
        assert!(!until_verdicts(&child.castoff, "watchdog", 1)[0].0);
        child.says("WATCHDOG_USEC=3600000000\\nWATCHDOG=1");
        assert_eq!(child.status_of("/livez"), 200);
        let before = verdicts(&child.castoff, "watchdog");
        child.castoff.signal(libc::SIGTERM);
        child.castoff.until_phase("stopping");
        child.says("WATCHDOG_USEC=1").takes("wait:300").says("WATCHDOG=trigger");
        assert_eq!(child.status_of("/livez"), 200);
        assert_eq!(verdicts(&child.castoff, "watchdog"), before);
        child.lets_go();
        assert_eq!(child.castoff.code(), 0);
    }

    fn no_extension_moves_the_deadline_of_a_stop(place) {
        let mut child = Castoff::new(place)
            .env("CASTOFF_NOTIFY", "on")
            .env("CASTOFF_GRACE_PERIOD", "5s")
            .env("CASTOFF_KILL_RESERVE", "1s")
            .env("CASTOFF_DRAIN_DELAY", "0")
            .converse();
        child.says("READY=1").says("EXTEND_TIMEOUT_USEC=3600000000");
        child.castoff.until_serving();
        assert_eq!(events(&child.castoff, "extension_capped").len(), 0);
        let begun = Instant::now();
        child.castoff.signal(libc::SIGTERM);
        child.castoff.until_phase("stopping");
        child.begins("EXTEND_TIMEOUT_USEC=3600000000");
        let capped = child.castoff.log().wait_for_event("extension_capped");
        assert_eq!(capped["asked_ms"], 3_600_000);
        assert!(capped["left_ms"].as_u64().expect("a number") <= 4000, "{capped}");
        // It holds on to its input, and never ends by itself.
        assert_eq!(child.castoff.wait(), Ended::Code(128 + libc::SIGKILL));
        assert!(begun.elapsed() >= Duration::from_secs(4));
        let events = child.castoff.log().events();
        let killed = events.iter().find(|event| event["event"] == "child_exited").expect("its end");
        assert_eq!(killed["reason"], "killed_at_deadline");
    }

    fn a_line_feed_on_the_descriptor_makes_it_ready(place) {
        let mut child = castoff(place).env("CASTOFF_READY_CHECK", "fd:3").converse();
        child.takes("write:3=starting, ");
        assert_eq!((child.status_of("/readyz"), child.status_of("/startupz")), (503, 503));
        child.takes("fd:3=started\\n");
        child.until("/readyz", 200);
        child.castoff.until_serving();
        assert_eq!(verdicts(&child.castoff, "ready-check"), [no_line_yet(), (true, String::new())]);
        assert_eq!(child.status_of("/readyz/ready-check"), 200);
        child.stops();
    }

    fn a_descriptor_closed_without_a_line_feed_is_told(place) {
        for step in ["fd:3=nearly", "fd:3="] {
            let mut child = castoff(place).env("CASTOFF_READY_CHECK", "fd:3").converse();
            child.takes(step);
            let verdicts = until_verdicts(&child.castoff, "ready-check", 2);
            assert_eq!(verdicts, [no_line_yet(), (false, "closed without a line feed".to_owned())]);
            assert_eq!(child.status_of("/readyz"), 503);
            child.stops();
        }
    }

    fn a_descriptor_that_nobody_uses_is_no_obstacle(place) {
        let mut castoff = castoff(place).env("CASTOFF_READY_CHECK", "fd:9").script("exec sleep 600").start();
        castoff.child();
        until(&castoff, "/readyz", 503);
        assert_eq!(castoff.get("/livez").status, 200);
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 128 + libc::SIGTERM);
        assert_eq!(verdicts(&castoff, "ready-check"), [no_line_yet()]);
    }

    fn who_writes_on_after_the_line_feed_lives(place) {
        let script = "echo up >&3; head -c 65536 /dev/zero >&3; echo first $?; \
            head -c 10000000 /dev/zero >&3 2>/dev/null; echo second $?; exec sleep 600";
        let castoff = castoff(place).env("CASTOFF_READY_CHECK", "fd:3").script(script).start();
        assert_eq!(castoff.stdout().wait_for_line("first"), "first 0");
        // Not for ever, though: it is SIGPIPE then, or EPIPE.
        assert_ne!(castoff.stdout().wait_for_line("second"), "second 0");
        until(&castoff, "/readyz", 200);
        assert_eq!(verdicts(&castoff, "ready-check"), [no_line_yet(), (true, String::new())]);
    }

    fn each_child_has_a_pipe_of_its_own(place) {
        let mut child = castoff(place)
            .env("CASTOFF_READY_CHECK", "fd:3")
            .env("CASTOFF_WATCHDOG", "1h")
            .env("CASTOFF_RESTART", "always")
            .env("CASTOFF_RESTART_MIN", "1ms")
            .converse();
        // Nobody has connected so far; one of them is the pipe.
        child.takes("barrier");
        let pid = child.castoff.pid;
        let others = process::descriptors(pid) - 1;
        for restarts in 0..3 {
            wait_until("it was started again", || {
                let page = child.castoff.get("/metrics").body;
                page.contains(&format!("castoff_child_restarts_total {restarts}\n")).then_some(())
            });
            child.takes("write:3=not yet").takes("barrier");
            assert_eq!(child.status_of("/readyz"), 503);
            child.takes("fd:3=\\n");
            child.until("/readyz", 200);
            wait_until("the pipe and the connections are closed", || {
                (process::descriptors(pid) == others).then_some(())
            });
            child.begins("exit:3");
            child.until("/readyz", 503);
        }
        child.castoff.signal(libc::SIGTERM);
        child.lets_go();
        child.castoff.wait();
    }

    fn a_descriptor_of_castoffs_own_is_replaced_only_when_asked_for(place) {
        let descriptors = |check: &str| -> Vec<String> {
            let mut castoff = castoff(place)
                .env("CASTOFF_READY_CHECK", check)
                .last(|| {
                    let null = fs::File::open("/dev/null")?;
                    // By way of 99: onto itself `dup2` would leave it closed at exec.
                    for (from, to) in [(null.into_raw_fd(), 99), (99, 3), (99, 5)] {
                        // SAFETY: numbers of a process that is about to exec.
                        nix::errno::Errno::result(unsafe { libc::dup2(from, to) })?;
                    }
                    Ok(())
                })
                .child(&example("print_env"), [""; 0])
                .run();
            assert_eq!(castoff.code(), 0);
            let lines = castoff.stdout().all().into_iter();
            let own = lines.filter_map(|line| Some(line.strip_prefix("descriptor\t")?.to_owned()));
            own.map(|line| line.split(":[").next().unwrap_or_default().to_owned()).collect()
        };
        let without = descriptors("file:///dev/null");
        assert!(without.contains(&"3 /dev/null".to_owned()), "{without:?}");
        for number in [3, 4, 5, 9] {
            let with = descriptors(&format!("fd:{number}"));
            let is_other = |line: &&String| !line.starts_with(&format!("{number} "));
            assert!(with.contains(&format!("{number} pipe")), "{with:?}");
            let rest = |lines: &[String]| -> Vec<String> { lines.iter().filter(is_other).cloned().collect() };
            assert_eq!(rest(&with), rest(&without));
        }
    }

    fn signals_go_to_the_main_process(place) {
        let (signals, notifier) = (example("print_signals"), example("notifier"));
        let script = format!(
            "trap 'echo the shell was told' HUP USR1 TERM; {signals} & \
             {notifier} MAINPID=$! READY=1 barrier exit:0 >&2; wait $!; exit 5"
        );
        let mut castoff = listening(place).script(&script).start();
        castoff.stdout().wait_for_line("ready");
        let changed = castoff.log().wait_for_event("main_pid_changed");
        assert!(changed["main_pid"].as_i64() > changed["child_pid"].as_i64(), "{changed}");
        until(&castoff, "/readyz", 200);
        for signal in [libc::SIGHUP, libc::SIGUSR1] {
            castoff.signal(signal);
            castoff.stdout().wait_for_line(&format!("{signal} value="));
        }
        castoff.signal(libc::SIGTERM);
        // The shell is the child all the same.
        assert_eq!(castoff.code(), 5);
        let lines = castoff.stdout().all();
        assert!(!lines.iter().any(|line| line.contains("the shell")), "{lines:?}");
        let forwarded = events(&castoff, "signal_forwarded");
        assert!(forwarded.iter().all(|event| event["target_pid"] == changed["main_pid"]), "{forwarded:?}");
    }

    fn the_main_process_takes_the_childs_place(place) {
        let mut child = listening(place).converse_as(|castoff| castoff.script(&main_process("exit 3")));
        let handed_over = child.castoff.log().wait_for_event("child_handed_over");
        wait_until("it is on the page", || {
            (json(&child.castoff)["child"]["pid"] == handed_over["main_pid"]).then_some(())
        });
        // It speaks for itself from here on.
        child.says("READY=1\\nSTATUS=new");
        child.until("/readyz", 200);
        let page = json(&child.castoff);
        let changed = child.castoff.log().wait_for_event("main_pid_changed");
        assert_eq!((&page["child"]["pid"], &page["child"]["up"]), (&changed["main_pid"], &true.into()), "{page}");
        assert_eq!(page["child"]["status"], "new");
        assert_eq!(events(&child.castoff, "child_exited"), [Value::Null; 0]);
        child.castoff.signal(libc::SIGUSR1);
        // Of which it dies, as the child.
        assert_eq!(child.castoff.code(), 128 + libc::SIGUSR1);
        let exited = events(&child.castoff, "child_exited");
        assert_eq!(exited.len(), 1);
        assert_eq!(exited[0]["child_pid"], changed["main_pid"]);
    }

    fn the_end_of_the_main_process_is_castoffs_own(place) {
        let mut child = listening(place).converse_as(|castoff| castoff.script(&main_process("exit 3")));
        child.castoff.log().wait_for_event("child_handed_over");
        child.says("READY=1");
        child.until("/readyz", 200);
        child.begins("exit:9");
        assert_eq!(child.castoff.code(), 9);
        let mut child = listening(place).converse_as(|castoff| castoff.script(&main_process("exit 3")));
        child.castoff.log().wait_for_event("child_handed_over");
        child.takes("barrier");
        child.castoff.signal(libc::SIGTERM);
        child.begins("exit:4");
        assert_eq!(child.castoff.code(), 4);
    }

    fn the_end_of_a_main_process_counts_also_when_it_comes_with_the_childs(place) {
        let scratch = Scratch::new();
        let go = scratch.path("go");
        let then = format!("until [ -e {go} ]; do sleep 0.01; done; exit 3");
        let mut child = listening(place).converse_as(|castoff| castoff.script(&main_process(&then)));
        child.castoff.log().wait_for_event("main_pid_changed");
        child.takes("barrier");
        let shell = child.castoff.child();
        let own = child.castoff.pid;
        child.frozen(|child| {
            fs::write(&go, "").expect("a writable directory");
            let is_zombie = |pid: &i32| process::state(*pid) == Some('Z');
            wait_until("the shell has ended", || is_zombie(&shell).then_some(()));
            child.begins("exit:9");
            wait_until("all have ended", || {
                let left = process::children(own);
                (left.len() > 1 && left.iter().all(is_zombie)).then_some(())
            });
        });
        assert_eq!(child.castoff.code(), 9);
    }

    fn the_command_is_started_again_when_the_main_process_ends(place) {
        let mut child = listening(place)
            .env("CASTOFF_RESTART", "on-failure")
            .env("CASTOFF_RESTART_MIN", "1ms")
            .converse_as(|castoff| castoff.script(&main_process("exit 0")));
        for nth in 1..3 {
            wait_until("another one took over", || {
                (events(&child.castoff, "child_handed_over").len() == nth).then_some(())
            });
            child.takes("barrier");
            assert_eq!(child.status_of("/readyz"), 503);
            child.says("READY=1");
            child.until("/readyz", 200);
            child.begins("exit:1");
        }
        wait_until("another one took over", || {
            (events(&child.castoff, "child_handed_over").len() == 3).then_some(())
        });
        child.begins("exit:0");
        assert_eq!(child.castoff.code(), 0);
    }

    fn only_a_living_descendant_can_be_the_main_process(place) {
        let mut child = listening(place).converse();
        // As PID 1 castoff itself is the first; the others are nobody there.
        for pid in [1, std::process::id(), std::os::unix::process::parent_id(), 4_194_303] {
            child.says(&format!("MAINPID={pid}"));
        }
        child.says(&format!("MAINPID={}", child.castoff.log().wait_for_event("castoff_started")["pid"]));
        assert_eq!(events(&child.castoff, "main_pid_changed"), [Value::Null; 0]);
        child.stops();
    }

    fn a_main_process_that_ends_first_changes_nothing(place) {
        let (signals, notifier) = (example("print_signals"), example("notifier"));
        // The child waits for it, castoff does, nobody does.
        for (main, then) in [
            ("sleep 600 & main=$!", "wait $main; exec"),
            ("main=$(sleep 600 >/dev/null & echo $!)", "exec"),
            ("sleep 600 & main=$!", "exec"),
        ] {
            let script = format!(
                "{main}; {notifier} MAINPID=$main READY=1 barrier exit:0 >&2; {then} {signals}"
            );
            let mut castoff = listening(place).script(&script).start();
            castoff.log().wait_for_event("main_pid_changed");
            if !then.starts_with("wait") {
                castoff.stdout().wait_for_line("ready");
            }
            // Of which it dies.
            castoff.signal(libc::SIGUSR1);
            castoff.stdout().wait_for_line("ready");
            wait_until("the main process has gone", || {
                let command = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let all = process::descendants(castoff.pid);
                (!all.iter().any(|pid| command(pid).starts_with(b"sleep"))).then_some(())
            });
            until(&castoff, "/readyz", 200);
            assert_eq!(events(&castoff, "child_exited"), [Value::Null; 0]);
            castoff.signal(libc::SIGUSR2);
            castoff.stdout().wait_for_line("12 value=");
            castoff.signal(libc::SIGTERM);
            assert_eq!(castoff.code(), 0, "{script}");
        }
    }

    // Its end is a check's, and would never be the child's.
    fn a_command_of_castoffs_own_cannot_be_the_main_process(place) {
        let scratch = Scratch::new();
        let record = scratch.path("pid");
        let mut child = listening(place)
            .env("CASTOFF_LIVE_CHECK", format!("exec:sh -c 'echo $$ > {record}; exec sleep 600'"))
            .env("CASTOFF_CHECK_TIMEOUT", "10m")
            .converse();
        // Before it nothing is checked.
        child.says("READY=1");
        let pid = scratch.wait_for_line("pid", "");
        child.says(&format!("MAINPID={pid}"));
        assert_eq!(events(&child.castoff, "main_pid_changed"), [Value::Null; 0]);
        child.begins("exit:8");
        assert_eq!(child.castoff.code(), 8);
    }

    fn the_supervisor_above_hears_of_castoffs_own_readiness_and_stop(place) {
        let scratch = Scratch::new();
        for form in ["path", "abstract"] {
            let file = scratch.path(&format!("ready-{form}"));
            let (outer, address) = outer(form, &scratch.path("outer"));
            let mut child = listening(place)
                .env("NOTIFY_SOCKET", &address)
                .env("CASTOFF_READY_CHECK", format!("exec:test -e {file}"))
                .env("CASTOFF_CHECK_PERIOD", "20ms")
                .converse();
            child.says("STATUS=loading");
            assert_eq!(heard(&outer), "STATUS=loading\n");
            child.says("READY=1").says("WATCHDOG=1\\nMAINPID=1\\nX_OWN=1").says("STATUS=50\u{7f}%");
            assert_eq!(heard(&outer), "STATUS=50 %\n");
            assert_eq!(child.status_of("/readyz"), 503);
            fs::write(&file, "").expect("a writable directory");
            let own = child.castoff.pid;
            let ready = match place {
                Place::Pid1 => "READY=1\n".to_owned(),
                Place::Subreaper => format!("READY=1\nMAINPID={own}\n"),
            };
            assert_eq!(heard(&outer), ready);
            child.says("READY=1").says("RELOADING=1\\nMONOTONIC_USEC=7").says("READY=1");
            assert_eq!(heard(&outer), "RELOADING=1\nMONOTONIC_USEC=7\n");
            assert_eq!(heard(&outer), "READY=1\n");
            child.castoff.signal(libc::SIGTERM);
            assert_eq!(heard(&outer), "STOPPING=1\n");
            child.says("STOPPING=1\\nSTATUS=bye").says("READY=1");
            assert_eq!(heard(&outer), "STATUS=bye\n");
            child.lets_go();
            assert_eq!(child.castoff.code(), 0);
            assert_silent(&outer);
        }
    }

    fn the_supervisor_above_hears_of_an_end_of_its_own_accord(place) {
        let scratch = Scratch::new();
        let (outer, address) = outer("path", &scratch.path("outer"));
        let mut child = listening(place).env("NOTIFY_SOCKET", &address).converse();
        child.says("READY=1");
        assert!(heard(&outer).starts_with("READY=1\n"));
        child.begins("exit:2");
        assert_eq!(child.castoff.code(), 2);
        assert_eq!(heard(&outer), "STOPPING=1\n");
        assert_silent(&outer);
    }

    fn pings_are_passed_on_to_who_waits_for_them(place) {
        let scratch = Scratch::new();
        let (outer, address) = outer("path", &scratch.path("outer"));
        let mut child = listening(place)
            .env("NOTIFY_SOCKET", &address)
            .env("WATCHDOG_USEC", "3600000000")
            .converse();
        child.says("WATCHDOG=1").says("WATCHDOG=trigger");
        assert_eq!(heard(&outer), "WATCHDOG=1\n");
        assert_eq!(heard(&outer), "WATCHDOG=trigger\n");
        assert_eq!(child.status_of("/livez"), 200);
        child.stops();
        assert_eq!(heard(&outer), "STOPPING=1\n");
    }

    fn a_supervisor_above_that_does_not_listen_delays_nothing(place) {
        let scratch = Scratch::new();
        let (full, address) = outer("path", &scratch.path("full"));
        let sender = UnixDatagram::unbound().expect("a socket");
        sender.set_nonblocking(true).expect("an option");
        while sender.send_to(b"X=1", &address).is_ok() {}
        for address in [&*address, "/nowhere/at/all", "@nobody-has-this-name", "vsock:2:1234", "relative"] {
            let mut child = listening(place).env("NOTIFY_SOCKET", address).converse();
            child.says("STATUS=here").says("READY=1");
            child.until("/readyz", 200);
            assert_eq!(events(&child.castoff, "notify_failed").len(), 1, "{address}");
            child.stops();
        }
        drop(full);
    }
}

/// A shell that starts another child of the test's, names it the main process
/// and does what is told.
fn main_process(then: &str) -> String {
    let notifier = example("notifier");
    // What runs in the background has no input of its own.
    format!(
        "exec 4<&0; {notifier} stdin <&4 & {notifier} MAINPID=$! barrier exit:0 >/dev/null; {then}"
    )
}

/// A socket as systemd would have it, and the variable for it.
#[track_caller]
fn outer(form: &str, path: &str) -> (UnixDatagram, String) {
    let socket = if form == "path" {
        (UnixDatagram::bind(path), path.to_owned())
    } else {
        let name = path.replace('/', "-");
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        (UnixDatagram::bind_addr(&address), format!("@{name}"))
    };
    let (socket, address) = (socket.0.expect("a free address"), socket.1);
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    (socket, address)
}

/// The next message.
#[track_caller]
fn heard(outer: &UnixDatagram) -> String {
    let mut message = [0; 4096];
    let length = outer.recv(&mut message).expect("a message");
    String::from_utf8(message[..length].to_vec()).expect("text")
}

#[track_caller]
fn assert_silent(outer: &UnixDatagram) {
    outer.set_nonblocking(true).expect("an option");
    let mut message = [0; 4096];
    let more = outer
        .recv(&mut message)
        .map(|length| String::from_utf8_lossy(&message[..length]).into_owned());
    assert!(more.is_err(), "{more:?}");
}

/// Datagrams that are nearly right, and some that are not.
fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec![
        "READY",
        "STOPPING",
        "RELOADING",
        "STATUS",
        "WATCHDOG",
        "WATCHDOG_USEC",
        "MAINPID",
        "BARRIER",
        "FDSTORE",
        "FDSTOREREMOVE",
        "EXTEND_TIMEOUT_USEC",
        "MONOTONIC_USEC",
        "ERRNO",
        "BUSERROR",
        "EXIT_STATUS",
        "X_OTHER",
        "",
    ]);
    let value = prop_oneof![
        4 => prop::sample::select(vec!["1", "0", "", "trigger", "-1", "18446744073709551615", "99999999999999999999"])
            .prop_map(|text| text.as_bytes().to_vec()),
        2 => any::<u32>().prop_map(|number| number.to_string().into_bytes()),
        2 => prop::collection::vec(any::<u8>(), 0..64),
    ];
    let line = (name, prop::sample::select(vec!["=", "=", "=", "", "=="]), value)
        .prop_map(|(name, equals, value)| [name.as_bytes(), equals.as_bytes(), &value].concat());
    let lines = prop::collection::vec(line, 0..8).prop_map(|lines| lines.join(&b'\n'));
    prop_oneof![
        6 => lines,
        1 => prop::collection::vec(any::<u8>(), 0..256),
        1 => prop::collection::vec(any::<u8>(), 4000..4200),
    ]
}

//! What the child says of itself, by sd_notify and s6's notification-fd: what
//! follows from it, that only the child's own tree is believed, and that no
//! sender keeps castoff from its duties. The other way too: what castoff tells
//! the supervisor above it.

use std::fs;
use std::io::{PipeWriter, Write};
use std::os::linux::fs::MetadataExt;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::Value;

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
        self.last(|| own_mounts()).last(|| paths.iter().try_for_each(|path| make_read_only(path)))
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
        mount(Some(path), path, nothing, MsFlags::MS_BIND, nothing)?;
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
        assert_eq!(verdicts(&child.castoff, "notify"), [(true, String::new()), (false, because)]);
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

    fn a_helper_that_has_gone_is_believed_where_no_neighbour_can_be(place) {
        let mut child = listening(place).converse();
        child.takes("barrier");
        let is_private = is_private(&child.address());
        child.frozen(|child| _ = child.takes("other:READY=1"));
        child.takes("barrier");
        if is_private {
            child.until("/readyz", 200);
        } else {
            child.castoff.log().wait_for_event("notify_refused");
            assert_eq!(child.status_of("/readyz"), 503);
        }
        child.stops();
    }

    fn descriptors_that_are_sent_stay_with_nobody(place) {
        let mut child = listening(place).converse();
        child.takes("barrier").says("READY=1");
        child.until("/readyz", 200);
        let pid = child.castoff.pid;
        let open = wait_until("the connections have gone", || {
            let before = process::descriptors(pid);
            std::thread::park_timeout(Duration::from_millis(20));
            (process::descriptors(pid) == before).then_some(before)
        });
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
        let notifier = example("notifier");
        let flood = "flood:STATUS=0123456789\\nRELOADING=1\\nEXTEND_TIMEOUT_USEC=99000000\\nX=1";
        // The flooders do not hear SIGTERM, and one is no child of castoff's.
        let script = format!(
            "trap '' TERM; {notifier} READY=1 '{flood}' & {notifier} '{flood}' & ({notifier} '{flood}') & \
             exec {notifier} '{flood}'"
        );
        // Where they are is in a line that is not logged here.
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = free.local_addr().expect("its address");
        drop(free);
        let mut castoff = Castoff::new(place)
            .env("CASTOFF_NOTIFY", "on")
            .env("CASTOFF_GRACE_PERIOD", "2s")
            .env("CASTOFF_KILL_RESERVE", "1s")
            .env("CASTOFF_DRAIN_DELAY", "0")
            .env("CASTOFF_LOG_LEVEL", "warn")
            .env("CASTOFF_HEALTH_LISTEN", at.to_string())
            .script(&script)
            .start();
        wait_until("castoff listens", || std::net::TcpStream::connect(at).ok());
        wait_until("it is ready", || (probe::get(at, "/readyz").status == 200).then_some(()));
        let before = process::resident_kib(castoff.pid);
        for _ in 0..200 {
            assert_eq!(probe::get(at, "/livez").status, 200);
        }
        let grown = process::resident_kib(castoff.pid).saturating_sub(before);
        assert!(grown < 2048, "{grown} KiB more than {before}");
        let begun = Instant::now();
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(128 + libc::SIGKILL));
        assert!(begun.elapsed() >= Duration::from_secs(1));
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
            child.says("STATUS=here").takes("other:STATUS=there").says("daemon:READY=1");
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

//! Hooks: what they see, what becomes of their output, and that neither one
//! that hangs nor one that fails can keep the child from its start or its stop
//! in time.
#![expect(unsafe_code, reason = "a signal mask with real-time signals, and values for them")]

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde_json::Value;

use crate::support::{
    Castoff, Ended, Place, Running, Scratch, example, in_both_places, process, story, wait_until,
    whole_story,
};

const KILLED: i32 = 128 + libc::SIGKILL;
const RTMIN: i32 = 34;

/// The three settings.
const HOOKS: [(&str, &str); 3] = [
    ("CASTOFF_PRE_START", "pre_start"),
    ("CASTOFF_PRE_STOP", "pre_stop"),
    ("CASTOFF_POST_STOP", "post_stop"),
];

/// castoff without any deadline that a test would live to see.
fn castoff(place: Place) -> Castoff {
    with_grace(place, "20m", "5m").env("CASTOFF_HOOK_TIMEOUT", "10m")
}

fn with_grace(place: Place, grace: &str, reserve: &str) -> Castoff {
    Castoff::new(place)
        .env("CASTOFF_GRACE_PERIOD", grace)
        .env("CASTOFF_KILL_RESERVE", reserve)
        .env("CASTOFF_DRAIN_DELAY", "0")
}

impl Castoff {
    /// The hook of that setting is this script.
    #[track_caller]
    fn hook(self, setting: &str, script: &str) -> Self {
        assert!(!script.contains('\''), "{script}");
        self.env(setting, format!("/bin/sh -c '{script}'"))
    }
}

/// A script that waits for a file; what it says before tells that it waits.
fn waiting_for(path: &str) -> String {
    format!("echo waiting; until [ -e {path} ]; do sleep 0.01; done")
}

/// Creates the file.
#[track_caller]
fn give(path: &str) {
    fs::write(path, "").expect("a writable directory");
}

impl Running {
    /// Waits until a hook has written that line.
    #[track_caller]
    fn until_hook_says(&self, line: &str) {
        let said = format!("\"line\":\"{line}\"");
        self.log().wait_for(&said, |line| line.contains(&said).then_some(()));
    }

    #[track_caller]
    fn until_received(&self, signal: &str) {
        let received = format!("\"signal\":\"{signal}\"");
        let is_it = |line: &str| line.contains("signal_received") && line.contains(&received);
        self.log().wait_for(&received, |line| is_it(line).then_some(()));
    }

    /// The signals that a `print_signals` has printed in its whole life.
    #[track_caller]
    fn printed(&self) -> Vec<(i32, i32)> {
        let parse = |line: &String| {
            let (signal, rest) = line.split_once(" value=")?;
            Some((signal.parse().ok()?, rest.split_once(' ')?.0.parse().ok()?))
        };
        self.stdout().all().iter().filter_map(parse).collect()
    }

    /// What the hooks have written, in the finished life.
    #[track_caller]
    fn hook_lines(&self, hook: &str) -> Vec<String> {
        let events = self.log().events();
        lines_of(&events, hook)
    }

    #[track_caller]
    fn has_event(&self, event: &str) -> bool {
        self.log().events().iter().any(|line| line["event"] == event)
    }

    /// Stops castoff itself while `act` is under way, so that it learns of
    /// everything at once.
    #[track_caller]
    fn frozen(&self, act: impl FnOnce()) {
        process::signal(self.pid, libc::SIGSTOP);
        wait_until("castoff stands still", || (process::state(self.pid)? == 'T').then_some(()));
        act();
        process::signal(self.pid, libc::SIGCONT);
    }
}

fn lines_of(events: &[Value], hook: &str) -> Vec<String> {
    let is_it = |event: &&Value| event["event"] == "hook_output" && event["hook"] == hook;
    let line = |event: &Value| event["line"].as_str().expect("a text").to_owned();
    events.iter().filter(is_it).map(line).collect()
}

/// Waits until so many processes are below, and gives them.
#[track_caller]
fn until_descendants(pid: i32, count: usize) -> Vec<i32> {
    wait_until(&format!("castoff has {count} descendants"), || {
        Some(process::descendants(pid)).filter(|all| all.len() == count)
    })
}

#[track_caller]
fn assert_gone(pids: &[i32]) {
    let left: Vec<_> = pids.iter().filter(|pid| process::is_running(**pid)).collect();
    assert!(left.is_empty(), "{left:?} of {pids:?} still run");
}

#[track_caller]
fn until_zombie(pid: i32) {
    wait_until("it is a zombie", || (process::state(pid)? == 'Z').then_some(()));
}

/// Blocks every signal, also those that the C library keeps for itself.
fn block_all() -> io::Result<()> {
    let everything = u64::MAX;
    // SAFETY: the mask lives across the call and has the size that is given.
    let done = unsafe {
        let old = std::ptr::null_mut::<u64>();
        let (how, mask) = (libc::SIG_SETMASK, &raw const everything);
        libc::syscall(libc::SYS_rt_sigprocmask, how, mask, old, 8)
    };
    Errno::result(done)?;
    Ok(())
}

/// `sigqueue`
#[track_caller]
fn queue(castoff: &Running, signal: i32, value: usize) {
    let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(value) };
    // SAFETY: the value is a number; castoff has not been reaped.
    Errno::result(unsafe { libc::sigqueue(castoff.pid, signal, value) }).expect("a queued signal");
}

/// Commands that leave a process in their tree which ignores SIGTERM: in the
/// hook itself, in a session of its own, and as a daemon. `echo here` comes when
/// all of them are there; the number is how many there are.
fn clingers() -> [(&'static str, usize); 4] {
    [
        ("echo here; exec sleep 600", 1),
        ("trap \"\" TERM; echo here; exec sleep 600", 1),
        ("trap \"\" TERM; setsid sleep 600 & echo here; wait", 2),
        ("trap \"\" TERM; (setsid sleep 600 &); echo here; exec sleep 600", 2),
    ]
}

in_both_places! {
    fn what_a_hook_writes_is_logged_line_by_line_and_goes_nowhere_else(place) {
        let script = "echo one; echo two >&2; echo; printf three";
        let mut castoff = castoff(place);
        for (setting, _) in HOOKS {
            castoff = castoff.hook(setting, script);
        }
        let mut castoff = castoff.script("echo child; exec sleep 600").start();
        castoff.stdout().wait_for_line("child");
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 143);
        assert_eq!(castoff.stdout().all(), ["child"]);
        let log = castoff.log().all();
        assert!(log.iter().all(|line| line.starts_with('{')), "{log:?}");
        for (_, hook) in HOOKS {
            assert_eq!(castoff.hook_lines(hook), ["one", "two", "", "three"]);
        }
        let events = castoff.log().events();
        for (_, hook) in HOOKS {
            let of = |name| events.iter().find(|line| line["event"] == name && line["hook"] == hook);
            let (started, finished) = (of("hook_started").unwrap(), of("hook_finished").unwrap());
            assert_eq!(started["command"], "/bin/sh");
            assert!(started["hook_pid"].as_i64() > Some(1));
            assert_eq!((&started["hook_pid"], &finished["exit_code"]), (&finished["hook_pid"], &0.into()));
            assert_eq!((&finished["level"], &finished["timed_out"]), (&"INFO".into(), &Value::Null));
        }
        let mut story = whole_story(&castoff);
        // Whether the hook or a drain of no time was over first is chance.
        let told = story.iter_mut().find(|told| told.starts_with("draining -> stopping: ")).unwrap();
        assert!(["drain_delay", "pre_stop_finished"].contains(&&told[22..]), "{told}");
        told.truncate(20);
        assert_eq!(story, [
            "pre_start started",
            "pre_start says one",
            "pre_start says two",
            "pre_start says ",
            "pre_start says three",
            "pre_start finished: 0",
            "child started",
            "starting -> serving: child_ready",
            "received SIGTERM",
            "serving -> draining: stop_requested",
            "pre_stop started",
            "pre_stop says one",
            "pre_stop says two",
            "pre_stop says ",
            "pre_stop says three",
            "pre_stop finished: 0",
            "draining -> stopping",
            "told the child SIGTERM",
            "child stopped: SIGTERM",
            "stopping -> sweeping: child_exited",
            "post_stop started",
            "post_stop says one",
            "post_stop says two",
            "post_stop says ",
            "post_stop says three",
            "post_stop finished: 0",
            "sweeping -> exited: post_stop_finished",
            "exiting 143",
        ]);
    }

    fn the_arguments_of_hooks_are_never_logged(place) {
        for command in ["/bin/sh -c 'exit 0' hunter2", "/no/such/hook hunter2", "sleep 600 --hunter2"] {
            for (setting, _) in HOOKS {
                let castoff = castoff(place).env("CASTOFF_LOG_LEVEL", "trace");
                let castoff = castoff.env("CASTOFF_HOOK_TIMEOUT", "50ms").env(setting, command);
                let mut castoff = castoff.script("kill $PPID; exec sleep 600").run();
                castoff.wait();
                // What the hook says itself is its own affair.
                let log = castoff.log().all();
                let said = |line: &&String| !line.contains("\"hook_output\"");
                let log: Vec<_> = log.iter().filter(said).collect();
                assert!(!log.iter().any(|line| line.contains("hunter2")), "{log:?}");
            }
        }
    }

    fn ten_megabytes_without_a_line_feed_are_logged_whole(place) {
        let scratch = Scratch::new();
        // A file: no pipe that is full makes castoff drop a line.
        let log = scratch.path("log");
        let stderr = fs::File::options().create(true).append(true).open(&log).unwrap();
        let script = "head -c 10000000 /dev/zero | tr \"\\\\0\" x";
        let castoff = castoff(place).hook("CASTOFF_PRE_START", script);
        let castoff = castoff.with(|command| { command.stderr(stderr); });
        assert_eq!(castoff.script("exit 5").run().code(), 5);
        let log = scratch.read("log");
        assert!(log.lines().all(|line| line.len() < 4096));
        let events: Vec<Value> =
            log.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
        let lines = lines_of(&events, "pre_start");
        assert!(lines.iter().all(|line| line.bytes().all(|byte| byte == b'x')));
        assert_eq!(lines.iter().map(String::len).sum::<usize>(), 10_000_000);
    }

    fn bytes_that_are_no_text_are_logged_as_json_all_the_same(place) {
        let scratch = Scratch::new();
        let hook = scratch.program("hook", "755", "#!/bin/sh\nprintf 'a\\377b\\000c\\033[1m\"\\\\\\r\\n\\342\\202'\n");
        let mut castoff = castoff(place).env("CASTOFF_PRE_START", hook).script("exit 0").run();
        assert_eq!(castoff.code(), 0);
        assert_eq!(castoff.hook_lines("pre_start"), ["a\u{fffd}b\0c\u{1b}[1m\"\\", "\u{fffd}"]);
    }

    fn output_without_an_end_keeps_nobody_waiting(place) {
        let scratch = Scratch::new();
        let (log, go) = (scratch.path("log"), scratch.path("go"));
        let stderr = fs::File::options().create(true).append(true).open(&log).unwrap();
        let hook = format!("yes & until [ -e {go} ]; do sleep 0.01; done; kill $!");
        let castoff = castoff(place).hook("CASTOFF_PRE_START", &hook).env("CASTOFF_LOG_LEVEL", "warn");
        // Without its log the address is not known.
        let port = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
        let castoff = castoff.env("CASTOFF_HEALTH_LISTEN", port.to_string());
        let castoff = castoff.with(|command| { command.stderr(stderr); });
        let mut castoff = castoff.script("echo child; exec sleep 600").start();
        wait_until("the endpoints are there", || std::net::TcpStream::connect(port).ok());
        for _ in 0..5 {
            assert_eq!(crate::support::probe::get(port, "/livez").status, 200);
        }
        give(&go);
        castoff.stdout().wait_for_line("child");
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 143);
    }

    fn a_pre_start_hook_that_fails_ends_castoff_with_its_code(place) {
        let scratch = Scratch::new();
        let text = scratch.program("text", "644", "#!/bin/sh\n");
        for (command, code) in [
            ("sh -c 'exit 3'", 3),
            ("sh -c 'exit 255'", 255),
            ("sh -c 'kill -9 $$'", KILLED),
            ("false", 1),
            ("no-such-hook", 127),
            ("/no/such/hook", 127),
            (&text, 126),
            ("/", 126),
        ] {
            let mark = scratch.path("started");
            let castoff = castoff(place)
                .env("CASTOFF_PRE_START", command)
                .env("CASTOFF_RESTART", "always")
                // Neither is about hooks, and the child has not run.
                .env("CASTOFF_EXIT_MAP", "3:0,255:0,137:0,1:0,127:0,126:0")
                .env("CASTOFF_STOPPED_EXIT_CODE", "0")
                .hook("CASTOFF_POST_STOP", "echo post");
            let mut castoff = castoff.script(&format!("echo > {mark}")).run();
            assert_eq!(castoff.code(), code, "{command}");
            assert!(!fs::exists(&mark).unwrap(), "{command}: the child was started");
            assert!(!castoff.has_event("child_started"));
            let story = whole_story(&castoff);
            let last = if castoff.has_event("hook_failed") {
                castoff.log().wait_for_line("castoff: cannot run the pre-start hook: ");
                "sweeping -> exited: tree_gone"
            } else {
                "starting -> exited: pre_start_failed"
            };
            assert_eq!(story[story.len() - 2..], [last.to_owned(), format!("exiting {code}")]);
            assert_eq!(story.len(), 4, "{story:?}");
        }
    }

    fn a_program_that_is_missing_after_pre_start_is_127(place) {
        let castoff = castoff(place).hook("CASTOFF_PRE_START", "(setsid sleep 600 &)");
        let mut castoff = castoff.env("CASTOFF_RESTART", "always").child("/no/such/program", [""; 0]).run();
        assert_eq!(castoff.code(), 127);
        castoff.log().wait_for_line("castoff: cannot run \"/no/such/program\": ");
        assert!(whole_story(&castoff).contains(&"starting -> sweeping: start_failed".to_owned()));
    }

    fn the_last_lines_of_a_hook_are_not_lost_when_castoff_ends_with_it(place) {
        for setting in ["CASTOFF_PRE_START", "CASTOFF_POST_STOP"] {
            let scratch = Scratch::new();
            let log = scratch.path("log");
            let stderr = fs::File::options().create(true).append(true).open(&log).unwrap();
            let castoff = castoff(place).hook(setting, "seq 9000; exit 3");
            let castoff = castoff.with(|command| { command.stderr(stderr); });
            castoff.child("true", [""; 0]).run().wait();
            let log = scratch.read("log");
            assert_eq!(log.lines().filter(|line| line.contains("\"hook_output\"")).count(), 9000, "{setting}");
        }
    }

    fn a_pre_start_hook_that_fails_leaves_nobody_behind(place) {
        let scratch = Scratch::new();
        let go = scratch.path("go");
        let wait = waiting_for(&go);
        let script = format!("trap \"\" TERM; (setsid sleep 600 &); sleep 600 & {wait}; exit 4");
        let castoff = with_grace(place, "10m", "599700ms").hook("CASTOFF_PRE_START", &script);
        let mut castoff = castoff.script("exit 0").start();
        castoff.until_hook_says("waiting");
        let tree = process::descendants(castoff.pid);
        give(&go);
        assert_eq!(castoff.wait(), Ended::Code(4));
        assert!(!castoff.has_event("child_started"));
        assert_gone(&tree);
        let story = whole_story(&castoff);
        assert_eq!(story[2..], [
            "pre_start finished: 4",
            "starting -> sweeping: pre_start_failed",
            "left: sleep sleep",
            "sweeping -> killing: deadline",
            "killing -> exited: tree_gone",
            "exiting 4",
        ]);
    }

    fn a_pre_start_hook_that_hangs_is_killed_and_castoff_ends_with_125(place) {
        for (script, count) in clingers() {
            let begun = Instant::now();
            let castoff = with_grace(place, "10m", "599700ms")
                .env("CASTOFF_HOOK_TIMEOUT", "1500ms")
                .hook("CASTOFF_PRE_START", script);
            let mut castoff = castoff.script("exit 0").start();
            castoff.until_hook_says("here");
            let tree = until_descendants(castoff.pid, count);
            assert_eq!(castoff.wait(), Ended::Code(125), "{script}");
            assert!(begun.elapsed() >= Duration::from_millis(1500));
            assert_gone(&tree);
            assert!(!castoff.has_event("child_started"));
            let finished = castoff.log().wait_for_event("hook_finished");
            assert_eq!((&finished["signal"], &finished["timed_out"]), (&"SIGKILL".into(), &true.into()));
            assert_eq!(finished["level"], "WARN");
        }
    }

    fn a_stop_during_pre_start_ends_everything_without_a_child(place) {
        for (script, count) in clingers() {
            for (signal, code) in [(libc::SIGTERM, 143), (libc::SIGINT, 130)] {
                let castoff = castoff(place).hook("CASTOFF_PRE_START", script);
                let castoff = castoff.hook("CASTOFF_POST_STOP", "echo post");
                let mut castoff = castoff.script("exit 0").start();
                castoff.until_hook_says("here");
                let tree = until_descendants(castoff.pid, count);
                castoff.signal(signal);
                assert_eq!(castoff.wait(), Ended::Code(code), "{script}");
                assert_gone(&tree);
                assert!(!castoff.has_event("child_started"));
                assert_eq!(castoff.hook_lines("post_stop"), [""; 0]);
                assert!(whole_story(&castoff).contains(&"starting -> sweeping: stop_requested".to_owned()));
            }
        }
    }

    fn a_stop_during_pre_start_ends_a_hook_that_stands_still(place) {
        let castoff = castoff(place).hook("CASTOFF_PRE_START", "echo here; kill -STOP $$; echo on");
        let mut castoff = castoff.script("exit 0").start();
        castoff.until_hook_says("here");
        wait_until("it stands still", || (process::state(castoff.child())? == 'T').then_some(()));
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(143));
    }

    fn the_code_of_a_stop_during_pre_start_is_mapped(place) {
        for (name, value, code) in [("CASTOFF_EXIT_MAP", "143:9", 9), ("CASTOFF_STOPPED_EXIT_CODE", "8", 8)] {
            let castoff = castoff(place).env(name, value).hook("CASTOFF_PRE_START", "echo here; sleep 600");
            let mut castoff = castoff.script("exit 0").start();
            castoff.until_hook_says("here");
            castoff.signal(libc::SIGTERM);
            assert_eq!(castoff.code(), code, "{name}");
        }
    }

    fn a_pre_start_hook_can_ask_castoff_to_stop(place) {
        let castoff = castoff(place).hook("CASTOFF_PRE_START", "kill $PPID; exec sleep 600");
        let mut castoff = castoff.script("exit 0").run();
        assert_eq!(castoff.code(), 143);
        assert!(!castoff.has_event("child_started"));
        let received = castoff.log().wait_for_event("signal_received");
        assert_eq!(received["sender"], "process");
    }

    fn a_stop_that_comes_with_the_end_of_pre_start_is_not_lost(place) {
        let scratch = Scratch::new();
        let go = scratch.path("go");
        let castoff = castoff(place).hook("CASTOFF_PRE_START", &waiting_for(&go)).last(block_all);
        let mut castoff = castoff.child(&example("print_signals"), [""; 0]).start();
        castoff.until_hook_says("waiting");
        let hook = castoff.child();
        castoff.frozen(|| {
            give(&go);
            until_zombie(hook);
            castoff.signal(libc::SIGTERM);
        });
        // The hook had done its work: the child is started, and told.
        assert_eq!(castoff.wait(), Ended::Code(0));
        assert_eq!(castoff.printed().iter().filter(|(signal, _)| *signal == libc::SIGTERM).count(), 1);
    }

    fn signals_that_come_during_pre_start_reach_the_child(place) {
        let scratch = Scratch::new();
        let go = scratch.path("go");
        // The child inherits all of them blocked, as it would have found them.
        let castoff = castoff(place).hook("CASTOFF_PRE_START", &waiting_for(&go)).last(block_all);
        let mut castoff = castoff.child(&example("print_signals"), [""; 0]).start();
        castoff.until_hook_says("waiting");
        castoff.signal(libc::SIGHUP);
        castoff.until_received("SIGHUP");
        castoff.signal(libc::SIGUSR1);
        for (signal, value) in [(RTMIN + 1, 1), (RTMIN + 1, 2), (RTMIN + 2, 3), (RTMIN + 1, 4)] {
            queue(&castoff, signal, value);
        }
        castoff.signal(libc::SIGUSR1);
        castoff.signal(libc::SIGUSR2);
        castoff.until_received("SIGRTMIN+2");
        castoff.until_received("SIGUSR2");
        assert!(castoff.stdout().so_far().is_empty(), "the child runs");
        give(&go);
        castoff.stdout().wait_for_line(&format!("{} value=3 ", RTMIN + 2));
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
        let printed = castoff.printed();
        let mut standard: Vec<_> = printed.iter().filter(|(signal, _)| *signal < 32).map(|(signal, _)| *signal).collect();
        standard.sort_unstable();
        assert_eq!(standard, [1, 10, 12, 15]);
        let real_time: Vec<_> = printed.into_iter().filter(|(signal, _)| *signal > 31).collect();
        assert_eq!(real_time, [(35, 1), (35, 2), (35, 4), (36, 3)]);
    }

    fn signals_for_the_child_do_not_reach_a_hook(place) {
        let scratch = Scratch::new();
        let go = scratch.path("go");
        let hook = format!("trap \"echo hit\" HUP USR1 WINCH; {}", waiting_for(&go));
        let castoff = castoff(place).hook("CASTOFF_PRE_START", &hook);
        let mut castoff = castoff.script("trap '' HUP USR1; exec sleep 600").start();
        castoff.until_hook_says("waiting");
        castoff.signal(libc::SIGWINCH);
        castoff.until_received("SIGWINCH");
        give(&go);
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(143));
        assert_eq!(castoff.hook_lines("pre_start"), ["waiting"]);
    }

    fn the_endpoints_answer_during_pre_start(place) {
        let scratch = Scratch::new();
        let go = scratch.path("go");
        let castoff = castoff(place).hook("CASTOFF_PRE_START", &waiting_for(&go));
        let mut castoff = castoff.child("sleep", ["600"]).start();
        castoff.until_hook_says("waiting");
        let statuses = || ["/livez", "/readyz", "/startupz"].map(|path| castoff.get(path).status);
        assert_eq!(statuses(), [200, 503, 503]);
        let metrics = castoff.get("/metrics").body;
        assert!(metrics.contains("castoff_phase{phase=\"starting\"} 1\n"), "{metrics}");
        assert!(metrics.contains("castoff_child_up 0\n"), "{metrics}");
        give(&go);
        castoff.until_serving();
        wait_until("it serves", || (statuses() == [200, 200, 200]).then_some(()));
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(143));
    }

    fn a_hook_finds_what_the_child_finds(place) {
        let show = "cat /proc/self/environ | tr \"\\\\0\" \"\\\\n\" | grep -v ^_= | sort; \
                    grep -E \"^(Sig(Blk|Ign|Cgt)|Umask|NoNewPrivs|CapEff|Groups):\" /proc/self/status; \
                    pwd; readlink /proc/self/fd/7; ls /proc/self/fd | wc -l";
        let file = fs::File::open("/etc/passwd").unwrap();
        use std::os::fd::AsRawFd;
        let raw = file.as_raw_fd();
        let mut castoff = castoff(place)
            .env("GREETING", "good day\nto you")
            .env("CASTOFF_PRE_START", format!("sh -c '{show}'"))
            .last(move || {
                let _ = &file;
                // SAFETY: numbers, and SIG_IGN is no handler that could run.
                unsafe {
                    libc::signal(libc::SIGHUP, libc::SIG_IGN);
                    libc::signal(libc::SIGPIPE, libc::SIG_IGN);
                    // By way of 99: onto itself `dup2` would leave it closed at exec.
                    Errno::result(libc::dup2(raw, 99))?;
                    Errno::result(libc::dup2(99, 7))?;
                    Errno::result(libc::close(99))?;
                }
                let mask = nix::sys::signal::SigSet::from(nix::sys::signal::Signal::SIGUSR2);
                Ok(mask.thread_block()?)
            })
            .with(|command| { command.current_dir("/usr"); })
            .script(&show.replace("\\\\", "\\"))
            .run();
        assert_eq!(castoff.code(), 0);
        let of_child = castoff.stdout().all();
        assert!(of_child.contains(&"/etc/passwd".to_owned()), "{of_child:?}");
        assert_eq!(castoff.hook_lines("pre_start"), of_child);
    }

    fn a_hook_reads_nothing_and_leads_a_group_of_its_own(place) {
        let (stdin, _held_open) = io::pipe().unwrap();
        let script = "cat; echo end; exec cat /proc/self/stat";
        let mut castoff = castoff(place)
            .hook("CASTOFF_PRE_START", script)
            .with(|command| { command.stdin(stdin); })
            .script("exit 0")
            .run();
        assert_eq!(castoff.code(), 0);
        let lines = castoff.hook_lines("pre_start");
        assert_eq!(lines[0], "end");
        let fields: Vec<_> = lines[1].split(' ').collect();
        assert_eq!(fields[0], fields[4], "{lines:?}");
    }

    fn a_daemon_of_pre_start_lives_beside_the_child_and_may_write_on(place) {
        let scratch = Scratch::new();
        let daemon = scratch.program("daemon", "755", "#!/bin/sh\ntrap 'echo told; exit' TERM\nn=0\nwhile :; do n=$((n+1)); echo tick $n || exit; sleep 0.01; done\n");
        let castoff = castoff(place).hook("CASTOFF_PRE_START", &format!("(setsid {daemon} &)"));
        let mut castoff = castoff.child("sleep", ["600"]).start();
        castoff.until_serving();
        for tick in 1..50 {
            castoff.until_hook_says(&format!("tick {tick}"));
        }
        let tree = process::descendants(castoff.pid);
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(143));
        assert_gone(&tree);
        assert!(story(&castoff).contains(&"stopping -> sweeping: child_exited".to_owned()));
    }

    fn the_child_serves_while_pre_stop_runs_and_readiness_is_off(place) {
        let scratch = Scratch::new();
        let go = scratch.path("go");
        let castoff = castoff(place).hook("CASTOFF_PRE_STOP", &waiting_for(&go));
        let mut castoff = castoff.child(&example("print_signals"), [""; 0]).start();
        castoff.stdout().wait_for_line("ready");
        castoff.until_serving();
        assert_eq!(castoff.get("/readyz").status, 200);
        castoff.signal(libc::SIGTERM);
        castoff.until_hook_says("waiting");
        assert_eq!(["/livez", "/readyz", "/startupz"].map(|path| castoff.get(path).status), [200, 503, 200]);
        castoff.signal(libc::SIGUSR1);
        castoff.stdout().wait_for_line("10 ");
        give(&go);
        assert_eq!(castoff.wait(), Ended::Code(0));
        assert_eq!(castoff.printed(), [(10, 0), (15, 0)]);
        assert_eq!(story(&castoff), [
            "starting -> serving: child_ready",
            "received SIGTERM",
            "serving -> draining: stop_requested",
            "pre_stop started",
            "pre_stop says waiting",
            "received SIGUSR1",
            "told the child SIGUSR1",
            "pre_stop finished: 0",
            "draining -> stopping: pre_stop_finished",
            "told the child SIGTERM",
            "child stopped: 0",
            "stopping -> exited: child_exited",
            "exiting 0",
        ]);
    }

    fn the_child_is_told_when_the_drain_is_over_as_well(place) {
        let castoff = castoff(place).env("CASTOFF_DRAIN_DELAY", "400ms").hook("CASTOFF_PRE_STOP", "exit 0");
        let mut castoff = castoff.child("sleep", ["600"]).start();
        castoff.until_serving();
        let asked_at = Instant::now();
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(143));
        assert!(asked_at.elapsed() >= Duration::from_millis(400));
        assert_eq!(story(&castoff)[3..8], [
            "pre_stop started",
            "pre_stop finished: 0",
            "drained: delay",
            "draining -> stopping: drain_delay",
            "told the child SIGTERM",
        ]);
    }

    fn a_second_signal_ends_pre_stop_and_tells_the_child(place) {
        for script in ["echo here; exec sleep 600", "trap \"\" TERM INT; echo here; sleep 600; sleep 600"] {
            let castoff = castoff(place).env("CASTOFF_DRAIN_DELAY", "8m").hook("CASTOFF_PRE_STOP", script);
            let mut castoff = castoff.child(&example("print_signals"), [""; 0]).start();
            castoff.stdout().wait_for_line("ready");
            castoff.until_serving().signal(libc::SIGTERM);
            castoff.until_hook_says("here");
            let tree = process::descendants(castoff.pid);
            castoff.signal(libc::SIGINT);
            castoff.stdout().wait_for_line("2 ");
            wait_until("the hook has gone", || (process::descendants(castoff.pid).len() == 1).then_some(()));
            castoff.log().wait_for_event("hook_finished");
            process::signal(castoff.child(), libc::SIGTERM);
            assert_eq!(castoff.wait(), Ended::Code(0));
            assert_gone(&tree);
            assert_eq!(castoff.printed(), [(2, 0), (15, 0)]);
            let story = story(&castoff);
            assert_eq!(story[5..9], [
                "received SIGINT",
                "drained: second_signal",
                "draining -> stopping: second_signal",
                "told the child SIGINT",
            ]);
            assert_eq!(story[9], "pre_stop finished: SIGKILL");
        }
    }

    fn pre_stop_can_ask_castoff_to_hurry(place) {
        let script = "kill $PPID; exec sleep 600";
        let castoff = castoff(place).env("CASTOFF_DRAIN_DELAY", "8m").hook("CASTOFF_PRE_STOP", script);
        let mut castoff = castoff.child(&example("print_signals"), [""; 0]).start();
        castoff.stdout().wait_for_line("ready");
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
        assert_eq!(castoff.printed(), [(15, 0)]);
    }

    fn a_pre_stop_that_hangs_does_not_take_the_childs_time(place) {
        for (script, _) in clingers() {
            // Half of the time before the kill, for the reserve is longer than that.
            let castoff = with_grace(place, "6s", "2400ms").env("CASTOFF_HOOK_TIMEOUT", "10m");
            let castoff = castoff.hook("CASTOFF_PRE_STOP", script);
            let mut castoff = castoff.child(&example("print_signals"), [""; 0]).start();
            castoff.stdout().wait_for_line("ready");
            castoff.until_serving();
            let asked_at = Instant::now();
            castoff.signal(libc::SIGTERM);
            castoff.stdout().wait_for_line("15 ");
            assert!(asked_at.elapsed() >= Duration::from_millis(1800));
            assert_eq!(castoff.wait(), Ended::Code(0), "{script}");
            let finished = castoff.log().wait_for_event("hook_finished");
            assert_eq!((&finished["signal"], &finished["timed_out"]), (&"SIGKILL".into(), &true.into()));
            assert!(story(&castoff).contains(&"draining -> stopping: pre_stop_finished".to_owned()));
        }
    }

    fn the_hook_timeout_counts_for_pre_stop(place) {
        let castoff = castoff(place).env("CASTOFF_HOOK_TIMEOUT", "300ms");
        let castoff = castoff.hook("CASTOFF_PRE_STOP", "trap \"\" TERM; sleep 600");
        let mut castoff = castoff.child(&example("print_signals"), [""; 0]).start();
        castoff.stdout().wait_for_line("ready");
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
        assert!(story(&castoff).contains(&"pre_stop finished: SIGKILL, too late".to_owned()));
        let stop_ms = castoff.log().wait_for_event("exiting")["stop_ms"].as_u64();
        assert!(stop_ms >= Some(300), "{stop_ms:?}");
    }

    fn with_a_pre_stop_that_hangs_the_deadline_is_kept(place) {
        let castoff = with_grace(place, "4s", "1500ms").hook("CASTOFF_PRE_STOP", "trap \"\" TERM; echo here; sleep 600");
        let castoff = castoff.env("CASTOFF_STOPPED_EXIT_CODE", "0");
        let mut castoff = castoff.child(&example("stubborn"), ["1"]).start();
        let tree = wait_until("the whole tree runs", || {
            let all = process::descendants(castoff.pid);
            (castoff.stdout().so_far().len() == 2 && all.len() == 2).then_some(all)
        });
        castoff.until_serving();
        let asked_at = Instant::now();
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(KILLED));
        assert!(asked_at.elapsed() >= Duration::from_millis(2500));
        assert_gone(&tree);
        let story = story(&castoff);
        assert!(story.contains(&"stopping -> killing: deadline".to_owned()), "{story:?}");
        let events = castoff.log().events();
        let told_after = events.iter().find(|event| event["to"] == "stopping").unwrap();
        assert!(told_after["elapsed_ms"].as_u64() >= Some(1000), "{told_after}");
    }

    fn a_pre_stop_that_fails_or_is_missing_does_not_stop_the_stop(place) {
        for command in ["false", "/no/such/hook", "/", "sh -c 'kill -9 $$'"] {
            let castoff = castoff(place).env("CASTOFF_PRE_STOP", command);
            let mut castoff = castoff.child(&example("print_signals"), [""; 0]).start();
            castoff.stdout().wait_for_line("ready");
            castoff.until_serving().signal(libc::SIGTERM);
            assert_eq!(castoff.wait(), Ended::Code(0), "{command}");
            assert_eq!(castoff.printed(), [(15, 0)]);
            // A hook that was never started may still be on its way out.
            let end = story(&castoff).pop();
            assert_eq!(end.as_deref(), Some("exiting 0"), "{command}");
        }
    }

    fn a_child_that_ends_by_itself_has_no_pre_stop(place) {
        let castoff = castoff(place).hook("CASTOFF_PRE_STOP", "echo here");
        let mut castoff = castoff.script("exit 6").run();
        assert_eq!(castoff.code(), 6);
        assert!(!castoff.has_event("hook_started"));
    }

    fn a_child_may_end_while_pre_stop_runs(place) {
        let castoff = castoff(place).hook("CASTOFF_PRE_STOP", "trap \"echo told; exit 0\" TERM; echo here; while :; do sleep 0.01; done");
        let mut castoff = castoff.script("trap 'exit 6' USR1; echo ready; while :; do sleep 0.01; done").start();
        castoff.stdout().wait_for_line("ready");
        castoff.until_serving().signal(libc::SIGTERM);
        castoff.until_hook_says("here");
        castoff.signal(libc::SIGUSR1);
        assert_eq!(castoff.wait(), Ended::Code(6));
        let mut story = story(&castoff);
        // A shell may say what became of its own child.
        story.retain(|told| told != "pre_stop says Terminated");
        assert_eq!(story[7..], [
            "child exited: 6",
            "draining -> sweeping: child_exited",
            "pre_stop says told",
            "pre_stop finished: 0",
            "sweeping -> exited: tree_gone",
            "exiting 6",
        ]);
    }

    fn pre_stop_may_kill_the_child(place) {
        let script = "kill -9 $(cut -d\" \" -f1 /proc/$PPID/task/$PPID/children); exec sleep 600";
        let castoff = castoff(place).hook("CASTOFF_PRE_STOP", script);
        let mut castoff = castoff.child("sleep", ["600"]).start();
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(KILLED));
        let story = story(&castoff);
        let ends = story.iter().filter(|told| told.starts_with("child "));
        assert_eq!(ends.collect::<Vec<_>>(), ["child signalled: SIGKILL"]);
        assert!(!story.iter().any(|told| told.contains("signal_forward_failed")), "{story:?}");
    }

    fn the_hook_and_the_child_may_end_at_once(place) {
        let scratch = Scratch::new();
        for child_first in [true, false] {
            let go = scratch.path(&format!("go-{child_first}"));
            let castoff = castoff(place).hook("CASTOFF_PRE_STOP", &waiting_for(&go));
            let castoff = castoff.hook("CASTOFF_POST_STOP", "echo post");
            let mut castoff = castoff.child("sleep", ["600"]).start();
            castoff.until_serving().signal(libc::SIGTERM);
            castoff.until_hook_says("waiting");
            let both = process::children(castoff.pid);
            let &[child, hook] = &both[..] else { panic!("{both:?}") };
            castoff.frozen(|| {
                if child_first {
                    process::signal(child, libc::SIGUSR1);
                    until_zombie(child);
                }
                give(&go);
                until_zombie(hook);
                process::try_signal(child, libc::SIGUSR1);
                until_zombie(child);
            });
            assert_eq!(castoff.wait(), Ended::Code(128 + libc::SIGUSR1));
            let story = story(&castoff);
            assert!(story.contains(&"child signalled: SIGUSR1".to_owned()), "{story:?}");
            assert!(!story.iter().any(|told| told.contains("signal_forward_failed")), "{story:?}");
            assert_eq!(castoff.hook_lines("post_stop"), ["post"]);
        }
    }

    fn the_hooks_end_and_a_second_signal_may_come_at_once(place) {
        let scratch = Scratch::new();
        let go = scratch.path("go");
        let castoff = castoff(place).hook("CASTOFF_PRE_STOP", &waiting_for(&go));
        let mut castoff = castoff.child(&example("print_signals"), [""; 0]).start();
        castoff.stdout().wait_for_line("ready");
        castoff.until_serving().signal(libc::SIGTERM);
        castoff.until_hook_says("waiting");
        let hook = process::children(castoff.pid)[1];
        castoff.frozen(|| {
            give(&go);
            until_zombie(hook);
            castoff.signal(libc::SIGINT);
        });
        assert_eq!(castoff.wait(), Ended::Code(0));
        let story = story(&castoff);
        assert!(story.contains(&"pre_stop finished: 0".to_owned()), "{story:?}");
        assert!(castoff.printed().contains(&(15, 0)));
    }

    fn post_stop_runs_once_when_the_tree_has_gone(place) {
        let scratch = Scratch::new();
        // Alone but for its own children: castoff has no other child.
        let alone = "[ \"$(echo $(cat /proc/$PPID/task/$PPID/children))\" = $$ ] && echo alone";
        let record = scratch.path("record");
        let tells: [(&str, Vec<&str>, bool, i32); 4] = [
            ("forker", vec!["leave", &record], false, 7),
            ("forker", vec!["daemon", &record], true, 0),
            ("print_signals", vec![], true, 0),
            ("stubborn", vec!["2"], true, KILLED),
        ];
        for (program, arguments, is_asked, code) in tells {
            let castoff = with_grace(place, "10m", "599600ms").hook("CASTOFF_POST_STOP", alone);
            let mut castoff = castoff.child(&example(program), arguments).start();
            let count = if program == "stubborn" { 3 } else { 1 };
            if is_asked {
                wait_until("it is ready", || (castoff.stdout().so_far().len() == count).then_some(()));
                castoff.until_serving().signal(libc::SIGTERM);
            }
            assert_eq!(castoff.wait(), Ended::Code(code), "{program}");
            assert_eq!(castoff.hook_lines("post_stop"), ["alone"], "{program}");
            let story = story(&castoff);
            assert_eq!(story[story.len() - 5..], [
                "post_stop started".to_owned(),
                "post_stop says alone".to_owned(),
                "post_stop finished: 0".to_owned(),
                "sweeping -> exited: post_stop_finished".to_owned(),
                format!("exiting {code}"),
            ]);
        }
    }

    fn a_post_stop_that_fails_does_not_change_the_code(place) {
        for command in ["false", "/no/such/hook", "/", "sh -c 'kill -9 $$'"] {
            let mut castoff = castoff(place).env("CASTOFF_POST_STOP", command).script("exit 6").run();
            assert_eq!(castoff.code(), 6, "{command}");
        }
    }

    fn a_post_stop_that_hangs_is_killed_and_leaves_nobody_behind(place) {
        for (script, count) in clingers() {
            let castoff = castoff(place).env("CASTOFF_HOOK_TIMEOUT", "1500ms");
            let mut castoff = castoff.hook("CASTOFF_POST_STOP", script).script("exit 6").start();
            castoff.until_hook_says("here");
            let tree = until_descendants(castoff.pid, count);
            assert_eq!(castoff.wait(), Ended::Code(6), "{script}");
            assert_gone(&tree);
            assert!(story(&castoff).contains(&"post_stop finished: SIGKILL, too late".to_owned()));
        }
    }

    fn who_post_stop_leaves_behind_is_killed(place) {
        let scratch = Scratch::new();
        let go = scratch.path("go");
        let script = format!("trap \"\" TERM; (setsid sleep 600 &); {}", waiting_for(&go));
        let castoff = castoff(place).hook("CASTOFF_POST_STOP", &script);
        let mut castoff = castoff.script("exit 6").start();
        castoff.until_hook_says("waiting");
        let tree = process::descendants(castoff.pid);
        give(&go);
        assert_eq!(castoff.wait(), Ended::Code(6));
        assert_gone(&tree);
        let story = story(&castoff);
        assert_eq!(story[story.len() - 4], "sweeping -> killing: post_stop_finished");
        // Perhaps caught before it has become sleep.
        assert!(story[story.len() - 3].starts_with("left: "), "{story:?}");
        assert_eq!(story[story.len() - 2..], ["killing -> exited: tree_gone", "exiting 6"]);
    }

    fn a_post_stop_that_hangs_ends_before_the_grace_period_does(place) {
        let castoff = with_grace(place, "4s", "3s").env("CASTOFF_HOOK_TIMEOUT", "10m");
        let castoff = castoff.hook("CASTOFF_POST_STOP", "trap \"\" TERM; echo here; sleep 600");
        let mut castoff = castoff.child("sleep", ["600"]).start();
        castoff.until_serving();
        let asked_at = Instant::now();
        castoff.signal(libc::SIGTERM);
        castoff.until_hook_says("here");
        let tree = process::descendants(castoff.pid);
        assert_eq!(castoff.wait(), Ended::Code(143));
        assert!(asked_at.elapsed() >= Duration::from_millis(3250));
        assert_gone(&tree);
        assert!(story(&castoff).contains(&"post_stop finished: SIGKILL, too late".to_owned()));
    }

    fn a_third_signal_ends_post_stop(place) {
        let castoff = castoff(place).hook("CASTOFF_POST_STOP", "trap \"\" TERM INT; echo here; sleep 600");
        let mut castoff = castoff.script("exit 6").start();
        castoff.until_hook_says("here");
        let tree = process::descendants(castoff.pid);
        wait_until("the third request kills", || {
            if !process::is_running(castoff.pid) {
                return Some(());
            }
            process::try_signal(castoff.pid, libc::SIGTERM);
            None
        });
        assert_eq!(castoff.wait(), Ended::Code(6));
        assert_gone(&tree);
    }

    fn a_stop_during_post_stop_gives_it_what_is_left_of_the_grace_period(place) {
        let scratch = Scratch::new();
        let go = scratch.path("go");
        let mut castoff = castoff(place).hook("CASTOFF_POST_STOP", &waiting_for(&go)).script("exit 6").start();
        castoff.until_hook_says("waiting");
        castoff.signal(libc::SIGTERM);
        castoff.until_received("SIGTERM");
        give(&go);
        assert_eq!(castoff.wait(), Ended::Code(6));
        assert!(story(&castoff).contains(&"post_stop finished: 0".to_owned()));
    }

    fn post_stop_may_signal_castoff(place) {
        let castoff = castoff(place).hook("CASTOFF_POST_STOP", "kill $PPID; kill -USR1 $PPID; kill -HUP $PPID; echo done");
        let mut castoff = castoff.script("exit 6").run();
        assert_eq!(castoff.code(), 6);
        assert_eq!(castoff.hook_lines("post_stop"), ["done"]);
    }

    fn the_orphans_of_hooks_are_reaped(place) {
        let forker = example("forker");
        let castoff = castoff(place).hook("CASTOFF_PRE_START", &format!("{forker} orphans 300"));
        let castoff = castoff.hook("CASTOFF_PRE_STOP", &format!("{forker} orphans 300; echo here; sleep 600"));
        let mut castoff = castoff.child(&example("print_signals"), [""; 0]).start();
        castoff.stdout().wait_for_line("ready");
        castoff.until_serving();
        let reaped = |count: u64| {
            wait_until("all orphans are reaped", || {
                let metrics = castoff.get("/metrics").body;
                let value = metrics.lines().find_map(|line| line.strip_prefix("castoff_orphans_reaped_total "));
                (value?.parse::<u64>().ok()? == count).then_some(())
            });
        };
        reaped(600);
        assert_eq!(process::children(castoff.pid).len(), 1);
        castoff.signal(libc::SIGTERM);
        castoff.until_hook_says("here");
        reaped(1200);
        assert_eq!(process::children(castoff.pid).len(), 2);
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
    }

    fn a_hook_that_could_not_be_started_is_no_orphan(place) {
        let castoff = castoff(place).args(["-w"]).env("CASTOFF_PRE_STOP", "/no/such/hook");
        let mut castoff = castoff.child(&example("print_signals"), ["--only-print"]).start();
        castoff.stdout().wait_for_line("ready");
        castoff.until_serving().signal(libc::SIGTERM);
        castoff.stdout().wait_for_line("15 ");
        wait_until("no zombie is left", || (process::children(castoff.pid).len() == 1).then_some(()));
        process::signal(castoff.child(), libc::SIGKILL);
        castoff.wait();
        assert!(!castoff.has_event("orphan_reaped"));
    }
}

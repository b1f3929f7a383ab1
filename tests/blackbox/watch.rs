//! Files of CASTOFF_WATCH that somebody changes while the child runs, and what
//! CASTOFF_WATCH_ACTION makes of it. Each is changed in the way in which it is in
//! real life: in place, by an editor's rename, by the links of a ConfigMap.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, getuid};
use serde_json::{Value, json};

use crate::support::{
    Castoff, Ended, Place, Running, Scratch, example, in_both_places, process, wait_until,
};

/// How often the child has had that signal.
fn told(castoff: &Running, number: i32) -> usize {
    let start = format!("{number} ");
    castoff.stdout().so_far().iter().filter(|line| line.starts_with(&start)).count()
}

fn watching(place: Place, paths: &str) -> Castoff {
    Castoff::new(place).env("CASTOFF_WATCH", paths).env("CASTOFF_DRAIN_DELAY", "0")
}

/// With a child that prints its signals, once it does.
#[track_caller]
fn with_printer(castoff: Castoff) -> Running {
    let castoff = castoff.child::<&str>(&example("print_signals"), []).start();
    castoff.until_serving();
    castoff.stdout().wait_for_line("ready ");
    castoff
}

#[track_caller]
fn stop(mut castoff: Running) -> Vec<String> {
    castoff.signal(libc::SIGTERM);
    assert_eq!(castoff.wait(), Ended::Code(0));
    castoff.stdout().all()
}

/// A new generation of a volume's files, step by step as the kubelet's
/// `AtomicWriter` makes it.
fn swap(scratch: &Scratch, generation: usize, files: &[(&str, &str)]) {
    swap_in(Path::new(&scratch.path("volume")), generation, files);
}

fn swap_in(volume: &Path, generation: usize, files: &[(&str, &str)]) {
    let name = format!("..2026_11_21_10_00_00.{generation}");
    fs::create_dir_all(volume.join(&name)).expect("a directory");
    for (file, text) in files {
        fs::write(volume.join(&name).join(file), text).expect("a file");
    }
    let old = fs::read_link(volume.join("..data")).ok();
    symlink(&name, volume.join("..data_tmp")).expect("a link");
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("a link");
    for (file, _) in files {
        let visible = volume.join(file);
        if fs::symlink_metadata(&visible).is_err() {
            symlink(Path::new("..data").join(file), visible).expect("a link");
        }
    }
    if let Some(old) = old {
        fs::remove_dir_all(volume.join(old)).expect("the last one");
    }
}

/// How many directories and files the kernel watches for castoff, all told.
fn watches(castoff: &Running) -> usize {
    let infos = fs::read_dir(format!("/proc/{}/fdinfo", castoff.pid)).expect("it runs");
    let texts = infos.flatten().filter_map(|info| fs::read_to_string(info.path()).ok());
    texts.map(|text| text.lines().filter(|line| line.starts_with("inotify wd:")).count()).sum()
}

/// How often the thread of that process has waited for something.
fn waits(pid: i32) -> u64 {
    let count = process::status(pid, "voluntary_ctxt_switches").expect("it runs");
    count.parse().expect("a number")
}

in_both_places! {
    fn a_change_is_told_by_sighup_and_what_is_none_is_not(place) {
        let scratch = Scratch::new();
        let path = scratch.file("app.conf", "1");
        let other = scratch.file("other.conf", "1");
        let castoff = with_printer(watching(place, &format!("{path},{other}")));
        // In place, by an editor's rename, and again in place.
        let rename = |text: &str| {
            let new = scratch.file("app.conf.new", text);
            fs::rename(new, &path).expect("a file");
        };
        let in_place = |text: &str| drop(scratch.file("app.conf", text));
        for (nth, text) in ["2", "3", "4"].into_iter().enumerate() {
            if nth == 1 { rename(text) } else { in_place(text) }
            let changed = castoff.next_event("config_changed", nth);
            assert_eq!((&changed["count"], &changed["list"]), (&json!(1), &json!([path])));
            assert_eq!(changed["action"], "signal");
            wait_until("the child is told", || {
                (told(&castoff, libc::SIGHUP) == nth + 1).then_some(())
            });
            let forwarded = castoff.next_event("signal_forwarded", nth);
            assert_eq!(forwarded["signal"], "SIGHUP");
        }
        // Nothing of this is a change.
        in_place("4");
        rename("4");
        let file = File::options().write(true).open(&path).expect("a file");
        file.set_modified(SystemTime::UNIX_EPOCH).expect("its owner's");
        scratch.file("neighbour", "1");
        // What is one comes in the same burst, alone.
        scratch.file("other.conf", "2");
        let changed = castoff.next_event("config_changed", 3);
        assert_eq!((&changed["count"], &changed["list"]), (&json!(1), &json!([other])));
        let metrics = castoff.get("/metrics").body;
        assert!(metrics.contains("\ncastoff_watch_changes_total 4\n"), "{metrics}");
        let lines = stop(castoff);
        assert_eq!(lines.iter().filter(|line| line.starts_with("1 ")).count(), 4, "{lines:?}");
    }

    fn a_volume_that_is_exchanged_in_a_burst_is_seen_as_it_is_last(place) {
        let scratch = Scratch::new();
        swap(&scratch, 0, &[("a.conf", "0"), ("same.conf", "same")]);
        let seen = scratch.path("seen");
        let volume = scratch.path("volume");
        // Both as a directory and as one of its files.
        let paths = format!("{volume},{volume}/a.conf");
        let command = format!("exec:/bin/sh -c 'cat {volume}/a.conf >> {seen}'");
        let castoff = with_printer(watching(place, &paths).env("CASTOFF_WATCH_ACTION", command));
        swap(&scratch, 1, &[("a.conf", "1\n"), ("same.conf", "same")]);
        scratch.wait_for_line("seen", "1");
        let changed = castoff.next_event("config_changed", 0);
        let file = format!("{volume}/a.conf");
        assert_eq!((&changed["list"], &changed["action"]), (&json!([file]), &json!("exec")));
        let before = watches(&castoff);
        assert!(before > 3, "{before}");
        let begun = Instant::now();
        for generation in 2..12 {
            let text = format!("{generation}\n");
            swap(&scratch, generation, &[("a.conf", &text), ("same.conf", "same")]);
        }
        let burst = begun.elapsed();
        scratch.wait_for_line("seen", "11");
        wait_until("what has gone is watched no longer", || {
            (watches(&castoff) == before).then_some(())
        });
        // A burst is looked at once it is over, and at most every half a second.
        let looks = 1 + burst.as_millis() as usize / 500;
        let actions = scratch.read("seen").lines().count();
        assert!((2..=1 + looks).contains(&actions), "{actions} after {burst:?}");
        let finished = castoff.next_event("hook_finished", 0);
        assert_eq!((&finished["hook"], &finished["exit_code"]), (&json!("watch_action"), &json!(0)));
        stop(castoff);
    }

    fn a_restart_is_in_order_and_gives_the_child_the_new_files(place) {
        let scratch = Scratch::new();
        swap(&scratch, 0, &[("COLOUR", "red")]);
        let volume = scratch.path("volume");
        let mut castoff = watching(place, &volume)
            .env("CASTOFF_ENV_DIR", &volume)
            .env("CASTOFF_WATCH_ACTION", "restart")
            .script(
                "trap 'echo stopping; exit 0' TERM; echo $COLOUR; while :; do sleep 0.01; done",
            )
            .start();
        castoff.until_serving();
        castoff.stdout().wait_for_line("red");
        swap(&scratch, 1, &[("COLOUR", "green")]);
        castoff.stdout().wait_for_line("green");
        wait_until("it is ready again", || (castoff.get("/readyz").status == 200).then_some(()));
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
        assert_eq!(castoff.stdout().all(), ["red", "stopping", "green", "stopping"]);
        let changes = castoff.events_so_far("phase_changed");
        let phases: Vec<_> = changes.iter().map(|change| &change["to"]).collect();
        assert_eq!(phases[..4], ["serving", "stopping", "starting", "serving"]);
    }

    fn with_log_a_change_is_told_and_nothing_more(place) {
        let scratch = Scratch::new();
        let path = scratch.file("app.conf", "1");
        let castoff = with_printer(watching(place, &path).env("CASTOFF_WATCH_ACTION", "log"));
        scratch.file("app.conf", "2");
        let changed = castoff.log().wait_for_event("config_changed");
        assert_eq!(changed["action"], "log");
        let lines = stop(castoff);
        assert!(lines[1].starts_with("15 "), "{lines:?}");
    }

    fn a_log_in_a_watched_directory_is_no_news(place) {
        let scratch = Scratch::new();
        let log = scratch.file("castoff.log", "");
        scratch.file("a", "1");
        let file = File::options().append(true).open(&log).expect("a file");
        let mut castoff = watching(place, &scratch.path(""))
            .env("CASTOFF_WATCH_ACTION", "log")
            .child("sleep", ["600"])
            .with(|command| {
                command.stderr(file);
            })
            .start();
        let changes = || -> Vec<Value> {
            let lines = scratch.read("castoff.log");
            let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
            events.filter(|event| event["event"] == "config_changed").collect()
        };
        wait_until("it serves", || {
            scratch.read("castoff.log").contains("\"to\":\"serving\"").then_some(())
        });
        for (seen, name) in ["a", "b"].iter().enumerate() {
            let path = scratch.file(name, "2");
            let change = wait_until("the change is told", || changes().into_iter().nth(seen));
            assert_eq!(change["list"], json!([path]));
        }
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 143);
    }

    fn a_child_that_does_not_serve_yet_is_told_later(place) {
        let scratch = Scratch::new();
        let path = scratch.file("app.conf", "1");
        let castoff = watching(place, &path)
            .env("CASTOFF_STARTUP_CHECK", format!("file://{}", scratch.path("started")))
            .child::<&str>(&example("print_signals"), [])
            .start();
        castoff.stdout().wait_for_line("ready ");
        scratch.file("app.conf", "2");
        castoff.log().wait_for_event("config_changed");
        scratch.file("started", "");
        castoff.stdout().wait_for_line("1 ");
        castoff.next_event("signal_forwarded", 0);
        let log = castoff.log().so_far();
        let place_of = |words: &str| log.iter().position(|line| line.contains(words));
        assert!(place_of("config_changed") < place_of("\"to\":\"serving\""), "{log:?}");
        assert!(place_of("\"to\":\"serving\"") < place_of("signal_forwarded"), "{log:?}");
        stop(castoff);
    }

    fn what_changes_before_the_child_is_started_is_not_missed(place) {
        let scratch = Scratch::new();
        let path = scratch.file("app.conf", "1");
        let castoff = watching(place, &path)
            .env("CASTOFF_WAIT_FOR", format!("file://{}", scratch.path("go")))
            .env("CASTOFF_CHECK_PERIOD", "20ms")
            .child::<&str>(&example("print_signals"), [])
            .start();
        castoff.log().wait_for_event("waiting_for");
        scratch.file("app.conf", "2");
        scratch.file("go", "");
        castoff.stdout().wait_for_line("1 ");
        stop(castoff);
    }

    fn a_file_that_goes_is_told_and_acted_on_once_it_is_back_and_differs(place) {
        let scratch = Scratch::new();
        let path = scratch.file("app.conf", "1");
        let castoff = with_printer(watching(place, &path));
        for nth in 0..2 {
            fs::remove_file(&path).expect("a file");
            let lost = castoff.next_event("watch_lost", nth);
            assert_eq!((&lost["path"], &lost["level"]), (&json!(path), &json!("WARN")));
            assert_eq!(castoff.events_so_far("config_changed").len(), nth);
            scratch.file("app.conf", format!("{}", nth + 2));
            castoff.next_event("config_changed", nth);
        }
        // An editor's: away, and back with other contents.
        fs::rename(&path, scratch.path("app.conf~")).expect("a file");
        scratch.file("app.conf", "edited");
        castoff.next_event("config_changed", 2);
        assert_eq!(castoff.events_so_far("watch_lost").len(), 2);
        let lines = stop(castoff);
        assert_eq!(lines.iter().filter(|line| line.starts_with("1 ")).count(), 3, "{lines:?}");
    }

    fn a_path_that_does_not_exist_is_told_and_waited_for(place) {
        let scratch = Scratch::new();
        let path = scratch.path("conf.d/deep/app.conf");
        let castoff = with_printer(watching(place, &path));
        let limited = castoff.log().wait_for_event("watch_limited");
        assert_eq!(limited["path"], json!(path));
        assert_eq!(limited["cause"], "does not exist yet");
        fs::create_dir_all(scratch.path("conf.d/deep")).expect("a directory");
        fs::write(&path, "1").expect("a file");
        castoff.stdout().wait_for_line("1 ");
        stop(castoff);
    }

    fn a_child_that_was_told_to_stop_is_not_told_of_files(place) {
        let scratch = Scratch::new();
        let (path, gate) = (scratch.file("app.conf", "1"), scratch.path("gate"));
        let mut castoff = watching(place, &path)
            .env("CASTOFF_GRACE_PERIOD", "20m")
            .script(&format!(
                "trap 'echo told; while [ ! -e {gate} ]; do sleep 0.01; done; exit 0' TERM; \
                 trap 'echo hup' HUP; echo ready; while :; do sleep 0.01; done"
            ))
            .start();
        castoff.until_serving();
        castoff.stdout().wait_for_line("ready");
        castoff.signal(libc::SIGTERM);
        castoff.stdout().wait_for_line("told");
        let other = with_printer(watching(place, &path));
        scratch.file("app.conf", "2");
        // By then the child would have been told as well.
        other.next_event("config_changed", 0);
        stop(other);
        scratch.file("gate", "");
        assert_eq!(castoff.wait(), Ended::Code(0));
        assert_eq!(castoff.stdout().all(), ["ready", "told"]);
    }

    fn a_command_that_runs_is_run_once_more_for_all_that_changes_meanwhile(place) {
        let scratch = Scratch::new();
        let path = scratch.file("app.conf", "1\n");
        let (gate, seen) = (scratch.path("gate"), scratch.path("seen"));
        let command = format!(
            "/bin/sh -c 'cat {path} >> {seen}; while [ ! -e {gate} ]; do sleep 0.01; done'"
        );
        let castoff = with_printer(
            watching(place, &path).env("CASTOFF_WATCH_ACTION", format!("exec:{command}")),
        );
        scratch.file("app.conf", "2\n");
        scratch.wait_for_line("seen", "2");
        for (nth, text) in ["3\n", "4\n"].into_iter().enumerate() {
            scratch.file("app.conf", text);
            castoff.next_event("config_changed", nth + 1);
        }
        assert_eq!(castoff.events_so_far("hook_started").len(), 1, "one at a time");
        scratch.file("gate", "");
        scratch.wait_for_line("seen", "4");
        castoff.next_event("hook_finished", 1);
        assert_eq!(scratch.read("seen"), "2\n4\n");
        stop(castoff);
    }
}

/// In a file system of its own, for whoever writes next to any of its directories
/// wakes castoff up.
#[test]
fn while_nothing_changes_castoff_does_not_wake_up_and_has_no_thread() {
    let castoff = watching(Place::Pid1, "/mnt/volume").last(|| {
        let nothing: Option<&str> = None;
        Ok(mount(nothing, "/mnt", Some("tmpfs"), MsFlags::empty(), nothing)?)
    });
    let castoff = with_printer(castoff);
    castoff.log().wait_for_event("watch_limited");
    let volume = format!("/proc/{}/root/mnt/volume", castoff.pid);
    for generation in 0..3 {
        swap_in(Path::new(&volume), generation, &[("a.conf", &generation.to_string())]);
        wait_until("the child is told", || {
            (told(&castoff, libc::SIGHUP) == generation + 1).then_some(())
        });
    }
    // The log of it is written, and what has gone is forgotten.
    let idle = wait_until("it is idle", || {
        let before = waits(castoff.pid);
        std::thread::park_timeout(Duration::from_millis(700));
        (waits(castoff.pid) == before).then_some(before)
    });
    std::thread::park_timeout(Duration::from_secs(2));
    assert_eq!(waits(castoff.pid), idle);
    assert_eq!(process::status(castoff.pid, "Threads").as_deref(), Some("1"));
    stop(castoff);
}

/// Kubernetes' subPath: a file of one generation, mounted.
#[test]
fn a_mount_by_sub_path_is_told_to_be_one_that_never_changes() {
    let scratch = Scratch::new();
    swap(&scratch, 0, &[("a.conf", "0")]);
    let (target, alone) = (scratch.file("sub.conf", ""), scratch.file("alone.conf", ""));
    let source = scratch.path("volume/..2026_11_21_10_00_00.0/a.conf");
    let other = scratch.file("other.conf", "");
    let mounts = [(source, target.clone()), (other, alone.clone())]
        .map(|(from, to)| (c_string(&from), c_string(&to)));
    let castoff = watching(Place::Pid1, &format!("{target},{alone},{}", scratch.path("volume")))
        .last(move || {
            for (from, to) in &mounts {
                let nothing: Option<&str> = None;
                mount(Some(from.as_c_str()), to.as_c_str(), nothing, MsFlags::MS_BIND, nothing)?;
            }
            Ok(())
        });
    let castoff = with_printer(castoff);
    for (nth, (path, cause)) in [
        (&target, "mounted by subPath, which Kubernetes never updates"),
        (&alone, "mounted as a single file, of which only what is written in place is seen"),
    ]
    .into_iter()
    .enumerate()
    {
        let limited = castoff.next_event("watch_limited", nth);
        assert_eq!((&limited["path"], &limited["cause"]), (&json!(path), &json!(cause)));
    }
    // From outside of its mounts, in place.
    scratch.file("other.conf", "1");
    castoff.stdout().wait_for_line("1 ");
    assert_eq!(castoff.events_so_far("watch_limited").len(), 2);
    stop(castoff);
}

/// The kernel's limit, in a user namespace that has one of its own.
#[test]
fn where_the_kernel_has_no_room_it_is_told_and_castoff_looks_now_and_then() {
    let scratch = Scratch::new();
    let path = scratch.file("app.conf", "1");
    let castoff = watching(Place::Subreaper, &path).last(|| {
        let (uid, gid) = (getuid(), getgid());
        unshare(CloneFlags::CLONE_NEWUSER)?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
        fs::write("/proc/sys/user/max_inotify_watches", "1")
    });
    let castoff = with_printer(castoff);
    let limited = castoff.log().wait_for_event("watch_limited");
    assert_eq!(limited["cause"], "fs.inotify.max_user_watches is reached, looked at every 10s");
    for (nth, text) in ["2", "3"].into_iter().enumerate() {
        scratch.file("app.conf", text);
        castoff.next_event("config_changed", nth);
    }
    assert_eq!(castoff.events_so_far("watch_limited").len(), 1);
    stop(castoff);
}

fn c_string(text: &str) -> std::ffi::CString {
    std::ffi::CString::new(text).expect("no NUL")
}

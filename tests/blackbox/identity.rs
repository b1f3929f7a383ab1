//! Who the child is, where it starts and what it finds there: CASTOFF_USER,
//! CASTOFF_WORKDIR, CASTOFF_ENV_DIR, and who is killed first for want of memory.
#![expect(unsafe_code, reason = "what castoff may not do is set between fork and exec")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::Uid;

use crate::support::{
    Castoff, Ended, Group, Place, Running, Scratch, example, in_both_places, process, wait_until,
};

/// Whether a test may have children of another user.
fn is_root() -> bool {
    let is_root = Uid::current().is_root();
    if !is_root {
        eprintln!("SKIPPED: only root can start a child as another user");
    }
    is_root
}

#[track_caller]
fn assert_has(facts: &[String], wanted: &[&str]) {
    for fact in wanted {
        assert!(facts.iter().any(|line| line == fact), "no {fact:?} in {facts:#?}");
    }
}

/// The error of a castoff that starts nothing.
#[track_caller]
fn refusal(castoff: Castoff) -> String {
    let scratch = Scratch::new();
    let started = scratch.path("started");
    let mut castoff = castoff.script(&format!("echo started > {started}")).run();
    assert_eq!(castoff.code(), 125);
    assert!(!Path::new(&started).exists(), "the child was started");
    let error = |line: &&String| line.starts_with("castoff: ") || line.starts_with("hint: ");
    castoff.log().all().iter().filter(error).cloned().collect::<Vec<_>>().join("\n")
}

/// A directory of these files.
fn directory(scratch: &Scratch, name: &str, files: &[(&str, &str)]) -> String {
    let path = scratch.path(name);
    fs::create_dir(&path).expect("a directory");
    for (file, content) in files {
        fs::write(Path::new(&path).join(file), content).expect("a file");
    }
    path
}

/// castoff, which any user may run: not every path to the build is open to all.
fn for_everybody(scratch: &Scratch, program: &str) -> String {
    fs::set_permissions(scratch.path(""), fs::Permissions::from_mode(0o755)).expect("our own");
    let name = Path::new(program).file_name().expect("a name").to_string_lossy().into_owned();
    let copied = std::process::Command::new("cp").args([program, &scratch.path(&name)]).status();
    assert!(copied.expect("cp").success());
    scratch.path(&name)
}

in_both_places! {
    fn nothing_is_left_of_root_in_the_child(place) {
        if !is_root() { return; }
        let scratch = Scratch::new();
        let program = for_everybody(&scratch, &example("print_env"));
        let castoff = Castoff::new(place)
            .env("CASTOFF_USER", "1234:5678")
            .env("CASTOFF_PRE_START", "sh -c 'id -u; grep CapEff /proc/self/status'");
        let mut castoff = castoff.child::<&str>(&program, []).run();
        assert_eq!(castoff.code(), 0);
        let facts = castoff.stdout().all();
        assert_has(&facts, &[
            "Uid\t1234\t1234\t1234\t1234",
            "Gid\t5678\t5678\t5678\t5678",
            "Groups\t5678",
            "CapEff\t0000000000000000",
            "env\tHOME=/",
        ]);
        // The hook was castoff's user.
        let said: Vec<_> = castoff.log().events().into_iter()
            .filter(|event| event["event"] == "hook_output")
            .map(|event| event["line"].as_str().expect("text").to_owned())
            .collect();
        assert_eq!(said[0], "0");
        assert!(!said[1].ends_with("\t0000000000000000"), "{said:?}");
    }

    fn a_name_brings_the_groups_and_the_home_of_its_lines(place) {
        if !is_root() { return; }
        let show = "id -u; id -g; echo $HOME $USER; awk '/^CapPrm/ { print $2 }' /proc/self/status";
        for (user, variables, expected) in [
            ("daemon", &[("HOME", "/root"), ("USER", "root")][..], "1 1 /usr/sbin daemon"),
            ("1", &[("USER", "me")], "1 1 /usr/sbin me"),
            ("daemon:sys", &[("HOME", "/srv"), ("USER", "root")], "1 3 /srv daemon"),
            ("54321", &[("HOME", "/root"), ("USER", "root")], "54321 0 /"),
        ] {
            let castoff = Castoff::new(place).env("CASTOFF_USER", user);
            let castoff = variables.iter().fold(castoff, |c, (name, value)| c.env(name, value));
            let mut castoff = castoff.script(show).run();
            assert_eq!(castoff.code(), 0, "{user}: {:?}", castoff.log().all());
            let all = castoff.stdout().all().join(" ");
            assert_eq!(all, format!("{expected} 0000000000000000"), "{user}");
        }
    }

    fn a_user_that_is_not_to_be_found_is_an_error(place) {
        let error = refusal(Castoff::new(place).env("CASTOFF_USER", "no-such-user"));
        assert_eq!(error, "castoff: cannot use CASTOFF_USER=\"no-such-user\": no user no-such-user \
            in /etc/passwd, expected a name of that file or a number");
        let error = refusal(Castoff::new(place).args(["--user", "0:no-such-group"]));
        assert!(error.starts_with("castoff: cannot use --user=\"0:no-such-group\": no group no-such-group in /etc/group"), "{error}");
    }

    // As nginx does with its log.
    fn the_childs_streams_can_be_opened_by_their_names(place) {
        if !is_root() { return; }
        let script = "echo out > /dev/stdout; echo err > /dev/stderr; cat < /dev/stdin";
        let (stdin, to_stdin) = std::io::pipe().expect("a pipe");
        std::io::Write::write_all(&mut &to_stdin, b"in\n").expect("room");
        drop(to_stdin);
        let mut castoff = Castoff::new(place)
            .env("CASTOFF_USER", "1234")
            .with(|command| { command.stdin(stdin); })
            .script(script)
            .run();
        assert_eq!(castoff.code(), 0, "{:?}", castoff.log().all());
        assert_eq!(castoff.stdout().all(), ["out", "in"]);
        assert!(castoff.log().all().contains(&"err".to_owned()));
    }

    fn files_and_devices_keep_their_owner(place) {
        if !is_root() { return; }
        let scratch = Scratch::new();
        let file = fs::File::create(scratch.path("out")).expect("a file");
        let owner_of = |path: &str| fs::metadata(path).expect("it is there").uid();
        let of_null = owner_of("/dev/null");
        let mut castoff = Castoff::new(place)
            .env("CASTOFF_USER", "1234")
            .with(|command| { command.stdout(file); })
            .script("echo done")
            .run();
        assert_eq!(castoff.code(), 0);
        assert_eq!(scratch.read("out"), "done\n");
        assert_eq!(owner_of(&scratch.path("out")), 0);
        assert_eq!(owner_of("/dev/null"), of_null);
    }

    fn the_child_and_its_hooks_start_in_the_directory(place) {
        let scratch = Scratch::new();
        let workdir = directory(&scratch, "work", &[]);
        scratch.program("work/serve", "755", "#!/bin/sh\npwd\n");
        let mut castoff = Castoff::new(place)
            .env("CASTOFF_WORKDIR", &workdir)
            .env("CASTOFF_PRE_START", "pwd")
            .child::<&str>("./serve", [])
            .run();
        assert_eq!(castoff.code(), 0);
        assert_eq!(castoff.stdout().all(), [workdir.as_str()]);
        assert_eq!(castoff.log().wait_for_event("hook_output")["line"], workdir.as_str());
    }

    fn a_directory_that_is_missing_is_an_error(place) {
        let error = refusal(Castoff::new(place).env("CASTOFF_WORKDIR", "/no/such/directory"));
        assert_eq!(error, "castoff: cannot use CASTOFF_WORKDIR=\"/no/such/directory\": \
            No such file or directory (os error 2), expected a directory that exists");
        let error = refusal(Castoff::new(place).args(["--workdir=/etc/passwd"]));
        assert_eq!(error, "castoff: cannot use --workdir=\"/etc/passwd\": not a directory, expected a directory that exists");
    }

    fn a_directory_is_entered_as_the_user(place) {
        if !is_root() { return; }
        let scratch = Scratch::new();
        let workdir = directory(&scratch, "closed", &[]);
        fs::set_permissions(&workdir, fs::Permissions::from_mode(0o700)).expect("our own");
        let castoff = Castoff::new(place).env("CASTOFF_WORKDIR", &workdir).env("CASTOFF_USER", "1234:1");
        let error = refusal(castoff);
        assert_eq!(error, format!("castoff: cannot run \"/bin/sh\": cannot enter \
            CASTOFF_WORKDIR={workdir:?} as user 1234:1: Permission denied"));
        nix::unistd::chown(workdir.as_str(), Some(Uid::from_raw(1234)), None).expect("root may");
        let facts = Castoff::new(place).env("CASTOFF_WORKDIR", &workdir).env("CASTOFF_USER", "1234:1")
            .script("pwd").run().stdout().all();
        assert_eq!(facts, [workdir]);
    }

    fn files_are_variables_of_the_child_and_its_hooks(place) {
        let scratch = Scratch::new();
        let first = directory(&scratch, "first", &[
            ("TOKEN", "s3cret value\n"), ("PATH", "/nowhere"), ("LINES_2", "a\nb\r\n"), ("BOTH", "first"),
            ("GOMAXPROCS", "77"), ("tls.crt", "s3cret value"), ("CASTOFF_GRACE_PERIOD", "s3cret value"),
        ]);
        let second = directory(&scratch, "second", &[("BOTH", "second"), ("EMPTY", "")]);
        let mut castoff = Castoff::new(place)
            .env("CASTOFF_ENV_DIR", format!("{first},{second}"))
            .env("EMPTY", "")
            .env("CASTOFF_PRE_START", "sh -c 'echo hook ${#TOKEN}'")
            .child::<&str>(&example("print_env"), [])
            .run();
        assert_eq!(castoff.code(), 0, "{:?}", castoff.log().all());
        // A line feed in a value is a line of its own.
        let facts = castoff.stdout().all();
        assert_has(&facts, &[
            "env\tTOKEN=s3cret value", "env\tPATH=/usr/local/bin:/usr/bin:/bin", "env\tBOTH=second",
            "env\tLINES_2=a", "b", "env\tGOMAXPROCS=77", "env\tEMPTY=",
        ]);
        assert_eq!(facts.iter().filter(|line| line.starts_with("env\tEMPTY")).count(), 1);
        assert!(!facts.iter().any(|line| line.contains("tls.crt")), "{facts:?}");
        assert!(!facts.iter().any(|line| line.contains("CASTOFF_GRACE_PERIOD")), "{facts:?}");
        let log = castoff.log();
        assert_eq!(log.wait_for_event("hook_output")["line"], "hook 12");
        let read: Vec<_> = log.events().into_iter().filter(|e| e["event"] == "env_dir_read").collect();
        assert_eq!(read.len(), 2, "{read:?}");
        assert_eq!((&read[0]["directory"], &read[0]["count"]), (&first.clone().into(), &5.into()));
        let skipped = log.wait_for_event("env_dir_skipped");
        assert_eq!(skipped["count"], 2);
        assert_eq!(skipped["list"][0]["file"], "CASTOFF_GRACE_PERIOD");
        assert_eq!(skipped["list"][1]["file"], "tls.crt");
        assert!(!log.all().join("\n").contains("s3cret"), "{:?}", log.all());
    }

    fn a_secret_that_was_exchanged_is_there_at_the_next_start(place) {
        let scratch = Scratch::new();
        let volume = directory(&scratch, "volume", &[]);
        let generation = |name: &str, value: &str| {
            directory(&scratch, &format!("volume/{name}"), &[("TOKEN", value)]);
            symlink(name, format!("{volume}/..data_tmp")).expect("a link");
            fs::rename(format!("{volume}/..data_tmp"), format!("{volume}/..data")).expect("a swap");
        };
        generation("..2026_1", "old\n");
        symlink("..data/TOKEN", format!("{volume}/TOKEN")).expect("a link");
        let record = scratch.path("record");
        let gone = scratch.path("gone");
        let mut castoff = Castoff::new(place)
            .env("CASTOFF_ENV_DIR", &volume)
            .env("CASTOFF_RESTART", "on-failure")
            .env("CASTOFF_RESTART_MIN", "10ms")
            .script(&format!(
                "echo $TOKEN >> {record}; test -e {gone} && exit 0; : > {record}.waits.$TOKEN; \
                 until test -e {record}.$TOKEN; do sleep 0.01; done; exit 3"
            ))
            .start();
        scratch.wait_for_line("record", "old");
        generation("..2026_2", "new\n");
        fs::write(format!("{record}.old"), "").expect("a file");
        wait_until("the child waits", || fs::exists(format!("{record}.waits.new")).ok()?.then_some(()));
        // What cannot be read any more is what it was.
        fs::rename(&volume, &gone).expect("a rename");
        fs::write(format!("{record}.new"), "").expect("a file");
        assert_eq!(castoff.code(), 0);
        assert_eq!(scratch.read("record"), "old\nnew\nnew\n");
        let cause = castoff.log().wait_for_event("env_dir_failed")["cause"].to_string();
        assert!(cause.contains("No such file"), "{cause}");
    }

    fn a_directory_of_variables_that_cannot_be_used_is_an_error(place) {
        let scratch = Scratch::new();
        let bad = directory(&scratch, "bad", &[("TOKEN", "s3cr\0et")]);
        let large = directory(&scratch, "large", &[("TOKEN", &"x".repeat(128 * 1024))]);
        for (directory, cause) in [
            (bad, "/TOKEN: a variable cannot hold a NUL"),
            (large, "/TOKEN: a variable cannot be longer than 131072 bytes"),
            (scratch.path("missing"), ": No such file or directory (os error 2), expected directories of readable files"),
        ] {
            let error = refusal(Castoff::new(place).env("CASTOFF_ENV_DIR", &directory));
            let expected = format!("castoff: cannot use CASTOFF_ENV_DIR=[{directory:?}]: {directory}{cause}");
            assert_eq!(error, expected);
        }
    }

    fn a_child_of_another_user_may_notify(place) {
        if !is_root() { return; }
        let scratch = Scratch::new();
        let program = for_everybody(&scratch, &example("notifier"));
        let mut castoff = Castoff::new(place)
            .env("CASTOFF_USER", "1234")
            .env("CASTOFF_NOTIFY", "on")
            .child(&program, ["READY=1", "STATUS=at work"])
            .start();
        castoff.until_serving();
        castoff.signal(libc::SIGTERM);
        castoff.wait();
    }

    // What runtimes give by default lets root see the ports of nobody but root.
    fn the_ports_of_another_user_are_seen(place) {
        if !is_root() { return; }
        let scratch = Scratch::new();
        let program = for_everybody(&scratch, &example("server"));
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let castoff = Castoff::new(place)
            .env("CASTOFF_USER", "1234:5678")
            .env("CASTOFF_CHECK_PERIOD", "50ms")
            .env("CASTOFF_READY_CHECK", format!("listen:{}", address.port()));
        let mut castoff =
            without(CAP_SYS_PTRACE, castoff).child(&program, [address.to_string()]).start();
        castoff.until_serving();
        castoff.signal(libc::SIGTERM);
        castoff.wait();
    }

    fn the_child_is_killed_before_castoff(place) {
        let own: i32 = number(&fs::read_to_string("/proc/self/oom_score_adj").expect("/proc"));
        let castoff = Castoff::new(place).child("sleep", ["600"]).start();
        castoff.until_serving();
        let of = |pid: i32| -> i32 {
            number(&fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("it runs"))
        };
        let (castoffs, childs) = (of(castoff.pid), of(castoff.child()));
        if castoffs == own {
            // Without CAP_SYS_RESOURCE.
            assert!(own == 1000 || childs > own, "{childs}");
        } else {
            assert_eq!((castoffs, childs), (-1000, own));
        }
    }
}

fn number(text: &str) -> i32 {
    text.trim().parse().expect("a number")
}

#[test]
fn where_proc_is_not_castoffs_nothing_is_changed() {
    let mut castoff = Castoff::new(Place::Subreaper)
        .env("CASTOFF_PROC_ROOT", "/no/such/proc")
        .script("cat /proc/self/oom_score_adj")
        .run();
    assert_eq!(castoff.code(), 0);
    let own = fs::read_to_string("/proc/self/oom_score_adj").expect("/proc");
    assert_eq!(castoff.stdout().all(), [own.trim()]);
}

/// castoff as this user, without any privilege.
fn unprivileged(castoff: Castoff, uid: u32) -> Castoff {
    castoff.with(|command| {
        if Uid::current().is_root() {
            command.uid(uid).gid(uid);
        }
    })
}

#[test]
fn who_is_that_user_already_needs_no_privilege() {
    let scratch = Scratch::new();
    let castoff = for_everybody(&scratch, env!("CARGO_BIN_EXE_castoff"));
    let uid = if Uid::current().is_root() { 65534 } else { Uid::current().as_raw() };
    for spec in [
        format!("{uid}"),
        format!("{uid}:{}", if uid == 65534 { uid } else { nix::unistd::getgid().as_raw() }),
    ] {
        let castoff = Castoff::instead(Place::Subreaper, &castoff).env("CASTOFF_USER", &spec);
        let mut castoff = unprivileged(castoff, uid).script("id -u").run();
        assert_eq!(castoff.code(), 0, "{:?}", castoff.log().all());
        assert_eq!(castoff.stdout().all(), [uid.to_string()]);
    }
}

#[test]
fn who_may_not_become_that_user_says_so() {
    let scratch = Scratch::new();
    let castoff = for_everybody(&scratch, env!("CARGO_BIN_EXE_castoff"));
    let castoff = Castoff::instead(Place::Subreaper, &castoff).env("CASTOFF_USER", "0:0");
    let error = refusal(unprivileged(castoff, 65534));
    assert_eq!(
        error,
        "castoff: cannot run \"/bin/sh\": cannot become user 0:0 of CASTOFF_USER (setgroups): \
        Operation not permitted\n\
        hint: castoff needs CAP_SETGID and CAP_SETUID, or to be started as that user"
    );
}

const CAP_KILL: libc::c_ulong = 5;
const CAP_SYS_PTRACE: libc::c_ulong = 19;

/// As with `--cap-drop`.
fn without(capability: libc::c_ulong, castoff: Castoff) -> Castoff {
    castoff.last(move || {
        // SAFETY: numbers only. Root's next exec takes what the set still has.
        Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) })?;
        Ok(())
    })
}

#[test]
fn a_child_that_castoff_may_not_signal_ends_with_the_container() {
    if !is_root() {
        return;
    }
    let castoff = Castoff::new(Place::Pid1)
        .env("CASTOFF_USER", "1234")
        .env("CASTOFF_GRACE_PERIOD", "2s")
        .env("CASTOFF_KILL_RESERVE", "1s");
    let mut castoff = without(CAP_KILL, castoff).child("sleep", ["600"]).start();
    castoff.until_serving();
    let warned = castoff.log().wait_for_event("child_out_of_reach");
    assert_eq!(warned["level"], "WARN");
    let child = castoff.child();
    castoff.signal(libc::SIGTERM);
    castoff.wait();
    let failed = castoff.log().wait_for_event("signal_forward_failed");
    assert_eq!(failed["signal"], "SIGTERM");
    // Process 1 takes everybody with it.
    wait_until("the child has gone", || (!process::is_running(child)).then_some(()));
}

/// What takes the memory belongs to nobody: by size alone castoff would go.
#[test]
fn castoff_outlives_a_larger_claim_of_a_smaller_descendant() {
    let Some(group) = Group::of_memory("20M") else { return };
    let file = format!("/dev/shm/castoff-identity-{}", std::process::id());
    let script = format!(
        "dd if=/dev/zero of={file} bs=64k count=2000 2> /dev/null; code=$?; : > {file}; exit $code"
    );
    let mut castoff: Running = group.enter(Castoff::new(Place::Subreaper)).script(&script).run();
    let ended = castoff.wait();
    let _ = fs::remove_file(&file);
    assert_eq!(ended, Ended::Code(137), "{:?}", castoff.log().all());
    assert_eq!(castoff.log().wait_for_event("exiting")["exit_code"], 137);
    let killed = group.read("memory.oom_control");
    assert!(!killed.contains("oom_kill 0"), "{killed}");
    drop(castoff);
}

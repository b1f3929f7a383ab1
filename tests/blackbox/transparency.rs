//! The child finds what it would have found without castoff. Each test starts
//! a program in castoff's place, then behind castoff, and compares.
#![expect(unsafe_code, reason = "what a process can inherit, set between fork and exec")]

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use nix::errno::Errno;

use crate::support::{Castoff, Place, Scratch, example, in_both_places};

/// What `program` prints on its own, and what behind castoff. A pipe's number
/// is left out: each run has its own.
#[track_caller]
fn printed(
    place: Place,
    (program, arguments): (&str, &[&OsStr]),
    prepare: impl Fn(Castoff) -> Castoff,
) -> [Vec<String>; 2] {
    let alone = Castoff::instead(place, program).args(arguments);
    let behind = Castoff::new(place).child(program, arguments);
    [alone, behind].map(|castoff| {
        let mut castoff = prepare(castoff.env("CASTOFF_SIZING", "off")).run();
        assert_eq!(castoff.code(), 0);
        let without_number = |line: &String| match line.split_once("pipe:[") {
            Some((before, _)) => format!("{before}pipe"),
            None => line.clone(),
        };
        castoff.stdout().all().iter().map(without_number).collect()
    })
}

/// The facts of `print_env`: without castoff nobody has made the program the
/// leader of a group, which is the one thing that castoff changes.
#[track_caller]
fn assert_same_facts(
    place: Place,
    arguments: &[&OsStr],
    prepare: impl Fn(Castoff) -> Castoff,
) -> Vec<String> {
    let [alone, behind] = printed(place, (&example("print_env"), arguments), prepare);
    let inherited = |lines: &[String]| -> Vec<String> {
        let is_group = |line: &&String| line.starts_with("leads_its_group");
        lines.iter().filter(|line| !is_group(line)).cloned().collect()
    };
    assert_eq!(inherited(&alone), inherited(&behind));
    assert!(behind.contains(&"leads_its_group\ttrue".to_owned()));
    inherited(&behind)
}

#[track_caller]
fn assert_has(facts: &[String], wanted: &[&str]) {
    for fact in wanted {
        assert!(facts.iter().any(|line| line == fact), "no {fact:?} in {facts:#?}");
    }
}

fn set_limit(resource: libc::__rlimit_resource_t, soft: u64) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure lives across both calls.
    unsafe {
        Errno::result(libc::getrlimit(resource, &raw mut limit))?;
        limit.rlim_cur = soft;
        Errno::result(libc::setrlimit(resource, &raw const limit))?;
    }
    Ok(())
}

in_both_places! {
    fn settings_of_the_process_are_the_childs(place) {
        let facts = assert_same_facts(place, &[], |castoff| {
            castoff.with(|command| { command.current_dir("/usr"); }).last(|| {
                set_limit(libc::RLIMIT_NOFILE, 777)?;
                set_limit(libc::RLIMIT_CORE, 0)?;
                set_limit(libc::RLIMIT_STACK, 4 << 20)?;
                // SAFETY: numbers only.
                unsafe {
                    libc::umask(0o027);
                    libc::setpriority(libc::PRIO_PROCESS, 0, 7);
                    libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                }
                Ok(())
            })
        });
        assert_has(&facts, &["cwd\t/usr", "Umask\t0027", "nice\t7", "NoNewPrivs\t1"]);
        assert!(facts.iter().any(|line| line.starts_with("limit\tMax open files            777 ")));
    }

    fn arguments_are_the_childs_to_the_byte(place) {
        let arguments =
            ["", "two words", "--", "-x", "--help", "$HOME", "a=b", "", "ü"].map(OsStr::new);
        let not_text = OsStr::from_bytes(b"\xff\xfe\x80");
        let arguments = [&arguments[..], &[not_text]].concat();
        let facts = assert_same_facts(place, &arguments, |castoff| castoff);
        let count = facts.iter().filter(|line| line.starts_with("argument\t")).count();
        assert_eq!(count, arguments.len());
    }

    fn the_environment_is_the_childs_to_the_byte(place) {
        let entries = [
            &b"PATH=/usr/bin:/bin"[..], b"TWICE=1", b"TWICE=2", b"PATH=/nowhere", b"no_equals_sign",
            b"=no_name", b"", b"EMPTY=", b"LINES=a\nb", b"NOT_TEXT=\xff\xfe", b"\xff=not text",
            b"A=b=c", b"castoff_lower=1", b"CASTOFF_SIZING=off", b"CASTOFF_HEALTH_LISTEN=127.0.0.1:0",
        ];
        let count = entries.len();
        let facts = assert_same_facts(place, &[], |castoff| with_raw_environment(castoff, &entries));
        let lines = facts.iter().filter(|line| line.starts_with("env\t")).count();
        assert_eq!(lines, count, "{facts:#?}");
        assert_has(&facts, &["env\tTWICE=1", "env\tTWICE=2", "env\tno_equals_sign", "env\t=no_name"]);
    }

    fn an_empty_environment_stays_empty(place) {
        let facts = assert_same_facts(place, &[], |castoff| with_raw_environment(castoff, &[]));
        assert!(!facts.iter().any(|line| line.starts_with("env\t")));
    }

    fn open_descriptors_are_the_childs_and_castoffs_own_are_not(place) {
        let facts = assert_same_facts(place, &[], |castoff| {
            castoff.last(|| {
                // SAFETY: descriptors of a process that has no other owner of them.
                unsafe {
                    let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
                    // Beyond those below: a dup2 onto itself would change nothing.
                    let null = Errno::result(libc::fcntl(null, libc::F_DUPFD_CLOEXEC, 200))?;
                    Errno::result(libc::dup2(null, 7))?;
                    Errno::result(libc::dup2(null, 100))?;
                }
                Ok(())
            })
        });
        // Whoever runs the tests may have left others open.
        assert_has(&facts, &["descriptor\t7 /dev/null", "descriptor\t100 /dev/null"]);
    }

    // By a shell: the examples open what is closed, as every Rust program does.
    fn closed_standard_descriptors_stay_closed(place) {
        let scratch = Scratch::new();
        for closed in [vec![0], vec![1], vec![2], vec![0, 1], vec![1, 2], vec![0, 2], vec![0, 1, 2]] {
            let record = scratch.path("record");
            let script = format!(
                "for fd in 0 1 2 3 4 5 6; do [ -e /proc/$$/fd/$fd ] && echo $fd; done > {record}",
            );
            let found = [Castoff::instead(place, "/bin/sh").args(["-c", &script]),
                Castoff::new(place).script(&script)].map(|castoff| {
                let closed = closed.clone();
                let mut castoff = castoff.last(move || {
                    // SAFETY: as above.
                    closed.iter().for_each(|fd| unsafe { _ = libc::close(*fd) });
                    Ok(())
                }).run();
                castoff.wait();
                std::fs::read_to_string(&record).expect("a record")
            });
            assert_eq!(found[0], found[1], "{closed:?} closed");
        }
    }

    // By grep: a Rust program ignores SIGPIPE by itself.
    fn blocked_and_ignored_signals_are_the_childs(place) {
        const BLOCKED: [i32; 5] = [libc::SIGUSR2, libc::SIGTERM, libc::SIGCHLD, 33, 64];
        const IGNORED: [i32; 8] = [
            libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGPIPE, libc::SIGCHLD, libc::SIGTERM,
            libc::SIGTTOU, 40,
        ];
        fn bits(signals: &[i32]) -> String {
            format!("{:016x}", signals.iter().fold(0_u64, |mask, signal| mask | 1 << (signal - 1)))
        }
        for (blocked, ignored) in [(&BLOCKED[..], &IGNORED[..]), (&[], &[]), (&BLOCKED[..], &[])] {
            let program = ["-E", "^Sig(Blk|Ign|Cgt|Pnd)|^ShdPnd", "/proc/self/status"];
            let program = program.map(OsStr::new);
            let [alone, behind] = printed(place, ("/bin/grep", &program), |castoff| {
                castoff.last(move || {
                    let mask = blocked.iter().fold(0_u64, |mask, signal| mask | 1 << (signal - 1));
                    // SAFETY: SIG_IGN is no handler that could run; the mask lives
                    // across the call and has that size.
                    unsafe {
                        ignored.iter().for_each(|signal| _ = libc::signal(*signal, libc::SIG_IGN));
                        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask,
                            ptr::null_mut::<u64>(), 8);
                    }
                    Ok(())
                })
            });
            assert_eq!(alone, behind);
            assert_has(&behind, &[&format!("SigBlk:\t{}", bits(blocked))]);
            assert_has(&behind, &[&format!("SigIgn:\t{}", bits(ignored))]);
        }
    }

    // What was pending at castoff's own start has come to castoff, like all later.
    fn an_ignored_stop_signal_still_stops(place) {
        let castoff = Castoff::new(place).last(|| {
            // SAFETY: SIG_IGN is no handler that could run.
            unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
            Ok(())
        });
        let mut castoff = castoff.child(&example("print_signals"), [""; 0]).start();
        castoff.stdout().wait_for_line("ready");
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 0);
    }
}

/// Entries that std would not pass on.
fn with_raw_environment(castoff: Castoff, entries: &[&[u8]]) -> Castoff {
    let entries: Vec<CString> =
        entries.iter().map(|entry| CString::new(*entry).expect("no NUL")).collect();
    let (program, arguments) = castoff.command_line();
    castoff.last(move || {
        let pointers = |texts: &[CString]| -> Vec<_> {
            texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
        };
        // SAFETY: two arrays of live strings that end with null.
        unsafe {
            libc::execve(
                program.as_ptr(),
                pointers(&arguments).as_ptr(),
                pointers(&entries).as_ptr(),
            );
        }
        Err(io::Error::last_os_error())
    })
}

//! What castoff exits with: the child's code, 128 + n, 127, 126 and 125; and
//! which file the command is.

use std::net::TcpListener;

use crate::support::{Castoff, Ended, Place, Scratch, in_both_places, process, wait_until};

/// Runs a command of one word and gives castoff's code.
#[track_caller]
fn code_of(place: Place, command: &str) -> i32 {
    Castoff::new(place).child(command, [""; 0]).run().code()
}

in_both_places! {
    fn the_childs_own_code_is_castoffs(place) {
        for code in [0, 1, 2, 42, 64, 99, 124, 125, 126, 127, 128, 137, 143, 254, 255] {
            let mut castoff = Castoff::new(place).script(&format!("exit {code}")).run();
            assert_eq!(castoff.wait(), Ended::Code(code));
        }
    }

    fn a_signal_that_ends_the_child_counts_from_128(place) {
        // Those that end nobody, or stop: CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG, WINCH.
        let harmless = [17, 18, 19, 20, 21, 22, 23, 28];
        for signal in (1..=64).filter(|signal| !harmless.contains(signal)) {
            let mut castoff = Castoff::new(place).child("sleep", ["1000"]).start();
            castoff.until_serving();
            process::signal(castoff.child(), signal);
            assert_eq!(castoff.wait(), Ended::Code(128 + signal), "signal {signal}");
            let exited = castoff.log().wait_for_event("child_exited");
            assert_eq!(exited["reason"], "signalled");
            assert!(exited["signal"].is_string(), "{exited}");
        }
    }

    fn a_child_that_ends_itself_by_a_signal_counts_from_128_too(place) {
        for signal in [6, 9, 15, 34, 64] {
            let script = format!("exec /bin/kill -{signal} $$");
            assert_eq!(Castoff::new(place).script(&script).run().code(), 128 + signal);
        }
    }

    fn what_cannot_be_found_is_127(place) {
        let scratch = Scratch::new();
        let bad_interpreter = scratch.program("bad", "755", "#!/no/such/interpreter\n");
        let of_a_file = format!("{bad_interpreter}/serve");
        for command in ["no-such-program", "/no/such/dir/serve", "", &bad_interpreter, &of_a_file] {
            let mut castoff = Castoff::new(place).child(command, [""; 0]).run();
            assert_eq!(castoff.code(), 127, "{command:?}");
            let word = format!("castoff: cannot run {command:?}: ");
            castoff.log().wait_for_line(&word);
        }
    }

    fn what_cannot_be_executed_is_126(place) {
        let scratch = Scratch::new();
        let text = scratch.program("text", "644", "#!/bin/sh\nexit 7\n");
        let without_interpreter = scratch.program("plain", "644", "exit 7\n");
        let interpreter_is_text = scratch.program("nested", "755", &format!("#!{text}\n"));
        let directory = &scratch.path("");
        for command in [&text, &without_interpreter, &interpreter_is_text, directory] {
            assert_eq!(code_of(place, command), 126, "{command}");
        }
    }

    fn a_text_without_an_interpreter_is_run_by_the_shell(place) {
        let scratch = Scratch::new();
        let path = scratch.program("plain", "755", "printf '<%s>' \"$0\" \"$@\"; echo; exit 9\n");
        let arguments = ["one two", "", "*", "--", "-x"];
        let directory = path.trim_end_matches("/plain");
        let said = format!("<{path}><one two><><*><--><-x>");
        for command in [path.as_str(), "plain"] {
            let mut castoff = Castoff::new(place)
                .env("PATH", directory)
                .child(command, arguments)
                .run();
            assert_eq!(castoff.code(), 9);
            assert_eq!(castoff.stdout().all(), [said.as_str()]);
        }
        let empty = scratch.program("empty", "755", "");
        assert_eq!(code_of(place, &empty), 0);
    }

    fn a_program_for_another_machine_is_126_and_no_script(place) {
        let scratch = Scratch::new();
        // Made by a shell: no argument can have a NUL.
        let make = scratch.program("make", "755", "printf '\\177ELF\\002\\001\\001\\000\\nexit 0\\n'\n");
        let foreign = scratch.program("foreign", "755", "");
        let script = format!("/bin/sh {make} > {foreign}");
        assert_eq!(Castoff::new(place).script(&script).run().code(), 0);
        let mut castoff = Castoff::new(place).child(&foreign, [""; 0]).run();
        assert_eq!(castoff.code(), 126);
        castoff.log().wait_for("the cause", |line| line.contains("Exec format error").then_some(()));
    }

    fn the_path_is_searched_as_a_shell_does(place) {
        let scratch = Scratch::new();
        for directory in ["denied", "folder", "found", "later"] {
            std::fs::create_dir(scratch.path(directory)).unwrap();
        }
        std::fs::create_dir(scratch.path("folder/serve")).unwrap();
        scratch.program("denied/serve", "644", "#!/bin/sh\nexit 1\n");
        scratch.program("found/serve", "755", "#!/bin/sh\nexit 11\n");
        scratch.program("later/serve", "755", "#!/bin/sh\nexit 12\n");
        let file = scratch.program("file", "755", "#!/bin/sh\nexit 13\n");
        let root = scratch.path("");
        let root = root.trim_end_matches('/');
        for (path, code) in [
            (format!("{root}/found:{root}/later"), 11),
            (format!("{root}/denied:{root}/later"), 12),
            (format!("{root}/folder:/no/such/dir:{file}:{root}/found"), 11),
            (format!("{root}/denied:/no/such/dir"), 126),
            (format!("{root}/folder"), 126),
            ("/no/such/dir".to_owned(), 127),
            // An empty element, wherever it stands, is the working directory.
            (String::new(), 12),
            (format!(":{root}/found"), 12),
            (format!("{root}/denied:"), 12),
            (format!("{root}/denied::{root}/found"), 12),
            ("../found".to_owned(), 11),
        ] {
            let castoff = Castoff::new(place).env("PATH", &path).child("serve", [""; 0]);
            let mut castoff =
                castoff.with(|command| { command.current_dir(scratch.path("later")); }).run();
            assert_eq!(castoff.code(), code, "PATH={path}");
        }
    }

    fn without_a_path_the_usual_directories_are_searched(place) {
        let castoff = Castoff::new(place).child("true", [""; 0]);
        let mut castoff = castoff.with(|command| { command.env_remove("PATH"); }).run();
        assert_eq!(castoff.code(), 0);
    }

    fn a_command_with_a_slash_is_not_searched_for(place) {
        let scratch = Scratch::new();
        scratch.program("serve", "755", "#!/bin/sh\nexit 11\n");
        let run = |command| {
            let castoff = Castoff::new(place).env("PATH", scratch.path("")).child(command, [""; 0]);
            castoff.with(|command| { command.current_dir("/"); }).run().code()
        };
        assert_eq!(run("serve"), 11);
        assert_eq!(run("./serve"), 127);
    }

    fn mapped_codes_change_and_others_do_not(place) {
        for (arguments, map, ends, code) in [
            (vec!["-e", "143"], "", "kill -TERM $$", 0),
            (vec!["-e", "3", "-e4"], "", "exit 4", 0),
            (vec!["-e", "3"], "", "exit 4", 4),
            (vec![], "143:0,130:7", "kill -INT $$", 7),
            (vec![], "0:3", "exit 0", 3),
            (vec![], "5:6,6:7", "exit 5", 6),
            (vec!["-e", "8"], "5:6", "exit 8", 0),
            (vec!["-e", "8"], "5:6", "exit 5", 6),
        ] {
            let castoff = Castoff::new(place).env("CASTOFF_EXIT_MAP", map).args(&arguments);
            assert_eq!(castoff.script(ends).run().code(), code, "{arguments:?} {map} {ends}");
        }
    }

    fn castoffs_own_failures_are_125_and_start_no_child(place) {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().unwrap().to_string();
        for (name, value, flags) in [
            ("CASTOFF_HEALTH_LISTEN", taken.as_str(), vec![]),
            ("CASTOFF_GRACE_PERIOD", "soon", vec![]),
            ("CASTOFF_NO_SUCH_SETTING", "1", vec![]),
            ("CASTOFF_EXIT_MAP", "300:0", vec![]),
            ("X", "", vec!["--no-such-flag"]),
            ("X", "", vec!["-e", "256"]),
        ] {
            let scratch = Scratch::new();
            let mark = scratch.path("started");
            let script = format!("echo > {mark}");
            let mut castoff = Castoff::new(place).env(name, value).args(&flags).script(&script).run();
            assert_eq!(castoff.code(), 125, "{name}={value} {flags:?}");
            castoff.log().wait_for_line("castoff: ");
            assert!(!std::fs::exists(&mark).unwrap(), "{name}={value} {flags:?}: a child was started");
        }
        for arguments in [vec![], vec!["--"]] {
            assert_eq!(Castoff::new(place).args(&arguments).run().code(), 125, "{arguments:?}");
        }
    }

    fn a_child_that_was_stopped_in_time_has_the_code_that_was_set(place) {
        for ending in ["exit 0", "exit 3", "exit 143", "kill -KILL $$"] {
            let mut castoff = stopping(place, "20m", "5m", ending).start();
            castoff.stdout().wait_for_line("ready");
            castoff.until_serving().signal(libc::SIGTERM);
            assert_eq!(castoff.code(), 77, "{ending}");
        }
        // Nor does it matter that the child never came to hear of it.
        let mut castoff = stopping(place, "20m", "5m", "exit 3").env("CASTOFF_DRAIN_DELAY", "9m").start();
        castoff.stdout().wait_for_line("ready");
        castoff.until_serving().signal(libc::SIGTERM);
        castoff.until_phase("draining");
        process::signal(castoff.child(), libc::SIGTERM);
        assert_eq!(castoff.code(), 77);
    }

    fn a_child_that_was_killed_has_its_own_code(place) {
        // At the deadline, which is 300ms away.
        let mut castoff = stopping(place, "10m", "599700ms", ":").start();
        castoff.stdout().wait_for_line("ready");
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 78);
        // By a third signal.
        let mut castoff = stopping(place, "20m", "5m", ":").start();
        castoff.stdout().wait_for_line("ready");
        castoff.until_serving();
        wait_until("the third request kills", || {
            if !process::is_running(castoff.pid) {
                return Some(());
            }
            process::try_signal(castoff.pid, libc::SIGTERM);
            None
        });
        assert_eq!(castoff.code(), 78);
    }

    fn a_child_that_ended_by_itself_has_its_own_code(place) {
        for (ends, code) in [("exit 0", 0), ("exit 3", 3), ("exit 143", 79), ("kill -TERM $$", 79)] {
            let castoff = Castoff::new(place)
                .env("CASTOFF_STOPPED_EXIT_CODE", "77")
                .env("CASTOFF_EXIT_MAP", "143:79");
            assert_eq!(castoff.script(ends).run().code(), code, "{ends}");
        }
    }

    fn the_code_that_was_set_is_not_mapped(place) {
        let castoff = Castoff::new(place)
            .env("CASTOFF_STOPPED_EXIT_CODE", "5")
            .env("CASTOFF_EXIT_MAP", "5:6,143:7");
        let mut castoff = castoff.child("sleep", ["600"]).start();
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 5);
    }

    fn a_stop_that_comes_as_soon_as_the_child_counts_as_one(place) {
        let castoff = Castoff::new(place).env("CASTOFF_STOPPED_EXIT_CODE", "77");
        let mut castoff = castoff.script("kill $PPID; exec sleep 600").run();
        assert_eq!(castoff.code(), 77);
    }

    // A map for the child's codes is none for castoff's.
    fn castoffs_own_codes_are_never_mapped(place) {
        let run = |command| {
            let castoff = Castoff::new(place).env("CASTOFF_EXIT_MAP", "127:0,126:0,125:0");
            castoff.child(command, [""; 0]).run().code()
        };
        assert_eq!(run("no-such-program"), 127);
        assert_eq!(run("/"), 126);
    }
}

/// A child that at SIGTERM does `then`. The code is 77 when it was stopped in
/// time, and 78 when it was killed.
fn stopping(place: Place, grace: &str, reserve: &str, then: &str) -> Castoff {
    let script = format!("trap '{then}' TERM; echo ready; while :; do sleep 0.01; done");
    Castoff::new(place)
        .env("CASTOFF_GRACE_PERIOD", grace)
        .env("CASTOFF_KILL_RESERVE", reserve)
        .env("CASTOFF_DRAIN_DELAY", "0")
        .env("CASTOFF_STOPPED_EXIT_CODE", "77")
        .env("CASTOFF_EXIT_MAP", "137:78")
        .script(&script)
}

//! What the child has said last, in `child_exited` and in the termination message:
//! only where its stderr goes through castoff, and only of an end that nobody
//! wanted.

use serde_json::{Value, json};

use crate::support::{Castoff, Place, Running, Scratch, in_both_places};

/// castoff with a file for its message, and no deadline that a test would reach.
fn inheriting(place: Place, scratch: &Scratch) -> Castoff {
    Castoff::new(place)
        .env("CASTOFF_GRACE_PERIOD", "20m")
        .env("CASTOFF_KILL_RESERVE", "5m")
        .env("CASTOFF_DRAIN_DELAY", "0")
        .env("CASTOFF_TERMINATION_LOG", scratch.path("message"))
}

/// The same, through which the child's lines go.
fn castoff(place: Place, scratch: &Scratch) -> Castoff {
    inheriting(place, scratch).env("CASTOFF_CHILD_LOGS", "json")
}

/// Of each child, null where there are none.
fn words(castoff: &Running) -> Vec<Value> {
    let events = castoff.log().events();
    let ends = events.iter().filter(|event| event["event"] == "child_exited");
    ends.map(|event| event["last_words"].clone()).collect()
}

/// The lines below the heading.
fn told(scratch: &Scratch) -> Vec<String> {
    let message = scratch.read("message");
    assert!(message.len() <= 4096, "{}", message.len());
    let below = message.lines().skip_while(|line| *line != "last lines of stderr:").skip(1);
    below.map_while(|line| line.strip_prefix("  ").map(str::to_owned)).collect()
}

in_both_places! {
    fn an_end_that_nobody_wanted_is_told_with_the_last_lines_of_stderr(place) {
        let scratch = Scratch::new();
        let script = "echo out; for n in 1 2 3 4 5 6 7 8 9 10 11; do echo \"line $n\" >&2; done; \
                      printf '\\033[31mpanic:\\033[0m\\t\"no\"\\r\\n' >&2; exit 3";
        let mut castoff = castoff(place, &scratch).script(script).run();
        assert_eq!(castoff.code(), 3);
        let mut expected: Vec<_> = (3..=11).map(|n| format!("line {n}")).collect();
        expected.push("panic:    \"no\"".to_owned());
        assert_eq!(words(&castoff), [json!(expected)]);
        assert_eq!(told(&scratch), expected);
        let first = scratch.read("message");
        assert!(first.starts_with("child exited by itself: exit code 3\n"), "{first}");
    }

    fn a_last_line_without_its_newline_is_told_whatever_ended_the_child(place) {
        let scratch = Scratch::new();
        let script = "printf 'one\\nlast words' >&2; kill -9 $$";
        let mut castoff = castoff(place, &scratch).script(script).run();
        assert_eq!(castoff.code(), 137);
        assert_eq!(words(&castoff), [json!(["one", "last words"])]);
        assert_eq!(told(&scratch), ["one", "last words"]);
    }

    fn of_a_good_end_nothing_is_told(place) {
        for (script, map, code) in [("echo said >&2", "1:1", 0), ("echo said >&2; exit 3", "3:0", 0)] {
            let scratch = Scratch::new();
            let castoff = castoff(place, &scratch).env("CASTOFF_EXIT_MAP", map);
            let mut castoff = castoff.script(script).run();
            assert_eq!(castoff.code(), code);
            assert_eq!(words(&castoff), [Value::Null], "{script}");
            assert_eq!(scratch.read("message"), "", "{script}");
        }
        let scratch = Scratch::new();
        let script = "echo said >&2; echo ready > $FLAG; exec sleep 600";
        let castoff = castoff(place, &scratch).env("FLAG", scratch.path("flag"));
        let mut castoff = castoff.script(script).start();
        scratch.wait_for_line("flag", "ready");
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 143);
        assert_eq!(words(&castoff), [Value::Null]);
    }

    fn what_does_not_go_through_castoff_is_not_told(place) {
        let scratch = Scratch::new();
        let castoff = inheriting(place, &scratch);
        let mut castoff = castoff.script("echo said >&2; exit 3").run();
        assert_eq!(castoff.code(), 3);
        assert_eq!(words(&castoff), [Value::Null]);
        let message = scratch.read("message");
        assert!(message.starts_with("child exited by itself") && !message.contains("said"));
        let scratch = Scratch::new();
        let castoff = self::castoff(place, &scratch);
        let mut castoff = castoff.script("echo said; exit 3").run();
        assert_eq!(castoff.code(), 3);
        assert_eq!(words(&castoff), [Value::Null], "stdout");
    }

    fn the_words_of_each_child_are_its_own(place) {
        let scratch = Scratch::new();
        let script = "[ -e $FLAG ] && exit 4; echo > $FLAG; echo first >&2; exit 5";
        let mut castoff = castoff(place, &scratch)
            .env("CASTOFF_RESTART", "on-failure")
            .env("CASTOFF_RESTART_MIN", "1ms")
            .env("CASTOFF_RESTART_LIMIT", "1")
            .env("FLAG", scratch.path("flag"))
            .script(script)
            .run();
        assert_eq!(castoff.code(), 4);
        assert_eq!(words(&castoff), [json!(["first"]), Value::Null]);
        assert_eq!(told(&scratch), [""; 0]);
    }

    fn what_is_said_at_the_stop_signal_is_told_of_a_child_that_had_to_be_killed(place) {
        let scratch = Scratch::new();
        let script = "trap 'echo \"waiting for 7 connections\" >&2' TERM; echo ready > $FLAG; \
                      while :; do sleep 0.01; done";
        let castoff = castoff(place, &scratch)
            .env("CASTOFF_GRACE_PERIOD", "10m")
            .env("CASTOFF_KILL_RESERVE", "599500ms")
            .env("FLAG", scratch.path("flag"));
        let mut castoff = castoff.script(script).start();
        scratch.wait_for_line("flag", "ready");
        castoff.until_serving().signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 137);
        assert_eq!(words(&castoff), [json!(["waiting for 7 connections"])]);
        assert_eq!(told(&scratch), ["waiting for 7 connections"]);
    }

    fn whatever_was_said_a_line_of_the_log_stays_short(place) {
        let scratch = Scratch::new();
        let script = "head -c 100000 /dev/zero | tr '\\0' '\"' >&2; exit 3";
        let mut castoff = castoff(place, &scratch).script(script).run();
        assert_eq!(castoff.code(), 3);
        let expected = format!("…{}", "\"".repeat(1021));
        assert_eq!(words(&castoff), [json!([expected])]);
        assert_eq!(told(&scratch), [expected]);
        let log = castoff.log().all();
        let end = log.iter().find(|line| line.contains("\"event\":\"child_exited\""));
        assert!(end.is_some_and(|line| line.len() < 4096), "{log:?}");
    }
}

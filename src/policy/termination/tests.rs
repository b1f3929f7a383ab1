//! What is read in a Pod's status, and that it is never too long or odd.

use super::*;
use proptest::prelude::*;

fn limits() -> Limits {
    let limit = |value| Some(Limit { value, source: "memory.max".to_owned() });
    Limits {
        cpus: Some(Limit { value: 1.5, source: "cpu.max".to_owned() }),
        memory_bytes: limit(512 << 20),
        pids: limit(100),
        ..Limits::default()
    }
}

fn child(exit: ExitReason, reason: Reason, origin: Option<Origin>) -> End {
    End::Child(Death { exit, reason, origin, is_core_dumped: false })
}

fn signalled(number: i32, reason: Reason, origin: Option<Origin>) -> End {
    child(ExitReason::Signal(Signal::new(number).expect("a signal")), reason, origin)
}

fn passage(at_ms: u64, from: PhaseName, to: PhaseName, cause: Cause) -> Passage {
    let elapsed = Duration::from_millis(at_ms);
    Passage { at: elapsed, change: PhaseChange { from, to, cause, elapsed, drained: None } }
}

fn stop(elapsed: u64) -> StopStory {
    StopStory {
        signal: Signal::TERM,
        sender: Sender::Outside { uid: 0 },
        elapsed: Duration::from_millis(elapsed),
        killed_after: Duration::from_secs(9),
    }
}

/// The story of that end, with nothing else in it.
fn bare<'a>(end: &'a End, limits: &'a Limits, left: &'a Left) -> Story<'a> {
    Story {
        end,
        exit_code: 137,
        command: "serve",
        uptime: None,
        restarts: 0,
        gave_up_after: None,
        is_after_oom: false,
        oom: OomTally::default(),
        limits,
        stop: None,
        passages: &[],
        left,
        has_child_outlived: false,
        failing: &[],
        last_words: &[],
    }
}

#[track_caller]
fn first_line(end: &End, change: impl for<'a> FnOnce(&mut Story<'a>)) -> String {
    let (limits, left) = (limits(), Left::default());
    let mut story = bare(end, &limits, &left);
    change(&mut story);
    compose(&story).lines().next().expect("a line").to_owned()
}

#[test]
fn the_first_line_is_the_cause_in_a_sentence() {
    let kill = Sender::Process { pid: 7, uid: 0, command: Some("kill".to_owned()) };
    let code = |code| child(ExitReason::Code(code), Reason::Exited, None);
    for (end, expected) in [
        (code(3), "child exited by itself: exit code 137"),
        (
            signalled(9, Reason::OomKilled, None),
            "child killed by the OOM killer at 512 MiB: exit code 137",
        ),
        (
            signalled(9, Reason::Signalled, None),
            "child ended by SIGKILL, not sent by castoff: exit code 137",
        ),
        (
            signalled(11, Reason::Signalled, Some(Origin::Fault)),
            "child ended by SIGSEGV, a fault of its own: exit code 137",
        ),
        (
            signalled(10, Reason::Signalled, Some(Origin::Forwarded(kill))),
            "child ended by SIGUSR1, forwarded from kill (pid 7, uid 0): exit code 137",
        ),
        (
            signalled(11, Reason::Stopped, Some(Origin::Fault)),
            "child ended by SIGSEGV, a fault of its own, while it was stopping: exit code 137",
        ),
        (
            End::NotStarted(NotStarted::Program("cannot run \"x\": no such file".to_owned())),
            "child not started, cannot run \"x\": no such file: exit code 137",
        ),
        (
            End::NotStarted(NotStarted::PreStart),
            "child not started, the pre-start hook has failed: exit code 137",
        ),
        (
            End::NotStarted(NotStarted::Wait),
            "child not started, what CASTOFF_WAIT_FOR names has not passed in time: exit code 137",
        ),
    ] {
        assert_eq!(first_line(&end, |_| ()), expected);
    }
}

#[test]
fn the_first_line_says_what_castoff_has_done() {
    let killed = signalled(9, Reason::KilledAtDeadline, None);
    let (limits, left) = (limits(), Left::default());
    let line = |cause, elapsed| {
        use PhaseName::{Exited, Killing, Stopping, Sweeping};
        let stop = stop(elapsed);
        let passages = [
            passage(70, Stopping, Killing, cause),
            passage(80, Killing, Sweeping, Cause::TreeGone),
            passage(90, Sweeping, Killing, Cause::Deadline),
            passage(95, Killing, Exited, Cause::TreeGone),
        ];
        let story = bare(&killed, &limits, &left);
        let message = compose(&Story { stop: Some(&stop), passages: &passages, ..story });
        message.lines().next().expect("a line").to_owned()
    };
    // However long a post-stop hook has run since.
    for elapsed in [2000, 9000, 9500] {
        let at_deadline =
            "child killed by castoff at the deadline, 9.000 s after SIGTERM: exit code 137";
        assert_eq!(line(Cause::Deadline, elapsed), at_deadline);
        let asked_for = "child killed by castoff at a third stop signal: exit code 137";
        assert_eq!(line(Cause::ThirdSignal, elapsed), asked_for);
    }
}

#[test]
fn a_child_that_could_not_be_killed_is_not_said_to_be_dead() {
    let killed = signalled(9, Reason::KilledAtDeadline, None);
    let line = first_line(&killed, |story| story.has_child_outlived = true);
    assert_eq!(line, "child could not be killed by castoff: exit code 137");
}

#[test]
fn a_shell_whose_command_was_a_victim_is_told_apart() {
    let shell = child(ExitReason::Code(137), Reason::Exited, None);
    assert_eq!(
        first_line(&shell, |story| story.is_after_oom = true),
        "child exited by itself, just after the OOM killer had killed a descendant at 512 MiB: \
         exit code 137"
    );
    let whole = signalled(9, Reason::OomKilled, None);
    assert_eq!(
        first_line(&whole, |story| story.oom.group = 3),
        "child killed with its whole group by the OOM killer at 512 MiB: exit code 137"
    );
    let mut core = signalled(6, Reason::Signalled, Some(Origin::Fault));
    if let End::Child(death) = &mut core {
        death.is_core_dumped = true;
    }
    assert_eq!(
        first_line(&core, |_| ()),
        "child ended by SIGABRT, a fault of its own, core dumped: exit code 137"
    );
}

#[test]
fn the_facts_follow_line_by_line() {
    use PhaseName::{Killing, Serving, Starting, Stopping};
    let (limits, stop) = (limits(), stop(9004));
    let end = signalled(9, Reason::KilledAtDeadline, None);
    let left = Left { names: vec!["worker".to_owned(), "sh".to_owned()], total: 3 };
    let message = compose(&Story {
        uptime: Some(Duration::from_millis(83_250)),
        restarts: 2,
        oom: OomTally { child: 1, descendant: 4, group: 0 },
        stop: Some(&stop),
        passages: &[
            passage(12, Starting, Serving, Cause::ChildReady),
            passage(74_000, Serving, Stopping, Cause::StopRequested),
            passage(83_000, Stopping, Killing, Cause::Deadline),
        ],
        failing: &["database", "page"],
        last_words: &["panic: no".to_owned(), "    main.go:7".to_owned()],
        ..bare(&end, &limits, &left)
    });
    let expected = "\
child killed by castoff at the deadline, 9.000 s after SIGTERM: exit code 137
child: serve, ran for 83.250 s
restarts: 2
limits: 1.5 CPUs, memory 512 MiB, 100 processes
killed by the OOM killer: the child 1, descendants 4, with the group 0
stop: SIGTERM from outside the container (uid 0), 9.004 s ago; SIGKILL was due after 9.000 s
left to be killed: 3 (worker, sh and 1 more)
checks that did not pass: database, page
last lines of stderr:
  panic: no
      main.go:7
phases, since castoff was started:
  12 ms: starting -> serving (child_ready)
  74000 ms: serving -> stopping (stop_requested)
  83000 ms: stopping -> killing (deadline)
";
    assert_eq!(message, format!("{expected}{SIGNATURE}"));
    assert!(is_castoffs(message.as_bytes()));
}

#[test]
fn what_the_child_has_said_goes_before_the_phases_and_after_the_facts() {
    let end = child(ExitReason::Code(1), Reason::Exited, None);
    let changed = |n| passage(n, PhaseName::Starting, PhaseName::Serving, Cause::ChildReady);
    let (limits, left, passages) = (limits(), Left::default(), [changed(1); PASSAGES_TOLD]);
    let names = vec!["n".repeat(LONGEST); NAMES_TOLD];
    let failing: Vec<_> = names.iter().map(String::as_str).collect();
    let said = |count: usize, length: usize| -> Vec<String> {
        (0..count).map(|n| format!("{n}{}", "s".repeat(length))).collect()
    };
    let told = |words: &[String]| {
        let story = bare(&end, &limits, &left);
        let story = Story { passages: &passages, failing: &failing, last_words: words, ..story };
        let message = compose(&story);
        assert!(message.len() <= LONGEST, "{}", message.len());
        message.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    // All of both.
    let words = said(10, 90);
    let lines = told(&words);
    let at = lines.iter().position(|line| line == "last lines of stderr:").expect("a heading");
    assert!(lines[at - 1].starts_with("checks that did not pass: "), "{lines:?}");
    let indented: Vec<_> = words.iter().map(|line| format!("  {line}")).collect();
    assert_eq!(lines[at + 1..=at + 10], indented);
    assert_eq!(lines.len(), at + 1 + 10 + 1 + PASSAGES_TOLD + 1);
    // More than there is room for: the last of them, whole.
    let words = said(9, 700);
    let lines = told(&words);
    let quoted: Vec<_> = lines.iter().filter(|line| line.len() > 700).collect();
    assert!((1..9).contains(&quoted.len()), "{}", quoted.len());
    let expected = words.iter().skip(9 - quoted.len());
    assert!(quoted.iter().map(|line| &line[2..]).eq(expected), "{quoted:?}");
    let lines = told(&said(1, LONGEST));
    assert!(!lines.iter().any(|line| line == "last lines of stderr:"), "no heading of nothing");
}

#[test]
fn giving_up_is_a_fact() {
    let end = child(ExitReason::Code(1), Reason::Exited, None);
    let (limits, left) = (Limits::default(), Left::default());
    let story = Story { restarts: 5, gave_up_after: Some(3), ..bare(&end, &limits, &left) };
    let message = compose(&story);
    let line = "restarts: 5; 3 in a row is the limit, castoff has given up";
    assert_eq!(message.lines().nth(1), Some(line));
}

#[test]
fn sizes_are_told_as_people_set_them() {
    for (bytes, text) in [
        (0, "0 bytes"),
        (1000, "1000 bytes"),
        (1 << 10, "1 KiB"),
        (512 << 20, "512 MiB"),
        (1 << 30, "1 GiB"),
        (1536 << 20, "1536 MiB"),
        (500_000_000, "476 MiB"),
        (u64::MAX, "17592186044415 MiB"),
    ] {
        assert_eq!(Bytes(bytes).to_string(), text);
    }
}

#[test]
fn the_programs_own_words_are_not_castoffs() {
    let own = compose_failure("it cannot listen", 125);
    assert_eq!(own, format!("child not started, it cannot listen: exit code 125\n{SIGNATURE}"));
    assert!(is_castoffs(own.as_bytes()));
    assert!(is_castoffs(b"anything\n(castoff 9.9.9)\n"), "of another version");
    for text in
        ["", "fatal\n", "(castoff 0.1.0)", "x (castoff 0.1.0)\n", "(castoff 0.1.0)\nfatal\n"]
    {
        assert!(!is_castoffs(text.as_bytes()), "{text:?}");
    }
    let long = "x".repeat(LONGEST) + "\n" + &own;
    assert!(!is_castoffs(long.as_bytes()));
}

/// Text with whatever is awkward in it, also at a length that matters.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[\\PC\\n\\x00]{0,40}",
        (0..6000_usize).prop_map(|length| "\u{1f980}é\n".repeat(length / 3)),
    ]
}

proptest! {
    #[test]
    fn whatever_was_it_fits(
        command in any_text(),
        sender in any_text(),
        cause in any_text(),
        names in prop::collection::vec(any_text(), 0..40),
        words in prop::collection::vec(any_text(), 0..20),
        passages in 0..100_u64,
        numbers in any::<(u64, u64, u8, bool)>(),
        kind in 0..4_u8,
        uptime in any::<Option<Duration>>(),
    ) {
        let (first, second, exit_code, is_after_oom) = numbers;
        let sender = Sender::Process { pid: i32::MIN, uid: u32::MAX, command: Some(sender) };
        let end = match kind {
            0 => End::NotStarted(NotStarted::Program(cause)),
            1 => signalled(10, Reason::Signalled, Some(Origin::Forwarded(sender.clone()))),
            2 => signalled(9, Reason::OomKilled, None),
            _ => child(ExitReason::Code(exit_code), Reason::Exited, None),
        };
        let left = Left { names: names.clone(), total: names.len() };
        let failing: Vec<_> = names.iter().map(String::as_str).collect();
        let changed = |n| passage(n, PhaseName::Starting, PhaseName::Serving, Cause::ChildReady);
        let passages: Vec<_> = (0..passages).map(changed).collect();
        let (limits, stop) = (limits(), StopStory { sender, ..stop(first) });
        let message = compose(&Story {
            exit_code,
            command: &command,
            uptime,
            restarts: second,
            gave_up_after: Some(3),
            is_after_oom,
            oom: OomTally { child: first, descendant: second, group: u64::MAX },
            stop: Some(&stop),
            passages: &passages,
            failing: &failing,
            last_words: &words,
            ..bare(&end, &limits, &left)
        });
        prop_assert!(message.len() <= LONGEST, "{}", message.len());
        prop_assert!(is_castoffs(message.as_bytes()));
        let first = message.lines().next().unwrap_or_default();
        prop_assert!(first.ends_with(&format!(": exit code {exit_code}")), "{first}");
        prop_assert!(!message.chars().any(|c| c.is_control() && c != '\n'));
        let is_indented = |line: &&str| line.starts_with("  ");
        prop_assert!(message.lines().all(|l| l.len() <= LONGEST_LINE || is_indented(&l)));
        // No name can make a line of its own.
        prop_assert!(message.lines().filter(|line| !is_indented(line)).count() <= 9 + 2 + 1);
        let told = passages.len().min(PASSAGES_TOLD) + words.len();
        prop_assert!(message.lines().filter(is_indented).count() <= told);
    }
}

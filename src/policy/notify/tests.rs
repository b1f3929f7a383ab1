//! Every assignment, contradictions, and whatever else may be in a datagram.

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Message {
    Message::parse(text.as_bytes()).unwrap()
}

/// What is said after those messages.
fn after(messages: &[&str]) -> (Notified, Option<News>) {
    let mut notified = Notified::default();
    let mut news = None;
    for message in messages {
        news = notified.take(&parse(message));
    }
    (notified, news)
}

#[test]
fn every_assignment_is_read() {
    let message = parse(
        "STATUS=a=b\nERRNO=2\nBUSERROR=org.x.Y\nEXIT_STATUS=TERM\nMAINPID=7\nWATCHDOG=1\n\
         WATCHDOG_USEC=20000000\nEXTEND_TIMEOUT_USEC=5\nRELOADING=1\nMONOTONIC_USEC=12\nREADY=1\n\
         STOPPING=1\nFDSTORE=1\nFDNAME=x\nNOTIFYACCESS=all\nX_OWN=1\n\nnonsense\n=1\n",
    );
    let expected = Message {
        is_ready: true,
        is_stopping: true,
        is_reloading: true,
        monotonic_usec: Some(12),
        status: Some("a=b".to_owned()),
        errno: Some(2),
        bus_error: Some("org.x.Y".to_owned()),
        exit_status: Some("TERM".to_owned()),
        main_pid: Some(7),
        watchdog: Some(WatchdogSign::Ping),
        watchdog_interval: Some(Duration::from_secs(20)),
        extension: Some(Duration::from_micros(5)),
    };
    assert_eq!(message, expected);
    assert_eq!(parse("WATCHDOG=trigger").watchdog, Some(WatchdogSign::Trigger));
    // systemctl and C programs may or may not end their lines, or count the NUL.
    for text in ["READY=1", "READY=1\n", "READY=1\0", "READY=1\n\0"] {
        assert!(parse(text).is_ready, "{text:?}");
    }
}

#[test]
fn what_makes_no_sense_says_nothing() {
    for text in [
        "",
        "READY",
        "READY=",
        "READY=0",
        "READY=11",
        "READY=1 ",
        " READY=1",
        "ready=1",
        "READY=1\r",
        "XREADY=1",
        "STOPPING=yes",
        "RELOADING=2",
        "ERRNO=",
        "ERRNO=-1",
        "ERRNO=+1",
        "ERRNO=99999999999",
        "MAINPID=0",
        "MAINPID=-1",
        "MAINPID=1x",
        "WATCHDOG=2",
        "WATCHDOG_USEC=1.5",
        "WATCHDOG_USEC=99999999999999999999",
        "EXTEND_TIMEOUT_USEC=1s",
        "MONOTONIC_USEC=x",
        "FDSTORE=1",
    ] {
        assert_eq!(parse(text), Message::default(), "{text:?}");
    }
    assert_eq!(parse("ERRNO=1\nERRNO=2\nERRNO=x").errno, Some(2), "the last that makes sense");
}

#[test]
fn a_barrier_is_nothing_but_a_barrier() {
    for text in ["BARRIER=1", "READY=1\nBARRIER=1\n", "BARRIER=1\nREADY=1"] {
        assert_eq!(parse(text), Message::default(), "{text:?}");
    }
    assert!(parse("BARRIER=0\nREADY=1").is_ready);
}

#[test]
fn a_datagram_is_taken_as_a_whole_or_not_at_all() {
    assert_eq!(Message::parse(b"READY=1\0\0"), None);
    assert_eq!(Message::parse(b"READY=1\0STATUS=x"), None);
    let filled = |length: usize| [b"READY=1\nX_=".to_vec(), vec![b'x'; length - 11]].concat();
    assert!(Message::parse(&filled(DATAGRAM_MAX)).unwrap().is_ready);
    assert_eq!(Message::parse(&filled(DATAGRAM_MAX + 1)), None);
}

#[test]
fn a_status_is_one_short_line() {
    let status = |bytes: &[u8]| {
        Message::parse(&[b"STATUS=", bytes].concat()).and_then(|message| message.status)
    };
    assert_eq!(status(b" 3 of 5\t\x1b[31m ").unwrap(), "3 of 5  [31m");
    assert_eq!(status("a\u{202e}b\u{2028}c\u{85}d".as_bytes()).unwrap(), "a b c d");
    assert_eq!(status(b"a\xff\xfeb").unwrap(), "a\u{fffd}\u{fffd}b");
    assert_eq!(status("\u{e4}".repeat(300).as_bytes()).unwrap().chars().count(), 256);
    assert_eq!(status(b"").as_deref(), Some(""));
}

#[test]
fn ready_counts_once_and_never_after_stopping() {
    for (messages, is_ready, news) in [
        (&["READY=1"][..], true, Some(News::Ready)),
        (&["READY=1", "READY=1"], true, None),
        (&["READY=1", "STOPPING=1"], false, Some(News::Stopping)),
        (&["READY=1", "STOPPING=1", "STOPPING=1"], false, None),
        (&["READY=1", "STOPPING=1", "READY=1"], false, None),
        (&["STOPPING=1", "READY=1"], false, None),
        (&["READY=1\nSTOPPING=1"], false, Some(News::Stopping)),
        (&["STOPPING=1\nREADY=1"], false, Some(News::Stopping)),
        (&["WATCHDOG=1"], false, None),
    ] {
        let (notified, last) = after(messages);
        assert_eq!((notified.is_ready(), last), (is_ready, news), "{messages:?}");
    }
}

#[test]
fn a_reload_ends_with_ready_and_leaves_readiness_alone() {
    for (messages, is_ready, is_reloading, news) in [
        // httpd says so before it is ready for the first time.
        (&["RELOADING=1"][..], false, true, Some(News::Reloading)),
        (&["RELOADING=1", "READY=1"], true, false, Some(News::Ready)),
        (&["READY=1", "RELOADING=1"], true, true, Some(News::Reloading)),
        (&["READY=1", "RELOADING=1", "RELOADING=1"], true, true, None),
        (&["READY=1", "RELOADING=1", "READY=1"], true, false, Some(News::Reloaded)),
        (&["READY=1", "RELOADING=1\nREADY=1"], true, false, None),
        (&["READY=1", "RELOADING=1", "STOPPING=1"], false, false, Some(News::Stopping)),
        (&["STOPPING=1", "RELOADING=1"], false, false, None),
    ] {
        let (notified, last) = after(messages);
        let seen = (notified.is_ready(), notified.is_reloading(), last);
        assert_eq!(seen, (is_ready, is_reloading, news), "{messages:?}");
    }
}

#[test]
fn the_last_status_stands_until_it_is_taken_back() {
    let (notified, _) = after(&["STATUS=a", "READY=1", "STATUS=b\nERRNO=5", "WATCHDOG=1"]);
    assert_eq!(notified.status(), Some("b"));
    let (notified, _) = after(&["STATUS=a", "STOPPING=1", "STATUS=c"]);
    assert_eq!((notified.status(), notified.is_stopping()), (Some("c"), true));
    assert_eq!(after(&["STATUS=a", "STATUS="]).0.status(), None);
}

#[test]
fn only_a_descendant_is_believed_and_one_that_has_gone_on_a_private_socket() {
    for (kinship, is_private, pid, is_taken) in [
        (Kinship::Descendant, true, 7, true),
        (Kinship::Descendant, false, 7, true),
        (Kinship::Gone, true, 7, true),
        (Kinship::Gone, false, 7, false),
        (Kinship::Stranger, true, 7, false),
        (Kinship::Stranger, false, 7, false),
        // From another pid namespace: no walk can have found it.
        (Kinship::Descendant, true, 0, false),
        (Kinship::Descendant, false, 0, false),
        (Kinship::Gone, true, 0, false),
        (Kinship::Gone, false, 0, false),
        (Kinship::Stranger, true, 0, false),
        (Kinship::Stranger, false, 0, false),
        (Kinship::Gone, true, -1, false),
    ] {
        assert_eq!(is_believed(kinship, is_private, pid), is_taken, "{kinship:?} {pid}");
    }
}

#[test]
fn the_child_gets_the_socket_and_pings_for_everybody() {
    let of = |watchdog: Option<u64>, outer: Option<u64>| {
        let interval = |secs: Option<u64>| secs.map(Duration::from_secs);
        let [socket, usec, pid] = child_variables("@x", interval(watchdog), interval(outer));
        assert_eq!(socket, ("NOTIFY_SOCKET", Some("@x".to_owned())));
        assert_eq!(pid, ("WATCHDOG_PID", None));
        assert_eq!(usec.0, "WATCHDOG_USEC");
        usec.1
    };
    assert_eq!(of(None, None), None);
    assert_eq!(of(Some(10), None).as_deref(), Some("10000000"));
    assert_eq!(of(None, Some(3)).as_deref(), Some("3000000"));
    assert_eq!(of(Some(10), Some(3)).as_deref(), Some("3000000"));
    assert_eq!(of(Some(2), Some(3)).as_deref(), Some("2000000"));
}

#[test]
fn the_outer_watchdog_is_castoffs_only_when_it_is_meant() {
    let of = |usec: &str, pid: Option<&str>| {
        outer_watchdog(Some(usec.as_bytes()), pid.map(str::as_bytes), 42)
    };
    assert_eq!(of("5", None), Some(Duration::from_micros(5)));
    assert_eq!(of("5", Some("42")), Some(Duration::from_micros(5)));
    for (usec, pid) in [("5", Some("43")), ("5", Some("")), ("0", None), ("", None), ("x", None)] {
        assert_eq!(of(usec, pid), None, "{usec} {pid:?}");
    }
    assert_eq!(outer_watchdog(None, None, 42), None);
}

#[test]
fn the_outer_one_is_told_of_castoff_and_not_of_the_child() {
    let mut outer = Forwarding::new(Some(42), true);
    // Before castoff is ready nothing that the child is counts.
    assert_eq!(outer.said(&parse("READY=1\nMAINPID=7")), None);
    assert_eq!(outer.said(&parse("RELOADING=1")), None);
    assert_eq!(outer.said(&parse("STATUS=x\nERRNO=2")).as_deref(), Some("STATUS=x\nERRNO=2\n"));
    let text = "EXTEND_TIMEOUT_USEC=9\n";
    assert_eq!(outer.said(&parse(text)).as_deref(), Some(text));
    assert_eq!(outer.ready().as_deref(), Some("READY=1\nMAINPID=42\n"));
    assert_eq!(outer.ready(), None);
    assert_eq!(outer.said(&parse("READY=1")), None);
    let text = "RELOADING=1\nMONOTONIC_USEC=8\n";
    assert_eq!(outer.said(&parse(text)).as_deref(), Some(text));
    assert_eq!(outer.said(&parse("READY=1")).as_deref(), Some("READY=1\n"));
    assert_eq!(outer.said(&parse("WATCHDOG=1")).as_deref(), Some("WATCHDOG=1\n"));
    let text = "WATCHDOG=trigger\n";
    assert_eq!(outer.said(&parse(text)).as_deref(), Some(text));
    let text = "STOPPING=1\nSTATUS=bye\n";
    assert_eq!(outer.said(&parse(text)).as_deref(), Some(text));
    assert_eq!((outer.stopping(), outer.ready()), (None, None));
    assert_eq!(outer.said(&parse("STOPPING=1\nREADY=1\nRELOADING=1")), None);
}

#[test]
fn pings_go_on_only_to_whom_waits_and_pid_1_is_nobody_outside() {
    let mut outer = Forwarding::new(None, false);
    assert_eq!(outer.said(&parse("WATCHDOG=1")), None);
    assert_eq!(outer.ready().as_deref(), Some("READY=1\n"));
    assert_eq!(outer.stopping().as_deref(), Some("STOPPING=1\n"));
    assert_eq!(outer.stopping(), None);
}

/// A datagram that is more likely to say something than bytes are.
fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec![
        "READY",
        "STOPPING",
        "RELOADING",
        "STATUS",
        "ERRNO",
        "BUSERROR",
        "EXIT_STATUS",
        "MAINPID",
        "WATCHDOG",
        "WATCHDOG_USEC",
        "EXTEND_TIMEOUT_USEC",
        "MONOTONIC_USEC",
        "BARRIER",
        "FDSTORE",
    ]);
    let value = prop_oneof![
        4 => Just(b"1".to_vec()),
        1 => Just(b"trigger".to_vec()),
        1 => any::<u64>().prop_map(|number| number.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..600),
    ];
    let line = (name, value).prop_map(|(name, value)| [name.as_bytes(), b"=", &value].concat());
    prop_oneof![
        4 => prop::collection::vec(line, 0..6).prop_map(|lines| lines.join(&b'\n')),
        1 => prop::collection::vec(any::<u8>(), 0..5000),
    ]
}

fn is_safe(text: &str) -> bool {
    text.chars().count() <= 256 && !text.contains(char::is_control)
}

proptest! {
    #[test]
    fn whatever_is_said_is_bounded_and_goes_out_safely(datagram in datagram()) {
        let Some(message) = Message::parse(&datagram) else {
            prop_assert!(datagram.len() > DATAGRAM_MAX || datagram.contains(&0));
            return Ok(());
        };
        for text in [&message.status, &message.bus_error, &message.exit_status] {
            prop_assert!(text.as_deref().is_none_or(is_safe), "{:?}", text);
        }
        let mut outer = Forwarding::new(Some(42), true);
        outer.ready();
        if let Some(text) = outer.said(&message) {
            prop_assert!(text.len() <= DATAGRAM_MAX && text.ends_with('\n'));
            // It says nothing that the child has not said.
            let again = Message::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(again.main_pid, None);
            prop_assert_eq!(&again.status, &message.status);
            prop_assert_eq!(again.is_stopping, message.is_stopping);
            prop_assert_eq!(again.watchdog, message.watchdog);
        }
    }

    #[test]
    fn readiness_comes_by_ready_only_and_goes_for_good(
        datagrams in prop::collection::vec(datagram(), 0..20),
    ) {
        let (mut notified, mut outer) = (Notified::default(), Forwarding::new(None, false));
        let (mut was_ready, mut was_stopping, mut stops) = (false, false, 0);
        for message in datagrams.iter().filter_map(|datagram| Message::parse(datagram)) {
            let before = notified.is_ready();
            let news = notified.take(&message);
            was_stopping |= message.is_stopping;
            was_ready |= message.is_ready && !was_stopping;
            prop_assert_eq!(notified.is_ready(), was_ready && !was_stopping);
            prop_assert_eq!(!before && notified.is_ready(), news == Some(News::Ready));
            prop_assert_eq!(notified.is_stopping(), was_stopping);
            prop_assert!(notified.status().is_none_or(|status| is_safe(status) && !status.is_empty()));
            // A repeat changes nothing.
            let same = notified.clone();
            prop_assert_eq!(notified.take(&message), None);
            prop_assert_eq!(&notified, &same);
            let told = outer.said(&message).unwrap_or_default();
            stops += told.lines().filter(|line| *line == "STOPPING=1").count();
            prop_assert!(!told.contains("READY=1\n"), "castoff has not said it");
        }
        prop_assert_eq!(stops, usize::from(was_stopping));
    }
}

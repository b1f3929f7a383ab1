//! The whole line of every event.

use super::*;
use crate::log::capture::{lines_of, without_time};
use crate::policy::limits::CgroupKind;
use tracing::level_filters::LevelFilter;

/// The one line of an event: its level, message and the rest.
#[track_caller]
fn assert_line(act: impl FnOnce(), expected: &str) {
    assert_eq!(lines_of(act), [expected]);
}

#[test]
fn castoff_started_says_what_it_is() {
    let start = Start {
        pid: 1,
        is_pid1: true,
        is_subreaper: false,
        grace: Duration::from_secs(30),
        drain: Duration::from_millis(5500),
        listen: &"[::]:9911",
    };
    assert_line(
        || castoff_started(&start),
        concat!(
            r#""level":"INFO","msg":"castoff started","event":"castoff_started","version":""#,
            env!("CARGO_PKG_VERSION"),
            r#"","pid":1,"pid1":true,"subreaper":false,"grace_ms":30000,"drain_ms":5500,"#,
            r#""listen":"[::]:9911"}"#
        ),
    );
}

#[test]
fn limits_detected_names_the_limits_that_exist() {
    let limits = Limits {
        cgroup: CgroupKind::V2,
        cpus: Some(Limit { value: 1.5, source: "/sys/fs/cgroup/cpu.max".into() }),
        memory_bytes: Some(Limit { value: 1 << 30, source: "/sys/fs/cgroup/memory.max".into() }),
        pids: None,
        affinity: None,
    };
    assert_line(
        || limits_detected(&limits),
        concat!(
            r#""level":"INFO","msg":"limits detected","event":"limits_detected","cgroup":"v2","#,
            r#""cpus":1.5,"memory_bytes":1073741824,"cpu_source":"/sys/fs/cgroup/cpu.max","#,
            r#""memory_source":"/sys/fs/cgroup/memory.max"}"#
        ),
    );
    assert_line(
        || limits_detected(&Limits::default()),
        concat!(
            r#""level":"INFO","msg":"no limits detected, nothing to export","#,
            r#""event":"limits_detected","cgroup":"none"}"#
        ),
    );
}

#[test]
fn start_and_phases() {
    assert_line(
        || env_exported("GOMAXPROCS", 2, "cpus 1.5, rounded up"),
        concat!(
            r#""level":"INFO","msg":"variable exported","event":"env_exported","#,
            r#""name":"GOMAXPROCS","value":"2","why":"cpus 1.5, rounded up"}"#
        ),
    );
    assert_line(
        || child_started(7, OsStr::new("serve")),
        concat!(
            r#""level":"INFO","msg":"child started","event":"child_started","#,
            r#""child_pid":7,"command":"serve"}"#
        ),
    );
    assert_line(
        || {
            let (from, to) = (PhaseName::Starting, PhaseName::Serving);
            phase_changed(from, to, "child_ready", Duration::from_micros(2900));
        },
        concat!(
            r#""level":"INFO","msg":"phase changed","event":"phase_changed","#,
            r#""from":"starting","to":"serving","cause":"child_ready","elapsed_ms":2}"#
        ),
    );
}

#[test]
fn signal_received_tells_of_its_sender_what_is_known() {
    let cases = [
        (Sender::Outside { uid: Some(0) }, r#""sender":"outside","sender_uid":0}"#),
        (Sender::Kernel, r#""sender":"kernel"}"#),
        (
            Sender::Process { pid: 12, uid: 1000, command: Some("sh") },
            r#""sender":"process","sender_pid":12,"sender_uid":1000,"sender_command":"sh"}"#,
        ),
        (
            Sender::Process { pid: 12, uid: 0, command: None },
            r#""sender":"process","sender_pid":12,"sender_uid":0}"#,
        ),
    ];
    for (sender, rest) in cases {
        let head = concat!(
            r#""level":"INFO","msg":"signal received","event":"signal_received","#,
            r#""signal":"SIGTERM","#
        );
        assert_line(|| signal_received(Signal::TERM, sender), &format!("{head}{rest}"));
    }
}

#[test]
fn has_signal_received_knows_the_level() {
    let asked = |level| {
        let subscriber = crate::log::subscriber(level, std::io::sink);
        tracing::subscriber::with_default(subscriber, has_signal_received)
    };
    assert!(asked(LevelFilter::INFO));
    assert!(!asked(LevelFilter::WARN));
}

#[test]
fn forwarding_and_reaping() {
    assert_line(
        || signal_forwarded(Signal::INT, -7),
        concat!(
            r#""level":"INFO","msg":"signal forwarded","event":"signal_forwarded","#,
            r#""signal":"SIGINT","target_pid":-7}"#
        ),
    );
    assert_line(
        || orphan_reaped(9, ExitReason::Code(0), false),
        concat!(
            r#""level":"DEBUG","msg":"orphan reaped","event":"orphan_reaped","#,
            r#""pid":9,"exit_code":0}"#
        ),
    );
    assert_line(
        || orphan_reaped(9, ExitReason::Signal(Signal::KILL), true),
        concat!(
            r#""level":"WARN","msg":"orphan reaped","event":"orphan_reaped","#,
            r#""pid":9,"signal":"SIGKILL"}"#
        ),
    );
}

#[test]
fn the_end() {
    assert_line(
        || drain_finished(Duration::from_secs(5), "delay", None),
        concat!(
            r#""level":"INFO","msg":"drain finished","event":"drain_finished","#,
            r#""waited_ms":5000,"reason":"delay"}"#
        ),
    );
    assert_line(
        || drain_finished(Duration::from_secs(5), "max", Some(3)),
        concat!(
            r#""level":"INFO","msg":"drain finished","event":"drain_finished","#,
            r#""waited_ms":5000,"reason":"max","connections":3}"#
        ),
    );
    assert_line(
        || child_exited(7, ExitReason::Code(3), Duration::from_secs(60), "exited"),
        concat!(
            r#""level":"INFO","msg":"child exited","event":"child_exited","#,
            r#""child_pid":7,"exit_code":3,"uptime_ms":60000,"reason":"exited"}"#
        ),
    );
    assert_line(
        || child_exited(7, ExitReason::Signal(Signal::TERM), Duration::ZERO, "stopped"),
        concat!(
            r#""level":"INFO","msg":"child exited","event":"child_exited","#,
            r#""child_pid":7,"signal":"SIGTERM","uptime_ms":0,"reason":"stopped"}"#
        ),
    );
    assert_line(
        || exiting(143, Some(Duration::from_millis(812))),
        concat!(
            r#""level":"INFO","msg":"castoff exits","event":"exiting","#,
            r#""exit_code":143,"stop_ms":812}"#
        ),
    );
    assert_line(
        || exiting(0, None),
        r#""level":"INFO","msg":"castoff exits","event":"exiting","exit_code":0}"#,
    );
}

#[test]
fn what_castoff_coped_with() {
    assert_line(
        || listen_failed("[::]:9911", "Address already in use"),
        concat!(
            r#""level":"WARN","msg":"endpoints not available","event":"listen_failed","#,
            r#""address":"[::]:9911","cause":"Address already in use"}"#
        ),
    );
    assert_line(
        || limits_warning("cannot read cpu.max: garbage"),
        concat!(
            r#""level":"WARN","msg":"limit not detected","event":"limits_warning","#,
            r#""cause":"cannot read cpu.max: garbage"}"#
        ),
    );
    assert_line(
        || subreaper_failed("Invalid argument"),
        concat!(
            r#""level":"WARN","msg":"cannot adopt the orphans of descendants","#,
            r#""event":"subreaper_failed","cause":"Invalid argument"}"#
        ),
    );
    assert_line(
        || proc_unusable("/proc"),
        concat!(
            r#""level":"WARN","msg":"cannot find descendants beyond the child's group","#,
            r#""event":"proc_unusable","path":"/proc"}"#
        ),
    );
    assert_line(
        || parent_death_signal_failed(Signal::TERM, "Invalid argument"),
        concat!(
            r#""level":"WARN","msg":"cannot ask for a signal","#,
            r#""event":"parent_death_signal_failed","signal":"SIGTERM","cause":"Invalid argument"}"#
        ),
    );
    assert_line(
        || signal_forward_failed(Signal::TERM, 7, "No such process"),
        concat!(
            r#""level":"WARN","msg":"signal not forwarded","event":"signal_forward_failed","#,
            r#""signal":"SIGTERM","target_pid":7,"cause":"No such process"}"#
        ),
    );
    let line = log_dropped(12);
    assert_eq!(
        without_time(std::str::from_utf8(line.as_bytes()).unwrap()),
        r#""level":"WARN","msg":"log lines dropped","event":"log_dropped","count":12}"#
    );
}

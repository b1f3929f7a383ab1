//! The whole line of every event.

use serde_json::Value;

use super::*;
use crate::log::capture::{lines_in, lines_of, without_time};
use crate::log::reading::{FORMATS, Read};
use crate::log::style::Style;
use crate::policy::death::Reason;
use crate::policy::env_dir::Refusal;
use crate::policy::last_words::LastWords;
use crate::policy::limits::{CgroupKind, Limit, Limits};
use crate::policy::log_style::{LogFormat, LogStyle};
use crate::policy::program::{Kind, Program};
use crate::policy::resize::{Change, Step};
use crate::system::watch::survey::Limitation;

/// The one line of an event: its level, message and the rest. Every other format
/// says the same.
#[track_caller]
fn assert_line(act: impl Fn(), expected: &str) {
    assert_eq!(lines_of(&act), [expected]);
    let expected = Read::of(LogFormat::Json, &format!("{{\"time\":\"\",{expected}\n"));
    for format in FORMATS {
        let style = LogStyle { format, ..LogStyle::default() };
        let style = Box::leak(Box::new(Style::new(&style, false)));
        let [line] = lines_in(style, &act).try_into().unwrap();
        Read::of(format, &line).assert_says(&expected);
    }
}

#[test]
fn castoff_started_says_what_it_is() {
    let mut start = Start {
        pid: 1,
        is_pid1: true,
        is_subreaper: false,
        grace: Duration::from_secs(30),
        drain: Duration::from_millis(5500),
        drain_max: Duration::from_millis(5500),
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
    start.drain_max = Duration::from_secs(20);
    let [line] = lines_of(|| castoff_started(&start)).try_into().unwrap();
    let tail = r#""drain_ms":5500,"drain_max_ms":20000,"listen":"[::]:9911"}"#;
    assert!(line.ends_with(tail), "{line}");
}

#[test]
fn limits_detected_names_the_limits_that_exist() {
    let limits = Limits {
        cgroup: CgroupKind::V2,
        cpus: Some(Limit { value: 1.5, source: "/sys/fs/cgroup/cpu.max".into() }),
        memory_bytes: Some(Limit { value: 1 << 30, source: "/sys/fs/cgroup/memory.max".into() }),
        pids: Some(Limit { value: 50, source: "/sys/fs/cgroup/pids.max".into() }),
        ..Limits::default()
    };
    assert_line(
        || limits_detected(&limits),
        concat!(
            r#""level":"INFO","msg":"limits detected","event":"limits_detected","cgroup":"v2","#,
            r#""cpus":1.5,"memory_bytes":1073741824,"pids":50,"#,
            r#""cpu_source":"/sys/fs/cgroup/cpu.max","#,
            r#""memory_source":"/sys/fs/cgroup/memory.max","#,
            r#""pids_source":"/sys/fs/cgroup/pids.max"}"#
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
fn watched_files_are_told_by_their_paths_and_what_follows() {
    use crate::policy::reaction::Reaction;
    let paths = ["/etc/app/a.conf", "/etc/app/\"b\".conf"].map(std::path::PathBuf::from);
    for (reaction, action) in [
        (Reaction::Log, "log"),
        (Reaction::Signal(Signal::HUP), "signal"),
        (Reaction::Exec(vec!["/bin/reload".into(), "s3cret".into()]), "exec"),
        (Reaction::Restart, "restart"),
    ] {
        assert_line(
            || config_changed(&paths, &reaction),
            &format!(
                "{}\"{action}\"}}",
                concat!(
                    r#""level":"INFO","msg":"watched files changed","event":"config_changed","#,
                    r#""count":2,"list":["/etc/app/a.conf","/etc/app/\"b\".conf"],"action":"#
                )
            ),
        );
    }
    let crowd = vec![std::path::PathBuf::from("/x".repeat(2000)); 5000];
    let [line] = lines_of(|| config_changed(&crowd, &Reaction::Log)).try_into().unwrap();
    assert!(line.len() < 4096 && line.contains(r#""count":5000"#), "{line}");
}

#[test]
fn what_cannot_be_watched_is_told_with_its_cause() {
    assert_line(
        || watch_lost(Path::new("/etc/app.conf")),
        concat!(
            r#""level":"WARN","msg":"watched file has gone","event":"watch_lost","#,
            r#""path":"/etc/app.conf"}"#
        ),
    );
    assert_line(
        || watch_limited(Path::new("/etc/app.conf"), Limitation::SubPath),
        concat!(
            r#""level":"WARN","msg":"watched path may not be what was meant","event":"watch_limited","#,
            r#""path":"/etc/app.conf","#,
            r#""cause":"mounted by subPath, which Kubernetes never updates"}"#
        ),
    );
    assert_line(
        || watch_failed("Resource temporarily unavailable"),
        concat!(
            r#""level":"WARN","msg":"cannot look at watched files","event":"watch_failed","#,
            r#""cause":"Resource temporarily unavailable"}"#
        ),
    );
}

#[test]
fn directories_of_variables_are_told_without_values() {
    let directory = Path::new("/etc/secrets");
    assert_line(
        || env_dir_read(directory, 3),
        concat!(
            r#""level":"INFO","msg":"variables read","event":"env_dir_read","#,
            r#""directory":"/etc/secrets","count":3}"#
        ),
    );
    let refused = [("tls.crt".into(), Refusal::NoName), ("a\"b".into(), Refusal::Gone)];
    assert_line(
        || env_dir_skipped(directory, &refused),
        concat!(
            r#""level":"WARN","msg":"files are no variables","event":"env_dir_skipped","#,
            r#""directory":"/etc/secrets","count":2,"#,
            r#""list":[{"file":"tls.crt","cause":"not a name of a variable"},"#,
            r#"{"file":"a\"b","cause":"the file has gone"}]}"#
        ),
    );
    assert_line(
        || env_dir_failed("/etc/secrets: no such file"),
        concat!(
            r#""level":"WARN","msg":"variables not read anew","event":"env_dir_failed","#,
            r#""cause":"/etc/secrets: no such file"}"#
        ),
    );
}

#[test]
fn a_pod_that_nobody_has_named_is_a_warning() {
    assert_line(
        || otel_not_completed("POD_NAME is not set"),
        concat!(
            r#""level":"WARN","msg":"OTEL_* variables not completed","#,
            r#""event":"otel_not_completed","cause":"POD_NAME is not set"}"#
        ),
    );
}

#[test]
fn a_child_that_cannot_be_signalled_is_a_warning() {
    assert_line(
        || child_out_of_reach(7, "Operation not permitted"),
        concat!(
            r#""level":"WARN","msg":"child cannot be signalled","event":"child_out_of_reach","#,
            r#""child_pid":7,"cause":"Operation not permitted"}"#
        ),
    );
}

#[test]
fn limits_changed_tells_the_old_and_the_new_value() {
    let source = || "/sys/fs/cgroup/memory.max".to_owned();
    let limits = Limits {
        cpus: Some(Limit { value: 1.5, source: "/sys/fs/cgroup/cpu.max".into() }),
        memory_bytes: Some(Limit { value: 1 << 30, source: source() }),
        ..Limits::default()
    };
    let memory_bytes = Some(Step { from: Some(1 << 29), to: Some(1 << 30) });
    assert_line(
        || limits_changed(&Change { memory_bytes, ..Change::default() }, &limits),
        concat!(
            r#""level":"INFO","msg":"limits changed","event":"limits_changed","#,
            r#""memory_bytes_from":536870912,"memory_bytes_to":1073741824,"#,
            r#""memory_source":"/sys/fs/cgroup/memory.max"}"#
        ),
    );
    // One that is new, and one that is gone.
    let cpus = Some(Step { from: None, to: Some(1.5) });
    let pids = Some(Step { from: Some(50), to: None });
    assert_line(
        || limits_changed(&Change { cpus, pids, ..Change::default() }, &limits),
        concat!(
            r#""level":"INFO","msg":"limits changed","event":"limits_changed","#,
            r#""cpus_to":1.5,"pids_from":50,"cpu_source":"/sys/fs/cgroup/cpu.max"}"#
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
        || env_withheld("GOMAXPROCS", "is set already"),
        concat!(
            r#""level":"INFO","msg":"variable not exported","event":"env_withheld","#,
            r#""name":"GOMAXPROCS","why":"is set already"}"#
        ),
    );
    let program = |kind| Program { kind, file: b"/bin/node".to_vec(), ..Program::default() };
    assert_line(
        || program_recognised(&program(Kind::Node)),
        concat!(
            r#""level":"INFO","msg":"program recognised","event":"program_recognised","#,
            r#""program":"node","file":"/bin/node"}"#
        ),
    );
    assert!(lines_of(|| program_recognised(&program(Kind::Other))).is_empty());
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
        (Sender::Outside { uid: 0 }, r#""sender":"outside","sender_uid":0}"#),
        (Sender::Kernel, r#""sender":"kernel"}"#),
        (
            Sender::Process { pid: 12, uid: 1000, command: Some("sh".to_owned()) },
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
        assert_line(|| signal_received(Signal::TERM, &sender), &format!("{head}{rest}"));
    }
}

#[test]
fn has_signal_received_knows_the_level() {
    let asked = |level| {
        let subscriber = crate::log::subscriber(level, style::current(), std::io::sink);
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
    let orphan = |level, exit| {
        let line = reaped(level, 9, exit);
        without_time(std::str::from_utf8(line.as_bytes()).unwrap())
    };
    assert_eq!(
        orphan(Level::DEBUG, ExitReason::Code(0)),
        concat!(
            r#""level":"DEBUG","msg":"orphan reaped","event":"orphan_reaped","#,
            r#""pid":9,"exit_code":0}"#
        ),
    );
    assert_eq!(
        orphan(Level::WARN, ExitReason::Signal(Signal::KILL)),
        concat!(
            r#""level":"WARN","msg":"orphan reaped","event":"orphan_reaped","#,
            r#""pid":9,"signal":"SIGKILL"}"#
        ),
    );
}

#[test]
fn restarts() {
    assert_line(
        || restart_scheduled(Duration::from_millis(512), 1, Some(5)),
        concat!(
            r#""level":"INFO","msg":"child will be restarted","event":"restart_scheduled","#,
            r#""delay_ms":512,"restarts":1,"limit":5}"#
        ),
    );
    assert_line(
        || restart_scheduled(Duration::from_secs(30), 12, None),
        concat!(
            r#""level":"INFO","msg":"child will be restarted","event":"restart_scheduled","#,
            r#""delay_ms":30000,"restarts":12}"#
        ),
    );
    assert_line(
        || start_failed(OsStr::new("serve"), "No such file or directory"),
        concat!(
            r#""level":"WARN","msg":"child not started","event":"start_failed","#,
            r#""command":"serve","cause":"No such file or directory"}"#
        ),
    );
}

#[test]
fn a_hook_from_its_start_to_its_end() {
    assert_line(
        || hook_started("pre_start", 7, OsStr::new("/migrate")),
        concat!(
            r#""level":"INFO","msg":"hook started","event":"hook_started","#,
            r#""hook":"pre_start","hook_pid":7,"command":"/migrate"}"#
        ),
    );
    assert_line(
        || hook_output("pre_start", "\u{1b}[1mdone\0\u{fffd}"),
        concat!(
            r#""level":"INFO","msg":"hook output","event":"hook_output","#,
            r#""hook":"pre_start","line":"\u001b[1mdone\u0000�"}"#
        ),
    );
    assert_line(
        || hook_finished("pre_start", 7, ExitReason::Code(0), Duration::from_millis(40), false),
        concat!(
            r#""level":"INFO","msg":"hook finished","event":"hook_finished","#,
            r#""hook":"pre_start","hook_pid":7,"exit_code":0,"elapsed_ms":40}"#
        ),
    );
}

#[test]
fn a_hook_that_fails_is_a_warning() {
    let finished = |exit, is_timed_out| {
        move || hook_finished("pre_stop", 7, exit, Duration::from_secs(30), is_timed_out)
    };
    let head = concat!(
        r#""level":"WARN","msg":"hook finished","event":"hook_finished","#,
        r#""hook":"pre_stop","hook_pid":7,"#
    );
    let cases = [
        (ExitReason::Code(1), false, r#""exit_code":1,"elapsed_ms":30000}"#),
        (ExitReason::Signal(Signal::INT), false, r#""signal":"SIGINT","elapsed_ms":30000}"#),
        (
            ExitReason::Signal(Signal::KILL),
            true,
            r#""signal":"SIGKILL","elapsed_ms":30000,"timed_out":true}"#,
        ),
        (ExitReason::Code(0), true, r#""exit_code":0,"elapsed_ms":30000,"timed_out":true}"#),
    ];
    for (exit, is_timed_out, rest) in cases {
        assert_line(finished(exit, is_timed_out), &format!("{head}{rest}"));
    }
    assert_line(
        || hook_failed("post_stop", OsStr::new("/bye"), "No such file or directory"),
        concat!(
            r#""level":"WARN","msg":"hook not started","event":"hook_failed","#,
            r#""hook":"post_stop","command":"/bye","cause":"No such file or directory"}"#
        ),
    );
}

#[test]
fn nothing_of_the_longest_line_of_a_hook_is_cut() {
    // The longest that system::output gives: half of 1,024 bytes as `\u0000`.
    for line in ["\0".repeat(512), "\u{fffd}".repeat(1024)] {
        let [logged] = lines_of(|| hook_output("post_stop", &line)).try_into().unwrap();
        let fields: Value = serde_json::from_str(&format!("{{{logged}")).unwrap();
        assert_eq!(fields["line"], line);
    }
}

#[test]
fn traffic_around_a_stop() {
    assert_line(
        || traffic_unknown("/proc/net/tcp: Permission denied"),
        concat!(
            r#""level":"WARN","msg":"traffic cannot be seen","event":"traffic_unknown","#,
            r#""cause":"/proc/net/tcp: Permission denied"}"#
        ),
    );
    assert_line(
        || late_connections(3, Duration::from_millis(7100)),
        concat!(
            r#""level":"WARN","msg":"connections arrived after the stop signal","#,
            r#""event":"late_connections","count":3,"last_after_ms":7100}"#
        ),
    );
}

#[test]
fn output_that_nobody_reads_is_told() {
    assert_line(
        || child_output_lost(Stream::Stdout, 4711),
        concat!(
            r#""level":"WARN","msg":"output of the child is lost","#,
            r#""event":"child_output_lost","stream":"stdout","bytes":4711}"#
        ),
    );
}

#[test]
fn the_hang_signal_is_told() {
    let quit = Signal::new(3).unwrap();
    assert_line(
        || hang_signal_sent(quit),
        concat!(
            r#""level":"WARN","msg":"hang signal sent","#,
            r#""event":"hang_signal_sent","signal":"SIGQUIT"}"#
        ),
    );
}

#[test]
fn survivors_are_listed() {
    let listed = [
        Survivor { pid: 12, command: "sh", state: 'S' },
        Survivor { pid: 13, command: "a \"b\"\n", state: 'D' },
    ];
    let head = concat!(
        r#""level":"WARN","msg":"processes are left to be killed","event":"survivors","#,
        r#""count":"#
    );
    let list = concat!(
        r#"[{"pid":12,"command":"sh","state":"S"},"#,
        r#"{"pid":13,"command":"a \"b\"\n","state":"D"}]"#
    );
    assert_line(|| survivors(5, &listed), &format!(r#"{head}5,"list":{list}}}"#));
    assert_line(|| survivors(1, &[]), &format!(r#"{head}1,"list":[]}}"#));
}

#[test]
fn a_list_that_is_too_long_for_a_line_ends_early() {
    let commands =
        ["nginx", "\u{1}\u{2}\u{3}\u{4}\u{5}\u{6}\u{7}\u{8}\u{1}\u{2}\u{3}\u{4}\u{5}\u{6}\u{7}"];
    for command in commands {
        let listed = [Survivor { pid: i32::MAX, command, state: 'S' }; 10_000];
        let [line] = lines_of(|| survivors(listed.len(), &listed)).try_into().unwrap();
        let fields: Value = serde_json::from_str(&format!("{{{line}")).unwrap();
        let list = fields["list"].as_array().unwrap();
        assert!((20..100).contains(&list.len()), "{}", list.len());
        assert!(list.iter().all(|entry| entry["command"] == command && entry["state"] == "S"));
        assert_eq!(fields["count"], 10_000);
    }
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
    let death = |exit, reason, origin| Death { exit, reason, origin, is_core_dumped: false };
    let exited = death(ExitReason::Code(3), Reason::Exited, None);
    assert_line(
        || child_exited(7, &exited, Duration::from_secs(60), &[]),
        concat!(
            r#""level":"INFO","msg":"child exited","event":"child_exited","#,
            r#""child_pid":7,"exit_code":3,"uptime_ms":60000,"reason":"exited"}"#
        ),
    );
    let by_term = ExitReason::Signal(Signal::TERM);
    let kill = Sender::Process { pid: 12, uid: 0, command: Some("kill".to_owned()) };
    for (death, rest) in [
        (death(by_term, Reason::OomKilled, None), r#""reason":"oom_killed"}"#),
        (
            death(by_term, Reason::Stopped, Some(Origin::Castoff)),
            r#""reason":"stopped","origin":"castoff"}"#,
        ),
        (
            death(by_term, Reason::Signalled, Some(Origin::Forwarded(kill))),
            concat!(
                r#""reason":"signalled","origin":"forwarded","sender":"process","#,
                r#""sender_pid":12,"sender_uid":0,"sender_command":"kill"}"#
            ),
        ),
        (
            Death {
                is_core_dumped: true,
                ..death(by_term, Reason::Signalled, Some(Origin::Fault))
            },
            r#""reason":"signalled","origin":"fault","core_dumped":true}"#,
        ),
    ] {
        let head = concat!(
            r#""level":"INFO","msg":"child exited","event":"child_exited","#,
            r#""child_pid":7,"signal":"SIGTERM","uptime_ms":0,"#
        );
        assert_line(|| child_exited(7, &death, Duration::ZERO, &[]), &format!("{head}{rest}"));
    }
    assert_line(
        || oom_kill(2, "descendant"),
        concat!(
            r#""level":"WARN","msg":"OOM killer has killed","event":"oom_kill","#,
            r#""count":2,"victim":"descendant"}"#
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
fn child_exited_tells_what_the_child_has_said_last() {
    let death = Death {
        exit: ExitReason::Code(2),
        reason: Reason::Exited,
        origin: None,
        is_core_dumped: false,
    };
    let words = ["panic: \"no\"".to_owned(), "    é".to_owned()];
    assert_line(
        || child_exited(7, &death, Duration::ZERO, &words),
        concat!(
            r#""level":"INFO","msg":"child exited","event":"child_exited","#,
            r#""child_pid":7,"exit_code":2,"uptime_ms":0,"reason":"exited","#,
            r#""last_words":["panic: \"no\"","    é"]}"#
        ),
    );
    // All that it is given fits, also when every character has to be escaped.
    let mut said = LastWords::default();
    said.saw("\\\"".repeat(2000).as_bytes());
    let sender = Sender::Process { pid: i32::MIN, uid: u32::MAX, command: Some("c".repeat(64)) };
    let death = Death { origin: Some(Origin::Forwarded(sender)), ..death };
    let words = said.lines();
    let [line] =
        lines_of(|| child_exited(i32::MIN, &death, Duration::MAX, &words)).try_into().unwrap();
    assert!(line.len() < 3000, "{}", line.len());
    let page: Value = serde_json::from_str(&format!("{{{line}")).unwrap();
    assert_eq!(page["last_words"][0], words[0].as_str());
}

#[test]
fn what_castoff_coped_with() {
    assert_line(
        || termination_log_failed(Path::new("/message"), "not a regular file"),
        concat!(
            r#""level":"WARN","msg":"termination message not written","#,
            r#""event":"termination_log_failed","path":"/message","cause":"not a regular file"}"#
        ),
    );
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
            r#""level":"WARN","msg":"processes cannot be seen","#,
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

#[test]
fn a_check_that_changes_tells_its_true_reason() {
    assert_line(
        || check_changed("database", "ready", "tcp://db:1", Verdict::Fails, Some("refused")),
        concat!(
            r#""level":"WARN","msg":"check fails","event":"check_changed","#,
            r#""check":"database","level_of":"ready","target":"tcp://db:1","ok":false,"#,
            r#""reason":"refused"}"#
        ),
    );
    assert_line(
        || check_changed("turns", "live", "listen:80", Verdict::Passes, None),
        concat!(
            r#""level":"INFO","msg":"check passes","event":"check_changed","#,
            r#""check":"turns","level_of":"live","target":"listen:80","ok":true}"#
        ),
    );
    assert_line(
        || check_changed("turns", "ready", "listen:80", Verdict::HasNotPassed, Some("refused")),
        concat!(
            r#""level":"INFO","msg":"check does not pass yet","event":"check_changed","#,
            r#""check":"turns","level_of":"ready","target":"listen:80","ok":false,"reason":"refused"}"#
        ),
    );
}

#[test]
fn a_start_that_waits_says_for_what() {
    let pending = [
        Pending {
            check: "wait-for-1",
            target: "unix:///x".to_owned(),
            reason: Some("no such host: \"db\""),
        },
        Pending { check: "wait-for-2", target: "fd:3".to_owned(), reason: None },
    ];
    assert_line(
        || waiting_for(&pending, Duration::from_secs(5), Duration::from_secs(60)),
        concat!(
            r#""level":"INFO","msg":"start waits for checks","event":"waiting_for","count":2,"#,
            r#""list":[{"check":"wait-for-1","target":"unix:///x","reason":"no such host: \"db\""},"#,
            r#"{"check":"wait-for-2","target":"fd:3","reason":null}],"elapsed_ms":5000,"timeout_ms":60000}"#
        ),
    );
    assert_line(
        || wait_finished(Duration::from_millis(7250)),
        concat!(
            r#""level":"INFO","msg":"start waits no longer","event":"wait_finished","#,
            r#""elapsed_ms":7250}"#
        ),
    );
}

#[test]
fn many_checks_with_long_reasons_fit_into_a_line() {
    let reason = "\u{1}".repeat(5000);
    let pending =
        vec![Pending { check: "wait-for-1", target: String::new(), reason: Some(&reason) }; 100];
    let [line] = lines_of(|| waiting_for(&pending, Duration::ZERO, Duration::from_secs(60)))
        .try_into()
        .unwrap();
    let line: Value = serde_json::from_str(&format!("{{{line}")).expect("JSON");
    assert_eq!(line["count"], 100);
    assert!(line["list"].as_array().is_some_and(|list| list.len() > 1), "{line}");
}

//! Every error of `load`, word for word.

use super::*;
use std::os::unix::ffi::OsStringExt as _;

const DURATION: &str = "expected a duration such as 5s, 500ms or 1m30s, at most 720h";
const POSITIVE: &str = "expected a duration above 0 such as 5s, 500ms or 1m30s, at most 720h";
const COMMAND: &str = "expected a command such as /bin/notify --name 'my app', each quote closed";
const REWRITE: &str = "expected pairs of signals such as SIGUSR1:SIGHUP, 10:1 or USR1:0, but none \
                       from SIGKILL or SIGSTOP";

#[test]
fn every_error_of_the_command_line_has_its_text() {
    for (args, expected) in [
        (
            &[][..],
            "cannot start: COMMAND is missing\nhint: castoff [OPTIONS] [--] COMMAND [ARG...]",
        ),
        (
            &["check", "--manifest", "x"],
            "cannot run the sub-command check: castoff 0.1.0 has none\n\
             hint: castoff -- check runs a program of that name",
        ),
        (
            &["--drian-delay", "serve"],
            "cannot use --drian-delay: no such flag, the nearest is --drain-delay",
        ),
        (
            &["--printconfig=1", "serve"],
            "cannot use --printconfig: no such flag, the nearest is --print-config",
        ),
        (&["--colour", "serve"], "cannot use --colour: no such flag, see castoff --help"),
        (&["-xyz", "serve"], "cannot use -x: no such flag, see castoff --help"),
        (&["-g=1", "serve"], "cannot use -g=\"1\": -g takes no value"),
        (
            &["--print-config=yes", "serve"],
            "cannot use --print-config=\"yes\": --print-config takes no value",
        ),
        (&["-e", "256", "serve"], "cannot use -e \"256\": expected an exit code from 0 to 255"),
        (
            &["-p", "KILLED", "serve"],
            "cannot use -p \"KILLED\": expected a signal such as SIGTERM, TERM or 15",
        ),
        (
            &["--log-level=loud", "serve"],
            "cannot use --log-level=\"loud\": expected off, error, warn, info, debug or trace",
        ),
        (
            &["--drain-delay=9s", "--kill-reserve", "1", "serve"],
            "cannot fit the stop into CASTOFF_GRACE_PERIOD=10s (default): --drain-delay=9s + \
             --kill-reserve=1s = 10s leave the child no time\n\
             hint: give more grace, on the platform too, or make the drain delay shorter",
        ),
    ] {
        assert_eq!(errors(args, &[]), format!("castoff: {expected}"), "{args:?}");
    }
    assert_eq!(
        errors(&["--log-level"], &[]),
        "castoff: cannot use --log-level: a value is missing, expected off, error, warn, info, \
         debug or trace\n\
         castoff: cannot start: COMMAND is missing\n\
         hint: castoff [OPTIONS] [--] COMMAND [ARG...]"
    );
}

#[test]
fn every_error_of_a_variable_has_its_text() {
    let file = TempFile::new("5x\nmore\n");
    let path = file.path();
    let long = "x".repeat(100);
    let shown = format!("\"{}...", "x".repeat(79));
    for (env, expected) in [
        (
            &[("CASTOFF_DRAIN_DELAY", "5x")][..],
            format!("cannot use CASTOFF_DRAIN_DELAY=\"5x\": {DURATION}"),
        ),
        (
            &[("CASTOFF_DRAIN_DELAY", &*long)],
            format!("cannot use CASTOFF_DRAIN_DELAY={shown}: {DURATION}"),
        ),
        (
            &[("CASTOFF_DRAIN_DELAY_FILE", path)],
            format!(
                "cannot use CASTOFF_DRAIN_DELAY=\"5x\\nmore\" (CASTOFF_DRAIN_DELAY_FILE={path}): \
                 {DURATION}"
            ),
        ),
        (
            &[("CASTOFF_DRAIN_DELAY", "5s"), ("CASTOFF_DRAIN_DELAY_FILE", path)],
            "cannot use CASTOFF_DRAIN_DELAY and CASTOFF_DRAIN_DELAY_FILE: only one of them may \
             be set"
                .to_owned(),
        ),
        (
            &[("CASTOFF_SIZING_FILE", "/nonexistent")],
            "cannot read CASTOFF_SIZING_FILE=\"/nonexistent\": No such file or directory (os \
             error 2)"
                .to_owned(),
        ),
        (
            &[("CASTOFF_SIZING_FILE", "/dev/zero")],
            "cannot read CASTOFF_SIZING_FILE=\"/dev/zero\": more than 65536 bytes".to_owned(),
        ),
        (
            &[("CASTOFF_CONFIG", "/nonexistent")],
            "cannot read CASTOFF_CONFIG=\"/nonexistent\": No such file or directory (os error 2)"
                .to_owned(),
        ),
        (
            &[("CASTOFF_DRIAN_DELAY", "secret")],
            "cannot use CASTOFF_DRIAN_DELAY: no such setting, the nearest is CASTOFF_DRAIN_DELAY"
                .to_owned(),
        ),
        (
            &[("CASTOFF_SIZE_FILE", path)],
            "cannot use CASTOFF_SIZE_FILE: no such setting, the nearest is CASTOFF_SIZING_FILE"
                .to_owned(),
        ),
        (
            &[("CASTOFF_UNHEARD_OF", "1")],
            "cannot use CASTOFF_UNHEARD_OF: no such setting, see castoff --help".to_owned(),
        ),
        (
            &[("TERMINATION_GRACE_PERIOD_SECONDS", "soon")],
            format!("cannot use TERMINATION_GRACE_PERIOD_SECONDS=\"soon\": {DURATION}"),
        ),
        (
            &[("KUBERNETES_SERVICE_HOST", "h"), ("CASTOFF_GRACE_PERIOD", "5s")],
            "cannot fit the stop into CASTOFF_GRACE_PERIOD=5s: CASTOFF_DRAIN_DELAY=5s (default \
             in Kubernetes) + CASTOFF_KILL_RESERVE=500ms (default) = 5s500ms leave the child no \
             time\nhint: give more grace, on the platform too, or make the drain delay shorter"
                .to_owned(),
        ),
    ] {
        assert_eq!(errors(&["serve"], env), format!("castoff: {expected}"), "{env:?}");
    }
}

#[test]
fn what_no_stop_or_restart_can_use_is_refused_with_what_can() {
    let signal = "expected a signal such as SIGQUIT, QUIT, 3 or SIGRTMIN+3, but not SIGKILL or \
                  SIGSTOP";
    let ports = "expected auto or a list of ports from 1 to 65535 such as 8080,8443";
    let code = "expected an exit code from 0 to 255";
    let number = "expected a number of restarts from 0 to 4294967295";
    for (name, value, expected) in [
        ("CASTOFF_DRAIN_MAX", "long", DURATION),
        ("CASTOFF_DRAIN_QUIET", "0", POSITIVE),
        ("CASTOFF_DRAIN_PORTS", "0", ports),
        ("CASTOFF_DRAIN_PORTS", "http", ports),
        ("CASTOFF_STOP_SCOPE", "tree", "expected child or group"),
        ("CASTOFF_HANG_SIGNAL", "SIGKILL", signal),
        ("CASTOFF_HANG_SIGNAL", "none", signal),
        ("CASTOFF_REWRITE", "KILL:TERM", REWRITE),
        ("CASTOFF_REWRITE", "15", REWRITE),
        ("CASTOFF_STOPPED_EXIT_CODE", "256", code),
        ("CASTOFF_PRE_START", "echo 'it", COMMAND),
        ("CASTOFF_PRE_STOP", "  ", COMMAND),
        ("CASTOFF_POST_STOP", "'' x", COMMAND),
        ("CASTOFF_HOOK_TIMEOUT", "0ms", POSITIVE),
        ("CASTOFF_RESTART", "sometimes", "expected never, on-failure or always"),
        ("CASTOFF_RESTART_MIN", "0", POSITIVE),
        ("CASTOFF_RESTART_MAX", "0s", POSITIVE),
        ("CASTOFF_RESTART_LIMIT", "-1", number),
    ] {
        let expected = format!("castoff: cannot use {name}={value:?}: {expected}");
        assert_eq!(errors(&["serve"], &[(name, value)]), expected);
    }
    let nul = TempFile::new("/bin/a \0");
    assert_eq!(
        errors(&["serve"], &[("CASTOFF_PRE_STOP_FILE", nul.path())]),
        format!(
            "castoff: cannot use CASTOFF_PRE_STOP=\"/bin/a \\0\" (CASTOFF_PRE_STOP_FILE={}): \
             {COMMAND}",
            nul.path()
        )
    );
}

#[test]
fn settings_that_contradict_each_other_are_named_together() {
    let kubernetes = ("KUBERNETES_SERVICE_HOST", "h");
    let file = TempFile::new("drain_max = 2\nrestart_min = '2m'\n");
    let path = file.path();
    for (args, env, expected) in [
        (
            &["--drain-delay=3s"][..],
            &[("CASTOFF_DRAIN_MAX", "2000ms")][..],
            "cannot use CASTOFF_DRAIN_MAX=2s with --drain-delay=3s: expected a maximum of 3s or \
             more"
                .to_owned(),
        ),
        (
            &["--config", path, "--restart-max=1m"],
            &[kubernetes],
            format!(
                "cannot use drain_max = 2s ({path}:1) with CASTOFF_DRAIN_DELAY=5s (default in \
                 Kubernetes): expected a maximum of 5s or more\n\
                 castoff: cannot use --restart-max=1m with restart_min = 2m ({path}:2): expected \
                 a maximum of 2m or more"
            ),
        ),
        (
            &[],
            &[("CASTOFF_RESTART_MIN", "1m")],
            "cannot use CASTOFF_RESTART_MAX=30s (default) with CASTOFF_RESTART_MIN=1m: expected a \
             maximum of 1m or more"
                .to_owned(),
        ),
        (
            &[],
            &[("CASTOFF_DRAIN_MAX", "9s"), ("CASTOFF_DRAIN_DELAY", "3s")],
            "cannot fit the stop into CASTOFF_GRACE_PERIOD=10s (default): CASTOFF_DRAIN_MAX=9s + \
             CASTOFF_KILL_RESERVE=1s (default) = 10s leave the child no time\n\
             hint: give more grace, on the platform too, or make the longest drain shorter"
                .to_owned(),
        ),
        (
            &["--drain-max=720h"],
            &[kubernetes],
            "cannot fit the stop into CASTOFF_GRACE_PERIOD=30s (default in Kubernetes): \
             --drain-max=720h + CASTOFF_KILL_RESERVE=2s (default) = 720h2s leave the child no \
             time\n\
             hint: give more grace, on the platform too, or make the longest drain shorter"
                .to_owned(),
        ),
        // Nothing is said about a value that was refused.
        (
            &[],
            &[("CASTOFF_RESTART_MIN", "1m"), ("CASTOFF_RESTART_MAX", "x")],
            format!("cannot use CASTOFF_RESTART_MAX=\"x\": {POSITIVE}"),
        ),
        (
            &[],
            &[("CASTOFF_DRAIN_DELAY", "9s"), ("CASTOFF_DRAIN_MAX", "x")],
            format!("cannot use CASTOFF_DRAIN_MAX=\"x\": {DURATION}"),
        ),
    ] {
        let args: Vec<_> = args.iter().copied().chain(["serve"]).collect();
        assert_eq!(errors(&args, env), format!("castoff: {expected}"), "{args:?} {env:?}");
    }
}

#[test]
fn every_error_of_the_file_has_its_text() {
    for (content, expected) in [
        ("\ndrain_delay = 5.5 # why", format!("cannot use drain_delay = 5.5 (PATH:2): {DURATION}")),
        ("drain_delay = '5x'", format!("cannot use drain_delay = '5x' (PATH:1): {DURATION}")),
        ("drain_delay = -5", format!("cannot use drain_delay = -5 (PATH:1): {DURATION}")),
        ("drain_delay = ['5s']", format!("cannot use drain_delay = ['5s'] (PATH:1): {DURATION}")),
        (
            "sizing = false",
            "cannot use sizing = false (PATH:1): expected default, off or a list of default, go, openmp, python, java, node, web, julia and malloc"
                .to_owned(),
        ),
        ("pre_stop = ['a', 5]", format!("cannot use pre_stop = ['a', 5] (PATH:1): {COMMAND}")),
        (
            "pre_stop = [\"a\\u0000\"]",
            format!("cannot use pre_stop = [\"a\\u0000\"] (PATH:1): {COMMAND}"),
        ),
        ("post_stop = ['', 'a']", format!("cannot use post_stop = ['', 'a'] (PATH:1): {COMMAND}")),
        ("pre_start = 'a \"b'", format!("cannot use pre_start = 'a \"b' (PATH:1): {COMMAND}")),
        ("rewrite = [15]", format!("cannot use rewrite = [15] (PATH:1): {REWRITE}")),
        (
            "stopped_exit_code = 0.0",
            "cannot use stopped_exit_code = 0.0 (PATH:1): expected an exit code from 0 to 255"
                .to_owned(),
        ),
        ("proc_root = 5", "cannot use proc_root = 5 (PATH:1): expected a path".to_owned()),
        (
            "[proc_root]\na = 1",
            "cannot use proc_root = [proc_root] (PATH:1): expected a path".to_owned(),
        ),
        (
            "\n\ndrain-delay = 5",
            "cannot use drain-delay (PATH:3): no such key, the nearest is drain_delay".to_owned(),
        ),
        ("config = 'x'", "cannot use config (PATH:1): no such key, see castoff --help".to_owned()),
        ("chekc = 1", "cannot use chekc (PATH:1): no such key, the nearest is check".to_owned()),
        ("sizing = 'go'\nsizing = 'go'", "cannot read PATH:2: duplicate key".to_owned()),
        (
            "log_level = warn",
            "cannot read PATH:1: string values must be quoted, expected literal string".to_owned(),
        ),
        (
            "drain_delay = 6\nkill_reserve = '4s'",
            "cannot fit the stop into CASTOFF_GRACE_PERIOD=10s (default): drain_delay = 6s \
             (PATH:1) + kill_reserve = 4s (PATH:2) = 10s leave the child no time\n\
             hint: give more grace, on the platform too, or make the drain delay shorter"
                .to_owned(),
        ),
    ] {
        let file = TempFile::new(content);
        let expected = format!("castoff: {}", expected.replace("PATH", file.path()));
        assert_eq!(errors(&["--config", file.path(), "serve"], &[]), expected, "{content}");
    }
    let file = TempFile::new([0xff]);
    assert_eq!(
        errors(&["--config", file.path(), "serve"], &[]),
        format!("castoff: cannot read --config={:?}: the file is not UTF-8", file.path())
    );
}

#[test]
fn all_errors_are_told_together() {
    let file = TempFile::new("log_levle = 'warn'\nmemory_ratio = 2\n");
    let path = file.path();
    let env = [
        ("CASTOFF_CONFIG", path),
        ("CASTOFF_NONSENSE", "1"),
        ("CASTOFF_GRACE_PERIOD", "1M"),
        ("CASTOFF_LOG_LEVEL", "loud"),
    ];
    let expected = format!(
        "castoff: cannot use --nonsense: no such flag, see castoff --help\n\
         castoff: cannot use CASTOFF_NONSENSE: no such setting, see castoff --help\n\
         castoff: cannot use log_levle ({path}:1): no such key, the nearest is log_level\n\
         castoff: cannot use memory_ratio = 2 ({path}:2): expected a number above 0 and up to 1, \
         such as 0.9\n\
         castoff: cannot use CASTOFF_GRACE_PERIOD=\"1M\": {DURATION}\n\
         castoff: cannot use CASTOFF_LOG_LEVEL=\"loud\": expected off, error, warn, info, debug \
         or trace\n\
         castoff: cannot use --sizing=\"perl\": expected default, off or a list of default, go, \
         openmp, python, java, node, web, julia and malloc\n\
         castoff: cannot start: COMMAND is missing\n\
         hint: castoff [OPTIONS] [--] COMMAND [ARG...]"
    );
    assert_eq!(errors(&["--nonsense", "--sizing=perl", "--log-level", "warn"], &env), expected);
}

#[test]
fn bytes_that_are_no_text_are_a_path_or_an_error() {
    let odd = OsString::from_vec(vec![b'/', 0xff]);
    let args = || ["serve"].map(OsString::from);
    let env = [("CASTOFF_PROC_ROOT".into(), odd.clone())];
    let Ok(Invocation::Supervise(config)) = load(args(), &env) else { panic!("refused") };
    assert_eq!(config.proc_root.as_os_str(), odd);
    let env = [("CASTOFF_SIZING".into(), odd)];
    assert_eq!(
        load(args(), &env).unwrap_err().to_string(),
        "castoff: cannot use CASTOFF_SIZING=\"/\\xFF\": expected default, off or a list of default, go, \
         openmp, python, java, node, web, julia and malloc"
    );
}

#[test]
fn every_error_of_a_check_has_its_text() {
    const TARGET: &str = "expected a check such as tcp://host:80, http://host:80/path, \
                          unix:///path, exec:COMMAND, file:///path?max_age=30s, listen:8080, \
                          grpc://host:80/service, notify or fd:3";
    const NAME: &str = "expected a name of a to z, 0 to 9 and -, at most 63 long";
    const HEADERS: &str =
        "expected a table of headers for an http:// target, such as { Host = \"app\" }";
    let table = |keys: &str| format!("[[check]]\nname = 'a'\nlevel = 'ready'\n{keys}");
    let twice = "[[check]]\nname = 'a'\nlevel = 'ready'\ntarget = 'fd:4'\n";
    for (content, expected) in [
        (
            "check = 5".to_owned(),
            "cannot use check (PATH:1): expected tables that begin with [[check]]".to_owned(),
        ),
        ("check = [1]".to_owned(), "cannot use check (PATH:1): expected a table".to_owned()),
        (
            "\n[[check]]\nname = 'x'\ntarget = 'notify'".to_owned(),
            "cannot use [[check]] (PATH:2): level is missing, expected live, ready or startup"
                .to_owned(),
        ),
        (table("target = 'db:5432'"), format!("cannot use target = 'db:5432' (PATH:4): {TARGET}")),
        (
            table("target = 'notify'\nperoid = 1"),
            "cannot use peroid in [[check]] (PATH:5): no such key, the nearest is period"
                .to_owned(),
        ),
        (
            table("target = 'notify'\nperiod = 0"),
            format!("cannot use period = 0 (PATH:5): {POSITIVE}"),
        ),
        (
            table("target = 'notify'\nfailures = 0"),
            "cannot use failures = 0 (PATH:5): expected a number from 1 to 1000".to_owned(),
        ),
        (
            table("target = 'notify'\nheaders = { a = 'b' }"),
            format!("cannot use headers (PATH:5): {HEADERS}"),
        ),
        (
            table("target = 'http://a'\nheaders = { 'a b' = 'b' }"),
            format!("cannot use headers (PATH:5): {HEADERS}"),
        ),
        (
            "[[check]]\nname = 'DB'\nlevel = 'live'\ntarget = 'fd:3'".to_owned(),
            format!(
                "cannot use name = 'DB' (PATH:2): {NAME}\n\
                 castoff: cannot use level = 'live' (PATH:3): expected ready or startup for notify and fd:"
            ),
        ),
        (
            format!("{twice}{twice}"),
            "cannot use name = \"a\" (PATH:5): another check has that name\n\
             castoff: cannot use fd:4 for the check a: a has a descriptor already"
                .to_owned(),
        ),
        (
            twice.replace("'a'", "'depends-on-1'"),
            "cannot use name = \"depends-on-1\" (PATH:1): a check of castoff's own has that name"
                .to_owned(),
        ),
    ] {
        let file = TempFile::new(&content);
        let expected = format!("castoff: {}", expected.replace("PATH", file.path()));
        assert_eq!(errors(&["--config", file.path(), "serve"], &[]), expected, "{content}");
    }
    let long = "tcp://a-rather-long-name-of-a-database.and-its-namespace:5432,htp://x";
    assert_eq!(
        errors(&["serve"], &[("CASTOFF_WAIT_FOR", &format!("tcp://c:1,{long},tcp://b:1"))]),
        "castoff: cannot use CASTOFF_WAIT_FOR=...tcp://a-rather-long-name-of-a-database.\
         and-its-namespace:5432,htp://x...: expected checks such as tcp://host:80, \
         http://host:80/path, unix:///path, exec:COMMAND, file:///path or grpc://host:80/service"
    );
    for (name, value, expected) in [
        ("CASTOFF_READY_CHECK", "db:1", TARGET),
        (
            "CASTOFF_LIVE_CHECK",
            "notify",
            &TARGET.replace("listen:8080, ", "listen:8080 or ").replace(", notify or fd:3", ""),
        ),
        (
            "CASTOFF_DEPENDS_ON",
            "tcp://a:1,listen:5",
            "expected checks such as tcp://host:80, http://host:80/path, unix:///path, \
             exec:COMMAND, file:///path or grpc://host:80/service",
        ),
        ("CASTOFF_CHECK_FAILURES", "0", "expected a number from 1 to 1000"),
        ("CASTOFF_NOTIFY", "maybe", "expected on or off"),
        (
            "CASTOFF_WATCHDOG",
            "0",
            "expected off or a duration above 0 such as 30s or 1m30s, at most 720h",
        ),
    ] {
        assert_eq!(
            errors(&["serve"], &[(name, value)]),
            format!("castoff: cannot use {name}={value:?}: {expected}")
        );
    }
}

//! `load` as a whole: precedence, files, tini's flags, what is printed.

mod errors;

use super::*;
use crate::policy::restart::Restart;
use crate::policy::stop_plan::DrainPlan;
use proptest::collection::vec;
use proptest::prelude::*;
use std::os::unix::ffi::OsStringExt as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A file with that content, which goes with the value.
struct TempFile(PathBuf);

impl TempFile {
    fn new(content: impl AsRef<[u8]>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("castoff-config-{}-{nth}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, content).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn run(args: &[&str], env: &[(&str, &str)]) -> Result<Invocation, ConfigErrors> {
    let env: Vec<_> = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    load(args.iter().map(OsString::from), &env)
}

fn config(args: &[&str], env: &[(&str, &str)]) -> Config {
    let args: Vec<_> = args.iter().copied().chain(["--", "serve"]).collect();
    match run(&args, env) {
        Ok(Invocation::Supervise(config)) => *config,
        other => panic!("{other:?}"),
    }
}

fn errors(args: &[&str], env: &[(&str, &str)]) -> String {
    run(args, env).unwrap_err().to_string()
}

fn printed(args: &[&str], env: &[(&str, &str)]) -> String {
    match run(args, env) {
        Ok(Invocation::Print(text)) => text,
        other => panic!("{other:?}"),
    }
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn without_anything_the_defaults_hold() {
    assert_eq!(
        config(&[], &[]),
        Config {
            stop_plan: StopPlan::new(s(10), DrainPlan::fixed(s(0)), s(1)).unwrap(),
            drain_ports: Ports::Auto,
            checks: Vec::new(),
            wait_timeout: s(60),
            readiness_on_stop: ReadinessOnStop::Immediate,
            stop_on: vec![Signal::TERM, Signal::INT],
            stop_signal: StopSignal::Received,
            stop_scope: StopScope::Child,
            hang_signal: None,
            rewrite: Rewrite::default(),
            exit_map: ExitMap::default(),
            stopped_exit_code: None,
            hooks: Hooks { pre_start: None, pre_stop: None, post_stop: None, timeout: s(30) },
            restart: RestartRules {
                restart: Restart::Never,
                min: Duration::from_millis(500),
                max: s(30),
                limit: 0,
            },
            user: None,
            workdir: None,
            env_dirs: None,
            listen: Listen::Default,
            listen_name: "CASTOFF_HEALTH_LISTEN=\":9911\" (default)".to_owned(),
            sizing: Sizing {
                profiles: crate::policy::runtime_env::Profile::DEFAULT.to_vec(),
                rounding: crate::policy::runtime_env::Rounding::Auto,
                memory_ratio: 0.9,
            },
            cgroup_root: "/sys/fs/cgroup".into(),
            proc_root: "/proc".into(),
            resize_action: Reaction::Log,
            watch: vec![],
            watch_action: Reaction::Signal(Signal::HUP),
            log_level: LogLevel::Info,
            log_style: LogStyle::default(),
            child_logs: ChildLogs::Inherit,
            completes_otel: false,
            termination_log: TerminationLog::Default,
            signal_group: false,
            parent_death_signal: None,
            warn_on_orphans: false,
            command: vec!["serve".into()],
        }
    );
}

#[test]
fn in_kubernetes_there_is_more_grace_and_a_drain() {
    let kubernetes = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    let plan = config(&[], &[kubernetes]).stop_plan;
    assert_eq!(plan, StopPlan::new(s(30), DrainPlan::fixed(s(5)), s(2)).unwrap());
    let plan = config(&[], &[("KUBERNETES_SERVICE_HOST", "")]).stop_plan;
    assert_eq!(plan.grace, s(10));
}

#[test]
fn a_drain_is_fixed_unless_a_longer_maximum_is_set() {
    let kubernetes = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    let file = TempFile::new("drain_delay = 1\ndrain_max = '20s'\n");
    for (args, env, delay, max) in [
        (&["--drain-delay=3s"][..], &[("CASTOFF_DRAIN_DELAY", "2s")][..], s(3), s(3)),
        (&[], &[("CASTOFF_DRAIN_MAX", "4s")], s(0), s(4)),
        (&[], &[kubernetes], s(5), s(5)),
        (&[], &[kubernetes, ("CASTOFF_DRAIN_MAX", "20s")], s(5), s(20)),
        (&[], &[kubernetes, ("CASTOFF_DRAIN_DELAY", "9s")], s(9), s(9)),
        (&["--drain-delay=20s"], &[kubernetes, ("CASTOFF_CONFIG", file.path())], s(20), s(20)),
        (&["--drain-max=3s"], &[("CASTOFF_CONFIG", file.path())], s(1), s(3)),
    ] {
        let drain = config(args, env).stop_plan.drain;
        assert_eq!(drain, DrainPlan { delay, max, quiet: s(1) }, "{args:?} {env:?}");
    }
    let quiet = config(&["--drain-max=1s", "--drain-quiet=250ms"], &[]).stop_plan.drain;
    assert_eq!(quiet.quiet, Duration::from_millis(250));
}

#[test]
fn a_command_is_split_like_a_shells_or_an_array() {
    let file = TempFile::new(
        "pre_start = ['/bin/a', '$HOME \"x\"', '', '#', \"it's\"]\npre_stop = '/bin/b \"c d\" e'\n\
         post_stop = []\n",
    );
    let env = [("CASTOFF_CONFIG", file.path()), ("CASTOFF_HOOK_TIMEOUT", "1m")];
    let words = |words: &[&str]| Some(words.iter().map(OsString::from).collect());
    assert_eq!(
        config(&[], &env).hooks,
        Hooks {
            pre_start: words(&["/bin/a", "$HOME \"x\"", "", "#", "it's"]),
            pre_stop: words(&["/bin/b", "c d", "e"]),
            post_stop: None,
            timeout: s(60),
        }
    );
    let script = TempFile::new("/bin/f 'one\ntwo' \\\n  three # why\n");
    let env = [("CASTOFF_POST_STOP_FILE", script.path())];
    let hooks = config(&["--pre-stop", "/bin/v a\\ b&&c"], &env).hooks;
    assert_eq!(hooks.pre_stop, words(&["/bin/v", "a b&&c"]));
    assert_eq!(hooks.post_stop, words(&["/bin/f", "one\ntwo", "three"]));
}

#[test]
fn each_way_to_stop_and_to_go_on_reaches_the_configuration() {
    let file = TempFile::new(
        "drain_ports = [8443, '80', 80]\nstop_scope = 'group'\nhang_signal = 3\n\
         rewrite = ['15:3', 'SIGUSR1:0']\nstopped_exit_code = 0\nrestart = 'on-failure'\n\
         restart_min = 1\nrestart_max = '1m'\nrestart_limit = 7\n",
    );
    let config = config(&["--config", file.path()], &[]);
    assert_eq!(config.drain_ports, Ports::Named(vec![80, 8443]));
    assert_eq!(config.stop_scope, StopScope::Group);
    assert_eq!(config.hang_signal, Signal::new(3));
    let pairs = [(Signal::TERM, Signal::new(3)), (Signal::new(10).unwrap(), None)];
    assert_eq!(config.rewrite.pairs(), pairs);
    assert_eq!(config.stopped_exit_code, Some(0));
    let rules = RestartRules { restart: Restart::OnFailure, min: s(1), max: s(60), limit: 7 };
    assert_eq!(config.restart, rules);
}

#[test]
fn the_platform_tells_the_grace_unless_somebody_sets_it() {
    let platform = ("TERMINATION_GRACE_PERIOD_SECONDS", "604800");
    assert_eq!(config(&[], &[platform]).stop_plan.grace, s(604_800));
    let set = ("CASTOFF_GRACE_PERIOD", "20s");
    assert_eq!(config(&[], &[platform, set]).stop_plan.grace, s(20));
    let bad = ("TERMINATION_GRACE_PERIOD_SECONDS", "soon");
    assert_eq!(config(&[], &[bad, set]).stop_plan.grace, s(20));
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file() {
    let file = TempFile::new("grace_period = 41\ndrain_delay = '1s'\nlog_level = 'warn'\n");
    let env = [
        ("CASTOFF_CONFIG", file.path()),
        ("CASTOFF_GRACE_PERIOD", "42s"),
        ("CASTOFF_DRAIN_DELAY", "2s"),
    ];
    let config = config(&["--drain-delay=7s", "--drain-delay", "3s"], &env);
    assert_eq!(config.stop_plan, StopPlan::new(s(42), DrainPlan::fixed(s(3)), s(2)).unwrap());
    assert_eq!(config.log_level, LogLevel::Warn);
}

#[test]
fn empty_is_unset_wherever_it_stands() {
    let file = TempFile::new("stop_on = []\nlog_level = ''\nmemory_ratio = 0.5\n");
    let empty = TempFile::new("\n");
    let env = [
        ("CASTOFF_CONFIG", file.path()),
        ("CASTOFF_MEMORY_RATIO", ""),
        ("CASTOFF_SIZING_FILE", ""),
        ("CASTOFF_SIZING", "off"),
        ("CASTOFF_CGROUP_ROOT_FILE", empty.path()),
    ];
    let config = config(&["--memory-ratio=", "--config", ""], &env);
    assert_eq!(config.sizing.memory_ratio, 0.5);
    assert_eq!(config.sizing.profiles, []);
    assert_eq!(config.stop_on, [Signal::TERM, Signal::INT]);
    assert_eq!(config.cgroup_root, PathBuf::from("/sys/fs/cgroup"));
}

#[test]
fn a_file_gives_the_value_of_a_variable() {
    let toml = TempFile::new("sizing = ['go']");
    let config_file = TempFile::new(format!("{}\n", toml.path()));
    let delay = TempFile::new("3s\r\n");
    let env = [
        ("CASTOFF_CONFIG_FILE", config_file.path()),
        ("CASTOFF_DRAIN_DELAY_FILE", delay.path()),
        ("CASTOFF_DRAIN_DELAY", ""),
    ];
    let config = config(&[], &env);
    assert_eq!(config.stop_plan.drain.delay, s(3));
    assert_eq!(config.sizing.profiles, [crate::policy::runtime_env::Profile::Go]);
}

#[test]
fn toml_values_may_have_their_own_types() {
    let file = TempFile::new(
        "grace_period = 0x3c # 60\nkill_reserve = 1\nmemory_ratio = 1\nstop_signal = 3\n\
         stop_on = ['SIGQUIT', 15]\nexit_map = ['143:0']\nsizing = 'go,openmp'\n\
         health_listen = ':80'\n",
    );
    let config = config(&["--config", file.path()], &[]);
    assert_eq!(config.stop_plan, StopPlan::new(s(60), DrainPlan::fixed(s(0)), s(1)).unwrap());
    assert_eq!(config.sizing.memory_ratio, 1.0);
    assert_eq!(config.sizing.profiles.len(), 2);
    assert_eq!(config.stop_signal, StopSignal::Fixed(Signal::new(3).unwrap()));
    assert_eq!(config.stop_on, [Signal::new(3).unwrap(), Signal::TERM]);
    assert_eq!(config.exit_map.apply(143), 0);
    assert_eq!(config.listen, Listen::Port(80));
}

#[test]
fn the_flags_of_tini_keep_their_meaning() {
    let env = [("CASTOFF_EXIT_MAP", "130:1"), ("CASTOFF_LOG_LEVEL", "warn")];
    let config = config(&["-sgw", "-vv", "-e143", "-e", "130", "-p", "SIGTERM"], &env);
    assert!(config.signal_group && config.warn_on_orphans);
    assert_eq!(config.parent_death_signal, Some(Signal::TERM));
    assert_eq!(config.exit_map.pairs(), [(143, 0), (130, 0)]);
    assert_eq!(config.log_level, LogLevel::Debug);
}

#[test]
fn whatever_follows_command_is_its_own() {
    let odd = OsString::from_vec(vec![b'-', 0xff]);
    for start in [&["-g", "serve"][..], &["-g", "--", "serve"]] {
        let args = start.iter().chain(&["--", "--help", "-x", ""]).map(OsString::from);
        let Ok(Invocation::Supervise(config)) = load(args.chain([odd.clone()]), &[]) else {
            panic!("refused");
        };
        let expected: Vec<OsString> = ["serve", "--", "--help", "-x", ""]
            .map(OsString::from)
            .into_iter()
            .chain([odd.clone()])
            .collect();
        assert_eq!(config.command, expected);
    }
    for word in ["--", "--help", "check", "-x"] {
        let Ok(Invocation::Supervise(config)) = run(&["--", word], &[]) else {
            panic!("{word} refused");
        };
        assert_eq!(config.command, [word]);
    }
    assert!(matches!(run(&["-s", "check"], &[]), Ok(Invocation::Supervise(_))));
}

#[test]
fn every_flag_of_the_table_is_accepted() {
    for flag in &options::FLAGS {
        let value = match flag.takes {
            "" => None,
            "CODE" => Some("1"),
            _ => Some("TERM"),
        };
        let short = flag.short.map(|letter| format!("-{letter}"));
        for name in short.into_iter().chain(flag.long.map(|long| format!("--{long}"))) {
            let args: Vec<_> =
                std::iter::once(name.as_str()).chain(value).chain(["serve"]).collect();
            assert!(run(&args, &[]).is_ok(), "{args:?}");
        }
    }
}

#[test]
fn help_and_version_need_nothing_to_be_right() {
    let broken = [("CASTOFF_DRAIN_DELAY", "5x"), ("CASTOFF_NONSENSE", "1")];
    assert_eq!(printed(&["--nonsense", "-V"], &broken), "castoff 0.1.0\n");
    assert!(printed(&["-g", "--help", "--nonsense"], &broken).starts_with("castoff launches"));
    assert!(run(&["--print-config"], &broken).is_err());
    assert!(run(&["serve", "--help"], &broken).is_err());
}

#[test]
fn the_printed_configuration_names_every_origin() {
    let file = TempFile::new("# a comment\nsizing = ['go', 'python']\n");
    let ratio = TempFile::new("0.5\n");
    let env = [
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
        ("TERMINATION_GRACE_PERIOD_SECONDS", "90"),
        ("CASTOFF_CONFIG", file.path()),
        ("CASTOFF_MEMORY_RATIO_FILE", ratio.path()),
        ("CASTOFF_LOG_LEVEL", "WARN"),
    ];
    let text = printed(&["-v", "-e", "143", "--stop-signal=3", "--print-config"], &env);
    let lines: Vec<_> = text.lines().map(|line| line.split_once("   # ").unwrap()).collect();
    let lines: Vec<_> = lines.iter().map(|(line, origin)| (line.trim_end(), *origin)).collect();
    let path = file.path();
    assert_eq!(
        lines,
        [
            (&*format!("# config = \"{path}\""), "CASTOFF_CONFIG"),
            ("grace_period = \"1m30s\"", "TERMINATION_GRACE_PERIOD_SECONDS"),
            ("kill_reserve = \"2s\"", "default"),
            ("drain_delay = \"5s\"", "default in Kubernetes"),
            ("drain_max = \"5s\"", "default"),
            ("drain_quiet = \"1s\"", "default"),
            ("drain_ports = \"auto\"", "default"),
            ("readiness_on_stop = \"immediate\"", "default"),
            ("stop_on = [\"SIGTERM\", \"SIGINT\"]", "default"),
            ("stop_signal = \"SIGQUIT\"", "--stop-signal"),
            ("stop_scope = \"child\"", "default"),
            ("hang_signal = \"\"", "default"),
            ("rewrite = []", "default"),
            ("exit_map = [\"143:0\"]", "default, -e"),
            ("stopped_exit_code = \"\"", "default"),
            ("pre_start = []", "default"),
            ("pre_stop = []", "default"),
            ("post_stop = []", "default"),
            ("hook_timeout = \"30s\"", "default"),
            ("restart = \"never\"", "default"),
            ("restart_min = \"500ms\"", "default"),
            ("restart_max = \"30s\"", "default"),
            ("restart_limit = 0", "default"),
            ("user = \"\"", "default"),
            ("workdir = \"\"", "default"),
            ("env_dir = []", "default"),
            ("watch = []", "default"),
            ("watch_action = \"signal:SIGHUP\"", "default"),
            ("# health_listen = \":9911\"", "default"),
            ("ready_check = \"\"", "default"),
            ("live_check = \"\"", "default"),
            ("startup_check = \"\"", "default"),
            ("depends_on = []", "default"),
            ("wait_for = []", "default"),
            ("wait_timeout = \"1m\"", "default"),
            ("check_period = \"5s\"", "default"),
            ("check_timeout = \"1s\"", "default"),
            ("check_failures = 3", "default"),
            ("check_successes = 1", "default"),
            ("notify = \"off\"", "default"),
            ("watchdog = \"off\"", "default"),
            ("sizing = [\"go\", \"python\"]", &*format!("{path}:2")),
            ("cpu_rounding = \"auto\"", "default"),
            ("memory_ratio = 0.5", &*format!("CASTOFF_MEMORY_RATIO_FILE={}", ratio.path())),
            ("cgroup_root = \"/sys/fs/cgroup\"", "default"),
            ("proc_root = \"/proc\"", "default"),
            ("resize_action = \"log\"", "default"),
            ("log_level = \"info\"", "CASTOFF_LOG_LEVEL, -v"),
            ("log_format = \"json\"", "default"),
            ("log_fields = []", "default"),
            ("child_logs = \"inherit\"", "default"),
            ("otel_resource = \"off\"", "default"),
            ("# termination_log = \"/dev/termination-log\"", "default"),
        ]
    );
}

#[test]
fn the_printed_configuration_is_accepted_and_means_the_same() {
    let values = |text: &str| -> Vec<String> {
        let value = |line: &str| line.rsplit_once("   # ").unwrap().0.trim_end().to_owned();
        text.lines().filter(|line| !line.starts_with('#')).map(value).collect()
    };
    let rich = [
        ("CASTOFF_GRACE_PERIOD", "1h1m1s1ms1us"),
        ("CASTOFF_DRAIN_DELAY", "0.25s"),
        ("CASTOFF_EXIT_MAP", "143:0,1:2"),
        ("CASTOFF_STOP_ON", "USR1,SIGRTMIN+3"),
        ("CASTOFF_SIZING", "off"),
        ("CASTOFF_CGROUP_ROOT", "/a \"b\"\\#\n\u{1}\u{e9}"),
        ("CASTOFF_HEALTH_LISTEN", "off"),
        ("CASTOFF_DRAIN_MAX", "1h"),
        ("CASTOFF_DRAIN_QUIET", "1us"),
        ("CASTOFF_DRAIN_PORTS", "8443, 80"),
        ("CASTOFF_STOP_SCOPE", "group"),
        ("CASTOFF_HANG_SIGNAL", "SIGRTMAX"),
        ("CASTOFF_REWRITE", "15:3,USR1:0,34:KILL"),
        ("CASTOFF_STOPPED_EXIT_CODE", "0"),
        ("CASTOFF_PRE_START", "/bin/a '' \"it's   # here\" \\\\ $B"),
        ("CASTOFF_PRE_STOP", "'\n\t\u{1}\u{e9}'"),
        ("CASTOFF_HOOK_TIMEOUT", "1ms"),
        ("CASTOFF_RESTART", "always"),
        ("CASTOFF_RESTART_MIN", "30s"),
        ("CASTOFF_RESTART_LIMIT", "4294967295"),
        ("CASTOFF_USER", "0:app"),
        ("CASTOFF_WORKDIR", "/a b"),
        ("CASTOFF_ENV_DIR", "/a, /b\n"),
        ("CASTOFF_RESIZE_ACTION", "exec:/bin/a '' \"it's # here\""),
        ("CASTOFF_WATCH", "/a, /b"),
        ("CASTOFF_WATCH_ACTION", "restart"),
        ("CASTOFF_LOG_FORMAT", "Otel"),
        ("CASTOFF_LOG_FIELDS", "a.b/c-d=e=f, g_1 = \"h\" , i="),
        ("CASTOFF_CHILD_LOGS", "json"),
        ("CASTOFF_OTEL_RESOURCE", "on"),
        ("CASTOFF_TERMINATION_LOG", "OFF"),
    ];
    for env in [&[][..], &rich] {
        let first = printed(&["--print-config"], env);
        let file = TempFile::new(&first);
        let second = printed(&["--print-config", "--config", file.path()], &[]);
        assert_eq!(values(&first), values(&second));
    }
}

#[test]
fn every_setting_is_held_by_a_place_of_its_own() {
    for setting in &options::SETTINGS {
        let flag = setting.flag_name();
        if setting.key == Key::Config {
            continue;
        }
        // What no parser accepts, but paths and commands, which accept all.
        let result = run(&[&flag, "\u{fffd}", "--print-config"], &[]);
        match result {
            Ok(Invocation::Print(text)) => {
                let value = match setting.form {
                    options::Form::Command | options::Form::List => "[\"\u{fffd}\"]",
                    _ => "\"\u{fffd}\"",
                };
                let line = format!("{} = {value}", setting.word);
                let found = text.lines().find(|text| text.starts_with(&line)).unwrap();
                assert!(found.ends_with(&format!("# {flag}")), "{found}");
                assert_eq!(text.matches('\u{fffd}').count(), 1);
            }
            Err(error) => assert_eq!(
                error.to_string(),
                format!("castoff: cannot use {flag}=\"\u{fffd}\": expected {}", setting.expected)
            ),
            other => panic!("{other:?}"),
        }
    }
}

/// A word of a command, with much of what means something to a shell or to TOML.
fn word() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z/'\"\\\\$#^! \n\t=-]{0,8}", "[^\0]{0,8}"]
}

const CHECKS: &str = r#"
ready_check = 'http://127.0.0.1:8080/health'
depends_on = ["tcp://db:5432", "exec:a 'b,c'"]
wait_for = "tcp://db:5432,unix:///run/x"
check_period = "2s"
notify = true
watchdog = 30

[[check]]
name = "database"
level = "live"
target = "http://db/"
period = 1
timeout = "500ms"
failures = 2
successes = 4
headers = { Host = "x", "X-A" = "b c" }

[[check]]
name = "fd"
level = "startup"
target = "fd:3"
"#;

#[test]
fn checks_come_from_tables_and_settings_and_are_read_back_as_printed() {
    let file = TempFile::new(CHECKS);
    let first = config(&["--config", file.path()], &[]);
    let told: Vec<_> = first
        .checks
        .iter()
        .map(|check| (&*check.name, check.level.as_str(), target::target_text(&check.target)))
        .collect();
    let expected = [
        ("database", "live", "http://db:80/"),
        ("fd", "startup", "fd:3"),
        ("notify", "ready", "notify"),
        ("ready-check", "ready", "http://127.0.0.1:8080/health"),
        ("watchdog", "live", "watchdog 30s"),
        ("depends-on-1", "ready", "tcp://db:5432"),
        ("depends-on-2", "ready", "exec:a b,c"),
        ("wait-for-1", "wait", "tcp://db:5432"),
        ("wait-for-2", "wait", "unix:///run/x"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for ((name, level, target), expected) in told.iter().zip(expected) {
        // However the words of a command are quoted.
        assert_eq!((*name, *level, &*target.replace('\'', "")), expected);
    }
    let database = &first.checks[0];
    assert_eq!((database.period, database.timeout), (s(1), Duration::from_millis(500)));
    assert_eq!((database.failures, database.successes), (2, 4));
    let Target::Http(http) = &database.target else { panic!("{database:?}") };
    assert_eq!(http.headers.len(), 2);
    assert_eq!((first.checks[1].period, first.checks[1].timeout), (s(2), s(1)));
    let printed = TempFile::new(printed(&["--config", file.path(), "--print-config"], &[]));
    assert_eq!(config(&["--config", printed.path()], &[]).checks, first.checks);
}

proptest! {
    #[test]
    fn whatever_was_set_is_read_back_as_printed(
        (delay, longer, quiet) in (0..1000_u64, 0..1000_u64, 1..1000_u64),
        ports in vec(1..=u16::MAX, 0..4),
        hang in 1..=64_i32,
        rewrite in vec((1..=64_i32, 0..=64_i32), 0..4),
        code in any::<Option<u8>>(),
        hooks in vec(("[^\0]{1,8}", vec(word(), 0..4)), 3),
        (min, more, limit) in (1..1000_u64, 0..1000_u64, any::<u32>()),
        words in (0..2_usize, 0..3_usize),
    ) {
        let is_catchable = |number: &i32| ![9, 19].contains(number);
        let mut set = vec![
            ("drain_delay", format!("{delay}ms")),
            ("drain_max", format!("{}ms", delay + longer)),
            ("drain_quiet", format!("{quiet}us")),
            ("drain_ports", ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",")),
            ("stop_scope", ["child", "group"][words.0].to_owned()),
            ("restart", ["never", "on-failure", "always"][words.1].to_owned()),
            ("stopped_exit_code", code.map_or_else(String::new, |code| code.to_string())),
            ("restart_min", format!("{min}s")),
            ("restart_max", format!("{}s", min + more)),
            ("restart_limit", limit.to_string()),
        ];
        if is_catchable(&hang) {
            set.push(("hang_signal", hang.to_string()));
        }
        let pairs = rewrite.iter().filter(|(from, _)| is_catchable(from));
        let pairs: Vec<_> = pairs.map(|(from, to)| format!("{from}:{to}")).collect();
        set.push(("rewrite", pairs.join(",")));
        for (word, (program, arguments)) in ["pre_start", "pre_stop", "post_stop"].iter().zip(&hooks) {
            let words = [program].into_iter().chain(arguments).map(String::as_str);
            set.push((word, shell_words::join(words)));
        }
        let args: Vec<_> = set
            .iter()
            .map(|(word, value)| format!("--{}={value}", word.replace('_', "-")))
            .collect();
        let mut args: Vec<_> = args.iter().map(String::as_str).collect();
        let mut first = config(&args, &[]);
        let expected = |nth: usize| -> Option<Vec<OsString>> {
            let (program, arguments) = &hooks[nth];
            Some([program].into_iter().chain(arguments).map(OsString::from).collect())
        };
        prop_assert_eq!(&first.hooks.pre_start, &expected(0));
        prop_assert_eq!(&first.hooks.pre_stop, &expected(1));
        prop_assert_eq!(&first.hooks.post_stop, &expected(2));
        args.push("--print-config");
        let file = TempFile::new(printed(&args, &[]));
        let again = config(&["--config", file.path()], &[]);
        first.listen_name.clone_from(&again.listen_name);
        prop_assert_eq!(first, again);
    }

    #[test]
    fn no_input_makes_it_panic(
        args in vec("(-{0,2}[a-z=-]{0,12}|.*)", 0..6),
        env in vec(("(CASTOFF_[A-Z0-9_]{0,24}|.*)", ".*"), 0..6),
        toml in "([a-z_]{1,12} = [0-9a-z'\\[\\],.]{0,12}\n|.*){0,4}",
    ) {
        let env: Vec<_> = env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        if let Err(errors) = load(args.into_iter().map(OsString::from), &env) {
            prop_assert!(!errors.to_string().is_empty());
        }
        let mut settings = Settings::new(false);
        let mut errors = Vec::new();
        for given in file::parse(std::path::Path::new("x"), &toml, &mut errors).given {
            settings.apply(&given, &mut errors);
        }
    }
}

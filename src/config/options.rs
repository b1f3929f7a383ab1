//! The one table of settings, and the flags that are none.
//!
//! Flag, variable and TOML key are the same word in three spellings, so that
//! they cannot drift apart; `--help`, `--print-config` and the README's table
//! are made from these rows. It holds no values and parses none.

use super::target::{LIVE_TARGET, OTHERS_TARGETS, TARGET};
use super::value::{CHECK_COUNT, CHECK_TIME, POSITIVE, REACTION, SWITCH, WATCHDOG};

/// A setting: its names are derived from `word`, as the `*_name` methods show.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) key: Key,
    /// The TOML key: `grace_period`.
    pub(super) word: &'static str,
    /// What stands for the value in `--help`.
    pub(super) takes: &'static str,
    pub(super) form: Form,
    pub(super) default: &'static str,
    /// Completes "expected ..." in an error.
    pub(super) expected: &'static str,
    pub(super) help: &'static str,
}

/// The place of a setting in the program; one for each row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Config,
    GracePeriod,
    KillReserve,
    DrainDelay,
    DrainMax,
    DrainQuiet,
    DrainPorts,
    ReadinessOnStop,
    StopOn,
    StopSignal,
    StopScope,
    HangSignal,
    Rewrite,
    ExitMap,
    StoppedExitCode,
    PreStart,
    PreStop,
    PostStop,
    HookTimeout,
    Restart,
    RestartMin,
    RestartMax,
    RestartLimit,
    User,
    Workdir,
    EnvDir,
    Watch,
    WatchAction,
    HealthListen,
    ReadyCheck,
    LiveCheck,
    StartupCheck,
    DependsOn,
    WaitFor,
    WaitTimeout,
    CheckPeriod,
    CheckTimeout,
    CheckFailures,
    CheckSuccesses,
    Notify,
    Watchdog,
    Sizing,
    CpuRounding,
    MemoryRatio,
    CgroupRoot,
    ProcRoot,
    ResizeAction,
    LogLevel,
    LogFormat,
    LogFields,
    ChildLogs,
    OtelResource,
    TerminationLog,
}

/// The TOML types that may give the value; a string always may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing but a string.
    Text,
    /// An integer or a float.
    Number,
    /// An array of strings or integers.
    List,
    /// An array of strings: a program and its arguments.
    Command,
    /// A boolean.
    Switch,
}

const DURATION: &str = "a duration such as 5s, 500ms or 1m30s, at most 720h";
const PATH: &str = "a path";
const COMMAND: &str = "a command such as /bin/notify --name 'my app', each quote closed";

/// Every setting, in the order of `--help`.
pub(super) static SETTINGS: [Setting; 53] = [
    Setting {
        key: Key::Config,
        word: "config",
        takes: "FILE",
        form: Form::Text,
        default: "none",
        expected: PATH,
        help: "TOML file with the settings below as keys. It must exist.",
    },
    Setting {
        key: Key::GracePeriod,
        word: "grace_period",
        takes: "DURATION",
        form: Form::Number,
        default: "10s; 30s in Kubernetes; TERMINATION_GRACE_PERIOD_SECONDS when present",
        expected: DURATION,
        help: "What the platform gives between its stop signal and its SIGKILL. In Kubernetes \
               means: when KUBERNETES_SERVICE_HOST is set.",
    },
    Setting {
        key: Key::KillReserve,
        word: "kill_reserve",
        takes: "DURATION",
        form: Form::Number,
        default: "a tenth of the grace period, at most 2s",
        expected: DURATION,
        help: "castoff's own SIGKILL comes this long before the end of the grace period. \
               Reserve and drain together must be shorter than the grace period.",
    },
    Setting {
        key: Key::DrainDelay,
        word: "drain_delay",
        takes: "DURATION",
        form: Form::Number,
        default: "0s; 5s in Kubernetes",
        expected: DURATION,
        help: "Minimum time between \"not ready\" and the child's stop signal, in which the child \
               still serves and load balancers learn that it will not for long.",
    },
    Setting {
        key: Key::DrainMax,
        word: "drain_max",
        takes: "DURATION",
        form: Form::Number,
        default: "the drain delay",
        expected: DURATION,
        help: "Maximum time between \"not ready\" and the child's stop signal. Where it is longer \
               than the drain delay, the drain ends after the delay as soon as the child's \
               traffic is over.",
    },
    Setting {
        key: Key::DrainQuiet,
        word: "drain_quiet",
        takes: "DURATION",
        form: Form::Number,
        default: "1s",
        expected: POSITIVE,
        help: "The child's traffic counts as over after this long without activity; not 0.",
    },
    Setting {
        key: Key::DrainPorts,
        word: "drain_ports",
        takes: "PORT,...",
        form: Form::List,
        default: "auto",
        expected: "auto or a list of ports from 1 to 65535 such as 8080,8443",
        help: "The child's TCP ports whose traffic counts, such as 8080,8443; or auto, all on \
               which it or a descendant of it listens.",
    },
    Setting {
        key: Key::ReadinessOnStop,
        word: "readiness_on_stop",
        takes: "WHEN",
        form: Form::Text,
        default: "immediate",
        expected: "immediate, after-drain or never",
        help: "When readiness turns off once a stop was requested: immediate, after-drain or never.",
    },
    Setting {
        key: Key::StopOn,
        word: "stop_on",
        takes: "SIGNAL,...",
        form: Form::List,
        default: "SIGTERM,SIGINT",
        expected: "signals such as SIGTERM,SIGINT, but none of SIGKILL, SIGSTOP, SIGCHLD, \
                   SIGILL, SIGBUS, SIGFPE, SIGSEGV, 32 and 33",
        help: "Signals that begin the stop sequence. Every other signal is forwarded at once. \
               SIGQUIT is not among them: to a JVM or Go it means a thread dump.",
    },
    Setting {
        key: Key::StopSignal,
        word: "stop_signal",
        takes: "SIGNAL",
        form: Form::Number,
        default: "received",
        expected: "received or a signal such as SIGQUIT, QUIT, 3 or SIGRTMIN+3, but not SIGSTOP",
        help: "The signal that stops the child: the one received, or always the same one \
               (SIGQUIT, QUIT, 3, SIGRTMIN+3).",
    },
    Setting {
        key: Key::StopScope,
        word: "stop_scope",
        takes: "WHO",
        form: Form::Text,
        default: "child",
        expected: "child or group",
        help: "Who gets the stop signal first: the child alone (child) or its process group (group).",
    },
    Setting {
        key: Key::HangSignal,
        word: "hang_signal",
        takes: "SIGNAL",
        form: Form::Number,
        default: "none",
        expected: "a signal such as SIGQUIT, QUIT, 3 or SIGRTMIN+3, but not SIGKILL or SIGSTOP",
        help: "Sent 1s before castoff's own SIGKILL to every process that is still there, for a \
               thread dump: SIGQUIT for a JVM or Go.",
    },
    Setting {
        key: Key::Rewrite,
        word: "rewrite",
        takes: "FROM:TO,...",
        form: Form::List,
        default: "none",
        expected: "pairs of signals such as SIGUSR1:SIGHUP, 10:1 or USR1:0, but none from \
                   SIGKILL or SIGSTOP",
        help: "Forwarded signals that the child gets as others, such as SIGUSR1:SIGHUP or 10:1, \
               or never (USR1:0), as with dumb-init's --rewrite; the stop signal too, unless \
               stop_signal is a fixed one.",
    },
    Setting {
        key: Key::ExitMap,
        word: "exit_map",
        takes: "FROM:TO,...",
        form: Form::List,
        default: "none",
        expected: "pairs of exit codes from 0 to 255, such as 143:0,130:0",
        help: "Exit codes of the child that castoff replaces with others, such as 143:0,130:0.",
    },
    Setting {
        key: Key::StoppedExitCode,
        word: "stopped_exit_code",
        takes: "CODE",
        form: Form::Number,
        default: "the child's",
        expected: "an exit code from 0 to 255",
        help: "castoff's exit code, 0 to 255, when it ends because it was asked to stop and the \
               child ended within the deadline; otherwise exit_map applies.",
    },
    Setting {
        key: Key::PreStart,
        word: "pre_start",
        takes: "HOOK",
        form: Form::Command,
        default: "none",
        expected: COMMAND,
        help: "Command that runs before the child is started, split into words as a shell does \
               but run by none. When it fails, castoff exits with its code and never starts the \
               child.",
    },
    Setting {
        key: Key::PreStop,
        word: "pre_stop",
        takes: "HOOK",
        form: Form::Command,
        default: "none",
        expected: COMMAND,
        help: "Command that runs once a stop was requested, before the child's stop signal. Its \
               time is part of the grace period.",
    },
    Setting {
        key: Key::PostStop,
        word: "post_stop",
        takes: "HOOK",
        form: Form::Command,
        default: "none",
        expected: COMMAND,
        help: "Command that runs when the child has ended, before castoff exits.",
    },
    Setting {
        key: Key::HookTimeout,
        word: "hook_timeout",
        takes: "DURATION",
        form: Form::Number,
        default: "30s",
        expected: POSITIVE,
        help: "How long each of these three commands, and that of CASTOFF_RESIZE_ACTION, may \
               run; not 0.",
    },
    Setting {
        key: Key::Restart,
        word: "restart",
        takes: "WHEN",
        form: Form::Text,
        default: "never",
        expected: "never, on-failure or always",
        help: "Whether a child that ended without a stop being requested is started again: never, \
               on-failure (its exit code, after CASTOFF_EXIT_MAP, is not 0) or always.",
    },
    Setting {
        key: Key::RestartMin,
        word: "restart_min",
        takes: "DURATION",
        form: Form::Number,
        default: "500ms",
        expected: POSITIVE,
        help: "Delay before the first restart, doubled for each further one in a row and varied \
               at random; not 0.",
    },
    Setting {
        key: Key::RestartMax,
        word: "restart_max",
        takes: "DURATION",
        form: Form::Number,
        default: "30s",
        expected: POSITIVE,
        help: "No delay before a restart is longer. Not below CASTOFF_RESTART_MIN.",
    },
    Setting {
        key: Key::RestartLimit,
        word: "restart_limit",
        takes: "NUMBER",
        form: Form::Number,
        default: "0",
        expected: "a number of restarts from 0 to 4294967295",
        help: "Restarts in a row after which castoff gives up and exits with the child's code; 0 \
               is no limit.",
    },
    Setting {
        key: Key::User,
        word: "user",
        takes: "USER",
        form: Form::Number,
        default: "none",
        expected: "a user such as 1000, 1000:1000, app or app:app",
        help: "The child runs as this user: uid[:gid], or name[:group] of the image's /etc/passwd \
               and /etc/group. Hooks and checks stay castoff's user.",
    },
    Setting {
        key: Key::Workdir,
        word: "workdir",
        takes: "PATH",
        form: Form::Text,
        default: "none",
        expected: PATH,
        help: "The directory that the child, the hooks and commands of checks start in. It must \
               exist.",
    },
    Setting {
        key: Key::EnvDir,
        word: "env_dir",
        takes: "PATH,...",
        form: Form::List,
        default: "none",
        expected: "directories such as /etc/secrets,/etc/settings",
        help: "Directories, such as mounted Secrets and ConfigMaps, whose files become variables \
               of the child, hooks and commands of checks: the name of the file is that of the \
               variable. One that is set already is not touched; of several files of a name the \
               last directory's counts.",
    },
    Setting {
        key: Key::Watch,
        word: "watch",
        takes: "PATH,...",
        form: Form::List,
        default: "none",
        expected: "paths such as /etc/app/app.conf,/etc/app/conf.d",
        help: "Files and directories whose change the child is told of, mounted ConfigMaps and \
               Secrets included.",
    },
    Setting {
        key: Key::WatchAction,
        word: "watch_action",
        takes: "ACTION",
        form: Form::Text,
        default: "signal:SIGHUP",
        expected: REACTION,
        help: "What follows when one of them changes: signal:SIGNAL to the child, exec:COMMAND, \
               restart, which stops the child in order and starts it again, or log (nothing more).",
    },
    Setting {
        key: Key::HealthListen,
        word: "health_listen",
        takes: "ADDRESS",
        form: Form::Text,
        default: "[::]:9911; 0.0.0.0:9911 without IPv6",
        expected: "off or an IP address and a port such as [::]:9911, 127.0.0.1:9911 or :9911",
        help: "Address of the health endpoints, or off. :9911 is every address of both \
               families; port 0 lets the kernel choose. An address that was set and cannot be \
               bound is an error; the default one is only a warning.",
    },
    Setting {
        key: Key::ReadyCheck,
        word: "ready_check",
        takes: "CHECK",
        form: Form::Text,
        default: "none",
        expected: TARGET,
        help: "Readiness follows this check, and the child counts as started once it has \
               passed.",
    },
    Setting {
        key: Key::LiveCheck,
        word: "live_check",
        takes: "CHECK",
        form: Form::Text,
        default: "none",
        expected: LIVE_TARGET,
        help: "Liveness follows this check, from the moment at which the child counts as \
               started. Its failure ends nothing by itself.",
    },
    Setting {
        key: Key::StartupCheck,
        word: "startup_check",
        takes: "CHECK",
        form: Form::Text,
        default: "none",
        expected: TARGET,
        help: "The child does not count as started before this check has passed; the others \
               begin after it.",
    },
    Setting {
        key: Key::DependsOn,
        word: "depends_on",
        takes: "CHECK,...",
        form: Form::List,
        default: "none",
        expected: OTHERS_TARGETS,
        help: "Checks of what the child depends on: they gate readiness, never liveness or \
               start-up. A comma separates where a check follows it.",
    },
    Setting {
        key: Key::WaitFor,
        word: "wait_for",
        takes: "CHECK,...",
        form: Form::List,
        default: "none",
        expected: OTHERS_TARGETS,
        help: "Checks that must pass before the pre-start hook runs and the child is started.",
    },
    Setting {
        key: Key::WaitTimeout,
        word: "wait_timeout",
        takes: "DURATION",
        form: Form::Number,
        default: "60s",
        expected: POSITIVE,
        help: "After this long castoff gives up and exits with 125; not 0.",
    },
    Setting {
        key: Key::CheckPeriod,
        word: "check_period",
        takes: "DURATION",
        form: Form::Number,
        default: "5s",
        expected: CHECK_TIME,
        help: "Time between two runs of a check, varied by a tenth. One that has never passed \
               is repeated sooner.",
    },
    Setting {
        key: Key::CheckTimeout,
        word: "check_timeout",
        takes: "DURATION",
        form: Form::Number,
        default: "1s",
        expected: CHECK_TIME,
        help: "How long one run of a check may take.",
    },
    Setting {
        key: Key::CheckFailures,
        word: "check_failures",
        takes: "NUMBER",
        form: Form::Number,
        default: "3",
        expected: CHECK_COUNT,
        help: "Failures in a row after which a check that had passed counts as failed.",
    },
    Setting {
        key: Key::CheckSuccesses,
        word: "check_successes",
        takes: "NUMBER",
        form: Form::Number,
        default: "1",
        expected: CHECK_COUNT,
        help: "Successes in a row after which a check counts as passed.",
    },
    Setting {
        key: Key::Notify,
        word: "notify",
        takes: "SWITCH",
        form: Form::Switch,
        default: "off",
        expected: SWITCH,
        help: "on: the child gets a NOTIFY_SOCKET (sd_notify), and is started and ready when \
               it has said READY=1.",
    },
    Setting {
        key: Key::Watchdog,
        word: "watchdog",
        takes: "DURATION",
        form: Form::Number,
        default: "off",
        expected: WATCHDOG,
        help: "The child gets WATCHDOG_USEC and a NOTIFY_SOCKET; once it is started, liveness \
               fails when no WATCHDOG=1 comes for this long.",
    },
    Setting {
        key: Key::Sizing,
        word: "sizing",
        takes: "PROFILE,...",
        form: Form::List,
        default: "default, which is go, openmp and python",
        expected: "default, off or a list of default, go, openmp, python, java, node, web, julia \
                   and malloc",
        help: "Runtimes whose variables are derived from the container's limits: default, off, or \
               a list of profiles, of which java, node, web, julia and malloc must be named. A \
               variable that is set is never touched, except that java and node add to what \
               JAVA_TOOL_OPTIONS and NODE_OPTIONS say, unless that decides the same.",
    },
    Setting {
        key: Key::CpuRounding,
        word: "cpu_rounding",
        takes: "MODE",
        form: Form::Text,
        default: "auto",
        expected: "auto, floor or ceil",
        help: "How a fraction of a CPU becomes a number of threads: auto (as the runtime itself \
               would), floor or ceil.",
    },
    Setting {
        key: Key::MemoryRatio,
        word: "memory_ratio",
        takes: "RATIO",
        form: Form::Number,
        default: "0.9",
        expected: "a number above 0 and up to 1, such as 0.9",
        help: "Share of the memory limit that is given to GOMEMLIMIT, above 0 and up to 1.",
    },
    Setting {
        key: Key::CgroupRoot,
        word: "cgroup_root",
        takes: "PATH",
        form: Form::Text,
        default: "/sys/fs/cgroup",
        expected: PATH,
        help: "Where the cgroup file systems are mounted; for tests and odd mounts.",
    },
    Setting {
        key: Key::ProcRoot,
        word: "proc_root",
        takes: "PATH",
        form: Form::Text,
        default: "/proc",
        expected: PATH,
        help: "Where the files of processes are read; for tests and odd mounts.",
    },
    Setting {
        key: Key::ResizeAction,
        word: "resize_action",
        takes: "ACTION",
        form: Form::Text,
        default: "log",
        expected: REACTION,
        help: "What follows when a limit changes while the child runs: log (nothing more), \
               signal:SIGNAL to the child, exec:COMMAND, or restart, which stops the child in \
               order and starts it again with the new values.",
    },
    Setting {
        key: Key::LogLevel,
        word: "log_level",
        takes: "LEVEL",
        form: Form::Text,
        default: "info",
        expected: "off, error, warn, info, debug or trace",
        help: "What castoff logs to stderr: off, error, warn, info, debug or trace.",
    },
    Setting {
        key: Key::LogFormat,
        word: "log_format",
        takes: "FORMAT",
        form: Form::Text,
        default: "json",
        expected: "json, text, gcp, ecs or otel",
        help: "The form of castoff's lines, and of the child's that are wrapped: json, text (for \
               people), gcp (Google Cloud), ecs (Elastic) or otel (OpenTelemetry).",
    },
    Setting {
        key: Key::LogFields,
        word: "log_fields",
        takes: "NAME=VALUE,...",
        form: Form::List,
        default: "none",
        expected: "pairs such as team=payments,zone=a, each name once, of letters, digits and _.-/ \
                   and none that a line has already, at most 1024 bytes together",
        help: "What stands on every line, beside POD_NAME, POD_NAMESPACE and NODE_NAME where they \
               are set.",
    },
    Setting {
        key: Key::ChildLogs,
        word: "child_logs",
        takes: "WAY",
        form: Form::Text,
        default: "inherit",
        expected: "inherit or json",
        help: "What becomes of the child's stdout and stderr: inherit leaves its descriptors \
               alone, json makes each line one of castoff's format.",
    },
    Setting {
        key: Key::OtelResource,
        word: "otel_resource",
        takes: "SWITCH",
        form: Form::Switch,
        default: "off",
        expected: SWITCH,
        help: "Whether the child gets OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME from \
               POD_NAME, POD_NAMESPACE and NODE_NAME, where it has none.",
    },
    Setting {
        key: Key::TerminationLog,
        word: "termination_log",
        takes: "PATH",
        form: Form::Text,
        default: "/dev/termination-log when it exists",
        expected: "off or a path",
        help: "File that says why, when the end was not a good one: written in place, at most \
               4096 bytes, unless the child has written there itself. Or off.",
    },
];

/// A flag without variable and key.
#[derive(Debug)]
pub(super) struct Flag {
    pub(super) short: Option<char>,
    pub(super) long: Option<&'static str>,
    pub(super) takes: &'static str,
    pub(super) help: &'static str,
}

const fn short(short: char, takes: &'static str, help: &'static str) -> Flag {
    Flag { short: Some(short), long: None, takes, help }
}

/// tini's flags with tini's meaning, then those that print and exit.
pub(super) static FLAGS: [Flag; 9] = [
    short('s', "", "Accepted for tini: castoff becomes a subreaper whenever it has to."),
    short('g', "", "Signals go to the child's process group, not to the child alone."),
    short('e', "CODE", "Exit with 0 when the child exits with CODE. Repeatable."),
    short('p', "SIGNAL", "castoff gets SIGNAL when its own parent dies."),
    short('v', "", "One level more log. Repeatable."),
    short('w', "", "Warn about each orphan that is reaped."),
    Flag { short: Some('h'), long: Some("help"), takes: "", help: "Print this text and exit." },
    Flag {
        short: Some('V'),
        long: Some("version"),
        takes: "",
        help: "Print the version and exit.",
    },
    Flag {
        short: None,
        long: Some("print-config"),
        takes: "",
        help: "Print every setting with its origin as TOML and exit; COMMAND is not needed.",
    },
];

impl Setting {
    /// The row of that key.
    pub(super) fn of(key: Key) -> &'static Self {
        // A test finds a row for every key, so the first row stands in for none.
        SETTINGS.iter().find(|setting| setting.key == key).unwrap_or(&SETTINGS[0])
    }

    /// `CASTOFF_GRACE_PERIOD`
    pub(super) fn variable_name(&self) -> String {
        format!("CASTOFF_{}", self.word.to_ascii_uppercase())
    }

    /// `--grace-period`
    pub(super) fn flag_name(&self) -> String {
        format!("--{}", self.word.replace('_', "-"))
    }

    /// The setting of the variable `CASTOFF_` + `suffix`. Allocates nothing:
    /// every variable of the environment that begins with CASTOFF_ comes here.
    pub(super) fn by_variable(suffix: &[u8]) -> Option<&'static Self> {
        let is =
            |word: &str| suffix.iter().copied().eq(word.bytes().map(|b| b.to_ascii_uppercase()));
        SETTINGS.iter().find(|setting| is(setting.word))
    }

    /// The setting of the flag `--` + `name`.
    pub(super) fn by_flag(name: &str) -> Option<&'static Self> {
        let dashed = |b| if b == b'_' { b'-' } else { b };
        SETTINGS.iter().find(|setting| name.bytes().eq(setting.word.bytes().map(dashed)))
    }

    /// The setting of that TOML key. A file cannot name another file.
    pub(super) fn by_key(word: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.word == word && setting.key != Key::Config)
    }
}

/// The known word that `word` was most likely meant to be, if any resembles it.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Below this, what is nearest has only letters in common with what was meant.
    const RESEMBLES: f64 = 0.8;
    known
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= RESEMBLES)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_name_is_well_formed_and_unique() {
        let mut seen = HashSet::new();
        for setting in &SETTINGS {
            let word = setting.word;
            assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{word}");
            assert!(
                !word.starts_with('_') && !word.ends_with('_') && !word.contains("__"),
                "{word}"
            );
            assert!(seen.insert(word), "{word} twice");
            let variable = setting.variable_name();
            // The first belongs to the file form; Kubernetes injects variables of the others.
            for taken in ["_FILE", "_PORT", "_SERVICE_HOST", "_SERVICE_PORT"] {
                assert!(!variable.ends_with(taken), "{variable}");
            }
        }
        for flag in &FLAGS {
            assert!(flag.long.is_none_or(|long| seen.insert(long)), "{flag:?} twice");
        }
        let shorts: HashSet<_> = FLAGS.iter().filter_map(|flag| flag.short).collect();
        assert_eq!(shorts.len(), FLAGS.iter().filter(|flag| flag.short.is_some()).count());
    }

    #[test]
    fn every_row_is_documented() {
        for setting in &SETTINGS {
            for text in [setting.takes, setting.default, setting.expected, setting.help] {
                assert!(!text.is_empty(), "{}", setting.word);
            }
            assert!(
                setting.help.ends_with('.') && !setting.help.contains("  "),
                "{}",
                setting.word
            );
            assert!(!setting.expected.ends_with('.'), "{}", setting.word);
            // Both stand in a cell of a Markdown table.
            assert!(!(setting.help.contains('|') || setting.default.contains('|')));
        }
        assert!(FLAGS.iter().all(|flag| flag.help.ends_with('.')));
    }

    #[test]
    fn every_setting_is_found_by_each_of_its_names() {
        for setting in &SETTINGS {
            let key = Some(setting.key);
            assert_eq!(key, Some(Setting::of(setting.key).key));
            let variable = setting.variable_name();
            let suffix = variable.strip_prefix("CASTOFF_").unwrap();
            assert_eq!(key, Setting::by_variable(suffix.as_bytes()).map(|found| found.key));
            let flag = setting.flag_name();
            let name = flag.strip_prefix("--").unwrap();
            assert_eq!(key, Setting::by_flag(name).map(|found| found.key));
            let by_key = Setting::by_key(setting.word).map(|found| found.key);
            assert_eq!(by_key, key.filter(|key| *key != Key::Config));
        }
        assert!(Setting::by_variable(b"grace_period").is_none());
        assert!(Setting::by_flag("grace_period").is_none());
        assert!(Setting::by_key("grace-period").is_none());
    }

    #[test]
    fn the_nearest_name_is_the_one_that_was_meant() {
        let near = |word| nearest(word, SETTINGS.iter().map(|setting| setting.word));
        for (word, meant) in [
            ("drian_delay", Some("drain_delay")),
            ("grace", Some("grace_period")),
            ("loglevel", Some("log_level")),
            ("stop_signals", Some("stop_signal")),
            ("health_port", Some("health_listen")),
            ("drain_port", Some("drain_ports")),
            ("prestop", Some("pre_stop")),
            ("post_start", Some("post_stop")),
            ("restart_policy", Some("restart")),
            ("max_restarts", None),
            ("rewrites", Some("rewrite")),
            ("exit_code", Some("exit_map")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(near(word), meant, "{word}");
        }
    }
}

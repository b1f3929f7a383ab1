//! The configuration: from arguments and variables to one typed value.
//!
//! Owns the order flag, variable, file, default and the rule that everything
//! wrong is told at once. It reads the files that settings name and nothing
//! else of the system; `run` calls it before anything is started.

mod args;
mod check;
mod environment;
mod error;
mod explain;
mod file;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod help;
mod options;
mod probe;
mod settings;
mod target;
mod value;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use error::ConfigErrors;
pub(crate) use explain::{Explanation, Shown};
pub(crate) use probe::{Asked, ProbeInvocation, Question, load as load_probe};
pub(crate) use value::{DEFAULT_PORT, Listen, LogLevel, TerminationLog, duration_text};

use crate::policy::checks::{CheckRules, Target};
use crate::policy::exit::ExitMap;
use crate::policy::log_style::{ChildLogs, Identity, LogStyle};
use crate::policy::reaction::Reaction;
use crate::policy::restart::RestartRules;
use crate::policy::runtime_env::Sizing;
use crate::policy::signal::{Rewrite, Signal};
use crate::policy::stop_plan::{ReadinessOnStop, StopPlan, StopScope, StopSignal};
use crate::policy::traffic::Ports;
use crate::policy::user::UserSpec;
use args::{CommandLine, Wanted};
use error::ConfigError;
use options::Key;
use settings::{Given, Settings};

/// Everything that was decided before the start.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub(crate) stop_plan: StopPlan,
    pub(crate) drain_ports: Ports,
    pub(crate) readiness_on_stop: ReadinessOnStop,
    /// Signals that begin the stop sequence: at least one, each once, none
    /// that cannot be handled.
    pub(crate) stop_on: Vec<Signal>,
    pub(crate) stop_signal: StopSignal,
    pub(crate) stop_scope: StopScope,
    /// Sent a second before castoff's own SIGKILL; never one that no program
    /// can catch.
    pub(crate) hang_signal: Option<Signal>,
    pub(crate) rewrite: Rewrite,
    pub(crate) exit_map: ExitMap,
    /// In place of the child's own, when it ended because castoff was asked to
    /// stop, and in time.
    pub(crate) stopped_exit_code: Option<u8>,
    pub(crate) hooks: Hooks,
    pub(crate) restart: RestartRules,
    /// Whom the child runs as; `None`: as castoff.
    pub(crate) user: Option<Named<UserSpec>>,
    /// The child's working directory; `None`: castoff's.
    pub(crate) workdir: Option<Named<PathBuf>>,
    /// Their files become variables of the child; `None`: there are none.
    pub(crate) env_dirs: Option<Named<Vec<PathBuf>>>,
    pub(crate) listen: Listen,
    /// The setting that says so, with its value, for errors.
    pub(crate) listen_name: String,
    /// Every check, those that the start waits for included; each name once.
    pub(crate) checks: Vec<CheckRules>,
    /// How long the start may wait; not 0.
    pub(crate) wait_timeout: Duration,
    pub(crate) sizing: Sizing,
    pub(crate) cgroup_root: PathBuf,
    pub(crate) proc_root: PathBuf,
    /// What follows when a limit changes.
    pub(crate) resize_action: Reaction,
    /// Files and directories whose change is told; none, nothing is watched.
    pub(crate) watch: Vec<PathBuf>,
    /// What follows when one of them changes.
    pub(crate) watch_action: Reaction,
    pub(crate) log_level: LogLevel,
    pub(crate) log_style: LogStyle,
    pub(crate) child_logs: ChildLogs,
    /// Whether OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME are completed.
    pub(crate) completes_otel: bool,
    pub(crate) termination_log: TerminationLog,
    /// Signals go to the child's process group (`-g`).
    pub(crate) signal_group: bool,
    /// What castoff gets when its own parent dies (`-p`).
    pub(crate) parent_death_signal: Option<Signal>,
    /// Reaped orphans are worth a warning (`-w`).
    pub(crate) warn_on_orphans: bool,
    /// COMMAND and its arguments; never empty, but in an `Explanation`.
    pub(crate) command: Vec<OsString>,
}

impl Config {
    /// Whether the child gets a NOTIFY_SOCKET.
    pub(crate) fn gives_notify_socket(&self) -> bool {
        let is_told = |target: &Target| matches!(target, Target::Notify | Target::Watchdog(_));
        self.checks.iter().any(|check| is_told(&check.target))
    }
}

/// A value that only the start can tell to be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named<T> {
    pub(crate) value: T,
    /// The setting that says so, with its value, for errors.
    pub(crate) name: String,
}

/// Commands that accompany the child. None is empty, and no word holds a NUL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hooks {
    /// Before the child is started, which it is only when this one succeeds.
    pub(crate) pre_start: Option<Vec<OsString>>,
    /// Before the child's stop signal, within the grace period.
    pub(crate) pre_stop: Option<Vec<OsString>>,
    /// When the child has ended.
    pub(crate) post_stop: Option<Vec<OsString>>,
    /// For each of them; not 0.
    pub(crate) timeout: Duration,
}

/// What follows from several settings together.
#[derive(Clone, Debug)]
struct Derived {
    stop_plan: StopPlan,
    restart: RestartRules,
    checks: Vec<CheckRules>,
    identity: Identity,
}

/// What castoff is to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Invocation {
    Supervise(Box<Config>),
    /// Tell what would be done, and exit with 0.
    Explain(Box<Explanation>),
    /// Write this to stdout and exit with 0.
    Print(String),
}

/// Reads the command line (without castoff's own name), the environment and
/// the files that they name. The errors are everything that is wrong.
pub(crate) fn load(
    args: impl IntoIterator<Item = OsString>,
    env: &[(OsString, OsString)],
) -> Result<Invocation, ConfigErrors> {
    let mut errors = Vec::new();
    let line = args::read(args, &mut errors);
    match line.wanted {
        Wanted::Help if line.is_explain => {
            return Ok(Invocation::Print(help::EXPLAIN.to_owned()));
        }
        Wanted::Help => return Ok(Invocation::Print(help::text())),
        Wanted::Version => {
            let version = concat!("castoff ", env!("CARGO_PKG_VERSION"), "\n");
            return Ok(Invocation::Print(version.to_owned()));
        }
        Wanted::Supervise | Wanted::Explain | Wanted::PrintConfig => {}
    }
    let (mut settings, derived) = resolve(&line, env, &mut errors);
    if line.wanted == Wanted::Supervise && line.command.is_empty() {
        errors.push(ConfigError::NoCommand);
    }
    match derived {
        Some(_) if errors.is_empty() && line.wanted == Wanted::PrintConfig => {
            Ok(Invocation::Print(settings.print()))
        }
        Some(derived) if errors.is_empty() && line.wanted == Wanted::Explain => {
            let (is_json, settings_shown) = (line.is_json, settings.shown());
            let config = assemble(settings, derived, line);
            Ok(Invocation::Explain(Box::new(Explanation {
                config,
                is_json,
                settings: settings_shown,
            })))
        }
        Some(derived) if errors.is_empty() => {
            Ok(Invocation::Supervise(Box::new(assemble(settings, derived, line))))
        }
        _ => {
            let was_to_supervise = line.wanted == Wanted::Supervise;
            let told = was_to_supervise.then_some(settings.termination_log.value);
            Err(ConfigErrors { errors, termination_log: told.unwrap_or(TerminationLog::Off) })
        }
    }
}

/// Applies file, variables and flags, so that the stronger comes later.
fn resolve(
    line: &CommandLine,
    env: &[(OsString, OsString)],
    errors: &mut Vec<ConfigError>,
) -> (Settings, Option<Derived>) {
    let environment = environment::read(env, errors);
    let mut settings = Settings::new(environment.in_kubernetes);
    let given = || environment.given.iter().chain(&line.given).filter(|given| !is_empty(given));

    if let Some(named) = given().rfind(|given| given.setting.key == Key::Config) {
        let path = PathBuf::from(named.text.as_deref().unwrap_or_default());
        let name = named.origin.given(named.setting, &format!("{path:?}"));
        if let Some(text) = file::read(&path, name, errors) {
            let contents = file::parse(&path, &text, errors);
            for given in contents.given.iter().filter(|given| !is_empty(given)) {
                settings.apply(given, errors);
            }
            settings.add_tables(contents.checks);
        }
    }
    for given in given() {
        settings.apply(given, errors);
    }
    if let Some(seconds) = environment.platform_grace {
        settings.apply_platform_grace(seconds, errors);
    }
    settings.adjust(&line.exit_zero_for, line.verbosity);
    let stop_plan = settings.stop_plan(errors);
    let restart = settings.restart_rules(errors);
    let checks = settings.checks(errors);
    let identity = environment.identity;
    let derived = stop_plan.map(|stop_plan| Derived { stop_plan, restart, checks, identity });
    (settings, derived)
}

/// Empty means unset, whoever says it.
fn is_empty(given: &Given<'_>) -> bool {
    given.text.as_deref().is_some_and(|text| text.is_empty())
}

fn assemble(settings: Settings, derived: Derived, line: CommandLine) -> Config {
    let listen_name = settings.listen_name();
    Config {
        stop_plan: derived.stop_plan,
        drain_ports: settings.drain_ports.value,
        readiness_on_stop: settings.readiness_on_stop.value,
        stop_on: settings.stop_on.value.0,
        stop_signal: settings.stop_signal.value,
        stop_scope: settings.stop_scope.value,
        hang_signal: settings.hang_signal.value.0,
        rewrite: settings.rewrite.value,
        exit_map: settings.exit_map.value,
        stopped_exit_code: settings.stopped_exit_code.value.0,
        hooks: Hooks {
            pre_start: settings.pre_start.value.0,
            pre_stop: settings.pre_stop.value.0,
            post_stop: settings.post_stop.value.0,
            timeout: settings.hook_timeout.value.0,
        },
        restart: derived.restart,
        user: settings.user.named(Key::User, |user| user.0),
        workdir: settings.workdir.named(Key::Workdir, |path| path.0),
        env_dirs: settings
            .env_dir
            .named(Key::EnvDir, |paths| Some(paths.0).filter(|paths| !paths.is_empty())),
        checks: derived.checks,
        wait_timeout: settings.wait_timeout.value.0,
        listen_name,
        listen: settings.health_listen.value,
        sizing: Sizing {
            profiles: settings.sizing.value.0,
            rounding: settings.cpu_rounding.value,
            memory_ratio: settings.memory_ratio.value.0,
        },
        cgroup_root: settings.cgroup_root.value,
        proc_root: settings.proc_root.value,
        resize_action: settings.resize_action.value,
        watch: settings.watch.value.0,
        watch_action: settings.watch_action.value,
        log_level: settings.log_level.value,
        log_style: LogStyle {
            format: settings.log_format.value,
            fields: settings.log_fields.value.0,
            identity: derived.identity,
        },
        child_logs: settings.child_logs.value,
        completes_otel: settings.otel_resource.value.0,
        termination_log: settings.termination_log.value,
        signal_group: line.signal_group,
        parent_death_signal: line.parent_death_signal,
        warn_on_orphans: line.warn_on_orphans,
        command: line.command,
    }
}

#[cfg(test)]
mod tests;

//! The values of all settings, each with its origin.
//!
//! Owns the defaults and what follows from several values together. Whoever
//! applies values decides the precedence: the last one stays.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use super::Named;
use super::check::CheckTable;
use super::error::ConfigError;
use super::explain::Shown;
use super::options::{Key, SETTINGS, Setting};
use super::target::{LiveTarget, OneTarget, Targets, target_text};
use super::value::{
    CheckCount, Code, Command, Count, Fields, HangSignal, Listen, LogLevel, OptionalPath, Paths,
    Positive, Profiles, Ratio, StopOn, Switch, TerminationLog, User, Value, Watchdog,
    duration_text, toml_string,
};
use crate::policy::checks::{CheckRules, Level, Target};
use crate::policy::exit::ExitMap;
use crate::policy::log_style::{ChildLogs, LogFormat};
use crate::policy::reaction::Reaction;
use crate::policy::restart::{Restart, RestartRules};
use crate::policy::runtime_env::{Profile, Rounding};
use crate::policy::signal::{Rewrite, Signal};
use crate::policy::stop_plan::{
    BadPlan, DrainPlan, ReadinessOnStop, StopPlan, StopScope, StopSignal,
};
use crate::policy::traffic::Ports;

/// What the platform may tell about its grace period.
pub(super) const PLATFORM_GRACE: &str = "TERMINATION_GRACE_PERIOD_SECONDS";

/// Names of what every level has, and of checks that have a setting of their
/// own.
const RESERVED_NAMES: [&str; 9] = [
    "child",
    "started",
    "stop",
    "ping",
    "notify",
    "watchdog",
    "startup-check",
    "ready-check",
    "live-check",
];

/// How the names of the checks in a list begin; a number follows, from 1.
const DEPENDS_ON: &str = "depends-on-";
const WAIT_FOR: &str = "wait-for-";

fn is_short_name(name: &str) -> bool {
    [DEPENDS_ON, WAIT_FOR].iter().any(|start| name.starts_with(start))
}

/// Characters of a value that an error shows.
const SHOWN: usize = 80;

/// The column of `--print-config` beyond which origins are not aligned.
const WIDEST: usize = 50;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    DefaultInKubernetes,
    /// `TERMINATION_GRACE_PERIOD_SECONDS`
    Platform,
    Variable,
    /// The variable's `_FILE` form, with the path that it names.
    VariableFile(PathBuf),
    Flag,
    /// The configuration file, with its path and the line, from 1.
    File(PathBuf, usize),
}

impl Origin {
    /// For the comments of `--print-config`.
    fn describe(&self, setting: &Setting) -> String {
        match self {
            Self::Default => "default".to_owned(),
            Self::DefaultInKubernetes => "default in Kubernetes".to_owned(),
            Self::Platform => PLATFORM_GRACE.to_owned(),
            Self::Variable => setting.variable_name(),
            Self::VariableFile(path) => {
                format!("{}_FILE={}", setting.variable_name(), path.display())
            }
            Self::Flag => setting.flag_name(),
            Self::File(path, line) => format!("{}:{line}", path.display()),
        }
    }

    /// For errors: the setting as the user wrote it, with its value.
    pub(super) fn given(&self, setting: &Setting, value: &str) -> String {
        let variable = setting.variable_name();
        match self {
            Self::Platform => format!("{PLATFORM_GRACE}={value}"),
            Self::Variable => format!("{variable}={value}"),
            Self::Flag => format!("{}={value}", setting.flag_name()),
            Self::File(..) => format!("{} = {value} ({})", setting.word, self.describe(setting)),
            Self::Default | Self::DefaultInKubernetes | Self::VariableFile(_) => {
                format!("{variable}={value} ({})", self.describe(setting))
            }
        }
    }
}

/// A value that somebody gave, not yet understood.
#[derive(Debug)]
pub(super) struct Given<'a> {
    pub(super) setting: &'static Setting,
    /// In the syntax of variables; `None` when it cannot be put so.
    pub(super) text: Option<Cow<'a, OsStr>>,
    pub(super) origin: Origin,
    /// The TOML source of the value, for errors.
    pub(super) source: Option<&'a str>,
}

impl Given<'_> {
    /// The error for a value that is not what the setting expects.
    /// Of a long list only the `culprit`, where it is known.
    pub(super) fn refused(&self, culprit: Option<String>) -> ConfigError {
        let value = match (culprit, self.source, &self.text) {
            (Some(culprit), _, Some(text)) if text.len() > SHOWN => {
                format!("...{culprit}...")
            }
            (_, Some(source), _) => source.to_owned(),
            (_, None, text) => format!("{:?}", text.as_deref().unwrap_or_default()),
        };
        let given = self.origin.given(self.setting, &shortened(&value));
        ConfigError::Value { given, expected: self.setting.expected }
    }
}

/// A value, and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Sourced<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
    /// A flag that changed the value afterwards: `-e` or `-v`.
    pub(super) adjusted_by: Option<&'static str>,
}

impl<T> Sourced<T> {
    fn default(value: T) -> Self {
        Self { value, origin: Origin::Default, adjusted_by: None }
    }

    /// For errors: the setting as the user wrote it, with the duration it holds.
    fn given(&self, key: Key, duration: Duration) -> String {
        self.origin.given(Setting::of(key), &duration_text(duration))
    }
}

impl<T: Value> Sourced<T> {
    /// What the value holds, if anything, with the setting as the user wrote it.
    pub(super) fn named<U>(self, key: Key, take: impl FnOnce(T) -> Option<U>) -> Option<Named<U>> {
        let name = self.origin.given(Setting::of(key), &self.value.to_toml());
        take(self.value).map(|value| Named { value, name })
    }
}

/// A setting of whatever type.
trait Slot {
    /// False when the text is no such value.
    fn set(&mut self, text: &OsStr, origin: &Origin) -> bool;
    /// See `Value::culprit`.
    fn culprit(&self, text: &OsStr) -> Option<String>;
    /// As TOML; for others to see, without what may be secret.
    fn print(&self, for_others: bool) -> String;
    /// Where it came from, and what changed it afterwards.
    fn origin(&self) -> (&Origin, Option<&'static str>);
}

impl<T: Value> Slot for Sourced<T> {
    fn set(&mut self, text: &OsStr, origin: &Origin) -> bool {
        let Some(value) = T::parse(text) else { return false };
        *self = Self { value, origin: origin.clone(), adjusted_by: None };
        true
    }

    fn culprit(&self, text: &OsStr) -> Option<String> {
        T::culprit(text)
    }

    fn print(&self, for_others: bool) -> String {
        let shown = if for_others { self.value.shown() } else { None };
        shown.unwrap_or_else(|| self.value.to_toml())
    }

    fn origin(&self) -> (&Origin, Option<&'static str>) {
        (&self.origin, self.adjusted_by)
    }
}

/// Every setting of the table.
#[derive(Debug)]
pub(super) struct Settings {
    config: Sourced<PathBuf>,
    grace_period: Sourced<Duration>,
    kill_reserve: Sourced<Duration>,
    drain_delay: Sourced<Duration>,
    drain_max: Sourced<Duration>,
    drain_quiet: Sourced<Positive>,
    pub(super) drain_ports: Sourced<Ports>,
    pub(super) readiness_on_stop: Sourced<ReadinessOnStop>,
    pub(super) stop_on: Sourced<StopOn>,
    pub(super) stop_signal: Sourced<StopSignal>,
    pub(super) stop_scope: Sourced<StopScope>,
    pub(super) hang_signal: Sourced<HangSignal>,
    pub(super) rewrite: Sourced<Rewrite>,
    pub(super) exit_map: Sourced<ExitMap>,
    pub(super) stopped_exit_code: Sourced<Code>,
    pub(super) pre_start: Sourced<Command>,
    pub(super) pre_stop: Sourced<Command>,
    pub(super) post_stop: Sourced<Command>,
    pub(super) hook_timeout: Sourced<Positive>,
    restart: Sourced<Restart>,
    restart_min: Sourced<Positive>,
    restart_max: Sourced<Positive>,
    restart_limit: Sourced<Count>,
    pub(super) user: Sourced<User>,
    pub(super) workdir: Sourced<OptionalPath>,
    pub(super) env_dir: Sourced<Paths>,
    pub(super) watch: Sourced<Paths>,
    pub(super) watch_action: Sourced<Reaction>,
    pub(super) health_listen: Sourced<Listen>,
    ready_check: Sourced<OneTarget>,
    live_check: Sourced<LiveTarget>,
    startup_check: Sourced<OneTarget>,
    depends_on: Sourced<Targets>,
    wait_for: Sourced<Targets>,
    pub(super) wait_timeout: Sourced<Positive>,
    check_period: Sourced<Positive>,
    check_timeout: Sourced<Positive>,
    check_failures: Sourced<CheckCount>,
    check_successes: Sourced<CheckCount>,
    notify: Sourced<Switch>,
    watchdog: Sourced<Watchdog>,
    pub(super) sizing: Sourced<Profiles>,
    pub(super) cpu_rounding: Sourced<Rounding>,
    pub(super) memory_ratio: Sourced<Ratio>,
    pub(super) cgroup_root: Sourced<PathBuf>,
    pub(super) proc_root: Sourced<PathBuf>,
    pub(super) resize_action: Sourced<Reaction>,
    pub(super) log_level: Sourced<LogLevel>,
    pub(super) log_format: Sourced<LogFormat>,
    pub(super) log_fields: Sourced<Fields>,
    pub(super) child_logs: Sourced<ChildLogs>,
    pub(super) otel_resource: Sourced<Switch>,
    pub(super) termination_log: Sourced<TerminationLog>,
    /// The `[[check]]` tables of the file.
    tables: Vec<CheckTable>,
    /// What was refused: nothing follows from these values.
    refused: Vec<Key>,
}

impl Settings {
    /// The defaults, which differ in Kubernetes.
    pub(super) fn new(in_kubernetes: bool) -> Self {
        let by_place = |kubernetes, elsewhere| Sourced {
            value: Duration::from_secs(if in_kubernetes { kubernetes } else { elsewhere }),
            origin: if in_kubernetes { Origin::DefaultInKubernetes } else { Origin::Default },
            adjusted_by: None,
        };
        Self {
            config: Sourced::default(PathBuf::new()),
            grace_period: by_place(30, 10),
            kill_reserve: Sourced::default(Duration::ZERO),
            drain_delay: by_place(5, 0),
            drain_max: Sourced::default(Duration::ZERO),
            drain_quiet: Sourced::default(Positive(Duration::from_secs(1))),
            drain_ports: Sourced::default(Ports::Auto),
            readiness_on_stop: Sourced::default(ReadinessOnStop::Immediate),
            stop_on: Sourced::default(StopOn(vec![Signal::TERM, Signal::INT])),
            stop_signal: Sourced::default(StopSignal::Received),
            stop_scope: Sourced::default(StopScope::Child),
            hang_signal: Sourced::default(HangSignal(None)),
            rewrite: Sourced::default(Rewrite::default()),
            exit_map: Sourced::default(ExitMap::default()),
            stopped_exit_code: Sourced::default(Code(None)),
            pre_start: Sourced::default(Command(None)),
            pre_stop: Sourced::default(Command(None)),
            post_stop: Sourced::default(Command(None)),
            hook_timeout: Sourced::default(Positive(Duration::from_secs(30))),
            restart: Sourced::default(Restart::Never),
            restart_min: Sourced::default(Positive(Duration::from_millis(500))),
            restart_max: Sourced::default(Positive(Duration::from_secs(30))),
            restart_limit: Sourced::default(Count(0)),
            user: Sourced::default(User(None)),
            workdir: Sourced::default(OptionalPath(None)),
            env_dir: Sourced::default(Paths(Vec::new())),
            watch: Sourced::default(Paths(Vec::new())),
            watch_action: Sourced::default(Reaction::Signal(Signal::HUP)),
            health_listen: Sourced::default(Listen::Default),
            ready_check: Sourced::default(OneTarget(None)),
            live_check: Sourced::default(LiveTarget(None)),
            startup_check: Sourced::default(OneTarget(None)),
            depends_on: Sourced::default(Targets(Vec::new())),
            wait_for: Sourced::default(Targets(Vec::new())),
            wait_timeout: Sourced::default(Positive(Duration::from_secs(60))),
            check_period: Sourced::default(Positive(Duration::from_secs(5))),
            check_timeout: Sourced::default(Positive(Duration::from_secs(1))),
            check_failures: Sourced::default(CheckCount(3)),
            check_successes: Sourced::default(CheckCount(1)),
            notify: Sourced::default(Switch(false)),
            watchdog: Sourced::default(Watchdog(None)),
            sizing: Sourced::default(Profiles(Profile::DEFAULT.to_vec())),
            cpu_rounding: Sourced::default(Rounding::Auto),
            memory_ratio: Sourced::default(Ratio(0.9)),
            cgroup_root: Sourced::default("/sys/fs/cgroup".into()),
            proc_root: Sourced::default("/proc".into()),
            resize_action: Sourced::default(Reaction::Log),
            log_level: Sourced::default(LogLevel::Info),
            log_format: Sourced::default(LogFormat::Json),
            log_fields: Sourced::default(Fields::default()),
            child_logs: Sourced::default(ChildLogs::Inherit),
            otel_resource: Sourced::default(Switch(false)),
            termination_log: Sourced::default(TerminationLog::Default),
            tables: Vec::new(),
            refused: Vec::new(),
        }
    }

    fn slot(&mut self, key: Key) -> &mut dyn Slot {
        match key {
            Key::Config => &mut self.config,
            Key::GracePeriod => &mut self.grace_period,
            Key::KillReserve => &mut self.kill_reserve,
            Key::DrainDelay => &mut self.drain_delay,
            Key::DrainMax => &mut self.drain_max,
            Key::DrainQuiet => &mut self.drain_quiet,
            Key::DrainPorts => &mut self.drain_ports,
            Key::ReadinessOnStop => &mut self.readiness_on_stop,
            Key::StopOn => &mut self.stop_on,
            Key::StopSignal => &mut self.stop_signal,
            Key::StopScope => &mut self.stop_scope,
            Key::HangSignal => &mut self.hang_signal,
            Key::Rewrite => &mut self.rewrite,
            Key::ExitMap => &mut self.exit_map,
            Key::StoppedExitCode => &mut self.stopped_exit_code,
            Key::PreStart => &mut self.pre_start,
            Key::PreStop => &mut self.pre_stop,
            Key::PostStop => &mut self.post_stop,
            Key::HookTimeout => &mut self.hook_timeout,
            Key::Restart => &mut self.restart,
            Key::RestartMin => &mut self.restart_min,
            Key::RestartMax => &mut self.restart_max,
            Key::RestartLimit => &mut self.restart_limit,
            Key::User => &mut self.user,
            Key::Workdir => &mut self.workdir,
            Key::EnvDir => &mut self.env_dir,
            Key::Watch => &mut self.watch,
            Key::WatchAction => &mut self.watch_action,
            Key::HealthListen => &mut self.health_listen,
            Key::ReadyCheck => &mut self.ready_check,
            Key::LiveCheck => &mut self.live_check,
            Key::StartupCheck => &mut self.startup_check,
            Key::DependsOn => &mut self.depends_on,
            Key::WaitFor => &mut self.wait_for,
            Key::WaitTimeout => &mut self.wait_timeout,
            Key::CheckPeriod => &mut self.check_period,
            Key::CheckTimeout => &mut self.check_timeout,
            Key::CheckFailures => &mut self.check_failures,
            Key::CheckSuccesses => &mut self.check_successes,
            Key::Notify => &mut self.notify,
            Key::Watchdog => &mut self.watchdog,
            Key::Sizing => &mut self.sizing,
            Key::CpuRounding => &mut self.cpu_rounding,
            Key::MemoryRatio => &mut self.memory_ratio,
            Key::CgroupRoot => &mut self.cgroup_root,
            Key::ProcRoot => &mut self.proc_root,
            Key::ResizeAction => &mut self.resize_action,
            Key::LogLevel => &mut self.log_level,
            Key::LogFormat => &mut self.log_format,
            Key::LogFields => &mut self.log_fields,
            Key::ChildLogs => &mut self.child_logs,
            Key::OtelResource => &mut self.otel_resource,
            Key::TerminationLog => &mut self.termination_log,
        }
    }

    /// Replaces a value. Every value that is given must be right, even one
    /// that another will replace: it is a mistake somewhere.
    pub(super) fn apply(&mut self, given: &Given<'_>, errors: &mut Vec<ConfigError>) {
        let key = given.setting.key;
        let text = given.text.as_deref();
        if !text.is_some_and(|text| self.slot(key).set(text, &given.origin)) {
            let culprit = text.and_then(|text| self.slot(key).culprit(text));
            errors.push(given.refused(culprit));
            self.refused.push(key);
        }
    }

    /// Takes the grace period from the platform when nobody set it.
    pub(super) fn apply_platform_grace(&mut self, text: &OsString, errors: &mut Vec<ConfigError>) {
        let is_default =
            matches!(self.grace_period.origin, Origin::Default | Origin::DefaultInKubernetes);
        if is_default && !self.refused.contains(&Key::GracePeriod) {
            let setting = Setting::of(Key::GracePeriod);
            let text = Some(Cow::Borrowed(text.as_os_str()));
            let given = Given { setting, text, origin: Origin::Platform, source: None };
            self.apply(&given, errors);
        }
    }

    /// Adds what `-e` and `-v` say to whatever was set.
    pub(super) fn adjust(&mut self, exit_zero_for: &[u8], verbosity: usize) {
        for code in exit_zero_for {
            self.exit_map.value.insert(*code, 0);
            self.exit_map.adjusted_by = Some("-e");
        }
        if verbosity > 0 {
            self.log_level.value = self.log_level.value.raised(verbosity);
            self.log_level.adjusted_by = Some("-v");
        }
    }

    /// Divides the grace period, after every value was applied. `None` when an
    /// error says why it cannot be done.
    pub(super) fn stop_plan(&mut self, errors: &mut Vec<ConfigError>) -> Option<StopPlan> {
        let parts = [Key::GracePeriod, Key::KillReserve, Key::DrainDelay, Key::DrainMax];
        if parts.iter().any(|key| self.refused.contains(key)) {
            return None;
        }
        if self.kill_reserve.origin == Origin::Default {
            self.kill_reserve.value = StopPlan::default_reserve(self.grace_period.value);
        }
        let is_fixed = self.drain_max.origin == Origin::Default;
        if is_fixed {
            self.drain_max.value = self.drain_delay.value;
        }
        let (grace, reserve) = (&self.grace_period, &self.kill_reserve);
        let (delay, max) = (&self.drain_delay, &self.drain_max);
        let drain =
            DrainPlan { delay: delay.value, max: max.value, quiet: self.drain_quiet.value.0 };
        let given = |key, duration: &Sourced<Duration>| duration.given(key, duration.value);
        match StopPlan::new(grace.value, drain, reserve.value) {
            Ok(plan) => return Some(plan),
            Err(BadPlan::MaxBelowDelay) => errors.push(ConfigError::MaxBelowMin {
                max: given(Key::DrainMax, max),
                min: given(Key::DrainDelay, delay),
                least: duration_text(delay.value),
            }),
            Err(BadPlan::DoesNotFit) => errors.push(ConfigError::DoesNotFit {
                grace: given(Key::GracePeriod, grace),
                drain: if is_fixed {
                    given(Key::DrainDelay, delay)
                } else {
                    given(Key::DrainMax, max)
                },
                reserve: given(Key::KillReserve, reserve),
                sum: duration_text(max.value + reserve.value),
                shorten: if is_fixed { "drain delay" } else { "longest drain" },
            }),
        }
        None
    }

    /// The rules of restarts, after every value was applied; an error says what
    /// is wrong with them.
    pub(super) fn restart_rules(&self, errors: &mut Vec<ConfigError>) -> RestartRules {
        let (min, max) = (&self.restart_min, &self.restart_max);
        let parts = [Key::RestartMin, Key::RestartMax];
        let is_known = !parts.iter().any(|key| self.refused.contains(key));
        if is_known && max.value.0 < min.value.0 {
            errors.push(ConfigError::MaxBelowMin {
                max: max.given(Key::RestartMax, max.value.0),
                min: min.given(Key::RestartMin, min.value.0),
                least: duration_text(min.value.0),
            });
        }
        RestartRules {
            restart: self.restart.value,
            min: min.value.0,
            max: max.value.0,
            limit: self.restart_limit.value.0,
        }
    }

    pub(super) fn add_tables(&mut self, tables: Vec<CheckTable>) {
        self.tables.extend(tables);
    }

    /// Every check, those of CASTOFF_WAIT_FOR included, after every value was
    /// applied; errors say which of them cannot stand beside each other.
    pub(super) fn checks(&self, errors: &mut Vec<ConfigError>) -> Vec<CheckRules> {
        let mut checks = Vec::new();
        for table in &self.tables {
            let rules = self.rules_of_table(table);
            let given = || format!("name = {:?} ({})", table.name, table.place);
            if RESERVED_NAMES.contains(&&*table.name) || is_short_name(&table.name) {
                let other = "a check of castoff's own";
                errors.push(ConfigError::SameName { given: given(), other });
            } else if checks.iter().any(|check: &CheckRules| check.name == table.name) {
                errors.push(ConfigError::SameName { given: given(), other: "another check" });
            }
            checks.push(rules);
        }
        for (name, level, target) in self.short_forms() {
            checks.push(self.rules(name, level, target));
        }
        let has_descriptor = |check: &&CheckRules| matches!(check.target, Target::Descriptor(_));
        let mut with_descriptor = checks.iter().filter(has_descriptor);
        if let Some(first) = with_descriptor.next() {
            errors.extend(with_descriptor.map(|second| ConfigError::SecondDescriptor {
                target: target_text(&second.target),
                check: second.name.clone(),
                first: first.name.clone(),
            }));
        }
        checks
    }

    fn rules_of_table(&self, table: &CheckTable) -> CheckRules {
        let rules = self.rules(table.name.clone(), table.level, table.target.clone());
        CheckRules {
            period: table.period.unwrap_or(rules.period),
            timeout: table.timeout.unwrap_or(rules.timeout),
            failures: table.failures.unwrap_or(rules.failures),
            successes: table.successes.unwrap_or(rules.successes),
            ..rules
        }
    }

    fn rules(&self, name: String, level: Level, target: Target) -> CheckRules {
        CheckRules {
            name,
            level,
            target,
            period: self.check_period.value.0,
            timeout: self.check_timeout.value.0,
            failures: self.check_failures.value.0,
            successes: self.check_successes.value.0,
        }
    }

    /// The checks that have a setting of their own. Their names say which, and
    /// nothing of its value: the endpoints tell them to everybody.
    fn short_forms(&self) -> Vec<(String, Level, Target)> {
        let one = |name: &str, level, target: &Option<Target>| {
            target.clone().map(|target| (name.to_owned(), level, target))
        };
        let many = |name: &str, level, targets: &Targets| {
            let named = |(nth, target): (usize, &Target)| {
                (format!("{name}{}", nth + 1), level, target.clone())
            };
            targets.0.iter().enumerate().map(named).collect::<Vec<_>>()
        };
        let notify = self.notify.value.0.then_some(Target::Notify);
        let watchdog = self.watchdog.value.0.map(Target::Watchdog);
        [
            one("startup-check", Level::Startup, &self.startup_check.value.0),
            one("notify", Level::Ready, &notify),
            one("ready-check", Level::Ready, &self.ready_check.value.0),
            one("live-check", Level::Live, &self.live_check.value.0),
            one("watchdog", Level::Live, &watchdog),
        ]
        .into_iter()
        .flatten()
        .chain(many(DEPENDS_ON, Level::Dependency, &self.depends_on.value))
        .chain(many(WAIT_FOR, Level::Wait, &self.wait_for.value))
        .collect()
    }

    /// Every setting as a line of TOML, with its origin as a comment. castoff
    /// accepts the text as CASTOFF_CONFIG.
    pub(super) fn print(&mut self) -> String {
        let mut lines = Vec::with_capacity(SETTINGS.len());
        for setting in &SETTINGS {
            let value = self.slot(setting.key).print(false);
            let origin = self.origin(setting).0;
            let comment = if self.is_only_shown(setting.key) { "# " } else { "" };
            lines.push((format!("{comment}{} = {value}", setting.word), origin));
        }
        // A long command must not push every origin off the screen.
        let widths = lines.iter().map(|(line, _)| line.len()).filter(|width| *width <= WIDEST);
        let width = widths.max().unwrap_or(0);
        let mut text = String::new();
        for (line, origin) in lines {
            let origin = origin.escape_debug();
            let _ = writeln!(text, "{line:width$}   # {origin}");
        }
        for table in &self.tables {
            text.push_str(&self.print_table(table));
        }
        text
    }

    /// Every setting, for `castoff explain`.
    pub(super) fn shown(&mut self) -> Vec<Shown> {
        let mut settings = Vec::with_capacity(SETTINGS.len());
        for setting in &SETTINGS {
            let value = self.slot(setting.key).print(true);
            let (origin, is_default) = self.origin(setting);
            settings.push(Shown { word: setting.word, value, origin, is_default });
        }
        settings
    }

    /// In words, and whether it is the default.
    fn origin(&mut self, setting: &Setting) -> (String, bool) {
        let (origin, adjusted_by) = self.slot(setting.key).origin();
        let mut words = origin.describe(setting);
        if let Some(flag) = adjusted_by {
            let _ = write!(words, ", {flag}");
        }
        (words, *origin == Origin::Default && adjusted_by.is_none())
    }

    /// Last: whatever follows a table's head belongs to the table.
    fn print_table(&self, table: &CheckTable) -> String {
        let CheckRules { name, level, target, period, timeout, failures, successes } =
            self.rules_of_table(table);
        let mut text = format!("\n[[check]]   # {}\n", table.place.escape_debug());
        for (key, value) in [
            ("name", toml_string(&name)),
            ("level", toml_string(level.as_str())),
            ("target", toml_string(&target_text(&target))),
            ("period", toml_string(&duration_text(period))),
            ("timeout", toml_string(&duration_text(timeout))),
            ("failures", failures.to_string()),
            ("successes", successes.to_string()),
        ] {
            let _ = writeln!(text, "{key} = {value}");
        }
        if let Target::Http(http) = &target
            && !http.headers.is_empty()
        {
            let header = |(name, value): &(String, String)| {
                format!("{} = {}", toml_string(name), toml_string(value))
            };
            let headers: Vec<_> = http.headers.iter().map(header).collect();
            let _ = writeln!(text, "headers = {{ {} }}", headers.join(", "));
        }
        text
    }

    /// What must not be read back: a file cannot name another file, and the
    /// default address, once set, would be an error where it cannot be bound.
    fn is_only_shown(&self, key: Key) -> bool {
        match key {
            Key::Config => true,
            Key::HealthListen => self.health_listen.value == Listen::Default,
            Key::TerminationLog => self.termination_log.value == TerminationLog::Default,
            _ => false,
        }
    }

    /// The address of the endpoints as the user gave it, for errors.
    pub(super) fn listen_name(&self) -> String {
        let Sourced { value, origin, .. } = &self.health_listen;
        origin.given(Setting::of(Key::HealthListen), &value.to_toml())
    }
}

/// One line, and not the whole of a file that was named by mistake.
pub(super) fn shortened(value: &str) -> String {
    let line = value.lines().next().unwrap_or_default();
    if line.len() == value.len() && value.chars().count() <= SHOWN {
        return value.to_owned();
    }
    line.chars().take(SHOWN).chain("...".chars()).collect()
}

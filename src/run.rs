//! One life, from the arguments to the exit code, on one screen.
//!
//! Everything that can fail is done before the child is started; whatever fails
//! there ends castoff with 125 and one word about it. Afterwards nothing does.

mod explain;
mod identity;
mod notify;
mod scrape;
mod termination;

use std::ffi::{CString, OsString};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{Notify as Nudge, watch};
use tracing::level_filters::LevelFilter;

use crate::config::{
    self, Config, DEFAULT_PORT, Hooks, Invocation, Listen, LogLevel, ProbeInvocation,
};
use crate::http;
use crate::log::{self, events};
use crate::policy::checks::{Level, Target};
use crate::policy::exit::CASTOFF_FAILED;
use crate::policy::hooks::HookRules;
use crate::policy::lifecycle::{Lifecycle, Rules, WaitRules};
use crate::policy::limits::Limits;
use crate::policy::program::Program;
use crate::policy::reaction::Reaction;
use crate::policy::runtime_env::{self, Surroundings};
use crate::policy::signal::Signal;
use crate::policy::status::Status;
use crate::policy::statusz::About;
use crate::policy::stop_plan::StopScope;
use crate::policy::timeline::{Request, timeline};
use crate::policy::user::Stranger;
use crate::probe;
use crate::supervisor::{
    Accepted, Checks, Commands, Environment, ExportRule, Launcher, LimitSetting, Parts, Scraped,
    Setting, Supervisor, Traffic, Witness,
};
use crate::system::cgroup::{self, Detected, LimitFiles, Roots};
use crate::system::child;
use crate::system::oom_score::OomScore;
use crate::system::signals::Signals;
use crate::system::terminal::Terminal;
use crate::system::{descriptors, entry, env_dir, oom_score, program, subreaper, tree};

/// How long the loop rests after a panic; the endpoints go on meanwhile.
const AFTER_PANIC_DELAY: Duration = Duration::from_millis(10);

/// Runs castoff and returns its exit code.
pub(crate) fn run() -> u8 {
    let mask = entry::block_signals();
    descriptors::occupy_standard_descriptors();
    let environment: Vec<_> = std::env::vars_os().collect();
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some((first, rest)) = args.split_first()
        && first == "probe"
    {
        entry::unblock_signals(mask);
        return probe(rest, &environment);
    }
    match config::load(args, &environment) {
        Ok(Invocation::Print(text)) => print(&text),
        Ok(Invocation::Explain(explanation)) => {
            entry::unblock_signals(mask);
            explain::explain(&explanation)
        }
        Ok(Invocation::Supervise(config)) => launch(&config, mask).unwrap_or_else(|failure| {
            let _ = writeln!(io::stderr(), "castoff: {failure}");
            termination::leave_word(&config.termination_log, &failure.to_string());
            CASTOFF_FAILED
        }),
        Err(errors) => {
            let _ = writeln!(io::stderr(), "{errors}");
            termination::leave_word(errors.termination_log(), &errors.in_short());
            CASTOFF_FAILED
        }
    }
}

/// Asks another castoff, and returns 0 or 1: Docker has a meaning of its own for
/// any other code of a HEALTHCHECK.
fn probe(args: &[OsString], environment: &[(OsString, OsString)]) -> u8 {
    let failure = match config::load_probe(args, environment) {
        Ok(ProbeInvocation::Print(text)) => return print(text).min(1),
        Ok(ProbeInvocation::Ask(question)) => match probe::ask(&question) {
            Ok(()) => return 0,
            Err(failure) => format!("not {}: {failure}", question.asked.as_str()),
        },
        Err(error) => error.to_string(),
    };
    // One line, whatever a path or a value holds.
    let line: String = failure.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let _ = writeln!(io::stderr(), "castoff: {line}");
    1
}

/// Why there is nothing to supervise.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot listen on {0}: {1}")]
    Listen(String, io::Error),
    #[error("cannot make the event loop: {0}")]
    Loop(io::Error),
    #[error("cannot watch for signals: {0}")]
    Signals(io::Error),
    #[error("cannot listen to the child: {0}")]
    Notify(io::Error),
    #[error("cannot use {0}: {1}")]
    User(String, Stranger),
    #[error("cannot use {0}: {1}")]
    Workdir(String, io::Error),
    #[error("cannot use {0}: {1}")]
    EnvDir(String, env_dir::Failure),
}

/// Gets everything ready, starts the child and supervises it.
fn launch(config: &Config, mask: u64) -> Result<u8, Failure> {
    let started_at = Instant::now();
    log::init(filter(config.log_level));
    let switch = identity::switch(config)?;
    let directory = identity::directory(config)?;
    let ready = prepare(config)?;
    let user = identity::prepare(switch.as_ref());
    let mut environment = Environment::new(directories(config), switch, export_rule(config));
    announce(config, &ready, &mut environment)?;
    let notify = {
        let _context = ready.runtime.enter();
        let uid = user.as_ref().map(|user| user.uid);
        notify::open(config, uid, &mut environment).map_err(Failure::Notify)?
    };
    let about = about(config, started_at);
    let launcher = Launcher {
        command: c_strings(&config.command),
        environment,
        user,
        directory,
        oom_score: protect(config, &ready.detected.limits),
        mask,
        dispositions: ready.signals.inherited_dispositions().to_vec(),
        terminal: Terminal::controlling(),
    };
    let (files, nudge) = (Rc::new(ready.detected.files), Rc::new(Nudge::new()));
    let limits = limits(config, ready.detected.limits.clone(), &files, &nudge);
    let exports = launcher.environment.exported();
    let (status, watcher) =
        watch::channel(Status { exports, ..Status::new(ready.detected.limits) });
    let lifecycle = Lifecycle::new(rules(config), Instant::now());
    let accepted = Accepted::default();
    let traffic = Traffic::new(
        config.drain_ports.clone(),
        ready.address.map(|address| address.port()),
        Rc::clone(&accepted),
        config.proc_root.clone(),
        config.stop_plan.drain.is_adaptive(),
    );
    let checks =
        Checks::new(config.checks.clone(), config.wait_timeout, seed(), config.proc_root.clone());
    let scraped = Scraped::default();
    let witness = Witness::new(
        ready.detected.groups.clone(),
        config.exit_map.clone(),
        termination::log(&config.termination_log),
        started_at,
        Rc::clone(&scraped),
    );
    let parts = Parts {
        lifecycle,
        launcher,
        commands: commands(&config.hooks),
        signals: ready.signals,
        traffic,
        checks,
        notify,
        limits,
        witness,
        status: status.clone(),
    };
    let mut supervisor = Supervisor::new(setting(config), parts);
    if let Some(listener) = ready.listener {
        let connections_max = http::connections_max(descriptors::limit());
        let proc_root = config.proc_root.clone();
        let groups = ready.detected.groups;
        let usage = scrape::usage(groups, proc_root, files, status, nudge, scraped);
        let serve = http::serve(listener, connections_max, watcher, about, usage, accepted);
        ready.runtime.spawn_local(async move {
            let Err(error) = serve.await;
            events::listen_failed(address_text(ready.address), error);
        });
    }
    let code = supervise(&ready.runtime, &mut supervisor);
    supervisor.release_terminal();
    if let Some(failure) = supervisor.failure() {
        let _ = writeln!(io::stderr(), "castoff: {failure}");
    }
    supervisor.leave_last_word(code);
    events::exiting(code, supervisor.stop_requested_at().map(|at| at.elapsed()));
    Ok(code)
}

fn rules(config: &Config) -> Rules {
    let Hooks { pre_start, pre_stop, post_stop, timeout } = &config.hooks;
    Rules {
        stop_plan: config.stop_plan,
        readiness_on_stop: config.readiness_on_stop,
        stop_signal: config.stop_signal,
        rewrite: config.rewrite.clone(),
        hang_signal: config.hang_signal,
        exit_map: config.exit_map.clone(),
        stopped_exit_code: config.stopped_exit_code,
        wait: wait(config),
        hooks: HookRules {
            has_pre_start: pre_start.is_some(),
            has_pre_stop: pre_stop.is_some(),
            has_post_stop: post_stop.is_some(),
            timeout: *timeout,
        },
        restart: config.restart,
        seed: seed(),
    }
}

/// Std's hash maps are seeded by the kernel: replicas differ.
fn seed() -> u64 {
    RandomState::new().hash_one(0)
}

/// What the start waits for, if anything.
fn wait(config: &Config) -> Option<WaitRules> {
    let mut waits = config.checks.iter().filter(|check| check.level == Level::Wait).peekable();
    waits.peek()?;
    let runs_commands = waits.any(|check| matches!(check.target, Target::Exec(_)));
    Some(WaitRules { timeout: config.wait_timeout, runs_commands })
}

/// What `/statusz` tells besides the status.
fn about(config: &Config, started_at: Instant) -> About {
    let rules = rules(config);
    let timeline = |is_serving| {
        let signal = config.stop_on.first().copied().unwrap_or(Signal::TERM);
        let to_group = config.signal_group || config.stop_scope == StopScope::Group;
        timeline(&rules, Request { signal, to_group, is_serving }, started_at)
    };
    About { started_at, timeline: timeline(true), early_timeline: timeline(false) }
}

fn setting(config: &Config) -> Setting {
    Setting {
        stop_on: config.stop_on.clone(),
        to_group: config.signal_group,
        stop_to_group: config.stop_scope == StopScope::Group,
        rewrite: config.rewrite.clone(),
        warn_on_orphans: config.warn_on_orphans,
        proc_root: config.proc_root.clone(),
    }
}

fn commands(hooks: &Hooks) -> Commands {
    let of = |hook: &Option<Vec<OsString>>| hook.as_deref().map(c_strings).unwrap_or_default();
    Commands {
        pre_start: of(&hooks.pre_start),
        pre_stop: of(&hooks.pre_stop),
        post_stop: of(&hooks.post_stop),
    }
}

/// What has to be known of limits while the child runs.
fn limits(
    config: &Config,
    limits: Limits,
    files: &Rc<LimitFiles>,
    nudge: &Rc<Nudge>,
) -> LimitSetting {
    let command = match &config.resize_action {
        Reaction::Exec(words) => c_strings(words),
        Reaction::Log | Reaction::Signal(_) | Reaction::Restart => Vec::new(),
    };
    LimitSetting {
        limits,
        files: Rc::clone(files),
        nudge: Rc::clone(nudge),
        reaction: config.resize_action.clone(),
        command,
        timeout: config.hooks.timeout,
    }
}

fn c_strings(words: &[OsString]) -> Vec<CString> {
    words.iter().map(|word| child::c_string(word)).collect()
}

/// What stands before the child is started.
struct Ready {
    is_subreaper: bool,
    detected: Detected,
    listener: Option<TcpListener>,
    address: Option<SocketAddr>,
    /// Of its own thread only, so that the endpoints need no locks.
    runtime: LocalRuntime,
    signals: Signals,
}

fn roots(config: &Config) -> Roots {
    Roots { cgroup: config.cgroup_root.clone(), proc: config.proc_root.clone() }
}

/// Everything that can fail.
fn prepare(config: &Config) -> Result<Ready, Failure> {
    let is_subreaper = adopt(config);
    let detected = cgroup::detect(&roots(config));
    let listener = listen(config)?;
    let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(Failure::Loop)?;
    let signals = {
        let _context = runtime.enter();
        Signals::open(&config.stop_on).map_err(Failure::Signals)?
    };
    Ok(Ready { is_subreaper, detected, listener, address, runtime, signals })
}

/// Logs what castoff is about to do, and gives the child its variables.
///
/// # Errors
/// A directory of variables cannot be used.
fn announce(config: &Config, ready: &Ready, environment: &mut Environment) -> Result<(), Failure> {
    events::castoff_started(&events::Start {
        pid: std::process::id().cast_signed(),
        is_pid1: subreaper::is_pid_1(),
        is_subreaper: ready.is_subreaper,
        grace: config.stop_plan.grace,
        drain: config.stop_plan.drain.delay,
        drain_max: config.stop_plan.drain.max,
        listen: &address_text(ready.address),
    });
    for warning in &ready.detected.warnings {
        events::limits_warning(warning);
    }
    events::limits_detected(&ready.detected.limits);
    read_directories(config, environment)?;
    environment.export(&ready.detected.limits);
    environment.tell_exports();
    Ok(())
}

/// Reads the directories of variables.
///
/// # Errors
/// One cannot be used.
fn read_directories(config: &Config, environment: &mut Environment) -> Result<(), Failure> {
    let Some(directories) = &config.env_dirs else { return Ok(()) };
    let failure = |error| Failure::EnvDir(directories.name.clone(), error);
    environment.read_files().map_err(failure)
}

fn directories(config: &Config) -> Vec<PathBuf> {
    config.env_dirs.as_ref().map(|directories| directories.value.clone()).unwrap_or_default()
}

/// Lets the OOM killer come to castoff last.
fn protect(config: &Config, limits: &Limits) -> Option<OomScore> {
    let limit = limits.memory_bytes.as_ref().map(|limit| limit.value);
    let protected = oom_score::protect(&config.proc_root, limit);
    protected.inspect(|score| events::oom_score_adjusted(score.own, score.started))
}

/// What follows from limits for the child, beside the variables that it gets
/// anyway; asked again when either changes.
fn export_rule(config: &Config) -> ExportRule {
    let (sizing, command) = (config.sizing.clone(), config.command.clone());
    let workdir = config.workdir.as_ref().map(|workdir| workdir.value.clone());
    Box::new(move |limits, environment| {
        let surroundings = Surroundings { environment, command: &command };
        let program = if runtime_env::depend_on_program(limits, &sizing, &surroundings) {
            program::recognise(&c_strings(&command), environment, workdir.as_deref())
        } else {
            Program::default()
        };
        let exports = runtime_env::exports(limits, &sizing, &program, &surroundings);
        (program, exports)
    })
}

/// Runs the loop to its end. A panic in it is a bug, and logged as one, but no
/// reason to take the child down: the loop goes on where it was.
fn supervise(runtime: &LocalRuntime, supervisor: &mut Supervisor) -> u8 {
    let mut has_panicked = false;
    loop {
        let turns = async {
            // Lest one that comes again at once fills the log and takes a processor.
            if has_panicked {
                tokio::time::sleep(AFTER_PANIC_DELAY).await;
            }
            supervisor.supervise().await
        };
        if let Ok(code) = catch_unwind(AssertUnwindSafe(|| runtime.block_on(turns))) {
            return code;
        }
        has_panicked = true;
    }
}

/// Makes the orphans of the child's tree castoff's own; returns whether as a
/// subreaper.
fn adopt(config: &Config) -> bool {
    if let Some(signal) = config.parent_death_signal
        && let Err(error) = subreaper::set_parent_death_signal(signal)
    {
        events::parent_death_signal_failed(signal, error);
    }
    if !tree::can_be_walked(&config.proc_root) {
        events::proc_unusable(config.proc_root.display());
    }
    if subreaper::is_pid_1() {
        return false;
    }
    let adopted = subreaper::become_subreaper();
    if let Err(error) = &adopted {
        events::subreaper_failed(error);
    }
    adopted.is_ok()
}

fn listen(config: &Config) -> Result<Option<TcpListener>, Failure> {
    let bound = match config.listen {
        Listen::Off => return Ok(None),
        Listen::Default => {
            let bound = http::bind_any(DEFAULT_PORT);
            let address = format_args!("[::]:{DEFAULT_PORT}");
            return Ok(bound.map_err(|error| events::listen_failed(address, error)).ok());
        }
        Listen::Port(port) => http::bind_any(port),
        Listen::Address(address) => http::bind(address),
    };
    bound.map(Some).map_err(|error| Failure::Listen(config.listen_name.clone(), error))
}

/// Where the endpoints are, for the log.
fn address_text(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "off".to_owned(), |address| address.to_string())
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Writes what was asked for to stdout; a reader that has gone is no failure.
fn print(text: &str) -> u8 {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => CASTOFF_FAILED,
        _ => 0,
    }
}

//! One life, from the arguments to the exit code, on one screen.
//!
//! Everything that can fail is done before the child is started; whatever fails
//! there ends castoff with 125 and one word about it. Afterwards nothing does.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::watch;
use tracing::level_filters::LevelFilter;

use crate::config::{self, Config, Invocation, Listen, LogLevel};
use crate::http;
use crate::log::{self, events};
use crate::policy::exit::{CASTOFF_FAILED, NOT_EXECUTABLE, NOT_FOUND};
use crate::policy::lifecycle::{Lifecycle, Rules};
use crate::policy::runtime_env;
use crate::policy::status::{PhaseName, SignalCounts, Status, Usage};
use crate::supervisor::{Setting, Supervisor};
use crate::system::cgroup::{self, Groups, Roots};
use crate::system::child::{self, Launch, SpawnError};
use crate::system::signals::Signals;
use crate::system::terminal::Terminal;
use crate::system::{descriptors, entry, environment, subreaper};

/// Runs castoff and returns its exit code.
pub(crate) fn run() -> u8 {
    let mask = entry::block_signals();
    descriptors::occupy_standard_descriptors();
    let environment: Vec<_> = std::env::vars_os().collect();
    match config::load(std::env::args_os().skip(1), &environment) {
        Ok(Invocation::Print(text)) => print(&text),
        Ok(Invocation::Supervise(config)) => launch(&config, mask).unwrap_or_else(|failure| {
            let _ = writeln!(io::stderr(), "castoff: {failure}");
            failure.code()
        }),
        Err(errors) => {
            let _ = writeln!(io::stderr(), "{errors}");
            CASTOFF_FAILED
        }
    }
}

/// Why there is nothing to supervise.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot listen on CASTOFF_HEALTH_LISTEN=\"{0}\": {1}")]
    Listen(SocketAddr, io::Error),
    #[error("cannot watch for signals: {0}")]
    Signals(io::Error),
    #[error("cannot run {0:?}: {1}")]
    Command(OsString, SpawnError),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Command(_, SpawnError::NotFound(_)) => NOT_FOUND,
            Self::Command(_, SpawnError::NotExecutable(_)) => NOT_EXECUTABLE,
            _ => CASTOFF_FAILED,
        }
    }
}

/// Gets everything ready, starts the child and supervises it.
fn launch(config: &Config, mask: u64) -> Result<u8, Failure> {
    log::init(filter(config.log_level));
    let is_subreaper = adopt(config);
    let roots = Roots { cgroup: config.cgroup_root.clone(), proc: config.proc_root.clone() };
    let detected = cgroup::detect(&roots);
    let listener = listen(config.listen)?;
    // Of its own thread only, so that the endpoints need no locks; a `LocalSet`
    // inside another runtime would take part in every turn of the loop.
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(Failure::Signals)?;
    let signals = {
        let _context = runtime.enter();
        Signals::open(&config.stop_on).map_err(Failure::Signals)?
    };

    let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
    events::castoff_started(&events::Start {
        pid: std::process::id().cast_signed(),
        is_pid1: subreaper::is_pid_1(),
        is_subreaper,
        grace: config.stop_plan.grace,
        drain: config.stop_plan.drain_delay,
        listen: address.as_ref().map_or(&"off", |address| address as &dyn Display),
    });
    for warning in &detected.warnings {
        events::limits_warning(warning);
    }
    events::limits_detected(&detected.limits);
    let mut environment = environment::inherited();
    let is_set = |name: &str| std::env::var_os(name).is_some();
    for export in runtime_env::exports(&detected.limits, &config.sizing, is_set) {
        events::env_exported(export.name, &export.value, &export.why);
        environment.push(child::c_string(format!("{}={}", export.name, export.value).as_ref()));
    }

    let terminal = Terminal::controlling();
    let command: Vec<_> = config.command.iter().map(|word| child::c_string(word)).collect();
    let started_at = Instant::now();
    let pid = child::spawn(&Launch {
        command: &command,
        environment: &environment,
        mask,
        dispositions: signals.inherited_dispositions(),
        terminal: terminal.as_ref().filter(|terminal| terminal.has_foreground()),
    })
    .map_err(|error| Failure::Command(name_of(config).to_owned(), error))?;
    events::child_started(pid.as_raw(), name_of(config));

    let rules = Rules {
        stop_plan: config.stop_plan,
        readiness_on_stop: config.readiness_on_stop,
        stop_signal: config.stop_signal,
        exit_map: config.exit_map.clone(),
        has_job_control: terminal.as_ref().is_some_and(Terminal::has_job_control),
    };
    let setting = Setting {
        stop_on: config.stop_on.clone(),
        to_group: config.signal_group,
        warn_on_orphans: config.warn_on_orphans,
        proc_root: config.proc_root.clone(),
        terminal,
    };
    let (status, watcher) = watch::channel(Status {
        phase: PhaseName::Starting,
        is_ready: false,
        was_ready: false,
        child_is_up: false,
        child_started_at: None,
        child_exit: None,
        signals_received: SignalCounts::default(),
        signals_forwarded: SignalCounts::default(),
        orphans_reaped: 0,
        limits: detected.limits,
    });
    let lifecycle = Lifecycle::new(rules, started_at);
    let mut supervisor = Supervisor::new(setting, lifecycle, signals, pid, status);
    if let Some(listener) = listener {
        let serve = http::serve(listener, watcher, usage_of(detected.groups));
        runtime.spawn_local(async move {
            let Err(error) = serve.await;
            events::listen_failed(address.map_or_else(String::new, |a| a.to_string()), error);
        });
    }
    let code = supervise(&runtime, &mut supervisor);
    events::exiting(code, supervisor.stop_requested_at().map(|at| at.elapsed()));
    Ok(code)
}

/// Runs the loop to its end. A panic in it is a bug, and logged as one, but no
/// reason to take the child down: the loop goes on where it was.
fn supervise(runtime: &LocalRuntime, supervisor: &mut Supervisor) -> u8 {
    loop {
        let turns = || runtime.block_on(supervisor.supervise());
        if let Ok(code) = catch_unwind(AssertUnwindSafe(turns)) {
            return code;
        }
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
    if subreaper::is_pid_1() {
        return false;
    }
    let adopted = subreaper::become_subreaper();
    if let Err(error) = &adopted {
        events::subreaper_failed(error);
    }
    adopted.is_ok()
}

fn listen(listen: Listen) -> Result<Option<TcpListener>, Failure> {
    match listen {
        Listen::Off => Ok(None),
        Listen::Address(address) => {
            http::bind(address).map(Some).map_err(|error| Failure::Listen(address, error))
        }
        Listen::Default => {
            let bound = http::bind_default();
            Ok(bound.map_err(|error| events::listen_failed(Listen::DEFAULT, error)).ok())
        }
    }
}

/// What a scrape reads afresh.
fn usage_of(groups: Groups) -> impl Fn() -> Usage + 'static {
    move || Usage { log_lines_dropped: log::dropped(), ..groups.usage() }
}

/// The command as the user wrote it, without its arguments.
fn name_of(config: &Config) -> &OsStr {
    config.command.first().map(OsString::as_os_str).unwrap_or_default()
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

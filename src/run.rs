//! One life, from the arguments to the exit code, on one screen.
//!
//! Everything that can fail is done before the child is started; whatever fails
//! there ends castoff with 125 and one word about it. Afterwards nothing does.

mod explain;
mod identity;
mod notify;
mod parts;
mod ready;
mod scrape;
mod termination;

use std::ffi::OsString;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::runtime::LocalRuntime;
use tokio::sync::{Notify as Nudge, watch};

use crate::config::{self, Config, Invocation, ProbeInvocation};
use crate::http;
use crate::log::{self, events};
use crate::policy::exit::CASTOFF_FAILED;
use crate::policy::lifecycle::Lifecycle;
use crate::policy::limits::Limits;
use crate::policy::status::Status;
use crate::policy::user::Stranger;
use crate::probe;
use crate::supervisor::{
    Accepted, Checks, Environment, Launcher, Parts, Scraped, Supervisor, Traffic, Witness,
};
use crate::system::oom_score::{self, OomScore};
use crate::system::terminal::Terminal;
use crate::system::{descriptors, entry, env_dir, subreaper};
use parts::{c_strings, seed};
use ready::{Ready, address_text};

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
            log::tell(&format!("castoff: {failure}\n"));
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
    #[error("cannot use {0}: {1}, expected a directory that exists")]
    Workdir(String, io::Error),
    #[error("cannot use {0}: {1}")]
    EnvDir(String, env_dir::Failure),
}

/// Gets everything ready, starts the child and supervises it.
fn launch(config: &Config, mask: u64) -> Result<u8, Failure> {
    let started_at = Instant::now();
    log::init(parts::filter(config.log_level), &config.log_style);
    let switch = identity::switch(config)?;
    let directory = identity::directory(config)?;
    let ready = ready::prepare(config)?;
    let user = identity::prepare(switch.as_ref());
    let mut environment =
        Environment::new(identity::directories(config), switch, parts::export_rule(config));
    announce(config, &ready, &mut environment)?;
    let notify = {
        let _context = ready.runtime.enter();
        let uid = user.as_ref().map(|user| user.uid);
        notify::open(config, uid, &mut environment).map_err(Failure::Notify)?
    };
    let about = parts::about(config, started_at);
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
    let limits = parts::limits(ready.detected.limits.clone(), &files, &nudge);
    let exports = launcher.environment.exported();
    let (status, watcher) =
        watch::channel(Status { exports, ..Status::new(ready.detected.limits) });
    let lifecycle = Lifecycle::new(parts::rules(config), Instant::now());
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
    let (relay, lines) = parts::relay(config);
    let witness = Witness::new(
        ready.detected.groups.clone(),
        config.exit_map.clone(),
        termination::log(&config.termination_log),
        started_at,
        Rc::clone(&scraped),
    );
    let built = Parts {
        lifecycle,
        launcher,
        commands: parts::commands(&config.hooks),
        signals: ready.signals,
        traffic,
        checks,
        notify,
        limits,
        relay,
        resize_action: parts::reaction(&config.resize_action, config),
        watch: parts::watch(config),
        watch_action: parts::reaction(&config.watch_action, config),
        witness,
        status: status.clone(),
    };
    let mut supervisor = Supervisor::new(parts::setting(config), built);
    if let Some(listener) = ready.listener {
        let connections_max = http::connections_max(descriptors::limit());
        let proc_root = config.proc_root.clone();
        let groups = ready.detected.groups;
        let usage = scrape::usage(groups, proc_root, files, status, nudge, scraped, lines);
        let serve = http::serve(listener, connections_max, watcher, about, usage, accepted);
        ready.runtime.spawn_local(async move {
            let Err(error) = serve.await;
            events::listen_failed(address_text(ready.address), error);
        });
    }
    let code = supervise(&ready.runtime, &mut supervisor);
    supervisor.release_terminal();
    if let Some(failure) = supervisor.failure() {
        log::tell(&format!("castoff: {failure}\n"));
    }
    supervisor.leave_last_word(code);
    events::exiting(code, supervisor.stop_requested_at().map(|at| at.elapsed()));
    ready.runtime.block_on(supervisor.finish_log());
    Ok(code)
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
    identity::read_directories(config, environment)?;
    if let Some(cause) = parts::otel_warning(config) {
        events::otel_not_completed(cause);
    }
    environment.export(&ready.detected.limits);
    environment.tell_exports();
    Ok(())
}

/// Lets the OOM killer come to castoff last.
fn protect(config: &Config, limits: &Limits) -> Option<OomScore> {
    let limit = limits.memory_bytes.as_ref().map(|limit| limit.value);
    let protected = oom_score::protect(&config.proc_root, limit);
    protected.inspect(|score| events::oom_score_adjusted(score.own, score.started))
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

/// Writes what was asked for to stdout; a reader that has gone is no failure.
fn print(text: &str) -> u8 {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => CASTOFF_FAILED,
        _ => 0,
    }
}

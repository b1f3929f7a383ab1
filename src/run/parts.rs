//! What each part has to know, from the settings.
//!
//! It translates and decides nothing: what a setting means is in `config`, what
//! follows from it in `policy`.

use std::ffi::{CString, OsString};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::Notify as Nudge;
use tracing::level_filters::LevelFilter;

use crate::config::{Config, Hooks, LogLevel};
use crate::policy::checks::{Level, Target};
use crate::policy::hooks::HookRules;
use crate::policy::lifecycle::{Rules, WaitRules};
use crate::policy::limits::Limits;
use crate::policy::log_style::ChildLogs;
use crate::policy::otel;
use crate::policy::program::Program;
use crate::policy::reaction::Reaction;
use crate::policy::runtime_env::{self, Surroundings};
use crate::policy::signal::Signal;
use crate::policy::statusz::About;
use crate::policy::stop_plan::StopScope;
use crate::policy::timeline::{Request, timeline};
use crate::supervisor::{
    Commands, ExportRule, LimitSetting, LineCounts, ReactionSetting, Relay, Setting, WatchSetting,
};
use crate::system::cgroup::{LimitFiles, Roots};
use crate::system::{child, program};

pub(super) fn rules(config: &Config) -> Rules {
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
pub(super) fn seed() -> u64 {
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
pub(super) fn about(config: &Config, started_at: Instant) -> About {
    let rules = rules(config);
    let timeline = |is_serving| {
        let signal = config.stop_on.first().copied().unwrap_or(Signal::TERM);
        let to_group = config.signal_group || config.stop_scope == StopScope::Group;
        timeline(&rules, Request { signal, to_group, is_serving }, started_at)
    };
    About { started_at, timeline: timeline(true), early_timeline: timeline(false) }
}

pub(super) fn setting(config: &Config) -> Setting {
    Setting {
        stop_on: config.stop_on.clone(),
        to_group: config.signal_group,
        stop_to_group: config.stop_scope == StopScope::Group,
        rewrite: config.rewrite.clone(),
        warn_on_orphans: config.warn_on_orphans,
        proc_root: config.proc_root.clone(),
    }
}

pub(super) fn commands(hooks: &Hooks) -> Commands {
    let of = |hook: &Option<Vec<OsString>>| hook.as_deref().map(c_strings).unwrap_or_default();
    Commands {
        pre_start: of(&hooks.pre_start),
        pre_stop: of(&hooks.pre_stop),
        post_stop: of(&hooks.post_stop),
    }
}

/// What has to be known of limits while the child runs.
pub(super) fn limits(limits: Limits, files: &Rc<LimitFiles>, nudge: &Rc<Nudge>) -> LimitSetting {
    LimitSetting { limits, files: Rc::clone(files), nudge: Rc::clone(nudge) }
}

/// The same of watched files.
pub(super) fn watch(config: &Config) -> WatchSetting {
    WatchSetting { paths: config.watch.clone(), proc_root: config.proc_root.clone() }
}

/// What follows when one of these changes.
pub(super) fn reaction(reaction: &Reaction, config: &Config) -> ReactionSetting {
    let command = match reaction {
        Reaction::Exec(words) => c_strings(words),
        Reaction::Log | Reaction::Signal(_) | Reaction::Restart => Vec::new(),
    };
    ReactionSetting { reaction: reaction.clone(), command, timeout: config.hooks.timeout }
}

/// How the child's output gets to castoff's own, and the count of its lines if
/// castoff sees them.
pub(super) fn relay(config: &Config) -> (Relay, Option<Rc<LineCounts>>) {
    match config.child_logs {
        ChildLogs::Inherit => (Relay::none(), None),
        ChildLogs::Json => {
            let counts = Rc::<LineCounts>::default();
            (Relay::new(&config.log_style, Rc::clone(&counts)), Some(counts))
        }
    }
}

pub(super) fn c_strings(words: &[OsString]) -> Vec<CString> {
    words.iter().map(|word| child::c_string(word)).collect()
}

pub(super) fn roots(config: &Config) -> Roots {
    Roots { cgroup: config.cgroup_root.clone(), proc: config.proc_root.clone() }
}

/// What follows from limits and the identity for the child, beside the variables
/// that it gets anyway; asked again when limits or variables change.
pub(super) fn export_rule(config: &Config) -> ExportRule {
    let (sizing, command) = (config.sizing.clone(), config.command.clone());
    let workdir = config.workdir.as_ref().map(|workdir| workdir.value.clone());
    let identity = config.completes_otel.then(|| config.log_style.identity.clone());
    Box::new(move |limits, environment| {
        let surroundings = Surroundings { environment, command: &command };
        let program = if runtime_env::depend_on_program(limits, &sizing, &surroundings) {
            program::recognise(&c_strings(&command), environment, workdir.as_deref())
        } else {
            Program::default()
        };
        let mut exports = runtime_env::exports(limits, &sizing, &program, &surroundings);
        if let Some(identity) = &identity {
            exports.extend(otel::exports(identity, &surroundings));
        }
        (program, exports)
    })
}

/// Why nothing comes of CASTOFF_OTEL_RESOURCE, if it is on.
pub(super) fn otel_warning(config: &Config) -> Option<&'static str> {
    let is_in_vain = config.completes_otel && otel::is_unknown(&config.log_style.identity);
    is_in_vain.then_some(otel::NO_IDENTITY)
}

pub(super) fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

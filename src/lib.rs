//! castoff is PID 1 for containers. Who may import whom:
//!
//! ```text
//! main -> run -> config, log, http, probe, explain, supervisor, system   nothing points back up
//! supervisor -> policy, system, log, checks                http -> policy, wire, json
//! checks -> system::aside, wire, policy (its nouns only)   probe -> config (its nouns only)
//! config, system, log -> policy (its nouns only)           log -> system::outlet
//! explain -> config, policy, json (their nouns only)       json -> policy (its nouns only)
//! fuzzing -> config, checks, log, policy
//! policy -> std without fs, env, net, process, thread, and without any clock
//! ```
//!
//! `policy` decides, `system` does, `supervisor` joins them; `tests/house_rules`
//! holds the code to these arrows.

mod checks;
mod config;
mod explain;
#[cfg(fuzzing)]
pub mod fuzzing;
mod http;
mod json;
mod log;
mod policy;
mod probe;
mod run;
mod supervisor;
mod system;
mod wire;

/// Runs castoff with the arguments and environment of this process and returns
/// its exit code. The caller must do nothing before, and exit with it after.
pub fn main() -> i32 {
    i32::from(run::run())
}

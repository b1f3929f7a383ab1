//! castoff is PID 1 for containers.
//!
//! ```text
//! main -> run -> config, log, http, supervisor, system     who may import whom; nothing points back up
//! supervisor -> policy, system, log      http -> policy
//! config, system, log -> policy (its nouns only)
//! policy -> std without fs, env, net, process, thread, and without any clock
//! ```
#![warn(missing_docs)]

#[cfg_attr(not(test), expect(dead_code, reason = "run does not start the endpoints yet"))]
mod http;
mod policy;
mod system;

/// Runs castoff with the arguments and environment of this process and returns
/// its exit code. The caller must do nothing before, and exit with it after.
pub fn main() -> i32 {
    i32::try_from(system::entry::block_signals()).unwrap_or(1)
}

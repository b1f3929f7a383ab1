//! The operating system: the only modules that import libc, nix, cgroups-rs
//! and signal-hook, and the only ones in which `unsafe` may stand.
//!
//! They do what they are told and report what happened. What follows from it
//! is decided in `policy`.

pub(crate) mod aside;
pub(crate) mod cgroup;
pub(crate) mod child;
pub(crate) mod descriptors;
pub(crate) mod entry;
pub(crate) mod env_dir;
pub(crate) mod environment;
pub(crate) mod eyes;
pub(crate) mod inlet;
pub(crate) mod kill;
pub(crate) mod memory;
pub(crate) mod notification;
pub(crate) mod notify;
pub(crate) mod oom_score;
pub(crate) mod outlet;
pub(crate) mod output;
pub(crate) mod program;
pub(crate) mod reaper;
pub(crate) mod signals;
pub(crate) mod sockets;
pub(crate) mod subreaper;
pub(crate) mod terminal;
pub(crate) mod termination_log;
pub(crate) mod tree;
pub(crate) mod users;
pub(crate) mod watch;

/// The kernel's own names for a process and an error, as the functions below
/// take and give them.
pub(crate) use nix::{errno::Errno, unistd::Pid};

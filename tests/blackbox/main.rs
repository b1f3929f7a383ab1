//! castoff as its users see it: the real binary with real children, as PID 1 of
//! a namespace of its own and as a subreaper.
//!
//! The tests wait for conditions and assert order and lower bounds; nothing is
//! asserted about how fast a step is. `support` holds what they share.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the whole binary is tests"
)]

mod checks;
mod cli;
mod death;
mod drain;
mod exit_code;
mod explain;
mod formats;
mod grpc;
mod health;
mod hooks;
mod identity;
mod last_words;
mod limits;
mod logs;
mod logs_unread;
mod notify;
mod otel;
mod probe;
mod reaping;
mod relay;
mod resize;
mod restart;
mod robustness;
mod signals;
mod sizing;
mod stop;
mod support;
mod terminal;
mod transparency;
mod tree;
mod watch;

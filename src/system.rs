//! The operating system: the only modules that import libc, nix, cgroups-rs
//! and signal-hook, and the only ones in which `unsafe` may stand.
//!
//! They do what they are told and report what happened. What follows from it
//! is decided in `policy`.

#[cfg_attr(not(test), expect(dead_code, reason = "nothing starts it yet"))]
pub(crate) mod descriptors;
pub(crate) mod entry;
pub(crate) mod stderr;

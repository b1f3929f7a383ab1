//! What castoff does when something around the child has changed: a limit.
//!
//! Only the words; who does it is `supervisor`.

use std::ffi::OsString;

use super::signal::Signal;

/// What follows a change, which is logged in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// Nothing more.
    Log,
    /// The child gets this signal.
    Signal(Signal),
    /// This command runs, as a hook does; never empty, and no word holds a NUL.
    Exec(Vec<OsString>),
    /// The child is stopped in order and started again.
    Restart,
}

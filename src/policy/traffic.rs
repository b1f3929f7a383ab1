//! What the child's sockets tell about its traffic.
//!
//! Owns what counts as activity. It opens no socket and reads no file: tables
//! come in, a judgement goes out.

use std::time::Duration;

/// The ports whose traffic counts (CASTOFF_DRAIN_PORTS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ports {
    /// Those that the child's process tree listens on.
    Auto,
    /// These, rising and each once.
    Named(Vec<u16>),
}

/// What one look at the sockets has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Connections that are open, those that were not accepted yet included.
    pub(crate) connections: u64,
    /// Something is under way at this moment: a request without its answer, an
    /// answer that was not sent to the end, a connection that nobody accepted.
    pub(crate) is_busy: bool,
    /// How long ago the last byte moved or the last connection came, as far as
    /// that can be seen.
    pub(crate) last_activity: Option<Duration>,
    /// Connections that have come since the look before; 0 at the first.
    pub(crate) arrived: u64,
}

//! Who else has connections in the network namespace.
//!
//! Owns which connections explain that the kernel's count of handshakes has
//! risen, where that count is not of the child's alone. A handshake that nothing
//! explains may have been with the child, over before anybody looked.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::{Socket, State, youngest};

/// How many connections of a look are kept: 1 MB. Where there are more,
/// nothing is explained.
const MOST_PAIRS: usize = 65_536;

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct End {
    /// Of IPv6; one of IPv4 as mapped into it.
    pub(crate) address: u128,
    pub(crate) port: u16,
}

/// What a socket is called by: its own end first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) local: End,
    pub(crate) remote: End,
}

/// Whose port it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The child's, and its traffic counts.
    Counted,
    /// That of castoff's own endpoints.
    Castoff,
    /// Somebody else listens there.
    Other,
    /// Nobody listens there.
    Unused,
}

/// The connections of one look, whoever they belong to.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    /// What each is known by, rising. The two ends of one connection, and what
    /// is left of it in TIME_WAIT, are known by the same.
    names: Vec<u64>,
    /// Those of whom only the client's end was seen, which is there before the
    /// kernel has counted the handshake: its last packet may be under way.
    unsure: Vec<u64>,
    is_cut: bool,
    /// How long ago a client of this host last closed its connection to the
    /// child: the server's end leaves nothing behind then.
    last_closed: Option<Duration>,
}

impl End {
    /// ::1 or 127.0.0.0/8.
    fn is_loopback(self) -> bool {
        const FIRST: u128 = 0xffff_7f00_0000;
        self.address == 1 || self.address >> 24 == FIRST >> 24
    }
}

impl Pair {
    /// Whether both its ends are on this host, and in the same tables: what has
    /// a loopback address does not leave it.
    fn is_of_one_host(&self) -> bool {
        let Self { local, remote } = self;
        local.address == remote.address || local.is_loopback() || remote.is_loopback()
    }

    fn name(&self) -> u64 {
        let mut name = DefaultHasher::new();
        (self.local.min(self.remote), self.local.max(self.remote)).hash(&mut name);
        name.finish()
    }
}

impl Neighbours {
    /// `role` tells whose a local port is.
    pub(crate) fn add(&mut self, pair: &Pair, socket: &Socket, role: impl Fn(u16) -> Role) {
        let is_of_one_host = pair.is_of_one_host();
        let local = role(pair.local.port);
        // A port of the same number on another host is nobody's here.
        let remote = if is_of_one_host { role(pair.remote.port) } else { Role::Unused };
        if remote == Role::Counted {
            self.last_closed = youngest(self.last_closed, socket.closed_ago());
        }
        let is_castoffs = local == Role::Castoff || remote == Role::Castoff;
        // A handshake counts when it is over.
        if is_castoffs || socket.state == State::SynReceived {
            return;
        }
        // Of two ends that nobody listens at, either may be the client's. Only
        // an answer to its FIN tells that there is, or was, a server's.
        let is_answered = !matches!(socket.state, State::Established | State::FinWait1);
        let is_servers = matches!(local, Role::Counted | Role::Other);
        let names = match is_of_one_host {
            // Who connects from here to elsewhere is not in the count.
            false if !is_servers => return,
            true if !is_servers && !is_answered => &mut self.unsure,
            _ => &mut self.names,
        };
        if names.len() < MOST_PAIRS {
            names.push(pair.name());
        } else {
            self.is_cut = true;
        }
    }

    /// There were more sockets than could be added.
    pub(crate) fn cut(&mut self) {
        self.is_cut = true;
    }

    /// To be called when all are added.
    pub(super) fn sort(&mut self) {
        for names in [&mut self.names, &mut self.unsure] {
            names.sort_unstable();
            names.dedup();
        }
        let names = &self.names;
        self.unsure.retain(|name| names.binary_search(name).is_err());
    }

    /// How many have come since `before`, as far as they are still to be seen.
    pub(super) fn new_since(&self, before: &Self) -> u64 {
        if before.is_cut {
            return 0;
        }
        let names = self.names.iter().chain(&self.unsure);
        names.filter(|name| !before.has(name)).count() as u64
    }

    fn has(&self, name: &u64) -> bool {
        [&self.names, &self.unsure].iter().any(|names| names.binary_search(name).is_ok())
    }

    /// How many may be missing in the count, however long ago they were seen.
    pub(super) fn unsure(&self) -> u64 {
        self.unsure.len() as u64
    }

    pub(super) fn last_closed(&self) -> Option<Duration> {
        self.last_closed
    }
}

#[cfg(test)]
mod tests;

//! The TCP sockets of castoff's network namespace, for the traffic of the
//! child's ports.
//!
//! Owns the choice of the source: sock_diag, else /proc/net. It connects to
//! nobody, waits for nothing and decides nothing: what the sockets mean is
//! told by `policy::traffic`.

mod diag;
mod listeners;
mod proc_net;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::policy::traffic::{
    Neighbours, Opens, Pair, Ports, Role, Snapshot, Socket, Source, State, Table,
};

/// How many rows a source may tell before the rest is left: some 0.4 s. Most
/// will be in TIME_WAIT, of which the kernel keeps 262,144 at most by default.
const MOST_ROWS: usize = 262_144;

/// A socket as a source tells of it.
#[derive(Clone, Copy, Debug)]
enum Row {
    Listener(Listener),
    Connection { pair: Pair, socket: Socket },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listener {
    port: u16,
    inode: u64,
    /// How many connections wait to be accepted.
    backlog: u32,
}

/// The ports that count, and where to look.
#[derive(Debug)]
pub(crate) struct Watch {
    ports: BTreeSet<u16>,
    is_auto: bool,
    /// No port is known because not everything could be read.
    is_blind: bool,
    own_port: Option<u16>,
    /// Where somebody else listened when the handshakes were counted last.
    other_ports: BTreeSet<u16>,
    proc_root: PathBuf,
}

impl Watch {
    /// `own_port` is that of castoff's endpoints: it never counts.
    pub(crate) fn new(ports: Ports, own_port: Option<u16>, proc_root: PathBuf) -> Self {
        let is_auto = ports == Ports::Auto;
        let mut ports = match ports {
            Ports::Auto => BTreeSet::new(),
            Ports::Named(ports) => ports.into_iter().collect(),
        };
        if let Some(own) = own_port {
            ports.remove(&own);
        }
        let other_ports = BTreeSet::new();
        Self { ports, is_auto, is_blind: is_auto, own_port, other_ports, proc_root }
    }

    /// Adds the ports that the processes `tree` listen on now; what was learned
    /// stays. Does nothing when the ports were named, and no more after `until`.
    pub(crate) fn learn(&mut self, tree: &[i32], until: Instant) {
        if !self.is_auto {
            return;
        }
        let Some(mut listeners) = listeners(&self.proc_root) else {
            self.is_blind = true;
            return;
        };
        listeners.retain(|listener| {
            Some(listener.port) != self.own_port && !self.ports.contains(&listener.port)
        });
        let found = listeners::of_tree(&self.proc_root, tree, &listeners, until);
        self.ports.extend(found.listeners.iter().map(|listener| listener.port));
        self.is_blind = !found.is_complete;
    }

    /// The kernel's count of handshakes, of which castoff's endpoints have
    /// accepted `own_accepts`. To be asked before a look: `policy::traffic`
    /// relies on the order.
    pub(crate) fn count(&mut self, own_accepts: u64) -> Option<Opens> {
        if self.ports.is_empty() {
            return None;
        }
        let snmp = fs::read_to_string(self.proc_root.join("net/snmp")).ok()?;
        let passive = proc_net::passive_opens(&snmp)?;
        let (own, others): (Vec<_>, Vec<_>) = listeners(&self.proc_root)?
            .into_iter()
            .filter(|listener| !self.ports.contains(&listener.port))
            .partition(|listener| Some(listener.port) == self.own_port);
        // Shaken hands with, and not accepted yet.
        let waiting: u64 = own.iter().map(|listener| u64::from(listener.backlog)).sum();
        let own = own_accepts.saturating_add(waiting);
        self.other_ports = others.iter().map(|listener| listener.port).collect();
        Some(Opens { passive, own, has_others: !others.is_empty() })
    }

    /// One look, with everybody else's connections if these are wanted.
    pub(crate) fn look(&self, opens: Option<Opens>, with_neighbours: bool) -> Snapshot {
        if self.ports.is_empty() {
            return if self.is_blind {
                Snapshot::Unknown
            } else {
                Snapshot::Known(Table::new(Source::SockDiag, None))
            };
        }
        self.through_netlink(opens, with_neighbours)
            .or_else(|| self.through_proc(opens, with_neighbours))
            .map_or(Snapshot::Unknown, Snapshot::Known)
    }

    pub(super) fn through_netlink(
        &self,
        opens: Option<Opens>,
        with_neighbours: bool,
    ) -> Option<Table> {
        let mut table = Table::new(Source::SockDiag, opens);
        let is_whole = diag::connections(&self.ports, &mut |row| self.add(&mut table, row)).ok()?;
        if !is_whole {
            table.cut();
        }
        if with_neighbours {
            let mut neighbours = Neighbours::default();
            let is_whole = diag::neighbours(&mut |row| self.meet(&mut neighbours, row)).ok()?;
            if !is_whole {
                neighbours.cut();
            }
            table.set_neighbours(neighbours);
        }
        Some(table)
    }

    pub(super) fn through_proc(
        &self,
        opens: Option<Opens>,
        with_neighbours: bool,
    ) -> Option<Table> {
        let mut table = Table::new(Source::Proc, opens);
        let mut neighbours = Neighbours::default();
        let mut each = |row| {
            self.add(&mut table, row);
            if with_neighbours {
                self.meet(&mut neighbours, row);
            }
        };
        let is_whole = proc_net::rows(&self.proc_root, &mut each).ok()?;
        if !is_whole {
            table.cut();
            neighbours.cut();
        }
        if with_neighbours {
            table.set_neighbours(neighbours);
        }
        Some(table)
    }

    fn add(&self, table: &mut Table, row: Row) {
        if let Row::Connection { pair, socket } = row
            && self.ports.contains(&pair.local.port)
        {
            table.add(&socket);
        }
    }

    fn meet(&self, neighbours: &mut Neighbours, row: Row) {
        if let Row::Connection { pair, socket } = row {
            neighbours.add(&pair, &socket, |port| self.role(port));
        }
    }

    fn role(&self, port: u16) -> Role {
        if self.ports.contains(&port) {
            Role::Counted
        } else if self.own_port == Some(port) {
            Role::Castoff
        } else if self.other_ports.contains(&port) {
            Role::Other
        } else {
            Role::Unused
        }
    }
}

/// Whatever listens in the namespace, on any port.
fn listeners(proc_root: &Path) -> Option<Vec<Listener>> {
    fn collect<E>(
        tell: impl FnOnce(&mut dyn FnMut(Row)) -> Result<bool, E>,
    ) -> Option<Vec<Listener>> {
        let mut listeners = Vec::new();
        let mut each = |row| {
            if let Row::Listener(listener) = row {
                listeners.push(listener);
            }
        };
        tell(&mut each).ok()?.then_some(listeners)
    }
    collect(diag::listeners).or_else(|| collect(|each| proc_net::rows(proc_root, each)))
}

/// A port on which the child's tree is to listen. Nobody connects to it.
#[derive(Debug)]
pub(crate) struct Listening {
    port: u16,
    /// The socket that was found last: while it listens there is no need to walk.
    inode: Option<u64>,
}

/// Why a port is not taken for the child's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotListening {
    #[error("nobody listens on it")]
    Nobody,
    #[error("who listens on it is no descendant")]
    Stranger,
    #[error("processes cannot be seen, or there are too many to look at in time")]
    Unknown,
}

impl Listening {
    pub(crate) fn new(port: u16) -> Self {
        Self { port, inode: None }
    }

    /// Whether a process of `tree`, which is asked for only when needed, listens
    /// there now. Looks no longer than until then.
    pub(crate) fn look(
        &mut self,
        proc_root: &Path,
        tree: impl FnOnce() -> Option<Vec<i32>>,
        until: Instant,
    ) -> Result<(), NotListening> {
        let mut listeners = listeners(proc_root).ok_or(NotListening::Unknown)?;
        listeners.retain(|listener| listener.port == self.port);
        if listeners.is_empty() {
            return Err(NotListening::Nobody);
        }
        if listeners.iter().any(|listener| Some(listener.inode) == self.inode) {
            return Ok(());
        }
        let tree = tree().ok_or(NotListening::Unknown)?;
        let found = listeners::of_tree(proc_root, &tree, &listeners, until);
        self.inode = found.listeners.first().map(|listener| listener.inode);
        match self.inode {
            Some(_) => Ok(()),
            None if found.is_complete => Err(NotListening::Stranger),
            None => Err(NotListening::Unknown),
        }
    }
}

/// The kernel's numbers of the states (include/net/tcp_states.h).
const TCP_LISTEN: u8 = 10;
const STATES: [(u8, State); 8] = [
    (1, State::Established),
    (3, State::SynReceived),
    (4, State::FinWait1),
    (5, State::FinWait2),
    (6, State::TimeWait),
    (8, State::CloseWait),
    (9, State::LastAck),
    (11, State::Closing),
];

/// A timer that runs out at the end of TIME_WAIT, or of FIN_WAIT2: both give
/// it this number, inet_twsk_diag_fill() and get_timewait4_sock().
const TIMER_OF_TIME_WAIT: u8 = 3;

fn state_of(number: u8) -> Option<State> {
    STATES.iter().find(|(known, _)| *known == number).map(|(_, state)| *state)
}

/// How long a socket stays in TIME_WAIT. In FIN_WAIT2 the timer counts down
/// from a sysctl's value and tells no time.
fn time_wait_left(state: State, timer: u8, left: Duration) -> Option<Duration> {
    (state == State::TimeWait && timer == TIMER_OF_TIME_WAIT).then_some(left)
}

/// An address of IPv4 as one of IPv6: ::ffff:a.b.c.d.
fn mapped(address: u32) -> u128 {
    0xffff_0000_0000 | u128::from(address)
}

#[cfg(test)]
mod tests;

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
use std::path::PathBuf;
use std::time::Duration;

use crate::policy::traffic::{Opens, Ports, Snapshot, Socket, Source, State, Table};

/// How many rows a source may tell before the rest is left: some 0.4 s. Most
/// will be in TIME_WAIT, of which the kernel keeps 262,144 at most by default.
const MOST_ROWS: usize = 262_144;

/// A socket as a source tells of it.
#[derive(Clone, Copy, Debug)]
enum Row {
    Listener(Listener),
    Connection { port: u16, socket: Socket },
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
        Self { ports, is_auto, is_blind: is_auto, own_port, proc_root }
    }

    /// Adds the ports that the processes `tree` listen on now; what was learned
    /// stays. Does nothing when the ports were named.
    pub(crate) fn learn(&mut self, tree: &[i32]) {
        if !self.is_auto {
            return;
        }
        let Some(mut listeners) = self.listeners() else {
            self.is_blind = true;
            return;
        };
        listeners.retain(|listener| {
            Some(listener.port) != self.own_port && !self.ports.contains(&listener.port)
        });
        let found = listeners::of_tree(&self.proc_root, tree, &listeners);
        self.ports.extend(found.ports);
        self.is_blind = !found.is_complete;
    }

    /// One look. `own_accepts` is how many connections castoff's endpoints have
    /// accepted so far.
    pub(crate) fn look(&self, own_accepts: u64) -> Snapshot {
        if self.ports.is_empty() {
            return if self.is_blind {
                Snapshot::Unknown
            } else {
                Snapshot::Known(Table::new(Source::SockDiag, None))
            };
        }
        let opens = self.opens(own_accepts);
        self.through_netlink(opens)
            .or_else(|| self.through_proc(opens))
            .map_or(Snapshot::Unknown, Snapshot::Known)
    }

    pub(super) fn through_netlink(&self, opens: Option<Opens>) -> Option<Table> {
        let mut table = Table::new(Source::SockDiag, opens);
        let is_whole = diag::connections(&self.ports, &mut |row| self.add(&mut table, row)).ok()?;
        if !is_whole {
            table.cut();
        }
        Some(table)
    }

    pub(super) fn through_proc(&self, opens: Option<Opens>) -> Option<Table> {
        let mut table = Table::new(Source::Proc, opens);
        let is_whole =
            proc_net::rows(&self.proc_root, &mut |row| self.add(&mut table, row)).ok()?;
        if !is_whole {
            table.cut();
        }
        Some(table)
    }

    fn add(&self, table: &mut Table, row: Row) {
        if let Row::Connection { port, socket } = row
            && self.ports.contains(&port)
        {
            table.add(&socket);
        }
    }

    /// Whatever listens in the namespace, on any port.
    fn listeners(&self) -> Option<Vec<Listener>> {
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
        collect(diag::listeners).or_else(|| collect(|each| proc_net::rows(&self.proc_root, each)))
    }

    /// The kernel's count of handshakes. It is read before castoff's own are
    /// counted, as `policy::traffic` relies on.
    fn opens(&self, own_accepts: u64) -> Option<Opens> {
        let snmp = fs::read_to_string(self.proc_root.join("net/snmp")).ok()?;
        let passive = proc_net::passive_opens(&snmp)?;
        let (own, others): (Vec<_>, Vec<_>) = self
            .listeners()?
            .into_iter()
            .filter(|listener| !self.ports.contains(&listener.port))
            .partition(|listener| Some(listener.port) == self.own_port);
        // Shaken hands with, and not accepted yet.
        let waiting: u64 = own.iter().map(|listener| u64::from(listener.backlog)).sum();
        let own = own_accepts.saturating_add(waiting);
        Some(Opens { passive, own, has_others: !others.is_empty() })
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

#[cfg(test)]
mod tests;

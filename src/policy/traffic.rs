//! What the child's sockets tell about its traffic.
//!
//! Owns what counts as a connection, as busy and as activity. It opens no
//! socket and reads no file: tables come in, a judgement goes out.

mod neighbours;

use std::time::{Duration, Instant};

pub(crate) use neighbours::{End, Neighbours, Pair, Role};

/// Between two looks at least so many times what the last one took goes by: a
/// tenth of a second's worth of sockets must not keep the loop.
pub(super) const REST: u32 = 4;

/// How many connections of a look are kept: 1 MB. Where there are more it is
/// busy, whatever they do.
const MOST_CONNECTIONS: usize = 65_536;

/// How long a closed connection is remembered (TCP_TIMEWAIT_LEN, in the
/// kernel's include/net/tcp.h; no sysctl changes it).
const TIME_WAIT: Duration = Duration::from_secs(60);

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

/// What the kernel has shown at one moment.
#[derive(Debug)]
pub(crate) enum Snapshot {
    /// Traffic cannot be seen.
    Unknown,
    Known(Table),
}

/// Who has told the table. What the one calls a socket means nothing to the
/// other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    SockDiag,
    Proc,
}

/// The states of a connection that has, or had, a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Established,
    SynReceived,
    FinWait1,
    FinWait2,
    TimeWait,
    CloseWait,
    LastAck,
    Closing,
}

/// One connection on a port that counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Socket {
    /// The same at every look of one source, also once it is accepted.
    pub(crate) id: u64,
    pub(crate) state: State,
    pub(crate) is_accepted: bool,
    /// As the kernel counts: a FIN that was not read, or not acknowledged, is
    /// one byte.
    pub(crate) receive_queue: u32,
    pub(crate) send_queue: u32,
    /// `None` when the source does not tell.
    pub(crate) transfer: Option<Transfer>,
    /// How long it will stay in TIME_WAIT, if it is there.
    pub(crate) time_wait_left: Option<Duration>,
}

/// What has moved over a connection. The ages begin at its establishment, and
/// they go by the kernel's jiffies: what is less than some 4 ms apart may look
/// simultaneous.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    /// In bytes; the peer's FIN is one.
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) received_ago: Duration,
    pub(crate) sent_ago: Duration,
    /// The last acknowledgement from the peer, alone or with data.
    pub(crate) acknowledged_ago: Duration,
    /// Those with data.
    pub(crate) segments_received: u32,
    pub(crate) segments_sent: u32,
}

/// The handshakes that a network namespace has completed since it exists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opens {
    /// PassiveOpens of /proc/net/snmp.
    pub(crate) passive: u64,
    /// Those of them that were, or will be, accepted by castoff itself.
    pub(crate) own: u64,
    /// Somebody listens on a port that does not count.
    pub(crate) has_others: bool,
}

/// The sockets of one look, boiled down to what is asked of them.
#[derive(Debug)]
pub(crate) struct Table {
    source: Source,
    opens: Option<Opens>,
    connections: Vec<Connection>,
    /// There are more than those.
    is_cut: bool,
    /// A connection that is closed on this side still has something to send.
    is_flushing: bool,
    /// The age of the youngest movement.
    last_moved: Option<Duration>,
    neighbours: Option<Neighbours>,
    /// How long before it the table before was told.
    since_before: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Connection {
    id: u64,
    /// In milliseconds; `u32::MAX` when that was not told.
    moved_ago: u32,
    is_busy: bool,
}

impl Socket {
    fn is_connection(&self) -> bool {
        use State::{CloseWait, Established, FinWait1, SynReceived};
        matches!(self.state, Established | CloseWait | FinWait1 | SynReceived)
    }

    /// Whether it is the child's turn: to accept, to read or to answer. Who has
    /// sent its FIN has nothing to answer any more, and a handshake is the
    /// kernel's affair.
    fn waits_for_the_child(&self) -> bool {
        if !matches!(self.state, State::Established | State::CloseWait) {
            return false;
        }
        // The peer's FIN is counted as a byte: tcp_rcv_nxt_update() is given an
        // end_seq that includes it.
        let fin = u32::from(self.state == State::CloseWait);
        let is_asked = self.transfer.is_none_or(|transfer| {
            transfer.received > u64::from(fin) && transfer.ends_with_a_question()
        });
        !self.is_accepted || self.receive_queue > fin || is_asked
    }

    /// Whether bytes wait for the peer; its own FIN is none.
    fn has_unsent(&self) -> bool {
        let has_closed = matches!(self.state, State::FinWait1 | State::LastAck | State::Closing);
        self.send_queue > u32::from(has_closed)
    }

    /// How long ago it last gave a sign of life.
    fn last_moved(&self) -> Option<Duration> {
        let moved_ago = self.transfer.map(|transfer| transfer.received_ago.min(transfer.sent_ago));
        moved_ago.or_else(|| self.closed_ago())
    }

    /// How long it has been in TIME_WAIT.
    fn closed_ago(&self) -> Option<Duration> {
        self.time_wait_left.map(|left| TIME_WAIT.saturating_sub(left))
    }
}

impl Transfer {
    /// Whether the last bytes came from the peer, as far as that can be told:
    /// on a tie, an answer within a jiffy is far more likely than not.
    fn ends_with_a_question(&self) -> bool {
        if self.sent == 0 || self.received_ago != self.sent_ago {
            return self.sent == 0 || self.received_ago < self.sent_ago;
        }
        // The next request may stand right behind an answer. An acknowledgement
        // that came later was of the answer. Without one, and where each request
        // and each answer is a segment, there is one without its answer; two
        // more may as well be one long request.
        let has_one_more = self.segments_received == self.segments_sent.wrapping_add(1);
        self.acknowledged_ago >= self.received_ago && has_one_more
    }
}

impl Table {
    pub(crate) fn new(source: Source, opens: Option<Opens>) -> Self {
        Self {
            source,
            opens,
            connections: Vec::new(),
            is_cut: false,
            is_flushing: false,
            last_moved: None,
            neighbours: None,
            since_before: Duration::ZERO,
        }
    }

    /// Who else there is, where `Observer::wants_neighbours`.
    pub(crate) fn set_neighbours(&mut self, neighbours: Neighbours) {
        self.last_moved = youngest(self.last_moved, neighbours.last_closed());
        self.neighbours = Some(neighbours);
    }

    pub(crate) fn add(&mut self, socket: &Socket) {
        self.last_moved = youngest(self.last_moved, socket.last_moved());
        let is_busy = socket.waits_for_the_child() || socket.has_unsent();
        if !socket.is_connection() {
            self.is_flushing |= is_busy;
        } else if self.connections.len() < MOST_CONNECTIONS {
            let moved_ago = socket.last_moved().map(|ago| ago.as_millis().try_into());
            let moved_ago = moved_ago.and_then(Result::ok).unwrap_or(u32::MAX);
            self.connections.push(Connection { id: socket.id, moved_ago, is_busy });
        } else {
            self.is_cut = true;
        }
    }

    /// There were more sockets than could be added.
    pub(crate) fn cut(&mut self) {
        self.is_cut = true;
    }

    /// A socket that moved while the table was read may be in it twice.
    fn sort(&mut self) {
        self.connections.sort_unstable();
        self.connections.dedup_by(|next, kept| {
            let is_same = next.id == kept.id;
            kept.is_busy |= is_same && next.is_busy;
            is_same
        });
    }

    /// Whether there was something under way over it, or may have been: it had
    /// moved since the table before.
    fn was_active(&self, connection: &Connection) -> bool {
        connection.is_busy || u128::from(connection.moved_ago) <= self.since_before.as_millis()
    }

    fn has(&self, id: u64) -> bool {
        self.connections.binary_search_by_key(&id, |connection| connection.id).is_ok()
    }

    /// Of those that are in this table and not in `other`; none when that
    /// cannot be said.
    fn missing_in<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Connection> {
        let is_comparable = self.source == other.source && !other.is_cut;
        let connections = if is_comparable { self.connections.as_slice() } else { &[] };
        connections.iter().filter(|connection| !other.has(connection.id))
    }
}

/// Makes looks of what successive tables show.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    before: Option<Table>,
    /// As of the look before.
    opened: Option<Opened>,
    /// As of the last look that told them. Since then none has come.
    neighbours: Option<Neighbours>,
    /// Of these, how many were seen before they were in the count.
    seen_early: u64,
    looked_at: Option<Instant>,
    last_activity_at: Option<Instant>,
}

/// The handshakes with others than castoff.
#[derive(Clone, Copy, Debug)]
struct Opened {
    total: u64,
    /// By how much it has risen since the look before; `None` at the first.
    risen: Option<u64>,
    has_others: bool,
    /// Others listen, or did at the look before: they may be among the risen.
    is_shared: bool,
}

impl Observer {
    /// Whether the next table needs its neighbours: when others listen as well
    /// and the kernel has counted somebody, or when it counts nobody.
    pub(crate) fn wants_neighbours(&self, opens: Option<Opens>) -> bool {
        self.opened_by(opens).is_none_or(|opened| {
            opened.is_shared && (self.neighbours.is_none() || opened.risen > Some(0))
        })
    }

    /// `now` is the moment of the snapshot. `None`: traffic cannot be seen.
    pub(crate) fn observe(&mut self, snapshot: Snapshot, now: Instant) -> Option<Look> {
        let Snapshot::Known(mut table) = snapshot else { return None };
        table.sort();
        self.opened = self.opened_by(table.opens);
        let has_unseen = self.has_unseen(table.neighbours.take());
        let before = self.before.as_ref();
        let looked_at = self.looked_at.replace(now);
        table.since_before =
            looked_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let fresh = before.map_or(0, |before| table.missing_in(before).count() as u64);
        let counted = self.opened.filter(|opened| !opened.is_shared);
        let arrived = counted.and_then(|opened| opened.risen).unwrap_or(fresh);
        // Its answer, its end or one more request came after the look before,
        // unseen.
        let has_finished = before.is_some_and(|before| {
            before.missing_in(&table).any(|connection| before.was_active(connection))
        });
        // The connections of sock_diag bring their stamps along.
        let has_unstamped = fresh > 0 && table.source == Source::Proc;
        let is_moving = has_finished || has_unstamped || has_unseen;
        let last_moved = if is_moving { Some(Duration::ZERO) } else { table.last_moved };
        // Who is gone takes its stamps along: they are remembered here.
        let moved_at = last_moved.and_then(|ago| now.checked_sub(ago));
        self.last_activity_at = self.last_activity_at.max(moved_at);
        let is_any_busy = table.connections.iter().any(|connection| connection.is_busy);
        let look = Look {
            connections: table.connections.len() as u64,
            is_busy: table.is_cut || table.is_flushing || is_any_busy,
            last_activity: self.last_activity_at.map(|at| now.saturating_duration_since(at)),
            arrived,
        };
        self.before = Some(table);
        Some(look)
    }

    /// By the kernel's own count: also those that have gone again.
    fn opened_by(&self, opens: Option<Opens>) -> Option<Opened> {
        let Opens { passive, own, has_others } = opens?;
        let before = self.opened;
        // Never back: castoff's own are counted last, so that one which came
        // meanwhile is subtracted a look too early.
        let least = before.map_or(0, |before| before.total);
        let total = passive.saturating_sub(own).max(least);
        Some(Opened {
            total,
            risen: before.map(|before| total - before.total),
            has_others,
            is_shared: has_others || before.is_some_and(|before| before.has_others),
        })
    }

    /// Whether somebody has come since the look before who may have been with
    /// the child, and may have gone again. Who is known to have been with
    /// somebody else was not, and who is with the child now has stamps.
    fn has_unseen(&mut self, neighbours: Option<Neighbours>) -> bool {
        let risen = self.opened.and_then(|opened| opened.risen).unwrap_or(0);
        let before = self.neighbours.take();
        let seen_early = std::mem::take(&mut self.seen_early);
        let Some(mut neighbours) = neighbours else {
            // What is known of them stays true as long as nobody comes.
            self.neighbours = before.filter(|_| risen == 0);
            let unsure = self.neighbours.as_ref().map_or(0, Neighbours::unsure);
            self.seen_early = seen_early.min(unsure);
            return risen > 0;
        };
        neighbours.sort();
        let unsure = neighbours.unsure();
        let seen = before.map_or(unsure, |before| neighbours.new_since(&before));
        self.neighbours = Some(neighbours);
        // The count is read before the connections: who comes in between is seen
        // in this look and counted in the next.
        let not_yet = seen_early.saturating_sub(risen).min(unsure);
        let risen = risen.saturating_sub(seen_early);
        self.seen_early = seen.saturating_sub(risen) + not_yet;
        risen > seen
    }
}

fn youngest(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests;

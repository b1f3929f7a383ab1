//! Every rule of what holds a drain, on tables that were made up.

use super::*;
use proptest::prelude::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

/// Established ten seconds ago.
const EMPTY: Transfer = Transfer {
    received: 0,
    sent: 0,
    received_ago: Duration::from_secs(10),
    sent_ago: Duration::from_secs(10),
    acknowledged_ago: Duration::from_secs(10),
    segments_received: 0,
    segments_sent: 0,
};

/// Accepted, without a byte.
fn fresh(id: u64) -> Socket {
    Socket {
        id,
        state: State::Established,
        is_accepted: true,
        receive_queue: 0,
        send_queue: 0,
        transfer: Some(EMPTY),
        time_wait_left: None,
    }
}

/// Has received and sent, so many milliseconds ago.
fn used(id: u64, received_ago: u64, sent_ago: u64) -> Socket {
    let (received_ago, sent_ago) = (MS(received_ago), MS(sent_ago));
    let acknowledged_ago = received_ago.min(sent_ago);
    let counts = Transfer { segments_received: 3, segments_sent: 3, ..EMPTY };
    let bytes = Transfer { received: 100, sent: 100, ..counts };
    let transfer = Transfer { received_ago, sent_ago, acknowledged_ago, ..bytes };
    Socket { transfer: Some(transfer), ..fresh(id) }
}

fn received_only(id: u64, bytes: u64, ago: u64) -> Socket {
    let ago = MS(ago);
    let ages = Transfer { received_ago: ago, sent_ago: ago, acknowledged_ago: ago, ..EMPTY };
    Socket { transfer: Some(Transfer { received: bytes, ..ages }), ..fresh(id) }
}

fn time_wait(left: u64) -> Socket {
    let state = State::TimeWait;
    Socket { state, transfer: None, time_wait_left: Some(MS(left)), ..fresh(1) }
}

fn table(source: Source, opens: Option<Opens>, sockets: &[Socket]) -> Snapshot {
    let mut table = Table::new(source, opens);
    sockets.iter().for_each(|socket| table.add(socket));
    Snapshot::Known(table)
}

/// An observer on a clock that moves as told.
struct World {
    observer: Observer,
    now: Instant,
}

impl World {
    fn new() -> Self {
        // Far enough from the clock's start that an age of minutes can be told.
        Self { observer: Observer::default(), now: Instant::now() + MS(3_600_000) }
    }

    fn look(&mut self, after: u64, sockets: &[Socket]) -> Look {
        self.look_with(after, Source::SockDiag, None, sockets)
    }

    fn look_with(
        &mut self,
        after: u64,
        source: Source,
        opens: Option<Opens>,
        sockets: &[Socket],
    ) -> Look {
        self.now += MS(after);
        self.observer.observe(table(source, opens, sockets), self.now).unwrap()
    }
}

fn look(sockets: &[Socket]) -> Look {
    World::new().look(0, sockets)
}

#[test]
fn nothing_open_is_a_known_quiet() {
    let expected = Look { connections: 0, is_busy: false, last_activity: None, arrived: 0 };
    assert_eq!(look(&[]), expected);
}

#[test]
fn what_cannot_be_seen_is_no_look_and_nothing_is_forgotten_over_it() {
    let mut world = World::new();
    world.look(0, &[used(1, 500, 500)]);
    assert_eq!(world.observer.observe(Snapshot::Unknown, world.now), None);
    let look = world.look(1_000, &[used(1, 1_500, 1_500), fresh(2)]);
    assert_eq!(look.arrived, 1);
    assert_eq!(look.last_activity, Some(MS(1_500)));
}

#[test]
fn an_idle_keep_alive_connection_is_counted_and_does_not_hold() {
    let look = look(&[used(1, 5_004, 5_000)]);
    assert_eq!((look.connections, look.is_busy), (1, false));
    assert_eq!(look.last_activity, Some(MS(5_000)));
}

#[test]
fn a_request_without_its_answer_holds() {
    assert!(look(&[received_only(1, 1, 60_000)]).is_busy);
    // The second on its connection.
    assert!(look(&[used(1, 5_000, 5_004)]).is_busy);
    // Nothing was ever sent: then a tie is no answer.
    assert!(look(&[received_only(1, 1, 0)]).is_busy);
}

#[test]
fn a_tie_is_an_answer() {
    assert!(!look(&[used(1, 5_000, 5_000)]).is_busy);
}

#[test]
fn a_tie_with_one_segment_more_received_is_a_request_behind_an_answer() {
    let with = |segments_received, acknowledged_ago| {
        let tie = used(1, 5_000, 5_000);
        let acknowledged_ago = MS(acknowledged_ago);
        let transfer = tie.transfer.map(|transfer| Transfer {
            segments_received,
            acknowledged_ago,
            ..transfer
        });
        look(&[Socket { transfer, ..tie }]).is_busy
    };
    assert!(with(4, 5_000));
    // The answer was acknowledged later, so it came last.
    assert!(!with(4, 4_960));
    // A request of several segments.
    assert!(!with(5, 5_000));
}

#[test]
fn what_stands_in_a_queue_holds() {
    assert!(look(&[Socket { receive_queue: 1, ..used(1, 9, 5) }]).is_busy);
    assert!(look(&[Socket { send_queue: 1, ..used(1, 9, 5) }]).is_busy);
}

#[test]
fn a_connection_that_was_not_accepted_holds_also_without_a_byte() {
    let waiting = Socket { is_accepted: false, ..fresh(1) };
    assert!(look(&[waiting]).is_busy);
    assert!(look(&[Socket { state: State::CloseWait, receive_queue: 1, ..waiting }]).is_busy);
}

#[test]
fn a_fresh_accepted_connection_is_activity_at_its_age_and_no_more() {
    let mut world = World::new();
    assert_eq!(world.look(0, &[]).last_activity, None);
    let look = world.look(60_000, &[fresh(1)]);
    assert_eq!((look.connections, look.arrived, look.is_busy), (1, 1, false));
    assert_eq!(look.last_activity, Some(MS(10_000)));
}

#[test]
fn a_half_closed_connection_holds_until_it_is_answered() {
    let closed = |socket| Socket { state: State::CloseWait, ..socket };
    assert!(look(&[closed(received_only(1, 11, 5_000))]).is_busy);
    assert!(look(&[closed(used(1, 4_000, 5_000))]).is_busy);
    let answered = look(&[closed(used(1, 5_000, 4_000))]);
    assert_eq!((answered.is_busy, answered.connections), (false, 1));
}

#[test]
fn the_fin_of_the_client_is_no_request() {
    // The kernel counts it as a byte received, and as one unread until EOF is.
    let fin = Socket { state: State::CloseWait, receive_queue: 1, ..received_only(1, 1, 5_000) };
    assert!(!look(&[fin]).is_busy);
    assert!(look(&[Socket { receive_queue: 2, ..fin }]).is_busy);
}

#[test]
fn closing_connections_hold_only_by_what_they_have_to_send() {
    use State::{Closing, FinWait1, FinWait2, LastAck};
    for (state, connections) in [(FinWait1, 1), (FinWait2, 0), (LastAck, 0), (Closing, 0)] {
        // Received newer than sent: it was closed without an answer.
        let closing = Socket { state, is_accepted: false, send_queue: 1, ..used(1, 5_000, 5_004) };
        let fin = if state == FinWait2 { 0 } else { 1 };
        let idle = look(&[Socket { send_queue: fin, ..closing }]);
        assert_eq!((idle.connections, idle.is_busy), (connections, false), "{state:?}");
        let flushing = look(&[Socket { send_queue: fin + 1, ..closing }]);
        assert_eq!((flushing.connections, flushing.is_busy), (connections, true), "{state:?}");
    }
}

#[test]
fn a_handshake_is_counted_and_does_not_hold() {
    let state = State::SynReceived;
    let handshake = Socket { state, is_accepted: false, transfer: None, ..fresh(1) };
    let look = look(&[handshake]);
    assert_eq!((look.connections, look.is_busy), (1, false));
}

#[test]
fn the_last_activity_is_the_youngest_stamp_of_all() {
    let look = look(&[used(1, 9_000, 8_000), used(2, 300, 200), fresh(3), time_wait(50_000)]);
    assert_eq!(look.last_activity, Some(MS(200)));
}

#[test]
fn time_wait_tells_when_a_short_connection_closed() {
    let look = look(&[time_wait(59_800), time_wait(1_000)]);
    assert_eq!(look.last_activity, Some(MS(200)));
    assert_eq!((look.connections, look.is_busy), (0, false));
}

#[test]
fn the_stamps_of_a_connection_outlive_it() {
    let mut world = World::new();
    world.look(0, &[used(1, 300, 200)]);
    assert_eq!(world.look(100, &[]).last_activity, Some(MS(300)));
    assert_eq!(world.look(100, &[used(2, 900, 900)]).last_activity, Some(MS(400)));
}

#[test]
fn a_busy_connection_that_is_gone_was_active_until_now() {
    let mut world = World::new();
    world.look(0, &[received_only(1, 10, 5_000), used(2, 5_000, 4_000)]);
    let look = world.look(100, &[used(2, 5_100, 4_100)]);
    assert_eq!((look.is_busy, look.last_activity), (false, Some(Duration::ZERO)));
    // An idle one that is gone was not.
    assert_eq!(world.look(100, &[]).last_activity, Some(MS(100)));
}

#[test]
fn a_connection_that_was_in_use_and_is_gone_may_have_been_until_now() {
    let mut world = World::new();
    world.look(0, &[used(1, 5_000, 5_000), used(2, 5_000, 5_000)]);
    // One has moved since the look before, the other has not.
    world.look(100, &[used(1, 60, 55), used(2, 5_100, 5_100)]);
    assert_eq!(world.look(100, &[used(1, 160, 155)]).last_activity, Some(MS(155)));
    assert_eq!(world.look(100, &[]).last_activity, Some(MS(255)));
    world.look(100, &[used(3, 60, 55)]);
    assert_eq!(world.look(100, &[]).last_activity, Some(Duration::ZERO));
}

#[test]
fn arrived_are_those_that_were_not_in_the_look_before() {
    let mut world = World::new();
    assert_eq!(world.look(0, &[fresh(1), fresh(2)]).arrived, 0);
    let waiting = Socket { is_accepted: false, ..fresh(4) };
    assert_eq!(world.look(100, &[fresh(2), fresh(3), waiting]).arrived, 2);
    assert_eq!(world.look(100, &[fresh(2), fresh(3), fresh(4)]).arrived, 0);
}

#[test]
fn a_socket_that_is_told_twice_is_one() {
    let look = look(&[fresh(1), Socket { receive_queue: 1, ..fresh(1) }, fresh(1)]);
    assert_eq!((look.connections, look.is_busy), (1, true));
}

fn opens(passive: u64, own: u64) -> Option<Opens> {
    Some(Opens { passive, own, has_others: false })
}

#[test]
fn the_kernels_count_shows_connections_that_came_and_went() {
    let mut world = World::new();
    let mut look = |passive, own| world.look_with(100, Source::SockDiag, opens(passive, own), &[]);
    assert_eq!((look(70, 4).arrived, look(70, 4).last_activity), (0, None));
    let risen = look(73, 4);
    assert_eq!((risen.arrived, risen.last_activity), (3, Some(Duration::ZERO)));
    let same = look(73, 4);
    assert_eq!((same.arrived, same.last_activity), (0, Some(MS(100))));
    // Only castoff's own endpoints were asked.
    assert_eq!(look(78, 9).arrived, 0);
    // One of them came between the two counts.
    assert_eq!(look(78, 10).arrived, 0);
    assert_eq!(look(79, 10).arrived, 0);
    assert_eq!(look(80, 10).arrived, 1);
}

/// Others listen too: port 70 is theirs, 80 the child's.
fn shared(passive: u64) -> Option<Opens> {
    Some(Opens { passive, own: 0, has_others: true })
}

/// Clients on other hosts: whose port they came to, and their own.
fn neighbours(clients: &[(u16, u16)]) -> Neighbours {
    let mut neighbours = Neighbours::default();
    for (port, client) in clients {
        let local = End { address: 0xffff_0a00_0005, port: *port };
        let remote = End { address: 0xffff_0a00_0006, port: *client };
        neighbours.add(&Pair { local, remote }, &without_bytes(0), |port| match port {
            70 => Role::Other,
            80 => Role::Counted,
            _ => Role::Unused,
        });
    }
    neighbours
}

impl World {
    /// What is seen 100 ms later where others listen too, with the neighbours
    /// only where they are wanted; says whether they were.
    fn look_among(&mut self, passive: u64, clients: &[(u16, u16)]) -> (Look, bool) {
        self.now += MS(100);
        let mut table = Table::new(Source::SockDiag, shared(passive));
        let is_wanted = self.observer.wants_neighbours(shared(passive));
        if is_wanted {
            table.set_neighbours(neighbours(clients));
        }
        (self.observer.observe(Snapshot::Known(table), self.now).unwrap(), is_wanted)
    }

    /// Whether that look shows activity at its own moment.
    fn is_moving_among(&mut self, passive: u64, clients: &[(u16, u16)]) -> bool {
        self.look_among(passive, clients).0.last_activity == Some(Duration::ZERO)
    }
}

#[test]
fn a_count_of_others_too_counts_nobody() {
    let mut world = World::new();
    let mut look = |opens| world.look_with(100, Source::SockDiag, opens, &[fresh(1)]);
    assert_eq!(look(shared(10)).arrived, 0);
    assert_eq!(look(shared(20)).arrived, 0);
    // The others have gone: counting begins.
    assert_eq!(look(opens(30, 0)).arrived, 0);
    assert_eq!(look(opens(31, 0)).arrived, 1);
    assert_eq!(look(None).arrived, 0);
    assert_eq!(look(opens(50, 0)).arrived, 0);
}

#[test]
fn neighbours_are_wanted_at_first_and_when_somebody_has_come() {
    let mut world = World::new();
    let mut is_wanted = |passive| world.look_among(passive, &[]).1;
    assert!(is_wanted(10));
    assert!(!is_wanted(10));
    assert!(is_wanted(11));
    assert!(!is_wanted(11));
    // When nobody else listens the count tells enough, without it they are all.
    assert!(!World::new().observer.wants_neighbours(opens(10, 0)));
    assert!(World::new().observer.wants_neighbours(None));
}

#[test]
fn who_came_unseen_where_others_listen_is_activity_and_not_counted() {
    let mut world = World::new();
    assert!(!world.is_moving_among(10, &[(70, 1)]));
    let (look, _) = world.look_among(11, &[(70, 1)]);
    assert_eq!((look.last_activity, look.arrived, look.is_busy), (Some(MS(0)), 0, false));
    let (look, _) = world.look_among(11, &[(70, 1)]);
    assert_eq!(look.last_activity, Some(MS(100)));
    // As many were seen as had come, but one of them is an old one.
    assert!(world.is_moving_among(13, &[(70, 1), (70, 2)]));
}

#[test]
fn who_was_seen_with_somebody_else_is_no_activity() {
    let mut world = World::new();
    assert!(!world.is_moving_among(10, &[(70, 1)]));
    assert!(!world.is_moving_among(11, &[(70, 1), (70, 2)]));
    assert!(!world.is_moving_among(13, &[(70, 3), (70, 4)]));
    assert!(!world.is_moving_among(13, &[]));
    // Nothing of it is left a second time.
    assert!(world.is_moving_among(14, &[(70, 3), (70, 4)]));
    // Who is with the child has stamps of its own.
    assert!(!world.is_moving_among(15, &[(80, 1)]));
}

#[test]
fn who_comes_between_the_count_and_the_look_explains_the_next_count_only() {
    let mut world = World::new();
    assert!(!world.is_moving_among(10, &[]));
    assert!(!world.is_moving_among(11, &[(70, 1), (70, 2)]));
    assert!(!world.is_moving_among(12, &[(70, 1), (70, 2)]));
    assert!(world.is_moving_among(13, &[(70, 1), (70, 2)]));
    assert!(!world.is_moving_among(14, &[(70, 3), (70, 4), (70, 5)]));
    // Two were seen early. A look later nobody has been.
    assert!(!world.is_moving_among(14, &[]));
    assert!(world.is_moving_among(15, &[]));
}

#[test]
fn a_client_of_this_host_explains_a_count_that_comes_later() {
    let mut world = World::new();
    let mut is_moving = |passive, client: Option<State>| {
        world.now += MS(100);
        let mut table = Table::new(Source::SockDiag, shared(passive));
        if world.observer.wants_neighbours(shared(passive)) {
            let mut neighbours = Neighbours::default();
            let [local, remote] = [5000, 70].map(|port| End { address: 1, port });
            if let Some(state) = client {
                let socket = Socket { state, ..without_bytes(0) };
                neighbours.add(&Pair { local, remote }, &socket, |_| Role::Unused);
            }
            table.set_neighbours(neighbours);
        }
        let look = world.observer.observe(Snapshot::Known(table), world.now).unwrap();
        look.last_activity == Some(Duration::ZERO)
    };
    assert!(!is_moving(10, Some(State::Established)));
    assert!(!is_moving(10, Some(State::Established)));
    assert!(!is_moving(11, Some(State::Established)));
    assert!(is_moving(12, Some(State::Established)));
    // Once it must have been counted it explains nothing later.
    assert!(!is_moving(12, None));
    assert!(is_moving(13, Some(State::TimeWait)));
    assert!(is_moving(14, None));
}

#[test]
fn neighbours_that_were_left_out_explain_nothing() {
    let mut world = World::new();
    assert!(!world.is_moving_among(10, &[]));
    // A look that only counts.
    let look = world.look_with(100, Source::SockDiag, shared(11), &[]);
    assert_eq!(look.last_activity, Some(Duration::ZERO));
    // It takes one more to know who was there before.
    let (_, is_wanted) = world.look_among(11, &[(70, 1)]);
    assert!(is_wanted);
    assert!(!world.is_moving_among(12, &[(70, 1), (70, 2)]));
}

#[test]
fn what_is_left_of_clients_on_this_host_tells_when_they_closed() {
    let mut world = World::new();
    let mut table = Table::new(Source::SockDiag, None);
    let mut neighbours = Neighbours::default();
    let [local, remote] = [5000, 80].map(|port| End { address: 1, port });
    neighbours.add(&Pair { local, remote }, &time_wait(59_700), |_| Role::Counted);
    table.set_neighbours(neighbours);
    let look = world.observer.observe(Snapshot::Known(table), world.now).unwrap();
    assert_eq!(look.last_activity, Some(MS(300)));
    assert_eq!((look.connections, look.is_busy, look.arrived), (0, false, 0));
}

fn without_bytes(id: u64) -> Socket {
    Socket { transfer: None, ..fresh(id) }
}

#[test]
fn without_bytes_every_open_connection_holds() {
    let mut world = World::new();
    let mut look = |sockets: &[Socket]| world.look_with(100, Source::Proc, None, sockets);
    let first = look(&[without_bytes(1)]);
    assert_eq!((first.is_busy, first.connections, first.last_activity), (true, 1, None));
    assert_eq!(look(&[without_bytes(1)]).last_activity, None);
    let second = look(&[without_bytes(1), without_bytes(2)]);
    assert_eq!((second.arrived, second.last_activity), (1, Some(Duration::ZERO)));
    // Somewhere between the looks both have ended.
    let last = look(&[]);
    assert_eq!((last.is_busy, last.last_activity), (false, Some(Duration::ZERO)));
    assert_eq!(look(&[]).last_activity, Some(MS(100)));
}

#[test]
fn the_names_of_two_sources_are_not_compared() {
    let mut world = World::new();
    world.look(0, &[received_only(1, 1, 5_000)]);
    let look = world.look_with(100, Source::Proc, None, &[without_bytes(7), without_bytes(8)]);
    assert_eq!((look.arrived, look.last_activity), (0, Some(MS(5_100))));
}

#[test]
fn more_than_can_be_kept_is_busy_and_compared_with_nothing() {
    let mut world = World::new();
    let many: Vec<_> = (0..=MOST_CONNECTIONS as u64).map(fresh).collect();
    let look = world.look(0, &many);
    assert_eq!((look.connections, look.is_busy), (MOST_CONNECTIONS as u64, true));
    let next = world.look(100, &[fresh(u64::MAX)]);
    assert_eq!((next.arrived, next.is_busy), (0, false));
    let mut cut = Table::new(Source::SockDiag, None);
    cut.cut();
    let look = world.observer.observe(Snapshot::Known(cut), world.now).unwrap();
    assert_eq!((look.connections, look.is_busy), (0, true));
}

prop_compose! {
    fn any_socket()(
        id in 0u64..8, state in 0usize..8, is_accepted: bool, receive_queue: u32, send_queue: u32,
        moved in proptest::option::of((any::<u64>(), any::<u64>(), any::<[u32; 5]>())),
        left in proptest::option::of(any::<u32>()),
    ) -> Socket {
        use State::*;
        let all = [
            Established, SynReceived, FinWait1, FinWait2, TimeWait, CloseWait, LastAck, Closing,
        ];
        let transfer = moved.map(|(received, sent, [first, second, third, fourth, fifth])| {
            Transfer {
                received,
                sent,
                received_ago: MS(first.into()),
                sent_ago: MS(second.into()),
                acknowledged_ago: MS(third.into()),
                segments_received: fourth,
                segments_sent: fifth,
            }
        });
        let time_wait_left = left.map(|left| MS(left.into()));
        let state = all[state];
        Socket { id, state, is_accepted, receive_queue, send_queue, transfer, time_wait_left }
    }
}

proptest! {
    #[test]
    fn whatever_the_tables_hold_a_look_makes_sense(
        looks in proptest::collection::vec((
            proptest::collection::vec(any_socket(), 0..12),
            proptest::option::of((any::<u64>(), any::<u64>(), any::<bool>())),
            0u64..100_000,
            any::<bool>(),
            proptest::option::of(proptest::collection::vec((60u16..90, 0u16..9), 0..6)),
        ), 1..6),
    ) {
        let mut world = World::new();
        for (number, (sockets, opens, after, is_proc, clients)) in looks.into_iter().enumerate() {
            let source = if is_proc { Source::Proc } else { Source::SockDiag };
            let opens = opens.map(|(passive, own, has_others)| Opens { passive, own, has_others });
            let mut table = Table::new(source, opens);
            sockets.iter().for_each(|socket| table.add(socket));
            if let Some(clients) = clients {
                table.set_neighbours(neighbours(&clients));
            }
            world.now += MS(after);
            let look = world.observer.observe(Snapshot::Known(table), world.now).unwrap();
            prop_assert!(look.connections <= sockets.len() as u64);
            prop_assert!(number > 0 || look.arrived == 0);
            prop_assert!(!sockets.is_empty() || !look.is_busy);
        }
    }
}

//! Which connections explain a handshake, and which tell of the child's.

use super::*;
use crate::policy::traffic::TIME_WAIT;

const LOOPBACK: u128 = 0xffff_7f00_0001;
const HOST: u128 = 0xffff_0a00_0005;
const STRANGER: u128 = 0xffff_0a00_0006;

/// 80 is the child's, 99 castoff's, 70 somebody else's.
fn role(port: u16) -> Role {
    match port {
        80 => Role::Counted,
        99 => Role::Castoff,
        70 => Role::Other,
        _ => Role::Unused,
    }
}

fn pair(local: (u128, u16), remote: (u128, u16)) -> Pair {
    let end = |(address, port)| End { address, port };
    Pair { local: end(local), remote: end(remote) }
}

fn socket(state: State) -> Socket {
    let time_wait_left = (state == State::TimeWait).then_some(TIME_WAIT - Duration::from_secs(3));
    Socket {
        id: 1,
        state,
        is_accepted: true,
        receive_queue: 0,
        send_queue: 0,
        transfer: None,
        time_wait_left,
    }
}

fn neighbours(rows: &[(Pair, State)]) -> Neighbours {
    let mut neighbours = Neighbours::default();
    rows.iter().for_each(|(pair, state)| neighbours.add(pair, &socket(*state), role));
    neighbours.sort();
    neighbours
}

/// How many handshakes they explain.
fn explained(rows: &[(Pair, State)]) -> u64 {
    neighbours(rows).new_since(&Neighbours::default())
}

const STATES: [State; 7] = [
    State::Established,
    State::FinWait1,
    State::FinWait2,
    State::TimeWait,
    State::CloseWait,
    State::LastAck,
    State::Closing,
];

#[test]
fn who_came_to_a_port_that_somebody_listens_on_explains_one() {
    for port in [70, 80] {
        let came = pair((HOST, port), (STRANGER, 5000));
        assert!(STATES.iter().all(|state| explained(&[(came, *state)]) == 1));
        assert_eq!(explained(&[(came, State::SynReceived)]), 0, "it is not counted yet");
    }
}

#[test]
fn who_went_to_another_host_explains_nothing() {
    for port in [70, 80, 443] {
        let went = pair((HOST, 5000), (STRANGER, port));
        assert_eq!(explained(&[(went, State::Established), (went, State::TimeWait)]), 0);
    }
}

#[test]
fn both_ends_on_one_host_and_what_is_left_of_them_explain_one() {
    for address in [LOOPBACK, HOST, 1] {
        // Also when nobody listens there any more.
        for port in [70, 80, 71] {
            let server = pair((address, port), (address, 5000));
            let client = pair((address, 5000), (address, port));
            let both = [(server, State::LastAck), (client, State::TimeWait)];
            assert_eq!(explained(&both), 1);
            assert_eq!(explained(&both[1..]), 1);
            let next = pair((address, 5001), (address, port));
            assert_eq!(explained(&[both[0], both[1], (next, State::TimeWait)]), 2);
        }
    }
}

#[test]
fn a_client_alone_may_not_be_in_the_count_yet() {
    let [server, client] =
        [(70, 5000), (5000, 70)].map(|(local, remote)| pair((LOOPBACK, local), (LOOPBACK, remote)));
    let unsure = |rows: &[(Pair, State)]| neighbours(rows).unsure();
    for state in [State::Established, State::FinWait1] {
        assert_eq!((unsure(&[(client, state)]), explained(&[(client, state)])), (1, 1));
        let handshake = (server, State::SynReceived);
        assert_eq!((unsure(&[handshake, (client, state)]), explained(&[handshake])), (1, 0));
        let both = [(client, state), (server, State::Established)];
        assert_eq!((unsure(&both), explained(&both)), (0, 1));
    }
    assert!(STATES[2..].iter().all(|state| unsure(&[(client, *state)]) == 0));
    // Then it is the same as it was.
    let before = neighbours(&[(client, State::Established)]);
    assert_eq!(neighbours(&[(client, State::TimeWait)]).new_since(&before), 0);
    assert_eq!(neighbours(&[(server, State::CloseWait)]).new_since(&before), 0);
}

#[test]
fn castoffs_own_explain_nothing() {
    let probe = pair((LOOPBACK, 5000), (LOOPBACK, 99));
    assert_eq!(explained(&[(probe, State::TimeWait)]), 0);
    let remote = pair((HOST, 99), (STRANGER, 5000));
    assert_eq!(explained(&[(remote, State::Established)]), 0);
}

#[test]
fn each_explains_one_once() {
    let [first, second] = [5000, 5001].map(|port| pair((HOST, 70), (STRANGER, port)));
    let before = neighbours(&[(first, State::Established)]);
    assert_eq!(neighbours(&[(first, State::TimeWait)]).new_since(&before), 0);
    let both = neighbours(&[(first, State::TimeWait), (second, State::Established)]);
    assert_eq!(both.new_since(&before), 1);
    assert_eq!(neighbours(&[]).new_since(&both), 0);
}

#[test]
fn a_client_of_this_host_tells_when_it_closed_its_connection_to_the_child() {
    let closed = |local, remote| neighbours(&[(pair(local, remote), State::TimeWait)]).last_closed;
    let ago = Some(Duration::from_secs(3));
    assert_eq!(closed((LOOPBACK, 5000), (LOOPBACK, 80)), ago);
    assert_eq!(closed((HOST, 5000), (HOST, 80)), ago);
    assert_eq!(closed((1, 5000), (1, 80)), ago);
    // A sidecar that sends from 127.0.0.6 to the address of the Pod.
    assert_eq!(closed((LOOPBACK + 5, 5000), (HOST, 80)), ago);
    // The child as a client of such a port elsewhere, or of somebody else.
    assert_eq!(closed((HOST, 5000), (STRANGER, 80)), None);
    assert_eq!(closed((HOST, 5000), (HOST, 70)), None);
    assert_eq!(closed((LOOPBACK, 5000), (LOOPBACK, 99)), None);
    // The others have nothing to tell: it is not over.
    let open = pair((LOOPBACK, 5000), (LOOPBACK, 80));
    assert_eq!(neighbours(&[(open, State::FinWait2)]).last_closed, None);
}

#[test]
fn more_than_can_be_kept_explain_nothing_later() {
    let of = |from: u32, count: u32| {
        let mut neighbours = Neighbours::default();
        for nth in from..from + count {
            let row =
                pair((HOST, 70), (STRANGER + u128::from(nth / 50_000), (nth % 50_000) as u16));
            neighbours.add(&row, &socket(State::Established), role);
        }
        neighbours.sort();
        neighbours
    };
    let many = of(0, MOST_PAIRS as u32 + 1);
    assert_eq!(of(200_000, 5).new_since(&many), 0);
    let all = of(0, MOST_PAIRS as u32);
    assert_eq!(of(200_000, 5).new_since(&all), 5);
    let mut cut = of(0, 5);
    cut.cut();
    assert_eq!(of(200_000, 5).new_since(&cut), 0);
}

//! Messages to and from the kernel, byte by byte.

use super::*;
use crate::policy::traffic::State;
use proptest::prelude::*;

/// A netlink message.
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes.resize(aligned(bytes.len()), 0);
    bytes
}

fn attribute_of(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(((ATTRIBUTE + value.len()) as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(aligned(bytes.len()), 0);
    bytes
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

/// Port 8080, cookie 9, queues of 5 and 6, inode 4711, 1000 ms on its timer.
fn socket_of(state: u8, timer: u8, attributes: &[u8]) -> Vec<u8> {
    let mut body = vec![0; MESSAGE];
    body[..3].copy_from_slice(&[2, state, timer]);
    put(&mut body, 4, 8080u16.to_be_bytes());
    put(&mut body, 44, 9u64.to_ne_bytes());
    put(&mut body, 52, 1_000u32.to_ne_bytes());
    put(&mut body, 56, 5u32.to_ne_bytes());
    put(&mut body, 60, 6u32.to_ne_bytes());
    put(&mut body, 68, 4711u32.to_ne_bytes());
    body.extend(attributes);
    message(SOCK_DIAG_BY_FAMILY, 0, &body)
}

/// As long as a kernel's that knows so much.
fn info(length: usize) -> Vec<u8> {
    let mut info = vec![0; 248];
    put(&mut info, 44, 30u32.to_ne_bytes());
    put(&mut info, 52, 40u32.to_ne_bytes());
    put(&mut info, 56, 50u32.to_ne_bytes());
    put(&mut info, 120, 70u64.to_ne_bytes());
    put(&mut info, 128, 80u64.to_ne_bytes());
    put(&mut info, 152, 3u32.to_ne_bytes());
    put(&mut info, 156, 2u32.to_ne_bytes());
    put(&mut info, 200, 90u64.to_ne_bytes());
    info.truncate(length);
    info
}

fn rows(part: &[u8]) -> (Vec<Row>, Result<Answer, Errno>) {
    let mut rows = Vec::new();
    let answer = read(part, &mut |row| rows.push(row));
    (rows, answer)
}

fn only(part: &[u8]) -> Socket {
    match rows(part) {
        (rows, Ok(Answer::More)) => match rows.as_slice() {
            [Row::Connection { pair, socket }] if pair.local.port == 8080 => *socket,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_connection_is_read_as_the_kernel_means_it() {
    let attributes = [attribute_of(8, &[0]), attribute_of(INET_DIAG_INFO, &info(248))].concat();
    let socket = only(&socket_of(1, 0, &attributes));
    assert_eq!((socket.id, socket.state, socket.is_accepted), (9, State::Established, true));
    assert_eq!((socket.receive_queue, socket.send_queue), (5, 6));
    assert_eq!(socket.time_wait_left, None);
    let transfer = socket.transfer.unwrap();
    assert_eq!((transfer.received, transfer.sent), (80, 90));
    assert_eq!(transfer.received_ago, Duration::from_millis(40));
    assert_eq!(transfer.sent_ago, Duration::from_millis(30));
    assert_eq!(transfer.acknowledged_ago, Duration::from_millis(50));
    assert_eq!((transfer.segments_received, transfer.segments_sent), (3, 2));
}

#[test]
fn an_older_kernel_tells_what_was_acknowledged_or_nothing() {
    let with = |length| only(&socket_of(1, 0, &attribute_of(INET_DIAG_INFO, &info(length))));
    assert_eq!(with(192).transfer.unwrap().sent, 70);
    assert!(with(104).transfer.is_none());
    assert!(only(&socket_of(1, 0, &[])).transfer.is_none());
}

#[test]
fn the_timer_tells_of_time_wait_only() {
    let left = |state, timer| only(&socket_of(state, timer, &[])).time_wait_left;
    assert_eq!(left(6, 3), Some(Duration::from_secs(1)));
    assert_eq!(left(5, 3), None);
    assert_eq!(left(1, 2), None);
}

#[test]
fn a_listener_is_told_with_its_backlog() {
    let (rows, _) = rows(&socket_of(10, 0, &[]));
    let Some(Row::Listener(listener)) = rows.first() else { panic!("{rows:?}") };
    assert_eq!(*listener, Listener { port: 8080, inode: 4711, backlog: 5 });
}

#[test]
fn a_dump_ends_well_or_with_an_error() {
    let end = |kind, error: i32| rows(&message(kind, 0, &error.to_ne_bytes())).1;
    assert_eq!(end(3, 0), Ok(Answer::Done));
    assert_eq!(end(3, -2), Err(Errno::ENOENT));
    assert_eq!(end(2, -1), Err(Errno::EPERM));
    assert_eq!(end(2, 0), Err(Errno::EBADMSG));
    assert_eq!(rows(&message(4, 0, &[])).1, Err(Errno::ENOBUFS));
    assert_eq!(rows(&message(SOCK_DIAG_BY_FAMILY, 0x10, &[])).1, Err(Errno::EINTR));
    assert_eq!(rows(&[1, 2, 3]).1, Err(Errno::EBADMSG));
    let both = [socket_of(1, 0, &[]), message(3, 0, &0i32.to_ne_bytes())].concat();
    assert!(matches!(rows(&both), (rows, Ok(Answer::Done)) if rows.len() == 1));
}

/// What the kernel does with a filter (inet_diag_bc_run()), after its own check
/// of it (inet_diag_bc_audit()).
fn lets_through(program: &[u8], port: u16) -> bool {
    let operation = |at: usize| {
        (program[at], usize::from(program[at + 1]), usize::from(u16_at(program, at + 2).unwrap()))
    };
    let mut chain = vec![0];
    while let Some(at) = chain.last().copied().filter(|at| *at < program.len()) {
        chain.push(at + operation(at).1);
    }
    assert_eq!(chain.last(), Some(&program.len()));
    let mut at = 0;
    while at < program.len() {
        let (code, yes, no) = operation(at);
        assert!(at + no <= program.len() + 4 && no >= 4 && no.is_multiple_of(4));
        assert!(at + no > program.len() || chain.contains(&(at + no)));
        let is_true = match code {
            1 => false,
            2 => port >= operation(at + 4).2 as u16,
            3 => port <= operation(at + 4).2 as u16,
            other => panic!("{other}"),
        };
        at += if is_true { yes } else { no };
    }
    at == program.len()
}

proptest! {
    #[test]
    fn the_filter_lets_these_ports_through_and_no_others(
        ports in proptest::collection::btree_set(0u16..40, 1..20),
    ) {
        let program = filter(&ports);
        for port in 0..50 {
            prop_assert_eq!(lets_through(&program, port), ports.contains(&port));
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = rows(&bytes);
        let _ = rows(&message(SOCK_DIAG_BY_FAMILY, 0, &bytes));
        let _ = rows(&socket_of(1, 0, &bytes));
        let _ = rows(&socket_of(1, 0, &attribute_of(INET_DIAG_INFO, &bytes)));
    }

    #[test]
    fn a_damaged_answer_is_read_without_a_panic(at in 0usize..336, byte: u8, end in 0usize..336) {
        let mut bytes = socket_of(1, 0, &attribute_of(INET_DIAG_INFO, &info(244)));
        prop_assert_eq!(bytes.len(), 336);
        bytes[at] = byte;
        bytes.truncate(end);
        let _ = rows(&bytes);
    }
}

#[test]
fn very_many_ranges_become_one() {
    let ports: BTreeSet<u16> = (0..200).map(|number| 100 + 2 * number).collect();
    let program = filter(&ports);
    assert_eq!(program.len(), 16);
    assert!(lets_through(&program, 100) && lets_through(&program, 498));
    assert!(!lets_through(&program, 99) && !lets_through(&program, 499));
    assert!(lets_through(&filter(&BTreeSet::from([65_534, 65_535])), u16::MAX));
}

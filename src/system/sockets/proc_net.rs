//! The sockets as /proc/net/tcp, tcp6 and snmp tell of them.
//!
//! Owns the reading of these texts. They tell of queues and states, of bytes
//! they do not.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use super::{Listener, MOST_ROWS, Row, TCP_LISTEN, mapped, state_of, time_wait_left};
use crate::policy::traffic::{End, Pair, Socket};

/// What is longer is no row: the kernel pads them to 150 bytes, tcp6 is a
/// little wider.
const LONGEST_LINE: u64 = 1024;

/// The unit of the timers, USER_HZ: 100 a second wherever Rust's Linux runs.
const TICK: Duration = Duration::from_millis(10);

/// Every row of both families; says whether these were all.
pub(super) fn rows(proc_root: &Path, each: &mut dyn FnMut(Row)) -> io::Result<bool> {
    let is_whole = read(File::open(proc_root.join("net/tcp"))?, each)?;
    match File::open(proc_root.join("net/tcp6")) {
        Ok(file) => Ok(is_whole & read(file, each)?),
        // Without IPv6 there is none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(is_whole),
        Err(error) => Err(error),
    }
}

fn read(file: impl Read, each: &mut dyn FnMut(Row)) -> io::Result<bool> {
    let mut file = BufReader::with_capacity(32 * 1024, file);
    let mut line = Vec::new();
    for _ in 0..MOST_ROWS {
        line.clear();
        if (&mut file).take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(true);
        }
        if let Some(row) = std::str::from_utf8(&line).ok().and_then(row) {
            each(row);
        }
    }
    Ok(false)
}

/// One line; `None` for the heading and for sockets without a peer.
fn row(line: &str) -> Option<Row> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (fields.next()?, fields.next()?);
    let state = hexadecimal(fields.next()?)?.try_into().ok()?;
    let (send_queue, receive_queue) = pair(fields.next()?)?;
    let (timer, left) = pair(fields.next()?)?;
    // Retransmissions, user and probes come before it.
    let inode = fields.nth(3)?.parse().ok()?;
    let pair = Pair { local: end(local)?, remote: end(remote)? };
    if state == TCP_LISTEN {
        return Some(Row::Listener(Listener {
            port: pair.local.port,
            inode,
            backlog: receive_queue,
        }));
    }
    // Not the inode: it is given when the connection is accepted.
    let mut id = DefaultHasher::new();
    (local, remote).hash(&mut id);
    let state = state_of(state)?;
    let socket = Socket {
        id: id.finish(),
        state,
        is_accepted: inode != 0,
        receive_queue,
        send_queue,
        transfer: None,
        time_wait_left: time_wait_left(state, timer.try_into().ok()?, TICK.saturating_mul(left)),
    };
    Some(Row::Connection { pair, socket })
}

/// `0100007F:1F90`: words of 32 bits as the processor reads them.
fn end(field: &str) -> Option<End> {
    let (address, port) = field.split_once(':')?;
    let word = |at: usize| Some(u32::from_be(hexadecimal(address.get(at..at + 8)?)?));
    let address = match address.len() {
        8 => mapped(word(0)?),
        32 => [0, 8, 16, 24]
            .into_iter()
            .try_fold(0, |address: u128, at| Some(address << 32 | u128::from(word(at)?)))?,
        _ => return None,
    };
    Some(End { address, port: hexadecimal(port)?.try_into().ok()? })
}

/// `0000000A:00000000`.
fn pair(field: &str) -> Option<(u32, u32)> {
    let (first, second) = field.split_once(':')?;
    Some((hexadecimal(first)?, hexadecimal(second)?))
}

fn hexadecimal(digits: &str) -> Option<u32> {
    u32::from_str_radix(digits, 16).ok()
}

/// The handshakes that the namespace has completed: a line of names begins
/// with `Tcp:`, and the next such line holds their values.
pub(super) fn passive_opens(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Tcp:"));
    let names = lines.next()?.split_ascii_whitespace();
    let mut values = lines.next()?.split_ascii_whitespace();
    let at = names.into_iter().position(|name| name == "PassiveOpens")?;
    values.nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::traffic::State;
    use proptest::prelude::*;

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     
   0: 00000000:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000  1000        0 4026 1 0000000000000000 100 0 0 10 0                      
   1: 0100007F:1F90 0100007F:C4D2 01 0000000A:00000007 00:00000000 00000000  1000        0 4711 1 0000000000000000 20 4 30 10 -1                    
   2: 0100007F:1F90 0100007F:C4D4 06 00000000:00000000 03:0000175D 00000000     0        0 0 3 0000000000000000                                      
   3: 0100007F:C4D6 0100007F:1F90 02 00000000:00000000 01:00000064 00000000     0        0 5 2 0000000000000000 20 4 30 10 -1                        
";

    fn all(text: &[u8]) -> Vec<Row> {
        let mut rows = Vec::new();
        assert!(read(text, &mut |row| rows.push(row)).unwrap());
        rows
    }

    #[test]
    fn the_columns_are_read_as_the_kernel_means_them() {
        let rows = all(TCP.as_bytes());
        // Neither the heading nor one that connects to somebody else.
        assert_eq!(rows.len(), 3);
        let Row::Listener(listener) = rows[0] else { panic!("{rows:?}") };
        assert_eq!(listener, Listener { port: 8080, inode: 4026, backlog: 3 });
        let Row::Connection { pair, socket: open } = rows[1] else { panic!("{rows:?}") };
        assert_eq!((open.state, open.is_accepted), (State::Established, true));
        assert_eq!((open.send_queue, open.receive_queue), (10, 7));
        assert!(open.transfer.is_none());
        let Row::Connection { socket: closed, .. } = rows[2] else { panic!("{rows:?}") };
        let address = mapped(0x7f00_0001);
        let local = End { address, port: 8080 };
        assert_eq!(pair, Pair { local, remote: End { address, port: 0xc4d2 } });
        assert_eq!(closed.state, State::TimeWait);
        assert_eq!(closed.time_wait_left, Some(Duration::from_millis(59_810)));
        assert_ne!(open.id, closed.id);
    }

    #[test]
    fn a_connection_keeps_its_id_when_it_is_accepted() {
        let line = TCP.lines().nth(2).unwrap();
        let id = |line: &str| match row(line) {
            Some(Row::Connection { socket, .. }) => (socket.id, socket.is_accepted),
            other => panic!("{other:?}"),
        };
        assert_eq!(id(line).0, id(&line.replace(" 4711 ", " 0 ")).0);
        assert!(!id(&line.replace(" 4711 ", " 0 ")).1);
    }

    #[test]
    fn the_count_of_handshakes_is_found_by_its_name() {
        let snmp = "Ip: Forwarding\nIp: 1\nTcp: RtoMin ActiveOpens PassiveOpens\nTcp: 200 7 269\n";
        assert_eq!(passive_opens(snmp), Some(269));
        assert_eq!(passive_opens("Tcp: PassiveOpens\n"), None);
        assert_eq!(passive_opens("Tcp: A PassiveOpens\nTcp: 1\n"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            all(&bytes);
            passive_opens(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn a_damaged_table_is_read_without_a_panic(at in 0..TCP.len(), byte: u8, end in 0..TCP.len()) {
            let mut bytes = TCP.as_bytes().to_vec();
            bytes[at] = byte;
            bytes.truncate(end);
            prop_assert!(all(&bytes).len() <= 4);
        }
    }
}

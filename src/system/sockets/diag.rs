//! The sockets as the kernel's NETLINK_SOCK_DIAG tells of them.
//!
//! Owns the messages (`man 7 sock_diag`, the kernel's linux/inet_diag.h) and a
//! socket for each question: kept, it would hold the rest of an answer that was
//! given up. It can never wait: each part of a dump is made by the very call
//! that receives it (netlink_recvmsg(), netlink_dump()).

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    socket,
};

use super::{Listener, MOST_ROWS, Row, STATES, TCP_LISTEN, mapped, state_of, time_wait_left};
use crate::policy::traffic::{End, Pair, Socket, Transfer};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// The attribute with a tcp_info, and the bit that asks for it.
const INET_DIAG_INFO: u16 = 2;
const WANT_INFO: u8 = 1 << (INET_DIAG_INFO - 1);
const INET_DIAG_REQ_BYTECODE: u16 = 1;

/// The lengths of nlmsghdr, inet_diag_req_v2, inet_diag_msg, nlattr and
/// inet_diag_bc_op.
const HEADER: usize = 16;
const REQUEST: usize = 56;
const MESSAGE: usize = 72;
const ATTRIBUTE: usize = 4;
const OPERATION: u8 = 4;

/// What a part of a dump grows to when the reader has the room for it.
const PART: usize = 32 * 1024;

/// Parts of an answer that holds no end.
const MOST_PARTS: usize = 65_536;

/// How many ranges of ports the kernel is asked to compare each socket with.
const MOST_RANGES: usize = 64;

/// Marks the answers to our question; each has a socket of its own.
const SEQUENCE: u32 = 1;

/// Everything that listens; says whether these were all.
pub(super) fn listeners(each: &mut dyn FnMut(Row)) -> Result<bool, Errno> {
    ask_both(1 << TCP_LISTEN, 0, &[], each)
}

/// Everybody's connections, without what has moved over them; says whether
/// these were all.
pub(super) fn neighbours(each: &mut dyn FnMut(Row)) -> Result<bool, Errno> {
    ask_both(connected(), 0, &[], each)
}

/// The connections with one of these local ports, and maybe more; says whether
/// these were all.
pub(super) fn connections(ports: &BTreeSet<u16>, each: &mut dyn FnMut(Row)) -> Result<bool, Errno> {
    ask_both(connected(), WANT_INFO, &filter(ports), each)
}

/// The states of everything that has, or had, a peer.
fn connected() -> u32 {
    STATES.iter().fold(0, |states, (number, _)| states | (1 << number))
}

/// A family is a question of its own; the IPv4 clients of a listener for both
/// are among the answers to the second.
fn ask_both(
    states: u32,
    extensions: u8,
    filter: &[u8],
    each: &mut dyn FnMut(Row),
) -> Result<bool, Errno> {
    let first = ask(&question(libc::AF_INET, states, extensions, filter), each)?;
    Ok(ask(&question(libc::AF_INET6, states, extensions, filter), each)? && first)
}

fn ask(question: &[u8], each: &mut dyn FnMut(Row)) -> Result<bool, Errno> {
    let kernel = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    // Nobody but the kernel is heard then.
    connect(kernel.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    send(kernel.as_raw_fd(), question, MsgFlags::empty())?;
    let mut part = vec![0; PART];
    let mut rows = 0;
    for _ in 0..MOST_PARTS {
        // With MSG_TRUNC the length is that of the message, not of what fits.
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let length = match recv(kernel.as_raw_fd(), &mut part, flags) {
            Err(Errno::EINTR) => continue,
            result => result?,
        };
        let mut each = |row| {
            rows += 1;
            each(row);
        };
        if read(part.get(..length).ok_or(Errno::EMSGSIZE)?, &mut each)? == Answer::Done {
            return Ok(true);
        }
        if rows >= MOST_ROWS {
            break;
        }
    }
    Ok(false)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    More,
    Done,
}

/// One part of a dump.
fn read(mut part: &[u8], each: &mut dyn FnMut(Row)) -> Result<Answer, Errno> {
    while !part.is_empty() {
        let length = u32_at(part, 0).ok_or(Errno::EBADMSG)? as usize;
        let message = part.get(..length).ok_or(Errno::EBADMSG)?;
        let body = message.get(HEADER..).ok_or(Errno::EBADMSG)?;
        let kind = u16_at(message, 4).ok_or(Errno::EBADMSG)?;
        let flags = u16_at(message, 6).ok_or(Errno::EBADMSG)?;
        if i32::from(flags) & libc::NLM_F_DUMP_INTR != 0 {
            return Err(Errno::EINTR);
        }
        match i32::from(kind) {
            // Both begin with an error; a dump that went well ends with 0.
            libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                let error = u32_at(body, 0).unwrap_or(0).cast_signed();
                return match error {
                    0 if i32::from(kind) == libc::NLMSG_DONE => Ok(Answer::Done),
                    0 => Err(Errno::EBADMSG),
                    error => Err(Errno::from_raw(error.saturating_neg())),
                };
            }
            libc::NLMSG_OVERRUN => return Err(Errno::ENOBUFS),
            _ if kind == SOCK_DIAG_BY_FAMILY => row(body).into_iter().for_each(&mut *each),
            _ => {}
        }
        part = part.get(aligned(length)..).unwrap_or_default();
    }
    Ok(Answer::More)
}

/// An inet_diag_msg and its attributes.
fn row(message: &[u8]) -> Option<Row> {
    let attributes = message.get(MESSAGE..)?;
    let family = *message.first()?;
    let number = *message.get(1)?;
    let timer = *message.get(2)?;
    let local = end(message, family, 4, 8)?;
    let remote = end(message, family, 6, 24)?;
    // The cookie: given at the first question, kept when the handshake ends and
    // when it is accepted (sock_gen_cookie(), tcp_create_openreq_child()).
    let id = u64_at(message, 44)?;
    let expires = u32_at(message, 52)?;
    let (receive_queue, send_queue) = (u32_at(message, 56)?, u32_at(message, 60)?);
    let inode = u32_at(message, 68)?;
    if number == TCP_LISTEN {
        let inode = inode.into();
        return Some(Row::Listener(Listener { port: local.port, inode, backlog: receive_queue }));
    }
    let state = state_of(number)?;
    let socket = Socket {
        id,
        state,
        // The socket that accept() makes is what brings the inode.
        is_accepted: inode != 0,
        receive_queue,
        send_queue,
        transfer: attribute(attributes, INET_DIAG_INFO).and_then(transfer),
        time_wait_left: time_wait_left(state, timer, Duration::from_millis(expires.into())),
    };
    Some(Row::Connection { pair: Pair { local, remote }, socket })
}

/// Where the port and the address stand at `port_at` and `address_at`.
fn end(message: &[u8], family: u8, port_at: usize, address_at: usize) -> Option<End> {
    let port = u16::from_be_bytes(*message.get(port_at..)?.first_chunk()?);
    let address: [u8; 16] = *message.get(address_at..)?.first_chunk()?;
    let address = u128::from_be_bytes(address);
    // Of IPv4 only the first four bytes are an address.
    let is_four = i32::from(family) == libc::AF_INET;
    Some(End { address: if is_four { mapped((address >> 96) as u32) } else { address }, port })
}

/// Out of a tcp_info, which has grown with the kernel's versions. `None` before
/// Linux 4.1, which counted no bytes.
///
/// The ages of data are those of tp->lsndtime and icsk_ack.lrcvtime. Both are
/// set to the present at the end of the handshake (tcp_create_openreq_child()),
/// and after that by segments with data only (tcp_event_data_sent(),
/// tcp_event_data_recv()): not by acknowledgements, keep-alive probes or a FIN.
/// The third is that of tp->rcv_tstamp, which every acknowledgement sets.
fn transfer(info: &[u8]) -> Option<Transfer> {
    let age = |at| u32_at(info, at).map(|age| Duration::from_millis(age.into()));
    Some(Transfer {
        sent_ago: age(44)?,
        received_ago: age(52)?,
        received: u64_at(info, 128)?,
        // tcpi_bytes_sent came with Linux 4.19. What was sent before and is not
        // in tcpi_bytes_acked stands in the send queue.
        sent: u64_at(info, 200).or_else(|| u64_at(info, 120))?,
        acknowledged_ago: age(56)?,
        // With Linux 4.6.
        segments_received: u32_at(info, 152).unwrap_or(0),
        segments_sent: u32_at(info, 156).unwrap_or(0),
    })
}

fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let value = attributes.get(ATTRIBUTE..length)?;
        if u16_at(attributes, 2)? == wanted {
            return Some(value);
        }
        attributes = attributes.get(aligned(length)..)?;
    }
}

/// The next multiple of 4, where netlink has the next thing begin.
fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_ne_bytes)
}

/// A request for a dump of one family's TCP sockets.
fn question(family: i32, states: u32, extensions: u8, filter: &[u8]) -> Vec<u8> {
    let filter_length = if filter.is_empty() { 0 } else { ATTRIBUTE + filter.len() };
    let length = (HEADER + REQUEST + filter_length) as u32;
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let mut bytes = Vec::with_capacity(length as usize);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(SEQUENCE.to_ne_bytes());
    bytes.extend([0; 4]); // from whom: the kernel knows
    bytes.extend([family as u8, libc::IPPROTO_TCP as u8, extensions, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend([0; 48]); // which socket: all of them
    if !filter.is_empty() {
        bytes.extend((filter_length as u16).to_ne_bytes());
        bytes.extend(INET_DIAG_REQ_BYTECODE.to_ne_bytes());
        bytes.extend(filter);
    }
    bytes
}

/// A program for the kernel that lets through the sockets whose local port is
/// among these (inet_diag_bc_run()). More of them than it can be asked become
/// one range: what comes in excess is sorted out by the reader.
fn filter(ports: &BTreeSet<u16>) -> Vec<u8> {
    const S_GE: u8 = 2;
    const S_LE: u8 = 3;
    const JMP: u8 = 1;
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*port) => *last = *port,
            _ => ranges.push((*port, *port)),
        }
    }
    if let (Some((first, _)), Some((_, last))) = (ranges.first(), ranges.last())
        && ranges.len() > MOST_RANGES
    {
        ranges = vec![(*first, *last)];
    }
    // A range is two comparisons of 8 bytes and a jump of 4. Where one is true
    // the program goes on behind it, else at the next range. The jump leads to
    // the end of the program, and so lets the socket through. The last range
    // needs none: 4 bytes beyond the end is where a socket is refused.
    let comparison = |code, port: u16, otherwise: u16| {
        let operation = [code, 2 * OPERATION].into_iter().chain(otherwise.to_ne_bytes());
        operation.chain([0, 0]).chain(port.to_ne_bytes())
    };
    let mut program = Vec::new();
    let mut left = ranges.len() as u16;
    for (first, last) in ranges {
        left -= 1;
        program.extend(comparison(S_GE, first, 20));
        program.extend(comparison(S_LE, last, 12));
        if left > 0 {
            program.extend([JMP, OPERATION]);
            program.extend((left * 20).to_ne_bytes());
        }
    }
    program
}

#[cfg(test)]
mod tests;

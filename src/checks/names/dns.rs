//! Questions to name servers and their answers: UDP first, TCP for what does
//! not fit (RFC 1035, RFC 7766). It asks for recursion and follows nothing by
//! itself.
//!
//! Each question has a random id and a socket of its own, hence a random port,
//! and takes answers from that server and to that question only.

use std::fmt::Display;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use domain::base::iana::Rcode;
use domain::base::{Message, MessageBuilder, Name, Rtype};
use domain::rdata::{A, Aaaa};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::super::io_reason;
use super::ADDRESSES_MAX;

/// What RFC 1035 allows of a UDP answer, and some more for servers that do not
/// mind.
const UDP_BYTES_MAX: usize = 4096;

/// Before the rounds that resolv.conf asks for, each server gets this long: a
/// lost packet, or a first server that is down, must not cost the 5 s that are
/// usual there, since a check has less.
const FIRST_TIMEOUT: Duration = Duration::from_millis(300);

/// Once one family is known, how long to wait for the other: some servers do
/// not answer for IPv6 at all (RFC 8305, section 3).
const OTHER_FAMILY_DELAY: Duration = Duration::from_millis(50);

/// What is known of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Never none.
    Addresses(Vec<IpAddr>),
    NoAddress,
    NoName,
}

/// Why nothing is known of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// A server has answered that it cannot tell.
    Answered(String),
    /// None has answered.
    Silent(String),
}

/// Asks for the IPv6 and the IPv4 addresses of a name at once.
pub(super) async fn addresses(
    servers: &[SocketAddr],
    server_timeout: Duration,
    attempts: u32,
    name: &Name<Vec<u8>>,
) -> Result<Answer, Failure> {
    let ask = |rtype| ask(servers, server_timeout, attempts, name, rtype);
    let mut aaaa = std::pin::pin!(ask(Rtype::AAAA));
    let mut a = std::pin::pin!(ask(Rtype::A));
    let (first, other) = tokio::select! {
        first = &mut aaaa => match &first {
            Ok(Answer::Addresses(_)) => (first, timeout(OTHER_FAMILY_DELAY, a).await.ok()),
            _ => (first, Some(a.await)),
        },
        first = &mut a => match &first {
            Ok(Answer::Addresses(_)) => (first, timeout(OTHER_FAMILY_DELAY, aaaa).await.ok()),
            _ => (first, Some(aaaa.await)),
        },
    };
    match other {
        Some(other) => together(first, other),
        None => first,
    }
}

/// Addresses of either family will do, and without any a failure counts more
/// than what is known.
fn together(
    one: Result<Answer, Failure>,
    other: Result<Answer, Failure>,
) -> Result<Answer, Failure> {
    use Answer::{Addresses, NoAddress, NoName};
    match (one, other) {
        (Ok(Addresses(mut one)), Ok(Addresses(other))) => {
            one.extend(other);
            Ok(Addresses(one))
        }
        (Ok(Addresses(one)), _) | (_, Ok(Addresses(one))) => Ok(Addresses(one)),
        (Err(failure), _) | (_, Err(failure)) => Err(failure),
        (Ok(NoName), Ok(NoName)) => Ok(NoName),
        (Ok(NoName | NoAddress), Ok(NoName | NoAddress)) => Ok(NoAddress),
    }
}

/// Asks one server after the other, in rounds, until one knows.
async fn ask(
    servers: &[SocketAddr],
    server_timeout: Duration,
    attempts: u32,
    name: &Name<Vec<u8>>,
    rtype: Rtype,
) -> Result<Answer, Failure> {
    let first = FIRST_TIMEOUT.min(server_timeout);
    let rounds = std::iter::once(first).chain((0..attempts).map(|_| server_timeout));
    let mut failure = Failure::Silent("no name server".to_owned());
    for round in rounds {
        for server in servers {
            let query = query(name, rtype)
                .ok_or_else(|| Failure::Answered("the name is too long".to_owned()))?;
            let silent = |what: &dyn Display| {
                Failure::Silent(format!("name server {}: {what}", server.ip()))
            };
            failure = match timeout(round, exchange(*server, &query)).await {
                Ok(Ok(answer)) => match read(&answer, rtype) {
                    Ok(answer) => return Ok(answer),
                    Err(reason) => {
                        Failure::Answered(format!("name server {} {reason}", server.ip()))
                    }
                },
                Ok(Err(error)) => silent(&io_reason(&error)),
                Err(_) => silent(&"no answer"),
            };
        }
        if matches!(failure, Failure::Answered(_)) {
            break;
        }
    }
    Err(failure)
}

/// A question under a new id. `None`: it does not fit, which no name causes.
fn query(name: &Name<Vec<u8>>, rtype: Rtype) -> Option<Message<Vec<u8>>> {
    let mut message = MessageBuilder::new_vec();
    // Std's hash maps are seeded by the kernel, and each map differently.
    message.header_mut().set_id(RandomState::new().hash_one(0) as u16);
    message.header_mut().set_rd(true);
    let mut message = message.question();
    message.push((name, rtype)).ok()?;
    Some(message.into_message())
}

/// Sends a question and waits for its answer, whatever that is.
async fn exchange(server: SocketAddr, query: &Message<Vec<u8>>) -> io::Result<Message<Vec<u8>>> {
    let own: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((own, 0)).await?;
    socket.connect(server).await?;
    socket.send(query.as_slice()).await?;
    let mut buffer = vec![0; UDP_BYTES_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let bytes = buffer.get(..length).unwrap_or_default();
        let Ok(answer) = Message::from_octets(bytes.to_vec()) else { continue };
        if !answer.is_answer(query) {
            continue;
        }
        if !answer.header().tc() {
            return Ok(answer);
        }
        return match exchange_by_tcp(server, query).await {
            // What did fit is better than nothing.
            Err(_) if has_records(&answer) => Ok(answer),
            result => result,
        };
    }
}

fn has_records(answer: &Message<Vec<u8>>) -> bool {
    answer.header_counts().ancount() > 0
}

/// The same in one connection; each message has its length before it.
async fn exchange_by_tcp(
    server: SocketAddr,
    query: &Message<Vec<u8>>,
) -> io::Result<Message<Vec<u8>>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.as_slice().len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(query.as_slice());
    stream.write_all(&bytes).await?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).await?;
    match Message::from_octets(answer) {
        Ok(answer) if answer.is_answer(query) => Ok(answer),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "answered another question")),
    }
}

/// What an answer says. All addresses in it count, whatever chain of aliases
/// leads to them: the server was asked for all of it, and is believed.
pub(super) fn read(answer: &Message<Vec<u8>>, rtype: Rtype) -> Result<Answer, String> {
    match answer.header().rcode() {
        Rcode::NOERROR => {}
        Rcode::NXDOMAIN => return Ok(Answer::NoName),
        rcode => return Err(format!("answers {rcode}")),
    }
    let section = answer.answer().map_err(|_| "answers garbage")?;
    // What is broken ends the list; what came before it is whole.
    let found: Vec<IpAddr> = if rtype == Rtype::A {
        let records = section.limit_to_in::<A>().map_while(Result::ok);
        records.take(ADDRESSES_MAX).map(|record| record.data().addr().into()).collect()
    } else {
        let records = section.limit_to_in::<Aaaa>().map_while(Result::ok);
        records.take(ADDRESSES_MAX).map(|record| record.data().addr().into()).collect()
    };
    Ok(if found.is_empty() { Answer::NoAddress } else { Answer::Addresses(found) })
}

//! From a place to a TCP connection: every address is tried, and the first that
//! accepts wins. The attempts end with the future that makes them.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::sleep;

use super::names::Resolver;
use super::{Stage, io_reason};
use crate::policy::checks::{Host, Place};

/// How long an address may be silent before the next one is tried as well
/// (RFC 8305, section 8).
const NEXT_DELAY: Duration = Duration::from_millis(250);

type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>;

/// Connects to any address of that place.
pub(super) async fn connect(
    resolver: &Resolver,
    place: &Place,
    stage: &Stage,
) -> Result<TcpStream, String> {
    let addresses = match &place.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => {
            stage.enter("while resolving the name");
            resolver.resolve(name).await?
        }
    };
    stage.enter("while connecting");
    let places = addresses.into_iter().map(|address| (address, place.port).into());
    first_of(places).await.map_err(|error| io_reason(&error))
}

/// Tries one after the other, and more than one at a time when they are slow.
async fn first_of(places: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut places = places.peekable();
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut failure: Option<io::Error> = None;
    loop {
        if let Some(place) = places.next() {
            attempts.push(Box::pin(open(place)));
        }
        while !attempts.is_empty() {
            let result = tokio::select! {
                result = first(&mut attempts) => result,
                () = sleep(NEXT_DELAY), if places.peek().is_some() => break,
            };
            match result {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = Some(telling(failure, error)),
            }
            if places.peek().is_some() {
                break;
            }
        }
        if attempts.is_empty() && places.peek().is_none() {
            return Err(failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
        }
    }
}

async fn open(place: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(place).await?;
    // The kernel may choose the very port that is asked for: nobody listens
    // there, but a connection to itself succeeds.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

/// Waits for one of the attempts, which must not be none, and takes it out.
async fn first(attempts: &mut Vec<Attempt>) -> io::Result<TcpStream> {
    poll_fn(|cx| {
        let ended = attempts.iter_mut().enumerate().find_map(|(nth, attempt)| {
            match attempt.as_mut().poll(cx) {
                Poll::Ready(result) => Some((nth, result)),
                Poll::Pending => None,
            }
        });
        match ended {
            Some((nth, result)) => {
                drop(attempts.swap_remove(nth));
                Poll::Ready(result)
            }
            None => Poll::Pending,
        }
    })
    .await
}

/// Of two failures the one that tells more: that there is no way to an address
/// of a family that this machine does not have tells nothing.
fn telling(one: Option<io::Error>, other: io::Error) -> io::Error {
    let is_no_way = |error: &io::Error| {
        use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable};
        matches!(error.kind(), AddrNotAvailable | HostUnreachable | NetworkUnreachable)
    };
    match one {
        Some(one) if is_no_way(&other) || !is_no_way(&one) => one,
        _ => other,
    }
}

/// Both families by turns, IPv6 first: when one of them leads nowhere, the
/// other is next.
pub(super) fn by_turns(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let (six, four): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let mut families = (six.into_iter(), four.into_iter());
    let mut turns = Vec::new();
    loop {
        let turn = (families.0.next(), families.1.next());
        if turn == (None, None) {
            return turns;
        }
        turns.extend(turn.0.into_iter().chain(turn.1));
    }
}

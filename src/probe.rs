//! `castoff probe`: one question to the endpoints of a castoff that runs.
//!
//! It lives in the workload's own cgroup every few seconds, so it is a plain
//! blocking client: no runtime, no log, one connection. Whoever answers is not
//! trusted: how long it may take and how much it may say is bounded, and what it
//! says is not repeated but for names of checks. `run` calls it.

use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::config::{Asked, Question};

/// Bytes of an answer that are read: that of castoff has some hundred.
const ANSWER_MAX: usize = 16 * 1024;

/// How many names of checks are told.
const NAMES_MAX: usize = 8;

/// The longest name that is told, in bytes.
const NAME_LENGTH_MAX: usize = 64;

/// Why the answer is no.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Checks(Checks),
    #[error("the answer has status {0}")]
    Status(u16),
    #[error("the answer is no HTTP")]
    Garbage,
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, io::Error),
    #[error("cannot ask {0}: {1}")]
    Ask(SocketAddr, io::Error),
    #[error("no answer within {0:?}")]
    TooLate(Duration),
}

/// The checks that have failed: at least one name, and how many more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Checks {
    names: Vec<String>,
    more: usize,
}

impl fmt::Display for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.names.len() + self.more > 1 { "s" } else { "" };
        write!(f, "check{plural} {}", self.names.join(", "))?;
        if self.more > 0 {
            write!(f, " and {} more", self.more)?;
        }
        f.write_str(" failed")
    }
}

/// Asks, and waits for no longer than the question allows.
pub(crate) fn ask(question: &Question) -> Result<(), Failure> {
    let deadline = Deadline { at: Instant::now() + question.timeout, timeout: question.timeout };
    let (mut stream, address) = connect(&question.addresses, &deadline)?;
    let path = match question.asked {
        Asked::Live => "/livez",
        Asked::Ready => "/readyz",
        Asked::Started => "/startupz",
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let answer = converse(&mut stream, request.as_bytes(), &deadline)
        .map_err(|failure| failure.of(address))?;
    judge(&answer)
}

/// The moment at which everything must be over.
struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    /// What is left, which is never nothing.
    fn left(&self) -> Result<Duration, Failure> {
        let left = self.at.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(self.missed()) } else { Ok(left) }
    }

    fn missed(&self) -> Failure {
        Failure::TooLate(self.timeout)
    }
}

/// The first address that can be connected to. When none can, the first of
/// them is told: the others only stand in for it.
fn connect(
    addresses: &[SocketAddr],
    deadline: &Deadline,
) -> Result<(TcpStream, SocketAddr), Failure> {
    let mut first = None;
    for address in addresses {
        match TcpStream::connect_timeout(address, deadline.left()?) {
            Ok(stream) => return Ok((stream, *address)),
            Err(error) if error.kind() == ErrorKind::TimedOut => return Err(deadline.missed()),
            Err(error) => {
                first.get_or_insert(Failure::Connect(*address, error));
            }
        }
    }
    Err(first.unwrap_or(Failure::Garbage))
}

/// Sends the request, and reads to the end of the answer.
fn converse(
    stream: &mut TcpStream,
    request: &[u8],
    deadline: &Deadline,
) -> Result<Vec<u8>, Broken> {
    stream.set_write_timeout(Some(deadline.left()?))?;
    stream.write_all(request).map_err(|error| in_time(error, deadline))?;
    let mut answer = vec![0; ANSWER_MAX];
    let mut length = 0;
    while !is_whole(answer.get(..length).unwrap_or_default()) {
        stream.set_read_timeout(Some(deadline.left()?))?;
        let room = answer.get_mut(length..).unwrap_or_default();
        match stream.read(room) {
            // The end, or no room.
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(in_time(error, deadline)),
        }
    }
    answer.truncate(length);
    Ok(answer)
}

/// Why there is no answer; the address is not known yet.
enum Broken {
    Known(Failure),
    Io(io::Error),
}

impl Broken {
    fn of(self, address: SocketAddr) -> Failure {
        match self {
            Self::Known(failure) => failure,
            Self::Io(error) => Failure::Ask(address, error),
        }
    }
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::Known(failure)
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A timeout of the socket says WouldBlock (`man 7 socket`, SO_RCVTIMEO).
fn in_time(error: io::Error, deadline: &Deadline) -> Broken {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => deadline.missed().into(),
        _ => error.into(),
    }
}

/// Head and body, once the head is there.
fn parts(answer: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    Some((answer.get(..end)?, answer.get(end + 4..)?))
}

/// Whether nothing more is to come. Without a length only the end tells.
fn is_whole(answer: &[u8]) -> bool {
    let Some((head, body)) = parts(answer) else { return false };
    let lines = head.split(|byte| *byte == b'\n').filter_map(|line| str::from_utf8(line).ok());
    let length = lines.filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        let is_length = name.trim().eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    length.is_some_and(|length| body.len() >= length)
}

/// What the answer says. Only a 200 is a yes: castoff never redirects.
fn judge(answer: &[u8]) -> Result<(), Failure> {
    let (head, body) = parts(answer).ok_or(Failure::Garbage)?;
    match status(head).ok_or(Failure::Garbage)? {
        200 => Ok(()),
        status => Err(failed_checks(body).map_or(Failure::Status(status), Failure::Checks)),
    }
}

/// `HTTP/1.1 503 Service Unavailable`
fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    let code = rest.split(|byte| *byte == b' ').nth(1)?;
    let code = code.split(|byte| *byte == b'\r').next()?;
    let is_code = code.len() == 3 && code.iter().all(u8::is_ascii_digit);
    str::from_utf8(code).ok().filter(|_| is_code)?.parse().ok()
}

/// The names of the lines `[-]name failed: reason withheld`.
fn failed_checks(body: &[u8]) -> Option<Checks> {
    let is_name = |name: &&str| {
        let is_of_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=NAME_LENGTH_MAX).contains(&name.len()) && name.bytes().all(is_of_name)
    };
    let lines = body.split(|byte| *byte == b'\n').filter_map(|line| str::from_utf8(line).ok());
    let mut names: Vec<_> = lines
        .filter_map(|line| line.strip_prefix("[-]")?.split(' ').next())
        .filter(is_name)
        .map(str::to_owned)
        .collect();
    let more = names.len().saturating_sub(NAMES_MAX);
    names.truncate(NAMES_MAX);
    (!names.is_empty()).then_some(Checks { names, more })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(answer: &str) -> String {
        judge(answer.as_bytes()).map_or_else(|failure| failure.to_string(), |()| "yes".to_owned())
    }

    #[test]
    fn only_a_200_is_a_yes() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\nok", "yes"),
            ("HTTP/1.0 200\r\nA: b\r\n\r\n", "yes"),
            ("HTTP/1.1 204 No Content\r\n\r\n", "the answer has status 204"),
            ("HTTP/1.1 404 Not Found\r\n\r\n404 page not found\n", "the answer has status 404"),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", "the answer has status 503"),
            ("HTTP/1.1 200 OK\r\n", "the answer is no HTTP"),
            ("HTTP/2 200\r\n\r\n", "the answer is no HTTP"),
            ("HTTP/1.1 2000 OK\r\n\r\n", "the answer is no HTTP"),
            ("HTTP/1.1 +20 OK\r\n\r\n", "the answer is no HTTP"),
            ("SSH-2.0-OpenSSH\r\n\r\n", "the answer is no HTTP"),
            ("", "the answer is no HTTP"),
        ] {
            assert_eq!(told(answer), expected, "{answer:?}");
        }
    }

    #[test]
    fn a_no_names_the_checks_that_have_failed() {
        let head = "HTTP/1.1 503 Service Unavailable\r\n\r\n";
        let line = |name: &str| format!("[-]{name} failed: reason withheld\n");
        let body = format!("[+]child ok\n{}readyz check failed\n", line("database"));
        assert_eq!(told(&format!("{head}{body}")), "check database failed");
        let body = line("database") + &line("cache");
        assert_eq!(told(&format!("{head}{body}")), "checks database, cache failed");
        let many: String = (1..=10).map(|nth| line(&format!("c-{nth}"))).collect();
        let expected = "checks c-1, c-2, c-3, c-4, c-5, c-6, c-7, c-8 and 2 more failed";
        assert_eq!(told(&format!("{head}{many}")), expected);
        let hostile = line("\u{1b}[2J") + &line(&"x".repeat(65)) + &line("");
        assert_eq!(told(&format!("{head}{hostile}")), "the answer has status 503");
    }

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
            ("HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", false),
            ("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nok", false),
            ("HTTP/1.1 200 OK\r\n\r\nok", false),
        ] {
            assert_eq!(is_whole(answer.as_bytes()), expected, "{answer:?}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_judged_in_one_short_line(
            answer in "(HTTP/1\\.[01] [0-9]{0,4}( OK)?\r\n)?(.*(\r?\n){0,2}){0,4}(\\[-\\].{0,80}\n){0,20}",
        ) {
            is_whole(answer.as_bytes());
            let told = told(&answer);
            prop_assert!(told.len() < 700 && !told.contains(char::is_control), "{told:?}");
        }
    }
}

//! A client of the endpoints, as plain as a kubelet: one request a connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::wait_until::PATIENCE;

/// An answer: the status, the head as it came, the body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// `GET target`.
#[track_caller]
pub(crate) fn get(address: SocketAddr, target: &str) -> Answer {
    ask(address, &format!("GET {target} HTTP/1.1\r\nHost: castoff\r\nConnection: close\r\n\r\n"))
}

/// Sends `request` as it is, and reads until the server closes.
#[track_caller]
pub(crate) fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the endpoints answer");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("the request is taken");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the answer ends");
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

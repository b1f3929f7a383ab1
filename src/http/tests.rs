//! `serve` on real sockets: a server on a thread of its own, blocking clients
//! here. Every wait ends with a condition or, after half a minute, a failure.

mod http2;

use super::*;
use crate::policy::health::serving;
use crate::policy::status::PhaseName;
use crate::policy::statusz::about;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, spawn};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

const PATIENCE: Duration = Duration::from_secs(30);
const PROBE: &[u8] = b"GET /readyz HTTP/1.1\r\nHost: castoff\r\n\r\n";
const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: castoff\r\n\r\n";

/// A thread that runs `serve` until it is dropped.
struct Server {
    address: SocketAddr,
    status: watch::Sender<Status>,
    /// The next scrape panics.
    is_faulty: Arc<AtomicBool>,
    stop: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Server {
    fn start() -> Self {
        Self::start_with(tokio::runtime::Builder::new_current_thread().enable_all())
    }

    /// With a clock that, whenever nothing else is to be done, jumps to the
    /// next timeout.
    fn start_impatient() -> Self {
        Self::start_with(
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true),
        )
    }

    fn start_with(runtime: &mut tokio::runtime::Builder) -> Self {
        let runtime = runtime.build().expect("a runtime");
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (status, receiver) = watch::channel(serving());
        let (stop, stopped) = oneshot::channel();
        let is_faulty = Arc::new(AtomicBool::new(false));
        let fault = Arc::clone(&is_faulty);
        let thread = spawn(move || {
            let usage = move || match fault.swap(false, Ordering::Relaxed) {
                true => panic!("on purpose"),
                false => Usage::default(),
            };
            let local = LocalSet::new();
            let about = about(std::time::Instant::now());
            let accepted = Rc::default();
            local.spawn_local(serve(listener, CONNECTIONS_MAX, receiver, about, usage, accepted));
            let _ = local.block_on(&runtime, stopped);
        });
        Self { address, status, is_faulty, stop: Some((stop, thread)) }
    }

    fn connect(&self) -> Client {
        let stream = std::net::TcpStream::connect_timeout(&self.address, PATIENCE);
        let stream = stream.expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        Client { stream, received: Vec::new() }
    }

    /// Asks on a connection of its own, as the kubelet does.
    fn probe(&self, path: &str) -> Reply {
        let mut client = self.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n").as_bytes());
        let reply = client.reply();
        client.expect_end();
        reply
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.stop.take() {
            let _ = stop.send(());
            thread.join().expect("the server's thread");
        }
    }
}

struct Client {
    stream: std::net::TcpStream,
    received: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
struct Reply {
    code: u16,
    /// Lower case, without Date.
    headers: Vec<String>,
    body: String,
}

impl Reply {
    fn has(&self, header: &str) -> bool {
        self.headers.iter().any(|known| known == header)
    }
}

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("a server that reads");
    }

    fn receive(&mut self) -> usize {
        let mut chunk = [0; 4096];
        let count = self.stream.read(&mut chunk).expect("an answer");
        self.received.extend_from_slice(&chunk[..count]);
        count
    }

    fn head(&mut self) -> Reply {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at;
            }
            assert!(self.receive() > 0, "ended early: {:?}", self.received);
        };
        let head = String::from_utf8(self.received.drain(..end + 4).collect()).expect("text");
        let mut lines = head.trim_end().lines();
        let code = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let headers = lines.map(str::to_ascii_lowercase).filter(|line| !line.starts_with("date:"));
        Reply { code: code.expect("a code"), headers: headers.collect(), body: String::new() }
    }

    fn reply(&mut self) -> Reply {
        let head = self.head();
        let length = head.headers.iter().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.expect("a length").parse().expect("a number");
        while self.received.len() < length {
            assert!(self.receive() > 0, "ended early");
        }
        let body = String::from_utf8(self.received.drain(..length).collect()).expect("text");
        Reply { body, ..head }
    }

    /// The server closes without another byte.
    fn expect_end(&mut self) {
        assert_eq!(self.rest(), "");
    }

    /// What comes until the server closes.
    fn rest(&mut self) -> String {
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                    break;
                }
            }
        }
        String::from_utf8_lossy(&self.received).into_owned()
    }
}

#[test]
fn the_answers_follow_the_status() {
    let server = Server::start();
    let mut client = server.connect();
    for (path, code) in [("/livez", 200), ("/readyz", 200), ("/startupz", 200), ("/metrics", 200)] {
        assert_eq!(server.probe(path).code, code, "{path}");
    }
    client.send(PROBE);
    assert_eq!(client.reply().body, "ok");
    server.status.send_modify(|status| {
        status.phase = PhaseName::Draining;
        status.stop_requested_at = Some(std::time::Instant::now());
        status.takes_traffic = false;
    });
    client.send(PROBE);
    let reply = client.reply();
    assert_eq!(reply.code, 503, "on a connection that was open before, too");
    assert!(reply.body.ends_with("readyz check failed\n"), "{reply:?}");
    assert_eq!(server.probe("/livez").code, 200);
    assert_eq!(server.probe("/readyz?exclude=stop").code, 200);
    assert!(server.probe("/metrics").body.contains("castoff_ready 0\n"));
}

#[test]
fn every_answer_is_plain_text_that_no_cache_keeps() {
    let server = Server::start();
    for path in ["/livez", "/readyz?verbose", "/", "/nowhere"] {
        let reply = server.probe(path);
        assert!(reply.has("content-type: text/plain; charset=utf-8"), "{reply:?}");
        assert!(reply.has("x-content-type-options: nosniff"), "{reply:?}");
        assert!(reply.has("cache-control: no-cache, no-store"), "{reply:?}");
    }
    assert_eq!(server.probe("/").code, 404);
    assert_eq!(server.probe("/readyz/nothing").code, 404);
}

#[test]
fn a_scrape_gets_the_format_that_it_accepts() {
    let server = Server::start();
    let text = server.probe("/metrics");
    assert!(text.has("content-type: text/plain; version=0.0.4; charset=utf-8"), "{text:?}");
    let mut client = server.connect();
    client.send(
        b"GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text;q=0.5\r\n\
          Accept: text/plain;q=0.1\r\n\r\n",
    );
    let open = client.reply();
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(open.has(&format!("content-type: {media_type}")), "{open:?}");
    assert!(open.body.ends_with("# EOF\n"));
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let server = Server::start();
    let mut client = server.connect();
    for path in ["/livez", "/readyz?verbose", "/metrics", "/nowhere"] {
        client.send(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes());
        let get = client.reply();
        client.send(format!("HEAD {path} HTTP/1.1\r\n\r\n").as_bytes());
        let head = client.head();
        assert_eq!((head.code, head.headers), (get.code, get.headers), "{path}");
    }
}

#[test]
fn other_methods_are_refused_and_their_bodies_ignored() {
    let server = Server::start();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let mut client = server.connect();
        let length = "Content-Length: 1000000\r\nExpect: 100-continue";
        client.send(format!("{method} /livez HTTP/1.1\r\n{length}\r\n\r\n").as_bytes());
        let reply = client.reply();
        assert_eq!(reply.code, 405, "{method}");
        assert!(reply.has("allow: get, head"), "{reply:?}");
        client.expect_end();
    }
}

#[test]
fn connections_last_as_long_as_the_version_and_the_client_say() {
    let server = Server::start();
    for (line, lasts) in [
        ("HTTP/1.1", true),
        ("HTTP/1.1\r\nConnection: close", false),
        ("HTTP/1.0", false),
        ("HTTP/1.0\r\nConnection: keep-alive", true),
    ] {
        let mut client = server.connect();
        client.send(format!("GET /livez {line}\r\n\r\n").as_bytes());
        assert_eq!(client.reply().body, "ok", "{line}");
        if lasts {
            client.send(PROBE);
            assert_eq!(client.reply().body, "ok", "{line}, again");
        } else {
            client.expect_end();
        }
    }
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(PROBE);
    client.stream.shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(client.reply().body, "ok");
    client.expect_end();

    let mut silent = server.connect();
    silent.stream.shutdown(Shutdown::Write).expect("half closed");
    silent.expect_end();
}

#[test]
fn a_header_without_end_is_cut_off() {
    let server = Server::start();
    let mut client = server.connect();
    let mut sent = client.stream.write_all(b"GET /livez HTTP/1.1\r\nX: ").map(|()| 0);
    while let Ok(bytes) = sent {
        assert!(bytes < 100_000_000, "read without end");
        sent = client.stream.write_all(&[b'x'; 1000]).map(|()| bytes + 1000);
    }
    assert_eq!(server.probe("/livez").body, "ok");

    let mut polite = server.connect();
    polite.send(format!("GET /livez HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(8192)).as_bytes());
    let answer = polite.rest();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[test]
fn garbage_ends_its_own_connection_only() {
    let server = Server::start();
    let mut patient = server.connect();
    for garbage in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello over TLS\r\n\r\n",
        b"PRY * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PR",
        b"GET\r\n\r\n",
        b"GET /livez HTTP/9.9\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nno colon\r\n\r\n",
        &[b'\xff'; 20_000],
    ] {
        let mut client = server.connect();
        // A reset while the rest is being sent is an answer as well.
        let _ = client.stream.write_all(garbage);
        let _ = client.stream.shutdown(Shutdown::Write);
        let answer = client.rest();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    patient.send(PROBE);
    assert_eq!(patient.reply().body, "ok");
}

#[test]
fn slow_clients_cannot_lock_a_probe_out() {
    let server = Server::start();
    let mut slow: Vec<_> = (0..200).map(|_| server.connect()).collect();
    for client in &mut slow {
        // The early ones may have been closed already.
        let _ = client.stream.write_all(b"GET /livez HTTP/1.1\r\nX-Slow: ");
    }
    for _ in 0..10 {
        assert_eq!(server.probe("/livez").body, "ok");
    }
    for client in &mut slow[..200 - CONNECTIONS_MAX] {
        client.expect_end();
    }
    let newest = &mut slow[199];
    newest.send(b"yes\r\n\r\n");
    assert_eq!(newest.reply().body, "ok", "the newest of them is still served");
}

#[test]
fn every_request_of_a_pipeline_is_answered() {
    let server = Server::start();
    let client = server.connect();
    let mut writer = client.stream.try_clone().expect("a second handle");
    let flood = spawn(move || writer.write_all(&PROBE.repeat(2000)));
    let mut client = client;
    for _ in 0..1000 {
        assert_eq!(client.reply().body, "ok");
    }
    assert_eq!(server.probe("/livez").body, "ok", "in the middle of the flood");
    for _ in 0..1000 {
        assert_eq!(client.reply().body, "ok");
    }
    flood.join().expect("the flood's thread").expect("all sent");
}

/// Sends until the server takes no more, reads nothing, and returns how many
/// bytes were taken.
fn flood(client: &mut Client, request: &[u8]) -> usize {
    client.stream.set_nonblocking(true).expect("a non-blocking socket");
    let (requests, mut taken) = (request.repeat(100), 0);
    let mut refused_since = std::time::Instant::now();
    // Taken for full when nothing went through for a while.
    while refused_since.elapsed() < Duration::from_millis(300) {
        match client.stream.write(&requests[taken % request.len()..]) {
            Ok(count) => {
                taken += count;
                refused_since = std::time::Instant::now();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => panic!("{error} after {taken} bytes"),
        }
        assert!(taken < 50_000_000, "answers pile up in memory");
    }
    client.stream.set_nonblocking(false).expect("a blocking socket");
    taken
}

#[test]
fn a_client_that_never_reads_is_not_read_from_either() {
    let server = Server::start();
    for request in [PROBE, SCRAPE, b"HEAD /livez HTTP/1.1\r\n\r\n"] {
        let mut client = server.connect();
        flood(&mut client, request);
        assert_eq!(server.probe("/livez").body, "ok");
    }
}

#[test]
fn a_client_that_says_nothing_is_sent_away() {
    let server = Server::start_impatient();
    let mut silent = server.connect();
    silent.expect_end();
    let mut unfinished = server.connect();
    let _ = unfinished.stream.write_all(b"GET /livez HTTP/1.1\r\nX-Slow: ");
    unfinished.rest();
}

#[test]
fn a_client_that_never_reads_is_dropped_in_the_end() {
    let server = Server::start_impatient();
    let mut client = server.connect();
    let error = loop {
        if let Err(error) = client.stream.write_all(SCRAPE) {
            break error.kind();
        }
    };
    assert!([io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe].contains(&error));
}

#[test]
fn statusz_comes_in_the_form_that_is_asked_for() {
    let server = Server::start();
    let ask = |method: &str, accept: &str| {
        let mut client = server.connect();
        let request = format!("{method} /statusz HTTP/1.1\r\n{accept}Connection: close\r\n\r\n");
        client.send(request.as_bytes());
        client.head()
    };
    let text = "content-type: text/plain; charset=utf-8";
    let json = "content-type: application/json";
    for (accept, form) in [
        ("", text),
        ("Accept: */*\r\n", text),
        ("Accept: application/json\r\n", json),
        ("Accept: application/json;q=0.4, text/plain;q=0.5\r\n", text),
        ("Accept: text/plain;q=0.5\r\nAccept: application/json\r\n", json),
    ] {
        for method in ["GET", "HEAD"] {
            let head = ask(method, accept);
            assert!(head.code == 200 && head.has(form), "{accept}: {head:?}");
            assert!(head.has("x-content-type-options: nosniff"), "{head:?}");
            assert!(head.has("cache-control: no-cache, no-store"), "{head:?}");
        }
    }
    assert_eq!(ask("POST", "").code, 405);
    assert!(server.probe("/statusz").body.contains("\nphase         serving\n"));
    assert_eq!(server.probe("/statusz/child").code, 404);
}

#[test]
fn a_panic_ends_its_own_connection_only() {
    let server = Server::start();
    let mut before = server.connect();
    before.send(PROBE);
    assert_eq!(before.reply().body, "ok");
    server.is_faulty.store(true, Ordering::Relaxed);
    let mut unlucky = server.connect();
    unlucky.send(SCRAPE);
    unlucky.expect_end();
    assert_eq!(server.probe("/metrics").code, 200);
    before.send(SCRAPE);
    assert_eq!(before.reply().code, 200);
}

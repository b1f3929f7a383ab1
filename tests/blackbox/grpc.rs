//! grpc.health.v1 over castoff's life, on the port of the pages, and that no
//! client of HTTP/2 costs the child its signals or the stop its deadline.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::grpc::{Channel, asking};
use crate::support::{
    Castoff, Ended, Place, Running, Scratch, example, in_both_places, probe, process, wait_until,
};

const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;
const SERVICE_UNKNOWN: u8 = 3;

impl Running {
    #[track_caller]
    fn channel(&self) -> Channel {
        Channel::open(self.address())
    }

    /// What `Check` says of the levels, on one connection.
    #[track_caller]
    fn assert_checks_are(&self, live: u8, ready: u8, startup: u8) {
        let mut channel = self.channel();
        for (service, state) in
            [("", ready), ("live", live), ("ready", ready), ("startup", startup)]
        {
            assert_eq!(channel.check(service), ("0".to_owned(), Some(state)), "{service}");
        }
    }
}

in_both_places! {
    fn the_services_follow_the_life(place) {
        let scratch = Scratch::new();
        let wait = format!("sh -c 'until [ -e {} ]; do sleep 0.01; done'", scratch.path("marker"));
        let castoff = Castoff::new(place)
            .env("CASTOFF_GRACE_PERIOD", "10m")
            .env("CASTOFF_DRAIN_DELAY", "9m")
            .env("CASTOFF_PRE_START", &wait)
            .child(&example("print_signals"), ["--only-print"])
            .start();
        castoff.assert_checks_are(SERVING, NOT_SERVING, NOT_SERVING);
        fs::write(scratch.path("marker"), "").expect("a file");
        castoff.until_serving().assert_checks_are(SERVING, SERVING, SERVING);
        castoff.stdout().wait_for_line("ready");
        castoff.signal(libc::SIGTERM);
        castoff.until_phase("draining");
        castoff.assert_checks_are(SERVING, NOT_SERVING, SERVING);
        castoff.signal(libc::SIGTERM);
        castoff.stdout().wait_for_line("15 ");
        castoff.assert_checks_are(SERVING, NOT_SERVING, SERVING);
    }

    fn a_watch_sees_the_stop_and_ends_with_castoff(place) {
        let mut castoff = Castoff::new(place)
            .env("CASTOFF_GRACE_PERIOD", "10m")
            .child(&example("print_signals"), ["--only-print"])
            .start();
        castoff.stdout().wait_for_line("ready");
        castoff.until_serving();
        let mut whole = castoff.channel().watch("");
        let mut live = castoff.channel().watch("live");
        let mut unknown = castoff.channel().watch("nobody");
        assert_eq!(whole.next(), Some(SERVING));
        assert_eq!(live.next(), Some(SERVING));
        assert_eq!(unknown.next(), Some(SERVICE_UNKNOWN));
        // Signals change the status too, but not what is watched.
        castoff.signal(libc::SIGUSR1);
        castoff.stdout().wait_for_line("10 ");
        castoff.signal(libc::SIGTERM);
        assert_eq!(whole.next(), Some(NOT_SERVING));
        castoff.stdout().wait_for_line("15 ");
        castoff.signal(libc::SIGTERM);
        let child = castoff.child();
        castoff.signal(libc::SIGKILL);
        castoff.wait();
        // Nobody else would end it.
        process::try_signal(child, libc::SIGKILL);
        assert_eq!([whole.next(), live.next(), unknown.next()], [None; 3]);
    }

    fn floods_over_http2_cost_neither_signals_nor_the_deadline(place) {
        let mut castoff = Castoff::new(place)
            .env("CASTOFF_GRACE_PERIOD", "10m")
            .env("CASTOFF_KILL_RESERVE", "599s")
            .child(&example("print_signals"), ["--only-print"])
            .start();
        castoff.stdout().wait_for_line("ready");
        let address = castoff.until_serving().address();
        castoff.get("/metrics");
        castoff.assert_checks_are(SERVING, SERVING, SERVING);
        let quiet_kib = process::resident_kib(castoff.pid);

        let floods: Vec<_> = FLOODS.iter().map(|bytes| Flood::begin(address, bytes())).collect();
        for flood in &floods {
            wait_until("it has been sent away, or held up, many times", || {
                (flood.rounds() > 10).then_some(())
            });
        }
        assert!(answer_in_a_crowd(address, LIVEZ).ends_with(b"\r\n\r\nok"));
        let is_serving = b"\0\0\0\0\x02\x08\x01";
        let checked = answer_in_a_crowd(address, &check());
        assert!(checked.windows(7).any(|bytes| bytes == is_serving), "{checked:?}");
        castoff.signal(libc::SIGUSR1);
        castoff.stdout().wait_for_line("10 ");
        // 64 connections, each with eight streams whose scrape is not read.
        let busy_kib = process::resident_kib(castoff.pid);
        assert!(busy_kib < quiet_kib + 16_384, "{quiet_kib} KiB became {busy_kib} KiB");
        let descriptors = process::descriptors(castoff.pid);
        assert!(descriptors < 64 + 24, "{descriptors} descriptors");

        castoff.signal(libc::SIGTERM);
        castoff.stdout().wait_for_line("15 ");
        assert_eq!(castoff.wait(), Ended::Code(137));
        let exiting = castoff.log().wait_for_event("exiting");
        // The budget is a second; far more would be the patience of `wait`.
        assert!(exiting["stop_ms"].as_u64() >= Some(1000), "{exiting}");
        drop(floods);
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame's length").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET /metrics`, and its end.
fn scrape(stream: u32) -> Vec<u8> {
    // From HPACK's table: GET and http. Literally: the path.
    frame(1, 5, stream, b"\x82\x86\x04\x08/metrics")
}

const LIVEZ: &[u8] = b"GET /livez HTTP/1.1\r\nHost: castoff\r\nConnection: close\r\n\r\n";

/// `Check` of the service without a name. The connection is closed in order
/// when the client has nothing more to ask.
fn check() -> Vec<u8> {
    let mut list = b"\x83\x86\x04\x1c/grpc.health.v1.Health/Check".to_vec();
    list.extend(b"\x0f\x10\x10application/grpc");
    [PREFACE, &frame(1, 4, 1, &list), &frame(0, 1, 1, &[0; 5])].concat()
}

/// What comes back until the server closes. The crowd comes back as fast as it
/// is sent away, so a client may be the oldest before it was answered, as no
/// build for tests is fast: it asks again, as every prober does.
#[track_caller]
fn answer_in_a_crowd(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    wait_until("a client is answered in the crowd", || {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write)).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        (!answer.is_empty()).then_some(answer)
    })
}

/// What a client sends in one go. It reads nothing of the answers.
const FLOODS: [fn() -> Vec<u8>; 7] = [
    // Rapid reset: each stream is given up in the same packet.
    || {
        let reset = |stream| [scrape(stream), frame(3, 0, stream, &[0, 0, 0, 8])].concat();
        (0..50_000).flat_map(|count| reset(2 * count + 1)).collect()
    },
    // Thousands of streams at once.
    || (0..50_000).flat_map(|count| scrape(2 * count + 1)).collect(),
    // The same where no answer may be sent, in any amount.
    || {
        let no_window = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
        [no_window, (0..8).flat_map(|count| scrape(2 * count + 1)).collect()].concat()
    },
    || frame(6, 0, 0, b"ping me!").repeat(50_000),
    || frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(50_000),
    // A header without an end.
    || [frame(1, 0, 1, b"\x82\x86"), frame(9, 0, 1, b"\0\x01a\x01b").repeat(200_000)].concat(),
    // A megabyte of headers.
    || {
        let many = b"\0\x01a\x7f\x81\x06".iter().copied().chain([b'x'; 262]);
        let piece: Vec<_> = many.collect();
        [frame(1, 0, 1, b"\x82\x86"), frame(9, 0, 1, &piece.repeat(50)).repeat(80)].concat()
    },
];

/// Clients that send the same again and again, each time on a new connection,
/// until this is dropped.
struct Flood {
    rounds: Arc<AtomicUsize>,
    must_end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    fn begin(address: SocketAddr, bytes: Vec<u8>) -> Self {
        let (rounds, must_end) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, end) = (Arc::clone(&rounds), Arc::clone(&must_end));
        let thread = std::thread::spawn(move || {
            // The last ones stay open; all floods together leave room for a probe.
            let mut open = VecDeque::new();
            while !end.load(Ordering::Relaxed) {
                if open.len() == 8 {
                    open.pop_front();
                }
                let Ok(mut stream) = TcpStream::connect(address) else { break };
                // Nobody reads on the other side for as long as this: enough.
                let held_up = Some(Duration::from_millis(5));
                stream.set_write_timeout(held_up).expect("a timeout");
                let _ = stream.write_all(PREFACE).and_then(|()| stream.write_all(&bytes));
                open.push_back(stream);
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { rounds, must_end, thread: Some(thread) }
    }

    fn rounds(&self) -> usize {
        self.rounds.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.must_end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serving() -> Running {
    let castoff = Castoff::new(Place::Subreaper).child("sleep", ["600"]).start();
    castoff.until_serving();
    castoff
}

#[test]
fn what_is_not_answered_says_why() {
    let castoff = serving();
    let mut channel = castoff.channel();
    assert_eq!(channel.check("nobody"), ("5".to_owned(), None));
    let long = [&[0, 0, 0, 255, 255][..], &[b'x'; 65_535]].concat();
    for (path, body, code) in [
        ("/grpc.health.v1.Health/Ask", asking(""), "12"),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", asking(""), "12"),
        // Malformed, compressed, too long.
        ("/grpc.health.v1.Health/Check", b"\0\0\0\0\x02\x0a\x09".to_vec(), "13"),
        ("/grpc.health.v1.Health/Watch", b"\0\0\0\0\x02\x0a\x09".to_vec(), "13"),
        ("/grpc.health.v1.Health/Check", Vec::new(), "13"),
        ("/grpc.health.v1.Health/Check", b"\x01\0\0\0\x01x".to_vec(), "12"),
        ("/grpc.health.v1.Health/Check", long, "8"),
    ] {
        let reply = channel.call(path, "application/grpc+proto", body);
        assert_eq!((reply.status, reply.grpc_status.as_deref()), (200, Some(code)), "{path}");
        assert_eq!(reply.body, b"", "{path}");
    }
    for media_type in ["application/json", "application/grpc-web", "application/grpc+json", ""] {
        let reply = channel.call("/grpc.health.v1.Health/Check", media_type, asking(""));
        assert_eq!(reply.status, 415, "{media_type}");
    }
    assert_eq!(channel.call("/readyz", "text/plain", asking("")).status, 405);
    let post = "POST /grpc.health.v1.Health/Check HTTP/1.1\r\nHost: castoff\r\nConnection: close\r\n\
                Content-Type: application/grpc\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(probe::ask(castoff.address(), post).status, 405, "HTTP/1 has no trailers for it");
}

#[test]
fn a_list_has_every_service() {
    let castoff = serving();
    let path = "/grpc.health.v1.Health/List";
    let reply = castoff.channel().call(path, "application/grpc", vec![0; 5]);
    assert_eq!(reply.grpc_status.as_deref(), Some("0"));
    for service in ["", "live", "ready", "startup"] {
        let length = u8::try_from(service.len()).expect("short");
        let entry = [&[0x0a, length][..], service.as_bytes(), &[0x12, 2, 8, SERVING]].concat();
        let is_there = reply.body.windows(entry.len()).any(|bytes| bytes == entry);
        assert!(is_there, "{service}: {:?}", reply.body);
    }
}

#[test]
fn the_pages_are_the_same_over_both_protocols() {
    let castoff = serving();
    let mut channel = castoff.channel();
    for target in ["/livez", "/readyz?verbose", "/startupz", "/readyz/nothing", "/nothing"] {
        let over_http1 = castoff.get(target);
        let get = channel.page("GET", target);
        assert_eq!((get.status, &get.body[..]), (over_http1.status, over_http1.body.as_bytes()));
        let head = channel.page("HEAD", target);
        assert_eq!((head.status, &head.body[..]), (over_http1.status, &b""[..]));
        for line in over_http1.head.lines().skip(1) {
            let (name, value) = line.split_once(": ").expect("a header");
            if !["connection", "date"].contains(&name.to_ascii_lowercase().as_str()) {
                assert_eq!(get.headers[name], value, "{target}");
                assert_eq!(head.headers[name], value, "{target}");
            }
        }
    }
    assert!(channel.page("GET", "/metrics").body.starts_with(b"# HELP "));
    assert_eq!(channel.page("DELETE", "/livez").status, 405);
}

#[test]
fn the_log_is_castoffs_alone_whatever_its_level() {
    for level in ["debug", "trace"] {
        let castoff = Castoff::new(Place::Subreaper)
            .env("CASTOFF_LOG_LEVEL", level)
            .child("sleep", ["600"])
            .start();
        castoff.until_serving().assert_checks_are(SERVING, SERVING, SERVING);
        // Garbage, for errors are told most of all.
        let mut stream = TcpStream::connect(castoff.address()).expect("an endpoint");
        stream.write_all(&[PREFACE, &[0xff; 100]].concat()).expect("taken");
        let _ = stream.read_to_end(&mut Vec::new());
        castoff.signal(libc::SIGTERM);
        let mut castoff = castoff;
        castoff.wait();
        for line in castoff.log().all() {
            assert!(line.contains("\"event\":\""), "{line}");
        }
    }
}

//! HTTP/2 by hand: frames as they are on the wire, so that a client may also do
//! what no library would. What headers say is left to clients that can read them.

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The message that names no service, and the answers to it.
const NO_NAME: &[u8] = &[0, 0, 0, 0, 0];
const IS_SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
const IS_NOT_SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 2];

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame's length").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header list in HPACK's plainest form: nothing indexed, nothing compressed.
fn header_list(list: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for text in list.iter().flat_map(|(name, value)| [(0, name), (1, value)]) {
        let (part, text) = text;
        if part == 0 {
            block.push(0);
        }
        block.push(u8::try_from(text.len()).ok().filter(|len| *len < 127).expect("short"));
        block.extend(text.as_bytes());
    }
    block
}

fn request(stream: u32, method: &str, path: &str, flags: u8) -> Vec<u8> {
    let list = header_list(&[
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "castoff"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]);
    frame(HEADERS, END_HEADERS | flags, stream, &list)
}

fn call(stream: u32, method: &str) -> Vec<u8> {
    let path = format!("/grpc.health.v1.Health/{method}");
    [request(stream, "POST", &path, 0), frame(DATA, END_STREAM, stream, NO_NAME)].concat()
}

impl Client {
    fn begin_http2(&mut self) {
        self.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
    }

    /// The next frame; `None` when the server has closed.
    fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((head, rest)) = self.received.split_first_chunk::<9>() {
                let [high, middle, low, kind, flags, stream @ ..] = *head;
                let length = u32::from_be_bytes([0, high, middle, low]) as usize;
                if let Some(payload) = rest.get(..length) {
                    let (payload, stream) = (payload.to_vec(), u32::from_be_bytes(stream));
                    self.received.drain(..9 + length);
                    return Some(Frame { kind, flags, stream, payload });
                }
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The next frame of this kind. Pings and settings are answered, all else
    /// is passed over.
    fn until(&mut self, wanted: u8) -> Frame {
        loop {
            let frame = self.frame().expect("the server goes on");
            if frame.kind == wanted {
                return frame;
            }
            self.acknowledge(&frame);
        }
    }

    fn acknowledge(&mut self, seen: &Frame) {
        if [PING, SETTINGS].contains(&seen.kind) && seen.flags & ACK == 0 {
            let payload = if seen.kind == PING { &seen.payload[..] } else { &[] };
            let _ = self.stream.write_all(&frame(seen.kind, ACK, 0, payload));
        }
    }

    /// Everything until the server closes.
    fn frames(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.frame()).collect()
    }
}

#[test]
fn both_protocols_have_one_port() {
    let server = Server::start();
    let mut client = server.connect();
    client.begin_http2();
    client.send(&request(1, "GET", "/readyz", END_STREAM));
    assert_eq!(client.until(DATA).payload, b"ok");
    client.send(&call(3, "Check"));
    assert_eq!(client.until(DATA).payload, IS_SERVING);
    assert_eq!(server.probe("/readyz").body, "ok");
    server.status.send_modify(|status| status.takes_traffic = false);
    client.send(&call(5, "Check"));
    let data = client.until(DATA);
    assert_eq!((data.stream, &data.payload[..]), (5, IS_NOT_SERVING));
    let trailers = client.until(HEADERS);
    assert_eq!((trailers.stream, trailers.flags & END_STREAM), (5, END_STREAM));
}

#[test]
fn the_protocol_is_found_however_slowly_it_comes() {
    let server = Server::start();
    let mut client = server.connect();
    client.stream.set_nodelay(true).expect("a socket");
    let bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &call(1, "Check")].concat();
    bytes.chunks(1).for_each(|byte| client.send(byte));
    assert_eq!(client.until(DATA).payload, IS_SERVING);

    let mut client = server.connect();
    client.stream.set_nodelay(true).expect("a socket");
    PROBE.chunks(1).for_each(|byte| client.send(byte));
    assert_eq!(client.reply().body, "ok");
}

#[test]
fn an_upgrade_is_not_taken() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(
        b"GET /readyz HTTP/1.1\r\nHost: castoff\r\nConnection: Upgrade, HTTP2-Settings\r\n\
          Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    );
    let reply = client.reply();
    assert_eq!((reply.code, &reply.body[..]), (200, "ok"));
}

#[test]
fn head_has_no_body_over_http2_either() {
    let server = Server::start();
    let mut client = server.connect();
    client.begin_http2();
    client.send(&request(1, "HEAD", "/metrics", END_STREAM));
    let head = client.until(HEADERS);
    assert_eq!(head.flags & END_STREAM, END_STREAM);
}

#[test]
fn a_watch_tells_the_state_and_each_change_of_it() {
    let server = Server::start();
    let mut client = server.connect();
    client.begin_http2();
    client.send(&call(1, "Watch"));
    assert_eq!(client.until(DATA).payload, IS_SERVING);
    for (is_ready, told) in [(false, IS_NOT_SERVING), (true, IS_SERVING)] {
        // Of something else, which is not told.
        server.status.send_modify(|status| status.restarts += 1);
        client.send(&frame(PING, 0, 0, &[7; 8]));
        client.until(PING);
        server.status.send_modify(|status| status.takes_traffic = is_ready);
        assert_eq!(client.until(DATA).payload, told);
    }
}

#[test]
fn a_watcher_that_does_not_read_is_told_the_newest() {
    let server = Server::start();
    let mut client = server.connect();
    // Streams begin with no room at all.
    let no_window = [0, 4, 0, 0, 0, 0];
    client.send(&[PREFACE, &frame(SETTINGS, 0, 0, &no_window), &call(1, "Watch")].concat());
    client.until(HEADERS);
    for count in 0..1001 {
        server.status.send_modify(|status| status.takes_traffic = count % 2 == 1);
        assert_eq!(server.probe("/livez").body, "ok");
    }
    client.send(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 4, 0]));
    let mut told = client.until(DATA).payload;
    if told != IS_NOT_SERVING {
        // The one that was waiting.
        told = client.until(DATA).payload;
    }
    assert_eq!(told, IS_NOT_SERVING);
    client.send(&frame(PING, 0, 0, &[7; 8]));
    let next = std::iter::from_fn(|| client.frame()).find(|frame| frame.kind != WINDOW_UPDATE);
    assert_eq!(next.map(|frame| frame.kind), Some(PING), "nothing else was waiting");
}

impl Server {
    /// Sends that until it is answered so before the end. The clock of an impatient
    /// server jumps whenever there is nothing to do: what comes late is too late.
    fn until_told(&self, kind: u8, request: &[u8]) {
        let is_told = (0..1000).any(|_| {
            let mut client = self.connect();
            let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[]), request].concat();
            let _ = client.stream.write_all(&begin);
            client.frames().iter().any(|frame| frame.kind == kind)
        });
        assert!(is_told, "no frame {kind}");
    }
}

#[test]
fn a_preface_that_does_not_end_is_sent_away() {
    let server = Server::start_impatient();
    for part in [1, 3, 4, 14, 23] {
        let mut client = server.connect();
        client.send(&PREFACE[..part]);
        client.frames();
    }
}

#[test]
fn a_client_that_asks_for_nothing_is_sent_away() {
    let server = Server::start_impatient();
    server.until_told(GOAWAY, b"");
    // A call whose message never comes.
    server.until_told(GOAWAY, &request(1, "POST", "/grpc.health.v1.Health/Check", 0));
}

#[test]
fn a_watcher_that_has_gone_without_a_word_is_found_out() {
    Server::start_impatient().until_told(PING, &call(1, "Watch"));
}

#[test]
fn garbage_over_http2_ends_its_own_connection_only() {
    let server = Server::start();
    let mut patient = server.connect();
    patient.begin_http2();
    let many = vec![b'x'; 30_000];
    let unfinished = header_list(&[(":method", "GET"), (":path", "/livez")]);
    let garbage: [Vec<u8>; 9] = [
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(),
        [PREFACE, &many].concat(),
        // More than a frame may have.
        [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(DATA, 0, 1, &many)].concat(),
        // Data without a stream, and a stream of an even number.
        [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(DATA, 0, 1, b"x")].concat(),
        [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, 5, 2, &unfinished)].concat(),
        // No HPACK.
        [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, 5, 1, &[0xff; 100])].concat(),
        // A window that is too large.
        [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255])]
            .concat(),
        // A header list without an end, in small pieces.
        [
            PREFACE,
            &frame(SETTINGS, 0, 0, &[]),
            &frame(HEADERS, 0, 1, &unfinished),
            &frame(CONTINUATION, 0, 1, b"\0\x01a\x01b").repeat(100_000),
        ]
        .concat(),
        // A megabyte of headers.
        [
            PREFACE,
            &frame(SETTINGS, 0, 0, &[]),
            &frame(HEADERS, 0, 1, &unfinished),
            &frame(CONTINUATION, 0, 1, &header_list(&[("x-header", "of many more")]).repeat(600))
                .repeat(80),
        ]
        .concat(),
    ];
    for bytes in &garbage {
        let mut client = server.connect();
        let _ = client.stream.write_all(bytes);
        let frames = client.frames();
        assert!(!frames.iter().any(|frame| frame.kind == DATA), "{frames:?}");
    }
    patient.send(&call(1, "Check"));
    assert_eq!(patient.until(DATA).payload, IS_SERVING);
}

#[test]
fn who_resets_streams_without_end_is_sent_away() {
    let server = Server::start();
    let mut client = server.connect();
    client.begin_http2();
    let mut sent = Ok(());
    for stream in (1..).step_by(2).take(1_000_000) {
        let bytes = [
            request(stream, "GET", "/metrics", END_STREAM),
            frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]),
        ];
        sent = client.stream.write_all(&bytes.concat());
        if sent.is_err() {
            break;
        }
    }
    assert!(sent.is_err(), "a million resets were taken");
    assert_eq!(server.probe("/livez").body, "ok");
}

#[test]
fn a_connection_has_so_many_streams_at_once() {
    let server = Server::start();
    let mut client = server.connect();
    client.begin_http2();
    for stream in (1..4000).step_by(2) {
        // The message never comes, so that they all stay open.
        let call = request(stream, "POST", "/grpc.health.v1.Health/Check", 0);
        if client.stream.write_all(&call).is_err() {
            break;
        }
    }
    let first = client.until(RST_STREAM);
    assert_eq!(first.stream, 1 + 2 * STREAMS_MAX, "the first one too many is refused");
    assert_eq!(server.probe("/livez").body, "ok");
}

/// Waits until that many look at the status: the endpoints, and every Watch.
fn until_watched_by(server: &Server, count: usize) {
    let begun = std::time::Instant::now();
    while server.status.receiver_count() != count {
        assert!(begun.elapsed() < PATIENCE, "{} look", server.status.receiver_count());
        std::thread::yield_now();
    }
}

#[test]
fn a_watch_ends_with_its_client_or_when_its_connection_makes_room() {
    let server = Server::start();
    let watch = || {
        let mut client = server.connect();
        client.begin_http2();
        client.send(&call(1, "Watch"));
        assert_eq!(client.until(DATA).payload, IS_SERVING);
        client
    };
    until_watched_by(&server, 1);
    let mut first = watch();
    until_watched_by(&server, 2);
    first.send(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]));
    until_watched_by(&server, 1);

    let second = watch();
    until_watched_by(&server, 2);
    drop(second);
    until_watched_by(&server, 1);

    let mut third = watch();
    let crowd: Vec<_> = (0..CONNECTIONS_MAX).map(|_| server.connect()).collect();
    third.frames();
    until_watched_by(&server, 1);
    drop(crowd);
}

#[test]
fn a_connection_may_watch_each_service_once_over() {
    let server = Server::start();
    let mut client = server.connect();
    client.begin_http2();
    for stream in [1, 3, 5, 7] {
        client.send(&call(stream, "Watch"));
        assert_eq!(client.until(DATA).payload, IS_SERVING);
    }
    client.send(&call(9, "Watch"));
    let refused = client.until(HEADERS);
    assert_eq!((refused.stream, refused.flags & END_STREAM), (9, END_STREAM));
    client.send(&call(11, "Check"));
    assert_eq!(client.until(DATA).payload, IS_SERVING);
}

#[test]
fn a_panic_ends_its_own_stream_only() {
    let server = Server::start();
    let mut client = server.connect();
    client.begin_http2();
    server.is_faulty.store(true, Ordering::Relaxed);
    client.send(&request(1, "GET", "/metrics", END_STREAM));
    assert_eq!(client.until(RST_STREAM).stream, 1);
    client.send(&call(3, "Check"));
    assert_eq!(client.until(DATA).payload, IS_SERVING);
}

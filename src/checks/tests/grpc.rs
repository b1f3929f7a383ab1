//! gRPC: servers that speak the protocol, by hyper's own HTTP/2, and others.

use super::*;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use std::convert::Infallible;
use std::rc::Rc;
use tokio::task::spawn_local;

/// What a server answers.
#[derive(Clone)]
struct Reply {
    code: u16,
    headers: Vec<(&'static str, &'static str)>,
    data: Vec<u8>,
    trailers: Vec<(&'static str, &'static str)>,
}

impl Reply {
    /// An answer as it should be, with that message.
    fn message(message: &[u8]) -> Self {
        let mut data = vec![0, 0, 0, 0, message.len() as u8];
        data.extend_from_slice(message);
        Self {
            code: 200,
            headers: vec![("content-type", "application/grpc")],
            data,
            trailers: vec![("grpc-status", "0")],
        }
    }

    /// An error without a message.
    fn error(headers: &[(&'static str, &'static str)]) -> Self {
        let mut reply = Self { data: Vec::new(), trailers: Vec::new(), ..Self::message(&[]) };
        reply.headers.extend_from_slice(headers);
        reply
    }
}

#[derive(Clone)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        spawn_local(async { drop(task.await) });
    }
}

fn map_of(headers: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    headers.iter().map(pair).collect()
}

/// What was asked: path, content type, and body.
type Asked = Rc<Cell<Option<(String, String, Vec<u8>)>>>;

/// The result of a check of a server with that reply, and what it was asked.
fn result_and_question(
    reply: &Reply,
    service: &str,
) -> (Result<(), String>, (String, String, Vec<u8>)) {
    run(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let place = local(listener.local_addr().expect("an address").port());
        let asked = Asked::default();
        let (reply, seen) = (reply.clone(), Rc::clone(&asked));
        spawn_local(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            let answer = service_fn(move |request: Request<Incoming>| {
                let (reply, seen) = (reply.clone(), Rc::clone(&seen));
                async move {
                    let uri = request.uri().to_string();
                    let content_type = request.headers().get("content-type").cloned();
                    let content_type =
                        content_type.expect("one").to_str().expect("text").to_owned();
                    let body = request.into_body().collect().await.expect("whole").to_bytes();
                    seen.set(Some((uri, content_type, body.to_vec())));
                    let trailers = map_of(&reply.trailers);
                    let trailers = (!trailers.is_empty()).then_some(Ok(trailers));
                    let body = Full::new(Bytes::from(reply.data));
                    let mut response =
                        Response::new(body.with_trailers(std::future::ready(trailers)));
                    *response.status_mut() = reply.code.try_into().expect("a status");
                    *response.headers_mut() = map_of(&reply.headers);
                    Ok::<_, Infallible>(response)
                }
            });
            let io = TokioIo::new(stream);
            let _ = http2::Builder::new(LocalExecutor).serve_connection(io, answer).await;
        });
        let result = Clients::default().grpc(&place, service, &Stage::default()).await;
        (result, asked.take().expect("a question"))
    })
}

fn result_of(reply: &Reply) -> Result<(), String> {
    result_and_question(reply, "").0
}

#[test]
fn it_asks_the_health_service() {
    let serving = Reply::message(&[0x08, 1]);
    let (result, (uri, content_type, body)) = result_and_question(&serving, "");
    assert_eq!(result, Ok(()));
    assert!(uri.ends_with("/grpc.health.v1.Health/Check") && uri.starts_with("http://127.0.0.1:"));
    assert_eq!(content_type, "application/grpc");
    assert_eq!(body, [0, 0, 0, 0, 0]);
    let (_, (_, _, body)) = result_and_question(&serving, "my.Service");
    assert_eq!(body, b"\0\0\0\0\x0c\x0a\x0amy.Service");
    let (_, (_, _, body)) = result_and_question(&serving, &"s".repeat(300));
    assert_eq!(body.get(..9), Some(&b"\0\0\0\x01\x2f\x0a\xac\x02s"[..]));
}

#[test]
fn only_serving_passes() {
    for (message, result) in [
        (&[0x08, 1][..], Ok(())),
        // Fields that are not known yet, before and behind.
        (&[0x12, 2, 9, 9, 0x08, 1, 0x18, 0x80, 1, 0x25, 0, 0, 0, 0], Ok(())),
        (&[], Err("answered UNKNOWN")),
        (&[0x08, 0], Err("answered UNKNOWN")),
        (&[0x08, 2], Err("answered NOT_SERVING")),
        (&[0x08, 3], Err("answered SERVICE_UNKNOWN")),
        (&[0x08, 9], Err("answered status 9")),
        (&[0x08], Err("answered what is no HealthCheckResponse")),
        (&[0x0b], Err("answered what is no HealthCheckResponse")),
        (&[0x12, 9, 1], Err("answered what is no HealthCheckResponse")),
        (&[0xff; 11], Err("answered what is no HealthCheckResponse")),
    ] {
        let result = result.map_err(str::to_owned);
        assert_eq!(result_of(&Reply::message(message)), result, "{message:?}");
    }
}

#[test]
fn an_error_is_told_with_its_message() {
    let plain = Reply::error(&[("grpc-status", "5"), ("grpc-message", "unknown service")]);
    assert_eq!(result_of(&plain), Err("grpc-status 5: unknown service".to_owned()));
    let late = Reply { trailers: vec![("grpc-status", "12")], ..Reply::message(&[0x08, 1]) };
    assert_eq!(result_of(&late), Err("grpc-status 12".to_owned()));
    let none = Reply { trailers: Vec::new(), ..Reply::message(&[0x08, 1]) };
    assert_eq!(result_of(&none), Err("answered without a grpc-status".to_owned()));
}

#[test]
fn what_is_no_answer_fails_with_its_reason() {
    let right = Reply::message(&[0x08, 1]);
    for (reply, reason) in [
        (Reply { code: 503, ..right.clone() }, "answered HTTP status 503"),
        (Reply { headers: Vec::new(), ..right.clone() }, "answered what is not gRPC"),
        (Reply { data: vec![0; 20_000], ..right.clone() }, "its answer is too long"),
        (
            Reply { data: vec![1, 0, 0, 0, 2, 0x08, 1], ..right.clone() },
            "answered what is no HealthCheckResponse",
        ),
        (
            Reply { data: vec![0, 0xff, 0xff, 0xff, 0xff, 0x08, 1], ..right.clone() },
            "answered what is no HealthCheckResponse",
        ),
        (Reply { data: Vec::new(), ..right.clone() }, "answered what is no HealthCheckResponse"),
    ] {
        assert_eq!(result_of(&reply), Err(reason.to_owned()));
    }
}

/// A check of a server that says just that and then nothing more.
fn result_of_bytes(said: &[u8]) -> Result<(), String> {
    let said = said.to_vec();
    let act = move |mut stream: TcpStream| {
        let mut preface = [0; 24];
        let _ = stream.read_exact(&mut preface);
        let _ = stream.write_all(&said);
        let _ = stream.shutdown(Shutdown::Write);
        is_left(&stream);
        preface
    };
    let (port, server) = serve(vec![act]);
    let result = run(Clients::default().grpc(&local(port), "", &Stage::default()));
    let preface = server.join().expect("no panic").remove(0);
    assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    result
}

#[test]
fn a_server_that_does_not_speak_http_2_fails() {
    let http_1 = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
    let reason = "no answer by HTTP/2: connection error detected: frame with invalid size";
    assert_eq!(result_of_bytes(http_1), Err(reason.to_owned()));
    for said in [&b""[..], b"\0\0\0\x04\0\0\0\0\0\0\0", &[0xff; 20_000], &[0; 20_000]] {
        let reason = result_of_bytes(said).expect_err("no answer");
        assert!(reason.starts_with("no answer by HTTP/2: "), "{reason}");
        assert!(reason.len() <= REASON_MAX, "{reason}");
    }
}

#[test]
fn a_check_that_is_cut_off_leaves_no_connection() {
    // Settings, as every server begins.
    for said in [&b""[..], b"\0\0\0\x04\0\0\0\0\0"] {
        let act = move |mut stream: TcpStream| {
            let _ = stream.write_all(said);
            is_left(&stream)
        };
        let (port, server) = serve(vec![act]);
        let stage = Stage::default();
        let place = local(port);
        let clients = Clients::default();
        let then = cut_off(&stage, clients.grpc(&place, "", &stage));
        assert_eq!(then, "while waiting for the answer");
        assert_eq!(server.join().expect("no panic"), [true]);
    }
}

#[test]
fn a_flood_of_frames_does_not_keep_the_timeout_from_coming() {
    let flood = |mut stream: TcpStream| {
        let _ = stream.write_all(b"\0\0\0\x04\0\0\0\0\0");
        // Frames of a kind that nobody knows are passed over.
        let frames = b"\0\0\x01\xfa\0\0\0\0\0x".repeat(1000);
        while stream.write_all(&frames).is_ok() {}
    };
    let (port, server) = serve(vec![flood]);
    let stage = Stage::default();
    let place = local(port);
    let clients = Clients::default();
    let then = cut_off(&stage, clients.grpc(&place, "", &stage));
    assert_eq!(then, "while waiting for the answer");
    server.join().expect("its client has gone");
}

proptest! {
    #[test]
    fn no_answer_is_too_odd(bytes: Vec<u8>, message in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut whole = vec![0, 0, 0, 0, message.len() as u8];
        whole.extend_from_slice(&message);
        let _ = crate::checks::grpc::status(&bytes);
        let _ = crate::checks::grpc::status(&whole);
    }
}

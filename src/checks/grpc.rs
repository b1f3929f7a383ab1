//! grpc.health.v1.Health/Check over HTTP/2 without TLS, as the kubelet asks it:
//! a new connection each time, and only SERVING passes.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2;
use hyper::header::HeaderMap;
use hyper::rt::Executor;
use hyper::{Request, Response, StatusCode};
use tokio::task::{AbortHandle, spawn_local};

use super::driven::Driven;
use super::names::Resolver;
use super::{BODY_BYTES_MAX, Stage, USER_AGENT, connect, hyper_reason, one_line};
use crate::policy::checks::Place;
use crate::wire::Wire;

/// The names of `HealthCheckResponse.ServingStatus`, by number.
const SERVING_STATUS: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

/// What the server may have on its way before we have read it, in bytes. HTTP/2
/// knows no smaller window of a connection.
const WINDOW_BYTES: u32 = 65_535;

/// Of all headers of an answer together, in bytes.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

pub(super) async fn check(
    resolver: &Resolver,
    place: &Place,
    service: &str,
    stage: &Stage,
) -> Result<(), String> {
    let stream = connect::connect(resolver, place, stage).await?;
    stage.enter("while waiting for the answer");
    let reason = |error: hyper::Error| hyper_reason(&error, "HTTP/2");
    let request = request(place, service)?;
    let tasks = Tasks::default();
    let handshake = http2::Builder::new(tasks.executor())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_header_list_size(HEADER_BYTES_MAX)
        .handshake::<_, Full<Bytes>>(Wire::new(stream));
    let (mut sender, connection) = handshake.await.map_err(reason)?;
    let mut connection = Driven::new(connection);
    let response = connection.until(sender.send_request(request)).await.map_err(reason)?;
    stage.enter("while reading the answer");
    let answer = connection.until(read(response)).await?;
    match status(&answer)? {
        1 => Ok(()),
        other => Err(match usize::try_from(other).ok().and_then(|nth| SERVING_STATUS.get(nth)) {
            Some(name) => format!("answered {name}"),
            None => format!("answered status {other}"),
        }),
    }
}

fn request(place: &Place, service: &str) -> Result<Request<Full<Bytes>>, String> {
    Request::post(format!("http://{place}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", USER_AGENT)
        .body(Full::new(question(service).into()))
        .map_err(|error| one_line(&error.to_string()))
}

/// A `HealthCheckRequest` as gRPC frames it: one byte of flags, the length, and
/// the message, which is one string.
fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a); // field 1, a length follows
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.append(&mut message);
    frame
}

/// Reads the answer to its end, which has the result of the call.
async fn read(response: Response<Incoming>) -> Result<Vec<u8>, String> {
    if response.status() != StatusCode::OK {
        return Err(format!("answered HTTP status {}", response.status().as_u16()));
    }
    let is_grpc = response
        .headers()
        .get("content-type")
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if !is_grpc {
        return Err("answered what is not gRPC".to_owned());
    }
    // An error alone comes without a body: trailers are all there is.
    if let Some(result) = call_result(response.headers()) {
        result?;
    }
    let mut body = response.into_body();
    let mut answer = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| hyper_reason(&error, "HTTP/2"))?;
        match frame.into_data() {
            Ok(data) if answer.len() + data.len() > BODY_BYTES_MAX => {
                return Err("its answer is too long".to_owned());
            }
            Ok(data) => answer.extend_from_slice(&data),
            Err(frame) => {
                let result = frame.trailers_ref().and_then(call_result);
                return result.unwrap_or_else(no_result).map(|()| answer);
            }
        }
    }
    no_result().map(|()| answer)
}

fn no_result() -> Result<(), String> {
    Err("answered without a grpc-status".to_owned())
}

/// What `grpc-status` says, if it is there.
fn call_result(headers: &HeaderMap) -> Option<Result<(), String>> {
    let status = headers.get("grpc-status")?;
    if status.as_bytes() == b"0" {
        return Some(Ok(()));
    }
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let status = text("grpc-status").unwrap_or_default();
    let message = text("grpc-message").unwrap_or_default();
    let colon = if message.is_empty() { "" } else { ": " };
    Some(Err(one_line(&format!("grpc-status {status}{colon}{message}"))))
}

/// The status in a framed `HealthCheckResponse`.
pub(super) fn status(answer: &[u8]) -> Result<u64, String> {
    fn parse(answer: &[u8]) -> Option<u64> {
        let (head, mut message) = answer.split_at_checked(5)?;
        let (flags, length) = head.split_first()?;
        let length = u32::from_be_bytes(length.try_into().ok()?);
        // Flag 1 would mean that it is compressed, which we did not allow.
        if *flags != 0 || usize::try_from(length) != Ok(message.len()) {
            return None;
        }
        // What protobuf leaves out has its default.
        let mut status = 0;
        while !message.is_empty() {
            match varint(&mut message)? {
                0x08 => status = varint(&mut message)?,
                field => skip(field, &mut message)?,
            }
        }
        Some(status)
    }
    parse(answer).ok_or_else(|| "answered what is no HealthCheckResponse".to_owned())
}

/// A field of a later version of the protocol.
fn skip(field: u64, message: &mut &[u8]) -> Option<()> {
    let length = match field & 7 {
        0 => return varint(message).map(drop),
        1 => 8,
        2 => usize::try_from(varint(message)?).ok()?,
        5 => 4,
        _ => return None,
    };
    *message = message.get(length..)?;
    Some(())
}

/// At most ten bytes of seven bits each, the low ones first.
fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for nth in 0..10 {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << (7 * nth);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The tasks that hyper starts for one connection; all end when it is dropped.
#[derive(Default)]
struct Tasks(Rc<RefCell<Vec<AbortHandle>>>);

#[derive(Clone)]
struct TaskStarter(Rc<RefCell<Vec<AbortHandle>>>);

impl Tasks {
    fn executor(&self) -> TaskStarter {
        TaskStarter(Rc::clone(&self.0))
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for TaskStarter {
    fn execute(&self, task: F) {
        self.0.borrow_mut().push(spawn_local(task).abort_handle());
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in self.0.borrow().iter() {
            task.abort();
        }
    }
}

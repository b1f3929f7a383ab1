//! HTTP as the kubelet's prober asks it: one GET on a connection of its own,
//! redirects to the same host followed, 200 to 399 passes (kubernetes
//! `pkg/probe/http`, and Go's `net/http` below it).
//!
//! https is not spoken; a redirect to it passes like one to another host.

mod location;

use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::driven::Driven;
use super::names::Resolver;
use super::{BODY_BYTES_MAX, Stage, USER_AGENT, connect, hyper_reason, one_line};
use crate::policy::checks::{HttpTarget, Place};
use crate::wire::Wire;
use location::Next;

/// As Go has it: the tenth redirect is not followed.
const REQUESTS_MAX: usize = 10;

/// Of all headers of an answer together, in bytes; hyper takes 100 of them.
const HEADER_BYTES_MAX: usize = 32 * 1024;

pub(super) async fn check(
    resolver: &Resolver,
    target: &HttpTarget,
    stage: &Stage,
) -> Result<(), String> {
    let mut headers = headers(target).ok_or("its headers are not valid")?;
    let mut place = target.place.clone();
    let mut path = target.path.clone();
    for _ in 0..REQUESTS_MAX {
        let answer = ask(resolver, &place, &path, &headers, stage).await?;
        let Some(location) = answer.location else {
            return match answer.status {
                200..=399 => Ok(()),
                status => Err(format!("answered {status}")),
            };
        };
        match location::follow(&place, &path, location.as_bytes()) {
            Some(Next::Elsewhere) => return Ok(()),
            Some(Next::Here { port, path: next, host }) => {
                place.port = port;
                path = next;
                // A Host of the user's own stays where the server names none.
                if let Some(host) = host {
                    let host = HeaderValue::try_from(host);
                    headers.insert(header::HOST, host.map_err(|_| no_way(&location))?);
                }
            }
            None => return Err(no_way(&location)),
        }
    }
    Err(format!("redirected {REQUESTS_MAX} times"))
}

fn no_way(location: &HeaderValue) -> String {
    let location = String::from_utf8_lossy(location.as_bytes());
    one_line(&format!("redirects to what is no address: {location}"))
}

/// What an answer comes to.
struct Answer {
    status: u16,
    /// Where it redirects to, if that is to be looked at.
    location: Option<HeaderValue>,
}

async fn ask(
    resolver: &Resolver,
    place: &Place,
    path: &str,
    headers: &HeaderMap,
    stage: &Stage,
) -> Result<Answer, String> {
    let mut request = Request::get(path)
        .body(Empty::<Bytes>::new())
        .map_err(|_| "its path is not valid".to_owned())?;
    *request.headers_mut() = headers.clone();
    let stream = connect::connect(resolver, place, stage).await?;
    stage.enter("while waiting for the answer");
    let reason = |error: hyper::Error| hyper_reason(&error, "HTTP");
    let (mut sender, connection) = http1::Builder::new()
        .writev(false)
        .title_case_headers(true)
        .max_header_size(HEADER_BYTES_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .handshake(Wire::new(stream))
        .await
        .map_err(reason)?;
    let mut connection = Driven::new(connection);
    let response = connection.until(sender.send_request(request)).await.map_err(reason)?;
    let status = response.status().as_u16();
    let location = match status {
        301 | 302 | 303 | 307 | 308 => response.headers().get(header::LOCATION).cloned(),
        _ => None,
    };
    if location.as_ref().is_none_or(HeaderValue::is_empty) {
        stage.enter("while reading the answer");
        let mut body = response.into_body();
        let mut length = 0;
        while length < BODY_BYTES_MAX
            && let Some(frame) = connection.until(body.frame()).await
        {
            let frame = frame.map_err(|_| "its body breaks off")?;
            length += frame.data_ref().map_or(0, Bytes::len);
        }
    }
    Ok(Answer { status, location: location.filter(|location| !location.is_empty()) })
}

/// The headers of the request. What the user gives replaces what it would have,
/// and nothing takes it out; what frames the request is not the user's to say.
fn headers(target: &HttpTarget) -> Option<HeaderMap> {
    let mut given = HeaderMap::new();
    for (name, value) in &target.headers {
        let name = HeaderName::try_from(name).ok()?;
        given.append(name, HeaderValue::try_from(value).ok()?);
    }
    for framing in
        [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TRAILER]
    {
        given.remove(framing);
    }
    let mut headers = HeaderMap::new();
    let host = HeaderValue::try_from(target.place.to_string()).ok()?;
    for (name, usual) in [
        (header::HOST, host),
        (header::USER_AGENT, HeaderValue::from_static(USER_AGENT)),
        (header::ACCEPT, HeaderValue::from_static("*/*")),
    ] {
        let is_host = name == header::HOST;
        match given.remove(&name) {
            Some(value) if !value.is_empty() => headers.insert(name, value),
            // HTTP/1.1 has no request without it.
            None => headers.insert(name, usual),
            Some(_) if is_host => headers.insert(name, usual),
            Some(_) => None,
        };
    }
    headers.extend(given);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Some(headers)
}

//! The calls of grpc.health.v1, as HTTP/2 carries them: headers, messages and
//! trailers. What they say is decided in `policy::grpc_health`.
//!
//! Owns how much of a request is read and for how long it is waited for. A
//! Watch keeps nothing but the state it told last: whoever reads slowly is told
//! the newest next.

use super::HEADER_TIMEOUT;
use super::streams::{Open, Watching};
use crate::policy::grpc_health::{self, BODY_BYTES_MAX, Code, Method, Service, State};
use crate::policy::status::Status;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::watch;
use tokio::time::timeout;

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Whether a request is a call, by its media type. Only protobuf is spoken.
pub(super) fn is_call<B>(request: &Request<B>) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let media_type = value.and_then(|value| value.split(|byte| *byte == b';').next());
    matches!(
        media_type.map(<[u8]>::trim_ascii_end),
        Some(b"application/grpc" | b"application/grpc+proto")
    )
}

/// Answers a call. Its stream counts as open until the answer has been sent.
pub(super) async fn answer(
    request: Request<Incoming>,
    mut status: watch::Receiver<Status>,
    open: Open,
) -> Response<Answer> {
    let Some(method) = Method::at(request.uri().path()) else {
        return refused(Code::Unimplemented, open);
    };
    let body = match read(request.into_body()).await {
        Ok(body) => body,
        Err(code) => return refused(code, open),
    };
    let message = match method {
        Method::Check => grpc_health::check(&body, &status.borrow_and_update()),
        Method::List => grpc_health::list(&body, &status.borrow_and_update()),
        Method::Watch => {
            return match (grpc_health::service(&body), open.watch()) {
                (Ok(service), Some(watching)) => {
                    let news = Box::pin(next(status, service, None));
                    success(Content::Watch { service, news, _watching: watching }, open)
                }
                (Ok(_), None) => refused(Code::ResourceExhausted, open),
                (Err(code), _) => refused(code, open),
            };
        }
    };
    match message {
        Ok(message) => success(Content::Message(message.into()), open),
        Err(code) => refused(code, open),
    }
}

/// The body of a request, or as much of it as shows that it is too long.
async fn read(mut body: Incoming) -> Result<Vec<u8>, Code> {
    let whole = async {
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            // The client has gone, or does not keep to the protocol.
            let frame = frame.map_err(|_| Code::Internal)?;
            let data = frame.into_data().unwrap_or_default();
            let room = (BODY_BYTES_MAX + 1).saturating_sub(bytes.len());
            bytes.extend(data.iter().take(room));
            if bytes.len() > BODY_BYTES_MAX {
                break;
            }
        }
        Ok(bytes)
    };
    timeout(HEADER_TIMEOUT, whole).await.unwrap_or(Err(Code::DeadlineExceeded))
}

fn success(content: Content, open: Open) -> Response<Answer> {
    let mut response = Response::new(Answer { content, _open: open });
    response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    response
}

/// An answer that is only its status.
fn refused(code: Code, open: Open) -> Response<Answer> {
    let mut response = success(Content::Nothing, open);
    response.headers_mut().insert(GRPC_STATUS, number(code));
    response
}

/// A request to the service by somebody who speaks something else.
pub(super) fn unsupported(open: Open) -> Response<Answer> {
    let mut response = Response::new(Answer { content: Content::Nothing, _open: open });
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

/// An answer of the endpoints, as it is for HTTP/1.
pub(super) fn page(response: Response<Full<Bytes>>, open: Open) -> Response<Answer> {
    response.map(|page| Answer { content: Content::Page(page), _open: open })
}

fn number(code: Code) -> HeaderValue {
    HeaderValue::from(code as u16)
}

/// Waits until the service is in another state than `told`; gives back the
/// receiver for the next. `None` when there will be no other.
async fn next(
    mut status: watch::Receiver<Status>,
    service: Service,
    told: Option<State>,
) -> Option<(watch::Receiver<Status>, State)> {
    loop {
        let state = State::of(service, &status.borrow_and_update());
        if Some(state) != told {
            return Some((status, state));
        }
        // Most changes are of something else, such as a count of signals.
        status.changed().await.ok()?;
    }
}

/// The body of an answer over HTTP/2.
pub(super) struct Answer {
    content: Content,
    _open: Open,
}

type News = Pin<Box<dyn Future<Output = Option<(watch::Receiver<Status>, State)>>>>;

enum Content {
    Page(Full<Bytes>),
    Watch {
        service: Service,
        news: News,
        _watching: Watching,
    },
    /// The only message of an answer.
    Message(Bytes),
    /// What follows the last message.
    Trailers(Code),
    Nothing,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let (frame, rest) = match &mut self.content {
            Content::Page(page) => return Pin::new(page).poll_frame(context),
            Content::Watch { service, news, .. } => match ready!(news.as_mut().poll(context)) {
                Some((status, state)) => {
                    *news = Box::pin(next(status, *service, Some(state)));
                    return Poll::Ready(Some(Ok(Frame::data(state.response().into()))));
                }
                None => (trailers(Code::Unavailable), Content::Nothing),
            },
            Content::Message(message) => {
                (Frame::data(std::mem::take(message)), Content::Trailers(Code::Ok))
            }
            Content::Trailers(code) => (trailers(*code), Content::Nothing),
            Content::Nothing => return Poll::Ready(None),
        };
        self.content = rest;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Page(page) => page.is_end_stream(),
            Content::Nothing => true,
            _ => false,
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match &self.content {
            Content::Page(page) => page.size_hint(),
            // Not even of one message: its trailers follow.
            _ => hyper::body::SizeHint::default(),
        }
    }
}

fn trailers(code: Code) -> Frame<Bytes> {
    Frame::trailers(HeaderMap::from_iter([(GRPC_STATUS, number(code))]))
}

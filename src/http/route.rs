//! One request in, one response out. What the response says is decided in
//! `policy`; here are methods, status codes and headers.

use super::grpc;
use super::statusz;
use super::streams::Open;
use crate::policy::accept;
use crate::policy::grpc_health::Method as Call;
use crate::policy::health::{self, Verdict};
use crate::policy::metrics::{self, Format};
use crate::policy::status::Status;
use crate::policy::statusz::{About, text as statusz_text};
use crate::policy::usage::Usage;
use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::time::Instant;
use tokio::sync::watch;

/// What the endpoints tell of.
pub(super) struct Endpoints<F> {
    status: watch::Receiver<Status>,
    about: About,
    usage: F,
}

impl<F: Fn() -> Usage> Endpoints<F> {
    pub(super) fn new(status: watch::Receiver<Status>, about: About, usage: F) -> Self {
        Self { status, about, usage }
    }

    /// The response to a request, whose body is never looked at. It has a body
    /// for HEAD too: hyper keeps that to itself but sends its length, and holds
    /// a client's next request back only while there is a body to be written.
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response =
                text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed\n".to_owned());
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/metrics" => {
                let format = Format::from_accept(&accepted(request.headers()));
                // Before the status: it may find other limits.
                let usage = (self.usage)();
                let page = metrics::render(&self.status.borrow(), &usage, format);
                typed(page, format.content_type())
            }
            "/statusz" => {
                let usage = (self.usage)();
                let (status, about, now) = (self.status.borrow(), &self.about, Instant::now());
                if accept::prefers_json(&accepted(request.headers())) {
                    let page = statusz::json(&status, &usage, about, now);
                    return typed(page, "application/json");
                }
                text(StatusCode::OK, statusz_text(&status, &usage, about, now))
            }
            path => {
                let query = request.uri().query().unwrap_or_default();
                let answer = health::answer(&self.status.borrow(), path, query);
                text(status_code(answer.verdict), answer.body)
            }
        }
    }

    /// The response over HTTP/2: to a call, or the same as over HTTP/1. The
    /// stream counts as `open` until it has been sent.
    pub(super) async fn answer_http2(
        &self,
        request: Request<Incoming>,
        open: Open,
    ) -> Response<grpc::Answer> {
        if request.method() == Method::POST {
            if grpc::is_call(&request) {
                return grpc::answer(request, self.status.clone(), open).await;
            }
            if Call::at(request.uri().path()).is_some() {
                return grpc::unsupported(open);
            }
        }
        let mut response = self.answer(&request);
        if request.method() == Method::HEAD {
            // hyper keeps the body to itself only over HTTP/1.
            let length = response.body().size_hint().exact();
            *response.body_mut() = Full::default();
            if let Some(length) = length {
                response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
            }
        }
        grpc::page(response, open)
    }
}

fn status_code(verdict: Verdict) -> StatusCode {
    match verdict {
        Verdict::Passed => StatusCode::OK,
        Verdict::Failed => StatusCode::SERVICE_UNAVAILABLE,
        Verdict::Unknown => StatusCode::NOT_FOUND,
    }
}

/// A response with the headers that all have.
fn text(code: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    for (name, value) in [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-cache, no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A page of another type than plain text.
fn typed(page: String, content_type: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, page);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// All Accept headers as one. What is not text asks for nothing.
fn accepted(headers: &HeaderMap) -> String {
    let values = headers.get_all(header::ACCEPT).iter();
    values.filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",")
}

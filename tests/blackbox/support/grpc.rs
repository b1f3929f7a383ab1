//! A client of grpc.health.v1 over h2c, and of the pages over the same.

use std::io::Cursor;
use std::net::SocketAddr;

use h2::RecvStream;
use h2::client::SendRequest;
use hyper::header::HeaderMap;
use hyper::{Request, Response};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::wait_until::PATIENCE;

/// A connection.
pub(crate) struct Channel {
    runtime: Runtime,
    requests: SendRequest<Cursor<Vec<u8>>>,
}

/// What came back, to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// Of the trailers, or of the headers when that is all there is.
    pub(crate) grpc_status: Option<String>,
}

/// The request of a service's name, in its frame.
pub(crate) fn asking(service: &str) -> Vec<u8> {
    let length = u8::try_from(service.len()).expect("a short name");
    let message = [&[0x0a, length], service.as_bytes()].concat();
    [&[0, 0, 0, 0, length + 2], &message[..]].concat()
}

/// The state in an answer that has exactly one.
#[track_caller]
pub(crate) fn state(message: &[u8]) -> u8 {
    assert!(matches!(message, [0, 0, 0, 0, 2, 8, _]), "{message:?}");
    message[6]
}

impl Channel {
    #[track_caller]
    pub(crate) fn open(address: SocketAddr) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let requests = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.expect("the endpoints answer");
            let (requests, connection) =
                h2::client::Builder::new().handshake(stream).await.expect("HTTP/2");
            tokio::spawn(connection);
            requests
        });
        Self { runtime, requests }
    }

    /// Sends a request with that body and waits for the head of its answer.
    #[track_caller]
    fn begin(&mut self, request: Request<()>, body: Option<Vec<u8>>) -> Response<RecvStream> {
        let mut requests = self.requests.clone();
        let answer = async {
            std::future::poll_fn(|context| requests.poll_ready(context)).await?;
            let (answer, mut stream) = requests.send_request(request, body.is_none())?;
            if let Some(body) = body {
                stream.send_data(Cursor::new(body), true)?;
            }
            answer.await
        };
        let answer = self.runtime.block_on(async { timeout(PATIENCE, answer).await });
        answer.expect("an answer in time").expect("an answer")
    }

    #[track_caller]
    fn finish(&mut self, answer: Response<RecvStream>) -> Reply {
        let (head, mut stream) = answer.into_parts();
        let rest = async {
            let mut body = Vec::new();
            while let Some(data) = stream.data().await {
                body.extend_from_slice(&data?);
            }
            Ok::<_, h2::Error>((body, stream.trailers().await?))
        };
        let rest = self.runtime.block_on(async { timeout(PATIENCE, rest).await });
        let (body, trailers) = rest.expect("its end in time").expect("its end");
        let last = trailers.as_ref().unwrap_or(&head.headers).get("grpc-status");
        let grpc_status = last.map(|value| value.to_str().expect("text").to_owned());
        Reply { status: head.status.as_u16(), headers: head.headers, body, grpc_status }
    }

    /// A page.
    #[track_caller]
    pub(crate) fn page(&mut self, method: &str, target: &str) -> Reply {
        let request = Request::builder().method(method).uri(format!("http://castoff{target}"));
        let answer = self.begin(request.body(()).expect("a request"), None);
        self.finish(answer)
    }

    /// A call, with whatever body and media type.
    #[track_caller]
    pub(crate) fn call(&mut self, path: &str, media_type: &str, body: Vec<u8>) -> Reply {
        let answer = self.begin(call(path, media_type), Some(body));
        self.finish(answer)
    }

    /// `Check`: the code of the status, and the state when there is one.
    #[track_caller]
    pub(crate) fn check(&mut self, service: &str) -> (String, Option<u8>) {
        let path = "/grpc.health.v1.Health/Check";
        let reply = self.call(path, "application/grpc", asking(service));
        assert_eq!(reply.status, 200);
        assert_eq!(reply.headers["content-type"], "application/grpc");
        let state = (!reply.body.is_empty()).then(|| state(&reply.body));
        (reply.grpc_status.expect("a status"), state)
    }

    /// `Watch`, whose answers are to be asked for one by one.
    #[track_caller]
    pub(crate) fn watch(mut self, service: &str) -> Watch {
        let request = call("/grpc.health.v1.Health/Watch", "application/grpc");
        let answer = self.begin(request, Some(asking(service)));
        Watch { channel: self, stream: answer.into_body() }
    }
}

fn call(path: &str, media_type: &str) -> Request<()> {
    Request::post(format!("http://castoff{path}"))
        .header("content-type", media_type)
        .header("te", "trailers")
        .body(())
        .expect("a request")
}

pub(crate) struct Watch {
    channel: Channel,
    stream: RecvStream,
}

impl Watch {
    /// The next state; `None` when the stream has ended.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Option<u8> {
        let data = self.stream.data();
        let data = self.channel.runtime.block_on(async { timeout(PATIENCE, data).await });
        let data = data.expect("the next in time")?.ok()?;
        Some(state(&data))
    }
}

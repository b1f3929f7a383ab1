//! The checks against real servers on loopback, honest ones and others. A
//! server is a thread that serves what it is told to; every wait ends with a
//! condition or, after half a minute, a failure.

mod files;
mod grpc;
mod http;

use super::*;
use std::fs;
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::{JoinHandle, spawn};

use crate::policy::checks::Host;
use tokio::runtime::{Builder, LocalOptions};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a check as the supervisor would, but for the timeout.
pub(super) fn run<T>(check: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let patient = async { timeout(PATIENCE, check).await.expect("the check ends") };
    runtime.expect("a runtime").block_on(patient)
}

/// Drops a check that does not end by itself, and tells what it was doing.
fn cut_off<T: std::fmt::Debug>(stage: &Stage, check: impl Future<Output = T>) -> &'static str {
    run(async {
        let result = timeout(Duration::from_millis(200), check).await;
        result.expect_err("it has no end");
        // The tasks that are aborted end at their next turn.
        tokio::task::yield_now().await;
        stage.as_str()
    })
}

fn local(port: u16) -> Place {
    Place { host: Host::Address(Ipv4Addr::LOCALHOST.into()), port }
}

fn port_of(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("an address").port()
}

fn listen() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port")
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    port_of(&listen())
}

/// A server of as many connections as there are acts, one after the other.
fn serve<T: Send + 'static>(
    acts: Vec<impl FnOnce(TcpStream) -> T + Send + 'static>,
) -> (u16, JoinHandle<Vec<T>>) {
    let listener = listen();
    let port = port_of(&listener);
    let serve = move || {
        let act = |act: Box<dyn FnOnce(TcpStream) -> T>| {
            let (stream, _) = listener.accept().expect("a client");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
            act(stream)
        };
        acts.into_iter().map(|one| act(Box::new(one))).collect()
    };
    (port, spawn(serve))
}

/// Whether the other side goes away, whatever it sends before.
fn is_left(mut stream: &TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

/// A directory of the test's own, gone with it.
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("castoff-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn tcp(place: &Place) -> Result<(), String> {
    run(Clients::default().tcp(place, &Stage::default()))
}

#[test]
fn a_port_that_is_listened_on_passes_and_the_connection_is_closed() {
    let (port, server) = serve(vec![|stream: TcpStream| is_left(&stream)]);
    assert_eq!(tcp(&local(port)), Ok(()));
    assert_eq!(server.join().expect("no panic"), [true]);
}

#[test]
fn a_port_that_nobody_listens_on_refuses() {
    assert_eq!(tcp(&local(free_port())), Err("connection refused".to_owned()));
}

#[test]
fn a_name_passes_by_whichever_family_is_listened_on() {
    let none = Path::new("/nonexistent");
    let clients = Clients { resolver: Resolver::of(none, none, 53), ..Clients::default() };
    for address in ["127.0.0.1", "::1"] {
        let listener = TcpListener::bind((address, 0)).expect("a free port");
        let place = Place { host: Host::Name("localhost".to_owned()), port: port_of(&listener) };
        assert_eq!(run(clients.tcp(&place, &Stage::default())), Ok(()), "{address}");
    }
}

#[test]
fn an_address_that_is_silent_does_not_keep_the_next_from_being_tried() {
    // A full queue of connections drops what comes, as a dead machine would.
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let silent = silent.expect("a socket");
    silent.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0)).into()).expect("bound");
    silent.listen(0).expect("listening");
    let port = silent.local_addr().expect("an address").as_socket().expect("IPv4").port();
    let _taken = TcpStream::connect((Ipv4Addr::new(127, 0, 0, 2), port)).expect("the one place");
    let _listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 3), port)).expect("the same port");

    let directory = Directory::new("silent");
    fs::write(directory.join("hosts"), "127.0.0.2 web\n127.0.0.3 web\n").expect("written");
    let clients = Clients {
        resolver: Resolver::of(&directory.join("hosts"), &directory.join("resolv.conf"), 53),
        ..Clients::default()
    };
    let web = Place { host: Host::Name("web".to_owned()), port };
    assert_eq!(run(clients.tcp(&web, &Stage::default())), Ok(()));

    let alone = Place { host: Host::Address(Ipv4Addr::new(127, 0, 0, 2).into()), port };
    let stage = Stage::default();
    assert_eq!(cut_off(&stage, clients.tcp(&alone, &stage)), "while connecting");
}

#[test]
fn a_unix_socket_passes_while_it_has_room() {
    let directory = Directory::new("unix");
    let unix = |name: &str| {
        run(async { Clients::default().unix(&directory.join(name), &Stage::default()).await })
    };
    assert_eq!(unix("none"), Err("no such file or directory".to_owned()));

    let listener = UnixListener::bind(directory.join("stream")).expect("a socket");
    assert_eq!(unix("stream"), Ok(()));
    drop(listener);
    assert_eq!(unix("stream"), Err("connection refused".to_owned()));

    let _datagram = UnixDatagram::bind(directory.join("datagram")).expect("a socket");
    assert_eq!(unix("datagram"), Err("protocol wrong type for socket".to_owned()));

    let full = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
    let full = full.expect("a socket");
    let path = directory.join("full");
    full.bind(&socket2::SockAddr::unix(&path).expect("short")).expect("bound");
    full.listen(0).expect("listening");
    let _taken = std::os::unix::net::UnixStream::connect(&path).expect("the one place");
    assert_eq!(unix("full"), Err("its queue of connections is full".to_owned()));
}

#[test]
fn a_reason_is_one_line_of_bounded_length() {
    let odd = one_line(&"a\n\u{1b}[31m\u{e4}".repeat(100));
    assert_eq!(odd.chars().count(), REASON_MAX);
    assert!(odd.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{odd:?}");
    let error = io::Error::from_raw_os_error(113);
    assert_eq!(io_reason(&error), "no route to host");
}

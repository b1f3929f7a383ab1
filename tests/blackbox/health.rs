//! The endpoints over castoff's life: what each path answers in each phase, and
//! that no client, however it behaves, costs the child its signals or the stop
//! its deadline.
#![expect(unsafe_code, reason = "a network of the test's own is made between fork and exec")]

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::IntoRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::getuid;
use socket2::{Domain, Socket, Type};

use crate::support::probe::{self, Answer};
use crate::support::{
    Castoff, Ended, Place, Running, Scratch, example, in_both_places, process, wait_until,
};

/// Every path that a probe may ask, with the level that it stands for.
const PROBES: [(&str, Level); 5] = [
    ("/livez", Level::Live),
    ("/healthz", Level::Live),
    ("/readyz", Level::Ready),
    ("/ready", Level::Ready),
    ("/startupz", Level::Startup),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Live,
    Ready,
    Startup,
}

impl Running {
    /// What the probes of a child that has been ready once are told.
    #[track_caller]
    fn assert_ready_is(&self, ready: u16) {
        for (path, level) in PROBES {
            let expected = if level == Level::Ready { ready } else { 200 };
            assert_eq!(self.get(path).status, expected, "{path}");
        }
    }

    #[track_caller]
    fn body(&self, target: &str) -> (u16, String) {
        let answer = self.get(target);
        (answer.status, answer.body)
    }

    /// The value of a metric with its labels, as the page has it now.
    #[track_caller]
    fn metric(&self, sample: &str) -> Option<f64> {
        value_of(&self.get("/metrics").body, sample)
    }
}

fn value_of(page: &str, sample: &str) -> Option<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
    Some(line.parse().expect("a number"))
}

/// The value of a header, which must be there once.
#[track_caller]
fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    let values: Vec<_> = answer
        .head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(found, _)| found.eq_ignore_ascii_case(name))
        .collect();
    assert_eq!(values.len(), 1, "{name} in {}", answer.head);
    values[0].1
}

fn request(method: &str, target: &str, headers: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: castoff\r\nConnection: close\r\n{headers}\r\n")
}

in_both_places! {
    fn the_probes_follow_the_life_to_its_end(place) {
        let scratch = Scratch::new();
        let mut castoff = Castoff::new(place)
            .env("CASTOFF_GRACE_PERIOD", "10m")
            .env("CASTOFF_DRAIN_DELAY", "9m")
            .child(&example("forker"), ["daemon", &scratch.path("daemon"), "ignore"])
            .start();
        castoff.stdout().wait_for_line("ready");
        castoff.until_serving().assert_ready_is(200);
        assert_eq!(
            castoff.body("/readyz?verbose"),
            (200, "[+]child ok\n[+]started ok\n[+]stop ok\nreadyz check passed\n".to_owned())
        );
        castoff.signal(libc::SIGTERM);
        castoff.until_phase("draining");
        castoff.assert_ready_is(503);
        let told = "[+]child ok\n[+]started ok\n[-]stop failed: reason withheld\n";
        assert_eq!(castoff.body("/ready"), (503, format!("{told}ready check failed\n")));
        castoff.signal(libc::SIGTERM);
        castoff.until_phase("sweeping");
        castoff.assert_ready_is(503);
        let told = "[-]child failed: reason withheld\n[+]started ok\n[-]stop failed: reason withheld\n";
        assert_eq!(castoff.body("/readyz"), (503, format!("{told}readyz check failed\n")));
        assert_eq!(castoff.metric("castoff_child_up"), Some(0.0));
        assert_eq!(castoff.metric("castoff_child_exit_code"), Some(0.0));
        assert_eq!(castoff.metric("castoff_phase{phase=\"sweeping\"}"), Some(1.0));
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
    }

    fn a_stopping_child_is_live_and_not_ready(place) {
        let mut castoff = Castoff::new(place)
            .env("CASTOFF_GRACE_PERIOD", "10m")
            .child(&example("print_signals"), ["--only-print"])
            .start();
        castoff.stdout().wait_for_line("ready");
        castoff.until_serving().signal(libc::SIGTERM);
        castoff.stdout().wait_for_line("15 ");
        castoff.assert_ready_is(503);
        assert_eq!(castoff.metric("castoff_ready"), Some(0.0));
        assert_eq!(castoff.metric("castoff_live"), Some(1.0));
        assert_eq!(castoff.metric("castoff_phase{phase=\"stopping\"}"), Some(1.0));
        assert_eq!(castoff.metric("castoff_phase{phase=\"serving\"}"), Some(0.0));
        // Together they could be one; the third must be.
        castoff.signal(libc::SIGINT);
        castoff.stdout().wait_for_line("2 ");
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(137));
    }

    fn counters_move(place) {
        let mut castoff = Castoff::new(place)
            .script("trap 'echo told' USR1; echo ready; while :; do (sleep 0 & ); sleep 0.01; done")
            .start();
        castoff.stdout().wait_for_line("ready");
        castoff.until_serving();
        assert_eq!(castoff.metric("castoff_signals_received_total{signal=\"SIGUSR1\"}"), None);
        castoff.signal(libc::SIGUSR1);
        castoff.stdout().wait_for_line("told");
        for family in ["received", "forwarded"] {
            let sample = format!("castoff_signals_{family}_total{{signal=\"SIGUSR1\"}}");
            assert_eq!(castoff.metric(&sample), Some(1.0), "{sample}");
        }
        let first = wait_until("an orphan was reaped", || {
            castoff.metric("castoff_orphans_reaped_total").filter(|count| *count > 0.0)
        });
        wait_until("another orphan was reaped", || {
            castoff.metric("castoff_orphans_reaped_total").filter(|count| *count > first)
        });
        castoff.signal(libc::SIGTERM);
        castoff.wait();
    }

    fn clients_of_any_kind_cost_neither_signals_nor_the_deadline(place) {
        let mut castoff = Castoff::new(place)
            .env("CASTOFF_GRACE_PERIOD", "10m")
            .env("CASTOFF_KILL_RESERVE", "599s")
            .child(&example("print_signals"), ["--only-print"])
            .start();
        castoff.stdout().wait_for_line("ready");
        let address = castoff.until_serving().address();
        castoff.get("/metrics");
        let quiet_kib = process::resident_kib(castoff.pid);

        // A thousand, of all kinds at any time.
        let crowd: Vec<TcpStream> =
            (0..80).flat_map(|_| KINDS.iter().map(|send| client(address, *send))).collect();
        // The flood does not wait for answers and so may leave some unread.
        let flood = Flood::begin(address);
        wait_until("the flood has been stopped by castoff", || flood.is_held_up().then_some(()));

        assert_eq!(castoff.get("/livez").body, "ok");
        castoff.signal(libc::SIGUSR1);
        castoff.stdout().wait_for_line("10 ");
        // 64 connections, each with a header of 8 KiB, an answer of 10 KiB, or
        // eight of them over HTTP/2, and what hyper and the allocator have around.
        let busy_kib = process::resident_kib(castoff.pid);
        assert!(busy_kib < quiet_kib + 8192, "{quiet_kib} KiB became {busy_kib} KiB");
        let descriptors = process::descriptors(castoff.pid);
        assert!(descriptors < 64 + 24, "{descriptors} descriptors");

        castoff.signal(libc::SIGTERM);
        castoff.stdout().wait_for_line("15 ");
        assert_eq!(castoff.get("/readyz").status, 503);
        assert_eq!(castoff.wait(), Ended::Code(137));
        let exiting = castoff.log().wait_for_event("exiting");
        // The budget is a second. That the crowd did not hold it up is said by
        // the patience of `wait`, which is far shorter than the grace period.
        assert!(exiting["stop_ms"].as_u64() >= Some(1000), "{exiting}");
        drop((crowd, flood));
    }
}

/// What a client does before it goes silent, the connection still open.
type Send = fn(&mut TcpStream) -> io::Result<()>;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

const KINDS: [Send; 13] = [
    // Says nothing at all.
    |_| Ok(()),
    // Slow: the header never ends.
    |stream| stream.write_all(b"GET /livez HTTP/1.1\r\nHost: ca"),
    // Half-closed, before and after it has asked.
    |stream| stream.shutdown(Shutdown::Write),
    |stream| {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: castoff\r\n\r\n")?;
        stream.shutdown(Shutdown::Write)
    },
    // A header of a megabyte.
    |stream| {
        stream.write_all(b"GET /livez HTTP/1.1\r\n")?;
        stream.write_all(&b"X-Header: of many more\r\n".repeat(1 << 20 >> 4))
    },
    // No HTTP: a TLS hello, more or less.
    |stream| stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0xff, 0x00].repeat(64)),
    // A body without an end.
    |stream| {
        stream.write_all(
            b"POST /livez HTTP/1.1\r\nHost: castoff\r\nContent-Length: 9999999999\r\n\r\n",
        )?;
        stream.write_all(&[b'x'; 1 << 20])
    },
    // HTTP/2: half of its preface, nothing after it, and half-closed after it.
    |stream| stream.write_all(&PREFACE[..12]),
    |stream| stream.write_all(PREFACE),
    |stream| {
        stream.write_all(PREFACE)?;
        stream.shutdown(Shutdown::Write)
    },
    // Eight scrapes at once, of which not a byte may be sent.
    |stream| {
        let scrape =
            |id| [b"\0\0\x0c\x01\x05\0\0\0", &[id][..], b"\x82\x86\x04\x08/metrics"].concat();
        let scrapes: Vec<_> = (0..8).flat_map(|count| scrape(2 * count + 1)).collect();
        stream.write_all(&[PREFACE, b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0", &scrapes].concat())
    },
    // Headers of a megabyte, in frames of 16 KiB.
    |stream| {
        let frame = |kind| [b"\0\x40\0", &[kind, 0, 0, 0, 0, 1][..], &[0x82; 1 << 14]].concat();
        stream.write_all(&[PREFACE, &frame(1), &frame(9).repeat(64)].concat())
    },
    // Garbage.
    |stream| stream.write_all(&[PREFACE, &[0xff; 1 << 14]].concat()),
];

/// A client that may be refused at any moment: what it sent is then lost.
fn client(address: SocketAddr, send: Send) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the endpoints take everybody");
    // Nobody reads on the other side for as long as this: that is no failure.
    stream.set_write_timeout(Some(Duration::from_millis(2))).expect("a timeout");
    let _ = send(&mut stream);
    stream
}

/// Clients that ask without end and never read.
struct Flood(Vec<TcpStream>);

impl Flood {
    fn begin(address: SocketAddr) -> Self {
        let connect = |_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            // Left alone they take megabytes before they are full.
            socket.set_recv_buffer_size(4096).expect("a buffer");
            socket.set_send_buffer_size(4096).expect("a buffer");
            socket.connect(&address.into()).expect("the endpoints take everybody");
            socket.set_nonblocking(true).expect("a socket");
            TcpStream::from(socket)
        };
        Self((0..8).map(connect).collect())
    }

    /// Asks on; whether no client can send any more.
    fn is_held_up(&self) -> bool {
        let requests = b"GET /metrics HTTP/1.1\r\nHost: castoff\r\n\r\n".repeat(64);
        self.0.iter().all(|mut stream| match stream.write(&requests) {
            Ok(_) => false,
            Err(error) => error.kind() != ErrorKind::Interrupted,
        })
    }
}

#[test]
fn every_answer_has_the_headers_of_the_contract() {
    let castoff = Castoff::new(Place::Subreaper).child("sleep", ["600"]).start();
    castoff.until_serving();
    for target in ["/livez", "/readyz?verbose", "/startupz", "/nothing"] {
        let answer = castoff.get(target);
        assert_eq!(header(&answer, "content-type"), "text/plain; charset=utf-8", "{target}");
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff", "{target}");
        assert_eq!(header(&answer, "cache-control"), "no-cache, no-store", "{target}");
        assert_eq!(header(&answer, "content-length"), answer.body.len().to_string(), "{target}");
    }
}

#[test]
fn verbose_exclude_and_single_checks_are_those_of_kubernetes() {
    let castoff = Castoff::new(Place::Subreaper).child("sleep", ["600"]).start();
    castoff.until_serving();
    for (target, status, body) in [
        ("/livez", 200, "ok"),
        ("/livez?verbose", 200, "[+]ping ok\nlivez check passed\n"),
        ("/healthz?verbose=1", 200, "[+]ping ok\nhealthz check passed\n"),
        ("/startupz?verbose", 200, "[+]started ok\nstartupz check passed\n"),
        ("/readyz?exclude=stop", 200, "ok"),
        (
            "/readyz?exclude=stop&verbose&exclude=child",
            200,
            "[+]child excluded: ok\n[+]started ok\n[+]stop excluded: ok\nreadyz check passed\n",
        ),
        (
            "/readyz?verbose&exclude=etcd",
            200,
            "[+]child ok\n[+]started ok\n[+]stop ok\n\
             warn: some health checks cannot be excluded: no matches for \"etcd\"\n\
             readyz check passed\n",
        ),
        ("/readyz/child", 200, "ok"),
        ("/readyz/stop", 200, "ok"),
        ("/livez/ping", 200, "ok"),
        ("/startupz/started", 200, "ok"),
        ("/readyz/etcd", 404, "404 page not found\n"),
        ("/livez/", 404, "404 page not found\n"),
        ("/", 404, "404 page not found\n"),
        ("/metrics/x", 404, "404 page not found\n"),
        ("/%6civez", 404, "404 page not found\n"),
    ] {
        assert_eq!(castoff.body(target), (status, body.to_owned()), "{target}");
    }
}

#[test]
fn only_get_and_head_are_answered() {
    let castoff = Castoff::new(Place::Subreaper).child("sleep", ["600"]).start();
    let address = castoff.until_serving().address();
    for path in ["/livez", "/metrics", "/statusz", "/readyz/child", "/nothing"] {
        let get = castoff.get(path);
        let head = probe::ask(address, &request("HEAD", path, ""));
        assert_eq!((head.status, &*head.body), (get.status, ""), "{path}");
        if !["/metrics", "/statusz"].contains(&path) {
            assert_eq!(header(&head, "content-length"), header(&get, "content-length"));
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
            let answer = probe::ask(address, &request(method, path, "Content-Length: 0\r\n"));
            assert_eq!((answer.status, header(&answer, "allow")), (405, "GET, HEAD"), "{method}");
        }
    }
    // HTTP/1.0, as old load balancers and HAProxy's default check speak it.
    assert_eq!(probe::ask(address, "GET /livez HTTP/1.0\r\n\r\n").body, "ok");
}

#[test]
fn a_header_may_be_a_browsers_but_no_longer() {
    let castoff = Castoff::new(Place::Subreaper).child("sleep", ["600"]).start();
    let address = castoff.until_serving().address();
    for (bytes, status) in [(4000, 200), (9000, 431)] {
        let cookies = format!("Cookie: {}\r\n", "x".repeat(bytes));
        assert_eq!(probe::ask(address, &request("GET", "/livez", &cookies)).status, status);
    }
    let garbage = probe::ask(address, "\u{16}\u{3}\u{1}\r\n\r\n");
    assert_eq!(garbage.status, 400);
}

#[test]
fn metrics_come_in_the_format_that_is_asked_for() {
    let castoff = Castoff::new(Place::Subreaper).child("sleep", ["600"]).start();
    let address = castoff.until_serving().address();
    let text = castoff.get("/metrics");
    assert_eq!(header(&text, "content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert!(!text.body.contains("# EOF"), "{}", text.body);
    assert!(text.body.contains("# TYPE castoff_orphans_reaped_total counter\n"));
    let version = format!("castoff_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(value_of(&text.body, &version), Some(1.0));
    assert_eq!(value_of(&text.body, "castoff_ready"), Some(1.0));
    assert_eq!(value_of(&text.body, "castoff_child_up"), Some(1.0));
    assert!(value_of(&text.body, "castoff_child_start_time_seconds") > Some(1e9));
    assert_eq!(value_of(&text.body, "castoff_child_exit_code"), None);
    assert_eq!(value_of(&text.body, "castoff_log_dropped_total"), Some(0.0));

    let accept = "Accept: application/openmetrics-text; version=1.0.0, text/plain;q=0.5\r\n";
    let open = probe::ask(address, &request("GET", "/metrics", accept));
    let of_open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(header(&open, "content-type"), of_open_metrics);
    assert!(open.body.ends_with("\n# EOF\n"), "{}", open.body);
    assert!(open.body.contains("# TYPE castoff_orphans_reaped counter\n"));

    for page in [text.body, open.body] {
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').expect("name and value");
            assert!(name.starts_with("castoff_") && value.parse::<f64>().is_ok(), "{line}");
        }
    }
}

#[test]
fn statusz_tells_what_castoff_knows_as_text_and_as_json() {
    let mut castoff = Castoff::new(Place::Subreaper)
        .env("CASTOFF_GRACE_PERIOD", "10m")
        .env("CASTOFF_DRAIN_DELAY", "9m")
        .env("CASTOFF_HANG_SIGNAL", "QUIT")
        .child("sleep", ["600"])
        .start();
    let address = castoff.until_serving().address();
    let json = || -> serde_json::Value {
        let answer =
            probe::ask(address, &request("GET", "/statusz", "Accept: application/json\r\n"));
        assert_eq!(header(&answer, "content-type"), "application/json");
        serde_json::from_str(&answer.body).expect("JSON")
    };
    let page = json();
    assert_eq!(page["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&page["phase"], &page["ready"]), (&"serving".into(), &true.into()));
    assert_eq!(page["child"]["pid"], castoff.child());
    assert!(page["uptime_ms"].as_u64() >= page["child"]["uptime_ms"].as_u64(), "{page}");
    assert_eq!(page["stop"], serde_json::Value::Null);
    let timeline: Vec<_> = page["timeline"].as_array().expect("steps").iter().collect();
    assert_eq!(timeline[1]["at_ms"], 540_000);
    assert_eq!(timeline[1]["what"], "SIGTERM to the child");
    assert_eq!(timeline[2]["what"], "SIGQUIT to whoever is left");
    assert_eq!(timeline.last().expect("the platform")["at_ms"], 600_000);

    castoff.signal(libc::SIGTERM);
    castoff.until_phase("draining");
    let page = json();
    assert!(page["stop"]["requested_ms_ago"].is_u64(), "{page}");
    let text = castoff.body("/statusz").1;
    for line in
        ["phase         draining", "  540000 ms  stopping  SIGTERM to the child", "[limits]"]
    {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    castoff.signal(libc::SIGTERM);
    assert_eq!(castoff.wait(), Ended::Code(143));
}

#[test]
fn nothing_that_the_child_was_given_is_ever_served() {
    let castoff = Castoff::new(Place::Subreaper)
        .env("SECRET", "hunter2")
        .script("exec sleep 600 # hunter2")
        .start();
    castoff.until_serving();
    let address = castoff.address();
    let json =
        |target| probe::ask(address, &request("GET", target, "Accept: application/json\r\n"));
    for target in
        ["/livez?verbose", "/readyz?verbose", "/startupz?verbose", "/metrics", "/statusz", "/x"]
    {
        let (text, json) = (castoff.get(target), json(target));
        let (head, body) = (text.head + &json.head, text.body + &json.body);
        assert!(!(head.contains("hunter2") || body.contains("hunter2")), "{target}");
        assert!(!(body.contains("sleep") || body.contains("SECRET")), "{target}");
    }
}

#[test]
fn answers_to_one_packet_of_requests_come_in_order() {
    let castoff = Castoff::new(Place::Subreaper).child("sleep", ["600"]).start();
    let mut stream = TcpStream::connect(castoff.until_serving().address()).expect("an endpoint");
    let requests = ["/livez", "/nothing", "/startupz"]
        .map(|path| format!("GET {path} HTTP/1.1\r\nHost: castoff\r\n\r\n"));
    stream.write_all(requests.concat().as_bytes()).expect("the requests are taken");
    stream.shutdown(Shutdown::Write).expect("half of it is closed");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("the answers end");
    let codes = answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]);
    assert_eq!(codes.collect::<Vec<_>>(), ["200", "404", "200"]);
}

#[test]
fn an_address_that_was_set_and_is_taken_is_an_error() {
    let scratch = Scratch::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("its address").to_string();
    let mut castoff = Castoff::new(Place::Subreaper)
        .env("CASTOFF_HEALTH_LISTEN", &address)
        .child("touch", [scratch.path("marker")])
        .run();
    assert_eq!(castoff.wait(), Ended::Code(125));
    assert_eq!(
        castoff.log().all(),
        [format!(
            "castoff: cannot listen on CASTOFF_HEALTH_LISTEN=\"{address}\": \
             Address already in use (os error 98)"
        )]
    );
    assert!(!fs::exists(scratch.path("marker")).expect("readable"), "the child was started");
}

#[test]
fn off_means_that_nothing_listens() {
    let mut castoff = Castoff::new(Place::Subreaper)
        .env("CASTOFF_HEALTH_LISTEN", "off")
        .child("sleep", ["600"])
        .start();
    castoff.until_serving();
    assert_eq!(castoff.log().wait_for_event("castoff_started")["listen"], "off");
    assert_eq!(process::listening_ports(castoff.pid), [0; 0]);
    castoff.signal(libc::SIGTERM);
    assert_eq!(castoff.wait(), Ended::Code(143));
}

#[test]
fn a_port_without_an_address_takes_both_families() {
    let castoff = Castoff::new(Place::Subreaper)
        .env("CASTOFF_HEALTH_LISTEN", ":0")
        .child("sleep", ["600"])
        .start();
    let port = castoff.until_serving().address().port();
    assert_eq!(process::listening_ports(castoff.pid), [port]);
    for host in ["127.0.0.1", "[::1]"] {
        let address = format!("{host}:{port}").parse().expect("an address");
        assert_eq!(probe::get(address, "/livez").body, "ok", "{host}");
    }
}

/// castoff in a network of its own, where no other test has port 9911. Whether
/// the port is taken there before castoff starts is the caller's to say.
fn on_the_default_port(is_taken: bool, script: &str) -> Option<Running> {
    if !getuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "in CI this test must run, as root");
        println!("skipped: a network namespace is root's to make");
        return None;
    }
    let own_network = move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        turn_loopback_on()?;
        if is_taken {
            // Open until castoff ends: std's sockets are closed on exec.
            // SAFETY: takes a number; no other thread is here.
            unsafe { libc::dup(TcpListener::bind("[::]:9911")?.into_raw_fd()) };
        }
        Ok(())
    };
    let own = |command: &mut Command| {
        // SAFETY: between fork and exec there is one thread, and only system
        // calls are made.
        unsafe { command.env_remove("CASTOFF_HEALTH_LISTEN").pre_exec(own_network) };
    };
    Some(Castoff::new(Place::Pid1).with(own).child("bash", ["-c", script]).start())
}

/// `ip link set lo up`
fn turn_loopback_on() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all zeroes is a valid value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[..2].copy_from_slice(&[b'l' as _, b'o' as _]);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as _;
    // SAFETY: the request lives across the call, which only reads it.
    let done = unsafe {
        libc::ioctl(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// bash opens the connection, for nothing else of a plain image can.
const ASK: &str = r#"
ask() { exec 3<>"/dev/tcp/$1/9911"; printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3; tail -n 1 <&3; echo; }
"#;

#[test]
fn by_default_both_families_are_answered_on_9911() {
    let script = format!("{ASK} ask 127.0.0.1; ask ::1");
    let Some(mut castoff) = on_the_default_port(false, &script) else { return };
    assert_eq!(castoff.wait(), Ended::Code(0));
    assert_eq!(castoff.stdout().all(), ["ok", "ok"]);
    assert_eq!(castoff.log().wait_for_event("castoff_started")["listen"], "[::]:9911");
}

#[test]
fn the_default_port_taken_is_a_warning_and_the_child_runs() {
    let Some(mut castoff) = on_the_default_port(true, "echo runs; exit 4") else { return };
    assert_eq!(castoff.wait(), Ended::Code(4));
    assert_eq!(castoff.stdout().all(), ["runs"]);
    let failed = castoff.log().wait_for_event("listen_failed");
    assert_eq!(failed["level"], "WARN");
    assert_eq!(failed["address"], "[::]:9911");
    assert_eq!(failed["cause"], "Address already in use (os error 98)");
    assert_eq!(castoff.log().wait_for_event("castoff_started")["listen"], "off");
}

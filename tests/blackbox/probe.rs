//! `castoff probe` as a HEALTHCHECK sees it: an exit code of 0 or 1, nothing
//! when it passes, one line when it does not, whoever answers or does not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{
    Castoff, Ended, Place, Scratch, example, in_both_places, network, wait_until,
};

/// A probe with nothing in its environment.
fn probe() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_castoff"));
    command.env_clear().arg("probe").stdin(Stdio::null());
    command
}

fn probe_of(address: impl ToString) -> Command {
    let mut command = probe();
    // In the tests that mean no other time, no answer takes as long.
    command.args(["--timeout", "30s", "--addr", &address.to_string()]);
    command
}

#[track_caller]
fn run(mut command: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("castoff runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

#[track_caller]
fn passes(command: Command) {
    assert_eq!(run(command), (Some(0), String::new(), String::new()));
}

/// Fails with this one line and nothing else.
#[track_caller]
fn fails(command: Command, line: &str) {
    assert_eq!(run(command), (Some(1), String::new(), format!("castoff: {line}\n")));
}

trait With {
    fn with<const N: usize>(self, args: [&str; N]) -> Self;
    fn in_env(self, name: &str, value: &str) -> Self;
}

impl With for Command {
    fn with<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.args(args);
        self
    }

    fn in_env(mut self, name: &str, value: &str) -> Self {
        self.env(name, value);
        self
    }
}

in_both_places! {
    fn it_follows_the_life_of_the_castoff_that_is_asked(place) {
        let mut castoff = Castoff::new(place)
            .env("CASTOFF_GRACE_PERIOD", "10m")
            .env("CASTOFF_DRAIN_DELAY", "9m")
            .child(&example("print_signals"), ["--only-print"])
            .start();
        castoff.stdout().wait_for_line("ready");
        let address = castoff.until_serving().address();
        passes(probe_of(address));
        for word in ["live", "ready", "started"] {
            passes(probe_of(address).with([word]));
        }
        castoff.signal(libc::SIGTERM);
        castoff.until_phase("draining");
        fails(probe_of(address), "not ready: check stop failed");
        passes(probe_of(address).with(["live"]));
        passes(probe_of(address).with(["started"]));
        castoff.signal(libc::SIGTERM);
        castoff.stdout().wait_for_line("15 ");
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(137));
        for (word, not) in [("live", "live"), ("ready", "ready"), ("started", "started")] {
            let refused = format!(
                "not {not}: cannot connect to {address}: Connection refused (os error 111)"
            );
            fails(probe_of(address).with([word]), &refused);
        }
    }
}

#[test]
fn it_finds_the_address_where_castoff_was_given_it() {
    let castoff = Castoff::new(Place::Subreaper).child("sleep", ["600"]).start();
    let address = castoff.until_serving().address().to_string();
    let scratch = Scratch::new();
    let file = scratch.file("address", format!("{address}\n"));
    let text = format!("log_level = 'debug'\nno_such_key = 1\nhealth_listen = '{address}'\n");
    let config = scratch.file("castoff.toml", text);
    passes(probe().in_env("CASTOFF_HEALTH_LISTEN", &address));
    passes(probe().in_env("CASTOFF_HEALTH_LISTEN_FILE", &file));
    passes(probe().in_env("CASTOFF_CONFIG", &config));
    // What is nearer counts, and what is wrong elsewhere does not.
    let confused = probe()
        .in_env("CASTOFF_CONFIG", "/nonexistent")
        .in_env("CASTOFF_DRAIN_DELAY", "soon")
        .in_env("CASTOFF_NO_SUCH_SETTING", "1")
        .in_env("CASTOFF_LOG_LEVEL_FILE", "/nonexistent")
        .in_env("CASTOFF_HEALTH_LISTEN", &address);
    passes(confused);
    let port = address.rsplit_once(':').expect("a port").1;
    passes(probe().in_env("CASTOFF_HEALTH_LISTEN", &format!("0.0.0.0:{port}")));
    passes(probe().in_env("CASTOFF_HEALTH_LISTEN", "off").with(["--addr", port]));
}

#[test]
fn the_default_port_is_asked_where_nothing_else_is_said() {
    if !network::can_have_one() {
        return;
    }
    let script = format!(
        "until {castoff} probe 2>/dev/null; do sleep 0.05; done; {castoff} probe live && echo yes",
        castoff = env!("CARGO_BIN_EXE_castoff")
    );
    let mut castoff = Castoff::new(Place::Pid1)
        .with(|command| {
            command.env_remove("CASTOFF_HEALTH_LISTEN");
        })
        .last(network::own_network)
        .script(&script)
        .start();
    assert_eq!(castoff.wait(), Ended::Code(0));
    assert_eq!(castoff.stdout().all(), ["yes"]);
}

// Alone: on 127.0.0.1 the same port may be somebody else's.
#[test]
fn ipv6_is_asked_where_it_is_meant_or_ipv4_is_refused() {
    if !network::can_have_one() {
        return;
    }
    let script = format!(
        "until {castoff} probe --addr [::1]:9911 2>/dev/null; do sleep 0.05; done; \
         {castoff} probe --addr :9911 && {castoff} probe --addr [::]:9911 && echo yes",
        castoff = env!("CARGO_BIN_EXE_castoff")
    );
    let mut castoff = Castoff::new(Place::Pid1)
        .env("CASTOFF_HEALTH_LISTEN", "[::1]:9911")
        .last(network::own_network)
        .script(&script)
        .start();
    assert_eq!(castoff.wait(), Ended::Code(0));
    assert_eq!(castoff.stdout().all(), ["yes"]);
}

#[test]
fn what_cannot_be_asked_is_one_line_too() {
    let scratch = Scratch::new();
    let broken = scratch.file("broken.toml", "health_listen = [\n");
    let off = scratch.file("off.toml", "health_listen = 'off'\n");
    let expected_address = "expected an IP address and a port such as 127.0.0.1:9911, \
                            [::1]:9911, :9911 or 9911, but no name";
    for (command, line) in [
        (
            probe().with(["alive"]),
            "cannot ask whether it is \"alive\": expected live, ready or started".to_owned(),
        ),
        (
            probe().with(["--addr", "localhost:9911"]),
            format!("cannot use --addr=\"localhost:9911\": {expected_address}"),
        ),
        (
            probe().with(["--addr"]),
            format!("cannot use --addr: a value is missing, {expected_address}"),
        ),
        (
            probe().with(["--url=x"]),
            "cannot use --url: no such flag, see castoff probe --help".to_owned(),
        ),
        (
            probe().with(["--timeout=0"]),
            "cannot use --timeout=\"0\": expected a duration above 0 such as 5s, 500ms or 1m30s, \
             at most 720h"
                .to_owned(),
        ),
        (
            probe().in_env("CASTOFF_HEALTH_LISTEN", "off"),
            "cannot ask: with CASTOFF_HEALTH_LISTEN=\"off\" there are no endpoints".to_owned(),
        ),
        (
            probe().in_env("CASTOFF_HEALTH_LISTEN", "127.0.0.1:0"),
            "cannot ask: CASTOFF_HEALTH_LISTEN=\"127.0.0.1:0\" leaves the port to the kernel, \
             give it as --addr"
                .to_owned(),
        ),
        (
            probe().in_env("CASTOFF_CONFIG", &off),
            format!("cannot ask: with health_listen = \"off\" ({off}:1) there are no endpoints"),
        ),
        (
            probe().in_env("CASTOFF_CONFIG", "/non\nexistent"),
            "cannot read CASTOFF_CONFIG=\"/non\\nexistent\": No such file or directory (os error \
             2)"
            .to_owned(),
        ),
        (
            probe().in_env("CASTOFF_HEALTH_LISTEN_FILE", "/nonexistent"),
            "cannot read CASTOFF_HEALTH_LISTEN_FILE=\"/nonexistent\": No such file or directory \
             (os error 2)"
                .to_owned(),
        ),
    ] {
        fails(command, &line);
    }
    let (code, stdout, stderr) = run(probe().in_env("CASTOFF_CONFIG", &broken));
    assert_eq!((code, &*stdout, stderr.lines().count()), (Some(1), "", 1), "{stderr}");
    assert!(stderr.starts_with(&format!("castoff: cannot read {broken}:1: ")), "{stderr}");
}

#[test]
fn probe_is_a_word_of_castoffs_only_where_it_stands_first() {
    let (code, stdout, stderr) = run(probe().with(["--help"]));
    assert_eq!((code, &*stderr), (Some(0), ""));
    assert!(stdout.contains("Usage: castoff probe [live|ready|started]"), "{stdout}");
    let mut castoff = Castoff::new(Place::Subreaper).args(["--", "probe"]).run();
    assert_eq!(castoff.wait(), Ended::Code(127), "a program of that name");
}

/// A server on loopback that takes one connection and does that with it.
fn server(act: impl FnOnce(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || act(listener.accept().expect("the probe comes").0));
    address
}

/// Reads the request, which ends with an empty line.
fn request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
        request.push(byte[0]);
    }
    String::from_utf8(request).expect("text")
}

/// Answers with these bytes and closes.
fn answering(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer = answer.into();
    server(move |mut stream| {
        request(&mut stream);
        let _ = stream.write_all(&answer);
    })
}

#[test]
fn the_time_is_for_everything_together() {
    let silent = server(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let dripping = server(|mut stream| {
        let answer = "HTTP/1.1 200 OK\r\nX-Slow: ".bytes().chain(std::iter::repeat(b'x'));
        for byte in answer {
            if stream.write_all(&[byte]).is_err() {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    });
    let half = server(|mut stream| {
        request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok");
        drop(stream.read_to_end(&mut Vec::new()));
    });
    for address in [silent, dripping, half] {
        let begun = Instant::now();
        let command = probe().with(["--addr", &address.to_string(), "--timeout", "300ms"]);
        fails(command, "not ready: no answer within 300ms");
        assert!(begun.elapsed() >= Duration::from_millis(300));
    }
    let full = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = full.local_addr().expect("its address").to_string();
    fails(probe().with(["--addr", &address]), "not ready: no answer within 1s");
}

#[test]
fn an_answer_that_is_none_is_a_no() {
    let garbage = "not ready: the answer is no HTTP";
    fails(probe_of(answering("SSH-2.0-OpenSSH_9.2\r\n")), garbage);
    fails(probe_of(answering("")), garbage);
    fails(probe_of(answering([0xff; 100])), garbage);
    fails(probe_of(answering("x".repeat(1 << 20))), garbage);
    fails(probe_of(answering("HTTP/1.1 200 OK\r\nX: y")), garbage);
    let redirect = "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n";
    fails(probe_of(answering(redirect)), "not ready: the answer has status 302");
    let told = "HTTP/1.1 503 No\r\n\r\n[-]database failed: reason withheld\n[-]\u{1b}[2J failed\n";
    fails(probe_of(answering(told)), "not ready: check database failed");
    passes(probe_of(answering("HTTP/1.0 200 OK\r\n\r\nok")));
}

#[test]
fn it_asks_in_http_1_and_closes() {
    let (tell, told) = std::sync::mpsc::channel();
    let address = server(move |mut stream| {
        let asked = request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        // Not closed here: the length has said that this is all.
        let rest = stream.read_to_end(&mut Vec::new());
        let _ = tell.send((asked, rest.unwrap_or_default()));
    });
    passes(probe_of(address).with(["started"]));
    let (asked, rest) = told.recv().expect("a request");
    let expected =
        format!("GET /startupz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    assert_eq!((asked, rest), (expected, 0));
}

#[test]
fn nobody_who_reads_is_no_other_exit_code() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = probe().with(["alive"]);
    let status = command.stderr(writer).status().expect("castoff runs");
    assert_eq!(status.code(), Some(1));
}

#[test]
fn it_can_be_interrupted() {
    use std::os::unix::process::ExitStatusExt;
    let (tell, told) = std::sync::mpsc::channel();
    let address = server(move |mut stream| {
        request(&mut stream);
        let _ = tell.send(());
        drop(stream.read_to_end(&mut Vec::new()));
    });
    let mut child = probe_of(address).spawn().expect("castoff runs");
    told.recv().expect("a request");
    crate::support::process::signal(child.id().cast_signed(), libc::SIGINT);
    let status = wait_until("it has ended", || child.try_wait().expect("our child"));
    assert_eq!(status.signal(), Some(libc::SIGINT));
}

//! What a look at the child's sockets costs: `cargo bench --bench looks [-- N]`
//! prints CPU time per look, kernel and user together, without and with N
//! (10,000) idle connections over loopback: through netlink, through /proc, and
//! through netlink with the handshakes counted beside others that listen.
//!
//! The clients are a process of their own: each end needs a descriptor. It must
//! never fail because of a time, and always when a connection is not seen.
#![expect(clippy::expect_used, reason = "a measurement that fails says so and ends")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;

use policy::traffic::{Observer, Ports, Snapshot};
use system::sockets::Watch;

// Without a harness the tests in them are left out, what they use is not.
#[expect(dead_code, reason = "the tests of the module")]
#[path = "../src/policy"]
mod policy {
    pub(crate) mod traffic;
}

#[expect(unused_imports, dead_code, reason = "the tests of the modules; no port is learned")]
#[path = "../src/system"]
mod system {
    pub(crate) mod eyes;
    pub(crate) mod sockets;

    use crate::policy::traffic::Snapshot;

    /// A look as it is where netlink is refused.
    pub(crate) fn through_proc(watch: &sockets::Watch) -> Snapshot {
        watch.through_proc(None, false).map_or(Snapshot::Unknown, Snapshot::Known)
    }
}

const CONNECTIONS: usize = 10_000;
const LOOKS: u32 = 50;

/// Marks the process that holds the clients' ends.
const CLIENTS: &str = "--clients";

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at)?.parse().ok();
    if arguments.first().is_some_and(|first| first == CLIENTS) {
        let port = number(1).and_then(|port| u16::try_from(port).ok()).expect("a port");
        return connect(port, number(2).expect("a number"));
    }
    // Also built, and run without this word, by `cargo test --all-targets`.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("looks: run by `cargo bench --bench looks`");
        return;
    }
    let wanted = (0..arguments.len()).find_map(number).unwrap_or(CONNECTIONS);
    // Some for the rest: streams, the listener, what a look opens.
    let count = wanted.min(raise_limit().saturating_sub(64));
    if count < wanted {
        println!("no more than {count} connections: RLIMIT_NOFILE");
    }
    measure(count);
}

fn raise_limit() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the soft limit may be the hard one");
    usize::try_from(hard).unwrap_or(usize::MAX)
}

fn measure(count: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let watch = Watch::new(Ports::Named(vec![port]), None, PathBuf::from("/proc"));
    report("netlink", 0, || watch.look(None, false));
    report("proc", 0, || system::through_proc(&watch));
    let own = std::env::current_exe().expect("a path");
    let mut clients = Command::new(own)
        .args([CLIENTS, &port.to_string(), &count.to_string()])
        .stdin(Stdio::piped())
        .spawn()
        .expect("clients");
    let servers: Vec<_> = (0..count)
        .map(|_| {
            let (mut server, _) = listener.accept().expect("a client");
            server.read_exact(&mut [0; 4]).expect("a request");
            server.write_all(b"pong").expect("an answer");
            server
        })
        .collect();
    report("netlink", count, || watch.look(None, false));
    report("proc", count, || system::through_proc(&watch));
    // Where others listen too and their connections come and go.
    let mut watch = watch;
    report("beside", count, || {
        let opens = watch.count(0);
        watch.look(opens, true)
    });
    drop(clients.stdin.take());
    clients.wait().expect("clients");
    drop(servers);
}

/// CPU time of this process, in microseconds: the kernel's and its own.
fn cpu_time() -> (i64, i64) {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("usage");
    (usage.system_time().num_microseconds(), usage.user_time().num_microseconds())
}

fn report(source: &str, count: usize, mut snapshot: impl FnMut() -> Snapshot) {
    let mut observer = Observer::default();
    let mut look = || observer.observe(snapshot(), Instant::now()).expect("traffic is seen");
    let seen = look().connections;
    assert_eq!(seen, count as u64, "{source}");
    let (kernel, user) = cpu_time();
    for _ in 0..LOOKS {
        look();
    }
    let (kernel, user) = (cpu_time().0 - kernel, cpu_time().1 - user);
    let [all, user] = [kernel + user, user].map(|time| time as f64 / f64::from(LOOKS) / 1000.0);
    println!("{source:8}{count:6} connections{all:8.3} ms of CPU a look, {user:.3} in user mode");
}

/// Asks over each connection once, and holds them until the input ends.
fn connect(port: u16, count: usize) {
    raise_limit();
    let clients: Vec<_> = (0..count)
        .map(|_| {
            let mut client = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
            client.write_all(b"ping").expect("a request");
            client.read_exact(&mut [0; 4]).expect("an answer");
            client
        })
        .collect();
    let _ = std::io::stdin().read(&mut [0]);
    drop(clients);
}

//! The drain by traffic: what holds it, what does not, and what is told of it.
//!
//! Most run in a network of their own, where no other test's connections are:
//! what may have been with the child holds the drain. Times are taken from the
//! log, and compared with those that the test has taken before and after.
#![expect(unsafe_code, reason = "what happens between fork and exec")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use serde_json::Value;

use crate::support::http::Client;
use crate::support::lines::Lines;
use crate::support::network::{Network, can_have_one, own_network, within};
use crate::support::{
    Castoff, Ended, Place, Running, Scratch, example, in_both_places, probe, process, wait_until,
};

const KILLED: i32 = 128 + libc::SIGKILL;
const TERMINATED: i32 = 128 + libc::SIGTERM;

/// The kernel stamps what moves by its jiffies, of 10 ms at most.
const JIFFY: Duration = Duration::from_millis(10);

/// Far above every drain that traffic ends, and below a test's patience.
const LONG: &str = "25s";

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOOPBACK_6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// castoff with a drain from `delay` to `max`, and all the time for the rest.
fn castoff(place: Place, delay: &str, max: &str, quiet: &str) -> Castoff {
    Castoff::new(place).draining(delay, max, quiet)
}

impl Castoff {
    fn draining(self, delay: &str, max: &str, quiet: &str) -> Self {
        self.env("CASTOFF_GRACE_PERIOD", "10m")
            .env("CASTOFF_DRAIN_DELAY", delay)
            .env("CASTOFF_DRAIN_MAX", max)
            .env("CASTOFF_DRAIN_QUIET", quiet)
    }

    /// The child is the server, at that address.
    fn serving_at(self, address: &str) -> Self {
        self.child(&example("server"), [address])
    }

    fn in_own_network(self) -> Self {
        self.last(own_network)
    }

    /// The child goes on serving when it is told, until there is a file `over`.
    fn lasting(self, scratch: &Scratch) -> Self {
        let script = r#"trap '' INT
            trap 'echo told; until [ -e "$1" ]; do sleep 0.02; done; kill $!; exit 0' TERM
            "$0" 127.0.0.1:0 &
            while :; do wait; done"#;
        self.child("/bin/sh", ["-c", script, &example("server"), &scratch.path("over")])
    }

    /// Started, with a child that serves and its only port, or its first.
    #[track_caller]
    fn site(self) -> Site {
        let castoff = self.start();
        castoff.until_serving();
        let line = castoff.stdout().wait_for_line("port ");
        let port = line["port ".len()..].parse().expect("a port");
        Site { castoff, port }
    }

    /// The server alone in its network.
    #[track_caller]
    fn alone(self) -> Site {
        self.serving_at("127.0.0.1:0").in_own_network().site()
    }
}

/// castoff, and where its child serves.
struct Site {
    castoff: Running,
    port: u16,
}

impl Site {
    #[track_caller]
    fn connect(&self) -> Client {
        self.connect_to(SocketAddr::from((LOOPBACK, self.port)))
    }

    #[track_caller]
    fn connect_to(&self, address: SocketAddr) -> Client {
        within(self.castoff.pid, || Client::new(address))
    }

    /// Asks for a stop.
    #[track_caller]
    fn stop(&self) {
        self.castoff.signal(libc::SIGTERM);
        self.castoff.until_phase("draining");
    }

    /// How the drain ended, once it has.
    #[track_caller]
    fn drained(&self) -> Drained {
        Drained(self.castoff.log().wait_for_event("drain_finished"))
    }

    #[track_caller]
    fn is_draining(&self) -> bool {
        let lines = self.castoff.log().so_far();
        !lines.iter().any(|line| line.contains("\"drain_finished\""))
    }

    /// Status and body of one of castoff's endpoints.
    #[track_caller]
    fn endpoint(&self, target: &str) -> (u16, String) {
        let address = self.castoff.address();
        let answer = within(self.castoff.pid, || probe::get(address, target));
        (answer.status, answer.body)
    }

    /// The value of one of castoff's metrics.
    #[track_caller]
    fn metric(&self, name: &str) -> Option<u64> {
        let (_, text) = self.endpoint("/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map(|value| value.parse().expect("a whole number"))
    }

    /// Waits for its end, by the stop signal.
    #[track_caller]
    fn ends(mut self) -> Vec<Value> {
        assert_eq!(self.castoff.wait(), Ended::Code(TERMINATED));
        self.castoff.log().events()
    }
}

/// The event that tells of a drain's end.
struct Drained(Value);

impl Drained {
    #[track_caller]
    fn by(&self, reason: &str) -> &Self {
        assert_eq!(self.0["reason"], reason, "{}", self.0);
        self
    }

    #[track_caller]
    fn after(&self, least: Duration) -> &Self {
        let waited = Duration::from_millis(self.0["waited_ms"].as_u64().expect("a number"));
        // Whole milliseconds, rounded down.
        assert!(waited + Duration::from_millis(1) > least, "{}", self.0);
        self
    }

    /// Not before that time, by the clock of the log.
    #[track_caller]
    fn not_before(&self, time: SystemTime) -> &Self {
        let ended_at = humantime::parse_rfc3339(self.0["time"].as_str().expect("a time"));
        let ended_at = ended_at.expect("a time");
        assert!(
            ended_at + JIFFY >= time,
            "{:?} too early: {}",
            time.duration_since(ended_at),
            self.0
        );
        self
    }

    /// Not held to its end by what should not hold it.
    #[track_caller]
    fn in_good_time(&self) -> &Self {
        assert!(self.0["waited_ms"].as_u64() < Some(20_000), "{}", self.0);
        self.by("quiet")
    }
}

/// Does something again and again, until it is told to stop.
struct Repeated {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<SystemTime>,
}

impl Repeated {
    fn every(pause: Duration, mut act: impl FnMut() + Send + 'static) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let told = is_over.clone();
        let thread = thread::spawn(move || {
            let mut begun_at = SystemTime::now();
            while !told.load(Ordering::Relaxed) {
                begun_at = SystemTime::now();
                act();
                thread::park_timeout(pause);
            }
            begun_at
        });
        Self { is_over, thread }
    }

    /// When it was begun for the last time.
    #[track_caller]
    fn end(self) -> SystemTime {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("it went well")
    }
}

/// Lets a traffic go on for that long. A clock is what is waited for.
fn let_pass(length: Duration) {
    let begun = Instant::now();
    wait_until("time has passed", || (begun.elapsed() >= length).then_some(()));
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

in_both_places! {
    fn it_is_never_shorter_than_the_minimum(place) {
        if !can_have_one() { return }
        let site = castoff(place, "700ms", LONG, "100ms").alone();
        site.stop();
        site.drained().after(ms(700)).in_good_time();
        site.ends();
    }

    fn it_ends_when_the_traffic_has_been_quiet(place) {
        if !can_have_one() { return }
        let site = castoff(place, "0", LONG, "1s").alone();
        let mut client = site.connect();
        let requests = Repeated::every(ms(50), move || assert_eq!(client.get("/"), "hello\n"));
        site.stop();
        let_pass(ms(2500));
        assert!(site.is_draining());
        let last = requests.end();
        site.drained().not_before(last + ms(1000)).after(ms(3000)).in_good_time();
        site.ends();
    }

    fn idle_connections_do_not_hold_it(place) {
        if !can_have_one() { return }
        let site = castoff(place, "0", LONG, "300ms").alone();
        let (mut kept, _unused) = (site.connect(), site.connect());
        assert_eq!(kept.get("/"), "hello\n");
        site.stop();
        assert_eq!(site.drained().in_good_time().0["connections"], 2);
        site.ends();
    }

    fn a_streaming_answer_holds_it(place) {
        if !can_have_one() { return }
        let site = castoff(place, "0", "60s", "2s").alone();
        let mut client = site.connect();
        let asked_at = SystemTime::now();
        client.ask("/stream?20000&50");
        site.stop();
        // To its end: it is not cut off.
        assert!(client.answer().starts_with("tick\n"));
        site.drained().by("quiet").not_before(asked_at + ms(22_000));
        site.ends();
    }

    fn a_long_request_without_bytes_holds_it(place) {
        if !can_have_one() { return }
        let site = castoff(place, "0", LONG, "200ms").alone();
        let mut client = site.connect();
        // Not the first on its connection.
        client.get("/");
        let asked_at = SystemTime::now();
        client.ask("/slow?3000");
        site.stop();
        assert_eq!(client.answer(), "that took a while\n");
        site.drained().not_before(asked_at + ms(3200)).in_good_time();
        site.ends();
    }

    fn a_half_closed_client_holds_it_until_it_has_its_answer(place) {
        if !can_have_one() { return }
        let site = castoff(place, "0", LONG, "200ms").alone();
        let mut client = site.connect();
        let asked_at = SystemTime::now();
        client.ask("/slow?3000").half_close();
        site.stop();
        assert_eq!(client.answer(), "that took a while\n");
        site.drained().not_before(asked_at + ms(3200)).in_good_time();
        site.ends();
    }

    fn a_connection_that_is_not_accepted_holds_it_to_the_maximum(place) {
        if !can_have_one() { return }
        let site = castoff(place, "0", "1500ms", "100ms").alone();
        process::signal(site.castoff.child(), libc::SIGSTOP);
        wait_until("the server stands still", || {
            (process::state(site.castoff.child()) == Some('T')).then_some(())
        });
        let _waiting = site.connect();
        site.stop();
        assert_eq!(site.drained().by("max").after(ms(1500)).0["connections"], 1);
        site.ends();
    }

    fn traffic_that_never_ends_is_cut_off_at_the_maximum_and_the_deadline_is_kept(place) {
        if !can_have_one() { return }
        // A child that is told, and ends not: it has a second more.
        let script = r#"trap 'echo told' TERM; "$0" 127.0.0.1:0 & while :; do wait; done"#;
        let mut site = castoff(place, "0", "2s", "500ms")
            .env("CASTOFF_KILL_RESERVE", "597s")
            .child("/bin/sh", ["-c", script, &example("server")])
            .in_own_network()
            .site();
        let mut client = site.connect();
        client.ask("/stream?600000&20");
        let reader = thread::spawn(move || client.swallow());
        site.stop();
        site.castoff.stdout().wait_for_line("told");
        site.drained().by("max").after(ms(2000));
        assert_eq!(site.castoff.wait(), Ended::Code(KILLED));
        reader.join().expect("it only reads");
        let events = site.castoff.log().events();
        let exiting = events.iter().find(|event| event["event"] == "exiting").expect("it ended");
        assert!(exiting["stop_ms"].as_u64() >= Some(3000), "{exiting}");
    }

    fn a_second_signal_skips_it(place) {
        if !can_have_one() { return }
        let site = castoff(place, "5m", "9m", "1s").alone();
        let mut client = site.connect();
        client.ask("/slow?60000");
        site.stop();
        site.castoff.signal(libc::SIGTERM);
        site.drained().by("second_signal");
        site.ends();
    }

    fn short_connections_hold_it_alone_in_the_network(place) {
        if !can_have_one() { return }
        for address in [LOOPBACK, LOOPBACK_6] {
            let castoff = castoff(place, "0", LONG, "1s").in_own_network();
            hold_by_short_connections(castoff, address, None);
        }
    }

    fn short_connections_hold_it_where_others_listen(place) {
        if !can_have_one() { return }
        for address in [LOOPBACK, LOOPBACK_6] {
            let castoff = castoff(place, "0", LONG, "1s").in_own_network();
            hold_by_short_connections(castoff, address, Some("127.0.0.1:0"));
        }
    }

    // `for i in $(seq 30); do curl -s localhost:$PORT; sleep 0.1; done`
    fn short_connections_hold_it_in_the_network_of_this_machine(place) {
        hold_by_short_connections(castoff(place, "0", LONG, "1s"), LOOPBACK, None);
    }

    fn connections_of_others_do_not_hold_it(place) {
        if !can_have_one() { return }
        let site = castoff(place, "0", LONG, "500ms").alone();
        let other = Neighbour::beside(&site, "127.0.0.1:0");
        let (network, address) = (Network::of(site.castoff.pid), other.address);
        let mut stream = site.connect_to(address);
        stream.ask("/stream?60000&20");
        let requests = Repeated::every(ms(20), move || {
            network.within(|| Client::new(address)).get("/");
        });
        site.stop();
        site.drained().in_good_time();
        requests.end();
        site.ends();
    }

    fn probes_of_its_own_endpoints_do_not_hold_it(place) {
        if !can_have_one() { return }
        let scratch = Scratch::new();
        let mut site = castoff(place, "1s", LONG, "500ms").lasting(&scratch).in_own_network().site();
        let (pid, address) = (site.castoff.pid, site.castoff.address());
        let probes = Repeated::every(ms(20), move || {
            assert_eq!(within(pid, || probe::get(address, "/livez")).status, 200);
        });
        site.stop();
        site.drained().after(ms(1000)).in_good_time();
        probes.end();
        scratch.file("over", "");
        // Not before: the scratch directory goes with this test.
        assert_eq!(site.castoff.wait(), Ended::Code(0));
    }

    fn named_ports_are_the_ones_that_count(place) {
        if !can_have_one() { return }
        let site = castoff(place, "0", LONG, "500ms")
            .env("CASTOFF_DRAIN_PORTS", "8001")
            .serving_at("127.0.0.1:8002")
            .in_own_network()
            .site();
        // Of no process below castoff.
        let other = Neighbour::beside(&site, "127.0.0.1:8001");
        let mut unnamed = site.connect();
        unnamed.ask("/stream?60000&20");
        let mut named = site.connect_to(other.address);
        let asked_at = SystemTime::now();
        named.ask("/slow?2000");
        site.stop();
        assert_eq!(named.answer(), "that took a while\n");
        let drained = site.drained();
        assert_eq!(drained.not_before(asked_at + ms(2500)).in_good_time().0["connections"], 1);
        site.ends();
    }

    fn without_a_port_there_is_no_traffic(place) {
        if !can_have_one() { return }
        let castoff = castoff(place, "300ms", LONG, "100ms").child("sleep", ["600"]).in_own_network().start();
        castoff.until_serving();
        let site = Site { castoff, port: 0 };
        let other = Neighbour::beside(&site, "127.0.0.1:0");
        site.connect_to(other.address).ask("/slow?60000");
        site.stop();
        site.drained().after(ms(300)).in_good_time();
        let events = site.ends();
        assert!(!events.iter().any(|event| event["event"] == "traffic_unknown"), "{events:?}");
    }

    fn a_daemon_that_listens_is_found(place) {
        if !can_have_one() { return }
        let site = castoff(place, "0", LONG, "200ms")
            .child("/bin/sh", ["-c", r#"(setsid "$0" 127.0.0.1:0 &); exec sleep 600"#, &example("server")])
            .in_own_network()
            .site();
        hold_by_a_request(site);
    }

    fn a_worker_that_has_inherited_the_listener_is_found(place) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        // The shell's own standard input is another, and then it is `sleep`.
        let script = r#"exec 3<&0 </dev/null; "$0" - <&3 & exec 3<&-; exec sleep 600"#;
        let site = castoff(place, "0", LONG, "200ms")
            .child("/bin/sh", ["-c", script, &example("server")])
            .with(|command| { command.stdin(OwnedFd::from(listener)); })
            .site();
        hold_by_a_request(site);
    }

    fn while_it_lasts_readiness_is_off_and_its_connections_are_told(place) {
        if !can_have_one() { return }
        let site = castoff(place, "0", LONG, "200ms").alone();
        let _idle = site.connect();
        let mut client = site.connect();
        client.ask("/slow?2000");
        site.stop();
        wait_until("both connections are told", || (site.metric("castoff_drain_connections") == Some(2)).then_some(()));
        assert_eq!(site.endpoint("/readyz").0, 503);
        assert_eq!(site.endpoint("/livez").0, 200);
        assert_eq!(client.answer(), "that took a while\n");
        assert_eq!(site.drained().in_good_time().0["connections"], 2);
        site.ends();
    }

    fn late_connections_are_counted(place) {
        if !can_have_one() { return }
        for (delay, max) in [("0", "0"), ("100ms", "100ms"), ("0", LONG)] {
            late(castoff(place, delay, max, "100ms"), 25);
        }
    }

    fn late_connections_of_a_child_that_was_killed_are_told(place) {
        if !can_have_one() { return }
        let scratch = Scratch::new();
        let mut site = castoff(place, "0", "0", "1s").lasting(&scratch).in_own_network().site();
        site.castoff.signal(libc::SIGTERM);
        site.castoff.stdout().wait_for_line("told");
        site.connect().get("/");
        wait_until("it is counted", || {
            (site.metric("castoff_late_connections_total") == Some(1)).then_some(())
        });
        site.castoff.signal(libc::SIGTERM);
        site.castoff.signal(libc::SIGINT);
        assert_eq!(site.castoff.wait(), Ended::Code(KILLED));
        let events = site.castoff.log().events();
        let late = events.iter().find(|event| event["event"] == "late_connections");
        assert_eq!(late.expect("it is told")["count"], 1);
    }

    fn without_late_connections_none_are_told(place) {
        if !can_have_one() { return }
        late(castoff(place, "0", "0", "100ms"), 0);
        late(castoff(place, "100ms", "100ms", "100ms"), 0);
    }

    fn an_unprivileged_castoff_sees_the_traffic(place) {
        if !can_have_one() { return }
        let scratch = Scratch::new();
        let site = unprivileged(place, &scratch, "755").site();
        hold_by_a_request(site);
    }

    fn a_child_whose_descriptors_cannot_be_read_is_given_the_whole_maximum(place) {
        if !can_have_one() { return }
        let scratch = Scratch::new();
        // A program that its user may execute and not read is not to be looked into.
        let site = unprivileged(place, &scratch, "711").draining("0", "1500ms", "100ms").site();
        site.stop();
        site.drained().by("max").after(ms(1500));
        let events = site.ends();
        let unknown = events.iter().filter(|event| event["event"] == "traffic_unknown");
        assert_eq!(unknown.count(), 1, "{events:?}");
    }

    fn named_ports_need_no_look_into_the_child(place) {
        if !can_have_one() { return }
        let scratch = Scratch::new();
        let site = unprivileged(place, &scratch, "711").env("CASTOFF_DRAIN_PORTS", "8080").site();
        assert_eq!(site.port, 8080);
        hold_by_a_request(site);
    }

    fn without_netlink_open_connections_hold_it(place) {
        if !can_have_one() { return }
        let site = castoff(place, "0", LONG, "300ms")
            .serving_at("127.0.0.1:0")
            .in_own_network()
            .last(refuse_netlink)
            .site();
        let mut client = site.connect();
        client.get("/");
        site.stop();
        // Idle or not: that is not to be seen. Five times as long as is quiet.
        let_pass(ms(1500));
        assert!(site.is_draining());
        let closed_at = SystemTime::now();
        drop(client);
        site.drained().not_before(closed_at + ms(300)).in_good_time();
        let events = site.ends();
        assert!(!events.iter().any(|event| event["event"] == "traffic_unknown"), "{events:?}");
    }

    fn thousands_of_idle_connections_do_not_hold_it(place) {
        const COUNT: usize = 2000;
        if !can_have_one() || !can_open(COUNT) { return }
        let site = castoff(place, "0", LONG, "500ms").alone();
        let address = SocketAddr::from((LOOPBACK, site.port));
        let clients: Vec<_> = within(site.castoff.pid, || {
            (0..COUNT).map(|_| {
                let mut client = Client::new(address);
                client.get("/");
                client
            }).collect()
        });
        site.stop();
        assert_eq!(site.drained().in_good_time().0["connections"], COUNT);
        let events = site.ends();
        assert!(events.iter().any(|event| event["to"] == "stopping"), "{events:?}");
        drop(clients);
    }

    fn thousands_of_requests_do_not_delay_the_deadline(place) {
        const COUNT: usize = 2000;
        if !can_have_one() || !can_open(COUNT) { return }
        // Nobody ends at SIGTERM.
        let script = r#"trap '' TERM; exec "$0" 127.0.0.1:0"#;
        let mut site = castoff(place, "0", "1s", "100ms")
            .env("CASTOFF_KILL_RESERVE", "598s")
            .child("/bin/sh", ["-c", script, &example("server")])
            .in_own_network()
            .site();
        let address = SocketAddr::from((LOOPBACK, site.port));
        let clients: Vec<_> = within(site.castoff.pid, || {
            (0..COUNT).map(|_| {
                let mut client = Client::new(address);
                client.ask("/slow?600000");
                client
            }).collect()
        });
        site.stop();
        assert_eq!(site.drained().by("max").after(ms(1000)).0["connections"], COUNT);
        // And before the grace period is over: `wait` has less patience.
        assert_eq!(site.castoff.wait(), Ended::Code(KILLED));
        drop(clients);
    }
}

/// Proves that the drain is held by a request, and ends behind its answer.
#[track_caller]
fn hold_by_a_request(site: Site) {
    let mut client = site.connect();
    let asked_at = SystemTime::now();
    client.ask("/slow?1500");
    site.stop();
    assert_eq!(client.answer(), "that took a while\n");
    let drained = site.drained();
    drained.not_before(asked_at + ms(1700)).in_good_time();
    assert!(drained.0["connections"].as_u64() >= Some(1), "{}", drained.0);
    site.ends();
}

/// A connection every 100 ms to a listener for both families, each for one
/// request and closed by the client: the server's side keeps nothing of it.
#[track_caller]
fn hold_by_short_connections(castoff: Castoff, address: IpAddr, other: Option<&str>) {
    let site = castoff.serving_at("[::]:0").site();
    let _other = other.map(|other| Neighbour::beside(&site, other));
    let (pid, address) = (site.castoff.pid, SocketAddr::from((address, site.port)));
    let requests = Repeated::every(ms(100), move || {
        let mut client = within(pid, || Client::new(address));
        assert_eq!(client.get("/"), "hello\n");
    });
    site.stop();
    let_pass(ms(2000));
    assert!(site.is_draining(), "{:?}", site.castoff.log().so_far());
    let last = requests.end();
    site.drained().not_before(last + ms(1000)).after(ms(2900));
    site.ends();
}

/// A child that goes on for a while after it was told, and those who come then.
#[track_caller]
fn late(castoff: Castoff, count: u64) {
    let scratch = Scratch::new();
    let mut site = castoff.lasting(&scratch).in_own_network().site();
    // These are in time.
    let mut kept = site.connect();
    for _ in 0..5 {
        site.connect().get("/");
    }
    kept.get("/");
    site.castoff.signal(libc::SIGTERM);
    site.castoff.stdout().wait_for_line("told");
    for nth in 0..count {
        // Some are seen open, of others there is only the kernel's count.
        let mut client = site.connect();
        client.get(if nth % 5 == 0 { "/slow?150" } else { "/" });
        let _ = site.endpoint("/livez");
    }
    if count > 0 {
        wait_until("all are counted", || {
            (site.metric("castoff_late_connections_total") == Some(count)).then_some(())
        });
    }
    assert_eq!(site.metric("castoff_late_connections_total"), Some(count));
    scratch.file("over", "");
    assert_eq!(site.castoff.wait(), Ended::Code(0));
    let events = site.castoff.log().events();
    let told: Vec<_> = events.iter().filter(|event| event["event"] == "late_connections").collect();
    if count == 0 {
        assert!(told.is_empty(), "{told:?}");
    } else {
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0]["count"], count);
        assert!(told[0]["last_after_ms"].as_u64() > Some(0), "{told:?}");
    }
}

/// Whether so many connections may be open beside those of the other tests.
fn can_open(count: usize) -> bool {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let is_enough = soft >= 2 * count as u64 + 1000;
    if !is_enough {
        eprintln!("SKIPPED: RLIMIT_NOFILE is {soft}: too low for {count} connections");
    }
    is_enough
}

/// A server of no process below castoff, in the network of a site.
struct Neighbour {
    process: std::process::Child,
    address: SocketAddr,
}

impl Neighbour {
    #[track_caller]
    fn beside(site: &Site, address: &str) -> Self {
        let mut command = Command::new(example("server"));
        command.arg(address).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = within(site.castoff.pid, || command.spawn()).expect("it starts");
        let out = process.stdout.take().expect("a pipe");
        let line = Lines::of("stdout", out).wait_for_line("port ");
        let port = line["port ".len()..].parse().expect("a port");
        let mut address: SocketAddr = address.parse().expect("an address");
        address.set_port(port);
        Self { process, address }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// castoff and its child as a user without a name, from copies that this user
/// can reach; the child's with that mode.
fn unprivileged(place: Place, scratch: &Scratch, mode: &str) -> Castoff {
    let copy = |from: &str, name: &str, mode: &str| {
        let to = scratch.path(name);
        // By another process: see `Scratch::program`.
        let copied = Command::new("install").args(["-m", mode, from, &to]).status();
        assert!(copied.expect("install runs").success());
        to
    };
    let own = copy(env!("CARGO_BIN_EXE_castoff"), "castoff", "755");
    let server = copy(&example("server"), "server", mode);
    Castoff::instead(place, &own)
        .draining("0", LONG, "200ms")
        .child(&server, ["127.0.0.1:8080"])
        .in_own_network()
        .last(|| {
            setgroups(&[])?;
            setgid(Gid::from_raw(65_534))?;
            Ok(setuid(Uid::from_raw(65_534))?)
        })
}

/// As gVisor and some seccomp profiles do.
fn refuse_netlink() -> io::Result<()> {
    let rule = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let is_equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let end = libc::BPF_RET | libc::BPF_K;
    // The number of the call, and the low half of its first argument, as they
    // lie in seccomp_data.
    let low = if cfg!(target_endian = "little") { 16 } else { 20 };
    let mut rules = [
        rule(load, 0, 0, 0),
        rule(is_equal, 0, 3, libc::SYS_socket as u32),
        rule(load, 0, 0, low),
        rule(is_equal, 0, 1, libc::AF_NETLINK as u32),
        rule(end, 0, 0, refused),
        rule(end, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: rules.len() as u16, filter: rules.as_mut_ptr() };
    // SAFETY: takes numbers; the program and its rules live across the call.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

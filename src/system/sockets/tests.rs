//! Looks at real sockets. Other tests use the same network namespace at the
//! same time: only the own ports are asked about.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;

use super::*;

/// Time enough.
fn later() -> Instant {
    Instant::now() + Duration::from_secs(600)
}
use crate::policy::traffic::{Look, Observer};

/// Never reached where a condition comes true at all.
const PATIENCE: Duration = Duration::from_secs(20);

/// A temporary directory that goes with its owner.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("castoff-sockets-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, name: &str, target: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn listen(address: &str) -> (TcpListener, u16) {
    let listener = TcpListener::bind(address).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn proc_root() -> PathBuf {
    PathBuf::from("/proc")
}

fn named(port: u16) -> Watch {
    Watch::new(Ports::Named(vec![port]), None, proc_root())
}

/// A connection, both its ends.
fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

fn ask(client: &mut TcpStream, server: &mut TcpStream) {
    client.write_all(b"ping").unwrap();
    server.read_exact(&mut [0; 4]).unwrap();
}

fn answer(client: &mut TcpStream, server: &mut TcpStream) {
    server.write_all(b"pong").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
}

/// What an observer sees that looks for the first time.
fn look(watch: &Watch) -> Look {
    Observer::default().observe(watch.look(None, false), Instant::now()).unwrap()
}

fn look_once_through_proc(watch: &Watch) -> Look {
    let table = watch.through_proc(None, false).unwrap();
    Observer::default().observe(Snapshot::Known(table), Instant::now()).unwrap()
}

fn wait_for(mut look: impl FnMut() -> Look, mut is_right: impl FnMut(&Look) -> bool) -> Look {
    let started_at = Instant::now();
    loop {
        let seen = look();
        if is_right(&seen) {
            return seen;
        }
        assert!(started_at.elapsed() < PATIENCE, "{seen:?}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

#[test]
fn a_look_goes_through_netlink() {
    let (_listener, port) = listen("127.0.0.1:0");
    assert!(named(port).through_netlink(None, false).is_some());
}

#[test]
fn an_idle_keep_alive_connection_is_seen_and_not_busy() {
    let (listener, port) = listen("127.0.0.1:0");
    let (mut client, mut server) = pair(&listener);
    let watch = named(port);
    let fresh = look(&watch);
    assert_eq!((fresh.connections, fresh.is_busy), (1, false));
    ask(&mut client, &mut server);
    answer(&mut client, &mut server);
    // Until the answer is acknowledged.
    let idle = wait_for(|| look(&watch), |look| !look.is_busy);
    assert_eq!(idle.connections, 1);
    let age = idle.last_activity.unwrap();
    wait_for(|| look(&watch), |look| look.last_activity > Some(age));
}

#[test]
fn a_request_is_busy_until_it_is_answered() {
    let (listener, port) = listen("127.0.0.1:0");
    let (mut client, mut server) = pair(&listener);
    let watch = named(port);
    client.write_all(b"ping").unwrap();
    wait_for(|| look(&watch), |look| look.is_busy);
    server.read_exact(&mut [0; 4]).unwrap();
    assert!(look(&watch).is_busy);
    answer(&mut client, &mut server);
    let answered = wait_for(|| look(&watch), |look| !look.is_busy);
    // The next comes a few jiffies after the answer.
    let wanted = answered.last_activity.unwrap() + Duration::from_millis(50);
    wait_for(|| look(&watch), |look| look.last_activity >= Some(wanted));
    ask(&mut client, &mut server);
    assert!(look(&watch).is_busy);
    answer(&mut client, &mut server);
    wait_for(|| look(&watch), |look| !look.is_busy);
}

#[test]
fn a_request_right_behind_an_answer_is_busy() {
    let (listener, port) = listen("127.0.0.1:0");
    let watch = named(port);
    for answered in [1, 2, 20] {
        let (mut client, mut server) = pair(&listener);
        for _ in 0..answered {
            ask(&mut client, &mut server);
            answer(&mut client, &mut server);
        }
        ask(&mut client, &mut server);
        // Nothing is in a queue any more.
        let seen = look(&watch);
        assert!(seen.is_busy, "{answered}: {seen:?}");
        answer(&mut client, &mut server);
        wait_for(|| look(&watch), |look| !look.is_busy);
    }
}

#[test]
fn a_connection_that_nobody_accepts_is_busy_and_arrives_once() {
    let (listener, port) = listen("127.0.0.1:0");
    let watch = named(port);
    let mut observer = Observer::default();
    let mut look = || observer.observe(watch.look(None, false), Instant::now()).unwrap();
    assert_eq!(look(), Look { connections: 0, is_busy: false, last_activity: None, arrived: 0 });
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let waiting = look();
    assert_eq!((waiting.connections, waiting.is_busy, waiting.arrived), (1, true, 1));
    let server = listener.accept().unwrap();
    let accepted = look();
    assert_eq!((accepted.connections, accepted.is_busy, accepted.arrived), (1, false, 0));
    drop((client, server));
}

#[test]
fn a_half_closed_connection_is_busy_until_it_is_answered() {
    let (listener, port) = listen("127.0.0.1:0");
    let (mut client, mut server) = pair(&listener);
    let watch = named(port);
    ask(&mut client, &mut server);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.read(&mut [0; 4]).unwrap(), 0);
    let pending = look(&watch);
    assert_eq!((pending.connections, pending.is_busy), (1, true));
    answer(&mut client, &mut server);
    wait_for(|| look(&watch), |look| !look.is_busy && look.connections == 1);
}

#[test]
fn a_client_that_leaves_without_a_word_is_no_request() {
    let (listener, port) = listen("127.0.0.1:0");
    let (client, server) = pair(&listener);
    let watch = named(port);
    drop(client);
    // Nobody reads the end of file.
    let left = |watch: &Watch| {
        let mut states = Vec::new();
        let tell = &mut |row| match row {
            Row::Connection { pair, socket } if pair.local.port == port => {
                states.push(socket.state);
            }
            _ => {}
        };
        diag::connections(&watch.ports, tell).unwrap();
        states == [State::CloseWait]
    };
    let seen = wait_for(|| look(&watch), |_| left(&watch));
    assert_eq!((seen.connections, seen.is_busy), (1, false));
    drop(server);
}

#[test]
fn an_answer_that_is_not_taken_is_busy_also_when_the_server_has_closed() {
    let (listener, port) = listen("127.0.0.1:0");
    let (mut client, mut server) = pair(&listener);
    let watch = named(port);
    ask(&mut client, &mut server);
    server.set_nonblocking(true).unwrap();
    while server.write(&[0; 65_536]).is_ok() {}
    drop(server);
    let seen = look(&watch);
    assert_eq!((seen.connections, seen.is_busy), (1, true));
    client.read_to_end(&mut Vec::new()).unwrap();
    wait_for(|| look(&watch), |look| !look.is_busy);
}

#[test]
fn a_connection_that_the_server_has_closed_shows_by_time_wait() {
    let (listener, port) = listen("127.0.0.1:0");
    for look in [look, look_once_through_proc] {
        let watch = named(port);
        let started_at = Instant::now();
        let (mut client, mut server) = pair(&listener);
        ask(&mut client, &mut server);
        answer(&mut client, &mut server);
        drop(server);
        assert_eq!(client.read(&mut [0; 4]).unwrap(), 0);
        drop(client);
        let seen =
            wait_for(|| look(&watch), |look| look.connections == 0 && look.last_activity.is_some());
        assert!(!seen.is_busy);
        // A timer's granularity.
        let slack = Duration::from_millis(100);
        assert!(seen.last_activity.unwrap() <= started_at.elapsed() + slack, "{seen:?}");
        wait_for(|| look(&watch), |look| look.last_activity > seen.last_activity);
    }
}

#[test]
fn an_ipv4_client_of_a_listener_for_both_families_is_seen() {
    let Ok(listener) = TcpListener::bind("[::]:0") else {
        eprintln!("SKIPPED: there is no IPv6 here");
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let watch = named(port);
    let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (_server, peer) = listener.accept().unwrap();
    assert!(peer.to_string().contains("127.0.0.1"));
    assert_eq!(look(&watch).connections, 1);
    assert_eq!(look_once_through_proc(&watch).connections, 1);
}

#[test]
fn only_the_named_ports_count_and_castoffs_own_never() {
    let (one, first) = listen("127.0.0.1:0");
    let (two, second) = listen("127.0.0.1:0");
    let (three, third) = listen("127.0.0.1:0");
    let _open = [pair(&one), pair(&two), pair(&three)];
    let watch = Watch::new(Ports::Named(vec![first, second, third]), Some(third), proc_root());
    assert_eq!(look(&watch).connections, 2);
    assert_eq!(look(&named(second)).connections, 1);
    assert_eq!(
        look(&Watch::new(Ports::Named(vec![third]), Some(third), proc_root())).connections,
        0
    );
}

#[test]
fn the_real_proc_shows_what_is_open_as_busy() {
    let (listener, port) = listen("127.0.0.1:0");
    let watch = named(port);
    assert!(!look_once_through_proc(&watch).is_busy);
    let (mut client, mut server) = pair(&listener);
    ask(&mut client, &mut server);
    answer(&mut client, &mut server);
    let seen = look_once_through_proc(&watch);
    assert_eq!((seen.connections, seen.is_busy), (1, true));
}

/// The inode of a socket of this process.
fn inode(socket: &impl AsRawFd) -> String {
    let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
    link.to_str().unwrap().to_owned()
}

#[test]
fn the_ports_of_the_tree_are_learned_and_kept() {
    let (listener, port) = listen("127.0.0.1:0");
    let (own, own_port) = listen("127.0.0.1:0");
    let (_foreign, foreign_port) = listen("127.0.0.1:0");
    let proc = Directory::new("learned");
    proc.link("17/fd/0", "/dev/null");
    proc.link("17/fd/1", "pipe:[5]");
    proc.link("18/fd/4", &inode(&listener));
    proc.link("18/fd/5", &inode(&own));
    let mut watch = Watch::new(Ports::Auto, Some(own_port), proc.0.clone());
    assert!(matches!(watch.look(None, false), Snapshot::Unknown), "nothing was learned yet");
    // One of them has gone meanwhile.
    watch.learn(&[16, 17], later());
    assert_eq!(look(&watch).connections, 0);
    assert!(watch.ports.is_empty());
    watch.learn(&[17, 18], later());
    assert_eq!(watch.ports, BTreeSet::from([port]));
    assert!(!watch.ports.contains(&foreign_port));
    let _open = pair(&listener);
    drop(listener);
    watch.learn(&[17], later());
    assert_eq!(look(&watch).connections, 1);
}

#[test]
fn the_own_descriptors_are_readable_by_the_real_proc() {
    let (_listener, port) = listen("127.0.0.1:0");
    let mut watch = Watch::new(Ports::Auto, None, proc_root());
    watch.learn(&[std::process::id() as i32], later());
    assert!(watch.ports.contains(&port));
}

#[test]
fn several_listeners_of_one_port_are_one_port() {
    let first = listen_as(0, libc::IPPROTO_TCP).unwrap();
    let port = first.local_addr().unwrap().port();
    let second = listen_as(port, libc::IPPROTO_TCP).unwrap();
    let proc = Directory::new("several");
    proc.link("9/fd/3", &inode(&second));
    let mut watch = Watch::new(Ports::Auto, None, proc.0.clone());
    let rows = listeners(&watch.proc_root).unwrap();
    assert_eq!(rows.iter().filter(|listener| listener.port == port).count(), 2);
    watch.learn(&[9], later());
    assert_eq!(watch.ports, BTreeSet::from([port]));
    drop(first);
}

/// As Go's net package listens by default, when the kernel can.
#[test]
fn a_listener_of_multipath_tcp_is_learned_by_its_inode() {
    const IPPROTO_MPTCP: i32 = 262;
    let Ok(listener) = listen_as(0, IPPROTO_MPTCP) else {
        eprintln!("SKIPPED: this kernel has no MPTCP");
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let proc = Directory::new("multipath");
    proc.link("9/fd/3", &inode(&listener));
    let mut watch = Watch::new(Ports::Auto, None, proc.0.clone());
    watch.learn(&[9], later());
    assert_eq!(watch.ports, BTreeSet::from([port]));
    let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert!(look(&watch).is_busy);
    let _server = listener.accept().unwrap();
    let seen = look(&watch);
    assert_eq!((seen.connections, seen.is_busy), (1, false));
}

/// With SO_REUSEPORT, on loopback.
fn listen_as(port: u16, protocol: i32) -> std::io::Result<TcpListener> {
    use nix::sys::socket::{setsockopt, sockopt};
    let socket = socket2::Socket::new(
        socket2::Domain::IPV4,
        socket2::Type::STREAM,
        Some(socket2::Protocol::from(protocol)),
    )?;
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    socket.listen(8)?;
    Ok(socket.into())
}

#[test]
fn descriptors_that_cannot_be_read_make_the_traffic_unknown_unless_a_port_was_found() {
    let (listener, port) = listen("127.0.0.1:0");
    let proc = Directory::new("denied");
    // Not a directory: root may read whatever is one.
    proc.write("17/fd", "");
    proc.link("18/fd/4", &inode(&listener));
    let mut watch = Watch::new(Ports::Auto, None, proc.0.clone());
    watch.learn(&[17], later());
    assert!(matches!(watch.look(None, false), Snapshot::Unknown));
    // All of them gone: a proc file system that hides them.
    watch.learn(&[90, 91], later());
    assert!(matches!(watch.look(None, false), Snapshot::Unknown));
    watch.learn(&[17, 18], later());
    assert_eq!(watch.ports, BTreeSet::from([port]));
    watch.learn(&[17], later());
    assert_eq!(look(&watch).connections, 0);
}

#[test]
fn descriptors_of_another_user_are_denied() {
    if Uid::effective().is_root() {
        eprintln!("SKIPPED: root may read all descriptors");
        return;
    }
    let mut watch = Watch::new(Ports::Auto, None, proc_root());
    let (_listener, _) = listen("127.0.0.1:0");
    watch.learn(&[1], later());
    assert!(matches!(watch.look(None, false), Snapshot::Unknown));
}

const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

/// A line of /proc/net/tcp: a peer 0 is for a listener.
fn line(port: u16, peer: u16, state: u8, timer: &str, inode: u32) -> String {
    format!(
        "   0: 0100007F:{port:04X} 0100007F:{peer:04X} {state:02X} 00000000:00000000 {timer} \
         00000000  1000        0 {inode} 1 0000000000000000 20 4 30 10 -1\n"
    )
}

#[test]
fn a_fixture_of_proc_is_read_for_both_families() {
    const NONE: &str = "00:00000000";
    let proc = Directory::new("fixture");
    let watch = Watch::new(Ports::Named(vec![80]), None, proc.0.clone());
    assert!(watch.through_proc(None, false).is_none(), "there is no such file");
    let mut observer = Observer::default();
    let mut look = |tcp: &[String], tcp6: Option<&[String]>| {
        proc.write("net/tcp", &format!("{HEADING}{}", tcp.concat()));
        if let Some(lines) = tcp6 {
            proc.write("net/tcp6", &format!("{HEADING}{}", lines.concat()));
        }
        let table = watch.through_proc(None, false).unwrap();
        observer.observe(Snapshot::Known(table), Instant::now()).unwrap()
    };
    let listener = line(80, 0, 10, NONE, 7);
    let other = line(81, 5000, 1, NONE, 8);
    let quiet = look(&[listener.clone(), other, line(80, 5000, 6, "03:00001770", 0)], None);
    assert_eq!((quiet.connections, quiet.is_busy), (0, false));
    assert_eq!(quiet.last_activity, Some(Duration::ZERO));
    let six = line(80, 5001, 1, NONE, 9).replace("0100007F:", "0000000000000000FFFF00000100007F:");
    let busy = look(&[listener, line(80, 5002, 1, NONE, 0)], Some(&[six]));
    assert_eq!((busy.connections, busy.is_busy, busy.arrived), (2, true, 2));
}

/// A proc file system that shows the namespace of the calling thread.
fn of_this_thread(name: &str) -> Directory {
    let proc = Directory::new(name);
    proc.link("net", "/proc/thread-self/net");
    proc
}

fn raise_loopback() {
    #[expect(unsafe_code, reason = "a flag of an interface")]
    // SAFETY: the request is zeroed, holds a name that ends, and lives across
    // the calls, which are given a socket that is open.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        assert_eq!(libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw const request), 0);
        libc::close(fd);
    }
}

/// A look as a drain takes it.
fn counted_look(watch: &mut Watch, observer: &mut Observer, own_accepts: u64) -> Look {
    let opens = watch.count(own_accepts);
    let with_neighbours = observer.wants_neighbours(opens);
    observer.observe(watch.look(opens, with_neighbours), Instant::now()).unwrap()
}

#[test]
fn alone_in_its_namespace_every_handshake_counts_except_castoffs_own() {
    in_a_namespace(|| {
        let proc = of_this_thread("alone");
        let (listener, port) = listen("127.0.0.1:0");
        let (own, own_port) = listen("127.0.0.1:0");
        let mut watch = Watch::new(Ports::Named(vec![port]), Some(own_port), proc.0.clone());
        let mut observer = Observer::default();
        let mut own_accepts = 0;
        let mut look = |accepts| counted_look(&mut watch, &mut observer, accepts);
        assert_eq!(look(own_accepts).arrived, 0);
        // Came and went, and closed by the client: nothing is left of it.
        for _ in 0..3 {
            let (client, mut server) = pair(&listener);
            drop(client);
            assert_eq!(server.read(&mut [0]).unwrap(), 0);
        }
        let seen = wait_for(|| look(own_accepts), |look| look.arrived > 0);
        assert_eq!((seen.arrived, seen.last_activity), (3, Some(Duration::ZERO)));
        // A probe of castoff's endpoints, before and after it is accepted.
        let _client = TcpStream::connect(("127.0.0.1", own_port)).unwrap();
        assert_eq!(look(own_accepts).arrived, 0);
        let _server = own.accept().unwrap();
        own_accepts += 1;
        assert_eq!(look(own_accepts).arrived, 0);
        // Somebody else listens: the count is everybody's.
        let (other, _) = listen("127.0.0.1:0");
        drop(pair(&other));
        assert_eq!(look(own_accepts).arrived, 0);
    });
}

/// Runs in a network namespace of its own.
fn in_a_namespace(act: impl FnOnce() + Send + 'static) {
    let alone = || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("SKIPPED: no network namespace may be made: {error}");
            return;
        }
        raise_loopback();
        act();
    };
    std::thread::spawn(alone).join().unwrap();
}

/// Opened and closed by the client, and gone from the server's tables.
fn come_and_go(listener: &TcpListener) {
    let (client, mut server) = pair(listener);
    drop(client);
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
}

#[test]
fn beside_others_a_client_that_came_and_went_unseen_is_activity_and_theirs_are_not() {
    in_a_namespace(|| {
        for (nth, address) in ["127.0.0.1:0", "[::1]:0", "[::]:0"].into_iter().enumerate() {
            let proc = of_this_thread(&format!("beside-{nth}"));
            let (listener, port) = listen(address);
            let (other, _) = listen("127.0.0.1:0");
            let mut watch = Watch::new(Ports::Named(vec![port]), None, proc.0.clone());
            let mut observer = Observer::default();
            let mut look = || counted_look(&mut watch, &mut observer, 0);
            let at_first = look();
            // Sixty seconds of quiet would end this one as well.
            assert_eq!((at_first.connections, at_first.last_activity), (0, None));
            // Seen at both its ends, and then by what the client leaves.
            let open = pair(&other);
            assert_eq!((look().last_activity, look().last_activity), (None, None));
            drop(open);
            for _ in 0..20 {
                come_and_go(&other);
                assert_eq!((look().last_activity, look().arrived), (None, 0));
            }
            let begun_at = Instant::now();
            come_and_go(&listener);
            let seen = look();
            let ago = seen.last_activity.expect("its client has left a TIME_WAIT");
            // A timer's granularity.
            assert!(ago <= begun_at.elapsed() + Duration::from_millis(100), "{ago:?}");
            assert_eq!((seen.connections, seen.is_busy, seen.arrived), (0, false, 0));
            wait_for(&mut look, |look| look.last_activity > Some(ago));
        }
    });
}

#[test]
fn beside_others_a_client_that_leaves_no_trace_is_activity() {
    in_a_namespace(|| {
        let proc = of_this_thread("traceless");
        let (listener, port) = listen("127.0.0.1:0");
        let (other, _) = listen("127.0.0.1:0");
        let mut watch = Watch::new(Ports::Named(vec![port]), None, proc.0.clone());
        for met in [&listener, &other] {
            let mut observer = Observer::default();
            let mut look = || counted_look(&mut watch, &mut observer, 0);
            assert_eq!(look().last_activity, None);
            let (client, server) = pair(met);
            // A reset: neither end remains.
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
            drop(client);
            drop(server);
            let seen = look();
            // Whose it was cannot be known: rather too long than too short.
            assert_eq!((seen.last_activity, seen.arrived), (Some(Duration::ZERO), 0));
            wait_for(&mut look, |look| look.last_activity > Some(Duration::ZERO));
        }
    });
}

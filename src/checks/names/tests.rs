//! Names against a name server of the tests' own, honest or not, on UDP and TCP.

use super::*;
use crate::checks::tests::{Directory, run};
use domain::base::iana::Rcode;
use domain::base::{Message, MessageBuilder, Question, Rtype};
use domain::rdata::{A, Aaaa, Cname};
use proptest::prelude::*;
use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};

impl Resolver {
    /// One with files and a port of the test's own.
    pub(in crate::checks) fn of(hosts: &Path, resolv_conf: &Path, port: u16) -> Self {
        Self { hosts: hosts.to_owned(), resolv_conf: resolv_conf.to_owned(), port }
    }
}

/// What to send for a question; nothing at all when it is `None`.
type Zone = fn(Asked) -> Option<Vec<u8>>;

/// One question, and how it came.
struct Asked {
    query: Message<Vec<u8>>,
    name: String,
    rtype: Rtype,
    is_tcp: bool,
}

impl Asked {
    /// An answer with these addresses, as far as they are of the family.
    fn answer(&self, rcode: Rcode, addresses: &[&str]) -> Vec<u8> {
        self.message(rcode, addresses, false)
    }

    fn message(&self, rcode: Rcode, addresses: &[&str], is_cut: bool) -> Vec<u8> {
        let builder = MessageBuilder::new_vec();
        let mut answer = builder.start_answer(&self.query, rcode).expect("room");
        answer.header_mut().set_ra(true);
        answer.header_mut().set_tc(is_cut);
        let name: Name<Vec<u8>> = self.name.parse().expect("a name");
        for address in addresses {
            match (address.parse().expect("an address"), self.rtype) {
                (IpAddr::V4(four), Rtype::A) => {
                    answer.push((&name, 60, A::new(four))).expect("room");
                }
                (IpAddr::V6(six), Rtype::AAAA) => {
                    answer.push((&name, 60, Aaaa::new(six))).expect("room");
                }
                _ => {}
            }
        }
        answer.finish()
    }
}

/// A name server on a port of 127.0.0.1.
struct Server {
    port: u16,
    /// `name type` of each question.
    asked: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    fn start(zone: Zone) -> Self {
        // The port must be free for both.
        let (udp, tcp) = (0..100)
            .find_map(|_| {
                let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
                let tcp = TcpListener::bind(udp.local_addr().expect("an address"));
                Some((udp, tcp.ok()?))
            })
            .expect("a port");
        let port = udp.local_addr().expect("an address").port();
        let (asked, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let answer = {
            let asked: Arc<Mutex<Vec<String>>> = Arc::clone(&asked);
            move |bytes: &[u8], is_tcp| {
                let query = Message::from_octets(bytes.to_vec()).ok()?;
                let question: Question<_> = query.sole_question().ok()?;
                let (name, rtype) = (question.qname().to_string(), question.qtype());
                asked.lock().expect("no panic").push(format!("{name} {rtype}"));
                zone(Asked { query: query.clone(), name, rtype, is_tcp })
            }
        };
        let by_udp = {
            let (answer, stop) = (answer.clone(), Arc::clone(&stop));
            move || {
                let mut buffer = [0; 4096];
                while let Ok((length, client)) = udp.recv_from(&mut buffer) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    if let Some(answer) = answer(&buffer[..length], false) {
                        let _ = udp.send_to(&answer, client);
                    }
                }
            }
        };
        let stopped = Arc::clone(&stop);
        let by_tcp = move || {
            for stream in tcp.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let mut stream = stream.expect("a client");
                let mut length = [0; 2];
                let Ok(()) = stream.read_exact(&mut length) else { continue };
                let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                let Ok(()) = stream.read_exact(&mut query) else { continue };
                if let Some(answer) = answer(&query, true) {
                    let length = u16::try_from(answer.len()).expect("short");
                    let _ = stream.write_all(&length.to_be_bytes());
                    let _ = stream.write_all(&answer);
                }
            }
        };
        Self { port, asked, stop, threads: vec![spawn(by_udp), spawn(by_tcp)] }
    }

    fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.asked.lock().expect("no panic"));
        // Both families are asked at once, in any order.
        asked.retain(|question| question.ends_with(" A"));
        asked
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let local = (Ipv4Addr::LOCALHOST, self.port);
        let _ = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map(|udp| udp.send_to(&[0], local));
        let _ = std::net::TcpStream::connect(local);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A machine: its two files, and the port of its name servers.
struct Machine {
    resolver: Resolver,
    _directory: Directory,
}

impl Machine {
    fn new(hosts: &str, resolv_conf: &str, port: u16) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = Directory::new(&format!("names-{number}"));
        let (hosts_file, conf_file) = (directory.join("hosts"), directory.join("resolv.conf"));
        fs::write(&hosts_file, hosts).expect("written");
        fs::write(&conf_file, resolv_conf).expect("written");
        let resolver = Resolver::of(&hosts_file, &conf_file, port);
        Self { resolver, _directory: directory }
    }

    /// The addresses of a name, as text.
    fn resolve(&self, name: &str) -> Result<String, String> {
        let found = run(self.resolver.resolve(name))?;
        Ok(found.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "))
    }
}

const LOCAL: &str = "nameserver 127.0.0.1\n";

fn no_such_name() -> Result<String, String> {
    Err("does not resolve: no such name".to_owned())
}

#[test]
fn the_hosts_file_comes_first_and_localhost_needs_none() {
    let server = Server::start(|asked| Some(asked.answer(Rcode::NXDOMAIN, &[])));
    let machine = Machine::new("10.0.0.7 db\nfd00::7 DB\n", LOCAL, server.port);
    assert_eq!(machine.resolve("Db"), Ok("fd00::7 10.0.0.7".to_owned()));
    assert_eq!(machine.resolve("db."), Ok("fd00::7 10.0.0.7".to_owned()));
    for name in ["localhost", "LocalHost.", "app.localhost"] {
        assert_eq!(machine.resolve(name), Ok("::1 127.0.0.1".to_owned()), "{name}");
    }
    assert_eq!(server.asked(), [""; 0]);
    assert_eq!(machine.resolve("web"), no_such_name());
}

#[test]
fn both_families_are_asked_for_and_taken_by_turns() {
    let server = Server::start(|asked| {
        Some(asked.answer(Rcode::NOERROR, &["10.0.0.1", "10.0.0.2", "fd00::1", "10.0.0.3"]))
    });
    let machine = Machine::new("", LOCAL, server.port);
    let found = Ok("fd00::1 10.0.0.1 10.0.0.2 10.0.0.3".to_owned());
    assert_eq!(machine.resolve("web.example.org"), found);
}

#[test]
fn one_family_is_enough() {
    let four = Server::start(|asked| Some(asked.answer(Rcode::NOERROR, &["10.0.0.1"])));
    let machine = Machine::new("", LOCAL, four.port);
    assert_eq!(machine.resolve("web"), Ok("10.0.0.1".to_owned()));
    // Neither a failure of the other nor its silence matters.
    let failing = Server::start(|asked| match asked.rtype {
        Rtype::A => Some(asked.answer(Rcode::NOERROR, &["10.0.0.1"])),
        _ => Some(asked.answer(Rcode::SERVFAIL, &[])),
    });
    let machine = Machine::new("", LOCAL, failing.port);
    assert_eq!(machine.resolve("web"), Ok("10.0.0.1".to_owned()));
    let silent = Server::start(|asked| {
        (asked.rtype == Rtype::A).then(|| asked.answer(Rcode::NOERROR, &["10.0.0.1"]))
    });
    let machine = Machine::new("", LOCAL, silent.port);
    assert_eq!(machine.resolve("web"), Ok("10.0.0.1".to_owned()));
}

#[test]
fn few_dots_search_first_and_many_last() {
    let server = Server::start(|asked| Some(asked.answer(Rcode::NXDOMAIN, &[])));
    let conf = "nameserver 127.0.0.1\nsearch ns.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5 # of a pod\n";
    let machine = Machine::new("", conf, server.port);
    assert_eq!(machine.resolve("db"), no_such_name());
    assert_eq!(
        server.asked(),
        ["db.ns.svc.cluster.local A", "db.svc.cluster.local A", "db.cluster.local A", "db A"]
    );
    assert_eq!(machine.resolve("db.x.y.z.org."), no_such_name());
    assert_eq!(server.asked(), ["db.x.y.z.org A"]);
    let machine = Machine::new("", "search a b\nnameserver 127.0.0.1\n", server.port);
    assert_eq!(machine.resolve("db.org"), no_such_name());
    assert_eq!(server.asked(), ["db.org A", "db.org.a A", "db.org.b A"]);
}

#[test]
fn the_search_ends_with_the_first_that_has_addresses() {
    let server = Server::start(|asked| {
        Some(match asked.name.as_str() {
            "db.b" => asked.answer(Rcode::NOERROR, &["10.0.0.1"]),
            // Nothing of that type, and a server that fails: others may know.
            "db.a" => asked.answer(Rcode::NOERROR, &[]),
            "db.bad" => asked.answer(Rcode::SERVFAIL, &[]),
            _ => asked.answer(Rcode::NXDOMAIN, &[]),
        })
    });
    let machine = Machine::new("", "search a bad b c\nnameserver 127.0.0.1\n", server.port);
    assert_eq!(machine.resolve("db"), Ok("10.0.0.1".to_owned()));
    assert_eq!(server.asked(), ["db.a A", "db.bad A", "db.b A"]);
    let machine = Machine::new("", "search a c\nnameserver 127.0.0.1\n", server.port);
    let reason = "does not resolve: the name has no address".to_owned();
    assert_eq!(machine.resolve("db"), Err(reason));
    let machine = Machine::new("", "search a bad c\nnameserver 127.0.0.1\n", server.port);
    let reason = "does not resolve: name server 127.0.0.1 answers SERVFAIL".to_owned();
    assert_eq!(machine.resolve("db"), Err(reason));
}

#[test]
fn another_server_is_asked_when_one_fails_or_is_silent() {
    let good = Server::start(|asked| Some(asked.answer(Rcode::NOERROR, &["10.0.0.1"])));
    let silent = UdpSocket::bind(("127.0.0.2", good.port)).expect("the same port");
    // Nobody listens on 127.0.0.3.
    let conf = "nameserver 127.0.0.3\nnameserver 127.0.0.2\nnameserver 127.0.0.1\n";
    let machine = Machine::new("", conf, good.port);
    assert_eq!(machine.resolve("db"), Ok("10.0.0.1".to_owned()));
    drop(silent);
    let machine = Machine::new("", "nameserver 127.0.0.3\n", good.port);
    let reason = "does not resolve: name server 127.0.0.3: connection refused";
    assert_eq!(machine.resolve("db"), Err(reason.to_owned()));
}

#[test]
fn a_server_that_is_silent_is_given_up() {
    let silent = UdpSocket::bind(("127.0.0.1", 0)).expect("a free port");
    let port = silent.local_addr().expect("an address").port();
    let conf = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";
    let machine = Machine::new("", conf, port);
    let reason = "does not resolve: name server 127.0.0.1: no answer";
    assert_eq!(machine.resolve("db"), Err(reason.to_owned()));
}

#[test]
fn what_does_not_fit_is_asked_for_again_by_tcp() {
    let server = Server::start(|asked| {
        Some(match asked.is_tcp {
            true => asked.answer(Rcode::NOERROR, &["10.0.0.1", "10.0.0.2"]),
            false => asked.message(Rcode::NOERROR, &["10.0.0.1"], true),
        })
    });
    let machine = Machine::new("", LOCAL, server.port);
    assert_eq!(machine.resolve("db"), Ok("10.0.0.1 10.0.0.2".to_owned()));
    // Without TCP what did fit counts.
    let server = Server::start(|asked| {
        (!asked.is_tcp).then(|| asked.message(Rcode::NOERROR, &["10.0.0.1"], true))
    });
    let machine = Machine::new("", LOCAL, server.port);
    assert_eq!(machine.resolve("db"), Ok("10.0.0.1".to_owned()));
}

#[test]
fn an_alias_is_followed_as_far_as_the_answer_goes() {
    let server = Server::start(|asked| {
        let builder = MessageBuilder::new_vec();
        let mut answer = builder.start_answer(&asked.query, Rcode::NOERROR).expect("room");
        let [own, next, last] = [asked.name.as_str(), "b.org", "c.org"]
            .map(|name| name.parse::<Name<Vec<u8>>>().expect("a name"));
        answer.push((&own, 60, Cname::new(&next))).expect("room");
        answer.push((&next, 60, Cname::new(&last))).expect("room");
        if asked.rtype == Rtype::A {
            answer.push((&last, 60, A::new(Ipv4Addr::new(10, 0, 0, 1)))).expect("room");
        }
        Some(answer.finish())
    });
    let machine = Machine::new("", LOCAL, server.port);
    assert_eq!(machine.resolve("a.org"), Ok("10.0.0.1".to_owned()));
}

#[test]
fn an_answer_to_another_question_is_none() {
    let conf = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";
    let zones: [Zone; 4] = [
        // Another id.
        |asked| {
            let mut answer = asked.answer(Rcode::NOERROR, &["10.0.0.1", "fd00::1"]);
            answer[0] ^= 1;
            Some(answer)
        },
        // Another name.
        |asked| {
            let mut answer = asked.answer(Rcode::NOERROR, &["10.0.0.1", "fd00::1"]);
            answer[13] ^= 2;
            Some(answer)
        },
        // The question itself.
        |asked| Some(asked.query.into_octets()),
        // Too short to be anything.
        |_| Some(vec![0; 5]),
    ];
    for zone in zones {
        let server = Server::start(zone);
        let machine = Machine::new("", conf, server.port);
        let reason = "does not resolve: name server 127.0.0.1: no answer";
        assert_eq!(machine.resolve("db"), Err(reason.to_owned()));
    }
}

#[test]
fn a_server_that_contradicts_itself_is_of_no_use() {
    // It says that there are 65,535 records, and ends.
    let server = Server::start(|asked| {
        let mut answer = asked.answer(Rcode::NOERROR, &[]);
        answer[6] = 0xff;
        answer[7] = 0xff;
        Some(answer)
    });
    let machine = Machine::new("", LOCAL, server.port);
    let reason = "does not resolve: the name has no address";
    assert_eq!(machine.resolve("db"), Err(reason.to_owned()));
    // A name that points at itself.
    let server = Server::start(|asked| {
        let mut answer = asked.answer(Rcode::NOERROR, &[]);
        answer[7] = 1;
        let own = 0xc000 | answer.len() as u16;
        answer.extend_from_slice(&own.to_be_bytes());
        answer.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 1]);
        Some(answer)
    });
    let machine = Machine::new("", LOCAL, server.port);
    assert_eq!(machine.resolve("db"), Err(reason.to_owned()));
}

#[test]
fn settings_are_bounded_and_have_defaults() {
    let of = |text: &str| Settings::new(&Ok(text.to_owned()), 53);
    let missing = Settings::new(&Err(io::ErrorKind::NotFound.into()), 53);
    assert_eq!(missing, of(""));
    assert_eq!(missing.servers, [SocketAddr::from(([127, 0, 0, 1], 53))]);
    assert_eq!((missing.ndots, missing.timeout.as_secs(), missing.attempts), (1, 5, 2));
    let text = "; comment\nnameserver 10.0.0.1 # first\nnameserver fe80::1%2\nnameserver x\n\
         nameserver 10.0.0.3\nnameserver 10.0.0.4\nunknown\noptions ndots:99 timeout:99 attempts:99 odd\n\
         search a\nsearch b c\n";
    let settings = of(text);
    let servers: Vec<_> = settings.servers.iter().map(SocketAddr::to_string).collect();
    assert_eq!(servers, ["10.0.0.1:53", "[fe80::1%2]:53", "10.0.0.3:53"]);
    assert_eq!(settings.search, ["b", "c"]);
    assert_eq!((settings.ndots, settings.timeout.as_secs(), settings.attempts), (15, 30, 5));
    assert_eq!(of("options timeout:0 attempts:0\n").attempts, 1);
}

#[test]
fn a_file_that_is_none_is_not_opened() {
    assert!(text_of(Path::new("/dev/zero")).is_err());
    assert!(text_of(Path::new("/")).is_err());
}

proptest! {
    #[test]
    fn no_settings_are_too_odd(text: String, name in "[a-z.]{1,40}", ndots: u8) {
        let search = format!("{text}\nsearch {text}\noptions ndots:{ndots}\n");
        let settings = Settings::new(&Ok(search), 53);
        prop_assert!(!settings.servers.is_empty());
        prop_assert!(candidates(&settings, &name, false).len() <= CANDIDATES_MAX);
    }

    #[test]
    fn no_answer_is_too_odd(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        counts: [u8; 8],
        is_four: bool,
    ) {
        let rtype = if is_four { Rtype::A } else { Rtype::AAAA };
        let mut whole = vec![0, 1, 0x81, 0x80];
        whole.extend_from_slice(&counts);
        whole.extend_from_slice(&bytes);
        for bytes in [bytes, whole] {
            if let Ok(message) = Message::from_octets(bytes)
                && let Ok(Answer::Addresses(found)) = dns::read(&message, rtype)
            {
                prop_assert!(!found.is_empty() && found.len() <= ADDRESSES_MAX);
            }
        }
    }
}

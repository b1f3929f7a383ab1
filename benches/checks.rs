//! What checks cost: `cargo bench --bench checks [-- SECONDS] [CASTOFF]` lets
//! three of castoff run beside each other for so long (120 s) and prints the CPU
//! time and the wake-ups of each, and its memory afterwards: one with ten checks
//! at 5 s, all of which pass; one that answers the check by gRPC among them; and
//! one that has nothing to do.
//!
//! All else that the checks ask is here, or in the child, which is this program
//! too. It must never fail because of a figure, and always when a check fails.
#![expect(clippy::expect_used, reason = "a measurement that fails says so and ends")]
#![expect(clippy::disallowed_methods, reason = "what is measured is the passing of time")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const SECONDS: u64 = 120;
/// After which every check has passed, and begun to be asked at its period.
const SETTLE: Duration = Duration::from_secs(12);
/// Of `cutime` and `cstime` in `man 5 proc_pid_stat`, on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Marks the process that is a child of castoff.
const CHILD: &str = "--child";

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [mark, port] = arguments.as_slice()
        && mark == CHILD
    {
        let port: u16 = port.parse().expect("a port");
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a listener");
        let _ = std::io::stdin().read(&mut [0]);
        return;
    }
    // Also built, and run without this word, by `cargo test --all-targets`.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("checks: run by `cargo bench --bench checks`");
        return;
    }
    let mut seconds = SECONDS;
    let mut castoff = PathBuf::from(env!("CARGO_BIN_EXE_castoff"));
    for argument in arguments.iter().filter(|argument| *argument != "--bench") {
        match argument.parse() {
            Ok(number) => seconds = number,
            Err(_) => castoff = PathBuf::from(argument),
        }
    }
    measure(&castoff, Duration::from_secs(seconds));
}

fn measure(castoff: &Path, time: Duration) {
    let server = serve();
    let [own, asked, none, child] = free_ports();
    let targets = [
        format!("tcp://127.0.0.1:{server}"),
        format!("tcp://localhost:{server}"),
        format!("tcp://127.0.0.1:{server}"),
        format!("http://127.0.0.1:{server}/"),
        format!("http://localhost:{server}/"),
        format!("http://127.0.0.1:{server}/"),
        format!("listen:{child}"),
        format!("file://{}", castoff.display()),
        "exec:/bin/true".to_owned(),
        format!("grpc://127.0.0.1:{asked}/live"),
    ];
    let checks = targets.iter().enumerate().map(|(nth, target)| {
        format!(
            "[[check]]\nname = 'check-{nth}'\nlevel = 'ready'\ntarget = '{target}'\nperiod = '5s'\n"
        )
    });
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = directory.join("checks.toml");
    fs::write(&file, checks.collect::<String>()).expect("a file");

    let start = |name, health: u16, child: u16| Subject::start(name, castoff, &file, health, child);
    let subjects =
        [start(TEN, own, child), start("one that is asked", asked, 0), start("none", none, 0)];
    thread::sleep(SETTLE);
    subjects.iter().for_each(Subject::expect_ready);
    let (begin, before) = (Instant::now(), subjects.each_ref().map(Subject::usage));
    thread::sleep(time);
    let (elapsed, after) = (begin.elapsed().as_secs_f64(), subjects.each_ref().map(Subject::usage));
    subjects.iter().for_each(Subject::expect_ready);

    let load = fs::read_to_string("/proc/loadavg").expect("/proc");
    println!("{} checks at 5 s for {elapsed:.0} s; load {}", targets.len(), load.trim());
    println!("checks             CPU s/h  children's  wake-ups/s  threads  RSS KiB  private dirty");
    for ((subject, before), after) in subjects.iter().zip(before).zip(after) {
        println!(
            "{:18}{:8.2}{:12.2}{:12.2}{:9}{:9}{:15}",
            subject.name,
            (after.cpu - before.cpu) * 3600.0 / elapsed,
            (after.childrens_cpu - before.childrens_cpu) * 3600.0 / elapsed,
            (after.wake_ups - before.wake_ups) as f64 / elapsed,
            subject.field("status", "Threads"),
            subject.field("smaps_rollup", "Rss"),
            subject.field("smaps_rollup", "Private_Dirty"),
        );
    }
}

/// The one that has the checks.
const TEN: &str = "ten";

/// A castoff that runs. Its child ends when nobody holds its input any more, and
/// so does castoff.
struct Subject {
    name: &'static str,
    health: u16,
    process: Child,
}

/// What it has used so far; in seconds.
struct Usage {
    cpu: f64,
    childrens_cpu: f64,
    wake_ups: u64,
}

impl Subject {
    fn start(name: &'static str, castoff: &Path, checks: &Path, health: u16, child: u16) -> Self {
        let mut command = Command::new(castoff);
        command.env("CASTOFF_HEALTH_LISTEN", format!("127.0.0.1:{health}")).stderr(Stdio::null());
        if name == TEN {
            command.arg("--config").arg(checks);
        }
        let own = std::env::current_exe().expect("a path");
        command.arg("--").arg(own).args([CHILD, &child.to_string()]).stdin(Stdio::piped());
        Self { name, health, process: command.spawn().expect("castoff") }
    }

    /// Fails unless every check has passed.
    fn expect_ready(&self) {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.health)).expect("endpoints");
        stream.write_all(b"GET /readyz?verbose HTTP/1.0\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.0 200 "), "{}: {answer}", self.name);
    }

    fn usage(&self) -> Usage {
        // Behind the name, which may have any character.
        let stat = self.proc("stat");
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace());
        let ticks = fields.into_iter().flatten().skip(13).take(2);
        // In nanoseconds, which `stat` does not have.
        let schedstat = self.proc("schedstat");
        let cpu = schedstat.split_whitespace().next().and_then(|nanos| nanos.parse::<f64>().ok());
        Usage {
            cpu: cpu.expect("a time") / 1e9,
            childrens_cpu: ticks.map(|ticks| ticks.parse::<f64>().expect("a time")).sum::<f64>()
                / TICKS_PER_SECOND,
            wake_ups: self.field("status", "voluntary_ctxt_switches"),
        }
    }

    /// The number behind `name:` in a file of /proc.
    fn field(&self, file: &str, name: &str) -> u64 {
        let text = self.proc(file);
        let value = |line: &str| {
            line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok()
        };
        text.lines().find_map(value).expect(name)
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.process.id())).expect("/proc")
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// A server that has one answer, until the end of this process; its port.
fn serve() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A check by TCP has gone already.
            if let Ok(1..) = stream.read(&mut [0; 1024]) {
                let _ = stream.write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
                );
            }
        }
    });
    port
}

/// Ports that nobody has right now, each another.
fn free_ports<const N: usize>() -> [u16; N] {
    let listener = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    let listeners: [TcpListener; N] = std::array::from_fn(|_| listener());
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

//! Whoever reads castoff's log badly, late or not at all holds nothing up: not
//! the signals, the orphans, the endpoints, the hooks, the deadline or the exit
//! code. What is missing is counted, and told of as soon as the reader returns.
//!
//! The descriptors are the child's too: nothing may make them non-blocking.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use crate::support::lines::Lines;
use crate::support::terminal;
use crate::support::{
    Castoff, Ended, Place, Running, Scratch, example, in_both_places, probe, process, wait_until,
};

/// An end to write to that has no room, and the one to read from.
struct Unread {
    name: &'static str,
    /// Of the same open file description as castoff's and the child's.
    writer: OwnedFd,
    reader: File,
    /// What makes the reader read again, where it does not begin by itself.
    key: &'static [u8],
}

const CONTINUE: &[u8] = b"\x11";
const STOP: &[u8] = b"\x13";

impl Unread {
    fn full(name: &'static str, writer: impl Into<OwnedFd>, reader: impl Into<OwnedFd>) -> Self {
        let (writer, reader) = (writer.into(), File::from(reader.into()));
        let unread = Self { name, writer, reader, key: b"" };
        let mut filler = File::from(unread.writer.try_clone().expect("a descriptor"));
        set_flags(&filler, |flags| flags | OFlag::O_NONBLOCK);
        // What is written to a terminal moves on by itself, up to a point.
        while unread.is_writable(50) {
            // Whole lines, and no room left for a shorter one.
            while filler.write(b"\n").is_ok() {}
        }
        set_flags(&filler, |flags| flags - OFlag::O_NONBLOCK);
        unread
    }

    fn pipe() -> Self {
        let (reader, writer) = io::pipe().expect("a pipe");
        Self::full("a pipe", writer, reader)
    }

    fn all() -> Vec<Self> {
        let scratch = Scratch::new();
        let (fifo_reader, fifo_writer) = fifo(&scratch.path("fifo"));
        let (stream_reader, stream_writer) = UnixStream::pair().expect("sockets");
        let (messages_reader, messages_writer) = UnixDatagram::pair().expect("sockets");
        let (master, slave) = terminal::ends();
        vec![
            Self::pipe(),
            Self::full("a FIFO", fifo_writer, fifo_reader),
            Self::full("a stream socket", stream_writer, stream_reader),
            Self::full("a datagram socket", messages_writer, messages_reader),
            Self::full("a terminal", slave, master),
            Self::stopped(),
        ]
    }

    /// A terminal at which somebody has typed ^S.
    fn stopped() -> Self {
        let (master, slave) = terminal::ends();
        let (name, reader) = ("a stopped terminal", master);
        (&reader).write_all(STOP).expect("the key");
        let unread = Self { name, writer: slave, reader, key: CONTINUE };
        wait_until("it has stopped", || (!unread.is_writable(0)).then_some(()));
        unread
    }

    fn is_writable(&self, patience: u8) -> bool {
        let mut polled = [PollFd::new(self.writer.as_fd(), PollFlags::POLLOUT)];
        poll(&mut polled, PollTimeout::from(patience)) != Ok(0)
    }

    fn stdio(&self) -> Stdio {
        self.writer.try_clone().expect("a descriptor").into()
    }

    #[track_caller]
    fn assert_blocks(&self) {
        let flags = fcntl(&self.writer, FcntlArg::F_GETFL).expect("flags");
        let flags = OFlag::from_bits_retain(flags);
        assert!(!flags.contains(OFlag::O_NONBLOCK), "{} was made non-blocking", self.name);
    }

    /// The reader comes back.
    fn read(&self) -> Lines {
        (&self.reader).write_all(self.key).expect("the key");
        Lines::of("the log", self.reader.try_clone().expect("a descriptor"))
    }
}

fn set_flags(fd: impl AsFd, change: impl FnOnce(OFlag) -> OFlag) {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL).expect("flags"));
    fcntl(&fd, FcntlArg::F_SETFL(change(flags))).expect("flags");
}

/// Both ends of a new FIFO.
fn fifo(path: &str) -> (File, File) {
    mkfifo(path, Mode::from_bits_truncate(0o600)).expect("a FIFO");
    let reader = fifo_reader(path);
    (reader, File::options().write(true).open(path).expect("its writer"))
}

fn fifo_reader(path: &str) -> File {
    let mut options = File::options();
    // Without that it would wait for a writer.
    let reader = options.read(true).custom_flags(libc::O_NONBLOCK).open(path).expect("its reader");
    set_flags(&reader, |flags| flags - OFlag::O_NONBLOCK);
    reader
}

/// castoff with both its standard output and its log there.
fn castoff_on(unread: &Unread, place: Place) -> Castoff {
    unread.assert_blocks();
    Castoff::new(place).args(["-w"]).with(|command| {
        command.stdout(unread.stdio()).stderr(unread.stdio());
    })
}

/// Where its endpoints are, though the log does not say.
#[track_caller]
fn address(castoff: &Running) -> SocketAddr {
    wait_until("castoff listens", || {
        let port = *process::listening_ports(castoff.pid).first()?;
        Some((std::net::Ipv4Addr::LOCALHOST, port).into())
    })
}

#[track_caller]
fn dropped(address: SocketAddr) -> u64 {
    let page = probe::get(address, "/metrics").body;
    let count = page.lines().find_map(|line| line.strip_prefix("castoff_log_dropped_total "));
    count.expect("a metric").parse().expect("a number")
}

/// How many lines are missing by what the log says.
fn told(lines: &[String]) -> u64 {
    lines
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["event"] == "log_dropped")
        .map(|line| {
            assert_eq!(
                (&line["level"], &line["msg"]),
                (&"WARN".into(), &"log lines dropped".into())
            );
            line["count"].as_u64().expect("a number")
        })
        .sum()
}

#[track_caller]
fn wait_for_word(path: &str, word: &str) {
    wait_until(word, || fs::read_to_string(path).ok()?.lines().any(|l| l == word).then_some(()));
}

in_both_places! {
    fn a_log_that_nobody_reads_holds_nothing_up(place) {
        for unread in Unread::all() {
            let name = unread.name;
            let scratch = Scratch::new();
            let record = scratch.path("record");
            let mut castoff = castoff_on(&unread, place)
                .env("CASTOFF_GRACE_PERIOD", "10m")
                .env("CASTOFF_PRE_STOP", format!("touch {}", scratch.path("pre-stop")))
                .env("CASTOFF_POST_STOP", format!("touch {}", scratch.path("post-stop")))
                // Each of the orphans is worth a line, for which there is no room.
                .script(&format!(
                    "exec 3>>{record}; trap 'echo told >&3' USR1; trap 'exit 7' TERM; i=0; \
                     while [ $i -lt 20 ]; do (sleep 0 &); i=$((i+1)); done; \
                     echo ready >&3; while :; do sleep 0.01; done"
                ))
                .start();
            wait_for_word(&record, "ready");
            wait_until("no zombie is left", || {
                (process::children(castoff.pid).len() == 1).then_some(())
            });
            castoff.signal(libc::SIGUSR1);
            wait_for_word(&record, "told");
            let address = address(&castoff);
            assert_eq!(probe::get(address, "/readyz").body, "ok", "{name}");
            // castoff_started, limits_detected, child_started, one phase, 20
            // orphans and one line of the signal's, of which one may be begun.
            wait_until("lines are counted as dropped", || (dropped(address) >= 24).then_some(()));
            unread.assert_blocks();

            // The reader comes back, and nothing else happens.
            let log = unread.read();
            log.wait_for_event("log_dropped");
            wait_until("the log tells of all", || {
                (told(&log.so_far()) == dropped(address)).then_some(())
            });
            unread.assert_blocks();
            castoff.signal(libc::SIGTERM);
            assert_eq!(castoff.wait(), Ended::Code(7), "{name}");
            assert!(fs::exists(scratch.path("pre-stop")).is_ok_and(|exists| exists), "{name}");
            assert!(fs::exists(scratch.path("post-stop")).is_ok_and(|exists| exists), "{name}");
            let exiting = log.wait_for_event("exiting");
            assert_eq!(exiting["exit_code"], 7, "{name}");
            unread.assert_blocks();
        }
    }

    fn a_stop_is_as_fast_and_the_deadline_as_true_without_a_reader(place) {
        for unread in Unread::all() {
            for (trap, code) in [("exit 3", 3), ("", 137)] {
                let scratch = Scratch::new();
                let record = scratch.path("record");
                let mut castoff = castoff_on(&unread, place)
                    .env("CASTOFF_GRACE_PERIOD", "10m")
                    .env("CASTOFF_KILL_RESERVE", "599700ms")
                    .script(&format!(
                        "trap '{trap}' TERM; echo ready >>{record}; while :; do sleep 0.01; done"
                    ))
                    .start();
                wait_for_word(&record, "ready");
                let begun = Instant::now();
                castoff.signal(libc::SIGTERM);
                assert_eq!(castoff.wait(), Ended::Code(code), "{}", unread.name);
                let is_late = begun.elapsed() >= Duration::from_millis(300);
                assert!(is_late || code == 3, "{}: {:?}", unread.name, begun.elapsed());
                unread.assert_blocks();
            }
        }
    }

    fn a_start_that_fails_does_not_wait_for_the_reader(place) {
        let unread = Unread::pipe();
        let mut castoff = castoff_on(&unread, place).child::<&str>("no-such-program", []).run();
        assert_eq!(castoff.wait(), Ended::Code(127));
        let castoff = castoff_on(&unread, place).env("CASTOFF_WORKDIR", "/no/such/directory");
        assert_eq!(castoff.script("exit 0").run().wait(), Ended::Code(125));
    }

    fn a_reader_that_crawls_gets_whole_lines_and_the_number_of_those_missing(place) {
        const SIGNALS: usize = 1000;
        let (reader, writer) = io::pipe().expect("a pipe");
        let mut castoff = Castoff::new(place)
            .with(|command| {
                command.stderr(writer);
            })
            .child::<&str>(&example("print_signals"), [])
            .start();
        castoff.stdout().wait_for_line("ready");
        let address = address(&castoff);
        let log = Lines::of("the log", Crawl(reader));
        log.wait_for("serving", |line| line.contains("\"to\":\"serving\"").then_some(()));
        // Each is queued, and so worth two lines, while castoff is in the middle
        // of others.
        for _ in 0..SIGNALS {
            castoff.signal(libc::SIGRTMIN() + 3);
        }
        let number = format!("{} ", libc::SIGRTMIN() + 3);
        wait_until("the child has them", || {
            let all = castoff.stdout().so_far();
            (all.iter().filter(|line| line.starts_with(&number)).count() == SIGNALS).then_some(())
        });
        let missing = dropped(address);
        assert!(missing > 0, "the reader was fast enough");
        wait_until("the log tells of all", || (told(&log.so_far()) == missing).then_some(()));
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
        let lines = log.all();
        let events: Vec<Value> = lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect();
        let of_signals = |event: &&Value| {
            event["signal"].as_str().is_some_and(|name| name.starts_with("SIGRT"))
                && (event["event"] == "signal_received" || event["event"] == "signal_forwarded")
        };
        let arrived = events.iter().filter(of_signals).count();
        assert_eq!(arrived as u64 + missing, 2 * SIGNALS as u64);
    }

    fn a_reader_that_another_one_follows_is_told_what_it_missed(place) {
        let scratch = Scratch::new();
        let path = scratch.path("fifo");
        let (reader, writer) = fifo(&path);
        let mut castoff = Castoff::new(place)
            .with(|command| {
                command.stderr(writer);
            })
            .child::<&str>(&example("print_signals"), [])
            .start();
        castoff.stdout().wait_for_line("ready");
        drop(reader);
        let address = address(&castoff);
        // Whatever another test forks meanwhile has the reader too, until its exec.
        wait_until("lines are counted as dropped", || {
            castoff.signal(libc::SIGUSR1);
            (dropped(address) >= 2).then_some(())
        });
        let log = Lines::of("the log", fifo_reader(&path));
        wait_until("the log tells of all", || {
            (told(&log.so_far()) == dropped(address)).then_some(())
        });
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.wait(), Ended::Code(0));
    }

    fn a_standard_error_that_takes_nothing_is_no_reason_to_end(place) {
        let scratch = Scratch::new();
        for (name, stderr) in [
            ("/dev/full", Stdio::from(File::options().write(true).open("/dev/full").expect("it"))),
            ("a pipe whose reader has gone", pipe_without_reader()),
            ("a socket whose reader has gone", UnixStream::pair().map(|(_, it)| OwnedFd::from(it)).expect("sockets").into()),
            ("a terminal that was hung up", hung_up_terminal()),
            ("read only", Stdio::from(File::open(scratch.file("x", "")).expect("a file"))),
        ] {
            // The child tells that it was asked; a SIGPIPE of castoff's own
            // would end it, or be forwarded.
            let mut castoff = Castoff::new(place)
                .with(|command| {
                    command.stderr(stderr);
                })
                .child::<&str>(&example("print_signals"), [])
                .start();
            castoff.stdout().wait_for_line("ready");
            castoff.signal(libc::SIGUSR1);
            castoff.stdout().wait_for_line("10 ");
            let address = address(&castoff);
            wait_until("lines are counted as dropped", || (dropped(address) >= 6).then_some(()));
            castoff.signal(libc::SIGTERM);
            assert_eq!(castoff.wait(), Ended::Code(0), "{name}");
            let told = castoff.stdout().all().iter().filter(|line| line.starts_with("13 ")).count();
            assert_eq!(told, 0, "{name}: the child got castoff's SIGPIPE");
        }
    }

    fn a_closed_standard_error_stays_closed(place) {
        let mut castoff = Castoff::new(place)
            .env("CASTOFF_LOG_LEVEL", "trace")
            .with(close_stderr)
            .script("[ -e /proc/self/fd/2 ] && exit 5; echo told >&2 || exit 6")
            .run();
        assert_eq!(castoff.wait(), Ended::Code(6));
    }
}

/// Descriptor 2 is closed when castoff is executed.
#[expect(unsafe_code, reason = "a descriptor by its number")]
fn close_stderr(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec there is one thread; the flag makes the
    // exec close it, so that std may still use it until then.
    unsafe {
        command.pre_exec(|| match libc::fcntl(2, libc::F_SETFD, libc::FD_CLOEXEC) {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
}

fn hung_up_terminal() -> Stdio {
    let (master, slave) = terminal::ends();
    drop(master);
    slave.into()
}

fn pipe_without_reader() -> Stdio {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

/// Reads a little at a time.
struct Crawl(io::PipeReader);

impl io::Read for Crawl {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        std::thread::park_timeout(Duration::from_micros(500));
        let some = bytes.len().min(100);
        self.0.read(&mut bytes[..some])
    }
}

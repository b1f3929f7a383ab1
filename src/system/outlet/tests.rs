//! Every way of writing against readers that are slow, gone, or come back.

mod room;

use std::fs::File;
use std::io::{Read, pipe};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::pty::{OpenptyResult, openpty};

use super::*;

/// Runs what must not wait for a reader that never comes.
pub(crate) fn in_time(act: impl FnOnce() + Send + 'static) {
    let (done, is_done) = channel();
    let thread = thread::spawn(move || {
        act();
        let _ = done.send(());
    });
    match is_done.recv_timeout(Duration::from_secs(10)) {
        Ok(()) | Err(RecvTimeoutError::Disconnected) => thread.join().unwrap(),
        Err(RecvTimeoutError::Timeout) => panic!("a write waits for its reader"),
    }
}

/// Everything that can be read from it now.
pub(crate) fn drain(reader: &mut (impl Read + AsFd)) -> Vec<u8> {
    let flags = OFlag::from_bits_retain(fcntl(&reader, FcntlArg::F_GETFL).unwrap());
    fcntl(&reader, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
    let mut bytes = Vec::new();
    let end = reader.read_to_end(&mut bytes);
    assert!(end.is_err_and(|err| err.kind() == io::ErrorKind::WouldBlock));
    fcntl(&reader, FcntlArg::F_SETFL(flags)).unwrap();
    bytes
}

/// Lines of rising number and changing length, so that a torn or a doubled
/// one is seen.
fn line(number: usize) -> Vec<u8> {
    format!("{number:06} {}\n", "x".repeat(number * 37 % 900)).into_bytes()
}

/// Writes until there is no room, reads everything, and once more: each
/// line that was taken arrives, whole and in order, and no other does.
fn fills_up_and_recovers<F: AsFd>(outlet: &mut Outlet<F>, reader: &mut (impl Read + AsFd)) {
    let mut taken = Vec::new();
    let mut arrived = Vec::new();
    let mut number = 0;
    for _ in 0..3 {
        // A short line may fit where a long one did not: go on a little.
        let mut refused = 0;
        while refused < 20 {
            number += 1;
            match outlet.write_line(&line(number)) {
                Ok(()) => taken.extend(line(number)),
                Err(err) => {
                    assert_eq!(err.kind(), io::ErrorKind::WouldBlock);
                    refused += 1;
                }
            }
        }
        arrived.extend(drain(reader));
    }
    number += 1;
    outlet.write_line(&line(number)).unwrap();
    taken.extend(line(number));
    arrived.extend(drain(reader));
    arrived.retain(|byte| *byte != b'\r'); // a terminal adds them
    assert!(arrived == taken, "{} bytes of {}", arrived.len(), taken.len());
}

fn terminal() -> (File, OwnedFd) {
    let OpenptyResult { master, slave } = openpty(None, None).unwrap();
    (master.into(), slave)
}

fn is_nonblocking(fd: impl AsFd) -> bool {
    let flags = fcntl(fd, FcntlArg::F_GETFL).unwrap();
    OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK)
}

#[test]
fn a_full_pipe_delays_nothing() {
    in_time(|| {
        let (mut reader, writer) = pipe().unwrap();
        let mut outlet = Outlet::new(&writer);
        assert!(matches!(outlet.way, Way::NoWait));
        fills_up_and_recovers(&mut outlet, &mut reader);
        assert!(!is_nonblocking(&writer));
    });
}

#[test]
fn a_full_pipe_of_an_older_kernel_delays_nothing() {
    in_time(|| {
        let (mut reader, writer) = pipe().unwrap();
        let mut outlet = Outlet::new(&writer);
        outlet.way = reopened_or_polled(writer.as_fd(), true);
        assert!(matches!(outlet.way, Way::Reopened(_)));
        fills_up_and_recovers(&mut outlet, &mut reader);
        assert!(!is_nonblocking(&writer));
    });
}

#[test]
fn a_full_pipe_of_another_user_delays_nothing() {
    in_time(|| {
        let (mut reader, writer) = pipe().unwrap();
        let mut outlet = Outlet::new(&writer);
        outlet.way = Way::Polled { is_pipe: true };
        fills_up_and_recovers(&mut outlet, &mut reader);
    });
}

#[test]
fn a_full_socket_delays_nothing() {
    in_time(|| {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let mut outlet = Outlet::new(&writer);
        assert!(matches!(outlet.way, Way::Send { is_stream: true }));
        fills_up_and_recovers(&mut outlet, &mut reader);
        assert!(!is_nonblocking(&writer));
    });
}

#[test]
fn a_terminal_that_nobody_reads_delays_nothing() {
    in_time(|| {
        let (mut reader, slave) = terminal();
        let mut outlet = Outlet::new(&slave);
        assert!(matches!(outlet.way, Way::Reopened(_)));
        fills_up_and_recovers(&mut outlet, &mut reader);
        assert!(!is_nonblocking(&slave));
    });
}

#[test]
fn a_terminal_of_another_user_delays_nothing() {
    in_time(|| {
        let (mut reader, slave) = terminal();
        let mut outlet = Outlet::new(&slave);
        outlet.way = Way::Polled { is_pipe: false };
        fills_up_and_recovers(&mut outlet, &mut reader);
    });
}

#[test]
fn a_way_that_the_kernel_refuses_is_replaced() {
    // Files of /proc know no RWF_NOWAIT, as pipes did not before Linux 6.4.
    let file = File::options().write(true).open("/proc/thread-self/comm").unwrap();
    let mut outlet = Outlet::new(file);
    outlet.way = Way::NoWait;
    outlet.write_line(b"castoff-log\n").unwrap();
    assert!(matches!(outlet.way, Way::Reopened(_)));
}

#[test]
fn lines_are_appended_to_a_file() {
    let path = std::env::temp_dir().join(format!("castoff-outlet-{}", std::process::id()));
    let file = File::create(&path).unwrap();
    let mut outlet = Outlet::new(&file);
    outlet.write_line(b"one\n").unwrap();
    io::Write::write_all(&mut &file, b"the child's\n").unwrap();
    outlet.write_line(b"two\n").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"one\nthe child's\ntwo\n");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_reader_that_has_gone_is_an_error_and_no_more() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    for way in [Way::NoWait, Way::Polled { is_pipe: true }] {
        let mut outlet = Outlet::new(&writer);
        outlet.way = way;
        let lost = outlet.write_line(b"lost\n");
        assert_eq!(lost.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}

#[test]
fn a_closed_descriptor_takes_nothing() {
    let place_holder = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
    let lost = Outlet::new(place_holder).write_line(b"lost\n");
    assert_eq!(lost.unwrap_err().raw_os_error(), Some(libc::EBADF));
}

#[test]
fn the_same_place_is_known_whatever_the_descriptor() {
    let (_reader, writer) = pipe().unwrap();
    let (_other_reader, other) = pipe().unwrap();
    let outlet = Outlet::new(&writer);
    assert!(outlet.is_same_file(writer.try_clone().unwrap()));
    assert!(!outlet.is_same_file(&other));
    let (_master, slave) = terminal();
    let path = format!("/proc/self/fd/{}", slave.as_raw_fd());
    let again = File::options().write(true).open(path).unwrap();
    assert!(Outlet::new(&slave).is_same_file(&again));
    assert!(!Outlet::new(&slave).is_same_file(terminal().1));
}

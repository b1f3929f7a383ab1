//! Batches of lines, and the wait for room, with every kind of reader.

use std::future::Future;
use std::io::{ErrorKind, Read, Write, pipe};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::super::*;
use super::{in_time, is_nonblocking, terminal};

/// As much as a relay writes at once, and somewhat more than the longest line.
const BATCH: usize = 80 * 1024;
const LONGEST: usize = 16 * 1024;

/// Polls it once, so that it waits.
async fn is_ready<T>(mut future: std::pin::Pin<&mut impl Future<Output = T>>) -> bool {
    std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_ready())).await
}

fn within<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(10), future).await })
        .expect("nobody tells that there is room")
}

/// Numbered lines of all lengths up to the longest, short ones mostly.
fn lines(total: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(total + LONGEST);
    for number in 0_usize.. {
        if text.len() >= total {
            break;
        }
        let length =
            if number.is_multiple_of(9) { number * 997 % (LONGEST - 8) } else { number * 37 % 300 };
        text.extend_from_slice(format!("{number:06} {}\n", "x".repeat(length)).as_bytes());
    }
    text
}

/// Reads to the end in uneven pieces, once it is told to begin, and sleeps now
/// and then.
fn slow_reader(
    mut reader: impl Read + Send + 'static,
    total: usize,
    begin: Receiver<()>,
) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        begin.recv().unwrap();
        let (mut all, mut piece) = (Vec::new(), vec![0; 9000]);
        for turn in 0_usize.. {
            if turn.is_multiple_of(50) {
                thread::park_timeout(Duration::from_millis(1));
            }
            let wanted = 1 + turn * 997 % (piece.len() - 1);
            match reader.read(&mut piece[..wanted]) {
                Ok(count @ 1..) => all.extend(piece[..count].iter().filter(|byte| **byte != b'\r')),
                // A terminal whose other end is closed.
                Ok(0) | Err(_) => break,
            }
            if all.len() >= total {
                break;
            }
        }
        all
    })
}

/// Writes all of it in batches, waiting for room whenever there is none; has the
/// reader begin when that happens.
async fn write_all<F: AsFd>(outlet: &mut Outlet<F>, text: &[u8], reader: &Sender<()>) {
    let mut written = 0;
    let mut waits = 0;
    while written < text.len() {
        let batch = &text[written..text.len().min(written + BATCH)];
        // A relay has whole lines only.
        let end = batch.iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        match outlet.write_lines(&batch[..end]) {
            Ok(taken) => {
                assert!(taken > 0 && batch[taken - 1] == b'\n', "{taken}");
                written += taken;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                waits += 1;
                let _ = reader.send(());
                outlet.room().await;
            }
        }
    }
    while outlet.has_begun_line() {
        outlet.room().await;
        let _ = outlet.finish_line();
    }
    assert!(waits > 0, "there was always room");
}

fn arrives<F: AsFd>(mut outlet: Outlet<F>, reader: impl Read + Send + 'static, total: usize) {
    let text = lines(total);
    let (begin, begun) = channel();
    let reader = slow_reader(reader, text.len(), begun);
    within(write_all(&mut outlet, &text, &begin));
    let arrived = reader.join().unwrap();
    assert!(arrived == text, "{} bytes of {}", arrived.len(), text.len());
}

#[test]
fn batches_arrive_through_a_pipe() {
    in_time(|| {
        let (reader, writer) = pipe().unwrap();
        arrives(Outlet::new(&writer), reader, 4 << 20);
        assert!(!is_nonblocking(&writer));
    });
}

#[test]
fn batches_arrive_through_a_pipe_of_an_older_kernel_and_of_another_user() {
    in_time(|| {
        let (reader, writer) = pipe().unwrap();
        let mut outlet = Outlet::new(&writer);
        outlet.way = reopened_or_polled(writer.as_fd(), true);
        arrives(outlet, reader, 4 << 20);
        let (reader, writer) = pipe().unwrap();
        let mut outlet = Outlet::new(&writer);
        outlet.way = Way::Polled { is_pipe: true };
        arrives(outlet, reader, 4 << 20);
        assert!(!is_nonblocking(&writer));
    });
}

#[test]
fn batches_arrive_through_a_socket() {
    in_time(|| {
        let (reader, writer) = UnixStream::pair().unwrap();
        arrives(Outlet::new(&writer), reader, 4 << 20);
        assert!(!is_nonblocking(&writer));
    });
}

#[test]
fn batches_arrive_through_a_terminal() {
    in_time(|| {
        let (reader, slave) = terminal();
        arrives(Outlet::new(&slave), reader, 300_000);
        assert!(!is_nonblocking(&slave));
        let (reader, slave) = terminal();
        let mut outlet = Outlet::new(&slave);
        outlet.way = Way::Polled { is_pipe: false };
        arrives(outlet, reader, 300_000);
    });
}

#[test]
fn each_line_is_a_message_where_there_are_messages() {
    fn messages_arrive(writer: UnixDatagram, reader: UnixDatagram) {
        let text = lines(600_000);
        let messages: Vec<_> =
            text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let count = messages.len();
        let (begin, begun) = channel();
        let reader = thread::spawn(move || {
            begun.recv().unwrap();
            let mut piece = vec![0; LONGEST + 1];
            let read = |_| reader.recv(&mut piece).map(|count| piece[..count].to_vec()).unwrap();
            (0..count).map(read).collect::<Vec<_>>()
        });
        within(write_all(&mut Outlet::new(&writer), &text, &begin));
        assert!(reader.join().unwrap() == messages);
        assert!(!is_nonblocking(&writer));
    }
    in_time(|| {
        let (reader, writer) = UnixDatagram::pair().unwrap();
        messages_arrive(writer, reader);
        // Here the reader's queue is what is full, not the writer's buffer.
        let path = std::env::temp_dir().join(format!("castoff-messages-{}", std::process::id()));
        let reader = UnixDatagram::bind(&path).unwrap();
        let writer = UnixDatagram::unbound().unwrap();
        writer.connect(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        messages_arrive(writer, reader);
    });
}

#[test]
fn room_is_told_although_another_writer_takes_most_of_it() {
    const COUNT: usize = 2000;
    in_time(|| {
        let (reader, writer) = pipe().unwrap();
        let mut shared = writer.try_clone().unwrap();
        let theirs = "t".repeat(998) + "\n";
        let total = COUNT * theirs.len() * 2;
        let (begin, begun) = channel();
        let reader = slow_reader(reader, total, begun);
        begin.send(()).unwrap();
        let thread = thread::spawn(move || {
            for _ in 0..COUNT {
                shared.write_all(theirs.as_bytes()).unwrap();
            }
        });
        let mut outlet = Outlet::new(&writer);
        let own = "o".repeat(998) + "\n";
        within(async {
            for _ in 0..COUNT {
                while let Err(error) = outlet.write_line(own.as_bytes()) {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    outlet.room().await;
                }
            }
        });
        thread.join().unwrap();
        let arrived = String::from_utf8(reader.join().unwrap()).unwrap();
        let mut lines: Vec<_> = arrived.lines().collect();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines, [own.trim_end(), "t".repeat(998).as_str()]);
        assert_eq!(arrived.len(), total);
    });
}

/// Until there is no room and none comes: what is written to a terminal moves on
/// by itself, up to a point.
async fn fill<F: AsFd>(outlet: &mut Outlet<F>) {
    loop {
        while outlet.write_line(b"filled by the test\n").is_ok() {}
        let room = tokio::time::timeout(Duration::from_millis(50), outlet.room()).await;
        if room.is_err() {
            return;
        }
    }
}

#[test]
fn the_end_of_the_reader_wakes_whoever_waits() {
    fn wakes<F: AsFd>(mut outlet: Outlet<F>, reader: impl Send + 'static, errno: i32) {
        within(async {
            fill(&mut outlet).await;
            let mut room = std::pin::pin!(outlet.room());
            assert!(!is_ready(room.as_mut()).await);
            thread::spawn(move || drop(reader));
            room.await;
        });
        // The first may be for the end of a line that was begun.
        let lost = outlet.write_lines(b"lost\n");
        assert_eq!(lost.unwrap_err().raw_os_error(), Some(errno));
    }
    in_time(|| {
        let (reader, writer) = pipe().unwrap();
        wakes(Outlet::new(writer), reader, libc::EPIPE);
        let (reader, writer) = pipe().unwrap();
        let mut outlet = Outlet::new(&writer);
        outlet.way = reopened_or_polled(writer.as_fd(), true);
        wakes(outlet, reader, libc::EPIPE);
        let (reader, writer) = UnixStream::pair().unwrap();
        wakes(Outlet::new(writer), reader, libc::EPIPE);
        let (reader, writer) = UnixDatagram::pair().unwrap();
        wakes(Outlet::new(writer), reader, libc::ECONNREFUSED);
        let (reader, slave) = terminal();
        wakes(Outlet::new(slave), reader, libc::EIO);
    });
}

#[test]
fn a_terminal_that_was_stopped_and_is_continued_has_room() {
    use nix::sys::termios::{FlowArg, tcflow};
    in_time(|| {
        let (mut reader, slave) = terminal();
        let mut outlet = Outlet::new(&slave);
        tcflow(&slave, FlowArg::TCOOFF).unwrap(); // as ^S
        within(async {
            fill(&mut outlet).await;
            let mut room = std::pin::pin!(outlet.room());
            assert!(!is_ready(room.as_mut()).await);
            tcflow(&slave, FlowArg::TCOON).unwrap();
            room.await;
        });
        outlet.write_line(b"again\n").unwrap();
        let mut line = [0; 7];
        reader.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"again\r\n");
    });
}

#[test]
fn several_may_wait_for_the_same_room() {
    in_time(|| {
        let (mut reader, writer) = pipe().unwrap();
        let mut outlet = Outlet::new(&writer);
        within(async {
            fill(&mut outlet).await;
            let both = async { tokio::join!(outlet.room(), outlet.opening().wait()) };
            let mut both = std::pin::pin!(both);
            assert!(!is_ready(both.as_mut()).await);
            super::drain(&mut reader);
            both.await;
        });
    });
}

#[test]
fn there_is_room_until_a_write_says_otherwise() {
    let (_reader, writer) = pipe().unwrap();
    let mut outlet = Outlet::new(&writer);
    within(outlet.room());
    outlet.write_line(b"line\n").unwrap();
    within(outlet.room());
}

/// Where nothing can tell of room, the clock does, and not too often.
#[tokio::test(start_paused = true)]
async fn what_only_fails_is_tried_again_ever_more_seldom() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let (reader, pipe) = pipe().unwrap();
    drop(reader);
    for fd in [OwnedFd::from(full), OwnedFd::from(pipe)] {
        let mut outlet = Outlet::new(fd);
        assert!(outlet.write_line(b"lost\n").is_err());
        for (failing, pause) in [(0, 1), (20, 20), (24 * 3600, 60)] {
            // By the clock that jumps.
            let now = tokio::time::Instant::now();
            let begun_at = now.into_std().checked_sub(Duration::from_secs(failing)).unwrap();
            let last_at = now.into_std();
            outlet.stall = Some(Stall { begun_at, last_at, ..outlet.stall.unwrap() });
            outlet.room().await;
            assert_eq!(now.elapsed().as_secs(), pause);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_descriptor_never_has_room() {
    let place_holder = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
    let mut outlet = Outlet::new(place_holder);
    assert!(outlet.write_line(b"lost\n").is_err());
    let waited = tokio::time::timeout(Duration::from_secs(3600), outlet.room()).await;
    assert!(waited.is_err());
}

#[test]
fn the_end_of_a_line_is_not_for_the_reader_after_the_one_who_has_its_beginning() {
    let (reader, writer) = pipe().unwrap();
    let mut outlet = Outlet::new(&writer);
    outlet.rest = b"end of a line\n".to_vec();
    drop(reader);
    assert_eq!(outlet.finish_line().unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert!(!outlet.has_begun_line());
}

//! Real pipes and real hooks; each test waits for its own processes only.

use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use proptest::prelude::*;
use tokio::runtime::Builder;

use super::*;
use crate::system::child::Stdio;
use crate::system::child::tests::spawn_script;

fn in_runtime<T>(test: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let limit = Duration::from_secs(60);
    runtime.block_on(async { tokio::time::timeout(limit, test).await }).unwrap()
}

/// A pipe of which a test writes the other end.
fn pipe_of_ours() -> (Output, File) {
    let (output, write_end) = pipe().unwrap();
    (output, write_end.into())
}

/// A hook that runs this script.
fn hook(script: &str) -> (Output, Pid) {
    let (output, write_end) = pipe().unwrap();
    let input = no_input().unwrap();
    let stdio = Stdio::apart(input.as_fd(), write_end.as_fd());
    (output, spawn_script(script, stdio))
}

fn assert_succeeds(pid: Pid) {
    assert_eq!(waitpid(pid, None), Ok(WaitStatus::Exited(pid, 0)));
}

async fn until_end(output: &mut Output) -> Vec<String> {
    let mut lines = Vec::new();
    while output.next(&mut lines).await {}
    lines
}

#[test]
fn both_streams_are_read_to_their_end() {
    in_runtime(async {
        let (mut output, pid) = hook("echo one; echo two >&2; printf three");
        assert_eq!(until_end(&mut output).await, ["one", "two", "three"]);
        assert_succeeds(pid);
    });
}

#[test]
fn the_input_of_a_hook_has_ended() {
    in_runtime(async {
        let (mut output, pid) = hook("if read line; then echo $line; else echo end; fi");
        assert_eq!(until_end(&mut output).await, ["end"]);
        assert_succeeds(pid);
    });
}

#[test]
fn only_castoffs_end_does_not_block_and_neither_outlives_an_exec() {
    in_runtime(async {
        let (output, write_end) = pipe().unwrap();
        let is_nonblocking = |fd: &dyn AsFd| {
            let flags = fcntl(fd.as_fd(), FcntlArg::F_GETFL).unwrap();
            OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK)
        };
        assert!(is_nonblocking(&output.pipe) && !is_nonblocking(&write_end));
        for fd in [output.pipe.as_fd(), write_end.as_fd(), no_input().unwrap().as_fd()] {
            let flags = fcntl(fd, FcntlArg::F_GETFD).unwrap();
            assert_eq!(FdFlag::from_bits_retain(flags), FdFlag::FD_CLOEXEC);
        }
    });
}

#[test]
fn the_rest_is_there_at_once_though_a_descendant_holds_the_pipe_open() {
    in_runtime(async {
        // The reader has seen nothing yet when the hook ends.
        let (mut output, pid) = hook("sleep 60 & echo $!; printf unfinished");
        assert_succeeds(pid);
        let begun = Instant::now();
        let mut lines = Vec::new();
        output.rest(&mut lines);
        assert!(begun.elapsed() < Duration::from_secs(5));
        let [sleeper, last] = lines.try_into().unwrap();
        assert_eq!(last, "unfinished");

        let is_over = async {
            tokio::time::timeout(Duration::from_millis(50), output.next(&mut Vec::new())).await
        };
        assert!(is_over.await.is_err(), "the stream ended");
        kill(Pid::from_raw(sleeper.parse().unwrap()), Signal::SIGKILL).unwrap();
        assert_eq!(until_end(&mut output).await, [""; 0]);
    });
}

#[test]
fn the_rest_is_no_more_than_a_pipe_full() {
    in_runtime(async {
        let (mut output, pid) = hook("exec yes");
        let mut lines = Vec::new();
        assert!(output.next(&mut lines).await);
        lines.clear();
        output.rest(&mut lines);
        assert!(lines.len() <= (inlet::CAPACITY + CHUNK) / 2, "{}", lines.len());
        kill(pid, Signal::SIGKILL).unwrap();
        waitpid(pid, None).unwrap();
    });
}

#[test]
fn a_turn_takes_a_chunk_and_others_run_in_between() {
    in_runtime(async {
        let (mut output, pid) = hook("exec yes");
        let mut turns = 0;
        let others = async {
            loop {
                turns += 1;
                tokio::task::yield_now().await;
            }
        };
        let reads = async {
            for _ in 0..100 {
                let mut lines = Vec::new();
                assert!(output.next(&mut lines).await);
                assert!(lines.len() <= CHUNK / 2 + 1, "{}", lines.len());
            }
        };
        tokio::select! {
            biased;
            () = reads => {}
            () = others => {}
        }
        assert!(turns >= 100, "{turns}");
        kill(pid, Signal::SIGKILL).unwrap();
        waitpid(pid, None).unwrap();
    });
}

#[test]
fn ten_megabytes_without_a_line_feed_come_in_pieces_and_whole() {
    in_runtime(async {
        let (mut output, pid) = hook("head -c 10000000 /dev/zero | tr '\\0' x");
        let mut total = 0;
        let mut lines = Vec::new();
        loop {
            let goes_on = output.next(&mut lines).await;
            assert!(lines.len() <= CHUNK / LINE_WEIGHT + 1, "{}", lines.len());
            assert!(output.lines.line.capacity() <= 4 * LINE_WEIGHT);
            for line in lines.drain(..) {
                assert!(line.len() <= LINE_WEIGHT && line.bytes().all(|byte| byte == b'x'));
                total += line.len();
            }
            if !goes_on {
                break;
            }
        }
        assert_eq!(total, 10_000_000);
        assert_succeeds(pid);
    });
}

#[test]
fn what_is_written_in_parts_is_joined() {
    in_runtime(async {
        let (mut output, mut write_end) = pipe_of_ours();
        let mut lines = Vec::new();
        for part in [&b"ne"[..], b"ver \xe2\x82", b"\xac mind\r", b"\nnext"] {
            write_end.write_all(part).unwrap();
            assert!(output.next(&mut lines).await);
        }
        assert_eq!(lines, ["never € mind"]);
        drop(write_end);
        assert!(!output.next(&mut lines).await);
        assert_eq!(lines, ["never € mind", "next"]);
    });
}

#[test]
fn nothing_is_lost_when_the_wait_is_given_up() {
    in_runtime(async {
        let (mut output, mut write_end) = pipe_of_ours();
        let mut lines = Vec::new();
        let mut number = 0;
        while number < 200 {
            write_end.write_all(format!("{number}\n").as_bytes()).unwrap();
            number += 1;
            tokio::select! {
                biased;
                _ = output.next(&mut lines) => {}
                () = tokio::task::yield_now() => {}
            }
        }
        drop(write_end);
        while output.next(&mut lines).await {}
        assert!(lines.iter().map(|line| line.parse::<i32>().unwrap()).eq(0..200));
    });
}

#[test]
fn the_rest_is_all_that_a_pipe_holds() {
    in_runtime(async {
        let (mut output, write_end) = pipe().unwrap();
        fcntl(&write_end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut written = 0;
        while let Ok(count) = nix::unistd::write(&write_end, &[b'x'; 1000]) {
            written += count;
        }
        let mut lines = Vec::new();
        output.rest(&mut lines);
        assert_eq!(lines.concat().len(), written);
    });
}

/// The lines of bytes that come all at once.
fn lines_of(bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut cutter = Lines::default();
    cutter.take(bytes, &mut lines);
    cutter.finish(&mut lines);
    lines
}

#[test]
fn a_line_ends_with_a_line_feed_and_perhaps_a_carriage_return() {
    assert_eq!(lines_of(b"a\r\n\n\rb\r\r\nc\r"), ["a", "", "\rb\r", "c"]);
    assert_eq!(lines_of(b""), [""; 0]);
    assert_eq!(lines_of(b"\r"), [""; 0]);
}

#[test]
fn what_is_no_text_is_replaced_and_control_characters_are_kept() {
    assert_eq!(lines_of(b"a\xffb\xe2\x82\n\0\x1b[31m"), ["a\u{fffd}b\u{fffd}", "\0\x1b[31m"]);
}

#[test]
fn a_line_is_split_behind_1024_bytes_and_no_empty_one_is_left() {
    let x = |count| "x".repeat(count);
    for end in ["", "\n", "\r\n"] {
        assert_eq!(lines_of(format!("{}{end}", x(1024)).as_bytes()), [x(1024)], "{end:?}");
        let longer = lines_of(format!("{}{end}", x(1025)).as_bytes());
        assert_eq!(longer, [x(1024), x(1)], "{end:?}");
    }
    assert_eq!(lines_of(format!("{}\n\n", x(1024)).as_bytes()), [x(1024), x(0)]);
}

#[test]
fn no_character_is_split() {
    for before in 1020..1024 {
        let text = format!("{}€😀é", "x".repeat(before));
        assert_eq!(lines_of(text.as_bytes()).concat(), text);
    }
    assert_eq!(lines_of(&[0xff; 1025]).concat(), "\u{fffd}".repeat(1025));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_parts_give_the_same_short_lines(
        parts in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 0..40), 0..60usize),
            0..20,
        ),
    ) {
        let parts: Vec<_> = parts.iter().map(|(part, count)| part.repeat(*count)).collect();
        let (mut lines, mut cutter) = (Vec::new(), Lines::default());
        for part in &parts {
            cutter.take(part, &mut lines);
        }
        cutter.finish(&mut lines);
        prop_assert_eq!(&lines, &lines_of(&parts.concat()));
        for line in lines {
            let escaped = serde_json::to_string(&line).unwrap();
            prop_assert!(escaped.len() <= 3 * LINE_WEIGHT + 2, "{}", escaped.len());
        }
    }
}

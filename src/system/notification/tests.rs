//! What a child may do with its end of the pipe.

use std::io::Write;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;

/// Both ends, to be used by hand.
fn ends() -> (Notification, io::PipeWriter) {
    let (notification, write_end) = pipe().unwrap();
    (notification, write_end.into())
}

#[tokio::test]
async fn a_line_feed_is_ready_whatever_stands_before_it() {
    for text in ["\n", "ready\n", "a\nb\n", "\0\n"] {
        let (mut notification, mut child) = ends();
        child.write_all(text.as_bytes()).unwrap();
        assert_eq!(notification.next().await, Told::Ready, "{text:?}");
        drop(child);
        assert_eq!(notification.next().await, Told::Closed { was_ready: true });
    }
}

#[tokio::test]
async fn the_end_without_a_line_feed_is_never_ready() {
    for text in ["", "ready", "ready\r"] {
        let (mut notification, mut child) = ends();
        child.write_all(text.as_bytes()).unwrap();
        drop(child);
        assert_eq!(notification.next().await, Told::Closed { was_ready: false }, "{text:?}");
    }
}

#[tokio::test]
async fn a_line_feed_is_found_behind_any_amount() {
    let (mut notification, mut child) = ends();
    let writer = std::thread::spawn(move || {
        child.write_all(&vec![b'x'; 4 * AFTERWORDS]).unwrap();
        child.write_all(b"\n").unwrap();
    });
    assert_eq!(notification.next().await, Told::Ready);
    writer.join().unwrap();
}

#[tokio::test]
async fn what_follows_is_read_up_to_a_pipe_full() {
    let (mut notification, mut child) = ends();
    child.write_all(b"\n").unwrap();
    assert_eq!(notification.next().await, Told::Ready);
    // Two pipes full: less would fit in without being read.
    let writer = std::thread::spawn(move || {
        (0..2 * AFTERWORDS).take_while(|_| child.write_all(b"x").is_ok()).count()
    });
    assert_eq!(notification.next().await, Told::Closed { was_ready: true });
    drop(notification);
    let written = writer.join().unwrap();
    assert!((AFTERWORDS..2 * AFTERWORDS + 1).contains(&written), "{written}");
}

#[tokio::test]
async fn nothing_is_lost_when_a_wait_is_broken_off() {
    let (mut notification, mut child) = ends();
    child.write_all(b"a").unwrap();
    for _ in 0..3 {
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(pin!(notification.next()).poll(&mut context), Poll::Pending);
        tokio::task::yield_now().await;
    }
    child.write_all(b"\n").unwrap();
    for _ in 0..3 {
        let mut context = Context::from_waker(Waker::noop());
        // Its turn is for others, so that it cannot be over at the first asking.
        assert_eq!(pin!(notification.next()).poll(&mut context), Poll::Pending);
    }
    assert_eq!(notification.next().await, Told::Ready);
}

#[test]
fn the_childs_end_blocks_as_any_pipe() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _context = runtime.enter();
    let (_notification, write_end) = pipe().unwrap();
    let flags = nix::fcntl::fcntl(&write_end, nix::fcntl::FcntlArg::F_GETFL).unwrap();
    assert_eq!(flags & libc::O_NONBLOCK, 0);
}

//! A child that speaks sd_notify by hand. It does what its arguments say, one
//! after the other, prints each when it is done, and goes on until SIGTERM:
//!
//! - `NAME=VALUE` sends a message, in which `\n` is a line feed;
//! - `other:NAME=VALUE` sends it from a process that has ended by then;
//! - `daemon:NAME=VALUE` sends it from a process that was forked twice, in a
//!   session of its own, and goes on until SIGTERM;
//! - `hex:XX...` sends those bytes, whatever they are;
//! - `flood:NAME=VALUE` sends it without a pause, for as long as it lives;
//! - `barrier` waits until all before it has been seen to, at most 10 s;
//! - `fds:N` sends FDSTORE=1 with N descriptors;
//! - `wait:MS` waits for so many milliseconds;
//! - `stdin` does what every line of the standard input says, to its end;
//! - `write:N=TEXT` writes TEXT to descriptor N and leaves it open;
//! - `fd:N=TEXT` writes TEXT to descriptor N, as s6 has it, and closes it;
//! - `exit:CODE` ends at once.
//!
//! A message that cannot be sent is told and is no reason to end.
#![expect(unsafe_code, reason = "a child that plays with processes and descriptors")]

use std::fs::File;
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::ExitCode;
use std::ptr;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, setsid};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    SigSet::from(Signal::SIGTERM).thread_block()?;
    for step in std::env::args().skip(1) {
        let lines = io::stdin().lock().lines();
        let steps: Box<dyn Iterator<Item = _>> =
            if step == "stdin" { Box::new(lines) } else { Box::new([Ok(step)].into_iter()) };
        for step in steps {
            let step = step?;
            if let Some(code) = step.strip_prefix("exit:") {
                return Ok(ExitCode::from(code.parse::<u8>()?));
            }
            match perform(&step) {
                Ok(()) => say(&step)?,
                Err(error) => say(&format!("{step}: {error}"))?,
            }
        }
    }
    SigSet::from(Signal::SIGTERM).wait()?;
    Ok(ExitCode::SUCCESS)
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn perform(step: &str) -> Result<(), Box<dyn std::error::Error>> {
    match step.split_once(':').unwrap_or((step, "")) {
        ("barrier", "") => barrier()?,
        ("other", message) => from_another(message)?,
        ("daemon", message) => from_a_daemon(message)?,
        ("hex", digits) => {
            let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2).unwrap_or(""), 16);
            let bytes: Result<Vec<u8>, _> = (0..digits.len()).step_by(2).map(byte).collect();
            send_bytes(&bytes?, &[])?;
        }
        ("flood", message) => loop {
            // One that is lost is followed by the next.
            let _ = send(message, &[]);
        },
        ("fds", count) => {
            let file = File::open("/proc/self/exe")?;
            send("FDSTORE=1", &vec![file.as_fd(); count.parse()?])?;
        }
        ("wait", millis) => wait(Duration::from_millis(millis.parse()?)),
        ("fd", rest) => {
            let (number, text) = rest.split_once('=').ok_or("expected fd:N=TEXT")?;
            // SAFETY: it was opened for this program, and nothing else owns it.
            let mut file = unsafe { File::from_raw_fd(number.parse()?) };
            file.write_all(text.replace("\\n", "\n").as_bytes())?;
        }
        ("write", rest) => {
            let (number, text) = rest.split_once('=').ok_or("expected write:N=TEXT")?;
            // SAFETY: as above; it is not closed here.
            let mut file = mem::ManuallyDrop::new(unsafe { File::from_raw_fd(number.parse()?) });
            file.write_all(text.replace("\\n", "\n").as_bytes())?;
        }
        _ if step.contains('=') => send(step, &[])?,
        _ => return Err("there is no such step".into()),
    }
    Ok(())
}

/// Sends one datagram to NOTIFY_SOCKET, with descriptors.
fn send(message: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    send_bytes(message.replace("\\n", "\n").as_bytes(), descriptors)
}

fn send_bytes(message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let to = std::env::var("NOTIFY_SOCKET").map_err(io::Error::other)?;
    let to = match to.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(to)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&to)?;
    let parts = [IoSlice::new(message)];
    let numbers: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let size = size_of_val(numbers.as_slice());
    // SAFETY: arithmetic only.
    let space = unsafe { libc::CMSG_SPACE(size as u32) } as usize;
    // Of words, so that it is aligned as control messages must be.
    let mut control = vec![0_usize; space.div_ceil(size_of::<usize>())];
    // SAFETY: the header points to buffers that live, of the sizes that it gives.
    let sent = unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = parts.as_ptr().cast_mut().cast();
        header.msg_iovlen = 1;
        if size > 0 {
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = space as _;
            let rights = libc::CMSG_FIRSTHDR(&raw const header);
            (*rights).cmsg_level = libc::SOL_SOCKET;
            (*rights).cmsg_type = libc::SCM_RIGHTS;
            (*rights).cmsg_len = libc::CMSG_LEN(size as u32) as _;
            ptr::copy_nonoverlapping(numbers.as_ptr().cast(), libc::CMSG_DATA(rights), size);
        }
        libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn from_another(message: &str) -> Result<(), Box<dyn std::error::Error>> {
    // SAFETY: this program has one thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let is_sent = send(message, &[]).is_ok();
            // SAFETY: ends the process without the parent's exit handlers.
            unsafe { libc::_exit(i32::from(!is_sent)) }
        }
        ForkResult::Parent { child } => match waitpid(child, None)? {
            nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
            other => Err(format!("{other:?}").into()),
        },
    }
}

/// Returns once it has been sent.
fn from_a_daemon(message: &str) -> Result<(), Box<dyn std::error::Error>> {
    let (sent, tell) = io::pipe()?;
    // SAFETY: this program has one thread.
    if let ForkResult::Child = unsafe { fork() }? {
        setsid()?;
        // SAFETY: as above.
        if let ForkResult::Child = unsafe { fork() }? {
            let _ = send(message, &[]);
            drop(tell);
            let _ = SigSet::from(Signal::SIGTERM).wait();
        }
        // SAFETY: ends the process without the parent's exit handlers.
        unsafe { libc::_exit(0) };
    }
    drop(tell);
    io::read_to_string(sent)?;
    waitpid(None, None)?;
    Ok(())
}

/// As sd_notify_barrier() does it: the receiver's end of a pipe is closed.
fn barrier() -> Result<(), Box<dyn std::error::Error>> {
    let (read_end, write_end) = io::pipe()?;
    send("BARRIER=1", &[write_end.as_fd()])?;
    drop(write_end);
    let mut wait = [PollFd::new(read_end.as_fd(), PollFlags::POLLIN)];
    if poll(&mut wait, PollTimeout::from(10_000_u16))? == 0 {
        return Err("nobody has answered".into());
    }
    let mut rest = Vec::new();
    (&read_end).read_to_end(&mut rest)?;
    Ok(())
}

fn wait(length: Duration) {
    let begun = Instant::now();
    while let Some(left) = length.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

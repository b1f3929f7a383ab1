//! A child that prints `ready`, then every signal as it comes, a line each, and
//! ends with code 0 at SIGTERM:
//!
//! ```text
//! ready 12
//! 10 value=0 pid=1
//! ```
//!
//! `--only-print` goes on after SIGTERM too. A queued value is shown as it came.
#![expect(unsafe_code, reason = "a child that plays with processes and signals")]

use std::io::{self, Write};

fn main() -> io::Result<()> {
    let only_print = std::env::args().any(|argument| argument == "--only-print");
    let everything = u64::MAX;
    let mut out = io::stdout().lock();
    // SAFETY: the mask lives across the call and has the size that is given;
    // the C library's own calls would leave out signals 32 and 33.
    let signals = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const everything, 0, 8);
        libc::syscall(libc::SYS_signalfd4, -1, &raw const everything, 8, libc::SFD_CLOEXEC)
    };
    writeln!(out, "ready {}", std::process::id())?;
    out.flush()?;
    loop {
        // SAFETY: all zeroes is a valid value of this plain structure.
        let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
        let size = size_of_val(&info);
        // SAFETY: the buffer is writable for exactly the size that is given.
        if unsafe { libc::read(signals as i32, (&raw mut info).cast(), size) } != size as isize {
            return Err(io::Error::last_os_error());
        }
        writeln!(out, "{} value={} pid={}", info.ssi_signo, info.ssi_int, info.ssi_pid)?;
        out.flush()?;
        if info.ssi_signo == libc::SIGTERM as u32 && !only_print {
            return Ok(());
        }
    }
}

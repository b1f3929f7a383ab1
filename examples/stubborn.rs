//! A child that does not want to end: it ignores every signal that can be
//! ignored, and so do the processes that it is told to start: `stubborn [N]`.
#![expect(unsafe_code, reason = "a child that plays with processes and signals")]

use std::io::{self, Write};
use std::process::Command;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for number in 1..=64 {
        // SIGCHLD stays as it is: its neighbours would be left as zombies.
        if number != libc::SIGCHLD {
            // SAFETY: SIG_IGN is no handler that could run.
            unsafe { libc::signal(number, libc::SIG_IGN) };
        }
    }
    let companions: usize = std::env::args().nth(1).map_or(Ok(0), |count| count.parse())?;
    for _ in 0..companions {
        Command::new(std::env::current_exe()?).spawn()?;
    }
    let mut out = io::stdout().lock();
    writeln!(out, "stubborn: {}", std::process::id())?;
    out.flush()?;
    drop(out);
    loop {
        std::thread::park();
    }
}

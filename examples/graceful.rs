//! A child as one would wish it: it works, and at SIGTERM finishes what it has
//! begun, which takes `graceful MILLISECONDS` (500), and ends with code 0.

use std::io::{self, Write};
use std::sync::mpsc;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let work = Duration::from_millis(match std::env::args().nth(1) {
        Some(milliseconds) => milliseconds.parse()?,
        None => 500,
    });
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    say("working")?;
    if let Some(signal) = signals.forever().next() {
        say(&format!("signal {signal}: finishing"))?;
        // The request in hand: nothing ever comes of this channel.
        let (_request, answer) = mpsc::channel::<()>();
        let _ = answer.recv_timeout(work);
        say("done")?;
    }
    Ok(())
}

fn say(what: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "graceful: {what}")?;
    out.flush()
}

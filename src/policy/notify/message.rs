//! One datagram: lines of `NAME=value` in any order. What is unknown, or has a
//! value that makes no sense, is passed over, and of two that are the same the
//! later counts.

use std::time::Duration;

/// The longest datagram that is read: what systemd takes (its NOTIFY_BUFFER_MAX,
/// PIPE_BUF). A longer one is refused as a whole.
pub(crate) const DATAGRAM_MAX: usize = 4096;

/// A free text is cut to so many characters.
const TEXT_MAX: usize = 256;

/// What a message says. BARRIER and FDSTORE are about descriptors, all of which
/// `system::notify` refuses: that answers the one and declines the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// READY=1
    pub(crate) is_ready: bool,
    /// STOPPING=1
    pub(crate) is_stopping: bool,
    /// RELOADING=1
    pub(crate) is_reloading: bool,
    /// MONOTONIC_USEC: when the reload began, by CLOCK_MONOTONIC.
    pub(crate) monotonic_usec: Option<u64>,
    /// STATUS: one line of at most 256 characters, perhaps empty.
    pub(crate) status: Option<String>,
    /// ERRNO
    pub(crate) errno: Option<i32>,
    /// BUSERROR: as STATUS.
    pub(crate) bus_error: Option<String>,
    /// EXIT_STATUS: as STATUS, a number or the name of a signal.
    pub(crate) exit_status: Option<String>,
    /// MAINPID, in castoff's own pid namespace or not; above 0.
    pub(crate) main_pid: Option<i32>,
    /// WATCHDOG
    pub(crate) watchdog: Option<WatchdogSign>,
    /// WATCHDOG_USEC; zero: it is to be off.
    pub(crate) watchdog_interval: Option<Duration>,
    /// EXTEND_TIMEOUT_USEC, from now on.
    pub(crate) extension: Option<Duration>,
}

/// What the child has said to its watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchdogSign {
    /// It turns.
    Ping,
    /// It has failed, and says so itself.
    Trigger,
}

impl Message {
    /// Reads a datagram; `None`: it is too long or has a NUL in it, and nothing
    /// in it counts.
    pub(crate) fn parse(datagram: &[u8]) -> Option<Self> {
        // Some senders count the NUL at the end of their string.
        let text = datagram.strip_suffix(b"\0").unwrap_or(datagram);
        if datagram.len() > DATAGRAM_MAX || text.contains(&0) {
            return None;
        }
        let mut message = Self::default();
        for line in text.split(|byte| *byte == b'\n') {
            if line == b"BARRIER=1" {
                // Whoever waits for it is served by its descriptor's end; for
                // systemd too nothing else in such a message counts.
                return Some(Self::default());
            }
            message.take(line);
        }
        Some(message)
    }

    fn take(&mut self, line: &[u8]) {
        let Some(equals) = line.iter().position(|byte| *byte == b'=') else { return };
        let Some((name, [_, value @ ..])) = line.split_at_checked(equals) else { return };
        match (name, value) {
            (b"READY", b"1") => self.is_ready = true,
            (b"STOPPING", b"1") => self.is_stopping = true,
            (b"RELOADING", b"1") => self.is_reloading = true,
            (b"WATCHDOG", b"1") => self.watchdog = Some(WatchdogSign::Ping),
            (b"WATCHDOG", b"trigger") => self.watchdog = Some(WatchdogSign::Trigger),
            (b"STATUS", text) => self.status = Some(one_line(text)),
            (b"BUSERROR", text) => self.bus_error = Some(one_line(text)),
            (b"EXIT_STATUS", text) => self.exit_status = Some(one_line(text)),
            (b"MONOTONIC_USEC", digits) => set(&mut self.monotonic_usec, number(digits)),
            (b"ERRNO", digits) => set(&mut self.errno, number(digits)),
            (b"MAINPID", digits) => {
                set(&mut self.main_pid, number(digits).filter(|pid| *pid > 0));
            }
            (b"WATCHDOG_USEC", digits) => set(&mut self.watchdog_interval, micros(digits)),
            (b"EXTEND_TIMEOUT_USEC", digits) => set(&mut self.extension, micros(digits)),
            _ => {}
        }
    }
}

/// What makes no sense leaves what was there.
fn set<T>(field: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *field = value;
    }
}

/// Digits and nothing else, not even a sign.
pub(super) fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

fn micros(digits: &[u8]) -> Option<Duration> {
    number(digits).map(Duration::from_micros)
}

/// A text that cannot begin a second line, nor change how its neighbours look.
fn one_line(text: &[u8]) -> String {
    let is_unsafe = |c: char| {
        // The separators of lines and paragraphs, and what turns the direction.
        c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let text = String::from_utf8_lossy(text);
    let safe: String = text.chars().map(|c| if is_unsafe(c) { ' ' } else { c }).collect();
    // The end of the cut is no space either: what is passed on is read back as the same.
    let cut: String = safe.trim().chars().take(TEXT_MAX).collect();
    cut.trim_end().to_owned()
}

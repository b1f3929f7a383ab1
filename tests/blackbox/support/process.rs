//! Processes as /proc shows them, by their pid in this test's namespace.

use std::fs;

/// The children of a process that has one thread, zombies included, oldest first.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// A line of /proc/PID/status; `None` when the process has gone.
pub(crate) fn status(pid: i32, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

/// `R`, `S`, `T`, `Z` and the like.
pub(crate) fn state(pid: i32) -> Option<char> {
    status(pid, "State")?.chars().next()
}

/// Sends a signal to a process that castoff has not reaped.
#[track_caller]
pub(crate) fn signal(pid: i32, number: i32) {
    #[expect(unsafe_code, reason = "nix has no real-time signals")]
    // SAFETY: takes two numbers.
    let sent = unsafe { libc::kill(pid, number) };
    assert_eq!(sent, 0, "signal {number} to {pid}: {}", std::io::Error::last_os_error());
}

//! Looking at processes from outside, by `/proc` of this machine.
#![expect(unsafe_code, reason = "a signal to a process that is not std's child")]

use std::collections::HashSet;
use std::fs;

/// Whether the process exists and is no zombie.
pub(crate) fn is_running(pid: i32) -> bool {
    state(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The letter of `man 5 proc_pid_stat`; `None` when the process has gone.
pub(crate) fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// A line of `/proc/PID/status`; `None` when the process has gone.
pub(crate) fn status(pid: i32, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

/// Its children as this machine numbers them, whatever they call themselves.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// The memory that it has in use, in KiB (`VmRSS`).
#[track_caller]
pub(crate) fn resident_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// How many descriptors it has open.
#[track_caller]
pub(crate) fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

/// The TCP ports that this very process listens on, in its own network.
pub(crate) fn listening_ports(pid: i32) -> Vec<u16> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let sockets: HashSet<String> = descriptors
        .filter_map(|entry| fs::read_link(entry.path()).ok()?.into_os_string().into_string().ok())
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let mut ports = Vec::new();
    for table in ["tcp", "tcp6"] {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            // 0A is LISTEN (include/net/tcp_states.h).
            if let [_, local, _, "0A", _, _, _, _, _, inode, ..] = fields[..]
                && sockets.contains(inode)
            {
                let port = local.rsplit_once(':').expect("address:port").1;
                ports.push(u16::from_str_radix(port, 16).expect("a port"));
            }
        }
    }
    ports
}

/// `kill`
#[track_caller]
pub(crate) fn signal(pid: i32, number: i32) {
    // SAFETY: takes two numbers.
    let sent = unsafe { libc::kill(pid, number) };
    assert_eq!(sent, 0, "signal {number} to {pid}: {}", std::io::Error::last_os_error());
}

/// `kill` of a process that may be ending, and will not mind.
pub(crate) fn try_signal(pid: i32, number: i32) {
    // SAFETY: takes two numbers.
    let _ = unsafe { libc::kill(pid, number) };
}

/// Every process below, not the one itself.
pub(crate) fn descendants(pid: i32) -> Vec<i32> {
    let born = children(pid);
    let below: Vec<_> = born.iter().flat_map(|child| descendants(*child)).collect();
    [born, below].concat()
}

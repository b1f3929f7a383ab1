//! Work that the kernel may hold up for as long as it likes, such as a look at
//! a file on a server that does not answer: it gets a thread of its own, which
//! ends with it.
//!
//! No such thread may ever receive a signal: those of a stop belong to the
//! handlers of the first thread, all others to its signalfd.

use std::io;
use std::thread::Builder;

use super::signals::{set_mask, with_all_blocked};

/// Enough for a system call and what std does around it.
const STACK_BYTES: usize = 64 * 1024;

/// Does `act` in a thread of its own. Nothing waits for it, not even the end of
/// the process: `act` must tell its result by itself.
///
/// # Errors
/// The kernel makes no thread (`man 3 pthread_create`): no memory, or the limit
/// of processes is reached.
pub(crate) fn start(act: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let aside = move || {
        // The C library begins every thread with its own signal 32 unblocked.
        set_mask(u64::MAX);
        act();
    };
    // All others it has blocked from its first instruction on.
    with_all_blocked(|| Builder::new().stack_size(STACK_BYTES).spawn(aside)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn the_thread_receives_no_signal() {
        let (sender, receiver) = mpsc::channel();
        start(move || {
            let _ = sender.send(fs::read_to_string("/proc/thread-self/status"));
        })
        .expect("a thread");
        let status = receiver.recv_timeout(Duration::from_secs(10)).expect("it runs");
        let status = status.expect("/proc");
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).expect("a mask");
        let mask = u64::from_str_radix(mask, 16).expect("a number");
        // SIGKILL (9) and SIGSTOP (19) cannot be blocked.
        assert_eq!(mask | 1 << 8 | 1 << 18, u64::MAX, "{status}");
    }
}

//! Signals in: the stop signals by handlers, everything else by a signalfd.
//!
//! Every signal is blocked since `entry`; a blocked signal waits and, if it is
//! a real-time one, queues, which a handler's pipe does not. Only the few that
//! begin a stop are unblocked here. Signals out are in `kill` and `tree`.
#![expect(unsafe_code, reason = "signalfd and masks with the signals that the C library hides")]

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::ptr;
use std::task::Poll;

use futures_core::Stream;
use signal_hook::iterator::exfiltrator::raw::WithRawSiginfo;
use signal_hook_tokio::SignalsInfo;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::policy::signal::Signal;

/// One signal that castoff received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    pub(crate) signal: Signal,
    pub(crate) sender: Sender,
    /// The value that came with `sigqueue`, as the kernel keeps it.
    pub(crate) value: Option<u64>,
}

/// Who sent it (`man 2 sigaction`, `si_code` and `si_pid`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// A process that this pid namespace cannot see: the container's runtime.
    Outside { uid: u32 },
    /// The kernel itself: a terminal, a timer, a child's end.
    Kernel,
    /// A process of this namespace.
    Process { pid: i32, uid: u32 },
}

impl Received {
    fn new(number: i32, code: i32, pid: i32, uid: u32, value: u64) -> Option<Self> {
        let sender = match (code, pid) {
            // SI_USER is 0, what other processes may claim is below.
            (1.., _) => Sender::Kernel,
            (_, 0) => Sender::Outside { uid },
            (_, pid) => Sender::Process { pid, uid },
        };
        let value = (code == libc::SI_QUEUE).then_some(value);
        Some(Self { signal: Signal::new(number)?, sender, value })
    }

    /// The kernel's word that a child has changed. A SIGCHLD that a process
    /// sent is forwarded like any other signal; but reap then too, for the
    /// kernel's own is dropped while one is pending.
    pub(crate) fn is_about_a_child(&self) -> bool {
        self.signal == Signal::CHLD && self.sender == Sender::Kernel
    }

    fn is_from(&self, sender: i32) -> bool {
        matches!(self.sender, Sender::Process { pid, .. } if pid == sender)
    }
}

/// Both sources of signals, as one.
pub(crate) struct Signals {
    rest: AsyncFd<SignalFd>,
    stops: SignalsInfo<WithRawSiginfo>,
    inherited: Vec<(Signal, bool)>,
    own_pid: i32,
}

impl Signals {
    /// Begins to listen: `stop_on` by handlers, the rest by a signalfd.
    ///
    /// # Errors
    /// No descriptors are left, or a signal of `stop_on` cannot have a handler.
    pub(crate) fn open(stop_on: &[Signal]) -> io::Result<Self> {
        let inherited: Vec<_> = stop_on
            .iter()
            .chain([&Signal::CHLD])
            .map(|signal| (*signal, is_ignored(*signal)))
            .collect();
        if inherited.contains(&(Signal::CHLD, true)) {
            // The kernel would reap in castoff's place (`man 2 sigaction`).
            // SAFETY: SIG_DFL is no handler that could run.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        }
        let stop_mask = stop_on.iter().fold(0, |mask, signal| mask | bit(*signal));
        let rest = SignalFd::open(!stop_mask)?;
        // SAFETY: SignalFd owns its descriptor and gives out no other.
        let rest = unsafe { AsyncFd::register_with_interest(rest, Interest::READABLE) }?;
        let stops = SignalsInfo::new(stop_on.iter().map(|signal| signal.number()))?;
        change_mask(libc::SIG_UNBLOCK, stop_mask);
        Ok(Self { rest, stops, inherited, own_pid: std::process::id().cast_signed() })
    }

    /// The signals whose disposition castoff has changed, and whether each had
    /// been ignored: the child is to find it so.
    pub(crate) fn inherited_dispositions(&self) -> &[(Signal, bool)] {
        &self.inherited
    }

    /// Waits for signals and adds them to `batch`, which must be empty. Nothing
    /// is lost when this is dropped before it is ready.
    ///
    /// Left out are those by which the kernel answers castoff's own system
    /// calls: SIGPIPE for a write without a reader, SIGXFSZ for one beyond a
    /// limit. They are blocked like all others and so end up here; they are
    /// none of the child's.
    pub(crate) async fn next(&mut self, batch: &mut Vec<Received>) {
        let own_pid = self.own_pid;
        poll_fn(|cx| {
            while let Poll::Ready(Some(info)) = Pin::new(&mut self.stops).poll_next(cx) {
                batch.extend(received(&info));
            }
            while let Poll::Ready(Ok(mut guard)) = self.rest.poll_read_ready(cx) {
                let may_have_more = guard.get_inner().read(batch);
                batch.retain(|received| !received.is_from(own_pid));
                if !may_have_more {
                    guard.clear_ready();
                }
                if !batch.is_empty() {
                    break;
                }
            }
            if batch.is_empty() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
}

fn received(info: &libc::siginfo_t) -> Option<Received> {
    // SAFETY: the kernel fills pid, uid and value for every signal that a
    // process sent; for the others they are read but not used.
    let (pid, uid, value) =
        unsafe { (info.si_pid(), info.si_uid(), info.si_value().sival_ptr.addr() as u64) };
    Received::new(info.si_signo, info.si_code, pid, uid, value)
}

/// A descriptor that reads blocked signals (`man 2 signalfd`).
struct SignalFd(OwnedFd);

/// How many signals one read takes.
const BATCH: usize = 16;

impl SignalFd {
    fn open(mask: u64) -> io::Result<Self> {
        // SAFETY: the mask lives across the call and has the size that is given.
        // The C library's own signalfd would leave out signals 32 and 33.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_signalfd4,
                -1,
                &raw const mask,
                size_of::<u64>(),
                libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and has no other owner.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
    }

    /// Adds what is pending to `batch`, and says whether more may be. A short
    /// read has emptied it: what comes later raises a new edge.
    fn read(&self, batch: &mut Vec<Received>) -> bool {
        // SAFETY: all zeroes is a valid value of this plain structure.
        let mut infos: [libc::signalfd_siginfo; BATCH] = unsafe { std::mem::zeroed() };
        // SAFETY: the buffer is writable for exactly the size that is given.
        let bytes = unsafe {
            libc::read(self.0.as_raw_fd(), infos.as_mut_ptr().cast(), size_of_val(&infos))
        };
        let count = usize::try_from(bytes).map_or(0, |n| n / size_of::<libc::signalfd_siginfo>());
        batch.extend(infos.iter().take(count).filter_map(|info| {
            let number = i32::try_from(info.ssi_signo).ok()?;
            let pid = i32::try_from(info.ssi_pid).ok()?;
            Received::new(number, info.ssi_code, pid, info.ssi_uid, info.ssi_ptr)
        }));
        count == BATCH
    }
}

impl AsRawFd for SignalFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Only asks: to set the default would drop a pending signal that is ignored by
/// default, such as a SIGWINCH that is to begin a stop.
fn is_ignored(signal: Signal) -> bool {
    // SAFETY: all zeroes is a valid value of this plain structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: `action` lives across the call; a null pointer changes nothing.
    let asked = unsafe { libc::sigaction(signal.number(), ptr::null(), &raw mut action) };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

fn bit(signal: Signal) -> u64 {
    1 << (signal.number() - 1)
}

/// Runs `act` with every signal blocked, and whatever it starts begins so.
pub(super) fn with_all_blocked<T>(act: impl FnOnce() -> T) -> T {
    let before = change_mask(libc::SIG_SETMASK, u64::MAX);
    let result = act();
    set_mask(before);
    result
}

/// Blocks just the signals of `mask`; one system call, fit for the child's half.
pub(super) fn set_mask(mask: u64) {
    change_mask(libc::SIG_SETMASK, mask);
}

/// Returns the mask as it was. Cannot fail: `how` is one of the three.
fn change_mask(how: i32, mask: u64) -> u64 {
    let mut before = 0_u64;
    // SAFETY: both masks live across the call and have the size that is given.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            how,
            &raw const mask,
            &raw mut before,
            size_of::<u64>(),
        );
    }
    before
}

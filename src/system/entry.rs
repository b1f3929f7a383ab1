//! The very first instructions of the process.
//!
//! A process 1 has no default dispositions: the kernel drops a signal that
//! arrives before it is blocked or handled (`man 2 kill`, NOTES). The start of
//! the C library takes up to a millisecond, so waiting for `main` would lose a
//! stop request in that time. On x86-64 the linker is told (`.cargo/build.rs`)
//! to begin at `castoff_entry`, which blocks every signal, keeps the mask that
//! was inherited for the child, and goes on to the C library's `_start`. On
//! other machines the same is done first thing in `main`.
#![expect(unsafe_code, reason = "instructions that run before there is a language")]

use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
compile_error!(
    "castoff needs Linux and glibc: without Rust's own main no other C library hands std its arguments"
);

/// A signal mask as the kernel keeps it: bit n - 1 is signal n.
type KernelMask = u64;

/// The mask that castoff was started with. The bits of SIGKILL and SIGSTOP are
/// never set by the kernel, so both set means "not yet known".
static INHERITED_MASK: AtomicU64 = AtomicU64::new(UNKNOWN);
const UNKNOWN: KernelMask = KernelMask::MAX;

/// Blocks every signal, those that the C library hides (32 and 33) included,
/// and returns the mask that the process was started with.
pub(crate) fn block_signals() -> KernelMask {
    let known = INHERITED_MASK.load(Ordering::Relaxed);
    if known != UNKNOWN {
        return known;
    }
    let mut inherited: KernelMask = 0;
    // SAFETY: both masks live across the call and have the size that is given.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const ALL_SIGNALS,
            &raw mut inherited,
            size_of::<KernelMask>(),
        );
    }
    INHERITED_MASK.store(inherited, Ordering::Relaxed);
    inherited
}

/// Lets this process be ended by a signal again, as by ^C. SIGPIPE stays
/// blocked: who no longer reads what it says does not end it.
pub(crate) fn unblock_signals(inherited: KernelMask) {
    let mask = inherited | 1 << (libc::SIGPIPE - 1);
    // SAFETY: the mask lives across the call and has the size that is given;
    // the old one is not asked for.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            std::ptr::null_mut::<KernelMask>(),
            size_of::<KernelMask>(),
        );
    }
}

// Nothing is relocated and no library is initialised yet: registers and one
// system call only. The C library wants rdx and rsp as the kernel left them.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".globl castoff_entry",
    ".type castoff_entry, @function",
    "castoff_entry:",
    "mov r8, rdx",
    "lea rdx, [rip + {inherited}]", // the old mask goes here ...
    "lea rsi, [rip + {all}]",       // ... and every signal is in the new one
    "mov edi, {set_mask}",
    "mov r10d, 8",
    "mov eax, {rt_sigprocmask}",
    "syscall",
    "mov rdx, r8",
    "jmp _start",
    inherited = sym INHERITED_MASK,
    all = sym ALL_SIGNALS,
    set_mask = const libc::SIG_SETMASK,
    rt_sigprocmask = const libc::SYS_rt_sigprocmask,
);

static ALL_SIGNALS: KernelMask = KernelMask::MAX;

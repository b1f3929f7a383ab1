//! Memory that castoff has freed, and that the C library would keep for later.
//!
//! Owns the one call that gives it back to the kernel. It takes some microseconds,
//! so it is for whoever has become quiet, never for a turn of a busy loop.
#![cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "malloc_trim, which std does not offer")
)]

/// Gives back every page that holds nothing (`man 3 malloc_trim`).
pub(crate) fn give_back() {
    // SAFETY: it takes no pointer and leaves alone what is in use.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

//! The binary: the C library's entry point, and nothing else. Rust's own
//! `main` would open descriptors and change signal dispositions that belong to
//! the child; see `system/entry.rs` for what runs even before this.
#![no_main]

#[expect(unsafe_code, reason = "the name is the C library's: nothing else in this binary has it")]
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    castoff::main()
}

//! See `castoff::fuzzing::target`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| castoff::fuzzing::target(bytes));

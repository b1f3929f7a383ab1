//! See `castoff::fuzzing::notify`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| castoff::fuzzing::notify(bytes));

//! See `castoff::fuzzing::wrap`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| castoff::fuzzing::wrap(bytes));

//! See `castoff::fuzzing::limits`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| castoff::fuzzing::limits(bytes));

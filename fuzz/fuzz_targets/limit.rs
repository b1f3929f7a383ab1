//! See `castoff::fuzzing::limit`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| castoff::fuzzing::limit(bytes));

//! See `castoff::fuzzing::names`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| castoff::fuzzing::names(bytes));

//! See `castoff::fuzzing::mountinfo`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| castoff::fuzzing::mountinfo(bytes));

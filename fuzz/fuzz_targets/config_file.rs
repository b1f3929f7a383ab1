//! See `castoff::fuzzing::config_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| castoff::fuzzing::config_file(bytes));

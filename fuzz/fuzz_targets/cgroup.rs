//! See `castoff::fuzzing::cgroup`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| castoff::fuzzing::cgroup(bytes));

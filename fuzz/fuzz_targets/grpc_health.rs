//! See `castoff::fuzzing::grpc_health`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| castoff::fuzzing::grpc_health(bytes));

//! See `proxy::fuzzing::grpc_web`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| proxy::fuzzing::grpc_web(bytes));

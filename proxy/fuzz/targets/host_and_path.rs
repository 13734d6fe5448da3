//! See `proxy::fuzzing::host_and_path`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| proxy::fuzzing::host_and_path(bytes));

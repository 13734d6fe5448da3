//! See `proxy::fuzzing::chunks`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| proxy::fuzzing::chunks(bytes));

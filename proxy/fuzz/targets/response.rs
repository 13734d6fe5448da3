//! See `proxy::fuzzing::response`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| proxy::fuzzing::response(bytes));

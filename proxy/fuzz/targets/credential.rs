//! See `proxy::fuzzing::credential`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| proxy::fuzzing::credential(bytes));

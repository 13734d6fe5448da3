//! See `registry::fuzzing::challenge`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| registry::fuzzing::challenge(bytes));

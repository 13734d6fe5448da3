//! See `registry::fuzzing::reference`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| registry::fuzzing::reference(bytes));

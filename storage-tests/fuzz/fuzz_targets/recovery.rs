//! A spoiled data directory, opened and read.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| storage_tests::fuzzing::recovery(input));

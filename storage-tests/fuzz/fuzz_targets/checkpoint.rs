//! Foreign bytes as one of the small files.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| storage_tests::fuzzing::checkpoint(input));

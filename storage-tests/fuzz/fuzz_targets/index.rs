//! Foreign bytes as the indexes of a good log.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| storage_tests::fuzzing::index(input));

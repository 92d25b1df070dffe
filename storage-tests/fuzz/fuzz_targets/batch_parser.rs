//! Foreign bytes as a record batch.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| storage_tests::fuzzing::batch_parser(input));

//! Foreign bytes as a produce over gRPC.

#![no_main]

use std::sync::{LazyLock, Mutex, PoisonError};

use storage_tests::fuzzing::GrpcProduce;

/// One broker for all inputs.
static BROKER: LazyLock<Mutex<GrpcProduce>> = LazyLock::new(|| Mutex::new(GrpcProduce::new()));

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    BROKER.lock().unwrap_or_else(PoisonError::into_inner).run(input);
});

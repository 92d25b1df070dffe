//! A real server on a disk that is full, that may not hold large files, or that fails: it refuses what it cannot do, keeps
//! what it has acknowledged, and goes on when it can.

mod client;
mod fail;
mod full;
mod size_limit;

const SAGWAN: &str = env!("CARGO_BIN_EXE_sagwan-under-test");

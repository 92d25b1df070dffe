//! What the black-box tests share.
//!
//! - [`process`]: a real server as a child process, to be killed, stopped and started again;
//! - [`command`]: a program run to its end within a time limit;
//! - [`disk`]: a file system of its own, whose power can be cut;
//! - [`load`]: writers over gRPC that keep a ledger of each partition, and the reader that settles it;
//! - [`length`]: how many cycles a torture has, or for how long it goes on;
//! - [`poll`]: waiting for what nobody tells of;
//! - [`relay`]: an address that stays while the server behind it comes and goes;
//! - [`ledger`]: what was sent and acknowledged, kept outside the server, and the judgement on what came back;
//! - [`readme`]: the code in README.md, so that tests can run it;
//! - [`python`]: a Python environment with gRPC;
//! - [`fuzzing`]: what the fuzz targets check, so that their corpus can be replayed without a fuzzer.
//!
//! A step that cannot be done ends the test with a panic that says which one and why.

pub mod command;
pub mod disk;
pub mod fuzzing;
pub mod ledger;
pub mod length;
pub mod load;
pub mod poll;
pub mod process;
pub mod python;
pub mod readme;
pub mod relay;

/// A number from the environment, say how long or from which seed a test is to run.
///
/// # Panics
/// If it is no number.
pub fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{name}={value}: {error}")))
}

//! What the black-box tests share.
//!
//! - [`process`]: a real server as a child process, to be killed, stopped and started again;
//! - [`command`]: a program run to its end within a time limit;
//! - [`ledger`]: what was sent and acknowledged, kept outside the server, and the judgement on what came back;
//! - [`readme`]: the code in README.md, so that tests can run it;
//! - [`python`]: a Python environment with gRPC;
//! - [`fuzzing`]: what the fuzz targets check, so that their corpus can be replayed without a fuzzer.
//!
//! A step that cannot be done ends the test with a panic that says which one and why.

pub mod command;
pub mod fuzzing;
pub mod ledger;
pub mod process;
pub mod python;
pub mod readme;

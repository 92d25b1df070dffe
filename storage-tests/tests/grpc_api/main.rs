//! The gRPC API as a client meets it: a whole broker in this process, on port 0 and a temporary directory, and the
//! generated clients. Each test has a broker of its own.
#![allow(clippy::expect_used, reason = "a step that fails ends the test")]

mod accept_loss;
mod bad_input;
mod groups;
mod harness;
mod idempotence;
mod lifecycle;
mod produce_and_fetch;
mod streams;
mod topics;
mod vanished;

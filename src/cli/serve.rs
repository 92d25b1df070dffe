//! `sagwan serve`: runs a broker.

use std::process::ExitCode;

/// Where the broker keeps its data and where it listens.
#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {}

/// Runs a broker until it is told to stop.
pub(super) fn run(_args: ServeArgs) -> ExitCode {
    ExitCode::FAILURE
}

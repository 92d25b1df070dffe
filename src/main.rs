//! The `sagwan` binary: broker and command line in one.

use std::process::ExitCode;

fn main() -> ExitCode {
    sagwan::cli::main()
}

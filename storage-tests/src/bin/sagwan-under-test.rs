//! The `sagwan` program under a name of this package, so that cargo tells its tests where the executable is.

fn main() -> std::process::ExitCode {
    sagwan::cli::main()
}

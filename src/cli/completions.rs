//! `sagwan completions`: a script that teaches a shell the command line.

use std::io::Write as _;

use clap::Args;
use clap_complete::Shell;

use super::failure::Failure;

/// Which shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sagwan completions bash > ~/.local/share/bash-completion/completions/sagwan
  sagwan completions zsh > ~/.zfunc/_sagwan")]
pub(super) struct CompletionsArgs {
    /// The shell that is to learn it
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "sagwan", &mut script);
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&script).and_then(|()| stdout.flush()).map_err(Failure::stdout)
}

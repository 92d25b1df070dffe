//! The command line: one file a subcommand. [`main`] parses, runs, and turns a failure into one line and an exit code.

mod bench;
mod commit;
mod completions;
mod connection;
mod consume;
mod delete_records;
mod dump;
mod failure;
mod format;
mod group;
mod input;
mod lines;
mod offsets;
mod output;
mod produce;
mod progress;
pub mod serve;
mod signals;
mod topic;
mod verify;

use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use connection::{SERVER, ServerArgs};
use failure::Failure;

/// Shown below every help text.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the operation failed
  2  the command line is wrong
  3  no broker answers";

/// What the `sagwan` binary can be told.
#[derive(Debug, Parser)]
#[command(
    name = "sagwan",
    version,
    about = "A Kafka-style commit log whose acknowledgement survives a power cut",
    after_help = EXIT_CODES,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker
    Serve(serve::ServeArgs),
    /// Create, list, describe, alter and delete topics
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Append lines to a topic, one record a line
    Produce(produce::ProduceArgs),
    /// Read the records of a topic
    Consume(consume::ConsumeArgs),
    /// Show what offsets a topic has
    Offsets(offsets::OffsetsArgs),
    /// Record how far a consumer group has come
    Commit(commit::CommitArgs),
    /// List and describe consumer groups
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Delete the oldest records of a partition
    DeleteRecords(delete_records::DeleteRecordsArgs),
    /// Check a data directory on which no broker runs
    Verify(verify::VerifyArgs),
    /// Show what a file of a data directory holds
    Dump(dump::DumpArgs),
    /// Measure a broker, and how near it comes to what the machine can do
    Bench(Box<bench::BenchArgs>),
    /// What `bench` measures, in a process of its own
    #[command(subcommand, hide = true)]
    BenchHosted(bench::HostedCommand),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

/// Runs what the command line of this process asks for.
pub fn main() -> ExitCode {
    let command = without_empty_variables(command());
    let cli = command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match cli {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" too. When there is nobody to read them, there is nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::USAGE));
        }
    };
    let done = match cli.command {
        Command::Serve(args) => serve::run(args).map_err(|error| Failure::Failed(error.to_string())),
        Command::Completions(args) => completions::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Dump(args) => dump::run(&args),
        Command::Bench(args) => connection::block_on(bench::run(*args, &cli.server)),
        Command::BenchHosted(command) => bench::run_hosted(command),
        command => connection::block_on(dispatch(command, &cli.server)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// The command line; what needs no broker takes no `--server`.
fn command() -> clap::Command {
    let no_server = clap::Arg::new(SERVER).long(SERVER).value_name("URL").hide(true);
    let no_server = no_server.value_parser(|_: &str| Err::<String, _>("this command talks to no broker"));
    let locals = ["serve", "verify", "dump", "completions"];
    locals
        .into_iter()
        .fold(Cli::command(), |cli, name| cli.mut_subcommand(name, |command| command.arg(no_server.clone())))
        .mut_subcommand("bench", |bench| bench.arg(bench::server_arg()))
}

/// An environment variable that is empty counts as none.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let look = |arg: clap::Arg| {
        let variable = arg.get_env().and_then(std::env::var_os);
        if variable.is_some_and(|value| value.is_empty()) { arg.env(Resettable::Reset) } else { arg }
    };
    command.mut_args(look).mut_subcommands(without_empty_variables)
}

async fn dispatch(command: Command, server: &ServerArgs) -> Result<(), Failure> {
    let client = server.connect().await?;
    match command {
        Command::Topic(command) => topic::run(command, &client).await,
        Command::Produce(args) => produce::run(args, &client).await,
        Command::Consume(args) => consume::run(args, &client).await,
        Command::Offsets(args) => offsets::run(args, &client).await,
        Command::Commit(args) => commit::run(args, &client).await,
        Command::Group(command) => group::run(command, &client).await,
        Command::DeleteRecords(args) => delete_records::run(args, &client).await,
        // These need no broker, or find it themselves.
        Command::Serve(_)
        | Command::Completions(_)
        | Command::Verify(_)
        | Command::Dump(_)
        | Command::Bench(_)
        | Command::BenchHosted(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn what_needs_no_broker_takes_no_server() {
        for line in ["serve", "verify dir", "dump file", "completions bash"] {
            let line = format!("sagwan {line}");
            let parse = |line: &str| command().try_get_matches_from(line.split(' '));
            assert!(parse(&line).is_ok(), "{line}");
            let refused = parse(&format!("{line} --server h:1")).expect_err(&line);
            assert!(refused.to_string().contains("talks to no broker"), "{refused}");
            let help = parse(&format!("{line} --help")).expect_err(&line);
            assert!(!help.to_string().contains("--server"), "{help}");
        }
    }

    #[test]
    fn the_server_can_be_named_before_or_after_the_subcommand() {
        for line in ["sagwan --server h:1 topic list", "sagwan topic list --server h:1"] {
            let cli = Cli::try_parse_from(line.split(' ')).expect(line);
            assert_eq!(cli.server.server.as_deref(), Some("h:1"));
        }
        for line in ["sagwan --server h:1 bench", "sagwan bench produce --server h:1"] {
            let matches = command().try_get_matches_from(line.split(' ')).expect(line);
            let cli = Cli::from_arg_matches(&matches).expect(line);
            assert_eq!(cli.server.server.as_deref(), Some("h:1"), "{line}");
        }
    }

    #[test]
    fn bad_arguments_are_usage_errors() {
        for line in [
            "sagwan produce a/b",
            "sagwan produce t --partition -1",
            "sagwan topic create t --partitions -1",
            "sagwan topic create t --partitions 0",
            "sagwan topic create t --config durability",
            "sagwan topic alter t",
            "sagwan consume t --from yesterday",
            "sagwan consume t --format %q",
            "sagwan topic list --server=",
            "sagwan serve --data-dir=",
            "sagwan serve --grpc-addr=",
            "sagwan serve --config=",
            "sagwan serve --log=",
            "sagwan consume t --format %v --output json",
            "sagwan commit g t --partition 0 --offset -5",
            "sagwan produce t --partition 0 --expected-offset -3",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
            assert_eq!(error.exit_code(), i32::from(failure::USAGE), "{line}");
        }
    }
}

//! `sagwan delete-records`: moves the log start offset of a partition up.

use clap::Args;

use super::failure::Failure;
use super::{input, output};
use crate::client::{Client, Offset, PartitionId, TopicName};

/// What to delete.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sagwan delete-records orders --partition 0 --before 1200
  sagwan delete-records orders --partition 0 --before latest   # all there is now")]
pub(super) struct DeleteRecordsArgs {
    /// The topic
    #[arg(value_parser = input::topic)]
    topic: TopicName,
    /// The partition
    #[arg(long, value_name = "N", value_parser = input::partition, allow_hyphen_values = true)]
    partition: PartitionId,
    /// The first offset to keep, or `latest` to keep none
    #[arg(long, value_name = "OFFSET", value_parser = before, allow_hyphen_values = true)]
    before: Before,
}

#[derive(Debug, Clone, Copy)]
enum Before {
    Offset(Offset),
    Latest,
}

fn before(text: &str) -> Result<Before, String> {
    if text == "latest" { Ok(Before::Latest) } else { input::offset(text).map(Before::Offset) }
}

pub(super) async fn run(args: DeleteRecordsArgs, client: &Client) -> Result<(), Failure> {
    let before = match args.before {
        Before::Offset(offset) => Some(offset),
        Before::Latest => None,
    };
    for (partition, start) in client.admin().delete_records(&args.topic, &[(args.partition, before)]).await? {
        output::line(&format!("{}-{partition} now begins at offset {}", args.topic, start?))?;
    }
    Ok(())
}

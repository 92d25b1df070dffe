//! `sagwan commit`: records how far a consumer group has come in one partition.

use clap::Args;

use super::failure::Failure;
use super::{input, output};
use crate::client::{Client, GroupName, Offset, OffsetCommit, PartitionId, TopicName, TopicPartition};

/// Who has come how far, where.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sagwan commit billing orders --partition 0 --offset 1200   # record 1200 is the next to read")]
pub(super) struct CommitArgs {
    /// The group
    #[arg(value_parser = input::group)]
    group: GroupName,
    /// The topic
    #[arg(value_parser = input::topic)]
    topic: TopicName,
    /// The partition
    #[arg(long, value_name = "N", value_parser = input::partition, allow_hyphen_values = true)]
    partition: PartitionId,
    /// The next offset to read
    #[arg(long, value_name = "O", value_parser = input::offset, allow_hyphen_values = true)]
    offset: Offset,
}

pub(super) async fn run(args: CommitArgs, client: &Client) -> Result<(), Failure> {
    let partition = TopicPartition::new(args.topic, args.partition);
    let commit = OffsetCommit::new(partition.clone(), args.offset);
    client.groups().commit_offsets(&args.group, [commit]).await?;
    output::line(&format!("group {} goes on at offset {} of {partition}", args.group, args.offset))
}

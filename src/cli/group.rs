//! `sagwan group`: which consumer groups there are, and how far they have come.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::failure::Failure;
use super::input;
use super::output::{self, OutputArgs};
use crate::client::{Client, CommittedOffsets, GroupName, Position};

#[derive(Debug, Subcommand)]
pub(super) enum GroupCommand {
    /// List all groups that have committed an offset
    List(ListArgs),
    /// Show a group's offsets and its lag
    Describe(DescribeArgs),
}

/// How to list.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// Which group.
#[derive(Debug, Args)]
#[command(after_help = "The lag is how many offsets lie between the group's and the end of the partition.")]
pub(super) struct DescribeArgs {
    /// The group
    #[arg(value_parser = input::group)]
    group: GroupName,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Serialize)]
struct GroupRow {
    group: String,
    partitions: u32,
}

#[derive(Debug, Serialize)]
struct OffsetRow {
    topic: String,
    partition: i32,
    offset: i64,
    /// Absent when the partition is gone or does not answer.
    latest: Option<i64>,
    lag: Option<i64>,
    committed_at_ms: i64,
    metadata: String,
}

pub(super) async fn run(command: GroupCommand, client: &Client) -> Result<(), Failure> {
    match command {
        GroupCommand::List(args) => list(args, client).await,
        GroupCommand::Describe(args) => describe(args, client).await,
    }
}

async fn list(args: ListArgs, client: &Client) -> Result<(), Failure> {
    let groups = client.groups().list().await?.into_iter();
    let rows: Vec<_> = groups
        .map(|group| GroupRow { group: group.group.as_str().to_owned(), partitions: group.partitions })
        .collect();
    output::print(args.output.output, &rows, |rows| {
        let row = |row: &GroupRow| [row.group.clone(), row.partitions.to_string()];
        output::table(["GROUP", "PARTITIONS"], rows.iter().map(row))
    })
}

async fn describe(args: DescribeArgs, client: &Client) -> Result<(), Failure> {
    let CommittedOffsets { offsets: committed, loss } =
        client.groups().fetch_offsets(&args.group, &[]).await?;
    if let Some(loss) = loss {
        eprintln!("warning: some offsets may be older than the last ones, and some may be missing: {loss}");
    }
    if committed.is_empty() {
        return Err(Failure::Failed(format!(
            "group {} has committed no offset: see `sagwan group list`",
            args.group
        )));
    }
    let partitions = committed.iter().map(|committed| (committed.commit.partition.clone(), Position::Latest));
    let ends = client.admin().list_offsets(partitions).await?;
    let rows: Vec<_> = committed
        .into_iter()
        .zip(ends)
        .map(|(committed, end)| {
            let latest = end.ok().map(|end| end.offset.get());
            let offset = committed.commit.offset.get();
            OffsetRow {
                topic: committed.commit.partition.topic.as_str().to_owned(),
                partition: committed.commit.partition.partition.get(),
                offset,
                latest,
                lag: latest.map(|latest| latest.saturating_sub(offset).max(0)),
                committed_at_ms: committed.commit_timestamp_ms,
                metadata: committed.commit.metadata,
            }
        })
        .collect();
    output::print(args.output.output, &rows, |rows| {
        let known = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let row = |row: &OffsetRow| {
            [
                row.topic.clone(),
                row.partition.to_string(),
                row.offset.to_string(),
                known(row.latest),
                known(row.lag),
                row.metadata.clone(),
            ]
        };
        output::table(["TOPIC", "PARTITION", "OFFSET", "LATEST", "LAG", "METADATA"], rows.iter().map(row))
    })
}

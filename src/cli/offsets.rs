//! `sagwan offsets`: what offsets each partition of a topic has.

use clap::Args;
use serde::Serialize;

use super::failure::Failure;
use super::input;
use super::output::{self, OutputArgs};
use crate::client::{Client, PartitionInfo, TopicName};

/// Which topic.
#[derive(Debug, Args)]
#[command(
    after_help = "Records are counted by their offsets: where compaction has removed some, there are fewer."
)]
pub(super) struct OffsetsArgs {
    /// The topic
    #[arg(value_parser = input::topic)]
    topic: TopicName,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Serialize)]
struct Row {
    partition: i32,
    earliest: i64,
    latest: i64,
    records: i64,
    size_bytes: u64,
}

impl From<PartitionInfo> for Row {
    fn from(partition: PartitionInfo) -> Self {
        let (earliest, latest) = (partition.log_start_offset.get(), partition.high_watermark.get());
        let records = latest.saturating_sub(earliest).max(0);
        Self {
            partition: partition.partition.get(),
            earliest,
            latest,
            records,
            size_bytes: partition.size_bytes,
        }
    }
}

pub(super) async fn run(args: OffsetsArgs, client: &Client) -> Result<(), Failure> {
    let topic = client.admin().describe_topic(&args.topic).await?;
    let rows: Vec<Row> = topic.partitions.into_iter().map(Row::from).collect();
    output::print(args.output.output, &rows, |rows| {
        let row = |row: &Row| {
            [
                row.partition.to_string(),
                row.earliest.to_string(),
                row.latest.to_string(),
                row.records.to_string(),
                row.size_bytes.to_string(),
            ]
        };
        output::table(["PARTITION", "EARLIEST", "LATEST", "RECORDS", "BYTES"], rows.iter().map(row))
    })
}

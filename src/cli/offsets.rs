//! `sagwan offsets`: what offsets each partition of a topic has.

use clap::Args;
use serde::Serialize;

use super::failure::Failure;
use super::input;
use super::output::{self, OutputArgs};
use crate::client::{Client, PartitionInfo, PartitionState, TopicName};

/// Which topic.
#[derive(Debug, Args)]
#[command(after_help = "\
RECORDS counts the offsets from EARLIEST to LATEST. Where some hold no record, there are fewer records: where
compaction has removed some, and above all behind an accepted loss, which leaves a gap of 2^48 offsets.
A partition that cannot be read is told on standard error, and the exit code is then 1.")]
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
    /// Absent, as the next two, when the partition cannot be read.
    earliest: Option<i64>,
    latest: Option<i64>,
    records: Option<i64>,
    size_bytes: u64,
    /// Why it cannot be read.
    error: Option<String>,
}

impl From<PartitionInfo> for Row {
    fn from(partition: PartitionInfo) -> Self {
        let (earliest, latest) = (partition.log_start_offset.get(), partition.high_watermark.get());
        let records = latest.saturating_sub(earliest).max(0);
        let fenced = partition.state == PartitionState::Fenced;
        let readable = |number| (!fenced).then_some(number);
        Self {
            partition: partition.partition.get(),
            earliest: readable(earliest),
            latest: readable(latest),
            records: readable(records),
            size_bytes: partition.size_bytes,
            error: fenced.then_some(partition.detail),
        }
    }
}

pub(super) async fn run(args: OffsetsArgs, client: &Client) -> Result<(), Failure> {
    let topic = client.admin().describe_topic(&args.topic).await?;
    let rows: Vec<Row> = topic.partitions.into_iter().map(Row::from).collect();
    output::print(args.output.output, &rows, |rows| {
        let known = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let row = |row: &Row| {
            [
                row.partition.to_string(),
                known(row.earliest),
                known(row.latest),
                known(row.records),
                row.size_bytes.to_string(),
            ]
        };
        output::table(["PARTITION", "EARLIEST", "LATEST", "RECORDS", "BYTES"], rows.iter().map(row))
    })?;
    let mut done = Ok(());
    for row in rows {
        if let Some(error) = row.error {
            let partition = row.partition;
            Failure::Failed(format!("partition {}-{partition} cannot be read: {error}", args.topic)).tell();
            done = Err(Failure::Told);
        }
    }
    done
}

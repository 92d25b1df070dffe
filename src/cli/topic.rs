//! `sagwan topic`: creates, lists, describes, alters and deletes topics.

use clap::{ArgGroup, Args, Subcommand};
use serde::Serialize;

use super::failure::Failure;
use super::input;
use super::output::{self, OutputArgs};
use crate::client::{
    AcceptedLoss, Client, ConfigEntry, NewTopic, PartitionId, PartitionInfo, PartitionState, TopicInfo,
    TopicListing, TopicName, TopicUpdate,
};

#[derive(Debug, Subcommand)]
pub(super) enum TopicCommand {
    /// Create a topic
    Create(CreateArgs),
    /// List all topics
    List(ListArgs),
    /// Show a topic's partitions and settings
    Describe(DescribeArgs),
    /// Change a topic's settings, or add partitions
    Alter(AlterArgs),
    /// Delete a topic with all its records
    Delete(DeleteArgs),
    /// Give up what a read-only partition has lost, so that it takes records again
    AcceptLoss(AcceptLossArgs),
}

/// What to create.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sagwan topic create orders --partitions 8
  sagwan topic create metrics --config durability=os --config segment_bytes=67108864
`sagwan topic describe` shows all settings with their meaning.")]
pub(super) struct CreateArgs {
    /// 1 to 249 of the characters a-z, A-Z, 0-9, '.', '_' and '-'
    #[arg(value_parser = input::topic)]
    name: TopicName,
    /// How many partitions; the broker's default if not given
    #[arg(long, value_name = "N", value_parser = input::partition_count, allow_hyphen_values = true)]
    partitions: Option<u32>,
    /// A setting; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = input::pair)]
    config: Vec<(String, String)>,
}

/// What to list.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Those the broker keeps its own state in, too
    #[arg(long)]
    internal: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// What to describe.
#[derive(Debug, Args)]
pub(super) struct DescribeArgs {
    /// The topic
    #[arg(value_parser = input::topic)]
    name: TopicName,
    #[command(flatten)]
    output: OutputArgs,
}

/// What to change. All of it is done, or nothing.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("change").args(["partitions", "config", "reset"]).multiple(true).required(true),
    after_help = "\
Examples:
  sagwan topic alter orders --config segment_ms=3600000
  sagwan topic alter orders --reset segment_ms --partitions 16
Keys may map to other partitions once there are more of them."
)]
pub(super) struct AlterArgs {
    /// The topic
    #[arg(value_parser = input::topic)]
    name: TopicName,
    /// The new number of partitions; it can only grow
    #[arg(long, value_name = "N", value_parser = input::partition_count, allow_hyphen_values = true)]
    partitions: Option<u32>,
    /// A setting to change; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = input::pair)]
    config: Vec<(String, String)>,
    /// A setting to put back to its default; may be given several times
    #[arg(long, value_name = "KEY")]
    reset: Vec<String>,
}

/// What to delete.
#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// The topic
    #[arg(value_parser = input::topic)]
    name: TopicName,
}

/// Where to give up what is lost.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sagwan topic accept-loss orders --partition 3
For a partition that is read-only because the end of its log is lost; `sagwan topic describe` says why. What can be \
read of it stays; what cannot is lost for good, and readers are told. The partition goes on far above, with offsets \
that were never used. After that of __consumer_offsets, groups go on from what can be read, which may be older.")]
pub(super) struct AcceptLossArgs {
    /// The topic; __consumer_offsets, too
    #[arg(value_parser = input::topic)]
    name: TopicName,
    /// The partition
    #[arg(long, value_name = "N", value_parser = input::partition, allow_hyphen_values = true)]
    partition: PartitionId,
}

#[derive(Debug, Serialize)]
struct ListingRow {
    name: String,
    id: String,
    partitions: u32,
    internal: bool,
    size_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Description {
    name: String,
    id: String,
    internal: bool,
    partitions: Vec<PartitionRow>,
    config: Vec<ConfigRow>,
}

#[derive(Debug, Serialize)]
struct PartitionRow {
    partition: i32,
    state: &'static str,
    detail: String,
    leader_epoch: i32,
    log_start_offset: i64,
    high_watermark: i64,
    log_end_offset: i64,
    size_bytes: u64,
    segments: u32,
}

#[derive(Debug, Serialize)]
struct ConfigRow {
    name: String,
    value: String,
    is_default: bool,
    documentation: String,
}

pub(super) async fn run(command: TopicCommand, client: &Client) -> Result<(), Failure> {
    match command {
        TopicCommand::Create(args) => create(args, client).await,
        TopicCommand::List(args) => list(args, client).await,
        TopicCommand::Describe(args) => describe(args, client).await,
        TopicCommand::Alter(args) => alter(args, client).await,
        TopicCommand::Delete(args) => delete(args, client).await,
        TopicCommand::AcceptLoss(args) => accept_loss(args, client).await,
    }
}

async fn create(args: CreateArgs, client: &Client) -> Result<(), Failure> {
    let topic = NewTopic {
        partitions: args.partitions,
        config: args.config.into_iter().collect(),
        ..NewTopic::new(args.name)
    };
    let topic = client.admin().create_topic(topic).await?;
    output::line(&format!("created topic {} with {}", topic.name, partitions(&topic)))
}

async fn list(args: ListArgs, client: &Client) -> Result<(), Failure> {
    let topics = client.admin().list_topics(args.internal).await?;
    let rows: Vec<_> = topics.into_iter().map(ListingRow::from).collect();
    output::print(args.output.output, &rows, |rows| {
        let row =
            |row: &ListingRow| [row.name.clone(), row.partitions.to_string(), output::size(row.size_bytes)];
        output::table(["TOPIC", "PARTITIONS", "SIZE"], rows.iter().map(row))
    })
}

async fn describe(args: DescribeArgs, client: &Client) -> Result<(), Failure> {
    let topic = Description::from(client.admin().describe_topic(&args.name).await?);
    output::print(args.output.output, &topic, |topic| {
        let partition = |row: &PartitionRow| {
            // A fenced one is not empty: nothing is known of it.
            let known = |figure: String| {
                if row.state == PartitionState::Fenced.as_str() { "-".to_owned() } else { figure }
            };
            [
                row.partition.to_string(),
                row.state.to_owned(),
                known(row.leader_epoch.to_string()),
                known(row.log_start_offset.to_string()),
                known(row.high_watermark.to_string()),
                known(row.segments.to_string()),
                known(output::size(row.size_bytes)),
                row.detail.clone(),
            ]
        };
        let header = ["PARTITION", "STATE", "EPOCH", "EARLIEST", "LATEST", "SEGMENTS", "SIZE", "DETAIL"];
        let partitions = output::table(header, topic.partitions.iter().map(partition));
        let setting = |row: &ConfigRow| {
            let default = if row.is_default { "default" } else { "" };
            [row.name.clone(), row.value.clone(), default.to_owned(), row.documentation.clone()]
        };
        let settings = output::table(["SETTING", "VALUE", "", "MEANING"], topic.config.iter().map(setting));
        format!("topic {}, id {}\n\n{partitions}\n\n{settings}", topic.name, topic.id)
    })
}

async fn alter(args: AlterArgs, client: &Client) -> Result<(), Failure> {
    let update = TopicUpdate {
        set: args.config.into_iter().collect(),
        reset: args.reset,
        partitions: args.partitions,
        ..TopicUpdate::new(args.name)
    };
    let topic = client.admin().update_topic(update).await?;
    output::line(&format!("altered topic {}, with {}", topic.name, partitions(&topic)))
}

async fn delete(args: DeleteArgs, client: &Client) -> Result<(), Failure> {
    client.admin().delete_topic(&args.name).await?;
    output::line(&format!("deleted topic {}", args.name))
}

async fn accept_loss(args: AcceptLossArgs, client: &Client) -> Result<(), Failure> {
    let AcceptLossArgs { name, partition } = args;
    let AcceptedLoss { first, next, leader_epoch } = client.admin().accept_loss(&name, partition).await?;
    output::line(&format!(
        "{name}-{partition} goes on at offset {next} with leader epoch {}; offsets {first} to {} are given up",
        leader_epoch.0,
        next.get() - 1
    ))
}

fn partitions(topic: &TopicInfo) -> String {
    match topic.partitions.len() {
        1 => "1 partition".to_owned(),
        count => format!("{count} partitions"),
    }
}

impl From<TopicListing> for ListingRow {
    fn from(topic: TopicListing) -> Self {
        Self {
            name: topic.name.as_str().to_owned(),
            id: topic.id,
            partitions: topic.partitions,
            internal: topic.internal,
            size_bytes: topic.size_bytes,
        }
    }
}

impl From<TopicInfo> for Description {
    fn from(topic: TopicInfo) -> Self {
        Self {
            name: topic.name.as_str().to_owned(),
            id: topic.id,
            internal: topic.internal,
            partitions: topic.partitions.into_iter().map(PartitionRow::from).collect(),
            config: topic.config.into_iter().map(ConfigRow::from).collect(),
        }
    }
}

impl From<PartitionInfo> for PartitionRow {
    fn from(partition: PartitionInfo) -> Self {
        Self {
            partition: partition.partition.get(),
            state: partition.state.as_str(),
            detail: partition.detail,
            leader_epoch: partition.leader_epoch.0,
            log_start_offset: partition.log_start_offset.get(),
            high_watermark: partition.high_watermark.get(),
            log_end_offset: partition.log_end_offset.get(),
            size_bytes: partition.size_bytes,
            segments: partition.segments,
        }
    }
}

impl From<ConfigEntry> for ConfigRow {
    fn from(entry: ConfigEntry) -> Self {
        Self {
            name: entry.name,
            value: entry.value,
            is_default: entry.is_default,
            documentation: entry.documentation,
        }
    }
}

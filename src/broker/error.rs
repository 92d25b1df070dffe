//! What can go wrong with topics and partitions. Each edge turns these into its protocol's words in one
//! place.

use std::io::ErrorKind;
use std::path::PathBuf;

use super::catalogue::CatalogueError;
use crate::record::{BatchError, ProducerStamp};
use crate::storage::limits::is_exhausted;
use crate::storage::{LogError, ProducerError};
use crate::types::{Offset, PartitionId, TopicName};

/// Why an operation on a topic or a partition failed. Unless a variant says otherwise, nothing has changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// No topic has this name, or it has just been deleted.
    #[error("unknown topic {topic}")]
    UnknownTopic {
        /// What was asked for.
        topic: TopicName,
    },
    /// The topic has no such partition.
    #[error("topic {topic} has partitions 0 to {}, not {partition}", .partitions.saturating_sub(1))]
    UnknownPartition {
        /// The topic.
        topic: TopicName,
        /// What was asked for.
        partition: i32,
        /// How many there are.
        partitions: u32,
    },
    /// The name is taken.
    #[error("topic {topic} exists already")]
    TopicExists {
        /// The name.
        topic: TopicName,
    },
    /// A number of partitions that the topic cannot have.
    #[error("{partitions} partitions: {}", partitions_allowed(*.min, *.max))]
    InvalidPartitions {
        /// What was asked for.
        partitions: i64,
        /// The fewest it can have.
        min: u32,
        /// The most it can have; less than `min` where the broker has no room for more.
        max: u32,
    },
    /// A topic setting that does not exist, or a value that it cannot have.
    #[error("topic setting {name} = {value}: {requirement}")]
    InvalidConfig {
        /// The setting.
        name: String,
        /// What it was set to.
        value: String,
        /// What is allowed.
        requirement: String,
    },
    /// A topic setting or value that is known, but whose work this version does not do.
    #[error("topic setting {name} = {value} is {detail}")]
    UnsupportedConfig {
        /// The setting.
        name: String,
        /// What it was set to.
        value: String,
        /// Why not.
        detail: String,
    },
    /// The topic holds the broker's own state: clients can read it, and nothing else.
    #[error("topic {topic} is internal: it can be read, but not created, changed, written or deleted")]
    InternalTopic {
        /// The topic.
        topic: TopicName,
    },
    /// There is no such offset in the partition.
    #[error(
        "offset {offset} is out of range: {topic}-{partition} has {log_start_offset} to {high_watermark} (the end)"
    )]
    OffsetOutOfRange {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionId,
        /// What was asked for.
        offset: i64,
        /// The first offset there is.
        log_start_offset: Offset,
        /// The end: the next offset to become readable.
        high_watermark: Offset,
    },
    /// The batch is not one, or not one to accept.
    #[error("{topic}-{partition}: {error}")]
    Batch {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionId,
        /// What is wrong with it.
        error: BatchError,
    },
    /// The request makes no sense, whatever the topic.
    #[error("{field}: {detail}")]
    InvalidRequest {
        /// The part of the request.
        field: String,
        /// What is wrong with it.
        detail: String,
    },
    /// No room on the disk. It may work again later.
    #[error("no room on the disk for {}", place(.topic, *.partition))]
    StorageFull {
        /// The topic.
        topic: TopicName,
        /// The partition, where it is about one.
        partition: Option<PartitionId>,
    },
    /// There are as many files open, or mapped, as may be. It works again as soon as some are let go.
    #[error("too many files are open for {}: {detail}", place(.topic, *.partition))]
    TooManyFiles {
        /// The topic.
        topic: TopicName,
        /// The partition, where it is about one.
        partition: Option<PartitionId>,
        /// The operation, the file and the reason.
        detail: String,
    },
    /// The partition takes no writes, or was not opened at all, until someone has looked at it.
    #[error("{topic}-{partition} is fenced: {detail}")]
    Fenced {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionId,
        /// What happened to it.
        detail: String,
    },
    /// The partition's log is being opened again, behind a loss that was accepted. Try again.
    #[error("{topic}-{partition} is being opened again")]
    Reopening {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionId,
    },
    /// The end of the log is not lost, so nothing is to be accepted.
    #[error("{topic}-{partition} has no loss to accept: {detail}")]
    NothingLost {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionId,
        /// What it is.
        detail: String,
    },
    /// What was written to this range of offsets is not what is there now. The rest can be read.
    #[error("{topic}-{partition}: offsets {first} to {last} are lost: {detail}")]
    DataLoss {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionId,
        /// The first offset of the range.
        first: Offset,
        /// The last offset of the range.
        last: Offset,
        /// An operator has accepted the loss of this range.
        accepted: bool,
        /// What was found.
        detail: String,
    },
    /// The disk did not do what it was asked for.
    #[error("{}: {detail}", place(.topic, *.partition))]
    Storage {
        /// The topic.
        topic: TopicName,
        /// The partition, where it is about one.
        partition: Option<PartitionId>,
        /// The operation, the file and the reason.
        detail: String,
    },
    /// No producer id could be set aside. It may work again later.
    #[error("cannot set aside producer ids: {detail}")]
    NoProducerId {
        /// Whether there is no room on the disk.
        is_full: bool,
        /// The operation, the file and the reason.
        detail: String,
    },
    /// The batch has another offset to go to than it was to have.
    #[error("{topic}-{partition}: the next offset is {next}, not {expected}")]
    UnexpectedOffset {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionId,
        /// The one that the producer expected.
        expected: Offset,
        /// The one the batch would have got.
        next: Offset,
    },
    /// The batch has a producer id that has not been given out: somebody made it up.
    #[error("{topic}-{partition}: producer id {} has not been given out: get one with InitProducer", .stamp.producer_id)]
    UnknownProducer {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionId,
        /// What the batch says of its producer.
        stamp: ProducerStamp,
    },
    /// The batch is not the one that its producer has to send next.
    #[error("{topic}-{partition}: {error}")]
    Producer {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionId,
        /// What is wrong with it.
        error: ProducerError,
    },
    /// The broker takes no new work.
    #[error("the broker is shutting down")]
    ShuttingDown,
}

fn partitions_allowed(min: u32, max: u32) -> String {
    if min <= max {
        format!("a topic can have {min} to {max} here")
    } else {
        "the broker has no room for them under broker.max_partitions".to_owned()
    }
}

fn place(topic: &TopicName, partition: Option<PartitionId>) -> String {
    partition.map_or_else(|| format!("topic {topic}"), |partition| format!("{topic}-{partition}"))
}

impl BrokerError {
    /// What a failed change of a topic, as opposed to one of its partitions, means to the caller.
    pub(super) fn of_topic(topic: &TopicName, error: &LogError) -> Self {
        Self::of_log(topic, None, error)
    }

    /// As [`Self::of_topic`], where it is about a partition. A closed log is one of a broker that shuts down:
    /// a caller that can tell otherwise does so first.
    pub(super) fn of_log(topic: &TopicName, partition: Option<PartitionId>, error: &LogError) -> Self {
        let topic = topic.clone();
        match (error, partition) {
            (LogError::Io { source, .. }, _) if is_full(source.kind()) => {
                Self::StorageFull { topic, partition }
            }
            (LogError::Io { source, .. }, _) if is_exhausted(source) => {
                Self::TooManyFiles { topic, partition, detail: error.to_string() }
            }
            (LogError::OutOfRange { offset, log_start_offset, durable_offset }, Some(partition)) => {
                Self::OffsetOutOfRange {
                    topic,
                    partition,
                    offset: offset.get(),
                    log_start_offset: *log_start_offset,
                    high_watermark: *durable_offset,
                }
            }
            (LogError::Sealed { reason }, Some(partition)) => {
                Self::Fenced { topic, partition, detail: reason.to_string() }
            }
            (LogError::Closed, _) => Self::ShuttingDown,
            (error, _) => Self::Storage { topic, partition, detail: error.to_string() },
        }
    }

    /// What a failed change of the catalogue means to who asked for a producer id.
    pub(super) fn of_producer_ids(error: &LogError) -> Self {
        let is_full = matches!(error, LogError::Io { source, .. } if is_full(source.kind()));
        Self::NoProducerId { is_full, detail: error.to_string() }
    }

    /// The error for work that a panic or the end of the runtime cut short.
    pub(crate) fn cut_short(
        topic: &TopicName,
        partition: Option<PartitionId>,
        error: &tokio::task::JoinError,
    ) -> Self {
        if error.is_cancelled() {
            Self::ShuttingDown
        } else {
            Self::Storage { topic: topic.clone(), partition, detail: format!("internal error: {error}") }
        }
    }
}

impl From<CatalogueError> for BrokerError {
    fn from(error: CatalogueError) -> Self {
        match error {
            CatalogueError::TopicExists { topic } => Self::TopicExists { topic },
            CatalogueError::UnknownTopic { topic } => Self::UnknownTopic { topic },
            CatalogueError::InvalidPartitions { partitions, min, max } => {
                Self::InvalidPartitions { partitions, min, max }
            }
        }
    }
}

fn is_full(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// Why a broker could not start on its data directory. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenBrokerError {
    /// The list of topics cannot be read or makes no sense. Starting without it would orphan every topic.
    #[error("cannot use the catalogue of topics {path}: {detail}{}", old_catalogue(.old.as_ref()))]
    Catalogue {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
        /// The one before it, if it is there.
        old: Option<PathBuf>,
    },
    /// The store could not begin its work.
    #[error("cannot start the store: {0}")]
    Store(#[from] LogError),
}

/// Why the broker could not end in an orderly way. The next start recovers as after a crash.
#[derive(Debug, thiserror::Error)]
pub enum CloseBrokerError {
    /// The store could not finish its work.
    #[error("cannot close the store: {0}")]
    Store(#[from] LogError),
    /// A panic or the end of the runtime cut it short.
    #[error("cannot close the store: {0}")]
    CutShort(#[from] tokio::task::JoinError),
}

fn old_catalogue(old: Option<&PathBuf>) -> String {
    old.map_or_else(String::new, |old| {
        format!(
            ". The one before it, without the last change, is {}: to go on from there, put a copy in its place",
            old.display()
        )
    })
}

//! The one place where what went wrong becomes what the wire says.
//!
//! A [`Failure`] has the facts of the `Error` message of `common.proto`: a code, a reason, a text for people, metadata
//! and, where a retry makes sense, how long to wait. A call that fails as a whole says it by its gRPC status with
//! `google.rpc.ErrorInfo` and `RetryInfo`; a part of a call says it by an `Error`. Both are made from the same value,
//! so they cannot disagree.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::broker::BrokerError;
use crate::group::GroupError;
use crate::proto;
use crate::record::{BatchError, InvalidBatch, ProducerStamp, UnsupportedBatch};
use crate::storage::ProducerError;
use crate::types::{InvalidGroupName, InvalidTopicName, Offset, PartitionId, TopicName};

/// The domain of every `google.rpc.ErrorInfo`.
pub const ERROR_DOMAIN: &str = "sagwan";

/// A full disk is not emptied in a moment.
const STORAGE_FULL_RETRY: Duration = Duration::from_secs(5);
/// Other work lets files go all the time.
const TOO_MANY_FILES_RETRY: Duration = Duration::from_secs(1);
/// The next read looks at the file anew.
const VANISHED_RETRY: Duration = Duration::from_millis(100);
/// About what it takes to open a log again.
const REOPENING_RETRY: Duration = Duration::from_millis(100);
/// About what a restart takes.
const SHUTTING_DOWN_RETRY: Duration = Duration::from_secs(1);

/// As long as clients that stand still are given when memory is short.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// Why a call, or one part of it, failed.
#[derive(Debug, Clone)]
pub(super) struct Failure(Box<Facts>);

#[derive(Debug, Clone)]
struct Facts {
    code: Code,
    reason: &'static str,
    message: String,
    metadata: Vec<(&'static str, String)>,
    retry_after: Option<Duration>,
}

impl Failure {
    fn new(
        code: Code,
        reason: &'static str,
        message: impl Into<String>,
        metadata: Vec<(&'static str, String)>,
    ) -> Self {
        Self(Box::new(Facts { code, reason, message: message.into(), metadata, retry_after: None }))
    }

    fn retry_after(mut self, delay: Duration) -> Self {
        self.0.retry_after = Some(delay);
        self
    }

    /// A request that makes no sense: which field, and what it should be.
    pub(super) fn invalid_request(field: impl Into<String>, requirement: impl Into<String>) -> Self {
        let (field, requirement) = (field.into(), requirement.into());
        Self::new(
            Code::InvalidArgument,
            "INVALID_REQUEST",
            format!("invalid request: {field}: {requirement}"),
            vec![("field", field)],
        )
    }

    /// Numbers that no producer has.
    pub(super) fn invalid_producer(producer_id: i64, producer_epoch: i32, base_sequence: i32) -> Self {
        let message = format!(
            "producer id {producer_id}, epoch {producer_epoch} and sequence {base_sequence} are no producer's: the id comes \
             from InitProducer and is not 0, none is negative, and the highest epoch is {}",
            i16::MAX
        );
        Self::no_producer(message, producer_id, producer_epoch, base_sequence)
    }

    fn no_producer(message: String, producer_id: i64, producer_epoch: i32, base_sequence: i32) -> Self {
        let metadata = vec![
            ("producer_id", producer_id.to_string()),
            ("producer_epoch", producer_epoch.to_string()),
            ("base_sequence", base_sequence.to_string()),
        ];
        Self::new(Code::InvalidArgument, "INVALID_PRODUCER", message, metadata)
    }

    /// A request larger than the transport takes, in whose words: it alone knows how large.
    pub(super) fn request_too_large(found: &str) -> Self {
        let message = format!("the request is larger than the broker's grpc.max_message_bytes: {found}");
        Self::new(Code::InvalidArgument, "MESSAGE_TOO_LARGE", message, Vec::new())
    }

    /// Records that were stored and cannot be decoded.
    pub(super) fn undecodable(
        topic: &str,
        partition: i32,
        first: Offset,
        last: Offset,
        error: &BatchError,
    ) -> Self {
        let message = format!(
            "offsets {first} to {last} of {topic}-{partition} cannot be decoded: {error}; \
             read on from offset {} to leave them out",
            last.plus(1)
        );
        Self::new(Code::DataLoss, "DATA_LOSS", message, data_loss(topic, partition, first, last))
    }

    /// Records that were there when they were found, and not any more when they were sent.
    pub(super) fn vanished(topic: &str, partition: i32) -> Self {
        let message = format!(
            "{topic}-{partition}: a segment was cut, or became unreadable, while it was being sent; read again to learn \
             what is left"
        );
        let metadata = vec![("topic", topic.to_owned()), ("partition", partition.to_string())];
        Self::new(Code::Internal, "STORAGE_ERROR", message, metadata).retry_after(VANISHED_RETRY)
    }

    /// A reader that took nothing for too long.
    pub(super) fn stream_stalled(timeout: Duration) -> Self {
        let message = format!(
            "the stream was ended because its reader took nothing for {} ms; open it again from the last offset read",
            timeout.as_millis()
        );
        Self::new(Code::ResourceExhausted, "STREAM_STALLED", message, Vec::new())
    }

    /// A request of which nothing more came for too long, or for longer than the memory lasted.
    pub(super) fn request_stalled() -> Self {
        let message = "the request was given up because it came to a halt half way; send it again";
        Self::new(Code::ResourceExhausted, "REQUEST_STALLED", message, Vec::new()).retry_after(BUSY_RETRY)
    }

    /// No memory for a message, as others are using it.
    pub(super) fn busy(setting: &'static str) -> Self {
        let message = format!("all of {setting} is in use; try again later");
        Self::new(Code::ResourceExhausted, "BROKER_BUSY", message, vec![("setting", setting.to_owned())])
            .retry_after(BUSY_RETRY)
    }

    /// An answer for which all the memory would not do.
    pub(super) fn answer_too_large(bytes: u64) -> Self {
        let message = format!(
            "the answer would take {bytes} bytes, more than the broker's grpc.response_memory_bytes; ask for less, or for \
             FETCH_FORMAT_RECORD_BATCHES"
        );
        Self::new(
            Code::FailedPrecondition,
            "ANSWER_TOO_LARGE",
            message,
            vec![("size_bytes", bytes.to_string())],
        )
    }

    /// Whether the request would fail again as it is: it makes no sense, or names what does not exist.
    pub(super) fn blames_request(&self) -> bool {
        matches!(self.0.code, Code::InvalidArgument | Code::NotFound)
    }

    /// The broker ends.
    pub(super) fn shutting_down() -> Self {
        BrokerError::ShuttingDown.into()
    }

    /// A bug of ours, such as a panic: the log has the details, the client has none to use.
    pub(super) fn internal() -> Self {
        let message = "internal error: please report it with what the broker's log says";
        Self::new(Code::Internal, "INTERNAL_ERROR", message, Vec::new())
    }
}

/// What every `DATA_LOSS` carries.
fn data_loss(topic: &str, partition: i32, first: Offset, last: Offset) -> Vec<(&'static str, String)> {
    vec![
        ("topic", topic.to_owned()),
        ("partition", partition.to_string()),
        ("first_offset", first.to_string()),
        ("last_offset", last.to_string()),
    ]
}

fn place(topic: &TopicName, partition: PartitionId) -> Vec<(&'static str, String)> {
    place_in(topic, Some(partition))
}

/// Where it is about a topic, or one of its partitions.
fn place_in(topic: &TopicName, partition: Option<PartitionId>) -> Vec<(&'static str, String)> {
    let mut metadata = vec![("topic", topic.to_string())];
    metadata.extend(partition.map(|partition| ("partition", partition.to_string())));
    metadata
}

fn batch_failure(topic: &TopicName, partition: PartitionId, message: String, error: &BatchError) -> Failure {
    match error {
        BatchError::Corrupt { .. } => {
            Failure::new(Code::InvalidArgument, "CORRUPT_BATCH", message, place(topic, partition))
        }
        &BatchError::Invalid(InvalidBatch::Producer { producer_id, producer_epoch, base_sequence }) => {
            Failure::invalid_producer(producer_id, producer_epoch.into(), base_sequence)
        }
        BatchError::Invalid { .. } => {
            Failure::new(Code::InvalidArgument, "INVALID_RECORD", message, place(topic, partition))
        }
        BatchError::TooLarge { size_bytes, max_message_bytes } => Failure::new(
            Code::InvalidArgument,
            "MESSAGE_TOO_LARGE",
            message,
            vec![
                ("size_bytes", size_bytes.to_string()),
                ("max_message_bytes", max_message_bytes.to_string()),
            ],
        ),
        BatchError::Unsupported(feature) => Failure::new(
            Code::Unimplemented,
            "UNSUPPORTED_FEATURE",
            message,
            vec![("feature", feature_name(*feature))],
        ),
    }
}

/// A feature by a name that programs can tell.
fn feature_name(feature: UnsupportedBatch) -> String {
    match feature {
        UnsupportedBatch::Transactional => "transactions",
    }
    .to_owned()
}

fn producer_failure(
    topic: &TopicName,
    partition: PartitionId,
    message: String,
    error: ProducerError,
) -> Failure {
    let mut metadata = place(topic, partition);
    let (code, reason) = match error {
        ProducerError::OutOfOrder { producer_id, expected, sequence } => {
            metadata.extend([
                ("producer_id", producer_id.to_string()),
                ("expected_sequence", expected.to_string()),
                ("sequence", sequence.to_string()),
            ]);
            (Code::FailedPrecondition, "OUT_OF_ORDER_SEQUENCE")
        }
        ProducerError::Forgotten { producer_id, sequence } => {
            metadata.extend([("producer_id", producer_id.to_string()), ("sequence", sequence.to_string())]);
            (Code::AlreadyExists, "DUPLICATE_SEQUENCE")
        }
        ProducerError::Fenced { producer_id, epoch, current } => {
            metadata.extend([
                ("producer_id", producer_id.to_string()),
                ("producer_epoch", epoch.to_string()),
                ("current_epoch", current.to_string()),
            ]);
            (Code::FailedPrecondition, "FENCED_PRODUCER")
        }
    };
    Failure::new(code, reason, message, metadata)
}

impl From<BrokerError> for Failure {
    fn from(error: BrokerError) -> Self {
        let message = error.to_string();
        let (code, reason, metadata) = match error {
            BrokerError::UnknownTopic { topic } => {
                (Code::NotFound, "UNKNOWN_TOPIC", vec![("topic", topic.to_string())])
            }
            BrokerError::UnknownPartition { topic, partition, partitions } => (
                Code::NotFound,
                "UNKNOWN_PARTITION",
                vec![
                    ("topic", topic.to_string()),
                    ("partition", partition.to_string()),
                    ("partitions", partitions.to_string()),
                ],
            ),
            BrokerError::TopicExists { topic } => {
                (Code::AlreadyExists, "TOPIC_ALREADY_EXISTS", vec![("topic", topic.to_string())])
            }
            BrokerError::InvalidPartitions { partitions, min, max } => (
                Code::InvalidArgument,
                "INVALID_PARTITIONS",
                vec![
                    ("partitions", partitions.to_string()),
                    ("min", min.to_string()),
                    ("max", max.to_string()),
                ],
            ),
            BrokerError::InvalidConfig { name, value, .. } => {
                (Code::InvalidArgument, "INVALID_CONFIG", vec![("name", name), ("value", value)])
            }
            BrokerError::UnsupportedConfig { name, value, .. } => {
                (Code::FailedPrecondition, "UNSUPPORTED_CONFIG", vec![("name", name), ("value", value)])
            }
            BrokerError::InternalTopic { topic } => {
                (Code::FailedPrecondition, "INTERNAL_TOPIC", vec![("topic", topic.to_string())])
            }
            BrokerError::OffsetOutOfRange { topic, partition, offset, log_start_offset, high_watermark } => {
                let mut metadata = place(&topic, partition);
                metadata.extend([
                    ("offset", offset.to_string()),
                    ("log_start_offset", log_start_offset.to_string()),
                    ("high_watermark", high_watermark.to_string()),
                ]);
                (Code::OutOfRange, "OFFSET_OUT_OF_RANGE", metadata)
            }
            BrokerError::Batch { topic, partition, error } => {
                return batch_failure(&topic, partition, message, &error);
            }
            BrokerError::InvalidRequest { field, .. } => {
                (Code::InvalidArgument, "INVALID_REQUEST", vec![("field", field)])
            }
            BrokerError::StorageFull { topic, partition } => {
                return Self::new(
                    Code::ResourceExhausted,
                    "STORAGE_FULL",
                    message,
                    place_in(&topic, partition),
                )
                .retry_after(STORAGE_FULL_RETRY);
            }
            BrokerError::TooManyFiles { topic, partition, .. } => {
                let place = place_in(&topic, partition);
                return Self::new(Code::ResourceExhausted, "TOO_MANY_OPEN_FILES", message, place)
                    .retry_after(TOO_MANY_FILES_RETRY);
            }
            BrokerError::Reopening { topic, partition } => {
                let mut metadata = place(&topic, partition);
                metadata.push(("detail", "it is being opened again".to_owned()));
                return Self::new(Code::Unavailable, "PARTITION_FENCED", message, metadata)
                    .retry_after(REOPENING_RETRY);
            }
            BrokerError::Fenced { topic, partition, detail } => {
                let mut metadata = place(&topic, partition);
                metadata.push(("detail", detail));
                (Code::Unavailable, "PARTITION_FENCED", metadata)
            }
            BrokerError::NothingLost { topic, partition, detail } => {
                let mut metadata = place(&topic, partition);
                metadata.push(("detail", detail));
                (Code::FailedPrecondition, "NO_LOSS", metadata)
            }
            BrokerError::DataLoss { topic, partition, first, last, .. } => {
                (Code::DataLoss, "DATA_LOSS", data_loss(topic.as_str(), partition.get(), first, last))
            }
            BrokerError::Storage { topic, partition, .. } => {
                (Code::Internal, "STORAGE_ERROR", place_in(&topic, partition))
            }
            BrokerError::NoProducerId { is_full: true, .. } => {
                return Self::new(Code::ResourceExhausted, "STORAGE_FULL", message, Vec::new())
                    .retry_after(STORAGE_FULL_RETRY);
            }
            BrokerError::NoProducerId { .. } => (Code::Internal, "STORAGE_ERROR", Vec::new()),
            BrokerError::UnexpectedOffset { topic, partition, expected, next } => {
                let mut metadata = place(&topic, partition);
                metadata
                    .extend([("expected_offset", expected.to_string()), ("next_offset", next.to_string())]);
                (Code::Aborted, "UNEXPECTED_OFFSET", metadata)
            }
            BrokerError::UnknownProducer { stamp, .. } => {
                let ProducerStamp { producer_id, producer_epoch, base_sequence } = stamp;
                return Self::no_producer(message, producer_id, producer_epoch.into(), base_sequence);
            }
            BrokerError::Producer { topic, partition, error } => {
                return producer_failure(&topic, partition, message, error);
            }
            BrokerError::ShuttingDown => {
                return Self::new(Code::Unavailable, "SHUTTING_DOWN", message, Vec::new())
                    .retry_after(SHUTTING_DOWN_RETRY);
            }
        };
        Self::new(code, reason, message, metadata)
    }
}

impl From<GroupError> for Failure {
    fn from(error: GroupError) -> Self {
        let message = error.to_string();
        let field = match error {
            GroupError::Broker(error) => return error.into(),
            GroupError::NoOffsets => "offsets",
            GroupError::InvalidOffset { .. } => "offsets.offset",
            GroupError::MetadataTooLong { .. } => "offsets.metadata",
        };
        Self::new(Code::InvalidArgument, "INVALID_REQUEST", message, vec![("field", field.to_owned())])
    }
}

impl From<InvalidTopicName> for Failure {
    fn from(error: InvalidTopicName) -> Self {
        let message = error.to_string();
        Self::new(Code::InvalidArgument, "INVALID_TOPIC_NAME", message, vec![("topic", error.name)])
    }
}

impl From<Failure> for Status {
    fn from(Failure(facts): Failure) -> Self {
        let metadata: HashMap<String, String> =
            facts.metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let mut details = ErrorDetails::with_error_info(facts.reason, ERROR_DOMAIN, metadata);
        if let Some(delay) = facts.retry_after {
            details.set_retry_info(Some(delay));
        }
        Self::with_error_details(facts.code, facts.message, details)
    }
}

impl From<Failure> for proto::Error {
    fn from(Failure(facts): Failure) -> Self {
        Self {
            code: facts.code.into(),
            reason: facts.reason.to_owned(),
            message: facts.message,
            metadata: facts.metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            retry_after_ms: facts.retry_after.map(|delay| delay.as_millis() as i64),
        }
    }
}

/// The group's name as it was given, cut to what may go into metadata.
pub(super) fn invalid_group(given: &str, error: &InvalidGroupName) -> Failure {
    let group: String = given.chars().take(crate::types::MAX_GROUP_NAME_BYTES).collect();
    Failure::new(Code::InvalidArgument, "INVALID_GROUP", error.to_string(), vec![("group", group)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> TopicName {
        TopicName::parse("orders").expect("a valid name")
    }

    #[test]
    fn a_status_and_a_part_of_an_answer_say_the_same() {
        let partition = PartitionId::new(3).expect("a partition");
        let failure = Failure::from(BrokerError::StorageFull { topic: topic(), partition: Some(partition) });
        let part = proto::Error::from(failure.clone());
        let status = Status::from(failure);
        let info = status.get_details_error_info().expect("ErrorInfo");
        assert_eq!(info.domain, ERROR_DOMAIN);
        assert_eq!(info.reason, part.reason);
        assert_eq!(info.metadata, part.metadata);
        assert_eq!(i32::from(status.code()), part.code);
        assert_eq!(status.message(), part.message);
        let retry = status.get_details_retry_info().expect("RetryInfo").retry_delay.expect("a delay");
        assert_eq!(Some(retry.as_millis() as i64), part.retry_after_ms);
        assert_eq!(part.metadata.get("partition").map(String::as_str), Some("3"));
    }

    #[test]
    fn an_offset_out_of_range_tells_the_valid_range() {
        let error = BrokerError::OffsetOutOfRange {
            topic: topic(),
            partition: PartitionId::default(),
            offset: -5,
            log_start_offset: Offset::clamped(10),
            high_watermark: Offset::clamped(20),
        };
        let part = proto::Error::from(Failure::from(error));
        let metadata = |name: &str| part.metadata.get(name).map(String::as_str);
        assert_eq!(part.reason, "OFFSET_OUT_OF_RANGE");
        assert_eq!(metadata("offset"), Some("-5"));
        assert_eq!(metadata("log_start_offset"), Some("10"));
        assert_eq!(metadata("high_watermark"), Some("20"));
    }

    #[test]
    fn a_retry_is_only_proposed_where_it_makes_sense() {
        let part = proto::Error::from(Failure::from(BrokerError::UnknownTopic { topic: topic() }));
        assert_eq!(part.retry_after_ms, None);
        let part = proto::Error::from(Failure::shutting_down());
        assert_eq!(part.retry_after_ms, Some(1_000));
    }
}

//! Topics, produce and fetch.

use serde::Deserialize;

use super::{ConfigError, in_range, require};
use crate::types::MAX_PARTITIONS_PER_TOPIC;

/// Settings of the broker and of consumer groups.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerConfig {
    /// Whether producing to an unknown topic creates it. Default: true.
    pub auto_create_topics: bool,
    /// Partitions of a topic created without saying how many. 1 to 10,000. Default: 1.
    pub default_partitions: u32,
    /// Partitions of all topics together. 1 to 1,000,000. Default: 100,000.
    pub max_partitions: u32,
    /// The greatest `max_message_bytes` a topic can be given. 1 KiB to 256 MiB. Default: 16 MiB.
    pub max_message_bytes_limit: u64,
    /// How far ahead of the broker's clock a record's timestamp may be, in ms. 0 to i64::MAX. Default: one hour.
    pub timestamp_after_max_ms: i64,
    /// How closely a compressed batch is looked at before it is appended. Default: `relaxed`.
    pub batch_validation: BatchValidation,
    /// The most one batch may unpack to wherever it is decompressed. 1 MiB to 2 GiB. Default: 128 MiB.
    pub max_decompressed_bytes: u64,
    /// Accepted and not yet acknowledged bytes, for the whole broker; beyond it producers wait. 1 MiB to 64 GiB.
    /// Default: 128 MiB.
    pub queue_bytes: u64,
    /// The most one fetch returns, whatever it asks for. 64 KiB to 1 GiB. Default: 50 MiB.
    pub fetch_max_bytes: u32,
    /// The longest a fetch may wait, in ms; longer waits are cut to it. 0 to 3,600,000. Default: 300,000.
    pub fetch_max_wait_ms: u64,
    /// Partitions of `__consumer_offsets` when it is created. 1 to 1,000. Default: 16.
    pub offsets_topic_partitions: u32,
    /// The longest metadata of a committed offset, in bytes. 0 to 65,535. Default: 4,096.
    pub offset_metadata_max_bytes: u32,
}

/// How closely a compressed batch is looked at before it is appended. An uncompressed one is always walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchValidation {
    /// Its header and checksum.
    Relaxed,
    /// It is decompressed and its records are walked too.
    Strict,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            auto_create_topics: true,
            default_partitions: 1,
            max_partitions: 100_000,
            max_message_bytes_limit: 16 << 20,
            timestamp_after_max_ms: 3_600_000,
            batch_validation: BatchValidation::Relaxed,
            max_decompressed_bytes: 128 << 20,
            queue_bytes: 128 << 20,
            fetch_max_bytes: 50 << 20,
            fetch_max_wait_ms: 300_000,
            offsets_topic_partitions: 16,
            offset_metadata_max_bytes: 4_096,
        }
    }
}

impl BrokerConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        in_range("broker.default_partitions", self.default_partitions, 1..=MAX_PARTITIONS_PER_TOPIC)?;
        in_range("broker.max_partitions", self.max_partitions, 1..=1_000_000)?;
        in_range("broker.max_message_bytes_limit", self.max_message_bytes_limit, 1 << 10..=256 << 20)?;
        in_range("broker.timestamp_after_max_ms", self.timestamp_after_max_ms, 0..=i64::MAX)?;
        in_range("broker.max_decompressed_bytes", self.max_decompressed_bytes, 1 << 20..=2 << 30)?;
        in_range("broker.queue_bytes", self.queue_bytes, 1 << 20..=64 << 30)?;
        in_range("broker.fetch_max_bytes", self.fetch_max_bytes, 64 << 10..=1 << 30)?;
        in_range("broker.fetch_max_wait_ms", self.fetch_max_wait_ms, 0..=3_600_000)?;
        in_range("broker.offsets_topic_partitions", self.offsets_topic_partitions, 1..=1_000)?;
        in_range("broker.offset_metadata_max_bytes", self.offset_metadata_max_bytes, 0..=65_535)?;
        require(
            self.default_partitions <= self.max_partitions,
            "broker.default_partitions",
            self.default_partitions,
            || format!("must be at most broker.max_partitions = {}", self.max_partitions),
        )
    }
}

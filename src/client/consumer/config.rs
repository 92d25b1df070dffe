//! Settings of a consumer: what it reads, and from where.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::error::Error;
use crate::client::position::{Start, TopicPartition};
use crate::types::{PartitionId, TopicName};

/// The most one response may be asked to hold.
const MAX_BYTES: usize = 1 << 30;

/// What a consumer reads, and how.
///
/// ```
/// use sagwan::client::{ConsumerConfig, GroupName, Offset, PartitionId, Position, Start, TopicName};
/// # fn main() -> Result<(), sagwan::client::Error> {
/// let orders = TopicName::parse("orders")?;
/// // All partitions, where the group "billing" left off; partition 0 from its very beginning.
/// let billing = Start::Committed { group: GroupName::parse("billing")?, fallback: Position::Earliest };
/// let config = ConsumerConfig::default()
///     .topic(orders.clone(), billing)
///     .partition(orders, PartitionId::default(), Position::Offset(Offset::ZERO));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerConfig {
    /// Topics of which all partitions are read.
    pub topics: BTreeMap<TopicName, Start>,
    /// Single partitions; they prevail over `topics`.
    pub partitions: BTreeMap<TopicPartition, Start>,
    /// About the largest response, as stored. 1 B to 1 GiB; one whole batch is returned even if it is larger.
    /// Default: 1 MiB.
    pub max_bytes: usize,
    /// The most one batch may unpack to. Default: 128 MiB.
    pub max_decompressed_bytes: u64,
    /// How long to try to reach a broker that does not answer before the consumer says so. Default: 2 min.
    pub reconnect_timeout: Duration,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            topics: BTreeMap::new(),
            partitions: BTreeMap::new(),
            max_bytes: 1 << 20,
            max_decompressed_bytes: 128 << 20,
            reconnect_timeout: Duration::from_mins(2),
        }
    }
}

impl ConsumerConfig {
    /// Reads all partitions that a topic has when the consumer is made.
    #[must_use]
    pub fn topic(mut self, topic: TopicName, start: impl Into<Start>) -> Self {
        self.topics.insert(topic, start.into());
        self
    }

    /// Reads one partition.
    #[must_use]
    pub fn partition(mut self, topic: TopicName, partition: PartitionId, start: impl Into<Start>) -> Self {
        self.partitions.insert(TopicPartition::new(topic, partition), start.into());
        self
    }

    /// Checks every value against its range.
    pub(super) fn validate(&self) -> Result<(), Error> {
        if self.topics.is_empty() && self.partitions.is_empty() {
            return Err(Error::invalid("a consumer needs a topic or a partition to read"));
        }
        if !(1..=MAX_BYTES).contains(&self.max_bytes) {
            let max_bytes = self.max_bytes;
            return Err(Error::invalid(format!("max_bytes = {max_bytes}: must be from 1 to {MAX_BYTES}")));
        }
        Ok(())
    }
}

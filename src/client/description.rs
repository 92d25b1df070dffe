//! What the broker tells about topics, partitions, offsets and itself.

use std::time::Duration;

use super::error::Error;
use super::position::{TopicPartition, offset_from_wire, partition_from_wire, topic_from_wire};
use crate::proto;
use crate::types::{LeaderEpoch, Offset, PartitionId, TopicName};

/// One line of the list of topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicListing {
    /// Its name.
    pub name: TopicName,
    /// A UUID; another one if the topic is deleted and created again.
    pub id: String,
    /// How many partitions it has.
    pub partitions: u32,
    /// Whether the broker keeps its own state there.
    pub internal: bool,
    /// What its segments take on the disk.
    pub size_bytes: u64,
}

/// All about one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: TopicName,
    /// A UUID; another one if the topic is deleted and created again.
    pub id: String,
    /// Whether the broker keeps its own state there.
    pub internal: bool,
    /// By partition.
    pub partitions: Vec<PartitionInfo>,
    /// By name.
    pub config: Vec<ConfigEntry>,
}

impl TopicInfo {
    /// The value of a setting.
    pub fn config(&self, name: &str) -> Option<&str> {
        self.config.iter().find(|entry| entry.name == name).map(|entry| entry.value.as_str())
    }
}

/// All about one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its number.
    pub partition: PartitionId,
    /// Raised after each unclean start.
    pub leader_epoch: LeaderEpoch,
    /// The earliest offset there.
    pub log_start_offset: Offset,
    /// The end of what readers may see.
    pub high_watermark: Offset,
    /// One past the last record appended, readable or not yet.
    pub log_end_offset: Offset,
    /// What its segments take on the disk.
    pub size_bytes: u64,
    /// How many segments it has.
    pub segments: u32,
    /// Whether it can be read and written.
    pub state: PartitionState,
    /// Why, when it is not online.
    pub detail: String,
}

/// What a partition can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionState {
    /// Reads and writes.
    Online,
    /// Takes no writes; readable up to its high watermark.
    ReadOnly,
    /// Takes neither reads nor writes.
    Fenced,
    /// A state this client does not know.
    Unknown,
}

impl PartitionState {
    /// Its name, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::ReadOnly => "read-only",
            Self::Fenced => "fenced",
            Self::Unknown => "unknown",
        }
    }
}

/// One setting of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Whether it was not set for this topic.
    pub is_default: bool,
    /// What it does.
    pub documentation: String,
}

/// An offset that a position stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedOffset {
    /// Where.
    pub partition: TopicPartition,
    /// The offset.
    pub offset: Offset,
    /// The timestamp of the record there, where the position was a timestamp and a record was found.
    pub timestamp_ms: Option<i64>,
    /// The leader epoch at that offset.
    pub leader_epoch: LeaderEpoch,
}

/// The broker itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerInfo {
    /// Its version.
    pub version: String,
    /// Its cluster.
    pub cluster_id: String,
    /// Its number there.
    pub broker_id: i32,
    /// Since its start.
    pub uptime: Duration,
    /// How many topics it has.
    pub topics: u32,
    /// How many partitions it has.
    pub partitions: u32,
    /// What it has counted.
    pub counters: BrokerCounters,
}

/// Since the start of the broker, unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BrokerCounters {
    /// Group syncs.
    pub syncs: u64,
    /// The time they took, in microseconds.
    pub sync_micros_total: u64,
    /// The time the slowest took, in microseconds.
    pub sync_micros_max: u64,
    /// Bytes in all groups.
    pub sync_group_bytes_total: u64,
    /// Appends in all groups.
    pub sync_group_appends_total: u64,
    /// Bytes in the largest group.
    pub sync_group_bytes_max: u64,
    /// Batches appended.
    pub appended_batches: u64,
    /// Bytes appended.
    pub appended_bytes: u64,
    /// Now: bytes accepted and not yet acknowledged.
    pub queue_bytes: u64,
    /// Now: bytes held by the tail cache.
    pub tail_cache_bytes: u64,
    /// Reads answered from the tail cache.
    pub tail_cache_reads: u64,
    /// Reads answered from segment files.
    pub segment_reads: u64,
    /// Now: partitions that take no writes.
    pub fenced_partitions: u32,
    /// Partitions that were recovered at the start.
    pub recovered_partitions: u32,
    /// Bytes that were scanned for it.
    pub recovered_bytes: u64,
    /// How often work in the background has panicked: each is a bug.
    pub upkeep_panics: u64,
}

/// A count that the contract spells as a signed number.
fn count<T: TryFrom<N> + Default, N>(value: N) -> T {
    T::try_from(value).unwrap_or_default()
}

impl TopicListing {
    pub(super) fn from_proto(listing: proto::TopicListing) -> Result<Self, Error> {
        Ok(Self {
            name: topic_from_wire(&listing.name)?,
            id: listing.id,
            partitions: count(listing.partitions),
            internal: listing.internal,
            size_bytes: count(listing.size_bytes),
        })
    }
}

impl TopicInfo {
    pub(super) fn from_proto(topic: Option<proto::TopicDescription>) -> Result<Self, Error> {
        let topic = topic.ok_or_else(|| Error::unexpected("the broker described no topic"))?;
        let config = topic.config.into_iter().map(|entry| ConfigEntry {
            name: entry.name,
            value: entry.value,
            is_default: entry.is_default,
            documentation: entry.documentation,
        });
        Ok(Self {
            name: topic_from_wire(&topic.name)?,
            id: topic.id,
            internal: topic.internal,
            partitions: topic
                .partitions
                .into_iter()
                .map(PartitionInfo::from_proto)
                .collect::<Result<_, _>>()?,
            config: config.collect(),
        })
    }
}

impl PartitionInfo {
    fn from_proto(partition: proto::PartitionDescription) -> Result<Self, Error> {
        Ok(Self {
            state: match partition.state() {
                proto::PartitionState::Online => PartitionState::Online,
                proto::PartitionState::ReadOnly => PartitionState::ReadOnly,
                proto::PartitionState::Fenced => PartitionState::Fenced,
                proto::PartitionState::Unspecified => PartitionState::Unknown,
            },
            partition: partition_from_wire(partition.partition)?,
            leader_epoch: LeaderEpoch(partition.leader_epoch),
            log_start_offset: offset_from_wire(partition.log_start_offset)?,
            high_watermark: offset_from_wire(partition.high_watermark)?,
            log_end_offset: offset_from_wire(partition.log_end_offset)?,
            size_bytes: count(partition.size_bytes),
            segments: count(partition.segments),
            detail: partition.detail,
        })
    }
}

impl ListedOffset {
    pub(super) fn from_proto(listed: proto::ListedOffset) -> Result<Self, Error> {
        if let Some(error) = listed.error {
            return Err(Error::from_proto(error));
        }
        Ok(Self {
            partition: TopicPartition::from_wire(&listed.topic, listed.partition)?,
            offset: offset_from_wire(listed.offset)?,
            timestamp_ms: listed.timestamp_ms,
            leader_epoch: LeaderEpoch(listed.leader_epoch),
        })
    }
}

impl BrokerInfo {
    pub(super) fn from_proto(broker: proto::DescribeBrokerResponse) -> Self {
        let counters = broker.counters.unwrap_or_default();
        Self {
            version: broker.version,
            cluster_id: broker.cluster_id,
            broker_id: broker.broker_id,
            uptime: Duration::from_millis(count(broker.uptime_ms)),
            topics: count(broker.topics),
            partitions: count(broker.partitions),
            counters: BrokerCounters {
                syncs: counters.syncs,
                sync_micros_total: counters.sync_micros_total,
                sync_micros_max: counters.sync_micros_max,
                sync_group_bytes_total: counters.sync_group_bytes_total,
                sync_group_appends_total: counters.sync_group_appends_total,
                sync_group_bytes_max: counters.sync_group_bytes_max,
                appended_batches: counters.appended_batches,
                appended_bytes: counters.appended_bytes,
                queue_bytes: counters.queue_bytes,
                tail_cache_bytes: counters.tail_cache_bytes,
                tail_cache_reads: counters.tail_cache_reads,
                segment_reads: counters.segment_reads,
                fenced_partitions: counters.fenced_partitions,
                recovered_partitions: counters.recovered_partitions,
                recovered_bytes: counters.recovered_bytes,
                upkeep_panics: counters.upkeep_panics,
            },
        }
    }
}

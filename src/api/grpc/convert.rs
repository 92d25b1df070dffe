//! Wire types into the broker's own, and back. Everything a client says is checked here once.

use std::collections::{BTreeMap, HashMap};

use super::error::{Failure, invalid_group};
use crate::broker::{self, BrokerStatus, Position, ProduceRecord};
use crate::group::{Commit, Committed};
use crate::proto;
use crate::record::{Codec, ProducerStamp};
use crate::storage::{LogState, LogStatus};
use crate::types::{GroupName, LeaderEpoch, Offset, TopicName};

/// What a fetch answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Records,
    RecordBatches,
}

pub(super) fn topic(name: &str) -> Result<TopicName, Failure> {
    Ok(TopicName::parse(name)?)
}

pub(super) fn group(name: &str) -> Result<GroupName, Failure> {
    GroupName::parse(name).map_err(|error| invalid_group(name, &error))
}

/// A number that counts something.
pub(super) fn non_negative(field: &'static str, value: i32) -> Result<u32, Failure> {
    u32::try_from(value)
        .map_err(|_| Failure::invalid_request(field, format!("{value} is negative; use 0 or more")))
}

/// A repeated field that must have something in it, but not without bounds.
pub(super) fn count(field: &'static str, given: usize, max: usize) -> Result<(), Failure> {
    if given == 0 {
        Err(Failure::invalid_request(field, "is empty; name at least one"))
    } else if given > max {
        Err(Failure::invalid_request(field, format!("has {given} elements; at most {max} fit in one call")))
    } else {
        Ok(())
    }
}

pub(super) fn format(value: i32) -> Result<Format, Failure> {
    match proto::FetchFormat::try_from(value) {
        Ok(proto::FetchFormat::Unspecified | proto::FetchFormat::Records) => Ok(Format::Records),
        Ok(proto::FetchFormat::RecordBatches) => Ok(Format::RecordBatches),
        Err(_) => Err(Failure::invalid_request("format", format!("{value} is no FetchFormat"))),
    }
}

pub(super) fn codec(value: i32) -> Result<Codec, Failure> {
    match proto::Compression::try_from(value) {
        Ok(proto::Compression::Unspecified | proto::Compression::None) => Ok(Codec::None),
        Ok(proto::Compression::Gzip) => Ok(Codec::Gzip),
        Ok(proto::Compression::Snappy) => Ok(Codec::Snappy),
        Ok(proto::Compression::Lz4) => Ok(Codec::Lz4),
        Ok(proto::Compression::Zstd) => Ok(Codec::Zstd),
        Err(_) => Err(Failure::invalid_request("compression", format!("{value} is no Compression"))),
    }
}

pub(super) fn position(position: Option<proto::Position>) -> Result<Position, Failure> {
    use proto::position::At;
    match position.and_then(|position| position.at) {
        None => Ok(Position::Earliest),
        Some(At::Offset(offset)) => Ok(Position::Offset(offset)),
        Some(At::TimestampMs(timestamp_ms)) => Ok(Position::TimestampMs(timestamp_ms)),
        Some(At::Anchor(value)) => match proto::Anchor::try_from(value) {
            Ok(proto::Anchor::Unspecified | proto::Anchor::Earliest) => Ok(Position::Earliest),
            Ok(proto::Anchor::Latest) => Ok(Position::Latest),
            Err(_) => Err(Failure::invalid_request("position.anchor", format!("{value} is no Anchor"))),
        },
    }
}

pub(super) fn produce_record(record: proto::Record) -> ProduceRecord {
    ProduceRecord {
        key: record.key,
        value: record.value,
        headers: record.headers.into_iter().map(|header| (header.key, header.value)).collect(),
        timestamp_ms: record.timestamp_ms,
    }
}

pub(super) fn expected_offset(value: i64) -> Result<Offset, Failure> {
    Offset::new(value).ok_or_else(|| {
        Failure::invalid_request("expected_offset", format!("{value} is negative; use 0 or more"))
    })
}

pub(super) fn producer(sequence: &proto::ProducerSequence) -> Result<ProducerStamp, Failure> {
    let &proto::ProducerSequence { producer_id, producer_epoch, base_sequence } = sequence;
    i16::try_from(producer_epoch)
        .ok()
        .filter(|epoch| producer_id > 0 && *epoch >= 0 && base_sequence >= 0)
        .map(|producer_epoch| ProducerStamp { producer_id, producer_epoch, base_sequence })
        .ok_or_else(|| Failure::invalid_producer(producer_id, producer_epoch, base_sequence))
}

pub(super) fn settings(map: HashMap<String, String>) -> BTreeMap<String, String> {
    map.into_iter().collect()
}

pub(super) fn commit(commit: proto::OffsetCommit) -> Result<Commit, Failure> {
    Ok(Commit {
        topic: topic(&commit.topic)?,
        partition: commit.partition,
        offset: commit.offset,
        leader_epoch: commit.leader_epoch.map(LeaderEpoch),
        metadata: commit.metadata,
    })
}

pub(super) fn committed(committed: Committed) -> proto::CommittedOffset {
    proto::CommittedOffset {
        topic: committed.topic.to_string(),
        partition: committed.partition.get(),
        offset: committed.offset.get(),
        leader_epoch: committed.leader_epoch.map(|epoch| epoch.0),
        metadata: committed.metadata,
        commit_timestamp_ms: committed.commit_timestamp_ms,
    }
}

pub(super) fn topic_listing(topic: &broker::TopicDescription) -> proto::TopicListing {
    let size_bytes: u64 = topic.partitions.iter().flatten().map(|status| status.size_bytes).sum();
    proto::TopicListing {
        name: topic.name.to_string(),
        id: topic.id.to_string(),
        partitions: topic.partitions.len() as i32,
        internal: topic.name.is_internal(),
        size_bytes: size_bytes as i64,
    }
}

pub(super) fn topic_description(topic: broker::TopicDescription) -> proto::TopicDescription {
    proto::TopicDescription {
        name: topic.name.to_string(),
        id: topic.id.to_string(),
        internal: topic.name.is_internal(),
        partitions: (0..)
            .zip(topic.partitions)
            .map(|(partition, status)| partition_description(partition, status))
            .collect(),
        config: topic
            .config
            .into_iter()
            .map(|entry| proto::ConfigEntry {
                name: entry.name.to_owned(),
                value: entry.value,
                is_default: entry.is_default,
                documentation: entry.documentation.to_owned(),
            })
            .collect(),
    }
}

fn partition_description(partition: i32, status: Result<LogStatus, String>) -> proto::PartitionDescription {
    let status = match status {
        Ok(status) => status,
        Err(detail) => {
            return proto::PartitionDescription {
                partition,
                state: proto::PartitionState::Fenced.into(),
                detail,
                ..Default::default()
            };
        }
    };
    let (state, detail) = match status.state {
        LogState::Online => (proto::PartitionState::Online, String::new()),
        LogState::ReadOnly { reason } => (proto::PartitionState::ReadOnly, reason.to_string()),
    };
    proto::PartitionDescription {
        partition,
        leader_epoch: status.leader_epoch.0,
        log_start_offset: status.log_start_offset.get(),
        high_watermark: status.durable_offset.get(),
        log_end_offset: status.log_end_offset.get(),
        size_bytes: status.size_bytes as i64,
        segments: status.segments as i32,
        state: state.into(),
        detail,
    }
}

pub(super) fn broker_description(status: BrokerStatus) -> proto::DescribeBrokerResponse {
    let storage = status.storage;
    proto::DescribeBrokerResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster_id: status.cluster_id,
        broker_id: status.broker_id,
        uptime_ms: status.uptime.as_millis() as i64,
        topics: status.topics as i32,
        partitions: status.partitions as i32,
        counters: Some(proto::BrokerCounters {
            syncs: storage.syncs,
            sync_micros_total: storage.sync_micros_total,
            sync_micros_max: storage.sync_micros_max,
            sync_group_bytes_total: storage.sync_group_bytes_total,
            sync_group_appends_total: storage.sync_group_appends_total,
            sync_group_bytes_max: storage.sync_group_bytes_max,
            appended_batches: storage.appended_batches,
            appended_bytes: storage.appended_bytes,
            queue_bytes: status.queue_bytes,
            tail_cache_bytes: storage.tail_cache_bytes,
            tail_cache_reads: storage.tail_cache_reads,
            segment_reads: storage.segment_reads,
            fenced_partitions: status.fenced_partitions,
            recovered_partitions: storage.recovered_logs,
            recovered_bytes: storage.recovered_bytes,
            upkeep_panics: storage.upkeep_panics,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_earliest_unless_it_says_otherwise() {
        use proto::position::At;
        let at = |at| position(Some(proto::Position { at }));
        assert_eq!(position(None).expect("valid"), Position::Earliest);
        assert_eq!(at(None).expect("valid"), Position::Earliest);
        assert_eq!(at(Some(At::Anchor(0))).expect("valid"), Position::Earliest);
        assert_eq!(at(Some(At::Anchor(2))).expect("valid"), Position::Latest);
        assert_eq!(at(Some(At::Offset(-7))).expect("valid"), Position::Offset(-7));
        assert!(at(Some(At::Anchor(99))).is_err());
    }

    #[test]
    fn an_unknown_enum_value_is_refused_and_not_taken_for_the_default() {
        assert!(format(3).is_err());
        assert!(codec(6).is_err());
        assert!(codec(-1).is_err());
        assert_eq!(codec(5).expect("valid"), Codec::Zstd);
    }

    #[test]
    fn a_partition_that_could_not_be_opened_is_fenced_and_says_why() {
        let fenced = partition_description(4, Err("its directory is missing".to_owned()));
        assert_eq!(fenced.state(), proto::PartitionState::Fenced);
        assert_eq!(fenced.partition, 4);
        assert_eq!(fenced.detail, "its directory is missing");
    }
}

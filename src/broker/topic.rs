//! One topic as it is at a moment. A change of its settings or its partitions makes a new one, which shares
//! the partitions; whoever holds the old one goes on with what was true when it asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::BrokerError;
use super::partition::Partition;
use super::partitioner::Sticky;
use super::topic_config::{ConfigEntry, TopicConfig};
use crate::storage::{LogHandle, LogState, LogStatus, OpenLogError};
use crate::types::{LeaderEpoch, MAX_PARTITIONS_PER_TOPIC, Offset, PartitionId, TopicId, TopicName};

/// A topic, as it is shown.
#[derive(Debug, Clone)]
pub struct TopicDescription {
    /// Its name.
    pub name: TopicName,
    /// Its identity.
    pub id: TopicId,
    /// By partition; `Err` tells why one could not be opened and takes neither reads nor writes.
    pub partitions: Vec<Result<LogStatus, String>>,
    /// All settings, by name.
    pub config: Vec<ConfigEntry>,
}

/// A partition, or the reason why it could not be opened.
pub(super) type Slot = Result<Arc<Partition>, Arc<str>>;

/// One topic.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: TopicName,
    pub(super) id: TopicId,
    /// The settings that were given.
    pub(super) given: BTreeMap<String, String>,
    pub(super) config: TopicConfig,
    pub(super) partitions: Vec<Slot>,
    /// For requests whose records have no key.
    pub(super) sticky: Sticky,
}

impl Topic {
    /// A topic of these partitions.
    pub(super) fn new(
        name: TopicName,
        id: TopicId,
        given: BTreeMap<String, String>,
        config: TopicConfig,
        partitions: Vec<Slot>,
    ) -> Self {
        Self { name, id, given, config, partitions, sticky: Sticky::new() }
    }

    /// How many partitions it has; at least 1.
    pub(super) fn partition_count(&self) -> u32 {
        self.partitions.len() as u32
    }

    /// The partition with this number, open or not.
    ///
    /// # Errors
    /// [`BrokerError::UnknownPartition`] if there is none.
    pub(super) fn slot(&self, partition: i32) -> Result<(PartitionId, &Slot), BrokerError> {
        PartitionId::new(partition).and_then(|id| Some((id, self.partitions.get(id.index())?))).ok_or_else(
            || BrokerError::UnknownPartition {
                topic: self.name.clone(),
                partition,
                partitions: self.partition_count(),
            },
        )
    }

    /// The open partition with this number.
    ///
    /// # Errors
    /// [`BrokerError::UnknownPartition`], or [`BrokerError::Fenced`] if it could not be opened.
    pub(super) fn partition(&self, partition: i32) -> Result<&Arc<Partition>, BrokerError> {
        let (id, slot) = self.slot(partition)?;
        slot.as_ref().map_err(|reason| BrokerError::Fenced {
            topic: self.name.clone(),
            partition: id,
            detail: reason.to_string(),
        })
    }

    /// Its open partitions.
    pub(super) fn open_partitions(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.partitions.iter().filter_map(|slot| slot.as_ref().ok())
    }

    /// Whether an append to this partition may succeed, as far as is known.
    pub(super) fn takes_writes(&self, partition: u32) -> bool {
        self.partitions
            .get(partition as usize)
            .and_then(|slot| slot.as_ref().ok())
            .is_some_and(|partition| partition.takes_writes())
    }

    /// As it is shown.
    pub(super) fn describe(&self) -> TopicDescription {
        TopicDescription {
            name: self.name.clone(),
            id: self.id,
            partitions: self
                .partitions
                .iter()
                .map(|slot| match slot {
                    Ok(partition) => Ok(partition.log().status()),
                    Err(reason) => Err(reason.to_string()),
                })
                .collect(),
            config: self.config.entries(&self.given),
        }
    }
}

/// The partitions of a topic whose logs have just been opened; one that could not be is fenced, and said so.
pub(super) fn opened_slots(
    name: &TopicName,
    logs: impl IntoIterator<Item = Result<LogHandle, OpenLogError>>,
) -> Vec<Slot> {
    PartitionId::all(MAX_PARTITIONS_PER_TOPIC)
        .zip(logs)
        .map(|(partition, log)| match log {
            Ok(log) => Ok(Arc::new(Partition::new(name.clone(), partition, log))),
            Err(error) => {
                tracing::warn!(topic = %name, %partition, %error, "the partition is fenced: its log cannot be opened");
                Err(error.to_string().into())
            }
        })
        .collect()
}

/// The partitions, from number `first` on, whose logs have just been created.
pub(super) fn added_slots(name: &TopicName, first: u32, logs: Vec<LogHandle>) -> Vec<Slot> {
    PartitionId::all(MAX_PARTITIONS_PER_TOPIC)
        .skip(first as usize)
        .zip(logs)
        .map(|(partition, log)| Ok(Arc::new(Partition::new(name.clone(), partition, log))))
        .collect()
}

/// The partitions of a topic that has only been checked.
pub(super) fn empty_statuses(partitions: u32, leader_epoch: LeaderEpoch) -> Vec<Result<LogStatus, String>> {
    let status = LogStatus {
        log_start_offset: Offset::ZERO,
        durable_offset: Offset::ZERO,
        log_end_offset: Offset::ZERO,
        size_bytes: 0,
        segments: 0,
        leader_epoch,
        state: LogState::Online,
    };
    vec![Ok(status); partitions as usize]
}

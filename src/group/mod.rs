//! (placeholder for the group layer while it is being written)
#![allow(missing_docs)]
use std::sync::Arc;
use crate::{broker::{Broker, BrokerError}, clock::Clock, types::{GroupName, LeaderEpoch, Offset, PartitionId, TopicName}};
/// Offsets of all groups, kept in __consumer_offsets.
#[derive(Debug)] pub struct Groups;
#[derive(Debug, Clone, thiserror::Error)] pub enum GroupError {
    #[error(transparent)] Broker(#[from] BrokerError),
    #[error("stub")] InvalidOffset { topic: TopicName, partition: i32, offset: i64 },
    #[error("stub")] MetadataTooLong { bytes: usize, max_bytes: u32 },
    #[error("stub")] NoOffsets,
}
#[derive(Debug, Clone, PartialEq, Eq)] pub struct Commit { pub topic: TopicName, pub partition: i32, pub offset: i64, pub leader_epoch: Option<LeaderEpoch>, pub metadata: String }
#[derive(Debug, Clone, PartialEq, Eq)] pub struct Committed { pub topic: TopicName, pub partition: PartitionId, pub offset: Offset, pub leader_epoch: Option<LeaderEpoch>, pub metadata: String, pub commit_timestamp_ms: i64 }
impl Groups {
    /// Replays __consumer_offsets if it exists.
    pub async fn open(_broker: Arc<Broker>, _clock: Arc<dyn Clock>) -> Result<Arc<Self>, GroupError> { todo!() }
    pub async fn commit(&self, _group: &GroupName, _commits: Vec<Commit>) -> Result<(), GroupError> { todo!() }
    /// None: all.
    pub fn committed(&self, _group: &GroupName, _partitions: Option<&[(TopicName, i32)]>) -> Vec<Committed> { todo!() }
    /// (group, number of partitions with an offset), by name.
    pub fn list(&self) -> Vec<(GroupName, usize)> { todo!() }
}

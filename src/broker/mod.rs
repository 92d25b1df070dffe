//! (placeholder for the broker layer while it is being written)
#![allow(missing_docs)]
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use bytes::{Bytes, BytesMut};
use crate::{clock::Clock, config::BrokerConfig, record::{BatchError, Codec}, storage::{LogStatus, ReadBatches, StorageStats, Store}, types::{GroupName, LeaderEpoch, Offset, PartitionId, TopicId, TopicName}};

/// One broker over one store. Shared as `Arc<Broker>`.
#[derive(Debug)] pub struct Broker;
#[derive(Debug, thiserror::Error)] pub enum OpenBrokerError { #[error("stub")] Stub }

/// Who is asking: only the broker's own layers may write to internal topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)] pub enum Caller { Client, Internal }

/// Everything that can go wrong with a topic or partition operation; edges map it once. Carries the facts.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    #[error("unknown topic {topic}")] UnknownTopic { topic: TopicName },
    #[error("topic {topic} has partitions 0 to {}, not {partition}", .partitions - 1)] UnknownPartition { topic: TopicName, partition: i32, partitions: u32 },
    #[error("topic {topic} exists already")] TopicExists { topic: TopicName },
    #[error("stub")] InvalidPartitions { partitions: i64, min: u32, max: u32 },
    #[error("stub")] InvalidConfig { name: String, value: String, requirement: String },
    #[error("stub")] UnsupportedConfig { name: String, value: String, detail: String },
    #[error("stub")] InternalTopic { topic: TopicName },
    #[error("stub")] OffsetOutOfRange { topic: TopicName, partition: PartitionId, offset: i64, log_start_offset: Offset, high_watermark: Offset },
    #[error("stub")] Batch { topic: TopicName, partition: PartitionId, error: BatchError },
    #[error("stub")] InvalidRequest { field: String, detail: String },
    #[error("stub")] StorageFull { topic: TopicName, partition: PartitionId },
    #[error("stub")] Fenced { topic: TopicName, partition: PartitionId, detail: String },
    #[error("stub")] DataLoss { topic: TopicName, partition: PartitionId, first: Offset, last: Offset, detail: String },
    #[error("stub")] Storage { topic: TopicName, partition: Option<PartitionId>, detail: String },
    #[error("stub")] ShuttingDown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position { Offset(i64), Earliest, Latest, TimestampMs(i64) }
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceRecord { pub key: Option<Bytes>, pub value: Option<Bytes>, pub headers: Vec<(String, Option<Bytes>)>, pub timestamp_ms: Option<i64> }
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Produced { pub partition: PartitionId, pub base_offset: Offset, pub record_count: u32, pub log_append_time_ms: Option<i64>, pub log_start_offset: Offset }

#[derive(Debug, Clone)] pub struct FetchPartition { pub topic: TopicName, pub partition: i32, pub offset: i64 }
#[derive(Debug, Clone, Copy)] pub struct FetchLimits { pub min_bytes: u64, pub max_bytes: u64, pub max_wait: Duration }
/// What was read from one partition, with the marks of that moment.
#[derive(Debug, Clone)] pub struct Fetched { pub batches: ReadBatches, pub high_watermark: Offset, pub log_start_offset: Offset }

#[derive(Debug, Clone)] pub struct TopicSpec { pub name: TopicName, pub partitions: Option<i64>, pub config: BTreeMap<String, String>, pub validate_only: bool }
#[derive(Debug, Clone)] pub struct TopicUpdate { pub name: TopicName, pub set: BTreeMap<String, String>, pub reset: Vec<String>, pub partitions: Option<i64> }
#[derive(Debug, Clone)] pub struct ConfigEntry { pub name: &'static str, pub value: String, pub is_default: bool, pub documentation: &'static str }
/// status Err(reason): fenced, could not be opened
#[derive(Debug, Clone)] pub struct TopicDescription { pub name: TopicName, pub id: TopicId, pub partitions: Vec<Result<LogStatus, String>>, pub config: Vec<ConfigEntry> }
#[derive(Debug, Clone)] pub struct BrokerStatus { pub cluster_id: String, pub broker_id: i32, pub uptime: Duration, pub topics: usize, pub partitions: usize, pub queue_bytes: u64, pub fenced_partitions: u32, pub storage: StorageStats }

impl Broker {
    /// Reads the catalogue, opens every log. Blocks.
    pub fn open(_store: Store, _config: BrokerConfig, _clock: Arc<dyn Clock>) -> Result<Arc<Self>, OpenBrokerError> { todo!() }
    pub async fn create_topic(&self, _spec: TopicSpec) -> Result<TopicDescription, BrokerError> { todo!() }
    pub async fn delete_topic(&self, _name: &TopicName) -> Result<(), BrokerError> { todo!() }
    pub async fn update_topic(&self, _update: TopicUpdate) -> Result<TopicDescription, BrokerError> { todo!() }
    pub fn topics(&self) -> Vec<TopicDescription> { todo!() }
    pub fn describe_topic(&self, _name: &TopicName) -> Result<TopicDescription, BrokerError> { todo!() }
    /// Creates the topic if it is unknown, auto_create_topics is on and the name is not internal.
    pub async fn ensure_topic(&self, _name: &TopicName) -> Result<(), BrokerError> { todo!() }
    /// Appends one encoded batch: validates it (record::validate), applies the topic's compression and timestamp type, waits for
    /// queue room (back-pressure), hands it to the log, waits for durability. Appends made by calls whose first poll came first are appended first:
    /// `start_append` does all up to and including the hand-over and returns a future of the outcome, so that a pipelined stream keeps order.
    pub async fn start_append(&self, _caller: Caller, _topic: &TopicName, _partition: i32, _batch: BytesMut) -> Result<PendingAppend, BrokerError> { todo!() }
    /// Records to one partition (Some) as one batch, or split by key (None). Err only if nothing was handed over; the outer vector has one pending result per partition.
    pub async fn start_produce(&self, _caller: Caller, _topic: &TopicName, _partition: Option<i32>, _records: Vec<ProduceRecord>, _codec: Codec) -> Result<Vec<(PartitionId, Result<PendingAppend, BrokerError>)>, BrokerError> { todo!() }
    /// Resolves a position to an offset (Offset(n) is checked against the range).
    pub async fn resolve(&self, _topic: &TopicName, _partition: i32, _position: Position) -> Result<Resolved, BrokerError> { todo!() }
    /// Reads several partitions, waiting until min_bytes are there in all or max_wait has passed; an error of one partition is its own and ends the wait.
    pub async fn fetch(&self, _partitions: &[FetchPartition], _limits: FetchLimits) -> Vec<Result<Fetched, BrokerError>> { todo!() }
    /// For streams: a reader of one partition that waits on the high watermark.
    pub fn reader(&self, _topic: &TopicName, _partition: i32) -> Result<PartitionReader, BrokerError> { todo!() }
    /// -1: the high watermark. Returns the new log start offset.
    pub async fn delete_records(&self, _topic: &TopicName, _partition: i32, _before: i64) -> Result<Offset, BrokerError> { todo!() }
    pub fn status(&self) -> BrokerStatus { todo!() }
    pub fn config(&self) -> &BrokerConfig { todo!() }
    /// From now on every new produce, fetch wait and topic change is refused with ShuttingDown; waiting fetches return.
    pub fn begin_shutdown(&self) { todo!() }
    /// Finishes what was accepted, syncs, writes the clean mark.
    pub async fn close(&self) -> Result<(), BrokerError> { todo!() }
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)] pub struct Resolved { pub offset: Offset, pub timestamp_ms: Option<i64>, pub leader_epoch: LeaderEpoch }
/// An append that has been handed over and keeps its place. Dropping it does not take the append back.
pub struct PendingAppend;
impl PendingAppend { pub async fn wait(self) -> Result<Produced, BrokerError> { todo!() } }
/// Cheap; knows its partition, not its place in it.
#[derive(Debug, Clone)] pub struct PartitionReader;
impl PartitionReader {
    /// What is there now at `offset`; no chunks at the end.
    pub async fn read(&self, _offset: Offset, _max_bytes: u64) -> Result<Fetched, BrokerError> { todo!() }
    /// Returns once the high watermark is beyond `offset` (Ok), or the topic is deleted or the broker shuts down (Err).
    pub async fn wait_beyond(&mut self, _offset: Offset) -> Result<Offset, BrokerError> { todo!() }
}

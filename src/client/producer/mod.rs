//! The producer: accepts records, gathers them into batches, and tells what became of each.
//!
//! [`Producer::send`] puts a record into a batch of its partition and waits only while the buffer is full; a task of
//! the producer carries batches to the broker over one stream. Records of one partition are appended in the order of their
//! sends: one batch of a partition is under way at a time while the next one fills, and one that failed is sent again
//! before any later one.

mod accumulator;
mod batch;
mod config;
mod delivery;
mod partitioner;
mod sender;
mod trouble;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;

use super::admin::Admin;
use super::backoff::Backoff;
use super::connection::Connection;
use super::description::TopicInfo;
use super::error::{Error, reason};
use super::position::partition_from_wire;
use super::record::{Header, ProducerRecord};
use crate::proto;
use crate::record::{BatchBuilder, Codec};
use crate::types::PartitionId;
use accumulator::{Accumulator, Refused, TopicMetadata};
use sender::{RETRY_INITIAL, RETRY_MAX, Sender, Shared};
use trouble::Troubles;

pub use config::ProducerConfig;
pub use delivery::{Delivered, Delivery};
pub use trouble::Trouble;

/// A topic is looked at again after this time, in case partitions were added.
const METADATA_MAX_AGE: Duration = Duration::from_mins(5);
/// ... and after this time when it could not be looked at.
const METADATA_RETRY: Duration = Duration::from_secs(10);

/// Appends records to topics. Cheap to clone; clones share buffer and order.
///
/// A topic that does not exist is left to the broker to create: the first record for it is sent alone, and
/// [`send`](Self::send) waits for it.
///
/// When the last clone is dropped, records not yet acknowledged are abandoned: those still in the buffer are not sent.
/// Call [`flush`](Self::flush) or [`close`](Self::close) first.
#[derive(Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

struct Inner {
    shared: Arc<Shared>,
    connection: Connection,
    config: ProducerConfig,
    /// Held while a topic is looked at, so that many sends look once.
    looking: tokio::sync::Mutex<()>,
    _sender: AbortOnDropHandle<()>,
}

impl Producer {
    pub(super) fn start(connection: Connection, config: ProducerConfig) -> Result<Self, Error> {
        config.validate()?;
        let shared = Arc::new(Shared {
            accumulator: Mutex::new(Accumulator::new(config.clone())),
            wake: Notify::new(),
            memory: Semaphore::new(config.buffer_bytes),
            troubles: Troubles::default(),
        });
        let sender = Sender::new(Arc::clone(&shared), connection.clone(), config.clone());
        let sender = AbortOnDropHandle::new(tokio::spawn(sender.run()));
        let looking = tokio::sync::Mutex::new(());
        Ok(Self { inner: Arc::new(Inner { shared, connection, config, looking, _sender: sender }) })
    }

    /// Accepts a record, waiting while the buffer is full. The [`Delivery`] resolves when the broker has acknowledged
    /// it; with the topic's `durability=fsync`, the default, it then survives a power cut.
    ///
    /// # Errors
    /// When the producer is closed, or the topic is not known and cannot be created.
    pub async fn send(&self, mut record: ProducerRecord) -> Result<Delivery, Error> {
        let shared = &self.inner.shared;
        let size_bytes = size_bytes(&record);
        // A record larger than the whole buffer takes all of it.
        let charged_bytes = size_bytes.min(self.inner.config.buffer_bytes);
        let permits = u32::try_from(charged_bytes).unwrap_or(u32::MAX);
        let room = shared.memory.acquire_many(permits).await.map_err(|_| closed())?;
        let timestamp_ms = *record.timestamp_ms.get_or_insert_with(now_ms);
        loop {
            let now = Instant::now();
            let taken =
                shared.accumulator.lock().append(&record, timestamp_ms, size_bytes, permits as usize, now);
            match taken {
                Ok(taken) => {
                    // From here on the batch holds the room.
                    room.forget();
                    if taken.wake {
                        shared.wake.notify_one();
                    }
                    return Ok(taken.delivery);
                }
                Err(Refused::Closed) => return Err(closed()),
                Err(Refused::NeedsMetadata) => {
                    if !self.inner.look_at_topic(&record).await? {
                        return self.inner.send_alone(&record, timestamp_ms).await;
                    }
                }
            }
        }
    }

    /// Sends what is in the buffer without lingering, and waits until every record accepted so far is acknowledged or
    /// given up.
    ///
    /// # Errors
    /// The first failure among them.
    pub async fn flush(&self) -> Result<(), Error> {
        let unsettled = self.inner.shared.accumulator.lock().flush();
        self.inner.shared.wake.notify_one();
        let mut outcome = Ok(());
        for settlement in unsettled {
            outcome = outcome.and(delivery::flatten(settlement.await).map(|_| ()));
        }
        outcome
    }

    /// Accepts no more records, from any clone, and does as [`flush`](Self::flush).
    ///
    /// # Errors
    /// The first failure among the records not yet acknowledged.
    pub async fn close(&self) -> Result<(), Error> {
        self.inner.shared.accumulator.lock().close();
        self.flush().await
    }

    /// What stands in the way while attempts fail and are repeated, such as a full disk; `None` once a record has been
    /// acknowledged or given up since.
    pub fn trouble(&self) -> Option<Trouble> {
        self.inner.shared.troubles.at(Instant::now())
    }
}

impl Inner {
    /// Asks the broker about the record's topic; `false` if there is no such topic.
    async fn look_at_topic(&self, record: &ProducerRecord) -> Result<bool, Error> {
        let _looking = self.looking.lock().await;
        let mut attempts = Attempts::new(&self.shared.troubles, self.config.delivery_timeout);
        loop {
            if self.shared.accumulator.lock().knows_topic(&record.topic, Instant::now()) {
                return Ok(true);
            }
            match Admin::new(self.connection.clone()).describe_topic(&record.topic).await {
                Ok(topic) => {
                    let stale_at = Instant::now() + METADATA_MAX_AGE;
                    self.shared.accumulator.lock().set_topic(&record.topic, metadata(&topic), stale_at);
                    return Ok(true);
                }
                Err(error) if error.reason() == reason::UNKNOWN_TOPIC => return Ok(false),
                Err(error) => {
                    // What was known is good enough until the broker can be asked again.
                    let stale_at = Instant::now() + METADATA_RETRY;
                    if !self.shared.accumulator.lock().trust_topic(&record.topic, stale_at) {
                        let retry = error.is_retriable();
                        attempts.failed(error, retry).await?;
                    }
                }
            }
        }
    }

    /// Sends one record to a topic that does not exist. The broker creates it, if it may, and chooses the partition: only
    /// it knows how many there will be.
    async fn send_alone(&self, record: &ProducerRecord, timestamp_ms: i64) -> Result<Delivery, Error> {
        let mut attempts = Attempts::new(&self.shared.troubles, self.config.delivery_timeout);
        loop {
            let request = proto::ProduceRequest {
                topic: record.topic.as_str().to_owned(),
                partition: record.partition.map(PartitionId::get),
                records: vec![record.to_proto()],
                compression: compression(self.config.compression).into(),
                ..proto::ProduceRequest::default()
            };
            let answer = self.connection.answer(self.connection.log().produce(request).await);
            match answer.and_then(sender::appended) {
                Ok((partition, appended)) => {
                    return Ok(Delivery::settled(
                        partition_from_wire(partition)?,
                        timestamp_ms,
                        Ok(appended),
                    ));
                }
                Err(error) => {
                    let retry =
                        error.is_safe_to_retry() || (self.config.retry_unknown && error.is_retriable());
                    attempts.failed(error, retry).await?;
                }
            }
        }
    }
}

/// Attempts at one call, within a time.
struct Attempts<'a> {
    troubles: &'a Troubles,
    backoff: Backoff,
    until: Instant,
}

impl<'a> Attempts<'a> {
    fn new(troubles: &'a Troubles, timeout: Duration) -> Self {
        let backoff = Backoff::new(RETRY_INITIAL, RETRY_MAX);
        Self { troubles, backoff, until: Instant::now() + timeout }
    }

    /// Waits before the next attempt, if there is to be one; otherwise returns the error.
    async fn failed(&mut self, error: Error, retry: bool) -> Result<(), Error> {
        let delay = self.backoff.next_delay(error.retry_after());
        if !retry || Instant::now() + delay >= self.until {
            return Err(error);
        }
        self.troubles.failed(&error, Instant::now());
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

impl Drop for Attempts<'_> {
    /// They came to an end, this way or that.
    fn drop(&mut self) {
        if self.backoff.has_failed() {
            self.troubles.clear();
        }
    }
}

/// What a producer must know about a topic.
fn metadata(topic: &TopicInfo) -> TopicMetadata {
    TopicMetadata {
        partitions: u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX),
        // A broker that does not say is left to judge by itself.
        max_message_bytes: topic
            .config("max_message_bytes")
            .and_then(|max| max.parse().ok())
            .unwrap_or(usize::MAX),
    }
}

/// What a record takes in a batch, at most.
fn size_bytes(record: &ProducerRecord) -> usize {
    let header_bytes = |header: &Header| header.key.len() + header.value.as_ref().map_or(0, Bytes::len);
    let headers_bytes = record.headers.iter().map(header_bytes).sum();
    let (key, value) = (record.key.as_deref(), record.value.as_deref());
    BatchBuilder::record_size_upper_bound(key, value, headers_bytes, record.headers.len())
}

fn compression(codec: Codec) -> proto::Compression {
    match codec {
        Codec::None => proto::Compression::None,
        Codec::Gzip => proto::Compression::Gzip,
        Codec::Snappy => proto::Compression::Snappy,
        Codec::Lz4 => proto::Compression::Lz4,
        Codec::Zstd => proto::Compression::Zstd,
    }
}

fn closed() -> Error {
    Error::new(Code::FailedPrecondition, reason::CLOSED, "the producer is closed")
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

//! The producer: accepts records, gathers them into batches, and tells what became of each.
//!
//! [`Producer::send`] puts a record into a batch of its partition and waits only while the buffer is full; a task of
//! the producer carries batches to the broker over one stream. Records of one partition are appended in the order of their
//! sends, and each of them once: the broker knows every batch by its [number](numbering), so that it can be sent again after
//! an answer that never came, and refuses those behind one that failed.

mod accumulator;
mod batch;
mod config;
mod delivery;
mod numbering;
mod partitioner;
mod queue;
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
use super::record::{Header, ProducerRecord};
use crate::record::BatchBuilder;
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
/// Idempotent, unless [told otherwise](ProducerConfig::idempotence): whatever happens to the connection or to the server,
/// a record whose [`Delivery`] succeeds is in its partition once, and the records of a partition are there in the order of
/// their sends. That holds for one producer's lifetime; what a program sends again after its own restart is new to the broker.
///
/// A topic that does not exist is created by the broker, with its defaults, if it may.
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
                Err(Refused::NeedsMetadata) => self.inner.look_at_topic(&record).await?,
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
    /// Asks the broker about the record's topic.
    async fn look_at_topic(&self, record: &ProducerRecord) -> Result<(), Error> {
        let _looking = self.looking.lock().await;
        let mut attempts = Attempts::new(&self.shared.troubles, self.config.delivery_timeout);
        loop {
            if self.shared.accumulator.lock().knows_topic(&record.topic, Instant::now()) {
                return Ok(());
            }
            match Admin::new(self.connection.clone()).describe_or_create_topic(&record.topic).await {
                Ok(topic) => {
                    let stale_at = Instant::now() + METADATA_MAX_AGE;
                    self.shared.accumulator.lock().set_topic(&record.topic, metadata(&topic), stale_at);
                    return Ok(());
                }
                Err(error) if error.reason() == reason::UNKNOWN_TOPIC => return Err(error),
                Err(error) => {
                    // What was known is good enough until the broker can be asked again.
                    let stale_at = Instant::now() + METADATA_RETRY;
                    if !self.shared.accumulator.lock().trust_topic(&record.topic, stale_at) {
                        attempts.failed(error).await?;
                    }
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
    async fn failed(&mut self, error: Error) -> Result<(), Error> {
        let delay = self.backoff.next_delay(error.retry_after());
        if !error.is_retriable() || Instant::now() + delay >= self.until {
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

fn closed() -> Error {
    Error::new(Code::FailedPrecondition, reason::CLOSED, "the producer is closed")
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

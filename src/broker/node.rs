//! The broker: its parts, its beginning and its end, and the short answers that need no file of their own.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::error::{BrokerError, CloseBrokerError, OpenBrokerError};
use super::fetch::{self, FetchLimits, FetchPartition, Fetched};
use super::producer_ids::ProducerIds;
use super::queue::{Queue, QueueClosed};
use super::reader::PartitionReader;
use super::topic::TopicDescription;
use super::topics::{TopicDeleted, Topics};
use crate::clock::Clock;
use crate::config::BrokerConfig;
use crate::storage::{StorageStats, Store};
use crate::types::{PartitionId, TopicId, TopicName};

/// One broker over one store. Shared as `Arc<Broker>`; every method may be called from anywhere at any time.
#[derive(Debug)]
pub struct Broker {
    pub(super) topics: Arc<Topics>,
    pub(super) config: BrokerConfig,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) queue: Queue,
    /// Bounds the costly work on batches that is done at a time.
    pub(super) cores: Arc<Semaphore>,
    pub(super) producer_ids: ProducerIds,
    started_ms: i64,
}

/// The broker at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerStatus {
    /// Of the data directory.
    pub cluster_id: String,
    /// Of the data directory.
    pub broker_id: i32,
    /// Since it was opened.
    pub uptime: Duration,
    /// How many topics there are, internal ones included.
    pub topics: usize,
    /// How many partitions they have.
    pub partitions: usize,
    /// Accepted and not yet acknowledged.
    pub queue_bytes: u64,
    /// Those that take no writes, for whatever reason.
    pub fenced_partitions: u32,
    /// The store's counters.
    pub storage: StorageStats,
}

impl Broker {
    /// Reads the catalogue and opens every log. A log that cannot be opened fences its partition and nothing
    /// else. Blocks.
    ///
    /// # Errors
    /// [`OpenBrokerError`] if the catalogue cannot be used or the store cannot begin its work.
    pub fn open(
        store: Store,
        config: BrokerConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, OpenBrokerError> {
        let topics = Topics::open(store, config.clone(), CancellationToken::new())?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let broker = Self {
            queue: Queue::new(config.queue_bytes),
            cores: Arc::new(Semaphore::new(cores)),
            producer_ids: ProducerIds::after(topics.first_producer_id),
            topics: Arc::new(topics),
            started_ms: clock.monotonic_ms(),
            config,
            clock,
        };
        let BrokerStatus { topics, partitions, fenced_partitions, .. } = broker.status();
        tracing::info!(topics, partitions, fenced_partitions, "broker open");
        Ok(Arc::new(broker))
    }

    /// All topics, by name.
    pub fn topics(&self) -> Vec<TopicDescription> {
        self.topics.all().iter().map(|topic| topic.describe()).collect()
    }

    /// One topic.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopic`].
    pub fn describe_topic(&self, name: &TopicName) -> Result<TopicDescription, BrokerError> {
        Ok(self.topics.get(name)?.describe())
    }

    /// The identity of a topic that has this partition, open or not.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopic`], [`BrokerError::UnknownPartition`].
    pub fn locate(&self, name: &TopicName, partition: i32) -> Result<(TopicId, PartitionId), BrokerError> {
        let topic = self.topics.get(name)?;
        let (partition, _) = topic.slot(partition)?;
        Ok((topic.id, partition))
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopic`].
    pub fn partition_count(&self, name: &TopicName) -> Result<u32, BrokerError> {
        Ok(self.topics.get(name)?.partition_count())
    }

    /// From now on `hear` is told of every topic that is deleted.
    pub fn on_topic_deleted(&self, hear: TopicDeleted) {
        self.topics.on_deleted.write().push(hear);
    }

    /// A reader of one partition that can wait for more: for streams.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopic`], [`BrokerError::UnknownPartition`], [`BrokerError::Fenced`].
    pub fn reader(&self, topic: &TopicName, partition: i32) -> Result<PartitionReader, BrokerError> {
        self.topics.reader(topic, partition)
    }

    /// Waits until a [`read`](Self::read) would return `min_bytes` in all partitions together, or an error of one of them,
    /// or until `max_wait` has passed. Takes no memory while it waits.
    pub async fn wait_for_data(&self, partitions: &[FetchPartition], limits: FetchLimits) {
        fetch::wait(&self.topics, partitions, limits).await;
    }

    /// Reads what is there now in several partitions, `max_bytes` at most but for the first batch, which is returned
    /// whole; 0, or more than the broker's `fetch_max_bytes`: that. With more to read, those named first come first. The
    /// answers are in the order asked for; an error of one partition is its own.
    pub async fn read(
        &self,
        partitions: &[FetchPartition],
        max_bytes: u64,
    ) -> Vec<Result<Fetched, BrokerError>> {
        fetch::read(&self.topics, partitions, max_bytes).await
    }

    /// The broker's identity and counters.
    pub fn status(&self) -> BrokerStatus {
        let topics = self.topics.all();
        let slots = || topics.iter().flat_map(|topic| &topic.partitions);
        let storage = self.topics.store.stats();
        BrokerStatus {
            cluster_id: self.topics.store.cluster_id().to_owned(),
            broker_id: self.topics.store.broker_id(),
            uptime: Duration::from_millis(
                self.clock.monotonic_ms().saturating_sub(self.started_ms).unsigned_abs(),
            ),
            topics: topics.len(),
            partitions: slots().count(),
            queue_bytes: self.queue.used_bytes(),
            fenced_partitions: slots().filter(|slot| slot.is_err()).count() as u32 + storage.read_only_logs,
            storage,
        }
    }

    /// Its settings.
    pub fn config(&self) -> &BrokerConfig {
        &self.config
    }

    /// From now on new appends, changes of topics and waits are refused, and whoever waits for records is
    /// told. What has been accepted goes on, and so do reads of what is there.
    pub fn begin_shutdown(&self) {
        self.topics.shutdown().cancel();
    }

    /// Waits for what was accepted, then closes the store: everything is synced, and the next start finds the
    /// mark of an orderly end. Does nothing the second time.
    ///
    /// # Errors
    /// [`CloseBrokerError`] if the store cannot end in an orderly way.
    pub async fn close(&self) -> Result<(), CloseBrokerError> {
        self.begin_shutdown();
        let changes = self.topics.hold_changes().await;
        if let Err(QueueClosed) = self.queue.close().await {
            return Ok(());
        }
        let topics = Arc::clone(&self.topics);
        let closing = tokio::task::spawn_blocking(move || {
            let _changes = changes;
            topics.store.close()
        });
        Ok(closing.await??)
    }

    pub(super) fn refuse_at_shutdown(&self) -> Result<(), BrokerError> {
        if self.topics.shutdown().is_cancelled() { Err(BrokerError::ShuttingDown) } else { Ok(()) }
    }
}

//! The way of an append: topic and partition, the batch's rules, room in the queue, the log, the outcome.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;

use super::batch::{self, Prepared, Rules};
use super::error::BrokerError;
use super::node::Broker;
use super::partition::Partition;
use super::queue::QueueClosed;
use super::topic::Topic;
use crate::record::{self, BatchError, Codec, ProducerStamp};
use crate::storage::{Append, AppendError, Appended};
use crate::types::{Offset, PartitionId, TopicName};

/// Who is asking: only the broker's own layers may write to internal topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Somebody outside.
    Client,
    /// A layer of the broker.
    Internal,
}

/// A record to make a batch of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceRecord {
    /// Decides the partition, where none is given.
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Kept in order; names may repeat.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// Milliseconds since the Unix epoch, not negative; `None`: now.
    pub timestamp_ms: Option<i64>,
}

/// What makes an append to one partition conditional, and what lets it be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AppendTerms {
    /// Append only if the first record gets this offset.
    pub expected_offset: Option<Offset>,
    /// Who sends the records, and how they are numbered.
    pub producer: Option<ProducerStamp>,
}

/// Where records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// To the partitions that their keys lead to; those without a key stay together on one.
    ByKey,
    /// To this one.
    Partition(i32, AppendTerms),
}

/// A batch that has been appended, as durably as its topic promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Produced {
    /// Where it is.
    pub partition: PartitionId,
    /// The offset of its first record; the others follow without a gap.
    pub base_offset: Offset,
    /// How many there are.
    pub record_count: u32,
    /// The timestamp all of them were given, where the topic says so.
    pub log_append_time_ms: Option<i64>,
    /// The first offset of the partition now.
    pub log_start_offset: Offset,
    /// It had been appended before, and was not appended again.
    pub duplicate: bool,
}

/// An append that has been handed over and keeps its place. Dropping it does not take the append back.
#[derive(Debug)]
pub struct PendingAppend {
    outcome: oneshot::Receiver<Result<Appended, AppendError>>,
    partition: Arc<Partition>,
    record_count: u32,
    log_append_time_ms: Option<i64>,
}

impl PendingAppend {
    /// Waits until the batch is as durable as its topic promises.
    ///
    /// # Errors
    /// [`BrokerError::UnexpectedOffset`], [`BrokerError::Producer`], [`BrokerError::StorageFull`],
    /// [`BrokerError::Storage`], [`BrokerError::Fenced`]; [`BrokerError::UnknownTopic`] or [`BrokerError::ShuttingDown`] if the log was closed before its turn
    /// came. Nothing of the batch is then visible.
    pub async fn wait(self) -> Result<Produced, BrokerError> {
        match self.outcome.await {
            Ok(Ok(appended)) => Ok(Produced {
                partition: self.partition.id(),
                base_offset: appended.base_offset,
                record_count: self.record_count,
                log_append_time_ms: self.log_append_time_ms,
                log_start_offset: appended.log_start_offset,
                duplicate: appended.duplicate,
            }),
            Ok(Err(error)) => Err(self.partition.append_error(error)),
            // The store went down without a word.
            Err(oneshot::error::RecvError { .. }) => Err(self.partition.closed()),
        }
    }
}

impl Broker {
    /// Appends one encoded batch, if it gets the expected offset: checks it, gives it the topic's codec and timestamp type, waits for room in
    /// the queue (which is the back-pressure) and hands it to the log. What is left to wait for is the
    /// outcome.
    ///
    /// Of two calls for one partition, the second made after the first has returned, the first one's batch
    /// comes first: so a pipeline keeps its order without waiting for outcomes. A call that is dropped before
    /// it returns has handed nothing over.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopic`], [`BrokerError::UnknownPartition`], [`BrokerError::Fenced`],
    /// [`BrokerError::InternalTopic`], [`BrokerError::Batch`], [`BrokerError::UnknownProducer`],
    /// [`BrokerError::ShuttingDown`]; nothing was handed over.
    pub async fn start_append(
        &self,
        caller: Caller,
        topic: &TopicName,
        partition: i32,
        batch: BytesMut,
        expected_offset: Option<Offset>,
    ) -> Result<PendingAppend, BrokerError> {
        let topic = self.writable(caller, topic)?;
        let partition = topic.partition(partition)?;
        let rules = Rules::new(&topic.config, &self.config, self.clock.now_ms());
        let costly = rules.are_costly_for(&batch);
        let prepared = self.compute(partition, costly, move || batch::prepare(batch, &rules)).await?;
        self.hand_over(partition, prepared, expected_offset).await
    }

    /// Makes a batch of records for one partition, or one for each partition that their keys lead to. Each batch
    /// goes the way of [`Self::start_append`]; `codec` is how it is compressed unless the topic prescribes a codec.
    ///
    /// A batch is appended whole or not at all, each for itself: the vector, by partition, has one result for
    /// each.
    ///
    /// # Errors
    /// As [`Self::start_append`], and [`BrokerError::InvalidRequest`] if there are no records; nothing was
    /// handed over.
    pub async fn start_produce(
        &self,
        caller: Caller,
        topic: &TopicName,
        target: Target,
        records: Vec<ProduceRecord>,
        codec: Codec,
    ) -> Result<Vec<(PartitionId, Result<PendingAppend, BrokerError>)>, BrokerError> {
        let topic = self.writable(caller, topic)?;
        if records.is_empty() {
            return Err(BrokerError::InvalidRequest {
                field: "records".to_owned(),
                detail: "there are none".to_owned(),
            });
        }
        if let Target::Partition(partition, terms) = target {
            let partition = topic.partition(partition)?;
            let pending = self.start_batch(&topic, partition, records, codec, terms).await?;
            return Ok(vec![(partition.id(), Ok(pending))]);
        }
        let mut results = Vec::new();
        for (partition, records) in split(&topic, records) {
            // Chosen among those there are: this cannot fail after a hand-over.
            let (id, _) = topic.slot(partition as i32)?;
            let result = match topic.partition(partition as i32) {
                Ok(partition) => {
                    self.start_batch(&topic, partition, records, codec, AppendTerms::default()).await
                }
                Err(error) => Err(error),
            };
            results.push((id, result));
        }
        Ok(results)
    }

    async fn start_batch(
        &self,
        topic: &Topic,
        partition: &Arc<Partition>,
        records: Vec<ProduceRecord>,
        codec: Codec,
        terms: AppendTerms,
    ) -> Result<PendingAppend, BrokerError> {
        let rules = Rules::new(&topic.config, &self.config, self.clock.now_ms());
        let encoded_bytes = batch::encoded_bytes(&records);
        let costly = batch::is_costly_to_build(encoded_bytes, rules.codec_for(codec));
        let build = move || batch::build(&records, encoded_bytes, codec, terms.producer, &rules);
        let prepared = self.compute(partition, costly, build).await?;
        self.hand_over(partition, prepared, terms.expected_offset).await
    }

    /// The topic, if it takes writes of this caller now.
    fn writable(&self, caller: Caller, topic: &TopicName) -> Result<Arc<Topic>, BrokerError> {
        self.refuse_at_shutdown()?;
        if caller == Caller::Client && topic.is_internal() {
            return Err(BrokerError::InternalTopic { topic: topic.clone() });
        }
        self.topics.get(topic)
    }

    /// Does the work on a batch here, or, if it is costly, elsewhere; no more of that at a time than there
    /// are cores.
    async fn compute(
        &self,
        partition: &Partition,
        costly: bool,
        work: impl FnOnce() -> Result<Prepared, BatchError> + Send + 'static,
    ) -> Result<Prepared, BrokerError> {
        let (topic, id) = (partition.topic(), partition.id());
        let outcome = if costly {
            let core =
                Arc::clone(&self.cores).acquire_owned().await.map_err(|_| BrokerError::ShuttingDown)?;
            let work = move || {
                let _core = core;
                work()
            };
            tokio::task::spawn_blocking(work)
                .await
                .map_err(|error| BrokerError::cut_short(topic, Some(id), &error))?
        } else {
            work()
        };
        outcome.map_err(|error| BrokerError::Batch { topic: topic.clone(), partition: id, error })
    }

    /// There is no await between entering the queue and the log: a batch is handed over or it is not.
    async fn hand_over(
        &self,
        partition: &Arc<Partition>,
        prepared: Prepared,
        expected_offset: Option<Offset>,
    ) -> Result<PendingAppend, BrokerError> {
        if let Some(stamp) = prepared.producer
            && !self.producer_ids.is_past(stamp.producer_id)
        {
            let (topic, partition) = (partition.topic().clone(), partition.id());
            return Err(BrokerError::UnknownProducer { topic, partition, stamp });
        }
        let room = match self.queue.enter(prepared.bytes.len()).await {
            Ok(room) => room,
            Err(QueueClosed) => return Err(BrokerError::ShuttingDown),
        };
        let (tell, outcome) = oneshot::channel();
        partition.log().append(Append {
            batch: prepared.bytes,
            expected_offset,
            done: Box::new(move |result| {
                drop(room);
                // Nobody may be waiting any more; the append stands all the same.
                let _ = tell.send(result);
            }),
        });
        Ok(PendingAppend {
            outcome,
            partition: Arc::clone(partition),
            record_count: prepared.record_count,
            log_append_time_ms: prepared.log_append_time_ms,
        })
    }
}

/// The records for each partition, in the order they came.
fn split(topic: &Topic, records: Vec<ProduceRecord>) -> BTreeMap<u32, Vec<ProduceRecord>> {
    let partitions = topic.partition_count();
    let mut sticky = None;
    let mut split: BTreeMap<u32, Vec<ProduceRecord>> = BTreeMap::new();
    for record in records {
        let partition = match &record.key {
            Some(key) => record::partition_for_key(key, partitions),
            None => *sticky.get_or_insert_with(|| {
                topic.sticky.choose(partitions, |partition| topic.takes_writes(partition))
            }),
        };
        split.entry(partition).or_default().push(record);
    }
    split
}

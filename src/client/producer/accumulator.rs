//! Records on their way: one queue of batches a partition, in the order of the sends. Pure: time is a parameter, and
//! nothing here waits. [`Producer::send`](super::Producer::send) appends, the sender takes what is ready.

use std::collections::{BTreeMap, HashMap};

use tokio::time::Instant;

use super::batch::{Batch, Target};
use super::config::ProducerConfig;
use super::delivery::{Delivery, Settlement};
use super::numbering::Identity;
use super::partitioner::{another_partition, partition_of_key};
use super::queue::Queue;
use crate::client::record::ProducerRecord;
use crate::types::{PartitionId, TopicName};

/// What a producer must know about a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TopicMetadata {
    pub(super) partitions: u32,
    pub(super) max_message_bytes: usize,
}

/// Why a record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The producer is closed.
    Closed,
    /// Its topic is not known, or was looked at too long ago: `set_topic`, then try again.
    NeedsMetadata,
}

/// A record that was taken.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) delivery: Delivery,
    /// Whether the sender has something new to look at.
    pub(super) wake: bool,
}

/// All queues of one producer.
pub(super) struct Accumulator {
    config: ProducerConfig,
    topics: HashMap<TopicName, Topic>,
    next_number: u64,
    /// Who partitions not numbered yet are told that sends; absent without idempotence, and until the broker gave it.
    identity: Option<Identity>,
    closed: bool,
}

struct Topic {
    metadata: TopicMetadata,
    stale_at: Instant,
    /// Where records without a key go until that batch is full or sent.
    sticky: Option<PartitionId>,
    queues: BTreeMap<PartitionId, Queue>,
}

impl Accumulator {
    pub(super) fn new(config: ProducerConfig) -> Self {
        Self { config, topics: HashMap::new(), next_number: 0, identity: None, closed: false }
    }

    /// Notes what a topic is like, until `stale_at`.
    pub(super) fn set_topic(&mut self, name: &TopicName, metadata: TopicMetadata, stale_at: Instant) {
        if let Some(topic) = self.topics.get_mut(name) {
            (topic.metadata, topic.stale_at) = (metadata, stale_at);
        } else {
            let topic = Topic { metadata, stale_at, sticky: None, queues: BTreeMap::new() };
            self.topics.insert(name.clone(), topic);
        }
    }

    /// Whether a topic is known well enough to append to it.
    pub(super) fn knows_topic(&self, name: &TopicName, now: Instant) -> bool {
        self.topics.get(name).is_some_and(|topic| topic.stale_at > now)
    }

    /// Trusts what is known of a topic until `stale_at`; `false` if nothing is.
    pub(super) fn trust_topic(&mut self, name: &TopicName, stale_at: Instant) -> bool {
        self.topics.get_mut(name).map(|topic| topic.stale_at = stale_at).is_some()
    }

    /// Puts a record into its batch. `charged_bytes` of the buffer are set free when the batch is settled.
    pub(super) fn append(
        &mut self,
        record: &ProducerRecord,
        timestamp_ms: i64,
        size_bytes: usize,
        charged_bytes: usize,
        now: Instant,
    ) -> Result<Taken, Refused> {
        if self.closed {
            return Err(Refused::Closed);
        }
        let topic = self.topics.get_mut(&record.topic).ok_or(Refused::NeedsMetadata)?;
        if topic.stale_at <= now {
            return Err(Refused::NeedsMetadata);
        }
        let limit = self.config.batch_bytes.min(topic.metadata.max_message_bytes);
        let has_room = |batch: &Batch| batch.size_bytes() + size_bytes <= limit;
        let partition = match (record.partition, &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of_key(key, topic.metadata.partitions),
            (None, None) => topic.stick(has_room),
        };
        let queue = topic.queues.entry(partition).or_default();

        let mut wake = false;
        if queue.open.as_ref().is_some_and(|batch| !has_room(batch)) {
            queue.close_batch();
            wake = true;
        }
        let batch = queue.open.get_or_insert_with(|| {
            wake = true;
            let number = self.next_number;
            self.next_number += 1;
            let max_message_bytes = topic.metadata.max_message_bytes;
            let target = Target { topic: record.topic.clone(), partition, max_message_bytes };
            Batch::new(number, target, self.config.compression, now)
        });
        let delivery = batch.push(record, timestamp_ms, charged_bytes);
        if batch.size_bytes() >= limit {
            queue.close_batch();
            wake = true;
        }
        Ok(Taken { delivery, wake })
    }

    /// Whether an idempotent producer has nobody to be, for partitions not numbered yet.
    pub(super) fn lacks_identity(&self) -> bool {
        self.config.idempotence && self.identity.is_none()
    }

    pub(super) fn set_identity(&mut self, identity: Identity) {
        self.identity = Some(identity);
    }

    /// Takes the oldest ready batches that can be numbered, if they are to be: at most one of each partition, and at most
    /// `room` in all. They count as under way until they are [`appended`](Self::appended) or [`given_up`](Self::given_up),
    /// or come back by [`requeue`](Self::requeue) or [`out_of_order`](Self::out_of_order).
    pub(super) fn take_ready(&mut self, room: usize, now: Instant) -> Vec<Batch> {
        let (lacks_identity, identity) = (self.lacks_identity(), self.identity);
        let mut ready = self.ready(now);
        ready.retain(|queue| queue.is_numbered() || !lacks_identity);
        ready.sort_by_key(|queue| queue.oldest().map(|batch| batch.number));
        ready.into_iter().take(room).filter_map(|queue| queue.take_off(identity, now)).collect()
    }

    /// Takes the oldest ready batch of each partition, to be given up instead of being sent.
    pub(super) fn take_refused(&mut self, now: Instant) -> Vec<Batch> {
        self.ready(now).into_iter().filter_map(Queue::take_oldest).collect()
    }

    fn ready(&mut self, now: Instant) -> Vec<&mut Queue> {
        let (linger, max_in_flight) = (self.config.linger, self.config.max_in_flight_per_partition);
        let queues = self.topics.values_mut().flat_map(|topic| topic.queues.values_mut());
        queues.filter(|queue| queue.ready_at(linger, max_in_flight).is_some_and(|at| at <= now)).collect()
    }

    /// When a batch will be ready, if none lands before.
    pub(super) fn next_ready(&self) -> Option<Instant> {
        let (linger, max_in_flight) = (self.config.linger, self.config.max_in_flight_per_partition);
        self.queues().filter_map(|queue| queue.ready_at(linger, max_in_flight)).min()
    }

    /// When the first waiting batch will have waited too long.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let oldest = self.queues().filter_map(Queue::oldest).map(|batch| batch.created).min();
        oldest.map(|created| created + self.config.delivery_timeout)
    }

    /// Takes the batches that cannot be acknowledged any more: those that have waited too long, and those that must not
    /// be sent again under another number. What else has to be renumbered is, so this comes before the next
    /// [`take_ready`](Self::take_ready) after each event.
    pub(super) fn take_hopeless(&mut self, now: Instant) -> Vec<Batch> {
        let mut hopeless = Vec::new();
        for queue in self.topics.values_mut().flat_map(|topic| topic.queues.values_mut()) {
            while queue.oldest().is_some_and(|batch| batch.created + self.config.delivery_timeout <= now) {
                hopeless.extend(queue.take_oldest());
            }
            let numbered = queue.is_numbered();
            hopeless.extend(queue.renumber());
            if numbered && !queue.is_numbered() {
                // The producer id is used up.
                self.identity = None;
            }
        }
        hopeless
    }

    /// A batch that was taken is appended.
    pub(super) fn appended(&mut self, batch: &Batch) {
        if let Some(queue) = self.queue_of(batch) {
            queue.appended(batch);
        }
    }

    /// A batch that was taken will not be sent again.
    pub(super) fn given_up(&mut self, batch: &mut Batch) {
        if let Some(queue) = self.queue_of(batch) {
            queue.returned(batch);
        }
    }

    /// Puts a batch that was taken back in its place; nothing of its partition is sent before `not_before`.
    pub(super) fn requeue(&mut self, batch: Batch, not_before: Instant) {
        if let Some(queue) = self.queue_of(&batch) {
            queue.requeue(batch, not_before);
        }
    }

    /// As [`requeue`](Self::requeue), after the broker refused the batch as one that comes too early.
    pub(super) fn out_of_order(&mut self, batch: Batch, not_before: Instant) {
        if let Some(queue) = self.queue_of(&batch) {
            queue.out_of_order(batch, not_before);
        }
    }

    /// Closes all open batches, so that they are sent without lingering, and returns everything not yet settled.
    pub(super) fn flush(&mut self) -> Vec<Settlement> {
        let mut unsettled = Vec::new();
        for queue in self.topics.values_mut().flat_map(|topic| topic.queues.values_mut()) {
            queue.close_batch();
            unsettled.extend(queue.unsettled());
        }
        unsettled
    }

    /// Takes no more records.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Drops everything that waits: its deliveries resolve to "abandoned".
    pub(super) fn abandon(&mut self) {
        self.close();
        self.topics.clear();
    }

    fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.topics.values().flat_map(|topic| topic.queues.values())
    }

    fn queue_of(&mut self, batch: &Batch) -> Option<&mut Queue> {
        self.topics.get_mut(&batch.target.topic)?.queues.get_mut(&batch.target.partition)
    }
}

impl Topic {
    /// The partition for a record without a key: the same one as long as its batch has room.
    fn stick(&mut self, has_room: impl Fn(&Batch) -> bool) -> PartitionId {
        let open = self.sticky.and_then(|partition| self.queues.get(&partition)?.open.as_ref());
        match self.sticky {
            Some(partition) if open.is_some_and(has_room) => partition,
            current => *self.sticky.insert(another_partition(current, self.metadata.partitions)),
        }
    }
}

#[cfg(test)]
mod tests;

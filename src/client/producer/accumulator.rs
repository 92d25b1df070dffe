//! Records on their way: one queue of batches a partition, in the order of the sends. Pure: time is a parameter, and
//! nothing here waits. [`Producer::send`](super::Producer::send) appends, the sender takes what is ready.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::batch::{Batch, Target};
use super::config::ProducerConfig;
use super::delivery::{Delivery, Settlement};
use super::partitioner::{another_partition, partition_of_key};
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
    next_sequence: u64,
    closed: bool,
}

struct Topic {
    metadata: TopicMetadata,
    stale_at: Instant,
    /// Where records without a key go until that batch is full or sent.
    sticky: Option<PartitionId>,
    queues: BTreeMap<PartitionId, Queue>,
}

#[derive(Default)]
struct Queue {
    /// Takes records still.
    open: Option<Batch>,
    /// Takes no more. By sequence; all of them before `open`.
    closed: VecDeque<Batch>,
    /// Sent and not yet settled.
    in_flight: Vec<(u64, Settlement)>,
    /// After a failure: nothing is sent before.
    not_before: Option<Instant>,
}

impl Accumulator {
    pub(super) fn new(config: ProducerConfig) -> Self {
        Self { config, topics: HashMap::new(), next_sequence: 0, closed: false }
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
            let sequence = self.next_sequence;
            self.next_sequence += 1;
            let max_message_bytes = topic.metadata.max_message_bytes;
            let target = Target { topic: record.topic.clone(), partition, max_message_bytes };
            Batch::new(sequence, target, self.config.compression, now)
        });
        let delivery = batch.push(record, timestamp_ms, charged_bytes);
        if batch.size_bytes() >= limit {
            queue.close_batch();
            wake = true;
        }
        Ok(Taken { delivery, wake })
    }

    /// Takes the oldest ready batches: at most one of each partition, and at most `room` in all. They count as in
    /// flight until [`landed`](Self::landed) or [`requeue`](Self::requeue).
    pub(super) fn take_ready(&mut self, room: usize, now: Instant) -> Vec<Batch> {
        let (linger, max_in_flight) = (self.config.linger, self.config.max_in_flight_per_partition);
        let queues = self.topics.values_mut().flat_map(|topic| topic.queues.values_mut());
        let mut ready: Vec<&mut Queue> = queues
            .filter(|queue| queue.ready_at(linger, max_in_flight).is_some_and(|at| at <= now))
            .collect();
        ready.sort_by_key(|queue| queue.oldest().map(|batch| batch.sequence));
        ready.into_iter().take(room).filter_map(Queue::take_off).collect()
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

    /// Takes the batches that have waited too long.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<Batch> {
        let mut expired = Vec::new();
        for queue in self.topics.values_mut().flat_map(|topic| topic.queues.values_mut()) {
            while queue.oldest().is_some_and(|batch| batch.created + self.config.delivery_timeout <= now) {
                expired.extend(queue.take_oldest());
            }
        }
        expired
    }

    /// A batch that was taken is settled.
    pub(super) fn landed(&mut self, batch: &Batch) {
        if let Some(queue) = self.queue_of(batch) {
            queue.landed(batch.sequence);
        }
    }

    /// Puts a batch that was taken back in its place; nothing of its partition is sent before `not_before`.
    pub(super) fn requeue(&mut self, batch: Batch, not_before: Instant) {
        if let Some(queue) = self.queue_of(&batch) {
            queue.landed(batch.sequence);
            queue.not_before = Some(not_before);
            let place = queue.closed.partition_point(|other| other.sequence < batch.sequence);
            queue.closed.insert(place, batch);
        }
    }

    /// Closes all open batches, so that they are sent without lingering, and returns everything not yet settled.
    pub(super) fn flush(&mut self) -> Vec<Settlement> {
        let mut unsettled = Vec::new();
        for queue in self.topics.values_mut().flat_map(|topic| topic.queues.values_mut()) {
            queue.close_batch();
            unsettled.extend(queue.in_flight.iter().map(|(_, settlement)| settlement.clone()));
            unsettled.extend(queue.closed.iter().map(Batch::settlement));
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

impl Queue {
    /// When its next batch can be sent, as far as time alone decides.
    fn ready_at(&self, linger: Duration, max_in_flight: usize) -> Option<Instant> {
        if self.in_flight.len() >= max_in_flight {
            return None;
        }
        let full = match (self.closed.front(), &self.open) {
            (Some(batch), _) => batch.created,
            (None, Some(batch)) => batch.created + linger,
            (None, None) => return None,
        };
        Some(self.not_before.map_or(full, |at| at.max(full)))
    }

    /// Its oldest batch that waits.
    fn oldest(&self) -> Option<&Batch> {
        self.closed.front().or(self.open.as_ref())
    }

    fn take_oldest(&mut self) -> Option<Batch> {
        self.closed.pop_front().or_else(|| self.open.take())
    }

    fn close_batch(&mut self) {
        self.closed.extend(self.open.take());
    }

    /// Takes its oldest batch to be sent.
    fn take_off(&mut self) -> Option<Batch> {
        let batch = self.take_oldest()?;
        self.not_before = None;
        self.in_flight.push((batch.sequence, batch.settlement()));
        Some(batch)
    }

    fn landed(&mut self, sequence: u64) {
        self.in_flight.retain(|(in_flight, _)| *in_flight != sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1_000;

    fn accumulator(partitions: u32, config: &ProducerConfig, now: Instant) -> Accumulator {
        let mut accumulator = Accumulator::new(ProducerConfig { batch_bytes: LIMIT, ..config.clone() });
        let metadata = TopicMetadata { partitions, max_message_bytes: 10 * LIMIT };
        accumulator.set_topic(&topic(), metadata, now + Duration::from_hours(1));
        accumulator
    }

    fn topic() -> TopicName {
        TopicName::parse("t").expect("a valid name")
    }

    /// Appends a record that takes `size` bytes; tells where it went.
    fn append(
        accumulator: &mut Accumulator,
        key: Option<&'static str>,
        size: usize,
        now: Instant,
    ) -> PartitionId {
        let mut record = ProducerRecord::new(topic()).value(vec![b'v'; size]);
        record.key = key.map(bytes::Bytes::from);
        accumulator.append(&record, 0, size, size, now).expect("taken").delivery.partition
    }

    fn sequences(batches: &[Batch]) -> Vec<u64> {
        batches.iter().map(|batch| batch.sequence).collect()
    }

    #[test]
    fn a_batch_is_ready_when_it_is_full_or_has_lingered() {
        let now = Instant::now();
        let mut accumulator = accumulator(1, &ProducerConfig::default(), now);
        append(&mut accumulator, None, 100, now);
        assert!(accumulator.take_ready(9, now).is_empty(), "it lingers");
        let lingered = now + ProducerConfig::default().linger;
        assert_eq!(accumulator.next_ready(), Some(lingered));
        let taken = accumulator.take_ready(9, lingered);
        assert_eq!(sequences(&taken), [0]);
        accumulator.landed(&taken[0]);

        append(&mut accumulator, None, 600, lingered);
        append(&mut accumulator, None, 600, lingered);
        assert_eq!(
            sequences(&accumulator.take_ready(9, lingered)),
            [1],
            "full, as the next record did not fit"
        );
    }

    #[test]
    fn a_record_larger_than_a_batch_goes_alone() {
        let now = Instant::now();
        let mut accumulator = accumulator(1, &ProducerConfig::default(), now);
        append(&mut accumulator, None, 10, now);
        append(&mut accumulator, None, 5 * LIMIT, now);
        append(&mut accumulator, None, 10, now);
        let sizes: Vec<_> = (0..2)
            .flat_map(|_| {
                let taken = accumulator.take_ready(9, now);
                for batch in &taken {
                    accumulator.landed(batch);
                }
                taken.iter().map(Batch::size_bytes).collect::<Vec<_>>()
            })
            .collect();
        assert!(sizes.len() == 2 && sizes[0] < LIMIT && sizes[1] > 5 * LIMIT, "{sizes:?}");
    }

    #[test]
    fn one_batch_of_a_partition_is_under_way_and_a_failed_one_keeps_its_place() {
        let now = Instant::now();
        let mut accumulator = accumulator(1, &ProducerConfig::default(), now);
        for _ in 0..3 {
            append(&mut accumulator, None, LIMIT, now);
        }
        let mut first = accumulator.take_ready(9, now);
        assert_eq!(sequences(&first), [0]);
        assert!(accumulator.take_ready(9, now).is_empty(), "the second waits for the first");

        let later = now + Duration::from_millis(20);
        accumulator.requeue(first.remove(0), later);
        assert!(accumulator.take_ready(9, now).is_empty(), "nothing overtakes it while it waits");
        assert_eq!(accumulator.next_ready(), Some(later));
        let again = accumulator.take_ready(9, later);
        assert_eq!(sequences(&again), [0]);
        accumulator.landed(&again[0]);
        assert_eq!(sequences(&accumulator.take_ready(9, later)), [1]);
    }

    #[test]
    fn several_batches_of_a_partition_return_to_their_order() {
        let now = Instant::now();
        let config =
            ProducerConfig { max_in_flight: 3, max_in_flight_per_partition: 3, ..ProducerConfig::default() };
        let mut accumulator = accumulator(1, &config, now);
        for _ in 0..3 {
            append(&mut accumulator, None, LIMIT, now);
        }
        let taken: Vec<_> = (0..3).flat_map(|_| accumulator.take_ready(9, now)).collect();
        assert_eq!(sequences(&taken), [0, 1, 2]);
        for batch in taken.into_iter().rev() {
            accumulator.requeue(batch, now);
        }
        let again: Vec<_> = (0..3).flat_map(|_| accumulator.take_ready(9, now)).collect();
        assert_eq!(sequences(&again), [0, 1, 2]);
    }

    #[test]
    fn the_oldest_batches_go_first_when_there_is_no_room_for_all() {
        let now = Instant::now();
        let mut accumulator = accumulator(4, &ProducerConfig::default(), now);
        for partition in [3, 1, 2, 0] {
            let record = ProducerRecord::new(topic())
                .partition(PartitionId::new(partition).expect("small"))
                .value("v");
            accumulator.append(&record, 0, LIMIT, LIMIT, now).expect("taken");
        }
        let lingered = now + Duration::from_secs(1);
        let taken = accumulator.take_ready(2, lingered);
        let partitions: Vec<_> = taken.iter().map(|batch| batch.target.partition.get()).collect();
        assert_eq!(partitions, [3, 1]);
    }

    #[test]
    fn records_without_a_key_stay_together_until_their_batch_is_full() {
        let now = Instant::now();
        let mut accumulator = accumulator(8, &ProducerConfig::default(), now);
        let first = append(&mut accumulator, None, 300, now);
        assert_eq!(append(&mut accumulator, None, 300, now), first);
        let second = append(&mut accumulator, None, 800, now);
        assert_ne!(second, first);
        assert_eq!(append(&mut accumulator, Some("21"), 10, now), partition_of_key(b"21", 8));
    }

    #[test]
    fn what_waits_too_long_expires_oldest_first() {
        let now = Instant::now();
        let mut accumulator = accumulator(1, &ProducerConfig::default(), now);
        append(&mut accumulator, None, LIMIT, now);
        let later = now + Duration::from_secs(30);
        append(&mut accumulator, None, 10, later);
        let expiry = now + ProducerConfig::default().delivery_timeout;
        assert_eq!(accumulator.next_expiry(), Some(expiry));
        assert_eq!(sequences(&accumulator.take_expired(expiry)), [0]);
        assert_eq!(accumulator.next_expiry(), Some(expiry + Duration::from_secs(30)));
    }

    #[test]
    fn a_stale_topic_is_looked_at_again_and_a_closed_producer_takes_nothing() {
        let now = Instant::now();
        let mut accumulator = accumulator(1, &ProducerConfig::default(), now);
        let record = ProducerRecord::new(topic()).value("v");
        let refusal = |accumulator: &mut Accumulator| accumulator.append(&record, 0, 1, 1, now).err();
        assert!(accumulator.trust_topic(&topic(), now));
        assert_eq!(refusal(&mut accumulator), Some(Refused::NeedsMetadata));
        accumulator.close();
        assert_eq!(refusal(&mut accumulator), Some(Refused::Closed));
    }
}

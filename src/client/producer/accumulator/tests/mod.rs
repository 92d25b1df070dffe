//! The accumulator, driven by hand.

mod gathering;
mod model;
mod numbers;

use std::time::Duration;

use super::*;
use crate::types::ProducerId;

const LIMIT: usize = 1_000;

/// One that knows topic `t`, and who it is, if it is to be somebody.
fn accumulator(partitions: u32, config: &ProducerConfig, now: Instant) -> Accumulator {
    let mut accumulator = Accumulator::new(ProducerConfig { batch_bytes: LIMIT, ..config.clone() });
    let metadata = TopicMetadata { partitions, max_message_bytes: 10 * LIMIT };
    accumulator.set_topic(&topic(), metadata, now + Duration::from_hours(1));
    if config.idempotence {
        accumulator.set_identity(identity(7, 0));
    }
    accumulator
}

fn identity(producer_id: i64, epoch: i16) -> Identity {
    Identity { producer_id: ProducerId::new(producer_id).expect("an id"), epoch }
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

fn numbers(batches: &[Batch]) -> Vec<u64> {
    batches.iter().map(|batch| batch.number).collect()
}

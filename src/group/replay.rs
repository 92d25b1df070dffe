//! Reading back what groups have committed, from one partition of `__consumer_offsets`.

use std::collections::HashMap;
use std::sync::Arc;

use super::offsets_log::{self, DecodeError, OffsetKey, OffsetValue};
use super::table::Loss;
use crate::broker::{Broker, BrokerError, Position};
use crate::record::{self, BatchView};
use crate::types::{Offset, PartitionId, TopicName};

/// How much is read at a time.
const READ_BYTES: u64 = 1 << 20;

/// What one partition of the topic says.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// The last offset of each key, and the offset of its record.
    pub(super) offsets: HashMap<OffsetKey, (OffsetValue, Offset)>,
    /// What could not be read.
    pub(super) loss: Option<Loss>,
    /// Records that hold something else, or something we do not know.
    passed_over: Option<(u64, DecodeError)>,
}

/// Reads a partition of the topic from its start to its end. What cannot be read is passed over and
/// remembered, unless an operator has accepted its loss.
pub(super) async fn replay(broker: Arc<Broker>, partition: i32) -> Replayed {
    let mut replayed = Replayed::default();
    if let Err(error) = read_all(&broker, partition, &mut replayed).await {
        tracing::error!(partition, %error, "committed offsets cannot be read");
        replayed.loss = Some(Loss { through: Offset::clamped(i64::MAX), error });
    }
    if let Some((records, first)) = &replayed.passed_over {
        tracing::warn!(partition, records, %first, "records of __consumer_offsets passed over");
    }
    replayed
}

async fn read_all(broker: &Broker, partition: i32, replayed: &mut Replayed) -> Result<(), BrokerError> {
    let topic = TopicName::offsets();
    let reader = broker.reader(&topic, partition)?;
    let mut offset = broker.resolve(&topic, partition, Position::Earliest).await?.offset;
    let end = broker.resolve(&topic, partition, Position::Latest).await?.offset;
    let mut scratch = Vec::new();
    while offset < end {
        let loss = match reader.read(offset, READ_BYTES).await {
            Ok(fetched) if fetched.batches.next_offset <= offset => return Ok(()),
            Ok(fetched) => {
                let first = std::mem::replace(&mut offset, fetched.batches.next_offset);
                let cap = broker.config().max_decompressed_bytes;
                let chunks = fetched.batches.chunks.iter();
                let damage =
                    chunks.filter_map(|chunk| replayed.take(chunk, offset, &mut scratch, cap)).last();
                damage.map(|Damage { last, detail }| {
                    let (topic, partition) = (topic.clone(), PartitionId::new(partition).unwrap_or_default());
                    let error =
                        BrokerError::DataLoss { topic, partition, first, last, accepted: false, detail };
                    Loss { through: last, error }
                })
            }
            Err(error) => {
                let BrokerError::DataLoss { first, last, accepted, .. } = error else { return Err(error) };
                offset = offset.max(last).plus(1);
                if accepted {
                    // Whoever accepted it has settled it: what was read before it is all there is.
                    tracing::info!(partition, %first, %last, "an accepted loss of committed offsets passed over");
                    None
                } else {
                    Some(Loss { through: last, error })
                }
            }
        };
        if let Some(loss) = loss {
            tracing::error!(partition, error = %loss.error, "committed offsets are lost");
            replayed.loss = Some(loss);
        }
    }
    Ok(())
}

/// A batch that cannot be read.
#[derive(Debug, PartialEq, Eq)]
struct Damage {
    /// The last offset that may be in it.
    last: Offset,
    detail: String,
}

impl Replayed {
    /// Takes the records of whole batches lying back to back, which end before `next`. Returns the last damage.
    fn take(
        &mut self,
        batches: &[u8],
        next: Offset,
        scratch: &mut Vec<u8>,
        max_decompressed_bytes: u64,
    ) -> Option<Damage> {
        let mut damage = None;
        for batch in record::batches(batches) {
            let (outcome, last) = match batch {
                Ok(batch) => (self.take_batch(&batch, scratch, max_decompressed_bytes), batch.last_offset()),
                Err(error) => (Err(error.to_string()), Offset::clamped(next.get() - 1)),
            };
            if let Err(detail) = outcome {
                damage = Some(Damage { last, detail });
            }
        }
        damage
    }

    fn take_batch(
        &mut self,
        batch: &BatchView<'_>,
        scratch: &mut Vec<u8>,
        max_decompressed_bytes: u64,
    ) -> Result<(), String> {
        if !batch.crc_is_valid() {
            return Err("a batch has not the checksum it was written with".to_owned());
        }
        if batch.attributes().is_control() {
            return Ok(());
        }
        let records = batch.records(scratch, max_decompressed_bytes).map_err(|error| error.to_string())?;
        for record in records {
            let record = record.map_err(|error| error.to_string())?;
            if let Err(error) = self.take_record(record.key, record.value, record.offset) {
                self.passed_over.get_or_insert((0, error)).0 += 1;
            }
        }
        Ok(())
    }

    fn take_record(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        stands_at: Offset,
    ) -> Result<(), DecodeError> {
        let key = offsets_log::decode_key(key.unwrap_or_default())?;
        match value {
            Some(value) => {
                self.offsets.insert(key, (offsets_log::decode_value(value)?, stands_at));
            }
            None => {
                self.offsets.remove(&key);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchBuilder, BatchOptions};
    use crate::types::{GroupName, LeaderEpoch};

    fn key(group: &str) -> OffsetKey {
        OffsetKey {
            group: GroupName::parse(group).expect("valid"),
            topic: TopicName::parse("t").expect("valid"),
            partition: PartitionId::default(),
        }
    }

    fn value(offset: i64) -> OffsetValue {
        OffsetValue {
            offset: Offset::clamped(offset),
            leader_epoch: None,
            metadata: String::new(),
            commit_timestamp_ms: 0,
            topic_id: None,
        }
    }

    #[test]
    fn the_last_offset_of_a_key_counts_and_a_tombstone_takes_it_away() {
        let mut batch = BatchBuilder::new(BatchOptions::default());
        for (group, offset) in [("a", Some(1)), ("b", Some(2)), ("a", Some(3)), ("b", None)] {
            let value = offset.map(|offset| offsets_log::encode_value(&value(offset)));
            batch.push(0, Some(&offsets_log::encode_key(&key(group))), value.as_deref(), []);
        }
        // Metadata of a classic group, and no key at all.
        batch.push(0, Some(b"\0\x02\0\x01a"), Some(b"\0\x03"), []);
        batch.push(0, None, Some(b"x"), []);
        let batch = batch.build().expect("valid");

        let mut replayed = Replayed::default();
        assert_eq!(replayed.take(&batch, Offset::clamped(6), &mut Vec::new(), 1 << 20), None);
        assert_eq!(replayed.offsets, HashMap::from([(key("a"), (value(3), Offset::clamped(2)))]));
        assert_eq!(replayed.passed_over, Some((2, DecodeError::KeyVersion(2))));
    }
    #[test]
    fn a_damaged_batch_is_told_and_those_around_it_count() {
        let batch_of = |group: &str, base: i64| {
            let mut batch = BatchBuilder::new(BatchOptions::default());
            let (key, value) =
                (offsets_log::encode_key(&key(group)), offsets_log::encode_value(&value(base)));
            batch.push(0, Some(&key), Some(&value), []);
            let mut batch = batch.build().expect("valid");
            record::set_position(&mut batch, Offset::clamped(base), LeaderEpoch(0));
            batch
        };
        let mut damaged = batch_of("b", 1);
        *damaged.last_mut().expect("not empty") ^= 1;
        let bytes = [batch_of("a", 0), damaged, batch_of("c", 2)].concat();

        let mut replayed = Replayed::default();
        let damage = replayed.take(&bytes, Offset::clamped(3), &mut Vec::new(), 1 << 20).expect("damage");
        assert_eq!(damage.last, Offset::clamped(1));
        let mut groups: Vec<_> = replayed.offsets.keys().map(|key| key.group.as_str()).collect();
        groups.sort_unstable();
        assert_eq!(groups, ["a", "c"]);

        let cut = &bytes[..bytes.len() - 1];
        let damage = replayed.take(cut, Offset::clamped(3), &mut Vec::new(), 1 << 20).expect("damage");
        assert_eq!(damage.last, Offset::clamped(2));
    }
}

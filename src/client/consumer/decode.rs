//! Turns one partition's part of a response into records, a batch at a time, so that no more than one is unpacked.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes, BytesMut};
use tonic::Code;

use super::assignment::Assigned;
use crate::client::error::{Error, reason};
use crate::client::record::{ConsumedRecord, Header};
use crate::record::{BatchError, BatchView, Codec, RecordView};
use crate::types::{LeaderEpoch, Offset};

/// Records that are copied out share allocations of at least this size.
const ARENA_BYTES: usize = 64 << 10;

/// What was read from one partition and is not yet handed out.
#[derive(Debug)]
pub(super) struct Chunk {
    /// The partition's place in the assignment.
    pub(super) index: usize,
    /// Whole batches, back to back.
    batches: VecDeque<Bytes>,
    /// Of the batch being handed out.
    records: VecDeque<ConsumedRecord>,
    leader_epoch: LeaderEpoch,
    /// Go on from here when all is handed out.
    next_offset: Offset,
}

impl Chunk {
    pub(super) fn new(index: usize, batches: Vec<Bytes>, next_offset: Offset) -> Self {
        let batches = batches.into();
        Self { index, batches, records: VecDeque::new(), leader_epoch: LeaderEpoch::default(), next_offset }
    }

    /// The next record that the partition wants, and moves the partition's position past it; `None` when there is none
    /// left here.
    pub(super) fn next(
        &mut self,
        assigned: &mut Assigned,
        scratch: &mut Vec<u8>,
        max_decompressed_bytes: u64,
    ) -> Result<Option<ConsumedRecord>, Error> {
        loop {
            if let Some(record) = self.records.pop_front() {
                assigned.advance(record.offset.plus(1));
                assigned.leader_epoch = Some(self.leader_epoch);
                return Ok(Some(record));
            }
            let Some(batches) = self.batches.front_mut().filter(|_| assigned.is_active()) else {
                assigned.advance(self.next_offset);
                return Ok(None);
            };
            if batches.is_empty() {
                self.batches.pop_front();
                continue;
            }
            let view = BatchView::parse(batches).map_err(|error| {
                // Where the next batch begins is not known either.
                damaged(assigned, (assigned.position, last_before(self.next_offset)), &error.to_string())
            })?;
            let batch = batches.slice(..view.size_bytes());
            self.leader_epoch = view.leader_epoch();
            decode(&batch, assigned, scratch, max_decompressed_bytes, &mut self.records)
                .map_err(|error| damaged(assigned, extent(&view, self.next_offset), &error.to_string()))?;
            batches.advance(batch.len());
        }
    }
}

/// Appends those records of `batch` that the partition wants to `records`.
fn decode(
    batch: &Bytes,
    assigned: &Assigned,
    scratch: &mut Vec<u8>,
    max_decompressed_bytes: u64,
    records: &mut VecDeque<ConsumedRecord>,
) -> Result<(), BatchError> {
    let view = BatchView::parse(batch)?;
    view.check_crc()?;
    if view.attributes().is_control() || view.next_offset() <= assigned.position {
        return Ok(());
    }
    // Records of an uncompressed batch are slices of it. Those of a compressed one lie in `scratch`, which is used again:
    // they are copied out, many to an allocation.
    let compressed = view.attributes().codec() != Some(Codec::None);
    let mut arena = BytesMut::new();
    let mut own = |bytes: &[u8]| {
        if !compressed {
            return batch.slice_ref(bytes);
        }
        if arena.capacity() < bytes.len() {
            arena = BytesMut::with_capacity(ARENA_BYTES.max(bytes.len()));
        }
        arena.extend_from_slice(bytes);
        arena.split().freeze()
    };
    for record in view.records(scratch, max_decompressed_bytes)? {
        let record = record?;
        if assigned.wants(record.offset) {
            records.push_back(consumed(assigned, &record, &mut own));
        }
    }
    Ok(())
}

fn consumed(
    assigned: &Assigned,
    record: &RecordView<'_>,
    own: &mut impl FnMut(&[u8]) -> Bytes,
) -> ConsumedRecord {
    ConsumedRecord {
        topic: assigned.partition.topic.clone(),
        partition: assigned.partition.partition,
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key: record.key.map(&mut *own),
        value: record.value.map(&mut *own),
        headers: record
            .headers()
            .map(|(key, value)| Header { key: key.to_owned(), value: value.map(&mut *own) })
            .collect(),
    }
}

/// The first and the last offset of a batch, as its header has them. What a damaged header says is believed no further
/// than `end`, where the response that held it ends.
fn extent(view: &BatchView<'_>, end: Offset) -> (Offset, Offset) {
    let last = last_before(end);
    (view.base_offset().min(last), view.last_offset().min(last))
}

fn last_before(end: Offset) -> Offset {
    Offset::clamped(end.get() - 1)
}

/// Offsets that cannot be read, from the first to the last: the partition's data, or what carried it, is damaged.
fn damaged(assigned: &Assigned, (first, last): (Offset, Offset), detail: &str) -> Error {
    let partition = &assigned.partition;
    let message = format!("partition {partition} cannot be read from offset {first} to {last}: {detail}");
    let facts = [
        ("topic", partition.topic.to_string()),
        ("partition", partition.partition.to_string()),
        ("first_offset", first.to_string()),
        ("last_offset", last.to_string()),
    ];
    Error::with_metadata(Code::DataLoss, reason::DATA_LOSS, message, facts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::position::TopicPartition;
    use crate::record::{BatchBuilder, BatchOptions, set_position};
    use crate::types::{PartitionId, TopicName};

    const MAX: u64 = 1 << 20;

    fn at(position: i64) -> Assigned {
        let topic = TopicName::parse("t").expect("a valid name");
        Assigned::new(TopicPartition::new(topic, PartitionId::default()), Offset::clamped(position))
    }

    /// A batch of records whose values are their offsets.
    fn batch(codec: Codec, offsets: std::ops::Range<i64>) -> Bytes {
        let mut builder = BatchBuilder::new(BatchOptions { codec });
        for offset in offsets.clone() {
            builder.push(offset, None, Some(offset.to_string().as_bytes()), [("h", Some(&b"x"[..]))]);
        }
        let mut bytes = builder.build().expect("a batch");
        set_position(&mut bytes, Offset::clamped(offsets.start), LeaderEpoch(3));
        bytes.freeze()
    }

    fn drain(chunk: &mut Chunk, assigned: &mut Assigned) -> Result<Vec<String>, Error> {
        let mut values = Vec::new();
        while let Some(record) = chunk.next(assigned, &mut Vec::new(), MAX)? {
            assert_eq!(assigned.position, record.offset.plus(1));
            assert_eq!(record.headers.len(), 1);
            values.push(String::from_utf8_lossy(&record.value.unwrap_or_default()).into_owned());
        }
        Ok(values)
    }

    /// The first and the last offset that an error says are lost.
    fn lost(error: &Error) -> (&str, &str) {
        assert_eq!((error.code(), error.reason()), (Code::DataLoss, reason::DATA_LOSS));
        let fact = |name| error.metadata().get(name).map_or("", String::as_str);
        (fact("first_offset"), fact("last_offset"))
    }

    #[test]
    fn records_before_the_position_are_trimmed_and_batches_follow_each_other() {
        for codec in [Codec::None, Codec::Zstd] {
            let back_to_back = [batch(codec, 0..3), batch(codec, 3..5)].concat();
            let mut assigned = at(2);
            let mut chunk = Chunk::new(0, vec![back_to_back.into(), batch(codec, 5..6)], Offset::clamped(6));
            assert_eq!(drain(&mut chunk, &mut assigned).expect("readable"), ["2", "3", "4", "5"]);
            assert_eq!(assigned.leader_epoch, Some(LeaderEpoch(3)));
        }
    }

    #[test]
    fn uncompressed_records_are_slices_of_their_batch() {
        let bytes = batch(Codec::None, 0..1);
        let range = bytes.as_ptr_range();
        let mut chunk = Chunk::new(0, vec![bytes], Offset::clamped(1));
        let record = chunk.next(&mut at(0), &mut Vec::new(), MAX).expect("readable").expect("a record");
        assert!(range.contains(&record.value.expect("a value").as_ptr()));
    }

    #[test]
    fn the_position_moves_past_what_is_not_handed_out() {
        let mut assigned = at(7);
        let mut chunk = Chunk::new(0, Vec::new(), Offset::clamped(9));
        assert!(chunk.next(&mut assigned, &mut Vec::new(), MAX).expect("readable").is_none());
        assert_eq!(assigned.position.get(), 9);
    }

    #[test]
    fn a_damaged_batch_is_an_error_that_names_the_place() {
        let mut bytes = batch(Codec::None, 4..6).to_vec();
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        let mut assigned = at(4);
        let mut chunk = Chunk::new(0, vec![bytes.into(), batch(Codec::None, 6..9)], Offset::clamped(9));
        let error = drain(&mut chunk, &mut assigned).expect_err("a wrong checksum");
        assert_eq!(lost(&error), ("4", "5"));
        assert_eq!(assigned.position.get(), 4);
    }

    #[test]
    fn the_header_of_a_damaged_batch_is_not_believed_beyond_the_response() {
        let mut bytes = batch(Codec::None, 4..6).to_vec();
        // The last offset delta; the checksum covers it.
        bytes[23] = 0x7f;
        let mut chunk = Chunk::new(0, vec![bytes.into()], Offset::clamped(6));
        assert_eq!(lost(&drain(&mut chunk, &mut at(4)).expect_err("damaged")), ("4", "5"));
        // Not even a header.
        let mut chunk = Chunk::new(0, vec![Bytes::from_static(b"rot")], Offset::clamped(6));
        assert_eq!(lost(&drain(&mut chunk, &mut at(4)).expect_err("damaged")), ("4", "5"));
    }

    #[test]
    fn a_batch_unpacks_to_no_more_than_the_cap() {
        let mut builder = BatchBuilder::new(BatchOptions { codec: Codec::Zstd });
        builder.push(0, None, Some(&vec![0; 2 << 20]), []);
        let bytes = builder.build().expect("a batch").freeze();
        let mut chunk = Chunk::new(0, vec![bytes], Offset::clamped(1));
        let error = drain(&mut chunk, &mut at(0)).expect_err("larger than the cap");
        assert_eq!(lost(&error), ("0", "0"));
    }
}

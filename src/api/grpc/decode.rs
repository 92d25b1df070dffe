//! Record batches as they are read, into what a fetch answers with: decoded records, or batches in pieces of a good
//! size.
//!
//! Decoding is bounded: one batch may unpack to no more than the broker allows, no more of them are unpacked at a time
//! than there are cores, and one answer holds no more than [`MAX_DECODED_BYTES`] of records, however well they were
//! compressed. What is left over is read by the next fetch.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use tokio::sync::Semaphore;

use super::error::Failure;
use crate::config::GrpcConfig;
use crate::proto::{FetchedRecord, Header};
use crate::record::{self, BatchError, BatchView, Codec, RecordView};
use crate::storage::ReadBatches;
use crate::types::Offset;

/// The most decoded records of one answer, in bytes of memory; the last record may go beyond it.
pub(super) const MAX_DECODED_BYTES: usize = GrpcConfig::MAX_DECODED_BYTES as usize;
/// Compressed bytes up to which unpacking costs less than a change of threads.
const INLINE_COMPRESSED_BYTES: usize = 64 << 10;
/// Bytes in all up to which walking records may keep an async worker.
const INLINE_BYTES: usize = 1 << 20;
/// Smaller chunks next to each other are copied together up to this size: each chunk costs the wire and both ends more
/// than such a copy.
const COALESCED_BYTES: usize = 64 << 10;

/// Decoded records, and where to go on.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) records: Vec<FetchedRecord>,
    /// The memory they take.
    pub(super) weight_bytes: usize,
    /// One past the last record that was looked at, returned or not.
    pub(super) next_offset: Offset,
}

/// A batch that cannot be decoded.
#[derive(Debug)]
pub(super) struct Undecodable {
    pub(super) first: Offset,
    pub(super) last: Offset,
    pub(super) error: BatchError,
    /// It could be when it was read: the bytes have vanished meanwhile.
    vanished: bool,
}

impl Undecodable {
    pub(super) fn in_partition(&self, topic: &str, partition: i32) -> Failure {
        if self.vanished {
            return Failure::vanished(topic, partition);
        }
        Failure::undecodable(topic, partition, self.first, self.last, &self.error)
    }
}

/// What a decoder may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// What one batch may unpack to.
    pub(super) max_decompressed_bytes: u64,
    /// Stop after the record that reaches this weight.
    pub(super) max_weight_bytes: usize,
}

/// The records of `batches` from `from` on, without those of control batches. Heavy work leaves the async workers.
///
/// # Errors
/// [`Undecodable`] if the first batch to be decoded cannot be; a later one only ends the result early.
pub(super) async fn records(
    batches: &ReadBatches,
    from: Offset,
    budget: Budget,
    cores: &Arc<Semaphore>,
) -> Result<Result<Decoded, Undecodable>, Failure> {
    if !is_heavy(batches) {
        // What unpacks to more than it looks like is work for others.
        let max_decompressed_bytes = budget.max_decompressed_bytes.min(INLINE_BYTES as u64);
        if let Ok(decoded) = decode(batches, from, Budget { max_decompressed_bytes, ..budget }) {
            return Ok(Ok(decoded));
        }
    }
    let core = Arc::clone(cores).acquire_owned().await.map_err(|_| Failure::internal())?;
    let batches = batches.clone();
    let work = move || {
        let _core = core;
        decode(&batches, from, budget)
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "decoding records failed");
        Failure::internal()
    })
}

fn is_heavy(batches: &ReadBatches) -> bool {
    let compressed = || {
        batches
            .chunks
            .iter()
            .flat_map(|chunk| record::batches(chunk))
            .flatten()
            .filter(|batch| batch.attributes().codec() != Some(Codec::None))
            .map(|batch| batch.size_bytes())
            .sum::<usize>()
    };
    batches.size_bytes > INLINE_BYTES as u64
        || (batches.size_bytes > INLINE_COMPRESSED_BYTES as u64 && compressed() > INLINE_COMPRESSED_BYTES)
}

fn decode(batches: &ReadBatches, from: Offset, budget: Budget) -> Result<Decoded, Undecodable> {
    let mut decoded = Decoded { next_offset: from, ..Decoded::default() };
    let mut scratch = Vec::new();
    for chunk in &batches.chunks {
        for batch in record::batches(chunk) {
            let outcome = match batch {
                Ok(batch) if batch.next_offset() <= from => Ok(true),
                Ok(batch) if batch.attributes().is_control() => {
                    decoded.next_offset = batch.next_offset();
                    Ok(true)
                }
                Ok(batch) => decode_batch(chunk, &batch, from, budget, &mut scratch, &mut decoded)
                    .map_err(|error| (batch.last_offset(), error)),
                Err(error) => Err((decoded.next_offset, error)),
            };
            match outcome {
                Ok(true) => {}
                Ok(false) => return Ok(decoded),
                // What was decoded before it is good; the next fetch begins at the bad one and fails.
                Err(_) if !decoded.records.is_empty() => return Ok(decoded),
                Err((last, error)) => {
                    let vanished = !batches.lease.is_intact();
                    return Err(Undecodable { first: decoded.next_offset, last, error, vanished });
                }
            }
        }
    }
    decoded.next_offset = decoded.next_offset.max(batches.next_offset);
    Ok(decoded)
}

/// Returns whether all of the batch was taken.
fn decode_batch(
    chunk: &Bytes,
    batch: &BatchView<'_>,
    from: Offset,
    budget: Budget,
    scratch: &mut Vec<u8>,
    into: &mut Decoded,
) -> Result<bool, BatchError> {
    // They may come from a disk that has changed them, and those who are given records cannot tell.
    batch.check_crc()?;
    let mut memory = Memory { chunk, arena: BytesMut::new() };
    for record in batch.records(scratch, budget.max_decompressed_bytes)? {
        let record = record?;
        if record.offset < from {
            continue;
        }
        if into.weight_bytes >= budget.max_weight_bytes {
            return Ok(false);
        }
        into.next_offset = record.offset.plus(1);
        let record = memory.fetched(&record);
        into.weight_bytes += weight(&record);
        into.records.push(record);
    }
    // A compacted batch may end above its last record.
    into.next_offset = batch.next_offset();
    Ok(true)
}

/// What a decoded record takes in memory.
pub(super) fn weight(record: &FetchedRecord) -> usize {
    let length = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
    let headers: usize = record
        .headers
        .iter()
        .map(|header| size_of::<Header>() + header.key.len() + length(&header.value))
        .sum();
    size_of::<FetchedRecord>() + length(&record.key) + length(&record.value) + headers
}

/// Where the parts of records come to lie: slices of the chunk where they are in it, as those of an uncompressed batch
/// are; else copies, many to an allocation.
struct Memory<'c> {
    chunk: &'c Bytes,
    arena: BytesMut,
}

impl Memory<'_> {
    const ARENA_BYTES: usize = 16 << 10;

    fn fetched(&mut self, record: &RecordView<'_>) -> FetchedRecord {
        FetchedRecord {
            offset: record.offset.get(),
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(|key| self.bytes(key)),
            value: record.value.map(|value| self.bytes(value)),
            headers: record
                .headers()
                .map(|(key, value)| Header {
                    key: key.to_owned(),
                    value: value.map(|value| self.bytes(value)),
                })
                .collect(),
        }
    }

    fn bytes(&mut self, part: &[u8]) -> Bytes {
        if part.is_empty() {
            return Bytes::new();
        }
        let within = self.chunk.as_ptr_range();
        let range = part.as_ptr_range();
        if within.start <= range.start && range.end <= within.end {
            return self.chunk.slice_ref(part);
        }
        if self.arena.capacity() < part.len() {
            self.arena = BytesMut::with_capacity(part.len().max(Self::ARENA_BYTES));
        }
        self.arena.extend_from_slice(part);
        self.arena.split().freeze()
    }
}

/// The same batches in fewer pieces: small neighbours are copied together, large ones stay as they are.
pub(super) fn coalesce(chunks: Vec<Bytes>) -> Vec<Bytes> {
    let mut pieces = Vec::with_capacity(chunks.len());
    let mut run: Vec<Bytes> = Vec::new();
    let mut run_bytes = 0;
    for chunk in chunks {
        if run_bytes + chunk.len() > COALESCED_BYTES {
            join(&mut pieces, &mut run);
            run_bytes = 0;
        }
        run_bytes += chunk.len();
        run.push(chunk);
    }
    join(&mut pieces, &mut run);
    pieces
}

/// Moves `run` to the end of `pieces` as one.
fn join(pieces: &mut Vec<Bytes>, run: &mut Vec<Bytes>) {
    if run.len() > 1 {
        let mut joined = BytesMut::with_capacity(run.iter().map(Bytes::len).sum());
        run.drain(..).for_each(|chunk| joined.extend_from_slice(&chunk));
        pieces.push(joined.freeze());
    } else {
        pieces.append(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchBuilder, BatchOptions, set_position};
    use crate::types::LeaderEpoch;

    const GENEROUS: Budget = Budget { max_decompressed_bytes: 1 << 20, max_weight_bytes: 1 << 20 };

    fn batch(base: i64, values: &[&str], codec: Codec) -> Bytes {
        let mut builder = BatchBuilder::new(BatchOptions { codec });
        for value in values {
            builder.push(7, Some(b"key"), Some(value.as_bytes()), [("h", Some(&b"1"[..])), ("h", None)]);
        }
        let mut batch = builder.build().expect("a batch");
        set_position(&mut batch, Offset::clamped(base), LeaderEpoch(1));
        batch.freeze()
    }

    fn read(chunks: Vec<Bytes>, next: i64) -> ReadBatches {
        let size_bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        ReadBatches { chunks, next_offset: Offset::clamped(next), size_bytes, ..ReadBatches::default() }
    }

    fn offsets(decoded: &Decoded) -> Vec<i64> {
        decoded.records.iter().map(|record| record.offset).collect()
    }

    #[test]
    fn records_below_the_asked_offset_are_left_out() {
        for codec in [Codec::None, Codec::Zstd] {
            let batches = read(vec![batch(10, &["a", "b", "c"], codec), batch(13, &["d"], codec)], 14);
            let decoded = decode(&batches, Offset::clamped(11), GENEROUS).expect("decodes");
            assert_eq!(offsets(&decoded), [11, 12, 13]);
            assert_eq!(decoded.next_offset.get(), 14);
            let last = decoded.records.last().expect("a record");
            assert_eq!(last.value.as_deref(), Some(&b"d"[..]));
            assert_eq!(last.key.as_deref(), Some(&b"key"[..]));
            assert_eq!(last.headers.len(), 2);
            assert_eq!(last.headers[1].value, None);
        }
    }

    #[test]
    fn a_full_answer_ends_within_a_batch_and_says_where_to_go_on() {
        let batches = read(vec![batch(0, &["a", "b", "c"], Codec::Lz4)], 3);
        let budget = Budget { max_weight_bytes: 1, ..GENEROUS };
        let mut from = Offset::ZERO;
        for expected in 0..3 {
            let decoded = decode(&batches, from, budget).expect("decodes");
            assert_eq!(offsets(&decoded), [expected]);
            from = decoded.next_offset;
        }
        assert_eq!(from.get(), 3);
    }

    #[test]
    fn a_batch_that_unpacks_beyond_the_cap_is_a_loss_of_its_own_range() {
        let bomb = batch(1, &["0".repeat(100_000).as_str()], Codec::Zstd);
        let small = Budget { max_decompressed_bytes: 10_000, ..GENEROUS };
        let batches = read(vec![batch(0, &["good"], Codec::None), bomb], 2);
        let decoded = decode(&batches, Offset::ZERO, small).expect("the good one first");
        assert_eq!(offsets(&decoded), [0]);
        assert_eq!(decoded.next_offset.get(), 1);
        let lost = decode(&batches, decoded.next_offset, small).expect_err("the bad one next");
        assert_eq!((lost.first.get(), lost.last.get()), (1, 1));
    }

    #[test]
    fn a_batch_that_rotted_on_the_disk_is_a_loss_of_its_own_range() {
        let mut rotten = BytesMut::from(&batch(1, &["snow", "rain"], Codec::None)[..]);
        *rotten.last_mut().expect("bytes") ^= 1;
        let batches = read(vec![batch(0, &["good"], Codec::None), rotten.freeze()], 3);
        let decoded = decode(&batches, Offset::ZERO, GENEROUS).expect("the good one first");
        assert_eq!(offsets(&decoded), [0]);
        let lost = decode(&batches, decoded.next_offset, GENEROUS).expect_err("the bad one next");
        assert_eq!((lost.first.get(), lost.last.get()), (1, 2));
    }

    #[test]
    fn everything_trimmed_still_moves_on() {
        let batches = read(vec![batch(0, &["a", "b"], Codec::None)], 2);
        let decoded = decode(&batches, Offset::clamped(2), GENEROUS).expect("decodes");
        assert!(decoded.records.is_empty());
        assert_eq!(decoded.next_offset.get(), 2);
    }

    #[test]
    fn small_neighbours_are_joined_and_large_ones_stay_as_they_are() {
        let large = Bytes::from(vec![1; COALESCED_BYTES]);
        let small = Bytes::from(vec![2; 1_000]);
        let pieces = coalesce(vec![small.clone(), small.clone(), large.clone(), small.clone()]);
        assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [2_000, COALESCED_BYTES, 1_000]);
        assert_eq!(pieces[1].as_ptr(), large.as_ptr());
        assert!(coalesce(Vec::new()).is_empty());
    }
}

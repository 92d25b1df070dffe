//! What a batch must meet to be appended.

use super::attributes::TimestampType;
use super::batch::BatchView;
use super::codec::Codec;
use super::error::{BatchError, CorruptBatch, InvalidBatch, RecordFault, UnsupportedBatch};
use super::header::{NO_PRODUCER_ID, NO_TIMESTAMP};

/// The shortest record: a byte for each of its length, attributes, two deltas, two lengths and the header count.
pub const MIN_RECORD_BYTES: u64 = 7;

/// The limits that [`validate`] holds a batch to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValidationRules {
    /// The largest batch, header included, as it was sent.
    pub max_message_bytes: u64,
    /// The broker's time.
    pub now_ms: i64,
    /// How far ahead of it a timestamp may be; `i64::MAX` where the broker sets them anyway.
    pub timestamp_after_max_ms: i64,
    /// Whether to unpack and walk the records of a compressed batch too, not only those of an uncompressed one.
    pub strict: bool,
    /// The most that the records of one batch may unpack to.
    pub max_decompressed_bytes: u64,
}

/// Checks that `bytes` are exactly one batch, as a producer may send it.
///
/// The base offset and leader epoch are not looked at beyond what [`BatchView::parse`] demands: the broker
/// overwrites them.
///
/// # Errors
/// The first rule broken, in this order: the frame, the size, the checksum, the attributes, the counts, the
/// producer, the timestamps, the records.
pub fn validate<'a>(bytes: &'a [u8], rules: &ValidationRules) -> Result<BatchView<'a>, BatchError> {
    let batch = check_frame(bytes, rules)?;
    batch.check_crc()?;
    let codec = check_header(&batch, rules)?;
    if codec == Codec::None || rules.strict {
        check_records(&batch, rules)?;
    }
    Ok(batch)
}

/// As [`validate`], for a batch that a [`BatchBuilder`](super::BatchBuilder) has just made here: its checksum and its
/// records are what they should be, but its size, producer and timestamps are what it was given.
///
/// # Errors
/// As [`validate`].
pub fn validate_built<'a>(bytes: &'a [u8], rules: &ValidationRules) -> Result<BatchView<'a>, BatchError> {
    let batch = check_frame(bytes, rules)?;
    check_header(&batch, rules)?;
    Ok(batch)
}

/// One whole batch and nothing else, not too large.
fn check_frame<'a>(bytes: &'a [u8], rules: &ValidationRules) -> Result<BatchView<'a>, BatchError> {
    let batch = BatchView::parse(bytes)?;
    let trailing = bytes.len() - batch.size_bytes();
    if trailing > 0 {
        return Err(CorruptBatch::TrailingBytes { bytes: trailing }.into());
    }
    let size_bytes = batch.size_bytes() as u64;
    if size_bytes > rules.max_message_bytes {
        return Err(BatchError::TooLarge { size_bytes, max_message_bytes: rules.max_message_bytes });
    }
    Ok(batch)
}

/// What can be told of a batch without its records; returns the codec.
fn check_header(batch: &BatchView<'_>, rules: &ValidationRules) -> Result<Codec, BatchError> {
    let codec = check_attributes(batch)?;
    if batch.record_count() < 1 || batch.record_count() - 1 != batch.last_offset_delta() {
        return Err(batch.record_count_fault().into());
    }
    check_producer(batch)?;
    check_timestamps(batch, rules)?;
    if codec != Codec::None
        && u64::from(batch.record_count().unsigned_abs()) > rules.max_decompressed_bytes / MIN_RECORD_BYTES
    {
        // Whatever the records are, what may be unpacked has no room for so many.
        return Err(batch.record_count_fault().into());
    }
    Ok(codec)
}

/// The codec, if all attribute bits are such as a producer may set.
fn check_attributes(batch: &BatchView<'_>) -> Result<Codec, BatchError> {
    let attributes = batch.attributes();
    let codec = batch.codec()?;
    if attributes.unknown_bits() != 0 {
        return Err(InvalidBatch::UnknownAttributes { bits: attributes.unknown_bits() }.into());
    }
    if attributes.is_control() {
        return Err(InvalidBatch::Control.into());
    }
    if attributes.has_delete_horizon() {
        return Err(InvalidBatch::DeleteHorizon.into());
    }
    if attributes.timestamp_type() == TimestampType::LogAppendTime {
        return Err(InvalidBatch::LogAppendTime.into());
    }
    if attributes.is_transactional() {
        return Err(UnsupportedBatch::Transactional.into());
    }
    Ok(codec)
}

/// A producer has an epoch and numbers its records.
///
/// Epoch and sequence mean nothing without a producer id, and clients fill them differently (Sarama leaves the
/// sequence at 0), so that as in Kafka they are not looked at.
fn check_producer(batch: &BatchView<'_>) -> Result<(), InvalidBatch> {
    let producer_id = batch.producer_id();
    match batch.producer() {
        None if producer_id == NO_PRODUCER_ID => Ok(()),
        Some(stamp) if stamp.producer_epoch >= 0 && stamp.base_sequence >= 0 => Ok(()),
        _ => Err(InvalidBatch::Producer {
            producer_id,
            producer_epoch: batch.producer_epoch(),
            base_sequence: batch.base_sequence(),
        }),
    }
}

fn check_timestamps(batch: &BatchView<'_>, rules: &ValidationRules) -> Result<(), InvalidBatch> {
    for timestamp_ms in [batch.base_timestamp(), batch.max_timestamp()] {
        check_not_negative(timestamp_ms)?;
    }
    let &ValidationRules { now_ms, timestamp_after_max_ms, .. } = rules;
    let timestamp_ms = batch.max_timestamp();
    if timestamp_ms > now_ms.saturating_add(timestamp_after_max_ms) {
        return Err(InvalidBatch::TimestampAhead { timestamp_ms, now_ms, timestamp_after_max_ms });
    }
    Ok(())
}

fn check_not_negative(timestamp_ms: i64) -> Result<(), InvalidBatch> {
    if timestamp_ms < NO_TIMESTAMP { Err(InvalidBatch::NegativeTimestamp { timestamp_ms }) } else { Ok(()) }
}

/// Walks the records: each well formed, their offsets consecutive, and the header's maximum timestamp theirs.
fn check_records(batch: &BatchView<'_>, rules: &ValidationRules) -> Result<(), BatchError> {
    let mut scratch = Vec::new();
    let mut records = batch.records(&mut scratch, rules.max_decompressed_bytes)?;
    let mut records_ms = NO_TIMESTAMP;
    let mut index = 0_u32;
    while let Some(place) = records.next_place() {
        let (found, timestamp_ms) = place?;
        if found != i64::from(index) {
            let fault = RecordFault::OffsetDelta { found, expected: i64::from(index) };
            return Err(CorruptBatch::Record { index, fault }.into());
        }
        check_not_negative(timestamp_ms)?;
        records_ms = records_ms.max(timestamp_ms);
        index += 1;
    }
    let header_ms = batch.max_timestamp();
    if header_ms != records_ms {
        return Err(InvalidBatch::MaxTimestamp { header_ms, records_ms }.into());
    }
    Ok(())
}

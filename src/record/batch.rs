//! One encoded batch, borrowed: its frame, its header's fields and the way to its records.

use std::iter::FusedIterator;

use super::attributes::{Attributes, TimestampType};
use super::builder::ProducerStamp;
use super::codec::Codec;
use super::error::{BatchError, CorruptBatch, InvalidBatch};
use super::header::{self, HEADER_BYTES, Header, LENGTH_PREFIX_BYTES, MAGIC_V2, at};
use super::records::{Records, RecordsHeader};
use crate::types::{LeaderEpoch, Offset};

/// A borrowed view of exactly one batch's bytes; a field is decoded when it is asked for.
///
/// A view says that the frame is whole, the magic is 2 and the offsets are such as a log can have: none is
/// negative, the last is not before the base, none overflows. It says nothing of the checksum and the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchView<'a> {
    header: &'a Header,
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// The batch at the start of `bytes`. What follows it is left out of the view.
    ///
    /// # Errors
    /// [`BatchError::Corrupt`] if there is no whole batch of version 2 with sane offsets. Checks no CRC.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let truncated = |needed_bytes| CorruptBatch::Truncated { needed_bytes, available_bytes: bytes.len() };
        let batch_length = batch_length(bytes).ok_or_else(|| truncated(LENGTH_PREFIX_BYTES))?;
        let size_bytes = size_bytes(batch_length).ok_or(CorruptBatch::BatchLength { batch_length })?;
        let bytes = bytes.get(..size_bytes).ok_or_else(|| truncated(size_bytes))?;
        let header = bytes.first_chunk().ok_or_else(|| truncated(HEADER_BYTES))?;
        let view = Self { header, bytes };

        let magic = i8::from_be_bytes(header::get::<{ at::MAGIC }, _>(header));
        if magic != MAGIC_V2 {
            return Err(CorruptBatch::Magic { magic }.into());
        }
        let base_offset = i64::from_be_bytes(header::get::<{ at::BASE_OFFSET }, _>(header));
        let last_offset_delta = view.last_offset_delta();
        let last_offset = base_offset.checked_add(i64::from(last_offset_delta));
        if base_offset < 0 || last_offset_delta < 0 || last_offset.is_none_or(|last| last == i64::MAX) {
            return Err(CorruptBatch::Offsets { base_offset, last_offset_delta }.into());
        }
        Ok(view)
    }

    /// The batch as it is encoded.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its size, header included.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The offset of its first record; of where that was, if it has been compacted away.
    pub fn base_offset(&self) -> Offset {
        Offset::clamped(i64::from_be_bytes(header::get::<{ at::BASE_OFFSET }, _>(self.header)))
    }

    /// The offset of its last record; of where that was, if it has been compacted away.
    pub fn last_offset(&self) -> Offset {
        self.base_offset().plus(self.last_offset_delta().unsigned_abs())
    }

    /// One past [`Self::last_offset`].
    pub fn next_offset(&self) -> Offset {
        self.last_offset().plus(1)
    }

    /// Who was responsible for the partition when the batch was appended.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(i32::from_be_bytes(header::get::<{ at::LEADER_EPOCH }, _>(self.header)))
    }

    /// The checksum field.
    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(header::get::<{ at::CRC }, _>(self.header))
    }

    /// The attribute bits.
    pub fn attributes(&self) -> Attributes {
        Attributes(i16::from_be_bytes(header::get::<{ at::ATTRIBUTES }, _>(self.header)))
    }

    /// What to add to the base offset for the last; 0 or more.
    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(header::get::<{ at::LAST_OFFSET_DELTA }, _>(self.header))
    }

    /// What the records' timestamps count from; the delete horizon, if that attribute is set.
    pub fn base_timestamp(&self) -> i64 {
        i64::from_be_bytes(header::get::<{ at::BASE_TIMESTAMP }, _>(self.header))
    }

    /// The largest timestamp of its records; with log-append time, that of them all. -1 if they have none.
    pub fn max_timestamp(&self) -> i64 {
        i64::from_be_bytes(header::get::<{ at::MAX_TIMESTAMP }, _>(self.header))
    }

    /// Who produced it; -1 for nobody in particular.
    pub fn producer_id(&self) -> i64 {
        i64::from_be_bytes(header::get::<{ at::PRODUCER_ID }, _>(self.header))
    }

    /// Which incarnation of the producer; means nothing without a producer id.
    pub fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes(header::get::<{ at::PRODUCER_EPOCH }, _>(self.header))
    }

    /// The producer's number of the first record; means nothing without a producer id.
    pub fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(header::get::<{ at::BASE_SEQUENCE }, _>(self.header))
    }

    /// Who produced it, and how it is numbered; `None` for nobody in particular.
    pub fn producer(&self) -> Option<ProducerStamp> {
        let stamp = ProducerStamp {
            producer_id: self.producer_id(),
            producer_epoch: self.producer_epoch(),
            base_sequence: self.base_sequence(),
        };
        (stamp.producer_id >= 0).then_some(stamp)
    }

    /// How many records there are, as the header has it.
    pub fn record_count(&self) -> i32 {
        i32::from_be_bytes(header::get::<{ at::RECORD_COUNT }, _>(self.header))
    }

    /// Whether the contents are those the checksum was computed of.
    pub fn crc_is_valid(&self) -> bool {
        self.crc() == self.computed_crc()
    }

    /// As [`Self::crc_is_valid`], for those who go on only if it is.
    ///
    /// # Errors
    /// [`CorruptBatch::Crc`] with the stored checksum and that of the bytes.
    pub fn check_crc(&self) -> Result<(), BatchError> {
        let (stored, computed) = (self.crc(), self.computed_crc());
        if stored == computed { Ok(()) } else { Err(CorruptBatch::Crc { stored, computed }.into()) }
    }

    /// The records, to be walked one by one.
    ///
    /// Those of a compressed batch are unpacked into `scratch`, which is reused between batches and grows to
    /// `max_decompressed_bytes` at most; those of an uncompressed one are borrowed from the batch.
    ///
    /// # Errors
    /// [`BatchError::Invalid`] if they unpack to more than the limit or the codec is unknown,
    /// [`BatchError::Corrupt`] if they do not unpack or their count is negative.
    pub fn records<'s>(
        &self,
        scratch: &'s mut Vec<u8>,
        max_decompressed_bytes: u64,
    ) -> Result<Records<'s>, BatchError>
    where
        'a: 's,
    {
        let count = u32::try_from(self.record_count()).map_err(|_| self.record_count_fault())?;
        let unpacked = self.codec()?.decompress(self.packed_records(), scratch, max_decompressed_bytes)?;
        let log_append_time = self.attributes().timestamp_type() == TimestampType::LogAppendTime;
        let header = RecordsHeader {
            base_offset: self.base_offset().get(),
            last_offset_delta: self.last_offset_delta(),
            base_timestamp: self.base_timestamp(),
            log_append_time_ms: log_append_time.then(|| self.max_timestamp()),
            count,
        };
        Ok(Records::new(header, unpacked))
    }

    pub(super) fn header(&self) -> &'a Header {
        self.header
    }

    /// The records as they lie in the batch.
    pub(super) fn packed_records(&self) -> &'a [u8] {
        self.bytes.get(HEADER_BYTES..).unwrap_or_default()
    }

    pub(super) fn codec(&self) -> Result<Codec, InvalidBatch> {
        let attributes = self.attributes();
        attributes.codec().ok_or(InvalidBatch::UnknownCodec { id: attributes.codec_id() })
    }

    pub(super) fn computed_crc(&self) -> u32 {
        header::checksum(self.bytes)
    }

    pub(super) fn record_count_fault(&self) -> CorruptBatch {
        CorruptBatch::RecordCount {
            record_count: self.record_count(),
            last_offset_delta: self.last_offset_delta(),
        }
    }
}

/// The batch length field, if there are enough bytes for one.
fn batch_length(prefix: &[u8]) -> Option<i32> {
    let &[.., a, b, c, d] = prefix.first_chunk::<LENGTH_PREFIX_BYTES>()?;
    Some(i32::from_be_bytes([a, b, c, d]))
}

/// The size of a batch with that batch length, if it has room for a header.
fn size_bytes(batch_length: i32) -> Option<usize> {
    let size = usize::try_from(batch_length).ok()?.checked_add(LENGTH_PREFIX_BYTES)?;
    (size >= HEADER_BYTES).then_some(size)
}

/// The size of the batch whose first 12 bytes, or more, are `prefix`.
///
/// `None` if they are fewer, or no batch: zeros, and any length too small for a header. The size is what the
/// bytes declare, up to 2 GiB: compare it with a limit before allocating.
pub fn frame_size(prefix: &[u8]) -> Option<usize> {
    size_bytes(batch_length(prefix)?)
}

/// What the header of a batch claims, whether or not any of it is true: for finding one's way where a log is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderClaim {
    /// The version of the format.
    pub magic: i8,
    /// The offset of the first record.
    pub base_offset: i64,
    /// The size of the batch; at least that of a header.
    pub size_bytes: usize,
    /// How many records there are; `None` if the header contradicts itself about it, or there are none.
    pub record_count: Option<u32>,
}

impl HeaderClaim {
    /// What the first 61 bytes claim; `None` if they are fewer, or the size has no room for them.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let header: &Header = bytes.first_chunk()?;
        let last_offset_delta = i32::from_be_bytes(header::get::<{ at::LAST_OFFSET_DELTA }, _>(header));
        let count = i32::from_be_bytes(header::get::<{ at::RECORD_COUNT }, _>(header));
        let agree = last_offset_delta.checked_add(1) == Some(count);
        Some(Self {
            magic: i8::from_be_bytes(header::get::<{ at::MAGIC }, _>(header)),
            base_offset: i64::from_be_bytes(header::get::<{ at::BASE_OFFSET }, _>(header)),
            size_bytes: frame_size(bytes)?,
            record_count: u32::try_from(count).ok().filter(|count| agree && *count > 0),
        })
    }

    /// Whether it can be the header of a batch at all.
    pub fn is_plausible(&self) -> bool {
        self.magic == MAGIC_V2 && self.base_offset >= 0 && self.record_count.is_some()
    }
}

/// Iterates over whole batches that lie back to back; ends after the first error.
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { rest: bytes }
}

/// The iterator of [`batches`].
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = BatchView::parse(self.rest);
        let after = parsed.as_ref().ok().and_then(|batch| self.rest.get(batch.size_bytes()..));
        self.rest = after.unwrap_or_default();
        Some(parsed)
    }
}

impl FusedIterator for Batches<'_> {}

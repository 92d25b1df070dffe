//! (placeholder for the record layer while it is being written)
use bytes::BytesMut;
use crate::types::{LeaderEpoch, Offset};

/// The fixed part of a batch, before its records.
pub const HEADER_BYTES: usize = 61;
/// baseOffset and batchLength: what tells where the next batch begins.
pub const LENGTH_PREFIX_BYTES: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec { #[default] None, Gzip, Snappy, Lz4, Zstd }

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampType { #[default] CreateTime, LogAppendTime }

/// The attribute bits of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes(pub i16);
impl Attributes {
    pub fn codec(self) -> Option<Codec> { todo!() }
    pub fn timestamp_type(self) -> TimestampType { todo!() }
    pub fn is_transactional(self) -> bool { todo!() }
    pub fn is_control(self) -> bool { todo!() }
    pub fn has_delete_horizon(self) -> bool { todo!() }
}

/// Why bytes are not a batch, or not one to accept. Carries the facts; finer variants are up to the implementation,
/// but callers rely on these three groups:
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// magic, length, CRC or count wrong
    #[error("corrupt batch: {0}")] Corrupt(String),
    /// well-formed, but not acceptable (control bit, timestamp too far ahead, unknown attribute bits, ...)
    #[error("unacceptable batch: {0}")] Invalid(String),
    #[error("the batch has {size_bytes} bytes, more than max_message_bytes = {max_message_bytes}")]
    TooLarge { size_bytes: u64, max_message_bytes: u64 },
    #[error("{0}")] Unsupported(String),
}

/// A borrowed view of exactly one batch's bytes (header fields are decoded when asked for).
#[derive(Debug, Clone, Copy)]
pub struct BatchView<'a> { pub bytes: &'a [u8] }
impl<'a> BatchView<'a> {
    /// The batch at the start of `bytes`: length prefix sane, whole batch there, magic 2. Checks no CRC. Trailing bytes are left out of the view.
    pub fn parse(_bytes: &'a [u8]) -> Result<Self, BatchError> { todo!() }
    pub fn as_bytes(&self) -> &'a [u8] { todo!() }
    pub fn size_bytes(&self) -> usize { todo!() }
    pub fn base_offset(&self) -> Offset { todo!() }
    pub fn last_offset(&self) -> Offset { todo!() }
    /// one past last_offset
    pub fn next_offset(&self) -> Offset { todo!() }
    pub fn leader_epoch(&self) -> LeaderEpoch { todo!() }
    pub fn crc(&self) -> u32 { todo!() }
    pub fn attributes(&self) -> Attributes { todo!() }
    pub fn last_offset_delta(&self) -> i32 { todo!() }
    pub fn base_timestamp(&self) -> i64 { todo!() }
    pub fn max_timestamp(&self) -> i64 { todo!() }
    pub fn producer_id(&self) -> i64 { todo!() }
    pub fn producer_epoch(&self) -> i16 { todo!() }
    pub fn base_sequence(&self) -> i32 { todo!() }
    pub fn record_count(&self) -> i32 { todo!() }
    pub fn crc_is_valid(&self) -> bool { todo!() }
    /// The records; a compressed batch is unpacked into `scratch` (reused between batches), never beyond `max_decompressed_bytes`.
    pub fn records<'s>(&self, _scratch: &'s mut Vec<u8>, _max_decompressed_bytes: u64) -> Result<Records<'s>, BatchError> where 'a: 's { todo!() }
}
/// The size of the batch whose first 12 bytes these are (12 + batchLength), if that is at least HEADER_BYTES. None: not a batch (zeros included) or too few bytes.
pub fn frame_size(_prefix: &[u8]) -> Option<usize> { todo!() }
/// Iterates over whole batches lying back to back; ends after the first error.
pub fn batches(_bytes: &[u8]) -> Batches<'_> { todo!() }
pub struct Batches<'a>(&'a [u8]);
impl<'a> Iterator for Batches<'a> { type Item = Result<BatchView<'a>, BatchError>; fn next(&mut self) -> Option<Self::Item> { todo!() } }

/// Allocates nothing per record.
pub struct Records<'a>(&'a [u8]);
impl<'a> Iterator for Records<'a> { type Item = Result<RecordView<'a>, BatchError>; fn next(&mut self) -> Option<Self::Item> { todo!() } }
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> { pub offset: Offset, pub timestamp_ms: i64, pub key: Option<&'a [u8]>, pub value: Option<&'a [u8]>, headers: &'a [u8] }
impl<'a> RecordView<'a> { pub fn headers(&self) -> Headers<'a> { todo!() } pub fn header_count(&self) -> usize { todo!() } }
/// (key, value); already checked, so infallible.
pub struct Headers<'a>(&'a [u8]);
impl<'a> Iterator for Headers<'a> { type Item = (&'a str, Option<&'a [u8]>); fn next(&mut self) -> Option<Self::Item> { todo!() } }

/// What a batch must meet to be appended.
#[derive(Debug, Clone, Copy)]
pub struct ValidationRules { pub max_message_bytes: u64, pub now_ms: i64, pub timestamp_after_max_ms: i64, pub strict: bool, pub max_decompressed_bytes: u64 }
/// Checks that `bytes` are exactly one acceptable batch (design: "Validated before it is appended").
pub fn validate<'a>(_bytes: &'a [u8], _rules: &ValidationRules) -> Result<BatchView<'a>, BatchError> { todo!() }
/// Patches base offset and leader epoch in place; the CRC does not cover them. Panics never: `batch` shorter than a header is left alone (debug_assert).
pub fn set_position(_batch: &mut [u8], _base_offset: Offset, _epoch: LeaderEpoch) { todo!() }
/// Turns a valid batch into one with log-append time: sets the attribute bit and maxTimestamp, and computes the CRC anew.
pub fn set_log_append_time(_batch: &mut [u8], _now_ms: i64) { todo!() }

/// Builds one batch. Offsets are relative (base offset 0) until the broker sets them.
pub struct BatchBuilder { _b: BytesMut }
#[derive(Debug, Clone, Copy, Default)]
pub struct BatchOptions { pub codec: Codec }
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerStamp { pub producer_id: i64, pub producer_epoch: i16, pub base_sequence: i32 }
impl BatchBuilder {
    pub fn new(_options: BatchOptions) -> Self { todo!() }
    /// Headers as an iterator that can be walked twice (count, then contents).
    pub fn push<'h, H>(&mut self, _timestamp_ms: i64, _key: Option<&[u8]>, _value: Option<&[u8]>, _headers: H) where H: IntoIterator<Item = (&'h str, Option<&'h [u8]>)>, H::IntoIter: ExactSizeIterator { todo!() }
    pub fn record_count(&self) -> u32 { todo!() }
    pub fn is_empty(&self) -> bool { todo!() }
    /// Uncompressed size so far, header included.
    pub fn size_bytes(&self) -> usize { todo!() }
    /// What pushing this would add at most.
    pub fn record_size_upper_bound(_key: Option<&[u8]>, _value: Option<&[u8]>, _headers_bytes: usize, _headers: usize) -> usize { todo!() }
    pub fn set_producer(&mut self, _stamp: ProducerStamp) { todo!() }
    /// The encoded batch; Err if it is empty or its records do not fit the format's 32-bit lengths.
    pub fn build(self) -> Result<BytesMut, BatchError> { todo!() }
}
/// The same records under another codec.
pub fn recompress(_batch: &BatchView<'_>, _codec: Codec, _max_decompressed_bytes: u64) -> Result<BytesMut, BatchError> { todo!() }

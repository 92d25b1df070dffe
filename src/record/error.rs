//! Why bytes are not a batch, or not one to accept.
//!
//! Four groups, because callers answer them differently: bytes that are damaged, a whole batch that breaks a
//! rule, one that is too large, and one that uses what is not built. Inside each, an enum with the facts.

use super::Codec;

/// Why bytes are not a batch, or not one to accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// These are not the bytes anybody encoded: a frame, checksum, count or record does not add up.
    #[error("corrupt batch: {0}")]
    Corrupt(CorruptBatch),
    /// A whole batch that breaks a rule.
    #[error("unacceptable batch: {0}")]
    Invalid(InvalidBatch),
    /// A batch larger than its topic allows.
    #[error("the batch has {size_bytes} bytes, more than max_message_bytes = {max_message_bytes}")]
    TooLarge {
        /// The size of the batch as it was sent, header included.
        size_bytes: u64,
        /// The limit.
        max_message_bytes: u64,
    },
    /// A batch that uses a feature this broker does not have.
    #[error("unsupported batch: {0}")]
    Unsupported(UnsupportedBatch),
}

/// What does not add up in a damaged batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CorruptBatch {
    /// The bytes end before the batch does.
    #[error("{available_bytes} bytes of {needed_bytes}")]
    Truncated {
        /// How many bytes the batch has; for less than a length prefix, how many that has.
        needed_bytes: usize,
        /// How many there are.
        available_bytes: usize,
    },
    /// A batch length too small for a header; zeros are such a batch.
    #[error("batch length {batch_length} is too small for a header")]
    BatchLength {
        /// The length field.
        batch_length: i32,
    },
    /// Not the second version of the format.
    #[error("magic {magic}, expected 2")]
    Magic {
        /// The magic byte.
        magic: i8,
    },
    /// Offsets that no log can have: negative, or past the last one.
    #[error("base offset {base_offset} with last offset delta {last_offset_delta}")]
    Offsets {
        /// The base offset field.
        base_offset: i64,
        /// The last offset delta field.
        last_offset_delta: i32,
    },
    /// More bytes than one batch, where exactly one is expected.
    #[error("{bytes} bytes after the batch")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// The contents are not those the checksum was computed of.
    #[error("CRC-32C {computed:#010x}, but the header says {stored:#010x}")]
    Crc {
        /// The checksum field.
        stored: u32,
        /// The checksum of the contents.
        computed: u32,
    },
    /// A record count that is not positive, or not that of the offsets.
    #[error("record count {record_count} with last offset delta {last_offset_delta}")]
    RecordCount {
        /// The record count field.
        record_count: i32,
        /// The last offset delta field.
        last_offset_delta: i32,
    },
    /// Records that do not unpack.
    #[error("the records do not unpack as {codec}: {reason}")]
    Undecodable {
        /// The codec the attributes name.
        codec: Codec,
        /// The codec's own words.
        reason: Box<str>,
    },
    /// A record that cannot be read.
    #[error("record {index}: {fault}")]
    Record {
        /// Its place in the batch, from 0.
        index: u32,
        /// What is wrong with it.
        fault: RecordFault,
    },
    /// Bytes left over after as many records as the header counts.
    #[error("{bytes} bytes after the last record")]
    BytesAfterRecords {
        /// How many.
        bytes: usize,
    },
}

/// What is wrong with one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// A field runs past the end of its record, or the record past that of the batch.
    #[error("ends within a field")]
    Truncated,
    /// A variable-length integer beyond its 32 or 64 bits.
    #[error("an integer is out of range")]
    IntegerRange,
    /// A length or count below what its field allows.
    #[error("a length or count of {value}")]
    NegativeLength {
        /// The field.
        value: i32,
    },
    /// An offset delta that repeats, runs backward, leaves a gap where none may be, or is past the last one.
    #[error("offset delta {found}, expected {expected}")]
    OffsetDelta {
        /// The field.
        found: i64,
        /// The one that comes next, at least.
        expected: i64,
    },
    /// Base timestamp and delta add up to more than 64 bits.
    #[error("its timestamp is out of range")]
    TimestampRange,
    /// A header key that is not UTF-8.
    #[error("a header key is not UTF-8")]
    HeaderKey,
    /// Bytes left over in the record after its last field.
    #[error("{bytes} bytes after its last field")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
}

/// The rule a batch breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBatch {
    /// Attribute bits without a meaning.
    #[error("unknown attribute bits {bits:#06x}")]
    UnknownAttributes {
        /// Those bits.
        bits: u16,
    },
    /// A codec number without a meaning.
    #[error("unknown codec {id}")]
    UnknownCodec {
        /// The number in the attributes.
        id: u8,
    },
    /// Control batches are written by the broker alone.
    #[error("the control bit is set")]
    Control,
    /// A delete horizon is set by the cleaner alone.
    #[error("the delete horizon bit is set")]
    DeleteHorizon,
    /// Log-append time is set by the broker alone.
    #[error("the log-append time bit is set")]
    LogAppendTime,
    /// A producer id, epoch and sequence of which one is negative; all three are together, or the id is -1.
    #[error(
        "producer id {producer_id}, epoch {producer_epoch} and sequence {base_sequence} are no producer's"
    )]
    Producer {
        /// The producer id field.
        producer_id: i64,
        /// The producer epoch field.
        producer_epoch: i16,
        /// The base sequence field.
        base_sequence: i32,
    },
    /// A timestamp below -1, which says that there is none.
    #[error("timestamp {timestamp_ms} is negative")]
    NegativeTimestamp {
        /// The timestamp.
        timestamp_ms: i64,
    },
    /// Time-based retention and search would not survive timestamps far in the future.
    #[error(
        "timestamp {timestamp_ms} is more than {timestamp_after_max_ms} ms ahead of the broker's {now_ms}"
    )]
    TimestampAhead {
        /// The largest timestamp of the batch.
        timestamp_ms: i64,
        /// The broker's time.
        now_ms: i64,
        /// How far ahead it may be.
        timestamp_after_max_ms: i64,
    },
    /// The header's largest timestamp is not that of the records.
    #[error("the header's maximum timestamp is {header_ms}, the records' is {records_ms}")]
    MaxTimestamp {
        /// The header's.
        header_ms: i64,
        /// The records'.
        records_ms: i64,
    },
    /// The records unpack to more than is allowed.
    #[error("the records unpack to more than {max_decompressed_bytes} bytes")]
    DecompressedTooLarge {
        /// The limit.
        max_decompressed_bytes: u64,
    },
    /// The codec gave up on the records.
    #[error("the records do not pack as {codec}")]
    Unpackable {
        /// The codec asked for.
        codec: Codec,
    },
    /// Nothing to build a batch of.
    #[error("it has no records")]
    Empty,
    /// A record, their number, a timestamp delta or the batch is beyond what the format's integers hold.
    #[error("its records do not fit the format's integers")]
    TooLargeForFormat,
}

/// What a batch uses that is not built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedBatch {
    /// Transactions.
    #[error("the transactional bit is set, and there are no transactions yet")]
    Transactional,
}

impl From<CorruptBatch> for BatchError {
    fn from(fault: CorruptBatch) -> Self {
        Self::Corrupt(fault)
    }
}

impl From<InvalidBatch> for BatchError {
    fn from(rule: InvalidBatch) -> Self {
        Self::Invalid(rule)
    }
}

impl From<UnsupportedBatch> for BatchError {
    fn from(feature: UnsupportedBatch) -> Self {
        Self::Unsupported(feature)
    }
}

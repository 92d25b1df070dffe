//! Record batches: Kafka's RecordBatch format, version 2, byte for byte, as pure functions over bytes.
//!
//! The one format on disk, on the wire and in memory: nobody converts, everybody borrows a [`BatchView`].
//! The storage and the broker call [`validate`], [`set_position`] and [`set_log_append_time`] on the way in and
//! [`batches`] on the way out; clients build with [`BatchBuilder`] and read with [`BatchView::records`].
//! No input makes a function here panic, and no count or length that a batch declares makes one allocate:
//! memory grows with the bytes that are there, and what is unpacked stays below a cap given by the caller.
//!
//! # Layout
//!
//! Big-endian; 61 bytes of header, then the records (Kafka's documentation, "Record Batch"; KIP-98):
//!
//! ```text
//!  0        8      12      16  17    21      23        27         35         43        51     53      57      61
//!  | base   | batch| leader| m | crc | attri-| last    | base     | max      | pro-    | pro- | base | record| records
//!  | offset | len. | epoch | a |     | butes | offset  | timestamp| timestamp| ducer id| ducer| sequ-| count |
//!  |        |      |       | g |     |       | delta   |          |          |         | epoch| ence |       |
//!  | i64    | i32  | i32   |=2 | u32 | i16   | i32     | i64      | i64      | i64     | i16  | i32  | i32   |
//!  |<------ not covered ------>|     |<-------------- covered by the CRC-32C, to the end of the batch ---------->
//! ```
//!
//! Batch length counts from byte 12. Attributes: bits 0-2 codec (none, gzip, snappy, lz4, zstd), 3 log-append
//! time, 4 transactional, 5 control, 6 delete horizon; the others are 0. Under a codec the records are compressed
//! as one block. Each record, its integers being zigzag varints of 32 bits, the timestamp's of 64:
//!
//! ```text
//!  length | attributes i8 | timestamp delta | offset delta | key length | key | value length | value
//!         | header count  | per header: key length | key (UTF-8) | value length | value
//! ```
//!
//! Length -1 is an absent key or value, which differs from an empty one: a record without a value is a tombstone.

mod attributes;
mod batch;
mod builder;
mod codec;
mod error;
mod header;
mod key_hash;
mod patch;
mod plain;
mod recompress;
mod records;

#[cfg(test)]
mod tests;
mod validate;
mod varint;

pub use attributes::{Attributes, TimestampType};
pub use batch::{BatchView, Batches, HeaderClaim, batches, frame_size};
pub use builder::{BatchBuilder, BatchOptions, ProducerStamp};
pub use codec::Codec;
pub use error::{BatchError, CorruptBatch, InvalidBatch, RecordFault, UnsupportedBatch};
pub use header::{HEADER_BYTES, LENGTH_PREFIX_BYTES};
pub use key_hash::partition_for_key;
pub use patch::{set_log_append_time, set_position, set_producer};
pub use recompress::recompress;
pub use records::{Headers, RecordView, Records};
pub use validate::{MIN_RECORD_BYTES, ValidationRules, validate, validate_built};

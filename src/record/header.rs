//! Where the fields of a batch header lie, and the only code that reads and writes them there.

/// The fixed part of a batch, before its records.
pub const HEADER_BYTES: usize = 61;
/// Base offset and batch length: what tells where the next batch begins.
pub const LENGTH_PREFIX_BYTES: usize = 12;

/// The first 61 bytes of a batch.
pub(super) type Header = [u8; HEADER_BYTES];

/// The only version of the format there is here.
pub(super) const MAGIC_V2: i8 = 2;
/// The producer id of a batch from no producer in particular.
pub(super) const NO_PRODUCER_ID: i64 = -1;
/// The timestamp of a record that has none.
pub(super) const NO_TIMESTAMP: i64 = -1;

/// Where each field begins.
pub(super) mod at {
    pub(in super::super) const BASE_OFFSET: usize = 0;
    pub(in super::super) const BATCH_LENGTH: usize = 8;
    pub(in super::super) const LEADER_EPOCH: usize = 12;
    pub(in super::super) const MAGIC: usize = 16;
    pub(in super::super) const CRC: usize = 17;
    pub(in super::super) const ATTRIBUTES: usize = 21;
    pub(in super::super) const LAST_OFFSET_DELTA: usize = 23;
    pub(in super::super) const BASE_TIMESTAMP: usize = 27;
    pub(in super::super) const MAX_TIMESTAMP: usize = 35;
    pub(in super::super) const PRODUCER_ID: usize = 43;
    pub(in super::super) const PRODUCER_EPOCH: usize = 51;
    pub(in super::super) const BASE_SEQUENCE: usize = 53;
    pub(in super::super) const RECORD_COUNT: usize = 57;
}

/// The first byte the checksum covers; it covers all that follow.
const CRC_FROM: usize = at::ATTRIBUTES;

/// The `N` bytes of the field that begins at `AT`.
#[inline]
pub(super) fn get<const AT: usize, const N: usize>(header: &Header) -> [u8; N] {
    const { assert!(AT + N <= HEADER_BYTES) };
    let mut field = [0; N];
    field.copy_from_slice(&header[AT..AT + N]);
    field
}

/// Overwrites the field that begins at `AT`.
#[inline]
pub(super) fn put<const AT: usize, const N: usize>(header: &mut Header, field: [u8; N]) {
    const { assert!(AT + N <= HEADER_BYTES) };
    header[AT..AT + N].copy_from_slice(&field);
}

/// The checksum of a batch's contents, as its CRC field should have it. `batch` is a whole batch.
pub(super) fn checksum(batch: &[u8]) -> u32 {
    crc32c::crc32c(batch.get(CRC_FROM..).unwrap_or_default())
}

/// Computes the CRC field anew: the last step of every change to what it covers.
pub(super) fn seal(batch: &mut [u8]) {
    let crc = checksum(batch);
    if let Some(header) = batch.first_chunk_mut() {
        put::<{ at::CRC }, _>(header, crc.to_be_bytes());
    }
}

//! The same records under another codec, and how records and a header become a batch.

use bytes::BytesMut;

use super::attributes::Attributes;
use super::batch::BatchView;
use super::codec::Codec;
use super::error::{BatchError, InvalidBatch};
use super::header::{self, HEADER_BYTES, Header, LENGTH_PREFIX_BYTES, at};

/// The same batch with its records under another codec; the caller owns the result alone.
///
/// # Errors
/// [`BatchError::Invalid`] if the records unpack to more than `max_decompressed_bytes`, or do not fit a batch
/// when packed anew; [`BatchError::Corrupt`] if they do not unpack.
pub fn recompress(
    batch: &BatchView<'_>,
    codec: Codec,
    max_decompressed_bytes: u64,
) -> Result<BytesMut, BatchError> {
    let mut scratch = Vec::new();
    let records = batch.codec()?.decompress(batch.packed_records(), &mut scratch, max_decompressed_bytes)?;
    assemble(batch.header(), codec, records)
}

/// A batch of that header and those records, packed. Sets the codec, the length and the checksum.
pub(super) fn assemble(header: &Header, codec: Codec, records: &[u8]) -> Result<BytesMut, BatchError> {
    let mut batch = BytesMut::with_capacity(HEADER_BYTES + records.len() / 2);
    batch.extend_from_slice(header);
    codec.compress(records, &mut batch)?;
    // Batches wait in queues and caches that are charged for what is really held.
    if batch.capacity() - batch.len() > batch.len() / 4 {
        batch = BytesMut::from(&batch[..]);
    }
    finish(batch, codec)
}

/// Sets the codec, the length and the checksum of a batch that is otherwise complete.
pub(super) fn finish(mut batch: BytesMut, codec: Codec) -> Result<BytesMut, BatchError> {
    let length = batch.len().saturating_sub(LENGTH_PREFIX_BYTES);
    let batch_length = i32::try_from(length).map_err(|_| InvalidBatch::TooLargeForFormat)?;
    if let Some(header) = batch.first_chunk_mut() {
        let attributes = Attributes(i16::from_be_bytes(header::get::<{ at::ATTRIBUTES }, _>(header)));
        header::put::<{ at::ATTRIBUTES }, _>(header, attributes.with_codec(codec).0.to_be_bytes());
        header::put::<{ at::BATCH_LENGTH }, _>(header, batch_length.to_be_bytes());
    }
    header::seal(&mut batch);
    Ok(batch)
}

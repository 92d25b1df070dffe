//! Zstandard (RFC 8878), by the reference library.

use std::io;

use bytes::BytesMut;
use zstd::bulk::compress_to_buffer;
use zstd::stream::read::Decoder;
use zstd::zstd_safe::compress_bound;

use super::UnpackError;
use super::capped::Capped;

/// Kafka's default.
const LEVEL: i32 = 3;
/// The window every decoder should support is 8 MiB (RFC 8878, 3.1.1.1.2).
const MIN_WINDOW_LOG: u32 = 23;
/// The largest window any level uses, unless asked to: 128 MiB.
const MAX_WINDOW_LOG: u32 = 27;

pub(super) fn compress(records: &[u8], out: &mut BytesMut) -> io::Result<()> {
    let start = out.len();
    out.resize(start + compress_bound(records.len()), 0);
    let len = compress_to_buffer(records, &mut out[start..], LEVEL)?;
    out.truncate(start + len);
    Ok(())
}

/// The window, which the decoder allocates beside the output, is held to the cap as well: to no less than a
/// window that every client may use, and no more than the largest a client uses unasked.
pub(super) fn decompress(packed: &[u8], out: &mut Capped<'_>) -> Result<(), UnpackError> {
    let mut decoder = Decoder::with_buffer(packed)?;
    decoder.window_log_max(out.max_bytes_log().clamp(MIN_WINDOW_LOG, MAX_WINDOW_LOG))?;
    out.read_from(decoder, packed.len())
}

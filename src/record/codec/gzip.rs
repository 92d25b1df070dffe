//! Gzip (RFC 1952), by flate2.

use std::io::{self, Write};

use bytes::{BufMut, BytesMut};
use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::UnpackError;
use super::capped::Capped;

pub(super) fn compress(records: &[u8], out: &mut BytesMut) -> io::Result<()> {
    let mut encoder = GzEncoder::new(out.writer(), Compression::default());
    encoder.write_all(records)?;
    encoder.finish().map(drop)
}

/// Several members in a row are one stream, as for `java.util.zip.GZIPInputStream`.
pub(super) fn decompress(packed: &[u8], out: &mut Capped<'_>) -> Result<(), UnpackError> {
    out.read_from(MultiGzDecoder::new(packed), packed.len())
}

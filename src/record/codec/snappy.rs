//! Snappy, in the framing of the xerial library, which is what Kafka's clients mean by it.
//!
//! ```text
//!  0                    8           12                      16
//!  | \x82 S N A P P Y \0 | version i32 | compatible with i32 | length i32 | block | length i32 | block | ...
//! ```
//!
//! Integers are big-endian, both versions 1. A block is raw Snappy, which begins with its unpacked length.
//! Without that header the bytes are one raw block, as some clients send it.

use std::io;

use bytes::{BufMut, BytesMut};
use snap::raw::{Decoder, Encoder, decompress_len, max_compress_len};

use super::UnpackError;
use super::capped::Capped;

const MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const VERSION: i32 = 1;
const HEADER_BYTES: usize = 16;
/// Of one block, unpacked: the default of the xerial library.
const BLOCK_BYTES: usize = 32 << 10;
/// Snappy's densest element makes 64 bytes of 3, so that no block grows by more than this.
const MAX_RATIO: usize = 22;

pub(super) fn compress(records: &[u8], out: &mut BytesMut) -> io::Result<()> {
    out.put_slice(MAGIC);
    out.put_i32(VERSION);
    out.put_i32(VERSION);
    let mut encoder = Encoder::new();
    let mut block = vec![0; max_compress_len(records.len().min(BLOCK_BYTES))];
    for unpacked in records.chunks(BLOCK_BYTES) {
        let len = encoder.compress(unpacked, &mut block)?;
        out.put_i32(len as i32);
        out.put_slice(&block[..len]);
    }
    Ok(())
}

pub(super) fn decompress(packed: &[u8], out: &mut Capped<'_>) -> Result<(), UnpackError> {
    if !packed.starts_with(MAGIC) {
        return decompress_block(packed, out);
    }
    let mut rest = packed;
    while !rest.is_empty() {
        // Streams can be joined: where a length would be, there is the next one's header.
        if rest.starts_with(MAGIC) {
            rest = rest.get(HEADER_BYTES..).ok_or("a Snappy header breaks off")?;
            continue;
        }
        let (len, after) = rest.split_first_chunk().ok_or("a Snappy block length breaks off")?;
        let len = usize::try_from(i32::from_be_bytes(*len)).map_err(|_| "a negative Snappy block length")?;
        let (block, after) = after.split_at_checked(len).ok_or("a Snappy block breaks off")?;
        decompress_block(block, out)?;
        rest = after;
    }
    Ok(())
}

fn decompress_block(block: &[u8], out: &mut Capped<'_>) -> Result<(), UnpackError> {
    let declared = decompress_len(block).map_err(io::Error::from)?;
    if declared > block.len().saturating_mul(MAX_RATIO) {
        return Err("a Snappy block declares more than it can hold".into());
    }
    Decoder::new().decompress(block, out.room(declared)?).map_err(io::Error::from)?;
    Ok(())
}

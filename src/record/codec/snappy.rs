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

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(packed: &[u8]) -> Result<Vec<u8>, UnpackError> {
        let mut buffer = Vec::new();
        let mut out = Capped::new(&mut buffer, 1 << 20);
        decompress(packed, &mut out)?;
        Ok(out.into_filled().to_vec())
    }

    fn pack(records: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        compress(records, &mut out).unwrap();
        out
    }

    #[test]
    fn records_longer_than_a_block_take_several() {
        let records: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
        assert_eq!(unpack(&pack(&records)), Ok(records));
    }

    #[test]
    fn a_raw_block_without_the_framing_is_read_too() {
        let raw = Encoder::new().compress_vec(b"raw raw raw raw").unwrap();
        assert_eq!(unpack(&raw), Ok(b"raw raw raw raw".to_vec()));
    }

    #[test]
    fn joined_streams_are_one() {
        assert_eq!(unpack(&[pack(b"one, "), pack(b"two")].concat()), Ok(b"one, two".to_vec()));
    }

    #[test]
    fn a_stream_that_breaks_off_is_broken() {
        let whole = pack(b"whole");
        for len in (1..whole.len()).filter(|&len| len != HEADER_BYTES) {
            assert!(matches!(unpack(&whole[..len]), Err(UnpackError::Broken(_))), "{len} bytes");
        }
        assert_eq!(unpack(&whole[..HEADER_BYTES]), Ok(Vec::new()));
    }
}

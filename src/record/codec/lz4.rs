//! LZ4 frames, by lz4_flex.
//!
//! Written as Kafka's Java client does: independent blocks of 64 KiB and no checksums. Read with any options the
//! frame format has, dictionaries and the legacy frame excepted.

use std::io::{self, Read, Write};

use bytes::{BufMut, BytesMut};
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::UnpackError;
use super::capped::Capped;

const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();

pub(super) fn compress(records: &[u8], out: &mut BytesMut) -> io::Result<()> {
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, out.writer());
    encoder.write_all(records)?;
    encoder.finish()?;
    Ok(())
}

pub(super) fn decompress(packed: &[u8], out: &mut Capped<'_>) -> Result<(), UnpackError> {
    if !packed.starts_with(&MAGIC) {
        return Err("not an LZ4 frame".into());
    }
    let mut source = Source { rest: packed, overrun: false };
    out.read_from(FrameDecoder::new(&mut source), packed.len())?;
    if source.overrun {
        return Err("the LZ4 frame has no end mark".into());
    }
    if !source.rest.is_empty() {
        return Err("bytes after the LZ4 frame".into());
    }
    Ok(())
}

/// The packed bytes, and whether the decoder wanted more than there are: it takes their end for the frame's.
struct Source<'a> {
    rest: &'a [u8],
    overrun: bool,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.overrun |= buffer.len() > self.rest.len();
        self.rest.read(buffer)
    }
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

    fn pack(records: &[u8], info: FrameInfo) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(records).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn frames_are_written_as_the_java_client_does() {
        let mut out = BytesMut::new();
        compress(b"records", &mut out).unwrap();
        let flags_version_1_independent_blocks = 0x60;
        let block_size_64_kib = 0x40;
        assert_eq!(out[..6], [0x04, 0x22, 0x4d, 0x18, flags_version_1_independent_blocks, block_size_64_kib]);
    }

    #[test]
    fn linked_blocks_and_checksums_are_read_too() {
        let records: Vec<u8> = (0..50_000_u32).flat_map(u32::to_be_bytes).collect();
        let info = FrameInfo::new()
            .block_mode(BlockMode::Linked)
            .block_size(BlockSize::Max64KB)
            .block_checksums(true)
            .content_checksum(true)
            .content_size(Some(records.len() as u64));
        assert_eq!(unpack(&pack(&records, info)), Ok(records));
    }

    #[test]
    fn a_frame_that_breaks_off_is_broken_even_between_blocks() {
        let records: Vec<u8> = (0..40_000_u32).flat_map(u32::to_be_bytes).collect();
        let whole = pack(&records, FrameInfo::new().block_size(BlockSize::Max64KB));
        assert_eq!(unpack(&whole), Ok(records));
        for len in (0..32).chain(whole.len() - 32..whole.len()) {
            assert!(matches!(unpack(&whole[..len]), Err(UnpackError::Broken(_))), "{len} bytes");
        }
        // Without its end mark alone it has all blocks.
        assert_eq!(unpack(&whole[..whole.len() - 4]), Err("the LZ4 frame has no end mark".into()));
    }

    #[test]
    fn bytes_after_the_frame_and_legacy_frames_are_refused() {
        let mut joined = pack(b"one", FrameInfo::new());
        joined.extend(pack(b"two", FrameInfo::new()));
        assert_eq!(unpack(&joined), Err("bytes after the LZ4 frame".into()));
        let mut legacy = pack(b"old", FrameInfo::new());
        legacy[..4].copy_from_slice(&0x184C_2102_u32.to_le_bytes());
        assert_eq!(unpack(&legacy), Err("not an LZ4 frame".into()));
    }
}

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

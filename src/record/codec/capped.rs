//! The buffer that decoders write into: reused between batches, and never larger than a cap.

use std::io::Read;

use super::UnpackError;

/// The least a buffer grows to, so that small batches need one step.
const FIRST_STEP_BYTES: usize = 4 << 10;
/// What records commonly unpack to, as a multiple of their size.
const COMMON_RATIO: usize = 4;

/// What has been unpacked so far, in a buffer that grows to at most `max_bytes`.
///
/// The buffer keeps its length from batch to batch, so that it is cleared once for each size it grows to and not
/// for each batch.
pub(super) struct Capped<'s> {
    buffer: &'s mut Vec<u8>,
    filled: usize,
    max_bytes: usize,
}

impl<'s> Capped<'s> {
    pub(super) fn new(buffer: &'s mut Vec<u8>, max_bytes: u64) -> Self {
        Self { buffer, filled: 0, max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX) }
    }

    /// The power of two that is the cap, or just above it.
    pub(super) fn max_bytes_log(&self) -> u32 {
        usize::BITS - self.max_bytes.saturating_sub(1).leading_zeros()
    }

    /// What was unpacked.
    pub(super) fn into_filled(self) -> &'s [u8] {
        self.buffer.get(..self.filled).unwrap_or_default()
    }

    /// Room for exactly `len` more bytes, which the caller fills. `len` must be one that the input can really
    /// unpack to, not merely one that it declares.
    pub(super) fn room(&mut self, len: usize) -> Result<&mut [u8], UnpackError> {
        let start = self.filled;
        let end = start.checked_add(len).filter(|&end| end <= self.max_bytes).ok_or(UnpackError::TooLarge)?;
        if end > self.buffer.len() {
            self.grow_to(end.max(self.buffer.len().saturating_mul(2)));
        }
        self.filled = end;
        Ok(&mut self.buffer[start..end])
    }

    /// Takes everything a decoder has to give; `packed_bytes` is the size of its input.
    pub(super) fn read_from(
        &mut self,
        mut decoder: impl Read,
        packed_bytes: usize,
    ) -> Result<(), UnpackError> {
        loop {
            if self.filled == self.max_bytes {
                // One byte more tells an excess from an end.
                return if decoder.read(&mut [0])? == 0 { Ok(()) } else { Err(UnpackError::TooLarge) };
            }
            if self.filled == self.buffer.len() {
                let step = packed_bytes.saturating_mul(COMMON_RATIO).max(FIRST_STEP_BYTES);
                self.grow_to(step.max(self.filled.saturating_mul(2)));
            }
            let end = self.buffer.len().min(self.max_bytes);
            match decoder.read(&mut self.buffer[self.filled..end])? {
                0 => return Ok(()),
                read => self.filled += read,
            }
        }
    }

    fn grow_to(&mut self, len: usize) {
        let len = len.min(self.max_bytes);
        self.buffer.reserve_exact(len.saturating_sub(self.buffer.len()));
        self.buffer.resize(len, 0);
    }
}

//! Walks the batches of a log file from some place to its end, checking each whole: one scan that feeds whatever has
//! to be rebuilt. Reads the file in order through a buffer, not through a map.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::fs::{Fs, FsFile, OpenHow};
use crate::record::{self, BatchView};
use crate::types::Offset;

/// How much is read at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// Why a scan ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ScanEnd {
    /// At the end of the file.
    EndOfFile,
    /// At something that is not the next batch.
    Invalid {
        /// What is wrong with it.
        detail: String,
    },
}

/// What a scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scanned {
    /// One past the last offset of the last valid batch.
    pub(super) next: Offset,
    /// Where that batch ends.
    pub(super) position: u64,
    /// The length of the file.
    pub(super) file_len: u64,
    /// Why it ended there.
    pub(super) end: ScanEnd,
}

/// Why there is no whole frame of a batch at some place of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameFault {
    #[error("the file ends within the header of a batch")]
    CutHeader,
    #[error("not a batch")]
    NotABatch,
    #[error("the file ends within a batch, or its length is wrong")]
    CutBatch,
}

/// Why a whole frame is not the next batch of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BatchFault {
    #[error("a batch with offset {found} where {due} is due")]
    Offset { found: Offset, due: Offset },
    #[error("a batch whose record count is wrong")]
    RecordCount,
    #[error("a batch with a wrong checksum")]
    Checksum,
}

/// Checks that `batch` is whole, and the one that begins with offset `due`.
pub(super) fn check(batch: &BatchView<'_>, due: Offset) -> Result<(), BatchFault> {
    if batch.base_offset() != due {
        return Err(BatchFault::Offset { found: batch.base_offset(), due });
    }
    if batch.record_count() <= 0 || batch.last_offset_delta() + 1 != batch.record_count() {
        return Err(BatchFault::RecordCount);
    }
    if batch.crc_is_valid() { Ok(()) } else { Err(BatchFault::Checksum) }
}

/// Scans `path` from `position`, where the batch with offset `next` begins, and shows each valid batch with its
/// position to `visit`. Offsets must follow one another without a gap.
///
/// # Errors
/// Whatever the file system says on opening and reading.
pub(super) fn scan(
    fs: &dyn Fs,
    path: &Path,
    mut position: u64,
    mut next: Offset,
    mut visit: impl FnMut(&BatchView<'_>, u64),
) -> io::Result<Scanned> {
    let file = fs.open(path, OpenHow::Read)?;
    let mut buffer = Buffer::new(file)?;
    let file_len = buffer.file_len;
    let end = loop {
        if position >= file_len {
            break ScanEnd::EndOfFile;
        }
        let invalid = |detail: &str| ScanEnd::Invalid { detail: format!("at byte {position}: {detail}") };
        let size = match buffer.frame_size(position)? {
            Ok(size) => size,
            Err(fault) => break invalid(&fault.to_string()),
        };
        let Some(bytes) = buffer.get(position, size)? else { break invalid("not a batch") };
        let batch = match BatchView::parse(bytes) {
            Ok(batch) => batch,
            Err(error) => break invalid(&error.to_string()),
        };
        if let Err(fault) = check(&batch, next) {
            break invalid(&fault.to_string());
        }
        visit(&batch, position);
        position += size as u64;
        next = batch.next_offset();
    };
    Ok(Scanned { next, position, file_len, end })
}

/// A part of the file.
pub(super) struct Buffer {
    file: Arc<dyn FsFile>,
    /// As it was at the beginning.
    pub(super) file_len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Buffer {
    /// Nothing of it yet.
    pub(super) fn new(file: Arc<dyn FsFile>) -> io::Result<Self> {
        let file_len = file.len()?;
        Ok(Self { file, file_len, start: 0, bytes: Vec::new() })
    }

    /// The size of the batch that begins at `position`, by its own word, if the file goes so far.
    pub(super) fn frame_size(&mut self, position: u64) -> io::Result<Result<usize, FrameFault>> {
        let file_len = self.file_len;
        let Some(header) = self.get(position, record::HEADER_BYTES)? else {
            return Ok(Err(FrameFault::CutHeader));
        };
        let Some(size) = record::frame_size(header) else { return Ok(Err(FrameFault::NotABatch)) };
        let is_there = position + size as u64 <= file_len;
        Ok(if is_there { Ok(size) } else { Err(FrameFault::CutBatch) })
    }

    /// `len` bytes from `position`, or `None` if the file ends before.
    pub(super) fn get(&mut self, position: u64, len: usize) -> io::Result<Option<&[u8]>> {
        if position + len as u64 > self.file_len {
            return Ok(None);
        }
        let has = position >= self.start && position + len as u64 <= self.start + self.bytes.len() as u64;
        if !has {
            let want = (len.max(BUFFER_BYTES) as u64).min(self.file_len - position);
            self.bytes.resize(want as usize, 0);
            self.start = position;
            if let Err(error) = self.file.read_exact_at(&mut self.bytes, position) {
                self.bytes.clear();
                return Err(error);
            }
        }
        let at = (position - self.start) as usize;
        Ok(self.bytes.get(at..at + len))
    }
}

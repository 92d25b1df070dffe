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
    let file_len = file.len()?;
    let mut buffer = Buffer { file, file_len, start: 0, bytes: Vec::new() };
    let end = loop {
        if position >= file_len {
            break ScanEnd::EndOfFile;
        }
        let invalid = |detail: &str| ScanEnd::Invalid { detail: format!("at byte {position}: {detail}") };
        let Some(header) = buffer.get(position, record::HEADER_BYTES)? else {
            break invalid("the file ends within the header of a batch");
        };
        let Some(size) = record::frame_size(header) else { break invalid("not a batch") };
        let Some(bytes) = buffer.get(position, size)? else {
            break invalid("the file ends within a batch, or its length is wrong");
        };
        let batch = match BatchView::parse(bytes) {
            Ok(batch) => batch,
            Err(error) => break invalid(&error.to_string()),
        };
        if batch.base_offset() != next {
            break invalid(&format!("a batch with offset {} where {next} is due", batch.base_offset()));
        }
        if batch.record_count() <= 0 || batch.last_offset_delta() + 1 != batch.record_count() {
            break invalid("a batch whose record count is wrong");
        }
        if !batch.crc_is_valid() {
            break invalid("a batch with a wrong checksum");
        }
        visit(&batch, position);
        position += size as u64;
        next = batch.next_offset();
    };
    Ok(Scanned { next, position, file_len, end })
}

/// A part of the file.
struct Buffer {
    file: Arc<dyn FsFile>,
    file_len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Buffer {
    /// `len` bytes from `position`, or `None` if the file ends before.
    fn get(&mut self, position: u64, len: usize) -> io::Result<Option<&[u8]>> {
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

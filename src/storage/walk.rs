//! Goes through a log file from one end to the other, whatever is wrong with it: where [`super::scan`] stops at the first
//! batch that is none, this goes on with the next one that can be found. For those who look at a log and change nothing.

use std::io;
use std::ops::Range;
use std::path::Path;

use super::fs::{Fs, OpenHow};
use super::scan::{BatchFault, Buffer, check};
use crate::record::{self, BatchView, Frame, RunningChecksum};
use crate::types::Offset;

/// A batch that claims more than this is not read into memory before its checksum has been found right: where the length
/// is damaged, it may be anything.
const LARGE_BYTES: usize = 16 << 20;
/// How much of a large one is read at a time.
const STEP_BYTES: usize = 1 << 20;

/// Where a walk is.
pub(super) struct Walk {
    buffer: Buffer,
    position: u64,
    due: Option<Offset>,
}

/// What comes next in a log file.
pub(super) enum Piece<'a> {
    /// A batch whose beginning and end can be believed.
    Batch {
        /// Where it begins.
        position: u64,
        /// It, whatever its checks say.
        batch: BatchView<'a>,
        /// What its checks say, and the offset that stood to come.
        fault: Option<BatchFault>,
        /// The offset with which the next batch should begin.
        next_due: Offset,
    },
    /// Bytes that are no batch, up to the next one or the end of the file.
    Rubbish {
        /// Where they are.
        bytes: Range<u64>,
        /// The offset with which the next batch begins, if one was found.
        resumes: Option<Offset>,
        /// What is wrong.
        detail: String,
    },
}

impl Walk {
    /// Begins at the first byte of `path`, where the batch with offset `due` is expected, or any.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) fn new(fs: &dyn Fs, path: &Path, due: Option<Offset>) -> io::Result<Self> {
        let buffer = Buffer::new(fs.open(path, OpenHow::Read)?)?;
        Ok(Self { buffer, position: 0, due })
    }

    /// Where the next piece begins.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The length of the file.
    pub(super) fn file_len(&self) -> u64 {
        self.buffer.file_len
    }

    /// The next piece; `None` at the end. After an error there is nothing more to be had.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) fn next(&mut self) -> io::Result<Option<Piece<'_>>> {
        let position = self.position;
        if position >= self.buffer.file_len {
            return Ok(None);
        }
        let size = match self.believe(position)? {
            Ok(size) => size,
            Err(detail) => return self.rubbish(detail).map(Some),
        };
        let (fault, next_due) = match self.judge(position, size)? {
            Ok(judged) => judged,
            Err(detail) => return self.rubbish(detail).map(Some),
        };
        self.position = position + size as u64;
        self.due = Some(next_due);
        let batch = self.buffer.get(position, size)?.map(BatchView::parse);
        match batch {
            Some(Ok(batch)) => Ok(Some(Piece::Batch { position, batch, fault, next_due })),
            // It was one a moment ago.
            _ => Err(io::Error::other("the file changes while it is read")),
        }
    }

    /// The size of what begins here, if it can be a batch and may be read into memory.
    fn believe(&mut self, position: u64) -> io::Result<Result<usize, String>> {
        let size = match self.buffer.frame_size(position)? {
            Ok(size) => size,
            Err(fault) => return Ok(Err(fault.to_string())),
        };
        if size > LARGE_BYTES && !self.checksum_is_right(position)? {
            return Ok(Err(BatchFault::Checksum.to_string()));
        }
        Ok(Ok(size))
    }

    /// What is wrong with the batch here, and which offset is due after it; `Err` if it cannot be told where it ends.
    fn judge(
        &mut self,
        position: u64,
        size: usize,
    ) -> io::Result<Result<(Option<BatchFault>, Offset), String>> {
        let Some(bytes) = self.buffer.get(position, size)? else {
            return Ok(Err("the file ends within a batch".to_owned()));
        };
        let batch = match BatchView::parse(bytes) {
            Ok(batch) => batch,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let (base, next) = (batch.base_offset(), batch.next_offset());
        let due = self.due.unwrap_or(base);
        let Err(fault) = check(&batch, due) else { return Ok(Ok((None, next))) };
        let (crc, count) = (batch.check_crc(), batch.record_count());
        let after = self.peek(position + size as u64)?;
        if let Err(wrong) = crc {
            // The length lies outside of what the checksum covers. It is right if another batch, the very next, or the end
            // of the file follows.
            let at_end = position + size as u64 == self.buffer.file_len;
            let is_followed = at_end || after.is_some_and(|after| after.base_offset == next);
            return Ok(if is_followed {
                Ok((Some(BatchFault::Checksum), next))
            } else {
                Err(wrong.to_string())
            });
        }
        // Nor does it cover the offset. If those after it go on as if it were the due one, it is this one that is wrong.
        let own = due.plus(count.unsigned_abs());
        let is_stray = after.is_some_and(|after| after.base_offset == own);
        Ok(Ok((Some(fault), if is_stray { own } else { next })))
    }

    /// Goes past what is no batch.
    fn rubbish(&mut self, detail: String) -> io::Result<Piece<'_>> {
        let start = self.position;
        let mut end = start + 1;
        let resumes = loop {
            if end >= self.buffer.file_len {
                end = self.buffer.file_len;
                break None;
            }
            if let Some(frame) = self.peek(end)?
                && frame.counts_add_up()
                && self.due.is_none_or(|due| frame.base_offset >= due)
                && end + frame.size_bytes as u64 <= self.buffer.file_len
                && self.checksum_is_right(end)?
            {
                break Some(frame.base_offset);
            }
            end += 1;
        };
        self.position = end;
        self.due = resumes.or(self.due);
        Ok(Piece::Rubbish { bytes: start..end, resumes, detail })
    }

    /// What the header here claims, if it can be a batch's.
    fn peek(&mut self, position: u64) -> io::Result<Option<Frame>> {
        Ok(self.buffer.get(position, record::HEADER_BYTES)?.and_then(Frame::peek))
    }

    /// Whether here is a batch whose checksum is right; found out without holding all of it.
    fn checksum_is_right(&mut self, position: u64) -> io::Result<bool> {
        let Some(frame) = self.peek(position)? else { return Ok(false) };
        let (mut checksum, mut at, mut left) = (RunningChecksum::default(), position, frame.size_bytes);
        while left > 0 {
            let step = left.min(STEP_BYTES);
            let Some(piece) = self.buffer.get(at, step)? else { return Ok(false) };
            checksum.update(piece);
            at += step as u64;
            left -= step;
        }
        Ok(checksum.finish() == frame.crc)
    }
}

//! Walks the batches of a log file in order, checking each whole, and finds where the log goes on behind what is no
//! batch: one scan that feeds whatever has to be rebuilt. Reads the file through a buffer, not through a map.
//!
//! # What counts as a batch
//!
//! One that is whole, has a right checksum, the offset that is due and a leader epoch that the log can have there. The
//! checksum does not cover offset and epoch, so both are held against what is around them.
//!
//! # The way past damage
//!
//! If the damaged batch's own length leads to a batch that goes on with the offset that its own count leads to, that is
//! the way. Otherwise the file is searched byte by byte. A record may hold batches in its value: so one that is found
//! by searching counts only if those after it follow one upon the other, to the known end of the log, to all offsets that
//! it is known to have, or for longer than a usual record.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::damage::Damage;
use super::epochs::LeaderEpochs;
use super::fs::{Fs, FsFile, OpenHow, is_unreadable};
use super::types::Durability;
use crate::record::{self, BatchView, HeaderClaim};
use crate::types::{LeaderEpoch, Offset};

/// How much is read at a time.
const BUFFER_BYTES: usize = 1 << 20;
/// What can be read or not as a whole.
const PAGE_BYTES: u64 = 4096;
/// No batch is larger (the upper limit of `broker.max_message_bytes_limit`): a damaged length must not ask for more
/// memory than that.
const LARGEST_BATCH_BYTES: usize = 256 << 20;
/// How far batches must follow one upon the other behind one that was found by searching.
const PROOF_BYTES: u64 = 1 << 20;
/// So much is checksummed at most in one search, whatever looks like a batch.
const SEARCH_BYTES: u64 = 4 << 30;

/// What is known of a log apart from the file that is scanned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    /// From which offset on each epoch holds.
    pub(super) epochs: &'a LeaderEpochs,
    /// No batch has a later one.
    pub(super) newest_epoch: LeaderEpoch,
    /// The log has all offsets below this.
    pub(super) reaches: Offset,
    /// One past the last offset of the file, if it is complete.
    pub(super) end: Option<Offset>,
}

impl Known<'_> {
    fn allows(&self, batch: &BatchView<'_>) -> bool {
        self.epochs.allow(batch.leader_epoch(), batch.base_offset(), self.newest_epoch)
            && self.end.is_none_or(|end| batch.next_offset() <= end)
    }
}

/// What stands at the present place.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// The batch that is due; the scan has gone on to the next one.
    Batch {
        /// It.
        batch: BatchView<'a>,
        /// Where it begins.
        position: u64,
    },
    /// Something else. The scan stays where it is.
    Bad {
        /// What is wrong with it.
        detail: String,
    },
    /// The end of the file.
    End,
}

/// A log file being scanned.
#[derive(Debug)]
pub(super) struct Scan {
    buffer: Buffer,
    /// Where the next batch is due.
    position: u64,
    /// The offset that is due.
    next: Offset,
}

/// A batch boundary in the file that is scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) position: u64,
    pub(super) offset: Offset,
}

impl Place {
    /// Where the batch at this place ends, by its header.
    fn after(self, claim: HeaderClaim) -> Option<Self> {
        let position = self.position + claim.size_bytes as u64;
        claim.record_count.map(|count| Self { position, offset: self.offset.plus(count) })
    }
}

impl Scan {
    /// Begins at `from`. What lies at or beyond `end` does not count.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) fn open(fs: &dyn Fs, path: &Path, from: Place, end: u64) -> io::Result<Self> {
        let file = fs.open(path, OpenHow::Read)?;
        let len = file.len()?.min(end);
        let buffer = Buffer { file, len, start: 0, bytes: Vec::new(), unreadable: None };
        Ok(Self { buffer, position: from.position, next: from.offset })
    }

    /// The same, around what the disk cannot read: that counts as damage.
    ///
    /// # Errors
    /// Whatever else the file system says.
    pub(super) fn open_around(fs: &dyn Fs, path: &Path, from: Place) -> io::Result<Self> {
        let mut scan = Self::open(fs, path, from, u64::MAX)?;
        scan.buffer.unreadable = Some(false);
        Ok(scan)
    }

    /// Whether it has come to something that the disk cannot read.
    pub(super) fn has_unreadable(&self) -> bool {
        self.buffer.unreadable == Some(true)
    }

    /// How long the file is, as far as it counts.
    pub(super) fn len(&self) -> u64 {
        self.buffer.len
    }

    /// Where it is.
    pub(super) fn place(&self) -> Place {
        Place { position: self.position, offset: self.next }
    }

    /// Goes on from another place.
    pub(super) fn go_to(&mut self, place: Place) {
        (self.position, self.next) = (place.position, place.offset);
    }

    /// The next batch.
    ///
    /// # Errors
    /// Whatever the file system says on reading.
    pub(super) fn next(&mut self, known: &Known<'_>) -> io::Result<Found<'_>> {
        let (position, due) = (self.position, self.next);
        if position >= self.buffer.len {
            return Ok(Found::End);
        }
        let bad = |detail: &str| Found::Bad { detail: format!("at byte {position}: {detail}") };
        let batch = match self.buffer.intact(position)? {
            Ok(batch) => batch,
            Err(detail) => return Ok(bad(&detail)),
        };
        let (size, next, epoch) = (batch.size_bytes(), batch.next_offset(), batch.leader_epoch());
        if batch.base_offset() != due {
            return Ok(bad(&format!("a batch with offset {} where {due} is due", batch.base_offset())));
        }
        if !known.allows(&batch) {
            return Ok(bad(&format!("a batch with leader epoch {epoch}")));
        }
        let after = Place { position: position + size as u64, offset: next };
        if known.epochs.at(due) != Some(epoch) && self.goes_back(after, epoch)? {
            return Ok(bad(&format!(
                "a batch with leader epoch {epoch}, and the one after it has an older one"
            )));
        }
        // Its bytes have been looked at: they are in the buffer, or were until the one after it was looked at.
        let batch = self.buffer.get(position, size)?.map(BatchView::parse);
        let Some(Ok(batch)) = batch else { return Ok(bad("the file has changed")) };
        (self.position, self.next) = (after.position, after.offset);
        Ok(Found::Batch { batch, position })
    }

    /// Whether the batch at `place` is the one that is due there, of an older epoch than `epoch`.
    fn goes_back(&mut self, place: Place, epoch: LeaderEpoch) -> io::Result<bool> {
        let batch = self.buffer.intact(place.position)?;
        Ok(batch.is_ok_and(|batch| batch.base_offset() == place.offset && batch.leader_epoch() < epoch))
    }

    /// Where the log goes on behind the bad batch at the present place, if it does. The scan stays where it is.
    ///
    /// # Errors
    /// Whatever the file system says on reading.
    pub(super) fn find_way_on(&mut self, known: &Known<'_>) -> io::Result<Option<Place>> {
        let bad = self.place();
        if let Some(claimed) = self.claimed_next(bad)?
            && let Ok(batch) = self.buffer.intact(claimed.position)?
            && batch.base_offset() == claimed.offset
            && known.allows(&batch)
        {
            return Ok(Some(claimed));
        }
        self.search(bad.position + 1, bad.offset, known, true)
    }

    /// Where the batch after a bad one begins if the header of the bad one is right about its length and its count.
    fn claimed_next(&mut self, bad: Place) -> io::Result<Option<Place>> {
        let header = self.buffer.get(bad.position, record::HEADER_BYTES)?;
        Ok(header.and_then(HeaderClaim::read).and_then(|claim| bad.after(claim)))
    }

    /// Whether an intact batch of the log, with an offset above `above`, begins at `from` or after it.
    fn has_batch_beyond(&mut self, from: u64, above: Offset, known: &Known<'_>) -> io::Result<bool> {
        Ok(self.search(from, above, known, false)?.is_some())
    }

    /// The first intact batch, at `from` or after it, whose offset is above `above`; if it is to be where the log goes
    /// on, one that is shown to be by what follows it.
    fn search(
        &mut self,
        from: u64,
        above: Offset,
        known: &Known<'_>,
        to_go_on: bool,
    ) -> io::Result<Option<Place>> {
        let (mut position, mut left_bytes) = (from, SEARCH_BYTES);
        while let Some(header) = self.buffer.get(position, record::HEADER_BYTES)? {
            let claim = HeaderClaim::read(header).filter(HeaderClaim::is_plausible);
            if let Some(claim) = claim.filter(|claim| claim.base_offset > above.get()) {
                let candidate = match self.buffer.intact(position)? {
                    Ok(batch) if known.allows(&batch) => {
                        Some(Place { position, offset: batch.base_offset() })
                    }
                    _ => None,
                };
                if let Some(place) = candidate
                    && (!to_go_on || self.goes_on(place, known)?)
                {
                    return Ok(Some(place));
                }
                match left_bytes.checked_sub(claim.size_bytes as u64) {
                    Some(left) => left_bytes = left,
                    None => return Ok(None),
                }
            }
            position += 1;
        }
        Ok(None)
    }

    /// Whether what follows `place` shows that it is the log's own batch, with its own offset. Of those that follow, the
    /// headers are enough: damage in one of them is told when its turn comes.
    fn goes_on(&mut self, place: Place, known: &Known<'_>) -> io::Result<bool> {
        let (mut at, mut batches) = (place, 0);
        while at.position - place.position <= PROOF_BYTES {
            let claim = self.buffer.get(at.position, record::HEADER_BYTES)?.and_then(HeaderClaim::read);
            let follows = claim.filter(|claim| claim.is_plausible() && claim.base_offset == at.offset.get());
            let Some(after) = follows.and_then(|claim| at.after(claim)) else {
                let is_end = at.position >= self.buffer.len;
                if let Some(end) = known.end {
                    return Ok(is_end && at.offset == end);
                }
                // What comes now is not there yet, or damaged, or torn. One batch alone may have any offset.
                let has_all = place.offset <= known.reaches && known.reaches <= at.offset;
                return Ok(at.offset == known.reaches || (batches > 1 && (is_end || has_all)));
            };
            (at, batches) = (after, batches + 1);
        }
        Ok(true)
    }

    /// Whether what begins at the bad batch that the scan has come to, in the last segment of a log with this durability,
    /// can be what a crash left of the last group; see [`super::recovery`].
    ///
    /// # Errors
    /// Whatever the file system says on reading.
    pub(super) fn is_torn(
        &mut self,
        known: &Known<'_>,
        durability: Durability,
        max_group_bytes: u64,
    ) -> io::Result<bool> {
        let bad = self.place();
        if bad.offset < known.reaches {
            return Ok(false);
        }
        if durability == Durability::Os {
            return Ok(true);
        }
        let beyond = bad.position + max_group_bytes;
        Ok(!self.has_batch_beyond(beyond, bad.offset, known)?)
    }

    /// Goes past the bad batch at the present place, to where the log goes on or to the end of the file. Returns what is
    /// lost.
    ///
    /// # Errors
    /// Whatever the file system says on reading.
    pub(super) fn skip(&mut self, known: &Known<'_>, detail: String) -> io::Result<Damage> {
        let bad = self.place();
        let end = known.end.unwrap_or(known.reaches.max(bad.offset));
        let on = self.find_way_on(known)?.unwrap_or(Place { position: self.buffer.len, offset: end });
        self.go_to(on);
        let positions = bad.position..on.position.max(bad.position);
        Ok(Damage { positions, first: bad.offset, next: on.offset, detail })
    }

    /// What fills just this part of the file, if it is framed as a batch, whatever its checks say.
    ///
    /// # Errors
    /// Whatever the file system says on reading.
    pub(super) fn framed(&mut self, range: std::ops::Range<u64>) -> io::Result<Option<BatchView<'_>>> {
        let len = (range.end - range.start) as usize;
        if len > LARGEST_BATCH_BYTES {
            return Ok(None);
        }
        let batch = self.buffer.get(range.start, len)?.and_then(|bytes| BatchView::parse(bytes).ok());
        Ok(batch.filter(|batch| batch.size_bytes() == len))
    }

    /// The offset that the header at the present place claims, if it can be one.
    ///
    /// # Errors
    /// Whatever the file system says on reading.
    pub(super) fn claimed_offset(&mut self) -> io::Result<Option<Offset>> {
        let header = self.buffer.get(self.position, record::HEADER_BYTES)?;
        let claim = header.and_then(HeaderClaim::read).filter(HeaderClaim::is_plausible);
        Ok(claim.and_then(|claim| Offset::new(claim.base_offset)))
    }

    /// The bytes of a part of the file, in steps.
    ///
    /// # Errors
    /// Whatever the file system says on reading; what `take` says.
    pub(super) fn copy(
        &mut self,
        mut range: std::ops::Range<u64>,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        while range.start < range.end {
            let len = (range.end - range.start).min(BUFFER_BYTES as u64) as usize;
            take(self.buffer.get(range.start, len)?.ok_or(io::ErrorKind::UnexpectedEof)?)?;
            range.start += len as u64;
        }
        Ok(())
    }
}

/// A part of the file.
#[derive(Debug)]
struct Buffer {
    file: Arc<dyn FsFile>,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
    /// Whether there has been something that the disk cannot read; `None`: that is an error.
    unreadable: Option<bool>,
}

impl Buffer {
    /// The batch at `position`, whole and with a right checksum, wherever it may belong; or what is wrong.
    fn intact(&mut self, position: u64) -> io::Result<Result<BatchView<'_>, String>> {
        let Some(header) = self.get(position, record::HEADER_BYTES)? else {
            return Ok(Err("the file ends within the header of a batch".to_owned()));
        };
        let Some(size) = record::frame_size(header).filter(|size| *size <= LARGEST_BATCH_BYTES) else {
            return Ok(Err("not a batch".to_owned()));
        };
        Ok(match self.get(position, size)? {
            Some(bytes) => check(bytes),
            None => Err("the file ends within a batch, or its length is wrong".to_owned()),
        })
    }

    /// `len` bytes from `position`, or `None` if the file ends before.
    fn get(&mut self, position: u64, len: usize) -> io::Result<Option<&[u8]>> {
        if position + len as u64 > self.len {
            return Ok(None);
        }
        let has = position >= self.start && position + len as u64 <= self.start + self.bytes.len() as u64;
        if !has {
            let want = (len.max(BUFFER_BYTES) as u64).min(self.len - position) as usize;
            self.bytes.resize(want, 0);
            // What one large batch needed is not kept for the small ones after it.
            self.bytes.shrink_to(BUFFER_BYTES);
            self.start = position;
            let read = match self.file.read_exact_at(&mut self.bytes, position) {
                Err(error) if self.unreadable.is_some() && is_unreadable(&error) => self.fill_around(),
                read => read,
            };
            if let Err(error) = read {
                self.bytes.clear();
                return Err(error);
            }
        }
        let at = (position - self.start) as usize;
        Ok(self.bytes.get(at..at + len))
    }

    /// Reads what can be read, page by page. The rest is zeros, which are no batch.
    fn fill_around(&mut self) -> io::Result<()> {
        let (mut position, mut rest) = (self.start, &mut *self.bytes);
        while !rest.is_empty() {
            let to_next_page = (PAGE_BYTES - position % PAGE_BYTES).min(rest.len() as u64);
            let (page, after) = rest.split_at_mut(to_next_page as usize);
            match self.file.read_exact_at(page, position) {
                Err(error) if is_unreadable(&error) => {
                    page.fill(0);
                    self.unreadable = Some(true);
                }
                read => read?,
            }
            (position, rest) = (position + to_next_page, after);
        }
        Ok(())
    }
}

/// The batch in `bytes`, if it is one and all that its checksum covers is as it was written; else what is wrong.
pub(super) fn check(bytes: &[u8]) -> Result<BatchView<'_>, String> {
    let batch = BatchView::parse(bytes).map_err(|error| error.to_string())?;
    if batch.record_count() <= 0 || batch.last_offset_delta() + 1 != batch.record_count() {
        return Err("a batch whose record count is wrong".to_owned());
    }
    if !batch.crc_is_valid() {
        return Err("a batch with a wrong checksum".to_owned());
    }
    Ok(batch)
}

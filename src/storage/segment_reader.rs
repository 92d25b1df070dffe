//! Reading from one segment: finds batches by the index, checks them, and lends them out of the map.
//!
//! Nothing is handed out unchecked. In a sealed segment the checksum of each block is computed at its first use since
//! the start, and what lies in right blocks is right. Elsewhere, in blocks with a wrong checksum, and in what has come
//! past the page cache, each batch is checked on its own. Where one is bad, a scan of the file finds the limits of the
//! damage; they are remembered, and reads of it fail from then on without looking.
//!
//! An index is a hint: the batch at an entry's place must be the one that the entry speaks of. An index found wrong, or
//! short of an entry, is noted, and made anew by [`super::index_repair`].
//!
//! Whatever is made of mapped bytes counts only if they were all there: a page that has vanished looks like damage. So
//! nothing is answered or noted before the [`Lease`] has been asked, and the limits of a damage are looked for in the
//! file itself.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::damage::Damage;
use super::epochs::LeaderEpochs;
use super::fs::OpenHow;
use super::index::{Entry, FileEntries, TimeEntry};
use super::mmap::Lease;
use super::scan::{self, Found, Known, Place, Scan};
use super::segment::{Segment, SegmentError, Slice, UNCACHED_BYTES};
use super::types::{ReadBatches, TimestampedOffset};
use crate::record::{self, BatchView, RecordView};
use crate::types::Offset;

/// The least that is looked at at a time while batches are skipped.
const WINDOW_BYTES: u64 = 64 << 10;
/// Of memory that is held for an answer, at most one part in so many is something else: it is counted by the answer.
const MOST_SLACK: usize = 8;

/// A segment of a log, to be read from.
#[derive(Debug, Clone, Copy)]
pub(super) struct SegmentReader<'a> {
    pub(super) segment: &'a Arc<Segment>,
    /// Those of the log.
    pub(super) epochs: &'a Mutex<LeaderEpochs>,
    /// Nothing at or beyond this offset is visible, or it is another segment's.
    pub(super) below: Offset,
}

impl<'a> SegmentReader<'a> {
    /// Whole batches from the one that holds `offset` on, at least one, then up to `max_bytes`; `None` if there is
    /// none at or after it that readers may see.
    ///
    /// # Errors
    /// `Damaged` if the first one is lost.
    pub(super) fn read(self, offset: Offset, max_bytes: u64) -> Result<Option<ReadBatches>, SegmentError> {
        let Some(mut walk) = self.find(offset, max_bytes.max(WINDOW_BYTES))? else { return Ok(None) };
        let begin = walk.position;
        // Mostly it has all that is read.
        let (window, lease, looked_at) = (walk.window.clone(), walk.lease.clone(), walk.looked_at);
        let (mut end, mut next_offset) = (begin, offset);
        while end == begin || walk.is_at_hand() {
            let batch = match walk.batch() {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                // What comes before is good. The next read begins here, and tells.
                Err(_) if end > begin => break,
                Err(bad) => return Err(self.error_at(bad)),
            };
            let size = batch.size_bytes() as u64;
            if batch.last_offset() >= self.below || (end > begin && end + size - begin > max_bytes) {
                break;
            }
            end += size;
            next_offset = batch.next_offset();
            walk.advance(size, next_offset);
            if end - begin >= max_bytes {
                break;
            }
        }
        walk.confirm()?;
        if end == begin {
            return Ok(None);
        }
        self.segment.note_checked(&(begin..end));
        self.segment.note_read(offset, next_offset, end);
        let size_bytes = end - begin;
        let Slice { bytes, lease } = if window.len() as u64 >= size_bytes {
            let bytes = window.slice(..size_bytes as usize);
            let is_part = !lease.is_of_map() && bytes.len() < looked_at - looked_at / MOST_SLACK;
            Slice { bytes: if is_part { Bytes::copy_from_slice(&bytes) } else { bytes }, lease }
        } else {
            self.segment.slice(begin..end)?
        };
        Ok(Some(ReadBatches { chunks: vec![bytes], next_offset, size_bytes, lease }))
    }

    /// The same without waiting for the disk, for who goes on from where a read has ended: `None` unless what follows
    /// is in memory and has been checked.
    pub(super) fn read_on(self, offset: Offset, max_bytes: u64) -> Option<ReadBatches> {
        let begin = self.segment.read_end(offset)?;
        let end = self.segment.visible_bytes().min(begin.saturating_add(max_bytes.max(WINDOW_BYTES)));
        if self.segment.verified_end(begin) < end {
            return None;
        }
        let Slice { bytes, lease } = self.segment.slice_in_memory(begin..end)?;
        let (mut size_bytes, mut next_offset) = (0, offset);
        for batch in record::batches(&bytes).map_while(Result::ok) {
            let size = batch.size_bytes() as u64;
            let is_next = batch.base_offset() == next_offset && batch.last_offset() < self.below;
            if !is_next || (size_bytes > 0 && size_bytes + size > max_bytes) {
                break;
            }
            size_bytes += size;
            next_offset = batch.next_offset();
        }
        if size_bytes == 0 || !lease.is_intact() {
            return None;
        }
        self.segment.note_read(offset, next_offset, begin + size_bytes);
        let chunks = vec![bytes.slice(..size_bytes as usize)];
        Some(ReadBatches { chunks, next_offset, size_bytes, lease })
    }

    /// The first record at or after `timestamp_ms` and offset `from`.
    ///
    /// # Errors
    /// `Damaged` if what is lost comes first: it may have been there.
    pub(super) fn find_timestamp(
        self,
        timestamp_ms: i64,
        from: Offset,
        max_decompressed_bytes: u64,
    ) -> Result<Option<TimestampedOffset>, SegmentError> {
        let start = self.time_floor(timestamp_ms)?.max(from);
        if start >= self.below {
            return Ok(None);
        }
        let Some(mut walk) = self.find(start, WINDOW_BYTES)? else { return Ok(None) };
        let mut scratch = Vec::new();
        loop {
            let position = walk.position;
            let batch = match walk.batch() {
                Ok(Some(batch)) if batch.last_offset() < self.below => batch,
                Ok(_) => {
                    walk.confirm()?;
                    return Ok(None);
                }
                Err(bad) => return Err(self.error_at(bad)),
            };
            let (size, first, next) = (batch.size_bytes() as u64, batch.base_offset(), batch.next_offset());
            let found = if batch.max_timestamp() >= timestamp_ms {
                let records = batch.records(&mut scratch, max_decompressed_bytes);
                records.and_then(|records| first_at(records, timestamp_ms, from))
            } else {
                Ok(None)
            };
            walk.confirm()?;
            match found {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => walk.advance(size, next),
                Err(error) => {
                    let (positions, detail) =
                        (position..position + size, format!("unreadable batch: {error}"));
                    return Err(SegmentError::Damaged(Damage { positions, first, next, detail }));
                }
            }
        }
    }

    /// All records before the returned offset are older than `timestamp_ms`, by the time index.
    fn time_floor(self, timestamp_ms: i64) -> Result<Offset, SegmentError> {
        let segment = self.segment;
        // What is not visible yet has entries too, and cannot be walked to.
        let before = |entry: TimeEntry| {
            entry.timestamp_ms < timestamp_ms && segment.base().plus(entry.relative_offset) < self.below
        };
        let in_file = {
            let index = segment.index().read();
            let recent = index.times.recent();
            if let Some(i) = recent.partition_point(|entry| before(*entry)).checked_sub(1) {
                let found = recent.get(i).map(|entry| segment.base().plus(entry.relative_offset));
                return Ok(found.unwrap_or(segment.base()));
            }
            index.times.in_file()
        };
        let mut bytes = vec![0; (in_file * TimeEntry::BYTES) as usize];
        let read = {
            let _permit = segment.permit();
            let file = segment.fs().open(&segment.path("timeindex"), OpenHow::Read);
            file.and_then(|file| file.read_exact_at(&mut bytes, 0))
        };
        let entry = match read {
            Ok(()) => FileEntries(bytes.into()).last_before(before),
            Err(_) if in_file > 0 => {
                segment.note_wrong_index();
                None
            }
            Err(_) => None,
        };
        // Without one the search begins at the start of the segment.
        let Some(entry): Option<TimeEntry> = entry else { return Ok(segment.base()) };
        if self.has_entry(entry)? {
            return Ok(segment.base().plus(entry.relative_offset));
        }
        segment.note_wrong_index();
        Ok(segment.base())
    }

    /// Whether the batch that ends with the entry's offset has its timestamp.
    fn has_entry(self, entry: TimeEntry) -> Result<bool, SegmentError> {
        let last = self.segment.base().plus(entry.relative_offset);
        let mut walk = match self.find(last, WINDOW_BYTES) {
            Ok(Some(walk)) => walk,
            // Lost, or never there: then it says nothing.
            Ok(None) | Err(SegmentError::Damaged(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        let batch = walk.batch().ok().flatten();
        let is_it = batch
            .is_some_and(|batch| batch.last_offset() == last && batch.max_timestamp() == entry.timestamp_ms);
        walk.confirm()?;
        Ok(is_it)
    }

    /// Walks to the batch that holds `offset`, which is visible, or the first one after it. `None` if there is none yet.
    fn find(self, offset: Offset, window_bytes: u64) -> Result<Option<Walk<'a>>, SegmentError> {
        let end = self.segment.visible_bytes();
        // Each round knows one damage more than the one before.
        'again: loop {
            if let Some(damage) = self.segment.damages().holding(offset) {
                return Err(SegmentError::Damaged(damage));
            }
            let mut misled = false;
            for (position, due) in self.hints(offset, window_bytes)? {
                let walk = Walk {
                    reader: self,
                    position,
                    end,
                    due,
                    window_bytes,
                    window: Bytes::new(),
                    lease: Lease::default(),
                    looked_at: 0,
                    checked: false,
                };
                match walk.find(offset) {
                    Ok(found) => {
                        if misled {
                            self.segment.note_wrong_index();
                        }
                        return Ok(found);
                    }
                    Err(bad) if bad.has_vanished => return Err(self.error_at(bad)),
                    // Either the index is wrong, or the log is bad there: coming from further before, that will show.
                    Err(Bad { due: Due::Last(_), .. }) => misled = true,
                    Err(bad @ Bad { due: Due::Base(_), .. }) => match self.error_at(bad) {
                        SegmentError::Damaged(damage) if damage.next <= offset => continue 'again,
                        error => return Err(error),
                    },
                }
            }
            return Ok(None);
        }
    }

    /// Places from which `offset` can be found, the nearest first; the start of the segment is the last one, but for a read
    /// of `window_bytes` that goes on where one has ended.
    fn hints(self, offset: Offset, window_bytes: u64) -> Result<Vec<(u64, Due)>, SegmentError> {
        // By the index, it would begin with a batch that is left out: much, where each read is the disk's.
        if UNCACHED_BYTES.contains(&window_bytes)
            && let Some(position) = self.segment.read_end(offset)
        {
            return Ok(vec![(position, Due::Base(offset))]);
        }
        let base = self.segment.base();
        let mut hints = vec![(0, Due::Base(base))];
        hints.extend(self.segment.damages().end_before(offset).map(|(at, next)| (at, Due::Base(next))));
        for entry in self.segment.entries_before(offset)?.into_iter().flatten() {
            let last = base.plus(entry.relative_offset);
            if last <= offset {
                hints.push((u64::from(entry.position), Due::Last(last)));
            } else {
                // What was looked for in it does not ascend.
                self.segment.note_wrong_index();
            }
        }
        hints.sort_by_key(|(position, _)| std::cmp::Reverse(*position));
        // What is known beats what an index says.
        let known = hints.iter().position(|(_, due)| matches!(due, Due::Base(_))).unwrap_or_default();
        hints.truncate(known + 1);
        Ok(hints)
    }

    /// The limits of the damage that a walk has come to, found by a scan of the file, and remembered.
    fn error_at(self, bad: Bad) -> SegmentError {
        if bad.has_vanished {
            return self.segment.vanished();
        }
        let (path, Due::Base(offset)) = (self.segment.log_path(), bad.due) else {
            return bad.error.unwrap_or_else(|| self.not_readable(&bad.detail));
        };
        let place = Place { position: bad.position, offset };
        let epochs = self.epochs.lock().clone();
        let sealed_end = self.segment.seal().map(|seal| seal.next);
        let known = Known {
            epochs: &epochs,
            newest_epoch: epochs.last().unwrap_or_default(),
            reaches: self.below,
            end: sealed_end,
        };
        let _permit = self.segment.permit();
        let damage =
            Scan::open(self.segment.fs(), &path, place, self.segment.visible_bytes()).and_then(|mut scan| {
                match scan.next(&known)? {
                    Found::Batch { .. } => Ok(None),
                    Found::End => Ok(Some((format!("the file ends at byte {}", scan.len()), scan))),
                    Found::Bad { detail } => Ok(Some((detail, scan))),
                }
            });
        let skipped = match damage {
            Ok(Some((detail, mut scan))) => scan.skip(&known, detail).map(|damage| (damage, scan)),
            // It is good now: the read that found it bad failed for another reason.
            Ok(None) => return bad.error.unwrap_or_else(|| self.not_readable(&bad.detail)),
            Err(source) => return SegmentError::Io { path, source },
        };
        match skipped {
            Ok((damage, scan)) => {
                // What is appended later may tell more of an end that is still open.
                if sealed_end.is_some() || damage.positions.end < scan.len() {
                    tracing::error!(
                        path = %path.display(), first = %damage.first, next = %damage.next, detail = damage.detail,
                        "data loss"
                    );
                    self.segment.damages().add(damage.clone());
                }
                SegmentError::Damaged(damage)
            }
            Err(source) => SegmentError::Io { path, source },
        }
    }

    fn not_readable(self, detail: &str) -> SegmentError {
        let source = std::io::Error::other(format!("it could not be read: {detail}"));
        SegmentError::Io { path: self.segment.log_path(), source }
    }

    /// Whether the batch is as it was written; the walk has seen to its offset.
    fn is_right(self, bytes: &[u8]) -> Result<(), String> {
        let batch = scan::check(bytes)?;
        let (epoch, offset) = (batch.leader_epoch(), batch.base_offset());
        match self.epochs.lock().at(offset) {
            Some(holds) if holds != epoch => Err(format!("a batch with leader epoch {epoch}, not {holds}")),
            _ => Ok(()),
        }
    }
}

/// What a walk expects at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// The batch that begins with this offset: it follows on what has been checked.
    Base(Offset),
    /// The batch that ends with this offset, by the index.
    Last(Offset),
}

/// What a walk has come to that is not the batch that is due.
#[derive(Debug)]
struct Bad {
    due: Due,
    position: u64,
    detail: String,
    /// What the file system said, if it was that.
    error: Option<SegmentError>,
    /// Some of what was seen was not there: it says nothing, not even of the place.
    has_vanished: bool,
}

/// Looks at one batch after the other without reading more than a window ahead.
#[derive(Debug)]
struct Walk<'a> {
    reader: SegmentReader<'a>,
    position: u64,
    end: u64,
    due: Due,
    window_bytes: u64,
    /// The log from `position` on, as far as it has been looked at.
    window: Bytes,
    /// Of the window.
    lease: Lease,
    /// What the window was when it was got, in bytes.
    looked_at: usize,
    /// The batch at `position` has been checked.
    checked: bool,
}

impl Walk<'_> {
    /// The batch at the present place, checked; `None` at the end.
    fn batch(&mut self) -> Result<Option<BatchView<'_>>, Bad> {
        if self.position >= self.end {
            let seal = self.reader.segment.seal();
            return match self.due {
                Due::Base(next) if seal.is_none_or(|seal| next >= seal.next) => Ok(None),
                // An index that leads there says nothing about the end of the segment.
                Due::Base(_) | Due::Last(_) => Err(self.bad("its segment ends early")),
            };
        }
        if !self.checked {
            self.look(record::HEADER_BYTES as u64)?;
            let size = record::frame_size(&self.window).ok_or_else(|| self.bad("not a batch"))?;
            self.look(size as u64)?;
            self.check(size)?;
            self.checked = true;
        }
        BatchView::parse(&self.window).map(Some).map_err(|error| self.bad(&error.to_string()))
    }

    /// Whether the batch at the present place costs little to look at: it is in the window, or can be had out of a map.
    fn is_at_hand(&self) -> bool {
        let is_seen = |size| size <= self.window.len();
        self.lease.is_of_map() || record::frame_size(&self.window).is_some_and(is_seen)
    }

    fn check(&self, size: usize) -> Result<(), Bad> {
        let batch = BatchView::parse(&self.window).map_err(|error| self.bad(&error.to_string()))?;
        let is_due = match self.due {
            Due::Base(base) => batch.base_offset() == base,
            Due::Last(last) => {
                batch.last_offset() == last && batch.base_offset() >= self.reader.segment.base()
            }
        };
        if !is_due {
            return Err(self.bad(&format!("a batch with offset {} is not due", batch.base_offset())));
        }
        // An index can lead into the middle of a batch, where anything may stand.
        let is_hint = matches!(self.due, Due::Last(_));
        let range = self.position..self.position + size as u64;
        // What is not of the map has not been checked with its block, which would have to be mapped for it.
        if is_hint || !self.lease.is_of_map() || !self.reader.segment.is_verified(&range) {
            self.reader.is_right(batch.as_bytes()).map_err(|detail| self.bad(&detail))?;
        }
        Ok(())
    }

    /// Goes past the present batch, of this size, which ends before offset `next`.
    fn advance(&mut self, size: u64, next: Offset) {
        self.position += size;
        self.due = Due::Base(next);
        self.checked = false;
        let seen = (size as usize).min(self.window.len());
        self.window = self.window.split_off(seen);
    }

    /// Goes on to the batch that holds `offset` or the first one after it.
    fn find(mut self, offset: Offset) -> Result<Option<Self>, Bad> {
        let (begin, interval_bytes) = (self.position, self.reader.segment.index().read().interval_bytes());
        loop {
            let batch = self.batch()?.map(|batch| (batch.next_offset(), batch.size_bytes() as u64));
            if !self.lease.is_intact() {
                return Err(self.bad("it has vanished"));
            }
            let Some((next, size)) = batch else { return Ok(None) };
            if next > offset {
                return Ok(Some(self));
            }
            if self.position - begin > interval_bytes {
                // This batch must have an entry, and would have been begun with.
                self.reader.segment.note_wrong_index();
            }
            self.advance(size, next);
        }
    }

    /// Makes the window hold at least `bytes`, if there are as many before the end.
    fn look(&mut self, bytes: u64) -> Result<(), Bad> {
        if self.window.len() as u64 >= bytes {
            return Ok(());
        }
        let needed = self.position + bytes;
        if needed > self.end {
            return Err(self.bad("a batch goes beyond the end of its segment"));
        }
        if !self.lease.is_intact() {
            return Err(self.bad("it has vanished"));
        }
        let end = (self.position + bytes.max(self.window_bytes)).min(self.end);
        // A read that has begun in the map goes on in it: what is handed out of it must have been looked at there.
        let is_mapped = self.lease.is_of_map();
        let slice = |end: u64| match self.reader.segment {
            segment if is_mapped => segment.slice(self.position..end),
            segment => segment.window(self.position..end),
        };
        let window = match slice(end) {
            // What is wrong may lie beyond what is needed here.
            Err(_) if needed < end => slice(needed),
            window => window,
        };
        let Slice { bytes, lease } = window.map_err(|error| {
            let mut bad = self.bad("it cannot be read");
            bad.error = Some(error);
            bad
        })?;
        self.looked_at = bytes.len();
        (self.window, self.lease) = (bytes, lease);
        Ok(())
    }

    /// To be asked before anything is made of what has been seen: it may not have been there.
    fn confirm(&self) -> Result<(), SegmentError> {
        if self.lease.is_intact() { Ok(()) } else { Err(self.reader.segment.vanished()) }
    }

    fn bad(&self, detail: &str) -> Bad {
        let has_vanished = !self.lease.is_intact();
        Bad { due: self.due, position: self.position, detail: detail.to_owned(), error: None, has_vanished }
    }
}

/// The first of `records` from `from` on that is not older than `timestamp_ms`.
fn first_at<'r>(
    records: impl Iterator<Item = Result<RecordView<'r>, record::BatchError>>,
    timestamp_ms: i64,
    from: Offset,
) -> Result<Option<TimestampedOffset>, record::BatchError> {
    for record in records {
        let RecordView { offset, timestamp_ms: at_ms, .. } = record?;
        if at_ms >= timestamp_ms && offset >= from {
            return Ok(Some(TimestampedOffset { offset, timestamp_ms: at_ms }));
        }
    }
    Ok(None)
}

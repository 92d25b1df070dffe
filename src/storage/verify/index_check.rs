//! Holds the entries of an index against the batches of its log, in one pass over both.

use std::io;
use std::path::Path;

use super::super::fs::Fs;
use super::super::index::{Entry, EntryReader, OffsetEntry, TimeEntry};
use crate::record::BatchView;
use crate::types::Offset;

/// One batch, as far as an index knows of it.
#[derive(Debug, Clone, Copy)]
struct Seen {
    relative_offset: i64,
    position: u64,
    max_timestamp_ms: i64,
    /// No batch before it in the segment has so large a timestamp.
    is_newest: bool,
}

/// How entries of one kind speak of batches.
trait Claim: Entry + std::fmt::Debug {
    /// Whether the entry is about a batch that comes before this one, or should have.
    fn is_before(self, seen: Seen) -> bool;
    /// Whether it is about this one, and true.
    fn is_true(self, seen: Seen) -> bool;
    /// Whether it comes after `before` as entries should.
    fn ascends(self, before: Self) -> bool;
}

impl Claim for OffsetEntry {
    fn is_before(self, seen: Seen) -> bool {
        u64::from(self.position) < seen.position
    }
    fn is_true(self, seen: Seen) -> bool {
        u64::from(self.position) == seen.position && i64::from(self.relative_offset) == seen.relative_offset
    }
    fn ascends(self, before: Self) -> bool {
        self.position > before.position && self.relative_offset > before.relative_offset
    }
}

impl Claim for TimeEntry {
    fn is_before(self, seen: Seen) -> bool {
        i64::from(self.relative_offset) < seen.relative_offset
    }
    fn is_true(self, seen: Seen) -> bool {
        i64::from(self.relative_offset) == seen.relative_offset
            && self.timestamp_ms == seen.max_timestamp_ms
            && seen.is_newest
    }
    fn ascends(self, before: Self) -> bool {
        self.timestamp_ms > before.timestamp_ms && self.relative_offset > before.relative_offset
    }
}

/// One index file during the pass.
struct OneIndex<E> {
    /// `None` if there is no file.
    entries: Option<EntryReader<E>>,
    /// The entry that has not been held against its batch yet.
    waiting: Option<E>,
    last: Option<E>,
    /// Entries that were looked at.
    count: u64,
    /// The first entry that is wrong, in words.
    wrong: Option<String>,
}

impl<E: Claim> OneIndex<E> {
    fn open(fs: &dyn Fs, path: &Path) -> io::Result<Self> {
        let entries = EntryReader::open(fs, path)?;
        let mut index = Self { entries, waiting: None, last: None, count: 0, wrong: None };
        index.advance()?;
        Ok(index)
    }

    fn advance(&mut self) -> io::Result<()> {
        let next = match &mut self.entries {
            Some(entries) => entries.next()?,
            None => None,
        };
        if let (Some(next), Some(last)) = (next, self.last)
            && !next.ascends(last)
        {
            self.say(|| format!("{next:?} after {last:?}"));
        }
        self.last = next.or(self.last);
        self.count += u64::from(next.is_some());
        self.waiting = next;
        Ok(())
    }

    fn say(&mut self, wrong: impl FnOnce() -> String) {
        let number = self.count;
        self.wrong.get_or_insert_with(|| format!("entry {number}: {}", wrong()));
    }

    fn batch(&mut self, seen: Seen) -> io::Result<()> {
        while let Some(entry) = self.waiting {
            if entry.is_true(seen) {
                return self.advance();
            }
            if !entry.is_before(seen) && !Self::is_here(entry, seen) {
                return Ok(());
            }
            self.say(|| format!("{entry:?}, which is true of no batch"));
            self.advance()?;
        }
        Ok(())
    }

    /// Speaks of this very batch.
    fn is_here(entry: E, seen: Seen) -> bool {
        let next = Seen { relative_offset: seen.relative_offset + 1, position: seen.position + 1, ..seen };
        entry.is_before(next)
    }

    /// Passes over what is said of a part of the log that cannot be read.
    fn pass(&mut self, up_to: Seen) -> io::Result<()> {
        while self.waiting.is_some_and(|entry| entry.is_before(up_to)) {
            self.advance()?;
        }
        Ok(())
    }

    /// What is wrong, if anything. `due` entries are known to have been written; with `is_complete`, no others.
    fn finish(mut self, due: u64, is_complete: bool) -> io::Result<Option<String>> {
        while let Some(entry) = self.waiting {
            self.say(|| format!("{entry:?}, which lies beyond the end of the log"));
            self.advance()?;
        }
        let Some(entries) = &self.entries else {
            return Ok((due > 0).then(|| "there is no such file".to_owned()));
        };
        let trailing = entries.trailing_bytes();
        Ok(self.wrong.or_else(|| match (self.count, trailing) {
            (count, _) if count < due => Some(format!("it ends after {count} entries")),
            (count, _) if is_complete && count > due => Some(format!("it has {count} entries")),
            (_, trailing) if trailing > 0 => Some(format!("{trailing} bytes behind its last entry")),
            _ => None,
        }))
    }
}

/// Both indexes of one segment.
pub(super) struct IndexCheck {
    base: Offset,
    offsets: OneIndex<OffsetEntry>,
    times: OneIndex<TimeEntry>,
    max_timestamp_ms: Option<i64>,
}

/// How many entries of each kind must be there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EntriesDue {
    pub(super) offsets: u64,
    pub(super) times: u64,
    /// And no more.
    pub(super) is_complete: bool,
}

impl IndexCheck {
    pub(super) fn open(fs: &dyn Fs, offsets: &Path, times: &Path, base: Offset) -> io::Result<Self> {
        Ok(Self {
            base,
            offsets: OneIndex::open(fs, offsets)?,
            times: OneIndex::open(fs, times)?,
            max_timestamp_ms: None,
        })
    }

    /// The next whole batch of the segment.
    pub(super) fn batch(&mut self, batch: &BatchView<'_>, position: u64) -> io::Result<()> {
        let timestamp_ms = batch.max_timestamp();
        let is_newest = self.max_timestamp_ms.is_none_or(|max| timestamp_ms > max);
        let seen = Seen {
            relative_offset: batch.last_offset().get() - self.base.get(),
            position,
            max_timestamp_ms: timestamp_ms,
            is_newest,
        };
        if is_newest {
            self.max_timestamp_ms = Some(timestamp_ms);
        }
        self.offsets.batch(seen)?;
        self.times.batch(seen)
    }

    /// There is nothing to hold entries against up to this place and offset.
    pub(super) fn pass(&mut self, position: u64, next: Offset) -> io::Result<()> {
        let up_to = Seen {
            relative_offset: next.get() - self.base.get(),
            position,
            max_timestamp_ms: 0,
            is_newest: false,
        };
        self.offsets.pass(up_to)?;
        self.times.pass(up_to)
    }

    /// The largest timestamp of the batches.
    pub(super) fn max_timestamp_ms(&self) -> Option<i64> {
        self.max_timestamp_ms
    }

    /// What is wrong with the offset index and with the time index, if anything.
    pub(super) fn finish(self, due: EntriesDue) -> io::Result<[Option<String>; 2]> {
        let EntriesDue { offsets, times, is_complete } = due;
        Ok([self.offsets.finish(offsets, is_complete)?, self.times.finish(times, is_complete)?])
    }
}

//! One segment of a log: its files, how far readers may see into it, and what is known of them. Reading from it is
//! [`super::segment_reader`]'s.
//!
//! The log's writer appends to the newest segment through its own descriptor; everybody reads through maps, which are
//! made at the first read and let go when more segments are open than the budget allows. But what is not in memory, and
//! nobody has read yet, comes past the page cache: see [`Segment::window`].

use std::io;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::damage::{Damage, Damages};
use super::fs::{Fs, OpenHow};
use super::index::{Entry, FileEntries, OffsetEntry, SegmentIndex, Unflushed};
use super::mmap::{Lease, Map};
use super::open_segments::{OpenPermit, OpenSegments};
use super::read_ends::ReadEnds;
use super::seals::{BLOCK_BYTES, Seal};
use crate::record::BatchView;
use crate::types::Offset;

/// The name of a segment's file, as Kafka's: its base offset in 20 digits.
pub(super) fn file_name(base: Offset, extension: &str) -> String {
    format!("{:020}.{extension}", base.get())
}

/// The base offset and the extension of the name of a segment's file, of whatever kind.
pub(super) fn parse_file_name(name: &str) -> Option<(Offset, &str)> {
    let (digits, extension) = name.split_once('.')?;
    let valid = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    let base = if valid { digits.parse().ok().and_then(Offset::new) } else { None };
    base.map(|base| (base, extension))
}

/// The base offset of a log file's name.
pub(super) fn parse_log_name(name: &str) -> Option<Offset> {
    parse_name(name, "log")
}

/// The offset in a [`file_name`] with this extension.
pub(super) fn parse_name(name: &str, extension: &str) -> Option<Offset> {
    parse_file_name(name).filter(|(_, found)| *found == extension).map(|(base, _)| base)
}

/// Why a segment cannot be read at some place.
#[derive(Debug)]
pub(super) enum SegmentError {
    /// The file system did not do it.
    Io { path: PathBuf, source: io::Error },
    /// What stands there is not what was written.
    Damaged(Damage),
}

/// A segment, shared by the log's writer and all readers.
#[derive(Debug)]
pub(super) struct Segment {
    fs: Arc<dyn Fs>,
    dir: Arc<Path>,
    base: Offset,
    /// Readers see the first so many bytes.
    visible_bytes: AtomicU64,
    index: RwLock<SegmentIndex>,
    /// An index has been found to disagree with the log.
    index_is_wrong: AtomicBool,
    /// Until it is sealed: a part of which every batch has been checked since the start.
    checked: Mutex<Range<u64>>,
    damages: Damages,
    /// Set once the segment is complete and in the manifest.
    sealed: OnceLock<Sealed>,
    open: Mutex<Option<Arc<OpenSegment>>>,
    pool: Arc<OpenSegments>,
    /// How much of the file to map while it still grows.
    map_bytes: u64,
}

#[derive(Debug)]
struct Sealed {
    seal: Seal,
    /// One a block, since the start.
    blocks: Box<[AtomicU8]>,
}

/// What is known of a block of a sealed segment.
const UNKNOWN: u8 = 0;
/// Its checksum is right: every byte is as it was written.
const RIGHT: u8 = 1;
/// Its checksum is wrong.
const WRONG: u8 = 2;
/// Some of it has been read past the page cache, and its checksum was not asked.
const PASSED: u8 = 3;

/// What may be read past the page cache at a time. Of less, the next read would come to the same block; more would be too
/// much memory, and hold a file permit too long.
pub(super) const UNCACHED_BYTES: RangeInclusive<u64> = BLOCK_BYTES..=8 * BLOCK_BYTES;

/// The maps of a segment in use.
#[derive(Debug)]
struct OpenSegment {
    log: Arc<dyn Map>,
    /// The part of the offset index that is only in its file.
    index: FileEntries,
    index_lease: Lease,
    read_ends: ReadEnds,
}

impl OpenSegment {
    fn is_intact(&self) -> bool {
        !self.log.has_failed() && self.index_lease.is_intact()
    }
}

/// A part of the log, lent out of its map.
pub(super) struct Slice {
    pub(super) bytes: Bytes,
    pub(super) lease: Lease,
}

impl Segment {
    /// A segment whose log has `visible_bytes` and whose indexes are `index`; `segment_bytes` is its usual limit.
    pub(super) fn new(
        fs: Arc<dyn Fs>,
        dir: Arc<Path>,
        base: Offset,
        visible_bytes: u64,
        index: SegmentIndex,
        segment_bytes: u32,
        pool: Arc<OpenSegments>,
    ) -> Self {
        Self {
            fs,
            dir,
            base,
            visible_bytes: AtomicU64::new(visible_bytes),
            index: RwLock::new(index),
            index_is_wrong: AtomicBool::new(false),
            checked: Mutex::new(0..0),
            damages: Damages::default(),
            sealed: OnceLock::new(),
            open: Mutex::new(None),
            pool,
            map_bytes: u64::from(segment_bytes),
        }
    }

    /// The first offset it can have.
    pub(super) fn base(&self) -> Offset {
        self.base
    }

    /// The path of its log file.
    pub(super) fn log_path(&self) -> PathBuf {
        self.path("log")
    }

    /// The path of one of its files.
    pub(super) fn path(&self, extension: &str) -> PathBuf {
        self.dir.join(file_name(self.base, extension))
    }

    /// How many bytes readers see.
    pub(super) fn visible_bytes(&self) -> u64 {
        self.visible_bytes.load(Ordering::Acquire)
    }

    /// Lets readers see the first `bytes`; never fewer than before. They do not change any more.
    pub(super) fn set_visible_bytes(&self, bytes: u64) {
        self.visible_bytes.fetch_max(bytes, Ordering::Release);
    }

    /// What `flushed` held is in the index files and synced: readers find it there from now on.
    pub(super) fn forget_index(&self, flushed: &Unflushed) {
        self.index.write().forget(flushed);
        // In this order: the next maps have all that has left the memory.
        self.close();
    }

    /// Its indexes.
    pub(super) fn index(&self) -> &RwLock<SegmentIndex> {
        &self.index
    }

    /// Somebody has found an index to disagree with the log.
    pub(super) fn note_wrong_index(&self) {
        self.index_is_wrong.store(true, Ordering::Relaxed);
    }

    /// Whether an index has been found wrong since this was last asked.
    pub(super) fn take_wrong_index(&self) -> bool {
        self.index_is_wrong.load(Ordering::Relaxed) && self.index_is_wrong.swap(false, Ordering::Relaxed)
    }

    /// What is known to be unreadable.
    pub(super) fn damages(&self) -> &Damages {
        &self.damages
    }

    /// Waits until one file more may be open for reading. Whoever has this right must neither ask for another nor close
    /// the maps.
    pub(super) fn permit(&self) -> OpenPermit<'_> {
        self.pool.permit()
    }

    /// The files are reached through it.
    pub(super) fn fs(&self) -> &dyn Fs {
        &*self.fs
    }

    /// Where its files are.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// It is complete, and the manifest says so.
    pub(super) fn set_sealed(&self, seal: Seal) {
        let blocks = seal.block_crcs.iter().map(|_| AtomicU8::new(UNKNOWN)).collect();
        // Sealed twice is the same seal.
        let _ = self.sealed.set(Sealed { seal, blocks });
        self.close();
    }

    /// What the manifest says of it.
    pub(super) fn seal(&self) -> Option<&Seal> {
        self.sealed.get().map(|sealed| &sealed.seal)
    }

    /// The largest timestamp of its records.
    pub(super) fn max_timestamp_ms(&self) -> Option<i64> {
        match self.seal() {
            Some(seal) => seal.max_timestamp_ms,
            None => self.index.read().newest().map(|newest| newest.timestamp_ms),
        }
    }

    /// Lets go of the maps; readers that use them keep them a little longer.
    pub(super) fn close(&self) {
        *self.open.lock() = None;
    }

    /// The maps, made now if need be, with at least `end` bytes of the log.
    fn open(self: &Arc<Self>, end: u64) -> Result<Arc<OpenSegment>, SegmentError> {
        let mut slot = self.open.lock();
        if let Some(open) = slot.as_ref()
            && open.log.len() >= end
            && open.is_intact()
        {
            return Ok(Arc::clone(open));
        }
        let map_bytes = self.seal().map_or(end.max(self.map_bytes), |seal| seal.len);
        let path = self.log_path();
        let permit = self.pool.permit();
        let log = (|| self.fs.open(&path, OpenHow::Read)?.map(map_bytes))()
            .map_err(|source| SegmentError::Io { path, source })?;
        let (index, index_lease) = self.map_index();
        drop(permit);
        let open = Arc::new(OpenSegment { log, index, index_lease, read_ends: ReadEnds::default() });
        *slot = Some(Arc::clone(&open));
        drop(slot);
        self.pool.opened(self);
        Ok(open)
    }

    /// The part of the offset index that is only in the file; nothing if that is not all there, since an index is
    /// only a hint.
    fn map_index(&self) -> (FileEntries, Lease) {
        let len = self.index.read().offsets.in_file() * OffsetEntry::BYTES;
        let map = || {
            let map = self.fs.open(&self.path("index"), OpenHow::Read)?.map(len)?;
            let lease = Lease::of(&map);
            Ok::<_, io::Error>((FileEntries(map.slice(0..len)?), lease))
        };
        let nothing = || (FileEntries(Bytes::new()), Lease::default());
        if len == 0 {
            return nothing();
        }
        map().unwrap_or_else(|error| {
            tracing::warn!(path = %self.path("index").display(), %error, "offset index is not usable");
            nothing()
        })
    }

    /// A range of the log, which readers may see, as it is.
    pub(super) fn slice(self: &Arc<Self>, range: Range<u64>) -> Result<Slice, SegmentError> {
        let (open, path) = (self.open(range.end)?, self.log_path());
        let slice = Arc::clone(&open.log).slice(range.clone());
        // A file that was cut shows zeros up to the end of a page, which nothing else tells. A deleted one is all there.
        if let Ok(Some(len)) = self.fs.file_len(&path)
            && len < range.end
        {
            let detail = format!("the file has {len} bytes; at least {} were written", range.end);
            let source = io::Error::new(io::ErrorKind::UnexpectedEof, detail);
            return Err(SegmentError::Io { path, source });
        }
        let bytes = slice.map_err(|source| SegmentError::Io { path, source })?;
        Ok(Slice { bytes, lease: Lease::of(&open.log) })
    }

    /// As [`Segment::slice`], for who checks each batch in it. Of a sealed segment, what nobody has read since the start and
    /// is not in memory comes past the page cache: mostly it is not read again, and would only take the place of what is.
    /// What is read again stays. The newest segment is not read so: its writer would wait for each such read.
    pub(super) fn window(self: &Arc<Self>, range: Range<u64>) -> Result<Slice, SegmentError> {
        let is_long = UNCACHED_BYTES.contains(&(range.end - range.start));
        if is_long && self.is_unread(&range) && !self.is_in_memory(&range)? {
            let permit = self.pool.permit();
            let read = self.fs.read_uncached(&self.log_path(), range.clone());
            drop(permit);
            if let Some(bytes) = read {
                self.note_passed(&range);
                return Ok(Slice { bytes, lease: Lease::default() });
            }
        }
        self.slice(range)
    }

    fn is_in_memory(self: &Arc<Self>, range: &Range<u64>) -> Result<bool, SegmentError> {
        Ok(Arc::clone(&self.open(range.end)?.log).slice_in_memory(range.clone()).is_some())
    }

    /// Whether nobody has come to the last block of a range since the segment was sealed, or the start.
    fn is_unread(&self, range: &Range<u64>) -> bool {
        let Some(Sealed { blocks, .. }) = self.sealed.get() else { return false };
        let last = blocks.get((range.end.saturating_sub(1) / BLOCK_BYTES) as usize);
        last.is_some_and(|block| block.load(Ordering::Relaxed) == UNKNOWN)
    }

    /// A range has been read past the page cache.
    fn note_passed(&self, range: &Range<u64>) {
        let Some(Sealed { blocks, .. }) = self.sealed.get() else { return };
        let end = range.end.div_ceil(BLOCK_BYTES) as usize;
        for block in blocks.iter().take(end).skip((range.start / BLOCK_BYTES) as usize) {
            // What is known of it otherwise is more.
            let _ = block.compare_exchange(UNKNOWN, PASSED, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// As [`Segment::slice`], without waiting for the disk: `None` where the range is not mapped, or not all in memory.
    pub(super) fn slice_in_memory(self: &Arc<Self>, range: Range<u64>) -> Option<Slice> {
        let open = self.open_now()?;
        let bytes = Arc::clone(&open.log).slice_in_memory(range.clone())?;
        // As for any slice. The path of a mapped file is in memory.
        let is_whole =
            self.fs.file_len(&self.log_path()).is_ok_and(|len| len.is_none_or(|len| len >= range.end));
        (is_whole && open.is_intact()).then(|| Slice { bytes, lease: Lease::of(&open.log) })
    }

    /// The maps, if they are there and nobody is making them.
    fn open_now(&self) -> Option<Arc<OpenSegment>> {
        self.open.try_lock()?.clone()
    }

    /// Where the batch that begins with `offset` lies, if it is the first one, or a read has ended before it.
    pub(super) fn read_end(&self, offset: Offset) -> Option<u64> {
        if offset == self.base { Some(0) } else { self.open_now()?.read_ends.position(offset) }
    }

    /// A read that began with offset `from` has ended where the batch with `next` begins.
    pub(super) fn note_read(&self, from: Offset, next: Offset, position: u64) {
        if let Some(open) = self.open_now() {
            open.read_ends.note(from, next, position);
        }
    }

    /// What was made of bytes that have vanished meanwhile counts for nothing; the next read maps the file anew.
    pub(super) fn vanished(&self) -> SegmentError {
        let source = io::Error::other("the file was cut, or became unreadable, while it was read");
        SegmentError::Io { path: self.log_path(), source }
    }

    /// Every batch in a range has been checked.
    pub(super) fn note_checked(&self, range: &Range<u64>) {
        if self.sealed.get().is_some() {
            return;
        }
        let mut checked = self.checked.lock();
        if checked.start <= range.end && range.start <= checked.end {
            *checked = checked.start.min(range.start)..checked.end.max(range.end);
        } else if range.end - range.start > checked.end - checked.start || range.start < checked.start {
            *checked = range.clone();
        }
    }

    /// How far from `position` on everything has been found to be as it was written, since the start, and need not be
    /// looked at while it stays in memory.
    pub(super) fn verified_end(&self, position: u64) -> u64 {
        let Some(Sealed { seal, blocks }) = self.sealed.get() else {
            let checked = self.checked.lock();
            return if checked.contains(&position) { checked.end } else { position };
        };
        let first = position / BLOCK_BYTES;
        let right = blocks.iter().skip(first as usize);
        let count = right.take_while(|block| block.load(Ordering::Relaxed) == RIGHT).count() as u64;
        ((first + count) * BLOCK_BYTES).clamp(position, seal.len.max(position))
    }

    /// Whether every byte of a range is known to be as it was written: its blocks are those of a sealed segment, and
    /// their checksums, computed at the first use of each, are right. Of one that is not sealed nothing is: what has been
    /// checked may have come from the disk again since.
    pub(super) fn is_verified(self: &Arc<Self>, range: &Range<u64>) -> bool {
        let Some(Sealed { seal, blocks }) = self.sealed.get() else { return false };
        (range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES)).all(|number| {
            let (at, position) = (number as usize, number * BLOCK_BYTES);
            let (Some(block), Some(crc)) = (blocks.get(at), seal.block_crcs.get(at)) else { return false };
            match block.load(Ordering::Relaxed) {
                RIGHT => true,
                WRONG => false,
                _ => {
                    let slice = self.slice(position..(position + BLOCK_BYTES).min(seal.len));
                    let Ok(Slice { bytes, lease }) = slice else { return false };
                    let is_right = crc32fast::hash(&bytes) == *crc;
                    if !lease.is_intact() {
                        return false;
                    }
                    if !is_right {
                        tracing::warn!(path = %self.log_path().display(), block = number, "a damaged block");
                    }
                    block.store(if is_right { RIGHT } else { WRONG }, Ordering::Relaxed);
                    is_right
                }
            }
        })
    }

    /// Places to look for `offset` from, by the index: the last two entries at or before it.
    pub(super) fn entries_before(
        self: &Arc<Self>,
        offset: Offset,
    ) -> Result<[Option<OffsetEntry>; 2], SegmentError> {
        let relative = offset.get().saturating_sub(self.base.get());
        let before = |entry: OffsetEntry| i64::from(entry.relative_offset) <= relative;
        let mut found = [None, None];
        {
            let index = self.index.read();
            let recent = index.offsets.recent();
            let count = recent.partition_point(|entry| before(*entry));
            for (found, entry) in found.iter_mut().zip(recent.iter().take(count).rev()) {
                *found = Some(*entry);
            }
            if found[1].is_some() || index.offsets.in_file() == 0 {
                return Ok(found);
            }
        }
        let open = self.open(self.visible_bytes())?;
        let count = open.index.partition_point(before);
        let mut in_file = (0..count).rev().filter_map(|i| open.index.get(i));
        for found in found.iter_mut().filter(|found| found.is_none()) {
            *found = in_file.next();
        }
        if open.index_lease.is_intact() { Ok(found) } else { Err(self.vanished()) }
    }
}

/// The index entry of a batch that lies at `position` of the segment that begins with `base`.
pub(super) fn offset_entry(base: Offset, batch: &BatchView<'_>, position: u64) -> OffsetEntry {
    OffsetEntry {
        relative_offset: (batch.last_offset().get() - base.get()) as u32,
        position: position as u32,
    }
}

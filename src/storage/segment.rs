//! One segment of a log: its files, how far readers may see into it, and reading from it.
//!
//! The log's writer appends to the newest segment through its own descriptor; everybody reads through maps, which are
//! made at the first read and let go when more segments are open than the budget allows.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::fs::{Fs, OpenHow, read_whole};
use super::index::{Entry, FileEntries, OffsetEntry, SegmentIndex, TimeEntry, Unflushed};
use super::mmap::Map;
use super::open_segments::OpenSegments;
use super::seals::{BLOCK_BYTES, Seal};
use super::types::{ReadBatches, TimestampedOffset};
use crate::record::{self, BatchView};
use crate::types::Offset;

/// The least that is looked at at a time while batches are skipped.
const WINDOW_BYTES: u64 = 64 << 10;

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
    parse_file_name(name).filter(|(_, extension)| *extension == "log").map(|(base, _)| base)
}

/// Why a segment cannot be read at some place.
#[derive(Debug)]
pub(super) enum SegmentError {
    /// The file system did not do it.
    Io { path: PathBuf, source: io::Error },
    /// What stands there is not what was written.
    Damaged { detail: String },
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
    /// One bit a block: its checksum has been found right since the start.
    verified: Box<[AtomicU64]>,
    /// The offset index has been looked through since the start.
    index_checked: AtomicBool,
}

/// The maps of a segment in use.
#[derive(Debug)]
struct OpenSegment {
    log: Arc<dyn Map>,
    /// The part of the offset index that is only in its file.
    index: FileEntries,
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

    /// It is complete, and the manifest says so.
    pub(super) fn set_sealed(&self, seal: Seal) {
        let words = seal.block_crcs.len().div_ceil(64);
        let verified = (0..words).map(|_| AtomicU64::new(0)).collect();
        // Sealed twice is the same seal.
        let index_checked = AtomicBool::new(false);
        let _ = self.sealed.set(Sealed { seal, verified, index_checked });
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
        {
            return Ok(Arc::clone(open));
        }
        let map_bytes = self.seal().map_or(end.max(self.map_bytes), |seal| seal.len);
        let path = self.log_path();
        let log = (|| self.fs.open(&path, OpenHow::Read)?.map(map_bytes))()
            .map_err(|source| SegmentError::Io { path, source })?;
        let index = self.map_index();
        let open = Arc::new(OpenSegment { log, index });
        *slot = Some(Arc::clone(&open));
        drop(slot);
        self.pool.opened(self);
        Ok(open)
    }

    /// The part of the offset index that is only in the file; nothing if that is not all there, since an index is
    /// only a hint.
    fn map_index(&self) -> FileEntries {
        let len = self.index.read().offsets.in_file() * OffsetEntry::BYTES;
        if len == 0 {
            return FileEntries(Bytes::new());
        }
        let bytes = (|| self.fs.open(&self.path("index"), OpenHow::Read)?.map(len)?.slice(0..len))();
        match bytes {
            Ok(bytes) => FileEntries(bytes),
            Err(error) => {
                tracing::warn!(path = %self.path("index").display(), %error, "offset index is not usable");
                FileEntries(Bytes::new())
            }
        }
    }

    /// A range of the log, which readers may see; blocks of a sealed segment are verified at their first use.
    pub(super) fn slice(self: &Arc<Self>, range: Range<u64>) -> Result<Bytes, SegmentError> {
        let open = self.open(range.end)?;
        self.verify_blocks(&open, &range)?;
        let slice = Arc::clone(&open.log).slice(range);
        slice.map_err(|source| SegmentError::Io { path: self.log_path(), source })
    }

    fn verify_blocks(&self, open: &OpenSegment, range: &Range<u64>) -> Result<(), SegmentError> {
        let Some(Sealed { seal, verified, .. }) = self.sealed.get() else { return Ok(()) };
        for block in range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES) {
            let (word, bit) = ((block / 64) as usize, 1 << (block % 64));
            let (Some(word), Some(crc)) = (verified.get(word), seal.block_crcs.get(block as usize)) else {
                return Err(SegmentError::Damaged {
                    detail: format!("block {block} is not in the manifest"),
                });
            };
            if word.load(Ordering::Relaxed) & bit != 0 {
                continue;
            }
            let bytes = Arc::clone(&open.log)
                .slice(block * BLOCK_BYTES..((block + 1) * BLOCK_BYTES).min(seal.len))
                .map_err(|source| SegmentError::Io { path: self.log_path(), source })?;
            if crc32fast::hash(&bytes) != *crc {
                let detail = format!("block {block} of {} has a wrong checksum", self.log_path().display());
                return Err(SegmentError::Damaged { detail });
            }
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Where a search for `offset` can begin: at a batch that begins at or before it, by the index.
    fn floor(self: &Arc<Self>, offset: Offset) -> Result<u64, SegmentError> {
        let relative = offset.get().saturating_sub(self.base.get());
        let before = |entry: OffsetEntry| i64::from(entry.relative_offset) <= relative;
        {
            let index = self.index.read();
            let recent = index.offsets.recent();
            if let Some(i) = recent.partition_point(|entry| before(*entry)).checked_sub(1) {
                return Ok(recent.get(i).map_or(0, |entry| u64::from(entry.position)));
            }
            if index.offsets.in_file() == 0 {
                return Ok(0);
            }
        }
        self.check_index()?;
        let open = self.open(self.visible_bytes())?;
        Ok(open.index.last_before(before).map_or(0, |entry| u64::from(entry.position)))
    }

    /// Looks through the offset index of a sealed segment at its first use: one that is missing, short, or does not
    /// ascend is made anew. Whether an entry is true shows when it is used.
    fn check_index(self: &Arc<Self>) -> Result<(), SegmentError> {
        let Some(sealed) = self.sealed.get() else { return Ok(()) };
        if sealed.index_checked.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let entries = read_whole(&*self.fs, &self.path("index")).ok().flatten().map(Bytes::from);
        let is_sound = entries.map(FileEntries).is_some_and(|entries| {
            let all: Vec<OffsetEntry> = entries.all().collect();
            entries.0.len() as u64 == u64::from(sealed.seal.index_entries) * OffsetEntry::BYTES
                && all.last().is_none_or(|last| u64::from(last.position) < sealed.seal.len)
                && all.is_sorted_by(|a, b| a.relative_offset < b.relative_offset && a.position < b.position)
        });
        if is_sound { Ok(()) } else { self.rebuild_index() }
    }

    /// Walks from the batch that holds `offset`, or the first one after it. `None` if there is none yet.
    fn walk_from(self: &Arc<Self>, offset: Offset, window: u64) -> Result<Option<Walk<'_>>, SegmentError> {
        let end = self.visible_bytes();
        let position = self.floor(offset)?;
        match Walk::new(self, position, end, window).find(offset) {
            Ok(None) | Err(_) if position > 0 => {}
            found => return found,
        }
        // The index misled, or the log is damaged there: the log itself tells which.
        let found = Walk::new(self, 0, end, WINDOW_BYTES).find(offset)?;
        if found.is_some() {
            tracing::warn!(path = %self.path("index").display(), %offset, "offset index disagrees with its log");
            if self.seal().is_some() {
                self.rebuild_index()?;
            }
        }
        Ok(found)
    }

    /// Whole batches from the one that holds `offset` on, at least one, then up to `max_bytes`; `None` if there is
    /// none at or after it that readers may see. Nothing at or beyond `below` is returned.
    pub(super) fn read(
        self: &Arc<Self>,
        offset: Offset,
        below: Offset,
        max_bytes: u64,
    ) -> Result<Option<ReadBatches>, SegmentError> {
        let Some(mut walk) = self.walk_from(offset, max_bytes.max(WINDOW_BYTES))? else { return Ok(None) };
        let begin = walk.position;
        let (mut end, mut next_offset) = (begin, offset);
        loop {
            let batch = match walk.batch() {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                // What comes before is good. The next read begins here, and tells.
                Err(_) if end > begin => break,
                Err(error) => return Err(error),
            };
            let size = batch.size_bytes() as u64;
            if batch.last_offset() >= below || (end > begin && end + size - begin > max_bytes) {
                break;
            }
            end += size;
            next_offset = batch.next_offset();
            walk.advance(size);
            if end - begin >= max_bytes {
                break;
            }
        }
        if end == begin {
            return Ok(None);
        }
        Ok(Some(ReadBatches { chunks: vec![self.slice(begin..end)?], next_offset, size_bytes: end - begin }))
    }

    /// The first record at or after `timestamp_ms` below offset `below`.
    pub(super) fn find_timestamp(
        self: &Arc<Self>,
        timestamp_ms: i64,
        from: Offset,
        below: Offset,
        max_decompressed_bytes: u64,
    ) -> Result<Option<TimestampedOffset>, SegmentError> {
        let start = self.time_floor(timestamp_ms)?.max(from);
        let Some(mut walk) = self.walk_from(start, WINDOW_BYTES)? else { return Ok(None) };
        let damaged = |error: record::BatchError| SegmentError::Damaged {
            detail: format!("unreadable batch: {error}"),
        };
        let mut scratch = Vec::new();
        while let Some(batch) = walk.batch()? {
            if batch.last_offset() >= below {
                break;
            }
            if batch.max_timestamp() >= timestamp_ms {
                for record in batch.records(&mut scratch, max_decompressed_bytes).map_err(damaged)? {
                    let record = record.map_err(damaged)?;
                    if record.timestamp_ms >= timestamp_ms && record.offset >= from {
                        return Ok(Some(TimestampedOffset {
                            offset: record.offset,
                            timestamp_ms: record.timestamp_ms,
                        }));
                    }
                }
            }
            let size = batch.size_bytes() as u64;
            walk.advance(size);
        }
        Ok(None)
    }

    /// All records before the returned offset are older than `timestamp_ms`, by the time index.
    fn time_floor(self: &Arc<Self>, timestamp_ms: i64) -> Result<Offset, SegmentError> {
        let before = |entry: TimeEntry| entry.timestamp_ms < timestamp_ms;
        let in_file = {
            let index = self.index.read();
            let recent = index.times.recent();
            if let Some(i) = recent.partition_point(|entry| before(*entry)).checked_sub(1) {
                return Ok(recent.get(i).map_or(self.base, |entry| self.base.plus(entry.relative_offset)));
            }
            index.times.in_file()
        };
        let read = || {
            let mut bytes = vec![0; (in_file * TimeEntry::BYTES) as usize];
            self.fs.open(&self.path("timeindex"), OpenHow::Read)?.read_exact_at(&mut bytes, 0)?;
            Ok::<_, io::Error>(FileEntries(bytes.into()))
        };
        // Only a hint: without it the search begins at the start of the segment.
        let entry: Option<TimeEntry> = read().ok().and_then(|entries| entries.last_before(before));
        let Some(entry) = entry else { return Ok(self.base) };
        if self.has_entry(entry)? {
            return Ok(self.base.plus(entry.relative_offset));
        }
        // A complete segment has all that its index names; what is not published yet is not there either.
        if self.seal().is_some_and(|seal| seal.len == self.visible_bytes()) {
            tracing::warn!(path = %self.path("timeindex").display(), "time index disagrees with its log");
            self.rebuild_index()?;
        }
        Ok(self.base)
    }

    /// Whether the batch that ends with the entry's offset has its timestamp.
    fn has_entry(self: &Arc<Self>, entry: TimeEntry) -> Result<bool, SegmentError> {
        let last = self.base.plus(entry.relative_offset);
        let Some(mut walk) = self.walk_from(last, WINDOW_BYTES)? else { return Ok(false) };
        let batch = walk.batch()?;
        Ok(batch
            .is_some_and(|batch| batch.last_offset() == last && batch.max_timestamp() == entry.timestamp_ms))
    }

    /// Makes the indexes of a complete segment anew from its log.
    fn rebuild_index(self: &Arc<Self>) -> Result<(), SegmentError> {
        let mut index = self.index.read().same_interval();
        let mut walk = Walk::new(self, 0, self.visible_bytes(), WINDOW_BYTES);
        let mut position = 0;
        while let Some(batch) = walk.batch()? {
            let size = batch.size_bytes() as u64;
            index.add(offset_entry(self.base, &batch, position), size, batch.max_timestamp());
            position += size;
            walk.advance(size);
        }
        index.finish();
        let (offsets, times) = (self.path("index"), self.path("timeindex"));
        let (offsets_tmp, times_tmp) = (self.path("index.tmp"), self.path("timeindex.tmp"));
        let unflushed = index.unflushed();
        let replace = || {
            for file in unflushed.write(&*self.fs, &offsets_tmp, &times_tmp)? {
                file.sync()?;
            }
            self.fs.rename(&offsets_tmp, &offsets)?;
            self.fs.rename(&times_tmp, &times)?;
            self.fs.sync_dir(&self.dir)
        };
        replace().map_err(|source| SegmentError::Io { path: offsets.clone(), source })?;
        index.forget(&unflushed);
        *self.index.write() = index;
        self.close();
        tracing::info!(path = %offsets.display(), "rebuilt the indexes of a segment");
        Ok(())
    }
}

/// The index entry of a batch that lies at `position` of the segment that begins with `base`.
pub(super) fn offset_entry(base: Offset, batch: &BatchView<'_>, position: u64) -> OffsetEntry {
    OffsetEntry {
        relative_offset: (batch.last_offset().get() - base.get()) as u32,
        position: position as u32,
    }
}

/// Looks at one batch after the other without reading more than a window ahead.
struct Walk<'a> {
    segment: &'a Arc<Segment>,
    position: u64,
    end: u64,
    window_bytes: u64,
    /// The log from `position` on, as far as it has been looked at.
    window: Bytes,
}

impl<'a> Walk<'a> {
    fn new(segment: &'a Arc<Segment>, position: u64, end: u64, window_bytes: u64) -> Self {
        Self { segment, position, end, window_bytes, window: Bytes::new() }
    }

    /// The batch at the present place; `None` at the end.
    fn batch(&mut self) -> Result<Option<BatchView<'_>>, SegmentError> {
        if self.position >= self.end {
            return Ok(None);
        }
        self.look(record::HEADER_BYTES as u64)?;
        let size = record::frame_size(&self.window).ok_or_else(|| self.damaged("is not one"))?;
        self.look(size as u64)?;
        match BatchView::parse(&self.window) {
            Ok(batch) if batch.base_offset() >= self.segment.base => Ok(Some(batch)),
            Ok(_) => Err(self.damaged("has an offset below its segment's")),
            Err(error) => Err(self.damaged(&error.to_string())),
        }
    }

    /// Goes past the present batch.
    fn advance(&mut self, size: u64) {
        self.position += size;
        let seen = (size as usize).min(self.window.len());
        self.window = self.window.split_off(seen);
    }

    /// Goes on to the batch that holds `offset` or the first one after it.
    fn find(mut self, offset: Offset) -> Result<Option<Self>, SegmentError> {
        let mut first = true;
        loop {
            let Some(batch) = self.batch()? else { return Ok(None) };
            let (base, last, size) = (batch.base_offset(), batch.last_offset(), batch.size_bytes() as u64);
            if first && self.position > 0 && base > offset {
                return Err(self.damaged("begins after the offset that the index led to"));
            }
            if last >= offset {
                return Ok(Some(self));
            }
            first = false;
            self.advance(size);
        }
    }

    /// Makes the window hold at least `bytes`, if there are as many before the end.
    fn look(&mut self, bytes: u64) -> Result<(), SegmentError> {
        if self.window.len() as u64 >= bytes {
            return Ok(());
        }
        if self.position + bytes > self.end {
            return Err(self.damaged("goes beyond the end of its segment"));
        }
        let end = (self.position + bytes.max(self.window_bytes)).min(self.end);
        let needed = self.position + bytes;
        self.window = match self.segment.slice(self.position..end) {
            // What is wrong may lie beyond what is needed here.
            Err(_) if needed < end => self.segment.slice(self.position..needed)?,
            window => window?,
        };
        Ok(())
    }

    fn damaged(&self, what: &str) -> SegmentError {
        let path = self.segment.log_path();
        SegmentError::Damaged { detail: format!("batch at {} of {} {what}", self.position, path.display()) }
    }
}

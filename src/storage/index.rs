//! The offset index and the time index of one segment, in Kafka's formats, big-endian:
//!
//! ```text
//! .index      relative last offset u32 | position u32              the batch at `position` ends with that offset
//! .timeindex  largest timestamp so far i64 | relative offset u32   the batch that ends with that offset has it
//! ```
//! One entry every `index_interval_bytes` of log. Entries are appended in memory by the log's writer, and to the files
//! at a checkpoint and when the segment is sealed; from then on the files alone have them. An index is a hint:
//! whoever looks something up checks what stands in the log at that place.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::fs::{Fs, FsFile, OpenHow};

/// The size of an [`OffsetEntry`] in its file.
pub(super) const OFFSET_ENTRY_BYTES: u64 = 8;
/// The size of a [`TimeEntry`] in its file.
pub(super) const TIME_ENTRY_BYTES: u64 = 12;

/// Where a batch lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OffsetEntry {
    /// The last offset of the batch, less the segment's base offset.
    pub(super) relative_offset: u32,
    /// Where the batch begins in the log file.
    pub(super) position: u32,
}

/// The largest timestamp up to some place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeEntry {
    /// In ms since the Unix epoch.
    pub(super) timestamp_ms: i64,
    /// The last offset of the batch that has it, less the segment's base offset.
    pub(super) relative_offset: u32,
}

/// How an entry stands in its file.
pub(super) trait Entry: Copy {
    /// The size of one.
    const BYTES: u64;
    /// Appends one.
    fn encode(self, to: &mut Vec<u8>);
    /// Reads one from exactly its bytes.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

impl Entry for OffsetEntry {
    const BYTES: u64 = OFFSET_ENTRY_BYTES;

    fn encode(self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.relative_offset.to_be_bytes());
        to.extend_from_slice(&self.position.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (offset, position) = bytes.split_first_chunk::<4>()?;
        Some(Self {
            relative_offset: u32::from_be_bytes(*offset),
            position: u32::from_be_bytes(position.try_into().ok()?),
        })
    }
}

impl Entry for TimeEntry {
    const BYTES: u64 = TIME_ENTRY_BYTES;

    fn encode(self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.timestamp_ms.to_be_bytes());
        to.extend_from_slice(&self.relative_offset.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (timestamp, offset) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            timestamp_ms: i64::from_be_bytes(*timestamp),
            relative_offset: u32::from_be_bytes(offset.try_into().ok()?),
        })
    }
}

/// The entries of one kind: first those in the file, then those that are in memory.
#[derive(Debug)]
pub(super) struct Entries<E> {
    /// How many of the file's entries count, before those in `recent`.
    in_file: u64,
    /// Appended since the last flush.
    recent: Vec<E>,
}

impl<E: Entry> Entries<E> {
    /// Goes on after the first `in_file` entries of the file.
    pub(super) fn after(in_file: u64) -> Self {
        Self { in_file, recent: Vec::new() }
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.in_file + self.recent.len() as u64
    }

    /// How many are only in the file.
    pub(super) fn in_file(&self) -> u64 {
        self.in_file
    }

    /// Those appended since the last flush.
    pub(super) fn recent(&self) -> &[E] {
        &self.recent
    }

    /// Appends one.
    pub(super) fn push(&mut self, entry: E) {
        self.recent.push(entry);
    }

    /// What is not in the file yet: where it goes, its bytes, and how many entries there are then.
    fn unflushed(&self) -> (u64, Vec<u8>, usize) {
        let mut bytes = Vec::with_capacity(self.recent.len() * E::BYTES as usize);
        for entry in &self.recent {
            entry.encode(&mut bytes);
        }
        (self.in_file * E::BYTES, bytes, self.recent.len())
    }

    /// Nothing in the file counts any more: what comes before the entries in memory is that of `rebuilt`.
    fn take_back(&mut self, mut rebuilt: Vec<E>, place: impl Fn(&E) -> u32) {
        if let Some(first) = self.recent.first() {
            rebuilt.truncate(rebuilt.partition_point(|entry| place(entry) < place(first)));
        } else {
            rebuilt.truncate(self.in_file as usize);
        }
        rebuilt.append(&mut self.recent);
        (self.recent, self.in_file) = (rebuilt, 0);
    }

    /// The first `count` of those in memory are in the file and synced: they need not stay.
    fn forget(&mut self, count: usize) {
        let count = count.min(self.recent.len());
        self.in_file += count as u64;
        // A new vector, so that the memory goes too.
        self.recent = self.recent.split_off(count);
    }
}

/// Both indexes of one segment.
#[derive(Debug)]
pub(super) struct SegmentIndex {
    /// By offset.
    pub(super) offsets: Entries<OffsetEntry>,
    /// By time.
    pub(super) times: Entries<TimeEntry>,
    due: Due,
    /// How often the files' entries have been taken back: what was copied out before is not theirs any more.
    repairs: u32,
}

/// Decides where an entry is due, from the batches of a segment in their order: on appending, in recovery and in a
/// rebuild alike, so that all three give the same files.
#[derive(Debug, Clone, Copy)]
struct Due {
    interval_bytes: u32,
    /// Appended since the last entry.
    since_entry_bytes: u64,
    /// The largest timestamp so far, and the last offset of the first batch that has it.
    newest: Option<TimeEntry>,
    /// The timestamp of the last time entry.
    last_entry_ms: Option<i64>,
}

/// How far the indexes of a segment had come when it was last closed or checkpointed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct IndexResume {
    /// Entries in the offset index file.
    pub(super) offsets: u64,
    /// Entries in the time index file.
    pub(super) times: u64,
    /// The largest timestamp, and where it is.
    pub(super) newest: Option<TimeEntry>,
    /// The timestamp of the last time entry.
    pub(super) last_entry_ms: Option<i64>,
}

/// What a flush has to write, copied out so that no lock is held meanwhile.
#[derive(Debug)]
pub(super) struct Unflushed {
    offsets: (u64, Vec<u8>, usize),
    times: (u64, Vec<u8>, usize),
    repairs: u32,
}

impl SegmentIndex {
    /// For a segment with nothing in it: an entry every `interval_bytes`.
    pub(super) fn new(interval_bytes: u32) -> Self {
        let due = Due { interval_bytes, since_entry_bytes: 0, newest: None, last_entry_ms: None };
        Self { offsets: Entries::after(0), times: Entries::after(0), due, repairs: 0 }
    }

    /// For a segment with something in it, `since_entry_bytes` of it from the batch on that has the last entry.
    pub(super) fn resume(interval_bytes: u32, from: IndexResume, since_entry_bytes: u64) -> Self {
        let (newest, last_entry_ms) = (from.newest, from.last_entry_ms);
        let due = Due { interval_bytes, since_entry_bytes, newest, last_entry_ms };
        Self { offsets: Entries::after(from.offsets), times: Entries::after(from.times), due, repairs: 0 }
    }

    /// An empty one with the same interval.
    pub(super) fn same_interval(&self) -> Self {
        Self::new(self.due.interval_bytes)
    }

    /// How many bytes of log lie between two entries at most, but for the batch that the first of them is of.
    pub(super) fn interval_bytes(&self) -> u64 {
        u64::from(self.due.interval_bytes)
    }

    /// Takes the files' entries back into memory, from `rebuilt`, an index of the same batches and maybe more: what the
    /// files have is not to be believed.
    pub(super) fn take_back(&mut self, rebuilt: Self) {
        self.offsets.take_back(rebuilt.offsets.recent, |entry| entry.relative_offset);
        self.times.take_back(rebuilt.times.recent, |entry| entry.relative_offset);
        self.repairs += 1;
    }

    /// The next batch of the segment.
    pub(super) fn add(&mut self, entry: OffsetEntry, size_bytes: u64, max_timestamp_ms: i64) {
        if self.due.newest.is_none_or(|newest| max_timestamp_ms > newest.timestamp_ms) {
            self.due.newest =
                Some(TimeEntry { timestamp_ms: max_timestamp_ms, relative_offset: entry.relative_offset });
        }
        if self.due.since_entry_bytes > u64::from(self.due.interval_bytes) {
            self.offsets.push(entry);
            self.add_time();
            self.due.since_entry_bytes = 0;
        }
        self.due.since_entry_bytes += size_bytes;
    }

    /// The segment is complete: its largest timestamp gets the last entry, as in Kafka.
    pub(super) fn finish(&mut self) {
        self.add_time();
    }

    fn add_time(&mut self) {
        if let Some(newest) = self.due.newest
            && self.due.last_entry_ms.is_none_or(|last| newest.timestamp_ms > last)
        {
            self.times.push(newest);
            self.due.last_entry_ms = Some(newest.timestamp_ms);
        }
    }

    /// The largest timestamp so far.
    pub(super) fn newest(&self) -> Option<TimeEntry> {
        self.due.newest
    }

    /// What is needed to go on from here after the files are flushed.
    pub(super) fn to_resume(&self) -> IndexResume {
        IndexResume {
            offsets: self.offsets.len(),
            times: self.times.len(),
            newest: self.due.newest,
            last_entry_ms: self.due.last_entry_ms,
        }
    }

    /// The size the larger of the two files has, or will have when flushed.
    pub(super) fn size_bytes(&self) -> u64 {
        (self.offsets.len() * OFFSET_ENTRY_BYTES).max(self.times.len() * TIME_ENTRY_BYTES)
    }

    /// Whether the files have all.
    pub(super) fn is_flushed(&self) -> bool {
        self.offsets.recent.is_empty() && self.times.recent.is_empty()
    }

    /// What is not in the files yet.
    pub(super) fn unflushed(&self) -> Unflushed {
        Unflushed { offsets: self.offsets.unflushed(), times: self.times.unflushed(), repairs: self.repairs }
    }

    /// What `flushed` held is in the files and synced: it need not stay in memory. Maps of the offset index made
    /// before this do not have it.
    pub(super) fn forget(&mut self, flushed: &Unflushed) {
        if flushed.repairs != self.repairs {
            return;
        }
        self.offsets.forget(flushed.offsets.2);
        self.times.forget(flushed.times.2);
    }
}

impl Unflushed {
    /// Writes to both files, cutting what stood beyond. Returns the files, to be synced by the caller.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) fn write(
        &self,
        fs: &dyn Fs,
        offset_path: &Path,
        time_path: &Path,
    ) -> io::Result<[Arc<dyn FsFile>; 2]> {
        let write = |path: &Path, (position, bytes, _): &(u64, Vec<u8>, usize)| {
            let file = fs.open(path, OpenHow::Write)?;
            file.write_all_at(&[bytes], *position)?;
            file.set_len(position + bytes.len() as u64)?;
            Ok::<_, io::Error>(file)
        };
        Ok([write(offset_path, &self.offsets)?, write(time_path, &self.times)?])
    }
}

/// Reads the entries of a file one after the other, through a small buffer.
pub(super) struct EntryReader<E> {
    file: Arc<dyn FsFile>,
    file_len: u64,
    position: u64,
    /// Read and not handed out yet, the next entry last.
    ahead: Vec<E>,
}

impl<E: Entry> EntryReader<E> {
    /// How many entries are read at a time.
    const STEP: u64 = 4096;

    /// From the first one on; `None` if there is no file.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) fn open(fs: &dyn Fs, path: &Path) -> io::Result<Option<Self>> {
        let file = match fs.open(path, OpenHow::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let file_len = file.len()?;
        Ok(Some(Self { file, file_len, position: 0, ahead: Vec::new() }))
    }

    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) fn next(&mut self) -> io::Result<Option<E>> {
        if self.ahead.is_empty() {
            let whole = (self.file_len - self.position) / E::BYTES;
            let mut bytes = vec![0; (whole.min(Self::STEP) * E::BYTES) as usize];
            self.file.read_exact_at(&mut bytes, self.position)?;
            self.position += bytes.len() as u64;
            self.ahead = bytes.chunks_exact(E::BYTES as usize).rev().filter_map(E::decode).collect();
        }
        Ok(self.ahead.pop())
    }

    /// What is left behind the last whole entry.
    pub(super) fn trailing_bytes(&self) -> u64 {
        self.file_len % E::BYTES
    }
}

/// Entries as they stand in a file.
#[derive(Debug, Clone)]
pub(super) struct FileEntries(pub(super) Bytes);

impl FileEntries {
    /// Entry number `i`.
    pub(super) fn get<E: Entry>(&self, i: usize) -> Option<E> {
        let start = i.checked_mul(E::BYTES as usize)?;
        E::decode(self.0.get(start..start + E::BYTES as usize)?)
    }

    /// How many entries, from the first, `before` holds for; it must hold for a first part and for no later one.
    pub(super) fn partition_point<E: Entry>(&self, before: impl Fn(E) -> bool) -> usize {
        let (mut low, mut high) = (0, self.0.len() / E::BYTES as usize);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get::<E>(middle).is_some_and(&before) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The last entry that `before` holds for.
    pub(super) fn last_before<E: Entry>(&self, before: impl Fn(E) -> bool) -> Option<E> {
        self.get(self.partition_point(before).checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fs::RealFs;
    use super::*;

    #[test]
    fn the_formats_are_kafkas() {
        let mut bytes = Vec::new();
        OffsetEntry { relative_offset: 5, position: 0x0102_0304 }.encode(&mut bytes);
        TimeEntry { timestamp_ms: 0x1122, relative_offset: 7 }.encode(&mut bytes);
        assert_eq!(bytes, [0, 0, 0, 5, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0x11, 0x22, 0, 0, 0, 7]);
    }

    #[test]
    fn entries_are_found_in_the_file_as_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let (offset_path, time_path) = (dir.path().join("o"), dir.path().join("t"));
        let mut index = SegmentIndex::new(4096);
        for i in 0..100u32 {
            let entry = OffsetEntry { relative_offset: i * 10 + 9, position: i * 1500 };
            index.add(entry, 1500, i64::from(i / 10));
        }
        index.finish();
        // The first entry is due after more than 4096 bytes, then after every third batch.
        assert_eq!(index.offsets.recent()[0].position, 4500);
        assert_eq!(index.offsets.len(), 33);
        let unflushed = index.unflushed();
        unflushed.write(&RealFs, &offset_path, &time_path).unwrap();
        let written = index.offsets.recent().to_vec();
        index.forget(&unflushed);
        let file = FileEntries(std::fs::read(&offset_path).unwrap().into());
        assert!(index.offsets.recent().is_empty(), "what is in the file does not stay in memory");
        assert_eq!(index.offsets.len(), 33);
        for (i, entry) in written.iter().enumerate() {
            assert_eq!(file.get::<OffsetEntry>(i), Some(*entry));
        }
        let found = file.last_before::<OffsetEntry>(|entry| entry.relative_offset <= 555).unwrap();
        // Every third batch has an entry, each batch ten records: 549 is the last offset of batch 54.
        assert_eq!(found.relative_offset, 549);
        let times = FileEntries(std::fs::read(&time_path).unwrap().into());
        assert_eq!(times.get::<TimeEntry>(9).map(|entry| entry.timestamp_ms), Some(9));
        assert_eq!(times.get::<TimeEntry>(10), None);
        // Nothing is written twice.
        assert!(index.unflushed().offsets.1.is_empty());
    }

    #[test]
    fn entries_that_are_taken_back_from_a_rebuilt_index_are_there_once() {
        let of = |batches: std::ops::Range<u32>, index: &mut SegmentIndex| {
            for i in batches {
                let entry = OffsetEntry { relative_offset: i * 10 + 9, position: i * 1500 };
                index.add(entry, 1500, i64::from(i));
            }
        };
        let (mut index, mut rebuilt) = (SegmentIndex::new(1024), SegmentIndex::new(1024));
        of(0..10, &mut index);
        let unflushed = index.unflushed();
        index.forget(&unflushed);
        of(10..15, &mut index);
        of(0..20, &mut rebuilt);
        let expected = (rebuilt.offsets.recent()[..14].to_vec(), rebuilt.times.recent()[..14].to_vec());
        index.take_back(rebuilt);
        assert_eq!((index.offsets.recent().to_vec(), index.times.recent().to_vec()), expected);
        assert_eq!((index.offsets.in_file(), index.times.in_file()), (0, 0));
    }
}

//! What everybody but its writer sees of a log: how far it goes, its segments, and reading from them.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

use super::checkpoint::{Boundary, LogKey};
use super::damage::Damage;
use super::epochs::{self, LeaderEpochs};
use super::fs::Fs;
use super::producer_recovery::RecoveredProducers;
use super::producer_snapshot::{self, SnapshotFiles};
use super::producers::Producers;
use super::scan::Place;
use super::seals::Seal;
use super::segment::{Segment, SegmentError};
use super::segment_reader::SegmentReader;
use super::small_file;
use super::stats::Counters;
use super::tail_cache::Tail;
use super::types::{DurableListener, LogState, LogStatus, ReadBatches, ReadError, TimestampedOffset};
use crate::types::{LeaderEpoch, Offset, PartitionId, TopicName};

/// Whoever reads more than this at a time has a thread for it, even if it is in memory.
const READ_NOW_BYTES: u64 = 4 << 20;

/// A log as readers see it. Its offsets only move up, and only once what they describe is as durable as promised.
pub(super) struct LogView {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) dir: Arc<Path>,
    pub(super) topic: TopicName,
    pub(super) partition: PartitionId,
    pub(super) key: LogKey,
    pub(super) counters: Arc<Counters>,
    /// One past the last offset readers may see.
    durable: AtomicI64,
    log_start: AtomicI64,
    /// One past the last written offset.
    log_end: AtomicI64,
    /// By base offset; never empty. The last one is the active one.
    segments: RwLock<Vec<Arc<Segment>>>,
    pub(super) tail: Arc<Tail>,
    /// All up to here is on the disk.
    synced: Mutex<Boundary>,
    /// Where the log's slot is in the file of durable offsets.
    pub(super) slot: usize,
    pub(super) epochs: Mutex<LeaderEpochs>,
    /// As of the last append; ahead of what is written.
    pub(super) producers: Mutex<Producers>,
    /// The snapshot of producers that a checkpoint can name.
    named_snapshot: Mutex<Option<Offset>>,
    pub(super) snapshots: Mutex<SnapshotFiles>,
    /// Its end is lost from here on, in its last segment: so it takes no writes until somebody has accepted that.
    pub(super) lost: Option<Place>,
    /// Why it takes no writes any more.
    failed: OnceLock<Arc<str>>,
    closed: AtomicBool,
    /// Held while files in the directory are changed by their paths.
    changes: Mutex<()>,
    /// Written, and neither published nor failed yet.
    in_flight_bytes: AtomicU64,
    listener: Mutex<Option<DurableListener>>,
    /// The file of the newest segment has been read from since its writer last asked.
    lagging: AtomicBool,
}

impl std::fmt::Debug for LogView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogView")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("durable", &self.durable)
            .finish_non_exhaustive()
    }
}

/// What a log is made of when it is created or opened.
pub(super) struct LogParts {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) dir: Arc<Path>,
    pub(super) topic: TopicName,
    pub(super) partition: PartitionId,
    pub(super) key: LogKey,
    pub(super) counters: Arc<Counters>,
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) log_start: Offset,
    /// Its end.
    pub(super) end: Boundary,
    /// All up to here is known to be on the disk.
    pub(super) synced: Boundary,
    pub(super) epochs: LeaderEpochs,
    pub(super) producers: RecoveredProducers,
    pub(super) slot: usize,
    /// From where on its end is lost, if it is.
    pub(super) lost: Option<Place>,
}

/// The producers at a recovery point.
pub(super) enum ProducersAt {
    /// They are in a snapshot that is there, or there are none.
    Known(Option<Offset>),
    /// They are not in any snapshot yet; this is one of that offset.
    News(Offset, Vec<u8>),
}

impl LogView {
    pub(super) fn new(parts: LogParts) -> Self {
        let end = parts.end.mark.offset.get();
        Self {
            fs: parts.fs,
            dir: parts.dir,
            topic: parts.topic,
            partition: parts.partition,
            key: parts.key,
            counters: parts.counters,
            durable: AtomicI64::new(end),
            log_start: AtomicI64::new(parts.log_start.get()),
            log_end: AtomicI64::new(end),
            segments: RwLock::new(parts.segments),
            tail: Arc::new(Tail::default()),
            synced: Mutex::new(parts.synced),
            slot: parts.slot,
            epochs: Mutex::new(parts.epochs),
            producers: Mutex::new(parts.producers.producers),
            named_snapshot: Mutex::new(parts.producers.named),
            snapshots: Mutex::new(parts.producers.files),
            lost: parts.lost,
            failed: OnceLock::new(),
            closed: AtomicBool::new(false),
            changes: Mutex::new(()),
            in_flight_bytes: AtomicU64::new(0),
            listener: Mutex::new(None),
            lagging: AtomicBool::new(false),
        }
    }

    pub(super) fn durable_offset(&self) -> Offset {
        Offset::clamped(self.durable.load(Ordering::Acquire))
    }

    pub(super) fn log_start_offset(&self) -> Offset {
        Offset::clamped(self.log_start.load(Ordering::Acquire))
    }

    pub(super) fn log_end_offset(&self) -> Offset {
        Offset::clamped(self.log_end.load(Ordering::Acquire))
    }

    /// Called by the log's writer only.
    pub(super) fn set_log_end(&self, end: Offset) {
        self.log_end.store(end.get(), Ordering::Release);
    }

    /// Readers may see everything below `end`; the segments' visible bytes are set already. Tells the listener.
    pub(super) fn publish(&self, end: Offset) {
        if self.durable.fetch_max(end.get(), Ordering::AcqRel) < end.get()
            && let Some(listener) = self.listener.lock().as_ref()
        {
            listener(end);
        }
    }

    /// The new start is recorded.
    pub(super) fn set_log_start(&self, start: Offset) {
        self.log_start.fetch_max(start.get(), Ordering::AcqRel);
    }

    pub(super) fn synced(&self) -> Boundary {
        *self.synced.lock()
    }

    /// All up to `boundary` is on the disk.
    pub(super) fn set_synced(&self, boundary: Boundary) {
        let mut synced = self.synced.lock();
        if boundary.mark.offset >= synced.mark.offset {
            *synced = boundary;
        }
    }

    /// What is synced, with the producers there. `now_ms` is on the monotonic clock.
    pub(super) fn synced_with_producers(&self, now_ms: i64) -> (Boundary, ProducersAt) {
        // Under the lock, so that nothing that counts at this boundary has been forgotten for one further on.
        let producers = self.producers.lock();
        let synced = self.synced();
        let (at, named) = (synced.mark.offset, *self.named_snapshot.lock());
        let is_known = named == Some(at) || !producers.has_news_since(named);
        let producers = if is_known {
            ProducersAt::Known(named)
        } else {
            ProducersAt::News(at, producer_snapshot::encode(at, &producers.at(at, now_ms)))
        };
        (synced, producers)
    }

    /// A snapshot of producers is on the disk, with its name, and a checkpoint can name it.
    pub(super) fn name_snapshot(&self, offset: Offset) {
        self.snapshots.lock().add(offset);
        *self.named_snapshot.lock() = Some(offset);
    }

    pub(super) fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes.load(Ordering::Acquire)
    }

    pub(super) fn add_in_flight(&self, bytes: u64) {
        self.in_flight_bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(super) fn sub_in_flight(&self, bytes: u64) {
        self.in_flight_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// The log takes no writes any more; the first reason stays.
    pub(super) fn fail(&self, reason: &str) {
        if self.failed.set(reason.into()).is_ok() {
            tracing::error!(topic = %self.topic, partition = %self.partition, reason, "partition takes no more writes");
        }
    }

    pub(super) fn failure(&self) -> Option<Arc<str>> {
        self.failed.get().cloned()
    }

    /// Returns when no [`LogView::while_open`] is under way any more; there will be no other.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        drop(self.changes.lock());
        for segment in self.segments() {
            segment.close();
        }
    }

    /// Changes files in the log's directory by their paths, unless the log is closed: then they may be another's, as a
    /// deleted topic's name can be given again.
    pub(super) fn while_open<T>(&self, change: impl FnOnce() -> T) -> Option<T> {
        let _under_way = self.changes.lock();
        (!self.is_closed()).then(change)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn listen(&self, listener: DurableListener) {
        let mut slot = self.listener.lock();
        // Under the lock, so that no move in between is missed.
        listener(self.durable_offset());
        *slot = Some(listener);
    }

    /// A copy of the list of segments.
    pub(super) fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.read().clone()
    }

    /// Called by the log's writer when it has rolled.
    pub(super) fn push_segment(&self, segment: Arc<Segment>) {
        self.segments.write().push(segment);
    }

    /// Takes the segments that end at or below `start` off the list; never the active one.
    pub(super) fn drop_segments_below(&self, start: Offset) -> Vec<Arc<Segment>> {
        let mut segments = self.segments.write();
        let is_below = |segment: &Arc<Segment>| segment.seal().is_some_and(|seal| seal.next <= start);
        let count = segments.iter().take_while(|segment| is_below(segment)).count();
        segments.drain(..count).collect()
    }

    /// Replaces the file of the leader epochs, durably, if there is news. Called while its directory is the log's.
    pub(super) fn write_epochs(&self) -> io::Result<()> {
        let changed = self.epochs.lock().take_changed();
        let Some(bytes) = changed else { return Ok(()) };
        small_file::replace(&*self.fs, &self.dir, epochs::FILE, &bytes)
            .inspect_err(|_| self.epochs.lock().set_changed())
    }

    fn leader_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.lock().last()
    }

    pub(super) fn status(&self, epoch: LeaderEpoch) -> LogStatus {
        let segments = self.segments();
        LogStatus {
            log_start_offset: self.log_start_offset(),
            durable_offset: self.durable_offset(),
            log_end_offset: self.log_end_offset(),
            size_bytes: segments.iter().map(|segment| segment.visible_bytes()).sum(),
            segments: segments.len(),
            leader_epoch: self.leader_epoch().map_or(epoch, |last| last.max(epoch)),
            state: match self.failure() {
                None => LogState::Online,
                Some(reason) => LogState::ReadOnly { reason },
            },
        }
    }

    /// A segment has been read from its file; `next` is where the one after it begins.
    fn note_lag(&self, next: Option<Offset>) {
        if next.is_none() {
            self.lagging.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a reader has been beyond the tail cache, and near the end, since this was last asked: see
    /// [`super::page_cache`].
    pub(super) fn take_lagging(&self) -> bool {
        self.lagging.load(Ordering::Relaxed) && self.lagging.swap(false, Ordering::Relaxed)
    }

    /// Checks that `offset` can be read from, and returns the durable offset.
    fn check_range(&self, offset: Offset) -> Result<Offset, ReadError> {
        if self.is_closed() {
            return Err(ReadError::Closed);
        }
        let (log_start_offset, durable_offset) = (self.log_start_offset(), self.durable_offset());
        if offset < log_start_offset || offset > durable_offset {
            return Err(ReadError::OutOfRange { offset, log_start_offset, durable_offset });
        }
        Ok(durable_offset)
    }

    /// From the tail cache, or from where an earlier read has ended and what follows is in memory; `None` if it is neither.
    pub(super) fn read_now(&self, offset: Offset, max_bytes: u64) -> Result<Option<ReadBatches>, ReadError> {
        let read = self.read_tail(offset, max_bytes)?;
        if read.is_some() || max_bytes > READ_NOW_BYTES {
            return Ok(read);
        }
        let Some((segment, next)) = self.segment_at(offset) else { return Ok(None) };
        let durable = self.durable_offset();
        let below = next.map_or(durable, |next| durable.min(next));
        let read =
            SegmentReader { segment: &segment, epochs: &self.epochs, below }.read_on(offset, max_bytes);
        if read.is_some() {
            self.counters.segment_reads.add(1);
            self.note_lag(next);
            if self.is_closed() {
                return Err(ReadError::Closed);
            }
        }
        Ok(read)
    }

    /// From the tail cache alone, or nothing at the end of the log.
    fn read_tail(&self, offset: Offset, max_bytes: u64) -> Result<Option<ReadBatches>, ReadError> {
        let durable = self.check_range(offset)?;
        if offset == durable {
            return Ok(Some(ReadBatches { next_offset: offset, ..ReadBatches::default() }));
        }
        let read = self.tail.read(offset, durable, max_bytes);
        if read.is_some() {
            self.counters.tail_cache_reads.add(1);
        }
        Ok(read)
    }

    /// From the tail cache or the segment files; may block on the disk.
    pub(super) fn read(&self, offset: Offset, max_bytes: u64) -> Result<ReadBatches, ReadError> {
        if let Some(read) = self.read_tail(offset, max_bytes)? {
            return Ok(read);
        }
        let durable = self.check_range(offset)?;
        let found = self.search(offset, durable, |reader| reader.read(offset, max_bytes))?;
        self.counters.segment_reads.add(1);
        self.note_lag(self.segment_at(offset).and_then(|(_, next)| next));
        if self.is_closed() {
            // The file that was opened may have been that of the next log of this name.
            return Err(ReadError::Closed);
        }
        Ok(found.unwrap_or(ReadBatches { next_offset: offset, ..ReadBatches::default() }))
    }

    /// The first visible record at or after `timestamp_ms`; may block on the disk.
    pub(super) fn find_timestamp(
        &self,
        timestamp_ms: i64,
        max_decompressed_bytes: u64,
    ) -> Result<Option<TimestampedOffset>, ReadError> {
        let start = self.log_start_offset();
        let durable = self.check_range(start)?;
        self.search(start, durable, |reader| {
            if reader.segment.max_timestamp_ms().is_none_or(|newest| newest < timestamp_ms) {
                return Ok(None);
            }
            reader.find_timestamp(timestamp_ms, start, max_decompressed_bytes)
        })
    }

    /// Asks the segment that holds `offset`, then those after it, until one answers. Nothing at or beyond `below` is
    /// visible.
    fn search<T>(
        &self,
        offset: Offset,
        below: Offset,
        mut ask: impl FnMut(SegmentReader<'_>) -> Result<Option<T>, SegmentError>,
    ) -> Result<Option<T>, ReadError> {
        let mut at = offset;
        loop {
            let Some((segment, next)) = self.segment_at(at) else { return Ok(None) };
            // A segment that is not sealed yet does not know where it ends.
            let below = next.map_or(below, |next| below.min(next));
            let answer = ask(SegmentReader { segment: &segment, epochs: &self.epochs, below });
            if segment.take_wrong_index() {
                self.repair_index(&segment);
            }
            match answer {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => match next {
                    Some(next) => at = next,
                    None => return Ok(None),
                },
                Err(error) => {
                    let accepted = segment.seal().is_some_and(Seal::is_gap);
                    return Err(self.read_error(error, offset.max(segment.base()), accepted));
                }
            }
        }
    }

    /// Makes the indexes of a segment anew; what was asked has been answered without them.
    fn repair_index(&self, segment: &Arc<Segment>) {
        let epochs = self.epochs.lock().clone();
        let repaired = self.while_open(|| segment.repair_index(&epochs, self.durable_offset()));
        if let Some(Err(error)) = repaired {
            tracing::warn!(path = %segment.log_path().display(), %error, "cannot write the rebuilt indexes of a segment");
        }
    }

    /// The segment that holds `offset`, or the first one, and the base offset of the one after it.
    fn segment_at(&self, offset: Offset) -> Option<(Arc<Segment>, Option<Offset>)> {
        let segments = self.segments.read();
        let at = segments.partition_point(|segment| segment.base() <= offset).saturating_sub(1);
        let segment = segments.get(at)?;
        Some((Arc::clone(segment), segments.get(at + 1).map(|next| next.base())))
    }

    /// Whether what was at `offset` is known to be unreadable.
    pub(super) fn is_lost(&self, offset: Offset) -> bool {
        self.segment_at(offset).is_some_and(|(segment, _)| segment.damages().holding(offset).is_some())
    }

    /// `at`: the offset that was asked for, or the first one of the segment that was looked at. `accepted`: what is lost of
    /// that segment was given up.
    fn read_error(&self, error: SegmentError, at: Offset, accepted: bool) -> ReadError {
        if self.is_closed() || at < self.log_start_offset() {
            // The files were deleted while they were looked at.
            let (log_start_offset, durable_offset) = (self.log_start_offset(), self.durable_offset());
            return if self.is_closed() {
                ReadError::Closed
            } else {
                ReadError::OutOfRange { offset: at, log_start_offset, durable_offset }
            };
        }
        match error {
            SegmentError::Io { path, source } => {
                tracing::error!(path = %path.display(), error = %source, "cannot read a segment");
                ReadError::Io { path, source: Arc::new(source) }
            }
            SegmentError::Damaged(Damage { first, next, detail, .. }) => {
                let (first, last) = (first.max(self.log_start_offset()), Offset::clamped(next.get() - 1));
                ReadError::DataLoss { first, last, accepted, detail }
            }
        }
    }
}

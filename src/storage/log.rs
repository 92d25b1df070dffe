//! A log as its writer has it: a plain struct that is stepped by calls. Whoever owns it alone changes the log.
//!
//! ```text
//! gather(append)...  ->  write()  ->  Written  ->  sync of its file  ->  Written::publish
//! ```
//! Offsets given out by `gather`, and what it notes of producers, are tentative until `write` has succeeded: a failed
//! write takes the whole group back. Nothing is visible, and nothing acknowledged, before `publish`. A duplicate of a
//! batch that is not published yet goes the same way behind it, without bytes: it is acknowledged with it, or fails.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::checkpoint::{Boundary, Mark};
use super::fs::{Fs, FsFile, OpenHow, is_no_room};
use super::index::SegmentIndex;
use super::limits::is_exhausted;
use super::log_file::LogFile;
use super::log_view::LogView;
use super::open_segments::OpenSegments;
use super::page_cache::CachePolicy;
use super::preallocation::Preallocation;
use super::producer_snapshot;
use super::producers::{ProducerBatch, ProducerLimits};
use super::seals::BlockCrcs;
use super::segment::{Segment, offset_entry};
use super::tail_cache::TailCache;
use super::types::{Append, AppendDone, AppendError, Appended, LogConfig};
use super::written::{Written, WrittenBatch};
use crate::clock::Clock;
use crate::config::PageCache;
use crate::record::{self, BatchView};
use crate::types::{LeaderEpoch, Offset};

/// What all logs of a data directory have in common.
#[derive(Debug)]
pub(super) struct LogEnv {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) open_segments: Arc<OpenSegments>,
    pub(super) tail_cache: TailCache,
    /// Of this run.
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) index_interval_bytes: u32,
    pub(super) index_max_bytes: u32,
    pub(super) producer_limits: ProducerLimits,
    pub(super) page_cache: PageCache,
}

/// The writer's side of a log.
pub(super) struct Log {
    view: Arc<LogView>,
    env: Arc<LogEnv>,
    config: LogConfig,
    /// Stamped on every batch.
    leader_epoch: LeaderEpoch,
    /// What it appends through; it may turn an append down to keep room for others.
    fs: Arc<dyn Fs>,
    /// The one that is appended to.
    segment: Arc<Segment>,
    /// Its log file, once it is needed; never closed while it has unsynced bytes.
    file: Option<Arc<dyn FsFile>>,
    /// What is set aside for it beyond its end.
    ahead: Preallocation,
    caching: CachePolicy,
    /// A segment was taken back, and its name may come back until the directory is synced.
    names_unsynced: bool,
    /// The length of what has been written to it.
    position: u64,
    /// The next offset to give out, tentatively.
    next_offset: Offset,
    /// Checksums of the active segment's blocks; `None` if it was not written from its start by this process.
    block_crcs: Option<BlockCrcs>,
    /// When the active segment got its first batch, if it has one.
    first_append_ms: Option<i64>,
    gathered: Vec<Gathered>,
    gathered_bytes: u64,
}

/// A batch that has its offset, and is not written yet.
struct Gathered {
    base: Offset,
    next: Offset,
    /// `None`: a duplicate of the batch at `base`.
    batch: Option<BytesMut>,
    done: AppendDone,
}

/// A segment that has been rolled: synced whole, and to be sealed.
pub(super) struct Rolled {
    pub(super) view: Arc<LogView>,
    pub(super) segment: Arc<Segment>,
    pub(super) next: Offset,
    pub(super) len: u64,
    /// `None`: to be computed from the file.
    pub(super) block_crcs: Option<Vec<u32>>,
    /// A snapshot of the producers at its end; `None`: they are not known there.
    pub(super) producers: Option<Vec<u8>>,
}

/// The place from which a log goes on.
pub(super) struct LogStart {
    /// What it appends through.
    pub(super) fs: Arc<dyn Fs>,
    pub(super) segment: Arc<Segment>,
    pub(super) mark: Mark,
    /// That of this run, or a later one.
    pub(super) leader_epoch: LeaderEpoch,
}

impl Log {
    /// Goes on from `start`, the synced end of the log.
    pub(super) fn new(view: Arc<LogView>, env: Arc<LogEnv>, config: LogConfig, start: LogStart) -> Self {
        let (position, now_ms) = (start.mark.position, env.clock.monotonic_ms());
        let caching = CachePolicy::new(env.page_cache);
        Self {
            view,
            env,
            config,
            ahead: Preallocation::new(position, now_ms),
            caching,
            leader_epoch: start.leader_epoch,
            fs: start.fs,
            segment: start.segment,
            file: None,
            names_unsynced: false,
            position,
            next_offset: start.mark.offset,
            block_crcs: (position == 0).then(BlockCrcs::default),
            first_append_ms: None,
            gathered: Vec::new(),
            gathered_bytes: 0,
        }
    }

    /// What readers see.
    pub(super) fn view(&self) -> &Arc<LogView> {
        &self.view
    }

    /// Its settings.
    pub(super) fn config(&self) -> LogConfig {
        self.config
    }

    /// New settings, from the next append on.
    pub(super) fn set_config(&mut self, config: LogConfig) {
        self.config = config;
    }

    /// Whether anything waits to be written, or behind it.
    pub(super) fn has_gathered(&self) -> bool {
        !self.gathered.is_empty()
    }

    /// Gathered and not yet written.
    pub(super) fn gathered_bytes(&self) -> u64 {
        self.gathered_bytes
    }

    /// Whether a batch of `size_bytes` has to go to a new segment: the present one would be too large, has a full
    /// index, cannot express the offset, or is too old.
    pub(super) fn must_roll(&mut self, batch: &[u8]) -> bool {
        let used = self.position + self.gathered_bytes;
        if used == 0 {
            return false;
        }
        let is_large = used + batch.len() as u64 > u64::from(self.config.segment_bytes);
        let is_far = self.next_offset.get() - self.segment.base().get() > i64::from(i32::MAX) / 2;
        // Room for the entries of a group, and the last one of the time index.
        let index_bytes = self.segment.index().read().size_bytes() + self.gathered_index_bytes();
        let is_full = index_bytes > u64::from(self.env.index_max_bytes);
        is_large || is_far || is_full || self.is_old()
    }

    /// What the index can grow by when the gathered batches are written.
    fn gathered_index_bytes(&self) -> u64 {
        let entries = (self.gathered_bytes / u64::from(self.env.index_interval_bytes) + 2)
            .min(self.gathered.len() as u64 + 2);
        entries * super::index::TIME_ENTRY_BYTES
    }

    fn is_old(&mut self) -> bool {
        let now_ms = self.env.clock.now_ms();
        let first_ms = match self.first_append_ms {
            Some(first_ms) => first_ms,
            None if self.position == 0 => now_ms,
            // Appended to by an earlier run: the first batch tells, as in Kafka.
            None => self.first_timestamp_ms().unwrap_or(now_ms),
        };
        // Neither a batch nor a clock that was set back is believed about the future: the segment is young then.
        let first_ms = first_ms.min(now_ms);
        self.first_append_ms = Some(first_ms);
        now_ms.abs_diff(first_ms) > self.config.segment_ms
    }

    fn first_timestamp_ms(&self) -> Option<i64> {
        let end = self.segment.visible_bytes().min(4 << 10);
        let bytes = self.segment.slice(0..end).ok()?.bytes;
        let size = record::frame_size(&bytes)? as u64;
        let bytes = self.segment.slice(0..size.min(self.segment.visible_bytes())).ok()?.bytes;
        BatchView::parse(&bytes).ok().map(|batch| batch.max_timestamp()).filter(|timestamp| *timestamp >= 0)
    }

    /// Gives a batch its offset, unless it is refused, or a duplicate. A log that takes no writes still answers duplicates
    /// of what it has.
    pub(super) fn gather(&mut self, append: Append) {
        let Append { mut batch, expected_offset, done } = append;
        let Ok((records, producer)) = BatchView::parse(&batch)
            .map(|view| (view.last_offset_delta().unsigned_abs() + 1, ProducerBatch::of(&view)))
        else {
            // The caller has validated it; a batch that is none must not reach the disk all the same.
            return done(Err(self.write_error(&io::ErrorKind::InvalidData.into())));
        };
        let checked = self.check(producer.as_ref(), expected_offset);
        if let Some(reason) = self.view.failure()
            && !matches!(checked, Ok(Some(base)) if base < self.view.durable_offset() && !self.view.is_lost(base))
        {
            return done(Err(AppendError::Sealed { reason }));
        }
        match checked {
            Err(error) => done(Err(error)),
            Ok(Some(base)) if base < self.view.durable_offset() => {
                let log_start_offset = self.view.log_start_offset();
                done(Ok(Appended { base_offset: base, log_start_offset, duplicate: true }));
            }
            Ok(Some(base)) => {
                self.gathered.push(Gathered { base, next: base.plus(records), batch: None, done });
            }
            Ok(None) => {
                let (base, next) = (self.next_offset, self.next_offset.plus(records));
                if let Some(producer) = &producer {
                    let (synced, now_ms) = (self.view.synced().mark.offset, self.env.clock.monotonic_ms());
                    self.view.producers.lock().push(producer, base, synced, now_ms);
                }
                record::set_position(&mut batch, base, self.leader_epoch);
                self.next_offset = next;
                self.gathered_bytes += batch.len() as u64;
                self.gathered.push(Gathered { base, next, batch: Some(batch), done });
            }
        }
    }

    /// Whether it would get the next offset now.
    pub(super) fn takes(&self, append: &Append) -> bool {
        let producer = BatchView::parse(&append.batch).ok().as_ref().and_then(ProducerBatch::of);
        matches!(self.check(producer.as_ref(), append.expected_offset), Ok(None))
    }

    /// Whether a batch of this producer is to get the next offset; otherwise the offset of the batch that it is a
    /// duplicate of. That comes first: a conditional append can be sent again.
    fn check(
        &self,
        producer: Option<&ProducerBatch>,
        expected_offset: Option<Offset>,
    ) -> Result<Option<Offset>, AppendError> {
        if let Some(batch) = producer {
            let now_ms = self.env.clock.monotonic_ms();
            let mut producers = self.view.producers.lock();
            if let Some(base) = producers.check(batch, self.view.synced().mark.offset, now_ms)? {
                return Ok(Some(base));
            }
        }
        let next = self.next_offset;
        match expected_offset {
            Some(expected) if expected != next => Err(AppendError::UnexpectedOffset { expected, next }),
            _ => Ok(None),
        }
    }

    /// Writes what was gathered, with one call. On an error all of it is failed and forgotten, and the log goes on.
    pub(super) fn write(&mut self) -> Option<Written> {
        if self.gathered.is_empty() {
            return None;
        }
        let wrote = self.sync_names().and_then(|()| self.file()).and_then(|file| {
            let bufs: Vec<&[u8]> =
                self.gathered.iter().filter_map(|gathered| gathered.batch.as_deref()).collect();
            let now_ms = self.env.clock.monotonic_ms();
            let end = self.position + self.gathered_bytes;
            if let Some(until) = self.ahead.step(end, now_ms) {
                // No further than the segment goes. It is only for speed: most errors are for want of room.
                let _ = file.preallocate(until.min(u64::from(self.config.segment_bytes)).max(end));
            }
            let drops = self.caching.drops(self.gathered_bytes, self.view.take_lagging(), now_ms);
            if bufs.is_empty() {
                return Ok(file);
            }
            if drops {
                file.write_all_uncached_at(&bufs, self.position)?;
            } else {
                file.write_all_at(&bufs, self.position)?;
            }
            Ok(file)
        });
        match wrote {
            Ok(file) => Some(self.written(file)),
            Err(error) => {
                self.take_back(&error);
                match self.file.clone() {
                    Some(file) if self.has_gathered() => Some(self.written(file)),
                    Some(_) => None,
                    None => {
                        self.answer_gathered();
                        None
                    }
                }
            }
        }
    }

    fn written(&mut self, file: Arc<dyn FsFile>) -> Written {
        let gathered = std::mem::take(&mut self.gathered);
        let size_bytes = std::mem::take(&mut self.gathered_bytes);
        let start = self.view.log_end_offset();
        let mut batches = Vec::with_capacity(gathered.len());
        let mut appended = 0;
        let mut index = self.segment.index().write();
        for Gathered { base, next, batch, done } in gathered {
            let Some(batch) = batch else {
                batches.push(WrittenBatch { base, next, bytes: None, done });
                continue;
            };
            let size = batch.len() as u64;
            if let Ok(view) = BatchView::parse(&batch) {
                index.add(
                    offset_entry(self.segment.base(), &view, self.position),
                    size,
                    view.max_timestamp(),
                );
            }
            if let Some(crcs) = &mut self.block_crcs {
                crcs.update(&batch);
            }
            self.position += size;
            appended += 1;
            batches.push(WrittenBatch { base, next, bytes: Some(into_bytes(batch)), done });
        }
        let index = index.to_resume();
        if appended > 0 {
            self.view.epochs.lock().assign(self.leader_epoch, start);
            self.first_append_ms.get_or_insert_with(|| self.env.clock.now_ms());
        }
        self.view.set_log_end(self.next_offset);
        self.view.add_in_flight(size_bytes);
        self.view.counters.appended_batches.add(appended);
        self.view.counters.appended_bytes.add(size_bytes);
        let mark = Mark { offset: self.next_offset, segment: self.segment.base(), position: self.position };
        let (view, segment) = (Arc::clone(&self.view), Arc::clone(&self.segment));
        let must_sync = view.producers.lock().take_crowded();
        Written { view, file, segment, start, end: Boundary { mark, index }, batches, size_bytes, must_sync }
    }

    /// The group could not be written: the file is cut back to where it was, so that nothing of it can be taken for
    /// part of a later one. On the disk too: a producer that hears of the failure may send the batches again, and they
    /// must not be there twice after a power cut. Duplicates of what has been written before stay gathered.
    fn take_back(&mut self, error: &io::Error) {
        let end = self.view.log_end_offset();
        self.gathered_bytes = 0;
        self.next_offset = end;
        let is_lost = |gathered: &mut Gathered| gathered.base >= end;
        let gathered: Vec<_> = self.gathered.extract_if(.., is_lost).collect();
        {
            let mut producers = self.view.producers.lock();
            for batch in gathered.iter().filter_map(|gathered| gathered.batch.as_deref()) {
                if let Some(lost) = BatchView::parse(batch).ok().as_ref().and_then(ProducerBatch::of) {
                    producers.take_back(lost.producer_id, end);
                }
            }
        }
        if let Some(file) = &self.file
            && let Err(cut) = cut_back(&**file, self.position)
        {
            self.view.fail(&format!("a failed write could not be undone: {cut} (the write: {error})"));
        }
        tracing::warn!(
            topic = %self.view.topic, partition = %self.view.partition, batches = gathered.len(), %error,
            "a write failed and was taken back"
        );
        for Gathered { done, .. } in gathered {
            done(Err(self.write_error(error)));
        }
    }

    /// The file was closed, and could not be opened again: what is still gathered are duplicates of what was synced, or
    /// has failed, before it was closed.
    fn answer_gathered(&mut self) {
        let (failure, log_start_offset) = (self.view.failure(), self.view.log_start_offset());
        for Gathered { base, done, .. } in self.gathered.drain(..) {
            done(match &failure {
                None => Ok(Appended { base_offset: base, log_start_offset, duplicate: true }),
                Some(reason) => Err(AppendError::Sealed { reason: Arc::clone(reason) }),
            });
        }
    }

    /// Begins a new segment. What is in the present one is on the disk before the new one exists.
    ///
    /// # Errors
    /// What the file system says: the log goes on in the present segment, or, if a sync failed, takes no writes.
    pub(super) fn roll(&mut self) -> Result<Rolled, AppendError> {
        self.sync().map_err(|reason| AppendError::Sealed { reason })?;
        self.give_back();
        let base = self.next_offset;
        let segment = Arc::new(Segment::new(
            Arc::clone(&self.view.fs),
            Arc::clone(&self.view.dir),
            base,
            0,
            SegmentIndex::new(self.env.index_interval_bytes),
            self.config.segment_bytes,
            Arc::clone(&self.env.open_segments),
        ));
        let create = || {
            let file = self.open(&segment)?;
            self.view.fs.sync_dir(&self.view.dir)?;
            Ok(file)
        };
        let file = create().map_err(|error| {
            tracing::warn!(path = %segment.log_path().display(), %error, "cannot begin a new segment");
            self.take_back_segment(&segment);
            append_error(segment.log_path(), &error)
        })?;
        self.view.push_segment(Arc::clone(&segment));
        let old = std::mem::replace(&mut self.segment, segment);
        old.index().write().finish();
        let producers = self.view.producers.lock().at(base, self.env.clock.monotonic_ms());
        let rolled = Rolled {
            view: Arc::clone(&self.view),
            segment: old,
            next: base,
            len: self.position,
            block_crcs: self.block_crcs.take().map(BlockCrcs::finish),
            producers: Some(producer_snapshot::encode(base, &producers)),
        };
        self.file = Some(file);
        self.position = 0;
        self.ahead = Preallocation::new(0, self.env.clock.monotonic_ms());
        self.block_crcs = Some(BlockCrcs::default());
        self.first_append_ms = None;
        Ok(rolled)
    }

    /// The segment could not be begun: its file must not stay, as a smaller batch may still go to the present one, and
    /// the new one would then lie in the middle of it.
    fn take_back_segment(&mut self, segment: &Segment) {
        let fs = &self.view.fs;
        let removed = match fs.remove_file(&segment.log_path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| fs.sync_dir(&self.view.dir)),
        };
        if let Err(error) = removed {
            if is_exhausted(&error) {
                // The directory could not be opened; nothing has been asked of the disk.
                self.names_unsynced = true;
                return;
            }
            self.view.fail(&format!("a failed roll could not be undone: {error}"));
        }
    }

    /// Before anything is written where a segment was taken back.
    fn sync_names(&mut self) -> io::Result<()> {
        if self.names_unsynced {
            self.view.fs.sync_dir(&self.view.dir)?;
            self.names_unsynced = false;
        }
        Ok(())
    }

    /// Puts on the disk what has been written. Publishes nothing.
    ///
    /// # Errors
    /// Why, if it failed, now or before: the log takes no writes any more.
    pub(super) fn sync(&mut self) -> Result<(), Arc<str>> {
        if let Some(file) = &self.file
            && let Err(error) = file.sync()
        {
            self.view.fail(&format!("syncing {} failed: {error}", self.segment.log_path().display()));
        }
        if let Some(reason) = self.view.failure() {
            return Err(reason);
        }
        self.view.set_synced(self.boundary());
        Ok(())
    }

    /// Whether nothing that was written waits for a sync, now or ever.
    pub(super) fn is_synced(&self) -> bool {
        let view = &self.view;
        let all = view.in_flight_bytes() == 0 && view.synced().mark.offset >= view.log_end_offset();
        all || view.failure().is_some()
    }

    /// Lets go of the file, which is opened again by the next write. Called only when [`Log::is_synced`].
    pub(super) fn close_file(&mut self) {
        self.give_back();
        self.file = None;
    }

    /// Whether anything is set aside beyond the end of its file.
    pub(super) fn has_set_aside(&self) -> bool {
        self.ahead.is_any()
    }

    /// Gives back what was set aside for a log that does not use it up. Returns whether anything still is.
    pub(super) fn give_back_if_slow(&mut self) -> bool {
        if self.ahead.is_slow(self.env.clock.monotonic_ms()) {
            self.give_back();
        }
        self.has_set_aside()
    }

    /// What is set aside beyond the end of the file is others' to use. Called before the log is left, or its file.
    pub(super) fn give_back(&mut self) {
        if let Some(file) = &self.file
            && let Err(error) = file.give_back()
        {
            tracing::warn!(path = %self.segment.log_path().display(), %error, "cannot give room back");
        }
        self.ahead = Preallocation::new(self.position, self.env.clock.monotonic_ms());
    }

    /// The end of what has been written.
    pub(super) fn boundary(&self) -> Boundary {
        let mark = Mark {
            offset: self.view.log_end_offset(),
            segment: self.segment.base(),
            position: self.position,
        };
        Boundary { mark, index: self.segment.index().read().to_resume() }
    }

    fn file(&mut self) -> io::Result<Arc<dyn FsFile>> {
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        let file = self.open(&self.segment)?;
        self.file = Some(Arc::clone(&file));
        Ok(file)
    }

    fn open(&self, segment: &Segment) -> io::Result<Arc<dyn FsFile>> {
        let file = self.fs.open(&segment.log_path(), OpenHow::Write)?;
        Ok(Arc::new(LogFile::new(file)))
    }

    fn write_error(&self, error: &io::Error) -> AppendError {
        append_error(self.segment.log_path(), error)
    }
}

/// Cuts a file durably to `len`, if it is longer: most of what finds no room has not written anything.
fn cut_back(file: &dyn FsFile, len: u64) -> io::Result<()> {
    if file.len()? == len {
        return Ok(());
    }
    file.set_len(len)?;
    file.sync()
}

/// The batch as readers will share it, without much memory that it does not use.
fn into_bytes(batch: BytesMut) -> Bytes {
    if batch.capacity() > batch.len() + batch.len() / 4 {
        Bytes::copy_from_slice(&batch)
    } else {
        batch.freeze()
    }
}

fn append_error(path: PathBuf, error: &io::Error) -> AppendError {
    if is_no_room(error) {
        AppendError::NoSpace { path }
    } else {
        // Of the system's errors, the number says more than the kind.
        let own = || io::Error::new(error.kind(), error.to_string());
        let source = error.raw_os_error().map_or_else(own, io::Error::from_raw_os_error);
        AppendError::Write { path, source: Arc::new(source) }
    }
}

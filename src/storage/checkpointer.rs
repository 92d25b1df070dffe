//! Writes the checkpoint: brings the indexes, epochs and producers of logs that have changed to the disk, then moves
//! their recovery points.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::checkpoint::{Boundary, Checkpoint, LogCheckpoint, LogKey};
use super::fs::{Fs, FsFile, OpenHow};
use super::index::Unflushed;
use super::log_view::{LogView, ProducersAt};
use super::producer_snapshot;
use super::room::Room;
use super::segment::Segment;
use super::small_file;
use super::syncer::Syncer;
use super::upkeep::PANICKED;
use crate::clock::Clock;
use crate::types::{LeaderEpoch, Offset};

/// All open logs.
pub(super) type Registry = Mutex<BTreeMap<LogKey, Arc<LogView>>>;

/// The one who writes the checkpoint.
pub(super) struct Checkpointer {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) room: Arc<Room>,
    pub(super) dir: PathBuf,
    pub(super) logs: Arc<Registry>,
    pub(super) syncer: Arc<Mutex<Syncer>>,
    pub(super) clock: Arc<dyn Clock>,
    /// The latest that any log stamps on its batches.
    pub(super) leader_epoch: Mutex<LeaderEpoch>,
    /// What the file says now. Entries of logs that could not be opened stay as they are.
    pub(super) last: Mutex<BTreeMap<LogKey, LogCheckpoint>>,
    /// So many are flushed at a time: each needs three descriptors meanwhile.
    pub(super) logs_at_a_time: usize,
}

/// More at a time would not make it faster.
const MOST_LOGS_AT_A_TIME: u64 = 128;

/// How many logs to flush at a time where there are so many descriptors: an eighth of them, of what the settings
/// leave to the work on files.
pub(super) fn logs_at_a_time(descriptors: u64) -> usize {
    (descriptors / 24).clamp(1, MOST_LOGS_AT_A_TIME) as usize
}

/// Up to so many directories are synced one by one.
const FEW_DIRS: usize = 4;

/// A segment, and what has been written of its indexes.
type FlushedIndex = (Arc<Segment>, Unflushed);

/// What has been written of one log, and is to be synced.
struct Flushed<'a> {
    view: &'a LogView,
    entry: LogCheckpoint,
    index: Option<FlushedIndex>,
    /// A new snapshot of producers, under its temporary name.
    snapshot: Option<Offset>,
    files: Range<usize>,
}

impl Checkpointer {
    /// Writes the checkpoint; `clean` only when nothing will be appended any more.
    ///
    /// # Errors
    /// What the file system says; the checkpoint before, or this one, is then there.
    pub(super) fn write(&self, clean: bool) -> io::Result<()> {
        self.write_with(clean, None)
    }

    /// The same, with a new start of one log. It is not announced to readers here.
    ///
    /// # Errors
    /// As [`Checkpointer::write`].
    pub(super) fn write_with(&self, clean: bool, new_start: Option<(LogKey, Offset)>) -> io::Result<()> {
        let mut last = self.last.lock();
        let mut entries = last.clone();
        let views: Vec<_> = self.logs.lock().values().cloned().collect();
        for some in views.chunks(self.logs_at_a_time) {
            for flushed in self.flush(some, &last) {
                entries.insert(flushed.view.key, flushed.entry);
            }
        }
        if let Some((key, start)) = new_start {
            // A log that could not be flushed yet has no entry: then nothing is known of it but this.
            let unknown =
                LogCheckpoint { log_start: start, recovery_point: Boundary::default(), producers: None };
            entries.entry(key).or_insert(unknown).log_start = start;
        }
        let checkpoint = Checkpoint { clean, leader_epoch: *self.leader_epoch.lock(), logs: entries };
        checkpoint.replace(&*self.fs, &self.dir)?;
        for view in &views {
            // This file and the one before it, which stays beside it.
            let named = [checkpoint.logs.get(&view.key), last.get(&view.key)];
            producer_snapshot::prune(view, &named.map(|log| log.and_then(|log| log.producers)));
        }
        *last = checkpoint.logs;
        self.room.set_begun();
        Ok(())
    }

    /// A leader epoch that no batch has, durably: the next start's is not lower.
    ///
    /// # Errors
    /// As [`Checkpointer::write`].
    pub(super) fn raise_epoch(&self) -> io::Result<LeaderEpoch> {
        let raised = {
            let mut epoch = self.leader_epoch.lock();
            *epoch = LeaderEpoch(epoch.0.saturating_add(1));
            *epoch
        };
        self.write(false)?;
        Ok(raised)
    }

    /// The logs are deleted: nothing is said of them any more. Waits until no checkpoint is under way: what it writes into
    /// their directories must not come to those of other logs with the same names.
    pub(super) fn forget(&self, keys: &[LogKey]) {
        let mut last = self.last.lock();
        for key in keys {
            last.remove(key);
        }
    }

    /// Flushes what has changed; a log whose files cannot be flushed keeps its earlier recovery point.
    fn flush<'a>(
        &self,
        views: &'a [Arc<LogView>],
        last: &BTreeMap<LogKey, LogCheckpoint>,
    ) -> Vec<Flushed<'a>> {
        let mut files: Vec<Arc<dyn FsFile>> = Vec::new();
        let mut flushed = Vec::new();
        for view in views {
            let begin = files.len();
            let flush = AssertUnwindSafe(|| self.flush_log(view, last.get(&view.key), &mut files));
            match std::panic::catch_unwind(flush) {
                Ok(Ok(part)) => flushed.push(Flushed { files: begin..files.len(), ..part }),
                Err(_) => {
                    view.counters.upkeep_panics.add(1);
                    view.fail(PANICKED);
                    files.truncate(begin);
                }
                Ok(Err(error)) => {
                    tracing::warn!(dir = %view.dir.display(), %error, "cannot write a partition's indexes");
                    files.truncate(begin);
                }
            }
        }
        let outcomes = if files.is_empty() { Vec::new() } else { self.syncer.lock().sync(&files) };
        flushed.retain(|flushed| {
            let error = outcomes.get(flushed.files.clone()).into_iter().flatten().find_map(|one| one.as_ref().err());
            if let Some(error) = error {
                tracing::warn!(dir = %flushed.view.dir.display(), %error, "cannot sync a partition's indexes");
            } else if let Some((segment, written)) = &flushed.index {
                segment.forget_index(written);
            }
            error.is_none()
        });
        self.place_snapshots(&mut flushed);
        flushed
    }

    /// Gives synced snapshots their names, and makes those durable. A log for which it fails is left out.
    fn place_snapshots(&self, flushed: &mut Vec<Flushed<'_>>) {
        let failed = |view: &LogView, error: &io::Error| {
            tracing::warn!(dir = %view.dir.display(), %error, "cannot write a snapshot of a partition's producers");
        };
        flushed.retain(|Flushed { view, snapshot, .. }| {
            let Some(offset) = snapshot else { return true };
            let placed = view
                .while_open(|| small_file::place(&*self.fs, &view.dir, &producer_snapshot::name(*offset)));
            if let Some(Err(error)) = &placed {
                failed(view, error);
            }
            matches!(placed, Some(Ok(())))
        });
        // All names are given by now: what makes the first one durable has done the others.
        let many = flushed.iter().filter(|log| log.snapshot.is_some()).count() > FEW_DIRS;
        let all_synced = many && self.fs.can_sync_file_system(&self.dir) && {
            let root = self.fs.open(&self.dir, OpenHow::Read);
            root.and_then(|root| root.sync_file_system()).is_ok()
        };
        flushed.retain(|Flushed { view, snapshot, .. }| {
            let Some(offset) = snapshot else { return true };
            let synced = if all_synced { Ok(()) } else { self.fs.sync_dir(&view.dir) };
            match &synced {
                Ok(()) => view.name_snapshot(*offset),
                Err(error) => failed(view, error),
            }
            synced.is_ok()
        });
    }

    fn flush_log<'a>(
        &self,
        view: &'a LogView,
        last: Option<&LogCheckpoint>,
        files: &mut Vec<Arc<dyn FsFile>>,
    ) -> io::Result<Flushed<'a>> {
        let (recovery_point, producers) = view.synced_with_producers(self.clock.monotonic_ms());
        let (named, news) = match producers {
            ProducersAt::Known(named) => (named, None),
            ProducersAt::News(offset, bytes) => (Some(offset), Some((offset, bytes))),
        };
        let entry = LogCheckpoint { log_start: view.log_start_offset(), recovery_point, producers: named };
        let mut flushed = Flushed { view, entry, index: None, snapshot: None, files: 0..0 };
        let segments = view.segments();
        let segment = segments.iter().find(|segment| segment.base() == recovery_point.mark.segment);
        // An index that was lost and made anew is written although the log has not moved.
        let segment =
            segment.filter(|segment| segment.seal().is_none() && !segment.index().read().is_flushed());
        let is_known =
            |last: &LogCheckpoint| last.recovery_point == recovery_point && last.producers == named;
        let has_moved = news.is_some() || !last.is_some_and(is_known);
        if !has_moved && segment.is_none() && !view.epochs.lock().has_changed() {
            return Ok(flushed);
        }
        if let Some((offset, bytes)) = news {
            let name = producer_snapshot::name(offset);
            files.push(small_file::write_temporary(&*view.fs, &view.dir, &name, &bytes)?);
            flushed.snapshot = Some(offset);
        }
        view.write_epochs()?;
        if let Some(segment) = segment {
            let unflushed = segment.index().read().unflushed();
            let paths = (segment.path("index"), segment.path("timeindex"));
            files.extend(unflushed.write(&*view.fs, &paths.0, &paths.1)?);
            flushed.index = Some((Arc::clone(segment), unflushed));
        }
        Ok(flushed)
    }
}

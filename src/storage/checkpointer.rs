//! Writes the checkpoint: brings the indexes and epochs of logs that have changed to the disk, then moves their
//! recovery points.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::checkpoint::{Boundary, Checkpoint, LogCheckpoint, LogKey};
use super::fs::{Fs, FsFile};
use super::index::Unflushed;
use super::log_view::LogView;
use super::segment::Segment;
use super::syncer::Syncer;
use crate::types::{LeaderEpoch, Offset};

/// All open logs.
pub(super) type Registry = Mutex<BTreeMap<LogKey, Arc<LogView>>>;

/// The one who writes the checkpoint.
pub(super) struct Checkpointer {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) dir: PathBuf,
    pub(super) logs: Arc<Registry>,
    pub(super) syncer: Arc<Mutex<Syncer>>,
    pub(super) leader_epoch: LeaderEpoch,
    /// What the file says now. Entries of logs that could not be opened stay as they are.
    pub(super) last: Mutex<BTreeMap<LogKey, LogCheckpoint>>,
}

/// So many logs are flushed at a time: each needs two descriptors meanwhile.
const LOGS_AT_A_TIME: usize = 128;

/// A segment, and what has been written of its indexes.
type FlushedIndex = (Arc<Segment>, Unflushed);

/// What has been written of one log, and is to be synced.
struct Flushed<'a> {
    view: &'a LogView,
    entry: LogCheckpoint,
    index: Option<FlushedIndex>,
    files: std::ops::Range<usize>,
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
        for some in views.chunks(LOGS_AT_A_TIME) {
            for flushed in self.flush(some, &last) {
                entries.insert(flushed.view.key, flushed.entry);
            }
        }
        if let Some((key, start)) = new_start {
            // A log that could not be flushed yet has no entry: then nothing is known of it but this.
            let unknown = LogCheckpoint { log_start: start, recovery_point: Boundary::default() };
            entries.entry(key).or_insert(unknown).log_start = start;
        }
        let checkpoint = Checkpoint { clean, leader_epoch: self.leader_epoch, logs: entries };
        checkpoint.replace(&*self.fs, &self.dir)?;
        *last = checkpoint.logs;
        Ok(())
    }

    /// The logs are deleted: nothing is said of them any more.
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
            match Self::flush_log(view, last.get(&view.key), &mut files) {
                Ok((entry, index)) => flushed.push(Flushed { view, entry, index, files: begin..files.len() }),
                Err(error) => {
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
        flushed
    }

    fn flush_log(
        view: &LogView,
        last: Option<&LogCheckpoint>,
        files: &mut Vec<Arc<dyn FsFile>>,
    ) -> io::Result<(LogCheckpoint, Option<FlushedIndex>)> {
        let recovery_point = view.synced();
        let entry = LogCheckpoint { log_start: view.log_start_offset(), recovery_point };
        if last.is_some_and(|last| last.recovery_point == recovery_point) {
            return Ok((entry, None));
        }
        view.flush_epochs()?;
        let segments = view.segments();
        let segment = segments.iter().find(|segment| segment.base() == recovery_point.mark.segment);
        if let Some(segment) = segment.filter(|segment| segment.seal().is_none()) {
            let unflushed = segment.index().read().unflushed();
            if !unflushed.is_empty() {
                let paths = (segment.path("index"), segment.path("timeindex"));
                files.extend(unflushed.write(&*view.fs, &paths.0, &paths.1)?);
                return Ok((entry, Some((Arc::clone(segment), unflushed))));
            }
        }
        Ok((entry, None))
    }
}

//! What can wait, on a thread of its own: sealing rolled segments, moving the start of a log, checkpoints, and removing
//! what was deleted.
//!
//! A panic ends the piece of work it comes from, and no other. It is counted, and the partition that it was about, if it
//! was about one, takes no more writes and says why.

use std::collections::VecDeque;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::block_scan::Complete;
use super::checkpointer::Checkpointer;
use super::fs::Fs;
use super::gap;
use super::log::Rolled;
use super::log_view::LogView;
use super::producer_snapshot;
use super::recovery::remove_segment;
use super::room::Room;
use super::seals::{self, Seal};
use super::small_file;
use super::stats::Counters;
use super::types::{AcceptedLoss, Done, LogError};
use crate::types::Offset;

/// What the thread is asked to do; in order.
pub(super) enum Job {
    /// Enter a rolled segment in the manifest.
    Seal(Rolled),
    /// Move the start of a log up.
    DeleteRecords(Arc<LogView>, Offset, Done<Offset>),
    /// Give up the lost end of a log, and close it, to be opened again.
    AcceptLoss(Arc<LogView>, Done<AcceptedLoss>),
    /// Remove directories that have been moved away.
    RemoveDirs(Vec<PathBuf>),
    /// Seal what is left, and end.
    Stop,
}

/// How often to look whether a full disk has room again.
const LOOK_FOR_ROOM_INTERVAL: Duration = Duration::from_secs(1);

/// Why a log takes no more writes about which upkeep has panicked.
pub(super) const PANICKED: &str = "its upkeep in the background has panicked";

/// The thread's state.
pub(super) struct Upkeep {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) jobs: Receiver<Job>,
    pub(super) room: Arc<Room>,
    pub(super) counters: Arc<Counters>,
    pub(super) checkpointer: Arc<Checkpointer>,
    pub(super) checkpoint_interval: Duration,
    /// Rolled, and not in the manifest yet.
    pub(super) unsealed: VecDeque<Rolled>,
}

impl Upkeep {
    /// Runs until it is stopped or nobody can ask it for anything.
    pub(super) fn run(mut self) {
        let mut next_checkpoint = Instant::now() + self.checkpoint_interval;
        let mut next_look = Instant::now() + LOOK_FOR_ROOM_INTERVAL;
        loop {
            // Looked at before each job: a steady stream of them must not put the checkpoint off.
            if Instant::now() >= next_checkpoint {
                self.checkpoint();
                next_checkpoint = Instant::now() + self.checkpoint_interval;
            }
            if Instant::now() >= next_look {
                self.look_for_room();
                next_look = Instant::now() + LOOK_FOR_ROOM_INTERVAL;
            }
            let next = next_checkpoint.min(next_look);
            match self.jobs.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(job) => {
                    if self.handle(job) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Does one job. Returns whether it was told to stop.
    pub(super) fn handle(&mut self, job: Job) -> bool {
        match job {
            Job::Seal(rolled) => self.seal_or_hold(rolled),
            Job::DeleteRecords(view, before, done) => {
                let deleted = self.about(&view, || self.delete_records(&view, before));
                done(deleted.unwrap_or_else(|reason| Err(LogError::Sealed { reason })));
            }
            Job::AcceptLoss(view, done) => {
                self.seal_held();
                let accepted = self.about(&view, || self.accept_loss(&view));
                done(accepted.unwrap_or_else(|reason| Err(LogError::Sealed { reason })));
            }
            Job::RemoveDirs(dirs) => {
                self.guarded(|| self.remove_dirs(&dirs));
                self.look_for_room();
            }
            Job::Stop => {
                self.seal_held();
                return true;
            }
        }
        false
    }

    /// The periodic work: seals what could not be sealed before, and moves the recovery points.
    pub(super) fn checkpoint(&mut self) {
        self.seal_held();
        if let Some(Err(error)) = self.guarded(|| self.checkpointer.write(false)) {
            tracing::warn!(%error, "cannot write the checkpoint");
        }
    }

    /// Catches up on what a full disk has prevented, once there is room.
    pub(super) fn look_for_room(&mut self) {
        if self.room.is_broken() {
            self.guarded(|| self.room.restore());
        }
        if !self.room.has_begun() {
            self.checkpoint();
        }
    }

    /// Tries again what could not be sealed.
    fn seal_held(&mut self) {
        for rolled in std::mem::take(&mut self.unsealed) {
            self.seal_or_hold(rolled);
        }
    }

    /// Seals a segment, or keeps it for later; the segments of one log in their order, so one that fails holds those
    /// after it.
    fn seal_or_hold(&mut self, rolled: Rolled) {
        if self.unsealed.iter().any(|other| Arc::ptr_eq(&other.view, &rolled.view)) {
            self.unsealed.push_back(rolled);
            return;
        }
        let (fs, view) = (&*self.fs, &rolled.view);
        // The start of the log may have moved past it before.
        let seal_and_drop =
            || Some(view.while_open(|| seal(fs, &rolled))?.map(|()| self.drop_segments(view)));
        match self.about(view, seal_and_drop) {
            Ok(None | Some(Ok(()))) => {}
            // It is still unsealed, as far as is known.
            Err(_) => self.unsealed.push_back(rolled),
            Ok(Some(Err(error))) => {
                tracing::warn!(path = %rolled.segment.log_path().display(), %error, "cannot seal a segment yet");
                self.unsealed.push_back(rolled);
            }
        }
    }

    /// Does work; `None` if it panicked.
    fn guarded<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(work));
        if outcome.is_err() {
            tracing::error!("work in the background has panicked; the rest of it goes on");
            self.counters.upkeep_panics.add(1);
        }
        outcome.ok()
    }

    /// Does work about one partition; if it panics, that one takes no more writes, for the reason that is returned.
    fn about<T>(&self, view: &LogView, work: impl FnOnce() -> T) -> Result<T, Arc<str>> {
        self.guarded(work).ok_or_else(|| {
            view.fail(PANICKED);
            PANICKED.into()
        })
    }

    fn delete_records(&self, view: &LogView, before: Offset) -> Result<Offset, LogError> {
        if view.is_closed() {
            return Err(LogError::Closed);
        }
        let (log_start_offset, durable_offset) = (view.log_start_offset(), view.durable_offset());
        if before > durable_offset {
            return Err(LogError::OutOfRange { offset: before, log_start_offset, durable_offset });
        }
        if before <= log_start_offset {
            return Ok(log_start_offset);
        }
        // On the disk first: what readers were told is gone does not come back.
        if let Err(error) = self.checkpointer.write_with(false, Some((view.key, before))) {
            let path = self.checkpointer.dir.join(super::checkpoint::FILE);
            let closed = view.is_closed();
            return Err(if closed {
                LogError::Closed
            } else {
                LogError::Io { path, source: Arc::new(error) }
            });
        }
        view.set_log_start(before);
        self.drop_segments(view);
        Ok(before)
    }

    /// All that changes manifests is done on this thread: so nothing is entered in this one that does not know of the loss.
    fn accept_loss(&self, view: &Arc<LogView>) -> Result<AcceptedLoss, LogError> {
        let Some(lost) = view.lost else { return Err(LogError::NothingLost) };
        let io_error = |path: PathBuf| |error| LogError::Io { path, source: Arc::new(error) };
        // On the disk before any batch has it.
        let path = self.checkpointer.dir.join(super::checkpoint::FILE);
        let leader_epoch = self.checkpointer.raise_epoch().map_err(io_error(path))?;
        let committed = view.while_open(|| gap::commit(&*self.fs, view, lost)).ok_or(LogError::Closed)?;
        let next = committed.map_err(io_error(view.dir.to_path_buf()))?;
        view.close();
        let first = lost.offset;
        tracing::warn!(dir = %view.dir.display(), %first, %next, "the loss of a log's end has been accepted");
        Ok(AcceptedLoss { first, next, leader_epoch })
    }

    /// Lets go of the segments below the start of the log; the next time, if that fails.
    fn drop_segments(&self, view: &LogView) {
        if let Some(Err(error)) = view.while_open(|| drop_segments(&*self.fs, view)) {
            tracing::warn!(dir = %view.dir.display(), %error, "cannot remove deleted segments yet");
        }
    }

    fn remove_dirs(&self, dirs: &[PathBuf]) {
        for dir in dirs {
            if let Err(error) = self.fs.remove_dir(dir) {
                tracing::warn!(path = %dir.display(), %error, "cannot remove a deleted partition's directory yet");
            }
        }
    }
}

/// Takes the sealed segments below the start of the log out of the manifest, then removes their files.
fn drop_segments(fs: &dyn Fs, view: &LogView) -> io::Result<()> {
    let start = view.log_start_offset();
    let segments = view.segments();
    let sealed: Vec<&Seal> = segments.iter().filter_map(|segment| segment.seal()).collect();
    let below = sealed.iter().take_while(|seal| seal.next <= start).count();
    if below == 0 {
        return Ok(());
    }
    let first = segments.get(below).map_or(start, |segment| segment.base());
    seals::replace(fs, &view.dir, first, sealed.get(below..).unwrap_or_default())?;
    for segment in view.drop_segments_below(start) {
        segment.close();
        remove_segment(fs, &view.dir, segment.base());
    }
    Ok(())
}

/// Brings a segment's indexes and the producers at its end to the disk, and enters it in the manifest.
fn seal(fs: &dyn Fs, rolled: &Rolled) -> io::Result<()> {
    let Rolled { view, segment, len, .. } = rolled;
    let seal = seal_of(fs, rolled)?;
    let segments = view.segments();
    let mut sealed: Vec<&Seal> = segments.iter().filter_map(|segment| segment.seal()).collect();
    sealed.push(&seal);
    let first = segments.first().map_or(segment.base(), |first| first.base());
    seals::replace(fs, &view.dir, first, &sealed)?;
    segment.set_sealed(seal);
    tracing::debug!(path = %segment.log_path().display(), bytes = len, "sealed a segment");
    Ok(())
}

/// What the manifest is to say of a segment, whose indexes and whose producers at its end are now on the disk.
///
/// # Errors
/// Whatever the file system says.
pub(super) fn seal_of(fs: &dyn Fs, rolled: &Rolled) -> io::Result<Seal> {
    let Rolled { view, segment, next, len, block_crcs, producers } = rolled;
    // A sealed segment is not scanned any more: the epochs that begin in it must not be lost.
    view.write_epochs()?;
    let unflushed = segment.index().read().unflushed();
    let indexes = unflushed.write(fs, &segment.path("index"), &segment.path("timeindex"))?;
    let mut files = Vec::from(indexes);
    let snapshot = producer_snapshot::name(*next);
    if let Some(producers) = producers {
        files.push(small_file::write_temporary(fs, &view.dir, &snapshot, producers)?);
    }
    for file in files {
        file.sync()?;
    }
    if producers.is_some() {
        // Its name becomes durable with that of the manifest.
        small_file::place(fs, &view.dir, &snapshot)?;
        view.snapshots.lock().add(*next);
    }
    let block_crcs = if let Some(crcs) = block_crcs {
        crcs.clone()
    } else {
        let complete = Complete { base: segment.base(), next: *next, len: *len };
        let epochs = view.epochs.lock().clone();
        complete.scan(fs, &segment.log_path(), &epochs, epochs.last().unwrap_or_default())?.crcs
    };
    let index = segment.index().read().to_resume();
    segment.forget_index(&unflushed);
    Ok(Seal {
        base: segment.base(),
        next: *next,
        len: *len,
        max_timestamp_ms: index.newest.map(|newest| newest.timestamp_ms),
        index_entries: index.offsets as u32,
        time_entries: index.times as u32,
        block_crcs,
    })
}

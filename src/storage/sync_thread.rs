//! The thread that syncs: takes the groups of all writers together, makes them durable, publishes and acknowledges them.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::checkpoint::Boundary;
use super::durable::DurableSlots;
use super::fs::FsFile;
use super::log::LogEnv;
use super::log_view::LogView;
use super::stats::Counters;
use super::sync_queue::SyncQueue;
use super::syncer::Syncer;
use super::written::Written;

/// The thread that syncs.
pub(super) struct SyncThread {
    pub(super) queue: Arc<SyncQueue>,
    pub(super) syncer: Arc<Mutex<Syncer>>,
    pub(super) slots: Arc<Mutex<DurableSlots>>,
    pub(super) env: Arc<LogEnv>,
    pub(super) counters: Arc<Counters>,
    pub(super) flush_interval: Duration,
}

/// How stale a durable slot can be on the disk.
const SLOT_SYNC_INTERVAL: Duration = Duration::from_millis(500);

impl SyncThread {
    /// Runs until the queue is stopped and everything in it is done.
    pub(super) fn run(&self) {
        if std::panic::catch_unwind(AssertUnwindSafe(|| self.run_until_stopped())).is_err() {
            tracing::error!("the syncing thread has panicked; all partitions stop taking writes");
            self.queue.die();
        }
    }

    fn run_until_stopped(&self) {
        let (mut next_flush, mut next_slot_sync) = (Instant::now(), Instant::now());
        loop {
            let stop = self.sync_waiting(next_flush.min(next_slot_sync));
            let now = Instant::now();
            if stop || now >= next_flush {
                self.flush_lazy();
                next_flush = now + self.flush_interval;
            }
            if stop || now >= next_slot_sync {
                self.sync_slots();
                next_slot_sync = now + SLOT_SYNC_INTERVAL;
            }
            if stop && self.queue.is_empty() {
                return;
            }
        }
    }

    /// Syncs and publishes the groups that wait, or comes by `until`. Returns whether the queue has ended.
    pub(super) fn sync_waiting(&self, until: Instant) -> bool {
        let (groups, stop) = self.queue.take(until);
        if !groups.is_empty() {
            self.sync_groups(groups);
        }
        stop
    }

    /// Syncs the files of groups that were taken out of the queue, then publishes them.
    pub(super) fn sync_groups(&self, groups: Vec<Written>) {
        let appends = groups.iter().map(|group| group.appends() as u64).sum();
        let bytes = groups.iter().map(|group| group.size_bytes).sum();
        let started = Instant::now();
        self.sync_files(groups.iter().map(|group| (&group.view, Some(&group.file), group.end)));
        self.counters.synced(appends, bytes, started.elapsed());
        for group in groups {
            group.publish(&self.env.tail_cache);
        }
        self.queue.synced();
    }

    /// Syncs what `durability = os` has left unsynced.
    pub(super) fn flush_lazy(&self) {
        let files = self.queue.take_lazy();
        if !files.is_empty() {
            self.sync_files(files.iter().map(|lazy| (&lazy.view, lazy.file.as_ref(), lazy.end)));
        }
        drop(files);
        self.queue.flushed();
    }

    /// Syncs each file once; what is then durable is noted with its log and in its slot, what is not fails its log.
    fn sync_files<'a>(
        &self,
        parts: impl Iterator<Item = (&'a Arc<LogView>, Option<&'a Arc<dyn FsFile>>, Boundary)>,
    ) {
        let mut files: Vec<Arc<dyn FsFile>> = Vec::new();
        let mut dirty: Vec<(&Arc<LogView>, Vec<usize>, Boundary)> = Vec::new();
        // Not by slot: that of a deleted log may be another's by now.
        let mut by_view: HashMap<*const LogView, usize> = HashMap::new();
        for (view, file, end) in parts {
            let at = *by_view.entry(Arc::as_ptr(view)).or_insert_with(|| {
                dirty.push((view, Vec::new(), end));
                dirty.len() - 1
            });
            let Some((_, of_log, last)) = dirty.get_mut(at) else { continue };
            *last = end;
            let Some(file) = file else { continue };
            // A log's groups come in order: a file it has come before is the last one.
            let known = of_log.last().and_then(|i| files.get(*i)).is_some_and(|last| Arc::ptr_eq(last, file));
            if !known {
                of_log.push(files.len());
                files.push(Arc::clone(file));
            }
        }
        let outcomes = self.syncer.lock().sync(&files);
        let mut slots = self.slots.lock();
        for (view, of_log, end) in dirty {
            for error in of_log.iter().filter_map(|i| outcomes.get(*i)?.as_ref().err()) {
                view.fail(&format!("syncing a segment in {} failed: {error}", view.dir.display()));
            }
            // The slot of a deleted log may be another's by now; it is released under this lock.
            if view.failure().is_none() && !view.is_closed() {
                view.set_synced(end);
                // Its writer may have synced more meanwhile.
                slots.set(view.slot, view.key, view.synced().mark.offset);
            }
        }
        if let Err(error) = slots.write() {
            // Only a bound: the next group writes it again.
            tracing::warn!(%error, "cannot write the durable offsets");
        }
    }

    /// Makes the durable slots durable themselves.
    pub(super) fn sync_slots(&self) {
        let file = self.slots.lock().take_unsynced();
        if let Some(file) = file
            && let Err(error) = file.sync()
        {
            tracing::warn!(%error, "cannot sync the durable offsets");
        }
    }
}

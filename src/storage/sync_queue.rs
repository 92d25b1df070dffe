//! What waits for a sync: the groups that the writers have written, and the files that `durability = os` has left
//! unsynced.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::checkpoint::Boundary;
use super::fs::FsFile;
use super::log_view::LogView;
use super::types::AppendError;
use super::written::Written;

/// The groups that wait for a sync.
pub(super) struct SyncQueue {
    state: Mutex<QueueState>,
    arrived: Condvar,
    published: Condvar,
}

#[derive(Default)]
struct QueueState {
    groups: Vec<Written>,
    /// Some of them have been taken, and are being synced.
    syncing: bool,
    /// Files of logs with `durability = os` with unsynced bytes, by slot.
    lazy: HashMap<usize, LazyFile>,
    /// Some of those have been taken, and are being synced.
    flushing: bool,
    life: Life,
}

#[derive(Default, PartialEq, Eq)]
enum Life {
    #[default]
    Running,
    /// Nothing more will be pushed.
    Stopping,
    /// The syncing thread has panicked: nothing more will be synced.
    Dead,
}

impl QueueState {
    fn is_dead(&self) -> bool {
        self.life == Life::Dead
    }

    fn is_stopping(&self) -> bool {
        self.life == Life::Stopping
    }
}

/// A file of a log with `durability = os`, with unsynced bytes.
pub(super) struct LazyFile {
    pub(super) view: Arc<LogView>,
    /// `None` once it is synced and closed: only the slot is still to be written.
    pub(super) file: Option<Arc<dyn FsFile>>,
    pub(super) end: Boundary,
}

impl SyncQueue {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), published: Condvar::new() }
    }

    /// Adds a group; [`SyncQueue::hand_over`] says so to those who sync.
    pub(super) fn push(&self, written: Written) {
        let mut state = self.state.lock();
        if state.is_dead() {
            drop(state);
            return Self::refuse(written);
        }
        state.groups.push(written);
    }

    /// Wakes the syncing thread for what was pushed. But a lone append is given back to a writer who is free to sync it
    /// at once, and who says so with [`SyncQueue::synced`] when it has.
    pub(super) fn hand_over(&self, is_free: bool) -> Option<Written> {
        let mut state = self.state.lock();
        let is_alone = matches!(&state.groups[..], [group] if group.appends() == 1);
        if is_free && is_alone && !state.syncing && !state.is_dead() {
            state.syncing = true;
            return state.groups.pop();
        }
        if !state.groups.is_empty() {
            self.arrived.notify_one();
        }
        None
    }

    /// Nobody will ever sync it: its log takes no more writes.
    fn refuse(written: Written) {
        const REASON: &str = "the syncing thread has died";
        written.view.fail(REASON);
        written.fail(&AppendError::Sealed { reason: REASON.into() });
    }

    pub(super) fn is_dead(&self) -> bool {
        self.state.lock().is_dead()
    }

    /// The syncing thread has panicked: everything that waits for it fails.
    pub(super) fn die(&self) {
        let groups = {
            let mut state = self.state.lock();
            state.life = Life::Dead;
            std::mem::take(&mut state.groups)
        };
        groups.into_iter().for_each(Self::refuse);
        self.synced();
    }

    pub(super) fn push_lazy(&self, lazy: LazyFile) {
        self.state.lock().lazy.insert(lazy.view.slot, lazy);
    }

    /// Waits until less than `max_bytes` of the log are written and unpublished, or none of it.
    pub(super) fn wait_for_room(&self, view: &LogView, size_bytes: u64, max_bytes: u64) {
        let mut state = self.state.lock();
        loop {
            let in_flight = view.in_flight_bytes();
            if state.is_dead() || in_flight == 0 || in_flight + size_bytes <= max_bytes {
                return;
            }
            // It may not have heard yet of what is awaited here.
            self.arrived.notify_one();
            self.published.wait(&mut state);
        }
    }

    /// Waits until nothing of the log waits for a sync.
    pub(super) fn wait_until_idle(&self, view: &LogView) {
        self.wait_for_room(view, 1, 0);
    }

    /// Everything there is, when something has arrived, it is time, or the queue has ended (then `true`).
    pub(super) fn take(&self, until: Instant) -> (Vec<Written>, bool) {
        let mut state = self.state.lock();
        while (state.groups.is_empty() || state.syncing) && !state.is_stopping() {
            if self.arrived.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        let groups = std::mem::take(&mut state.groups);
        state.syncing |= !groups.is_empty();
        (groups, state.is_stopping())
    }

    /// The log has synced its file, and is about to close it: returns when nobody here keeps it open.
    pub(super) fn release_lazy(&self, view: &LogView) {
        let mut state = self.state.lock();
        if let Some(lazy) = state.lazy.get_mut(&view.slot) {
            lazy.file = None;
        }
        while state.flushing && !state.is_dead() {
            self.published.wait(&mut state);
        }
    }

    pub(super) fn take_lazy(&self) -> Vec<LazyFile> {
        let mut state = self.state.lock();
        state.flushing = true;
        state.lazy.drain().map(|(_, lazy)| lazy).collect()
    }

    /// What was taken is synced, and has been let go.
    pub(super) fn flushed(&self) {
        self.state.lock().flushing = false;
        self.published.notify_all();
    }

    /// What was taken to be synced is published: wakes those that wait for room, and who syncs what has come meanwhile.
    pub(super) fn synced(&self) {
        // Under the lock, so that nobody who has just looked misses it.
        let mut state = self.state.lock();
        state.syncing = false;
        self.published.notify_all();
        if !state.groups.is_empty() {
            self.arrived.notify_one();
        }
    }

    /// Whether nothing waits for a sync.
    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().groups.is_empty()
    }

    /// The syncer ends once it has done what is there.
    pub(super) fn stop(&self) {
        let mut state = self.state.lock();
        if !state.is_dead() {
            state.life = Life::Stopping;
        }
        drop(state);
        self.arrived.notify_all();
    }
}

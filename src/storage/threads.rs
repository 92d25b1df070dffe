//! The threads of the storage layer: a few writers, each the owner of its logs; one that syncs groups, publishes and
//! acknowledges; one for what can wait (sealing, checkpoints, deletions; see [`super::upkeep`]).
//!
//! ```text
//! append -> [commands] -> writer: gather, write -> [SyncQueue] -> syncer: sync, durable slots, publish, acknowledge
//! ```
//! While the syncer waits for the disk, the writers write the next group.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::checkpoint::Boundary;
use super::durable::DurableSlots;
use super::fs::FsFile;
use super::log::{Log, LogEnv};
use super::log_view::LogView;
use super::open_logs::OpenLogs;
use super::stats::Counters;
use super::syncer::Syncer;
use super::types::{Append, AppendError, Done, Durability, LogConfig, LogError};
use super::upkeep::Job;
use super::written::Written;

/// A log's number in this process.
pub(super) type LogNumber = u64;

/// What a writer thread is asked to do; in order.
pub(super) enum Command {
    /// It owns this log from now on.
    Open(LogNumber, Box<Log>),
    /// Appends a batch.
    Append(LogNumber, Append),
    /// New settings.
    Configure(LogNumber, LogConfig, Done<()>),
    /// Lets go of the log; what was accepted is written and synced or failed first. Answers when that is done.
    Close(LogNumber, Sender<()>),
    /// Writes what was accepted, and ends.
    Stop,
}

/// The groups that wait for a sync.
pub(super) struct SyncQueue {
    state: Mutex<QueueState>,
    arrived: Condvar,
    published: Condvar,
}

#[derive(Default)]
struct QueueState {
    groups: Vec<Written>,
    /// Files of logs with `durability = os` with unsynced bytes, by slot.
    lazy: HashMap<usize, LazyFile>,
    /// Some of them have been taken, and are being synced.
    flushing: bool,
    stop: bool,
    /// The syncing thread has panicked: nothing more will be synced.
    dead: bool,
}

struct LazyFile {
    view: Arc<LogView>,
    /// `None` once it is synced and closed: only the slot is still to be written.
    file: Option<Arc<dyn FsFile>>,
    end: Boundary,
}

impl SyncQueue {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), published: Condvar::new() }
    }

    fn push(&self, written: Written) {
        let mut state = self.state.lock();
        if state.dead {
            drop(state);
            return Self::refuse(written);
        }
        state.groups.push(written);
        self.arrived.notify_one();
    }

    /// Nobody will ever sync it: its log takes no more writes.
    fn refuse(written: Written) {
        const REASON: &str = "the syncing thread has died";
        written.view.fail(REASON);
        written.fail(&AppendError::Sealed { reason: REASON.into() });
    }

    fn is_dead(&self) -> bool {
        self.state.lock().dead
    }

    /// The syncing thread has panicked: everything that waits for it fails.
    fn die(&self) {
        let groups = {
            let mut state = self.state.lock();
            state.dead = true;
            std::mem::take(&mut state.groups)
        };
        groups.into_iter().for_each(Self::refuse);
        self.notify_published();
    }

    fn push_lazy(&self, lazy: LazyFile) {
        self.state.lock().lazy.insert(lazy.view.slot, lazy);
    }

    /// Waits until less than `max_bytes` of the log are written and unpublished, or none of it.
    fn wait_for_room(&self, view: &LogView, size_bytes: u64, max_bytes: u64) {
        let mut state = self.state.lock();
        loop {
            let in_flight = view.in_flight_bytes();
            if state.dead || in_flight == 0 || in_flight + size_bytes <= max_bytes {
                return;
            }
            self.published.wait(&mut state);
        }
    }

    /// Waits until nothing of the log waits for a sync.
    fn wait_until_idle(&self, view: &LogView) {
        self.wait_for_room(view, 1, 0);
    }

    /// Everything there is, when something has arrived, it is time, or the queue has ended (then `true`).
    fn take(&self, until: Instant) -> (Vec<Written>, bool) {
        let mut state = self.state.lock();
        while state.groups.is_empty() && !state.stop {
            if self.arrived.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        (std::mem::take(&mut state.groups), state.stop)
    }

    /// The log has synced its file, and is about to close it: returns when nobody here keeps it open.
    fn release_lazy(&self, view: &LogView) {
        let mut state = self.state.lock();
        if let Some(lazy) = state.lazy.get_mut(&view.slot) {
            lazy.file = None;
        }
        while state.flushing && !state.dead {
            self.published.wait(&mut state);
        }
    }

    fn take_lazy(&self) -> Vec<LazyFile> {
        let mut state = self.state.lock();
        state.flushing = true;
        state.lazy.drain().map(|(_, lazy)| lazy).collect()
    }

    /// What was taken is synced, and has been let go.
    fn flushed(&self) {
        self.state.lock().flushing = false;
        self.published.notify_all();
    }

    /// Wakes those that wait for room.
    fn notify_published(&self) {
        // Under the lock, so that nobody who has just looked misses it.
        let _state = self.state.lock();
        self.published.notify_all();
    }

    /// The syncer ends once it has done what is there.
    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.arrived.notify_all();
    }
}

/// One writer thread: owns logs, and alone changes them.
pub(super) struct Writer {
    pub(super) commands: Receiver<Command>,
    pub(super) queue: Arc<SyncQueue>,
    pub(super) jobs: Sender<Job>,
    pub(super) env: Arc<LogEnv>,
    pub(super) max_group_bytes: u64,
    pub(super) logs: HashMap<LogNumber, Box<Log>>,
    /// Logs with something gathered.
    pub(super) touched: Vec<LogNumber>,
    pub(super) open_logs: OpenLogs,
}

impl Writer {
    /// Runs until it is stopped or everybody who could ask it for something is gone.
    pub(super) fn run(mut self) {
        if std::panic::catch_unwind(AssertUnwindSafe(|| self.run_until_stopped())).is_err() {
            tracing::error!("a writing thread has panicked; its partitions take no more writes");
            self.die();
        }
        // What still waits to be read here is refused when the channel goes.
        while let Ok(command) = self.commands.try_recv() {
            refuse(command, None);
        }
    }

    fn run_until_stopped(&mut self) {
        while let Ok(command) = self.commands.recv() {
            if self.round(command) {
                break;
            }
        }
        self.logs.values_mut().for_each(|log| log.give_back());
    }

    /// What it was about to do is in an unknown state. No log of its own takes writes any more, nor any that it is still
    /// to be given; what has been handed to the syncing thread is not acknowledged either.
    fn die(&mut self) {
        for (_, log) in self.logs.drain() {
            log.view().fail(WRITER_DIED);
        }
        while let Ok(command) = self.commands.recv() {
            match command {
                Command::Stop => return,
                Command::Open(_, log) => log.view().fail(WRITER_DIED),
                command => refuse(command, Some(WRITER_DIED.into())),
            }
        }
    }

    /// Carries out `command` and what else has arrived, up to a group's worth, and writes what was gathered. Returns
    /// whether it was told to stop.
    pub(super) fn round(&mut self, command: Command) -> bool {
        let (mut gathered, mut stop) = (0, false);
        let mut next = Some(command);
        while let Some(command) = next {
            match self.handle(command) {
                Some(bytes) => gathered += bytes,
                None => stop = true,
            }
            let full = stop || gathered >= self.max_group_bytes;
            next = if full { None } else { self.commands.try_recv().ok() };
        }
        for number in std::mem::take(&mut self.touched) {
            self.write(number);
        }
        stop
    }

    /// Returns the bytes gathered, or `None` to stop.
    fn handle(&mut self, command: Command) -> Option<u64> {
        match command {
            Command::Append(number, append) => return Some(self.gather(number, append)),
            Command::Open(number, log) => {
                self.logs.insert(number, log);
            }
            Command::Configure(number, config, done) => self.configure(number, config, done),
            Command::Close(number, done) => {
                self.write(number);
                if let Some(mut log) = self.logs.remove(&number) {
                    self.queue.wait_until_idle(log.view());
                    log.give_back();
                }
                self.open_logs.closed(number);
                // Nobody need wait for it.
                let _ = done.send(());
            }
            Command::Stop => return None,
        }
        Some(0)
    }

    fn gather(&mut self, number: LogNumber, append: Append) -> u64 {
        let Some(log) = self.logs.get_mut(&number) else {
            (append.done)(Err(AppendError::Closed));
            return 0;
        };
        if log.must_roll(&append.batch) && log.takes(&append) {
            self.write(number);
            // Asked again: a write that failed may have left the segment empty.
            let log = self.logs.get_mut(&number);
            if log.is_some_and(|log| log.must_roll(&append.batch))
                && let Err(error) = self.roll(number)
            {
                (append.done)(Err(error));
                return 0;
            }
        }
        let Some(log) = self.logs.get_mut(&number) else { return 0 };
        let size = append.batch.len() as u64;
        let had_gathered = log.has_gathered();
        log.gather(append);
        if !had_gathered && log.has_gathered() {
            self.touched.push(number);
        }
        size
    }

    fn roll(&mut self, number: LogNumber) -> Result<(), AppendError> {
        self.make_room(number);
        let Some(log) = self.logs.get_mut(&number) else { return Err(AppendError::Closed) };
        let rolled = log.roll()?;
        // Without the upkeep thread the segment stays unsealed until the next start.
        let _ = self.jobs.send(Job::Seal(rolled));
        Ok(())
    }

    fn write(&mut self, number: LogNumber) {
        let Some(log) = self.logs.get_mut(&number) else { return };
        if !log.has_gathered() {
            return;
        }
        self.make_room(number);
        let Some(log) = self.logs.get_mut(&number) else { return };
        let durability = log.config().durability;
        if durability == Durability::Fsync {
            self.queue.wait_for_room(log.view(), log.gathered_bytes(), self.max_group_bytes);
        }
        let Some(written) = log.write() else { return };
        // With `durability = os` too, what is acknowledged is to be synced some time.
        if written.may_skip_sync(durability) && !self.queue.is_dead() {
            let lazy = LazyFile {
                view: Arc::clone(&written.view),
                file: Some(Arc::clone(&written.file)),
                end: written.end,
            };
            written.publish(&self.env.tail_cache);
            self.queue.push_lazy(lazy);
        } else {
            self.queue.push(written);
        }
    }

    /// Before the file of a log is used: as long as there are too many open, another log closes its own. One that has
    /// nothing unsynced if there is one; else the next group waits until the one whose turn it is has synced.
    fn make_room(&mut self, number: LogNumber) {
        if self.open_logs.must_make_room(number) {
            let is_idle = |number: &LogNumber| self.logs.get(number).is_none_or(|log| log.is_synced());
            let idle = self.open_logs.oldest_first().find(is_idle);
            if let Some(other) = idle.or_else(|| self.open_logs.oldest_first().next()) {
                self.close_file(other);
            }
        }
        self.open_logs.used(number);
    }

    fn close_file(&mut self, number: LogNumber) {
        self.open_logs.closed(number);
        let Some(log) = self.logs.get_mut(&number) else { return };
        if !log.is_synced() {
            self.queue.wait_until_idle(log.view());
        }
        if !log.is_synced() {
            // What `durability = os` has left unsynced. If it fails, that log takes no more writes.
            let _ = log.sync();
        }
        self.queue.release_lazy(log.view());
        log.close_file();
    }

    fn configure(&mut self, number: LogNumber, config: LogConfig, done: Done<()>) {
        self.write(number);
        let Some(log) = self.logs.get_mut(&number) else { return done(Err(LogError::Closed)) };
        let before = log.config().durability;
        if before == Durability::Os
            && config.durability == Durability::Fsync
            && let Err(reason) = log.sync()
        {
            return done(Err(LogError::Sealed { reason }));
        }
        log.set_config(config);
        done(Ok(()));
    }
}

/// Why a log takes no more writes whose writer has panicked.
pub(super) const WRITER_DIED: &str = "the thread that writes it has panicked";

/// Answers a command that nobody will carry out: its log takes no writes, for this reason, or is closed.
pub(super) fn refuse(command: Command, sealed: Option<Arc<str>>) {
    match command {
        Command::Append(_, append) => {
            (append.done)(Err(sealed.map_or(AppendError::Closed, |reason| AppendError::Sealed { reason })));
        }
        Command::Configure(_, _, done) => {
            done(Err(sealed.map_or(LogError::Closed, |reason| LogError::Sealed { reason })));
        }
        Command::Open(..) | Command::Close(..) | Command::Stop => {}
    }
}

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
    pub(super) fn run(self) {
        let queue = Arc::clone(&self.queue);
        if std::panic::catch_unwind(AssertUnwindSafe(|| self.run_until_stopped())).is_err() {
            tracing::error!("the syncing thread has panicked; all partitions stop taking writes");
            queue.die();
        }
    }

    fn run_until_stopped(self) {
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
            if stop && self.queue.state.lock().groups.is_empty() {
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

    /// Syncs the files of a group, then publishes it.
    fn sync_groups(&self, groups: Vec<Written>) {
        let appends = groups.iter().map(|group| group.appends() as u64).sum();
        let bytes = groups.iter().map(|group| group.size_bytes).sum();
        let started = Instant::now();
        self.sync_files(groups.iter().map(|group| (&group.view, Some(&group.file), group.end)));
        self.counters.synced(appends, bytes, started.elapsed());
        for group in groups {
            group.publish(&self.env.tail_cache);
        }
        self.queue.notify_published();
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

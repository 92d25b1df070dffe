//! An open data directory: opens and creates logs, runs the threads, and ends in an orderly way.

mod going_on;
mod opening;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::checkpoint::{Boundary, LogCheckpoint, LogKey, Mark};
use super::checkpointer::{Checkpointer, Registry};
use super::crew::{Crew, Threads};
use super::data_dir::{DataDir, OpenError};
use super::durable::DurableSlots;
use super::epochs::LeaderEpochs;
use super::fs::{Fs, RealFs, is_no_room};
use super::handle::LogHandle;
use super::index::{IndexResume, SegmentIndex};
use super::log::{Log, LogEnv, LogStart, Rolled};
use super::log_dirs::LogDirs;
use super::log_view::{LogParts, LogView};
use super::open_logs::OpenLogs;
use super::open_segments::OpenSegments;
use super::producer_recovery::RecoveredProducers;
use super::producers::ProducerLimits;
use super::recovery::{Recovered, key};
use super::room::Room;
use super::segment::Segment;
use super::small_file::{self, FileKind, ReadFileError};
use super::stats::Counters;
use super::sync_queue::SyncQueue;
use super::sync_thread::SyncThread;
use super::syncer::Syncer;
use super::tail_cache::TailCache;
use super::types::{LogError, LogSpec, StorageStats};
use super::upkeep::{Job, Upkeep};
use super::writer::{Command, Writer};
use super::{checkpointer, limits, lost_epochs};
use crate::clock::Clock;
use crate::config::StorageConfig;
use crate::types::{LeaderEpoch, Offset};

/// The version of files that the layer above keeps here.
const NAMED_FILE_VERSION: u8 = 1;

/// One open data directory. Dropping it without [`Store::close`] is like a crash of the process.
pub struct Store {
    fs: Arc<dyn Fs>,
    dirs: LogDirs,
    room: Arc<Room>,
    config: StorageConfig,
    env: Arc<LogEnv>,
    counters: Arc<Counters>,
    was_clean: bool,
    /// What the last run left: checkpoint entries and durable slots.
    prior_logs: BTreeMap<LogKey, LogCheckpoint>,
    prior_durable: HashMap<LogKey, Offset>,
    logs: Arc<Registry>,
    slots: Arc<Mutex<DurableSlots>>,
    checkpointer: Arc<Checkpointer>,
    queue: Arc<SyncQueue>,
    writers: Vec<Sender<Command>>,
    next_number: AtomicU64,
    jobs: Sender<Job>,
    /// Until the upkeep thread starts: its end of the channel, and what recovery found to seal.
    upkeep: Mutex<Option<(Receiver<Job>, VecDeque<Rolled>)>>,
    /// The slots of logs that could not be opened.
    unopened: Mutex<HashMap<LogKey, usize>>,
    threads: Mutex<Option<Threads>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.dirs.data.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Locks the data directory, checks its format and reads what the last run left behind. Opens no log. Blocks.
    ///
    /// # Errors
    /// [`OpenError`] if the directory cannot be used, or is in use.
    pub fn open(dir: &Path, config: &StorageConfig, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(RealFs), dir, config, clock)
    }

    /// The same on any file system.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(
        fs: Arc<dyn Fs>,
        dir: &Path,
        config: &StorageConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let (store, crew) = Self::assemble(fs, dir, config, clock)?;
        let threads = crew.start().map_err(|source| OpenError::Io {
            dir: dir.to_owned(),
            path: dir.to_owned(),
            source,
        })?;
        *store.threads.lock() = Some(threads);
        Ok(store)
    }

    /// All parts of a store, before its threads start: a simulation steps them instead.
    pub(super) fn assemble(
        fs: Arc<dyn Fs>,
        dir: &Path,
        config: &StorageConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Crew), OpenError> {
        let data = DataDir::open(&*fs, dir)?;
        let room = Room::new(fs, dir, config.reserve_bytes);
        let fs = room.for_upkeep();
        let io_error = |path: PathBuf| {
            let dir = dir.to_owned();
            move |source| OpenError::Io { dir, path, source }
        };
        let checkpoint = lost_epochs::checkpoint(&*fs, dir).map_err(|error| match error {
            ReadFileError::Io { path, source } => OpenError::Io { dir: dir.to_owned(), path, source },
            ReadFileError::Frame { path, source } => OpenError::Damaged { path, detail: source.to_string() },
        })?;
        let slots_path = dir.join(super::durable::FILE);
        let prior_durable = DurableSlots::read(&*fs, dir).map_err(io_error(slots_path.clone()))?;
        // Where something was durable there was a checkpoint too, and it has been lost.
        let is_new = checkpoint.is_none() && prior_durable.is_empty();
        let prior = checkpoint.unwrap_or_default();
        let leader_epoch = if is_new { prior.leader_epoch } else { prior.next_epoch() };
        let slots = DurableSlots::open(&*fs, dir).map_err(io_error(slots_path))?;
        let syncer = Syncer::new(&*fs, dir, config.sync_method).map_err(io_error(dir.to_owned()))?;
        let (syncer, slots) = (Arc::new(Mutex::new(syncer)), Arc::new(Mutex::new(slots)));
        let logs: Arc<Registry> = Arc::default();
        let dirs = LogDirs::new(data, Arc::clone(&room), Arc::clone(&clock));
        let env = Arc::new(LogEnv {
            clock,
            open_segments: Arc::new(OpenSegments::new(config.open_segments)),
            tail_cache: TailCache::new(config.tail_cache_bytes),
            leader_epoch,
            index_interval_bytes: config.index_interval_bytes,
            index_max_bytes: config.index_max_bytes,
            producer_limits: ProducerLimits {
                expiration_ms: config.producer_id_expiration_ms,
                max_producers: config.max_producers_per_partition,
            },
            page_cache: config.page_cache,
        });
        let checkpointer = Arc::new(Checkpointer {
            fs: Arc::clone(&fs),
            room: Arc::clone(&room),
            dir: dir.to_owned(),
            logs: Arc::clone(&logs),
            syncer: Arc::clone(&syncer),
            clock: Arc::clone(&env.clock),
            leader_epoch: Mutex::new(leader_epoch),
            last: Mutex::new(prior.logs.clone()),
            logs_at_a_time: checkpointer::logs_at_a_time(limits::descriptors()),
        });
        let (jobs, job_receiver) = channel();
        let mut store = Self {
            fs,
            dirs,
            room,
            config: config.clone(),
            env,
            counters: Arc::default(),
            was_clean: prior.clean || is_new,
            prior_logs: prior.logs,
            prior_durable,
            logs,
            slots,
            checkpointer,
            queue: Arc::new(SyncQueue::new()),
            writers: Vec::new(),
            next_number: AtomicU64::new(0),
            jobs,
            upkeep: Mutex::new(Some((job_receiver, VecDeque::new()))),
            unopened: Mutex::default(),
            threads: Mutex::default(),
        };
        let crew = store.crew(syncer);
        Ok((store, crew))
    }

    fn crew(&mut self, syncer: Arc<Mutex<Syncer>>) -> Crew {
        let mut writers = Vec::new();
        let syncer = Arc::new(SyncThread {
            queue: Arc::clone(&self.queue),
            syncer,
            slots: Arc::clone(&self.slots),
            env: Arc::clone(&self.env),
            counters: Arc::clone(&self.counters),
            flush_interval: Duration::from_millis(self.config.flush_interval_ms),
        });
        let open_logs = self.config.open_logs / self.config.writer_threads;
        for _ in 0..self.config.writer_threads {
            let (sender, commands) = channel();
            writers.push(Writer {
                commands,
                queue: Arc::clone(&self.queue),
                syncer: Arc::clone(&syncer),
                jobs: self.jobs.clone(),
                env: Arc::clone(&self.env),
                max_group_bytes: self.config.max_group_bytes,
                logs: HashMap::new(),
                touched: Vec::new(),
                ahead: HashSet::new(),
                looked_ahead: Instant::now(),
                open_logs: OpenLogs::new(open_logs),
            });
            self.writers.push(sender);
        }
        Crew { writers, syncer }
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dirs.data.path
    }

    /// Given to the directory when it was created; a UUID.
    pub fn cluster_id(&self) -> &str {
        &self.dirs.data.meta.cluster_id
    }

    /// This broker's number in its cluster.
    pub fn broker_id(&self) -> i32 {
        self.dirs.data.meta.broker_id
    }

    /// Whether the last run, if there was one, ended in an orderly way.
    pub fn was_clean(&self) -> bool {
        self.was_clean
    }

    /// Stamped on every batch of this run, but in logs that have gone on behind a loss; raised by each start that was not
    /// clean.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.env.leader_epoch
    }

    /// Reads a small file that [`Store::replace_file`] wrote; `None` if there is none. Blocks.
    ///
    /// # Errors
    /// `Io` if it cannot be read or is damaged (kind `InvalidData`).
    pub fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, LogError> {
        read_named(&*self.fs, &self.dir().join(name))
    }

    /// Replaces a small file atomically and durably; the one before is kept as `<name>.old`. Blocks.
    ///
    /// # Errors
    /// `Io`; the file before is then still there.
    pub fn replace_file(&self, name: &str, body: &[u8]) -> Result<(), LogError> {
        let bytes = small_file::encode(FileKind::Named, NAMED_FILE_VERSION, body);
        small_file::replace_keeping_old(&*self.fs, self.dir(), name, &bytes)
            .map_err(|error| log_io_error(self.dir().join(name), error))
    }

    /// Whether there are directories of logs, known or not. Blocks.
    ///
    /// # Errors
    /// `Io`.
    pub fn has_log_dirs(&self) -> Result<bool, LogError> {
        self.dirs.any().map_err(|error| log_io_error(self.dir().to_owned(), error))
    }

    /// Creates the directories of new logs, durably. They do not count until the caller has recorded them: after a
    /// crash before that, the next start sets them aside. Blocks.
    ///
    /// # Errors
    /// `Io`; nothing is left of them then. `AlreadyExists` within if one of them is open.
    pub fn create_logs(&self, specs: &[LogSpec]) -> Result<Vec<LogHandle>, LogError> {
        let is_open = |dir: &Path| self.logs.lock().values().any(|view| *view.dir == *dir);
        let dirs = self
            .dirs
            .create(specs, self.env.leader_epoch, is_open)
            .map_err(|error| log_io_error(self.dir().to_owned(), error))?;
        Ok(specs.iter().zip(dirs).map(|(spec, dir)| self.add_new(spec, dir.into())).collect())
    }

    fn add_new(&self, spec: &LogSpec, dir: Arc<Path>) -> LogHandle {
        let interval_bytes = self.env.index_interval_bytes;
        let segment = Arc::new(Segment::new(
            Arc::clone(&self.fs),
            Arc::clone(&dir),
            Offset::ZERO,
            0,
            SegmentIndex::new(interval_bytes),
            spec.config.segment_bytes,
            Arc::clone(&self.env.open_segments),
        ));
        let mark = Mark { offset: Offset::ZERO, segment: Offset::ZERO, position: 0 };
        let end = Boundary { mark, index: IndexResume::default() };
        let epochs = LeaderEpochs::of_new_log(self.env.leader_epoch);
        let producers = RecoveredProducers::none(self.env.producer_limits);
        let new = Recovered {
            dir,
            segments: vec![segment],
            unsealed: Vec::new(),
            log_start: Offset::ZERO,
            end,
            synced: end,
            epochs,
            producers,
            scanned_bytes: None,
            fault: None,
        };
        self.add(spec, new, self.env.leader_epoch)
    }

    /// Hands an opened log to a writer, which stamps `leader_epoch` on its batches.
    fn add(&self, spec: &LogSpec, recovered: Recovered, leader_epoch: LeaderEpoch) -> LogHandle {
        let slot = self.slots.lock().assign(key(spec), recovered.end.mark.offset);
        let active = recovered.segments.last().cloned();
        let view = Arc::new(LogView::new(LogParts {
            fs: Arc::clone(&self.fs),
            dir: recovered.dir,
            topic: spec.topic.clone(),
            partition: spec.partition,
            key: key(spec),
            counters: Arc::clone(&self.counters),
            segments: recovered.segments,
            log_start: recovered.log_start,
            end: recovered.end,
            synced: recovered.synced,
            epochs: recovered.epochs,
            producers: recovered.producers,
            slot,
            lost: recovered.fault.as_ref().and_then(|fault| fault.lost),
        }));
        if let Some(fault) = &recovered.fault {
            view.fail(&fault.reason);
        }
        if let Some((_, unsealed)) = self.upkeep.lock().as_mut() {
            unsealed.extend(recovered.unsealed.into_iter().map(|(segment, next, len)| Rolled {
                view: Arc::clone(&view),
                segment,
                next,
                len,
                block_crcs: None,
                producers: None,
            }));
        }
        self.logs.lock().insert(view.key, Arc::clone(&view));
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let writer = number as usize % self.writers.len().max(1);
        let commands = self.writers.get(writer).cloned().unwrap_or_else(|| channel().0);
        if let Some(segment) = active {
            let fs = self.room.for_log(spec.uses_reserve);
            let start = LogStart { fs, segment, mark: recovered.end.mark, leader_epoch };
            let log = Log::new(Arc::clone(&view), Arc::clone(&self.env), spec.config, start);
            // A writer that has died refuses each append with its own answer.
            let _ = commands.send(Command::Open(number, Box::new(log)));
        }
        LogHandle { view, number, commands, jobs: self.jobs.clone(), leader_epoch }
    }

    /// Once every known log has been opened, and before the first append: takes back the clean mark, sets aside
    /// directories that belong to none of them, finishes deletions and starts the periodic work. If the disk is too full
    /// for that, everything can be read, and appends are refused until there is room. Blocks.
    ///
    /// # Errors
    /// `Io`: nothing may be appended then.
    pub fn start(&self) -> Result<(), LogError> {
        let Some(upkeep) = self.prepare()? else { return Ok(()) };
        let mut threads = self.threads.lock();
        let Some(threads) = threads.as_mut() else { return Ok(()) };
        threads.start_upkeep(upkeep).map_err(|error| log_io_error(self.dir().to_owned(), error))
    }

    /// Does what [`Store::start`] says, but for starting the thread; `None` if it was done before.
    pub(super) fn prepare(&self) -> Result<Option<Upkeep>, LogError> {
        let dir_error = |error| log_io_error(self.dir().to_owned(), error);
        let Some((jobs, unsealed)) = self.upkeep.lock().take() else { return Ok(None) };
        match self.checkpointer.write(false) {
            Err(error) if is_no_room(&error) => {
                tracing::warn!(%error, "no room for the checkpoint: appends are refused until there is");
            }
            outcome => outcome.map_err(dir_error)?,
        }
        match self.slots.lock().write() {
            // Only a bound, and what stands there holds: the first group writes it again.
            Err(error) if is_no_room(&error) => tracing::warn!(%error, "cannot write the durable offsets"),
            outcome => outcome.map_err(dir_error)?,
        }
        self.dirs.set_aside_unknown().map_err(dir_error)?;
        let deleted = self.dirs.deleted();
        if !deleted.is_empty() {
            // The receiver is in the hand of this call: it is there.
            let _ = self.jobs.send(Job::RemoveDirs(deleted));
        }
        Ok(Some(Upkeep {
            fs: Arc::clone(&self.fs),
            jobs,
            room: Arc::clone(&self.room),
            counters: Arc::clone(&self.counters),
            checkpointer: Arc::clone(&self.checkpointer),
            checkpoint_interval: Duration::from_millis(self.config.checkpoint_interval_ms),
            unsealed,
        }))
    }

    /// Closes logs and removes their directories; the caller has recorded that they are no more. What was accepted and
    /// not written yet is refused. Of logs that could not be opened, the directories that are theirs beyond doubt are
    /// removed too. Blocks.
    ///
    /// # Errors
    /// `Io`: some directories are still there then, and will be set aside at the next start.
    pub fn delete_logs(&self, logs: &[LogHandle], unopened: &[LogSpec]) -> Result<(), LogError> {
        for log in logs {
            log.view.close();
        }
        let waiting: Vec<_> = logs
            .iter()
            .filter_map(|log| {
                let (done, closed) = channel();
                log.commands.send(Command::Close(log.number, done)).ok().map(|()| closed)
            })
            .collect();
        for closed in waiting {
            // An error: the writer is gone, and the log with it.
            let _ = closed.recv();
        }
        let opened = logs.iter().map(|log| (log.view.dir.to_path_buf(), log.view.key));
        let dirs: Vec<_> = opened.chain(unopened.iter().filter_map(|spec| self.dirs.find(spec))).collect();
        let keys: Vec<LogKey> = logs.iter().map(|log| log.view.key).chain(unopened.iter().map(key)).collect();
        {
            let (mut registry, mut unopened) = (self.logs.lock(), self.unopened.lock());
            let mut slots = self.slots.lock();
            for key in &keys {
                let slot = registry.remove(key).map(|view| view.slot).or_else(|| unopened.remove(key));
                if let Some(slot) = slot {
                    slots.release(slot);
                }
            }
        }
        self.checkpointer.forget(&keys);
        let (moved, outcome) = self.dirs.move_away(&dirs);
        // Without the thread they stay until the next start.
        let _ = self.jobs.send(Job::RemoveDirs(moved));
        outcome.map_err(|error| log_io_error(self.dir().to_owned(), error))
    }

    /// Counters and gauges.
    pub fn stats(&self) -> StorageStats {
        let counters = &self.counters;
        let read_only = self.logs.lock().values().filter(|view| view.failure().is_some()).count();
        StorageStats {
            syncs: counters.syncs.get(),
            sync_micros_total: counters.sync_micros_total.get(),
            sync_micros_max: counters.sync_micros_max.get(),
            sync_group_bytes_total: counters.sync_group_bytes_total.get(),
            sync_group_appends_total: counters.sync_group_appends_total.get(),
            sync_group_bytes_max: counters.sync_group_bytes_max.get(),
            appended_batches: counters.appended_batches.get(),
            appended_bytes: counters.appended_bytes.get(),
            tail_cache_bytes: self.env.tail_cache.used_bytes(),
            tail_cache_reads: counters.tail_cache_reads.get(),
            segment_reads: counters.segment_reads.get(),
            read_only_logs: u32::try_from(read_only).unwrap_or(u32::MAX),
            recovered_logs: u32::try_from(counters.recovered_logs.get()).unwrap_or(u32::MAX),
            recovered_bytes: counters.recovered_bytes.get(),
            upkeep_panics: counters.upkeep_panics.get(),
        }
    }

    /// The orderly end: finishes what was accepted, syncs, and writes indexes, checkpoint and the clean mark. What comes
    /// after is refused. A second call does nothing. Blocks.
    ///
    /// # Errors
    /// `Io`: the next start recovers as after a crash, and nothing acknowledged is lost.
    pub fn close(&self) -> Result<(), LogError> {
        if self.stop_threads() { self.finish() } else { Ok(()) }
    }

    /// The last checkpoint, with the clean mark, once nothing is under way.
    pub(super) fn finish(&self) -> Result<(), LogError> {
        let checkpointed = self.checkpointer.write(true);
        for view in self.logs.lock().values() {
            view.close();
        }
        checkpointed.map_err(|error| log_io_error(self.dir().to_owned(), error))
    }

    /// Lets the threads finish what they have; `false` if they were stopped before.
    fn stop_threads(&self) -> bool {
        let Some(threads) = self.threads.lock().take() else { return false };
        threads.stop(&self.writers, &self.queue, &self.jobs);
        true
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop_threads();
    }
}

/// Reads a small file of the layer above; `None` if there is none.
pub(super) fn read_named(fs: &dyn Fs, path: &Path) -> Result<Option<Vec<u8>>, LogError> {
    small_file::read(fs, path, FileKind::Named, NAMED_FILE_VERSION).map_err(|error| match error {
        ReadFileError::Io { path, source } => LogError::Io { path, source: Arc::new(source) },
        ReadFileError::Frame { path, source } => LogError::Io {
            path,
            source: Arc::new(io::Error::new(io::ErrorKind::InvalidData, source.to_string())),
        },
    })
}

fn log_io_error(path: PathBuf, error: io::Error) -> LogError {
    LogError::Io { path, source: Arc::new(error) }
}

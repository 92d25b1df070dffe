//! An open data directory: opens and creates logs, runs the threads, and ends in an orderly way.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::checkpoint::{Boundary, Checkpoint, LogCheckpoint, LogKey, Mark};
use super::checkpointer::{Checkpointer, Registry};
use super::crew::{Crew, Threads};
use super::data_dir::{DataDir, OpenError};
use super::durable::DurableSlots;
use super::epochs::LeaderEpochs;
use super::fs::{Fs, OpenHow, RealFs, raise_descriptor_limit};
use super::handle::LogHandle;
use super::index::{IndexResume, SegmentIndex};
use super::log::{Log, LogEnv, LogStart, Rolled};
use super::log_view::{LogParts, LogView};
use super::open_segments::OpenSegments;
use super::recovery::{Prior, Recovered, key, open_log};
use super::segment::{Segment, file_name};
use super::small_file::{self, FileKind, ReadFileError};
use super::stats::Counters;
use super::syncer::Syncer;
use super::tail_cache::TailCache;
use super::threads::{Command, SyncQueue, SyncThread, Writer};
use super::types::{LogError, LogSpec, OpenLogError, StorageStats};
use super::upkeep::{Job, Upkeep};
use super::{identity, seals};
use crate::clock::Clock;
use crate::config::StorageConfig;
use crate::types::{LeaderEpoch, Offset};

/// The version of files that the layer above keeps here.
const NAMED_FILE_VERSION: u8 = 1;

/// One open data directory. Dropping it without [`Store::close`] is like a crash of the process.
pub struct Store {
    fs: Arc<dyn Fs>,
    data: DataDir,
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
    known_dirs: Mutex<HashSet<PathBuf>>,
    threads: Mutex<Option<Threads>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.data.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Locks the data directory, checks its format and reads what the last run left behind. Opens no log. Blocks.
    ///
    /// # Errors
    /// [`OpenError`] if the directory cannot be used, or is in use.
    pub fn open(dir: &Path, config: &StorageConfig, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        raise_descriptor_limit();
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
        let io_error = |path: PathBuf| {
            let dir = dir.to_owned();
            move |source| OpenError::Io { dir, path, source }
        };
        let checkpoint = Checkpoint::read(&*fs, dir).map_err(|error| match error {
            ReadFileError::Io { path, source } => OpenError::Io { dir: dir.to_owned(), path, source },
            ReadFileError::Frame { path, source } => OpenError::Damaged { path, detail: source.to_string() },
        })?;
        let is_new = checkpoint.is_none();
        let prior = checkpoint.unwrap_or_default();
        let leader_epoch =
            if prior.clean || is_new { prior.leader_epoch } else { LeaderEpoch(prior.leader_epoch.0 + 1) };
        let slots_path = dir.join(super::durable::FILE);
        let prior_durable = DurableSlots::read(&*fs, dir).map_err(io_error(slots_path.clone()))?;
        let slots = DurableSlots::open(&*fs, dir).map_err(io_error(slots_path))?;
        let syncer = Syncer::new(&*fs, dir, config.sync_method).map_err(io_error(dir.to_owned()))?;
        let (syncer, slots) = (Arc::new(Mutex::new(syncer)), Arc::new(Mutex::new(slots)));
        let logs: Arc<Registry> = Arc::default();
        let env = Arc::new(LogEnv {
            clock,
            open_segments: Arc::new(OpenSegments::new(config.open_segments)),
            tail_cache: TailCache::new(config.tail_cache_bytes),
            leader_epoch,
            index_interval_bytes: config.index_interval_bytes,
            index_max_bytes: config.index_max_bytes,
        });
        let checkpointer = Arc::new(Checkpointer {
            fs: Arc::clone(&fs),
            dir: dir.to_owned(),
            logs: Arc::clone(&logs),
            syncer: Arc::clone(&syncer),
            leader_epoch,
            last: Mutex::new(prior.logs.clone()),
        });
        let (jobs, job_receiver) = channel();
        let mut store = Self {
            fs,
            data,
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
            known_dirs: Mutex::default(),
            threads: Mutex::default(),
        };
        let crew = store.crew(syncer);
        Ok((store, crew))
    }

    fn crew(&mut self, syncer: Arc<Mutex<Syncer>>) -> Crew {
        let mut writers = Vec::new();
        for _ in 0..self.config.writer_threads {
            let (sender, commands) = channel();
            writers.push(Writer {
                commands,
                queue: Arc::clone(&self.queue),
                jobs: self.jobs.clone(),
                env: Arc::clone(&self.env),
                max_group_bytes: self.config.max_group_bytes,
                logs: HashMap::new(),
                touched: Vec::new(),
            });
            self.writers.push(sender);
        }
        let syncer = SyncThread {
            queue: Arc::clone(&self.queue),
            syncer,
            slots: Arc::clone(&self.slots),
            env: Arc::clone(&self.env),
            counters: Arc::clone(&self.counters),
            flush_interval: Duration::from_millis(self.config.flush_interval_ms),
        };
        Crew { writers, syncer }
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.data.path
    }

    /// Given to the directory when it was created; a UUID.
    pub fn cluster_id(&self) -> &str {
        &self.data.meta.cluster_id
    }

    /// This broker's number in its cluster.
    pub fn broker_id(&self) -> i32 {
        self.data.meta.broker_id
    }

    /// Whether the last run, if there was one, ended in an orderly way.
    pub fn was_clean(&self) -> bool {
        self.was_clean
    }

    /// Stamped on every batch of this run; raised by each start that was not clean.
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

    /// Creates the directories of new logs, durably. They do not count until the caller has recorded them: after a
    /// crash before that, the next start sets them aside. Blocks.
    ///
    /// # Errors
    /// `Io`; nothing is left of them then. `AlreadyExists` within if one of them is open.
    pub fn create_logs(&self, specs: &[LogSpec]) -> Result<Vec<LogHandle>, LogError> {
        let dirs: Vec<PathBuf> = specs.iter().map(|spec| self.log_dir(spec)).collect();
        dirs.iter()
            .try_for_each(|dir| self.clear_way(dir))
            .map_err(|error| log_io_error(self.dir().to_owned(), error))?;
        let created = specs.iter().zip(&dirs).try_for_each(|(spec, dir)| self.create_dir(spec, dir));
        if let Err(error) = created.and_then(|()| self.sync_dirs(&dirs)) {
            for dir in &dirs {
                // Also those that were not created; what stays is set aside at the next start.
                let _ = self.fs.remove_dir(dir);
            }
            return Err(log_io_error(self.dir().to_owned(), error));
        }
        self.known_dirs.lock().extend(dirs.iter().cloned());
        Ok(specs.iter().zip(dirs).map(|(spec, dir)| self.add_new(spec, dir.into())).collect())
    }

    /// What lies where a new log shall be, such as a damaged log of a deleted topic, is set aside: never adopted, and
    /// never removed.
    fn clear_way(&self, dir: &Path) -> io::Result<()> {
        match self.fs.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(entries) if entries.is_empty() => Ok(()),
            Ok(_) if self.logs.lock().values().any(|view| *view.dir == *dir) => Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} is there already", dir.display()),
            )),
            Ok(_) => self.data.set_aside_one(&*self.fs, self.env.clock.now_ms(), dir),
        }
    }

    fn create_dir(&self, spec: &LogSpec, dir: &Path) -> io::Result<()> {
        self.fs.create_dir(dir)?;
        let files = [
            (identity::FILE.to_owned(), identity::encode(key(spec))),
            (seals::FILE.to_owned(), seals::encode(Offset::ZERO, &[])),
            (super::epochs::FILE.to_owned(), LeaderEpochs::of_new_log(self.env.leader_epoch).encode()),
            (file_name(Offset::ZERO, "log"), Vec::new()),
        ];
        for (name, bytes) in files {
            let file = self.fs.open(&dir.join(name), OpenHow::CreateNew)?;
            file.write_all_at(&[&bytes], 0)?;
        }
        Ok(())
    }

    /// Makes new directories and what is in them durable: one by one if they are few, else with the whole file system.
    fn sync_dirs(&self, dirs: &[PathBuf]) -> io::Result<()> {
        const FEW: usize = 4;
        if dirs.len() > FEW && self.fs.can_sync_file_system(self.dir()) {
            return self.fs.open(self.dir(), OpenHow::Read)?.sync_file_system();
        }
        for dir in dirs {
            for entry in self.fs.list(dir)? {
                self.fs.open(&dir.join(entry.name), OpenHow::Read)?.sync()?;
            }
            self.fs.sync_dir(dir)?;
        }
        self.fs.sync_dir(self.dir())
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
        let (log_start, segments) = (Offset::ZERO, vec![segment]);
        self.add(
            spec,
            Recovered { dir, segments, unsealed: Vec::new(), log_start, end, epochs, scanned_bytes: None },
        )
    }

    /// Opens existing logs, several at a time, recovering those that need it; one result for each, in order. Blocks.
    ///
    /// # Errors
    /// Each its own: [`OpenLogError`]. Such a log is left as it is.
    pub fn open_logs(&self, specs: &[LogSpec]) -> Vec<Result<LogHandle, OpenLogError>> {
        let next = AtomicUsize::new(0);
        let results: Vec<OnceLock<_>> = specs.iter().map(|_| OnceLock::new()).collect();
        std::thread::scope(|scope| {
            for _ in 0..self.config.recovery_threads.min(specs.len()) {
                scope.spawn(|| {
                    while let (i, Some(spec)) = {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        (i, specs.get(i))
                    } && let Some(result) = results.get(i)
                    {
                        // A panic costs this log, not the start; the hook has told of it.
                        let opened = std::panic::catch_unwind(AssertUnwindSafe(|| self.open_one(spec)));
                        // Set once: every index is given out once.
                        let _ = opened.map(|opened| result.set(opened));
                    }
                });
            }
        });
        let died = |spec: &LogSpec| OpenLogError::Damaged {
            path: self.log_dir(spec),
            detail: "its recovery did not finish".to_owned(),
        };
        specs
            .iter()
            .zip(results)
            .map(|(spec, result)| result.into_inner().unwrap_or_else(|| Err(died(spec))))
            .collect()
    }

    fn open_one(&self, spec: &LogSpec) -> Result<LogHandle, OpenLogError> {
        let dir = self.log_dir(spec);
        self.known_dirs.lock().insert(dir.clone());
        let prior = Prior {
            checkpoint: self.prior_logs.get(&key(spec)).copied(),
            clean: self.was_clean,
            durable: self.prior_durable.get(&key(spec)).copied().unwrap_or_default(),
        };
        match open_log(&self.fs, &self.env, spec, dir, prior) {
            Ok(recovered) => {
                if let Some(bytes) = recovered.scanned_bytes {
                    let (end, dir) = (recovered.end.mark.offset, recovered.dir.display());
                    tracing::info!(%dir, scanned_bytes = bytes, log_end_offset = %end, "recovered a log");
                    self.counters.recovered_logs.add(1);
                    self.counters.recovered_bytes.add(bytes);
                }
                Ok(self.add(spec, recovered))
            }
            Err(error) => {
                // What is known of it is kept for when it is looked at.
                self.slots.lock().assign(key(spec), prior.durable);
                Err(error)
            }
        }
    }

    /// Hands an opened log to a writer.
    fn add(&self, spec: &LogSpec, recovered: Recovered) -> LogHandle {
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
            epochs: recovered.epochs,
            slot,
        }));
        if let Some((_, unsealed)) = self.upkeep.lock().as_mut() {
            unsealed.extend(recovered.unsealed.into_iter().map(|(segment, next, len)| Rolled {
                view: Arc::clone(&view),
                segment,
                next,
                len,
                block_crcs: None,
            }));
        }
        self.logs.lock().insert(view.key, Arc::clone(&view));
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let writer = number as usize % self.writers.len().max(1);
        let commands = self.writers.get(writer).cloned().unwrap_or_else(|| channel().0);
        if let Some(segment) = active {
            let start = LogStart { segment, mark: recovered.end.mark };
            let log = Log::new(Arc::clone(&view), Arc::clone(&self.env), spec.config, start);
            // A writer that has died refuses each append with its own answer.
            let _ = commands.send(Command::Open(number, Box::new(log)));
        }
        LogHandle { view, number, commands, jobs: self.jobs.clone(), leader_epoch: self.env.leader_epoch }
    }

    /// Once every known log has been opened, and before the first append: takes back the clean mark, sets aside
    /// directories that belong to none of them, finishes deletions and starts the periodic work. Blocks.
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
        self.checkpointer.write(false).map_err(dir_error)?;
        self.slots.lock().write().map_err(dir_error)?;
        {
            let known = self.known_dirs.lock();
            let now_ms = self.env.clock.now_ms();
            self.data.set_aside(&*self.fs, now_ms, |dir| known.contains(dir)).map_err(dir_error)?;
        }
        let deleted = self.data.deleted(&*self.fs);
        if !deleted.is_empty() {
            // The receiver is in the hand of this call: it is there.
            let _ = self.jobs.send(Job::RemoveDirs(deleted));
        }
        Ok(Some(Upkeep {
            fs: Arc::clone(&self.fs),
            jobs,
            checkpointer: Arc::clone(&self.checkpointer),
            checkpoint_interval: Duration::from_millis(self.config.checkpoint_interval_ms),
            unsealed,
        }))
    }

    /// Closes logs and removes their directories; the caller has recorded that they are no more. What was accepted and
    /// not written yet is refused. Blocks.
    ///
    /// # Errors
    /// `Io`: the directories are still there then, and will be set aside at the next start.
    pub fn delete_logs(&self, logs: &[LogHandle]) -> Result<(), LogError> {
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
        let keys: Vec<LogKey> = logs.iter().map(|log| log.view.key).collect();
        {
            let mut registry = self.logs.lock();
            let mut slots = self.slots.lock();
            for log in logs {
                registry.remove(&log.view.key);
                slots.release(log.view.slot);
            }
        }
        self.checkpointer.forget(&keys);
        self.move_away(logs).map_err(|error| log_io_error(self.dir().to_owned(), error))
    }

    fn move_away(&self, logs: &[LogHandle]) -> io::Result<()> {
        let root = self.data.deleted_root();
        self.fs.create_dir(&root)?;
        let mut moved = Vec::new();
        for log in logs {
            let (topic_id, partition) = log.view.key;
            let target = self.data.deleted_dir(topic_id, partition);
            self.fs.rename(&log.view.dir, &target)?;
            self.known_dirs.lock().remove(&*log.view.dir);
            moved.push(target);
        }
        self.fs.sync_dir(&root)?;
        self.fs.sync_dir(self.dir())?;
        // Without the thread they stay until the next start.
        let _ = self.jobs.send(Job::RemoveDirs(moved));
        Ok(())
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

    fn log_dir(&self, spec: &LogSpec) -> PathBuf {
        self.data.log_dir(&spec.topic, spec.partition)
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

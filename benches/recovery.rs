//! What a start costs after a crash, and what it costs to make indexes anew; each side by side with a bare loop that reads
//! the same bytes.
//!
//! Unclean start. A data directory of 2,000 partitions with 10 GiB in all, as a crash leaves it before the first
//! checkpoint: every byte is above its recovery point, which is the worst there is. One round is one start, from
//! [`Store::open`] until the store takes appends; it opens every file, checks every batch, makes the indexes and writes
//! what was not known to be synced again. Against a loop on one thread that opens the same files and reads the same bytes
//! by 1 MiB. Not timed: ending the store, and putting the directory back to how the crash left it.
//!
//! Index rebuild. A log of 1 GiB in sealed segments whose indexes are gone; one round is an orderly start and one read in
//! each segment, which makes its indexes anew. Against a loop that reads the same log files by 1 MiB.
//!
//! Both are cold: before each turn everything is synced and the files are given up to the kernel
//! (`posix_fadvise`, `DONTNEED`). What a hypervisor or the disk keeps in its own memory cannot be told.
//!
//! The files lie under the target directory, and are removed at the end. Sizes can be set: `SAGWAN_BENCH_PARTITIONS`,
//! `SAGWAN_BENCH_START_MIB` (in all), `SAGWAN_BENCH_INDEX_MIB`; with `--test` they are small.
#![allow(clippy::expect_used, reason = "a step that fails ends the bench")]

mod interleave;

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use bytes::BytesMut;
use criterion::{Criterion, criterion_group, criterion_main};
use interleave::{Contender, compare};
use rustix::fs::{Advice, fadvise};
use sagwan::clock::SystemClock;
use sagwan::config::StorageConfig;
use sagwan::record::{BatchBuilder, BatchOptions};
use sagwan::storage::{Append, Durability, LogConfig, LogHandle, LogSpec, Store};
use sagwan::types::{Offset, PartitionId, TopicId, TopicName};
use tempfile::TempDir;

/// As near to 64 KiB as whole records come.
const BATCH_BYTES: usize = 64 << 10;
const RECORDS_PER_BATCH: usize = 64;
const SEGMENT_BYTES: u32 = 128 << 20;
/// Handed over and not yet acknowledged while the files are made.
const IN_FLIGHT_BATCHES: usize = 1_024;
const READ_BYTES: usize = 1 << 20;
/// What a start replaces.
const START_FILES: [&str; 3] = ["checkpoint", "checkpoint.old", "durable"];

/// A size from the environment, or its usual value.
fn size(name: &str, usual: usize, in_a_test: usize) -> usize {
    match std::env::var(name) {
        Ok(value) => value.parse().expect("a number"),
        Err(_) if std::env::args().any(|argument| argument == "--test") => in_a_test,
        Err(_) => usual,
    }
}

/// One encoded batch of 64 records.
fn batch() -> BytesMut {
    let value = [b'x'; BATCH_BYTES / RECORDS_PER_BATCH - 16];
    let mut batch = BatchBuilder::new(BatchOptions::default());
    for _ in 0..RECORDS_PER_BATCH {
        batch.push(1, None, Some(&value), []);
    }
    batch.build().expect("a batch within the format's limits")
}

/// A data directory with one topic.
struct Directory {
    specs: Vec<LogSpec>,
    // Removed last.
    root: TempDir,
}

impl Directory {
    /// With `mib` in all.
    fn create(partitions: usize, mib: usize) -> Self {
        let root = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory under target");
        let topic_id = TopicId::random();
        let spec = |partition| LogSpec {
            topic: TopicName::parse("bench").expect("a topic name"),
            partition,
            topic_id,
            config: LogConfig {
                durability: Durability::Os,
                segment_bytes: SEGMENT_BYTES,
                segment_ms: u64::MAX,
            },
            uses_reserve: false,
        };
        let specs = PartitionId::all(u32::try_from(partitions).expect("a count")).map(spec).collect();
        let directory = Self { specs, root };
        let store = directory.open();
        store.start().expect("a new store");
        let logs = store.create_logs(&directory.specs).expect("new logs");
        fill(&logs, (mib << 20) / BATCH_BYTES / partitions);
        // And not closed: so a crash leaves it.
        drop(store);
        directory
    }

    fn open(&self) -> Store {
        let config = StorageConfig {
            // None comes, but at the start and at an orderly end.
            checkpoint_interval_ms: 3_600_000,
            tail_cache_bytes: 0,
            ..StorageConfig::default()
        };
        Store::open(self.root.path(), &config, Arc::new(SystemClock::new())).expect("a data directory")
    }

    /// A store that takes appends, with its logs.
    fn start(&self) -> (Store, Vec<LogHandle>) {
        let store = self.open();
        let logs = store.open_logs(&self.specs).into_iter().map(|log| log.expect("a good log")).collect();
        store.start().expect("a good directory");
        (store, logs)
    }

    /// The files of its logs that end so.
    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let dirs = entries(self.root.path()).into_iter().filter(|path| path.is_dir());
        let mut files: Vec<PathBuf> = dirs.flat_map(|dir| entries(&dir)).collect();
        files.retain(|path| path.extension().is_some_and(|found| found == extension));
        files.sort();
        files
    }

    /// Nothing of it stays in the page cache.
    fn forget(&self) {
        rustix::fs::sync();
        for path in ["log", "index", "timeindex"].into_iter().flat_map(|extension| self.files(extension)) {
            let file = File::open(path).expect("a file");
            fadvise(&file, 0, None, Advice::DontNeed).expect("advice the kernel takes");
        }
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// Appends so many batches to each log, and waits until they are acknowledged.
fn fill(logs: &[LogHandle], batches: usize) {
    let template = batch();
    let (sender, acks) = mpsc::channel();
    let mut in_flight = 0;
    for log in (0..batches).flat_map(|_| logs) {
        let sender = sender.clone();
        // The receiver waits for every one.
        let done = Box::new(move |outcome| drop(sender.send(outcome)));
        log.append(Append { batch: template.clone(), expected_offset: None, done });
        in_flight += 1;
        if in_flight == IN_FLIGHT_BATCHES {
            acks.recv().expect("an answer").expect("the disk takes it");
            in_flight -= 1;
        }
    }
    drop(sender);
    for outcome in acks {
        outcome.expect("the disk takes it");
    }
}

fn total_bytes(files: &[PathBuf]) -> u64 {
    files.iter().map(|path| path.metadata().expect("a file").len()).sum()
}

/// A start after a crash.
struct UncleanStart<'a> {
    directory: &'a Directory,
    /// What the crash left, by name.
    left: Vec<(&'static str, Option<Vec<u8>>)>,
    log_bytes: u64,
    running: Option<(Store, Vec<LogHandle>)>,
}

impl<'a> UncleanStart<'a> {
    fn new(directory: &'a Directory) -> Self {
        let left = START_FILES.map(|name| (name, fs::read(directory.root.path().join(name)).ok())).into();
        let log_bytes = total_bytes(&directory.files("log"));
        Self { directory, left, log_bytes, running: None }
    }
}

impl Contender for UncleanStart<'_> {
    fn name(&self) -> &'static str {
        "unclean start"
    }

    fn is_baseline(&self) -> bool {
        false
    }

    fn prepare(&mut self) {
        drop(self.running.take());
        for (name, content) in &self.left {
            let path = self.directory.root.path().join(name);
            match content {
                Some(content) => fs::write(path, content).expect("the file as it was"),
                None => drop(fs::remove_file(path)),
            }
        }
        for path in ["index", "timeindex"].into_iter().flat_map(|extension| self.directory.files(extension)) {
            fs::remove_file(path).expect("the crash came before it");
        }
        self.directory.forget();
    }

    fn work(&mut self) {
        let (store, logs) = self.directory.start();
        assert_eq!(store.stats().recovered_bytes, self.log_bytes, "all of it is scanned");
        self.running = Some((store, logs));
    }
}

/// An orderly start without indexes, and one read in each sealed segment.
struct IndexRebuild<'a> {
    directory: &'a Directory,
    /// The base and the last offset of each sealed segment.
    sealed: Vec<(Offset, Offset)>,
    running: Option<(Store, Vec<LogHandle>)>,
    rounds: u32,
}

impl<'a> IndexRebuild<'a> {
    fn new(directory: &'a Directory) -> Self {
        let base = |path: &PathBuf| path.file_stem()?.to_str()?.parse().ok().and_then(Offset::new);
        let mut bases: Vec<Offset> = directory.files("log").iter().filter_map(base).collect();
        bases.sort_unstable();
        let last = |next: Offset| Offset::clamped(next.get() - 1);
        let sealed = bases.windows(2).map(|pair| (pair[0], last(pair[1]))).collect();
        Self { directory, sealed, running: Some(directory.start()), rounds: 0 }
    }
}

impl Contender for IndexRebuild<'_> {
    fn name(&self) -> &'static str {
        "index rebuild"
    }

    fn is_baseline(&self) -> bool {
        false
    }

    fn prepare(&mut self) {
        if let Some((store, _)) = self.running.take() {
            store.close().expect("an orderly end");
        }
        for (base, _) in &self.sealed {
            for path in [format!("{base:0>20}.index"), format!("{base:0>20}.timeindex")] {
                match fs::remove_file(self.directory.root.path().join("bench-0").join(path)) {
                    // A crash can come before a segment has been sealed, and its indexes written.
                    Err(error) if error.kind() == ErrorKind::NotFound && self.rounds == 0 => {}
                    outcome => outcome.expect("the index that the last round has made"),
                }
            }
        }
        self.rounds += 1;
        self.directory.forget();
    }

    fn work(&mut self) {
        let (store, logs) = self.directory.start();
        for (_, last) in &self.sealed {
            let read = logs.first().expect("one log").read(*last, 1).expect("a readable log");
            black_box(read);
        }
        self.running = Some((store, logs));
    }
}

/// Opens files and reads them to their ends.
struct BareLoop<'a> {
    directory: &'a Directory,
    files: Vec<PathBuf>,
    buffer: Vec<u8>,
}

impl<'a> BareLoop<'a> {
    fn new(directory: &'a Directory, files: Vec<PathBuf>) -> Self {
        Self { directory, files, buffer: vec![0; READ_BYTES] }
    }
}

impl Contender for BareLoop<'_> {
    fn name(&self) -> &'static str {
        "bare loop"
    }

    fn is_baseline(&self) -> bool {
        true
    }

    fn prepare(&mut self) {
        self.directory.forget();
    }

    fn work(&mut self) {
        for path in &self.files {
            let mut file = File::open(path).expect("a file");
            while file.read(&mut self.buffer).expect("a readable file") > 0 {
                black_box(&self.buffer);
            }
        }
    }
}

fn unclean_start(criterion: &mut Criterion) {
    let partitions = size("SAGWAN_BENCH_PARTITIONS", 2_000, 20);
    let directory = Directory::create(partitions, size("SAGWAN_BENCH_START_MIB", 10 << 10, 40));
    let files = directory.files("log");
    let bytes = total_bytes(&files);
    let contenders: &mut [Box<dyn Contender + '_>] =
        &mut [Box::new(UncleanStart::new(&directory)), Box::new(BareLoop::new(&directory, files))];
    compare(criterion, &format!("start with {partitions} partitions"), bytes, contenders);
}

fn index_rebuild(criterion: &mut Criterion) {
    // One more, so that the last of those that count is sealed.
    let mib = size("SAGWAN_BENCH_INDEX_MIB", 1 << 10, 256);
    let directory = Directory::create(1, mib + 1);
    let mut files = directory.files("log");
    files.pop();
    let bytes = total_bytes(&files);
    let contenders: &mut [Box<dyn Contender + '_>] =
        &mut [Box::new(IndexRebuild::new(&directory)), Box::new(BareLoop::new(&directory, files))];
    compare(criterion, "index rebuild", bytes, contenders);
}

criterion_group!(recovery, unclean_start, index_rebuild);
criterion_main!(recovery);

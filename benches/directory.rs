//! A data directory for benches that start a store over and over, with its files in the page cache or without.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use bytes::BytesMut;
use rustix::fs::{Advice, fadvise};
use sagwan::clock::SystemClock;
use sagwan::config::StorageConfig;
use sagwan::record::{BatchBuilder, BatchOptions};
use sagwan::storage::{Append, Durability, LogConfig, LogHandle, LogSpec, Store};
use sagwan::types::{PartitionId, TopicId, TopicName};
use tempfile::TempDir;

/// As near to 64 KiB as whole records come.
pub(crate) const BATCH_BYTES: usize = 64 << 10;
const RECORDS_PER_BATCH: usize = 64;
const SEGMENT_BYTES: u32 = 128 << 20;
/// Handed over and not yet acknowledged while the files are made.
const IN_FLIGHT_BATCHES: usize = 1_024;
/// What a loop reads at a time.
pub(crate) const READ_BYTES: usize = 1 << 20;

/// A size from the environment, or its usual value.
pub(crate) fn size(name: &str, usual: usize, in_a_test: usize) -> usize {
    match std::env::var(name) {
        Ok(value) => value.parse().expect("a number"),
        Err(_) if std::env::args().any(|argument| argument == "--test") => in_a_test,
        Err(_) => usual,
    }
}

/// What a store is put beside: opens files and reads each to its end, as much at a time as `buffer` takes.
pub(crate) fn read_files(paths: &[PathBuf], buffer: &mut [u8]) {
    for path in paths {
        let mut file = File::open(path).expect("a file");
        while file.read(buffer).expect("a readable file") > 0 {
            black_box(&*buffer);
        }
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
pub(crate) struct Directory {
    specs: Vec<LogSpec>,
    // Removed last.
    pub(crate) root: TempDir,
}

impl Directory {
    /// With `batches` of 64 KiB in each partition, as a crash leaves it.
    pub(crate) fn create(partitions: usize, batches: usize) -> Self {
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
        fill(&logs, batches);
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
    pub(crate) fn start(&self) -> (Store, Vec<LogHandle>) {
        let store = self.open();
        let logs = store.open_logs(&self.specs).into_iter().map(|log| log.expect("a good log")).collect();
        store.start().expect("a good directory");
        (store, logs)
    }

    /// The files of its logs that end so.
    pub(crate) fn files(&self, extension: &str) -> Vec<PathBuf> {
        let dirs = entries(self.root.path()).into_iter().filter(|path| path.is_dir());
        let mut files: Vec<PathBuf> = dirs.flat_map(|dir| entries(&dir)).collect();
        files.retain(|path| path.extension().is_some_and(|found| found == extension));
        files.sort();
        files
    }

    /// Nothing of it stays in the page cache.
    pub(crate) fn forget(&self) {
        rustix::fs::sync();
        for path in ["log", "index", "timeindex"].into_iter().flat_map(|extension| self.files(extension)) {
            let file = File::open(path).expect("a file");
            fadvise(&file, 0, None, Advice::DontNeed).expect("advice the kernel takes");
        }
    }
}

pub(crate) fn entries(dir: &Path) -> Vec<PathBuf> {
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

pub(crate) fn total_bytes(files: &[PathBuf]) -> u64 {
    files.iter().map(|path| path.metadata().expect("a file").len()).sum()
}

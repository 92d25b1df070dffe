//! A good data directory for fuzz targets to spoil: made once, kept in memory, written out as often as need be.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock, mpsc};

use bytes::BytesMut;
use sagwan::clock::ManualClock;
use sagwan::config::{StorageConfig, SyncMethod};
use sagwan::record::{self, BatchBuilder, BatchOptions};
use sagwan::storage::{
    Append, AppendError, Appended, Durability, LogConfig, LogHandle, LogSpec, OpenError, OpenLogError, Store,
};
use sagwan::types::{PartitionId, TopicId, TopicName};

use super::scratch;

/// The directories of the logs.
pub(super) const LOG_DIRS: [&str; 2] = ["long-0", "short-3"];
/// Those of the first log lie in several segments, sealed but for the last.
const BATCHES: [u32; 2] = [24, 6];
const RECORDS_PER_BATCH: u32 = 3;
const SEGMENT_BYTES: u32 = 1_600;
const INDEX_INTERVAL_BYTES: u32 = 256;
const FIRST_MS: i64 = 1_700_000_000_000;

/// A data directory after an orderly end, or after a crash of the process.
pub(super) struct Good {
    /// By path.
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// Of each log, by base offset; all of them acknowledged.
    pub(super) batches: [BTreeMap<i64, Vec<u8>>; 2],
}

impl Good {
    pub(super) fn after_an_orderly_end() -> &'static Self {
        static GOOD: OnceLock<Good> = OnceLock::new();
        GOOD.get_or_init(|| Self::make(true))
    }

    /// The checkpoint is of half the batches.
    pub(super) fn after_a_crash() -> &'static Self {
        static GOOD: OnceLock<Good> = OnceLock::new();
        GOOD.get_or_init(|| Self::make(false))
    }

    fn make(is_orderly: bool) -> Self {
        let dir = scratch();
        let path = dir.path();
        for half in 0..2 {
            let store = store(path).expect("a good directory");
            let logs = if half == 0 {
                store.start().expect("a new directory");
                store.create_logs(&specs()).expect("new logs")
            } else {
                let logs = store.open_logs(&specs()).into_iter().collect::<Result<_, _>>();
                store.start().expect("a good directory");
                logs.expect("good logs")
            };
            for (log, count) in logs.iter().zip(BATCHES) {
                for number in count / 2 * half..count / 2 * (half + 1) {
                    append(log, batch(number)).expect("the disk takes it");
                }
            }
            if half == 0 || is_orderly {
                store.close().expect("an orderly end");
            }
        }
        let mut files = BTreeMap::new();
        collect(path, "", &mut files);
        files.remove(".lock");
        let mut good = Self { files, batches: Default::default() };
        good.batches = [0, 1].map(|log| {
            let names =
                good.segments(log).into_iter().map(|base| format!("{}/{base:020}.log", LOG_DIRS[log]));
            let batches = names.flat_map(|name| record::batches(&good.files[&name]).collect::<Vec<_>>());
            let batches = batches.map(|batch| batch.expect("a good batch"));
            batches.map(|batch| (batch.base_offset().get(), batch.as_bytes().to_vec())).collect()
        });
        good
    }

    /// One past the last offset of a log.
    pub(super) fn end(log: usize) -> i64 {
        i64::from(BATCHES[log] * RECORDS_PER_BATCH)
    }

    /// The base offsets of a log's segments.
    pub(super) fn segments(&self, log: usize) -> Vec<i64> {
        let names =
            self.files.keys().filter_map(|path| path.strip_prefix(LOG_DIRS[log])?.strip_suffix(".log"));
        names.map(|name| name.trim_start_matches('/').parse().expect("a base offset")).collect()
    }
}

fn collect(dir: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        if path.is_dir() {
            collect(&path, &format!("{name}/"), files);
        } else {
            files.insert(name, fs::read(&path).expect("a file"));
        }
    }
}

/// Makes a directory of these files.
pub(super) fn write_out(files: &BTreeMap<String, Vec<u8>>, dir: &Path) {
    let mut parents: Vec<_> =
        files.keys().filter_map(|path| path.rsplit_once('/').map(|(dir, _)| dir)).collect();
    parents.dedup();
    for parent in parents {
        fs::create_dir_all(dir.join(parent)).expect("a directory");
    }
    for (path, bytes) in files {
        fs::write(dir.join(path), bytes).expect("a file");
    }
}

/// The timestamp of a record: every second one has that of the one before.
pub(super) fn timestamp_ms(offset: i64) -> i64 {
    FIRST_MS + offset / 2 * 10
}

/// Batch number `number` of a log.
pub(super) fn batch(number: u32) -> BytesMut {
    let mut batch = BatchBuilder::new(BatchOptions::default());
    for offset in number * RECORDS_PER_BATCH..(number + 1) * RECORDS_PER_BATCH {
        let value = offset.to_be_bytes().repeat(8);
        batch.push(timestamp_ms(offset.into()), None, Some(&value), []);
    }
    batch.build().expect("a batch within the format's limits")
}

fn specs() -> Vec<LogSpec> {
    let spec = |(id, dir): (u8, &str)| {
        let (topic, partition) = dir.rsplit_once('-').expect("a topic and a partition");
        LogSpec {
            topic: TopicName::parse(topic).expect("a topic name"),
            partition: PartitionId::new(partition.parse().expect("a number")).expect("a partition"),
            topic_id: TopicId::from_bytes([id; 16]),
            config: LogConfig {
                durability: Durability::Fsync,
                segment_bytes: SEGMENT_BYTES,
                segment_ms: u64::MAX,
            },
            uses_reserve: false,
        }
    };
    (1..).zip(LOG_DIRS).map(spec).collect()
}

fn store(dir: &Path) -> Result<Store, OpenError> {
    let config = StorageConfig {
        writer_threads: 1,
        recovery_threads: 1,
        sync_method: SyncMethod::Fdatasync,
        flush_interval_ms: 3_600_000,
        checkpoint_interval_ms: 3_600_000,
        // Everything is read from the files.
        tail_cache_bytes: 0,
        index_interval_bytes: INDEX_INTERVAL_BYTES,
        reserve_bytes: 0,
        ..StorageConfig::default()
    };
    Store::open(dir, &config, Arc::new(ManualClock::at(FIRST_MS)))
}

/// A store of the directory, with what became of each log.
pub(super) fn open(dir: &Path) -> Result<(Store, Vec<Result<LogHandle, OpenLogError>>), OpenError> {
    let store = store(dir)?;
    let logs = store.open_logs(&specs());
    store.start().expect("the disk takes it");
    Ok((store, logs))
}

/// Appends a batch and waits until it is acknowledged.
pub(super) fn append(log: &LogHandle, batch: BytesMut) -> Result<Appended, AppendError> {
    let (sender, outcome) = mpsc::channel();
    // The receiver waits below.
    log.append(Append {
        batch,
        expected_offset: None,
        done: Box::new(move |outcome| drop(sender.send(outcome))),
    });
    outcome.recv().expect("every append is answered")
}

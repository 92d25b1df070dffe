//! The log alone, without a broker or a transport: appends and reads of 64 KiB batches, side by side with the least
//! that a program could do with the same bytes.
//!
//! Appends. One round is 256 batches (16 MiB), handed over one after the other without waiting; the round ends when
//! the last is acknowledged. The log includes its writer thread, its index, its checksums and its rolls.
//! - `durability = fsync`, against 256 positional writes of 64 KiB to a growing file and one `fdatasync` at the end:
//!   the fewest syncs possible, so the log can at best come near.
//! - `durability = os`, against the same writes without a sync.
//! - both against a copy of the same bytes from memory to memory, which no storage beats.
//!
//! Not timed: making the batches (they come from the network otherwise), deleting old segments and files, and a sync of
//! the whole machine before each turn, so that nobody pays for pages another one left dirty.
//!
//! Reads. One round is 256 reads of one batch each, walking round and round through 128 MiB; each batch is copied once
//! into a buffer of 64 KiB, as a transport does. From the tail cache and from mapped segments, against positional reads
//! of a file and a copy from memory to memory. All of it is in memory: this measures the way, not the disk.
//!
//! The files lie under the target directory. A tmpfs there would make the appends meaningless.
#![allow(clippy::expect_used, reason = "a step that fails ends the bench")]

mod interleave;

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use bytes::BytesMut;
use criterion::{Criterion, criterion_group, criterion_main};
use interleave::{Contender, compare};
use sagwan::clock::SystemClock;
use sagwan::config::StorageConfig;
use sagwan::record::{BatchBuilder, BatchOptions};
use sagwan::storage::{Append, Durability, LogConfig, LogHandle, LogSpec, Store};
use sagwan::types::{Offset, PartitionId, TopicId, TopicName};
use tempfile::TempDir;

/// As near to 64 KiB as whole records come.
const BATCH_BYTES: usize = 64 << 10;
const RECORDS_PER_BATCH: u32 = 64;
const BATCHES_PER_ROUND: usize = 256;
/// What the reads walk through: more than any processor's cache.
const READ_BATCHES: usize = 2_048;
/// A file or segment is given up at this size, and a new one begun.
const FILE_BYTES: u32 = 256 << 20;
/// The log's old segments are deleted whenever it has grown by so much.
const TRIM_BYTES: usize = 1 << 30;

/// One encoded batch of 64 records.
fn batch() -> BytesMut {
    let value = [b'x'; BATCH_BYTES / RECORDS_PER_BATCH as usize - 16];
    let mut batch = BatchBuilder::new(BatchOptions::default());
    for _ in 0..RECORDS_PER_BATCH {
        batch.push(1, None, Some(&value), []);
    }
    batch.build().expect("a batch within the format's limits")
}

fn directory() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory under target")
}

/// A data directory with one log in it.
struct OneLog {
    store: Store,
    log: LogHandle,
    // Removed last.
    _directory: TempDir,
}

impl OneLog {
    fn create(durability: Durability, config: &StorageConfig) -> Self {
        let directory = directory();
        let store =
            Store::open(directory.path(), config, Arc::new(SystemClock::new())).expect("an empty directory");
        assert!(store.open_logs(&[]).is_empty());
        store.start().expect("a new store");
        let spec = LogSpec {
            topic: TopicName::parse("bench").expect("a topic name"),
            partition: PartitionId::default(),
            topic_id: TopicId::random(),
            config: LogConfig { durability, segment_bytes: FILE_BYTES, segment_ms: u64::MAX },
            uses_reserve: false,
        };
        let log = store.create_logs(&[spec]).expect("a new log").remove(0);
        Self { store, log, _directory: directory }
    }

    /// Appends the batches, and waits until all are acknowledged.
    fn append(&self, batches: impl IntoIterator<Item = BytesMut>) {
        let (sender, acks) = mpsc::channel();
        for batch in batches {
            let sender = sender.clone();
            let done = Box::new(move |outcome| {
                // The receiver waits for every sender.
                let _ = sender.send(outcome);
            });
            self.log.append(Append { batch, expected_offset: None, done });
        }
        drop(sender);
        for outcome in acks {
            outcome.expect("the disk takes it");
        }
    }
}

impl Drop for OneLog {
    fn drop(&mut self) {
        self.store.close().expect("an orderly end");
    }
}

/// Appends to a log.
struct LogAppend {
    name: &'static str,
    one: OneLog,
    template: BytesMut,
    batches: Vec<BytesMut>,
    untrimmed_bytes: usize,
}

impl LogAppend {
    fn new(name: &'static str, durability: Durability) -> Self {
        let one = OneLog::create(durability, &StorageConfig::default());
        Self { name, one, template: batch(), batches: Vec::new(), untrimmed_bytes: 0 }
    }
}

impl Contender for LogAppend {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_baseline(&self) -> bool {
        false
    }

    fn prepare(&mut self) {
        if self.untrimmed_bytes > TRIM_BYTES {
            let (sender, done) = mpsc::channel();
            let log = &self.one.log;
            log.delete_records(
                log.durable_offset(),
                Box::new(move |outcome| {
                    let _ = sender.send(outcome);
                }),
            );
            done.recv().expect("an answer").expect("old records are deleted");
            self.untrimmed_bytes = 0;
        }
        self.batches = (0..BATCHES_PER_ROUND).map(|_| self.template.clone()).collect();
        rustix::fs::sync();
    }

    fn work(&mut self) {
        self.untrimmed_bytes += self.batches.len() * self.template.len();
        self.one.append(self.batches.drain(..));
    }
}

/// Writes to a file that grows.
struct PlainWrite {
    name: &'static str,
    sync: bool,
    directory: TempDir,
    file: File,
    position: u64,
    batches: Vec<BytesMut>,
}

impl PlainWrite {
    fn new(name: &'static str, sync: bool) -> Self {
        let directory = directory();
        let file = File::create(Self::path(directory.path())).expect("a file");
        let batch = batch();
        Self { name, sync, directory, file, position: 0, batches: vec![batch; BATCHES_PER_ROUND] }
    }

    fn path(directory: &Path) -> PathBuf {
        directory.join("plain")
    }
}

impl Contender for PlainWrite {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_baseline(&self) -> bool {
        true
    }

    fn prepare(&mut self) {
        if self.position > u64::from(FILE_BYTES) {
            let path = Self::path(self.directory.path());
            std::fs::remove_file(&path).expect("the old file");
            self.file = File::create(&path).expect("a file");
            self.position = 0;
        }
        rustix::fs::sync();
    }

    fn work(&mut self) {
        for batch in &self.batches {
            self.file.write_all_at(batch, self.position).expect("the disk takes it");
            self.position += batch.len() as u64;
        }
        if self.sync {
            self.file.sync_data().expect("the disk takes it");
        }
    }
}

/// Copies from memory to memory, walking through the source as the others walk through a log.
struct Copy {
    source: Vec<u8>,
    position: usize,
    destination: Vec<u8>,
    batch_bytes: usize,
}

impl Copy {
    /// From `source_batches` batches into a place for `destination_batches`.
    fn new(source_batches: usize, destination_batches: usize) -> Self {
        let batch = batch();
        let destination = vec![0; batch.len() * destination_batches];
        Self { source: batch.repeat(source_batches), position: 0, destination, batch_bytes: batch.len() }
    }
}

impl Contender for Copy {
    fn name(&self) -> &'static str {
        "memory copy"
    }

    fn is_baseline(&self) -> bool {
        true
    }

    fn prepare(&mut self) {}

    fn work(&mut self) {
        for turn in 0..BATCHES_PER_ROUND {
            let place = turn * self.batch_bytes % self.destination.len();
            let source = black_box(&self.source[self.position..][..self.batch_bytes]);
            self.destination[place..][..self.batch_bytes].copy_from_slice(source);
            self.position = (self.position + self.batch_bytes) % self.source.len();
            black_box(&mut self.destination);
        }
    }
}

/// Reads a log, and copies what it got.
struct LogRead {
    name: &'static str,
    one: OneLog,
    from_tail: bool,
    next: usize,
    buffer: Vec<u8>,
}

impl LogRead {
    fn new(name: &'static str, from_tail: bool) -> Self {
        let batch = batch();
        let tail_cache_bytes = if from_tail { 4 * (READ_BATCHES * batch.len()) as u64 } else { 0 };
        let one =
            OneLog::create(Durability::Os, &StorageConfig { tail_cache_bytes, ..StorageConfig::default() });
        one.append((0..READ_BATCHES).map(|_| batch.clone()));
        Self { name, one, from_tail, next: 0, buffer: vec![0; batch.len()] }
    }
}

impl Contender for LogRead {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_baseline(&self) -> bool {
        false
    }

    fn prepare(&mut self) {}

    fn work(&mut self) {
        let max_bytes = self.buffer.len() as u64;
        for _ in 0..BATCHES_PER_ROUND {
            let offset = Offset::clamped(self.next as i64 * i64::from(RECORDS_PER_BATCH));
            let read = if self.from_tail {
                let read = self.one.log.read_now(offset, max_bytes).expect("a readable log");
                read.expect("the tail cache holds all of it")
            } else {
                self.one.log.read(offset, max_bytes).expect("a readable log")
            };
            assert_eq!(read.size_bytes, max_bytes, "one batch");
            let mut place = 0;
            for chunk in &read.chunks {
                self.buffer[place..][..chunk.len()].copy_from_slice(chunk);
                place += chunk.len();
            }
            black_box(&self.buffer);
            self.next = (self.next + 1) % READ_BATCHES;
        }
    }
}

/// Reads a file by position into a buffer.
struct PlainRead {
    file: File,
    next: usize,
    buffer: Vec<u8>,
    _directory: TempDir,
}

impl PlainRead {
    fn new() -> Self {
        let directory = directory();
        let path = directory.path().join("plain");
        let batch = batch();
        std::fs::write(&path, batch.repeat(READ_BATCHES)).expect("a file");
        let file = File::open(&path).expect("a file");
        Self { file, next: 0, buffer: vec![0; batch.len()], _directory: directory }
    }
}

impl Contender for PlainRead {
    fn name(&self) -> &'static str {
        "positional read"
    }

    fn is_baseline(&self) -> bool {
        true
    }

    fn prepare(&mut self) {}

    fn work(&mut self) {
        for _ in 0..BATCHES_PER_ROUND {
            let position = (self.next * self.buffer.len()) as u64;
            self.file.read_exact_at(&mut self.buffer, position).expect("a readable file");
            black_box(&self.buffer);
            self.next = (self.next + 1) % READ_BATCHES;
        }
    }
}

fn append(criterion: &mut Criterion) {
    let bytes = (batch().len() * BATCHES_PER_ROUND) as u64;
    let synced: &mut [Box<dyn Contender>] = &mut [
        Box::new(LogAppend::new("log, durability = fsync", Durability::Fsync)),
        Box::new(PlainWrite::new("positional writes, one fdatasync", true)),
        Box::new(Copy::new(BATCHES_PER_ROUND, BATCHES_PER_ROUND)),
    ];
    compare(criterion, "append 64 KiB batches, synced", bytes, synced);
    let cached: &mut [Box<dyn Contender>] = &mut [
        Box::new(LogAppend::new("log, durability = os", Durability::Os)),
        Box::new(PlainWrite::new("positional writes", false)),
        Box::new(Copy::new(BATCHES_PER_ROUND, BATCHES_PER_ROUND)),
    ];
    compare(criterion, "append 64 KiB batches, page cache", bytes, cached);
}

fn read(criterion: &mut Criterion) {
    let bytes = (batch().len() * BATCHES_PER_ROUND) as u64;
    let contenders: &mut [Box<dyn Contender>] = &mut [
        Box::new(LogRead::new("log, tail cache", true)),
        Box::new(LogRead::new("log, mapped segments", false)),
        Box::new(PlainRead::new()),
        Box::new(Copy::new(READ_BATCHES, 1)),
    ];
    compare(criterion, "read 64 KiB batches", bytes, contenders);
}

criterion_group!(storage, append, read);
criterion_main!(storage);

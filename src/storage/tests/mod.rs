//! The storage layer as its callers see it, on a real directory and on one that fails.

mod append_and_read;
mod checkpoints;
mod descriptors;
mod every_step;
mod faults;
mod gap;
mod hook_fs;
mod idempotence;
mod indexes;
mod interleavings;
mod log_files;
mod lost_seals;
mod producers;
mod reading_on;
mod recovery;
mod rot;
mod scans;
pub(crate) mod sim_fs;
mod sim_producer;
mod simulation;
mod stepped;
mod uncached;
mod vanished;
mod verify;
mod writers;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use bytes::BytesMut;

use super::fs::{Fs, FsFile, OpenHow, RealFs};
use super::mmap::Map;
use super::*;
use crate::clock::{Clock, ManualClock};
use crate::config::StorageConfig;
use crate::record::{self, BatchBuilder, BatchOptions, ProducerStamp};
use crate::types::{Offset, PartitionId, TopicId, TopicName};

/// When the tests take place.
pub(super) const NOW_MS: i64 = 1_700_000_000_000;

/// A file whose first sync fails, and no other: as the kernel tells each descriptor of a failed write-back.
#[derive(Debug, Default)]
pub(super) struct FailsOnce(AtomicBool);

impl FailsOnce {
    fn fail_once(&self) -> io::Result<()> {
        if self.0.swap(true, Ordering::Relaxed) { Ok(()) } else { Err(io::Error::other("write-back failed")) }
    }
}

impl FsFile for FailsOnce {
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }
    fn read_exact_at(&self, _buf: &mut [u8], _position: u64) -> io::Result<()> {
        Ok(())
    }
    fn write_all_at(&self, _bufs: &[&[u8]], _position: u64) -> io::Result<()> {
        Ok(())
    }
    fn set_len(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }
    fn allocate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        self.fail_once()
    }
    fn sync_file_system(&self) -> io::Result<()> {
        self.fail_once()
    }
    fn map(&self, _len: u64) -> io::Result<Arc<dyn Map>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A data directory under test.
pub(super) struct Fixture {
    pub(super) dir: tempfile::TempDir,
    pub(super) clock: Arc<ManualClock>,
    pub(super) config: StorageConfig,
    pub(super) fs: Arc<dyn Fs>,
    pub(super) spec: LogSpec,
}

/// A record's offset and number.
pub(super) type Numbered = (i64, u64);
/// The first and the last offset of a range that is told as lost.
pub(super) type LostRange = (i64, i64);

/// The log file of the first segment.
pub(super) const FIRST: &str = "00000000000000000000.log";

/// Changes a file of the log's directory.
pub(super) fn change(fixture: &Fixture, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    change_at(&fixture.log_dir().join(name), change);
}

/// Changes a file.
pub(super) fn change_at(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// An open store with one log.
pub(super) struct Open {
    pub(super) store: Store,
    pub(super) log: LogHandle,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            clock: Arc::new(ManualClock::at(NOW_MS)),
            config: StorageConfig { reserve_bytes: 64 << 10, ..StorageConfig::default() },
            fs: Arc::new(RealFs),
            spec: LogSpec {
                topic: TopicName::parse("orders").unwrap(),
                partition: PartitionId::new(0).unwrap(),
                topic_id: TopicId::from_bytes([7; 16]),
                config: LogConfig {
                    durability: Durability::Fsync,
                    segment_bytes: 1 << 30,
                    segment_ms: 7 * 86_400_000,
                },
                uses_reserve: false,
            },
        }
    }

    /// With small segments, an index entry for every third small batch or so, and nothing in memory.
    pub(super) fn fine(segment_bytes: u32) -> Self {
        let mut fixture = Self::cold();
        fixture.config.index_interval_bytes = 1 << 10;
        fixture.spec.config.segment_bytes = segment_bytes;
        fixture
    }

    /// Without a tail cache, so that everything is read from its files.
    pub(super) fn cold() -> Self {
        let mut fixture = Self::new();
        fixture.config.tail_cache_bytes = 0;
        fixture
    }

    /// Of the first `partitions` partitions, all like the one log.
    pub(super) fn specs(&self, partitions: u32) -> Vec<LogSpec> {
        PartitionId::all(partitions).map(|partition| LogSpec { partition, ..self.spec.clone() }).collect()
    }

    pub(super) fn store(&self) -> Store {
        let clock: Arc<dyn Clock> = self.clock.clone();
        Store::open_on(Arc::clone(&self.fs), self.dir.path(), &self.config, clock).unwrap()
    }

    /// A new store with the new log.
    pub(super) fn create(&self) -> Open {
        let store = self.store();
        store.start().unwrap();
        let log = store.create_logs(std::slice::from_ref(&self.spec)).unwrap().remove(0);
        Open { store, log }
    }

    pub(super) fn try_reopen(&self) -> (Store, Result<LogHandle, OpenLogError>) {
        let store = self.store();
        let log = store.open_logs(std::slice::from_ref(&self.spec)).remove(0);
        store.start().unwrap();
        (store, log)
    }

    /// The store again, with its log.
    pub(super) fn reopen(&self) -> Open {
        let (store, log) = self.try_reopen();
        Open { store, log: log.unwrap() }
    }

    pub(super) fn log_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("orders-0")
    }

    /// The names in the log's directory that end so.
    pub(super) fn files(&self, extension: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.log_dir())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| Path::new(name).extension().is_some_and(|found| found == extension))
            .collect();
        names.sort();
        names
    }
}

/// Ten numbered records of producer 7, as the offsets have it if there is nobody else: from sequence `tag` on.
pub(super) fn stamped(epoch: i16, tag: i32, value_bytes: usize) -> BytesMut {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for i in 0..10 {
        let mut value = (tag + i).unsigned_abs().to_be_bytes().to_vec();
        value.splice(0..0, [0; 4]);
        value.resize(value_bytes.max(8), 0);
        builder.push(NOW_MS, None, Some(&value), []);
    }
    builder.set_producer(ProducerStamp { producer_id: 7, producer_epoch: epoch, base_sequence: tag });
    builder.build().unwrap()
}

/// The size of a batch of ten records as [`Open::fill`] appends them with values of 100 bytes.
pub(super) fn batch_bytes() -> usize {
    batch(0, 10, 100).len()
}

/// A batch of `count` records with values of `value_bytes`, numbered from `tag`.
pub(super) fn batch(tag: u64, count: u32, value_bytes: usize) -> BytesMut {
    batch_at(NOW_MS, tag, count, value_bytes)
}

pub(super) fn batch_at(timestamp_ms: i64, tag: u64, count: u32, value_bytes: usize) -> BytesMut {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for i in 0..u64::from(count) {
        let mut value = (tag + i).to_be_bytes().to_vec();
        value.resize(value_bytes.max(8), tag as u8);
        builder.push(timestamp_ms, None, Some(&value), []);
    }
    builder.build().unwrap()
}

/// Computes a batch's checksum anew, as one has it that was made so.
pub(super) fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

impl Open {
    pub(super) fn send(&self, batch: BytesMut) -> Receiver<Result<Appended, AppendError>> {
        self.send_expecting(batch, None)
    }

    /// Sends a batch that is to get just this offset.
    pub(super) fn send_expecting(
        &self,
        batch: BytesMut,
        expected_offset: Option<Offset>,
    ) -> Receiver<Result<Appended, AppendError>> {
        let (sender, outcome) = channel();
        let done = Box::new(move |result| drop(sender.send(result)));
        self.log.append(Append { batch, expected_offset, done });
        outcome
    }

    pub(super) fn append(&self, batch: BytesMut) -> Result<Offset, AppendError> {
        self.send(batch).recv().unwrap().map(|appended| appended.base_offset)
    }

    /// Appends `batches` batches of ten numbered records, each as large.
    pub(super) fn fill(&self, batches: u64, value_bytes: usize) {
        let start = self.log.durable_offset().get() as u64;
        let waiting: Vec<_> =
            (0..batches).map(|i| self.send(batch(start + i * 10, 10, value_bytes))).collect();
        for outcome in waiting {
            outcome.recv().unwrap().unwrap();
        }
    }

    /// Reads everything from `from` on; returns the offset and number of each record.
    pub(super) fn read_all(&self, from: i64) -> Vec<(i64, u64)> {
        let (records, lost) = self.read_around(from);
        assert_eq!(lost, [], "nothing is lost");
        records
    }

    /// The same, going on behind what is lost; returns also the first and last offset of each loss.
    pub(super) fn read_around(&self, from: i64) -> (Vec<Numbered>, Vec<LostRange>) {
        let mut next = Offset::clamped(from);
        let (mut records, mut lost) = (Vec::new(), Vec::new());
        let mut scratch = Vec::new();
        while next < self.log.durable_offset() {
            let read = match self.log.read(next, 10_000) {
                Ok(read) => read,
                Err(ReadError::DataLoss { first, last, .. }) => {
                    assert!(first <= next && next <= last, "{first} to {last} does not hold {next}");
                    lost.push((first.get(), last.get()));
                    next = last.plus(1);
                    continue;
                }
                Err(error) => panic!("at {next}: {error}"),
            };
            assert!(read.next_offset > next, "a read goes on");
            next = read.next_offset;
            for chunk in &read.chunks {
                for batch in record::batches(chunk) {
                    let batch = batch.unwrap();
                    assert!(batch.crc_is_valid());
                    for record in batch.records(&mut scratch, 1 << 20).unwrap() {
                        let record = record.unwrap();
                        let number = u64::from_be_bytes(record.value.unwrap()[..8].try_into().unwrap());
                        if record.offset.get() >= from {
                            records.push((record.offset.get(), number));
                        }
                    }
                }
            }
        }
        (records, lost)
    }

    /// Every record before `end` has its own offset as its number, but for those in `lost`, which are told as lost.
    pub(super) fn assert_lost(&self, end: i64, lost: &[(i64, i64)]) {
        let is_lost = |offset: i64| lost.iter().any(|(first, last)| (*first..=*last).contains(&offset));
        let expected: Vec<(i64, u64)> = (0..end).filter(|i| !is_lost(*i)).map(|i| (i, i as u64)).collect();
        let (records, told) = self.read_around(0);
        assert_eq!(told, lost);
        assert!(records == expected, "what is not lost is what was appended");
        assert_eq!(self.log.durable_offset().get(), end);
    }

    /// Every record has its own offset as its number, from `from` to the end.
    pub(super) fn assert_numbered(&self, from: i64, end: i64) {
        let expected: Vec<(i64, u64)> = (from..end).map(|i| (i, i as u64)).collect();
        assert!(self.read_all(from) == expected, "what is read from {from} to {end} is what was appended");
    }

    pub(super) fn configure(&self, config: LogConfig) {
        let (sender, done) = channel();
        self.log.configure(config, Box::new(move |result| drop(sender.send(result))));
        done.recv().unwrap().unwrap();
    }

    pub(super) fn delete_records(&self, before: i64) -> Result<Offset, LogError> {
        let (sender, done) = channel();
        let before = Offset::clamped(before);
        self.log.delete_records(before, Box::new(move |result| drop(sender.send(result))));
        done.recv().unwrap()
    }

    /// An orderly end.
    pub(super) fn close(self) {
        self.store.close().unwrap();
    }

    /// As a crash of the process would leave it.
    pub(super) fn crash(self) {
        drop(self);
    }

    /// An orderly end, or a crash.
    pub(super) fn end(self, is_orderly: bool) {
        if is_orderly {
            self.close();
        } else {
            self.crash();
        }
    }

    /// Waits until the upkeep thread has done what it was asked before.
    pub(super) fn settle(&self) {
        // It does its work in order, and this one changes nothing.
        let _ = self.delete_records(0);
    }
}

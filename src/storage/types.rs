//! What callers of the storage layer say and hear: settings of a log, appends, reads and their errors.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::mmap::Lease;
use super::producers::ProducerError;
use crate::types::{LeaderEpoch, Offset, PartitionId, TopicId, TopicName};

/// When an append is acknowledged and its records become visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Once they are on the disk: they survive a power cut.
    #[default]
    Fsync,
    /// Once they are in the operating system's page cache: they survive a crash of the process, but not of the machine.
    Os,
}

/// The settings of one log; they can change while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// When an append is acknowledged.
    pub durability: Durability,
    /// A segment is rolled before it would grow beyond this. At most `i32::MAX`.
    pub segment_bytes: u32,
    /// A segment is rolled by the first append this long after its first one, in ms.
    pub segment_ms: u64,
}

/// Which log, and how it is to run.
#[derive(Debug, Clone)]
pub struct LogSpec {
    /// With `partition`, names the directory.
    pub topic: TopicName,
    /// With `topic`, names the directory.
    pub partition: PartitionId,
    /// Must be the one found in the directory.
    pub topic_id: TopicId,
    /// Its settings.
    pub config: LogConfig,
    /// Whether its appends may take from the room set aside for a full disk.
    pub uses_reserve: bool,
}

/// One batch to append: valid, complete and encoded. Its base offset and leader epoch are overwritten.
pub struct Append {
    /// Exactly one record batch, checked by `record::validate`.
    pub batch: BytesMut,
    /// Append only if the batch gets this offset. A duplicate is told as such whatever this says.
    pub expected_offset: Option<Offset>,
    /// Called exactly once, on a storage thread; must not block.
    pub done: AppendDone,
}

/// Hears what became of an append.
pub type AppendDone = Box<dyn FnOnce(Result<Appended, AppendError>) + Send>;
/// Hears what became of an operation on a log.
pub type Done<T> = Box<dyn FnOnce(Result<T, LogError>) + Send>;
/// Hears the durable offset whenever it has moved; called on a storage thread, must not block.
pub type DurableListener = Arc<dyn Fn(Offset) + Send + Sync>;

/// A batch that has been appended and is as durable as its log promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// Where the log starts now.
    pub log_start_offset: Offset,
    /// It had been appended before, by its producer's numbers, and was not appended again.
    pub duplicate: bool,
}

/// Why an append failed. Nothing of it is visible, nor will be, but for `Sealed`: what was written before the log stopped
/// taking writes may be there after the next start, each batch whole or not at all.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// No room on the disk. It may work again later.
    #[error("no room on the disk for {path}")]
    NoSpace {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// The write failed and was undone; the log goes on.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// The batch would not get the offset that was expected.
    #[error("the next offset is {next}, not {expected}")]
    UnexpectedOffset {
        /// What was expected.
        expected: Offset,
        /// What it would get; what is below need not be durable yet.
        next: Offset,
    },
    /// The batch is not the one that its producer has to send next.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// The log takes no writes any more.
    #[error("the log takes no writes: {reason}")]
    Sealed {
        /// What happened to it.
        reason: Arc<str>,
    },
    /// The log has been closed or deleted.
    #[error("the log is closed")]
    Closed,
}

/// Why an operation on a log other than an append or a read failed. Nothing has changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// The offset lies outside the log.
    #[error("offset {offset} is outside the log, which has {log_start_offset} to {durable_offset}")]
    OutOfRange {
        /// What was asked for.
        offset: Offset,
        /// The first offset there is.
        log_start_offset: Offset,
        /// One past the last visible one.
        durable_offset: Offset,
    },
    /// The disk did not do it.
    #[error("{path} cannot be used: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// The end of the log is not lost: there is nothing to accept.
    #[error("the end of the log is not lost")]
    NothingLost,
    /// The log takes no changes any more.
    #[error("the log takes no writes: {reason}")]
    Sealed {
        /// What happened to it.
        reason: Arc<str>,
    },
    /// The log has been closed or deleted.
    #[error("the log is closed")]
    Closed,
}

/// What was given up when the loss of a log's end was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptedLoss {
    /// The first offset that is lost.
    pub first: Offset,
    /// The offset with which the log goes on: far above all that could have been given out.
    pub next: Offset,
    /// The leader epoch of what is appended from now on; no batch before has it.
    pub leader_epoch: LeaderEpoch,
}

/// Why the loss of a log's end was not accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AcceptLossError {
    /// Nothing has changed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// It was accepted, durably, and then the log could not be opened: the next start tries again.
    #[error("the loss is accepted, but the log cannot be opened now: {0}")]
    Reopen(OpenLogError),
}

/// Why a read failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The offset lies outside the log.
    #[error("offset {offset} is outside the log, which has {log_start_offset} to {durable_offset}")]
    OutOfRange {
        /// What was asked for.
        offset: Offset,
        /// The first offset there is.
        log_start_offset: Offset,
        /// One past the last visible one.
        durable_offset: Offset,
    },
    /// What was written there is not what is there now.
    #[error("offsets {first} to {last} cannot be read: {detail}")]
    DataLoss {
        /// The first offset of the unreadable range.
        first: Offset,
        /// The last offset of the unreadable range.
        last: Offset,
        /// An operator has accepted the loss of this range.
        accepted: bool,
        /// What was found.
        detail: String,
    },
    /// The file cannot be opened, mapped or read now.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// The log has been closed or deleted.
    #[error("the log is closed")]
    Closed,
}

/// Whole batches in offset order.
#[derive(Debug, Clone, Default)]
pub struct ReadBatches {
    /// Each is one or more whole batches, back to back. The first batch holds the asked offset, or, where there is a
    /// hole, the first offset after it.
    pub chunks: Vec<Bytes>,
    /// One past the last offset in `chunks`; the asked offset if they are empty.
    pub next_offset: Offset,
    /// The length of all chunks.
    pub size_bytes: u64,
    /// Of the chunks: to be asked once they have been copied or decoded, which is void if it is not intact.
    pub lease: Lease,
}

/// A record's place and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampedOffset {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp, in ms since the Unix epoch.
    pub timestamp_ms: i64,
}

/// What a log can do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogState {
    /// Reads and writes.
    Online,
    /// Reads up to its durable offset; no writes.
    ReadOnly {
        /// What happened.
        reason: Arc<str>,
    },
}

/// What a log is at a moment; the numbers may be of slightly different moments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogStatus {
    /// The first offset there is.
    pub log_start_offset: Offset,
    /// One past the last visible offset.
    pub durable_offset: Offset,
    /// One past the last written offset.
    pub log_end_offset: Offset,
    /// The bytes of its segments.
    pub size_bytes: u64,
    /// How many segments it has, the active one included.
    pub segments: usize,
    /// The epoch stamped on new batches.
    pub leader_epoch: LeaderEpoch,
    /// What it can do.
    pub state: LogState,
}

/// Why a log could not be opened. It is left as it is.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenLogError {
    /// The directory is not there.
    #[error("the directory {path} is missing")]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// The directory belongs to another topic of the same name.
    #[error("{path} belongs to topic id {found}, not {expected}")]
    WrongTopic {
        /// The directory.
        path: PathBuf,
        /// The id in it.
        found: String,
        /// The id asked for.
        expected: TopicId,
    },
    /// The log is not what was left behind: it ends too early, or has a hole or rot where only good data can be.
    #[error("{path}: {detail}")]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The disk did not do it.
    #[error("cannot open {path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
}

/// Counters of the storage layer since its start, and gauges of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StorageStats {
    /// Group syncs.
    pub syncs: u64,
    /// The time they took.
    pub sync_micros_total: u64,
    /// The time the longest took.
    pub sync_micros_max: u64,
    /// The bytes in all groups.
    pub sync_group_bytes_total: u64,
    /// The appends in all groups.
    pub sync_group_appends_total: u64,
    /// The bytes in the largest group.
    pub sync_group_bytes_max: u64,
    /// Batches appended.
    pub appended_batches: u64,
    /// Bytes appended.
    pub appended_bytes: u64,
    /// Gauge: bytes in the tail cache.
    pub tail_cache_bytes: u64,
    /// Reads answered from the tail cache.
    pub tail_cache_reads: u64,
    /// Reads answered from segment files.
    pub segment_reads: u64,
    /// Gauge: logs that are not online.
    pub read_only_logs: u32,
    /// Logs that had to be scanned at the start.
    pub recovered_logs: u32,
    /// Bytes scanned at the start.
    pub recovered_bytes: u64,
    /// How often work in the background has panicked: each is a bug.
    pub upkeep_panics: u64,
}

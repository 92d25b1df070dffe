//! How the log is written and read.

use serde::Deserialize;

use super::{ConfigError, in_range, require};

/// The fewest files that reading or writing gets along with.
pub(super) const LEAST_OPEN: usize = 16;

/// Settings of the storage layer, for the whole data directory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageConfig {
    /// Threads that write logs; partitions are spread over them. 1 to 64. Default: 2.
    pub writer_threads: usize,
    /// Written and not yet synced bytes that one log may have. 64 KiB to 1 GiB. Default: 32 MiB.
    pub max_group_bytes: u64,
    /// How the data directory is synced. Default: `auto`.
    pub sync_method: SyncMethod,
    /// Whether what is appended stays in the page cache. Default: `auto`.
    pub page_cache: PageCache,
    /// How long records of a topic with `durability = os` may stay unsynced, in ms. 10 to 3,600,000. Default: 1,000.
    pub flush_interval_ms: u64,
    /// How often recovery points are written, in ms: bounds the work of a recovery. 100 to 3,600,000. Default: 30,000.
    pub checkpoint_interval_ms: u64,
    /// Memory that keeps what was appended last, for the whole broker. 0 to 1 TiB. Default: 256 MiB.
    pub tail_cache_bytes: u64,
    /// One offset index entry every so many bytes of log. 1 KiB to 1 MiB. Default: 4 KiB.
    pub index_interval_bytes: u32,
    /// The largest index file; a full one rolls the segment. 4 KiB to 256 MiB. Default: 10 MiB.
    pub index_max_bytes: u32,
    /// Threads that open and recover logs at the start. 1 to 64. Default: 4.
    pub recovery_threads: usize,
    /// Segments open for reading at a time, in all; more are opened as others are let go. 16 to 1,000,000.
    /// Each takes up to two maps. Default: 4,096.
    pub open_segments: usize,
    /// Room on the disk that is set aside for when there is no other: for deletions, committed offsets and the store's own
    /// files. 0, none, to 64 GiB. Default: 16 MiB.
    pub reserve_bytes: u64,
    /// A partition forgets an idempotent producer that has appended nothing to it for so long, in ms; what it sends again
    /// after that is appended again. 1,000 to 31,536,000,000. Default: one day.
    pub producer_id_expiration_ms: i64,
    /// Idempotent producers that a partition remembers; with more, the one idle longest is forgotten. 1 to 1,000,000.
    /// Default: 10,000.
    pub max_producers_per_partition: usize,
    /// Logs with a file open for writing at a time, in all; one with nothing unsynced is closed for another. 16 to
    /// 1,000,000, and at least `writer_threads`. Default: 4,096.
    pub open_logs: usize,
}

/// How a group of written files is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncMethod {
    /// `syncfs` for many files where it is known to be safe and measures cheaper, `fdatasync` otherwise.
    Auto,
    /// `fdatasync` of each file.
    Fdatasync,
    /// `syncfs` of the whole file system.
    Syncfs,
}

/// Whether what is appended stays in the page cache. What was appended last is in the tail cache in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PageCache {
    /// It stays while a reader lags beyond the tail cache and reads the segment that is appended to, and for 10 s after.
    Auto,
    /// It stays as long as the kernel likes.
    Keep,
    /// It is dropped once it is written back, where the kernel can (Linux 6.14) and the write is not a small one.
    Drop,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            writer_threads: 2,
            max_group_bytes: 32 << 20,
            sync_method: SyncMethod::Auto,
            page_cache: PageCache::Auto,
            flush_interval_ms: 1_000,
            checkpoint_interval_ms: 30_000,
            tail_cache_bytes: 256 << 20,
            index_interval_bytes: 4 << 10,
            index_max_bytes: 10 << 20,
            recovery_threads: 4,
            open_segments: 4_096,
            reserve_bytes: 16 << 20,
            producer_id_expiration_ms: 86_400_000,
            max_producers_per_partition: 10_000,
            open_logs: 4_096,
        }
    }
}

impl StorageConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        in_range("storage.writer_threads", self.writer_threads, 1..=64)?;
        in_range("storage.max_group_bytes", self.max_group_bytes, 64 << 10..=1 << 30)?;
        in_range("storage.flush_interval_ms", self.flush_interval_ms, 10..=3_600_000)?;
        in_range("storage.checkpoint_interval_ms", self.checkpoint_interval_ms, 100..=3_600_000)?;
        in_range("storage.tail_cache_bytes", self.tail_cache_bytes, 0..=1 << 40)?;
        in_range("storage.index_interval_bytes", self.index_interval_bytes, 1 << 10..=1 << 20)?;
        in_range("storage.index_max_bytes", self.index_max_bytes, 4 << 10..=256 << 20)?;
        in_range("storage.recovery_threads", self.recovery_threads, 1..=64)?;
        in_range("storage.open_segments", self.open_segments, LEAST_OPEN..=1_000_000)?;
        in_range("storage.open_logs", self.open_logs, LEAST_OPEN..=1_000_000)?;
        require(self.open_logs >= self.writer_threads, "storage.open_logs", self.open_logs, || {
            format!("must be at least storage.writer_threads = {}", self.writer_threads)
        })?;
        in_range("storage.reserve_bytes", self.reserve_bytes, 0..=64 << 30)?;
        let expiration_ms = self.producer_id_expiration_ms;
        in_range("storage.producer_id_expiration_ms", expiration_ms, 1_000..=31_536_000_000)?;
        in_range("storage.max_producers_per_partition", self.max_producers_per_partition, 1..=1_000_000)
    }
}

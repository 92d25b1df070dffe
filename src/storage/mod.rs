//! (placeholder for the storage layer while it is being written)
mod types;
use std::path::Path; use std::sync::Arc;
use crate::{clock::Clock, config::StorageConfig, types::{LeaderEpoch, Offset}};
pub use types::*;

/// Why the data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError { #[error("stub")] Stub }

/// One open data directory. Dropping it without `close` is like a crash.
#[derive(Debug)] pub struct Store;
impl Store {
    /// Locks the data directory, checks its format, reads what the last run left behind. Opens no log. Blocks.
    pub fn open(_dir: &Path, _config: &StorageConfig, _clock: Arc<dyn Clock>) -> Result<Self, OpenError> { todo!() }
    pub fn dir(&self) -> &Path { todo!() }
    pub fn cluster_id(&self) -> &str { todo!() }
    pub fn broker_id(&self) -> i32 { todo!() }
    /// Whether the last run ended in an orderly way.
    pub fn was_clean(&self) -> bool { todo!() }
    pub fn leader_epoch(&self) -> LeaderEpoch { todo!() }
    /// Reads a small file of the data directory that `replace_file` wrote (checksummed, versioned). None if not there. Blocks.
    pub fn read_file(&self, _name: &str) -> Result<Option<Vec<u8>>, LogError> { todo!() }
    /// Replaces it atomically and durably; the one before is kept as `<name>.old`. Blocks.
    pub fn replace_file(&self, _name: &str, _body: &[u8]) -> Result<(), LogError> { todo!() }
    /// Creates the directories of new logs and syncs them; they do not count until the caller has recorded them
    /// (in the catalogue), and a crash before that leaves directories that the next start sets aside. Blocks.
    pub fn create_logs(&self, _specs: &[LogSpec]) -> Result<Vec<LogHandle>, LogError> { todo!() }
    /// Opens existing logs in parallel, recovering those that need it. One result per spec, in order. Blocks.
    /// `Ok` may also be a read-only log (see LogStatus).
    pub fn open_logs(&self, _specs: &[LogSpec]) -> Vec<Result<LogHandle, OpenLogError>> { todo!() }
    /// After every known log was opened: sets aside directories that belong to no given spec (renamed, never deleted),
    /// finishes deletions, starts the periodic checkpoint, durably removes the clean mark. Must be called before the first append. Blocks.
    pub fn start(&self) -> Result<(), LogError> { todo!() }
    /// Closes logs and deletes their directories (the caller has removed them from the catalogue). Waiting appends fail with Closed. Blocks.
    pub fn delete_logs(&self, _logs: &[LogHandle]) -> Result<(), LogError> { todo!() }
    pub fn stats(&self) -> StorageStats { todo!() }
    /// Orderly end: finishes what was accepted, syncs, writes indexes, checkpoint and the clean mark. Blocks.
    pub fn close(&self) -> Result<(), LogError> { todo!() }
}

/// One open log; cheap to clone.
#[derive(Debug, Clone)] pub struct LogHandle;
impl LogHandle {
    /// Hands a batch to the log's writer. Never blocks: the caller bounds what is under way.
    /// Appends of one caller are done in the order given.
    pub fn append(&self, _append: Append) { todo!() }
    pub fn durable_offset(&self) -> Offset { todo!() }
    pub fn log_start_offset(&self) -> Offset { todo!() }
    pub fn status(&self) -> LogStatus { todo!() }
    /// Sets who hears of a moved durable offset (one listener); called at once with the present one.
    pub fn listen(&self, _listener: DurableListener) { todo!() }
    /// Reads from memory alone: `None` if what is asked is not all in the tail cache's reach (then use `read`, on a thread that may block).
    /// At the durable offset: `Some` with no chunks.
    pub fn read_tail(&self, _offset: Offset, _max_bytes: u64) -> Result<Option<ReadBatches>, ReadError> { todo!() }
    /// At least one batch if there is one at or after `offset` below the durable offset, then as many as fit. Blocks.
    pub fn read(&self, _offset: Offset, _max_bytes: u64) -> Result<ReadBatches, ReadError> { todo!() }
    /// The first record, below the durable offset, whose timestamp is at or after `timestamp_ms`. Blocks.
    /// `max_decompressed_bytes` caps what a batch may unpack to.
    pub fn find_timestamp(&self, _timestamp_ms: i64, _max_decompressed_bytes: u64) -> Result<Option<TimestampedOffset>, ReadError> { todo!() }
    /// Moves the log start offset up, durably, and lets whole segments below it go.
    pub fn delete_records(&self, _before: Offset, _done: Done<Offset>) { todo!() }
    /// New settings from the next append on; `os` to `fsync` syncs before `done`.
    pub fn configure(&self, _config: LogConfig, _done: Done<()>) { todo!() }
}

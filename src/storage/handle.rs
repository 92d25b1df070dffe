//! What the layer above holds of an open log.

use std::sync::Arc;
use std::sync::mpsc::{SendError, Sender};

use super::log_view::LogView;
use super::types::{
    Append, AppendDone, AppendError, Appended, Done, DurableListener, LogConfig, LogError, LogStatus,
    ReadBatches, ReadError, TimestampedOffset,
};
use super::upkeep::Job;
use super::writer::{Command, LogNumber, WRITER_DIED, refuse};
use crate::types::{LeaderEpoch, Offset};

/// One open log; cheap to clone.
#[derive(Clone)]
pub struct LogHandle {
    pub(super) view: Arc<LogView>,
    pub(super) number: LogNumber,
    pub(super) commands: Sender<Command>,
    pub(super) jobs: Sender<Job>,
    pub(super) leader_epoch: LeaderEpoch,
}

impl std::fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LogHandle").field(&self.view).finish()
    }
}

impl LogHandle {
    /// Hands a batch to the log's writer. Never blocks: the caller bounds what is under way. Appends of one caller are
    /// done in the order given. Each is answered, whatever becomes of the writer.
    pub fn append(&self, append: Append) {
        let Append { batch, expected_offset, done } = append;
        let answer = Answer { view: Arc::clone(&self.view), done: Some(done) };
        let done = Box::new(move |result| answer.give(result));
        self.send(Command::Append(self.number, Append { batch, expected_offset, done }));
    }

    /// Whether it has been closed or deleted: it gives and takes nothing any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.view.is_closed()
    }

    /// One past the last offset that readers may see.
    pub fn durable_offset(&self) -> Offset {
        self.view.durable_offset()
    }

    /// The first offset there is.
    pub fn log_start_offset(&self) -> Offset {
        self.view.log_start_offset()
    }

    /// What the log is now.
    pub fn status(&self) -> LogStatus {
        self.view.status(self.leader_epoch)
    }

    /// Sets who hears of a moved durable offset, one listener a log; it is called at once with the present one.
    pub fn listen(&self, listener: DurableListener) {
        self.view.listen(listener);
    }

    /// Reads without waiting for the disk: from the tail cache, or from where an earlier read has ended, if what follows is
    /// in memory and has been checked. `None` if it is neither; then [`LogHandle::read`] has it, on a thread that may
    /// block. At the durable offset: no chunks.
    ///
    /// # Errors
    /// `OutOfRange` or `Closed`.
    pub fn read_now(&self, offset: Offset, max_bytes: u64) -> Result<Option<ReadBatches>, ReadError> {
        self.view.read_now(offset, max_bytes)
    }

    /// At least one batch if there is one at or after `offset` below the durable offset, then as many as fit into
    /// `max_bytes`. May block on the disk.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&self, offset: Offset, max_bytes: u64) -> Result<ReadBatches, ReadError> {
        self.view.read(offset, max_bytes)
    }

    /// The first record below the durable offset whose timestamp is at or after `timestamp_ms`. A compressed batch
    /// may unpack to at most `max_decompressed_bytes`. May block on the disk.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn find_timestamp(
        &self,
        timestamp_ms: i64,
        max_decompressed_bytes: u64,
    ) -> Result<Option<TimestampedOffset>, ReadError> {
        self.view.find_timestamp(timestamp_ms, max_decompressed_bytes)
    }

    /// Moves the log start offset up to `before`, durably, and lets whole segments below it go.
    pub fn delete_records(&self, before: Offset, done: Done<Offset>) {
        let job = Job::DeleteRecords(Arc::clone(&self.view), before, done);
        if let Err(SendError(Job::DeleteRecords(_, _, done))) = self.jobs.send(job) {
            done(Err(LogError::Closed));
        }
    }

    /// New settings from the next append on. From `os` to `fsync`, everything is synced before `done`.
    pub fn configure(&self, config: LogConfig, done: Done<()>) {
        self.send(Command::Configure(self.number, config, done));
    }

    fn send(&self, command: Command) {
        if let Err(SendError(command)) = self.commands.send(command) {
            refuse(command, self.view.failure());
        }
    }
}

/// The answer to an append. A thread that panics drops what it has in hand: that is an answer too.
struct Answer {
    view: Arc<LogView>,
    done: Option<AppendDone>,
}

impl Answer {
    fn give(mut self, result: Result<Appended, AppendError>) {
        if let Some(done) = self.done.take() {
            done(result);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let Some(done) = self.done.take() else { return };
        if std::thread::panicking() {
            self.view.fail(WRITER_DIED);
        }
        done(Err(self.view.failure().map_or(AppendError::Closed, |reason| AppendError::Sealed { reason })));
    }
}

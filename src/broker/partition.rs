//! One log, the mark its readers wait on, and its errors in a topic's words.
//!
//! The high watermark is derived from the log's durable offset: today the two are equal, with replicas it is
//! the least of theirs. The store tells of every move on a thread of its own; the mark carries it to the
//! readers that wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use tokio::sync::watch;

use super::error::BrokerError;
use crate::storage::limits::is_exhausted;
use crate::storage::{AppendError, LogError, LogHandle, LogState, ReadBatches, ReadError};
use crate::types::{Offset, PartitionId, TopicName};

/// What waiting readers wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// One past the last offset readers may see.
    pub(super) high_watermark: Offset,
    /// Whether more can come.
    pub(super) life: Life,
}

/// What has become of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Its log is open.
    Open,
    /// Its log may be closed for a moment: a loss is being accepted.
    Reopening,
    /// Its log could not be opened again, and nothing more will come before the next start.
    Fenced,
    /// The topic is gone, and nothing more will come.
    Deleted,
}

impl Life {
    /// Whether nothing more will come.
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Fenced | Self::Deleted)
    }
}

/// One partition with an open log.
#[derive(Debug)]
pub(super) struct Partition {
    topic: TopicName,
    id: PartitionId,
    /// Another one once the loss of its end has been accepted.
    log: RwLock<Arc<LogHandle>>,
    mark: Arc<watch::Sender<Mark>>,
    /// Set by the first append the log refuses for good: until the next start it will refuse them all.
    read_only: AtomicBool,
}

impl Partition {
    /// Takes over an open log and listens to it.
    pub(super) fn new(topic: TopicName, id: PartitionId, log: LogHandle) -> Self {
        let mark =
            Arc::new(watch::Sender::new(Mark { high_watermark: log.durable_offset(), life: Life::Open }));
        listen(&log, &mark);
        let read_only = AtomicBool::new(log.status().state != LogState::Online);
        Self { topic, id, log: RwLock::new(Arc::new(log)), mark, read_only }
    }

    /// The log has been opened again as this one, and goes on further up. Who waits for more of it is told.
    pub(super) fn go_on(&self, log: LogHandle) {
        let log = Arc::new(log);
        {
            let mut current = self.log.write();
            *current = Arc::clone(&log);
            self.read_only.store(false, Ordering::Relaxed);
        }
        self.set_life(Life::Open);
        listen(&log, &self.mark);
    }

    pub(super) fn topic(&self) -> &TopicName {
        &self.topic
    }

    pub(super) fn id(&self) -> PartitionId {
        self.id
    }

    /// Not to be kept for long.
    pub(super) fn log(&self) -> Arc<LogHandle> {
        Arc::clone(&self.log.read())
    }

    /// Asked of the log and not of the mark, so that whoever has heard of an append finds it.
    pub(super) fn high_watermark(&self) -> Offset {
        self.log().durable_offset()
    }

    /// Whether an append may succeed, as far as is known.
    pub(super) fn takes_writes(&self) -> bool {
        !self.read_only.load(Ordering::Relaxed)
    }

    /// Hears of every move of the high watermark from now on.
    pub(super) fn watch(&self) -> watch::Receiver<Mark> {
        self.mark.subscribe()
    }

    /// Says what a closed log means from now on, and wakes every reader.
    pub(super) fn set_life(&self, life: Life) {
        self.mark.send_modify(|mark| mark.life = life);
    }

    /// Reads whole batches from `offset` on, without blocking: from memory where possible, otherwise on
    /// another thread.
    pub(super) async fn read(&self, offset: i64, max_bytes: u64) -> Result<ReadBatches, BrokerError> {
        if self.mark.borrow().life == Life::Deleted {
            return Err(BrokerError::UnknownTopic { topic: self.topic.clone() });
        }
        let offset = Offset::new(offset).ok_or_else(|| self.out_of_range(offset))?;
        let in_memory = self.log().read_now(offset, max_bytes);
        match in_memory {
            Ok(Some(batches)) => Ok(batches),
            Ok(None) => self.blocking(move |log| log.read(offset, max_bytes)).await,
            Err(error) => Err(self.read_error(error)),
        }
    }

    /// Does something with the log that may wait for the disk.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(LogHandle) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, BrokerError> {
        let log = LogHandle::clone(&self.log());
        match tokio::task::spawn_blocking(move || read(log)).await {
            Ok(outcome) => outcome.map_err(|error| self.read_error(error)),
            Err(error) => Err(BrokerError::cut_short(&self.topic, Some(self.id), &error)),
        }
    }

    pub(super) fn out_of_range(&self, offset: i64) -> BrokerError {
        BrokerError::OffsetOutOfRange {
            topic: self.topic.clone(),
            partition: self.id,
            offset,
            log_start_offset: self.log().log_start_offset(),
            high_watermark: self.high_watermark(),
        }
    }

    /// Why an append failed.
    pub(super) fn append_error(&self, error: AppendError) -> BrokerError {
        let (topic, partition) = (self.topic.clone(), self.id);
        match error {
            AppendError::NoSpace { .. } => BrokerError::StorageFull { topic, partition: Some(partition) },
            AppendError::Write { ref source, .. } if is_exhausted(source) => {
                BrokerError::TooManyFiles { topic, partition: Some(partition), detail: error.to_string() }
            }
            AppendError::Write { .. } => {
                BrokerError::Storage { topic, partition: Some(partition), detail: error.to_string() }
            }
            AppendError::UnexpectedOffset { expected, next } => {
                BrokerError::UnexpectedOffset { topic, partition, expected, next }
            }
            AppendError::Producer(error) => BrokerError::Producer { topic, partition, error },
            AppendError::Sealed { reason } => {
                // It may be the one before that has refused it.
                let log = self.log.read();
                if log.status().state != LogState::Online && !self.read_only.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%topic, %partition, %reason, "the partition takes no writes any more");
                }
                BrokerError::Fenced { topic, partition, detail: reason.to_string() }
            }
            AppendError::Closed => self.closed(),
        }
    }

    /// Why a change of the log failed.
    pub(super) fn log_error(&self, error: &LogError) -> BrokerError {
        match error {
            LogError::Closed => self.closed(),
            error => BrokerError::of_log(&self.topic, Some(self.id), error),
        }
    }

    fn read_error(&self, error: ReadError) -> BrokerError {
        let (topic, partition) = (self.topic.clone(), self.id);
        match error {
            ReadError::OutOfRange { offset, log_start_offset, durable_offset } => {
                BrokerError::OffsetOutOfRange {
                    topic,
                    partition,
                    offset: offset.get(),
                    log_start_offset,
                    high_watermark: durable_offset,
                }
            }
            ReadError::DataLoss { first, last, accepted, detail } => {
                BrokerError::DataLoss { topic, partition, first, last, accepted, detail }
            }
            ReadError::Io { ref source, .. } if is_exhausted(source) => {
                BrokerError::TooManyFiles { topic, partition: Some(partition), detail: error.to_string() }
            }
            ReadError::Io { .. } => {
                BrokerError::Storage { topic, partition: Some(partition), detail: error.to_string() }
            }
            ReadError::Closed => self.closed(),
        }
    }

    /// A log is closed by the deletion of its topic, by the acceptance of a loss, or by the end of the broker.
    pub(super) fn closed(&self) -> BrokerError {
        let (topic, partition) = (self.topic.clone(), self.id);
        // Copied first: nobody asks the log with the mark in hand.
        let life = self.mark.borrow().life;
        match life {
            Life::Deleted => BrokerError::UnknownTopic { topic },
            Life::Fenced => {
                BrokerError::Fenced { topic, partition, detail: "it could not be opened again".to_owned() }
            }
            Life::Reopening => BrokerError::Reopening { topic, partition },
            // It was the log before that is closed.
            Life::Open if !self.log().is_closed() => BrokerError::Reopening { topic, partition },
            Life::Open => BrokerError::ShuttingDown,
        }
    }
}

/// The mark follows the log.
fn listen(log: &LogHandle, mark: &Arc<watch::Sender<Mark>>) {
    let moved = Arc::clone(mark);
    log.listen(Arc::new(move |durable_offset| {
        moved.send_if_modified(|mark| {
            let ahead = durable_offset > mark.high_watermark;
            mark.high_watermark = mark.high_watermark.max(durable_offset);
            ahead
        });
    }));
}

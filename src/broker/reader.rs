//! A reader of one partition that can wait for more: what streams are made of, and long fetches.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::BrokerError;
use super::fetch::Fetched;
use super::partition::{Mark, Partition};
use crate::storage::ReadBatches;
use crate::types::Offset;

/// Reads one partition. Cheap to clone; it knows its partition, and the caller knows its place in it.
#[derive(Debug, Clone)]
pub struct PartitionReader {
    partition: Arc<Partition>,
    marks: watch::Receiver<Mark>,
    shutdown: CancellationToken,
}

impl PartitionReader {
    pub(super) fn new(partition: Arc<Partition>, shutdown: CancellationToken) -> Self {
        Self { marks: partition.watch(), partition, shutdown }
    }

    /// What is there now at `offset`: at least one whole batch if there is any, the first one holding
    /// `offset`; no chunks at the end of the log. `max_bytes` bounds it but for the first batch.
    ///
    /// # Errors
    /// [`BrokerError::OffsetOutOfRange`], [`BrokerError::DataLoss`], [`BrokerError::Storage`],
    /// [`BrokerError::UnknownTopic`] after a deletion, [`BrokerError::Reopening`] and [`BrokerError::Fenced`] when a loss is
    /// accepted, [`BrokerError::ShuttingDown`] once the logs are closed.
    pub async fn read(&self, offset: Offset, max_bytes: u64) -> Result<Fetched, BrokerError> {
        self.read_at(offset.get(), max_bytes).await
    }

    /// As [`Self::read`], for an offset as a client gave it. The marks are taken after the read, so that the
    /// high watermark is never below what was read.
    pub(super) async fn read_at(&self, offset: i64, max_bytes: u64) -> Result<Fetched, BrokerError> {
        let batches = self.partition.read(offset, max_bytes).await?;
        Ok(self.with_marks(batches))
    }

    /// The marks, and no batches, where there is no room for any.
    pub(super) fn nothing_at(&self, offset: i64) -> Fetched {
        self.with_marks(ReadBatches { next_offset: Offset::clamped(offset), ..ReadBatches::default() })
    }

    fn with_marks(&self, batches: ReadBatches) -> Fetched {
        Fetched {
            batches,
            high_watermark: self.partition.high_watermark(),
            log_start_offset: self.partition.log().log_start_offset(),
        }
    }

    /// Returns the high watermark once it is beyond `offset`, at once if it is already.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopic`] when the topic is deleted, [`BrokerError::Fenced`] when the partition could not be
    /// opened again after a loss was accepted, [`BrokerError::ShuttingDown`] when the broker begins to shut down: a stream
    /// that catches up ends then too.
    pub async fn wait_beyond(&mut self, offset: Offset) -> Result<Offset, BrokerError> {
        let beyond = self.marks.wait_for(|mark| mark.life.is_over() || mark.high_watermark > offset);
        let mark = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return Err(BrokerError::ShuttingDown),
            mark = beyond => mark.map(|mark| *mark),
        };
        match mark {
            Ok(Mark { high_watermark, life }) if !life.is_over() => Ok(high_watermark),
            // The partition holds the sending end, so a mark can always be had while it is there.
            Ok(_) | Err(_) => Err(self.partition.closed()),
        }
    }

    /// Whether there is no record at `offset` yet, but the next one will be there.
    pub(super) fn ends_at(&self, offset: i64) -> bool {
        let mark = self.marks.borrow();
        !mark.life.is_over() && mark.high_watermark.get() == offset
    }

    /// From now on, only later moves count as such.
    pub(super) fn forget_moves(&mut self) {
        self.marks.mark_unchanged();
    }

    /// Whether the mark has moved since [`Self::forget_moves`].
    pub(super) fn has_moved(&self) -> bool {
        self.marks.has_changed().unwrap_or(true)
    }

    /// Returns when the mark has moved since [`Self::forget_moves`].
    pub(super) async fn moved(&mut self) {
        // An error means that the partition is gone: the caller hears of it when it reads.
        let _ = self.marks.changed().await;
        // Hearing of it has marked it as seen; it counts until it is forgotten.
        self.marks.mark_changed();
    }
}

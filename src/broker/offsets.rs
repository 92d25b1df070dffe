//! Turning positions into offsets, and moving the start of a log.

use tokio::sync::oneshot;

use super::error::BrokerError;
use super::node::Broker;
use crate::types::{LeaderEpoch, Offset, TopicName};

/// A place in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// This offset, as the client gave it.
    Offset(i64),
    /// The first offset there is.
    Earliest,
    /// The end of what readers may see.
    Latest,
    /// The first record whose timestamp, in ms since the Unix epoch, is at or after this; the end if there is
    /// none.
    TimestampMs(i64),
}

/// The offset of a [`Position`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved {
    /// Where to read from.
    pub offset: Offset,
    /// The timestamp of the record found there, where one was looked for.
    pub timestamp_ms: Option<i64>,
    /// Of the partition now.
    pub leader_epoch: LeaderEpoch,
}

impl Broker {
    /// Turns a position into an offset.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopic`], [`BrokerError::UnknownPartition`], [`BrokerError::Fenced`];
    /// [`BrokerError::OffsetOutOfRange`] for an offset that is not there; the errors of a read for a
    /// timestamp.
    pub async fn resolve(
        &self,
        topic: &TopicName,
        partition: i32,
        position: Position,
    ) -> Result<Resolved, BrokerError> {
        let topic = self.topics.get(topic)?;
        let partition = topic.partition(partition)?;
        let mut timestamp_ms = None;
        let offset = match position {
            Position::Offset(asked) => Offset::new(asked)
                .filter(|offset| {
                    (partition.log().log_start_offset()..=partition.high_watermark()).contains(offset)
                })
                .ok_or_else(|| partition.out_of_range(asked))?,
            Position::Earliest => partition.log().log_start_offset(),
            Position::Latest => partition.high_watermark(),
            Position::TimestampMs(asked) => {
                // Taken before the search, so that what is appended during it is not skipped.
                let end = partition.high_watermark();
                let max_decompressed_bytes = self.config.max_decompressed_bytes;
                let found =
                    partition.blocking(move |log| log.find_timestamp(asked, max_decompressed_bytes)).await?;
                timestamp_ms = found.map(|found| found.timestamp_ms);
                found.map_or(end, |found| found.offset)
            }
        };
        Ok(Resolved { offset, timestamp_ms, leader_epoch: partition.log().status().leader_epoch })
    }

    /// Moves the log start offset up to `before`, or to the high watermark if it is -1: what lies below is
    /// gone for readers, durably. Returns the new log start offset.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopic`], [`BrokerError::UnknownPartition`], [`BrokerError::Fenced`],
    /// [`BrokerError::InternalTopic`], [`BrokerError::OffsetOutOfRange`], [`BrokerError::Storage`],
    /// [`BrokerError::StorageFull`], [`BrokerError::ShuttingDown`].
    pub async fn delete_records(
        &self,
        topic: &TopicName,
        partition: i32,
        before: i64,
    ) -> Result<Offset, BrokerError> {
        self.refuse_at_shutdown()?;
        if topic.is_internal() {
            return Err(BrokerError::InternalTopic { topic: topic.clone() });
        }
        let topic = self.topics.get(topic)?;
        let partition = topic.partition(partition)?;
        let before = match before {
            -1 => partition.high_watermark(),
            before => Offset::new(before).ok_or_else(|| partition.out_of_range(before))?,
        };
        let (tell, outcome) = oneshot::channel();
        let done = move |result| {
            // Nobody may be waiting any more; what is deleted stays deleted.
            let _ = tell.send(result);
        };
        partition.log().delete_records(before, Box::new(done));
        match outcome.await {
            Ok(Ok(log_start_offset)) => {
                tracing::info!(topic = %topic.name, partition = %partition.id(), %log_start_offset, "records deleted");
                Ok(log_start_offset)
            }
            Ok(Err(error)) => Err(partition.log_error(&error)),
            Err(oneshot::error::RecvError { .. }) => Err(partition.closed()),
        }
    }
}

//! Reading several partitions at once, and before that waiting until there is enough in all of them together.

use std::time::Duration;

use futures_util::future::select_all;
use tokio::time::Instant;

use super::error::BrokerError;
use super::reader::PartitionReader;
use super::topics::Topics;
use crate::storage::ReadBatches;
use crate::types::{Offset, TopicName};

/// From where to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchPartition {
    /// The topic.
    pub topic: TopicName,
    /// As the client gave it.
    pub partition: i32,
    /// As the client gave it.
    pub offset: i64,
}

/// How much to read and how long to wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchLimits {
    /// Answer as soon as so many bytes are there, in all partitions together; more than `max_bytes` counts as
    /// that.
    pub min_bytes: u64,
    /// The most to return, but for the first batch, which is returned whole. 0, or more than the broker's
    /// `fetch_max_bytes`: that.
    pub max_bytes: u64,
    /// How long to wait for `min_bytes`; cut to the broker's `fetch_max_wait_ms`.
    pub max_wait: Duration,
}

/// What was read from one partition, with its marks at that moment.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Whole batches; none if there was nothing, or no room left for it.
    pub batches: ReadBatches,
    /// One past the last offset readers may see; at least `batches.next_offset`.
    pub high_watermark: Offset,
    /// The first offset there is.
    pub log_start_offset: Offset,
}

type Outcome = Result<Fetched, BrokerError>;

/// Returns once a read of `partitions` would return `min_bytes`, or an error; when `max_wait` is over; or when the broker
/// begins to shut down. Nothing that is read meanwhile is kept: a call that waits costs no memory.
pub(super) async fn wait(topics: &Topics, partitions: &[FetchPartition], limits: FetchLimits) {
    let config = topics.config();
    let deadline = Instant::now() + limits.max_wait.min(Duration::from_millis(config.fetch_max_wait_ms));
    let mut readers: Vec<PartitionReader> = Vec::with_capacity(partitions.len());
    for asked in partitions {
        match topics.reader(&asked.topic, asked.partition) {
            Ok(reader) => readers.push(reader),
            Err(_) => return,
        }
    }
    let max_bytes = max_bytes(topics, limits.max_bytes);
    let min_bytes = limits.min_bytes.min(max_bytes);
    let mut sizes = vec![None; readers.len()];
    while !is_enough(partitions, &mut readers, &mut sizes, min_bytes, max_bytes).await {
        let moves: Vec<_> = readers.iter_mut().map(|reader| Box::pin(reader.moved())).collect();
        if moves.is_empty() {
            return;
        }
        tokio::select! {
            biased;
            () = topics.shutdown().cancelled() => return,
            _ = select_all(moves) => {}
            () = tokio::time::sleep_until(deadline) => return,
        }
    }
}

/// Looks again at what has moved since the last look. Moves are forgotten before, so that one in between is seen now or
/// waited for, and never missed.
async fn is_enough(
    partitions: &[FetchPartition],
    readers: &mut [PartitionReader],
    sizes: &mut [Option<u64>],
    min_bytes: u64,
    max_bytes: u64,
) -> bool {
    for ((asked, reader), size) in partitions.iter().zip(readers).zip(sizes.iter_mut()) {
        if size.is_some() && !reader.has_moved() {
            continue;
        }
        reader.forget_moves();
        *size = if min_bytes <= 1 {
            // Anywhere but at the end there is either a record or an error.
            Some(u64::from(!reader.ends_at(asked.offset)))
        } else {
            match reader.read_at(asked.offset, max_bytes).await {
                Ok(fetched) => Some(fetched.batches.size_bytes),
                Err(_) => return true,
            }
        };
    }
    sizes.iter().flatten().fold(0, |sum: u64, &size| sum.saturating_add(size)) >= min_bytes
}

/// Reads each of `partitions`; the answers are in the same order, and an error of one is its own. When the broker shuts
/// down, there is no empty answer: what has nothing yet will have nothing any more.
pub(super) async fn read(topics: &Topics, partitions: &[FetchPartition], asked_bytes: u64) -> Vec<Outcome> {
    let mut room = max_bytes(topics, asked_bytes);
    let mut any = false;
    let mut outcomes = Vec::with_capacity(partitions.len());
    for asked in partitions {
        let mut outcome = match topics.reader(&asked.topic, asked.partition) {
            Ok(reader) if room == 0 => Ok(reader.nothing_at(asked.offset)),
            Ok(reader) => match reader.read_at(asked.offset, room).await {
                // The store returns a batch even where there is no room for it; only the first of a fetch may do so.
                Ok(fetched) if any && fetched.batches.size_bytes > room => {
                    Ok(reader.nothing_at(asked.offset))
                }
                outcome => outcome,
            },
            Err(error) => Err(error),
        };
        if let Ok(fetched) = &outcome {
            let empty = fetched.batches.chunks.is_empty();
            any |= !empty;
            room = room.saturating_sub(fetched.batches.size_bytes);
            if empty && topics.shutdown().is_cancelled() {
                outcome = Err(BrokerError::ShuttingDown);
            }
        }
        outcomes.push(outcome);
    }
    outcomes
}

fn max_bytes(topics: &Topics, asked: u64) -> u64 {
    let ceiling = u64::from(topics.config().fetch_max_bytes);
    if asked == 0 { ceiling } else { asked.min(ceiling) }
}

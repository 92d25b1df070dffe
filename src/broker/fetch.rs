//! Reading several partitions at once, and waiting until there is enough in all of them together.

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

/// What has been read so far, in all partitions together.
struct Tally {
    bytes: u64,
    /// A batch was left out because it did not fit: there is enough.
    full: bool,
    failed: bool,
}

/// Reads each of `partitions`; the answers are in the same order. An error of one is its own, and ends the
/// wait.
pub(super) async fn fetch(
    topics: &Topics,
    partitions: &[FetchPartition],
    limits: FetchLimits,
) -> Vec<Outcome> {
    let config = topics.config();
    let ceiling = u64::from(config.fetch_max_bytes);
    let max_bytes = if limits.max_bytes == 0 { ceiling } else { limits.max_bytes.min(ceiling) };
    let min_bytes = limits.min_bytes.min(max_bytes);
    let deadline = Instant::now() + limits.max_wait.min(Duration::from_millis(config.fetch_max_wait_ms));

    let mut readers: Vec<Result<PartitionReader, BrokerError>> =
        partitions.iter().map(|asked| topics.reader(&asked.topic, asked.partition)).collect();
    let mut outcomes: Vec<Option<Outcome>> = vec![None; readers.len()];
    loop {
        let tally = read_moved(partitions, &mut readers, &mut outcomes, max_bytes).await;
        if tally.bytes >= min_bytes || tally.full || tally.failed {
            break;
        }
        let moves: Vec<_> =
            readers.iter_mut().flatten().map(|reader| Box::pin(PartitionReader::moved(reader))).collect();
        if moves.is_empty() {
            break;
        }
        tokio::select! {
            biased;
            () = topics.shutdown().cancelled() => {
                refuse_empty(&mut outcomes);
                break;
            }
            _ = select_all(moves) => {}
            () = tokio::time::sleep_until(deadline) => break,
        }
    }
    outcomes.into_iter().map(|outcome| outcome.unwrap_or(Err(BrokerError::ShuttingDown))).collect()
}

/// Reads what has not been read yet and what has moved since, within what the rest leaves of `max_bytes`.
/// Moves are forgotten before the read, so that one in between is read or waited for, and never missed.
async fn read_moved(
    partitions: &[FetchPartition],
    readers: &mut [Result<PartitionReader, BrokerError>],
    outcomes: &mut [Option<Outcome>],
    max_bytes: u64,
) -> Tally {
    let bytes_of = |outcome: &Option<Outcome>| match outcome {
        Some(Ok(fetched)) => fetched.batches.size_bytes,
        _ => 0,
    };
    let mut tally = Tally { bytes: outcomes.iter().map(bytes_of).sum(), full: false, failed: false };
    for ((asked, reader), outcome) in partitions.iter().zip(readers).zip(outcomes) {
        let reader = match reader {
            Ok(reader) => reader,
            Err(error) => {
                *outcome = Some(Err(error.clone()));
                tally.failed = true;
                continue;
            }
        };
        if outcome.is_some() && !reader.has_moved() {
            continue;
        }
        reader.forget_moves();
        tally.bytes -= bytes_of(outcome);
        let room = max_bytes.saturating_sub(tally.bytes);
        if room == 0 && tally.bytes > 0 {
            *outcome = Some(Ok(reader.nothing_at(asked.offset)));
            tally.full = true;
            continue;
        }
        let mut read = reader.read_at(asked.offset, room).await;
        match &mut read {
            // The store returns a batch even where there is no room for it; only the first of a fetch may do
            // so.
            Ok(fetched) if fetched.batches.size_bytes > room && tally.bytes > 0 => {
                *fetched = reader.nothing_at(asked.offset);
                tally.full = true;
            }
            Ok(fetched) => tally.bytes += fetched.batches.size_bytes,
            Err(_) => tally.failed = true,
        }
        *outcome = Some(read);
    }
    tally
}

/// What has nothing yet will have nothing any more.
fn refuse_empty(outcomes: &mut [Option<Outcome>]) {
    for outcome in outcomes {
        if matches!(outcome, Some(Ok(fetched)) if fetched.batches.chunks.is_empty()) {
            *outcome = Some(Err(BrokerError::ShuttingDown));
        }
    }
}

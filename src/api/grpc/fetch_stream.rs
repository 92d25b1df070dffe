//! `FetchStream`: partitions read from their positions and followed.
//!
//! One task per stream reads the partitions that have something to read in turns, a message's worth each, into an
//! [`Outbox`](super::outbox) of a few messages. The next read, cold or not, thus runs while the one before is being
//! sent, and a reader that is slow slows the reading. Partitions read to their end wait for their high watermarks;
//! nothing polls.
//!
//! A partition that cannot be read, from the start or any more, leaves the stream with a message that says why; the
//! last one leaves its failure to the stream's status instead.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::Context;
use super::convert::{self, Format};
use super::decode::{self, Budget, MAX_DECODED_BYTES};
use super::error::Failure;
use super::fetch::{self, DEFAULT_ANSWER_BYTES, MAX_PARTITIONS_PER_CALL};
use super::lent::Loan;
use super::outbox::{Messages, Outbox, outbox};
use crate::broker::{BrokerError, Fetched, PartitionReader};
use crate::proto::{FetchPartition, FetchStreamRequest, FetchStreamResponse, FetchedRecord, PartitionData};
use crate::types::{Offset, TopicName};

/// A message, and what it borrows.
type Message = (FetchStreamResponse, Option<Loan>);

/// Messages read ahead of the transport.
const MESSAGES_AHEAD: usize = 2;

/// Serves `FetchStream`: the stream that a task of its own fills from now on.
///
/// # Errors
/// A [`Failure`] if the request is not valid, names what does not exist, or none of its partitions can be read: the
/// first one's.
pub(super) async fn open(
    context: Arc<Context>,
    request: FetchStreamRequest,
) -> Result<Messages<Message>, Failure> {
    convert::count("partitions", request.partitions.len(), MAX_PARTITIONS_PER_CALL)?;
    let format = convert::format(request.format)?;
    let max_bytes = fetch::max_bytes(&context, request.max_bytes, DEFAULT_ANSWER_BYTES)?;
    let mut named = HashSet::with_capacity(request.partitions.len());
    for asked in &request.partitions {
        if !named.insert((asked.topic.as_str(), asked.partition)) {
            let twice = format!("names {}-{} twice", asked.topic, asked.partition);
            return Err(Failure::invalid_request("partitions", twice));
        }
    }
    let (ready, unreadable) = sources(&context, &request.partitions).await?;
    let stall_timeout = Duration::from_millis(context.config.stall_timeout_ms);
    let (outbox, messages) = outbox(MESSAGES_AHEAD, stall_timeout);
    tokio::spawn(async move {
        let feed = Feed { context: &context, outbox: &outbox, format, max_bytes };
        let ending = tokio::select! {
            biased;
            () = context.shutdown.cancelled() => Failure::shutting_down(),
            () = outbox.closed() => return,
            failure = outbox.stalled() => failure,
            failure = feed.run(ready, unreadable) => failure,
        };
        outbox.end(ending).await;
    });
    Ok(messages)
}

/// The partitions that can be read, and messages about those that cannot.
async fn sources(
    context: &Context,
    partitions: &[FetchPartition],
) -> Result<(VecDeque<Source>, Vec<PartitionData>), Failure> {
    let mut ready = VecDeque::with_capacity(partitions.len());
    let mut failed = Vec::new();
    for (asked, start) in partitions.iter().zip(fetch::resolve_all(context, partitions).await) {
        let source = start.and_then(|(topic, start)| {
            let reader = context.broker.reader(&topic, asked.partition)?;
            Ok(Source { topic, partition: asked.partition, reader, offset: start.offset, told: None })
        });
        match source {
            Ok(source) => ready.push_back(source),
            Err(failure) if failure.blames_request() => return Err(failure),
            Err(failure) => failed.push((asked, failure)),
        }
    }
    if ready.is_empty()
        && let Some((_, failure)) = failed.first()
    {
        return Err(failure.clone());
    }
    let unreadable = failed
        .into_iter()
        .map(|(asked, failure)| unreadable(asked.topic.clone(), asked.partition, failure))
        .collect();
    Ok((ready, unreadable))
}

/// One partition, and how far it has been read.
struct Source {
    topic: TopicName,
    partition: i32,
    reader: PartitionReader,
    offset: Offset,
    /// The high watermark and the log start the client has heard of.
    told: Option<(Offset, Offset)>,
}

impl Source {
    /// Returns itself once there is something to read, or why there never will be.
    async fn woken(mut self) -> (Self, Result<(), BrokerError>) {
        let woken = self.reader.wait_beyond(self.offset).await;
        (self, woken.map(|_| ()))
    }
}

/// What a failure ends.
enum Halt {
    Partition(Failure),
    Stream(Failure),
}

impl From<BrokerError> for Halt {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::ShuttingDown => Self::Stream(error.into()),
            _ => Self::Partition(error.into()),
        }
    }
}

struct Feed<'a> {
    context: &'a Context,
    outbox: &'a Outbox<Message>,
    format: Format,
    max_bytes: u64,
}

impl Feed<'_> {
    /// Reads and follows until the stream or its last partition fails, and returns that failure.
    async fn run(&self, mut ready: VecDeque<Source>, unreadable: Vec<PartitionData>) -> Failure {
        for data in unreadable {
            if let Err(failure) = self.send(data, None).await {
                return failure;
            }
        }
        let mut waiting: FuturesUnordered<BoxFuture<'static, (Source, Result<(), BrokerError>)>> =
            FuturesUnordered::new();
        loop {
            // Those that have come alive meanwhile join the round at its end.
            while let Some(Some((source, woken))) = waiting.next().now_or_never() {
                match woken {
                    Ok(()) => ready.push_back(source),
                    Err(error) => {
                        let others = !(ready.is_empty() && waiting.is_empty());
                        if let Err(failure) = self.leave(source, error.into(), others).await {
                            return failure;
                        }
                    }
                }
            }
            let (mut source, woken) = match ready.pop_front() {
                Some(source) => (source, Ok(())),
                None => match waiting.next().await {
                    Some(woken) => woken,
                    // Every source is either ready or waiting, and the last one does not leave.
                    None => return Failure::internal(),
                },
            };
            let advanced = match woken {
                Ok(()) => self.advance(&mut source).await,
                Err(error) => Err(error.into()),
            };
            match advanced {
                Ok(true) => ready.push_back(source),
                Ok(false) => waiting.push(Box::pin(source.woken())),
                Err(halt) => {
                    let others = !(ready.is_empty() && waiting.is_empty());
                    if let Err(failure) = self.leave(source, halt, others).await {
                        return failure;
                    }
                }
            }
        }
    }

    /// Goes on without `source` if it is the only one to fail and there are `others`.
    ///
    /// # Errors
    /// What ends the stream.
    async fn leave(&self, source: Source, halt: Halt, others: bool) -> Result<(), Failure> {
        match halt {
            Halt::Partition(failure) if others => {
                self.send(unreadable(source.topic.to_string(), source.partition, failure), None).await
            }
            Halt::Partition(failure) | Halt::Stream(failure) => Err(failure),
        }
    }

    /// Reads once and sends what was there. Returns whether there may be more.
    async fn advance(&self, source: &mut Source) -> Result<bool, Halt> {
        let fetched = source.reader.read(source.offset, self.max_bytes).await?;
        let marks = (fetched.high_watermark, fetched.log_start_offset);
        let end = fetched.batches.next_offset;
        if fetched.batches.chunks.is_empty() && source.told == Some(marks) {
            return Ok(false);
        }
        match self.format {
            Format::RecordBatches => self.send_batches(source, fetched).await.map_err(Halt::Stream)?,
            Format::Records => self.send_records(source, fetched).await?,
        }
        source.told = Some(marks);
        Ok(end < marks.0)
    }

    async fn send_batches(&self, source: &mut Source, fetched: Fetched) -> Result<(), Failure> {
        source.offset = fetched.batches.next_offset;
        let loan = Loan::of(&fetched.batches, &source.topic, source.partition);
        let mut data = envelope(source, &fetched);
        data.record_batches = decode::coalesce(fetched.batches.chunks);
        self.send(data, loan).await
    }

    /// One message, or several where the records are larger than they were compressed.
    async fn send_records(&self, source: &mut Source, fetched: Fetched) -> Result<(), Halt> {
        let end = fetched.batches.next_offset;
        let budget = Budget {
            max_decompressed_bytes: self.context.broker.config().max_decompressed_bytes,
            max_weight_bytes: MAX_DECODED_BYTES,
        };
        loop {
            let decoded = decode::records(&fetched.batches, source.offset, budget)
                .await
                .map_err(Halt::Stream)?
                .map_err(|lost| {
                    Halt::Partition(lost.in_partition(source.topic.as_str(), source.partition))
                })?;
            let mut records = decoded.records.into_iter().peekable();
            loop {
                let piece = take_weight(&mut records, self.max_bytes as usize);
                source.offset = match records.peek() {
                    Some(next) => Offset::clamped(next.offset),
                    None => decoded.next_offset,
                };
                let mut data = envelope(source, &fetched);
                data.records = piece;
                let loan = Loan::of(&fetched.batches, &source.topic, source.partition);
                self.send(data, loan).await.map_err(Halt::Stream)?;
                if records.peek().is_none() {
                    break;
                }
            }
            if source.offset >= end {
                return Ok(());
            }
        }
    }

    async fn send(&self, data: PartitionData, loan: Option<Loan>) -> Result<(), Failure> {
        self.outbox.send((FetchStreamResponse { data: Some(data) }, loan)).await
    }
}

/// A message about a partition that leaves the stream.
fn unreadable(topic: String, partition: i32, failure: Failure) -> PartitionData {
    PartitionData { topic, partition, error: Some(failure.into()), ..Default::default() }
}

/// A message about `source`, which has been read up to its offset.
fn envelope(source: &Source, fetched: &Fetched) -> PartitionData {
    PartitionData {
        topic: source.topic.to_string(),
        partition: source.partition,
        high_watermark: fetched.high_watermark.get(),
        log_start_offset: fetched.log_start_offset.get(),
        next_offset: source.offset.get(),
        ..Default::default()
    }
}

/// The next records, up to the one that reaches `max_bytes`.
fn take_weight(records: &mut impl Iterator<Item = FetchedRecord>, max_bytes: usize) -> Vec<FetchedRecord> {
    let mut taken = Vec::new();
    let mut bytes = 0;
    for record in records {
        bytes += decode::weight(&record);
        taken.push(record);
        if bytes >= max_bytes {
            break;
        }
    }
    taken
}

//! `FetchStream`: partitions read from their positions and followed.
//!
//! One task per stream reads the partitions that have something to read in turns, a message's worth each, into an
//! [`Answer`](super::answer) of a few messages. The next read, cold or not, thus runs while the one before is being
//! sent, and a reader that is slow slows the reading. Partitions read to their end wait for their high watermarks;
//! nothing polls.
//!
//! A partition that cannot be read, from the start or any more, leaves the stream with a message that says why; the
//! last one leaves its failure to the stream's status instead.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};

use tokio_util::sync::CancellationToken;

use super::Context;
use super::answer::{Answer, AnswerBody, TRANSPORT_BYTES, answer};
use super::convert::{self, Format};
use super::decode::{self, Budget};
use super::error::Failure;
use super::fetch::{self, DEFAULT_ANSWER_BYTES, MAX_PARTITIONS_PER_CALL};
use super::loan::Loan;
use super::memory::Taken;
use super::message::Message;
use crate::broker::{BrokerError, Fetched, PartitionReader};
use crate::proto::{FetchPartition, FetchStreamRequest, FetchedRecord, PartitionData};
use crate::types::{Offset, TopicName};

/// Messages read ahead of the transport.
const MESSAGES_AHEAD: usize = 1;

/// Serves `FetchStream`: the stream that a task of its own fills from now on. `cut` breaks the connection.
///
/// # Errors
/// A [`Failure`] if the request is not valid, names what does not exist, or none of its partitions can be read: the
/// first one's.
pub(super) async fn open(
    context: Arc<Context>,
    request: FetchStreamRequest,
    cut: CancellationToken,
) -> Result<AnswerBody, Failure> {
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
    let (answer, body) = answer(&context.answers, MESSAGES_AHEAD, cut);
    tokio::spawn(async move {
        let feed = Feed { context: &context, answer: &answer, format, max_bytes };
        let ending = tokio::select! {
            biased;
            () = context.shutdown.cancelled() => Failure::shutting_down(),
            () = answer.closed() => return,
            failure = feed.run(ready, unreadable) => failure,
        };
        answer.end(Err(ending));
    });
    Ok(body)
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
    answer: &'a Answer,
    format: Format,
    max_bytes: u64,
}

impl Feed<'_> {
    /// Reads and follows until the stream or its last partition fails, and returns that failure.
    async fn run(&self, mut ready: VecDeque<Source>, unreadable: Vec<PartitionData>) -> Failure {
        for data in unreadable {
            if let Err(failure) = self.tell(data).await {
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
                self.tell(unreadable(source.topic.to_string(), source.partition, failure)).await
            }
            Halt::Partition(failure) | Halt::Stream(failure) => Err(failure),
        }
    }

    /// Reads once and sends what was there. Returns whether there may be more.
    async fn advance(&self, source: &mut Source) -> Result<bool, Halt> {
        let (fetched, taken, weight) = self.read(source).await?;
        let marks = (fetched.high_watermark, fetched.log_start_offset);
        let end = fetched.batches.next_offset;
        if fetched.batches.chunks.is_empty() && source.told == Some(marks) {
            return Ok(false);
        }
        match self.format {
            Format::RecordBatches => {
                self.send_batches(source, fetched, taken).await.map_err(Halt::Stream)?;
            }
            Format::Records => self.send_records(source, fetched, taken, weight).await?,
        }
        source.told = Some(marks);
        Ok(end < marks.0)
    }

    /// Reads what is there, with the memory that it takes until it has been sent, and what may be decoded of it at a time.
    async fn read(&self, source: &Source) -> Result<(Fetched, Taken, usize), Halt> {
        let memory = &self.context.answers;
        let (mut bytes, mut taken) =
            fetch::begin(memory, self.format, self.max_bytes).await.map_err(Halt::Stream)?;
        let weight = fetch::decoded_bytes(bytes);
        loop {
            let fetched = source.reader.read(source.offset, bytes).await?;
            // The first batch may be larger than what was asked for.
            let read_bytes = fetched.batches.size_bytes;
            if read_bytes <= bytes {
                return Ok((fetched, taken, weight));
            }
            drop((fetched, taken));
            bytes = read_bytes;
            let needed = fetch::memory_for(self.format, bytes, weight);
            taken = fetch::take(memory, needed).await.map_err(Halt::Stream)?;
        }
    }

    async fn send_batches(&self, source: &mut Source, fetched: Fetched, taken: Taken) -> Result<(), Failure> {
        source.offset = fetched.batches.next_offset;
        taken.shrink_to(fetch::memory_for(self.format, fetched.batches.size_bytes, 0));
        let loan = Loan::of(&fetched.batches, &source.topic, source.partition);
        let mut data = envelope(source, &fetched);
        data.record_batches = decode::coalesce(fetched.batches.chunks);
        self.send(data, loan, taken).await
    }

    /// One message, or several where the records are larger than they were compressed.
    async fn send_records(
        &self,
        source: &mut Source,
        fetched: Fetched,
        taken: Taken,
        max_weight_bytes: usize,
    ) -> Result<(), Halt> {
        let loan = Loan::of(&fetched.batches, &source.topic, source.partition);
        let end = fetched.batches.next_offset;
        let stored_bytes = fetched.batches.size_bytes;
        let budget = Budget {
            max_decompressed_bytes: self.context.broker.config().max_decompressed_bytes,
            max_weight_bytes,
        };
        loop {
            let decoded = decode::records(&fetched.batches, source.offset, budget, &self.context.cores)
                .await
                .map_err(Halt::Stream)?
                .map_err(|lost| {
                    Halt::Partition(lost.in_partition(source.topic.as_str(), source.partition))
                })?;
            let needed = fetch::memory_for(self.format, stored_bytes, decoded.weight_bytes);
            fetch::hold(&self.context.answers, &taken, needed).await.map_err(Halt::Stream)?;
            let mut records = decoded.records.into_iter().peekable();
            loop {
                let (piece, weight) = take_weight(&mut records, self.max_bytes as usize);
                let last = records.peek().is_none();
                source.offset = match records.peek() {
                    Some(next) => Offset::clamped(next.offset),
                    None => decoded.next_offset,
                };
                let mut data = envelope(source, &fetched);
                data.records = piece;
                // What was read goes with the last of those that are slices of it.
                let weight = weight as u64;
                let read = if last { stored_bytes } else { 0 };
                let share = taken.split(read + weight + weight.min(TRANSPORT_BYTES));
                self.send(data, loan.clone(), share).await.map_err(Halt::Stream)?;
                if last {
                    break;
                }
            }
            if source.offset >= end {
                return Ok(());
            }
        }
    }

    /// Sends what takes no memory worth counting.
    async fn tell(&self, data: PartitionData) -> Result<(), Failure> {
        let taken = fetch::take(&self.context.answers, 0).await?;
        self.send(data, None, taken).await
    }

    async fn send(&self, data: PartitionData, loan: Option<Loan>, taken: Taken) -> Result<(), Failure> {
        let message = Message::new(vec![data], loan.into_iter().collect())
            .map_err(|_| Failure::answer_too_large(taken.bytes()))?;
        self.answer.send(message, taken).await
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

/// The next records, up to the one that reaches `max_bytes`, and what they weigh.
fn take_weight(
    records: &mut impl Iterator<Item = FetchedRecord>,
    max_bytes: usize,
) -> (Vec<FetchedRecord>, usize) {
    let mut taken = Vec::new();
    let mut bytes = 0;
    for record in records {
        bytes += decode::weight(&record);
        taken.push(record);
        if bytes >= max_bytes {
            break;
        }
    }
    (taken, bytes)
}

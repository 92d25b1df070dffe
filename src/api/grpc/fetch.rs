//! `Fetch` and `ListOffsets`: positions into offsets, and batches into answers.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};

use tokio_util::sync::CancellationToken;

use super::Context;
use super::answer::{AnswerBody, TRANSPORT_BYTES, answer};
use super::convert::{self, Format};
use super::decode::{self, Budget, MAX_DECODED_BYTES};
use super::error::Failure;
use super::loan::Loan;
use super::memory::{Memory, NoMemory, Taken};
use super::message::Message;
use crate::broker::{self, BrokerError, FetchLimits, Fetched, Position, Resolved};
use crate::proto;
use crate::types::{Offset, TopicName};

/// Partitions that one call may name.
pub(super) const MAX_PARTITIONS_PER_CALL: usize = 10_000;
/// What one answer holds where the request leaves it open, as stored. Decoded, it is well within the 4 MiB that gRPC's
/// clients take unless told otherwise.
pub(super) const DEFAULT_ANSWER_BYTES: u32 = 1 << 20;
/// What is read for one answer where memory is short.
const SHORT_ANSWER_BYTES: u64 = 256 << 10;
/// Decoded records may weigh so many times what was asked for as stored: room for what is small or well compressed.
const DECODED_SHARE: usize = 3;
/// Records are decoded for at least so much at a time, so that a batch is not unpacked over and over for a few of them.
const DECODED_AT_LEAST: usize = 1 << 20;
/// Messages that the records decoded at a time are sent in: [`DECODED_SHARE`], and a rest.
const MESSAGES: u64 = DECODED_SHARE as u64 + 1;
/// Positions of one call that are looked up at a time.
const LOOKUPS_AT_A_TIME: usize = 16;

/// Serves `Fetch`. `cut` breaks the connection.
///
/// # Errors
/// A [`Failure`] if the request is not valid, every partition of it failed (the first one's), or there is no memory for
/// the answer.
pub(super) async fn fetch(
    context: &Context,
    request: proto::FetchRequest,
    cut: CancellationToken,
) -> Result<AnswerBody, Failure> {
    convert::count("partitions", request.partitions.len(), MAX_PARTITIONS_PER_CALL)?;
    let format = convert::format(request.format)?;
    let min_bytes = u64::from(convert::non_negative("min_bytes", request.min_bytes)?);
    let max_wait = u64::from(convert::non_negative("max_wait_ms", request.max_wait_ms)?);
    let max_bytes = max_bytes(context, request.max_bytes, DEFAULT_ANSWER_BYTES)?;

    let places = few_at_a_time(request.partitions.iter().map(|asked| place(context, asked))).await;
    let known: Vec<_> = places.iter().flatten().cloned().collect();
    // Whoever has made a mistake is told so now, not after the wait.
    let max_wait = if known.len() == places.len() { max_wait } else { 0 };
    let limits = FetchLimits {
        min_bytes: if max_wait > 0 { min_bytes.max(1) } else { min_bytes },
        max_bytes,
        max_wait: Duration::from_millis(max_wait),
    };
    context.broker.wait_for_data(&known, limits).await;
    let (read, taken, mut weight_left) = read(context, &known, format, max_bytes).await?;
    let stored_bytes = stored_bytes(&read);
    let mut read = read.into_iter();

    let mut loans = Vec::new();
    let mut answers = Vec::with_capacity(places.len());
    for (asked, place) in request.partitions.iter().zip(places) {
        let data = match place {
            Err(failure) => Err(failure),
            Ok(place) => match read.next() {
                Some(Ok(fetched)) => {
                    loans.extend(Loan::of(&fetched.batches, &place.topic, place.partition));
                    data(context, &place, fetched, format, &mut weight_left).await
                }
                Some(Err(error)) => Err(error.into()),
                None => Err(Failure::internal()),
            },
        };
        answers.push((asked, data));
    }
    let mut partitions = Vec::with_capacity(answers.len());
    let all_failed = answers.iter().all(|(_, data)| data.is_err());
    for (asked, data) in answers {
        partitions.push(match data {
            Ok(data) => data,
            Err(failure) if all_failed => return Err(failure),
            Err(failure) => proto::PartitionData {
                topic: asked.topic.clone(),
                partition: asked.partition,
                error: Some(failure.into()),
                ..Default::default()
            },
        });
    }
    // The last record that was decoded may have gone beyond what was taken for it.
    let weight = partitions.iter().flat_map(|data| &data.records).map(decode::weight).sum();
    hold(&context.answers, &taken, memory_for(format, stored_bytes, weight)).await?;
    let message = Message::new(partitions, loans).map_err(|_| Failure::answer_too_large(stored_bytes))?;
    let (answer, body) = answer(&context.answers, 1, cut);
    answer.send(message, taken).await?;
    answer.end(Ok(()));
    Ok(body)
}

/// Reads what is there, with the memory that it takes until it has been sent, and what may be decoded of it.
async fn read(
    context: &Context,
    partitions: &[broker::FetchPartition],
    format: Format,
    max_bytes: u64,
) -> Result<(Vec<Result<Fetched, BrokerError>>, Taken, usize), Failure> {
    let (mut bytes, mut taken) = begin(&context.answers, format, max_bytes).await?;
    let weight = decoded_bytes(bytes);
    loop {
        let read = context.broker.read(partitions, bytes).await;
        // The first batch may be larger than what was asked for.
        let read_bytes = stored_bytes(&read);
        if read_bytes <= bytes {
            return Ok((read, taken, weight));
        }
        // Not both at a time: whoever holds some and waits for more could wait for another that does the same.
        drop((read, taken));
        bytes = read_bytes;
        taken = take(&context.answers, memory_for(format, bytes, weight)).await?;
    }
}

/// Takes memory for reading: for `max_bytes`, or, where that is not there, for less. Returns for how much.
///
/// # Errors
/// As [`take`].
pub(super) async fn begin(memory: &Memory, format: Format, max_bytes: u64) -> Result<(u64, Taken), Failure> {
    if let Some(taken) = memory.try_take(memory_for(format, max_bytes, decoded_bytes(max_bytes))) {
        return Ok((max_bytes, taken));
    }
    let bytes = max_bytes.min(SHORT_ANSWER_BYTES);
    Ok((bytes, take(memory, memory_for(format, bytes, decoded_bytes(bytes))).await?))
}

fn stored_bytes(read: &[Result<Fetched, BrokerError>]) -> u64 {
    read.iter().flatten().map(|fetched| fetched.batches.size_bytes).sum()
}

/// How much is decoded at a time where `max_bytes` were asked for.
pub(super) fn decoded_bytes(max_bytes: u64) -> usize {
    let share = usize::try_from(max_bytes).unwrap_or(usize::MAX).saturating_mul(DECODED_SHARE);
    share.clamp(DECODED_AT_LEAST, MAX_DECODED_BYTES)
}

/// What an answer takes until it has been sent: what was read, the records that were decoded of it, which are slices of
/// it or copies, and what the transport holds of them.
pub(super) fn memory_for(format: Format, stored_bytes: u64, weight: usize) -> u64 {
    let weight = weight as u64;
    match format {
        Format::RecordBatches => stored_bytes + stored_bytes.min(TRANSPORT_BYTES),
        Format::Records => stored_bytes + weight + weight.min(MESSAGES * TRANSPORT_BYTES),
    }
}

/// Takes memory for an answer.
///
/// # Errors
/// BROKER_BUSY, or ANSWER_TOO_LARGE if no memory would do.
pub(super) async fn take(memory: &Memory, bytes: u64) -> Result<Taken, Failure> {
    memory.take(bytes).await.map_err(refused)
}

fn refused(error: NoMemory) -> Failure {
    match error {
        NoMemory::TooMuch { bytes, .. } => Failure::answer_too_large(bytes),
        NoMemory::Busy => Failure::busy("grpc.response_memory_bytes"),
    }
}

/// Makes `taken` exactly `bytes`.
///
/// # Errors
/// As [`take`].
pub(super) async fn hold(memory: &Memory, taken: &Taken, bytes: u64) -> Result<(), Failure> {
    if bytes > taken.bytes() {
        let more = memory.take_more(bytes - taken.bytes(), taken.bytes()).await;
        taken.absorb(more.map_err(refused)?);
    } else {
        taken.shrink_to(bytes);
    }
    Ok(())
}

/// What a request asks for at most: never beyond the broker's `fetch_max_bytes`, and `default` where it leaves it open.
pub(super) fn max_bytes(context: &Context, asked: i32, default: u32) -> Result<u64, Failure> {
    let asked = match convert::non_negative("max_bytes", asked)? {
        0 => default,
        asked => asked,
    };
    Ok(u64::from(asked.min(context.broker.config().fetch_max_bytes)))
}

/// Where a fetch is to begin.
async fn place(context: &Context, asked: &proto::FetchPartition) -> Result<broker::FetchPartition, Failure> {
    // An explicit offset is checked by the read itself.
    if let Position::Offset(offset) = convert::position(asked.position)? {
        let topic = convert::topic(&asked.topic)?;
        return Ok(broker::FetchPartition { topic, partition: asked.partition, offset });
    }
    let (topic, start) = resolve(context, &asked.topic, asked.partition, asked.position).await?;
    Ok(broker::FetchPartition { topic, partition: asked.partition, offset: start.offset.get() })
}

/// Every position as an offset that is within its log; an error of one partition is its own.
pub(super) async fn resolve_all(
    context: &Context,
    partitions: &[proto::FetchPartition],
) -> Vec<Result<(TopicName, Resolved), Failure>> {
    let lookups =
        partitions.iter().map(|asked| resolve(context, &asked.topic, asked.partition, asked.position));
    few_at_a_time(lookups).await
}

async fn resolve(
    context: &Context,
    topic: &str,
    partition: i32,
    position: Option<proto::Position>,
) -> Result<(TopicName, Resolved), Failure> {
    let topic = convert::topic(topic)?;
    let position = convert::position(position)?;
    let resolved = context.broker.resolve(&topic, partition, position).await?;
    Ok((topic, resolved))
}

/// The outcomes of `lookups`, in order.
async fn few_at_a_time<T>(lookups: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let lookups: Vec<_> = lookups.collect();
    stream::iter(lookups).buffered(LOOKUPS_AT_A_TIME).collect().await
}

async fn data(
    context: &Context,
    place: &broker::FetchPartition,
    fetched: Fetched,
    format: Format,
    weight_left: &mut usize,
) -> Result<proto::PartitionData, Failure> {
    let mut data = proto::PartitionData {
        topic: place.topic.to_string(),
        partition: place.partition,
        high_watermark: fetched.high_watermark.get(),
        log_start_offset: fetched.log_start_offset.get(),
        next_offset: fetched.batches.next_offset.get(),
        ..Default::default()
    };
    match format {
        Format::RecordBatches => data.record_batches = decode::coalesce(fetched.batches.chunks),
        // The answer is full: this partition's turn comes with the next fetch.
        Format::Records if *weight_left == 0 => data.next_offset = place.offset,
        Format::Records => {
            // The read has refused a negative one.
            let from = Offset::clamped(place.offset);
            let budget = Budget {
                max_decompressed_bytes: context.broker.config().max_decompressed_bytes,
                max_weight_bytes: *weight_left,
            };
            let decoded = decode::records(&fetched.batches, from, budget, &context.cores)
                .await?
                .map_err(|lost| lost.in_partition(place.topic.as_str(), place.partition))?;
            *weight_left = weight_left.saturating_sub(decoded.weight_bytes);
            data.next_offset = decoded.next_offset.get();
            data.records = decoded.records;
        }
    }
    Ok(data)
}

/// Serves `ListOffsets`.
///
/// # Errors
/// A [`Failure`] if the request is not valid, or every partition of it failed: the first one's.
pub(super) async fn list_offsets(
    context: &Context,
    request: proto::ListOffsetsRequest,
) -> Result<proto::ListOffsetsResponse, Failure> {
    convert::count("partitions", request.partitions.len(), MAX_PARTITIONS_PER_CALL)?;
    let lookups = request
        .partitions
        .iter()
        .map(|asked| resolve(context, &asked.topic, asked.partition, asked.position));
    let resolved = few_at_a_time(lookups).await;
    let all_failed = resolved.iter().all(Result::is_err);
    let mut offsets = Vec::with_capacity(resolved.len());
    for (asked, resolved) in request.partitions.into_iter().zip(resolved) {
        let mut listed =
            proto::ListedOffset { topic: asked.topic, partition: asked.partition, ..Default::default() };
        match resolved {
            Ok((_, resolved)) => {
                listed.offset = resolved.offset.get();
                listed.timestamp_ms = resolved.timestamp_ms;
                listed.leader_epoch = resolved.leader_epoch.0;
            }
            Err(failure) if all_failed => return Err(failure),
            Err(failure) => listed.error = Some(failure.into()),
        }
        offsets.push(listed);
    }
    Ok(proto::ListOffsetsResponse { offsets })
}

//! The consumer: reads partitions from where it was told, follows them, and remembers how far it has come.
//!
//! It reads raw batches over one stream and unpacks them itself. When the stream breaks, it is opened again at the next
//! offset of each partition: nothing is handed out twice, and nothing is left out. There is no task behind it: while
//! nobody polls it, the stream's flow control holds the broker back, so that its memory is bounded by the window of the
//! stream, one response and one unpacked batch.

mod assignment;
mod config;
mod decode;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, Sleep};
use tonic::Streaming;

use super::admin::Admin;
use super::backoff::Backoff;
use super::connection::Connection;
use super::error::Error;
use super::groups::{Groups, OffsetCommit};
use super::position::{Position, Start, TopicPartition};
use super::record::ConsumedRecord;
use crate::proto;
use crate::types::{GroupName, Offset};
use assignment::{Assigned, Assignment};
use decode::Chunk;

pub use config::ConsumerConfig;

/// The first delay before the stream is opened again.
const RECONNECT_INITIAL: Duration = Duration::from_millis(50);
/// The longest.
const RECONNECT_MAX: Duration = Duration::from_secs(2);

/// Reads partitions. It is a [`Stream`] of records, which ends only when every partition has reached the offset it was
/// told to [stop at](Self::stop_at), or cannot be read on.
///
/// An error that concerns one partition, such as `OFFSET_OUT_OF_RANGE` or `DATA_LOSS`, is handed out once; the others
/// go on, and a [`seek`](Self::seek) revives that one. So it is with a partition whose start cannot be told since it
/// cannot be read at all, such as a fenced one. An error of a connection that could not be made again within
/// `reconnect_timeout` is handed out too; the next poll tries further.
pub struct Consumer {
    connection: Connection,
    config: ConsumerConfig,
    assignment: Assignment,
    /// Partitions whose start could not be told; with the reason, until it is handed out. A seek moves them to the
    /// assignment.
    unplaced: BTreeMap<TopicPartition, Option<Error>>,
    link: Link,
    /// What is being handed out.
    chunk: Option<Chunk>,
    scratch: Vec<u8>,
    backoff: Backoff,
    /// Since when the broker has not been heard.
    silent_since: Option<Instant>,
}

/// The stream, or the way to it.
enum Link {
    Idle,
    Opening(BoxFuture<'static, Result<Streaming<proto::FetchStreamResponse>, Error>>),
    Open(Box<Streaming<proto::FetchStreamResponse>>),
    Waiting(Pin<Box<Sleep>>),
}

/// Something that went wrong while reading.
struct Failure {
    error: Error,
    /// The partition's place in the assignment, where it concerns only one.
    index: Option<usize>,
}

impl Failure {
    fn of_stream(error: Error) -> Self {
        Self { error, index: None }
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("assignment", &self.assignment).finish_non_exhaustive()
    }
}

impl Consumer {
    pub(super) async fn start(connection: Connection, config: ConsumerConfig) -> Result<Self, Error> {
        config.validate()?;
        let starts = all_partitions(&connection, &config).await?;
        let positions = without_groups(&connection, starts).await?;
        let Resolved { offsets, unreadable } = resolve(&connection, positions).await?;
        let assigned = offsets.into_iter().map(|(partition, offset)| Assigned::new(partition, offset));
        Ok(Self {
            connection,
            config,
            assignment: Assignment(assigned.collect()),
            unplaced: unreadable.into_iter().map(|(partition, error)| (partition, Some(error))).collect(),
            link: Link::Idle,
            chunk: None,
            scratch: Vec::new(),
            backoff: Backoff::new(RECONNECT_INITIAL, RECONNECT_MAX),
            silent_since: None,
        })
    }

    /// The next record, waiting for it; `None` when there is nothing more to read. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<ConsumedRecord, Error>> {
        std::future::poll_fn(|context| self.poll_record(context)).await
    }

    /// The offset of the next record a partition will hand out; `None` if it is not read here.
    pub fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.positions().find(|(assigned, _)| *assigned == partition).map(|(_, offset)| offset)
    }

    /// The positions of all partitions that have one.
    pub fn positions(&self) -> impl Iterator<Item = (&TopicPartition, Offset)> {
        self.assignment.0.iter().map(|assigned| (&assigned.partition, assigned.position))
    }

    /// Goes on from another place in a partition, forward or back; returns its offset.
    ///
    /// # Errors
    /// When the partition is not read here, the offset is not there, or the broker does not answer; then nothing changes.
    pub async fn seek(&mut self, partition: &TopicPartition, position: Position) -> Result<Offset, Error> {
        let place = self.assignment.0.iter().position(|assigned| assigned.partition == *partition);
        if place.is_none() && !self.unplaced.contains_key(partition) {
            return Err(Error::invalid(format!("partition {partition} is not read by this consumer")));
        }
        let resolved = resolve(&self.connection, vec![(partition.clone(), position)]).await?;
        if let Some((_, error)) = resolved.unreadable.into_iter().next() {
            return Err(error);
        }
        let offset = resolved.offsets.into_iter().next().map(|(_, offset)| offset);
        let offset = offset.ok_or_else(|| Error::unexpected("the broker told no offset"))?;
        let assigned = Assigned::new(partition.clone(), offset);
        match place.and_then(|place| self.assignment.0.get_mut(place)) {
            Some(placed) => *placed = Assigned { stop: placed.stop, ..assigned },
            None => self.assignment.0.push(assigned),
        }
        self.unplaced.remove(partition);
        // What is under way belongs to the old place. The other partitions have not moved past what they lose here.
        self.chunk = None;
        self.link = Link::Idle;
        Ok(offset)
    }

    /// The ends of all partitions now: the offsets their next visible records will get. Those that cannot be read are
    /// left out.
    ///
    /// # Errors
    /// When the broker does not answer, or a partition is gone.
    pub async fn end_offsets(&self) -> Result<BTreeMap<TopicPartition, Offset>, Error> {
        let latest = |assigned: &Assigned| (assigned.partition.clone(), Position::Latest);
        let ends = resolve(&self.connection, self.assignment.0.iter().map(latest).collect()).await?;
        Ok(ends.offsets.into_iter().collect())
    }

    /// Hands out nothing at or after these offsets. When every partition has reached its own, the stream ends;
    /// partitions not named go on without end.
    pub fn stop_at(&mut self, ends: &BTreeMap<TopicPartition, Offset>) {
        for assigned in &mut self.assignment.0 {
            assigned.stop = ends.get(&assigned.partition).copied();
        }
    }

    /// Commits the positions of all partitions for a group: everything handed out so far counts as processed.
    ///
    /// # Errors
    /// As [`Groups::commit_offsets`].
    pub async fn commit(&self, group: &GroupName) -> Result<(), Error> {
        self.commit_offsets(group, self.assignment.0.iter().map(Assigned::commit)).await
    }

    /// Commits offsets of one's own counting.
    ///
    /// # Errors
    /// As [`Groups::commit_offsets`].
    pub async fn commit_offsets(
        &self,
        group: &GroupName,
        offsets: impl IntoIterator<Item = OffsetCommit>,
    ) -> Result<(), Error> {
        Groups::new(self.connection.clone()).commit_offsets(group, offsets).await
    }

    fn poll_record(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<ConsumedRecord, Error>>> {
        if let Some(error) = self.unplaced.values_mut().find_map(Option::take) {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            if let Some(record) = self.next_of_chunk() {
                return Poll::Ready(Some(record));
            }
            if self.assignment.active().next().is_none() {
                self.link = Link::Idle;
                return Poll::Ready(None);
            }
            let failure = match &mut self.link {
                Link::Idle => {
                    self.link = Link::Opening(open(
                        self.connection.clone(),
                        self.assignment.request(self.config.max_bytes),
                    ));
                    continue;
                }
                Link::Waiting(sleep) => {
                    ready!(sleep.as_mut().poll(context));
                    self.link = Link::Idle;
                    continue;
                }
                Link::Opening(opening) => match ready!(opening.as_mut().poll(context)) {
                    Ok(stream) => {
                        self.link = Link::Open(Box::new(stream));
                        continue;
                    }
                    Err(error) => Some(Failure::of_stream(error)),
                },
                Link::Open(stream) => match ready!(Pin::new(stream.as_mut()).poll_next(context)) {
                    Some(Ok(response)) => self.on_response(response),
                    Some(Err(status)) => Some(Failure::of_stream(self.connection.error(&status))),
                    None => {
                        let error = Error::lost(self.connection.url(), "the broker ended the stream");
                        Some(Failure::of_stream(error))
                    }
                },
            };
            if let Some(error) = failure.and_then(|failure| self.on_failure(failure)) {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }

    /// The next record of what has been read already.
    fn next_of_chunk(&mut self) -> Option<Result<ConsumedRecord, Error>> {
        let chunk = self.chunk.as_mut()?;
        let assigned = self.assignment.0.get_mut(chunk.index)?;
        match chunk.next(assigned, &mut self.scratch, self.config.max_decompressed_bytes) {
            Ok(Some(record)) => Some(Ok(record)),
            Ok(None) => {
                self.chunk = None;
                None
            }
            Err(error) => {
                // The stream is past it already; the next one leaves this partition out.
                assigned.failed = true;
                self.chunk = None;
                self.link = Link::Idle;
                Some(Err(error))
            }
        }
    }

    /// Takes in what was read; returns the failure that came instead.
    fn on_response(&mut self, response: proto::FetchStreamResponse) -> Option<Failure> {
        let data = response.data?;
        let index = self.assignment.find(&data.topic, data.partition)?;
        if let Some(error) = data.error {
            return Some(Failure { error: Error::from_proto(error), index: Some(index) });
        }
        self.backoff.reset();
        self.silent_since = None;
        if self.assignment.0.get(index).is_some_and(Assigned::is_active) {
            self.chunk = Some(Chunk::new(index, data.record_batches, Offset::clamped(data.next_offset)));
        }
        None
    }

    /// Decides what a failure means: another attempt after a while, or an error for the user.
    fn on_failure(&mut self, failure: Failure) -> Option<Error> {
        let Failure { error, index } = failure;
        if error.is_retriable() {
            let silent_since = *self.silent_since.get_or_insert_with(Instant::now);
            let delay = self.backoff.next_delay(error.retry_after());
            self.link = Link::Waiting(Box::pin(tokio::time::sleep(delay)));
            if silent_since.elapsed() < self.config.reconnect_timeout {
                return None;
            }
            self.silent_since = None;
            return Some(error);
        }
        if let Some(assigned) = index.and_then(|index| self.assignment.0.get_mut(index)) {
            // The stream goes on with the others.
            assigned.failed = true;
        } else {
            self.fail_named(&error);
            self.link = Link::Idle;
        }
        Some(error)
    }

    /// Gives up the partition that an error of the whole stream names, or all of them.
    fn fail_named(&mut self, error: &Error) {
        let fact = |name| error.metadata().get(name);
        let place = fact("topic").zip(fact("partition").and_then(|partition| partition.parse().ok()));
        let named = place.and_then(|(topic, partition)| self.assignment.find(topic, partition));
        match named.and_then(|index| self.assignment.0.get_mut(index)) {
            Some(assigned) => assigned.failed = true,
            None => self.assignment.0.iter_mut().for_each(|assigned| assigned.failed = true),
        }
    }
}

impl Stream for Consumer {
    type Item = Result<ConsumedRecord, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_record(context)
    }
}

fn open(
    connection: Connection,
    request: proto::FetchStreamRequest,
) -> BoxFuture<'static, Result<Streaming<proto::FetchStreamResponse>, Error>> {
    Box::pin(async move { connection.answer(connection.log().fetch_stream(request).await) })
}

/// Every partition to read and where it starts.
async fn all_partitions(
    connection: &Connection,
    config: &ConsumerConfig,
) -> Result<BTreeMap<TopicPartition, Start>, Error> {
    let mut starts = BTreeMap::new();
    for (topic, start) in &config.topics {
        let described = Admin::new(connection.clone()).describe_topic(topic).await?;
        for partition in described.partitions {
            starts.insert(TopicPartition::new(topic.clone(), partition.partition), start.clone());
        }
    }
    starts.extend(config.partitions.iter().map(|(partition, start)| (partition.clone(), start.clone())));
    Ok(starts)
}

/// Looks up what groups have committed.
async fn without_groups(
    connection: &Connection,
    starts: BTreeMap<TopicPartition, Start>,
) -> Result<Vec<(TopicPartition, Position)>, Error> {
    let mut positions = BTreeMap::new();
    let mut of_groups: BTreeMap<GroupName, Vec<TopicPartition>> = BTreeMap::new();
    for (partition, start) in starts {
        let position = match start {
            Start::At(position) => position,
            Start::Committed { group, fallback } => {
                of_groups.entry(group).or_default().push(partition.clone());
                fallback
            }
        };
        positions.insert(partition, position);
    }
    for (group, partitions) in of_groups {
        for committed in Groups::new(connection.clone()).fetch_offsets(&group, &partitions).await?.offsets {
            positions.insert(committed.commit.partition, Position::Offset(committed.commit.offset));
        }
    }
    Ok(positions.into_iter().collect())
}

/// What became of positions.
#[derive(Default)]
struct Resolved {
    offsets: Vec<(TopicPartition, Offset)>,
    unreadable: Vec<(TopicPartition, Error)>,
}

/// Turns positions into offsets that are there. A partition that cannot be read keeps none of the others back; a
/// position that is not there is the caller's mistake.
async fn resolve(
    connection: &Connection,
    positions: Vec<(TopicPartition, Position)>,
) -> Result<Resolved, Error> {
    let listed = Admin::new(connection.clone()).list_offsets(positions.iter().cloned()).await?;
    let mut resolved = Resolved::default();
    for ((partition, _), listed) in positions.into_iter().zip(listed) {
        match listed {
            Ok(listed) => resolved.offsets.push((partition, listed.offset)),
            Err(error) if error.is_of_partition() => resolved.unreadable.push((partition, error)),
            Err(error) => return Err(error),
        }
    }
    Ok(resolved)
}

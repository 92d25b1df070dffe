//! Writers over gRPC that write to a server until it is gone or refuses, each batch noted in its partition's ledger
//! outside the server; and the reader that settles the ledgers afterwards.
//!
//! Each partition has two writers, one pipelined over a stream of encoded batches, one that sends records and waits.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::future;
use sagwan::proto::admin_service_client::AdminServiceClient;
use sagwan::proto::log_service_client::LogServiceClient;
use sagwan::proto::produce_stream_response::Outcome;
use sagwan::proto::{
    CreateTopicRequest, FetchPartition, FetchRequest, Position, ProduceRequest, ProduceStreamRequest, Record,
    position,
};
use sagwan::record::{BatchBuilder, BatchOptions};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::ledger::{BatchId, Breach, Ledger, Settled};
use crate::process::ServerProcess;

/// Of each topic.
const PARTITIONS: i32 = 2;
/// So small that faults fall on rolls too.
pub const SMALL_SEGMENTS: u64 = 2 << 20;
/// Requests of a stream that wait for their answers.
const IN_FLIGHT: usize = 32;

/// How a writer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The server is gone.
    Gone,
    /// The server lives and took a batch no more. Its answers to batches sent before have been noted.
    Refused(String),
}

impl From<tonic::Status> for End {
    /// A server's own answers carry an `ErrorInfo`; what else the transport says is how a killed one looks from outside.
    fn from(status: tonic::Status) -> Self {
        if status.details().is_empty() { Self::Gone } else { Self::Refused(status.to_string()) }
    }
}

type Judge = fn(&mut Ledger, &[(i64, Bytes)]) -> Result<Settled, Breach>;

/// Topics, everything that was ever sent to them, and those who write to them.
#[derive(Debug)]
pub struct Load {
    targets: Vec<Arc<Target>>,
    /// Those that do not write now.
    writers: Vec<Writer>,
    writing: JoinSet<(Writer, End)>,
    /// One permit for each acknowledgement since the start. Closed when no more are noted.
    acks: Arc<Semaphore>,
}

impl Load {
    /// Creates topics, given as name and durability.
    pub async fn create(
        server: &ServerProcess,
        topics: &[(&'static str, &str)],
        segment_bytes: u64,
        random: &mut fastrand::Rng,
    ) -> Self {
        let mut admin = AdminServiceClient::new(connect(server).await);
        let segment_bytes = segment_bytes.to_string();
        let mut targets = Vec::new();
        for &(topic, durability) in topics {
            let config = [("durability", durability), ("segment_bytes", &segment_bytes)];
            let request = CreateTopicRequest {
                name: topic.to_owned(),
                partitions: Some(PARTITIONS),
                config: config.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                validate_only: false,
            };
            admin
                .create_topic(request)
                .await
                .unwrap_or_else(|status| panic!("{topic} cannot be created: {status}"));
            targets.extend(
                (0..PARTITIONS)
                    .map(|partition| Arc::new(Target { topic, partition, ledger: Mutex::default() })),
            );
        }
        let writers = (0..)
            .zip(targets.iter().flat_map(|target| [target, target]))
            .map(|(id, target)| Writer { target: target.clone(), id, next_number: 0, random: random.fork() })
            .collect();
        Self { targets, writers, writing: JoinSet::new(), acks: Arc::new(Semaphore::new(0)) }
    }

    /// Has every writer write.
    pub async fn start(&mut self, server: &ServerProcess) {
        // A new one: answers may have come after the last fault.
        self.acks = Arc::new(Semaphore::new(0));
        for writer in self.writers.drain(..) {
            let (channel, acks) = (connect(server).await, self.acks.clone());
            if writer.id % 2 == 0 {
                self.writing.spawn(writer.write_pipelined(channel, acks));
            } else {
                self.writing.spawn(writer.write_one_by_one(channel, acks));
            }
        }
    }

    /// Waits for acknowledgements since the start, so many.
    ///
    /// # Panics
    /// If a writer ends before: a server that is well takes every batch.
    pub async fn acknowledgements(&mut self, count: u32) {
        tokio::select! {
            permits = self.acks.acquire_many(count) => match permits {
                Ok(permits) => permits.forget(),
                Err(closed) => unreachable!("{closed}"),
            },
            Some(ended) = self.writing.join_next() => panic!("a writer ended early: {:?}", ended.map(|(_, end)| end)),
        }
    }

    /// From here on acknowledgements are not noted, until the next start: nobody hears a machine without power.
    pub fn stop_listening(&self) {
        self.acks.close();
    }

    /// Waits until all who write have ended, as the server has, or takes no more.
    pub async fn ends(&mut self) -> Vec<End> {
        let (writers, ends): (Vec<_>, _) =
            std::mem::take(&mut self.writing).join_all().await.into_iter().unzip();
        self.writers.extend(writers);
        ends
    }

    /// Judges every partition by [`Ledger::settle`].
    ///
    /// # Errors
    /// The first breach, and whose it is.
    pub async fn settle(&self, server: &ServerProcess) -> Result<Settled, (String, Breach)> {
        self.judge(server, Ledger::settle).await
    }

    /// Judges every partition by [`Ledger::settle_prefix`].
    ///
    /// # Errors
    /// The first breach, and whose it is.
    pub async fn settle_prefix(&self, server: &ServerProcess) -> Result<Settled, (String, Breach)> {
        self.judge(server, Ledger::settle_prefix).await
    }

    async fn judge(&self, server: &ServerProcess, judge: Judge) -> Result<Settled, (String, Breach)> {
        let channel = connect(server).await;
        let mut sum = Settled::default();
        for target in &self.targets {
            let records = target.read_all(channel.clone()).await;
            let settled = judge(&mut target.ledger(), &records);
            sum += settled.map_err(|breach| (target.name(), breach))?;
        }
        Ok(sum)
    }
}

/// A connection to a server that is ready.
///
/// # Panics
/// If it cannot be made.
pub async fn connect(server: &ServerProcess) -> Channel {
    let endpoint = Channel::from_shared(server.url()).unwrap_or_else(|error| panic!("{error}"));
    endpoint.connect().await.unwrap_or_else(|error| panic!("{}: {error}", server.url()))
}

/// One partition and everything that was ever sent to it.
#[derive(Debug)]
struct Target {
    topic: &'static str,
    partition: i32,
    ledger: Mutex<Ledger>,
}

impl Target {
    fn name(&self) -> String {
        format!("{}-{}", self.topic, self.partition)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(|_| panic!("a writer to {} panicked", self.name()))
    }

    fn acknowledged(&self, acks: &Semaphore, batch: BatchId, base_offset: i64) {
        if !acks.is_closed() {
            self.ledger().acknowledged(batch, base_offset);
            acks.add_permits(1);
        }
    }

    fn request(&self) -> ProduceRequest {
        ProduceRequest {
            topic: self.topic.to_owned(),
            partition: Some(self.partition),
            ..ProduceRequest::default()
        }
    }

    /// All records.
    async fn read_all(&self, channel: Channel) -> Vec<(i64, Bytes)> {
        let mut log = LogServiceClient::new(channel).max_decoding_message_size(usize::MAX);
        let mut records = Vec::new();
        let mut next = 0;
        loop {
            let partition = FetchPartition {
                topic: self.topic.to_owned(),
                partition: self.partition,
                position: Some(Position { at: Some(position::At::Offset(next)) }),
            };
            let request = FetchRequest { partitions: vec![partition], ..FetchRequest::default() };
            let answer = log.fetch(request).await;
            let mut answer =
                answer.unwrap_or_else(|status| panic!("{} cannot be read: {status}", self.name()));
            let data = answer.get_mut().partitions.remove(0);
            assert_eq!(data.error, None, "{}", self.name());
            let values =
                data.records.into_iter().map(|record| (record.offset, record.value.unwrap_or_default()));
            records.extend(values);
            if data.next_offset >= data.high_watermark {
                return records;
            }
            assert!(data.next_offset > next, "a fetch below the end makes progress");
            next = data.next_offset;
        }
    }
}

/// One who writes to a target.
#[derive(Debug)]
struct Writer {
    target: Arc<Target>,
    id: u32,
    next_number: u64,
    random: fastrand::Rng,
}

impl Writer {
    /// The next batch, noted in the ledger.
    fn next_batch(&mut self) -> (BatchId, Vec<Bytes>) {
        let batch = BatchId { writer: self.id, number: self.next_number };
        self.next_number += 1;
        let count = self.random.usize(1..=20);
        let values: Vec<Bytes> = (0..count)
            .map(|index| {
                let name = format!("{}/{}/{index}:", batch.writer, batch.number);
                let bytes = match self.random.u32(0..100) {
                    0 => self.random.usize(0..50_000),
                    _ => self.random.usize(0..1_000),
                };
                let padding = std::iter::repeat_with(|| self.random.alphanumeric()).take(bytes);
                Bytes::from(name.chars().chain(padding).collect::<String>())
            })
            .collect();
        self.target.ledger().sent(batch, values.clone());
        (batch, values)
    }

    /// Sends records, and waits for each answer.
    async fn write_one_by_one(mut self, channel: Channel, acks: Arc<Semaphore>) -> (Self, End) {
        let mut log = LogServiceClient::new(channel);
        loop {
            let (batch, values) = self.next_batch();
            let records = values.into_iter().map(|value| Record { value: Some(value), ..Record::default() });
            let request = ProduceRequest { records: records.collect(), ..self.target.request() };
            match log.produce(request).await {
                Ok(answer) => {
                    let base_offset = answer.into_inner().results[0].base_offset;
                    self.target.acknowledged(&acks, batch, base_offset);
                }
                Err(status) => return (self, status.into()),
            }
        }
    }

    /// Sends encoded batches, many at a time.
    async fn write_pipelined(mut self, channel: Channel, acks: Arc<Semaphore>) -> (Self, End) {
        let (requests, queue) = mpsc::channel(1);
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
        let (target, writer, window) = (self.target.clone(), self.id, in_flight.clone());

        let sender = &mut self;
        let send = async move {
            // Closed as soon as no further batch will be taken.
            while let Ok(permit) = in_flight.acquire().await {
                permit.forget();
                let (batch, values) = sender.next_batch();
                let request =
                    ProduceRequest { record_batch: Some(encode(&values)), ..sender.target.request() };
                let request = ProduceStreamRequest { request_id: batch.number, request: Some(request) };
                if requests.send(request).await.is_err() {
                    break;
                }
            }
        };
        let receive = async move {
            let mut log = LogServiceClient::new(channel);
            let mut refused = None;
            let end = match log.produce_stream(ReceiverStream::new(queue)).await {
                Err(status) => status.into(),
                Ok(answers) => {
                    let mut answers = answers.into_inner();
                    loop {
                        match answers.message().await {
                            Ok(Some(answer)) => match answer.outcome {
                                Some(Outcome::Response(response)) => {
                                    let batch = BatchId { writer, number: answer.request_id };
                                    target.acknowledged(&acks, batch, response.results[0].base_offset);
                                    window.add_permits(1);
                                }
                                outcome => {
                                    refused.get_or_insert(End::Refused(format!("{outcome:?}")));
                                    window.close();
                                }
                            },
                            Ok(None) => break End::Gone,
                            Err(status) => break status.into(),
                        }
                    }
                }
            };
            window.close();
            refused.unwrap_or(end)
        };
        let ((), end) = future::join(send, receive).await;
        (self, end)
    }
}

fn encode(values: &[Bytes]) -> Bytes {
    let mut batch = BatchBuilder::new(BatchOptions::default());
    for value in values {
        // Long ago: nothing here depends on the time.
        batch.push(1, None, Some(value), []);
    }
    batch.build().unwrap_or_else(|error| panic!("a batch within the format's limits: {error}")).freeze()
}

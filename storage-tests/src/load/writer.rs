//! One who writes to a partition until the server is gone or refuses, in one of three manners.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use futures_util::future;
use sagwan::proto::log_service_client::LogServiceClient;
use sagwan::proto::produce_stream_response::Outcome;
use sagwan::proto::{InitProducerRequest, ProduceRequest, ProduceStreamRequest, Record};
use sagwan::record::{BatchBuilder, BatchOptions, ProducerStamp};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::target::Target;
use crate::ledger::BatchId;

/// Requests of a stream that wait for their answers.
const IN_FLIGHT: usize = 32;
/// Requests of an idempotent writer that wait for their answers: a partition remembers five batches.
const IN_FLIGHT_IDEMPOTENT: usize = 5;
/// The largest value, but for its name.
const MAX_VALUE_BYTES: usize = 50_000;

/// What values are filled with: slices of it, as making it takes longer than all else a writer does.
static FILLING: LazyLock<String> = LazyLock::new(|| {
    let mut random = fastrand::Rng::with_seed(1);
    std::iter::repeat_with(|| random.alphanumeric()).take(2 * MAX_VALUE_BYTES).collect()
});

/// How a writer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The server is gone.
    Gone,
    /// The server lives and took a batch no more. Its answers to batches sent before have been noted.
    Refused(String),
    /// A batch was taken when acknowledgements did not count any more. One that has to be sent until it is acknowledged
    /// cannot go on then.
    Unheard,
}

impl From<tonic::Status> for End {
    /// A server's own answers carry an `ErrorInfo`; what else the transport says is how a killed one looks from outside.
    fn from(status: tonic::Status) -> Self {
        if status.details().is_empty() { Self::Gone } else { Self::Refused(status.to_string()) }
    }
}

/// How a writer writes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Manner {
    /// Sends encoded batches, many at a time.
    Pipelined,
    /// Sends records, and waits for each answer.
    OneByOne,
    /// Sends encoded batches, several at a time, each until it is acknowledged.
    Idempotent,
}

pub(super) const MANNERS: [Manner; 3] = [Manner::Pipelined, Manner::OneByOne, Manner::Idempotent];

/// Keeps what it has to know from start to start.
#[derive(Debug)]
pub(super) struct Writer {
    target: Arc<Target>,
    id: u32,
    manner: Manner,
    next_number: u64,
    random: fastrand::Rng,
    numbers: Numbers,
}

/// What an idempotent writer knows.
#[derive(Debug, Default)]
struct Numbers {
    producer_id: Option<i64>,
    next_sequence: i32,
    /// Whether the partition knows the producer. Until then one batch is under way at a time.
    confirmed: bool,
    /// Sent and not acknowledged, in order.
    unanswered: VecDeque<Unanswered>,
}

#[derive(Debug)]
struct Unanswered {
    batch: BatchId,
    values: Vec<Bytes>,
    stamp: ProducerStamp,
}

impl Writer {
    pub(super) fn new(target: Arc<Target>, id: u32, manner: Manner, random: fastrand::Rng) -> Self {
        Self { target, id, manner, next_number: 0, random, numbers: Numbers::default() }
    }

    pub(super) const fn is_idempotent(&self) -> bool {
        matches!(self.manner, Manner::Idempotent)
    }

    /// Writes until the server is gone or refuses. Notes acknowledgements until `acks` is closed.
    pub(super) async fn write(mut self, channel: Channel, acks: Arc<Semaphore>) -> (Self, End) {
        let end = match self.manner {
            Manner::Pipelined => self.write_pipelined(channel, &acks).await,
            Manner::OneByOne => self.write_one_by_one(channel, &acks).await,
            Manner::Idempotent => self.write_idempotently(channel, &acks).await,
        };
        (self, end)
    }

    /// The next batch, noted in the ledger.
    fn next_batch(&mut self) -> (BatchId, Vec<Bytes>) {
        let batch = BatchId { writer: self.id, number: self.next_number };
        self.next_number += 1;
        let count = self.random.usize(1..=20);
        let values: Vec<Bytes> = (0..count)
            .map(|index| {
                let name = format!("{}/{}/{index}:", batch.writer, batch.number);
                let bytes = match self.random.u32(0..100) {
                    0 => self.random.usize(0..MAX_VALUE_BYTES),
                    _ => self.random.usize(0..1_000),
                };
                let filling = self.random.usize(0..MAX_VALUE_BYTES);
                Bytes::from(name + &FILLING[filling..filling + bytes])
            })
            .collect();
        self.target.ledger().sent(batch, values.clone());
        (batch, values)
    }

    async fn write_one_by_one(&mut self, channel: Channel, acks: &Semaphore) -> End {
        let mut log = LogServiceClient::new(channel);
        loop {
            let (batch, values) = self.next_batch();
            let records = values.into_iter().map(|value| Record { value: Some(value), ..Record::default() });
            let request = ProduceRequest { records: records.collect(), ..self.target.request() };
            match log.produce(request).await {
                Ok(answer) => {
                    let base_offset = answer.into_inner().results[0].base_offset;
                    self.target.acknowledged(acks, batch, base_offset);
                }
                Err(status) => return status.into(),
            }
        }
    }

    async fn write_idempotently(&mut self, channel: Channel, acks: &Semaphore) -> End {
        let mut log = LogServiceClient::new(channel);
        if self.numbers.producer_id.is_none() {
            match log.init_producer(InitProducerRequest {}).await {
                Ok(answer) => self.numbers.producer_id = Some(answer.into_inner().producer_id),
                Err(status) => return status.into(),
            }
        }
        for unanswered in &self.numbers.unanswered {
            self.target.ledger().sent_again(unanswered.batch, &unanswered.values);
        }

        let (requests, queue) = mpsc::channel(IN_FLIGHT_IDEMPOTENT);
        let mut answers = match log.produce_stream(ReceiverStream::new(queue)).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return status.into(),
        };
        let mut requests = Some(requests);
        let (mut under_way, mut ended) = (0, None);
        loop {
            let window = if self.numbers.confirmed { IN_FLIGHT_IDEMPOTENT } else { 1 };
            while under_way < window
                && let Some(sender) = &requests
            {
                // The channel has room for the whole window: it can only be closed.
                if sender.try_send(self.request(under_way)).is_err() {
                    requests = None;
                }
                under_way += 1;
            }
            match answers.message().await {
                Ok(Some(answer)) => {
                    under_way -= 1;
                    match answer.outcome {
                        Some(Outcome::Response(response)) => {
                            if !self.answered(acks, answer.request_id, response.results[0].base_offset) {
                                ended.get_or_insert(End::Unheard);
                                requests = None;
                            }
                        }
                        outcome => {
                            ended.get_or_insert(End::Refused(format!("{outcome:?}")));
                            requests = None;
                        }
                    }
                }
                Ok(None) => return ended.unwrap_or(End::Gone),
                Err(status) => return ended.unwrap_or_else(|| status.into()),
            }
        }
    }

    /// The batch that comes after so many under way: the next that waits for an answer, or else a new one.
    fn request(&mut self, under_way: usize) -> ProduceStreamRequest {
        if self.numbers.unanswered.len() <= under_way {
            let (batch, values) = self.next_batch();
            let numbers = &mut self.numbers;
            let stamp = ProducerStamp {
                producer_id: numbers.producer_id.unwrap_or_default(),
                producer_epoch: 0,
                base_sequence: numbers.next_sequence,
            };
            numbers.next_sequence += values.len() as i32;
            numbers.unanswered.push_back(Unanswered { batch, values, stamp });
        }
        let unanswered = &self.numbers.unanswered[under_way];
        let record_batch = Some(encode(&unanswered.values, Some(unanswered.stamp)));
        let request = ProduceRequest { record_batch, ..self.target.request() };
        ProduceStreamRequest { request_id: unanswered.batch.number, request: Some(request) }
    }

    /// A batch was appended, now or before. Returns whether that counts.
    fn answered(&mut self, acks: &Semaphore, number: u64, base_offset: i64) -> bool {
        let batch = BatchId { writer: self.id, number };
        let counts = self.target.acknowledged(acks, batch, base_offset);
        if counts {
            self.numbers.confirmed = true;
            self.numbers.unanswered.retain(|unanswered| unanswered.batch != batch);
        }
        counts
    }

    /// Sends encoded batches, many at a time.
    async fn write_pipelined(&mut self, channel: Channel, acks: &Semaphore) -> End {
        let (requests, queue) = mpsc::channel(1);
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
        let (target, writer, window) = (self.target.clone(), self.id, in_flight.clone());

        let sender = self;
        let send = async move {
            // Closed as soon as no further batch will be taken.
            while let Ok(permit) = in_flight.acquire().await {
                permit.forget();
                let (batch, values) = sender.next_batch();
                let request =
                    ProduceRequest { record_batch: Some(encode(&values, None)), ..sender.target.request() };
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
                                    target.acknowledged(acks, batch, response.results[0].base_offset);
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
        future::join(send, receive).await.1
    }
}

fn encode(values: &[Bytes], stamp: Option<ProducerStamp>) -> Bytes {
    let mut batch = BatchBuilder::new(BatchOptions::default());
    for value in values {
        // Long ago: nothing here depends on the time.
        batch.push(1, None, Some(value), []);
    }
    if let Some(stamp) = stamp {
        batch.set_producer(stamp);
    }
    batch.build().unwrap_or_else(|error| panic!("a batch within the format's limits: {error}")).freeze()
}

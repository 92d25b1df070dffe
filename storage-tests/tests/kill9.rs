//! kill -9 at random moments of a server under load, again and again, judged by ledgers kept outside it.
//!
//! Each partition has two writers, one pipelined over a stream of encoded batches, one that sends records and waits.
//! What `durability = os` acknowledges is in the page cache, which outlives the process: it has to survive too.

use std::sync::Arc;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::future;
use sagwan::proto::admin_service_client::AdminServiceClient;
use sagwan::proto::log_service_client::LogServiceClient;
use sagwan::proto::produce_stream_response::Outcome;
use sagwan::proto::{
    CreateTopicRequest, DescribeBrokerRequest, FetchPartition, FetchRequest, Position, ProduceRequest,
    ProduceStreamRequest, Record, position,
};
use sagwan::record::{BatchBuilder, BatchOptions};
use storage_tests::ledger::{BatchId, Ledger, Settled};
use storage_tests::process::ServerProcess;
use tempfile::TempDir;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// How many kills, unless `SAGWAN_TEST_CYCLES` says otherwise.
const CYCLES: u64 = 5;
const TOPICS: [(&str, &str); 2] = [("synced", "fsync"), ("cached", "os")];
const PARTITIONS: i32 = 2;
/// The kill comes after so many acknowledgements of a cycle at most.
const MOST_ACKS: u32 = 400;
/// Requests of a stream that wait for their answers.
const IN_FLIGHT: usize = 32;

/// One partition and everything that was ever sent to it.
struct Target {
    topic: &'static str,
    partition: i32,
    ledger: Mutex<Ledger>,
}

impl Target {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no writer panics under the lock")
    }
}

/// The one who writes to a target until the server is gone.
struct Writer {
    target: Arc<Target>,
    /// One permit for each acknowledgement.
    acks: Arc<Semaphore>,
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

    fn acknowledged(target: &Target, acks: &Semaphore, batch: BatchId, base_offset: i64) {
        target.ledger().acknowledged(batch, base_offset);
        acks.add_permits(1);
    }

    /// Sends records, and waits for each answer.
    async fn write_one_by_one(mut self, channel: Channel) -> Self {
        let mut log = LogServiceClient::new(channel);
        loop {
            let (batch, values) = self.next_batch();
            let records = values.into_iter().map(|value| Record { value: Some(value), ..Record::default() });
            let request = ProduceRequest {
                topic: self.target.topic.to_owned(),
                partition: Some(self.target.partition),
                records: records.collect(),
                ..ProduceRequest::default()
            };
            match log.produce(request).await {
                Ok(answer) => {
                    let base_offset = answer.into_inner().results[0].base_offset;
                    Self::acknowledged(&self.target, &self.acks, batch, base_offset);
                }
                Err(status) => {
                    assert!(is_gone(&status), "a server that lives takes every batch: {status:?}");
                    return self;
                }
            }
        }
    }

    /// Sends encoded batches, many at a time.
    async fn write_pipelined(mut self, channel: Channel) -> Self {
        let (requests, queue) = mpsc::channel(1);
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
        let (target, acks, writer) = (self.target.clone(), self.acks.clone(), self.id);

        let window = in_flight.clone();
        let send = async {
            // Closed as soon as no answers come any more.
            while let Ok(permit) = window.acquire().await {
                permit.forget();
                let (batch, values) = self.next_batch();
                let request = ProduceRequest {
                    topic: self.target.topic.to_owned(),
                    partition: Some(self.target.partition),
                    record_batch: Some(encode(&values)),
                    ..ProduceRequest::default()
                };
                let request = ProduceStreamRequest { request_id: batch.number, request: Some(request) };
                if requests.send(request).await.is_err() {
                    break;
                }
            }
        };
        let receive = async move {
            let mut log = LogServiceClient::new(channel);
            let ended = match log.produce_stream(ReceiverStream::new(queue)).await {
                Err(status) => status,
                Ok(answers) => {
                    let mut answers = answers.into_inner();
                    loop {
                        match answers.message().await {
                            Ok(Some(answer)) => {
                                let number = answer.request_id;
                                let Some(Outcome::Response(response)) = answer.outcome else {
                                    panic!("a server that lives takes every batch: {answer:?}");
                                };
                                let base_offset = response.results[0].base_offset;
                                Self::acknowledged(&target, &acks, BatchId { writer, number }, base_offset);
                                in_flight.add_permits(1);
                            }
                            Ok(None) => panic!("the server ended a stream that its client had not ended"),
                            Err(status) => break status,
                        }
                    }
                }
            };
            in_flight.close();
            assert!(is_gone(&ended), "a server that lives takes every batch: {ended:?}");
        };
        future::join(send, receive).await;
        self
    }
}

/// Whether this is how a killed server looks from outside, and not an answer it gave: those carry an `ErrorInfo`.
fn is_gone(status: &tonic::Status) -> bool {
    status.details().is_empty()
}

fn encode(values: &[Bytes]) -> Bytes {
    let mut batch = BatchBuilder::new(BatchOptions::default());
    for value in values {
        // Long ago: nothing here depends on the time.
        batch.push(1, None, Some(value), []);
    }
    batch.build().expect("a batch within the format's limits").freeze()
}

/// All records of a partition.
async fn read_all(channel: Channel, target: &Target) -> Vec<(i64, Bytes)> {
    let mut log = LogServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    let mut records = Vec::new();
    let mut next = 0;
    loop {
        let partition = FetchPartition {
            topic: target.topic.to_owned(),
            partition: target.partition,
            position: Some(Position { at: Some(position::At::Offset(next)) }),
        };
        let request = FetchRequest { partitions: vec![partition], ..FetchRequest::default() };
        let mut answer = log.fetch(request).await.expect("a partition can be read").into_inner();
        let data = answer.partitions.remove(0);
        assert_eq!(data.error, None, "{}-{}", target.topic, target.partition);
        let values = data.records.into_iter().map(|record| (record.offset, record.value.unwrap_or_default()));
        records.extend(values);
        if data.next_offset >= data.high_watermark {
            return records;
        }
        assert!(data.next_offset > next, "a fetch below the end makes progress");
        next = data.next_offset;
    }
}

async fn connect(server: &ServerProcess) -> Channel {
    let endpoint = Channel::from_shared(server.url()).expect("a URL");
    endpoint.connect().await.expect("a server that is ready takes connections")
}

async fn settle(server: &ServerProcess, targets: &[Arc<Target>]) -> Settled {
    let channel = connect(server).await;
    let mut sum = Settled::default();
    for target in targets {
        let records = read_all(channel.clone(), target).await;
        let settled = target.ledger().settle(&records);
        let settled =
            settled.unwrap_or_else(|breach| panic!("{}-{}: {breach:?}", target.topic, target.partition));
        sum.batches += settled.batches;
        sum.survived_unacknowledged += settled.survived_unacknowledged;
        sum.absent += settled.absent;
    }
    sum
}

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{name}={value}: {error}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_record_survives_kill_9() {
    let seed = setting("SAGWAN_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("the same kill points again: SAGWAN_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = TempDir::new().expect("a temporary directory");
    let mut server = ServerProcess::start(env!("CARGO_BIN_EXE_sagwan-under-test"), directory.path());

    let mut targets = Vec::new();
    let mut admin = AdminServiceClient::new(connect(&server).await);
    for (topic, durability) in TOPICS {
        // Small segments: the kills fall on rolls too.
        let config = [("durability", durability), ("segment_bytes", "2097152")];
        let request = CreateTopicRequest {
            name: topic.to_owned(),
            partitions: Some(PARTITIONS),
            config: config.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            validate_only: false,
        };
        admin.create_topic(request).await.expect("a topic is created");
        targets.extend(
            (0..PARTITIONS).map(|partition| Arc::new(Target { topic, partition, ledger: Mutex::default() })),
        );
    }

    let acks = Arc::new(Semaphore::new(0));
    let mut writers: Vec<Writer> = (0..)
        .zip(targets.iter().flat_map(|target| [target, target]))
        .map(|(id, target)| Writer {
            target: target.clone(),
            acks: acks.clone(),
            id,
            next_number: 0,
            random: random.fork(),
        })
        .collect();

    for cycle in 0..setting("SAGWAN_TEST_CYCLES").unwrap_or(CYCLES) {
        let mut writing = JoinSet::new();
        for writer in writers.drain(..) {
            let channel = connect(&server).await;
            if writer.id % 2 == 0 {
                writing.spawn(writer.write_pipelined(channel));
            } else {
                writing.spawn(writer.write_one_by_one(channel));
            }
        }
        let kill_after = random.u32(1..=MOST_ACKS);
        tokio::select! {
            permits = acks.acquire_many(kill_after) => permits.expect("never closed").forget(),
            // No writer ends before the kill: this one has panicked.
            Some(ended) = writing.join_next() => panic!("a writer ended early: {:?}", ended.map(|writer| writer.id)),
        }
        server.kill9();
        writers = writing.join_all().await;
        // Answers that were on their way when the kill came.
        acks.forget_permits(usize::MAX >> 4);

        server.restart();
        let settled = settle(&server, &targets).await;
        eprintln!("cycle {cycle}: killed after {kill_after} acknowledgements: {settled:?}");
        assert!(settled.batches >= kill_after as usize);
    }

    // After an orderly end everything is still there, and nothing has to be recovered.
    assert!(server.terminate().success());
    server.restart();
    settle(&server, &targets).await;
    let mut admin = AdminServiceClient::new(connect(&server).await);
    let broker = admin.describe_broker(DescribeBrokerRequest {}).await.expect("a broker").into_inner();
    assert_eq!(broker.counters.map(|counters| counters.recovered_bytes), Some(0));
}

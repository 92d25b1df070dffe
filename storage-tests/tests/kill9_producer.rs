//! One Rust producer through many kills of the server and many broken connections: what it was given is in the log once
//! and in order, and it says so of each record.
//!
//! Each partition has one sender, so the offset of a record has to be its number: a lost, doubled or reordered record
//! moves all behind it.

#![allow(clippy::expect_used, reason = "a step that fails ends the test")]

use std::collections::BTreeMap;
use std::io::{Write as _, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sagwan::client::{
    Client, ConsumerConfig, Delivery, NewTopic, PartitionId, Position, Producer, ProducerConfig,
    ProducerRecord, TopicName, TopicPartition,
};
use storage_tests::length::Length;
use storage_tests::load::SMALL_SEGMENTS;
use storage_tests::process::ServerProcess;
use storage_tests::relay::Relay;
use storage_tests::setting;
use tempfile::TempDir;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// How many kills in the short form.
const CYCLES: u64 = 5;
/// The fault comes after so many acknowledgements of a cycle at most.
const MOST_ACKS: u32 = 400;
/// Of each topic.
const PARTITIONS: u32 = 2;

fn config() -> ProducerConfig {
    ProducerConfig {
        // A few records, so that many batches are under way.
        batch_bytes: 4 << 10,
        linger: Duration::from_millis(1),
        buffer_bytes: 256 << 10,
        // Longer than any start takes.
        delivery_timeout: Duration::from_mins(10),
        ..ProducerConfig::default()
    }
}

/// The value of a partition's record with this number.
fn value(number: i64) -> String {
    let bytes = (number * 7_919 % 1_000) as usize;
    format!("{number}:{}", "v".repeat(bytes))
}

/// Who writes, and what came of it.
struct Load {
    stop: Arc<AtomicBool>,
    /// One permit for each acknowledgement.
    acks: Arc<Semaphore>,
    senders: JoinSet<()>,
    /// Each ends with its partition, and how many records it has.
    judges: JoinSet<(TopicPartition, i64)>,
}

impl Load {
    fn start(producer: &Producer, partitions: &[TopicPartition]) -> Self {
        let (stop, acks) = (Arc::new(AtomicBool::new(false)), Arc::new(Semaphore::new(0)));
        let (mut senders, mut judges) = (JoinSet::new(), JoinSet::new());
        for partition in partitions {
            let (deliveries, delivered) = mpsc::unbounded_channel();
            senders.spawn(send(producer.clone(), partition.clone(), stop.clone(), deliveries));
            judges.spawn(judge(partition.clone(), delivered, acks.clone()));
        }
        Self { stop, acks, senders, judges }
    }

    /// Waits for so many acknowledgements from now on.
    async fn acknowledgements(&mut self, count: u32) {
        self.acks.forget_permits(self.acks.available_permits());
        tokio::select! {
            permits = self.acks.acquire_many(count) => permits.expect("open").forget(),
            Some(ended) = self.judges.join_next() => panic!("a record was not delivered: {ended:?}"),
        }
    }

    /// Sends no more, and waits for the last acknowledgement.
    async fn end(self, producer: &Producer) -> BTreeMap<TopicPartition, i64> {
        self.stop.store(true, Ordering::Relaxed);
        self.senders.join_all().await;
        producer.close().await.expect("all is delivered");
        self.judges.join_all().await.into_iter().collect()
    }
}

/// Sends record after record.
async fn send(
    producer: Producer,
    place: TopicPartition,
    stop: Arc<AtomicBool>,
    deliveries: mpsc::UnboundedSender<Delivery>,
) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let record = ProducerRecord::new(place.topic.clone()).partition(place.partition).value(value(number));
        let delivery = producer.send(record).await.expect("taken");
        deliveries.send(delivery).expect("somebody listens");
    }
}

/// Each record is delivered, to the offset that is its number.
async fn judge(
    place: TopicPartition,
    mut deliveries: mpsc::UnboundedReceiver<Delivery>,
    acks: Arc<Semaphore>,
) -> (TopicPartition, i64) {
    let mut number = 0;
    while let Some(delivery) = deliveries.recv().await {
        let delivered =
            delivery.await.unwrap_or_else(|error| panic!("record {number} of {place:?}: {error}"));
        assert_eq!(delivered.offset.get(), number, "{place:?}");
        number += 1;
        acks.add_permits(1);
    }
    (place, number)
}

/// Reads everything: the logs have these records and no others.
async fn read(client: &Client, records: &BTreeMap<TopicPartition, i64>) {
    let topics: std::collections::BTreeSet<_> = records.keys().map(|place| place.topic.clone()).collect();
    let config = topics
        .into_iter()
        .fold(ConsumerConfig::default(), |config, topic| config.topic(topic, Position::Earliest));
    let mut consumer = client.consumer(config).await.expect("a consumer");
    let ends = consumer.end_offsets().await.expect("ends");
    consumer.stop_at(&ends);
    let mut found: BTreeMap<TopicPartition, i64> = records.keys().map(|place| (place.clone(), 0)).collect();
    while let Some(record) = consumer.next().await {
        let record = record.expect("readable");
        let place = TopicPartition::new(record.topic, record.partition);
        let next = found.get_mut(&place).expect("one of these partitions");
        assert_eq!(record.offset.get(), *next, "{place:?}");
        assert_eq!(record.value.as_deref(), Some(value(*next).as_bytes()), "{place:?}, offset {next}");
        *next += 1;
    }
    assert_eq!(&found, records);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_outlives_every_kill_9_and_each_of_its_records_is_there_once_and_in_order() {
    let seed = setting("SAGWAN_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("the same kill points again: SAGWAN_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = TempDir::new().expect("a temporary directory");
    let mut server = ServerProcess::start(env!("CARGO_BIN_EXE_sagwan-under-test"), directory.path());
    let relay = Relay::start(server.address()).await;
    let client = Client::connect(&relay.url()).await.expect("connected");
    let mut partitions = Vec::new();
    for (name, durability) in [("synced", "fsync"), ("cached", "os")] {
        let topic = TopicName::parse(name).expect("a valid name");
        let new = NewTopic::new(topic.clone())
            .partitions(PARTITIONS)
            .config("durability", durability)
            .config("segment_bytes", SMALL_SEGMENTS.to_string());
        client.admin().create_topic(new).await.expect("created");
        let place = |partition: PartitionId| TopicPartition::new(topic.clone(), partition);
        partitions.extend(PartitionId::all(PARTITIONS).map(place));
    }

    let producer = client.producer(config()).expect("valid settings");
    let mut load = Load::start(&producer, &partitions);
    let mut length = Length::of(CYCLES);
    for cycle in &mut length {
        // The server lives on, and does what it has read of the connection.
        load.acknowledgements(random.u32(1..=MOST_ACKS)).await;
        relay.cut();
        let kill_after = random.u32(1..=MOST_ACKS);
        load.acknowledgements(kill_after).await;
        server.kill9();
        server.restart();
        relay.redirect(server.address());
        eprintln!("cycle {cycle}: killed after {kill_after} acknowledgements");
    }
    let records = load.end(&producer).await;

    // What was acknowledged is what is there, before and after an orderly end.
    read(&client, &records).await;
    assert!(server.terminate().success());
    server.restart();
    relay.redirect(server.address());
    let client = Client::connect(&relay.url()).await.expect("connected");
    read(&client, &records).await;

    // Not `eprintln!`, which is not shown when a test passes. Had it been otherwise, the test would have ended.
    let (cycles, records) = (length.cycles(), records.values().sum::<i64>());
    writeln!(
        stderr(),
        "kill -9 below one producer: {cycles} cycles, {records} records acknowledged: lost 0, doubled 0, reordered 0 \
         (SAGWAN_TEST_SEED={seed})"
    )
    .expect("a line");
}

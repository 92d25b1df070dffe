//! Writers and followers at once, through the Rust client: nothing missing, nothing twice, in order.
//!
//! The followers begin before there is anything to read and follow the log while it grows.

use std::collections::BTreeMap;
use std::time::Duration;

use sagwan::client::{Client, ConsumerConfig, NewTopic, Position, ProducerConfig, ProducerRecord, TopicName};
use storage_tests::process::ServerProcess;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::timeout;

const PRODUCERS: u32 = 4;
const FOLLOWERS: usize = 4;
const PARTITIONS: u32 = 8;
const KEYS: u32 = 64;
const RECORDS_PER_PRODUCER: u32 = 25_000;
const RECORDS: usize = (PRODUCERS * RECORDS_PER_PRODUCER) as usize;
/// Longer than it takes in a debug build on a busy machine.
const LIMIT: Duration = Duration::from_mins(2);

/// What a follower saw: by partition, the values in the order of their offsets.
type Seen = BTreeMap<i32, Vec<String>>;

/// Sends numbered records, `producer/key/number`, without waiting for one before the next.
async fn produce(url: String, topic: TopicName, producer: u32) {
    let client = Client::connect(&url).await.expect("a server that is ready");
    let sender = client.producer(ProducerConfig::default()).expect("default settings");
    let mut deliveries = Vec::new();
    for number in 0..RECORDS_PER_PRODUCER {
        let key = number % KEYS;
        let record = ProducerRecord::new(topic.clone())
            .key(format!("key-{key}"))
            .value(format!("{producer}/{key}/{number}"));
        deliveries.push(sender.send(record).await.expect("room in the buffer"));
    }
    for delivery in deliveries {
        delivery.await.expect("a healthy server takes every record");
    }
}

/// Reads from the earliest offsets until it has seen as many records as are sent.
async fn follow(url: String, topic: TopicName) -> Seen {
    let client = Client::connect(&url).await.expect("a server that is ready");
    let config = ConsumerConfig::default().topic(topic, Position::Earliest);
    let mut consumer = client.consumer(config).await.expect("a topic that exists");
    let mut seen = Seen::new();
    for _ in 0..RECORDS {
        let record = consumer.next().await.expect("a log has no end").expect("a readable record");
        let values = seen.entry(record.partition.get()).or_default();
        assert_eq!(record.offset.get(), values.len() as i64, "offsets of partition {}", record.partition);
        let value = record.value.expect("a value");
        values.push(String::from_utf8(value.into()).expect("text"));
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_producers_and_four_followers_at_once_lose_and_repeat_nothing() {
    let directory = TempDir::new().expect("a temporary directory");
    let server = ServerProcess::start(env!("CARGO_BIN_EXE_sagwan-under-test"), directory.path());
    let topic = TopicName::parse("busy").expect("a topic name");
    let admin = Client::connect(&server.url()).await.expect("a server that is ready").admin();
    admin.create_topic(NewTopic::new(topic.clone()).partitions(PARTITIONS)).await.expect("a new topic");

    let mut followers = JoinSet::new();
    for _ in 0..FOLLOWERS {
        followers.spawn(follow(server.url(), topic.clone()));
    }
    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        producers.spawn(produce(server.url(), topic.clone(), producer));
    }
    timeout(LIMIT, producers.join_all()).await.expect("the producers end");
    let mut seen = timeout(LIMIT, followers.join_all()).await.expect("the followers see everything");

    // Offsets had no gap and no repetition, so this is all of the log, and the same for everyone.
    let first = seen.pop().expect("a follower");
    assert!(seen.iter().all(|other| *other == first), "all followers see the same log");
    let mut sent: Vec<String> = (0..PRODUCERS)
        .flat_map(|producer| {
            (0..RECORDS_PER_PRODUCER).map(move |number| format!("{producer}/{}/{number}", number % KEYS))
        })
        .collect();
    let mut found: Vec<String> = first.values().flatten().cloned().collect();
    sent.sort_unstable();
    found.sort_unstable();
    assert!(sent == found, "every record once: {} sent, {} found", sent.len(), found.len());

    // A key stays in one partition, and each producer's records of it in the order they were sent.
    let mut last: BTreeMap<(&str, &str), (i32, u32)> = BTreeMap::new();
    for (&partition, values) in &first {
        for value in values {
            let mut parts = value.split('/');
            let (Some(producer), Some(key), Some(number)) = (parts.next(), parts.next(), parts.next()) else {
                unreachable!("{value} was compared with what was sent");
            };
            let number = number.parse().expect("a number");
            if let Some((home, before)) = last.insert((producer, key), (partition, number)) {
                assert_eq!(home, partition, "the partition of key {key}");
                assert!(before < number, "partition {partition}: {value} after {before}");
            }
        }
    }
}

//! The Rust client against a real server.

#![allow(clippy::expect_used, reason = "a step that fails ends the test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use sagwan::client::{
    Client, Codec, ConsumedRecord, Consumer, ConsumerConfig, Error, GroupName, NewTopic, Offset,
    OffsetCommit, PartitionId, Position, ProducerConfig, ProducerRecord, Start, TopicName, TopicPartition,
    TopicUpdate,
};
use sagwan::config::Config;
use sagwan::server::Server;
use tempfile::TempDir;

/// A running server and a client of it.
struct Broker {
    server: Server,
    dir: TempDir,
    client: Client,
}

impl Broker {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let server = serve(&dir, SocketAddr::from(([127, 0, 0, 1], 0))).await;
        let client = Client::connect(&server.grpc_addr().to_string()).await.expect("connected");
        Self { server, dir, client }
    }

    async fn create(&self, name: &str, partitions: u32) -> TopicName {
        let topic = topic(name);
        let created =
            self.client.admin().create_topic(NewTopic::new(topic.clone()).partitions(partitions)).await;
        assert_eq!(created.expect("created").partitions.len(), partitions as usize);
        topic
    }

    /// Appends these values to partition 0, acknowledged.
    async fn append(&self, topic: &TopicName, values: std::ops::Range<i64>) {
        let producer = self.client.producer(ProducerConfig::default()).expect("valid settings");
        for value in values {
            let record = ProducerRecord::new(topic.clone())
                .partition(PartitionId::default())
                .value(value.to_string())
                .timestamp_ms(1_000 + value);
            drop(producer.send(record).await.expect("room"));
        }
        producer.close().await.expect("appended");
    }

    async fn consumer(&self, topic: &TopicName, start: impl Into<Start>) -> Result<Consumer, Error> {
        self.client.consumer(ConsumerConfig::default().topic(topic.clone(), start)).await
    }

    /// The values from a start to the end, as numbers.
    async fn values(&self, topic: &TopicName, start: impl Into<Start>) -> Vec<i64> {
        let mut consumer = self.consumer(topic, start).await.expect("a consumer");
        read_to_end(&mut consumer).await.iter().map(number).collect()
    }
}

async fn serve(dir: &TempDir, addr: SocketAddr) -> Server {
    let mut config = Config { data_dir: dir.path().to_owned(), ..Config::default() };
    config.grpc.addr = addr;
    Server::start(config).await.expect("started")
}

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).expect("a valid name")
}

fn group(name: &str) -> GroupName {
    GroupName::parse(name).expect("a valid name")
}

fn number(record: &ConsumedRecord) -> i64 {
    let value = record.value.as_deref().expect("a value");
    std::str::from_utf8(value).expect("text").parse().expect("a number")
}

async fn read_to_end(consumer: &mut Consumer) -> Vec<ConsumedRecord> {
    let ends = consumer.end_offsets().await.expect("ends");
    consumer.stop_at(&ends);
    let mut records = Vec::new();
    while let Some(record) = consumer.next().await {
        records.push(record.expect("readable"));
    }
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_comes_back_as_it_was_sent_under_every_codec() {
    let broker = Broker::start().await;
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let topic = broker.create(&format!("{codec:?}"), 1).await;
        let config = ProducerConfig { compression: codec, ..ProducerConfig::default() };
        let producer = broker.client.producer(config).expect("valid settings");
        let full = ProducerRecord::new(topic.clone())
            .key(&b"k\xff"[..])
            .value("v")
            .header("a", "1")
            .header("a", "2")
            .timestamp_ms(1_234);
        let records = [
            full,
            ProducerRecord::new(topic.clone()).key("").value(""),
            ProducerRecord::new(topic.clone()).key("tombstone"),
            ProducerRecord::new(topic.clone()).value(vec![7; 300_000]),
        ];
        for (expected, record) in (0..).zip(records.clone()) {
            let delivered = producer.send(record).await.expect("room").await.expect("delivered");
            assert_eq!(delivered.offset.get(), expected);
        }
        let mut consumer = broker.consumer(&topic, Position::Earliest).await.expect("a consumer");
        let read = read_to_end(&mut consumer).await;
        assert_eq!(read.len(), records.len());
        for (sent, read) in records.iter().zip(&read) {
            assert_eq!((&read.key, &read.value, &read.headers), (&sent.key, &sent.value, &sent.headers));
        }
        assert_eq!(read.first().map(|record| record.timestamp_ms), Some(1_234));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_keep_their_order_and_their_partition_and_nothing_is_missing_or_twice() {
    const RECORDS: i64 = 20_000;
    let broker = Broker::start().await;
    let topic = broker.create("keyed", 8).await;
    let config = ProducerConfig { batch_bytes: 4 << 10, ..ProducerConfig::default() };
    let producer = broker.client.producer(config).expect("valid settings");
    for value in 0..RECORDS {
        // Every third record has no key.
        let record = ProducerRecord::new(topic.clone()).value(value.to_string());
        let record = if value % 3 == 0 { record } else { record.key((value % 100).to_string()) };
        drop(producer.send(record).await.expect("room"));
    }
    producer.close().await.expect("appended");

    let mut consumer = broker.consumer(&topic, Position::Earliest).await.expect("a consumer");
    let records = read_to_end(&mut consumer).await;
    let mut seen: Vec<i64> = records.iter().map(number).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..RECORDS).collect::<Vec<_>>());

    let mut last: BTreeMap<Bytes, (PartitionId, i64)> = BTreeMap::new();
    for record in &records {
        let Some(key) = &record.key else { continue };
        if let Some((partition, value)) = last.insert(key.clone(), (record.partition, number(record))) {
            assert_eq!(partition, record.partition, "{key:?}");
            assert!(value < number(record), "{key:?}: {value} before {}", number(record));
        }
    }
    let used = records.iter().map(|record| record.partition).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(used.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_starts_where_it_is_told() {
    let broker = Broker::start().await;
    let topic = broker.create("starts", 1).await;
    broker.append(&topic, 0..10).await;
    assert_eq!(broker.values(&topic, Position::Earliest).await, (0..10).collect::<Vec<_>>());
    assert_eq!(broker.values(&topic, Position::Offset(Offset::clamped(7))).await, [7, 8, 9]);
    assert_eq!(broker.values(&topic, Position::TimestampMs(1_008)).await, [8, 9]);
    assert!(broker.values(&topic, Position::Latest).await.is_empty());

    let error =
        broker.consumer(&topic, Position::Offset(Offset::clamped(11))).await.expect_err("beyond the end");
    assert_eq!(error.reason(), "OFFSET_OUT_OF_RANGE");
    assert_eq!(error.metadata().get("high_watermark").map(String::as_str), Some("10"));
    let error = broker.consumer(&TopicName::parse("nowhere").expect("valid"), Position::Earliest).await;
    assert_eq!(error.expect_err("no such topic").reason(), "UNKNOWN_TOPIC");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_resumes_behind_what_it_committed() {
    let broker = Broker::start().await;
    let topic = broker.create("committed", 1).await;
    broker.append(&topic, 0..10).await;
    let billing = group("billing");
    let resume = || Start::Committed { group: billing.clone(), fallback: Position::Earliest };

    let mut consumer = broker.consumer(&topic, resume()).await.expect("a consumer");
    for expected in 0..4 {
        assert_eq!(number(&consumer.next().await.expect("a record").expect("readable")), expected);
    }
    consumer.commit(&billing).await.expect("committed");
    assert_eq!(broker.values(&topic, resume()).await, (4..10).collect::<Vec<_>>());

    let place = TopicPartition::new(topic.clone(), PartitionId::default());
    let commit =
        OffsetCommit { metadata: "by hand".to_owned(), ..OffsetCommit::new(place, Offset::clamped(9)) };
    consumer.commit_offsets(&billing, [commit.clone()]).await.expect("committed");
    let groups = broker.client.groups();
    let committed = groups.fetch_offsets(&billing, &[]).await.expect("fetched").offsets;
    assert_eq!(committed.iter().map(|committed| &committed.commit).collect::<Vec<_>>(), [&commit]);
    let listed = groups.list().await.expect("listed");
    assert_eq!(
        listed.iter().map(|group| (group.group.as_str(), group.partitions)).collect::<Vec<_>>(),
        [("billing", 1)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_is_refused_by_name_and_the_next_one_taken() {
    let broker = Broker::start().await;
    let topic = topic("small");
    let small = NewTopic::new(topic.clone()).partitions(1).config("max_message_bytes", "2000");
    broker.client.admin().create_topic(small).await.expect("created");
    let producer = broker.client.producer(ProducerConfig::default()).expect("valid settings");
    let send = async |size| producer.send(ProducerRecord::new(topic.clone()).value(vec![b'x'; size])).await;
    let error = send(3_000).await.expect("room").await.expect_err("too large");
    assert_eq!(error.reason(), "MESSAGE_TOO_LARGE");
    assert_eq!(error.metadata().get("max_message_bytes").map(String::as_str), Some("2000"));
    // Many small ones are cut into batches that the topic takes.
    for _ in 0..50 {
        drop(send(500).await.expect("room"));
    }
    producer.flush().await.expect("appended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_there_is_created_by_the_first_record() {
    let broker = Broker::start().await;
    let producer = broker.client.producer(ProducerConfig::default()).expect("valid settings");
    let topic = topic("auto");
    for expected in 0..3 {
        let record = ProducerRecord::new(topic.clone()).value(expected.to_string());
        let delivered = producer.send(record).await.expect("created").await.expect("delivered");
        assert_eq!(delivered.offset.get(), expected);
    }
    assert_eq!(broker.values(&topic, Position::Earliest).await, [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn producer_and_consumer_live_through_a_restart_of_the_broker() {
    let Broker { server, dir, client } = Broker::start().await;
    let topic = topic("restarted");
    client.admin().create_topic(NewTopic::new(topic.clone()).partitions(1)).await.expect("created");
    let producer = client.producer(ProducerConfig::default()).expect("valid settings");
    let config = ConsumerConfig::default().topic(topic.clone(), Position::Earliest);
    let mut consumer = client.consumer(config).await.expect("a consumer");
    let record = |value: i64| ProducerRecord::new(topic.clone()).value(value.to_string());
    for value in 0..5 {
        producer.send(record(value)).await.expect("room").await.expect("delivered");
        assert_eq!(number(&consumer.next().await.expect("a record").expect("readable")), value);
    }
    let addr = server.grpc_addr();
    server.shutdown().await.expect("a clean end");
    let server = serve(&dir, addr).await;
    for value in 5..10 {
        producer.send(record(value)).await.expect("room").await.expect("delivered");
        let read = consumer.next().await.expect("a record").expect("readable");
        assert_eq!((number(&read), read.offset.get()), (value, value));
    }
    drop((producer, consumer, client));
    server.shutdown().await.expect("a clean end");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_changed_described_and_deleted() {
    let broker = Broker::start().await;
    let admin = broker.client.admin();
    let orders = broker.create("orders", 2).await;
    let error = admin.create_topic(NewTopic::new(orders.clone())).await.expect_err("there already");
    assert_eq!(error.reason(), "TOPIC_ALREADY_EXISTS");

    let mut update = TopicUpdate::new(orders.clone());
    update.partitions = Some(3);
    update.set.insert("segment_ms".to_owned(), "3600000".to_owned());
    let updated = admin.update_topic(update).await.expect("updated");
    assert_eq!(updated.partitions.len(), 3);
    assert_eq!(updated.config("segment_ms"), Some("3600000"));
    assert_eq!(admin.describe_topic(&orders).await.expect("described").id, updated.id);

    broker.append(&orders, 0..5).await;
    let before = [(PartitionId::default(), Some(Offset::clamped(2)))];
    let deleted = admin.delete_records(&orders, &before).await.expect("deleted");
    let starts: Vec<_> = deleted.into_iter().map(|(_, start)| start.expect("moved").get()).collect();
    assert_eq!(starts, [2]);
    assert_eq!(broker.values(&orders, Position::Earliest).await, [2, 3, 4]);

    let listed = admin.list_topics(false).await.expect("listed");
    assert_eq!(
        listed.iter().map(|topic| (topic.name.as_str(), topic.partitions)).collect::<Vec<_>>(),
        [("orders", 3)]
    );
    assert_eq!(admin.describe_broker().await.expect("described").topics, 1);
    admin.delete_topic(&orders).await.expect("deleted");
    assert_eq!(admin.delete_topic(&orders).await.expect_err("gone").reason(), "UNKNOWN_TOPIC");
    broker.server.shutdown().await.expect("a clean end");
}

//! What is produced is what is fetched, in either format, from wherever it is asked for.

use std::collections::BTreeMap;

use bytes::Bytes;
use sagwan::proto::log_service_client::LogServiceClient;
use sagwan::proto::position::At;
use sagwan::proto::{
    self, Compression, FetchFormat, FetchRequest, Header, ListOffsetsPartition, ListOffsetsRequest,
    ProduceRequest, Record,
};
use sagwan::record::{self, Codec};

use crate::harness::{
    TestBroker, assert_waits, at, batch, encoded, fetch, from_offset, record, records, soon, values,
};

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[tokio::test]
async fn a_record_comes_back_as_it_was_given() {
    let broker = TestBroker::start().await;
    let header = |key: &str, value| Header { key: key.to_owned(), value };
    let given = vec![
        Record {
            key: Some(bytes("key")),
            value: Some(bytes("value")),
            headers: vec![header("h", Some(bytes("1"))), header("h", None), header("", Some(bytes("")))],
            timestamp_ms: Some(1_234_567_890_123),
        },
        Record { key: Some(bytes("")), value: Some(bytes("")), headers: Vec::new(), timestamp_ms: Some(0) },
        Record { key: Some(bytes("gone")), value: None, headers: Vec::new(), timestamp_ms: Some(1) },
    ];
    for (n, compression) in (0..).zip([
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ]) {
        let request = ProduceRequest {
            topic: "orders".to_owned(),
            partition: Some(0),
            records: given.clone(),
            compression: compression.into(),
            ..Default::default()
        };
        let answer = broker.produce(request).await.expect("produced");
        let [result] = answer.results.as_slice() else { panic!("{answer:?}") };
        assert_eq!((result.partition, result.base_offset, result.record_count), (0, n * 3, 3));
        assert_eq!(result.error, None);

        let data = broker.read("orders", 0, n * 3).await.expect("read");
        assert_eq!((data.high_watermark, data.next_offset, data.log_start_offset), (n * 3 + 3, n * 3 + 3, 0));
        for ((offset, given), read) in (n * 3..).zip(&given).zip(&data.records) {
            assert_eq!(read.offset, offset);
            assert_eq!(Some(read.timestamp_ms), given.timestamp_ms);
            assert_eq!((&read.key, &read.value), (&given.key, &given.value));
            assert_eq!(read.headers, given.headers);
        }
    }
}

#[tokio::test]
async fn an_encoded_batch_comes_back_with_nothing_changed_but_its_place() {
    let broker = TestBroker::start().await;
    let given = batch(&["a", "b", "c"], Codec::Zstd);
    for base in [0, 3] {
        let answer = broker.produce(encoded("orders", 0, given.clone())).await.expect("produced");
        assert_eq!(answer.results[0].base_offset, base);
    }
    let request = fetch(vec![from_offset("orders", 0, 4)], FetchFormat::RecordBatches);
    let data = broker.fetch(request).await.expect("fetched").partitions.remove(0);
    let read = data.record_batches.concat();
    assert_eq!(read[12 + 4..], given[12 + 4..], "all but base offset, length and leader epoch");
    let view = record::BatchView::parse(&read).expect("a batch");
    assert_eq!(view.base_offset().get(), 3, "the whole batch, although asked from its middle");
    assert_eq!(data.next_offset, 6);
    assert!(data.records.is_empty());

    let data = broker.read("orders", 0, 4).await.expect("read");
    assert_eq!(values(&data), ["b", "c"], "decoded, it begins where it was asked for");
}

#[tokio::test]
async fn a_large_compressed_batch_is_decoded_whole() {
    let broker = TestBroker::start().await;
    let text: Vec<String> = (0..20_000).map(|n| format!("line {n} {}", n * 7_919 % 10_007)).collect();
    let lines: Vec<&str> = text.iter().map(String::as_str).collect();
    broker.produce(encoded("orders", 0, batch(&lines, Codec::Lz4))).await.expect("produced");
    let data = broker.read("orders", 0, 1).await.expect("read");
    assert_eq!(values(&data), text[1..]);
    assert_eq!(data.next_offset, 20_000);
}

#[tokio::test]
async fn many_small_batches_come_in_few_pieces() {
    let broker = TestBroker::start().await;
    for n in 0..50 {
        broker.produce(records("orders", 0, &[n.to_string().as_str()])).await.expect("produced");
    }
    let request = fetch(vec![from_offset("orders", 0, 0)], FetchFormat::RecordBatches);
    let data = broker.fetch(request).await.expect("fetched").partitions.remove(0);
    assert_eq!(data.record_batches.len(), 1);
    assert_eq!(record::batches(&data.record_batches[0]).flatten().count(), 50);
    assert_eq!(data.next_offset, 50);
}

#[tokio::test]
async fn records_without_a_partition_go_by_their_keys() {
    let broker = TestBroker::start().await;
    broker.create("orders", 4).await;
    let key = |n: usize| format!("key {}", n % 20);
    let mut homes = BTreeMap::new();
    for round in 0..2 {
        let records =
            (0..100).map(|n| Record { key: Some(bytes(&key(n))), ..record(&format!("{round} {n}")) });
        let request =
            ProduceRequest { topic: "orders".to_owned(), records: records.collect(), ..Default::default() };
        let answer = broker.produce(request).await.expect("produced");
        let total: i32 = answer.results.iter().map(|result| result.record_count).sum();
        assert_eq!(total, 100);
        assert!(answer.results.len() > 1);
    }
    for partition in 0..4 {
        for read in broker.read("orders", partition, 0).await.expect("read").records {
            let home = homes.entry(read.key.expect("a key")).or_insert(partition);
            assert_eq!(*home, partition, "a key has one home");
        }
    }
    assert_eq!(homes.len(), 20);
}

#[tokio::test]
async fn a_fetch_that_waits_is_woken_by_an_append() {
    let broker = TestBroker::start().await;
    broker.create("orders", 2).await;
    let request = FetchRequest {
        max_wait_ms: 300_000,
        ..fetch(vec![from_offset("orders", 0, 0), from_offset("orders", 1, 0)], FetchFormat::Records)
    };
    let mut waiting = Box::pin(broker.fetch(request));
    assert_waits(&mut waiting).await;
    broker.produce(records("orders", 1, &["a"])).await.expect("produced");
    let answer = soon(waiting).await.expect("fetched");
    assert!(answer.partitions[0].records.is_empty());
    assert_eq!(answer.partitions[0].next_offset, 0);
    assert_eq!(values(&answer.partitions[1]), ["a"]);
}

#[tokio::test]
async fn a_fetch_that_may_not_wait_answers_at_once() {
    let broker = TestBroker::start().await;
    broker.create("orders", 1).await;
    let request =
        FetchRequest { min_bytes: 1_000, ..fetch(vec![from_offset("orders", 0, 0)], FetchFormat::Records) };
    let data = soon(broker.fetch(request)).await.expect("fetched").partitions.remove(0);
    assert_eq!((data.next_offset, data.high_watermark), (0, 0));
}

#[tokio::test]
async fn a_fetch_for_more_than_is_there_waits_no_longer_than_it_may() {
    let broker = TestBroker::start().await;
    broker.produce(records("orders", 0, &["a"])).await.expect("produced");
    let request = FetchRequest {
        min_bytes: 1_000_000,
        max_wait_ms: 20,
        ..fetch(vec![from_offset("orders", 0, 0)], FetchFormat::Records)
    };
    let data = soon(broker.fetch(request)).await.expect("fetched").partitions.remove(0);
    assert_eq!(values(&data), ["a"]);
}

#[tokio::test]
async fn max_bytes_bounds_an_answer_but_for_its_first_batch() {
    let broker = TestBroker::start().await;
    let value = "x".repeat(10_000);
    for _ in 0..3 {
        broker.produce(records("orders", 0, &[value.as_str()])).await.expect("produced");
    }
    for (max_bytes, expected) in [(1, 1), (25_000, 2), (0, 3)] {
        let request =
            FetchRequest { max_bytes, ..fetch(vec![from_offset("orders", 0, 0)], FetchFormat::Records) };
        let data = broker.fetch(request).await.expect("fetched").partitions.remove(0);
        assert_eq!((data.records.len(), data.next_offset), (expected, expected as i64), "{max_bytes}");
    }
}

#[tokio::test]
async fn offsets_are_found_by_place_and_by_time() {
    let broker = TestBroker::start().await;
    let timed = |timestamp_ms| Record { timestamp_ms: Some(timestamp_ms), ..record("v") };
    for timestamps in [[100, 200], [300, 400]] {
        let request = ProduceRequest { records: timestamps.map(timed).to_vec(), ..records("orders", 0, &[]) };
        broker.produce(request).await.expect("produced");
    }
    for (position, offset, timestamp_ms) in [
        (None, 0, None),
        (Some(At::Anchor(proto::Anchor::Earliest.into())), 0, None),
        (Some(At::Anchor(proto::Anchor::Latest.into())), 4, None),
        (Some(At::Offset(3)), 3, None),
        (Some(At::TimestampMs(0)), 0, Some(100)),
        (Some(At::TimestampMs(200)), 1, Some(200)),
        (Some(At::TimestampMs(201)), 2, Some(300)),
        (Some(At::TimestampMs(401)), 4, None),
    ] {
        let partitions = vec![ListOffsetsPartition {
            topic: "orders".to_owned(),
            partition: 0,
            position: position.map(at),
        }];
        let answer = broker.log().list_offsets(ListOffsetsRequest { partitions }).await.expect("listed");
        let listed = answer.into_inner().offsets.remove(0);
        assert_eq!((listed.offset, listed.timestamp_ms), (offset, timestamp_ms), "{position:?}");
    }
    let from_time = proto::FetchPartition {
        topic: "orders".to_owned(),
        partition: 0,
        position: Some(at(At::TimestampMs(250))),
    };
    let data = broker.fetch(fetch(vec![from_time], FetchFormat::Records)).await.expect("fetched");
    assert_eq!(data.partitions[0].records[0].offset, 2);
}

#[tokio::test]
async fn a_fetch_that_names_no_size_fits_into_what_clients_take_by_default() {
    let broker = TestBroker::start().await;
    // Small records, and ones that unpack to far more than they were stored as.
    for (topic, value, count, compression) in [
        ("small", "x".repeat(40), 14_000, Compression::None),
        ("zeros", "0".repeat(60_000), 140, Compression::Zstd),
    ] {
        for _ in 0..8 {
            let records = vec![record(&value); count];
            let request = ProduceRequest {
                topic: topic.to_owned(),
                partition: Some(0),
                records,
                compression: compression.into(),
                ..Default::default()
            };
            broker.produce(request).await.expect("produced");
        }
        let mut log = LogServiceClient::new(broker.channel.clone());
        let (mut offset, mut read) = (0, 0);
        loop {
            let request = fetch(vec![from_offset(topic, 0, offset)], FetchFormat::Records);
            let answer = log.fetch(request).await.expect("within 4 MiB").into_inner();
            let [data] = answer.partitions.as_slice() else { panic!("{answer:?}") };
            read += data.records.len();
            offset = data.next_offset;
            if offset == data.high_watermark {
                break;
            }
        }
        assert_eq!(read as i64, offset);
    }
}

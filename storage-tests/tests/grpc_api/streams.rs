//! The streams: order and isolation of a ProduceStream, following with a FetchStream, and how each of them ends.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::stream;
use sagwan::proto::produce_stream_response::Outcome;
use sagwan::proto::{
    self, Anchor, FetchFormat, FetchStreamRequest, FetchStreamResponse, PartitionData, ProduceRequest,
    ProduceStreamRequest,
};
use sagwan::record::{self, Codec};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::harness::{
    TestBroker, assert_error, assert_failed, assert_waits, batch, encoded, from_anchor, from_offset, records,
    soon, values,
};

fn request(request_id: u64, request: ProduceRequest) -> ProduceStreamRequest {
    ProduceStreamRequest { request_id, request: Some(request) }
}

/// All answers until the stream ends, by request id.
async fn answers(mut stream: Streaming<proto::ProduceStreamResponse>) -> BTreeMap<u64, Outcome> {
    let mut answers = BTreeMap::new();
    while let Some(answer) = soon(stream.message()).await.expect("an answer") {
        let before = answers.insert(answer.request_id, answer.outcome.expect("an outcome"));
        assert_eq!(before, None, "one answer each");
    }
    answers
}

#[tokio::test]
async fn requests_of_one_partition_keep_their_order() {
    let broker = TestBroker::start_with(|config| config.grpc.produce_stream_in_flight = 7).await;
    let requests: Vec<_> = (0..500_u64)
        .map(|id| {
            let value = format!("{id}");
            // By turns in either way.
            let produce = if id % 2 == 0 {
                records("orders", 0, &[value.as_str()])
            } else {
                encoded("orders", 0, batch(&[value.as_str()], Codec::None))
            };
            request(id, produce)
        })
        .collect();
    let stream = broker.log().produce_stream(stream::iter(requests)).await.expect("opened").into_inner();
    let answers = answers(stream).await;
    assert_eq!(answers.len(), 500);
    for (id, outcome) in answers {
        let Outcome::Response(response) = outcome else { panic!("{id}: {outcome:?}") };
        assert_eq!(response.results[0].base_offset, id as i64);
    }
    let read = values(&broker.read("orders", 0, 0).await.expect("read"));
    assert_eq!(read, (0..500).map(|id| id.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_error_answers_its_own_request_only() {
    let broker = TestBroker::start().await;
    broker.create("orders", 1).await;
    let requests = vec![
        request(10, records("orders", 0, &["a"])),
        request(11, records("orders", 9, &["lost"])),
        ProduceStreamRequest { request_id: 12, request: None },
        request(13, encoded("orders", 0, vec![0; 100].into())),
        request(14, records("no/name", 0, &["lost"])),
        request(15, records("orders", 0, &["b"])),
    ];
    let stream = broker.log().produce_stream(stream::iter(requests)).await.expect("opened").into_inner();
    let answers = answers(stream).await;
    let error = |id: u64| match &answers[&id] {
        Outcome::Error(error) => Some(error),
        Outcome::Response(_) => None,
    };
    assert_error(error(11), Code::NotFound, "UNKNOWN_PARTITION", &[("partition", "9"), ("partitions", "1")]);
    assert_error(error(12), Code::InvalidArgument, "INVALID_REQUEST", &[("field", "request")]);
    assert_error(error(13), Code::InvalidArgument, "CORRUPT_BATCH", &[("topic", "orders")]);
    assert_error(error(14), Code::InvalidArgument, "INVALID_TOPIC_NAME", &[("topic", "no/name")]);
    assert!(error(10).is_none() && error(15).is_none());
    assert_eq!(values(&broker.read("orders", 0, 0).await.expect("read")), ["a", "b"]);
}

#[tokio::test]
async fn an_answer_comes_while_the_stream_stays_open() {
    let broker = TestBroker::start().await;
    let (requests, inbound) = mpsc::channel(1);
    let opened = broker.log().produce_stream(ReceiverStream::new(inbound)).await.expect("opened");
    let mut stream = opened.into_inner();
    for id in 0..3 {
        requests.send(request(id, records("orders", 0, &["v"]))).await.expect("sent");
        let answer = soon(stream.message()).await.expect("an answer").expect("not the end");
        assert_eq!(answer.request_id, id);
    }
    drop(requests);
    assert_eq!(soon(stream.message()).await.expect("an end"), None);
}

#[tokio::test]
async fn a_produce_stream_ends_with_the_broker() {
    let broker = TestBroker::start().await;
    let (requests, inbound) = mpsc::channel(1);
    let opened = broker.log().produce_stream(ReceiverStream::new(inbound)).await.expect("opened");
    let mut stream = opened.into_inner();
    requests.send(request(1, records("orders", 0, &["v"]))).await.expect("sent");
    soon(stream.message()).await.expect("an answer").expect("not the end");
    soon(broker.server.shutdown()).await.expect("a clean end");
    assert_failed(soon(stream.message()).await, Code::Unavailable, "SHUTTING_DOWN", &[]);
}

async fn follow(broker: &TestBroker, request: FetchStreamRequest) -> Streaming<FetchStreamResponse> {
    broker.log().fetch_stream(request).await.expect("opened").into_inner()
}

async fn next(stream: &mut Streaming<FetchStreamResponse>) -> Result<PartitionData, Status> {
    let message = soon(stream.message()).await?;
    Ok(message.expect("streams end with a status").data.expect("data"))
}

/// Reads until the next offset of each partition is `ends`, and returns what came by partition.
async fn read_to(
    stream: &mut Streaming<FetchStreamResponse>,
    ends: &BTreeMap<i32, i64>,
) -> BTreeMap<i32, Vec<String>> {
    let mut read: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    let mut reached = BTreeMap::new();
    while reached != *ends {
        let data = next(stream).await.expect("data");
        reached.insert(data.partition, data.next_offset);
        read.entry(data.partition).or_default().extend(values(&data));
    }
    read
}

#[tokio::test]
async fn a_stream_reads_what_is_there_and_follows() {
    let broker = TestBroker::start().await;
    broker.create("orders", 2).await;
    broker.produce(records("orders", 0, &["a", "b"])).await.expect("produced");
    let partitions = vec![from_offset("orders", 0, 1), from_anchor("orders", 1, Anchor::Earliest)];
    let mut stream = follow(&broker, FetchStreamRequest { partitions, ..Default::default() }).await;
    let read = read_to(&mut stream, &[(0, 2), (1, 0)].into()).await;
    assert_eq!(read, [(0, vec!["b".to_owned()]), (1, vec![])].into());

    let mut waiting = Box::pin(next(&mut stream));
    assert_waits(&mut waiting).await;
    broker.produce(records("orders", 1, &["c"])).await.expect("produced");
    let data = waiting.await.expect("data");
    assert_eq!((data.partition, values(&data)), (1, vec!["c".to_owned()]));
    assert_eq!((data.high_watermark, data.next_offset), (1, 1));
    broker.produce(records("orders", 0, &["d"])).await.expect("produced");
    assert_eq!(values(&next(&mut stream).await.expect("data")), ["d"]);
}

#[tokio::test]
async fn a_stream_from_the_latest_offset_sees_only_what_comes() {
    let broker = TestBroker::start().await;
    broker.produce(records("orders", 0, &["old"])).await.expect("produced");
    let partitions = vec![from_anchor("orders", 0, Anchor::Latest)];
    let mut stream = follow(&broker, FetchStreamRequest { partitions, ..Default::default() }).await;
    let first = next(&mut stream).await.expect("where it stands");
    assert_eq!((first.records.len(), first.next_offset, first.high_watermark), (0, 1, 1));
    broker.produce(records("orders", 0, &["new"])).await.expect("produced");
    assert_eq!(values(&next(&mut stream).await.expect("data")), ["new"]);
}

#[tokio::test]
async fn many_partitions_come_whole_and_in_turns() {
    let broker = TestBroker::start().await;
    broker.create("orders", 8).await;
    let value = "x".repeat(20_000);
    let mut ends = BTreeMap::new();
    for partition in 0..8 {
        for _ in 0..5 {
            broker.produce(records("orders", partition, &[value.as_str()])).await.expect("produced");
        }
        ends.insert(partition, 5);
    }
    for format in [FetchFormat::Records, FetchFormat::RecordBatches] {
        let partitions = (0..8).map(|partition| from_offset("orders", partition, 0)).collect();
        let request = FetchStreamRequest { partitions, format: format.into(), max_bytes: 1 };
        let mut stream = follow(&broker, request).await;
        let mut seen: BTreeMap<i32, i64> = BTreeMap::new();
        for _ in 0..40 {
            let data = next(&mut stream).await.expect("data");
            let batches = data.record_batches.concat();
            let records = data.records.len() + record::batches(&batches).flatten().count();
            assert_eq!(records, 1, "one batch a message");
            *seen.entry(data.partition).or_default() += 1;
            let (least, most) = (seen.values().min().copied(), seen.values().max().copied());
            assert!(seen.len() < 8 || most <= least.map(|least| least + 1), "not in turns: {seen:?}");
        }
        assert_eq!(seen, ends);
    }
}

#[tokio::test]
async fn records_that_unpack_to_much_come_in_messages_of_the_asked_size() {
    let broker = TestBroker::start().await;
    let value = "x".repeat(50_000);
    let lines = vec![value.as_str(); 40];
    let batch = batch(&lines, Codec::Zstd);
    assert!(batch.len() < 10_000);
    broker.produce(encoded("orders", 0, batch)).await.expect("produced");
    let partitions = vec![from_offset("orders", 0, 0)];
    let mut stream =
        follow(&broker, FetchStreamRequest { partitions, max_bytes: 200_000, ..Default::default() }).await;
    let mut offset = 0;
    while offset < 40 {
        let data = next(&mut stream).await.expect("data");
        assert!(!data.records.is_empty() && data.records.len() <= 4, "{}", data.records.len());
        assert_eq!(data.records[0].offset, offset);
        offset = data.next_offset;
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_topic_is_deleted() {
    let broker = TestBroker::start().await;
    broker.produce(records("orders", 0, &["a"])).await.expect("produced");
    let partitions = vec![from_offset("orders", 0, 0)];
    let mut stream = follow(&broker, FetchStreamRequest { partitions, ..Default::default() }).await;
    next(&mut stream).await.expect("data");
    let mut waiting = Box::pin(next(&mut stream));
    assert_waits(&mut waiting).await;
    let delete = proto::DeleteTopicRequest { name: "orders".to_owned() };
    broker.admin().delete_topic(delete).await.expect("deleted");
    assert_failed(waiting.await, Code::NotFound, "UNKNOWN_TOPIC", &[("topic", "orders")]);
}

#[tokio::test]
async fn a_partition_that_cannot_be_read_leaves_the_stream_to_the_others() {
    let broker = TestBroker::start().await;
    broker.create("orders", 3).await;
    broker.produce(records("orders", 1, &["a"])).await.expect("produced");
    let partitions =
        vec![from_offset("orders", 0, 7), from_offset("orders", 1, 0), from_offset("orders", 2, -1)];
    let mut stream = follow(&broker, FetchStreamRequest { partitions, ..Default::default() }).await;
    for (partition, offset) in [(0, "7"), (2, "-1")] {
        let data = next(&mut stream).await.expect("a message");
        assert_eq!((data.topic.as_str(), data.partition), ("orders", partition));
        let metadata = [("offset", offset), ("high_watermark", "0")];
        assert_error(data.error.as_ref(), Code::OutOfRange, "OFFSET_OUT_OF_RANGE", &metadata);
    }
    assert_eq!(values(&next(&mut stream).await.expect("data")), ["a"]);
    broker.produce(records("orders", 1, &["b"])).await.expect("produced");
    assert_eq!(values(&next(&mut stream).await.expect("it is followed")), ["b"]);
}

#[tokio::test]
async fn a_partition_that_ends_under_way_is_told_and_the_last_one_ends_the_stream() {
    let broker = TestBroker::start().await;
    for topic in ["invoices", "orders"] {
        broker.produce(records(topic, 0, &["a"])).await.expect("produced");
    }
    let partitions = vec![from_offset("invoices", 0, 0), from_offset("orders", 0, 0)];
    let mut stream = follow(&broker, FetchStreamRequest { partitions, ..Default::default() }).await;
    for _ in 0..2 {
        assert_eq!(values(&next(&mut stream).await.expect("data")), ["a"]);
    }
    let delete = |name: &str| {
        let (mut admin, request) = (broker.admin(), proto::DeleteTopicRequest { name: name.to_owned() });
        async move { admin.delete_topic(request).await.expect("deleted") }
    };
    delete("invoices").await;
    let data = next(&mut stream).await.expect("a message");
    assert_eq!((data.topic.as_str(), data.partition), ("invoices", 0));
    assert_error(data.error.as_ref(), Code::NotFound, "UNKNOWN_TOPIC", &[("topic", "invoices")]);
    broker.produce(records("orders", 0, &["b"])).await.expect("produced");
    assert_eq!(values(&next(&mut stream).await.expect("it is followed")), ["b"]);
    delete("orders").await;
    assert_failed(next(&mut stream).await, Code::NotFound, "UNKNOWN_TOPIC", &[("topic", "orders")]);
}

#[tokio::test]
async fn a_partition_that_does_not_exist_refuses_the_stream() {
    let broker = TestBroker::start().await;
    broker.create("orders", 1).await;
    let partitions = vec![from_offset("orders", 0, 0), from_offset("orders", 1, 0)];
    let opened = broker.log().fetch_stream(FetchStreamRequest { partitions, ..Default::default() }).await;
    assert_failed(opened, Code::NotFound, "UNKNOWN_PARTITION", &[("partition", "1"), ("partitions", "1")]);
}

#[tokio::test]
async fn a_fetch_stream_ends_with_the_broker() {
    let broker = TestBroker::start().await;
    broker.produce(records("orders", 0, &["a"])).await.expect("produced");
    let partitions = vec![from_offset("orders", 0, 0)];
    let mut stream = follow(&broker, FetchStreamRequest { partitions, ..Default::default() }).await;
    next(&mut stream).await.expect("data");
    soon(broker.server.shutdown()).await.expect("a clean end");
    assert_failed(next(&mut stream).await, Code::Unavailable, "SHUTTING_DOWN", &[]);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_let_go() {
    const STALL_MS: u64 = 1_000;
    let broker = TestBroker::start_with(|config| config.grpc.stall_timeout_ms = STALL_MS).await;
    let value = "x".repeat(1_000_000);
    for _ in 0..16 {
        broker.produce(records("orders", 0, &[value.as_str()])).await.expect("produced");
    }
    let partitions = vec![from_offset("orders", 0, 0)];
    let mut stream = follow(&broker, FetchStreamRequest { partitions, ..Default::default() }).await;
    // Standing still is what is tested; there is nothing to wait for but time.
    tokio::time::sleep(Duration::from_millis(3 * STALL_MS)).await;
    let mut read = 0;
    let ending = loop {
        match next(&mut stream).await {
            Ok(data) => read += data.records.len(),
            Err(status) => break status,
        }
    };
    assert!(read < 16, "all came in spite of it");
    assert_failed::<()>(Err(ending), Code::ResourceExhausted, "STREAM_STALLED", &[]);
    // A stall of one reader is no other's business.
    assert_eq!(broker.end("orders", 0).await, 16);
}

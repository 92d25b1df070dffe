//! Idempotent producers and appends with a condition, over the wire.

use bytes::Bytes;
use sagwan::proto::produce_stream_response::Outcome;
use sagwan::proto::{self, ProduceRequest, ProduceStreamRequest, ProducerSequence};
use sagwan::record::{BatchBuilder, BatchOptions, ProducerStamp};
use tokio_stream::StreamExt;
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{TestBroker, assert_error, assert_failed, batch, encoded, records, soon, values};

async fn init(broker: &TestBroker) -> i64 {
    let answer = broker.log().init_producer(proto::InitProducerRequest {}).await.expect("an id").into_inner();
    assert_eq!(answer.producer_epoch, 0);
    answer.producer_id
}

/// Records of a producer.
fn numbered(producer_id: i64, producer_epoch: i32, base_sequence: i32, values: &[&str]) -> ProduceRequest {
    let producer = Some(ProducerSequence { producer_id, producer_epoch, base_sequence });
    ProduceRequest { producer, ..records("orders", 0, values) }
}

/// An encoded batch of a producer.
fn stamped(producer_id: i64, producer_epoch: i16, base_sequence: i32, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for value in values {
        builder.push(1_700_000_000_000, None, Some(value.as_bytes()), []);
    }
    builder.set_producer(ProducerStamp { producer_id, producer_epoch, base_sequence });
    builder.build().expect("a batch").freeze()
}

fn place(answer: &proto::ProduceResponse) -> (i64, i32, bool) {
    let [result] = answer.results.as_slice() else { panic!("{answer:?}") };
    (result.base_offset, result.record_count, result.duplicate)
}

#[tokio::test]
async fn a_batch_that_is_sent_again_is_there_once_also_after_a_restart() {
    let mut broker = TestBroker::start().await;
    let id = init(&broker).await;
    let requests = [
        numbered(id, 0, 0, &["a", "b"]),
        encoded("orders", 0, stamped(id, 0, 2, &["c"])),
        numbered(id, 0, 3, &["d"]),
    ];
    for (request, expected) in requests.iter().zip([(0, 2), (2, 1), (3, 1)]) {
        for duplicate in [false, true] {
            let answer = broker.produce(request.clone()).await.expect("produced");
            assert_eq!(place(&answer), (expected.0, expected.1, duplicate));
        }
    }
    broker = broker.restart().await;
    for (request, expected) in requests.iter().zip([(0, 2), (2, 1), (3, 1)]) {
        let answer = broker.produce(request.clone()).await.expect("known");
        assert_eq!(place(&answer), (expected.0, expected.1, true));
    }
    assert_eq!(values(&broker.read("orders", 0, 0).await.expect("readable")), ["a", "b", "c", "d"]);
    assert!(init(&broker).await > id, "an id is given out once");
}

#[tokio::test]
async fn a_producer_that_was_replaced_stays_fenced_after_a_restart() {
    let mut broker = TestBroker::start().await;
    let id = init(&broker).await;
    broker.produce(numbered(id, 0, 0, &["old"])).await.expect("produced");
    broker.produce(numbered(id, 1, 0, &["new"])).await.expect("its successor begins");
    for _ in 0..2 {
        let zombie = broker.produce(numbered(id, 0, 1, &["zombie"])).await.expect_err("fenced");
        assert_eq!(zombie.get_error_details().error_info().expect("ErrorInfo").reason, "FENCED_PRODUCER");
        broker = broker.restart().await;
    }
    broker.produce(numbered(id, 1, 1, &["newer"])).await.expect("the successor goes on");
    assert_eq!(values(&broker.read("orders", 0, 0).await.expect("readable")), ["old", "new", "newer"]);
}

#[tokio::test]
async fn what_a_producer_may_not_send_is_told_with_what_it_should() {
    let broker = TestBroker::start().await;
    let id = init(&broker).await;
    let text = id.to_string();
    for sequence in 0..7 {
        broker.produce(numbered(id, 1, sequence, &["v"])).await.expect("produced");
    }
    let of = |more: &[(&'static str, &'static str)]| {
        let mut metadata = vec![("topic", "orders"), ("partition", "0"), ("producer_id", text.as_str())];
        metadata.extend(more);
        metadata
    };
    let gap = broker.produce(numbered(id, 1, 9, &["v"])).await;
    let metadata = of(&[("expected_sequence", "7"), ("sequence", "9")]);
    assert_failed(gap, Code::FailedPrecondition, "OUT_OF_ORDER_SEQUENCE", &metadata);
    let old = broker.produce(encoded("orders", 0, stamped(id, 1, 0, &["v"]))).await;
    assert_failed(old, Code::AlreadyExists, "DUPLICATE_SEQUENCE", &of(&[("sequence", "0")]));
    let fenced = broker.produce(numbered(id, 0, 7, &["v"])).await;
    let metadata = of(&[("producer_epoch", "0"), ("current_epoch", "1")]);
    assert_failed(fenced, Code::FailedPrecondition, "FENCED_PRODUCER", &metadata);
    assert_eq!(broker.end("orders", 0).await, 7, "nothing of it was appended");
}

#[tokio::test]
async fn numbers_that_are_no_producers_are_refused() {
    let broker = TestBroker::start().await;
    for (id, epoch, sequence) in [(-1, 0, 0), (0, 0, 0), (1, -1, 0), (1, 32_768, 0), (1, 0, -1)] {
        let texts = [id.to_string(), epoch.to_string(), sequence.to_string()];
        let [id_text, epoch_text, sequence_text] = texts.each_ref().map(String::as_str);
        let metadata =
            [("producer_id", id_text), ("producer_epoch", epoch_text), ("base_sequence", sequence_text)];
        let outcome = broker.produce(numbered(id, epoch, sequence, &["v"])).await;
        assert_failed(outcome, Code::InvalidArgument, "INVALID_PRODUCER", &metadata);
    }
    // The next one to be given out.
    let id = init(&broker).await + 1;
    let text = id.to_string();
    let metadata = [("producer_id", text.as_str()), ("producer_epoch", "0"), ("base_sequence", "3")];
    for request in [numbered(id, 0, 3, &["v"]), encoded("orders", 0, stamped(id, 0, 3, &["v"]))] {
        assert_failed(broker.produce(request).await, Code::InvalidArgument, "INVALID_PRODUCER", &metadata);
    }
    let metadata = [("producer_id", "5"), ("producer_epoch", "-1"), ("base_sequence", "-1")];
    let outcome = broker.produce(encoded("orders", 0, stamped(5, -1, -1, &["v"]))).await;
    assert_failed(outcome, Code::InvalidArgument, "INVALID_PRODUCER", &metadata);
}

#[tokio::test]
async fn a_producer_and_a_condition_need_one_partition_and_one_place() {
    let broker = TestBroker::start().await;
    let twice = ProduceRequest {
        producer: Some(ProducerSequence { producer_id: 1, ..Default::default() }),
        ..encoded("orders", 0, stamped(1, 0, 0, &["v"]))
    };
    let negative = ProduceRequest { expected_offset: Some(-1), ..records("orders", 0, &["v"]) };
    let by_key = ProduceRequest { partition: None, ..numbered(1, 0, 0, &["v"]) };
    let anywhere =
        ProduceRequest { partition: None, expected_offset: Some(0), ..records("orders", 0, &["v"]) };
    let cases =
        [(twice, "producer"), (negative, "expected_offset"), (by_key, "partition"), (anywhere, "partition")];
    for (request, field) in cases {
        let outcome = broker.produce(request).await;
        assert_failed(outcome, Code::InvalidArgument, "INVALID_REQUEST", &[("field", field)]);
    }
    let list = broker.admin().list_topics(proto::ListTopicsRequest::default()).await.expect("listed");
    assert!(list.into_inner().topics.is_empty(), "no topic is created for a request that is refused");
}

#[tokio::test]
async fn an_append_is_done_at_the_expected_offset_or_not_at_all() {
    let broker = TestBroker::start().await;
    let expecting = |offset, request| ProduceRequest { expected_offset: Some(offset), ..request };
    let first = broker.produce(expecting(0, records("orders", 0, &["a"]))).await.expect("the first");
    assert_eq!(place(&first), (0, 1, false));
    for expected in ["0", "2"] {
        let offset = expected.parse().expect("a number");
        let request = expecting(offset, encoded("orders", 0, batch(&["x"], sagwan::record::Codec::None)));
        let metadata =
            [("topic", "orders"), ("partition", "0"), ("expected_offset", expected), ("next_offset", "1")];
        assert_failed(broker.produce(request).await, Code::Aborted, "UNEXPECTED_OFFSET", &metadata);
    }
    let id = init(&broker).await;
    for duplicate in [false, true] {
        let answer = broker.produce(expecting(1, numbered(id, 0, 0, &["b"]))).await.expect("safe to repeat");
        assert_eq!(place(&answer), (1, 1, duplicate));
    }
    assert_eq!(values(&broker.read("orders", 0, 0).await.expect("readable")), ["a", "b"]);
}

#[tokio::test]
async fn on_a_stream_each_batch_is_judged_after_those_before_it() {
    let broker = TestBroker::start().await;
    broker.create("orders", 1).await;
    let id = init(&broker).await;
    let sequences = [0, 1, 1, 3, 2];
    let requests = (1..).zip(sequences).map(move |(request_id, sequence)| ProduceStreamRequest {
        request_id,
        request: Some(numbered(id, 0, sequence, &["v"])),
    });
    let answers = broker.log().produce_stream(tokio_stream::iter(requests)).await.expect("a stream");
    let mut answers: Vec<_> =
        soon(answers.into_inner().map(|answer| answer.expect("an answer")).collect::<Vec<_>>()).await;
    answers.sort_by_key(|answer| answer.request_id);
    let outcomes: Vec<_> = answers.into_iter().map(|answer| answer.outcome.expect("an outcome")).collect();
    let at = |i: usize| match &outcomes[i] {
        Outcome::Response(response) => place(response),
        Outcome::Error(error) => panic!("{error:?}"),
    };
    assert_eq!([at(0), at(1), at(2), at(4)], [(0, 1, false), (1, 1, false), (1, 1, true), (2, 1, false)]);
    let Outcome::Error(error) = &outcomes[3] else { panic!("a gap was appended") };
    let metadata = [("expected_sequence", "2"), ("sequence", "3")];
    assert_error(Some(error), Code::FailedPrecondition, "OUT_OF_ORDER_SEQUENCE", &metadata);
}

#[tokio::test]
async fn a_topic_is_described_into_being_only_if_asked_for_and_allowed() {
    let describe =
        |allow_auto_create| proto::DescribeTopicRequest { name: "orders".to_owned(), allow_auto_create };
    let broker = TestBroker::start_with(|config| config.broker.default_partitions = 3).await;
    let unknown = [("topic", "orders")];
    let outcome = broker.admin().describe_topic(describe(false)).await;
    assert_failed(outcome, Code::NotFound, "UNKNOWN_TOPIC", &unknown);
    let answer = broker.admin().describe_topic(describe(true)).await.expect("created").into_inner();
    assert_eq!(answer.topic.expect("a topic").partitions.len(), 3);
    broker.admin().describe_topic(describe(true)).await.expect("there already");
    let broker = TestBroker::start_with(|config| config.broker.auto_create_topics = false).await;
    let outcome = broker.admin().describe_topic(describe(true)).await;
    assert_failed(outcome, Code::NotFound, "UNKNOWN_TOPIC", &unknown);
}

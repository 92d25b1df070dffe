//! What a client can get wrong: each is a typed error that names the thing, and nothing has changed.

use bytes::{Bytes, BytesMut};
use sagwan::proto::{
    self, Anchor, CreateTopicRequest, FetchFormat, FetchPartition, FetchRequest, FetchStreamRequest,
    ListOffsetsPartition, ListOffsetsRequest, ProduceRequest,
};
use sagwan::record::Codec;
use tonic::codegen::http;
use tonic::{Code, Status};

use crate::harness::{
    TestBroker, assert_error, assert_failed, batch, encoded, fetch, from_anchor, from_offset, record,
    records, soon,
};

#[tokio::test]
async fn an_unknown_topic_is_named() {
    let broker = TestBroker::start_with(|config| config.broker.auto_create_topics = false).await;
    let unknown = [("topic", "nowhere")];
    let outcome = broker.produce(records("nowhere", 0, &["v"])).await;
    assert_failed(outcome, Code::NotFound, "UNKNOWN_TOPIC", &unknown);
    assert_failed(broker.read("nowhere", 0, 0).await, Code::NotFound, "UNKNOWN_TOPIC", &unknown);
    let describe = proto::DescribeTopicRequest { name: "nowhere".to_owned(), ..Default::default() };
    let outcome = broker.admin().describe_topic(describe).await;
    assert_failed(outcome, Code::NotFound, "UNKNOWN_TOPIC", &unknown);
    let delete = proto::DeleteTopicRequest { name: "nowhere".to_owned() };
    assert_failed(broker.admin().delete_topic(delete).await, Code::NotFound, "UNKNOWN_TOPIC", &unknown);
    let list = broker.admin().list_topics(proto::ListTopicsRequest::default()).await.expect("listed");
    assert!(list.into_inner().topics.is_empty());
}

#[tokio::test]
async fn a_partition_that_is_not_there_is_answered_with_how_many_there_are() {
    let broker = TestBroker::start().await;
    broker.create("orders", 3).await;
    for partition in [3, -1, i32::MIN, i32::MAX] {
        let text = partition.to_string();
        let metadata = [("topic", "orders"), ("partition", text.as_str()), ("partitions", "3")];
        let refused = |code| (code, "UNKNOWN_PARTITION");
        let (code, reason) = refused(Code::NotFound);
        assert_failed(broker.produce(records("orders", partition, &["v"])).await, code, reason, &metadata);
        let request = encoded("orders", partition, batch(&["v"], Codec::None));
        assert_failed(broker.produce(request).await, code, reason, &metadata);
        assert_failed(broker.read("orders", partition, 0).await, code, reason, &metadata);
        let partitions = vec![ListOffsetsPartition { topic: "orders".to_owned(), partition, position: None }];
        let outcome = broker.log().list_offsets(ListOffsetsRequest { partitions }).await;
        assert_failed(outcome, code, reason, &metadata);
    }
}

#[tokio::test]
async fn an_offset_out_of_range_is_answered_with_the_range() {
    let broker = TestBroker::start().await;
    broker.produce(records("orders", 0, &["a", "b"])).await.expect("produced");
    for offset in [3, -1, i64::MAX, i64::MIN] {
        let text = offset.to_string();
        let metadata = [
            ("topic", "orders"),
            ("partition", "0"),
            ("offset", text.as_str()),
            ("log_start_offset", "0"),
            ("high_watermark", "2"),
        ];
        let (code, reason) = (Code::OutOfRange, "OFFSET_OUT_OF_RANGE");
        assert_failed(broker.read("orders", 0, offset).await, code, reason, &metadata);
        let request =
            FetchStreamRequest { partitions: vec![from_offset("orders", 0, offset)], ..Default::default() };
        assert_failed(broker.log().fetch_stream(request).await, code, reason, &metadata);
    }
    assert!(broker.read("orders", 0, 2).await.expect("the end is in range").records.is_empty());
}

#[tokio::test]
async fn an_invalid_topic_name_is_refused_everywhere() {
    let broker = TestBroker::start().await;
    for name in ["", ".", "..", "a/b", "a b", "é"] {
        let metadata = [("topic", name)];
        let (code, reason) = (Code::InvalidArgument, "INVALID_TOPIC_NAME");
        let create = CreateTopicRequest { name: name.to_owned(), ..Default::default() };
        assert_failed(broker.admin().create_topic(create).await, code, reason, &metadata);
        assert_failed(broker.produce(records(name, 0, &["v"])).await, code, reason, &metadata);
        assert_failed(broker.read(name, 0, 0).await, code, reason, &metadata);
    }
    let long = "x".repeat(250);
    let outcome = broker.produce(records(&long, 0, &["v"])).await;
    assert_failed(outcome, Code::InvalidArgument, "INVALID_TOPIC_NAME", &[]);
}

#[tokio::test]
async fn a_damaged_batch_is_refused_and_leaves_nothing() {
    let broker = TestBroker::start().await;
    broker.create("orders", 1).await;
    let good = batch(&["a", "b"], Codec::None);
    let changed = |at: usize, byte: u8| {
        let mut bytes = BytesMut::from(good.as_ref());
        bytes[at] = byte;
        bytes.freeze()
    };
    let damaged = [
        ("its magic", changed(16, 1)),
        ("its CRC", changed(17, good[17] ^ 1)),
        ("a byte of a record", changed(good.len() - 1, good[good.len() - 1] ^ 1)),
        ("its length, too long", changed(11, good[11] + 1)),
        ("its length, negative", changed(8, 0xff)),
        ("its record count", changed(60, 3)),
        ("the end is missing", good.slice(..good.len() - 1)),
        ("too much after it", Bytes::from([good.as_ref(), b"x"].concat())),
        ("two of them", Bytes::from([good.as_ref(), good.as_ref()].concat())),
        ("empty", Bytes::new()),
        ("zeros", Bytes::from(vec![0; 100])),
    ];
    for (what, bytes) in damaged {
        println!("{what}");
        let outcome = broker.produce(encoded("orders", 0, bytes)).await;
        let metadata = [("topic", "orders"), ("partition", "0")];
        assert_failed(outcome, Code::InvalidArgument, "CORRUPT_BATCH", &metadata);
    }
    assert_eq!(broker.end("orders", 0).await, 0);
    broker.produce(encoded("orders", 0, good)).await.expect("the undamaged one");
    assert_eq!(broker.end("orders", 0).await, 2);
}

#[tokio::test]
async fn a_batch_for_brokers_only_is_refused() {
    let broker = TestBroker::start().await;
    let control = {
        let mut bytes = BytesMut::from(batch(&["a"], Codec::None).as_ref());
        bytes[22] |= 1 << 5;
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes.freeze()
    };
    let outcome = broker.produce(encoded("orders", 0, control)).await;
    assert_failed(
        outcome,
        Code::InvalidArgument,
        "INVALID_RECORD",
        &[("topic", "orders"), ("partition", "0")],
    );
}

#[tokio::test]
async fn a_batch_of_transactions_names_the_missing_feature() {
    let broker = TestBroker::start().await;
    let transactional = {
        let mut bytes = BytesMut::from(batch(&["a"], Codec::None).as_ref());
        bytes[22] |= 1 << 4;
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes.freeze()
    };
    let outcome = broker.produce(encoded("orders", 0, transactional)).await;
    assert_failed(outcome, Code::Unimplemented, "UNSUPPORTED_FEATURE", &[("feature", "transactions")]);
}

#[tokio::test]
async fn a_batch_larger_than_the_topic_allows_is_told_both_sizes() {
    let broker = TestBroker::start().await;
    let create = CreateTopicRequest {
        name: "small".to_owned(),
        config: [("max_message_bytes".to_owned(), "2000".to_owned())].into(),
        ..Default::default()
    };
    broker.admin().create_topic(create).await.expect("created");
    let overhead = batch(&["x".repeat(1_000).as_str()], Codec::None).len() - 1_000;
    let sized = |bytes: usize| {
        let batch = batch(&["x".repeat(bytes - overhead).as_str()], Codec::None);
        assert_eq!(batch.len(), bytes);
        encoded("small", 0, batch)
    };
    broker.produce(sized(1_999)).await.expect("one less");
    broker.produce(sized(2_000)).await.expect("just as large");
    let metadata = [("size_bytes", "2001"), ("max_message_bytes", "2000")];
    let outcome = broker.produce(sized(2_001)).await;
    assert_failed(outcome, Code::InvalidArgument, "MESSAGE_TOO_LARGE", &metadata);
    let outcome = broker.produce(records("small", 0, &["x".repeat(2_000).as_str()])).await;
    assert_failed(outcome, Code::InvalidArgument, "MESSAGE_TOO_LARGE", &[("max_message_bytes", "2000")]);
    assert_eq!(broker.end("small", 0).await, 2);
}

/// Sends only the five bytes before a message: whether it is refused can depend on nothing else.
#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_on_its_declared_length() {
    let broker = TestBroker::start().await;
    let limit = sagwan::config::GrpcConfig::default().max_message_bytes as u32;
    let stream = tokio::net::TcpStream::connect(broker.server.grpc_addr()).await.expect("connected");
    let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let driver = tokio::spawn(connection);
    for (declared, refused) in [(u32::MAX, true), (limit + 1, true), (limit, false)] {
        let mut client = client.clone().ready().await.expect("ready");
        let request =
            http::Request::post(format!("http://{}/sagwan.v1.LogService/Produce", broker.server.grpc_addr()))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(())
                .expect("a request");
        let (answer, mut body) = client.send_request(request, false).expect("sent");
        let prefix = [&[0][..], &declared.to_be_bytes()].concat();
        body.send_data(Bytes::from(prefix), !refused).expect("sent");
        let answer = soon(answer).await.expect("an answer");
        let status = Status::from_header_map(answer.headers()).expect("a status");
        // One within the limit is read on, and this one ends too early.
        let (reason, metadata) = if refused {
            ("MESSAGE_TOO_LARGE", &[][..])
        } else {
            ("INVALID_REQUEST", &[("field", "message")][..])
        };
        assert_failed::<()>(Err(status), Code::InvalidArgument, reason, metadata);
    }
    driver.abort();
}

/// Not protobuf, in a single request and within a stream of them.
#[tokio::test]
async fn a_message_that_is_not_protobuf_is_an_invalid_request() {
    let broker = TestBroker::start().await;
    let stream = tokio::net::TcpStream::connect(broker.server.grpc_addr()).await.expect("connected");
    let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let driver = tokio::spawn(connection);
    for method in ["Produce", "ProduceStream", "FetchStream"] {
        let mut client = client.clone().ready().await.expect("ready");
        let uri = format!("http://{}/sagwan.v1.LogService/{method}", broker.server.grpc_addr());
        let request = http::Request::post(uri).header("content-type", "application/grpc").body(());
        let (answer, mut body) = client.send_request(request.expect("a request"), false).expect("sent");
        body.send_data(Bytes::from_static(&[0, 0, 0, 0, 3, 0xff, 0xff, 0xff]), true).expect("sent");
        let (head, mut body) = soon(answer).await.expect("an answer").into_parts();
        let status = if let Some(status) = Status::from_header_map(&head.headers) {
            status
        } else {
            let trailers = soon(body.trailers()).await.expect("trailers").expect("trailers");
            Status::from_header_map(&trailers).expect("a status")
        };
        let (code, metadata) = (Code::InvalidArgument, [("field", "message")]);
        assert_failed::<()>(Err(status), code, "INVALID_REQUEST", &metadata);
    }
    driver.abort();
}

#[tokio::test]
async fn a_number_of_partitions_that_makes_no_sense_is_told_the_range() {
    let broker = TestBroker::start().await;
    for partitions in [-1, 0, i32::MIN, i32::MAX] {
        let create = CreateTopicRequest {
            name: "orders".to_owned(),
            partitions: Some(partitions),
            ..Default::default()
        };
        let text = partitions.to_string();
        let metadata = [("partitions", text.as_str()), ("min", "1"), ("max", "10000")];
        let outcome = broker.admin().create_topic(create).await;
        assert_failed(outcome, Code::InvalidArgument, "INVALID_PARTITIONS", &metadata);
    }
    let list = broker.admin().list_topics(proto::ListTopicsRequest::default()).await.expect("listed");
    assert!(list.into_inner().topics.is_empty());
}

#[tokio::test]
async fn a_produce_has_either_records_or_a_batch() {
    let broker = TestBroker::start().await;
    let neither = ProduceRequest { topic: "orders".to_owned(), partition: Some(0), ..Default::default() };
    let both =
        ProduceRequest { records: vec![record("v")], ..encoded("orders", 0, batch(&["v"], Codec::None)) };
    let nowhere = ProduceRequest { partition: None, ..encoded("orders", 0, batch(&["v"], Codec::None)) };
    for (request, field) in [(neither, "records"), (both, "record_batch"), (nowhere, "partition")] {
        let outcome = broker.produce(request).await;
        assert_failed(outcome, Code::InvalidArgument, "INVALID_REQUEST", &[("field", field)]);
    }
    let list = broker.admin().list_topics(proto::ListTopicsRequest::default()).await.expect("listed");
    assert!(list.into_inner().topics.is_empty(), "no topic is created for a request that is refused");
}

#[tokio::test]
async fn numbers_and_names_out_of_place_are_refused_by_field() {
    let broker = TestBroker::start().await;
    broker.create("orders", 1).await;
    let good = || fetch(vec![from_offset("orders", 0, 0)], FetchFormat::Records);
    let bad_anchor = FetchPartition {
        position: Some(proto::Position { at: Some(proto::position::At::Anchor(77)) }),
        ..from_anchor("orders", 0, Anchor::Latest)
    };
    let fetches = [
        (FetchRequest { min_bytes: -1, ..good() }, "min_bytes"),
        (FetchRequest { max_bytes: -1, ..good() }, "max_bytes"),
        (FetchRequest { max_wait_ms: -1, ..good() }, "max_wait_ms"),
        (FetchRequest { format: 9, ..good() }, "format"),
        (FetchRequest { partitions: Vec::new(), ..good() }, "partitions"),
        (FetchRequest { partitions: vec![bad_anchor], ..good() }, "position.anchor"),
    ];
    for (request, field) in fetches {
        let outcome = broker.fetch(request).await;
        assert_failed(outcome, Code::InvalidArgument, "INVALID_REQUEST", &[("field", field)]);
    }
    let twice = FetchStreamRequest {
        partitions: vec![from_offset("orders", 0, 0), from_offset("orders", 0, 0)],
        ..Default::default()
    };
    let outcome = broker.log().fetch_stream(twice).await;
    assert_failed(outcome, Code::InvalidArgument, "INVALID_REQUEST", &[("field", "partitions")]);
    let produce = ProduceRequest { compression: 9, ..records("orders", 0, &["v"]) };
    let outcome = broker.produce(produce).await;
    assert_failed(outcome, Code::InvalidArgument, "INVALID_REQUEST", &[("field", "compression")]);
    let outcome = broker.log().list_offsets(ListOffsetsRequest::default()).await;
    assert_failed(outcome, Code::InvalidArgument, "INVALID_REQUEST", &[("field", "partitions")]);
}

#[tokio::test]
async fn one_bad_partition_does_not_spoil_the_others() {
    let broker = TestBroker::start().await;
    broker.produce(records("orders", 0, &["a"])).await.expect("produced");
    let partitions =
        vec![from_offset("orders", 7, 0), from_offset("orders", 0, 0), from_offset("no/name", 0, 0)];
    // The wait is for those who made no mistake; here nobody waits.
    let request = FetchRequest {
        min_bytes: 1 << 20,
        max_wait_ms: 300_000,
        ..fetch(partitions.clone(), FetchFormat::Records)
    };
    let answer = soon(broker.fetch(request)).await.expect("an answer");
    let [unknown, good, invalid] = answer.partitions.as_slice() else { panic!("{answer:?}") };
    assert_error(unknown.error.as_ref(), Code::NotFound, "UNKNOWN_PARTITION", &[("partitions", "1")]);
    assert_eq!((unknown.topic.as_str(), unknown.partition), ("orders", 7));
    assert_eq!((good.records.len(), good.error.as_ref()), (1, None));
    assert_error(
        invalid.error.as_ref(),
        Code::InvalidArgument,
        "INVALID_TOPIC_NAME",
        &[("topic", "no/name")],
    );

    let partitions = partitions
        .into_iter()
        .map(|asked| ListOffsetsPartition { topic: asked.topic, partition: asked.partition, position: None })
        .collect();
    let answer = broker.log().list_offsets(ListOffsetsRequest { partitions }).await.expect("an answer");
    let offsets = answer.into_inner().offsets;
    assert_error(offsets[0].error.as_ref(), Code::NotFound, "UNKNOWN_PARTITION", &[]);
    assert_eq!(offsets[1].error, None);
}

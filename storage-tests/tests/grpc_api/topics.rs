//! Topics over the API, and what the broker says of itself.

use std::collections::BTreeMap;

use sagwan::proto::{
    self, CreateTopicRequest, DeleteRecordsPartition, DeleteRecordsRequest, PartitionState,
    UpdateTopicRequest,
};
use tonic::Code;

use crate::harness::{TestBroker, assert_error, assert_failed, records, values};

fn settings(pairs: &[(&str, &str)]) -> std::collections::HashMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

async fn describe(broker: &TestBroker, name: &str) -> proto::TopicDescription {
    let request = proto::DescribeTopicRequest { name: name.to_owned(), ..Default::default() };
    let answer = broker.admin().describe_topic(request).await.expect("described");
    answer.into_inner().topic.expect("a topic")
}

fn setting(topic: &proto::TopicDescription, name: &str) -> (String, bool) {
    let entry = topic.config.iter().find(|entry| entry.name == name).expect(name);
    assert!(!entry.documentation.is_empty());
    (entry.value.clone(), entry.is_default)
}

#[tokio::test]
async fn a_topic_is_created_as_asked_and_described_so() {
    let broker = TestBroker::start().await;
    let request = CreateTopicRequest {
        name: "orders".to_owned(),
        partitions: Some(2),
        config: settings(&[("durability", "os")]),
        validate_only: false,
    };
    let only_checked = CreateTopicRequest { validate_only: true, ..request.clone() };
    broker.admin().create_topic(only_checked).await.expect("valid");
    let list = || async {
        let answer = broker.admin().list_topics(proto::ListTopicsRequest::default()).await.expect("listed");
        answer.into_inner().topics
    };
    assert!(list().await.is_empty(), "only checked");
    let created = broker.admin().create_topic(request.clone()).await.expect("created").into_inner();
    let again = broker.admin().create_topic(request).await;
    assert_failed(again, Code::AlreadyExists, "TOPIC_ALREADY_EXISTS", &[("topic", "orders")]);

    let topic = describe(&broker, "orders").await;
    assert_eq!(created.topic.map(|topic| topic.id), Some(topic.id.clone()));
    assert_eq!(setting(&topic, "durability"), ("os".to_owned(), false));
    assert!(setting(&topic, "segment_bytes").1);
    assert!(!topic.internal);
    let partitions: Vec<_> =
        topic.partitions.iter().map(|p| (p.partition, p.state(), p.high_watermark)).collect();
    assert_eq!(partitions, [(0, PartitionState::Online, 0), (1, PartitionState::Online, 0)]);
    assert_eq!(list().await.len(), 1);
}

#[tokio::test]
async fn a_setting_that_cannot_be_is_refused_and_one_of_the_future_too() {
    let broker = TestBroker::start().await;
    let create = |name: &str, value: &str| {
        let request = CreateTopicRequest {
            name: "orders".to_owned(),
            config: settings(&[(name, value)]),
            ..Default::default()
        };
        let mut admin = broker.admin();
        async move { admin.create_topic(request).await }
    };
    for (name, value) in [("durability", "maybe"), ("segment_bytes", "-1"), ("no_such_setting", "1")] {
        let metadata = [("name", name), ("value", value)];
        assert_failed(create(name, value).await, Code::InvalidArgument, "INVALID_CONFIG", &metadata);
    }
    let metadata = [("name", "cleanup_policy"), ("value", "compact")];
    let outcome = create("cleanup_policy", "compact").await;
    assert_failed(outcome, Code::FailedPrecondition, "UNSUPPORTED_CONFIG", &metadata);
}

#[tokio::test]
async fn an_update_is_done_whole_or_not_at_all() {
    let broker = TestBroker::start().await;
    broker.create("orders", 2).await;
    let update = |set: &[(&str, &str)], reset: &[&str], partitions| {
        let request = UpdateTopicRequest {
            name: "orders".to_owned(),
            set: settings(set),
            reset: reset.iter().map(|name| (*name).to_owned()).collect(),
            partitions,
        };
        let mut admin = broker.admin();
        async move { admin.update_topic(request).await }
    };
    update(&[("durability", "os")], &[], Some(3)).await.expect("updated");
    let topic = describe(&broker, "orders").await;
    assert_eq!((setting(&topic, "durability").0.as_str(), topic.partitions.len()), ("os", 3));

    let fewer = update(&[("durability", "fsync")], &[], Some(1)).await;
    assert_failed(fewer, Code::InvalidArgument, "INVALID_PARTITIONS", &[("partitions", "1")]);
    assert_eq!(setting(&describe(&broker, "orders").await, "durability").0, "os");

    update(&[], &["durability"], None).await.expect("updated");
    assert_eq!(setting(&describe(&broker, "orders").await, "durability"), ("fsync".to_owned(), true));
}

#[tokio::test]
async fn a_deleted_topic_created_again_is_another_one() {
    let broker = TestBroker::start().await;
    broker.produce(records("orders", 0, &["old"])).await.expect("produced");
    let before = describe(&broker, "orders").await;
    let delete = proto::DeleteTopicRequest { name: "orders".to_owned() };
    broker.admin().delete_topic(delete).await.expect("deleted");
    broker.create("orders", 1).await;
    assert_ne!(describe(&broker, "orders").await.id, before.id);
    assert!(broker.read("orders", 0, 0).await.expect("read").records.is_empty());
}

#[tokio::test]
async fn deleted_records_are_out_of_range() {
    let broker = TestBroker::start().await;
    broker.create("orders", 2).await;
    broker.produce(records("orders", 0, &["a", "b", "c"])).await.expect("produced");
    let delete = |partitions: &[(i32, i64)]| {
        let partitions = partitions
            .iter()
            .map(|(partition, before_offset)| DeleteRecordsPartition {
                partition: *partition,
                before_offset: *before_offset,
            })
            .collect();
        let request = DeleteRecordsRequest { topic: "orders".to_owned(), partitions };
        let mut admin = broker.admin();
        async move { admin.delete_records(request).await.map(|answer| answer.into_inner().partitions) }
    };
    let deleted = delete(&[(0, 2), (1, 5)]).await.expect("one of them");
    assert_eq!((deleted[0].log_start_offset, deleted[0].error.as_ref()), (2, None));
    let metadata = [("partition", "1"), ("offset", "5"), ("high_watermark", "0")];
    assert_error(deleted[1].error.as_ref(), Code::OutOfRange, "OFFSET_OUT_OF_RANGE", &metadata);

    let gone = broker.read("orders", 0, 1).await;
    assert_failed(gone, Code::OutOfRange, "OFFSET_OUT_OF_RANGE", &[("log_start_offset", "2")]);
    assert_eq!(values(&broker.read("orders", 0, 2).await.expect("read")), ["c"]);
    assert_eq!(delete(&[(0, -1)]).await.expect("deleted")[0].log_start_offset, 3);
    assert_failed(delete(&[(0, 9)]).await, Code::OutOfRange, "OFFSET_OUT_OF_RANGE", &[("offset", "9")]);
    assert_failed(delete(&[]).await, Code::InvalidArgument, "INVALID_REQUEST", &[("field", "partitions")]);
}

#[tokio::test]
async fn the_broker_counts_what_it_does() {
    let broker = TestBroker::start().await;
    for _ in 0..3 {
        broker.produce(records("orders", 0, &["a"])).await.expect("produced");
    }
    broker.read("orders", 0, 0).await.expect("read");
    let answer = broker.admin().describe_broker(proto::DescribeBrokerRequest {}).await.expect("described");
    let described = answer.into_inner();
    assert_eq!(described.version, env!("CARGO_PKG_VERSION"));
    assert!(!described.cluster_id.is_empty());
    assert_eq!((described.topics, described.partitions), (1, 1));
    let counters = described.counters.expect("counters");
    assert_eq!(counters.appended_batches, 3);
    assert!(counters.appended_bytes > 0 && counters.tail_cache_bytes > 0, "{counters:?}");
    assert!((1..=3).contains(&counters.syncs), "{counters:?}");
    assert_eq!(counters.sync_group_appends_total, 3);
    assert!(counters.tail_cache_reads + counters.segment_reads > 0, "{counters:?}");
    assert_eq!((counters.queue_bytes, counters.fenced_partitions), (0, 0));
}

#[tokio::test]
async fn producing_creates_a_topic_with_the_defaults() {
    let broker = TestBroker::start_with(|config| config.broker.default_partitions = 3).await;
    broker.produce(records("orders", 2, &["a"])).await.expect("produced");
    let states: BTreeMap<_, _> = describe(&broker, "orders")
        .await
        .partitions
        .iter()
        .map(|p| (p.partition, p.high_watermark))
        .collect();
    assert_eq!(states, [(0, 0), (1, 0), (2, 1)].into());
}

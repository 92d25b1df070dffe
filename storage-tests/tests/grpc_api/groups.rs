//! Committed offsets over the API.

use sagwan::proto::{
    CommitOffsetsRequest, FetchOffsetsRequest, ListGroupsRequest, OffsetCommit, TopicPartition,
};
use tonic::Code;

use crate::harness::{TestBroker, assert_failed, records};

fn commit(group: &str, offsets: &[(&str, i32, i64)]) -> CommitOffsetsRequest {
    let offsets = offsets.iter().map(|(topic, partition, offset)| OffsetCommit {
        topic: (*topic).to_owned(),
        partition: *partition,
        offset: *offset,
        leader_epoch: Some(0),
        metadata: format!("at {offset}"),
    });
    CommitOffsetsRequest { group: group.to_owned(), offsets: offsets.collect() }
}

async fn committed(broker: &TestBroker, group: &str) -> Vec<(String, i32, i64, String)> {
    let request = FetchOffsetsRequest { group: group.to_owned(), partitions: Vec::new() };
    let answer = broker.groups().fetch_offsets(request).await.expect("fetched").into_inner();
    assert!(answer.offsets.iter().all(|offset| offset.commit_timestamp_ms > 0));
    answer
        .offsets
        .into_iter()
        .map(|offset| (offset.topic, offset.partition, offset.offset, offset.metadata))
        .collect()
}

fn expected(offsets: &[(&str, i32, i64)]) -> Vec<(String, i32, i64, String)> {
    offsets
        .iter()
        .map(|(topic, partition, offset)| ((*topic).to_owned(), *partition, *offset, format!("at {offset}")))
        .collect()
}

#[tokio::test]
async fn what_is_committed_is_told_and_outlives_a_restart() {
    let broker = TestBroker::start().await;
    broker.create("orders", 3).await;
    broker.create("bills", 1).await;
    for offsets in [&[("orders", 2, 5), ("orders", 0, 1)][..], &[("bills", 0, 9), ("orders", 0, 2)]] {
        broker.groups().commit_offsets(commit("billing", offsets)).await.expect("committed");
    }
    broker.groups().commit_offsets(commit("other", &[("orders", 1, 7)])).await.expect("committed");
    let all = expected(&[("bills", 0, 9), ("orders", 0, 2), ("orders", 2, 5)]);
    assert_eq!(committed(&broker, "billing").await, all);

    let broker = broker.restart().await;
    assert_eq!(committed(&broker, "billing").await, all);
    assert_eq!(committed(&broker, "nobody").await, []);
    let partition = |topic: &str, partition| TopicPartition { topic: topic.to_owned(), partition };
    let request = FetchOffsetsRequest {
        group: "billing".to_owned(),
        partitions: vec![partition("orders", 2), partition("orders", 1)],
    };
    let answer = broker.groups().fetch_offsets(request).await.expect("fetched").into_inner();
    let [offset] = answer.offsets.as_slice() else { panic!("{answer:?}") };
    assert_eq!((offset.partition, offset.offset, offset.leader_epoch), (2, 5, Some(0)));

    let groups = broker.groups().list_groups(ListGroupsRequest {}).await.expect("listed").into_inner().groups;
    let groups: Vec<_> = groups.into_iter().map(|group| (group.group, group.partitions)).collect();
    assert_eq!(groups, [("billing".to_owned(), 3), ("other".to_owned(), 1)]);
}

#[tokio::test]
async fn a_commit_that_makes_no_sense_changes_nothing() {
    let broker = TestBroker::start().await;
    broker.create("orders", 1).await;
    let long_metadata = {
        let mut request = commit("billing", &[("orders", 0, 1)]);
        request.offsets[0].metadata = "x".repeat(4_097);
        request
    };
    let long_name = "g".repeat(256);
    let cases = [
        (commit("", &[("orders", 0, 1)]), Code::InvalidArgument, "INVALID_GROUP", ("group", "")),
        (commit("a\nb", &[("orders", 0, 1)]), Code::InvalidArgument, "INVALID_GROUP", ("group", "a\nb")),
        (
            commit(&long_name, &[("orders", 0, 1)]),
            Code::InvalidArgument,
            "INVALID_GROUP",
            ("group", &long_name[1..]),
        ),
        (commit("billing", &[]), Code::InvalidArgument, "INVALID_REQUEST", ("field", "offsets")),
        (
            commit("billing", &[("orders", 0, -1)]),
            Code::InvalidArgument,
            "INVALID_REQUEST",
            ("field", "offsets.offset"),
        ),
        (long_metadata, Code::InvalidArgument, "INVALID_REQUEST", ("field", "offsets.metadata")),
        (
            commit("billing", &[("orders", 0, 1), ("nowhere", 0, 1)]),
            Code::NotFound,
            "UNKNOWN_TOPIC",
            ("topic", "nowhere"),
        ),
        (
            commit("billing", &[("orders", 0, 1), ("orders", 1, 1)]),
            Code::NotFound,
            "UNKNOWN_PARTITION",
            ("partitions", "1"),
        ),
        (commit("billing", &[("a b", 0, 1)]), Code::InvalidArgument, "INVALID_TOPIC_NAME", ("topic", "a b")),
    ];
    for (request, code, reason, metadata) in cases {
        let outcome = broker.groups().commit_offsets(request).await;
        assert_failed(outcome, code, reason, &[metadata]);
    }
    assert_eq!(committed(&broker, "billing").await, []);
}

#[tokio::test]
async fn the_offsets_topic_can_be_read_and_nothing_else() {
    let broker = TestBroker::start().await;
    broker.create("orders", 1).await;
    broker.groups().commit_offsets(commit("billing", &[("orders", 0, 1)])).await.expect("committed");
    let internal = [("topic", "__consumer_offsets")];
    let (code, reason) = (Code::FailedPrecondition, "INTERNAL_TOPIC");
    let outcome = broker.produce(records("__consumer_offsets", 0, &["forged"])).await;
    assert_failed(outcome, code, reason, &internal);
    let delete = sagwan::proto::DeleteTopicRequest { name: "__consumer_offsets".to_owned() };
    assert_failed(broker.admin().delete_topic(delete).await, code, reason, &internal);

    let list = |include_internal| {
        let mut admin = broker.admin();
        async move {
            let request = sagwan::proto::ListTopicsRequest { include_internal };
            admin.list_topics(request).await.expect("listed").into_inner().topics
        }
    };
    assert_eq!(list(false).await.len(), 1);
    let all = list(true).await;
    let offsets = all.iter().find(|topic| topic.internal).expect("the internal topic");
    let mut found = 0;
    for partition in 0..offsets.partitions {
        found += broker.read(&offsets.name, partition, 0).await.expect("read").records.len();
    }
    assert_eq!(found, 1);
}

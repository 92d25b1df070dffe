//! Partitions whose end is lost, and an operator who lets them go on.

use std::path::{Path, PathBuf};

use sagwan::proto::{
    self, AcceptLossRequest, AcceptLossResponse, CommitOffsetsRequest, FetchFormat, FetchOffsetsRequest,
    FetchOffsetsResponse, FetchStreamRequest, OffsetCommit, PartitionState, TopicPartition,
};
use tonic::{Code, Status};

use crate::harness::{TestBroker, assert_error, assert_failed, from_offset, records, soon, values};

const OFFSETS: &str = "__consumer_offsets";

async fn accept(broker: &TestBroker, topic: &str, partition: i32) -> Result<AcceptLossResponse, Status> {
    let request = AcceptLossRequest { topic: topic.to_owned(), partition };
    broker.admin().accept_loss(request).await.map(tonic::Response::into_inner)
}

async fn commit(broker: &TestBroker, offset: i64) -> Result<(), Status> {
    let offsets = vec![OffsetCommit { topic: "orders".to_owned(), offset, ..Default::default() }];
    let request = CommitOffsetsRequest { group: "billing".to_owned(), offsets };
    broker.groups().commit_offsets(request).await.map(drop)
}

async fn committed(broker: &TestBroker, by_name: bool) -> Result<FetchOffsetsResponse, Status> {
    let orders = TopicPartition { topic: "orders".to_owned(), partition: 0 };
    let partitions = if by_name { vec![orders] } else { Vec::new() };
    let request = FetchOffsetsRequest { group: "billing".to_owned(), partitions };
    broker.groups().fetch_offsets(request).await.map(tonic::Response::into_inner)
}

async fn describe(broker: &TestBroker, topic: &str, partition: usize) -> proto::PartitionDescription {
    let request = proto::DescribeTopicRequest { name: topic.to_owned(), allow_auto_create: false };
    let answer = broker.admin().describe_topic(request).await.expect("described").into_inner();
    answer.topic.expect("a topic").partitions.remove(partition)
}

/// Cuts the last byte off the first log file in this directory, if it has any.
fn cut(dir: &Path) -> bool {
    let path = dir.join("00000000000000000000.log");
    let bytes = std::fs::read(&path).expect("readable");
    let Some((_, rest)) = bytes.split_last() else { return false };
    std::fs::write(path, rest).expect("written");
    true
}

/// The partition of `__consumer_offsets` that has something.
fn offsets_partition(data: &Path) -> i32 {
    let dir = |partition: &i32| -> PathBuf { data.join(format!("{OFFSETS}-{partition}")) };
    let mut there = (0..).take_while(|partition| dir(partition).exists());
    there.find(|partition| cut(&dir(partition))).expect("a commit is somewhere")
}

/// A broker that has started on logs of which the last record is lost: `orders-0` and that of the group's offsets.
async fn damaged() -> (TestBroker, i32) {
    let broker = TestBroker::start().await;
    broker.create("orders", 2).await;
    for value in ["a", "b", "c", "d", "e", "f"] {
        broker.produce(records("orders", 0, &[value])).await.expect("produced");
    }
    for offset in [3, 4] {
        commit(&broker, offset).await.expect("committed");
    }
    let TestBroker { server, dir, channel } = broker;
    drop(channel);
    server.shutdown().await.expect("a clean end");
    let data = dir.path().join("data");
    assert!(cut(&data.join("orders-0")));
    let offsets = offsets_partition(&data);
    (TestBroker::start_in(dir, |_| {}).await, offsets)
}

#[tokio::test]
async fn a_partition_whose_end_is_lost_goes_on_when_an_operator_accepts_that() {
    let (mut broker, _) = damaged().await;
    let refused = broker.produce(records("orders", 0, &["g"])).await;
    assert_failed(refused, Code::Unavailable, "PARTITION_FENCED", &[("topic", "orders"), ("partition", "0")]);
    let before = describe(&broker, "orders", 0).await;
    assert_eq!((before.state(), before.high_watermark), (PartitionState::ReadOnly, 6));
    // A follower that has come to the end.
    let request = FetchStreamRequest { partitions: vec![from_offset("orders", 0, 6)], ..Default::default() };
    let mut follower = broker.log().fetch_stream(request).await.expect("opened").into_inner();

    let AcceptLossResponse { first_offset, last_offset, next_offset, leader_epoch } =
        accept(&broker, "orders", 0).await.expect("accepted");
    assert_eq!((first_offset, last_offset), (5, next_offset - 1));
    assert!(next_offset > 1 << 40 && leader_epoch > before.leader_epoch, "{next_offset}, {leader_epoch}");
    let last = last_offset.to_string();
    let facts =
        [("topic", "orders"), ("partition", "0"), ("first_offset", "5"), ("last_offset", last.as_str())];
    let told = soon(async {
        loop {
            match follower.message().await {
                Ok(Some(message)) => {
                    let data = message.data.expect("data");
                    if data.error.is_some() {
                        return data.error;
                    }
                }
                Ok(None) => panic!("a follower ends with a status"),
                Err(status) => {
                    assert_failed::<()>(Err(status), Code::DataLoss, "DATA_LOSS", &facts);
                    return None;
                }
            }
        }
    })
    .await;
    if told.is_some() {
        assert_error(told.as_ref(), Code::DataLoss, "DATA_LOSS", &facts);
    }

    let produced = broker.produce(records("orders", 0, &["g"])).await.expect("it takes records");
    assert_eq!(produced.results[0].base_offset, next_offset);
    for _ in 0..2 {
        let now = describe(&broker, "orders", 0).await;
        assert_eq!((now.state(), now.leader_epoch >= leader_epoch), (PartitionState::Online, true));
        assert_eq!(values(&broker.read("orders", 0, 0).await.expect("read")), ["a", "b", "c", "d", "e"]);
        for offset in [5, 6, last_offset] {
            let fetched = broker
                .fetch(crate::harness::fetch(vec![from_offset("orders", 0, offset)], FetchFormat::Records));
            assert_failed(fetched.await, Code::DataLoss, "DATA_LOSS", &facts);
        }
        assert_eq!(values(&broker.read("orders", 0, next_offset).await.expect("read")), ["g"]);
        broker = broker.restart().await;
    }
}

#[tokio::test]
async fn committed_offsets_that_are_lost_are_told_and_groups_commit_again_once_that_is_accepted() {
    let (mut broker, partition) = damaged().await;
    let all = committed(&broker, false).await.expect("what is known");
    assert_eq!(all.offsets.iter().map(|known| known.offset).collect::<Vec<_>>(), [3]);
    assert_error(all.error.as_ref(), Code::DataLoss, "DATA_LOSS", &[("topic", OFFSETS)]);
    assert_failed(committed(&broker, true).await, Code::DataLoss, "DATA_LOSS", &[("topic", OFFSETS)]);
    assert_failed(commit(&broker, 5).await, Code::Unavailable, "PARTITION_FENCED", &[("topic", OFFSETS)]);

    accept(&broker, OFFSETS, partition).await.expect("accepted");
    assert_failed(committed(&broker, true).await, Code::DataLoss, "DATA_LOSS", &[("topic", OFFSETS)]);
    commit(&broker, 5).await.expect("committed");
    for is_settled in [false, true] {
        let known = committed(&broker, true).await.expect("newer than the loss").offsets;
        assert_eq!(known.iter().map(|known| known.offset).collect::<Vec<_>>(), [5]);
        let all = committed(&broker, false).await.expect("what is known");
        if is_settled {
            assert!(all.error.is_none(), "{:?}", all.error);
        } else {
            assert_error(all.error.as_ref(), Code::DataLoss, "DATA_LOSS", &[("topic", OFFSETS)]);
        }
        broker = broker.restart().await;
    }
}

#[tokio::test]
async fn where_nothing_is_lost_there_is_nothing_to_accept() {
    let broker = TestBroker::start().await;
    broker.create("orders", 1).await;
    broker.produce(records("orders", 0, &["a"])).await.expect("produced");
    let metadata = [("topic", "orders"), ("partition", "0"), ("detail", "it takes writes")];
    let refused = accept(&broker, "orders", 0).await;
    assert_failed(refused, Code::FailedPrecondition, "NO_LOSS", &metadata);
    let refused = accept(&broker, "orders", 1).await;
    assert_failed(refused, Code::NotFound, "UNKNOWN_PARTITION", &[("partitions", "1")]);
    assert_failed(accept(&broker, "nix", 0).await, Code::NotFound, "UNKNOWN_TOPIC", &[("topic", "nix")]);
    broker.produce(records("orders", 0, &["b"])).await.expect("produced");
    assert_eq!(values(&broker.read("orders", 0, 0).await.expect("read")), ["a", "b"]);
}

//! Groups over a real broker.

use std::fs;
use std::sync::Arc;

use futures_util::poll;

use super::{AllCommitted, Commit, Committed, GroupError, Groups};
use crate::broker::testing::{AT_ONCE, NOW_MS, Place, create, fetch, from, name};
use crate::broker::{Broker, BrokerError};
use crate::record;
use crate::types::{GroupName, LeaderEpoch, OFFSETS_TOPIC, Offset, PartitionId, TopicName};

fn group(name: &str) -> GroupName {
    GroupName::parse(name).expect("a valid name")
}

fn commit(topic: &str, partition: i32, offset: i64) -> Commit {
    Commit { topic: name(topic), partition, offset, leader_epoch: None, metadata: String::new() }
}

async fn open(place: &Place) -> (Arc<Broker>, Arc<Groups>) {
    let broker = place.open();
    let groups = Groups::open(Arc::clone(&broker), place.clock.clone()).await.expect("groups");
    (broker, groups)
}

/// An orderly end and a new start.
async fn reopen(place: &Place, broker: Arc<Broker>, groups: Arc<Groups>) -> (Arc<Broker>, Arc<Groups>) {
    drop(groups);
    let broker = place.reopen(broker).await;
    let groups = Groups::open(Arc::clone(&broker), place.clock.clone()).await.expect("groups");
    (broker, groups)
}

/// What a group has committed in all, as (topic, partition, offset).
fn offsets(groups: &Groups, of: &str) -> Vec<(String, i32, i64)> {
    let AllCommitted { offsets, loss } = groups.all_committed(&group(of)).expect("known");
    assert!(loss.is_none(), "{loss:?}");
    offsets.iter().map(|c| (c.topic.to_string(), c.partition.get(), c.offset.get())).collect()
}

fn asked(partitions: &[(&str, i32)]) -> Vec<(TopicName, i32)> {
    partitions.iter().map(|(topic, partition)| (name(topic), *partition)).collect()
}

#[tokio::test]
async fn what_is_committed_is_remembered_over_a_restart() {
    let place = Place::new();
    let (broker, groups) = open(&place).await;
    create(&broker, "t", 2, &[]).await;
    let detailed =
        Commit { leader_epoch: Some(LeaderEpoch(4)), metadata: "mine".to_owned(), ..commit("t", 1, 7) };
    groups.commit(&group("g"), vec![commit("t", 0, 3), detailed]).await.expect("committed");
    groups.commit(&group("g"), vec![commit("t", 0, 5)]).await.expect("committed");
    groups.commit(&group("h"), vec![commit("t", 0, 1)]).await.expect("committed");

    let check = |groups: &Groups| {
        assert_eq!(offsets(groups, "g"), [("t".to_owned(), 0, 5), ("t".to_owned(), 1, 7)]);
        let some = groups.committed(&group("g"), &asked(&[("t", 1), ("t", 9), ("nix", 0), ("t", 1)]));
        let expected = Committed {
            topic: name("t"),
            partition: PartitionId::new(1).expect("valid"),
            offset: Offset::clamped(7),
            leader_epoch: Some(LeaderEpoch(4)),
            metadata: "mine".to_owned(),
            commit_timestamp_ms: NOW_MS,
        };
        assert_eq!(some.expect("known"), [expected]);
        assert_eq!(groups.list(), [(group("g"), 2), (group("h"), 1)]);
        assert_eq!(offsets(groups, "unknown"), []);
    };
    check(&groups);
    let (broker, groups) = reopen(&place, broker, groups).await;
    check(&groups);
    // And over an end without notice.
    drop((broker, groups));
    let (_broker, groups) = open(&place).await;
    check(&groups);
}

#[tokio::test]
async fn a_commit_is_taken_whole_or_not_at_all() {
    let place = Place::new();
    let (broker, groups) = open(&place).await;
    create(&broker, "t", 1, &[]).await;
    let g = group("g");
    let with = |bad: Commit| groups.commit(&g, vec![commit("t", 0, 3), bad]);
    let error = with(commit("nix", 0, 1)).await.expect_err("unknown topic");
    assert!(matches!(error, GroupError::Broker(BrokerError::UnknownTopic { .. })), "{error}");
    let error = with(commit("t", 1, 1)).await.expect_err("unknown partition");
    assert!(matches!(error, GroupError::Broker(BrokerError::UnknownPartition { .. })), "{error}");
    let error = with(commit("t", 0, -1)).await.expect_err("negative");
    assert!(matches!(error, GroupError::InvalidOffset { offset: -1, .. }), "{error}");
    let long = Commit { metadata: "x".repeat(4097), ..commit("t", 0, 1) };
    let error = with(long).await.expect_err("too long");
    assert!(matches!(error, GroupError::MetadataTooLong { bytes: 4097, max_bytes: 4096 }), "{error}");
    let error = groups.commit(&group("g"), Vec::new()).await.expect_err("nothing");
    assert!(matches!(error, GroupError::NoOffsets), "{error}");
    assert!(groups.list().is_empty());
    assert!(broker.describe_topic(&name(OFFSETS_TOPIC)).is_err(), "created by the first commit only");

    // All of it in one batch.
    groups.commit(&group("g"), vec![commit("t", 0, 3), commit("t", 0, 4)]).await.expect("committed");
    assert_eq!(offsets(&groups, "g"), [("t".to_owned(), 0, 4)]);
    let home = super::offsets_log::partition_of(&group("g"), 16) as i32;
    let fetched = fetch(&broker, &[from(OFFSETS_TOPIC, home, 0)], AT_ONCE).await.remove(0).expect("readable");
    let counts: Vec<i32> = fetched
        .batches
        .chunks
        .iter()
        .flat_map(|chunk| record::batches(chunk))
        .map(|batch| batch.expect("a batch").record_count())
        .collect();
    assert_eq!(counts, [2]);
}

#[tokio::test]
async fn a_commit_that_nobody_waits_for_is_remembered_all_the_same() {
    let place = Place::new();
    let (broker, groups) = open(&place).await;
    create(&broker, "t", 2, &[]).await;
    broker.ensure_offsets_topic().await.expect("created");
    let g = group("g");
    {
        let mut committing = Box::pin(groups.commit(&g, vec![commit("t", 0, 3)]));
        assert!(poll!(&mut committing).is_pending());
    }
    // Its outcome comes after that of the one above.
    groups.commit(&g, vec![commit("t", 1, 4)]).await.expect("committed");
    assert_eq!(offsets(&groups, "g"), [("t".to_owned(), 0, 3), ("t".to_owned(), 1, 4)]);
}

#[tokio::test]
async fn offsets_of_a_deleted_topic_are_not_those_of_a_new_one_with_its_name() {
    let place = Place::new();
    let (broker, groups) = open(&place).await;
    create(&broker, "t", 1, &[]).await;
    create(&broker, "kept", 1, &[]).await;
    groups.commit(&group("g"), vec![commit("t", 0, 3), commit("kept", 0, 1)]).await.expect("committed");
    groups.commit(&group("h"), vec![commit("t", 0, 3)]).await.expect("committed");
    broker.delete_topic(&name("t")).await.expect("deleted");
    assert_eq!(offsets(&groups, "g"), [("kept".to_owned(), 0, 1)]);
    create(&broker, "t", 1, &[]).await;
    assert_eq!(groups.list(), [(group("g"), 1)]);

    let (broker, groups) = reopen(&place, broker, groups).await;
    assert_eq!(offsets(&groups, "g"), [("kept".to_owned(), 0, 1)]);
    groups.commit(&group("g"), vec![commit("t", 0, 9)]).await.expect("committed");
    let (_broker, groups) = reopen(&place, broker, groups).await;
    assert_eq!(offsets(&groups, "g"), [("kept".to_owned(), 0, 1), ("t".to_owned(), 0, 9)]);
}

#[tokio::test]
async fn offsets_that_cannot_be_read_are_not_taken_for_none() {
    let place = Place::new();
    let (broker, groups) = open(&place).await;
    create(&broker, "t", 1, &[]).await;
    let home = |of: &str| super::offsets_log::partition_of(&group(of), 16);
    let (lost, other) = ("g", "h");
    assert_ne!(home(lost), home(other));
    for of in [lost, other] {
        groups.commit(&group(of), vec![commit("t", 0, 3)]).await.expect("committed");
    }
    broker.close().await.expect("an orderly end");
    drop((broker, groups));
    fs::remove_dir_all(place.dir.path().join(format!("{OFFSETS_TOPIC}-{}", home(lost)))).expect("removed");

    let (_broker, groups) = open(&place).await;
    let all = groups.all_committed(&group(lost)).expect_err("not known");
    let some = groups.committed(&group(lost), &asked(&[("t", 0)])).expect_err("not known");
    for error in [all, some] {
        assert!(matches!(error, GroupError::Broker(BrokerError::Fenced { .. })), "{error}");
    }
    let error = groups.commit(&group(lost), vec![commit("t", 0, 3)]).await.expect_err("no writes");
    assert!(matches!(error, GroupError::Broker(BrokerError::Fenced { .. })), "{error}");
    assert_eq!(offsets(&groups, other), [("t".to_owned(), 0, 3)]);
}

/// Group "g" has committed 3 and then 4 for one of two partitions, and the log that holds this was damaged. Returns the
/// partition of that log.
async fn committed_and_damaged(place: &Place, damage: impl FnOnce(&mut Vec<u8>)) -> u32 {
    let (broker, groups) = open(place).await;
    create(&broker, "t", 2, &[]).await;
    for offset in [3, 4] {
        groups.commit(&group("g"), vec![commit("t", 0, offset)]).await.expect("committed");
    }
    broker.close().await.expect("an orderly end");
    drop((broker, groups));
    let home = super::offsets_log::partition_of(&group("g"), 16);
    let log = place.dir.path().join(format!("{OFFSETS_TOPIC}-{home}/{:020}.log", 0));
    let mut bytes = fs::read(&log).expect("there");
    damage(&mut bytes);
    fs::write(&log, bytes).expect("written");
    home
}

#[tokio::test]
async fn a_new_commit_mends_what_was_lost() {
    let place = Place::new();
    committed_and_damaged(&place, |bytes| {
        let second = record::frame_size(bytes).expect("a batch");
        bytes[second + record::HEADER_BYTES + 20] ^= 1;
    })
    .await;

    let (broker, groups) = open(&place).await;
    let of = asked(&[("t", 0)]);
    let error = groups.committed(&group("g"), &of).expect_err("3 is not the last one");
    assert!(matches!(error, GroupError::Broker(BrokerError::DataLoss { .. })), "{error}");
    let AllCommitted { offsets, loss } = groups.all_committed(&group("g")).expect("what is known");
    assert_eq!(offsets.iter().map(|known| known.offset.get()).collect::<Vec<_>>(), [3]);
    assert!(matches!(loss, Some(BrokerError::DataLoss { .. })), "it may be older: {loss:?}");
    groups.commit(&group("g"), vec![commit("t", 0, 5)]).await.expect("committed");
    let check = |groups: &Groups| {
        let mended = groups.committed(&group("g"), &of).expect("newer than the loss");
        assert_eq!(mended[0].offset.get(), 5);
        groups.committed(&group("g"), &asked(&[("t", 1)])).expect_err("may have been in the damaged batch");
    };
    check(&groups);
    let (_broker, groups) = reopen(&place, broker, groups).await;
    check(&groups);
}

#[tokio::test]
async fn an_accepted_loss_is_settled_with_the_next_start() {
    let place = Place::new();
    let home = committed_and_damaged(&place, |bytes| bytes.truncate(bytes.len() - 1)).await;

    let (broker, groups) = open(&place).await;
    let of = asked(&[("t", 0), ("t", 1)]);
    groups.committed(&group("g"), &of).expect_err("3 is not the last one");
    broker.accept_loss(&TopicName::offsets(), home as i32).await.expect("accepted");
    let (broker, groups) = reopen(&place, broker, groups).await;
    assert_eq!(offsets(&groups, "g"), [("t".to_owned(), 0, 3)], "what can be read counts");

    groups.commit(&group("g"), vec![commit("t", 0, 5)]).await.expect("committed");
    let (_broker, groups) = reopen(&place, broker, groups).await;
    assert_eq!(offsets(&groups, "g"), [("t".to_owned(), 0, 5)]);
    assert_eq!(groups.committed(&group("g"), &of).expect("known").len(), 1);
    let never = (0..10_000)
        .map(|i| format!("never-{i}"))
        .find(|name| super::offsets_log::partition_of(&group(name), 16) == home);
    let never = group(&never.expect("there is one"));
    assert_eq!(groups.committed(&never, &of).expect("it has none"), []);
}

//! The way of an append.

use futures_util::poll;

use crate::broker::testing::{
    AT_ONCE, NOW_MS, Place, append, batch, create, decode, fetch, from, name, produce, record, values,
};
use crate::broker::{AppendTerms, Broker, BrokerError, Caller, ProduceRecord, Target};
use crate::config::{BatchValidation, BrokerConfig};
use crate::record::{BatchError, BatchView, Codec};
use crate::types::{Offset, PartitionId};

async fn produce_records(
    broker: &Broker,
    partition: Option<i32>,
    records: Vec<ProduceRecord>,
) -> Result<Vec<(PartitionId, Offset, u32)>, BrokerError> {
    let mut produced = Vec::new();
    let in_one = |partition| Target::Partition(partition, AppendTerms::default());
    let target = partition.map_or(Target::ByKey, in_one);
    let results = broker.start_produce(Caller::Client, &name("t"), target, records, Codec::None).await?;
    for (partition, result) in results {
        let done = result?.wait().await?;
        assert_eq!(done.partition, partition);
        produced.push((partition, done.base_offset, done.record_count));
    }
    Ok(produced)
}

/// The codec of the first batch of a partition.
async fn stored_codec(broker: &Broker) -> Option<Codec> {
    let fetched = fetch(broker, &[from("t", 0, 0)], AT_ONCE).await.remove(0).expect("readable");
    BatchView::parse(&fetched.batches.chunks[0]).expect("a batch").attributes().codec()
}

#[tokio::test]
async fn offsets_follow_each_other_without_a_gap() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 1, &[]).await;
    let first = produce(&broker, "t", 0, &["a", "b"]).await;
    let second = produce(&broker, "t", 0, &["c"]).await;
    assert_eq!((first.base_offset.get(), first.record_count), (0, 2));
    assert_eq!((second.base_offset.get(), second.record_count), (2, 1));
    assert_eq!((second.log_append_time_ms, second.log_start_offset), (None, Offset::ZERO));
    let fetched = fetch(&broker, &[from("t", 0, 0)], AT_ONCE).await.remove(0).expect("readable");
    let expected = [(0, NOW_MS, "a"), (1, NOW_MS, "b"), (2, NOW_MS, "c")];
    assert_eq!(decode(&fetched.batches.chunks), expected.map(|(o, t, v)| (o, t, v.to_owned())));
}

#[tokio::test]
async fn what_is_not_to_be_accepted_is_refused_and_not_appended() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 1, &[("max_message_bytes", "1024")]).await;
    let mut flipped = batch(&["a"], Codec::None);
    *flipped.last_mut().expect("not empty") ^= 1;
    let error = append(&broker, "t", 0, flipped).await.expect_err("a wrong checksum");
    assert!(matches!(error, BrokerError::Batch { error: BatchError::Corrupt(_), .. }), "{error}");
    let error =
        append(&broker, "t", 0, batch(&[&"x".repeat(1024)], Codec::None)).await.expect_err("too large");
    let too_large = |error: &BrokerError| {
        let BrokerError::Batch { error: BatchError::TooLarge { max_message_bytes, .. }, .. } = error else {
            return false;
        };
        *max_message_bytes == 1024
    };
    assert!(too_large(&error), "{error}");
    // Small as it came, too large as it would be kept.
    let error = produce_records(&broker, Some(0), vec![record(None, &"x".repeat(1024))]).await;
    assert!(too_large(&error.expect_err("too large")));
    for (timestamp_ms, what) in [(-1, "negative"), (NOW_MS + 3_600_001, "too far ahead")] {
        let odd = ProduceRecord { timestamp_ms: Some(timestamp_ms), ..record(None, "x") };
        let error = produce_records(&broker, Some(0), vec![odd]).await.expect_err(what);
        assert!(matches!(error, BrokerError::Batch { error: BatchError::Invalid(_), .. }), "{error}");
    }
    let error = produce_records(&broker, None, Vec::new()).await.expect_err("nothing to do");
    assert!(matches!(&error, BrokerError::InvalidRequest { field, .. } if field == "records"), "{error}");
    for partition in [-1, 1, i32::MAX] {
        let error = append(&broker, "t", partition, batch(&["x"], Codec::None)).await.expect_err("no such");
        assert!(matches!(error, BrokerError::UnknownPartition { partitions: 1, .. }), "{error}");
    }
    let error = append(&broker, "nix", 0, batch(&["x"], Codec::None)).await.expect_err("no such");
    assert!(matches!(error, BrokerError::UnknownTopic { .. }), "{error}");
    assert_eq!(values(&broker, "t", 0).await, [""; 0]);
}

#[tokio::test]
async fn a_batch_is_kept_in_the_codec_of_its_topic() {
    for (setting, sent, kept) in [
        ("producer", Codec::Lz4, Codec::Lz4),
        ("zstd", Codec::None, Codec::Zstd),
        ("none", Codec::Gzip, Codec::None),
        ("snappy", Codec::Snappy, Codec::Snappy),
    ] {
        let place = Place::new();
        let broker = place.open();
        create(&broker, "t", 1, &[("compression", setting)]).await;
        let long = "long ".repeat(20_000);
        append(&broker, "t", 0, batch(&[&long, "short"], sent)).await.expect("appended");
        assert_eq!(stored_codec(&broker).await, Some(kept), "{setting}");
        assert_eq!(values(&broker, "t", 0).await, [long.as_str(), "short"], "{setting}");
    }
}

#[tokio::test]
async fn a_batch_that_unpacks_beyond_the_topics_limit_is_refused() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 1, &[("compression", "none"), ("max_message_bytes", "4096")]).await;
    let packed = batch(&[&"x".repeat(8192)], Codec::Gzip);
    assert!(packed.len() < 4096);
    let error = append(&broker, "t", 0, packed).await.expect_err("too large as it would be kept");
    assert!(matches!(error, BrokerError::Batch { error: BatchError::TooLarge { .. }, .. }), "{error}");
}

#[tokio::test]
async fn the_contents_of_a_compressed_batch_are_looked_at_where_that_is_asked_for() {
    let strict = BrokerConfig {
        batch_validation: BatchValidation::Strict,
        max_decompressed_bytes: 1 << 20,
        ..BrokerConfig::default()
    };
    let bomb = batch(&[&"x".repeat(2 << 20)], Codec::Zstd);
    for (config, refused) in [(strict, true), (BrokerConfig::default(), false)] {
        let place = Place::with(config);
        let broker = place.open();
        create(&broker, "t", 1, &[]).await;
        let outcome = append(&broker, "t", 0, bomb.clone()).await;
        assert_eq!(matches!(outcome, Err(BrokerError::Batch { .. })), refused, "{outcome:?}");
    }
}

#[tokio::test]
async fn log_append_time_is_the_brokers() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 1, &[("timestamp_type", "log_append_time")]).await;
    place.clock.advance(5);
    let old = ProduceRecord { timestamp_ms: Some(1), ..record(None, "old") };
    let ahead = ProduceRecord { timestamp_ms: Some(NOW_MS * 2), ..record(None, "ahead") };
    let pending = broker
        .start_produce(
            Caller::Client,
            &name("t"),
            Target::Partition(0, AppendTerms::default()),
            vec![old, ahead],
            Codec::None,
        )
        .await
        .expect("the producer's time does not matter")
        .remove(0)
        .1
        .expect("valid");
    assert_eq!(pending.wait().await.expect("appended").log_append_time_ms, Some(NOW_MS + 5));
    let fetched = fetch(&broker, &[from("t", 0, 0)], AT_ONCE).await.remove(0).expect("readable");
    let expected = [(0, NOW_MS + 5, "old"), (1, NOW_MS + 5, "ahead")];
    assert_eq!(decode(&fetched.batches.chunks), expected.map(|(o, t, v)| (o, t, v.to_owned())));
}

#[tokio::test]
async fn records_go_by_their_keys_and_those_without_stay_together() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 8, &[]).await;
    // As Kafka's clients place them: "abc" in 3, "21" in 4.
    let records = vec![
        record(Some("abc"), "1"),
        record(None, "2"),
        record(Some("21"), "3"),
        record(Some("abc"), "4"),
        record(None, "5"),
    ];
    let produced = produce_records(&broker, None, records).await.expect("appended");
    assert_eq!(produced.iter().map(|(_, _, count)| count).sum::<u32>(), 5);
    assert!(produced.is_sorted_by_key(|(partition, _, _)| *partition));

    let mut all = Vec::new();
    for partition in 0..8 {
        all.push(values(&broker, "t", partition).await);
    }
    assert!(all[3].starts_with(&["1".to_owned()]) && all[3].contains(&"4".to_owned()), "{all:?}");
    assert!(all[4].contains(&"3".to_owned()), "{all:?}");
    let keyless = all.iter().position(|values| values.contains(&"2".to_owned())).expect("somewhere");
    assert!(all[keyless].contains(&"5".to_owned()), "{all:?}");

    let homes: Vec<PartitionId> = {
        let mut homes = Vec::new();
        for _ in 0..8 {
            homes.push(produce_records(&broker, None, vec![record(None, "x")]).await.expect("appended")[0].0);
        }
        homes.sort_unstable();
        homes
    };
    assert_eq!(homes, PartitionId::all(8).collect::<Vec<_>>(), "requests take turns");
}

#[tokio::test]
async fn appends_are_in_the_order_they_were_handed_over() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 1, &[]).await;
    let mut pending = Vec::new();
    for number in 0..100 {
        let batch = batch(&[&number.to_string()], Codec::None);
        pending.push(broker.start_append(Caller::Client, &name("t"), 0, batch, None).await.expect("valid"));
    }
    for (number, pending) in (0..).zip(pending) {
        assert_eq!(pending.wait().await.expect("appended").base_offset.get(), number);
    }
    let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(values(&broker, "t", 0).await, expected);
}

#[tokio::test]
async fn an_append_nobody_waits_for_is_made_all_the_same() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 1, &[]).await;
    drop(
        broker
            .start_append(Caller::Client, &name("t"), 0, batch(&["a"], Codec::None), None)
            .await
            .expect("valid"),
    );
    produce(&broker, "t", 0, &["b"]).await;
    assert_eq!(values(&broker, "t", 0).await, ["a", "b"]);
}

#[tokio::test]
async fn a_full_queue_holds_producers_back_until_there_is_room() {
    let place = Place::with(BrokerConfig { queue_bytes: 4096, ..BrokerConfig::default() });
    let broker = place.open();
    create(&broker, "t", 1, &[]).await;
    let room = broker.queue.enter(4096).await.expect("all of it");
    assert_eq!(broker.status().queue_bytes, 4096);
    {
        let topic = name("t");
        let mut gone =
            Box::pin(broker.start_append(Caller::Client, &topic, 0, batch(&["gone"], Codec::None), None));
        assert!(poll!(&mut gone).is_pending());
    }
    let mut waiting = Box::pin(append(&broker, "t", 0, batch(&["a"], Codec::None)));
    assert!(poll!(&mut waiting).is_pending());
    drop(room);
    waiting.await.expect("appended");
    assert_eq!(values(&broker, "t", 0).await, ["a"], "who went away while waiting has appended nothing");
    assert_eq!(broker.status().queue_bytes, 0);
}

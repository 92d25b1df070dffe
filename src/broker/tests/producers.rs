//! Idempotent producers: their ids, their stamp on a batch, and batches that are sent again.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use bytes::BytesMut;

use crate::broker::testing::{
    AT_ONCE, NOW_MS, Place, append, batch, create, fetch, from, name, record, values,
};
use crate::broker::{AppendTerms, Broker, BrokerError, Caller, Produced, Target};
use crate::record::{BatchBuilder, BatchOptions, BatchView, Codec, ProducerStamp};
use crate::storage::ProducerError;
use crate::types::Offset;

const STAMP: ProducerStamp = ProducerStamp { producer_id: 7, producer_epoch: 1, base_sequence: 0 };

fn stamped(stamp: ProducerStamp, values: &[&str], codec: Codec) -> BytesMut {
    let mut builder = BatchBuilder::new(BatchOptions { codec });
    for value in values {
        builder.push(NOW_MS, None, Some(value.as_bytes()), []);
    }
    builder.set_producer(stamp);
    builder.build().expect("a batch")
}

/// One batch of one record.
async fn produce_one(broker: &Broker, value: &str, terms: AppendTerms) -> Result<Produced, BrokerError> {
    let records = vec![record(None, value)];
    let mut parts = broker
        .start_produce(Caller::Client, &name("t"), Target::Partition(0, terms), records, Codec::None)
        .await?;
    parts.remove(0).1?.wait().await
}

#[tokio::test]
async fn a_producer_id_is_given_out_once_also_across_a_crash() {
    let place = Place::new();
    let mut given = BTreeSet::new();
    for _ in 0..3 {
        let broker = place.open();
        let ids = (0..50).map(|_| broker.init_producer());
        for id in futures_util::future::join_all(ids).await {
            assert!(given.insert(id.expect("an id")), "given out before");
        }
        // As kill -9 would.
        drop(Arc::into_inner(broker).expect("nobody else has it"));
    }
    let broker = place.reopen(place.open()).await;
    assert!(given.insert(broker.init_producer().await.expect("an id")));
    assert!(given.iter().all(|id| id.get() != 0), "that is what a client sends that sets none");
}

#[tokio::test]
async fn a_producer_id_does_not_come_again_with_the_catalogue_before_the_last_change() {
    let place = Place::new();
    let broker = place.open();
    let given = broker.init_producer().await.expect("an id");
    broker.close().await.expect("closed");
    drop(Arc::into_inner(broker).expect("nobody else has it"));
    let path = |name: &str| place.dir.path().join(name);
    fs::copy(path("catalogue.old"), path("catalogue")).expect("put back");
    let broker = place.open();
    let again = broker.init_producer().await.expect("an id");
    assert!(again > given, "{again} was given out before");
}

/// Whether a batch of this producer is taken; otherwise it must be because nobody has been given its id.
async fn takes(broker: &Broker, producer_id: i64) -> bool {
    let stamp = ProducerStamp { producer_id, producer_epoch: 0, base_sequence: 0 };
    let terms = AppendTerms { producer: Some(stamp), ..AppendTerms::default() };
    let built = produce_one(broker, "v", terms).await;
    let encoded = append(broker, "t", 0, stamped(stamp, &["v"], Codec::None)).await;
    assert_eq!(built.is_ok(), encoded.is_ok(), "records or a batch: {built:?}, {encoded:?}");
    match encoded {
        Ok(_) => true,
        Err(BrokerError::UnknownProducer { stamp: refused, .. }) if refused == stamp => false,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn an_id_that_is_still_to_be_given_out_is_refused_until_it_is() {
    let place = Place::new();
    let mut broker = place.open();
    create(&broker, "t", 1, &[]).await;
    assert!(!takes(&broker, i64::MAX).await);
    let mut given = Vec::new();
    for _ in 0..3 {
        // More than a block.
        for _ in 0..1_100 {
            given.push(broker.init_producer().await.expect("an id").get());
        }
        let last = given[given.len() - 1];
        for id in [given[0], given[given.len() / 2], last] {
            assert!(takes(&broker, id).await, "{id} was given out");
        }
        for id in [last + 1, last + 2, last + 10_000] {
            assert!(!takes(&broker, id).await, "{id} was not given out");
        }
        assert_eq!(broker.init_producer().await.expect("an id").get(), last + 1);
        given.push(last + 1);
        broker = place.reopen(broker).await;
    }
    for id in given {
        assert!(takes(&broker, id).await, "{id} was given out by an earlier run");
    }
    let next = broker.init_producer().await.expect("an id").get();
    assert!(!takes(&broker, next + 1).await, "the others of its block are not given out yet");
}

#[tokio::test]
async fn with_the_catalogue_before_the_last_change_every_id_that_was_given_out_is_known() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 1, &[]).await;
    let mut given = Vec::new();
    for _ in 0..1_000 {
        given.push(broker.init_producer().await.expect("an id").get());
    }
    broker.close().await.expect("closed");
    drop(Arc::into_inner(broker).expect("nobody else has it"));
    let path = |name: &str| place.dir.path().join(name);
    fs::copy(path("catalogue.old"), path("catalogue")).expect("put back");
    let broker = place.open();
    for id in &given {
        assert!(takes(&broker, *id).await, "{id} was given out");
    }
    let last = given[given.len() - 1];
    assert!(!takes(&broker, last + 1).await);
    assert_eq!(broker.init_producer().await.expect("an id").get(), last + 1);
}

#[tokio::test]
async fn without_a_catalogue_to_write_there_is_no_producer_id() {
    let place = Place::new();
    let broker = place.open();
    // Nothing can be written where a directory is.
    let obstacle = place.dir.path().join("catalogue.tmp");
    fs::create_dir(&obstacle).expect("created");
    let error = broker.init_producer().await.expect_err("no catalogue");
    assert!(matches!(error, BrokerError::NoProducerId { is_full: false, .. }), "{error}");
    fs::remove_dir(&obstacle).expect("removed");
    broker.init_producer().await.expect("it works again");
}

#[tokio::test]
async fn a_batch_that_is_sent_again_is_there_once() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 1, &[]).await;
    append(&broker, "t", 0, batch(&["first"], Codec::None)).await.expect("appended");
    for duplicate in [false, true, true] {
        let done = append(&broker, "t", 0, stamped(STAMP, &["a", "b"], Codec::None)).await.expect("appended");
        assert_eq!((done.base_offset.get(), done.record_count, done.duplicate), (1, 2, duplicate));
    }
    let broker = place.reopen(broker).await;
    let done = append(&broker, "t", 0, stamped(STAMP, &["a", "b"], Codec::None)).await.expect("known");
    assert!(done.duplicate);
    let gap = ProducerStamp { base_sequence: 3, ..STAMP };
    let error = append(&broker, "t", 0, stamped(gap, &["d"], Codec::None)).await.expect_err("a gap");
    let BrokerError::Producer { error: ProducerError::OutOfOrder { expected, sequence, .. }, .. } = error
    else {
        panic!("{error}")
    };
    assert_eq!((expected, sequence), (2, 3));
    assert_eq!(values(&broker, "t", 0).await, ["first", "a", "b"]);
}

#[tokio::test]
async fn a_batch_keeps_its_stamp_whatever_its_codec_becomes() {
    for (topic_codec, codec) in [("producer", Codec::Lz4), ("zstd", Codec::None), ("none", Codec::Gzip)] {
        let place = Place::new();
        let broker = place.open();
        create(&broker, "t", 1, &[("compression", topic_codec), ("timestamp_type", "log_append_time")]).await;
        append(&broker, "t", 0, stamped(STAMP, &["a"], codec)).await.expect("appended");
        let fetched = fetch(&broker, &[from("t", 0, 0)], AT_ONCE).await.remove(0).expect("readable");
        let stored = BatchView::parse(&fetched.batches.chunks[0]).expect("a batch");
        assert!(stored.crc_is_valid());
        assert_eq!(stored.producer(), Some(STAMP), "{topic_codec}");
    }
}

#[tokio::test]
async fn records_are_numbered_for_their_producer() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 1, &[]).await;
    let terms = AppendTerms { producer: Some(STAMP), ..AppendTerms::default() };
    for duplicate in [false, true] {
        let done = produce_one(&broker, "a", terms).await.expect("appended");
        assert_eq!((done.base_offset.get(), done.duplicate), (0, duplicate));
    }
    let old = ProducerStamp { producer_epoch: 0, ..STAMP };
    let error = produce_one(&broker, "b", AppendTerms { producer: Some(old), ..AppendTerms::default() })
        .await
        .expect_err("an older epoch");
    let fenced = |error: &BrokerError| {
        matches!(error, BrokerError::Producer { error: ProducerError::Fenced { current: 1, .. }, .. })
    };
    assert!(fenced(&error), "{error}");
}

#[tokio::test]
async fn of_those_who_count_at_a_time_each_counts_once() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 1, &[]).await;
    // Everyone reads to the end, adds one, and appends if nobody was faster.
    let count = |who: usize| {
        let broker = &broker;
        async move {
            let mut refused = 0;
            for _ in 0..10 {
                loop {
                    let seen = values(broker, "t", 0).await;
                    let next = seen.last().map_or(0, |last| last.parse::<u32>().expect("a number")) + 1;
                    let expected_offset = Offset::new(seen.len() as i64);
                    let terms = AppendTerms { expected_offset, ..AppendTerms::default() };
                    match produce_one(broker, &next.to_string(), terms).await {
                        Ok(_) => break,
                        Err(BrokerError::UnexpectedOffset { expected, .. }) => {
                            assert_eq!(Some(expected), expected_offset);
                            refused += 1;
                        }
                        Err(error) => panic!("{who}: {error}"),
                    }
                }
            }
            refused
        }
    };
    let refused = futures_util::join!(count(0), count(1), count(2));
    assert!(refused.0 + refused.1 + refused.2 > 0, "they got in each other's way");
    let counted: Vec<String> = (1..=30).map(|number| number.to_string()).collect();
    assert_eq!(values(&broker, "t", 0).await, counted);
}

//! Reading, and waiting for something to read.

use std::time::{Duration, Instant};

use futures_util::poll;

use crate::broker::testing::{
    AT_ONCE, PATIENT, Place, create, decode, fetch, from, heard_by_waiting, name, produce,
};
use crate::broker::{BrokerError, FetchLimits, Fetched};
use crate::types::Offset;

fn values(outcome: &Result<Fetched, BrokerError>) -> Vec<String> {
    let fetched = outcome.as_ref().expect("readable");
    decode(&fetched.batches.chunks).into_iter().map(|(_, _, value)| value).collect()
}

#[tokio::test]
async fn a_fetch_returns_what_is_there_with_the_marks() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 2, &[]).await;
    produce(&broker, "t", 0, &["a", "b"]).await;
    produce(&broker, "t", 0, &["c"]).await;
    let outcomes = fetch(&broker, &[from("t", 0, 0), from("t", 1, 0), from("t", 0, 3)], PATIENT).await;
    assert_eq!(values(&outcomes[0]), ["a", "b", "c"]);
    let first = outcomes[0].as_ref().expect("readable");
    assert_eq!((first.high_watermark.get(), first.log_start_offset.get()), (3, 0));
    assert_eq!(first.batches.next_offset.get(), 3);
    assert!(values(&outcomes[1]).is_empty() && values(&outcomes[2]).is_empty());
    assert_eq!(outcomes[2].as_ref().expect("the end").batches.next_offset.get(), 3);
    assert!(fetch(&broker, &[], PATIENT).await.is_empty());
}

#[tokio::test]
async fn a_fetch_from_the_middle_of_a_batch_gets_all_of_it() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 1, &[]).await;
    produce(&broker, "t", 0, &["a", "b", "c"]).await;
    let outcomes = fetch(&broker, &[from("t", 0, 1)], AT_ONCE).await;
    assert_eq!(values(&outcomes[0]), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_fetch_waits_for_the_next_record() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 2, &[]).await;
    let asked = [from("t", 0, 0), from("t", 1, 0)];
    let mut waiting = Box::pin(fetch(&broker, &asked, PATIENT));
    assert!(poll!(&mut waiting).is_pending());
    produce(&broker, "t", 1, &["a"]).await;
    let outcomes = waiting.await;
    assert!(values(&outcomes[0]).is_empty());
    assert_eq!(values(&outcomes[1]), ["a"]);
}

#[tokio::test]
async fn enough_is_counted_over_all_partitions() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 2, &[]).await;
    produce(&broker, "t", 0, &["a"]).await;
    let asked = [from("t", 0, 0), from("t", 1, 0)];
    let one = fetch(&broker, &asked, AT_ONCE).await[0].as_ref().expect("readable").batches.size_bytes;
    let limits = FetchLimits { min_bytes: 3 * one, ..PATIENT };
    let mut waiting = Box::pin(fetch(&broker, &asked, limits));
    assert!(poll!(&mut waiting).is_pending());
    produce(&broker, "t", 1, &["b"]).await;
    assert!(poll!(&mut waiting).is_pending(), "two of three");
    produce(&broker, "t", 0, &["c"]).await;
    let outcomes = waiting.await;
    assert_eq!(
        (values(&outcomes[0]), values(&outcomes[1])),
        (vec!["a".into(), "c".into()], vec!["b".into()])
    );
}

#[tokio::test]
async fn a_fetch_gives_up_waiting_with_what_there_is() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 1, &[]).await;
    produce(&broker, "t", 0, &["a"]).await;
    let wait = Duration::from_millis(20);
    let started = Instant::now();
    let limits = FetchLimits { min_bytes: 1 << 20, max_bytes: 0, max_wait: wait };
    let outcomes = fetch(&broker, &[from("t", 0, 0)], limits).await;
    assert!(started.elapsed() >= wait);
    assert_eq!(values(&outcomes[0]), ["a"]);
}

#[tokio::test]
async fn the_size_of_a_fetch_is_bounded_but_for_its_first_batch() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 3, &[]).await;
    let large = "x".repeat(1000);
    for partition in 0..3 {
        produce(&broker, "t", partition, &[&large]).await;
        produce(&broker, "t", partition, &[&large]).await;
    }
    let asked = [from("t", 0, 0), from("t", 1, 0), from("t", 2, 0)];
    let all = fetch(&broker, &asked, AT_ONCE).await;
    let batch = all[0].as_ref().expect("readable").batches.size_bytes / 2;
    let started = Instant::now();
    for (max_bytes, expected) in [(1, [1, 0, 0]), (3 * batch, [2, 1, 0]), (4 * batch - 1, [2, 1, 0])] {
        // It does not wait for more than there is room for.
        let limits = FetchLimits { min_bytes: u64::MAX, max_bytes, ..PATIENT };
        let outcomes = fetch(&broker, &asked, limits).await;
        assert_eq!(outcomes.iter().map(|o| values(o).len()).collect::<Vec<_>>(), expected, "{max_bytes}");
        assert_eq!(outcomes[2].as_ref().expect("no error").high_watermark.get(), 2);
    }
    assert!(started.elapsed() < PATIENT.max_wait);
}

#[tokio::test]
async fn an_error_is_its_partitions_own_and_ends_the_wait() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 2, &[]).await;
    produce(&broker, "t", 0, &["a"]).await;
    let asked = [from("t", 0, 0), from("t", 1, 7), from("t", 1, -1), from("t", 5, 0), from("nix", 0, 0)];
    let outcomes = fetch(&broker, &asked, FetchLimits { min_bytes: 1 << 20, ..PATIENT }).await;
    assert_eq!(values(&outcomes[0]), ["a"]);
    for (outcome, asked) in outcomes[1..3].iter().zip([7, -1]) {
        match outcome {
            Err(BrokerError::OffsetOutOfRange { offset, log_start_offset, high_watermark, .. }) => {
                let range = (log_start_offset.get(), high_watermark.get());
                assert_eq!((*offset, range), (asked, (0, 0)));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(outcomes[3], Err(BrokerError::UnknownPartition { .. })), "{outcomes:?}");
    assert!(matches!(outcomes[4], Err(BrokerError::UnknownTopic { .. })), "{outcomes:?}");
}

#[tokio::test]
async fn a_waiting_fetch_hears_of_a_deletion() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 1, &[]).await;
    for error in
        heard_by_waiting(&broker, async { broker.delete_topic(&name("t")).await.expect("deleted") }).await
    {
        assert!(matches!(error, BrokerError::UnknownTopic { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_reader_follows_the_high_watermark() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 1, &[]).await;
    let mut reader = broker.reader(&name("t"), 0).expect("a reader");
    for number in 0..3 {
        let offset = Offset::clamped(number);
        {
            let mut beyond = Box::pin(reader.wait_beyond(offset));
            assert!(poll!(&mut beyond).is_pending());
            produce(&broker, "t", 0, &["a"]).await;
            assert_eq!(beyond.await.expect("moved").get(), number + 1);
        }
        let fetched = reader.read(offset, 1 << 20).await;
        assert_eq!(values(&fetched), ["a"]);
    }
    assert_eq!(reader.wait_beyond(Offset::ZERO).await.expect("long past").get(), 3);
}

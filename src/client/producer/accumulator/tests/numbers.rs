//! Several batches of one partition under way: their order, and their sequences.

use super::*;
use crate::client::error::{Error, reason};
use crate::record::BatchView;

/// With so many full batches of one record each in partition 0, of which the first was appended.
fn confirmed(batches: usize, now: Instant) -> Accumulator {
    let mut accumulator = accumulator(1, &ProducerConfig::default(), now);
    for _ in 0..=batches {
        append(&mut accumulator, None, LIMIT, now);
    }
    let first = send(&mut accumulator, now);
    assert_eq!(numbers(&first), [0]);
    accumulator.appended(&first[0]);
    accumulator
}

/// Sends all that can be.
fn send(accumulator: &mut Accumulator, now: Instant) -> Vec<Batch> {
    let mut sent = Vec::new();
    loop {
        let mut taken = accumulator.take_ready(9, now);
        if taken.is_empty() {
            return sent;
        }
        for batch in &mut taken {
            batch.encode().expect("small enough");
            batch.sent = true;
        }
        sent.append(&mut taken);
    }
}

/// Epoch and base sequence of each, as the broker reads them.
fn stamps(batches: &mut [Batch]) -> Vec<(i16, i32)> {
    let stamp = |batch: &mut Batch| {
        let bytes = batch.encode().expect("small enough");
        let view = BatchView::parse(&bytes).expect("a batch");
        view.check_crc().expect("its checksum");
        (view.producer_epoch(), view.base_sequence())
    };
    batches.iter_mut().map(stamp).collect()
}

fn lost() -> Error {
    Error::new(tonic::Code::Unavailable, reason::CONNECTION_LOST, "the connection broke")
}

#[test]
fn nothing_is_sent_before_the_broker_has_said_who_sends_it() {
    let now = Instant::now();
    let mut accumulator =
        Accumulator::new(ProducerConfig { batch_bytes: LIMIT, ..ProducerConfig::default() });
    let metadata = TopicMetadata { partitions: 1, max_message_bytes: 10 * LIMIT };
    accumulator.set_topic(&topic(), metadata, now + Duration::from_hours(1));
    append(&mut accumulator, None, LIMIT, now);
    assert!(accumulator.lacks_identity() && accumulator.next_ready().is_some());
    assert!(accumulator.take_ready(9, now).is_empty());
    accumulator.set_identity(identity(7, 0));
    assert_eq!(stamps(&mut send(&mut accumulator, now)), [(0, 0)]);
}

#[test]
fn a_batch_goes_alone_until_the_broker_knows_the_producer_then_five_may_be_under_way() {
    let now = Instant::now();
    let mut accumulator = confirmed(7, now);
    let mut sent = send(&mut accumulator, now);
    assert_eq!(stamps(&mut sent), [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]);
    // The broker remembers five: the sixth has to wait for the first, not for any.
    accumulator.appended(&sent[1]);
    accumulator.appended(&sent[2]);
    assert!(send(&mut accumulator, now).is_empty());
    accumulator.appended(&sent[0]);
    assert_eq!(stamps(&mut send(&mut accumulator, now)), [(0, 6), (0, 7)]);
}

#[test]
fn after_an_idle_time_a_batch_goes_alone_again() {
    let now = Instant::now();
    let mut accumulator = confirmed(0, now);
    let later = now + Duration::from_secs(1);
    for _ in 0..2 {
        append(&mut accumulator, None, LIMIT, later);
    }
    let mut sent = send(&mut accumulator, later);
    assert_eq!(stamps(&mut sent), [(0, 1)], "the broker may have forgotten the producer");
    accumulator.appended(&sent[0]);
    assert_eq!(stamps(&mut send(&mut accumulator, later)), [(0, 2)]);
}

#[test]
fn what_was_sent_is_sent_again_in_order_with_its_sequences_and_before_anything_else() {
    let now = Instant::now();
    let mut accumulator = confirmed(6, now);
    let mut sent = send(&mut accumulator, now);
    let bytes = sent[1].encode().expect("small enough");
    let later = now + Duration::from_millis(20);
    // The first fails, and so those behind it.
    for batch in sent.drain(1..).rev() {
        accumulator.out_of_order(batch, now);
    }
    assert!(send(&mut accumulator, now).is_empty(), "the first is under way still");
    accumulator.requeue(sent.remove(0), later);
    assert!(accumulator.take_hopeless(now).is_empty());
    assert!(send(&mut accumulator, now).is_empty(), "nothing overtakes it while it waits");
    assert_eq!(accumulator.next_ready(), Some(later));

    for sequence in 1..=4 {
        let mut again = send(&mut accumulator, later);
        assert_eq!(stamps(&mut again), [(0, sequence)], "alone");
        if sequence == 2 {
            assert_eq!(again[0].encode().expect("small enough"), bytes);
        }
        accumulator.appended(&again[0]);
    }
    assert_eq!(stamps(&mut send(&mut accumulator, later)), [(0, 5), (0, 6)]);
}

#[test]
fn a_batch_that_never_left_leaves_its_sequence_to_the_next() {
    let now = Instant::now();
    let mut accumulator = confirmed(3, now);
    let mut unsent = accumulator.take_ready(1, now);
    accumulator.requeue(unsent.remove(0), now);
    let mut unsent = accumulator.take_ready(1, now);
    accumulator.given_up(&mut unsent[0]);
    assert_eq!(stamps(&mut send(&mut accumulator, now)), [(0, 1), (0, 2)]);
}

#[test]
fn behind_a_gap_that_stays_what_was_refused_begins_the_next_epoch() {
    let now = Instant::now();
    let mut accumulator = confirmed(4, now);
    let mut sent = send(&mut accumulator, now);
    accumulator.given_up(&mut sent[0]);
    let mut rest = sent.drain(1..);
    let (second, third, fourth) = (rest.next(), rest.next(), rest.next());
    accumulator.out_of_order(third.expect("sent"), now);
    accumulator.out_of_order(second.expect("sent"), now);
    assert!(accumulator.take_hopeless(now).is_empty());
    assert!(send(&mut accumulator, now).is_empty(), "one with the old epoch is under way");
    accumulator.out_of_order(fourth.expect("sent"), now);
    assert!(accumulator.take_hopeless(now).is_empty());

    let mut first = send(&mut accumulator, now);
    assert_eq!((numbers(&first), stamps(&mut first)), (vec![2], vec![(1, 0)]), "alone, in a new epoch");
    accumulator.appended(&first[0]);
    let mut others = send(&mut accumulator, now);
    assert_eq!((numbers(&others), stamps(&mut others)), (vec![3, 4], vec![(1, 1), (1, 2)]));
}

#[test]
fn a_batch_that_may_be_appended_is_never_renumbered_but_fails_with_an_unknown_outcome() {
    let now = Instant::now();
    let mut accumulator = confirmed(3, now);
    let mut sent = send(&mut accumulator, now);
    for mut batch in sent.drain(..) {
        if batch.number != 2 {
            batch.unanswered = Some(lost());
        }
        accumulator.requeue(batch, now);
    }
    // The first of the three is given up; then the broker tells that it had not appended it.
    let mut first = send(&mut accumulator, now);
    accumulator.given_up(&mut first[0]);
    let mut second = send(&mut accumulator, now);
    accumulator.out_of_order(second.remove(0), now);
    assert!(send(&mut accumulator, now).is_empty(), "not before the third is dealt with");
    let hopeless = accumulator.take_hopeless(now);
    assert_eq!(numbers(&hopeless), [3]);
    let refusal = Error::new(tonic::Code::ResourceExhausted, reason::STORAGE_FULL, "full");
    let failure = hopeless[0].failure(refusal);
    assert!(failure.is_outcome_unknown() && failure.message().contains("full"), "{failure:?}");
    assert_eq!(stamps(&mut send(&mut accumulator, now)), [(1, 0)]);
}

#[test]
fn after_the_last_epoch_of_an_id_comes_another_id() {
    let now = Instant::now();
    let config = ProducerConfig::default();
    let mut accumulator = accumulator(2, &config, now);
    accumulator.set_identity(identity(7, i16::MAX));
    append(&mut accumulator, None, LIMIT, now);
    let mut sent = send(&mut accumulator, now);
    accumulator.out_of_order(sent.remove(0), now);
    assert!(accumulator.take_hopeless(now).is_empty());
    assert!(accumulator.lacks_identity() && send(&mut accumulator, now).is_empty());
    accumulator.set_identity(identity(8, 0));
    let mut again = send(&mut accumulator, now);
    assert_eq!(stamps(&mut again), [(0, 0)]);
    let bytes = again[0].encode().expect("small enough");
    assert_eq!(BatchView::parse(&bytes).expect("a batch").producer_id(), 8);
}

#[test]
fn without_idempotence_batches_have_no_sequences_and_a_failed_one_keeps_its_place() {
    let now = Instant::now();
    let config =
        ProducerConfig { idempotence: false, max_in_flight_per_partition: 1, ..ProducerConfig::default() };
    let mut accumulator = accumulator(1, &config, now);
    for _ in 0..3 {
        append(&mut accumulator, None, LIMIT, now);
    }
    let mut first = send(&mut accumulator, now);
    assert_eq!((numbers(&first), stamps(&mut first)), (vec![0], vec![(-1, -1)]));
    let later = now + Duration::from_millis(20);
    accumulator.requeue(first.remove(0), later);
    assert!(send(&mut accumulator, now).is_empty());
    let again = send(&mut accumulator, later);
    assert_eq!(numbers(&again), [0]);
    accumulator.appended(&again[0]);
    assert_eq!(numbers(&send(&mut accumulator, later)), [1]);
}

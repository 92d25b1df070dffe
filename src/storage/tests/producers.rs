//! What is remembered of producers: each rule by itself, all of them against a model, and the snapshots.

mod model;
mod snapshots;

use super::super::producers::{
    ProducerBatch, ProducerError, ProducerLimits, ProducerState, Producers, REMEMBERED_BATCHES, Remembered,
    sequence_after,
};
use super::*;
use crate::types::ProducerId;

const LIMITS: ProducerLimits = ProducerLimits { expiration_ms: 1_000, max_producers: 3 };

fn id(id: i64) -> ProducerId {
    ProducerId::new(id).unwrap()
}

fn offset(offset: i64) -> Offset {
    Offset::clamped(offset)
}

fn numbered(producer: i64, epoch: i16, base_sequence: i32, records: u32) -> ProducerBatch {
    ProducerBatch { producer_id: id(producer), epoch, base_sequence, records }
}

/// A log without bytes: steps [`Producers`] as a writer does.
struct Stepped {
    producers: Producers,
    next: Offset,
    synced: Offset,
    now_ms: i64,
}

impl Stepped {
    fn new() -> Self {
        Self { producers: Producers::new(LIMITS), next: Offset::ZERO, synced: Offset::ZERO, now_ms: 0 }
    }

    /// Appends it, or says why not; a duplicate's offset.
    fn append(&mut self, batch: ProducerBatch) -> Result<Option<Offset>, ProducerError> {
        let outcome = self.producers.check(&batch, self.synced, self.now_ms)?;
        if outcome.is_none() {
            self.producers.push(&batch, self.next, self.synced, self.now_ms);
            self.next = self.next.plus(batch.records);
        }
        Ok(outcome)
    }

    /// Ten records a batch, in order and synced, from sequence 0 of epoch 0 on.
    fn fill(&mut self, producer: i64, batches: i32) {
        for i in 0..batches {
            assert_eq!(self.append(numbered(producer, 0, i * 10, 10)), Ok(None));
            self.synced = self.next;
        }
    }

    fn out_of_order(&mut self, batch: ProducerBatch) -> i32 {
        match self.append(batch) {
            Err(ProducerError::OutOfOrder { expected, sequence, .. }) => {
                assert_eq!(sequence, batch.base_sequence);
                expected
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_last_five_batches_are_known_by_their_offsets_and_older_ones_only_as_appended() {
    let mut log = Stepped::new();
    log.fill(7, 8);
    for i in 3..8 {
        assert_eq!(log.append(numbered(7, 0, i * 10, 10)), Ok(Some(offset(i64::from(i) * 10))));
    }
    for i in 0..2 {
        let forgotten = ProducerError::Forgotten { producer_id: id(7), sequence: i * 10 };
        assert_eq!(log.append(numbered(7, 0, i * 10, 10)), Err(forgotten));
    }
    assert_eq!(log.append(numbered(7, 0, 80, 10)), Ok(None), "the next one");
}

#[test]
fn a_gap_or_an_overlap_is_out_of_order() {
    let mut log = Stepped::new();
    log.fill(7, 2);
    assert_eq!(log.out_of_order(numbered(7, 0, 21, 1)), 20, "a gap");
    assert_eq!(log.out_of_order(numbered(7, 0, 10, 9)), 20, "a part of a batch");
    assert_eq!(log.out_of_order(numbered(7, 0, 15, 10)), 20, "a part of one, and more");
    assert_eq!(log.out_of_order(numbered(7, 0, 10, 20)), 20, "all of one, and more");
}

#[test]
fn what_came_before_an_unknown_producer_began_is_not_taken_for_appended() {
    let mut log = Stepped::new();
    for i in 0..10 {
        assert_eq!(log.append(numbered(7, 3, 100 + i, 1)), Ok(None));
        log.synced = log.next;
    }
    let forgotten = ProducerError::Forgotten { producer_id: id(7), sequence: 100 };
    assert_eq!(log.append(numbered(7, 3, 100, 1)), Err(forgotten));
    assert_eq!(log.out_of_order(numbered(7, 3, 99, 1)), 110);
    assert_eq!(log.out_of_order(numbered(7, 3, 99, 2)), 110);
}

#[test]
fn a_higher_epoch_begins_with_0_and_fences_the_lower_one() {
    let mut log = Stepped::new();
    log.fill(7, 2);
    assert_eq!(log.out_of_order(numbered(7, 1, 20, 10)), 0);
    assert_eq!(log.append(numbered(7, 1, 0, 10)), Ok(None));
    let fenced = ProducerError::Fenced { producer_id: id(7), epoch: 0, current: 1 };
    assert_eq!(log.append(numbered(7, 0, 20, 10)), Err(fenced));
    assert_eq!(log.append(numbered(7, 0, 10, 10)), Err(fenced), "not even what it has appended");
    assert_eq!(log.append(numbered(7, 1, 0, 10)), Ok(Some(offset(20))));
    assert_eq!(log.append(numbered(7, 5, 0, 1)), Ok(None), "an epoch need not be the next one");
}

#[test]
fn sequences_go_on_with_0_after_the_greatest() {
    assert_eq!(sequence_after(i32::MAX, 1), 0);
    assert_eq!(sequence_after(i32::MAX - 4, 10), 5);
    let mut log = Stepped::new();
    assert_eq!(log.append(numbered(7, 0, i32::MAX - 4, 10)), Ok(None));
    assert_eq!(log.out_of_order(numbered(7, 0, 6, 1)), 5);
    assert_eq!(log.append(numbered(7, 0, 5, 1)), Ok(None));
    assert_eq!(log.append(numbered(7, 0, i32::MAX - 4, 10)), Ok(Some(Offset::ZERO)));
}

#[test]
fn a_failed_write_takes_back_its_group_and_nothing_else() {
    let mut log = Stepped::new();
    log.fill(7, 2);
    // Written, not synced.
    assert_eq!(log.append(numbered(7, 0, 20, 10)), Ok(None));
    let end = log.next;
    for (epoch, sequence) in [(0, 30), (0, 40), (1, 0), (1, 10)] {
        assert_eq!(log.append(numbered(7, epoch, sequence, 10)), Ok(None));
    }
    log.producers.take_back(id(7), end);
    log.next = end;
    assert_eq!(log.out_of_order(numbered(7, 0, 40, 10)), 30, "it has to come after what was taken back");
    assert_eq!(log.out_of_order(numbered(7, 1, 10, 10)), 0, "the epoch has not begun");
    assert_eq!(log.append(numbered(7, 0, 20, 10)), Ok(Some(offset(20))), "this one stands");
    assert_eq!(log.append(numbered(7, 0, 30, 10)), Ok(None));
}

#[test]
fn after_a_first_batch_that_was_taken_back_only_that_one_may_come() {
    let mut log = Stepped::new();
    assert_eq!(log.append(numbered(7, 2, 50, 10)), Ok(None));
    log.producers.take_back(id(7), Offset::ZERO);
    log.next = Offset::ZERO;
    assert_eq!(log.out_of_order(numbered(7, 2, 60, 10)), 50, "a later one must not take its place");
    assert!(log.producers.at(Offset::ZERO, 0).is_empty(), "on the disk there is nothing of it");
    assert_eq!(log.append(numbered(7, 2, 50, 10)), Ok(None));
}

#[test]
fn a_producer_is_forgotten_when_it_is_idle_for_too_long() {
    let mut log = Stepped::new();
    log.fill(7, 1);
    log.now_ms = LIMITS.expiration_ms;
    assert_eq!(log.out_of_order(numbered(7, 0, 5, 1)), 10, "not yet");
    log.now_ms += 1;
    assert_eq!(log.append(numbered(7, 0, 5, 1)), Ok(None), "it may begin anywhere");
}

#[test]
fn of_too_many_producers_the_one_idle_longest_is_forgotten_once_it_is_synced() {
    let mut log = Stepped::new();
    for producer in [1, 2, 3] {
        log.fill(producer, 1);
    }
    log.append(numbered(1, 0, 10, 1)).unwrap();
    log.append(numbered(4, 0, 0, 1)).unwrap();
    assert_eq!(log.append(numbered(2, 0, 77, 1)), Ok(None), "2 is forgotten, and comes back in place of 3");
    assert_eq!(log.out_of_order(numbered(1, 0, 77, 1)), 11);
    // All of them have something unsynced now: it may yet be taken back, so none is forgotten.
    log.append(numbered(5, 0, 0, 1)).unwrap();
    assert_eq!(log.out_of_order(numbered(1, 0, 77, 1)), 11);
    log.synced = log.next;
    assert_eq!(log.append(numbered(1, 0, 77, 1)), Ok(None));
}

#[test]
fn idle_time_goes_on_after_a_restart_and_no_wall_clock_counts() {
    let mut log = Stepped::new();
    log.fill(7, 1);
    log.now_ms = 600;
    let states = log.producers.at(log.synced, log.now_ms);
    assert_eq!(states[0].idle_ms, 600);
    // The monotonic clock of another process has nothing to do with this one's.
    log.now_ms = 50;
    log.producers = Producers::restore(LIMITS, states, log.now_ms);
    log.now_ms += 400;
    assert_eq!(log.out_of_order(numbered(7, 0, 5, 1)), 10);
    log.now_ms += 1;
    assert_eq!(log.append(numbered(7, 0, 5, 1)), Ok(None));
}

#[test]
fn a_crowd_of_unsynced_batches_asks_for_a_sync() {
    let mut log = Stepped::new();
    let mut appended = 0;
    while !log.producers.take_crowded() {
        log.append(numbered(7, 0, appended, 1)).unwrap();
        appended += 1;
        assert!(appended < 10_000, "it has to be bounded");
    }
    assert!(!log.producers.take_crowded(), "it asks once");
}

#[test]
fn there_is_news_only_after_a_batch_of_a_producer() {
    let mut log = Stepped::new();
    assert!(!log.producers.has_news_since(None));
    log.fill(7, 1);
    assert!(log.producers.has_news_since(None));
    assert!(!log.producers.has_news_since(Some(log.next)));
}

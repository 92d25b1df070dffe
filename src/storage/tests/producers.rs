//! What is remembered of producers, against a model that remembers everything; and the snapshots of it.

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::super::fs::RealFs;
use super::super::producer_snapshot::{self, SnapshotFiles};
use super::super::producers::{
    ProducerBatch, ProducerError, ProducerLimits, ProducerState, Producers, REMEMBERED_BATCHES, Remembered,
    sequence_after,
};
use super::super::small_file;
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

/// A batch as the model keeps it: for ever.
#[derive(Debug, Clone, Copy)]
struct Kept {
    batch: ProducerBatch,
    base_offset: Offset,
}

/// All that one producer has appended and that was not taken back, and where it has to go on after a write that failed
/// with its first batch.
#[derive(Debug, Clone, Default)]
struct History {
    kept: Vec<Kept>,
    resume: Option<(i16, i32)>,
    /// What was synced at its last append: up to there only the last ones are remembered.
    synced: Offset,
}

impl History {
    /// What the answer has to be, told by nothing but what has been appended.
    fn judge(&self, batch: &ProducerBatch) -> Result<Option<Offset>, ProducerError> {
        let ProducerBatch { producer_id, epoch, base_sequence: sequence, .. } = *batch;
        let last = self.kept.last().map(|kept| {
            let last = kept.batch;
            (last.epoch, sequence_after(last.base_sequence, last.records))
        });
        let Some((current, due)) = last.or(self.resume) else { return Ok(None) };
        let out_of_order = |expected| Err(ProducerError::OutOfOrder { producer_id, expected, sequence });
        if epoch != current {
            return match (epoch < current, sequence) {
                (true, _) => Err(ProducerError::Fenced { producer_id, epoch, current }),
                (false, 0) => Ok(None),
                (false, _) => out_of_order(0),
            };
        }
        if sequence == due {
            return Ok(None);
        }
        let of_epoch: Vec<&Kept> = self.kept.iter().filter(|kept| kept.batch.epoch == epoch).collect();
        let synced = of_epoch.iter().filter(|kept| kept.base_offset < self.synced).count();
        let (forgotten, remembered) = of_epoch.split_at(synced.saturating_sub(REMEMBERED_BATCHES));
        if let Some(known) = remembered.iter().find(|kept| kept.batch == *batch) {
            return Ok(Some(known.base_offset));
        }
        let appended = |number: i32| {
            let has = |kept: &&Kept| {
                let ProducerBatch { base_sequence, records, .. } = kept.batch;
                (base_sequence..base_sequence + records as i32).contains(&number)
            };
            forgotten.iter().any(has)
        };
        if (sequence..sequence + batch.records as i32).all(appended) {
            return Err(ProducerError::Forgotten { producer_id, sequence });
        }
        out_of_order(due)
    }
}

#[derive(Debug, Clone, Copy)]
enum Op {
    /// Of this producer, in this epoch above its last one, so many sequences from what is due, so many records.
    Append {
        producer: i64,
        raise: i16,
        ahead: i32,
        records: u32,
    },
    /// Sends one of the last batches again.
    Again {
        producer: i64,
        back: usize,
    },
    WriteFails,
    Write,
    Sync,
    Snapshot,
    Restart,
}

fn any_op() -> impl Strategy<Value = Op> {
    let producer = || 0..3i64;
    prop_oneof![
        8 => (producer(), 1..4u32).prop_map(|(producer, records)| Op::Append { producer, raise: 0, ahead: 0, records }),
        3 => (producer(), -1..=1i16, -12..4i32, 1..4u32)
            .prop_map(|(producer, raise, ahead, records)| Op::Append { producer, raise, ahead, records }),
        4 => (producer(), 0..9usize).prop_map(|(producer, back)| Op::Again { producer, back }),
        1 => Just(Op::WriteFails),
        3 => Just(Op::Write),
        3 => Just(Op::Sync),
        1 => Just(Op::Snapshot),
        1 => Just(Op::Restart),
    ]
}

/// The model beside the real thing, with what is written and synced of both.
struct Compared {
    log: Stepped,
    histories: Vec<History>,
    written: Offset,
    snapshot: (Offset, Vec<ProducerState>),
}

impl Compared {
    fn append(&mut self, batch: ProducerBatch) -> Result<(), TestCaseError> {
        let history = &mut self.histories[batch.producer_id.get() as usize];
        let expected = history.judge(&batch);
        let base_offset = self.log.next;
        let found = self.log.append(batch);
        prop_assert_eq!(found, expected, "{:?} after {:?}", batch, history);
        if found == Ok(None) {
            history.kept.push(Kept { batch, base_offset });
            history.synced = self.log.synced;
        }
        Ok(())
    }

    /// Everything from `end` on is gone.
    fn cut(&mut self, end: Offset, remember: bool) {
        for history in &mut self.histories {
            let lost = history.kept.partition_point(|kept| kept.base_offset < end);
            let first_lost = history.kept.drain(lost..).next();
            if let Some(Kept { batch, .. }) = first_lost.filter(|_| remember && lost == 0) {
                history.resume = Some((batch.epoch, batch.base_sequence));
            }
        }
        self.log.next = end;
    }

    fn step(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Append { producer, raise, ahead, records } => {
                let last = self.histories[producer as usize].kept.last().map(|kept| kept.batch);
                let due = last.map_or(20, |last| last.base_sequence + last.records as i32);
                let epoch = (last.map_or(0, |last| last.epoch) + raise).max(0);
                let base_sequence = if raise > 0 && ahead % 2 == 0 { 0 } else { (due + ahead).max(0) };
                self.append(numbered(producer, epoch, base_sequence, records))?;
            }
            Op::Again { producer, back } => {
                let known = self.histories[producer as usize].kept.iter().rev().nth(back);
                if let Some(batch) = known.map(|kept| kept.batch) {
                    self.append(batch)?;
                }
            }
            Op::WriteFails => {
                for producer in 0..3 {
                    self.log.producers.take_back(id(producer), self.written);
                }
                self.cut(self.written, true);
            }
            Op::Write => self.written = self.log.next,
            Op::Sync => self.log.synced = self.written,
            Op::Snapshot => {
                self.snapshot = (self.log.synced, self.log.producers.at(self.log.synced, self.log.now_ms));
            }
            Op::Restart => {
                // What is written has survived; the rest of the log is replayed into the snapshot.
                self.cut(self.written, false);
                for history in &mut self.histories {
                    history.resume = None;
                    history.synced = self.written;
                }
                let (from, states) = self.snapshot.clone();
                self.log.synced = self.written;
                self.log.producers = Producers::restore(LIMITS, states, self.log.now_ms);
                let mut replay: Vec<_> =
                    self.histories.iter().flat_map(|history| history.kept.clone()).collect();
                replay.retain(|kept| kept.base_offset >= from);
                replay.sort_by_key(|kept| kept.base_offset);
                for Kept { batch, base_offset } in replay {
                    let next = base_offset.plus(batch.records);
                    self.log.producers.push(&batch, base_offset, next, self.log.now_ms);
                }
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_is_remembered_judges_as_a_memory_of_everything_would(ops in prop::collection::vec(any_op(), 1..80)) {
        let mut compared = Compared {
            log: Stepped::new(),
            histories: vec![History::default(); 3],
            written: Offset::ZERO,
            snapshot: (Offset::ZERO, Vec::new()),
        };
        for op in ops {
            compared.step(op)?;
        }
    }

    #[test]
    fn a_snapshot_comes_back_as_it_was(
        shapes in prop::collection::btree_map(0..i64::MAX, any_shape(), 0..5),
        beyond in 0..1_000i64,
    ) {
        let states: Vec<_> = shapes.into_iter().map(|(producer, shape)| shape.state(producer)).collect();
        let end = states.iter().flat_map(|state| &state.batches).map(Remembered::next_offset).max();
        let end = offset(end.unwrap_or_default().get() + beyond);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(producer_snapshot::name(end)), producer_snapshot::encode(end, &states)).unwrap();
        prop_assert_eq!(producer_snapshot::read(&RealFs, dir.path(), end).unwrap(), Some(states));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(body in prop::collection::vec(any::<u8>(), 0..150)) {
        let dir = tempfile::tempdir().unwrap();
        let bytes = small_file::encode(small_file::FileKind::Producers, 1, &body);
        std::fs::write(dir.path().join(producer_snapshot::name(Offset::ZERO)), bytes).unwrap();
        let _ = producer_snapshot::read(&RealFs, dir.path(), Offset::ZERO);
    }
}

#[derive(Debug)]
struct Shape {
    epoch: i16,
    idle_ms: u64,
    before: u32,
    base_sequence: i32,
    /// Of each batch, its records and how far it is from the one before.
    batches: Vec<(u32, i64)>,
}

fn any_shape() -> impl Strategy<Value = Shape> {
    let batches = prop::collection::vec((1..=1u32 << 20, 0..1_000i64), 1..=REMEMBERED_BATCHES);
    (0..=i16::MAX, any::<u64>(), 0..=1u32 << 31, 0..=i32::MAX, batches).prop_map(
        |(epoch, idle_ms, before, base_sequence, batches)| Shape {
            epoch,
            idle_ms,
            before,
            base_sequence,
            batches,
        },
    )
}

impl Shape {
    fn state(self, producer: i64) -> ProducerState {
        let (mut before, mut base_sequence, mut next) = (self.before, self.base_sequence, 0);
        let mut batches = Vec::new();
        for (records, gap) in self.batches {
            let base_offset = offset(next + gap);
            let batch = Remembered { epoch: self.epoch, base_sequence, records, base_offset, before };
            (before, base_sequence, next) =
                (batch.through(), batch.next_sequence(), batch.next_offset().get());
            batches.push(batch);
        }
        ProducerState { producer_id: id(producer), idle_ms: self.idle_ms, batches }
    }
}

#[test]
fn the_format_is_pinned() {
    let first = Remembered { epoch: 2, base_sequence: 5, records: 6, base_offset: offset(7), before: 4 };
    let second = Remembered { epoch: 2, base_sequence: 11, records: 9, base_offset: offset(20), before: 10 };
    let state = ProducerState { producer_id: id(1), idle_ms: 3, batches: vec![first, second] };
    let bytes = producer_snapshot::encode(offset(30), &[state]);
    let body = small_file::decode(small_file::FileKind::Producers, 1, &bytes).unwrap();
    let mut expected = 30u64.to_be_bytes().to_vec();
    expected.extend(1u32.to_be_bytes());
    expected.extend(1u64.to_be_bytes());
    expected.extend([0, 2]);
    expected.extend(3u64.to_be_bytes());
    expected.extend(4u32.to_be_bytes());
    expected.extend(5u32.to_be_bytes());
    expected.push(2);
    for (base_offset, records) in [(7u64, 6u32), (20, 9)] {
        expected.extend(base_offset.to_be_bytes());
        expected.extend(records.to_be_bytes());
    }
    assert_eq!(body, expected);
}

#[test]
fn snapshots_are_found_by_their_names() {
    let names = [
        "00000000000000000030.snapshot",
        "7.snapshot",
        "00000000000000000009.snapshot",
        "00000000000000000001.log",
    ];
    let found: Vec<_> = SnapshotFiles::among(names.into_iter()).descending().collect();
    assert_eq!(found, [offset(30), offset(9)]);
    assert!(producer_snapshot::is_temporary("00000000000000000030.snapshot.tmp"));
    assert!(!producer_snapshot::is_temporary("00000000000000000030.snapshot"));
    assert!(!producer_snapshot::is_temporary("seals.tmp"));
}

//! A model that remembers everything, beside the real thing.

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::*;

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
}

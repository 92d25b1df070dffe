//! What was sent to one partition and what was acknowledged, kept outside the server, and the judgement on what a
//! reader finds there afterwards.
//!
//! The promise judged: every acknowledged batch is there once, at its acknowledged offset; any other is there once
//! and whole, or not at all; the batches of one writer are in the order they were sent; offsets have no gap; and what a
//! reader has once seen stays.
//!
//! To judge again and again costs by the length of the log. So a judgement may be of a [`Scope::Recent`]: of what came
//! since the one before the last. What the last one saw for the first time is then judged once more; what lies further back
//! waits for a judgement of [`Scope::All`].

use std::collections::{BTreeMap, HashMap};
use std::ops::AddAssign;

use bytes::Bytes;

/// Names a batch: a writer sends its batches in the order of their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    /// Who sent it.
    pub writer: u32,
    /// Which of the writer's batches it is.
    pub number: u64,
}

/// How the promise was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Breach {
    /// An offset was left out, or came twice.
    Gap {
        /// The offset that had to come.
        expected: i64,
        /// The one that came.
        found: i64,
    },
    /// A record that was not sent, or that a reader before had found missing.
    Unknown {
        /// Where it lies.
        offset: i64,
    },
    /// A batch lies in the log twice.
    Twice {
        /// The batch.
        batch: BatchId,
        /// Where it lies first.
        first: i64,
        /// Where it lies again.
        again: i64,
    },
    /// Only some records of a batch are there, or they are out of order.
    Torn {
        /// The batch.
        batch: BatchId,
        /// Where it goes wrong.
        offset: i64,
    },
    /// A batch that was acknowledged, or once seen, is not there.
    Lost {
        /// The batch.
        batch: BatchId,
        /// Where it has to be.
        offset: i64,
    },
    /// A batch lies elsewhere than its acknowledgement said.
    Moved {
        /// The batch.
        batch: BatchId,
        /// Where it has to be.
        acknowledged: i64,
        /// Where it is.
        found: i64,
    },
    /// A batch lies behind a later one of the same writer.
    Disordered {
        /// The batch.
        batch: BatchId,
        /// The number of the later one.
        behind: u64,
    },
}

/// How far back a judgement goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// To offset 0.
    All,
    /// To where the log ended at the judgement before the last.
    Recent,
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settled {
    /// Batches in the log, as far as it was read.
    pub batches: usize,
    /// Of these, batches whose acknowledgement never came.
    pub survived_unacknowledged: usize,
    /// Batches that were sent, not acknowledged, and are not there.
    pub absent: usize,
    /// Batches that were acknowledged and are gone, where that is allowed.
    pub lost: usize,
}

impl AddAssign for Settled {
    fn add_assign(&mut self, other: Self) {
        self.batches += other.batches;
        self.survived_unacknowledged += other.survived_unacknowledged;
        self.absent += other.absent;
        self.lost += other.lost;
    }
}

/// What was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Batches.
    pub batches: u64,
    /// Their records.
    pub records: u64,
    /// Batches that had been found in the log before, sent again, and acknowledged where they were.
    pub repeated: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.batches += other.batches;
        self.records += other.records;
        self.repeated += other.repeated;
    }
}

/// The ledger of one partition.
#[derive(Debug, Default)]
pub struct Ledger {
    batches: BTreeMap<BatchId, Batch>,
    /// Where the log ended when it was judged last.
    settled_end: i64,
    /// ... and at the judgement before.
    recent: i64,
    totals: Totals,
}

#[derive(Debug)]
struct Batch {
    /// Unlike those of any other batch.
    values: Vec<Bytes>,
    /// Known once it is acknowledged or has been found in the log.
    base_offset: Option<i64>,
    acknowledged: bool,
}

impl Ledger {
    /// Notes a batch before it is sent. No two records of a ledger may have the same value.
    pub fn sent(&mut self, id: BatchId, values: Vec<Bytes>) {
        self.batches.insert(id, Batch { values, base_offset: None, acknowledged: false });
    }

    /// Notes that a batch is sent again by someone who does not know what became of it.
    pub fn sent_again(&mut self, id: BatchId, values: &[Bytes]) {
        let unknown = || Batch { values: values.to_vec(), base_offset: None, acknowledged: false };
        self.batches.entry(id).or_insert_with(unknown);
    }

    /// Notes an acknowledgement.
    ///
    /// # Panics
    /// If the batch was never sent, was acknowledged before, or had been found elsewhere.
    pub fn acknowledged(&mut self, id: BatchId, base_offset: i64) {
        let Some(batch) = self.batches.get_mut(&id) else { panic!("{id:?} was acknowledged, but not sent") };
        assert!(!batch.acknowledged, "{id:?} was acknowledged twice");
        batch.acknowledged = true;
        if let Some(found) = batch.base_offset.replace(base_offset) {
            assert_eq!(base_offset, found, "{id:?} lies elsewhere than is said when it is sent again");
            self.totals.repeated += 1;
        }
        self.totals.batches += 1;
        self.totals.records += batch.values.len() as u64;
    }

    /// All that was acknowledged.
    pub const fn totals(&self) -> Totals {
        self.totals
    }

    /// From which offset on a judgement of this scope needs the records.
    pub const fn from(&self, scope: Scope) -> i64 {
        match scope {
            Scope::All => 0,
            Scope::Recent => self.recent,
        }
    }

    /// Judges the partition, read [from](Self::from) where the scope begins to its end, with no writer about. Afterwards
    /// the ledger holds what is there: all of it has to stay, and what is not there must not come back.
    ///
    /// # Errors
    /// The first [`Breach`].
    pub fn settle(&mut self, scope: Scope, records: &[(i64, Bytes)]) -> Result<Settled, Breach> {
        self.settle_below(i64::MAX, scope, records)
    }

    /// As [`settle`](Self::settle), but of what was acknowledged since the last judgement some may be missing, from the
    /// end: what a power cut may do to `durability = os`.
    ///
    /// # Errors
    /// The first [`Breach`].
    pub fn settle_prefix(&mut self, scope: Scope, records: &[(i64, Bytes)]) -> Result<Settled, Breach> {
        let end = self.from(scope) + records.len() as i64;
        self.settle_below(self.settled_end.max(end), scope, records)
    }

    /// Nothing that was acknowledged at an offset below `bound` may be missing.
    fn settle_below(
        &mut self,
        bound: i64,
        scope: Scope,
        records: &[(i64, Bytes)],
    ) -> Result<Settled, Breach> {
        let from = self.from(scope);
        let found = self.locate(from, records)?;
        let mut settled = Settled { batches: found.len(), ..Settled::default() };
        let in_scope = |batch: &Batch| batch.base_offset.is_none_or(|offset| offset >= from);
        for (&batch, known) in self.batches.iter().filter(|(_, batch)| in_scope(batch)) {
            match (known.base_offset, found.get(&batch)) {
                (Some(offset), None) if offset < bound => return Err(Breach::Lost { batch, offset }),
                (Some(_), None) => settled.lost += 1,
                (Some(acknowledged), Some(&found)) if acknowledged != found => {
                    return Err(Breach::Moved { batch, acknowledged, found });
                }
                (Some(_), Some(_)) => {}
                (None, Some(_)) => settled.survived_unacknowledged += 1,
                (None, None) => settled.absent += 1,
            }
        }
        self.batches.retain(|id, batch| !in_scope(batch) || found.contains_key(id));
        for (id, offset) in found {
            if let Some(batch) = self.batches.get_mut(&id) {
                batch.base_offset = Some(offset);
            }
        }
        self.recent = self.settled_end;
        self.settled_end = from + records.len() as i64;
        Ok(settled)
    }

    /// Where each batch begins, if the records are a sequence of whole batches.
    fn locate(&self, from: i64, records: &[(i64, Bytes)]) -> Result<HashMap<BatchId, i64>, Breach> {
        let (mut owners, mut last_of_writer) = (HashMap::new(), HashMap::new());
        for (id, batch) in &self.batches {
            if batch.base_offset.is_some_and(|offset| offset < from) {
                // Batches come by their numbers, so that the last one stays.
                last_of_writer.insert(id.writer, id.number);
            } else {
                owners.extend(batch.values.iter().map(|value| (value, (*id, batch))));
            }
        }
        for (expected, &(found, _)) in (from..).zip(records) {
            if expected != found {
                return Err(Breach::Gap { expected, found });
            }
        }
        let mut found = HashMap::new();
        let mut rest = records;
        while let Some((offset, value)) = rest.first() {
            let &(id, batch) = owners.get(value).ok_or(Breach::Unknown { offset: *offset })?;
            let mut here = rest.iter();
            for value in &batch.values {
                match here.next() {
                    Some((_, found)) if found == value => {}
                    Some((offset, _)) => return Err(Breach::Torn { batch: id, offset: *offset }),
                    None => return Err(Breach::Torn { batch: id, offset: from + records.len() as i64 }),
                }
            }
            rest = here.as_slice();
            if let Some(first) = found.insert(id, *offset) {
                return Err(Breach::Twice { batch: id, first, again: *offset });
            }
            if let Some(behind) = last_of_writer.insert(id.writer, id.number)
                && behind > id.number
            {
                return Err(Breach::Disordered { batch: id, behind });
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: BatchId = BatchId { writer: 1, number: 1 };
    const SECOND: BatchId = BatchId { writer: 1, number: 2 };

    /// Batch 1 (a, b) acknowledged at 0, batch 2 (c, d) sent.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.sent(FIRST, vec!["a".into(), "b".into()]);
        ledger.sent(SECOND, vec!["c".into(), "d".into()]);
        ledger.acknowledged(FIRST, 0);
        ledger
    }

    /// One record for each letter, from offset 0.
    fn log(values: &str) -> Vec<(i64, Bytes)> {
        (0..).zip(values.chars().map(|value| Bytes::from(value.to_string()))).collect()
    }

    #[test]
    fn an_unacknowledged_batch_may_be_whole_or_absent() {
        assert_eq!(
            ledger().settle(Scope::All, &log("ab")),
            Ok(Settled { batches: 1, absent: 1, ..Settled::default() })
        );
        assert_eq!(
            ledger().settle(Scope::All, &log("abcd")),
            Ok(Settled { batches: 2, survived_unacknowledged: 1, ..Settled::default() })
        );
    }

    #[test]
    fn a_torn_batch_is_a_breach() {
        assert_eq!(ledger().settle(Scope::All, &log("abc")), Err(Breach::Torn { batch: SECOND, offset: 3 }));
        assert_eq!(ledger().settle(Scope::All, &log("abd")), Err(Breach::Torn { batch: SECOND, offset: 2 }));
        assert_eq!(ledger().settle(Scope::All, &log("acdb")), Err(Breach::Torn { batch: FIRST, offset: 1 }));
    }

    #[test]
    fn a_lost_acknowledged_batch_is_a_breach() {
        assert_eq!(ledger().settle(Scope::All, &log("")), Err(Breach::Lost { batch: FIRST, offset: 0 }));
        assert_eq!(ledger().settle(Scope::All, &log("cd")), Err(Breach::Lost { batch: FIRST, offset: 0 }));
    }

    #[test]
    fn a_moved_batch_is_a_breach() {
        let mut ledger = ledger();
        ledger.acknowledged(SECOND, 7);
        assert_eq!(
            ledger.settle(Scope::All, &log("abcd")),
            Err(Breach::Moved { batch: SECOND, acknowledged: 7, found: 2 })
        );
    }

    #[test]
    fn a_batch_found_twice_is_a_breach() {
        assert_eq!(
            ledger().settle(Scope::All, &log("abab")),
            Err(Breach::Twice { batch: FIRST, first: 0, again: 2 })
        );
    }

    #[test]
    fn a_writers_batches_out_of_order_are_a_breach() {
        assert_eq!(
            ledger().settle(Scope::All, &log("cdab")),
            Err(Breach::Disordered { batch: FIRST, behind: 2 })
        );
    }

    #[test]
    fn a_gap_and_an_unknown_record_are_breaches() {
        let mut records = log("ab");
        records[1].0 = 2;
        assert_eq!(ledger().settle(Scope::All, &records), Err(Breach::Gap { expected: 1, found: 2 }));
        assert_eq!(ledger().settle(Scope::All, &log("abx")), Err(Breach::Unknown { offset: 2 }));
    }

    #[test]
    fn what_was_once_seen_stays_and_what_was_absent_does_not_come_back() {
        let mut seen = ledger();
        seen.settle(Scope::All, &log("abcd")).expect("both are there");
        assert_eq!(seen.settle(Scope::All, &log("ab")), Err(Breach::Lost { batch: SECOND, offset: 2 }));

        let mut absent = ledger();
        absent.settle(Scope::All, &log("ab")).expect("the second may be absent");
        assert_eq!(absent.settle(Scope::All, &log("abcd")), Err(Breach::Unknown { offset: 2 }));
    }

    #[test]
    fn a_prefix_may_lack_the_acknowledged_end_and_nothing_else() {
        let mut ledger = ledger();
        ledger.acknowledged(SECOND, 2);
        assert_eq!(
            ledger.settle_prefix(Scope::All, &log("cd")),
            Err(Breach::Lost { batch: FIRST, offset: 0 })
        );
        assert_eq!(
            ledger.settle_prefix(Scope::All, &log("ab")),
            Ok(Settled { batches: 1, lost: 1, ..Settled::default() })
        );
        // What was there at the last judgement stays.
        assert_eq!(ledger.settle_prefix(Scope::All, &log("")), Err(Breach::Lost { batch: FIRST, offset: 0 }));
    }

    /// Three judgements; before each another batch (a, b), (c, d), (e, f) is acknowledged.
    fn judged_three_times() -> Ledger {
        let mut ledger = Ledger::default();
        for (number, values) in (1..).zip(["ab", "abcd", "abcdef"]) {
            let batch = BatchId { writer: 1, number };
            let base_offset = values.len() as i64 - 2;
            ledger.sent(
                batch,
                log(values)[values.len() - 2..].iter().map(|(_, value)| value.clone()).collect(),
            );
            ledger.acknowledged(batch, base_offset);
            ledger.settle(Scope::All, &log(values)).expect("all are there");
        }
        ledger
    }

    #[test]
    fn a_recent_judgement_sees_what_came_since_the_one_before_the_last() {
        let mut ledger = judged_three_times();
        assert_eq!(ledger.from(Scope::Recent), 4);
        let third = BatchId { writer: 1, number: 3 };
        assert_eq!(ledger.settle(Scope::Recent, &[]), Err(Breach::Lost { batch: third, offset: 4 }));
        let recent = &log("abcdef")[4..];
        assert_eq!(ledger.settle(Scope::Recent, recent), Ok(Settled { batches: 1, ..Settled::default() }));
        // What lies further back is for one that sees all.
        assert_eq!(
            ledger.settle(Scope::All, &log("abcdef")[..4]),
            Err(Breach::Lost { batch: third, offset: 4 })
        );
    }

    #[test]
    fn a_recent_judgement_knows_the_order_of_what_it_does_not_see() {
        let mut ledger = judged_three_times();
        ledger.settle(Scope::Recent, &log("abcdef")[4..]).expect("it is there");
        ledger.sent(BatchId { writer: 1, number: 0 }, vec!["z".into()]);
        assert_eq!(
            ledger.settle(Scope::Recent, &[(6, "z".into())]),
            Err(Breach::Disordered { batch: BatchId { writer: 1, number: 0 }, behind: 3 })
        );
        // A second copy of something further back.
        assert_eq!(ledger.settle(Scope::Recent, &[(6, "a".into())]), Err(Breach::Unknown { offset: 6 }));
    }

    #[test]
    fn a_batch_sent_again_is_acknowledged_where_it_was_found() {
        let mut ledger = ledger();
        ledger.settle(Scope::All, &log("abcd")).expect("both are there");
        ledger.sent_again(SECOND, &["c".into(), "d".into()]);
        ledger.acknowledged(SECOND, 2);
        assert_eq!(ledger.totals(), Totals { batches: 2, records: 4, repeated: 1 });
        ledger.settle(Scope::All, &log("abcd")).expect("both are there");
    }
}

//! What was sent to one partition and what was acknowledged, kept outside the server, and the judgement on what a
//! reader finds there afterwards.
//!
//! The promise judged: every acknowledged batch is there once, at its acknowledged offset; any other is there once
//! and whole, or not at all; the batches of one writer are in the order they were sent; offsets have no gap; and what a
//! reader has once seen stays.

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

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settled {
    /// Batches in the log.
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

/// The ledger of one partition.
#[derive(Debug, Default)]
pub struct Ledger {
    batches: BTreeMap<BatchId, Batch>,
    /// Where the log ended when it was judged last.
    settled_end: i64,
}

#[derive(Debug)]
struct Batch {
    /// Unlike those of any other batch.
    values: Vec<Bytes>,
    /// Known once it is acknowledged or has been found in the log.
    base_offset: Option<i64>,
}

impl Ledger {
    /// Notes a batch before it is sent. No two records of a ledger may have the same value.
    pub fn sent(&mut self, id: BatchId, values: Vec<Bytes>) {
        self.batches.insert(id, Batch { values, base_offset: None });
    }

    /// Notes an acknowledgement.
    ///
    /// # Panics
    /// If the batch was never sent, or was acknowledged before.
    pub fn acknowledged(&mut self, id: BatchId, base_offset: i64) {
        let Some(batch) = self.batches.get_mut(&id) else { panic!("{id:?} was acknowledged, but not sent") };
        assert_eq!(batch.base_offset, None, "{id:?} was acknowledged twice");
        batch.base_offset = Some(base_offset);
    }

    /// Judges the whole partition, read from offset 0 with no writer about. Afterwards the ledger holds what is there:
    /// all of it has to stay, and what is not there must not come back.
    ///
    /// # Errors
    /// The first [`Breach`].
    pub fn settle(&mut self, records: &[(i64, Bytes)]) -> Result<Settled, Breach> {
        self.settle_below(i64::MAX, records)
    }

    /// As [`settle`](Self::settle), but of what was acknowledged since the last judgement some may be missing, from the
    /// end: what a power cut may do to `durability = os`.
    ///
    /// # Errors
    /// The first [`Breach`].
    pub fn settle_prefix(&mut self, records: &[(i64, Bytes)]) -> Result<Settled, Breach> {
        self.settle_below(self.settled_end.max(records.len() as i64), records)
    }

    /// Nothing that was acknowledged at an offset below `bound` may be missing.
    fn settle_below(&mut self, bound: i64, records: &[(i64, Bytes)]) -> Result<Settled, Breach> {
        let found = self.locate(records)?;
        let mut settled = Settled { batches: found.len(), ..Settled::default() };
        for (&batch, known) in &self.batches {
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
        self.batches.retain(|id, _| found.contains_key(id));
        for (id, batch) in &mut self.batches {
            batch.base_offset = found.get(id).copied();
        }
        self.settled_end = records.len() as i64;
        Ok(settled)
    }

    /// Where each batch begins, if the records are a sequence of whole batches.
    fn locate(&self, records: &[(i64, Bytes)]) -> Result<HashMap<BatchId, i64>, Breach> {
        let mut owners = HashMap::new();
        for (id, batch) in &self.batches {
            owners.extend(batch.values.iter().map(|value| (value, (*id, batch))));
        }
        for (expected, &(found, _)) in (0..).zip(records) {
            if expected != found {
                return Err(Breach::Gap { expected, found });
            }
        }
        let mut found = HashMap::new();
        let mut last_of_writer = HashMap::new();
        let mut rest = records;
        while let Some((offset, value)) = rest.first() {
            let &(id, batch) = owners.get(value).ok_or(Breach::Unknown { offset: *offset })?;
            let mut here = rest.iter();
            for value in &batch.values {
                match here.next() {
                    Some((_, found)) if found == value => {}
                    Some((offset, _)) => return Err(Breach::Torn { batch: id, offset: *offset }),
                    None => return Err(Breach::Torn { batch: id, offset: records.len() as i64 }),
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
        assert_eq!(ledger().settle(&log("ab")), Ok(Settled { batches: 1, absent: 1, ..Settled::default() }));
        assert_eq!(
            ledger().settle(&log("abcd")),
            Ok(Settled { batches: 2, survived_unacknowledged: 1, ..Settled::default() })
        );
    }

    #[test]
    fn a_torn_batch_is_a_breach() {
        assert_eq!(ledger().settle(&log("abc")), Err(Breach::Torn { batch: SECOND, offset: 3 }));
        assert_eq!(ledger().settle(&log("abd")), Err(Breach::Torn { batch: SECOND, offset: 2 }));
        assert_eq!(ledger().settle(&log("acdb")), Err(Breach::Torn { batch: FIRST, offset: 1 }));
    }

    #[test]
    fn a_lost_acknowledged_batch_is_a_breach() {
        assert_eq!(ledger().settle(&log("")), Err(Breach::Lost { batch: FIRST, offset: 0 }));
        assert_eq!(ledger().settle(&log("cd")), Err(Breach::Lost { batch: FIRST, offset: 0 }));
    }

    #[test]
    fn a_moved_batch_is_a_breach() {
        let mut ledger = ledger();
        ledger.acknowledged(SECOND, 7);
        assert_eq!(
            ledger.settle(&log("abcd")),
            Err(Breach::Moved { batch: SECOND, acknowledged: 7, found: 2 })
        );
    }

    #[test]
    fn a_batch_found_twice_is_a_breach() {
        assert_eq!(ledger().settle(&log("abab")), Err(Breach::Twice { batch: FIRST, first: 0, again: 2 }));
    }

    #[test]
    fn a_writers_batches_out_of_order_are_a_breach() {
        assert_eq!(ledger().settle(&log("cdab")), Err(Breach::Disordered { batch: FIRST, behind: 2 }));
    }

    #[test]
    fn a_gap_and_an_unknown_record_are_breaches() {
        let mut records = log("ab");
        records[1].0 = 2;
        assert_eq!(ledger().settle(&records), Err(Breach::Gap { expected: 1, found: 2 }));
        assert_eq!(ledger().settle(&log("abx")), Err(Breach::Unknown { offset: 2 }));
    }

    #[test]
    fn what_was_once_seen_stays_and_what_was_absent_does_not_come_back() {
        let mut seen = ledger();
        seen.settle(&log("abcd")).expect("both are there");
        assert_eq!(seen.settle(&log("ab")), Err(Breach::Lost { batch: SECOND, offset: 2 }));

        let mut absent = ledger();
        absent.settle(&log("ab")).expect("the second may be absent");
        assert_eq!(absent.settle(&log("abcd")), Err(Breach::Unknown { offset: 2 }));
    }

    #[test]
    fn a_prefix_may_lack_the_acknowledged_end_and_nothing_else() {
        let mut ledger = ledger();
        ledger.acknowledged(SECOND, 2);
        assert_eq!(ledger.settle_prefix(&log("cd")), Err(Breach::Lost { batch: FIRST, offset: 0 }));
        assert_eq!(
            ledger.settle_prefix(&log("ab")),
            Ok(Settled { batches: 1, lost: 1, ..Settled::default() })
        );
        // What was there at the last judgement stays.
        assert_eq!(ledger.settle_prefix(&log("")), Err(Breach::Lost { batch: FIRST, offset: 0 }));
    }
}

//! One log as it ought to be.

use std::collections::BTreeMap;

use super::super::super::Durability;
use crate::types::Offset;

/// One log as it ought to be.
#[derive(Default)]
pub(in super::super) struct Model {
    pub(super) durability: Durability,
    /// By number: how many records a batch has.
    pub(super) sent: BTreeMap<u64, u32>,
    /// By number: the offset at which alone it may be.
    pub(super) expected: BTreeMap<u64, Offset>,
    /// Acknowledged, and not lost by a power cut that was allowed to: by offset, the batch's number.
    pub(super) acknowledged: BTreeMap<i64, u64>,
    pub(super) log_start: i64,
    /// What a reader has seen, or could have: one past the last offset.
    pub(super) visible: i64,
    /// What readers have seen: by offset, the batch's number.
    pub(super) seen: BTreeMap<i64, u64>,
}

impl Model {
    /// A log with nothing in it.
    pub(in super::super) fn new(durability: Durability) -> Self {
        Self { durability, ..Self::default() }
    }

    /// Whether `found`, all batches from `from` to `end`, is what it may be.
    pub(super) fn check(&self, found: &BTreeMap<i64, u64>, from: i64, end: i64) {
        let mut next = from;
        for (base, number) in found {
            let count = i64::from(self.sent[number]);
            assert!(*base == next || (*base < from && base + count > from), "a hole at {next}");
            next = base + count;
        }
        assert!(next == end || (next == from && from == end), "the log ends with {next}, not {end}");
        for (base, number) in self.acknowledged.range(from..) {
            assert_eq!(found.get(base), Some(number), "offset {base} was acknowledged");
        }
        for (base, number) in self.seen.range(from..) {
            assert_eq!(found.get(base), Some(number), "offset {base} was seen with something else");
        }
        let mut numbers: Vec<u64> = found.values().copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), found.len(), "a batch is there twice");
    }
}

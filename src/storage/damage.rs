//! What is known to be unreadable in one segment: found by recovery or by a read, remembered so that nobody has to look
//! for its limits again.

use std::ops::Range;

use parking_lot::RwLock;

use crate::types::Offset;

/// A part of a segment that holds no batch that can be trusted. What lies on both sides of it is good, or not looked at
/// yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage {
    /// Where it lies in the log file. Empty if the file ends too early.
    pub(super) positions: Range<u64>,
    /// The first offset that was there.
    pub(super) first: Offset,
    /// One past the last offset that was there.
    pub(super) next: Offset,
    /// What was found.
    pub(super) detail: String,
}

/// The damages of a segment, by offset.
#[derive(Debug, Default)]
pub(super) struct Damages(RwLock<Vec<Damage>>);

impl Damages {
    /// Remembers one; what adjoins it becomes one with it.
    pub(super) fn add(&self, mut damage: Damage) {
        let mut known = self.0.write();
        known.retain(|other| {
            let apart = other.next < damage.first || damage.next < other.first;
            if !apart {
                damage.first = damage.first.min(other.first);
                damage.next = damage.next.max(other.next);
                damage.positions.start = damage.positions.start.min(other.positions.start);
                damage.positions.end = damage.positions.end.max(other.positions.end);
            }
            apart
        });
        let at = known.partition_point(|other| other.first < damage.first);
        known.insert(at, damage);
    }

    /// The one that `offset` lies in.
    pub(super) fn holding(&self, offset: Offset) -> Option<Damage> {
        let known = self.0.read();
        let at = known.partition_point(|damage| damage.next <= offset);
        known.get(at).filter(|damage| damage.first <= offset).cloned()
    }

    /// The end of the last one before `offset`: where a batch begins, and with which offset.
    pub(super) fn end_before(&self, offset: Offset) -> Option<(u64, Offset)> {
        let known = self.0.read();
        let at = known.partition_point(|damage| damage.next <= offset);
        let last = known.get(at.checked_sub(1)?)?;
        Some((last.positions.end, last.next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn damage(positions: Range<u64>, offsets: Range<i64>) -> Damage {
        let (first, next) = (Offset::clamped(offsets.start), Offset::clamped(offsets.end));
        Damage { positions, first, next, detail: String::new() }
    }

    #[test]
    fn damages_are_found_by_offset_and_grow_together() {
        let damages = Damages::default();
        damages.add(damage(500..600, 50..60));
        damages.add(damage(100..200, 10..20));
        let first = |offset| damages.holding(Offset::clamped(offset)).map(|damage| damage.first.get());
        assert_eq!([9, 10, 19, 20, 59, 60].map(first), [None, Some(10), Some(10), None, Some(50), None]);
        let end = |offset| damages.end_before(Offset::clamped(offset)).map(|(at, next)| (at, next.get()));
        assert_eq!([19, 20, 59, 60].map(end), [None, Some((200, 20)), Some((200, 20)), Some((600, 60))]);
        damages.add(damage(200..500, 20..50));
        assert_eq!(damages.holding(Offset::clamped(30)), Some(damage(100..600, 10..60)));
    }
}

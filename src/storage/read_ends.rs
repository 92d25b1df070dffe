//! Where the latest reads of a segment have ended: whoever reads one after the other goes on from there without asking the
//! index.

use parking_lot::Mutex;

use crate::types::Offset;

/// Readers of one segment that are told apart.
const READERS: usize = 16;

/// The latest ends.
#[derive(Debug, Default)]
pub(super) struct ReadEnds(Mutex<Vec<(Offset, u64)>>);

impl ReadEnds {
    /// Where the batch that begins with `offset` lies, if a read has ended before it.
    pub(super) fn position(&self, offset: Offset) -> Option<u64> {
        self.0.lock().iter().find(|(next, _)| *next == offset).map(|(_, position)| *position)
    }

    /// A read that began with `from` ended at `position`, before the batch that begins with `next`.
    pub(super) fn note(&self, from: Offset, next: Offset, position: u64) {
        let mut ends = self.0.lock();
        // A reader has one place. Of more readers than are told apart, the one that came first is forgotten.
        let before = ends.iter().position(|(offset, _)| *offset == from || *offset == next);
        if let Some(at) = before.or_else(|| (ends.len() >= READERS).then_some(0)) {
            ends.remove(at);
        }
        ends.push((next, position));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_goes_on_from_where_it_has_ended_and_takes_one_place() {
        let ends = ReadEnds::default();
        let offset = Offset::clamped;
        ends.note(offset(0), offset(10), 100);
        ends.note(offset(505), offset(515), 5_100);
        for read in 1..100 {
            ends.note(offset(read * 10), offset(read * 10 + 10), read as u64 * 100 + 100);
        }
        assert_eq!(ends.position(offset(1_000)), Some(10_000));
        assert_eq!(ends.position(offset(515)), Some(5_100), "another reader keeps its place");
        assert_eq!(ends.position(offset(20)), None);
        for reader in 0..READERS as i64 {
            ends.note(offset(10_000 + reader), offset(20_000 + reader), 1);
        }
        assert_eq!(ends.position(offset(1_000)), None, "there is room for so many only");
    }
}

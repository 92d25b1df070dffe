//! Which of a writer's logs have their files open for writing, so that no more of them do than the budget allows.

use std::collections::{BTreeMap, HashMap};

use super::writer::LogNumber;

/// The logs with an open file, in the order of their last use.
#[derive(Debug)]
pub(super) struct OpenLogs {
    max: usize,
    next_turn: u64,
    by_turn: BTreeMap<u64, LogNumber>,
    turns: HashMap<LogNumber, u64>,
}

impl OpenLogs {
    /// At most `max` at a time, and at least one.
    pub(super) fn new(max: usize) -> Self {
        Self { max: max.max(1), next_turn: 0, by_turn: BTreeMap::new(), turns: HashMap::new() }
    }

    /// Whether the file of another log has to be closed before that of `log` is opened.
    pub(super) fn must_make_room(&self, log: LogNumber) -> bool {
        !self.turns.contains_key(&log) && self.turns.len() >= self.max
    }

    /// The logs, the one first whose last use is longest ago.
    pub(super) fn oldest_first(&self) -> impl Iterator<Item = LogNumber> {
        self.by_turn.values().copied()
    }

    /// The file of `log` is used, and opened if it was not.
    pub(super) fn used(&mut self, log: LogNumber) {
        self.closed(log);
        self.by_turn.insert(self.next_turn, log);
        self.turns.insert(log, self.next_turn);
        self.next_turn += 1;
    }

    /// The file of `log` is closed, if it was open.
    pub(super) fn closed(&mut self, log: LogNumber) {
        if let Some(turn) = self.turns.remove(&log) {
            self.by_turn.remove(&turn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_whose_last_use_is_longest_ago_comes_first() {
        let mut open = OpenLogs::new(3);
        for log in [1, 2, 3, 1] {
            assert!(!open.must_make_room(log));
            open.used(log);
        }
        assert_eq!(open.oldest_first().collect::<Vec<_>>(), [2, 3, 1]);
        assert!(open.must_make_room(4) && !open.must_make_room(2));
        open.closed(3);
        assert!(!open.must_make_room(4));
        assert_eq!(open.oldest_first().collect::<Vec<_>>(), [2, 1]);
    }
}

//! Holds the leader epochs of batches against the log's list of epochs.

use super::super::epochs::LeaderEpochs;
use crate::types::{LeaderEpoch, Offset};

/// The list, and how far the log has been walked.
pub(super) struct EpochCheck {
    /// `None`: the list cannot be read, which has been told.
    epochs: Option<LeaderEpochs>,
    /// Epochs that began here or later may be missing from the list: it is written with the recovery points.
    listed_to: Offset,
    last: LeaderEpoch,
}

impl EpochCheck {
    pub(super) fn new(epochs: Option<LeaderEpochs>, listed_to: Offset) -> Self {
        Self { epochs, listed_to, last: LeaderEpoch::default() }
    }

    /// The next batch of the log. What was expected and found, if that is not the same.
    pub(super) fn batch(&mut self, found: LeaderEpoch, base: Offset) -> Option<(String, String)> {
        // What is wrong is told once: those after it are held against this one.
        let before = std::mem::replace(&mut self.last, found);
        if found < before {
            return Some((format!("an epoch of at least {before}, as of the batch before"), of(found)));
        }
        let listed = self.epochs.as_ref()?.at(base);
        let is_newer = base >= self.listed_to && listed.is_none_or(|listed| found > listed);
        if is_newer || listed == Some(found) {
            return None;
        }
        let expected = match listed {
            Some(listed) => format!("leader epoch {listed}, as the file leader-epochs says"),
            None => "a leader epoch that the file leader-epochs lists".to_owned(),
        };
        self.last = before;
        Some((expected, of(found)))
    }
}

fn of(found: LeaderEpoch) -> String {
    format!("leader epoch {found}")
}

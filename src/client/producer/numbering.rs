//! How the batches of one partition are numbered, so that the broker appends each of them once, however often it is sent.
//!
//! The broker knows a batch by producer id, epoch and the sequence of its first record, each partition for itself
//! (`ProducerSequence` in `sagwan/v1/log.proto`, after KIP-98 and KIP-360). "Once" holds as long as these do:
//!
//! 1. A batch gets its number when it is first sent. Another batch never gets it, unless the first one never left.
//! 2. Only a batch whose every request was answered, with a refusal, may get another number. One with a request that was
//!    never answered may lie in the log already: it is acknowledged under its number, or given up with an unknown outcome.
//! 3. At most five batches, counted from the oldest that is not acknowledged, have been sent: the broker remembers five.
//! 4. Until the first batch of an epoch is acknowledged it is alone, and likewise the first after an idle time: a broker that
//!    does not know the producer, or no longer, would take the second for the beginning if it refused the first.
//! 5. A batch that was sent and is given up leaves a gap, if it is not in the log. The broker tells: it refuses the next one
//!    though nothing before that one is under way. The numbering is then spent. Nothing more is sent under it, answers
//!    to what is under way are waited for, and what may be renumbered begins at 0 of the next epoch.
//!
//! A request of an old epoch can still reach the broker then, from a connection that is gone. By 2 its batch is
//! acknowledged, or was given up with an unknown outcome. Before the new epoch's first batch, the broker takes it, or refuses it
//! for the gap: either is what was said of it. After, the epoch fences it. Only where no epoch is left and a fresh
//! producer id follows, it is not fenced, and may be appended behind later batches; once all the same.
//!
//! Epochs are raised for each partition by itself: a gap in one is no reason to stop the others.

use crate::record::ProducerStamp;
use crate::types::ProducerId;

/// What the broker gave this producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) producer_id: ProducerId,
    pub(super) epoch: i16,
}

/// The numbering of one partition's batches in one epoch.
#[derive(Debug)]
pub(super) struct Numbering {
    identity: Identity,
    /// Of the batch that is sent next.
    next_sequence: i32,
    /// Whether the broker has appended a batch of it not long ago, and so refuses gaps.
    pub(super) confirmed: bool,
    /// Whether the broker has a gap in it that nothing will fill.
    pub(super) spent: bool,
}

impl Numbering {
    pub(super) const fn new(identity: Identity) -> Self {
        Self { identity, next_sequence: 0, confirmed: false, spent: false }
    }

    /// The number of the next batch, which has so many records.
    pub(super) fn give(&mut self, records: u32) -> ProducerStamp {
        let base_sequence = self.next_sequence;
        // After i32::MAX comes 0.
        let after = (i64::from(base_sequence) + i64::from(records)) & i64::from(i32::MAX);
        self.next_sequence = after as i32;
        let Identity { producer_id, epoch } = self.identity;
        ProducerStamp { producer_id: producer_id.get(), producer_epoch: epoch, base_sequence }
    }

    /// Takes back the number that was given last.
    pub(super) const fn take_back(&mut self, stamp: ProducerStamp) {
        self.next_sequence = stamp.base_sequence;
    }

    /// The numbering after this one; `None` if the producer id has no epoch left.
    pub(super) fn successor(&self) -> Option<Self> {
        let epoch = self.identity.epoch.checked_add(1)?;
        Some(Self::new(Identity { epoch, ..self.identity }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbering(epoch: i16) -> Numbering {
        Numbering::new(Identity { producer_id: ProducerId::new(7).expect("an id"), epoch })
    }

    #[test]
    fn sequences_begin_again_after_the_largest() {
        let mut numbering = numbering(0);
        numbering.next_sequence = i32::MAX - 1;
        let given: Vec<_> = [2, 3, 1].map(|records| numbering.give(records).base_sequence).into();
        assert_eq!(given, [i32::MAX - 1, 0, 3]);
    }

    #[test]
    fn the_next_epoch_begins_at_0_and_there_is_none_after_the_last() {
        let mut numbering = numbering(i16::MAX - 1);
        numbering.give(3);
        let mut last = numbering.successor().expect("one is left");
        let first = ProducerStamp { producer_id: 7, producer_epoch: i16::MAX, base_sequence: 0 };
        assert_eq!(last.give(1), first);
        assert!(last.successor().is_none());
    }
}

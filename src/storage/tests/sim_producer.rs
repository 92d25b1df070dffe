//! An idempotent producer of the simulation: a careful client, that has several batches under way, sends all that was not
//! acknowledged again and in order when something went wrong, and holds the answers against one another.

use std::collections::VecDeque;

use super::*;

/// What one has under way at most, and remembers of what was acknowledged.
const WINDOW: usize = 5;

/// A batch with its number in the model.
#[derive(Debug, Clone)]
pub(super) struct Numbered {
    pub(super) number: u64,
    pub(super) batch: BytesMut,
    pub(super) expected_offset: Option<Offset>,
    sequence: i32,
    in_flight: u32,
}

#[derive(Debug)]
pub(super) struct SimProducer {
    pub(super) log: usize,
    id: i64,
    /// A power cut may take what its log has acknowledged.
    may_lose: bool,
    epoch: i16,
    next_sequence: i32,
    /// The log has acknowledged something of this epoch.
    is_known: bool,
    /// Sent and not acknowledged, in order.
    pending: VecDeque<Numbered>,
    /// The last ones, with their offsets.
    acknowledged: VecDeque<(Numbered, i64)>,
}

impl SimProducer {
    pub(super) fn new(id: i64, log: usize, durability: Durability) -> Self {
        Self {
            log,
            id,
            may_lose: durability == Durability::Os,
            epoch: 0,
            next_sequence: 0,
            is_known: false,
            pending: VecDeque::new(),
            acknowledged: VecDeque::new(),
        }
    }

    /// Whether a new batch may go out now.
    pub(super) fn has_room(&self) -> bool {
        let in_order =
            self.pending.iter().all(|batch| batch.in_flight > 0 && batch.expected_offset.is_none());
        in_order && self.pending.len() < if self.is_known { WINDOW } else { 1 }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// The next batch: `records` of them in `builder`.
    pub(super) fn number(
        &mut self,
        number: u64,
        mut builder: BatchBuilder,
        expected_offset: Option<Offset>,
    ) -> Numbered {
        let (sequence, records) = (self.next_sequence, builder.record_count());
        let (producer_id, producer_epoch) = (self.id, self.epoch);
        builder.set_producer(ProducerStamp { producer_id, producer_epoch, base_sequence: sequence });
        self.next_sequence += records as i32;
        let batch = builder.build().unwrap();
        let numbered = Numbered { number, batch, expected_offset, sequence, in_flight: 1 };
        self.pending.push_back(numbered.clone());
        numbered
    }

    /// All that has to be sent again, once nothing is under way any more.
    pub(super) fn again(&mut self) -> Vec<Numbered> {
        if self.pending.iter().any(|batch| batch.in_flight > 0) {
            return Vec::new();
        }
        self.pending.iter_mut().for_each(|batch| batch.in_flight = 1);
        self.pending.iter().cloned().collect()
    }

    /// One that was acknowledged, `back` batches ago; `None` if the log need not remember it, should it have those that are
    /// not acknowledged too.
    pub(super) fn acknowledged(&self, back: usize) -> Option<Numbered> {
        let one = self.acknowledged.iter().rev().nth(back).map(|(batch, _)| batch.clone());
        one.filter(|_| back + self.pending.len() < WINDOW)
    }

    /// What became of one that was sent.
    pub(super) fn hear(&mut self, number: u64, outcome: &Result<Appended, AppendError>) {
        let known = self.acknowledged.iter().find(|(batch, _)| batch.number == number);
        if let Some((_, offset)) = known {
            match outcome {
                Ok(again) => {
                    assert!(again.duplicate, "number {number} was appended twice");
                    assert_eq!(again.base_offset.get(), *offset, "number {number} is somewhere else now");
                }
                Err(AppendError::Producer(error)) => panic!("number {number} was acknowledged: {error}"),
                // The log takes no writes, or has been closed meanwhile.
                Err(_) => {}
            }
            return;
        }
        let Some(at) = self.pending.iter().position(|batch| batch.number == number) else { return };
        self.pending[at].in_flight -= 1;
        match outcome {
            Ok(appended) => self.acknowledge(at, appended.base_offset.get()),
            Err(AppendError::UnexpectedOffset { .. }) => {
                // It was never appended, and was alone: its number is free.
                self.next_sequence = self.pending[at].sequence;
                self.pending.remove(at);
            }
            Err(AppendError::Producer(ProducerError::OutOfOrder { .. })) if at > 0 => {}
            Err(AppendError::Producer(error)) => {
                assert!(self.may_lose, "number {number} is what comes next: {error}");
                self.raise_epoch();
            }
            Err(_) => {}
        }
    }

    fn acknowledge(&mut self, at: usize, offset: i64) {
        self.is_known = true;
        let batch = self.pending.remove(at).unwrap();
        self.acknowledged.push_back((batch, offset));
        if self.acknowledged.len() > WINDOW {
            self.acknowledged.pop_front();
        }
    }

    /// Gives up what is under way.
    fn raise_epoch(&mut self) {
        self.epoch += 1;
        self.next_sequence = 0;
        self.is_known = false;
        self.pending.clear();
        self.acknowledged.clear();
    }

    /// The broker has begun anew: no answer will come to what was sent before.
    pub(super) fn reconnect(&mut self) {
        self.pending.iter_mut().for_each(|batch| batch.in_flight = 0);
    }

    /// What was acknowledged may be gone.
    pub(super) fn lose_power(&mut self) {
        if self.may_lose {
            self.acknowledged.clear();
        }
    }
}

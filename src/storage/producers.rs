//! What a log remembers of its idempotent producers, so that a batch that is sent again is not appended again (Kafka's
//! KIP-98, KIP-360).
//!
//! Of each producer the log knows the epoch and the last batches: which sequences, at which offset. [`Producers::check`]
//! compares a batch with that; [`Producers::push`] notes one that has got its offset, and [`Producers::take_back`] undoes
//! it when the write failed. So the state runs ahead of the disk; [`Producers::at`] tells what it was at an earlier
//! offset that is synced, for a snapshot: of each producer the last [`REMEMBERED_BATCHES`] that are synced are kept, and
//! all after those.
//!
//! A producer is forgotten when it has appended nothing for `producer_id_expiration_ms`, and the one idle longest when
//! there are too many. Idle time is that of the monotonic clock while the log is open: a wall clock that jumps changes
//! nothing. It goes with the snapshot, and starts anew for a producer that recovery meets in the log itself; time in
//! which the broker was down does not count. So a restart may keep a producer longer, never shorter.
//!
//! Plain state without I/O or clock: the log's writer steps it, recovery replays the log into it, and the checkpoint
//! reads it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;

use crate::record::{BatchView, ProducerStamp};
use crate::types::{Offset, ProducerId};

/// So many synced batches of a producer are remembered, as in Kafka: what a client may have under way.
pub(super) const REMEMBERED_BATCHES: usize = 5;
/// With so many unsynced batches of one producer the log is due for a sync, whatever its durability.
const CROWD: usize = 1_024;
/// Sequences have 31 bits, and go on with 0.
const SEQUENCE_MASK: u32 = i32::MAX as u32;

/// Why a batch of an idempotent producer is not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    /// Something before it is missing, or it overlaps what is there.
    #[error(
        "producer {producer_id} sent sequence {sequence}, but {expected} is due: batches come in order, and again only as they came first"
    )]
    OutOfOrder {
        /// The producer.
        producer_id: ProducerId,
        /// The sequence that is due.
        expected: i32,
        /// That of the batch.
        sequence: i32,
    },
    /// The batch was appended before, too long ago to remember where.
    #[error(
        "sequence {sequence} of producer {producer_id} was appended before, too long ago to remember where"
    )]
    Forgotten {
        /// The producer.
        producer_id: ProducerId,
        /// The sequence of the batch.
        sequence: i32,
    },
    /// The log has seen a higher epoch of the producer.
    #[error("epoch {epoch} of producer {producer_id} is over: it is at epoch {current}")]
    Fenced {
        /// The producer.
        producer_id: ProducerId,
        /// That of the batch.
        epoch: i16,
        /// The highest.
        current: i16,
    },
}

/// How many producers a log remembers, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProducerLimits {
    /// A producer that has appended nothing for longer is forgotten.
    pub(super) expiration_ms: i64,
    /// With more, the one idle longest is forgotten.
    pub(super) max_producers: usize,
}

/// What a batch says of its producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProducerBatch {
    pub(super) producer_id: ProducerId,
    pub(super) epoch: i16,
    pub(super) base_sequence: i32,
    /// 1 or more.
    pub(super) records: u32,
}

impl ProducerBatch {
    /// `None` for a batch from nobody in particular.
    pub(super) fn of(batch: &BatchView<'_>) -> Option<Self> {
        let ProducerStamp { producer_id, producer_epoch, base_sequence } = batch.producer()?;
        Some(Self {
            producer_id: ProducerId::new(producer_id)?,
            epoch: producer_epoch,
            base_sequence,
            records: batch.last_offset_delta().unsigned_abs() + 1,
        })
    }
}

/// A batch that is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) epoch: i16,
    pub(super) base_sequence: i32,
    pub(super) records: u32,
    pub(super) base_offset: Offset,
    /// How many sequences of this epoch the log got right before it; at most all there are.
    pub(super) before: u32,
}

impl Remembered {
    /// One past its last offset.
    pub(super) fn next_offset(&self) -> Offset {
        self.base_offset.plus(self.records)
    }

    pub(super) fn last_sequence(&self) -> i32 {
        sequence_after(self.base_sequence, self.records - 1)
    }

    pub(super) fn next_sequence(&self) -> i32 {
        sequence_after(self.base_sequence, self.records)
    }

    /// How many sequences of this epoch the log got up to its end.
    pub(super) fn through(&self) -> u32 {
        self.before.saturating_add(self.records).min(SEQUENCE_MASK + 1)
    }
}

/// A producer at some synced offset, as a snapshot has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProducerState {
    pub(super) producer_id: ProducerId,
    /// Since it last appended.
    pub(super) idle_ms: u64,
    /// The last ones, up to [`REMEMBERED_BATCHES`], at least one; of one epoch, without a gap in their sequences.
    pub(super) batches: Vec<Remembered>,
}

/// A producer now.
#[derive(Debug)]
struct Producer {
    /// By offset. Empty if its first batch was taken back.
    batches: VecDeque<Remembered>,
    /// What has to come next.
    due: Due,
    /// On the monotonic clock.
    last_append_ms: i64,
    /// Its key in `by_turn`.
    turn: u64,
}

#[derive(Debug, Clone, Copy)]
struct Due {
    epoch: i16,
    sequence: i32,
}

/// The producers of one log.
#[derive(Debug)]
pub(super) struct Producers {
    limits: ProducerLimits,
    by_id: HashMap<ProducerId, Producer>,
    /// By their last append, the longest ago first.
    by_turn: BTreeMap<u64, ProducerId>,
    next_turn: u64,
    /// One past the last offset of the last batch of any producer.
    end: Offset,
    crowded: bool,
}

/// The sequence `count` records further on.
pub(super) const fn sequence_after(sequence: i32, count: u32) -> i32 {
    (sequence.cast_unsigned().wrapping_add(count) & SEQUENCE_MASK).cast_signed()
}

/// How many sequences there are from `from` on, up to but without `to`.
const fn sequences_between(from: i32, to: i32) -> u32 {
    to.cast_unsigned().wrapping_sub(from.cast_unsigned()) & SEQUENCE_MASK
}

impl Producers {
    /// Those of a log that has had none.
    pub(super) fn new(limits: ProducerLimits) -> Self {
        Self {
            limits,
            by_id: HashMap::new(),
            by_turn: BTreeMap::new(),
            next_turn: 0,
            end: Offset::ZERO,
            crowded: false,
        }
    }

    /// Those of a snapshot.
    pub(super) fn restore(limits: ProducerLimits, mut states: Vec<ProducerState>, now_ms: i64) -> Self {
        let mut producers = Self::new(limits);
        states.sort_by_key(|state| std::cmp::Reverse(state.idle_ms));
        for state in states {
            let Some(last) = state.batches.last() else { continue };
            producers.end = producers.end.max(last.next_offset());
            let idle_ms = i64::try_from(state.idle_ms).unwrap_or(i64::MAX);
            let producer = Producer {
                due: Due { epoch: last.epoch, sequence: last.next_sequence() },
                batches: state.batches.into(),
                last_append_ms: now_ms.saturating_sub(idle_ms),
                turn: producers.next_turn,
            };
            producers.by_turn.insert(producers.next_turn, state.producer_id);
            producers.by_id.insert(state.producer_id, producer);
            producers.next_turn += 1;
        }
        producers.forget(Offset::clamped(i64::MAX), now_ms);
        producers
    }

    /// Whether `batch` is to be appended; otherwise the offset at which it was before, perhaps not synced yet.
    ///
    /// # Errors
    /// [`ProducerError`]: it is neither.
    pub(super) fn check(
        &mut self,
        batch: &ProducerBatch,
        synced: Offset,
        now_ms: i64,
    ) -> Result<Option<Offset>, ProducerError> {
        self.forget(synced, now_ms);
        // One that is not known may begin anywhere: the rest of it has been forgotten.
        self.by_id.get(&batch.producer_id).map_or(Ok(None), |producer| producer.check(batch))
    }

    /// Notes a batch that gets the offset `base_offset`. All below `synced` is on the disk.
    pub(super) fn push(&mut self, batch: &ProducerBatch, base_offset: Offset, synced: Offset, now_ms: i64) {
        let turn = self.next_turn;
        self.next_turn += 1;
        let producer = self.by_id.entry(batch.producer_id).or_insert_with(|| Producer {
            batches: VecDeque::new(),
            due: Due { epoch: batch.epoch, sequence: batch.base_sequence },
            last_append_ms: now_ms,
            turn,
        });
        self.by_turn.remove(&producer.turn);
        self.by_turn.insert(turn, batch.producer_id);
        producer.turn = turn;
        producer.last_append_ms = now_ms;
        producer.push(batch, base_offset, synced);
        self.crowded |= producer.batches.len() > CROWD;
        self.end = base_offset.plus(batch.records);
        self.forget(synced, now_ms);
    }

    /// Undoes the pushes of this producer from offset `end` on: they could not be written.
    pub(super) fn take_back(&mut self, producer_id: ProducerId, end: Offset) {
        self.end = self.end.min(end);
        let Some(producer) = self.by_id.get_mut(&producer_id) else { return };
        while let Some(batch) = producer.batches.pop_back_if(|batch| batch.base_offset >= end) {
            // Even if it is the first one: a later one must not take its place.
            producer.due = producer.batches.back().map_or(
                Due { epoch: batch.epoch, sequence: batch.base_sequence },
                |last| Due { epoch: last.epoch, sequence: last.next_sequence() },
            );
        }
    }

    /// The same, of a log that takes no writes: nothing of them is for a snapshot.
    pub(super) fn without_news(self) -> Self {
        Self { end: Offset::ZERO, ..self }
    }

    /// Whether there is anything that a snapshot of offset `snapshot` does not have.
    pub(super) fn has_news_since(&self, snapshot: Option<Offset>) -> bool {
        self.end > snapshot.unwrap_or_default()
    }

    /// Whether the log is due for a sync, lest the unsynced batches become too many. Asked once.
    pub(super) fn take_crowded(&mut self) -> bool {
        std::mem::take(&mut self.crowded)
    }

    /// The producers as they were at `offset`, by id. It is synced, and not below any `synced` that was told before.
    pub(super) fn at(&self, offset: Offset, now_ms: i64) -> Vec<ProducerState> {
        let state = |(id, producer): (&ProducerId, &Producer)| {
            let batches = producer.at(offset);
            let idle_ms = now_ms.saturating_sub(producer.last_append_ms).max(0).cast_unsigned();
            (!batches.is_empty()).then_some(ProducerState { producer_id: *id, idle_ms, batches })
        };
        let mut states: Vec<_> = self.by_id.iter().filter_map(state).collect();
        states.sort_unstable_by_key(|state| state.producer_id);
        states
    }

    /// Forgets those that are idle for too long or too many; none that has something unsynced, which may still be taken
    /// back.
    fn forget(&mut self, synced: Offset, now_ms: i64) {
        while let Some((turn, id)) = self.by_turn.first_key_value().map(|(turn, id)| (*turn, *id)) {
            let goes = self.by_id.get(&id).is_none_or(|producer| {
                let is_expired = now_ms.saturating_sub(producer.last_append_ms) > self.limits.expiration_ms;
                let is_synced = producer.batches.back().is_none_or(|last| last.next_offset() <= synced);
                (is_expired || self.by_id.len() > self.limits.max_producers) && is_synced
            });
            if !goes {
                return;
            }
            self.by_turn.remove(&turn);
            self.by_id.remove(&id);
        }
    }
}

impl Producer {
    fn check(&self, batch: &ProducerBatch) -> Result<Option<Offset>, ProducerError> {
        let ProducerBatch { producer_id, epoch, base_sequence: sequence, records } = *batch;
        let out_of_order = |expected| ProducerError::OutOfOrder { producer_id, expected, sequence };
        if epoch < self.due.epoch {
            return Err(ProducerError::Fenced { producer_id, epoch, current: self.due.epoch });
        }
        if epoch > self.due.epoch {
            return if sequence == 0 { Ok(None) } else { Err(out_of_order(0)) };
        }
        if sequence == self.due.sequence {
            return Ok(None);
        }
        let mut of_epoch = self.batches.iter().filter(|known| known.epoch == epoch);
        let same = |known: &&Remembered| known.base_sequence == sequence && known.records == records;
        if let Some(known) = of_epoch.clone().find(same) {
            return Ok(Some(known.base_offset));
        }
        // Counted back from what is due: where the remembered ones begin, and where the log got any.
        let behind = sequences_between(sequence, self.due.sequence);
        let oldest = of_epoch.next().map(|oldest| sequences_between(oldest.base_sequence, self.due.sequence));
        let through = self.batches.back().map_or(0, Remembered::through);
        match oldest {
            Some(oldest) if behind <= through && behind >= oldest + records => {
                Err(ProducerError::Forgotten { producer_id, sequence })
            }
            _ => Err(out_of_order(self.due.sequence)),
        }
    }

    fn push(&mut self, batch: &ProducerBatch, base_offset: Offset, synced: Offset) {
        let last = self.batches.back().copied();
        let continues = batch.epoch == self.due.epoch && batch.base_sequence == self.due.sequence;
        if !continues && batch.epoch <= self.due.epoch {
            // Only in a log that is replayed: the producer had been forgotten, and began anew.
            self.batches.clear();
        }
        let before = last.filter(|_| continues).map_or(0, |last| last.through());
        let ProducerBatch { epoch, base_sequence, records, .. } = *batch;
        let pushed = Remembered { epoch, base_sequence, records, base_offset, before };
        self.due = Due { epoch, sequence: pushed.next_sequence() };
        self.batches.push_back(pushed);
        // What is of no use whether or not the unsynced ones stay.
        let useful = self.remembered_at(synced);
        self.batches.drain(..useful.start);
    }

    /// Which batches count at the synced `offset`: the last ones below it, of one epoch.
    fn remembered_at(&self, offset: Offset) -> Range<usize> {
        let end = self.batches.partition_point(|batch| batch.next_offset() <= offset);
        let below = || self.batches.range(..end).rev();
        let epoch = below().next().map(|last| last.epoch);
        let count = below().take(REMEMBERED_BATCHES).take_while(|batch| Some(batch.epoch) == epoch).count();
        end - count..end
    }

    fn at(&self, offset: Offset) -> Vec<Remembered> {
        self.batches.range(self.remembered_at(offset)).copied().collect()
    }
}

//! The batches of one partition, in the order of their sends: waiting, under way, and how they are numbered. Pure, as the
//! [accumulator](super::accumulator) that owns it.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::Batch;
use super::delivery::Settlement;
use super::numbering::{Identity, Numbering};

/// A partition may have forgotten a producer from which nothing has come for so long: no less can be set.
const IDLE: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Queue {
    /// Takes records still.
    pub(super) open: Option<Batch>,
    /// Takes no more. By number; those that were sent before come first, and all of them before `open`.
    closed: VecDeque<Batch>,
    /// Sent and not yet settled, by number; the first of them is never [`Landed`](InFlight::Landed).
    in_flight: VecDeque<InFlight>,
    /// After a failure: nothing is sent before.
    not_before: Option<Instant>,
    /// From the first numbered batch on.
    numbering: Option<Numbering>,
    last_sent: Option<Instant>,
}

/// A batch that somebody else holds.
enum InFlight {
    Sent(u64, Settlement),
    /// It came back, but one before it has not: it counts still.
    Landed,
}

impl InFlight {
    fn is(&self, number: u64) -> bool {
        matches!(self, Self::Sent(sent, _) if *sent == number)
    }
}

impl Queue {
    /// When its next batch can be sent, as far as time alone decides.
    pub(super) fn ready_at(&self, linger: Duration, max_in_flight: usize) -> Option<Instant> {
        let max_in_flight = match &self.numbering {
            Some(numbering) if numbering.spent => return None,
            Some(numbering) if !numbering.confirmed => 1,
            _ => max_in_flight,
        };
        if self.in_flight.len() >= max_in_flight {
            return None;
        }
        let full = match (self.closed.front(), &self.open) {
            // What was sent behind it has failed with it, or will. It would again.
            (Some(batch), _) if batch.sent && !self.in_flight.is_empty() => return None,
            (Some(batch), _) => batch.created,
            (None, Some(batch)) => batch.created + linger,
            (None, None) => return None,
        };
        Some(self.not_before.map_or(full, |at| at.max(full)))
    }

    pub(super) const fn is_numbered(&self) -> bool {
        self.numbering.is_some()
    }

    /// Its oldest batch that waits.
    pub(super) fn oldest(&self) -> Option<&Batch> {
        self.closed.front().or(self.open.as_ref())
    }

    pub(super) fn take_oldest(&mut self) -> Option<Batch> {
        self.closed.pop_front().or_else(|| self.open.take())
    }

    pub(super) fn close_batch(&mut self) {
        self.closed.extend(self.open.take());
    }

    /// Takes its oldest batch to be sent, with a number if there is an `identity`.
    pub(super) fn take_off(&mut self, identity: Option<Identity>, now: Instant) -> Option<Batch> {
        let mut batch = self.take_oldest()?;
        if self.numbering.is_none() {
            self.numbering = identity.map(Numbering::new);
        }
        let last_sent = self.last_sent.replace(now);
        if let Some(numbering) = &mut self.numbering {
            if self.in_flight.is_empty() && last_sent.is_none_or(|at| at + IDLE <= now) {
                numbering.confirmed = false;
            }
            if batch.stamp().is_none() {
                batch.set_stamp(numbering.give(batch.records()));
            }
        }
        self.not_before = None;
        self.in_flight.push_back(InFlight::Sent(batch.number, batch.settlement()));
        Some(batch)
    }

    /// A batch that was taken off is appended.
    pub(super) fn appended(&mut self, batch: &Batch) {
        if let Some(numbering) = &mut self.numbering {
            numbering.confirmed = true;
        }
        self.land(batch.number);
    }

    /// A batch that was taken off is under way no more. If it never left, the next one gets its number.
    pub(super) fn returned(&mut self, batch: &mut Batch) {
        if !batch.sent
            && let (Some(numbering), Some(stamp)) = (&mut self.numbering, batch.take_stamp())
        {
            numbering.take_back(stamp);
        }
        self.land(batch.number);
    }

    /// Puts a batch that was taken off back in its place.
    pub(super) fn requeue(&mut self, mut batch: Batch, not_before: Instant) {
        self.returned(&mut batch);
        self.not_before = Some(self.not_before.map_or(not_before, |at| at.max(not_before)));
        let place = self.closed.partition_point(|other| other.number < batch.number);
        self.closed.insert(place, batch);
    }

    /// As [`requeue`](Self::requeue), after the broker refused the batch as one that comes too early.
    pub(super) fn out_of_order(&mut self, batch: Batch, not_before: Instant) {
        let is_first = self.in_flight.front().is_some_and(|first| first.is(batch.number))
            && self.closed.front().is_none_or(|waiting| waiting.number > batch.number);
        if is_first && let Some(numbering) = &mut self.numbering {
            numbering.spent = true;
        }
        self.requeue(batch, not_before);
    }

    /// If the numbering is spent and nothing is under way any more, begins the next one. Returns the batches that must
    /// not get another number.
    pub(super) fn renumber(&mut self) -> Vec<Batch> {
        let Some(numbering) = self.numbering.as_ref().filter(|numbering| numbering.spent) else {
            return Vec::new();
        };
        if !self.in_flight.is_empty() {
            return Vec::new();
        }
        self.numbering = numbering.successor();
        let (unanswered, mut refused): (Vec<_>, Vec<_>) =
            self.closed.drain(..).partition(|batch| batch.unanswered.is_some());
        for batch in &mut refused {
            batch.take_stamp();
            batch.sent = false;
        }
        self.closed = refused.into();
        unanswered
    }

    /// What became, or becomes, of its closed batches.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = Settlement> {
        let in_flight = self.in_flight.iter().filter_map(|in_flight| match in_flight {
            InFlight::Sent(_, settlement) => Some(settlement.clone()),
            InFlight::Landed => None,
        });
        in_flight.chain(self.closed.iter().map(Batch::settlement))
    }

    fn land(&mut self, number: u64) {
        if let Some(in_flight) = self.in_flight.iter_mut().find(|in_flight| in_flight.is(number)) {
            *in_flight = InFlight::Landed;
        }
        while let Some(InFlight::Landed) = self.in_flight.front() {
            self.in_flight.pop_front();
        }
    }
}

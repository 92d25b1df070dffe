//! End-to-end latency: from when a request should have been sent to when a consumer has its last record.
//!
//! Nothing is written into records for it, so that batches can be sent as they were prepared and any record size will do:
//! the producer learns from the acknowledgement which offsets a request got, the consumer knows when it had come past
//! them, and the two meet here, whoever comes first.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;

/// One consumer's meetings in one partition.
#[derive(Debug, Default)]
pub(super) struct Meeting {
    /// All below has been read.
    read_to: i64,
    /// Reads, in order, of which not everything is acknowledged yet.
    reads: VecDeque<Read>,
    /// Requests that are acknowledged and not yet read to their end, by their end.
    sent: BTreeMap<i64, Sent>,
}

#[derive(Debug)]
struct Read {
    to: i64,
    at_ns: u64,
    /// Records of it that no acknowledgement has named so far.
    unclaimed: i64,
}

#[derive(Debug)]
struct Sent {
    base: i64,
    intended_ns: u64,
}

impl Meeting {
    /// A request got the offsets from `base` to `end` less one. Returns when they had been read, if they have been.
    fn acknowledged(&mut self, base: i64, end: i64, intended_ns: u64) -> Option<u64> {
        if end > self.read_to {
            self.sent.insert(end, Sent { base, intended_ns });
            return None;
        }
        self.claim(base, end)
    }

    /// Everything below `to` has been read at `at_ns`. Calls `met` with the intended time of each request so completed.
    fn read(&mut self, to: i64, at_ns: u64, mut met: impl FnMut(u64)) {
        if to <= self.read_to {
            return;
        }
        self.reads.push_back(Read { to, at_ns, unclaimed: to - self.read_to });
        self.read_to = to;
        while let Some(entry) = self.sent.first_entry().filter(|entry| *entry.key() <= to) {
            let (end, sent) = entry.remove_entry();
            self.claim(sent.base, end);
            met(sent.intended_ns);
        }
    }

    /// Takes a request's records off those that were read; returns when the last of them was.
    fn claim(&mut self, base: i64, end: i64) -> Option<u64> {
        let first = self.reads.partition_point(|read| read.to <= base);
        let mut at_ns = None;
        let mut from = base;
        for read in self.reads.range_mut(first..) {
            let to = read.to.min(end);
            read.unclaimed -= to - from;
            from = to;
            if from == end {
                at_ns = Some(read.at_ns);
                break;
            }
        }
        while self.reads.front().is_some_and(|read| read.unclaimed <= 0) {
            self.reads.pop_front();
        }
        at_ns
    }
}

/// All meetings of a round, by partition and, within it, by those who read it.
#[derive(Debug, Default)]
pub(super) struct Meetings(Vec<Vec<Mutex<Meeting>>>);

impl Meetings {
    /// For partitions that so many consumers follow each.
    pub(super) fn new(readers: impl IntoIterator<Item = usize>) -> Self {
        let meetings = |readers| (0..readers).map(|_| Mutex::default()).collect();
        Self(readers.into_iter().map(meetings).collect())
    }

    /// A request to the partition `place` was acknowledged. Calls `met` with when it was read, for each consumer that had
    /// read it before.
    pub(super) fn acknowledged(
        &self,
        place: usize,
        offsets: (i64, i64),
        intended_ns: u64,
        mut met: impl FnMut(u64),
    ) {
        for meeting in self.0.get(place).into_iter().flatten() {
            if let Some(read_ns) = meeting.lock().acknowledged(offsets.0, offsets.1, intended_ns) {
                met(read_ns);
            }
        }
    }

    /// The `reader`th consumer of the partition has come to offset `to`. Calls `met` with the intended time of each request
    /// that is so completed.
    pub(super) fn read(&self, place: usize, reader: usize, to: i64, at_ns: u64, met: impl FnMut(u64)) {
        if let Some(meeting) = self.0.get(place).and_then(|readers| readers.get(reader)) {
            meeting.lock().read(to, at_ns, met);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(meeting: &mut Meeting, to: i64, at_ns: u64) -> Vec<u64> {
        let mut met = Vec::new();
        meeting.read(to, at_ns, |intended_ns| met.push(intended_ns));
        met
    }

    #[test]
    fn who_comes_first_waits_for_the_other() {
        let mut meeting = Meeting::default();
        assert!(read(&mut meeting, 10, 500).is_empty());
        assert_eq!(meeting.acknowledged(0, 10, 100), Some(500));
        assert_eq!(meeting.acknowledged(10, 20, 200), None);
        assert_eq!(read(&mut meeting, 20, 700), [200]);
        assert!(meeting.reads.is_empty() && meeting.sent.is_empty(), "nothing is kept: {meeting:?}");
    }

    #[test]
    fn a_request_that_is_read_in_parts_counts_when_its_last_record_is_read() {
        let mut meeting = Meeting::default();
        assert!(read(&mut meeting, 4, 100).is_empty());
        assert_eq!(meeting.acknowledged(0, 10, 7), None);
        assert!(read(&mut meeting, 9, 200).is_empty());
        // With the beginning of the next request.
        assert_eq!(read(&mut meeting, 12, 300), [7]);
        assert!(read(&mut meeting, 20, 400).is_empty());
        assert_eq!(meeting.acknowledged(10, 20, 8), Some(400));
        assert!(meeting.reads.is_empty(), "{meeting:?}");
    }

    #[test]
    fn acknowledgements_may_come_in_any_order() {
        let mut meeting = Meeting::default();
        read(&mut meeting, 10, 100);
        read(&mut meeting, 20, 200);
        assert_eq!(meeting.acknowledged(10, 20, 2), Some(200));
        assert_eq!(meeting.acknowledged(5, 10, 1), Some(100));
        assert_eq!(meeting.reads.len(), 2);
        assert_eq!(meeting.acknowledged(0, 5, 0), Some(100));
        assert!(meeting.reads.is_empty(), "{meeting:?}");
    }
}

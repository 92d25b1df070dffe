//! All that is measured while a round runs; shared by its producers and consumers.

use std::sync::atomic::{AtomicU64, Ordering};

use super::course::Course;
use super::latency::Latencies;
use super::meeting::Meetings;
use super::meter::Meter;

/// What a round's workers report to. Each of them has read the clock once for what it reports.
#[derive(Debug)]
pub(super) struct Gauges {
    pub(super) course: Course,
    /// What is acknowledged.
    pub(super) produced: Meter,
    /// What is read at the end of the log.
    pub(super) followed: Meter,
    /// What is read of a backlog.
    pub(super) caught_up: Meter,
    /// What is read only to be verified, when all else is over.
    pub(super) read_back: Meter,
    /// From when a request should have been sent to its acknowledgement.
    pub(super) acknowledgement: Latencies,
    /// From then to when its last record was read.
    pub(super) end_to_end: Latencies,
    /// From then to when it was sent: what this side, or the limit of requests under way, adds.
    pub(super) lateness: Latencies,
    /// Requests that were due and never sent.
    pub(super) given_up: AtomicU64,
    /// What warm readers read.
    pub(super) warm: Meter,
    /// From when a warm reader's fetch should have been sent to its answer.
    pub(super) warm_read: Latencies,
    pub(super) meetings: Meetings,
}

/// A request that is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    /// The number of its partition.
    pub(super) place: usize,
    /// When it should have been sent.
    pub(super) intended_ns: u64,
    pub(super) records: u32,
    pub(super) bytes: u64,
}

/// Records with consecutive offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// The first one's.
    pub(super) base: i64,
    pub(super) records: u32,
}

impl Gauges {
    /// Of a round that begins now.
    pub(super) fn new(course: Course, meetings: Meetings) -> Self {
        Self {
            course,
            produced: Meter::default(),
            followed: Meter::default(),
            caught_up: Meter::default(),
            read_back: Meter::default(),
            acknowledgement: Latencies::new(),
            end_to_end: Latencies::new(),
            lateness: Latencies::new(),
            given_up: AtomicU64::new(0),
            warm: Meter::default(),
            warm_read: Latencies::new(),
            meetings,
        }
    }

    /// A producer's request left at `at_ns`.
    pub(super) fn sent(&self, producer: usize, sent: &Sent, at_ns: u64) {
        if self.course.is_steady(sent.intended_ns) {
            self.lateness.record(producer, at_ns.saturating_sub(sent.intended_ns));
        }
    }

    /// A request of a producer that was due at `intended_ns` is not sent any more, at `at_ns`. It took at least so long.
    pub(super) fn gave_up(&self, producer: usize, intended_ns: u64, at_ns: u64) {
        self.given_up.fetch_add(1, Ordering::Relaxed);
        if self.course.is_steady(intended_ns) {
            self.acknowledgement.record(producer, at_ns.saturating_sub(intended_ns));
        }
    }

    /// A warm reader's fetch that was due at `intended_ns` is not sent any more, at `at_ns`. It took at least so long.
    pub(super) fn warm_gave_up(&self, reader: usize, intended_ns: u64, at_ns: u64) {
        if self.course.is_steady(intended_ns) {
            self.warm_read.record(reader, at_ns.saturating_sub(intended_ns));
        }
    }

    /// A warm reader's fetch was answered at `at_ns`.
    pub(super) fn warm_read(&self, reader: usize, intended_ns: u64, at_ns: u64, records: u64, bytes: u64) {
        self.warm.add(&self.course, at_ns, records, bytes);
        if self.course.is_steady(intended_ns) {
            self.warm_read.record(reader, at_ns.saturating_sub(intended_ns));
        }
    }

    /// A producer's request was acknowledged at `at_ns`. End to end, each run of its records counts once.
    pub(super) fn acknowledged(&self, producer: usize, sent: &Sent, runs: &[Run], at_ns: u64) {
        self.produced.add(&self.course, at_ns, sent.records.into(), sent.bytes);
        let steady = self.course.is_steady(sent.intended_ns);
        if steady {
            self.acknowledgement.record(producer, at_ns.saturating_sub(sent.intended_ns));
        }
        for run in runs {
            let offsets = (run.base, run.base + i64::from(run.records));
            self.meetings.acknowledged(sent.place, offsets, sent.intended_ns, |read_ns| {
                if steady {
                    self.end_to_end.record(producer, read_ns.saturating_sub(sent.intended_ns));
                }
            });
        }
    }

    /// The `reader`th consumer of a partition has read everything below `to` by `at_ns`.
    pub(super) fn read_to(&self, place: usize, reader: usize, to: i64, at_ns: u64) {
        self.meetings.read(place, reader, to, at_ns, |intended_ns| {
            if self.course.is_steady(intended_ns) {
                self.end_to_end.record(place, at_ns.saturating_sub(intended_ns));
            }
        });
    }
}

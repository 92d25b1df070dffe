//! Counting what is done: in all, for the live line and the course of time, and within the steady part, for the figures.

use std::sync::atomic::{AtomicU64, Ordering};

use super::course::Course;

/// One kind of work: what is acknowledged, or what is read.
#[derive(Debug, Default)]
pub(super) struct Meter {
    records: AtomicU64,
    bytes: AtomicU64,
    steady_records: AtomicU64,
    steady_bytes: AtomicU64,
    /// When the last of the steady part was done.
    last_ns: AtomicU64,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Count {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl Meter {
    /// So much was done at `at_ns`.
    pub(super) fn add(&self, course: &Course, at_ns: u64, records: u64, bytes: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if course.is_steady(at_ns) {
            self.steady_records.fetch_add(records, Ordering::Relaxed);
            self.steady_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.last_ns.fetch_max(at_ns, Ordering::Relaxed);
        }
    }

    /// Since the round began.
    pub(super) fn all(&self) -> Count {
        Count { records: self.records.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    /// In the steady part, and how many seconds that was.
    pub(super) fn steady(&self, course: &Course) -> (Count, f64) {
        let count = Count {
            records: self.steady_records.load(Ordering::Relaxed),
            bytes: self.steady_bytes.load(Ordering::Relaxed),
        };
        let to_ns = course.steady_to_ns().unwrap_or_else(|| self.last_ns.load(Ordering::Relaxed));
        (count, to_ns.saturating_sub(course.steady_from_ns()) as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::bench::plan::Stop;

    #[test]
    fn only_the_steady_part_counts() {
        let course = Course::begin(Duration::from_secs(1), Stop::After(Duration::from_secs(2)));
        let meter = Meter::default();
        for at_s in [0, 1, 2, 3] {
            meter.add(&course, at_s * 1_000_000_000, 1, 10);
        }
        assert_eq!(meter.all(), Count { records: 4, bytes: 40 });
        assert_eq!(meter.steady(&course), (Count { records: 2, bytes: 20 }, 2.0));
    }

    #[test]
    fn a_total_ends_with_the_last_that_was_done() {
        let course = Course::begin(Duration::ZERO, Stop::Records(2));
        let meter = Meter::default();
        meter.add(&course, 500_000_000, 1, 10);
        meter.add(&course, 250_000_000, 1, 10);
        assert_eq!(meter.steady(&course), (Count { records: 2, bytes: 20 }, 0.5));
    }
}

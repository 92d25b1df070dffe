//! The course of a round: a warm-up, the steady part that is measured, and its end.
//!
//! Times are nanoseconds since the round began; whoever does something reads the clock once for it, and asks here where
//! that moment lies.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::plan::Stop;

/// Shared by all who take part in a round.
#[derive(Debug)]
pub(super) struct Course {
    began: Instant,
    steady_from_ns: u64,
    /// `u64::MAX` until it is known.
    steady_to_ns: AtomicU64,
    /// Records that may still be begun in the steady part; `None` where time alone decides.
    left: Option<AtomicU64>,
    /// When the last of them was begun; `u64::MAX` until then.
    spent_ns: AtomicU64,
}

impl Course {
    /// Begins now.
    pub(super) fn begin(warm_up: Duration, stop: Stop) -> Self {
        let steady_from_ns = nanos(warm_up);
        let (steady_to_ns, left) = match stop {
            Stop::After(duration) => (steady_from_ns.saturating_add(nanos(duration)), None),
            Stop::Records(records) => (u64::MAX, Some(AtomicU64::new(records))),
        };
        let [steady_to_ns, spent_ns] = [steady_to_ns, u64::MAX].map(AtomicU64::new);
        Self { began: Instant::now(), steady_from_ns, steady_to_ns, left, spent_ns }
    }

    pub(super) fn now_ns(&self) -> u64 {
        nanos(self.began.elapsed())
    }

    /// When the steady part begins.
    pub(super) fn steady_from_ns(&self) -> u64 {
        self.steady_from_ns
    }

    /// When it ends, as far as that is known.
    pub(super) fn steady_to_ns(&self) -> Option<u64> {
        Some(self.steady_to_ns.load(Ordering::Relaxed)).filter(|to| *to != u64::MAX)
    }

    pub(super) fn is_steady(&self, at_ns: u64) -> bool {
        (self.steady_from_ns..self.steady_to_ns.load(Ordering::Relaxed)).contains(&at_ns)
    }

    /// Whether something of so many records may be begun at that moment; counts it.
    pub(super) fn admits(&self, at_ns: u64, records: u32) -> bool {
        if at_ns >= self.steady_to_ns.load(Ordering::Relaxed) {
            return false;
        }
        match &self.left {
            Some(left) if at_ns >= self.steady_from_ns => {
                let take = |left: u64| (left > 0).then(|| left.saturating_sub(records.into()));
                let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
                if before.is_ok_and(|before| before <= records.into()) {
                    self.spent_ns.fetch_min(at_ns, Ordering::Relaxed);
                }
                before.is_ok()
            }
            _ => true,
        }
    }

    /// From when on nothing is begun any more, whether by time or by a total; `u64::MAX` until that is known.
    pub(super) fn closed_ns(&self) -> u64 {
        self.steady_to_ns.load(Ordering::Relaxed).min(self.spent_ns.load(Ordering::Relaxed))
    }

    /// Ends the steady part early.
    pub(super) fn end_at(&self, at_ns: u64) {
        self.steady_to_ns.fetch_min(at_ns, Ordering::Relaxed);
    }

    /// How much of it is over, from 0 to 1; `None` during the warm-up.
    pub(super) fn progress(&self, at_ns: u64, total_records: Option<u64>) -> Option<f64> {
        let since = at_ns.checked_sub(self.steady_from_ns)?;
        let done = match (&self.left, total_records) {
            (Some(left), Some(total)) => 1.0 - left.load(Ordering::Relaxed) as f64 / total as f64,
            _ => since as f64 / (self.steady_to_ns()?.saturating_sub(self.steady_from_ns)).max(1) as f64,
        };
        Some(done.clamp(0.0, 1.0))
    }
}

/// Of a duration within 500 years.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn the_warm_up_is_not_steady_and_nothing_begins_after_the_end() {
        let course = Course::begin(Duration::from_millis(10), Stop::After(Duration::from_millis(20)));
        let steady: Vec<_> = [9, 10, 29, 30].map(|ms| course.is_steady(ms * MS)).into();
        assert_eq!(steady, [false, true, true, false]);
        assert!(course.admits(5 * MS, 1) && course.admits(29 * MS, 1) && !course.admits(30 * MS, 1));
        course.end_at(20 * MS);
        assert!(!course.admits(20 * MS, 1) && !course.is_steady(25 * MS));
    }

    #[test]
    fn a_total_counts_from_the_warm_up_on() {
        let course = Course::begin(Duration::from_millis(10), Stop::Records(5));
        assert!(course.admits(0, 100), "warming up costs nothing");
        assert!(course.admits(11 * MS, 3) && course.admits(11 * MS, 0));
        assert_eq!(course.closed_ns(), u64::MAX);
        assert!(course.admits(12 * MS, 3), "the last may go beyond");
        assert!(!course.admits(13 * MS, 1));
        assert_eq!(course.closed_ns(), 12 * MS);
    }
}

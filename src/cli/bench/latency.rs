//! Latencies: HDR histograms of nanoseconds, filled side by side and merged at the end.

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;

/// Longer ones count as this: an hour.
const MAX_NS: u64 = 3_600_000_000_000;
/// Significant figures: 0.1 %.
const FIGURES: u8 = 3;
/// Workers share that many histograms.
const SHARDS: usize = 8;
/// The quantiles that are told.
const QUANTILES: [f64; 5] = [0.5, 0.9, 0.99, 0.999, 0.9999];

/// Where workers put latencies.
#[derive(Debug)]
pub(super) struct Latencies(Vec<Mutex<Histogram<u64>>>);

impl Latencies {
    pub(super) fn new() -> Self {
        Self((0..SHARDS).map(|_| Mutex::new(empty())).collect())
    }

    /// Of the worker with that number.
    pub(super) fn record(&self, worker: usize, ns: u64) {
        if let Some(shard) = self.0.get(worker % SHARDS) {
            shard.lock().saturating_record(ns);
        }
    }

    /// All of them together.
    pub(super) fn merged(&self) -> Histogram<u64> {
        let mut all = empty();
        for shard in &self.0 {
            merge(&mut all, &shard.lock());
        }
        all
    }
}

/// A histogram of latencies, without any.
#[expect(clippy::expect_used, reason = "only a figure out of range could be refused")]
pub(super) fn empty() -> Histogram<u64> {
    Histogram::new_with_max(MAX_NS, FIGURES).expect("three figures up to an hour")
}

/// Adds those of `other`, which has the same bounds.
pub(super) fn merge(all: &mut Histogram<u64>, other: &Histogram<u64>) {
    let same_bounds = all.add(other);
    debug_assert!(same_bounds.is_ok(), "all are made by `empty`");
}

/// What a histogram comes to, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Percentiles {
    /// How many there are.
    pub(super) count: u64,
    pub(super) mean_ns: u64,
    pub(super) p50_ns: u64,
    pub(super) p90_ns: u64,
    pub(super) p99_ns: u64,
    pub(super) p99_9_ns: u64,
    pub(super) p99_99_ns: u64,
    pub(super) max_ns: u64,
    /// Pairs for a chart: how many of ten, a hundred, a thousand, ... are slower (as `nines`, 1.0 being one of ten), and
    /// how slow they are at least.
    pub(super) curve: Vec<(f64, u64)>,
}

impl Percentiles {
    /// `None` if there are none.
    pub(super) fn of(latencies: &Histogram<u64>) -> Option<Self> {
        let count = latencies.len();
        if count == 0 {
            return None;
        }
        let [p50_ns, p90_ns, p99_ns, p99_9_ns, p99_99_ns] =
            QUANTILES.map(|quantile| latencies.value_at_quantile(quantile));
        // As far as there are samples to speak of.
        let most_nines = (count as f64).log10();
        let curve = (0..=50)
            .map(|step| f64::from(step) / 10.0)
            .take_while(|nines| *nines <= most_nines)
            .map(|nines| (nines, latencies.value_at_quantile(1.0 - 10f64.powf(-nines))))
            .collect();
        Some(Self {
            count,
            mean_ns: latencies.mean() as u64,
            p50_ns,
            p90_ns,
            p99_ns,
            p99_9_ns,
            p99_99_ns,
            max_ns: latencies.max(),
            curve,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_of_all_workers_are_merged() {
        let latencies = Latencies::new();
        for worker in 0..20 {
            for ns in 1..=1_000 {
                latencies.record(worker, ns * 1_000);
            }
        }
        let all = Percentiles::of(&latencies.merged()).expect("some");
        assert_eq!(all.count, 20_000);
        let near = |value: u64, expected: u64| value.abs_diff(expected) <= expected / 500;
        assert!(
            near(all.p50_ns, 500_000) && near(all.p99_ns, 990_000) && near(all.max_ns, 1_000_000),
            "{all:?}"
        );
        assert!(all.curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
    }

    #[test]
    fn merging_rounds_adds_what_each_has() {
        let mut one = empty();
        one.saturating_record(10);
        let mut other = empty();
        other.saturating_record(u64::MAX);
        merge(&mut one, &other);
        assert_eq!((one.len(), one.min()), (2, 10));
        assert!(one.max() >= MAX_NS);
    }

    #[test]
    fn none_have_no_percentiles() {
        assert_eq!(Percentiles::of(&empty()), None);
    }
}

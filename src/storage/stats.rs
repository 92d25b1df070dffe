//! Counters that the storage threads keep and [`super::Store::stats`] reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that many threads add to.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(super) fn raise(&self, n: u64) {
        self.0.fetch_max(n, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) syncs: Counter,
    pub(super) sync_micros_total: Counter,
    pub(super) sync_micros_max: Counter,
    pub(super) sync_group_bytes_total: Counter,
    pub(super) sync_group_appends_total: Counter,
    pub(super) sync_group_bytes_max: Counter,
    pub(super) appended_batches: Counter,
    pub(super) appended_bytes: Counter,
    pub(super) tail_cache_reads: Counter,
    pub(super) segment_reads: Counter,
    pub(super) recovered_logs: Counter,
    pub(super) recovered_bytes: Counter,
    pub(super) upkeep_panics: Counter,
}

impl Counters {
    /// A group of `appends` with `bytes` was synced in `took`.
    pub(super) fn synced(&self, appends: u64, bytes: u64, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.syncs.add(1);
        self.sync_micros_total.add(micros);
        self.sync_micros_max.raise(micros);
        self.sync_group_bytes_total.add(bytes);
        self.sync_group_appends_total.add(appends);
        self.sync_group_bytes_max.raise(bytes);
    }
}

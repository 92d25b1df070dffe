//! Which partition records without a key go to; those with one go where [`crate::record::partition_for_key`] says.

use std::sync::atomic::{AtomicU32, Ordering};

/// Hands out partitions to requests whose records have no key: one to each request, in turn.
#[derive(Debug)]
pub(super) struct Sticky {
    next: AtomicU32,
}

impl Sticky {
    /// Starts anywhere, so that a restart does not favour the first partitions.
    pub(super) fn new() -> Self {
        Self { next: AtomicU32::new(fastrand::u32(..)) }
    }

    /// The next partition, of `partitions`, that `takes_writes`; any if none does. `partitions` is at least
    /// 1.
    pub(super) fn choose(&self, partitions: u32, takes_writes: impl Fn(u32) -> bool) -> u32 {
        let partitions = partitions.max(1);
        let first = self.next.fetch_add(1, Ordering::Relaxed) % partitions;
        (first..partitions).chain(0..first).find(|partition| takes_writes(*partition)).unwrap_or(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_without_keys_take_turns() {
        let sticky = Sticky { next: AtomicU32::new(u32::MAX - 2) };
        let chosen: Vec<u32> = (0..3).map(|_| sticky.choose(4, |_| true)).collect();
        assert_eq!(chosen, [1, 2, 3]);
    }

    #[test]
    fn a_partition_that_takes_no_writes_is_passed_over() {
        let sticky = Sticky { next: AtomicU32::new(2) };
        assert_eq!(sticky.choose(3, |partition| partition == 1), 1);
        assert_eq!(sticky.choose(3, |_| false), 0);
    }
}

//! What was appended last, in memory: followers are served from here and touch neither disk nor map.
//!
//! One byte budget for the whole broker; the oldest batch goes first, whichever log it belongs to. Every log keeps
//! its own batches in a [`Tail`]; the [`TailCache`] only knows in which order they came and what they cost.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use super::types::ReadBatches;
use crate::types::Offset;

/// What an entry costs besides its bytes.
const OVERHEAD_BYTES: u64 = 128;
/// A response holds chunks of about this size: smaller batches are copied together.
const CHUNK_BYTES: usize = 64 << 10;

/// The budget, and the order of all batches.
#[derive(Debug)]
pub(super) struct TailCache {
    budget_bytes: u64,
    used_bytes: AtomicU64,
    order: Mutex<VecDeque<Ticket>>,
}

#[derive(Debug)]
struct Ticket {
    tail: Weak<Tail>,
    base: Offset,
    cost: u64,
}

/// The newest batches of one log, without a gap.
#[derive(Debug, Default)]
pub(super) struct Tail {
    batches: Mutex<VecDeque<TailBatch>>,
}

#[derive(Debug)]
struct TailBatch {
    base: Offset,
    next: Offset,
    bytes: Bytes,
}

impl TailCache {
    /// Keeps about `budget_bytes`.
    pub(super) fn new(budget_bytes: u64) -> Self {
        Self { budget_bytes, used_bytes: AtomicU64::new(0), order: Mutex::new(VecDeque::new()) }
    }

    /// What is held now.
    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Adds a log's next batch, which owns its memory, and drops old ones of any log to make room.
    pub(super) fn push(&self, tail: &Arc<Tail>, base: Offset, next: Offset, bytes: Bytes) {
        let cost = bytes.len() as u64 + OVERHEAD_BYTES;
        if cost > self.budget_bytes {
            // What comes later would not follow what is there without a gap.
            tail.clear();
            return;
        }
        tail.batches.lock().push_back(TailBatch { base, next, bytes });
        let mut used = self.used_bytes.fetch_add(cost, Ordering::Relaxed) + cost;
        let mut order = self.order.lock();
        order.push_back(Ticket { tail: Arc::downgrade(tail), base, cost });
        let mut expired = Vec::new();
        while used > self.budget_bytes
            && let Some(ticket) = order.pop_front()
        {
            used = self.used_bytes.fetch_sub(ticket.cost, Ordering::Relaxed) - ticket.cost;
            expired.push(ticket);
        }
        drop(order);
        for ticket in expired {
            if let Some(tail) = ticket.tail.upgrade() {
                tail.drop_up_to(ticket.base);
            }
        }
    }
}

impl Tail {
    /// Batches from the one that holds `offset` on, as far as they end at or before `end`: at least one, then up to
    /// `max_bytes`. `None` if `offset` is not here.
    pub(super) fn read(&self, offset: Offset, end: Offset, max_bytes: u64) -> Option<ReadBatches> {
        let batches = self.batches.lock();
        let first = batches.partition_point(|batch| batch.next <= offset);
        if batches.get(first)?.base > offset {
            return None;
        }
        let mut read = ReadBatches { next_offset: offset, ..ReadBatches::default() };
        let mut small = Vec::new();
        for batch in batches.iter().skip(first) {
            let size = batch.bytes.len() as u64;
            if batch.next > end || (read.size_bytes > 0 && read.size_bytes + size > max_bytes) {
                break;
            }
            read.size_bytes += size;
            read.next_offset = batch.next;
            if batch.bytes.len() >= CHUNK_BYTES / 2 {
                if !small.is_empty() {
                    read.chunks.push(std::mem::take(&mut small).into());
                }
                read.chunks.push(batch.bytes.clone());
            } else {
                small.extend_from_slice(&batch.bytes);
                if small.len() >= CHUNK_BYTES / 2 {
                    read.chunks.push(std::mem::take(&mut small).into());
                }
            }
        }
        if !small.is_empty() {
            read.chunks.push(small.into());
        }
        (read.size_bytes > 0).then_some(read)
    }

    fn clear(&self) {
        self.batches.lock().clear();
    }

    fn drop_up_to(&self, base: Offset) {
        let mut batches = self.batches.lock();
        while batches.front().is_some_and(|front| front.base <= base) {
            batches.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(value: i64) -> Offset {
        Offset::clamped(value)
    }

    fn push(cache: &TailCache, tail: &Arc<Tail>, base: i64, size: usize) {
        cache.push(tail, offset(base), offset(base + 10), vec![base as u8; size].into());
    }

    #[test]
    fn reads_begin_with_the_batch_that_holds_the_offset() {
        let (cache, tail) = (TailCache::new(1 << 20), Arc::new(Tail::default()));
        for base in [0, 10, 20] {
            push(&cache, &tail, base, 100);
        }
        let read = tail.read(offset(15), offset(30), 1000).unwrap();
        assert_eq!((read.size_bytes, read.next_offset), (200, offset(30)));
        assert_eq!(read.chunks, [[vec![10; 100], vec![20; 100]].concat()], "small ones come in one piece");
        let read = tail.read(offset(0), offset(30), 1).unwrap();
        assert_eq!((read.size_bytes, read.next_offset), (100, offset(10)), "at least one whole batch");
        let read = tail.read(offset(0), offset(20), 1000).unwrap();
        assert_eq!(read.next_offset, offset(20), "nothing beyond the end");
        assert!(tail.read(offset(30), offset(30), 1000).is_none());
    }

    #[test]
    fn the_oldest_batch_of_any_log_goes_first() {
        let cache = TailCache::new(3 * (1000 + OVERHEAD_BYTES));
        let (one, two) = (Arc::new(Tail::default()), Arc::new(Tail::default()));
        push(&cache, &one, 0, 1000);
        push(&cache, &two, 0, 1000);
        push(&cache, &two, 10, 1000);
        push(&cache, &two, 20, 1000);
        assert!(one.read(offset(0), offset(100), 1).is_none());
        assert!(two.read(offset(0), offset(100), 1).is_some());
        assert_eq!(cache.used_bytes(), 3 * (1000 + OVERHEAD_BYTES));
        drop(two);
        for base in [10, 20, 30] {
            push(&cache, &one, base, 1000);
        }
        assert_eq!(cache.used_bytes(), 3 * (1000 + OVERHEAD_BYTES));
        assert!(one.read(offset(10), offset(100), 1).is_some(), "what is gone with its log makes room");
    }

    #[test]
    fn a_batch_beyond_the_budget_leaves_no_gap_behind() {
        let (cache, tail) = (TailCache::new(1000), Arc::new(Tail::default()));
        push(&cache, &tail, 0, 100);
        push(&cache, &tail, 10, 5000);
        push(&cache, &tail, 20, 100);
        assert!(tail.read(offset(0), offset(100), 5000).is_none());
        assert_eq!(tail.read(offset(20), offset(100), 5000).unwrap().size_bytes, 100);
    }
}

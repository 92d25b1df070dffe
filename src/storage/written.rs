//! A group of batches that a log's writer has written, on its way to being durable, visible and acknowledged.

use std::sync::Arc;

use bytes::Bytes;

use super::checkpoint::Boundary;
use super::fs::FsFile;
use super::log_view::LogView;
use super::segment::Segment;
use super::tail_cache::TailCache;
use super::types::{AppendDone, AppendError, Appended, Durability};
use crate::types::Offset;

/// A group of batches of one segment that has been written. Neither synced nor visible.
pub(super) struct Written {
    pub(super) view: Arc<LogView>,
    pub(super) file: Arc<dyn FsFile>,
    pub(super) segment: Arc<Segment>,
    /// Where it begins.
    pub(super) start: Offset,
    /// Where the group ends.
    pub(super) end: Boundary,
    pub(super) batches: Vec<WrittenBatch>,
    pub(super) size_bytes: u64,
    /// Too much is unsynced for it to wait.
    pub(super) must_sync: bool,
}

/// One of them.
pub(super) struct WrittenBatch {
    pub(super) base: Offset,
    pub(super) next: Offset,
    /// `None`: a duplicate of the batch at `base`.
    pub(super) bytes: Option<Bytes>,
    pub(super) done: AppendDone,
}

impl Written {
    /// How many appends it holds.
    pub(super) fn appends(&self) -> usize {
        self.batches.len()
    }

    /// Whether it can be made visible at once without a sync: its log asks for no more, and nothing before it waits
    /// for one.
    pub(super) fn may_skip_sync(&self, durability: Durability) -> bool {
        durability == Durability::Os && !self.must_sync && self.start == self.view.durable_offset()
    }

    /// Makes the group visible and acknowledges it: it is as durable as its log promises. If the log has failed
    /// meanwhile, the group fails too.
    pub(super) fn publish(self, tail_cache: &TailCache) {
        if let Some(reason) = self.view.failure() {
            return self.fail(&AppendError::Sealed { reason });
        }
        for batch in &self.batches {
            if let Some(bytes) = &batch.bytes {
                tail_cache.push(&self.view.tail, batch.base, batch.next, bytes.clone());
            }
        }
        self.segment.set_visible_bytes(self.end.mark.position);
        self.view.publish(self.end.mark.offset);
        self.view.sub_in_flight(self.size_bytes);
        let log_start_offset = self.view.log_start_offset();
        for batch in self.batches {
            let duplicate = batch.bytes.is_none();
            (batch.done)(Ok(Appended { base_offset: batch.base, log_start_offset, duplicate }));
        }
    }

    /// The group will never be visible.
    pub(super) fn fail(self, error: &AppendError) {
        self.view.sub_in_flight(self.size_bytes);
        for batch in self.batches {
            (batch.done)(Err(error.clone()));
        }
    }
}

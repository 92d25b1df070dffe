//! Producer ids, one at a time out of a block that the catalogue has set aside.
//!
//! A block is durable before the first id of it is given out, so none is ever given out twice; what is left of one
//! when the broker ends is skipped. So is the first block of each run: an operator may have put back the catalogue before
//! the last change, which does not know of the last block.
//!
//! Whoever makes an id up would be taken for the producer who gets it later, and what that one sends for duplicates: it
//! would be acknowledged and lost. So a batch may only have an id below the next one to be given out. None that was
//! given out lies above that: in this run they ascend, and those of earlier runs lie below what the catalogue had set
//! aside at the start, or, if it is the one before the last change, within the block after that, which is skipped. An id
//! that was made up and lies below will never be anybody's.

use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Mutex;

use super::error::BrokerError;
use super::node::Broker;
use crate::types::ProducerId;

/// How many ids are set aside at a time: replacing the catalogue costs a few syncs.
const BLOCK_IDS: u32 = 1_000;

/// Never given out: it is what a protobuf client sends that sets no id, and two of those would pass for one producer.
const UNSET: i64 = 0;

/// The ids of one run.
#[derive(Debug)]
pub(super) struct ProducerIds {
    /// What is left of the block; `None` before the first one of this run.
    block: Mutex<Option<Range<i64>>>,
    /// No id from this one on has been given out.
    next: AtomicI64,
}

impl ProducerIds {
    /// Those of a run that begins with a catalogue which has set aside all below `set_aside`.
    pub(super) fn after(set_aside: i64) -> Self {
        Self { block: Mutex::default(), next: AtomicI64::new(set_aside.saturating_add(BLOCK_IDS.into())) }
    }

    /// Whether nobody will be given this id any more.
    pub(super) fn is_past(&self, producer_id: i64) -> bool {
        producer_id < self.next.load(Ordering::Acquire)
    }
}

impl Broker {
    /// A producer id that nobody has had, now or before a crash.
    ///
    /// # Errors
    /// [`BrokerError::NoProducerId`], [`BrokerError::ShuttingDown`].
    pub async fn init_producer(&self) -> Result<ProducerId, BrokerError> {
        self.refuse_at_shutdown()?;
        let ProducerIds { block, next } = &self.producer_ids;
        let mut block = block.lock().await;
        loop {
            let id = block.as_mut().and_then(|block| block.find(|id| *id != UNSET));
            if let Some(id) = id.and_then(ProducerId::new) {
                // Before anybody hears of it.
                next.fetch_max(id.get() + 1, Ordering::Release);
                return Ok(id);
            }
            let set_aside = self.topics.allocate_producer_ids(BLOCK_IDS).await?;
            // Two changes: the last one is that of a block of which ids are given out.
            *block = Some(if block.is_none() { set_aside.end..set_aside.end } else { set_aside });
        }
    }
}

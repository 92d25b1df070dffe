//! Producer ids, one at a time out of a block that the catalogue has set aside.
//!
//! A block is durable before the first id of it is given out, so none is ever given out twice; what is left of one
//! when the broker ends is skipped. So is the first block of each run: an operator may have put back the catalogue before
//! the last change, which does not know of the last block.

use std::ops::Range;

use tokio::sync::Mutex;

use super::error::BrokerError;
use super::node::Broker;
use crate::types::ProducerId;

/// How many ids are set aside at a time: replacing the catalogue costs a few syncs.
const BLOCK_IDS: u32 = 1_000;

/// Never given out: it is what a protobuf client sends that sets no id, and two of those would pass for one producer.
const UNSET: i64 = 0;

/// What is left of the block; `None` before the first one of this run.
#[derive(Debug, Default)]
pub(super) struct ProducerIds(Mutex<Option<Range<i64>>>);

impl Broker {
    /// A producer id that nobody has had, now or before a crash.
    ///
    /// # Errors
    /// [`BrokerError::NoProducerId`], [`BrokerError::ShuttingDown`].
    pub async fn init_producer(&self) -> Result<ProducerId, BrokerError> {
        self.refuse_at_shutdown()?;
        let mut block = self.producer_ids.0.lock().await;
        loop {
            let id = block.as_mut().and_then(|block| block.find(|id| *id != UNSET));
            if let Some(id) = id.and_then(ProducerId::new) {
                return Ok(id);
            }
            let next = self.topics.allocate_producer_ids(BLOCK_IDS).await?;
            // Two changes: the last one is that of a block of which ids are given out.
            *block = Some(if block.is_none() { next.end..next.end } else { next });
        }
    }
}

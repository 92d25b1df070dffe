//! Producer ids, one at a time out of a block that the catalogue has set aside.
//!
//! A block is durable before the first id of it is given out, so none is ever given out twice; what is left of one
//! when the broker ends is skipped.

use std::ops::Range;

use tokio::sync::Mutex;

use super::error::BrokerError;
use super::node::Broker;
use crate::types::ProducerId;

/// How many ids are set aside at a time: replacing the catalogue costs a few syncs.
const BLOCK_IDS: u32 = 1_000;

/// What is left of the block.
#[derive(Debug, Default)]
pub(super) struct ProducerIds(Mutex<Range<i64>>);

impl Broker {
    /// A producer id that nobody has had, now or before a crash.
    ///
    /// # Errors
    /// [`BrokerError::NoProducerId`], [`BrokerError::ShuttingDown`].
    pub async fn init_producer(&self) -> Result<ProducerId, BrokerError> {
        self.refuse_at_shutdown()?;
        let mut block = self.producer_ids.0.lock().await;
        loop {
            if let Some(id) = block.next().and_then(ProducerId::new) {
                return Ok(id);
            }
            *block = self.topics.allocate_producer_ids(BLOCK_IDS).await?;
        }
    }
}

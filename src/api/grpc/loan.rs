//! What a message borrows from segment maps until its bytes have been copied for the transport.
//!
//! A page can vanish even while it is being copied: the copy has zeros in its place. So a message carries the leases of
//! what it was made of, and they are asked after each piece and before it is sent: the answer ends with the failure
//! instead.

use super::error::Failure;
use crate::storage::{Lease, ReadBatches};
use crate::types::TopicName;

/// What one partition's part of a message borrows.
#[derive(Debug, Clone)]
pub(super) struct Loan {
    lease: Lease,
    topic: TopicName,
    partition: i32,
}

impl Loan {
    /// What a message borrows that has some of `batches` in it; nothing of what is in memory of its own.
    pub(super) fn of(batches: &ReadBatches, topic: &TopicName, partition: i32) -> Option<Self> {
        let lease = &batches.lease;
        lease.is_of_map().then(|| Self { lease: lease.clone(), topic: topic.clone(), partition })
    }

    /// Why nothing that was copied may be sent, if some of it was not there any more.
    pub(super) fn failure(&self) -> Option<Failure> {
        (!self.lease.is_intact()).then(|| Failure::vanished(self.topic.as_str(), self.partition))
    }
}

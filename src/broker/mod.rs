//! Topics and partitions: what exists, what is appended to it, what is read from it.
//!
//! The layer stands between the edges, which speak some protocol, and the store, which keeps logs and knows
//! no topic. It owns the catalogue of topics, the rules a batch must meet, the bound on what has been
//! accepted and not yet acknowledged, and every reader that waits. Edges and the group layer hold an
//! `Arc<`[`Broker`]`>` and nothing below it.
//!
//! | file              | noun                                                                       |
//! |-------------------|----------------------------------------------------------------------------|
//! | `node`            | [`Broker`]: opening, shutting down, and the door to everything else        |
//! | `error`           | [`BrokerError`]: all that can go wrong, with the facts                     |
//! | `catalogue`       | which topics there are: a pure state machine                               |
//! | `catalogue_file`  | how the catalogue is spelt on the disk                                     |
//! | `topic_config`    | the table of topic settings                                                |
//! | `topic`           | one topic as it is now                                                     |
//! | `topics`          | all topics as they are now, and the turn-taking of their changes           |
//! | `topic_changes`   | creating, updating and deleting a topic                                    |
//! | `partition`       | one log, its high watermark, and its errors in a topic's words             |
//! | `partitioner`     | which partition records without a key go to                                |
//! | `batch`           | what a batch must meet, and becomes, before it is appended                 |
//! | `queue`           | the bound on accepted bytes                                                |
//! | `produce`         | the way of an append                                                       |
//! | `producer_ids`    | ids for idempotent producers                                               |
//! | `reader`          | a waiting reader of one partition                                          |
//! | `fetch`           | reading several partitions at once, with a wait                            |
//! | `offsets`         | turning positions into offsets, and moving a log's start                   |
//! | `accept_loss`     | letting a partition go on whose log's end is lost                          |
//! | `verify`          | the check of a data directory on which no broker runs                      |
//!
//! # What is promised
//!
//! No call blocks its thread on the disk, [`Broker::open`] excepted. A future that is dropped half way leaves
//! nothing half done: a change of a topic runs to its end on a task of its own, and an append has been handed
//! over or has not. Readers see what lies below the high watermark, which today is the log's durable offset.

mod accept_loss;
mod batch;
mod catalogue;
mod catalogue_file;
mod error;
mod fetch;
mod node;
mod offsets;
mod partition;
mod partitioner;
mod produce;
mod producer_ids;
mod queue;
mod reader;
mod topic;
mod topic_changes;
mod topic_config;
mod topics;
pub mod verify;

pub use crate::storage::AcceptedLoss;
pub use error::{BrokerError, CloseBrokerError, OpenBrokerError};
pub use fetch::{FetchLimits, FetchPartition, Fetched};
pub use node::{Broker, BrokerStatus};
pub use offsets::{Position, Resolved};
pub use produce::{AppendTerms, Caller, PendingAppend, ProduceRecord, Produced, Target};
pub use reader::PartitionReader;
pub use topic::TopicDescription;
pub use topic_changes::{TopicSpec, TopicUpdate};
pub use topic_config::ConfigEntry;
pub use topics::TopicDeleted;

/// A way in for fuzz targets to the catalogue's decoder.
#[doc(hidden)]
pub mod fuzzing {
    use super::catalogue_file::{decode, encode};

    /// The body that what this body says is written as; `None` if it says nothing.
    pub fn rewrite_catalogue(body: &[u8]) -> Option<Vec<u8>> {
        decode(body).ok().map(|catalogue| encode(&catalogue))
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

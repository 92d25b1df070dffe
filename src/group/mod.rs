//! Consumer groups: how far each has come.
//!
//! The offsets of all groups live in the internal topic `__consumer_offsets`, in Kafka's own record
//! encodings, and in a table in memory that is a replay of it. A commit is appended first, and the table
//! follows once the append is durable. The layer reaches the topic through the
//! [`Broker`](crate::broker::Broker) only; edges hold an `Arc<`[`Groups`]`>`.
//!
//! | file          | noun                                                                  |
//! |---------------|-----------------------------------------------------------------------|
//! | `offsets`     | [`Groups`]: commits and questions                                     |
//! | `table`       | the offsets in memory                                                 |
//! | `replay`      | reading them back from a partition of the topic                       |
//! | `offsets_log` | how one committed offset is spelt as a record                         |

mod offsets;
mod offsets_log;
mod replay;
mod table;
#[cfg(test)]
mod tests;

pub use offsets::{AllCommitted, Commit, Committed, GroupError, Groups};

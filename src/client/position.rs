//! Places: a partition of a topic, and where in it to read.

use std::fmt;

use super::error::Error;
use crate::proto;
use crate::types::{GroupName, Offset, PartitionId, TopicName};

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionId,
}

impl TopicPartition {
    /// A partition of a topic.
    pub const fn new(topic: TopicName, partition: PartitionId) -> Self {
        Self { topic, partition }
    }

    /// As the broker names it.
    pub(super) fn from_wire(topic: &str, partition: i32) -> Result<Self, Error> {
        Ok(Self::new(topic_from_wire(topic)?, partition_from_wire(partition)?))
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A place in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Position {
    /// The earliest offset still there.
    #[default]
    Earliest,
    /// The end: only what is appended from now on.
    Latest,
    /// Exactly this offset.
    Offset(Offset),
    /// The first record whose timestamp is at or after this one, in milliseconds since the Unix epoch; the end if
    /// there is none.
    TimestampMs(i64),
}

impl Position {
    pub(super) fn to_proto(self) -> proto::Position {
        use proto::position::At;
        let at = match self {
            Self::Earliest => At::Anchor(proto::Anchor::Earliest.into()),
            Self::Latest => At::Anchor(proto::Anchor::Latest.into()),
            Self::Offset(offset) => At::Offset(offset.get()),
            Self::TimestampMs(ms) => At::TimestampMs(ms),
        };
        proto::Position { at: Some(at) }
    }
}

/// Where a consumer begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// At a place in the partition.
    At(Position),
    /// Where a group left off.
    Committed {
        /// The group.
        group: GroupName,
        /// Where it has committed nothing.
        fallback: Position,
    },
}

impl From<Position> for Start {
    fn from(position: Position) -> Self {
        Self::At(position)
    }
}

pub(super) fn topic_from_wire(topic: &str) -> Result<TopicName, Error> {
    TopicName::parse(topic).map_err(|error| Error::unexpected(format!("the broker answered with an {error}")))
}

pub(super) fn partition_from_wire(partition: i32) -> Result<PartitionId, Error> {
    PartitionId::new(partition)
        .ok_or_else(|| Error::unexpected(format!("the broker answered with partition {partition}")))
}

pub(super) fn offset_from_wire(offset: i64) -> Result<Offset, Error> {
    Offset::new(offset).ok_or_else(|| Error::unexpected(format!("the broker answered with offset {offset}")))
}

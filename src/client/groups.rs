//! Committed offsets of consumer groups.

use super::connection::Connection;
use super::error::Error;
use super::position::{TopicPartition, offset_from_wire};
use crate::proto;
use crate::types::{GroupName, LeaderEpoch, Offset};

/// How far a group has come in one partition, to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommit {
    /// Where.
    pub partition: TopicPartition,
    /// The next offset to read: one past the last record that was processed.
    pub offset: Offset,
    /// The leader epoch of the last record that was processed, where it is known.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Kept as it is.
    pub metadata: String,
}

impl OffsetCommit {
    /// A commit without metadata.
    pub const fn new(partition: TopicPartition, offset: Offset) -> Self {
        Self { partition, offset, leader_epoch: None, metadata: String::new() }
    }
}

/// How far a group has come in one partition, as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// What was committed.
    pub commit: OffsetCommit,
    /// When, in milliseconds since the Unix epoch.
    pub commit_timestamp_ms: i64,
}

/// How far a group has come, as far as the broker knows.
#[derive(Debug, Clone)]
pub struct CommittedOffsets {
    /// By topic and partition.
    pub offsets: Vec<CommittedOffset>,
    /// If no partitions were asked for: some of the offsets may be older than what the group has committed, and some may be
    /// missing, as the broker cannot read part of what it keeps.
    pub loss: Option<Error>,
}

/// One line of the list of groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupListing {
    /// Its name.
    pub group: GroupName,
    /// How many partitions it has committed an offset for.
    pub partitions: u32,
}

/// Group offsets over a client's connection.
#[derive(Debug, Clone)]
pub struct Groups {
    connection: Connection,
}

impl Groups {
    pub(super) const fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Records how far a group has come: all of the offsets, or none. They are durable when this returns.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`, `UNKNOWN_PARTITION`, `INVALID_GROUP`, or the connection's.
    pub async fn commit_offsets(
        &self,
        group: &GroupName,
        offsets: impl IntoIterator<Item = OffsetCommit>,
    ) -> Result<(), Error> {
        let commit = |commit: OffsetCommit| proto::OffsetCommit {
            topic: commit.partition.topic.as_str().to_owned(),
            partition: commit.partition.partition.get(),
            offset: commit.offset.get(),
            leader_epoch: commit.leader_epoch.map(|epoch| epoch.0),
            metadata: commit.metadata,
        };
        let request = proto::CommitOffsetsRequest {
            group: group.as_str().to_owned(),
            offsets: offsets.into_iter().map(commit).collect(),
        };
        self.connection.answer(self.connection.groups().commit_offsets(request).await)?;
        Ok(())
    }

    /// How far a group has come in some partitions, or in all it has committed if `partitions` is empty. Those
    /// without a commit are left out.
    ///
    /// # Errors
    /// `INVALID_GROUP`, `DATA_LOSS` if the last commit for one of the partitions may be lost, or the connection's.
    pub async fn fetch_offsets(
        &self,
        group: &GroupName,
        partitions: &[TopicPartition],
    ) -> Result<CommittedOffsets, Error> {
        let partition = |partition: &TopicPartition| proto::TopicPartition {
            topic: partition.topic.as_str().to_owned(),
            partition: partition.partition.get(),
        };
        let request = proto::FetchOffsetsRequest {
            group: group.as_str().to_owned(),
            partitions: partitions.iter().map(partition).collect(),
        };
        let answer = self.connection.answer(self.connection.groups().fetch_offsets(request).await)?;
        let committed = |committed: proto::CommittedOffset| {
            Ok(CommittedOffset {
                commit: OffsetCommit {
                    partition: TopicPartition::from_wire(&committed.topic, committed.partition)?,
                    offset: offset_from_wire(committed.offset)?,
                    leader_epoch: committed.leader_epoch.map(LeaderEpoch),
                    metadata: committed.metadata,
                },
                commit_timestamp_ms: committed.commit_timestamp_ms,
            })
        };
        let offsets = answer.offsets.into_iter().map(committed).collect::<Result<_, Error>>()?;
        Ok(CommittedOffsets { offsets, loss: answer.error.map(Error::from_proto) })
    }

    /// All groups that have committed an offset, by name.
    ///
    /// # Errors
    /// The connection's.
    pub async fn list(&self) -> Result<Vec<GroupListing>, Error> {
        let answer = self
            .connection
            .answer(self.connection.groups().list_groups(proto::ListGroupsRequest {}).await)?;
        let listing = |listing: proto::GroupListing| {
            let group = GroupName::parse(&listing.group)
                .map_err(|error| Error::unexpected(format!("the broker answered with an {error}")))?;
            Ok(GroupListing { group, partitions: u32::try_from(listing.partitions).unwrap_or_default() })
        };
        answer.groups.into_iter().map(listing).collect()
    }
}

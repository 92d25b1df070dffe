//! Topics, and the broker itself: create, change, look, delete.

use std::collections::BTreeMap;

use super::connection::Connection;
use super::description::{BrokerInfo, ListedOffset, TopicInfo, TopicListing};
use super::error::Error;
use super::position::{Position, TopicPartition, offset_from_wire, partition_from_wire};
use crate::proto;
use crate::types::{LeaderEpoch, Offset, PartitionId, TopicName};

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: TopicName,
    /// How many partitions; absent: the broker's `default_partitions`.
    pub partitions: Option<u32>,
    /// Settings by name, such as `durability` = `os`.
    pub config: BTreeMap<String, String>,
    /// Only check; create nothing.
    pub validate_only: bool,
}

impl NewTopic {
    /// A topic with the broker's defaults.
    pub const fn new(name: TopicName) -> Self {
        Self { name, partitions: None, config: BTreeMap::new(), validate_only: false }
    }

    /// Says how many partitions.
    #[must_use]
    pub const fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// Sets a setting.
    #[must_use]
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.insert(name.into(), value.into());
        self
    }
}

/// A change of a topic: all of it is done, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicUpdate {
    /// The topic.
    pub name: TopicName,
    /// Settings to change.
    pub set: BTreeMap<String, String>,
    /// Settings to put back to their defaults.
    pub reset: Vec<String>,
    /// The new number of partitions; it can only grow.
    pub partitions: Option<u32>,
}

impl TopicUpdate {
    /// A change of nothing yet.
    pub const fn new(name: TopicName) -> Self {
        Self { name, set: BTreeMap::new(), reset: Vec::new(), partitions: None }
    }
}

/// What was given up when a loss was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptedLoss {
    /// The first offset that is given up.
    pub first: Offset,
    /// One past the last: the next record gets it.
    pub next: Offset,
    /// Of the records to come.
    pub leader_epoch: LeaderEpoch,
}

/// Administration over a client's connection.
#[derive(Debug, Clone)]
pub struct Admin {
    connection: Connection,
}

impl Admin {
    pub(super) const fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Creates a topic; it is durable when this returns.
    ///
    /// # Errors
    /// `TOPIC_ALREADY_EXISTS`, `INVALID_PARTITIONS`, `INVALID_CONFIG`, `UNSUPPORTED_CONFIG`, or the connection's.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<TopicInfo, Error> {
        let request = proto::CreateTopicRequest {
            name: topic.name.as_str().to_owned(),
            partitions: topic.partitions.map(partition_count).transpose()?,
            config: topic.config.into_iter().collect(),
            validate_only: topic.validate_only,
        };
        let answer = self.connection.answer(self.connection.admin().create_topic(request).await)?;
        TopicInfo::from_proto(answer.topic)
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`, `INTERNAL_TOPIC`, or the connection's.
    pub async fn delete_topic(&self, name: &TopicName) -> Result<(), Error> {
        let request = proto::DeleteTopicRequest { name: name.as_str().to_owned() };
        self.connection.answer(self.connection.admin().delete_topic(request).await)?;
        Ok(())
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// The connection's.
    pub async fn list_topics(&self, include_internal: bool) -> Result<Vec<TopicListing>, Error> {
        let request = proto::ListTopicsRequest { include_internal };
        let answer = self.connection.answer(self.connection.admin().list_topics(request).await)?;
        answer.topics.into_iter().map(TopicListing::from_proto).collect()
    }

    /// All about one topic.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`, or the connection's.
    pub async fn describe_topic(&self, name: &TopicName) -> Result<TopicInfo, Error> {
        self.describe(name, false).await
    }

    /// All about one topic, which the broker creates if it is not there, and may: what a [`Producer`](super::Producer)
    /// asks before it sends to it.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC` where the broker's `auto_create_topics` is off, or the connection's.
    pub async fn describe_or_create_topic(&self, name: &TopicName) -> Result<TopicInfo, Error> {
        self.describe(name, true).await
    }

    async fn describe(&self, name: &TopicName, allow_auto_create: bool) -> Result<TopicInfo, Error> {
        let request = proto::DescribeTopicRequest { name: name.as_str().to_owned(), allow_auto_create };
        let answer = self.connection.answer(self.connection.admin().describe_topic(request).await)?;
        TopicInfo::from_proto(answer.topic)
    }

    /// Changes a topic's settings, or adds partitions.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`, `INVALID_PARTITIONS`, `INVALID_CONFIG`, `UNSUPPORTED_CONFIG`, or the connection's.
    pub async fn update_topic(&self, update: TopicUpdate) -> Result<TopicInfo, Error> {
        let request = proto::UpdateTopicRequest {
            name: update.name.as_str().to_owned(),
            set: update.set.into_iter().collect(),
            reset: update.reset,
            partitions: update.partitions.map(partition_count).transpose()?,
        };
        let answer = self.connection.answer(self.connection.admin().update_topic(request).await)?;
        TopicInfo::from_proto(answer.topic)
    }

    /// Moves the log start offset of partitions up to an offset, or to the high watermark if none is given. What is
    /// below is gone for good. Answers with the new log start offsets, in the order asked for.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`, or the connection's; those of one partition are its own.
    pub async fn delete_records(
        &self,
        topic: &TopicName,
        before: &[(PartitionId, Option<Offset>)],
    ) -> Result<Vec<(PartitionId, Result<Offset, Error>)>, Error> {
        let partition =
            |&(partition, before): &(PartitionId, Option<Offset>)| proto::DeleteRecordsPartition {
                partition: partition.get(),
                before_offset: before.map_or(-1, Offset::get),
            };
        let request = proto::DeleteRecordsRequest {
            topic: topic.as_str().to_owned(),
            partitions: before.iter().map(partition).collect(),
        };
        let answer = self.connection.answer(self.connection.admin().delete_records(request).await)?;
        let deleted = |deleted: proto::DeletedRecords| {
            let outcome = match deleted.error {
                Some(error) => Err(Error::from_proto(error)),
                None => offset_from_wire(deleted.log_start_offset),
            };
            Ok((partition_from_wire(deleted.partition)?, outcome))
        };
        answer.partitions.into_iter().map(deleted).collect()
    }

    /// Gives up what a partition has lost at the end of its log, for good, so that it takes records again.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`, `UNKNOWN_PARTITION`, `NO_LOSS` if nothing is lost at the end of its log, or the connection's.
    pub async fn accept_loss(
        &self,
        topic: &TopicName,
        partition: PartitionId,
    ) -> Result<AcceptedLoss, Error> {
        let request =
            proto::AcceptLossRequest { topic: topic.as_str().to_owned(), partition: partition.get() };
        let answer = self.connection.answer(self.connection.admin().accept_loss(request).await)?;
        Ok(AcceptedLoss {
            first: offset_from_wire(answer.first_offset)?,
            next: offset_from_wire(answer.next_offset)?,
            leader_epoch: LeaderEpoch(answer.leader_epoch),
        })
    }

    /// Turns positions into offsets; answers in the order asked for.
    ///
    /// # Errors
    /// The connection's; those of one partition are its own.
    pub async fn list_offsets(
        &self,
        positions: impl IntoIterator<Item = (TopicPartition, Position)>,
    ) -> Result<Vec<Result<ListedOffset, Error>>, Error> {
        let partition = |(partition, position): (TopicPartition, Position)| proto::ListOffsetsPartition {
            topic: partition.topic.as_str().to_owned(),
            partition: partition.partition.get(),
            position: Some(position.to_proto()),
        };
        let partitions: Vec<_> = positions.into_iter().map(partition).collect();
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let asked = partitions.len();
        let request = proto::ListOffsetsRequest { partitions };
        let answer = self.connection.answer(self.connection.log().list_offsets(request).await)?;
        if answer.offsets.len() != asked {
            let answered = answer.offsets.len();
            return Err(Error::unexpected(format!(
                "asked for {asked} offsets, the broker answered {answered}"
            )));
        }
        Ok(answer.offsets.into_iter().map(ListedOffset::from_proto).collect())
    }

    /// The broker's identity and its counters.
    ///
    /// # Errors
    /// The connection's.
    pub async fn describe_broker(&self) -> Result<BrokerInfo, Error> {
        let request = proto::DescribeBrokerRequest {};
        let answer = self.connection.answer(self.connection.admin().describe_broker(request).await)?;
        Ok(BrokerInfo::from_proto(answer))
    }
}

fn partition_count(partitions: u32) -> Result<i32, Error> {
    i32::try_from(partitions).map_err(|_| Error::invalid(format!("{partitions} partitions are too many")))
}

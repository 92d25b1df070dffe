//! The partitions a consumer reads and how far it has come in each. Pure.

use crate::client::groups::OffsetCommit;
use crate::client::position::TopicPartition;
use crate::proto;
use crate::types::{LeaderEpoch, Offset};

/// One partition being read.
#[derive(Debug)]
pub(super) struct Assigned {
    pub(super) partition: TopicPartition,
    /// The offset of the next record to hand out.
    pub(super) position: Offset,
    /// Of the last record handed out.
    pub(super) leader_epoch: Option<LeaderEpoch>,
    /// Nothing at or after it is handed out.
    pub(super) stop: Option<Offset>,
    /// It cannot be read on; a seek revives it.
    pub(super) failed: bool,
}

impl Assigned {
    pub(super) const fn new(partition: TopicPartition, position: Offset) -> Self {
        Self { partition, position, leader_epoch: None, stop: None, failed: false }
    }

    /// Whether there is more to read here, now or later.
    pub(super) fn is_active(&self) -> bool {
        !self.failed && self.stop.is_none_or(|stop| self.position < stop)
    }

    /// Whether a record is the consumer's to hand out. A batch may begin before the position, and go on after the stop.
    pub(super) fn wants(&self, offset: Offset) -> bool {
        offset >= self.position && self.stop.is_none_or(|stop| offset < stop)
    }

    /// Everything before `offset` was handed out, or is not there.
    pub(super) fn advance(&mut self, offset: Offset) {
        let offset = self.stop.map_or(offset, |stop| offset.min(stop));
        self.position = self.position.max(offset);
    }

    pub(super) fn commit(&self) -> OffsetCommit {
        OffsetCommit {
            leader_epoch: self.leader_epoch,
            ..OffsetCommit::new(self.partition.clone(), self.position)
        }
    }
}

/// All partitions of one consumer.
#[derive(Debug)]
pub(super) struct Assignment(pub(super) Vec<Assigned>);

impl Assignment {
    pub(super) fn active(&self) -> impl Iterator<Item = &Assigned> {
        self.0.iter().filter(|assigned| assigned.is_active())
    }

    /// The place of a partition in the assignment.
    pub(super) fn find(&self, topic: &str, partition: i32) -> Option<usize> {
        let is_it = |assigned: &Assigned| {
            assigned.partition.partition.get() == partition && assigned.partition.topic.as_str() == topic
        };
        self.0.iter().position(is_it)
    }

    /// Reads on from where all active partitions stand.
    pub(super) fn request(&self, max_bytes: usize) -> proto::FetchStreamRequest {
        use proto::position::At;
        let partition = |assigned: &Assigned| proto::FetchPartition {
            topic: assigned.partition.topic.as_str().to_owned(),
            partition: assigned.partition.partition.get(),
            position: Some(proto::Position { at: Some(At::Offset(assigned.position.get())) }),
        };
        proto::FetchStreamRequest {
            partitions: self.active().map(partition).collect(),
            format: proto::FetchFormat::RecordBatches.into(),
            max_bytes: i32::try_from(max_bytes).unwrap_or(i32::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PartitionId, TopicName};

    fn at(position: i64, stop: Option<i64>) -> Assigned {
        let topic = TopicName::parse("t").expect("a valid name");
        let mut assigned =
            Assigned::new(TopicPartition::new(topic, PartitionId::default()), Offset::clamped(position));
        assigned.stop = stop.map(Offset::clamped);
        assigned
    }

    #[test]
    fn records_before_the_position_and_from_the_stop_on_are_not_wanted() {
        let assigned = at(5, Some(8));
        let wanted: Vec<i64> = (0..10).filter(|offset| assigned.wants(Offset::clamped(*offset))).collect();
        assert_eq!(wanted, [5, 6, 7]);
    }

    #[test]
    fn a_position_neither_goes_back_nor_passes_the_stop() {
        let mut assigned = at(5, Some(8));
        assigned.advance(Offset::clamped(3));
        assert_eq!(assigned.position.get(), 5);
        assert!(assigned.is_active());
        assigned.advance(Offset::clamped(20));
        assert_eq!(assigned.position.get(), 8);
        assert!(!assigned.is_active());
    }

    #[test]
    fn a_request_leaves_out_what_is_finished_or_failed() {
        let mut failed = at(0, None);
        failed.failed = true;
        let assignment = Assignment(vec![at(8, Some(8)), failed, at(3, None)]);
        let request = assignment.request(100);
        assert_eq!(request.partitions.len(), 1);
        let position = request.partitions[0].position.as_ref().and_then(|position| position.at);
        assert_eq!(position, Some(proto::position::At::Offset(3)));
    }
}

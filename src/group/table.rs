//! The committed offsets in memory: what a replay of `__consumer_offsets` up to now would give.
//!
//! Every change says where in its partition of the topic it stands, and an older one never undoes a newer
//! one: so it does not matter in which order the outcomes of concurrent commits arrive. All changes of a
//! group stand in one partition.

use std::collections::{BTreeMap, HashMap};

use super::offsets_log::{OffsetKey, OffsetValue};
use crate::broker::BrokerError;
use crate::types::{GroupName, Offset, PartitionId, TopicId, TopicName};

/// A committed offset, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) value: OffsetValue,
    /// Its identity, whether the record named it or not.
    pub(super) topic_id: TopicId,
    /// The offset of its record.
    pub(super) stands_at: Offset,
}

/// A partition of the topic could not be read as a whole: what groups committed up to here may be missing or
/// out of date.
#[derive(Debug, Clone)]
pub(super) struct Loss {
    pub(super) through: Offset,
    pub(super) error: BrokerError,
}

/// The offsets of one group.
pub(super) type GroupOffsets = BTreeMap<(TopicName, PartitionId), Entry>;

/// All committed offsets of topics that exist.
#[derive(Debug, Default)]
pub(super) struct Table {
    groups: HashMap<GroupName, GroupOffsets>,
    /// By partition of the topic, from the last replay.
    losses: HashMap<u32, Loss>,
}

impl Table {
    /// Takes an offset, unless a newer one is there.
    pub(super) fn put(&mut self, key: OffsetKey, entry: Entry) {
        let offsets = self.groups.entry(key.group).or_default();
        let place = (key.topic, key.partition);
        if offsets.get(&place).is_none_or(|present| present.stands_at < entry.stands_at) {
            offsets.insert(place, entry);
        }
    }

    /// Forgets the offsets of a topic that is gone.
    pub(super) fn forget_topic(&mut self, id: TopicId) {
        self.groups.retain(|_, offsets| {
            offsets.retain(|_, entry| entry.topic_id != id);
            !offsets.is_empty()
        });
    }

    /// Remembers that a partition of the topic could not be read as a whole.
    pub(super) fn set_loss(&mut self, partition: u32, loss: Loss) {
        self.losses.insert(partition, loss);
    }

    /// What may have been lost of the groups that this partition of the topic keeps.
    pub(super) fn loss(&self, partition: u32) -> Option<&Loss> {
        self.losses.get(&partition)
    }

    /// The offsets of a group.
    pub(super) fn group(&self, group: &GroupName) -> Option<&GroupOffsets> {
        self.groups.get(group)
    }

    /// All groups that have an offset, in no order.
    pub(super) fn groups(&self) -> impl Iterator<Item = (&GroupName, &GroupOffsets)> {
        self.groups.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(group: &str, topic: &str) -> OffsetKey {
        OffsetKey {
            group: GroupName::parse(group).expect("valid"),
            topic: TopicName::parse(topic).expect("valid"),
            partition: PartitionId::default(),
        }
    }

    fn entry(topic_id: TopicId, offset: i64, stands_at: i64) -> Entry {
        let value = OffsetValue {
            offset: Offset::clamped(offset),
            leader_epoch: None,
            metadata: String::new(),
            commit_timestamp_ms: 0,
            topic_id: Some(topic_id),
        };
        Entry { value, topic_id, stands_at: Offset::clamped(stands_at) }
    }

    #[test]
    fn an_older_commit_that_arrives_later_does_not_win() {
        let id = TopicId::random();
        let mut table = Table::default();
        table.put(key("g", "t"), entry(id, 20, 8));
        table.put(key("g", "t"), entry(id, 10, 7));
        let offsets: Vec<_> = table.groups().flat_map(|(_, offsets)| offsets.values()).collect();
        assert_eq!(offsets, [&entry(id, 20, 8)]);
        table.put(key("g", "t"), entry(id, 5, 9));
        assert_eq!(
            table.groups().next().expect("one").1.values().next(),
            Some(&entry(id, 5, 9)),
            "back is fine"
        );
    }

    #[test]
    fn a_group_without_offsets_is_no_group() {
        let (gone, kept) = (TopicId::random(), TopicId::random());
        let mut table = Table::default();
        table.put(key("g", "gone"), entry(gone, 1, 0));
        table.put(key("h", "gone"), entry(gone, 1, 1));
        table.put(key("h", "kept"), entry(kept, 1, 2));
        table.forget_topic(gone);
        let groups: Vec<_> = table.groups().map(|(group, offsets)| (group.as_str(), offsets.len())).collect();
        assert_eq!(groups, [("h", 1)]);
    }
}

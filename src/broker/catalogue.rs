//! Which topics there are, and which producer ids have been set aside: a state machine without I/O or clock. A command and a state give a new state or an
//! error.
//!
//! `topics` alone drives it: it applies a command, replaces the file, and only then shows the new state to
//! anyone. What makes a command valid depends on the state and on the command, so that replicas which apply
//! the same commands agree.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::{MAX_PARTITIONS_PER_TOPIC, TopicId, TopicName};

/// What the catalogue keeps about a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopicEntry {
    /// Its identity.
    pub(super) id: TopicId,
    /// From 1 to [`MAX_PARTITIONS_PER_TOPIC`].
    pub(super) partitions: u32,
    /// The settings that were given, in their canonical spelling; the others have their defaults.
    pub(super) config: BTreeMap<String, String>,
}

/// A topic that is gone, but whose directories may still be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deletion {
    /// The name it had; another topic may have it now.
    pub(super) name: TopicName,
    /// Its identity.
    pub(super) id: TopicId,
    /// How many partitions it had.
    pub(super) partitions: u32,
}

/// All topics at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Catalogue {
    pub(super) topics: BTreeMap<TopicName, Arc<TopicEntry>>,
    pub(super) deletions: Vec<Deletion>,
    /// The first producer id that has not been set aside yet: 0 or more.
    pub(super) next_producer_id: i64,
}

/// A change of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// Adds a topic. `max_total` bounds the partitions of all topics together.
    CreateTopic {
        name: TopicName,
        id: TopicId,
        partitions: i64,
        config: BTreeMap<String, String>,
        max_total: u32,
    },
    /// Gives a topic other settings and at least as many partitions. `max_total` as above.
    UpdateTopic { name: TopicName, partitions: i64, config: BTreeMap<String, String>, max_total: u32 },
    /// Takes a topic away; from then on its directories are on the way out.
    DeleteTopic { name: TopicName },
    /// The directories of a deleted topic are gone. Does nothing if there is no such deletion.
    FinishDeletion { id: TopicId },
    /// Sets aside so many producer ids, from `next_producer_id` on, for whoever asks; they never come again.
    AllocateProducerIds { count: u32 },
}

/// Why a command does not go with the state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CatalogueError {
    #[error("topic {topic} exists already")]
    TopicExists { topic: TopicName },
    #[error("unknown topic {topic}")]
    UnknownTopic { topic: TopicName },
    #[error("{partitions} partitions: must be from {min} to {max}")]
    InvalidPartitions { partitions: i64, min: u32, max: u32 },
}

impl Catalogue {
    /// The partitions of all topics together.
    pub(super) fn total_partitions(&self) -> u64 {
        self.topics.values().map(|topic| u64::from(topic.partitions)).sum()
    }

    /// The state after `command`.
    ///
    /// # Errors
    /// [`CatalogueError`] if the command does not go with this state.
    pub(super) fn apply(&self, command: Command) -> Result<Self, CatalogueError> {
        let mut next = self.clone();
        match command {
            Command::CreateTopic { name, id, partitions, config, max_total } => {
                if self.topics.contains_key(&name) {
                    return Err(CatalogueError::TopicExists { topic: name });
                }
                let partitions = self.check_partitions(partitions, 0, 1, max_total)?;
                next.topics.insert(name, Arc::new(TopicEntry { id, partitions, config }));
            }
            Command::UpdateTopic { name, partitions, config, max_total } => {
                let Some(entry) = self.topics.get(&name) else {
                    return Err(CatalogueError::UnknownTopic { topic: name });
                };
                let partitions =
                    self.check_partitions(partitions, entry.partitions, entry.partitions, max_total)?;
                next.topics.insert(name, Arc::new(TopicEntry { id: entry.id, partitions, config }));
            }
            Command::DeleteTopic { name } => {
                let Some(entry) = next.topics.remove(&name) else {
                    return Err(CatalogueError::UnknownTopic { topic: name });
                };
                next.deletions.push(Deletion { name, id: entry.id, partitions: entry.partitions });
            }
            Command::FinishDeletion { id } => next.deletions.retain(|deletion| deletion.id != id),
            // 63 bits do not run out.
            Command::AllocateProducerIds { count } => {
                next.next_producer_id = self.next_producer_id.saturating_add(count.into());
            }
        }
        Ok(next)
    }

    /// `partitions`, if a topic that has `present` now can have so many. What it has it may keep, even where
    /// the bound on the total has been lowered since.
    fn check_partitions(
        &self,
        partitions: i64,
        present: u32,
        min: u32,
        max_total: u32,
    ) -> Result<u32, CatalogueError> {
        let room = u64::from(max_total).saturating_sub(self.total_partitions());
        let max =
            u32::try_from(room).unwrap_or(u32::MAX).saturating_add(present).min(MAX_PARTITIONS_PER_TOPIC);
        u32::try_from(partitions)
            .ok()
            .filter(|partitions| (min..=max).contains(partitions))
            .ok_or(CatalogueError::InvalidPartitions { partitions, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> TopicName {
        TopicName::parse(name).expect("a valid name")
    }

    fn create(topic: &str, partitions: i64, max_total: u32) -> Command {
        Command::CreateTopic {
            name: name(topic),
            id: TopicId::random(),
            partitions,
            config: BTreeMap::new(),
            max_total,
        }
    }

    fn grow(topic: &str, partitions: i64, max_total: u32) -> Command {
        Command::UpdateTopic { name: name(topic), partitions, config: BTreeMap::new(), max_total }
    }

    #[test]
    fn a_name_is_taken_until_its_topic_is_deleted() {
        let one = Catalogue::default().apply(create("a", 1, 10)).expect("free");
        assert_eq!(one.apply(create("a", 1, 10)), Err(CatalogueError::TopicExists { topic: name("a") }));
        let none = one.apply(Command::DeleteTopic { name: name("a") }).expect("there");
        none.apply(create("a", 1, 10)).expect("free again");
    }

    #[test]
    fn partitions_are_counted_in_all_and_per_topic() {
        let refused = |catalogue: &Catalogue, command| match catalogue.apply(command) {
            Err(CatalogueError::InvalidPartitions { min, max, .. }) => (min, max),
            other => panic!("{other:?}"),
        };
        let none = Catalogue::default();
        assert_eq!(refused(&none, create("a", 0, 100)), (1, 100));
        assert_eq!(refused(&none, create("a", -1, 100)), (1, 100));
        assert_eq!(refused(&none, create("a", i64::MAX, 100_000)), (1, MAX_PARTITIONS_PER_TOPIC));
        let some = none.apply(create("a", 60, 100)).expect("room");
        assert_eq!(refused(&some, create("b", 41, 100)), (1, 40));
        some.apply(create("b", 40, 100)).expect("the rest");
        assert_eq!(refused(&some, grow("a", 59, 100)), (60, 100));
        assert_eq!(refused(&some, grow("a", 101, 100)), (60, 100));
        assert_eq!(some.apply(grow("a", 100, 100)).expect("all of it").total_partitions(), 100);
    }

    #[test]
    fn a_topic_keeps_its_partitions_when_the_bound_is_lowered() {
        let some = Catalogue::default().apply(create("a", 60, 100)).expect("room");
        some.apply(grow("a", 60, 10)).expect("no more than before");
    }

    #[test]
    fn a_deleted_topic_is_remembered_until_its_directories_are_gone() {
        let one = Catalogue::default().apply(create("a", 3, 10)).expect("free");
        let id = one.topics.get(&name("a")).expect("there").id;
        let deleting = one.apply(Command::DeleteTopic { name: name("a") }).expect("there");
        assert_eq!(deleting.deletions, [Deletion { name: name("a"), id, partitions: 3 }]);
        assert!(deleting.topics.is_empty());
        assert_eq!(deleting.apply(Command::FinishDeletion { id }), Ok(Catalogue::default()));
        assert_eq!(
            one.apply(Command::DeleteTopic { name: name("b") }),
            Err(CatalogueError::UnknownTopic { topic: name("b") })
        );
    }

    #[test]
    fn producer_ids_are_set_aside_once() {
        let some = Catalogue::default().apply(Command::AllocateProducerIds { count: 10 }).expect("room");
        assert_eq!(some.next_producer_id, 10);
        let more = some.apply(create("a", 1, 10)).expect("free");
        let more = more.apply(Command::AllocateProducerIds { count: 5 }).expect("room");
        assert_eq!(more.next_producer_id, 15);
    }

    #[test]
    fn an_update_keeps_the_identity() {
        let one = Catalogue::default().apply(create("a", 1, 10)).expect("free");
        let id = one.topics.get(&name("a")).expect("there").id;
        let config = BTreeMap::from([("durability".to_owned(), "os".to_owned())]);
        let update =
            Command::UpdateTopic { name: name("a"), partitions: 2, config: config.clone(), max_total: 10 };
        let two = one.apply(update).expect("valid");
        assert_eq!(two.topics.get(&name("a")).map(|t| &**t), Some(&TopicEntry { id, partitions: 2, config }));
    }
}

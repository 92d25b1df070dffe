//! The topics of a run: made before it, deleted after it.

use std::collections::HashMap;
use std::sync::Arc;

use super::interrupt::Interrupt;
use super::plan::Plan;
use crate::cli::failure::Failure;
use crate::client::{Client, NewTopic, PartitionId, Position, TopicName, TopicPartition};

/// Room that a topic's `max_message_bytes` leaves above what is planned; below it, the topic's default does.
const DEFAULT_MAX_MESSAGE_BYTES: u64 = 1 << 20;

/// Topics with all their partitions in a row, so that a number tells a partition.
#[derive(Debug)]
pub(super) struct Topics {
    names: Vec<TopicName>,
    places: Vec<TopicPartition>,
    numbers: HashMap<String, HashMap<i32, usize>>,
}

impl Topics {
    /// Creates them.
    ///
    /// # Errors
    /// The broker's, and that it was interrupted.
    pub(super) async fn create(
        client: &Client,
        plan: &Plan,
        purpose: &str,
        interrupt: &Interrupt,
    ) -> Result<Arc<Self>, Failure> {
        let run = fastrand::u32(..);
        let mut topics = Self { names: Vec::new(), places: Vec::new(), numbers: HashMap::new() };
        for number in 0..plan.topics {
            let name = TopicName::parse(&format!("bench-{run:08x}-{purpose}-{number}"))
                .map_err(|error| Failure::Failed(error.to_string()))?;
            let mut topic = NewTopic::new(name.clone())
                .partitions(plan.partitions)
                .config("durability", plan.durability.name());
            if plan.batch_bytes > DEFAULT_MAX_MESSAGE_BYTES {
                topic = topic.config("max_message_bytes", plan.batch_bytes.to_string());
            }
            let created = interrupt.or(async { Ok(client.admin().create_topic(topic).await?) }).await;
            if let Err(failure) = created {
                if interrupt.is_wanted() {
                    // It may have come to be.
                    topics.names.push(name);
                }
                interrupt.tidy(topics.delete(client)).await?;
                return Err(failure);
            }
            topics.add(name, plan.partitions);
        }
        Ok(Arc::new(topics))
    }

    fn add(&mut self, name: TopicName, partitions: u32) {
        let numbers = self.numbers.entry(name.as_str().to_owned()).or_default();
        for partition in PartitionId::all(partitions) {
            numbers.insert(partition.get(), self.places.len());
            self.places.push(TopicPartition::new(name.clone(), partition));
        }
        self.names.push(name);
    }

    /// Deletes them. What cannot be deleted is left: it is the end of the run anyway.
    pub(super) async fn delete(&self, client: &Client) {
        for name in &self.names {
            if let Err(error) = client.admin().delete_topic(name).await {
                eprintln!("topic {name} is left behind: {error}");
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The partition with that number.
    pub(super) fn place(&self, number: usize) -> Option<&TopicPartition> {
        self.places.get(number)
    }

    /// Whether a directory of that name is one of theirs.
    pub(super) fn is_kept_in(&self, directory: &str) -> bool {
        self.places.iter().any(|place| place.to_string() == directory)
    }

    /// The number of a partition that the broker names.
    pub(super) fn number(&self, topic: &str, partition: i32) -> Option<usize> {
        self.numbers.get(topic)?.get(&partition).copied()
    }

    /// Where each partition ends now.
    ///
    /// # Errors
    /// The broker's.
    pub(super) async fn ends(&self, client: &Client) -> Result<Arc<[i64]>, Failure> {
        let latest = self.places.iter().map(|place| (place.clone(), Position::Latest));
        let listed = client.admin().list_offsets(latest).await?;
        listed.into_iter().map(|listed| Ok(listed?.offset.get())).collect()
    }

    /// The partitions that a consumer reads: they are dealt out; where there are more consumers than partitions, several
    /// read the same.
    pub(super) fn share(&self, consumer: usize, consumers: usize) -> Vec<usize> {
        share(self.len(), consumer, consumers)
    }
}

fn share(places: usize, consumer: usize, consumers: usize) -> Vec<usize> {
    if consumers > places {
        return (consumer % places.max(1)..places).take(1).collect();
    }
    (consumer..places).step_by(consumers.max(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumers_share_partitions_or_read_the_same() {
        let shares =
            |places, consumers| (0..consumers).map(move |consumer| share(places, consumer, consumers));
        assert_eq!(shares(5, 2).collect::<Vec<_>>(), [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(shares(2, 3).collect::<Vec<_>>(), [vec![0], vec![1], vec![0]]);
    }

    #[test]
    fn a_partition_is_found_by_its_name() {
        let mut topics = Topics { names: Vec::new(), places: Vec::new(), numbers: HashMap::new() };
        for name in ["a", "b"] {
            topics.add(TopicName::parse(name).expect("a name"), 2);
        }
        assert_eq!((topics.len(), topics.number("b", 1), topics.number("b", 2)), (4, Some(3), None));
        assert_eq!(topics.place(3).map(ToString::to_string).as_deref(), Some("b-1"));
    }
}

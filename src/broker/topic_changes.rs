//! Creating, updating and deleting a topic. Each change is plain blocking code over the store, in an order
//! that leaves the topic as it was or as it shall be, wherever it is cut.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};

use super::catalogue::{Catalogue, Command};
use super::error::BrokerError;
use super::node::Broker;
use super::partition::{Life, Partition};
use super::topic::{self, Topic, TopicDescription};
use super::topic_config::{self, TopicConfig};
use super::topics::{Topics, log_specs};
use crate::storage::{Durability, LogConfig, LogError, LogHandle, LogSpec};
use crate::types::{TopicId, TopicName};

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: TopicName,
    /// As the client gave it; `None`: the broker's `default_partitions`.
    pub partitions: Option<i64>,
    /// Settings by name; the others have their defaults.
    pub config: BTreeMap<String, String>,
    /// Only check.
    pub validate_only: bool,
}

/// A change of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicUpdate {
    /// Its name.
    pub name: TopicName,
    /// Settings to change.
    pub set: BTreeMap<String, String>,
    /// Settings to put back to their defaults.
    pub reset: Vec<String>,
    /// How many partitions it is to have: at least what it has.
    pub partitions: Option<i64>,
}

impl Broker {
    /// Creates a topic: when this returns, it survives a power cut.
    ///
    /// # Errors
    /// [`BrokerError::TopicExists`], [`BrokerError::InternalTopic`], [`BrokerError::InvalidPartitions`],
    /// [`BrokerError::InvalidConfig`], [`BrokerError::UnsupportedConfig`], [`BrokerError::Storage`],
    /// [`BrokerError::StorageFull`], [`BrokerError::ShuttingDown`].
    pub async fn create_topic(&self, spec: TopicSpec) -> Result<TopicDescription, BrokerError> {
        refuse_internal(&spec.name)?;
        let broker = self.topics.config();
        let config = TopicConfig::accept(&spec.config, broker.max_message_bytes_limit)?;
        let new = NewTopic {
            given: config.canonical(&spec.config),
            partitions: spec.partitions.unwrap_or_else(|| broker.default_partitions.into()),
            config,
            validate_only: spec.validate_only,
            name: spec.name,
        };
        self.create(new).await
    }

    /// Deletes a topic with all its records. Whoever waits for more of it hears that it is unknown.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopic`], [`BrokerError::InternalTopic`], [`BrokerError::Storage`],
    /// [`BrokerError::StorageFull`], [`BrokerError::ShuttingDown`].
    pub async fn delete_topic(&self, name: &TopicName) -> Result<(), BrokerError> {
        refuse_internal(name)?;
        let owned = name.clone();
        self.topics.change(name, move |topics, catalogue| topics.delete(catalogue, &owned)).await
    }

    /// Changes settings, or adds partitions: all of it, or nothing. When `durability` goes from `os` to
    /// `fsync`, what has been acknowledged is on the disk when this returns.
    ///
    /// # Errors
    /// As [`Self::create_topic`], with [`BrokerError::UnknownTopic`] in place of
    /// [`BrokerError::TopicExists`].
    pub async fn update_topic(&self, update: TopicUpdate) -> Result<TopicDescription, BrokerError> {
        refuse_internal(&update.name)?;
        let name = update.name.clone();
        self.topics.change(&name, move |topics, catalogue| topics.update(catalogue, &update)).await
    }

    /// Creates the topic with the broker's defaults, if it is unknown and the broker creates topics on its
    /// own. Of many calls at once, one creates it and all succeed.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopic`] if it is to stay unknown, [`BrokerError::InternalTopic`] if it has an
    /// internal topic's name; otherwise as [`Self::create_topic`].
    pub async fn ensure_topic(&self, name: &TopicName) -> Result<(), BrokerError> {
        let Err(unknown) = self.topics.get(name) else { return Ok(()) };
        if !self.topics.config().auto_create_topics {
            return Err(unknown);
        }
        let spec =
            TopicSpec { name: name.clone(), partitions: None, config: BTreeMap::new(), validate_only: false };
        match self.create_topic(spec).await {
            Ok(_) | Err(BrokerError::TopicExists { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Creates the topic that keeps the offsets of groups, if it is not there.
    ///
    /// # Errors
    /// As [`Self::create_topic`].
    pub async fn ensure_offsets_topic(&self) -> Result<(), BrokerError> {
        let name = TopicName::offsets();
        if self.topics.get(&name).is_ok() {
            return Ok(());
        }
        let broker = self.topics.config();
        let given = topic_config::offsets_topic_config();
        let new = NewTopic {
            config: TopicConfig::recall(&given, broker.max_message_bytes_limit)?,
            given,
            partitions: broker.offsets_topic_partitions.into(),
            validate_only: false,
            name,
        };
        match self.create(new).await {
            Ok(_) | Err(BrokerError::TopicExists { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn create(&self, new: NewTopic) -> Result<TopicDescription, BrokerError> {
        let name = new.name.clone();
        self.topics.change(&name, move |topics, catalogue| topics.create(catalogue, new)).await
    }
}

fn refuse_internal(name: &TopicName) -> Result<(), BrokerError> {
    if name.is_internal() { Err(BrokerError::InternalTopic { topic: name.clone() }) } else { Ok(()) }
}

/// A topic to create, checked as far as it can be without the catalogue.
struct NewTopic {
    name: TopicName,
    partitions: i64,
    given: BTreeMap<String, String>,
    config: TopicConfig,
    validate_only: bool,
}

impl Topics {
    /// Directories first, then the catalogue, which commits them, then sight. A crash in between leaves
    /// directories that the next start sets aside.
    fn create(&self, catalogue: &mut Catalogue, new: NewTopic) -> Result<TopicDescription, BrokerError> {
        let NewTopic { name, partitions, given, config, validate_only } = new;
        let id = TopicId::random();
        let next = catalogue.apply(Command::CreateTopic {
            name: name.clone(),
            id,
            partitions,
            config: given.clone(),
            max_total: self.config().max_partitions,
        })?;
        let partitions = next.topics.get(&name).map_or(0, |entry| entry.partitions);
        if validate_only {
            return Ok(TopicDescription {
                partitions: topic::empty_statuses(partitions, self.store.leader_epoch()),
                config: config.entries(&given),
                name,
                id,
            });
        }
        let specs = log_specs(&name, id, config.log_config(), 0, partitions);
        let failed = |error: LogError| BrokerError::of_topic(&name, &error);
        let logs = self.store.create_logs(&specs).map_err(failed)?;
        if let Err(error) = self.commit(catalogue, next) {
            self.discard(&name, &logs);
            return Err(failed(error));
        }
        tracing::info!(topic = %name, %id, partitions, settings = ?given, "topic created");
        let slots = topic::added_slots(&name, 0, logs);
        Ok(self.show(Topic::new(name, id, given, config, slots)).describe())
    }

    /// The catalogue first, which commits it and remembers that the directories have to go, then sight, then
    /// the directories.
    fn delete(&self, catalogue: &mut Catalogue, name: &TopicName) -> Result<(), BrokerError> {
        let topic = self.get(name)?;
        let next = catalogue.apply(Command::DeleteTopic { name: name.clone() })?;
        self.commit(catalogue, next).map_err(|error| BrokerError::of_topic(name, &error))?;
        self.hide(name);
        topic.open_partitions().for_each(|partition| partition.set_life(Life::Deleted));
        for hear in self.on_deleted.read().iter() {
            hear(name, topic.id);
        }
        let logs: Vec<LogHandle> =
            topic.open_partitions().map(|partition| LogHandle::clone(&partition.log())).collect();
        let unopened: Vec<LogSpec> =
            log_specs(name, topic.id, topic.config.log_config(), 0, topic.partition_count())
                .into_iter()
                .zip(&topic.partitions)
                .filter_map(|(spec, slot)| slot.is_err().then_some(spec))
                .collect();
        match self.store.delete_logs(&logs, &unopened) {
            // The file hears of it with the next change.
            Ok(()) => *catalogue = catalogue.apply(Command::FinishDeletion { id: topic.id })?,
            Err(error) => {
                tracing::warn!(topic = %name, %error, "the files of a deleted topic stay until the next start");
            }
        }
        tracing::info!(topic = %name, id = %topic.id, "topic deleted");
        Ok(())
    }

    /// New directories, then the catalogue, then the running logs. Only where durability becomes stricter do
    /// the logs come before the catalogue: they may fail to, and until the change is committed they promise
    /// more than they must.
    fn update(
        &self,
        catalogue: &mut Catalogue,
        update: &TopicUpdate,
    ) -> Result<TopicDescription, BrokerError> {
        let name = &update.name;
        let topic = self.get(name)?;
        let given = topic_config::merged(&topic.given, &update.set, &update.reset)?;
        let config = TopicConfig::accept(&given, self.config().max_message_bytes_limit)?;
        let given = config.canonical(&given);
        let before = topic.partition_count();
        let next = catalogue.apply(Command::UpdateTopic {
            name: name.clone(),
            partitions: update.partitions.unwrap_or_else(|| before.into()),
            config: given.clone(),
            max_total: self.config().max_partitions,
        })?;
        if next == *catalogue {
            return Ok(topic.describe());
        }
        let partitions = next.topics.get(name).map_or(before, |entry| entry.partitions);
        let specs = log_specs(name, topic.id, config.log_config(), before, partitions);
        let added = self.store.create_logs(&specs).map_err(|error| BrokerError::of_topic(name, &error))?;
        if let Err(error) = self.switch(&topic, &config, catalogue, next) {
            self.discard(name, &added);
            return Err(error);
        }
        tracing::info!(topic = %name, partitions, settings = ?given, "topic altered");
        let mut slots = topic.partitions.clone();
        slots.extend(topic::added_slots(name, before, added));
        Ok(self.show(Topic::new(name.clone(), topic.id, given, config, slots)).describe())
    }

    /// Commits new settings and tells the logs, in the order that the change of durability demands.
    fn switch(
        &self,
        topic: &Topic,
        config: &TopicConfig,
        catalogue: &mut Catalogue,
        next: Catalogue,
    ) -> Result<(), BrokerError> {
        let (before, after) = (topic.config.log_config(), config.log_config());
        let stricter = before.durability == Durability::Os && after.durability == Durability::Fsync;
        let back = |error: BrokerError| {
            if let Err(error) = configure(topic, before) {
                tracing::warn!(topic = %topic.name, %error, "cannot put the logs back to their old settings");
            }
            Err(error)
        };
        if stricter && let Err(error) = configure(topic, after) {
            return back(error);
        }
        if let Err(error) = self.commit(catalogue, next) {
            let error = BrokerError::of_topic(&topic.name, &error);
            return if stricter { back(error) } else { Err(error) };
        }
        if !stricter
            && before != after
            && let Err(error) = configure(topic, after)
        {
            tracing::warn!(topic = %topic.name, %error, "a log takes its new settings with the next start only");
        }
        Ok(())
    }

    /// Takes back directories that were never committed. If that fails, the next start sets them aside.
    fn discard(&self, name: &TopicName, logs: &[LogHandle]) {
        if let Err(error) = self.store.delete_logs(logs, &[]) {
            tracing::warn!(topic = %name, %error, "directories that were never used stay until the next start");
        }
    }
}

/// Gives all open logs of a topic new settings and waits until they have them. A log that takes no writes any
/// more needs none.
///
/// # Errors
/// The first failure, once all have answered.
fn configure(topic: &Topic, config: LogConfig) -> Result<(), BrokerError> {
    let (tell, answers) = mpsc::channel();
    let mut waiting: Vec<Option<&Arc<Partition>>> = Vec::new();
    for (index, partition) in topic.open_partitions().enumerate() {
        let tell = tell.clone();
        // The other end lives until every sender is gone.
        let done = move |result| drop(tell.send((index, result)));
        partition.log().configure(config, Box::new(done));
        waiting.push(Some(partition));
    }
    drop(tell);
    let mut outcome = Ok(());
    for (index, result) in answers {
        let Some(partition) = waiting.get_mut(index).and_then(Option::take) else { continue };
        match result {
            Ok(()) | Err(LogError::Sealed { .. }) => {}
            Err(error) => outcome = outcome.and(Err(partition.log_error(&error))),
        }
    }
    // A log that went down without a word has not taken them.
    match waiting.into_iter().flatten().next() {
        Some(silent) => outcome.and(Err(silent.closed())),
        None => outcome,
    }
}

//! All topics as they are now, and the turn-taking of their changes.
//!
//! The catalogue on the disk says which topics there are; replacing it is what commits a change. A change
//! runs on a blocking thread, with the catalogue in its hands, from a task of its own: it goes to its end
//! even when nobody waits for it any more. What it commits becomes visible here, and here alone others look
//! topics up.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::catalogue::{Catalogue, Command, TopicEntry};
use super::catalogue_file::{self, CATALOGUE_FILE, OLD_CATALOGUE_FILE};
use super::error::{BrokerError, OpenBrokerError};
use super::reader::PartitionReader;
use super::topic::{self, Topic};
use super::topic_config::TopicConfig;
use crate::config::BrokerConfig;
use crate::storage::{LogConfig, LogError, LogHandle, LogSpec, Store};
use crate::types::{PartitionId, TopicId, TopicName};

/// Hears that a topic is gone, before another can have its name. Called on a thread that may block, briefly.
pub type TopicDeleted = Box<dyn Fn(&TopicName, TopicId) + Send + Sync>;

/// All topics.
pub(super) struct Topics {
    pub(super) store: Store,
    pub(super) on_deleted: RwLock<Vec<TopicDeleted>>,
    config: BrokerConfig,
    shutdown: CancellationToken,
    live: RwLock<HashMap<TopicName, Arc<Topic>>>,
    /// What the file says. Whoever holds it is the one who changes topics.
    catalogue: Arc<Mutex<Catalogue>>,
    /// The first producer id that had not been set aside at the start.
    pub(super) first_producer_id: i64,
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topics").field("store", &self.store).field("live", &self.live).finish_non_exhaustive()
    }
}

impl Topics {
    /// Reads the catalogue, opens every log it names, and ends the deletions it began. Blocks.
    pub(super) fn open(
        store: Store,
        config: BrokerConfig,
        shutdown: CancellationToken,
    ) -> Result<Self, OpenBrokerError> {
        let mut catalogue = read_catalogue(&store)?;
        let live = open_topics(&store, &catalogue, &config)?;
        let gone = open_deleted(&store, &catalogue, &config);
        store.start()?;
        for (id, logs, unopened) in gone {
            if let Err(error) = store.delete_logs(&logs, &unopened) {
                tracing::warn!(%id, %error, "the files of a deleted topic stay until the next start");
            } else if let Ok(next) = catalogue.apply(Command::FinishDeletion { id }) {
                // The file hears of it with the next change; until then the next start would find nothing to
                // delete.
                catalogue = next;
            }
        }
        Ok(Self {
            store,
            on_deleted: RwLock::default(),
            config,
            shutdown,
            live: RwLock::new(live),
            first_producer_id: catalogue.next_producer_id,
            catalogue: Arc::new(Mutex::new(catalogue)),
        })
    }

    pub(super) fn config(&self) -> &BrokerConfig {
        &self.config
    }

    /// Cancelled when the broker begins to shut down.
    pub(super) fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// The topic of this name.
    pub(super) fn get(&self, name: &TopicName) -> Result<Arc<Topic>, BrokerError> {
        let topic = self.live.read().get(name).cloned();
        topic.ok_or_else(|| BrokerError::UnknownTopic { topic: name.clone() })
    }

    /// All topics, by name.
    pub(super) fn all(&self) -> Vec<Arc<Topic>> {
        let mut topics: Vec<_> = self.live.read().values().cloned().collect();
        topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        topics
    }

    /// A reader of an open partition.
    pub(super) fn reader(&self, name: &TopicName, partition: i32) -> Result<PartitionReader, BrokerError> {
        let topic = self.get(name)?;
        let partition = Arc::clone(topic.partition(partition)?);
        Ok(PartitionReader::new(partition, self.shutdown.clone()))
    }

    /// Runs a change of `topic` on a blocking thread when its turn has come. A caller that goes away does not
    /// stop it.
    pub(super) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        topic: &TopicName,
        change: impl FnOnce(&Self, &mut Catalogue) -> Result<T, BrokerError> + Send + 'static,
    ) -> Result<T, BrokerError> {
        let cut_short = |error| Err(BrokerError::cut_short(topic, None, &error));
        self.in_turn(change).await.unwrap_or_else(cut_short)
    }

    /// Sets aside producer ids, durably, when its turn has come.
    pub(super) async fn allocate_producer_ids(
        self: &Arc<Self>,
        count: u32,
    ) -> Result<Range<i64>, BrokerError> {
        let allocate = move |topics: &Self, catalogue: &mut Catalogue| {
            let first = catalogue.next_producer_id;
            let next = catalogue.apply(Command::AllocateProducerIds { count })?;
            let end = next.next_producer_id;
            topics.commit(catalogue, next).map_err(|error| BrokerError::of_producer_ids(&error))?;
            Ok(first..end)
        };
        let cut_short =
            |error: JoinError| Err(BrokerError::NoProducerId { is_full: false, detail: error.to_string() });
        self.in_turn(allocate).await.unwrap_or_else(cut_short)
    }

    /// # Errors
    /// If a panic or the end of the runtime cut it short.
    async fn in_turn<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&Self, &mut Catalogue) -> Result<T, BrokerError> + Send + 'static,
    ) -> Result<Result<T, BrokerError>, JoinError> {
        let topics = Arc::clone(self);
        let task = tokio::spawn(async move {
            let mut catalogue = topics.hold_changes().await;
            if topics.shutdown.is_cancelled() {
                return Ok(Err(BrokerError::ShuttingDown));
            }
            tokio::task::spawn_blocking(move || change(&topics, &mut catalogue)).await
        });
        task.await.flatten()
    }

    /// Waits until no change is under way; there is none while the guard lives.
    pub(super) async fn hold_changes(&self) -> OwnedMutexGuard<Catalogue> {
        Arc::clone(&self.catalogue).lock_owned().await
    }

    /// Makes `next` the catalogue, durably. Blocks.
    pub(super) fn commit(&self, catalogue: &mut Catalogue, next: Catalogue) -> Result<(), LogError> {
        if let Err(error) = self.store.replace_file(CATALOGUE_FILE, &catalogue_file::encode(&next)) {
            // The failure may have come after the replacement. A change that is reported as failed must not
            // come true at the next start.
            if let Err(again) = self.store.replace_file(CATALOGUE_FILE, &catalogue_file::encode(catalogue)) {
                tracing::error!(error = %again, "the catalogue on the disk may hold a change that was refused");
            }
            return Err(error);
        }
        *catalogue = next;
        Ok(())
    }

    /// Makes a committed topic visible, in place of an older one of its name.
    pub(super) fn show(&self, topic: Topic) -> Arc<Topic> {
        let topic = Arc::new(topic);
        self.live.write().insert(topic.name.clone(), Arc::clone(&topic));
        topic
    }

    /// Takes a deleted topic out of sight.
    pub(super) fn hide(&self, name: &TopicName) {
        self.live.write().remove(name);
    }
}

/// What the store needs to know of partitions `first..end` of a topic.
pub(super) fn log_specs(
    name: &TopicName,
    topic_id: TopicId,
    config: LogConfig,
    first: u32,
    end: u32,
) -> Vec<LogSpec> {
    let partitions = PartitionId::all(end).skip(first as usize);
    partitions.map(|partition| log_spec(name, topic_id, config, partition)).collect()
}

/// The same of one partition.
pub(super) fn log_spec(
    name: &TopicName,
    topic_id: TopicId,
    config: LogConfig,
    partition: PartitionId,
) -> LogSpec {
    LogSpec {
        topic: name.clone(),
        partition,
        topic_id,
        config,
        // Offsets must be committed on a full disk too.
        uses_reserve: name.is_internal(),
    }
}

/// Reads it; a new data directory gets one. Blocks.
fn read_catalogue(store: &Store) -> Result<Catalogue, OpenBrokerError> {
    let path = |name: &str| store.dir().join(name);
    let is_usable = |body: &Vec<u8>| catalogue_file::decode(body).is_ok();
    let old = store.read_file(OLD_CATALOGUE_FILE).ok().flatten().filter(is_usable);
    let old = old.map(|_| path(OLD_CATALOGUE_FILE));
    let unusable = |detail: String, old: Option<PathBuf>| OpenBrokerError::Catalogue {
        path: path(CATALOGUE_FILE),
        detail,
        old,
    };
    match store.read_file(CATALOGUE_FILE) {
        Ok(Some(body)) => catalogue_file::decode(&body).map_err(|error| unusable(error.to_string(), old)),
        // It is there before the first log: it has been lost.
        Ok(None) if old.is_some() || store.has_log_dirs()? => Err(unusable("it is missing".to_owned(), old)),
        Ok(None) => {
            let catalogue = Catalogue::default();
            store.replace_file(CATALOGUE_FILE, &catalogue_file::encode(&catalogue))?;
            Ok(catalogue)
        }
        Err(error) => Err(unusable(error.to_string(), old)),
    }
}

/// Opens the logs of all topics at once, so that those that need recovery share the threads for it.
fn open_topics(
    store: &Store,
    catalogue: &Catalogue,
    config: &BrokerConfig,
) -> Result<HashMap<TopicName, Arc<Topic>>, OpenBrokerError> {
    let mut topics = Vec::with_capacity(catalogue.topics.len());
    for (name, entry) in &catalogue.topics {
        let config = TopicConfig::recall(&entry.config, config.max_message_bytes_limit).map_err(|error| {
            OpenBrokerError::Catalogue {
                path: store.dir().join(CATALOGUE_FILE),
                detail: format!("topic {name}: {error}"),
                old: None,
            }
        })?;
        topics.push((name, entry, config));
    }
    let specs: Vec<LogSpec> = topics
        .iter()
        .flat_map(|(name, entry, config)| log_specs(name, entry.id, config.log_config(), 0, entry.partitions))
        .collect();
    let mut logs = store.open_logs(&specs).into_iter();
    let opened = topics.into_iter().map(|(name, entry, config)| {
        let TopicEntry { id, partitions, config: given } = &**entry;
        let slots = topic::opened_slots(name, logs.by_ref().take(*partitions as usize));
        (name.clone(), Arc::new(Topic::new(name.clone(), *id, given.clone(), config, slots)))
    });
    Ok(opened.collect())
}

/// What is left of the topics whose deletion began and did not end: logs, and what could not be opened. If the name has been
/// given again, the directories are the new topic's.
fn open_deleted(
    store: &Store,
    catalogue: &Catalogue,
    config: &BrokerConfig,
) -> Vec<(TopicId, Vec<LogHandle>, Vec<LogSpec>)> {
    let log_config = TopicConfig::defaults(config.max_message_bytes_limit).log_config();
    catalogue
        .deletions
        .iter()
        .map(|deletion| {
            let specs = log_specs(&deletion.name, deletion.id, log_config, 0, deletion.partitions);
            if catalogue.topics.contains_key(&deletion.name) {
                return (deletion.id, Vec::new(), specs);
            }
            let (mut logs, mut unopened) = (Vec::new(), Vec::new());
            for (log, spec) in store.open_logs(&specs).into_iter().zip(specs) {
                match log {
                    Ok(log) => logs.push(log),
                    Err(_) => unopened.push(spec),
                }
            }
            (deletion.id, logs, unopened)
        })
        .collect()
}

//! Checks a data directory that no broker runs on: the catalogue, and through the store everything the catalogue names.
//! And lets a start make good what a start makes good.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::catalogue::{Catalogue, Deletion, TopicEntry};
use super::catalogue_file::{self, OLD_CATALOGUE_FILE};
use super::error::{CloseBrokerError, OpenBrokerError};
use super::node::Broker;
use super::topic_config::TopicConfig;
use crate::clock::{Clock, SystemClock};
use crate::config::{BrokerConfig, Config};
use crate::storage::dump::{self, DumpError};
use crate::storage::verify::{
    Finding, FindingKind, Inspection, Known, LogId, Progress, Report, VerifyOptions,
};
use crate::storage::{Durability, LogError, OpenError, Store};
use crate::types::{PartitionId, TopicId, TopicName};

pub use super::catalogue_file::CATALOGUE_FILE;

/// What a start on a data directory has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// The leader epoch it stamped on batches; a recovery raises it.
    pub leader_epoch: i32,
    /// How many partitions had to be recovered.
    pub recovered_partitions: u32,
    /// How many bytes of their logs were scanned for that.
    pub recovered_bytes: u64,
    /// Partitions that did not open, each with the reason; nothing of them has changed.
    pub fenced: Vec<(TopicName, PartitionId, String)>,
}

/// Why a data directory could not be repaired.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] OpenError),
    /// The catalogue, or the store's beginning.
    #[error(transparent)]
    Open(#[from] OpenBrokerError),
    /// The orderly end.
    #[error(transparent)]
    Close(#[from] CloseBrokerError),
    /// A panic cut it short.
    #[error("the recovery was cut short: {0}")]
    CutShort(#[from] tokio::task::JoinError),
}

/// Checks everything in `dir`, and changes nothing. Blocks.
///
/// # Errors
/// [`OpenError`] if it is no data directory, in use, of a newer format, or cannot be read at all.
pub fn verify(dir: &Path, config: &Config, progress: &dyn Progress) -> Result<Report, OpenError> {
    let inspection = Inspection::open(dir)?;
    let mut report = Report::default();
    let catalogue = check_catalogue(&inspection, &config.broker, &mut report);
    let options = VerifyOptions {
        max_decompressed_bytes: config.broker.max_decompressed_bytes,
        max_group_bytes: config.storage.max_group_bytes,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let checked = inspection.verify(&known(catalogue.as_ref(), &config.broker), &options, progress);
    report.ended_cleanly = checked.ended_cleanly;
    report.merge(checked);
    Ok(report)
}

/// Starts a broker on `dir` in the ordinary way, which recovers what can be recovered, and ends it in an orderly way. No
/// client reaches it.
///
/// # Errors
/// [`RepairError`]; what the recovery has done until then stays done, as after any start that failed.
pub async fn repair(dir: &Path, config: Config) -> Result<Repaired, RepairError> {
    let dir = dir.to_owned();
    let (broker, leader_epoch) = tokio::task::spawn_blocking(move || {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let store = Store::open(&dir, &config.storage, Arc::clone(&clock))?;
        let leader_epoch = store.leader_epoch().0;
        Ok::<_, RepairError>((Broker::open(store, config.broker, clock)?, leader_epoch))
    })
    .await??;
    let stats = broker.status().storage;
    let mut fenced = Vec::new();
    for topic in broker.topics() {
        for (partition, state) in PartitionId::all(u32::MAX).zip(topic.partitions) {
            fenced.extend(state.err().map(|reason| (topic.name.clone(), partition, reason)));
        }
    }
    broker.close().await?;
    Ok(Repaired {
        leader_epoch,
        recovered_partitions: stats.recovered_logs,
        recovered_bytes: stats.recovered_bytes,
        fenced,
    })
}

/// What a file with a catalogue says, as plain data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CatalogueContent {
    /// The topics, by name.
    pub topics: Vec<TopicContent>,
    /// Topics that are gone, but whose directories may still be there.
    pub deletions: Vec<TopicContent>,
    /// The first producer id that nobody has been given.
    pub next_producer_id: i64,
}

/// What a catalogue says of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopicContent {
    /// Its name.
    pub name: String,
    /// A UUID.
    pub id: String,
    /// How many it has.
    pub partitions: u32,
    /// The settings that were given.
    pub config: BTreeMap<String, String>,
}

/// Reads a file with a catalogue, wherever it lies.
///
/// # Errors
/// [`DumpError`] if it cannot be read or is damaged.
pub fn read_catalogue_file(path: &Path) -> Result<CatalogueContent, DumpError> {
    let body = dump::read_named(path)?;
    let catalogue = catalogue_file::decode(&body)
        .map_err(|error| DumpError::Damaged { path: path.to_owned(), detail: error.to_string() })?;
    let content = |name: &TopicName, id: TopicId, partitions, config| TopicContent {
        name: name.as_str().to_owned(),
        id: id.to_string(),
        partitions,
        config,
    };
    let topics = catalogue.topics.iter();
    let deletions = catalogue.deletions.iter();
    Ok(CatalogueContent {
        topics: topics
            .map(|(name, topic)| content(name, topic.id, topic.partitions, topic.config.clone()))
            .collect(),
        deletions: deletions
            .map(|gone| content(&gone.name, gone.id, gone.partitions, BTreeMap::new()))
            .collect(),
        next_producer_id: catalogue.next_producer_id,
    })
}

/// The logs that the catalogue names; whatever is there, without one.
fn known(catalogue: Option<&Catalogue>, config: &BrokerConfig) -> Known {
    let ids = |topic: &TopicName, topic_id: TopicId, partitions: u32, durability: Durability| {
        let topic = topic.clone();
        let id = move |partition| LogId { topic: topic.clone(), partition, topic_id, durability };
        PartitionId::all(partitions).map(id)
    };
    let durability = |topic: &TopicEntry| {
        let settings = TopicConfig::recall(&topic.config, config.max_message_bytes_limit);
        settings.map_or_else(|_| Durability::default(), |settings| settings.durability)
    };
    Known {
        logs: catalogue.map(|catalogue| {
            let topics = catalogue.topics.iter();
            topics
                .flat_map(|(name, topic)| ids(name, topic.id, topic.partitions, durability(topic)))
                .collect()
        }),
        deleting: catalogue.map_or_else(Vec::new, |catalogue| {
            let deletions = catalogue.deletions.iter();
            let id = |gone: &Deletion| ids(&gone.name, gone.id, gone.partitions, Durability::default());
            deletions.flat_map(id).collect()
        }),
        files: vec![CATALOGUE_FILE.to_owned(), OLD_CATALOGUE_FILE.to_owned()],
    }
}

/// The catalogue, if it can be used.
fn check_catalogue(inspection: &Inspection, config: &BrokerConfig, report: &mut Report) -> Option<Catalogue> {
    let old = read_catalogue(inspection, OLD_CATALOGUE_FILE);
    let has_old = !matches!(old, Ok(None));
    let current = read_catalogue(inspection, CATALOGUE_FILE);
    for finding in [old.err(), current.as_ref().err().cloned()].into_iter().flatten() {
        report.push(*finding);
    }
    let Some(catalogue) = current.ok()? else {
        // It is there before the first log.
        if has_old || inspection.has_had_logs() {
            let expected = "the list of topics";
            report.push(Finding::new(FindingKind::MissingFile, CATALOGUE_FILE, expected, "there is none"));
            return None;
        }
        return Some(Catalogue::default());
    };
    for (name, topic) in &catalogue.topics {
        if let Err(error) = TopicConfig::recall(&topic.config, config.max_message_bytes_limit) {
            report.push(damaged(CATALOGUE_FILE, format!("topic {name}: {error}")));
        }
    }
    Some(catalogue)
}

fn read_catalogue(inspection: &Inspection, name: &str) -> Result<Option<Catalogue>, Box<Finding>> {
    let body = inspection.read_file(name).map_err(|error| Box::new(unreadable(name, &error)))?;
    let catalogue = body.map(|body| catalogue_file::decode(&body)).transpose();
    catalogue.map_err(|error| Box::new(damaged(name, error.to_string())))
}

fn damaged(name: &str, found: String) -> Finding {
    Finding::new(FindingKind::DamagedFile, name, "a list of topics that makes sense", found)
}

fn unreadable(name: &str, error: &LogError) -> Finding {
    match error {
        LogError::Io { source, .. } if source.kind() == io::ErrorKind::InvalidData => {
            damaged(name, source.to_string())
        }
        error => Finding::new(FindingKind::Unreadable, name, "a file that can be read", error.to_string()),
    }
}

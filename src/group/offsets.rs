//! The offsets of all groups: committing them and asking for them.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::task::JoinSet;

use super::offsets_log::{self, OffsetKey, OffsetValue};
use super::replay::{self, Replayed};
use super::table::{Entry, Table};
use crate::broker::{Broker, BrokerError, Caller};
use crate::clock::Clock;
use crate::record::{BatchBuilder, BatchOptions};
use crate::types::{GroupName, LeaderEpoch, Offset, PartitionId, TopicId, TopicName};

/// An offset to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The topic.
    pub topic: TopicName,
    /// As the client gave it.
    pub partition: i32,
    /// The next offset to read, as the client gave it. It need not be in the log: the log may move on.
    pub offset: i64,
    /// Of the last record that was processed, where it is known; a negative one counts as unknown.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Kept as it is; at most `offset_metadata_max_bytes`.
    pub metadata: String,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionId,
    /// The next offset to read.
    pub offset: Offset,
    /// Of the last record that was processed, where it was known.
    pub leader_epoch: Option<LeaderEpoch>,
    /// As it was given.
    pub metadata: String,
    /// When it was committed, in ms since the Unix epoch.
    pub commit_timestamp_ms: i64,
}

/// All that is known of what a group has committed.
#[derive(Debug, Clone)]
pub struct AllCommitted {
    /// By topic and partition.
    pub offsets: Vec<Committed>,
    /// Part of what the group may have committed could not be read at the start: some offsets may be older than the last
    /// ones, and some may be missing.
    pub loss: Option<BrokerError>,
}

/// Why offsets were not committed, or are not known. A commit that fails has changed nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GroupError {
    /// The topic or partition does not exist, or `__consumer_offsets` did not do its part.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A negative offset.
    #[error("offset {offset} for {topic}-{partition}: it must be 0 or more")]
    InvalidOffset {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: i32,
        /// What was given.
        offset: i64,
    },
    /// More metadata than the broker keeps.
    #[error("metadata of {bytes} bytes: at most {max_bytes} are kept with an offset")]
    MetadataTooLong {
        /// The length of what was given.
        bytes: usize,
        /// The broker's `offset_metadata_max_bytes`.
        max_bytes: u32,
    },
    /// A commit of nothing.
    #[error("there are no offsets to commit")]
    NoOffsets,
}

/// Offsets of all groups, kept in `__consumer_offsets`. Shared as `Arc<Groups>`.
#[derive(Debug)]
pub struct Groups {
    broker: Arc<Broker>,
    clock: Arc<dyn Clock>,
    table: Arc<RwLock<Table>>,
}

impl Groups {
    /// Reads back what groups have committed. What cannot be read is logged, and remembered: groups that it
    /// may concern are told when they ask.
    ///
    /// # Errors
    /// [`GroupError::Broker`] if the work was cut short.
    pub async fn open(broker: Arc<Broker>, clock: Arc<dyn Clock>) -> Result<Arc<Self>, GroupError> {
        let table = Arc::new(RwLock::new(Table::default()));
        // Of the table alone, which knows no broker: so neither keeps the other alive.
        let forgetful = Arc::clone(&table);
        broker.on_topic_deleted(Box::new(move |_, id| forgetful.write().forget_topic(id)));

        let mut replays = JoinSet::new();
        let partitions = broker.partition_count(&TopicName::offsets()).unwrap_or(0);
        for partition in PartitionId::all(partitions) {
            let broker = Arc::clone(&broker);
            replays.spawn(async move { (partition, replay::replay(broker, partition.get()).await) });
        }
        while let Some(done) = replays.join_next().await {
            let (partition, Replayed { offsets, loss, .. }) =
                done.map_err(|error| BrokerError::cut_short(&TopicName::offsets(), None, &error))?;
            let mut table = table.write();
            for (key, (value, stands_at)) in offsets {
                admit(&mut table, &broker, key, value, stands_at);
            }
            if let Some(loss) = loss {
                table.set_loss(partition.get().unsigned_abs(), loss);
            }
        }
        tracing::info!(partitions, groups = table.read().groups().count(), "committed offsets read");
        Ok(Arc::new(Self { broker, clock, table }))
    }

    /// Records how far a group has come: all of these offsets durably, or none. Of two commits of one group,
    /// the one appended later counts.
    ///
    /// # Errors
    /// [`GroupError::NoOffsets`], [`GroupError::InvalidOffset`], [`GroupError::MetadataTooLong`];
    /// [`GroupError::Broker`] for an unknown topic or partition, or if the append failed.
    pub async fn commit(&self, group: &GroupName, commits: Vec<Commit>) -> Result<(), GroupError> {
        if commits.is_empty() {
            return Err(GroupError::NoOffsets);
        }
        let now_ms = self.clock.now_ms();
        let offsets = commits
            .into_iter()
            .map(|commit| self.check(group, commit, now_ms))
            .collect::<Result<Vec<_>, _>>()?;
        let mut batch = BatchBuilder::new(BatchOptions::default());
        for (key, value) in &offsets {
            let (key, value) = (offsets_log::encode_key(key), offsets_log::encode_value(value));
            batch.push(now_ms, Some(&key), Some(&value), []);
        }

        let topic = TopicName::offsets();
        self.broker.ensure_offsets_topic().await?;
        let partition = offsets_log::partition_of(group, self.broker.partition_count(&topic)?) as i32;
        let (_, id) = self.broker.locate(&topic, partition)?;
        let batch = batch.build().map_err(|error| BrokerError::Batch {
            topic: topic.clone(),
            partition: id,
            error,
        })?;
        let pending = self.broker.start_append(Caller::Internal, &topic, partition, batch, None).await?;

        // From here on the commit is in the log: the table follows, whether anybody waits for it or not.
        let (broker, table) = (Arc::clone(&self.broker), Arc::clone(&self.table));
        let applied = tokio::spawn(async move {
            let mut stands_at = pending.wait().await?.base_offset;
            let mut table = table.write();
            for (key, value) in offsets {
                admit(&mut table, &broker, key, value, stands_at);
                stands_at = stands_at.plus(1);
            }
            Ok(())
        });
        match applied.await {
            Ok(outcome) => outcome,
            Err(error) => Err(BrokerError::cut_short(&topic, Some(id), &error).into()),
        }
    }

    fn check(
        &self,
        group: &GroupName,
        commit: Commit,
        now_ms: i64,
    ) -> Result<(OffsetKey, OffsetValue), GroupError> {
        let Commit { topic, partition, offset, leader_epoch, metadata } = commit;
        let (topic_id, id) = self.broker.locate(&topic, partition)?;
        let max_bytes = self.broker.config().offset_metadata_max_bytes;
        if metadata.len() > max_bytes as usize {
            return Err(GroupError::MetadataTooLong { bytes: metadata.len(), max_bytes });
        }
        let Some(offset) = Offset::new(offset) else {
            return Err(GroupError::InvalidOffset { topic, partition, offset });
        };
        let value = OffsetValue {
            offset,
            leader_epoch: leader_epoch.filter(|epoch| epoch.0 >= 0),
            metadata,
            commit_timestamp_ms: now_ms,
            topic_id: Some(topic_id),
        };
        Ok((OffsetKey { group: group.clone(), topic, partition: id }, value))
    }

    /// How far a group has come in all partitions, as far as that is known.
    ///
    /// # Errors
    /// [`GroupError::Broker`] if part of `__consumer_offsets` could not be read at the start, and nothing is known.
    pub fn all_committed(&self, group: &GroupName) -> Result<AllCommitted, GroupError> {
        let table = self.table.read();
        let loss = table.loss(self.home(group)).map(|loss| loss.error.clone());
        match (table.group(group), loss) {
            (Some(offsets), loss) => {
                Ok(AllCommitted { offsets: offsets.iter().map(committed).collect(), loss })
            }
            (None, Some(loss)) => Err(loss.into()),
            (None, None) => Ok(AllCommitted { offsets: Vec::new(), loss: None }),
        }
    }

    /// How far a group has come in these partitions, by topic and partition. What it has not committed is
    /// left out.
    ///
    /// # Errors
    /// [`GroupError::Broker`] if part of `__consumer_offsets` could not be read at the start, and what is
    /// asked for may have stood there: to leave it out would send the group back to the beginning, or ahead
    /// to the end. A new commit mends it.
    pub fn committed(
        &self,
        group: &GroupName,
        partitions: &[(TopicName, i32)],
    ) -> Result<Vec<Committed>, GroupError> {
        let table = self.table.read();
        let (offsets, loss) = (table.group(group), table.loss(self.home(group)));
        let mut found = Vec::new();
        for (topic, partition) in partitions {
            let entry = PartitionId::new(*partition)
                .and_then(|partition| offsets?.get_key_value(&(topic.clone(), partition)));
            match (entry, loss) {
                (Some((_, entry)), Some(loss)) if entry.stands_at <= loss.through => {
                    return Err(loss.error.clone().into());
                }
                (Some(entry), _) => found.push(committed(entry)),
                (None, Some(loss)) => return Err(loss.error.clone().into()),
                (None, None) => {}
            }
        }
        found.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        found.dedup();
        Ok(found)
    }

    /// The partition of `__consumer_offsets` that a group's offsets are in.
    fn home(&self, group: &GroupName) -> u32 {
        let partitions = self.broker.partition_count(&TopicName::offsets()).unwrap_or(1);
        offsets_log::partition_of(group, partitions)
    }

    /// All groups that have committed an offset, by name, each with the number of partitions it has one for.
    pub fn list(&self) -> Vec<(GroupName, usize)> {
        let mut groups: Vec<_> =
            self.table.read().groups().map(|(group, offsets)| (group.clone(), offsets.len())).collect();
        groups.sort_unstable();
        groups
    }
}

fn committed(((topic, partition), entry): (&(TopicName, PartitionId), &Entry)) -> Committed {
    let OffsetValue { offset, leader_epoch, metadata, commit_timestamp_ms, .. } = entry.value.clone();
    Committed {
        topic: topic.clone(),
        partition: *partition,
        offset,
        leader_epoch,
        metadata,
        commit_timestamp_ms,
    }
}

/// Takes an offset into the table if its topic is still there. Asked with the table locked: the topic's
/// deletion is heard after it is out of sight, so either it is seen here or the entry is forgotten then.
fn admit(table: &mut Table, broker: &Broker, key: OffsetKey, value: OffsetValue, stands_at: Offset) {
    let present: Option<TopicId> = broker.locate(&key.topic, key.partition.get()).ok().map(|(id, _)| id);
    // A record without an id is of whichever topic has the name.
    if let Some(topic_id) = present
        && value.topic_id.is_none_or(|id| id == topic_id)
    {
        table.put(key, Entry { value, topic_id, stands_at });
    }
}

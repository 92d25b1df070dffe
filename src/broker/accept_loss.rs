//! Letting a partition go on whose log's end is lost, because an operator says so.

use std::sync::Arc;

use super::error::BrokerError;
use super::node::Broker;
use super::partition::{Life, Partition};
use super::topic::Topic;
use super::topics::{Topics, log_spec};
use crate::storage::{AcceptLossError, AcceptedLoss, LogError, LogState};
use crate::types::TopicName;

impl Broker {
    /// Gives up what a partition has lost at the end of its log, for good, and lets it go on behind that; internal topics
    /// too. When this returns, it survives a power cut. All that can be read stays readable; reads of the rest are told
    /// that it is lost. Calls for the partition that are under way meanwhile are told to try again
    /// ([`BrokerError::Reopening`]).
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopic`], [`BrokerError::UnknownPartition`], [`BrokerError::NothingLost`],
    /// [`BrokerError::Storage`], [`BrokerError::StorageFull`], [`BrokerError::ShuttingDown`];
    /// [`BrokerError::Fenced`] if it was accepted and the log could not be opened again, which the next start tries.
    pub async fn accept_loss(&self, topic: &TopicName, partition: i32) -> Result<AcceptedLoss, BrokerError> {
        let name = topic.clone();
        self.topics.change(topic, move |topics, _| topics.accept_loss(&name, partition)).await
    }
}

impl Topics {
    fn accept_loss(&self, name: &TopicName, partition: i32) -> Result<AcceptedLoss, BrokerError> {
        let topic = self.get(name)?;
        let (id, slot) = topic.slot(partition)?;
        let nothing_lost =
            |detail: String| BrokerError::NothingLost { topic: name.clone(), partition: id, detail };
        let open = slot.as_ref().map_err(|reason| nothing_lost(format!("it cannot be opened: {reason}")))?;
        let spec = log_spec(name, topic.id, topic.config.log_config(), id);
        let log = open.log();
        open.set_life(Life::Reopening);
        let outcome = self.store.accept_loss(&log, &spec);
        if let Err(AcceptLossError::Log(_)) = outcome {
            open.set_life(Life::Open);
        }
        match outcome {
            Ok((log, accepted)) => {
                let AcceptedLoss { first, next, .. } = accepted;
                tracing::warn!(topic = %name, partition = %id, %first, %next, "a loss was accepted");
                open.go_on(log);
                Ok(accepted)
            }
            Err(AcceptLossError::Log(LogError::NothingLost)) => Err(nothing_lost(match log.status().state {
                LogState::Online => "it takes writes".to_owned(),
                LogState::ReadOnly { reason } => {
                    format!(
                        "it is read-only for another reason, and the next start finds out what is there: {reason}"
                    )
                }
            })),
            Err(AcceptLossError::Log(error)) => Err(open.log_error(&error)),
            Err(AcceptLossError::Reopen(error)) => Err(self.fence(&topic, open, error.to_string())),
        }
    }

    /// The partition could not be opened again: as if it had not been at the start.
    fn fence(&self, topic: &Topic, partition: &Arc<Partition>, detail: String) -> BrokerError {
        let id = partition.id();
        let mut slots = topic.partitions.clone();
        if let Some(slot) = slots.get_mut(id.index()) {
            *slot = Err(detail.as_str().into());
        }
        let Topic { name, id: topic_id, given, config, .. } = topic;
        self.show(Topic::new(name.clone(), *topic_id, given.clone(), config.clone(), slots));
        partition.set_life(Life::Fenced);
        BrokerError::Fenced { topic: name.clone(), partition: id, detail }
    }
}

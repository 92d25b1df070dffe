//! One produce request, from the wire to its answer; `Produce` and `ProduceStream` both go through here.
//!
//! It has two halves, so that a stream can begin the next request while this one waits for the disk: [`start`] ends
//! once the records have their place in the log, [`Started::finish`] once they are as durable as the topic promises.

use bytes::BytesMut;

use super::convert;
use super::error::Failure;
use crate::broker::{AppendTerms, Broker, BrokerError, Caller, PendingAppend, Produced, Target};
use crate::proto::{ProduceRequest, ProduceResponse, ProduceResult};
use crate::types::PartitionId;

/// A request whose records have been handed to the log. Dropping it takes nothing back.
pub(super) struct Started {
    parts: Vec<(PartitionId, Result<PendingAppend, BrokerError>)>,
}

/// Hands the records of `request` to the log, creating the topic if it is unknown and the broker may.
///
/// # Errors
/// A [`Failure`] if the request is not valid, or nothing at all was handed over.
pub(super) async fn start(broker: &Broker, request: ProduceRequest) -> Result<Started, Failure> {
    let topic = convert::topic(&request.topic)?;
    let terms = AppendTerms {
        expected_offset: request.expected_offset.map(convert::expected_offset).transpose()?,
        producer: request.producer.as_ref().map(convert::producer).transpose()?,
    };
    let parts = match (request.record_batch, request.records) {
        (None, records) if records.is_empty() => {
            return Err(Failure::invalid_request("records", "is empty; give either records or record_batch"));
        }
        (Some(_), records) if !records.is_empty() => {
            return Err(Failure::invalid_request(
                "record_batch",
                "give either records or record_batch, not both",
            ));
        }
        (Some(_), _) if terms.producer.is_some() => {
            return Err(Failure::invalid_request(
                "producer",
                "is given; a record_batch has its producer in its header",
            ));
        }
        (Some(batch), _) => {
            let partition = request.partition.ok_or_else(|| {
                Failure::invalid_request("partition", "is missing; a record_batch needs one")
            })?;
            broker.ensure_topic(&topic).await?;
            // The received bytes are a slice of a larger buffer that the decoder goes on using. The log patches the
            // batch in place and the tail cache keeps it, so it gets memory of its own, of exactly its size.
            let batch = BytesMut::from(batch.as_ref());
            let pending =
                broker.start_append(Caller::Client, &topic, partition, batch, terms.expected_offset).await?;
            // A negative partition was refused above; the default is never seen.
            vec![(PartitionId::new(partition).unwrap_or_default(), Ok(pending))]
        }
        (None, records) => {
            let target = match request.partition {
                Some(partition) => Target::Partition(partition, terms),
                None if terms == AppendTerms::default() => Target::ByKey,
                None => {
                    let requirement = "is missing; an expected_offset or a producer needs one";
                    return Err(Failure::invalid_request("partition", requirement));
                }
            };
            let codec = convert::codec(request.compression)?;
            let records = records.into_iter().map(convert::produce_record).collect();
            broker.ensure_topic(&topic).await?;
            broker.start_produce(Caller::Client, &topic, target, records, codec).await?
        }
    };
    Ok(Started { parts })
}

impl Started {
    /// Waits for the outcome of every part.
    ///
    /// # Errors
    /// The first part's [`Failure`] if all of them failed.
    pub(super) async fn finish(self) -> Result<ProduceResponse, Failure> {
        let mut results = Vec::with_capacity(self.parts.len());
        let mut first_failure = None;
        let mut any_appended = false;
        for (partition, part) in self.parts {
            let outcome = match part {
                Ok(pending) => pending.wait().await,
                Err(error) => Err(error),
            };
            results.push(match outcome {
                Ok(produced) => {
                    any_appended = true;
                    appended(&produced)
                }
                Err(error) => {
                    let failure = Failure::from(error);
                    let error = Some(failure.clone().into());
                    first_failure.get_or_insert(failure);
                    ProduceResult { partition: partition.get(), error, ..Default::default() }
                }
            });
        }
        match first_failure {
            Some(failure) if !any_appended => Err(failure),
            _ => Ok(ProduceResponse { results }),
        }
    }
}

fn appended(produced: &Produced) -> ProduceResult {
    ProduceResult {
        partition: produced.partition.get(),
        base_offset: produced.base_offset.get(),
        record_count: produced.record_count as i32,
        log_append_time_ms: produced.log_append_time_ms,
        log_start_offset: produced.log_start_offset.get(),
        error: None,
        duplicate: produced.duplicate,
    }
}

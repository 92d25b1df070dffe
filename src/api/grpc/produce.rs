//! One produce request, from the wire to its answer; `Produce` and `ProduceStream` both go through here.
//!
//! It has two halves, so that a stream can begin the next request while this one waits for the disk: [`start`] ends
//! once the records have their place in the log, [`Started::finish`] once they are as durable as the topic promises.

use bytes::{Bytes, BytesMut};

use super::convert;
use super::error::Failure;
use crate::broker::{AppendTerms, Broker, BrokerError, Caller, PendingAppend, Produced, Target};
use crate::proto::{ProduceRequest, ProduceResponse, ProduceResult};
use crate::types::PartitionId;

/// Of a message of which more than one in so many bytes is not its batch, only the batch is kept.
const MOST_ENVELOPE: usize = 8;

/// A request whose records have been handed to the log. Dropping it takes nothing back.
pub(super) struct Started {
    parts: Vec<(PartitionId, Result<PendingAppend, BrokerError>)>,
}

/// Hands the records of `request` to the log, creating the topic if it is unknown and the broker may. The request came
/// in a message of `wire_bytes`, of which nothing else must be left.
///
/// # Errors
/// A [`Failure`] if the request is not valid, or nothing at all was handed over.
pub(super) async fn start(
    broker: &Broker,
    request: ProduceRequest,
    wire_bytes: usize,
) -> Result<Started, Failure> {
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
            let batch = own(batch, wire_bytes);
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

/// A batch that the log can patch in place and keep. It stays in the memory it was received in, unless too much of
/// that is something else: what is kept is counted by the size of the batch.
fn own(batch: Bytes, wire_bytes: usize) -> BytesMut {
    let envelope_bytes = wire_bytes.saturating_sub(batch.len());
    if envelope_bytes > wire_bytes / MOST_ENVELOPE {
        return BytesMut::from(batch.as_ref());
    }
    batch.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A message's bytes, of which the last are the batch.
    fn received(envelope_bytes: usize, batch_bytes: usize) -> Bytes {
        let mut message = BytesMut::with_capacity(envelope_bytes + batch_bytes);
        message.resize(envelope_bytes + batch_bytes, 7);
        message.freeze().split_off(envelope_bytes)
    }

    #[test]
    fn a_batch_stays_where_it_was_received() {
        let batch = received(40, 1_000);
        let at = batch.as_ptr();
        let owned = own(batch, 1_040);
        assert_eq!((owned.as_ptr(), owned.len()), (at, 1_000));
    }

    #[test]
    fn no_more_is_kept_than_the_batch_where_the_message_has_much_else() {
        let batch = received(10_000, 1_000);
        let at = batch.as_ptr();
        let owned = own(batch, 11_000);
        assert_ne!(owned.as_ptr(), at);
        assert_eq!((owned.len(), owned.capacity()), (1_000, 1_000));
    }
}

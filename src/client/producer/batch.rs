//! A batch of records for one partition, from its first record to its outcome.

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::Code;

use super::delivery::{Delivery, Outcome, Settlement, settlement};
use crate::client::error::{Error, reason};
use crate::client::record::ProducerRecord;
use crate::record::{self, BatchBuilder, BatchOptions, Codec, ProducerStamp};
use crate::types::{PartitionId, TopicName};

/// Where a batch belongs and what it must keep to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) topic: TopicName,
    pub(super) partition: PartitionId,
    /// The largest batch the topic takes.
    pub(super) max_message_bytes: usize,
}

pub(super) struct Batch {
    /// Unlike any other's; batches of one partition are sent in this order.
    pub(super) number: u64,
    pub(super) target: Target,
    pub(super) created: Instant,
    /// How often it was sent in vain.
    pub(super) attempts: u32,
    /// What last stood in its way.
    pub(super) last_error: Option<Error>,
    /// Whether a request with its present stamp has left.
    pub(super) sent: bool,
    /// Why a request with its present stamp was never answered, if there is such a one: it may have been appended.
    pub(super) unanswered: Option<Error>,
    /// How the broker knows it; absent before it is first sent, and without idempotence.
    stamp: Option<ProducerStamp>,
    /// Bytes of the producer's buffer that it holds.
    charged_bytes: usize,
    /// Present until it is encoded.
    builder: Option<BatchBuilder>,
    encoded: Bytes,
    records: u32,
    outcome: oneshot::Sender<Outcome>,
    settlement: Settlement,
}

impl Batch {
    pub(super) fn new(number: u64, target: Target, codec: Codec, created: Instant) -> Self {
        let (outcome, settlement) = settlement();
        Self {
            number,
            target,
            created,
            attempts: 0,
            last_error: None,
            sent: false,
            unanswered: None,
            stamp: None,
            charged_bytes: 0,
            builder: Some(BatchBuilder::new(BatchOptions { codec })),
            encoded: Bytes::new(),
            records: 0,
            outcome,
            settlement,
        }
    }

    /// Its size before compression; 0 once it is encoded.
    pub(super) fn size_bytes(&self) -> usize {
        self.builder.as_ref().map_or(0, BatchBuilder::size_bytes)
    }

    /// Adds a record; called before the batch is first encoded.
    pub(super) fn push(
        &mut self,
        record: &ProducerRecord,
        timestamp_ms: i64,
        charged_bytes: usize,
    ) -> Delivery {
        debug_assert!(self.builder.is_some(), "a batch that was sent takes no more records");
        if let Some(builder) = &mut self.builder {
            let headers = record.headers.iter().map(|header| (header.key.as_str(), header.value.as_deref()));
            builder.push(timestamp_ms, record.key.as_deref(), record.value.as_deref(), headers);
        }
        let index = self.records;
        self.records += 1;
        self.charged_bytes += charged_bytes;
        let partition = self.target.partition;
        Delivery { settlement: self.settlement.clone(), partition, index, timestamp_ms }
    }

    pub(super) const fn records(&self) -> u32 {
        self.records
    }

    pub(super) const fn stamp(&self) -> Option<ProducerStamp> {
        self.stamp
    }

    /// Gives it its number, or another one.
    pub(super) fn set_stamp(&mut self, stamp: ProducerStamp) {
        self.stamp = Some(stamp);
        if let Some(builder) = &mut self.builder {
            builder.set_producer(stamp);
        } else {
            let mut encoded = BytesMut::from(std::mem::take(&mut self.encoded));
            record::set_producer(&mut encoded, stamp);
            self.encoded = encoded.freeze();
        }
    }

    /// Takes its number away; it gets another one before it is sent.
    pub(super) const fn take_stamp(&mut self) -> Option<ProducerStamp> {
        self.stamp.take()
    }

    /// What its deliveries fail with when it is given up after `last`.
    pub(super) fn failure(&self, last: Error) -> Error {
        match &self.unanswered {
            Some(unanswered) if !last.is_outcome_unknown() => Error::undecided(unanswered, &last),
            _ => last,
        }
    }

    /// Its bytes, compressed the first time they are asked for.
    pub(super) fn encode(&mut self) -> Result<Bytes, Error> {
        if let Some(builder) = self.builder.take() {
            let encoded = builder
                .build()
                .map_err(|error| Error::new(Code::InvalidArgument, "INVALID_RECORD", error.to_string()))?;
            self.encoded = encoded.freeze();
        }
        let (size_bytes, max) = (self.encoded.len(), self.target.max_message_bytes);
        if size_bytes > max {
            let message = format!(
                "a batch of {} record(s) for topic {} has {size_bytes} bytes, more than max_message_bytes = {max}",
                self.records, self.target.topic
            );
            let facts = [("size_bytes", size_bytes.to_string()), ("max_message_bytes", max.to_string())];
            return Err(Error::with_metadata(
                Code::InvalidArgument,
                reason::MESSAGE_TOO_LARGE,
                message,
                facts,
            ));
        }
        Ok(self.encoded.clone())
    }

    pub(super) fn settlement(&self) -> Settlement {
        self.settlement.clone()
    }

    /// Settles all its deliveries; returns the bytes of the buffer that are free again.
    pub(super) fn settle(self, outcome: Outcome) -> usize {
        // Nobody may be waiting for it.
        let _ = self.outcome.send(outcome);
        self.charged_bytes
    }
}

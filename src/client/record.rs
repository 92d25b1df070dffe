//! Records as a user of the client writes and reads them.

use bytes::Bytes;

use crate::proto;
use crate::types::{Offset, PartitionId, TopicName};

/// A named piece of metadata of a record. Keys may repeat and keep their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub key: String,
    /// Its value; an absent one differs from an empty one.
    pub value: Option<Bytes>,
}

/// A record to append.
///
/// ```
/// use sagwan::client::{ProducerRecord, TopicName};
/// # fn main() -> Result<(), sagwan::client::Error> {
/// let orders = TopicName::parse("orders")?;
/// let record = ProducerRecord::new(orders).key("customer-7").value(r#"{"total": 12}"#).header("trace", "9f");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerRecord {
    /// Where it goes.
    pub topic: TopicName,
    /// The partition; absent: by the key, or any if there is none.
    pub partition: Option<PartitionId>,
    /// The key; an absent one differs from an empty one.
    pub key: Option<Bytes>,
    /// The value; an absent one, a tombstone, differs from an empty one.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<Header>,
    /// Milliseconds since the Unix epoch; absent: now.
    pub timestamp_ms: Option<i64>,
}

impl ProducerRecord {
    /// A record for a topic, without a key, and a tombstone until it gets a value.
    pub const fn new(topic: TopicName) -> Self {
        Self { topic, partition: None, key: None, value: None, headers: Vec::new(), timestamp_ms: None }
    }

    /// Sends it to this partition, whatever its key.
    #[must_use]
    pub const fn partition(mut self, partition: PartitionId) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Gives it a key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Gives it a value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push(Header { key: key.into(), value: Some(value.into()) });
        self
    }

    /// Gives it a timestamp, in milliseconds since the Unix epoch.
    #[must_use]
    pub const fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// As the broker takes a single one.
    pub(super) fn to_proto(&self) -> proto::Record {
        let header = |header: &Header| proto::Header { key: header.key.clone(), value: header.value.clone() };
        proto::Record {
            key: self.key.clone(),
            value: self.value.clone(),
            headers: self.headers.iter().map(header).collect(),
            timestamp_ms: self.timestamp_ms,
        }
    }
}

/// A record that was read. Its bytes are slices of the batch it came in, which lives as long as any of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Its topic.
    pub topic: TopicName,
    /// Its partition.
    pub partition: PartitionId,
    /// Its place there.
    pub offset: Offset,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; absent in a tombstone.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<Header>,
}

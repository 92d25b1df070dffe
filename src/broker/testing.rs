//! What tests of this layer and the one above share: a broker on a temporary directory, and short ways to use
//! it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::poll;

use super::{
    Broker, BrokerError, Caller, FetchLimits, FetchPartition, Fetched, OpenBrokerError, ProduceRecord,
    Produced, TopicDescription, TopicSpec,
};
use crate::clock::ManualClock;
use crate::config::{BrokerConfig, StorageConfig};
use crate::record::{self, BatchBuilder, BatchOptions, Codec};
use crate::storage::Store;
use crate::types::{Offset, TopicName};

/// The time at which tests take place.
pub(crate) const NOW_MS: i64 = 1_700_000_000_000;

/// A data directory, a clock that stands still, and settings. Brokers on it come and go, one at a time.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) config: BrokerConfig,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::with(BrokerConfig::default())
    }

    pub(crate) fn with(config: BrokerConfig) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self { dir, clock: Arc::new(ManualClock::at(NOW_MS)), config }
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(self.dir.path(), &StorageConfig::default(), self.clock.clone()).expect("a store")
    }

    pub(crate) fn try_open(&self) -> Result<Arc<Broker>, OpenBrokerError> {
        Broker::open(self.store(), self.config.clone(), self.clock.clone())
    }

    pub(crate) fn open(&self) -> Arc<Broker> {
        self.try_open().expect("a broker")
    }

    /// Ends a broker in an orderly way and opens the next.
    pub(crate) async fn reopen(&self, broker: Arc<Broker>) -> Arc<Broker> {
        broker.close().await.expect("an orderly end");
        drop(Arc::into_inner(broker).expect("nobody else has it"));
        self.open()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.dir.path().join(name).exists()
    }
}

pub(crate) fn name(name: &str) -> TopicName {
    TopicName::parse(name).expect("a valid name")
}

pub(crate) fn settings(settings: &[(&str, &str)]) -> BTreeMap<String, String> {
    settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn spec(topic: &str, partitions: i64, config: &[(&str, &str)]) -> TopicSpec {
    TopicSpec {
        name: name(topic),
        partitions: Some(partitions),
        config: settings(config),
        validate_only: false,
    }
}

pub(crate) async fn create(
    broker: &Broker,
    topic: &str,
    partitions: i64,
    config: &[(&str, &str)],
) -> TopicDescription {
    broker.create_topic(spec(topic, partitions, config)).await.expect("a new topic")
}

/// The value of a setting, as it is shown.
pub(crate) fn shown(topic: &TopicDescription, setting: &str) -> String {
    topic.config.iter().find(|entry| entry.name == setting).expect("a known setting").value.clone()
}

pub(crate) fn record(key: Option<&str>, value: &str) -> ProduceRecord {
    ProduceRecord {
        key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Vec::new(),
        timestamp_ms: None,
    }
}

/// One encoded batch of these values, with the test's time.
pub(crate) fn batch(values: &[&str], codec: Codec) -> BytesMut {
    let mut builder = BatchBuilder::new(BatchOptions { codec });
    for value in values {
        builder.push(NOW_MS, None, Some(value.as_bytes()), []);
    }
    builder.build().expect("a batch")
}

/// Appends one batch and waits for it.
pub(crate) async fn append(
    broker: &Broker,
    topic: &str,
    partition: i32,
    batch: BytesMut,
) -> Result<Produced, BrokerError> {
    broker.start_append(Caller::Client, &name(topic), partition, batch, None).await?.wait().await
}

/// Appends one batch of these values, which must succeed.
pub(crate) async fn produce(broker: &Broker, topic: &str, partition: i32, values: &[&str]) -> Produced {
    append(broker, topic, partition, batch(values, Codec::None)).await.expect("appended")
}

pub(crate) fn from(topic: &str, partition: i32, offset: i64) -> FetchPartition {
    FetchPartition { topic: name(topic), partition, offset }
}

/// What there is now, without waiting.
pub(crate) const AT_ONCE: FetchLimits = FetchLimits { min_bytes: 0, max_bytes: 0, max_wait: Duration::ZERO };
/// Anything there is, with a wait that ends only where a wake-up was missed.
pub(crate) const PATIENT: FetchLimits =
    FetchLimits { min_bytes: 1, max_bytes: 0, max_wait: Duration::from_secs(20) };

/// The records in these bytes as (offset, timestamp, value).
pub(crate) fn decode(chunks: &[Bytes]) -> Vec<(i64, i64, String)> {
    let mut records = Vec::new();
    let mut scratch = Vec::new();
    for chunk in chunks {
        for batch in record::batches(chunk) {
            for record in batch.expect("a batch").records(&mut scratch, 1 << 30).expect("records") {
                let record = record.expect("a record");
                let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
                records.push((record.offset.get(), record.timestamp_ms, value));
            }
        }
    }
    records
}

/// All values of a partition, in order.
pub(crate) async fn values(broker: &Broker, topic: &str, partition: i32) -> Vec<String> {
    let reader = broker.reader(&name(topic), partition).expect("a reader");
    let mut offset = Offset::ZERO;
    let mut values = Vec::new();
    loop {
        let fetched = reader.read(offset, 1 << 20).await.expect("readable");
        if fetched.batches.chunks.is_empty() {
            return values;
        }
        values.extend(decode(&fetched.batches.chunks).into_iter().map(|(_, _, value)| value));
        offset = fetched.batches.next_offset;
    }
}

/// Waits and reads, as a fetch does.
pub(crate) async fn fetch(
    broker: &Broker,
    partitions: &[FetchPartition],
    limits: FetchLimits,
) -> Vec<Result<Fetched, BrokerError>> {
    broker.wait_for_data(partitions, limits).await;
    broker.read(partitions, limits.max_bytes).await
}

/// What a fetch and a reader that wait at the end of partition 0 of `t` hear when something happens.
pub(crate) async fn heard_by_waiting(broker: &Broker, happens: impl Future<Output = ()>) -> [BrokerError; 2] {
    let asked = [from("t", 0, 0)];
    let mut waiting = Box::pin(fetch(broker, &asked, PATIENT));
    let mut reader = broker.reader(&name("t"), 0).expect("a reader");
    let mut beyond = Box::pin(reader.wait_beyond(Offset::ZERO));
    assert!(poll!(&mut waiting).is_pending() && poll!(&mut beyond).is_pending());
    happens.await;
    [waiting.await.remove(0).expect_err("nothing to read"), beyond.await.expect_err("nothing beyond")]
}

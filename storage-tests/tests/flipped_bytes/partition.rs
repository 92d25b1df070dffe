//! A partition under test: written to and read through a broker.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sagwan::broker::{Broker, BrokerError, Caller, Produced};
use sagwan::clock::ManualClock;
use sagwan::config::{BrokerConfig, StorageConfig};
use sagwan::record::{self, BatchBuilder, BatchOptions, Codec};
use sagwan::storage::{LogState, Store};
use sagwan::types::{Offset, TopicName};
use tokio::runtime::Runtime;

const NOW_MS: i64 = 1_700_000_000_000;

/// Topic and partitions.
pub(crate) const TOPICS: [(&str, i64); 2] = [("orders", 2), ("events", 1)];

/// A partition's name and number.
pub(crate) type Part = (&'static str, i32);

pub(crate) fn parts() -> impl Iterator<Item = Part> {
    TOPICS.into_iter().flat_map(|(topic, count)| (0..count as i32).map(move |partition| (topic, partition)))
}

pub(crate) fn name(topic: &str) -> TopicName {
    TopicName::parse(topic).expect("a valid name")
}

/// What a partition holds.
#[derive(Clone, Default)]
pub(crate) struct Content {
    pub(crate) log_start: i64,
    pub(crate) end: i64,
    /// By base offset.
    pub(crate) batches: BTreeMap<i64, Bytes>,
}

pub(crate) fn open(runtime: &Runtime, dir: &Path) -> Result<Arc<Broker>, String> {
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let config = StorageConfig {
        tail_cache_bytes: 0,
        index_interval_bytes: 1 << 10,
        max_group_bytes: 64 << 10,
        ..StorageConfig::default()
    };
    let store = Store::open(dir, &config, clock.clone()).map_err(|error| error.to_string())?;
    let _runtime = runtime.enter();
    Broker::open(store, BrokerConfig::default(), clock).map_err(|error| error.to_string())
}

/// As if the process had been killed.
pub(crate) fn kill(broker: Arc<Broker>) {
    drop(Arc::into_inner(broker).expect("nobody else has it"));
}

/// A batch with compressible, but not repeated values.
pub(crate) fn batch(random: &mut fastrand::Rng) -> BytesMut {
    let codec = *random.choice(Codec::ALL.as_slice()).expect("one of them");
    let mut builder = BatchBuilder::new(BatchOptions { codec });
    for _ in 0..random.u32(1..8) {
        let value: Vec<u8> = (0..random.usize(..900)).map(|_| random.u8(..16)).collect();
        builder.push(NOW_MS + random.i64(0..1000), Some(b"key"), Some(&value), []);
    }
    builder.build().expect("a batch")
}

pub(crate) async fn append(
    broker: &Broker,
    (topic, partition): Part,
    batch: BytesMut,
) -> Result<Produced, BrokerError> {
    let pending = broker.start_append(Caller::Client, &name(topic), partition, batch, None).await?;
    pending.wait().await
}

pub(crate) fn leader_epoch(broker: &Broker) -> i32 {
    let epochs = broker.topics().into_iter().flat_map(|topic| topic.partitions).flatten();
    epochs.map(|status| status.leader_epoch.0).max().unwrap_or_default()
}

/// What reading a partition came to.
#[derive(Default)]
pub(crate) struct Read {
    pub(crate) content: Content,
    pub(crate) lost: Vec<Range<i64>>,
    /// Why it takes no writes.
    pub(crate) fault: Option<String>,
}

pub(crate) async fn read(broker: &Broker, (topic, partition): Part) -> Read {
    let reader = broker.reader(&name(topic), partition).expect("an open partition");
    let description = broker.describe_topic(&name(topic)).expect("a topic");
    let status = description.partitions[partition as usize].clone().expect("an open partition");
    let mut found = Read::default();
    if let LogState::ReadOnly { reason } = status.state {
        found.fault = Some(reason.to_string());
    }
    found.content.log_start = status.log_start_offset.get();
    found.content.end = status.durable_offset.get();
    let mut next = status.log_start_offset.get();
    while next < found.content.end {
        match reader.read(Offset::clamped(next), 20_000).await {
            Ok(fetched) => {
                assert!(
                    fetched.batches.next_offset.get() > next,
                    "{topic}-{partition}: a read at {next} goes on"
                );
                for chunk in &fetched.batches.chunks {
                    for batch in record::batches(chunk) {
                        let batch = batch.expect("whole batches");
                        let base = batch.base_offset().get();
                        assert!(
                            base <= next && next <= batch.last_offset().get(),
                            "{base} is not due at {next}"
                        );
                        next = batch.next_offset().get();
                        found.content.batches.insert(base, Bytes::copy_from_slice(batch.as_bytes()));
                    }
                }
                assert_eq!(fetched.batches.next_offset.get(), next);
            }
            Err(BrokerError::DataLoss { first, last, .. }) => {
                assert!(first.get() <= next && next <= last.get(), "{first} to {last} does not hold {next}");
                found.lost.push(next..last.get() + 1);
                next = last.get() + 1;
            }
            Err(error) => panic!("{topic}-{partition} at {next}: {error}"),
        }
    }
    found
}

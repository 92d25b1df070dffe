//! One partition that is written to, and everything that was ever sent to it.

use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use sagwan::proto::log_service_client::LogServiceClient;
use sagwan::proto::{FetchPartition, FetchRequest, Position, ProduceRequest, position};
use tokio::sync::Semaphore;
use tonic::transport::Channel;

use crate::ledger::{BatchId, Ledger};

/// One partition and its ledger.
#[derive(Debug)]
pub(super) struct Target {
    topic: &'static str,
    partition: i32,
    ledger: Mutex<Ledger>,
}

impl Target {
    pub(super) fn new(topic: &'static str, partition: i32) -> Self {
        Self { topic, partition, ledger: Mutex::default() }
    }

    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.topic, self.partition)
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(|_| panic!("a writer to {} panicked", self.name()))
    }

    /// Notes an acknowledgement; `false` if nobody hears it any more.
    pub(super) fn acknowledged(&self, acks: &Semaphore, batch: BatchId, base_offset: i64) -> bool {
        let heard = !acks.is_closed();
        if heard {
            self.ledger().acknowledged(batch, base_offset);
            acks.add_permits(1);
        }
        heard
    }

    pub(super) fn request(&self) -> ProduceRequest {
        ProduceRequest {
            topic: self.topic.to_owned(),
            partition: Some(self.partition),
            ..ProduceRequest::default()
        }
    }

    /// All records from an offset on.
    pub(super) async fn read(&self, channel: Channel, from: i64) -> Vec<(i64, Bytes)> {
        let mut log = LogServiceClient::new(channel).max_decoding_message_size(usize::MAX);
        let mut records = Vec::new();
        let mut next = from;
        loop {
            let partition = FetchPartition {
                topic: self.topic.to_owned(),
                partition: self.partition,
                position: Some(Position { at: Some(position::At::Offset(next)) }),
            };
            let request = FetchRequest { partitions: vec![partition], ..FetchRequest::default() };
            let answer = log.fetch(request).await;
            let mut answer =
                answer.unwrap_or_else(|status| panic!("{} cannot be read: {status}", self.name()));
            let data = answer.get_mut().partitions.remove(0);
            assert_eq!(data.error, None, "{}", self.name());
            let values =
                data.records.into_iter().map(|record| (record.offset, record.value.unwrap_or_default()));
            records.extend(values);
            if data.next_offset >= data.high_watermark {
                return records;
            }
            assert!(data.next_offset > next, "a fetch below the end makes progress");
            next = data.next_offset;
        }
    }
}

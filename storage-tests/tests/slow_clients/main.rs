//! Clients that stand still, in great numbers, against a real server in a process of its own: its memory stays bounded,
//! others are served, and what stands still is ended.
//!
//! `SAGWAN_SLOW_CLIENTS` says how many (1,000), each with a connection of its own. The figures of the memory that the
//! server took are printed:
//!
//! ```text
//! cargo test --release -p storage-tests --test slow_clients -- --nocapture --test-threads=1 | grep figure
//! ```
#![allow(clippy::expect_used, reason = "a step that fails ends the test")]

mod bombs;
mod consumers;
mod limits;
mod producers;
mod raw;

use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sagwan::proto::admin_service_client::AdminServiceClient;
use sagwan::proto::log_service_client::LogServiceClient;
use sagwan::proto::{
    CreateTopicRequest, FetchPartition, FetchRequest, Position, ProduceRequest, Record, position,
};
use sagwan::record::{BatchBuilder, BatchOptions};
use storage_tests::process::ServerProcess;
use storage_tests::setting;
use tempfile::TempDir;
use tonic::transport::Channel;

/// What the server may take in all, whatever its clients do.
const ALLOWED_BYTES: u64 = 512 << 20;
/// No test waits longer for what has to come.
const SOON: Duration = Duration::from_mins(1);

/// How many clients stand still.
fn slow_clients() -> usize {
    setting("SAGWAN_SLOW_CLIENTS").map_or(1_000, |count| count as usize)
}

/// A server with the default settings but for `grpc`, and its directory.
fn start(grpc: &str) -> (ServerProcess, TempDir) {
    start_with(&format!("[grpc]\n{grpc}"))
}

fn start_with(settings: &str) -> (ServerProcess, TempDir) {
    // For the connections, here and there: the child inherits it.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("more descriptors");
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("sagwan.toml");
    std::fs::write(&config, settings).expect("written");
    let server = ServerProcess::start_configured(
        env!("CARGO_BIN_EXE_sagwan-under-test"),
        dir.path().join("data"),
        config,
    );
    (server, dir)
}

/// Prints what the server took at most, and judges it.
fn judge(server: &ServerProcess, what: &str) {
    let peak = server.memory_bytes("VmHWM");
    println!(
        "figure: {what}: VmHWM {} MiB; now VmRSS {} MiB, of it RssAnon {} MiB",
        peak >> 20,
        server.memory_bytes("VmRSS") >> 20,
        server.memory_bytes("RssAnon") >> 20
    );
    assert!(peak <= ALLOWED_BYTES, "{what}: the server took {} MiB", peak >> 20);
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("{what}: it did not come"))
}

/// A client that does nothing wrong.
#[derive(Clone)]
struct GoodClient {
    log: LogServiceClient<Channel>,
    admin: AdminServiceClient<Channel>,
}

impl GoodClient {
    async fn connect(server: &ServerProcess) -> Self {
        let channel = Channel::from_shared(server.url()).expect("a URL").connect().await.expect("connected");
        let log = LogServiceClient::new(channel.clone()).max_decoding_message_size(64 << 20);
        Self { log, admin: AdminServiceClient::new(channel) }
    }

    async fn create(&mut self, topic: &str, config: &[(&str, &str)]) {
        let config = config.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let request =
            CreateTopicRequest { name: topic.to_owned(), partitions: Some(1), config, ..Default::default() };
        soon("a topic", self.admin.create_topic(request)).await.expect("created");
    }

    /// Fills a topic with batches of this size.
    async fn fill(&mut self, topic: &str, batches: usize, batch_bytes: usize) {
        let batch = batch(batch_bytes);
        for _ in 0..batches {
            let request = encoded(topic, batch.clone());
            soon("room", self.log.produce(request)).await.expect("produced");
        }
    }

    /// Produces a record and reads it back.
    async fn round_trip(&mut self, topic: &str) {
        let record = Record { value: Some(Bytes::from(vec![1; 10_000])), ..Default::default() };
        let request = ProduceRequest {
            topic: topic.to_owned(),
            partition: Some(0),
            records: vec![record],
            ..Default::default()
        };
        let answer =
            soon("an acknowledgement", self.log.produce(request)).await.expect("produced").into_inner();
        let fetch = fetch(topic, answer.results[0].base_offset, 0);
        let answer = soon("an answer", self.log.fetch(fetch)).await.expect("fetched").into_inner();
        assert_eq!(answer.partitions[0].records.len(), 1);
    }
}

fn fetch(topic: &str, offset: i64, max_bytes: i32) -> FetchRequest {
    let position = Some(Position { at: Some(position::At::Offset(offset)) });
    let partition = FetchPartition { topic: topic.to_owned(), partition: 0, position };
    FetchRequest { partitions: vec![partition], max_bytes, ..Default::default() }
}

fn encoded(topic: &str, batch: Bytes) -> ProduceRequest {
    ProduceRequest {
        topic: topic.to_owned(),
        partition: Some(0),
        record_batch: Some(batch),
        ..Default::default()
    }
}

/// A batch of about this size that does not compress.
fn batch(bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let mut random = fastrand::Rng::with_seed(1);
    let value: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(1_000).collect();
    for _ in 0..bytes / 1_000 {
        builder.push(1_700_000_000_000, None, Some(&value), []);
    }
    builder.build().expect("a batch").freeze()
}

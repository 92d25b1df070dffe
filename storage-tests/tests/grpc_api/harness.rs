//! A broker, its clients, and short words for long messages.

use std::time::Duration;

use bytes::Bytes;
use sagwan::config::Config;
use sagwan::proto::admin_service_client::AdminServiceClient;
use sagwan::proto::group_service_client::GroupServiceClient;
use sagwan::proto::log_service_client::LogServiceClient;
use sagwan::proto::{
    self, Anchor, CreateTopicRequest, FetchFormat, FetchPartition, FetchRequest, FetchResponse,
    PartitionData, Position, ProduceRequest, ProduceResponse, Record,
};
use sagwan::record::{BatchBuilder, BatchOptions, Codec};
use sagwan::server::Server;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// No test waits longer for what has to come.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A running broker with the directory it lives in.
pub(crate) struct TestBroker {
    pub(crate) server: Server,
    pub(crate) dir: TempDir,
    pub(crate) channel: Channel,
}

impl TestBroker {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// With settings changed by `change`.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"), change).await
    }

    pub(crate) async fn start_in(dir: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(&dir);
        change(&mut config);
        let server = Server::start(config).await.expect("started");
        let channel = connect(&server).await;
        Self { server, dir, channel }
    }

    /// Ends it in an orderly way and starts another on the same directory.
    pub(crate) async fn restart(self) -> Self {
        let Self { server, dir, channel } = self;
        drop(channel);
        server.shutdown().await.expect("a clean end");
        Self::start_in(dir, |_| {}).await
    }

    pub(crate) fn log(&self) -> LogServiceClient<Channel> {
        LogServiceClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    pub(crate) fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel.clone())
    }

    pub(crate) fn groups(&self) -> GroupServiceClient<Channel> {
        GroupServiceClient::new(self.channel.clone())
    }

    pub(crate) async fn create(&self, name: &str, partitions: i32) {
        let request =
            CreateTopicRequest { name: name.to_owned(), partitions: Some(partitions), ..Default::default() };
        self.admin().create_topic(request).await.expect("created");
    }

    pub(crate) async fn produce(&self, request: ProduceRequest) -> Result<ProduceResponse, Status> {
        self.log().produce(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn fetch(&self, request: FetchRequest) -> Result<FetchResponse, Status> {
        self.log().fetch(request).await.map(tonic::Response::into_inner)
    }

    /// All records of one partition that are there now, or the error.
    pub(crate) async fn read(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<PartitionData, Status> {
        let request = fetch(vec![from_offset(topic, partition, offset)], FetchFormat::Records);
        let mut answer = self.fetch(request).await?;
        Ok(answer.partitions.remove(0))
    }

    /// The end of a partition.
    pub(crate) async fn end(&self, topic: &str, partition: i32) -> i64 {
        let partitions = vec![proto::ListOffsetsPartition {
            topic: topic.to_owned(),
            partition,
            position: Some(at(proto::position::At::Anchor(Anchor::Latest.into()))),
        }];
        let answer = self.log().list_offsets(proto::ListOffsetsRequest { partitions }).await.expect("listed");
        answer.into_inner().offsets[0].offset
    }
}

/// The defaults, on a free port and in `dir`.
pub(crate) fn config(dir: &TempDir) -> Config {
    let mut config = Config { data_dir: dir.path().join("data"), ..Config::default() };
    config.grpc.addr = "127.0.0.1:0".parse().expect("an address");
    config
}

pub(crate) async fn connect(server: &Server) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{}", server.grpc_addr())).expect("a URI");
    endpoint.connect().await.expect("connected")
}

pub(crate) fn at(at: proto::position::At) -> Position {
    Position { at: Some(at) }
}

pub(crate) fn from_offset(topic: &str, partition: i32, offset: i64) -> FetchPartition {
    let position = Some(at(proto::position::At::Offset(offset)));
    FetchPartition { topic: topic.to_owned(), partition, position }
}

pub(crate) fn from_anchor(topic: &str, partition: i32, anchor: Anchor) -> FetchPartition {
    let position = Some(at(proto::position::At::Anchor(anchor.into())));
    FetchPartition { topic: topic.to_owned(), partition, position }
}

pub(crate) fn fetch(partitions: Vec<FetchPartition>, format: FetchFormat) -> FetchRequest {
    FetchRequest { partitions, format: format.into(), ..Default::default() }
}

pub(crate) fn record(value: &str) -> Record {
    Record { value: Some(Bytes::copy_from_slice(value.as_bytes())), ..Default::default() }
}

pub(crate) fn records(topic: &str, partition: i32, values: &[&str]) -> ProduceRequest {
    ProduceRequest {
        topic: topic.to_owned(),
        partition: Some(partition),
        records: values.iter().map(|value| record(value)).collect(),
        ..Default::default()
    }
}

pub(crate) fn encoded(topic: &str, partition: i32, batch: Bytes) -> ProduceRequest {
    ProduceRequest {
        topic: topic.to_owned(),
        partition: Some(partition),
        record_batch: Some(batch),
        ..Default::default()
    }
}

/// An encoded batch of these values.
pub(crate) fn batch(values: &[&str], codec: Codec) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions { codec });
    for value in values {
        builder.push(1_700_000_000_000, None, Some(value.as_bytes()), []);
    }
    builder.build().expect("a batch").freeze()
}

pub(crate) fn values(data: &PartitionData) -> Vec<String> {
    let text = |record: &proto::FetchedRecord| {
        String::from_utf8(record.value.clone().expect("a value").to_vec()).expect("UTF-8")
    };
    data.records.iter().map(text).collect()
}

/// The status says exactly this, with at least this metadata, and names what it is about.
#[track_caller]
pub(crate) fn assert_failed<T>(
    outcome: Result<T, Status>,
    code: Code,
    reason: &str,
    metadata: &[(&str, &str)],
) -> Status {
    let Err(status) = outcome else { panic!("succeeded, expected {reason}") };
    assert_eq!(status.code(), code, "{status:?}");
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "sagwan");
    assert_eq!(info.reason, reason, "{status:?}");
    for (name, value) in metadata {
        assert_eq!(info.metadata.get(*name).map(String::as_str), Some(*value), "{name} of {info:?}");
    }
    assert!(!status.message().is_empty());
    status
}

/// The same of a part of an answer.
#[track_caller]
pub(crate) fn assert_error(
    error: Option<&proto::Error>,
    code: Code,
    reason: &str,
    metadata: &[(&str, &str)],
) {
    let error = error.unwrap_or_else(|| panic!("no error, expected {reason}"));
    assert_eq!(error.code, i32::from(code), "{error:?}");
    assert_eq!(error.reason, reason, "{error:?}");
    for (name, value) in metadata {
        assert_eq!(error.metadata.get(*name).map(String::as_str), Some(*value), "{name} of {error:?}");
    }
}

/// What has to come, comes soon.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("it did not come")
}

/// It waits, rather than answering at once.
pub(crate) async fn assert_waits<T: std::fmt::Debug>(future: &mut (impl Future<Output = T> + Unpin)) {
    let waited = tokio::time::timeout(Duration::from_millis(50), future).await;
    assert!(waited.is_err(), "{waited:?}");
}

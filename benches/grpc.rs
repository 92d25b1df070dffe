//! One produce stream over loopback gRPC, side by side with a service that does nothing.
//!
//! One round is 256 requests (16 MiB), each with one encoded batch of 64 KiB, sent on one open `ProduceStream` without
//! waiting; the round ends with the last answer. The same generated client sends the same bytes to
//! - a whole broker, to a topic with `durability = fsync`, and one with `durability = os`: it receives, validates (CRC and
//!   every record), writes, indexes, syncs where it must, and answers;
//! - a bare tonic service: the same protobuf, codec, limits and kind of listener; it throws each message away and
//!   answers it. What it reaches is what this transport can carry in this process.
//!
//! Clients and servers share one process and one runtime, so they also share its cores: the figures are for comparison with
//! each other, not for what a broker on a machine of its own could take. Not timed: a sync of the whole machine before
//! each turn, and deleting old records.
#![allow(clippy::expect_used, reason = "a step that fails ends the bench")]

mod interleave;

use std::net::SocketAddr;
use std::pin::Pin;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::{Stream, StreamExt, future};
use interleave::{Contender, compare};
use sagwan::api::grpc::transport;
use sagwan::config::{Config, GrpcConfig};
use sagwan::proto::admin_service_client::AdminServiceClient;
use sagwan::proto::log_service_client::LogServiceClient;
use sagwan::proto::log_service_server::{LogService, LogServiceServer};
use sagwan::proto::produce_stream_response::Outcome;
use sagwan::proto::{
    CreateTopicRequest, DeleteRecordsPartition, DeleteRecordsRequest, FetchRequest, FetchResponse,
    FetchStreamRequest, FetchStreamResponse, InitProducerRequest, InitProducerResponse, ListOffsetsRequest,
    ListOffsetsResponse, ProduceRequest, ProduceResponse, ProduceResult, ProduceStreamRequest,
    ProduceStreamResponse,
};
use sagwan::record::{BatchBuilder, BatchOptions};
use sagwan::server::Server;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// As near to 64 KiB as whole records come.
const BATCH_BYTES: usize = 64 << 10;
const RECORDS_PER_BATCH: usize = 64;
const BATCHES_PER_ROUND: u64 = 256;
/// Old records are deleted whenever a topic has grown by so much.
const TRIM_BYTES: u64 = 1 << 30;
const SEGMENT_BYTES: u64 = 256 << 20;

/// Answers every produce, and keeps nothing.
struct Bare;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl LogService for Bare {
    type ProduceStreamStream = Answers<ProduceStreamResponse>;
    type FetchStreamStream = Answers<FetchStreamResponse>;

    async fn produce_stream(
        &self,
        requests: Request<Streaming<ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let answers = requests.into_inner().map(|request| {
            let request_id = request?.request_id;
            let result = ProduceResult { record_count: RECORDS_PER_BATCH as i32, ..ProduceResult::default() };
            let outcome = Outcome::Response(ProduceResponse { results: vec![result] });
            Ok(ProduceStreamResponse { request_id, outcome: Some(outcome) })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn produce(&self, _: Request<ProduceRequest>) -> Result<Response<ProduceResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn fetch(&self, _: Request<FetchRequest>) -> Result<Response<FetchResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn fetch_stream(
        &self,
        _: Request<FetchStreamRequest>,
    ) -> Result<Response<Self::FetchStreamStream>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn list_offsets(
        &self,
        _: Request<ListOffsetsRequest>,
    ) -> Result<Response<ListOffsetsResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn init_producer(
        &self,
        _: Request<InitProducerRequest>,
    ) -> Result<Response<InitProducerResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}

/// Starts the bare service, with the limits of the broker's listener.
async fn start_bare(config: &GrpcConfig) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound listener");
    let limit = usize::try_from(config.max_message_bytes).expect("a limit that fits");
    let service = LogServiceServer::new(Bare).max_decoding_message_size(limit);
    let server = transport(config).add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))));
    address
}

/// One open produce stream.
struct ProduceStream<'a> {
    name: &'static str,
    runtime: &'a Runtime,
    topic: &'static str,
    channel: Channel,
    requests: mpsc::Sender<ProduceStreamRequest>,
    answers: Streaming<ProduceStreamResponse>,
    batch: Bytes,
    /// `None` where nothing is kept.
    untrimmed_bytes: Option<u64>,
}

impl<'a> ProduceStream<'a> {
    fn open(
        name: &'static str,
        runtime: &'a Runtime,
        address: SocketAddr,
        topic: Option<(&'static str, &str)>,
    ) -> Self {
        let (requests, queue) = mpsc::channel(16);
        let (channel, answers) = runtime.block_on(async {
            let endpoint = Channel::from_shared(format!("http://{address}")).expect("a URL");
            let channel = endpoint.connect().await.expect("a server that is ready");
            if let Some((topic, durability)) = topic {
                let config =
                    [("durability", durability.to_owned()), ("segment_bytes", SEGMENT_BYTES.to_string())];
                let request = CreateTopicRequest {
                    name: topic.to_owned(),
                    partitions: Some(1),
                    config: config.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
                    validate_only: false,
                };
                AdminServiceClient::new(channel.clone()).create_topic(request).await.expect("a new topic");
            }
            let mut log = LogServiceClient::new(channel.clone());
            let answers = log.produce_stream(ReceiverStream::new(queue)).await.expect("an open stream");
            (channel, answers.into_inner())
        });
        let topic_name = topic.map_or("thrown-away", |(topic, _)| topic);
        let untrimmed_bytes = topic.map(|_| 0);
        Self { name, runtime, topic: topic_name, channel, requests, answers, batch: batch(), untrimmed_bytes }
    }
}

impl Contender for ProduceStream<'_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_baseline(&self) -> bool {
        self.untrimmed_bytes.is_none()
    }

    fn prepare(&mut self) {
        if self.untrimmed_bytes.is_some_and(|bytes| bytes > TRIM_BYTES) {
            let everything = DeleteRecordsPartition { partition: 0, before_offset: -1 };
            let request = DeleteRecordsRequest { topic: self.topic.to_owned(), partitions: vec![everything] };
            let mut admin = AdminServiceClient::new(self.channel.clone());
            self.runtime.block_on(admin.delete_records(request)).expect("old records are deleted");
            self.untrimmed_bytes = Some(0);
        }
        rustix::fs::sync();
    }

    fn work(&mut self) {
        let send = async {
            for request_id in 0..BATCHES_PER_ROUND {
                let request = ProduceRequest {
                    topic: self.topic.to_owned(),
                    partition: Some(0),
                    record_batch: Some(self.batch.clone()),
                    ..ProduceRequest::default()
                };
                let request = ProduceStreamRequest { request_id, request: Some(request) };
                self.requests.send(request).await.expect("the stream is open");
            }
        };
        let receive = async {
            for _ in 0..BATCHES_PER_ROUND {
                let answer = self.answers.message().await.expect("the stream is open").expect("an answer");
                assert!(matches!(answer.outcome, Some(Outcome::Response(_))), "{answer:?}");
            }
        };
        self.runtime.block_on(future::join(send, receive));
        if let Some(bytes) = &mut self.untrimmed_bytes {
            *bytes += BATCHES_PER_ROUND * self.batch.len() as u64;
        }
    }
}

/// One encoded batch of 64 records.
fn batch() -> Bytes {
    let value = [b'x'; BATCH_BYTES / RECORDS_PER_BATCH - 16];
    let mut batch = BatchBuilder::new(BatchOptions::default());
    for _ in 0..RECORDS_PER_BATCH {
        batch.push(1, None, Some(&value), []);
    }
    batch.build().expect("a batch within the format's limits").freeze()
}

fn produce(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory under target");
    let mut config = Config { data_dir: directory.path().join("data"), ..Config::default() };
    config.grpc.addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let bare = runtime.block_on(start_bare(&config.grpc));
    let server = runtime.block_on(Server::start(config)).expect("a broker");
    let broker = server.grpc_addr();
    {
        let contenders: &mut [Box<dyn Contender + '_>] = &mut [
            Box::new(ProduceStream::open(
                "broker, durability = fsync",
                &runtime,
                broker,
                Some(("synced", "fsync")),
            )),
            Box::new(ProduceStream::open(
                "broker, durability = os",
                &runtime,
                broker,
                Some(("cached", "os")),
            )),
            Box::new(ProduceStream::open("bare tonic service", &runtime, bare, None)),
        ];
        let bytes = BATCHES_PER_ROUND * batch().len() as u64;
        compare(criterion, "one produce stream of 64 KiB batches", bytes, contenders);
    }
    runtime.block_on(server.shutdown()).expect("an orderly end");
}

criterion_group!(grpc, produce);
criterion_main!(grpc);

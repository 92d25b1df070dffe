//! Foreign bytes as a produce over gRPC.

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use sagwan::config::Config;
use sagwan::proto::admin_service_client::AdminServiceClient;
use sagwan::proto::log_service_client::LogServiceClient;
use sagwan::proto::produce_stream_response::Outcome;
use sagwan::proto::{
    CreateTopicRequest, DeleteRecordsPartition, DeleteRecordsRequest, Error, FetchFormat, FetchPartition,
    FetchRequest, Position, ProduceRequest, ProduceResponse, ProduceStreamResponse, position,
};
use sagwan::record;
use sagwan::server::Server;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::batch_parser::framed;
use super::{Input, scratch};

/// The second one packs what it gets, and stamps it itself.
const TOPICS: [(&str, &[(&str, &str)]); 2] =
    [("plain", &[]), ("packed", &[("compression", "gzip"), ("timestamp_type", "log_append_time")])];
/// Old records are deleted whenever there may be so many bytes of them.
const TRIM_BYTES: u64 = 8 << 20;

/// A whole broker in this process, and a connection to it.
pub struct GrpcProduce {
    runtime: Runtime,
    server: Option<Server>,
    channel: Channel,
    untrimmed_bytes: u64,
    // Removed last.
    _dir: TempDir,
}

impl GrpcProduce {
    /// Starts the broker.
    ///
    /// # Panics
    /// If it does not start.
    #[expect(clippy::new_without_default, reason = "it starts a broker")]
    pub fn new() -> Self {
        let dir = scratch();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut config = Config { data_dir: dir.path().join("data"), ..Config::default() };
        config.grpc.addr = ([127, 0, 0, 1], 0).into();
        // Or an input could fill the directory with topics.
        config.broker.auto_create_topics = false;
        let (server, channel) = runtime.block_on(async {
            let server = Server::start(config).await.expect("a broker");
            let endpoint = Channel::from_shared(format!("http://{}", server.grpc_addr())).expect("a URI");
            let channel = endpoint.connect().await.expect("a broker that serves");
            for (name, config) in TOPICS {
                let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
                let request = CreateTopicRequest {
                    name: name.to_owned(),
                    partitions: Some(1),
                    config: config.collect(),
                    validate_only: false,
                };
                AdminServiceClient::new(channel.clone()).create_topic(request).await.expect("a new topic");
            }
            (server, channel)
        });
        Self { runtime, server: Some(server), channel, untrimmed_bytes: 0, _dir: dir }
    }

    /// The first byte says what the rest is: the message of a `Produce`, that of a `ProduceStream`, a record batch, or one
    /// whose length, magic and checksum are to be made right; and which topic the batch goes to.
    ///
    /// # Panics
    /// If the answer is not a typed refusal, nor a success after which the records can be read.
    pub fn run(&mut self, input: &[u8]) {
        self.untrimmed_bytes += input.len() as u64 + 1_000;
        if self.untrimmed_bytes > TRIM_BYTES {
            self.trim();
            self.untrimmed_bytes = 0;
        }
        let mut input = Input(input);
        let selector = usize::from(input.byte());
        let bytes = input.rest();
        let (topic, _) = TOPICS[selector / 4 % TOPICS.len()];
        let batch = match selector % 4 {
            0 => return self.produce(Bytes::copy_from_slice(bytes)),
            1 => return self.produce_stream(Bytes::copy_from_slice(bytes)),
            2 => Some(bytes.to_vec()),
            _ => framed(bytes),
        };
        let request = ProduceRequest {
            topic: topic.to_owned(),
            partition: Some(0),
            record_batch: batch.map(Bytes::from),
            ..ProduceRequest::default()
        };
        self.produce(request.encode_to_vec().into());
    }

    fn produce(&self, message: Bytes) {
        let topic = ProduceRequest::decode(message.clone()).map(|request| request.topic);
        match self.runtime.block_on(self.call("/sagwan.v1.LogService/Produce", message)) {
            Ok(answer) => {
                let response = ProduceResponse::decode(answer).expect("the answer is a message");
                self.check_response(&topic.expect("what was accepted is a message"), &response);
            }
            Err(status) => check_refusal(&status),
        }
    }

    fn produce_stream(&self, message: Bytes) {
        let request = sagwan::proto::ProduceStreamRequest::decode(message.clone());
        match self.runtime.block_on(self.call("/sagwan.v1.LogService/ProduceStream", message)) {
            Ok(answer) => {
                let answer = ProduceStreamResponse::decode(answer).expect("the answer is a message");
                let request = request.expect("what was answered is a message");
                assert_eq!(answer.request_id, request.request_id);
                match answer.outcome.expect("an outcome") {
                    Outcome::Response(response) => {
                        self.check_response(&request.request.unwrap_or_default().topic, &response);
                    }
                    Outcome::Error(error) => check_error(&error),
                }
            }
            Err(status) => check_refusal(&status),
        }
    }

    /// One message there, and one back.
    async fn call(&self, path: &'static str, message: Bytes) -> Result<Bytes, Status> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.expect("the broker lives");
        let message = Request::new(tokio_stream::once(message));
        let path = PathAndQuery::from_static(path);
        let mut answers = grpc.streaming(message, path, RawCodec).await?.into_inner();
        answers.message().await?.ok_or_else(|| Status::unknown("no answer"))
    }

    /// What is said to have been appended is there.
    fn check_response(&self, topic: &str, response: &ProduceResponse) {
        assert!(!response.results.is_empty());
        for result in &response.results {
            if let Some(error) = &result.error {
                check_error(error);
                continue;
            }
            assert!(result.record_count > 0);
            let raw = self.fetch(topic, result.base_offset, FetchFormat::RecordBatches);
            let mut batches = raw.iter().flat_map(|bytes| record::batches(bytes));
            let batch = batches.next().expect("a batch").expect("a whole batch");
            assert!(batch.crc_is_valid());
            assert_eq!(batch.base_offset().get(), result.base_offset);
            assert_eq!(batch.record_count(), result.record_count);
            self.fetch(topic, result.base_offset, FetchFormat::Records);
        }
    }

    /// The encoded batches; none where the records of an unchecked compressed batch turn out to be unreadable.
    fn fetch(&self, topic: &str, offset: i64, format: FetchFormat) -> Vec<Bytes> {
        let position = Some(Position { at: Some(position::At::Offset(offset)) });
        let request = FetchRequest {
            partitions: vec![FetchPartition { topic: topic.to_owned(), partition: 0, position }],
            format: format.into(),
            max_bytes: 1,
            ..FetchRequest::default()
        };
        let answer = self.runtime.block_on(LogServiceClient::new(self.channel.clone()).fetch(request));
        match answer {
            Ok(answer) => {
                let data = answer.into_inner().partitions.remove(0);
                assert_eq!(data.error, None);
                data.record_batches
            }
            Err(status) if status.code() == Code::DataLoss && format == FetchFormat::Records => Vec::new(),
            Err(status) => panic!("{status:?}"),
        }
    }

    fn trim(&self) {
        for (topic, _) in TOPICS {
            let everything = DeleteRecordsPartition { partition: 0, before_offset: -1 };
            let request = DeleteRecordsRequest { topic: topic.to_owned(), partitions: vec![everything] };
            let mut admin = AdminServiceClient::new(self.channel.clone());
            self.runtime.block_on(admin.delete_records(request)).expect("old records are deleted");
        }
    }
}

impl Drop for GrpcProduce {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            // A panic may be on its way already.
            let _ = self.runtime.block_on(server.shutdown());
        }
    }
}

/// The status of a call that failed says why in the broker's own words.
fn check_refusal(status: &Status) {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("an untyped error: {status:?}"));
    check_error(&Error { code: status.code().into(), reason: info.reason, ..Error::default() });
    assert_eq!(info.domain, "sagwan");
}

/// The request is to blame, and not the broker.
fn check_error(error: &Error) {
    let code = Code::from(error.code);
    let is_ours = matches!(
        code,
        Code::Ok | Code::Cancelled | Code::Unknown | Code::Internal | Code::Unavailable | Code::DataLoss
    );
    assert!(!is_ours && !error.reason.is_empty(), "{error:?}");
}

/// Messages as they are.
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

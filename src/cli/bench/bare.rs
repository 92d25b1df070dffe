//! The ceiling: a service with the broker's protobuf and without a broker behind it.
//!
//! It decodes what comes, as any server must, answers, and throws it away; what is read of it comes from memory: the first
//! requests it was sent, over and over. It uses tonic as it is, with the transport settings that were measured to serve
//! this load best, so that what it reaches is what gRPC in this form can carry on this machine.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use bytes::Bytes;
use futures_util::stream;
use futures_util::{Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::hosted::READY;
use crate::cli::failure::Failure;
use crate::proto::admin_service_server::{AdminService, AdminServiceServer};
use crate::proto::log_service_server::{LogService, LogServiceServer};
use crate::proto::produce_stream_response::Outcome;
use crate::proto::{
    AcceptLossRequest, AcceptLossResponse, Anchor, CreateTopicRequest, CreateTopicResponse,
    DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicRequest, DeleteTopicResponse,
    DescribeBrokerRequest, DescribeBrokerResponse, DescribeTopicRequest, DescribeTopicResponse, FetchFormat,
    FetchRequest, FetchResponse, FetchStreamRequest, FetchStreamResponse, FetchedRecord, InitProducerRequest,
    InitProducerResponse, ListOffsetsRequest, ListOffsetsResponse, ListTopicsRequest, ListTopicsResponse,
    ListedOffset, PartitionData, PartitionDescription, ProduceRequest, ProduceResponse, ProduceResult,
    ProduceStreamRequest, ProduceStreamResponse, TopicDescription, UpdateTopicRequest, UpdateTopicResponse,
};
use crate::record::HeaderClaim;

/// What it keeps, to be read.
const MEMORY_BYTES: usize = 16 << 20;
/// The pair that makes the harder ceiling. `produce --durability os`, four runs each on one machine: 192 KiB a stream and 256
/// KiB a connection with frames of 64 KiB carried 1,006 MB/s, 1 MiB with the same frames 870, tonic's own defaults 698.
/// Small windows keep what is received in the processor's caches. The broker's are larger for the first connections.
const STREAM_WINDOW_BYTES: u32 = 192 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;
const MAX_FRAME_BYTES: u32 = 64 << 10;
const MAX_MESSAGE_BYTES: usize = 32 << 20;
/// Of records that are read: some time in 2026.
const TIMESTAMP_MS: i64 = 1_780_000_000_000;
/// As the broker answers where a request names no size.
const DEFAULT_FETCH_BYTES: usize = 1 << 20;

/// Serves until `ended`.
pub(super) async fn run(ended: oneshot::Receiver<()>) -> Result<(), Failure> {
    let cannot = |error| Failure::io("cannot listen", error);
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(cannot)?;
    eprintln!("{READY}{}", listener.local_addr().map_err(cannot)?);
    let service = Service(Arc::default());
    let serving = tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .add_service(LogServiceServer::new(service.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(AdminServiceServer::new(service))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    tokio::select! {
        served = serving => served.map_err(|error| Failure::Failed(error.to_string())),
        _ = ended => Ok(()),
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
#[derive(Debug, Default)]
struct Bare {
    /// All records that came.
    records: AtomicI64,
    /// Partitions of each topic.
    topics: Mutex<HashMap<String, i32>>,
    memory: Mutex<Memory>,
    memory_is_full: AtomicBool,
}

/// The first that came.
#[derive(Debug, Default)]
struct Memory {
    bytes: usize,
    requests: Vec<ProduceRequest>,
    /// What was last made of them to be read.
    cut: Option<Cut>,
}

/// All that is kept, in pages.
#[derive(Debug)]
struct Cut {
    /// For which format, size, and number of requests.
    asked: (FetchFormat, usize, usize),
    pages: Arc<[Page]>,
}

impl Bare {
    fn take(&self, request: ProduceRequest) -> ProduceResponse {
        let record_count = records_of(&request);
        let base_offset = self.records.fetch_add(record_count.into(), Ordering::Relaxed);
        let partition = request.partition.unwrap_or_default();
        if !self.memory_is_full.load(Ordering::Relaxed) {
            self.keep(request);
        }
        let result = ProduceResult { partition, base_offset, record_count, ..ProduceResult::default() };
        ProduceResponse { results: vec![result] }
    }

    fn keep(&self, request: ProduceRequest) {
        let mut memory = self.memory.lock();
        memory.bytes += bytes_of(&request);
        memory.requests.push(request);
        if memory.bytes >= MEMORY_BYTES {
            self.memory_is_full.store(true, Ordering::Relaxed);
        }
    }

    /// What one read after the other is answered with.
    fn pages(&self, format: FetchFormat, max_bytes: usize) -> Arc<[Page]> {
        let mut memory = self.memory.lock();
        let asked = (format, max_bytes, memory.requests.len());
        if let Some(cut) = memory.cut.as_ref().filter(|cut| cut.asked == asked) {
            return Arc::clone(&cut.pages);
        }
        let pages: Arc<[Page]> = memory.pages(format, max_bytes).into();
        memory.cut = Some(Cut { asked, pages: Arc::clone(&pages) });
        pages
    }
}

impl Memory {
    fn pages(&self, format: FetchFormat, max_bytes: usize) -> Vec<Page> {
        let mut pages: Vec<Page> = Vec::new();
        let mut some = Vec::new();
        let mut bytes = 0;
        let mut offset = 0;
        for request in &self.requests {
            if bytes > 0 && bytes + bytes_of(request) > max_bytes {
                let page = Page::of(format, &some, offset);
                offset += page.records;
                pages.push(page);
                some.clear();
                bytes = 0;
            }
            bytes += bytes_of(request);
            some.push(request);
        }
        if pages.is_empty() && !some.is_empty() {
            pages.push(Page::of(format, &some, offset));
        }
        pages
    }
}

/// One response's worth.
#[derive(Debug, Clone)]
struct Page {
    records: i64,
    data: PartitionData,
}

impl Page {
    fn of(format: FetchFormat, requests: &[&ProduceRequest], first_offset: i64) -> Self {
        let records = requests.iter().map(|request| i64::from(records_of(request))).sum();
        let mut data = PartitionData { high_watermark: i64::MAX, ..PartitionData::default() };
        if format == FetchFormat::RecordBatches {
            let batches = requests.iter().filter_map(|request| request.record_batch.as_deref());
            data.record_batches = vec![fixed(&batches.collect::<Vec<_>>().concat())];
        } else {
            // As many bytes as of a broker: offsets and timestamps are numbers of usual sizes.
            let values = requests.iter().flat_map(|request| &request.records).zip(first_offset..);
            let record = |(value, offset): (&crate::proto::Record, i64)| FetchedRecord {
                offset,
                timestamp_ms: TIMESTAMP_MS,
                value: value.value.as_deref().map(fixed),
                ..FetchedRecord::default()
            };
            data.records = values.map(record).collect();
        }
        Self { records, data }
    }
}

/// Bytes that stay as long as the process, which is what makes copies of them cost nothing.
fn fixed(bytes: &[u8]) -> Bytes {
    Bytes::from_static(bytes.to_vec().leak())
}

fn records_of(request: &ProduceRequest) -> i32 {
    match &request.record_batch {
        Some(batch) => {
            HeaderClaim::read(batch).and_then(|claim| claim.record_count).map_or(0, |count| count as i32)
        }
        None => request.records.len() as i32,
    }
}

fn bytes_of(request: &ProduceRequest) -> usize {
    let value = |record: &crate::proto::Record| record.value.as_ref().map_or(0, Bytes::len);
    request.record_batch.as_ref().map_or_else(|| request.records.iter().map(value).sum(), Bytes::len)
}

/// One reader of one or more partitions, which take turns.
struct Reading {
    pages: Arc<[Page]>,
    turn: usize,
    /// Topic, partition, next offset.
    places: Vec<(String, i32, i64)>,
}

impl Reading {
    fn next(&mut self) -> Option<FetchStreamResponse> {
        let page = self.pages.get(self.turn % self.pages.len().max(1))?;
        let count = self.places.len().max(1);
        let (topic, partition, next_offset) = self.places.get_mut(self.turn % count)?;
        self.turn += 1;
        *next_offset += page.records;
        let data = PartitionData {
            topic: topic.clone(),
            partition: *partition,
            next_offset: *next_offset,
            ..page.data.clone()
        };
        Some(FetchStreamResponse { data: Some(data) })
    }
}

/// The two services over it.
#[derive(Debug, Clone)]
struct Service(Arc<Bare>);

#[tonic::async_trait]
impl LogService for Service {
    type ProduceStreamStream = Answers<ProduceStreamResponse>;
    type FetchStreamStream = Answers<FetchStreamResponse>;

    async fn produce(&self, request: Request<ProduceRequest>) -> Result<Response<ProduceResponse>, Status> {
        Ok(Response::new(self.0.take(request.into_inner())))
    }

    async fn produce_stream(
        &self,
        requests: Request<Streaming<ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let bare = Arc::clone(&self.0);
        let answers = requests.into_inner().map(move |request| {
            let request = request?;
            let outcome = Outcome::Response(bare.take(request.request.unwrap_or_default()));
            Ok(ProduceStreamResponse { request_id: request.request_id, outcome: Some(outcome) })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn fetch_stream(
        &self,
        request: Request<FetchStreamRequest>,
    ) -> Result<Response<Self::FetchStreamStream>, Status> {
        let request = request.into_inner();
        let max_bytes = usize::try_from(request.max_bytes).ok().filter(|bytes| *bytes > 0);
        let pages = self.0.pages(request.format(), max_bytes.unwrap_or(DEFAULT_FETCH_BYTES));
        if pages.is_empty() {
            return Err(Status::failed_precondition("nothing has been sent that could be read"));
        }
        let places = request.partitions.into_iter().map(|place| (place.topic, place.partition, 0));
        let mut reading = Reading { pages, turn: 0, places: places.collect() };
        let responses = stream::iter(std::iter::from_fn(move || reading.next().map(Ok)));
        Ok(Response::new(Box::pin(responses)))
    }

    async fn init_producer(
        &self,
        _: Request<InitProducerRequest>,
    ) -> Result<Response<InitProducerResponse>, Status> {
        Ok(Response::new(InitProducerResponse { producer_id: 1, producer_epoch: 0 }))
    }

    /// Every partition begins at 0 and has its share of all records that came.
    async fn list_offsets(
        &self,
        request: Request<ListOffsetsRequest>,
    ) -> Result<Response<ListOffsetsResponse>, Status> {
        use crate::proto::position::At;
        let asked = request.into_inner().partitions;
        let share = self.0.records.load(Ordering::Relaxed) / asked.len().max(1) as i64;
        let offset =
            |position: Option<crate::proto::Position>| match position.and_then(|position| position.at) {
                Some(At::Offset(offset)) => offset,
                Some(At::Anchor(anchor)) if anchor == i32::from(Anchor::Latest) => share,
                _ => 0,
            };
        let listed = asked.into_iter().map(|asked| ListedOffset {
            topic: asked.topic,
            partition: asked.partition,
            offset: offset(asked.position),
            ..ListedOffset::default()
        });
        Ok(Response::new(ListOffsetsResponse { offsets: listed.collect() }))
    }

    async fn fetch(&self, _: Request<FetchRequest>) -> Result<Response<FetchResponse>, Status> {
        Err(not_measured())
    }
}

#[tonic::async_trait]
impl AdminService for Service {
    async fn create_topic(
        &self,
        request: Request<CreateTopicRequest>,
    ) -> Result<Response<CreateTopicResponse>, Status> {
        let request = request.into_inner();
        let partitions = request.partitions.unwrap_or(1);
        self.0.topics.lock().insert(request.name.clone(), partitions);
        Ok(Response::new(CreateTopicResponse { topic: Some(description(request.name, partitions)) }))
    }

    async fn delete_topic(
        &self,
        request: Request<DeleteTopicRequest>,
    ) -> Result<Response<DeleteTopicResponse>, Status> {
        self.0.topics.lock().remove(&request.into_inner().name);
        Ok(Response::new(DeleteTopicResponse {}))
    }

    async fn describe_topic(
        &self,
        request: Request<DescribeTopicRequest>,
    ) -> Result<Response<DescribeTopicResponse>, Status> {
        let name = request.into_inner().name;
        let partitions = self.0.topics.lock().get(&name).copied();
        let partitions = partitions.ok_or_else(|| Status::not_found("no such topic"))?;
        Ok(Response::new(DescribeTopicResponse { topic: Some(description(name, partitions)) }))
    }

    async fn list_topics(
        &self,
        _: Request<ListTopicsRequest>,
    ) -> Result<Response<ListTopicsResponse>, Status> {
        Err(not_measured())
    }

    async fn update_topic(
        &self,
        _: Request<UpdateTopicRequest>,
    ) -> Result<Response<UpdateTopicResponse>, Status> {
        Err(not_measured())
    }

    async fn delete_records(
        &self,
        _: Request<DeleteRecordsRequest>,
    ) -> Result<Response<DeleteRecordsResponse>, Status> {
        Err(not_measured())
    }

    async fn accept_loss(
        &self,
        _: Request<AcceptLossRequest>,
    ) -> Result<Response<AcceptLossResponse>, Status> {
        Err(not_measured())
    }

    async fn describe_broker(
        &self,
        _: Request<DescribeBrokerRequest>,
    ) -> Result<Response<DescribeBrokerResponse>, Status> {
        Err(not_measured())
    }
}

fn description(name: String, partitions: i32) -> TopicDescription {
    let partition = |partition| PartitionDescription { partition, ..PartitionDescription::default() };
    TopicDescription {
        name,
        partitions: (0..partitions).map(partition).collect(),
        ..TopicDescription::default()
    }
}

fn not_measured() -> Status {
    Status::unimplemented("the bare service has only what is measured")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchBuilder, BatchOptions};

    fn request(records: usize) -> ProduceRequest {
        let mut batch = BatchBuilder::new(BatchOptions::default());
        for _ in 0..records {
            batch.push(0, None, Some(b"x"), []);
        }
        let batch = batch.build().expect("a batch").freeze();
        ProduceRequest { record_batch: Some(batch), ..ProduceRequest::default() }
    }

    #[test]
    fn what_is_read_is_made_of_what_came() {
        let bare = Bare::default();
        assert_eq!(bare.take(request(3)).results[0].base_offset, 0);
        assert_eq!(bare.take(request(2)).results[0].base_offset, 3);
        let one = bytes_of(&request(3));
        assert_eq!(bare.pages(FetchFormat::RecordBatches, 10 * one).len(), 1);
        let pages = bare.pages(FetchFormat::RecordBatches, one);
        assert_eq!(pages.iter().map(|page| page.records).collect::<Vec<_>>(), [3]);
        let places = vec![("t".to_owned(), 0, 0), ("t".to_owned(), 1, 0)];
        let mut reading = Reading { pages, turn: 0, places };
        let mut next = || {
            let data = reading.next().and_then(|response| response.data).expect("there is always more");
            (data.partition, data.next_offset)
        };
        assert_eq!([next(), next(), next()], [(0, 3), (1, 3), (0, 6)]);
    }
}

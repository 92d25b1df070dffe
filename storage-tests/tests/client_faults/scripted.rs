//! A broker that does what a test tells it: one topic in memory, and a script of what becomes of each produce and each
//! read.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use futures_util::Stream;
use futures_util::stream::{self, BoxStream};
use sagwan::proto;
use sagwan::proto::admin_service_server::{AdminService, AdminServiceServer};
use sagwan::proto::log_service_server::{LogService, LogServiceServer};
use sagwan::proto::produce_stream_response::Outcome;
use sagwan::record::{self, BatchView};
use sagwan::types::{LeaderEpoch, Offset};
use tokio::sync::mpsc;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

pub const TOPIC: &str = "t";

/// What becomes of one produce. Without a script, it is appended and acknowledged.
#[derive(Debug, Clone, Copy)]
pub enum OnProduce {
    /// Appended and acknowledged.
    Append,
    /// Not appended; the answer says to come again.
    RefuseForNow,
    /// Not appended; the answer says that it will never be, for this reason.
    Refuse(&'static str),
    /// The stream ends before the answer; appended or not.
    Break { append: bool },
    /// Never answered.
    Swallow,
    /// Appended, and acknowledged after the next one that is answered.
    AcknowledgeAfterNext,
    /// Appended, and acknowledged when the broker ends.
    AcknowledgeLate,
    /// Not begun; the stream ends since the broker does.
    ShutDown,
}

/// What becomes of one FetchStream. Without a script, it sends all there is, one batch a response, and stays open.
#[derive(Debug, Clone, Copy)]
pub enum OnFetch {
    /// Breaks after so many batches.
    BreakAfter(usize),
    /// Fails as a whole, for now.
    Unavailable,
    /// Answers for partition 0 that the offset is out of range.
    OutOfRange,
}

#[derive(Debug, Default)]
struct State {
    exists: bool,
    partitions: Vec<Vec<(i64, BytesMut)>>,
    on_produce: VecDeque<OnProduce>,
    on_fetch: VecDeque<OnFetch>,
    /// The offsets that FetchStreams asked for, by call.
    fetches: Vec<Vec<(i32, i64)>>,
    /// The partition of which nothing can be read.
    fenced: Option<i32>,
    /// Of each partition, what is known of its producers.
    producers: HashMap<(i32, i64), Sequences>,
    /// How many producer ids were given out.
    producer_ids: i64,
    /// How many more times none is given out.
    init_refusals: u32,
    /// How many batches were refused as out of order.
    out_of_order: usize,
}

/// One producer's in one partition.
#[derive(Debug)]
struct Sequences {
    epoch: i16,
    next: i32,
    /// The last five: base sequence and offset.
    recent: VecDeque<(i32, i64)>,
}

/// Cheap to clone; all clones are one broker.
#[derive(Debug, Clone)]
pub struct Broker(Arc<Mutex<State>>);

impl Broker {
    /// Starts a broker whose topic has so many partitions; 0: there is no topic yet, and the first to look at it may have
    /// it created, with 4.
    pub fn start(partitions: usize) -> (Self, String) {
        let state =
            State { exists: partitions > 0, partitions: vec![Vec::new(); partitions], ..State::default() };
        let broker = Self(Arc::new(Mutex::new(state)));
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let url = format!("http://{}", incoming.local_addr().expect("bound"));
        let server = Server::builder()
            .add_service(LogServiceServer::new(broker.clone()))
            .add_service(AdminServiceServer::new(broker.clone()))
            .serve_with_incoming(incoming);
        tokio::spawn(server);
        (broker, url)
    }

    pub fn script_produce(&self, script: impl IntoIterator<Item = OnProduce>) {
        self.state().on_produce.extend(script);
    }

    pub fn script_fetch(&self, script: impl IntoIterator<Item = OnFetch>) {
        self.state().on_fetch.extend(script);
    }

    /// From now on, nothing can be read of this partition, or of none.
    pub fn fence(&self, partition: Option<i32>) {
        self.state().fenced = partition;
    }

    pub fn fetches(&self) -> Vec<Vec<(i32, i64)>> {
        self.state().fetches.clone()
    }

    /// The next so many who ask for a producer id are to come again.
    pub fn refuse_init(&self, times: u32) {
        self.state().init_refusals = times;
    }

    /// How many batches were refused as out of order.
    pub fn out_of_order(&self) -> usize {
        self.state().out_of_order
    }

    /// Producer id and epoch of each batch of a partition.
    pub fn producers(&self, partition: usize) -> Vec<(i64, i16)> {
        let producer = |(_, batch): &(i64, BytesMut)| {
            let view = BatchView::parse(batch).expect("a batch");
            (view.producer_id(), view.producer_epoch())
        };
        self.state().partitions[partition].iter().map(producer).collect()
    }

    /// The values of a partition, in their order.
    pub fn values(&self, partition: usize) -> Vec<String> {
        let mut scratch = Vec::new();
        let mut values = Vec::new();
        for (_, batch) in &self.state().partitions[partition] {
            let view = BatchView::parse(batch).expect("a batch");
            for record in view.records(&mut scratch, 1 << 20).expect("records") {
                let value = record.expect("a record").value.expect("a value");
                values.push(String::from_utf8(value.to_vec()).expect("text"));
            }
        }
        values
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no panic under the lock")
    }

    /// Appends a batch as a broker does: one of a producer only if it is the next.
    fn append(&self, partition: i32, batch: &[u8]) -> Outcome {
        let mut batch = BytesMut::from(batch);
        let state = &mut *self.state();
        let log = &mut state.partitions[usize::try_from(partition).expect("a partition")];
        let base =
            log.last().map_or(0, |(_, last)| BatchView::parse(last).expect("a batch").next_offset().get());
        record::set_position(&mut batch, Offset::clamped(base), LeaderEpoch(0));
        let view = BatchView::parse(&batch).expect("a batch");
        let record_count = view.record_count();
        let result = |base_offset, duplicate| {
            let result = proto::ProduceResult {
                partition,
                base_offset,
                record_count,
                duplicate,
                ..Default::default()
            };
            Outcome::Response(proto::ProduceResponse { results: vec![result] })
        };
        if view.producer_id() >= 0 {
            let (epoch, sequence) = (view.producer_epoch(), view.base_sequence());
            let known = state.producers.entry((partition, view.producer_id())).or_insert_with(|| Sequences {
                epoch,
                next: sequence,
                recent: VecDeque::new(),
            });
            if epoch < known.epoch {
                return Outcome::Error(refusal(Code::FailedPrecondition, "FENCED_PRODUCER", None));
            }
            if let Some((_, offset)) =
                known.recent.iter().find(|(recent, _)| (epoch, *recent) == (known.epoch, sequence))
            {
                return result(*offset, true);
            }
            if sequence != if epoch > known.epoch { 0 } else { known.next } {
                state.out_of_order += 1;
                return Outcome::Error(refusal(Code::FailedPrecondition, "OUT_OF_ORDER_SEQUENCE", None));
            }
            if epoch > known.epoch {
                *known = Sequences { epoch, next: 0, recent: VecDeque::new() };
            }
            known.next += record_count;
            known.recent.push_back((sequence, base));
            if known.recent.len() > 5 {
                known.recent.pop_front();
            }
        }
        log.push((base, batch));
        result(base, false)
    }
}

fn refusal(code: Code, reason: &str, retry_after_ms: Option<i64>) -> proto::Error {
    proto::Error { code: code as i32, reason: reason.to_owned(), retry_after_ms, ..Default::default() }
}

fn status(code: Code, reason: &str, retry: bool) -> Status {
    let mut details =
        ErrorDetails::with_error_info(reason, "sagwan", [("topic".to_owned(), TOPIC.to_owned())]);
    if retry {
        details.set_retry_info(Some(std::time::Duration::from_millis(1)));
    }
    Status::with_error_details(code, reason, details)
}

fn channel_stream<T: Send + 'static>(receiver: mpsc::UnboundedReceiver<T>) -> impl Stream<Item = T> + Send {
    stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|item| (item, receiver)) })
}

#[tonic::async_trait]
impl LogService for Broker {
    async fn produce(
        &self,
        _request: Request<proto::ProduceRequest>,
    ) -> Result<Response<proto::ProduceResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    type ProduceStreamStream = BoxStream<'static, Result<proto::ProduceStreamResponse, Status>>;

    async fn produce_stream(
        &self,
        request: Request<Streaming<proto::ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let mut requests = request.into_inner();
        let broker = self.clone();
        let (answers, stream) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let (mut after_next, mut late) = (Vec::new(), Vec::new());
            while let Ok(Some(request)) = requests.message().await {
                let produce = request.request.expect("a produce");
                let (partition, batch) =
                    (produce.partition.expect("one"), produce.record_batch.expect("one"));
                let action = broker.state().on_produce.pop_front();
                let outcome = match action.unwrap_or(OnProduce::Append) {
                    OnProduce::Append => broker.append(partition, &batch),
                    OnProduce::RefuseForNow => {
                        Outcome::Error(refusal(Code::ResourceExhausted, "STORAGE_FULL", Some(1)))
                    }
                    OnProduce::Refuse(reason) => Outcome::Error(refusal(Code::InvalidArgument, reason, None)),
                    OnProduce::Break { append } => {
                        if append {
                            broker.append(partition, &batch);
                        }
                        let _ = answers.send(Err(Status::unavailable("the connection broke")));
                        return;
                    }
                    OnProduce::Swallow => continue,
                    OnProduce::AcknowledgeAfterNext => {
                        let outcome = Some(broker.append(partition, &batch));
                        after_next
                            .push(proto::ProduceStreamResponse { request_id: request.request_id, outcome });
                        continue;
                    }
                    OnProduce::AcknowledgeLate => {
                        let outcome = Some(broker.append(partition, &batch));
                        late.push(proto::ProduceStreamResponse { request_id: request.request_id, outcome });
                        continue;
                    }
                    OnProduce::ShutDown => {
                        for answer in late {
                            let _ = answers.send(Ok(answer));
                        }
                        let _ = answers.send(Err(status(Code::Unavailable, "SHUTTING_DOWN", true)));
                        return;
                    }
                };
                let answer =
                    proto::ProduceStreamResponse { request_id: request.request_id, outcome: Some(outcome) };
                for answer in std::iter::once(answer).chain(after_next.drain(..)) {
                    let _ = answers.send(Ok(answer));
                }
            }
        });
        Ok(Response::new(Box::pin(channel_stream(stream))))
    }

    async fn fetch(
        &self,
        _request: Request<proto::FetchRequest>,
    ) -> Result<Response<proto::FetchResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    type FetchStreamStream = BoxStream<'static, Result<proto::FetchStreamResponse, Status>>;

    async fn fetch_stream(
        &self,
        request: Request<proto::FetchStreamRequest>,
    ) -> Result<Response<Self::FetchStreamStream>, Status> {
        let asked: Vec<(i32, i64)> = request.into_inner().partitions.iter().map(asked).collect();
        let (responses, stream) = mpsc::unbounded_channel();
        let mut state = self.state();
        state.fetches.push(asked.clone());
        let script = state.on_fetch.pop_front();
        if matches!(script, Some(OnFetch::Unavailable)) {
            return Err(status(Code::Unavailable, "SHUTTING_DOWN", true));
        }
        let mut sent = 0;
        for (partition, offset) in asked {
            let data = |next_offset| proto::PartitionData {
                topic: TOPIC.to_owned(),
                partition,
                next_offset,
                ..Default::default()
            };
            if partition == 0 && matches!(script, Some(OnFetch::OutOfRange)) {
                let error = Some(refusal(Code::OutOfRange, "OFFSET_OUT_OF_RANGE", None));
                let data = proto::PartitionData { error, ..data(offset) };
                let _ = responses.send(Ok(proto::FetchStreamResponse { data: Some(data) }));
                continue;
            }
            for (_, batch) in &state.partitions[usize::try_from(partition).expect("a partition")] {
                let next_offset = BatchView::parse(batch).expect("a batch").next_offset().get();
                if next_offset <= offset {
                    continue;
                }
                if matches!(script, Some(OnFetch::BreakAfter(batches)) if batches == sent) {
                    let _ = responses.send(Err(Status::unavailable("the connection broke")));
                    return Ok(Response::new(Box::pin(channel_stream(stream))));
                }
                let record_batches = vec![batch.clone().freeze()];
                let data = proto::PartitionData { record_batches, ..data(next_offset) };
                let _ = responses.send(Ok(proto::FetchStreamResponse { data: Some(data) }));
                sent += 1;
            }
        }
        // The stream stays open as long as somebody may send.
        let open = stream::pending::<Result<proto::FetchStreamResponse, Status>>();
        drop(responses);
        Ok(Response::new(Box::pin(stream::StreamExt::chain(channel_stream(stream), open))))
    }

    async fn list_offsets(
        &self,
        request: Request<proto::ListOffsetsRequest>,
    ) -> Result<Response<proto::ListOffsetsResponse>, Status> {
        use proto::position::At;
        let state = self.state();
        let listed = |asked: proto::ListOffsetsPartition| {
            let log = &state.partitions[usize::try_from(asked.partition).expect("a partition")];
            let end = log
                .last()
                .map_or(0, |(_, last)| BatchView::parse(last).expect("a batch").next_offset().get());
            let offset = match asked.position.and_then(|position| position.at) {
                Some(At::Offset(offset)) => offset,
                Some(At::Anchor(anchor)) if anchor == proto::Anchor::Latest as i32 => end,
                _ => 0,
            };
            let fenced = state.fenced == Some(asked.partition);
            proto::ListedOffset {
                topic: asked.topic,
                partition: asked.partition,
                offset,
                error: fenced.then(|| refusal(Code::Unavailable, "PARTITION_FENCED", None)),
                ..Default::default()
            }
        };
        let offsets = request.into_inner().partitions.into_iter().map(listed).collect();
        Ok(Response::new(proto::ListOffsetsResponse { offsets }))
    }

    async fn init_producer(
        &self,
        _request: Request<proto::InitProducerRequest>,
    ) -> Result<Response<proto::InitProducerResponse>, Status> {
        let mut state = self.state();
        if state.init_refusals > 0 {
            state.init_refusals -= 1;
            return Err(status(Code::Unavailable, "SHUTTING_DOWN", true));
        }
        state.producer_ids += 1;
        let producer_id = state.producer_ids;
        Ok(Response::new(proto::InitProducerResponse { producer_id, producer_epoch: 0 }))
    }
}

fn asked(partition: &proto::FetchPartition) -> (i32, i64) {
    match partition.position.as_ref().and_then(|position| position.at) {
        Some(proto::position::At::Offset(offset)) => (partition.partition, offset),
        other => panic!("a consumer asks by offset, not by {other:?}"),
    }
}

#[tonic::async_trait]
impl AdminService for Broker {
    async fn describe_topic(
        &self,
        request: Request<proto::DescribeTopicRequest>,
    ) -> Result<Response<proto::DescribeTopicResponse>, Status> {
        let mut state = self.state();
        if request.into_inner().allow_auto_create && !state.exists {
            state.exists = true;
            state.partitions.resize(4, Vec::new());
        }
        if !state.exists {
            return Err(status(Code::NotFound, "UNKNOWN_TOPIC", false));
        }
        let partition = |(partition, _)| proto::PartitionDescription {
            partition,
            ..proto::PartitionDescription::default()
        };
        let partitions = (0..).zip(&state.partitions).map(partition).collect();
        let config = vec![proto::ConfigEntry {
            name: "max_message_bytes".to_owned(),
            value: "1048588".to_owned(),
            ..Default::default()
        }];
        let topic =
            proto::TopicDescription { name: TOPIC.to_owned(), partitions, config, ..Default::default() };
        Ok(Response::new(proto::DescribeTopicResponse { topic: Some(topic) }))
    }

    async fn create_topic(
        &self,
        _request: Request<proto::CreateTopicRequest>,
    ) -> Result<Response<proto::CreateTopicResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn delete_topic(
        &self,
        _request: Request<proto::DeleteTopicRequest>,
    ) -> Result<Response<proto::DeleteTopicResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn list_topics(
        &self,
        _request: Request<proto::ListTopicsRequest>,
    ) -> Result<Response<proto::ListTopicsResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn update_topic(
        &self,
        _request: Request<proto::UpdateTopicRequest>,
    ) -> Result<Response<proto::UpdateTopicResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn delete_records(
        &self,
        _request: Request<proto::DeleteRecordsRequest>,
    ) -> Result<Response<proto::DeleteRecordsResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn accept_loss(
        &self,
        _request: Request<proto::AcceptLossRequest>,
    ) -> Result<Response<proto::AcceptLossResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn describe_broker(
        &self,
        _request: Request<proto::DescribeBrokerRequest>,
    ) -> Result<Response<proto::DescribeBrokerResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }
}

//! The task that carries batches to the broker: one pipelined stream, answers matched by request id, retries.
//!
//! When the stream breaks, nothing is certain about the batches under way. With idempotence they are sent again under
//! their [numbers](super::numbering); without it they fail so, and only what was certainly not appended is sent again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::accumulator::Accumulator;
use super::batch::Batch;
use super::config::ProducerConfig;
use super::delivery::{Appended, Outcome};
use super::numbering::Identity;
use super::trouble::Troubles;
use crate::client::backoff::Backoff;
use crate::client::connection::Connection;
use crate::client::error::{Error, reason};
use crate::client::position::offset_from_wire;
use crate::proto;
use crate::types::{ProducerId, TopicName};

/// The first delay before something is tried again.
pub(super) const RETRY_INITIAL: Duration = Duration::from_millis(50);
/// The longest.
pub(super) const RETRY_MAX: Duration = Duration::from_secs(2);

/// What the producer's handles and its sender share.
pub(super) struct Shared {
    pub(super) accumulator: Mutex<Accumulator>,
    /// Tells the sender that there is something new to look at.
    pub(super) wake: Notify,
    /// Free bytes of the buffer. Closed when the sender is gone.
    pub(super) memory: Semaphore,
    /// What is being tried again.
    pub(super) troubles: Troubles,
}

impl Shared {
    /// Settles a batch that is neither queued nor in flight any more.
    fn settle(&self, batch: Batch, outcome: Outcome) {
        self.troubles.clear();
        self.memory.add_permits(batch.settle(outcome));
    }
}

/// The task's state; [`run`](Self::run) never returns, it is aborted when the last handle is dropped.
pub(super) struct Sender {
    shared: Arc<Shared>,
    connection: Connection,
    config: ProducerConfig,
    stream: Option<Stream>,
    /// By request id, which is the batch's number.
    in_flight: BTreeMap<u64, Batch>,
    backoff: Backoff,
    /// After a failure: neither the producer id nor the stream is asked for again before.
    reopen_at: Option<Instant>,
    /// Why the last such request failed.
    open_error: Option<Error>,
}

struct Stream {
    /// `None` once the broker takes no more. Its answers are still read to their end: without them, and the status that
    /// comes last, the fate of what is under way would be unknown.
    requests: Option<mpsc::Sender<proto::ProduceStreamRequest>>,
    answers: Streaming<proto::ProduceStreamResponse>,
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, connection: Connection, config: ProducerConfig) -> Self {
        Self {
            shared,
            connection,
            config,
            stream: None,
            in_flight: BTreeMap::new(),
            backoff: Backoff::new(RETRY_INITIAL, RETRY_MAX),
            reopen_at: None,
            open_error: None,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            self.expire(Instant::now());
            if self.wants_to_send(Instant::now()) {
                if self.shared.accumulator.lock().lacks_identity() {
                    self.introduce().await;
                } else if self.stream.is_none() {
                    self.open().await;
                }
            }
            self.dispatch(Instant::now());
            let deadline = self.next_deadline();
            tokio::select! {
                answer = next_answer(self.stream.as_mut()) => self.on_answers(answer),
                () = self.shared.wake.notified() => {}
                () = sleep_until(deadline) => {}
            }
        }
    }

    fn wants_to_send(&self, now: Instant) -> bool {
        self.reopen_at.is_none_or(|at| at <= now)
            && self.shared.accumulator.lock().next_ready().is_some_and(|at| at <= now)
    }

    /// Gets a producer id. If the answer is lost, so is an id: there are enough.
    async fn introduce(&mut self) {
        let answer = self.connection.log().init_producer(proto::InitProducerRequest {}).await;
        match self.connection.answer(answer).and_then(identity) {
            Ok(identity) => {
                self.open_error = None;
                self.shared.accumulator.lock().set_identity(identity);
            }
            Err(error) => self.not_opened(error),
        }
    }

    /// Opens the stream. No batch is handed over before the broker has answered, so that a failure here leaves none
    /// whose fate is unknown.
    async fn open(&mut self) {
        // There is room for every batch that may be under way: handing one over never waits.
        let (requests, queue) = mpsc::channel(self.config.max_in_flight);
        let opened = self.connection.log().produce_stream(ReceiverStream::new(queue)).await;
        match self.connection.answer(opened) {
            Ok(answers) => {
                self.stream = Some(Stream { requests: Some(requests), answers });
                self.open_error = None;
            }
            Err(error) => self.not_opened(error),
        }
    }

    /// Tries again later, or fails what is ready to be sent.
    fn not_opened(&mut self, error: Error) {
        if error.is_retriable() {
            self.reopen_at = Some(Instant::now() + self.backoff.next_delay(error.retry_after()));
            self.shared.troubles.failed(&error, Instant::now());
            self.open_error = Some(error);
        } else {
            let refused = self.shared.accumulator.lock().take_refused(Instant::now());
            for batch in refused {
                self.fail(batch, error.clone());
            }
        }
    }

    /// Hands over what is ready, as far as it may be under way.
    fn dispatch(&mut self, now: Instant) {
        while let Some(requests) = self.stream.as_ref().and_then(|stream| stream.requests.clone()) {
            let room = self.config.max_in_flight.saturating_sub(self.in_flight.len());
            let ready = self.shared.accumulator.lock().take_ready(room, now);
            if ready.is_empty() {
                return;
            }
            let mut ended = false;
            for mut batch in ready {
                let record_batch = match batch.encode() {
                    Ok(record_batch) => record_batch,
                    Err(error) => {
                        self.give_up(batch, error);
                        continue;
                    }
                };
                let request = proto::ProduceStreamRequest {
                    request_id: batch.number,
                    request: Some(proto::ProduceRequest {
                        topic: batch.target.topic.as_str().to_owned(),
                        partition: Some(batch.target.partition.get()),
                        record_batch: Some(record_batch),
                        ..proto::ProduceRequest::default()
                    }),
                };
                ended = ended || requests.try_send(request).is_err();
                if ended {
                    // This time it has not left.
                    self.shared.accumulator.lock().requeue(batch, now);
                } else {
                    batch.sent = true;
                    self.in_flight.insert(batch.number, batch);
                }
            }
            if ended && let Some(stream) = &mut self.stream {
                stream.requests = None;
            }
        }
    }

    /// An answer, and those that have come with it: what follows looks at every partition, and with thousands of them that
    /// was all it did.
    fn on_answers(&mut self, first: Result<Option<proto::ProduceStreamResponse>, Status>) {
        // Whatever a broker sends, the others have their turn.
        let more = self.in_flight.len();
        self.on_answer(first);
        for _ in 1..more {
            let Some(stream) = &mut self.stream else { return };
            let Some(answer) = stream.answers.message().now_or_never() else { return };
            self.on_answer(answer);
        }
    }

    fn on_answer(&mut self, answer: Result<Option<proto::ProduceStreamResponse>, Status>) {
        match answer {
            Ok(Some(answer)) => {
                self.backoff.reset();
                self.reopen_at = None;
                if let Some(batch) = self.in_flight.remove(&answer.request_id) {
                    self.on_outcome(batch, outcome(answer));
                }
            }
            Ok(None) => self.on_broken(&Error::lost(self.connection.url(), "the broker ended the stream")),
            Err(status) => {
                let error = self.connection.error(&status);
                self.on_broken(&error);
            }
        }
    }

    fn on_outcome(&self, batch: Batch, outcome: Outcome) {
        match outcome {
            Ok(appended) => {
                self.shared.accumulator.lock().appended(&batch);
                self.shared.settle(batch, Ok(appended));
            }
            Err(error) if self.config.idempotence && error.reason() == reason::OUT_OF_ORDER_SEQUENCE => {
                self.out_of_order(batch);
            }
            Err(error) if error.is_safe_to_retry() => self.retry(batch, error),
            Err(error) => self.give_up(batch, error),
        }
    }

    /// Queues a batch again; should it be too old by then, it expires there.
    fn retry(&self, mut batch: Batch, error: Error) {
        let not_before = Instant::now() + delay(&mut batch).max(error.retry_after().unwrap_or_default());
        self.shared.troubles.failed(&error, Instant::now());
        batch.last_error = Some(error);
        self.shared.accumulator.lock().requeue(batch, not_before);
    }

    /// Queues a batch again, which failed since one before it had. That one has the trouble to tell of.
    fn out_of_order(&self, mut batch: Batch) {
        let not_before = Instant::now() + delay(&mut batch);
        self.shared.accumulator.lock().out_of_order(batch, not_before);
    }

    fn give_up(&self, mut batch: Batch, error: Error) {
        {
            let mut accumulator = self.shared.accumulator.lock();
            accumulator.given_up(&mut batch);
            // Then the topic is not as it was thought to be: it is looked at before the next record.
            let stale = [reason::UNKNOWN_TOPIC, reason::UNKNOWN_PARTITION, reason::MESSAGE_TOO_LARGE];
            if stale.contains(&error.reason()) {
                accumulator.trust_topic(&batch.target.topic, Instant::now());
            }
        }
        self.fail(batch, error);
    }

    fn fail(&self, batch: Batch, error: Error) {
        let error = batch.failure(error);
        self.shared.settle(batch, Err(error));
    }

    /// The stream is gone, and with it the certainty about what was under way; unless the broker ended it to shut down:
    /// it has then answered all it had begun, and nothing was done of the rest.
    fn on_broken(&mut self, error: &Error) {
        self.stream = None;
        self.reopen_at = Some(Instant::now() + self.backoff.next_delay(error.retry_after()));
        let unknown = if error.is_outcome_unknown() {
            error.clone()
        } else {
            Error::lost(self.connection.url(), &error.to_string())
        };
        for (_, mut batch) in std::mem::take(&mut self.in_flight) {
            if error.reason() == reason::SHUTTING_DOWN {
                self.retry(batch, error.clone());
            } else if self.config.idempotence {
                batch.unanswered = Some(unknown.clone());
                self.retry(batch, unknown.clone());
            } else {
                self.give_up(batch, unknown.clone());
            }
        }
    }

    /// Gives up what has waited too long, here or at the broker.
    fn expire(&mut self, now: Instant) {
        if self.oldest_in_flight().is_some_and(|created| created + self.config.delivery_timeout <= now) {
            let message = format!("the broker at {} did not answer in time", self.connection.url());
            self.on_broken(&Error::new(Code::DeadlineExceeded, reason::TIMEOUT, message));
        }
        let hopeless = self.shared.accumulator.lock().take_hopeless(now);
        for mut batch in hopeless {
            let error = batch.last_error.take().or_else(|| self.open_error.clone());
            let error =
                error.unwrap_or_else(|| expired_error(&batch.target.topic, self.config.delivery_timeout));
            self.fail(batch, error);
        }
    }

    fn oldest_in_flight(&self) -> Option<Instant> {
        self.in_flight.values().map(|batch| batch.created).min()
    }

    /// When to look again though nothing was heard.
    fn next_deadline(&self) -> Option<Instant> {
        let accumulator = self.shared.accumulator.lock();
        let expiry = accumulator.next_expiry();
        let expiry_in_flight = self.oldest_in_flight().map(|created| created + self.config.delivery_timeout);
        let ready = match (&self.stream, self.reopen_at) {
            (Some(stream), _)
                if stream.requests.is_none() || self.in_flight.len() >= self.config.max_in_flight =>
            {
                None
            }
            (stream, Some(reopen_at)) if stream.is_none() || accumulator.lacks_identity() => {
                accumulator.next_ready().map(|at| at.max(reopen_at))
            }
            _ => accumulator.next_ready(),
        };
        [expiry, expiry_in_flight, ready].into_iter().flatten().min()
    }
}

impl Drop for Sender {
    /// However the task ends, nobody waits for it in vain.
    fn drop(&mut self) {
        self.shared.memory.close();
        self.shared.accumulator.lock().abandon();
    }
}

async fn next_answer(stream: Option<&mut Stream>) -> Result<Option<proto::ProduceStreamResponse>, Status> {
    match stream {
        Some(stream) => stream.answers.message().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// How long a batch waits after it was sent in vain once more.
fn delay(batch: &mut Batch) -> Duration {
    let delay = Backoff::new(RETRY_INITIAL, RETRY_MAX).delay_after(batch.attempts);
    batch.attempts = batch.attempts.saturating_add(1);
    delay
}

fn identity(answer: proto::InitProducerResponse) -> Result<Identity, Error> {
    let producer_id = ProducerId::new(answer.producer_id);
    let epoch = i16::try_from(answer.producer_epoch).ok().filter(|epoch| *epoch >= 0);
    let identity = producer_id.zip(epoch).map(|(producer_id, epoch)| Identity { producer_id, epoch });
    identity.ok_or_else(|| Error::unexpected(format!("the broker answered with no producer id: {answer:?}")))
}

/// What the answer says about the one partition of the request.
fn outcome(answer: proto::ProduceStreamResponse) -> Outcome {
    use proto::produce_stream_response::Outcome as Answer;
    match answer.outcome {
        Some(Answer::Response(response)) => appended(response),
        Some(Answer::Error(error)) => Err(Error::from_proto(error)),
        None => Err(Error::unexpected("the broker answered a produce with nothing")),
    }
}

/// Where the one batch of a produce lies: a repeated one where it was appended before.
fn appended(response: proto::ProduceResponse) -> Outcome {
    let result = response.results.into_iter().next();
    let result = result.ok_or_else(|| Error::unexpected("the broker answered a produce without a result"))?;
    if let Some(error) = result.error {
        return Err(Error::from_proto(error));
    }
    let base_offset = offset_from_wire(result.base_offset)?;
    Ok(Appended { base_offset, log_append_time_ms: result.log_append_time_ms })
}

fn expired_error(topic: &TopicName, delivery_timeout: Duration) -> Error {
    let message = format!("a batch for topic {topic} could not be sent within {delivery_timeout:?}");
    Error::new(Code::DeadlineExceeded, reason::DELIVERY_TIMEOUT, message)
}

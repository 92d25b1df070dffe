//! `ProduceStream`: the hot path of producers.
//!
//! Requests are started in the order they arrive and one at a time, which is what keeps the order within a partition;
//! their outcomes are awaited side by side and answered as they come. All of it happens in the task that serves the
//! call: no task and no queue stand between a request and its answer. So back-pressure needs no code: a broker whose
//! queue is full keeps a request from being started, a client that takes no answers keeps this stream from being
//! polled, and either way nothing more is read.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, FuturesUnordered, Stream, StreamExt};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use super::error::Failure;
use super::produce::{self, Started};
use super::receive::{Received, Requests};
use crate::broker::Broker;
use crate::proto::produce_stream_response::Outcome;
use crate::proto::{ProduceResponse, ProduceStreamRequest, ProduceStreamResponse};

/// The answers to `requests`, of which at most `max_in_flight` are worked on at a time.
///
/// Ends when the client has ended its side and all is answered; with SHUTTING_DOWN, after answering what was read,
/// when `shutdown` comes; with what made a message unreadable, likewise.
pub(super) fn answers(
    broker: Arc<Broker>,
    requests: Requests<ProduceStreamRequest>,
    max_in_flight: usize,
    shutdown: CancellationToken,
) -> impl Stream<Item = Result<ProduceStreamResponse, Status>> + Send {
    let state = Pipeline {
        broker,
        inbound: Some(Inbound { requests, shutdown: Box::pin(shutdown.cancelled_owned()) }),
        starting: None,
        in_flight: FuturesUnordered::new(),
        max_in_flight,
        ending: None,
    };
    stream::unfold(state, |mut state| async move { state.next().await.map(|answer| (answer, state)) })
}

type Outcomes = FuturesUnordered<BoxFuture<'static, ProduceStreamResponse>>;

struct Pipeline {
    broker: Arc<Broker>,
    /// `None` once nothing more is to be read.
    inbound: Option<Inbound>,
    /// The one request that is on its way to its place in the log.
    starting: Option<BoxFuture<'static, (u64, Result<Started, Failure>)>>,
    /// Those that have a place and wait for their outcome.
    in_flight: Outcomes,
    max_in_flight: usize,
    /// What to say after the last answer, if it was not the client who ended the stream.
    ending: Option<Status>,
}

struct Inbound {
    requests: Requests<ProduceStreamRequest>,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// What comes in.
enum Arrival {
    Request(Received<ProduceStreamRequest>),
    End(Option<Status>),
}

impl Inbound {
    async fn next(&mut self) -> Arrival {
        tokio::select! {
            biased;
            () = &mut self.shutdown => Arrival::End(Some(Failure::shutting_down().into())),
            request = self.requests.next() => match request {
                Ok(Some(request)) => Arrival::Request(request),
                Ok(None) => Arrival::End(None),
                Err(failure) => Arrival::End(Some(failure.into())),
            },
        }
    }
}

impl Pipeline {
    async fn next(&mut self) -> Option<Result<ProduceStreamResponse, Status>> {
        loop {
            let may_read = self.starting.is_none() && self.in_flight.len() < self.max_in_flight;
            tokio::select! {
                biased;
                Some(answer) = self.in_flight.next() => return Some(Ok(answer)),
                Some((request_id, started)) = poll_slot(&mut self.starting) => {
                    self.starting = None;
                    match started {
                        Ok(started) => self.in_flight.push(Box::pin(async move {
                            answer(request_id, started.finish().await)
                        })),
                        Err(failure) => return Some(Ok(answer(request_id, Err(failure)))),
                    }
                }
                Some(arrival) = next_arrival(self.inbound.as_mut()), if may_read => match arrival {
                    Arrival::Request(request) => self.starting = Some(self.start(request)),
                    Arrival::End(ending) => {
                        self.inbound = None;
                        self.ending = ending;
                    }
                },
                // Nothing to read, nothing under way.
                else => return self.ending.take().map(Err),
            }
        }
    }

    fn start(
        &self,
        received: Received<ProduceStreamRequest>,
    ) -> BoxFuture<'static, (u64, Result<Started, Failure>)> {
        let broker = Arc::clone(&self.broker);
        Box::pin(async move {
            // What it takes is counted until the broker's queue does.
            let Received { message, wire_bytes, taken: _taken } = received;
            let started = match message.request {
                Some(request) => produce::start(&broker, request, wire_bytes).await,
                None => Err(Failure::invalid_request("request", "is missing")),
            };
            (message.request_id, started)
        })
    }
}

/// The outcome of the future in `slot`; `None` if there is none.
async fn poll_slot<T>(slot: &mut Option<BoxFuture<'static, T>>) -> Option<T> {
    match slot {
        Some(future) => Some(future.await),
        None => None,
    }
}

async fn next_arrival(inbound: Option<&mut Inbound>) -> Option<Arrival> {
    match inbound {
        Some(inbound) => Some(inbound.next().await),
        None => None,
    }
}

fn answer(request_id: u64, outcome: Result<ProduceResponse, Failure>) -> ProduceStreamResponse {
    let outcome = match outcome {
        Ok(response) => Outcome::Response(response),
        Err(failure) => Outcome::Error(failure.into()),
    };
    ProduceStreamResponse { request_id, outcome: Some(outcome) }
}

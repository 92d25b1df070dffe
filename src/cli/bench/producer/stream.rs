//! Requests on one open `ProduceStream`, so many of them under way at a time.

use std::collections::VecDeque;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Load, Next};
use crate::cli::bench::gauges::Sent;
use crate::cli::bench::pacer::Pacer;
use crate::cli::failure::Failure;
use crate::client::{Client, Error};
use crate::proto;
use crate::proto::produce_stream_response::Outcome;

pub(super) async fn run(client: &Client, load: &mut Load, pacer: &mut Pacer) -> Result<(), Failure> {
    let in_flight = load.plan.in_flight as usize;
    // There is room for all that may be under way: handing a request over never waits.
    let (requests, queue) = mpsc::channel(in_flight);
    let opened = client.log_service().produce_stream(ReceiverStream::new(queue)).await;
    let mut answers = opened.map_err(|status| client.error_of(&status))?.into_inner();
    let mut under_way = UnderWay::default();
    let mut over = false;
    loop {
        let mut wait = None;
        while !over && wait.is_none() && under_way.count < in_flight {
            match load.next()? {
                Next::Send(sent, parcel) => {
                    let request_id = under_way.push(sent);
                    let request = Some(load.request(&sent, parcel));
                    // Refused only where the stream has ended: its answers tell why.
                    over = requests.try_send(proto::ProduceStreamRequest { request_id, request }).is_err();
                }
                Next::Wait { now_ns, due_ns } => wait = Some((now_ns, due_ns)),
                Next::Over => over = true,
            }
        }
        if over && under_way.count == 0 {
            return Ok(());
        }
        let answer = tokio::select! {
            answer = answers.message(), if under_way.count > 0 => Some(answer),
            waited = until(pacer, wait), if wait.is_some() => {
                waited?;
                None
            }
        };
        let mut next = answer;
        while let Some(answer) = next {
            let answer = answer.map_err(|status| client.error_of(&status))?.ok_or_else(ended)?;
            let sent = under_way.take(answer.request_id).ok_or_else(unasked)?;
            match answer.outcome {
                Some(Outcome::Response(response)) => load.answered(&sent, response)?,
                Some(Outcome::Error(error)) => return Err(Error::from_proto(error).into()),
                None => return Err(unasked()),
            }
            next = if under_way.count > 0 { answers.message().now_or_never() } else { None };
        }
    }
}

/// Waits for the next request's time.
pub(super) async fn until(pacer: &mut Pacer, wait: Option<(u64, u64)>) -> Result<(), Failure> {
    let (now_ns, due_ns) = wait.unwrap_or_default();
    pacer.wait(now_ns, due_ns).await.map_err(|error| Failure::io("cannot set a timer", error))
}

fn ended() -> Failure {
    Failure::Failed("the broker ended the stream before all was answered".to_owned())
}

fn unasked() -> Failure {
    Failure::Failed("the broker answered a request that was not sent".to_owned())
}

/// Requests by their ids, which count up.
#[derive(Debug, Default)]
struct UnderWay {
    /// From the oldest that is not answered on.
    sent: VecDeque<Option<Sent>>,
    first_id: u64,
    count: usize,
}

impl UnderWay {
    /// Returns the request's id.
    fn push(&mut self, sent: Sent) -> u64 {
        self.sent.push_back(Some(sent));
        self.count += 1;
        self.first_id + self.sent.len() as u64 - 1
    }

    /// Takes off a request that was answered; `None` if there is no such one.
    fn take(&mut self, request_id: u64) -> Option<Sent> {
        let index = usize::try_from(request_id.checked_sub(self.first_id)?).ok()?;
        let sent = self.sent.get_mut(index)?.take()?;
        self.count -= 1;
        while let Some(None) = self.sent.front() {
            self.sent.pop_front();
            self.first_id += 1;
        }
        Some(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_find_their_requests_in_any_order_and_once() {
        let sent = |place| Sent { place, intended_ns: 0, records: 1, bytes: 1 };
        let mut under_way = UnderWay::default();
        let ids: Vec<_> = (0..3).map(|place| under_way.push(sent(place))).collect();
        assert_eq!(under_way.take(ids[1]).map(|sent| sent.place), Some(1));
        assert!(under_way.take(ids[1]).is_none() && under_way.take(99).is_none());
        assert_eq!(under_way.take(ids[0]).map(|sent| sent.place), Some(0));
        assert_eq!((under_way.count, under_way.sent.len()), (1, 1));
        assert_eq!(under_way.push(sent(3)), 3);
    }
}

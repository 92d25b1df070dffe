//! A producer of the load: what it sends when, and what it notes of the answers. How requests travel is told by
//! [`stream`], [`unary`] and [`library`].

mod library;
mod stream;
mod unary;

use std::sync::Arc;

use super::args::Mode;
use super::gauges::{Gauges, Run, Sent};
use super::ledger::Chain;
use super::pacer::Pacer;
use super::payload::{Parcel, Payload, Prepared};
use super::plan::Plan;
use super::schedule::Schedule;
use super::topics::Topics;
use crate::cli::failure::Failure;
use crate::client::Client;
use crate::proto;

/// What was due before the end is sent after it, too, so that its latency counts; but not for longer than so many times
/// the course took.
const OVERTIME: u64 = 2;

/// One producer, connected, before the round begins.
#[derive(Debug)]
pub(super) struct Producer {
    number: usize,
    plan: Arc<Plan>,
    client: Client,
    topics: Arc<Topics>,
    payload: Payload,
    pacer: Pacer,
}

impl Producer {
    pub(super) fn new(
        number: usize,
        plan: &Arc<Plan>,
        client: Client,
        topics: &Arc<Topics>,
        payload: &Payload,
    ) -> Result<Self, Failure> {
        let pacer = Pacer::new().map_err(|error| Failure::io("cannot make a timer", error))?;
        let (plan, topics) = (Arc::clone(plan), Arc::clone(topics));
        Ok(Self { number, plan, client, topics, payload: payload.clone(), pacer })
    }

    /// Sends until the course of the round ends, and waits for the answers. Returns what was acknowledged, by partition;
    /// nothing unless that is to be verified.
    ///
    /// # Errors
    /// The first request that fails.
    pub(super) async fn run(self, gauges: Arc<Gauges>) -> Result<Vec<Chain>, Failure> {
        let Self { number, plan, client, topics, payload, mut pacer } = self;
        let schedule = match plan.rate_records_per_s {
            Some(rate) => {
                let requests_per_s = rate / f64::from(plan.batch_records);
                Schedule::at_rate(requests_per_s, number, plan.producers as usize)
            }
            None => Schedule::flat_out(),
        };
        let chains = if plan.verify { vec![Chain::default(); topics.len()] } else { Vec::new() };
        let mut load = Load { number, plan, topics, payload, schedule, gauges, chains, turn: number };
        match (load.plan.mode, load.plan.unary) {
            (Mode::Client, _) => library::run(&client, &mut load, &mut pacer).await?,
            (_, true) => unary::run(&client, &mut load, &mut pacer).await?,
            (_, false) => stream::run(&client, &mut load, &mut pacer).await?,
        }
        Ok(load.chains)
    }
}

/// What a producer has to do next.
enum Next {
    /// Send this now.
    Send(Sent, Parcel),
    /// Wait until then; it is `now_ns` now.
    Wait { now_ns: u64, due_ns: u64 },
    /// Nothing more.
    Over,
}

/// A producer's part of the load.
#[derive(Debug)]
struct Load {
    number: usize,
    plan: Arc<Plan>,
    topics: Arc<Topics>,
    payload: Payload,
    schedule: Schedule,
    gauges: Arc<Gauges>,
    /// By partition, under `--verify`.
    chains: Vec<Chain>,
    /// Counts requests: partitions and prepared requests take turns.
    turn: usize,
}

impl Load {
    fn next(&mut self) -> Result<Next, Failure> {
        let course = &self.gauges.course;
        let now_ns = course.now_ns();
        let due_ns = self.schedule.due_ns(now_ns);
        if due_ns > now_ns {
            // Beyond the end, there is nothing to wait for.
            let over = course.steady_to_ns().is_some_and(|to| due_ns >= to);
            return Ok(if over { Next::Over } else { Next::Wait { now_ns, due_ns } });
        }
        if let Some(end_ns) = course.steady_to_ns()
            && now_ns / OVERTIME > end_ns
        {
            while self.schedule.due_ns(now_ns) < end_ns {
                self.gauges.gave_up(self.number, self.schedule.due_ns(now_ns), now_ns);
                self.schedule.take();
            }
            return Ok(Next::Over);
        }
        if !course.admits(due_ns, self.plan.batch_records) {
            return Ok(Next::Over);
        }
        let place = self.turn % self.topics.len().max(1);
        let prepared = match self.chains.get_mut(place) {
            Some(chain) => self.payload.stamped(self.turn, self.number as u32, chain)?,
            None => self.payload.request(self.turn),
        };
        let Some(Prepared { parcel, records, bytes }) = prepared else { return Ok(Next::Over) };
        self.schedule.take();
        self.turn += 1;
        let sent = Sent { place, intended_ns: due_ns, records, bytes };
        self.gauges.sent(self.number, &sent, now_ns);
        Ok(Next::Send(sent, parcel))
    }

    /// The protobuf of a request.
    fn request(&self, sent: &Sent, parcel: Parcel) -> proto::ProduceRequest {
        let mut request = proto::ProduceRequest::default();
        if let Some(place) = self.topics.place(sent.place) {
            place.topic.as_str().clone_into(&mut request.topic);
            request.partition = Some(place.partition.get());
        }
        match parcel {
            Parcel::Batch(batch) => request.record_batch = Some(batch),
            Parcel::Records(records) => {
                request.records = records;
                request.compression = self.compression();
            }
            // The Rust client makes its own.
            Parcel::Values(_) => {}
        }
        request
    }

    fn compression(&self) -> i32 {
        use super::args::Compression;
        match self.plan.compression {
            Compression::None => proto::Compression::None,
            Compression::Gzip => proto::Compression::Gzip,
            Compression::Snappy => proto::Compression::Snappy,
            Compression::Lz4 => proto::Compression::Lz4,
            Compression::Zstd => proto::Compression::Zstd,
        }
        .into()
    }

    /// A request was acknowledged; its records lie together but where the Rust client had split it.
    fn acknowledged(&mut self, sent: &Sent, runs: &[Run]) {
        let at_ns = self.gauges.course.now_ns();
        self.gauges.acknowledged(self.number, sent, runs, at_ns);
        if let Some(chain) = self.chains.get_mut(sent.place) {
            for run in runs {
                chain.acknowledged(run.base, run.records);
            }
        }
    }

    /// A request was answered.
    ///
    /// # Errors
    /// What it failed with, or that the answer is not about what was sent.
    fn answered(&mut self, sent: &Sent, response: proto::ProduceResponse) -> Result<(), Failure> {
        let result = response.results.into_iter().next().unwrap_or_default();
        if let Some(error) = result.error {
            return Err(crate::client::Error::from_proto(error).into());
        }
        if result.record_count != sent.records as i32 {
            let (sent, answered) = (sent.records, result.record_count);
            return Err(Failure::Failed(format!(
                "{answered} records were acknowledged where {sent} were sent"
            )));
        }
        self.acknowledged(sent, &[Run { base: result.base_offset, records: sent.records }]);
        Ok(())
    }
}

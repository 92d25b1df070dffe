//! One round: everyone connects, the course begins, producers and consumers do their work, and what they measured is
//! taken together.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::MissedTickBehavior;

use super::args::{Durability, Workload};
use super::consumer::{Acknowledged, Consumer, Task};
use super::course::{Course, nanos};
use super::directory::Directory;
use super::gauges::Gauges;
use super::interrupt::Interrupt;
use super::latency::Percentiles;
use super::ledger::Chain;
use super::live::Live;
use super::meeting::Meetings;
use super::meter::Meter;
use super::outcome::{Figures, Flow, Histograms};
use super::payload::Payload;
use super::plan::{Plan, Stop};
use super::process::Process;
use super::producer::Producer;
use super::sample::{self, Sample, Samples};
use super::topics::Topics;
use super::warm::{Apart, WarmReader};
use crate::cli::connection;
use crate::cli::failure::Failure;
use crate::client::Client;

/// A round in which nothing moves for so long has failed.
const PATIENCE: Duration = Duration::from_mins(1);
/// A round ends when the disk has only so much left: nobody wants a full disk.
pub(super) const DISK_RESERVE_BYTES: u64 = 2 << 30;
/// Requests under way of a producer that writes a backlog.
const BACKLOG_IN_FLIGHT: u32 = 256;
/// What a record takes on the disk besides its value, with its part of its batch, about.
const RECORD_OVERHEAD_BYTES: u64 = 16;

/// Who is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) url: &'a str,
    pub(super) process: Option<Process>,
    /// Where it keeps its data, if that is here.
    pub(super) directory: Option<&'a Directory>,
}

/// What all rounds have in common.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) plan: Arc<Plan>,
    pub(super) payload: Payload,
    pub(super) live: Live,
    pub(super) interrupt: Interrupt,
}

/// What consumers read from its beginning.
#[derive(Debug, Clone)]
pub(super) struct Backlog {
    topics: Arc<Topics>,
    acknowledged: Acknowledged,
}

/// A round's figures and what else it came to.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) figures: Figures,
    pub(super) verified_records: u64,
    pub(super) notes: Vec<String>,
}

/// Writes the backlog that a plan has, to a subject.
///
/// # Errors
/// The first failure.
pub(super) async fn write_backlog(
    stage: &Stage,
    plan: &Plan,
    subject: Subject<'_>,
    purpose: &str,
) -> Result<Backlog, Failure> {
    // How it got there does not matter: nothing of this is measured.
    let plan = Plan {
        workload: Workload::Produce,
        durability: Durability::Os,
        unary: false,
        in_flight: plan.in_flight.max(BACKLOG_IN_FLIGHT),
        rate_records_per_s: None,
        ..plan.clone()
    };
    let overhead_bytes = plan.backlog_records().saturating_mul(RECORD_OVERHEAD_BYTES);
    let backlog_bytes = plan.backlog_bytes.unwrap_or_default().saturating_add(overhead_bytes);
    let needed = backlog_bytes.saturating_add(DISK_RESERVE_BYTES);
    if let Some(free) = subject.directory.and_then(Directory::free_bytes).filter(|free| *free < needed) {
        let (free, needed) = (free >> 20, needed >> 20);
        return Err(Failure::CannotRun(format!(
            "a backlog of that size needs {needed} MiB of room, {free} MiB are left: use a smaller --backlog, or \
             another --dir"
        )));
    }
    let interrupt = &stage.interrupt;
    let client = interrupt.or(connection::connect(subject.url)).await?;
    let plan = Arc::new(plan);
    let topics = Topics::create(&client, &plan, purpose, interrupt).await?;
    stage.live.begin(purpose);
    let cast = Cast { plan: &plan, subject, appended: Some(&topics), backlog: None, warm: None };
    let stop = Stop::Records(plan.backlog_records());
    let acted = interrupt.or(Box::pin(act(stage, cast, &client, (Duration::ZERO, stop)))).await;
    match acted {
        Ok(acted) => {
            let acknowledged = acted.acknowledged.unwrap_or_default();
            Ok(Backlog { topics, acknowledged })
        }
        Err(failure) => {
            if subject.directory.is_none() {
                interrupt.tidy(topics.delete(&client)).await?;
            }
            Err(failure)
        }
    }
}

impl Backlog {
    /// Whether a directory of that name has a partition of it.
    pub(super) fn is_kept_in(&self, directory: &str) -> bool {
        self.topics.is_kept_in(directory)
    }

    /// At the end of the run.
    pub(super) async fn delete(&self, url: &str) {
        if let Ok(client) = connection::connect(url).await {
            self.topics.delete(&client).await;
        }
    }
}

/// Plays one round of a plan against a subject, with what there is to be read: from its beginning, and by warm readers.
///
/// # Errors
/// The first failure.
pub(super) async fn play(
    stage: &Stage,
    plan: &Arc<Plan>,
    subject: Subject<'_>,
    (backlog, warm): (Option<&Backlog>, Option<&Backlog>),
    name: &str,
) -> Result<Played, Failure> {
    let interrupt = &stage.interrupt;
    let client = interrupt.or(connection::connect(subject.url)).await?;
    let topics = if plan.workload.produces() {
        Some(Topics::create(&client, plan, "live", interrupt).await?)
    } else {
        None
    };
    stage.live.begin(name);
    let cast = Cast { plan, subject, appended: topics.as_ref(), backlog, warm };
    let acted = interrupt.or(Box::pin(act(stage, cast, &client, (plan.warm_up, plan.stop)))).await;
    // A broker of this run's own takes them with it when something has failed.
    if let Some(topics) = topics.filter(|_| acted.is_ok() || subject.directory.is_none()) {
        interrupt.tidy(topics.delete(&client)).await?;
    }
    let acted = acted?;
    Ok(Played { figures: figures(&acted), verified_records: acted.verified_records, notes: acted.notes })
}

/// Who takes part.
struct Cast<'a> {
    plan: &'a Arc<Plan>,
    subject: Subject<'a>,
    /// Where producers write and followers read.
    appended: Option<&'a Arc<Topics>>,
    backlog: Option<&'a Backlog>,
    warm: Option<&'a Backlog>,
}

/// What a round left.
struct Acted {
    gauges: Arc<Gauges>,
    samples: Samples,
    acknowledged: Option<Acknowledged>,
    verified_records: u64,
    notes: Vec<String>,
}

/// Someone has done their part.
enum Done {
    Producer(usize, Vec<Chain>),
    /// With so many records verified.
    Consumer(u64),
    WarmReader,
}

async fn act(
    stage: &Stage,
    cast: Cast<'_>,
    client: &Client,
    (warm_up, stop): (Duration, Stop),
) -> Result<Acted, Failure> {
    let plan = cast.plan;
    let consumers = plan.consumers as usize;
    let (tell, told) = watch::channel(None);
    let mut producers = Vec::new();
    let mut readers = Vec::new();
    if let Some(topics) = cast.appended {
        for number in 0..plan.producers as usize {
            let client = connection::connect(cast.subject.url).await?;
            producers.push(Producer::new(number, plan, client, topics, &stage.payload)?);
        }
        if plan.workload.follows() {
            for number in 0..consumers {
                let client = connection::connect(cast.subject.url).await?;
                let task = Task::Follow(told.clone());
                readers.push(Consumer::new((number, consumers), plan, client, topics, task));
            }
        }
    }
    if let Some(backlog) = cast.backlog {
        for number in 0..consumers {
            let client = connection::connect(cast.subject.url).await?;
            let task = Task::CatchUp(backlog.acknowledged.clone());
            readers.push(Consumer::new((number, consumers), plan, client, &backlog.topics, task));
        }
    }
    let mut warm_readers = Vec::new();
    let apart = cast.warm.map(|_| Apart::new()).transpose()?;
    let place = apart.as_ref().map_or_else(Handle::current, |apart| apart.handle.clone());
    if let Some(warm) = cast.warm {
        let readers = plan.warm_readers as usize;
        for number in 0..readers {
            let (topics, ends) = (Arc::clone(&warm.topics), Arc::clone(&warm.acknowledged.ends));
            let url = cast.subject.url.to_owned();
            let reader = WarmReader::warmed_up((number, readers), url, topics, ends);
            warm_readers.push(place.spawn(reader).await.map_err(|error| died(&error))??);
        }
    }
    // A broker that ran before the benchmark is left as it is.
    if let (Some(process), true) = (cast.subject.process, plan.server_pid.is_none()) {
        process.forget_peak();
    }
    Process::Own.forget_peak();
    // Everyone is connected.
    let gauges = Arc::new(Gauges::new(Course::begin(warm_up, stop), meetings(plan, cast.appended)));

    let mut playing: JoinSet<Result<Done, Failure>> = JoinSet::new();
    let mut chains = vec![Vec::new(); producers.len()];
    let mut producing = producers.len();
    for (number, producer) in producers.into_iter().enumerate() {
        let gauges = Arc::clone(&gauges);
        playing.spawn(async move { Ok(Done::Producer(number, producer.run(gauges).await?)) });
    }
    for reader in readers {
        let gauges = Arc::clone(&gauges);
        playing.spawn(async move { Ok(Done::Consumer(reader.run(gauges).await?)) });
    }
    for reader in warm_readers {
        let gauges = Arc::clone(&gauges);
        let reading = async move { reader.run(gauges).await.map(|()| Done::WarmReader) };
        playing.spawn_on(reading, &place);
    }
    let mut watching = Watching::new(stage, &cast, Arc::clone(&gauges));
    let mut acknowledged = None;
    let mut verified_records = 0;
    loop {
        let done = tokio::select! {
            done = playing.join_next() => done,
            trouble = watching.run() => return Err(trouble),
        };
        let Some(done) = done else { break };
        match done.map_err(|error| died(&error))?? {
            Done::Consumer(records) => verified_records += records,
            Done::WarmReader => {}
            Done::Producer(number, chain) => {
                if let Some(place) = chains.get_mut(number) {
                    *place = chain;
                }
                producing -= 1;
            }
        }
        if producing == 0
            && acknowledged.is_none()
            && let Some(topics) = cast.appended
        {
            let outcome = Acknowledged { ends: topics.ends(client).await?, chains: chains.clone().into() };
            // Without followers, nobody listens.
            let _ = tell.send(Some(outcome.clone()));
            acknowledged = Some(outcome);
        }
    }
    watching.look();
    let samples = std::mem::take(&mut watching.samples);
    if let (true, Some(topics), Some(acknowledged)) = (plan.verify, cast.appended, &acknowledged)
        && plan.consumers == 0
    {
        let client = connection::connect(cast.subject.url).await?;
        let task = Task::ReadBack(acknowledged.clone());
        let reader = Consumer::new((0, 1), plan, client, topics, task);
        verified_records = tokio::select! {
            verified = reader.run(Arc::clone(&gauges)) => verified?,
            trouble = watching.run() => return Err(trouble),
        };
    }
    let mut notes = watching.notes;
    let given_up = gauges.given_up.load(Ordering::Relaxed);
    if given_up > 0 {
        notes.push(format!(
            "{given_up} requests that were due were never sent, as it would have taken too long: they count with how long \
             they had waited by then"
        ));
    }
    Ok(Acted { gauges, samples, acknowledged, verified_records, notes })
}

fn died(error: &JoinError) -> Failure {
    Failure::Failed(format!("a worker died: {error}"))
}

fn meetings(plan: &Plan, topics: Option<&Arc<Topics>>) -> Meetings {
    let Some(topics) = topics.filter(|_| plan.workload.follows()) else { return Meetings::default() };
    let mut readers = vec![0; topics.len()];
    for number in 0..plan.consumers as usize {
        for place in topics.share(number, plan.consumers as usize) {
            if let Some(readers) = readers.get_mut(place) {
                *readers += 1;
            }
        }
    }
    Meetings::new(readers)
}

/// Keeps an eye on a round while it is played.
struct Watching<'a> {
    stage: &'a Stage,
    subject: Subject<'a>,
    total_records: Option<u64>,
    gauges: Arc<Gauges>,
    samples: Samples,
    /// When something last moved.
    moved: (u64, u64),
    notes: Vec<String>,
}

impl<'a> Watching<'a> {
    fn new(stage: &'a Stage, cast: &Cast<'a>, gauges: Arc<Gauges>) -> Self {
        let total_records = cast.plan.total_records;
        let subject = cast.subject;
        Self {
            stage,
            subject,
            total_records,
            gauges,
            samples: Samples::default(),
            moved: (0, 0),
            notes: Vec::new(),
        }
    }

    /// Looks again and again; returns when the round cannot go on. Dropping the future loses nothing.
    async fn run(&mut self) -> Failure {
        let mut ticks = tokio::time::interval(sample::INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.look();
            let at_ns = self.gauges.course.now_ns();
            if at_ns.saturating_sub(self.moved.0) > nanos(PATIENCE) {
                return Failure::Failed(format!("nothing was acknowledged or read for {PATIENCE:?}"));
            }
        }
    }

    fn look(&mut self) {
        let sample = Sample::take(&self.gauges, self.subject.process);
        let moved = sample.bytes() + self.gauges.read_back.all().bytes;
        if moved != self.moved.1 {
            self.moved = (sample.at_ns, moved);
        }
        let free = self.subject.directory.and_then(Directory::free_bytes);
        let over = self.gauges.course.steady_to_ns().is_some_and(|to| to <= sample.at_ns);
        if free.is_some_and(|free| free < DISK_RESERVE_BYTES) && !over {
            self.gauges.course.end_at(sample.at_ns);
            self.notes.push(format!(
                "a round ended early, after {:.1} s: the disk has less than {} GiB left",
                sample.at_ns as f64 / 1e9,
                DISK_RESERVE_BYTES >> 30
            ));
        }
        self.samples.push(sample);
        self.stage.live.show(&self.gauges.course, &self.samples, self.total_records);
    }
}

fn figures(acted: &Acted) -> Figures {
    let gauges = &acted.gauges;
    let course = &gauges.course;
    let flow = |meter: &Meter| Flow::of(meter.steady(course)).filter(|_| meter.all().records > 0);
    let latencies = Histograms {
        acknowledgement: gauges.acknowledgement.merged(),
        end_to_end: gauges.end_to_end.merged(),
        lateness: gauges.lateness.merged(),
        warm_read: gauges.warm_read.merged(),
    };
    let flows = [&gauges.produced, &gauges.followed, &gauges.caught_up, &gauges.warm].map(flow);
    let longest_s = flows.iter().flatten().map(|flow| flow.seconds).fold(0.0, f64::max);
    let from_ns = course.steady_from_ns();
    let to_ns = course.steady_to_ns().unwrap_or(from_ns + (longest_s * 1e9) as u64);
    let [produced, followed, caught_up, warm] = flows;
    Figures {
        produced,
        followed,
        caught_up,
        warm,
        acknowledgement: Percentiles::of(&latencies.acknowledgement),
        end_to_end: Percentiles::of(&latencies.end_to_end),
        lateness: Percentiles::of(&latencies.lateness),
        warm_read: Percentiles::of(&latencies.warm_read),
        server: acted.samples.server_cost(from_ns, to_ns),
        client: acted.samples.client_cost(from_ns, to_ns),
        steady_s: (from_ns as f64 / 1e9, to_ns as f64 / 1e9),
        timeline: acted.samples.timeline(),
        latencies,
    }
}

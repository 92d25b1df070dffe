//! A whole run: the broker to measure, the rounds in turns with those of the limits, and what they come to together.

use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::spawn_blocking;

use super::args::{Compression, Durability, Mode};
use super::course::Course;
use super::directory::{Directory, FileSystem};
use super::disk::{self, Manner, Written};
use super::hosted::Hosted;
use super::latency::{self, Percentiles};
use super::live::Live;
use super::outcome::{Broker, Ceiling, Figures, Flow, LatencyRatios, Limit, Machine, Outcome, Share, median};
use super::payload::{Parcel, Payload};
use super::plan::Plan;
use super::process::Process;
use super::round::{self, Backlog, DISK_RESERVE_BYTES, Played, Stage, Subject};
use crate::cli::connection;
use crate::cli::failure::Failure;

/// A share of the asked rate below which it is told.
const RATE_REACHED: f64 = 0.98;
/// What a durable append costs at least.
const SYNC_EACH: Manner = Manner { files: 1, writes_per_sync: Some(1) };

/// Runs the plan, against the broker at `server` or one of its own.
///
/// # Errors
/// The first failure: there are no figures then.
pub(super) async fn run(plan: Plan, server: Option<&str>) -> Result<Outcome, Failure> {
    let started_at = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    raise_descriptor_limit();
    let payload = Payload::prepare(&plan)?;
    let directory = match server {
        Some(_) => None,
        None => Some(Directory::make(plan.dir.as_deref())?),
    };
    let stage = Stage { plan: Arc::new(plan), payload, live: Live::new() };
    stage.live.begin("broker");
    let own = match &directory {
        Some(directory) => {
            let data_dir = directory.path().join("data");
            Some(Hosted::broker(&data_dir, stage.plan.config.as_deref()).await?)
        }
        None => None,
    };
    let bare = if stage.plan.ceiling { Some(Hosted::bare().await?) } else { None };
    let url = own.as_ref().map(|own| own.url.as_str()).or(server).unwrap_or_default();
    let pid = own.as_ref().map(Hosted::id).or(stage.plan.server_pid);
    let subject = Subject { url, process: pid.map(Process::Id), directory: directory.as_ref() };
    let broker = describe(&subject, own.is_some()).await?;
    let rounds = all_rounds(&stage, subject, bare.as_ref(), directory.as_ref()).await?;
    let mut notes = Vec::new();
    for hosted in [own, bare].into_iter().flatten() {
        // The figures are there all the same.
        if let Err(failure) = hosted.stop().await {
            notes.push(failure.to_string());
        }
    }
    outcome(&stage, rounds, notes, started_at, broker)
}

/// Every producer and consumer has a connection.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where it may not be raised, too many connections tell so themselves.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// What all rounds of all subjects left, by round.
#[derive(Debug, Default)]
struct Rounds {
    broker: Vec<Played>,
    bare: Vec<Figures>,
    /// By manner.
    disk: Vec<(Manner, Vec<Written>)>,
}

async fn all_rounds(
    stage: &Stage,
    subject: Subject<'_>,
    bare: Option<&Hosted>,
    directory: Option<&Directory>,
) -> Result<Rounds, Failure> {
    let bare =
        bare.map(|bare| Subject { url: &bare.url, process: Some(Process::Id(bare.id())), directory: None });
    let backlogs =
        Backlogs { broker: backlog(stage, Some(subject)).await?, bare: backlog(stage, bare).await? };
    let rounds = in_turns(stage, subject, bare, directory, &backlogs).await;
    // A broker of this run's own takes it with it.
    if let (Some(backlog), None) = (&backlogs.broker, directory) {
        backlog.delete(subject.url).await;
    }
    rounds
}

/// What is read from its beginning.
struct Backlogs {
    broker: Option<Backlog>,
    bare: Option<Backlog>,
}

async fn in_turns(
    stage: &Stage,
    subject: Subject<'_>,
    bare: Option<Subject<'_>>,
    directory: Option<&Directory>,
    backlogs: &Backlogs,
) -> Result<Rounds, Failure> {
    let plan = &stage.plan;
    let plain = directory.filter(|_| plan.ceiling && plan.workload.produces());
    let manners = if plain.is_some() { manners(plan) } else { Vec::new() };
    let disk = manners.into_iter().map(|manner| (manner, Vec::new())).collect();
    let mut rounds = Rounds { disk, ..Rounds::default() };
    let batches = if plain.is_some() { encoded(plan)? } else { Arc::default() };
    for number in 0..plan.rounds {
        let title = |what: &str| match plan.rounds {
            1 => what.to_owned(),
            rounds => format!("{what} {}/{rounds}", number + 1),
        };
        // Everyone is first in turn, so that nobody always comes after the same.
        for turn in 0..3 {
            match ((turn + number) % 3, bare, plain) {
                (0, _, _) => {
                    settle(directory).await;
                    let title = title("sagwan");
                    rounds.broker.push(round::play(stage, subject, backlogs.broker.as_ref(), &title).await?);
                }
                (1, Some(bare), _) => {
                    settle(directory).await;
                    let title = title("bare service");
                    let played = round::play(stage, bare, backlogs.bare.as_ref(), &title).await?;
                    rounds.bare.push(played.figures);
                }
                (2, _, Some(directory)) => {
                    for (manner, written) in &mut rounds.disk {
                        settle(Some(directory)).await;
                        stage.live.begin(&title("plain file"));
                        written.push(write(plan, directory, *manner, &batches).await?);
                    }
                }
                _ => {}
            }
        }
    }
    Ok(rounds)
}

/// What was written before is not to be paid for by what comes now.
async fn settle(directory: Option<&Directory>) {
    if directory.is_some() {
        // If the thread dies, there was no sync.
        let _ = spawn_blocking(rustix::fs::sync).await;
    }
}

async fn backlog(stage: &Stage, subject: Option<Subject<'_>>) -> Result<Option<Backlog>, Failure> {
    match subject.filter(|_| stage.plan.workload.catches_up()) {
        Some(subject) => Ok(Some(round::write_backlog(stage, subject).await?)),
        None => Ok(None),
    }
}

/// How plain files are written beside a plan: with a sync for each request; with one for as many as may be under way; and,
/// where there are several partitions, with a file for each and a sync for each request.
fn manners(plan: &Plan) -> Vec<Manner> {
    let under_way = plan.producers.saturating_mul(plan.in_flight);
    match plan.durability {
        Durability::Os => vec![Manner { files: 1, writes_per_sync: None }],
        Durability::Fsync => {
            let mut manners = vec![SYNC_EACH];
            if under_way > 1 {
                manners.push(Manner { files: 1, writes_per_sync: Some(under_way) });
            }
            if plan.places() > 1 {
                manners.push(Manner { files: plan.places(), ..SYNC_EACH });
            }
            manners
        }
    }
}

/// The batches that the broker writes, or would make of what it is sent.
fn encoded(plan: &Plan) -> Result<Arc<[(Bytes, u32)]>, Failure> {
    let plan = Plan { mode: Mode::Batches, ..plan.clone() };
    let payload = Payload::prepare(&plan)?;
    let batch = |turn| match payload.request(turn)?.parcel {
        Parcel::Batch(batch) => Some((batch, plan.batch_records)),
        Parcel::Records(_) | Parcel::Values(_) => None,
    };
    Ok((0..payload.len()).filter_map(batch).collect())
}

async fn write(
    plan: &Plan,
    directory: &Directory,
    manner: Manner,
    batches: &Arc<[(Bytes, u32)]>,
) -> Result<Written, Failure> {
    let limit = directory.free_bytes().unwrap_or(u64::MAX).saturating_sub(DISK_RESERVE_BYTES);
    let (path, batches) = (directory.path().to_owned(), Arc::clone(batches));
    let (warm_up, stop) = (plan.warm_up, plan.stop);
    let written =
        spawn_blocking(move || disk::write(&path, manner, &batches, &Course::begin(warm_up, stop), limit));
    let written = tokio::select! {
        written = written => written,
        failure = round::interrupted() => return Err(failure),
    };
    let written = written.map_err(|error| Failure::Failed(format!("the disk loop died: {error}")))?;
    written.map_err(|error| Failure::io("cannot write a plain file", error))
}

async fn describe(subject: &Subject<'_>, own: bool) -> Result<Broker, Failure> {
    let client = connection::connect(subject.url).await?;
    let info = client.admin().describe_broker().await?;
    Ok(Broker {
        url: subject.url.to_owned(),
        version: Some(info.version),
        own,
        data_dir: subject.directory.map(|directory| directory.path().display().to_string()),
        file_system: subject.directory.and_then(|directory| directory.file_system.clone()),
    })
}

fn machine() -> Machine {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
    let value = |text: Option<String>, name: &str| {
        let line = text?.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned))?;
        Some(line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
    };
    let memory = value(read("/proc/meminfo"), "MemTotal");
    let kib = memory.and_then(|memory| memory.strip_suffix(" kB")?.parse::<u64>().ok());
    Machine {
        cores: std::thread::available_parallelism().map_or(1, NonZero::get),
        cpu: value(read("/proc/cpuinfo"), "model name"),
        memory_bytes: kib.map(|kib| kib << 10),
        kernel: read("/proc/sys/kernel/osrelease").map(|release| format!("Linux {}", release.trim())),
    }
}

fn outcome(
    stage: &Stage,
    rounds: Rounds,
    mut notes: Vec<String>,
    started_at: String,
    broker: Broker,
) -> Result<Outcome, Failure> {
    let plan = &*stage.plan;
    notes.extend(rounds.broker.iter().flat_map(|played| played.notes.clone()));
    let verified = rounds.broker.iter().map(|played| played.verified_records).sum();
    let figures: Vec<Figures> = rounds.broker.into_iter().map(|played| played.figures).collect();
    let summary =
        Figures::summary(&figures).ok_or_else(|| Failure::Failed("no round was played".to_owned()))?;
    notes.extend(remarks(plan, &summary, &broker));
    let packed = plan.mode == Mode::Batches && plan.compression != Compression::None;
    Ok(Outcome {
        version: env!("CARGO_PKG_VERSION"),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        started_at,
        machine: machine(),
        ceiling: plan.ceiling.then(|| ceiling(plan, &figures, &rounds.bare, &rounds.disk)),
        broker,
        plan: plan.clone(),
        compression_ratio: packed.then(|| stage.payload.compression_ratio(plan)),
        summary,
        rounds: figures,
        verified_records: plan.verify.then_some(verified),
        notes,
    })
}

/// What has to be known to read the figures.
fn remarks(plan: &Plan, summary: &Figures, broker: &Broker) -> Vec<String> {
    let mut remarks = Vec::new();
    if cfg!(debug_assertions) {
        remarks.push("this is a debug build: its figures mean nothing".to_owned());
    }
    if broker.file_system.as_ref().is_some_and(FileSystem::is_in_memory) {
        remarks.push("the data is kept in memory: no disk was written to; name a disk with --dir".to_owned());
    }
    if let (Some(rate), Some(produced)) = (plan.rate_records_per_s, summary.produced)
        && produced.records_per_s < RATE_REACHED * rate
    {
        let reached = 100.0 * produced.records_per_s / rate;
        remarks.push(format!("the rate was not kept up: {reached:.1} % of it was acknowledged"));
    }
    if plan.verify {
        remarks.push(
            "every record was stamped and hashed here, which takes time from what is measured".to_owned(),
        );
    }
    if summary.server.is_none() {
        remarks.push(if broker.own || plan.server_pid.is_some() {
            "CPU time and memory of the broker: not measured; the run was too short, or there is no /proc"
                .to_owned()
        } else {
            "CPU time and memory of the broker: not measured; where it runs on this machine, name it with \
             --server-pid"
                .to_owned()
        });
    }
    remarks
}

fn ceiling(plan: &Plan, broker: &[Figures], bare: &[Figures], disk: &[(Manner, Vec<Written>)]) -> Ceiling {
    let records_per_s = |figures: &Figures| figures.main_flow().map(|flow| flow.records_per_s);
    let share = |limits: Vec<Option<f64>>| {
        let shares = broker.iter().map(records_per_s).zip(limits);
        Share::of(&shares.filter_map(|(broker, limit)| Some(broker? / limit?)).collect::<Vec<_>>())
    };
    let mut limits = Vec::new();
    if let Some(summary) = Figures::summary(bare) {
        limits.push(Limit {
            name: "bare gRPC service".to_owned(),
            flow: summary.main_flow(),
            share: share(bare.iter().map(records_per_s).collect()),
            latency: summary.acknowledgement,
            server: summary.server,
        });
    }
    for (manner, rounds) in disk {
        let flows: Vec<_> = rounds.iter().map(|written| Flow::of((written.count, written.seconds))).collect();
        let mut latencies = latency::empty();
        for written in rounds {
            latency::merge(&mut latencies, &written.latencies);
        }
        limits.push(Limit {
            name: manner.to_string(),
            share: share(flows.iter().map(|flow| flow.map(|flow| flow.records_per_s)).collect()),
            flow: Flow::summary(&flows.into_iter().flatten().collect::<Vec<_>>()),
            latency: Percentiles::of(&latencies),
            server: None,
        });
    }
    // Where requests queue behind each other, a latency says how many there are.
    let alone = plan.unary || plan.rate_records_per_s.is_some();
    let each = disk.iter().find(|(manner, _)| *manner == SYNC_EACH).filter(|_| alone);
    Ceiling { limits, latency_ratios: each.and_then(|(_, rounds)| latency_ratios(broker, bare, rounds)) }
}

fn latency_ratios(broker: &[Figures], bare: &[Figures], disk: &[Written]) -> Option<LatencyRatios> {
    let at = |quantile: f64| {
        let ratio = |((broker, bare), disk): ((&Figures, &Figures), &Written)| {
            let of = |figures: &Figures| figures.latencies.acknowledgement.value_at_quantile(quantile) as f64;
            of(broker) / (of(bare) + disk.latencies.value_at_quantile(quantile) as f64)
        };
        median(broker.iter().zip(bare).zip(disk).map(ratio))
    };
    Some(LatencyRatios { p50: at(0.5)?, p99: at(0.99)?, p99_9: at(0.999)? })
}

//! A whole run: the broker to measure, the rounds in turns with those of the limits, and what they come to together.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::spawn_blocking;

use super::args::{Compression, Mode, Workload};
use super::ceiling::Ceiling;
use super::cold;
use super::contender::Contender;
use super::course::Course;
use super::directory::{Directory, FileSystem};
use super::disk::{self, Manner};
use super::hosted::Hosted;
use super::interrupt::Interrupt;
use super::live::Live;
use super::machine::Machine;
use super::meter::Count;
use super::outcome::{Broker, Figures, Flow, Outcome};
use super::own::Own;
use super::payload::{Parcel, Payload};
use super::plan::{Plan, Stop, WARM_ALONE};
use super::process::Process;
use super::round::{self, Backlog, DISK_RESERVE_BYTES, Played, Stage, Subject};
use super::schedule::Schedule;
use crate::cli::connection;
use crate::cli::failure::Failure;

/// A share of the asked rate below which it is told.
const RATE_REACHED: f64 = 0.98;
/// What warm readers read.
const WARM_BYTES: u64 = 16 << 20;

/// Runs the plan, against the broker at `server` or one of its own.
///
/// # Errors
/// The first failure: there are no figures then.
pub(super) async fn run(plan: Plan, server: Option<&str>, interrupt: &Interrupt) -> Result<Outcome, Failure> {
    let run = Box::pin(whole(plan, server, interrupt));
    match server {
        // What is interrupted in it deletes its topics itself.
        Some(_) => run.await,
        // Dropped, it takes its broker and everything else with it.
        None => interrupt.or(run).await,
    }
}

async fn whole(plan: Plan, server: Option<&str>, interrupt: &Interrupt) -> Result<Outcome, Failure> {
    let started_at = now();
    raise_descriptor_limit();
    let payload = Payload::prepare(&plan)?;
    let mut measured = Measured::of(&plan, server)?;
    let stage = Stage { plan: Arc::new(plan), payload, live: Live::new(), interrupt: interrupt.clone() };
    stage.live.begin("broker");
    if let Measured::Own(own) = &mut measured {
        own.start().await?;
    }
    let bare = if stage.plan.ceiling { Some(Hosted::bare().await?) } else { None };
    let broker = interrupt.or(describe(&measured)).await?;
    let mut turns = Turns::prepare(&stage, measured, bare).await?;
    let played = turns.play().await;
    let mut notes = turns.end().await;
    let mut rounds = Vec::new();
    let mut verified = 0;
    for (contender, played) in played? {
        if contender == Contender::Broker {
            notes.extend(played.iter().flat_map(|played| played.notes.clone()));
            verified = played.iter().map(|played| played.verified_records).sum();
        }
        rounds.push((contender, played.into_iter().map(|played| played.figures).collect::<Vec<_>>()));
    }
    let plan = &*stage.plan;
    let own = rounds.first().map(|(_, figures)| figures.clone()).unwrap_or_default();
    let summary = Figures::summary(&own).ok_or_else(|| Failure::Failed("no round was played".to_owned()))?;
    notes.extend(remarks(plan, &summary, &broker));
    let packed = plan.mode == Mode::Batches && plan.compression != Compression::None;
    Ok(Outcome {
        version: env!("CARGO_PKG_VERSION"),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        started_at,
        machine: Machine::own(),
        ceiling: plan.ceiling.then(|| Ceiling::of(plan, &rounds)),
        broker,
        plan: plan.clone(),
        compression_ratio: packed.then(|| stage.payload.compression_ratio(plan)),
        summary,
        rounds: own,
        verified_records: plan.verify.then_some(verified),
        notes,
    })
}

/// RFC 3339.
pub(super) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Every producer and consumer has a connection.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where it may not be raised, too many connections tell so themselves.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// The broker that is measured.
enum Measured {
    Own(Own),
    /// One that ran before, and will after.
    External {
        url: String,
        process: Option<Process>,
    },
}

impl Measured {
    fn of(plan: &Plan, server: Option<&str>) -> Result<Self, Failure> {
        Ok(match server {
            None => Self::Own(Own::make(plan.dir.as_deref(), plan.config.as_deref())?),
            Some(url) => Self::External { url: url.to_owned(), process: plan.server_pid.map(Process::Id) },
        })
    }

    fn subject(&self) -> Result<Subject<'_>, Failure> {
        match self {
            Self::Own(own) => own.subject(),
            Self::External { url, process } => Ok(Subject { url, process: *process, directory: None }),
        }
    }

    fn directory(&self) -> Option<&Directory> {
        match self {
            Self::Own(own) => Some(&own.directory),
            Self::External { .. } => None,
        }
    }
}

/// What takes turns, with what it needs.
struct Turns<'a> {
    stage: &'a Stage,
    measured: Measured,
    bare: Option<Hosted>,
    backlog: Option<Backlog>,
    bare_backlog: Option<Backlog>,
    /// Of warm readers.
    warm: Option<Backlog>,
    /// What plain files are written with.
    batches: Arc<[(Bytes, u32)]>,
}

impl<'a> Turns<'a> {
    async fn prepare(stage: &'a Stage, measured: Measured, bare: Option<Hosted>) -> Result<Self, Failure> {
        let plan = &stage.plan;
        let mut turns = Self {
            stage,
            measured,
            bare,
            backlog: None,
            bare_backlog: None,
            warm: None,
            batches: if plan.ceiling && plan.workload.produces() { encoded(plan)? } else { Arc::default() },
        };
        let broker = turns.measured.subject()?;
        if plan.workload.catches_up() {
            turns.backlog = Some(round::write_backlog(stage, plan, broker, "backlog").await?);
            if let Some(bare) = turns.bare.as_ref().map(bare_subject) {
                turns.bare_backlog = Some(round::write_backlog(stage, plan, bare, "backlog").await?);
            }
        }
        if plan.warm_readers > 0 {
            let plan = Plan { topics: 1, partitions: 1, backlog_bytes: Some(WARM_BYTES), ..(**plan).clone() };
            turns.warm = Some(round::write_backlog(stage, &plan, broker, "warm").await?);
        }
        Ok(turns)
    }

    /// Everyone is first in turn, so that nobody always comes after the same.
    async fn play(&mut self) -> Result<Vec<(Contender, Vec<Played>)>, Failure> {
        let rounds = self.stage.plan.rounds as usize;
        let mut played: Vec<_> =
            Contender::of(&self.stage.plan).into_iter().map(|contender| (contender, Vec::new())).collect();
        let contenders = played.len();
        for number in 0..rounds {
            for turn in 0..contenders {
                let Some((contender, played)) = played.get_mut((turn + number) % contenders) else {
                    continue;
                };
                let title = match rounds {
                    1 => contender.name(),
                    rounds => format!("{} {}/{rounds}", contender.name(), number + 1),
                };
                if self.measured.directory().is_some() {
                    // What was written before is not to be paid for by what comes now. If the thread dies, there was no
                    // sync.
                    let _ = spawn_blocking(rustix::fs::sync).await;
                }
                played.push(self.turn(*contender, &title).await?);
            }
        }
        Ok(played)
    }

    async fn turn(&mut self, contender: Contender, title: &str) -> Result<Played, Failure> {
        let stage = self.stage;
        let plan = &stage.plan;
        let figures = match contender {
            Contender::Broker => {
                if plan.cold {
                    stage.live.begin("starting again, cold");
                    self.go_cold().await?;
                }
                self.start_broker().await?;
                let old = (self.backlog.as_ref(), self.warm.as_ref());
                return round::play(stage, plan, self.measured.subject()?, old, title).await;
            }
            Contender::Service => {
                let subject = self.bare.as_ref().map(bare_subject);
                let subject = subject.ok_or_else(|| Failure::Failed("no bare service runs".to_owned()))?;
                let old = (self.bare_backlog.as_ref(), None);
                round::play(stage, plan, subject, old, title).await?.figures
            }
            Contender::OnePartition => {
                let plan = Arc::new(Plan { topics: 1, partitions: 1, ..(**plan).clone() });
                round::play(stage, &plan, self.measured.subject()?, (None, None), title).await?.figures
            }
            Contender::WarmAlone => {
                let plan = Arc::new(Plan {
                    workload: Workload::Earliest,
                    consumers: 0,
                    cold: false,
                    stop: Stop::After(WARM_ALONE),
                    total_records: None,
                    ..(**plan).clone()
                });
                self.start_broker().await?;
                let old = (None, self.warm.as_ref());
                round::play(stage, &plan, self.measured.subject()?, old, title).await?.figures
            }
            Contender::Writes(manner) => {
                stage.live.begin(title);
                self.write(manner).await?
            }
            Contender::Reads => {
                stage.live.begin(title);
                self.read().await?
            }
        };
        Ok(Played { figures, verified_records: 0, notes: Vec::new() })
    }

    /// A cold round may have ended it.
    async fn start_broker(&mut self) -> Result<(), Failure> {
        match &mut self.measured {
            Measured::Own(own) => own.start().await.map(|_| ()),
            Measured::External { .. } => Ok(()),
        }
    }

    /// Ends the broker, which has its files mapped, and takes them out of the page cache. Returns those of the backlog.
    async fn go_cold(&mut self) -> Result<Vec<PathBuf>, Failure> {
        let Measured::Own(own) = &mut self.measured else { return Ok(Vec::new()) };
        own.stop().await?;
        let data_dir = own.data_dir();
        let dropped = blocking(move || {
            let files = cold::files_below(&data_dir)?;
            cold::drop_caches(&files)?;
            Ok(files)
        });
        let files = dropped.await?;
        let is_backlogs = |path: &PathBuf| {
            let directory = path.parent().and_then(|parent| parent.file_name()?.to_str());
            let kept = directory.zip(self.backlog.as_ref());
            path.extension().is_some_and(|extension| extension == "log")
                && kept.is_some_and(|(directory, backlog)| backlog.is_kept_in(directory))
        };
        Ok(files.into_iter().filter(is_backlogs).collect())
    }

    /// One pass of a plain loop through the backlog's files.
    async fn read(&mut self) -> Result<Figures, Failure> {
        let files = self.go_cold().await?;
        let (bytes, seconds) = blocking(move || cold::read(&files)).await?;
        let count = Count { records: self.stage.plan.backlog_records(), bytes };
        Ok(Figures::of_loop((None, Flow::of((count, seconds))), super::latency::empty()))
    }

    async fn write(&self, manner: Manner) -> Result<Figures, Failure> {
        let Some(directory) = self.measured.directory() else {
            return Err(Failure::Failed("no directory for plain files".to_owned()));
        };
        let plan = &self.stage.plan;
        let limit = directory.free_bytes().unwrap_or(u64::MAX).saturating_sub(DISK_RESERVE_BYTES);
        let (path, batches) = (directory.path().to_owned(), Arc::clone(&self.batches));
        let (warm_up, stop) = (plan.warm_up, plan.stop);
        let schedule = plan.rate_records_per_s.map_or_else(Schedule::flat_out, |rate| {
            Schedule::at_rate(rate / f64::from(plan.batch_records), 0, 1)
        });
        let written = blocking(move || {
            disk::write(&path, manner, &batches, &Course::begin(warm_up, stop), schedule, limit)
        });
        let written = written.await?;
        Ok(Figures::of_loop((Flow::of((written.count, written.seconds)), None), written.latencies))
    }

    /// Ends what runs. Returns what has to be known of that.
    async fn end(self) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |ended: Result<(), Failure>| {
            // The figures are there all the same.
            if let Err(failure) = ended {
                notes.push(failure.to_string());
            }
        };
        match self.measured {
            // It takes its topics with it.
            Measured::Own(mut own) => note(own.stop().await),
            Measured::External { url, .. } => {
                if let Some(backlog) = &self.backlog {
                    note(self.stage.interrupt.tidy(backlog.delete(&url)).await);
                }
            }
        }
        if let Some(bare) = self.bare {
            note(bare.stop().await);
        }
        notes
    }
}

fn bare_subject(bare: &Hosted) -> Subject<'_> {
    Subject { url: &bare.url, process: Some(Process::Id(bare.id())), directory: None }
}

/// Does what may wait for the disk on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let done = spawn_blocking(work).await;
    let done = done.map_err(|error| Failure::Failed(format!("a loop over plain files died: {error}")))?;
    done.map_err(|error| Failure::io("a loop over plain files failed", error))
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

async fn describe(measured: &Measured) -> Result<Broker, Failure> {
    let subject = measured.subject()?;
    let client = connection::connect(subject.url).await?;
    let info = client.admin().describe_broker().await?;
    Ok(Broker {
        url: subject.url.to_owned(),
        version: Some(info.version),
        own: measured.directory().is_some(),
        data_dir: subject.directory.map(|directory| directory.path().display().to_string()),
        file_system: subject.directory.and_then(|directory| directory.file_system.clone()),
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
    if let (Some(server), Some(client)) = (summary.server, summary.client)
        && client.cpu_s > server.cpu_s
    {
        remarks.push(
            "this side took more CPU time than the broker: it may be what limits the throughput".to_owned(),
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

//! `sagwan bench idle`: what partitions cost that nobody uses. Memory and the time of a clean start, beside a loop that
//! opens and stats the same files.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::IdleArgs;
use super::ceiling::Share;
use super::cold;
use super::directory::FileSystem;
use super::interrupt::Interrupt;
use super::live::Live;
use super::machine::Machine;
use super::outcome::median;
use super::own::Own;
use super::payload::Payload;
use super::plan::Plan;
use super::process::Usage;
use super::round::{self, Stage};
use super::session::{blocking, now};
use super::table;
use super::units;
use crate::cli::failure::Failure;
use crate::cli::output;

/// How long a broker is left alone before its memory is read.
const AT_REST: Duration = Duration::from_secs(1);
/// Of the one record that each partition has.
const RECORD_BYTES: u32 = 100;

/// What came of it. Times in seconds.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Idle {
    version: &'static str,
    started_at: String,
    machine: Machine,
    file_system: Option<FileSystem>,
    partitions: u32,
    /// In the data directory.
    files: usize,
    /// When the partitions had been made and each had got its record.
    created: Memory,
    /// After each clean start.
    rounds: Vec<Round>,
    /// The medians of the rounds.
    pub(super) resident_bytes: Option<Share>,
    /// How many times as long as the loop a start takes.
    pub(super) start_ratio: Option<Share>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Memory {
    resident_bytes: u64,
    /// Of it, what is no file's.
    anonymous_bytes: u64,
}

impl Memory {
    fn of(usage: Usage) -> Self {
        Self { resident_bytes: usage.resident_bytes, anonymous_bytes: usage.anonymous_bytes }
    }
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Round {
    /// From before there was a process until it served.
    start_s: f64,
    /// Of a loop on one thread that opens what a start opens, and stats what it stats.
    open_and_stat_s: f64,
    memory: Memory,
}

/// Measures, and prints what came of it.
pub(super) async fn print(args: IdleArgs) -> Result<(), Failure> {
    let idle = run(&args, &Interrupt::listen()?).await?;
    output::print(args.output.output, &idle, render)
}

/// Measures.
///
/// # Errors
/// The first failure.
pub(super) async fn run(args: &IdleArgs, interrupt: &Interrupt) -> Result<Idle, Failure> {
    // Dropped, it takes its broker and its directory with it.
    interrupt.or(Box::pin(whole(args, interrupt))).await
}

async fn whole(args: &IdleArgs, interrupt: &Interrupt) -> Result<Idle, Failure> {
    let started_at = now();
    let backlog_bytes = RECORD_BYTES * args.partitions;
    let plan = Plan::of_line(&format!(
        "earliest --partitions {} --record-size {RECORD_BYTES} --batch-records 1 --backlog {backlog_bytes}",
        args.partitions
    ))?;
    let mut own = Own::make(args.own.dir.as_deref(), args.own.config.as_deref())?;
    let payload = Payload::prepare(&plan)?;
    let stage = Stage { plan: Arc::new(plan), payload, live: Live::new(), interrupt: interrupt.clone() };
    own.start().await?;
    round::write_backlog(&stage, &stage.plan, own.subject()?, "idle").await?;
    let created = at_rest(&own).await?;
    let mut rounds = Vec::new();
    let mut files = Vec::new();
    for number in 1..=args.rounds {
        stage.live.begin(&format!("start {number}/{}", args.rounds));
        own.stop().await?;
        let data_dir = own.data_dir();
        files = blocking(move || cold::files_below(&data_dir)).await?;
        let opened = files.clone();
        let open_and_stat_s = blocking(move || open_and_stat(&opened)).await?;
        let start_s = own.start().await?.as_secs_f64();
        rounds.push(Round { start_s, open_and_stat_s, memory: at_rest(&own).await? });
    }
    own.stop().await?;
    let share = |of: fn(&Round) -> f64| Share::of(&rounds.iter().map(of).collect::<Vec<_>>());
    Ok(Idle {
        version: env!("CARGO_PKG_VERSION"),
        started_at,
        machine: Machine::own(),
        file_system: own.directory.file_system.clone(),
        partitions: args.partitions,
        files: files.len(),
        created,
        resident_bytes: share(|round| round.memory.resident_bytes as f64),
        start_ratio: share(|round| round.start_s / round.open_and_stat_s),
        rounds,
    })
}

async fn at_rest(own: &Own) -> Result<Memory, Failure> {
    tokio::time::sleep(AT_REST).await;
    let usage = own.subject()?.process.and_then(super::process::Process::usage);
    let usage = usage.ok_or_else(|| {
        Failure::CannotRun("the memory of a process can be measured only where there is /proc".to_owned())
    })?;
    Ok(Memory::of(usage))
}

/// Does with each file what a clean start does: it asks how long logs and time indexes are, and opens all else. The names
/// are known already. Returns how many seconds that took.
fn open_and_stat(files: &[PathBuf]) -> io::Result<f64> {
    let began = Instant::now();
    for path in files {
        let is_never_opened = path.extension().is_some_and(|found| found == "log" || found == "timeindex");
        let size =
            if is_never_opened { fs::metadata(path)?.len() } else { File::open(path)?.metadata()?.len() };
        std::hint::black_box(size);
    }
    Ok(began.elapsed().as_secs_f64())
}

fn render(idle: &Idle) -> String {
    let of = |value: fn(&Round) -> f64| median(idle.rounds.iter().map(value)).unwrap_or_default();
    let ms = |seconds: f64| units::time((seconds * 1e9) as u64);
    let row = |name: &str, memory: Memory| {
        [name.to_owned(), output::size(memory.resident_bytes), output::size(memory.anonymous_bytes)]
    };
    let started = Memory {
        resident_bytes: of(|round| round.memory.resident_bytes as f64) as u64,
        anonymous_bytes: of(|round| round.memory.anonymous_bytes as f64) as u64,
    };
    let memory = output::table(
        ["MEMORY", "RESIDENT", "OF IT NOT FILES"],
        [row("when all had been made", idle.created), row("after a clean start", started)],
    );
    let start = output::table(
        ["CLEAN START", "TIME"],
        [
            ["the broker, until it serves".to_owned(), ms(of(|round| round.start_s))],
            [
                format!("a loop that opens and stats the same {} files", idle.files),
                ms(of(|round| round.open_and_stat_s)),
            ],
            ["times as long".to_owned(), idle.start_ratio.map_or_else(|| "-".to_owned(), table::share)],
        ],
    );
    let rounds = idle.rounds.len();
    format!(
        "idle: {} partitions with one record each; medians of {rounds} rounds\nsagwan {} on {}\n\n{memory}\n\n{start}",
        output::thousands(idle.partitions.into()),
        idle.version,
        idle.machine.describe()
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_loop_opens_what_a_start_opens_and_no_log() {
        let dir = tempfile::tempdir().expect("a directory");
        // A socket has a size, and cannot be opened.
        let made = ["0.log", "0.timeindex", "topic-id"].map(|name| {
            let path = dir.path().join(name);
            UnixListener::bind(&path).expect("a socket");
            path
        });
        let [log, time_index, topic_id] = made;
        assert!(open_and_stat(&[log, time_index]).is_ok_and(|seconds| seconds > 0.0));
        assert!(open_and_stat(&[topic_id]).is_err());
    }

    #[test]
    fn the_table_has_memory_and_the_ratio_of_times() {
        let memory = Memory { resident_bytes: 64 << 20, anonymous_bytes: 32 << 20 };
        let idle = Idle {
            version: "1.2.3",
            started_at: String::new(),
            machine: Machine::own(),
            file_system: None,
            partitions: 1_000,
            files: 5_000,
            created: memory,
            rounds: vec![Round { start_s: 0.3, open_and_stat_s: 0.1, memory }],
            resident_bytes: None,
            start_ratio: Share::of(&[3.0]),
        };
        let text = render(&idle);
        for line in ["after a clean start     64.0 MiB  32.0 MiB", "5000 files", "3.00 (3.00 to 3.00)"] {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
    }
}

//! The plan of a run: what the options come to, checked against each other once, before anything starts.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::args::{BenchArgs, Compression, Content, Durability, Mode, Workload};
use super::ledger::STAMP_BYTES;
use super::units::{self, Amount};
use crate::cli::failure::Failure;
use crate::record::{BatchBuilder, BatchOptions};

const DEFAULT_BATCH_BYTES: u64 = 64 << 10;
const DEFAULT_IN_FLIGHT: u32 = 32;
const DEFAULT_BACKLOG_BYTES: u64 = 1 << 30;
const DEFAULT_LINGER: Duration = Duration::from_millis(5);
/// The largest batch that a broker takes by default is 16 MiB, whatever a topic says; a message has some more.
const MAX_BATCH_BYTES: u64 = 15 << 20;
/// Connections of one run. A broker has 4,096 by default.
const MAX_WORKERS: u32 = 2_000;
const MAX_PLACES: u64 = 10_000;
const MAX_IN_FLIGHT: u32 = 65_536;
const MAX_ROUNDS: u32 = 1_000;
/// The smallest steady part: below it, the figures are of the start.
const MIN_DURATION: Duration = Duration::from_millis(100);
const MAX_FETCH_BYTES: u64 = 1 << 30;
/// What a warm reader asks for, and how often: enough to tell percentiles, and little beside a reader at full speed.
pub(super) const WARM_FETCH_BYTES: i32 = 64 << 10;
pub(super) const WARM_FETCHES_PER_S: f64 = 200.0;
/// How long they read where there is no cold reader.
pub(super) const WARM_ALONE: Duration = Duration::from_secs(5);

/// When the steady part ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Stop {
    After(Duration),
    /// Once so many records were begun.
    Records(u64),
}

/// What a run does.
#[derive(Debug, Clone, Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own, and any of them may be given"
)]
pub(super) struct Plan {
    pub(super) workload: Workload,
    /// In `earliest`, those that write the backlog.
    pub(super) producers: u32,
    pub(super) consumers: u32,
    pub(super) topics: u32,
    /// Of each topic.
    pub(super) partitions: u32,
    pub(super) record_bytes_min: u32,
    pub(super) record_bytes_max: u32,
    pub(super) content: Content,
    pub(super) batch_records: u32,
    /// Before compression, and about.
    pub(super) batch_bytes: u64,
    pub(super) mode: Mode,
    pub(super) unary: bool,
    pub(super) compression: Compression,
    pub(super) durability: Durability,
    pub(super) in_flight: u32,
    /// Of the Rust client.
    pub(super) linger_ms: Option<f64>,
    /// Of all producers; absent: flat out.
    pub(super) rate_records_per_s: Option<f64>,
    pub(super) backlog_bytes: Option<u64>,
    pub(super) fetch_bytes: u64,
    /// The backlog is read from the disk.
    pub(super) cold: bool,
    /// Beside those that read it.
    pub(super) warm_readers: u32,
    pub(super) duration_s: Option<f64>,
    pub(super) total_records: Option<u64>,
    pub(super) warm_up_s: f64,
    pub(super) rounds: u32,
    pub(super) verify: bool,
    pub(super) ceiling: bool,
    #[serde(skip)]
    pub(super) dir: Option<PathBuf>,
    #[serde(skip)]
    pub(super) config: Option<PathBuf>,
    pub(super) server_pid: Option<u32>,
    #[serde(skip)]
    pub(super) stop: Stop,
    #[serde(skip)]
    pub(super) warm_up: Duration,
    #[serde(skip)]
    pub(super) linger: Duration,
}

impl Plan {
    /// What `args` come to; `external`: for a broker that runs already.
    ///
    /// # Errors
    /// [`Failure::CannotRun`] names the options that make no sense together.
    pub(super) fn check(args: &BenchArgs, external: bool) -> Result<Self, Failure> {
        check_together(args, external).map_err(Failure::CannotRun)?;
        let mean_bytes = u32::midpoint(args.record_size.min, args.record_size.max);
        let batch_records = match args.batch_records {
            Some(records) => records,
            None => records_in(args.batch_bytes.unwrap_or(DEFAULT_BATCH_BYTES), mean_bytes),
        };
        let batch_bytes = u64::from(batch_records) * encoded_bytes(args.record_size.max);
        let in_flight = args.in_flight.unwrap_or_else(|| {
            // A rate is kept only by who may have several under way while one takes long. Calls side by side come in any
            // order, in which there is nothing to verify.
            let alone = args.unary && (args.rate.is_none() || args.verify);
            if alone { 1 } else { DEFAULT_IN_FLIGHT }
        });
        let records = |amount: Amount| match amount {
            Amount::Records(records) => records,
            Amount::Bytes(bytes) => bytes / f64::from(mean_bytes),
        };
        let stop = match (args.total, args.duration) {
            (Some(total), _) => Stop::Records((records(total) as u64).max(1)),
            (None, Some(duration)) => Stop::After(duration),
            (None, None) => Stop::After(Duration::from_secs(if args.ceiling { 3 } else { 10 })),
        };
        let warm_up = args.warm_up.unwrap_or(Duration::from_secs(if args.ceiling { 1 } else { 2 }));
        // What has been read once is not cold any more.
        let (stop, warm_up) = if args.cold {
            let backlog_bytes = args.backlog.unwrap_or(DEFAULT_BACKLOG_BYTES);
            (Stop::Records(backlog_records(backlog_bytes, mean_bytes)), Duration::ZERO)
        } else {
            (stop, warm_up)
        };
        let linger = args.linger.unwrap_or(DEFAULT_LINGER);
        let plan = Self {
            workload: args.workload,
            producers: args.producers.unwrap_or(1),
            consumers: if args.workload == Workload::Produce { 0 } else { args.consumers.unwrap_or(1) },
            topics: args.topics,
            partitions: args.partitions,
            record_bytes_min: args.record_size.min,
            record_bytes_max: args.record_size.max,
            content: args.content,
            batch_records,
            batch_bytes,
            mode: args.mode,
            unary: args.unary,
            compression: args.compression,
            durability: args.durability,
            in_flight,
            linger_ms: (args.mode == Mode::Client).then_some(linger.as_secs_f64() * 1e3),
            rate_records_per_s: args.rate.map(records),
            backlog_bytes: args.workload.catches_up().then(|| args.backlog.unwrap_or(DEFAULT_BACKLOG_BYTES)),
            fetch_bytes: args.fetch_bytes,
            cold: args.cold,
            warm_readers: args.warm_readers,
            duration_s: match stop {
                Stop::After(duration) => Some(duration.as_secs_f64()),
                Stop::Records(_) => None,
            },
            total_records: match stop {
                Stop::After(_) => None,
                Stop::Records(records) => Some(records),
            },
            warm_up_s: warm_up.as_secs_f64(),
            rounds: args.rounds.unwrap_or(if args.ceiling { 5 } else { 1 }),
            verify: args.verify,
            ceiling: args.ceiling,
            dir: args.own.dir.clone(),
            config: args.own.config.clone(),
            server_pid: args.server_pid,
            stop,
            warm_up,
            linger,
        };
        plan.check_ranges().map_err(Failure::CannotRun)?;
        Ok(plan)
    }

    /// As [`check`](Self::check), of a command line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn of_line(line: &str) -> Result<Self, Failure> {
        Self::check(&BenchArgs::of_line(line).map_err(Failure::CannotRun)?, false)
    }

    /// The mean size of a value.
    pub(super) fn record_bytes(&self) -> u32 {
        u32::midpoint(self.record_bytes_min, self.record_bytes_max)
    }

    /// Partitions of all topics.
    pub(super) fn places(&self) -> usize {
        self.topics as usize * self.partitions as usize
    }

    /// How many records a backlog has.
    pub(super) fn backlog_records(&self) -> u64 {
        backlog_records(self.backlog_bytes.unwrap_or_default(), self.record_bytes())
    }

    fn check_ranges(&self) -> Result<(), String> {
        let range = |name: &str, value: u64, max: u64| {
            if (1..=max).contains(&value) {
                Ok(())
            } else {
                Err(format!("{name} {value}: use a number from 1 to {max}"))
            }
        };
        range("--producers", self.producers.into(), MAX_WORKERS.into())?;
        if self.workload != Workload::Produce {
            range("--consumers", self.consumers.into(), MAX_WORKERS.into())?;
        }
        range("--topics", self.topics.into(), MAX_PLACES)?;
        range("partitions in all", u64::from(self.topics) * u64::from(self.partitions), MAX_PLACES)?;
        range("--in-flight", self.in_flight.into(), MAX_IN_FLIGHT.into())?;
        range("--rounds", self.rounds.into(), MAX_ROUNDS.into())?;
        if self.warm_readers > 0 {
            range("--warm-readers", self.warm_readers.into(), MAX_WORKERS.into())?;
        }
        range("--fetch-bytes", self.fetch_bytes, MAX_FETCH_BYTES)?;
        range("--batch-records", self.batch_records.into(), i32::MAX as u64)?;
        if self.batch_bytes > MAX_BATCH_BYTES {
            return Err(format!(
                "a batch of {} records of up to {} bytes has {} bytes: at most {MAX_BATCH_BYTES} are possible",
                self.batch_records, self.record_bytes_max, self.batch_bytes
            ));
        }
        match self.stop {
            Stop::After(duration) if duration < MIN_DURATION => {
                Err("--duration: use at least 100ms".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// One line on what is sent and read.
    pub(super) fn describe_load(&self) -> String {
        let sizes = match (self.record_bytes_min, self.record_bytes_max) {
            (min, max) if min == max => format!("{min} B"),
            (min, max) => format!("{min} to {max} B"),
        };
        let content = match self.content {
            Content::Random => "random",
            Content::Text => "text",
        };
        let rate = match self.rate_records_per_s {
            Some(rate) => format!("{rate:.0} records/s"),
            None => "flat out".to_owned(),
        };
        let call = if self.unary { "unary" } else { "streamed" };
        format!(
            "records of {sizes} ({content}), {} to a request, as {}, {call}, {} in flight, compression {}, {rate}",
            self.batch_records,
            self.mode.name(),
            self.in_flight,
            self.compression.codec().name()
        )
    }

    /// One line on who sends and reads, and where.
    pub(super) fn describe_cast(&self) -> String {
        let count =
            |number: u32, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
        let mut cast = Vec::new();
        if self.workload.produces() {
            cast.push(count(self.producers, "producer"));
        }
        if self.workload != Workload::Produce {
            let twice = if self.workload == Workload::Both { "2 x " } else { "" };
            cast.push(format!("{twice}{}", count(self.consumers, "consumer")));
        }
        cast.push(format!("{} with {}", count(self.topics, "topic"), count(self.partitions, "partition")));
        if let Some(bytes) = self.backlog_bytes {
            let cold = if self.cold { "cold " } else { "" };
            cast.push(format!("a {cold}backlog of {} MB", units::megabytes(bytes as f64)));
        }
        if self.warm_readers > 0 {
            cast.push(count(self.warm_readers, "warm reader"));
        }
        format!("{}, durability {}", cast.join(", "), self.durability.name())
    }
}

fn backlog_records(backlog_bytes: u64, record_bytes: u32) -> u64 {
    (backlog_bytes / u64::from(record_bytes)).max(1)
}

/// Options that contradict each other, or the workload.
fn check_together(args: &BenchArgs, external: bool) -> Result<(), String> {
    let name = args.workload.name();
    let refuse = |given: bool, message: String| if given { Err(message) } else { Ok(()) };
    refuse(
        args.workload == Workload::Produce && args.consumers.is_some(),
        "--consumers: produce has none; use follow".to_owned(),
    )?;
    refuse(
        args.workload == Workload::Earliest && args.rate.is_some(),
        "--rate: earliest reads as fast as it can; a rate is for what is produced".to_owned(),
    )?;
    refuse(
        !args.workload.catches_up() && args.backlog.is_some(),
        format!("--backlog: {name} reads none; use earliest or both"),
    )?;
    refuse(
        args.cold && args.workload != Workload::Earliest,
        format!("--cold: {name} reads what is in memory; use earliest"),
    )?;
    refuse(
        args.cold && external,
        "--cold: it starts the broker again and again, so it measures one of its own; leave --server out"
            .to_owned(),
    )?;
    refuse(
        args.warm_readers > 0 && !args.cold,
        "--warm-readers read beside a cold reader: add --cold".to_owned(),
    )?;
    refuse(
        args.mode == Mode::Client && args.unary,
        "--unary: the Rust client has one stream; use --mode batches or records".to_owned(),
    )?;
    refuse(
        args.mode != Mode::Client && args.linger.is_some(),
        "--linger is the Rust client's: use --mode client".to_owned(),
    )?;
    refuse(
        args.verify && args.record_size.min < STAMP_BYTES as u32,
        format!(
            "--verify: a record needs {STAMP_BYTES} bytes to be told from others; use a larger --record-size"
        ),
    )?;
    refuse(
        args.verify && args.unary && args.in_flight.is_some_and(|requests| requests > 1),
        "--verify: calls side by side come in any order; use --in-flight 1, or leave --unary out".to_owned(),
    )?;
    refuse(
        args.ceiling && args.workload.follows(),
        format!(
            "--ceiling: a bare service has no log to follow, so {name} has none; use produce or earliest"
        ),
    )?;
    refuse(
        args.ceiling && args.verify,
        "--ceiling: what keeps nothing cannot be verified; use one run for each".to_owned(),
    )?;
    refuse(
        args.ceiling && external,
        "--ceiling: its limits are this machine's, so it measures the broker it starts; leave --server out"
            .to_owned(),
    )?;
    refuse(
        external && (args.own.dir.is_some() || args.own.config.is_some()),
        "--dir and --config are for the broker that is started without --server".to_owned(),
    )?;
    refuse(
        !external && args.server_pid.is_some(),
        "--server-pid: without --server, the broker's process is known".to_owned(),
    )
}

/// How many records of `value_bytes` a batch of `batch_bytes` has room for; one at least.
fn records_in(batch_bytes: u64, value_bytes: u32) -> u32 {
    let value = vec![0; value_bytes as usize];
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let mut records = 0;
    loop {
        builder.push(0, None, Some(&value), []);
        if builder.size_bytes() as u64 > batch_bytes {
            return records.max(1);
        }
        records += 1;
    }
}

/// What a record takes in a batch, at most.
fn encoded_bytes(value_bytes: u32) -> u64 {
    // Lengths and deltas: see `BatchBuilder::record_size_upper_bound`.
    u64::from(value_bytes) + 40
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli::bench) fn plan(line: &str, external: bool) -> Result<Plan, String> {
        Plan::check(&BenchArgs::of_line(line)?, external).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_batch_has_as_many_records_as_fit() {
        let plan = plan("", false).expect("the defaults");
        assert!((590..=620).contains(&plan.batch_records), "{}", plan.batch_records);
        let plan = tests::plan("--record-size 1MiB", false).expect("large records");
        assert_eq!(plan.batch_records, 1);
        let plan = tests::plan("--record-size 100-300 --batch-records 7", false).expect("a range");
        assert_eq!((plan.batch_records, plan.record_bytes()), (7, 200));
    }

    #[test]
    fn totals_and_rates_in_bytes_come_to_records() {
        let plan = plan("--record-size 200 --total 2MB --rate 1MB/s", false).expect("valid");
        assert_eq!(plan.stop, Stop::Records(10_000));
        assert_eq!(plan.rate_records_per_s, Some(5_000.0));
    }

    #[test]
    fn options_that_contradict_each_other_are_named() {
        for (line, external, named) in [
            ("produce --consumers 2", false, "--consumers"),
            ("earliest --rate 5", false, "--rate"),
            ("follow --backlog 1GiB", false, "--backlog"),
            ("produce --mode client --unary", false, "--unary"),
            ("produce --linger 1ms", false, "--linger"),
            ("both --cold", false, "--cold"),
            ("earliest --cold", true, "--cold"),
            ("earliest --cold --duration 1s", false, "--duration"),
            ("earliest --warm-readers 1", false, "--warm-readers"),
            ("follow --verify --record-size 4", false, "--verify"),
            ("produce --verify --unary --in-flight 2", false, "--verify"),
            ("follow --ceiling", false, "--ceiling"),
            ("produce --ceiling --verify", false, "--ceiling"),
            ("produce --ceiling", true, "--ceiling"),
            ("produce --dir /tmp", true, "--dir"),
            ("produce --server-pid 1", false, "--server-pid"),
            ("produce --producers 0", false, "--producers"),
            ("follow --consumers 0", false, "--consumers"),
            ("produce --in-flight 0", false, "--in-flight"),
            ("produce --topics 101 --partitions 100", false, "partitions in all"),
            ("produce --record-size 1MiB --batch-records 100", false, "a batch of 100 records"),
            ("produce --duration 1ms", false, "--duration"),
            ("produce --duration 1s --total 5", false, "--total"),
            ("produce --batch-bytes 1 --batch-records 1", false, "--batch-records"),
        ] {
            let error = plan(line, external).expect_err(line);
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}

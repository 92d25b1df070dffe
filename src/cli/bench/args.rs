//! What `sagwan bench` can be told.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, Args, Command, FromArgMatches as _, Subcommand, ValueEnum};
use serde::Serialize;

use super::units::{self, Amount, Sizes};
use crate::cli::connection::SERVER;
use crate::cli::input;
use crate::cli::output::OutputArgs;
use crate::client::Codec;

/// `--server`, which means something else here than with other subcommands.
pub(crate) fn server_arg() -> Arg {
    Arg::new(SERVER)
        .long(SERVER)
        .value_name("URL")
        .env("SAGWAN_SERVER")
        .value_parser(NonEmptyStringValueParser::new())
        .help("The broker to measure, at http://HOST:PORT [default: one that is started for the run]")
        .help_heading("Broker")
}

const EXAMPLES: &str = "\
Without --server, or SAGWAN_SERVER, it starts a broker of its own in a temporary directory, and
measures that.

Examples:
  sagwan bench
  sagwan bench produce --record-size 1KiB --producers 4 --partitions 8
  sagwan bench earliest --backlog 2GiB --consumers 2
  sagwan bench follow --rate 50k --duration 1min --report latency.html
  sagwan bench follow --verify --partitions 6 --consumers 3 --compression zstd
  sagwan bench produce --mode records --unary --batch-records 1 --record-size 1KiB --ceiling
  sagwan bench earliest --cold --backlog 8GiB --warm-readers 1 --ceiling
  sagwan bench both --server http://10.0.0.7:50051 --output json
  sagwan bench idle --partitions 10000
  sagwan bench suite --only 1,3

If you come from another log:
  kafka-producer-perf-test --record-size 100 --throughput 50000
      sagwan bench produce --mode client --record-size 100 --rate 50000
  kafka-consumer-perf-test --messages 10000000
      sagwan bench earliest --mode client --total 10000000
  nats bench js pub orders --size 1KiB --clients 4 --msgs 1000000
      sagwan bench produce --record-size 1KiB --producers 4 --total 1000000

A rate is kept whatever the broker does, and a latency counts from when its request should have
been sent, so that a pause of the broker shows in all requests that it delayed. Sizes take B, kB,
MB, GB, KiB, MiB, GiB; times ms, s, min, h; rates and totals are records unless they have a unit
of bytes.";

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Workload {
    /// Append
    Produce,
    /// Read what is there, from its beginning, again and again
    Earliest,
    /// Append, and read what is appended as it comes
    Follow,
    /// As follow, while as many consumers read a backlog from its beginning
    Both,
}

impl Workload {
    /// Whether anything is appended in the part that is measured.
    pub(super) fn produces(self) -> bool {
        self != Self::Earliest
    }

    /// Whether consumers follow what is appended.
    pub(super) fn follows(self) -> bool {
        matches!(self, Self::Follow | Self::Both)
    }

    /// Whether consumers read a backlog.
    pub(super) fn catches_up(self) -> bool {
        matches!(self, Self::Earliest | Self::Both)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Earliest => "earliest",
            Self::Follow => "follow",
            Self::Both => "both",
        }
    }
}

/// How records travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// Encoded batches over the bare stub: what the broker can do
    Batches,
    /// Records one by one in protobuf, as of a client without a library
    Records,
    /// The Rust client: what a program that uses it gets
    Client,
}

impl Mode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Batches => "encoded batches",
            Self::Records => "protobuf records",
            Self::Client => "the Rust client",
        }
    }
}

/// What records are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Content {
    /// Random bytes, which do not compress
    Random,
    /// Words, which compress
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    pub(super) fn codec(self) -> Codec {
        match self {
            Self::None => Codec::None,
            Self::Gzip => Codec::Gzip,
            Self::Snappy => Codec::Snappy,
            Self::Lz4 => Codec::Lz4,
            Self::Zstd => Codec::Zstd,
        }
    }
}

/// What an acknowledgement waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Durability {
    /// The disk
    Fsync,
    /// The page cache
    Os,
}

impl Durability {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Os => "os",
        }
    }
}

/// For a broker that is started for the run.
#[derive(Debug, Clone, Args)]
pub(super) struct OwnArgs {
    /// Where the broker keeps its data: a new directory is made there, and removed at the end [default: the first of the
    /// temporary directory, /var/tmp and the current directory that is on a disk]
    #[arg(long, value_name = "DIR", help_heading = "Broker")]
    pub(super) dir: Option<PathBuf>,
    /// Its configuration file
    #[arg(long, value_name = "FILE", help_heading = "Broker")]
    pub(super) config: Option<PathBuf>,
}

/// Memory and the time of a clean start with partitions that nobody uses
#[derive(Debug, Clone, Args)]
pub(crate) struct IdleArgs {
    /// Partitions, each with one record
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = input::partition_count)]
    pub(super) partitions: u32,
    /// Start the broker so often
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) rounds: u32,
    #[command(flatten)]
    pub(super) own: OwnArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// The loads that Sagwan is held to, with their targets
#[derive(Debug, Clone, Args)]
pub(crate) struct SuiteArgs {
    /// Only the loads with these numbers
    #[arg(long, value_name = "N,M", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=12))]
    pub(super) only: Vec<u32>,
    /// Three short rounds and small backlogs: to see that it runs, and about where things stand
    #[arg(long)]
    pub(super) quick: bool,
    /// Rounds of each load [default: 5; 3 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) rounds: Option<u32>,
    #[command(flatten)]
    pub(super) own: OwnArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// What is measured in another way.
#[derive(Debug, Subcommand)]
pub(super) enum Special {
    Suite(SuiteArgs),
    Idle(IdleArgs),
}

/// What to measure, and how.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own, and any of them may be given"
)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(super) special: Option<Special>,

    /// What to measure
    #[arg(value_enum, default_value_t = Workload::Follow)]
    pub(super) workload: Workload,

    /// Producers, each with a connection of its own [default: 1]
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub(super) producers: Option<u32>,
    /// Consumers, each with a connection of its own; they share the partitions, or where there are fewer of those,
    /// several read the same [default: 1]
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub(super) consumers: Option<u32>,
    /// Topics
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Load")]
    pub(super) topics: u32,
    /// Partitions of each topic
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = input::partition_count, help_heading = "Load")]
    pub(super) partitions: u32,
    /// Size of a record's value, or a range of sizes
    #[arg(long, value_name = "SIZE|MIN-MAX", default_value = "100", value_parser = units::sizes, help_heading = "Load")]
    pub(super) record_size: Sizes,
    /// What values are made of
    #[arg(long, value_enum, default_value_t = Content::Random, help_heading = "Load")]
    pub(super) content: Content,
    /// Records of a batch, or of a request in records mode
    #[arg(long, value_name = "N", conflicts_with = "batch_bytes", help_heading = "Load")]
    pub(super) batch_records: Option<u32>,
    /// Size of a batch before compression: as many records as fit, at least one [default: 64KiB]
    #[arg(long, value_name = "SIZE", value_parser = units::bytes, help_heading = "Load")]
    pub(super) batch_bytes: Option<u64>,
    /// How records travel. Bytes are counted as encoded with `batches`, of values with the others
    #[arg(long, value_enum, default_value_t = Mode::Batches, help_heading = "Load")]
    pub(super) mode: Mode,
    /// One call for each request, instead of one stream for all
    #[arg(long, help_heading = "Load")]
    pub(super) unary: bool,
    /// How batches are compressed
    #[arg(long, value_enum, default_value_t = Compression::None, help_heading = "Load")]
    pub(super) compression: Compression,
    /// What an acknowledgement waits for
    #[arg(long, value_enum, default_value_t = Durability::Fsync, help_heading = "Load")]
    pub(super) durability: Durability,
    /// Requests of a producer under way at a time [default: 32; 1 with --unary, unless there is a rate]
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub(super) in_flight: Option<u32>,
    /// How long the Rust client waits for a batch to fill [default: 5ms]
    #[arg(long, value_name = "TIME", value_parser = units::duration, help_heading = "Load")]
    pub(super) linger: Option<Duration>,
    /// What all producers together send in a second [default: as much as is taken]
    #[arg(long, value_name = "AMOUNT", value_parser = units::amount, help_heading = "Load")]
    pub(super) rate: Option<Amount>,
    /// What is read from its beginning, in all [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = units::bytes, help_heading = "Load")]
    pub(super) backlog: Option<u64>,
    /// About the largest response of a read
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = units::bytes, help_heading = "Load")]
    pub(super) fetch_bytes: u64,
    /// Read a backlog from the disk: before each round the broker is started again and the page cache of its files dropped;
    /// the round is one pass through the backlog
    #[arg(long, conflicts_with_all = ["duration", "total", "warm_up"], help_heading = "Load")]
    pub(super) cold: bool,
    /// With --cold: readers of a little that is in memory beside the cold one, 200 fetches of 64 KiB a second each
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Load")]
    pub(super) warm_readers: u32,

    /// How long to measure [default: 10s; 3s in each round with --ceiling]
    #[arg(long, value_name = "TIME", value_parser = units::duration, help_heading = "Measuring")]
    pub(super) duration: Option<Duration>,
    /// Measure until so much is done instead
    #[arg(long, value_name = "AMOUNT", value_parser = units::amount, conflicts_with = "duration", help_heading = "Measuring")]
    pub(super) total: Option<Amount>,
    /// Run for so long before, unmeasured [default: 2s; 1s in each round with --ceiling]
    #[arg(long, value_name = "TIME", value_parser = units::duration, help_heading = "Measuring")]
    pub(super) warm_up: Option<Duration>,
    /// Measure so often, and report medians [default: 1; 5 with --ceiling]
    #[arg(long, value_name = "N", help_heading = "Measuring")]
    pub(super) rounds: Option<u32>,
    /// Prove that what is read is what was acknowledged, in order, once. Costs this side's time
    #[arg(long, help_heading = "Measuring")]
    pub(super) verify: bool,
    /// Put the same load on a bare gRPC service that keeps nothing, and write the same bytes to a plain file, in turns with
    /// the broker, and show what share of those limits it reaches
    #[arg(long, help_heading = "Measuring")]
    pub(super) ceiling: bool,

    #[command(flatten)]
    pub(super) own: OwnArgs,
    /// With --server: the process of a broker on this machine, for its CPU time and memory
    #[arg(long, value_name = "PID", conflicts_with_all = ["dir", "config", "ceiling"], help_heading = "Broker")]
    pub(super) server_pid: Option<u32>,

    #[command(flatten)]
    pub(super) output: OutputArgs,
    /// Write a page with charts to this file, too
    #[arg(long, value_name = "FILE.html")]
    pub(super) report: Option<PathBuf>,
}

impl BenchArgs {
    /// What a command line says behind `sagwan bench`.
    ///
    /// # Errors
    /// What clap says of a wrong one.
    pub(super) fn of_line(line: &str) -> Result<Self, String> {
        let words = ["bench"].into_iter().chain(line.split_whitespace());
        let matches = Self::augment_args(Command::new("bench")).try_get_matches_from(words);
        matches.and_then(|matches| Self::from_arg_matches(&matches)).map_err(|error| error.to_string())
    }
}

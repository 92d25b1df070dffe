//! The loads of the suite, each with what is asked of it. Client and server share the machine.

use std::fmt;

use serde::{Serialize, Serializer};

use super::contender::{Contender, SYNC_EACH};
use super::disk::Manner;

/// What a median has to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    pub(super) fn is_reached_by(self, median: f64) -> bool {
        match self {
            Self::AtLeast(least) => median >= least,
            Self::AtMost(most) => median <= most,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, ">= {least}"),
            Self::AtMost(most) => write!(f, "<= {most}"),
        }
    }
}

/// One of the twelve.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) number: u32,
    pub(super) parts: &'static [Part],
}

/// What is measured in one run.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: &'static str,
    /// For `sagwan bench`, without `--ceiling` and `--rounds`.
    pub(super) line: &'static str,
    /// It is at half of the rate that the line reaches, which is that of one caller at a time.
    pub(super) at_half_of_one_caller: bool,
    pub(super) targets: &'static [(Measure, Target)],
}

impl Part {
    const fn of(name: &'static str, line: &'static str, targets: &'static [(Measure, Target)]) -> Self {
        Self { name, line, at_half_of_one_caller: false, targets }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.line.starts_with("idle ")
    }

    pub(super) fn is_cold(&self) -> bool {
        self.line.contains("--cold")
    }
}

/// What is held against what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Measure {
    /// The throughput, by that of a limit.
    Throughput(Contender),
    /// The acknowledgements a second, by those of a limit.
    Acks(Contender),
    /// Percentiles of an acknowledgement, by those of a bare call and a synced write.
    P50,
    P99,
    P99_9,
    /// A warm reader's beside the cold one, by its own alone.
    WarmP99,
    /// In MiB.
    Resident,
    /// A clean start, by a loop.
    Start,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latency = |percentile: &str| format!("{percentile}, times a bare call and a synced write");
        f.write_str(&match self {
            Self::Throughput(limit) => format!("throughput, share of {}", limit.name()),
            Self::Acks(limit) => format!("acks/s, times {}", limit.name()),
            Self::P50 => latency("p50"),
            Self::P99 => latency("p99"),
            Self::P99_9 => latency("p99.9"),
            Self::WarmP99 => "p99 of a warm reader beside it, times alone".to_owned(),
            Self::Resident => "resident memory, MiB".to_owned(),
            Self::Start => "clean start, times a loop that opens and stats the same files".to_owned(),
        })
    }
}

/// Its text.
impl Serialize for Measure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

const OF_SERVICE: Measure = Measure::Throughput(Contender::Service);
const OF_ONE_PARTITION: Measure = Measure::Throughput(Contender::OnePartition);
const OF_READS: Measure = Measure::Throughput(Contender::Reads);
const OF_SYNCS: Measure = Measure::Acks(Contender::Writes(Manner { files: 1_000, ..SYNC_EACH }));
/// With as many requests under way as a broker takes from a stream (`grpc.produce_stream_in_flight`): a throughput is not to
/// be told by how many the load lets there be.
const ONE_STREAM: &str = "produce --in-flight 256";
/// One record of 1 KiB at a time.
const ONE_AT_A_TIME: &str = "produce --mode records --unary --batch-records 1 --record-size 1KiB";

/// All of them.
pub(super) const LOADS: [Load; 12] = [
    Load {
        number: 1,
        parts: &[Part::of(
            "one produce stream, 64 KiB batches of 100-byte records, fsync",
            ONE_STREAM,
            &[(OF_SERVICE, Target::AtLeast(0.75))],
        )],
    },
    Load {
        number: 2,
        parts: &[Part::of(
            "the same, os",
            "produce --in-flight 256 --durability os",
            &[(OF_SERVICE, Target::AtLeast(0.85))],
        )],
    },
    Load {
        number: 3,
        parts: &[Part::of(
            "fetch stream, raw batches, warm",
            "earliest",
            &[(OF_SERVICE, Target::AtLeast(0.9))],
        )],
    },
    Load {
        number: 4,
        parts: &[Part::of(
            "produce in protobuf records, 500 of 100 bytes, fsync",
            "produce --mode records --batch-records 500",
            &[(OF_SERVICE, Target::AtLeast(0.35))],
        )],
    },
    Load {
        number: 5,
        parts: &[Part::of(
            "fetch in protobuf records, warm",
            "earliest --mode records",
            &[(OF_SERVICE, Target::AtLeast(0.35))],
        )],
    },
    Load {
        number: 6,
        parts: &[Part::of(
            "one 1 KiB record at a time, unary, fsync",
            ONE_AT_A_TIME,
            &[(Measure::P50, Target::AtMost(1.5)), (Measure::P99, Target::AtMost(2.0))],
        )],
    },
    Load {
        number: 7,
        parts: &[Part::of(
            "64 clients, one 1 KiB record at a time each, unary, fsync",
            "produce --mode records --unary --batch-records 1 --record-size 1KiB --producers 64",
            &[(OF_SERVICE, Target::AtLeast(0.5))],
        )],
    },
    Load {
        number: 8,
        parts: &[
            Part::of(
                "load 1 over 100 partitions",
                "produce --in-flight 256 --partitions 100",
                &[(OF_ONE_PARTITION, Target::AtLeast(0.7))],
            ),
            Part::of(
                "load 1 over 1,000 partitions",
                "produce --in-flight 256 --partitions 1000",
                &[(OF_ONE_PARTITION, Target::AtLeast(0.7))],
            ),
        ],
    },
    Load {
        number: 9,
        parts: &[Part::of(
            "1 KiB appends over 1,000 partitions, fsync",
            "produce --partitions 1000 --batch-records 1 --record-size 1KiB --in-flight 1000",
            &[(OF_SYNCS, Target::AtLeast(10.0))],
        )],
    },
    Load {
        number: 10,
        parts: &[Part::of(
            "cold read of a backlog",
            "earliest --cold --warm-readers 1",
            &[(OF_READS, Target::AtLeast(0.9)), (Measure::WarmP99, Target::AtMost(1.5))],
        )],
    },
    Load {
        number: 11,
        parts: &[
            Part::of(
                "1,000 idle partitions",
                "idle --partitions 1000",
                &[(Measure::Resident, Target::AtMost(100.0)), (Measure::Start, Target::AtMost(3.0))],
            ),
            Part::of(
                "10,000 idle partitions",
                "idle --partitions 10000",
                &[(Measure::Resident, Target::AtMost(600.0)), (Measure::Start, Target::AtMost(3.0))],
            ),
        ],
    },
    Load {
        number: 12,
        parts: &[Part {
            at_half_of_one_caller: true,
            ..Part::of(
                "load 6 at half of what one caller reaches",
                ONE_AT_A_TIME,
                &[(Measure::P99_9, Target::AtMost(2.0))],
            )
        }],
    },
];

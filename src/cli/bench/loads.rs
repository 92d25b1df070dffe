//! The loads of the suite, and what is asked of each. Client and server share the machine.

use std::fmt;

use serde::Serialize;

use super::suite::{P50, P99, P99_9, RESIDENT, START, WARM_P99};

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
    /// For `sagwan bench`, without `--ceiling`.
    pub(super) line: &'static str,
    /// It is what half as many requests a second do as the line has by itself.
    pub(super) at_half_the_greatest_rate: bool,
    /// It is `sagwan bench idle` with so many.
    pub(super) idle_partitions: Option<u32>,
    /// What is measured (a share ends with the name of its limit), and what is asked of it.
    pub(super) targets: &'static [(&'static str, Target)],
}

impl Part {
    const fn of(name: &'static str, line: &'static str, targets: &'static [(&'static str, Target)]) -> Self {
        Self { name, line, at_half_the_greatest_rate: false, idle_partitions: None, targets }
    }

    const fn idle(name: &'static str, partitions: u32, targets: &'static [(&'static str, Target)]) -> Self {
        Self { idle_partitions: Some(partitions), ..Self::of(name, "", targets) }
    }

    pub(super) fn is_cold(&self) -> bool {
        self.line.contains("--cold")
    }
}

const SERVICE: &str = "throughput, share of bare gRPC service";
const ONE_PARTITION: &str = "throughput, share of sagwan, one partition";
const SYNC_EACH: &str = "acks/s, times 1000 plain files, fdatasync for each write";
const READ: &str = "throughput, share of plain read of the same files";
/// One record of 1 KiB at a time.
const ONE_AT_A_TIME: &str = "produce --mode records --unary --batch-records 1 --record-size 1KiB";

/// All of them.
pub(super) const LOADS: [Load; 12] = [
    Load {
        number: 1,
        parts: &[Part::of(
            "one produce stream, 64 KiB batches of 100-byte records, fsync",
            "produce",
            &[(SERVICE, Target::AtLeast(0.75))],
        )],
    },
    Load {
        number: 2,
        parts: &[Part::of("the same, os", "produce --durability os", &[(SERVICE, Target::AtLeast(0.85))])],
    },
    Load {
        number: 3,
        parts: &[Part::of("fetch stream, raw batches, warm", "earliest", &[(SERVICE, Target::AtLeast(0.9))])],
    },
    Load {
        number: 4,
        parts: &[Part::of(
            "produce in protobuf records, 500 of 100 bytes, fsync",
            "produce --mode records --batch-records 500",
            &[(SERVICE, Target::AtLeast(0.35))],
        )],
    },
    Load {
        number: 5,
        parts: &[Part::of(
            "fetch in protobuf records, warm",
            "earliest --mode records",
            &[(SERVICE, Target::AtLeast(0.35))],
        )],
    },
    Load {
        number: 6,
        parts: &[Part::of(
            "one 1 KiB record at a time, unary, fsync",
            ONE_AT_A_TIME,
            &[(P50, Target::AtMost(1.5)), (P99, Target::AtMost(2.0))],
        )],
    },
    Load {
        number: 7,
        parts: &[Part::of(
            "64 clients, one 1 KiB record at a time each, unary, fsync",
            "produce --mode records --unary --batch-records 1 --record-size 1KiB --producers 64",
            &[(SERVICE, Target::AtLeast(0.5))],
        )],
    },
    Load {
        number: 8,
        parts: &[
            Part::of(
                "load 1 over 100 partitions",
                "produce --partitions 100",
                &[(ONE_PARTITION, Target::AtLeast(0.7))],
            ),
            Part::of(
                "load 1 over 1,000 partitions",
                "produce --partitions 1000",
                &[(ONE_PARTITION, Target::AtLeast(0.7))],
            ),
        ],
    },
    Load {
        number: 9,
        parts: &[Part::of(
            "1 KiB appends over 1,000 partitions, fsync",
            "produce --partitions 1000 --batch-records 1 --record-size 1KiB --in-flight 1000",
            &[(SYNC_EACH, Target::AtLeast(10.0))],
        )],
    },
    Load {
        number: 10,
        parts: &[Part::of(
            "cold read of a backlog",
            "earliest --cold --warm-readers 1",
            &[(READ, Target::AtLeast(0.9)), (WARM_P99, Target::AtMost(1.5))],
        )],
    },
    Load {
        number: 11,
        parts: &[
            Part::idle(
                "1,000 idle partitions",
                1_000,
                &[(RESIDENT, Target::AtMost(100.0)), (START, Target::AtMost(3.0))],
            ),
            Part::idle(
                "10,000 idle partitions",
                10_000,
                &[(RESIDENT, Target::AtMost(600.0)), (START, Target::AtMost(3.0))],
            ),
        ],
    },
    Load {
        number: 12,
        parts: &[Part {
            at_half_the_greatest_rate: true,
            ..Part::of("load 6 at half its greatest rate", ONE_AT_A_TIME, &[(P99_9, Target::AtMost(2.0))])
        }],
    },
];

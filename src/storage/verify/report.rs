//! What a verification has to say: findings, each with its place and in words, and the sums of what was looked at.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::Serialize;

use crate::types::Offset;

/// So many findings of one kind are kept for one log, or for the files beside the logs; the others are counted.
const MAX_KEPT: u64 = 100;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Left by a crash in the ordinary course, or kept on purpose: the next start deals with it, and nothing is missing but
    /// what an operator has given up.
    Note,
    /// What was durable is not as it was written: data is lost, a partition will not open, or a spare copy is gone.
    Error,
}

/// What is the matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Bytes behind the last whole batch, above all that was acknowledged.
    TornTail,
    /// An index that is missing, incomplete or untrue.
    StaleIndex,
    /// A snapshot of producers that no recovery would take: damaged, and not the one that the checkpoint names, or above
    /// the end of its log.
    StaleSnapshot,
    /// An entry of the checkpoint or a durable slot that speaks of no log, goes beyond its end, or is torn.
    StaleEntry,
    /// A directory of no topic.
    UnknownDirectory,
    /// A file that is none of ours.
    UnknownFile,
    /// What a recovery, a deletion or a replacement left or put aside.
    Leftover,
    /// Records that an operator has given up.
    AcceptedLoss,
    /// A batch, or what should be one, that is not as it was written.
    BadBatch,
    /// A batch with the right checksum, whose records cannot be read.
    BadRecords,
    /// A block of a sealed segment whose checksum is wrong though its batches are whole.
    BadBlock,
    /// A sealed segment that is not what the manifest says.
    BadSeal,
    /// A segment that is not there.
    MissingSegment,
    /// A log that ends before what is known to have been durable.
    ShortLog,
    /// A recovery point that is no boundary between batches.
    BadCheckpoint,
    /// A small file that is not as it was written.
    DamagedFile,
    /// A small file that is not there.
    MissingFile,
    /// A partition without its directory.
    MissingDirectory,
    /// A directory that belongs to another topic or partition.
    WrongTopic,
    /// A file or directory that the disk does not give.
    Unreadable,
}

impl FindingKind {
    /// How much it matters.
    pub fn severity(self) -> Severity {
        match self {
            Self::TornTail
            | Self::StaleIndex
            | Self::StaleSnapshot
            | Self::StaleEntry
            | Self::UnknownDirectory
            | Self::UnknownFile
            | Self::Leftover
            | Self::AcceptedLoss => Severity::Note,
            _ => Severity::Error,
        }
    }

    /// What it is called, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::TornTail => "torn tail",
            Self::StaleIndex => "stale index",
            Self::StaleSnapshot => "stale snapshot",
            Self::StaleEntry => "stale entry",
            Self::UnknownDirectory => "unknown directory",
            Self::UnknownFile => "unknown file",
            Self::Leftover => "leftover",
            Self::AcceptedLoss => "accepted loss",
            Self::BadBatch => "bad batch",
            Self::BadRecords => "bad records",
            Self::BadBlock => "bad block",
            Self::BadSeal => "bad seal",
            Self::MissingSegment => "missing segment",
            Self::ShortLog => "short log",
            Self::BadCheckpoint => "bad checkpoint",
            Self::DamagedFile => "damaged file",
            Self::MissingFile => "missing file",
            Self::MissingDirectory => "missing directory",
            Self::WrongTopic => "wrong topic",
            Self::Unreadable => "unreadable",
        }
    }

    /// What it means for whoever runs the broker, in a sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::TornTail => {
                "A crash cut a write short that nobody was told was done. The next start keeps a copy in a .torn file, \
                 then cuts it off."
            }
            Self::StaleIndex => {
                "An index only says where to look; it is made anew from its log. Nothing is lost."
            }
            Self::StaleSnapshot => {
                "The next start takes another one, or reads more of the log. No producer is forgotten."
            }
            Self::StaleEntry => "It does not count any more, and is put right in time.",
            Self::UnknownDirectory => {
                "No topic has it: a topic that was not quite created or deleted, or a stranger. The next start moves it to \
                 .set-aside/ and removes nothing."
            }
            Self::UnknownFile => "It is left alone.",
            Self::Leftover => {
                "It is not used. What is on its way out, the next start removes; the rest is yours to."
            }
            Self::AcceptedLoss => {
                "These records are lost, and the log goes on behind them: an operator wanted it so. Readers are told."
            }
            Self::BadBatch => {
                "The records at these offsets cannot be read as they were written. All others can be saved."
            }
            Self::BadRecords => "It is stored as it came, but readers cannot decode these records.",
            Self::BadBlock => {
                "Its batches are whole, but not all of it is as it was sealed. Readers check each of its batches."
            }
            Self::BadSeal => {
                "The segment is not as it was sealed. What is there of it can be read; reads of the rest fail."
            }
            Self::MissingSegment => "Its records are missing, and the partition will not open without it.",
            Self::ShortLog => {
                "Records that were acknowledged are missing. The partition takes no more writes."
            }
            Self::BadCheckpoint => "A recovery would begin at a place that it cannot trust.",
            Self::DamagedFile => {
                "What it said has to come from a copy, from the batches where they tell it, or from a backup."
            }
            Self::MissingFile => "It was there once: something removed it.",
            Self::MissingDirectory => "The partition will not open without it.",
            Self::WrongTopic => "The partition will not open: its directory is somebody else's.",
            Self::Unreadable => "The disk refused. What lies there was not checked.",
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The first and the last of some offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OffsetRange {
    /// The first one.
    pub first: i64,
    /// The last one; `None` where it cannot be told.
    pub last: Option<i64>,
}

impl OffsetRange {
    /// From `first` to just before `next`; `None` if there is nothing between.
    pub(in super::super) fn between(first: Offset, next: Offset) -> Option<Self> {
        (first < next).then(|| Self { first: first.get(), last: Some(next.get() - 1) })
    }

    /// From `first` on.
    pub(in super::super) fn from(first: Offset) -> Self {
        Self { first: first.get(), last: None }
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What is the matter.
    pub kind: FindingKind,
    /// The file or directory, from the data directory on.
    pub path: String,
    /// The records it is about.
    pub offsets: Option<OffsetRange>,
    /// The bytes of the file it is about, the end excluded.
    pub bytes: Option<Range<u64>>,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl Finding {
    /// A finding about a whole file or directory.
    pub fn new(
        kind: FindingKind,
        path: impl AsRef<Path>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self {
            severity: kind.severity(),
            kind,
            path: path.as_ref().display().to_string(),
            offsets: None,
            bytes: None,
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// About these records of it.
    #[must_use]
    pub(in super::super) fn offsets(self, offsets: impl Into<Option<OffsetRange>>) -> Self {
        Self { offsets: offsets.into(), ..self }
    }

    /// About these bytes of it.
    #[must_use]
    pub(in super::super) fn bytes(self, bytes: Range<u64>) -> Self {
        Self { bytes: Some(bytes), ..self }
    }

    /// Whether `next` only goes on where this one ends: then one finding says it for both.
    fn extend(&mut self, next: &Self) -> bool {
        let (Some(bytes), Some(more)) = (&self.bytes, &next.bytes) else { return false };
        let goes_on = self.kind == FindingKind::BadBatch
            && next.kind == self.kind
            && next.path == self.path
            && bytes.end == more.start;
        if goes_on {
            self.bytes = Some(bytes.start..more.end);
            self.offsets = match (self.offsets, next.offsets) {
                (Some(first), Some(last)) => Some(OffsetRange { first: first.first, last: last.last }),
                (one, other) => one.or(other),
            };
        }
        goes_on
    }
}

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    /// Topics with a partition that was looked at.
    pub topics: u64,
    /// Partitions.
    pub partitions: u64,
    /// Segments, sealed and active.
    pub segments: u64,
    /// Batches that are whole and in their place.
    pub batches: u64,
    /// The records in them.
    pub records: u64,
    /// Bytes of log files.
    pub log_bytes: u64,
}

impl Totals {
    fn add(&mut self, other: Self) {
        self.topics += other.topics;
        self.partitions += other.partitions;
        self.segments += other.segments;
        self.batches += other.batches;
        self.records += other.records;
        self.log_bytes += other.log_bytes;
    }
}

/// The outcome of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// Whether the last run ended in an orderly way; if not, the next start recovers.
    pub ended_cleanly: bool,
    /// What was looked at.
    pub totals: Totals,
    /// How many findings there are of each kind.
    pub counts: BTreeMap<FindingKind, u64>,
    /// The findings, file by file; of very many of one kind in one log, the first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Adds a finding.
    pub fn push(&mut self, finding: Finding) {
        if self.findings.last_mut().is_some_and(|last| last.extend(&finding)) {
            return;
        }
        let count = self.counts.entry(finding.kind).or_default();
        *count += 1;
        if *count <= MAX_KEPT {
            self.findings.push(finding);
        }
    }

    /// Adds what another part of the verification has found.
    pub fn merge(&mut self, other: Self) {
        self.totals.add(other.totals);
        for (kind, count) in other.counts {
            *self.counts.entry(kind).or_default() += count;
        }
        self.findings.extend(other.findings);
    }

    /// How many findings there are that matter so much.
    pub fn count(&self, severity: Severity) -> u64 {
        self.counts.iter().filter(|(kind, _)| kind.severity() == severity).map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(bytes: Range<u64>, first: i64, last: i64) -> Finding {
        let offsets = OffsetRange { first, last: Some(last) };
        Finding::new(FindingKind::BadBatch, "t-0/0.log", "a", "b").bytes(bytes).offsets(offsets)
    }

    #[test]
    fn damage_side_by_side_is_one_finding() {
        let mut report = Report::default();
        for finding in [bad(0..10, 0, 4), bad(10..30, 5, 9), bad(40..50, 15, 19)] {
            report.push(finding);
        }
        assert_eq!(report.findings, [bad(0..30, 0, 9), bad(40..50, 15, 19)]);
        assert_eq!(report.count(Severity::Error), 2);
    }

    #[test]
    fn very_many_findings_are_counted_and_not_all_kept() {
        let mut report = Report::default();
        for i in 0..1_000 {
            report.push(bad(i * 20..i * 20 + 10, 0, 0));
        }
        assert_eq!((report.findings.len() as u64, report.count(Severity::Error)), (MAX_KEPT, 1_000));
    }
}

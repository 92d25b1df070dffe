//! Checks one log's directory: its small files, and its segments one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::super::data_dir::log_dir_name;
use super::super::epochs::{self, LeaderEpochs};
use super::super::fs::{DirEntry, Fs};
use super::super::identity;
use super::super::lost_epochs;
use super::super::producer_snapshot::{self, SnapshotFiles};
use super::super::recovery::Prior;
use super::super::seals::{self, Manifest, Seal};
use super::super::segment::{file_name, parse_file_name};
use super::super::small_file::{self, ReadFileError};
use super::super::torn;
use super::index_check::EntriesDue;
use super::report::{Finding, FindingKind, OffsetRange, Report};
use super::segment_check::{Known, SegmentCheck};
use super::{LogId, Progress, VerifyOptions};
use crate::types::{LeaderEpoch, Offset};

/// The extensions of a segment's own files.
const SEGMENT_FILES: [&str; 3] = ["log", "index", "timeindex"];

/// One log to be checked.
pub(super) struct LogCheck<'a> {
    pub(super) fs: &'a dyn Fs,
    /// The data directory.
    pub(super) root: &'a Path,
    pub(super) log: &'a LogId,
    pub(super) prior: Prior,
    /// No batch has a later one.
    pub(super) newest_epoch: LeaderEpoch,
    pub(super) options: &'a VerifyOptions,
    pub(super) progress: &'a dyn Progress,
}

/// The finding about a small file that cannot be read; `path` is what it is called in findings.
pub(super) fn unusable(path: impl AsRef<Path>, error: &ReadFileError) -> Finding {
    match error {
        ReadFileError::Io { source, .. } => {
            Finding::new(FindingKind::Unreadable, path, "a file that can be read", source.to_string())
        }
        ReadFileError::Frame { source, .. } => Finding::new(
            FindingKind::DamagedFile,
            path,
            "a file whose checksum and contents are right",
            source.to_string(),
        ),
    }
}

/// The finding about a file that is not there.
pub(super) fn missing(path: impl AsRef<Path>) -> Finding {
    Finding::new(FindingKind::MissingFile, path, "a file of this name", "there is none")
}

impl LogCheck<'_> {
    /// The name of the directory.
    fn name(&self) -> PathBuf {
        log_dir_name(&self.log.topic, self.log.partition).into()
    }

    fn dir(&self) -> PathBuf {
        self.root.join(self.name())
    }

    /// Checks all of it.
    pub(super) fn run(&self) -> Report {
        let mut report = Report::default();
        report.totals.partitions = 1;
        let entries = match self.fs.list(&self.dir()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let expected =
                    format!("the directory of partition {} of topic {}", self.log.partition, self.log.topic);
                report.push(Finding::new(
                    FindingKind::MissingDirectory,
                    self.name(),
                    expected,
                    "there is none",
                ));
                return report;
            }
            Err(error) => {
                let expected = "a directory that can be read";
                let finding = Finding::new(FindingKind::Unreadable, self.name(), expected, error.to_string());
                report.push(finding);
                return report;
            }
        };
        if !self.check_identity(&mut report) {
            return report;
        }
        let manifest = self.small(seals::FILE, seals::read(self.fs, &self.dir()), &mut report);
        let epochs = self.small(epochs::FILE, LeaderEpochs::read(self.fs, &self.dir()), &mut report);
        let bases = self.check_names(&entries, manifest.as_ref(), &mut report);
        let end = self.check_segments(&bases, manifest, epochs, &mut report);
        self.check_snapshots(&entries, end, &mut report);
        report
    }

    /// What a small file that must be there holds, if it can be had.
    fn small<T>(&self, name: &str, read: Result<Option<T>, ReadFileError>, report: &mut Report) -> Option<T> {
        let path = self.name().join(name);
        read.unwrap_or_else(|error| {
            report.push(unusable(&path, &error));
            None
        })
        .or_else(|| {
            let is_told = report.findings.last().is_some_and(|last| last.path == path.display().to_string());
            if !is_told {
                report.push(missing(path));
            }
            None
        })
    }

    /// Whether the directory is this log's, as far as it can be told.
    fn check_identity(&self, report: &mut Report) -> bool {
        let found = self.small(identity::FILE, identity::read(self.fs, &self.dir()), report);
        let Some((id, partition)) = found else { return true };
        let is_ours = (id, partition) == (self.log.topic_id, self.log.partition);
        if !is_ours {
            let expected = format!("topic id {}, partition {}", self.log.topic_id, self.log.partition);
            let found = format!("topic id {id}, partition {partition}");
            report.push(Finding::new(
                FindingKind::WrongTopic,
                self.name().join(identity::FILE),
                expected,
                found,
            ));
        }
        is_ours
    }

    /// Sorts the directory's entries out; returns the base offsets of the segments that count.
    fn check_names(
        &self,
        entries: &[DirEntry],
        manifest: Option<&Manifest>,
        report: &mut Report,
    ) -> BTreeSet<Offset> {
        let first = manifest.map_or(Offset::ZERO, |manifest| manifest.first);
        let is_sealed =
            |base| manifest.is_some_and(|manifest| manifest.seals.iter().any(|seal| seal.base == base));
        let segment =
            |entry: &DirEntry| parse_file_name(&entry.name).map(|(base, kind)| (base, kind.to_owned()));
        let bases: BTreeSet<Offset> = entries
            .iter()
            .filter_map(segment)
            .filter(|(base, kind)| kind == "log" && *base >= first)
            .map(|(base, _)| base)
            .collect();
        let mut names: Vec<&DirEntry> = entries.iter().collect();
        names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        for entry in names {
            let path = self.name().join(&entry.name);
            let leftover = |found: &str| Finding::new(FindingKind::Leftover, &path, "nothing", found);
            let finding = match segment(entry) {
                _ if [identity::FILE, seals::FILE, epochs::FILE].contains(&entry.name.as_str()) => continue,
                _ if small_file::of_temporary(&entry.name).is_some() => {
                    leftover("a file that was being replaced")
                }
                Some((_, kind)) if torn::is_copy(&kind) => {
                    leftover("what a recovery cut off the end of a segment")
                }
                // They are no part of a segment.
                Some((_, kind)) if kind == producer_snapshot::EXTENSION => continue,
                Some((base, kind)) if SEGMENT_FILES.contains(&&*kind) => {
                    if base < first {
                        leftover("a file of a segment that was deleted")
                    } else if kind == "log" || bases.contains(&base) || is_sealed(base) {
                        continue;
                    } else {
                        leftover("an index without its segment")
                    }
                }
                _ => {
                    let found = "a file that is none of Sagwan's";
                    Finding::new(FindingKind::UnknownFile, &path, "nothing", found)
                }
            };
            report.push(finding);
        }
        bases
    }

    /// Reads every snapshot of producers: the one that the checkpoint names must be there, the others may be as they are.
    fn check_snapshots(&self, entries: &[DirEntry], end: Offset, report: &mut Report) {
        let named = self.prior.checkpoint.and_then(|checkpoint| checkpoint.producers);
        let offsets = SnapshotFiles::among(entries.iter().map(|entry| &*entry.name));
        let offsets: BTreeSet<Offset> = offsets.descending().chain(named).collect();
        for offset in offsets {
            let path = self.name().join(producer_snapshot::name(offset));
            let finding = match producer_snapshot::read(self.fs, &self.dir(), offset) {
                Ok(Some(_)) if offset <= end => continue,
                Ok(Some(_)) => {
                    let expected = format!("one no higher than the end of the log, offset {end}");
                    Finding::new(FindingKind::StaleSnapshot, path, expected, "it is above that")
                }
                Ok(None) => missing(path),
                Err(ReadFileError::Frame { source, .. }) if Some(offset) != named => {
                    let expected = "a file whose checksum and contents are right";
                    Finding::new(FindingKind::StaleSnapshot, path, expected, source.to_string())
                }
                Err(error) => unusable(path, &error),
            };
            report.push(finding);
        }
    }

    /// Returns one past the last offset of the log.
    fn check_segments(
        &self,
        bases: &BTreeSet<Offset>,
        manifest: Option<Manifest>,
        epochs: Option<LeaderEpochs>,
        report: &mut Report,
    ) -> Offset {
        let (dir, name) = (self.dir(), self.name());
        let point = self.prior.checkpoint.map(|checkpoint| checkpoint.recovery_point);
        let first = manifest.as_ref().map(|manifest| manifest.first).or(bases.first().copied());
        let seals: BTreeMap<Offset, Seal> =
            manifest.into_iter().flat_map(|manifest| manifest.seals).map(|seal| (seal.base, seal)).collect();
        let sealed_end = seals.last_key_value().map_or(Offset::ZERO, |(_, seal)| seal.next);
        let known_durable = self.prior.known_durable(sealed_end);
        let mut epochs = epochs.unwrap_or_else(|| self.epochs_again(&seals, sealed_end));
        let mut due = first.unwrap_or(Offset::ZERO);
        let mut has_active = false;
        let all: BTreeSet<Offset> = bases.iter().chain(seals.keys()).copied().collect();
        for base in &all {
            if *base != due {
                report.push(self.misplaced(due, *base));
            }
            let seal = seals.get(base);
            has_active |= seal.is_none();
            due = if bases.contains(base) {
                let entries = match (seal, point.filter(|point| point.mark.segment == *base)) {
                    (Some(seal), _) => EntriesDue {
                        offsets: u64::from(seal.index_entries),
                        times: u64::from(seal.time_entries),
                        is_complete: true,
                    },
                    (None, Some(point)) => EntriesDue {
                        offsets: point.index.offsets,
                        times: point.index.times,
                        is_complete: false,
                    },
                    (None, None) => EntriesDue::default(),
                };
                let known = Known {
                    base: *base,
                    seal,
                    is_before_gap: seal.is_some_and(|seal| seals.get(&seal.next).is_some_and(Seal::is_gap)),
                    end: seal.map(|seal| seal.next).or_else(|| all.range(base.plus(1)..).next().copied()),
                    durable_to: known_durable,
                    durability: self.log.durability,
                    newest_epoch: self.newest_epoch,
                    recovery_point: point.map(|point| point.mark).filter(|mark| mark.segment == *base),
                    entries,
                };
                let (options, progress) = (self.options, self.progress);
                let check = SegmentCheck { fs: self.fs, dir: &dir, name: &name, options, progress, known };
                let next = check.run(report, &mut epochs);
                seal.map_or(next, |seal| seal.next)
            } else {
                let next = seal.map_or(*base, |seal| seal.next);
                report.push(self.no_segment(*base, OffsetRange::between(*base, next)));
                next
            };
        }
        if !has_active {
            report.push(self.no_segment(due, OffsetRange::between(due, known_durable)));
        }
        self.check_checkpoint(&all, first, due, report);
        due
    }

    /// The leader epochs, from the batches, as a recovery finds them again.
    fn epochs_again(&self, seals: &BTreeMap<Offset, Seal>, sealed_end: Offset) -> LeaderEpochs {
        let seals: Vec<Seal> = seals.values().cloned().collect();
        let found = lost_epochs::of_sealed(self.fs, &self.dir(), &seals, sealed_end, self.newest_epoch);
        // What cannot be read is told when its turn comes.
        found.unwrap_or_else(|_| LeaderEpochs::lost())
    }

    fn no_segment(&self, base: Offset, offsets: Option<OffsetRange>) -> Finding {
        let path = self.name().join(file_name(base, "log"));
        let expected = format!("the segment that begins with offset {base}");
        Finding::new(FindingKind::MissingSegment, path, expected, "there is no such file").offsets(offsets)
    }

    /// A segment begins with `base`, where one with `due` should come.
    fn misplaced(&self, due: Offset, base: Offset) -> Finding {
        if base > due {
            return self.no_segment(due, OffsetRange::between(due, base));
        }
        let path = self.name().join(file_name(base, "log"));
        let found = format!("it begins with offset {base}, which is in the one before, too");
        Finding::new(FindingKind::BadSeal, path, format!("a segment that begins with offset {due}"), found)
    }

    /// What of the checkpoint speaks of no segment.
    fn check_checkpoint(
        &self,
        bases: &BTreeSet<Offset>,
        first: Option<Offset>,
        end: Offset,
        report: &mut Report,
    ) {
        let Some(checkpoint) = self.prior.checkpoint else { return };
        let mark = checkpoint.recovery_point.mark;
        let is_deleted = first.is_some_and(|first| mark.segment < first);
        let mut push = |kind: FindingKind, expected: String, found: String| {
            report.push(Finding::new(kind, self.name(), expected, found));
        };
        if !is_deleted && !bases.contains(&mark.segment) {
            let expected =
                format!("a segment that begins with offset {}, where recovery begins", mark.segment);
            push(FindingKind::BadCheckpoint, expected, "there is none".to_owned());
        }
        let start = checkpoint.log_start;
        // Whether records are missing has been told. With `durability = os`, a power cut may take what had been deleted.
        if start > end {
            let expected = format!("a start of the log that is no higher than its end, offset {end}");
            push(FindingKind::StaleEntry, expected, format!("the checkpoint has {start}"));
        }
    }
}

//! Checks one segment: every batch, its records, its indexes, and what the manifest and the checkpoint say of it.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::super::checkpoint::Mark;
use super::super::fs::{Fs, OpenHow};
use super::super::scan::BatchFault;
use super::super::seals::{BLOCK_BYTES, BlockCrcs, Seal};
use super::super::segment::file_name;
use super::super::walk::{Piece, Walk};
use super::epoch_check::EpochCheck;
use super::index_check::{EntriesDue, IndexCheck};
use super::report::{Finding, FindingKind, OffsetRange, Report};
use super::{Progress, VerifyOptions};
use crate::record::BatchView;
use crate::types::Offset;

/// How much is read at a time of what is no batch.
const STEP_BYTES: u64 = 1 << 20;

/// What is known of a segment besides its files.
pub(super) struct Known<'a> {
    /// The offset it begins with.
    pub(super) base: Offset,
    /// What the manifest says of it, if it is sealed.
    pub(super) seal: Option<&'a Seal>,
    /// No segment comes after it.
    pub(super) is_last: bool,
    /// All below was durable.
    pub(super) durable_to: Offset,
    /// A recovery point in it.
    pub(super) recovery_point: Option<Mark>,
    /// How many index entries must be there.
    pub(super) entries: EntriesDue,
}

/// Checks a segment.
pub(super) struct SegmentCheck<'a> {
    pub(super) fs: &'a dyn Fs,
    pub(super) dir: &'a Path,
    /// How the log's directory is called in findings.
    pub(super) name: &'a Path,
    pub(super) options: &'a VerifyOptions,
    pub(super) progress: &'a dyn Progress,
    pub(super) known: Known<'a>,
}

/// A segment that is being walked.
struct Pass<'a> {
    check: &'a SegmentCheck<'a>,
    report: &'a mut Report,
    epochs: &'a mut EpochCheck,
    index: IndexCheck,
    crcs: BlockCrcs,
    scratch: Vec<u8>,
    /// One past the last offset so far.
    next: Offset,
    /// The blocks in which something has been found.
    told_blocks: BTreeSet<u64>,
    /// Whether the recovery point has been met.
    met_recovery_point: bool,
    /// Bytes that are no batch at the end of the file: the finding about them waits for what the manifest says.
    tail: Option<Finding>,
    has_damage: bool,
    /// What follows would be cut off by a recovery.
    is_torn: bool,
}

/// How a segment ended.
pub(super) struct Ended {
    /// One past its last offset.
    pub(super) next: Offset,
    /// Whether something in it is damaged, so that the end may not be what it was.
    pub(super) has_damage: bool,
}

impl SegmentCheck<'_> {
    fn named(&self, extension: &str) -> PathBuf {
        self.name.join(file_name(self.known.base, extension))
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.dir.join(file_name(self.known.base, extension))
    }

    fn finding(&self, kind: FindingKind, expected: impl Into<String>, found: impl Into<String>) -> Finding {
        Finding::new(kind, self.named("log"), expected, found)
    }

    /// Reads the segment from its first byte to its last.
    pub(super) fn run(&self, report: &mut Report, epochs: &mut EpochCheck) -> Ended {
        report.totals.segments += 1;
        let walked = Walk::new(self.fs, &self.path("log"), Some(self.known.base)).and_then(|walk| {
            let index =
                IndexCheck::open(self.fs, &self.path("index"), &self.path("timeindex"), self.known.base)?;
            let pass = Pass {
                check: self,
                report: &mut *report,
                epochs,
                index,
                crcs: BlockCrcs::default(),
                scratch: Vec::new(),
                next: self.known.base,
                told_blocks: BTreeSet::new(),
                met_recovery_point: false,
                tail: None,
                has_damage: false,
                is_torn: false,
            };
            pass.run(walk)
        });
        walked.unwrap_or_else(|error| {
            report.push(self.finding(FindingKind::Unreadable, "a file that can be read", error.to_string()));
            Ended { next: self.known.seal.map_or(self.known.base, |seal| seal.next), has_damage: true }
        })
    }
}

impl Pass<'_> {
    fn run(mut self, mut walk: Walk) -> io::Result<Ended> {
        let file_len = walk.file_len();
        self.report.totals.log_bytes += file_len;
        let mut told_bytes = 0;
        loop {
            if walk.position() - told_bytes >= STEP_BYTES {
                self.check.progress.advance(walk.position() - told_bytes);
                told_bytes = walk.position();
            }
            self.meet_recovery_point(walk.position());
            match walk.next()? {
                None => break,
                Some(Piece::Batch { position, batch, fault, next_due }) => {
                    let bytes = position..position + batch.size_bytes() as u64;
                    match fault {
                        None => self.batch(&batch, position)?,
                        // A good one: what is missing comes before it.
                        Some(fault) if is_gap(fault, &batch, next_due) => {
                            let (none, next) = (position..position, batch.base_offset());
                            self.bad(none, next, FindingKind::OffsetGap, fault.to_string(), file_len)?;
                            if !self.is_torn {
                                self.batch(&batch, position)?;
                            }
                        }
                        Some(fault) => {
                            let wrong = match (fault, batch.check_crc()) {
                                (BatchFault::Checksum, Err(error)) => error.to_string(),
                                _ => fault.to_string(),
                            };
                            self.bad(bytes, next_due, FindingKind::BadBatch, wrong, file_len)?;
                        }
                    }
                    if self.is_torn {
                        break;
                    }
                    self.crcs.update(batch.as_bytes());
                    self.next = next_due;
                }
                Some(Piece::Rubbish { bytes, resumes, detail }) => {
                    // Where nothing comes after, what was durable or sealed says how much is lost.
                    let known = &self.check.known;
                    let lost_to = resumes.unwrap_or(known.seal.map_or(known.durable_to, |seal| seal.next));
                    self.bad(bytes.clone(), lost_to, FindingKind::BadBatch, detail, file_len)?;
                    if self.is_torn {
                        break;
                    }
                    self.feed_crcs(bytes)?;
                    self.next = resumes.unwrap_or(self.next);
                }
            }
        }
        self.check.progress.advance(file_len.saturating_sub(told_bytes));
        self.finish(file_len)
    }

    /// A batch that is whole and in its place.
    fn batch(&mut self, batch: &BatchView<'_>, position: u64) -> io::Result<()> {
        self.report.totals.batches += 1;
        self.report.totals.records += u64::from(batch.record_count().unsigned_abs());
        self.index.batch(batch, position)?;
        let bytes = position..position + batch.size_bytes() as u64;
        let offsets = OffsetRange::between(batch.base_offset(), batch.next_offset());
        if let Some((expected, found)) = self.epochs.batch(batch.leader_epoch(), batch.base_offset()) {
            let finding = self.check.finding(FindingKind::BadEpoch, expected, found);
            self.push(finding.offsets(offsets).bytes(bytes.clone()));
        }
        let records = batch.records(&mut self.scratch, self.check.options.max_decompressed_bytes);
        let walked = records.and_then(|mut records| records.try_for_each(|record| record.map(|_| ())));
        if let Err(error) = walked {
            let expected = format!("{} records that can be decoded", batch.record_count());
            let finding = self.check.finding(FindingKind::BadRecords, expected, error.to_string());
            self.push(finding.offsets(offsets).bytes(bytes));
        }
        Ok(())
    }

    /// Something in the place of the batch that is due. `next` is due after it.
    fn bad(
        &mut self,
        bytes: Range<u64>,
        next: Offset,
        kind: FindingKind,
        found: String,
        file_len: u64,
    ) -> io::Result<()> {
        let known = &self.check.known;
        self.has_damage = true;
        if is_torn_tail(known.is_last, self.next, known.durable_to) {
            self.is_torn = true;
            let expected = format!("the end of the log after offset {}", self.next.get() - 1);
            let expected =
                if self.next == Offset::ZERO { "the end of an empty log".to_owned() } else { expected };
            let finding = self.check.finding(FindingKind::TornTail, expected, found);
            self.push(finding.offsets(OffsetRange::from(self.next)).bytes(bytes.start..file_len));
            return Ok(());
        }
        self.index.pass(bytes.end, next)?;
        let expected = format!("a whole batch that begins with offset {}", self.next);
        let offsets = match kind {
            // Nothing is known to be lost: it is only not where it should be.
            _ if next <= self.next => Some(OffsetRange::from(self.next)),
            _ => OffsetRange::between(self.next, next),
        };
        let at_end = bytes.end == file_len;
        let finding = self.check.finding(kind, expected, found).offsets(offsets).bytes(bytes);
        if at_end {
            self.tail = Some(finding);
        } else {
            self.push(finding);
        }
        Ok(())
    }

    fn push(&mut self, finding: Finding) {
        if let Some(bytes) = &finding.bytes {
            self.told_blocks.extend(bytes.start / BLOCK_BYTES..bytes.end.div_ceil(BLOCK_BYTES));
        }
        self.report.push(finding);
    }

    fn meet_recovery_point(&mut self, position: u64) {
        let Some(mark) = self.check.known.recovery_point else { return };
        self.met_recovery_point |= mark.position == position && mark.offset == self.next;
    }

    /// The checksums of blocks go over what is no batch, too.
    fn feed_crcs(&mut self, bytes: Range<u64>) -> io::Result<()> {
        let file = self.check.fs.open(&self.check.path("log"), OpenHow::Read)?;
        let mut piece = Vec::new();
        let mut position = bytes.start;
        while position < bytes.end {
            piece.resize(STEP_BYTES.min(bytes.end - position) as usize, 0);
            file.read_exact_at(&mut piece, position)?;
            self.crcs.update(&piece);
            position += piece.len() as u64;
        }
        Ok(())
    }

    fn finish(mut self, file_len: u64) -> io::Result<Ended> {
        let known = &self.check.known;
        let is_short = match known.seal {
            Some(seal) => self.check_seal(seal, file_len),
            None => self.check_end(),
        };
        if let Some(mark) = known.recovery_point
            && !(self.met_recovery_point || self.has_damage || is_short)
        {
            let expected =
                format!("offset {} to begin at byte {}, says the checkpoint", mark.offset, mark.position);
            let found = format!("no batch begins there so; the segment has {file_len} bytes");
            self.push(self.check.finding(FindingKind::BadCheckpoint, expected, found));
        }
        let Self { check, report, index, next, has_damage, .. } = self;
        for (extension, wrong) in ["index", "timeindex"].into_iter().zip(index.finish(check.known.entries)?) {
            if let Some(found) = wrong {
                let expected = "entries that ascend and agree with the log".to_owned();
                report.push(Finding::new(FindingKind::StaleIndex, check.named(extension), expected, found));
            }
        }
        Ok(Ended { next, has_damage })
    }

    /// Looks whether an unsealed segment has all that was durable. Returns whether it ends too early.
    fn check_end(&mut self) -> bool {
        let known = &self.check.known;
        if let Some(tail) = self.tail.take() {
            self.push(tail);
        }
        let is_short = known.is_last && self.next < known.durable_to;
        if is_short && !self.has_damage {
            let expected = format!("a log that ends with offset {}", known.durable_to.get() - 1);
            let found = format!("the next offset is {}", self.next);
            let finding = self.check.finding(FindingKind::ShortLog, expected, found);
            self.push(finding.offsets(OffsetRange::between(self.next, known.durable_to)));
        }
        is_short
    }

    /// Holds what was walked against what the manifest says. Returns whether the segment is too short or too long.
    fn check_seal(&mut self, seal: &Seal, file_len: u64) -> bool {
        let bad = |expected: String, found: String| self.check.finding(FindingKind::BadSeal, expected, found);
        if file_len != seal.len {
            let finding = bad(format!("{} bytes", seal.len), format!("{file_len} bytes"));
            let offsets = OffsetRange::between(self.next, seal.next);
            self.push(finding.offsets(offsets));
            return true;
        }
        if let Some(tail) = self.tail.take() {
            self.push(tail);
        }
        let crcs = std::mem::take(&mut self.crcs).finish();
        for (block, (found, expected)) in (0..).zip(crcs.iter().zip(&seal.block_crcs)) {
            if found != expected && !self.told_blocks.contains(&block) {
                let finding = self.check.finding(
                    FindingKind::BadBlock,
                    format!("CRC-32 {expected:#010x}"),
                    format!("CRC-32 {found:#010x}"),
                );
                let bytes = block * BLOCK_BYTES..((block + 1) * BLOCK_BYTES).min(file_len);
                self.report.push(finding.bytes(bytes));
            }
        }
        if self.has_damage {
            return false;
        }
        if self.next != seal.next {
            let finding = bad(
                format!("the next offset to be {}", seal.next),
                format!("the next offset is {}", self.next),
            );
            self.report.push(finding);
        }
        let newest = self.index.max_timestamp_ms().filter(|timestamp| *timestamp >= 0);
        if newest != seal.max_timestamp_ms {
            let say = |timestamp: Option<i64>| match timestamp {
                Some(timestamp) => format!("the largest timestamp to be {timestamp}"),
                None => "no timestamp".to_owned(),
            };
            self.report.push(bad(say(seal.max_timestamp_ms), say(newest)));
        }
        false
    }
}

/// Whether a recovery cuts off what is no batch where `next` is due: in the last segment only, above all that is known
/// to have been durable.
fn is_torn_tail(is_last: bool, next: Offset, known_durable: Offset) -> bool {
    is_last && next >= known_durable
}

/// Whether a batch is good but for those before it that are missing.
fn is_gap(fault: BatchFault, batch: &BatchView<'_>, next_due: Offset) -> bool {
    let BatchFault::Offset { found, due } = fault else { return false };
    found > due && next_due == batch.next_offset()
}

//! Checks one segment: every batch, its records, its indexes, and what the manifest and the checkpoint say of it. What is
//! a batch, where the log goes on behind what is none, and what is torn, [`super::super::scan`] says, as it does to a
//! recovery.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::super::checkpoint::Mark;
use super::super::damage::Damage;
use super::super::epochs::LeaderEpochs;
use super::super::fs::Fs;
use super::super::scan::{self, Found, Place, Scan};
use super::super::seals::{BLOCK_BYTES, BlockCrcs, Seal};
use super::super::segment::file_name;
use super::super::types::Durability;
use super::index_check::{EntriesDue, IndexCheck};
use super::report::{Finding, FindingKind, OffsetRange, Report};
use super::{Progress, VerifyOptions};
use crate::record::BatchView;
use crate::types::{LeaderEpoch, Offset};

/// The progress is told in steps of this.
const STEP_BYTES: u64 = 1 << 20;

/// What is known of a segment besides its files.
pub(super) struct Known<'a> {
    /// The offset it begins with.
    pub(super) base: Offset,
    /// What the manifest says of it, if it is sealed.
    pub(super) seal: Option<&'a Seal>,
    /// What comes after it was lost, and an operator has accepted that.
    pub(super) is_before_gap: bool,
    /// One past its last offset; `None` for the last segment of a log.
    pub(super) end: Option<Offset>,
    /// All below was durable.
    pub(super) durable_to: Offset,
    /// How durable what comes after is.
    pub(super) durability: Durability,
    /// No batch has a later one.
    pub(super) newest_epoch: LeaderEpoch,
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

/// A segment that is being scanned.
struct Pass<'a> {
    check: &'a SegmentCheck<'a>,
    report: &'a mut Report,
    epochs: &'a mut LeaderEpochs,
    index: IndexCheck,
    crcs: BlockCrcs,
    scratch: Vec<u8>,
    /// The blocks in which something has been found.
    told_blocks: BTreeSet<u64>,
    /// Whether the recovery point has been met.
    met_recovery_point: bool,
    /// Damage at the end of the file: the finding about it waits for what the manifest says.
    tail: Option<Finding>,
    has_damage: bool,
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

    /// Reads the segment from its first byte to its last. Returns one past its last offset. `epochs`: those of the log;
    /// what is newer in the batches is added.
    pub(super) fn run(&self, report: &mut Report, epochs: &mut LeaderEpochs) -> Offset {
        report.totals.segments += 1;
        self.scan(report, epochs).unwrap_or_else(|error| {
            report.push(self.finding(FindingKind::Unreadable, "a file that can be read", error.to_string()));
            self.known.end.unwrap_or(self.known.base)
        })
    }

    fn scan(&self, report: &mut Report, epochs: &mut LeaderEpochs) -> io::Result<Offset> {
        let start = Place { position: 0, offset: self.known.base };
        // What lies behind the end of a sealed one nobody reads.
        let end = self.known.seal.map_or(u64::MAX, |seal| seal.len);
        let path = self.path("log");
        let scan = Scan::open(self.fs, &path, start, end)?;
        let file_len = self.fs.file_len(&path)?.unwrap_or_default();
        let index = IndexCheck::open(self.fs, &self.path("index"), &self.path("timeindex"), self.known.base)?;
        let pass = Pass {
            check: self,
            report,
            epochs,
            index,
            crcs: BlockCrcs::default(),
            scratch: Vec::new(),
            told_blocks: BTreeSet::new(),
            met_recovery_point: false,
            tail: None,
            has_damage: false,
        };
        pass.run(scan, file_len)
    }
}

impl Pass<'_> {
    fn run(mut self, mut scan: Scan, file_len: u64) -> io::Result<Offset> {
        self.report.totals.log_bytes += file_len;
        let known = &self.check.known;
        let mut told_bytes = 0;
        loop {
            let place = scan.place();
            if place.position - told_bytes >= STEP_BYTES {
                self.check.progress.advance(place.position - told_bytes);
                told_bytes = place.position;
            }
            let recovery_point =
                known.recovery_point.map(|Mark { position, offset, .. }| Place { position, offset });
            self.met_recovery_point |= recovery_point == Some(place);
            let log = scan::Known {
                epochs: &*self.epochs,
                newest_epoch: known.newest_epoch,
                reaches: known.durable_to,
                end: known.end,
            };
            let detail = match scan.next(&log)? {
                Found::Batch { batch, position } => {
                    self.batch(&batch, position)?;
                    continue;
                }
                Found::Bad { detail } => detail,
                Found::End => break,
            };
            if known.end.is_none()
                && scan.is_torn(&log, known.durability, self.check.options.max_group_bytes)?
            {
                self.has_damage = true;
                self.report.push(self.torn_tail(place, file_len, detail));
                break;
            }
            let damage = scan.skip(&log, detail)?;
            scan.copy(damage.positions.clone(), |bytes| {
                self.crcs.update(bytes);
                Ok(())
            })?;
            self.damage(damage, scan.len())?;
        }
        self.check.progress.advance(file_len.saturating_sub(told_bytes));
        self.finish(scan.place().offset, file_len)
    }

    /// A batch that is whole and in its place.
    fn batch(&mut self, batch: &BatchView<'_>, position: u64) -> io::Result<()> {
        self.report.totals.batches += 1;
        self.report.totals.records += u64::from(batch.record_count().unsigned_abs());
        self.epochs.assign(batch.leader_epoch(), batch.base_offset());
        self.crcs.update(batch.as_bytes());
        self.index.batch(batch, position)?;
        let records = batch.records(&mut self.scratch, self.check.options.max_decompressed_bytes);
        let walked = records.and_then(|mut records| records.try_for_each(|record| record.map(|_| ())));
        if let Err(error) = walked {
            let expected = format!("{} records that can be decoded", batch.record_count());
            let finding = self.check.finding(FindingKind::BadRecords, expected, error.to_string());
            let offsets = OffsetRange::between(batch.base_offset(), batch.next_offset());
            let bytes = position..position + batch.size_bytes() as u64;
            self.push(finding.offsets(offsets).bytes(bytes));
        }
        Ok(())
    }

    /// The finding about what a recovery would cut off.
    fn torn_tail(&self, place: Place, file_len: u64, detail: String) -> Finding {
        let expected = match place.offset.get().checked_sub(1) {
            Some(last) if last >= 0 => format!("the end of the log after offset {last}"),
            _ => "the end of an empty log".to_owned(),
        };
        let finding = self.check.finding(FindingKind::TornTail, expected, detail);
        finding.offsets(OffsetRange::from(place.offset)).bytes(place.position..file_len)
    }

    /// Something in the place of batches that were there.
    fn damage(&mut self, damage: Damage, end: u64) -> io::Result<()> {
        self.has_damage = true;
        let Damage { positions, first, next, detail } = damage;
        self.index.pass(positions.end, next)?;
        let expected = format!("a whole batch that begins with offset {first}");
        // Where nothing is known to be lost, it is only not where it should be.
        let offsets = OffsetRange::between(first, next).unwrap_or(OffsetRange::from(first));
        let at_end = positions.end == end;
        let finding = self.check.finding(FindingKind::BadBatch, expected, detail);
        let finding = finding.offsets(offsets).bytes(positions);
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

    fn finish(mut self, next: Offset, file_len: u64) -> io::Result<Offset> {
        let known = &self.check.known;
        let is_short = match known.seal {
            Some(seal) => self.check_seal(seal, next, file_len),
            None => self.check_end(next),
        };
        if let Some(mark) = known.recovery_point
            && !(self.met_recovery_point || self.has_damage || is_short)
        {
            let expected =
                format!("offset {} to begin at byte {}, says the checkpoint", mark.offset, mark.position);
            let found = format!("no batch begins there so; the segment has {file_len} bytes");
            self.push(self.check.finding(FindingKind::BadCheckpoint, expected, found));
        }
        let Self { check, report, index, .. } = self;
        for (extension, wrong) in ["index", "timeindex"].into_iter().zip(index.finish(check.known.entries)?) {
            if let Some(found) = wrong {
                let expected = "entries that ascend and agree with the log".to_owned();
                report.push(Finding::new(FindingKind::StaleIndex, check.named(extension), expected, found));
            }
        }
        Ok(next)
    }

    /// Looks whether an unsealed segment has all that was durable. Returns whether it ends too early.
    fn check_end(&mut self, next: Offset) -> bool {
        let known = &self.check.known;
        if let Some(tail) = self.tail.take() {
            self.push(tail);
        }
        let is_short = known.end.is_none() && next < known.durable_to;
        if is_short && !self.has_damage {
            let expected = format!("a log that ends with offset {}", known.durable_to.get() - 1);
            let found = format!("the next offset is {next}");
            let finding = self.check.finding(FindingKind::ShortLog, expected, found);
            self.push(finding.offsets(OffsetRange::between(next, known.durable_to)));
        }
        is_short
    }

    /// Holds what was walked against what the manifest says. Returns whether the segment is too short or too long.
    fn check_seal(&mut self, seal: &Seal, next: Offset, file_len: u64) -> bool {
        if seal.is_gap() {
            let found = "an operator has accepted that they are lost";
            let finding = self.check.finding(FindingKind::AcceptedLoss, "records", found);
            self.push(finding.offsets(OffsetRange::between(seal.base, seal.next)));
            return false;
        }
        let bad = |expected: String, found: String| self.check.finding(FindingKind::BadSeal, expected, found);
        if self.check.known.is_before_gap && file_len > seal.len {
            let found = "what could not be read when the loss of it was accepted";
            self.report
                .push(self.check.finding(FindingKind::Leftover, "nothing", found).bytes(seal.len..file_len));
        } else if file_len != seal.len {
            let finding = bad(format!("{} bytes", seal.len), format!("{file_len} bytes"));
            let lost =
                self.tail.take().map_or_else(|| OffsetRange::between(next, seal.next), |tail| tail.offsets);
            self.push(finding.offsets(lost));
            return true;
        }
        if let Some(tail) = self.tail.take() {
            self.push(tail);
        }
        let crcs = std::mem::take(&mut self.crcs).finish();
        for (block, (found, expected)) in (0..).zip(crcs.iter().zip(&seal.block_crcs)) {
            if found != expected && !self.told_blocks.contains(&block) {
                let wrong = if *found == !*expected {
                    // The seal has it inverted.
                    "it was damaged already when the segment was sealed".to_owned()
                } else {
                    format!("CRC-32 {found:#010x}")
                };
                let expected = format!("CRC-32 {expected:#010x}");
                let finding = self.check.finding(FindingKind::BadBlock, expected, wrong);
                let bytes = block * BLOCK_BYTES..((block + 1) * BLOCK_BYTES).min(file_len);
                self.report.push(finding.bytes(bytes));
            }
        }
        if self.has_damage {
            return false;
        }
        if next != seal.next {
            let finding =
                bad(format!("the next offset to be {}", seal.next), format!("the next offset is {next}"));
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

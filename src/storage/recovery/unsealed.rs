//! The segments that are not in the manifest: where the log ends, and what of it is torn, lost, or to be written again.
//!
//! After an orderly end that is in the checkpoint. Otherwise each batch from the recovery point on is looked at, once, and
//! the indexes, leader epochs and producers are brought up to there on the way.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::super::checkpoint::{Boundary, Mark};
use super::super::damage::Damage;
use super::super::epochs::LeaderEpochs;
use super::super::fs::{FsFile, OpenHow};
use super::super::index::{Entry, IndexResume, OffsetEntry, SegmentIndex, TimeEntry};
use super::super::producer_recovery::ProducerReplay;
use super::super::scan::{Found, Known, Place, Scan};
use super::super::segment::{Segment, file_name, offset_entry};
use super::super::torn;
use super::super::types::OpenLogError;
use super::{Fault, Recovery, io_error};
use crate::record::BatchView;
use crate::types::Offset;

/// A segment to be scanned.
#[derive(Clone, Copy)]
struct Unscanned {
    base: Offset,
    /// The recovery point, if it lies here.
    point: Option<Boundary>,
    /// From its start, wherever the recovery point is.
    whole: bool,
    /// The base offset of the one after it; `None` for the last one.
    next_base: Option<Offset>,
    /// The log had all offsets below this.
    known_durable: Offset,
}

/// The segments of a log that are not in the manifest, while they are looked at.
pub(super) struct Unsealed {
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) complete: Vec<(Arc<Segment>, Offset, u64)>,
    pub(super) end: Boundary,
    pub(super) scanned_bytes: u64,
    pub(super) fault: Option<Fault>,
}

/// What is rebuilt of one segment by one scan of its batches, in their order.
struct Rebuild<'a> {
    base: Offset,
    index: SegmentIndex,
    epochs: &'a mut LeaderEpochs,
    producers: &'a mut ProducerReplay,
}

impl Rebuild<'_> {
    /// The next batch.
    fn batch(&mut self, batch: &BatchView<'_>, position: u64) {
        let entry = offset_entry(self.base, batch, position);
        self.index.add(entry, batch.size_bytes() as u64, batch.max_timestamp());
        self.epochs.assign(batch.leader_epoch(), batch.base_offset());
        self.producers.visit(batch);
    }
}

impl Recovery<'_> {
    /// The end that an orderly shutdown recorded, if the disk has just that.
    pub(super) fn clean_end(&self, bases: &[Offset]) -> Result<Option<Unsealed>, OpenLogError> {
        let Some(checkpoint) = self.prior.checkpoint.filter(|_| self.prior.clean) else { return Ok(None) };
        let end = checkpoint.recovery_point;
        let path = self.dir.join(file_name(end.mark.segment, "log"));
        let len = self.fs.file_len(&path).map_err(|error| io_error(&path, &error))?;
        // A log that took no writes has an earlier recovery point, and its slot tells.
        let is_whole = len == Some(end.mark.position) && end.mark.offset >= self.prior.durable;
        if bases != [end.mark.segment] || !is_whole {
            return Ok(None);
        }
        let Some(index) = self.resume_index(&end) else { return Ok(None) };
        let segment = self.segment(end.mark.segment, end.mark.position, index);
        let (segments, complete) = (vec![segment], Vec::new());
        Ok(Some(Unsealed { segments, complete, end, scanned_bytes: 0, fault: None }))
    }

    /// Checks the unsealed segments from the recovery point on, or whole, and cuts a torn tail.
    pub(super) fn scan_unsealed(
        &self,
        bases: &[Offset],
        sealed_end: Offset,
        (epochs, producers): (&mut LeaderEpochs, &mut ProducerReplay),
        whole: bool,
    ) -> Result<Unsealed, OpenLogError> {
        let recovery_point = self.prior.checkpoint.map(|checkpoint| checkpoint.recovery_point);
        let known_durable = self.prior.known_durable(sealed_end);
        let mut unsealed = Unsealed {
            segments: Vec::new(),
            complete: Vec::new(),
            end: Boundary {
                mark: Mark { offset: sealed_end, segment: sealed_end, position: 0 },
                index: IndexResume::default(),
            },
            scanned_bytes: 0,
            fault: None,
        };
        for (i, base) in bases.iter().enumerate() {
            let point = recovery_point.filter(|point| point.mark.segment == *base);
            let what =
                Unscanned { base: *base, point, whole, next_base: bases.get(i + 1).copied(), known_durable };
            self.scan_segment(what, (epochs, producers), &mut unsealed)?;
        }
        Ok(unsealed)
    }

    fn scan_segment(
        &self,
        what: Unscanned,
        (epochs, producers): (&mut LeaderEpochs, &mut ProducerReplay),
        unsealed: &mut Unsealed,
    ) -> Result<(), OpenLogError> {
        let Unscanned { base, point, whole, next_base, known_durable } = what;
        let path = self.dir.join(file_name(base, "log"));
        let at_path = |error: io::Error| io_error(&path, &error);
        let file_len = self.fs.file_len(&path).map_err(at_path)?.unwrap_or_default();
        // Without the indexes up to the recovery point, or the producers, or the log, all of the segment is scanned.
        let from = point
            .filter(|point| !whole && point.mark.position <= file_len && producers.covers(point.mark.offset));
        let resumed = from.and_then(|point| Some((point, self.resume_index(&point)?)));
        let (index, start) = match resumed {
            Some((point, index)) => {
                (index, Place { position: point.mark.position, offset: point.mark.offset })
            }
            None => {
                (SegmentIndex::new(self.env.log.index_interval_bytes), Place { position: 0, offset: base })
            }
        };
        let mut rebuild = Rebuild { base, index, epochs, producers };
        let mut scan = Scan::open_around(&**self.fs, &path, start).map_err(at_path)?;
        self.env.progress.begin(scan.len().saturating_sub(start.position));
        let mut damages = Vec::new();
        let end = loop {
            let known = Known {
                epochs: &*rebuild.epochs,
                newest_epoch: self.env.log.leader_epoch,
                reaches: known_durable,
                end: next_base,
            };
            let detail = match scan.next(&known).map_err(at_path)? {
                Found::Batch { batch, position } => {
                    self.env.progress.advance(batch.size_bytes() as u64);
                    rebuild.batch(&batch, position);
                    continue;
                }
                Found::Bad { detail } => detail,
                Found::End => break scan.place(),
            };
            let (durability, max_group_bytes) = (self.spec.config.durability, self.env.max_group_bytes);
            let is_torn =
                next_base.is_none() && scan.is_torn(&known, durability, max_group_bytes).map_err(at_path)?;
            // What cannot be read now may be read another time.
            if is_torn && !scan.has_unreadable() {
                let (place, len) = (scan.place(), scan.len());
                torn::cut(&**self.fs, &self.dir, base, place, len, &detail).map_err(at_path)?;
                break place;
            }
            let damage = scan.skip(&known, detail).map_err(at_path)?;
            tracing::error!(
                path = %path.display(), first = %damage.first, next = %damage.next, detail = damage.detail,
                "data loss"
            );
            damages.push(damage);
        };
        unsealed.scanned_bytes += end.position.saturating_sub(start.position);
        let is_cut_short = damages.last().is_some_and(|damage| damage.positions.end == end.position);
        let end = match next_base {
            Some(next) => {
                rebuild.index.finish();
                if end.offset < next {
                    damages.push(ends_early(&path, end, next));
                }
                Place { offset: next, ..end }
            }
            None if end.offset < known_durable || is_cut_short || scan.has_unreadable() => {
                if end.offset < known_durable {
                    damages.push(ends_early(&path, end, known_durable));
                }
                // What the disk cannot read now it may another time, and behind it may be what it can.
                let lost = damages.last().filter(|_| !scan.has_unreadable());
                let lost = lost.map(|last| Place { position: last.positions.start, offset: last.first });
                let first = damages.last().map_or(end.offset, |damage| damage.first);
                let path = path.display();
                let reason = if scan.has_unreadable() {
                    format!("the disk cannot read all of {path}, and offset {first} lies there")
                } else {
                    format!(
                        "{path} cannot be read from offset {first} on, and all before {known_durable} was durable"
                    )
                };
                unsealed.fault = Some(Fault { reason, lost });
                Place { offset: end.offset.max(known_durable), ..end }
            }
            None => {
                let synced = point.map_or(0, |point| point.mark.position);
                self.write_again(&path, synced, end.position)?;
                end
            }
        };
        let resume = rebuild.index.to_resume();
        let segment = self.segment(base, end.position, rebuild.index);
        for damage in damages {
            segment.damages().add(damage);
        }
        if next_base.is_some() {
            // The last one is written again, and gives back then what it has.
            if let Ok(file) = self.fs.open(&path, OpenHow::Write) {
                give_back(&*file, &path);
            }
            unsealed.complete.push((Arc::clone(&segment), end.offset, end.position));
        }
        unsealed.segments.push(segment);
        let mark = Mark { offset: end.offset, segment: base, position: end.position };
        // The next segment, if any, begins at this offset.
        unsealed.end = Boundary { mark, index: resume };
        Ok(())
    }

    /// The indexes of a segment as they were at `point`, if the files can be what they were then.
    fn resume_index(&self, point: &Boundary) -> Option<SegmentIndex> {
        let Boundary { mark, index } = point;
        let path = |extension: &str| self.dir.join(file_name(mark.segment, extension));
        if index.times > 0 && self.fs.file_len(&path("timeindex")).ok()?? < index.times * TimeEntry::BYTES {
            return None;
        }
        let mut last_position = 0;
        if let Some(before) = index.offsets.checked_sub(1) {
            let mut bytes = [0; OffsetEntry::BYTES as usize];
            let file = self.fs.open(&path("index"), OpenHow::Read).ok()?;
            file.read_exact_at(&mut bytes, before * OffsetEntry::BYTES).ok()?;
            last_position = u64::from(OffsetEntry::decode(&bytes)?.position);
        }
        // So that the next entry comes where it would have come.
        let since_entry_bytes = mark.position.checked_sub(last_position)?;
        Some(SegmentIndex::resume(self.env.log.index_interval_bytes, *index, since_entry_bytes))
    }

    /// Writes a range again as it is, and syncs it: after a write-back that failed before the restart, the kernel may
    /// show bytes that the disk does not have.
    fn write_again(&self, path: &Path, from: u64, to: u64) -> Result<(), OpenLogError> {
        const STEP_BYTES: u64 = 1 << 20;
        let write = || {
            let file = self.fs.open(path, OpenHow::Write)?;
            let mut position = from;
            let mut bytes = Vec::new();
            while position < to {
                bytes.resize(STEP_BYTES.min(to - position) as usize, 0);
                file.read_exact_at(&mut bytes, position)?;
                file.write_all_at(&[&bytes], position)?;
                position += bytes.len() as u64;
            }
            file.sync()?;
            Ok(file)
        };
        let file = write().map_err(|error| io_error(path, &error))?;
        give_back(&*file, path);
        Ok(())
    }
}

/// The run before may have set blocks aside beyond the file's end.
fn give_back(file: &dyn FsFile, path: &Path) {
    if let Err(error) = file.give_back() {
        tracing::warn!(path = %path.display(), %error, "cannot give room back");
    }
}

/// A segment ends at `end`, and had all offsets below `next`.
fn ends_early(path: &Path, end: Place, next: Offset) -> Damage {
    tracing::error!(path = %path.display(), first = %end.offset, %next, "data loss: the file ends too early");
    let detail = format!("the file ends with offset {}", end.offset);
    Damage { positions: end.position..end.position, first: end.offset, next, detail }
}

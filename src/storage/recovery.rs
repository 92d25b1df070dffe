//! Opens a log that an earlier run left behind.
//!
//! After an orderly end nothing is scanned: the checkpoint says where the log ends. Otherwise the batches are checked
//! from the recovery point on, and one scan feeds all that is rebuilt from them ([`Rebuild`]).
//!
//! # Torn or rotten
//!
//! What may be cut is a torn tail: bytes that are not a batch, in the last segment, above everything that is known to
//! have been durable: recovery point, durable slot, last seal. A log has at most one group unsynced, and every batch of
//! it begins within `max_group_bytes`; so an intact batch that begins further behind a bad one proves that the bad one
//! was synced, and has rotted since. Not so with `durability = os`: there anything that was not flushed may be lost in any
//! order, and all from the first bad batch on is taken for torn. The tail is copied to a `.torn` file before it is cut.
//!
//! Rot is never cut: its offsets are remembered as damage, the rest is served, and the log goes on behind it. A segment
//! that ends before the next one begins is rotten there. Only a log that ends below what is known to have been durable
//! takes no more writes, until an operator has accepted the loss ([`gap`]): which offsets were given out is not known. So
//! does one whose last segment the disk cannot read in places: another time it may.
//!
//! A small file that is damaged is made anew where the segments and the checkpoint tell what stood in it. A log whose
//! files do not fit together is not opened, and nothing of it is changed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoint::{Boundary, LogCheckpoint, LogKey, Mark};
use super::damage::Damage;
use super::epochs::{self, LeaderEpochs};
use super::fs::{Fs, OpenHow, read_whole};
use super::gap;
use super::identity;
use super::index::{Entry, IndexResume, OffsetEntry, SegmentIndex, TimeEntry};
use super::log::LogEnv;
use super::lost_epochs;
use super::lost_seals;
use super::producer_recovery::{ProducerReplay, RecoveredProducers, Sources};
use super::recovery_progress::RecoveryProgress;
use super::scan::{Found, Known, Place, Scan};
use super::seals::{self, Manifest, Seal};
use super::segment::{Segment, file_name, offset_entry, parse_log_name};
use super::small_file::{FrameError, ReadFileError};
use super::torn;
use super::types::{LogSpec, OpenLogError};
use crate::record::BatchView;
use crate::types::Offset;

/// What is known about a log besides its directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prior {
    /// What the checkpoint says.
    pub(super) checkpoint: Option<LogCheckpoint>,
    /// The last run ended in an orderly way.
    pub(super) clean: bool,
    /// The log's slot: it was durable up to here at least.
    pub(super) durable: Offset,
}

impl Prior {
    /// The first offset readers may see, as far as it was told.
    fn log_start(&self) -> Offset {
        self.checkpoint.map_or(Offset::ZERO, |checkpoint| checkpoint.log_start)
    }

    /// The log, sealed up to `sealed_end`, had all below this on the disk: nothing there is cut, whatever it looks like.
    pub(super) fn known_durable(&self, sealed_end: Offset) -> Offset {
        let recovery_point = self.checkpoint.map(|checkpoint| checkpoint.recovery_point);
        let recovery_point = recovery_point.map_or(Offset::ZERO, |point| point.mark.offset);
        sealed_end.max(self.durable).max(recovery_point)
    }
}

/// A log that has been opened.
pub(super) struct Recovered {
    pub(super) dir: Arc<Path>,
    /// By base offset; the last one is the active one.
    pub(super) segments: Vec<Arc<Segment>>,
    /// Complete segments that are not in the manifest yet, by base offset, with their next offset and length.
    pub(super) unsealed: Vec<(Arc<Segment>, Offset, u64)>,
    pub(super) log_start: Offset,
    pub(super) end: Boundary,
    /// All up to here is known to be on the disk.
    pub(super) synced: Boundary,
    pub(super) epochs: LeaderEpochs,
    pub(super) producers: RecoveredProducers,
    /// `None`: nothing had to be scanned.
    pub(super) scanned_bytes: Option<u64>,
    /// Why it takes no writes, if it does not.
    pub(super) fault: Option<Fault>,
}

/// Why a log that has been opened takes no writes.
pub(super) struct Fault {
    /// In words.
    pub(super) reason: String,
    /// In the last segment, from where on nothing can be read; `None` if there is something behind what cannot.
    pub(super) lost: Option<Place>,
}

/// What the recovery of all logs has in common.
pub(super) struct RecoveryEnv<'a> {
    pub(super) log: &'a LogEnv,
    /// No log has had more unsynced, but for one batch that began before.
    pub(super) max_group_bytes: u64,
    pub(super) progress: &'a RecoveryProgress,
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

/// One log being opened.
struct Recovery<'a> {
    fs: &'a Arc<dyn Fs>,
    env: &'a RecoveryEnv<'a>,
    spec: &'a LogSpec,
    prior: Prior,
    dir: Arc<Path>,
}

/// Opens the log in `dir`.
///
/// # Errors
/// [`OpenLogError`] if it is missing, somebody else's, damaged or unreadable. It is left as it is.
pub(super) fn open_log(
    fs: &Arc<dyn Fs>,
    env: &RecoveryEnv<'_>,
    spec: &LogSpec,
    dir: PathBuf,
    prior: Prior,
) -> Result<Recovered, OpenLogError> {
    Recovery { fs, env, spec, prior, dir: dir.into() }.run()
}

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
struct Unsealed {
    segments: Vec<Arc<Segment>>,
    complete: Vec<(Arc<Segment>, Offset, u64)>,
    end: Boundary,
    scanned_bytes: u64,
    fault: Option<Fault>,
}

impl Recovery<'_> {
    fn run(self) -> Result<Recovered, OpenLogError> {
        self.check_identity()?;
        let (mut manifest, is_anew) = self.manifest()?;
        gap::finish(&**self.fs, &self.dir, &manifest).map_err(|error| io_error(&self.dir, &error))?;
        let unsealed_bases = self.check_files(manifest.first, &manifest.seals)?;
        let sealed_end = manifest.end();
        if unsealed_bases.first() != Some(&sealed_end) {
            let name = file_name(sealed_end, "log");
            return Err(self.damaged(&name, "the segment after the last sealed one is missing"));
        }
        let epochs = self.epochs()?;
        let epochs_are_lost = epochs.is_none();
        let mut epochs = match epochs {
            Some(epochs) if !is_anew => epochs,
            // Those of a segment that had not been sealed may not be in the file.
            found => self.add_epochs_of_sealed(found, &manifest.seals, sealed_end)?,
        };
        if is_anew {
            self.complete(&mut manifest.seals, &epochs)?;
        }
        let sources = Sources {
            fs: &**self.fs,
            dir: &self.dir,
            checkpoint: self.prior.checkpoint,
            manifest: &manifest,
            epochs: &epochs,
            newest_epoch: self.env.log.leader_epoch,
        };
        let (limits, now_ms) = (self.env.log.producer_limits, self.env.log.clock.monotonic_ms());
        let mut producers =
            ProducerReplay::begin(&sources, limits, now_ms).map_err(|error| io_error(&self.dir, &error))?;
        let first = manifest.first;
        let mut segments: Vec<_> = manifest.seals.into_iter().map(|seal| self.sealed_segment(seal)).collect();
        let clean_end = if epochs_are_lost { None } else { self.clean_end(&unsealed_bases)? };
        let clean_end = clean_end.filter(|unsealed| producers.covers(unsealed.end.mark.offset));
        let (unsealed, scanned_bytes) = if let Some(unsealed) = clean_end {
            (unsealed, None)
        } else {
            let unsealed = self.scan_unsealed(
                &unsealed_bases,
                sealed_end,
                (&mut epochs, &mut producers),
                epochs_are_lost,
            )?;
            let bytes = unsealed.scanned_bytes;
            // An epoch whose first batch did not survive has not begun.
            epochs.truncate(unsealed.end.mark.offset);
            (unsealed, Some(bytes))
        };
        if is_anew {
            self.keep_manifest(first, &segments, &mut epochs);
        }
        segments.extend(unsealed.segments);
        let recovery_point = self.prior.checkpoint.map(|checkpoint| checkpoint.recovery_point);
        Ok(Recovered {
            dir: Arc::clone(&self.dir),
            log_start: self.prior.log_start().max(first).min(unsealed.end.mark.offset),
            segments,
            unsealed: unsealed.complete,
            end: unsealed.end,
            // The next start must find what is missing again.
            synced: if unsealed.fault.is_some() { recovery_point.unwrap_or_default() } else { unsealed.end },
            epochs,
            producers: if unsealed.fault.is_some() {
                producers.stay_at(self.prior.checkpoint)
            } else {
                producers.finish()
            },
            scanned_bytes,
            fault: unsealed.fault,
        })
    }

    /// The epochs as their file has them; `None` if it is lost, and they have to be found in the batches.
    fn epochs(&self) -> Result<Option<LeaderEpochs>, OpenLogError> {
        let detail = match LeaderEpochs::read(&**self.fs, &self.dir) {
            Ok(Some(epochs)) => return Ok(Some(epochs)),
            Ok(None) => "it is missing".to_owned(),
            Err(error @ ReadFileError::Frame { source: FrameError::Damaged, .. }) => error.to_string(),
            Err(error) => return Err(read_file_error(error)),
        };
        let path = self.dir.join(epochs::FILE);
        tracing::warn!(path = %path.display(), detail, "the leader epochs are found again in the batches");
        Ok(None)
    }

    /// What the file has of the epochs, and those of the sealed segments, from their batches; those of the others are
    /// found as they are scanned.
    fn add_epochs_of_sealed(
        &self,
        in_file: Option<LeaderEpochs>,
        seals: &[Seal],
        sealed_end: Offset,
    ) -> Result<LeaderEpochs, OpenLogError> {
        let newest = self.env.log.leader_epoch;
        let found = lost_epochs::of_sealed(&**self.fs, &self.dir, seals, sealed_end, newest)
            .map_err(|error| io_error(&self.dir, &error))?;
        let mut epochs = in_file.unwrap_or_else(LeaderEpochs::lost);
        found.entries().iter().for_each(|(epoch, start)| epochs.assign(*epoch, *start));
        Ok(epochs)
    }

    /// The manifest, and whether it is made anew: then it has no more than where each segment begins and ends.
    fn manifest(&self) -> Result<(Manifest, bool), OpenLogError> {
        let error = match seals::read(&**self.fs, &self.dir) {
            Ok(Some(manifest)) => return Ok((manifest, false)),
            Ok(None) => return Err(self.damaged(seals::FILE, "it is missing")),
            Err(error @ ReadFileError::Frame { source: FrameError::Damaged, .. }) => error,
            Err(error) => return Err(read_file_error(error)),
        };
        let start = self.prior.log_start();
        let found = lost_seals::of_files(&**self.fs, &self.dir, start)
            .map_err(|error| io_error(&self.dir, &error))?
            .ok_or_else(|| {
                self.damaged(seals::FILE, &format!("it is damaged, and no segment can have offset {start}"))
            })?;
        tracing::warn!(%error, "the manifest is made anew from the segments");
        Ok((found, true))
    }

    /// Finds what else the manifest has to say of these segments.
    fn complete(&self, seals: &mut [Seal], epochs: &LeaderEpochs) -> Result<(), OpenLogError> {
        let newest = self.env.log.leader_epoch;
        seals.iter_mut().try_for_each(|seal| {
            lost_seals::complete(&**self.fs, &self.dir, seal, epochs, newest)
                .map_err(|error| io_error(&self.dir.join(file_name(seal.base, "log")), &error))
        })
    }

    /// Writes the new manifest. On a disk that is full or fails, the next seal does.
    fn keep_manifest(&self, first: Offset, sealed: &[Arc<Segment>], epochs: &mut LeaderEpochs) {
        let seals: Vec<&Seal> = sealed.iter().filter_map(|segment| segment.seal()).collect();
        if let Err(error) = lost_seals::keep(&**self.fs, &self.dir, first, &seals, epochs) {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot write the new manifest yet");
        }
    }

    fn check_identity(&self) -> Result<(), OpenLogError> {
        let expected = (self.spec.topic_id, self.spec.partition);
        let found = match identity::read(&**self.fs, &self.dir) {
            Err(error @ ReadFileError::Frame { source: FrameError::Damaged, .. }) => {
                self.mend_identity(expected, error)?;
                Some(expected)
            }
            found => found.map_err(read_file_error)?,
        };
        match found {
            Some(found) if found == expected => Ok(()),
            Some((found, partition)) => Err(OpenLogError::WrongTopic {
                path: self.dir.to_path_buf(),
                found: format!("{found}, partition {partition}"),
                expected: self.spec.topic_id,
            }),
            None => match self.fs.list(&self.dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Err(OpenLogError::Missing { path: self.dir.to_path_buf() })
                }
                Err(error) => Err(io_error(&self.dir, &error)),
                Ok(_) => Err(self.damaged(identity::FILE, "it is missing")),
            },
        }
    }

    /// The file that says whose directory this is is damaged: it is replaced if what is left of it leaves no doubt.
    fn mend_identity(&self, expected: LogKey, error: ReadFileError) -> Result<(), OpenLogError> {
        let path = self.dir.join(identity::FILE);
        let bytes = read_whole(&**self.fs, &path).map_err(|error| io_error(&path, &error))?;
        if !bytes.is_some_and(|bytes| identity::is_left_of(&bytes, expected)) {
            return Err(read_file_error(error));
        }
        tracing::warn!(%error, "what is left of it names this partition");
        if let Err(error) = identity::replace(&**self.fs, &self.dir, expected) {
            tracing::warn!(path = %path.display(), %error, "cannot replace it yet");
        }
        Ok(())
    }

    /// Checks that every sealed segment is there with its length, removes what a deletion left, and returns the bases
    /// of the segments that are not sealed, ascending.
    fn check_files(&self, first: Offset, seals: &[Seal]) -> Result<Vec<Offset>, OpenLogError> {
        let entries = self.fs.list(&self.dir).map_err(|error| io_error(&self.dir, &error))?;
        let mut bases: Vec<Offset> = entries.iter().filter_map(|entry| parse_log_name(&entry.name)).collect();
        bases.sort_unstable();
        let left = bases.partition_point(|base| *base < first);
        for base in bases.drain(..left) {
            remove_segment(&**self.fs, &self.dir, base);
        }
        for seal in seals {
            let path = self.dir.join(file_name(seal.base, "log"));
            let len = self.fs.file_len(&path).map_err(|error| io_error(&path, &error))?;
            match len {
                None => return Err(self.damaged(&file_name(seal.base, "log"), "a sealed segment is missing")),
                Some(len) if len != seal.len => {
                    tracing::warn!(path = %path.display(), len, sealed_len = seal.len, "a sealed segment has another length");
                }
                Some(_) => {}
            }
        }
        bases.retain(|base| seals.iter().all(|seal| seal.base != *base));
        Ok(bases)
    }

    fn segment(&self, base: Offset, visible_bytes: u64, index: SegmentIndex) -> Arc<Segment> {
        Arc::new(Segment::new(
            Arc::clone(self.fs),
            Arc::clone(&self.dir),
            base,
            visible_bytes,
            index,
            self.spec.config.segment_bytes,
            Arc::clone(&self.env.log.open_segments),
        ))
    }

    fn sealed_segment(&self, seal: Seal) -> Arc<Segment> {
        let resume = IndexResume {
            offsets: u64::from(seal.index_entries),
            times: u64::from(seal.time_entries),
            newest: None,
            last_entry_ms: None,
        };
        let index = SegmentIndex::resume(self.env.log.index_interval_bytes, resume, 0);
        let segment = self.segment(seal.base, seal.len, index);
        segment.set_sealed(seal);
        segment
    }

    /// The end that an orderly shutdown recorded, if the disk has just that.
    fn clean_end(&self, bases: &[Offset]) -> Result<Option<Unsealed>, OpenLogError> {
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
    fn scan_unsealed(
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
                    damages.push(ends_early(end, next));
                }
                Place { offset: next, ..end }
            }
            None if end.offset < known_durable || is_cut_short || scan.has_unreadable() => {
                if end.offset < known_durable {
                    damages.push(ends_early(end, known_durable));
                }
                let is_lost = is_cut_short || end.offset < known_durable;
                let lost = damages.last().filter(|_| is_lost);
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
            file.sync()
        };
        write().map_err(|error| io_error(path, &error))
    }

    fn damaged(&self, name: &str, detail: &str) -> OpenLogError {
        OpenLogError::Damaged { path: self.dir.join(name), detail: detail.to_owned() }
    }
}

/// Removes the files of a segment that does not count any more; one that stays is removed at the next start.
pub(super) fn remove_segment(fs: &dyn Fs, dir: &Path, base: Offset) {
    let names = ["index", "timeindex", "log"].map(|extension| file_name(base, extension));
    for name in names.into_iter().chain(torn::names(base)) {
        let path = dir.join(name);
        match fs.remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "cannot remove a file of a deleted segment");
            }
            _ => {}
        }
    }
}

/// A segment ends at `end`, and had all offsets below `next`.
fn ends_early(end: Place, next: Offset) -> Damage {
    let detail = format!("the file ends with offset {}", end.offset);
    Damage { positions: end.position..end.position, first: end.offset, next, detail }
}

fn io_error(path: &Path, error: &io::Error) -> OpenLogError {
    let source = Arc::new(io::Error::new(error.kind(), error.to_string()));
    OpenLogError::Io { path: path.to_owned(), source }
}

fn read_file_error(error: ReadFileError) -> OpenLogError {
    match error {
        ReadFileError::Io { path, source } => OpenLogError::Io { path, source: Arc::new(source) },
        ReadFileError::Frame { path, source } => {
            OpenLogError::Damaged { path, detail: format!("cannot be used: {source}") }
        }
    }
}

/// The log a checkpoint entry or a slot speaks of.
pub(super) fn key(spec: &LogSpec) -> LogKey {
    (spec.topic_id, spec.partition)
}

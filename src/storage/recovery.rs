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

mod unsealed;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoint::{Boundary, LogCheckpoint, LogKey};
use super::epochs::{self, LeaderEpochs};
use super::fs::{Fs, read_whole};
use super::gap;
use super::identity;
use super::index::{IndexResume, SegmentIndex};
use super::log::LogEnv;
use super::lost_epochs;
use super::lost_seals;
use super::producer_recovery::{ProducerReplay, RecoveredProducers, Sources};
use super::recovery_progress::RecoveryProgress;
use super::scan::Place;
use super::seals::{self, Manifest, Seal};
use super::segment::{Segment, file_name, parse_log_name};
use super::small_file::{FrameError, ReadFileError};
use super::torn;
use super::types::{LogSpec, OpenLogError};
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

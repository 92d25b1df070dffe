//! Opens a log that an earlier run left behind.
//!
//! After an orderly end nothing is scanned: the checkpoint says where the log ends. Otherwise the batches are checked
//! from the recovery point on. What may be cut is a torn tail: bytes that are not a batch, in the last segment, above
//! everything that is known to have been durable. It is copied to a `.torn` file first. Anything else that is not as
//! it was left is damage: the log is not opened, and nothing of it is changed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoint::{Boundary, LogCheckpoint, LogKey, Mark};
use super::epochs::LeaderEpochs;
use super::fs::{Fs, OpenHow};
use super::identity;
use super::index::{IndexResume, OFFSET_ENTRY_BYTES, SegmentIndex, TIME_ENTRY_BYTES};
use super::log::LogEnv;
use super::producer_recovery::{ProducerReplay, RecoveredProducers, Sources};
use super::scan::{ScanEnd, scan};
use super::seals::{self, Seal};
use super::segment::{Segment, file_name, offset_entry, parse_log_name};
use super::small_file::ReadFileError;
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

/// A log that has been opened.
pub(super) struct Recovered {
    pub(super) dir: Arc<Path>,
    /// By base offset; the last one is the active one.
    pub(super) segments: Vec<Arc<Segment>>,
    /// Complete segments that are not in the manifest yet, by base offset, with their next offset and length.
    pub(super) unsealed: Vec<(Arc<Segment>, Offset, u64)>,
    pub(super) log_start: Offset,
    pub(super) end: Boundary,
    pub(super) epochs: LeaderEpochs,
    pub(super) producers: RecoveredProducers,
    /// `None`: nothing had to be scanned.
    pub(super) scanned_bytes: Option<u64>,
}

/// One log being opened.
struct Recovery<'a> {
    fs: &'a Arc<dyn Fs>,
    env: &'a LogEnv,
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
    env: &LogEnv,
    spec: &LogSpec,
    dir: PathBuf,
    prior: Prior,
) -> Result<Recovered, OpenLogError> {
    Recovery { fs, env, spec, prior, dir: dir.into() }.run()
}

/// The segments of a log that are not in the manifest, while they are looked at.
struct Unsealed {
    segments: Vec<Arc<Segment>>,
    complete: Vec<(Arc<Segment>, Offset, u64)>,
    end: Boundary,
    scanned_bytes: u64,
}

impl Recovery<'_> {
    fn run(self) -> Result<Recovered, OpenLogError> {
        self.check_identity()?;
        let manifest = seals::read(&**self.fs, &self.dir)
            .map_err(read_file_error)?
            .ok_or_else(|| self.damaged(seals::FILE, "it is missing"))?;
        let unsealed_bases = self.check_files(manifest.first, &manifest.seals)?;
        let sealed_end = manifest.end();
        if unsealed_bases.first() != Some(&sealed_end) {
            let name = file_name(sealed_end, "log");
            return Err(self.damaged(&name, "the segment after the last sealed one is missing"));
        }
        let mut epochs =
            LeaderEpochs::read(&**self.fs, &self.dir).map_err(read_file_error)?.unwrap_or_default();
        let sources = Sources {
            fs: &**self.fs,
            dir: &self.dir,
            checkpoint: self.prior.checkpoint,
            manifest: &manifest,
        };
        let mut producers =
            ProducerReplay::begin(&sources, self.env.producer_limits, self.env.clock.monotonic_ms())
                .map_err(|error| io_error(&self.dir, &error))?;
        let mut segments: Vec<_> = manifest.seals.into_iter().map(|seal| self.sealed_segment(seal)).collect();
        let (unsealed, scanned_bytes) = if let Some(unsealed) = self.clean_end(&unsealed_bases)?
            && producers.covers(unsealed.end.mark.offset)
        {
            (unsealed, None)
        } else {
            let unsealed = self.scan_unsealed(&unsealed_bases, sealed_end, &mut epochs, &mut producers)?;
            let bytes = unsealed.scanned_bytes;
            // An epoch whose first batch did not survive has not begun.
            epochs.truncate(unsealed.end.mark.offset);
            (unsealed, Some(bytes))
        };
        segments.extend(unsealed.segments);
        let log_start = self.prior.checkpoint.map_or(Offset::ZERO, |checkpoint| checkpoint.log_start);
        Ok(Recovered {
            dir: Arc::clone(&self.dir),
            log_start: log_start.max(manifest.first).min(unsealed.end.mark.offset),
            segments,
            unsealed: unsealed.complete,
            end: unsealed.end,
            epochs,
            producers: producers.finish(),
            scanned_bytes,
        })
    }

    fn check_identity(&self) -> Result<(), OpenLogError> {
        let found = identity::read(&**self.fs, &self.dir).map_err(read_file_error)?;
        let expected = (self.spec.topic_id, self.spec.partition);
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
            if len != Some(seal.len) {
                let detail = match len {
                    None => "a sealed segment is missing".to_owned(),
                    Some(len) => format!("a sealed segment has {len} bytes, not {}", seal.len),
                };
                return Err(self.damaged(&file_name(seal.base, "log"), &detail));
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
            Arc::clone(&self.env.open_segments),
        ))
    }

    fn sealed_segment(&self, seal: Seal) -> Arc<Segment> {
        let resume = IndexResume {
            offsets: u64::from(seal.index_entries),
            times: u64::from(seal.time_entries),
            newest: None,
            last_entry_ms: None,
        };
        let index = SegmentIndex::resume(self.env.index_interval_bytes, resume);
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
        let is_there = bases == [end.mark.segment] && len == Some(end.mark.position);
        if !is_there || !self.index_files_reach(end.mark.segment, &end) {
            return Ok(None);
        }
        let index = SegmentIndex::resume(self.env.index_interval_bytes, end.index);
        let segment = self.segment(end.mark.segment, end.mark.position, index);
        Ok(Some(Unsealed { segments: vec![segment], complete: Vec::new(), end, scanned_bytes: 0 }))
    }

    /// Checks the unsealed segments from the recovery point on, and cuts a torn tail.
    fn scan_unsealed(
        &self,
        bases: &[Offset],
        sealed_end: Offset,
        epochs: &mut LeaderEpochs,
        producers: &mut ProducerReplay,
    ) -> Result<Unsealed, OpenLogError> {
        let recovery_point = self.prior.checkpoint.map(|checkpoint| checkpoint.recovery_point);
        // Nothing below this is cut, whatever it looks like.
        let known_durable = sealed_end
            .max(self.prior.durable)
            .max(recovery_point.map_or(Offset::ZERO, |point| point.mark.offset));
        let mut unsealed = Unsealed {
            segments: Vec::new(),
            complete: Vec::new(),
            end: Boundary {
                mark: Mark { offset: sealed_end, segment: sealed_end, position: 0 },
                index: IndexResume::default(),
            },
            scanned_bytes: 0,
        };
        for (i, base) in bases.iter().enumerate() {
            let is_last = i + 1 == bases.len();
            if *base != unsealed.end.mark.offset {
                let detail =
                    format!("begins with {base}, the one before ends with {}", unsealed.end.mark.offset);
                return Err(self.damaged(&file_name(*base, "log"), &detail));
            }
            let start = recovery_point.filter(|point| point.mark.segment == *base);
            self.scan_segment(*base, start, is_last, known_durable, (epochs, producers), &mut unsealed)?;
        }
        Ok(unsealed)
    }

    fn scan_segment(
        &self,
        base: Offset,
        start: Option<Boundary>,
        is_last: bool,
        known_durable: Offset,
        (epochs, producers): (&mut LeaderEpochs, &mut ProducerReplay),
        unsealed: &mut Unsealed,
    ) -> Result<(), OpenLogError> {
        let name = file_name(base, "log");
        let path = self.dir.join(&name);
        let interval_bytes = self.env.index_interval_bytes;
        let synced_bytes = start.map_or(0, |start| start.mark.position);
        let start =
            start.filter(|start| self.index_files_reach(base, start) && producers.covers(start.mark.offset));
        let (mut index, mark) = match start {
            Some(start) => (SegmentIndex::resume(interval_bytes, start.index), start.mark),
            // The indexes, or the producers, do not go up to the recovery point: they are made anew from the whole
            // segment.
            None => (SegmentIndex::new(interval_bytes), Mark { offset: base, segment: base, position: 0 }),
        };
        let scanned = scan(&**self.fs, &path, mark.position, mark.offset, |batch, position| {
            index.add(offset_entry(base, batch, position), batch.size_bytes() as u64, batch.max_timestamp());
            epochs.assign(batch.leader_epoch(), batch.base_offset());
            producers.visit(batch);
        })
        .map_err(|error| io_error(&path, &error))?;
        unsealed.scanned_bytes += scanned.position.saturating_sub(mark.position);
        if scanned.file_len < mark.position {
            let detail = format!("has {} bytes, and {} were durable", scanned.file_len, mark.position);
            return Err(self.damaged(&name, &detail));
        }
        match &scanned.end {
            ScanEnd::EndOfFile if scanned.next < known_durable && is_last => {
                let detail = format!("ends with offset {}, but {known_durable} was durable", scanned.next);
                return Err(self.damaged(&name, &detail));
            }
            ScanEnd::Invalid { detail } if !is_last || scanned.next < known_durable => {
                return Err(self.damaged(&name, &format!("{detail}; offset {} on was durable", scanned.next)));
            }
            ScanEnd::Invalid { detail } => {
                self.cut_torn_tail(base, scanned.position, scanned.file_len, detail)?;
            }
            ScanEnd::EndOfFile => {}
        }
        if is_last {
            self.write_again(&path, synced_bytes, scanned.position)?;
        } else {
            index.finish();
        }
        let resume = index.to_resume();
        let segment = self.segment(base, scanned.position, index);
        if !is_last {
            unsealed.complete.push((Arc::clone(&segment), scanned.next, scanned.position));
        }
        unsealed.segments.push(segment);
        let mark = Mark { offset: scanned.next, segment: base, position: scanned.position };
        // The next segment, if any, begins at this offset.
        unsealed.end = Boundary { mark, index: resume };
        Ok(())
    }

    /// Whether the index files have at least the entries that the recovery point counts on.
    fn index_files_reach(&self, base: Offset, start: &Boundary) -> bool {
        let has = |extension: &str, bytes: u64| {
            let len = self.fs.file_len(&self.dir.join(file_name(base, extension)));
            bytes == 0 || len.is_ok_and(|len| len >= Some(bytes))
        };
        has("index", start.index.offsets * OFFSET_ENTRY_BYTES)
            && has("timeindex", start.index.times * TIME_ENTRY_BYTES)
    }

    /// Keeps a copy of what follows the last valid batch, then cuts it off.
    fn cut_torn_tail(&self, base: Offset, position: u64, len: u64, detail: &str) -> Result<(), OpenLogError> {
        let path = self.dir.join(file_name(base, "log"));
        let torn = self.dir.join(file_name(base, "torn"));
        let cut = || {
            let file = self.fs.open(&path, OpenHow::Write)?;
            let mut tail = vec![0; (len - position) as usize];
            file.read_exact_at(&mut tail, position)?;
            let copy = self.fs.open(&torn, OpenHow::Write)?;
            copy.set_len(0)?;
            copy.write_all_at(&[&tail], 0)?;
            copy.sync()?;
            self.fs.sync_dir(&self.dir)?;
            file.set_len(position)?;
            file.sync()
        };
        cut().map_err(|error| io_error(&path, &error))?;
        tracing::warn!(
            path = %path.display(), position, bytes = len - position, kept_in = %torn.display(), detail,
            "cut a torn tail"
        );
        Ok(())
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
    for extension in ["index", "timeindex", "torn", "log"] {
        let path = dir.join(file_name(base, extension));
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

//! Shows what the files of a data directory hold, each by its kind, for people to look at. Reads without a lock: the
//! file may belong to a broker that runs, or lie anywhere.
//!
//! The formats are read by their owners; here they become plain data. A new kind of file is a [`Content`] more, and a
//! line in [`open`].

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::checkpoint::{self, Checkpoint};
use super::data_dir::{META_FILE, Meta, MetaError};
use super::durable::{self, DurableSlots, Slot};
use super::epochs::{self, LeaderEpochs};
use super::fs::{Fs, RealFs, read_whole};
use super::identity;
use super::index::{EntryReader, OffsetEntry, TimeEntry};
use super::producer_snapshot;
use super::producers::ProducerState;
use super::scan::{Found, Known, Place, Scan};
use super::seals;
use super::segment::parse_file_name;
use super::small_file::{self, ReadFileError};
use super::torn;
use super::types::LogError;
use crate::record::BatchView;
use crate::types::{LeaderEpoch, Offset};

/// Why a file cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what its name says.
    #[error("{path} is damaged, or no such file as its name says: {detail}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

/// A file that is being shown.
pub enum Dump {
    /// A segment, or what was cut off one: batch by batch.
    Log(LogDump),
    /// An offset or time index, entry by entry.
    Index(IndexDump),
    /// All of a small file.
    Whole(Content),
}

impl std::fmt::Debug for Dump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dump").finish_non_exhaustive()
    }
}

/// What a small file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Content {
    /// Where recovery of each log begins.
    Checkpoint {
        /// The last run ended in an orderly way.
        clean: bool,
        /// Of the run that wrote it.
        leader_epoch: i32,
        /// By log.
        logs: Vec<CheckpointLog>,
    },
    /// Up to where each log was durable.
    Durable {
        /// By number.
        slots: Vec<DurableSlot>,
    },
    /// The manifest of a log.
    Seals {
        /// Segments below do not count any more.
        first: i64,
        /// The sealed segments.
        segments: Vec<SealedSegment>,
    },
    /// From which offset on each epoch holds.
    LeaderEpochs {
        /// Ascending.
        epochs: Vec<EpochStart>,
    },
    /// The idempotent producers of a log at some offset.
    Snapshot {
        /// That offset.
        offset: i64,
        /// By id.
        producers: Vec<SnapshotProducer>,
    },
    /// Whose directory it is.
    TopicId {
        /// A UUID.
        topic_id: String,
        /// The partition.
        partition: i32,
    },
    /// What data directory it is.
    Meta {
        /// Of the directory.
        format_version: u32,
        /// A UUID.
        cluster_id: String,
        /// The broker's number.
        broker_id: i32,
    },
}

/// What a snapshot says of one producer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotProducer {
    /// Its id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// How long ago it had appended its last batch.
    pub idle_ms: u64,
    /// The last ones, by offset.
    pub batches: Vec<SnapshotBatch>,
}

/// A batch that a snapshot remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names are those of a batch, which tell")]
pub struct SnapshotBatch {
    pub base_sequence: i32,
    pub last_sequence: i32,
    pub base_offset: i64,
    pub last_offset: i64,
}

/// What a checkpoint says of one log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names are those of the file's format, which tells")]
pub struct CheckpointLog {
    pub topic_id: String,
    pub partition: i32,
    pub log_start_offset: i64,
    pub recovery_point: i64,
    pub segment: i64,
    pub position: u64,
    pub index_entries: u64,
    pub time_entries: u64,
    pub max_timestamp_ms: Option<i64>,
    pub producer_snapshot: Option<i64>,
}

/// One durable slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DurableSlot {
    /// Its number.
    pub slot: u64,
    /// Whose it is and what it says; `None` if it is free or torn.
    pub log: Option<DurableLog>,
    /// Its checksum is wrong: it says nothing.
    pub torn: bool,
}

/// What a slot says of its log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names are those of the file's format, which tells")]
pub struct DurableLog {
    pub topic_id: String,
    pub partition: i32,
    pub durable_offset: i64,
}

/// A sealed segment, as the manifest has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names are those of the file's format, which tells")]
pub struct SealedSegment {
    pub base_offset: i64,
    pub next_offset: i64,
    pub size_bytes: u64,
    pub max_timestamp_ms: Option<i64>,
    pub index_entries: u32,
    pub time_entries: u32,
    /// CRC-32 of each MiB.
    pub block_crcs: Vec<u32>,
}

/// Where an epoch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names are those of the file's format, which tells")]
pub struct EpochStart {
    pub leader_epoch: i32,
    pub start_offset: i64,
}

/// The name without what tells an older or unfinished version of the file.
pub fn plain_name(name: &str) -> &str {
    name.strip_suffix(".old").or_else(|| small_file::of_temporary(name)).unwrap_or(name)
}

/// Opens a file by the kind that its name tells; `None` if the name is none of the store's.
///
/// # Errors
/// [`DumpError`] if it cannot be read, or a small file is damaged.
pub fn open(path: &Path) -> Result<Option<Dump>, DumpError> {
    let fs = &RealFs;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = plain_name(&name);
    let io_error = |source| DumpError::Io { path: path.to_owned(), source };
    if let Some((base, extension)) = parse_file_name(name) {
        return Ok(Some(match extension {
            "log" => Dump::Log(LogDump::open(fs, path, Some(base)).map_err(io_error)?),
            extension if torn::is_copy(extension) => {
                Dump::Log(LogDump::open(fs, path, None).map_err(io_error)?)
            }
            producer_snapshot::EXTENSION => {
                Dump::Whole(small(path, producer_snapshot::read_file(fs, path))?.into())
            }
            "index" => {
                let entries = there(path, EntryReader::open(fs, path).map_err(io_error)?)?;
                Dump::Index(IndexDump { base, entries: Entries::Offsets(entries) })
            }
            "timeindex" => {
                let entries = there(path, EntryReader::open(fs, path).map_err(io_error)?)?;
                Dump::Index(IndexDump { base, entries: Entries::Times(entries) })
            }
            _ => return Ok(None),
        }));
    }
    let content = match name {
        checkpoint::FILE => small(path, Checkpoint::read_file(fs, path))?.into(),
        durable::FILE => slots(there(path, DurableSlots::inspect(fs, path).map_err(io_error)?)?),
        seals::FILE => small(path, seals::read_file(fs, path))?.into(),
        epochs::FILE => small(path, LeaderEpochs::read_file(fs, path))?.into(),
        identity::FILE => {
            let (topic_id, partition) = small(path, identity::read_file(fs, path))?;
            Content::TopicId { topic_id: topic_id.to_string(), partition: partition.get() }
        }
        META_FILE => {
            let bytes = there(path, read_whole(fs, path).map_err(io_error)?)?;
            let Meta { format_version, cluster_id, broker_id } =
                Meta::decode(&bytes).map_err(|error| damaged(path, &error))?;
            Content::Meta { format_version, cluster_id, broker_id }
        }
        _ => return Ok(None),
    };
    Ok(Some(Dump::Whole(content)))
}

/// The body of a file that the layer above keeps with [`super::Store::replace_file`].
///
/// # Errors
/// [`DumpError`] if it cannot be read or is damaged.
pub fn read_named(path: &Path) -> Result<Vec<u8>, DumpError> {
    let read = super::store::read_named(&RealFs, path).map_err(|error| match error {
        LogError::Io { path, source } if source.kind() != io::ErrorKind::InvalidData => {
            DumpError::Io { path, source: io::Error::new(source.kind(), source.to_string()) }
        }
        error => DumpError::Damaged { path: path.to_owned(), detail: error.to_string() },
    });
    there(path, read?)
}

fn damaged(path: &Path, error: &MetaError) -> DumpError {
    DumpError::Damaged { path: path.to_owned(), detail: error.to_string() }
}

fn there<T>(path: &Path, read: Option<T>) -> Result<T, DumpError> {
    read.ok_or_else(|| DumpError::Io { path: path.to_owned(), source: io::ErrorKind::NotFound.into() })
}

fn small<T>(path: &Path, read: Result<Option<T>, ReadFileError>) -> Result<T, DumpError> {
    let read = read.map_err(|error| match error {
        ReadFileError::Io { path, source } => DumpError::Io { path, source },
        ReadFileError::Frame { path, source } => DumpError::Damaged { path, detail: source.to_string() },
    });
    there(path, read?)
}

impl From<Checkpoint> for Content {
    fn from(checkpoint: Checkpoint) -> Self {
        let logs = checkpoint.logs.into_iter().map(|((topic_id, partition), log)| CheckpointLog {
            topic_id: topic_id.to_string(),
            partition: partition.get(),
            log_start_offset: log.log_start.get(),
            recovery_point: log.recovery_point.mark.offset.get(),
            segment: log.recovery_point.mark.segment.get(),
            position: log.recovery_point.mark.position,
            index_entries: log.recovery_point.index.offsets,
            time_entries: log.recovery_point.index.times,
            max_timestamp_ms: log.recovery_point.index.newest.map(|newest| newest.timestamp_ms),
            producer_snapshot: log.producers.map(Offset::get),
        });
        Self::Checkpoint {
            clean: checkpoint.clean,
            leader_epoch: checkpoint.leader_epoch.0,
            logs: logs.collect(),
        }
    }
}

impl From<seals::Manifest> for Content {
    fn from(manifest: seals::Manifest) -> Self {
        let segments = manifest.seals.into_iter().map(|seal| SealedSegment {
            base_offset: seal.base.get(),
            next_offset: seal.next.get(),
            size_bytes: seal.len,
            max_timestamp_ms: seal.max_timestamp_ms,
            index_entries: seal.index_entries,
            time_entries: seal.time_entries,
            block_crcs: seal.block_crcs,
        });
        Self::Seals { first: manifest.first.get(), segments: segments.collect() }
    }
}

impl From<(Offset, Vec<ProducerState>)> for Content {
    fn from((offset, states): (Offset, Vec<ProducerState>)) -> Self {
        let producers = states.into_iter().map(|state| SnapshotProducer {
            producer_id: state.producer_id.get(),
            // All of one epoch.
            epoch: state.batches.first().map_or(0, |batch| batch.epoch),
            idle_ms: state.idle_ms,
            batches: state
                .batches
                .iter()
                .map(|batch| SnapshotBatch {
                    base_sequence: batch.base_sequence,
                    last_sequence: batch.last_sequence(),
                    base_offset: batch.base_offset.get(),
                    last_offset: batch.next_offset().get() - 1,
                })
                .collect(),
        });
        Self::Snapshot { offset: offset.get(), producers: producers.collect() }
    }
}

impl From<LeaderEpochs> for Content {
    fn from(epochs: LeaderEpochs) -> Self {
        let starts = epochs.entries().iter();
        let starts =
            starts.map(|(epoch, start)| EpochStart { leader_epoch: epoch.0, start_offset: start.get() });
        Self::LeaderEpochs { epochs: starts.collect() }
    }
}

fn slots(slots: Vec<(u64, Slot)>) -> Content {
    let slots = slots.into_iter().map(|(number, slot)| {
        let log = match slot {
            Slot::Of((topic_id, partition), durable) => Some(DurableLog {
                topic_id: topic_id.to_string(),
                partition: partition.get(),
                durable_offset: durable.get(),
            }),
            Slot::Free | Slot::Torn => None,
        };
        DurableSlot { slot: number, log, torn: slot == Slot::Torn }
    });
    Content::Durable { slots: slots.collect() }
}

/// The batches of a file, one after the other.
pub struct LogDump {
    scan: Scan,
    /// As far as the batches have told.
    epochs: LeaderEpochs,
}

/// What comes next in a file of batches.
#[derive(Debug)]
pub enum LogPiece<'a> {
    /// A batch.
    Batch {
        /// Where it begins.
        position: u64,
        /// It, whatever is wrong with it.
        batch: BatchView<'a>,
        /// What is wrong with it, if anything.
        fault: Option<String>,
    },
    /// Bytes that are no batch.
    Unreadable {
        /// Where they are.
        bytes: Range<u64>,
        /// What is wrong.
        detail: String,
        /// The offset of the batch after them, if one was found.
        resumes: Option<Offset>,
    },
}

impl LogDump {
    /// From the first byte on; `base` is the offset of the first batch, if that is known.
    fn open(fs: &dyn Fs, path: &Path, base: Option<Offset>) -> io::Result<Self> {
        let start = |offset| Place { position: 0, offset };
        let mut scan = Scan::open(fs, path, start(base.unwrap_or(Offset::ZERO)), u64::MAX)?;
        if base.is_none()
            && let Some(claimed) = scan.claimed_offset()?
        {
            scan.go_to(start(claimed));
        }
        Ok(Self { scan, epochs: LeaderEpochs::default() })
    }

    /// The next piece; `None` at the end of the file.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn next_piece(&mut self) -> io::Result<Option<LogPiece<'_>>> {
        let Place { position, offset: due } = self.scan.place();
        let newest_epoch = LeaderEpoch(i32::MAX);
        let known = Known { epochs: &self.epochs, newest_epoch, reaches: due, end: None };
        let found = match self.scan.next(&known)? {
            Found::End => return Ok(None),
            Found::Batch { batch, .. } => Ok((batch.leader_epoch(), batch.base_offset())),
            Found::Bad { detail } => Err(detail),
        };
        let (fault, resumes) = match found {
            Ok((epoch, base)) => {
                self.epochs.assign(epoch, base);
                (None, None)
            }
            Err(detail) => {
                let on = self.scan.find_way_on(&known)?;
                self.scan.go_to(on.unwrap_or(Place { position: self.scan.len(), offset: due }));
                (Some(detail), on.map(|on| on.offset))
            }
        };
        let bytes = position..self.scan.place().position;
        Ok(Some(match (self.scan.framed(bytes.clone())?, fault) {
            (Some(batch), fault) => LogPiece::Batch { position, batch, fault },
            (None, fault) => LogPiece::Unreadable { bytes, detail: fault.unwrap_or_default(), resumes },
        }))
    }
}

/// The entries of an index file, one after the other.
pub struct IndexDump {
    base: Offset,
    entries: Entries,
}

enum Entries {
    Offsets(EntryReader<OffsetEntry>),
    Times(EntryReader<TimeEntry>),
}

/// An entry of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum IndexRow {
    /// Where a batch lies.
    Offset {
        /// The last offset of the batch.
        offset: i64,
        /// As it stands in the file.
        relative_offset: u32,
        /// Where the batch begins.
        position: u32,
    },
    /// The largest timestamp up to some batch.
    Time {
        /// That timestamp, in ms since the Unix epoch.
        timestamp_ms: i64,
        /// The last offset of the batch that has it.
        offset: i64,
        /// As it stands in the file.
        relative_offset: u32,
    },
}

impl IndexDump {
    /// Whether its entries are [`IndexRow::Time`].
    pub fn is_by_time(&self) -> bool {
        matches!(self.entries, Entries::Times(_))
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn next_row(&mut self) -> io::Result<Option<IndexRow>> {
        let offset = |relative_offset| self.base.plus(relative_offset).get();
        Ok(match &mut self.entries {
            Entries::Offsets(entries) => entries.next()?.map(|OffsetEntry { relative_offset, position }| {
                IndexRow::Offset { offset: offset(relative_offset), relative_offset, position }
            }),
            Entries::Times(entries) => entries.next()?.map(|TimeEntry { timestamp_ms, relative_offset }| {
                IndexRow::Time { timestamp_ms, offset: offset(relative_offset), relative_offset }
            }),
        })
    }

    /// What is left behind the last whole entry.
    pub fn trailing_bytes(&self) -> u64 {
        match &self.entries {
            Entries::Offsets(entries) => entries.trailing_bytes(),
            Entries::Times(entries) => entries.trailing_bytes(),
        }
    }
}

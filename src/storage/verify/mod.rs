//! Checks a data directory that no broker runs on, and changes nothing in it.
//!
//! The broker knows which logs there should be, and asks for them through an [`Inspection`]. What recovery would do at
//! the next start is told apart from what is lost ([`Severity`]); the formats are read by their owners.
//!
//! | file            | noun                                                              |
//! |-----------------|-------------------------------------------------------------------|
//! | `report`        | [`Finding`] and [`Report`]: what there is to say                  |
//! | `directory`     | the data directory beside its logs                                |
//! | `log_check`     | one log's directory, and its segments in order                    |
//! | `segment_check` | one segment: batches, records, seal, recovery point               |
//! | `index_check`   | index entries against batches                                     |

mod directory;
mod index_check;
mod log_check;
mod report;
mod segment_check;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

pub use report::{Finding, FindingKind, OffsetRange, Report, Severity, Totals};

use super::data_dir::{DataDir, OpenError};
use super::fs::{Fs, RealFs};
use super::store::read_named;
use super::types::{Durability, LogError};
use crate::types::{PartitionId, TopicId, TopicName};
use directory::Directory;
use log_check::LogCheck;

/// How to verify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyOptions {
    /// The most the records of one batch may unpack to.
    pub max_decompressed_bytes: u64,
    /// The most that a log may have had unsynced, but for one batch that began before.
    pub max_group_bytes: u64,
    /// Logs that are checked at a time; at least one.
    pub threads: usize,
}

/// Hears how far a verification has come; from several threads.
pub trait Progress: Sync {
    /// So many bytes are to be read in all.
    fn begin(&self, bytes: u64);
    /// So many more have been read.
    fn advance(&self, bytes: u64);
}

/// Which log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogId {
    /// With `partition`, names the directory.
    pub topic: TopicName,
    /// With `topic`, names the directory.
    pub partition: PartitionId,
    /// Must be the one found in the directory.
    pub topic_id: TopicId,
    /// What was promised when it was written.
    pub durability: Durability,
}

/// What the layer above knows of a data directory.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The logs there should be; `None` if that cannot be told, and each that is found counts.
    pub logs: Option<Vec<LogId>>,
    /// Logs on their way out.
    pub deleting: Vec<LogId>,
    /// The names of its own files.
    pub files: Vec<String>,
}

/// A locked data directory that is only looked at.
pub struct Inspection {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    /// Held as long as this lives.
    _lock: Option<Box<dyn Send + Sync>>,
}

impl std::fmt::Debug for Inspection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inspection").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Inspection {
    /// Locks a data directory, which may be on a file system that is mounted read-only.
    ///
    /// # Errors
    /// [`OpenError`] if it is none, in use, of a newer format, or cannot be read.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(RealFs), dir)
    }

    /// The same on any file system.
    ///
    /// # Errors
    /// As [`Inspection::open`].
    pub fn open_on(fs: Arc<dyn Fs>, dir: &Path) -> Result<Self, OpenError> {
        directory::check_is_ours(&*fs, dir)?;
        let lock = DataDir::lock_as_is(&*fs, dir)?;
        Ok(Self { fs, dir: dir.to_owned(), _lock: lock })
    }

    /// Reads a small file that [`super::Store::replace_file`] wrote; `None` if there is none.
    ///
    /// # Errors
    /// As [`super::Store::read_file`].
    pub fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, LogError> {
        read_named(&*self.fs, &self.dir.join(name))
    }

    /// Whether anything here speaks of logs: then there must have been a list of them.
    pub fn has_had_logs(&self) -> bool {
        Directory::read(&*self.fs, &self.dir, &mut Report::default()).has_had_logs()
    }

    /// Checks everything. Blocks.
    pub fn verify(&self, known: &Known, options: &VerifyOptions, progress: &dyn Progress) -> Report {
        let mut report = Report::default();
        let directory = Directory::read(&*self.fs, &self.dir, &mut report);
        let logs = directory.logs(known, &mut report);
        let sizes: Vec<u64> = logs.iter().map(|log| directory.log_bytes(log)).collect();
        progress.begin(sizes.iter().sum());
        let next = AtomicUsize::new(0);
        let reports: Mutex<Vec<(usize, Report)>> = Mutex::default();
        std::thread::scope(|scope| {
            for _ in 0..options.threads.clamp(1, logs.len().max(1)) {
                scope.spawn(|| {
                    while let (i, Some((log, size))) = {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        (i, logs.get(i).zip(sizes.get(i)))
                    } {
                        let check = LogCheck {
                            fs: &*self.fs,
                            root: &self.dir,
                            log,
                            prior: directory.prior(log),
                            newest_epoch: directory.newest_epoch(),
                            options,
                            progress,
                        };
                        let checked = check.run();
                        // Segments that do not count are not read.
                        progress.advance(size.saturating_sub(checked.totals.log_bytes));
                        reports.lock().push((i, checked));
                    }
                });
            }
        });
        let mut reports = reports.into_inner();
        reports.sort_unstable_by_key(|(i, _)| *i);
        for (_, log) in reports {
            report.merge(log);
        }
        let mut topics: Vec<_> = logs.iter().map(|log| &log.topic).collect();
        topics.dedup();
        report.totals.topics = topics.len() as u64;
        report
    }
}

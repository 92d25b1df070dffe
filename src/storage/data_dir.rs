//! The data directory itself: its lock, its identity, and what lies in it that is nobody's.
//!
//! `meta.toml` says which format the directory has and whose it is:
//!
//! ```toml
//! format_version = 1
//! cluster_id = "6d1f5a4e-…"
//! broker_id = 1
//! ```

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::fs::{Fs, LockOutcome, read_whole};
use super::small_file;
use crate::types::{PartitionId, TopicId, TopicName};

/// The format of the data directory that this program writes, and the only one it reads.
pub const FORMAT_VERSION: u32 = 1;

pub(super) const META_FILE: &str = "meta.toml";
pub(super) const LOCK_FILE: &str = ".lock";
/// Where directories go that no topic knows.
pub(super) const SET_ASIDE_DIR: &str = ".set-aside";
/// Where directories of deleted logs go before they are removed.
pub(super) const DELETED_DIR: &str = ".deleted";
const FIRST_BROKER_ID: i32 = 1;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the data directory {dir} is in use by process {holder}: stop it, or use another --data-dir")]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The process id it wrote down.
        holder: String,
    },
    /// It cannot be created, read or written.
    #[error("the data directory {dir} cannot be used: {path}: {source}: {}", advice(source))]
    Io {
        /// The directory.
        dir: PathBuf,
        /// The file or directory in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It has other things in it, and no data of ours.
    #[error(
        "{dir} is not a data directory, and not empty (it has {found:?}): use an empty or a new directory; if it was one, \
         its meta.toml is missing: put that back"
    )]
    NotOurs {
        /// The directory.
        dir: PathBuf,
        /// Something in it.
        found: String,
    },
    /// It is to be looked at, and is not there or has no data of ours.
    #[error("{dir} is not a data directory: it has none of the files of one")]
    NotADataDir {
        /// The directory.
        dir: PathBuf,
    },
    /// A newer program has written it.
    #[error(
        "{dir}/meta.toml has format version {found}, this program knows {FORMAT_VERSION}: use a newer sagwan"
    )]
    NewerFormat {
        /// The directory.
        dir: PathBuf,
        /// Its version.
        found: u32,
    },
    /// One of its files is damaged.
    #[error("{path} is damaged: {detail}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
}

fn advice(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        "give the user of this process the right to read and write there, or use another --data-dir"
    } else {
        "use another --data-dir, or see to it"
    }
}

/// The content of `meta.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Meta {
    pub(super) format_version: u32,
    pub(super) cluster_id: String,
    pub(super) broker_id: i32,
}

/// Why bytes are not a `meta.toml` of ours.
#[derive(Debug, thiserror::Error)]
pub(super) enum MetaError {
    /// A newer program has written it, with this version.
    #[error("it has format version {0}, which is newer than this program's")]
    Newer(u32),
    #[error("{0}")]
    Damaged(String),
}

impl Meta {
    pub(super) fn encode(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, MetaError> {
        let damaged = |error: &dyn std::fmt::Display| MetaError::Damaged(error.to_string());
        let text = std::str::from_utf8(bytes).map_err(|error| damaged(&error))?;
        // The version first: a newer one may have other keys.
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| damaged(&error))?;
        let version = table.get("format_version").and_then(toml::Value::as_integer);
        match version.map(u32::try_from) {
            Some(Ok(FORMAT_VERSION)) => toml::from_str(text).map_err(|error| damaged(&error)),
            Some(Ok(found)) if found > FORMAT_VERSION => Err(MetaError::Newer(found)),
            _ => Err(damaged(&"it has no valid format_version")),
        }
    }

    /// Reads that of a data directory; `None` if there is none.
    ///
    /// # Errors
    /// [`OpenError`] if it cannot be read, makes no sense or is newer than this program.
    pub(super) fn read(fs: &dyn Fs, dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = dir.join(META_FILE);
        let bytes = read_whole(fs, &path).map_err(|source| OpenError::Io {
            dir: dir.to_owned(),
            path: path.clone(),
            source,
        })?;
        let meta = bytes.map(|bytes| Self::decode(&bytes)).transpose();
        meta.map_err(|error| match error {
            MetaError::Newer(found) => OpenError::NewerFormat { dir: dir.to_owned(), found },
            MetaError::Damaged(detail) => OpenError::Damaged { path, detail },
        })
    }

    /// A new directory gets its identity.
    fn create(fs: &dyn Fs, dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(META_FILE);
        let meta = Self {
            format_version: FORMAT_VERSION,
            cluster_id: uuid::Uuid::new_v4().to_string(),
            broker_id: FIRST_BROKER_ID,
        };
        let text = meta
            .encode()
            .map_err(|error| OpenError::Damaged { path: path.clone(), detail: error.to_string() })?;
        small_file::replace(fs, dir, META_FILE, text.as_bytes()).map_err(|source| OpenError::Io {
            dir: dir.to_owned(),
            path,
            source,
        })?;
        Ok(meta)
    }
}

/// What the directory of a log is called.
pub(super) fn log_dir_name(topic: &TopicName, partition: PartitionId) -> String {
    format!("{topic}-{partition}")
}

/// The log whose directory is called so.
pub(super) fn parse_log_dir_name(name: &str) -> Option<(TopicName, PartitionId)> {
    let (topic, partition) = name.rsplit_once('-')?;
    let log = (TopicName::parse(topic).ok()?, partition.parse().ok().and_then(PartitionId::new)?);
    (log_dir_name(&log.0, log.1) == name).then_some(log)
}

/// A locked data directory.
pub(super) struct DataDir {
    pub(super) path: PathBuf,
    pub(super) meta: Meta,
    /// Held as long as this lives.
    _lock: Box<dyn Send + Sync>,
}

impl DataDir {
    /// Creates the directory if need be, locks it and checks that it is ours and of a format we know.
    pub(super) fn open(fs: &dyn Fs, dir: &Path) -> Result<Self, OpenError> {
        let at = |path: PathBuf| {
            let dir = dir.to_owned();
            move |source| OpenError::Io { dir, path, source }
        };
        create_durably(fs, dir).map_err(at(dir.to_owned()))?;
        let lock_path = dir.join(LOCK_FILE);
        // A directory that is not ours is left as it is, without even a lock file.
        let has_meta = fs.file_len(&dir.join(META_FILE)).map_err(at(dir.join(META_FILE)))?.is_some();
        if !has_meta {
            let entries = fs.list(dir).map_err(at(dir.to_owned()))?;
            let known = |name: &str| [LOCK_FILE, "lost+found", "meta.toml.tmp"].contains(&name);
            if let Some(other) = entries.into_iter().find(|entry| !known(&entry.name)) {
                return Err(OpenError::NotOurs { dir: dir.to_owned(), found: other.name });
            }
        }
        let lock = match fs.lock(&lock_path, &std::process::id().to_string()) {
            Ok(LockOutcome::Locked(lock)) => lock,
            Ok(LockOutcome::Held { holder }) => return Err(OpenError::InUse { dir: dir.to_owned(), holder }),
            Err(source) => return Err(at(lock_path)(source)),
        };
        let meta = match Meta::read(fs, dir)? {
            Some(meta) => meta,
            None => Meta::create(fs, dir)?,
        };
        Ok(Self { path: dir.to_owned(), meta, _lock: lock })
    }

    /// Locks a directory that is only to be looked at. Nothing in it changes; without a lock file, nobody has had it
    /// since it was copied here, and nothing is locked.
    ///
    /// # Errors
    /// [`OpenError`] if somebody has it, or it cannot be read.
    pub(super) fn lock_as_is(fs: &dyn Fs, dir: &Path) -> Result<Option<Box<dyn Send + Sync>>, OpenError> {
        let path = dir.join(LOCK_FILE);
        match fs.lock_as_is(&path) {
            Ok(LockOutcome::Locked(lock)) => Ok(Some(lock)),
            Ok(LockOutcome::Held { holder }) => Err(OpenError::InUse { dir: dir.to_owned(), holder }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(OpenError::Io { dir: dir.to_owned(), path, source }),
        }
    }

    /// The directory of a log.
    pub(super) fn log_dir(&self, topic: &TopicName, partition: PartitionId) -> PathBuf {
        self.path.join(log_dir_name(topic, partition))
    }

    /// Where a deleted log's directory goes.
    pub(super) fn deleted_dir(&self, topic_id: TopicId, partition: PartitionId) -> PathBuf {
        self.path.join(DELETED_DIR).join(format!("{topic_id}-{partition}"))
    }

    /// Where deleted directories are.
    pub(super) fn deleted_root(&self) -> PathBuf {
        self.path.join(DELETED_DIR)
    }

    /// What an interrupted deletion has left.
    pub(super) fn deleted(&self, fs: &dyn Fs) -> Vec<PathBuf> {
        let root = self.deleted_root();
        let entries = fs.list(&root).unwrap_or_default();
        entries.into_iter().map(|entry| root.join(entry.name)).collect()
    }

    /// Moves directories that no topic knows out of the way; they are never adopted and never removed.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) fn set_aside(
        &self,
        fs: &dyn Fs,
        now_ms: i64,
        is_known: impl Fn(&Path) -> bool,
    ) -> io::Result<()> {
        for entry in fs.list(&self.path)? {
            let path = self.path.join(&entry.name);
            let is_ours = entry.name.starts_with('.') || entry.name == "lost+found" || is_known(&path);
            if entry.is_dir && !is_ours {
                self.set_aside_one(fs, now_ms, &path)?;
            }
        }
        Ok(())
    }

    /// The same for one directory in this one.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) fn set_aside_one(&self, fs: &dyn Fs, now_ms: i64, path: &Path) -> io::Result<()> {
        let root = self.path.join(SET_ASIDE_DIR);
        let name = path.file_name().unwrap_or_default();
        let mut at_ms = now_ms;
        // Another of that name may have been set aside at that time.
        while fs.file_len(&root.join(at_ms.to_string()).join(name))?.is_some() {
            at_ms += 1;
        }
        let target = root.join(at_ms.to_string());
        fs.create_dir(&target)?;
        fs.rename(path, &target.join(name))?;
        tracing::warn!(path = %path.display(), to = %target.display(), "set aside a directory that no topic knows");
        fs.sync_dir(&target)?;
        fs.sync_dir(&root)?;
        fs.sync_dir(&self.path)
    }
}

/// Creates a directory and those above it that are missing; a power cut takes none of them with what they hold.
fn create_durably(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
    let mut parents = Vec::new();
    let mut at = dir;
    while fs.file_len(at)?.is_none() {
        let parent = at.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        parents.push(parent);
        at = parent;
    }
    fs.create_dir(dir)?;
    parents.into_iter().try_for_each(|parent| fs.sync_dir(parent))
}

#[cfg(test)]
mod tests {
    use super::super::fs::RealFs;
    use super::*;

    fn open(dir: &Path) -> Result<DataDir, OpenError> {
        DataDir::open(&RealFs, dir)
    }

    #[test]
    fn a_new_directory_gets_an_identity_that_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/data");
        let first = open(&path).unwrap().meta;
        assert_eq!(open(&path).unwrap().meta, first);
    }

    #[test]
    fn a_second_opener_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let _first = open(dir.path()).unwrap();
        let error = open(dir.path()).err().unwrap();
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    }

    #[test]
    fn somebody_elses_directory_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.txt"), "precious").unwrap();
        assert!(matches!(open(dir.path()), Err(OpenError::NotOurs { .. })));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_newer_format_is_refused_even_with_other_keys() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(META_FILE), "format_version = 2\nshape = \"new\"\n").unwrap();
        assert!(matches!(open(dir.path()), Err(OpenError::NewerFormat { found: 2, .. })));
        std::fs::write(dir.path().join(META_FILE), "nonsense").unwrap();
        assert!(matches!(open(dir.path()), Err(OpenError::Damaged { .. })));
    }

    #[test]
    fn unknown_directories_are_set_aside_whole() {
        let dir = tempfile::tempdir().unwrap();
        let data = open(dir.path()).unwrap();
        for name in ["known-0", "unknown-0", ".hidden"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("unknown-0/file"), "kept").unwrap();
        data.set_aside(&RealFs, 77, |path| path.ends_with("known-0") && !path.ends_with("unknown-0"))
            .unwrap();
        assert!(!dir.path().join("unknown-0").exists());
        assert!(dir.path().join("known-0").exists() && dir.path().join(".hidden").exists());
        let kept = std::fs::read_to_string(dir.path().join(".set-aside/77/unknown-0/file")).unwrap();
        assert_eq!(kept, "kept");
    }
}

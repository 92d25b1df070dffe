//! The directories of logs in the data directory: making new ones, moving deleted ones away, and setting aside what
//! belongs to nobody.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::checkpoint::LogKey;
use super::data_dir::DataDir;
use super::epochs::{self, LeaderEpochs};
use super::fs::{Fs, OpenHow, is_no_room};
use super::recovery::key;
use super::room::Room;
use super::segment::file_name;
use super::types::LogSpec;
use super::{identity, seals};
use crate::clock::Clock;
use crate::types::{LeaderEpoch, Offset};

/// A locked data directory and the directories of logs in it.
pub(super) struct LogDirs {
    pub(super) data: DataDir,
    fs: Arc<dyn Fs>,
    room: Arc<Room>,
    clock: Arc<dyn Clock>,
    /// Those that belong to a log, whether it could be opened or not.
    known: Mutex<HashSet<PathBuf>>,
}

impl LogDirs {
    pub(super) fn new(data: DataDir, room: Arc<Room>, clock: Arc<dyn Clock>) -> Self {
        Self { data, fs: room.for_upkeep(), room, clock, known: Mutex::default() }
    }

    /// Where a log lies.
    pub(super) fn path(&self, spec: &LogSpec) -> PathBuf {
        self.data.log_dir(&spec.topic, spec.partition)
    }

    /// The directory of this log is not to be set aside.
    pub(super) fn know(&self, spec: &LogSpec) -> PathBuf {
        let dir = self.path(spec);
        self.known.lock().insert(dir.clone());
        dir
    }

    /// Makes the directories of new logs, durably: all of them, or none. What lies in their way and `is_open` does not
    /// know is set aside.
    ///
    /// # Errors
    /// Whatever the file system says; `AlreadyExists` for a log that is open.
    pub(super) fn create(
        &self,
        specs: &[LogSpec],
        epoch: LeaderEpoch,
        is_open: impl Fn(&Path) -> bool,
    ) -> io::Result<Vec<PathBuf>> {
        let dirs: Vec<PathBuf> = specs.iter().map(|spec| self.path(spec)).collect();
        dirs.iter().try_for_each(|dir| self.clear_way(dir, &is_open))?;
        let created = specs.iter().zip(&dirs).try_for_each(|(spec, dir)| self.create_one(spec, dir, epoch));
        if let Err(error) = created.and_then(|()| self.sync(&dirs)) {
            for dir in &dirs {
                // Also those that were not created; what stays is set aside at the next start.
                let _ = self.fs.remove_dir(dir);
            }
            return Err(error);
        }
        self.known.lock().extend(dirs.iter().cloned());
        Ok(dirs)
    }

    /// What lies where a new log shall be, such as a damaged log of a deleted topic, is set aside: never adopted, and
    /// never removed.
    fn clear_way(&self, dir: &Path, is_open: impl Fn(&Path) -> bool) -> io::Result<()> {
        match self.fs.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(entries) if entries.is_empty() => Ok(()),
            Ok(_) if is_open(dir) => Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} is there already", dir.display()),
            )),
            Ok(_) => self.data.set_aside_one(&*self.fs, self.clock.now_ms(), dir),
        }
    }

    fn create_one(&self, spec: &LogSpec, dir: &Path, epoch: LeaderEpoch) -> io::Result<()> {
        // A new log is no way around a full disk.
        let fs = self.room.for_log(spec.uses_reserve);
        fs.create_dir(dir)?;
        let files = [
            (identity::FILE.to_owned(), identity::encode(key(spec))),
            (seals::FILE.to_owned(), seals::encode(Offset::ZERO, &[])),
            (epochs::FILE.to_owned(), LeaderEpochs::of_new_log(epoch).encode()),
            (file_name(Offset::ZERO, "log"), Vec::new()),
        ];
        for (name, bytes) in files {
            let file = fs.open(&dir.join(name), OpenHow::CreateNew)?;
            file.write_all_at(&[&bytes], 0)?;
        }
        Ok(())
    }

    /// Makes new directories and what is in them durable: one by one if they are few, else with the whole file system.
    fn sync(&self, dirs: &[PathBuf]) -> io::Result<()> {
        const FEW: usize = 4;
        let root = &self.data.path;
        if dirs.len() > FEW && self.fs.can_sync_file_system(root) {
            return self.fs.open(root, OpenHow::Read)?.sync_file_system();
        }
        for dir in dirs {
            for entry in self.fs.list(dir)? {
                self.fs.open(&dir.join(entry.name), OpenHow::Read)?.sync()?;
            }
            self.fs.sync_dir(dir)?;
        }
        self.fs.sync_dir(root)
    }

    /// Moves the directories of deleted logs away, durably. Returns where they are now, to be removed; of those that
    /// could not be moved, the first error.
    pub(super) fn move_away(&self, logs: &[(PathBuf, LogKey)]) -> (Vec<PathBuf>, io::Result<()>) {
        let root = self.data.deleted_root();
        let mut moved = Vec::new();
        let mut outcome = self.fs.create_dir(&root);
        if outcome.is_ok() {
            for (dir, (topic_id, partition)) in logs {
                let target = self.data.deleted_dir(*topic_id, *partition);
                match self.fs.rename(dir, &target) {
                    Ok(()) => {
                        self.known.lock().remove(dir);
                        moved.push(target);
                    }
                    Err(error) => outcome = outcome.and(Err(error)),
                }
            }
        }
        if !moved.is_empty() {
            outcome = outcome.and(self.fs.sync_dir(&root)).and(self.fs.sync_dir(&self.data.path));
        }
        (moved, outcome)
    }

    /// The directory of a log that is not open, if it is this log's beyond doubt.
    pub(super) fn find(&self, spec: &LogSpec) -> Option<(PathBuf, LogKey)> {
        let (dir, key) = (self.path(spec), key(spec));
        (identity::read(&*self.fs, &dir).ok()? == Some(key)).then_some((dir, key))
    }

    /// Whether any directory says which log it belongs to.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) fn any(&self) -> io::Result<bool> {
        let entries = self.fs.list(&self.data.path)?;
        let mut dirs =
            entries.iter().filter(|entry| entry.is_dir).map(|entry| self.data.path.join(&entry.name));
        Ok(dirs.any(|dir| matches!(identity::read(&*self.fs, &dir), Ok(Some(_)))))
    }

    /// Sets aside the directories that belong to no log. For want of room they stay where they are.
    ///
    /// # Errors
    /// Whatever else the file system says.
    pub(super) fn set_aside_unknown(&self) -> io::Result<()> {
        let known = self.known.lock();
        match self.data.set_aside(&*self.fs, self.clock.now_ms(), |dir| known.contains(dir)) {
            Err(error) if is_no_room(&error) => {
                tracing::warn!(%error, "cannot set aside directories that no topic knows");
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// What interrupted deletions have left.
    pub(super) fn deleted(&self) -> Vec<PathBuf> {
        self.data.deleted(&*self.fs)
    }
}

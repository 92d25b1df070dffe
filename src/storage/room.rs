//! Room on the disk: a reserve for what must go on when the disk is full, and who may take from it.
//!
//! The reserve is the file `reserve`, which has its blocks. Where the disk turns down something that may take from it, the
//! file is cut a little and the call made again. What is freed so is anybody's, so appends that may not take from it are
//! refused from then on, without asking the disk, until the file has all its blocks again: the upkeep thread sees to
//! that once a second. While the reserve is whole they are tried, and cost nothing more.
//!
//! A reserve of blocks, and not a bound on the free space that a call asks for: others who fill the disk cannot take it.
//! It cannot help against a lack of inodes.
//!
//! | who                                    | reserve is whole     | broken into |
//! |----------------------------------------|----------------------|-------------|
//! | the store's own files, deletions       | may break it         | may take    |
//! | logs with [`LogSpec::uses_reserve`]    | may break it         | may take    |
//! | other logs                             | what else there is   | refused     |
//!
//! [`LogSpec::uses_reserve`]: super::LogSpec::uses_reserve

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::fs::{DirEntry, Fs, FsFile, LockOutcome, OpenHow, is_full};
use super::mmap::Map;

/// The file's name.
pub(super) const FILE: &str = "reserve";
/// It is given up in steps of at least this, so that a neighbour who fills the disk gets little of it. A step has room for
/// a new file or two on any usual file system.
const STEP_BYTES: u64 = 64 << 10;

/// The room of one data directory.
pub(super) struct Room {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    reserve: Mutex<Reserve>,
    /// The reserve is not whole: read with each write of a log.
    broken: AtomicBool,
    /// The start is on the disk: before, nothing may be appended.
    begun: AtomicBool,
}

/// The reserve's file.
struct Reserve {
    /// How long it is to be; 0: there is none to be.
    target_bytes: u64,
    file: Option<Arc<dyn FsFile>>,
    /// How long it is.
    held_bytes: u64,
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("path", &self.path).field("broken", &self.broken).finish_non_exhaustive()
    }
}

impl Room {
    /// Sets `reserve_bytes` aside in the data directory `dir`, or as much of it as was set aside before.
    pub(super) fn new(fs: Arc<dyn Fs>, dir: &Path, reserve_bytes: u64) -> Arc<Self> {
        let reserve = Reserve { target_bytes: reserve_bytes, file: None, held_bytes: 0 };
        let room = Self {
            fs,
            path: dir.join(FILE),
            reserve: Mutex::new(reserve),
            broken: AtomicBool::new(false),
            begun: AtomicBool::new(false),
        };
        if reserve_bytes == 0 {
            match room.fs.remove_file(&room.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %room.path.display(), %error, "cannot give the reserve up");
                }
                _ => {}
            }
        } else {
            room.restore();
        }
        Arc::new(room)
    }

    /// The file system for the store's own files: takes from the reserve.
    pub(super) fn for_upkeep(self: &Arc<Self>) -> Arc<dyn Fs> {
        self.view(Claim::Upkeep)
    }

    /// The file system through which a log appends.
    pub(super) fn for_log(self: &Arc<Self>, uses_reserve: bool) -> Arc<dyn Fs> {
        self.view(if uses_reserve { Claim::KeptLog } else { Claim::Log })
    }

    fn view(self: &Arc<Self>, claim: Claim) -> Arc<dyn Fs> {
        Arc::new(RoomFs { room: Arc::clone(self), claim })
    }

    /// The start is on the disk: logs may be appended to.
    pub(super) fn set_begun(&self) {
        self.begun.store(true, Ordering::Release);
    }

    /// Whether the start is on the disk.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Whether the reserve is to be made whole again.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Makes the reserve whole, if there is room for it.
    pub(super) fn restore(&self) {
        let mut reserve = self.reserve.lock();
        match self.fill(&mut reserve) {
            Ok(()) => {
                if self.broken.swap(false, Ordering::AcqRel) {
                    tracing::info!("there is room on the disk again: topics take records");
                }
            }
            Err(error) if is_full(&error) => self.set_broken(),
            Err(error) => {
                // No reason to refuse records: the disk need not be full.
                tracing::warn!(path = %self.path.display(), %error, "no room can be set aside for a full disk");
                reserve.target_bytes = reserve.held_bytes;
                self.broken.store(false, Ordering::Release);
            }
        }
    }

    fn fill(&self, reserve: &mut Reserve) -> io::Result<()> {
        let target_bytes = reserve.target_bytes;
        if reserve.file.is_some() && reserve.held_bytes == target_bytes {
            return Ok(());
        }
        let file = match &reserve.file {
            Some(file) => Arc::clone(file),
            None => self.fs.open(&self.path, OpenHow::Write)?,
        };
        if reserve.file.is_none() {
            reserve.held_bytes = file.len()?.min(target_bytes);
            file.set_len(reserve.held_bytes)?;
            reserve.file = Some(Arc::clone(&file));
        }
        if let Err(error) = file.allocate(target_bytes) {
            // What it got of the rest is others' to use.
            file.set_len(reserve.held_bytes)?;
            return Err(error);
        }
        reserve.held_bytes = target_bytes;
        Ok(())
    }

    /// Gives up some of the reserve. `false`: there is nothing left of it.
    fn release(&self, bytes: u64) -> bool {
        let mut reserve = self.reserve.lock();
        let Some(file) = reserve.file.as_ref().filter(|_| reserve.held_bytes > 0) else { return false };
        let left = reserve.held_bytes.saturating_sub(bytes.max(STEP_BYTES));
        // First, so that nobody who may not take it does.
        self.set_broken();
        if let Err(error) = file.set_len(left) {
            tracing::warn!(path = %self.path.display(), %error, "cannot take from the reserve");
            return false;
        }
        reserve.held_bytes = left;
        true
    }

    fn set_broken(&self) {
        if !self.broken.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                "the disk is full: the reserve is for deletions, committed offsets and the store's own files; topics take \
                 no records until there is room for all of it again"
            );
        }
    }

    /// Does something that takes up to `bytes` of new room, and leaves none of it taken when it fails for want of room.
    fn spend<T>(&self, claim: Claim, bytes: u64, act: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let may_append = || if self.has_begun() { Ok(()) } else { Err(io::ErrorKind::StorageFull) };
        match claim {
            Claim::Log if self.is_broken() => return Err(io::ErrorKind::StorageFull.into()),
            Claim::Log => {
                may_append()?;
                return act();
            }
            Claim::KeptLog => may_append()?,
            Claim::Upkeep => {}
        }
        loop {
            match act() {
                Err(error) if is_full(&error) && self.release(bytes) => {}
                outcome => return outcome,
            }
        }
    }
}

/// What one may do when the disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// The store's own files.
    Upkeep,
    /// Appends to a log that may take from the reserve.
    KeptLog,
    /// Appends to any other log.
    Log,
}

/// The file system, for one who has this claim.
#[derive(Debug)]
struct RoomFs {
    room: Arc<Room>,
    claim: Claim,
}

impl Fs for RoomFs {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn FsFile>> {
        if how == OpenHow::Read {
            return self.room.fs.open(path, how);
        }
        let file = self.room.spend(self.claim, 0, || self.room.fs.open(path, how))?;
        Ok(Arc::new(RoomFile { file, room: Arc::clone(&self.room), claim: self.claim }))
    }

    fn read_uncached(&self, path: &Path, range: Range<u64>) -> Option<Bytes> {
        self.room.fs.read_uncached(path, range)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.room.spend(self.claim, 0, || self.room.fs.create_dir(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.room.fs.list(dir)
    }

    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        self.room.fs.file_len(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.room.spend(self.claim, 0, || self.room.fs.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.room.fs.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.room.fs.remove_dir(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.room.fs.sync_dir(dir)
    }

    fn can_sync_file_system(&self, dir: &Path) -> bool {
        self.room.fs.can_sync_file_system(dir)
    }

    fn lock(&self, path: &Path, content: &str) -> io::Result<LockOutcome> {
        self.room.fs.lock(path, content)
    }

    fn lock_as_is(&self, path: &Path) -> io::Result<LockOutcome> {
        self.room.fs.lock_as_is(path)
    }
}

#[derive(Debug)]
struct RoomFile {
    file: Arc<dyn FsFile>,
    room: Arc<Room>,
    claim: Claim,
}

impl FsFile for RoomFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], position: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, position)
    }

    fn write_all_at(&self, bufs: &[&[u8]], position: u64) -> io::Result<()> {
        let bytes = bufs.iter().map(|buf| buf.len() as u64).sum();
        self.room.spend(self.claim, bytes, || self.file.write_all_at(bufs, position))
    }

    fn write_all_uncached_at(&self, bufs: &[&[u8]], position: u64) -> io::Result<()> {
        let bytes = bufs.iter().map(|buf| buf.len() as u64).sum();
        self.room.spend(self.claim, bytes, || self.file.write_all_uncached_at(bufs, position))
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        // What has not been written yet is nothing to take from the reserve for, nor to take before it is whole again.
        if self.room.is_broken() { Ok(()) } else { self.file.preallocate(len) }
    }

    fn give_back(&self) -> io::Result<()> {
        self.file.give_back()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.room.spend(self.claim, len, || self.file.allocate(len))
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn sync_file_system(&self) -> io::Result<()> {
        self.file.sync_file_system()
    }

    fn map(&self, len: u64) -> io::Result<Arc<dyn Map>> {
        self.file.map(len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sim_fs::{Disk, Lies, SimFs};
    use super::*;

    const RESERVE_BYTES: u64 = 3 * STEP_BYTES;

    fn room(disk: &Disk) -> (SimFs, Arc<Room>) {
        let fs = disk.boot();
        fs.create_dir(Path::new("data")).unwrap();
        let room = Room::new(Arc::new(fs.clone()), Path::new("data"), RESERVE_BYTES);
        (fs, room)
    }

    fn file(fs: &dyn Fs, name: &str) -> Arc<dyn FsFile> {
        fs.open(&Path::new("data").join(name), OpenHow::Write).unwrap()
    }

    fn held(fs: &SimFs) -> u64 {
        fs.file_len(&Path::new("data").join(FILE)).unwrap().unwrap()
    }

    fn is_refused(outcome: &io::Result<()>) -> bool {
        outcome.as_ref().is_err_and(is_full)
    }

    #[test]
    fn once_the_reserve_is_broken_into_only_those_it_is_for_write() {
        let disk = Disk::new(1, Lies::default());
        let (fs, room) = room(&disk);
        room.set_begun();
        let (log, kept) = (file(&*room.for_log(false), "log"), file(&*room.for_log(true), "kept"));
        log.write_all_at(&[b"1"], 0).unwrap();
        disk.set_room(Some(0));
        assert!(is_refused(&log.write_all_at(&[b"2"], 1)));
        assert_eq!((held(&fs), room.is_broken()), (RESERVE_BYTES, false), "it is not for these");
        kept.write_all_at(&[b"1"], 0).unwrap();
        assert_eq!((held(&fs), room.is_broken()), (RESERVE_BYTES - STEP_BYTES, true), "no more than needed");
        assert!(is_refused(&log.write_all_at(&[b"2"], 1)), "what was freed is not for these either");
        assert!(is_refused(&room.for_log(false).create_dir(Path::new("data/new"))));
        room.for_upkeep().create_dir(Path::new("data/upkeep")).unwrap();

        room.restore();
        assert_eq!(
            (held(&fs), room.is_broken()),
            (RESERVE_BYTES - STEP_BYTES, true),
            "there is no room for it"
        );
        // Nor did the attempt leave anything taken.
        kept.write_all_at(&[&vec![1; STEP_BYTES as usize - 1]], 1).unwrap();
        assert_eq!(held(&fs), RESERVE_BYTES - STEP_BYTES);
        disk.set_room(Some(10 * STEP_BYTES));
        room.restore();
        assert_eq!((held(&fs), room.is_broken()), (RESERVE_BYTES, false));
        log.write_all_at(&[b"2"], 1).unwrap();
    }

    #[test]
    fn the_reserve_has_an_end() {
        let disk = Disk::new(1, Lies::default());
        let (fs, room) = room(&disk);
        disk.set_room(Some(0));
        let upkeep = file(&*room.for_upkeep(), "file");
        upkeep.write_all_at(&[&vec![1; RESERVE_BYTES as usize]], 0).unwrap();
        assert_eq!(held(&fs), 0);
        assert!(is_refused(&upkeep.write_all_at(&[b"1"], RESERVE_BYTES)));
    }

    #[test]
    fn before_the_start_is_on_the_disk_nothing_is_appended() {
        let (_, room) = room(&Disk::new(1, Lies::default()));
        for uses_reserve in [false, true] {
            let opened = room.for_log(uses_reserve).open(Path::new("data/log"), OpenHow::Write);
            assert!(is_refused(&opened.map(drop)));
        }
    }

    #[test]
    fn the_reserve_follows_its_setting() {
        let disk = Disk::new(1, Lies::default());
        let (fs, _) = room(&disk);
        for reserve_bytes in [RESERVE_BYTES, 10, 500] {
            Room::new(Arc::new(fs.clone()), Path::new("data"), reserve_bytes);
            assert_eq!(held(&fs), reserve_bytes);
        }
        Room::new(Arc::new(fs.clone()), Path::new("data"), 0);
        assert_eq!(fs.file_len(&Path::new("data").join(FILE)).unwrap(), None);
    }
}

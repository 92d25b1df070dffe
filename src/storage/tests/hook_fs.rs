//! The real file system, with a hook before each step: it can fail the step, or hold it while something else happens. And
//! with as little room for log files as a test likes.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::super::fs::{DirEntry, Fs, FsFile, LockOutcome, OpenHow, RealFs};
use super::super::mmap::Map;
use super::Fixture;

/// A step, always with the path it is about; of a rename, the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Open,
    /// An open that makes a new file; it comes after [`Step::Open`].
    Create,
    CreateDir,
    Write,
    /// A write that is to leave nothing in the page cache; it comes before [`Step::Write`].
    WriteUncached,
    /// Blocks are set aside beyond the end.
    Preallocate,
    /// A change of the length.
    Cut,
    Rename,
    Remove,
    Sync,
    SyncDir,
}

type Hook = dyn Fn(Step, &Path) -> io::Result<()> + Send + Sync;

#[derive(Clone)]
pub(super) struct HookFs {
    hook: Arc<Mutex<Option<Arc<Hook>>>>,
    /// So much more can be written to log files.
    log_room_bytes: Arc<AtomicU64>,
    /// Files that are open, by the ends of their names, and the most there were at a time.
    open: Arc<Mutex<HashMap<OsString, (usize, usize)>>>,
    /// The next map that is touched from here on shows zeros there.
    vanishes_from: Arc<AtomicU64>,
    /// And says so only when it has been asked so many times.
    vanishes_untold: Arc<AtomicU64>,
    /// What the disk cannot read of log files.
    unreadable: Arc<Mutex<Range<u64>>>,
    /// Maps of log files say that nothing is in memory.
    is_forgetful: Arc<AtomicBool>,
    /// So much has been read past the page cache.
    uncached_bytes: Arc<AtomicU64>,
}

impl Default for HookFs {
    fn default() -> Self {
        let [log_room_bytes, vanishes_from] =
            [u64::MAX; 2].map(|no_limit| Arc::new(AtomicU64::new(no_limit)));
        Self {
            hook: Arc::default(),
            log_room_bytes,
            open: Arc::default(),
            vanishes_from,
            vanishes_untold: Arc::default(),
            unreadable: Arc::default(),
            is_forgetful: Arc::default(),
            uncached_bytes: Arc::default(),
        }
    }
}

/// A directory under test, on one of them.
pub(super) fn hooked() -> (Fixture, HookFs) {
    let fs = HookFs::default();
    let mut fixture = Fixture::new();
    fixture.fs = Arc::new(fs.clone());
    (fixture, fs)
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

impl HookFs {
    /// From now on log files can be written so much more; a write is cut short where the room ends. `None`: any.
    pub(super) fn set_log_room(&self, bytes: Option<u64>) {
        self.log_room_bytes.store(bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// From now on this step fails for log files, in place of the hook before.
    pub(super) fn fail_log(&self, failing: Step, kind: io::ErrorKind) {
        self.hook(move |step, path| if step == failing && is_log(path) { Err(kind.into()) } else { Ok(()) });
    }

    /// Nothing fails any more.
    pub(super) fn heal(&self) {
        *self.hook.lock() = None;
        self.set_log_room(None);
    }

    /// From now on; in place of the one before.
    pub(super) fn hook(&self, hook: impl Fn(Step, &Path) -> io::Result<()> + Send + Sync + 'static) {
        *self.hook.lock() = Some(Arc::new(hook));
    }

    /// How many files of this kind were open at a time, at most.
    pub(super) fn most_open(&self, extension: &str) -> usize {
        self.open.lock().get(OsStr::new(extension)).map_or(0, |(_, most)| *most)
    }

    /// The next time that a map lends out something beyond this position, it shows zeros from there on, and has failed
    /// from then on.
    pub(super) fn vanish_once(&self, from: u64) {
        self.vanishes_from.store(from, Ordering::Relaxed);
    }

    /// The same, at an access that comes after the map has been asked `times` whether it has failed.
    pub(super) fn vanish_after(&self, times: u64, from: u64) {
        self.vanishes_untold.store(times, Ordering::Relaxed);
        self.vanish_once(from);
    }

    /// Whether that has come to pass.
    pub(super) fn has_vanished(&self) -> bool {
        self.vanishes_from.load(Ordering::Relaxed) == u64::MAX
    }

    /// From now on the disk cannot read this part of log files.
    pub(super) fn set_unreadable(&self, range: Range<u64>) {
        *self.unreadable.lock() = range;
    }

    /// From now on nothing of log files is in memory.
    pub(super) fn forget_pages(&self) {
        self.is_forgetful.store(true, Ordering::Relaxed);
    }

    /// How much has been read past the page cache.
    pub(super) fn uncached_bytes(&self) -> u64 {
        self.uncached_bytes.load(Ordering::Relaxed)
    }

    /// A part of a log file is read.
    fn read(&self, range: &Range<u64>) -> io::Result<()> {
        let unreadable = self.unreadable.lock();
        let touches = range.start.max(unreadable.start) < range.end.min(unreadable.end);
        if touches { Err(rustix::io::Errno::IO.into()) } else { Ok(()) }
    }

    fn step(&self, step: Step, path: &Path) -> io::Result<()> {
        let hook = self.hook.lock().clone();
        hook.map_or(Ok(()), |hook| hook(step, path))
    }
}

impl fmt::Debug for HookFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookFs").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct HookFile {
    file: Arc<dyn FsFile>,
    path: PathBuf,
    fs: HookFs,
}

impl HookFile {
    fn new(file: Arc<dyn FsFile>, path: &Path, fs: HookFs) -> Self {
        let path = path.to_owned();
        {
            let mut open = fs.open.lock();
            let (now, most) = open.entry(path.extension().unwrap_or_default().to_owned()).or_default();
            *now += 1;
            *most = (*most).max(*now);
        }
        Self { file, path, fs }
    }
}

impl Drop for HookFile {
    fn drop(&mut self) {
        if let Some((now, _)) = self.fs.open.lock().get_mut(self.path.extension().unwrap_or_default()) {
            *now -= 1;
        }
    }
}

impl Fs for HookFs {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn FsFile>> {
        self.step(Step::Open, path)?;
        if how != OpenHow::Read && !path.exists() {
            self.step(Step::Create, path)?;
        }
        let file = RealFs.open(path, how)?;
        Ok(Arc::new(HookFile::new(file, path, self.clone())))
    }
    fn read_uncached(&self, path: &Path, range: Range<u64>) -> Option<Bytes> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.open(path, OpenHow::Read).and_then(|file| file.read_exact_at(&mut bytes, range.start)).ok()?;
        self.uncached_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Some(bytes.into())
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.step(Step::CreateDir, path)?;
        RealFs.create_dir(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        RealFs.list(dir)
    }
    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        RealFs.file_len(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(Step::Rename, to)?;
        RealFs.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.step(Step::Remove, path)?;
        RealFs.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.step(Step::Remove, path)?;
        RealFs.remove_dir(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.step(Step::SyncDir, dir)?;
        RealFs.sync_dir(dir)
    }
    fn can_sync_file_system(&self, _dir: &Path) -> bool {
        false
    }
    fn lock(&self, path: &Path, content: &str) -> io::Result<LockOutcome> {
        RealFs.lock(path, content)
    }
    fn lock_as_is(&self, path: &Path) -> io::Result<LockOutcome> {
        RealFs.lock_as_is(path)
    }
}

impl FsFile for HookFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_exact_at(&self, buf: &mut [u8], position: u64) -> io::Result<()> {
        if is_log(&self.path) {
            self.fs.read(&(position..position + buf.len() as u64))?;
        }
        self.file.read_exact_at(buf, position)
    }
    fn write_all_at(&self, bufs: &[&[u8]], position: u64) -> io::Result<()> {
        self.fs.step(Step::Write, &self.path)?;
        if !is_log(&self.path) {
            return self.file.write_all_at(bufs, position);
        }
        let bytes = bufs.concat();
        let room = self.fs.log_room_bytes.load(Ordering::Relaxed);
        let fits = room.min(bytes.len() as u64);
        self.file.write_all_at(&[&bytes[..fits as usize]], position)?;
        if fits < bytes.len() as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.fs.log_room_bytes.fetch_sub(fits, Ordering::Relaxed);
        Ok(())
    }
    fn write_all_uncached_at(&self, bufs: &[&[u8]], position: u64) -> io::Result<()> {
        self.fs.step(Step::WriteUncached, &self.path)?;
        self.write_all_at(bufs, position)
    }
    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.fs.step(Step::Preallocate, &self.path)?;
        self.file.preallocate(len)
    }
    fn give_back(&self) -> io::Result<()> {
        self.file.give_back()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fs.step(Step::Cut, &self.path)?;
        self.file.set_len(len)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.fs.step(Step::Write, &self.path)?;
        self.file.allocate(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.fs.step(Step::Sync, &self.path)?;
        self.file.sync()
    }
    fn sync_file_system(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn map(&self, len: u64) -> io::Result<Arc<dyn Map>> {
        let (map, fs) = (self.file.map(len)?, self.fs.clone());
        Ok(Arc::new(HookMap { map, fs, is_log: is_log(&self.path), failed: AtomicBool::new(false) }))
    }
}

#[derive(Debug)]
struct HookMap {
    map: Arc<dyn Map>,
    fs: HookFs,
    is_log: bool,
    failed: AtomicBool,
}

impl Map for HookMap {
    fn len(&self) -> u64 {
        self.map.len()
    }
    fn slice(self: Arc<Self>, range: Range<u64>) -> io::Result<Bytes> {
        if self.is_log {
            self.fs.read(&range)?;
        }
        let bytes = Arc::clone(&self.map).slice(range.clone())?;
        let from = self.fs.vanishes_from.load(Ordering::Relaxed);
        // An index is looked at before a log is.
        let is_later = self.fs.vanishes_untold.load(Ordering::Relaxed) > 0 && !self.is_log;
        if range.end <= from || is_later {
            return Ok(bytes);
        }
        self.fs.vanishes_from.store(u64::MAX, Ordering::Relaxed);
        self.failed.store(true, Ordering::Relaxed);
        let mut bytes = bytes.to_vec();
        bytes[from.saturating_sub(range.start) as usize..].fill(0);
        Ok(bytes.into())
    }
    fn slice_in_memory(self: Arc<Self>, range: Range<u64>) -> Option<Bytes> {
        if self.is_log && self.fs.is_forgetful.load(Ordering::Relaxed) {
            return None;
        }
        self.slice(range).ok()
    }
    fn has_failed(&self) -> bool {
        let times = |untold: u64| untold.checked_sub(1);
        let has_failed = self.failed.load(Ordering::Relaxed)
            && self.fs.vanishes_untold.fetch_update(Ordering::Relaxed, Ordering::Relaxed, times).is_err();
        has_failed || self.map.has_failed()
    }
}

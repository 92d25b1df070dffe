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
}

impl Default for HookFs {
    fn default() -> Self {
        let [log_room_bytes, vanishes_from] =
            [u64::MAX; 2].map(|no_limit| Arc::new(AtomicU64::new(no_limit)));
        Self { hook: Arc::default(), log_room_bytes, open: Arc::default(), vanishes_from }
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

    /// Whether that has come to pass.
    pub(super) fn has_vanished(&self) -> bool {
        self.vanishes_from.load(Ordering::Relaxed) == u64::MAX
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
        let vanishes_from = Arc::clone(&self.fs.vanishes_from);
        Ok(Arc::new(HookMap { map: self.file.map(len)?, vanishes_from, failed: AtomicBool::new(false) }))
    }
}

#[derive(Debug)]
struct HookMap {
    map: Arc<dyn Map>,
    vanishes_from: Arc<AtomicU64>,
    failed: AtomicBool,
}

impl Map for HookMap {
    fn len(&self) -> u64 {
        self.map.len()
    }
    fn slice(self: Arc<Self>, range: Range<u64>) -> io::Result<Bytes> {
        let bytes = Arc::clone(&self.map).slice(range.clone())?;
        let from = self.vanishes_from.load(Ordering::Relaxed);
        if range.end <= from {
            return Ok(bytes);
        }
        self.vanishes_from.store(u64::MAX, Ordering::Relaxed);
        self.failed.store(true, Ordering::Relaxed);
        let mut bytes = bytes.to_vec();
        bytes[from.saturating_sub(range.start) as usize..].fill(0);
        Ok(bytes.into())
    }
    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.map.has_failed()
    }
}

//! The real file system, with a hook before each step: it can fail the step, or hold it while something else happens.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::fs::{DirEntry, Fs, FsFile, LockOutcome, OpenHow, RealFs};
use super::super::mmap::Map;

/// A step, always with the path it is about; of a rename, the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Open,
    Rename,
    Sync,
    SyncDir,
}

type Hook = dyn Fn(Step, &Path) -> io::Result<()> + Send + Sync;

#[derive(Clone, Default)]
pub(super) struct HookFs {
    hook: Arc<Mutex<Option<Arc<Hook>>>>,
    /// Files that are open, by the ends of their names, and the most there were at a time.
    open: Arc<Mutex<HashMap<OsString, (usize, usize)>>>,
}

impl HookFs {
    /// From now on; in place of the one before.
    pub(super) fn hook(&self, hook: impl Fn(Step, &Path) -> io::Result<()> + Send + Sync + 'static) {
        *self.hook.lock() = Some(Arc::new(hook));
    }

    /// How many files of this kind were open at a time, at most.
    pub(super) fn most_open(&self, extension: &str) -> usize {
        self.open.lock().get(OsStr::new(extension)).map_or(0, |(_, most)| *most)
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
        let file = RealFs.open(path, how)?;
        Ok(Arc::new(HookFile::new(file, path, self.clone())))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
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
        RealFs.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
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
        self.file.write_all_at(bufs, position)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.fs.step(Step::Sync, &self.path)?;
        self.file.sync()
    }
    fn sync_file_system(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn map(&self, len: u64) -> io::Result<Arc<dyn Map>> {
        self.file.map(len)
    }
}

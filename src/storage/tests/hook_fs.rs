//! The real file system, with a hook before each step: it can fail the step, or hold it while something else happens.

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
pub(super) struct HookFs(Arc<Mutex<Option<Arc<Hook>>>>);

impl HookFs {
    /// From now on; in place of the one before.
    pub(super) fn hook(&self, hook: impl Fn(Step, &Path) -> io::Result<()> + Send + Sync + 'static) {
        *self.0.lock() = Some(Arc::new(hook));
    }

    fn step(&self, step: Step, path: &Path) -> io::Result<()> {
        let hook = self.0.lock().clone();
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

impl Fs for HookFs {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn FsFile>> {
        self.step(Step::Open, path)?;
        let file = RealFs.open(path, how)?;
        Ok(Arc::new(HookFile { file, path: path.to_owned(), fs: self.clone() }))
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

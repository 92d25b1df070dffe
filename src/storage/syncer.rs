//! Makes groups of files durable: by `fdatasync` of each, several at a time, or by one `syncfs`.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fs::{Fs, FsFile, OpenHow};
use crate::config::SyncMethod;

/// Files synced at a time.
const PARALLEL: usize = 8;
/// Up to so many files, `auto` does not consider `syncfs`, which also waits for what others write.
const FEW: usize = 4;
/// `auto` tries the other way once in so many groups, in case the neighbours have changed.
const TRY_OTHER_EVERY: u32 = 64;

/// Syncs groups of files of one data directory.
#[derive(Debug)]
pub(super) struct Syncer {
    /// The data directory, opened before anything was written: so it hears of every failed write-back.
    root: Arc<dyn FsFile>,
    method: Method,
}

#[derive(Debug)]
enum Method {
    Fdatasync,
    Syncfs,
    Auto(Costs),
}

/// What the two ways have cost lately.
#[derive(Debug, Default)]
struct Costs {
    /// Of `fdatasync`, for one file of a group.
    per_file: Option<Duration>,
    /// Of `syncfs`.
    whole: Option<Duration>,
    groups: u32,
}

impl Costs {
    /// Whether `syncfs` is the better way for a group of `files`.
    fn prefer_syncfs(&mut self, files: usize) -> bool {
        if files <= FEW {
            return false;
        }
        self.groups = self.groups.wrapping_add(1);
        let cheaper = match (self.per_file, self.whole) {
            (None, _) => false,
            (_, None) => true,
            (Some(per_file), Some(whole)) => whole < per_file.saturating_mul(files as u32),
        };
        cheaper != self.groups.is_multiple_of(TRY_OTHER_EVERY)
    }

    fn measured(&mut self, syncfs: bool, files: usize, took: Duration) {
        let (cost, took) =
            if syncfs { (&mut self.whole, took) } else { (&mut self.per_file, took / files.max(1) as u32) };
        *cost = Some(cost.map_or(took, |before| (before * 7 + took) / 8));
    }
}

impl Syncer {
    /// For the data directory `dir`. `syncfs` is used only where it reports every error.
    ///
    /// # Errors
    /// If the directory cannot be opened.
    pub(super) fn new(fs: &dyn Fs, dir: &Path, method: SyncMethod) -> io::Result<Self> {
        let root = fs.open(dir, OpenHow::Read)?;
        let method = match method {
            SyncMethod::Auto if fs.can_sync_file_system(dir) => Method::Auto(Costs::default()),
            SyncMethod::Auto | SyncMethod::Fdatasync => Method::Fdatasync,
            SyncMethod::Syncfs => Method::Syncfs,
        };
        Ok(Self { root, method })
    }

    /// Syncs `files`; the result says for each whether it is durable. An error is final for its file.
    pub(super) fn sync(&mut self, files: &[Arc<dyn FsFile>]) -> Vec<io::Result<()>> {
        let syncfs = match &mut self.method {
            Method::Fdatasync => false,
            Method::Syncfs => true,
            Method::Auto(costs) => costs.prefer_syncfs(files.len()),
        };
        let started = Instant::now();
        let outcome = if syncfs && self.sync_whole() {
            files.iter().map(|_| Ok(())).collect()
        } else {
            sync_each(files)
        };
        if let Method::Auto(costs) = &mut self.method {
            costs.measured(syncfs, files.len(), started.elapsed());
        }
        outcome
    }

    /// Whether one `syncfs` has made everything durable. Its error names no file, and may be another program's: then
    /// each file is asked through the descriptor it was written by. It is also told only once, and may be about a file
    /// that comes with a later group: so there is no further `syncfs`, whose success would not mean anything.
    fn sync_whole(&mut self) -> bool {
        match self.root.sync_file_system() {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "syncfs failed; syncing each file from now on");
                self.method = Method::Fdatasync;
                false
            }
        }
    }
}

/// Syncs each file, several at a time.
pub(super) fn sync_each(files: &[Arc<dyn FsFile>]) -> Vec<io::Result<()>> {
    if let [file] = files {
        return vec![file.sync()];
    }
    let share = files.len().div_ceil(PARALLEL).max(1);
    std::thread::scope(|scope| {
        let workers: Vec<_> = files
            .chunks(share)
            .map(|some| (some.len(), scope.spawn(|| some.iter().map(|file| file.sync()).collect::<Vec<_>>())))
            .collect();
        workers
            .into_iter()
            .flat_map(|(count, worker)| {
                worker.join().unwrap_or_else(|_| {
                    (0..count).map(|_| Err(io::Error::other("the syncing thread panicked"))).collect()
                })
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::FailsOnce;
    use super::*;

    #[test]
    fn an_error_that_syncfs_told_with_one_group_is_not_lost_for_the_next() {
        let mut syncer = Syncer { root: Arc::new(FailsOnce::default()), method: Method::Syncfs };
        // Not of this group, but written already: its write-back fails while this group is synced.
        let failed: Arc<dyn FsFile> = Arc::new(FailsOnce::default());
        assert!(syncer.sync(&[]).is_empty());
        assert!(syncer.sync(&[failed])[0].is_err());
    }

    #[test]
    fn auto_uses_syncfs_only_for_many_files_and_while_it_is_cheaper() {
        let mut costs = Costs::default();
        assert!(!costs.prefer_syncfs(FEW));
        assert!(!costs.prefer_syncfs(100), "nothing is known: the safe way");
        costs.measured(false, 100, Duration::from_millis(100));
        assert!(costs.prefer_syncfs(100), "not tried yet");
        costs.measured(true, 100, Duration::from_millis(10));
        assert!(costs.prefer_syncfs(100));
        assert!(!costs.prefer_syncfs(9), "9 ms against 10");
        for _ in 0..50 {
            costs.measured(true, 100, Duration::from_secs(1));
        }
        assert!(!costs.prefer_syncfs(100), "a busy neighbour has made it dear");
        let tries = (0..TRY_OTHER_EVERY).filter(|_| costs.prefer_syncfs(100)).count();
        assert_eq!(tries, 1, "but it is tried now and then");
    }
}

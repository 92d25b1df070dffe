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
/// `auto` tries the other way, in case the neighbours have changed, once the better one has taken so many times as long as
/// that is going to: trying costs about one part in so many.
const TRY_OTHER_AFTER: u32 = 64;
/// What a try is expected to take at most. A neighbour may have made it slower once, and be gone.
const LONGEST_TRY: Duration = Duration::from_secs(1);

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
    /// Of `fdatasync`, for one file of a group of many.
    per_file: Option<Duration>,
    /// Of `syncfs`.
    whole: Option<Duration>,
    /// What all groups of many files have taken since the dearer way was tried; zero while it is being tried.
    since_try: Duration,
}

impl Costs {
    /// Whether a group of `files` is to be synced by `syncfs`: it is the better way, or the other one is due to be tried.
    fn choose_syncfs(&mut self, files: usize) -> bool {
        if files <= FEW {
            return false;
        }
        let (Some(per_file), Some(whole)) = (self.per_file, self.whole) else {
            return self.per_file.is_some();
        };
        let each = per_file.saturating_mul(files as u32);
        let is_try = self.since_try >= each.max(whole).min(LONGEST_TRY) * TRY_OTHER_AFTER;
        if is_try {
            self.since_try = Duration::ZERO;
        }
        (whole < each) != is_try
    }

    /// Few files say nothing of many: they share little of what a commit of the file system's journal costs.
    fn measured(&mut self, syncfs: bool, files: usize, took: Duration) {
        if files <= FEW {
            return;
        }
        let is_try = self.since_try.is_zero();
        self.since_try += took;
        let (cost, took) =
            if syncfs { (&mut self.whole, took) } else { (&mut self.per_file, took / files as u32) };
        // What is tried once in a while is told by that try alone.
        let before = cost.filter(|_| !is_try);
        *cost = Some(before.map_or(took, |before| (before * 7 + took) / 8));
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
            Method::Auto(costs) => costs.choose_syncfs(files.len()),
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

/// Syncs each file, several at a time: the first share of them on this thread.
pub(super) fn sync_each(files: &[Arc<dyn FsFile>]) -> Vec<io::Result<()>> {
    let in_turn = |some: &[Arc<dyn FsFile>]| some.iter().map(|file| file.sync()).collect::<Vec<_>>();
    let mut shares = files.chunks(files.len().div_ceil(PARALLEL).max(1));
    let own = shares.next().unwrap_or_default();
    std::thread::scope(|scope| {
        let others: Vec<_> = shares.map(|some| (some.len(), scope.spawn(move || in_turn(some)))).collect();
        let mut outcomes = in_turn(own);
        for (count, other) in others {
            outcomes.extend(other.join().unwrap_or_else(|_| {
                (0..count).map(|_| Err(io::Error::other("the syncing thread panicked"))).collect()
            }));
        }
        outcomes
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
        assert!(!costs.choose_syncfs(FEW));
        assert!(!costs.choose_syncfs(100), "nothing is known: the safe way");
        costs.measured(false, 1, Duration::from_millis(1));
        assert!(!costs.choose_syncfs(100), "one file says nothing of many");
        costs.measured(false, 100, Duration::from_millis(100));
        assert!(costs.choose_syncfs(100), "not tried yet");
        costs.measured(true, 100, Duration::from_millis(10));
        assert!(costs.choose_syncfs(100));
        assert!(!costs.choose_syncfs(9), "9 ms against 10");
        for _ in 0..50 {
            costs.measured(true, 100, Duration::from_secs(1));
        }
        costs.since_try = Duration::ZERO;
        assert!(!costs.choose_syncfs(100), "a busy neighbour has made it dear");
    }

    #[test]
    fn the_dearer_way_is_tried_in_one_part_of_the_time() {
        for (each_ms, whole_ms) in [(100, 10), (10, 100)] {
            let mut costs = Costs::default();
            costs.measured(false, 100, Duration::from_millis(each_ms));
            costs.measured(true, 100, Duration::from_millis(whole_ms));
            let (mut cheaper, mut dearer) = (0, 0);
            for _ in 0..6500 {
                let syncfs = costs.choose_syncfs(100);
                if syncfs == (whole_ms < each_ms) {
                    cheaper += 1;
                } else {
                    dearer += 1;
                }
                costs.measured(syncfs, 100, Duration::from_millis(if syncfs { whole_ms } else { each_ms }));
            }
            assert_eq!((cheaper, dearer), (6490, 10), "{each_ms} and {whole_ms} ms");
        }
    }

    #[test]
    fn the_better_way_is_found_again_when_a_neighbour_has_gone() {
        let mut costs = Costs::default();
        costs.measured(false, 100, Duration::from_millis(100));
        costs.measured(true, 100, Duration::from_mins(1));
        let mut syncing = Duration::ZERO;
        while !costs.choose_syncfs(100) {
            let took = Duration::from_millis(100);
            costs.measured(false, 100, took);
            syncing += took;
        }
        costs.measured(true, 100, Duration::from_millis(1));
        assert!(costs.choose_syncfs(100), "one try tells");
        assert!(syncing <= LONGEST_TRY * (TRY_OTHER_AFTER + 1), "{syncing:?}");
    }
}

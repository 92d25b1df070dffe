//! What a start costs, orderly or after a crash, and what it costs to make indexes anew; each side by side with a bare loop
//! that opens the same files, or reads the same bytes.
//!
//! Clean start. 1,000 and 10,000 partitions with a batch in each, closed in an orderly way. One round is one start, until
//! the store takes appends, against a loop on one thread that opens and stats the same files in their directories. Everything
//! is in memory. Not timed: ending the store.
//!
//! Unclean start. A data directory of 2,000 partitions with 10 GiB in all, as a crash leaves it before the first
//! checkpoint: every byte is above its recovery point, which is the worst there is. One round is one start, from
//! [`Store::open`] until the store takes appends; it opens every file, checks every batch, makes the indexes and writes
//! what was not known to be synced again. Against a loop on one thread that opens the same files and reads the same bytes
//! by 1 MiB. Not timed: ending the store, and putting the directory back to how the crash left it.
//!
//! Index rebuild. A log of 1 GiB in sealed segments whose indexes are gone; one round is an orderly start and one read in
//! each segment, which makes its indexes anew. Against a loop that reads the same log files by 1 MiB.
//!
//! The latter two are cold: before each turn everything is synced and the files are given up to the kernel
//! (`posix_fadvise`, `DONTNEED`). What a hypervisor or the disk keeps in its own memory cannot be told.
//!
//! The files lie under the target directory, and are removed at the end. Sizes can be set: `SAGWAN_BENCH_PARTITIONS`,
//! `SAGWAN_BENCH_START_MIB` (in all), `SAGWAN_BENCH_INDEX_MIB`, `SAGWAN_BENCH_CLEAN_PARTITIONS`; with `--test` they are small.
#![allow(clippy::expect_used, reason = "a step that fails ends the bench")]

mod directory;
mod interleave;

use std::fs::{self, File};
use std::hint::black_box;
use std::io::ErrorKind;
use std::path::PathBuf;

use criterion::{Criterion, criterion_group, criterion_main};
use directory::{BATCH_BYTES, Directory, READ_BYTES, entries, read_files, size, total_bytes};
use interleave::{Contender, compare};
use sagwan::storage::{LogHandle, Store};
use sagwan::types::Offset;

/// What a start replaces.
const START_FILES: [&str; 3] = ["checkpoint", "checkpoint.old", "durable"];

/// A start after a crash.
struct UncleanStart<'a> {
    directory: &'a Directory,
    /// What the crash left, by name.
    left: Vec<(&'static str, Option<Vec<u8>>)>,
    log_bytes: u64,
    running: Option<(Store, Vec<LogHandle>)>,
}

impl<'a> UncleanStart<'a> {
    fn new(directory: &'a Directory) -> Self {
        let left = START_FILES.map(|name| (name, fs::read(directory.root.path().join(name)).ok())).into();
        let log_bytes = total_bytes(&directory.files("log"));
        Self { directory, left, log_bytes, running: None }
    }
}

impl Contender for UncleanStart<'_> {
    fn name(&self) -> &'static str {
        "unclean start"
    }

    fn is_baseline(&self) -> bool {
        false
    }

    fn prepare(&mut self) {
        drop(self.running.take());
        for (name, content) in &self.left {
            let path = self.directory.root.path().join(name);
            match content {
                Some(content) => fs::write(path, content).expect("the file as it was"),
                None => drop(fs::remove_file(path)),
            }
        }
        for path in ["index", "timeindex"].into_iter().flat_map(|extension| self.directory.files(extension)) {
            fs::remove_file(path).expect("the crash came before it");
        }
        self.directory.forget();
    }

    fn work(&mut self) {
        let (store, logs) = self.directory.start();
        assert_eq!(store.stats().recovered_bytes, self.log_bytes, "all of it is scanned");
        self.running = Some((store, logs));
    }
}

/// An orderly start without indexes, and one read in each sealed segment.
struct IndexRebuild<'a> {
    directory: &'a Directory,
    /// The base and the last offset of each sealed segment.
    sealed: Vec<(Offset, Offset)>,
    running: Option<(Store, Vec<LogHandle>)>,
    rounds: u32,
}

impl<'a> IndexRebuild<'a> {
    fn new(directory: &'a Directory) -> Self {
        let base = |path: &PathBuf| path.file_stem()?.to_str()?.parse().ok().and_then(Offset::new);
        let mut bases: Vec<Offset> = directory.files("log").iter().filter_map(base).collect();
        bases.sort_unstable();
        let last = |next: Offset| Offset::clamped(next.get() - 1);
        let sealed = bases.windows(2).map(|pair| (pair[0], last(pair[1]))).collect();
        Self { directory, sealed, running: Some(directory.start()), rounds: 0 }
    }
}

impl Contender for IndexRebuild<'_> {
    fn name(&self) -> &'static str {
        "index rebuild"
    }

    fn is_baseline(&self) -> bool {
        false
    }

    fn prepare(&mut self) {
        if let Some((store, _)) = self.running.take() {
            store.close().expect("an orderly end");
        }
        for (base, _) in &self.sealed {
            for path in [format!("{base:0>20}.index"), format!("{base:0>20}.timeindex")] {
                match fs::remove_file(self.directory.root.path().join("bench-0").join(path)) {
                    // A crash can come before a segment has been sealed, and its indexes written.
                    Err(error) if error.kind() == ErrorKind::NotFound && self.rounds == 0 => {}
                    outcome => outcome.expect("the index that the last round has made"),
                }
            }
        }
        self.rounds += 1;
        self.directory.forget();
    }

    fn work(&mut self) {
        let (store, logs) = self.directory.start();
        for (_, last) in &self.sealed {
            let read = logs.first().expect("one log").read(*last, 1).expect("a readable log");
            black_box(read);
        }
        self.running = Some((store, logs));
    }
}

/// Opens files and reads them to their ends.
struct BareLoop<'a> {
    directory: &'a Directory,
    files: Vec<PathBuf>,
    buffer: Vec<u8>,
}

impl<'a> BareLoop<'a> {
    fn new(directory: &'a Directory, files: Vec<PathBuf>) -> Self {
        Self { directory, files, buffer: vec![0; READ_BYTES] }
    }
}

impl Contender for BareLoop<'_> {
    fn name(&self) -> &'static str {
        "bare loop"
    }

    fn is_baseline(&self) -> bool {
        true
    }

    fn prepare(&mut self) {
        self.directory.forget();
    }

    fn work(&mut self) {
        read_files(&self.files, &mut self.buffer);
    }
}

/// An orderly start.
struct CleanStart<'a> {
    directory: &'a Directory,
    running: Option<Store>,
}

impl Contender for CleanStart<'_> {
    fn name(&self) -> &'static str {
        "clean start"
    }

    fn is_baseline(&self) -> bool {
        false
    }

    fn prepare(&mut self) {
        if let Some(store) = self.running.take() {
            store.close().expect("an orderly end");
        }
    }

    fn work(&mut self) {
        let (store, _) = self.directory.start();
        assert!(store.was_clean());
        self.running = Some(store);
    }
}

/// Does with each file what a clean start does: it asks how long logs and time indexes are, and opens all else.
struct StatLoop {
    files: Vec<PathBuf>,
}

impl Contender for StatLoop {
    fn name(&self) -> &'static str {
        "bare loop"
    }

    fn is_baseline(&self) -> bool {
        true
    }

    fn prepare(&mut self) {}

    fn work(&mut self) {
        for path in &self.files {
            let is_never_opened =
                path.extension().is_some_and(|found| found == "log" || found == "timeindex");
            let found = if is_never_opened {
                fs::metadata(path)
            } else {
                File::open(path).and_then(|file| file.metadata())
            };
            black_box(found.expect("a file"));
        }
    }
}

fn clean_start(criterion: &mut Criterion) {
    let most = size("SAGWAN_BENCH_CLEAN_PARTITIONS", 10_000, 20);
    for partitions in [most / 10, most] {
        let directory = Directory::create(partitions, 1);
        let (store, _) = directory.start();
        store.close().expect("an orderly end");
        drop(store);
        let dirs = entries(directory.root.path()).into_iter().filter(|path| path.is_dir());
        let files: Vec<PathBuf> = dirs.flat_map(|dir| entries(&dir)).collect();
        let count = files.len() as u64;
        let contenders: &mut [Box<dyn Contender + '_>] = &mut [
            Box::new(CleanStart { directory: &directory, running: None }),
            Box::new(StatLoop { files }),
        ];
        compare(criterion, &format!("clean start with {partitions} partitions"), count, contenders);
    }
}

fn unclean_start(criterion: &mut Criterion) {
    let partitions = size("SAGWAN_BENCH_PARTITIONS", 2_000, 20);
    let mib = size("SAGWAN_BENCH_START_MIB", 10 << 10, 40);
    let directory = Directory::create(partitions, (mib << 20) / BATCH_BYTES / partitions);
    let files = directory.files("log");
    let bytes = total_bytes(&files);
    let contenders: &mut [Box<dyn Contender + '_>] =
        &mut [Box::new(UncleanStart::new(&directory)), Box::new(BareLoop::new(&directory, files))];
    compare(criterion, &format!("start with {partitions} partitions"), bytes, contenders);
}

fn index_rebuild(criterion: &mut Criterion) {
    // One more, so that the last of those that count is sealed.
    let mib = size("SAGWAN_BENCH_INDEX_MIB", 1 << 10, 256);
    let directory = Directory::create(1, ((mib + 1) << 20) / BATCH_BYTES);
    let mut files = directory.files("log");
    files.pop();
    let bytes = total_bytes(&files);
    let contenders: &mut [Box<dyn Contender + '_>] =
        &mut [Box::new(IndexRebuild::new(&directory)), Box::new(BareLoop::new(&directory, files))];
    compare(criterion, "index rebuild", bytes, contenders);
}

criterion_group!(recovery, clean_start, unclean_start, index_rebuild);
criterion_main!(recovery);

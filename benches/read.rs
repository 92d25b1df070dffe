//! What it costs to read a log that is not in memory, side by side with a loop that reads the same files to their ends.
//!
//! One partition of 8 GiB in segments of 128 MiB. One round is an orderly start and one walk through all of it, 1 MiB at a
//! time, each copied once into a buffer as a transport does. The log finds batches by its index and checks every block, as it
//! is its first read since the start. Against reads of the same log files by 1 MiB.
//!
//! Cold: before each turn the store is closed, as what is mapped is not given up, everything is synced, and the files are
//! given up to the kernel (`posix_fadvise`, `DONTNEED`). What a hypervisor or the disk keeps in its own memory cannot be
//! told; and where memory that was given up is slow to get back, that is most of the time of both.
//!
//! The files lie under the target directory, and are removed at the end. `SAGWAN_BENCH_READ_MIB` sets the size; with `--test`
//! it is small.
#![allow(clippy::expect_used, reason = "a step that fails ends the bench")]

mod directory;
mod interleave;

use std::cell::RefCell;
use std::hint::black_box;
use std::path::PathBuf;

use criterion::{Criterion, criterion_group, criterion_main};
use directory::{BATCH_BYTES, Directory, READ_BYTES, read_files, size, total_bytes};
use interleave::{Contender, compare};
use sagwan::storage::Store;
use sagwan::types::Offset;

/// The directory, and its store while that is open.
struct Cold<'a> {
    directory: &'a Directory,
    running: RefCell<Option<Store>>,
}

impl Cold<'_> {
    /// Nothing of it stays in memory.
    fn prepare(&self) {
        if let Some(store) = self.running.take() {
            store.close().expect("an orderly end");
        }
        self.directory.forget();
    }
}

/// Reads the log.
struct LogRead<'a> {
    cold: &'a Cold<'a>,
    bytes: u64,
    buffer: Vec<u8>,
}

impl Contender for LogRead<'_> {
    fn name(&self) -> &'static str {
        "log"
    }

    fn is_baseline(&self) -> bool {
        false
    }

    fn prepare(&mut self) {
        self.cold.prepare();
    }

    fn work(&mut self) {
        let (store, logs) = self.cold.directory.start();
        let log = logs.first().expect("one log");
        let (mut offset, mut bytes) = (Offset::ZERO, 0);
        while offset < log.durable_offset() {
            let read = log.read(offset, READ_BYTES as u64).expect("a readable log");
            self.buffer.clear();
            read.chunks.iter().for_each(|chunk| self.buffer.extend_from_slice(chunk));
            black_box(&self.buffer);
            assert!(read.lease.is_intact());
            offset = read.next_offset;
            bytes += read.size_bytes;
        }
        assert_eq!(bytes, self.bytes, "all of it is read");
        self.cold.running.replace(Some(store));
    }
}

/// Reads files to their ends.
struct FileRead<'a> {
    cold: &'a Cold<'a>,
    files: Vec<PathBuf>,
    buffer: Vec<u8>,
}

impl Contender for FileRead<'_> {
    fn name(&self) -> &'static str {
        "sequential reads of the files"
    }

    fn is_baseline(&self) -> bool {
        true
    }

    fn prepare(&mut self) {
        self.cold.prepare();
    }

    fn work(&mut self) {
        read_files(&self.files, &mut self.buffer);
    }
}

fn cold_read(criterion: &mut Criterion) {
    let mib = size("SAGWAN_BENCH_READ_MIB", 8 << 10, 256);
    let directory = Directory::create(1, (mib << 20) / BATCH_BYTES);
    // What the crash of its making leaves is put right.
    let (store, _) = directory.start();
    let files = directory.files("log");
    let bytes = total_bytes(&files);
    let cold = Cold { directory: &directory, running: RefCell::new(Some(store)) };
    let contenders: &mut [Box<dyn Contender + '_>] = &mut [
        Box::new(LogRead { cold: &cold, bytes, buffer: Vec::with_capacity(2 * READ_BYTES) }),
        Box::new(FileRead { cold: &cold, files, buffer: vec![0; READ_BYTES] }),
    ];
    compare(criterion, "cold read", bytes, contenders);
}

criterion_group!(read, cold_read);
criterion_main!(read);

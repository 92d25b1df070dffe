//! The file that a log's writer appends to, through the one descriptor that hears of its failed write-backs.
//!
//! The kernel tells a failed write-back once to each descriptor, whoever syncs it first. This one is synced by two
//! threads, the writer at a roll and the syncing thread with a group: the error that one of them was told must not
//! look like success to the other.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::fs::FsFile;
use super::mmap::Map;

/// A file for which a failed sync is final: every later one fails too.
#[derive(Debug)]
pub(super) struct LogFile {
    file: Arc<dyn FsFile>,
    /// What the failed sync said.
    failure: Mutex<Option<(io::ErrorKind, String)>>,
}

impl LogFile {
    pub(super) fn new(file: Arc<dyn FsFile>) -> Self {
        Self { file, failure: Mutex::new(None) }
    }
}

impl FsFile for LogFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], position: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, position)
    }

    fn write_all_at(&self, bufs: &[&[u8]], position: u64) -> io::Result<()> {
        self.file.write_all_at(bufs, position)
    }

    fn write_all_uncached_at(&self, bufs: &[&[u8]], position: u64) -> io::Result<()> {
        self.file.write_all_uncached_at(bufs, position)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.file.preallocate(len)
    }

    fn give_back(&self) -> io::Result<()> {
        self.file.give_back()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn sync(&self) -> io::Result<()> {
        // Held meanwhile, so that nobody is told of success between the error and its record.
        let mut failure = self.failure.lock();
        if let Some((kind, text)) = &*failure {
            return Err(io::Error::new(*kind, text.clone()));
        }
        self.file.sync().inspect_err(|error| *failure = Some((error.kind(), error.to_string())))
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
    use super::super::tests::FailsOnce;
    use super::*;

    #[test]
    fn a_sync_error_told_to_one_is_told_to_all() {
        let file = LogFile::new(Arc::new(FailsOnce::default()));
        let first = file.sync().unwrap_err();
        let second = file.sync().unwrap_err();
        assert_eq!((first.kind(), first.to_string()), (second.kind(), second.to_string()));
    }
}

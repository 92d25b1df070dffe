//! The file system as the storage layer sees it: every access to a file or directory goes through [`Fs`], so that a
//! test can put a faulty or simulated one underneath. The machine's own is [`RealFs`].

mod real;
#[cfg(target_os = "linux")]
mod uncached;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
pub use real::RealFs;

use super::mmap::Map;

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenHow {
    /// An existing file or directory, to read.
    Read,
    /// To read and write; created if it is not there.
    Write,
    /// To read and write; it must not be there yet.
    CreateNew,
}

/// What a directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name; one that is not UTF-8 is given with replacement characters and matches nothing of ours.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// What came of trying to lock a file.
pub enum LockOutcome {
    /// Ours until the guard is dropped.
    Locked(Box<dyn Send + Sync>),
    /// Another process has it; this is what it wrote there.
    Held {
        /// The content of the lock file.
        holder: String,
    },
}

/// Directories and files. Nothing is durable before the file is synced, and no name before its directory is.
pub trait Fs: Send + Sync + fmt::Debug + 'static {
    /// Opens a file.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn FsFile>>;
    /// Reads a range of a file into memory of its own, past the page cache. `None` where that cannot be done: reading it
    /// otherwise tells why.
    fn read_uncached(&self, _path: &Path, _range: Range<u64>) -> Option<Bytes> {
        None
    }
    /// Creates a directory, and those above it that are missing.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Lists a directory, in no particular order.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// The length of a file, `None` if there is none.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn file_len(&self, path: &Path) -> io::Result<Option<u64>>;
    /// Moves a file or directory, replacing a file that is there.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory with all it holds.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Whether [`FsFile::sync_file_system`] is known to report every failed write-back: on ext4, xfs and btrfs,
    /// Linux 5.8 or newer.
    fn can_sync_file_system(&self, dir: &Path) -> bool;
    /// Tries to lock a file, which is created with `content` for those who come later.
    ///
    /// # Errors
    /// Whatever the file system says, but for the lock being held.
    fn lock(&self, path: &Path, content: &str) -> io::Result<LockOutcome>;
    /// Tries to lock a file that is there, and changes nothing of it: whoever comes later reads what the one before
    /// wrote.
    ///
    /// # Errors
    /// Whatever the file system says, `NotFound` if there is none, but for the lock being held.
    fn lock_as_is(&self, path: &Path) -> io::Result<LockOutcome>;
}

/// An open file; reads and writes name their place.
#[expect(clippy::len_without_is_empty, reason = "nobody asks")]
pub trait FsFile: Send + Sync + fmt::Debug {
    /// Its length.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn len(&self) -> io::Result<u64>;
    /// Fills `buf` from `position`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before; else whatever the file system says.
    fn read_exact_at(&self, buf: &mut [u8], position: u64) -> io::Result<()>;
    /// Writes all of `bufs`, one after the other, from `position` on. After an error any part may be written.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn write_all_at(&self, bufs: &[&[u8]], position: u64) -> io::Result<()>;
    /// The same, and leaves nothing of it in the page cache once it is written back, where the file system can do that.
    ///
    /// # Errors
    /// As [`FsFile::write_all_at`].
    fn write_all_uncached_at(&self, bufs: &[&[u8]], position: u64) -> io::Result<()> {
        self.write_all_at(bufs, position)
    }
    /// Sets blocks aside beyond its end, up to `len` bytes, where the file system can do that; its length stays.
    ///
    /// # Errors
    /// Whatever the file system says: writes go on without.
    fn preallocate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }
    /// Gives back the blocks beyond its end. Called while nobody writes to it.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn give_back(&self) -> io::Result<()> {
        Ok(())
    }
    /// Cuts it, or lengthens it with zeros.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes it `len` bytes long at least, with room on the disk for all of them.
    ///
    /// # Errors
    /// Whatever the file system says; a part may have been done.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Makes its content and length durable.
    ///
    /// # Errors
    /// Whatever the file system says. What was written before is then lost for good: asking again is no remedy.
    fn sync(&self) -> io::Result<()>;
    /// Makes everything on the file system that holds it durable, names too. The error of a write-back is told once to
    /// each open file: only one that was open before the writes hears of all of them. May be a directory.
    ///
    /// # Errors
    /// Whatever the file system says; it need not be about a file of ours.
    fn sync_file_system(&self) -> io::Result<()>;
    /// Maps its first `len` bytes for reading; they may lie beyond its end for now.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn map(&self, len: u64) -> io::Result<Arc<dyn Map>>;
}

/// Whether it is for want of room: on the disk, or below the largest size that this process may give a file.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    is_full(error) || error.kind() == io::ErrorKind::FileTooLarge
}

/// Whether the disk cannot read what lies there.
pub(super) fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Whether the disk is full, or this user's share of it.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Reads a whole file; `None` if there is none.
pub(super) fn read_whole(fs: &dyn Fs, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match fs.open(path, OpenHow::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = usize::try_from(file.len()?).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_opened_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert_eq!(read_whole(&RealFs, &path).unwrap(), None);
        std::fs::write(&path, "content").unwrap();
        assert_eq!(read_whole(&RealFs, &path).unwrap().unwrap(), b"content");
        read_whole(&RealFs, &path.join("within")).unwrap_err();
    }
}

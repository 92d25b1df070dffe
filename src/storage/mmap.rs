//! Read-only maps of files behind a safe view; the one place with `unsafe`.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Advice, MmapOptions, MmapRaw};

/// The first part of a file, mapped for reading.
#[expect(clippy::len_without_is_empty, reason = "a map is never empty")]
pub trait Map: Send + Sync + fmt::Debug {
    /// How many bytes are mapped; the file may be shorter for now.
    fn len(&self) -> u64;
    /// Brings a range into memory and lends it out; may block on the disk. Whoever calls promises that these bytes
    /// of the file do not change any more, and are not cut off, while anybody holds the result.
    ///
    /// # Errors
    /// `UnexpectedEof` if the range is not all mapped, or the file ends within it; else what the disk says.
    fn slice(self: Arc<Self>, range: Range<u64>) -> io::Result<Bytes>;
}

/// A map of a real file.
#[derive(Debug)]
pub(super) struct FileMap {
    raw: MmapRaw,
}

impl FileMap {
    /// Maps the first `len` bytes of `file`; `len` must not be 0.
    pub(super) fn new(file: &File, len: u64) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        Ok(Self { raw: MmapOptions::new().len(len).map_raw_read_only(file)? })
    }
}

impl Map for FileMap {
    fn len(&self) -> u64 {
        self.raw.len() as u64
    }

    fn slice(self: Arc<Self>, range: Range<u64>) -> io::Result<Bytes> {
        if range.start > range.end || range.end > self.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (start, len) = (range.start as usize, (range.end - range.start) as usize);
        if len == 0 {
            return Ok(Bytes::new());
        }
        populate(&self.raw, start, len)?;
        Ok(Bytes::from_owner(MappedRange { map: self, start, len }))
    }
}

/// Faults the pages in now, so that an error of the disk is an error here and not a signal later.
fn populate(raw: &MmapRaw, start: usize, len: usize) -> io::Result<()> {
    match raw.advise_range(Advice::PopulateRead, start, len) {
        Ok(()) => Ok(()),
        // Before Linux 5.14 there is no such advice.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        // EFAULT: beyond the end of the file, or unreadable on the disk.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::FAULT.raw_os_error()) => Err(
            io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was, or unreadable"),
        ),
        Err(error) => Err(error),
    }
}

/// Keeps its map alive.
struct MappedRange {
    map: Arc<FileMap>,
    start: usize,
    len: usize,
}

impl AsRef<[u8]> for MappedRange {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `start + len` lies within the map (checked by `slice`, the only maker), which lives as long as
        // `self`. The bytes do not change while they are lent out: `slice` is called only for what is below the
        // visible end of a segment, for a rolled segment, or for the entries of an index file that have left the
        // memory, and none of them is written or cut again; index files are replaced and unlinked.
        unsafe { std::slice::from_raw_parts(self.map.raw.as_ptr().add(self.start), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_map_made_before_the_file_grew_sees_what_came_after() {
        let file = tempfile::tempfile().unwrap();
        let map: Arc<dyn Map> = Arc::new(FileMap::new(&file, 1 << 20).unwrap());
        file.write_all_at(b"later", 10_000).unwrap();
        assert_eq!(&map.slice(10_000..10_005).unwrap()[..], b"later");
    }

    #[test]
    fn a_range_beyond_the_file_is_an_error_and_not_a_signal() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 100], 0).unwrap();
        let map: Arc<dyn Map> = Arc::new(FileMap::new(&file, 1 << 20).unwrap());
        assert_eq!(Arc::clone(&map).slice(0..100).unwrap().len(), 100);
        assert!(Arc::clone(&map).slice(500_000..500_010).is_err());
        assert!(map.slice(0..(1 << 20) + 1).is_err());
    }

    #[test]
    fn lent_bytes_outlive_the_map() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"kept", 0).unwrap();
        let map: Arc<dyn Map> = Arc::new(FileMap::new(&file, 4).unwrap());
        let bytes = Arc::clone(&map).slice(0..4).unwrap();
        drop(map);
        drop(file);
        assert_eq!(&bytes[..], b"kept");
    }
}

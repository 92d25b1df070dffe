//! Reads past the page cache, into memory of this process that is used again and again.
//!
//! A page cache that takes in what one reader goes through once costs more than the disk: each page is fresh memory, it is
//! copied out of, and the kernel fetches megabytes of them at a stretch, in which nobody else has the processor.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::OFlags;

/// What places, lengths and memory of such reads are multiples of: no disk here asks for more, and one that does refuses.
const ALIGN_BYTES: u64 = 4 << 10;
/// Most reads are of 1 MiB, what clients ask for by default, or a little shorter; the memory of others is made to
/// measure, and not kept.
const USUAL_BYTES: usize = (1 << 20) + 3 * ALIGN_BYTES as usize;
/// As much memory is kept as is in use between one read and the next of a few readers.
const MOST_SPARE: usize = 8;

/// That no read is using.
static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Reads a range; `None` where that cannot be done in this way.
pub(super) fn read(path: &Path, range: Range<u64>) -> Option<Bytes> {
    let file = OpenOptions::new().read(true).custom_flags(OFlags::DIRECT.bits() as i32).open(path).ok()?;
    let from = range.start - range.start % ALIGN_BYTES;
    let len = usize::try_from(range.end.next_multiple_of(ALIGN_BYTES) - from).ok()?;
    let mut buffer = Buffer::take(len + ALIGN_BYTES as usize);
    let aligned = buffer.0.as_ptr().align_offset(ALIGN_BYTES as usize);
    let into = buffer.0.get_mut(aligned..)?.get_mut(..len)?;
    let needed = (range.end - from) as usize;
    if fill(&file, into, from)? < needed {
        return None;
    }
    let first = aligned + (range.start - from) as usize;
    Some(Bytes::from_owner(buffer).slice(first..aligned + needed))
}

/// Returns how much of `into` there was in the file.
fn fill(file: &File, into: &mut [u8], from: u64) -> Option<usize> {
    let mut filled = 0;
    while let Some(left) = into.get_mut(filled..).filter(|left| !left.is_empty()) {
        match file.read_at(left, from + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
        // The next place would not be aligned: the file ends here.
        if !(filled as u64).is_multiple_of(ALIGN_BYTES) {
            break;
        }
    }
    Some(filled)
}

/// Memory that goes back to [`SPARE`].
struct Buffer(Vec<u8>);

impl Buffer {
    fn take(bytes: usize) -> Self {
        if !(USUAL_BYTES / 8 * 7..=USUAL_BYTES).contains(&bytes) {
            return Self(vec![0; bytes]);
        }
        let spare = SPARE.lock().pop();
        Self(spare.unwrap_or_else(|| vec![0; USUAL_BYTES]))
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut spare = SPARE.lock();
        if self.0.len() == USUAL_BYTES && spare.len() < MOST_SPARE {
            spare.push(std::mem::take(&mut self.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_range_of_a_file_is_read_and_none_beyond_it() {
        let content: Vec<u8> = (0..3_000_001_u32).map(|at| (at % 251) as u8).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &content).unwrap();
        if OpenOptions::new().read(true).custom_flags(OFlags::DIRECT.bits() as i32).open(file.path()).is_err()
        {
            // A file system that knows no such reads.
            return;
        }
        let ends = [0..3_000_001, 1..3_000_001, 2_999_999..3_000_001, 4_095..4_097, 4_096..8_192, 0..1 << 20];
        let held: Vec<_> = ends.iter().map(|range| read(file.path(), range.clone()).unwrap()).collect();
        for (range, bytes) in ends.into_iter().zip(held) {
            assert_eq!(bytes, content[range.start as usize..range.end as usize], "{range:?}");
        }
        assert!(
            read(file.path(), 0..3_000_002).is_none() && read(file.path(), 4_000_000..4_000_001).is_none()
        );
        assert!(read(&file.path().join("within"), 0..1).is_none());
    }
}

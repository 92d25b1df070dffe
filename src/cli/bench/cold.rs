//! Files that are in no cache when they are read. They are given up to the kernel; a loop that does nothing else reads them.
//!
//! The kernel gives up only what is written out and mapped by nobody, so a broker that has read them must have ended before.
//! What a hypervisor or the disk keeps in its own memory cannot be told.

use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{Advice, fadvise};
use rustix::io::{ReadWriteFlags, preadv2};

/// What the loop reads at a time.
const READ_BYTES: usize = 1 << 20;
/// A place in each so many bytes is looked at, to tell whether it is in memory.
const LOOK_EVERY_BYTES: u64 = 64 << 20;
/// More of those places than this share may not be in memory.
const MAX_WARM: f64 = 0.02;

/// All regular files below a directory.
///
/// # Errors
/// The file system's.
pub(super) fn files_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Takes files out of the page cache.
///
/// # Errors
/// The file system's, and that they are still there.
pub(super) fn drop_caches(files: &[PathBuf]) -> io::Result<()> {
    let (mut looks, mut warm) = (0u32, 0u32);
    for path in files {
        let file = File::open(path)?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
        let bytes = file.metadata()?.len();
        for look in 0..bytes / LOOK_EVERY_BYTES {
            looks += 1;
            warm += u32::from(in_memory(&file, look * LOOK_EVERY_BYTES + LOOK_EVERY_BYTES / 2));
        }
        // Looking has made the kernel read ahead.
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    if f64::from(warm) > MAX_WARM * f64::from(looks) {
        return Err(io::Error::other(format!(
            "{warm} of {looks} places looked at are still in the page cache after it was dropped: what is read would \
             not be cold"
        )));
    }
    Ok(())
}

/// Whether a read there need not wait for the disk.
fn in_memory(file: &File, at: u64) -> bool {
    let mut byte = [0];
    matches!(preadv2(file, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT), Ok(1))
}

/// Reads files one after the other, from their beginning to their end. Returns how many bytes they have, and how many
/// seconds it took. Blocks.
///
/// # Errors
/// The file system's.
pub(super) fn read(files: &[PathBuf]) -> io::Result<(u64, f64)> {
    let began = Instant::now();
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    for path in files {
        let file = File::open(path)?;
        fadvise(&file, 0, None, Advice::Sequential)?;
        let mut at = 0;
        loop {
            match file.read_at(&mut buffer, at)? {
                0 => break,
                read => at += read as u64,
            }
        }
        bytes += at;
    }
    Ok((bytes, began.elapsed().as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_are_found_read_and_dropped() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("inner")).expect("a directory");
        fs::write(dir.path().join("inner/a.log"), vec![1; 3_000_000]).expect("written");
        fs::write(dir.path().join("b"), [2; 5]).expect("written");
        let files = files_below(dir.path()).expect("files");
        assert_eq!(files.len(), 2);
        drop_caches(&files).expect("dropped");
        let (bytes, seconds) = read(&files).expect("read");
        assert_eq!(bytes, 3_000_005);
        assert!(seconds > 0.0);
    }
}

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
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// What the loop reads at a time.
const READ_BYTES: usize = 1 << 20;
/// A place in each so many bytes of a log, and at least one, is looked at, to tell whether it is in memory.
const LOOK_EVERY_BYTES: u64 = 64 << 20;
/// More of the bytes that those places stand for than this share may not be in memory.
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
/// The file system's, that they are still there, and that this cannot be told.
pub(super) fn drop_caches(files: &[PathBuf]) -> io::Result<()> {
    let (mut looked_at, mut warm) = (0, 0);
    for path in files {
        let file = File::open(path)?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
        // The broker's reserve was never written: reading it waits for no disk, and nobody does.
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        let len = if is_log { file.metadata()?.len() } else { 0 };
        for (at, bytes) in places(len) {
            looked_at += bytes;
            warm += if in_memory(&file, at)? { bytes } else { 0 };
        }
        // Looking has made the kernel read ahead.
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    if looked_at == 0 {
        return Err(io::Error::other(
            "there is nothing to look at: whether what is read is cold cannot be told",
        ));
    }
    if warm as f64 > MAX_WARM * looked_at as f64 {
        return Err(io::Error::other(format!(
            "about {warm} of {looked_at} bytes are still in the page cache after it was dropped: what is read would \
             not be cold"
        )));
    }
    Ok(())
}

/// Where a file of so many bytes is looked at, and how many bytes each place stands for.
fn places(bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..bytes).step_by(LOOK_EVERY_BYTES as usize).map(move |from| {
        let stands_for = LOOK_EVERY_BYTES.min(bytes - from);
        (from + stands_for / 2, stands_for)
    })
}

/// Whether a read there need not wait for the disk.
///
/// # Errors
/// The file system's, which may not know such reads.
fn in_memory(file: &File, at: u64) -> io::Result<bool> {
    let mut byte = [0];
    match preadv2(file, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT) {
        Ok(read) => Ok(read == 1),
        Err(Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
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
        assert!(
            in_memory(&File::open(dir.path().join("b")).expect("a file"), 2).expect("a look"),
            "just read"
        );
    }

    #[test]
    fn each_log_is_looked_at_and_nothing_to_look_at_is_an_error() {
        let looked_at = |bytes| places(bytes).collect::<Vec<_>>();
        assert_eq!(looked_at(0), []);
        assert_eq!(looked_at(1), [(0, 1)]);
        assert_eq!(looked_at(3_000_000), [(1_500_000, 3_000_000)]);
        assert_eq!(looked_at(96 << 20), [(32 << 20, 64 << 20), (80 << 20, 32 << 20)]);
        let empty = tempfile::Builder::new().suffix(".log").tempfile().expect("a file");
        assert!(drop_caches(&[empty.path().to_owned()]).is_err());
    }
}

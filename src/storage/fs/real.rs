//! The machine's file system. What only Linux has stays here and in `uncached`, with a portable way beside it.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
#[cfg(target_os = "linux")]
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(target_os = "linux")]
use bytes::Bytes;

use super::super::mmap::{FileMap, Map};
use super::{DirEntry, Fs, FsFile, LockOutcome, OpenHow};

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFs;

#[derive(Debug)]
struct RealFile {
    file: File,
    /// Its file system, or the kernel, has refused to write past the page cache.
    always_cached: AtomicBool,
}

impl RealFile {
    fn new(file: File) -> Self {
        Self { file, always_cached: AtomicBool::new(false) }
    }
}

impl Fs for RealFs {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn FsFile>> {
        let mut options = OpenOptions::new();
        match how {
            OpenHow::Read => options.read(true),
            OpenHow::Write => options.read(true).write(true).create(true).truncate(false),
            OpenHow::CreateNew => options.read(true).write(true).create_new(true),
        };
        Ok(Arc::new(RealFile::new(options.open(path)?)))
    }

    #[cfg(target_os = "linux")]
    fn read_uncached(&self, path: &Path, range: Range<u64>) -> Option<Bytes> {
        super::uncached::read(path, range)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        std::fs::read_dir(dir)?
            .map(|entry| {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                Ok(DirEntry { name, is_dir: entry.file_type()?.is_dir() })
            })
            .collect()
    }

    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        match std::fs::metadata(path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn can_sync_file_system(&self, dir: &Path) -> bool {
        sync_file_system_is_reliable(dir)
    }

    fn lock(&self, path: &Path, content: &str) -> io::Result<LockOutcome> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if let Some(holder) = lock_or_holder(&file)? {
            return Ok(LockOutcome::Held { holder });
        }
        // It is held all the same; on a full disk, over the content of the last run there is room.
        if let Err(error) = write_content(&mut file, content) {
            tracing::warn!(path = %path.display(), %error, "a second process will not be told who has the lock");
        }
        Ok(LockOutcome::Locked(Box::new(file)))
    }

    fn lock_as_is(&self, path: &Path) -> io::Result<LockOutcome> {
        let file = File::open(path)?;
        Ok(match lock_or_holder(&file)? {
            Some(holder) => LockOutcome::Held { holder },
            None => LockOutcome::Locked(Box::new(file)),
        })
    }
}

impl FsFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], position: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, position)
    }

    fn write_all_at(&self, bufs: &[&[u8]], position: u64) -> io::Result<()> {
        write_vectored_at(&self.file, bufs, position, None)
    }

    fn write_all_uncached_at(&self, bufs: &[&[u8]], position: u64) -> io::Result<()> {
        write_vectored_at(&self.file, bufs, position, Some(&self.always_cached))
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        preallocate(&self.file, len)
    }

    fn give_back(&self) -> io::Result<()> {
        let metadata = self.file.metadata()?;
        // What a file system has for itself there makes it too often, and costs nothing but time.
        if metadata.blocks() * BLOCK_BYTES > metadata.len().next_multiple_of(metadata.blksize().max(1)) {
            self.file.set_len(metadata.len())?;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        allocate(&self.file, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_file_system(&self) -> io::Result<()> {
        sync_file_system(&self.file)
    }

    fn map(&self, len: u64) -> io::Result<Arc<dyn Map>> {
        Ok(Arc::new(FileMap::new(&self.file, len)?))
    }
}

/// Locks an open file, or says what whoever has it wrote there.
fn lock_or_holder(file: &File) -> io::Result<Option<String>> {
    match file.try_lock() {
        Ok(()) => Ok(None),
        Err(std::fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Only for the message: an unreadable lock file is still a held one.
            let _ = file.take(64).read_to_string(&mut holder);
            Ok(Some(holder))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

fn write_content(file: &mut File, content: &str) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    file.write_all(content.as_bytes())?;
    file.set_len(content.len() as u64)
}

#[cfg(target_os = "linux")]
fn allocate(file: &File, len: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
    use rustix::io::Errno;
    // An attempt that cannot succeed would take what there is from others for a moment.
    let stat = fstatvfs(file)?;
    let missing = len.saturating_sub(file.metadata()?.blocks() * BLOCK_BYTES);
    if stat.f_bfree.saturating_mul(stat.f_frsize) < missing {
        return Err(io::ErrorKind::StorageFull.into());
    }
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, len) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            // As old NFS has it.
            Err(Errno::OPNOTSUPP) => return fill(file, len),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(file: &File, len: u64) -> io::Result<()> {
    fill(file, len)
}

#[cfg(target_os = "linux")]
fn preallocate(file: &File, len: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
    /// So little of what is free is taken before it is needed, at most.
    const SHARE: u64 = 64;
    let stat = fstatvfs(file)?;
    // What is before has blocks, and many extents may have to be gone through to see it.
    let from = file.metadata()?.len();
    let missing = len.saturating_sub(from);
    if stat.f_bavail.saturating_mul(stat.f_frsize) / SHARE < missing {
        return Err(io::ErrorKind::StorageFull.into());
    }
    if missing == 0 { Ok(()) } else { Ok(fallocate(file, FallocateFlags::KEEP_SIZE, from, missing)?) }
}

#[cfg(not(target_os = "linux"))]
fn preallocate(_file: &File, _len: u64) -> io::Result<()> {
    Ok(())
}

/// Lengthens a file by writing zeros.
fn fill(file: &File, len: u64) -> io::Result<()> {
    let zeros = vec![0; 64 << 10];
    let mut end = file.metadata()?.len();
    while end < len {
        let step = zeros.get(..(len - end) as usize).unwrap_or(&zeros);
        file.write_all_at(step, end)?;
        end += step.len() as u64;
    }
    Ok(())
}

/// What [`MetadataExt::blocks`] counts in.
const BLOCK_BYTES: u64 = 512;

/// The most buffers Linux takes in one call (`UIO_MAXIOV`).
#[cfg(target_os = "linux")]
const MAX_BUFFERS: usize = 1024;

/// Linux 6.14: what is written is dropped from the page cache once it is written back, which begins at once.
#[cfg(target_os = "linux")]
const RWF_DONTCACHE: rustix::io::ReadWriteFlags = rustix::io::ReadWriteFlags::from_bits_retain(0x80);

/// `always_cached`: past the page cache, unless it says that this is refused.
#[cfg(target_os = "linux")]
fn write_vectored_at(
    file: &File,
    bufs: &[&[u8]],
    mut position: u64,
    always_cached: Option<&AtomicBool>,
) -> io::Result<()> {
    use rustix::io::{Errno, ReadWriteFlags, pwritev, pwritev2};
    let is_uncached = || always_cached.is_some_and(|always| !always.load(Ordering::Relaxed));
    let mut flags = if is_uncached() { RWF_DONTCACHE } else { ReadWriteFlags::empty() };
    for some in bufs.chunks(MAX_BUFFERS) {
        let mut slices: Vec<IoSlice<'_>> = some.iter().map(|buf| IoSlice::new(buf)).collect();
        let mut left = slices.as_mut_slice();
        // Skips empty buffers, which would look like a full disk.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let wrote = if flags.is_empty() {
                pwritev(file, left, position)
            } else {
                pwritev2(file, left, position, flags)
            };
            match wrote {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    position += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(Errno::INTR) => {}
                // As the file system, or an older kernel, has it.
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) if !flags.is_empty() => {
                    flags = ReadWriteFlags::empty();
                    if let Some(always_cached) = always_cached {
                        always_cached.store(true, Ordering::Relaxed);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn write_vectored_at(
    file: &File,
    bufs: &[&[u8]],
    mut position: u64,
    _always_cached: Option<&AtomicBool>,
) -> io::Result<()> {
    for buf in bufs {
        file.write_all_at(buf, position)?;
        position += buf.len() as u64;
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn sync_file_system(file: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(file)?)
}

#[cfg(not(target_os = "linux"))]
fn sync_file_system(_file: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
fn sync_file_system_is_reliable(dir: &Path) -> bool {
    const EXT4: u64 = 0xef53;
    const XFS: u64 = 0x5846_5342;
    const BTRFS: u64 = 0x9123_683e;
    let Ok(stat) = rustix::fs::statfs(dir) else { return false };
    let known = [EXT4, XFS, BTRFS].contains(&(stat.f_type as u64));
    known && rustix::system::uname().release().to_str().is_ok_and(syncfs_reports_errors)
}

/// Whether the `syncfs` of this release of the kernel tells of writes that failed.
#[cfg(target_os = "linux")]
fn syncfs_reports_errors(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    numbers.next().zip(numbers.next()).is_some_and(|version| version >= (5, 8))
}

#[cfg(not(target_os = "linux"))]
fn sync_file_system_is_reliable(_dir: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vectored_write_of_many_buffers_lands_in_order_past_the_page_cache_too() {
        type Write = fn(&dyn FsFile, &[&[u8]]) -> io::Result<()>;
        let ways: [Write; 2] =
            [|file, bufs| file.write_all_at(bufs, 7), |file, bufs| file.write_all_uncached_at(bufs, 7)];
        for (write, longest) in ways.into_iter().zip([5, 200]) {
            let dir = tempfile::tempdir().unwrap();
            let file = RealFs.open(&dir.path().join("f"), OpenHow::CreateNew).unwrap();
            let pieces: Vec<Vec<u8>> =
                (0..3000u32).map(|i| vec![(i % 251) as u8; (i % longest) as usize]).collect();
            let bufs: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            write(&*file, &bufs).unwrap();
            let mut read = vec![0; pieces.concat().len()];
            file.read_exact_at(&mut read, 7).unwrap();
            assert_eq!(read, pieces.concat());
            assert_eq!(file.len().unwrap(), 7 + read.len() as u64);
        }
    }

    #[test]
    fn room_is_allocated_one_way_or_the_other() {
        let file = tempfile::tempfile().unwrap();
        allocate(&file, 70_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 70_000);
        allocate(&file, 10).unwrap();
        fill(&file, 200_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 200_000);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn where_it_is_refused_a_write_goes_through_the_page_cache_from_then_on() {
        // A device takes no such writes.
        let null = OpenOptions::new().write(true).open("/dev/null").unwrap();
        let always_cached = AtomicBool::new(false);
        for _ in 0..2 {
            write_vectored_at(&null, &[b"1234"], 0, Some(&always_cached)).unwrap();
            assert!(always_cached.load(Ordering::Relaxed));
        }
    }

    #[test]
    fn blocks_beyond_the_end_are_set_aside_and_given_back() {
        let file = RealFile::new(tempfile::tempfile().unwrap());
        let held = || file.file.metadata().unwrap().blocks() * BLOCK_BYTES;
        file.write_all_at(&[&[1; 10_000]], 0).unwrap();
        file.preallocate(1 << 20).unwrap();
        assert!(held() >= 1 << 20, "{}", held());
        assert_eq!(file.len().unwrap(), 10_000);
        file.give_back().unwrap();
        assert!(held() <= 64 << 10, "{}", held());
        let mut read = [0; 10_000];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(read, [1; 10_000]);
    }

    #[test]
    fn a_lock_is_held_once_and_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = RealFs.lock(&path, "1234").unwrap();
        assert!(matches!(first, LockOutcome::Locked(_)));
        // The same process may not lock it through another description either.
        match RealFs.lock(&path, "5678").unwrap() {
            LockOutcome::Held { holder } => assert_eq!(holder, "1234"),
            LockOutcome::Locked(_) => panic!("locked twice"),
        }
        assert!(
            matches!(RealFs.lock_as_is(&path).unwrap(), LockOutcome::Held { holder } if holder == "1234")
        );
        drop(first);
        assert!(matches!(RealFs.lock(&path, "5678").unwrap(), LockOutcome::Locked(_)));
    }

    #[test]
    fn a_lock_taken_as_it_is_keeps_others_out_and_the_file_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(RealFs.lock_as_is(&path).err().map(|error| error.kind()), Some(io::ErrorKind::NotFound));
        std::fs::write(&path, "1234").unwrap();
        let guard = RealFs.lock_as_is(&path).unwrap();
        assert!(matches!(guard, LockOutcome::Locked(_)));
        assert!(
            matches!(RealFs.lock(&path, "5678").unwrap(), LockOutcome::Held { holder } if holder == "1234")
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1234");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn syncfs_is_relied_on_from_linux_5_8_on() {
        for release in ["5.8.0", "5.10.0-28-amd64", "6.1", "10.0.1"] {
            assert!(syncfs_reports_errors(release), "{release}");
        }
        for release in ["5.7.19", "4.19.0-26-amd64", "3.10.0-1160.el7.x86_64", "5", "unknown", ""] {
            assert!(!syncfs_reports_errors(release), "{release}");
        }
    }
}

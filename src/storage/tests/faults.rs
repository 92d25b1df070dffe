//! A disk that fails: what was acknowledged stays, what was not is taken back, and the log says what it can do.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

use super::super::fs::{DirEntry, LockOutcome, OpenHow};
use super::*;

/// The real file system, with switches.
#[derive(Debug, Default)]
struct Switches {
    /// Writes to log files fail after so many bytes more; `u64::MAX`: never.
    log_room_bytes: AtomicU64,
    fail_log_sync: AtomicBool,
    fail_create: AtomicBool,
    fail_cut: AtomicBool,
}

#[derive(Debug, Clone)]
struct FaultyFs(Arc<Switches>);

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn FsFile>,
    is_log: bool,
    switches: Arc<Switches>,
}

impl Fs for FaultyFs {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn FsFile>> {
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        if is_log && !path.exists() && self.0.fail_create.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = RealFs.open(path, how)?;
        Ok(Arc::new(FaultyFile { file, is_log, switches: Arc::clone(&self.0) }))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealFs.create_dir(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        RealFs.list(dir)
    }
    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        RealFs.file_len(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFs.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealFs.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealFs.remove_dir(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealFs.sync_dir(dir)
    }
    fn can_sync_file_system(&self, _dir: &Path) -> bool {
        false
    }
    fn lock(&self, path: &Path, content: &str) -> io::Result<LockOutcome> {
        RealFs.lock(path, content)
    }
    fn lock_as_is(&self, path: &Path) -> io::Result<LockOutcome> {
        RealFs.lock_as_is(path)
    }
}

impl FsFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_exact_at(&self, buf: &mut [u8], position: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, position)
    }
    fn write_all_at(&self, bufs: &[&[u8]], position: u64) -> io::Result<()> {
        if !self.is_log {
            return self.file.write_all_at(bufs, position);
        }
        let bytes = bufs.concat();
        let room = self.switches.log_room_bytes.load(Ordering::Relaxed);
        let fits = room.min(bytes.len() as u64);
        self.file.write_all_at(&[&bytes[..fits as usize]], position)?;
        if fits < bytes.len() as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.switches.log_room_bytes.fetch_sub(fits, Ordering::Relaxed);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.is_log && self.switches.fail_cut.load(Ordering::Relaxed) {
            return Err(io::Error::other("cannot cut"));
        }
        self.file.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        if self.is_log && self.switches.fail_log_sync.load(Ordering::Relaxed) {
            return Err(io::Error::other("the disk is gone"));
        }
        self.file.sync()
    }
    fn sync_file_system(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn map(&self, len: u64) -> io::Result<Arc<dyn Map>> {
        self.file.map(len)
    }
}

fn faulty() -> (Fixture, Arc<Switches>) {
    let switches = Arc::new(Switches { log_room_bytes: AtomicU64::new(u64::MAX), ..Switches::default() });
    let mut fixture = Fixture::new();
    fixture.fs = Arc::new(FaultyFs(Arc::clone(&switches)));
    (fixture, switches)
}

#[test]
fn a_full_disk_fails_the_append_and_the_log_goes_on_when_there_is_room() {
    let (fixture, switches) = faulty();
    let open = fixture.create();
    open.fill(5, 100);
    // Room for a part of the batch: what is written of it must not survive.
    switches.log_room_bytes.store(500, Ordering::Relaxed);
    for _ in 0..3 {
        let error = open.append(batch(999, 10, 100)).unwrap_err();
        assert!(matches!(error, AppendError::NoSpace { .. }), "{error}");
    }
    open.assert_numbered(0, 50);
    assert_eq!(open.log.status().log_end_offset, Offset::clamped(50));
    switches.log_room_bytes.store(u64::MAX, Ordering::Relaxed);
    open.fill(5, 100);
    open.assert_numbered(0, 100);
    open.crash();
    fixture.reopen().assert_numbered(0, 100);
}

#[test]
fn a_failed_write_is_cut_off_before_the_next_one() {
    let (fixture, switches) = faulty();
    let open = fixture.create();
    open.fill(1, 100);
    let size = batch(0, 10, 100).len() as u64;
    // What is left of the failed write must not be taken for what follows a later, shorter one.
    switches.log_room_bytes.store(2 * size, Ordering::Relaxed);
    let error = open.append(batch(666, 100, 100)).unwrap_err();
    assert!(matches!(error, AppendError::NoSpace { .. }));
    switches.log_room_bytes.store(u64::MAX, Ordering::Relaxed);
    let len = std::fs::metadata(fixture.log_dir().join("00000000000000000000.log")).unwrap().len();
    assert_eq!(len, size);
    open.fill(1, 100);
    open.crash();
    fixture.reopen().assert_numbered(0, 20);
}

#[test]
fn a_failed_write_that_cannot_be_undone_ends_writing() {
    let (fixture, switches) = faulty();
    let open = fixture.create();
    open.fill(5, 100);
    switches.log_room_bytes.store(100, Ordering::Relaxed);
    switches.fail_cut.store(true, Ordering::Relaxed);
    open.append(batch(0, 10, 100)).unwrap_err();
    switches.log_room_bytes.store(u64::MAX, Ordering::Relaxed);
    assert!(matches!(open.append(batch(0, 10, 100)), Err(AppendError::Sealed { .. })));
    assert!(matches!(open.log.status().state, LogState::ReadOnly { .. }));
    open.assert_numbered(0, 50);
}

#[test]
fn a_failed_sync_is_final_and_what_was_durable_is_still_read() {
    let (fixture, switches) = faulty();
    let open = fixture.create();
    open.fill(5, 100);
    switches.fail_log_sync.store(true, Ordering::Relaxed);
    let error = open.append(batch(0, 10, 100)).unwrap_err();
    assert!(matches!(error, AppendError::Sealed { .. }), "{error}");
    switches.fail_log_sync.store(false, Ordering::Relaxed);
    assert!(
        matches!(open.append(batch(0, 10, 100)), Err(AppendError::Sealed { .. })),
        "never retried as success"
    );
    assert_eq!(open.log.durable_offset(), Offset::clamped(50));
    assert!(matches!(open.log.read(Offset::clamped(51), 1), Err(ReadError::OutOfRange { .. })));
    assert_eq!(open.store.stats().read_only_logs, 1);
    open.assert_numbered(0, 50);
}

#[test]
fn a_roll_that_finds_no_room_leaves_the_log_as_it_was() {
    let (mut fixture, switches) = faulty();
    fixture.spec.config.segment_bytes = 10_000;
    let open = fixture.create();
    open.fill(5, 100);
    switches.fail_create.store(true, Ordering::Relaxed);
    let refused = (0..20).filter(|i| open.append(batch(50 + i * 10, 10, 100)).is_err()).count();
    assert!(refused > 0);
    assert_eq!(fixture.files("log").len(), 1);
    let end = open.log.durable_offset().get();
    open.assert_numbered(0, end);
    switches.fail_create.store(false, Ordering::Relaxed);
    open.fill(10, 100);
    assert!(fixture.files("log").len() > 1);
    open.assert_numbered(0, end + 100);
}

#[test]
fn a_store_on_a_missing_parent_that_cannot_be_made_says_which() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOW_MS));
    let file = tempfile::NamedTempFile::new().unwrap();
    let dir: PathBuf = file.path().join("data");
    let error = Store::open(&dir, &StorageConfig::default(), clock).unwrap_err();
    assert!(error.to_string().contains(&dir.display().to_string()), "{error}");
}

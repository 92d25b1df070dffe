//! Read-only maps of files behind a safe view; the one place with `unsafe`.
//!
//! A page of a map can vanish after it has been brought into memory: the file is cut, or the page is dropped and the
//! disk does not give it back. Touching it raises SIGBUS. The handler that the first map installs then puts a page of
//! zeros there and marks the map as failed, as libwayland guards the buffers that it shares; a fault anywhere else is
//! left to whoever had the signal before. So whoever uses what a map has lent out asks its [`Lease`] afterwards, and
//! discards the outcome where it is not intact.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use libc::{c_int, c_void, sigaction, siginfo_t};
use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use super::map_table::{self, Entered};

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
    /// Lends a range out as [`Map::slice`] does if all of it is in memory now, without waiting for the disk. `None` if it
    /// is not, or that cannot be told.
    fn slice_in_memory(self: Arc<Self>, range: Range<u64>) -> Option<Bytes>;
    /// Whether a page of it could not be had when it was touched: there were zeros instead.
    fn has_failed(&self) -> bool;
}

/// The map that bytes are lent from, if they are; it stays while they are in use.
#[derive(Debug, Clone, Default)]
pub struct Lease(Option<Arc<dyn Map>>);

impl Lease {
    /// Of bytes of `map`.
    pub fn of(map: &Arc<dyn Map>) -> Self {
        Self(Some(Arc::clone(map)))
    }

    /// Whether the bytes are a map's, and not in memory of their own.
    pub fn is_of_map(&self) -> bool {
        self.0.is_some()
    }

    /// Whether all that has been made of the bytes so far has been made of what the file holds.
    pub fn is_intact(&self) -> bool {
        self.0.as_ref().is_none_or(|map| !map.has_failed())
    }
}

/// A map of a real file.
#[derive(Debug)]
pub(super) struct FileMap {
    // First, so that it goes first: the place of a map that is gone may be another's.
    entered: Entered,
    raw: MmapRaw,
}

impl FileMap {
    /// Maps the first `len` bytes of `file`; `len` must not be 0.
    pub(super) fn new(file: &File, len: u64) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        guard()?;
        let raw = MmapOptions::new().len(len).map_raw_read_only(file)?;
        Ok(Self { entered: Entered::new(raw.as_ptr().addr(), len)?, raw })
    }

    /// A range that lies within the map.
    fn lend(self: Arc<Self>, start: usize, len: usize) -> Bytes {
        Bytes::from_owner(MappedRange { map: self, start, len })
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
        Ok(self.lend(start, len))
    }

    fn slice_in_memory(self: Arc<Self>, range: Range<u64>) -> Option<Bytes> {
        if range.start >= range.end || range.end > self.len() {
            return None;
        }
        let (start, len) = (range.start as usize, (range.end - range.start) as usize);
        // Then nothing is left to be read for it. The pages are mostly entered in the map, too, and else the first touch
        // enters many at a time: having them entered here would look at each of them again.
        is_in_memory(&self.raw, start, len).then(|| self.lend(start, len))
    }

    fn has_failed(&self) -> bool {
        self.entered.has_failed()
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

/// Whether all pages of a range, which lies within the map, are in the page cache. One may still be dropped before it is
/// used; who is about to use it has been quick enough unless memory is very short.
fn is_in_memory(raw: &MmapRaw, start: usize, len: usize) -> bool {
    /// What is asked about at a time.
    const PAGES: usize = 512;
    let page_bytes = rustix::param::page_size();
    let first = start - start % page_bytes;
    let mut pages = [0_u8; PAGES];
    (first..start + len).step_by(PAGES * page_bytes).all(|at| {
        let bytes = (start + len - at).min(PAGES * page_bytes);
        // SAFETY: the range begins on a page and lies within the map, which `raw` keeps; there is a byte in `pages` for
        // each page of it.
        let told = unsafe { libc::mincore(raw.as_mut_ptr().add(at).cast(), bytes, pages.as_mut_ptr()) };
        told == 0 && pages.iter().take(bytes.div_ceil(page_bytes)).all(|page| page & 1 == 1)
    })
}

/// Keeps its map alive.
struct MappedRange {
    map: Arc<FileMap>,
    start: usize,
    len: usize,
}

impl AsRef<[u8]> for MappedRange {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `start + len` lies within the map (checked by `slice` and `slice_in_memory`, who alone lend), which lives
        // as long as `self`. The bytes do not change while they are lent out: both are called only for what is below the
        // visible end of a segment, for a rolled segment, or for the entries of an index file that have left the
        // memory, and none of them is written or cut again; index files are replaced and unlinked. What others do to
        // the file can turn them into zeros, by the handler below; then nobody relies on what was made of them, and
        // until then they are read by safe code, and by decoders that trust no input.
        unsafe { std::slice::from_raw_parts(self.map.raw.as_ptr().add(self.start), self.len) }
    }
}

/// What SIGBUS did before.
static PREVIOUS: OnceLock<sigaction> = OnceLock::new();
/// The size of a page; a handler must not ask for it.
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Installs the handler of SIGBUS, once.
fn guard() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed =
        INSTALLED.get_or_init(|| install().map_err(|error| error.raw_os_error().unwrap_or_default()));
    installed.map_err(io::Error::from_raw_os_error)
}

fn install() -> io::Result<()> {
    PAGE_BYTES.store(rustix::param::page_size(), Ordering::Release);
    // SAFETY: all fields of a `sigaction` may be zero: the default action, no flags, no signals.
    let (mut before, mut ours): (sigaction, sigaction) = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid or null, as the call allows.
    if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut before) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Before the handler that reads it.
    let _ = PREVIOUS.set(before);
    ours.sa_sigaction = on_bus_error as *const () as usize;
    // On the stack that the runtime keeps for signals: a fault on an overflown one is passed on too.
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: as above; the handler has the signature that SA_SIGINFO asks for, and only does what a handler may:
    // it reads and writes atomics, and makes system calls.
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const ours, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Puts a page of zeros where a page of a map cannot be had, and goes on.
extern "C" fn on_bus_error(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a valid `siginfo_t`; `si_addr` is read from within it whatever the signal's cause, and
    // used only where it is an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    // A positive code is the kernel's: not a signal that somebody sent. Marked first: whoever sees zeros sees the mark.
    let is_fault = code > 0;
    if !(is_fault && map_table::mark_failed(address) && put_zero_page(address)) {
        pass_on(signal, info, context, is_fault);
    }
}

fn put_zero_page(address: usize) -> bool {
    let page_bytes = PAGE_BYTES.load(Ordering::Acquire);
    let page = ptr::without_provenance_mut::<c_void>(address & !(page_bytes - 1));
    // SAFETY: the page is all within a map that was just found in the table, and that whoever touched it holds; it is
    // read only, and stays mapped. It is unmapped with the rest of its map.
    unsafe { mmap_anonymous(page, page_bytes, ProtFlags::READ, MapFlags::PRIVATE | MapFlags::FIXED) }.is_ok()
}

/// Does what was done before the handler was installed.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void, is_fault: bool) {
    let previous = PREVIOUS.get().map_or((libc::SIG_DFL, 0), |before| (before.sa_sigaction, before.sa_flags));
    match previous {
        // As the kernel has it, a fault cannot be ignored.
        (libc::SIG_IGN, _) if !is_fault => {}
        (libc::SIG_DFL | libc::SIG_IGN, _) => {
            // SAFETY: a zeroed `sigaction` is the default action. The signal is held back until this handler returns,
            // and ends the process then.
            unsafe {
                let default: sigaction = std::mem::zeroed();
                libc::sigaction(signal, &raw const default, ptr::null_mut());
                libc::raise(signal);
            }
        }
        (handler, flags) if flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: it was installed as a handler of three arguments, and is given those of the signal.
            unsafe {
                let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = std::mem::transmute(handler);
                handler(signal, info, context);
            }
        }
        (handler, _) => {
            // SAFETY: it was installed as a handler of one argument.
            unsafe {
                let handler: extern "C" fn(c_int) = std::mem::transmute(handler);
                handler(signal);
            }
        }
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
        assert!(Arc::clone(&map).slice(0..(1 << 20) + 1).is_err());
        assert!(Arc::clone(&map).slice(Range { start: 50, end: 40 }).is_err());
        assert!(map.slice(50..50).unwrap().is_empty());
    }

    #[test]
    fn what_is_not_in_memory_is_not_waited_for() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; 3 << 20], 0).unwrap();
        // A hole is in memory once it has been read.
        file.set_len(6 << 20).unwrap();
        let map: Arc<dyn Map> = Arc::new(FileMap::new(&file, 7 << 20).unwrap());
        let lent = |range| Arc::clone(&map).slice_in_memory(range);
        assert_eq!(lent(10..(3 << 20) - 10).unwrap(), vec![7; (3 << 20) - 20]);
        assert!(lent(10..6 << 20).is_none() && lent((6 << 20) - 1..6 << 20).is_none());
        assert!(lent((3 << 20) - 1..(3 << 20) + 1).is_none());
        Arc::clone(&map).slice(3 << 20..6 << 20).unwrap();
        assert_eq!(lent(10..6 << 20).unwrap().len(), (6 << 20) - 10);
        assert!(lent(10..(6 << 20) + 1).is_none(), "beyond the end of the file");
        assert!(lent(10..(7 << 20) + 1).is_none() && lent(7..7).is_none());
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

    /// A map of a file that is then cut to `len` bytes, and 20,000 bytes lent out of it before.
    fn cut_to(len: u64) -> (Lease, Bytes) {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; 20_000], 0).unwrap();
        let map: Arc<dyn Map> = Arc::new(FileMap::new(&file, 1 << 20).unwrap());
        let bytes = Arc::clone(&map).slice(0..20_000).unwrap();
        file.set_len(len).unwrap();
        (Lease::of(&map), bytes)
    }

    #[test]
    fn a_page_that_vanishes_after_it_was_lent_is_zeros_and_fails_the_map() {
        let (whole, others) = cut_to(20_000);
        let (lease, bytes) = cut_to(0);
        assert!(lease.is_intact(), "nobody has touched it yet");
        assert!(bytes.to_vec().iter().all(|byte| *byte == 0));
        assert!(!lease.is_intact());
        assert_eq!(others, vec![7; 20_000]);
        assert!(whole.is_intact(), "another map is another matter");
    }

    #[test]
    fn a_page_that_vanishes_before_its_first_touch_is_zeros_and_fails_the_map() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; 20_000], 0).unwrap();
        let map: Arc<dyn Map> = Arc::new(FileMap::new(&file, 1 << 20).unwrap());
        // Written a moment ago, and not in the map yet.
        let bytes = Arc::clone(&map).slice_in_memory(0..20_000).unwrap();
        file.set_len(0).unwrap();
        assert!(!map.has_failed());
        assert_eq!(bytes, vec![0; 20_000]);
        assert!(map.has_failed());
    }

    #[test]
    fn what_is_still_there_of_a_cut_file_is_read_as_it_is() {
        let (lease, bytes) = cut_to(8_192);
        assert_eq!(bytes[..8_192], [7; 8_192]);
        assert!(lease.is_intact());
        assert_eq!(bytes[19_999], 0);
        assert!(!lease.is_intact());
        assert_eq!(bytes[..8_192], [7; 8_192], "only what is missing is replaced");
    }

    #[test]
    fn many_threads_may_fault_in_one_map_at_a_time() {
        let (lease, bytes) = cut_to(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>(), 0));
            }
        });
        assert!(!lease.is_intact());
    }

    /// Says to the test's own program that it is to fault.
    const FAULT: &str = "SAGWAN_TEST_FAULT_OUTSIDE";

    #[test]
    fn a_fault_outside_of_all_maps_still_kills() {
        use std::os::unix::process::ExitStatusExt;
        if std::env::var_os(FAULT).is_some() {
            let (lease, bytes) = cut_to(0);
            assert!(bytes[0] == 0 && !lease.is_intact(), "the handler is there");
            let stranger =
                MmapOptions::new().len(4096).map_raw_read_only(&tempfile::tempfile().unwrap()).unwrap();
            // SAFETY: within the map; the file behind it is empty, which is the point.
            let byte = unsafe { stranger.as_ptr().read_volatile() };
            panic!("still alive, with {byte}");
        }
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "storage::mmap::tests::a_fault_outside_of_all_maps_still_kills"])
            .env(FAULT, "1")
            .output()
            .unwrap()
            .status;
        assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
    }
}

//! What the machine lets this process have: open files, and maps of files.

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The kernel's own default for `vm.max_map_count`.
const DEFAULT_MAX_MAPS: u64 = 65_530;

/// Lets this process open as many files as it may.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// How many files this process may have open at a time (`RLIMIT_NOFILE`), connections included.
pub fn descriptors() -> u64 {
    // Absent: without a limit.
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many files may be mapped at a time: half of `vm.max_map_count`. The rest is for threads, the allocator, and the
/// splitting of maps.
pub fn file_maps() -> u64 {
    let given = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok();
    given.and_then(|text| text.trim().parse().ok()).unwrap_or(DEFAULT_MAX_MAPS) / 2
}

/// Whether something could not be had because there was too much of it already: open files, maps or memory. It may be had
/// again as soon as something is let go.
pub fn is_exhausted(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw_os_error);
    error.kind() == io::ErrorKind::OutOfMemory || matches!(number, Some(Errno::MFILE | Errno::NFILE))
}

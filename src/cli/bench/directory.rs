//! Where the broker of a run keeps its data: on a disk, if there is one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::TempDir;

use crate::cli::failure::Failure;

const PREFIX: &str = "sagwan-bench-";
/// File systems without a disk below: a sync costs nothing there.
const IN_MEMORY: [&str; 3] = ["tmpfs", "ramfs", "devtmpfs"];

/// A file system, as the kernel's table of mounts names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct FileSystem {
    /// Its type, such as `ext4`.
    pub(super) kind: String,
    /// What it is on.
    pub(super) device: String,
}

impl FileSystem {
    /// The one a path is on; `None` where the table cannot be read, as on other systems than Linux.
    fn of(path: &Path) -> Option<Self> {
        let path = path.canonicalize().ok()?;
        Self::find(&fs::read_to_string("/proc/self/mountinfo").ok()?, &path)
    }

    /// From the text of `/proc/self/mountinfo` (proc(5)).
    fn find(mounts: &str, path: &Path) -> Option<Self> {
        let mount = |line: &str| {
            let (before, after) = line.split_once(" - ")?;
            let point = PathBuf::from(before.split(' ').nth(4)?.replace("\\040", " "));
            let mut after = after.split(' ');
            let file_system = Self { kind: after.next()?.to_owned(), device: after.next()?.to_owned() };
            path.starts_with(&point).then(|| (point.components().count(), file_system))
        };
        // Of those at the same place, the last one covers the others.
        mounts.lines().filter_map(mount).max_by_key(|(depth, _)| *depth).map(|(_, file_system)| file_system)
    }

    pub(super) fn is_in_memory(&self) -> bool {
        IN_MEMORY.contains(&self.kind.as_str())
    }
}

/// A directory of this run's own; removed when it is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    dir: TempDir,
    pub(super) file_system: Option<FileSystem>,
}

impl Directory {
    /// Makes one in `parent`, or else in the first usual place that is on a disk, or else in the first that can be had.
    ///
    /// # Errors
    /// When none can be made.
    pub(super) fn make(parent: Option<&Path>) -> Result<Self, Failure> {
        if let Some(parent) = parent {
            return Self::within(parent)
                .map_err(|error| Failure::CannotRun(format!("--dir {}: {error}", parent.display())));
        }
        let mut in_memory = None;
        let mut refused = None;
        let usual = [std::env::temp_dir(), PathBuf::from("/var/tmp"), PathBuf::from(".")];
        for parent in usual {
            match Self::within(&parent) {
                Ok(made) if made.file_system.as_ref().is_some_and(FileSystem::is_in_memory) => {
                    in_memory.get_or_insert(made);
                }
                Ok(made) => return Ok(made),
                Err(error) => refused = Some(error),
            }
        }
        in_memory.ok_or_else(|| {
            let error = refused.map(|error| error.to_string()).unwrap_or_default();
            Failure::CannotRun(format!("no temporary directory can be made, name one with --dir: {error}"))
        })
    }

    fn within(parent: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let file_system = FileSystem::of(dir.path());
        Ok(Self { dir, file_system })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Bytes that may still be written; `None` if that cannot be told.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        let status = rustix::fs::statvfs(self.dir.path()).ok()?;
        Some(status.f_bavail.saturating_mul(status.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:21 / /tmp rw - tmpfs tmpfs rw
24 22 0:22 / /a\\040b rw - xfs /dev/vdb rw
25 22 0:23 / /tmp rw shared:1 - ramfs none rw";

    #[test]
    fn a_path_is_on_the_innermost_and_latest_mount() {
        let kind = |path: &str| FileSystem::find(MOUNTS, Path::new(path)).expect("a root").kind;
        assert_eq!(kind("/var/tmp"), "ext4");
        assert_eq!(kind("/tmp/x"), "ramfs");
        assert_eq!(kind("/tmpx"), "ext4");
        assert_eq!(kind("/a b/c"), "xfs");
    }

    #[test]
    fn a_directory_is_made_and_removed() {
        let parent = tempfile::tempdir().expect("a directory");
        let made = Directory::make(Some(parent.path())).expect("made");
        let path = made.path().to_owned();
        assert!(path.is_dir() && path.starts_with(parent.path()) && made.free_bytes().is_some());
        drop(made);
        assert!(!path.exists());
        let error = Directory::make(Some(&parent.path().join("none"))).expect_err("no such parent");
        assert!(error.to_string().starts_with("--dir"), "{error}");
    }
}

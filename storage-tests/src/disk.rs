//! An ext4 file system in a file of its own, mounted through a loop device, whose power can be cut.
//!
//! The cut is the file system's own shutdown (`FS_IOC_SHUTDOWN`) without a flush of its journal: what no sync has
//! made durable is lost, data and metadata alike, and every call fails until it is mounted anew and its journal is replayed.
//! What had been written back before, in whatever order the kernel chose, stays. The image file itself outlives the
//! cut, so what a drive of its own would lose for want of a cache flush is not lost here.
//!
//! A shutdown takes a millisecond or more, and the kernel may meanwhile answer a sync under way with success though its
//! commit is being dropped. No machine without power says so: what is heard from the moment on at which the cut begins
//! is worth nothing, and [`Disk::cut_power`] tells that moment.
//!
//! It takes root, loop devices and `mkfs.ext4`. Nothing is touched but the image made here, which is unmounted when
//! the [`Disk`] goes; the file is kept if that is a panic's doing.

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use rustix::process::geteuid;
use tempfile::TempDir;

use crate::command::{attempt, succeed};
use crate::poll::block_until;

/// Sparse: what is not written takes no room.
const BYTES: u64 = 2 << 30;

/// `FS_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`. Python has a safe `ioctl` and is there anyway; Rust has none, and
/// `unsafe` is forbidden here. The check keeps it off any file system but one mounted at the very path, and what is
/// mounted there is ours. It says when it is ready, and cuts when its standard input ends.
const CUT: &str = r#"
import fcntl, os, struct, sys
mount = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
if os.fstat(mount).st_dev == os.stat("..", dir_fd=mount).st_dev:
    sys.exit("not a mount point")
print(flush=True)
sys.stdin.read()
FS_IOC_SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2
fcntl.ioctl(mount, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
"#;

/// A mounted file system.
#[derive(Debug)]
pub struct Disk {
    directory: TempDir,
    mounted: bool,
}

impl Disk {
    /// Makes and mounts an empty one of 2 GiB.
    ///
    /// # Errors
    /// Why this machine or this user cannot, in words.
    ///
    /// # Panics
    /// If there is no room for temporary files.
    pub fn new() -> Result<Self, String> {
        Self::with_bytes(BYTES)
    }

    /// Makes and mounts an empty one of this size, all of it for everybody.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn with_bytes(bytes: u64) -> Result<Self, String> {
        if !geteuid().is_root() {
            return Err("mounting takes root".to_owned());
        }
        let directory = TempDir::new().unwrap_or_else(|error| panic!("no temporary directory: {error}"));
        let mut disk = Self { directory, mounted: false };
        File::create(disk.image())
            .and_then(|image| image.set_len(bytes))
            .and_then(|()| fs::create_dir(disk.path()))
            .unwrap_or_else(|error| panic!("cannot make {}: {error}", disk.image().display()));
        attempt(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(disk.image()))?;
        disk.mount("defaults")?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    /// Loses what is not durable. From here on every call on it fails, until the power is [on](Self::power_on) again.
    /// `last_moment` is called right before the cut.
    ///
    /// # Panics
    /// If it cannot be done.
    pub fn cut_power(&self, last_moment: impl FnOnce()) {
        assert!(self.mounted, "only what is mounted here may be shut down");
        let mut command = Command::new("timeout");
        command.args(["60", "python3", "-c", CUT]).arg(self.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let Some(ready) = child.stdout.as_mut() else { unreachable!("standard output is piped") };
        let ready = ready.read_exact(&mut [0]);
        last_moment();
        // Closes its standard input.
        let cut = child.wait();
        let done = ready.is_ok() && cut.as_ref().is_ok_and(ExitStatus::success);
        assert!(done, "the power cannot be cut: {ready:?}, {cut:?}");
    }

    /// Mounts it anew, with mount options of ext4, after its users have ended.
    ///
    /// # Panics
    /// If it cannot be done, say because something still uses it.
    pub fn power_on(&mut self, options: &str) {
        succeed(Command::new("umount").arg(self.path()));
        self.mounted = false;
        // A process in a mount namespace of its own may hold a copy of the mount for a while: mounted now, it would be the
        // same file system, still without power. The loop device goes with the last copy; nothing tells when.
        block_until(&format!("nobody uses {}", self.image().display()), || {
            succeed(Command::new("losetup").arg("--associated").arg(self.image())).is_empty()
        });
        self.mount(options).unwrap_or_else(|error| panic!("{error}"));
    }

    fn mount(&mut self, options: &str) -> Result<(), String> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", &format!("loop,{options}")]);
        attempt(mount.arg(self.image()).arg(self.path()))?;
        self.mounted = true;
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let umount = |how: &[&str]| attempt(Command::new("umount").args(how).arg(self.path()));
        // Lazily if it is still in use: it then goes with its last user, and its loop device with it.
        if self.mounted
            && let Err(error) = umount(&[]).or_else(|_| umount(&["--lazy"]))
        {
            eprintln!("{error}");
        }
        if thread::panicking() {
            self.directory.disable_cleanup(true);
            eprintln!("the file system is kept: {}", self.image().display());
        }
    }
}

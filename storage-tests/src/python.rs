//! A Python environment with gRPC, made once and kept under the target directory.
//!
//! It needs `python3` with `venv`, and whatever index `pip` is set up to use. Without them the tests fail; they are never skipped.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::succeed;

const REQUIREMENTS: &str = include_str!("../requirements.txt");

/// A virtual environment.
#[derive(Debug)]
pub struct Python {
    directory: PathBuf,
}

impl Python {
    /// The environment with what `requirements.txt` names. Made if it is not there yet, by one process at a time.
    ///
    /// `cache` is `env!("CARGO_TARGET_TMPDIR")`, which only a test itself can name.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn with_grpc(cache: impl AsRef<Path>) -> Self {
        let cache = cache.as_ref();
        let mut hasher = DefaultHasher::new();
        REQUIREMENTS.hash(&mut hasher);
        succeed(Command::new("python3").arg("--version")).hash(&mut hasher);
        let directory = cache.join(format!("python-venv-{:016x}", hasher.finish()));
        let _lock = lock(&directory.with_extension("lock"));
        // Written last: an environment without it is half made.
        let complete = directory.join("complete");
        if !complete.exists() {
            let requirements = directory.join("requirements.txt");
            succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&directory));
            write(&requirements, REQUIREMENTS);
            let mut install = Command::new(directory.join("bin/python"));
            succeed(install.args(["-m", "pip", "install", "--quiet", "-r"]).arg(&requirements));
            write(&complete, "");
        }
        Self { directory }
    }

    /// The directory with `python`, to stand first in a PATH.
    pub fn bin(&self) -> PathBuf {
        self.directory.join("bin")
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

/// Waits for the lock on a file; it goes with the file.
fn lock(path: &Path) -> File {
    let locked = File::create(path).and_then(|file| file.lock().map(|()| file));
    locked.unwrap_or_else(|error| panic!("cannot lock {}: {error}", path.display()))
}

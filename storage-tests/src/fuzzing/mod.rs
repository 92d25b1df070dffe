//! What each fuzz target does with its input, one file a target, shared with the test that replays the kept inputs
//! on stable Rust. `storage-tests/fuzz/run` runs the targets themselves.
//!
//! Nothing here may panic but an assertion of what must hold for any input.

mod batch_parser;
mod checkpoint;
mod damage;
mod directory;
mod grpc_produce;
mod index;
mod recovery;

use std::path::Path;

use tempfile::TempDir;

pub use batch_parser::batch_parser;
pub use checkpoint::checkpoint;
pub use grpc_produce::GrpcProduce;
pub use index::index;
pub use recovery::recovery;

/// A directory that is made and removed for each input: in memory, unless `TMPDIR` says otherwise.
fn scratch() -> TempDir {
    let in_memory = Path::new("/dev/shm");
    let dir = if std::env::var_os("TMPDIR").is_none() && in_memory.is_dir() {
        tempfile::tempdir_in(in_memory)
    } else {
        tempfile::tempdir()
    };
    dir.expect("a temporary directory")
}

/// An input, read from its start; what it does not have any more reads as zeros or as nothing.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    /// Two bytes, the low one first.
    fn number(&mut self) -> usize {
        usize::from(self.byte()) | usize::from(self.byte()) << 8
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    fn rest(self) -> &'a [u8] {
        self.0
    }
}

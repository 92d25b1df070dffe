//! An open file, and its map.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::super::super::fs::FsFile;
use super::super::super::mmap::Map;
use super::SimFs;
use super::state::{Node, Op, PAGE_BYTES, State};

#[derive(Debug, Clone)]
pub(super) struct SimFile {
    pub(super) fs: SimFs,
    pub(super) node: Node,
    pub(super) is_log: bool,
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut State, usize) -> io::Result<T>) -> io::Result<T> {
        let Node::File(file) = self.node else { return Err(io::ErrorKind::IsADirectory.into()) };
        self.fs.with(|state| act(state, file))
    }
}

impl FsFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|state, file| Ok(state.files[file].now.len() as u64))
    }

    fn read_exact_at(&self, buf: &mut [u8], position: u64) -> io::Result<()> {
        let start = position as usize;
        self.with(|state, file| {
            let found = state.files[file].now.get(start..start + buf.len());
            buf.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write_all_at(&self, bufs: &[&[u8]], position: u64) -> io::Result<()> {
        let mut bytes = bufs.concat();
        let (is_log, boot) = (self.is_log, self.fs.boot);
        self.with(|state, file| {
            state.note("write", file, position);
            let mut failure = None;
            let end = position as usize + bytes.len();
            let op = if end > state.files[file].now.len() { Op::Take } else { Op::Other };
            if let Err(error) = state.begin(op) {
                // With the power the boot has ended, and nothing is written.
                bytes.truncate(if state.boot == boot { bytes.len() / 2 } else { 0 });
                failure = Some(error);
            }
            if is_log && state.fails(state.faults.write) {
                failure = Some(io::Error::other("the disk does not write"));
                bytes.truncate(state.random.usize(..=bytes.len()));
            }
            let start = position as usize;
            let old = state.files[file].now.len();
            let grows = (start + bytes.len()).saturating_sub(old) as u64;
            if let Some(room) = state.room_bytes.filter(|room| grows > *room) {
                failure = Some(io::ErrorKind::StorageFull.into());
                bytes.truncate(bytes.len() - (grows - room) as usize);
            }
            state.use_room(old, old.max(start + bytes.len()));
            state.files[file].forgotten.retain(|page| {
                let pages = start / PAGE_BYTES..(start + bytes.len()).div_ceil(PAGE_BYTES);
                !pages.contains(page)
            });
            let content = &mut state.files[file].now;
            if !bytes.is_empty() && content.len() < start + bytes.len() {
                content.resize(start + bytes.len(), 0);
            }
            if let Some(written) = content.get_mut(start..start + bytes.len()) {
                written.copy_from_slice(&bytes);
            }
            failure.map_or(Ok(()), Err)
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|state, file| {
            state.note("cut", file, len);
            state.begin(Op::Other)?;
            state.use_room(state.files[file].now.len(), len as usize);
            state.files[file].now.resize(len as usize, 0);
            Ok(())
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let held = self.len()?;
        if held < len { self.write_all_at(&[&vec![0; (len - held) as usize]], held) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let is_log = self.is_log;
        self.with(|state, file| {
            state.note("sync", file, 0);
            let begun = state.begin(Op::Other);
            if begun.is_err() || (is_log && state.fails(state.faults.sync)) {
                state.files[file].forget();
                return begun.and(Err(io::Error::other("the disk does not sync")));
            }
            state.sync_file(file);
            Ok(())
        })
    }

    fn sync_file_system(&self) -> io::Result<()> {
        self.fs.with(|state| {
            state.note("sync all", 0, 0);
            // An error names no file: it may be another program's.
            state.begin(Op::Other)?;
            for file in 0..state.files.len() {
                state.sync_file(file);
            }
            state.sync_names(|_| true);
            Ok(())
        })
    }

    fn map(&self, len: u64) -> io::Result<Arc<dyn Map>> {
        Ok(Arc::new(SimMap { file: self.clone(), len }))
    }
}

#[derive(Debug)]
struct SimMap {
    file: SimFile,
    len: u64,
}

impl Map for SimMap {
    fn len(&self) -> u64 {
        self.len
    }

    fn slice(self: Arc<Self>, range: Range<u64>) -> io::Result<Bytes> {
        if range.end > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.file.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes.into())
    }

    fn slice_in_memory(self: Arc<Self>, range: Range<u64>) -> Option<Bytes> {
        self.slice(range).ok()
    }

    fn has_failed(&self) -> bool {
        false
    }
}

//! The producers of a log at an offset, in the file `<offset>.snapshot`: so that recovery need not read the whole log to
//! know them. Written once and never changed: when a segment is rolled, and with a checkpoint if there is news.
//!
//! ```text
//! offset i64, as in the name | count u32, then for each producer, by id:
//!   producer id i64 | epoch i16 | ms since its last append u64
//!   sequences of the epoch before those below u32 | base sequence of the first batch i32
//!   batches u8, from 1 to 5, then for each, by offset: base offset i64 | records u32
//! ```
//! Big-endian, in the frame of [`super::small_file`]. The sequences of the batches follow one another.

use std::path::Path;

use bytes::{Buf, BufMut};

use super::fs::Fs;
use super::log_view::LogView;
use super::producers::{ProducerState, REMEMBERED_BATCHES, Remembered};
use super::segment::{file_name, parse_name};
use super::small_file::{self, FileKind, FrameError, ReadFileError};
use crate::types::{Offset, ProducerId};

pub(super) const EXTENSION: &str = "snapshot";
pub(super) const VERSION: u8 = 1;
/// So many of the newest are kept, besides those that a checkpoint names.
const KEPT: usize = 2;

/// The name of the snapshot of `offset`.
pub(super) fn name(offset: Offset) -> String {
    file_name(offset, EXTENSION)
}

/// Whether a crash has left this file, before it became a snapshot.
pub(super) fn is_temporary(name: &str) -> bool {
    small_file::of_temporary(name).and_then(|name| parse_name(name, EXTENSION)).is_some()
}

/// The snapshots in a log's directory, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SnapshotFiles(Vec<Offset>);

impl SnapshotFiles {
    /// Those with these names.
    pub(super) fn among<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut offsets: Vec<_> = names.filter_map(|name| parse_name(name, EXTENSION)).collect();
        offsets.sort_unstable();
        Self(offsets)
    }

    /// The newest first.
    pub(super) fn descending(&self) -> impl Iterator<Item = Offset> {
        self.0.iter().rev().copied()
    }

    /// There is one more.
    pub(super) fn add(&mut self, offset: Offset) {
        if let Err(at) = self.0.binary_search(&offset) {
            self.0.insert(at, offset);
        }
    }

    /// Takes out those that are neither among the newest nor in `named`.
    fn take_useless(&mut self, named: &[Option<Offset>]) -> Vec<Offset> {
        let newest = self.0.len().saturating_sub(KEPT);
        let mut at = 0;
        let is_useless = |offset: &mut Offset| {
            at += 1;
            at <= newest && !named.contains(&Some(*offset))
        };
        self.0.extract_if(.., is_useless).collect()
    }
}

/// Removes the snapshots of a log that no recovery needs: the checkpoints on the disk name others, and there are newer.
/// One that stays is removed after the next start.
pub(super) fn prune(view: &LogView, named: &[Option<Offset>]) {
    for offset in view.snapshots.lock().take_useless(named) {
        let path = view.dir.join(name(offset));
        if let Some(Err(error)) = view.while_open(|| view.fs.remove_file(&path)) {
            tracing::warn!(path = %path.display(), %error, "cannot remove a snapshot of producers");
        }
    }
}

/// The bytes of a snapshot.
pub(super) fn encode(offset: Offset, states: &[ProducerState]) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_i64(offset.get());
    body.put_u32(states.len() as u32);
    for ProducerState { producer_id, idle_ms, batches } in states {
        let Some(first) = batches.first() else { continue };
        body.put_i64(producer_id.get());
        body.put_i16(first.epoch);
        body.put_u64(*idle_ms);
        body.put_u32(first.before);
        body.put_i32(first.base_sequence);
        body.put_u8(batches.len() as u8);
        for batch in batches {
            body.put_i64(batch.base_offset.get());
            body.put_u32(batch.records);
        }
    }
    small_file::encode(FileKind::Producers, VERSION, &body)
}

/// Decodes the body; `None` if it is not one.
pub(super) fn decode(mut body: &[u8]) -> Option<(Offset, Vec<ProducerState>)> {
    let offset = Offset::new(body.try_get_i64().ok()?)?;
    let mut states: Vec<ProducerState> = Vec::new();
    for _ in 0..body.try_get_u32().ok()? {
        let state = decode_state(&mut body)?;
        let in_order = states.last().is_none_or(|last| last.producer_id < state.producer_id);
        let is_below = state.batches.last().is_some_and(|last| last.next_offset() <= offset);
        if !in_order || !is_below {
            return None;
        }
        states.push(state);
    }
    body.is_empty().then_some((offset, states))
}

fn decode_state(body: &mut &[u8]) -> Option<ProducerState> {
    let producer_id = ProducerId::new(body.try_get_i64().ok()?)?;
    let epoch = body.try_get_i16().ok().filter(|epoch| *epoch >= 0)?;
    let idle_ms = body.try_get_u64().ok()?;
    let mut before = body.try_get_u32().ok()?;
    let mut base_sequence = body.try_get_i32().ok().filter(|sequence| *sequence >= 0)?;
    let count = usize::from(body.try_get_u8().ok()?);
    let mut batches: Vec<Remembered> = Vec::with_capacity(count);
    for _ in 0..count {
        let base_offset = Offset::new(body.try_get_i64().ok()?)?;
        let records = body.try_get_u32().ok().filter(|records| (1..=1 << 31).contains(records))?;
        if batches.last().is_some_and(|last| last.next_offset() > base_offset) {
            return None;
        }
        let batch = Remembered { epoch, base_sequence, records, base_offset, before };
        (before, base_sequence) = (batch.through(), batch.next_sequence());
        batches.push(batch);
    }
    (1..=REMEMBERED_BATCHES).contains(&count).then_some(ProducerState { producer_id, idle_ms, batches })
}

/// Reads the snapshot of `offset`; `None` if it is not there.
///
/// # Errors
/// If it cannot be read, or is not that snapshot.
pub(super) fn read(
    fs: &dyn Fs,
    dir: &Path,
    offset: Offset,
) -> Result<Option<Vec<ProducerState>>, ReadFileError> {
    let path = dir.join(name(offset));
    match read_file(fs, &path)? {
        None => Ok(None),
        Some((found, states)) if found == offset => Ok(Some(states)),
        Some(_) => Err(ReadFileError::Frame { path, source: FrameError::Damaged }),
    }
}

/// Reads the snapshot in the file `path`, whatever its offset.
///
/// # Errors
/// If it cannot be read, or is no snapshot.
pub(super) fn read_file(
    fs: &dyn Fs,
    path: &Path,
) -> Result<Option<(Offset, Vec<ProducerState>)>, ReadFileError> {
    let Some(body) = small_file::read(fs, path, FileKind::Producers, VERSION)? else { return Ok(None) };
    match decode(&body) {
        Some(snapshot) => Ok(Some(snapshot)),
        None => Err(ReadFileError::Frame { path: path.to_owned(), source: FrameError::Damaged }),
    }
}

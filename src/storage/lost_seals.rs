//! Makes the manifest of a log anew from its segments, when the file that has it is damaged.
//!
//! Nothing stands in it alone. Which segments count: the last one that begins at or below the start of the log, and those
//! after it. The start is in the checkpoint before any segment is deleted, so that what a deletion has left lies before
//! that one. Where each ends: it was complete and synced before the one after it was made, so it ends where that one
//! begins. Only the last one may be incomplete, and is no part of the manifest. The rest the batches tell, and of the
//! indexes, which are but hints, the lengths of their files.

use std::io;
use std::path::Path;

use super::block_scan::{BlockScan, Complete};
use super::epochs::{self, LeaderEpochs};
use super::fs::Fs;
use super::index::{Entry, OffsetEntry, TimeEntry};
use super::seals::{self, Manifest, Seal};
use super::segment::{file_name, parse_log_name};
use super::small_file;
use crate::types::{LeaderEpoch, Offset};

/// Which segments count, from where to where each goes, and how long it is; no more than that. `None` if the one that
/// the start of the log lies in is missing.
///
/// # Errors
/// Whatever the file system says.
pub(super) fn of_files(fs: &dyn Fs, dir: &Path, log_start: Offset) -> io::Result<Option<Manifest>> {
    let entries = fs.list(dir)?;
    let mut bases: Vec<Offset> = entries.iter().filter_map(|entry| parse_log_name(&entry.name)).collect();
    bases.sort_unstable();
    let first = bases.iter().rposition(|base| *base <= log_start);
    let Some(bases @ [first, ..]) = first.and_then(|first| bases.get(first..)) else { return Ok(None) };
    let mut seals = Vec::new();
    for (base, next) in bases.iter().zip(bases.iter().skip(1)) {
        seals.push(Seal {
            base: *base,
            next: *next,
            len: file_len(fs, dir, *base, "log")?,
            max_timestamp_ms: None,
            index_entries: 0,
            time_entries: 0,
            block_crcs: Vec::new(),
        });
    }
    Ok(Some(Manifest { first: *first, seals }))
}

fn file_len(fs: &dyn Fs, dir: &Path, base: Offset, extension: &str) -> io::Result<u64> {
    Ok(fs.file_len(&dir.join(file_name(base, extension)))?.unwrap_or_default())
}

/// Finds the rest of what a seal says. What is damaged in its segment stays so.
///
/// # Errors
/// Whatever the file system says.
pub(super) fn complete(
    fs: &dyn Fs,
    dir: &Path,
    seal: &mut Seal,
    epochs: &LeaderEpochs,
    newest_epoch: LeaderEpoch,
) -> io::Result<()> {
    let path = dir.join(file_name(seal.base, "log"));
    let complete = Complete { base: seal.base, next: seal.next, len: seal.len };
    let BlockScan { crcs, max_timestamp_ms } = complete.scan(fs, &path, epochs, newest_epoch)?;
    (seal.block_crcs, seal.max_timestamp_ms) = (crcs, max_timestamp_ms);
    let entries =
        |extension: &str, bytes: u64| Ok::<_, io::Error>(file_len(fs, dir, seal.base, extension)? / bytes);
    seal.index_entries = entries("index", OffsetEntry::BYTES)? as u32;
    seal.time_entries = entries("timeindex", TimeEntry::BYTES)? as u32;
    Ok(())
}

/// Replaces the damaged file. The epochs come first: a sealed segment is not scanned for them any more.
///
/// # Errors
/// Whatever the file system says; the damaged file is then still there.
pub(super) fn keep(
    fs: &dyn Fs,
    dir: &Path,
    first: Offset,
    sealed: &[&Seal],
    epochs: &mut LeaderEpochs,
) -> io::Result<()> {
    if let Some(bytes) = epochs.take_changed() {
        small_file::replace(fs, dir, epochs::FILE, &bytes).inspect_err(|_| epochs.set_changed())?;
    }
    seals::replace(fs, dir, first, sealed)
}

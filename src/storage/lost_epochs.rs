//! Finds leader epochs again in the batches: those of sealed segments, when the file that has them is lost, and the newest
//! one of all logs, when the checkpoint is.
//!
//! A segment that begins with the epoch that the next one begins with has no other in between, and is not read.

use std::io;
use std::path::Path;

use super::checkpoint::Checkpoint;
use super::epochs::LeaderEpochs;
use super::fs::Fs;
use super::identity;
use super::scan::{Found, Known, Place, Scan};
use super::seals::Seal;
use super::segment::{file_name, parse_log_name};
use super::small_file::ReadFileError;
use crate::types::{LeaderEpoch, Offset};

/// The epochs of the sealed segments, none later than `newest`; `next` is the base of the segment after them.
///
/// # Errors
/// Whatever the file system says.
pub(super) fn of_sealed(
    fs: &dyn Fs,
    dir: &Path,
    seals: &[Seal],
    next: Offset,
    newest: LeaderEpoch,
) -> io::Result<LeaderEpochs> {
    let mut epochs = LeaderEpochs::lost();
    let mut after = first_epoch(fs, dir, next, newest)?;
    // From the end, so that each first batch is read once.
    let mut has_others = Vec::new();
    for seal in seals.iter().rev() {
        let first = first_epoch(fs, dir, seal.base, newest)?;
        has_others.push(first.is_none() || first != after);
        after = first;
    }
    for (seal, has_others) in seals.iter().zip(has_others.into_iter().rev()) {
        assign(fs, dir, seal, newest, has_others, &mut epochs)?;
    }
    Ok(epochs)
}

fn open(fs: &dyn Fs, dir: &Path, base: Offset, end: u64) -> io::Result<Scan> {
    Scan::open(fs, &dir.join(file_name(base, "log")), Place { position: 0, offset: base }, end)
}

/// The epoch of the first batch of a segment, if it is readable.
fn first_epoch(
    fs: &dyn Fs,
    dir: &Path,
    base: Offset,
    newest_epoch: LeaderEpoch,
) -> io::Result<Option<LeaderEpoch>> {
    let epochs = LeaderEpochs::default();
    let known = Known { epochs: &epochs, newest_epoch, reaches: base, end: None };
    match open(fs, dir, base, u64::MAX)?.next(&known)? {
        Found::Batch { batch, .. } => Ok(Some(batch.leader_epoch())),
        Found::Bad { .. } | Found::End => Ok(None),
    }
}

/// Assigns the epochs of a segment: that of its first batch, or of all.
fn assign(
    fs: &dyn Fs,
    dir: &Path,
    seal: &Seal,
    newest_epoch: LeaderEpoch,
    all: bool,
    epochs: &mut LeaderEpochs,
) -> io::Result<()> {
    let mut scan = open(fs, dir, seal.base, seal.len)?;
    loop {
        let known = Known { epochs: &*epochs, newest_epoch, reaches: seal.next, end: Some(seal.next) };
        let detail = match scan.next(&known)? {
            Found::Batch { batch, .. } => {
                let (epoch, start) = (batch.leader_epoch(), batch.base_offset());
                epochs.assign(epoch, start);
                if all {
                    continue;
                }
                return Ok(());
            }
            Found::Bad { detail } => detail,
            Found::End => return Ok(()),
        };
        scan.skip(&known, detail)?;
    }
}

/// The checkpoint that a start goes by; `None` if there has been none. If it is lost, with the one before it, the newest
/// epoch of all logs takes its place: batches of an epoch that is newer than the start's own would be taken for damaged.
///
/// # Errors
/// As [`Checkpoint::read`]; if the directory cannot be listed.
pub(super) fn checkpoint(fs: &dyn Fs, root: &Path) -> Result<Option<Checkpoint>, ReadFileError> {
    if let Some(found) = Checkpoint::read(fs, root)? {
        return Ok(Some(found));
    }
    let entries = fs.list(root).map_err(|source| ReadFileError::Io { path: root.to_owned(), source })?;
    let mut newest = None;
    for dir in entries.iter().filter(|entry| entry.is_dir).map(|entry| root.join(&entry.name)) {
        if !matches!(identity::read(fs, &dir), Ok(Some(_))) {
            continue;
        }
        match newest_of_log(fs, &dir) {
            Ok(epoch) => newest = newest.max(Some(epoch)),
            // Nothing of it can be read: it is not opened either.
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "cannot find the leader epochs of a partition");
            }
        }
    }
    Ok(newest.map(|leader_epoch| {
        tracing::warn!(newest_leader_epoch = %leader_epoch, "going on without a checkpoint");
        Checkpoint { leader_epoch, ..Checkpoint::default() }
    }))
}

/// The newest epoch of a log. Its file has those of all runs but the last, which may have come to the last segments only.
fn newest_of_log(fs: &dyn Fs, dir: &Path) -> io::Result<LeaderEpoch> {
    let epochs = LeaderEpochs::read(fs, dir).ok().flatten().unwrap_or_default();
    let mut bases: Vec<Offset> =
        fs.list(dir)?.iter().filter_map(|entry| parse_log_name(&entry.name)).collect();
    bases.sort_unstable();
    for base in bases.into_iter().rev() {
        // The last one may have nothing in it yet.
        if let Some(newest) = newest_of_segment(fs, dir, base, &epochs)? {
            return Ok(newest.max(epochs.last().unwrap_or_default()));
        }
    }
    Ok(epochs.last().unwrap_or_default())
}

/// The newest epoch of the batches of a segment that can be read.
fn newest_of_segment(
    fs: &dyn Fs,
    dir: &Path,
    base: Offset,
    epochs: &LeaderEpochs,
) -> io::Result<Option<LeaderEpoch>> {
    let known = Known { epochs, newest_epoch: LeaderEpoch(i32::MAX), reaches: base, end: None };
    let (mut scan, mut newest) = (open(fs, dir, base, u64::MAX)?, None);
    loop {
        let detail = match scan.next(&known)? {
            Found::Batch { batch, .. } => {
                newest = newest.max(Some(batch.leader_epoch()));
                continue;
            }
            Found::Bad { detail } => detail,
            Found::End => return Ok(newest),
        };
        scan.skip(&known, detail)?;
    }
}

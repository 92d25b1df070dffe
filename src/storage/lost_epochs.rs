//! Finds the leader epochs of sealed segments again in their batches, when the file that has them is lost. A segment
//! that begins with the epoch that the next one begins with has no other in between, and is not read.

use std::io;
use std::path::Path;

use super::epochs::LeaderEpochs;
use super::fs::Fs;
use super::scan::{Found, Known, Place, Scan};
use super::seals::Seal;
use super::segment::file_name;
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

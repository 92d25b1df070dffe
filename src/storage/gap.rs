//! The way on for a log whose end is lost, once an operator has accepted the loss.
//!
//! A log that ends below what is known to have been durable, or with bytes that nobody can make out, takes no writes:
//! which offsets were given out is not known, and none may be given out twice. It can go on all the same, behind all that
//! could have been given out. What lies between is a *gap*: a sealed segment of its own, without a byte.
//!
//! ```text
//! before   ... | 400 to 480, then nothing that can be read
//! after    ... | 400 to 480 | gap: 480 to 480 + LEAP, of 0 bytes | the active segment, from 480 + LEAP on
//! ```
//! No other sealed segment is of 0 bytes, as none is rolled before it has a batch. Whoever reads into a gap finds its
//! segment ending early, which is data loss like any other; it stays in the manifest until the start of the log is moved
//! past it. Nothing is cut: what lies behind the end of the segment before a gap is left there, and not looked at.
//!
//! # In this order
//!
//! 1. The last segment's indexes and epochs are brought to the disk, as for any seal.
//! 2. The files of the gap and of the new active segment are made under temporary names.
//! 3. The manifest is replaced: that is what commits it. Before, the next start finds what it found the last time.
//! 4. The files get their names, by [`finish`], which the next opening of the log begins with.
//!
//! Without the temporary files a missing segment behind a gap is missing, as anywhere else.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::fs::Fs;
use super::log::Rolled;
use super::log_view::LogView;
use super::scan::Place;
use super::seals::{self, Manifest, Seal};
use super::segment::file_name;
use super::small_file;
use super::upkeep;
use crate::types::Offset;

/// So far behind what it is known to have had a log goes on. A bound on what else it can have given out: two offsets of one
/// segment are no further apart than two batches can be, 2^32, and before a segment begins the one before it is
/// synced. So this takes 65,536 syncs in turn, while the durable slot lags behind by a second at most. There is
/// room for 32,767 leaps.
const LEAP: i64 = 1 << 48;

/// Commits the loss of all from `lost` on, the first place in the last segment from which nothing can be read. Returns the
/// offset with which the log goes on, once it is opened again.
///
/// Called by the upkeep thread, with the log's directory in its hands.
///
/// # Errors
/// Whatever the file system says. As after a crash, it is then as before, or, if the manifest was replaced all the same, as
/// after; the log must be opened again to tell. It can be tried again.
pub(super) fn commit(fs: &dyn Fs, view: &Arc<LogView>, lost: Place) -> io::Result<Offset> {
    let segments = view.segments();
    let Some((last, others)) = segments.split_last() else { return Err(io::ErrorKind::NotFound.into()) };
    if others.iter().any(|segment| segment.seal().is_none()) {
        return Err(io::Error::other("a segment before the loss could not be sealed yet"));
    }
    let next = Offset::clamped(view.log_end_offset().max(lost.offset).get().saturating_add(LEAP));
    let mut new = Vec::new();
    // Where nothing of the segment can be read, it is the gap.
    if lost.offset > last.base() {
        last.index().write().finish();
        let rolled = Rolled {
            view: Arc::clone(view),
            segment: Arc::clone(last),
            next: lost.offset,
            len: lost.position,
            block_crcs: None,
            producers: None,
        };
        new.push(upkeep::seal_of(fs, &rolled)?);
        stage(fs, &view.dir, lost.offset)?;
    }
    new.push(Seal::gap(lost.offset, next));
    stage(fs, &view.dir, next)?;
    fs.sync_dir(&view.dir)?;
    let sealed: Vec<&Seal> = others.iter().filter_map(|segment| segment.seal()).chain(&new).collect();
    let first = segments.first().map_or(last.base(), |first| first.base());
    seals::replace(fs, &view.dir, first, &sealed)?;
    Ok(next)
}

/// An empty log file under its temporary name.
fn stage(fs: &dyn Fs, dir: &Path, base: Offset) -> io::Result<()> {
    small_file::write_temporary(fs, dir, &file_name(base, "log"), &[])?.sync()
}

/// Gives the files behind a committed loss their names, if they do not have them yet.
///
/// # Errors
/// Whatever the file system says; it can be tried again.
pub(super) fn finish(fs: &dyn Fs, dir: &Path, manifest: &Manifest) -> io::Result<()> {
    let Some(gap) = manifest.seals.last().filter(|seal| seal.is_gap()) else { return Ok(()) };
    let mut has_placed = false;
    // The new segment first: if the manifest is lost too, its name alone tells that the log goes on there.
    for base in [gap.next, gap.base] {
        let name = file_name(base, "log");
        if fs.file_len(&dir.join(&name))?.is_some() {
            continue;
        }
        match small_file::place(fs, dir, &name) {
            Ok(()) => has_placed = true,
            // Then it was there before, and is missing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    if has_placed { fs.sync_dir(dir) } else { Ok(()) }
}

//! Cuts a torn tail off a log file, keeping copies of what was cut: the last few of each segment, in files
//! `<base offset>.<n>.torn`, the newest with the highest number.

use std::io;
use std::path::Path;

use super::fs::{Fs, OpenHow};
use super::scan::{Place, Scan};
use super::segment::file_name;
use crate::types::Offset;

/// So many copies are kept of each segment.
const COPIES: u32 = 4;

/// The names that copies of a segment can have, oldest first.
pub(super) fn names(base: Offset) -> impl Iterator<Item = String> {
    (1..=COPIES).map(move |number| file_name(base, &format!("{number}.torn")))
}

/// Whether files of segments with this extension are such copies.
pub(super) fn is_copy(extension: &str) -> bool {
    let number = extension.strip_suffix(".torn").and_then(|number| number.parse().ok());
    number.is_some_and(|number| (1..=COPIES).contains(&number))
}

/// Copies what follows `place`, to the file's end at `len`, and cuts it off.
///
/// # Errors
/// Whatever the file system says; nothing is cut before the copy is durable, and half a copy is not kept.
pub(super) fn cut(
    fs: &dyn Fs,
    dir: &Path,
    base: Offset,
    place: Place,
    len: u64,
    detail: &str,
) -> io::Result<()> {
    let path = dir.join(file_name(base, "log"));
    let copy_path = dir.join(free_name(fs, dir, base)?);
    copy(fs, &path, place, len, &copy_path).inspect_err(|_| {
        // What stays of it is one of the copies.
        let _ = fs.remove_file(&copy_path);
    })?;
    fs.sync_dir(dir)?;
    let file = fs.open(&path, OpenHow::Write)?;
    file.set_len(place.position)?;
    file.sync()?;
    tracing::warn!(
        path = %path.display(), from_offset = %place.offset, position = place.position, bytes = len - place.position,
        kept_in = %copy_path.display(), detail, "cut a torn tail"
    );
    Ok(())
}

fn copy(fs: &dyn Fs, path: &Path, place: Place, len: u64, to: &Path) -> io::Result<()> {
    let copy = fs.open(to, OpenHow::CreateNew)?;
    let mut copied = 0;
    Scan::open(fs, path, place, len)?.copy(place.position..len, |bytes| {
        copy.write_all_at(&[bytes], copied)?;
        copied += bytes.len() as u64;
        Ok(())
    })?;
    copy.sync()
}

/// A name for the next copy. If all are taken the oldest copy goes, and the others move up.
fn free_name(fs: &dyn Fs, dir: &Path, base: Offset) -> io::Result<String> {
    let names: Vec<String> = names(base).collect();
    for name in &names {
        if fs.file_len(&dir.join(name))?.is_none() {
            return Ok(name.clone());
        }
    }
    for pair in names.windows(2) {
        if let [older, newer] = pair {
            fs.rename(&dir.join(newer), &dir.join(older))?;
        }
    }
    Ok(names.into_iter().next_back().unwrap_or_default())
}

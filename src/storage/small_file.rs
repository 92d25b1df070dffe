//! Small files that are replaced whole: the frame that guards them, and the replacement that a crash cannot halve.
//!
//! ```text
//! 0 magic "SGWN" | 4 kind u8 | 5 version u8 | 6 zero u16 | 8 body length u32 | 12 CRC-32 (IEEE) of 0..12 and the body u32
//! 16 body
//! ```
//! Big-endian. A version that is newer than ours is refused, never guessed at.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fs::{Fs, FsFile, OpenHow, read_whole};

const MAGIC: [u8; 4] = *b"SGWN";
/// What stands before the body.
pub(super) const HEADER_BYTES: usize = 16;

/// What a small file is; on disk, so a number stays with its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum FileKind {
    /// The directory's checkpoint.
    Checkpoint = 1,
    /// A log's sealed segments.
    Seals = 2,
    /// A log's leader epochs.
    LeaderEpochs = 3,
    /// Which topic and partition a directory belongs to.
    TopicId = 4,
    /// A file of the layer above, such as the catalogue.
    Named = 5,
    /// A log's producers at some offset.
    Producers = 6,
}

/// Why the bytes of a small file cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("it is not one of Sagwan's files, or was damaged")]
    Damaged,
    #[error("it has format version {found}, this program knows up to {known}")]
    NewerVersion { found: u8, known: u8 },
}

/// The bytes of a small file.
pub(super) fn encode(kind: FileKind, version: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[kind as u8, version, 0, 0]);
    bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
    let crc = checksum(&bytes, body);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The body of a small file of this kind, of a version up to `known`.
#[cfg(test)]
pub(super) fn decode(kind: FileKind, known: u8, bytes: &[u8]) -> Result<&[u8], FrameError> {
    decode_any(kind, known, bytes).map(|(_, body)| body)
}

/// The version and the body of a small file of this kind, of a version up to `known`.
pub(super) fn decode_any(kind: FileKind, known: u8, bytes: &[u8]) -> Result<(u8, &[u8]), FrameError> {
    let (header, body) = bytes.split_at_checked(HEADER_BYTES).ok_or(FrameError::Damaged)?;
    if !is_whole(bytes) || header[4] != kind as u8 {
        return Err(FrameError::Damaged);
    }
    if header[5] > known {
        return Err(FrameError::NewerVersion { found: header[5], known });
    }
    Ok((header[5], body))
}

/// Whether it is one of our files, of any kind and version, and undamaged.
fn is_whole(bytes: &[u8]) -> bool {
    let Some((header, body)) = bytes.split_at_checked(HEADER_BYTES) else { return false };
    let (covered, crc) = header.split_at(12);
    let length = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
    covered[..4] == MAGIC && length as usize == body.len() && crc == checksum(covered, body).to_be_bytes()
}

fn checksum(header: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header);
    crc.update(body);
    crc.finalize()
}

/// Why a small file could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadFileError {
    #[error("cannot read {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot use {path}: {source}")]
    Frame { path: PathBuf, source: FrameError },
}

/// Reads and checks a small file; `None` if there is none.
pub(super) fn read(
    fs: &dyn Fs,
    path: &Path,
    kind: FileKind,
    known: u8,
) -> Result<Option<Vec<u8>>, ReadFileError> {
    Ok(read_any(fs, path, kind, known)?.map(|(_, body)| body))
}

/// The same, with its version.
pub(super) fn read_any(
    fs: &dyn Fs,
    path: &Path,
    kind: FileKind,
    known: u8,
) -> Result<Option<(u8, Vec<u8>)>, ReadFileError> {
    let bytes = read_whole(fs, path).map_err(|source| ReadFileError::Io { path: path.to_owned(), source })?;
    let Some(bytes) = bytes else { return Ok(None) };
    match decode_any(kind, known, &bytes) {
        Ok((version, body)) => Ok(Some((version, body.to_vec()))),
        Err(source) => Err(ReadFileError::Frame { path: path.to_owned(), source }),
    }
}

/// Replaces `dir/name` by `bytes`: after a crash at any point it is the old file or the new one. Durable on return.
///
/// # Errors
/// Whatever the file system says; the old file is then still there.
pub(super) fn replace(fs: &dyn Fs, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    write_temporary(fs, dir, name, bytes)?.sync()?;
    place(fs, dir, name)?;
    fs.sync_dir(dir)
}

/// As [`replace`], and the file before stays as `<name>.old`, unless it is damaged: then the one before that stays.
///
/// # Errors
/// As [`replace`].
pub(super) fn replace_keeping_old(fs: &dyn Fs, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    if let Some(old) = read_whole(fs, &dir.join(name))?.filter(|old| is_whole(old)) {
        replace(fs, dir, &format!("{name}.old"), &old)?;
    }
    replace(fs, dir, name, bytes)
}

/// The second step, once the new one is synced: puts it in its place. The directory is not synced.
pub(super) fn place(fs: &dyn Fs, dir: &Path, name: &str) -> io::Result<()> {
    fs.rename(&temporary(dir, name), &dir.join(name))
}

fn temporary(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.tmp"))
}

/// The name of the file that this would have replaced, if it is one that [`write_temporary`] wrote.
pub(super) fn of_temporary(name: &str) -> Option<&str> {
    name.strip_suffix(".tmp")
}

/// The first step of [`replace`], for many files at a time: writes the new one beside the old one. Not synced.
pub(super) fn write_temporary(
    fs: &dyn Fs,
    dir: &Path,
    name: &str,
    bytes: &[u8],
) -> io::Result<Arc<dyn FsFile>> {
    let file = fs.open(&temporary(dir, name), OpenHow::Write)?;
    file.set_len(0)?;
    file.write_all_at(&[bytes], 0)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::super::fs::RealFs;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_frame_is_pinned() {
        let bytes = encode(FileKind::Seals, 3, b"body");
        assert_eq!(bytes[..12], *b"SGWN\x02\x03\0\0\0\0\0\x04");
        assert_eq!(bytes[16..], *b"body");
        assert_eq!(bytes[12..16], crc32fast::hash(b"SGWN\x02\x03\0\0\0\0\0\x04body").to_be_bytes());
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let bytes = encode(FileKind::Seals, 2, b"body");
        assert_eq!(decode(FileKind::Seals, 1, &bytes), Err(FrameError::NewerVersion { found: 2, known: 1 }));
        assert_eq!(decode(FileKind::Checkpoint, 2, &bytes), Err(FrameError::Damaged));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_noticed(body in prop::collection::vec(any::<u8>(), 0..100), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = encode(FileKind::Checkpoint, 1, &body);
            prop_assert_eq!(decode(FileKind::Checkpoint, 1, &bytes), Ok(&body[..]));
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(FileKind::Checkpoint, 1, &bytes).is_err());
        }
    }

    #[test]
    fn a_replaced_file_is_the_new_one_and_the_old_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        for body in [b"first".as_slice(), b"second"] {
            let bytes = encode(FileKind::Named, 1, body);
            replace_keeping_old(&RealFs, dir.path(), "f", &bytes).unwrap();
        }
        let body = |name: &str| read(&RealFs, &dir.path().join(name), FileKind::Named, 1).unwrap();
        assert_eq!(body("f").as_deref(), Some(b"second".as_slice()));
        assert_eq!(body("f.old").as_deref(), Some(b"first".as_slice()));
        assert_eq!(body("f.tmp"), None);
        // A damaged one does not take the place of a good one.
        std::fs::write(dir.path().join("f"), "rubbish").unwrap();
        replace_keeping_old(&RealFs, dir.path(), "f", &encode(FileKind::Named, 1, b"third")).unwrap();
        assert_eq!(body("f").as_deref(), Some(b"third".as_slice()));
        assert_eq!(body("f.old").as_deref(), Some(b"first".as_slice()));
    }
}

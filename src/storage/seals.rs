//! The manifest of a log: its sealed segments, in the file `seals`. Replacing it is what commits a roll, and the
//! deletion of segments.
//!
//! ```text
//! base offset of the first segment that counts, sealed or not i64 | count u32, then for each segment, by base offset:
//!   base offset i64 | next offset i64 | length u64 | largest timestamp i64 (-1: none)
//!   offset index entries u32 | time index entries u32 | blocks u32 | CRC-32 of each block u32
//! ```
//! Big-endian, in the frame of [`super::small_file`]. A block is 1 MiB of the log file, the last one what is left. The
//! checksum of a block that was damaged already when it was sealed is stored inverted: so it never checks out, and readers
//! look at each of its batches. A segment of 0 bytes is a gap, see [`super::gap`].

use std::io;
use std::ops::Range;
use std::path::Path;

use bytes::{Buf, BufMut};

use super::fs::Fs;
use super::small_file::{self, FileKind, ReadFileError};
use crate::types::Offset;

/// The file's name.
pub(super) const FILE: &str = "seals";
/// What one checksum covers.
pub(super) const BLOCK_BYTES: u64 = 1 << 20;
pub(super) const VERSION: u8 = 1;

/// A segment that is complete and synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seal {
    /// The offset in its file name.
    pub(super) base: Offset,
    /// One past its last offset.
    pub(super) next: Offset,
    /// The length of its log file.
    pub(super) len: u64,
    /// The largest timestamp of its records.
    pub(super) max_timestamp_ms: Option<i64>,
    /// How many entries its offset index has.
    pub(super) index_entries: u32,
    /// How many entries its time index has.
    pub(super) time_entries: u32,
    /// CRC-32 (IEEE) of each block of its log file.
    pub(super) block_crcs: Vec<u32>,
}

impl Seal {
    /// Stands for offsets that are lost for good: see [`super::gap`].
    pub(super) fn gap(base: Offset, next: Offset) -> Self {
        Self {
            base,
            next,
            len: 0,
            max_timestamp_ms: None,
            index_entries: 0,
            time_entries: 0,
            block_crcs: Vec::new(),
        }
    }

    /// Whether it is one.
    pub(super) fn is_gap(&self) -> bool {
        self.len == 0
    }
}

/// The whole manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Segments below are left from a deletion, and do not count.
    pub(super) first: Offset,
    /// The sealed segments, by base offset.
    pub(super) seals: Vec<Seal>,
}

impl Manifest {
    /// One past the last sealed offset.
    pub(super) fn end(&self) -> Offset {
        self.seals.last().map_or(self.first, |last| last.next)
    }

    /// Whether what was before `offset` is lost for good: a snapshot that was taken there knows more than the log.
    pub(super) fn is_in_gap(&self, offset: Offset) -> bool {
        self.seals.iter().any(|seal| seal.is_gap() && seal.base < offset && offset < seal.next)
    }
}

/// Encodes the whole file.
pub(super) fn encode(first: Offset, seals: &[&Seal]) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_i64(first.get());
    body.put_u32(seals.len() as u32);
    for seal in seals {
        body.put_i64(seal.base.get());
        body.put_i64(seal.next.get());
        body.put_u64(seal.len);
        body.put_i64(seal.max_timestamp_ms.unwrap_or(-1));
        body.put_u32(seal.index_entries);
        body.put_u32(seal.time_entries);
        body.put_u32(seal.block_crcs.len() as u32);
        for crc in &seal.block_crcs {
            body.put_u32(*crc);
        }
    }
    small_file::encode(FileKind::Seals, VERSION, &body)
}

/// Decodes the body; `None` if it is not one.
pub(super) fn decode(mut body: &[u8]) -> Option<Manifest> {
    let first = Offset::new(body.try_get_i64().ok()?)?;
    let count = body.try_get_u32().ok()?;
    let mut seals = Vec::new();
    for _ in 0..count {
        let base = Offset::new(body.try_get_i64().ok()?)?;
        let next = Offset::new(body.try_get_i64().ok()?)?;
        let len = body.try_get_u64().ok()?;
        let max_timestamp_ms = Some(body.try_get_i64().ok()?).filter(|timestamp| *timestamp >= 0);
        let (index_entries, time_entries) = (body.try_get_u32().ok()?, body.try_get_u32().ok()?);
        let blocks = body.try_get_u32().ok()?;
        if u64::from(blocks) != len.div_ceil(BLOCK_BYTES) {
            return None;
        }
        let block_crcs = (0..blocks).map(|_| body.try_get_u32().ok()).collect::<Option<_>>()?;
        seals.push(Seal { base, next, len, max_timestamp_ms, index_entries, time_entries, block_crcs });
    }
    body.is_empty().then_some(Manifest { first, seals })
}

/// Reads a log's manifest; `None` if there is none.
pub(super) fn read(fs: &dyn Fs, dir: &Path) -> Result<Option<Manifest>, ReadFileError> {
    read_file(fs, &dir.join(FILE))
}

/// The same from any file.
pub(super) fn read_file(fs: &dyn Fs, path: &Path) -> Result<Option<Manifest>, ReadFileError> {
    let Some(body) = small_file::read(fs, path, FileKind::Seals, VERSION)? else { return Ok(None) };
    match decode(&body) {
        Some(manifest) => Ok(Some(manifest)),
        None => Err(ReadFileError::Frame { path: path.to_owned(), source: small_file::FrameError::Damaged }),
    }
}

/// Replaces a log's manifest, durably.
///
/// # Errors
/// Whatever the file system says; the one before is then still there.
pub(super) fn replace(fs: &dyn Fs, dir: &Path, first: Offset, seals: &[&Seal]) -> io::Result<()> {
    small_file::replace(fs, dir, FILE, &encode(first, seals))
}

/// Checksums of the blocks of a file that is written from its start to its end.
#[derive(Debug, Default)]
pub(super) struct BlockCrcs {
    complete: Vec<u32>,
    current: crc32fast::Hasher,
    current_bytes: u64,
}

impl BlockCrcs {
    /// The next bytes of the file.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = (BLOCK_BYTES - self.current_bytes).min(bytes.len() as u64);
            let (now, later) = bytes.split_at(room as usize);
            self.current.update(now);
            self.current_bytes += room;
            if self.current_bytes == BLOCK_BYTES {
                self.complete.push(std::mem::take(&mut self.current).finalize());
                self.current_bytes = 0;
            }
            bytes = later;
        }
    }

    /// One for each block of a file that ought to have `len` bytes, inverted where it is touched by one of `damages`.
    pub(super) fn finish_damaged(self, len: u64, damages: &[Range<u64>]) -> Vec<u32> {
        let mut crcs = self.finish();
        // Of what is missing nothing is known, and nobody will read it.
        crcs.resize(len.div_ceil(BLOCK_BYTES) as usize, 0);
        for (block, crc) in (0..).zip(&mut crcs) {
            let (start, end) = (block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
            let touches =
                |damage: &Range<u64>| !damage.is_empty() && damage.start < end && start < damage.end;
            if damages.iter().any(touches) {
                *crc = !*crc;
            }
        }
        crcs
    }

    /// One for each block.
    pub(super) fn finish(mut self) -> Vec<u32> {
        if self.current_bytes > 0 {
            self.complete.push(self.current.finalize());
        }
        self.complete
    }
}

#[cfg(test)]
mod tests {
    use super::super::small_file::decode as unframe;
    use super::*;
    use proptest::prelude::*;

    fn any_seal() -> impl Strategy<Value = Seal> {
        (
            0i64..i64::MAX,
            0i64..i64::MAX,
            prop::option::of(0i64..i64::MAX),
            prop::collection::vec(any::<u32>(), 0..5),
        )
            .prop_map(|(base, next, max_timestamp_ms, block_crcs)| Seal {
                base: Offset::clamped(base),
                next: Offset::clamped(next),
                len: block_crcs.len() as u64 * BLOCK_BYTES,
                max_timestamp_ms,
                index_entries: base as u32,
                time_entries: next as u32,
                block_crcs,
            })
    }

    proptest! {
        #[test]
        fn a_manifest_comes_back_as_it_was(first in 0i64.., seals in prop::collection::vec(any_seal(), 0..5)) {
            let first = Offset::clamped(first);
            let bytes = encode(first, &seals.iter().collect::<Vec<_>>());
            let decoded = decode(unframe(FileKind::Seals, VERSION, &bytes).unwrap());
            prop_assert_eq!(decoded, Some(Manifest { first, seals }));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn the_format_is_pinned() {
        let seal = Seal {
            base: Offset::clamped(1),
            next: Offset::clamped(2),
            len: 3,
            max_timestamp_ms: None,
            index_entries: 4,
            time_entries: 5,
            block_crcs: vec![0xaabb_ccdd],
        };
        let body = [
            &[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1][..],
            &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3],
            &[0xff; 8],
            &[0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 1, 0xaa, 0xbb, 0xcc, 0xdd],
        ]
        .concat();
        assert_eq!(unframe(FileKind::Seals, VERSION, &encode(Offset::clamped(9), &[&seal])).unwrap(), body);
    }

    #[test]
    fn block_checksums_do_not_depend_on_how_the_bytes_arrive() {
        let bytes: Vec<u8> = (0..2_500_000u32).map(|i| (i * 7) as u8).collect();
        let expected: Vec<u32> = bytes.chunks(BLOCK_BYTES as usize).map(crc32fast::hash).collect();
        for piece in [1_000_003, 4096, 2_500_000] {
            let mut crcs = BlockCrcs::default();
            for part in bytes.chunks(piece) {
                crcs.update(part);
            }
            assert_eq!(crcs.finish(), expected);
        }
    }

    #[test]
    fn only_a_block_that_is_touched_by_damage_is_marked() {
        let len = BLOCK_BYTES + 100;
        let finish = |damages: &[Range<u64>]| {
            let mut crcs = BlockCrcs::default();
            crcs.update(&vec![7; len as usize]);
            crcs.finish_damaged(len, damages)
        };
        let sound = finish(&[]);
        assert_eq!(finish(&[len..len, 50..50]), sound, "no damage at all");
        assert_eq!(finish(&[BLOCK_BYTES..BLOCK_BYTES + 1, 50..50]), [sound[0], !sound[1]]);
    }
}

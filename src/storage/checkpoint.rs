//! The checkpoint of the data directory: from where each log must be scanned after an unclean end, and where it
//! starts for readers. In the file `checkpoint`, replaced whole.
//!
//! ```text
//! flags u8 (1: the last run ended in an orderly way) | leader epoch i32 | count u32, then for each log:
//!   topic id 16 bytes | partition u32 | log start offset i64
//!   recovery point: offset i64 | base offset of its segment i64 | position in it u64
//!   index entries u64 | time index entries u64
//!   largest timestamp i64 (-1: none) | its relative offset u32 | timestamp of the last time index entry i64 (-1: none)
//!   offset of the snapshot of producers i64 (-1: none), not in version 1: there are none
//! ```
//! Big-endian, in the frame of [`super::small_file`]. Everything below a recovery point is synced, indexes included.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use bytes::{Buf, BufMut};

use super::fs::Fs;
use super::index::{IndexResume, TimeEntry};
use super::small_file::{self, FileKind, FrameError, ReadFileError};
use crate::types::{LeaderEpoch, Offset, PartitionId, TopicId};

/// The file's name.
pub(super) const FILE: &str = "checkpoint";
pub(super) const VERSION: u8 = 2;
/// From before there were producers.
const VERSION_WITHOUT_PRODUCERS: u8 = 1;
const CLEAN: u8 = 1;

/// The name of the one before it.
pub(super) fn old_file() -> String {
    format!("{FILE}.old")
}

/// Names a log, whatever its topic is called.
pub(super) type LogKey = (TopicId, PartitionId);

/// A batch boundary: an offset, and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    /// The next offset.
    pub(super) offset: Offset,
    /// The segment.
    pub(super) segment: Offset,
    /// The length of that segment's log up to `offset`.
    pub(super) position: u64,
}

/// A batch boundary, with the state that the indexes of its segment have there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Boundary {
    /// Where.
    pub(super) mark: Mark,
    /// The indexes of that segment, up to there.
    pub(super) index: IndexResume,
}

/// What the checkpoint says of one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogCheckpoint {
    /// The first offset readers may see.
    pub(super) log_start: Offset,
    /// All below is synced, indexes included.
    pub(super) recovery_point: Boundary,
    /// The snapshot that has the producers of all below the recovery point; `None`: there were none.
    pub(super) producers: Option<Offset>,
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Checkpoint {
    /// The last run ended in an orderly way, and each recovery point is the end of its log.
    pub(super) clean: bool,
    /// Raised at each start that was not clean.
    pub(super) leader_epoch: LeaderEpoch,
    /// By log.
    pub(super) logs: BTreeMap<LogKey, LogCheckpoint>,
}

impl Checkpoint {
    /// Encodes the whole file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.put_u8(if self.clean { CLEAN } else { 0 });
        body.put_i32(self.leader_epoch.0);
        body.put_u32(self.logs.len() as u32);
        for ((topic_id, partition), log) in &self.logs {
            body.put_slice(topic_id.as_bytes());
            body.put_i32(partition.get());
            body.put_i64(log.log_start.get());
            body.put_i64(log.recovery_point.mark.offset.get());
            body.put_i64(log.recovery_point.mark.segment.get());
            body.put_u64(log.recovery_point.mark.position);
            body.put_u64(log.recovery_point.index.offsets);
            body.put_u64(log.recovery_point.index.times);
            body.put_i64(log.recovery_point.index.newest.map_or(-1, |newest| newest.timestamp_ms));
            body.put_u32(log.recovery_point.index.newest.map_or(0, |newest| newest.relative_offset));
            body.put_i64(log.recovery_point.index.last_entry_ms.unwrap_or(-1));
            body.put_i64(log.producers.map_or(-1, Offset::get));
        }
        small_file::encode(FileKind::Checkpoint, VERSION, &body)
    }

    /// Decodes the body of a file of that version; `None` if it is not one.
    pub(super) fn decode(version: u8, mut body: &[u8]) -> Option<Self> {
        let flags = body.try_get_u8().ok()?;
        let leader_epoch = LeaderEpoch(body.try_get_i32().ok()?);
        let count = body.try_get_u32().ok()?;
        let mut logs = BTreeMap::new();
        for _ in 0..count {
            let (key, log) = decode_log(version, &mut body)?;
            logs.insert(key, log);
        }
        let valid = body.is_empty() && flags <= CLEAN && leader_epoch.0 >= 0 && logs.len() == count as usize;
        valid.then_some(Self { clean: flags == CLEAN, leader_epoch, logs })
    }

    /// The epoch of the run that comes after the one that wrote it: what may have been lost must not come back in another
    /// guise.
    pub(super) fn next_epoch(&self) -> LeaderEpoch {
        if self.clean { self.leader_epoch } else { LeaderEpoch(self.leader_epoch.0.saturating_add(1)) }
    }

    /// Reads the checkpoint of a data directory; `None` if there is none that is any use. In place of a damaged or lost one
    /// stands the one before it, as after an unclean end: its recovery points are lower, and just as true.
    pub(super) fn read(fs: &dyn Fs, dir: &Path) -> Result<Option<Self>, ReadFileError> {
        let damage = match Self::read_file(fs, &dir.join(FILE)) {
            Err(damage @ ReadFileError::Frame { source: FrameError::Damaged, .. }) => Some(damage),
            Ok(None) => None,
            other => return other,
        };
        match Self::read_file(fs, &dir.join(old_file())) {
            Ok(Some(older)) => {
                let damage = damage.map_or("it is missing".to_owned(), |damage| damage.to_string());
                tracing::warn!(damage, "using the checkpoint before");
                // Twice: the damaged one may have been of the next epoch already.
                let leader_epoch = LeaderEpoch(older.leader_epoch.0.saturating_add(1));
                Ok(Some(Self { clean: false, leader_epoch, ..older }))
            }
            Err(error) => Err(damage.unwrap_or(error)),
            Ok(None) => {
                if let Some(damage) = damage {
                    // The first one there was, written before any log: the second would have kept it. So it said nothing.
                    tracing::warn!(%damage, "the only checkpoint is damaged");
                }
                Ok(None)
            }
        }
    }

    /// Reads the one in the file `path`, and that alone; `None` if there is none.
    pub(super) fn read_file(fs: &dyn Fs, path: &Path) -> Result<Option<Self>, ReadFileError> {
        let read = small_file::read_any(fs, path, FileKind::Checkpoint, VERSION)?;
        let Some((version, body)) = read else { return Ok(None) };
        match Self::decode(version, &body) {
            Some(checkpoint) => Ok(Some(checkpoint)),
            None => Err(ReadFileError::Frame { path: path.to_owned(), source: FrameError::Damaged }),
        }
    }

    /// Replaces the checkpoint, durably.
    ///
    /// # Errors
    /// Whatever the file system says; the one before is then still there.
    pub(super) fn replace(&self, fs: &dyn Fs, dir: &Path) -> io::Result<()> {
        small_file::replace_keeping_old(fs, dir, FILE, &self.encode())
    }
}

fn decode_log(version: u8, body: &mut &[u8]) -> Option<(LogKey, LogCheckpoint)> {
    let mut topic_id = [0; 16];
    body.try_copy_to_slice(&mut topic_id).ok()?;
    let partition = PartitionId::new(body.try_get_i32().ok()?)?;
    let log_start = Offset::new(body.try_get_i64().ok()?)?;
    let mark = Mark {
        offset: Offset::new(body.try_get_i64().ok()?)?,
        segment: Offset::new(body.try_get_i64().ok()?)?,
        position: get_size(body)?,
    };
    let (offsets, times) = (get_size(body)?, get_size(body)?);
    let (timestamp_ms, relative_offset) = (body.try_get_i64().ok()?, body.try_get_u32().ok()?);
    let newest = (timestamp_ms >= 0).then_some(TimeEntry { timestamp_ms, relative_offset });
    let last_entry_ms = Some(body.try_get_i64().ok()?).filter(|timestamp| *timestamp >= 0);
    let index = IndexResume { offsets, times, newest, last_entry_ms };
    let recovery_point = Boundary { mark, index };
    let producers = match version {
        VERSION_WITHOUT_PRODUCERS => None,
        _ => Offset::new(body.try_get_i64().ok()?),
    };
    Some(((TopicId::from_bytes(topic_id), partition), LogCheckpoint { log_start, recovery_point, producers }))
}

/// A place in a segment, or a number of its index entries: no segment is so large that it would need more than 32 bits.
fn get_size(body: &mut &[u8]) -> Option<u64> {
    u32::try_from(body.try_get_u64().ok()?).ok().map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_log() -> impl Strategy<Value = (LogKey, LogCheckpoint)> {
        let offset = || (0i64..i64::MAX).prop_map(Offset::clamped);
        let time = || prop::option::of((0i64..i64::MAX, any::<u32>()));
        (
            (any::<[u8; 16]>(), 0i32..10_000),
            offset(),
            (offset(), offset(), any::<u32>()),
            (any::<u32>(), any::<u32>(), time(), time()),
            prop::option::of(offset()),
        )
            .prop_map(
                |(
                    (id, partition),
                    log_start,
                    (offset, segment, position),
                    (offsets, times, newest, last),
                    producers,
                )| {
                    let newest = newest
                        .map(|(timestamp_ms, relative_offset)| TimeEntry { timestamp_ms, relative_offset });
                    let (offsets, times) = (u64::from(offsets), u64::from(times));
                    let index = IndexResume { offsets, times, newest, last_entry_ms: last.map(|(ms, _)| ms) };
                    let mark = Mark { offset, segment, position: position.into() };
                    let recovery_point = Boundary { mark, index };
                    let key = (TopicId::from_bytes(id), PartitionId::new(partition).unwrap());
                    (key, LogCheckpoint { log_start, recovery_point, producers })
                },
            )
    }

    proptest! {
        #[test]
        fn a_checkpoint_comes_back_as_it_was(clean: bool, epoch in 0i32.., logs in prop::collection::btree_map(any_log().prop_map(|l| l.0), any_log().prop_map(|l| l.1), 0..4)) {
            let checkpoint = Checkpoint { clean, leader_epoch: LeaderEpoch(epoch), logs };
            let bytes = checkpoint.encode();
            let body = small_file::decode(FileKind::Checkpoint, VERSION, &bytes).unwrap();
            prop_assert_eq!(Checkpoint::decode(VERSION, body), Some(checkpoint));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Checkpoint::decode(VERSION, &bytes);
        }
    }

    #[test]
    fn a_place_that_no_segment_has_is_no_place() {
        let key = (TopicId::from_bytes([9; 16]), PartitionId::new(0).unwrap());
        let mut log =
            LogCheckpoint { log_start: Offset::ZERO, recovery_point: Boundary::default(), producers: None };
        let decode = |log| {
            let checkpoint = Checkpoint { logs: BTreeMap::from([(key, log)]), ..Checkpoint::default() };
            let bytes = checkpoint.encode();
            Checkpoint::decode(VERSION, small_file::decode(FileKind::Checkpoint, VERSION, &bytes).unwrap())
        };
        log.recovery_point.index.offsets = u64::from(u32::MAX);
        assert!(decode(log).is_some());
        log.recovery_point.index.offsets += 1;
        assert_eq!(decode(log), None);
    }

    #[test]
    fn the_format_is_pinned() {
        let log = LogCheckpoint {
            log_start: Offset::clamped(1),
            recovery_point: Boundary {
                mark: Mark { offset: Offset::clamped(2), segment: Offset::clamped(3), position: 4 },
                index: IndexResume {
                    offsets: 5,
                    times: 6,
                    newest: Some(TimeEntry { timestamp_ms: 7, relative_offset: 8 }),
                    last_entry_ms: None,
                },
            },
            producers: Some(Offset::clamped(12)),
        };
        let key = (TopicId::from_bytes([9; 16]), PartitionId::new(10).unwrap());
        let checkpoint =
            Checkpoint { clean: true, leader_epoch: LeaderEpoch(11), logs: BTreeMap::from([(key, log)]) };
        let mut expected = vec![1, 0, 0, 0, 11, 0, 0, 0, 1];
        expected.extend([9; 16]);
        expected.extend([0, 0, 0, 10]);
        for number in 1u64..=7 {
            expected.extend(number.to_be_bytes());
        }
        expected.extend([0, 0, 0, 8]);
        expected.extend([0xff; 8]);
        let before_producers = expected.clone();
        expected.extend([0, 0, 0, 0, 0, 0, 0, 12]);
        let bytes = checkpoint.encode();
        assert_eq!(small_file::decode(FileKind::Checkpoint, VERSION, &bytes).unwrap(), expected);
        let log = LogCheckpoint { producers: None, ..log };
        let old = Checkpoint { logs: BTreeMap::from([(key, log)]), ..checkpoint };
        assert_eq!(Checkpoint::decode(1, &before_producers), Some(old));
    }
}

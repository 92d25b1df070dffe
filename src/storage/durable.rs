//! The durable slots: for each log a lower bound of what was durable, in the file `durable`. Written plainly with each
//! group sync, and synced at least every second; recovery cuts nothing below it.
//!
//! ```text
//! slots of 32 bytes: topic id 16 | partition u32 | durable offset i64 | CRC-32 (IEEE) of the slot's first 28 bytes u32
//! ```
//! Big-endian. A slot that does not check out (torn, zeros) says nothing.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::checkpoint::LogKey;
use super::fs::{Fs, FsFile, OpenHow, read_whole};
use crate::types::{Offset, PartitionId, TopicId};

/// The file's name.
pub(super) const FILE: &str = "durable";
/// The size of a slot.
pub(super) const SLOT_BYTES: usize = 32;

/// What a slot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// It belongs to no log.
    Free,
    /// The log was durable up to this offset.
    Of(LogKey, Offset),
    /// Nothing: it was not written whole, or has been damaged.
    Torn,
}

/// The file, and what is in it.
#[derive(Debug)]
pub(super) struct DurableSlots {
    file: Arc<dyn FsFile>,
    content: Vec<u8>,
    free: Vec<usize>,
    /// The slots that have changed since the last write.
    changed: Option<std::ops::RangeInclusive<usize>>,
    /// Written since the last sync.
    unsynced: bool,
}

impl DurableSlots {
    /// Reads what the last run left behind.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) fn read(fs: &dyn Fs, dir: &Path) -> io::Result<HashMap<LogKey, Offset>> {
        let content = read_whole(fs, &dir.join(FILE))?.unwrap_or_default();
        Ok(content.as_chunks::<SLOT_BYTES>().0.iter().filter_map(decode).collect())
    }

    /// All slots of the file `path` with their numbers; `None` if there is no file.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) fn inspect(fs: &dyn Fs, path: &Path) -> io::Result<Option<Vec<(u64, Slot)>>> {
        let Some(content) = read_whole(fs, path)? else { return Ok(None) };
        let (slots, rest) = content.as_chunks::<SLOT_BYTES>();
        let whole = slots.iter().map(|slot| match decode(slot) {
            Some((key, durable)) => Slot::Of(key, durable),
            None if *slot == [0; SLOT_BYTES] => Slot::Free,
            None => Slot::Torn,
        });
        let cut = (!rest.is_empty()).then_some(Slot::Torn);
        Ok(Some((0..).zip(whole.chain(cut)).collect()))
    }

    /// Starts anew with these bounds. What was there before is overwritten by the next [`DurableSlots::write`].
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) fn open(fs: &dyn Fs, dir: &Path) -> io::Result<Self> {
        let file = fs.open(&dir.join(FILE), OpenHow::Write)?;
        let len = file.len()? as usize / SLOT_BYTES * SLOT_BYTES;
        let slots = len / SLOT_BYTES;
        let changed = (slots > 0).then(|| 0..=slots - 1);
        Ok(Self { file, content: vec![0; len], free: (0..slots).rev().collect(), changed, unsynced: false })
    }

    /// A slot for a log.
    pub(super) fn assign(&mut self, key: LogKey, durable: Offset) -> usize {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.content.resize(self.content.len() + SLOT_BYTES, 0);
            self.content.len() / SLOT_BYTES - 1
        });
        self.set(slot, key, durable);
        slot
    }

    /// The log is gone.
    pub(super) fn release(&mut self, slot: usize) {
        if let Some(bytes) = self.content.get_mut(slot * SLOT_BYTES..(slot + 1) * SLOT_BYTES) {
            bytes.fill(0);
            self.free.push(slot);
            self.touch(slot);
        }
    }

    /// The log's durable offset has moved.
    pub(super) fn set(&mut self, slot: usize, key: LogKey, durable: Offset) {
        if let Some(bytes) = self.content.get_mut(slot * SLOT_BYTES..(slot + 1) * SLOT_BYTES) {
            bytes.copy_from_slice(&encode(key, durable));
            self.touch(slot);
        }
    }

    fn touch(&mut self, slot: usize) {
        self.changed = Some(match self.changed.take() {
            Some(range) => slot.min(*range.start())..=slot.max(*range.end()),
            None => slot..=slot,
        });
    }

    /// Writes what has changed.
    ///
    /// # Errors
    /// Whatever the file system says; it is written again with the next change.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let Some(range) = &self.changed else { return Ok(()) };
        let bytes = range.start() * SLOT_BYTES..(range.end() + 1) * SLOT_BYTES;
        let start = bytes.start as u64;
        let Some(changed) = self.content.get(bytes) else { return Ok(()) };
        self.file.write_all_at(&[changed], start)?;
        self.changed = None;
        self.unsynced = true;
        Ok(())
    }

    /// The file, if it was written since this was last asked: to be synced.
    pub(super) fn take_unsynced(&mut self) -> Option<Arc<dyn FsFile>> {
        std::mem::take(&mut self.unsynced).then(|| Arc::clone(&self.file))
    }
}

/// The bytes of a slot.
pub(super) fn encode((topic_id, partition): LogKey, durable: Offset) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..16].copy_from_slice(topic_id.as_bytes());
    slot[16..20].copy_from_slice(&partition.get().to_be_bytes());
    slot[20..28].copy_from_slice(&durable.get().to_be_bytes());
    let crc = crc32fast::hash(&slot[..28]);
    slot[28..].copy_from_slice(&crc.to_be_bytes());
    slot
}

/// What a slot says, if anything.
pub(super) fn decode(slot: &[u8; SLOT_BYTES]) -> Option<(LogKey, Offset)> {
    let (covered, crc) = slot.split_at(28);
    if crc != crc32fast::hash(covered).to_be_bytes() {
        return None;
    }
    let topic_id = TopicId::from_bytes(covered[..16].try_into().ok()?);
    let partition = PartitionId::new(i32::from_be_bytes(covered[16..20].try_into().ok()?))?;
    let durable = Offset::new(i64::from_be_bytes(covered[20..].try_into().ok()?))?;
    Some(((topic_id, partition), durable))
}

#[cfg(test)]
mod tests {
    use super::super::fs::RealFs;
    use super::*;

    fn key(id: u8) -> LogKey {
        (TopicId::from_bytes([id; 16]), PartitionId::new(3).unwrap())
    }

    #[test]
    fn the_format_is_pinned() {
        let slot = encode(key(7), Offset::clamped(258));
        assert_eq!(slot[..16], [7; 16]);
        assert_eq!(slot[16..28], [0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(slot[28..], crc32fast::hash(&slot[..28]).to_be_bytes());
        assert_eq!(decode(&[0; SLOT_BYTES]), None, "zeros say nothing");
    }

    #[test]
    fn slots_are_found_again_and_torn_ones_say_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut slots = DurableSlots::open(&RealFs, dir.path()).unwrap();
        let first = slots.assign(key(1), Offset::ZERO);
        let second = slots.assign(key(2), Offset::ZERO);
        slots.assign(key(3), Offset::clamped(30));
        slots.write().unwrap();
        slots.set(first, key(1), Offset::clamped(10));
        slots.release(second);
        slots.write().unwrap();
        let read = DurableSlots::read(&RealFs, dir.path()).unwrap();
        assert_eq!(read, HashMap::from([(key(1), Offset::clamped(10)), (key(3), Offset::clamped(30))]));

        let mut bytes = std::fs::read(dir.path().join(FILE)).unwrap();
        bytes[25] ^= 1;
        std::fs::write(dir.path().join(FILE), bytes).unwrap();
        let read = DurableSlots::read(&RealFs, dir.path()).unwrap();
        assert_eq!(read, HashMap::from([(key(3), Offset::clamped(30))]));
        assert_eq!(slots.assign(key(4), Offset::ZERO), second, "a free slot is used again");
    }

    #[test]
    fn what_an_earlier_run_left_behind_is_overwritten_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut slots = DurableSlots::open(&RealFs, dir.path()).unwrap();
        for id in 0..50 {
            slots.assign(key(id), Offset::clamped(100));
        }
        slots.write().unwrap();
        let mut slots = DurableSlots::open(&RealFs, dir.path()).unwrap();
        slots.assign(key(7), Offset::clamped(30));
        slots.write().unwrap();
        let read = DurableSlots::read(&RealFs, dir.path()).unwrap();
        assert_eq!(read, HashMap::from([(key(7), Offset::clamped(30))]));
        assert_eq!(std::fs::metadata(dir.path().join(FILE)).unwrap().len(), 50 * SLOT_BYTES as u64);
    }
}

//! Which addresses are maps of segments, and which of these maps have failed, in a form that a signal handler may read:
//! a fixed table of single words, looked at without locks and without memory of its own.
//!
//! Whoever touches a map holds it, so the word of a map in which a fault happens stays what it is meanwhile. A word
//! says all there is to say of a map, so none is ever seen half changed.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::limits;

/// The most maps there can be at a time, whatever the machine allows.
const SLOTS: usize = 1 << 18;
/// The unit of addresses: no page is smaller.
const UNIT_BYTES: usize = 4 << 10;
/// Of a word, from the lowest bit: failed, how many units, the first one.
const FAILED: u64 = 1;
const COUNT_BITS: u32 = 27;
const FIRST_SHIFT: u32 = COUNT_BITS + 1;

/// 0: free.
static TABLE: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];
/// Only the first so many have ever been used.
static USED: AtomicUsize = AtomicUsize::new(0);
/// Those that are free again.
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// A map's place in the table; free again when it is dropped, which must be before the map itself goes.
#[derive(Debug)]
pub(super) struct Entered(usize);

impl Entered {
    /// Enters the map of `len` bytes at `start`.
    ///
    /// # Errors
    /// `OutOfMemory` if there are as many maps as there may be.
    pub(super) fn new(start: usize, len: usize) -> io::Result<Self> {
        let word = pack(start, len).ok_or(io::ErrorKind::FileTooLarge)?;
        let slot = take_slot().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::OutOfMemory,
                "as many files are mapped as may be (vm.max_map_count)",
            )
        })?;
        slot_at(slot).store(word, Ordering::Release);
        Ok(Self(slot))
    }

    /// Whether a page of it could not be had when it was touched.
    pub(super) fn has_failed(&self) -> bool {
        slot_at(self.0).load(Ordering::Acquire) & FAILED != 0
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        slot_at(self.0).store(0, Ordering::Release);
        FREE.lock().push(self.0);
    }
}

/// Marks the map that has `address` as failed; `false` if there is none. May be called by a signal handler.
pub(super) fn mark_failed(address: usize) -> bool {
    let unit = (address / UNIT_BYTES) as u64;
    let used = USED.load(Ordering::Acquire);
    for slot in TABLE.iter().take(used) {
        let word = slot.load(Ordering::Acquire);
        let first = word >> FIRST_SHIFT;
        let count = (word >> 1) & ((1 << COUNT_BITS) - 1);
        if first <= unit && unit - first < count {
            slot.fetch_or(FAILED, Ordering::AcqRel);
            return true;
        }
    }
    false
}

fn pack(start: usize, len: usize) -> Option<u64> {
    let (first, count) = ((start / UNIT_BYTES) as u64, len.div_ceil(UNIT_BYTES) as u64);
    let fits = first >> (u64::BITS - FIRST_SHIFT) == 0 && count >> COUNT_BITS == 0;
    fits.then_some(first << FIRST_SHIFT | count << 1)
}

fn take_slot() -> Option<usize> {
    static MOST: OnceLock<usize> = OnceLock::new();
    let mut free = FREE.lock();
    if let Some(slot) = free.pop() {
        return Some(slot);
    }
    let most = *MOST.get_or_init(|| usize::try_from(limits::file_maps()).unwrap_or(SLOTS).min(SLOTS));
    let used = USED.load(Ordering::Relaxed);
    if used >= most {
        return None;
    }
    // Counted under the lock, and before the slot is filled: a fault in it finds it.
    USED.store(used + 1, Ordering::Release);
    Some(used)
}

#[expect(clippy::indexing_slicing, reason = "slots are given out from within the table")]
fn slot_at(slot: usize) -> &'static AtomicU64 {
    &TABLE[slot]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where nothing is ever mapped, so that the tests do not meet each other's maps.
    const NOWHERE: usize = 1 << 46;

    #[test]
    fn a_fault_marks_the_map_it_is_in_and_no_other() {
        let one = Entered::new(NOWHERE, 10_000).unwrap();
        let other = Entered::new(NOWHERE + 3 * UNIT_BYTES, 1).unwrap();
        assert!(!mark_failed(NOWHERE - 1));
        assert!(!mark_failed(NOWHERE + 4 * UNIT_BYTES));
        assert!(!one.has_failed() && !other.has_failed());
        assert!(mark_failed(NOWHERE + 3 * UNIT_BYTES - 1), "the last page, which is not all mapped");
        assert!(one.has_failed() && !other.has_failed());
        assert!(mark_failed(NOWHERE + 3 * UNIT_BYTES));
        assert!(other.has_failed());
    }

    #[test]
    fn what_has_left_the_table_is_not_found_and_its_place_begins_anew() {
        let start = NOWHERE + (1 << 30);
        let entered = Entered::new(start, 1).unwrap();
        assert!(mark_failed(start));
        drop(entered);
        assert!(!mark_failed(start));
        assert!(!Entered::new(start, 1).unwrap().has_failed());
    }

    #[test]
    fn a_map_that_no_word_can_tell_is_refused() {
        assert!(Entered::new(1 << 49, 1).is_err());
        assert!(Entered::new(0, 1 << 40).is_err());
    }
}

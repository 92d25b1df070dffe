//! The disk as its owner has it: faults are set, events planned, the machine booted, the power cut.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use parking_lot::Mutex;

use super::state::{Dir, File, State, apply};
use super::{Event, Faults, Kept, Lies, SimFs};

/// What a power cut keeps or loses on its own.
const SECTOR_BYTES: usize = 512;

/// The disk. Shared by the [`SimFs`] of one boot after the other.
#[derive(Debug, Clone)]
pub(crate) struct Disk(pub(super) Arc<Mutex<State>>);

impl Disk {
    pub(crate) fn new(seed: u64, lies: Lies) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: fastrand::Rng::with_seed(seed),
            trace: DefaultHasher::new(),
            boot: 0,
            lies,
            faults: Faults::default(),
            room_bytes: None,
            plan: None,
            operations: 0,
            files: Vec::new(),
            dirs: vec![Dir::default()],
            pending: Vec::new(),
            locked: BTreeSet::new(),
        })))
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    pub(crate) fn set_room(&self, room_bytes: Option<u64>) {
        self.0.lock().room_bytes = room_bytes;
    }

    /// Plans an event, in place of the one before; `None`: nothing more happens. Returns whether the one before has come.
    pub(crate) fn plan(&self, event: Option<Event>) -> bool {
        let mut state = self.0.lock();
        let at = match std::mem::replace(&mut state.plan, event) {
            None => u64::MAX,
            Some(Event::NoRoom(at) | Event::NoRoomFrom(at) | Event::Broken(at) | Event::PowerCut(at)) => at,
        };
        std::mem::take(&mut state.operations) > at
    }

    /// The machine runs; whatever ran before is gone, with what the page cache holds still there.
    pub(crate) fn boot(&self) -> SimFs {
        let mut state = self.0.lock();
        state.boot += 1;
        state.locked.clear();
        SimFs { disk: self.clone(), boot: state.boot }
    }

    /// The power is cut: of what was not synced, any part may be there, page by page and name by name.
    pub(crate) fn cut_power(&self) {
        self.cut_power_keeping(Kept::Some);
    }

    /// The power is cut: of what was not synced, this is there.
    pub(crate) fn cut_power_keeping(&self, kept: Kept) {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        state.boot += 1;
        for change in std::mem::take(&mut state.pending) {
            let is_kept = match kept {
                Kept::Nothing => false,
                Kept::Everything => true,
                Kept::Some => state.random.bool(),
            };
            if is_kept {
                apply(&mut state.dirs, &change, |dir| &mut dir.durable);
            }
        }
        for dir in &mut state.dirs {
            dir.now = dir.durable.clone();
        }
        for file in &mut state.files {
            match kept {
                Kept::Nothing => {}
                Kept::Everything => file.write_back(),
                Kept::Some => file.durable = survivor(file, &mut state.random),
            }
            file.now = file.durable.clone();
            file.forgotten.clear();
        }
        "cut".hash(&mut state.trace);
    }

    /// Stands for everything that has been asked and decided so far.
    pub(crate) fn trace(&self) -> u64 {
        self.0.lock().trace.finish()
    }

    /// A random number, from the disk's own seed.
    pub(crate) fn random(&self, below: u64) -> u64 {
        self.0.lock().random.u64(..below)
    }
}

/// What a power cut leaves of a file: its length old, new or in between, and of each sector that was written either
/// content, or zeros where there was nothing before.
fn survivor(file: &File, random: &mut fastrand::Rng) -> Vec<u8> {
    let (old, new) = (&file.durable, &file.now);
    if old == new {
        return old.clone();
    }
    let len = match random.u8(..4) {
        0 => old.len(),
        1 => random.usize(old.len().min(new.len())..=old.len().max(new.len())),
        _ => new.len(),
    };
    let all_new = random.u8(..4) == 0;
    let mut content = vec![0; len];
    for start in (0..len).step_by(SECTOR_BYTES) {
        let end = (start + SECTOR_BYTES).min(len);
        let source = if all_new || random.bool() { new } else { old };
        // Beyond the end of the chosen content there are zeros.
        if let Some(kept) = source.get(start..end.min(source.len())) {
            content[start..start + kept.len()].copy_from_slice(kept);
        }
    }
    content
}

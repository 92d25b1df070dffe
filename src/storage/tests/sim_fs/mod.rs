//! A simulated file system that forgets, as a disk does at a power cut, whatever was not synced: each page and each name
//! on its own, in any combination. Everything it decides comes from its seed, and everything it is asked goes into a
//! trace, so that a run can be told from another.
//!
//! What changes the disk is counted: one such operation, or all from one on, can be made to fail, or the power be cut right
//! before it.

mod disk;
mod file;
mod file_system;
mod state;

pub(crate) use disk::Disk;
pub(crate) use file_system::SimFs;

/// What is not as it is said to be; for showing that the tests notice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lies {
    /// A sync of a file does nothing.
    pub(super) file_sync: bool,
    /// A sync of a directory does nothing.
    pub(super) dir_sync: bool,
    /// The log acknowledges before it syncs. The log's lie, not the disk's: whoever sets up the log makes it true.
    pub(super) early_ack: bool,
}

/// How often calls fail, in thousandths.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(super) write: u32,
    pub(super) sync: u32,
    pub(super) create: u32,
    pub(super) rename: u32,
}

/// What happens at an operation of a given number, counted from when it was planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// It finds no room, if it takes some.
    NoRoom(u64),
    /// As from that one on all do that take some.
    NoRoomFrom(u64),
    /// It fails.
    Broken(u64),
    /// It does not happen, nor does any after it: the power is cut.
    PowerCut(u64),
}

/// What a power cut leaves of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Nothing,
    Everything,
    /// Any part, at random.
    Some,
}

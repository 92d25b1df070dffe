//! What the disk holds: files and names as they are now and as they are durable, and what is planned to happen to it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash};
use std::io;
use std::path::{Component, Path};

use super::{Event, Faults, Lies};

/// What is dirty or clean as a whole.
pub(super) const PAGE_BYTES: usize = 4096;

/// What an operation does to the disk, as far as it matters for [`Event`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// It takes room.
    Take,
    /// It does not.
    Other,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) random: fastrand::Rng,
    pub(super) trace: DefaultHasher,
    pub(super) boot: u64,
    pub(super) lies: Lies,
    pub(super) faults: Faults,
    /// Bytes that files may still grow by; `None`: any.
    pub(super) room_bytes: Option<u64>,
    /// What is planned, and how many operations there have been since.
    pub(super) plan: Option<Event>,
    pub(super) operations: u64,
    pub(super) files: Vec<File>,
    pub(super) dirs: Vec<Dir>,
    /// Changes of names that no directory sync has made durable, in order.
    pub(super) pending: Vec<Change>,
    pub(super) locked: BTreeSet<String>,
}

#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) now: Vec<u8>,
    pub(super) durable: Vec<u8>,
    /// Pages that were dirty when a sync failed: they look clean now, so that no later sync writes them, until they are
    /// written again. So Linux does it.
    pub(super) forgotten: BTreeSet<usize>,
}

impl File {
    /// What is dirty gets to the disk.
    pub(super) fn write_back(&mut self) {
        let Self { now, durable, forgotten } = self;
        durable.resize(now.len(), 0);
        for (page, content) in now.chunks(PAGE_BYTES).enumerate() {
            if !forgotten.contains(&page) {
                let start = page * PAGE_BYTES;
                durable[start..start + content.len()].copy_from_slice(content);
            }
        }
    }

    /// A sync has failed: what is dirty is clean from now on.
    pub(super) fn forget(&mut self) {
        for (page, content) in self.now.chunks(PAGE_BYTES).enumerate() {
            let start = page * PAGE_BYTES;
            if self.durable.get(start..start + content.len()) != Some(content) {
                self.forgotten.insert(page);
            }
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Dir {
    pub(super) now: BTreeMap<String, Node>,
    pub(super) durable: BTreeMap<String, Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    File(usize),
    Dir(usize),
}

/// A change of names that is durable as a whole or not at all.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) remove: Option<(usize, String)>,
    pub(super) put: Option<(usize, String, Node)>,
}

impl Change {
    pub(super) fn touches(&self, dir: usize) -> bool {
        self.remove.as_ref().is_some_and(|(at, _)| *at == dir)
            || self.put.as_ref().is_some_and(|(at, ..)| *at == dir)
    }
}

pub(super) fn apply(
    dirs: &mut [Dir],
    change: &Change,
    side: impl Fn(&mut Dir) -> &mut BTreeMap<String, Node>,
) {
    if let Some((dir, name)) = &change.remove {
        side(&mut dirs[*dir]).remove(name);
    }
    if let Some((dir, name, node)) = &change.put {
        side(&mut dirs[*dir]).insert(name.clone(), *node);
    }
}

impl State {
    pub(super) fn note(&mut self, what: &str, path: impl Hash, number: u64) {
        (what, path, number).hash(&mut self.trace);
    }

    pub(super) fn fails(&mut self, thousandths: u32) -> bool {
        thousandths > 0 && self.random.u32(..1000) < thousandths
    }

    pub(super) fn find(&self, path: &Path) -> Option<Node> {
        let mut node = Node::Dir(0);
        for name in names(path) {
            let Node::Dir(dir) = node else { return None };
            node = *self.dirs[dir].now.get(&name)?;
        }
        Some(node)
    }

    pub(super) fn dir(&self, path: &Path) -> io::Result<usize> {
        match self.find(path) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The directory that holds `path`, and its name there.
    pub(super) fn parent(&self, path: &Path) -> io::Result<(usize, String)> {
        let name = names(path).pop().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.dir(path.parent().unwrap_or(Path::new("")))?, name))
    }

    pub(super) fn change(&mut self, change: Change) {
        apply(&mut self.dirs, &change, |dir| &mut dir.now);
        self.pending.push(change);
    }

    pub(super) fn sync_file(&mut self, file: usize) {
        if !self.lies.file_sync {
            self.files[file].write_back();
        }
    }

    /// Counts an operation; whether it can be done. An error of kind `StorageFull` may come after a part of it.
    pub(super) fn begin(&mut self, op: Op) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        match self.plan {
            Some(Event::NoRoom(at)) if number == at && op == Op::Take => {
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(Event::NoRoomFrom(at)) if number >= at && op == Op::Take => {
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(Event::Broken(at)) if number == at => Err(io::Error::other("the disk is broken")),
            Some(Event::PowerCut(at)) if number >= at => {
                self.boot += 1;
                Err(io::Error::other("the power is cut"))
            }
            _ => Ok(()),
        }
    }

    /// A file has gone from `old` to `new` bytes.
    pub(super) fn use_room(&mut self, old: usize, new: usize) {
        if let Some(room) = &mut self.room_bytes {
            *room = (*room + old as u64).saturating_sub(new as u64);
        }
    }

    /// A file that may be there is to be no more.
    pub(super) fn free(&mut self, node: Option<Node>) {
        if let Some(Node::File(file)) = node {
            self.use_room(self.files[file].now.len(), 0);
        }
    }

    pub(super) fn sync_names(&mut self, is_meant: impl Fn(&Change) -> bool) {
        if self.lies.dir_sync {
            return;
        }
        let (meant, other) = std::mem::take(&mut self.pending).into_iter().partition(is_meant);
        self.pending = other;
        let meant: Vec<Change> = meant;
        for change in &meant {
            apply(&mut self.dirs, change, |dir| &mut dir.durable);
        }
    }
}

pub(super) fn names(path: &Path) -> Vec<String> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect()
}

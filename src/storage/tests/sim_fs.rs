//! A simulated file system that forgets, as a disk does at a power cut, whatever was not synced: each page and each name
//! on its own, in any combination. Everything it decides comes from its seed, and everything it is asked goes into a
//! trace, so that a run can be told from another.
//!
//! What changes the disk is counted: one such operation, or all from one on, can be made to fail, or the power be cut right
//! before it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::ops::Range;
use std::path::{Component, Path};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::super::fs::{DirEntry, Fs, FsFile, LockOutcome, OpenHow};
use super::super::mmap::Map;

/// What a power cut keeps or loses on its own.
const SECTOR_BYTES: usize = 512;
/// What is dirty or clean as a whole.
const PAGE_BYTES: usize = 4096;

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
pub(super) struct Faults {
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

/// What an operation does to the disk, as far as it matters for [`Event`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    /// It takes room.
    Take,
    /// It does not.
    Other,
}

/// The disk. Shared by the [`SimFs`] of one boot after the other.
#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<Mutex<State>>);

/// The file system as one boot of the machine sees it; dead once the next one begins.
#[derive(Debug, Clone)]
pub(crate) struct SimFs {
    disk: Disk,
    boot: u64,
}

#[derive(Debug)]
struct State {
    random: fastrand::Rng,
    trace: DefaultHasher,
    boot: u64,
    lies: Lies,
    faults: Faults,
    /// Bytes that files may still grow by; `None`: any.
    room_bytes: Option<u64>,
    /// What is planned, and how many operations there have been since.
    plan: Option<Event>,
    operations: u64,
    files: Vec<File>,
    dirs: Vec<Dir>,
    /// Changes of names that no directory sync has made durable, in order.
    pending: Vec<Change>,
    locked: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct File {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Pages that were dirty when a sync failed: they look clean now, so that no later sync writes them, until they are
    /// written again. So Linux does it.
    forgotten: BTreeSet<usize>,
}

impl File {
    /// What is dirty gets to the disk.
    fn write_back(&mut self) {
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
    fn forget(&mut self) {
        for (page, content) in self.now.chunks(PAGE_BYTES).enumerate() {
            let start = page * PAGE_BYTES;
            if self.durable.get(start..start + content.len()) != Some(content) {
                self.forgotten.insert(page);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Dir {
    now: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    File(usize),
    Dir(usize),
}

/// A change of names that is durable as a whole or not at all.
#[derive(Debug, Clone)]
struct Change {
    remove: Option<(usize, String)>,
    put: Option<(usize, String, Node)>,
}

impl Change {
    fn touches(&self, dir: usize) -> bool {
        self.remove.as_ref().is_some_and(|(at, _)| *at == dir)
            || self.put.as_ref().is_some_and(|(at, ..)| *at == dir)
    }
}

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

    pub(super) fn set_faults(&self, faults: Faults) {
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
    pub(super) fn cut_power(&self) {
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
    pub(super) fn trace(&self) -> u64 {
        self.0.lock().trace.finish()
    }

    /// A random number, from the disk's own seed.
    pub(super) fn random(&self, below: u64) -> u64 {
        self.0.lock().random.u64(..below)
    }
}

fn apply(dirs: &mut [Dir], change: &Change, side: impl Fn(&mut Dir) -> &mut BTreeMap<String, Node>) {
    if let Some((dir, name)) = &change.remove {
        side(&mut dirs[*dir]).remove(name);
    }
    if let Some((dir, name, node)) = &change.put {
        side(&mut dirs[*dir]).insert(name.clone(), *node);
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

impl State {
    fn note(&mut self, what: &str, path: impl Hash, number: u64) {
        (what, path, number).hash(&mut self.trace);
    }

    fn fails(&mut self, thousandths: u32) -> bool {
        thousandths > 0 && self.random.u32(..1000) < thousandths
    }

    fn find(&self, path: &Path) -> Option<Node> {
        let mut node = Node::Dir(0);
        for name in names(path) {
            let Node::Dir(dir) = node else { return None };
            node = *self.dirs[dir].now.get(&name)?;
        }
        Some(node)
    }

    fn dir(&self, path: &Path) -> io::Result<usize> {
        match self.find(path) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The directory that holds `path`, and its name there.
    fn parent(&self, path: &Path) -> io::Result<(usize, String)> {
        let name = names(path).pop().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.dir(path.parent().unwrap_or(Path::new("")))?, name))
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.dirs, &change, |dir| &mut dir.now);
        self.pending.push(change);
    }

    fn sync_file(&mut self, file: usize) {
        if !self.lies.file_sync {
            self.files[file].write_back();
        }
    }

    /// Counts an operation; whether it can be done. An error of kind `StorageFull` may come after a part of it.
    fn begin(&mut self, op: Op) -> io::Result<()> {
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
    fn use_room(&mut self, old: usize, new: usize) {
        if let Some(room) = &mut self.room_bytes {
            *room = (*room + old as u64).saturating_sub(new as u64);
        }
    }

    /// A file that may be there is to be no more.
    fn free(&mut self, node: Option<Node>) {
        if let Some(Node::File(file)) = node {
            self.use_room(self.files[file].now.len(), 0);
        }
    }

    fn sync_names(&mut self, is_meant: impl Fn(&Change) -> bool) {
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

fn names(path: &Path) -> Vec<String> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect()
}

impl SimFs {
    /// Does something to the disk, unless this boot is over.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.0.lock();
        if state.boot == self.boot { act(&mut state) } else { Err(io::Error::other("the machine is off")) }
    }

    fn at(&self, path: &Path, what: &str) -> io::Result<()> {
        self.with(|state| {
            state.note(what, path, 0);
            Ok(())
        })
    }
}

impl Fs for SimFs {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn FsFile>> {
        self.at(path, "open")?;
        let node = self.with(|state| match (state.find(path), how) {
            (Some(_), OpenHow::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(node), _) => Ok(node),
            (None, OpenHow::Read) => Err(io::ErrorKind::NotFound.into()),
            (None, _) => {
                state.begin(Op::Take)?;
                if state.fails(state.faults.create) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let (dir, name) = state.parent(path)?;
                let node = Node::File(state.files.len());
                state.files.push(File::default());
                state.change(Change { remove: None, put: Some((dir, name, node)) });
                Ok(node)
            }
        })?;
        Ok(Arc::new(SimFile { fs: self.clone(), node, is_log: path.extension().is_some_and(|e| e == "log") }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.at(path, "mkdir")?;
        let mut above = std::path::PathBuf::new();
        for name in names(path) {
            let parent = above.clone();
            above.push(&name);
            self.with(|state| {
                if state.find(&above).is_none() {
                    state.begin(Op::Take)?;
                    let dir = state.dir(&parent)?;
                    let node = Node::Dir(state.dirs.len());
                    state.dirs.push(Dir::default());
                    state.change(Change { remove: None, put: Some((dir, name, node)) });
                }
                state.dir(&above).map(drop)
            })?;
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.with(|state| {
            let entries = &state.dirs[state.dir(dir)?].now;
            let entry = |(name, node): (&String, &Node)| DirEntry {
                name: name.clone(),
                is_dir: matches!(node, Node::Dir(_)),
            };
            Ok(entries.iter().map(entry).collect())
        })
    }

    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        self.with(|state| match state.find(path) {
            Some(Node::File(file)) => Ok(Some(state.files[file].now.len() as u64)),
            Some(Node::Dir(_)) => Ok(Some(0)),
            None => Ok(None),
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.at(from, "rename")?;
        self.with(|state| {
            let node = state.find(from).ok_or(io::ErrorKind::NotFound)?;
            state.begin(Op::Take)?;
            if state.fails(state.faults.rename) {
                return Err(io::Error::other("the disk does not rename"));
            }
            state.free(state.find(to));
            let (remove, (dir, name)) = (state.parent(from)?, state.parent(to)?);
            state.change(Change { remove: Some(remove), put: Some((dir, name, node)) });
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.at(path, "remove")?;
        self.with(|state| {
            let node = state.find(path).ok_or(io::ErrorKind::NotFound)?;
            state.begin(Op::Other)?;
            state.free(Some(node));
            let remove = state.parent(path)?;
            state.change(Change { remove: Some(remove), put: None });
            Ok(())
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        for entry in self.list(path)? {
            let path = path.join(entry.name);
            if entry.is_dir { self.remove_dir(&path)? } else { self.remove_file(&path)? }
        }
        self.remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.at(dir, "sync dir")?;
        self.with(|state| {
            let dir = state.dir(dir)?;
            state.begin(Op::Other)?;
            state.sync_names(|change| change.touches(dir));
            Ok(())
        })
    }

    fn can_sync_file_system(&self, _dir: &Path) -> bool {
        true
    }

    fn lock(&self, path: &Path, content: &str) -> io::Result<LockOutcome> {
        let name = path.display().to_string();
        let taken = self.with(|state| Ok(!state.locked.insert(name)))?;
        if taken {
            return Ok(LockOutcome::Held { holder: "another".to_owned() });
        }
        // As on a real one: it is held without content too.
        let _ = self.open(path, OpenHow::Write)?.write_all_at(&[content.as_bytes()], 0);
        Ok(LockOutcome::Locked(Box::new(())))
    }

    fn lock_as_is(&self, path: &Path) -> io::Result<LockOutcome> {
        self.open(path, OpenHow::Read)?;
        let name = path.display().to_string();
        let taken = self.with(|state| Ok(state.locked.contains(&name)))?;
        Ok(if taken {
            LockOutcome::Held { holder: "another".to_owned() }
        } else {
            LockOutcome::Locked(Box::new(()))
        })
    }
}

#[derive(Debug, Clone)]
struct SimFile {
    fs: SimFs,
    node: Node,
    is_log: bool,
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut State, usize) -> io::Result<T>) -> io::Result<T> {
        let Node::File(file) = self.node else { return Err(io::ErrorKind::IsADirectory.into()) };
        self.fs.with(|state| act(state, file))
    }
}

impl FsFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|state, file| Ok(state.files[file].now.len() as u64))
    }

    fn read_exact_at(&self, buf: &mut [u8], position: u64) -> io::Result<()> {
        let start = position as usize;
        self.with(|state, file| {
            let found = state.files[file].now.get(start..start + buf.len());
            buf.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write_all_at(&self, bufs: &[&[u8]], position: u64) -> io::Result<()> {
        let mut bytes = bufs.concat();
        let (is_log, boot) = (self.is_log, self.fs.boot);
        self.with(|state, file| {
            state.note("write", file, position);
            let mut failure = None;
            let end = position as usize + bytes.len();
            let op = if end > state.files[file].now.len() { Op::Take } else { Op::Other };
            if let Err(error) = state.begin(op) {
                // With the power the boot has ended, and nothing is written.
                bytes.truncate(if state.boot == boot { bytes.len() / 2 } else { 0 });
                failure = Some(error);
            }
            if is_log && state.fails(state.faults.write) {
                failure = Some(io::Error::other("the disk does not write"));
                bytes.truncate(state.random.usize(..=bytes.len()));
            }
            let start = position as usize;
            let old = state.files[file].now.len();
            let grows = (start + bytes.len()).saturating_sub(old) as u64;
            if let Some(room) = state.room_bytes.filter(|room| grows > *room) {
                failure = Some(io::ErrorKind::StorageFull.into());
                bytes.truncate(bytes.len() - (grows - room) as usize);
            }
            state.use_room(old, old.max(start + bytes.len()));
            state.files[file].forgotten.retain(|page| {
                let pages = start / PAGE_BYTES..(start + bytes.len()).div_ceil(PAGE_BYTES);
                !pages.contains(page)
            });
            let content = &mut state.files[file].now;
            if !bytes.is_empty() && content.len() < start + bytes.len() {
                content.resize(start + bytes.len(), 0);
            }
            if let Some(written) = content.get_mut(start..start + bytes.len()) {
                written.copy_from_slice(&bytes);
            }
            failure.map_or(Ok(()), Err)
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|state, file| {
            state.note("cut", file, len);
            state.begin(Op::Other)?;
            state.use_room(state.files[file].now.len(), len as usize);
            state.files[file].now.resize(len as usize, 0);
            Ok(())
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let held = self.len()?;
        if held < len { self.write_all_at(&[&vec![0; (len - held) as usize]], held) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let is_log = self.is_log;
        self.with(|state, file| {
            state.note("sync", file, 0);
            let begun = state.begin(Op::Other);
            if begun.is_err() || (is_log && state.fails(state.faults.sync)) {
                state.files[file].forget();
                return begun.and(Err(io::Error::other("the disk does not sync")));
            }
            state.sync_file(file);
            Ok(())
        })
    }

    fn sync_file_system(&self) -> io::Result<()> {
        self.fs.with(|state| {
            state.note("sync all", 0, 0);
            // An error names no file: it may be another program's.
            state.begin(Op::Other)?;
            for file in 0..state.files.len() {
                state.sync_file(file);
            }
            state.sync_names(|_| true);
            Ok(())
        })
    }

    fn map(&self, len: u64) -> io::Result<Arc<dyn Map>> {
        Ok(Arc::new(SimMap { file: self.clone(), len }))
    }
}

#[derive(Debug)]
struct SimMap {
    file: SimFile,
    len: u64,
}

impl Map for SimMap {
    fn len(&self) -> u64 {
        self.len
    }

    fn slice(self: Arc<Self>, range: Range<u64>) -> io::Result<Bytes> {
        if range.end > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.file.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes.into())
    }

    fn has_failed(&self) -> bool {
        false
    }
}

//! The file system as one boot of the machine sees it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::super::fs::{DirEntry, Fs, FsFile, LockOutcome, OpenHow};
use super::Disk;
use super::file::SimFile;
use super::state::{Change, Dir, File, Node, Op, State, names};

/// The file system as one boot of the machine sees it; dead once the next one begins.
#[derive(Debug, Clone)]
pub(crate) struct SimFs {
    pub(super) disk: Disk,
    pub(super) boot: u64,
}

impl SimFs {
    /// Does something to the disk, unless this boot is over.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
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
        let mut above = PathBuf::new();
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

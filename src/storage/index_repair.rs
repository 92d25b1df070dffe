//! Makes the indexes of a segment anew from its log, when a read has found them wrong.

use std::io;
use std::sync::Arc;

use super::epochs::LeaderEpochs;
use super::index::{SegmentIndex, Unflushed};
use super::scan::{Found, Known, Place, Scan};
use super::segment::{Segment, offset_entry};
use crate::types::Offset;

impl Segment {
    /// Makes both indexes anew. Those of a sealed segment are replaced on the disk; those of one that is not come back
    /// into memory, and to the disk with the next checkpoint. `below`: what the log reaches to.
    ///
    /// Called while the log is open, and nobody else changes files in its directory.
    ///
    /// # Errors
    /// Whatever the file system says; if the log could be read, the indexes of a sealed segment are right in memory all the
    /// same, and wrong again after the next start.
    pub(super) fn repair_index(self: &Arc<Self>, epochs: &LeaderEpochs, below: Offset) -> io::Result<()> {
        {
            // Given back before the maps are closed: others may wait for it with these locked.
            let _permit = self.permit();
            let index = self.index_of_log(epochs, below)?;
            if self.seal().is_some() {
                self.replace_index(index)?;
            } else {
                self.take_back_index(index)?;
            }
        }
        self.close();
        tracing::warn!(path = %self.path("index").display(), "the indexes of a segment were wrong, and are rebuilt");
        Ok(())
    }

    /// Both indexes, as they should be.
    fn index_of_log(&self, epochs: &LeaderEpochs, below: Offset) -> io::Result<SegmentIndex> {
        let mut index = self.index().read().same_interval();
        let (start, end) = (Place { position: 0, offset: self.base() }, self.visible_bytes());
        let seal = self.seal();
        let known = Known {
            epochs,
            newest_epoch: epochs.last().unwrap_or_default(),
            reaches: below,
            end: seal.map(|seal| seal.next),
        };
        let mut scan = Scan::open(self.fs(), &self.log_path(), start, end)?;
        loop {
            let detail = match scan.next(&known)? {
                Found::Batch { batch, position } => {
                    let entry = offset_entry(self.base(), &batch, position);
                    index.add(entry, batch.size_bytes() as u64, batch.max_timestamp());
                    continue;
                }
                Found::Bad { detail } => detail,
                Found::End => return Ok(index),
            };
            scan.skip(&known, detail)?;
        }
    }

    fn replace_index(&self, mut index: SegmentIndex) -> io::Result<()> {
        index.finish();
        let unflushed = index.unflushed();
        let replaced = self.replace_index_files(&unflushed);
        if replaced.is_ok() {
            index.forget(&unflushed);
        }
        // If they could not be written, as on a full disk: lest each read makes them anew.
        *self.index().write() = index;
        replaced
    }

    fn replace_index_files(&self, unflushed: &Unflushed) -> io::Result<()> {
        let (offsets, times) = (self.path("index.tmp"), self.path("timeindex.tmp"));
        for file in unflushed.write(self.fs(), &offsets, &times)? {
            file.sync()?;
        }
        self.fs().rename(&offsets, &self.path("index"))?;
        self.fs().rename(&times, &self.path("timeindex"))?;
        self.fs().sync_dir(self.dir())
    }

    /// The files go, rather than being written again: who reads in a map of them keeps what he has.
    fn take_back_index(&self, rebuilt: SegmentIndex) -> io::Result<()> {
        self.index().write().take_back(rebuilt);
        for name in ["index", "timeindex"] {
            match self.fs().remove_file(&self.path(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

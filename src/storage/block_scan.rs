//! The block checksums of a complete segment that this process has not written from its start: from the file, every batch
//! of which is checked on the way, so that damage is not sealed in as if it were good.

use std::io;
use std::path::Path;

use super::epochs::LeaderEpochs;
use super::fs::Fs;
use super::scan::{Found, Known, Place, Scan};
use super::seals::BlockCrcs;
use crate::types::{LeaderEpoch, Offset};

/// A segment that nothing is appended to any more.
pub(super) struct Complete {
    /// The offset in its file name.
    pub(super) base: Offset,
    /// One past its last offset.
    pub(super) next: Offset,
    /// The length of its log file.
    pub(super) len: u64,
}

/// What its file came to.
pub(super) struct BlockScan {
    /// One for each block; see [`BlockCrcs::finish_damaged`].
    pub(super) crcs: Vec<u32>,
    /// The largest timestamp of the batches that can be read.
    pub(super) max_timestamp_ms: Option<i64>,
}

impl Complete {
    /// Reads the whole file.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) fn scan(
        &self,
        fs: &dyn Fs,
        path: &Path,
        epochs: &LeaderEpochs,
        newest_epoch: LeaderEpoch,
    ) -> io::Result<BlockScan> {
        let known = Known { epochs, newest_epoch, reaches: self.next, end: Some(self.next) };
        let (mut crcs, mut damages) = (BlockCrcs::default(), Vec::new());
        let mut max_timestamp_ms = None;
        let mut scan = Scan::open(fs, path, Place { position: 0, offset: self.base }, self.len)?;
        loop {
            let detail = match scan.next(&known)? {
                Found::Batch { batch, .. } => {
                    crcs.update(batch.as_bytes());
                    max_timestamp_ms = max_timestamp_ms.max(Some(batch.max_timestamp()));
                    continue;
                }
                Found::Bad { detail } => detail,
                Found::End => break,
            };
            let damage = scan.skip(&known, detail)?;
            scan.copy(damage.positions.clone(), |bytes| {
                crcs.update(bytes);
                Ok(())
            })?;
            tracing::warn!(
                path = %path.display(), first = %damage.first, next = %damage.next, "sealing a damaged segment"
            );
            damages.push(damage.positions);
        }
        damages.push(scan.len()..self.len);
        let crcs = crcs.finish_damaged(self.len, &damages);
        Ok(BlockScan { crcs, max_timestamp_ms: max_timestamp_ms.filter(|timestamp| *timestamp >= 0) })
    }
}

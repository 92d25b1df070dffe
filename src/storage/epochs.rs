//! The leader epochs of a log: from which offset on each one holds. In the file `leader-epochs`, replaced whole with
//! each checkpoint after a change; what is newer stands in the batches themselves. See Kafka's KIP-101.
//!
//! ```text
//! count u32, then for each epoch, ascending: epoch i32 | start offset i64
//! ```
//! Big-endian, in the frame of [`super::small_file`].

use std::path::Path;

use bytes::{Buf, BufMut};

use super::fs::Fs;
use super::small_file::{self, FileKind, FrameError, ReadFileError};
use crate::types::{LeaderEpoch, Offset};

/// The file's name.
pub(super) const FILE: &str = "leader-epochs";
pub(super) const VERSION: u8 = 1;

/// Epochs with their start offsets; both ascend.
#[derive(Debug, Clone, Default)]
pub(super) struct LeaderEpochs {
    entries: Vec<(LeaderEpoch, Offset)>,
    /// The file says something else.
    changed: bool,
}

impl LeaderEpochs {
    /// Those of a new log, whose first batch is expected in `epoch`; as they are in its file.
    pub(super) fn of_new_log(epoch: LeaderEpoch) -> Self {
        Self { entries: vec![(epoch, Offset::ZERO)], changed: false }
    }

    /// A batch of `epoch` begins at `start`.
    pub(super) fn assign(&mut self, epoch: LeaderEpoch, start: Offset) {
        if self.entries.last().is_none_or(|(last, _)| epoch > *last) {
            self.entries.push((epoch, start));
            self.changed = true;
        }
    }

    /// The log was cut: forgets the epochs that began at `end` or later.
    pub(super) fn truncate(&mut self, end: Offset) {
        let before = self.entries.len();
        self.entries.retain(|(_, start)| *start < end);
        self.changed |= self.entries.len() < before;
    }

    /// What the file is to say, if that is news; taken to be written.
    pub(super) fn take_changed(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.changed).then(|| self.encode())
    }

    /// It could not be written after all.
    pub(super) fn set_changed(&mut self) {
        self.changed = true;
    }

    /// The one that holds at `offset`.
    pub(super) fn at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|(_, start)| *start <= offset);
        self.entries.get(after.checked_sub(1)?).map(|(epoch, _)| *epoch)
    }

    /// Whether a batch at `offset` can have `epoch`: the one that holds there, or, behind where the last one began, a
    /// later one up to `newest`.
    pub(super) fn allow(&self, epoch: LeaderEpoch, offset: Offset, newest: LeaderEpoch) -> bool {
        let holds = self.at(offset);
        let is_last = self.entries.last().is_none_or(|(_, start)| *start <= offset);
        if is_last { holds.unwrap_or_default() <= epoch && epoch <= newest } else { holds == Some(epoch) }
    }

    /// Those of a log whose file is lost: to be assigned from its batches, and written.
    pub(super) fn lost() -> Self {
        Self { entries: Vec::new(), changed: true }
    }

    /// The last one.
    pub(super) fn last(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// All of them, ascending.
    pub(super) fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.entries
    }

    /// Encodes the whole file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.put_u32(self.entries.len() as u32);
        for (epoch, start) in &self.entries {
            body.put_i32(epoch.0);
            body.put_i64(start.get());
        }
        small_file::encode(FileKind::LeaderEpochs, VERSION, &body)
    }

    /// Decodes the body; `None` if it is not one.
    pub(super) fn decode(mut body: &[u8]) -> Option<Self> {
        let count = body.try_get_u32().ok()?;
        let mut entries = Vec::new();
        for _ in 0..count {
            let epoch = LeaderEpoch(body.try_get_i32().ok()?);
            entries.push((epoch, Offset::new(body.try_get_i64().ok()?)?));
        }
        let ascending = entries.windows(2).all(|pair| pair[0] < pair[1] && pair[0].1 <= pair[1].1);
        (body.is_empty() && ascending).then_some(Self { entries, changed: false })
    }

    /// Reads a log's epochs; `None` if there is no file.
    pub(super) fn read(fs: &dyn Fs, dir: &Path) -> Result<Option<Self>, ReadFileError> {
        Self::read_file(fs, &dir.join(FILE))
    }

    /// The same from any file.
    pub(super) fn read_file(fs: &dyn Fs, path: &Path) -> Result<Option<Self>, ReadFileError> {
        let Some(body) = small_file::read(fs, path, FileKind::LeaderEpochs, VERSION)? else {
            return Ok(None);
        };
        match Self::decode(&body) {
            Some(epochs) => Ok(Some(epochs)),
            None => Err(ReadFileError::Frame { path: path.to_owned(), source: FrameError::Damaged }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_ascend_and_are_cut_with_the_log() {
        let mut epochs = LeaderEpochs::default();
        epochs.assign(LeaderEpoch(0), Offset::ZERO);
        assert!(epochs.take_changed().is_some());
        epochs.assign(LeaderEpoch(0), Offset::clamped(5));
        assert!(epochs.take_changed().is_none(), "no news");
        epochs.assign(LeaderEpoch(2), Offset::clamped(9));
        assert!(epochs.take_changed().is_some());
        assert_eq!(epochs.last(), Some(LeaderEpoch(2)));
        epochs.truncate(Offset::clamped(9));
        assert_eq!(epochs.last(), Some(LeaderEpoch(0)));
        assert!(epochs.take_changed().is_some());
    }

    #[test]
    fn the_format_is_pinned() {
        let mut epochs = LeaderEpochs::default();
        epochs.assign(LeaderEpoch(1), Offset::ZERO);
        epochs.assign(LeaderEpoch(2), Offset::clamped(3));
        let bytes = epochs.encode();
        let body = small_file::decode(FileKind::LeaderEpochs, VERSION, &bytes).unwrap();
        let expected = [0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3];
        assert_eq!(body, expected);
        assert_eq!(LeaderEpochs::decode(body).unwrap().entries, epochs.entries);
    }

    #[test]
    fn epochs_that_do_not_ascend_are_no_epochs() {
        let mut body = vec![0, 0, 0, 2];
        for _ in 0..2 {
            body.put_i32(1);
            body.put_i64(0);
        }
        assert!(LeaderEpochs::decode(&body).is_none());
    }
}

//! The producers of a log that an earlier run left behind: from a snapshot, and what the log has after it.
//!
//! A checkpoint names the snapshot that holds at its recovery point (with none named, there were no producers), and every
//! snapshot holds at its own offset. Recovery takes the one that holds furthest up, and replays the batches from there
//! on. One that is missing or damaged is not believed: then the one before it is taken, or the whole log is replayed.
//! It costs time, and forgets no producer whose batches the log still has.

use std::io;
use std::path::Path;

use super::checkpoint::LogCheckpoint;
use super::epochs::LeaderEpochs;
use super::fs::Fs;
use super::producer_snapshot::{self, SnapshotFiles};
use super::producers::{ProducerBatch, ProducerLimits, ProducerState, Producers};
use super::scan::{Found, Known, Place, Scan};
use super::seals::{Manifest, Seal};
use super::segment::file_name;
use crate::record::BatchView;
use crate::types::{LeaderEpoch, Offset};

/// The producers, while the log is looked at.
pub(super) struct ProducerReplay {
    producers: Producers,
    /// All batches below have been taken in.
    complete_to: Offset,
    /// The snapshot that is good for what was known before the replay.
    named: Option<Offset>,
    files: SnapshotFiles,
    now_ms: i64,
}

/// The producers of a log that has been opened.
pub(super) struct RecoveredProducers {
    pub(super) producers: Producers,
    /// The snapshot that a checkpoint can name as long as there is no news.
    pub(super) named: Option<Offset>,
    pub(super) files: SnapshotFiles,
}

impl RecoveredProducers {
    /// Those of a new log.
    pub(super) fn none(limits: ProducerLimits) -> Self {
        Self { producers: Producers::new(limits), named: None, files: SnapshotFiles::default() }
    }
}

/// Where the producers are looked for.
pub(super) struct Sources<'a> {
    pub(super) fs: &'a dyn Fs,
    pub(super) dir: &'a Path,
    pub(super) checkpoint: Option<LogCheckpoint>,
    pub(super) manifest: &'a Manifest,
    pub(super) epochs: &'a LeaderEpochs,
    /// No batch has a later one.
    pub(super) newest_epoch: LeaderEpoch,
}

impl ProducerReplay {
    /// Takes the best snapshot, and replays what the sealed segments have after it.
    ///
    /// # Errors
    /// If the directory, or a sealed segment that is needed, cannot be read.
    pub(super) fn begin(sources: &Sources<'_>, limits: ProducerLimits, now_ms: i64) -> io::Result<Self> {
        let entries = sources.fs.list(sources.dir)?;
        for left in entries.iter().filter(|entry| producer_snapshot::is_temporary(&entry.name)) {
            // One that stays is in nobody's way.
            let _ = sources.fs.remove_file(&sources.dir.join(&left.name));
        }
        let files = SnapshotFiles::among(entries.iter().map(|entry| &*entry.name));
        let (states, complete_to, named) = sources.best(&files);
        let producers = Producers::restore(limits, states, now_ms);
        let mut replay = Self { producers, complete_to, named, files, now_ms };
        for seal in &sources.manifest.seals {
            if seal.next > replay.complete_to {
                replay.visit_sealed(sources, seal)?;
            }
        }
        Ok(replay)
    }

    fn visit_sealed(&mut self, sources: &Sources<'_>, seal: &Seal) -> io::Result<()> {
        let path = sources.dir.join(file_name(seal.base, "log"));
        let Sources { epochs, newest_epoch, .. } = *sources;
        let known = Known { epochs, newest_epoch, reaches: seal.next, end: Some(seal.next) };
        let mut scan = Scan::open(sources.fs, &path, Place { position: 0, offset: seal.base }, seal.len)?;
        loop {
            let detail = match scan.next(&known)? {
                Found::Batch { batch, .. } => {
                    self.visit(&batch);
                    continue;
                }
                Found::Bad { detail } => detail,
                Found::End => break,
            };
            // What is damaged there is for the readers to hear of.
            let damage = scan.skip(&known, detail)?;
            tracing::warn!(
                path = %path.display(), first = %damage.first, next = %damage.next, detail = damage.detail,
                "some producers may be forgotten"
            );
        }
        self.complete_to = seal.next;
        Ok(())
    }

    /// Whether all below `offset` has been taken in: a scan need not go further down.
    pub(super) fn covers(&self, offset: Offset) -> bool {
        offset <= self.complete_to
    }

    /// Takes in the next batch of the log.
    pub(super) fn visit(&mut self, batch: &BatchView<'_>) {
        let (base, next) = (batch.base_offset(), batch.next_offset());
        if base < self.complete_to {
            return;
        }
        if let Some(batch) = ProducerBatch::of(batch) {
            self.producers.push(&batch, base, next, self.now_ms);
        }
        self.complete_to = next;
    }

    /// All of the log has been taken in.
    pub(super) fn finish(self) -> RecoveredProducers {
        RecoveredProducers { producers: self.producers, named: self.named, files: self.files }
    }

    /// The log takes no writes, and its recovery point stays at `checkpoint`: so does the snapshot that holds there. What is
    /// known of the producers answers duplicates.
    pub(super) fn stay_at(self, checkpoint: Option<LogCheckpoint>) -> RecoveredProducers {
        let named = checkpoint.and_then(|log| log.producers);
        RecoveredProducers { producers: self.producers.without_news(), named, files: self.files }
    }
}

impl Sources<'_> {
    /// The states that hold furthest up, up to which offset they do, and the snapshot they came from.
    fn best(&self, files: &SnapshotFiles) -> (Vec<ProducerState>, Offset, Option<Offset>) {
        let recovery_point = self.checkpoint.map_or(Offset::ZERO, |log| log.recovery_point.mark.offset);
        let named = self.checkpoint.and_then(|log| log.producers);
        let by_checkpoint = match named {
            None => Some((Vec::new(), recovery_point, None)),
            // It may have batches that the log has lost, and what is sent again must not pass for a duplicate of those.
            Some(named) if self.manifest.is_in_gap(named) => None,
            Some(named) => self.read(named).map(|states| (states, recovery_point, Some(named))),
        };
        let holds_to = by_checkpoint.as_ref().map_or(Offset::ZERO, |(_, holds_to, _)| *holds_to);
        // Higher up, the log may have been cut since.
        let durable = self.manifest.end().max(recovery_point);
        let higher = files.descending().skip_while(|offset| *offset > durable);
        let mut higher = higher
            .take_while(|offset| *offset > holds_to)
            .filter(|offset| Some(*offset) != named && !self.manifest.is_in_gap(*offset));
        let read = |offset| self.read(offset).map(|states| (states, offset, Some(offset)));
        higher.find_map(read).or(by_checkpoint).unwrap_or_default()
    }

    /// `None`: it cannot be used.
    fn read(&self, offset: Offset) -> Option<Vec<ProducerState>> {
        match producer_snapshot::read(self.fs, self.dir, offset) {
            Ok(Some(states)) => Some(states),
            Ok(None) => {
                let path = self.dir.join(producer_snapshot::name(offset));
                tracing::warn!(path = %path.display(), "a snapshot of producers is missing; reading more of the log");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "a snapshot of producers cannot be used; reading more of the log");
                None
            }
        }
    }
}

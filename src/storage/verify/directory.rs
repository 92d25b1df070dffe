//! The data directory beside its logs: the files that speak of all of them, and what is nobody's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;

use super::super::checkpoint::{self, Checkpoint, LogKey};
use super::super::data_dir::{
    DELETED_DIR, LOCK_FILE, META_FILE, Meta, OpenError, SET_ASIDE_DIR, log_dir_name, parse_log_dir_name,
};
use super::super::durable::{self, DurableSlots, Slot};
use super::super::fs::Fs;
use super::super::identity;
use super::super::lost_epochs;
use super::super::recovery::Prior;
use super::super::room;
use super::super::segment::parse_log_name;
use super::super::small_file::of_temporary;
use super::super::types::Durability;
use super::log_check::{missing, unusable};
use super::report::{Finding, FindingKind, Report};
use super::{Known, LogId};
use crate::types::{LeaderEpoch, Offset};

/// A directory of file systems' own.
const LOST_AND_FOUND: &str = "lost+found";

/// Looks whether `dir` is a data directory, of a format we know.
///
/// # Errors
/// [`OpenError`] if it is not, or that cannot be told.
pub(super) fn check_is_ours(fs: &dyn Fs, dir: &Path) -> Result<(), OpenError> {
    let mut is_ours = false;
    for path in [META_FILE, checkpoint::FILE, durable::FILE].map(|name| dir.join(name)) {
        match fs.file_len(&path) {
            Ok(len) => is_ours |= len.is_some(),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
            Err(source) => return Err(OpenError::Io { dir: dir.to_owned(), path, source }),
        }
    }
    if !is_ours {
        return Err(OpenError::NotADataDir { dir: dir.to_owned() });
    }
    match Meta::read(fs, dir) {
        // Damage is what this is about.
        Ok(_) | Err(OpenError::Damaged { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What the files beside the logs say.
pub(super) struct Directory<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    checkpoint: Checkpoint,
    durable: HashMap<LogKey, Offset>,
    has_checkpoint: bool,
    has_durable: bool,
}

impl<'a> Directory<'a> {
    /// Reads and checks them.
    pub(super) fn read(fs: &'a dyn Fs, dir: &'a Path, report: &mut Report) -> Self {
        match Meta::read(fs, dir) {
            Ok(Some(_)) => {}
            Ok(None) => report.push(missing(META_FILE)),
            Err(error) => {
                let expected = "format_version, cluster_id and broker_id";
                let finding = Finding::new(FindingKind::DamagedFile, META_FILE, expected, error.to_string());
                report.push(finding);
            }
        }
        let mut has_checkpoint = false;
        for name in [checkpoint::FILE.to_owned(), checkpoint::old_file()] {
            match Checkpoint::read_file(fs, &dir.join(&name)) {
                Ok(found) => has_checkpoint |= found.is_some() && name == checkpoint::FILE,
                Err(error) => {
                    report.push(unusable(&name, &error));
                    has_checkpoint = true;
                }
            }
        }
        // As a start reads it: in place of a damaged one stands the one before, or what the logs tell.
        let checkpoint = lost_epochs::checkpoint(fs, dir).ok().flatten().unwrap_or_default();
        report.ended_cleanly = checkpoint.clean;
        let mut slots = HashMap::new();
        let mut has_durable = true;
        match DurableSlots::inspect(fs, &dir.join(durable::FILE)) {
            Ok(Some(content)) => {
                for (number, slot) in content {
                    match slot {
                        Slot::Free => {}
                        Slot::Of(key, offset) => drop(slots.insert(key, offset)),
                        Slot::Torn => {
                            let expected = "a slot whose checksum is right, or an empty one";
                            let found = format!("slot {number} is torn");
                            let finding =
                                Finding::new(FindingKind::StaleEntry, durable::FILE, expected, found);
                            let start = number * durable::SLOT_BYTES as u64;
                            report.push(finding.bytes(start..start + durable::SLOT_BYTES as u64));
                        }
                    }
                }
            }
            Ok(None) => has_durable = false,
            Err(error) => {
                let expected = "a file that can be read";
                report.push(Finding::new(
                    FindingKind::Unreadable,
                    durable::FILE,
                    expected,
                    error.to_string(),
                ));
            }
        }
        Self { fs, dir, checkpoint, durable: slots, has_checkpoint, has_durable }
    }

    /// Whether the files speak of any log, or a directory does.
    pub(super) fn has_had_logs(&self) -> bool {
        let entries = self.fs.list(self.dir).unwrap_or_default();
        let has_log = entries.iter().any(|entry| entry.is_dir && self.found(&entry.name).is_some());
        has_log || !self.checkpoint.logs.is_empty() || !self.durable.is_empty()
    }

    /// What is known of a log besides its directory.
    pub(super) fn prior(&self, log: &LogId) -> Prior {
        let key = (log.topic_id, log.partition);
        Prior {
            checkpoint: self.checkpoint.logs.get(&key).copied(),
            clean: self.checkpoint.clean,
            durable: self.durable.get(&key).copied().unwrap_or_default(),
        }
    }

    /// The leader epoch that the next start would have.
    pub(super) fn newest_epoch(&self) -> LeaderEpoch {
        self.checkpoint.next_epoch()
    }

    /// How many bytes the segments of a log have.
    pub(super) fn log_bytes(&self, log: &LogId) -> u64 {
        let dir = self.dir.join(log_dir_name(&log.topic, log.partition));
        let entries = self.fs.list(&dir).unwrap_or_default();
        let segments = entries.iter().filter(|entry| parse_log_name(&entry.name).is_some());
        segments.filter_map(|entry| self.fs.file_len(&dir.join(&entry.name)).ok().flatten()).sum()
    }

    /// The logs to check, by name. Tells of what is in the directory besides.
    pub(super) fn logs(&self, known: &Known, report: &mut Report) -> Vec<LogId> {
        let mut logs: BTreeMap<String, LogId> = known
            .logs
            .iter()
            .flatten()
            .map(|log| (log_dir_name(&log.topic, log.partition), log.clone()))
            .collect();
        let mut entries = self.fs.list(self.dir).unwrap_or_else(|error| {
            let expected = "a directory that can be read";
            report.push(Finding::new(FindingKind::Unreadable, ".", expected, error.to_string()));
            Vec::new()
        });
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        for entry in entries {
            let name = entry.name.as_str();
            if entry.is_dir {
                let is_known = name == LOST_AND_FOUND || logs.contains_key(name);
                if [DELETED_DIR, SET_ASIDE_DIR].contains(&name) {
                    self.put_away(name, report);
                } else if !is_known {
                    match self.found(name).filter(|_| known.logs.is_none()) {
                        Some(log) => drop(logs.insert(entry.name, log)),
                        None => report.push(unknown_directory(name, known)),
                    }
                }
            } else if let Some(finding) = beside(name, known) {
                report.push(finding);
            }
        }
        if !logs.is_empty() {
            for (is_there, name) in
                [(self.has_checkpoint, checkpoint::FILE), (self.has_durable, durable::FILE)]
            {
                if !is_there {
                    report.push(missing(name));
                }
            }
        }
        let logs: Vec<LogId> = logs.into_values().collect();
        self.check_entries(&logs, known, report);
        logs
    }

    /// The log that a directory says it is.
    fn found(&self, name: &str) -> Option<LogId> {
        let (topic, partition) = parse_log_dir_name(name)?;
        let (topic_id, found) = identity::read(self.fs, &self.dir.join(name)).ok()??;
        let durability = Durability::default();
        (found == partition).then_some(LogId { topic, partition, topic_id, durability })
    }

    /// What was moved out of the way.
    fn put_away(&self, root: &str, report: &mut Report) {
        let found = if root == DELETED_DIR {
            "a deleted partition on its way out"
        } else {
            "what an earlier start found and no topic knew"
        };
        let mut entries = self.fs.list(&self.dir.join(root)).unwrap_or_default();
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        for entry in entries {
            let path = Path::new(root).join(entry.name);
            report.push(Finding::new(FindingKind::Leftover, path, "nothing", found));
        }
    }

    /// Entries of the checkpoint and durable slots that speak of no log.
    fn check_entries(&self, logs: &[LogId], known: &Known, report: &mut Report) {
        let keys: BTreeSet<LogKey> =
            logs.iter().chain(&known.deleting).map(|log| (log.topic_id, log.partition)).collect();
        let slots: BTreeSet<LogKey> = self.durable.keys().copied().collect();
        let entries = self.checkpoint.logs.keys().copied().collect();
        for (name, entries) in [(checkpoint::FILE, entries), (durable::FILE, slots)] {
            for (topic_id, partition) in entries.difference(&keys) {
                let found =
                    format!("an entry of partition {partition} of topic id {topic_id}, which there is not");
                report.push(Finding::new(
                    FindingKind::StaleEntry,
                    name,
                    "entries of partitions that exist",
                    found,
                ));
            }
        }
    }
}

fn unknown_directory(name: &str, known: &Known) -> Finding {
    let is_leaving = known.deleting.iter().any(|log| log_dir_name(&log.topic, log.partition) == name);
    if is_leaving {
        return Finding::new(
            FindingKind::Leftover,
            name,
            "nothing",
            "a partition of a topic that is being deleted",
        );
    }
    Finding::new(FindingKind::UnknownDirectory, name, "nothing", "a directory that no topic knows")
}

/// The finding about a file beside the logs, if it is not one that belongs there.
fn beside(name: &str, known: &Known) -> Option<Finding> {
    let old = checkpoint::old_file();
    let ours = [LOCK_FILE, META_FILE, checkpoint::FILE, &old, durable::FILE, room::FILE];
    if ours.contains(&name) || known.files.iter().any(|file| file == name) {
        return None;
    }
    if of_temporary(name).is_some() {
        return Some(Finding::new(FindingKind::Leftover, name, "nothing", "a file that was being replaced"));
    }
    Some(Finding::new(FindingKind::UnknownFile, name, "nothing", "a file that is none of Sagwan's"))
}

//! One damage to one file, and what may come of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sagwan::broker::{Broker, BrokerError};
use sagwan::record;
use tokio::runtime::Runtime;

use super::partition::{Part, Read, append, batch, kill, leader_epoch, name, open, parts, read};
use super::template::Template;

/// What became of the iterations of one class.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) iterations: u64,
    /// The broker did not start, and said why.
    pub(crate) refused: u64,
    pub(crate) fenced: u64,
    pub(crate) read_only: u64,
    /// Ranges told as lost, and the offsets in them.
    pub(crate) ranges: u64,
    pub(crate) offsets: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, other: &Self) {
        self.iterations += other.iterations;
        self.refused += other.refused;
        self.fenced += other.fenced;
        self.read_only += other.read_only;
        self.ranges += other.ranges;
        self.offsets += other.offsets;
    }
}

/// One damage to one file of a copy of a template.
pub(crate) struct Iteration<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) template: &'a Template,
    pub(crate) class: &'a str,
    pub(crate) file: &'a Path,
    pub(crate) dir: tempfile::TempDir,
    /// Base offsets of the batches that the damage touches, if it is in a log.
    pub(crate) touched: BTreeSet<i64>,
    /// It is in one place only.
    pub(crate) in_one_place: bool,
    /// A bit was flipped, and no more.
    pub(crate) is_flip: bool,
    /// The file is gone.
    pub(crate) is_removed: bool,
}

impl Iteration<'_> {
    /// The partition whose file is damaged, if it is one's.
    fn part(&self) -> Option<Part> {
        let dir = self.file.parent()?.to_str()?;
        parts().find(|(topic, partition)| dir == format!("{topic}-{partition}"))
    }

    pub(crate) fn run(&self, totals: &mut Totals, random: &mut fastrand::Rng) {
        totals.iterations += 1;
        let broker = match open(self.runtime, self.dir.path()) {
            Ok(broker) => broker,
            Err(error) => {
                // Without these nothing can be told of any partition.
                assert!(
                    ["catalogue", "meta.toml"].contains(&self.class),
                    "the broker does not start: {error}"
                );
                let is_named = error.contains(&*self.file.to_string_lossy());
                // Without meta.toml it is not known for a data directory.
                let is_lost = self.class == "meta.toml" && error.contains("is not a data directory");
                assert!(is_named || is_lost, "{error}: does not name the file");
                totals.refused += 1;
                return;
            }
        };
        if !self.template.clean {
            let epoch = leader_epoch(&broker);
            assert!(epoch > self.template.newest_epoch, "leader epoch {epoch} is not a new one");
        }
        let mut before = BTreeMap::new();
        for part in parts() {
            if let Some(found) = self.check(&broker, part, totals) {
                before.insert(part, found);
            }
        }
        for (part, found) in &before {
            self.send_again(&broker, *part, found);
        }
        // Writing goes on with the next offset, or is refused for the damage alone.
        let added = batch(random);
        for (part, found) in &mut before {
            match self.runtime.block_on(append(&broker, *part, added.clone())) {
                Ok(produced) => {
                    assert_eq!(produced.base_offset.get(), found.content.end, "{part:?}: the next offset");
                }
                Err(BrokerError::Fenced { .. }) if found.fault.is_some() => {}
                Err(error) => panic!("{part:?}: {error}"),
            }
        }
        if random.bool() {
            self.runtime.block_on(broker.close()).expect("an orderly end");
        }
        kill(broker);
        let broker = open(self.runtime, self.dir.path()).expect("a second start");
        for (part, found) in before {
            let again = self.runtime.block_on(read(&broker, part));
            assert_eq!(again.lost, found.lost, "{part:?}: the same is lost");
            assert_eq!(again.fault.is_some(), found.fault.is_some(), "{part:?}");
            assert!(
                found
                    .content
                    .batches
                    .iter()
                    .all(|(base, bytes)| again.content.batches.get(base) == Some(bytes)),
                "{part:?}: the same is served"
            );
            self.send_again(&broker, part, &found);
        }
        kill(broker);
    }

    /// Sends what a producer sent last, and what is served, once more.
    fn send_again(&self, broker: &Broker, part: Part, found: &Read) {
        let is_damaged = self.part() == Some(part) && self.class == "log";
        for (base, batch) in &self.template.producers[&part].sent {
            if !found.content.batches.contains_key(base) {
                continue;
            }
            match self.runtime.block_on(append(broker, part, batch.clone())) {
                Ok(produced) => {
                    assert!(produced.duplicate, "{part:?}: {base} is appended again");
                    assert_eq!(produced.base_offset.get(), *base, "{part:?}");
                }
                Err(BrokerError::Fenced { .. }) if found.fault.is_some() => {}
                Err(BrokerError::Producer { .. }) if is_damaged => {}
                Err(error) => panic!("{part:?}: {base} sent again: {error}"),
            }
        }
    }

    /// Holds a partition against what was written; `None` if it is fenced.
    fn check(&self, broker: &Broker, part: Part, totals: &mut Totals) -> Option<Read> {
        let (topic, partition) = part;
        let is_damaged = self.part() == Some(part);
        let description = broker.describe_topic(&name(topic)).expect("a topic");
        if let Err(reason) = &description.partitions[partition as usize] {
            assert!(is_damaged, "{part:?} is fenced: {reason}");
            // A manifest is made anew as long as there is one, and a topic id as long as half of it is there.
            let is_due = match self.class {
                "log" => true,
                "seals" => self.is_removed,
                "topic-id" => !self.is_flip,
                _ => false,
            };
            assert!(is_due, "{reason}");
            assert!(reason.contains(&format!("{topic}-{partition}")), "{reason}");
            totals.fenced += 1;
            return None;
        }
        let found = self.runtime.block_on(read(broker, part));
        let expected = &self.template.contents[&part];
        if let Some(reason) = &found.fault {
            assert!(is_damaged && self.class == "log", "{part:?} takes no writes: {reason}");
            totals.read_only += 1;
        }
        assert_eq!(found.content.end, expected.end, "{part:?}: where it ends");
        // With an older checkpoint, what was deleted last may be there again.
        let is_older = self.class.starts_with("checkpoint") && found.content.log_start <= expected.log_start;
        assert!(is_older || found.content.log_start == expected.log_start, "{part:?}: where it starts");
        for (base, bytes) in &found.content.batches {
            assert!(expected.batches.get(base) == Some(bytes), "{part:?}: other bytes are served at {base}");
        }
        let lost = |base: &i64| found.lost.iter().any(|lost| lost.contains(base));
        for (base, bytes) in &expected.batches {
            let next = record::batches(bytes).next().expect("one").expect("a batch").next_offset().get();
            if next <= found.content.log_start {
                continue;
            }
            assert!(
                found.content.batches.contains_key(base) || lost(base) || lost(&(next - 1)),
                "{base} is gone"
            );
            let is_needless = lost(base) && self.in_one_place && !self.touched.contains(base);
            assert!(!is_needless, "{part:?}: {base} is told as lost, and was not damaged");
        }
        if !found.lost.is_empty() {
            assert!(is_damaged && self.class == "log", "{part:?} has lost {:?}", found.lost);
        }
        totals.ranges += found.lost.len() as u64;
        totals.offsets += found.lost.iter().map(|lost| (lost.end - lost.start) as u64).sum::<u64>();
        Some(found)
    }
}

//! Flipped, cut, zeroed and removed bytes in every file of a data directory, below a whole broker: nothing wrong is ever
//! served, what cannot be read is told by offset, and everything else is served.
//!
//! Data directories of known content are made first: several partitions, sealed and active segments, all codecs, several
//! leader epochs, idempotent producers, some ended in an orderly way and some not. Each iteration takes one, damages one file, opens it, reads
//! everything, and holds it against what was written:
//!
//! - each batch that is served is, byte for byte, the one that was written at its offsets;
//! - every acknowledged offset is served, or lies in a range that is told as lost, or in a partition that is told as
//!   fenced with the file that is to blame; a broker that does not start names that file;
//! - only the damaged file's partition loses anything, and where one place of a log was damaged, only batches that lie
//!   there;
//! - the log ends where it ended: nothing acknowledged is cut, and no offset is given out again;
//! - a batch of an idempotent producer that is sent again is not appended again as long as it is served: it is told as a
//!   duplicate, with its offset, or, behind a loss, refused as out of order. Where no log is damaged it is a duplicate;
//! - a second start comes to the same.
//!
//! `SAGWAN_TEST_FLIPS` sets how many iterations there are, `SAGWAN_TEST_SEED` the seed of the first one:
//!
//! ```text
//! SAGWAN_TEST_FLIPS=10000 cargo test --release -p storage-tests --test flipped_bytes -- --nocapture
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use sagwan::broker::{Broker, BrokerError, Caller, Produced, TopicSpec};
use sagwan::clock::ManualClock;
use sagwan::config::{BrokerConfig, StorageConfig};
use sagwan::record::{self, BatchBuilder, BatchOptions, Codec, HEADER_BYTES, ProducerStamp};
use sagwan::storage::{LogState, Store};
use sagwan::types::{Offset, TopicName};
use storage_tests::setting;
use tokio::runtime::Runtime;

const NOW_MS: i64 = 1_700_000_000_000;
/// The least that a topic can be given, so that there are several.
const SEGMENT_BYTES: u32 = 64 << 10;
const DEFAULT_FLIPS: u64 = 300;
/// Iterations at a time: they mostly wait for the disk.
const WORKERS: usize = 4;
/// Different data directories, one after the other.
const TEMPLATES: u64 = 6;
/// So many of its last batches each producer can send again: all that is promised to be remembered.
const RESENT: usize = 5;
/// Topic and partitions.
const TOPICS: [(&str, i64); 2] = [("orders", 2), ("events", 1)];

/// A partition's name and number.
type Part = (&'static str, i32);

fn parts() -> impl Iterator<Item = Part> {
    TOPICS.into_iter().flat_map(|(topic, count)| (0..count as i32).map(move |partition| (topic, partition)))
}

fn name(topic: &str) -> TopicName {
    TopicName::parse(topic).expect("a valid name")
}

/// What a partition holds.
#[derive(Clone, Default)]
struct Content {
    log_start: i64,
    end: i64,
    /// By base offset.
    batches: BTreeMap<i64, Bytes>,
}

/// The idempotent producer of a partition.
#[derive(Default)]
struct Producer {
    next_sequence: i32,
    /// Its last batches as they were sent, and the offset that each got.
    sent: VecDeque<(i64, BytesMut)>,
}

impl Producer {
    /// Appends one batch more.
    async fn append(&mut self, broker: &Broker, part: Part, mut batch: BytesMut) {
        let records = record::batches(&batch).next().expect("one").expect("a batch").record_count();
        let producer_id = 1_000 + i64::from(part.1);
        let stamp = ProducerStamp { producer_id, producer_epoch: 0, base_sequence: self.next_sequence };
        record::set_producer(&mut batch, stamp);
        let produced = append(broker, part, batch.clone()).await.expect("appended");
        self.next_sequence += records;
        self.sent.push_back((produced.base_offset.get(), batch));
        if self.sent.len() > RESENT {
            self.sent.pop_front();
        }
    }
}

/// A data directory, and what is in it.
struct Template {
    dir: tempfile::TempDir,
    clean: bool,
    newest_epoch: i32,
    contents: BTreeMap<Part, Content>,
    producers: BTreeMap<Part, Producer>,
}

fn open(runtime: &Runtime, dir: &Path) -> Result<Arc<Broker>, String> {
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let config = StorageConfig {
        tail_cache_bytes: 0,
        index_interval_bytes: 1 << 10,
        max_group_bytes: 64 << 10,
        ..StorageConfig::default()
    };
    let store = Store::open(dir, &config, clock.clone()).map_err(|error| error.to_string())?;
    let _runtime = runtime.enter();
    Broker::open(store, BrokerConfig::default(), clock).map_err(|error| error.to_string())
}

/// As if the process had been killed.
fn kill(broker: Arc<Broker>) {
    drop(Arc::into_inner(broker).expect("nobody else has it"));
}

/// A batch with compressible, but not repeated values.
fn batch(random: &mut fastrand::Rng) -> BytesMut {
    let codec = *random.choice(Codec::ALL.as_slice()).expect("one of them");
    let mut builder = BatchBuilder::new(BatchOptions { codec });
    for _ in 0..random.u32(1..8) {
        let value: Vec<u8> = (0..random.usize(..900)).map(|_| random.u8(..16)).collect();
        builder.push(NOW_MS + random.i64(0..1000), Some(b"key"), Some(&value), []);
    }
    builder.build().expect("a batch")
}

async fn append(broker: &Broker, (topic, partition): Part, batch: BytesMut) -> Result<Produced, BrokerError> {
    let pending = broker.start_append(Caller::Client, &name(topic), partition, batch, None).await?;
    pending.wait().await
}

impl Template {
    fn new(runtime: &Runtime, number: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(number);
        let dir = tempfile::tempdir().expect("a directory");
        let mut broker = open(runtime, dir.path()).expect("a broker");
        runtime.block_on(async {
            for (topic, partitions) in TOPICS {
                let config = [("segment_bytes", SEGMENT_BYTES), ("max_message_bytes", SEGMENT_BYTES)]
                    .map(|(setting, value)| (setting.to_owned(), value.to_string()));
                let spec = TopicSpec {
                    name: name(topic),
                    partitions: Some(partitions),
                    config: config.into(),
                    validate_only: false,
                };
                broker.create_topic(spec).await.expect("a new topic");
            }
        });
        let mut producers: BTreeMap<Part, Producer> =
            parts().map(|part| (part, Producer::default())).collect();
        let runs = 3;
        for run in 0..runs {
            runtime.block_on(async {
                for (part, producer) in &mut producers {
                    for _ in 0..random.u32(20..70) {
                        let batch = batch(&mut random);
                        if random.bool() {
                            producer.append(&broker, *part, batch).await;
                        } else {
                            append(&broker, *part, batch).await.expect("appended");
                        }
                    }
                }
            });
            if run + 1 < runs {
                if random.bool() {
                    runtime.block_on(broker.close()).expect("an orderly end");
                }
                kill(broker);
                broker = open(runtime, dir.path()).expect("a broker");
            }
        }
        let mut contents: BTreeMap<Part, Content> =
            parts().map(|part| (part, runtime.block_on(read(&broker, part)).content)).collect();
        // Within a segment, so that what lies before the start is still there.
        let start = runtime.block_on(broker.delete_records(&name("events"), 0, 5)).expect("deleted");
        contents.get_mut(&("events", 0)).expect("there").log_start = start.get();
        let clean = number.is_multiple_of(3);
        if clean {
            runtime.block_on(broker.close()).expect("an orderly end");
        }
        let newest_epoch = leader_epoch(&broker);
        kill(broker);
        Self { dir, clean, newest_epoch, contents, producers }
    }

    /// The files that can be damaged, relative to the directory, by class.
    fn files(&self) -> BTreeMap<String, Vec<PathBuf>> {
        let mut classes: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        let mut dirs = vec![self.dir.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).expect("readable") {
                let path = entry.expect("readable").path();
                if path.is_dir() {
                    dirs.push(path);
                    continue;
                }
                let file = path.file_name().expect("a name").to_string_lossy().into_owned();
                // Of these the whole name tells.
                let extension =
                    path.extension().filter(|extension| *extension != "toml" && *extension != "old");
                let class =
                    extension.map_or(file.clone(), |extension| extension.to_string_lossy().into_owned());
                if file != ".lock" {
                    let path = path.strip_prefix(self.dir.path()).expect("inside").to_owned();
                    classes.entry(class).or_default().push(path);
                }
            }
        }
        for files in classes.values_mut() {
            files.sort();
        }
        classes
    }
}

fn leader_epoch(broker: &Broker) -> i32 {
    let epochs = broker.topics().into_iter().flat_map(|topic| topic.partitions).flatten();
    epochs.map(|status| status.leader_epoch.0).max().unwrap_or_default()
}

/// What reading a partition came to.
#[derive(Default)]
struct Read {
    content: Content,
    lost: Vec<Range<i64>>,
    /// Why it takes no writes.
    fault: Option<String>,
}

async fn read(broker: &Broker, (topic, partition): Part) -> Read {
    let reader = broker.reader(&name(topic), partition).expect("an open partition");
    let description = broker.describe_topic(&name(topic)).expect("a topic");
    let status = description.partitions[partition as usize].clone().expect("an open partition");
    let mut found = Read::default();
    if let LogState::ReadOnly { reason } = status.state {
        found.fault = Some(reason.to_string());
    }
    found.content.log_start = status.log_start_offset.get();
    found.content.end = status.durable_offset.get();
    let mut next = status.log_start_offset.get();
    while next < found.content.end {
        match reader.read(Offset::clamped(next), 20_000).await {
            Ok(fetched) => {
                assert!(
                    fetched.batches.next_offset.get() > next,
                    "{topic}-{partition}: a read at {next} goes on"
                );
                for chunk in &fetched.batches.chunks {
                    for batch in record::batches(chunk) {
                        let batch = batch.expect("whole batches");
                        let base = batch.base_offset().get();
                        assert!(
                            base <= next && next <= batch.last_offset().get(),
                            "{base} is not due at {next}"
                        );
                        next = batch.next_offset().get();
                        found.content.batches.insert(base, Bytes::copy_from_slice(batch.as_bytes()));
                    }
                }
                assert_eq!(fetched.batches.next_offset.get(), next);
            }
            Err(BrokerError::DataLoss { first, last, .. }) => {
                assert!(first.get() <= next && next <= last.get(), "{first} to {last} does not hold {next}");
                found.lost.push(next..last.get() + 1);
                next = last.get() + 1;
            }
            Err(error) => panic!("{topic}-{partition} at {next}: {error}"),
        }
    }
    found
}

/// What is done to a file. All but the removal change one place, unless said otherwise.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip,
    FlipSeveral,
    Zero,
    Overwrite,
    Cut,
    ExtendWithZeros,
    Remove,
}

impl Damage {
    fn pick(random: &mut fastrand::Rng) -> Self {
        match random.u8(..20) {
            0..9 => Self::Flip,
            9..12 => Self::FlipSeveral,
            12..14 => Self::Zero,
            14..16 => Self::Overwrite,
            16..18 => Self::Cut,
            18 => Self::ExtendWithZeros,
            _ => Self::Remove,
        }
    }

    /// The bytes afterwards; `None` if the file is to go.
    fn apply(self, bytes: &[u8], batches: &[Range<usize>], random: &mut fastrand::Rng) -> Option<Vec<u8>> {
        let mut bytes = bytes.to_vec();
        let len = bytes.len();
        if len == 0 {
            return match self {
                Self::Remove => None,
                _ => Some(vec![0; random.usize(1..10_000)]),
            };
        }
        // In a log, as often somewhere in a header as anywhere else.
        let place = |random: &mut fastrand::Rng| match random.choice(batches) {
            Some(batch) if random.bool() => batch.start + random.usize(..HEADER_BYTES),
            _ => random.usize(..len),
        };
        let at = place(random);
        let stretch = at..(at + random.usize(1..3_000)).min(len);
        match self {
            Self::Flip => bytes[at] ^= 1 << random.u8(..8),
            Self::FlipSeveral => (0..random.u8(2..5)).for_each(|_| bytes[place(random)] ^= random.u8(1..)),
            Self::Zero => bytes[stretch].fill(0),
            Self::Overwrite => bytes[stretch].fill_with(|| random.u8(..)),
            Self::Cut => bytes.truncate(at),
            Self::ExtendWithZeros => bytes.resize(len + random.usize(1..200_000), 0),
            Self::Remove => return None,
        }
        Some(bytes)
    }
}

/// The batches of an undamaged log file: where they lie, and their base offsets.
fn places(bytes: &[u8]) -> (Vec<Range<usize>>, Vec<i64>) {
    let mut position = 0;
    let batches = record::batches(bytes).map(|batch| batch.expect("a good log"));
    batches
        .map(|batch| {
            let start = position;
            position += batch.size_bytes();
            (start..position, batch.base_offset().get())
        })
        .unzip()
}

/// What became of the iterations of one class.
#[derive(Default)]
struct Totals {
    iterations: u64,
    /// The broker did not start, and said why.
    refused: u64,
    fenced: u64,
    read_only: u64,
    /// Ranges told as lost, and the offsets in them.
    ranges: u64,
    offsets: u64,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.iterations += other.iterations;
        self.refused += other.refused;
        self.fenced += other.fenced;
        self.read_only += other.read_only;
        self.ranges += other.ranges;
        self.offsets += other.offsets;
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("readable") {
        let (path, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).expect("readable");
        if path.is_dir() {
            fs::create_dir(&to).expect("created");
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).expect("copied");
        }
    }
}

/// One damage to one file of a copy of a template.
struct Iteration<'a> {
    runtime: &'a Runtime,
    template: &'a Template,
    class: &'a str,
    file: &'a Path,
    dir: tempfile::TempDir,
    /// Base offsets of the batches that the damage touches, if it is in a log.
    touched: BTreeSet<i64>,
    /// It is in one place only.
    in_one_place: bool,
    /// A bit was flipped, and no more.
    is_flip: bool,
    /// The file is gone.
    is_removed: bool,
}

impl Iteration<'_> {
    /// The partition whose file is damaged, if it is one's.
    fn part(&self) -> Option<Part> {
        let dir = self.file.parent()?.to_str()?;
        parts().find(|(topic, partition)| dir == format!("{topic}-{partition}"))
    }

    fn run(&self, totals: &mut Totals, random: &mut fastrand::Rng) {
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

fn iterate(runtime: &Runtime, templates: &[Template], seed: u64, totals: &mut BTreeMap<String, Totals>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let template = random.choice(templates).expect("one of them");
    let files = template.files();
    // As many in logs as in everything else.
    let class = if random.bool() {
        "log".to_owned()
    } else {
        random.choice(files.keys()).expect("one of them").clone()
    };
    let file = random.choice(&files[&class]).expect("one of them");
    let good = fs::read(template.dir.path().join(file)).expect("readable");
    let (batches, bases) = if class == "log" { places(&good) } else { (Vec::new(), Vec::new()) };
    let damage = Damage::pick(&mut random);
    let bytes = damage.apply(&good, &batches, &mut random);

    let dir = tempfile::tempdir().expect("a directory");
    copy(template.dir.path(), dir.path());
    let path = dir.path().join(file);
    match &bytes {
        Some(bytes) => fs::write(&path, bytes).expect("written"),
        None => fs::remove_file(&path).expect("removed"),
    }
    let is_same = |batch: &Range<usize>| {
        bytes.as_ref().is_some_and(|bytes| bytes.get(batch.clone()) == good.get(batch.clone()))
    };
    let touched =
        batches.iter().zip(bases).filter(|(batch, _)| !is_same(batch)).map(|(_, base)| base).collect();
    let in_one_place = !matches!(damage, Damage::FlipSeveral);
    let (is_flip, is_removed) = (matches!(damage, Damage::Flip), bytes.is_none());
    let iteration =
        Iteration { runtime, template, class: &class, file, dir, touched, in_one_place, is_flip, is_removed };
    let total = totals.entry(class.clone()).or_default();
    let run = AssertUnwindSafe(|| iteration.run(total, &mut random));
    if let Err(panic) = catch_unwind(run) {
        let (file, clean) = (file.display(), template.clean);
        eprintln!(
            "SAGWAN_TEST_SEED={seed} SAGWAN_TEST_FLIPS=1: {damage:?} in {file}, an orderly end: {clean}"
        );
        resume_unwind(panic);
    }
}

#[test]
fn no_damage_to_any_file_goes_unnoticed_or_costs_more_than_it_hits() {
    let first = setting("SAGWAN_TEST_SEED").unwrap_or(0);
    let flips = setting("SAGWAN_TEST_FLIPS").unwrap_or(DEFAULT_FLIPS);
    let runtime = Runtime::new().expect("a runtime");
    let templates: Vec<Template> = (0..TEMPLATES).map(|number| Template::new(&runtime, number)).collect();
    let next = AtomicU64::new(first);
    let work = || {
        let mut totals = BTreeMap::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + flips {
                break;
            }
            iterate(&runtime, &templates, seed, &mut totals);
        }
        totals
    };
    let mut totals: BTreeMap<String, Totals> = BTreeMap::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            for (class, some) in worker.join().unwrap_or_else(|panic| resume_unwind(panic)) {
                totals.entry(class).or_default().add(&some);
            }
        }
    });
    println!("class            iterations  refused  fenced  read-only  lost ranges  lost offsets");
    for (class, total) in totals {
        let Totals { iterations, refused, fenced, read_only, ranges, offsets } = total;
        println!(
            "{class:<16} {iterations:>10} {refused:>8} {fenced:>7} {read_only:>10} {ranges:>12} {offsets:>13}"
        );
    }
    println!("0 wrong bytes served, 0 offsets lost untold, 0 panics");
}

//! What a verification finds: nothing where all is well, and for each kind of damage just that.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use super::super::checkpoint::Checkpoint;
use super::super::verify::{
    Finding, FindingKind, Inspection, Known, LogId, Progress, Report, Severity, VerifyOptions,
};
use super::super::{producer_snapshot, seals};
use super::rot::bad_and_then_good;
use super::*;

/// Counts what it hears.
#[derive(Default)]
struct Counter {
    total: std::sync::atomic::AtomicU64,
    done: std::sync::atomic::AtomicU64,
}

impl Progress for Counter {
    fn begin(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }
    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What is found where these logs should be, one log at a time.
pub(super) fn verified(fs: Arc<dyn Fs>, dir: &Path, specs: &[LogSpec], config: &StorageConfig) -> Report {
    let id = |spec: &LogSpec| LogId {
        topic: spec.topic.clone(),
        partition: spec.partition,
        topic_id: spec.topic_id,
        durability: spec.config.durability,
    };
    let known = Known { logs: Some(specs.iter().map(id).collect()), ..Known::default() };
    let options = VerifyOptions {
        max_decompressed_bytes: 1 << 20,
        max_group_bytes: config.max_group_bytes,
        threads: 1,
    };
    let progress = Counter::default();
    let report = Inspection::open_on(fs, dir).unwrap().verify(&known, &options, &progress);
    assert_eq!(progress.total.into_inner(), progress.done.into_inner(), "the bar comes to its end");
    report
}

fn verify(fixture: &Fixture) -> Report {
    let specs = std::slice::from_ref(&fixture.spec);
    verified(Arc::clone(&fixture.fs), fixture.dir.path(), specs, &fixture.config)
}

fn small_segments() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.spec.config.segment_bytes = 30_000;
    fixture.config.index_interval_bytes = 1 << 10;
    fixture
}

/// A log of several sealed segments and an active one, 1,000 records in all.
fn filled() -> (Fixture, Open) {
    let fixture = small_segments();
    let open = fixture.create();
    open.fill(100, 100);
    open.settle();
    (fixture, open)
}

fn closed() -> Fixture {
    let (fixture, open) = filled();
    open.close();
    fixture
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// Where the batches of a segment begin, with their base offsets and sizes.
fn batches(path: &Path) -> Vec<(usize, i64, usize)> {
    let bytes = std::fs::read(path).unwrap();
    let mut position = 0;
    record::batches(&bytes)
        .map(|batch| {
            let batch = batch.unwrap();
            let here = position;
            position += batch.size_bytes();
            (here, batch.base_offset().get(), batch.size_bytes())
        })
        .collect()
}

/// Everything in a directory: by path, content and time of the last change.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let modified = entry.metadata().unwrap().modified().unwrap();
        if entry.file_type().unwrap().is_dir() {
            all.insert(entry.path(), (Vec::new(), modified));
            all.extend(snapshot(&entry.path()));
        } else {
            all.insert(entry.path(), (std::fs::read(entry.path()).unwrap(), modified));
        }
    }
    all
}

/// A finding's kind, file name, and offsets.
type Told = (FindingKind, String, Option<(i64, Option<i64>)>);

fn told(finding: &Finding) -> Told {
    let name = Path::new(&finding.path).file_name().unwrap().to_string_lossy().into_owned();
    (finding.kind, name, finding.offsets.map(|offsets| (offsets.first, offsets.last)))
}

#[track_caller]
fn assert_only(report: &Report, kind: FindingKind, name: &str, offsets: Option<(i64, Option<i64>)>) {
    let all: Vec<Told> = report.findings.iter().map(told).collect();
    assert_eq!(all, [(kind, name.to_owned(), offsets)], "{:#?}", report.findings);
    assert_eq!(report.counts, BTreeMap::from([(kind, 1)]));
}

#[test]
fn nothing_is_found_in_a_healthy_directory_and_nothing_changes() {
    let fixture = closed();
    let before = snapshot(fixture.dir.path());
    let report = verify(&fixture);
    assert_eq!(report.findings, []);
    assert!(report.ended_cleanly);
    let log_bytes = fixture
        .files("log")
        .into_iter()
        .map(|name| std::fs::metadata(fixture.log_dir().join(name)).unwrap().len());
    let totals = report.totals;
    assert_eq!((totals.topics, totals.partitions, totals.batches, totals.records), (1, 1, 100, 1000));
    assert_eq!(totals.segments, fixture.files("log").len() as u64);
    assert_eq!(totals.log_bytes, log_bytes.sum::<u64>());
    assert!(totals.segments > 3, "several are sealed");
    assert_eq!(snapshot(fixture.dir.path()), before);
}

#[test]
fn what_a_crash_leaves_are_notes_and_nothing_changes() {
    let (fixture, open) = filled();
    open.crash();
    assert_eq!(verify(&fixture).count(Severity::Error), 0);
    let last = fixture.files("log").pop().unwrap();
    let whole = batch(1000, 10, 100);
    for tail in [&whole[..whole.len() - 1], &whole[..30], &[0; 4096], b"rubbish"] {
        let path = fixture.log_dir().join(&last);
        let good = std::fs::read(&path).unwrap();
        change(&path, |bytes| bytes.extend_from_slice(tail));
        let before = snapshot(fixture.dir.path());
        let report = verify(&fixture);
        assert_only(&report, FindingKind::TornTail, &last, Some((1000, None)));
        let bytes = report.findings[0].bytes.clone();
        assert_eq!(bytes, Some(good.len() as u64..(good.len() + tail.len()) as u64));
        assert_eq!(report.count(Severity::Error), 0);
        assert_eq!(report.totals.records, 1000, "what is good is counted");
        assert_eq!(snapshot(fixture.dir.path()), before);
        std::fs::write(&path, good).unwrap();
    }
}

#[test]
fn a_damaged_batch_is_told_by_its_offsets_wherever_it_is_hit() {
    let fixture = closed();
    let names = fixture.files("log");
    // The length, the epoch, the magic byte, the checksum, the last offset delta, the count, a record.
    for at in [9, 15, 16, 18, 24, 58, 200] {
        for name in [&names[1], names.last().unwrap()] {
            let path = fixture.log_dir().join(name);
            let (position, base, size) = batches(&path)[1];
            change(&path, |bytes| bytes[position + at] ^= 4);
            let report = verify(&fixture);
            assert_only(&report, FindingKind::BadBatch, name, Some((base, Some(base + 9))));
            assert_eq!(
                report.findings[0].bytes,
                Some(position as u64..(position + size) as u64),
                "byte {at}"
            );
            assert_eq!(report.totals.records, 990, "byte {at}");
            change(&path, |bytes| bytes[position + at] ^= 4);
        }
    }
    // An offset that is not its own: those after it go on as if nothing were.
    let path = fixture.log_dir().join(&names[1]);
    let (position, base, _) = batches(&path)[1];
    for bit in [1, 64] {
        change(&path, |bytes| bytes[position + 6] ^= bit);
        assert_only(&verify(&fixture), FindingKind::BadBatch, &names[1], Some((base, Some(base + 9))));
        change(&path, |bytes| bytes[position + 6] ^= bit);
    }
    assert_eq!(verify(&fixture).findings, []);
}

#[test]
fn damage_to_many_batches_side_by_side_is_one_finding() {
    let fixture = closed();
    let name = &fixture.files("log")[0];
    let path = fixture.log_dir().join(name);
    let places = batches(&path);
    let (from, to) = (places[2].0 + 5, places[6].0 + 12);
    change(&path, |bytes| bytes[from..to].fill(0));
    assert_only(&verify(&fixture), FindingKind::BadBatch, name, Some((20, Some(69))));
}

#[test]
fn missing_batches_and_ends_are_told_by_offset() {
    let (fixture, open) = filled();
    open.crash();
    let name = fixture.files("log").pop().unwrap();
    let path = fixture.log_dir().join(&name);
    let good = std::fs::read(&path).unwrap();
    let (position, base, size) = batches(&path)[1];
    change(&path, |bytes| drop(bytes.drain(position..position + size)));
    // Where offsets are missing, the batch that begins after them cannot be read, either.
    assert_only(&verify(&fixture), FindingKind::BadBatch, &name, Some((base, Some(base + 19))));
    std::fs::write(&path, &good).unwrap();
    change(&path, |bytes| bytes.truncate(position));
    assert_only(&verify(&fixture), FindingKind::ShortLog, &name, Some((base, Some(999))));
    change(&path, |bytes| bytes.extend_from_slice(&good[position..position + 70]));
    assert_only(&verify(&fixture), FindingKind::BadBatch, &name, Some((base, Some(999))));
}

#[test]
fn sealed_segments_are_held_against_the_manifest() {
    let fixture = closed();
    let names = fixture.files("log");
    let manifest = seals::read(&*fixture.fs, &fixture.log_dir()).unwrap().unwrap();
    let seal = &manifest.seals[1];
    let (base, next) = (seal.base.get(), seal.next.get());
    let path = fixture.log_dir().join(&names[1]);
    let good = std::fs::read(&path).unwrap();
    let last = *batches(&path).last().unwrap();

    change(&path, |bytes| bytes.truncate(last.0 + 20));
    assert_only(&verify(&fixture), FindingKind::BadSeal, &names[1], Some((last.1, Some(next - 1))));
    std::fs::remove_file(&path).unwrap();
    assert_only(&verify(&fixture), FindingKind::MissingSegment, &names[1], Some((base, Some(next - 1))));
    std::fs::write(&path, good).unwrap();

    let replace = |change: &dyn Fn(&mut seals::Seal)| {
        let mut seals = manifest.seals.clone();
        change(&mut seals[1]);
        seals::replace(&*fixture.fs, &fixture.log_dir(), manifest.first, &seals.iter().collect::<Vec<_>>())
            .unwrap();
    };
    replace(&|seal| seal.block_crcs[0] ^= 1);
    assert_only(&verify(&fixture), FindingKind::BadBlock, &names[1], None);
    replace(&|seal| seal.max_timestamp_ms = None);
    assert_only(&verify(&fixture), FindingKind::BadSeal, &names[1], None);
    replace(&|_| {});
    assert_eq!(verify(&fixture).findings, []);

    let active = names.last().unwrap();
    let end = batches(&fixture.log_dir().join(active))[0].1;
    std::fs::remove_file(fixture.log_dir().join(active)).unwrap();
    let report = verify(&fixture);
    let missing = report.findings.iter().find(|finding| finding.kind == FindingKind::MissingSegment).unwrap();
    assert_eq!(told(missing), (FindingKind::MissingSegment, active.clone(), Some((end, Some(999)))));
}

#[test]
fn indexes_that_are_not_true_are_notes() {
    let fixture = closed();
    let damages: [fn(&mut Vec<u8>); 6] = [
        Vec::clear,
        |bytes| bytes.fill(0),
        |bytes| bytes.truncate(bytes.len() - 1),
        |bytes| bytes[11] ^= 1,
        |bytes| bytes.extend_from_within(..12),
        |bytes| bytes.push(0),
    ];
    let names = [fixture.files("index"), fixture.files("timeindex")].concat();
    for name in names {
        let path = fixture.log_dir().join(&name);
        let good = std::fs::read(&path).unwrap();
        if good.is_empty() {
            continue;
        }
        for (i, damage) in damages.into_iter().enumerate() {
            change(&path, damage);
            let report = verify(&fixture);
            assert_eq!(
                report.findings.iter().map(told).collect::<Vec<_>>(),
                [(FindingKind::StaleIndex, name.clone(), None)],
                "damage {i}"
            );
            assert_eq!(report.count(Severity::Error), 0);
            std::fs::write(&path, &good).unwrap();
        }
        std::fs::remove_file(&path).unwrap();
        assert_only(&verify(&fixture), FindingKind::StaleIndex, &name, None);
        std::fs::write(&path, &good).unwrap();
    }
    assert_eq!(verify(&fixture).findings, []);
}

#[test]
fn a_recovery_point_between_batches_is_an_error() {
    let fixture = closed();
    let path = fixture.dir.path().join("checkpoint");
    let good = Checkpoint::read_file(&*fixture.fs, &path).unwrap().unwrap();
    let name = fixture.files("log").pop().unwrap();
    let with = |change: &dyn Fn(&mut super::super::checkpoint::LogCheckpoint)| {
        let mut checkpoint = good.clone();
        checkpoint.logs.values_mut().for_each(change);
        checkpoint.replace(&*fixture.fs, fixture.dir.path()).unwrap();
        verify(&fixture)
    };
    let report = with(&|log| log.recovery_point.mark.position -= 1);
    assert_only(&report, FindingKind::BadCheckpoint, &name, None);
    let report = with(&|log| log.recovery_point.mark.segment = Offset::clamped(12_345));
    assert_only(&report, FindingKind::BadCheckpoint, "orders-0", None);
    let report = with(&|log| log.log_start = Offset::clamped(5000));
    assert_only(&report, FindingKind::StaleEntry, "orders-0", None);
    let report = with(&|log| log.recovery_point.mark.offset = Offset::clamped(1010));
    assert_only(&report, FindingKind::ShortLog, &name, Some((1000, Some(1009))));
}

#[test]
fn small_files_are_told_by_name() {
    let fixture = closed();
    let log_dir = fixture.log_dir();
    let root = fixture.dir.path().to_owned();
    for (dir, name) in [
        (&log_dir, "seals"),
        (&log_dir, "leader-epochs"),
        (&log_dir, "topic-id"),
        (&root, "checkpoint"),
        (&root, "checkpoint.old"),
        (&root, "meta.toml"),
    ] {
        let path = dir.join(name);
        let good = std::fs::read(&path).unwrap();
        change(&path, |bytes| {
            let last = bytes.len() - 1;
            bytes[last] = bytes[last].wrapping_add(0x80);
        });
        assert_only(&verify(&fixture), FindingKind::DamagedFile, name, None);
        std::fs::remove_file(&path).unwrap();
        let report = verify(&fixture);
        match name {
            "checkpoint.old" => assert_eq!(report.findings, [], "there need not be one"),
            name => assert_only(&report, FindingKind::MissingFile, name, None),
        }
        std::fs::write(&path, good).unwrap();
    }
    let path = root.join("durable");
    change(&path, |bytes| bytes[20] ^= 1);
    assert_only(&verify(&fixture), FindingKind::StaleEntry, "durable", None);
    std::fs::remove_file(&path).unwrap();
    assert_only(&verify(&fixture), FindingKind::MissingFile, "durable", None);
}

#[test]
fn directories_are_held_against_what_there_should_be() {
    let mut fixture = closed();
    let root = fixture.dir.path().to_owned();
    std::fs::create_dir_all(root.join("strange-0")).unwrap();
    assert_only(&verify(&fixture), FindingKind::UnknownDirectory, "strange-0", None);
    std::fs::remove_dir(root.join("strange-0")).unwrap();

    std::fs::rename(fixture.log_dir(), root.join("elsewhere")).unwrap();
    let report = verify(&fixture);
    let kinds: Vec<_> = report.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [FindingKind::UnknownDirectory, FindingKind::MissingDirectory]);
    std::fs::rename(root.join("elsewhere"), fixture.log_dir()).unwrap();

    fixture.spec.topic_id = TopicId::from_bytes([9; 16]);
    let report = verify(&fixture);
    assert!(report.findings.iter().any(|finding| finding.kind == FindingKind::WrongTopic), "{report:#?}");
}

#[test]
fn what_lies_about_is_told_as_notes() {
    let fixture = closed();
    let (root, log_dir) = (fixture.dir.path().to_owned(), fixture.log_dir());
    for (path, kind) in [
        (log_dir.join("00000000000000000000.1.torn"), FindingKind::Leftover),
        (log_dir.join("seals.tmp"), FindingKind::Leftover),
        (log_dir.join("00000000000000099999.index"), FindingKind::Leftover),
        (log_dir.join("00000000000000000000.index.tmp"), FindingKind::Leftover),
        (log_dir.join("00000000000000000007.snapshot.tmp"), FindingKind::Leftover),
        (log_dir.join("00000000000000000007.snapshot"), FindingKind::StaleSnapshot),
        (log_dir.join("00000000000000000000.5.torn"), FindingKind::UnknownFile),
        (log_dir.join("notes.txt"), FindingKind::UnknownFile),
        (root.join("checkpoint.tmp"), FindingKind::Leftover),
        (root.join("notes.txt"), FindingKind::UnknownFile),
        (root.join(".deleted/some-0"), FindingKind::Leftover),
        (root.join(".set-aside/17"), FindingKind::Leftover),
    ] {
        let existed = path.parent().unwrap().exists();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "x").unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let report = verify(&fixture);
        assert_only(&report, kind, name, None);
        assert_eq!(report.count(Severity::Error), 0);
        std::fs::remove_file(&path).unwrap();
        if !existed {
            std::fs::remove_dir(path.parent().unwrap()).unwrap();
        }
    }
}

#[test]
fn records_that_do_not_unpack_are_told() {
    let fixture = Fixture::new();
    let open = fixture.create();
    open.fill(1, 100);
    let mut forged = batch(10, 10, 100);
    // Says that it is compressed, and is not.
    forged[22] |= 1;
    let crc = crc32c::crc32c(&forged[21..]);
    forged[17..21].copy_from_slice(&crc.to_be_bytes());
    open.append(forged).unwrap();
    open.close();
    assert_only(&verify(&fixture), FindingKind::BadRecords, FIRST, Some((10, Some(19))));
}

#[test]
fn a_directory_in_use_is_not_looked_at_and_a_stranger_neither() {
    let (fixture, open) = filled();
    let error = Inspection::open_on(Arc::clone(&fixture.fs), fixture.dir.path()).unwrap_err();
    assert!(matches!(&error, OpenError::InUse { holder, .. } if *holder == std::process::id().to_string()));
    open.close();
    // And while it is looked at, nobody else has it.
    let inspection = Inspection::open_on(Arc::clone(&fixture.fs), fixture.dir.path()).unwrap();
    let clock: Arc<dyn Clock> = fixture.clock.clone();
    let store = Store::open_on(Arc::clone(&fixture.fs), fixture.dir.path(), &fixture.config, clock);
    assert!(matches!(store, Err(OpenError::InUse { .. })));
    drop(inspection);
    let empty = tempfile::tempdir().unwrap();
    for dir in [empty.path(), &empty.path().join("none")] {
        let error = Inspection::open(dir).unwrap_err();
        assert!(matches!(error, OpenError::NotADataDir { .. }), "{error}");
    }
}

#[test]
fn rot_and_a_torn_tail_are_told_apart_as_a_recovery_does() {
    for (durability, beyond, is_rot) in [
        (Durability::Fsync, 64 << 10, true),
        (Durability::Fsync, 60 << 10, false),
        (Durability::Os, 200 << 10, false),
    ] {
        let (fixture, _) = bad_and_then_good(durability, beyond);
        let report = verify(&fixture);
        if is_rot {
            assert_only(&report, FindingKind::BadBatch, FIRST, Some((100, Some(109))));
        } else {
            assert_only(&report, FindingKind::TornTail, FIRST, Some((100, None)));
        }
        fixture.reopen().close();
        assert_eq!(fixture.files("torn").is_empty(), is_rot, "{durability:?}, {beyond}");
    }
}

#[test]
fn what_was_damaged_before_it_was_sealed_is_told_by_its_offsets() {
    let fixture = small_segments();
    let open = fixture.create();
    open.fill(10, 100);
    open.crash();
    let path = fixture.log_dir().join(FIRST);
    let (position, base, _) = batches(&path)[3];
    change(&path, |bytes| bytes[position + 100] ^= 1);
    let open = fixture.reopen();
    open.fill(90, 100);
    open.settle();
    open.close();
    let seals = seals::read(&*fixture.fs, &fixture.log_dir()).unwrap().unwrap().seals;
    assert!(seals.len() > 1, "the damaged one is sealed");
    assert_only(&verify(&fixture), FindingKind::BadBatch, FIRST, Some((base, Some(base + 9))));
    // Its checksum stays what no block has.
    change(&path, |bytes| bytes[position + 100] ^= 1);
    assert_only(&verify(&fixture), FindingKind::BadBlock, FIRST, None);
}

#[test]
fn a_snapshot_of_producers_matters_if_the_checkpoint_names_it() {
    let fixture = Fixture::new();
    let open = fixture.create();
    open.append(stamped(0, 0, 100)).unwrap();
    open.close();
    let names = fixture.files("snapshot");
    let [named] = &names[..] else { panic!("{names:?}") };
    assert_eq!(verify(&fixture).findings, []);
    let path = fixture.log_dir().join(named);
    let good = std::fs::read(&path).unwrap();
    change(&path, |bytes| bytes[20] ^= 1);
    assert_only(&verify(&fixture), FindingKind::DamagedFile, named, None);
    std::fs::remove_file(&path).unwrap();
    assert_only(&verify(&fixture), FindingKind::MissingFile, named, None);
    std::fs::write(&path, &good).unwrap();
    // Others are spare, and none is taken that says more than the log has.
    let offset = |offset| Offset::clamped(offset);
    for (at, bytes) in [(5, good), (11, producer_snapshot::encode(offset(11), &[]))] {
        let other = producer_snapshot::name(offset(at));
        std::fs::write(fixture.log_dir().join(&other), bytes).unwrap();
        let report = verify(&fixture);
        assert_only(&report, FindingKind::StaleSnapshot, &other, None);
        assert_eq!(report.count(Severity::Error), 0);
        std::fs::remove_file(fixture.log_dir().join(other)).unwrap();
    }
}

#[test]
fn without_the_leader_epochs_nothing_else_is_found() {
    let (fixture, open) = filled();
    open.crash();
    // Batches of a second epoch.
    let open = fixture.reopen();
    open.fill(50, 100);
    open.settle();
    open.close();
    std::fs::remove_file(fixture.log_dir().join("leader-epochs")).unwrap();
    assert_only(&verify(&fixture), FindingKind::MissingFile, "leader-epochs", None);
}

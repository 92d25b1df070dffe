//! What a verification finds: nothing where all is well, and for each kind of damage just that.

mod files;
mod logs;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use super::super::verify::{
    Finding, FindingKind, Inspection, Known, LogId, Progress, Report, Severity, VerifyOptions,
};
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

/// A log of several sealed segments and an active one, 1,000 records in all.
fn filled() -> (Fixture, Open) {
    let fixture = Fixture::fine(30_000);
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
        change_at(&path, |bytes| bytes.extend_from_slice(tail));
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

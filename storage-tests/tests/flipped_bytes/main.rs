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

mod damage;
mod iteration;
mod partition;
mod template;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use damage::{Damage, places};
use iteration::{Iteration, Totals};
use storage_tests::setting;
use template::Template;
use tokio::runtime::Runtime;

const DEFAULT_FLIPS: u64 = 300;
/// Iterations at a time: they mostly wait for the disk.
const WORKERS: usize = 4;
/// Different data directories, one after the other.
const TEMPLATES: u64 = 6;

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

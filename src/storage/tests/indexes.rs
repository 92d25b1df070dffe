//! An index is never evidence: whatever it says, what is read is what the log has, and it is made anew.

use super::hook_fs::{HookFs, Step, hooked};
use super::stepped::Stepped;
use super::*;

#[test]
fn indexes_are_hints_and_damaged_ones_are_made_anew() {
    let fixture = Fixture::fine(100_000);
    let open = fixture.create();
    open.fill(250, 100);
    open.close();
    let indexes: Vec<String> = [fixture.files("index"), fixture.files("timeindex")].concat();
    let sealed = &fixture.files("index")[0];
    let good = std::fs::read(fixture.log_dir().join(sealed)).unwrap();
    let damages: [fn(&mut Vec<u8>); 4] =
        [Vec::clear, |bytes| bytes.fill(0), |bytes| bytes.fill(0x55), |bytes| bytes.truncate(13)];
    for damage in damages {
        for name in &indexes {
            change(&fixture, name, damage);
        }
        let open = fixture.reopen();
        for from in [0, 5, 1234, 2499] {
            open.assert_numbered(from, 2500);
        }
        let found = open.log.find_timestamp(NOW_MS, 1 << 20).unwrap().unwrap();
        assert_eq!(found.offset, Offset::ZERO);
        open.close();
    }
    assert_eq!(std::fs::read(fixture.log_dir().join(sealed)).unwrap(), good, "the same as it was");
    // Sound to look at, and wrong: that shows when an entry is used.
    change(&fixture, sealed, |bytes| bytes[good.len() - 1] ^= 1);
    let open = fixture.reopen();
    open.assert_numbered(0, 2500);
    let from = i64::from(u32::from_be_bytes(good[good.len() - 8..][..4].try_into().unwrap()));
    open.assert_numbered(from, 2500);
    assert_eq!(std::fs::read(fixture.log_dir().join(sealed)).unwrap(), good);
}

#[test]
fn an_index_that_is_lost_after_an_orderly_end_is_made_anew() {
    let mut fixture = Fixture::new();
    fixture.config.index_interval_bytes = 1 << 10;
    let open = fixture.create();
    open.fill(100, 100);
    open.close();
    std::fs::remove_file(fixture.log_dir().join("00000000000000000000.index")).unwrap();
    let open = fixture.reopen();
    assert_eq!(
        open.store.stats().recovered_logs,
        1,
        "else every read would begin at the start of the segment"
    );
    open.assert_numbered(500, 1000);
    open.close();
    assert_eq!(
        fixture.reopen().store.stats().recovered_logs,
        0,
        "it is written although nothing was appended"
    );
}

#[test]
fn a_time_index_that_is_wrong_does_not_hide_records() {
    let fixture = Fixture::fine(20_000);
    let open = fixture.create();
    for i in 0..100 {
        open.append(batch_at(NOW_MS + i * 100, i as u64 * 10, 10, 50)).unwrap();
    }
    open.close();
    // Each entry claims that all up to the last record of the segment is older than it is.
    change(&fixture, "00000000000000000000.timeindex", |bytes| {
        for entry in bytes.chunks_exact_mut(12) {
            entry[8..].copy_from_slice(&150u32.to_be_bytes());
        }
    });
    let open = fixture.reopen();
    let found = open.log.find_timestamp(NOW_MS + 1050, 1 << 20).unwrap().unwrap();
    assert_eq!((found.offset.get(), found.timestamp_ms), (110, NOW_MS + 1100));
}

fn read_file(fixture: &Fixture, name: &str) -> Vec<u8> {
    std::fs::read(fixture.log_dir().join(name)).unwrap()
}

#[test]
fn an_index_made_in_several_runs_is_the_same_as_one_made_anew() {
    let fixture = Fixture::fine(50_000);
    fixture.create().close();
    for run in 0..12 {
        let open = fixture.reopen();
        open.fill(13, 50);
        open.end(run % 3 != 0);
    }
    let open = fixture.reopen();
    open.settle();
    let names = [fixture.files("index"), fixture.files("timeindex")].concat();
    assert!(fixture.files("log").len() >= 2);
    let sealed = |name: &&String| name.starts_with("00000000000000000000");
    let before: Vec<Vec<u8>> = names.iter().filter(sealed).map(|name| read_file(&fixture, name)).collect();
    for name in names.iter().filter(sealed) {
        change(&fixture, name, |bytes| bytes.fill(0));
    }
    open.log.view.segments()[0].close();
    open.assert_numbered(0, 1560);
    let after: Vec<Vec<u8>> = names.iter().filter(sealed).map(|name| read_file(&fixture, name)).collect();
    assert_eq!(after, before);
}

#[test]
fn a_wrong_index_is_made_anew_once_and_not_at_each_start() {
    let fixture = Fixture::fine(50_000);
    let open = fixture.create();
    open.fill(100, 50);
    open.close();
    let open = fixture.reopen();
    open.fill(200, 50);
    open.close();
    let sealed = fixture.files("index")[0].clone();
    change(&fixture, &sealed, |bytes| bytes.truncate(bytes.len() / 16 * 8));
    let open = fixture.reopen();
    open.assert_numbered(0, 3000);
    open.close();
    // A file that is not replaced keeps what its time says.
    let path = fixture.log_dir().join(&sealed);
    let made = std::fs::metadata(&path).unwrap().modified().unwrap();
    for _ in 0..3 {
        let open = fixture.reopen();
        open.assert_numbered(0, 3000);
        open.close();
    }
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), made);
}

#[test]
fn an_index_that_goes_wrong_while_the_log_is_served_misleads_nobody() {
    // Entries out of order, pointing nowhere, beyond the end, all zero, and each where another belongs.
    let damages: [fn(&mut Vec<u8>); 6] = [
        |bytes| bytes.reverse(),
        |bytes| bytes.chunks_exact_mut(8).step_by(3).for_each(|entry| entry[2] ^= 1),
        |bytes| bytes.chunks_exact_mut(8).for_each(|entry| entry[5] ^= 0x10),
        |bytes| bytes.fill(0xee),
        |bytes| bytes.fill(0),
        |bytes| {
            let positions: Vec<u8> = bytes.chunks_exact(8).flat_map(|entry| entry[4..].to_vec()).collect();
            for (entry, position) in bytes.chunks_exact_mut(8).zip(positions.chunks_exact(4).skip(1)) {
                entry[4..].copy_from_slice(position);
            }
        },
    ];
    for damage in damages {
        let fixture = Fixture::fine(50_000);
        let open = fixture.create();
        open.fill(250, 50);
        open.close();
        let names = fixture.files("index");
        let good: Vec<Vec<u8>> = names.iter().map(|name| read_file(&fixture, name)).collect();
        let open = fixture.reopen();
        open.assert_numbered(0, 2500);
        for name in names.iter().chain(&fixture.files("timeindex")) {
            change(&fixture, name, damage);
        }
        for segment in open.log.view.segments() {
            segment.close();
        }
        // Each batch on its own, so that every entry is used.
        for from in (0..2500).rev().step_by(10) {
            let read = open.log.read(Offset::clamped(from), 1).unwrap();
            assert_eq!(read.next_offset, Offset::clamped(from / 10 * 10 + 10));
        }
        open.assert_numbered(0, 2500);
        let found = open.log.find_timestamp(NOW_MS, 1 << 20).unwrap().unwrap();
        assert_eq!(found.offset, Offset::ZERO);
        // That of the active segment comes back to the disk with a checkpoint.
        open.close();
        for (name, good) in names.iter().zip(good) {
            assert!(read_file(&fixture, name) == good, "{name} is as it was");
        }
        assert_eq!(fixture.reopen().store.stats().recovered_logs, 0);
    }
}

#[test]
fn an_entry_of_a_batch_that_is_not_visible_yet_is_not_taken_for_a_wrong_one() {
    let (mut fixture, fs) = hooked();
    fixture.config.tail_cache_bytes = 0;
    fixture.config.index_interval_bytes = 1 << 10;
    let mut log = Stepped::new(&fixture);
    for from in [0, 50] {
        log.sync();
        for i in from..from + 50 {
            let _ = log.send(batch_at(NOW_MS + i, i as u64 * 10, 10, 100));
        }
        log.write();
    }
    assert_eq!(log.open.log.durable_offset(), Offset::clamped(500));
    // An index that is made anew comes back into memory, and its file goes.
    let repaired = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&repaired);
    fs.hook(move |step, path| {
        let is_index = path.extension().is_some_and(|extension| extension == "index");
        noted.fetch_or(step == Step::Remove && is_index, Ordering::Relaxed);
        Ok(())
    });
    assert!(log.open.log.find_timestamp(NOW_MS + 90, 1 << 20).unwrap().is_none());
    assert!(!repaired.load(Ordering::Relaxed));
}

#[test]
fn an_index_that_cannot_be_written_is_made_anew_once_all_the_same() {
    let (fs, mut fixture) = (HookFs::default(), Fixture::fine(50_000));
    fixture.fs = Arc::new(fs.clone());
    let open = fixture.create();
    open.fill(250, 50);
    open.close();
    let name = fixture.files("index")[0].clone();
    let good = read_file(&fixture, &name);
    change(&fixture, &name, |bytes| bytes.fill(0));
    let open = fixture.reopen();
    let attempts = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    fs.hook(move |step, path| {
        if step != Step::Write || !path.ends_with("00000000000000000000.index.tmp") {
            return Ok(());
        }
        counted.fetch_add(1, Ordering::Relaxed);
        Err(io::Error::other("it cannot be written"))
    });
    let end: i64 = fixture.files("log")[1][..20].parse().unwrap();
    for from in (0..end).step_by(7) {
        assert_eq!(open.log.read(Offset::clamped(from), 1).unwrap().next_offset.get(), from / 10 * 10 + 10);
    }
    assert_eq!(attempts.load(Ordering::Relaxed), 1);
    fs.heal();
    open.close();
    let open = fixture.reopen();
    open.assert_numbered(end / 2, 2500);
    assert_eq!(read_file(&fixture, &name), good, "the next start finds it wrong again");
}

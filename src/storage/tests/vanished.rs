//! Segments that lose their bytes under a reader: what was made of them is void, and the next read says what is lost.

use std::fs::OpenOptions;

use super::hook_fs::HookFs;
use super::*;

/// A log of sealed segments of five batches each, on which nothing is in memory.
fn sealed() -> (Fixture, Open) {
    let mut fixture = Fixture::new();
    fixture.spec.config.segment_bytes = 10_000;
    fixture.config.tail_cache_bytes = 0;
    let open = fixture.create();
    open.fill(30, 180);
    open.settle();
    assert!(fixture.files("log").len() > 3);
    (fixture, open)
}

/// Cuts a log file, given by its place among them.
fn cut(fixture: &Fixture, file: usize, len: u64) -> (Offset, Offset) {
    let names = fixture.files("log");
    let path = fixture.log_dir().join(&names[file]);
    OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
    let base = |name: &str| Offset::clamped(name.trim_end_matches(".log").parse().unwrap());
    (base(&names[file]), base(&names[file + 1]))
}

#[test]
fn what_vanishes_between_a_read_and_its_copy_voids_the_lease() {
    let (fixture, open) = sealed();
    let (first, next) =
        (open.log.read(Offset::ZERO, 1).unwrap(), open.log.read(Offset::clamped(60), 1).unwrap());
    let (base, end) = cut(&fixture, 0, 0);
    assert_eq!(first.chunks.concat(), vec![0; first.size_bytes as usize]);
    assert!(!first.lease.is_intact());
    assert!(next.chunks.concat().iter().any(|byte| *byte != 0) && next.lease.is_intact());
    let error = open.log.read(Offset::ZERO, 1).unwrap_err();
    let ReadError::DataLoss { first, last, .. } = error else { panic!("{error}") };
    assert_eq!((first, last.plus(1)), (base, end));
    open.assert_numbered(end.get(), 300);
    open.fill(5, 180);
    open.assert_numbered(end.get(), 350);
}

#[test]
fn what_is_left_of_a_cut_segment_is_read_up_to_the_cut_however_it_falls() {
    let (fixture, open) = sealed();
    let size = batch(0, 10, 180).len() as u64;
    // All blocks have been verified, and the maps are there.
    open.assert_numbered(0, 300);
    // Within a page, and within a batch: the rest of the page shows zeros without a fault.
    let (base, _) = cut(&fixture, 1, 2 * size + 700);
    let read = open.log.read(base, 1 << 20).unwrap();
    assert_eq!(read.size_bytes, 2 * size);
    assert!(record::batches(&read.chunks[0]).all(|batch| batch.unwrap().crc_is_valid()));
    let error = open.log.read(read.next_offset, 1 << 20).unwrap_err();
    assert!(matches!(error, ReadError::DataLoss { first, .. } if first == read.next_offset), "{error}");
}

#[test]
fn what_was_made_of_a_page_that_has_vanished_counts_for_nothing_and_is_not_remembered() {
    let size = batch(0, 10, 100).len() as u64;
    let fs = HookFs::default();
    let mut fixture = Fixture::new();
    fixture.fs = Arc::new(fs.clone());
    fixture.config.tail_cache_bytes = 0;
    fixture.spec.config.segment_bytes = 100 * size as u32;
    let open = fixture.create();
    open.fill(130, 100);
    open.settle();
    open.close();
    // From each field of a header on, and from other places; in the sealed segment and in the active one.
    for from in (0..80).chain((80..100 * size).step_by(6_997)) {
        let open = fixture.reopen();
        let segments = open.log.view.segments();
        assert!(segments.len() == 2 && segments[0].seal().is_some());
        for offset in [0, 50, 999, 1000, 1050, 1299] {
            fs.vanish_once(from);
            match open.log.read(Offset::clamped(offset), 1) {
                Err(error) => assert!(matches!(error, ReadError::Io { .. }), "{offset}, {from}: {error}"),
                Ok(read) => assert!(!fs.has_vanished() || !read.lease.is_intact(), "{offset}, {from}"),
            }
        }
        fs.vanish_once(from);
        match open.log.find_timestamp(NOW_MS, 1 << 20) {
            Err(error) => assert!(matches!(error, ReadError::Io { .. }), "{from}: {error}"),
            Ok(found) => {
                assert!(!fs.has_vanished(), "{from}");
                assert_eq!(found.unwrap().offset, Offset::ZERO);
            }
        }
        fs.vanish_once(u64::MAX);
        assert!(segments.iter().all(|segment| !segment.take_wrong_index()), "{from}");
        assert!(segments[0].is_verified(&(0..size)), "{from}");
        open.assert_numbered(0, 1300);
        assert_eq!(open.log.find_timestamp(NOW_MS, 1 << 20).unwrap().unwrap().offset, Offset::ZERO);
        open.close();
    }
}

#[test]
fn what_vanishes_once_the_first_batch_was_found_makes_no_wrong_answer() {
    let size = batch(0, 10, 100).len() as u64;
    let fs = HookFs::default();
    let mut fixture = Fixture::new();
    fixture.fs = Arc::new(fs.clone());
    fixture.config.tail_cache_bytes = 0;
    fixture.config.index_interval_bytes = 1 << 10;
    fixture.spec.config.segment_bytes = 100 * size as u32;
    let open = fixture.create();
    // The first time entry speaks of the first batch, which no offset entry does.
    for (i, later_ms) in (0..130).zip([100].into_iter().chain([0; 49]).chain([200; 80])) {
        open.append(batch_at(NOW_MS + later_ms, i * 10, 10, 100)).unwrap();
    }
    open.settle();
    open.close();
    let open = fixture.reopen();
    let segments = open.log.view.segments();
    let find = || open.log.find_timestamp(NOW_MS + 150, 1 << 20);
    // All blocks have been verified: of a batch, no more than its header is looked at.
    open.assert_numbered(0, 1300);
    assert_eq!(find().unwrap().unwrap().offset.get(), 500);
    let close_maps = || segments.iter().for_each(|segment| segment.close());
    for field in 0..record::HEADER_BYTES as u64 {
        close_maps();
        fs.vanish_after(1, 3 * size + field);
        match open.log.read(Offset::ZERO, 4 * size) {
            Err(error) => assert!(matches!(error, ReadError::Io { .. }), "{field}: {error}"),
            Ok(read) => assert_eq!((read.next_offset.get(), read.size_bytes), (40, 4 * size), "{field}"),
        }
        assert!(fs.has_vanished());
    }
    // The largest timestamp of a batch.
    close_maps();
    fs.vanish_after(1, 35);
    let error = find().unwrap_err();
    assert!(fs.has_vanished() && matches!(error, ReadError::Io { .. }), "{error}");
    assert!(segments.iter().all(|segment| !segment.take_wrong_index()));
    close_maps();
    assert_eq!(find().unwrap().unwrap().offset.get(), 500);
}

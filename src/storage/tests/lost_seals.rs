//! A manifest that is damaged is made anew from the segments: nothing is lost, and nothing deleted comes back.

use super::stepped::Stepped;
use super::*;

fn seals(fixture: &Fixture) -> Vec<u8> {
    std::fs::read(fixture.log_dir().join("seals")).unwrap()
}

#[test]
fn a_damaged_manifest_is_made_anew_as_it_was() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 5] = [
        |bytes| bytes[5] ^= 1,
        |bytes| bytes[23] ^= 1,
        |bytes| *bytes.last_mut().unwrap() ^= 0x80,
        |bytes| bytes.truncate(40),
        Vec::clear,
    ];
    for (damage, is_orderly) in damages.into_iter().zip([true, false].into_iter().cycle()) {
        let fixture = Fixture::fine(10_000);
        let open = fixture.create();
        open.fill(100, 100);
        open.settle();
        open.end(is_orderly);
        let good = seals(&fixture);
        change(&fixture, "seals", damage);
        let open = fixture.reopen();
        assert_eq!(open.log.status().state, LogState::Online);
        open.assert_numbered(0, 1000);
        let segments = open.log.view.segments();
        for segment in &segments[..segments.len() - 1] {
            assert!(segment.is_verified(&(0..segment.visible_bytes())));
        }
        assert_eq!(open.log.find_timestamp(NOW_MS, 1 << 20).unwrap().unwrap().offset, Offset::ZERO);
        assert_eq!(seals(&fixture), good, "it is there again at once");
        open.fill(10, 100);
        open.close();
        fixture.reopen().assert_numbered(0, 1100);
    }
}

#[test]
fn what_a_deletion_has_left_does_not_come_back_with_a_new_manifest() {
    let fixture = Fixture::fine(10_000);
    let open = fixture.create();
    open.fill(100, 100);
    open.settle();
    let names = fixture.files("log");
    let left = std::fs::read(fixture.log_dir().join(&names[0])).unwrap();
    // The first three go; of these, a crash has brought the first one back.
    let start: i64 = names[3][..20].parse().unwrap();
    open.delete_records(start + 5).unwrap();
    open.crash();
    std::fs::write(fixture.log_dir().join(&names[0]), left).unwrap();
    change(&fixture, "seals", |bytes| bytes[20] ^= 1);
    let open = fixture.reopen();
    assert_eq!(open.log.log_start_offset().get(), start + 5);
    assert!(matches!(open.log.read(Offset::clamped(start + 4), 1), Err(ReadError::OutOfRange { .. })));
    open.assert_numbered(start + 5, 1000);
    assert_eq!(fixture.files("log"), names[3..]);
}

#[test]
fn a_segment_that_is_missing_is_not_taken_for_lost_with_the_manifest() {
    let fixture = Fixture::fine(10_000);
    let open = fixture.create();
    open.fill(100, 100);
    open.settle();
    open.close();
    let path = fixture.log_dir().join(&fixture.files("log")[3]);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    change(&fixture, "seals", |bytes| bytes[20] ^= 1);
    let (store, log) = fixture.try_reopen();
    assert!(matches!(&log, Err(OpenLogError::Damaged { path: named, .. }) if *named == path), "{log:?}");
    drop(store);
    std::fs::write(&path, bytes).unwrap();
    fixture.reopen().assert_numbered(0, 1000);
}

#[test]
fn epochs_of_segments_that_were_not_sealed_yet_are_not_forgotten_with_the_manifest() {
    let fixture = Fixture::fine(10_000);
    let open = fixture.create();
    open.fill(10, 100);
    open.crash();
    let open = fixture.reopen();
    open.fill(1, 100);
    open.crash();
    // Of the newest epoch, the file has nothing yet when segments of it are rolled and not sealed.
    let file = fixture.log_dir().join("leader-epochs");
    let before = std::fs::read(&file).unwrap();
    let open = fixture.reopen();
    open.fill(50, 100);
    open.settle();
    open.crash();
    std::fs::write(&file, before).unwrap();
    change(&fixture, "seals", |bytes| bytes[20] ^= 1);
    for _ in 0..2 {
        let open = fixture.reopen();
        let epoch = |offset| open.log.view.epochs.lock().at(Offset::clamped(offset)).unwrap().0;
        assert_eq!([0, 99, 100, 109, 110, 609].map(epoch), [0, 0, 1, 1, 2, 2]);
        open.assert_numbered(0, 610);
        open.crash();
    }
}

#[test]
fn segments_that_were_not_sealed_are_so_in_a_new_manifest() {
    let fixture = Fixture::fine(10_000);
    Stepped::new(&fixture).fill(300);
    assert!(fixture.files("log").len() > 3);
    change(&fixture, "seals", |bytes| bytes[20] ^= 1);
    for _ in 0..2 {
        let open = fixture.reopen();
        open.assert_numbered(0, 300);
        let segments = open.log.view.segments();
        assert!(segments[..segments.len() - 1].iter().all(|segment| segment.seal().is_some()));
        open.crash();
    }
}

#[test]
fn what_has_rotted_below_a_damaged_manifest_is_lost_and_no_more() {
    let fixture = Fixture::fine(10_000);
    let open = fixture.create();
    open.fill(100, 100);
    open.close();
    let size = batch(0, 10, 100).len();
    change(&fixture, FIRST, |bytes| bytes[2 * size + 100] ^= 1);
    let second = fixture.files("log")[1].clone();
    let second_base: i64 = second[..20].parse().unwrap();
    let third_base: i64 = fixture.files("log")[2][..20].parse().unwrap();
    change(&fixture, &second, |bytes| bytes.truncate(3 * size));
    change(&fixture, "seals", |bytes| bytes[20] ^= 1);
    for _ in 0..2 {
        let open = fixture.reopen();
        open.assert_lost(1000, &[(20, 29), (second_base + 30, third_base - 1)]);
        open.close();
    }
}

#[test]
fn a_damaged_manifest_of_a_log_whose_first_segment_is_missing_stays_as_it_is() {
    let fixture = Fixture::fine(10_000);
    let open = fixture.create();
    open.fill(100, 100);
    open.close();
    std::fs::remove_file(fixture.log_dir().join(FIRST)).unwrap();
    change(&fixture, "seals", |bytes| bytes[20] ^= 1);
    let before = seals(&fixture);
    let (_store, log) = fixture.try_reopen();
    assert!(matches!(log, Err(OpenLogError::Damaged { .. })), "{log:?}");
    assert_eq!(seals(&fixture), before);
}

#[test]
fn a_damaged_manifest_that_cannot_be_written_is_made_anew_in_memory() {
    let (mut fixture, fs) = super::hook_fs::hooked();
    fixture.spec.config.segment_bytes = 10_000;
    let open = fixture.create();
    open.fill(100, 100);
    open.close();
    change(&fixture, "seals", |bytes| bytes[20] ^= 1);
    let before = seals(&fixture);
    fs.hook(|step, path| {
        let is_it = step == super::hook_fs::Step::Write && path.ends_with("seals.tmp");
        if is_it { Err(io::Error::other("it cannot be written")) } else { Ok(()) }
    });
    let open = fixture.reopen();
    open.assert_numbered(0, 1000);
    assert_eq!(seals(&fixture), before);
    fs.heal();
    open.fill(20, 100);
    open.settle();
    open.close();
    let open = fixture.reopen();
    open.assert_numbered(0, 1200);
    assert_ne!(seals(&fixture), before, "the next seal has written it");
}

//! What a scan takes for a batch of the log, and where it finds the way past what is none.

use super::super::epochs::LeaderEpochs;
use super::super::scan::{self, Found, Known, Place, Scan};
use super::*;
use crate::types::LeaderEpoch;

/// A batch of ten records as a log has it there.
fn placed(offset: i64, epoch: i32, value_bytes: usize) -> BytesMut {
    let mut batch = batch(offset as u64, 10, value_bytes);
    record::set_position(&mut batch, Offset::clamped(offset), LeaderEpoch(epoch));
    batch
}

fn epochs(starts: &[(i32, i64)]) -> LeaderEpochs {
    let mut epochs = LeaderEpochs::default();
    for (epoch, start) in starts {
        epochs.assign(LeaderEpoch(*epoch), Offset::clamped(*start));
    }
    epochs
}

/// A scan of a file with these bytes, from its beginning.
fn scan(bytes: &[u8]) -> Scan {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FIRST);
    std::fs::write(&path, bytes).unwrap();
    Scan::open(&RealFs, &path, Place { position: 0, offset: Offset::ZERO }, u64::MAX).unwrap()
}

/// How many of the batches are good before the first one that is not.
fn good(batches: &[BytesMut], known: &Known<'_>) -> usize {
    let mut scan = scan(&batches.concat());
    (0..batches.len()).take_while(|_| matches!(scan.next(known), Ok(Found::Batch { .. }))).count()
}

#[test]
fn a_batch_counts_only_with_an_epoch_that_the_log_can_have_there_and_before_its_end() {
    let epochs = epochs(&[(1, 0), (3, 10)]);
    let cases = [
        (3, None, true),
        (4, None, true),
        (5, None, false),
        (2, None, false),
        (3, Some(20), true),
        (3, Some(19), false),
    ];
    for (epoch, end, is_good) in cases {
        let end = end.map(Offset::clamped);
        let known = Known { epochs: &epochs, newest_epoch: LeaderEpoch(4), reaches: Offset::ZERO, end };
        let found = good(&[placed(0, 1, 100), placed(10, epoch, 100)], &known);
        assert_eq!(found == 2, is_good, "epoch {epoch}, end {end:?}");
    }
}

#[test]
fn a_batch_with_a_new_epoch_before_one_with_an_older_epoch_is_damaged() {
    let epochs = epochs(&[(1, 0)]);
    let known = Known { epochs: &epochs, newest_epoch: LeaderEpoch(4), reaches: Offset::ZERO, end: None };
    for (next_epoch, expected) in [(1, 1), (2, 1), (3, 3), (4, 3)] {
        let batches = [placed(0, 1, 100), placed(10, 3, 100), placed(20, next_epoch, 100)];
        assert_eq!(good(&batches, &known), expected, "epoch {next_epoch} after 3");
    }
}

#[test]
fn a_batch_whose_counts_disagree_is_none_even_with_a_right_checksum() {
    for count in [9i32, 11, 0, -1] {
        let mut batch = batch(0, 10, 100);
        scan::check(&batch).unwrap();
        batch[57..61].copy_from_slice(&count.to_be_bytes());
        seal(&mut batch);
        scan::check(&batch).unwrap_err();
    }
}

#[test]
fn in_a_file_that_is_not_complete_batches_within_a_record_are_not_the_way_on() {
    let inner: Vec<u8> = (6..11).flat_map(|i| placed(i * 10, 0, 100)).collect();
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for i in 0..10 {
        builder.push(NOW_MS, None, Some(if i == 4 { &inner } else { b"" }), []);
    }
    let mut outer = builder.build().unwrap();
    record::set_position(&mut outer, Offset::clamped(50), LeaderEpoch(0));
    // Its length is wrong.
    outer[9] ^= 0x7f;
    let before: Vec<u8> = (0..5).flat_map(|i| placed(i * 10, 0, 100)).collect();
    let after: Vec<u8> = (6..206).flat_map(|i| placed(i * 10, 0, 100)).collect();
    let epochs = epochs(&[(0, 0)]);
    let reaches = Offset::clamped(2060);
    let known = Known { epochs: &epochs, newest_epoch: LeaderEpoch(0), reaches, end: None };
    let mut scan = scan(&[&before[..], &outer, &after].concat());
    scan.go_to(Place { position: before.len() as u64, offset: Offset::clamped(50) });
    let on = Place { position: (before.len() + outer.len()) as u64, offset: Offset::clamped(60) };
    assert_eq!(scan.find_way_on(&known).unwrap(), Some(on));
}

#[test]
fn the_way_past_one_damage_does_not_depend_on_another_one_far_behind_it() {
    let mut bytes: Vec<u8> = (0..200).flat_map(|i| placed(i * 10, 0, 1_000)).collect();
    let size = bytes.len() / 200;
    for damaged in [1, 150] {
        bytes[damaged * size..damaged * size + 30].fill(0);
    }
    let epochs = epochs(&[(0, 0)]);
    let end = Offset::clamped(2_000);
    let known = Known { epochs: &epochs, newest_epoch: LeaderEpoch(0), reaches: end, end: Some(end) };
    let mut scan = scan(&bytes);
    for damaged in [1, 150] {
        scan.go_to(Place { position: (damaged * size) as u64, offset: Offset::clamped(damaged as i64 * 10) });
        let on = scan.find_way_on(&known).unwrap().unwrap();
        assert_eq!(on.position, ((damaged + 1) * size) as u64);
    }
}

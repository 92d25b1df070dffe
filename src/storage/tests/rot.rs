//! Bytes that are not what they were: what is lost is told by offset, everything else is served, and nothing is cut.

use super::hook_fs::{HookFs, Step};
use super::stepped::Stepped;
use super::*;

use std::sync::atomic::AtomicU64;

fn file_len(fixture: &Fixture, name: &str) -> u64 {
    std::fs::metadata(fixture.log_dir().join(name)).unwrap().len()
}

#[test]
fn whatever_byte_of_a_batch_has_rotted_that_batch_is_lost_and_no_other() {
    for (sealed, clean) in [(true, true), (false, true), (false, false)] {
        let mut fixture = Fixture::cold();
        fixture.spec.config.segment_bytes = if sealed { 30_000 } else { 1 << 30 };
        let open = fixture.create();
        open.fill(50, 100);
        open.settle();
        open.end(clean);
        let at = 7 * batch_bytes();
        // Every byte of the header, and some of the records.
        for byte in (0..record::HEADER_BYTES).chain([70, batch_bytes() - 1]) {
            change(&fixture, FIRST, |bytes| bytes[at + byte] ^= 0x11);
            let len = file_len(&fixture, FIRST);
            let open = fixture.reopen();
            assert_eq!(open.log.status().state, LogState::Online);
            open.assert_lost(500, &[(70, 79)]);
            let inside = open.log.read(Offset::clamped(75), 1).unwrap_err();
            assert!(matches!(inside, ReadError::DataLoss { .. }), "byte {byte}: {inside}");
            open.end(clean);
            assert_eq!(file_len(&fixture, FIRST), len, "byte {byte}: nothing is cut");
            change(&fixture, FIRST, |bytes| bytes[at + byte] ^= 0x11);
        }
        fixture.reopen().assert_numbered(0, 500);
    }
}

#[test]
fn of_a_damaged_block_only_the_bad_batches_are_lost() {
    const BLOCK: usize = 1 << 20;
    let mut fixture = Fixture::cold();
    fixture.spec.config.segment_bytes = 4 << 20;
    let open = fixture.create();
    open.fill(500, 1000);
    open.close();
    let size = batch(0, 10, 1000).len();
    // One in the second block, one over the border of the third, and a stretch of zeros.
    let (single, border) = ((BLOCK + 500) / size, 2 * BLOCK / size);
    let zeros = 3 * BLOCK / size + 5;
    change(&fixture, FIRST, |bytes| {
        bytes[BLOCK + 500] ^= 0x40;
        bytes[2 * BLOCK] ^= 1;
        bytes[zeros * size + 30..(zeros + 2) * size + 20].fill(0);
    });
    let lost = [(single, single), (border, border), (zeros, zeros + 2)]
        .map(|(first, last)| (first as i64 * 10, last as i64 * 10 + 9));
    for _ in 0..2 {
        let open = fixture.reopen();
        open.assert_lost(5000, &lost);
        open.close();
    }
}

#[test]
fn a_lost_range_is_not_searched_for_again() {
    let (fs, opened) = (HookFs::default(), Arc::new(AtomicU64::new(0)));
    let mut fixture = Fixture::cold();
    fixture.fs = Arc::new(fs.clone());
    fixture.spec.config.segment_bytes = 30_000;
    let open = fixture.create();
    open.fill(50, 100);
    open.close();
    change(&fixture, FIRST, |bytes| bytes[7 * batch_bytes() + 100] ^= 1);
    let open = fixture.reopen();
    open.log.read(Offset::clamped(75), 1).unwrap_err();
    let count = Arc::clone(&opened);
    fs.hook(move |step, path| {
        if step == Step::Open && path.ends_with(FIRST) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    for offset in 70..80 {
        open.log.read(Offset::clamped(offset), 1).unwrap_err();
    }
    assert_eq!(opened.load(Ordering::Relaxed), 0);
    assert_eq!(open.log.read(Offset::clamped(80), 1).unwrap().next_offset.get(), 90);
}

#[test]
fn a_record_that_holds_batches_is_not_taken_for_the_log() {
    let mut fixture = Fixture::cold();
    fixture.spec.config.segment_bytes = 100_000;
    let open = fixture.create();
    open.fill(5, 100);
    // What a mirror of another log may keep as one value: batches with offsets that this log has further on.
    let mut inner = Vec::new();
    for i in 0..5 {
        let mut batch = batch(0, 10, 100);
        record::set_position(&mut batch, Offset::clamped(60 + i * 10), crate::types::LeaderEpoch(0));
        inner.extend_from_slice(&batch);
    }
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for i in 0..10u64 {
        let value = [&(50 + i).to_be_bytes()[..], if i == 4 { &inner } else { b"" }].concat();
        builder.push(NOW_MS, None, Some(&value), []);
    }
    open.append(builder.build().unwrap()).unwrap();
    open.fill(200, 100);
    open.settle();
    open.close();
    // The length of the batch around them.
    change(&fixture, FIRST, |bytes| bytes[5 * batch_bytes() + 9] ^= 0x7f);
    fixture.reopen().assert_lost(2060, &[(50, 59)]);
}

#[test]
fn a_log_with_rot_in_its_active_segment_goes_on_and_the_loss_stays_told() {
    let mut fixture = Fixture::cold();
    fixture.spec.config.segment_bytes = 100_000;
    let open = fixture.create();
    open.fill(20, 100);
    open.crash();
    change(&fixture, FIRST, |bytes| bytes[5 * batch_bytes() + 90] ^= 1);
    for runs in 1..=8 {
        let open = fixture.reopen();
        open.fill(20, 100);
        open.assert_lost(200 + runs * 200, &[(50, 59)]);
        open.settle();
        open.end(runs % 2 == 0);
    }
    assert!(fixture.files("log").len() > 1, "it has been sealed, with its damage");
    let open = fixture.reopen();
    assert!(open.log.view.segments()[0].seal().is_some());
    open.assert_lost(1800, &[(50, 59)]);
}

#[test]
fn a_log_that_ends_below_what_was_durable_is_read_and_takes_no_writes() {
    type Change = fn(&mut Vec<u8>);
    let damages: [(Change, i64); 4] = [
        (|bytes| bytes.truncate(bytes.len() / 2), 50),
        (Vec::clear, 0),
        (|bytes| *bytes.last_mut().unwrap() ^= 1, 90),
        (|bytes| bytes.truncate(bytes.len() * 9 / 10), 90),
    ];
    for (damage, lost) in damages {
        let fixture = Fixture::cold();
        let open = fixture.create();
        open.fill(10, 100);
        open.crash();
        change(&fixture, FIRST, damage);
        let len = file_len(&fixture, FIRST);
        for clean in [true, false, false, true] {
            let open = fixture.reopen();
            assert!(matches!(open.log.status().state, LogState::ReadOnly { .. }));
            open.assert_lost(100, &[(lost, 99)]);
            let refused = open.append(batch(100, 1, 10)).unwrap_err();
            assert!(matches!(refused, AppendError::Sealed { .. }), "{refused}");
            open.end(clean);
            assert_eq!(file_len(&fixture, FIRST), len);
        }
    }
}

#[test]
fn a_log_cut_after_an_orderly_end_is_not_an_empty_log() {
    let fixture = Fixture::cold();
    let open = fixture.create();
    open.fill(10, 100);
    open.close();
    change(&fixture, FIRST, Vec::clear);
    let open = fixture.reopen();
    assert!(matches!(open.log.status().state, LogState::ReadOnly { .. }));
    open.assert_lost(100, &[(0, 99)]);
}

#[test]
fn a_sealed_segment_that_was_cut_or_grew_serves_what_it_has() {
    let mut fixture = Fixture::cold();
    fixture.spec.config.segment_bytes = 30_000;
    let open = fixture.create();
    open.fill(50, 100);
    open.close();
    let next: i64 = fixture.files("log")[1][..20].parse().unwrap();
    let whole = std::fs::read(fixture.log_dir().join(FIRST)).unwrap();
    for (len, first) in [(10 * batch_bytes(), 100), (10 * batch_bytes() + 30, 100), (0, 0)] {
        change(&fixture, FIRST, |bytes| bytes.truncate(len));
        let open = fixture.reopen();
        open.assert_lost(500, &[(first, next - 1)]);
        open.close();
        change(&fixture, FIRST, |bytes| whole.clone_into(bytes));
    }
    change(&fixture, FIRST, |bytes| bytes.resize(bytes.len() + 10_000, 0));
    fixture.reopen().assert_numbered(0, 500);
}

/// A crash that leaves behind the durable end a batch that is bad, and whole ones to `beyond_bytes` behind it.
pub(super) fn bad_and_then_good(durability: Durability, beyond_bytes: usize) -> (Fixture, i64) {
    let mut fixture = Fixture::cold();
    fixture.config.max_group_bytes = 64 << 10;
    fixture.spec.config.durability = durability;
    let open = fixture.create();
    open.fill(10, 100);
    open.close();
    // The next start is as after a crash.
    let (store, _log) = fixture.try_reopen();
    drop(store);
    let mut end = 100;
    change(&fixture, FIRST, |bytes| {
        let bad = bytes.len();
        loop {
            let mut batch = batch(end as u64, 10, 100);
            record::set_position(&mut batch, Offset::clamped(end), crate::types::LeaderEpoch(0));
            end += 10;
            bytes.extend_from_slice(&batch);
            if bytes.len() - batch.len() - bad >= beyond_bytes {
                break;
            }
        }
        bytes[bad + 200] ^= 1;
    });
    (fixture, end)
}

#[test]
fn intact_batches_further_than_a_group_behind_a_bad_one_prove_rot() {
    let (fixture, end) = bad_and_then_good(Durability::Fsync, 64 << 10);
    let open = fixture.reopen();
    open.assert_lost(end, &[(100, 109)]);
    assert_eq!(fixture.files("torn"), [""; 0]);
    assert_eq!(open.append(batch(end as u64, 10, 100)).unwrap().get(), end);
    open.assert_lost(end + 10, &[(100, 109)]);
}

#[test]
fn within_a_group_or_where_nothing_is_synced_a_bad_batch_is_torn_with_what_follows() {
    for (durability, beyond) in [(Durability::Fsync, 60 << 10), (Durability::Os, 200 << 10)] {
        let (fixture, _) = bad_and_then_good(durability, beyond);
        let open = fixture.reopen();
        open.assert_numbered(0, 100);
        assert_eq!(fixture.files("torn").len(), 1);
        open.fill(1, 100);
        open.assert_numbered(0, 110);
    }
}

#[test]
fn rot_and_a_torn_tail_are_told_apart_in_one_segment() {
    let fixture = Fixture::cold();
    let open = fixture.create();
    open.fill(50, 100);
    open.crash();
    change(&fixture, FIRST, |bytes| {
        bytes[20 * batch_bytes() + 10] ^= 1;
        bytes.extend_from_slice(&batch(500, 10, 100)[..700]);
    });
    let open = fixture.reopen();
    open.assert_lost(500, &[(200, 209)]);
    assert_eq!(file_len(&fixture, FIRST), 50 * batch_bytes() as u64);
    assert_eq!(fixture.files("torn").len(), 1);
}

#[test]
fn an_offset_that_has_rotted_is_not_believed_behind_a_batch_that_has() {
    let fixture = Fixture::cold();
    let open = fixture.create();
    open.fill(20, 100);
    open.crash();
    // The length of the last but one, and the offset of the last.
    change(&fixture, FIRST, |bytes| {
        bytes[18 * batch_bytes() + 9] ^= 0x10;
        bytes[19 * batch_bytes() + 4] ^= 0x10;
    });
    for _ in 0..2 {
        let open = fixture.reopen();
        open.assert_lost(200, &[(180, 199)]);
        open.crash();
    }
}

#[test]
fn what_has_rotted_at_the_end_of_a_segment_that_is_not_sealed_yet_is_not_all_that_comes_after_it() {
    let mut fixture = Fixture::cold();
    fixture.spec.config.segment_bytes = 3_000;
    let mut log = Stepped::new(&fixture);
    log.fill(40);
    assert_eq!(fixture.files("log").len(), 2);
    let len = file_len(&fixture, FIRST) as usize;
    assert_eq!(len, 2 * batch_bytes());
    change(&fixture, FIRST, |bytes| bytes[len - 1] ^= 0x11);
    log.open.assert_lost(40, &[(10, 19)]);
}

#[test]
fn a_segment_that_was_cut_between_batches_before_it_was_sealed_is_lost_up_to_the_next() {
    let mut fixture = Fixture::cold();
    fixture.spec.config.segment_bytes = 8_000;
    Stepped::new(&fixture).fill(200);
    let names = fixture.files("log");
    assert!(names.len() > 3);
    let second: i64 = names[1][..20].parse().unwrap();
    let third: i64 = names[2][..20].parse().unwrap();
    change(&fixture, &names[1], |bytes| bytes.truncate(2 * batch_bytes()));
    for is_orderly in [false, true, true] {
        let open = fixture.reopen();
        assert_eq!(open.log.status().state, LogState::Online);
        open.assert_lost(200, &[(second + 20, third - 1)]);
        open.settle();
        open.end(is_orderly);
    }
}

#[test]
fn what_the_disk_cannot_read_of_the_active_segment_is_lost_as_long_as_it_cannot() {
    const PAGE: usize = 4096;
    for at in [20 * batch_bytes() + 10, 0, 50 * batch_bytes() - 1] {
        let fs = HookFs::default();
        let mut fixture = Fixture::cold();
        fixture.fs = Arc::new(fs.clone());
        let open = fixture.create();
        open.fill(50, 100);
        open.crash();
        let len = file_len(&fixture, FIRST);
        let (start, end) = (at / PAGE * PAGE, ((at / PAGE + 1) * PAGE).min(len as usize));
        fs.set_unreadable(start as u64..end as u64);
        let lost = ((start / batch_bytes() * 10) as i64, ((end - 1) / batch_bytes() * 10 + 9) as i64);
        for is_orderly in [false, true] {
            let open = fixture.reopen();
            assert!(matches!(open.log.status().state, LogState::ReadOnly { .. }));
            open.assert_lost(500, &[lost]);
            open.end(is_orderly);
            assert_eq!(file_len(&fixture, FIRST), len, "nothing is cut");
        }
        fs.set_unreadable(0..0);
        let open = fixture.reopen();
        assert_eq!(open.log.status().state, LogState::Online);
        open.assert_numbered(0, 500);
    }
}

#[test]
fn what_the_disk_cannot_read_is_not_taken_for_torn() {
    for (durability, beyond_bytes) in [(Durability::Fsync, 20 << 10), (Durability::Os, 100 << 10)] {
        let (mut fixture, end) = bad_and_then_good(durability, beyond_bytes);
        let fs = HookFs::default();
        fixture.fs = Arc::new(fs.clone());
        let (len, bad) = (file_len(&fixture, FIRST), 10 * batch_bytes() as u64);
        fs.set_unreadable(bad..bad.next_multiple_of(4096));
        let open = fixture.reopen();
        assert!(matches!(open.log.status().state, LogState::ReadOnly { .. }));
        let (records, lost) = open.read_around(0);
        assert!(
            matches!(lost[..], [(first, last)] if first <= 100 && 109 <= last && last < end - 10),
            "{lost:?}"
        );
        assert_eq!(records.last(), Some(&(end - 1, end as u64 - 1)));
        assert_eq!(file_len(&fixture, FIRST), len);
        assert_eq!(fixture.files("torn"), [""; 0]);
    }
}

#[test]
fn a_segment_that_was_rolled_is_served_around_what_the_disk_cannot_read() {
    let fs = HookFs::default();
    let mut fixture = Fixture::cold();
    fixture.fs = Arc::new(fs.clone());
    fixture.spec.config.segment_bytes = 8_000;
    Stepped::new(&fixture).fill(200);
    let last = file_len(&fixture, fixture.files("log").last().unwrap());
    // Beyond the end of the last one.
    assert!(last < 4_096 && file_len(&fixture, FIRST) > 5_000);
    fs.set_unreadable(4_096..8_192);
    let open = fixture.reopen();
    assert_eq!(open.log.status().state, LogState::Online);
    let (records, lost) = open.read_around(0);
    assert!(!lost.is_empty() && records.len() >= 100, "{lost:?}");
    open.crash();
    fs.set_unreadable(0..0);
    fixture.reopen().assert_numbered(0, 200);
}

#[test]
fn a_timestamp_is_not_looked_for_where_all_has_been_deleted_and_the_rest_has_rotted() {
    let fixture = Fixture::cold();
    let open = fixture.create();
    open.fill(5, 100);
    open.delete_records(50).unwrap();
    change(&fixture, FIRST, |bytes| bytes[4 * batch_bytes() + 100] ^= 0x11);
    assert!(open.log.find_timestamp(NOW_MS, 1 << 20).unwrap().is_none());
}

//! What a log is after an orderly end, after a crash, and after damage.

use super::*;

#[test]
fn after_an_orderly_end_nothing_is_scanned() {
    let mut fixture = Fixture::new();
    fixture.spec.config.segment_bytes = 30_000;
    let open = fixture.create();
    open.fill(100, 100);
    open.close();
    let open = fixture.reopen();
    assert!(open.store.was_clean());
    assert_eq!(open.store.stats().recovered_logs, 0);
    assert_eq!(open.store.leader_epoch().0, 0);
    open.assert_numbered(0, 1000);
    open.fill(100, 100);
    open.close();
    fixture.reopen().assert_numbered(0, 2000);
}

#[test]
fn after_a_crash_the_log_is_scanned_and_goes_on_under_a_new_epoch() {
    let mut fixture = Fixture::new();
    fixture.spec.config.segment_bytes = 30_000;
    let open = fixture.create();
    open.fill(100, 100);
    open.crash();
    let open = fixture.reopen();
    assert!(!open.store.was_clean());
    assert_eq!(open.store.stats().recovered_logs, 1);
    assert_eq!(open.store.leader_epoch().0, 1);
    open.assert_numbered(0, 1000);
    open.fill(100, 100);
    let read = open.log.read(Offset::clamped(1000), 1).unwrap();
    let epoch = record::batches(&read.chunks[0]).next().unwrap().unwrap().leader_epoch();
    assert_eq!(epoch.0, 1);
    open.crash();
    fixture.reopen().assert_numbered(0, 2000);
}

#[test]
fn a_crash_leaves_only_what_came_after_the_checkpoint_to_scan() {
    let mut fixture = Fixture::new();
    fixture.config.checkpoint_interval_ms = 100;
    fixture.config.tail_cache_bytes = 0;
    let open = fixture.create();
    open.fill(200, 1000);
    // The next checkpoints are written by a thread on its own time: wait for one that has it all.
    let covers_all = || {
        let written = checkpoint::Checkpoint::read(&RealFs, fixture.dir.path()).unwrap();
        written.is_some_and(|it| it.logs.values().all(|log| log.recovery_point.mark.offset.get() == 2000))
    };
    let index_in_memory = || {
        let segments = open.log.view.segments();
        segments.iter().map(|segment| segment.index().read().offsets.recent().len()).sum::<usize>()
    };
    while !covers_all() || index_in_memory() > 0 {
        std::thread::yield_now();
    }
    open.assert_numbered(1234, 2000);
    open.fill(1, 1000);
    open.assert_numbered(1234, 2010);
    open.crash();
    let open = fixture.reopen();
    assert!(open.store.stats().recovered_bytes < 100_000, "of 2 MB");
    open.assert_numbered(0, 2010);
}

/// Changes a file of the log's directory.
fn change(fixture: &Fixture, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path = fixture.log_dir().join(name);
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

const FIRST: &str = "00000000000000000000.log";

/// A crash that leaves a tail behind the durable end.
fn torn(tail: &[u8]) -> (Fixture, Open) {
    let fixture = Fixture::new();
    let open = fixture.create();
    open.fill(10, 100);
    open.crash();
    change(&fixture, FIRST, |bytes| bytes.extend_from_slice(tail));
    let open = fixture.reopen();
    (fixture, open)
}

#[test]
fn a_torn_tail_is_cut_and_kept_aside() {
    let whole = batch(100, 10, 100);
    for tail in [&whole[..whole.len() - 1], &whole[..30], &[0; 4096], b"rubbish"] {
        let (fixture, open) = torn(tail);
        assert_eq!(open.log.durable_offset(), Offset::clamped(100));
        let kept = std::fs::read(fixture.log_dir().join("00000000000000000000.torn")).unwrap();
        assert_eq!(kept, tail);
        open.fill(10, 100);
        open.assert_numbered(0, 200);
        open.crash();
        fixture.reopen().assert_numbered(0, 200);
    }
}

#[test]
fn a_whole_batch_behind_the_durable_end_is_kept() {
    let mut tail = batch(100, 10, 100);
    record::set_position(&mut tail, Offset::clamped(100), crate::types::LeaderEpoch(0));
    let (_fixture, open) = torn(&tail);
    open.assert_numbered(0, 110);
}

#[test]
fn damage_below_what_was_durable_fences_the_log_and_cuts_nothing() {
    let fixture = Fixture::new();
    let open = fixture.create();
    open.fill(10, 100);
    open.crash();
    let before = std::fs::metadata(fixture.log_dir().join(FIRST)).unwrap().len();
    change(&fixture, FIRST, |bytes| bytes[3000] ^= 1);
    let (_store, log) = fixture.try_reopen();
    assert!(matches!(log, Err(OpenLogError::Damaged { .. })), "{log:?}");
    assert_eq!(std::fs::metadata(fixture.log_dir().join(FIRST)).unwrap().len(), before);
}

#[test]
fn a_log_that_ends_below_what_was_durable_is_fenced() {
    let fixture = Fixture::new();
    let open = fixture.create();
    open.fill(10, 100);
    open.close();
    change(&fixture, FIRST, |bytes| bytes.truncate(bytes.len() / 2));
    assert!(matches!(fixture.try_reopen().1, Err(OpenLogError::Damaged { .. })));
    change(&fixture, FIRST, Vec::clear);
    assert!(matches!(fixture.try_reopen().1, Err(OpenLogError::Damaged { .. })));
}

#[test]
fn missing_files_and_directories_are_told() {
    let mut fixture = Fixture::new();
    fixture.spec.config.segment_bytes = 10_000;
    let open = fixture.create();
    open.fill(100, 100);
    open.close();
    let names = fixture.files("log");
    for name in [&names[0], &names[3], &names[names.len() - 1], &"seals".to_owned(), &"topic-id".to_owned()] {
        let path = fixture.log_dir().join(name);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (store, log) = fixture.try_reopen();
        assert!(matches!(log, Err(OpenLogError::Damaged { .. })), "{name}: {log:?}");
        store.close().unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    fixture.reopen().assert_numbered(0, 1000);
    std::fs::rename(fixture.log_dir(), fixture.dir.path().join("elsewhere")).unwrap();
    let (_store, log) = fixture.try_reopen();
    assert!(matches!(log, Err(OpenLogError::Missing { .. })), "{log:?}");
}

#[test]
fn a_directory_of_another_topic_is_not_adopted() {
    let mut fixture = Fixture::new();
    fixture.create().close();
    fixture.spec.topic_id = TopicId::from_bytes([9; 16]);
    assert!(matches!(fixture.try_reopen().1, Err(OpenLogError::WrongTopic { .. })));
}

#[test]
fn indexes_are_hints_and_damaged_ones_are_made_anew() {
    let mut fixture = Fixture::new();
    fixture.config.tail_cache_bytes = 0;
    fixture.config.index_interval_bytes = 1 << 10;
    fixture.spec.config.segment_bytes = 100_000;
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
fn rot_in_a_sealed_segment_is_told_by_offset_and_the_rest_is_served() {
    let mut fixture = Fixture::new();
    fixture.config.tail_cache_bytes = 0;
    fixture.spec.config.segment_bytes = 20_000;
    let open = fixture.create();
    open.fill(100, 100);
    open.close();
    let name = fixture.files("log")[1].clone();
    change(&fixture, &name, |bytes| bytes[700] ^= 0x40);
    let open = fixture.reopen();
    let base: i64 = name[..20].parse().unwrap();
    let next: i64 = fixture.files("log")[2][..20].parse().unwrap();
    let Err(ReadError::DataLoss { first, last, .. }) = open.log.read(Offset::clamped(base), 1) else {
        panic!("rot was served");
    };
    assert_eq!((first.get(), last.get()), (base, next - 1));
    assert_eq!(open.log.read(Offset::ZERO, 1 << 20).unwrap().next_offset.get(), base);
    open.assert_numbered(next, 1000);
    open.fill(1, 100);
}

#[test]
fn rot_does_not_keep_good_batches_before_it_from_a_large_read() {
    const BLOCK: usize = 1 << 20;
    let mut fixture = Fixture::new();
    fixture.config.tail_cache_bytes = 0;
    fixture.spec.config.segment_bytes = 4 << 20;
    let open = fixture.create();
    open.fill(500, 1000);
    open.close();
    change(&fixture, FIRST, |bytes| bytes[2 * BLOCK + 500] ^= 0x40);
    let open = fixture.reopen();
    let (mut next, mut good_bytes) = (Offset::ZERO, 0);
    let error = loop {
        match open.log.read(next, 64 << 20) {
            Ok(read) => (next, good_bytes) = (read.next_offset, good_bytes + read.size_bytes as usize),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ReadError::DataLoss { first, .. } if first == next), "{error}");
    assert!(good_bytes > 2 * BLOCK - 20_000, "{good_bytes} bytes before the bad block were served");
}

#[test]
fn a_damaged_checkpoint_is_replaced_by_the_one_before() {
    let fixture = Fixture::new();
    let open = fixture.create();
    open.fill(10, 100);
    open.close();
    let path = fixture.dir.path().join("checkpoint");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let open = fixture.reopen();
    assert!(!open.store.was_clean());
    assert!(open.store.leader_epoch().0 > 0);
    open.assert_numbered(0, 100);
}

#[test]
fn a_lost_checkpoint_is_replaced_by_the_one_before() {
    let fixture = Fixture::new();
    let open = fixture.create();
    open.fill(10, 100);
    open.delete_records(15).unwrap();
    open.delete_records(25).unwrap();
    open.crash();
    std::fs::remove_file(fixture.dir.path().join("checkpoint")).unwrap();
    let open = fixture.reopen();
    assert!(open.store.leader_epoch().0 > 0);
    assert_eq!(open.log.log_start_offset(), Offset::clamped(15));
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
}

#[test]
fn what_no_topic_knows_is_set_aside_and_deletions_are_finished() {
    let fixture = Fixture::new();
    fixture.create().close();
    std::fs::create_dir_all(fixture.dir.path().join("stray-0")).unwrap();
    std::fs::create_dir_all(fixture.dir.path().join(".deleted/x-0")).unwrap();
    let open = fixture.reopen();
    open.settle();
    assert!(!fixture.dir.path().join("stray-0").exists());
    assert!(fixture.dir.path().join(format!(".set-aside/{NOW_MS}/stray-0")).exists());
    assert!(!fixture.dir.path().join(".deleted/x-0").exists());
    assert!(fixture.log_dir().exists());
}

#[test]
fn many_logs_are_opened_together() {
    let fixture = Fixture::new();
    let store = fixture.store();
    store.start().unwrap();
    let specs: Vec<LogSpec> =
        PartitionId::all(50).map(|partition| LogSpec { partition, ..fixture.spec.clone() }).collect();
    let logs = store.create_logs(&specs).unwrap();
    let (sender, outcomes) = channel();
    for (i, log) in logs.iter().enumerate() {
        for _ in 0..=i {
            let sender = sender.clone();
            let done: AppendDone = Box::new(move |result| drop(sender.send(result)));
            log.append(Append { batch: batch(0, 1, 100), expected_offset: None, done });
        }
    }
    drop(sender);
    assert!(outcomes.iter().all(|outcome| outcome.is_ok()));
    drop((store, logs));
    let store = fixture.store();
    for (i, log) in store.open_logs(&specs).into_iter().enumerate() {
        assert_eq!(log.unwrap().durable_offset().get(), i as i64 + 1);
    }
}

#[test]
fn a_time_index_that_is_wrong_does_not_hide_records() {
    let mut fixture = Fixture::new();
    fixture.config.index_interval_bytes = 1 << 10;
    fixture.spec.config.segment_bytes = 20_000;
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

//! What a log is after an orderly end, after a crash, and after damage.

use super::hook_fs::{Step, hooked};
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
        written.is_some_and(|it| it.logs.values().any(|log| log.recovery_point.mark.offset.get() == 2000))
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
        let kept = std::fs::read(fixture.log_dir().join("00000000000000000000.1.torn")).unwrap();
        assert_eq!(kept, tail);
        open.fill(10, 100);
        open.assert_numbered(0, 200);
        open.crash();
        fixture.reopen().assert_numbered(0, 200);
    }
}

#[test]
fn files_that_were_made_longer_with_zeros_have_no_more_in_them() {
    for extended in [&["log"][..], &["index", "timeindex"], &["log", "index", "timeindex"]] {
        let fixture = Fixture::new();
        let open = fixture.create();
        open.fill(50, 1000);
        open.crash();
        for extension in extended {
            let path = fixture.log_dir().join(format!("00000000000000000000.{extension}"));
            let file =
                std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() + (1 << 20)).unwrap();
        }
        let open = fixture.reopen();
        open.assert_numbered(0, 500);
        open.fill(10, 100);
        open.assert_numbered(0, 600);
        open.crash();
        fixture.reopen().assert_numbered(0, 600);
    }
}

#[test]
fn a_torn_tail_that_cannot_be_copied_is_not_cut_and_leaves_no_half_copy() {
    let (mut fixture, fs) = hooked();
    let open = fixture.create();
    open.fill(10, 100);
    open.crash();
    change(&fixture, FIRST, |bytes| bytes.extend(b"rubbish"));
    let before = std::fs::read(fixture.log_dir().join(FIRST)).unwrap();
    for failing in [Step::Write, Step::Sync] {
        fs.hook(move |step, path| {
            let is_it = step == failing && path.extension().is_some_and(|extension| extension == "torn");
            if is_it { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        });
        let (_store, log) = fixture.try_reopen();
        assert!(matches!(log, Err(OpenLogError::Io { .. })), "{log:?}");
        assert_eq!(std::fs::read(fixture.log_dir().join(FIRST)).unwrap(), before);
        assert_eq!(fixture.files("torn"), [""; 0]);
    }
    fixture.fs = Arc::new(RealFs);
    fixture.reopen().assert_numbered(0, 100);
    assert_eq!(fixture.files("torn").len(), 1);
}

#[test]
fn a_whole_batch_behind_the_durable_end_is_kept() {
    let mut tail = batch(100, 10, 100);
    record::set_position(&mut tail, Offset::clamped(100), crate::types::LeaderEpoch(0));
    let (_fixture, open) = torn(&tail);
    open.assert_numbered(0, 110);
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
fn a_topic_id_that_is_damaged_in_one_place_is_replaced() {
    let fixture = Fixture::new();
    let open = fixture.create();
    open.fill(10, 100);
    open.close();
    let good = std::fs::read(fixture.log_dir().join("topic-id")).unwrap();
    for at in [0, 5, 13, 20, 35] {
        change(&fixture, "topic-id", |bytes| bytes[at] ^= 0x10);
        let open = fixture.reopen();
        open.assert_numbered(0, 100);
        assert_eq!(std::fs::read(fixture.log_dir().join("topic-id")).unwrap(), good);
        open.close();
    }
    // Of what is left of it, nothing says whose it is.
    for rubbish in [&b""[..], b"rubbish", &[0; 36]] {
        std::fs::write(fixture.log_dir().join("topic-id"), rubbish).unwrap();
        let (_store, log) = fixture.try_reopen();
        assert!(matches!(log, Err(OpenLogError::Damaged { .. })), "{log:?}");
        assert_eq!(std::fs::read(fixture.log_dir().join("topic-id")).unwrap(), rubbish);
    }
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
fn a_lone_checkpoint_that_is_lost_or_damaged_does_not_stop_the_start() {
    for damage in [None, Some(b"rubbish")] {
        let fixture = Fixture::new();
        let open = fixture.create();
        open.fill(10, 100);
        open.crash();
        let path = fixture.dir.path().join("checkpoint");
        assert!(!fixture.dir.path().join("checkpoint.old").exists());
        match damage {
            Some(bytes) => std::fs::write(path, bytes).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        let open = fixture.reopen();
        assert!(!open.store.was_clean());
        assert_eq!(open.store.leader_epoch().0, 1, "raised, as after any end that was not orderly");
        open.assert_numbered(0, 100);
    }
}

#[test]
fn with_both_checkpoints_lost_no_batch_is_taken_for_damaged_by_its_epoch() {
    for (durability, segment_bytes) in [(Durability::Fsync, 1 << 30), (Durability::Os, 10_000)] {
        let mut fixture = Fixture::new();
        fixture.config.tail_cache_bytes = 0;
        fixture.spec.config = LogConfig { durability, segment_bytes, ..fixture.spec.config };
        fixture.create().crash();
        for _ in 0..4 {
            let open = fixture.reopen();
            open.fill(20, 100);
            open.crash();
        }
        for name in ["checkpoint", "checkpoint.old"] {
            std::fs::remove_file(fixture.dir.path().join(name)).unwrap();
        }
        let open = fixture.reopen();
        assert!(!open.store.was_clean());
        assert_eq!(open.store.leader_epoch().0, 5, "raised, as after any end that was not orderly");
        open.assert_numbered(0, 800);
        open.fill(1, 100);
        open.crash();
        fixture.reopen().assert_numbered(0, 810);
    }
}

#[test]
fn lost_leader_epochs_are_found_again_in_the_batches() {
    let mut fixture = Fixture::new();
    fixture.spec.config.segment_bytes = 10_000;
    fixture.create().close();
    for _ in 0..3 {
        let open = fixture.reopen();
        // Epochs begin in the middle of a segment, and go on over several.
        open.fill(35, 100);
        open.settle();
        open.crash();
    }
    fixture.reopen().close();
    let path = fixture.log_dir().join("leader-epochs");
    let good = std::fs::read(&path).unwrap();
    for damage in [None, Some(&b""[..]), Some(b"rubbish")] {
        match damage {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let open = fixture.reopen();
        open.assert_numbered(0, 1050);
        open.close();
        assert_eq!(std::fs::read(&path).unwrap(), good);
    }
}

#[test]
fn an_epoch_that_begins_in_a_segment_sealed_since_the_checkpoint_is_not_forgotten() {
    let mut fixture = Fixture::new();
    fixture.spec.config.segment_bytes = 10_000;
    let open = fixture.create();
    open.fill(10, 100);
    open.crash();
    let open = fixture.reopen();
    open.fill(50, 100);
    open.settle();
    open.crash();
    let open = fixture.reopen();
    let epoch = |offset| open.log.view.epochs.lock().at(Offset::clamped(offset)).unwrap().0;
    assert_eq!([0, 99, 100, 599].map(epoch), [0, 0, 1, 1]);
}

#[test]
fn the_last_copies_of_torn_tails_are_kept() {
    let fixture = Fixture::new();
    fixture.create().crash();
    for number in 1..=6u8 {
        change(&fixture, FIRST, |bytes| bytes.extend_from_slice(&[number; 100]));
        let open = fixture.reopen();
        open.fill(1, 100);
        open.crash();
    }
    let kept: Vec<u8> = fixture
        .files("torn")
        .iter()
        .map(|name| std::fs::read(fixture.log_dir().join(name)).unwrap())
        .map(|bytes| bytes[0])
        .collect();
    assert_eq!(kept, [3, 4, 5, 6]);
    fixture.reopen().assert_numbered(0, 60);
}

#[test]
fn a_tail_larger_than_what_is_read_at_a_time_is_kept_whole() {
    let tail: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let (fixture, open) = torn(&tail);
    open.assert_numbered(0, 100);
    let kept = std::fs::read(fixture.log_dir().join("00000000000000000000.1.torn")).unwrap();
    assert!(kept == tail);
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
    let specs = fixture.specs(50);
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

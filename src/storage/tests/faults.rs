//! A disk that fails: what was acknowledged stays, what was not is taken back, and the log says what it can do.

use std::path::PathBuf;

use super::hook_fs::{Step, hooked};
use super::*;

const FIRST_LOG: &str = "00000000000000000000.log";

#[test]
fn a_full_disk_fails_the_append_and_the_log_goes_on_when_there_is_room() {
    let (fixture, fs) = hooked();
    let open = fixture.create();
    open.fill(5, 100);
    // Room for a part of the batch: what is written of it must not survive.
    fs.set_log_room(Some(500));
    for _ in 0..3 {
        let error = open.append(batch(999, 10, 100)).unwrap_err();
        assert!(matches!(error, AppendError::NoSpace { .. }), "{error}");
    }
    open.assert_numbered(0, 50);
    assert_eq!(open.log.status().log_end_offset, Offset::clamped(50));
    fs.set_log_room(None);
    open.fill(5, 100);
    open.assert_numbered(0, 100);
    open.crash();
    fixture.reopen().assert_numbered(0, 100);
}

#[test]
fn a_failed_write_is_cut_off_before_the_next_one() {
    let (fixture, fs) = hooked();
    let open = fixture.create();
    open.fill(1, 100);
    let size = batch(0, 10, 100).len() as u64;
    // What is left of the failed write must not be taken for what follows a later, shorter one.
    fs.set_log_room(Some(2 * size));
    let error = open.append(batch(666, 100, 100)).unwrap_err();
    assert!(matches!(error, AppendError::NoSpace { .. }));
    fs.set_log_room(None);
    let len = std::fs::metadata(fixture.log_dir().join(FIRST_LOG)).unwrap().len();
    assert_eq!(len, size);
    open.fill(1, 100);
    open.crash();
    fixture.reopen().assert_numbered(0, 20);
}

#[test]
fn a_failed_write_that_cannot_be_undone_ends_writing() {
    let (fixture, fs) = hooked();
    let open = fixture.create();
    open.fill(5, 100);
    fs.set_log_room(Some(100));
    fs.fail_log(Step::Cut, io::ErrorKind::Other);
    open.append(batch(0, 10, 100)).unwrap_err();
    fs.set_log_room(None);
    assert!(matches!(open.append(batch(0, 10, 100)), Err(AppendError::Sealed { .. })));
    assert!(matches!(open.log.status().state, LogState::ReadOnly { .. }));
    open.assert_numbered(0, 50);
}

#[test]
fn a_failed_sync_is_final_and_what_was_durable_is_still_read() {
    let (fixture, fs) = hooked();
    let open = fixture.create();
    open.fill(5, 100);
    fs.fail_log(Step::Sync, io::ErrorKind::Other);
    let error = open.append(batch(0, 10, 100)).unwrap_err();
    assert!(matches!(error, AppendError::Sealed { .. }), "{error}");
    fs.heal();
    assert!(
        matches!(open.append(batch(0, 10, 100)), Err(AppendError::Sealed { .. })),
        "never retried as success"
    );
    assert_eq!(open.log.durable_offset(), Offset::clamped(50));
    assert!(matches!(open.log.read(Offset::clamped(51), 1), Err(ReadError::OutOfRange { .. })));
    assert_eq!(open.store.stats().read_only_logs, 1);
    open.assert_numbered(0, 50);
}

#[test]
fn a_roll_that_finds_no_room_leaves_the_log_as_it_was() {
    let (mut fixture, fs) = hooked();
    fixture.spec.config.segment_bytes = 10_000;
    let open = fixture.create();
    open.fill(5, 100);
    fs.fail_log(Step::Create, io::ErrorKind::StorageFull);
    let refused = (0..20).filter(|i| open.append(batch(50 + i * 10, 10, 100)).is_err()).count();
    assert!(refused > 0);
    assert_eq!(fixture.files("log").len(), 1);
    let end = open.log.durable_offset().get();
    open.assert_numbered(0, end);
    fs.heal();
    open.fill(10, 100);
    assert!(fixture.files("log").len() > 1);
    open.assert_numbered(0, end + 100);
}

#[test]
fn a_store_on_a_missing_parent_that_cannot_be_made_says_which() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOW_MS));
    let file = tempfile::NamedTempFile::new().unwrap();
    let dir: PathBuf = file.path().join("data");
    let error = Store::open(&dir, &StorageConfig::default(), clock).unwrap_err();
    assert!(error.to_string().contains(&dir.display().to_string()), "{error}");
}

#[test]
fn an_append_that_was_refused_does_not_come_back_after_a_power_cut() {
    let (fixture, fs) = hooked();
    let open = fixture.create();
    open.fill(5, 100);
    let synced = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let heard = Arc::clone(&synced);
    let len = move |path: &Path| std::fs::metadata(path).map(|metadata| metadata.len()).unwrap_or_default();
    let before = len(&fixture.log_dir().join(FIRST_LOG));
    fs.hook(move |step, path| {
        if step == Step::Sync && path.ends_with(FIRST_LOG) {
            heard.lock().push(len(path));
        }
        Ok(())
    });
    // All of the first batch of the group is written, and a part of the second one.
    fs.set_log_room(Some(batch(0, 10, 100).len() as u64 + 100));
    open.append(batch(50, 30, 100)).unwrap_err();
    assert_eq!(*synced.lock(), [before], "it is cut off on the disk before it is refused");
    // What wrote nothing needs no sync.
    fs.set_log_room(Some(0));
    open.append(batch(50, 30, 100)).unwrap_err();
    assert_eq!(synced.lock().len(), 1);
}

#[test]
fn a_write_error_is_taken_back_and_the_next_append_works() {
    let (fixture, fs) = hooked();
    let open = fixture.create();
    open.fill(5, 100);
    fs.fail_log(Step::Write, io::ErrorKind::Other);
    let error = open.append(batch(999, 10, 100)).unwrap_err();
    assert!(matches!(error, AppendError::Write { .. }), "{error}");
    assert_eq!(open.log.status().state, LogState::Online);
    fs.heal();
    open.fill(5, 100);
    open.crash();
    fixture.reopen().assert_numbered(0, 100);
}

#[test]
fn a_panic_of_upkeep_costs_the_partition_it_was_about_and_is_told() {
    let (mut fixture, fs) = hooked();
    fixture.spec.config.segment_bytes = 10_000;
    let store = fixture.store();
    store.start().unwrap();
    let specs = fixture.specs(2);
    let mut logs = store.create_logs(&specs).unwrap();
    let (second, first) = (logs.remove(1), logs.remove(0));
    let open = Open { store, log: first };
    fs.hook(|step, path| {
        assert!(step != Step::Open || !path.ends_with("orders-0/seals.tmp"), "a bug");
        Ok(())
    });
    while open.append(batch(0, 10, 100)).is_ok() {}
    open.settle();
    let LogState::ReadOnly { reason } = open.log.status().state else { panic!("it takes writes") };
    assert!(reason.contains("panicked"), "{reason}");
    assert!(open.store.stats().upkeep_panics > 0);
    assert_eq!(open.store.stats().read_only_logs, 1);
    // A panic in the middle of a deletion is answered.
    fs.hook(|step, path| {
        assert!(step != Step::Open || !path.ends_with("checkpoint.tmp"), "a bug");
        Ok(())
    });
    let error = open.delete_records(10).unwrap_err();
    assert!(matches!(error, LogError::Sealed { .. }), "{error}");
    fs.heal();
    // The other one goes on, with all that upkeep does for it.
    let other = Open { store: open.store, log: second };
    other.fill(50, 100);
    other.settle();
    let segments = other.log.view.segments();
    assert!(segments.len() > 3 && segments[..segments.len() - 1].iter().all(|one| one.seal().is_some()));
    assert_eq!(other.delete_records(10).unwrap().get(), 10);
    other.assert_numbered(10, 500);
    drop((open.log, other));
    // And the next start has all of the first one sealed.
    let open = fixture.reopen();
    assert_eq!(open.log.status().state, LogState::Online);
    open.settle();
    let segments = open.log.view.segments();
    assert!(segments[..segments.len() - 1].iter().all(|one| one.seal().is_some()));
}

#[test]
fn a_panic_while_a_partition_is_flushed_does_not_end_the_checkpoints_of_others() {
    let (mut fixture, fs) = hooked();
    fixture.config.checkpoint_interval_ms = 10;
    let store = fixture.store();
    store.start().unwrap();
    let specs = fixture.specs(2);
    let mut logs = store.create_logs(&specs).unwrap();
    let (second, first) = (logs.remove(1), logs.remove(0));
    let open = Open { store, log: first };
    open.fill(1, 100);
    fs.hook(|step, path| {
        assert!(step != Step::Open || !path.ends_with("orders-0/00000000000000000000.index"), "a bug");
        Ok(())
    });
    while open.append(batch(0, 10, 100)).is_ok() {}
    let other = Open { store: open.store, log: second };
    other.fill(10, 100);
    let key = other.log.view.key;
    let covers = || {
        let written = checkpoint::Checkpoint::read(&RealFs, fixture.dir.path()).unwrap();
        written.is_some_and(|it| {
            it.logs.get(&key).is_some_and(|log| log.recovery_point.mark.offset.get() == 100)
        })
    };
    while !covers() {
        std::thread::yield_now();
    }
    assert!(matches!(open.log.status().state, LogState::ReadOnly { .. }));
}

#[test]
fn when_a_writing_thread_has_died_its_logs_say_so_and_every_append_is_answered() {
    let (mut fixture, fs) = hooked();
    fixture.config.writer_threads = 2;
    let store = fixture.store();
    store.start().unwrap();
    let specs = fixture.specs(3);
    // The first and the third one have the same writer.
    let mut logs = store.create_logs(&specs).unwrap();
    let (third, second) = (logs.remove(2), logs.remove(1));
    let open = Open { store, log: logs.remove(0) };
    open.fill(5, 100);
    fs.hook(|step, path| {
        assert!(step != Step::Write || !path.ends_with(Path::new("orders-0").join(FIRST_LOG)), "a bug");
        Ok(())
    });
    let waiting: Vec<_> = (0..50).map(|_| open.send(batch(0, 10, 100))).collect();
    for outcome in waiting {
        let outcome = outcome.recv().expect("an answer");
        assert!(matches!(outcome, Err(AppendError::Sealed { .. })), "{outcome:?}");
    }
    fs.heal();
    for log in [&open.log, &third] {
        let (sender, outcome) = channel();
        log.append(Append {
            batch: batch(0, 10, 100),
            expected_offset: None,
            done: Box::new(move |result| drop(sender.send(result))),
        });
        assert!(matches!(outcome.recv(), Ok(Err(AppendError::Sealed { .. }))));
        assert!(matches!(log.status().state, LogState::ReadOnly { .. }));
    }
    assert_eq!(open.store.stats().read_only_logs, 2);
    open.assert_numbered(0, 50);
    // The other writer's log goes on, and all can be deleted.
    let other = Open { store: open.store, log: second };
    other.fill(5, 100);
    other.store.delete_logs(&[open.log, third], &[]).unwrap();
    other.close();
}

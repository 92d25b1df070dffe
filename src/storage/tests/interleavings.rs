//! Steps that meet other steps, or fail, at the worst moment.

use std::io;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::super::durable::DurableSlots;
use super::hook_fs::{Step, hooked};
use super::stepped::Stepped;
use super::*;

/// What a step waits at most for something that must not happen meanwhile.
const HOLD: Duration = Duration::from_millis(500);

#[test]
fn upkeep_of_a_deleted_log_does_not_touch_the_next_one_of_its_name() {
    let (mut fixture, fs) = hooked();
    fixture.spec.config.segment_bytes = 10_000;
    let open = fixture.create();
    open.fill(100, 100);
    open.settle();
    // While the segments of the first log are being dropped, it is deleted and another gets its name.
    let (reached, is_reached) = channel();
    let (go_on, may_go_on) = channel::<()>();
    let (armed, may_go_on) = (AtomicBool::new(true), parking_lot::Mutex::new(may_go_on));
    fs.hook(move |step, path| {
        if step == Step::Open && path.ends_with("seals.tmp") && armed.swap(false, Ordering::Relaxed) {
            reached.send(()).unwrap();
            let _ = may_go_on.lock().recv_timeout(HOLD);
        }
        Ok(())
    });
    let (done, deleted) = channel();
    open.log.delete_records(Offset::clamped(900), Box::new(move |result| drop(done.send(result))));
    is_reached.recv().unwrap();
    open.store.delete_logs(std::slice::from_ref(&open.log), &[]).unwrap();
    fixture.spec.topic_id = TopicId::from_bytes([8; 16]);
    fixture.spec.config.segment_bytes = 1 << 30;
    let log = open.store.create_logs(std::slice::from_ref(&fixture.spec)).unwrap().remove(0);
    let open = Open { store: open.store, log };
    open.fill(100, 100);
    drop(go_on);
    deleted.recv().unwrap().unwrap();
    open.crash();
    fixture.reopen().assert_numbered(0, 1000);
}

#[test]
fn a_checkpoint_of_a_deleted_log_does_not_touch_the_next_one_of_its_name() {
    let (mut fixture, fs) = hooked();
    fixture.config.checkpoint_interval_ms = 10;
    fixture.config.tail_cache_bytes = 0;
    let open = fixture.create();
    open.fill(10, 100);
    open.crash();
    let open = fixture.reopen();
    // While the epochs of the first log are being written, it is deleted and another gets its name.
    let (reached, is_reached) = channel();
    let (go_on, may_go_on) = channel::<()>();
    let (armed, may_go_on) = (AtomicBool::new(true), parking_lot::Mutex::new(may_go_on));
    fs.hook(move |step, path| {
        if step == Step::Open && path.ends_with("leader-epochs.tmp") && armed.swap(false, Ordering::Relaxed) {
            reached.send(()).unwrap();
            let _ = may_go_on.lock().recv_timeout(HOLD);
        }
        Ok(())
    });
    open.fill(10, 100);
    is_reached.recv().unwrap();
    open.store.delete_logs(std::slice::from_ref(&open.log), &[]).unwrap();
    fixture.spec.topic_id = TopicId::from_bytes([8; 16]);
    let log = open.store.create_logs(std::slice::from_ref(&fixture.spec)).unwrap().remove(0);
    drop(go_on);
    let open = Open { store: open.store, log };
    open.fill(20, 100);
    open.close();
    fixture.reopen().assert_numbered(0, 200);
}

#[test]
fn the_checkpoint_is_written_however_much_upkeep_there_is() {
    let mut fixture = Fixture::new();
    fixture.config.checkpoint_interval_ms = 10;
    let open = fixture.create();
    open.fill(10, 100);
    let checkpoint = fixture.dir.path().join("checkpoint");
    let before = std::fs::read(&checkpoint).unwrap();
    // Each job asks for the next one, so there is always one.
    let (stop, jobs) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    ask_again(&open.log, Arc::clone(&stop), Arc::clone(&jobs));
    while std::fs::read(&checkpoint).unwrap() == before {
        assert!(jobs.load(Ordering::Relaxed) < 3_000_000, "no checkpoint while there are jobs");
    }
    stop.store(true, Ordering::Relaxed);
}

fn ask_again(log: &LogHandle, stop: Arc<AtomicBool>, jobs: Arc<AtomicU64>) {
    let next = log.clone();
    let done = Box::new(move |_| {
        jobs.fetch_add(1, Ordering::Relaxed);
        if !stop.load(Ordering::Relaxed) {
            ask_again(&next, stop, jobs);
        }
    });
    log.delete_records(Offset::ZERO, done);
}

#[test]
fn a_segment_below_the_start_goes_once_it_is_complete() {
    let mut fixture = Fixture::new();
    fixture.spec.config.segment_bytes = 10_000;
    let open = fixture.create();
    open.fill(5, 100);
    // It is still the active one, and cannot go yet.
    assert_eq!(open.delete_records(50).unwrap(), Offset::clamped(50));
    assert_eq!(fixture.files("log").len(), 1);
    open.fill(10, 800);
    open.settle();
    assert!(!fixture.files("log").contains(&"00000000000000000000.log".to_owned()));
    open.assert_numbered(50, 150);
}

#[test]
fn a_roll_that_fails_after_it_has_made_the_file_leaves_nothing_behind() {
    let (mut fixture, fs) = hooked();
    fixture.spec.config.segment_bytes = 10_000;
    let open = fixture.create();
    open.fill(5, 100);
    let armed = AtomicBool::new(true);
    fs.hook(move |step, path| {
        if step == Step::SyncDir && path.ends_with("orders-0") && armed.swap(false, Ordering::Relaxed) {
            return Err(io::Error::other("cannot sync the directory"));
        }
        Ok(())
    });
    open.append(batch(50, 10, 800)).unwrap_err();
    // A smaller one still fits: the log goes beyond where the new segment would have begun.
    open.fill(1, 100);
    open.crash();
    let open = fixture.reopen();
    open.assert_numbered(0, 60);
    open.fill(10, 800);
    open.crash();
    fixture.reopen().assert_numbered(0, 160);
}

#[test]
fn a_new_start_is_recorded_even_where_nothing_else_of_the_log_can_be() {
    let (fixture, fs) = hooked();
    let open = fixture.create();
    open.fill(10, 100);
    fs.hook(|step, path| {
        let fails = step == Step::Rename && path.ends_with("leader-epochs");
        if fails { Err(io::Error::other("cannot rename")) } else { Ok(()) }
    });
    assert_eq!(open.delete_records(50).unwrap(), Offset::clamped(50));
    open.crash();
    fs.hook(|_, _| Ok(()));
    let open = fixture.reopen();
    assert_eq!(open.log.log_start_offset(), Offset::clamped(50));
    open.assert_numbered(50, 100);
}

#[test]
fn a_panic_in_the_recovery_of_one_log_costs_that_log_alone() {
    let (fixture, fs) = hooked();
    fixture.create().close();
    let other = LogSpec { partition: PartitionId::new(1).unwrap(), ..fixture.spec.clone() };
    fs.hook(|_, path| {
        assert!(!path.to_string_lossy().contains("orders-1"), "a bug");
        Ok(())
    });
    let results = fixture.store().open_logs(&[fixture.spec.clone(), other]);
    assert!(results[0].is_ok());
    assert!(matches!(results[1], Err(OpenLogError::Damaged { .. })), "{:?}", results[1]);
}

#[test]
fn creating_a_log_removes_nothing_that_was_there() {
    let fixture = Fixture::new();
    let open = fixture.create();
    open.fill(10, 100);
    let other = LogSpec { partition: PartitionId::new(1).unwrap(), ..fixture.spec.clone() };
    let twice = open.store.create_logs(&[other.clone(), fixture.spec.clone()]);
    assert!(matches!(twice, Err(LogError::Io { .. })), "{twice:?}");
    let stray = fixture.dir.path().join("orders-1");
    std::fs::create_dir_all(&stray).unwrap();
    std::fs::write(stray.join("precious"), "kept").unwrap();
    open.store.create_logs(&[other]).unwrap();
    let aside = fixture.dir.path().join(format!(".set-aside/{NOW_MS}/orders-1/precious"));
    assert_eq!(std::fs::read_to_string(aside).unwrap(), "kept");
    open.crash();
    fixture.reopen().assert_numbered(0, 100);
}

#[test]
fn a_checkpoint_of_many_logs_needs_few_descriptors() {
    let (mut fixture, fs) = hooked();
    fixture.config.index_interval_bytes = 1 << 10;
    let store = fixture.store();
    store.start().unwrap();
    let specs = fixture.specs(300);
    let (sender, outcomes) = channel();
    for log in store.create_logs(&specs).unwrap() {
        for _ in 0..3 {
            let sender = sender.clone();
            let done: AppendDone = Box::new(move |result| drop(sender.send(result)));
            log.append(Append { batch: batch(0, 10, 100), expected_offset: None, done });
        }
    }
    drop(sender);
    assert!(outcomes.iter().all(|outcome| outcome.is_ok()));
    store.close().unwrap();
    let most = fs.most_open("index");
    assert!((100..200).contains(&most), "{most} index files were open at a time");
}

#[test]
fn the_names_of_a_new_data_directory_and_its_parents_are_synced() {
    let (fixture, fs) = hooked();
    let synced = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let heard = Arc::clone(&synced);
    fs.hook(move |step, path| {
        if step == Step::SyncDir {
            heard.lock().push(path.to_owned());
        }
        Ok(())
    });
    let (root, clock) = (fixture.dir.path(), fixture.clock.clone());
    let _store =
        Store::open_on(Arc::new(fs), &root.join("deep/data"), &StorageConfig::default(), clock).unwrap();
    let synced = synced.lock();
    assert!(synced.contains(&root.to_owned()) && synced.contains(&root.join("deep")), "{synced:?}");
}

#[test]
fn when_the_syncing_thread_has_died_nothing_is_acknowledged_any_more() {
    let (mut fixture, fs) = hooked();
    fixture.spec.config.durability = Durability::Os;
    fixture.config.flush_interval_ms = 10;
    let open = fixture.create();
    let (died, has_died) = channel();
    fs.hook(move |step, path| {
        if step == Step::Sync && path.ends_with("00000000000000000000.log") {
            let _ = died.send(());
            panic!("a bug in the syncing thread");
        }
        Ok(())
    });
    open.append(batch(0, 10, 100)).unwrap();
    has_died.recv().unwrap();
    // It has told before it died: the first ones may still come through.
    let refused = (0..100_000).find_map(|_| open.append(batch(0, 1, 100)).err());
    assert!(matches!(refused, Some(AppendError::Sealed { .. })), "{refused:?}");
    assert!(matches!(open.log.status().state, LogState::ReadOnly { .. }));
}

#[test]
fn a_late_flush_does_not_take_a_durable_slot_back() {
    let mut fixture = Fixture::new();
    fixture.spec.config.durability = Durability::Os;
    let mut log = Stepped::new(&fixture);
    log.send(batch(0, 10, 100));
    log.write();
    let fsync = LogConfig { durability: Durability::Fsync, ..fixture.spec.config };
    log.open.log.configure(fsync, Box::new(|outcome| outcome.unwrap()));
    log.send(batch(10, 10, 100));
    log.write();
    log.sync();
    log.crew.syncer.flush_lazy();
    let slots = DurableSlots::read(&RealFs, fixture.dir.path()).unwrap();
    assert_eq!(slots.into_values().collect::<Vec<_>>(), [Offset::clamped(20)]);
}

//! Batches that are sent again, and appends with a condition: on a log that is stepped, on a disk that fails, and, in
//! `restarts`, after a start.

mod restarts;

use std::sync::mpsc::TryRecvError;
use std::time::Instant;

use super::super::producer_snapshot;
use super::hook_fs::{HookFs, Step, hooked};
use super::stepped::{Outcome, Stepped, delete};
use super::*;

/// Where it is, and whether it had been there before.
fn place(outcome: &Outcome) -> (i64, bool) {
    let appended = outcome.try_recv().unwrap().unwrap();
    (appended.base_offset.get(), appended.duplicate)
}

fn failure(outcome: &Outcome) -> AppendError {
    outcome.try_recv().unwrap().unwrap_err()
}

fn is_waiting(outcome: &Outcome) -> bool {
    matches!(outcome.try_recv(), Err(TryRecvError::Empty))
}

/// The sequence that is due, and the one that came.
fn out_of_order(error: &AppendError) -> (i32, i32) {
    match error {
        AppendError::Producer(ProducerError::OutOfOrder { expected, sequence, .. }) => (*expected, *sequence),
        error => panic!("{error}"),
    }
}

impl Open {
    /// Sends it and waits: its offset, and whether it had been there before.
    fn put(&self, batch: BytesMut) -> Result<(i64, bool), AppendError> {
        self.send(batch).recv().unwrap().map(|appended| (appended.base_offset.get(), appended.duplicate))
    }

    /// Batches of producer 7, one after the other, with the sequences `from..to`; nobody else appends.
    fn put_all(&self, from: i32, to: i32, value_bytes: usize) {
        for tag in (from..to).step_by(10) {
            assert_eq!(self.put(stamped(0, tag, value_bytes)).unwrap(), (tag.into(), false));
        }
    }

    /// The last batch is known, and what has to come next.
    fn assert_known(&self, end: i32) {
        assert_eq!(self.put(stamped(0, end - 10, 100)).unwrap(), ((end - 10).into(), true));
        assert_eq!(self.put(stamped(0, end - 50, 100)).unwrap(), ((end - 50).into(), true));
        let gap = self.put(stamped(0, end + 10, 100)).unwrap_err();
        assert_eq!(out_of_order(&gap), (end, end + 10));
    }
}

#[test]
fn a_duplicate_of_a_batch_under_way_is_answered_with_it_and_not_before() {
    for durability in [Durability::Fsync, Durability::Os] {
        let mut fixture = Fixture::new();
        fixture.spec.config.durability = durability;
        let mut log = Stepped::new(&fixture);
        let (first, same_group) = (log.send(stamped(0, 0, 100)), log.send(stamped(0, 0, 100)));
        log.write();
        if durability == Durability::Fsync {
            let next_group = log.send(stamped(0, 0, 100));
            log.write();
            for outcome in [&first, &same_group, &next_group] {
                assert!(is_waiting(outcome), "nothing is durable yet");
            }
            log.sync();
            assert_eq!(place(&next_group), (0, true));
        }
        assert_eq!((place(&first), place(&same_group)), ((0, false), (0, true)));
        let later = log.send(stamped(0, 0, 100));
        log.write();
        assert_eq!(place(&later), (0, true), "what is durable is answered at once");
        assert_eq!(log.open.log.durable_offset(), Offset::clamped(10));
        log.open.assert_numbered(0, 10);
    }
}

#[test]
fn a_duplicate_fails_with_its_original_and_the_batches_behind_it_do_too() {
    let (fixture, fs) = hooked();
    let mut log = Stepped::new(&fixture);
    let sent = [0, 0, 10, 20].map(|tag| log.send(stamped(0, tag, 100)));
    fs.set_log_room(Some(50));
    log.write();
    for outcome in &sent {
        assert!(matches!(failure(outcome), AppendError::NoSpace { .. }));
    }
    fs.set_log_room(None);
    // The first batch of the producer was taken back: a later one must not take its place.
    let (early, again) = (log.send(stamped(0, 10, 100)), log.send(stamped(0, 0, 100)));
    log.write();
    log.sync();
    assert_eq!(out_of_order(&failure(&early)), (0, 10));
    assert_eq!(place(&again), (0, false));
}

#[test]
fn a_duplicate_stands_with_its_original_when_the_group_it_came_with_fails() {
    let (fixture, fs) = hooked();
    let mut log = Stepped::new(&fixture);
    let original = log.send(stamped(0, 0, 100));
    log.write();
    let (duplicate, other) = (log.send(stamped(0, 0, 100)), log.send(stamped(0, 10, 100)));
    fs.set_log_room(Some(0));
    log.write();
    assert!(matches!(failure(&other), AppendError::NoSpace { .. }));
    assert!(is_waiting(&duplicate), "its original is not durable yet");
    log.sync();
    assert_eq!((place(&original), place(&duplicate)), ((0, false), (0, true)));
    fs.set_log_room(None);
    let (gap, next) = (log.send(stamped(0, 20, 100)), log.send(stamped(0, 10, 100)));
    log.write();
    log.sync();
    assert_eq!(out_of_order(&failure(&gap)), (10, 20));
    assert_eq!(place(&next), (10, false));
}

#[test]
fn a_duplicate_is_not_acknowledged_when_the_sync_of_its_original_fails() {
    let (fixture, fs) = hooked();
    let mut log = Stepped::new(&fixture);
    let sent = [0, 0].map(|tag| log.send(stamped(0, tag, 100)));
    log.write();
    let behind = log.send(stamped(0, 0, 100));
    log.write();
    fs.fail_log(Step::Sync, io::ErrorKind::Other);
    log.sync();
    for outcome in sent.iter().chain([&behind]) {
        assert!(matches!(failure(outcome), AppendError::Sealed { .. }));
    }
}

#[test]
fn a_duplicate_is_answered_and_the_log_goes_on_when_its_file_cannot_be_opened_again() {
    let (mut fixture, fs) = hooked();
    fixture.config.open_logs = 1;
    let mut log = Stepped::new(&fixture);
    let original = log.send(stamped(0, 0, 100));
    log.write();
    fixture.spec.topic = TopicName::parse("others").unwrap();
    fixture.spec.topic_id = TopicId::from_bytes([8; 16]);
    let mut other = log.open.store.create_logs(std::slice::from_ref(&fixture.spec)).unwrap().remove(0);
    // The other log is written first, and the file of this one closed for it: once the original is synced.
    std::mem::swap(&mut log.open.log, &mut other);
    let _others = log.send(batch(0, 10, 100));
    std::mem::swap(&mut log.open.log, &mut other);
    let (duplicate, gap) = (log.send(stamped(0, 0, 100)), log.send(stamped(0, 500, 100)));
    fs.fail_log(Step::Open, io::ErrorKind::Other);
    let Stepped { crew, .. } = &mut log;
    let (writer, syncer) = (&mut crew.writers[0], &crew.syncer);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // It is refused when the duplicate before it has been gathered.
            gap.recv().unwrap().unwrap_err();
            syncer.sync_waiting(Instant::now());
        });
        let first = writer.commands.recv().unwrap();
        writer.round(first);
    });
    assert_eq!((place(&original), place(&duplicate)), ((0, false), (0, true)));
    fs.heal();
    let next = log.send(stamped(0, 10, 100));
    log.write();
    log.sync();
    assert_eq!(place(&next), (10, false));
}

#[test]
fn a_duplicate_left_by_a_deleted_log_does_not_hide_that_the_next_one_could_not_be_synced() {
    let (mut fixture, fs) = hooked();
    let mut log = Stepped::new(&fixture);
    let original = log.send(stamped(0, 0, 100));
    log.write();
    // The duplicate comes while the original is being synced, and waits for the next group.
    let (syncing, is_syncing) = channel();
    let (go_on, may_go_on) = channel::<()>();
    let may_go_on = parking_lot::Mutex::new(may_go_on);
    fs.hook(move |step, path| {
        if step == Step::Sync && path.ends_with(FIRST) {
            syncing.send(()).unwrap();
            may_go_on.lock().recv().unwrap();
        }
        Ok(())
    });
    let duplicate = log.send(stamped(0, 0, 100));
    let Stepped { open, crew } = &mut log;
    let (writer, syncer) = (&mut crew.writers[0], &crew.syncer);
    std::thread::scope(|scope| {
        scope.spawn(|| syncer.sync_waiting(Instant::now()));
        is_syncing.recv().unwrap();
        let command = writer.commands.recv().unwrap();
        writer.round(command);
        go_on.send(()).unwrap();
    });
    fs.heal();
    assert_eq!(place(&original), (0, false));
    assert!(is_waiting(&duplicate));
    delete(&open.store, crew, open.log.clone()).unwrap();
    fixture.spec.topic_id = TopicId::from_bytes([8; 16]);
    open.log = open.store.create_logs(std::slice::from_ref(&fixture.spec)).unwrap().remove(0);
    let next = log.send(batch(0, 10, 100));
    log.write();
    fs.fail_log(Step::Sync, io::ErrorKind::Other);
    log.sync();
    assert!(matches!(failure(&next), AppendError::Sealed { .. }));
}

#[test]
fn a_duplicate_whose_original_lies_before_a_roll_waits_for_it() {
    let mut fixture = Fixture::new();
    fixture.spec.config.segment_bytes = 3_000;
    let mut log = Stepped::new(&fixture);
    let original = log.send(stamped(0, 0, 200));
    log.write();
    let (large, duplicate) = (log.send(stamped(0, 10, 200)), log.send(stamped(0, 0, 200)));
    log.write();
    assert_eq!(fixture.files("log").len(), 2);
    assert!(is_waiting(&original) && is_waiting(&duplicate));
    log.sync();
    assert_eq!((place(&original), place(&large), place(&duplicate)), ((0, false), (10, false), (0, true)));
    log.open.assert_numbered(0, 20);
}

#[test]
fn a_snapshot_has_nothing_that_is_not_synced() {
    let fixture = Fixture::new();
    let mut log = Stepped::new(&fixture);
    let synced = log.send(stamped(0, 0, 100));
    log.write();
    log.sync();
    assert_eq!(place(&synced), (0, false));
    let _unsynced = log.send(stamped(0, 10, 100));
    log.write();
    // It writes the checkpoint.
    log.open.store.finish().unwrap();
    let end = Offset::clamped(10);
    let states = producer_snapshot::read(&RealFs, &fixture.log_dir(), end).unwrap().unwrap();
    let offsets: Vec<_> = states[0].batches.iter().map(|batch| batch.base_offset.get()).collect();
    assert_eq!(offsets, [0]);
}

#[test]
fn a_log_with_durability_os_is_synced_when_one_producer_has_too_much_unsynced() {
    let mut fixture = Fixture::new();
    fixture.spec.config.durability = Durability::Os;
    let mut log = Stepped::new(&fixture);
    let mut tag = 0;
    loop {
        let outcome = log.send(stamped(0, tag, 8));
        log.write();
        if is_waiting(&outcome) {
            log.sync();
            assert_eq!(place(&outcome), (tag.into(), false));
            break;
        }
        tag += 10;
        assert!(tag < 100_000, "what is unsynced has to be bounded");
    }
    let outcome = log.send(stamped(0, tag + 10, 8));
    log.write();
    assert!(!is_waiting(&outcome), "now there is time again");
}

#[test]
fn an_append_with_a_condition_is_done_only_at_the_expected_offset() {
    let fixture = Fixture::new();
    let open = fixture.create();
    let expecting = |tag: u64, expected: i64| {
        let outcome = open.send_expecting(batch(tag, 10, 100), Some(Offset::clamped(expected)));
        outcome.recv().unwrap().map(|appended| appended.base_offset.get()).map_err(|error| match error {
            AppendError::UnexpectedOffset { expected, next } => (expected.get(), next.get()),
            error => panic!("{error}"),
        })
    };
    assert_eq!(expecting(0, 1), Err((1, 0)), "it is yet to come");
    assert_eq!(expecting(0, 0), Ok(0));
    assert_eq!(expecting(0, 0), Err((0, 10)), "somebody was first");
    assert_eq!(expecting(10, 10), Ok(10));
    open.assert_numbered(0, 20);
}

#[test]
fn a_duplicate_is_told_as_such_whatever_offset_is_expected() {
    let fixture = Fixture::new();
    let open = fixture.create();
    let expecting = |tag: i32, expected: i64| {
        let outcome = open.send_expecting(stamped(0, tag, 100), Some(Offset::clamped(expected)));
        outcome.recv().unwrap().map(|appended| (appended.base_offset.get(), appended.duplicate))
    };
    assert_eq!(expecting(0, 0).unwrap(), (0, false));
    assert_eq!(expecting(0, 0).unwrap(), (0, true));
    assert!(matches!(expecting(10, 0), Err(AppendError::UnexpectedOffset { .. })));
    // A refused one has used up no sequence.
    assert_eq!(expecting(10, 10).unwrap(), (10, false));
}

#[test]
fn an_expected_offset_that_is_taken_back_is_free_again() {
    let (fixture, fs) = hooked();
    let mut log = Stepped::new(&fixture);
    let expecting = |log: &Stepped, tag: u64, expected: i64| {
        log.open.send_expecting(batch(tag, 10, 100), Some(Offset::clamped(expected)))
    };
    let sent = [(0, 0), (10, 10)].map(|(tag, expected)| expecting(&log, tag, expected));
    fs.set_log_room(Some(0));
    log.write();
    for outcome in &sent {
        assert!(matches!(failure(outcome), AppendError::NoSpace { .. }));
    }
    fs.set_log_room(None);
    let (second, first) = (expecting(&log, 10, 10), expecting(&log, 0, 0));
    log.write();
    log.sync();
    assert!(matches!(failure(&second), AppendError::UnexpectedOffset { .. }));
    assert_eq!(place(&first), (0, false));
}

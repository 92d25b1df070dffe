//! Batches that are sent again, and appends with a condition: on a log that is stepped, on a disk that fails, and across
//! restarts.

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

#[test]
fn producers_are_known_after_an_orderly_end_and_after_a_crash() {
    let mut fixture = Fixture::new();
    fixture.spec.config.segment_bytes = 10_000;
    let open = fixture.create();
    open.put_all(0, 300, 100);
    open.close();
    let open = fixture.reopen();
    assert_eq!(open.store.stats().recovered_logs, 0, "nothing was scanned");
    open.assert_known(300);
    open.put_all(300, 600, 100);
    open.crash();
    let open = fixture.reopen();
    open.assert_known(600);
    open.assert_numbered(0, 600);
    assert_eq!(open.put(stamped(1, 0, 100)).unwrap(), (600, false));
    open.crash();
    let fenced = fixture.reopen().put(stamped(0, 600, 100)).unwrap_err();
    assert!(matches!(fenced, AppendError::Producer(ProducerError::Fenced { current: 1, .. })), "{fenced}");
}

/// Ways to spoil a snapshot.
const SPOILS: [fn(&Path); 3] = [
    |path| std::fs::remove_file(path).unwrap(),
    |path| std::fs::write(path, "rubbish").unwrap(),
    |path| {
        let mut bytes = std::fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(path, bytes).unwrap();
    },
];

#[test]
fn a_snapshot_that_is_lost_or_damaged_is_not_believed_and_no_duplicate_gets_through() {
    for spoil in SPOILS {
        for spoilt in [1, usize::MAX] {
            for orderly in [true, false] {
                let mut fixture = Fixture::new();
                fixture.spec.config.segment_bytes = 10_000;
                let open = fixture.create();
                open.put_all(0, 300, 100);
                open.settle();
                if orderly {
                    open.close();
                } else {
                    open.crash();
                }
                let snapshots = fixture.files("snapshot");
                assert!(snapshots.len() >= 2, "{snapshots:?}");
                for name in snapshots.iter().rev().take(spoilt) {
                    spoil(&fixture.log_dir().join(name));
                }
                let open = fixture.reopen();
                open.assert_known(300);
                open.close();
                // A good one is there now.
                let open = fixture.reopen();
                assert_eq!(open.store.stats().recovered_logs, 0);
                open.assert_known(300);
            }
        }
    }
}

#[test]
fn what_is_readable_behind_rot_tells_of_producers() {
    for segment_bytes in [10_000, 1 << 30] {
        let mut fixture = Fixture::new();
        fixture.spec.config.segment_bytes = segment_bytes;
        let open = fixture.create();
        open.put_all(0, 120, 100);
        open.settle();
        open.crash();
        for name in fixture.files("snapshot") {
            std::fs::remove_file(fixture.log_dir().join(name)).unwrap();
        }
        std::fs::remove_file(fixture.dir.path().join("checkpoint")).unwrap();
        change(&fixture, FIRST, |bytes| bytes[2 * stamped(0, 0, 100).len() + 100] ^= 1);
        let open = fixture.reopen();
        open.assert_lost(120, &[(20, 29)]);
        open.assert_known(120);
        // It is there, and must not be there twice.
        assert_eq!(out_of_order(&open.put(stamped(0, 0, 100)).unwrap_err()), (120, 0));
    }
}

#[test]
fn a_log_that_takes_no_writes_answers_duplicates_of_what_it_has() {
    // One whose sync has failed.
    let (fixture, fs) = hooked();
    let open = fixture.create();
    open.put_all(0, 100, 100);
    fs.fail_log(Step::Sync, io::ErrorKind::Other);
    let refused = |open: &Open, batch| {
        let error = open.put(batch).unwrap_err();
        assert!(matches!(error, AppendError::Sealed { .. }), "{error}");
    };
    refused(&open, stamped(0, 100, 100));
    fs.heal();
    for tag in [50, 60, 70, 80, 90] {
        assert_eq!(open.put(stamped(0, tag, 100)).unwrap(), (i64::from(tag), true));
    }
    // Neither what was not synced, nor what is new, nor what never can be.
    refused(&open, stamped(0, 100, 100));
    refused(&open, stamped(0, 110, 100));
    refused(&open, stamped(0, 300, 100));
    open.crash();

    // One whose end has been cut off, and one where the last batch but two has rotted, too.
    let size = stamped(0, 0, 100).len();
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 30);
    let rotten = |bytes: &mut Vec<u8>| {
        bytes.truncate(10 * size - 30);
        bytes[7 * size + 100] ^= 1;
    };
    let damages: [&dyn Fn(&mut Vec<u8>); 2] = [&cut, &rotten];
    for (damage, lost) in damages.into_iter().zip([&[90][..], &[70, 90]]) {
        let fixture = Fixture::new();
        let open = fixture.create();
        open.put_all(0, 100, 100);
        open.crash();
        change(&fixture, FIRST, damage);
        for is_orderly in [true, false, true] {
            let open = fixture.reopen();
            assert!(matches!(open.log.status().state, LogState::ReadOnly { .. }));
            for tag in [50, 60, 70, 80, 90] {
                if lost.contains(&tag) {
                    refused(&open, stamped(0, tag, 100));
                } else if lost.len() == 1 || tag > 70 {
                    assert_eq!(open.put(stamped(0, tag, 100)).unwrap(), (i64::from(tag), true));
                }
            }
            open.end(is_orderly);
        }
    }
}

#[test]
fn a_log_whose_end_is_back_knows_its_producers_again() {
    let fixture = Fixture::new();
    let open = fixture.create();
    open.put_all(0, 100, 100);
    open.close();
    let open = fixture.reopen();
    open.put_all(100, 200, 100);
    open.crash();
    let whole = std::fs::read(fixture.log_dir().join(FIRST)).unwrap();
    change(&fixture, FIRST, |bytes| bytes.truncate(whole.len() / 4 * 3));
    for is_orderly in [true, false, true] {
        let open = fixture.reopen();
        assert!(matches!(open.log.status().state, LogState::ReadOnly { .. }));
        open.end(is_orderly);
    }
    change(&fixture, FIRST, |bytes| *bytes = whole);
    let open = fixture.reopen();
    assert_eq!(open.log.status().state, LogState::Online);
    open.assert_known(200);
    open.put_all(200, 300, 100);
    open.assert_known(300);
}

#[test]
fn producers_outlive_their_records() {
    let mut fixture = Fixture::new();
    fixture.spec.config.segment_bytes = 10_000;
    let open = fixture.create();
    open.put_all(0, 100, 100);
    // Somebody else, until nothing of the producer is left.
    for i in 0..60 {
        open.append(batch(i, 10, 100)).unwrap();
    }
    open.settle();
    open.delete_records(500).unwrap();
    open.settle();
    assert!(!fixture.files("log").contains(&"00000000000000000000.log".to_owned()));
    open.assert_known(100);
    open.close();
    fixture.reopen().assert_known(100);
}

#[test]
fn a_checkpoint_writes_a_snapshot_only_if_there_is_news_and_old_ones_go() {
    let mut fixture = Fixture::new();
    fixture.spec.config.segment_bytes = 10_000;
    let open = fixture.create();
    let checkpoint = |open: &Open| open.delete_records(open.log.log_start_offset().get() + 1).unwrap();
    open.append(batch(0, 10, 100)).unwrap();
    checkpoint(&open);
    assert_eq!(fixture.files("snapshot"), [""; 0], "there are no producers");
    for round in 1..20 {
        for tag in [0, 10] {
            open.put(stamped(0, (round - 1) * 20 + tag, 500)).unwrap();
        }
        checkpoint(&open);
        let end = format!("{:020}.snapshot", open.log.durable_offset().get());
        assert!(fixture.files("snapshot").contains(&end), "{:?}", fixture.files("snapshot"));
    }
    assert!(fixture.files("log").len() > 5);
    assert!(fixture.files("snapshot").len() <= 4, "{:?}", fixture.files("snapshot"));
    let before = fixture.files("snapshot");
    open.append(batch(0, 10, 100)).unwrap();
    checkpoint(&open);
    assert_eq!(fixture.files("snapshot").last(), before.last(), "no news of a producer");
    assert_eq!(fixture.files("tmp"), [""; 0]);
}

#[test]
fn without_its_snapshot_the_recovery_point_does_not_move() {
    for step in [Step::Sync, Step::Rename, Step::SyncDir] {
        let fs = HookFs::default();
        let mut fixture = Fixture::new();
        fixture.fs = Arc::new(fs.clone());
        let open = fixture.create();
        open.put_all(0, 100, 100);
        let dir = fixture.log_dir();
        fs.hook(move |at, path| {
            let of_snapshot = path.to_string_lossy().contains(".snapshot") || path == dir;
            if at == step && of_snapshot { Err(io::Error::other("not this one")) } else { Ok(()) }
        });
        // It writes the checkpoint.
        open.delete_records(10).unwrap();
        open.crash();
        fs.hook(|_, _| Ok(()));
        // Nothing of a snapshot that was not synced need be there after a power cut.
        for name in fixture.files("snapshot") {
            std::fs::remove_file(fixture.log_dir().join(name)).unwrap();
        }
        let open = fixture.reopen();
        assert!(open.store.stats().recovered_bytes > 0);
        open.assert_known(100);
        open.settle();
        assert_eq!(fixture.files("tmp"), [""; 0], "what a crash has left is removed");
    }
}

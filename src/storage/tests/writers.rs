//! What a writer holds to: how much is under way, how far a segment goes, and what becomes of files and memory.

use std::time::{Duration, Instant};

use super::super::durable;
use super::hook_fs::{HookFs, Step, hooked};
use super::stepped::Stepped;
use super::*;

/// What a step waits for something that must not happen meanwhile.
const HOLD: Duration = Duration::from_millis(500);

/// Tells of each step of this kind on a log file from now on.
fn hear(fs: &HookFs, of: Step) -> Receiver<()> {
    let (told, heard) = channel();
    fs.hook(move |step, path| {
        if step == of && path.extension().is_some_and(|extension| extension == "log") {
            told.send(()).unwrap();
        }
        Ok(())
    });
    heard
}

#[test]
fn no_more_than_a_groups_worth_of_a_log_is_written_and_not_synced() {
    let (mut fixture, fs) = hooked();
    fixture.config.max_group_bytes = 64 << 10;
    let mut log = Stepped::new(&fixture);
    let first = log.send(batch(0, 10, 5_000));
    log.write();
    let second = log.send(batch(10, 10, 5_000));
    let written = hear(&fs, Step::Write);
    let Stepped { crew, .. } = &mut log;
    let (writer, syncer) = (&mut crew.writers[0], &crew.syncer);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let next = writer.commands.recv().unwrap();
            writer.round(next);
        });
        // A recovery takes what lies further behind a torn batch for proof that it is not torn.
        assert!(written.recv_timeout(HOLD).is_err(), "it waits for the first one");
        syncer.sync_waiting(Instant::now());
    });
    written.recv().unwrap();
    log.sync();
    assert_eq!(first.recv().unwrap().unwrap().base_offset, Offset::ZERO);
    assert_eq!(second.recv().unwrap().unwrap().base_offset, Offset::clamped(10));
}

#[test]
fn a_segment_has_no_more_offsets_than_its_indexes_can_tell() {
    const MOST: i32 = i32::MAX / 2;
    for (records, segments) in [(MOST, 1), (MOST + 1, 2)] {
        let fixture = Fixture::new();
        let open = fixture.create();
        let mut many = batch(0, 1, 10);
        many[23..27].copy_from_slice(&(records - 1).to_be_bytes());
        many[57..61].copy_from_slice(&records.to_be_bytes());
        seal(&mut many);
        open.append(many).unwrap();
        assert_eq!(open.append(batch(0, 1, 10)).unwrap().get(), i64::from(records));
        assert_eq!(fixture.files("log").len(), segments, "{records} records");
    }
}

#[test]
fn a_file_with_nothing_unsynced_is_closed_without_a_sync() {
    let (mut fixture, fs) = hooked();
    fixture.config.open_logs = 1;
    let mut log = Stepped::new(&fixture);
    let _first = log.send(batch(0, 10, 100));
    log.write();
    log.sync();
    fixture.spec.topic = TopicName::parse("others").unwrap();
    fixture.spec.topic_id = TopicId::from_bytes([8; 16]);
    log.open.log = log.open.store.create_logs(std::slice::from_ref(&fixture.spec)).unwrap().remove(0);
    let synced = hear(&fs, Step::Sync);
    let other = log.send(batch(0, 10, 100));
    log.write();
    assert!(synced.try_recv().is_err());
    log.sync();
    other.recv().unwrap().unwrap();
    assert_eq!(synced.try_iter().count(), 1);
}

#[test]
fn readers_share_the_batch_itself_unless_it_holds_much_memory_that_it_does_not_use() {
    let fixture = Fixture::new();
    let open = fixture.create();
    let bytes = batch(0, 10, 100_000);
    for (spare_bytes, is_shared) in [(0, true), (bytes.len(), false)] {
        let mut batch = BytesMut::with_capacity(bytes.len() + spare_bytes);
        batch.extend_from_slice(&bytes);
        let place = batch.as_ptr();
        let base = open.append(batch).unwrap();
        let read = open.log.read_now(base, u64::MAX).unwrap().unwrap();
        assert_eq!(read.chunks[0].as_ptr() == place, is_shared);
    }
}

#[test]
fn the_durable_slots_are_synced_while_the_store_runs() {
    let (fixture, fs) = hooked();
    let open = fixture.create();
    let (told, synced) = channel();
    fs.hook(move |step, path| {
        if step == Step::Sync && path.ends_with(durable::FILE) {
            let _ = told.send(());
        }
        Ok(())
    });
    for i in 0..2 {
        open.fill(1, 100);
        synced.recv_timeout(Duration::from_mins(1)).unwrap_or_else(|_| panic!("after append {i}"));
    }
}

#[test]
fn a_writer_with_nothing_else_to_do_syncs_a_lone_append_and_no_more() {
    let fixture = Fixture::new();
    let mut log = Stepped::new(&fixture);
    let hand_over = |log: &Stepped, is_free| log.crew.writers[0].queue.hand_over(is_free);

    let first = log.send(batch(0, 1, 100));
    log.write();
    assert!(hand_over(&log, false).is_none(), "there is more to write");
    let alone = hand_over(&log, true).expect("a lone append");

    let second = log.send(batch(1, 1, 100));
    log.write();
    assert!(hand_over(&log, true).is_none(), "one sync at a time");
    log.crew.syncer.sync_groups(vec![alone]);
    assert!(first.try_recv().unwrap().is_ok());
    second.try_recv().expect_err("its own sync is still to come");
    log.sync();
    assert!(second.try_recv().unwrap().is_ok());

    let several = [log.send(batch(2, 1, 100)), log.send(batch(3, 1, 100))];
    log.write();
    assert!(hand_over(&log, true).is_none(), "while several are synced, the next can gather");
    log.sync();
    assert!(several.iter().all(|outcome| outcome.try_recv().unwrap().is_ok()));
}

//! Few descriptors, and none: logs close their files for each other, and what cannot be opened is a failed operation.

use super::super::limits::is_exhausted;
use super::hook_fs::{HookFs, Step};
use super::*;

fn hooked() -> (Fixture, HookFs) {
    let fs = HookFs::default();
    let mut fixture = Fixture::new();
    fixture.fs = Arc::new(fs.clone());
    (fixture, fs)
}

/// From now on no log file can be opened.
fn exhaust(fs: &HookFs) {
    fs.hook(|step, path| {
        let fails = step == Step::Open && path.extension().is_some_and(|extension| extension == "log");
        if fails { Err(rustix::io::Errno::MFILE.into()) } else { Ok(()) }
    });
}

fn assert_exhausted(outcome: Result<Offset, AppendError>) {
    let Err(AppendError::Write { source, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(is_exhausted(&source), "{source}");
}

#[test]
fn many_logs_are_written_through_few_descriptors() {
    const LOGS: u32 = 100;
    const ROUNDS: u64 = 4;
    for durability in [Durability::Fsync, Durability::Os] {
        let (mut fixture, fs) = hooked();
        fixture.config.open_logs = 16;
        // What is left unsynced stays so until a file has to be closed.
        fixture.config.flush_interval_ms = 3_600_000;
        fixture.spec.config.durability = durability;
        let specs = fixture.specs(LOGS);
        let store = fixture.store();
        store.start().unwrap();
        let logs = store.create_logs(&specs).unwrap();
        let (sender, outcomes) = channel();
        for round in 0..ROUNDS {
            for log in &logs {
                let sender = sender.clone();
                let done: AppendDone = Box::new(move |result| drop(sender.send(result)));
                log.append(Append { batch: batch(round * 10, 10, 100), expected_offset: None, done });
            }
        }
        drop(sender);
        assert_eq!(outcomes.iter().map(Result::unwrap).count() as u64, u64::from(LOGS) * ROUNDS);
        // Published groups may be on their way out.
        let most = fs.most_open("log");
        assert!((8..=32).contains(&most), "{durability:?}: {most} log files were open at a time");
        drop((logs, store));
        let store = fixture.store();
        for log in store.open_logs(&specs) {
            assert_eq!(log.unwrap().durable_offset(), Offset::clamped(10 * ROUNDS as i64));
        }
    }
}

#[test]
fn a_file_that_cannot_be_opened_to_be_written_is_a_failed_append_and_no_more() {
    let (fixture, fs) = hooked();
    fixture.create().close();
    let open = fixture.reopen();
    exhaust(&fs);
    assert_exhausted(open.append(batch(0, 10, 100)));
    assert_eq!(open.log.status().state, LogState::Online);
    fs.hook(|_, _| Ok(()));
    open.fill(5, 100);
    open.crash();
    fixture.reopen().assert_numbered(0, 50);
}

#[test]
fn a_segment_that_cannot_be_opened_to_roll_is_a_failed_append_and_no_more() {
    let (mut fixture, fs) = hooked();
    fixture.spec.config.segment_bytes = 10_000;
    let open = fixture.create();
    open.fill(5, 100);
    exhaust(&fs);
    assert_exhausted(open.append(batch(50, 10, 800)));
    assert_eq!(open.log.status().state, LogState::Online);
    // A smaller one still fits where there is a file.
    open.fill(1, 100);
    fs.hook(|_, _| Ok(()));
    open.fill(10, 800);
    open.crash();
    fixture.reopen().assert_numbered(0, 160);
}

#[test]
fn a_roll_that_cannot_be_taken_back_for_want_of_a_descriptor_is_taken_back_before_the_next_write() {
    let (mut fixture, fs) = hooked();
    fixture.spec.config.segment_bytes = 10_000;
    let open = fixture.create();
    open.fill(5, 100);
    fs.hook(|step, _| if step == Step::SyncDir { Err(rustix::io::Errno::MFILE.into()) } else { Ok(()) });
    assert_exhausted(open.append(batch(50, 10, 800)));
    // It would lie where the new segment may come back after a power cut.
    assert_exhausted(open.append(batch(50, 10, 100)));
    assert_eq!(open.log.status().state, LogState::Online);
    fs.hook(|_, _| Ok(()));
    open.fill(1, 100);
    open.fill(10, 800);
    open.crash();
    fixture.reopen().assert_numbered(0, 160);
}

#[test]
fn a_segment_that_cannot_be_opened_to_be_read_fails_that_read() {
    let (mut fixture, fs) = hooked();
    fixture.config.tail_cache_bytes = 0;
    let open = fixture.create();
    open.fill(5, 100);
    exhaust(&fs);
    let error = open.log.read(Offset::ZERO, 1).unwrap_err();
    assert!(matches!(&error, ReadError::Io { source, .. } if is_exhausted(source)), "{error}");
    fs.hook(|_, _| Ok(()));
    open.assert_numbered(0, 50);
}

#[test]
fn a_segment_stays_open_until_as_many_as_allowed_have_been_opened_after_it() {
    let (mut fixture, fs) = hooked();
    fixture.config.open_segments = 16;
    fixture.config.tail_cache_bytes = 0;
    fixture.spec.config.segment_bytes = 1_000;
    let open = fixture.create();
    open.fill(20, 100);
    open.settle();
    assert_eq!(fixture.files("log").len(), 20);
    let (told, opened) = channel();
    fs.hook(move |step, path| {
        if step == Step::Open && path.ends_with(FIRST) {
            told.send(()).unwrap();
        }
        Ok(())
    });
    let read = |segments: std::ops::Range<i64>| {
        for i in segments {
            open.log.read(Offset::clamped(i * 10), 1).unwrap();
        }
        opened.try_iter().count()
    };
    assert!(read(0..1) > 0);
    assert_eq!(read(1..16), 0);
    assert_eq!(read(0..1), 0, "it is the sixteenth");
    assert_eq!(read(16..17), 0);
    assert!(read(0..1) > 0, "it had to go");
}

//! What the file of a log is besides its content: the blocks beyond its end, and what of it stays in the page cache.

use std::os::unix::fs::MetadataExt;

use super::hook_fs::{HookFs, Step, hooked};
use super::stepped::Stepped;
use super::*;

/// What is lost at the end of a file to whole blocks, at most.
const SLACK_BYTES: u64 = 64 << 10;

fn held_bytes(fixture: &Fixture, name: &str) -> u64 {
    std::fs::metadata(fixture.log_dir().join(name)).unwrap().blocks() * 512
}

fn len_bytes(fixture: &Fixture, name: &str) -> u64 {
    std::fs::metadata(fixture.log_dir().join(name)).unwrap().len()
}

fn holds_no_more_than_its_length(fixture: &Fixture, name: &str) -> bool {
    held_bytes(fixture, name) <= len_bytes(fixture, name) + SLACK_BYTES
}

/// Tells of each step of these kinds on a log file from now on.
fn hear(fs: &HookFs, of: [Step; 2]) -> Receiver<Step> {
    let (told, heard) = channel();
    fs.hook(move |step, path| {
        if of.contains(&step) && path.extension().is_some_and(|extension| extension == "log") {
            let _ = told.send(step);
        }
        Ok(())
    });
    heard
}

#[test]
fn a_log_that_writes_a_lot_has_blocks_beyond_its_end_until_it_is_closed() {
    let fixture = Fixture::new();
    let open = fixture.create();
    open.append(batch(0, 10, 1_000)).unwrap();
    assert!(holds_no_more_than_its_length(&fixture, FIRST), "none before its first step");
    for i in 1..8 {
        open.append(batch(i, 10, 64 << 10)).unwrap();
    }
    let (held, len) = (held_bytes(&fixture, FIRST), len_bytes(&fixture, FIRST));
    assert!(held > len + SLACK_BYTES, "{held} of {len}");
    open.store.close().unwrap();
    assert!(holds_no_more_than_its_length(&fixture, FIRST));
    assert_eq!(len_bytes(&fixture, FIRST), len);
}

#[test]
fn a_log_that_writes_no_more_gives_back_what_was_set_aside() {
    let fixture = Fixture::new();
    let mut log = Stepped::new(&fixture);
    for i in 0..8 {
        log.send(batch(i, 10, 64 << 10));
        log.write();
    }
    log.crew.writers[0].give_back_if_slow();
    assert!(!holds_no_more_than_its_length(&fixture, FIRST), "it may go on");
    fixture.clock.advance(10_000);
    log.crew.writers[0].give_back_if_slow();
    assert!(holds_no_more_than_its_length(&fixture, FIRST));
    log.send(batch(8, 10, 64 << 10));
    log.write();
    log.sync();
    assert_eq!(log.open.log.durable_offset(), Offset::clamped(90));
}

#[test]
fn a_rolled_segment_holds_no_blocks_beyond_its_end() {
    let mut fixture = Fixture::new();
    fixture.spec.config.segment_bytes = 4 << 20;
    let open = fixture.create();
    for i in 0..5 {
        open.append(batch(i, 10, 100 << 10)).unwrap();
    }
    assert_eq!(fixture.files("log").len(), 2);
    assert!(holds_no_more_than_its_length(&fixture, FIRST));
}

#[test]
fn blocks_that_a_crash_left_beyond_the_end_are_given_back() {
    for segments in [1, 2] {
        let mut fixture = Fixture::new();
        if segments == 2 {
            fixture.spec.config.segment_bytes = 150_000;
        }
        let open = fixture.create();
        for i in 0..2 {
            open.append(batch(i, 10, 10_000)).unwrap();
        }
        drop(open);
        let names = fixture.files("log");
        assert_eq!(names.len(), segments);
        // As a process that is killed right after the roll leaves them: nothing is sealed.
        let empty = super::super::seals::encode(Offset::ZERO, &[]);
        std::fs::write(fixture.log_dir().join("seals"), empty).unwrap();
        for name in &names {
            let file = RealFs.open(&fixture.log_dir().join(name), OpenHow::Write).unwrap();
            file.preallocate(1 << 20).unwrap();
            assert!(!holds_no_more_than_its_length(&fixture, name));
        }
        let open = fixture.reopen();
        assert_eq!(open.log.durable_offset(), Offset::clamped(20));
        for name in &names {
            assert!(holds_no_more_than_its_length(&fixture, name), "{name}");
        }
    }
}

#[test]
fn where_no_blocks_can_be_set_aside_appends_go_on() {
    let (fixture, fs) = hooked();
    let open = fixture.create();
    let (told, tried) = channel();
    fs.hook(move |step, _| {
        if step == Step::Preallocate {
            let _ = told.send(());
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    });
    for i in 0..8 {
        open.append(batch(i, 10, 64 << 10)).unwrap();
    }
    assert!(tried.try_iter().count() > 0);
    assert_eq!(open.log.durable_offset(), Offset::clamped(80));
}

#[test]
fn appends_stay_in_the_page_cache_while_a_reader_lags_near_the_end() {
    use Step::{Write, WriteUncached};
    let (mut fixture, fs) = hooked();
    // Every reader lags beyond it.
    fixture.config.tail_cache_bytes = 0;
    let open = fixture.create();
    let steps = hear(&fs, [Write, WriteUncached]);
    let append = || {
        open.append(batch(0, 10, 10_000)).unwrap();
        steps.try_iter().collect::<Vec<_>>()
    };
    assert_eq!(append(), [WriteUncached, Write], "nobody reads");
    open.append(batch(0, 1, 100)).unwrap();
    assert_eq!(steps.try_iter().collect::<Vec<_>>(), [Write], "a small one");
    open.log.read(Offset::ZERO, 1).unwrap();
    assert_eq!(append(), [Write]);
    assert_eq!(append(), [Write]);
    fixture.clock.advance(10_000);
    assert_eq!(append(), [WriteUncached, Write], "it has not read for a while");

    let lags = || open.log.view.take_lagging();
    let next = open.log.read(Offset::ZERO, 1).unwrap().next_offset;
    // All of it has been checked then.
    open.log.read(Offset::ZERO, u64::MAX).unwrap();
    assert_eq!((lags(), lags()), (true, false));
    assert!(open.log.read_now(next, 1).unwrap().is_some(), "it goes on in what is in memory");
    assert!(lags());
}

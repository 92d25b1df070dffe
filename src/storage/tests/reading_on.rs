//! Reading on from where a read has ended, without waiting for the disk.

use super::hook_fs::HookFs;
use super::*;

const SIZE: usize = 200;

#[test]
fn what_has_been_read_since_the_start_is_read_on_without_waiting() {
    let fixture = Fixture::fine(100_000);
    let open = fixture.create();
    open.fill(1_000, SIZE);
    open.settle();
    let segments = open.log.view.segments();
    assert!(segments.len() > 3 && segments.last().unwrap().seal().is_none());
    assert!(open.log.read_now(Offset::ZERO, 10_000).unwrap().is_none(), "nobody has been here yet");
    open.assert_numbered(0, 10_000);

    let mut offset = Offset::ZERO;
    while offset < open.log.durable_offset() {
        let now = open.log.read_now(offset, 10_000).unwrap().expect("it is in memory and has been checked");
        let read = open.log.read(offset, 10_000).unwrap();
        assert_eq!(
            (now.next_offset, now.size_bytes, &now.chunks),
            (read.next_offset, read.size_bytes, &read.chunks)
        );
        offset = now.next_offset;
    }
    let too_much = open.log.read_now(Offset::ZERO, 1 << 30).unwrap();
    assert!(too_much.is_none(), "a lot is read on another thread");
    let log = open.log.clone();
    open.close();
    assert!(matches!(log.read_now(Offset::ZERO, 10_000), Err(ReadError::Closed)));
}

#[test]
fn what_has_not_been_checked_since_the_start_is_not_read_at_once() {
    let fixture = Fixture::fine(100_000);
    let open = fixture.create();
    open.fill(1_000, SIZE);
    open.settle();
    open.close();
    let len = std::fs::metadata(fixture.log_dir().join(FIRST)).unwrap().len() as usize;
    change(&fixture, FIRST, |bytes| bytes[len / 2] ^= 1);
    let open = fixture.reopen();
    let last = open.log.view.segments().last().unwrap().base();
    // In the first segment, whose only block is damaged, and in the active one.
    for begin in [Offset::ZERO, last] {
        let read = open.log.read(begin, 1).unwrap();
        assert!(open.log.read_now(read.next_offset, 10_000).unwrap().is_none());
    }
    let mut offset = Offset::ZERO;
    let error = loop {
        match open.log.read_now(offset, 10_000).unwrap() {
            Some(_) => panic!("{offset} was read from a damaged block without a look at it"),
            None => match open.log.read(offset, 10_000) {
                Ok(read) => offset = read.next_offset,
                Err(error) => break error,
            },
        }
    };
    assert!(matches!(error, ReadError::DataLoss { .. }), "{error}");
}

#[test]
fn the_batches_of_an_active_segment_are_checked_once() {
    let fixture = Fixture::fine(1 << 30);
    let open = fixture.create();
    open.fill(100, SIZE);
    let segments = open.log.view.segments();
    let [active] = segments.as_slice() else { panic!("one segment") };
    let visible = active.visible_bytes();
    assert_eq!(active.verified_end(0), 0);
    // From the middle on, then from the start up to it and beyond.
    let middle = open.log.read(Offset::clamped(500), 1).unwrap();
    assert_eq!(active.verified_end(0), 0);
    let first = open.log.read(Offset::ZERO, visible / 4).unwrap();
    assert_eq!(active.verified_end(0), first.size_bytes);
    assert!(!active.is_verified(&(0..first.size_bytes + middle.size_bytes)));
    open.assert_numbered(0, 1_000);
    assert_eq!(active.verified_end(0), visible);
    open.fill(1, SIZE);
    assert_eq!(active.verified_end(0), visible, "what came after has not been looked at");
}

#[test]
fn what_vanishes_while_it_is_read_on_is_not_an_answer() {
    let fs = HookFs::default();
    let mut fixture = Fixture::fine(100_000);
    fixture.fs = Arc::new(fs.clone());
    let open = fixture.create();
    open.fill(100, SIZE);
    open.settle();
    open.assert_numbered(0, 1_000);
    let read = open.log.read(Offset::ZERO, 1).unwrap();
    fs.vanish_once(read.size_bytes);
    let now = open.log.read_now(read.next_offset, 1).unwrap();
    assert!(fs.has_vanished());
    assert!(now.is_none_or(|now| !now.lease.is_intact()));
    open.assert_numbered(0, 1_000);
}

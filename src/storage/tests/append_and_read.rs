//! Appending, rolling and reading while everything works.

use std::sync::Mutex;

use super::*;

#[test]
fn what_is_acknowledged_is_read_in_order_from_memory() {
    let fixture = Fixture::new();
    let open = fixture.create();
    assert_eq!(open.append(batch(0, 3, 100)).unwrap(), Offset::ZERO);
    assert_eq!(open.append(batch(3, 2, 100)).unwrap(), Offset::clamped(3));
    assert_eq!(open.log.durable_offset(), Offset::clamped(5));
    open.assert_numbered(0, 5);
    assert_eq!(open.store.stats().segment_reads, 0);
    assert!(open.store.stats().tail_cache_reads > 0);
    let read = open.log.read(Offset::clamped(4), 1).unwrap();
    assert_eq!(read.next_offset, Offset::clamped(5), "the whole batch that holds the offset");
    let end = open.log.read_now(Offset::clamped(5), 1).unwrap().unwrap();
    assert!(end.chunks.is_empty());
}

#[test]
fn offsets_outside_the_log_are_refused_with_the_range() {
    let fixture = Fixture::new();
    let open = fixture.create();
    open.fill(1, 10);
    let Err(ReadError::OutOfRange { offset, log_start_offset, durable_offset }) =
        open.log.read(Offset::clamped(11), 1)
    else {
        panic!("read beyond the end");
    };
    assert_eq!((offset.get(), log_start_offset.get(), durable_offset.get()), (11, 0, 10));
}

#[test]
fn without_a_tail_cache_everything_comes_out_of_the_maps() {
    let mut fixture = Fixture::new();
    fixture.config.tail_cache_bytes = 0;
    let open = fixture.create();
    open.fill(200, 1000);
    open.assert_numbered(0, 2000);
    open.assert_numbered(1234, 2000);
    assert_eq!(open.store.stats().tail_cache_reads, 0);
}

#[test]
fn a_full_segment_is_rolled_and_sealed_and_still_read() {
    let fixture = Fixture::fine(50_000);
    let open = fixture.create();
    open.fill(100, 500);
    open.settle();
    let logs = fixture.files("log");
    assert!(logs.len() >= 10, "{logs:?}");
    assert_eq!(open.log.status().segments, logs.len());
    for name in &logs {
        let len = std::fs::metadata(fixture.log_dir().join(name)).unwrap().len();
        assert!(len <= 50_000, "{name} has {len} bytes");
    }
    // All but the active one are sealed, with their indexes.
    assert_eq!(fixture.files("index").len(), logs.len() - 1);
    for from in [0, 1, 499, 500, 777, 999] {
        open.assert_numbered(from, 1000);
    }
}

#[test]
fn a_batch_larger_than_a_segment_has_one_to_itself() {
    let mut fixture = Fixture::new();
    fixture.spec.config.segment_bytes = 1000;
    let open = fixture.create();
    open.fill(3, 5000);
    assert_eq!(fixture.files("log").len(), 3);
    open.assert_numbered(0, 30);
}

#[test]
fn an_old_segment_is_rolled_by_the_next_append() {
    let mut fixture = Fixture::new();
    fixture.spec.config.segment_ms = 1000;
    let open = fixture.create();
    open.fill(1, 10);
    fixture.clock.advance(1000);
    open.fill(1, 10);
    assert_eq!(fixture.files("log").len(), 1, "not older than allowed");
    fixture.clock.advance(1);
    open.fill(1, 10);
    assert_eq!(fixture.files("log").len(), 2);
    open.close();
    fixture.clock.advance(5000);
    let open = fixture.reopen();
    open.fill(1, 10);
    assert_eq!(fixture.files("log").len(), 3, "the age of a segment survives a restart");
    open.assert_numbered(0, 40);
}

#[test]
fn a_wall_clock_that_jumps_rolls_once_and_refuses_nothing() {
    const DAY_MS: i64 = 86_400_000;
    let mut fixture = Fixture::new();
    fixture.spec.config.segment_ms = 1000;
    let open = fixture.create();
    open.fill(1, 10);
    fixture.clock.jump(365 * DAY_MS);
    open.fill(1, 10);
    open.fill(1, 10);
    assert_eq!(fixture.files("log").len(), 2, "forward: the segment looks old, once");
    fixture.clock.jump(-365 * DAY_MS);
    open.fill(1, 10);
    fixture.clock.advance(1000);
    open.fill(1, 10);
    assert_eq!(fixture.files("log").len(), 2, "back: it looks young");
    fixture.clock.advance(1);
    open.fill(1, 10);
    assert_eq!(fixture.files("log").len(), 3, "and is as old from then on as it is");
    open.assert_numbered(0, 60);
}

#[test]
fn a_full_index_rolls_the_segment() {
    let mut fixture = Fixture::new();
    fixture.config.index_interval_bytes = 1 << 10;
    fixture.config.index_max_bytes = 4 << 10;
    let open = fixture.create();
    for _ in 0..100 {
        open.fill(10, 200);
    }
    open.settle();
    assert!(fixture.files("log").len() > 1);
    for extension in ["index", "timeindex"] {
        for name in fixture.files(extension) {
            assert!(std::fs::metadata(fixture.log_dir().join(name)).unwrap().len() <= 4 << 10);
        }
    }
    open.assert_numbered(0, 10_000);
}

#[test]
fn the_first_record_at_or_after_a_time_is_found() {
    let fixture = Fixture::fine(20_000);
    let open = fixture.create();
    for i in 0..100 {
        open.append(batch_at(NOW_MS + i * 100, i as u64 * 10, 10, 50)).unwrap();
    }
    let find = |open: &Open, timestamp_ms: i64| {
        open.log
            .find_timestamp(timestamp_ms, 1 << 20)
            .unwrap()
            .map(|found| (found.offset.get(), found.timestamp_ms))
    };
    let check = |open: &Open| {
        assert_eq!(find(open, 0), Some((0, NOW_MS)));
        assert_eq!(find(open, NOW_MS + 1), Some((10, NOW_MS + 100)));
        assert_eq!(find(open, NOW_MS + 5000), Some((500, NOW_MS + 5000)));
        assert_eq!(find(open, NOW_MS + 9900), Some((990, NOW_MS + 9900)));
        assert_eq!(find(open, NOW_MS + 9901), None);
    };
    check(&open);
    open.close();
    let open = fixture.reopen();
    check(&open);
    open.delete_records(505).unwrap();
    assert_eq!(find(&open, 0), Some((505, NOW_MS + 5000)), "nothing below the start of the log");
}

#[test]
fn deleted_records_are_out_of_range_and_their_segments_go() {
    let mut fixture = Fixture::new();
    fixture.spec.config.segment_bytes = 10_000;
    let open = fixture.create();
    open.fill(100, 100);
    open.settle();
    let before = fixture.files("log").len();
    assert_eq!(open.delete_records(555).unwrap(), Offset::clamped(555));
    assert!(fixture.files("log").len() <= before / 2 + 1);
    assert!(matches!(open.log.read(Offset::clamped(554), 1), Err(ReadError::OutOfRange { .. })));
    open.assert_numbered(555, 1000);
    assert!(matches!(open.delete_records(1001), Err(LogError::OutOfRange { .. })));
    assert_eq!(open.delete_records(3).unwrap(), Offset::clamped(555), "the start never moves back");
    open.crash();
    let open = fixture.reopen();
    assert_eq!(open.log.log_start_offset(), Offset::clamped(555), "and survives a crash");
    open.assert_numbered(555, 1000);
}

#[test]
fn with_durability_os_nothing_waits_for_a_sync() {
    let mut fixture = Fixture::new();
    fixture.spec.config.durability = Durability::Os;
    fixture.config.flush_interval_ms = 3_600_000;
    let open = fixture.create();
    open.fill(20, 100);
    assert_eq!(open.store.stats().syncs, 0);
    open.assert_numbered(0, 200);
    open.configure(LogConfig { durability: Durability::Fsync, ..fixture.spec.config });
    open.fill(1, 100);
    assert_eq!(open.store.stats().syncs, 1);
    open.configure(fixture.spec.config);
    open.fill(20, 100);
    open.close();
    fixture.reopen().assert_numbered(0, 410);
}

#[test]
fn the_listener_hears_every_end_of_the_durable_log_in_order() {
    let fixture = Fixture::new();
    let open = fixture.create();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&heard);
    open.log.listen(Arc::new(move |offset| listener.lock().unwrap().push(offset.get())));
    open.fill(50, 10);
    let heard = heard.lock().unwrap();
    assert_eq!((heard[0], heard[heard.len() - 1]), (0, 500));
    assert!(heard.is_sorted());
}

#[test]
fn appends_that_arrive_together_share_a_sync() {
    let fixture = Fixture::new();
    let open = fixture.create();
    open.fill(500, 1000);
    let stats = open.store.stats();
    assert_eq!((stats.appended_batches, stats.sync_group_appends_total), (500, 500));
    assert!(stats.syncs < 250, "{} syncs", stats.syncs);
    open.assert_numbered(0, 5000);
}

#[test]
fn a_deleted_log_is_closed_and_its_directory_goes() {
    let fixture = Fixture::new();
    let open = fixture.create();
    open.fill(10, 100);
    open.store.delete_logs(std::slice::from_ref(&open.log), &[]).unwrap();
    assert!(!fixture.log_dir().exists());
    assert!(matches!(open.append(batch(0, 1, 1)), Err(AppendError::Closed)));
    assert!(matches!(open.log.read(Offset::ZERO, 1), Err(ReadError::Closed)));
    // The name is free again, for another topic.
    let spec = LogSpec { topic_id: TopicId::from_bytes([8; 16]), ..fixture.spec.clone() };
    let log = open.store.create_logs(&[spec]).unwrap().remove(0);
    assert_eq!(log.durable_offset(), Offset::ZERO);
    open.store.close().unwrap();
}

#[test]
fn small_files_of_the_layer_above_are_kept() {
    let fixture = Fixture::new();
    let open = fixture.create();
    assert_eq!(open.store.read_file("catalogue").unwrap(), None);
    open.store.replace_file("catalogue", b"one").unwrap();
    open.store.replace_file("catalogue", b"two").unwrap();
    assert_eq!(open.store.read_file("catalogue").unwrap().as_deref(), Some(b"two".as_slice()));
    assert_eq!(open.store.read_file("catalogue.old").unwrap().as_deref(), Some(b"one".as_slice()));
    std::fs::write(fixture.dir.path().join("catalogue"), "rubbish").unwrap();
    assert!(open.store.read_file("catalogue").is_err());
}

#[test]
fn after_the_orderly_end_everything_is_refused() {
    let fixture = Fixture::new();
    let open = fixture.create();
    open.store.close().unwrap();
    assert!(matches!(open.append(batch(0, 1, 1)), Err(AppendError::Closed)));
    assert!(matches!(open.delete_records(0), Err(LogError::Closed)));
    open.store.close().unwrap();
}

//! What is known of producers after a start, however the last run ended and whatever has become of the files.

use super::*;

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
    for lost in [&[90][..], &[70, 90]] {
        let fixture = Fixture::new();
        let open = fixture.create();
        open.put_all(0, 100, 100);
        open.crash();
        change(&fixture, FIRST, |bytes| {
            bytes.truncate(10 * size - 30);
            bytes[7 * size + 100] ^= u8::from(lost.contains(&70));
        });
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

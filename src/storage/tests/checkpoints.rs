//! What a checkpoint says is on the disk: nothing that could not be made durable before it.

use std::path::PathBuf;

use parking_lot::Mutex;

use super::super::checkpoint::{Checkpoint, FILE};
use super::super::checkpointer::logs_at_a_time;
use super::hook_fs::{Step, hooked};
use super::*;

/// Appends five batches of producer 7.
fn append(open: &Open) {
    let from = open.log.durable_offset().get() as i32;
    for i in 0..5 {
        open.append(stamped(0, from + i * 10, 100)).unwrap();
    }
}

#[test]
fn a_recovery_point_stays_where_it_was_when_a_file_that_belongs_to_it_cannot_be_synced() {
    for failing in [".index", ".timeindex", ".snapshot.tmp"] {
        let (mut fixture, fs) = hooked();
        fixture.config.index_interval_bytes = 1 << 10;
        let open = fixture.create();
        let recovery_point = || {
            let path = fixture.dir.path().join(FILE);
            let checkpoint = Checkpoint::read_file(&RealFs, &path).unwrap().unwrap();
            checkpoint.logs.into_values().next().unwrap().recovery_point.mark.offset.get()
        };
        // A new start comes with a checkpoint.
        append(&open);
        open.delete_records(10).unwrap();
        assert_eq!(recovery_point(), 50);
        append(&open);
        fs.hook(move |step, path| {
            let fails = step == Step::Sync && path.to_string_lossy().ends_with(failing);
            if fails { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
        });
        open.delete_records(20).unwrap();
        assert_eq!(recovery_point(), 50, "{failing}");
        fs.heal();
        open.delete_records(30).unwrap();
        assert_eq!(recovery_point(), 100, "{failing}");
        open.crash();
        let open = fixture.reopen();
        assert_eq!(open.log.durable_offset().get(), 100);
        assert!(open.send(stamped(0, 90, 100)).recv().unwrap().unwrap().duplicate);
    }
}

#[test]
fn the_names_of_snapshots_are_durable_before_a_checkpoint_names_them_however_many_there_are() {
    for logs in [2, 6] {
        let (fixture, fs) = hooked();
        let store = fixture.store();
        store.start().unwrap();
        let specs = fixture.specs(logs);
        let mut handles = store.create_logs(&specs).unwrap();
        let mut open = Open { store, log: handles.remove(0) };
        append(&open);
        for log in handles {
            open.log = log;
            append(&open);
        }
        let steps = Arc::new(Mutex::new(Vec::<(Step, PathBuf)>::new()));
        let seen = Arc::clone(&steps);
        fs.hook(move |step, path| {
            seen.lock().push((step, path.to_owned()));
            Ok(())
        });
        open.delete_records(10).unwrap();
        let steps = steps.lock();
        let place = |is_it: &dyn Fn(Step, &Path) -> bool| {
            steps.iter().rposition(|(step, path)| is_it(*step, path)).unwrap()
        };
        let checkpoint = place(&|step, path| step == Step::Rename && path.ends_with(FILE));
        for spec in &specs {
            let dir = fixture.dir.path().join(format!("{}-{}", spec.topic, spec.partition));
            let named = place(&|step, path| {
                step == Step::Rename
                    && path.starts_with(&dir)
                    && path.extension().is_some_and(|e| e == "snapshot")
            });
            let synced = place(&|step, path| step == Step::SyncDir && path == dir);
            assert!(named < synced && synced < checkpoint, "{}", dir.display());
        }
    }
}

#[test]
fn a_start_whose_checkpoint_cannot_be_written_fails_unless_there_is_only_no_room() {
    for (kind, starts) in [(io::ErrorKind::PermissionDenied, false), (io::ErrorKind::StorageFull, true)] {
        let (fixture, fs) = hooked();
        fixture.create().close();
        let store = fixture.store();
        fs.hook(move |step, path| {
            let fails = step == Step::Open && path.ends_with("checkpoint.tmp");
            if fails { Err(kind.into()) } else { Ok(()) }
        });
        assert_eq!(store.start().is_ok(), starts, "{kind}");
    }
}

#[test]
fn the_files_of_a_checkpoint_take_no_more_than_an_eighth_of_the_descriptors() {
    for (descriptors, logs) in [(1, 1), (24, 1), (240, 10), (1_024, 42), (1 << 20, 128)] {
        assert_eq!(logs_at_a_time(descriptors), logs, "{descriptors}");
    }
}

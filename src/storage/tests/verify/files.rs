//! Damage to everything beside the logs: indexes, small files, directories.

use super::super::super::checkpoint::{Checkpoint, LogCheckpoint};
use super::super::super::producer_snapshot;
use super::*;

#[test]
fn indexes_that_are_not_true_are_notes() {
    let fixture = closed();
    let damages: [fn(&mut Vec<u8>); 6] = [
        Vec::clear,
        |bytes| bytes.fill(0),
        |bytes| bytes.truncate(bytes.len() - 1),
        |bytes| bytes[11] ^= 1,
        |bytes| bytes.extend_from_within(..12),
        |bytes| bytes.push(0),
    ];
    let names = [fixture.files("index"), fixture.files("timeindex")].concat();
    for name in names {
        let path = fixture.log_dir().join(&name);
        let good = std::fs::read(&path).unwrap();
        if good.is_empty() {
            continue;
        }
        for (i, damage) in damages.into_iter().enumerate() {
            change_at(&path, damage);
            let report = verify(&fixture);
            assert_eq!(
                report.findings.iter().map(told).collect::<Vec<_>>(),
                [(FindingKind::StaleIndex, name.clone(), None)],
                "damage {i}"
            );
            assert_eq!(report.count(Severity::Error), 0);
            std::fs::write(&path, &good).unwrap();
        }
        std::fs::remove_file(&path).unwrap();
        assert_only(&verify(&fixture), FindingKind::StaleIndex, &name, None);
        std::fs::write(&path, &good).unwrap();
    }
    assert_eq!(verify(&fixture).findings, []);
}

#[test]
fn a_recovery_point_between_batches_is_an_error() {
    let fixture = closed();
    let path = fixture.dir.path().join("checkpoint");
    let good = Checkpoint::read_file(&*fixture.fs, &path).unwrap().unwrap();
    let name = fixture.files("log").pop().unwrap();
    let with = |change: &dyn Fn(&mut LogCheckpoint)| {
        let mut checkpoint = good.clone();
        checkpoint.logs.values_mut().for_each(change);
        checkpoint.replace(&*fixture.fs, fixture.dir.path()).unwrap();
        verify(&fixture)
    };
    let report = with(&|log| log.recovery_point.mark.position -= 1);
    assert_only(&report, FindingKind::BadCheckpoint, &name, None);
    let report = with(&|log| log.recovery_point.mark.segment = Offset::clamped(12_345));
    assert_only(&report, FindingKind::BadCheckpoint, "orders-0", None);
    let report = with(&|log| log.log_start = Offset::clamped(5000));
    assert_only(&report, FindingKind::StaleEntry, "orders-0", None);
    let report = with(&|log| log.recovery_point.mark.offset = Offset::clamped(1010));
    assert_only(&report, FindingKind::ShortLog, &name, Some((1000, Some(1009))));
}

#[test]
fn small_files_are_told_by_name() {
    let fixture = closed();
    let log_dir = fixture.log_dir();
    let root = fixture.dir.path().to_owned();
    for (dir, name) in [
        (&log_dir, "seals"),
        (&log_dir, "leader-epochs"),
        (&log_dir, "topic-id"),
        (&root, "checkpoint"),
        (&root, "checkpoint.old"),
        (&root, "meta.toml"),
    ] {
        let path = dir.join(name);
        let good = std::fs::read(&path).unwrap();
        change_at(&path, |bytes| {
            let last = bytes.len() - 1;
            bytes[last] = bytes[last].wrapping_add(0x80);
        });
        assert_only(&verify(&fixture), FindingKind::DamagedFile, name, None);
        std::fs::remove_file(&path).unwrap();
        let report = verify(&fixture);
        match name {
            "checkpoint.old" => assert_eq!(report.findings, [], "there need not be one"),
            name => assert_only(&report, FindingKind::MissingFile, name, None),
        }
        std::fs::write(&path, good).unwrap();
    }
    let path = root.join("durable");
    change_at(&path, |bytes| bytes[20] ^= 1);
    assert_only(&verify(&fixture), FindingKind::StaleEntry, "durable", None);
    std::fs::remove_file(&path).unwrap();
    assert_only(&verify(&fixture), FindingKind::MissingFile, "durable", None);
}

#[test]
fn directories_are_held_against_what_there_should_be() {
    let mut fixture = closed();
    let root = fixture.dir.path().to_owned();
    std::fs::create_dir_all(root.join("strange-0")).unwrap();
    assert_only(&verify(&fixture), FindingKind::UnknownDirectory, "strange-0", None);
    std::fs::remove_dir(root.join("strange-0")).unwrap();

    std::fs::rename(fixture.log_dir(), root.join("elsewhere")).unwrap();
    let report = verify(&fixture);
    let kinds: Vec<_> = report.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [FindingKind::UnknownDirectory, FindingKind::MissingDirectory]);
    std::fs::rename(root.join("elsewhere"), fixture.log_dir()).unwrap();

    fixture.spec.topic_id = TopicId::from_bytes([9; 16]);
    let report = verify(&fixture);
    assert!(report.findings.iter().any(|finding| finding.kind == FindingKind::WrongTopic), "{report:#?}");
}

#[test]
fn what_lies_about_is_told_as_notes() {
    let fixture = closed();
    let (root, log_dir) = (fixture.dir.path().to_owned(), fixture.log_dir());
    for (path, kind) in [
        (log_dir.join("00000000000000000000.1.torn"), FindingKind::Leftover),
        (log_dir.join("seals.tmp"), FindingKind::Leftover),
        (log_dir.join("00000000000000099999.index"), FindingKind::Leftover),
        (log_dir.join("00000000000000000000.index.tmp"), FindingKind::Leftover),
        (log_dir.join("00000000000000000007.snapshot.tmp"), FindingKind::Leftover),
        (log_dir.join("00000000000000000007.snapshot"), FindingKind::StaleSnapshot),
        (log_dir.join("00000000000000000000.5.torn"), FindingKind::UnknownFile),
        (log_dir.join("notes.txt"), FindingKind::UnknownFile),
        (root.join("checkpoint.tmp"), FindingKind::Leftover),
        (root.join("notes.txt"), FindingKind::UnknownFile),
        (root.join(".deleted/some-0"), FindingKind::Leftover),
        (root.join(".set-aside/17"), FindingKind::Leftover),
    ] {
        let existed = path.parent().unwrap().exists();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "x").unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let report = verify(&fixture);
        assert_only(&report, kind, name, None);
        assert_eq!(report.count(Severity::Error), 0);
        std::fs::remove_file(&path).unwrap();
        if !existed {
            std::fs::remove_dir(path.parent().unwrap()).unwrap();
        }
    }
}

#[test]
fn a_snapshot_of_producers_matters_if_the_checkpoint_names_it() {
    let fixture = Fixture::new();
    let open = fixture.create();
    open.append(stamped(0, 0, 100)).unwrap();
    open.close();
    let names = fixture.files("snapshot");
    let [named] = &names[..] else { panic!("{names:?}") };
    assert_eq!(verify(&fixture).findings, []);
    let path = fixture.log_dir().join(named);
    let good = std::fs::read(&path).unwrap();
    change_at(&path, |bytes| bytes[20] ^= 1);
    assert_only(&verify(&fixture), FindingKind::DamagedFile, named, None);
    std::fs::remove_file(&path).unwrap();
    assert_only(&verify(&fixture), FindingKind::MissingFile, named, None);
    std::fs::write(&path, &good).unwrap();
    // Others are spare, and none is taken that says more than the log has.
    let offset = |offset| Offset::clamped(offset);
    for (at, bytes) in [(5, good), (11, producer_snapshot::encode(offset(11), &[]))] {
        let other = producer_snapshot::name(offset(at));
        std::fs::write(fixture.log_dir().join(&other), bytes).unwrap();
        let report = verify(&fixture);
        assert_only(&report, FindingKind::StaleSnapshot, &other, None);
        assert_eq!(report.count(Severity::Error), 0);
        std::fs::remove_file(fixture.log_dir().join(other)).unwrap();
    }
}

#[test]
fn without_the_leader_epochs_nothing_else_is_found() {
    let (fixture, open) = filled();
    open.crash();
    // Batches of a second epoch.
    let open = fixture.reopen();
    open.fill(50, 100);
    open.settle();
    open.close();
    std::fs::remove_file(fixture.log_dir().join("leader-epochs")).unwrap();
    assert_only(&verify(&fixture), FindingKind::MissingFile, "leader-epochs", None);
}

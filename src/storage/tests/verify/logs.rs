//! Damage to the logs themselves: batches, their ends, seals.

use super::super::super::seals;
use super::super::rot::bad_and_then_good;
use super::*;

#[test]
fn a_damaged_batch_is_told_by_its_offsets_wherever_it_is_hit() {
    let fixture = closed();
    let names = fixture.files("log");
    // The length, the epoch, the magic byte, the checksum, the last offset delta, the count, a record.
    for at in [9, 15, 16, 18, 24, 58, 200] {
        for name in [&names[1], names.last().unwrap()] {
            let path = fixture.log_dir().join(name);
            let (position, base, size) = batches(&path)[1];
            change_at(&path, |bytes| bytes[position + at] ^= 4);
            let report = verify(&fixture);
            assert_only(&report, FindingKind::BadBatch, name, Some((base, Some(base + 9))));
            assert_eq!(
                report.findings[0].bytes,
                Some(position as u64..(position + size) as u64),
                "byte {at}"
            );
            assert_eq!(report.totals.records, 990, "byte {at}");
            change_at(&path, |bytes| bytes[position + at] ^= 4);
        }
    }
    // An offset that is not its own: those after it go on as if nothing were.
    let path = fixture.log_dir().join(&names[1]);
    let (position, base, _) = batches(&path)[1];
    for bit in [1, 64] {
        change_at(&path, |bytes| bytes[position + 6] ^= bit);
        assert_only(&verify(&fixture), FindingKind::BadBatch, &names[1], Some((base, Some(base + 9))));
        change_at(&path, |bytes| bytes[position + 6] ^= bit);
    }
    assert_eq!(verify(&fixture).findings, []);
}

#[test]
fn damage_to_many_batches_side_by_side_is_one_finding() {
    let fixture = closed();
    let name = &fixture.files("log")[0];
    let path = fixture.log_dir().join(name);
    let places = batches(&path);
    let (from, to) = (places[2].0 + 5, places[6].0 + 12);
    change_at(&path, |bytes| bytes[from..to].fill(0));
    assert_only(&verify(&fixture), FindingKind::BadBatch, name, Some((20, Some(69))));
}

#[test]
fn missing_batches_and_ends_are_told_by_offset() {
    let (fixture, open) = filled();
    open.crash();
    let name = fixture.files("log").pop().unwrap();
    let path = fixture.log_dir().join(&name);
    let good = std::fs::read(&path).unwrap();
    let (position, base, size) = batches(&path)[1];
    change_at(&path, |bytes| drop(bytes.drain(position..position + size)));
    // Where offsets are missing, the batch that begins after them cannot be read, either.
    assert_only(&verify(&fixture), FindingKind::BadBatch, &name, Some((base, Some(base + 19))));
    std::fs::write(&path, &good).unwrap();
    change_at(&path, |bytes| bytes.truncate(position));
    assert_only(&verify(&fixture), FindingKind::ShortLog, &name, Some((base, Some(999))));
    change_at(&path, |bytes| bytes.extend_from_slice(&good[position..position + 70]));
    assert_only(&verify(&fixture), FindingKind::BadBatch, &name, Some((base, Some(999))));
}

#[test]
fn sealed_segments_are_held_against_the_manifest() {
    let fixture = closed();
    let names = fixture.files("log");
    let manifest = seals::read(&*fixture.fs, &fixture.log_dir()).unwrap().unwrap();
    let seal = &manifest.seals[1];
    let (base, next) = (seal.base.get(), seal.next.get());
    let path = fixture.log_dir().join(&names[1]);
    let good = std::fs::read(&path).unwrap();
    let last = *batches(&path).last().unwrap();

    change_at(&path, |bytes| bytes.truncate(last.0 + 20));
    assert_only(&verify(&fixture), FindingKind::BadSeal, &names[1], Some((last.1, Some(next - 1))));
    std::fs::remove_file(&path).unwrap();
    assert_only(&verify(&fixture), FindingKind::MissingSegment, &names[1], Some((base, Some(next - 1))));
    std::fs::write(&path, good).unwrap();

    let replace = |change: &dyn Fn(&mut seals::Seal)| {
        let mut seals = manifest.seals.clone();
        change(&mut seals[1]);
        seals::replace(&*fixture.fs, &fixture.log_dir(), manifest.first, &seals.iter().collect::<Vec<_>>())
            .unwrap();
    };
    replace(&|seal| seal.block_crcs[0] ^= 1);
    assert_only(&verify(&fixture), FindingKind::BadBlock, &names[1], None);
    replace(&|seal| seal.max_timestamp_ms = None);
    assert_only(&verify(&fixture), FindingKind::BadSeal, &names[1], None);
    replace(&|_| {});
    assert_eq!(verify(&fixture).findings, []);

    let active = names.last().unwrap();
    let end = batches(&fixture.log_dir().join(active))[0].1;
    std::fs::remove_file(fixture.log_dir().join(active)).unwrap();
    let report = verify(&fixture);
    let missing = report.findings.iter().find(|finding| finding.kind == FindingKind::MissingSegment).unwrap();
    assert_eq!(told(missing), (FindingKind::MissingSegment, active.clone(), Some((end, Some(999)))));
}

#[test]
fn records_that_do_not_unpack_are_told() {
    let fixture = Fixture::new();
    let open = fixture.create();
    open.fill(1, 100);
    let mut forged = batch(10, 10, 100);
    // Says that it is compressed, and is not.
    forged[22] |= 1;
    let crc = crc32c::crc32c(&forged[21..]);
    forged[17..21].copy_from_slice(&crc.to_be_bytes());
    open.append(forged).unwrap();
    open.close();
    assert_only(&verify(&fixture), FindingKind::BadRecords, FIRST, Some((10, Some(19))));
}

#[test]
fn rot_and_a_torn_tail_are_told_apart_as_a_recovery_does() {
    for (durability, beyond, is_rot) in [
        (Durability::Fsync, 64 << 10, true),
        (Durability::Fsync, 60 << 10, false),
        (Durability::Os, 200 << 10, false),
    ] {
        let (fixture, _) = bad_and_then_good(durability, beyond);
        let report = verify(&fixture);
        if is_rot {
            assert_only(&report, FindingKind::BadBatch, FIRST, Some((100, Some(109))));
        } else {
            assert_only(&report, FindingKind::TornTail, FIRST, Some((100, None)));
        }
        fixture.reopen().close();
        assert_eq!(fixture.files("torn").is_empty(), is_rot, "{durability:?}, {beyond}");
    }
}

#[test]
fn what_was_damaged_before_it_was_sealed_is_told_by_its_offsets() {
    let fixture = Fixture::fine(30_000);
    let open = fixture.create();
    open.fill(10, 100);
    open.crash();
    let path = fixture.log_dir().join(FIRST);
    let (position, base, _) = batches(&path)[3];
    change_at(&path, |bytes| bytes[position + 100] ^= 1);
    let open = fixture.reopen();
    open.fill(90, 100);
    open.settle();
    open.close();
    let seals = seals::read(&*fixture.fs, &fixture.log_dir()).unwrap().unwrap().seals;
    assert!(seals.len() > 1, "the damaged one is sealed");
    assert_only(&verify(&fixture), FindingKind::BadBatch, FIRST, Some((base, Some(base + 9))));
    // Its checksum stays what no block has.
    change_at(&path, |bytes| bytes[position + 100] ^= 1);
    assert_only(&verify(&fixture), FindingKind::BadBlock, FIRST, None);
}

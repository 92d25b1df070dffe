//! A log whose end is lost goes on behind it, once an operator has accepted that.

use super::super::segment::{file_name, parse_log_name};
use super::super::verify::{FindingKind, Severity};
use super::hook_fs::HookFs;
use super::sim_fs::{Event, Kept, Lies};
use super::simulation::{Simulation, Up};
use super::stepped;
use super::verify::verified;
use super::*;
use crate::config::SyncMethod;

/// A log of 100 records, with this damage.
fn damaged(clean: bool, damage: impl FnOnce(&mut Vec<u8>)) -> Fixture {
    let fixture = Fixture::cold();
    let open = fixture.create();
    open.fill(10, 100);
    open.end(clean);
    change(&fixture, FIRST, damage);
    fixture
}

fn accept(fixture: &Fixture, open: &mut Open) -> AcceptedLoss {
    let (log, accepted) = open.store.accept_loss(&open.log, &fixture.spec).unwrap();
    open.log = log;
    assert_eq!(open.log.status().state, LogState::Online);
    assert_eq!(open.log.durable_offset(), accepted.next);
    accepted
}

/// Holds the log against what it had in `kept` and what was appended from `next` on, ten records a batch.
fn assert_has(open: &Open, kept: impl Iterator<Item = i64>, lost: &[LostRange], next: i64, appended: i64) {
    let kept = kept.map(|offset| (offset, offset as u64));
    let expected: Vec<Numbered> =
        kept.chain((0..appended * 10).map(|i| (next + i, (next + i) as u64))).collect();
    let (records, told) = open.read_around(0);
    assert_eq!(told, lost);
    assert_eq!(records, expected);
}

/// How many errors, accepted losses and leftovers a verification finds.
fn found(fixture: &Fixture) -> (u64, u64, u64) {
    let specs = std::slice::from_ref(&fixture.spec);
    let report = verified(Arc::clone(&fixture.fs), fixture.dir.path(), specs, &fixture.config);
    let count = |kind| report.counts.get(&kind).copied().unwrap_or_default();
    let errors = report.count(Severity::Error);
    assert!(errors <= 1, "{:#?}", report.findings);
    (errors, count(FindingKind::AcceptedLoss), count(FindingKind::Leftover))
}

#[test]
fn a_log_whose_end_is_lost_goes_on_behind_it_when_that_is_accepted() {
    type Change = fn(&mut Vec<u8>);
    // The first offset that is lost at the end, whether a batch before that is too, and whether bytes are left over.
    let damages: [(Change, i64, bool, bool); 6] = [
        (|bytes| bytes.truncate(bytes.len() / 2), 50, false, false),
        (Vec::clear, 0, false, false),
        (|bytes| *bytes.last_mut().unwrap() ^= 1, 90, false, true),
        (|bytes| bytes.truncate(bytes.len() * 9 / 10 + 30), 90, false, true),
        (|bytes| bytes.fill(7), 0, false, false),
        // The length of a batch, so that the way on has to be searched for.
        (
            |bytes| {
                bytes[3 * batch_bytes() + 9] ^= 0x7f;
                bytes.truncate(bytes.len() - 3);
            },
            90,
            true,
            true,
        ),
    ];
    for (i, (damage, first, has_bad, has_rest)) in damages.into_iter().enumerate() {
        for clean in [true, false] {
            let keeps_length = [2, 4].contains(&i);
            if clean && keeps_length {
                // After an orderly end such a file is not looked into before it is read.
                continue;
            }
            let mut fixture = damaged(clean, damage);
            fixture.spec.config.segment_bytes = 5_000;
            let mut open = fixture.reopen();
            let LogStatus { leader_epoch, state, .. } = open.log.status();
            assert!(matches!(state, LogState::ReadOnly { .. }), "damage {i}");
            let accepted = accept(&fixture, &mut open);
            assert_eq!(accepted.first.get(), first, "damage {i}");
            assert!(accepted.leader_epoch > leader_epoch && leader_epoch.0 >= i32::from(!clean));
            assert_eq!(open.log.status().leader_epoch, accepted.leader_epoch);
            let next = accepted.next.get();
            assert!(next > 100 + (1 << 40), "{next}");
            let kept = || (0..first).filter(|offset| !(has_bad && (30..40).contains(offset)));
            let bad = has_bad.then_some((30, 39));
            let lost: Vec<LostRange> = bad.into_iter().chain([(first, next - 1)]).collect();
            // Enough for the new segment to be sealed, too.
            for (run, end_cleanly) in (0..).zip([clean, !clean, clean, true]) {
                assert_has(&open, kept(), &lost, next, run * 5);
                open.fill(5, 100);
                assert_has(&open, kept(), &lost, next, run * 5 + 5);
                open.settle();
                open.end(end_cleanly);
                let rest = u64::from(has_rest);
                assert_eq!(found(&fixture), (u64::from(has_bad), 1, rest), "damage {i}");
                open = fixture.reopen();
                assert_eq!(open.log.status().state, LogState::Online, "damage {i}");
            }
            assert!(fixture.files("log").len() > 4, "segments behind the gap were rolled");
        }
    }
}

#[test]
fn a_segment_that_was_emptied_is_no_accepted_loss() {
    let mut fixture = Fixture::cold();
    fixture.spec.config.segment_bytes = 10_000;
    let open = fixture.create();
    open.fill(100, 100);
    open.settle();
    open.crash();
    let names = fixture.files("log");
    let [first, next] = [&names[2], &names[3]].map(|name| name[..20].parse::<i64>().unwrap());
    change(&fixture, &names[2], Vec::clear);
    change(&fixture, "seals", |bytes| bytes[5] ^= 1);
    for _ in 0..2 {
        let open = fixture.reopen();
        let (records, told) = open.read_around(0);
        assert_eq!((records.len() as i64, told), (1000 - (next - first), vec![(first, next - 1)]));
        open.settle();
        open.close();
        let (errors, accepted, _) = found(&fixture);
        assert_eq!((errors, accepted), (1, 0));
    }
}

#[test]
fn what_the_disk_cannot_read_now_cannot_be_accepted_as_lost() {
    let (fs, mut fixture) = (HookFs::default(), Fixture::cold());
    fixture.fs = Arc::new(fs.clone());
    let open = fixture.create();
    open.fill(10, 100);
    open.crash();
    fs.set_unreadable(4_096..1 << 20);
    let open = fixture.reopen();
    assert!(matches!(open.log.status().state, LogState::ReadOnly { .. }));
    let refused = open.store.accept_loss(&open.log, &fixture.spec).err();
    assert!(matches!(refused, Some(AcceptLossError::Log(LogError::NothingLost))), "{refused:?}");
    open.crash();
    fs.set_unreadable(0..0);
    let open = fixture.reopen();
    assert_eq!(open.log.status().state, LogState::Online);
    open.assert_numbered(0, 100);
}

#[test]
fn an_accepted_loss_outlives_its_manifest() {
    type Change = fn(&mut Vec<u8>);
    let damages: [(Change, i64); 4] = [
        (|bytes| bytes.truncate(bytes.len() / 2), 50),
        (Vec::clear, 0),
        (|bytes| *bytes.last_mut().unwrap() ^= 1, 90),
        (|bytes| bytes.fill(7), 0),
    ];
    for (i, (damage, first)) in damages.into_iter().enumerate() {
        let mut fixture = damaged(false, damage);
        fixture.spec.config.segment_bytes = 5_000;
        let mut open = fixture.reopen();
        let next = accept(&fixture, &mut open).next.get();
        for run in 0..3 {
            assert_has(&open, 0..first, &[(first, next - 1)], next, run * 5);
            open.fill(5, 100);
            open.settle();
            open.end(run == 1);
            let (errors, accepted, _) = found(&fixture);
            assert_eq!((errors, accepted), (0, 1), "damage {i}");
            change(&fixture, "seals", |bytes| bytes[5] ^= 1);
            open = fixture.reopen();
            assert_eq!(open.log.status().state, LogState::Online, "damage {i}");
        }
        assert_has(&open, 0..first, &[(first, next - 1)], next, 15);
    }
}

#[test]
fn a_gap_is_told_until_the_start_of_the_log_is_moved_past_it() {
    let fixture = damaged(false, |bytes| bytes.truncate(bytes.len() / 2));
    let mut open = fixture.reopen();
    let next = accept(&fixture, &mut open).next.get();
    open.fill(2, 100);
    // What was before the gap goes, and then some of it.
    for start in [50, 60, next - 1] {
        open.delete_records(start).unwrap();
        for clean in [false, true] {
            assert_eq!(open.log.log_start_offset().get(), start);
            let (records, lost) = open.read_around(start);
            assert_eq!((records.len(), lost), (20, vec![(start, next - 1)]));
            assert_eq!(found_after(&fixture, open, clean), 1);
            open = fixture.reopen();
        }
    }
    assert_eq!(fixture.files("log").len(), 2, "those before the gap are gone");
    open.delete_records(next).unwrap();
    open.assert_numbered(next, next + 20);
    assert_eq!(found_after(&fixture, open, true), 0);
    fixture.reopen().assert_numbered(next, next + 20);
    assert_eq!(fixture.files("log").len(), 1);
}

/// Ends the store; how many accepted losses are then found.
fn found_after(fixture: &Fixture, open: Open, clean: bool) -> u64 {
    open.end(clean);
    let (errors, losses, _) = found(fixture);
    assert_eq!(errors, 0);
    losses
}

#[test]
fn where_nothing_is_lost_there_is_nothing_to_accept() {
    let fixture = Fixture::cold();
    let open = fixture.create();
    open.fill(10, 100);
    let refused = open.store.accept_loss(&open.log, &fixture.spec).unwrap_err();
    assert!(matches!(refused, AcceptLossError::Log(LogError::NothingLost)), "{refused}");
    open.log.view.fail("for another reason");
    let refused = open.store.accept_loss(&open.log, &fixture.spec).unwrap_err();
    assert!(matches!(refused, AcceptLossError::Log(LogError::NothingLost)), "{refused}");
    open.assert_numbered(0, 100);
}

#[test]
fn of_producers_a_log_that_goes_on_knows_what_can_be_read() {
    for clean in [true, false] {
        let fixture = Fixture::cold();
        let open = fixture.create();
        for tag in (0..100).step_by(10) {
            open.append(stamped(0, tag, 100)).unwrap();
            if tag == 70 {
                // A snapshot that knows of batches which will be lost.
                open.delete_records(1).unwrap();
            }
        }
        open.end(clean);
        change(&fixture, FIRST, |bytes| bytes.truncate(bytes.len() / 2));
        let mut open = fixture.reopen();
        let next = accept(&fixture, &mut open).next;
        for _ in 0..2 {
            let again = open.send(stamped(0, 40, 100)).recv().unwrap().unwrap();
            assert_eq!((again.base_offset.get(), again.duplicate), (40, true));
            let ahead = open.append(stamped(0, 80, 100)).unwrap_err();
            assert!(
                matches!(ahead, AppendError::Producer(ProducerError::OutOfOrder { .. })),
                "{clean}: {ahead}"
            );
            open.crash();
            open = fixture.reopen();
        }
        let lost = open.send(stamped(0, 50, 100)).recv().unwrap().unwrap();
        assert_eq!((lost.base_offset, lost.duplicate), (next, false), "it was lost, and is sent again");
    }
}

#[test]
fn a_segment_that_is_missing_behind_a_gap_fences_the_log() {
    let fixture = damaged(false, |bytes| bytes.truncate(bytes.len() / 2));
    let mut open = fixture.reopen();
    let next = accept(&fixture, &mut open).next;
    open.fill(1, 100);
    open.crash();
    for base in [Offset::clamped(50), next] {
        let path = fixture.log_dir().join(file_name(base, "log"));
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (store, log) = fixture.try_reopen();
        assert!(matches!(log, Err(OpenLogError::Damaged { .. })), "{base}");
        drop(store);
        std::fs::write(path, bytes).unwrap();
    }
    fixture.reopen();
}

/// Where the log of the simulation lies.
const SIMULATED: &str = "data/orders-0";
/// What its log keeps.
const KEPT_RECORDS: i64 = 6;

/// A machine with a log whose end is lost, sealed segments before it, and a store that has just started.
fn with_lost_end(seed: u64, method: SyncMethod) -> Simulation {
    let mut simulation = Simulation::off(seed, Lies::default());
    simulation.config.sync_method = method;
    simulation.specs.truncate(1);
    simulation.models.truncate(1);
    simulation.outcomes.truncate(1);
    simulation.first_boot().unwrap();
    for (count, bytes) in [(2, 800), (2, 800), (2, 200), (2, 200)] {
        simulation.append_to(0, count, bytes);
        simulation.write();
        simulation.up().crew.syncer.sync_waiting(std::time::Instant::now());
    }
    simulation.up().crew.syncer.sync_slots();
    simulation.stop();
    let fs = simulation.disk.boot();
    let entries = fs.list(Path::new(SIMULATED)).unwrap();
    let last = entries.iter().filter_map(|entry| parse_log_name(&entry.name)).max().unwrap();
    let last = Path::new(SIMULATED).join(file_name(last, "log"));
    let file = fs.open(&last, super::super::fs::OpenHow::Write).unwrap();
    file.set_len(file.len().unwrap() - 1).unwrap();
    file.sync().unwrap();
    drop(file);
    simulation.try_start().unwrap();
    assert!(!is_online(&mut simulation));
    simulation
}

fn is_online(simulation: &mut Simulation) -> bool {
    simulation.up().logs[0].status().state == LogState::Online
}

/// Accepts the loss and appends, as far as that goes; whether it was acknowledged.
fn accept_and_append(simulation: &mut Simulation) -> bool {
    let spec = simulation.specs[0].clone();
    let (tell, outcome) = channel();
    let Up { store, logs, .. } = simulation.up();
    store.commit_loss(&logs[0], Box::new(move |result| drop(tell.send(result))));
    simulation.upkeep();
    // Nothing but the closing of the log is left for its writer.
    simulation.write();
    let Ok(Ok(accepted)) = outcome.try_recv() else { return false };
    let Up { store, crew, logs, .. } = simulation.up();
    let Ok(log) = stepped::go_on(store, crew, &logs[0], &spec, accepted) else { return false };
    logs[0] = log;
    append(simulation)
}

/// Whether an append was acknowledged.
fn append(simulation: &mut Simulation) -> bool {
    let before = simulation.up().logs[0].durable_offset();
    simulation.append_to(0, 1, 100);
    simulation.write();
    simulation.up().crew.syncer.sync_waiting(std::time::Instant::now());
    simulation.up().logs[0].durable_offset() > before
}

/// The offsets that can be read, and those that are told as lost.
fn offsets(simulation: &mut Simulation) -> (Vec<i64>, Vec<LostRange>) {
    let log = &simulation.up().logs[0];
    let (mut next, mut offsets, mut lost) = (Offset::ZERO, Vec::new(), Vec::new());
    while next < log.durable_offset() {
        match log.read(next, 1_000) {
            Ok(read) => {
                for batch in read.chunks.iter().flat_map(|chunk| record::batches(chunk)) {
                    let batch = batch.unwrap();
                    offsets.extend(batch.base_offset().get()..batch.next_offset().get());
                }
                next = read.next_offset;
            }
            Err(ReadError::DataLoss { first, last, .. }) => {
                lost.push((first.get(), last.get()));
                next = last.plus(1);
            }
            Err(error) => panic!("at {next}: {error}"),
        }
    }
    (offsets, lost)
}

/// An acceptance with a failure, and the start after it. Returns whether the failure has come.
fn accept_with_failure(seed: u64, method: SyncMethod, event: Event, kept: Option<Kept>) -> bool {
    let mut simulation = with_lost_end(seed, method);
    simulation.disk.plan(Some(event));
    let appended = accept_and_append(&mut simulation);
    let came = simulation.disk.plan(None);
    simulation.stop();
    if let Some(kept) = kept {
        simulation.disk.cut_power_keeping(kept);
    }
    simulation.try_start().unwrap();
    let kept: Vec<i64> = (0..KEPT_RECORDS).collect();
    if is_online(&mut simulation) {
        let (found, lost) = offsets(&mut simulation);
        let [(first, last)] = lost[..] else { panic!("{lost:?}") };
        assert!(first == KEPT_RECORDS && last > 1 << 40, "{first} to {last}");
        let has_appended = found.len() > kept.len();
        assert!(has_appended || !appended, "what was acknowledged is there");
        let expected: Vec<i64> = kept.iter().copied().chain(has_appended.then_some(last + 1)).collect();
        assert_eq!(found, expected);
        assert!(append(&mut simulation), "it goes on");
    } else {
        assert!(!appended, "what was acknowledged is there");
        assert_eq!(offsets(&mut simulation), (kept, vec![(KEPT_RECORDS, KEPT_RECORDS + 1)]));
        assert!(accept_and_append(&mut simulation), "it can be accepted again");
    }
    came
}

#[test]
fn whatever_happens_while_a_loss_is_accepted_it_is_accepted_or_not() {
    const ALL: [Option<Kept>; 3] = [Some(Kept::Nothing), Some(Kept::Everything), Some(Kept::Some)];
    type Plan = fn(u64) -> Event;
    let plans: [(Plan, &[Option<Kept>]); 5] = [
        (Event::NoRoom, &[None]),
        (Event::NoRoomFrom, &[None]),
        (Event::Broken, &[None]),
        (Event::Broken, &ALL),
        (Event::PowerCut, &ALL),
    ];
    for (event, all_kept) in plans {
        for method in [SyncMethod::Fdatasync, SyncMethod::Syncfs] {
            for kept in all_kept {
                // Where the disk decides what is kept, more than once.
                let seeds = if *kept == Some(Kept::Some) { 7..15 } else { 7..8 };
                for seed in seeds {
                    let mut operations = 0;
                    while accept_with_failure(seed, method, event(operations), *kept) {
                        operations += 1;
                    }
                    assert!(operations > 10, "{operations} operations");
                }
            }
        }
    }
}

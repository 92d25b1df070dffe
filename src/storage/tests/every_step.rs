//! A short life of a store on the simulated disk, again and again, each time with another one of its operations failing, or
//! with the power cut right before it. Wherever that is, it is as before or as after, what was acknowledged is there, and
//! the store can be used.

use std::time::Instant;

use super::super::data_dir::log_dir_name;
use super::super::fs::OpenHow;
use super::sim_fs::{Event, Kept, Lies};
use super::simulation::{Model, Outcomes, Simulation, Up};
use super::stepped::delete;
use super::*;
use crate::config::SyncMethod;

const KEPT: [Kept; 3] = [Kept::Nothing, Kept::Everything, Kept::Some];
const METHODS: [SyncMethod; 2] = [SyncMethod::Fdatasync, SyncMethod::Syncfs];

/// A machine that has never run.
fn off(method: SyncMethod) -> Simulation {
    // `Kept::Some` decides by it.
    let mut simulation = Simulation::off(7, Lies::default());
    simulation.config.sync_method = method;
    simulation
}

/// Whether the logs were created, so that a catalogue would name them.
type Created = bool;

/// Everything that changes files, once or twice. What fails is passed over.
fn life(simulation: &mut Simulation) -> Created {
    if simulation.first_boot().is_err() {
        return false;
    }
    append(simulation, &[(0, 2, 200), (1, 1, 100)]);
    append(simulation, &[(0, 1, 700), (1, 3, 100)]);
    simulation.checkpoint();
    // Two segments are rolled and sealed.
    append(simulation, &[(0, 2, 800)]);
    append(simulation, &[(0, 2, 800), (0, 2, 800), (1, 1, 50)]);
    append(simulation, &[(0, 1, 300)]);
    simulation.upkeep();
    simulation.checkpoint();
    let end = simulation.up().logs[0].durable_offset().get();
    simulation.delete_before(0, end - 1);
    // Written, and not synced any more.
    simulation.append_to(0, 1, 200);
    simulation.write();
    true
}

/// Deletes a log and makes another, and ends in an orderly way.
fn end_of_life(simulation: &mut Simulation) {
    replace_last(simulation);
    append(simulation, &[(0, 1, 100)]);
    if simulation.specs.len() == 2 {
        append(simulation, &[(1, 2, 100)]);
    }
    simulation.checkpoint();
    // An end that fails is like none.
    let _ = simulation.up().store.finish();
}

/// Appends batches of so many records of so many bytes to logs, and syncs them.
fn append(simulation: &mut Simulation, batches: &[(usize, u32, usize)]) {
    for (log, count, bytes) in batches {
        simulation.append_to(*log, *count, *bytes);
    }
    simulation.write();
    let syncer = &simulation.up().crew.syncer;
    syncer.sync_waiting(Instant::now());
    syncer.flush_lazy();
    syncer.sync_slots();
    simulation.upkeep();
    simulation.hear();
}

/// Deletes the last log, then gives its name to a new one.
fn replace_last(simulation: &mut Simulation) {
    simulation.hear();
    let mut spec = simulation.specs.pop().unwrap();
    simulation.models.pop();
    simulation.outcomes.pop();
    let Up { store, crew, logs, .. } = simulation.up();
    let log = logs.pop().unwrap();
    // What could not be moved away is in nobody's way.
    let _ = delete(store, crew, log);
    spec.topic_id = TopicId::from_bytes([9; 16]);
    if let Ok(created) = store.create_logs(std::slice::from_ref(&spec)) {
        logs.extend(created);
        let model = Model::new(spec.config.durability);
        simulation.specs.push(spec);
        simulation.models.push(model);
        simulation.outcomes.push(Outcomes::default());
    }
    simulation.upkeep();
}

/// Starts again, checks everything, and finds every log fit for use.
fn start_and_use(simulation: &mut Simulation, created: Created) {
    if created {
        simulation.start();
    } else {
        simulation.first_boot().unwrap();
    }
    use_all(simulation);
    simulation.kill();
}

/// Every log takes an append.
fn use_all(simulation: &mut Simulation) {
    for log in 0..simulation.specs.len() {
        let before = simulation.up().logs[log].durable_offset();
        append(simulation, &[(log, 1, 100)]);
        let handle = &simulation.up().logs[log];
        assert!(handle.durable_offset() > before, "log {log} takes an append: {:?}", handle.status());
    }
}

/// Runs it for every operation there is; how many there are.
fn at_every_operation(mut run: impl FnMut(u64) -> bool) -> u64 {
    let mut operations = 0;
    while run(operations) {
        operations += 1;
    }
    operations
}

/// The same, for a whole life.
fn at_every_operation_of_life(run: impl FnMut(u64) -> bool) {
    let operations = at_every_operation(run);
    assert!(operations > 100, "{operations} operations");
    println!("{operations} operations");
}

fn cut_power(simulation: &mut Simulation, kept: Kept) {
    simulation.stop();
    simulation.disk.cut_power_keeping(kept);
    simulation.forget_cached();
}

/// One life with a failure, and what comes after. Returns whether the failure has come.
fn with_failure(method: SyncMethod, event: Event, kept: Option<Kept>) -> bool {
    let mut simulation = off(method);
    simulation.disk.plan(Some(event));
    let created = life(&mut simulation);
    if created {
        end_of_life(&mut simulation);
    }
    let came = simulation.disk.plan(None);
    if let Some(up) =
        simulation.up.as_mut().filter(|_| matches!(event, Event::NoRoom(_) | Event::NoRoomFrom(_)))
    {
        for log in &up.logs {
            assert_eq!(log.status().state, LogState::Online, "no room fences nothing");
        }
    }
    simulation.stop();
    if let Some(kept) = kept {
        cut_power(&mut simulation, kept);
    }
    start_and_use(&mut simulation, created);
    came
}

/// A start after a power cut, with a failure. Returns whether the failure has come.
fn start_with_failure(method: SyncMethod, kept: Kept, event: Event) -> bool {
    let mut simulation = off(method);
    assert!(life(&mut simulation));
    cut_power(&mut simulation, kept);
    simulation.disk.plan(Some(event));
    let started = simulation.try_start();
    let came = simulation.disk.plan(None);
    // Where all of the reserve is gone, a torn tail cannot be copied, and so not be cut.
    let must_start = match event {
        Event::NoRoom(_) => true,
        Event::NoRoomFrom(_) => kept == Kept::Everything,
        Event::Broken(_) | Event::PowerCut(_) => !came,
    };
    if started.is_ok() {
        simulation.check();
        simulation.upkeep();
    } else {
        assert!(!must_start, "{started:?}");
        cut_power(&mut simulation, kept);
        simulation.start();
    }
    use_all(&mut simulation);
    came
}

#[test]
fn whichever_operation_of_a_start_fails_the_next_one_finds_everything() {
    for method in METHODS {
        for kept in KEPT {
            for event in [Event::NoRoom, Event::NoRoomFrom, Event::Broken, Event::PowerCut] {
                let operations = at_every_operation(|at| start_with_failure(method, kept, event(at)));
                assert!(operations > 10, "{operations} operations");
            }
        }
    }
}

#[test]
fn a_store_starts_on_a_full_disk_and_takes_appends_when_there_is_room() {
    for reserve_bytes in [0, 2_000] {
        let mut simulation = off(SyncMethod::Fdatasync);
        simulation.config.reserve_bytes = reserve_bytes;
        assert!(life(&mut simulation));
        simulation.stop();
        simulation.hear();
        simulation.disk.set_room(Some(0));
        simulation.start();
        append(&mut simulation, &[(0, 1, 100), (1, 1, 100)]);
        let refusals = &simulation.refusals;
        assert!(
            matches!(refusals[..], [AppendError::NoSpace { .. }, AppendError::NoSpace { .. }]),
            "{refusals:?}"
        );
        simulation.disk.set_room(None);
        simulation.upkeep();
        use_all(&mut simulation);
    }
}

#[test]
fn whichever_operation_finds_no_room_the_store_goes_on() {
    for method in METHODS {
        at_every_operation_of_life(|at| with_failure(method, Event::NoRoom(at), None));
        at_every_operation_of_life(|at| with_failure(method, Event::NoRoomFrom(at), None));
        at_every_operation_of_life(|at| with_failure(method, Event::NoRoom(at), Some(Kept::Some)));
    }
}

#[test]
fn whichever_operation_fails_nothing_acknowledged_is_lost() {
    for method in METHODS {
        at_every_operation_of_life(|at| with_failure(method, Event::Broken(at), None));
        for kept in KEPT {
            at_every_operation_of_life(|at| with_failure(method, Event::Broken(at), Some(kept)));
        }
    }
}

#[test]
fn wherever_the_power_is_cut_it_is_as_before_or_as_after() {
    for method in METHODS {
        for kept in KEPT {
            at_every_operation_of_life(|at| with_failure(method, Event::PowerCut(at), Some(kept)));
        }
    }
}

/// Flips a bit in the manifest of every log that is there.
fn damage_seals(simulation: &Simulation) {
    let fs = simulation.disk.boot();
    for spec in &simulation.specs {
        let path = Path::new("data").join(log_dir_name(&spec.topic, spec.partition)).join("seals");
        let Ok(file) = fs.open(&path, OpenHow::Write) else { continue };
        let at = simulation.disk.random(file.len().unwrap());
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[&[byte[0] ^ 0x10]], at).unwrap();
        file.sync().unwrap();
    }
}

#[test]
fn wherever_the_power_is_cut_a_damaged_manifest_is_made_anew() {
    for kept in KEPT {
        at_every_operation_of_life(|at| {
            let mut simulation = off(SyncMethod::Fdatasync);
            simulation.disk.plan(Some(Event::PowerCut(at)));
            let created = life(&mut simulation);
            if created {
                end_of_life(&mut simulation);
            }
            let came = simulation.disk.plan(None);
            if !created {
                return came;
            }
            cut_power(&mut simulation, kept);
            for _ in 0..2 {
                damage_seals(&simulation);
                simulation.try_start().unwrap_or_else(|error| panic!("{error}"));
                simulation.check();
                use_all(&mut simulation);
                simulation.kill();
            }
            start_and_use(&mut simulation, created);
            came
        });
    }
}

//! What an acknowledgement is worth across a power cut: the file system below a server under load is shut down at
//! random moments, losing what was not synced, again and again, judged by ledgers kept elsewhere.
//!
//! `durability = fsync` loses nothing. `durability = os` may lose what it acknowledged since the last start, from the
//! end only. Where file systems cannot be mounted these tests say so and pass: that takes privileges, not programs.

use std::fs;
use std::io::{Write as _, stderr};
use std::time::Duration;

use sagwan::proto::admin_service_client::AdminServiceClient;
use sagwan::proto::{BrokerCounters, DescribeBrokerRequest};
use storage_tests::disk::Disk;
use storage_tests::ledger::{Breach, Scope, Settled, Totals};
use storage_tests::length::Length;
use storage_tests::load::{End, Load, SMALL_SEGMENTS, connect};
use storage_tests::process::ServerProcess;
use storage_tests::setting;
use tempfile::TempDir;
use tokio::time::timeout;

/// How many cuts in the short form.
const CYCLES: u64 = 3;
/// After so many cycles everything is read from the beginning, and another disk begun, so that cycles take no longer the
/// more there have been.
const CYCLES_OF_A_LIFE: usize = 50;
/// The cut comes after so many acknowledgements of a cycle at most.
const MOST_ACKS: u32 = 400;
/// How long a server may take to refuse what its disk does not take.
const REFUSAL: Duration = Duration::from_secs(30);
/// `writeback` brings metadata to the disk ahead of the data: files then grow by zeros or by what lay there.
const MOUNTS: [&str; 2] = ["data=ordered", "data=writeback,dioread_lock,commit=1"];
const SYNC_METHODS: [&str; 3] = ["auto", "fdatasync", "syncfs"];
const CHECKPOINT_INTERVALS_MS: [u32; 2] = [100, 30_000];

/// A file system to cut the power of, if this machine has one.
fn disk() -> Option<Disk> {
    // Not `eprintln!`, which is not shown when a test passes.
    Disk::new()
        .inspect_err(|why| writeln!(stderr(), "NOT RUN, no power was cut: {why}").expect("a line"))
        .ok()
}

fn start(disk: &Disk, config: &TempDir) -> ServerProcess {
    let program = env!("CARGO_BIN_EXE_sagwan-under-test");
    ServerProcess::start_configured(program, disk.path().join("data"), config.path().join("sagwan.toml"))
}

/// Settings of the next start. They lie outside the disk.
fn configure(directory: &TempDir, storage: &str) {
    let file = directory.path().join("sagwan.toml");
    fs::write(file, format!("[storage]\n{storage}\n")).expect("a file of settings");
}

async fn counters(server: &ServerProcess) -> BrokerCounters {
    let mut admin = AdminServiceClient::new(connect(server).await);
    let broker = admin.describe_broker(DescribeBrokerRequest {}).await.expect("a broker");
    broker.into_inner().counters.expect("counters")
}

/// Waits until every writer has been refused, or has nobody to hear it.
async fn refused(load: &mut Load) {
    let ends = timeout(REFUSAL, load.ends()).await.expect("a server without a disk answers");
    assert!(ends.iter().all(|end| matches!(end, End::Refused(_) | End::Unheard)), "{ends:?}");
}

/// The test below can fail: `os`, judged as if it were `fsync`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_without_a_sync_is_found_missing() {
    let Some(mut disk) = disk() else { return };
    let config = TempDir::new().expect("a temporary directory");
    configure(&config, "flush_interval_ms = 3_600_000\ncheckpoint_interval_ms = 3_600_000");
    let mut server = start(&disk, &config);
    // A roll syncs: none may come between an acknowledgement and the cut.
    let mut load = Load::create(&server, &[("cached", "os")], 1 << 30, &mut fastrand::Rng::new()).await;
    load.start(&server).await;
    load.acknowledgements(50).await;
    disk.cut_power(|| load.stop_listening());
    server.kill9();
    load.ends().await;
    disk.power_on("defaults");
    server.restart();
    let judged = load.settle(&server, Scope::All).await;
    assert!(matches!(judged, Err((_, Breach::Lost { .. }))), "{judged:?}");
}

/// What came of some cycles.
#[derive(Default)]
struct Life {
    synced: Totals,
    cached: Totals,
    /// Batches that only the page cache had.
    lost: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_synced_acknowledgement_survives_a_power_cut() {
    let seed = setting("SAGWAN_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("the same choices again: SAGWAN_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut length, mut sum) = (Length::of(CYCLES), Life::default());
    while length.goes_on() {
        let Some(disk) = disk() else { return };
        let life = life(disk, &mut length, &mut random).await;
        sum.synced += life.synced;
        sum.cached += life.cached;
        sum.lost += life.lost;
    }
    // Had it been otherwise, the test would have ended.
    let Totals { batches, records, repeated } = sum.synced;
    let (cycles, cached, lost) = (length.cycles(), sum.cached.batches, sum.lost);
    writeln!(
        stderr(),
        "power cut: {cycles} cycles, {batches} batches acknowledged ({repeated} of them found, and sent again), \
         {records} records: lost 0, doubled 0, reordered 0; without a sync {cached} batches acknowledged, {lost} of them \
         lost, from the end (SAGWAN_TEST_SEED={seed})"
    )
    .expect("a line");
}

/// Some cycles on one disk.
async fn life(mut disk: Disk, length: &mut Length, random: &mut fastrand::Rng) -> Life {
    let config = TempDir::new().expect("a temporary directory");
    configure(&config, "");
    let mut server = start(&disk, &config);
    let mut synced = Load::create(&server, &[("synced", "fsync")], SMALL_SEGMENTS, random).await;
    let cached = Load::create(&server, &[("cached", "os")], SMALL_SEGMENTS, random).await;
    let mut cached = cached.without_idempotent();

    let mut lost = 0;
    for cycle in length.take(CYCLES_OF_A_LIFE) {
        synced.start(&server).await;
        cached.start(&server).await;
        let cut_after = random.u32(1..=MOST_ACKS);
        synced.acknowledgements(cut_after).await;
        disk.cut_power(|| {
            synced.stop_listening();
            cached.stop_listening();
        });
        // Half the time the server lives long enough to notice. It refuses what was under way, and acknowledges nothing
        // of what comes then: that would be found missing.
        let noticed = random.bool();
        if noticed {
            for load in [&mut synced, &mut cached] {
                refused(load).await;
                load.start_without_disk(&server).await;
                refused(load).await;
            }
        }
        server.kill9();
        synced.ends().await;
        cached.ends().await;

        let mount = random.choice(MOUNTS).expect("some");
        let (method, interval) = (random.choice(SYNC_METHODS), random.choice(CHECKPOINT_INTERVALS_MS));
        let (method, interval) = (method.expect("some"), interval.expect("some"));
        disk.power_on(mount);
        configure(&config, &format!("sync_method = \"{method}\"\ncheckpoint_interval_ms = {interval}"));
        server.restart();
        let kept = synced.settle(&server, Scope::Recent).await;
        let kept = kept.expect("nothing that was acknowledged after a sync is lost");
        let prefix = cached.settle_prefix(&server, Scope::Recent).await.expect("only the end is lost");
        eprintln!(
            "cycle {cycle}: cut after {cut_after}, noticed: {noticed}; synced: {kept:?}, cached: {prefix:?}"
        );
        eprintln!("         next: {mount}, {method}, checkpoints every {interval} ms");
        assert!(kept.batches >= cut_after as usize);
        assert_eq!(counters(&server).await.fenced_partitions, 0);
        lost += prefix.lost;

        // What was read after a recovery has to stay, whatever its durability.
        if random.bool() {
            disk.cut_power(|| {});
            server.kill9();
            disk.power_on(mount);
            server.restart();
            for load in [&synced, &cached] {
                load.settle(&server, Scope::Recent).await.expect("what was served is not lost");
            }
        }
    }

    // An orderly end syncs everything, and says so durably.
    assert!(server.terminate().success());
    disk.cut_power(|| {});
    disk.power_on("defaults");
    server.restart();
    for load in [&synced, &cached] {
        let settled = load.settle(&server, Scope::All).await.expect("nothing is lost");
        assert_eq!(Settled { batches: 0, ..settled }, Settled::default());
    }
    assert_eq!(counters(&server).await.recovered_bytes, 0);
    Life { synced: synced.totals(), cached: cached.totals(), lost }
}

//! kill -9 at random moments of a server under load, again and again, judged by ledgers kept outside it.
//!
//! What `durability = os` acknowledges is in the page cache, which outlives the process: it has to survive too.

use std::io::{Write as _, stderr};

use sagwan::proto::DescribeBrokerRequest;
use sagwan::proto::admin_service_client::AdminServiceClient;
use storage_tests::ledger::{Scope, Totals};
use storage_tests::length::Length;
use storage_tests::load::{End, Load, SMALL_SEGMENTS, connect};
use storage_tests::process::ServerProcess;
use storage_tests::setting;
use tempfile::TempDir;

/// How many kills in the short form.
const CYCLES: u64 = 5;
/// After so many cycles everything is read from the beginning, and another data directory begun, so that cycles take no
/// longer the more there have been.
const CYCLES_OF_A_LIFE: usize = 50;
/// The kill comes after so many acknowledgements of a cycle at most.
const MOST_ACKS: u32 = 400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_record_survives_kill_9() {
    let seed = setting("SAGWAN_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("the same kill points again: SAGWAN_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut length, mut totals) = (Length::of(CYCLES), Totals::default());
    while length.goes_on() {
        totals += life(&mut length, &mut random).await;
    }
    // Not `eprintln!`, which is not shown when a test passes. Had it been otherwise, the test would have ended.
    let Totals { batches, records, repeated } = totals;
    let cycles = length.cycles();
    writeln!(
        stderr(),
        "kill -9: {cycles} cycles, {batches} batches acknowledged ({repeated} of them found, and sent again), \
         {records} records: lost 0, doubled 0, reordered 0 (SAGWAN_TEST_SEED={seed})"
    )
    .expect("a line");
}

/// Some cycles on one data directory. What was acknowledged there.
async fn life(length: &mut Length, random: &mut fastrand::Rng) -> Totals {
    let directory = TempDir::new().expect("a temporary directory");
    let mut server = ServerProcess::start(env!("CARGO_BIN_EXE_sagwan-under-test"), directory.path());
    let mut load =
        Load::create(&server, &[("synced", "fsync"), ("cached", "os")], SMALL_SEGMENTS, random).await;

    for cycle in length.take(CYCLES_OF_A_LIFE) {
        load.start(&server).await;
        let kill_after = random.u32(1..=MOST_ACKS);
        load.acknowledgements(kill_after).await;
        server.kill9();
        for end in load.ends().await {
            assert_eq!(end, End::Gone, "a server that lives takes every batch");
        }

        server.restart();
        let settled = load.settle(&server, Scope::Recent).await.expect("nothing acknowledged is lost");
        eprintln!("cycle {cycle}: killed after {kill_after} acknowledgements: {settled:?}");
        assert!(settled.batches >= kill_after as usize);
    }

    // After an orderly end everything is still there, and nothing has to be recovered.
    assert!(server.terminate().success());
    server.restart();
    load.settle(&server, Scope::All).await.expect("nothing acknowledged is lost");
    let mut admin = AdminServiceClient::new(connect(&server).await);
    let broker = admin.describe_broker(DescribeBrokerRequest {}).await.expect("a broker").into_inner();
    assert_eq!(broker.counters.map(|counters| counters.recovered_bytes), Some(0));
    load.totals()
}

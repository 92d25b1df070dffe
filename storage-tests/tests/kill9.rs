//! kill -9 at random moments of a server under load, again and again, judged by ledgers kept outside it.
//!
//! What `durability = os` acknowledges is in the page cache, which outlives the process: it has to survive too.

use sagwan::proto::DescribeBrokerRequest;
use sagwan::proto::admin_service_client::AdminServiceClient;
use storage_tests::load::{End, Load, SMALL_SEGMENTS, connect};
use storage_tests::process::ServerProcess;
use storage_tests::setting;
use tempfile::TempDir;

/// How many kills, unless `SAGWAN_TEST_CYCLES` says otherwise.
const CYCLES: u64 = 5;
/// The kill comes after so many acknowledgements of a cycle at most.
const MOST_ACKS: u32 = 400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_record_survives_kill_9() {
    let seed = setting("SAGWAN_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("the same kill points again: SAGWAN_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = TempDir::new().expect("a temporary directory");
    let mut server = ServerProcess::start(env!("CARGO_BIN_EXE_sagwan-under-test"), directory.path());
    let mut load =
        Load::create(&server, &[("synced", "fsync"), ("cached", "os")], SMALL_SEGMENTS, &mut random).await;

    for cycle in 0..setting("SAGWAN_TEST_CYCLES").unwrap_or(CYCLES) {
        load.start(&server).await;
        let kill_after = random.u32(1..=MOST_ACKS);
        load.acknowledgements(kill_after).await;
        server.kill9();
        for end in load.ends().await {
            assert_eq!(end, End::Gone, "a server that lives takes every batch");
        }

        server.restart();
        let settled = load.settle(&server).await.expect("nothing acknowledged is lost");
        eprintln!("cycle {cycle}: killed after {kill_after} acknowledgements: {settled:?}");
        assert!(settled.batches >= kill_after as usize);
    }

    // After an orderly end everything is still there, and nothing has to be recovered.
    assert!(server.terminate().success());
    server.restart();
    load.settle(&server).await.expect("nothing acknowledged is lost");
    let mut admin = AdminServiceClient::new(connect(&server).await);
    let broker = admin.describe_broker(DescribeBrokerRequest {}).await.expect("a broker").into_inner();
    assert_eq!(broker.counters.map(|counters| counters.recovered_bytes), Some(0));
}

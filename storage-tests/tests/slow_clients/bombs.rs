//! Batches that unpack to far more than they are.

use sagwan::proto::FetchFormat;
use sagwan::record::{BatchBuilder, BatchOptions, Codec};
use tokio::task::JoinSet;

use crate::{GoodClient, encoded, fetch, judge, raw, soon, start_with};

/// What one batch may unpack to in these tests.
const MAX_UNPACKED_BYTES: usize = 16 << 20;
/// As many at a time, without a bound on that, would take 1 GiB.
const AT_A_TIME: usize = 64;

fn bomb() -> bytes::Bytes {
    let mut builder = BatchBuilder::new(BatchOptions { codec: Codec::Zstd });
    builder.push(1_700_000_000_000, None, Some(&vec![0; MAX_UNPACKED_BYTES + 1]), []);
    let bomb = builder.build().expect("a batch").freeze();
    assert!(bomb.len() < 64 << 10, "{} bytes are no bomb", bomb.len());
    bomb
}

fn settings(validation: &str) -> String {
    format!("[broker]\nbatch_validation = \"{validation}\"\nmax_decompressed_bytes = {MAX_UNPACKED_BYTES}\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_are_refused_where_batches_are_looked_into() {
    let (server, _dir) = start_with(&settings("strict"));
    let mut good = GoodClient::connect(&server).await;
    good.create("bombs", &[]).await;
    let bomb = bomb();
    let mut producing = JoinSet::new();
    for _ in 0..AT_A_TIME {
        let (mut good, bomb) = (good.clone(), bomb.clone());
        producing.spawn(async move { soon("a refusal", good.log.produce(encoded("bombs", bomb))).await });
    }
    while let Some(outcome) = producing.join_next().await {
        let status = outcome.expect("no panic").expect_err("a bomb");
        assert_eq!(raw::reason(&status), "INVALID_RECORD");
    }
    good.round_trip("bombs").await;
    judge(&server, "bombs produced under strict validation");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_that_were_stored_are_not_unpacked_beyond_the_bound() {
    let (server, _dir) = start_with(&settings("relaxed"));
    let mut good = GoodClient::connect(&server).await;
    good.create("bombs", &[]).await;
    soon("an acknowledgement", good.log.produce(encoded("bombs", bomb()))).await.expect("relaxed");
    let mut fetching = JoinSet::new();
    for _ in 0..AT_A_TIME {
        let mut good = good.clone();
        fetching.spawn(async move { soon("an answer", good.log.fetch(fetch("bombs", 0, 0))).await });
    }
    while let Some(outcome) = fetching.join_next().await {
        let status = outcome.expect("no panic").expect_err("a bomb");
        assert_eq!(raw::reason(&status), "DATA_LOSS");
    }
    // As it is, it can be had.
    let mut as_stored = fetch("bombs", 0, 0);
    as_stored.format = FetchFormat::RecordBatches.into();
    let answer = soon("an answer", good.log.fetch(as_stored)).await.expect("fetched").into_inner();
    assert!(!answer.partitions[0].record_batches.is_empty());
    good.round_trip("bombs").await;
    judge(&server, "bombs fetched as records");
}

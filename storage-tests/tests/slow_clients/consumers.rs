//! Consumers that stop reading.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use h2::RecvStream;
use sagwan::proto::{DeleteTopicRequest, FetchFormat, FetchRequest, FetchStreamRequest};
use tokio::task::{JoinHandle, JoinSet};

use crate::raw::{self, RawClient};
use crate::{GoodClient, fetch, judge, slow_clients, soon, start_with};

const STALL_MS: u64 = 2_000;
/// Together more than a server may take, were each consumer's answer kept.
const BATCHES: usize = 256;
const BATCH_BYTES: usize = 256 << 10;
/// A client that leaves its windows as they are, and one that opens them wide and then does not read the socket.
const NARROW: u32 = 65_535;
const WIDE: u32 = 1 << 30;

/// One that has got the head of its answer and then reads nothing: what it asks for and how it stops depend on its
/// number.
async fn stop_reading(address: &str, number: usize) -> (RawClient, RecvStream) {
    let frozen = number % 4 == 3;
    let client = RawClient::connect(address, if frozen { WIDE } else { NARROW }).await;
    let format = if number % 8 < 4 { FetchFormat::RecordBatches } else { FetchFormat::Records }.into();
    let FetchRequest { partitions, .. } = fetch("hot", 0, 0);
    let max_bytes = 4 << 20;
    let (method, request) = if number.is_multiple_of(2) {
        ("Fetch", raw::framed(&FetchRequest { partitions, format, max_bytes, ..Default::default() }))
    } else {
        ("FetchStream", raw::framed(&FetchStreamRequest { partitions, format, max_bytes }))
    };
    let (answer, mut body) = client.open(method).await;
    body.send_data(request, true).expect("sent");
    let head = soon("the head of an answer", answer).await.expect("an answer");
    assert!(!head.headers().contains_key("grpc-status"), "{number} was refused: {:?}", head.headers());
    if frozen {
        client.freeze();
    }
    (client, head.into_body())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_that_stop_reading_cost_little_and_harm_nobody() {
    // Read from maps: what keeps one alive can be seen from outside.
    let settings = format!("[grpc]\nstall_timeout_ms = {STALL_MS}\n[storage]\ntail_cache_bytes = 0\n");
    let (server, _dir) = start_with(&settings);
    let mut good = GoodClient::connect(&server).await;
    // A segment is left behind soon, so that what is read is mapped too.
    good.create("hot", &[("segment_bytes", "8388608")]).await;
    good.create("other", &[]).await;
    good.fill("hot", BATCHES, BATCH_BYTES).await;

    // Somebody works on all the time.
    let round_trips = Arc::new(AtomicU64::new(0));
    let working: JoinHandle<()> = tokio::spawn({
        let (mut good, round_trips) = (good.clone(), Arc::clone(&round_trips));
        async move {
            loop {
                good.round_trip("other").await;
                soon("an answer", good.log.fetch(fetch("hot", 0, 0))).await.expect("fetched");
                round_trips.fetch_add(1, Ordering::Relaxed);
            }
        }
    });

    let mut stopping = JoinSet::new();
    for number in 0..slow_clients() {
        let address = server.address().to_owned();
        stopping.spawn(async move { (number, stop_reading(&address, number).await) });
    }
    let mut stopped = stopping.join_all().await;
    let before = round_trips.load(Ordering::Relaxed);
    println!("{} consumers stand still; meanwhile {before} round trips", stopped.len());

    working.abort();
    let worked = working.await.map_err(|error| error.is_cancelled());
    assert!(matches!(worked, Err(true)), "the one that works on has failed");

    // What the stalled ones had is deleted with its topic, and let go by the time they are ended.
    soon("a deletion", good.admin.delete_topic(DeleteTopicRequest { name: "hot".to_owned() }))
        .await
        .expect("deleted");
    soon("the end of the stalled", async {
        // By whatever name: all other logs are of these.
        let others = ["other-0", "__consumer_offsets"];
        let of_hot = |line: &str| line.contains(".log") && !others.iter().any(|name| line.contains(name));
        while server.maps().lines().any(of_hot) {
            good.round_trip("other").await;
        }
    })
    .await;
    judge(&server, &format!("{} consumers that stop reading", stopped.len()));

    // They are told when they go on, unless their connection had to go.
    stopped.sort_by_key(|&(number, _)| number);
    let mut told = 0;
    for (number, (_client, body)) in stopped.into_iter().filter(|(number, _)| number % 4 != 3) {
        if let Some(status) = soon("the ending", raw::status_behind(body)).await {
            // A stream that had nothing left to send has heard of the deletion instead.
            let reason = raw::reason(&status);
            assert!(["STREAM_STALLED", "UNKNOWN_TOPIC"].contains(&reason.as_str()), "{number}: {reason}");
            told += 1;
        }
    }
    assert!(told > slow_clients() / 4, "{told} were told");
    let left = server.memory_bytes("RssAnon");
    assert!(left < 256 << 20, "{} MiB are left", left >> 20);
}

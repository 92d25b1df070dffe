//! Producers that send half a message.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::raw::{self, RawClient};
use crate::{GoodClient, judge, slow_clients, soon, start};

const STALL_MS: u64 = 2_000;
const MIB: usize = 1 << 20;
/// What they announce, by turns; they send half of it, but not more than [`SENT_BYTES`].
const DECLARED_BYTES: [usize; 3] = [MIB, 2 * MIB, 32 * MIB];
const SENT_BYTES: usize = MIB;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_that_send_half_a_message_cost_little_and_harm_nobody() {
    let (server, _dir) = start(&format!("request_stall_timeout_ms = {STALL_MS}"));
    let mut good = GoodClient::connect(&server).await;
    good.create("other", &[]).await;
    good.create("half", &[]).await;

    let half = Bytes::from(vec![0; SENT_BYTES]);
    let connected = Arc::new(Barrier::new(slow_clients() + 1));
    let mut sending = JoinSet::new();
    for number in 0..slow_clients() {
        let (half, connected) = (half.clone(), Arc::clone(&connected));
        let address = server.address().to_owned();
        sending.spawn(async move {
            let client = RawClient::connect(&address, 65_535).await;
            let (answer, mut body) =
                client.open(if number.is_multiple_of(2) { "Produce" } else { "ProduceStream" }).await;
            connected.wait().await;
            let declared = DECLARED_BYTES[number % DECLARED_BYTES.len()];
            // What cannot be sent any more belongs to a call that has been ended.
            let _ = body.send_data(raw::prefix(declared as u32), false);
            let _ = body.send_data(half.slice(..(declared / 2).min(SENT_BYTES)), false);
            let status = soon("a refusal", raw::status(answer)).await;
            status.map(|status| raw::reason(&status))
        });
    }
    connected.wait().await;
    let mut ended = 0;
    while !sending.is_empty() {
        good.round_trip("other").await;
        while let Some(reason) = sending.try_join_next() {
            let reason = reason.expect("no panic").expect("a status");
            assert!(["REQUEST_STALLED", "BROKER_BUSY"].contains(&reason.as_str()), "{reason}");
            ended += 1;
        }
    }
    assert_eq!(ended, slow_clients());
    judge(&server, &format!("{ended} producers that send half a message"));
    good.round_trip("half").await;
}

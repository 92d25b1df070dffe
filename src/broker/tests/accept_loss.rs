//! Accepting a loss.

use std::fs;

use futures_util::poll;

use crate::broker::BrokerError;
use crate::broker::testing::{PATIENT, Place, append, batch, create, fetch, from, name, produce};
use crate::record::Codec;
use crate::types::Offset;

#[tokio::test]
async fn whoever_waits_is_told_when_the_log_cannot_be_opened_again() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 1, &[]).await;
    produce(&broker, "t", 0, &["a"]).await;
    broker.close().await.expect("an orderly end");
    drop(broker);
    let dir = place.dir.path().join("t-0");
    fs::write(dir.join(format!("{:020}.log", 0)), b"").expect("written");
    let broker = place.open();
    let mut reader = broker.reader(&name("t"), 0).expect("a reader");
    let end = Offset::clamped(1);
    let mut beyond = Box::pin(reader.wait_beyond(end));
    let asked = [from("t", 0, end.get())];
    let mut fetching = Box::pin(fetch(&broker, &asked, PATIENT));
    assert!(poll!(&mut beyond).is_pending() && poll!(&mut fetching).is_pending());

    // What opens a log again needs it, what accepts a loss does not.
    fs::remove_file(dir.join("topic-id")).expect("removed");
    let refused = broker.accept_loss(&name("t"), 0).await.expect_err("cannot be opened again");
    let heard = [beyond.await.expect_err("nothing beyond"), fetching.await.remove(0).expect_err("no answer")];
    let appended = append(&broker, "t", 0, batch(&["b"], Codec::None)).await.expect_err("no log");
    for error in heard.iter().chain([&refused, &appended]) {
        assert!(matches!(error, BrokerError::Fenced { .. }), "{error:?}");
    }
}

//! Shutting down.

use crate::broker::testing::{
    PATIENT, Place, append, batch, create, fetch, from, heard_by_waiting, name, produce, spec, values,
};
use crate::broker::{BrokerError, Caller};
use crate::record::Codec;

fn is_refusal<T: std::fmt::Debug>(outcome: &Result<T, BrokerError>) -> bool {
    matches!(outcome, Err(BrokerError::ShuttingDown))
}

#[tokio::test]
async fn new_work_is_refused_and_reads_go_on() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 1, &[]).await;
    produce(&broker, "t", 0, &["a"]).await;
    broker.begin_shutdown();
    assert!(is_refusal(&append(&broker, "t", 0, batch(&["b"], Codec::None)).await));
    assert!(is_refusal(&broker.create_topic(spec("u", 1, &[])).await));
    assert!(is_refusal(&broker.delete_topic(&name("t")).await));
    assert!(is_refusal(&broker.delete_records(&name("t"), 0, -1).await));
    assert_eq!(values(&broker, "t", 0).await, ["a"]);
    assert!(
        is_refusal(&fetch(&broker, &[from("t", 0, 1)], PATIENT).await.remove(0)),
        "nothing more will come"
    );
}

#[tokio::test]
async fn whoever_waits_is_told() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 1, &[]).await;
    for error in heard_by_waiting(&broker, async { broker.begin_shutdown() }).await {
        assert!(matches!(error, BrokerError::ShuttingDown), "{error:?}");
    }
}

#[tokio::test]
async fn what_was_accepted_is_finished() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 1, &[]).await;
    let mut pending = Vec::new();
    for _ in 0..50 {
        let batch = batch(&["a"], Codec::None);
        pending
            .push(broker.start_append(Caller::Client, &name("t"), 0, batch, None).await.expect("accepted"));
    }
    broker.close().await.expect("an orderly end");
    for pending in pending {
        pending.wait().await.expect("finished");
    }
    broker.close().await.expect("nothing to do the second time");
    let broker = place.reopen(broker).await;
    assert_eq!(values(&broker, "t", 0).await.len(), 50);
    assert_eq!(broker.status().storage.recovered_logs, 0, "nothing had to be recovered");
}

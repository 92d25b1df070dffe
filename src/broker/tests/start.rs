//! What a start makes of what the last run left behind.

use std::fs;
use std::sync::Arc;

use crate::broker::catalogue::{Catalogue, Command};
use crate::broker::catalogue_file::{self, CATALOGUE_FILE, OLD_CATALOGUE_FILE};
use crate::broker::testing::{Place, append, batch, create, name, produce, record, values};
use crate::broker::{Broker, BrokerError, Caller, OpenBrokerError, Target};
use crate::record::Codec;

fn crash(broker: Arc<Broker>) {
    drop(Arc::into_inner(broker).expect("nobody else has it"));
}

#[tokio::test]
async fn topics_and_records_survive_a_restart() {
    let place = Place::new();
    let broker = place.open();
    let topic = create(&broker, "t", 2, &[("segment_ms", "60000")]).await;
    produce(&broker, "t", 1, &["a", "b"]).await;
    let broker = place.reopen(broker).await;
    let again = broker.describe_topic(&name("t")).expect("there");
    assert_eq!((again.id, &again.config), (topic.id, &topic.config));
    assert_eq!(values(&broker, "t", 1).await, ["a", "b"]);
    assert_eq!(produce(&broker, "t", 1, &["c"]).await.base_offset.get(), 2);
}

#[tokio::test]
async fn topics_and_acknowledged_records_survive_an_end_without_notice() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 1, &[]).await;
    create(&broker, "gone", 1, &[]).await;
    broker.delete_topic(&name("gone")).await.expect("deleted");
    produce(&broker, "t", 0, &["a", "b"]).await;
    crash(broker);
    let broker = place.open();
    assert_eq!(broker.topics().iter().map(|topic| topic.name.to_string()).collect::<Vec<_>>(), ["t"]);
    assert_eq!(values(&broker, "t", 0).await, ["a", "b"]);
}

#[tokio::test]
async fn a_partition_that_cannot_be_opened_is_fenced_and_the_others_serve() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 3, &[]).await;
    produce(&broker, "t", 0, &["a"]).await;
    broker.close().await.expect("an orderly end");
    crash(broker);
    fs::remove_dir_all(place.dir.path().join("t-1")).expect("removed");

    let broker = place.open();
    let topic = broker.describe_topic(&name("t")).expect("there");
    let open: Vec<bool> = topic.partitions.iter().map(Result::is_ok).collect();
    assert_eq!(open, [true, false, true]);
    let reason = topic.partitions[1].clone().expect_err("fenced");
    assert!(reason.contains("t-1"), "{reason}");
    assert_eq!(broker.status().fenced_partitions, 1);
    let error = append(&broker, "t", 1, batch(&["x"], Codec::None)).await.expect_err("no writes");
    assert!(matches!(error, BrokerError::Fenced { .. }), "{error}");
    let error = broker.reader(&name("t"), 1).expect_err("no reads");
    assert!(matches!(error, BrokerError::Fenced { .. }), "{error}");
    assert_eq!(values(&broker, "t", 0).await, ["a"]);
    assert!(!place.has("t-1"), "it must not come back as an empty log");

    // Records without a key go where they can be taken.
    for _ in 0..3 {
        let results = broker
            .start_produce(Caller::Client, &name("t"), Target::ByKey, vec![record(None, "x")], Codec::None)
            .await
            .expect("valid");
        for (_, result) in results {
            result.expect("an open partition").wait().await.expect("appended");
        }
    }
}

#[tokio::test]
async fn a_deleted_topic_takes_its_fenced_partitions_along() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 3, &[]).await;
    create(&broker, "kept", 1, &[]).await;
    broker.close().await.expect("an orderly end");
    crash(broker);
    // One is damaged, of another nobody can say whose it is.
    fs::remove_file(place.dir.path().join("t-1/seals")).expect("removed");
    fs::remove_file(place.dir.path().join("t-2/topic-id")).expect("removed");
    let broker = place.open();
    assert_eq!(broker.status().fenced_partitions, 2);
    broker.delete_topic(&name("t")).await.expect("deleted");
    assert!(!place.has("t-0") && !place.has("t-1"), "both are the topic's");
    assert!(place.has("t-2"), "it is not removed on a guess");

    // Its name is free, its slots are, and the checkpoint has forgotten it.
    create(&broker, "t", 3, &[]).await;
    assert_eq!(values(&broker, "t", 2).await, [""; 0]);
    // The slots are written with what is synced.
    produce(&broker, "t", 2, &["a"]).await;
    let slots = fs::metadata(place.dir.path().join("durable")).expect("there").len() / 32;
    assert_eq!(slots, 4);
    let broker = place.reopen(broker).await;
    assert_eq!(broker.status().fenced_partitions, 0);
}

#[tokio::test]
async fn a_damaged_catalogue_is_refused_and_the_one_before_it_named() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "a", 1, &[]).await;
    create(&broker, "b", 1, &[]).await;
    broker.close().await.expect("an orderly end");
    crash(broker);
    let path = place.dir.path().join(CATALOGUE_FILE);
    let mut bytes = fs::read(&path).expect("there");
    *bytes.last_mut().expect("not empty") ^= 1;

    for damage in [Some(bytes), None] {
        match damage {
            Some(bytes) => fs::write(&path, bytes).expect("written"),
            None => fs::remove_file(&path).expect("removed"),
        }
        let error = place.try_open().expect_err("not without the catalogue");
        assert!(matches!(error, OpenBrokerError::Catalogue { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains("/catalogue:") && message.contains("/catalogue.old"), "{message}");
        assert!(place.has("a-0") && place.has("b-0"), "nothing is set aside");
    }

    fs::copy(place.dir.path().join("catalogue.old"), &path).expect("as the message says");
    let broker = place.open();
    assert_eq!(broker.topics().len(), 1);
}

#[tokio::test]
async fn logs_without_any_catalogue_are_not_taken_for_strays() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "a", 1, &[]).await;
    broker.close().await.expect("an orderly end");
    crash(broker);
    for file in [CATALOGUE_FILE, OLD_CATALOGUE_FILE] {
        fs::remove_file(place.dir.path().join(file)).expect("removed");
    }
    let error = place.try_open().expect_err("not without the catalogue");
    let OpenBrokerError::Catalogue { old, .. } = &error else { panic!("{error}") };
    assert_eq!(*old, None, "{error}");
    assert!(place.has("a-0"), "it is not set aside");
}

#[tokio::test]
async fn a_deletion_that_was_cut_short_is_finished() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 2, &[]).await;
    create(&broker, "kept", 1, &[]).await;
    broker.close().await.expect("an orderly end");
    crash(broker);
    let store = place.store();
    let body = store.read_file(CATALOGUE_FILE).expect("readable").expect("there");
    let catalogue: Catalogue = catalogue_file::decode(&body).expect("a catalogue");
    let deleting = catalogue.apply(Command::DeleteTopic { name: name("t") }).expect("there");
    store.replace_file(CATALOGUE_FILE, &catalogue_file::encode(&deleting)).expect("replaced");
    drop(store);

    let broker = place.open();
    assert!(!place.has("t-0") && !place.has("t-1") && place.has("kept-0"));
    create(&broker, "t", 1, &[]).await;
    assert_eq!(values(&broker, "t", 0).await, [""; 0]);
    let broker = place.reopen(broker).await;
    assert_eq!(broker.topics().len(), 2);
}

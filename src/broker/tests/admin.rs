//! Creating, updating and deleting topics.

use futures_util::future::join_all;
use futures_util::poll;

use crate::broker::testing::{
    Place, append, batch, create, name, produce, record, settings, shown, spec, values,
};
use crate::broker::{Broker, BrokerError, Caller, Target, TopicSpec, TopicUpdate};
use crate::config::BrokerConfig;
use crate::record::Codec;
use crate::types::{OFFSETS_TOPIC, Offset};

fn update(topic: &str) -> TopicUpdate {
    TopicUpdate { name: name(topic), set: settings(&[]), reset: Vec::new(), partitions: None }
}

fn topic_names(broker: &Broker) -> Vec<String> {
    broker.topics().iter().map(|topic| topic.name.to_string()).collect()
}

#[tokio::test]
async fn a_created_topic_is_shown_with_its_partitions_and_settings() {
    let place = Place::new();
    let broker = place.open();
    let created = create(&broker, "t", 3, &[("durability", "os")]).await;
    assert_eq!(created.partitions.len(), 3);
    let seen = broker.describe_topic(&name("t")).expect("there");
    assert_eq!((seen.id, seen.config), (created.id, created.config));
    let given: Vec<_> = created_names(&broker);
    assert_eq!(given, [("durability", "os".to_owned())]);
}

fn created_names(broker: &Broker) -> Vec<(&'static str, String)> {
    let topic = broker.describe_topic(&name("t")).expect("there");
    topic
        .config
        .into_iter()
        .filter(|entry| !entry.is_default)
        .map(|entry| (entry.name, entry.value))
        .collect()
}

#[tokio::test]
async fn a_topic_that_is_refused_leaves_nothing_behind() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "taken", 1, &[]).await;
    let refused = |spec| broker.create_topic(spec);
    let error = refused(spec("taken", 1, &[])).await.expect_err("taken");
    assert!(matches!(&error, BrokerError::TopicExists { topic } if topic.as_str() == "taken"), "{error}");
    let error = refused(spec("t", 0, &[])).await.expect_err("too few");
    assert!(
        matches!(error, BrokerError::InvalidPartitions { partitions: 0, min: 1, max: 10_000 }),
        "{error}"
    );
    let error = refused(spec("t", 1, &[("retention_ms", "1")])).await.expect_err("not yet");
    assert!(matches!(error, BrokerError::UnsupportedConfig { .. }), "{error}");
    let error = refused(spec(OFFSETS_TOPIC, 1, &[])).await.expect_err("internal");
    assert!(matches!(error, BrokerError::InternalTopic { .. }), "{error}");
    assert_eq!(topic_names(&broker), ["taken"]);
    assert!(!place.has("t-0"));
}

#[tokio::test]
async fn validating_creates_nothing() {
    let place = Place::new();
    let broker = place.open();
    let catalogue = || std::fs::read(place.dir.path().join("catalogue")).expect("there");
    let before = catalogue();
    let only = TopicSpec { validate_only: true, ..spec("t", 2, &[("compression", "zstd")]) };
    let described = broker.create_topic(only).await.expect("valid");
    assert_eq!((described.partitions.len(), shown(&described, "compression").as_str()), (2, "zstd"));
    assert!(broker.topics().is_empty() && !place.has("t-0") && catalogue() == before);
}

#[tokio::test]
async fn a_change_goes_on_when_its_caller_has_gone() {
    let place = Place::new();
    let broker = place.open();
    {
        let mut creating = Box::pin(broker.create_topic(spec("t", 1, &[])));
        assert!(poll!(&mut creating).is_pending());
    }
    // Its turn comes after the one above.
    let error = broker.create_topic(spec("t", 1, &[])).await.expect_err("there already");
    assert!(matches!(error, BrokerError::TopicExists { .. }), "{error}");
    produce(&broker, "t", 0, &["a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_need_an_unknown_topic_get_one() {
    let place = Place::new();
    let broker = place.open();
    let unknown = name("new");
    for outcome in join_all((0..16).map(|_| broker.ensure_topic(&unknown))).await {
        outcome.expect("created by one of them");
    }
    assert_eq!(topic_names(&broker), ["new"]);
    let error = broker.ensure_topic(&name(OFFSETS_TOPIC)).await.expect_err("internal");
    assert!(matches!(error, BrokerError::InternalTopic { .. }), "{error}");
}

#[tokio::test]
async fn no_topic_is_created_where_that_is_off() {
    let place = Place::with(BrokerConfig { auto_create_topics: false, ..BrokerConfig::default() });
    let broker = place.open();
    let error = broker.ensure_topic(&name("new")).await.expect_err("off");
    assert!(matches!(&error, BrokerError::UnknownTopic { topic } if topic.as_str() == "new"), "{error}");
}

#[tokio::test]
async fn a_deleted_topic_is_gone_and_its_name_is_free() {
    let place = Place::new();
    let broker = place.open();
    let first = create(&broker, "t", 2, &[]).await;
    produce(&broker, "t", 0, &["old"]).await;
    let reader = broker.reader(&name("t"), 0).expect("a reader");
    broker.delete_topic(&name("t")).await.expect("deleted");

    assert!(!place.has("t-0") && !place.has("t-1"));
    let error = append(&broker, "t", 0, batch(&["x"], Codec::None)).await.expect_err("gone");
    assert!(matches!(error, BrokerError::UnknownTopic { .. }), "{error}");
    let error = broker.delete_topic(&name("t")).await.expect_err("gone");
    assert!(matches!(error, BrokerError::UnknownTopic { .. }), "{error}");

    let second = create(&broker, "t", 1, &[]).await;
    assert_ne!(first.id, second.id);
    assert_eq!(produce(&broker, "t", 0, &["new"]).await.base_offset, Offset::ZERO);
    let error = reader.read(Offset::ZERO, 1 << 20).await.expect_err("a reader of the old topic");
    assert!(matches!(error, BrokerError::UnknownTopic { .. }), "{error}");
}

#[tokio::test]
async fn the_internal_topic_can_be_read_and_nothing_else() {
    let place = Place::new();
    let broker = place.open();
    broker.ensure_offsets_topic().await.expect("the broker's own");
    broker.ensure_offsets_topic().await.expect("twice is once");
    let internal = name(OFFSETS_TOPIC);
    let described = broker.describe_topic(&internal).expect("there");
    assert_eq!(described.partitions.len(), 16);
    assert_eq!(shown(&described, "cleanup_policy"), "compact");
    assert_eq!(shown(&described, "segment_bytes"), "104857600");

    let refusals = [
        append(&broker, OFFSETS_TOPIC, 0, batch(&["x"], Codec::None)).await.map(|_| ()),
        broker
            .start_produce(Caller::Client, &internal, Target::ByKey, vec![record(None, "x")], Codec::None)
            .await
            .map(|_| ()),
        broker.delete_records(&internal, 0, -1).await.map(|_| ()),
        broker.update_topic(update(OFFSETS_TOPIC)).await.map(|_| ()),
        broker.delete_topic(&internal).await,
    ];
    for refusal in refusals {
        let error = refusal.expect_err("refused");
        assert!(matches!(error, BrokerError::InternalTopic { .. }), "{error}");
    }
    assert_eq!(values(&broker, OFFSETS_TOPIC, 0).await, [""; 0]);
    let own = batch(&["own"], Codec::None);
    let pending =
        broker.start_append(Caller::Internal, &internal, 0, own, None).await.expect("the broker may");
    pending.wait().await.expect("appended");
    assert_eq!(values(&broker, OFFSETS_TOPIC, 0).await, ["own"]);
}

#[tokio::test]
async fn an_update_changes_settings_and_adds_partitions_under_a_running_topic() {
    let place = Place::new();
    let broker = place.open();
    let before = create(&broker, "t", 1, &[("durability", "os"), ("compression", "gzip")]).await;
    produce(&broker, "t", 0, &["a"]).await;
    let after = broker
        .update_topic(TopicUpdate {
            set: settings(&[("durability", "fsync"), ("max_message_bytes", "2000")]),
            reset: vec!["compression".to_owned()],
            partitions: Some(3),
            ..update("t")
        })
        .await
        .expect("valid");
    assert_eq!((after.id, after.partitions.len()), (before.id, 3));
    assert_eq!(shown(&after, "durability"), "fsync");
    assert_eq!(shown(&after, "compression"), "producer");

    let error =
        append(&broker, "t", 0, batch(&[&"x".repeat(3000)], Codec::None)).await.expect_err("too large");
    assert!(matches!(error, BrokerError::Batch { .. }), "{error}");
    produce(&broker, "t", 0, &["b"]).await;
    produce(&broker, "t", 2, &["c"]).await;

    let broker = place.reopen(broker).await;
    let again = broker.describe_topic(&name("t")).expect("there");
    assert_eq!(again.config, after.config);
    assert_eq!(values(&broker, "t", 0).await, ["a", "b"]);
    assert_eq!(values(&broker, "t", 2).await, ["c"]);
}

#[tokio::test]
async fn an_update_that_is_refused_changes_nothing() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 2, &[]).await;
    let valid = settings(&[("compression", "zstd")]);
    let shrink = TopicUpdate { partitions: Some(1), set: valid.clone(), ..update("t") };
    let error = broker.update_topic(shrink).await.expect_err("fewer");
    assert!(matches!(error, BrokerError::InvalidPartitions { partitions: 1, min: 2, .. }), "{error}");
    let small = settings(&[("compression", "zstd"), ("segment_bytes", "65536")]);
    let error = broker
        .update_topic(TopicUpdate { set: small, partitions: Some(3), ..update("t") })
        .await
        .expect_err("smaller than a message");
    assert!(matches!(&error, BrokerError::InvalidConfig { name, .. } if name == "segment_bytes"), "{error}");
    let typo = TopicUpdate { reset: vec!["compresion".to_owned()], set: valid, ..update("t") };
    let error = broker.update_topic(typo).await.expect_err("unknown");
    assert!(matches!(&error, BrokerError::InvalidConfig { name, .. } if name == "compresion"), "{error}");

    let described = broker.describe_topic(&name("t")).expect("there");
    assert_eq!((described.partitions.len(), shown(&described, "compression").as_str()), (2, "producer"));
    assert!(!place.has("t-2"));
}

/// While this stands in its way, the catalogue cannot be replaced.
fn block_catalogue(place: &Place) -> std::path::PathBuf {
    let obstacle = place.dir.path().join("catalogue.tmp");
    std::fs::create_dir(&obstacle).expect("created");
    obstacle
}

#[tokio::test]
async fn a_change_that_cannot_be_recorded_is_taken_back() {
    let place = Place::new();
    let broker = place.open();
    let before = create(&broker, "t", 1, &[("durability", "os")]).await;
    let obstacle = block_catalogue(&place);

    let stricter =
        TopicUpdate { set: settings(&[("durability", "fsync")]), partitions: Some(2), ..update("t") };
    let refusals = [
        broker.create_topic(spec("new", 2, &[])).await.map(|_| ()),
        broker.update_topic(stricter.clone()).await.map(|_| ()),
        broker.delete_topic(&name("t")).await,
    ];
    for refusal in refusals {
        let error = refusal.expect_err("not recorded");
        assert!(matches!(error, BrokerError::Storage { partition: None, .. }), "{error}");
    }
    assert_eq!(topic_names(&broker), ["t"]);
    let after = broker.describe_topic(&name("t")).expect("still there");
    assert_eq!((after.id, &after.config, after.partitions.len()), (before.id, &before.config, 1));
    assert!(!place.has("new-0") && !place.has("new-1") && !place.has("t-1"));
    produce(&broker, "t", 0, &["a"]).await;

    std::fs::remove_dir(obstacle).expect("removed");
    create(&broker, "new", 2, &[]).await;
    broker.update_topic(stricter).await.expect("updated");
    let broker = place.reopen(broker).await;
    assert_eq!(topic_names(&broker), ["new", "t"]);
    assert_eq!(values(&broker, "t", 0).await, ["a"]);
}

//! Topics are created, grown, written and deleted on the simulated disk, again and again, each time with another one of
//! its operations failing, or with the power cut right before it. A change is made or not made, wherever that is: one that was
//! refused is not made, and what was acknowledged is there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::broker::testing::{NOW_MS, batch, name, settings, spec, values};
use crate::broker::{Broker, BrokerError, Caller, TopicUpdate};
use crate::clock::ManualClock;
use crate::config::{BrokerConfig, StorageConfig};
use crate::record::Codec;
use crate::storage::tests::sim_fs::{Disk, Event, Kept, Lies};
use crate::storage::{LogState, Store};
use crate::types::OFFSETS_TOPIC;

/// Between two attempts of what has to wait for a thread of the store, and how long it may take in all.
const PAUSE: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_mins(3);

/// Of each topic, the values in each of its partitions.
type Topics = BTreeMap<String, Vec<Vec<String>>>;

#[derive(Debug, Clone, Copy)]
enum Change {
    Create(&'static str, i64),
    /// To so many partitions, with other settings.
    Grow(&'static str, i64),
    Delete(&'static str),
    Append(&'static str, i32, &'static str),
}

use Change::{Append, Create, Delete, Grow};

const LIFE: [Change; 13] = [
    Create("a", 2),
    Append("a", 0, "one"),
    Append(OFFSETS_TOPIC, 0, "an offset"),
    Grow("a", 3),
    Append("a", 2, "two"),
    Create("b", 1),
    Append("b", 0, "three"),
    Delete("a"),
    Append("b", 0, "four"),
    Create("a", 1),
    Append("a", 0, "five"),
    Append(OFFSETS_TOPIC, 0, "another offset"),
    Delete("b"),
];

impl Change {
    /// What there is when it has been made.
    fn apply(self, topics: &Topics) -> Topics {
        let mut topics = topics.clone();
        match self {
            Create(topic, partitions) => {
                topics.entry(topic.to_owned()).or_insert(vec![Vec::new(); partitions as usize]);
            }
            Grow(topic, partitions) => {
                topics
                    .entry(topic.to_owned())
                    .and_modify(|topic| topic.resize(partitions as usize, Vec::new()));
            }
            Delete(topic) => drop(topics.remove(topic)),
            Append(topic, partition, value) => {
                if let Some(values) =
                    topics.get_mut(topic).and_then(|topic| topic.get_mut(partition as usize))
                {
                    values.push(value.to_owned());
                }
            }
        }
        topics
    }

    async fn make(self, broker: &Broker) -> Result<(), BrokerError> {
        match self {
            Create(topic, partitions) => broker.create_topic(spec(topic, partitions, &[])).await.map(drop),
            Grow(topic, partitions) => {
                let set = settings(&[("segment_ms", "60000")]);
                let update =
                    TopicUpdate { name: name(topic), set, reset: Vec::new(), partitions: Some(partitions) };
                broker.update_topic(update).await.map(drop)
            }
            Delete(topic) => broker.delete_topic(&name(topic)).await,
            Append(topic, partition, value) => {
                let batch = batch(&[value], Codec::None);
                let pending =
                    broker.start_append(Caller::Internal, &name(topic), partition, batch, None).await?;
                pending.wait().await.map(drop)
            }
        }
    }
}

fn open(disk: &Disk) -> Result<Arc<Broker>, String> {
    let clock = Arc::new(ManualClock::at(NOW_MS));
    // With a reserve, records are refused until it is whole again: that takes up to a second, each time.
    let storage = StorageConfig { writer_threads: 1, reserve_bytes: 0, ..StorageConfig::default() };
    let config = BrokerConfig { offsets_topic_partitions: 1, ..BrokerConfig::default() };
    let store = Store::open_on(Arc::new(disk.boot()), Path::new("data"), &storage, clock.clone())
        .map_err(|error| error.to_string())?;
    Broker::open(store, config, clock).map_err(|error| error.to_string())
}

async fn topics(broker: &Broker) -> Topics {
    let mut found = Topics::new();
    for topic in broker.topics() {
        let mut partitions = Vec::new();
        for partition in 0..topic.partitions.len() as i32 {
            partitions.push(values(broker, topic.name.as_str(), partition).await);
        }
        found.insert(topic.name.to_string(), partitions);
    }
    found
}

/// One life with an event, and what comes after. Returns whether the event has come.
async fn live(event: Event, kept: Kept) -> bool {
    let is_cut = matches!(event, Event::PowerCut(_));
    let disk = Disk::new(7, Lies::default());
    // What there may be: of a change that was answered, one thing.
    let mut possible = vec![Topics::new()];
    disk.plan(Some(event));
    let broker = open(&disk);
    if let Ok(broker) = &broker {
        if broker.ensure_offsets_topic().await.is_ok() {
            possible = vec![Create(OFFSETS_TOPIC, 1).apply(&possible[0])];
        } else if is_cut {
            possible.push(Create(OFFSETS_TOPIC, 1).apply(&possible[0]));
        }
        for change in LIFE {
            let after: Vec<Topics> = possible.iter().map(|topics| change.apply(topics)).collect();
            match change.make(broker).await {
                Ok(()) => possible = after,
                // Of records, a failed sync leaves it open; of other changes, only the end of everything.
                Err(_) if is_cut || matches!(change, Append(..)) => possible.extend(after),
                Err(_) => {}
            }
        }
    }
    let came = disk.plan(None);
    if !is_cut && let Ok(broker) = broker {
        let there = topics(&broker).await;
        assert!(possible.contains(&there), "{there:?} is none of {possible:?}");
        if !matches!(event, Event::Broken(_)) {
            let all = broker.topics();
            let mut partitions = all.iter().flat_map(|topic| &topic.partitions);
            assert!(partitions.all(|log| log.as_ref().is_ok_and(|log| log.state == LogState::Online)));
            use_all(&broker).await;
            possible = vec![topics(&broker).await];
        }
        // An end that fails is like none.
        let _ = broker.close().await;
    }
    if is_cut {
        disk.cut_power_keeping(kept);
    }
    let broker = open(&disk).expect("a start");
    let there = topics(&broker).await;
    assert!(possible.contains(&there), "{there:?} is none of {possible:?}");
    assert_eq!(broker.status().fenced_partitions, 0);
    use_all(&broker).await;
    came
}

/// Every partition takes records, and every name can be used.
async fn use_all(broker: &Broker) {
    for topic in &broker.topics() {
        for partition in 0..topic.partitions.len() as i32 {
            made(|| async move {
                let batch = batch(&["more"], Codec::None);
                let pending =
                    broker.start_append(Caller::Internal, &topic.name, partition, batch, None).await?;
                pending.wait().await.map(drop)
            })
            .await;
        }
    }
    for topic in ["a", "b"] {
        let _ = broker.delete_topic(&name(topic)).await;
        made(|| Create(topic, 4).make(broker)).await;
        assert_eq!(values(broker, topic, 3).await, [""; 0]);
    }
}

/// Makes it again as long as a start that found no room has not caught up: a thread of the store looks for room every now
/// and then, and tells nobody but those who ask.
async fn made<F: Future<Output = Result<(), BrokerError>>>(change: impl Fn() -> F) {
    let caught_up = async {
        loop {
            match change().await {
                Err(BrokerError::StorageFull { .. }) => tokio::time::sleep(PAUSE).await,
                outcome => return outcome.expect("made"),
            }
        }
    };
    tokio::time::timeout(LIMIT, caught_up).await.expect("the store finds that there is room");
}

async fn at_every_operation(event: impl Fn(u64) -> Event, kept: Kept) {
    let mut at = 0;
    while live(event(at), kept).await {
        at += 1;
    }
    assert!(at > 100, "{at} operations");
    println!("{at} operations");
}

#[tokio::test]
async fn whichever_operation_finds_no_room_a_change_is_made_or_refused() {
    at_every_operation(Event::NoRoom, Kept::Everything).await;
    at_every_operation(Event::NoRoomFrom, Kept::Everything).await;
}

#[tokio::test]
async fn whichever_operation_fails_a_change_is_made_or_refused() {
    at_every_operation(Event::Broken, Kept::Everything).await;
}

#[tokio::test]
async fn wherever_the_power_is_cut_a_change_is_made_or_not() {
    for kept in [Kept::Nothing, Kept::Everything, Kept::Some] {
        at_every_operation(Event::PowerCut, kept).await;
    }
}

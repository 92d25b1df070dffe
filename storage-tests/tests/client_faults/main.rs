//! What the client does when a broker refuses, breaks off, or is not there: against a scripted one, as a real one rarely
//! does so when asked.

#![allow(clippy::expect_used, reason = "a step that fails ends the test")]

mod scripted;

use std::time::Duration;

use futures_util::FutureExt as _;
use sagwan::client::{
    Client, ConnectionConfig, Consumer, ConsumerConfig, Delivery, Error, Offset, PartitionId, Position,
    Producer, ProducerConfig, ProducerRecord, TopicName, TopicPartition,
};
use scripted::{Broker, OnFetch, OnProduce, TOPIC};

fn topic() -> TopicName {
    TopicName::parse(TOPIC).expect("a valid name")
}

fn partition(number: i32) -> PartitionId {
    PartitionId::new(number).expect("a valid partition")
}

/// A record of partition 0.
fn record(value: &str) -> ProducerRecord {
    ProducerRecord::new(topic()).partition(partition(0)).value(value.to_owned())
}

async fn producer(url: &str, config: ProducerConfig) -> Producer {
    Client::connect(url).await.expect("a broker").producer(config).expect("valid settings")
}

/// Batches of one record, without waiting for more.
fn one_by_one() -> ProducerConfig {
    ProducerConfig { batch_bytes: 1, linger: Duration::ZERO, ..ProducerConfig::default() }
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// A log with three batches of three records each.
async fn nine_records(broker: &Broker, url: &str) {
    let producer = producer(url, ProducerConfig::default()).await;
    for batch in 0..3 {
        for number in 0..3 {
            drop(producer.send(record(&(batch * 3 + number).to_string())).await.expect("room"));
        }
        producer.flush().await.expect("appended");
    }
    assert_eq!(broker.values(0), numbers(0..9));
}

/// Sends the numbers from 0 to `count` as records of partition 0, without waiting for their deliveries.
async fn send_numbers(producer: &Producer, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for number in numbers(0..count) {
        deliveries.push(producer.send(record(&number)).await.expect("room"));
    }
    deliveries
}

/// Each is delivered, at the offset of its place.
async fn assert_delivered_in_order(deliveries: Vec<Delivery>) {
    for (expected, delivery) in (0..).zip(deliveries) {
        let delivered = delivery.await.expect("delivered");
        assert_eq!(delivered.offset.get(), expected, "where it was first appended");
    }
}

async fn consumer(url: &str, position: Position) -> Consumer {
    let config = ConsumerConfig::default().topic(topic(), position);
    Client::connect(url).await.expect("a broker").consumer(config).await.expect("a consumer")
}

async fn read_to_end(consumer: &mut Consumer) -> Result<Vec<String>, Error> {
    let ends = consumer.end_offsets().await?;
    consumer.stop_at(&ends);
    let mut values = Vec::new();
    while let Some(record) = consumer.next().await {
        values.push(String::from_utf8_lossy(&record?.value.unwrap_or_default()).into_owned());
    }
    Ok(values)
}

#[tokio::test]
async fn a_refused_batch_is_sent_again_before_any_later_one_and_only_once() {
    let (broker, url) = Broker::start(1);
    broker.script_produce([
        OnProduce::Append,
        OnProduce::RefuseForNow,
        OnProduce::RefuseForNow,
        OnProduce::Append,
        OnProduce::RefuseForNow,
    ]);
    let producer = producer(&url, one_by_one()).await;
    assert_delivered_in_order(send_numbers(&producer, 20).await).await;
    assert_eq!(broker.values(0), numbers(0..20));
    assert!(broker.out_of_order() > 0, "later ones were under way");
    assert_eq!(broker.producers(0), [(1, 0); 20]);
}

/// More answers come with the end of the stream than can be looked at before it is known that no request can follow.
#[tokio::test]
async fn the_last_answers_of_a_stream_count_though_it_takes_no_more_requests() {
    const ANSWERED: usize = 1_000;
    let (broker, url) = Broker::start(1);
    broker.script_produce(std::iter::repeat_n(OnProduce::AcknowledgeLate, ANSWERED));
    broker.script_produce([OnProduce::ShutDown]);
    let config = ProducerConfig {
        max_in_flight: ANSWERED + 1,
        max_in_flight_per_partition: ANSWERED + 1,
        idempotence: false,
        ..one_by_one()
    };
    let producer = producer(&url, config).await;
    let deliveries = send_numbers(&producer, 2 * ANSWERED).await;
    for delivery in deliveries {
        delivery.await.expect("appended, and known to be");
    }
    let mut values = broker.values(0);
    assert_eq!(values[..ANSWERED], numbers(0..ANSWERED));
    values.sort_by_key(|value| value.parse::<usize>().expect("a number"));
    assert_eq!(values, numbers(0..2 * ANSWERED), "all are there once");
}

#[tokio::test]
async fn what_is_tried_again_can_be_asked_for_until_it_is_done() {
    let (broker, url) = Broker::start(1);
    broker.script_produce([OnProduce::RefuseForNow, OnProduce::RefuseForNow]);
    let producer = producer(&url, one_by_one()).await;
    assert!(producer.trouble().is_none());
    let mut delivery = producer.send(record("late")).await.expect("room");
    let trouble = loop {
        assert!((&mut delivery).now_or_never().is_none(), "it is refused twice");
        match producer.trouble() {
            Some(trouble) => break trouble,
            None => tokio::task::yield_now().await,
        }
    };
    assert!(trouble.error.is_retriable(), "{:?}", trouble.error);
    delivery.await.expect("appended");
    assert!(producer.trouble().is_none());
}

#[tokio::test]
async fn a_batch_refused_for_good_fails_alone() {
    let (broker, url) = Broker::start(1);
    broker.script_produce([OnProduce::Append, OnProduce::Refuse("INVALID_RECORD")]);
    let producer = producer(&url, one_by_one()).await;
    let mut outcomes = Vec::new();
    for number in 0..3 {
        let delivery = producer.send(record(&number.to_string())).await.expect("room");
        outcomes
            .push(delivery.await.map_err(|error| error.reason().to_owned()).map(|done| done.offset.get()));
    }
    assert_eq!(outcomes, [Ok(0), Err("INVALID_RECORD".to_owned()), Ok(1)]);
    assert_eq!(broker.values(0), ["0", "2"]);
}

#[tokio::test]
async fn several_batches_behind_one_refused_for_good_are_appended_in_order_in_the_next_epoch() {
    let (broker, url) = Broker::start(1);
    broker.script_produce([OnProduce::Append, OnProduce::Refuse("INVALID_RECORD")]);
    let producer = producer(&url, one_by_one()).await;
    let deliveries = send_numbers(&producer, 8).await;
    let mut offsets = Vec::new();
    for delivery in deliveries {
        offsets.push(delivery.await.map(|done| done.offset.get()).ok());
    }
    assert_eq!(offsets, [Some(0), None, Some(1), Some(2), Some(3), Some(4), Some(5), Some(6)]);
    assert_eq!(broker.values(0), ["0", "2", "3", "4", "5", "6", "7"]);
    assert!(broker.out_of_order() > 0, "later ones were under way");
    assert_eq!((broker.producers(0)[0], broker.producers(0)[1]), ((1, 0), (1, 1)));
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_neither_loses_nor_doubles_a_record() {
    for append in [true, false] {
        let (broker, url) = Broker::start(1);
        broker.script_produce([
            OnProduce::Append,
            OnProduce::Append,
            OnProduce::Break { append },
            OnProduce::Break { append },
        ]);
        let producer = producer(&url, one_by_one()).await;
        assert_delivered_in_order(send_numbers(&producer, 10).await).await;
        assert_eq!(broker.values(0), numbers(0..10));
        assert_eq!(broker.producers(0), [(1, 0); 10]);
    }
}

#[tokio::test]
async fn answers_may_come_in_any_order() {
    let (broker, url) = Broker::start(1);
    broker.script_produce([
        OnProduce::Append,
        OnProduce::AcknowledgeAfterNext,
        OnProduce::AcknowledgeAfterNext,
        OnProduce::Append,
        OnProduce::AcknowledgeAfterNext,
        OnProduce::Break { append: true },
    ]);
    let producer = producer(&url, one_by_one()).await;
    assert_delivered_in_order(send_numbers(&producer, 20).await).await;
    assert_eq!(broker.values(0), numbers(0..20));
}

#[tokio::test]
async fn what_is_given_up_without_an_answer_has_an_unknown_outcome_and_the_next_is_appended_all_the_same() {
    for (append, epoch) in [(true, 0), (false, 1)] {
        let (broker, url) = Broker::start(1);
        broker.script_produce([OnProduce::Append, OnProduce::Break { append }, OnProduce::Swallow]);
        let config = ProducerConfig { delivery_timeout: Duration::from_millis(500), ..one_by_one() };
        let producer = producer(&url, config).await;
        producer.send(record("first")).await.expect("room").await.expect("delivered");
        let error = producer.send(record("lost")).await.expect("room").await.expect_err("no answer");
        assert!(error.is_outcome_unknown(), "{error:?}");
        producer.send(record("last")).await.expect("room").await.expect("delivered");
        let expected: &[&str] = if append { &["first", "lost", "last"] } else { &["first", "last"] };
        assert_eq!(broker.values(0), expected);
        assert_eq!(broker.producers(0).last(), Some(&(1, epoch)));
    }
}

#[tokio::test]
async fn a_refusal_after_a_lost_answer_leaves_the_outcome_unknown() {
    let (broker, url) = Broker::start(1);
    broker.script_produce([OnProduce::Break { append: true }, OnProduce::Refuse("MESSAGE_TOO_LARGE")]);
    let producer = producer(&url, one_by_one()).await;
    let error = producer.send(record("there")).await.expect("room").await.expect_err("refused");
    assert!(error.is_outcome_unknown(), "{error:?}");
    assert_eq!(broker.values(0), ["there"]);
}

#[tokio::test]
async fn a_fenced_producer_is_told_so() {
    let (broker, url) = Broker::start(1);
    broker.script_produce([OnProduce::Append, OnProduce::Refuse("FENCED_PRODUCER")]);
    let producer = producer(&url, one_by_one()).await;
    producer.send(record("first")).await.expect("room").await.expect("delivered");
    let error = producer.send(record("late")).await.expect("room").await.expect_err("fenced");
    assert_eq!((error.reason(), error.is_outcome_unknown()), ("FENCED_PRODUCER", false));
    assert_eq!(broker.values(0), ["first"]);
}

#[tokio::test]
async fn a_producer_id_is_asked_for_until_there_is_one() {
    let (broker, url) = Broker::start(1);
    broker.refuse_init(2);
    let producer = producer(&url, one_by_one()).await;
    producer.send(record("first")).await.expect("room").await.expect("delivered");
    assert_eq!(broker.producers(0), [(1, 0)]);
}

#[tokio::test]
async fn without_idempotence_a_stream_that_breaks_leaves_the_outcome_unknown_and_repeats_nothing() {
    for append in [true, false] {
        let (broker, url) = Broker::start(1);
        broker.script_produce([OnProduce::Append, OnProduce::Break { append }]);
        let producer = producer(&url, ProducerConfig { idempotence: false, ..one_by_one() }).await;
        producer.send(record("first")).await.expect("room").await.expect("delivered");
        let error = producer.send(record("lost")).await.expect("room").await.expect_err("broken");
        assert!(error.is_outcome_unknown(), "{error:?}");
        // The next record opens a new stream.
        producer.send(record("last")).await.expect("room").await.expect("delivered");
        let expected: &[&str] = if append { &["first", "lost", "last"] } else { &["first", "last"] };
        assert_eq!(broker.values(0), expected);
        assert!(broker.producers(0).iter().all(|producer| *producer == (-1, -1)));
    }
}

#[tokio::test]
async fn what_a_broker_had_not_begun_when_it_shut_down_is_sent_again_and_only_once() {
    let (broker, url) = Broker::start(1);
    broker.script_produce([OnProduce::Append, OnProduce::ShutDown]);
    let producer = producer(&url, one_by_one()).await;
    for value in ["first", "held", "last"] {
        producer.send(record(value)).await.expect("room").await.expect("delivered");
    }
    assert_eq!(broker.values(0), ["first", "held", "last"]);
}

#[tokio::test]
async fn a_broker_that_never_answers_costs_no_more_than_the_delivery_timeout() {
    let (broker, url) = Broker::start(1);
    broker.script_produce([OnProduce::Swallow]);
    let config = ProducerConfig { delivery_timeout: Duration::from_millis(100), ..one_by_one() };
    let producer = producer(&url, config).await;
    let error = producer.send(record("x")).await.expect("room").await.expect_err("no answer");
    assert_eq!(error.reason(), "TIMEOUT");
    assert!(error.is_outcome_unknown());
}

#[tokio::test]
async fn a_full_buffer_makes_senders_wait_until_a_batch_is_acknowledged() {
    let (broker, url) = Broker::start(1);
    broker.script_produce([OnProduce::Swallow]);
    let config =
        ProducerConfig { buffer_bytes: 1_000, delivery_timeout: Duration::from_millis(200), ..one_by_one() };
    let producer = producer(&url, config).await;
    let large = "x".repeat(700);
    let first = producer.send(record(&large)).await.expect("room");
    assert!(producer.send(record(&large)).now_or_never().is_none(), "there is no room for two");
    // Room comes with the first one's end, whichever it is.
    let second = producer.send(record(&large)).await.expect("room");
    assert!(first.now_or_never().expect("settled").is_err());
    second.await.expect("delivered");
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_created_before_its_first_record_is_sent() {
    let (broker, url) = Broker::start(0);
    let producer = producer(&url, one_by_one()).await;
    let keyed = ProducerRecord::new(topic()).key("21").value("first");
    let delivered = producer.send(keyed).await.expect("created").await.expect("delivered");
    // The key decides from the first one on: murmur2("21") without its sign bit.
    assert_eq!(delivered.partition.get(), 1_173_551_340 % 4);
    assert_eq!(broker.values(0), ["first"]);
}

#[tokio::test]
async fn a_closed_producer_has_sent_everything_and_takes_nothing_more() {
    let (broker, url) = Broker::start(1);
    let producer =
        producer(&url, ProducerConfig { linger: Duration::from_hours(1), ..ProducerConfig::default() }).await;
    let delivery = producer.send(record("lingering")).await.expect("room");
    producer.close().await.expect("flushed");
    assert!(delivery.now_or_never().expect("settled").is_ok());
    assert_eq!(producer.send(record("late")).await.expect_err("closed").reason(), "CLOSED");
    assert_eq!(broker.values(0), ["lingering"]);
}

#[tokio::test]
async fn dropping_the_producer_abandons_what_it_holds() {
    let (_broker, url) = Broker::start(1);
    let producer =
        producer(&url, ProducerConfig { linger: Duration::from_hours(1), ..ProducerConfig::default() }).await;
    let delivery = producer.send(record("lingering")).await.expect("room");
    drop(producer);
    assert_eq!(delivery.await.expect_err("abandoned").reason(), "ABANDONED");
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_unreachable() {
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    drop(listener);
    let error = Client::connect(&url).await.expect_err("nobody listens");
    assert!(error.is_unreachable(), "{error:?}");

    let client = Client::connect_lazy(&url, &ConnectionConfig::default()).expect("an address");
    let config = ProducerConfig { delivery_timeout: Duration::from_millis(200), ..ProducerConfig::default() };
    let producer = client.producer(config).expect("valid settings");
    let error = producer.send(record("x")).await.expect_err("nobody listens");
    assert!(error.is_unreachable() && !error.is_outcome_unknown(), "{error:?}");
}

#[tokio::test]
async fn a_consumer_resumes_exactly_where_the_stream_broke() {
    let (broker, url) = Broker::start(1);
    nine_records(&broker, &url).await;
    broker.script_fetch([
        OnFetch::Unavailable,
        OnFetch::BreakAfter(1),
        OnFetch::BreakAfter(0),
        OnFetch::BreakAfter(1),
    ]);
    let mut consumer = consumer(&url, Position::Earliest).await;
    assert_eq!(read_to_end(&mut consumer).await.expect("all of it"), numbers(0..9));
    assert_eq!(broker.fetches(), [[(0, 0)], [(0, 0)], [(0, 3)], [(0, 3)], [(0, 6)]]);
    assert_eq!(consumer.position(&TopicPartition::new(topic(), partition(0))), Offset::new(9));
}

#[tokio::test]
async fn a_start_within_a_batch_trims_what_lies_before_it() {
    let (broker, url) = Broker::start(1);
    nine_records(&broker, &url).await;
    let mut consumer = consumer(&url, Position::Offset(Offset::clamped(4))).await;
    assert_eq!(read_to_end(&mut consumer).await.expect("all of it"), numbers(4..9));
}

#[tokio::test]
async fn a_seek_goes_back_and_forward() {
    let (broker, url) = Broker::start(1);
    nine_records(&broker, &url).await;
    let mut consumer = consumer(&url, Position::Latest).await;
    let place = TopicPartition::new(topic(), partition(0));
    consumer.seek(&place, Position::Offset(Offset::clamped(7))).await.expect("there");
    let first = consumer.next().await.expect("a record").expect("read");
    assert_eq!(first.offset.get(), 7);
    consumer.seek(&place, Position::Earliest).await.expect("there");
    assert_eq!(read_to_end(&mut consumer).await.expect("all of it"), numbers(0..9));
}

#[tokio::test]
async fn an_error_of_one_partition_is_handed_out_once_and_the_other_goes_on() {
    let (broker, url) = Broker::start(2);
    nine_records(&broker, &url).await;
    let producer = producer(&url, ProducerConfig::default()).await;
    let other = ProducerRecord::new(topic()).partition(partition(1)).value("other");
    drop(producer.send(other).await.expect("room"));
    producer.close().await.expect("appended");

    broker.script_fetch([OnFetch::OutOfRange]);
    let mut consumer = consumer(&url, Position::Earliest).await;
    let error = consumer.next().await.expect("an error").expect_err("out of range");
    assert_eq!(error.reason(), "OFFSET_OUT_OF_RANGE");
    assert_eq!(read_to_end(&mut consumer).await.expect("the other"), ["other"]);

    // A seek brings it back.
    consumer.seek(&TopicPartition::new(topic(), partition(0)), Position::Earliest).await.expect("there");
    assert_eq!(read_to_end(&mut consumer).await.expect("all of it"), numbers(0..9));
}

#[tokio::test]
async fn a_partition_whose_start_cannot_be_told_keeps_none_of_the_others_back() {
    let (broker, url) = Broker::start(2);
    nine_records(&broker, &url).await;
    broker.fence(Some(1));
    let mut consumer = consumer(&url, Position::Earliest).await;
    let error = consumer.next().await.expect("an error").expect_err("fenced");
    assert_eq!(error.reason(), "PARTITION_FENCED");
    assert_eq!(read_to_end(&mut consumer).await.expect("the other"), numbers(0..9));
    assert_eq!(broker.fetches(), [[(0, 0)]], "it is not asked for");

    // Once it can be read, a seek brings it in.
    let fenced = TopicPartition::new(topic(), partition(1));
    assert_eq!(consumer.position(&fenced), None);
    consumer.seek(&fenced, Position::Earliest).await.expect_err("still fenced");
    broker.fence(None);
    consumer.seek(&fenced, Position::Earliest).await.expect("there");
    assert_eq!(consumer.position(&fenced), Some(Offset::ZERO));
}

#[tokio::test]
async fn a_broker_that_stays_away_is_reported_after_the_reconnect_timeout() {
    let (broker, url) = Broker::start(1);
    broker.script_fetch([OnFetch::Unavailable, OnFetch::Unavailable]);
    let config = ConsumerConfig { reconnect_timeout: Duration::ZERO, ..ConsumerConfig::default() };
    let client = Client::connect(&url).await.expect("a broker");
    let mut consumer = client.consumer(config.topic(topic(), Position::Earliest)).await.expect("a consumer");
    for _ in 0..2 {
        let error = consumer.next().await.expect("an error").expect_err("away");
        assert_eq!(error.reason(), "SHUTTING_DOWN");
    }
    assert_eq!(broker.fetches().len(), 2);
}

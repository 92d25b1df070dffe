//! Segments that are cut while the broker serves them: the fetch that meets it fails, and nothing else does.

use std::fs::OpenOptions;
use std::path::PathBuf;

use sagwan::proto::log_service_client::LogServiceClient;
use sagwan::proto::{CreateTopicRequest, FetchFormat, FetchStreamRequest};
use sagwan::record;
use storage_tests::poll;
use tonic::Code;
use tonic::transport::Channel;

use crate::harness::{TestBroker, assert_failed, fetch, from_offset, records, soon, values};

const VALUES: i64 = 12;
const VALUE_BYTES: usize = 1_000_000;

/// A broker that has nothing in memory, with a topic of two partitions whose segments have two records each.
async fn cold() -> TestBroker {
    let broker = TestBroker::start_with(|config| config.storage.tail_cache_bytes = 0).await;
    let request = CreateTopicRequest {
        name: "orders".to_owned(),
        partitions: Some(2),
        config: [("segment_bytes".to_owned(), "2097152".to_owned())].into(),
        validate_only: false,
    };
    broker.admin().create_topic(request).await.expect("created");
    let value = "x".repeat(VALUE_BYTES);
    for _ in 0..VALUES {
        for partition in 0..2 {
            broker.produce(records("orders", partition, &[value.as_str()])).await.expect("produced");
        }
    }
    broker
}

/// The log files of partition 0, in their order.
fn segments(broker: &TestBroker) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(broker.dir.path().join("data/orders-0")).expect("a directory");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    files.sort();
    files
}

/// Cuts every segment of partition 0 but the first and the last.
fn cut(broker: &TestBroker) {
    let segments = segments(broker);
    assert_eq!(segments.len() as i64, VALUES / 2);
    for path in &segments[1..segments.len() - 1] {
        OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(0)).expect("cut");
    }
}

/// What is lost is told by offset, and everything else is as it was.
async fn assert_the_rest_is_served(broker: &TestBroker) {
    for format in [FetchFormat::Records, FetchFormat::RecordBatches] {
        let outcome = broker.fetch(fetch(vec![from_offset("orders", 0, 4)], format)).await;
        let range = [("topic", "orders"), ("partition", "0"), ("first_offset", "4"), ("last_offset", "5")];
        assert_failed(outcome, Code::DataLoss, "DATA_LOSS", &range);
    }
    for (partition, offset) in [(0, 0), (0, VALUES - 1), (1, 0), (1, 5)] {
        let read = broker.read("orders", partition, offset).await.expect("read");
        assert_eq!((read.records[0].offset, values(&read)[0].len()), (offset, VALUE_BYTES));
    }
    broker.produce(records("orders", 0, &["more"])).await.expect("produced");
    assert_eq!(values(&broker.read("orders", 0, VALUES).await.expect("read")), ["more"]);
}

#[tokio::test]
async fn a_segment_that_was_cut_before_it_is_read_is_lost_and_nothing_else() {
    let broker = cold().await;
    cut(&broker);
    assert_the_rest_is_served(&broker).await;
}

#[tokio::test]
async fn a_segment_that_is_cut_between_reading_and_sending_fails_its_stream_alone() {
    for format in [FetchFormat::Records, FetchFormat::RecordBatches] {
        let broker = cold().await;
        // What is read a second time comes out of the map.
        for offset in 0..VALUES {
            broker.read("orders", 0, offset).await.expect("read");
        }
        let uri = format!("http://{}", broker.server.grpc_addr());
        // So small that the second message has to wait until the first one has been taken.
        let narrow = Channel::from_shared(uri).expect("a URI").initial_stream_window_size(Some(65_535));
        let mut client = LogServiceClient::new(narrow.connect().await.expect("connected"));
        let before = broker.server.status().storage.segment_reads;
        let partitions = vec![from_offset("orders", 0, 0)];
        let request = FetchStreamRequest { partitions, format: format.into(), ..Default::default() };
        let mut stream = client.fetch_stream(request).await.expect("opened").into_inner();
        // One message is on its way by then, one waits and one has been read: slices of maps, but for what is in transport.
        // The client must take nothing meanwhile, so it hears of nothing.
        let reads = || broker.server.status().storage.segment_reads - before;
        poll::until("three messages are read", async || reads() >= 3).await;
        cut(&broker);
        let mut read = 0;
        let ending = loop {
            match soon(stream.message()).await {
                Ok(message) => {
                    let data = message.expect("streams end with a status").data.expect("data");
                    assert!(values(&data).iter().all(|value| *value == "x".repeat(VALUE_BYTES)));
                    let batches = data.record_batches.iter().flat_map(|chunk| record::batches(chunk));
                    assert!(batches.into_iter().all(|batch| batch.expect("whole").crc_is_valid()));
                    read = data.next_offset;
                }
                Err(status) => break status,
            }
        };
        assert!((1..4).contains(&read), "{read}");
        let place = [("topic", "orders"), ("partition", "0")];
        assert_failed::<()>(Err(ending), Code::Internal, "STORAGE_ERROR", &place);
        assert_the_rest_is_served(&broker).await;
    }
}

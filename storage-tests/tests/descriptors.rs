//! Descriptors and maps: a server gets along with few, says so when there are none, and lets go of what is deleted.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, prlimit};
use sagwan::proto::admin_service_client::AdminServiceClient;
use sagwan::proto::log_service_client::LogServiceClient;
use sagwan::proto::{
    CreateTopicRequest, DeleteRecordsPartition, DeleteRecordsRequest, FetchPartition, FetchRequest,
    FetchStreamRequest, Position, ProduceRequest, Record, position,
};
use storage_tests::load::connect;
use storage_tests::poll;
use storage_tests::process::ServerProcess;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sagwan-under-test");
const TOPIC: &str = "wide";
/// Three such values fill a segment.
const VALUE_BYTES: usize = 20_000;
const SEGMENT_BYTES: &str = "65536";
/// Longer than it takes in a debug build on a busy machine.
const LIMIT: Duration = Duration::from_mins(3);

type Log = LogServiceClient<Channel>;

/// Nothing is read from memory: every fetch needs its segment.
fn settings(dir: &TempDir, more: &str) -> PathBuf {
    let path = dir.path().join("sagwan.toml");
    std::fs::write(&path, format!("[storage]\ntail_cache_bytes = 0\n{more}")).expect("written");
    path
}

async fn create(server: &ServerProcess, partitions: i32, durability: &str) {
    let mut admin = AdminServiceClient::new(connect(server).await);
    let config =
        [("segment_bytes", SEGMENT_BYTES), ("max_message_bytes", SEGMENT_BYTES), ("durability", durability)];
    let request = CreateTopicRequest {
        name: TOPIC.to_owned(),
        partitions: Some(partitions),
        config: config.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        validate_only: false,
    };
    admin.create_topic(request).await.expect("created");
}

fn value(partition: i32, number: usize) -> Bytes {
    let mut value = format!("{partition}/{number}/").into_bytes();
    value.resize(VALUE_BYTES, b'.');
    value.into()
}

/// Appends one record; returns its offset.
async fn produce(log: &mut Log, partition: i32, value: Bytes) -> Result<i64, Status> {
    let record = Record { value: Some(value), ..Record::default() };
    let request = ProduceRequest {
        topic: TOPIC.to_owned(),
        partition: Some(partition),
        records: vec![record],
        ..ProduceRequest::default()
    };
    Ok(log.produce(request).await?.into_inner().results[0].base_offset)
}

fn from(partition: i32, offset: i64) -> FetchPartition {
    let position = Some(Position { at: Some(position::At::Offset(offset)) });
    FetchPartition { topic: TOPIC.to_owned(), partition, position }
}

/// All values of a partition from `offset` on.
async fn fetch(log: &mut Log, partition: i32, mut offset: i64) -> Result<Vec<Bytes>, Status> {
    let mut values = Vec::new();
    loop {
        let request = FetchRequest { partitions: vec![from(partition, offset)], ..FetchRequest::default() };
        let data = log.fetch(request).await?.into_inner().partitions.remove(0);
        if data.records.is_empty() {
            return Ok(values);
        }
        offset = data.next_offset;
        values.extend(data.records.into_iter().map(|record| record.value.unwrap_or_default()));
    }
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map_or_else(|| format!("untyped: {status:?}"), |info| info.reason)
}

fn of_logs<'p>(paths: impl IntoIterator<Item = &'p PathBuf>) -> usize {
    let is_log = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "log");
    paths.into_iter().filter(is_log).count()
}

fn of_segments(maps: &[String]) -> usize {
    maps.iter().filter(|path| path.contains(".log") || path.contains(".index")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_128_descriptors_two_hundred_clients_are_served_and_nothing_is_lost() {
    const PARTITIONS: i32 = 100;
    const CLIENTS: i32 = 200;
    const VALUES: usize = 5;
    const LIMITED: [&str; 3] = ["sh", "-c", "ulimit -n 128 && exec \"$0\" \"$@\""];
    let dir = TempDir::new().expect("a directory");
    let config = settings(&dir, "");
    let mut server = ServerProcess::start_under(&LIMITED, PROGRAM, dir.path().join("data"), Some(config));
    create(&server, PARTITIONS, "fsync").await;

    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let endpoint = Channel::from_shared(server.url()).expect("a URI");
        clients.spawn(async move {
            // All ask at once; those beyond the budget wait until others are done.
            let mut log = LogServiceClient::new(endpoint.connect().await.expect("in the listen queue"));
            let partition = client % PARTITIONS;
            let mut acknowledged = Vec::new();
            for number in 0..VALUES {
                let value = value(client, number);
                let offset =
                    produce(&mut log, partition, value.clone()).await.map_err(|status| reason(&status))?;
                acknowledged.push((partition, offset, value));
            }
            let first = acknowledged[0].1;
            let found = fetch(&mut log, partition, first).await.map_err(|status| reason(&status))?;
            for (_, offset, value) in &acknowledged {
                assert!(found[usize::try_from(offset - first).expect("in order")] == value, "at {offset}");
            }
            Ok::<_, String>(acknowledged)
        });
    }
    let mut acknowledged = Vec::new();
    while let Some(outcome) = timeout(LIMIT, clients.join_next()).await.expect("every call is answered") {
        acknowledged
            .extend(outcome.expect("a client").expect("there is enough for all, one after the other"));
    }
    assert_eq!(acknowledged.len(), CLIENTS as usize * VALUES);

    server.kill9();
    server.restart_under(&[]);
    let mut log = LogServiceClient::new(connect(&server).await);
    let mut found = Vec::new();
    for partition in 0..PARTITIONS {
        found.push(fetch(&mut log, partition, 0).await.expect("read"));
    }
    for (partition, offset, value) in acknowledged {
        assert!(found[partition as usize][offset as usize] == value, "{partition} at {offset}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_files_and_maps_stay_within_their_budgets_however_many_logs_there_are() {
    const PARTITIONS: i32 = 150;
    const OPEN: usize = 16;
    for durability in ["fsync", "os"] {
        let dir = TempDir::new().expect("a directory");
        let config = settings(&dir, &format!("open_segments = {OPEN}\nopen_logs = {OPEN}\n"));
        let server = ServerProcess::start_configured(PROGRAM, dir.path().join("data"), config);
        create(&server, PARTITIONS, durability).await;
        let mut log = LogServiceClient::new(connect(&server).await);
        let (mut most_open, mut most_mapped) = (0, 0);
        for number in 0..7 {
            for partition in 0..PARTITIONS {
                produce(&mut log, partition, value(partition, number)).await.expect("produced");
                most_open = most_open.max(of_logs(&server.open_files()));
            }
        }
        for partition in 0..PARTITIONS {
            let found = fetch(&mut log, partition, 0).await.expect("read");
            assert!(
                found == (0..7).map(|number| value(partition, number)).collect::<Vec<_>>(),
                "{partition}"
            );
            most_mapped = most_mapped.max(of_segments(&server.mapped_files()));
        }
        // A file that is being rolled, sealed, or let go by the syncing thread is open for a moment more.
        assert!((OPEN / 2..=OPEN + 4).contains(&most_open), "{durability}: {most_open} log files were open");
        assert!((OPEN..=2 * OPEN + 2).contains(&most_mapped), "{most_mapped} maps were there");
    }
}

/// Sets how many files the server may open from now on; those that are open stay so. Returns how many it may have had.
fn set_descriptors(server: &ServerProcess, current: Option<u64>) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).expect("limits");
    let line = text.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    let number =
        |column| line.split_whitespace().nth(column).and_then(|word| word.parse().ok()).expect("a number");
    let (before, maximum) = (number(3), number(4));
    let limit = Rlimit { current: Some(current.unwrap_or(maximum)), maximum: Some(maximum) };
    prlimit(Some(server.pid()), Resource::Nofile, limit).unwrap_or_else(|error| panic!("prlimit: {error}"));
    before
}

#[track_caller]
fn assert_exhausted(outcome: Result<(), Status>) {
    let status = outcome.expect_err("there is no descriptor for it");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "TOO_MANY_OPEN_FILES"));
    assert!(status.get_details_retry_info().is_some(), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_descriptor_left_says_so_and_goes_on_when_it_has_some() {
    let dir = TempDir::new().expect("a directory");
    let config = settings(&dir, "");
    let mut server = ServerProcess::start_configured(PROGRAM, dir.path().join("data"), config);
    create(&server, 2, "fsync").await;
    let mut log = LogServiceClient::new(connect(&server).await);
    for number in 0..7 {
        produce(&mut log, 0, value(0, number)).await.expect("produced");
    }
    // Its soft limit has been raised to the hard one.
    let limit = set_descriptors(&server, Some(3));
    assert_exhausted(produce(&mut log, 1, value(1, 0)).await.map(|_| ()));
    assert_exhausted(fetch(&mut log, 0, 0).await.map(|_| ()));
    // What is open goes on, up to the next segment.
    let mut next = 7;
    let refused = loop {
        match produce(&mut log, 0, value(0, next)).await {
            Ok(_) => next += 1,
            Err(status) => break status,
        }
    };
    assert!(next < 10, "{next}");
    assert_exhausted(Err(refused));
    assert_exhausted(produce(&mut log, 0, value(0, next)).await.map(|_| ()));

    assert_eq!(set_descriptors(&server, None), 3);
    assert!(limit > 3);
    for _ in 0..5 {
        produce(&mut log, 0, value(0, next)).await.expect("no partition is fenced");
        next += 1;
    }
    assert_eq!(produce(&mut log, 1, value(1, 0)).await.expect("produced"), 0);
    let expected: Vec<Bytes> = (0..next).map(|number| value(0, number)).collect();
    assert!(fetch(&mut log, 0, 0).await.expect("read") == expected);
    server.kill9();
    server.restart();
    let mut log = LogServiceClient::new(connect(&server).await);
    assert!(fetch(&mut log, 0, 0).await.expect("read") == expected);
}

#[test]
fn a_server_that_may_open_too_few_files_does_not_start_and_says_how_many_it_needs() {
    let dir = TempDir::new().expect("a directory");
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" serve --grpc-addr 127.0.0.1:0 --data-dir \"$1\"", PROGRAM])
        .arg(dir.path().join("data"))
        .output()
        .expect("run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("at most 64 files may be open"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_space_of_deleted_segments_is_freed_though_readers_stand_still() {
    // Three fill a segment: the last one is alone in the active one, which is not deleted.
    const VALUES: usize = 58;
    const STREAMS: usize = 20;
    let dir = TempDir::new().expect("a directory");
    let config = settings(&dir, "[grpc]\nstall_timeout_ms = 5_000\n");
    let server = ServerProcess::start_configured(PROGRAM, dir.path().join("data"), config);
    create(&server, 2, "fsync").await;
    let mut log = LogServiceClient::new(connect(&server).await);
    for partition in 0..2 {
        for number in 0..VALUES {
            produce(&mut log, partition, value(partition, number)).await.expect("produced");
        }
    }
    // Readers who open a stream and never look at it again: some far from the end of the log, and some so near that they
    // wait there for more, with the last messages not taken.
    let narrow = Channel::from_shared(server.url()).expect("a URI").initial_stream_window_size(Some(65_535));
    let mut reader = LogServiceClient::new(narrow.connect().await.expect("connected"));
    let mut streams = Vec::new();
    for stream in 0..STREAMS {
        let (partition, offset) = if stream % 2 == 0 { (0, 0) } else { (1, VALUES as i64 - 6) };
        let partitions = vec![from(partition, offset)];
        let request = FetchStreamRequest { partitions, max_bytes: 20_000, ..FetchStreamRequest::default() };
        streams.push(reader.fetch_stream(request).await.expect("opened").into_inner());
    }
    let deleted = || server.mapped_files().iter().filter(|path| path.ends_with(" (deleted)")).count();
    let mapped = || of_segments(&server.mapped_files());
    // Of the server's maps only the kernel tells, and only whoever asks.
    poll::until("segments are mapped", async || mapped() >= 4).await;
    let partitions =
        (0..2).map(|partition| DeleteRecordsPartition { partition, before_offset: -1 }).collect();
    let request = DeleteRecordsRequest { topic: TOPIC.to_owned(), partitions };
    AdminServiceClient::new(connect(&server).await).delete_records(request).await.expect("deleted");
    assert!(deleted() > 0, "somebody stands still in the middle of what was deleted");
    poll::until("nothing deleted is mapped", async || deleted() == 0).await;
    let is_deleted = |path: &PathBuf| path.to_string_lossy().ends_with(" (deleted)");
    assert!(!server.open_files().iter().any(is_deleted), "{:?}", server.open_files());
    drop(streams);
}

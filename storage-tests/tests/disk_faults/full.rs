//! A disk without room: a small file system that is filled to the brim.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _, stderr};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use storage_tests::disk::Disk;
use storage_tests::ledger::Scope;
use storage_tests::load::{End, Load, SMALL_SEGMENTS};
use storage_tests::poll;
use storage_tests::process::ServerProcess;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::SAGWAN;
use crate::client::{Client, assert_no_room, large};

const DISK_BYTES: u64 = 64 << 20;
/// How long a server may take to go on.
const NOTICE: Duration = Duration::from_secs(30);

/// A small disk with a server on it, and somebody else who fills it.
struct SmallDisk {
    disk: Disk,
    config: TempDir,
}

impl SmallDisk {
    /// If this machine has one.
    fn new(storage: &str) -> Option<Self> {
        // Not `eprintln!`, which is not shown when a test passes.
        let disk = Disk::with_bytes(DISK_BYTES)
            .inspect_err(|why| writeln!(stderr(), "NOT RUN, no disk was filled: {why}").expect("a line"))
            .ok()?;
        let config = TempDir::new().expect("a temporary directory");
        fs::write(config.path().join("sagwan.toml"), format!("[storage]\n{storage}\n")).expect("settings");
        Some(Self { disk, config })
    }

    fn start(&self) -> ServerProcess {
        let (data, config) = (self.disk.path().join("data"), self.config.path().join("sagwan.toml"));
        ServerProcess::start_configured(SAGWAN, data, config)
    }

    fn neighbour(&self) -> PathBuf {
        self.disk.path().join("neighbour")
    }

    /// Takes all the room there is but `leave_bytes`.
    fn fill(&self, leave_bytes: u64) {
        let mut file = File::options().create(true).append(true).open(self.neighbour()).expect("a file");
        for step in [1 << 20, 4 << 10, 1] {
            loop {
                match file.write(&vec![1; step]) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        let len = file.metadata().expect("a file").len();
        file.set_len(len.saturating_sub(leave_bytes)).expect("cut");
        file.sync_all().expect("synced");
    }

    /// Whether the server holds no room beyond what it has written.
    fn is_all_written(&self) -> bool {
        const SLACK_BYTES: u64 = 16 << 10;
        let entries = |dir: PathBuf| {
            fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path())
        };
        let data = self.disk.path().join("data");
        let files = entries(data).filter(|path| path.is_dir()).flat_map(entries);
        let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.map(|log| fs::metadata(log).expect("a file"))
            .all(|log| log.blocks() * 512 <= log.len() + SLACK_BYTES)
    }

    fn leave(&self) {
        fs::remove_file(self.neighbour()).expect("removed");
    }
}

/// Waits until the server takes records again. It looks for room by itself, and tells nobody but those who ask.
async fn room_again(client: &Client, topic: &str) {
    let is_taken = async || {
        let outcome = client.produce(topic, 0, b"again").await;
        outcome.inspect_err(assert_no_room).is_ok()
    };
    poll::until("the server takes records", is_taken).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_records_are_refused_and_all_else_goes_on() {
    // Checkpoints and indexes are written all the time.
    let Some(disk) = SmallDisk::new("reserve_bytes = 4_194_304\ncheckpoint_interval_ms = 100") else {
        return;
    };
    let mut server = disk.start();
    let durabilities = [("synced", "fsync"), ("cached", "os")];
    let mut load = Load::create(&server, &durabilities, SMALL_SEGMENTS, &mut fastrand::Rng::new()).await;
    let client = Client::new(&server).await;
    client.create("large", 1, &[("segment_bytes", "1200000")]).await.expect("created");
    for _ in 0..160 {
        client.produce("large", 0, &large()).await.expect("room");
    }
    client.commit("large", 1, "").await.expect("committed");

    // Twice: the server itself comes to the end of the room, then a neighbour takes the rest.
    for offset in [10, 20] {
        disk.fill(6 << 20);
        load.start(&server).await;
        for end in load.ends().await {
            assert!(matches!(&end, End::Refused(why) if why.contains("no room")), "{end:?}");
        }
        // Else there would be room for some more, for a while.
        poll::until("the logs give back what they have set aside", async || disk.is_all_written()).await;
        disk.fill(0);
        let client = Client::new(&server).await;
        assert_no_room(&client.produce("large", 0, &large()).await.expect_err("no room"));
        load.settle(&server, Scope::All).await.expect("all that was acknowledged is read");
        for step in 0..10 {
            client.commit("large", offset + step, "").await.expect("from the reserve");
        }
        assert_eq!(client.committed("large").await, offset + 9);
        assert_no_room(&client.create("new", 1, &[]).await.expect_err("no room for records"));
        assert_eq!(client.counters().await.fenced_partitions, 0, "no room fences nothing");

        server.kill9();
        server.restart();
        load.settle(&server, Scope::All).await.expect("a start on a full disk finds everything");
        let client = Client::new(&server).await;
        assert_eq!(client.committed("large").await, offset + 9);
        client.commit("large", offset, "").await.expect("from the reserve");
        assert_eq!(client.counters().await.fenced_partitions, 0);
        disk.leave();
        room_again(&client, "large").await;
    }

    // What is deleted makes room: half of it by its records, the rest with the topic.
    disk.fill(0);
    let client = Client::new(&server).await;
    client.fill("large").await;
    client.delete_records("large").await;
    room_again(&client, "large").await;
    disk.fill(0);
    client.create("other", 1, &[]).await.expect_err("no room");
    client.fill("large").await;
    client.delete("large").await.expect("from the reserve");
    disk.leave();
    load.start(&server).await;
    timeout(NOTICE, load.acknowledgements(50)).await.expect("the server goes on");
    load.stop_listening();
    assert!(server.terminate().success(), "an orderly end");
    load.ends().await;
    server.restart();
    load.settle(&server, Scope::All).await.expect("nothing is lost");
    assert_eq!(Client::new(&server).await.counters().await.recovered_bytes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_reserve_is_used_up_too_the_server_waits_for_room() {
    let Some(disk) = SmallDisk::new("reserve_bytes = 262_144\ncheckpoint_interval_ms = 100") else { return };
    let mut server = disk.start();
    let client = Client::new(&server).await;
    client.create("t", 1, &[]).await.expect("created");
    client.produce("t", 0, b"kept").await.expect("room");
    client.commit("t", 1, "").await.expect("committed");
    disk.fill(0);
    let mut refused = None;
    let metadata = "m".repeat(4_000);
    for offset in 2..10_000 {
        if let Err(status) = client.commit("t", offset, &metadata).await {
            refused = Some((offset, status));
            break;
        }
    }
    let (offset, status) = refused.expect("a reserve has an end");
    assert_no_room(&status);
    assert!(offset > 20, "the reserve was used: {offset}");
    assert_eq!(client.committed("t").await, offset - 1);

    // Now there is no room for anything at all, at a start too.
    server.kill9();
    server.restart();
    let client = Client::new(&server).await;
    assert_eq!(client.read("t", 0).await.len(), 1);
    assert_eq!(client.committed("t").await, offset - 1);
    assert_no_room(&client.produce("t", 0, &large()).await.expect_err("no room"));
    assert_eq!(client.counters().await.fenced_partitions, 0);
    disk.leave();
    room_again(&client, "t").await;
    client.commit("t", offset, &metadata).await.expect("room");
    client.delete("t").await.expect("deleted");
    assert!(server.terminate().success(), "an orderly end");
}

//! A limit on the size of files (RLIMIT_FSIZE): a full disk for some files only, with a signal on top.

use storage_tests::process::ServerProcess;
use tempfile::TempDir;

use crate::SAGWAN;
use crate::client::{Client, assert_no_room, large};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_may_not_grow_refuses_records_and_the_server_lives() {
    let dir = TempDir::new().expect("a temporary directory");
    let under = ["prlimit", "--fsize=2097152"];
    let mut server = ServerProcess::start_under(&under, SAGWAN, dir.path().join("data"), None);
    let client = Client::new(&server).await;
    client.create("large", 1, &[]).await.expect("created");
    client.create("rolled", 1, &[("segment_bytes", "1200000")]).await.expect("created");
    let (count, status) = client.fill("large").await;
    assert_no_room(&status);
    assert!(count > 20, "{count} records");
    assert_eq!(client.read("large", 0).await.len(), count);
    for _ in 0..64 {
        client.produce("rolled", 0, &large()).await.expect("smaller files");
    }
    client.commit("large", 5, "").await.expect("committed");
    client.create("new", 1, &[]).await.expect("created");
    client.delete("new").await.expect("deleted");
    assert_eq!(client.counters().await.fenced_partitions, 0);
    assert!(server.terminate().success(), "an orderly end");

    // Nothing can be written at all. A log that has to be recovered could not be opened: it is written to.
    server.restart_under(&["prlimit", "--fsize=0"]);
    let client = Client::new(&server).await;
    assert_eq!(client.read("large", 0).await.len(), count);
    assert_eq!(client.read("rolled", 0).await.len(), 64);
    assert_eq!(client.committed("large").await, 5);
    for topic in ["large", "rolled"] {
        assert_no_room(&client.produce(topic, 0, b"more").await.expect_err("no room"));
    }
    assert_no_room(&client.commit("large", 6, "").await.expect_err("no room"));
    assert_no_room(&client.create("new", 1, &[]).await.expect_err("no room"));
    assert_no_room(&client.delete("large").await.expect_err("no room for the catalogue"));
    assert_eq!(client.counters().await.fenced_partitions, 0);
    server.kill9();

    server.restart_under(&[]);
    let client = Client::new(&server).await;
    for topic in ["large", "rolled"] {
        client.produce(topic, 0, b"more").await.expect("room");
    }
    assert_eq!(client.read("large", 0).await.len(), count + 1);
    client.delete("large").await.expect("deleted");
    assert!(server.terminate().success());
}

//! A disk that fails: system calls that strace turns into errors.
//!
//! strace counts calls on a path for each thread: a log is made by one and written by another.

use std::io::{Write as _, stderr};
use std::path::{Path, PathBuf};
use std::process::Command;

use sagwan::proto::PartitionState;
use storage_tests::command::attempt;
use storage_tests::process::ServerProcess;
use tempfile::TempDir;
use tonic::Code;

use crate::SAGWAN;
use crate::client::{Client, reason};

/// A server whose calls fail as `inject` says, all on `path` of its data directory if one is given.
struct Failing {
    dir: TempDir,
    server: ServerProcess,
}

impl Failing {
    /// If this machine has strace.
    fn start(path: Option<&str>, inject: &str, storage: &str) -> Option<Self> {
        if let Err(why) = attempt(Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"])) {
            assert!(std::env::var_os("CI").is_none(), "{why}");
            // Not `eprintln!`, which is not shown when a test passes.
            writeln!(stderr(), "NOT RUN, no call failed: {why}").expect("a line");
            return None;
        }
        let dir = TempDir::new().expect("a temporary directory");
        let data = dir.path().join("data");
        let path = path.map(|path| data.join(path).display().to_string());
        let config = dir.path().join("sagwan.toml");
        std::fs::write(&config, format!("[storage]\n{storage}\n")).expect("settings");
        // `-D`: the server is the process that was started, and strace ends with it.
        let mut under = vec!["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", inject];
        if let Some(path) = &path {
            under.extend(["-P", path]);
        }
        let server = ServerProcess::start_under(&under, SAGWAN, data, Some(config));
        Some(Self { dir, server })
    }

    /// The same data, with a disk that works.
    fn repaired(mut self) -> (TempDir, ServerProcess) {
        self.server.kill9();
        self.server.restart_under(&[]);
        (self.dir, self.server)
    }
}

const FIRST_SEGMENT: &str = "t-0/00000000000000000000.log";

fn values(records: &[(i64, bytes::Bytes)]) -> Vec<(i64, &[u8])> {
    records.iter().map(|(offset, value)| (*offset, &value[..])).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_is_final_for_its_partition_alone() {
    let inject = "inject=fdatasync:error=EIO:when=2";
    let Some(failing) = Failing::start(Some(FIRST_SEGMENT), inject, "sync_method = \"fdatasync\"") else {
        return;
    };
    let client = Client::new(&failing.server).await;
    client.create("t", 2, &[]).await.expect("created");
    assert_eq!(client.produce("t", 0, b"first").await.expect("synced"), 0);
    // Only one sync fails: another one would be answered with success.
    for value in [b"second", b"third!"] {
        let status = client.produce("t", 0, value).await.expect_err("not synced");
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Unavailable, "PARTITION_FENCED"),
            "{status}"
        );
    }
    let partition = client.partition("t", 0).await;
    assert_eq!((partition.state(), partition.high_watermark), (PartitionState::ReadOnly, 1));
    assert!(partition.detail.contains("sync"), "{}", partition.detail);
    assert_eq!(values(&client.read("t", 0).await), [(0, &b"first"[..])]);
    client.produce("t", 1, b"other").await.expect("the other partition goes on");
    assert_eq!(client.counters().await.fenced_partitions, 1);

    let (_dir, server) = failing.repaired();
    let client = Client::new(&server).await;
    assert_eq!(client.partition("t", 0).await.state(), PartitionState::Online);
    let offset = client.produce("t", 0, b"fourth").await.expect("synced");
    // What was not acknowledged may have come through, whole.
    let records = client.read("t", 0).await;
    let expected: [(i64, &[u8]); 3] = [(0, b"first"), (1, b"second"), (offset, b"fourth")];
    let skipped = 2 - offset as usize;
    assert_eq!(values(&records), [&expected[..1], &expected[1 + skipped..]].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_of_the_file_system_is_made_up_for_file_by_file() {
    let inject = "inject=syncfs:error=EIO";
    let Some(failing) = Failing::start(None, inject, "sync_method = \"syncfs\"") else { return };
    let client = Client::new(&failing.server).await;
    client.create("t", 2, &[]).await.expect("created");
    for offset in 0..3 {
        assert_eq!(client.produce("t", 0, b"kept").await.expect("synced"), offset);
    }
    assert_eq!(client.counters().await.fenced_partitions, 0);
    let (_dir, server) = failing.repaired();
    assert_eq!(Client::new(&server).await.read("t", 0).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_write_is_refused_and_the_next_one_works() {
    let inject = "inject=pwritev,pwritev2,pwrite64:error=EIO:when=2";
    let Some(failing) = Failing::start(Some(FIRST_SEGMENT), inject, "") else { return };
    let client = Client::new(&failing.server).await;
    client.create("t", 1, &[]).await.expect("created");
    assert_eq!(client.produce("t", 0, b"first").await.expect("written"), 0);
    let status = client.produce("t", 0, b"second").await.expect_err("not written");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Internal, "STORAGE_ERROR"), "{status}");
    assert_eq!(client.produce("t", 0, b"third").await.expect("written"), 1);
    assert_eq!(client.partition("t", 0).await.state(), PartitionState::Online);
    let (_dir, server) = failing.repaired();
    let records = Client::new(&server).await.read("t", 0).await;
    assert_eq!(values(&records), [(0, &b"first"[..]), (1, &b"third"[..])]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_cannot_be_synced_costs_the_clean_end_only() {
    // The first one is that of the start, on another thread.
    let inject = "inject=fdatasync:error=EIO:when=2+";
    let storage = "checkpoint_interval_ms = 100";
    let Some(mut failing) = Failing::start(Some("checkpoint.tmp"), inject, storage) else { return };
    let client = Client::new(&failing.server).await;
    client.create("t", 1, &[]).await.expect("created");
    let checkpoint = |dir: &Path| -> PathBuf { dir.join("data/checkpoint.tmp") };
    for offset in 0..50 {
        assert_eq!(client.produce("t", 0, b"kept").await.expect("synced"), offset);
    }
    // It is left behind by the one that failed.
    while !checkpoint(failing.dir.path()).exists() {
        tokio::task::yield_now().await;
    }
    failing.server.kill9();
    let (_dir, server) = failing.repaired();
    assert_eq!(Client::new(&server).await.read("t", 0).await.len(), 50);
}

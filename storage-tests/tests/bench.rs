//! `sagwan bench` as a user runs it, briefly: what it prints is about what it did, and a broker of its own leaves nothing.

#![allow(clippy::expect_used, reason = "a step that fails ends the test")]

use std::io::Read as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use storage_tests::command::{Finished, run, succeed};
use storage_tests::poll::block_until;
use storage_tests::process::ServerProcess;
use tempfile::TempDir;

const SAGWAN: &str = env!("CARGO_BIN_EXE_sagwan-under-test");
/// So much, however long it takes.
const BRIEFLY: &str = "--warm-up 0s --total 3000";

/// The benchmark with a broker of its own in `dir`.
fn bench(dir: &Path, line: &str) -> Command {
    let mut command = Command::new(SAGWAN);
    command.env_remove("SAGWAN_SERVER").arg("bench").args(line.split_whitespace()).arg("--dir").arg(dir);
    command
}

fn json(command: &mut Command) -> Value {
    serde_json::from_slice(&succeed(command.args(["--output", "json"]))).expect("JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn failure(finished: &Finished, code: i32) -> &str {
    assert_eq!(finished.status.code(), Some(code), "{finished:?}");
    finished.stderr.lines().find_map(|line| line.strip_prefix("error: ")).expect("an error is told")
}

#[test]
fn every_workload_is_measured_and_verified() {
    let dir = TempDir::new().expect("a directory");
    for (line, flows) in [
        ("produce --verify --mode records --batch-records 10 --in-flight 4", [true, false, false]),
        ("follow --verify --producers 2 --consumers 3 --partitions 2", [true, true, false]),
        ("follow --verify --mode client --record-size 20-200 --compression lz4", [true, true, false]),
        ("earliest --verify --backlog 200kB --consumers 2 --partitions 2", [false, false, true]),
        ("both --verify --backlog 200kB --rate 5k --batch-records 5 --unary", [true, true, true]),
    ] {
        let outcome = json(&mut bench(dir.path(), &format!("{line} {BRIEFLY}")));
        let summary = &outcome["summary"];
        for (name, expected) in ["produced", "followed", "caught_up"].into_iter().zip(flows) {
            assert_eq!(!summary[name].is_null(), expected, "{line}: {name}: {summary}");
            if expected {
                assert!(number(&summary[name]["records_per_s"]) > 0.0, "{line}: {name}: {summary}");
            }
        }
        assert_eq!(summary["acknowledgement"].is_null(), !flows[0], "{line}: {summary}");
        assert_eq!(summary["end_to_end"].is_null(), !flows[1], "{line}: {summary}");
        for latency in
            [&summary["acknowledgement"], &summary["end_to_end"]].into_iter().filter(|l| !l.is_null())
        {
            assert!(number(&latency["p50_ns"]) > 0.0, "{line}: {latency}");
            assert!(number(&latency["p99_99_ns"]) <= number(&latency["max_ns"]), "{line}: {latency}");
        }
        assert!(number(&outcome["verified_records"]) > 0.0, "{line}: {outcome}");
        assert_eq!(outcome["broker"]["own"], true);
    }
    assert_eq!(dir.path().read_dir().expect("a directory").count(), 0, "nothing is left behind");
}

#[test]
fn a_total_is_kept_and_a_page_and_a_table_are_written() {
    let dir = TempDir::new().expect("a directory");
    let page = dir.path().join("report.html");
    let line = "follow --warm-up 0s --total 1000 --batch-records 10";
    let text = succeed(bench(dir.path(), line).arg("--report").arg(&page));
    let text = String::from_utf8(text).expect("text");
    for column in ["RECORDS/S", "LATENCY", "P99.99", "durability fsync"] {
        assert!(text.contains(column), "{column} in {text}");
    }
    let produced = text.lines().find(|line| line.starts_with("produced")).expect("a line");
    assert!(produced.ends_with(" 1,000"), "{produced}");
    let page = std::fs::read_to_string(page).expect("a page");
    assert!(page.starts_with("<!doctype html>") && page.contains("<svg") && page.contains("end to end"));
}

#[test]
fn a_ceiling_stands_beside_the_broker() {
    let dir = TempDir::new().expect("a directory");
    for (line, limits) in [
        ("produce --partitions 2", 5),
        ("produce --durability os --mode client", 2),
        ("earliest --backlog 200kB --mode records", 1),
    ] {
        let line = format!("{line} --ceiling --rounds 2 {BRIEFLY}");
        let outcome = json(&mut bench(dir.path(), &line));
        let told = outcome["ceiling"]["limits"].as_array().expect("limits");
        assert_eq!(told.len(), limits, "{line}: {told:?}");
        for limit in told {
            assert!(number(&limit["share"]["median"]) > 0.0, "{line}: {limit}");
        }
        assert_eq!(outcome["rounds"].as_array().map(Vec::len), Some(2));
    }
}

#[test]
fn a_latency_is_held_against_a_bare_call_and_a_synced_write() {
    let dir = TempDir::new().expect("a directory");
    let line =
        "produce --mode records --unary --batch-records 1 --ceiling --rounds 2 --warm-up 0s --total 1000";
    for line in [line.to_owned(), format!("{line} --rate 2000")] {
        let outcome = json(&mut bench(dir.path(), &line));
        let ratios = &outcome["ceiling"]["latency_ratios"][0];
        assert!(number(&ratios["p50"]["median"]) > 0.0, "{line}: {ratios}");
        assert!(number(&ratios["p99"]["median"]) > 0.0, "{line}: {ratios}");
        assert!(ratios["p99_9"].is_null(), "1,000 requests tell none: {line}: {ratios}");
    }
}

#[test]
fn a_cold_backlog_is_read_once_a_round_beside_a_plain_read_and_a_warm_reader() {
    let dir = TempDir::new().expect("a directory");
    let line = "earliest --cold --backlog 1MB --warm-readers 1 --ceiling --rounds 2";
    let outcome = json(&mut bench(dir.path(), line));
    let limits = outcome["ceiling"]["limits"].as_array().expect("limits");
    assert_eq!(limits.len(), 2, "{limits:?}");
    for limit in limits {
        assert!(number(&limit["share"]["median"]) > 0.0, "{limit}");
    }
    assert_eq!(limits[1]["name"], "plain read of the same files");
    assert!(number(&limits[1]["flow"]["bytes"]) >= 2.0 * 1e6, "all of it, each time: {}", limits[1]);
    for round in outcome["rounds"].as_array().expect("rounds") {
        let records = number(&round["caught_up"]["records"]);
        assert!((10_000.0..12_000.0).contains(&records), "once: {records}");
        assert!(number(&round["warm_read"]["count"]) > 0.0, "{round}");
    }
    let ratios = &outcome["ceiling"]["latency_ratios"][0];
    assert!(ratios["p99"].is_null(), "so few tell none: {ratios}");
    assert_eq!(dir.path().read_dir().expect("a directory").count(), 0, "nothing is left behind");
}

#[test]
fn idle_partitions_have_memory_and_a_start() {
    let dir = TempDir::new().expect("a directory");
    let idle = json(&mut bench(dir.path(), "idle --partitions 7 --rounds 2"));
    assert_eq!(idle["partitions"], 7);
    assert!(number(&idle["files"]) >= 7.0, "{idle}");
    assert!(number(&idle["resident_bytes"]["median"]) > 0.0, "{idle}");
    assert!(number(&idle["start_ratio"]["median"]) > 0.0, "{idle}");
    assert_eq!(idle["rounds"].as_array().map(Vec::len), Some(2));
    assert_eq!(dir.path().read_dir().expect("a directory").count(), 0, "nothing is left behind");
}

#[test]
fn the_suite_runs_the_loads_that_are_asked_for_and_tells_their_targets() {
    let dir = TempDir::new().expect("a directory");
    let suite = json(&mut bench(dir.path(), "suite --only 2,12 --quick --rounds 1"));
    let rows = suite["rows"].as_array().expect("rows");
    assert_eq!(rows.iter().map(|row| row["number"].as_u64()).collect::<Vec<_>>(), [Some(2), Some(12)]);
    assert_eq!(rows[0]["target"]["at_least"], 0.85);
    assert!(number(&rows[0]["measured"]["median"]) > 0.0, "{suite}");
    assert!(rows[1]["command"].as_str().is_some_and(|line| line.contains("--rate ")), "{suite}");
    assert_eq!(dir.path().read_dir().expect("a directory").count(), 0, "nothing is left behind");
}

#[test]
fn an_interrupted_run_leaves_no_broker_and_no_directory() {
    let dir = TempDir::new().expect("a directory");
    for (line, signal) in [
        ("produce --duration 1h --ceiling", Signal::TERM),
        ("idle --partitions 100 --rounds 1000", Signal::INT),
    ] {
        let mut command = bench(dir.path(), line);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started");
        let data = || {
            let made = dir.path().read_dir().expect("a directory").find_map(Result::ok)?;
            Some(made.path().join("data/catalogue")).filter(|path| path.exists())
        };
        block_until("a broker runs", || data().is_some());
        let lock = data().expect("a broker").with_file_name(".lock");
        let broker = std::fs::read_to_string(&lock).expect("a pid").trim().to_owned();
        assert!(Path::new("/proc").join(&broker).exists(), "it runs: {broker}");
        kill_process(Pid::from_child(&child), signal).expect("signalled");
        let mut told = String::new();
        let stderr = child.stderr.as_mut().expect("a pipe");
        stderr.read_to_string(&mut told).expect("text");
        assert_eq!(child.wait().expect("an end").code(), Some(1), "{line}: {told}");
        assert!(told.contains("error: interrupted"), "{line}: {told}");
        assert!(!Path::new("/proc").join(&broker).exists(), "{line}: it has ended: {broker}");
        assert_eq!(dir.path().read_dir().expect("a directory").count(), 0, "{line}: nothing is left behind");
    }
}

#[test]
fn a_broker_that_does_not_answer_keeps_nobody_from_an_end() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let mut command = Command::new(SAGWAN);
    command.args(["bench", "produce", "--server", &url]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("started");
    let _connection = listener.accept().expect("it connects");
    kill_process(Pid::from_child(&child), Signal::INT).expect("signalled");
    let mut told = String::new();
    child.stderr.as_mut().expect("a pipe").read_to_string(&mut told).expect("text");
    assert_eq!(child.wait().expect("an end").code(), Some(1), "{told}");
    assert!(told.contains("error: interrupted"), "{told}");
}

#[test]
fn who_asks_twice_for_an_end_waits_for_nothing() {
    let dir = TempDir::new().expect("a directory");
    let server = ServerProcess::start(SAGWAN, dir.path().join("data"));
    let mut command = server.cli("bench produce --duration 1h".split_whitespace());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    let topics = || succeed(&mut server.cli(["topic", "list", "--output", "json"]));
    block_until("a round has begun", || topics() != b"[]\n");
    let broker = Pid::from_raw(server.id().try_into().expect("a pid")).expect("a pid");
    kill_process(broker, Signal::STOP).expect("stopped");
    block_until("an end", || {
        // Signals that come while one is pending are one.
        kill_process(Pid::from_child(&child), Signal::INT).expect("signalled");
        child.try_wait().expect("a status").is_some()
    });
    assert_eq!(child.wait().expect("an end").code(), Some(130));
    kill_process(broker, Signal::CONT).expect("goes on");
}

#[test]
fn a_broker_that_runs_already_is_measured_and_keeps_no_topics() {
    let dir = TempDir::new().expect("a directory");
    let server = ServerProcess::start(SAGWAN, dir.path().join("data"));
    let pid = server.id().to_string();
    let line = format!("bench follow {BRIEFLY} --topics 2 --server-pid {pid}");
    let outcome = json(&mut server.cli(line.split_whitespace()));
    assert_eq!(outcome["broker"]["own"], false);
    assert!(number(&outcome["summary"]["followed"]["records"]) > 0.0, "{outcome}");
    let topics = succeed(&mut server.cli(["topic", "list", "--output", "json"]));
    assert_eq!(serde_json::from_slice::<Value>(&topics).expect("JSON"), serde_json::json!([]));
}

#[test]
fn what_makes_no_sense_is_told_before_anything_starts() {
    let dir = TempDir::new().expect("a directory");
    let refused = run(bench(dir.path(), "suite --only 1").env("SAGWAN_SERVER", "127.0.0.1:1"));
    assert!(failure(&refused, 2).starts_with("--server:"), "{refused:?}");
    let refused = run(&mut bench(dir.path(), "follow --ceiling"));
    assert!(failure(&refused, 2).starts_with("--ceiling:"), "{refused:?}");
    let refused = run(&mut bench(&dir.path().join("none"), "produce"));
    assert!(failure(&refused, 2).starts_with("--dir"), "{refused:?}");
    let refused = run(&mut bench(dir.path(), &format!("produce {BRIEFLY} --config nowhere.toml")));
    assert!(failure(&refused, 1).contains("did not start"), "{refused:?}");
    let mut elsewhere = Command::new(SAGWAN);
    let refused = run(elsewhere.args(["bench", "produce", "--server", "127.0.0.1:1"]));
    assert!(failure(&refused, 3).contains("no broker answers"), "{refused:?}");
    assert_eq!(dir.path().read_dir().expect("a directory").count(), 0, "nothing is left behind");
}

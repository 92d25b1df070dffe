//! `sagwan verify` and `sagwan dump` as a user runs them, on what a real server has left behind.

#![allow(clippy::expect_used, reason = "a step that fails ends the test")]

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use rustix::process::geteuid;
use serde_json::{Value, json};
use storage_tests::command::{Finished, run, succeed};
use storage_tests::process::ServerProcess;
use tempfile::TempDir;

const SAGWAN: &str = env!("CARGO_BIN_EXE_sagwan-under-test");
/// The log of the topic that the tests write to.
const LOG: &str = "orders-0/00000000000000000000.log";
/// How many records it has.
const RECORDS: usize = 3_000;

/// A server on a directory with one topic of one partition, which has several segments.
struct Filled {
    server: ServerProcess,
    dir: TempDir,
}

impl Filled {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let server = ServerProcess::start(SAGWAN, dir.path().join("data"));
        let filled = Self { server, dir };
        let create = "topic create orders --partitions 1 --config max_message_bytes=65536 --config segment_bytes=65536";
        filled.cli(create, None);
        // Many batches: one command makes few.
        for part in (0..RECORDS).collect::<Vec<_>>().chunks(100) {
            let lines: Vec<_> = part.iter().map(|i| format!("key {i}:{i} {}", "x".repeat(i % 100))).collect();
            filled.cli("produce orders --key-separator :", Some(lines.join("\n").as_bytes()));
        }
        filled.cli("produce orders --key-separator : --compression gzip", Some(b"packed:caf\xff\n"));
        filled
    }

    fn data(&self) -> &Path {
        self.server.data_dir()
    }

    fn cli(&self, line: &str, input: Option<&[u8]>) -> String {
        let mut command = self.server.cli(line.split(' '));
        if let Some(input) = input {
            let path = self.dir.path().join("input");
            fs::write(&path, input).expect("written");
            command.stdin(File::open(path).expect("readable"));
        }
        String::from_utf8(succeed(&mut command)).expect("text")
    }

    fn verify(&self, more: &[&str]) -> Finished {
        let mut command = Command::new(SAGWAN);
        run(command.arg("verify").arg(self.data()).args(more).env_remove("SAGWAN_CONFIG"))
    }

    /// The exit code of a verification, and its report.
    fn report(&self, more: &[&str]) -> (Option<i32>, Value) {
        let finished = self.verify(&[more, &["--output", "json"]].concat());
        let report = serde_json::from_slice(&finished.stdout);
        (finished.status.code(), report.unwrap_or_else(|error| panic!("{error}: {}", finished.stderr)))
    }

    fn dump(&self, file: &str, more: &[&str]) -> Finished {
        run(Command::new(SAGWAN).arg("dump").arg(self.data().join(file)).args(more))
    }

    /// The one JSON document that a dump of a small file is.
    fn document(&self, file: &str) -> Value {
        let finished = self.dump(file, &["--output", "json"]);
        assert!(finished.status.success(), "{file}: {}", finished.stderr);
        serde_json::from_slice(&finished.stdout).expect("JSON")
    }

    /// The JSON lines of a dump of a segment or an index.
    fn lines(&self, file: &str, more: &[&str]) -> Vec<Value> {
        let finished = self.dump(file, &[more, &["--output", "json"]].concat());
        assert!(finished.status.success(), "{file}: {}", finished.stderr);
        json_lines(&finished.stdout)
    }

    /// Changes one byte of a file.
    fn flip(&self, file: &str, at: usize) {
        let path = self.data().join(file);
        let mut bytes = fs::read(&path).expect("readable");
        bytes[at] ^= 0x10;
        fs::write(path, bytes).expect("writable");
    }

    /// The segments of the log, by base offset.
    fn segments(&self) -> Vec<String> {
        let dir = fs::read_dir(self.data().join("orders-0")).expect("a directory");
        let mut names: Vec<String> = dir
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "log"))
            .map(|name| format!("orders-0/{name}"))
            .collect();
        names.sort();
        names
    }
}

fn json_lines(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Everything below a directory: by path, content and time of the last change.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("an entry");
        let metadata = entry.metadata().expect("metadata");
        let content = if metadata.is_dir() {
            all.extend(snapshot(&entry.path()));
            Vec::new()
        } else {
            fs::read(entry.path()).expect("readable")
        };
        all.insert(entry.path(), (content, metadata.modified().expect("a time")));
    }
    all
}

#[test]
fn nothing_is_found_after_an_orderly_end_and_nothing_changes() {
    let mut filled = Filled::start();
    assert!(filled.server.terminate().success());
    let before = snapshot(filled.data());
    let (code, report) = filled.report(&[]);
    assert_eq!((code, &report["findings"], &report["errors"]), (Some(0), &json!([]), &json!(0)));
    assert_eq!(report["ended_cleanly"], true);
    let totals = &report["totals"];
    assert_eq!(totals["records"], RECORDS + 1);
    assert_eq!(totals["segments"], filled.segments().len());
    assert!(totals["segments"].as_u64() > Some(2), "{totals}");
    assert!(report["seconds"].is_number() && report["bytes_per_second"].is_number());
    let text = String::from_utf8(filled.verify(&[]).stdout).expect("text");
    assert!(text.contains("1 topic, 1 partition") && text.ends_with("nothing found\n"), "{text}");
    assert_eq!(snapshot(filled.data()), before);
}

#[test]
fn a_directory_in_use_or_none_at_all_cannot_be_checked() {
    let filled = Filled::start();
    let finished = filled.verify(&[]);
    assert_eq!(finished.status.code(), Some(2));
    let pid = fs::read_to_string(filled.data().join(".lock")).expect("readable");
    assert!(finished.stderr.contains(&format!("in use by process {pid}")), "{}", finished.stderr);
    for line in [vec!["verify", "/no/such/directory"], vec!["verify"], vec!["verify", "/proc"]] {
        let finished = run(Command::new(SAGWAN).args(&line));
        assert_eq!(finished.status.code(), Some(2), "{line:?}: {}", finished.stderr);
    }
}

/// Says what may be done with everything below a directory, and with itself.
fn permit(dir: &Path, mode_of_dirs: u32, mode_of_files: u32) {
    fs::set_permissions(dir, Permissions::from_mode(0o755)).expect("ours");
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            permit(&path, mode_of_dirs, mode_of_files);
        } else {
            fs::set_permissions(path, Permissions::from_mode(mode_of_files)).expect("ours");
        }
    }
    fs::set_permissions(dir, Permissions::from_mode(mode_of_dirs)).expect("ours");
}

#[test]
fn a_directory_that_may_only_be_read_is_checked_all_the_same() {
    const NOBODY: u32 = 65_534;
    let mut filled = Filled::start();
    filled.server.kill9();
    // Root may write everywhere; the program is where anybody may run it.
    let program = filled.dir.path().join("sagwan");
    fs::copy(SAGWAN, &program).expect("copied");
    fs::set_permissions(filled.dir.path(), Permissions::from_mode(0o755)).expect("ours");
    let as_anybody = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        if geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        run(command.args(arguments).env_remove("SAGWAN_CONFIG").current_dir(filled.dir.path()))
    };
    permit(filled.data(), 0o555, 0o444);
    assert!(!as_anybody(Path::new("touch"), &["data/new"]).status.success(), "nothing can be written");
    let before = snapshot(filled.data());
    let finished = as_anybody(&program, &["verify", "data", "--output", "json"]);
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    let report: Value = serde_json::from_slice(&finished.stdout).expect("JSON");
    assert_eq!((&report["errors"], &report["totals"]["records"]), (&json!(0), &json!(RECORDS + 1)));
    assert_eq!(snapshot(filled.data()), before);

    for (mode_of_dirs, mode_of_files) in [(0o000, 0o444), (0o555, 0o000)] {
        permit(filled.data(), mode_of_dirs, mode_of_files);
        let finished = as_anybody(&program, &["verify", "data"]);
        let is_told =
            finished.stderr.contains("cannot be read") && finished.stderr.contains("Permission denied");
        assert!(is_told && finished.status.code() == Some(2), "{}", finished.stderr);
    }
    // So that it can be removed.
    permit(filled.data(), 0o755, 0o644);
}

#[test]
fn after_a_kill_there_are_only_notes_and_a_repair_leaves_none() {
    let mut filled = Filled::start();
    filled.server.kill9();
    // As a write leaves it that was cut short.
    let last = filled.segments().pop().expect("a segment");
    let path = filled.data().join(&last);
    let mut bytes = fs::read(&path).expect("readable");
    let whole = bytes.len();
    bytes.extend_from_slice(&[7; 100]);
    fs::write(&path, &bytes).expect("writable");

    let before = snapshot(filled.data());
    let (code, report) = filled.report(&[]);
    assert_eq!((code, &report["errors"]), (Some(0), &json!(0)), "{report:#}");
    assert_eq!(report["ended_cleanly"], false);
    let torn: Vec<&Value> = report["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .filter(|one| one["kind"] == "torn_tail")
        .collect();
    assert_eq!(torn.len(), 1);
    assert_eq!((&torn[0]["severity"], &torn[0]["path"]), (&json!("note"), &json!(last)));
    assert_eq!(torn[0]["bytes"], json!({"start": whole, "end": whole + 100}));
    assert_eq!(snapshot(filled.data()), before);

    let (code, run) = filled.report(&["--repair"]);
    assert_eq!(code, Some(0), "{run:#}");
    assert_eq!(run["before"]["counts"]["torn_tail"], 1);
    assert_eq!(
        (&run["repair"]["recovered_partitions"], &run["repair"]["leader_epoch"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(run["after"]["ended_cleanly"], true);
    // The copy of what was cut.
    assert_eq!(run["after"]["counts"], json!({"leftover": 1}));
    assert_eq!(fs::metadata(&path).expect("there").len(), whole as u64);
    filled.server.restart();
    let consumed = filled.cli("consume orders --exit-at-end --output json", None);
    assert_eq!(consumed.lines().count(), RECORDS + 1);
}

#[test]
fn damage_is_told_by_offset_and_no_repair_touches_it() {
    let mut filled = Filled::start();
    assert!(filled.server.terminate().success());
    let batch = filled.lines(LOG, &[]).remove(1);
    let position = batch["position"].as_u64().expect("a number") as usize;
    filled.flip(LOG, position + 100);
    let (code, report) = filled.report(&[]);
    assert_eq!((code, &report["errors"]), (Some(1), &json!(1)), "{report:#}");
    let finding = &report["findings"][0];
    assert_eq!((&finding["kind"], &finding["path"]), (&json!("bad_batch"), &json!(LOG)));
    assert_eq!(finding["offsets"], json!({"first": batch["base_offset"], "last": batch["last_offset"]}));
    let damaged = fs::read(filled.data().join(LOG)).expect("readable");

    let finished = filled.verify(&["--repair"]);
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    let text = String::from_utf8(finished.stdout).expect("text");
    let after = text.split("after:").nth(1).expect("a second report");
    assert!(after.contains(&format!("error: bad batch: {LOG}")), "{text}");
    assert_eq!(fs::read(filled.data().join(LOG)).expect("readable"), damaged);
}

#[test]
fn a_dump_shows_the_records_as_they_are_consumed() {
    let mut filled = Filled::start();
    let consumed = json_lines(filled.cli("consume orders --exit-at-end --output json", None).as_bytes());
    assert!(filled.server.terminate().success());
    let mut dumped = Vec::new();
    for segment in filled.segments() {
        let mut position = 0;
        for mut line in filled.lines(&segment, &["--records"]) {
            if line["type"] == "batch" {
                assert_eq!(
                    (&line["position"], &line["crc_ok"]),
                    (&json!(position), &json!(true)),
                    "{segment}"
                );
                position += line["size_bytes"].as_u64().expect("a number");
                continue;
            }
            let fields = line.as_object_mut().expect("an object");
            assert_eq!(fields.remove("type"), Some(json!("record")));
            fields.insert("topic".to_owned(), json!("orders"));
            fields.insert("partition".to_owned(), json!(0));
            dumped.push(line);
        }
        assert_eq!(position, fs::metadata(filled.data().join(&segment)).expect("there").len());
    }
    assert!(dumped == consumed, "{:?} and {:?}", dumped.last(), consumed.last());
    assert_eq!(dumped.last().expect("records")["value"], json!({"base64": "Y2Fm/w=="}));
    let codecs: Vec<Value> = filled
        .segments()
        .iter()
        .flat_map(|segment| filled.lines(segment, &[]))
        .map(|batch| batch["codec"].clone())
        .collect();
    assert!(codecs.contains(&json!("gzip")), "{codecs:?}");
    let text = String::from_utf8(filled.dump(LOG, &["--records"]).stdout).expect("text");
    assert!(text.contains("key \"key 0\" value \"0 \""), "{text}");
}

#[test]
fn a_dump_shows_every_kind_of_file() {
    let mut filled = Filled::start();
    let description: Value =
        serde_json::from_str(&filled.cli("topic describe orders --output json", None)).expect("JSON");
    let id = &description["id"];
    assert!(filled.server.terminate().success());
    let end = RECORDS + 1;
    let segments = filled.segments();
    let batches = filled.lines(LOG, &[]);

    let index = filled.lines(&LOG.replace(".log", ".index"), &[]);
    assert!(!index.is_empty());
    for entry in &index {
        let is_there = |batch: &Value| {
            (&batch["last_offset"], &batch["position"]) == (&entry["offset"], &entry["position"])
        };
        assert!(batches.iter().any(is_there), "{entry}");
    }
    let times = filled.lines(&LOG.replace(".log", ".timeindex"), &[]);
    let is_newest = |batch: &Value| {
        let entry = times.last().expect("an entry");
        (&batch["last_offset"], &batch["max_timestamp_ms"]) == (&entry["offset"], &entry["timestamp_ms"])
    };
    assert!(batches.iter().any(is_newest), "{times:?}");

    let checkpoint = filled.document("checkpoint");
    assert_eq!((&checkpoint["kind"], &checkpoint["clean"]), (&json!("checkpoint"), &json!(true)));
    assert_eq!(checkpoint["logs"][0]["recovery_point"], end);
    assert_eq!(&checkpoint["logs"][0]["topic_id"], id);
    assert_eq!(filled.document("checkpoint.old")["clean"], false);
    let durable = filled.document("durable");
    assert_eq!(durable["slots"][0]["log"]["durable_offset"], end);
    let seals = filled.document("orders-0/seals");
    let sealed = seals["segments"].as_array().expect("segments");
    assert_eq!(sealed.len(), segments.len() - 1);
    let size = fs::metadata(filled.data().join(LOG)).expect("there").len();
    assert_eq!((&sealed[0]["base_offset"], &sealed[0]["size_bytes"]), (&json!(0), &json!(size)));
    let epochs = filled.document("orders-0/leader-epochs");
    assert_eq!(epochs["epochs"], json!([{"leader_epoch": 0, "start_offset": 0}]));
    let identity = filled.document("orders-0/topic-id");
    assert_eq!(identity, json!({"kind": "topic_id", "topic_id": id, "partition": 0}));
    assert_eq!(filled.document("meta.toml")["format_version"], 1);
    let catalogue = filled.document("catalogue");
    assert_eq!(catalogue["topics"][0]["name"], "orders");
    assert_eq!(catalogue["topics"][0]["config"]["segment_bytes"], "65536");
    let snapshot = format!("orders-0/{end:020}.snapshot");
    let producers = filled.document(&snapshot);
    assert_eq!((&producers["kind"], &producers["offset"]), (&json!("snapshot"), &json!(end)));
    assert_eq!(checkpoint["logs"][0]["producer_snapshot"], end);
    let last = producers["producers"].as_array().expect("producers").last().expect("one");
    assert!(catalogue["next_producer_id"].as_i64() > last["producer_id"].as_i64(), "{last}");
    assert_eq!((&last["epoch"], last["idle_ms"].is_u64()), (&json!(0), true));
    let batch =
        json!({"base_sequence": 0, "last_sequence": 0, "base_offset": end - 1, "last_offset": end - 1});
    assert_eq!(last["batches"], json!([batch]));
    let text = String::from_utf8(filled.dump(&snapshot, &[]).stdout).expect("text");
    assert!(text.contains("SEQUENCES") && text.contains(&format!("{0}-{0}", end - 1)), "{text}");
    for file in
        ["checkpoint", "durable", "orders-0/seals", "orders-0/topic-id", "catalogue", "meta.toml", LOG]
    {
        let finished = filled.dump(file, &[]);
        assert!(finished.status.success() && !finished.stdout.is_empty(), "{file}: {}", finished.stderr);
    }
    let finished = filled.dump("orders-0/seals", &["--records"]);
    assert_eq!(finished.status.code(), Some(2), "{}", finished.stderr);
    fs::write(filled.data().join("thesis.txt"), "precious").expect("written");
    assert_eq!(filled.dump("thesis.txt", &[]).status.code(), Some(2));
}

#[test]
fn a_dump_goes_on_behind_what_cannot_be_read() {
    let mut filled = Filled::start();
    assert!(filled.server.terminate().success());
    let batches = filled.lines(LOG, &[]);
    let places: Vec<usize> =
        batches.iter().map(|batch| batch["position"].as_u64().expect("a number") as usize).collect();
    assert!(places.len() > 4, "{places:?}");
    // A wrong checksum, and then a length that leads nowhere.
    filled.flip(LOG, places[1] + 100);
    filled.flip(LOG, places[3] + 8);
    let finished = filled.dump(LOG, &["--output", "json"]);
    assert_eq!(finished.status.code(), Some(1));
    assert!(finished.stderr.contains("2 places cannot be read"), "{}", finished.stderr);
    let lines = json_lines(&finished.stdout);
    assert_eq!(lines.len(), batches.len());
    assert_eq!((&lines[1]["crc_ok"], &lines[1]["base_offset"]), (&json!(false), &batches[1]["base_offset"]));
    assert_eq!((&lines[3]["type"], &lines[3]["position"]), (&json!("unreadable"), &json!(places[3])));
    assert_eq!(lines[3]["resumes_at_offset"], batches[4]["base_offset"]);
    assert_eq!(lines[4..], batches[4..]);
    let text = String::from_utf8(filled.dump(LOG, &["--records"]).stdout).expect("text");
    assert!(text.contains("WRONG") && text.contains("UNREADABLE up to byte"), "{text}");
}

#[test]
fn no_garbage_makes_a_dump_panic() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut random = fastrand::Rng::with_seed(3);
    let names = [
        "00000000000000000000.log",
        "00000000000000000000.1.torn",
        "00000000000000000000.snapshot",
        "00000000000000000000.index",
        "00000000000000000000.timeindex",
        "checkpoint",
        "durable",
        "seals",
        "leader-epochs",
        "topic-id",
        "catalogue",
        "meta.toml",
    ];
    for name in names {
        for length in [0, 1, 61, 5_000] {
            let path = dir.path().join(name);
            let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
            fs::write(&path, bytes).expect("written");
            for output in ["table", "json"] {
                let finished = run(Command::new(SAGWAN).arg("dump").arg(&path).args(["--output", output]));
                let is_told = matches!(finished.status.code(), Some(0 | 1));
                assert!(is_told && !finished.stderr.contains("panicked"), "{name}: {}", finished.stderr);
            }
        }
    }
}

#[test]
fn a_reader_that_has_seen_enough_ends_a_dump_quietly() {
    let mut filled = Filled::start();
    assert!(filled.server.terminate().success());
    let mut dump = Command::new(SAGWAN);
    dump.arg("dump").arg(filled.data().join(LOG)).args(["--records", "--output", "json"]);
    let mut child = dump.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let mut first = String::new();
    BufReader::with_capacity(16, child.stdout.take().expect("piped")).read_line(&mut first).expect("a line");
    let mut stderr = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("text");
    assert_eq!((child.wait().expect("ended").code(), stderr.as_str()), (Some(0), ""));
    assert!(first.starts_with("{\"type\":\"batch\""), "{first}");
}

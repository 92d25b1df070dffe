//! The command line as a user runs it: real processes, real pipes, exit codes.

#![allow(clippy::expect_used, reason = "a step that fails ends the test")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use storage_tests::command::{Finished, run, succeed};
use storage_tests::process::ServerProcess;
use tempfile::TempDir;

const SAGWAN: &str = env!("CARGO_BIN_EXE_sagwan-under-test");

/// A server and a directory for its data and for files.
struct Sagwan {
    server: ServerProcess,
    dir: TempDir,
}

impl Sagwan {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let server = ServerProcess::start(SAGWAN, dir.path().join("data"));
        Self { server, dir }
    }

    /// A command that has to succeed; its standard output as text.
    fn text(&self, line: &str) -> String {
        String::from_utf8(succeed(&mut self.command(line))).expect("text")
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.text(line)).expect("JSON")
    }

    fn run(&self, line: &str) -> Finished {
        run(&mut self.command(line))
    }

    fn command(&self, line: &str) -> Command {
        self.server.cli(line.split(' '))
    }

    /// Produces from standard input.
    fn produce(&self, line: &str, input: &[u8]) -> Finished {
        let path = self.dir.path().join("input");
        std::fs::write(&path, input).expect("written");
        run(self.command(line).stdin(File::open(&path).expect("readable")))
    }

    /// Produces from standard input, successfully.
    fn append(&self, line: &str, input: &[u8]) {
        let finished = self.produce(line, input);
        assert!(finished.status.success(), "{line}: {}", finished.stderr);
    }
}

/// A failure: its code, and its one line.
fn failure(finished: &Finished) -> (Option<i32>, String) {
    let errors: Vec<_> = finished.stderr.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(errors.len(), 1, "one line tells of the failure: {}", finished.stderr);
    (finished.status.code(), errors.concat())
}

#[test]
fn lines_are_bytes_and_come_back_as_they_went_in() {
    let sagwan = Sagwan::start();
    let lines = b"first\n\nwith \xff and \0 bytes\r\n\ttabbed \nlast without newline";
    sagwan.append("produce bytes", lines);
    let read = succeed(&mut sagwan.command("consume bytes --exit-at-end"));
    assert_eq!(read, [&lines[..], b"\n"].concat());

    // From a file as well, and compressed.
    let file = sagwan.dir.path().join("lines");
    std::fs::write(&file, &read).expect("written");
    let mut produce = sagwan.command("produce file --compression zstd");
    let finished = run(produce.arg(&file));
    assert!(
        finished.status.success() && finished.stderr.starts_with("5 records acknowledged"),
        "{finished:?}"
    );
    assert_eq!(succeed(&mut sagwan.command("consume file --exit-at-end")), read);
    // Nothing at all is no record at all.
    sagwan.append("produce file", b"");
    assert_eq!(succeed(&mut sagwan.command("consume file --exit-at-end")), read);
}

#[test]
fn a_topic_lives_from_create_to_delete() {
    let sagwan = Sagwan::start();
    assert_eq!(sagwan.text("topic create orders --partitions 2"), "created topic orders with 2 partitions\n");
    let (code, error) = failure(&sagwan.run("topic create orders"));
    assert!(code == Some(1) && error.contains("orders"), "{error}");

    let altered = sagwan.text("topic alter orders --partitions 3 --config segment_ms=3600000");
    assert_eq!(altered, "altered topic orders, with 3 partitions\n");
    let setting = |topic: &Value| {
        let config = topic["config"].as_array().expect("a list").clone();
        config.into_iter().find(|entry| entry["name"] == "segment_ms").expect("listed")
    };
    let described = sagwan.json("topic describe orders --output json");
    assert_eq!(described["partitions"].as_array().map(Vec::len), Some(3));
    assert_eq!(setting(&described)["value"], "3600000");
    assert_eq!(setting(&described)["is_default"], false);
    sagwan.text("topic alter orders --reset segment_ms");
    assert_eq!(setting(&sagwan.json("topic describe orders --output json"))["is_default"], true);
    assert!(sagwan.text("topic describe orders").contains("online"));

    assert_eq!(sagwan.json("topic list --output json")[0]["name"], "orders");
    assert!(sagwan.text("topic list").starts_with("TOPIC"));
    assert_eq!(sagwan.text("topic delete orders"), "deleted topic orders\n");
    assert_eq!(sagwan.json("topic list --output json"), json!([]));
}

#[test]
fn keys_headers_formats_and_positions_go_through() {
    let sagwan = Sagwan::start();
    sagwan.append(
        r"produce keyed --key-separator \t --header a=1 --header a=2",
        b"k1\tv1\nk2\tv\t2\n\xff\tv3\n",
    );
    assert_eq!(
        succeed(&mut sagwan.command(r"consume keyed --exit-at-end --format %t-%p@%o:%k=%v[%h]\n")),
        b"keyed-0@0:k1=v1[a=1,a=2]\nkeyed-0@1:k2=v\t2[a=1,a=2]\nkeyed-0@2:\xff=v3[a=1,a=2]\n"
    );
    assert_eq!(sagwan.text("consume keyed --from 1 --max-messages 1"), "v\t2\n");
    assert_eq!(sagwan.text("consume keyed --from latest --exit-at-end"), "");
    assert_eq!(sagwan.text("consume keyed --from @2200-01-01T00:00:00Z --exit-at-end"), "");
    assert_eq!(sagwan.text("consume keyed --from @0 --partition 0 --exit-at-end"), "v1\nv\t2\nv3\n");

    let json = sagwan.text("consume keyed --exit-at-end --output json");
    let last: Value = serde_json::from_str(json.lines().last().expect("three lines")).expect("JSON");
    assert_eq!(last["key"], json!({"base64": "/w=="}));
    assert_eq!(last["offset"], 2);
    assert_eq!(last["headers"], json!([{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]));

    let (code, error) = failure(&sagwan.produce("produce keyed --key-separator :", b"a:b\nno separator\n"));
    assert!(code == Some(1) && error.contains("line 2"), "{error}");
}

#[test]
fn offsets_commits_groups_and_deleted_records_are_told() {
    let sagwan = Sagwan::start();
    sagwan.append("produce t", b"1\n2\n3\n4\n");
    let offsets = &sagwan.json("offsets t --output json")[0];
    assert_eq!(
        (&offsets["earliest"], &offsets["latest"], &offsets["records"]),
        (&json!(0), &json!(4), &json!(4))
    );
    assert!(offsets["size_bytes"].as_u64() > Some(0));

    sagwan.text("commit g t --partition 0 --offset 1");
    let group = &sagwan.json("group describe g --output json")[0];
    assert_eq!((&group["topic"], &group["offset"], &group["lag"]), (&json!("t"), &json!(1), &json!(3)));
    assert_eq!(sagwan.json("group list --output json"), json!([{"group": "g", "partitions": 1}]));
    let (code, error) = failure(&sagwan.run("group describe nobody"));
    assert!(code == Some(1) && error.contains("nobody"), "{error}");

    assert_eq!(sagwan.text("delete-records t --partition 0 --before 3"), "t-0 now begins at offset 3\n");
    assert_eq!(sagwan.text("consume t --exit-at-end"), "4\n");
    let (code, error) = failure(&sagwan.run("consume t --from 1 --exit-at-end"));
    assert!(code == Some(1) && error.contains('3') && error.contains('4'), "the valid range: {error}");
}

#[test]
fn a_partition_that_cannot_be_read_is_told_and_the_others_are_read() {
    let mut sagwan = Sagwan::start();
    sagwan.text("topic create t --partitions 3");
    for partition in 0..3 {
        sagwan.append(&format!("produce t --partition {partition}"), format!("{partition}\n").as_bytes());
    }
    assert!(sagwan.server.terminate().success());
    std::fs::remove_dir_all(sagwan.server.data_dir().join("t-1")).expect("removed");
    sagwan.server.restart();

    let read = sagwan.run("consume t --exit-at-end");
    let mut lines: Vec<_> = String::from_utf8_lossy(&read.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["0", "2"]);
    let (code, error) = failure(&read);
    assert!(code == Some(1) && error.contains("t-1"), "{error}");

    let offsets = sagwan.run("offsets t --output json");
    let (code, error) = failure(&offsets);
    assert!(code == Some(1) && error.contains("t-1"), "{error}");
    let rows: Value = serde_json::from_slice(&offsets.stdout).expect("JSON");
    assert_eq!(
        (&rows[0]["latest"], &rows[1]["latest"], &rows[2]["latest"]),
        (&json!(1), &json!(null), &json!(1))
    );
    assert!(rows[1]["error"].is_string() && rows[0]["error"].is_null(), "{rows}");
    assert!(sagwan.run("offsets t").stdout.starts_with(b"PARTITION"));

    let described = sagwan.text("topic describe t");
    let fenced = described.lines().find(|line| line.contains("fenced")).expect("its line");
    let figures: Vec<_> = fenced.split_whitespace().skip(2).take(5).collect();
    assert_eq!(figures, ["-"; 5], "{fenced}: not as if it were empty");
}

#[test]
fn exit_codes_tell_a_refusal_from_a_wrong_line_and_from_an_absent_broker() {
    let mut sagwan = Sagwan::start();
    let (code, error) = failure(&sagwan.run("consume nowhere"));
    assert!(code == Some(1) && error.contains("nowhere"), "{error}");
    assert_eq!(sagwan.run("consume").status.code(), Some(2));
    assert_eq!(sagwan.run("topic create a/b").status.code(), Some(2));
    let (code, error) = failure(&sagwan.run("produce t /no/such/file"));
    assert!(code == Some(1) && error.contains("/no/such/file"), "{error}");

    sagwan.append("produce t", b"taken\n");
    let refused = sagwan.produce("produce t --partition 9", b"1\n2\n");
    let (code, error) = failure(&refused);
    assert!(code == Some(1) && error.contains("line 1") && error.contains("not 9"), "{error}");
    assert!(refused.stderr.contains("0 records acknowledged"), "{}", refused.stderr);

    assert!(sagwan.server.terminate().success());
    let (code, error) = failure(&sagwan.run("topic list"));
    assert!(code == Some(3) && error.contains("sagwan serve"), "{error}");
}

#[test]
fn a_reader_that_has_seen_enough_ends_consume_quietly() {
    let sagwan = Sagwan::start();
    // More than a pipe and its buffers hold.
    sagwan.append("produce many", "a line of some length\n".repeat(200_000).as_bytes());
    let mut consume = sagwan.command("consume many");
    let mut child = consume.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("readable");
    assert_eq!(line, "a line of some length\n");
    drop(stdout);
    let mut errors = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut errors).expect("text");
    assert_eq!((child.wait().expect("ended").code(), errors.as_str()), (Some(0), ""));
}

#[test]
fn consume_follows_until_it_is_interrupted() {
    let sagwan = Sagwan::start();
    sagwan.append("produce live", b"before\n");
    let mut consume = sagwan.command("consume live");
    let mut child = consume.stdout(Stdio::piped()).spawn().expect("started");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("readable");
    sagwan.append("produce live", b"after\n");
    stdout.read_line(&mut line).expect("readable");
    assert_eq!(line, "before\nafter\n");
    kill_process(Pid::from_child(&child), Signal::INT).expect("signalled");
    assert_eq!(child.wait().expect("ended").code(), Some(0));
}

#[test]
fn a_line_is_produced_before_the_input_ends() {
    let sagwan = Sagwan::start();
    let mut produce = sagwan.command("produce pipe");
    let mut child = produce.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("started");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"now\n").expect("written");
    stdin.flush().expect("written");
    // The topic comes with the record.
    let read = loop {
        let finished = sagwan.run("consume pipe --max-messages 1");
        if finished.status.success() {
            break finished.stdout;
        }
    };
    assert_eq!(read, b"now\n");
    drop(stdin);
    assert!(child.wait().expect("ended").success());
}

#[test]
fn an_interrupted_produce_appends_what_it_has_read_and_says_how_far_it_came() {
    let sagwan = Sagwan::start();
    let mut produce = sagwan.command("produce cut");
    let mut child = produce.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"one\ntwo\nthr").expect("written");
    stdin.flush().expect("written");
    // Once they can be read, they have been read.
    while sagwan.run("consume cut --max-messages 2").stdout != b"one\ntwo\n" {}
    kill_process(Pid::from_child(&child), Signal::INT).expect("signalled");
    let finished = child.wait_with_output().expect("ended");
    let (code, error) = (finished.status.code(), String::from_utf8(finished.stderr).expect("text"));
    assert_eq!(code, Some(1), "{error}");
    assert!(error.starts_with("2 records acknowledged"), "{error}");
    assert!(error.contains("interrupted after line 2"), "{error}");
    assert_eq!(sagwan.run("consume cut --exit-at-end").stdout, b"one\ntwo\n");
}

#[test]
fn a_produce_that_gets_nowhere_says_so_while_it_tries_again() {
    let mut sagwan = Sagwan::start();
    let mut produce = sagwan.command("produce stuck");
    let mut child = produce.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"one\n").expect("written");
    while sagwan.run("consume stuck --max-messages 1").stdout != b"one\n" {}
    assert!(sagwan.server.terminate().success());
    stdin.write_all(b"two\n").expect("written");
    let mut line = String::new();
    BufReader::new(child.stderr.take().expect("piped")).read_line(&mut line).expect("readable");
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert!(line.starts_with("nothing acknowledged for ") && line.contains("no broker answers"), "{line}");
}

#[test]
fn an_empty_variable_is_none_and_an_empty_flag_is_a_wrong_line() {
    let sagwan = Sagwan::start();
    for line in ["--server= topic list", "serve --grpc-addr=", "serve --data-dir=", "serve --config="] {
        let finished = sagwan.run(line);
        assert_eq!(finished.status.code(), Some(2), "{line}: {}", finished.stderr);
    }
    for (line, wrong) in
        [("serve --config /no/such/file", "/no/such/file"), ("serve --grpc-addr nowhere", "nowhere")]
    {
        let mut serve = sagwan.command(line);
        for name in ["SAGWAN_CONFIG", "SAGWAN_DATA_DIR", "SAGWAN_GRPC_ADDR", "SAGWAN_LOG"] {
            serve.env(name, "");
        }
        let (code, error) = failure(&run(&mut serve));
        assert!(code == Some(1) && error.contains(wrong), "{error}");
    }
    // Whether a broker listens at the default address or not.
    let finished = run(sagwan.command("topic list").env("SAGWAN_SERVER", ""));
    assert_ne!(finished.status.code(), Some(2), "{}", finished.stderr);
}

#[test]
fn help_and_completions_need_no_broker() {
    let sagwan = |line: &str| {
        let mut command = Command::new(Path::new(SAGWAN));
        succeed(command.args(line.split(' ')).env("SAGWAN_SERVER", "http://127.0.0.1:1"))
    };
    for line in ["--help", "produce --help", "consume --help", "topic create --help"] {
        assert!(!sagwan(line).is_empty(), "{line}");
    }
    let script = String::from_utf8(sagwan("completions bash")).expect("text");
    assert!(script.contains("delete-records"), "{script}");
}

#[test]
fn a_second_server_on_a_data_directory_ends_at_once_and_names_the_first() {
    let sagwan = Sagwan::start();
    let mut second = Command::new(SAGWAN);
    second.arg("serve").arg("--data-dir").arg(sagwan.server.data_dir()).args(["--grpc-addr", "127.0.0.1:0"]);
    let (code, said) = failure(&run(&mut second));
    assert_eq!(code, Some(1), "{said}");
    let expected = format!("in use by process {}:", sagwan.server.id());
    assert!(said.contains(&expected), "{said} has {expected:?}");
    assert_eq!(sagwan.text("topic list --output json").trim(), "[]", "the first one is unharmed");
}

#[test]
fn produce_appends_at_an_expected_offset_or_not_at_all() {
    let sagwan = Sagwan::start();
    let at = |offset: i64| format!("produce counter --partition 0 --expected-offset {offset}");
    sagwan.append(&at(0), b"1\n2\n");
    let late = sagwan.produce(&at(1), b"2\n");
    assert!(!late.status.success());
    assert!(late.stderr.contains("the next offset is 2, not 1"), "{}", late.stderr);
    sagwan.append(&at(2), b"3\n");
    assert_eq!(sagwan.text("consume counter --from earliest --exit-at-end"), "1\n2\n3\n");
    let negative = sagwan.produce(&at(-3), b"3\n");
    assert!(negative.stderr.contains("'-3'") && negative.stderr.contains("from 0 on"), "{}", negative.stderr);
    let nothing = sagwan.produce(&at(3), b"");
    assert_eq!(failure(&nothing), (Some(1), "error: there is no line to append".to_owned()));
    let anywhere = sagwan.produce("produce counter --expected-offset 3", b"4\n");
    assert!(anywhere.stderr.contains("--partition"), "{}", anywhere.stderr);
}

#[test]
fn an_operator_lets_a_partition_go_on_whose_end_is_lost() {
    let mut sagwan = Sagwan::start();
    sagwan.text("topic create diary --partitions 1");
    for line in ["snow", "the king fell", "do not tell"] {
        sagwan.append("produce diary", line.as_bytes());
    }
    let accept = "topic accept-loss diary --partition 0";
    let (code, line) = failure(&sagwan.run(accept));
    assert_eq!(code, Some(1));
    assert!(line.contains("diary-0 has no loss to accept: it takes writes"), "{line}");

    sagwan.server.kill9();
    let log = sagwan.server.data_dir().join("diary-0/00000000000000000000.log");
    let bytes = std::fs::read(&log).expect("readable");
    std::fs::write(&log, &bytes[..bytes.len() - 1]).expect("cut");
    sagwan.server.restart();
    assert_eq!(sagwan.json("topic describe diary --output json")["partitions"][0]["state"], "read-only");
    let told = sagwan.text(accept);
    assert!(told.contains("offsets 2 to ") && told.ends_with(" are given up\n"), "{told}");
    let next = sagwan.json("topic describe diary --output json")["partitions"][0]["high_watermark"]
        .as_i64()
        .expect("an offset");
    assert!(told.starts_with(&format!("diary-0 goes on at offset {next} with leader epoch ")), "{told}");
    sagwan.append("produce diary", b"it goes on");
    let read = sagwan.run("consume diary --exit-at-end");
    assert_eq!(read.stdout, b"snow\nthe king fell\n");
    let (code, line) = failure(&read);
    assert!(code == Some(1) && line.ends_with(&format!("--partition 0 --from {next}")), "{line}");
    assert_eq!(sagwan.text(&format!("consume diary --exit-at-end --from {next}")), "it goes on\n");
    failure(&sagwan.run(accept));

    assert!(sagwan.server.terminate().success());
    let data = sagwan.server.data_dir().to_owned();
    let report = sagwan.text(&format!("verify {}", data.display()));
    assert!(report.contains("note: accepted loss") && report.contains("0 errors"), "{report}");
    sagwan.server.restart();
    assert_eq!(sagwan.text(&format!("consume diary --exit-at-end --from {next}")), "it goes on\n");
}

#[test]
fn what_is_appended_at_an_expected_offset_has_to_fit_one_batch() {
    let sagwan = Sagwan::start();
    for (topic, compression) in [("plain", "producer"), ("packed", "zstd")] {
        let config = format!("--config max_message_bytes=2000 --config compression={compression}");
        sagwan.text(&format!("topic create {topic} --partitions 1 {config}"));
    }
    // Its end never comes, and is not waited for.
    let mut endless = Command::new("yes").stdout(Stdio::piped()).spawn().expect("started");
    let input = endless.stdout.take().expect("piped");
    let line = "produce plain --partition 0 --expected-offset 0";
    let refused = run(sagwan.command(line).stdin(input));
    endless.wait().expect("it has ended, as nobody reads it");
    // The header takes 61 bytes, each line with its length and such 8.
    let expected = "error: the input does not fit one batch: with line 243 it is larger than the 2000 bytes that \
                    topic plain takes at once; nothing was appended";
    assert_eq!(failure(&refused), (Some(1), expected.to_owned()));
    assert_eq!(sagwan.text("consume plain --from earliest --exit-at-end"), "");
    sagwan.append(line, &b"y\n".repeat(200));
    sagwan.append("produce packed --partition 0 --expected-offset 0", &b"y".repeat(5_000));
}

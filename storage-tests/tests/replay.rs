//! A text goes in through the command line and comes out again: at once, after an orderly restart, after kill -9.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use storage_tests::command::succeed;
use storage_tests::process::ServerProcess;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sagwan-under-test");
const TEXT_BYTES: usize = 12 << 20;
const KEYS: u64 = 1_000;
const WORDS: [&str; 12] = [
    "sagwan", "史官", "wrote", "what", "the king", "said,", "and", "no one", "could", "alter", "it;", "기록",
];

/// A server with two topics that hold the same kind of text: `plain` with one partition, `keyed` with eight.
struct Archive {
    server: ServerProcess,
    plain: Vec<u8>,
    keyed: Vec<u8>,
    directory: TempDir,
}

impl Archive {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let (plain, keyed) = (plain_text(&mut random), keyed_text(&mut random));
        let directory = TempDir::new().expect("a temporary directory");
        let server = ServerProcess::start(PROGRAM, directory.path().join("data"));
        let archive = Self { server, plain, keyed, directory };
        succeed(&mut archive.server.cli(["topic", "create", "plain", "--partitions", "1"]));
        succeed(&mut archive.server.cli(["topic", "create", "keyed", "--partitions", "8"]));
        let (plain, keyed) = (archive.file("plain", &archive.plain), archive.file("keyed", &archive.keyed));
        succeed(archive.server.cli(["produce", "plain"]).arg(plain));
        succeed(archive.server.cli(["produce", "keyed"]).arg(keyed).args(["--key-separator", ":"]));
        archive
    }

    fn file(&self, name: &str, text: &[u8]) -> PathBuf {
        let path: &Path = self.directory.path();
        let path = path.join(name);
        fs::write(&path, text).expect("the text is written");
        path
    }

    /// Everything comes back as it went in.
    fn check(&self, when: &str) {
        let plain =
            succeed(&mut self.server.cli(["consume", "plain", "--from", "earliest", "--exit-at-end"]));
        assert_same(&plain, &self.plain, when);
        let mut consume = self.server.cli(["consume", "keyed", "--from", "earliest", "--exit-at-end"]);
        let keyed = succeed(consume.args(["--format", r"%k:%v\n"]));
        assert_eq!(keyed.len(), self.keyed.len(), "{when}: the length of the keyed text");
        let (found, written) = (by_key(&keyed), by_key(&self.keyed));
        assert_eq!(found.len(), written.len(), "{when}: the number of keys");
        for (key, lines) in written {
            assert!(
                found.get(key) == Some(&lines),
                "{when}: the lines of key {}",
                String::from_utf8_lossy(key)
            );
        }
    }
}

/// Numbered lines, and now and then one that a careless reader would spoil.
fn plain_text(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut text = Vec::with_capacity(TEXT_BYTES + (128 << 10));
    for number in 0_u64.. {
        if text.len() >= TEXT_BYTES {
            break;
        }
        text.extend_from_slice(format!("{number:08}").as_bytes());
        for _ in 0..random.usize(0..24) {
            text.push(b' ');
            text.extend_from_slice(WORDS[random.usize(0..WORDS.len())].as_bytes());
        }
        match number % 5_000 {
            0 => text.extend_from_slice(b"\n"),
            1 => text.extend_from_slice(b"\r"),
            2 => text.extend_from_slice(b"\t\0\xff\xfe not UTF-8"),
            3 => text.extend(std::iter::repeat_n(b'x', 100 << 10)),
            _ => {}
        }
        text.push(b'\n');
    }
    text
}

/// `key:number words`, the numbers of one key increasing.
fn keyed_text(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut text = Vec::with_capacity(TEXT_BYTES + 1_024);
    for number in 0_u64.. {
        if text.len() >= TEXT_BYTES {
            break;
        }
        text.extend_from_slice(format!("key-{}:{number}", random.u64(0..KEYS)).as_bytes());
        for _ in 0..random.usize(0..24) {
            text.push(b' ');
            text.extend_from_slice(WORDS[random.usize(0..WORDS.len())].as_bytes());
        }
        text.push(b'\n');
    }
    text
}

fn by_key(text: &[u8]) -> HashMap<&[u8], Vec<&[u8]>> {
    let mut lines: HashMap<_, Vec<_>> = HashMap::new();
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let colon = line.iter().position(|&byte| byte == b':').expect("a line with a key");
        lines.entry(&line[..colon]).or_default().push(line);
    }
    lines
}

/// As `assert_eq`, without printing megabytes.
fn assert_same(found: &[u8], written: &[u8], when: &str) {
    let differs = found.iter().zip(written).position(|(found, written)| found != written);
    assert_eq!(differs, None, "{when}: the first byte that differs");
    assert_eq!(found.len(), written.len(), "{when}: the length");
}

#[test]
fn a_text_comes_back_at_once_after_a_restart_and_after_kill_9() {
    let mut archive = Archive::new(1_392);
    archive.check("at once");

    let status = archive.server.terminate();
    assert!(status.success(), "an orderly end: {status}");
    archive.server.restart();
    archive.check("after an orderly restart");

    archive.server.kill9();
    archive.server.restart();
    archive.check("after kill -9");

    // The log goes on where it ended.
    let next = archive.plain.split_inclusive(|&byte| byte == b'\n').count().to_string();
    let line = archive.file("line", b"and on\n");
    succeed(archive.server.cli(["produce", "plain"]).arg(line));
    let tail = succeed(&mut archive.server.cli(["consume", "plain", "--from", &next, "--exit-at-end"]));
    assert_eq!(String::from_utf8_lossy(&tail), "and on\n");
}

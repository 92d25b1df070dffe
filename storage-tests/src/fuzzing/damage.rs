//! What an input does to a data directory: a list of damages, each to one file.

use std::collections::{BTreeMap, BTreeSet};

use sagwan::record::{LENGTH_PREFIX_BYTES, frame_size};
use sagwan::storage::fuzzing::SmallFile;

use super::Input;
use super::directory::{Good, LOG_DIRS};

/// More than this does not make the directory any more interesting.
const MAX_DAMAGES: usize = 12;

const ROOT_FILES: [&str; 6] = ["checkpoint", "checkpoint.old", "durable", "meta.toml", ".lock", "stray"];
const LOG_FILES: [&str; 5] = ["seals", "leader-epochs", "topic-id", "seals.tmp", "stray"];
const SEGMENT_FILES: [&str; 5] = ["log", "index", "timeindex", "snapshot", "torn"];

/// A spoiled directory.
pub(super) struct Damaged {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// The files that are not as they were.
    pub(super) touched: BTreeSet<String>,
    /// Somebody did this who could make things look right; an accident of the disk could not.
    pub(super) is_forged: bool,
}

impl Damaged {
    /// Does to a good directory what the input says. Each damage: its kind, the file (two bytes), what the kind asks for.
    pub(super) fn new(good: &Good, mut input: Input<'_>) -> Self {
        let mut damaged = Self { files: good.files.clone(), touched: BTreeSet::new(), is_forged: false };
        for _ in 0..MAX_DAMAGES {
            if input.is_empty() {
                break;
            }
            let kind = input.byte() % 12;
            damaged.spoil(good, kind, &mut input);
        }
        damaged
    }

    fn spoil(&mut self, good: &Good, kind: u8, input: &mut Input<'_>) {
        let path = path(good, input);
        self.touched.insert(path.clone());
        self.is_forged |= kind >= 6;
        match kind {
            0 => {
                let (place, mask) = (input.number(), input.byte().max(1));
                self.change(&path, |bytes| {
                    let len = bytes.len().max(1);
                    bytes.iter_mut().skip(place % len).take(1).for_each(|byte| *byte ^= mask);
                });
            }
            1 => {
                let len = input.number();
                self.change(&path, |bytes| bytes.truncate(len % (bytes.len() + 1)));
            }
            2 => {
                let (place, len) = (input.number(), usize::from(input.byte()));
                self.change(&path, |bytes| bytes.iter_mut().skip(place).take(len).for_each(|byte| *byte = 0));
            }
            3 => {
                let len = input.number();
                self.change(&path, |bytes| bytes.resize(bytes.len() + len, 0));
            }
            4 => drop(self.files.remove(&path)),
            5 => {
                // All of a log's directory.
                let (dir, _) = path.split_once('/').unwrap_or((LOG_DIRS[0], ""));
                self.touched.extend(self.files.keys().filter(|path| path.starts_with(dir)).cloned());
                self.files.retain(|path, _| !path.starts_with(dir));
            }
            6 => {
                let (place, len) = (input.number(), usize::from(input.byte()));
                let new = input.bytes(len);
                self.change(&path, |bytes| {
                    bytes.iter_mut().skip(place).zip(new).for_each(|(byte, new)| *byte = *new);
                });
            }
            7 => {
                let len = input.number();
                self.files.insert(path, input.bytes(len).to_vec());
            }
            8 => {
                let len = input.number();
                let tail = input.bytes(len);
                self.change(&path, |bytes| bytes.extend_from_slice(tail));
            }
            9 => {
                if let Some(bytes) = self.files.remove(&path) {
                    self.files.insert(self::path(good, input), bytes);
                }
            }
            10 => {
                if let Some(bytes) = self.files.get(&path).cloned() {
                    self.files.insert(self::path(good, input), bytes);
                }
            }
            _ => self.change(&path, |bytes| make_right(&path, bytes)),
        }
    }

    fn change(&mut self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(bytes) = self.files.get_mut(path) {
            change(bytes);
        }
    }
}

/// The path that two bytes of input stand for; it need not be there.
fn path(good: &Good, input: &mut Input<'_>) -> String {
    let (place, which) = (input.byte(), usize::from(input.byte()));
    let log = which % LOG_DIRS.len();
    let dir = LOG_DIRS[log];
    match place % 4 {
        0 => ROOT_FILES[which % ROOT_FILES.len()].to_owned(),
        1 => format!("{dir}/{}", LOG_FILES[which / 2 % LOG_FILES.len()]),
        _ => {
            // The last is a segment that the log does not have.
            let mut bases = good.segments(log);
            bases.push(Good::end(log));
            let (base, extension) = (bases[which / 2 % 8 % bases.len()], SEGMENT_FILES[which / 16 % 5]);
            format!("{dir}/{base:020}.{extension}")
        }
    }
}

/// Gives a file the header and checksums that fit its content.
fn make_right(path: &str, bytes: &mut Vec<u8>) {
    let name = path.rsplit('/').next().unwrap_or_default();
    if let Some(file) = SmallFile::named(name) {
        let content = file.content(bytes).to_vec();
        *bytes = file.forge(&content);
        return;
    }
    let mut rest = bytes.as_mut_slice();
    while let Some(size) =
        frame_size(rest).filter(|size| (LENGTH_PREFIX_BYTES + 9..=rest.len()).contains(size))
    {
        let (batch, next) = rest.split_at_mut(size);
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        rest = next;
    }
}

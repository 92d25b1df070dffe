//! A spoiled data directory, opened and read.

use std::collections::BTreeMap;
use std::path::Path;

use sagwan::record;
use sagwan::storage::{LogHandle, OpenLogError, ReadError};
use sagwan::types::Offset;

use super::damage::Damaged;
use super::directory::{Good, LOG_DIRS, append, batch, open, write_out};
use super::{Input, scratch};

const READ_BYTES: u64 = 700;

/// The first byte says whether the last run ended in an orderly way, whether something is appended once the directory has
/// been opened, and how that run ends; the rest is what is done to the directory, see [`Damaged`].
///
/// # Panics
/// If recovery breaks a promise.
pub fn recovery(input: &[u8]) {
    let mut input = Input(input);
    let selector = input.byte();
    let is_set = |bit: u8| selector >> bit & 1 == 1;
    let good = if is_set(0) { Good::after_a_crash() } else { Good::after_an_orderly_end() };
    let damaged = Damaged::new(good, input);
    let dir = scratch();
    write_out(&damaged.files, dir.path());
    let first = run(dir.path(), is_set(1), is_set(2));
    if !damaged.is_forged {
        first.iter().flatten().enumerate().for_each(|(log, seen)| check_honest(good, &damaged, log, seen));
    }
    let second = run(dir.path(), false, true);
    // Whoever forges a checkpoint can have one start believe what the next one does not.
    if !damaged.is_forged {
        assert_agrees(first.as_deref(), second.as_deref());
    }
}

/// What one start has made of a log.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// It takes no reads and no writes.
    Fenced,
    /// It can be read.
    Open {
        end: i64,
        /// What was served, by base offset.
        batches: BTreeMap<i64, Vec<u8>>,
        /// Offsets that were told to be unreadable: the first and the last of each range.
        lost: Vec<(i64, i64)>,
        /// Whether more was appended, behind `end`.
        grew: bool,
    },
}

/// Opens the directory and reads all there is; `None` if it is refused as a whole.
fn run(dir: &Path, appends: bool, is_orderly: bool) -> Option<Vec<Seen>> {
    let (store, logs) = open(dir).ok()?;
    let seen = logs.into_iter().map(|log| match log {
        Ok(log) => read(&log, appends),
        Err(OpenLogError::Damaged { detail, .. }) if detail == "its recovery did not finish" => {
            panic!("a recovery has panicked")
        }
        Err(_) => Seen::Fenced,
    });
    let seen = seen.collect();
    if is_orderly {
        store.close().expect("the disk takes it");
    }
    Some(seen)
}

fn read(log: &LogHandle, appends: bool) -> Seen {
    let status = log.status();
    let (mut at, end) = (status.log_start_offset.get(), status.durable_offset.get());
    let (mut batches, mut lost) = (BTreeMap::new(), Vec::new());
    while at < end {
        match log.read(Offset::clamped(at), READ_BYTES) {
            // A log whose checkpoint is forged may be shorter than it says.
            Ok(read) if read.chunks.is_empty() => break,
            Ok(read) => {
                for batch in read.chunks.iter().flat_map(|chunk| record::batches(chunk)) {
                    let batch = batch.expect("whole batches are served");
                    assert!(batch.crc_is_valid(), "what is served at {at} has the right checksum");
                    assert!(batch.last_offset().get() >= at && batch.last_offset().get() < end);
                    batches.insert(batch.base_offset().get(), batch.as_bytes().to_vec());
                }
                assert!(read.next_offset.get() > at, "a read goes on");
                at = read.next_offset.get();
            }
            Err(ReadError::DataLoss { first, last, .. }) => {
                assert!((first.get()..=last.get()).contains(&at), "what was asked for is in the lost range");
                lost.push((at, last.get()));
                at = last.get() + 1;
            }
            Err(ReadError::Io { .. }) => {
                lost.push((at, end - 1));
                break;
            }
            Err(error) => panic!("offset {at} of {status:?}: {error}"),
        }
    }
    let appended = appends.then(|| append(log, batch(0)));
    if let Some(Ok(appended)) = appended {
        assert_eq!(appended.base_offset.get(), end, "offsets go on");
    }
    Seen::Open { end, batches, lost, grew: matches!(appended, Some(Ok(_))) }
}

/// What holds if nobody has forged a checksum.
fn check_honest(good: &Good, damaged: &Damaged, log: usize, seen: &Seen) {
    let is_touched = |path: &str| damaged.touched.contains(path);
    let Seen::Open { end, batches, lost, .. } = seen else {
        // Indexes are no reason.
        let is_hint = |path: &str| path.ends_with("index") || !path.starts_with(LOG_DIRS[log]);
        assert!(!damaged.touched.iter().all(|path| is_hint(path)), "a log that was not touched is fenced");
        return;
    };
    for (base, bytes) in batches {
        let appended = good.batches[log].get(base);
        let is_same = appended.is_some_and(|appended| without_epoch(appended) == without_epoch(bytes));
        assert!(is_same, "what is served at {base} was appended there");
    }
    // Without these nobody can know what is missing at the end.
    if ["durable", "checkpoint", "checkpoint.old"].into_iter().any(is_touched) {
        return;
    }
    assert_eq!(*end, Good::end(log), "all that was acknowledged is there, or told to be lost");
    for base in good.batches[log].keys() {
        let is_told = lost.iter().any(|(first, last)| (*first..=*last).contains(base));
        assert!(batches.contains_key(base) || is_told, "offset {base} is neither served nor told to be lost");
    }
}

/// The leader epoch has no checksum before its segment is sealed.
fn without_epoch(batch: &[u8]) -> (&[u8], &[u8]) {
    (&batch[..12], &batch[16..])
}

/// A second start finds what the first one has left.
fn assert_agrees(first: Option<&[Seen]>, second: Option<&[Seen]>) {
    let (Some(first), Some(second)) = (first, second) else {
        assert_eq!(first, second, "a directory is refused once and for all");
        return;
    };
    for pair in first.iter().zip(second) {
        match pair {
            (
                Seen::Open { end, batches, grew, .. },
                Seen::Open { end: next_end, batches: next_batches, .. },
            ) => {
                assert_eq!(*grew, next_end > end, "what was acknowledged stays");
                assert!(next_end >= end, "what was served stays");
                let mut served = next_batches.clone();
                served.retain(|base, _| base < end);
                assert!(served == *batches, "what is served stays the same");
            }
            (first, second) => assert_eq!(first, second, "a log is fenced once and for all"),
        }
    }
}

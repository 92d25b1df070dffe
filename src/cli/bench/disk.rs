//! The disk's limit: the same bytes, written to plain files in the same directory by a loop that does nothing else, at the
//! same rate, if there is one.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;

use super::course::Course;
use super::latency;
use super::meter::{Count, Meter};
use super::schedule::Schedule;

/// How a loop writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manner {
    /// Files that take turns.
    pub(super) files: usize,
    /// Writes between two syncs; `None`: it never syncs.
    pub(super) writes_per_sync: Option<u32>,
}

impl fmt::Display for Manner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.files, self.writes_per_sync) {
            (_, None) => f.write_str("plain file, no sync"),
            (1, Some(1)) => f.write_str("plain file, fdatasync for each write"),
            (1, Some(writes)) => write!(f, "plain file, fdatasync for {writes} writes"),
            (files, Some(_)) => write!(f, "{files} plain files, fdatasync for each write"),
        }
    }
}

/// What a loop came to.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) count: Count,
    pub(super) seconds: f64,
    /// Of a write with the sync that follows it; of a write alone where none does. At a rate, from when it should have
    /// begun; but waking up for it is not part of that, as it is part of the bare call that this is added to.
    pub(super) latencies: Histogram<u64>,
}

/// Writes requests in turns until the course ends, or `limit_bytes` are written. Blocks.
///
/// # Errors
/// The file system's.
pub(super) fn write(
    dir: &Path,
    manner: Manner,
    requests: &[(Bytes, u32)],
    course: &Course,
    mut schedule: Schedule,
    limit_bytes: u64,
) -> io::Result<Written> {
    let create = |number| {
        let path = dir.join(format!("plain-{number}"));
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        // Nobody else needs the name, and what has none is gone however this ends.
        std::fs::remove_file(path)?;
        Ok((file, 0))
    };
    let mut files: Vec<(File, u64)> = (0..manner.files.max(1)).map(create).collect::<io::Result<_>>()?;
    let meter = Meter::default();
    let mut latencies = latency::empty();
    let group = manner.writes_per_sync.unwrap_or(1);
    let mut turn = 0;
    loop {
        let began_ns = begin(course, &schedule);
        schedule.take();
        if !course.admits(began_ns, requests.first().map_or(0, |(_, records)| *records * group)) {
            break;
        }
        let mut count = Count::default();
        for _ in 0..group {
            let files_count = files.len();
            let (Some((bytes, records)), Some((file, end))) =
                (requests.get(turn % requests.len().max(1)), files.get_mut(turn % files_count))
            else {
                break;
            };
            file.write_all_at(bytes, *end)?;
            *end += bytes.len() as u64;
            count.records += u64::from(*records);
            count.bytes += bytes.len() as u64;
            if manner.writes_per_sync == Some(1) {
                file.sync_data()?;
            }
            turn += 1;
        }
        if manner.writes_per_sync.is_some_and(|writes| writes > 1) {
            for (file, _) in &files {
                file.sync_data()?;
            }
        }
        let now_ns = course.now_ns();
        meter.add(course, now_ns, count.records, count.bytes);
        if meter.all().bytes >= limit_bytes {
            course.end_at(now_ns + 1);
        }
        if course.is_steady(began_ns) {
            latencies.saturating_record(now_ns - began_ns);
        }
    }
    let (count, seconds) = meter.steady(course);
    Ok(Written { count, seconds, latencies })
}

/// Waits until the next write is due. Returns from when its latency counts.
fn begin(course: &Course, schedule: &Schedule) -> u64 {
    let now_ns = course.now_ns();
    let due_ns = schedule.due_ns(now_ns);
    if due_ns <= now_ns {
        return due_ns;
    }
    std::thread::sleep(Duration::from_nanos(due_ns - now_ns));
    course.now_ns()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::plan::Stop;

    #[test]
    fn it_writes_until_the_total_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        for (manner, samples) in [
            (Manner { files: 1, writes_per_sync: None }, 10),
            (Manner { files: 3, writes_per_sync: Some(1) }, 10),
            (Manner { files: 1, writes_per_sync: Some(5) }, 2),
        ] {
            let course = Course::begin(Duration::ZERO, Stop::Records(20));
            let requests = [(Bytes::from_static(b"some bytes"), 2)];
            let written = write(dir.path(), manner, &requests, &course, Schedule::flat_out(), u64::MAX);
            let written = written.expect("written");
            assert_eq!(written.count, Count { records: 20, bytes: 100 });
            assert_eq!(written.latencies.len(), samples, "{manner:?}");
            assert_eq!(dir.path().read_dir().expect("a directory").count(), 0);
        }
    }
    #[test]
    fn a_write_that_waits_for_another_counts_from_its_time_and_one_that_sleeps_from_its_end() {
        let course = Course::begin(Duration::ZERO, Stop::Records(1));
        let mut schedule = Schedule::at_rate(1_000.0, 0, 1);
        schedule.take();
        assert!(begin(&course, &schedule) >= 1_000_000);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(begin(&course, &schedule), 1_000_000, "it is late");
    }
}

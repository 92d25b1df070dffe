//! Foreign bytes as the indexes of a good log.

use sagwan::storage::LogHandle;
use sagwan::types::Offset;

use super::directory::{Good, LOG_DIRS, open, timestamp_ms, write_out};
use super::{Input, scratch};

const MAX_DECOMPRESSED_BYTES: u64 = 1 << 20;

/// The first byte says whether the last run ended in an orderly way, and whose indexes they are; then come the length of
/// the offset index, the offset index, and the time index. A file of no bytes is not there.
///
/// # Panics
/// If a lookup finds anything but what is in the log.
pub fn index(input: &[u8]) {
    let mut input = Input(input);
    let selector = usize::from(input.byte());
    let good = if selector.is_multiple_of(2) { Good::after_an_orderly_end() } else { Good::after_a_crash() };
    let segments = good.segments(0);
    let base = segments[selector / 2 % segments.len()];
    let offsets_bytes = input.number();
    let offsets = input.bytes(offsets_bytes);
    let mut files = good.files.clone();
    for (extension, bytes) in [("index", offsets), ("timeindex", input.rest())] {
        let path = format!("{}/{base:020}.{extension}", LOG_DIRS[0]);
        if bytes.is_empty() {
            files.remove(&path)
        } else {
            files.insert(path, bytes.to_vec())
        };
    }
    let dir = scratch();
    write_out(&files, dir.path());
    // The second start finds what the first has made anew; it is looked at less closely.
    for step in [2, 14] {
        let (store, logs) = open(dir.path()).expect("no index keeps a directory from being opened");
        let logs: Vec<_> = logs.into_iter().collect::<Result<_, _>>().expect("nor a log");
        check(good, &logs[0], step);
        store.close().expect("an orderly end");
    }
}

fn check(good: &Good, log: &LogHandle, step: usize) {
    let end = Good::end(0);
    assert_eq!(log.durable_offset().get(), end);
    for offset in (1..end).step_by(step) {
        let read = log.read(Offset::clamped(offset), 1).expect("a good log is readable");
        let (_, batch) = good.batches[0].range(..=offset).next_back().expect("each offset is in a batch");
        assert!(read.chunks.concat() == *batch, "offset {offset} is in its batch");
    }
    for sought in (0..end).step_by(step) {
        for (time_ms, first) in [(timestamp_ms(sought), sought), (timestamp_ms(sought) + 1, sought + 2)] {
            let found = log.find_timestamp(time_ms, MAX_DECOMPRESSED_BYTES).expect("a good log is readable");
            let expected = (first < end).then_some(first);
            assert_eq!(found.map(|found| found.offset.get()), expected, "the first record at {time_ms}");
        }
    }
}

//! What is not in memory is read past the page cache the first time, and through the map from then on.

use super::hook_fs::{HookFs, hooked};
use super::*;

const LONG: u64 = 1 << 20;

/// Segments of 4 MiB, the last one not sealed, with 11 MB in all and nothing in memory.
fn cold_log() -> (Fixture, HookFs) {
    let (mut fixture, fs) = hooked();
    fixture.config.tail_cache_bytes = 0;
    fixture.spec.config.segment_bytes = 4 << 20;
    let open = fixture.create();
    open.fill(1_100, 1_000);
    open.close();
    fs.forget_pages();
    (fixture, fs)
}

/// All that can be read, and what is lost.
fn read_long(open: &Open) -> (Vec<u8>, Vec<LostRange>) {
    let (mut next, mut bytes, mut lost) = (Offset::ZERO, Vec::new(), Vec::new());
    while next < open.log.durable_offset() {
        match open.log.read(next, LONG) {
            Ok(read) => {
                assert!(read.next_offset > next && read.size_bytes <= LONG);
                read.chunks.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
                next = read.next_offset;
            }
            Err(ReadError::DataLoss { first, last, .. }) => {
                lost.push((first.get(), last.get()));
                next = last.plus(1);
            }
            Err(error) => panic!("at {next}: {error}"),
        }
    }
    (bytes, lost)
}

#[test]
fn what_is_not_in_memory_is_read_past_the_page_cache_once() {
    let (fixture, fs) = cold_log();
    let open = fixture.reopen();
    let files: Vec<Vec<u8>> = fixture
        .files("log")
        .iter()
        .map(|name| std::fs::read(fixture.log_dir().join(name)).unwrap())
        .collect();
    let (_newest, sealed) = files.split_last().unwrap();
    let whole = files.concat();
    let (bytes, lost) = read_long(&open);
    assert!(bytes == whole && lost.is_empty());
    let once = fs.uncached_bytes();
    let len: u64 = sealed.iter().map(|file| file.len() as u64).sum();
    // But for the end of each segment, which is short, and a part of a batch at the end of each read.
    let ends = sealed.len() as u64 * LONG;
    assert!(len > 2 * ends && once > len - ends && once < len + len / 50, "{once} for {len}");
    assert!(read_long(&open).0 == whole);
    assert_eq!(fs.uncached_bytes(), once, "what is read again is worth its place in memory");
}

#[test]
fn little_is_read_through_the_page_cache() {
    let (fixture, fs) = cold_log();
    let open = fixture.reopen();
    open.assert_numbered(0, 11_000);
    assert_eq!(fs.uncached_bytes(), 0);
}

#[test]
fn a_part_of_a_long_read_does_not_hold_the_memory_of_all_of_it() {
    let (fixture, _fs) = cold_log();
    let open = fixture.reopen();
    let first = open.log.read(Offset::ZERO, LONG).unwrap();
    assert!(!first.lease.is_of_map() && first.size_bytes > LONG / 2);
    change(&fixture, FIRST, |bytes| bytes[(first.size_bytes + LONG / 4) as usize] ^= 1);
    let second = open.log.read(first.next_offset, LONG).unwrap();
    assert!(!second.lease.is_of_map() && second.size_bytes < LONG / 2);
    let chunk = second.chunks.into_iter().next().unwrap();
    assert_eq!(chunk.try_into_mut().map(|own| own.capacity() as u64).ok(), Some(second.size_bytes));
}

#[test]
fn what_is_left_out_before_a_read_does_not_stay_with_it() {
    let (mut fixture, fs) = hooked();
    fixture.config.tail_cache_bytes = 0;
    fixture.spec.config.segment_bytes = 4 << 20;
    let open = fixture.create();
    for _ in 0..6 {
        open.append(batch(0, 900, 1_000)).unwrap();
        open.fill(14, 1_000);
    }
    open.close();
    fs.forget_pages();
    let open = fixture.reopen();
    // By the index the read begins with the long batch, and most of what it looks at is that.
    let read = open.log.read(Offset::ZERO.plus(900), LONG).unwrap();
    assert!(fs.uncached_bytes() > 0 && !read.lease.is_of_map() && read.size_bytes < LONG / 4);
    let chunk = read.chunks.into_iter().next().unwrap();
    assert_eq!(chunk.try_into_mut().map(|own| own.capacity() as u64).ok(), Some(read.size_bytes));
}

#[test]
fn a_rotten_batch_that_comes_past_the_page_cache_is_lost_and_no_other() {
    let (fixture, fs) = cold_log();
    let size = batch(0, 10, 1_000).len();
    for byte in [0, 12, 21, 60, size - 1] {
        change(&fixture, FIRST, |bytes| bytes[150 * size + byte] ^= 0x11);
        let open = fixture.reopen();
        let (bytes, lost) = read_long(&open);
        assert_eq!((bytes.len(), lost), (1_099 * size, vec![(1_500, 1_509)]), "byte {byte}");
        assert!(fs.uncached_bytes() > 0);
        open.close();
        change(&fixture, FIRST, |bytes| bytes[150 * size + byte] ^= 0x11);
    }
}

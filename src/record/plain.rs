//! The records of an uncompressed batch, looked at as fast as may be: whether each is well formed, and what its deltas are.
//!
//! Nearly all records have numbers of one byte or two and no headers. Those are told by a few loads each; any other one is
//! left to [`Records`](super::records::Records), which also has the words for what is wrong with it.

/// A record that is well formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plain {
    /// With the length in front.
    pub(super) size_bytes: usize,
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i64,
}

/// The record at the start of `bytes`; `None` if it is not such a one, or none at all.
#[inline]
pub(super) fn plain(bytes: &[u8]) -> Option<Plain> {
    // Length, attributes, timestamp delta and offset delta have seven bytes at most.
    let head = u64::from_le_bytes(*bytes.first_chunk()?);
    let (length, mut bits) = short(head)?;
    let size_bytes = bits / 8 + as_length(length)?;
    bits += 8;
    let (timestamp_delta, timestamp_bits) = short(head >> bits)?;
    bits += timestamp_bits;
    let (offset_delta, offset_bits) = short(head >> bits)?;
    bits += offset_bits;

    let record = bytes.get(..size_bytes)?;
    let value = behind_nullable(record, bits / 8)?;
    let headers = behind_nullable(record, value)?;
    let has_none = record.get(headers..)? == [0];
    has_none.then(|| Plain {
        size_bytes,
        timestamp_delta: unzigzag(timestamp_delta),
        offset_delta: unzigzag(offset_delta),
    })
}

/// The number in the lowest byte or two, as it is encoded, and how many bits it takes there.
#[inline]
fn short(word: u64) -> Option<(u64, usize)> {
    if word & 0x80 == 0 {
        Some((word & 0x7f, 8))
    } else if word & 0x8000 == 0 {
        Some((word & 0x7f | word >> 1 & 0x3f80, 16))
    } else {
        None
    }
}

#[inline]
fn unzigzag(encoded: u64) -> i64 {
    (encoded >> 1) as i64 ^ -((encoded & 1) as i64)
}

/// An encoded length, if it is not negative.
#[inline]
fn as_length(encoded: u64) -> Option<usize> {
    (encoded & 1 == 0).then_some((encoded >> 1) as usize)
}

/// Where the field behind the key or value at `at` begins. It may be beyond the record.
#[inline]
fn behind_nullable(record: &[u8], at: usize) -> Option<usize> {
    const ABSENT: u8 = 1;
    let low = *record.get(at)?;
    if low == ABSENT {
        return Some(at + 1);
    }
    let high = if low < 0x80 { 0 } else { *record.get(at + 1)? };
    let (length, bits) = short(u64::from(high) << 8 | u64::from(low))?;
    Some(at + bits / 8 + as_length(length)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Length 10, no attributes, deltas 3 and 1, no key, a value of 3 bytes, no headers; and a byte of the next record.
    const RECORD: &[u8] = &[20, 0, 6, 2, 1, 6, b'a', b'b', b'c', 0, 0, 20];

    #[test]
    fn a_record_as_most_are_is_told_by_its_deltas() {
        let record = [&[18], &RECORD[1..]].concat();
        let expected = Plain { size_bytes: 10, timestamp_delta: 3, offset_delta: 1 };
        assert_eq!(plain(&record), Some(expected));

        // A key of 200 bytes, and numbers of two bytes.
        let key = [7; 200];
        let mut long = vec![0xa2, 0x03, 0, 0xfe, 0x01, 0x80, 0x01, 0x90, 0x03];
        long.extend(key);
        long.extend([0, 0]);
        let size_bytes = long.len();
        assert_eq!(plain(&long), Some(Plain { size_bytes, timestamp_delta: 127, offset_delta: 64 }));
    }

    #[test]
    fn any_other_is_left_to_whoever_reads_all_of_it() {
        assert_eq!(plain(RECORD), None, "a byte behind the header count");
        let record = [&[18], &RECORD[1..]].concat();
        for length in 0..10 {
            assert_eq!(plain(&record[..length]), None, "cut to {length}");
        }
        let with = |at: usize, byte: u8| {
            let mut record = record.clone();
            record[at] = byte;
            plain(&record)
        };
        assert_eq!(with(0, 19), None, "a negative length");
        assert_eq!(with(4, 3), None, "a key of a negative length");
        assert_eq!(with(5, 8), None, "a value up to the header count");
        assert_eq!(with(5, 200), None, "a value beyond the record");
        assert_eq!(with(9, 2), None, "a header");
    }
}

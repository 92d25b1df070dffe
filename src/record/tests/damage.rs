//! Damaged and invented bytes: none makes anything panic, and the checksum finds what it covers.
//!
//! The CRC-32C covers byte 21 to the end. Bytes 16 to 20 are the magic and the checksum itself, 8 to 11 the
//! length, which must be exact. So only flips in the base offset (0 to 7) and the leader epoch (12 to 15) can
//! pass: the broker overwrites both, and guards them in the log by other means.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{MIB, any_codec, any_records, beside_the_source, build, lenient, read_all, with_payload};
use crate::record::header::{self, HEADER_BYTES};
use crate::record::{
    BatchError, BatchView, Codec, Records, ValidationRules, batches, frame_size, recompress,
    set_log_append_time, set_position, validate,
};
use crate::types::{LeaderEpoch, Offset};

/// Walking records for their places alone finds what reading them finds, the first fault included.
fn same_places(batch: &BatchView<'_>, records: Records<'_>) {
    let mut hurried = records.clone();
    let base = batch.base_offset().get();
    for record in records {
        let place = record.map(|record| (record.offset.get() - base, record.timestamp_ms));
        // Offsets beyond the last there is are told apart by their deltas only.
        if base <= i64::MAX - i64::from(i32::MAX) {
            assert_eq!(hurried.next_place(), Some(place));
        }
    }
}

/// Calls everything that takes bytes; what it accepts must read to its end.
fn drive(bytes: &[u8]) {
    let _ = frame_size(bytes);
    for rules in [lenient(), ValidationRules { strict: false, ..lenient() }] {
        let accepted = validate(bytes, &rules);
        if let Ok(batch) = accepted
            && (rules.strict || batch.attributes().codec() == Some(Codec::None))
        {
            let mut scratch = Vec::new();
            let records = batch.records(&mut scratch, MIB).unwrap();
            assert_eq!(records.map(Result::unwrap).count(), batch.record_count() as usize);
        }
    }
    for batch in batches(bytes).flatten() {
        let _ = batch.next_offset();
        let mut scratch = Vec::new();
        if let Ok(records) = batch.records(&mut scratch, MIB) {
            same_places(&batch, records.clone());
            for record in records.flatten() {
                assert_eq!(record.headers().count(), record.header_count());
            }
        }
        for codec in Codec::ALL {
            let _ = recompress(&batch, codec, MIB);
        }
    }
    let mut patched = bytes.to_vec();
    if patched.len() >= HEADER_BYTES {
        set_position(&mut patched, Offset::ZERO, LeaderEpoch(0));
        set_log_append_time(&mut patched, 0);
    }
}

proptest! {
    #![proptest_config(beside_the_source())]

    #[test]
    fn a_flipped_bit_is_found_or_harmless(
        records in any_records(),
        codec in any_codec(),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let good = build(codec, &records);
        let mut bad = good.clone();
        let at = at.index(bad.len());
        bad[at] ^= 1_u8 << bit;
        drive(&bad);
        match validate(&bad, &lenient()) {
            Ok(_) => {
                prop_assert!(at < 8 || (12..16).contains(&at), "byte {}", at);
                prop_assert_eq!(&bad[16..], &good[16..]);
                prop_assert_eq!(read_all(&bad), records);
            }
            Err(error) => {
                prop_assert!(matches!(error, BatchError::Corrupt(_)), "{}", error);
                prop_assert!(!(12..16).contains(&at), "byte {}", at);
            }
        }
    }

    #[test]
    fn a_truncated_batch_is_corrupt(
        records in any_records(),
        codec in any_codec(),
        len in any::<prop::sample::Index>(),
    ) {
        let good = build(codec, &records);
        let torn = &good[..len.index(good.len())];
        drive(torn);
        let error = validate(torn, &lenient()).expect_err("torn");
        prop_assert!(matches!(error, BatchError::Corrupt(_)), "{}", error);
    }

    #[test]
    fn a_batch_that_lies_under_a_good_checksum_never_panics(
        records in any_records(),
        codec in any_codec(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bad = build(codec, &records);
        let covered = bad.len() - 21;
        for (at, byte) in changes {
            bad[21 + at.index(covered)] = byte;
        }
        header::seal(&mut bad);
        prop_assert!(BatchView::parse(&bad).map_or(true, |batch| batch.crc_is_valid()));
        drive(&bad);
    }

    #[test]
    fn invented_records_under_a_good_header_never_panic(payload in vec(any::<u8>(), 0..200), codec in any_codec()) {
        let like = build(Codec::None, &super::one_record());
        drive(&with_payload(&like, codec, &payload));
    }

    #[test]
    fn invented_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        drive(&bytes);
    }
}

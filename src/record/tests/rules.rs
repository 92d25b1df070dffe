//! Each rule that a batch must meet to be appended, broken on its own in a batch with a good checksum.

use super::{Owned, build, forge, lenient, one_record, with_payload};
use crate::record::header::at;
use crate::record::{
    BatchError, BatchView, Codec, CorruptBatch, InvalidBatch, RecordFault, UnsupportedBatch, ValidationRules,
    set_position, validate,
};
use crate::types::{LeaderEpoch, Offset};

fn refusal(batch: &[u8]) -> BatchError {
    validate(batch, &lenient()).expect_err("refused")
}

/// The refusal of a good batch of one record after one field of its header was overwritten.
fn refusal_with<const AT: usize, const N: usize>(field: [u8; N]) -> BatchError {
    let mut batch = build(Codec::None, &one_record());
    forge::<AT, N>(&mut batch, field);
    refusal(&batch)
}

fn attributes(bits: i16) -> BatchError {
    refusal_with::<{ at::ATTRIBUTES }, _>(bits.to_be_bytes())
}

fn records_fault(payload: &[u8]) -> BatchError {
    refusal(&with_payload(&build(Codec::None, &one_record()), Codec::None, payload))
}

fn record_fault(payload: &[u8]) -> RecordFault {
    match records_fault(payload) {
        BatchError::Corrupt(CorruptBatch::Record { index: 0, fault }) => fault,
        other => panic!("{other}"),
    }
}

#[test]
fn the_header_of_a_good_batch_passes() {
    let batch = build(Codec::None, &one_record());
    assert!(validate(&batch, &lenient()).is_ok());
}

#[test]
fn zeros_are_not_a_batch() {
    let zeros = BatchError::Corrupt(CorruptBatch::BatchLength { batch_length: 0 });
    assert_eq!(refusal(&[0; 4096]), zeros);
    assert_eq!(super::super::frame_size(&[0; 4096]), None);
    assert_eq!(super::super::batches(&[0; 4096]).collect::<Vec<_>>(), [Err(zeros)]);
}

#[test]
fn a_frame_must_be_whole_and_alone() {
    let batch = build(Codec::None, &one_record());
    let longer = [&batch[..], b"..."].concat();
    assert_eq!(refusal(&longer), CorruptBatch::TrailingBytes { bytes: 3 }.into());
    let len = batch.len();
    assert_eq!(
        refusal(&batch[..len - 1]),
        CorruptBatch::Truncated { needed_bytes: len, available_bytes: len - 1 }.into()
    );
    assert_eq!(refusal(b""), CorruptBatch::Truncated { needed_bytes: 12, available_bytes: 0 }.into());
    for batch_length in [-1_i32, 0, 48] {
        assert_eq!(
            refusal_with::<{ at::BATCH_LENGTH }, _>(batch_length.to_be_bytes()),
            CorruptBatch::BatchLength { batch_length }.into()
        );
    }
}

#[test]
fn only_version_two_is_read() {
    for magic in [0_i8, 1, 3, -1] {
        let refused = refusal_with::<{ at::MAGIC }, _>(magic.to_be_bytes());
        assert_eq!(refused, CorruptBatch::Magic { magic }.into());
    }
}

#[test]
fn offsets_stay_within_those_of_a_log() {
    let offsets = |base_offset| CorruptBatch::Offsets { base_offset, last_offset_delta: 0 }.into();
    for base_offset in [-1, i64::MIN, i64::MAX] {
        assert_eq!(refusal_with::<{ at::BASE_OFFSET }, _>(base_offset.to_be_bytes()), offsets(base_offset));
    }
    let mut batch = build(Codec::None, &one_record());
    set_position(&mut batch, Offset::clamped(i64::MAX - 1), LeaderEpoch(0));
    assert_eq!(validate(&batch, &lenient()).map(|batch| batch.next_offset().get()), Ok(i64::MAX));
}

#[test]
fn the_size_limit_holds_to_the_byte() {
    let batch = build(Codec::None, &one_record());
    let size_bytes = batch.len() as u64;
    for (max_message_bytes, accepted) in [(size_bytes - 1, false), (size_bytes, true), (size_bytes + 1, true)]
    {
        let rules = ValidationRules { max_message_bytes, ..lenient() };
        let result = validate(&batch, &rules).map(|_| ());
        let expected =
            if accepted { Ok(()) } else { Err(BatchError::TooLarge { size_bytes, max_message_bytes }) };
        assert_eq!(result, expected);
    }
}

#[test]
fn a_checksum_that_is_not_of_the_contents_is_told_with_both() {
    let mut batch = build(Codec::None, &one_record());
    let stored = BatchView::parse(&batch).unwrap().crc();
    let last = batch.len() - 1;
    batch[last] ^= 1;
    let computed = crc32c::crc32c(&batch[21..]);
    assert!(!BatchView::parse(&batch).unwrap().crc_is_valid());
    assert_eq!(refusal(&batch), CorruptBatch::Crc { stored, computed }.into());
}

#[test]
fn a_producer_sets_no_attribute_but_the_codec() {
    assert_eq!(attributes(0b0000_1000), InvalidBatch::LogAppendTime.into());
    assert_eq!(attributes(0b0001_0000), UnsupportedBatch::Transactional.into());
    assert_eq!(attributes(0b0010_0000), InvalidBatch::Control.into());
    assert_eq!(attributes(0b0100_0000), InvalidBatch::DeleteHorizon.into());
    for bit in 7..16 {
        let bits = 1_u16 << bit;
        assert_eq!(attributes(bits as i16), InvalidBatch::UnknownAttributes { bits }.into());
    }
    for id in 5..8 {
        assert_eq!(attributes(id), InvalidBatch::UnknownCodec { id: id as u8 }.into());
    }
}

#[test]
fn the_count_is_positive_and_that_of_the_offsets() {
    let count = |record_count: i32| refusal_with::<{ at::RECORD_COUNT }, _>(record_count.to_be_bytes());
    for record_count in [-1, 0, 2, i32::MAX, i32::MIN] {
        assert_eq!(
            count(record_count),
            CorruptBatch::RecordCount { record_count, last_offset_delta: 0 }.into()
        );
    }
}

#[test]
fn counts_that_agree_with_each_other_must_agree_with_the_records() {
    let mut batch = build(Codec::None, &one_record());
    forge::<{ at::LAST_OFFSET_DELTA }, _>(&mut batch, (i32::MAX - 1).to_be_bytes());
    forge::<{ at::RECORD_COUNT }, _>(&mut batch, i32::MAX.to_be_bytes());
    assert_eq!(refusal(&batch), CorruptBatch::Record { index: 1, fault: RecordFault::Truncated }.into());

    let mut batch = build(Codec::None, &[one_record(), one_record()].concat());
    forge::<{ at::LAST_OFFSET_DELTA }, _>(&mut batch, 0_i32.to_be_bytes());
    forge::<{ at::RECORD_COUNT }, _>(&mut batch, 1_i32.to_be_bytes());
    let second_record = (batch.len() - 61) / 2;
    assert_eq!(refusal(&batch), CorruptBatch::BytesAfterRecords { bytes: second_record }.into());
}

#[test]
fn a_producer_has_an_epoch_and_numbers_its_records() {
    let stamped = |producer_id: i64, producer_epoch: i16, base_sequence: i32| {
        let mut batch = build(Codec::None, &one_record());
        forge::<{ at::PRODUCER_ID }, _>(&mut batch, producer_id.to_be_bytes());
        forge::<{ at::PRODUCER_EPOCH }, _>(&mut batch, producer_epoch.to_be_bytes());
        forge::<{ at::BASE_SEQUENCE }, _>(&mut batch, base_sequence.to_be_bytes());
        batch
    };
    assert!(validate(&stamped(0, 0, 0), &lenient()).is_ok());
    assert!(validate(&stamped(i64::MAX, i16::MAX, i32::MAX), &lenient()).is_ok());
    for (producer_id, producer_epoch, base_sequence) in [(9, -1, 0), (9, 0, -1), (-2, 0, 0)] {
        let refused = refusal(&stamped(producer_id, producer_epoch, base_sequence));
        let expected = InvalidBatch::Producer { producer_id, producer_epoch, base_sequence };
        assert_eq!(refused, expected.into());
    }
}

#[test]
fn epoch_and_sequence_mean_nothing_without_a_producer_id() {
    let mut batch = build(Codec::None, &one_record());
    forge::<{ at::PRODUCER_EPOCH }, _>(&mut batch, 0_i16.to_be_bytes());
    forge::<{ at::BASE_SEQUENCE }, _>(&mut batch, 0_i32.to_be_bytes());
    assert!(validate(&batch, &lenient()).is_ok());
}

#[test]
fn timestamps_may_be_ahead_by_the_limit_and_no_more() {
    let rules = |now_ms| ValidationRules { now_ms, timestamp_after_max_ms: 100, ..lenient() };
    for codec in [Codec::None, Codec::Lz4] {
        let batch = build(codec, &[Owned::new(1_000, None, None), Owned::new(5, None, None)]);
        assert!(validate(&batch, &rules(900)).is_ok());
        let ahead =
            InvalidBatch::TimestampAhead { timestamp_ms: 1_000, now_ms: 899, timestamp_after_max_ms: 100 };
        assert_eq!(validate(&batch, &rules(899)), Err(ahead.into()));
    }
}

#[test]
fn records_may_have_no_timestamp_but_no_negative_one() {
    let without = build(Codec::None, &[Owned::new(-1, None, None), Owned::new(-1, None, None)]);
    assert!(validate(&without, &lenient()).is_ok());
    let negative = |timestamp_ms| BatchError::Invalid(InvalidBatch::NegativeTimestamp { timestamp_ms });
    assert_eq!(refusal(&build(Codec::None, &[Owned::new(-2, None, None)])), negative(-2));
    let hidden = build(Codec::None, &[Owned::new(5, None, None), Owned::new(-7, None, None)]);
    assert_eq!(refusal(&hidden), negative(-7));
}

#[test]
fn the_maximum_timestamp_is_that_of_the_records() {
    for header_ms in [-1, 999, 1_001] {
        let refused = refusal_with::<{ at::MAX_TIMESTAMP }, _>(i64::to_be_bytes(header_ms));
        assert_eq!(refused, InvalidBatch::MaxTimestamp { header_ms, records_ms: 1_000 }.into());
    }
}

#[test]
fn a_record_adds_up_to_its_length() {
    // Length, attributes, timestamp delta, offset delta, key length, value length, header count.
    assert_eq!(record_fault(&[]), RecordFault::Truncated);
    assert_eq!(record_fault(&[0x0e, 0, 0, 0, 1, 1, 0]), RecordFault::Truncated);
    assert_eq!(record_fault(&[0x0a, 0, 0, 0, 1, 1, 0]), RecordFault::Truncated);
    assert_eq!(record_fault(&[0x01, 0, 0, 0, 1, 1, 0]), RecordFault::NegativeLength { value: -1 });
    assert_eq!(record_fault(&[0x0e, 0, 0, 0, 1, 1, 0, 0]), RecordFault::TrailingBytes { bytes: 1 });
    assert_eq!(record_fault(&[0x0c, 0, 0, 0, 3, 1, 0]), RecordFault::NegativeLength { value: -2 });
    assert_eq!(record_fault(&[0x0c, 0, 0, 0, 1, 3, 0]), RecordFault::NegativeLength { value: -2 });
    assert_eq!(record_fault(&[0x0c, 0, 0, 0, 8, 1, 0]), RecordFault::Truncated);
    assert_eq!(record_fault(&[0x0c, 0, 0, 0, 1, 1, 1]), RecordFault::NegativeLength { value: -1 });
    assert_eq!(record_fault(&[0x0c, 0, 0, 0, 1, 1, 2]), RecordFault::Truncated);
    assert_eq!(
        records_fault(&[0x0c, 0, 0, 0, 1, 1, 0, 9]),
        CorruptBatch::BytesAfterRecords { bytes: 1 }.into()
    );
}

#[test]
fn a_header_key_is_utf8_and_never_absent() {
    assert_eq!(record_fault(&[0x12, 0, 0, 0, 1, 1, 2, 2, 0xff, 1]), RecordFault::HeaderKey);
    assert_eq!(record_fault(&[0x10, 0, 0, 0, 1, 1, 2, 1, 1]), RecordFault::NegativeLength { value: -1 });
}

#[test]
fn offset_deltas_count_from_zero_without_a_gap() {
    let delta = |found| RecordFault::OffsetDelta { found, expected: 0 };
    assert_eq!(record_fault(&[0x0c, 0, 0, 2, 1, 1, 0]), delta(1));
    assert_eq!(record_fault(&[0x0c, 0, 0, 1, 1, 1, 0]), delta(-1));

    let three = build(Codec::None, &[one_record(), one_record(), one_record()].concat());
    let record = |delta| [0x0c, 0, 0, delta, 1, 1, 0];
    let gap = with_payload(&three, Codec::None, &[record(0), record(4)].concat());
    assert_eq!(
        refusal(&gap),
        CorruptBatch::Record { index: 1, fault: RecordFault::OffsetDelta { found: 2, expected: 1 } }.into()
    );
}

#[test]
fn a_compacted_batch_can_be_read_but_not_produced() {
    let three = build(Codec::None, &[one_record(), one_record(), one_record()].concat());
    let record = |delta| [0x0c, 0, 0, delta, 1, 1, 0];
    let mut compacted = with_payload(&three, Codec::None, &[record(0), record(4)].concat()).to_vec();
    forge::<{ at::RECORD_COUNT }, _>(&mut compacted, 2_i32.to_be_bytes());
    set_position(&mut compacted, Offset::clamped(40), LeaderEpoch(0));

    let mut scratch = Vec::new();
    let records = BatchView::parse(&compacted).unwrap().records(&mut scratch, 0).unwrap();
    assert_eq!(records.map(|record| record.unwrap().offset.get()).collect::<Vec<_>>(), [40, 42]);
    assert_eq!(
        refusal(&compacted),
        CorruptBatch::RecordCount { record_count: 2, last_offset_delta: 2 }.into()
    );
}

#[test]
fn reading_ends_after_the_first_error() {
    let two = build(Codec::None, &[one_record(), one_record()].concat());
    let record = |delta| [0x0c, 0, 0, delta, 1, 1, 0];
    // The first record's offset is past the header's last one; the second is good.
    let bad = with_payload(&two, Codec::None, &[record(4), record(2)].concat());
    let mut scratch = Vec::new();
    let mut records = BatchView::parse(&bad).unwrap().records(&mut scratch, 0).unwrap();
    let fault = RecordFault::OffsetDelta { found: 2, expected: 0 };
    assert_eq!(records.next().unwrap().unwrap_err(), CorruptBatch::Record { index: 0, fault }.into());
    assert!(records.next().is_none());
}

#[test]
fn a_timestamp_out_of_range_is_no_record() {
    let delta = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let payload = [&[0x1e, 0][..], &delta, &[0, 1, 1, 0]].concat();
    assert_eq!(record_fault(&payload), RecordFault::TimestampRange);
}

#[test]
fn relaxed_trusts_the_header_of_a_compressed_batch_and_strict_does_not() {
    let two = [one_record(), one_record()].concat();
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut batch = build(codec, &two);
        forge::<{ at::LAST_OFFSET_DELTA }, _>(&mut batch, 2_i32.to_be_bytes());
        forge::<{ at::RECORD_COUNT }, _>(&mut batch, 3_i32.to_be_bytes());
        let relaxed = ValidationRules { strict: false, ..lenient() };
        assert!(validate(&batch, &relaxed).is_ok());
        // But not beyond what could be unpacked at all: three records take at least 21 bytes.
        let narrow = |max_decompressed_bytes| ValidationRules { max_decompressed_bytes, ..relaxed };
        assert!(validate(&batch, &narrow(21)).is_ok());
        assert_eq!(
            validate(&batch, &narrow(20)).expect_err("refused"),
            CorruptBatch::RecordCount { record_count: 3, last_offset_delta: 2 }.into()
        );
        assert_eq!(refusal(&batch), CorruptBatch::Record { index: 2, fault: RecordFault::Truncated }.into());
    }
}

//! What goes in comes out: building, reading, patching, packing anew.

use proptest::prelude::*;

use super::{
    MIB, Owned, any_codec, any_record, any_records, beside_the_source, build, lenient, max_timestamp,
    one_record, read_all,
};
use crate::record::{
    BatchBuilder, BatchError, BatchOptions, BatchView, Codec, InvalidBatch, ProducerStamp, TimestampType,
    batches, frame_size, recompress, set_log_append_time, set_position, validate,
};
use crate::types::{LeaderEpoch, Offset};

proptest! {
    #![proptest_config(beside_the_source())]

    #[test]
    fn any_records_survive_a_round_trip_under_any_codec(records in any_records(), codec in any_codec()) {
        let built = build(codec, &records);
        let batch = validate(&built, &lenient()).unwrap();
        prop_assert_eq!(batch.as_bytes(), &built[..]);
        prop_assert_eq!(frame_size(&built), Some(built.len()));
        prop_assert_eq!(batch.record_count() as usize, records.len());
        prop_assert_eq!(batch.max_timestamp(), max_timestamp(&records));
        prop_assert_eq!(batch.attributes().codec(), Some(codec));
        prop_assert_eq!(batch.attributes().timestamp_type(), TimestampType::CreateTime);
        prop_assert_eq!(read_all(&built), records);
    }

    #[test]
    fn a_position_moves_the_records_and_nothing_else(
        records in any_records(),
        codec in any_codec(),
        base in 0..i64::MAX / 2,
        epoch in 0..i32::MAX,
    ) {
        let mut batch = build(codec, &records);
        set_position(&mut batch, Offset::clamped(base), LeaderEpoch(epoch));
        let view = validate(&batch, &lenient()).unwrap();
        prop_assert_eq!(view.leader_epoch(), LeaderEpoch(epoch));
        let mut scratch = Vec::new();
        let offsets = view.records(&mut scratch, MIB).unwrap().map(|record| record.unwrap().offset.get());
        prop_assert!(offsets.eq(base..base + records.len() as i64));
        prop_assert_eq!(view.next_offset().get(), base + records.len() as i64);
        prop_assert_eq!(read_all(&batch), records);
    }

    #[test]
    fn another_codec_keeps_the_records_and_the_header(
        records in any_records(),
        from in any_codec(),
        to in any_codec(),
    ) {
        let mut batch = build(from, &records);
        set_position(&mut batch, Offset::clamped(77), LeaderEpoch(3));
        let packed = recompress(&BatchView::parse(&batch).unwrap(), to, MIB).unwrap();
        let view = validate(&packed, &lenient()).unwrap();
        prop_assert_eq!(view.attributes().codec(), Some(to));
        prop_assert_eq!((view.base_offset().get(), view.leader_epoch()), (77, LeaderEpoch(3)));
        prop_assert_eq!(read_all(&packed), records.clone());
        let back = recompress(&view, Codec::None, MIB).unwrap();
        let mut plain = build(Codec::None, &records);
        set_position(&mut plain, Offset::clamped(77), LeaderEpoch(3));
        prop_assert_eq!(back, plain);
    }

    #[test]
    fn log_append_time_is_every_records_timestamp(
        records in any_records(),
        codec in any_codec(),
        now_ms in 0..i64::MAX,
    ) {
        let mut batch = build(codec, &records);
        set_log_append_time(&mut batch, now_ms);
        let view = BatchView::parse(&batch).unwrap();
        prop_assert!(view.crc_is_valid());
        prop_assert_eq!(view.attributes().timestamp_type(), TimestampType::LogAppendTime);
        prop_assert_eq!(view.attributes().codec(), Some(codec));
        prop_assert_eq!(view.max_timestamp(), now_ms);
        let stamped: Vec<_> = records.into_iter().map(|record| Owned { timestamp_ms: now_ms, ..record }).collect();
        prop_assert_eq!(read_all(&batch), stamped);
    }

    #[test]
    fn batches_back_to_back_are_told_apart(all in prop::collection::vec((any_records(), any_codec()), 0..4)) {
        let built: Vec<_> = all.iter().map(|(records, codec)| build(*codec, records)).collect();
        let joined = built.concat();
        let read: Vec<_> = batches(&joined).map(|batch| batch.unwrap().as_bytes().to_vec()).collect();
        prop_assert_eq!(read, built);
    }

    #[test]
    fn a_record_adds_no_more_than_its_upper_bound(records in any_records(), last in any_record()) {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for record in &records {
            record.push_to(&mut builder);
        }
        let before = builder.size_bytes();
        last.push_to(&mut builder);
        let header_bytes =
            last.headers.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
        let bound = BatchBuilder::record_size_upper_bound(
            last.key.as_deref(),
            last.value.as_deref(),
            header_bytes,
            last.headers.len(),
        );
        prop_assert!(builder.size_bytes() - before <= bound);
        prop_assert_eq!(builder.size_bytes(), builder.build().unwrap().len());
    }
}

#[test]
fn a_view_ends_where_its_batch_ends() {
    let one = build(Codec::None, &one_record());
    let two = [&one[..], b"what follows"].concat();
    assert_eq!(BatchView::parse(&two).unwrap().as_bytes(), &one[..]);
}

#[test]
fn an_uncompressed_record_is_borrowed_from_its_batch() {
    let batch = build(Codec::None, &one_record());
    let mut scratch = Vec::new();
    let record = BatchView::parse(&batch).unwrap().records(&mut scratch, 0).unwrap().next().unwrap().unwrap();
    assert!(batch.as_ptr_range().contains(&record.value.unwrap().as_ptr()));
    assert_eq!(scratch.capacity(), 0);
}

#[test]
fn a_scratch_buffer_serves_batch_after_batch() {
    let big = build(Codec::Zstd, &[Owned::new(1, None, Some(&"x".repeat(50_000)))]);
    let small = build(Codec::Lz4, &one_record());
    let mut scratch = Vec::new();
    for batch in [&big, &small, &big] {
        let records = BatchView::parse(batch).unwrap().records(&mut scratch, MIB).unwrap();
        let records: Vec<Owned> = records.map(|record| record.unwrap().into()).collect();
        assert_eq!(records, read_all(batch));
    }
    let held = scratch.as_ptr();
    BatchView::parse(&big).unwrap().records(&mut scratch, MIB).unwrap();
    assert_eq!(scratch.as_ptr(), held);
}

#[test]
fn a_compressed_batch_holds_no_more_memory_than_it_needs() {
    let records = [Owned::new(1, None, Some(&"x".repeat(200_000)))];
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let batch = build(codec, &records);
        assert!(batch.capacity() <= batch.len() + batch.len() / 4, "{codec}: {}", batch.capacity());
    }
}

#[test]
fn a_batch_without_records_is_not_built() {
    let empty = BatchBuilder::new(BatchOptions::default());
    assert_eq!(empty.build(), Err(BatchError::Invalid(InvalidBatch::Empty)));
}

#[test]
fn timestamps_too_far_apart_do_not_fit_a_batch() {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(i64::MAX, None, None, []);
    builder.push(-2, None, None, []);
    assert_eq!(builder.build(), Err(BatchError::Invalid(InvalidBatch::TooLargeForFormat)));
}

#[test]
fn the_producer_is_stamped_on_the_batch() {
    let mut builder = BatchBuilder::new(BatchOptions { codec: Codec::Gzip });
    builder.push(1, None, Some(b"v"), []);
    builder.set_producer(ProducerStamp { producer_id: 4_000, producer_epoch: 5, base_sequence: 6 });
    let batch = builder.build().unwrap();
    let view = BatchView::parse(&batch).unwrap();
    assert_eq!((view.producer_id(), view.producer_epoch(), view.base_sequence()), (4_000, 5, 6));
}

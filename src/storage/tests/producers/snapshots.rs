//! Snapshots of what is remembered: their bytes, and their names.

use proptest::prelude::*;

use super::super::super::fs::RealFs;
use super::super::super::producer_snapshot::{self, SnapshotFiles};
use super::super::super::small_file;
use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_snapshot_comes_back_as_it_was(
        shapes in prop::collection::btree_map(0..i64::MAX, any_shape(), 0..5),
        beyond in 0..1_000i64,
    ) {
        let states: Vec<_> = shapes.into_iter().map(|(producer, shape)| shape.state(producer)).collect();
        let end = states.iter().flat_map(|state| &state.batches).map(Remembered::next_offset).max();
        let end = offset(end.unwrap_or_default().get() + beyond);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(producer_snapshot::name(end)), producer_snapshot::encode(end, &states)).unwrap();
        prop_assert_eq!(producer_snapshot::read(&RealFs, dir.path(), end).unwrap(), Some(states));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(body in prop::collection::vec(any::<u8>(), 0..150)) {
        let dir = tempfile::tempdir().unwrap();
        let bytes = small_file::encode(small_file::FileKind::Producers, 1, &body);
        std::fs::write(dir.path().join(producer_snapshot::name(Offset::ZERO)), bytes).unwrap();
        let _ = producer_snapshot::read(&RealFs, dir.path(), Offset::ZERO);
    }
}

#[derive(Debug)]
struct Shape {
    epoch: i16,
    idle_ms: u64,
    before: u32,
    base_sequence: i32,
    /// Of each batch, its records and how far it is from the one before.
    batches: Vec<(u32, i64)>,
}

fn any_shape() -> impl Strategy<Value = Shape> {
    let batches = prop::collection::vec((1..=1u32 << 20, 0..1_000i64), 1..=REMEMBERED_BATCHES);
    (0..=i16::MAX, any::<u64>(), 0..=1u32 << 31, 0..=i32::MAX, batches).prop_map(
        |(epoch, idle_ms, before, base_sequence, batches)| Shape {
            epoch,
            idle_ms,
            before,
            base_sequence,
            batches,
        },
    )
}

impl Shape {
    fn state(self, producer: i64) -> ProducerState {
        let (mut before, mut base_sequence, mut next) = (self.before, self.base_sequence, 0);
        let mut batches = Vec::new();
        for (records, gap) in self.batches {
            let base_offset = offset(next + gap);
            let batch = Remembered { epoch: self.epoch, base_sequence, records, base_offset, before };
            (before, base_sequence, next) =
                (batch.through(), batch.next_sequence(), batch.next_offset().get());
            batches.push(batch);
        }
        ProducerState { producer_id: id(producer), idle_ms: self.idle_ms, batches }
    }
}

#[test]
fn the_format_is_pinned() {
    let first = Remembered { epoch: 2, base_sequence: 5, records: 6, base_offset: offset(7), before: 4 };
    let second = Remembered { epoch: 2, base_sequence: 11, records: 9, base_offset: offset(20), before: 10 };
    let state = ProducerState { producer_id: id(1), idle_ms: 3, batches: vec![first, second] };
    let bytes = producer_snapshot::encode(offset(30), &[state]);
    let body = small_file::decode(small_file::FileKind::Producers, 1, &bytes).unwrap();
    let mut expected = 30u64.to_be_bytes().to_vec();
    expected.extend(1u32.to_be_bytes());
    expected.extend(1u64.to_be_bytes());
    expected.extend([0, 2]);
    expected.extend(3u64.to_be_bytes());
    expected.extend(4u32.to_be_bytes());
    expected.extend(5u32.to_be_bytes());
    expected.push(2);
    for (base_offset, records) in [(7u64, 6u32), (20, 9)] {
        expected.extend(base_offset.to_be_bytes());
        expected.extend(records.to_be_bytes());
    }
    assert_eq!(body, expected);
}

#[test]
fn snapshots_are_found_by_their_names() {
    let names = [
        "00000000000000000030.snapshot",
        "7.snapshot",
        "00000000000000000009.snapshot",
        "00000000000000000001.log",
    ];
    let found: Vec<_> = SnapshotFiles::among(names.into_iter()).descending().collect();
    assert_eq!(found, [offset(30), offset(9)]);
    assert!(producer_snapshot::is_temporary("00000000000000000030.snapshot.tmp"));
    assert!(!producer_snapshot::is_temporary("00000000000000000030.snapshot"));
    assert!(!producer_snapshot::is_temporary("seals.tmp"));
}
